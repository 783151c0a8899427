use super::*;

fn error(severity: &str, code: &str) -> ServerError {
    LastWords {
        severity: severity.into(),
        code: code.into(),
        message: "m".into(),
    }
    .into()
}

fn labels(report: Report) -> (Kind, Class, Evidence) {
    let error = report.into_error();
    (error.kind(), error.class(), error.evidence())
}

#[test]
fn an_error_means_what_its_code_says() {
    use Class::{Permanent, RolledBack};
    use Evidence::{Answered, Exhausted, Silent};
    for (code, kind, class, evidence) in [
        ("23505", Kind::Unique, Permanent, Answered),
        ("23503", Kind::ForeignKey, Permanent, Answered),
        ("23502", Kind::NotNull, Permanent, Answered),
        ("23514", Kind::Check, Permanent, Answered),
        ("23P01", Kind::Check, Permanent, Answered),
        ("40001", Kind::Conflict, RolledBack, Answered),
        ("40P01", Kind::Conflict, RolledBack, Answered),
        ("55P03", Kind::Conflict, RolledBack, Answered),
        ("42601", Kind::Statement, Permanent, Answered),
        ("42P01", Kind::Statement, Permanent, Answered),
        ("22012", Kind::Statement, Permanent, Answered),
        ("25006", Kind::ReadOnly, Permanent, Answered),
        ("25P02", Kind::TransactionOver, Permanent, Answered),
        ("57014", Kind::Cancelled, Permanent, Answered),
        ("53100", Kind::Storage, RolledBack, Exhausted),
        ("53200", Kind::Other, RolledBack, Exhausted),
        ("58030", Kind::Storage, RolledBack, Exhausted),
        ("08001", Kind::Unreachable, RolledBack, Silent),
        ("XX001", Kind::Storage, Permanent, Answered),
        ("P0001", Kind::Other, Permanent, Answered),
        ("ZZZZZ", Kind::Other, Permanent, Answered),
        ("é", Kind::Other, Permanent, Answered),
    ] {
        for phase in [Phase::Read, Phase::Write, Phase::Transaction, Phase::Commit] {
            let report = refused(phase, error("ERROR", code), false, false);
            assert_eq!(labels(report), (kind, class, evidence), "{code} {phase:?}");
        }
    }
}

#[test]
fn a_server_that_cannot_take_us_now_has_done_nothing() {
    for (code, evidence) in [("57P03", Evidence::Silent), ("53300", Evidence::Exhausted)] {
        let report = refused(Phase::Connect, error("FATAL", code), false, false);
        assert_eq!(
            labels(report),
            (Kind::Unreachable, Class::NotSent, evidence),
            "{code}"
        );
    }
    let report = refused(Phase::Connect, error("FATAL", "28P01"), false, false);
    assert_eq!(
        labels(report),
        (Kind::Credentials, Class::Permanent, Evidence::Answered)
    );
}

#[test]
fn a_session_ended_in_place_of_an_answer_has_rolled_back() {
    for (phase, class) in [
        (Phase::Prepare, Class::NotSent),
        (Phase::Read, Class::ReadLost),
        (Phase::Write, Class::RolledBack),
        (Phase::Transaction, Class::RolledBack),
        (Phase::Commit, Class::RolledBack),
    ] {
        let report = refused(phase, error("FATAL", "57P01"), false, false);
        assert_eq!(
            labels(report),
            (Kind::Unreachable, class, Evidence::Silent),
            "{phase:?}"
        );
        let report = lost(phase, Reached::Refused, None, false);
        assert_eq!(
            labels(report),
            (Kind::Unreachable, class, Evidence::Silent),
            "{phase:?}"
        );
    }
    let report = refused(Phase::Transaction, error("FATAL", "40001"), false, false);
    assert_eq!(labels(report).0, Kind::Conflict);
}

#[test]
fn what_nobody_knows_is_never_called_anything_else() {
    let unknown = (
        Kind::OutcomeUnknown,
        Class::OutcomeUnknown,
        Evidence::Silent,
    );
    for phase in [Phase::Write, Phase::Commit] {
        for report in [
            lost(phase, Reached::Unknown, None, false),
            // A pooler's farewell says nothing about the server.
            lost(phase, Reached::Refused, None, true),
            refused(phase, error("FATAL", "08P01"), false, false),
            refused(phase, error("ERROR", "08P01"), false, true),
            refused(phase, error("PANIC", "XX000"), false, false),
            refused(phase, error("FATAL", "57P01"), true, false),
            refused(phase, error("ERROR", "08006"), false, false),
        ] {
            assert_eq!(labels(report), unknown, "{phase:?}");
        }
    }
}

#[test]
fn a_lost_connection_means_what_was_going_on() {
    for (phase, reached, class) in [
        (Phase::Prepare, Reached::Unknown, Class::NotSent),
        (Phase::Read, Reached::NotWritten, Class::NotSent),
        (Phase::Read, Reached::Unknown, Class::ReadLost),
        (Phase::Write, Reached::NotWritten, Class::NotSent),
        (Phase::Transaction, Reached::NotWritten, Class::RolledBack),
        (Phase::Transaction, Reached::Unknown, Class::RolledBack),
        (Phase::Commit, Reached::NotWritten, Class::RolledBack),
    ] {
        assert_eq!(
            labels(lost(phase, reached, None, false)).1,
            class,
            "{phase:?} {reached:?}"
        );
    }
}

#[test]
fn values_stay_out_of_messages() {
    let message = r#"invalid input syntax for type integer: "hunter"2""#;
    assert_eq!(
        without_values("22P02", message),
        r#"invalid input syntax for type integer: "…""#
    );
    let message = r#"relation "orders" does not exist"#;
    assert_eq!(without_values("42P01", message), message);
}
