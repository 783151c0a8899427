//! Ctrl-C and SIGTERM end a command in order: what ran is rolled back, on the server too.

use crate::bed::{Bed, Ran, wait};
use mainstay::Database;
use mainstay_testkit::wait_for_blocking;
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_deployment_that_is_interrupted_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let bed = Bed::postgres();
        bed.write(
            "migrations/0001_tags.sql",
            "create table tags (name text primary key);",
        );
        bed.done(&["deploy"]);
        bed.write(
            "migrations/0002_note.sql",
            "alter table tags add column note text;",
        );
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and \
                       datname = current_database()";
        let ran = wait(async {
            let db = Database::connect(&bed.url).await.unwrap();
            let holder = db.begin().await.unwrap();
            holder
                .execute("insert into tags values ('held')", ())
                .await
                .unwrap();
            let mut command = bed.command(&["deploy"]);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            let child_waits = || (bed.psql(waiting) == "1").then_some(());
            wait_for_blocking("the deployment to wait for the lock", LIMIT, child_waits).unwrap();
            let process = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            kill_process(process, signal).unwrap();
            let ran = Ran::from(child.wait_with_output().unwrap());
            // Still locked: the server gave the wait up because it was told to.
            let given_up = || (bed.psql(waiting) == "0").then_some(());
            wait_for_blocking("the server to give up", LIMIT, given_up).unwrap();
            holder.commit().await.unwrap();
            db.close().await;
            ran
        });
        assert_eq!(ran.code, Some(130), "{ran:?}");
        assert!(ran.err.contains("error: interrupted"), "{ran:?}");
        assert_eq!(
            bed.run(&["status"]).code,
            Some(1),
            "the migration is pending still"
        );
        bed.done(&["deploy"]);
    }
}
