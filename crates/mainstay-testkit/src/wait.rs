//! Tests that sleep are either slow or flaky: the time is always too long for the fast machine and
//! too short for the busy one. So tests wait for a *fact*, and this file holds the only two loops
//! that may let time pass until it holds. The limit is there to end a broken test with a sentence,
//! never to decide anything: choose it generously.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// How long a loop rests between two questions: short against the time a server needs for
/// anything, long enough to leave the processor to the server.
const REST: Duration = Duration::from_millis(10);

/// The fact did not come true within the limit.
#[derive(Clone, PartialEq, Eq)]
pub struct TimedOut {
    what: String,
    limit: Duration,
}

/// Asks until the answer is `Some`, at most for `limit`, and at least once.
///
/// # Errors
///
/// [`TimedOut`], which names `what` was waited for.
///
/// # Cancel safety
///
/// Dropping the future drops the question that is being asked; nothing else is held.
///
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut left = 3;
/// let zero = mainstay_testkit::wait_for("the counter to reach zero", Duration::from_secs(5), async || {
///     left -= 1;
///     (left == 0).then_some(left)
/// });
/// assert_eq!(zero.await, Ok(0));
/// # }
/// ```
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if Instant::now() >= end {
            return Err(TimedOut::new(what, limit));
        }
        tokio::time::sleep(REST).await;
    }
}

/// [`wait_for`] for code that is not async; it blocks the thread.
///
/// # Errors
///
/// [`TimedOut`], which names `what` was waited for.
pub fn wait_for_blocking<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= end {
            return Err(TimedOut::new(what, limit));
        }
        rest();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the fact is asked for after each rest; this is the one blocking rest of the test kit"
)]
fn rest() {
    std::thread::sleep(REST);
}

impl TimedOut {
    fn new(what: &str, limit: Duration) -> Self {
        Self {
            what: what.to_owned(),
            limit,
        }
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waited {:?} in vain for {}", self.limit, self.what)
    }
}

/// The sentence itself, so that `unwrap()` in a test prints it.
impl fmt::Debug for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for TimedOut {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fact_that_never_holds_ends_with_its_name() {
        let limit = Duration::from_secs(60);
        let outcome = wait_for("the moon to fall", limit, async || None::<()>).await;
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "waited 60s in vain for the moon to fall"
        );
    }

    #[test]
    fn a_question_is_asked_at_least_once() {
        assert_eq!(wait_for_blocking("now", Duration::ZERO, || Some(7)), Ok(7));
    }
}
