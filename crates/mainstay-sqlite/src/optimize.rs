//! Keeping the planner's statistics fresh.
//!
//! SQLite chooses an index by what `ANALYZE` found out when it last ran, and nothing runs it by
//! itself. `PRAGMA optimize` does where it is due, but it writes, and on a large table it can take
//! seconds. So it runs on the writer while nobody uses it, looks at a few hundred rows of an index,
//! and is stopped after a tenth of a second; then it is tried again, ever more rarely.
//!
//! It is asked about all tables, not about those that its own handle has read: reads run on other
//! handles. These learn of new statistics when their schema changes or when they are opened anew,
//! which the pool does with all of them from time to time.

use crate::connect::Place;
use crate::session::SqliteSession;
use crate::worker::Worker;
use mainstay_core::backend::{Condition, Connection};
use mainstay_core::{Deadline, Result};
use std::sync::Weak;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// The first time: what a service does to start is over by then, and a command is gone.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// Between two times; SQLite recommends "every few hours, or even once an hour".
const AGAIN_AFTER: Duration = Duration::from_secs(60 * 60);
/// Between two looks whether the writer is idle, and before it is tried again after it was stopped;
/// that doubles up to the time between two, so that a database for which it never suffices is
/// bothered no more than any other.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a write that comes meanwhile can be held up.
const AT_MOST: Duration = Duration::from_millis(100);

/// 0x2: analyse where it is due. 0x10000: look at all tables. Some 400 entries of an index are
/// what SQLite itself recommends to look at; `analysis_limit` would also bound an `ANALYZE` of the
/// application's, so it does not stay.
const OPTIMIZE: &str = "PRAGMA analysis_limit = 400; PRAGMA optimize = 0x10002;";
const FORGET_LIMIT: &str = "PRAGMA analysis_limit = 0;";

/// Runs beside a writer until that is gone.
pub(crate) async fn watch_over(writer: Weak<SqliteSession>) {
    let mut pause = FIRST_AFTER;
    let mut pace = Pace::new();
    loop {
        sleep(pause).await;
        let Some(writer) = writer.upgrade() else {
            return;
        };
        pause = match writer.condition() {
            Condition::Broken => return,
            Condition::Dirty => LOOK_EVERY,
            Condition::Clean => pace.after(run(&writer).await),
        };
    }
}

/// When to try again.
struct Pace {
    after_failure: Duration,
}

impl Pace {
    const fn new() -> Self {
        Self {
            after_failure: LOOK_EVERY,
        }
    }

    fn after(&mut self, has_ended: bool) -> Duration {
        if has_ended {
            *self = Self::new();
            return AGAIN_AFTER;
        }
        let pause = self.after_failure;
        self.after_failure = AGAIN_AFTER.min(pause * 2);
        pause
    }
}

/// Once more before the writer is closed; whoever comes next begins with what it found.
pub(crate) async fn before_closing(writer: &SqliteSession, deadline: Deadline) {
    if writer.condition() == Condition::Clean {
        let patience = deadline.instant().min(Instant::now() + AT_MOST);
        // A tenth of a second was worth a try.
        drop(timeout_at(patience, run(writer)).await);
    }
}

/// Whether it came to its end.
async fn run(writer: &SqliteSession) -> bool {
    let deadline = Deadline::from_now(AT_MOST);
    let ran = writer.submit(Some(deadline), |worker, _| worker.optimize());
    match ran.await {
        Ok(()) => tracing::trace!("the statistics are fresh"),
        // Somebody else's lock, or more to do than there was time for.
        Err(error) => {
            tracing::debug!(%error, "the statistics were not refreshed");
            return false;
        }
    }
    true
}

impl Worker {
    fn optimize(&mut self) -> Result<()> {
        // Tests begin anew each time, and a transaction that is open is somebody's.
        let is_kept =
            matches!(self.opening.place, Place::File(_)) && self.opening.scratch.is_none();
        if !is_kept || !self.unit.is_idle() {
            return Ok(());
        }
        let optimized = self.pragma(OPTIMIZE);
        let restored = self.undisturbed(|worker| worker.pragma(FORGET_LIMIT));
        optimized.and(restored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_is_tried_again_ever_more_rarely() {
        let mut pace = Pace::new();
        assert_eq!(pace.after(true), AGAIN_AFTER);
        assert_eq!(pace.after(false), LOOK_EVERY);
        assert_eq!(pace.after(false), LOOK_EVERY * 2);
        let longest = (0..20).map(|_| pace.after(false)).max();
        assert_eq!(longest, Some(AGAIN_AFTER));
        assert_eq!(pace.after(true), AGAIN_AFTER);
        assert_eq!(pace.after(false), LOOK_EVERY);
    }
}
