//! Why a trait of a few small verbs: the pool must open, judge, check, clean and close connections
//! without knowing what they are. Everything that can block is one bounded attempt; judging is
//! synchronous, so that giving a connection back needs no I/O.

use std::error::Error;
use std::time::Duration;

/// A setting a connection was last used with: preferred when lending, never required.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tag(pub u8);

/// What a connection's own state says about it, known without asking the server.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// May be lent to anybody as it is.
    Clean,
    /// Holds something of its last user (an open transaction, an unread answer): clean it first.
    Dirty,
    /// Is of no more use.
    Broken,
}

/// Why a connection was closed.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// It was broken when it came back or when it was about to be lent.
    Broken,
    /// The check before lending failed or ran out of time.
    CheckFailed,
    /// It was dirty, and cleaning it failed or ran out of time.
    CleanFailed,
    /// Nobody needed it for the idle timeout.
    Idle,
    /// It reached the lifetime it was given at birth, or was retired.
    Lifetime,
    /// It belonged to an older generation.
    Generation,
    /// The pool's limit was lowered.
    Resized,
    /// Its user asked for it.
    Requested,
    /// The pool was closed.
    PoolClosed,
}

impl CloseReason {
    /// The reason as one lower-case word, for logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::CheckFailed => "check_failed",
            Self::CleanFailed => "clean_failed",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Generation => "generation",
            Self::Resized => "resized",
            Self::Requested => "requested",
            Self::PoolClosed => "pool_closed",
        }
    }
}

/// Everything a backend must know.
///
/// Every future may be dropped at any await: the pool drops an attempt that ran out of time, and
/// what is left of the connection with it.
pub trait Connector: Send + Sync + 'static {
    /// What is lent.
    type Connection: Send + Sync + 'static;
    /// Why opening, checking or cleaning failed.
    type Error: Error + Clone + Send + Sync + 'static;

    /// Opens one connection, in one attempt. The pool bounds it by the connect timeout.
    fn connect(
        &self,
        tag: Tag,
    ) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Judges a connection from what is known already: no I/O, no waiting. A shared connection is
    /// also judged while others use it; then only `Broken` counts, and the last one to leave has it
    /// judged again.
    fn condition(&self, connection: &Self::Connection) -> Condition;

    /// The setting that a connection has now, where it can tell: asked when its last user has left and
    /// when it was cleaned, so that the next who prefers that setting finds it. `None` leaves what is
    /// known.
    fn tag(&self, connection: &Self::Connection) -> Option<Tag> {
        let _ = connection; // only those with settings look
        None
    }

    /// Asks whether the other side still answers. Bounded by the check timeout.
    fn check(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Makes a dirty connection clean. Bounded by the clean timeout, then the connection is closed.
    fn clean(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Closes a connection and returns when the other side has really let go. Bounded by the close
    /// timeout; the connection's slot counts against the limit until then.
    fn close(
        &self,
        connection: Self::Connection,
        reason: CloseReason,
    ) -> impl Future<Output = ()> + Send;

    /// Whether trying again is pointless (refused credentials, bad configuration). Then everybody
    /// who waits is told at once, unless there are connections that can still serve them.
    fn is_permanent(&self, error: &Self::Error) -> bool {
        let _ = error;
        false
    }

    /// How long the next attempt to connect is to wait after this failure, in place of the pool's own
    /// pacing. While that lasts after a permanent failure, whoever would need a new connection is
    /// told the failure at once.
    fn retry_after(&self, error: &Self::Error) -> Option<Duration> {
        let _ = error;
        None
    }

    /// The error that stands for an attempt to connect that ran out of time, if there is one.
    fn timed_out(&self, after: Duration) -> Option<Self::Error> {
        let _ = after;
        None
    }
}
