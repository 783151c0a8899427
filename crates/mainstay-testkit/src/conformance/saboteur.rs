//! A backend that is wrong in one respect.

use mainstay::backend::{
    Backend, Begin, BoxFuture, Call, Condition, Connection, Cursor, Info, Lane, Layout,
    MigrationDialect, Presumption, Progress, Reply, Savepoint, Want,
};
use mainstay::{Backup, Deadline, Error, Result, Row, Statement, System, Value};
use std::any::Any;
use std::path::Path;
use std::sync::Arc;

/// A backend that passes everything on, and lies in one respect.
#[derive(Clone, Debug, Default)]
pub struct Saboteur {
    statement: Option<fn(&Statement) -> Statement>,
    value: Option<fn(Value) -> Value>,
    reply: Option<fn(Reply) -> Reply>,
    want: Option<Want>,
    error: Option<fn(Error) -> Error>,
    presumption: Option<Presumption>,
    reads: Option<ReadLane>,
    cursor: Option<Cursoring>,
    transactions: Option<Transactions>,
}

/// How the read lane is wrong.
#[derive(Copy, Clone, Debug)]
pub(crate) enum ReadLane {
    /// Everything is taken for a read, and what is refused is swallowed.
    SwallowsRefusals,
}

/// How cursors are wrong.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Cursoring {
    /// Everything is read before the first row is handed out.
    ReadsAhead,
    /// Nothing is handed out before the end was seen.
    WaitsForTheEnd,
    /// The last batch is forgotten.
    LosesTheEnd,
}

/// How transactions are wrong.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transactions {
    /// Nothing is begun, so every statement commits by itself.
    NeverBegin,
    /// What is left open is committed when the connection is cleaned.
    CommitLeftovers,
    /// A commit rolls back and says all was well.
    CommitRollsBack,
    /// Each statement has a savepoint of its own, so that a failed one changes nothing else.
    SurviveFailures,
    /// Savepoints are not set.
    IgnoreSavepoints,
    /// Read-only is not passed on.
    IgnoreReadOnly,
    /// A batch is a loop.
    BatchIsALoop,
    /// A connection is given back as it is.
    NeverClean,
    /// What was begun goes on when its caller has left, and the connection says that it is clean.
    NeverStop,
}

impl Saboteur {
    pub(crate) fn statement(lie: fn(&Statement) -> Statement) -> Self {
        Self {
            statement: Some(lie),
            ..Self::default()
        }
    }

    pub(crate) fn value(lie: fn(Value) -> Value) -> Self {
        Self {
            value: Some(lie),
            ..Self::default()
        }
    }

    pub(crate) fn reply(lie: fn(Reply) -> Reply) -> Self {
        Self {
            reply: Some(lie),
            ..Self::default()
        }
    }

    pub(crate) fn want(lie: Want) -> Self {
        Self {
            want: Some(lie),
            ..Self::default()
        }
    }

    pub(crate) fn error(lie: fn(Error) -> Error) -> Self {
        Self {
            error: Some(lie),
            ..Self::default()
        }
    }

    /// A second lie, for what the database guards by itself.
    pub(crate) fn and_error(self, lie: fn(Error) -> Error) -> Self {
        Self {
            error: Some(lie),
            ..self
        }
    }

    /// A second lie, for what two rules guard.
    pub(crate) fn and_presumption(self, lie: Presumption) -> Self {
        Self {
            presumption: Some(lie),
            ..self
        }
    }

    pub(crate) fn reads(lie: ReadLane) -> Self {
        Self {
            reads: Some(lie),
            ..Self::default()
        }
    }

    pub(crate) fn cursor(lie: Cursoring) -> Self {
        Self {
            cursor: Some(lie),
            ..Self::default()
        }
    }

    pub(crate) fn transactions(lie: Transactions) -> Self {
        Self {
            transactions: Some(lie),
            ..Self::default()
        }
    }

    /// Puts itself around an honest backend.
    #[must_use]
    pub fn around(self, honest: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Spoiled { honest, lies: self })
    }

    fn is(&self, lie: Transactions) -> bool {
        self.transactions == Some(lie)
    }

    fn spoil_reply(&self, mut reply: Reply) -> Reply {
        if let Some(lie) = self.value {
            let spoil = |row: Row| {
                let columns = Arc::clone(row.columns());
                Row::new(columns, row.into_values().into_iter().map(lie).collect())
            };
            reply.rows = reply.rows.into_iter().map(spoil).collect();
        }
        match self.reply {
            Some(lie) => lie(reply),
            None => reply,
        }
    }

    fn spoil_error(&self, error: Error) -> Error {
        match self.error {
            Some(lie) => lie(error),
            None => error,
        }
    }
}

#[derive(Debug)]
struct Spoiled {
    honest: Arc<dyn Backend>,
    lies: Saboteur,
}

impl Backend for Spoiled {
    fn system(&self) -> System {
        self.honest.system()
    }

    fn target(&self) -> &str {
        self.honest.target()
    }

    fn layout(&self) -> Layout {
        self.honest.layout()
    }

    fn connect(
        &self,
        lane: Lane,
        deadline: Deadline,
    ) -> BoxFuture<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async move {
            let honest = self.honest.connect(lane, deadline).await?;
            let spoiled: Arc<dyn Connection> = Arc::new(SpoiledConnection {
                honest,
                lies: self.lies.clone(),
            });
            Ok(spoiled)
        })
    }

    fn presume(&self, text: &str) -> Presumption {
        self.lies
            .presumption
            .unwrap_or_else(|| match self.lies.reads {
                Some(ReadLane::SwallowsRefusals) => Presumption::Unknown,
                None => self.honest.presume(text),
            })
    }

    fn route<'a>(
        &'a self,
        connection: &'a dyn Connection,
        text: &'a Arc<str>,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Lane>> {
        match self.lies.reads {
            Some(ReadLane::SwallowsRefusals) => Box::pin(async { Ok(Lane::Read) }),
            None => {
                let route = self.honest.route(unspoiled(connection), text, deadline);
                Box::pin(async { route.await.map_err(|error| self.lies.spoil_error(error)) })
            }
        }
    }

    fn is_permanent(&self, error: &Error) -> bool {
        self.honest.is_permanent(error)
    }

    fn info<'a>(
        &'a self,
        connection: &'a dyn Connection,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Info>> {
        self.honest.info(unspoiled(connection), deadline)
    }

    fn migrations(&self) -> &'static MigrationDialect {
        self.honest.migrations()
    }

    fn create(&self, deadline: Deadline) -> BoxFuture<'_, Result<bool>> {
        self.honest.create(deadline)
    }

    fn erase<'a>(
        &'a self,
        connection: &'a dyn Connection,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<()>> {
        self.honest.erase(unspoiled(connection), deadline)
    }

    fn backup<'a>(&'a self, to: &'a Path, progress: Progress<'a>) -> BoxFuture<'a, Result<Backup>> {
        self.honest.backup(to, progress)
    }
}

/// The backend looks for its own type of connection.
fn unspoiled(connection: &dyn Connection) -> &dyn Connection {
    connection
        .as_any()
        .downcast_ref::<SpoiledConnection>()
        .map_or(connection, |spoiled| &*spoiled.honest)
}

#[derive(Debug)]
struct SpoiledConnection {
    honest: Arc<dyn Connection>,
    lies: Saboteur,
}

impl SpoiledConnection {
    /// Runs a statement in a task that nobody stops.
    async fn run_on(&self, statement: Statement, want: Want, call: Call) -> Result<Reply> {
        let honest = Arc::clone(&self.honest);
        let call = Call {
            deadline: endless(),
            ..call
        };
        let running = tokio::spawn(async move { honest.run(&statement, want, call).await });
        running.await.expect("the honest connection does not panic")
    }

    async fn run_spoiled(&self, statement: &Statement, want: Want, call: Call) -> Result<Reply> {
        let lied = self.lies.statement.map(|lie| lie(statement));
        let statement = lied.as_ref().unwrap_or(statement);
        let want = match (self.lies.want, want) {
            (Some(lie), Want::Rows(_)) => lie,
            _ => want,
        };
        let survives = self.lies.is(Transactions::SurviveFailures)
            && self.honest.condition() == Condition::Dirty;
        if survives {
            self.honest.savepoint(Savepoint::Set(99), call).await?;
        }
        let result = match self.lies.is(Transactions::NeverStop) {
            true => self.run_on(statement.clone(), want, call).await,
            false => self.honest.run(statement, want, call).await,
        };
        if survives && result.is_err() {
            self.honest.savepoint(Savepoint::RollBack(99), call).await?;
        }
        match result {
            Ok(reply) => Ok(self.lies.spoil_reply(reply)),
            Err(error) if self.lies.reads.is_some() && error.is_refused_by_read_lane() => {
                let columns = Arc::default();
                Ok(Reply {
                    burden: None,
                    columns,
                    rows: Vec::new(),
                    affected: 1,
                })
            }
            Err(error) => Err(self.lies.spoil_error(error)),
        }
    }
}

impl Connection for SpoiledConnection {
    fn run<'a>(
        &'a self,
        statement: &'a Statement,
        want: Want,
        call: Call,
    ) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(self.run_spoiled(statement, want, call))
    }

    fn cursor<'a>(
        &'a self,
        statement: &'a Statement,
        call: Call,
    ) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        Box::pin(async move {
            let mut honest = self.honest.cursor(statement, call).await?;
            if self.lies.is(Transactions::NeverStop) {
                return kept(honest).await;
            }
            let Some(lie) = self.lies.cursor else {
                return Ok(honest);
            };
            let mut batches = Vec::new();
            while let Some(batch) = honest.next_batch().await? {
                // Waiting is the lie, not the memory it would take on an endless result.
                if !matches!(lie, Cursoring::WaitsForTheEnd) {
                    batches.push(batch);
                }
            }
            if matches!(lie, Cursoring::LosesTheEnd) {
                batches.pop();
            }
            let replayed: Box<dyn Cursor> = Box::new(Replayed(batches.into_iter()));
            Ok(replayed)
        })
    }

    fn batch<'a>(
        &'a self,
        statements: &'a [Statement],
        begin: Begin,
        call: Call,
    ) -> BoxFuture<'a, Result<Vec<u64>>> {
        if !self.lies.is(Transactions::BatchIsALoop) {
            return self.honest.batch(statements, begin, call);
        }
        Box::pin(async move {
            let mut affected = Vec::new();
            for statement in statements {
                let reply = self.honest.run(statement, Want::Affected, call).await?;
                affected.push(reply.affected);
            }
            Ok(affected)
        })
    }

    fn script<'a>(&'a self, text: &'a str, call: Call) -> BoxFuture<'a, Result<()>> {
        let run = self.honest.script(text, call);
        Box::pin(async { run.await.map_err(|error| self.lies.spoil_error(error)) })
    }

    fn begin(&self, begin: Begin, call: Call) -> BoxFuture<'_, Result<()>> {
        if self.lies.is(Transactions::NeverBegin) {
            return Box::pin(async { Ok(()) });
        }
        if self.lies.is(Transactions::IgnoreReadOnly) {
            let call = Call {
                lane: Lane::Write,
                ..call
            };
            return self.honest.begin(
                Begin {
                    read_only: false,
                    ..begin
                },
                call,
            );
        }
        self.honest.begin(begin, call)
    }

    fn commit(&self, call: Call) -> BoxFuture<'_, Result<()>> {
        match self.lies.transactions {
            Some(Transactions::NeverBegin) => Box::pin(async { Ok(()) }),
            Some(Transactions::CommitRollsBack) => self.honest.roll_back(call),
            _ => self.honest.commit(call),
        }
    }

    fn roll_back(&self, call: Call) -> BoxFuture<'_, Result<()>> {
        self.honest.roll_back(call)
    }

    fn savepoint(&self, step: Savepoint, call: Call) -> BoxFuture<'_, Result<()>> {
        if self.lies.is(Transactions::IgnoreSavepoints) {
            return Box::pin(async { Ok(()) });
        }
        self.honest.savepoint(step, call)
    }

    fn condition(&self) -> Condition {
        if self.lies.is(Transactions::NeverClean) || self.lies.is(Transactions::NeverStop) {
            return Condition::Clean;
        }
        self.honest.condition()
    }

    fn lane(&self) -> Lane {
        self.honest.lane()
    }

    fn hand_over(&self) {
        self.honest.hand_over();
    }

    fn check(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>> {
        self.honest.check(deadline)
    }

    fn clean(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if self.lies.is(Transactions::CommitLeftovers) {
                let call = Call {
                    lane: Lane::Write,
                    deadline,
                };
                drop(self.honest.commit(call).await); // there may be nothing to commit
            }
            self.honest.clean(deadline).await
        })
    }

    fn cancel(&self, deadline: Deadline) -> BoxFuture<'_, Result<()>> {
        self.honest.cancel(deadline)
    }

    fn close(&self, deadline: Deadline) -> BoxFuture<'_, ()> {
        self.honest.close(deadline)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Replayed(std::vec::IntoIter<Vec<Row>>);

impl Cursor for Replayed {
    fn next_batch(&mut self) -> BoxFuture<'_, Result<Option<Vec<Row>>>> {
        let batch = self.0.next();
        Box::pin(async move { Ok(batch) })
    }
}

/// Later than any law's patience.
fn endless() -> Deadline {
    Deadline::from_now(std::time::Duration::from_secs(600))
}

/// Hands out the first batch and keeps the cursor open for ever.
async fn kept(mut honest: Box<dyn Cursor>) -> Result<Box<dyn Cursor>> {
    let first: Vec<_> = honest.next_batch().await?.into_iter().collect();
    tokio::spawn(async move {
        tokio::time::sleep_until(endless().instant()).await;
        drop(honest);
    });
    Ok(Box::new(Replayed(first.into_iter())))
}
