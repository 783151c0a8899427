//! Why an acquire error carries so much: "pool timed out" is the most reported and least useful
//! message of every pool. This one says what happened, for how long, what the pool looked like,
//! what the last attempt to connect said, who holds the connections, and what to try.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::status::{Holder, Status};

/// Why no connection was given.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AcquireError<E> {
    /// What stood in the way.
    pub cause: Cause<E>,
    /// How long the caller waited.
    pub waited: Duration,
    /// The pool at the instant of the refusal.
    pub status: Box<Status>,
    /// The most recent failure to connect and its age, even if it is not the cause.
    pub last_connect_error: Option<(E, Duration)>,
    /// The longest holders, at most three.
    pub holders: Vec<Holder>,
}

/// What stood between a caller and a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cause<E> {
    /// The deadline passed while all connections were in use.
    Exhausted,
    /// The deadline passed while attempts to connect failed; this is the last failure.
    Unreachable(E),
    /// The deadline passed while attempts to connect got no answer at all.
    Silent,
    /// Connecting was refused for good (credentials, configuration).
    Refused(E),
    /// All who waited were refused, with this error
    /// ([`Pool::refuse_waiters`](crate::Pool::refuse_waiters)).
    TurnedAway(E),
    /// The pool is closed.
    Closed,
    /// The deadline passed while the pool was paused.
    Paused,
    /// The caller was refused early because it could not be served in time.
    Shed(ShedReason),
    /// Too many callers wait already.
    Overflow,
    /// The pool was built outside a tokio runtime, and this call was made outside one too.
    NoRuntime,
}

/// Why a waiter was refused early.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ShedReason {
    /// What was left of its deadline is less than a connection is usually held for.
    Slack,
    /// The queue has been standing for longer than its target.
    Standing,
    /// The bound on waiters was reached.
    Overflow,
}

impl<E> AcquireError<E> {
    fn remedy(&self) -> &'static str {
        match self.cause {
            Cause::Exhausted => "hold connections for a shorter time or raise the limit",
            Cause::Unreachable(_) | Cause::Silent => {
                "check that the server runs and can be reached from here"
            }
            Cause::Refused(_) => "check user, password and configuration",
            Cause::TurnedAway(_) => "come back when that is over",
            Cause::Closed => "the pool was closed; open another one",
            Cause::Paused => "resume the pool",
            Cause::Shed(_) | Cause::Overflow => "offer less load or raise the limit",
            Cause::NoRuntime => "call from within a tokio runtime",
        }
    }
}

impl<E> fmt::Display for AcquireError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.cause {
            // Those that are idle are for leases.
            Cause::Exhausted if self.status.idle > 0 && self.status.shared > 0 => {
                "no place on a shared connection became free"
            }
            Cause::Exhausted => "no connection became free",
            Cause::Unreachable(_) => "no connection could be opened",
            Cause::Silent => "attempts to connect got no answer",
            Cause::Refused(_) => "connecting was refused",
            Cause::TurnedAway(_) => "all who waited were refused",
            Cause::Closed => "the pool is closed",
            Cause::Paused => "the pool is paused",
            Cause::Shed(ShedReason::Slack) => "too little time left to be served",
            Cause::Shed(_) => "the queue has been too long for too long",
            Cause::Overflow => "too many callers wait already",
            Cause::NoRuntime => "no tokio runtime",
        };
        write!(f, "{what} (waited {:.1?}; {}", self.waited, self.status)?;
        if let Some((_, age)) = &self.last_connect_error {
            write!(f, "; last connect error {age:.1?} ago")?;
        }
        if let Some(holder) = self.holders.first() {
            write!(f, "; longest holder {holder}")?;
        }
        write!(f, "): {}", self.remedy())
    }
}

impl<E: Error + 'static> Error for AcquireError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::Unreachable(error) | Cause::Refused(error) | Cause::TurnedAway(error) => {
                Some(error)
            }
            _ => None,
        }
    }
}
