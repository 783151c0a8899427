//! `deploy`: applies what is pending and says what it did, also when it did only a part.

use super::open::with_created;
use super::status::read;
use crate::exit::Exit;
use crate::failure::{Failure, Result, Step};
use crate::output::{Output, Page, Paint, Report, counted};
use crate::plan::Plan;
use mainstay::Database;
use mainstay::migrate::{MigrationStatus, Migrations};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Deployed {
    /// Whether the database was created now.
    created: bool,
    applied: Vec<Step>,
    /// How many had been applied before.
    before: usize,
}

pub(super) async fn run(plan: &Plan, output: &mut Output) -> Result<Exit> {
    let migrations = read(&plan.migrations)?;
    let report = with_created(plan, async |db, created| {
        let running = output.spinner("applying migrations");
        let (applied, before) = apply(db, &migrations).await?;
        drop(running);
        Ok(Deployed {
            created,
            applied,
            before,
        })
    })
    .await?;
    output.report(&report);
    Ok(Exit::Done)
}

/// Applies what is pending: what was applied, and how many had been before. A failure carries those
/// that were applied before it.
pub(super) async fn apply(db: &Database, migrations: &Migrations) -> Result<(Vec<Step>, usize)> {
    let before = db.migration_status(migrations).await?;
    match db.migrate(migrations).await {
        Ok(done) => {
            let steps = done.applied.into_iter().map(|one| Step {
                migration: one.title,
                took_ms: one.took.as_secs_f64() * 1000.0,
            });
            Ok((steps.collect(), done.before))
        }
        Err(error) => {
            let failure = Failure::from(error);
            // When even that cannot be asked any more, the first failure is the one to tell.
            let Ok(after) = db.migration_status(migrations).await else {
                return Err(failure);
            };
            Err(failure.after(newly(&before, after)))
        }
    }
}

/// What was applied between two looks at the history.
fn newly(before: &MigrationStatus, after: MigrationStatus) -> Vec<Step> {
    let known = |version| before.applied.iter().any(|row| row.version == version);
    let new = after.applied.into_iter().filter(|row| !known(row.version));
    new.map(|row| Step {
        migration: format!("{:04}_{}", row.version, row.name),
        took_ms: row
            .took_ms
            .and_then(|ms| u32::try_from(ms).ok())
            .map_or(0.0, f64::from),
    })
    .collect()
}

/// The lines for what was applied.
pub(super) fn show(applied: &[Step], page: &mut Page) {
    for step in applied {
        page.step(step);
    }
}

impl Report for Deployed {
    fn show(&self, page: &mut Page) {
        if self.created {
            page.paragraph(Paint::Good, "The database was created.");
        }
        show(&self.applied, page);
        if self.applied.is_empty() {
            let before = counted(self.before, "migration");
            page.paragraph(
                Paint::Good,
                &format!("Nothing is pending; {before} applied before."),
            );
        } else {
            let applied = counted(self.applied.len(), "migration");
            page.paragraph(
                Paint::Good,
                &format!("{applied} applied; the schema is up to date."),
            );
        }
    }
}
