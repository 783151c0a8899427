//! Code of the program that panics on a connection's thread. A panic of our own there is tried
//! beside the thread's code.

use crate::crowd::{Crowd, insert};
use crate::{Bench, execute, natively, soon};
use mainstay_core::backend::Condition;
use mainstay_core::{Class, Kind};
use mainstay_sqlite::SqliteSession;
use rusqlite::functions::FunctionFlags;

#[tokio::test]
async fn a_function_that_panics_in_a_group_costs_its_caller_and_nobody_else() {
    let crowd = Crowd::new().await;
    let made = natively(crowd.writer(), |native| {
        native.create_scalar_function(
            "fall",
            0,
            FunctionFlags::SQLITE_UTF8,
            |_| -> rusqlite::Result<i64> { panic!("on purpose") },
        )
    });
    made.await.unwrap();
    let before = crowd.queue(&insert("before"));
    let guilty = crowd.queue("insert into t (a) values ('gone'), (fall())");
    let whole = crowd.queue_batch(&[&insert("gone, too"), "insert into t (id) values (fall())"]);
    let after = crowd.queue(&insert("after"));
    crowd.release().await;
    before.await.unwrap();
    for error in [guilty.await.unwrap_err(), whole.await.unwrap_err()] {
        assert_eq!(
            (error.kind(), error.class()),
            (Kind::Statement, Class::Permanent),
            "{error}"
        );
    }
    after.await.unwrap();
    crowd.check_grouped();
    assert_eq!(crowd.replays(), 0);
    assert_eq!(crowd.all().await, ["after", "before"]);
    crowd.queue(&insert("next")).await.unwrap();
}

#[tokio::test]
async fn a_closure_that_panics_in_a_transaction_by_hand_leaves_nothing_of_it() {
    let bench = Bench::with_table().await;
    let session: &SqliteSession = bench.writer.as_any().downcast_ref().unwrap();
    let panicked = session.call(|native| -> () {
        native
            .execute_batch("begin immediate; insert into t (a) values ('gone')")
            .unwrap();
        panic!("on purpose")
    });
    assert_eq!(panicked.await.unwrap_err().kind(), Kind::Other);
    assert_eq!(bench.writer.condition(), Condition::Dirty);
    bench.writer.clean(soon()).await.unwrap();
    assert_eq!(bench.writer.condition(), Condition::Clean);
    assert_eq!(bench.count("t").await, 0);
    execute(&*bench.writer, "insert into t (a) values ('next')")
        .await
        .unwrap();
}
