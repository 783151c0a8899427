//! `seed`: the data that a fresh database begins with, in one transaction.

use super::open::{PATIENCE, with_existing};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{Output, Page, Paint, Report, took};
use crate::plan::Plan;
use mainstay::{Database, System, TransactionOptions};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Serialize)]
pub(super) struct Seeded {
    file: String,
    took_ms: f64,
}

/// A seed that was read.
#[derive(Debug)]
pub(super) struct Seed {
    file: PathBuf,
    text: String,
}

pub(super) async fn run(plan: &Plan, file: Option<&Path>, output: &mut Output) -> Result<Exit> {
    let seed = match file {
        Some(file) => Seed::read(file.to_owned())?,
        None => Seed::find(plan)?.ok_or_else(|| none(plan))?,
    };
    let report = with_existing(plan, async |db| {
        let running = output.spinner("seeding");
        let seeded = seed.sow(db).await?;
        drop(running);
        Ok(seeded)
    })
    .await?;
    output.report(&report);
    Ok(Exit::Done)
}

impl Seed {
    /// The seed for the plan's database, if its migrations' directory has one.
    pub(super) fn find(plan: &Plan) -> Result<Option<Self>> {
        let names = names(plan.config.target.system());
        let files = names.iter().map(|name| plan.migrations.join(name));
        files
            .into_iter()
            .find(|file| file.is_file())
            .map(Self::read)
            .transpose()
    }

    fn read(file: PathBuf) -> Result<Self> {
        let text = std::fs::read_to_string(&file)
            .map_err(|cause| Failure::file(&file, "cannot be read", &cause))?;
        Ok(Self { file, text })
    }

    /// Runs it: all of it or nothing.
    pub(super) async fn sow(&self, db: &Database) -> Result<Seeded> {
        let started = Instant::now();
        let options = TransactionOptions::new().timeout(PATIENCE);
        db.transaction_with(options, async |tx| tx.script(&self.text).await)
            .await
            .map_err(|error| {
                let mut failure = Failure::from(error);
                failure.message = format!("{}: {}", self.file.display(), failure.message);
                failure
            })?;
        let file = self.file.display().to_string();
        Ok(Seeded {
            file,
            took_ms: started.elapsed().as_secs_f64() * 1000.0,
        })
    }
}

/// What a seed may be called, the system's own first.
fn names(system: System) -> [String; 2] {
    [
        format!("seed.{}.sql", system.file_infix()),
        "seed.sql".to_owned(),
    ]
}

fn none(plan: &Plan) -> Failure {
    let [own, common] = names(plan.config.target.system());
    Failure::usage(
        format!("there is no seed in {}", plan.migrations.display()),
        format!("write {common} or {own} there, or name a file with --file"),
    )
}

impl Report for Seeded {
    fn show(&self, page: &mut Page) {
        let time = Duration::try_from_secs_f64(self.took_ms / 1000.0).unwrap_or_default();
        page.paragraph(
            Paint::Good,
            &format!("{} was run in {}.", self.file, took(time)),
        );
    }
}
