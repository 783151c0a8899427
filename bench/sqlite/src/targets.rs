//! What was aimed at, and whether it was met. An aim whose tables were not measured is not judged.

use crate::programs::Turn;
use crate::table::{Row, Table};
use std::fmt::Write as _;

/// One aim.
pub struct Aim {
    what: &'static str,
    least: f64,
    measured: f64,
    pub is_met: bool,
}

const OURS: &str = "mainstay";
const SQLX: [&str; 2] = ["sqlx, pool of 10", "sqlx, pool of 1"];

fn calls(turn: &Turn) -> f64 {
    turn.wrote + turn.read
}

/// Judges every aim whose tables are there.
pub fn judge(tables: &[Table]) -> Vec<Aim> {
    let find = |name: &str| tables.iter().find(|table| table.kind.name == name);
    let ours = |name: &str, of: fn(&Turn) -> f64| find(name)?.row(OURS)?.median(of).or(Some(0.0));
    // The better of sqlx's two; a row that is void is no comparison.
    let sqlx = |name: &str, of: fn(&Turn) -> f64| {
        let rows = SQLX.iter().filter_map(|peer| find(name)?.row(peer));
        rows.filter_map(|row: &Row| row.median(of)).max_by(f64::total_cmp)
    };
    let ratio = |name: &str, against: &str, of: fn(&Turn) -> f64| {
        Some(ours(name, of)? / sqlx(against, of)?)
    };
    let aims = [
        ("FULL, 64 callers: of sqlx at FULL", 20.0, ratio("full-64", "full-64", calls)),
        ("FULL, 64 callers: of sqlx at NORMAL", 4.0, ratio("full-64", "normal-64", calls)),
        (
            "FULL, 64 callers: the least served of the most",
            0.8,
            ours("full-64", |turn| turn.fairness),
        ),
        ("FULL, one caller: of sqlx", 1.0, ratio("full-1", "full-1", calls)),
        ("32 readers and 32 writers: writes of sqlx's", 3.0, ratio("mixed", "mixed", |turn| turn.wrote)),
        ("32 readers and 32 writers: reads of sqlx's", 3.0, ratio("mixed", "mixed", |turn| turn.read)),
        ("point reads, one caller: of sqlx", 1.0, ratio("reads-1", "reads-1", calls)),
        ("point reads, 64 callers: of sqlx", 2.0, ratio("reads-64", "reads-64", calls)),
    ];
    aims.into_iter()
        .filter_map(|(what, least, measured)| {
            let measured = measured?;
            Some(Aim { what, least, measured, is_met: measured >= least })
        })
        .collect()
}

/// As the README shows it.
pub fn in_markdown(aims: &[Aim]) -> String {
    let mut text = "| aim | at least | measured | |\n|---|---|---|---|\n".to_owned();
    for aim in aims {
        let met = if aim.is_met { "met" } else { "**missed**" };
        writeln!(text, "| {} | {} | {:.2} | {met} |", aim.what, aim.least, aim.measured)
            .expect("a text can be written to");
    }
    text
}
