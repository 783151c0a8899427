//! mainstay on SQLite beside its peers: the same table, settings, file system and allocator, in rounds
//! that take turns, so that a busy neighbour slows all of them alike. What counts is the ratio. An
//! error, a wrong answer or a row too few voids the peer's row in the table.
//!
//! `cargo run --release --manifest-path bench/sqlite/Cargo.toml` prints every table;
//! `-- --only full-64,reads-1` some of them; `--check` ends with an error when an aim is missed;
//! `--rounds 5`, `--turn-ms 1000`, `--long` (the mixed table for 60 seconds).

mod effort;
mod peers;
mod programs;
mod table;
mod targets;
mod turn;

use effort::{EVERYTHING, Effort};
use programs::Programs;
use std::process::ExitCode;
use table::Table;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("turn") {
        turn();
        return ExitCode::SUCCESS;
    }
    let effort = Effort::from_arguments();
    let programs = Programs::build();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} CPUs, {} rounds of {:?}, medians\n", effort.rounds, effort.turn);
    let mut tables = Vec::new();
    for kind in EVERYTHING.iter().filter(|kind| effort.wants(kind.name)) {
        let table = Table::measure(*kind, &effort, &programs);
        println!("{}", table.in_markdown());
        tables.push(table);
    }
    let aims = targets::judge(&tables);
    println!("{}", targets::in_markdown(&aims));
    let all_met = aims.iter().all(|aim| aim.is_met);
    if effort.check && !all_met { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A turn of a peer that is in this program.
fn turn() {
    let task = turn::Task::from_arguments();
    let version = mainstay::sqlite::rusqlite::version();
    match task.peer.as_str() {
        "mainstay" => turn::run(&task, version, peers::mainstay(&task)),
        "rusqlite, one lock" => turn::run(&task, version, peers::locked(&task)),
        "async-sqlite" => turn::run(&task, version, peers::async_sqlite(&task)),
        unknown => panic!("there is no peer {unknown} in this program"),
    }
}
