//! `init`: everything that a new project needs, and nothing that is there already.

use super::open::with_created;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{Output, Page, Paint, Report};
use crate::plan::Plan;
use mainstay::migrate::Migrations;
use serde::Serialize;
use std::path::Path;

/// The first file of a new project.
const EXAMPLE_NAME: &str = "0001_notes.sql";

/// Runs on both databases as it is.
const EXAMPLE: &str = "\
-- The first migration of this project. Change it, or put your own in its place, before you run
-- `mainstay deploy`. A file that was applied is not changed any more: the next change is the next
-- file, 0002_what_it_does.sql. Where the databases differ, 0002_what_it_does.sqlite.sql and
-- 0002_what_it_does.postgres.sql take its place.

create table notes (
    id bigint primary key,
    body text not null
);
";

#[derive(Debug, Serialize)]
struct Initialised {
    /// Whether the database was created now.
    created: bool,
    /// The directory of the migrations.
    migrations: String,
    /// The example, if the directory was made now.
    example: Option<String>,
}

pub(super) async fn run(plan: &Plan, output: &mut Output) -> Result<Exit> {
    let created = with_created(plan, async |db, created| {
        // Without migrations this makes the table of migrations and nothing else.
        db.migrate(&Migrations::default()).await?;
        db.create_token_table().await?;
        Ok(created)
    })
    .await?;
    let directory = &plan.migrations;
    let example = example(directory)?;
    let migrations = directory.display().to_string();
    output.report(&Initialised {
        created,
        migrations,
        example,
    });
    Ok(Exit::Done)
}

/// Makes the directory with a first file, unless there is one.
fn example(directory: &Path) -> Result<Option<String>> {
    if directory.is_dir() {
        return Ok(None);
    }
    std::fs::create_dir_all(directory)
        .map_err(|cause| Failure::file(directory, "cannot be made a directory", &cause))?;
    let file = directory.join(EXAMPLE_NAME);
    std::fs::write(&file, EXAMPLE)
        .map_err(|cause| Failure::file(&file, "cannot be written", &cause))?;
    Ok(Some(file.display().to_string()))
}

impl Report for Initialised {
    fn show(&self, page: &mut Page) {
        let database = if self.created {
            "created"
        } else {
            "there already"
        };
        page.field("database", Paint::Good, database);
        page.field("own tables", Paint::Good, "ready");
        match &self.example {
            Some(file) => {
                page.field("migrations", Paint::Good, &format!("{file} is an example"));
                page.gap();
                page.paragraph(
                    Paint::Plain,
                    "Next: change the example, then `mainstay deploy`.",
                );
            }
            None => page.field(
                "migrations",
                Paint::Good,
                &format!("{} stays", self.migrations),
            ),
        }
    }
}
