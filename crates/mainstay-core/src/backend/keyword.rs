//! What the first keyword of a text tells.
//!
//! Most texts say at once that they write, and some ask for what a one-shot call may not do: to
//! change a session that somebody else uses next. Everything else is asked of the database itself,
//! because nobody can tell a read from a write by looking at the text.
//!
//! One list serves both databases, so that a text is refused by its name on both and not as a syntax
//! error on one.

use super::Presumption;

/// They change the session or the transaction, and the next caller would feel it.
const SESSION: [&str; 25] = [
    "set",
    "reset",
    "discard",
    "listen",
    "unlisten",
    "prepare",
    "execute",
    "deallocate",
    "begin",
    "start",
    "commit",
    "end",
    "rollback",
    "abort",
    "savepoint",
    "release",
    "lock",
    "declare",
    "fetch",
    "move",
    "close",
    "load",
    "attach",
    "detach",
    "pragma",
];

/// They write, or may. `vacuum` cannot run in a transaction, and a checkpoint changes nothing of the
/// session.
const WRITES: [&str; 25] = [
    "insert",
    "update",
    "delete",
    "merge",
    "truncate",
    "create",
    "alter",
    "drop",
    "comment",
    "grant",
    "revoke",
    "do",
    "call",
    "copy",
    "refresh",
    "reindex",
    "cluster",
    "analyze",
    "replace",
    "vacuum",
    "checkpoint",
    "notify",
    "import",
    "security",
    "reassign",
];

impl Presumption {
    /// What a text's first keyword tells, in whatever case it is written.
    ///
    /// ```
    /// use mainstay_core::backend::Presumption;
    /// assert_eq!(Presumption::of_keyword("INSERT"), Presumption::Writes);
    /// assert_eq!(Presumption::of_keyword("begin"), Presumption::Session("begin"));
    /// assert_eq!(Presumption::of_keyword("select"), Presumption::Unknown);
    /// ```
    #[must_use]
    pub fn of_keyword(first: &str) -> Self {
        let is_first = |keyword: &&&str| keyword.eq_ignore_ascii_case(first);
        if let Some(&keyword) = SESSION.iter().find(is_first) {
            return Self::Session(keyword);
        }
        match WRITES.iter().find(is_first) {
            Some(_) => Self::Writes,
            None => Self::Unknown,
        }
    }
}
