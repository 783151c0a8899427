//! The tables of `tests/data`, and what they mean in the words of the library.

use mainstay_core::{Class, Error, Evidence};

/// Where a failure is met.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// While a session is opened.
    Connecting,
    /// Before a statement is sent on a session that has gone.
    BeforeWrite,
    /// During a statement of the read lane.
    Read,
    /// During a statement that commits by itself.
    Write,
    /// During a statement inside a transaction.
    Transaction,
    /// During COMMIT.
    Commit,
}

pub(crate) const IN_A_SESSION: [Moment; 4] = [
    Moment::Read,
    Moment::Write,
    Moment::Transaction,
    Moment::Commit,
];

/// The columns that both tables have.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Whether the unit has certainly had no effect: `yes`, `no`, `unknown`, `n/a`.
    pub(crate) rolled_back: String,
    pub(crate) usable: bool,
    /// What may be repeated.
    pub(crate) retry: String,
    pub(crate) counts: bool,
}

impl Facts {
    fn new(columns: &[&str]) -> Self {
        let [rolled_back, usable, retry, counts] = columns else {
            panic!("{columns:?} is no row")
        };
        Self {
            rolled_back: (*rolled_back).to_owned(),
            usable: *usable == "yes",
            retry: (*retry).to_owned(),
            counts: *counts == "yes",
        }
    }
}

/// A code that a server reports.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    /// As in the table, with what tells apart rows of the same code.
    pub(crate) name: String,
    pub(crate) severity: String,
    pub(crate) facts: Facts,
}

/// Something that happens to a connection.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) name: String,
    pub(crate) phase: String,
    pub(crate) facts: Facts,
}

fn lines(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().skip(1).map(|line| line.split(',').collect())
}

pub(crate) fn codes() -> Vec<Code> {
    lines(include_str!("../data/sqlstate.csv"))
        .map(|columns| Code {
            name: columns[0].to_owned(),
            severity: columns[2].to_owned(),
            facts: Facts::new(&columns[3..]),
        })
        .collect()
}

pub(crate) fn conditions() -> Vec<Condition> {
    lines(include_str!("../data/conditions.csv"))
        .map(|columns| Condition {
            name: columns[0].to_owned(),
            phase: columns[1].to_owned(),
            facts: Facts::new(&columns[2..]),
        })
        .collect()
}

/// What a row means for the one who called.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The call succeeds: nothing failed, or it failed too late to matter.
    Done,
    /// The call fails with this class.
    Failed(Class),
    /// The backend repeats the statement itself, or leaves it to its caller with this class.
    Mended(Class),
}

/// The columns in the words of the library:
///
/// * `rolled_back = no` (committed), and `n/a` with nothing to repeat on a session that lives (a
///   warning), are successes.
/// * `rolled_back = n/a` otherwise (nothing was sent) is [`Class::NotSent`], and for a read that was
///   sent, where there is nothing to roll back, [`Class::ReadLost`]. When its caller has
///   given up (`retry = never` before anything was written), the evidence forbids to repeat it.
/// * `retry = never` is [`Class::Permanent`], whatever became of the unit.
/// * `rolled_back = unknown` and `retry = by_phase` follow the moment: on the read lane nothing can
///   have been written ([`Class::ReadLost`]), before COMMIT nothing can have been committed
///   ([`Class::RolledBack`]), anywhere else nobody knows ([`Class::OutcomeUnknown`]).
/// * `rolled_back = yes` is [`Class::RolledBack`]; a read whose session ended with it is
///   [`Class::ReadLost`], which says the same and allows it to be repeated alone.
/// * A statement that may be repeated as it is on a session that lives (`retry = statement`) may
///   have been repeated by the backend already.
pub(crate) fn expected(facts: &Facts, moment: Moment) -> Outcome {
    use Outcome::{Done, Failed, Mended};
    match (&*facts.rolled_back, &*facts.retry, moment) {
        ("no", ..) => Done,
        ("n/a", "never", Moment::BeforeWrite) => Failed(Class::NotSent),
        ("n/a", "never", _) if facts.usable => Done,
        (_, "never", _) => Failed(Class::Permanent),
        ("n/a" | "unknown", _, Moment::Read) => Failed(Class::ReadLost),
        ("unknown", _, Moment::Transaction) => Failed(Class::RolledBack),
        ("n/a", ..) => Failed(Class::NotSent),
        ("unknown", ..) => Failed(Class::OutcomeUnknown),
        (_, _, Moment::Read) if !facts.usable => Failed(Class::ReadLost),
        (_, "statement", _) if facts.usable => Mended(Class::RolledBack),
        _ => Failed(Class::RolledBack),
    }
}

/// `counts_for_breaker` in the words of the library. Connecting has a gate of its own, which closes
/// at once for what cannot be cured by asking again, whatever the evidence.
pub(crate) fn counts(error: &Error, moment: Moment) -> bool {
    matches!(error.evidence(), Evidence::Silent | Evidence::Exhausted)
        || moment == Moment::Connecting && error.class() == Class::Permanent
}

/// Compares what came of a call with the row. `None` when it is as it should be.
pub(crate) fn difference(
    facts: &Facts,
    moment: Moment,
    found: &Result<(), Error>,
) -> Option<String> {
    let expected = expected(facts, moment);
    match (expected, found) {
        (Outcome::Done | Outcome::Mended(_), Ok(())) => None,
        (Outcome::Failed(class) | Outcome::Mended(class), Err(error)) => {
            let counts = counts(error, moment);
            let agrees = error.class() == class && counts == facts.counts;
            let found = (error.kind(), error.class(), error.evidence());
            (!agrees).then(|| format!("{expected:?}, counts {}; found {found:?}", facts.counts))
        }
        (expected, found) => Some(format!("{expected:?}; found {found:?}")),
    }
}

/// Fails with the names of all rows that are wrong.
pub(crate) fn assert_none(wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "{} cases are not as their rows say:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
