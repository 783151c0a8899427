//! Reads of a real standby: what was written before a read is there, whoever serves it.

use crate::failover::{Pair, port_of_a_read};
use futures_util::{FutureExt, StreamExt};
use mainstay::{Database, TransactionOptions, statement};
use mainstay_testkit::{Cluster, wait_for};
use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);
const INSERT: &str = "insert into log (id) values ($1)";
/// How a row was written, and where a reader finds it: both ports.
const WHERE: &str = "select at_port, inet_server_port() from log where id = $1";

async fn db(pair: &Pair, parameters: &str) -> Database {
    let url = pair.url(&format!(
        "read_from=replica&connection_limit=6&{parameters}"
    ));
    Database::connect(&url).await.unwrap()
}

async fn psql(cluster: &Cluster, text: &'static str) -> String {
    cluster
        .run(move |cluster| cluster.psql(text))
        .await
        .unwrap()
}

/// Waits until reads are served by this port.
async fn served_by(db: &Database, port: u16) {
    wait_for("reads to be served there", LONG, async || {
        (port_of_a_read(db).await == i64::from(port)).then_some(())
    })
    .await
    .unwrap();
}

/// Writes a row in one of the ways there are.
async fn write(db: &Database, id: i64) {
    match id % 7 {
        0 => drop(db.execute(INSERT, (id,)).await.unwrap()),
        1 => db
            .transaction(async |tx| tx.execute(INSERT, (id,)).await.map(drop))
            .await
            .unwrap(),
        2 => drop(db.batch([statement(INSERT, (id,))]).await.unwrap()),
        3 => {
            let options = TransactionOptions::default().exactly_once();
            db.transaction_with(options, async |tx| {
                tx.execute(INSERT, (id,)).await.map(drop)
            })
            .await
            .unwrap();
        }
        4 => {
            let lease = db.acquire().await.unwrap();
            let client = lease.as_postgres().unwrap().client();
            client.execute(INSERT, &[&id]).await.unwrap();
        }
        5 => {
            let returning = "insert into log (id) values ($1) returning id";
            let mut rows = std::pin::pin!(db.fetch::<i64>(returning, (id,)));
            while let Some(row) = rows.next().await {
                assert_eq!(row.unwrap(), id);
            }
        }
        _ => {
            let tx = db.begin().await.unwrap();
            tx.execute(INSERT, (id,)).await.unwrap();
            tx.commit().await.unwrap();
        }
    }
}

/// Reads a row that has just been written. Answers which port served it.
async fn assert_is_there(db: &Database, id: i64) -> i64 {
    let found: Option<(i64, i64)> = db.fetch_optional(WHERE, (id,)).await.unwrap();
    found
        .unwrap_or_else(|| panic!("row {id} was written and is not found"))
        .1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_finds_what_was_written_before_it_and_is_served_by_the_standby() {
    let pair = Pair::new().await;
    let db = db(&pair, "").await;
    let standby = i64::from(pair.standby.port());
    served_by(&db, pair.standby.port()).await;
    let workers = (0..4).map(|worker| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut by_standby = 0;
            for number in 0..70 {
                let id = worker * 1000 + number;
                write(&db, id).await;
                by_standby += i64::from(assert_is_there(&db, id).await == standby);
            }
            by_standby
        })
    });
    let by_standby: i64 = futures_util::future::join_all(workers)
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    assert!(by_standby > 0, "the standby has served none of 280 reads");
    // Everything was written on the primary.
    let ports: Vec<i64> = db
        .fetch_all("select distinct at_port from log", ())
        .await
        .unwrap();
    assert_eq!(ports, [i64::from(pair.primary.port())]);
    let names: Vec<_> = db.status().pools.iter().map(|pool| pool.lane).collect();
    assert_eq!(names, ["read", "write"]);
    let open: usize = db.status().pools.iter().map(|pool| pool.open).sum();
    assert!(open <= 6, "{open}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_native_client_writes_is_found_while_its_lease_is_out() {
    let pair = Pair::new().await;
    let db = db(&pair, "").await;
    served_by(&db, pair.standby.port()).await;
    let lease = db.acquire().await.unwrap();
    let client = lease.as_postgres().unwrap().client();
    for id in 0..50_i64 {
        client.execute(INSERT, &[&id]).await.unwrap();
        assert_is_there(&db, id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_standby_stands_still_the_primary_serves_what_it_lacks() {
    let pair = Pair::new().await;
    let db = db(&pair, "max_replica_lag=1s").await;
    served_by(&db, pair.standby.port()).await;
    psql(&pair.standby, "select pg_wal_replay_pause()").await;
    write(&db, 1).await;
    let begun = Instant::now();
    assert_eq!(
        assert_is_there(&db, 1).await,
        i64::from(pair.primary.port())
    );
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    let reading = TransactionOptions::default().read_only();
    let seen: i64 = db
        .transaction_with(reading, async |tx| {
            tx.fetch_one("select count(*) from log", ()).await
        })
        .await
        .unwrap();
    assert_eq!(seen, 1);
    let streamed: Vec<_> = db.fetch::<i64>("select id from log", ()).collect().await;
    assert_eq!(streamed.len(), 1);
    psql(&pair.standby, "select pg_wal_replay_resume()").await;
    served_by(&db, pair.standby.port()).await;
    assert_is_there(&db, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wrote_is_there_after_the_lag_at_the_latest() {
    let pair = Pair::new().await;
    let db = db(&pair, "max_replica_lag=1s").await;
    served_by(&db, pair.standby.port()).await;
    psql(&pair.standby, "select pg_wal_replay_pause()").await;
    psql(&pair.primary, "insert into log values (7, 0)").await;
    let written = Instant::now();
    let count = || db.fetch_one::<i64>("select count(*) from log", ());
    while count().await.unwrap() == 0 {
        assert!(
            written.elapsed() < SECOND * 2,
            "the standby is older than its bound"
        );
    }
    psql(&pair.standby, "select pg_wal_replay_resume()").await;
    served_by(&db, pair.standby.port()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_standby_reads_go_on_and_without_the_primary_as_well() {
    let pair = Pair::new().await;
    let db = db(&pair, "max_replica_lag=1s").await;
    served_by(&db, pair.standby.port()).await;
    write(&db, 1).await;
    pair.standby
        .run(|standby| standby.stop(mainstay_testkit::cluster::Mode::Fast))
        .await
        .unwrap();
    for id in 2..30 {
        write(&db, id).await;
        assert_eq!(
            assert_is_there(&db, id).await,
            i64::from(pair.primary.port())
        );
    }
    pair.standby.run(Cluster::start_again).await.unwrap();
    served_by(&db, pair.standby.port()).await;
    // Sessions with the primary that took its place are given up.
    let read_once = || async { port_of_a_read(&db).await == i64::from(pair.standby.port()) };
    wait_for("all reads to be there", LONG, async || {
        let reads = futures_util::future::join_all((0..9).map(|_| read_once()));
        reads.await.into_iter().all(|there| there).then_some(())
    })
    .await
    .unwrap();
    pair.primary
        .run(|primary| primary.stop(mainstay_testkit::cluster::Mode::Fast))
        .await
        .unwrap();
    let begun = Instant::now();
    while begun.elapsed() < SECOND * 4 {
        assert_eq!(port_of_a_read(&db).await, i64::from(pair.standby.port()));
    }
    assert!(!db.health().await.healthy, "nobody takes writes");
}

/// The servers that three read-only transactions run on that are open at once.
async fn ports_of_three(db: &Database) -> BTreeSet<i64> {
    let together = Barrier::new(3);
    let readers = (0..3).map(|_| {
        let reading = TransactionOptions::default().read_only();
        db.transaction_with(reading, async |tx| {
            let port: i64 = tx.fetch_one("select inet_server_port()", ()).await?;
            together.wait().await;
            Ok(port)
        })
    });
    let ports = futures_util::future::join_all(readers).await;
    ports.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_standbys_share_the_reads_and_either_may_stand_still_or_go() {
    let pair = Pair::new().await;
    let make = |primary: &Cluster| Cluster::builder().start_standby_of(primary);
    let second = pair.primary.run(make).await.unwrap();
    let three = [pair.primary.port(), pair.standby.port(), second.port()];
    let hosts = three.map(|port| format!("127.0.0.1:{port}")).join(",");
    let (user, password) = pair.primary.credentials();
    let parameters = "read_from=replica&connection_limit=8&max_replica_lag=1s";
    let url = format!("postgres://{user}:{password}@{hosts}/postgres?{parameters}");
    let db = Database::connect(&url).await.unwrap();

    let [_, one, two] = three.map(i64::from);
    let read_by = async |db: &Database, expected: &[i64]| {
        let expected = expected.iter().copied().collect::<BTreeSet<_>>();
        wait_for("reads to be served by all of them", LONG, async || {
            (ports_of_three(db).await == expected).then_some(())
        })
        .await
        .unwrap();
    };
    read_by(&db, &[one, two]).await;
    psql(&second, "select pg_wal_replay_pause()").await;
    for id in 0..70 {
        write(&db, id).await;
        assert_is_there(&db, id).await;
    }
    psql(&second, "select pg_wal_replay_resume()").await;
    read_by(&db, &[one, two]).await;
    second
        .run(|second| second.stop(mainstay_testkit::cluster::Mode::Immediate))
        .await
        .unwrap();
    for id in 70..140 {
        write(&db, id).await;
        assert_is_there(&db, id).await;
    }
    read_by(&db, &[one]).await;
    second.run(Cluster::start_again).await.unwrap();
    // Open sessions stay where they are; new ones are shared again.
    let fresh = Database::connect(&url).await.unwrap();
    read_by(&fresh, &[one, two]).await;
    assert_is_there(&db, 139).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_and_reads_go_on_when_the_standby_takes_over() {
    let pair = Pair::new().await;
    let db = db(&pair, "max_replica_lag=1s").await;
    served_by(&db, pair.standby.port()).await;
    write(&db, 1).await;
    wait_for("the standby to have it", LONG, async || {
        (psql(&pair.standby, "select count(*) from log").await == "1").then_some(())
    })
    .await
    .unwrap();
    pair.primary
        .run(|primary| primary.stop(mainstay_testkit::cluster::Mode::Immediate))
        .await
        .unwrap();
    pair.standby.run(Cluster::promote).await.unwrap();
    for id in [7, 14, 21] {
        write(&db, id).await;
        assert_eq!(
            assert_is_there(&db, id).await,
            i64::from(pair.standby.port())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_kept_and_not_polled_keeps_no_other() {
    let pair = Pair::new().await;
    let db = db(&pair, "").await;
    served_by(&db, pair.standby.port()).await;
    for polls in 1..6 {
        let id = polls * 7;
        write(&db, id).await;
        let mut kept = db.fetch_optional::<(i64, i64)>(WHERE, (id,)).into_future();
        for _ in 0..polls {
            if (&mut kept).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        assert_is_there(&db, id).await;
        assert!(begun.elapsed() < SECOND / 2, "{:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_dropped_anywhere_leaves_nothing_behind() {
    let pair = Pair::new().await;
    let db = db(&pair, "").await;
    served_by(&db, pair.standby.port()).await;
    for polls in 0..40 {
        write(&db, polls * 7).await;
        let mut read = db
            .fetch_optional::<(i64, i64)>(WHERE, (polls * 7,))
            .into_future();
        for _ in 0..polls {
            if (&mut read).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(read);
        assert_is_there(&db, polls * 7).await;
    }
    wait_for("everything to be given back", LONG, async || {
        let pools = db.status().pools;
        pools
            .iter()
            .all(|pool| pool.leased == 0 && pool.waiting == 0)
            .then_some(())
    })
    .await
    .unwrap();
}
