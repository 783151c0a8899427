//! Whether a server that does not answer was given the time to.
//!
//! A session that was asked whether it is there and kept silent is dropped without a goodbye: nothing
//! that is sent to it arrives, and waiting would only keep its place from one that works. One whose
//! question was taken back a moment later, because its pool is closing, is silent for another
//! reason: its statement still runs, and has to be stopped.

use crate::wire::Mark;
use mainstay_core::Deadline;
use tokio::time::Instant;

/// A question whose answer tells whether the server is there.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Question {
    /// Where the log stood when it was asked.
    mark: Mark,
    /// From then on no answer means that nobody is there. Earlier it means that nobody waited.
    judged_from: Instant,
}

impl Question {
    pub(crate) fn new(mark: Mark, now: Instant, deadline: Deadline) -> Self {
        Self {
            mark,
            judged_from: now + deadline.remaining(now) / 2,
        }
    }

    /// The mark, once an answer is late.
    pub(crate) fn overdue(self, now: Instant) -> Option<Mark> {
        (now >= self.judged_from).then_some(self.mark)
    }
}
