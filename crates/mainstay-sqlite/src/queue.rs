//! What waits for the thread of a connection.
//!
//! Most of it is jobs, each done by itself. The writer is also sent [`Write`]s: statements of
//! strangers that may be committed together. A write is re-runnable (its text and its parameters
//! are its own), because what shares a transaction with others may have to be done again when one
//! of them destroys it.

use crate::keyword::may_share_a_transaction;
use crate::signals::{Pending, Ticket};
use crate::worker::Worker;
use mainstay_core::backend::{Reply, Want};
use mainstay_core::{Deadline, Result, Statement, Value};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The most callers that may be on the writer at once. Far more than one sync needs to be well
/// used: the time it takes to run so many is already many times that of a sync. What waits beyond
/// them waits in the pool, where it is counted, shed, and seen.
pub(crate) const WRITERS_MAX: usize = 256;
/// Jobs that wait for the thread beside those; more wait in front of the queue, in order.
const JOBS_WAITING: usize = 16;

/// The most writes of one group: everybody who may wait.
const WRITES_MAX: usize = WRITERS_MAX;
/// A group whose parameters are larger is complete: what it writes has to be synced by all of them.
const BYTES_MAX: usize = 1024 * 1024;
/// A transaction that has been running for so long is complete, so that those who are done need not
/// wait for ever new ones. Long beside a write (microseconds), short beside what a caller notices.
const RUNNING_MAX: Duration = Duration::from_millis(5);

/// One piece of work for the thread.
pub(crate) type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// What waits for the thread.
pub(crate) enum Task {
    /// Done by itself.
    Job(Job),
    /// Committed together with others.
    Write(Write),
}

/// The queue of a connection's thread.
pub(crate) fn queue() -> (mpsc::Sender<Task>, mpsc::Receiver<Task>) {
    mpsc::channel(WRITERS_MAX + JOBS_WAITING)
}

/// What one caller wants written: all of it or nothing.
pub(crate) struct Write {
    pub(crate) work: Work,
    pub(crate) deadline: Deadline,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) pending: Pending,
    pub(crate) answer: oneshot::Sender<Result<Answer>>,
}

/// The statements of a [`Write`].
pub(crate) enum Work {
    One(Statement, Want),
    Batch(Vec<Statement>),
}

/// What a [`Write`] answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(Reply),
    Affected(Vec<u64>),
}

impl Write {
    /// Tells the caller how it ended.
    pub(crate) fn answer(self, result: Result<Answer>) {
        // The connection is free before the caller knows the answer.
        drop(self.pending);
        drop(self.answer.send(result)); // a caller that has gone needs no answer
    }

    /// Forgets the limit of the statement that has run: what is run again has all of its time.
    fn rest(&self) {
        self.ticket.lift_limit();
    }

    /// Whether it may share a transaction with others.
    pub(crate) fn may_share(&self) -> bool {
        self.statements()
            .iter()
            .all(|statement| may_share_a_transaction(statement.text()))
    }

    pub(crate) fn statements(&self) -> &[Statement] {
        match &self.work {
            Work::One(statement, _) => std::slice::from_ref(statement),
            Work::Batch(statements) => statements,
        }
    }

    fn bytes(&self) -> usize {
        let params = self.statements().iter().flat_map(Statement::params);
        params.map(Value::bytes).sum()
    }
}

/// Where the writes of a group come from: those that have to be run again, then what has queued.
pub(crate) struct Source<'q> {
    again: VecDeque<Write>,
    alone: VecDeque<Write>,
    queue: &'q mut mpsc::Receiver<Task>,
    /// Whether somebody may still join.
    is_open: bool,
    /// What came out of the queue and may not join.
    rest: Option<Task>,
    taken: usize,
    bytes: usize,
    /// Until when the present transaction takes newcomers.
    until: Option<Instant>,
}

impl<'q> Source<'q> {
    pub(crate) fn new(first: Write, queue: &'q mut mpsc::Receiver<Task>) -> Self {
        let bytes = first.bytes();
        Self {
            again: VecDeque::from([first]),
            alone: VecDeque::new(),
            queue,
            is_open: true,
            rest: None,
            taken: 1,
            bytes,
            until: None,
        }
    }

    /// Takes note that a transaction has begun. The wait for the lock is not part of its time: what
    /// queued meanwhile is what shall share it.
    pub(crate) fn begun(&mut self) {
        self.until = Some(Instant::now() + RUNNING_MAX);
    }

    /// The first write of a transaction, and whether others may share it. Newcomers begin a group of
    /// their own, with all of its time before them.
    pub(crate) fn first(&mut self) -> Option<(Write, bool)> {
        if let Some(write) = self.again.pop_front() {
            return Some((write, true));
        }
        self.alone.pop_front().map(|write| (write, false))
    }

    /// The next write that shares the transaction.
    pub(crate) fn next(&mut self) -> Option<Write> {
        self.again.pop_front().or_else(|| self.take())
    }

    /// Takes a write out of the queue, unless the group is complete.
    fn take(&mut self) -> Option<Write> {
        self.is_open &= self.taken < WRITES_MAX && self.bytes < BYTES_MAX;
        if !self.is_open {
            return None;
        }
        match self.queue.try_recv() {
            Ok(Task::Write(write)) if write.may_share() => {
                self.taken += 1;
                self.bytes = self.bytes.saturating_add(write.bytes());
                self.is_open = self.until.is_none_or(|until| Instant::now() < until);
                Some(write)
            }
            Ok(task) => {
                self.rest = Some(task);
                self.is_open = false;
                None
            }
            Err(_) => None,
        }
    }

    /// Those are run again, in this order, and nobody else joins them.
    pub(crate) fn run_again(&mut self, writes: impl IntoIterator<Item = Write>) {
        self.is_open = false;
        let behind = std::mem::take(&mut self.again);
        self.again.extend(writes.into_iter().inspect(Write::rest));
        self.again.extend(behind);
    }

    /// This one is run in a transaction of its own, behind the others.
    pub(crate) fn run_alone(&mut self, write: Write) {
        self.is_open = false;
        write.rest();
        self.alone.push_back(write);
    }

    /// Everybody is run in a transaction of his own.
    pub(crate) fn part(&mut self) {
        self.is_open = false;
        let again = std::mem::take(&mut self.again);
        let suspects = std::mem::replace(&mut self.alone, again);
        self.alone.extend(suspects);
    }

    /// What is to be done after the group.
    pub(crate) fn into_rest(self) -> Option<Task> {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::Signals;

    fn write(bytes: usize) -> Write {
        let statement = Statement::new("insert into t values ($1)", ("x".repeat(bytes),)).unwrap();
        let deadline = Deadline::far_future(Instant::now());
        Write {
            work: Work::One(statement, Want::Affected),
            deadline,
            ticket: Ticket::new(Some(deadline)),
            pending: Pending::new(&Arc::<Signals>::default()),
            answer: oneshot::channel().0,
        }
    }

    /// So many writes of so many bytes in a queue.
    fn full(writes: usize, bytes: usize) -> mpsc::Receiver<Task> {
        let (sender, receiver) = queue();
        for _ in 0..writes {
            assert!(sender.try_send(Task::Write(write(bytes))).is_ok());
        }
        receiver
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_the_lock_does_not_make_a_group_smaller() {
        let mut queue = full(9, 1);
        let mut source = Source::new(write(1), &mut queue);
        assert!(source.first().is_some());
        tokio::time::advance(RUNNING_MAX * 10).await;
        source.begun();
        assert_eq!(std::iter::from_fn(|| source.next()).count(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_is_complete_after_a_while_and_what_came_later_stays_in_the_queue() {
        let mut queue = full(9, 1);
        let mut source = Source::new(write(1), &mut queue);
        assert!(source.first().is_some());
        source.begun();
        assert!(source.next().is_some());
        tokio::time::advance(RUNNING_MAX).await;
        // The one that is taken when the time is over is the last.
        assert_eq!(std::iter::from_fn(|| source.next()).count(), 1);
        assert!(source.into_rest().is_none());
        assert_eq!(queue.len(), 7);
    }

    #[test]
    fn a_group_that_is_done_takes_nobody_who_came_later() {
        let mut queue = full(1, 1);
        let mut source = Source::new(write(1), &mut queue);
        assert!(source.first().is_some());
        assert!(source.first().is_none());
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn a_group_is_bounded_by_count_and_by_bytes() {
        let mut queue = full(WRITERS_MAX + JOBS_WAITING, 1);
        let mut source = Source::new(write(1), &mut queue);
        let taken = std::iter::from_fn(|| source.next()).count();
        assert_eq!(taken, WRITES_MAX);
        let mut queue = full(9, BYTES_MAX / 2);
        let mut source = Source::new(write(1), &mut queue);
        assert_eq!(std::iter::from_fn(|| source.next()).count(), 3);
    }

    #[test]
    fn what_is_run_again_comes_first_and_suspects_come_alone_at_the_end() {
        let mut queue = full(9, 1);
        let mut source = Source::new(write(1), &mut queue);
        let first = source.next().unwrap();
        let (second, third) = (source.next().unwrap(), source.next().unwrap());
        source.run_alone(second);
        source.run_again([first, third]);
        let shares: Vec<_> = std::iter::from_fn(|| source.first())
            .map(|(_, shares)| shares)
            .collect();
        assert_eq!(shares, [true, true, false]);
        // Nobody joins a group that is run again.
        assert_eq!(queue.len(), 7);
    }
}
