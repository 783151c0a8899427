//! LISTEN as a stream that comes back by itself.
//!
//! Listening needs a session of its own, for as long as somebody listens; everything that can happen
//! to a connection meanwhile (a restart, a failover, a firewall that forgets it) happens to the
//! listener, and the worst answer is silence that looks like peace. So a task holds a lease, asks
//! whether the other side is still there when nothing is heard, subscribes anew when it is not, and
//! tells the reader of every gap.

mod backlog;
mod serve;

use self::backlog::{BACKLOG_MAX, Backlog};
use self::serve::Subscription;
use crate::database::Database;
use crate::engine::Engine;
use mainstay_core::backend::Notification;
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result};
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What a [`Listener`] tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ListenEvent {
    /// Somebody announced something.
    Notification(Notification),
    /// So many notifications were dropped because they were not read in time: look at the tables.
    Missed(u64),
    /// The connection was lost and is there again. What was announced meanwhile nobody knows: look
    /// at the tables.
    Resubscribed {
        /// Why it was lost.
        cause: Error,
        /// For how long nothing was heard, as far as it was noticed.
        away: Duration,
    },
}

/// What is announced on some channels: a [`Stream`](futures_util::Stream) that reconnects by itself.
///
/// It holds one connection out of `connection_limit` until it is dropped. At most 1,024 notifications
/// wait to be read; what comes on top is counted and told as [`ListenEvent::Missed`]. When the connection
/// is lost, it is opened anew with the pacing of the pool for as long as it takes, and
/// [`ListenEvent::Resubscribed`] says so. The stream ends when the database is closed; after an error that
/// waiting cannot mend, such as refused credentials, nothing follows.
#[must_use = "a listener that is dropped hears nothing"]
pub struct Listener {
    desk: Arc<Desk>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Listener {
    /// The next event, for those who want no stream trait; `None` when the database was closed.
    ///
    /// # Errors
    ///
    /// What keeps the listener from ever subscribing again; nothing follows an error.
    ///
    /// # Cancel safety
    ///
    /// Safe: an event that was not handed out stays for the next call.
    pub async fn next(&mut self) -> Result<Option<ListenEvent>> {
        poll_fn(|context| self.desk.poll(context)).await.transpose()
    }
}

impl futures_util::Stream for Listener {
    type Item = Result<ListenEvent>;

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<ListenEvent>>> {
        self.desk.poll(context)
    }
}

/// The task ends, the connection unlistens in the background and goes back to the pool.
impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where the task puts what it heard and the reader takes it.
#[derive(Debug)]
struct Desk(Mutex<Pile>);

#[derive(Debug)]
struct Pile {
    backlog: Backlog,
    failure: Option<Error>,
    ended: bool,
    reader: Option<Waker>,
}

impl Desk {
    fn new() -> Self {
        Self(Mutex::new(Pile {
            backlog: Backlog::new(BACKLOG_MAX),
            failure: None,
            ended: false,
            reader: None,
        }))
    }

    /// Each change is complete in itself, so a panic elsewhere leaves the pile true.
    fn pile(&self) -> MutexGuard<'_, Pile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, change: impl FnOnce(&mut Pile)) {
        let reader = {
            let mut pile = self.pile();
            change(&mut pile);
            pile.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<ListenEvent>>> {
        let mut pile = self.pile();
        if let Some(event) = pile.backlog.take() {
            return Poll::Ready(Some(Ok(event)));
        }
        if let Some(failure) = pile.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        if pile.ended {
            return Poll::Ready(None);
        }
        pile.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

/// The listeners of a database: all but one of its connections may listen, so that statements always
/// have one.
#[derive(Debug, Default)]
pub(crate) struct Listeners(AtomicUsize);

/// The right to hold a connection for listening.
struct Permit(Arc<Engine>);

impl Permit {
    fn new(engine: &Arc<Engine>) -> Result<Self> {
        let most = engine.config.connection_limit.saturating_sub(1);
        let taken = engine
            .listeners
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                (now < most).then_some(now + 1)
            });
        if taken.is_ok() {
            return Ok(Self(Arc::clone(engine)));
        }
        let message = format!(
            "a listener holds a connection, and {most} of connection_limit={} may be held so",
            engine.config.connection_limit
        );
        Err(Report::new(Kind::Config, message)
            .remedy("let one listener hear several channels, or raise connection_limit")
            .into())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.listeners.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Database {
    /// Listens to channels (PostgreSQL's LISTEN). When this answers, the server has the subscription:
    /// everything announced from now on is heard or told as missed. So read the tables after it, not
    /// before. The names are taken as they are, upper case included; at most 100, at most 63 bytes
    /// each.
    ///
    /// ```no_run
    /// # async fn example(db: &mainstay::Database) -> mainstay::Result<()> {
    /// # async fn reload() -> mainstay::Result<()> { Ok(()) }
    /// # async fn refresh(order: &str) -> mainstay::Result<()> { Ok(()) }
    /// use mainstay::ListenEvent;
    ///
    /// let mut orders = db.listen(["orders"]).await?;
    /// reload().await?;
    /// while let Some(event) = orders.next().await? {
    ///     match event {
    ///         ListenEvent::Notification(order) => refresh(&order.payload).await?,
    ///         _ => reload().await?, // something may have been missed
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// A deadline of the handle bounds the subscribing and not the listener.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] on SQLite, behind a transaction pooler, for names that cannot be, and when the
    /// listeners would hold the last connection; everything that getting a connection can meet.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    #[track_caller]
    pub fn listen<S: Into<String>>(
        &self,
        channels: impl IntoIterator<Item = S>,
    ) -> impl Future<Output = Result<Listener>> + Send {
        let site = Location::caller();
        let channels: Vec<String> = channels.into_iter().map(Into::into).collect();
        async move {
            let engine = self.engine();
            engine.backend.listens()?;
            let permit = Permit::new(engine)?;
            let deadline = self.deadline_for(None);
            let subscription = Subscription::new(engine, &channels, deadline, site).await?;
            let desk = Arc::new(Desk::new());
            let serving = serve::serve(permit, channels, site, subscription, Arc::clone(&desk));
            Ok(Listener {
                desk,
                task: tokio::spawn(serving),
            })
        }
    }
}
