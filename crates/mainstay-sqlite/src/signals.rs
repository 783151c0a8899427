//! What the two sides of a connection see of each other.
//!
//! A statement runs in C on a thread of its own, and nothing that is awaited can interrupt it. So
//! everybody who may want it to stop (a deadline, a dropped future, a pool that closes) leaves a
//! word on the call's [`Ticket`], and SQLite is made to look at it every few instructions and while
//! it waits for a lock. Unlike `sqlite3_interrupt`, a ticket stops its own call and never the next.

use mainstay_core::Deadline;
use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How many instructions of SQLite's machine pass between two looks at the ticket: about ten to
/// fifty microseconds, against some fifty nanoseconds for the look.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;

/// The longest pause between two attempts to get a lock that another process holds. It is short
/// because SQLite has no queue: whoever polls seldom starves.
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(10);

/// Why a call has to stop.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The call's own deadline.
    Deadline,
    /// `statement_timeout`: one statement ran for too long.
    StatementTimeout,
    /// Somebody asked for it.
    Cancelled,
    /// Nobody waits for the answer any more.
    Abandoned,
    /// The connection is being closed.
    Closed,
    /// It is a read that others wait behind, and it has had its time.
    HoldsUp,
    /// It is a read that keeps the write-ahead log from being emptied, which has reached its limit.
    LogLimit,
}

/// One call, as seen by those who may end it.
#[derive(Debug)]
pub(crate) struct Ticket {
    state: Mutex<TicketState>,
    changed: Condvar,
}

#[derive(Debug)]
struct TicketState {
    deadline: Option<Deadline>,
    limit: Option<Deadline>,
    /// How long it may keep others waiting once it has begun, and until when that is.
    patience: Option<Duration>,
    yields_at: Option<Instant>,
    stop: Option<Stop>,
    has_begun: bool,
    nudges: u64,
}

impl Ticket {
    /// A ticket; without a deadline only a word stops the call.
    pub(crate) fn new(deadline: Option<Deadline>) -> Arc<Self> {
        Self::with_patience(deadline, None)
    }

    /// The ticket of a call that stops when it has run for so long and others wait behind it.
    pub(crate) fn with_patience(
        deadline: Option<Deadline>,
        patience: Option<Duration>,
    ) -> Arc<Self> {
        let state = TicketState {
            deadline,
            limit: None,
            patience,
            yields_at: None,
            stop: None,
            has_begun: false,
            nudges: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, TicketState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the call has to stop; the first word counts.
    pub(crate) fn stop(&self, why: Stop) {
        self.state().stop.get_or_insert(why);
        self.changed.notify_all();
    }

    /// Begins the call, unless it has to stop; what runs from now on is bounded by
    /// `statement_timeout`.
    pub(crate) fn begin(&self, limit: Option<Deadline>) -> Result<(), Stop> {
        let mut state = self.state();
        let now = Instant::now();
        state.limit = None;
        if let Some(stop) = state.objection(now) {
            return Err(stop);
        }
        state.yields_at = state.patience.map(|patience| now + patience);
        (state.limit, state.has_begun) = (limit, true);
        Ok(())
    }

    /// Takes the call back if it has not begun: it never will.
    pub(crate) fn withdraw(&self) -> bool {
        let mut state = self.state();
        if !state.has_begun {
            state.stop.get_or_insert(Stop::Deadline);
        }
        !state.has_begun
    }

    /// From now on only a word stops the call.
    pub(crate) fn lift_deadlines(&self) {
        let mut state = self.state();
        (state.deadline, state.limit) = (None, None);
    }

    /// From now on `statement_timeout` does not stop the call, until it begins again.
    pub(crate) fn lift_limit(&self) {
        self.state().limit = None;
    }

    /// Wakes a thread in [`wait`](Self::wait) because what it waits for may have happened.
    pub(crate) fn nudge(&self) {
        self.state().nudges += 1;
        self.changed.notify_all();
    }

    /// How often the call has been nudged; taken before looking at what is waited for.
    pub(crate) fn nudges(&self) -> u64 {
        self.state().nudges
    }

    /// Why the call has to stop, if it has to.
    pub(crate) fn objection(&self) -> Option<Stop> {
        self.state().objection(Instant::now())
    }

    /// The same while others wait behind it.
    fn objection_of_others(&self) -> Option<Stop> {
        let mut state = self.state();
        let now = Instant::now();
        if state.yields_at.is_some_and(|at| now >= at) {
            state.stop.get_or_insert(Stop::HoldsUp);
        }
        state.objection(now)
    }

    /// Waits for a nudge after `seen`, a reason to stop, or the end of `pause`.
    pub(crate) fn wait(&self, seen: u64, pause: Option<Duration>) {
        let until = pause.map(|pause| Instant::now() + pause);
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let is_over = until.is_some_and(|until| now >= until);
            if is_over || state.nudges != seen || state.objection(now).is_some() {
                return;
            }
            let ends = [
                until,
                state.deadline.map(Deadline::instant),
                state.limit.map(Deadline::instant),
            ];
            state = match ends.into_iter().flatten().min() {
                Some(end) => {
                    let left = end.saturating_duration_since(now);
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl TicketState {
    fn objection(&self, now: Instant) -> Option<Stop> {
        let past = |deadline: Option<Deadline>| deadline.is_some_and(|at| at.is_past(now));
        self.stop
            .or_else(|| past(self.deadline).then_some(Stop::Deadline))
            .or_else(|| past(self.limit).then_some(Stop::StatementTimeout))
    }
}

/// What the two sides of one connection see of each other.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    current: Mutex<Option<Arc<Ticket>>>,
    /// Calls that are queued or running, abandoned ones included.
    pub(crate) pending: AtomicUsize,
    /// A transaction is open.
    pub(crate) in_transaction: AtomicBool,
    /// Somebody has exclusive use and may change the session.
    pub(crate) handed_over: AtomicBool,
    /// A statement left something in the session: a temporary table.
    pub(crate) tainted: AtomicBool,
    /// Of no use any more.
    pub(crate) broken: AtomicBool,
    /// No further call is begun.
    pub(crate) closing: AtomicBool,
    /// A transaction was ended because of [`Stop::LogLimit`], and its user does not know yet.
    pub(crate) ended_for_log: AtomicBool,
    reading: Mutex<Reading>,
}

/// What a connection of the read lane is doing to the write-ahead log.
#[derive(Copy, Clone, Debug, Default)]
struct Reading {
    /// Since when it has been looking at one state of the file.
    since: Option<Instant>,
    /// Who has it.
    site: Option<&'static Location<'static>>,
}

impl Signals {
    fn slot(&self) -> MutexGuard<'_, Option<Arc<Ticket>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a ticket the one that SQLite looks at; answers the one before.
    pub(crate) fn replace(&self, ticket: Option<Arc<Ticket>>) -> Option<Arc<Ticket>> {
        std::mem::replace(&mut *self.slot(), ticket)
    }

    /// Makes the ticket of a call that begins the one that SQLite looks at. Whoever closes the
    /// connection says so first and stops what runs then; what came between is stopped here.
    pub(crate) fn take_up(&self, ticket: &Arc<Ticket>) {
        self.replace(Some(Arc::clone(ticket)));
        if self.closing.load(Ordering::SeqCst) {
            ticket.stop(Stop::Closed);
        }
    }

    /// The ticket of the call that runs now.
    pub(crate) fn current(&self) -> Option<Arc<Ticket>> {
        self.slot().clone()
    }

    /// Stops what runs now.
    pub(crate) fn stop_current(&self, why: Stop) {
        if let Some(ticket) = self.current() {
            ticket.stop(why);
        }
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of who has the connection.
    pub(crate) fn set_site(&self, site: Option<&'static Location<'static>>) {
        self.reading().site = site;
    }

    /// Who had the connection last.
    pub(crate) fn site(&self) -> Option<&'static Location<'static>> {
        self.reading().site
    }

    /// A statement or a transaction begins to read, unless one already does.
    pub(crate) fn begin_reading(&self) {
        self.reading().since.get_or_insert_with(Instant::now);
    }

    /// Nothing is read any more.
    pub(crate) fn end_reading(&self) {
        self.reading().since = None;
    }

    /// Since when the connection has been reading, and who has it.
    pub(crate) fn reads_since(&self) -> Option<(Instant, Option<&'static Location<'static>>)> {
        let reading = *self.reading();
        reading.since.map(|since| (since, reading.site))
    }

    /// Why the running call has to stop, if it has to.
    pub(crate) fn objection(&self) -> Option<Stop> {
        let others_wait = self.pending.load(Ordering::SeqCst) > 1;
        let slot = self.slot();
        let ticket = slot.as_ref()?;
        if others_wait {
            ticket.objection_of_others()
        } else {
            ticket.objection()
        }
    }
}

/// Counts one call from the moment it is asked for until nothing of it is left.
#[derive(Debug)]
pub(crate) struct Pending(Arc<Signals>);

impl Pending {
    pub(crate) fn new(signals: &Arc<Signals>) -> Self {
        signals.pending.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(signals))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::SeqCst);
    }
}

thread_local! {
    /// The signals of the connection that this thread owns, and how long it waits for a lock. A
    /// thread owns one connection; SQLite's busy handler takes no closure in every version that is
    /// supported.
    static OWN: RefCell<Option<(Arc<Signals>, Duration)>> = const { RefCell::new(None) };
    /// When the present wait for a lock began.
    static WAITING_SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Makes SQLite look at the tickets of `signals` while it works and while it waits for locks. To be
/// called on the thread that owns the connection.
pub(crate) fn install(
    connection: &mut rusqlite::Connection,
    signals: &Arc<Signals>,
    busy_timeout: Duration,
) -> rusqlite::Result<()> {
    OWN.set(Some((Arc::clone(signals), busy_timeout)));
    let seen = Arc::clone(signals);
    connection.busy_handler(Some(wait_for_lock as fn(i32) -> bool))?;
    connection.progress_handler(
        STEPS_BETWEEN_LOOKS,
        Some(move || seen.objection().is_some()),
    )
}

/// SQLite's busy handler: pauses and says whether to try again.
fn wait_for_lock(attempt: i32) -> bool {
    OWN.with_borrow(|own| {
        let Some((signals, busy_timeout)) = own else {
            return false;
        };
        let now = Instant::now();
        if attempt == 0 {
            WAITING_SINCE.set(Some(now));
        }
        let since = WAITING_SINCE.get().unwrap_or(now);
        let left = busy_timeout.saturating_sub(now.saturating_duration_since(since));
        if left.is_zero() {
            return false;
        }
        let step = Duration::from_millis(u64::from(attempt.unsigned_abs()) / 4 + 1);
        let pause = step.min(LOCK_PAUSE_MAX).min(left);
        let ticket = signals.current().unwrap_or_else(|| Ticket::new(None));
        ticket.wait(ticket.nudges(), Some(pause));
        ticket.objection().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_to_stop_counts() {
        let ticket = Ticket::new(None);
        assert_eq!(ticket.objection(), None);
        ticket.stop(Stop::Abandoned);
        ticket.stop(Stop::Closed);
        assert_eq!(ticket.objection(), Some(Stop::Abandoned));
    }

    #[test]
    fn a_call_that_begins_while_the_connection_closes_is_stopped() {
        let signals = Signals::default();
        signals.closing.store(true, Ordering::SeqCst);
        // It was out of the queue already, and not yet the one that runs.
        signals.stop_current(Stop::Closed);
        let ticket = Ticket::new(None);
        signals.take_up(&ticket);
        assert_eq!(ticket.objection(), Some(Stop::Closed));
    }

    #[test]
    fn a_lifted_deadline_does_not_stop() {
        let ticket = Ticket::new(Some(Deadline::at(Instant::now())));
        assert_eq!(ticket.objection(), Some(Stop::Deadline));
        ticket.lift_deadlines();
        assert_eq!(ticket.objection(), None);
        ticket.begin(Some(Deadline::at(Instant::now()))).unwrap();
        assert_eq!(ticket.objection(), Some(Stop::StatementTimeout));
    }

    #[test]
    fn a_read_that_has_had_its_time_stops_when_somebody_waits_behind_it() {
        let signals = Arc::<Signals>::default();
        let ticket = Ticket::with_patience(None, Some(Duration::ZERO));
        let _running = Pending::new(&signals);
        ticket.begin(None).unwrap();
        signals.take_up(&ticket);
        assert_eq!(signals.objection(), None);
        let _behind = Pending::new(&signals);
        assert_eq!(signals.objection(), Some(Stop::HoldsUp));
        let patient = Ticket::new(None);
        patient.begin(None).unwrap();
        signals.take_up(&patient);
        assert_eq!(signals.objection(), None);
    }

    #[test]
    fn only_what_has_not_begun_can_be_withdrawn() {
        let begun = Ticket::new(None);
        begun.begin(None).unwrap();
        assert!(!begun.withdraw());
        assert_eq!(begun.objection(), None);
        let waiting = Ticket::new(None);
        assert!(waiting.withdraw());
        assert_eq!(waiting.begin(None), Err(Stop::Deadline));
    }

    #[test]
    fn a_waiting_thread_is_woken_by_a_nudge_and_by_a_stop() {
        let ticket = Ticket::new(None);
        let seen = ticket.nudges();
        std::thread::scope(|scope| {
            let nudged = scope.spawn(|| ticket.wait(seen, None));
            ticket.nudge();
            nudged.join().unwrap();
            let stopped = scope.spawn(|| ticket.wait(ticket.nudges(), None));
            ticket.stop(Stop::Cancelled);
            stopped.join().unwrap();
        });
        assert_eq!(ticket.objection(), Some(Stop::Cancelled));
    }
}
