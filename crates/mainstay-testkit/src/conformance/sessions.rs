//! What one caller did to a connection is gone before the next one gets it.

use super::saboteur::Transactions;
use super::subject::{Broken, ensure, same};
use super::{Law, Saboteur, Subject, Verdict, law};
use std::time::Duration;

pub(super) fn laws() -> Vec<Law> {
    vec![
        law!(
            an_exclusive_connection_comes_back_clean,
            Saboteur::transactions(Transactions::NeverClean),
            comes_back_clean
        ),
        law!(
            an_open_transaction_does_not_reach_the_next_caller,
            Saboteur::transactions(Transactions::NeverClean),
            open_transaction
        ),
        law!(
            a_dropped_statement_does_not_reach_the_next_caller,
            Saboteur::transactions(Transactions::NeverStop),
            dropped_statement
        ),
    ]
}

async fn comes_back_clean(subject: Subject) -> Verdict {
    let (change, read, untouched) = match subject.system() {
        mainstay::System::Sqlite => (
            "pragma user_version_is_no_state; pragma foreign_keys = off",
            "pragma foreign_keys",
            "1",
        ),
        _ => ("set work_mem = '9MB'", "show work_mem", "4MB"),
    };
    // Every connection of the pool, so that the next caller cannot get an untouched one.
    let leases = subject.all_leases().await?;
    for lease in &leases {
        lease.script(change).await?;
    }
    drop(leases);
    let seen = subject
        .db
        .with_connection(async |lease| {
            let row: mainstay::Row = lease.fetch_one(read, ()).await?;
            Ok(row.values().first().map(|value| match value {
                mainstay::Value::Int(int) => int.to_string(),
                mainstay::Value::Text(text) => text.clone(),
                other => format!("{other:?}"),
            }))
        })
        .await?;
    same!(seen.as_deref(), Some(untouched));
    Ok(())
}

async fn open_transaction(subject: Subject) -> Verdict {
    subject.items().await?;
    subject
        .db
        .with_connection(async |lease| {
            lease.execute("begin", ()).await?;
            lease
                .execute("insert into items (name) values ('left behind')", ())
                .await?;
            Ok(())
        })
        .await?;
    subject
        .db
        .execute("insert into items (name) values ('next')", ())
        .await?;
    let names: Vec<String> = subject.db.fetch_all("select name from items", ()).await?;
    same!(names, ["next"]);
    Ok(())
}

async fn dropped_statement(subject: Subject) -> Verdict {
    let slow = subject.dialect(
        "with recursive n (i) as (select 1 union all select i + 1 from n) select max(i) from n",
        "select pg_sleep(600)",
    );
    let started = Duration::from_millis(200);
    let timed_out = subject
        .db
        .fetch_all::<mainstay::Row>(slow, ())
        .timeout(started)
        .await;
    match timed_out {
        Err(error) if error.is_timeout() => {}
        Err(error) => return Err(error.into()),
        Ok(_) => return Err(Broken::new("an endless statement ended")),
    }
    // Its connection is of use again, long before the statement would have ended.
    let limit = subject.db.status().limit();
    let all = (0..limit * 2).map(|_| async {
        subject
            .db
            .fetch_one::<i64>("select 1", ())
            .timeout(Duration::from_secs(10))
            .await
    });
    for answer in futures_util::future::join_all(all).await {
        ensure!(answer? == 1, "a wrong answer came back");
    }
    Ok(())
}
