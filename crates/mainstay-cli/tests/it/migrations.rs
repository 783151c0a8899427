//! What the history says beside the files, and what a deployment does about it.

use crate::bed::Bed;
use crate::on_both;

on_both!(
    each_migration_is_listed_with_its_time,
    a_failure_keeps_what_was_applied_before_it,
    a_changed_file_is_noticed,
    a_missing_file_is_listed_and_nothing_more,
    no_directory_is_no_reason_not_to_tell,
);

const FIRST: &str = "create table first (id int);";
const SECOND: &str = "create table second (id int);";

fn each_migration_is_listed_with_its_time(bed: &Bed) {
    bed.write("migrations/0001_first.sql", FIRST);
    bed.write("migrations/0002_second.sql", SECOND);
    let status = bed.run(&["status", "--json"]);
    if bed.infix == "postgres" {
        assert_eq!(status.code, Some(1), "{status:?}");
        let pending = &status.document()["migrations"]["pending"];
        assert_eq!(*pending, serde_json::json!(["0001_first", "0002_second"]));
    }
    let document = bed.done(&["deploy", "--json"]).document();
    let applied = document["applied"].as_array().unwrap();
    let titles: Vec<&str> = applied
        .iter()
        .filter_map(|one| one["migration"].as_str())
        .collect();
    assert_eq!(titles, ["0001_first", "0002_second"]);
    assert!(
        applied
            .iter()
            .all(|one| one["took_ms"].as_f64().unwrap() >= 0.0),
        "{document}"
    );
    let again = bed.done(&["deploy"]);
    assert!(
        again
            .out
            .contains("Nothing is pending; 2 migrations applied before."),
        "{again:?}"
    );
    let document = bed.done(&["status", "--json"]).document();
    assert_eq!(document["state"], "up_to_date");
    assert_eq!(
        document["migrations"]["applied"].as_array().unwrap().len(),
        2
    );
}

fn a_failure_keeps_what_was_applied_before_it(bed: &Bed) {
    bed.write("migrations/0001_first.sql", FIRST);
    bed.write(
        "migrations/0002_second.sql",
        "create table second (id int); insert into nowhere values (1);",
    );
    let failed = bed.run(&["deploy", "--json"]);
    assert_eq!(failed.code, Some(2), "{failed:?}");
    let document = failed.document();
    assert_eq!(document["error"]["kind"], "migration");
    assert!(
        document["error"]["message"]
            .as_str()
            .unwrap()
            .contains("0002_second"),
        "{document}"
    );
    assert_eq!(document["applied"][0]["migration"], "0001_first");
    let status = bed.run(&["status", "--json"]);
    assert_eq!(status.code, Some(2), "{status:?}");
    assert_eq!(
        status.document()["migrations"]["failed"][0]["migration"],
        "0002_second"
    );
    let human = bed.run(&["status"]);
    assert!(human.out.contains("failed    0002_second"), "{human:?}");
    bed.write("migrations/0002_second.sql", SECOND);
    bed.done(&["deploy"]);
    bed.done(&["status"]);
}

fn a_changed_file_is_noticed(bed: &Bed) {
    bed.write("migrations/0001_first.sql", FIRST);
    bed.done(&["deploy"]);
    bed.write(
        "migrations/0001_first.sql",
        "create table first (id int, name text);",
    );
    let status = bed.run(&["status", "--json"]);
    assert_eq!(status.code, Some(2), "{status:?}");
    assert_eq!(
        status.document()["migrations"]["modified"],
        serde_json::json!(["0001_first"])
    );
    let deploy = bed.run(&["deploy"]);
    assert_eq!(deploy.code, Some(2), "{deploy:?}");
    assert!(
        deploy
            .err
            .contains("0001_first was changed after it was applied"),
        "{deploy:?}"
    );
}

fn a_missing_file_is_listed_and_nothing_more(bed: &Bed) {
    bed.write("migrations/0001_first.sql", FIRST);
    bed.write("migrations/0002_second.sql", SECOND);
    bed.done(&["deploy"]);
    std::fs::remove_file(bed.path("migrations/0002_second.sql")).unwrap();
    let document = bed.done(&["status", "--json"]).document();
    assert_eq!(
        document["migrations"]["missing"],
        serde_json::json!(["0002_second"])
    );
    let human = bed.done(&["status"]);
    assert!(human.out.contains("missing   0002_second"), "{human:?}");
}

fn no_directory_is_no_reason_not_to_tell(bed: &Bed) {
    bed.write("elsewhere/0001_first.sql", FIRST);
    bed.done(&["deploy", "--migrations", "elsewhere"]);
    let document = bed.done(&["status", "--json"]).document();
    assert_eq!(document["migrations"]["found"], false);
    assert_eq!(
        document["migrations"]["missing"],
        serde_json::json!(["0001_first"])
    );
    let mut command = bed.command(&["status"]);
    command.env("MAINSTAY_MIGRATIONS", "elsewhere");
    let ran = crate::bed::Ran::of(command);
    assert!(ran.out.contains("applied   0001_first"), "{ran:?}");
    let deploy = bed.run(&["deploy"]);
    assert_eq!(deploy.code, Some(2), "{deploy:?}");
    assert!(
        deploy
            .err
            .contains("no directory of migrations at ./migrations"),
        "{deploy:?}"
    );
}
