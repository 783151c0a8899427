//! A result that is larger than the memory is no problem.

use super::saboteur::{Cursoring, Transactions};
use super::subject::{Broken, ensure, same};
use super::{Law, Saboteur, Subject, Verdict, law};
use mainstay::System;

pub(super) fn laws() -> Vec<Law> {
    vec![
        law!(
            a_stream_hands_out_every_row_in_order,
            Saboteur::cursor(Cursoring::LosesTheEnd),
            every_row
        ),
        law!(
            the_first_row_arrives_before_the_server_has_finished,
            Saboteur::cursor(Cursoring::WaitsForTheEnd),
            first_row_early
        ),
        law!(
            a_large_stream_keeps_memory_bounded,
            Saboteur::cursor(Cursoring::ReadsAhead),
            bounded
        )
        .alone(),
        law!(
            a_dropped_stream_gives_its_connection_back,
            Saboteur::transactions(Transactions::NeverStop),
            dropped
        ),
    ]
}

/// One row is so long, in bytes.
const ROW: u64 = 16 * 1024;
/// The whole result: one GiB.
const RESULT: u64 = 1 << 30;
/// By so much may the process grow while it reads it.
const GROWTH: u64 = 64 << 20;

fn series(count: &str) -> String {
    format!("with recursive n (i) as (select 1 union all select i + 1 from n where i < {count}) ")
}

async fn every_row(subject: Subject) -> Verdict {
    let text = series("2000") + "select i from n";
    let mut rows = subject.db.fetch::<i64>(&text, ());
    let mut expected = 1;
    while let Some(row) = rows.next().await? {
        same!(row, expected);
        expected += 1;
    }
    same!(expected, 2001);
    Ok(())
}

async fn first_row_early(subject: Subject) -> Verdict {
    // It would take the server for ever; so only a stream can show its beginning.
    let text = series("1000000000000") + "select i from n";
    let mut rows = subject.db.fetch::<i64>(&text, ());
    let limit = std::time::Duration::from_secs(5);
    let first = tokio::time::timeout(limit, rows.next()).await;
    let first = first.map_err(|_| Broken::new("no row of an endless result within 5 s"))??;
    same!(first, Some(1));
    Ok(())
}

async fn bounded(subject: Subject) -> Verdict {
    let filler = match subject.system() {
        System::Sqlite => format!("cast(zeroblob({ROW}) as blob)"),
        _ => format!("decode(repeat('00', {ROW}), 'hex')"),
    };
    let text = series(&(RESULT / ROW).to_string()) + &format!("select {filler} as filler from n");
    let before = resident()?;
    let mut peak = before;
    let mut bytes = 0;
    let mut rows = subject.db.fetch::<mainstay::Row>(&text, ());
    while let Some(row) = rows.next().await? {
        if let Some(mainstay::Value::Bytes(filler)) = row.values().first() {
            bytes += filler.len() as u64;
        }
        if bytes % (ROW * 256) == 0 {
            peak = peak.max(resident()?);
            let grown = peak.saturating_sub(before);
            ensure!(grown < GROWTH, "the process grew by {} MiB", grown >> 20);
        }
    }
    same!(bytes, RESULT);
    Ok(())
}

async fn dropped(subject: Subject) -> Verdict {
    let text = series("1000000000000") + "select i from n";
    for _ in 0..subject.db.status().limit() * 2 {
        let mut rows = subject.db.fetch::<i64>(&text, ());
        same!(rows.next().await?, Some(1));
    }
    same!(subject.db.fetch_one::<i64>("select 1", ()).await?, 1);
    Ok(())
}

/// Resident memory of this process, in bytes.
fn resident() -> Result<u64, Broken> {
    let status = std::fs::read_to_string("/proc/self/statm")
        .map_err(|error| Broken::new(format!("the process's memory cannot be read: {error}")))?;
    let pages = status
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| Broken::new("the process's memory cannot be read"))?;
    Ok(pages * 4096)
}
