//! Several hosts, a real standby, a real promotion.

use futures_util::future::join_all;
use mainstay::{Database, Kind};
use mainstay_testkit::cluster::Mode;
use mainstay_testkit::{Cluster, Proxy, wait_for, wait_for_blocking};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

/// A primary and a standby that streams from it.
pub(crate) struct Pair {
    pub(crate) primary: Cluster,
    pub(crate) standby: Cluster,
}

impl Pair {
    pub(crate) async fn new() -> Self {
        let made = tokio::task::spawn_blocking(|| {
            let primary = Cluster::start().unwrap();
            primary
                .psql("create table log (id bigint primary key, at_port int not null default inet_server_port())")
                .unwrap();
            let standby = Cluster::builder().start_standby_of(&primary).unwrap();
            Self { primary, standby }
        });
        made.await.unwrap()
    }

    /// The standby first: the order of the URL must not matter.
    pub(crate) fn url(&self, parameters: &str) -> String {
        url(
            &self.primary,
            [self.standby.port(), self.primary.port()],
            parameters,
        )
    }

    async fn db(&self) -> Database {
        Database::builder(&self.url("connection_limit=6&connect_timeout=5"))
            .ride_through(SECOND * 5)
            .open()
            .await
            .unwrap()
    }
}

fn url(cluster: &Cluster, ports: [u16; 2], parameters: &str) -> String {
    let (user, password) = cluster.credentials();
    let [one, two] = ports;
    format!("postgres://{user}:{password}@127.0.0.1:{one},127.0.0.1:{two}/postgres?{parameters}")
}

/// The port of the server that serves a call.
pub(crate) async fn port_of_a_read(db: &Database) -> i64 {
    db.fetch_one("select inet_server_port()", ()).await.unwrap()
}

/// Writers that go on for as long as they are told to, each row with a number of its own. Answers what
/// was acknowledged, and when.
async fn write_on(db: Database, writer: i64, ends: Arc<AtomicBool>) -> Vec<(i64, Instant)> {
    let mut written = Vec::new();
    for number in 0.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let id = writer * 1_000_000 + number;
        let insert = "insert into log (id) values ($1)";
        let done = if number % 2 == 0 {
            db.execute(insert, (id,)).timeout(SECOND * 2).await
        } else {
            db.transaction(async |tx| tx.execute(insert, (id,)).await)
                .await
        };
        if done.is_ok() {
            written.push((id, Instant::now()));
        }
    }
    written
}

/// Waits until everything of the primary has arrived at the standby, so that a promotion loses nothing
/// by itself: that is the operator's part.
async fn caught_up(pair: &Pair) {
    wait_for("the standby to catch up", LONG, async || {
        (rows(&pair.primary).await == rows(&pair.standby).await).then_some(())
    })
    .await
    .unwrap();
}

async fn rows(cluster: &Cluster) -> u64 {
    let count = cluster.run(|cluster| cluster.psql("select count(*) from log"));
    count.await.unwrap().parse().unwrap()
}

/// Makes a server read-only by its own default. Its sessions stay open and answer; only their next write
/// is refused.
fn fence(server: &Cluster) {
    server
        .psql("alter system set default_transaction_read_only = on")
        .unwrap();
    server.psql("select pg_reload_conf()").unwrap();
    wait_for_blocking("the setting to be in force", LONG, || {
        (server.psql("show default_transaction_read_only").unwrap() == "on").then_some(())
    })
    .unwrap();
}

/// Runs writers through a failover. `demote` makes the old primary read-only; answers how long after
/// the promotion the first write was acknowledged.
async fn fail_over(demote: impl FnOnce(&Cluster) + Send + 'static) {
    let pair = Pair::new().await;
    let db = pair.db().await;
    let ends = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (1..=4)
        .map(|writer| tokio::spawn(write_on(db.clone(), writer, Arc::clone(&ends))))
        .collect();
    let primary = pair.primary.clone();
    wait_for("some rows", LONG, async || {
        (rows(&primary).await > 50).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(port_of_a_read(&db).await, i64::from(pair.primary.port()));
    let old = pair.primary.clone();
    tokio::task::spawn_blocking(move || demote(&old))
        .await
        .unwrap();
    let at_demotion = rows(&pair.primary).await;
    caught_up(&pair).await;
    pair.standby.run(Cluster::promote).await.unwrap();
    let promoted = Instant::now();
    let standby = pair.standby.clone();
    let before = rows(&standby).await;
    wait_for("writes to go on", LONG, async || {
        (rows(&standby).await > before + 50).then_some(())
    })
    .await
    .unwrap();
    ends.store(true, Ordering::Relaxed);
    let written: Vec<_> = join_all(writers)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    let first = written
        .iter()
        .map(|(_, at)| *at)
        .filter(|at| *at > promoted)
        .min()
        .unwrap();
    assert!(first - promoted <= SECOND * 2, "{:?}", first - promoted);
    // None reached the old one, and none that was acknowledged is missing on the new one.
    assert_eq!(rows(&pair.primary).await, at_demotion);
    for (id, _) in &written {
        let found: i64 = db
            .fetch_one("select count(*) from log where id = $1", (*id,))
            .await
            .unwrap();
        assert_eq!(found, 1, "{id}");
    }
    assert_eq!(port_of_a_read(&db).await, i64::from(pair.standby.port()));
    assert!(db.status().pools[0].open <= 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_within_two_seconds_when_the_old_primary_lives_on_in_recovery() {
    fail_over(|old| old.restart_in_recovery().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_within_two_seconds_when_the_old_primary_lives_on_read_only() {
    fail_over(fence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_to_write_is_asked_and_its_connections_are_not_lent_again() {
    let pair = Pair::new().await;
    let db = pair.db().await;
    let sleeps = (0..6).map(|_| {
        db.fetch_one::<i64>("select 1 from pg_sleep(0.2)", ())
            .into_future()
    });
    assert!(join_all(sleeps).await.iter().all(Result::is_ok));
    assert_eq!(db.status().pools[0].generation, 0);
    pair.primary
        .run(|primary| {
            fence(primary);
            Ok(())
        })
        .await
        .unwrap();
    let insert = db
        .execute("insert into log (id) values (1)", ())
        .timeout(SECOND * 2);
    assert!(insert.await.is_err());
    wait_for("a new generation", LONG, async || {
        (db.status().pools[0].generation > 0).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(rows(&pair.primary).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_falls_silent_does_not_keep_the_new_one_waiting() {
    let pair = Pair::new().await;
    let proxy = Proxy::start(("127.0.0.1", pair.primary.port()))
        .await
        .unwrap();
    let ports = [proxy.port(), pair.standby.port()];
    let db = Database::builder(&url(&pair.primary, ports, "connection_limit=4"))
        .ride_through(SECOND * 5)
        .open()
        .await
        .unwrap();
    db.execute("insert into log (id) values (1)", ())
        .await
        .unwrap();
    caught_up(&pair).await;
    proxy.black_hole().await.unwrap();
    // Somebody notices, and the pool starts to look for a primary.
    let lost = db
        .fetch_one::<i64>("select 1", ())
        .timeout(SECOND / 2)
        .await;
    assert!(lost.unwrap_err().is_timeout());
    pair.standby.run(Cluster::promote).await.unwrap();
    let promoted = Instant::now();
    loop {
        let write = db
            .execute("insert into log (id) values (2)", ())
            .timeout(SECOND * 2);
        match write.await {
            Ok(_) => break,
            Err(error) if error.is_outcome_unknown() => panic!("{error}"),
            Err(error) => assert!(promoted.elapsed() < SECOND * 10, "{error}"),
        }
    }
    assert!(promoted.elapsed() <= SECOND * 2, "{:?}", promoted.elapsed());
    assert_eq!(port_of_a_read(&db).await, i64::from(pair.standby.port()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_word_finds_its_server_and_says_when_there_is_none() {
    let pair = Pair::new().await;
    let (primary, standby) = (pair.primary.port(), pair.standby.port());
    for (word, expected) in [
        ("any", standby),
        ("read-write", primary),
        ("primary", primary),
        ("read-only", standby),
        ("standby", standby),
        ("prefer-standby", standby),
    ] {
        // With and without a setting of the lane, and behind a pooler where nothing is reported.
        for more in ["connection_limit=4", "connection_limit=1", "pgbouncer=true"] {
            let url = pair.url(&format!("target_session_attrs={word}&{more}"));
            let db = Database::connect(&url).await.unwrap();
            assert_eq!(
                port_of_a_read(&db).await,
                i64::from(expected),
                "{word} {more}"
            );
        }
    }
    pair.standby
        .run(|standby| standby.stop(Mode::Fast))
        .await
        .unwrap();
    let db = Database::connect(&pair.url("target_session_attrs=prefer-standby"))
        .await
        .unwrap();
    assert_eq!(port_of_a_read(&db).await, i64::from(primary));
    let error = Database::connect(&pair.url("target_session_attrs=standby"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    let text = error.to_string();
    assert!(
        text.contains("takes writes") && text.contains("refused"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_was_begun_read_only_is_no_demotion() {
    let pair = Pair::new().await;
    let db = pair.db().await;
    let generation = db.status().pools[0].generation;
    let options = mainstay::TransactionOptions::new().read_only();
    let error = db
        .transaction_with(options, async |tx| {
            tx.execute("insert into log (id) values (1)", ()).await
        })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::ReadOnly);
    assert_eq!(db.status().pools[0].generation, generation);
    db.execute("insert into log (id) values (1)", ())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_host_of_two_is_asked_once_and_moves_no_gate() {
    let server = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let server = server.unwrap();
    let dead = Proxy::start(("127.0.0.1", server.port())).await.unwrap();
    dead.black_hole().await.unwrap();
    let url = url(
        &server,
        [dead.port(), server.port()],
        "connection_limit=6&connect_timeout=4",
    );
    let db = Database::builder(&url)
        .ride_through(Duration::ZERO)
        .open()
        .await
        .unwrap();
    assert_eq!(dead.accepted(), 1);
    let leases = join_all((0..6).map(|_| db.acquire())).await;
    for lease in leases {
        let lease = lease.unwrap();
        assert_eq!(lease.fetch_one::<i64>("select 7", ()).await.unwrap(), 7);
    }
    assert_eq!(db.status().pools[0].opened, 6);
    assert_eq!(dead.accepted(), 1, "those who came later asked it as well");
    let breaker = db.status().breaker;
    assert_eq!((breaker.state, breaker.times_opened), ("closed", 0));
    assert_eq!(breaker.connect.times_opened, 0);
}
