//! `backup`: a consistent copy while the database is in use.

use super::open::with_existing;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{Output, Page, Paint, Report, bytes, took};
use crate::plan::Plan;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Serialize)]
struct Saved {
    file: String,
    bytes: u64,
    method: String,
    took_ms: f64,
}

pub(super) async fn run(plan: &Plan, to: &Path, force: bool, output: &mut Output) -> Result<Exit> {
    let exists = to.symlink_metadata().is_ok();
    if exists && to.is_dir() {
        return Err(Failure::usage(
            format!("{} is a directory", to.display()),
            "name a file in it",
        ));
    }
    if exists && !force {
        return Err(Failure::usage(
            format!("{} exists already", to.display()),
            "choose another name, or give --force to replace it",
        ));
    }
    if plan.file().is_some_and(|file| same(file, to)) {
        return Err(Failure::usage(
            format!("{} is the database itself", to.display()),
            "choose another name",
        ));
    }
    let written_to = if exists { beside(to) } else { to.to_owned() };
    let backup = with_existing(plan, async |db| {
        let running = output.progress("copying");
        let progress = |done, total| running.advance(done, total);
        Ok(db.backup(&written_to, &progress).await?)
    })
    .await?;
    if exists {
        // Only now does the old copy go.
        std::fs::rename(&written_to, to)
            .map_err(|cause| Failure::file(to, "cannot be replaced", &cause))?;
    }
    let file = to.display().to_string();
    let took_ms = backup.took.as_secs_f64() * 1000.0;
    output.report(&Saved {
        file,
        bytes: backup.bytes,
        method: backup.method,
        took_ms,
    });
    Ok(Exit::Done)
}

/// A name in the same directory, so that it can be renamed in one step.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    file.with_file_name(name)
}

fn same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

impl Report for Saved {
    fn show(&self, page: &mut Page) {
        let time = Duration::try_from_secs_f64(self.took_ms / 1000.0).unwrap_or_default();
        page.field("backup", Paint::Good, &self.file);
        page.field("size", Paint::Plain, &bytes(self.bytes));
        page.field("method", Paint::Plain, &self.method);
        page.field("time", Paint::Plain, &took(time));
    }
}
