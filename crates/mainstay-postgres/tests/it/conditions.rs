//! Everything that can happen to a connection, at every moment at which it can: a row, a case.
//!
//! Three rows are conditions of this machine that a test must not bring about (files and addresses
//! used up); they are compared where a failed dial is judged.

use crate::failure_table::{
    Condition as Row, IN_A_SESSION, Moment, assert_none, conditions, difference,
};
use crate::fixture::*;
use crate::scripted::{ALL, At, Script, Server, Then, UNTIL_COMMITTED};
use crate::scripted::{complaint, message};
use crate::sqlstates::{backend_of, provoke, until_broken};
use mainstay_core::backend::{Backend, Call, Condition, Lane};
use mainstay_core::config::{PostgresTarget, SslMode};
use mainstay_core::error::Report;
use mainstay_core::{Deadline, Error, Evidence, Kind};
use mainstay_postgres::Postgres;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

const TEXT: &str = "update t set a = 1";

/// For those who wait in vain.
const IMPATIENT: Duration = Duration::from_millis(30);

/// For those who are to hear a word, on a busy machine too, and then wait in vain.
const PATIENT: Duration = Duration::from_millis(500);

impl Row {
    /// Compared with what a failed dial means, beside the function that decides it.
    fn is_local(&self) -> bool {
        self.name.starts_with("too many open files") || self.name == "no local address free"
    }

    fn moments(&self) -> Vec<Moment> {
        match &*self.phase {
            "connecting" => vec![Moment::Connecting],
            "before_write" => vec![Moment::BeforeWrite],
            "after_write_read" => vec![Moment::Read],
            "after_write_autocommit" => vec![Moment::Write],
            "after_write_transaction" => vec![Moment::Transaction],
            "during_commit" => vec![Moment::Commit],
            "any" | "after_write" => IN_A_SESSION.to_vec(),
            phase => panic!("no moment is called {phase}"),
        }
    }
}

/// A name and a key that no authority has signed.
fn tls() -> TlsAcceptor {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())
        .unwrap();
    TlsAcceptor::from(std::sync::Arc::new(config))
}

fn backend_at(host: &str, port: u16, mode: SslMode, patience: Duration) -> Postgres {
    let mut target = PostgresTarget::new(tcp(host, port), "app", "shop");
    target.tls.mode = mode;
    backend_with(&target, |config| config.connect_timeout = patience)
}

/// Connects and fails.
async fn connecting(name: &str) -> Error {
    let server = Server::with_tls((name == "untrusted certificate").then(tls));
    let script = |at, says: &[u8], then| {
        Some(Script {
            at,
            after: 0,
            says: says.to_vec(),
            then,
        })
    };
    let (mut host, mut port, mut mode) = ("127.0.0.1", server.port(), SslMode::Disable);
    let mut patience = LIMIT;
    match name {
        // Two dots in a row: no resolver needs to be asked.
        "unknown host name" => host = "db..invalid",
        "connection refused" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            port = listener.local_addr().unwrap().port();
        }
        // The broadcast address has no route for a stream.
        "host unreachable" => host = "255.255.255.255",
        "connect timeout" => {
            patience = IMPATIENT;
            server.play(script(At::Startup, b"", Then::Silence));
        }
        "eof during startup" => server.play(script(At::Startup, b"", Then::HangUp)),
        "reset during startup" => server.play(script(At::Startup, b"", Then::Reset)),
        "untrusted certificate" => (host, mode) = ("localhost", SslMode::VerifyFull),
        "tls handshake broken off" => {
            mode = SslMode::Require;
            server.play(script(At::Encryption, b"S", Then::HangUp));
        }
        "tls refused" => {
            mode = SslMode::Require;
            server.play(script(At::Encryption, b"N", Then::HangUp));
        }
        "error response during startup" => {
            let says = complaint(b'E', "FATAL", "57P03", "ProcessStartupPacket");
            server.play(script(At::Startup, &says, Then::HangUp));
        }
        name => panic!("nobody knows how to bring about {name}"),
    }
    let backend = backend_at(host, port, mode, patience);
    backend.connect(Lane::Write, deadline()).await.unwrap_err()
}

/// Sends a statement on a session that has gone, or does not come to send it.
async fn before_write(server: &Server, name: &str) -> (Error, Option<Conn>) {
    let backend = backend_of(server);
    let then = match name {
        // They never get a connection; the pool says so.
        "waiter shed" => return (Report::new(Kind::Shed, "shed").into(), None),
        "pool exhausted" => return (Report::new(Kind::Exhausted, "exhausted").into(), None),
        "caller's deadline" => Then::GoOn,
        "reset with no byte written" => Then::Reset,
        _ => Then::HangUp,
    };
    server.play(Some(Script {
        at: At::Execute,
        after: ALL,
        says: Vec::new(),
        then,
    }));
    let conn = backend.connect(Lane::Write, deadline()).await.unwrap();
    execute(&conn, TEXT, write()).await.unwrap();
    let mut call = write();
    match name {
        "caller's deadline" => call.deadline = Deadline::from_now(Duration::ZERO),
        "session known to be closed" => until_broken(&conn).await,
        // The runtime stands still meanwhile, so the session cannot notice before it is used.
        _ => server.wait_for_the_end(),
    }
    (execute(&conn, TEXT, call).await.unwrap_err(), Some(conn))
}

/// Calls, and stops waiting.
async fn impatient(
    backend: &Postgres,
    moment: Moment,
    patience: Duration,
) -> (Result<(), Error>, Conn) {
    let conn = backend.connect(Lane::Write, deadline()).await.unwrap();
    let short = || Call {
        deadline: Deadline::from_now(patience),
        ..write()
    };
    let outcome = if moment == Moment::Commit {
        conn.begin(begin(), write()).await.unwrap();
        conn.commit(short()).await
    } else {
        // Prepared by now, so that nothing but the statement itself is waited for.
        execute(&conn, TEXT, write()).await.unwrap();
        execute(&conn, TEXT, short()).await.map(drop)
    };
    (outcome, conn)
}

/// Loses the answer to a request that was sent.
async fn after_write(
    server: &Server,
    backend: &Postgres,
    name: &str,
    moment: Moment,
) -> (Result<(), Error>, Conn) {
    let nothing = Vec::new();
    let (says, then) = match name {
        "eof" | "eof after COMMIT was reported complete" | "tls close_notify" => {
            (nothing, Then::HangUp)
        }
        "reset" => (nothing, Then::Reset),
        "half a message and eof" => (b"C\0\0\0\x0fINS".to_vec(), Then::HangUp),
        // The first word about COMMIT is the whole, so it says something else.
        "caller's deadline while the server speaks" if moment == Moment::Commit => {
            let notice = complaint(b'N', "NOTICE", "00000", "Scripted");
            (notice, Then::Silence)
        }
        name if name.starts_with("caller's deadline") => (nothing, Then::Silence),
        // An answer to COPY, for which nobody has asked, and a type that there is not.
        "message out of place" => (message(b'G', &[0, 0, 0]), Then::Ready),
        "message of no type" => (message(b'q', b""), Then::Ready),
        "eof after a crash notice" => {
            let notice = complaint(b'N', "WARNING", "57P02", "quickdie");
            (notice, Then::HangUp)
        }
        name => panic!("nobody knows how to bring about {name}"),
    };
    // The first word of an answer, in place of the whole of it.
    let (speaks, patience) = match name {
        "caller's deadline while the server speaks" => (1, PATIENT),
        _ => (0, IMPATIENT),
    };
    let (at, after) = match moment {
        Moment::Commit if then == Then::Silence => (At::Query("COMMIT"), 0),
        Moment::Commit if name.ends_with("complete") => (At::Query("COMMIT"), UNTIL_COMMITTED),
        Moment::Commit => (At::Query("COMMIT"), 0),
        _ if then == Then::Silence => (At::ExecuteAgain, speaks),
        _ => (At::Execute, 0),
    };
    server.play(Some(Script {
        at,
        after,
        says,
        then,
    }));
    if then == Then::Silence {
        return impatient(backend, moment, patience).await;
    }
    let (outcome, conn) = provoke(backend, moment).await;
    (outcome, conn.unwrap())
}

/// A session that is not usable is not lent before it was cleaned, at the least.
fn is_usable(conn: &Conn) -> bool {
    conn.condition() == Condition::Clean
}

async fn differences(server: &Server, backend: &Postgres, row: &Row) -> Vec<String> {
    let mut wrong = Vec::new();
    for moment in row.moments() {
        let (found, conn) = match moment {
            Moment::Connecting => (Err(connecting(&row.name).await), None),
            Moment::BeforeWrite => {
                let (error, conn) = before_write(server, &row.name).await;
                (Err(error), conn)
            }
            _ => {
                let (found, conn) = after_write(server, backend, &row.name, moment).await;
                (found, Some(conn))
            }
        };
        let name = format!("{} {} {moment:?}", row.name, row.phase);
        if let Some(difference) = difference(&row.facts, moment, &found) {
            wrong.push(format!("{name}: {difference}"));
        }
        if let Err(error) = &found {
            let gives_up = row.facts.retry == "never" && moment == Moment::BeforeWrite;
            if gives_up && error.evidence() != Evidence::Neither {
                wrong.push(format!("{name}: would be repeated"));
            }
        }
        if let Some(conn) = conn {
            if !row.facts.usable && found.is_ok() {
                until_broken(&conn).await;
            }
            if is_usable(&conn) != row.facts.usable {
                wrong.push(format!("{name}: {:?}", conn.condition()));
            }
        }
    }
    wrong
}

/// Where the table is not followed. The reasons are in
/// `docs/decisions/0004-where-the-tables-of-failures-are-not-followed.md`.
fn amended(mut row: Row) -> Row {
    if row.name == "caller's deadline in silence" {
        row.facts.counts = true;
    }
    if row.name == "error response during startup" {
        // The row of 57P03.
        row.facts.retry = "statement".to_owned();
    }
    row
}

#[tokio::test]
async fn every_condition_has_the_class_that_its_row_says() {
    let plain = Server::start();
    let encrypted = Server::with_tls(Some(tls()));
    let mut wrong = Vec::new();
    for row in conditions() {
        if row.is_local() {
            continue;
        }
        let row = amended(row);
        let (server, mode) = if row.name.starts_with("tls") {
            (&encrypted, SslMode::Require)
        } else {
            (&plain, SslMode::Disable)
        };
        let backend = backend_at("127.0.0.1", server.port(), mode, LIMIT);
        wrong.extend(differences(server, &backend, &row).await);
    }
    assert_none(&wrong);
}
