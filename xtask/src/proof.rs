//! `cargo xtask proof`: a test of minutes in its long form. Rare interleavings need many tries, and a
//! gate that takes minutes longer is a gate that is gone around.

use std::path::Path;

use crate::postgres;
use crate::steps::shown;

/// A promise: its name, the crate and the tests in it that try it, and the setting that makes them long.
struct Proof {
    name: &'static str,
    package: &'static str,
    tests: &'static str,
    length: (&'static str, &'static str),
}

const PROOFS: [Proof; 6] = [
    Proof {
        name: "ledger",
        package: "mainstay",
        tests: "ledger::",
        length: ("MAINSTAY_LEDGER", "10000"),
    },
    Proof {
        name: "restart",
        package: "mainstay",
        tests: "restart::",
        length: ("MAINSTAY_RESTARTS", "100"),
    },
    Proof {
        name: "outage",
        package: "mainstay",
        tests: "outage::",
        length: ("MAINSTAY_OUTAGE", "60"),
    },
    Proof {
        name: "cancel",
        package: "mainstay",
        tests: "cancelled::",
        length: ("MAINSTAY_CANCELS", "10000"),
    },
    Proof {
        name: "pool-model",
        package: "mainstay-pool",
        tests: "model::",
        length: ("MAINSTAY_RUNS", "3000"),
    },
    Proof {
        name: "sqlite-kill",
        package: "mainstay-sqlite",
        tests: "killed::",
        length: ("MAINSTAY_KILLS", "200"),
    },
];

fn find(name: &str) -> Option<&'static Proof> {
    PROOFS.iter().find(|proof| proof.name == name)
}

/// The names of all proofs, for the usage.
pub(crate) fn names() -> String {
    PROOFS.map(|proof| proof.name).join(", ")
}

/// Whether there is a proof of this name.
pub(crate) fn is_known(name: &str) -> bool {
    find(name).is_some()
}

/// Runs it. Whoever has set its length already is not overruled.
pub(crate) fn run(root: &Path, name: &str) -> bool {
    let Some(proof) = find(name) else {
        return false;
    };
    if proof.package == "mainstay" && postgres::find().is_none() {
        eprintln!("a proof needs PostgreSQL; `cargo xtask test` installs it");
        return false;
    }
    let (setting, value) = proof.length;
    let length = std::env::var(setting).unwrap_or_else(|_| value.to_owned());
    let command = [
        "cargo",
        "test",
        "--package",
        proof.package,
        "--test",
        "it",
        proof.tests,
        "--",
        "--nocapture",
    ];
    shown(root, &command, &[(setting, &length)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_proved_is_known() {
        assert!(PROOFS.iter().all(|proof| is_known(proof.name)));
        assert!(names().contains("ledger"), "{}", names());
        assert!(!is_known("anything"));
        assert!(!run(Path::new("."), "anything"));
    }
}
