//! A row for every result code, and one for every kind that it may have.

use super::*;

#[path = "../../tests/it/failure_table.rs"]
mod failure_table;

use failure_table::{Row, rows};

fn failure(code: i32, text: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text.to_owned()))
}

#[test]
fn every_result_code_has_the_class_that_its_row_says() {
    let mut wrong = Vec::new();
    for row in rows() {
        wrong.extend(differences(&row));
    }
    assert!(
        wrong.is_empty(),
        "{} cases are not as their rows say:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn differences(row: &Row) -> Vec<String> {
    let mut wrong = Vec::new();
    for commits in [false, true] {
        let site = Site {
            commits,
            ..Site::default()
        };
        let error = classify(failure(row.code, "text"), site);
        if let Some(difference) = row.difference(&error, commits) {
            wrong.push(difference);
        }
    }
    if spoils_the_handle(row.code) == row.usable {
        wrong.push(format!("{} {}: usable {}", row.code, row.name, !row.usable));
    }
    wrong
}

/// What a code means where nothing commits: kind, class, evidence.
#[test]
fn every_family_of_codes_has_its_row() {
    use Class::{Permanent, RolledBack};
    use Evidence::{Answered, Exhausted, Neither, Silent};
    let rows = [
        (2067, Kind::Unique, Permanent, Answered),
        (1555, Kind::Unique, Permanent, Answered),
        (2579, Kind::Unique, Permanent, Answered),
        (787, Kind::ForeignKey, Permanent, Answered),
        (1299, Kind::NotNull, Permanent, Answered),
        (275, Kind::Check, Permanent, Answered),
        (1811, Kind::Statement, Permanent, Answered),
        (3091, Kind::Statement, Permanent, Answered),
        (1043, Kind::Statement, Permanent, Answered),
        (2323, Kind::Statement, Permanent, Answered),
        (1, Kind::Statement, Permanent, Answered),
        (18, Kind::Statement, Permanent, Answered),
        (20, Kind::Statement, Permanent, Answered),
        (23, Kind::Statement, Permanent, Answered),
        (25, Kind::Statement, Permanent, Answered),
        (5, Kind::Conflict, RolledBack, Answered),
        (261, Kind::Conflict, RolledBack, Answered),
        (517, Kind::Conflict, RolledBack, Answered),
        (773, Kind::Conflict, RolledBack, Answered),
        (6, Kind::Statement, Permanent, Answered),
        (262, Kind::Conflict, RolledBack, Answered),
        (15, Kind::Conflict, RolledBack, Answered),
        (17, Kind::Conflict, RolledBack, Answered),
        (516, Kind::Conflict, RolledBack, Answered),
        (769, Kind::Conflict, RolledBack, Answered),
        (264, Kind::Conflict, RolledBack, Answered),
        (8, Kind::ReadOnly, Permanent, Answered),
        (1544, Kind::ReadOnly, Permanent, Answered),
        (1032, Kind::Storage, Permanent, Silent),
        (9, Kind::Cancelled, Permanent, Neither),
        (10, Kind::Storage, RolledBack, Exhausted),
        (266, Kind::Storage, RolledBack, Exhausted),
        (1034, Kind::Storage, RolledBack, Exhausted),
        (13, Kind::Storage, Permanent, Exhausted),
        (14, Kind::Storage, RolledBack, Exhausted),
        (7, Kind::Storage, Permanent, Neither),
        (11, Kind::Storage, Permanent, Silent),
        (26, Kind::Storage, Permanent, Silent),
        (2, Kind::Other, Permanent, Answered),
        (21, Kind::Other, Permanent, Answered),
    ];
    for (code, kind, class, evidence) in rows {
        let error = classify(failure(code, "text"), Site::default());
        let found = (error.kind(), error.class(), error.evidence());
        assert_eq!(found, (kind, class, evidence), "{code}");
        assert_eq!(error.sqlite_code(), Some(code));
    }
}

#[test]
fn a_commit_that_failed_at_the_disk_has_an_unknown_outcome() {
    let site = Site {
        commits: true,
        ..Site::default()
    };
    for code in [10, 778, 1034, 1290, 1546, 2570, 7690] {
        let error = classify(failure(code, "disk I/O error"), site);
        assert!(error.is_outcome_unknown(), "{code}");
        assert_eq!(error.class(), Class::OutcomeUnknown);
    }
    for code in [5, 13, 787, 2067, 266] {
        let error = classify(failure(code, "text"), site);
        assert!(!error.is_outcome_unknown(), "{code}");
    }
}

#[test]
fn a_call_that_was_stopped_says_why_and_not_busy_or_interrupted() {
    for (stop, kind, class) in [
        (Stop::Deadline, Kind::Timeout, Class::RolledBack),
        (Stop::StatementTimeout, Kind::Timeout, Class::Permanent),
        (Stop::Cancelled, Kind::Cancelled, Class::Permanent),
        (Stop::Abandoned, Kind::Cancelled, Class::Permanent),
        (Stop::Closed, Kind::Cancelled, Class::Permanent),
    ] {
        let site = Site {
            stop: Some(stop),
            ..Site::default()
        };
        for code in [5, 9] {
            let error = classify(failure(code, "text"), site);
            assert_eq!((error.kind(), error.class()), (kind, class), "{stop:?}");
            assert_eq!(error.evidence(), Evidence::Neither);
            assert_eq!(error.is_timeout(), kind == Kind::Timeout);
        }
        // What had already failed for its own reason keeps it.
        assert_eq!(classify(failure(2067, "text"), site).kind(), Kind::Unique);
    }
    assert_eq!(not_begun(Stop::Deadline).class(), Class::NotSent);
    assert_eq!(not_begun(Stop::Closed).kind(), Kind::Closed);
}

#[test]
fn the_violated_constraint_is_named() {
    for (code, text, name) in [
        (
            2067,
            "UNIQUE constraint failed: users.email",
            Some("users.email"),
        ),
        (1555, "UNIQUE constraint failed: a.x, a.y", Some("a.x, a.y")),
        (
            2067,
            "UNIQUE constraint failed: index 'by_email'",
            Some("by_email"),
        ),
        (
            1299,
            "NOT NULL constraint failed: users.name",
            Some("users.name"),
        ),
        (275, "CHECK constraint failed: total > 0", Some("total > 0")),
        (787, "FOREIGN KEY constraint failed", None),
        (1, "constraint failed: t.c", None),
    ] {
        let error = classify(failure(code, text), Site::default());
        assert_eq!(error.constraint(), name, "{text}");
    }
}

#[test]
fn the_read_lane_says_that_it_refused() {
    let site = Site {
        on_read_lane: true,
        ..Site::default()
    };
    assert!(classify(failure(8, "text"), site).is_refused_by_read_lane());
    assert!(!classify(failure(8, "text"), Site::default()).is_refused_by_read_lane());
}
