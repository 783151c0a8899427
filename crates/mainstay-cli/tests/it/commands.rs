//! Each command does what its help says.

use crate::bed::Bed;
use crate::on_both;

on_both!(
    check_tells_who_answered,
    init_may_be_repeated,
    init_makes_what_deploy_needs,
    status_tells_about_the_server,
    seed_runs_in_one_transaction,
    the_seed_of_the_system_wins,
    backup_replaces_nothing_unasked,
    a_replaced_backup_is_complete,
);

fn check_tells_who_answered(bed: &Bed) {
    bed.done(&["init"]);
    let ran = bed.done(&["check"]);
    assert!(ran.err.starts_with("Database: "), "{ran:?}");
    for word in ["healthy, answered in", "version", "connections", "pool"] {
        assert!(ran.out.contains(word), "{word}: {ran:?}");
    }
    let quiet = bed.done(&["check", "--quiet"]);
    assert_eq!(quiet.said(), "");
}

fn init_may_be_repeated(bed: &Bed) {
    bed.done(&["init"]);
    let example = bed.path("migrations/0001_notes.sql");
    std::fs::write(&example, "create table mine (id bigint primary key);").unwrap();
    bed.done(&["init"]);
    let text = std::fs::read_to_string(&example).unwrap();
    assert!(text.contains("mine"), "init overwrote a file: {text}");
    assert_eq!(bed.number("select count(*) from _mainstay_migrations"), 0);
    assert_eq!(bed.number("select count(*) from _mainstay_tokens"), 0);
}

fn init_makes_what_deploy_needs(bed: &Bed) {
    bed.done(&["init"]);
    assert_eq!(bed.run(&["status"]).code, Some(1));
    let ran = bed.done(&["deploy"]);
    assert!(ran.out.contains("applied  0001_notes"), "{ran:?}");
    assert_eq!(bed.number("select count(*) from notes"), 0);
    bed.done(&["status"]);
}

fn status_tells_about_the_server(bed: &Bed) {
    bed.write(
        "migrations/0001_shop.sql",
        "create table orders (id int); create table users (id int);",
    );
    bed.done(&["deploy"]);
    let document = bed.done(&["status", "--json"]).document();
    let server = &document["server"];
    assert!(
        server["version"].as_str().unwrap().contains('.'),
        "{server}"
    );
    assert!(server["size_bytes"].as_u64().unwrap() > 0, "{server}");
    let tables = server["tables"].as_array().unwrap();
    let names: Vec<&str> = tables
        .iter()
        .filter_map(|table| table["name"].as_str())
        .collect();
    for name in ["orders", "users"] {
        assert!(names.iter().any(|found| found.ends_with(name)), "{names:?}");
    }
    let is_file = server["file"]["journal_mode"] == "wal";
    assert!(is_file || server["file"].is_null(), "{server}");
    if is_file {
        assert!(server["file"]["pages"].as_u64().unwrap() > 1, "{server}");
        let sizes = tables
            .iter()
            .filter_map(|table| table["size_bytes"].as_u64());
        assert_eq!(sizes.count(), tables.len(), "{server}");
    }
    let counts = !server["sessions"].is_null();
    assert_eq!(counts, !is_file, "{server}");
    assert_eq!(server["in_recovery"] == false, !is_file, "{server}");
    let exact = bed.done(&["status", "--json", "--exact"]).document();
    assert_eq!(exact["server"]["rows_are_estimates"], false, "{exact}");
    let human = bed.done(&["status"]);
    assert_eq!(human.out.contains("1 active"), !is_file, "{human:?}");
    assert_eq!(human.out.contains("journal mode wal"), is_file, "{human:?}");
    for word in [
        "version",
        "connections",
        "size",
        "tables",
        "orders",
        "up to date",
    ] {
        assert!(human.out.contains(word), "{word}: {human:?}");
    }
}

fn seed_runs_in_one_transaction(bed: &Bed) {
    bed.write(
        "migrations/0001_tags.sql",
        "create table tags (name text primary key);",
    );
    bed.done(&["deploy"]);
    let none = bed.run(&["seed"]);
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(
        none.err.contains("there is no seed in ./migrations"),
        "{none:?}"
    );
    let broken = "insert into tags values ('a'); insert into tags values ('a');";
    bed.write("broken.sql", broken);
    let failed = bed.run(&["seed", "--file", "broken.sql", "--json"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert_eq!(failed.document()["error"]["kind"], "unique");
    assert_eq!(bed.number("select count(*) from tags"), 0);
    bed.write(
        "migrations/seed.sql",
        "insert into tags values ('a'); insert into tags values ('b;');",
    );
    bed.done(&["seed"]);
    assert_eq!(bed.number("select count(*) from tags"), 2);
}

fn the_seed_of_the_system_wins(bed: &Bed) {
    bed.write(
        "migrations/0001_tags.sql",
        "create table tags (name text primary key);",
    );
    bed.write("migrations/seed.sql", "insert into tags values ('common');");
    let own = format!("migrations/seed.{}.sql", bed.infix);
    bed.write(&own, "insert into tags values ('own');");
    bed.done(&["deploy"]);
    bed.done(&["seed"]);
    assert_eq!(
        bed.number("select count(*) from tags where name = 'own'"),
        1
    );
    assert_eq!(bed.number("select count(*) from tags"), 1);
}

fn backup_replaces_nothing_unasked(bed: &Bed) {
    bed.done(&["init"]);
    bed.write("copy", "precious");
    let refused = bed.run(&["backup", "copy"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--force"), "{refused:?}");
    assert_eq!(
        std::fs::read_to_string(bed.path("copy")).unwrap(),
        "precious"
    );
    let directory = bed.run(&["backup", "migrations", "--force"]);
    assert_eq!(directory.code, Some(2), "{directory:?}");
}

fn a_replaced_backup_is_complete(bed: &Bed) {
    bed.write(
        "migrations/0001_tags.sql",
        "create table tags (name text primary key);",
    );
    bed.done(&["deploy"]);
    let first = bed.done(&["backup", "copy", "--json"]).document();
    assert_eq!(
        first["bytes"].as_u64(),
        bed.path("copy").metadata().ok().map(|meta| meta.len())
    );
    bed.write("copy", "old");
    let ran = bed.done(&["backup", "copy", "--force"]);
    for word in ["copy", "size", "method", "time"] {
        assert!(ran.out.contains(word), "{word}: {ran:?}");
    }
    let magic = std::fs::read(bed.path("copy")).unwrap();
    let expected: &[u8] = if bed.infix == "sqlite" {
        b"SQLite format 3"
    } else {
        b"PGDMP"
    };
    assert!(magic.starts_with(expected), "{:?}", magic.get(..16));
    let left: Vec<_> = std::fs::read_dir(bed.path("")).unwrap().flatten().collect();
    assert!(
        left.iter()
            .all(|entry| !entry.file_name().to_string_lossy().contains(".new-"))
    );
}

#[test]
fn a_backup_onto_the_database_itself_is_refused() {
    let bed = Bed::sqlite();
    bed.done(&["init"]);
    let ran = bed.run(&["backup", "app.db", "--force"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("the database itself"), "{ran:?}");
    bed.done(&["check"]);
}

#[test]
fn looking_at_a_file_does_not_create_it() {
    let bed = Bed::sqlite();
    bed.write(
        "migrations/0001_tags.sql",
        "create table tags (name text primary key);",
    );
    for command in [
        &["check"][..],
        &["status"],
        &["seed", "--file", "migrations/0001_tags.sql"],
        &["backup", "copy"],
    ] {
        let ran = bed.run(command);
        assert_eq!(ran.code, Some(2), "{command:?}: {ran:?}");
        assert!(ran.err.contains("mainstay init"), "{command:?}: {ran:?}");
    }
    assert!(!bed.path("app.db").exists());
}

#[test]
fn deploy_creates_a_database_that_is_missing() {
    for bed in [Bed::sqlite(), Bed::absent_postgres()] {
        bed.write(
            "migrations/0001_tags.sql",
            "create table tags (name text primary key);",
        );
        let document = bed.done(&["deploy", "--json"]).document();
        assert_eq!(document["created"], true, "{document}");
        let document = bed.done(&["deploy", "--json"]).document();
        assert_eq!(document["created"], false, "{document}");
    }
}
