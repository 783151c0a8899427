//! The table in the documentation is the table in the code.

use mainstay_core::config::{PARAMETERS, parameters_in_markdown};
use std::path::Path;

#[test]
fn the_table_has_a_row_for_every_parameter_and_every_cell_is_filled() {
    let table = parameters_in_markdown();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), PARAMETERS.len() + 2);
    for row in &rows {
        assert_eq!(row.len(), 9, "{row:?}");
        assert!(row[1..8].iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
    for (parameter, row) in PARAMETERS.iter().zip(&rows[2..]) {
        assert_eq!(row[1], format!("`{}`", parameter.name));
        assert_eq!(row[4], parameter.unit());
    }
}

#[test]
fn no_parameter_and_no_variable_is_listed_twice() {
    for (index, parameter) in PARAMETERS.iter().enumerate() {
        for other in &PARAMETERS[index + 1..] {
            assert_ne!(parameter.name, other.name);
            assert!(parameter.environment.is_none() || parameter.environment != other.environment);
        }
    }
}

#[test]
fn every_parameter_of_prisma_is_known() {
    for name in [
        "schema",
        "connection_limit",
        "pool_timeout",
        "connect_timeout",
        "socket_timeout",
        "max_connection_lifetime",
        "max_idle_connection_lifetime",
        "pgbouncer",
        "statement_cache_size",
        "sslmode",
        "sslaccept",
        "sslcert",
        "sslidentity",
        "sslpassword",
        "sslrootcert",
        "host",
        "application_name",
        "channel_binding",
        "options",
    ] {
        assert!(
            PARAMETERS.iter().any(|parameter| parameter.name == name),
            "{name}"
        );
    }
}

#[test]
fn the_documentation_shows_this_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = root.join("docs/database/connection-management.md");
    // The published package comes without the documentation of the repository.
    if !page.exists() {
        return;
    }
    let page = std::fs::read_to_string(page).unwrap();
    let table = parameters_in_markdown();
    let missing: Vec<&str> = table.lines().filter(|line| !page.contains(line)).collect();
    assert!(
        page.contains(table.trim_end()),
        "the configuration table is not `parameters_in_markdown()`; lines that are missing:\n{}",
        missing.join("\n")
    );
}
