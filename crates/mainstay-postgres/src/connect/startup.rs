//! What a session begins with, and what a server says that does not take us.

use crate::classify::{Phase, ServerError, refused};
use crate::pooled::{is_about_a_parameter, parameter_was_refused};
use crate::wire::Log;
use mainstay_core::config::{Host, PostgresTarget};
use mainstay_core::error::Report;
use mainstay_core::{Error, Evidence, Kind};
use std::error::Error as _;
use std::time::Duration;

/// A setting of ours that means nothing to the server. One that has it in force has taken our options;
/// without them the lane of one session would end up in somebody else's.
pub(super) const MARK: &str = "mainstay.lanes";

/// The `options` of the startup message. The driver sends no other parameters, and as options they
/// are the session's own defaults, to which `RESET ALL` goes back.
///
/// A transaction pooler shares its sessions and refuses what it cannot keep apart, so behind one
/// nothing is set but what the user asked for. Where the lane is a setting of the session (`lanes`), a
/// mark goes along that a server keeps and such a pooler does not.
///
/// Whether the session may write is not said here: what is set at the start becomes the session's own
/// default, and the one that the server has for the role would be out of reach.
pub(super) fn options(
    target: &PostgresTarget,
    lanes: bool,
    statement_timeout: Option<Duration>,
) -> String {
    let mut parts: Vec<String> = target.options.iter().cloned().collect();
    let mut set = |name: &str, value: &str| parts.push(format!("-c {name}={}", escaped(value)));
    if let Some(schema) = &target.schema {
        set(
            "search_path",
            &format!("\"{}\",public", schema.replace('"', "\"\"")),
        );
    }
    if !target.pgbouncer {
        if let Some(limit) = statement_timeout {
            set("statement_timeout", &limit.as_millis().to_string());
        }
        if lanes {
            set(MARK, "on");
        }
    }
    parts.join(" ")
}

/// Options are split at spaces; a backslash protects one, and itself.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        if character == '\\' || character.is_whitespace() {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// Who wanted the session, for the words.
pub(super) struct Caller<'a> {
    pub(super) user: &'a str,
    pub(super) database: &'a str,
    pub(super) pooled: bool,
}

/// Puts into words why the session did not come about.
pub(super) fn refusal(
    error: &tokio_postgres::Error,
    log: &Log,
    host: &Host,
    caller: &Caller<'_>,
) -> Error {
    if let Some(server) = error.as_db_error() {
        return server_refusal(server.into(), host, caller);
    }
    if let Some(words) = log.last_words() {
        return server_refusal(words.into(), host, caller);
    }
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    // The kinds of the driver's errors are private; their words are not.
    match error.to_string().split(':').next().unwrap_or_default() {
        "invalid configuration" => {
            let message = format!(
                "{host} asks for a password for {:?}, and none is configured",
                caller.user
            );
            Report::new(Kind::Credentials, message)
                .remedy("put it into DATABASE_URL")
                .evidence(Evidence::Answered)
                .into()
        }
        "authentication error" => Report::new(
            Kind::Credentials,
            format!("{host} and we cannot agree on a login: {cause}"),
        )
        .evidence(Evidence::Answered)
        .into(),
        _ if cause.contains("alert") => Report::new(
            Kind::Tls,
            format!("{host} ended the TLS connection: {cause}"),
        )
        .remedy("does the server ask for a client certificate? set sslcert and sslkey")
        .into(),
        _ => {
            let how = log.ended().unwrap_or(cause);
            Report::new(
                Kind::Unreachable,
                format!("{host} broke off while a session was opened: {how}"),
            )
            .remedy("is it a PostgreSQL server, and does sslmode suit it?")
            .into()
        }
    }
}

fn server_refusal(server: ServerError, host: &Host, caller: &Caller<'_>) -> Error {
    let Caller {
        user,
        database,
        pooled,
    } = *caller;
    let code = server.code().to_owned();
    let said = server.to_string();
    if is_about_a_parameter(&code, &said) {
        return parameter_was_refused(host, &said, pooled);
    }
    let report = refused(Phase::Connect, server, false, pooled);
    match code.as_str() {
        "28P01" => report
            .message(format!("{host} refused the password of {user:?}"))
            .remedy("check user and password in DATABASE_URL"),
        "28000" => report
            .message(format!("{host} refused {user:?}: {said}"))
            .remedy("check the user, pg_hba.conf and sslmode"),
        "3D000" => report
            .message(format!("database {database:?} does not exist on {host}"))
            .remedy("`mainstay init` creates it"),
        _ => report.message(format!("{host} did not open a session: {said}")),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> PostgresTarget {
        let host = Host::Tcp {
            host: "db".into(),
            port: 5432,
        };
        PostgresTarget::new(host, "app", "shop")
    }

    #[test]
    fn options_are_escaped() {
        let mut target = target();
        target.options = Some("-c work_mem=64MB".into());
        target.schema = Some("my \"odd\\\" schema".into());
        let options = options(&target, true, Some(Duration::from_secs(2)));
        let expected = "-c work_mem=64MB \
                        -c search_path=\"my\\ \"\"odd\\\\\"\"\\ schema\",public \
                        -c statement_timeout=2000 -c mainstay.lanes=on";
        assert_eq!(options, expected);
    }

    #[test]
    fn a_pooler_gets_no_settings_of_ours() {
        let mut target = target();
        target.pgbouncer = true;
        let options = options(&target, true, Some(Duration::from_secs(2)));
        assert_eq!(options, "");
    }
}
