//! All or nothing, and nothing is left behind.

use super::saboteur::Transactions;
use super::subject::{Broken, ensure, refused, same};
use super::{Law, Saboteur, Subject, Verdict, law};
use mainstay::backend::Presumption;
use mainstay::{Error, Kind, Result, TransactionOptions, statement};

pub(super) fn laws() -> Vec<Law> {
    vec![
        law!(
            a_commit_stays,
            Saboteur::transactions(Transactions::CommitRollsBack),
            commit_stays
        ),
        law!(
            an_error_rolls_back,
            Saboteur::transactions(Transactions::NeverBegin),
            error_rolls_back
        ),
        law!(
            a_failed_statement_aborts_its_transaction,
            Saboteur::transactions(Transactions::SurviveFailures),
            failure_aborts
        ),
        law!(
            a_swallowed_failure_is_not_committed,
            Saboteur::transactions(Transactions::NeverBegin),
            swallowed_failure
        ),
        law!(
            a_dropped_transaction_rolls_back,
            Saboteur::transactions(Transactions::CommitLeftovers),
            drop_rolls_back
        ),
        law!(
            a_dropped_closure_rolls_back,
            Saboteur::transactions(Transactions::CommitLeftovers),
            closure_dropped
        ),
        law!(
            a_panic_rolls_back,
            Saboteur::transactions(Transactions::CommitLeftovers),
            panic_rolls_back
        ),
        law!(
            a_savepoint_undoes_its_part_and_no_more,
            Saboteur::transactions(Transactions::IgnoreSavepoints),
            savepoint_undoes_its_part
        ),
        law!(
            nested_savepoints_undo_from_the_inside_out,
            Saboteur::transactions(Transactions::IgnoreSavepoints),
            nested_savepoints
        ),
        law!(
            a_batch_is_all_or_nothing,
            Saboteur::transactions(Transactions::BatchIsALoop),
            batch_is_atomic
        ),
        law!(
            a_read_only_transaction_does_not_write,
            Saboteur::transactions(Transactions::IgnoreReadOnly).and_error(permanent),
            read_only_refuses
        ),
    ]
    .into_iter()
    .chain(laws_of_handles())
    .collect()
}

/// What the handle of a transaction answers.
fn laws_of_handles() -> Vec<Law> {
    vec![
        law!(
            an_ended_transaction_says_so,
            Saboteur::transactions(Transactions::CommitRollsBack),
            ended_says_so
        ),
        law!(
            two_statements_of_one_transaction_may_be_awaited_together,
            Saboteur::transactions(Transactions::CommitRollsBack),
            awaited_together
        ),
        law!(
            a_transaction_cannot_be_ended_by_a_statement,
            Saboteur::error(permanent).and_presumption(Presumption::Unknown),
            no_commit_by_statement
        ),
        law!(
            a_script_is_part_of_its_transaction,
            Saboteur::error(permanent),
            no_commit_by_script
        ),
    ]
}

const INSERT: &str = "insert into items (name) values ($1)";

#[derive(Debug)]
struct Sorry;

impl std::fmt::Display for Sorry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sorry")
    }
}

impl std::error::Error for Sorry {}

async fn commit_stays(subject: Subject) -> Verdict {
    subject.items().await?;
    let id: i64 = subject
        .db
        .transaction(async |tx| {
            tx.execute(INSERT, ("a",)).await?;
            tx.fetch_one("insert into items (name) values ($1) returning id", ("b",))
                .await
        })
        .await?;
    ensure!(id > 0, "no id came back");
    same!(subject.count().await?, 2);
    let tx = subject.db.begin().await?;
    tx.execute(INSERT, ("c",)).await?;
    tx.commit().await?;
    same!(subject.count().await?, 3);
    Ok(())
}

async fn error_rolls_back(subject: Subject) -> Verdict {
    subject.items().await?;
    let result: Result<()> = subject
        .db
        .transaction(async |tx| {
            tx.execute(INSERT, ("a",)).await?;
            Err(Error::rollback(Sorry))
        })
        .await;
    let error = refused!(result, RolledBack);
    ensure!(
        error.downcast_ref::<Sorry>().is_some(),
        "the application's error is lost: {error}"
    );
    same!(subject.count().await?, 0);
    Ok(())
}

async fn failure_aborts(subject: Subject) -> Verdict {
    subject.items().await?;
    let tx = subject.db.begin().await?;
    tx.execute(INSERT, ("a",)).await?;
    refused!(tx.execute(INSERT, ("a",)).await, Unique);
    refused!(tx.execute(INSERT, ("b",)).await, TransactionOver);
    refused!(tx.fetch_one::<i64>("select 1", ()).await, TransactionOver);
    ensure!(
        tx.commit().await.is_err(),
        "an aborted transaction was committed"
    );
    same!(subject.count().await?, 0);
    Ok(())
}

async fn swallowed_failure(subject: Subject) -> Verdict {
    subject.items().await?;
    let result: Result<()> = subject
        .db
        .transaction(async |tx| {
            tx.execute(INSERT, ("a",)).await?;
            drop(tx.execute(INSERT, ("a",)).await); // the mistake that this law is about
            Ok(())
        })
        .await;
    refused!(result, Unique);
    same!(subject.count().await?, 0);
    Ok(())
}

async fn drop_rolls_back(subject: Subject) -> Verdict {
    subject.items().await?;
    let tx = subject.db.begin().await?;
    tx.execute(INSERT, ("a",)).await?;
    drop(tx);
    drop(subject.all_leases().await?);
    same!(subject.count().await?, 0);
    // Its connection is of use to the next.
    subject.db.execute(INSERT, ("b",)).await?;
    same!(subject.count().await?, 1);
    Ok(())
}

async fn closure_dropped(subject: Subject) -> Verdict {
    subject.items().await?;
    let inserted = tokio::sync::Notify::new();
    let unit = subject.db.transaction(async |tx| {
        tx.execute(INSERT, ("a",)).await?;
        inserted.notify_one();
        std::future::pending::<()>().await;
        Ok(())
    });
    tokio::select! {
        _ = unit => return Err(Broken::new("a pending closure returned")),
        () = inserted.notified() => {}
    }
    drop(subject.all_leases().await?);
    same!(subject.count().await?, 0);
    subject.db.execute(INSERT, ("b",)).await?;
    same!(subject.count().await?, 1);
    Ok(())
}

async fn panic_rolls_back(subject: Subject) -> Verdict {
    subject.items().await?;
    let db = subject.db.clone();
    let panicked = tokio::spawn(async move {
        db.transaction(async |tx| {
            tx.execute(INSERT, ("a",)).await?;
            std::panic::resume_unwind(Box::new("on purpose"));
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok(())
        })
        .await
    })
    .await;
    ensure!(panicked.is_err(), "the panic was swallowed");
    drop(subject.all_leases().await?);
    same!(subject.count().await?, 0);
    subject.db.execute(INSERT, ("b",)).await?;
    same!(subject.count().await?, 1);
    Ok(())
}

async fn savepoint_undoes_its_part(subject: Subject) -> Verdict {
    subject.items().await?;
    subject
        .db
        .transaction(async |tx| {
            tx.execute(INSERT, ("a",)).await?;
            let part = tx
                .savepoint(async |tx| {
                    tx.execute(INSERT, ("b",)).await?;
                    tx.execute(INSERT, ("a",)).await
                })
                .await;
            match part {
                Err(error) if error.is_unique_violation() => {}
                other => drop(other?),
            }
            tx.execute(INSERT, ("c",)).await
        })
        .await?;
    let names: Vec<String> = subject
        .db
        .fetch_all("select name from items order by name", ())
        .await?;
    same!(names, ["a", "c"]);
    Ok(())
}

async fn nested_savepoints(subject: Subject) -> Verdict {
    subject.items().await?;
    subject
        .db
        .transaction(async |tx| {
            tx.savepoint(async |tx| {
                tx.execute(INSERT, ("outer",)).await?;
                let inner: Result<()> = tx
                    .savepoint(async |tx| {
                        tx.execute(INSERT, ("inner",)).await?;
                        Err(Error::rollback(Sorry))
                    })
                    .await;
                inner.or_else(|error| {
                    error
                        .downcast_ref::<Sorry>()
                        .map(drop)
                        .ok_or_else(|| error.clone())
                })
            })
            .await?;
            let undone: Result<()> = tx
                .savepoint(async |tx| {
                    tx.savepoint(async |tx| tx.execute(INSERT, ("kept by nobody",)).await)
                        .await?;
                    Err(Error::rollback(Sorry))
                })
                .await;
            undone.or_else(|error| {
                error
                    .downcast_ref::<Sorry>()
                    .map(drop)
                    .ok_or_else(|| error.clone())
            })
        })
        .await?;
    let names: Vec<String> = subject.db.fetch_all("select name from items", ()).await?;
    same!(names, ["outer"]);
    Ok(())
}

async fn batch_is_atomic(subject: Subject) -> Verdict {
    subject.items().await?;
    let affected = subject
        .db
        .batch([statement(INSERT, ("a",)), statement(INSERT, ("b",))])
        .await?;
    same!(affected, [1, 1]);
    let batch = [
        statement(INSERT, ("c",)),
        statement(INSERT, ("a",)),
        statement(INSERT, ("d",)),
    ];
    refused!(subject.db.batch(batch).await, Unique);
    same!(subject.count().await?, 2);
    refused!(
        subject.db.batch([statement("commit", ())]).await,
        SessionStatement
    );
    Ok(())
}

async fn read_only_refuses(subject: Subject) -> Verdict {
    subject.items().await?;
    let count: i64 = subject
        .db
        .transaction_with(TransactionOptions::new().read_only(), async |tx| {
            tx.fetch_one("select count(*) from items", ()).await
        })
        .await?;
    same!(count, 0);
    let write = subject
        .db
        .transaction_with(TransactionOptions::new().read_only(), async |tx| {
            tx.execute(INSERT, ("a",)).await
        });
    refused!(write.await, ReadOnly);
    same!(subject.count().await?, 0);
    Ok(())
}

async fn ended_says_so(subject: Subject) -> Verdict {
    subject.items().await?;
    let kept = subject
        .db
        .transaction(async |tx| {
            tx.execute(INSERT, ("a",)).await?;
            Ok(tx)
        })
        .await?;
    refused!(kept.execute(INSERT, ("b",)).await, TransactionOver);
    same!(subject.count().await?, 1);
    Ok(())
}

async fn awaited_together(subject: Subject) -> Verdict {
    subject.items().await?;
    subject
        .db
        .transaction(async |tx| {
            let first = async { tx.execute(INSERT, ("a",)).await };
            let second = async { tx.execute(INSERT, ("b",)).await };
            let (first, second) = futures_util::future::join(first, second).await;
            first?;
            second
        })
        .await?;
    same!(subject.count().await?, 2);
    Ok(())
}

async fn no_commit_by_statement(subject: Subject) -> Verdict {
    subject.items().await?;
    for text in ["commit", "rollback", "begin", "savepoint x", "release x"] {
        let result = subject
            .db
            .transaction(async |tx| tx.execute(text, ()).await)
            .await;
        refused!(result, SessionStatement);
    }
    Ok(())
}

async fn no_commit_by_script(subject: Subject) -> Verdict {
    subject.items().await?;
    for end in ["commit", "end", "rollback", "/* */ COMMIT", "begin"] {
        let script = format!(
            "insert into items (name) values ('a'); {end}; insert into items (name) values ('b');"
        );
        let result = subject
            .db
            .transaction(async |tx| tx.script(&script).await)
            .await;
        refused!(result, SessionStatement);
        same!(subject.count().await?, 0);
    }
    let script = "insert into items (name) values ('a'); -- ; commit;\n\
                  insert into items (name) values ('; commit; ');";
    subject
        .db
        .transaction(async |tx| tx.script(script).await)
        .await?;
    same!(subject.count().await?, 2);
    Ok(())
}

fn permanent(error: Error) -> Error {
    error.into_report().kind(Kind::Other).into()
}
