//! `status`: what the server says of itself, and what the migrations' history says beside the files.

use super::check::connections;
use super::open::with_existing;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{Output, Page, Paint, Report, bytes, counted, took};
use crate::plan::Plan;
use mainstay::migrate::{Applied, MigrationStatus, Migrations};
use mainstay::{Info, SessionCounts};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Serialize)]
struct Told {
    /// `up_to_date`, `pending` or `diverged`.
    state: &'static str,
    server: Server,
    migrations: History,
}

#[derive(Debug, Serialize)]
struct Server {
    version: String,
    /// A server in recovery takes no writes.
    in_recovery: Option<bool>,
    /// On this database.
    active_connections: u64,
    /// On all databases of the server, which is what the limit counts.
    server_connections: Option<u64>,
    max_connections: Option<u64>,
    sessions: Option<Sessions>,
    application: Option<Application>,
    size_bytes: u64,
    /// Where the database is a file.
    file: Option<File>,
    tables: Vec<Table>,
    rows_are_estimates: bool,
}

/// The sessions on this database.
#[derive(Debug, Serialize)]
struct Sessions {
    active: u64,
    idle: u64,
    idle_in_transaction: u64,
    /// Others', which the role may not look into.
    hidden: u64,
}

/// Those of them that have our `application_name`.
#[derive(Debug, Serialize)]
struct Application {
    name: String,
    sessions: Sessions,
}

#[derive(Debug, Serialize)]
struct File {
    journal_mode: String,
    page_size: u64,
    pages: u64,
    free_pages: u64,
    wal_bytes: u64,
}

/// What is null was not to be found out, or not in time.
#[derive(Debug, Serialize)]
struct Table {
    name: String,
    rows: Option<u64>,
    size_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct History {
    directory: String,
    /// Whether there is such a directory.
    found: bool,
    applied: Vec<Done>,
    pending: Vec<String>,
    failed: Vec<Failed>,
    /// The file was changed after it was applied.
    modified: Vec<String>,
    /// Applied, and there is no such file here.
    missing: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Done {
    migration: String,
    finished_at: Option<String>,
    took_ms: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Failed {
    migration: String,
    error: Option<String>,
}

pub(super) async fn run(plan: &Plan, exact: bool, output: &mut Output) -> Result<Exit> {
    let found = plan.migrations.is_dir();
    // A look at a server needs no files.
    let migrations = if found {
        read(&plan.migrations)?
    } else {
        Migrations::default()
    };
    let report = with_existing(plan, async |db| {
        let ask = if exact { db.info().exact() } else { db.info() };
        let info = ask.await?;
        let status = db.migration_status(&migrations).await?;
        Ok(Told::new(info, status, &plan.migrations, found))
    })
    .await?;
    output.report(&report);
    Ok(report.exit())
}

/// The migrations of a directory, which must be there.
pub(super) fn read(directory: &Path) -> Result<Migrations> {
    if !directory.is_dir() {
        let message = format!(
            "there is no directory of migrations at {}",
            directory.display()
        );
        return Err(Failure::usage(
            message,
            "name it with --migrations, or make a first one with `mainstay init`",
        ));
    }
    Ok(Migrations::from_dir(directory)?)
}

impl Told {
    fn new(info: Info, status: MigrationStatus, directory: &Path, found: bool) -> Self {
        let state = if !status.failed.is_empty() || !status.modified.is_empty() {
            "diverged"
        } else if status.pending.is_empty() {
            "up_to_date"
        } else {
            "pending"
        };
        let failed = status.failed.into_iter().map(Failed::new).collect();
        Self {
            state,
            server: Server::new(info),
            migrations: History {
                directory: directory.display().to_string(),
                found,
                applied: status.applied.into_iter().map(Done::new).collect(),
                pending: status.pending,
                failed,
                modified: status.modified,
                missing: status.missing,
            },
        }
    }

    fn exit(&self) -> Exit {
        match self.state {
            "up_to_date" => Exit::Done,
            "pending" => Exit::NotDone,
            _ => Exit::Mend,
        }
    }
}

impl Done {
    fn new(row: Applied) -> Self {
        let migration = title(&row);
        Self {
            migration,
            finished_at: row.finished_at,
            took_ms: row.took_ms,
        }
    }

    fn remark(&self) -> String {
        let at = self.finished_at.as_deref().unwrap_or("unfinished");
        let ms = self.took_ms.and_then(|ms| u64::try_from(ms).ok());
        match ms {
            Some(0) => format!("{at}, under 1 ms"),
            Some(ms) => format!("{at}, {}", took(Duration::from_millis(ms))),
            None => at.to_owned(),
        }
    }
}

impl Failed {
    fn new(row: Applied) -> Self {
        Self {
            migration: title(&row),
            error: row.error,
        }
    }
}

fn title(row: &Applied) -> String {
    format!("{:04}_{}", row.version, row.name)
}

impl Report for Told {
    fn show(&self, page: &mut Page) {
        self.server.show(page);
        page.gap();
        self.migrations.show(page);
        page.gap();
        match self.state {
            "up_to_date" => page.paragraph(Paint::Good, "The schema is up to date."),
            "pending" => {
                page.paragraph(Paint::Due, "Migrations are pending: apply them with `mainstay deploy`.");
            }
            _ if self.migrations.modified.is_empty() => page.paragraph(
                Paint::Bad,
                "A migration failed and left nothing behind: mend the file, then `mainstay deploy`.",
            ),
            _ => page.paragraph(
                Paint::Bad,
                "A migration was changed after it was applied: restore the file, and put the change into a new one.",
            ),
        }
    }
}

impl Server {
    fn new(info: Info) -> Self {
        let tables = info.tables.into_iter().map(|table| Table {
            name: table.name,
            rows: table.rows,
            size_bytes: table.size_bytes,
        });
        Self {
            version: info.version,
            in_recovery: info.in_recovery,
            active_connections: info.active_connections,
            server_connections: info.server_connections,
            max_connections: info.max_connections,
            sessions: info.sessions.map(Sessions::new),
            application: info.application.map(|application| Application {
                name: application.name,
                sessions: Sessions::new(application.sessions),
            }),
            size_bytes: info.size_bytes,
            file: info.file.map(|file| File {
                journal_mode: file.journal_mode,
                page_size: file.page_size,
                pages: file.pages,
                free_pages: file.free_pages,
                wal_bytes: file.wal_bytes,
            }),
            tables: tables.collect(),
            rows_are_estimates: info.rows_are_estimates,
        }
    }

    fn show(&self, page: &mut Page) {
        page.field("version", Paint::Plain, &self.version);
        if self.in_recovery == Some(true) {
            page.field("recovery", Paint::Due, "in recovery: takes no writes");
        }
        let all = self.server_connections.unwrap_or(self.active_connections);
        let connections = connections(all, self.max_connections);
        page.field("connections", Paint::Plain, &connections);
        if let Some(sessions) = &self.sessions {
            page.field("here", Paint::Plain, &sessions.told());
        }
        if let Some(application) = &self.application {
            let told = format!("{}: {}", application.name, application.sessions.told());
            page.field("application", Paint::Plain, &told);
        }
        page.field("size", Paint::Plain, &bytes(self.size_bytes));
        if let Some(file) = &self.file {
            page.field("file", Paint::Plain, &file.told());
        }
        page.field("tables", Paint::Plain, &self.tables.len().to_string());
        let names = self.tables.iter().map(|table| table.name.chars().count());
        let width = names.max().unwrap_or(0);
        for table in &self.tables {
            let told = table.told(self.rows_are_estimates);
            page.item(Paint::Plain, &format!("{:<width$}", table.name), &told);
        }
    }
}

impl Sessions {
    fn new(counts: SessionCounts) -> Self {
        Self {
            active: counts.active,
            idle: counts.idle,
            idle_in_transaction: counts.idle_in_transaction,
            hidden: counts.hidden,
        }
    }

    /// `3 active, 2 idle`: what there is none of is left out, except for the first.
    fn told(&self) -> String {
        let mut told = format!("{} active", self.active);
        for (count, what) in [
            (self.idle, "idle"),
            (self.idle_in_transaction, "idle in a transaction"),
            (self.hidden, "of others, hidden from this role"),
        ] {
            if count > 0 {
                told += &format!(", {count} {what}");
            }
        }
        told
    }
}

impl File {
    fn told(&self) -> String {
        let free = self.free_pages.saturating_mul(self.page_size);
        let mut told = format!(
            "journal mode {}, {} pages of {}, {} of them free ({})",
            self.journal_mode,
            self.pages,
            bytes(self.page_size),
            self.free_pages,
            bytes(free),
        );
        if self.journal_mode == "wal" {
            told += &format!(", log {}", bytes(self.wal_bytes));
        }
        told
    }
}

impl Table {
    fn told(&self, rows_are_estimates: bool) -> String {
        let rows = self.rows.map_or_else(
            || "rows not counted".to_owned(),
            |rows| {
                let about = if rows_are_estimates { "about " } else { "" };
                let rows = counted(usize::try_from(rows).unwrap_or(usize::MAX), "row");
                format!("{about}{rows}")
            },
        );
        match self.size_bytes {
            Some(size) => format!("{rows}, {}", bytes(size)),
            None => rows,
        }
    }
}

impl History {
    fn show(&self, page: &mut Page) {
        let place = if self.found {
            self.directory.clone()
        } else {
            format!("there is no directory {}", self.directory)
        };
        page.field("migrations", Paint::Plain, &place);
        for done in &self.applied {
            page.item(
                Paint::Good,
                &format!("applied   {}", done.migration),
                &done.remark(),
            );
        }
        for Failed { migration, error } in &self.failed {
            let error = error.as_deref().unwrap_or_default();
            page.item(Paint::Bad, &format!("failed    {migration}"), error);
        }
        // One that failed is pending too, which is said once.
        let failed = |title: &&String| !self.failed.iter().any(|row| row.migration == **title);
        for title in self.pending.iter().filter(failed) {
            page.item(Paint::Due, &format!("pending   {title}"), "");
        }
        for title in &self.modified {
            page.item(
                Paint::Bad,
                &format!("modified  {title}"),
                "changed after it was applied",
            );
        }
        for title in &self.missing {
            page.item(
                Paint::Due,
                &format!("missing   {title}"),
                "applied, but there is no such file",
            );
        }
    }
}
