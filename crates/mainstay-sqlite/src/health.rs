//! Whether the database is there, how large it is and what is in it.

use crate::classify::classify;
use crate::connect::Place;
use crate::worker::{Worker, quoted};
use mainstay_core::Result;
use mainstay_core::backend::Info;
use std::sync::atomic::Ordering;

/// The most tables that are counted.
const TABLES_MAX: i64 = 200;

impl Worker {
    /// Reads from the file itself, which `select 1` never touches, and looks whether it is still the
    /// file that its path leads to.
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
        is_there
    }

    /// Version, size and the rows of each table. Counting stops at the deadline: what has been
    /// counted until then is the answer.
    pub(crate) fn info(&self, handles: usize) -> Result<Info> {
        let handle = self.handle()?;
        let number = |text: &str| {
            let read = handle.query_row(text, [], |row| row.get::<_, i64>(0));
            read.map(i64::unsigned_abs)
        };
        let failed = |error| classify(error, self.site());
        let mut info = Info::default();
        info.version = rusqlite::version().to_owned();
        info.active_connections = u64::try_from(handles).unwrap_or(u64::MAX);
        info.size_bytes = number("PRAGMA page_count")
            .and_then(|pages| Ok(pages.saturating_mul(number("PRAGMA page_size")?)))
            .map_err(failed)?;
        for name in self.tables().map_err(failed)? {
            match number(&format!("SELECT count(*) FROM main.{}", quoted(&name))) {
                Ok(rows) => info.tables.push((name, rows)),
                Err(_) if self.signals.objection().is_some() => break,
                // A virtual table whose module is not here has no rows that could be counted.
                Err(error) => {
                    tracing::debug!(table = name, error = %error, "a table could not be counted");
                }
            }
        }
        Ok(info)
    }

    fn tables(&self) -> rusqlite::Result<Vec<String>> {
        let Ok(handle) = self.handle() else {
            return Ok(Vec::new());
        };
        let mut statement = handle.prepare(
            "SELECT name FROM pragma_table_list WHERE schema = 'main'
             AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
             ORDER BY name LIMIT ?1",
        )?;
        let names = statement.query_map([TABLES_MAX], |row| row.get(0))?;
        names.collect()
    }
}
