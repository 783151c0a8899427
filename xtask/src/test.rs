//! `cargo xtask test`: every test on both databases. SQLite is compiled in; PostgreSQL and PgBouncer
//! are found or installed, and without them this fails: a skipped test looks like a passed one.

use std::path::Path;

use crate::postgres;
use crate::steps::shown;

/// Runs every test of the workspace, doc tests included.
pub(crate) fn run(root: &Path, arguments: &[String]) -> bool {
    let find = || Some((postgres::find()?, postgres::find_pooler()?));
    let found = find().or_else(|| {
        println!("PostgreSQL (initdb and postgres) or PgBouncer was not found; installing both");
        if postgres::install(root) {
            find()
        } else {
            None
        }
    });
    let Some((directory, pooler)) = found else {
        eprintln!(
            "The tests need PostgreSQL 13 or newer, and PgBouncer. Install them, or let PG_BIN \
             name the directory that holds `initdb` and `postgres`, and PGBOUNCER the program."
        );
        return false;
    };
    println!("PostgreSQL: {}", directory.display());
    println!("PgBouncer: {}", pooler.display());
    let mut test = vec!["cargo", "test", "--workspace", "--no-fail-fast"];
    test.extend(arguments.iter().map(String::as_str));
    shown(root, &test, &[])
}
