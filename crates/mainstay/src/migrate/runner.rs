//! Applies what is pending.

use super::history::{compare, dialect, objection, read};
use super::{Migration, Migrations};
use crate::database::Database;
use crate::lease::Lease;
use mainstay_core::backend::{Begin, Call, Lane, MigrationDialect, System};
use mainstay_core::error::Report;
use mainstay_core::{Deadline, Error, Kind, Result, Timestamp};
use std::time::Duration;
use tokio::time::Instant;

/// How long one migration may take: an index on a large table takes many minutes, and nobody waits
/// for an answer.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// One migration that was applied now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deployed {
    /// Number and name.
    pub title: String,
    /// How long it took.
    pub took: Duration,
}

/// What a deployment did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deployment {
    /// What was applied now, in order.
    pub applied: Vec<Deployed>,
    /// How many had been applied before.
    pub before: usize,
}

impl Database {
    /// Applies every migration that is pending, in order, each in a transaction of its own together
    /// with its record. Processes that do this at the same time wait for each other; each migration
    /// is applied once.
    ///
    /// # Errors
    ///
    /// [`Kind::Migration`], naming the file, when one fails (it leaves nothing behind, and those
    /// before it stay applied) or when a file was changed after it was applied.
    ///
    /// # Cancel safety
    ///
    /// The migration that runs is rolled back; those before it stay applied.
    pub async fn migrate(&self, migrations: &Migrations) -> Result<Deployment> {
        let lease = self.acquire().await?;
        let texts = self.engine().backend.migrations();
        let run = Run {
            lease: &lease,
            texts,
            system: self.system(),
        };
        run.create_history().await?;
        let status = compare(migrations, read(&lease).await?, self.system())?;
        if let Some(objection) = objection(&status) {
            return Err(objection);
        }
        let mut deployment = Deployment {
            before: status.applied.len(),
            ..Default::default()
        };
        for migration in migrations.iter() {
            if status
                .applied
                .iter()
                .any(|row| row.version == migration.version)
            {
                continue;
            }
            let started = Instant::now();
            match run.apply(migration).await {
                Ok(true) => deployment.applied.push(Deployed {
                    title: migration.title(),
                    took: started.elapsed(),
                }),
                Ok(false) => deployment.before += 1,
                Err(error) => return Err(run.failed(migration, error).await),
            }
        }
        self.engine().router.forget_all();
        Ok(deployment)
    }
}

struct Run<'l> {
    lease: &'l Lease,
    texts: &'static MigrationDialect,
    system: System,
}

impl Run<'_> {
    fn call() -> Call {
        Call {
            lane: Lane::Write,
            deadline: Deadline::from_now(PATIENCE),
        }
    }

    async fn begin(&self) -> Result<()> {
        let begin = Begin {
            isolation: None,
            read_only: false,
        };
        self.lease.connection().begin(begin, Self::call()).await?;
        if let Some(lock) = self.texts.lock {
            self.lease.execute(lock, ()).timeout(PATIENCE).await?;
        }
        Ok(())
    }

    async fn end(&self, result: Result<()>) -> Result<()> {
        let connection = self.lease.connection();
        match result {
            Ok(()) => connection.commit(Self::call()).await,
            Err(error) => {
                if let Err(lost) = connection.roll_back(Self::call()).await {
                    tracing::debug!(error = %lost, "a rollback was not answered");
                }
                Err(error)
            }
        }
    }

    async fn create_history(&self) -> Result<()> {
        if self
            .lease
            .fetch_one::<bool>(self.texts.history_exists, ())
            .await?
        {
            return Ok(());
        }
        let created = match self.begin().await {
            Ok(()) => {
                self.lease
                    .connection()
                    .script(self.texts.create_history, Self::call())
                    .await
            }
            Err(error) => Err(error),
        };
        self.end(created).await
    }

    /// Applies one migration; false when another process was faster.
    async fn apply(&self, migration: &Migration) -> Result<bool> {
        let began = self.begin().await;
        let mut applied = false;
        let result = match began {
            Ok(()) => self.apply_inside(migration, &mut applied).await,
            Err(error) => Err(error),
        };
        self.end(result).await.map(|()| applied)
    }

    async fn apply_inside(&self, migration: &Migration, applied: &mut bool) -> Result<()> {
        let done: Option<bool> = self
            .lease
            .fetch_optional(
                "select finished_at is not null from _mainstay_migrations where version = $1",
                (migration.version,),
            )
            .await?;
        if done == Some(true) {
            return Ok(());
        }
        let started_at = Timestamp::now();
        let started = Instant::now();
        let text = migration.text(self.system)?;
        self.lease.connection().script(text, Self::call()).await?;
        *applied = true;
        self.record(migration, started_at, Some(started.elapsed()), None)
            .await
    }

    async fn record(
        &self,
        migration: &Migration,
        started_at: Timestamp,
        took: Option<Duration>,
        error: Option<String>,
    ) -> Result<()> {
        let took_ms = took.map(|took| i64::try_from(took.as_millis()).unwrap_or(i64::MAX));
        let finished_at = took.map(|_| Timestamp::now().rfc3339());
        self.lease
            .execute(
                "delete from _mainstay_migrations where version = $1",
                (migration.version,),
            )
            .await?;
        self.lease
            .execute(
                "insert into _mainstay_migrations (version, name, checksum, dialect, started_at, \
                 finished_at, took_ms, error) values ($1, $2, $3, $4, $5, $6, $7, $8)",
                (
                    migration.version,
                    &migration.name,
                    migration.checksum(self.system)?,
                    dialect(migration, self.system),
                    started_at.rfc3339(),
                    finished_at,
                    took_ms,
                    error,
                ),
            )
            .await?;
        Ok(())
    }

    /// Records the failure, in a transaction of its own because the migration's was rolled back, and
    /// makes the error that names the file.
    async fn failed(&self, migration: &Migration, error: Error) -> Error {
        let recorded = match self.begin().await {
            Ok(()) => {
                self.record(migration, Timestamp::now(), None, Some(error.to_string()))
                    .await
            }
            Err(error) => Err(error),
        };
        if let Err(lost) = self.end(recorded).await {
            tracing::warn!(error = %lost, "the failure of a migration could not be recorded");
        }
        let message = format!(
            "the migration {} failed: {}",
            migration.title(),
            error.message()
        );
        Report::new(Kind::Migration, message)
            .class(error.class())
            .evidence(error.evidence())
            .remedy("it left nothing behind; mend the file and deploy again")
            .source(error)
            .into()
    }
}
