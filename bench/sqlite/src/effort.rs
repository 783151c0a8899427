//! What is measured, and how much of it.

use std::time::Duration;

/// One table.
#[derive(Copy, Clone, Debug)]
pub struct Kind {
    pub name: &'static str,
    pub title: &'static str,
    pub what: &'static str,
    pub callers: usize,
    pub synchronous: &'static str,
}

const fn kind(
    name: &'static str,
    title: &'static str,
    what: &'static str,
    callers: usize,
    synchronous: &'static str,
) -> Kind {
    Kind { name, title, what, callers, synchronous }
}

/// Every table that there is.
pub const EVERYTHING: [Kind; 11] = [
    kind("full-1", "Durable inserts, one caller", "inserts", 1, "FULL"),
    kind("full-16", "Durable inserts, 16 callers", "inserts", 16, "FULL"),
    kind("full-64", "Durable inserts, 64 callers", "inserts", 64, "FULL"),
    kind("full-512", "Durable inserts, 512 callers", "inserts", 512, "FULL"),
    kind("normal-1", "Inserts with `synchronous = NORMAL`, one caller", "inserts", 1, "NORMAL"),
    kind("normal-16", "Inserts with `synchronous = NORMAL`, 16 callers", "inserts", 16, "NORMAL"),
    kind("normal-64", "Inserts with `synchronous = NORMAL`, 64 callers", "inserts", 64, "NORMAL"),
    kind("normal-512", "Inserts with `synchronous = NORMAL`, 512 callers", "inserts", 512, "NORMAL"),
    kind("mixed", "32 readers and 32 writers, durable", "mixed", 64, "FULL"),
    kind("reads-1", "Point reads, one caller", "reads", 1, "FULL"),
    kind("reads-64", "Point reads, 64 callers", "reads", 64, "FULL"),
];

/// How much of what.
pub struct Effort {
    pub rounds: usize,
    pub turn: Duration,
    pub check: bool,
    long: bool,
    only: Vec<String>,
}

impl Effort {
    /// Reads the arguments; whatever is wrong ends the program.
    pub fn from_arguments() -> Self {
        let mut effort = Self {
            rounds: 3,
            turn: Duration::from_millis(500),
            check: false,
            long: false,
            only: Vec::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let missing = || panic!("{argument} wants a value");
                arguments.next().unwrap_or_else(missing)
            };
            let number = |text: String| text.parse::<u64>().expect("a number");
            match argument.as_str() {
                "--rounds" => effort.rounds = number(value()) as usize,
                "--turn-ms" => effort.turn = Duration::from_millis(number(value())),
                "--only" => effort.only = value().split(',').map(str::to_owned).collect(),
                "--check" => effort.check = true,
                "--long" => effort.long = true,
                unknown => panic!("unknown argument {unknown}"),
            }
        }
        effort
    }

    /// Whether this table is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|asked| asked == name)
    }

    /// How long a turn at this table is.
    pub fn length(&self, kind: Kind) -> Duration {
        match kind.what {
            "mixed" if self.long => Duration::from_secs(60),
            // Lock waits of seconds have to fit.
            "mixed" => self.turn * 4,
            _ => self.turn,
        }
    }
}
