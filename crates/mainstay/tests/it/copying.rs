//! COPY through a lease, on a real server.

use futures_util::{StreamExt, TryStreamExt};
use mainstay::{CopyIn, Database, Kind, Lease};
use mainstay_testkit::proxy::Direction;
use mainstay_testkit::{Proxy, TestDatabase, poll_times, wait_for};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

async fn fresh() -> (TestDatabase, Database) {
    let database = mainstay_testkit::database().await.unwrap();
    let db = Database::builder(&database.url())
        .connection_limit(2)
        .open()
        .await
        .unwrap();
    db.execute("create table t (id int primary key, name text)", ())
        .await
        .unwrap();
    (database, db)
}

async fn count(db: &Database) -> i64 {
    db.fetch_one("select count(*) from t", ()).await.unwrap()
}

/// Nobody holds anything, nothing runs, and both connections answer to their own questions.
async fn is_whole(db: &Database) {
    wait_for("the connections to come back", LIMIT, || async {
        let status = db.status();
        (status.leased() == 0 && status.idle() == status.open()).then_some(())
    })
    .await
    .unwrap();
    let (one, two) = (db.acquire().await.unwrap(), db.acquire().await.unwrap());
    for (number, lease) in [one, two].into_iter().enumerate() {
        let number = number as i64;
        let answer: i64 = lease.fetch_one("select $1::int8", (number,)).await.unwrap();
        assert_eq!(answer, number);
        let state: i64 = lease
            .fetch_one("select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'", ())
            .await
            .unwrap();
        assert_eq!(state, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_in_comes_out_again() {
    let (_database, db) = fresh().await;
    let lease = db.acquire().await.unwrap();
    let mut copy = lease
        .copy_in("copy t from stdin (format csv)")
        .await
        .unwrap();
    // Cut anywhere, in pieces of any size, one far larger than any buffer.
    copy.send("1,o").await.unwrap();
    copy.send("ne\n2,two\n").await.unwrap();
    let many: String = (3..200_003)
        .map(|id| format!("{id},name of {id}\n"))
        .collect();
    copy.send(many.clone()).await.unwrap();
    copy.send("").await.unwrap();
    assert_eq!(copy.bytes(), 12 + many.len() as u64);
    assert_eq!(copy.finish().await.unwrap(), 200_002);
    assert_eq!(count(&db).await, 200_002);

    let text = "copy (select * from t order by id) to stdout (format csv)";
    let mut copy = lease.copy_out(text).await.unwrap();
    let mut out = Vec::new();
    while let Some(piece) = copy.next().await.unwrap() {
        out.extend_from_slice(&piece);
    }
    assert_eq!(copy.bytes(), out.len() as u64);
    assert!(copy.next().await.unwrap().is_none());
    drop(copy);
    assert!(out == format!("1,one\n2,two\n{many}").into_bytes());
    // The lease goes on as if nothing had been.
    assert_eq!(lease.fetch_one::<i64>("select 7", ()).await.unwrap(), 7);
    drop(lease);
    is_whole(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_database_is_forwarded_into_another() {
    let (_one, from) = fresh().await;
    let (_two, to) = fresh().await;
    from.execute(
        "insert into t select n, 'x' from generate_series(1, 10000) n",
        (),
    )
    .await
    .unwrap();
    let (out, into) = (from.acquire().await.unwrap(), to.acquire().await.unwrap());
    let source = out
        .copy_out("copy t to stdout (format binary)")
        .await
        .unwrap();
    let sink = into
        .copy_in("copy t from stdin (format binary)")
        .await
        .unwrap();
    source.forward(sink).await.unwrap();
    assert_eq!(count(&to).await, 10_000);
    drop((out, into));
    is_whole(&from).await;
    is_whole(&to).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_inside_a_transaction_belongs_to_it() {
    let (_database, db) = fresh().await;
    let lease = db.acquire().await.unwrap();
    for (end, expected) in [("rollback", 0), ("commit", 1)] {
        lease.execute("begin", ()).await.unwrap();
        let mut copy = lease.copy_in("copy t from stdin").await.unwrap();
        copy.send("1\tone\n").await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), 1);
        lease.execute(end, ()).await.unwrap();
        assert_eq!(count(&db).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_dropped_in_the_middle_did_not_happen() {
    let (_database, db) = fresh().await;
    for rows in [0, 1, 100_000] {
        let lease = db.acquire().await.unwrap();
        let mut copy = lease.copy_in("copy t from stdin").await.unwrap();
        for id in 0..rows {
            copy.send(format!("{id}\tx\n")).await.unwrap();
        }
        drop(copy);
        // The same lease may go on.
        assert_eq!(lease.fetch_one::<i64>("select 7", ()).await.unwrap(), 7);
        drop(lease);
        is_whole(&db).await;
        assert_eq!(count(&db).await, 0);
    }
    db.execute(
        "insert into t select n, repeat('x', 1000) from generate_series(1, 100000) n",
        (),
    )
    .await
    .unwrap();
    let lease = db.acquire().await.unwrap();
    let mut copy = lease.copy_out("copy t to stdout").await.unwrap();
    copy.next().await.unwrap().unwrap();
    drop((copy, lease));
    is_whole(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_in_the_middle_is_told_while_sending() {
    let (_database, db) = fresh().await;
    for (first, kind) in [
        ("1\ta\n1\tb\n", Kind::Unique),
        ("secret-value\ta\n", Kind::Statement),
    ] {
        let lease = db.acquire().await.unwrap();
        let mut copy = lease.copy_in("copy t from stdin").await.unwrap();
        copy.send(first).await.unwrap();
        // Far more than would ever be sent if nobody noticed.
        let error = loop {
            if let Err(error) = copy.send("7\tc\n".repeat(10_000)).await {
                break error;
            }
            assert!(
                copy.bytes() < 10_000_000_000,
                "nobody said that it was refused"
            );
        };
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(!format!("{error:?}").contains("secret-value"));
        assert!(copy.send("more").await.is_err());
        assert!(copy.finish().await.is_err());
        assert_eq!(lease.fetch_one::<i64>("select 7", ()).await.unwrap(), 7);
        drop(lease);
        is_whole(&db).await;
        assert_eq!(count(&db).await, 0);
    }
    // The same at the end.
    let lease = db.acquire().await.unwrap();
    let mut copy = lease.copy_in("copy t from stdin").await.unwrap();
    copy.send("1\ta\n1\tb\n").await.unwrap();
    assert_eq!(copy.finish().await.unwrap_err().kind(), Kind::Unique);
    drop(lease);
    is_whole(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_does_not_begin_gives_nobody_elses_answer_to_anybody() {
    let (_database, db) = fresh().await;
    for text in ["copy nowhere from stdin", "copy t (nothing) from stdin"] {
        for _ in 0..20 {
            let lease = db.acquire().await.unwrap();
            let error = lease.copy_in(text).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Statement, "{error:?}");
            // What is asked next on this lease gets an error and never a wrong answer.
            let after = lease.fetch_one::<i64>("select 8", ()).await.unwrap_err();
            assert_eq!(after.class(), mainstay::Class::NotSent, "{after:?}");
            drop(lease);
            is_whole(&db).await;
        }
    }
    // What costs nothing: wrong syntax, and an outgoing one.
    let lease = db.acquire().await.unwrap();
    for text in [
        "copy t from stdin (format nothing)",
        "copy t from stdin where",
    ] {
        assert!(lease.copy_in(text).await.is_err(), "{text}");
        if lease.fetch_one::<i64>("select 7", ()).await.is_err() {
            break;
        }
    }
    let lease = db.acquire().await.unwrap();
    let error = lease.copy_out("copy nowhere to stdout").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Statement);
    assert_eq!(lease.fetch_one::<i64>("select 7", ()).await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_native_clients_refused_copy_does_not_reach_the_next_user() {
    let (_database, db) = fresh().await;
    for _ in 0..20 {
        let lease = db.acquire().await.unwrap();
        let client = lease.as_postgres().unwrap().client();
        let copy = client
            .copy_in::<_, bytes::Bytes>("copy nowhere from stdin")
            .await;
        assert!(copy.is_err());
        drop(lease);
        is_whole(&db).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_copy_through_the_connection_is_one() {
    let (database, db) = fresh().await;
    let lease = db.acquire().await.unwrap();
    for text in ["select 1", "copy t to stdout", "copy t from '/tmp/x'", ""] {
        assert_eq!(
            lease.copy_in(text).await.unwrap_err().kind(),
            Kind::Statement,
            "{text}"
        );
    }
    for text in ["select 1", "copy t from stdin", "copy t to '/tmp/x'"] {
        assert_eq!(
            lease.copy_out(text).await.unwrap_err().kind(),
            Kind::Statement,
            "{text}"
        );
    }
    assert_eq!(lease.fetch_one::<i64>("select 7", ()).await.unwrap(), 7);
    let error = db.execute("copy t from stdin", ()).await.unwrap_err();
    assert!(error.to_string().contains("copy_in"), "{error}");
    let pooled = Database::connect(&format!("{}?pgbouncer=true", database.url()))
        .await
        .unwrap();
    let lease = pooled.acquire().await.unwrap();
    let error = lease.copy_in("copy t from stdin").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    #[cfg(feature = "sqlite")]
    {
        let memory = Database::connect("file::memory:").await.unwrap();
        let lease = memory.acquire().await.unwrap();
        let error = lease.copy_out("copy t to stdout").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert_eq!(lease.fetch_one::<i64>("select 7", ()).await.unwrap(), 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_is_sent_while_a_copy_has_the_connection() {
    let (_database, db) = fresh().await;
    let lease = db.acquire().await.unwrap();
    let mut copy = lease.copy_in("copy t from stdin").await.unwrap();
    for error in [
        lease.fetch_one::<i64>("select 1", ()).await.unwrap_err(),
        lease.script("select 1").await.unwrap_err(),
        lease.copy_out("copy t to stdout").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("COPY is under way"), "{error}");
    }
    copy.send("1\ta\n").await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 1);
    assert_eq!(lease.fetch_one::<i64>("select 1", ()).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_lost_before_its_end_did_not_happen_and_after_it_nobody_knows() {
    let (database, direct) = fresh().await;
    let proxy = Proxy::start(("127.0.0.1", database.cluster().port()))
        .await
        .unwrap();
    let db = Database::builder(&proxy.rewrite(&database.url()))
        .connection_limit(2)
        .open()
        .await
        .unwrap();
    let begin = async |lease: &Lease| -> CopyIn {
        let mut copy = lease.copy_in("copy t from stdin").await.unwrap();
        copy.send("1\ta\n").await.unwrap();
        copy
    };
    let lease = db.acquire().await.unwrap();
    let mut copy = begin(&lease).await;
    proxy.cut_all().await;
    let error = loop {
        if let Err(error) = copy.send("x".repeat(100_000)).await {
            break error;
        }
    };
    assert_eq!(error.class(), mainstay::Class::RolledBack, "{error:?}");
    assert_eq!(count(&direct).await, 0);
    drop((copy, lease));

    let lease = db.acquire().await.unwrap();
    let copy = begin(&lease).await;
    proxy.cut_after(0, Direction::FromTarget);
    let error = copy.finish().await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error:?}");
    wait_for(
        "the rows of the copy whose answer was lost",
        LIMIT,
        || async { (count(&direct).await == 1).then_some(()) },
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_take_the_data_is_not_waited_for_for_ever() {
    let (_database, db) = fresh().await;
    let other = db.begin().await.unwrap();
    other
        .execute("lock table t in access exclusive mode", ())
        .await
        .unwrap();
    let impatient = db.with_deadline(tokio::time::Instant::now() + Duration::from_secs(1));
    let lease = impatient.acquire().await.unwrap();
    let error = lease.copy_in("copy t from stdin").await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    drop(lease);
    other.rollback().await.unwrap();
    is_whole(&db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_dropped_at_any_poll_leaves_a_whole_pool() {
    let (_database, db) = fresh().await;
    db.execute(
        "insert into t select n, 'x' from generate_series(-100, -1) n",
        (),
    )
    .await
    .unwrap();
    let into = async || {
        let lease = db.acquire().await.unwrap();
        let mut copy = lease.copy_in("copy t from stdin").await.unwrap();
        copy.send("1\tone\n").await.unwrap();
        copy.send("2\ttwo\n".to_owned() + &"3\tx\n".repeat(10_000))
            .await
            .ok(); // refused, or not yet
        copy.finish().await.ok(); // refused
    };
    let out_of = async || {
        let lease = db.acquire().await.unwrap();
        let copy = lease.copy_out("copy t to stdout").await.unwrap();
        let _: Vec<_> = copy.try_collect().await.unwrap();
    };
    let refused = async || {
        let lease = db.acquire().await.unwrap();
        lease.copy_in("copy nowhere from stdin").await.unwrap_err();
    };
    let mut finished = [false; 3];
    for times in 0..100 {
        finished[0] = finished[0] || poll_times(into(), times).await;
        is_whole(&db).await;
        finished[1] = finished[1] || poll_times(out_of(), times).await;
        is_whole(&db).await;
        finished[2] = finished[2] || poll_times(refused(), times).await;
        is_whole(&db).await;
        assert_eq!(count(&db).await, 100, "after {times} polls");
        if finished == [true; 3] {
            return;
        }
    }
    panic!("they never finished: {finished:?}");
}
