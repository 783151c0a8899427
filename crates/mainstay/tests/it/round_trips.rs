//! How often a call waits for the network: counted on the wire, on a connection that has seen the
//! statements before. What is sent is one thing, what is waited for another: with a millisecond of network
//! in between, a transaction costs what its round trips cost.

use mainstay::{Database, Result, TransactionOptions, statement};
use mainstay_testkit::{Proxy, TestDatabase, wait_for};
use std::time::Duration;

/// Longer than the pieces of one flight are apart, on a machine that stalls now and then.
const DELAY: Duration = Duration::from_millis(25);

/// How often each is counted, so that whatever comes on top now and then is seen.
const TIMES: u64 = 3;

const BALANCE: &str = "select balance from accounts where id = $1";
const DEPOSIT: &str = "update accounts set balance = balance + $2 where id = $1";
const NOTE: &str = "insert into movements (account, amount) values ($1, $2)";

struct Home {
    _database: TestDatabase,
    proxy: Proxy,
    db: Database,
}

impl Home {
    async fn new() -> Self {
        let database = mainstay_testkit::database().await.unwrap();
        let proxy = Proxy::start(("127.0.0.1", database.cluster().port()))
            .await
            .unwrap();
        let url = format!("{}?connection_limit=3", proxy.rewrite(&database.url()));
        let db = Database::connect(&url).await.unwrap();
        for text in [
            "create table accounts (id int primary key, balance bigint not null)",
            "insert into accounts values (1, 0)",
            "create table movements (account int not null, amount bigint not null)",
        ] {
            db.execute(text, ()).await.unwrap();
        }
        Self {
            _database: database,
            proxy,
            db,
        }
    }

    /// The round trips of one call, once everything it needs is known. Nothing else is under way.
    async fn count(&self, call: impl AsyncFn(&Database) -> Result<()>) -> u64 {
        self.proxy.latency(Duration::ZERO);
        for _ in 0..3 {
            call(&self.db).await.unwrap();
        }
        self.is_at_rest().await;
        self.proxy.latency(DELAY);
        let before = self.proxy.round_trips();
        for _ in 0..TIMES {
            call(&self.db).await.unwrap();
        }
        let counted = self.proxy.round_trips() - before;
        assert_eq!(counted % TIMES, 0, "{counted} in {TIMES} calls");
        counted / TIMES
    }

    /// What was left to do behind a call has been done.
    async fn is_at_rest(&self) {
        wait_for(
            "the pool to come to rest",
            Duration::from_secs(60),
            async || {
                let pools = self.db.status().pools;
                pools
                    .iter()
                    .all(|pool| pool.open == pool.idle)
                    .then_some(())
            },
        )
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_waits_once_for_each_statement_and_once_for_commit() {
    let home = Home::new().await;
    let counted = home
        .count(async |db| {
            db.transaction(async |tx| {
                let _: i64 = tx.fetch_one(BALANCE, (1,)).await?;
                tx.execute(DEPOSIT, (1, 5_i64)).await?;
                tx.execute(NOTE, (1, 5_i64)).await
            })
            .await
            .map(drop)
        })
        .await;
    assert_eq!(counted, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_are_awaited_together_are_waited_for_once() {
    let home = Home::new().await;
    let counted = home
        .count(async |db| {
            db.transaction(async |tx| {
                tx.execute(DEPOSIT, (1, 5_i64)).await?;
                let (one, two) = tokio::join!(
                    tx.execute(DEPOSIT, (1, 5_i64)),
                    tx.execute(NOTE, (1, 5_i64))
                );
                one.and(two)
            })
            .await
            .map(drop)
        })
        .await;
    assert_eq!(counted, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_that_asks_nothing_sends_nothing() {
    let home = Home::new().await;
    let counted = home
        .count(async |db| db.transaction(async |_| Ok(())).await)
        .await;
    assert_eq!(counted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_is_asked_for_costs_no_round_trip() {
    let home = Home::new().await;
    let deposit = async |db: &Database, options: TransactionOptions| {
        db.transaction_with(options, async |tx| tx.execute(DEPOSIT, (1, 5_i64)).await)
            .await
            .map(drop)
    };
    let serializable = home
        .count(async |db| deposit(db, TransactionOptions::serializable()).await)
        .await;
    let in_time = TransactionOptions::new().timeout(Duration::from_secs(5));
    let with_a_limit = home
        .count(async |db| deposit(db, in_time.clone()).await)
        .await;
    let read_only = home
        .count(async |db| {
            let options = TransactionOptions::new().read_only();
            db.transaction_with(options, async |tx| tx.fetch_one::<i64>(BALANCE, (1,)).await)
                .await
                .map(drop)
        })
        .await;
    assert_eq!((serializable, with_a_limit, read_only), (2, 2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_by_hand_and_one_that_is_never_rerun_have_begun_before_their_first_statement()
{
    let home = Home::new().await;
    let by_hand = home
        .count(async |db| {
            let tx = db.begin().await?;
            tx.execute(DEPOSIT, (1, 5_i64)).await?;
            tx.commit().await
        })
        .await;
    let once = home
        .count(async |db| {
            let options = TransactionOptions::new().once();
            db.transaction_with(options, async |tx| tx.execute(DEPOSIT, (1, 5_i64)).await)
                .await
                .map(drop)
        })
        .await;
    assert_eq!((by_hand, once), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_round_trip() {
    let home = Home::new().await;
    let counted = home
        .count(async |db| {
            let unit = [
                statement(BALANCE, (1,))?,
                statement(DEPOSIT, (1, 5_i64))?,
                statement(NOTE, (1, 5_i64))?,
            ];
            db.batch(unit).await.map(drop)
        })
        .await;
    assert_eq!(counted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_and_writes_by_themselves_are_one_round_trip_each() {
    let home = Home::new().await;
    let read = home
        .count(async |db| db.fetch_one::<i64>(BALANCE, (1,)).await.map(drop))
        .await;
    let written = home
        .count(async |db| db.execute(NOTE, (1, 5_i64)).await.map(drop))
        .await;
    let in_time = home
        .count(async |db| {
            db.execute(NOTE, (1, 5_i64))
                .timeout(Duration::from_secs(5))
                .await
                .map(drop)
        })
        .await;
    assert_eq!((read, written, in_time), (1, 1, 1));
}

/// Which session it is.
const PID: &str = "select pg_backend_pid()::bigint";

/// Two idle sessions that know the text, by the order in which they are lent: on one thread, and with
/// nothing awaited in between, it is the order in which they were given back.
async fn two_sessions(db: &Database) -> (mainstay::Transaction, i64, i64) {
    let (one, two) = tokio::join!(db.begin(), db.begin());
    let (one, two) = (one.unwrap(), two.unwrap());
    let first = one.fetch_one(PID, ()).await.unwrap();
    let second = two.fetch_one(PID, ()).await.unwrap();
    two.commit().await.unwrap();
    (one, first, second)
}

#[tokio::test]
async fn a_dropped_transaction_costs_one_round_trip_and_the_next_caller_none() {
    let home = Home::new().await;
    let (dropped, dirty, clean) = two_sessions(&home.db).await;
    home.proxy.latency(DELAY);
    let before = home.proxy.round_trips();
    drop(dropped);
    let next: i64 = home.db.fetch_one(PID, ()).write().await.unwrap();
    assert_eq!(next, clean);
    home.is_at_rest().await;
    assert_eq!(
        home.proxy.round_trips() - before,
        2,
        "the call and the reset"
    );
    assert_ne!(dirty, clean);
}

#[tokio::test]
async fn a_session_that_was_handed_over_costs_two_round_trips_and_the_next_caller_none() {
    let home = Home::new().await;
    let (left, _, clean) = two_sessions(&home.db).await;
    left.commit().await.unwrap();
    let lease = home.db.acquire().await.unwrap();
    let lent: i64 = lease.fetch_one(PID, ()).await.unwrap();
    lease.execute("set work_mem = '77MB'", ()).await.unwrap();
    home.proxy.latency(DELAY);
    let before = home.proxy.round_trips();
    drop(lease);
    let next: i64 = home.db.fetch_one(PID, ()).write().await.unwrap();
    assert_ne!(next, lent, "{clean}");
    home.is_at_rest().await;
    assert_eq!(
        home.proxy.round_trips() - before,
        3,
        "the call and the reset"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_a_session_does_not_know_yet_costs_one_round_trip_more_and_begin_none() {
    let home = Home::new().await;
    home.db.execute(NOTE, (1, 5_i64)).await.unwrap();
    home.proxy.latency(DELAY);
    for (number, expected) in [(1, 3), (2, 5)] {
        // So that nothing is known of them, nor of their types.
        let texts: Vec<String> = (0..number)
            .map(|text| format!("{NOTE} -- {number} {text}"))
            .collect();
        let before = home.proxy.round_trips();
        home.db
            .transaction(async |tx| {
                for text in &texts {
                    tx.execute(text, (1, 5_i64)).await?;
                }
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(home.proxy.round_trips() - before, expected);
    }
}
