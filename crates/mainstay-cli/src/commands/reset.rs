//! `reset`: back to the beginning. Everything that can be refused is refused before anything is
//! removed: the files are read, and the question is answered, first.

use super::deploy;
use super::open::{PATIENCE, with_created};
use super::seed::{Seed, Seeded};
use super::status::read;
use crate::confirm::confirm;
use crate::exit::Exit;
use crate::failure::{Result, Step};
use crate::output::{Output, Page, Paint, Report};
use crate::plan::Plan;
use serde::Serialize;
use tokio::time::Instant;

#[derive(Debug, Serialize)]
struct Fresh {
    applied: Vec<Step>,
    seed: Option<Seeded>,
}

pub(super) async fn run(
    plan: &Plan,
    force: bool,
    skip_seed: bool,
    output: &mut Output,
) -> Result<Exit> {
    let migrations = read(&plan.migrations)?;
    let seed = if skip_seed { None } else { Seed::find(plan)? };
    confirm(&plan.place.name, force, output).await?;
    let report = with_created(plan, async |db, _| {
        let running = output.spinner("resetting");
        db.with_deadline(Instant::now() + PATIENCE).erase().await?;
        let (applied, _) = deploy::apply(db, &migrations).await?;
        let seed = match &seed {
            Some(seed) => Some(
                seed.sow(db)
                    .await
                    .map_err(|one| one.after(applied.clone()))?,
            ),
            None => None,
        };
        drop(running);
        Ok(Fresh { applied, seed })
    })
    .await?;
    output.report(&report);
    Ok(Exit::Done)
}

impl Report for Fresh {
    fn show(&self, page: &mut Page) {
        deploy::show(&self.applied, page);
        if let Some(seed) = &self.seed {
            seed.show(page);
        }
        page.paragraph(Paint::Good, "The database is as new.");
    }
}
