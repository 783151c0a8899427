//! How much of what is measured: `WHAT [--callers 1,10,50] [--rounds 3] [--turn-ms 500] [--only name,name]
//! [--socket] [--delay-ms 1] [--work-ms 5]`.

use std::time::Duration;

/// What the arguments ask for.
pub struct Effort {
    /// `selects`, `writes`, `opening` or `sleeper`.
    pub what: String,
    /// How many callers at once, one table each.
    pub callers: Vec<usize>,
    /// Rounds in which everybody has a turn.
    pub rounds: usize,
    /// The length of one turn.
    pub turn: Duration,
    /// Peers whose name contains one of these; all when empty.
    pub only: Vec<String>,
    /// Through the Unix socket instead of TCP.
    pub socket: bool,
    /// Delay in each direction, by a proxy.
    pub delay: Option<Duration>,
    /// How long each select keeps its session busy.
    pub work: Option<Duration>,
}

impl Effort {
    /// Reads the arguments; whatever is wrong ends the program.
    pub fn from_arguments() -> Self {
        let mut effort = Self {
            what: "selects".into(),
            callers: vec![1, 10, 50, 500, 5_000],
            rounds: 3,
            turn: Duration::from_millis(500),
            only: Vec::new(),
            socket: false,
            delay: None,
            work: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let missing = || panic!("{argument} wants a value");
                arguments.next().unwrap_or_else(missing)
            };
            let number = |text: &str| text.parse::<u64>().expect("a number");
            match argument.as_str() {
                "--callers" => {
                    effort.callers = value().split(',').map(|n| number(n) as usize).collect();
                }
                "--rounds" => effort.rounds = number(&value()) as usize,
                "--turn-ms" => effort.turn = Duration::from_millis(number(&value())),
                "--only" => effort.only = value().split(',').map(str::to_owned).collect(),
                "--socket" => effort.socket = true,
                "--work-ms" => effort.work = Some(Duration::from_millis(number(&value()))),
                "--delay-ms" => effort.delay = Some(Duration::from_millis(number(&value()))),
                what if !what.starts_with('-') => effort.what = what.to_owned(),
                unknown => panic!("unknown argument {unknown}"),
            }
        }
        effort
    }

    /// Whether this peer has a turn: `mainstay` means all whose name has it, `=mainstay` the one that is called so.
    pub fn wants(&self, name: &str) -> bool {
        let is_meant = |part: &String| match part.strip_prefix('=') {
            Some(whole) => name == whole,
            None => name.contains(part.as_str()),
        };
        self.only.is_empty() || self.only.iter().any(is_meant)
    }
}
