//! Why one snapshot: counts that were read one after the other never add up, and an operator who
//! sees eleven connections in a pool of ten trusts nothing any more. A `Status` is taken under the
//! ledger's own lock.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::connector::Tag;

/// The pool at one instant. Unless the limit was lowered a moment ago, `in_use() <= limit`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Status {
    /// The most connections that may exist at once.
    pub limit: usize,
    /// The connections kept open even when nobody needs them.
    pub minimum: usize,
    /// Open and ready to be lent.
    pub idle: usize,
    /// Lent to a caller.
    pub lent: usize,
    /// Connections that several callers share.
    pub shared: usize,
    /// Places taken on shared connections. Not connections: no part of the sum.
    pub places: usize,
    /// Being opened.
    pub connecting: usize,
    /// Being asked whether they still answer.
    pub checking: usize,
    /// Being made clean after a user left them dirty.
    pub cleaning: usize,
    /// Being closed; they count until the other side has let go.
    pub closing: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
    /// Connections of older generations are not lent again.
    pub generation: u64,
    /// Whether lending is suspended.
    pub paused: bool,
    /// Whether the pool is closed.
    pub closed: bool,
    /// What has happened since the pool was built.
    pub totals: Totals,
}

impl Status {
    /// The slots in use: every connection that exists in any state.
    #[must_use]
    pub fn in_use(&self) -> usize {
        let busy = self.connecting + self.checking + self.cleaning + self.closing;
        self.idle + self.lent + self.shared + busy
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "limit {}, idle {}, lent {}",
            self.limit, self.idle, self.lent
        )?;
        let rare = [
            ("shared", self.shared),
            ("places", self.places),
            ("connecting", self.connecting),
            ("checking", self.checking),
            ("cleaning", self.cleaning),
            ("closing", self.closing),
            ("waiting", self.waiting),
        ];
        for (word, count) in rare {
            if count > 0 {
                write!(f, ", {word} {count}")?;
            }
        }
        Ok(())
    }
}

/// Counts since the pool was built.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Totals {
    /// Connections opened.
    pub opened: u64,
    /// Connections closed by the pool.
    pub closed: u64,
    /// Connections taken out of the pool by their users.
    pub detached: u64,
    /// Connections whose task was dropped or panicked before it had done its work.
    pub lost: u64,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
    /// Leases and places given.
    pub acquired: u64,
    /// Callers whose deadline passed.
    pub timeouts: u64,
    /// Callers refused early because they could not be served in time, or because too many wait.
    pub shed: u64,
}

/// One lease or place that is out.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// Where it was acquired.
    pub site: &'static Location<'static>,
    /// How long it has been held.
    pub held: Duration,
    /// The setting of the connection that is held.
    pub tag: Tag,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:.1?}", self.site, self.held)
    }
}
