use crate::fixture::*;
use mainstay_core::backend::{Call, Condition};
use mainstay_core::{Deadline, Kind, Value};
use std::time::Duration;

#[tokio::test]
async fn a_cursor_hands_out_every_row_once_and_in_order() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let text = statement(
        "select n, repeat('x', 200) as pad from generate_series(1, $1) n",
        (5_000,),
    );
    let mut cursor = conn.cursor(&text, read()).await.unwrap();
    let mut expected = 1;
    while let Some(batch) = cursor.next_batch().await.unwrap() {
        assert!((1..=256).contains(&batch.len()));
        for row in batch {
            assert_eq!(row.values()[0], Value::Int(expected));
            expected += 1;
        }
    }
    assert_eq!(expected, 5_001);
    assert!(cursor.next_batch().await.unwrap().is_none());
    drop(cursor);
    assert_eq!(conn.condition(), Condition::Clean);
}

#[tokio::test]
async fn a_result_may_take_longer_than_its_longest_batch_may() {
    let home = Home::new().await;
    let conn = home.reader().await;
    // Each row fills the server's buffer, so each is sent when it is there.
    let text = statement(
        "select n, repeat('x', 20000) as pad, pg_sleep(0.3)::text as pause from generate_series(1, 5) n",
        (),
    );
    // Long enough for a row, also on a busy machine; shorter than all five.
    let call = Call {
        deadline: Deadline::from_now(Duration::from_millis(1_200)),
        ..read()
    };
    let mut cursor = conn.cursor(&text, call).await.unwrap();
    let mut rows = 0;
    while let Some(batch) = cursor.next_batch().await.unwrap() {
        rows += batch.len();
    }
    assert_eq!(rows, 5);
}

#[tokio::test]
async fn the_first_row_comes_before_the_server_has_finished_and_memory_stays_bounded() {
    let home = Home::new().await;
    let conn = home.reader().await;
    // A gigabyte, of which each row is a kilobyte.
    let text = statement(
        "select repeat('x', 1000) as pad from generate_series(1, 1000000)",
        (),
    );
    let before = resident();
    let mut cursor = conn.cursor(&text, read()).await.unwrap();
    let mut bytes = 0;
    let mut most = 0;
    let mut batches = 0;
    while let Some(batch) = cursor.next_batch().await.unwrap() {
        if batches == 0 {
            let busy = "select count(*) from pg_stat_activity where state = 'active' and query like '%repeat%' and pid <> pg_backend_pid()";
            assert_eq!(home.sql(busy).await, "1", "the server has finished already");
        }
        batches += 1;
        bytes += batch.len() * 1_000;
        if batches % 200 == 0 {
            most = most.max(resident().saturating_sub(before));
        }
    }
    assert_eq!(bytes, 1_000_000_000);
    assert!(most < 64 << 20, "memory grew by {most} bytes");
}

/// Bytes of memory that the process has.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 4_096
}

#[tokio::test]
async fn a_cursor_dropped_in_the_middle_is_stopped_and_the_session_used_again() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let text = statement("select n from generate_series(1, 100000000) n", ());
    let mut cursor = conn.cursor(&text, read()).await.unwrap();
    cursor.next_batch().await.unwrap().unwrap();
    drop(cursor);
    assert_eq!(conn.condition(), Condition::Dirty);
    conn.clean(deadline()).await.unwrap();
    assert_eq!(conn.condition(), Condition::Clean);
    let one = value(&conn, "select 1", (), read()).await.unwrap();
    assert_eq!(one, Value::Int(1));
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_result_is_reported() {
    let home = Home::new().await;
    let conn = home.reader().await;
    let text = statement("select 1 / (n - 3000) from generate_series(1, 5000) n", ());
    let mut cursor = conn.cursor(&text, read()).await.unwrap();
    let error = loop {
        match cursor.next_batch().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the error was lost"),
            Err(error) => break error,
        }
    };
    assert_eq!(
        (error.kind(), error.sqlstate()),
        (Kind::Statement, Some("22012"))
    );
    drop(cursor);
    conn.clean(deadline()).await.unwrap();
    assert_eq!(conn.condition(), Condition::Clean);
}
