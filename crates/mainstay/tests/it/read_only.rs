//! Who says that a session may not write (its role, its database, its server, a standby) is obeyed on
//! every way on which a write can travel: an error that names the reason, nothing written, nobody
//! asked twice.

use mainstay::{Class, Database, Error, Evidence, Kind, TransactionOptions, statement};
use mainstay_testkit::{Cluster, Pooler, TestDatabase, wait_for};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: u64 = 4;
const WRITE: &str = "insert into log values ('x')";
/// Nothing tells before it runs that it writes.
const HIDDEN: &str = "with w as (insert into log values ('x') returning 1) select 1 from w";

/// Opens a handle that counts its own steps only, and whose breaker opens at the first reason.
async fn open(url: &str, parameters: &str) -> Database {
    Database::builder(&format!("{url}?{parameters}"))
        .ride_through(Duration::ZERO)
        .open()
        .await
        .unwrap()
}

/// A database with a table to write to.
async fn fresh() -> TestDatabase {
    let database = mainstay_testkit::database().await.unwrap();
    database.psql("create table log (what text)").unwrap();
    database
}

/// One write on each way there is, with its name.
async fn write_on_every_way(db: &Database) -> Vec<(&'static str, Result<(), Error>)> {
    let in_transaction = async |options: TransactionOptions| {
        let write = async |tx: mainstay::Tx| tx.execute(WRITE, ()).await.map(drop);
        db.transaction_with(options, write).await
    };
    let by_hand = async {
        let tx = db.begin().await?;
        let written = tx.execute(WRITE, ()).await;
        tx.rollback().await?;
        written.map(drop)
    };
    let leased = db.with_connection(async |lease| lease.execute(WRITE, ()).await.map(drop));
    let exactly_once = TransactionOptions::new()
        .exactly_once()
        .timeout(SECOND * 20);
    vec![
        ("execute", db.execute(WRITE, ()).await.map(drop)),
        ("fetch", db.fetch_one::<i64>(HIDDEN, ()).await.map(drop)),
        (
            "write()",
            db.fetch_one::<i64>(HIDDEN, ()).write().await.map(drop),
        ),
        ("batch", db.batch([statement(WRITE, ())]).await.map(drop)),
        (
            "transaction",
            in_transaction(TransactionOptions::new()).await,
        ),
        (
            "serializable",
            in_transaction(TransactionOptions::serializable()).await,
        ),
        ("exactly_once", in_transaction(exactly_once).await),
        ("begin", by_hand.await),
        ("with_connection", leased.await),
    ]
}

/// Every write is refused for this reason, nothing is written, reads go on, and no connection is
/// opened, and nobody stopped, because of it.
async fn refuses_every_write(db: &Database, reason: &str) {
    // Reads and writes one after the other change the session's setting to and fro.
    for _ in 0..3 {
        for (way, outcome) in write_on_every_way(db).await {
            let error = outcome.expect_err(way);
            if way == "serializable" && reason == STANDBY {
                // It has no such transactions at all, and says so when they begin.
                assert_eq!(error.sqlstate(), Some("0A000"), "{error}");
                continue;
            }
            assert_eq!(error.kind(), Kind::ReadOnly, "{way}: {error}");
            assert_eq!(
                (error.class(), error.evidence()),
                (Class::Permanent, Evidence::Answered),
                "{way}: {error:?}"
            );
            assert!(error.to_string().contains(reason), "{way}: {error}");
            let count: i64 = db.fetch_one("select count(*) from log", ()).await.unwrap();
            assert_eq!(count, 0, "{way} has written");
        }
    }
    assert!(db.status().pools[0].opened <= LIMIT, "{:?}", db.status());
    let breaker = db.status().breaker;
    assert_eq!((breaker.state, breaker.times_opened), ("closed", 0));
}

/// Every write is taken.
async fn takes_every_write(db: &Database) {
    for (way, outcome) in write_on_every_way(db).await {
        assert!(outcome.is_ok(), "{way}: {outcome:?}");
    }
}

const STANDBY: &str = "standby";
const BY_DEFAULT: &str = "read-only by default";

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_read_only_by_default_does_not_write_on_any_way() {
    let database = fresh().await;
    let role = format!("careful_{}", std::process::id());
    database
        .psql(&format!(
            "create role {role} login password 'p'; grant all on log to {role}; \
             grant all on schema public to {role}; \
             alter role {role} set default_transaction_read_only = on"
        ))
        .unwrap();
    let url = database.url();
    let (_, place) = url.split_once('@').unwrap();
    for limit in [1, LIMIT] {
        let url = format!("postgres://{role}:p@{place}");
        let db = open(&url, &format!("connection_limit={limit}")).await;
        refuses_every_write(&db, BY_DEFAULT).await;
        // The way out that the error names.
        db.transaction(async |tx| {
            tx.execute("set local transaction_read_only = off", ())
                .await?;
            tx.execute(WRITE, ()).await.map(drop)
        })
        .await
        .unwrap();
        db.close().await;
        assert_eq!(database.psql("select count(*) from log").unwrap(), "1");
        database.psql("truncate log").unwrap();
    }
    database
        .psql(&format!("drop owned by {role}; drop role {role}"))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_read_only_by_default_is_not_written_to() {
    let database = fresh().await;
    let name = database.name();
    database
        .psql(&format!(
            "alter database \"{name}\" set default_transaction_read_only = on"
        ))
        .unwrap();
    let db = open(&database.url(), &format!("connection_limit={LIMIT}")).await;
    refuses_every_write(&db, BY_DEFAULT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_its_user_wants_read_only_does_not_write() {
    let database = fresh().await;
    let options = "options=-c%20default_transaction_read_only%3Don";
    let db = open(
        &database.url(),
        &format!("connection_limit={LIMIT}&{options}"),
    )
    .await;
    refuses_every_write(&db, BY_DEFAULT).await;
}

async fn make_read_only(server: &Cluster, value: &'static str) {
    let made = server.run(move |server| {
        server.psql(&format!(
            "alter system set default_transaction_read_only = {value}"
        ))?;
        server.psql("select pg_reload_conf()")
    });
    made.await.unwrap();
    let shown = async || {
        let shown = server.run(|server| server.psql("show default_transaction_read_only"));
        (shown.await.unwrap() == value).then_some(())
    };
    wait_for("the setting to be in force", SECOND * 60, shown)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_made_read_only_takes_no_more_writes_and_takes_them_again_afterwards() {
    let server = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let server = server.unwrap();
    let set_up = server.run(|server| server.psql("create table log (what text)"));
    set_up.await.unwrap();
    let db = open(&server.url(), &format!("connection_limit={LIMIT}")).await;
    takes_every_write(&db).await;
    db.execute("truncate log", ()).await.unwrap();
    let before = db.status().pools[0].opened;
    make_read_only(&server, "on").await;
    // Sessions that were open see it as well as new ones: each was replaced once at most.
    wait_for(
        "the last session that wrote to be gone",
        SECOND * 60,
        async || {
            let refused = db.execute(WRITE, ()).await.is_err();
            if !refused {
                db.execute("truncate log", ()).await.unwrap();
            }
            refused.then_some(())
        },
    )
    .await
    .unwrap();
    for (way, outcome) in write_on_every_way(&db).await {
        assert_eq!(outcome.expect_err(way).kind(), Kind::ReadOnly, "{way}");
    }
    let count: i64 = db.fetch_one("select count(*) from log", ()).await.unwrap();
    assert_eq!(count, 0);
    make_read_only(&server, "off").await;
    wait_for("a session that writes", SECOND * 60, async || {
        db.execute(WRITE, ()).await.ok()
    })
    .await
    .unwrap();
    takes_every_write(&db).await;
    let after = db.status().pools[0].opened;
    assert!(after - before <= 2 * LIMIT, "{before} to {after}");
    assert_eq!(db.status().breaker.times_opened, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_nobody_called_one_refuses_every_write_and_serves_reads() {
    let made = tokio::task::spawn_blocking(|| {
        let primary = Cluster::start().unwrap();
        primary.psql("create table log (what text)").unwrap();
        let standby = Cluster::builder().start_standby_of(&primary).unwrap();
        (primary, standby)
    });
    let (_primary, standby) = made.await.unwrap();
    for limit in [1, LIMIT] {
        let db = open(&standby.url(), &format!("connection_limit={limit}")).await;
        refuses_every_write(&db, STANDBY).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_the_servers_default_holds_as_well() {
    let database = fresh().await;
    let (user, name) = (database.cluster().credentials().0, database.name());
    database
        .psql(&format!(
            "alter role {user} in database \"{name}\" set default_transaction_read_only = on"
        ))
        .unwrap();
    let start = |cluster: &_| Pooler::start(cluster, &[]);
    let pooler = database.cluster().run(start).await.unwrap();
    let url = pooler.url_for(name);
    let db = open(&url, &format!("pgbouncer=true&connection_limit={LIMIT}")).await;
    refuses_every_write(&db, "default_transaction_read_only").await;
}
