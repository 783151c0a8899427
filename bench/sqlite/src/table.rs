//! One table: every peer's turns, and the middle of them.

use crate::effort::{Effort, Kind};
use crate::programs::{PEERS, Programs, Turn};
use std::fmt::Write as _;

/// A peer with its turns, or why it is void.
pub struct Row {
    pub peer: &'static str,
    version: String,
    turns: Vec<Turn>,
    void: Option<String>,
}

impl Row {
    /// The middle of its turns; nothing when the row is void.
    pub fn median(&self, of: impl Fn(&Turn) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.turns.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().filter(|_| self.void.is_none())
    }
}

/// What was measured of one kind.
pub struct Table {
    pub kind: Kind,
    pub rows: Vec<Row>,
}

impl Table {
    /// Lets everybody take a turn in every round.
    pub fn measure(kind: Kind, effort: &Effort, programs: &Programs) -> Self {
        let mut rows: Vec<Row> = PEERS
            .iter()
            .map(|peer| Row { peer, version: String::new(), turns: Vec::new(), void: None })
            .collect();
        for _ in 0..effort.rounds {
            for row in &mut rows {
                let (version, turn) = programs.turn(row.peer, kind, effort.length(kind));
                row.version = version;
                match turn {
                    Ok(turn) => row.turns.push(turn),
                    Err(reason) => row.void = Some(reason),
                }
            }
        }
        Self { kind, rows }
    }

    /// The row of a peer.
    pub fn row(&self, peer: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.peer == peer)
    }

    /// As the README shows it. `mainstay is` says how many times as many calls mainstay made.
    pub fn in_markdown(&self) -> String {
        let mut text = format!(
            "### {} (`{}`)\n\n| | SQLite | writes/s | reads/s | mainstay is | least served of the \
             most | p50 ms | p99 ms | worst ms |\n|---|---|---|---|---|---|---|---|---|\n",
            self.kind.title, self.kind.name
        );
        let all = |turn: &Turn| turn.wrote + turn.read;
        let ours = self.rows.first().and_then(|row| row.median(all)).unwrap_or(f64::NAN);
        for row in &self.rows {
            let line = match (&row.void, row.median(all)) {
                (None, Some(calls)) => {
                    let of = |of: fn(&Turn) -> f64| row.median(of).unwrap_or(f64::NAN);
                    format!(
                        "{:.0} | {:.0} | {:.2} × | {:.2} | {:.2} | {:.2} | {:.1}",
                        of(|turn| turn.wrote),
                        of(|turn| turn.read),
                        ours / calls,
                        of(|turn| turn.fairness),
                        of(|turn| turn.p50),
                        of(|turn| turn.p99),
                        of(|turn| turn.worst),
                    )
                }
                (Some(reason), _) => format!("void: {reason} | | | | | |"),
                (None, None) => "no turn | | | | | |".to_owned(),
            };
            writeln!(text, "| {} | {} | {line} |", row.peer, row.version)
                .expect("a text can be written to");
        }
        text
    }
}
