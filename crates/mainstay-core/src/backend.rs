//! The seam that a backend fills.
//!
//! A backend translates; it does not decide policy. It opens connections, sends statements, says
//! what an error means and in what condition a connection is. When to connect, whom to lend to,
//! whether to try again and how long to wait are the facade's and the pool's business.
//!
//! Everything here is object safe: the facade holds an `Arc<dyn Backend>`, so the application's
//! types do not change with the database. One boxed future a statement is the price, small beside
//! the statement itself.

mod copying;
mod info;
mod keyword;
mod listening;
mod position;

pub use copying::{CopySink, CopySource};
pub use info::{ApplicationInfo, FileInfo, Info, LogInfo, SessionCounts, TableInfo};
pub use listening::{Heard, Listening, Notification};
pub use position::{Position, Writes};

use crate::row::{Columns, Row};
use crate::token::{Origin, Token};
use crate::{Deadline, Error, Result, Statement};
use std::any::Any;
use std::fmt::Debug;
use std::future::Future;
use std::panic::Location;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A future that can be held in a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which database system it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum System {
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
}

impl System {
    /// `postgresql` or `sqlite`: OpenTelemetry's `db.system.name`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Sqlite => "sqlite",
        }
    }

    /// The infix of a migration written for this system only: `0001_init.sqlite.sql`.
    #[must_use]
    pub const fn file_infix(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        }
    }
}

/// A way in which statements reach the database.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The database itself refuses to write here.
    Read,
    /// Everything is allowed.
    Write,
}

/// How a backend's connections are laid out over the two lanes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One pool whose connections serve either lane.
    Shared {
        /// How many connections may be open at once.
        limit: usize,
    },
    /// A pool of readers and one of writers: a SQLite file, a PostgreSQL primary with replicas.
    Split {
        /// How many readers may be open at once; the writers come on top.
        readers: usize,
        /// How many writers.
        writers: usize,
    },
    /// One connection for everything (`:memory:`), never closed while the pool lives.
    Single,
}

/// How the one-shot statements of a lane share connections.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// How many connections are shared before callers crowd together on them.
    pub active: usize,
    /// How many connections are shared at the most; the others are for leases.
    pub widest: usize,
    /// How many callers may be on one connection at once.
    pub depth: usize,
    /// A connection whose oldest caller has been on it for longer takes nobody more until everybody
    /// has left.
    pub late_after: Duration,
    /// Callers whose text is answered within this time as a rule gather on one connection, up to the
    /// depth, before they use a second; `None` spreads everybody over the active ones.
    pub brief: Option<Duration>,
}

/// Why a read is a burden on those with whom it shares a connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Burden {
    /// Its result grew large, and those behind it wait until it has passed.
    Large,
    /// It ran for long, or does as a rule, and those behind it wait until it has ended.
    Slow,
}

/// What can be said about a text without asking the database.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Presumption {
    /// It writes: the write lane.
    Writes,
    /// It changes the session or the transaction; the keyword is named in the refusal.
    Session(&'static str),
    /// Ask: [`Backend::route`] decides, once per text.
    Unknown,
}

/// In what condition a connection is, told without I/O.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing pending, no transaction open, session as it was: may be lent at once.
    Clean,
    /// Something is left over; [`Connection::clean`] has to run first.
    Dirty,
    /// Of no use any more.
    Broken,
}

/// Transaction isolation, strongest last.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// PostgreSQL's default. SQLite gives more: its writers are serial.
    ReadCommitted,
    /// One snapshot for the whole transaction.
    RepeatableRead,
    /// As if the transactions had run one after the other.
    Serializable,
}

/// How a transaction begins.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// The isolation asked for, or the database's own default.
    pub isolation: Option<Isolation>,
    /// Whether writing is refused inside.
    pub read_only: bool,
}

/// Whether the database has been asked to begin.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The transaction is open.
    Now,
    /// Nothing was sent: the first statement takes BEGIN with it.
    WithFirst,
}

/// What to do with a savepoint. Savepoints are numbered by depth, the outermost is 1.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Savepoint {
    /// Set it.
    Set(u32),
    /// Release it: its work becomes part of the surrounding unit.
    Release(u32),
    /// Undo everything since it was set, and release it. Also lifts the aborted state that a failed
    /// statement inside it caused.
    RollBack(u32),
}

/// What is wanted of a statement.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// The number of affected rows.
    Affected,
    /// The rows, at most so many: one more than the caller can use is enough to know that there are
    /// too many. `usize::MAX` for all.
    Rows(usize),
}

/// The frame of one call: where it runs and until when.
#[derive(Copy, Clone, Debug)]
pub struct Call {
    /// The lane. Inside a transaction it is the transaction's.
    pub lane: Lane,
    /// Until when. The facade stops waiting then; a backend uses it to stop the work itself (a
    /// statement timeout, an interrupt) and to bound its own waits.
    pub deadline: Deadline,
}

/// What a statement answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The columns; empty for a statement without a result.
    pub columns: Arc<Columns>,
    /// The rows, when they were wanted.
    pub rows: Vec<Row>,
    /// Rows affected, as the database counts them; for a query the number of rows returned.
    pub affected: u64,
    /// Why it had better not share a connection the next time, if it did and that was no good.
    pub burden: Option<Burden>,
}

/// A result that is read piece by piece. Memory stays bounded by one batch.
///
/// Dropping a cursor before its end leaves the connection dirty; giving the connection back cleans it.
pub trait Cursor: Send {
    /// The next rows, never an empty batch; `None` at the end.
    ///
    /// # Cancel safety
    ///
    /// A batch that was not handed out is lost when the future is dropped; the cursor must then be
    /// dropped as well.
    fn next_batch(&mut self) -> BoxFuture<'_, Result<Option<Vec<Row>>>>;
}

/// One open session with a database.
///
/// Methods take `&self` so that two statements of one transaction may be awaited together and
/// travel together; a backend that can do one thing at a time queues them in the order in which the
/// futures were first polled. Dropping the future of any method at any point must leave a
/// connection whose [`condition`](Self::condition) tells the truth.
pub trait Connection: Send + Sync + Debug + 'static {
    /// Runs one statement.
    fn run<'a>(
        &'a self,
        statement: &'a Statement,
        want: Want,
        call: Call,
    ) -> BoxFuture<'a, Result<Reply>>;

    /// Runs one statement beside those of strangers, on a lane that [`Backend::sharing`] lets share.
    /// An error, a deadline or a dropped future of one of them touches no other. One that holds up
    /// the others may be stopped, with an error whose [`burden`](Error::burden) says why.
    ///
    /// The session's setting may be changed for it only while nobody else is on the connection, which
    /// is so whenever its lane is another than the call's.
    fn run_shared<'a>(
        &'a self,
        statement: &'a Statement,
        want: Want,
        call: Call,
    ) -> BoxFuture<'a, Result<Reply>> {
        self.run(statement, want, call)
    }

    /// Runs one statement and reads its rows piece by piece.
    fn cursor<'a>(
        &'a self,
        statement: &'a Statement,
        call: Call,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>>;

    /// Runs statements as one atomic unit, in one round trip where the database allows it. Answers
    /// the affected rows of each. On an error nothing of it has happened, or the error's kind is
    /// [`OutcomeUnknown`](crate::Kind::OutcomeUnknown).
    fn batch<'a>(
        &'a self,
        statements: &'a [Statement],
        begin: Begin,
        call: Call,
    ) -> BoxFuture<'a, Result<Vec<u64>>>;

    /// As [`batch`](Self::batch), beside the work of strangers; see [`run_shared`](Self::run_shared).
    fn batch_shared<'a>(
        &'a self,
        statements: &'a [Statement],
        begin: Begin,
        call: Call,
    ) -> BoxFuture<'a, Result<Vec<u64>>> {
        self.batch(statements, begin, call)
    }

    /// Runs a text of several statements without parameters, as migrations and seeds are. Inside a
    /// transaction it belongs to it; outside, every statement commits by itself.
    fn script<'a>(&'a self, text: &'a str, call: Call) -> BoxFuture<'a, Result<()>>;

    /// Opens a transaction.
    fn begin(&self, begin: Begin, call: Call) -> BoxFuture<'_, Result<()>>;

    /// Opens a transaction for whoever can run the whole of it again: BEGIN may travel with the first
    /// statement, and a transaction that cannot begin then fails that statement. After such a failure
    /// it can only be rolled back. To commit or to roll back before any statement does nothing.
    ///
    /// A backend to which a round trip costs nothing begins at once.
    fn begin_with_first(&self, begin: Begin, call: Call) -> BoxFuture<'_, Result<Begun>> {
        Box::pin(async move {
            self.begin(begin, call).await?;
            Ok(Begun::Now)
        })
    }

    /// Opens a transaction whose first act is to write a token's row, and answers when the row is
    /// acknowledged. If beginning fails the row is not written on its own.
    ///
    /// A backend overrides it to do both in one round trip.
    fn begin_with_token<'a>(
        &'a self,
        begin: Begin,
        token: &'a Token,
        call: Call,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.begin(begin, call).await?;
            let written = match token.insert() {
                Ok(insert) => self.run(&insert, Want::Affected, call).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                self.roll_back(call).await?;
                return Err(error);
            }
            Ok(())
        })
    }

    /// Which session of the server this is, so that another one can end it; `None` while that is not
    /// known, or where a session cannot outlive its connection.
    fn origin(&self) -> Option<Origin> {
        None
    }

    /// Commits. A transaction that the database had already aborted is an error, not a success. A
    /// lost answer is [`OutcomeUnknown`](crate::Kind::OutcomeUnknown).
    fn commit(&self, call: Call) -> BoxFuture<'_, Result<()>>;

    /// Rolls back. Without a transaction it does nothing.
    fn roll_back(&self, call: Call) -> BoxFuture<'_, Result<()>>;

    /// Sets, releases or rolls back to a savepoint.
    fn savepoint(&self, step: Savepoint, call: Call) -> BoxFuture<'_, Result<()>>;

    /// Begins to take in what a `COPY … FROM STDIN` reads. Until it has ended, nothing else may be sent.
    fn copy_in<'a>(
        &'a self,
        text: &'a Arc<str>,
        call: Call,
    ) -> BoxFuture<'a, Result<Box<dyn CopySink>>> {
        let _ = (text, call); // of no use to a database without COPY
        Box::pin(async { Err(copying::not_supported()) })
    }

    /// Begins to give out what a `COPY … TO STDOUT` writes. Until it has ended, nothing else may be sent.
    fn copy_out<'a>(
        &'a self,
        text: &'a Arc<str>,
        call: Call,
    ) -> BoxFuture<'a, Result<Box<dyn CopySource>>> {
        let _ = (text, call); // of no use to a database without COPY
        Box::pin(async { Err(copying::not_supported()) })
    }

    /// Subscribes to channels; what is announced on them from now on is heard. The subscription ends
    /// when the connection is [cleaned](Self::clean) or closed.
    fn listen<'a>(
        &'a self,
        channels: &'a [String],
        call: Call,
    ) -> BoxFuture<'a, Result<Box<dyn Listening>>> {
        let _ = (channels, call); // of no use to a database without channels
        Box::pin(async { Err(listening::not_supported()) })
    }

    /// How far the server has come: one that takes writes with writing, a replica with replaying. On the
    /// read lane it is asked beside strangers, as by [`run_shared`](Self::run_shared).
    fn position(&self, call: Call) -> BoxFuture<'_, Result<Position>> {
        let _ = call; // without replicas, nothing is asked
        Box::pin(async { Ok(Position::default()) })
    }

    /// Whether the server is known to have come that far, without I/O.
    fn has_reached(&self, position: Position) -> bool {
        let _ = position; // without replicas, everything is where it was written
        true
    }

    /// In what condition the connection is, without I/O.
    fn condition(&self) -> Condition;

    /// The lane whose setting the session has now; the pool prefers it for that lane.
    fn lane(&self) -> Lane;

    /// Tells the session who has it from now on, or a place on it.
    fn on_lent(&self, site: &'static Location<'static>) {
        let _ = site; // only who can be blamed wants to know
    }

    /// Tells the session that its user may change its state from now on (`with_connection`,
    /// `acquire`): the condition stays dirty until [`clean`](Self::clean) has restored everything.
    fn hand_over(&self);

    /// Asks the server whether it still answers.
    fn check(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>>;

    /// Asks whether a write would be let in now, without writing: begins a transaction and rolls it
    /// back.
    fn check_writing(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>> {
        let call = Call {
            lane: Lane::Write,
            deadline,
        };
        Box::pin(async move {
            self.begin(Begin::default(), call).await?;
            self.roll_back(call).await
        })
    }

    /// Makes a dirty connection clean: stops what still runs on the server, ends an open
    /// transaction, restores the session. An error means that the connection is broken.
    fn clean(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>>;

    /// Asks the server to stop what this connection is running now. Best effort.
    fn cancel(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>>;

    /// Closes; returns when the server has let go, or at the deadline.
    fn close(&self, deadline: Deadline) -> BoxFuture<'_, ()>;

    /// The native connection, for `as_postgres` and `as_sqlite`.
    fn as_any(&self) -> &dyn Any;
}

/// What a finished backup tells.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Size of the written file in bytes.
    pub bytes: u64,
    /// How it was made: `pg_dump 15.18`, `sqlite backup`.
    pub method: String,
    /// How long it took.
    pub took: Duration,
}

/// Progress of a long piece of work: done and total, in whatever unit the work has.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// The texts that the migration runner needs and that differ between the systems.
#[derive(Copy, Clone, Debug)]
pub struct MigrationDialect {
    /// Creates `_mainstay_migrations` if it is not there. Columns, in this order:
    /// `version` (integer key), `name`, `checksum`, `dialect` (text), `started_at`, `finished_at`
    /// (text, RFC 3339, null while unfinished), `took_ms` (integer), `error` (text, null).
    pub create_history: &'static str,
    /// A query that answers one row with a true first column if the history table exists.
    pub history_exists: &'static str,
    /// A statement that makes concurrent runners wait, run inside the migration's transaction;
    /// `None` where beginning to write already does.
    pub lock: Option<&'static str>,
}

/// A database system behind one URL.
pub trait Backend: Send + Sync + Debug + 'static {
    /// Which system.
    fn system(&self) -> System;

    /// Where it is, for people: `postgres://host:5432/app` or `file:./shop.db`, without secrets.
    fn target(&self) -> &str;

    /// How its connections are laid out.
    fn layout(&self) -> Layout;

    /// How the one-shot statements of a lane share connections; `None` gives each a connection of
    /// its own.
    fn sharing(&self, lane: Lane) -> Option<Sharing> {
        let _ = lane; // only those who share ask which
        None
    }

    /// How far behind the primary a server may be that reads are sent to; `None` where they are sent to no
    /// other server.
    fn max_replica_lag(&self) -> Option<Duration> {
        None
    }

    /// How many calls have ended that may have written. A call is counted before its caller hears of its
    /// end. Counted where reads are sent to replicas.
    fn writes(&self) -> Writes {
        Writes::default()
    }

    /// Makes one attempt to open one connection.
    fn connect(&self, lane: Lane, deadline: Deadline)
    -> BoxFuture<'_, Result<Arc<dyn Connection>>>;

    /// Whether sessions with this database can [listen](Connection::listen), and if not, why.
    fn listens(&self) -> Result<()> {
        Err(listening::not_supported())
    }

    /// Says what the text alone tells, by its first keyword.
    fn presume(&self, text: &str) -> Presumption;

    /// Asks the database, once per text, where it belongs. `connection` is one of the read lane.
    fn route<'a>(
        &'a self,
        connection: &'a dyn Connection,
        text: &'a Arc<str>,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Lane>>;

    /// Asks the server behind a connection whether it still is what connections were opened for: not in
    /// recovery where writes were wanted, and not started again since. If not, older connections are not
    /// lent again.
    fn still_serves<'a>(
        &'a self,
        connection: &'a dyn Connection,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<bool>> {
        let _ = (connection, deadline); // only a server can become another one
        Box::pin(async { Ok(true) })
    }

    /// Whether trying to connect again can help after this error; wrong credentials cannot be cured
    /// by asking more often.
    fn is_permanent(&self, error: &Error) -> bool;

    /// Version, sizes, sessions.
    fn info<'a>(
        &'a self,
        connection: &'a dyn Connection,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Info>>;

    /// What is known of the write-ahead log, without asking for it; `None` where it is nobody's
    /// affair.
    fn log(&self) -> Option<LogInfo> {
        None
    }

    /// The texts for the migration runner.
    fn migrations(&self) -> &'static MigrationDialect;

    /// Creates the database if it does not exist; answers whether it did.
    fn create(&self, deadline: Deadline) -> BoxFuture<'_, Result<bool>>;

    /// Removes every object of the application (and mainstay's own tables) from the database.
    fn erase<'a>(
        &'a self,
        connection: &'a dyn Connection,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<()>>;

    /// Writes a consistent copy to `to`, which must not exist yet.
    fn backup<'a>(&'a self, to: &'a Path, progress: Progress<'a>) -> BoxFuture<'a, Result<Backup>>;
}
