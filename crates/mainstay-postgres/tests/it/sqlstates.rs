//! Every SQLSTATE, in every severity and at every moment at which it can come: a row, a case.

use crate::failure_table::{Code, IN_A_SESSION, Moment, assert_none, codes, difference};
use crate::fixture::*;
use crate::scripted::{ALL, At, Script, Server, Then, UNTIL_COMMITTED, complaint};
use mainstay_core::Error;
use mainstay_core::backend::{Backend, Condition, Lane};
use mainstay_core::config::PostgresTarget;
use mainstay_postgres::Postgres;

const TEXT: &str = "update t set a = 1";

pub(crate) fn backend_of(server: &Server) -> Postgres {
    let target = PostgresTarget::new(tcp("127.0.0.1", server.port()), "app", "shop");
    backend_with(&target, |_| {})
}

impl Code {
    /// The SQLSTATE that is sent; a row for many is tried with one of them.
    fn sent(&self) -> &str {
        match &*self.name {
            "*:panic" => "XX000",
            "*:fatal" => "42501",
            "*:fatal_after_commandcomplete" => "57P01",
            "*:unknown_class" => "ZZ999",
            name => name.split(':').next().unwrap(),
        }
    }

    /// When a server can say it.
    fn moments(&self) -> Vec<Moment> {
        match (&*self.name, &*self.facts.rolled_back) {
            ("*:fatal_after_commandcomplete", _) => vec![Moment::Commit],
            // It comes while nothing is asked.
            ("57P05", _) => vec![Moment::BeforeWrite],
            (_, "n/a") if self.severity == "FATAL" => vec![Moment::Connecting],
            _ => IN_A_SESSION.to_vec(),
        }
    }

    pub(crate) fn is_met_in_a_session(&self) -> bool {
        self.moments().contains(&Moment::Transaction)
    }

    pub(crate) fn says(&self) -> Vec<u8> {
        let routine = self.name.split(':').nth(1).unwrap_or("Scripted");
        let tag = match &*self.severity {
            "NOTICE" | "WARNING" => b'N',
            _ => b'E',
        };
        complaint(tag, &self.severity, self.sent(), routine)
    }

    fn script(&self, moment: Moment) -> Script {
        let then = match &*self.severity {
            "FATAL" | "PANIC" => Then::HangUp,
            "NOTICE" | "WARNING" if self.facts.usable => Then::GoOn,
            "WARNING" => Then::HangUp,
            _ => Then::Ready,
        };
        let (at, after) = match moment {
            Moment::Connecting => (At::Startup, 0),
            Moment::BeforeWrite => (At::Execute, ALL),
            Moment::Commit if self.name.ends_with("after_commandcomplete") => {
                (At::Query("COMMIT"), UNTIL_COMMITTED)
            }
            Moment::Commit => (At::Query("COMMIT"), 0),
            _ => (At::Execute, 0),
        };
        Script {
            at,
            after,
            says: self.says(),
            then,
        }
    }
}

/// Waits until a session has noticed that it was ended.
pub(crate) async fn until_broken(conn: &Conn) {
    mainstay_testkit::wait_for("the end to be noticed", LIMIT, async || {
        (conn.condition() == Condition::Broken).then_some(())
    })
    .await
    .unwrap();
}

/// Opens a session and does what meets the script at this moment.
pub(crate) async fn provoke(
    backend: &Postgres,
    moment: Moment,
) -> (Result<(), Error>, Option<Conn>) {
    let lane = if moment == Moment::Read {
        Lane::Read
    } else {
        Lane::Write
    };
    let conn = match backend.connect(lane, deadline()).await {
        Ok(conn) => conn,
        Err(error) => return (Err(error), None),
    };
    let outcome = match moment {
        Moment::Connecting => Ok(()),
        Moment::Read | Moment::Write => execute(&conn, TEXT, call(lane)).await.map(drop),
        Moment::BeforeWrite => {
            execute(&conn, TEXT, write()).await.unwrap();
            until_broken(&conn).await;
            execute(&conn, TEXT, write()).await.map(drop)
        }
        Moment::Transaction => {
            conn.begin(begin(), write()).await.unwrap();
            execute(&conn, TEXT, write()).await.map(drop)
        }
        Moment::Commit => {
            conn.begin(begin(), write()).await.unwrap();
            execute(&conn, TEXT, write()).await.unwrap();
            conn.commit(write()).await
        }
    };
    (outcome, Some(conn))
}

/// A usable session is at rest, once its transaction is rolled back, and works.
async fn is_usable(conn: &Conn, moment: Moment) -> bool {
    if conn.condition() == Condition::Broken {
        return false;
    }
    if moment == Moment::Transaction {
        conn.roll_back(write()).await.unwrap();
    }
    execute(conn, "select 1", call(conn.lane())).await.is_ok()
        && conn.condition() == Condition::Clean
}

async fn differences(server: &Server, backend: &Postgres, code: &Code) -> Vec<String> {
    let mut wrong = Vec::new();
    for moment in code.moments() {
        server.play(Some(code.script(moment)));
        let (found, conn) = provoke(backend, moment).await;
        let name = format!("{} {} {moment:?}", code.severity, code.name);
        if let Some(difference) = difference(&code.facts, moment, &found) {
            wrong.push(format!("{name}: {difference}"));
        }
        if let Err(error) = &found
            && error.sqlstate() != Some(code.sent())
        {
            wrong.push(format!("{name}: the code is lost in {error:?}"));
        }
        if let Some(conn) = conn {
            if !code.facts.usable && found.is_ok() {
                until_broken(&conn).await;
            }
            let usable = is_usable(&conn, moment).await;
            if usable != code.facts.usable {
                wrong.push(format!("{name}: usable {usable}"));
            }
        }
    }
    wrong
}

/// Where the table is not followed, and the classes that are given instead. The reasons are in
/// `docs/decisions/0004-where-the-tables-of-failures-are-not-followed.md`.
pub(crate) fn amended(mut code: Code) -> Code {
    match &*code.name {
        "25006" => code.facts.retry = "never".to_owned(),
        "F0000" | "F0001" => code.facts.counts = true,
        _ => {}
    }
    code
}

#[tokio::test]
async fn every_code_has_the_class_that_its_row_says() {
    let server = Server::start();
    let backend = backend_of(&server);
    let mut wrong = Vec::new();
    for code in codes() {
        wrong.extend(differences(&server, &backend, &amended(code)).await);
    }
    assert_none(&wrong);
}

#[tokio::test]
async fn a_farewell_between_two_statements_of_a_transaction_has_the_class_of_its_row() {
    let server = Server::start();
    let backend = backend_of(&server);
    let mut wrong = Vec::new();
    let ends = |code: &Code| ["25P03", "25P04", "57P01", "57P04"].contains(&&*code.name);
    for code in codes().into_iter().filter(ends) {
        for moment in [Moment::Transaction, Moment::Commit] {
            server.play(Some(Script {
                at: At::Query("BEGIN"),
                after: ALL,
                says: code.says(),
                then: Then::HangUp,
            }));
            let conn = backend.connect(Lane::Write, deadline()).await.unwrap();
            conn.begin(begin(), write()).await.unwrap();
            until_broken(&conn).await;
            let found = if moment == Moment::Commit {
                conn.commit(write()).await
            } else {
                execute(&conn, TEXT, write()).await.map(drop)
            };
            if let Some(difference) = difference(&code.facts, moment, &found) {
                wrong.push(format!("{} {moment:?}: {difference}", code.name));
            }
        }
    }
    assert_none(&wrong);
}
