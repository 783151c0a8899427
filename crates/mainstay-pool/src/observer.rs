//! Why one seam: metrics, spans and tests want the same facts. The pool states them once, as
//! events, and whoever listens turns them into numbers or lines.

use std::panic::Location;
use std::time::Duration;

use crate::connector::CloseReason;
use crate::error::ShedReason;

/// Is told what happens in a pool.
///
/// Called outside the pool's lock, on the task or thread where the event happened. It must be quick
/// and must not block; it may call the pool.
pub trait Observer: Send + Sync {
    /// Takes note of one event.
    fn on_event(&self, event: &Event);
}

/// Something that happened in a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A caller got a connection after waiting this long (zero if one was idle). The wait ends when the
    /// connection is handed over, and there the holding begins.
    Waited(Duration),
    /// A connection was opened in this time.
    Connected(Duration),
    /// An attempt to connect failed.
    ConnectFailed {
        /// How long the attempt took.
        took: Duration,
        /// Whether trying again is pointless.
        permanent: bool,
        /// Whether the attempt ran out of time.
        timed_out: bool,
    },
    /// A connection was checked in this time and answered.
    Checked(Duration),
    /// A dirty connection was made clean in this time.
    Cleaned(Duration),
    /// A lease or a place came back.
    Held {
        /// How long it was held.
        held: Duration,
        /// Where it was acquired.
        site: &'static Location<'static>,
    },
    /// A connection was closed.
    Closed(CloseReason),
    /// A caller was refused early.
    Shed(ShedReason),
    /// A caller's deadline passed after this long.
    TimedOut(Duration),
    /// A lease or a place has been out for longer than the long-hold limit; told once per lease.
    LongHold {
        /// Where it was acquired.
        site: &'static Location<'static>,
        /// How long it has been held so far.
        held: Duration,
    },
    /// A task waits for a connection while it holds a lease: if all holders do so, nobody ever gets
    /// one. Told once per lease.
    NestedWait {
        /// Where the second one is being acquired.
        site: &'static Location<'static>,
        /// Where the lease it holds was acquired.
        holds: &'static Location<'static>,
    },
    /// A lease that was reported as held for long came back after all.
    ReturnedAfterLongHold {
        /// Where it was acquired.
        site: &'static Location<'static>,
        /// How long it was held.
        held: Duration,
    },
}
