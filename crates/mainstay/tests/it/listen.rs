//! LISTEN on a real server: what is heard, what is told of what was not, and what it holds.

use mainstay::{Database, Kind, ListenEvent, Listener};
use mainstay_testkit::cluster::Mode;
use mainstay_testkit::{Cluster, Proxy, TestDatabase, poll_times, wait_for};
use std::time::Duration;
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(60);

async fn fresh(connections: usize) -> (TestDatabase, Database) {
    let database = mainstay_testkit::database().await.unwrap();
    let db = open(&database.url(), connections).await;
    (database, db)
}

async fn open(url: &str, connections: usize) -> Database {
    Database::builder(url)
        .connection_limit(connections)
        .open()
        .await
        .unwrap()
}

async fn notify(db: &Database, channel: &str, payload: &str) {
    db.execute("select pg_notify($1, $2)", (channel, payload))
        .await
        .unwrap();
}

async fn next(listener: &mut Listener) -> ListenEvent {
    timeout(LIMIT, listener.next())
        .await
        .expect("nothing was heard")
        .unwrap()
        .expect("the listener ended")
}

/// The next event, which must be a notification: its channel and payload.
async fn heard(listener: &mut Listener) -> (String, String) {
    match next(listener).await {
        ListenEvent::Notification(said) => (said.channel, said.payload),
        other => panic!("{other:?} is no notification"),
    }
}

fn said(channel: &str, payload: &str) -> (String, String) {
    (channel.to_owned(), payload.to_owned())
}

/// Sessions that listen now, by what they said last.
async fn listening(database: &TestDatabase) -> String {
    let text = "select count(*) from pg_stat_activity where datname = current_database() \
                and query like 'LISTEN%'";
    database.psql(text).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_after_listen_is_heard_in_order() {
    let (_database, db) = fresh(3).await;
    let mut listener = db.listen(["orders", "Odd \"Name\""]).await.unwrap();
    notify(&db, "orders", "1").await;
    notify(&db, "somewhere else", "x").await;
    notify(&db, "Odd \"Name\"", "").await;
    db.execute("notify orders, '2'", ()).await.unwrap();
    assert_eq!(heard(&mut listener).await, said("orders", "1"));
    assert_eq!(heard(&mut listener).await, said("Odd \"Name\"", ""));
    assert_eq!(heard(&mut listener).await, said("orders", "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_backend_was_killed_comes_back_and_says_so() {
    let (database, db) = fresh(3).await;
    let mut listener = db.listen(["orders"]).await.unwrap();
    for round in 0..3 {
        database
            .psql(
                "select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%'",
            )
            .unwrap();
        match next(&mut listener).await {
            ListenEvent::Resubscribed { cause, .. } => {
                assert_eq!(cause.sqlstate(), Some("57P01"), "{cause:?}");
            }
            other => panic!("{other:?}"),
        }
        notify(&db, "orders", &round.to_string()).await;
        assert_eq!(
            heard(&mut listener).await,
            said("orders", &round.to_string())
        );
    }
    assert_eq!(db.status().leased(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_survives_a_restart_of_the_server() {
    let cluster = Cluster::start().unwrap();
    let db = open(&cluster.url(), 3).await;
    let mut listener = db.listen(["orders"]).await.unwrap();
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.stop(Mode::Immediate).unwrap();
        cluster.start_again().unwrap();
        cluster
    })
    .await
    .unwrap();
    let ListenEvent::Resubscribed { away, .. } = next(&mut listener).await else {
        panic!("it did not say so")
    };
    assert!(away > Duration::ZERO);
    notify(&db, "orders", "after").await;
    assert_eq!(heard(&mut listener).await, said("orders", "after"));
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_notices_a_peer_that_fell_silent() {
    let (database, direct) = fresh(2).await;
    let proxy = Proxy::start(("127.0.0.1", database.cluster().port()))
        .await
        .unwrap();
    let db = open(&proxy.rewrite(&database.url()), 3).await;
    let mut listener = db.listen(["orders"]).await.unwrap();
    proxy.black_hole().await.unwrap();
    // Nobody says that the connection is gone; the listener has to ask.
    wait_for("the listener to have noticed", LIMIT, || async {
        (proxy.accepted() > 2).then_some(())
    })
    .await
    .unwrap();
    notify(&direct, "orders", "missed").await;
    proxy.forward().await.unwrap();
    let event = next(&mut listener).await;
    assert!(
        matches!(event, ListenEvent::Resubscribed { .. }),
        "{event:?}"
    );
    notify(&direct, "orders", "heard").await;
    assert_eq!(heard(&mut listener).await, said("orders", "heard"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_told_how_much_it_missed() {
    let (_database, db) = fresh(4).await;
    let mut listener = db.listen(["flood"]).await.unwrap();
    let mut quick = db.listen(["flood"]).await.unwrap();
    let flood =
        "select count(pg_notify('flood', repeat('x', 7000) || n)) from generate_series(1, $1) n";
    let total = 5_000_u64;
    let mut gaps = 0;
    // As a rule once: what the one has read to its end, the other has heard as well.
    while gaps == 0 {
        db.execute(flood, (total as i64,)).await.unwrap();
        notify(&db, "flood", "the end").await;
        while !matches!(next(&mut quick).await, ListenEvent::Notification(said) if said.payload == "the end")
        {
        }
        let mut told = 0;
        while told < total + 1 {
            match next(&mut listener).await {
                ListenEvent::Notification(_) => told += 1,
                ListenEvent::Missed(count) => {
                    told += count;
                    gaps += 1;
                }
                other => panic!("a slow reader cost the connection: {other:?}"),
            }
        }
        assert_eq!(told, total + 1);
    }
    notify(&db, "flood", "and on").await;
    assert_eq!(heard(&mut listener).await, said("flood", "and on"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_listener_unlistens_and_gives_its_connection_back() {
    let (database, db) = fresh(2).await;
    for _ in 0..3 {
        let listener = db.listen(["orders"]).await.unwrap();
        assert_eq!(db.status().leased(), 1);
        drop(listener);
        wait_for("the connection to come back", LIMIT, || async {
            let status = db.status();
            (status.leased() == 0 && status.idle() == status.open()).then_some(())
        })
        .await
        .unwrap();
        assert_eq!(listening(&database).await, "0");
        let text = "select count(*) from pg_listening_channels()";
        let (one, two) = (db.acquire().await.unwrap(), db.acquire().await.unwrap());
        for lease in [one, two] {
            assert_eq!(lease.fetch_one::<i64>(text, ()).await.unwrap(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_a_listener_that_nobody_reads() {
    let (_database, db) = fresh(3).await;
    let mut listener = db.listen(["orders"]).await.unwrap();
    notify(&db, "orders", "last").await;
    assert_eq!(heard(&mut listener).await, said("orders", "last"));
    let report = timeout(LIMIT, db.close_within(LIMIT * 10)).await.unwrap();
    assert_eq!((report.cancelled, report.left), (0, 0), "{report:?}");
    assert!(listener.next().await.unwrap().is_none());
    assert!(listener.next().await.unwrap().is_none());
    let error = db.listen(["orders"]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_never_take_the_last_connection() {
    let (_database, db) = fresh(3).await;
    let one = db.listen(["a"]).await.unwrap();
    let _two = db.listen(["a"]).await.unwrap();
    let error = db.listen(["a"]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("connection_limit=3"), "{error}");
    // Statements still have one.
    assert_eq!(db.fetch_one::<i64>("select 1", ()).await.unwrap(), 1);
    drop(one);
    let _again = wait_for("the place of the dropped one", LIMIT, || async {
        db.listen(["b"]).await.ok()
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_heard_listening_is_refused() {
    let (database, _) = fresh(2).await;
    let pooled = open(&format!("{}?pgbouncer=true", database.url()), 3).await;
    let error = pooled.listen(["a"]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("pgbouncer"), "{error}");
    #[cfg(feature = "sqlite")]
    {
        let memory = Database::connect("file::memory:").await.unwrap();
        let error = memory.listen(["a"]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains("LISTEN"), "{error}");
    }
    let (_database, db) = fresh(2).await;
    for names in [vec![], vec![""], vec!["x"; 101]] {
        let error = db.listen(names).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
    }
    assert_eq!(db.status().leased(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_were_withdrawn_end_a_listener_with_the_reason() {
    let (database, _) = fresh(2).await;
    let role = format!("{}_ear", database.name());
    database
        .psql(&format!("create role {role} login password 'hunter2'"))
        .unwrap();
    let url = database.url();
    let (_, place) = url.split_once('@').unwrap();
    let db = open(&format!("postgres://{role}:hunter2@{place}"), 2).await;
    let mut listener = db.listen(["a"]).await.unwrap();
    database
        .psql(&format!(
            "alter role {role} nologin; select pg_terminate_backend(pid) from pg_stat_activity \
             where usename = '{role}'"
        ))
        .unwrap();
    let error = timeout(LIMIT, listener.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials, "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"));
    assert!(listener.next().await.unwrap().is_none());
    db.close_within(SECOND).await;
    database.psql(&format!("drop role {role}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn listening_dropped_at_any_poll_leaves_a_whole_pool_that_hears_nothing() {
    let (database, db) = fresh(2).await;
    for times in 0..40 {
        let finished = poll_times(db.listen(["orders"]), times).await;
        wait_for("the connection to come back", LIMIT, || async {
            let status = db.status();
            (status.leased() == 0 && status.idle() == status.open()).then_some(())
        })
        .await
        .unwrap();
        assert_eq!(listening(&database).await, "0", "after {times} polls");
        // The place of a listener is free as well: there is one.
        drop(db.listen(["orders"]).await.unwrap());
        if finished {
            return;
        }
    }
    panic!("it never finished");
}
