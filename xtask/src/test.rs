//! `cargo xtask test`: every test on both databases. SQLite is compiled in; PostgreSQL is found or
//! installed, and without it this fails: a skipped test looks like a passed one.

use std::path::Path;

use crate::postgres;
use crate::steps::shown;

/// Runs every test of the workspace, doc tests included.
pub(crate) fn run(root: &Path, arguments: &[String]) -> bool {
    let found = postgres::find().or_else(|| {
        println!("no PostgreSQL server (initdb and postgres) was found; installing one");
        if postgres::install(root) {
            postgres::find()
        } else {
            None
        }
    });
    let Some(directory) = found else {
        eprintln!(
            "The tests need PostgreSQL 13 or newer. Install it, or let PG_BIN name the directory \
             that holds `initdb` and `postgres`."
        );
        return false;
    };
    println!("PostgreSQL: {}", directory.display());
    let mut test = vec!["cargo", "test", "--workspace", "--no-fail-fast"];
    test.extend(arguments.iter().map(String::as_str));
    shown(root, &test, &[])
}
