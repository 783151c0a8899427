//! The table of `tests/data`, and what it means in the words of the library.

use mainstay_core::{Class, Error, Evidence};

/// A result code.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) code: i32,
    pub(crate) name: &'static str,
    /// Whether the handle may be used again.
    pub(crate) usable: bool,
    retry: &'static str,
    counts: bool,
    at_commit: &'static str,
}

/// The table, with what the library answers otherwise; the reasons are in
/// `docs/decisions/0004-where-the-tables-of-failures-are-not-followed.md`.
pub(crate) fn rows() -> Vec<Row> {
    let table = include_str!("../data/result_codes.csv");
    table
        .lines()
        .skip(1)
        .map(|line| amended(row(line)))
        .collect()
}

fn row(line: &'static str) -> Row {
    let columns: Vec<_> = line.split(',').collect();
    let [code, name, _, usable, retry, counts, at_commit] = columns[..] else {
        panic!("{line} is no row")
    };
    Row {
        code: code.parse().unwrap(),
        name,
        usable: usable == "yes",
        retry,
        counts: counts == "yes",
        at_commit,
    }
}

fn amended(mut row: Row) -> Row {
    let is_io = row.code & 0xff == 10;
    if is_io && row.name != "SQLITE_IOERR_NOMEM" {
        row.usable = false;
    }
    row
}

impl Row {
    /// The columns in the words of the library:
    ///
    /// * `retry = never` is [`Class::Permanent`].
    /// * `retry = statement` and `transaction` are [`Class::RolledBack`]: a failed statement aborts
    ///   its transaction, so whatever is repeated is the whole unit. So is `unknown` where nothing
    ///   commits.
    /// * `at_commit = unknown` is [`Class::OutcomeUnknown`] in the step that commits.
    pub(crate) fn class(&self, commits: bool) -> Class {
        match (self.at_commit, self.retry) {
            ("unknown", _) if commits => Class::OutcomeUnknown,
            (_, "never") => Class::Permanent,
            _ => Class::RolledBack,
        }
    }

    /// What is not as the row says. An unknown outcome always counts: the disk has failed.
    pub(crate) fn difference(&self, error: &Error, commits: bool) -> Option<String> {
        let expected = self.class(commits);
        let counts = matches!(error.evidence(), Evidence::Silent | Evidence::Exhausted);
        let should_count = self.counts || expected == Class::OutcomeUnknown;
        let agrees = error.class() == expected && counts == should_count;
        let found = (error.kind(), error.class(), error.evidence());
        let site = if commits { " at COMMIT" } else { "" };
        (!agrees).then(|| {
            let Self { code, name, .. } = self;
            format!("{code} {name}{site}: {expected:?}, counts {should_count}; found {found:?}")
        })
    }
}
