//! Nothing is destroyed unasked.

use crate::bed::{Bed, Ran, terminal};
use crate::on_both;
use std::io::Write;
use std::process::Stdio;

on_both!(
    without_a_terminal_it_is_refused,
    with_force_everything_is_new,
    the_very_name_is_a_yes,
    anything_else_is_a_no,
    files_that_cannot_be_read_are_found_before_anything_is_removed,
);

/// A table with a row that nobody would get back.
fn prepare(bed: &Bed) {
    bed.write(
        "migrations/0001_tags.sql",
        "create table tags (name text primary key);",
    );
    bed.write(
        "migrations/0002_more.sql",
        "create view more as select name from tags;",
    );
    bed.write("migrations/seed.sql", "insert into tags values ('seeded');");
    bed.write(
        "precious.sql",
        "insert into tags values ('precious'); create table stray (id int);",
    );
    bed.done(&["deploy"]);
    bed.done(&["seed", "--file", "precious.sql"]);
}

fn precious(bed: &Bed) -> i64 {
    bed.number("select count(*) from tags where name = 'precious'")
}

fn without_a_terminal_it_is_refused(bed: &Bed) {
    prepare(bed);
    for arguments in [&["reset"][..], &["reset", "--json"]] {
        let ran = bed.run(arguments);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.said().contains("--force"), "{ran:?}");
    }
    assert_eq!(precious(bed), 1);
}

fn with_force_everything_is_new(bed: &Bed) {
    prepare(bed);
    let document = bed.done(&["reset", "--force", "--json"]).document();
    assert_eq!(
        document["applied"].as_array().unwrap().len(),
        2,
        "{document}"
    );
    assert!(
        document["seed"]["file"]
            .as_str()
            .unwrap()
            .ends_with("seed.sql"),
        "{document}"
    );
    assert_eq!(precious(bed), 0);
    assert_eq!(
        bed.number("select count(*) from more where name = 'seeded'"),
        1
    );
    let status = bed.done(&["status", "--json"]).document();
    let tables = status["server"]["tables"].as_array().unwrap();
    assert!(
        !tables
            .iter()
            .any(|table| table["name"].as_str().unwrap().contains("stray"))
    );
    bed.done(&["reset", "--force", "--skip-seed"]);
    assert_eq!(bed.number("select count(*) from tags"), 0);
}

fn the_very_name_is_a_yes(bed: &Bed) {
    prepare(bed);
    let ran = answered(bed, &bed.name);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("Type its name to confirm"), "{ran:?}");
    assert_eq!(precious(bed), 0);
}

fn anything_else_is_a_no(bed: &Bed) {
    prepare(bed);
    for answer in ["y", ""] {
        let ran = answered(bed, answer);
        assert_eq!(ran.code, Some(130), "{ran:?}");
        assert!(ran.err.contains("nothing was changed"), "{ran:?}");
    }
    assert_eq!(precious(bed), 1);
}

fn files_that_cannot_be_read_are_found_before_anything_is_removed(bed: &Bed) {
    prepare(bed);
    bed.write("migrations/misnamed.sql", "select 1;");
    let ran = bed.run(&["reset", "--force"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let ran = bed.run(&["reset", "--force", "--migrations", "nowhere"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert_eq!(precious(bed), 1);
}

/// Runs a reset on a terminal where somebody types an answer.
fn answered(bed: &Bed, answer: &str) -> Ran {
    let (mut keyboard, terminal) = terminal();
    // The terminal keeps the line until it is read.
    writeln!(keyboard, "{answer}").unwrap();
    let mut command = bed.command(&["reset"]);
    command
        .stdin(Stdio::from(terminal))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ran::from(command.spawn().unwrap().wait_with_output().unwrap())
}
