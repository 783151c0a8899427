//! The writing process is killed at random moments. What it had been told was committed is kept in a
//! ledger outside: the pipe to its parent, which outlives it.

use crate::{Bench, PLAIN, WRITE, backend, execute, on, soon};
use futures_util::future::join_all;
use mainstay_core::Statement;
use mainstay_core::backend::{Backend, Want};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Set for the child: the file that it writes to, and where its numbers begin.
const FILE: &str = "MAINSTAY_KILLED_FILE";
const FROM: &str = "MAINSTAY_KILLED_FROM";
/// How often the process is killed; a few times in the gate, hundreds as a proof.
const ROUNDS: &str = "MAINSTAY_KILLS";
const WRITERS: i64 = 16;
const NAME: &str =
    "killed::what_was_acknowledged_survives_the_death_of_the_process_and_no_unit_is_half_there";

/// Writes for ever; every other unit is a batch of two rows.
async fn write_until_killed(path: &Path, from: i64) {
    let writer = backend(path).connect(WRITE, soon()).await.unwrap();
    let one = async |number: i64| {
        for step in 0_i64.. {
            let id = from + step * WRITERS + number;
            let insert =
                |half| Statement::new("insert into unit values ($1, $2)", (id, half)).unwrap();
            if id % 2 == 0 {
                let both = [insert(1), insert(2)];
                writer.batch_shared(&both, PLAIN, on(WRITE)).await.unwrap();
            } else {
                writer
                    .run_shared(&insert(0), Want::Affected, on(WRITE))
                    .await
                    .unwrap();
            }
            let mut out = std::io::stdout().lock();
            writeln!(out, "acknowledged {id}").unwrap();
        }
    };
    join_all((0..WRITERS).map(one)).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_death_of_the_process_and_no_unit_is_half_there() {
    if let (Ok(path), Ok(from)) = (std::env::var(FILE), std::env::var(FROM)) {
        return write_until_killed(Path::new(&path), from.parse().unwrap()).await;
    }
    let rounds: u64 = std::env::var(ROUNDS).map_or(8, |rounds| rounds.parse().unwrap());
    let seed = RandomState::new();
    let bench = Bench::new().await;
    let table = "create table unit (id integer not null, half integer not null)";
    execute(&*bench.writer, table).await.unwrap();
    let (path, mut total, mut from) = (bench.path(), 0, 0);
    // The last handle of this process, so that every round begins with a recovery.
    bench.writer.close(soon()).await;
    bench.reader.close(soon()).await;
    for round in 0..rounds {
        // After so many acknowledgements: somewhere in the middle of the next commit.
        let patience = 1 + seed.hash_one(round) % 400;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(FILE, &path)
            .env(FROM, from.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = HashSet::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, id)) = line.split_once("acknowledged ") {
                acknowledged.insert(id.parse::<i64>().unwrap());
            }
            if acknowledged.len() as u64 == patience {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(
            acknowledged.len() as u64 >= patience,
            "the child ended by itself"
        );
        let found = rusqlite::Connection::open(&path).unwrap();
        let check: String = found
            .query_row("pragma integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(check, "ok");
        let mut units = found
            .prepare("select id, count(*) from unit group by id")
            .unwrap();
        let units = units
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        let units: Vec<(i64, i64)> = units.collect::<Result<_, _>>().unwrap();
        for (id, rows) in &units {
            assert_eq!(*rows, 2 - id % 2, "unit {id} is half there (round {round})");
        }
        let there: HashSet<i64> = units.iter().map(|(id, _)| *id).collect();
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(
            lost.is_empty(),
            "acknowledged and lost in round {round}: {lost:?}"
        );
        total += acknowledged.len();
        from = there.iter().max().unwrap() / WRITERS * WRITERS + WRITERS;
    }
    println!("{rounds} deaths, {total} acknowledged units, all there");
}
