//! Kind, class and evidence by SQLSTATE, for errors that leave the session usable.
//!
//! An ERROR always undoes its unit, so "rolled back" here means that running the whole unit again
//! can help, and "permanent" that it would fail again.

use mainstay_core::{Class, Evidence, Kind};

/// What a code means.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) class: Class,
    pub(super) evidence: Evidence,
}

/// The entry of a code: its own, else its class's.
pub(super) fn entry(code: &str) -> Entry {
    own_entry(code).unwrap_or_else(|| class_entry(code.get(..2).unwrap_or_default()))
}

/// The entry of a code with which a session is ended.
///
/// What the server ends on purpose, because of a limit or a conflict, says that it is well. All
/// else is the end of a server as far as one session can tell.
pub(super) fn parting(code: &str) -> Entry {
    use Evidence::{Answered, Silent};
    match code {
        "40001" | "40P01" => again(Kind::Conflict, Answered),
        // It idled for too long, inside a transaction or outside of one.
        "25P03" | "57P05" => again(Kind::Unreachable, Answered),
        // It would take as long again.
        "25P04" => permanent(Kind::TransactionOver),
        "57P04" => permanent(Kind::Config),
        _ => again(Kind::Unreachable, Silent),
    }
}

const fn permanent(kind: Kind) -> Entry {
    Entry {
        kind,
        class: Class::Permanent,
        evidence: Evidence::Answered,
    }
}

const fn again(kind: Kind, evidence: Evidence) -> Entry {
    Entry {
        kind,
        class: Class::RolledBack,
        evidence,
    }
}

fn own_entry(code: &str) -> Option<Entry> {
    use Evidence::{Answered, Exhausted, Silent};
    Some(match code {
        "23505" => permanent(Kind::Unique),
        "23503" | "23001" => permanent(Kind::ForeignKey),
        "23502" => permanent(Kind::NotNull),
        // An exclusion constraint is a check on several rows.
        "23514" | "23P01" => permanent(Kind::Check),
        // Serialization failure, deadlock, lock timeout, object in use: somebody was in the way.
        // A snapshot that is too old is replaced by a new one.
        "40000" | "40001" | "40P01" | "55P03" | "55006" | "72000" => {
            again(Kind::Conflict, Answered)
        }
        "40002" => permanent(Kind::Check),
        "25006" => permanent(Kind::ReadOnly),
        "25P01" | "25P02" => permanent(Kind::TransactionOver),
        // A plan or a prepared statement has gone; it is prepared anew.
        "26000" | "42P05" => again(Kind::Statement, Answered),
        "28000" | "28P01" => permanent(Kind::Credentials),
        "3D000" | "57P04" => permanent(Kind::Config),
        "53100" => again(Kind::Storage, Exhausted),
        // A limit that somebody has set, not one that was reached.
        "53400" => permanent(Kind::Other),
        "53300" => again(Kind::Unreachable, Exhausted),
        // A foreign server is short of memory or cannot be reached; this one is well.
        "HV001" | "HV00N" => again(Kind::Other, Answered),
        "58P01" | "58P02" | "58P03" => permanent(Kind::Storage),
        "57014" => permanent(Kind::Cancelled),
        "57P01" | "57P02" | "57P03" => again(Kind::Unreachable, Silent),
        "XX001" | "XX002" => permanent(Kind::Storage),
        _ => return None,
    })
}

fn class_entry(class: &str) -> Entry {
    match class {
        // The server's own outgoing connections, or a pooler's.
        "08" => again(Kind::Unreachable, Evidence::Silent),
        "0A" | "0L" | "0P" | "20" | "21" | "22" | "25" | "26" | "2B" | "2D" | "2F" | "34"
        | "3B" | "3F" | "42" | "44" | "54" | "55" => permanent(Kind::Statement),
        "23" => permanent(Kind::Check),
        "28" => permanent(Kind::Credentials),
        "40" => again(Kind::Conflict, Evidence::Answered),
        "53" => again(Kind::Other, Evidence::Exhausted),
        "57" => permanent(Kind::Other),
        "58" => again(Kind::Storage, Evidence::Exhausted),
        "F0" => permanent(Kind::Config),
        _ => permanent(Kind::Other),
    }
}
