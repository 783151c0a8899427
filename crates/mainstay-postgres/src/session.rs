//! One open session, and the truth about its state.
//!
//! Futures are dropped in the middle all the time: a deadline passes, a browser goes away. Whoever
//! gets the connection next must not find an open transaction, an answer that belongs to somebody
//! else, or a session that has learnt to write on the read lane. So everything that could be left
//! behind is noted *before* it is sent, in one place ([`Usage`]), and [`Link::condition`] reads it
//! back without asking anybody.

use crate::classify::Phase;
use crate::connect::dial::Endpoint;
use crate::connect::{Connector, Driver, Opened};
use crate::flight::is_nonsense;
use crate::line::Line;
use crate::opening::Opening;
use crate::pace::Pace;
use crate::question::Question;
use crate::replicas::{InHands, stopgap_until};
use crate::sharing::Watch;
use crate::statements::{Orphan, StatementCache};
use crate::wire::{Log, READ_ONLY, TransactionState};
use mainstay_core::backend::{
    Begin, Begun, BoxFuture, Call, Condition, Connection, CopySink, CopySource, Cursor, Lane,
    Listening, Position, Reply, Savepoint, Want,
};
use mainstay_core::config::SessionAttrs;
use mainstay_core::token::{Origin, Token};
use mainstay_core::{Deadline, Result, Statement};
use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, Client, Notification};

/// Notifications that wait for a slow listener; older ones are dropped, and the listener is told.
const NOTIFICATIONS_MAX: usize = 256;

/// An open session with a PostgreSQL server.
///
/// Reached through `as_any` by those who need the driver itself: session state, `LISTEN`, `COPY`.
pub struct PostgresSession {
    link: Arc<Link>,
}

impl PostgresSession {
    /// Takes over a session that has just been opened. Spawns the task that moves its bytes.
    pub(crate) fn new(opened: Opened, connector: Arc<Connector>, style: Style) -> Self {
        let Opened {
            client,
            driver,
            log,
            endpoint,
            wanted,
        } = opened;
        let (notifications, _) = broadcast::channel(NOTIFICATIONS_MAX);
        let heard = notifications.downgrade();
        let is_read_only = log.parameter(READ_ONLY).map(|value| value == "on");
        let link = Arc::new_cyclic(|me| Link {
            driver: Mutex::new(Some(tokio::spawn(drive(
                driver,
                Arc::clone(&log),
                notifications,
                Watch::new(me.clone()),
            )))),
            client: Arc::new(client),
            log,
            endpoint,
            wanted,
            stopgap_until: stopgap_until(&connector, wanted),
            connector,
            style,
            statements: Mutex::new(StatementCache::new(style.statements)),
            usage: Mutex::new(Usage::new()),
            is_read_only,
            cancel_turn: tokio::sync::Mutex::new(()),
            opening_turn: tokio::sync::Mutex::new(()),
            orphans: Mutex::default(),
            origin: Mutex::default(),
            own_limit: OnceLock::new(),
            notifications: heard,
        });
        Self { link }
    }

    /// The driver's own client. Whoever uses it must have called
    /// [`hand_over`](Connection::hand_over), so that the session is restored afterwards; a leased
    /// or borrowed connection has done that.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.link.client
    }

    /// Notifications of the channels that this session listens to, from now on; the end of the
    /// session ends them. `Database::listen` does more: it comes back by itself.
    #[must_use]
    pub fn notifications(&self) -> broadcast::Receiver<Notification> {
        self.link.hear()
    }

    /// What the server reports about itself, such as `server_version`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.link.log.parameter(name)
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

impl fmt::Debug for PostgresSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSession")
            .field("host", &self.link.endpoint.host().to_string())
            .field("condition", &self.link.condition())
            .finish_non_exhaustive()
    }
}

/// How sessions of one database are used.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Style {
    /// Whether the lane is a setting of the session. With one connection, and behind a transaction
    /// pooler, it is not: reads travel as transactions that may not write.
    pub(crate) lanes: bool,
    /// A transaction pooler stands between.
    pub(crate) pooled: bool,
    /// What the server must be was asked for, so one that refuses to write is not that server any more.
    pub(crate) demands: bool,
    /// How many prepared statements are kept; 0 prepares none.
    pub(crate) statements: usize,
}

/// Everything that the methods of a session and its cursors share.
pub(crate) struct Link {
    pub(crate) client: Arc<Client>,
    pub(crate) log: Arc<Log>,
    pub(crate) endpoint: Endpoint,
    /// What its server had to be when it was opened.
    pub(crate) wanted: SessionAttrs,
    /// Until when it is used in the place of one with a standby; see [`crate::replicas`].
    stopgap_until: Option<Instant>,
    pub(crate) connector: Arc<Connector>,
    pub(crate) style: Style,
    pub(crate) statements: Mutex<StatementCache>,
    usage: Mutex<Usage>,
    /// Whether the server's own default keeps the session from writing, as it was when the session began;
    /// `None` where the server is too old to report it.
    is_read_only: Option<bool>,
    /// Held while a cancel request is on its way that others on the session caused; cleaning waits
    /// for it, so that it cannot arrive after the session has been lent again.
    pub(crate) cancel_turn: tokio::sync::Mutex<()>,
    /// Held while BEGIN is on its way with the first statement of a transaction.
    pub(crate) opening_turn: tokio::sync::Mutex<()>,
    /// Preparations whose caller went away; [`clean`](Connection::clean) sees them to their end.
    pub(crate) orphans: Mutex<Vec<Orphan>>,
    /// Process and start of the backend, once they have been asked for; behind a pooler those of the
    /// present transaction.
    pub(crate) origin: Mutex<Option<Origin>>,
    /// The session's own `statement_timeout`, once it has been asked for.
    pub(crate) own_limit: OnceLock<Option<Duration>>,
    driver: Mutex<Option<JoinHandle<()>>>,
    /// The task that moves the bytes has the sender, so that those who listen hear its end.
    notifications: broadcast::WeakSender<Notification>,
}

/// What is being done with a session, and what was left behind.
#[derive(Debug)]
pub(crate) struct Usage {
    /// The lane whose setting was sent last.
    pub(crate) lane: Lane,
    /// The lane whose setting the server has acknowledged last.
    pub(crate) settled_lane: Lane,
    /// Reads of strangers on their way.
    pub(crate) line: Line,
    /// When their answers came.
    pub(crate) pace: Pace,
    /// The lane of the explicit transaction that was begun.
    pub(crate) transaction: Option<Lane>,
    /// Whether its BEGIN still waits for the first statement.
    pub(crate) opening: Opening,
    /// Calls that wait for an answer.
    in_flight: usize,
    /// Somebody went away before the answer came.
    pub(crate) abandoned: bool,
    /// The user had the session and may have changed it.
    pub(crate) handed_over: bool,
    /// For as long as the user may write on it, where that is counted.
    pub(crate) in_hands: Option<InHands>,
    /// The server is too old to report whether the lane is still in force.
    pub(crate) unverified: bool,
    /// A limit was set for one statement and is not known to be lifted.
    pub(crate) limited: bool,
    /// The last question to the server whether it is there.
    pub(crate) asked: Option<Question>,
    pub(crate) broken: bool,
}

impl Usage {
    /// A session begins with the server's own default, which is what the write lane has.
    fn new() -> Self {
        Self {
            lane: Lane::Write,
            settled_lane: Lane::Write,
            line: Line::default(),
            pace: Pace::default(),
            transaction: None,
            opening: Opening::Over,
            in_flight: 0,
            abandoned: false,
            handed_over: false,
            in_hands: None,
            unverified: false,
            limited: false,
            asked: None,
            broken: false,
        }
    }
}

impl Usage {
    /// Nothing is left over any more. Answers the lane.
    pub(crate) fn put_in_order(&mut self) -> Lane {
        self.abandoned = false;
        self.handed_over = false;
        self.in_hands = None;
        self.unverified = false;
        self.limited = false;
        self.transaction = None;
        self.opening = Opening::Over;
        self.line.put_in_order();
        self.settled_lane = self.lane;
        self.lane
    }

    /// The deadline of a call under way has passed. One of those that share the session is told of in
    /// the line.
    pub(crate) fn abandon(&mut self) {
        self.abandoned |= self.in_flight > 0;
    }

    /// Whether the session has the setting of this lane for certain: none is on its way, and the last
    /// one was acknowledged.
    pub(crate) fn is_on(&self, lane: Lane) -> bool {
        self.lane == lane && self.settled_lane == lane
    }
}

/// One call on its way. Dropped before it has landed, it leaves the session dirty.
pub(crate) struct Flight {
    link: Arc<Link>,
    landed: bool,
    /// It writes nothing, on whatever lane the session is.
    reads: bool,
}

impl Flight {
    pub(crate) fn start(link: &Arc<Link>) -> Self {
        link.usage().in_flight += 1;
        Self {
            link: Arc::clone(link),
            landed: false,
            reads: false,
        }
    }

    /// For what we do by ourselves, which writes nothing of anybody's.
    pub(crate) fn start_reading(link: &Arc<Link>) -> Self {
        let mut flight = Self::start(link);
        flight.reads = true;
        flight
    }

    /// The answer has come, whatever it is.
    pub(crate) fn land(mut self) {
        self.landed = true;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut usage = self.link.usage();
        usage.in_flight -= 1;
        usage.abandoned |= !self.landed;
        if let Some(writes) = self.link.connector.writes()
            && !self.reads
            && usage.lane == Lane::Write
        {
            writes.note(self.landed && !usage.broken && !self.link.is_ended());
        }
    }
}

impl Link {
    /// Each change is complete in itself, so a panic elsewhere leaves the notes true.
    pub(crate) fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn origin(&self) -> MutexGuard<'_, Option<Origin>> {
        self.origin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.client.is_closed() || self.log.ended().is_some()
    }

    /// Whether an explicit transaction is open, as far as we sent it and the server says.
    pub(crate) fn is_in_transaction(&self) -> bool {
        self.usage().transaction.is_some() || self.log.state() != TransactionState::Idle
    }

    /// What an error means while nothing with an effect has been sent yet.
    pub(crate) fn preparing(&self) -> Phase {
        if self.is_in_transaction() {
            Phase::Transaction
        } else {
            Phase::Prepare
        }
    }

    pub(crate) fn condition(&self) -> Condition {
        let usage = self.usage();
        let seen = self.log.glance();
        let is_due = || self.stopgap_until.is_some_and(|end| Instant::now() >= end);
        if usage.broken || seen.is_ended || self.client.is_closed() || is_due() {
            return Condition::Broken;
        }
        let left_over = usage.in_flight > 0
            || usage.abandoned
            || usage.handed_over
            || usage.unverified
            || usage.limited
            || usage.transaction.is_some()
            || !usage.line.is_at_rest()
            || seen.state != TransactionState::Idle
            || seen.is_pending;
        if left_over {
            return Condition::Dirty;
        }
        if self.is_off_its_lane(usage.lane, seen.read_only) {
            Condition::Broken
        } else {
            Condition::Clean
        }
    }

    /// Whether the server reports another setting than the lane's: a session that turned read-only
    /// off is not lent for reads again. Nor is one for writes that turned it on, or whose server has
    /// another default now.
    pub(crate) fn has_left_its_lane(&self, lane: Lane) -> bool {
        self.is_off_its_lane(lane, self.log.glance().read_only)
    }

    fn is_off_its_lane(&self, lane: Lane, reported: Option<bool>) -> bool {
        let expected = lane == Lane::Read || self.is_read_only == Some(true);
        self.style.lanes && reported.is_some_and(|now| now != expected)
    }

    /// Whether the server reports `default_transaction_read_only`.
    pub(crate) fn reports_its_lane(&self) -> bool {
        self.is_read_only.is_some()
    }

    /// Whether the server's own default keeps the session from writing, as far as it says so.
    pub(crate) fn is_read_only_by_default(&self) -> bool {
        self.is_read_only == Some(true)
    }

    /// What is announced from now on.
    pub(crate) fn hear(&self) -> broadcast::Receiver<Notification> {
        match self.notifications.upgrade() {
            Some(notifications) => notifications.subscribe(),
            // The session has ended, and with it what is dropped here.
            None => broadcast::channel(1).1,
        }
    }

    pub(crate) fn take_driver(&self) -> Option<JoinHandle<()>> {
        self.driver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub(crate) fn statements(&self) -> MutexGuard<'_, StatementCache> {
        self.statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that nobody holds any more is ended, and the task that moves its bytes with it:
/// politely when it is at rest, else by hanging up, which the server notices with its next word.
impl Drop for Link {
    fn drop(&mut self) {
        match self.take_driver() {
            Some(driver) if self.log.is_pending() => driver.abort(),
            _ => self.log.close(),
        }
    }
}

/// Moves the bytes until the session ends, and notes how it ended.
async fn drive(
    mut driver: Driver,
    log: Arc<Log>,
    notifications: broadcast::Sender<Notification>,
    mut watch: Watch,
) {
    loop {
        let message = poll_fn(|context| {
            let message = driver.poll_message(context);
            if message.is_pending() && watch.poll(context).is_ready() {
                return Poll::Ready(None); // given up
            }
            message
        });
        match message.await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                // The text of a notice is the application's and may quote values.
                tracing::debug!(
                    severity = notice.severity(),
                    code = notice.code().code(),
                    "notice"
                );
            }
            Some(Ok(AsyncMessage::Notification(notification))) => {
                drop(notifications.send(notification)); // nobody listens: nobody misses it
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                if is_nonsense(&error) {
                    log.garble();
                }
                log.end(error.to_string());
                return;
            }
            None => {
                log.end("closed by us");
                return;
            }
        }
    }
}

impl Connection for PostgresSession {
    fn run<'a>(
        &'a self,
        statement: &'a Statement,
        want: Want,
        call: Call,
    ) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(self.link.run(statement, want, call))
    }

    fn run_shared<'a>(
        &'a self,
        statement: &'a Statement,
        want: Want,
        call: Call,
    ) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(self.link.run_shared(statement, want, call))
    }

    fn cursor<'a>(
        &'a self,
        statement: &'a Statement,
        call: Call,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        Box::pin(self.link.cursor(statement, call))
    }

    fn batch<'a>(
        &'a self,
        statements: &'a [Statement],
        begin: Begin,
        call: Call,
    ) -> BoxFuture<'a, Result<Vec<u64>>> {
        Box::pin(self.link.batch(statements, begin, call))
    }

    fn script<'a>(&'a self, text: &'a str, call: Call) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.link.script(text, call))
    }

    fn begin(&self, begin: Begin, call: Call) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.link.begin(begin, call))
    }

    fn begin_with_first(&self, begin: Begin, call: Call) -> BoxFuture<'_, Result<Begun>> {
        Box::pin(async move {
            self.link.begin_with_first(begin, call).await?;
            Ok(Begun::WithFirst)
        })
    }

    fn begin_with_token<'a>(
        &'a self,
        begin: Begin,
        token: &'a Token,
        call: Call,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.link.begin_with_token(begin, token, call))
    }

    fn origin(&self) -> Option<Origin> {
        *self.link.origin()
    }

    fn commit(&self, call: Call) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.link.commit(call))
    }

    fn roll_back(&self, call: Call) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.link.roll_back(call))
    }

    fn savepoint(&self, step: Savepoint, call: Call) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.link.savepoint(step, call))
    }

    fn copy_in<'a>(
        &'a self,
        text: &'a Arc<str>,
        call: Call,
    ) -> BoxFuture<'a, Result<Box<dyn CopySink>>> {
        Box::pin(self.link.copy_in(text, call))
    }

    fn copy_out<'a>(
        &'a self,
        text: &'a Arc<str>,
        call: Call,
    ) -> BoxFuture<'a, Result<Box<dyn CopySource>>> {
        Box::pin(self.link.copy_out(text, call))
    }

    fn listen<'a>(
        &'a self,
        channels: &'a [String],
        call: Call,
    ) -> BoxFuture<'a, Result<Box<dyn Listening>>> {
        Box::pin(self.link.listen(channels, call))
    }

    fn position(&self, call: Call) -> BoxFuture<'_, Result<Position>> {
        Box::pin(self.link.position(call))
    }

    fn has_reached(&self, position: Position) -> bool {
        self.link.has_reached(position)
    }

    fn condition(&self) -> Condition {
        self.link.condition()
    }

    fn lane(&self) -> Lane {
        self.link.usage().lane
    }

    fn hand_over(&self) {
        let mut usage = self.link.usage();
        usage.handed_over = true;
        usage.in_hands = self.link.connector.writes().map(InHands::new);
    }

    fn check(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.link.check(deadline))
    }

    fn clean(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.link.clean(deadline))
    }

    fn cancel(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.link.cancel(deadline))
    }

    fn close(&self, deadline: Deadline) -> BoxFuture<'_, ()> {
        Box::pin(self.link.close(deadline))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
