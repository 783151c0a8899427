//! Behind a transaction pooler: what must not be sent through it, and how to tell that there is one.
//!
//! A pooler in transaction mode lends a session of the server for one transaction and then to
//! somebody else. A setting that is made outside of a transaction lands in whichever session serves at
//! that moment, and its next user, a stranger, finds it there. So such statements are refused by name:
//! an error here instead of a riddle there.

use crate::sql::{Token, first_keyword, tokens};
use mainstay_core::error::Report;
use mainstay_core::{Error, Evidence, Kind, Result};

/// Refuses what would change the session of the server beyond the transaction.
pub(crate) fn refuse_session_state(text: &str) -> Result<()> {
    match outlives_the_transaction(text) {
        Some(what) => Err(refused(&what)),
        None => Ok(()),
    }
}

fn refused(what: &str) -> Error {
    let message = format!(
        "{what} changes the session, and behind a transaction pooler its next user is a stranger"
    );
    Report::new(Kind::SessionStatement, message)
        .remedy(
            "inside a transaction `set local` and transaction-level locks work; for more, connect \
             to the server itself, without pgbouncer=true",
        )
        .into()
}

/// What of a text would still be there after the transaction.
fn outlives_the_transaction(text: &str) -> Option<String> {
    let keyword = first_keyword(text)?;
    let words = || {
        tokens(text).filter_map(|token| match token {
            Token::Word { name, .. } => Some(name),
            _ => None,
        })
    };
    let second = words().nth(1).unwrap_or_default();
    let outlives = match &*keyword {
        "set" => !matches!(&*second, "local" | "transaction" | "constraints"),
        "prepare" => second != "transaction",
        "reset" | "discard" | "listen" | "unlisten" | "execute" | "deallocate" | "load" => true,
        "declare" => words().any(|word| word == "hold"),
        "create" => {
            let is_temporary = matches!(&*second, "temp" | "temporary");
            let all: Vec<_> = words().collect();
            is_temporary
                && !all
                    .windows(3)
                    .any(|three| three == ["on", "commit", "drop"])
        }
        _ => false,
    };
    if outlives {
        return Some(format!("`{keyword}`"));
    }
    let is_lock = |name: &str| {
        (name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_"))
            && !name.contains("xact")
    };
    words()
        .find(|name| is_lock(name))
        .map(|name| format!("`{name}`"))
}

/// A session began without the settings that were sent with it: something in between has left them out.
pub(crate) fn settings_were_dropped(host: &impl std::fmt::Display) -> Error {
    let message = format!(
        "{host} opened a session without the settings that were asked for: a transaction pooler \
         such as PgBouncer seems to stand between"
    );
    advised(Report::new(Kind::Config, message))
}

/// The pooler itself has said that it does not take what a session begins with.
pub(crate) fn parameter_was_refused(
    host: &impl std::fmt::Display,
    said: &str,
    pooled: bool,
) -> Error {
    let message = format!("a pooler at {host} did not open a session: {said}");
    let report = Report::new(Kind::Config, message);
    if !pooled {
        return advised(report);
    }
    report
        .evidence(Evidence::Answered)
        .remedy(
            "leave `schema` and `options` out of the URL and set them for the role (`alter role … \
             set search_path = …`), or let the pooler pass them on (`ignore_startup_parameters`)",
        )
        .into()
}

fn advised(report: Report) -> Error {
    report
        .evidence(Evidence::Answered)
        .remedy("add pgbouncer=true to the URL, or connect to the server itself")
        .into()
}

/// Whether a refusal at the start is a pooler's word about a parameter.
pub(crate) fn is_about_a_parameter(code: &str, said: &str) -> bool {
    code == "08P01" && said.contains("unsupported startup parameter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_outlives_the_transaction_is_refused_and_the_rest_is_not() {
        for text in [
            "set work_mem = '1MB'",
            "SET SESSION work_mem = '1MB'",
            "/* x */ reset all",
            "listen c",
            "prepare p as select 1",
            "deallocate all",
            "declare c cursor with hold for select 1",
            "create temp table t (a int)",
            "select pg_advisory_lock(1)",
            "select pg_catalog.pg_try_advisory_lock_shared(1)",
        ] {
            let error = refuse_session_state(text).unwrap_err();
            assert_eq!(error.kind(), Kind::SessionStatement, "{text}");
        }
        for text in [
            "set local work_mem = '1MB'",
            "set transaction read only",
            "begin",
            "commit",
            "prepare transaction 'x'",
            "declare c cursor for select 1",
            "create temporary table t (a int) on commit drop",
            "select pg_advisory_xact_lock(1)",
            "select 'set work_mem', \"set\" from t",
            "create table temp (a int)",
            "",
        ] {
            assert!(refuse_session_state(text).is_ok(), "{text}");
        }
    }
}
