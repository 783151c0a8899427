//! A consistent copy of a live database.
//!
//! Copying the file misses what is still in the write-ahead log, and catches the rest half-written.
//! The copy here is made page by page inside one read transaction: it is the database of one moment,
//! writers go on meanwhile, and nobody sees a file under the final name before it is complete,
//! checked and on the disk.

use crate::classify::{Site, classify, stopped};
use crate::signals::Signals;
use crate::worker::Worker;
use mainstay_core::backend::{Backup, Progress};
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result};
use rusqlite::Connection;
use rusqlite::backup::StepResult;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::watch;
use tokio::time::Instant;

/// Pages copied between two reports: four megabytes at the usual page size.
const PAGES_AT_ONCE: i32 = 1_024;

/// Removes the unfinished copy, unless it was finished.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), error = %error, "an unfinished backup was left");
        }
    }
}

/// Refuses a target that exists, before anything is done.
pub(crate) fn check_target(to: &Path) -> Result<()> {
    if to.symlink_metadata().is_ok() {
        let message = format!("{} exists already", to.display());
        return Err(Report::new(Kind::Storage, message)
            .remedy("choose another name")
            .into());
    }
    Ok(())
}

/// Reports progress while the work goes on elsewhere.
pub(crate) async fn watching<T>(
    work: impl Future<Output = T>,
    mut steps: watch::Receiver<(u64, u64)>,
    progress: Progress<'_>,
) -> T {
    tokio::pin!(work);
    let mut open = true;
    let done = loop {
        tokio::select! {
            biased;
            changed = steps.changed(), if open => {
                open = changed.is_ok();
                let (done, total) = *steps.borrow_and_update();
                if open {
                    progress(done, total);
                }
            }
            done = &mut work => break done,
        }
    };
    let (pages, total) = *steps.borrow();
    if total > 0 {
        progress(pages, total);
    }
    done
}

/// Writes the copy. Blocks.
fn write(
    from: &Connection,
    to: &Path,
    signals: &Signals,
    steps: &watch::Sender<(u64, u64)>,
) -> Result<Backup> {
    let started = Instant::now();
    check_target(to)?;
    let mut name = to.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .map_err(|error| {
            let in_the_way = error.kind() == io::ErrorKind::AlreadyExists;
            let remedy = if in_the_way {
                "another backup is running, or one was interrupted: then remove the file"
            } else {
                "check that the directory exists and is writable"
            };
            failed_file("create", &temporary, error, remedy)
        })?;
    let mut unfinished = Unfinished(Some(temporary.clone()));
    copy(from, &temporary, signals, steps)?;
    let bytes = seal(&temporary, to)?;
    unfinished.0 = None;
    Ok(Backup {
        bytes,
        method: "sqlite backup".to_owned(),
        took: started.elapsed(),
    })
}

fn copy(
    from: &Connection,
    temporary: &Path,
    signals: &Signals,
    steps: &watch::Sender<(u64, u64)>,
) -> Result<()> {
    let failed = |error| {
        classify(
            error,
            Site {
                stop: signals.objection(),
                ..Site::default()
            },
        )
    };
    let mut target = Connection::open(temporary).map_err(failed)?;
    // The file is synced as a whole at the end.
    target
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        .map_err(failed)?;
    // One snapshot for all steps: otherwise every write would begin the copy anew.
    from.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;")
        .map_err(failed)?;
    let copied = copy_pages(from, &mut target, signals, steps);
    let ended = from.execute_batch("COMMIT").map_err(failed);
    copied?;
    ended?;
    // The copy says of itself that it uses a WAL; a single file must not need one.
    target
        .query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        .map_err(failed)?;
    let verdict = target.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match verdict.map_err(failed)?.as_str() {
        "ok" => Ok(()),
        verdict => {
            let message = format!("the copy failed its check: {verdict}");
            let remedy = "check the database itself with `pragma integrity_check`";
            Err(Report::new(Kind::Storage, message).remedy(remedy).into())
        }
    }
}

fn copy_pages(
    from: &Connection,
    target: &mut Connection,
    signals: &Signals,
    steps: &watch::Sender<(u64, u64)>,
) -> Result<()> {
    let failed = |error| {
        classify(
            error,
            Site {
                stop: signals.objection(),
                ..Site::default()
            },
        )
    };
    let backup = rusqlite::backup::Backup::new(from, target).map_err(failed)?;
    loop {
        let step = backup.step(PAGES_AT_ONCE).map_err(failed)?;
        let progress = backup.progress();
        let total = u64::try_from(progress.pagecount).unwrap_or(0);
        let left = u64::try_from(progress.remaining).unwrap_or(0);
        steps.send_replace((total.saturating_sub(left), total));
        match step {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            // The snapshot is held, so nobody can lock us out; if somebody does, say so.
            _ => {
                let message = "the database was locked during the backup";
                return Err(Report::new(Kind::Conflict, message).into());
            }
        }
        if let Some(stop) = signals.objection() {
            return Err(stopped(stop).message("the backup was stopped").into());
        }
    }
}

/// Syncs the copy and gives it its name.
fn seal(temporary: &Path, to: &Path) -> Result<u64> {
    let remedy = "check the disk";
    let synced = File::open(temporary).and_then(|file| {
        file.sync_all()?;
        file.metadata().map(|found| found.len())
    });
    let bytes = synced.map_err(|error| failed_file("sync", temporary, error, remedy))?;
    check_target(to)?;
    fs::rename(temporary, to).map_err(|error| failed_file("rename", temporary, error, remedy))?;
    // A name is on the disk only when its directory is.
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| failed_file("sync", directory, error, remedy))?;
    Ok(bytes)
}

fn failed_file(verb: &str, path: &Path, error: io::Error, remedy: &'static str) -> Error {
    let message = format!("could not {verb} {}: {error}", path.display());
    Report::new(Kind::Storage, message)
        .remedy(remedy)
        .source(error)
        .into()
}

impl Worker {
    /// Writes a copy of this connection's database.
    pub(crate) fn back_up(
        &mut self,
        to: &Path,
        steps: &watch::Sender<(u64, u64)>,
    ) -> Result<Backup> {
        if !self.handle()?.is_autocommit() {
            let message = "the database in memory is inside a transaction";
            return Err(Report::new(Kind::Conflict, message).into());
        }
        let written = write(self.handle()?, to, &self.signals, steps);
        self.roll_back()?;
        written
    }
}
