//! Why a command was not done, ready to be shown: what happened, where, and what to try.

use crate::exit::Exit;
use serde::Serialize;
use std::error::Error as _;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// One failure, as people and machines are told of it. One word wide, because every function hands
/// it on.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Failure(Box<Facts>);

/// The facts of a failure.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    /// [`mainstay::Kind`]'s word, or `usage`, `declined`, `interrupted`, `output`.
    pub(crate) kind: &'static str,
    /// The code under which operators coming from Prisma know it.
    pub(crate) code: Option<&'static str>,
    /// What happened, without secrets.
    pub(crate) message: String,
    /// What to try.
    pub(crate) remedy: Option<String>,
    /// PostgreSQL's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sqlstate: Option<String>,
    /// The chain of causes, for `--verbose`.
    #[serde(skip)]
    pub(crate) causes: Vec<String>,
    /// What the shell is told.
    #[serde(skip)]
    pub(crate) exit: Exit,
    /// Migrations that were applied before it happened; they stay applied.
    #[serde(skip)]
    pub(crate) applied: Vec<Step>,
}

/// A migration that was applied.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    /// Number and name.
    pub(crate) migration: String,
    /// How long it took, in milliseconds.
    pub(crate) took_ms: f64,
}

impl Step {
    pub(crate) fn took(&self) -> Duration {
        Duration::try_from_secs_f64(self.took_ms / 1000.0).unwrap_or_default()
    }
}

impl Failure {
    fn new(kind: &'static str, exit: Exit, message: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            kind,
            code: None,
            message: message.into(),
            remedy: None,
            sqlstate: None,
            causes: Vec::new(),
            exit,
            applied: Vec::new(),
        }))
    }

    /// The arguments do not say what would be needed.
    pub(crate) fn usage(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new("usage", Exit::Mend, message).remedy(remedy)
    }

    /// A file could not be read or written.
    pub(crate) fn file(path: &Path, what: &str, cause: &std::io::Error) -> Self {
        let failure = Self::new(
            "storage",
            Exit::NotDone,
            format!("{} {what}", path.display()),
        );
        let remedy = match cause.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory",
            std::io::ErrorKind::PermissionDenied => "look at its permissions and owner",
            std::io::ErrorKind::InvalidData => "write it as UTF-8",
            _ => return failure.caused_by(cause.to_string()),
        };
        failure.remedy(remedy).caused_by(cause.to_string())
    }

    /// Nobody said which database.
    pub(crate) fn no_url() -> Self {
        let mut failure = Self::new("config", Exit::Mend, "no database was named");
        failure.code = Some("P1013");
        failure.remedy(
            "set DATABASE_URL or give --url: file:./dev.db for SQLite, \
             postgres://user@host/database for PostgreSQL",
        )
    }

    /// There is no database yet where one has to be.
    pub(crate) fn no_database(message: impl Into<String>) -> Self {
        let mut failure = Self::new("config", Exit::Mend, message);
        failure.code = Some("P1003");
        failure.remedy("create it with `mainstay init`, or look at the path in the URL")
    }

    /// The answer to the question was not yes.
    pub(crate) fn declined() -> Self {
        Self::new("declined", Exit::Declined, "declined; nothing was changed")
    }

    /// Ctrl-C or SIGTERM.
    pub(crate) fn interrupted() -> Self {
        Self::new(
            "interrupted",
            Exit::Declined,
            "interrupted; what was running was rolled back",
        )
    }

    /// The result could not be written.
    pub(crate) fn output(cause: &std::io::Error) -> Self {
        let message = format!("the result could not be written: {cause}");
        Self::new("output", Exit::NotDone, message)
            .remedy("the command itself was carried out; look where its output goes")
    }

    /// The program could not be started.
    pub(crate) fn start(cause: &std::io::Error) -> Self {
        Self::new(
            "other",
            Exit::NotDone,
            format!("the program could not start: {cause}"),
        )
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn caused_by(mut self, cause: String) -> Self {
        self.causes.push(cause);
        self
    }

    /// Adds what had been applied before.
    pub(crate) fn after(mut self, applied: Vec<Step>) -> Self {
        self.applied = applied;
        self
    }
}

impl Deref for Failure {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Facts {
        &mut self.0
    }
}

impl From<mainstay::Error> for Failure {
    fn from(error: mainstay::Error) -> Self {
        let mut failure = Self::new(
            error.kind().as_str(),
            Exit::after(error.kind()),
            error.message(),
        );
        failure.code = error.code();
        failure.remedy = error.remedy().map(str::to_owned);
        failure.sqlstate = error.sqlstate().map(str::to_owned);
        let mut cause = error.source();
        while let Some(error) = cause {
            failure.causes.push(error.to_string());
            cause = error.source();
        }
        failure
    }
}
