//! Whether the database is there, how large it is and what is in it.

use crate::classify::classify;
use crate::connect::Place;
use crate::ground;
use crate::worker::{Worker, quoted};
use mainstay_core::Result;
use mainstay_core::backend::{Begin, FileInfo, Info, Lane, TableInfo};
use rusqlite::Connection;
use std::sync::atomic::Ordering;

/// The most tables that are counted.
const TABLES_MAX: i64 = 200;

/// The bytes of a table's pages and those of its indexes; of a virtual table, those of the tables
/// behind it. `dbstat` reads every page of the trees that are named and no other. It is asked page
/// by page: its own sum over a tree could not be interrupted. A library that is built without it
/// does not know this table, and the sizes stay open.
const TABLE_SIZE: &str = "
    SELECT coalesce(sum(page.pgsize), 0) FROM main.sqlite_schema AS tree, dbstat('main') AS page
    WHERE page.name = tree.name AND tree.rootpage > 0
        AND (tree.tbl_name = ?1 OR tree.tbl_name IN (
            SELECT shadow.name FROM pragma_table_list AS shadow
            WHERE shadow.schema = 'main' AND shadow.type = 'shadow'
                AND substr(shadow.name, 1, length(?1) + 1) = ?1 || '_'))";

impl Worker {
    /// Reads from the file itself, which `select 1` never touches, as this handle sees it and as a
    /// new one would, and looks whether it is still the file that its path leads to.
    pub(crate) fn check(&self) -> Result<()> {
        let read = self
            .handle()?
            .query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0));
        read.map_err(|error| classify(error, self.site()))?;
        let Place::File(path) = &self.opening.place else {
            return Ok(());
        };
        let is_there = self.opening.opened.check(path, &self.opening.shown);
        if is_there.is_err() {
            self.signals.broken.store(true, Ordering::SeqCst);
        }
        is_there?;
        let looked = self.opening.look_anew(path, &self.signals);
        looked.map_err(|error| classify(error, self.site()))
    }

    /// Takes the write lock and gives it back: what a write has to do before it writes.
    pub(crate) fn check_writing(&mut self) -> Result<()> {
        if let Place::File(path) = &self.opening.place {
            ground::check_writable(path, &self.opening.shown)?;
        }
        self.begin(Begin::default(), Lane::Write)?;
        self.roll_back()
    }

    /// Version, pages and the tables with their rows and sizes. Both are counted, which reads the
    /// tables: what has not been counted at the deadline is left open.
    pub(crate) fn info(&self, handles: usize) -> Result<Info> {
        let handle = self.handle()?;
        let failed = |error| classify(error, self.site());
        let file = file(handle, &self.opening.place).map_err(failed)?;
        let mut info = Info::default();
        info.version = rusqlite::version().to_owned();
        info.active_connections = u64::try_from(handles).unwrap_or(u64::MAX);
        info.size_bytes = file.pages.saturating_mul(file.page_size);
        info.file = Some(file);
        info.tables = tables(handle).map_err(failed)?;
        // All rows first: they are asked for more often than sizes are.
        for table in &mut info.tables {
            let text = format!("SELECT count(*) FROM main.{}", quoted(&table.name));
            table.rows = self.unless_late(&table.name, || number(handle, &text));
        }
        for table in &mut info.tables {
            table.size_bytes = self.unless_late(&table.name, || {
                let size = handle.query_row(TABLE_SIZE, [&table.name], |row| row.get::<_, i64>(0));
                size.map(i64::unsigned_abs)
            });
        }
        Ok(info)
    }

    /// Counts something of a table, or leaves it open when the time is up.
    fn unless_late<T>(
        &self,
        table: &str,
        count: impl FnOnce() -> rusqlite::Result<T>,
    ) -> Option<T> {
        if self.signals.objection().is_some() {
            return None;
        }
        let counted = count().inspect_err(|error| {
            // A virtual table whose module is not here has no rows that could be counted.
            tracing::debug!(table, %error, "a table could not be counted");
        });
        counted.ok()
    }
}

fn file(handle: &Connection, place: &Place) -> rusqlite::Result<FileInfo> {
    let mut file = FileInfo::default();
    file.journal_mode = handle.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    file.page_size = number(handle, "PRAGMA page_size")?;
    file.pages = number(handle, "PRAGMA page_count")?;
    file.free_pages = number(handle, "PRAGMA freelist_count")?;
    if let Place::File(path) = place {
        let mut log = path.clone().into_os_string();
        log.push("-wal");
        // Before the first write it is not there.
        file.wal_bytes = std::fs::metadata(log).map_or(0, |log| log.len());
    }
    Ok(file)
}

fn tables(handle: &Connection) -> rusqlite::Result<Vec<TableInfo>> {
    let mut statement = handle.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main'
         AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY name LIMIT ?1",
    )?;
    let names = statement.query_map([TABLES_MAX], |row| row.get::<_, String>(0))?;
    names.map(|name| name.map(TableInfo::new)).collect()
}

fn number(handle: &Connection, text: &str) -> rusqlite::Result<u64> {
    let read = handle.query_row(text, [], |row| row.get::<_, i64>(0));
    read.map(i64::unsigned_abs)
}
