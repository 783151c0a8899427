//! The laws that hold on every backend.
//!
//! "The same code runs on both databases" is a promise about hundreds of small things: what a
//! boolean is, what happens after a failed statement, which error a duplicate key is. Each of them
//! is stated here once, by name, and run against every backend. And because a law that nothing can
//! break says nothing, each one comes with a [saboteur](Saboteur): a backend that is wrong in
//! exactly that respect and must fail it.
//!
//! ```no_run
//! # async fn example() {
//! use mainstay_testkit::conformance::{laws, Subject};
//! for law in laws() {
//!     let subject = Subject::open("file:./conformance.db", None).await.expect("opens");
//!     law.check(subject).await.unwrap_or_else(|broken| panic!("{}: {broken}", law.name));
//! }
//! # }
//! ```

mod constraints;
mod params;
mod routing;
mod rows;
mod saboteur;
mod sessions;
mod streams;
mod subject;
mod transactions;
mod values;

pub use saboteur::Saboteur;
pub use subject::{Broken, Subject, Verdict};

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// How long one law may take. A backend that hangs has broken it.
const PATIENCE: Duration = Duration::from_secs(60);

type Running = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One thing that holds on every backend.
#[derive(Copy, Clone)]
pub struct Law {
    /// What holds, in words.
    pub name: &'static str,
    /// Whether it measures the whole process, so that nothing else may run in it.
    pub alone: bool,
    holds: fn(Subject) -> Running,
    saboteur: fn() -> Saboteur,
}

impl std::fmt::Debug for Law {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Law").field(&self.name).finish()
    }
}

impl Law {
    /// Checks the law against a database of its own.
    ///
    /// # Errors
    ///
    /// How it was broken.
    ///
    /// # Cancel safety
    ///
    /// The database is left as it is.
    pub async fn check(&self, subject: Subject) -> Verdict {
        let db = subject.db.clone();
        let verdict = tokio::time::timeout(PATIENCE, (self.holds)(subject)).await;
        db.close_within(Duration::ZERO).await;
        verdict.unwrap_or_else(|_| Err(Broken::new(format!("not done within {PATIENCE:?}"))))
    }

    /// Says that the law measures the whole process.
    const fn alone(self) -> Self {
        Self {
            alone: true,
            ..self
        }
    }

    /// A backend that breaks this law.
    #[must_use]
    pub fn saboteur(&self) -> Saboteur {
        (self.saboteur)()
    }
}

/// Writes a law: its name, its saboteur, its check.
macro_rules! law {
    ($name:ident, $saboteur:expr, $check:expr) => {
        $crate::conformance::Law {
            name: stringify!($name),
            alone: false,
            holds: |subject| Box::pin($check(subject)),
            saboteur: || $saboteur,
        }
    };
}
pub(crate) use law;

/// Every law.
#[must_use]
pub fn laws() -> Vec<Law> {
    [
        values::laws(),
        params::laws(),
        rows::laws(),
        constraints::laws(),
        transactions::laws(),
        routing::laws(),
        sessions::laws(),
        streams::laws(),
    ]
    .concat()
}
