//! A backend that does what a test tells it, and records what was asked of it.

use mainstay::backend::{
    Backend, Begin, BoxFuture, Call, Condition, Connection, Cursor, Info, Lane, Layout,
    MigrationDialect, Presumption, Progress, Reply, Savepoint, Want,
};
use mainstay::config::{Config, Host, PostgresTarget, Target};
use mainstay::{
    Backup, Class, Database, Deadline, Error, Evidence, Kind, Result, Statement, System,
};
use mainstay_core::error::Report;
use std::any::Any;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

/// What the next step answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Fine,
    Fails(Error),
    Never,
}

/// What a check does.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Check {
    Panics,
    Hangs,
}

/// What was asked, in order: `connect`, `begin`, `run select 1`, `commit` …
#[derive(Debug, Default)]
pub(crate) struct Script {
    answers: Mutex<VecDeque<Answer>>,
    log: Mutex<Vec<String>>,
    pub(crate) unreachable: AtomicBool,
    /// The server refuses our password.
    pub(crate) refuses: AtomicBool,
    pub(crate) connects: AtomicUsize,
    /// How often it was asked where a text belongs.
    pub(crate) routes: AtomicUsize,
    /// When each attempt to connect began.
    pub(crate) connected_at: Mutex<Vec<Instant>>,
    /// Connections with a smaller number have ended.
    pub(crate) ended: AtomicUsize,
    /// What the next checks do.
    pub(crate) checks: Mutex<VecDeque<Check>>,
    /// How often it was asked whether the server still is what was wanted. It panics the first time.
    pub(crate) looks: AtomicUsize,
    pub(crate) limit: usize,
    /// What the database is called.
    pub(crate) target: &'static str,
}

/// What a scripted database is called, unless the test says otherwise.
pub(crate) const TARGET: &str = "script";

impl Script {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        let answers = Mutex::new(answers.into_iter().collect());
        Arc::new(Self {
            answers,
            limit: 2,
            target: TARGET,
            ..Self::default()
        })
    }

    /// A database on this script. The system says PostgreSQL, so that there is a breaker.
    pub(crate) fn database(self: &Arc<Self>, configure: impl FnOnce(&mut Config)) -> Database {
        let host = Host::Tcp {
            host: "script".into(),
            port: 1,
        };
        let mut config = Config::new(Target::Postgres(PostgresTarget::new(host, "u", "d")));
        configure(&mut config);
        Database::with_backend(config, Arc::new(Scripted(Arc::clone(self))))
    }

    /// Ends every connection that is open.
    pub(crate) fn end_all(&self) {
        let opened = self.connects.load(Ordering::Relaxed);
        self.ended.store(opened + 1, Ordering::Relaxed);
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, step: &str) -> usize {
        self.log()
            .iter()
            .filter(|asked| asked.starts_with(step))
            .count()
    }

    async fn step(&self, asked: String) -> Result<()> {
        self.log.lock().unwrap().push(asked);
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            None | Some(Answer::Fine) => Ok(()),
            Some(Answer::Fails(error)) => Err(error),
            Some(Answer::Never) => std::future::pending().await,
        }
    }
}

pub(crate) fn failure(kind: Kind, class: Class, evidence: Evidence) -> Answer {
    Answer::Fails(
        Report::new(kind, "scripted")
            .class(class)
            .evidence(evidence)
            .into(),
    )
}

pub(crate) fn conflict() -> Answer {
    failure(Kind::Conflict, Class::RolledBack, Evidence::Answered)
}

pub(crate) fn unknown() -> Answer {
    failure(
        Kind::OutcomeUnknown,
        Class::OutcomeUnknown,
        Evidence::Silent,
    )
}

pub(crate) fn read_lost() -> Answer {
    failure(Kind::Unreachable, Class::ReadLost, Evidence::Silent)
}

#[derive(Debug)]
struct Scripted(Arc<Script>);

impl Backend for Scripted {
    fn system(&self) -> System {
        System::Postgres
    }

    fn target(&self) -> &str {
        self.0.target
    }

    fn layout(&self) -> Layout {
        Layout::Shared {
            limit: self.0.limit,
        }
    }

    fn connect(&self, _: Lane, _: Deadline) -> BoxFuture<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async move {
            let number = self.0.connects.fetch_add(1, Ordering::Relaxed) + 1;
            self.0.connected_at.lock().unwrap().push(Instant::now());
            if self.0.refuses.load(Ordering::Relaxed) {
                return Err(Report::new(Kind::Credentials, "wrong password").into());
            }
            if self.0.unreachable.load(Ordering::Relaxed) {
                return Err(
                    Report::new(Kind::Unreachable, "connection refused by script:1").into(),
                );
            }
            let connection: Arc<dyn Connection> = Arc::new(Line {
                script: Arc::clone(&self.0),
                number,
                dirty: AtomicBool::new(false),
            });
            Ok(connection)
        })
    }

    fn presume(&self, text: &str) -> Presumption {
        match text.split_whitespace().next() {
            Some("insert" | "update") => Presumption::Writes,
            Some("set") => Presumption::Session("set"),
            _ => Presumption::Unknown,
        }
    }

    fn route<'a>(
        &'a self,
        _: &'a dyn Connection,
        _: &'a Arc<str>,
        _: Deadline,
    ) -> BoxFuture<'a, Result<Lane>> {
        Box::pin(async {
            self.0.routes.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await; // a server does not answer at once either
            Ok(Lane::Read)
        })
    }

    fn still_serves<'a>(
        &'a self,
        _: &'a dyn Connection,
        _: Deadline,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async {
            let before = self.0.looks.fetch_add(1, Ordering::Relaxed);
            assert_ne!(before, 0, "the script panics the first time");
            Ok(true)
        })
    }

    fn is_permanent(&self, error: &Error) -> bool {
        error.kind() == Kind::Credentials
    }

    fn info<'a>(&'a self, _: &'a dyn Connection, _: Deadline) -> BoxFuture<'a, Result<Info>> {
        Box::pin(async { Ok(Info::default()) })
    }

    fn migrations(&self) -> &'static MigrationDialect {
        &MigrationDialect {
            create_history: "",
            history_exists: "",
            lock: None,
        }
    }

    fn create(&self, _: Deadline) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async { Ok(false) })
    }

    fn erase<'a>(&'a self, _: &'a dyn Connection, _: Deadline) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn backup<'a>(&'a self, _: &'a Path, _: Progress<'a>) -> BoxFuture<'a, Result<Backup>> {
        Box::pin(async { Err(Report::new(Kind::Other, "a script has no backup").into()) })
    }
}

#[derive(Debug)]
struct Line {
    script: Arc<Script>,
    number: usize,
    /// Something runs or a transaction is open.
    dirty: AtomicBool,
}

impl Line {
    fn step<T: Send + 'static>(
        &self,
        asked: String,
        dirty_after: bool,
        value: T,
    ) -> BoxFuture<'_, Result<T>> {
        Box::pin(async move {
            let before = self.dirty.swap(true, Ordering::Relaxed);
            let result = self.script.step(asked).await;
            let dirty = if result.is_ok() { dirty_after } else { before };
            self.dirty.store(dirty, Ordering::Relaxed);
            result.map(|()| value)
        })
    }

    fn in_transaction(&self) -> bool {
        self.dirty.load(Ordering::Relaxed)
    }
}

fn no_rows() -> Reply {
    Reply {
        burden: None,
        columns: Arc::default(),
        rows: Vec::new(),
        affected: 1,
    }
}

impl Connection for Line {
    fn run<'a>(
        &'a self,
        statement: &'a Statement,
        _: Want,
        _: Call,
    ) -> BoxFuture<'a, Result<Reply>> {
        self.step(
            format!("run {}", statement.text()),
            self.in_transaction(),
            no_rows(),
        )
    }

    fn cursor<'a>(&'a self, _: &'a Statement, _: Call) -> BoxFuture<'a, Result<Box<dyn Cursor>>> {
        Box::pin(async { Err(Report::new(Kind::Other, "a script has no cursor").into()) })
    }

    fn batch<'a>(
        &'a self,
        statements: &'a [Statement],
        _: Begin,
        _: Call,
    ) -> BoxFuture<'a, Result<Vec<u64>>> {
        self.step("batch".into(), false, vec![1; statements.len()])
    }

    fn script<'a>(&'a self, text: &'a str, _: Call) -> BoxFuture<'a, Result<()>> {
        self.step(format!("script {text}"), self.in_transaction(), ())
    }

    fn begin(&self, _: Begin, _: Call) -> BoxFuture<'_, Result<()>> {
        self.step("begin".into(), true, ())
    }

    fn commit(&self, _: Call) -> BoxFuture<'_, Result<()>> {
        self.step("commit".into(), false, ())
    }

    fn roll_back(&self, _: Call) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.script.log.lock().unwrap().push("rollback".into());
            self.dirty.store(false, Ordering::Relaxed);
            Ok(())
        })
    }

    fn savepoint(&self, step: Savepoint, _: Call) -> BoxFuture<'_, Result<()>> {
        self.step(format!("savepoint {step:?}"), true, ())
    }

    fn condition(&self) -> Condition {
        if self.number < self.script.ended.load(Ordering::Relaxed) {
            Condition::Broken
        } else if self.dirty.load(Ordering::Relaxed) {
            Condition::Dirty
        } else {
            Condition::Clean
        }
    }

    fn lane(&self) -> Lane {
        Lane::Write
    }

    fn hand_over(&self) {
        self.dirty.store(true, Ordering::Relaxed);
    }

    fn check(&self, _: Deadline) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let check = self.script.checks.lock().unwrap().pop_front();
            match check {
                Some(Check::Panics) => panic!("scripted"),
                Some(Check::Hangs) => std::future::pending().await,
                None => {}
            }
            if self.script.unreachable.load(Ordering::Relaxed) {
                return Err(Report::new(Kind::Unreachable, "no answer").into());
            }
            Ok(())
        })
    }

    fn clean(&self, _: Deadline) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.script.log.lock().unwrap().push("clean".into());
            self.dirty.store(false, Ordering::Relaxed);
            Ok(())
        })
    }

    fn cancel(&self, _: Deadline) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.script.log.lock().unwrap().push("cancel".into());
            Ok(())
        })
    }

    fn close(&self, _: Deadline) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.script.log.lock().unwrap().push("close".into());
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
