//! What is repeated and what never is.

use crate::script::{Answer, Script, conflict, failure, read_lost, unknown};
use mainstay::{Class, Error, Evidence, Kind, Result, TransactionOptions, statement};
use mainstay_core::error::Report;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_read_that_was_lost_is_repeated() {
    let script = Script::new([read_lost(), Answer::Fine]);
    let db = script.database(|_| {});
    db.execute("select 1", ()).await.unwrap();
    assert_eq!(script.count("run select 1"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_write_of_unknown_outcome_is_never_repeated() {
    let script = Script::new([unknown()]);
    let db = script.database(|_| {});
    let error = db
        .execute("insert into t values (1)", ())
        .await
        .unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    assert_eq!(script.count("run insert"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_write_of_unknown_outcome_is_repeated() {
    let script = Script::new([unknown(), Answer::Fine]);
    let db = script.database(|_| {});
    db.execute("update t set x = 1", ())
        .idempotent()
        .await
        .unwrap();
    assert_eq!(script.count("run update"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_is_never_repeated() {
    let script = Script::new([failure(Kind::Unique, Class::Permanent, Evidence::Answered)]);
    let db = script.database(|_| {});
    let error = db
        .execute("insert into t values (1)", ())
        .await
        .unwrap_err();
    assert!(error.is_unique_violation());
    assert_eq!(error.attempts(), 1);
    assert_eq!(script.count("run"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_reruns_the_whole_closure() {
    let script = Script::new([Answer::Fine, Answer::Fine, conflict()]);
    let db = script.database(|_| {});
    let attempts = db
        .transaction(async |tx| {
            tx.execute("update a", ()).await?;
            tx.execute("update b", ()).await?;
            Ok(tx.attempt())
        })
        .await
        .unwrap();
    assert_eq!(attempts, 2);
    assert_eq!(script.count("begin"), 2);
    assert_eq!(script.count("run update a"), 2);
    assert_eq!(script.count("commit"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_conflict_still_reruns() {
    #[derive(Debug)]
    struct Mine;
    impl From<Error> for Mine {
        fn from(_: Error) -> Self {
            Self
        }
    }
    let script = Script::new([Answer::Fine, conflict()]);
    let db = script.database(|_| {});
    let result: Result<(), Mine> = db
        .try_transaction(async |tx| {
            // The application throws the cause away; the transaction has seen it all the same.
            tx.execute("update a", ()).await.map_err(|_| Mine)?;
            Ok(())
        })
        .await;
    assert!(result.is_ok());
    assert_eq!(script.count("begin"), 2);
}

#[tokio::test(start_paused = true)]
async fn an_application_s_own_error_is_not_rerun() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    let runs = AtomicU32::new(0);
    let result: Result<()> = db
        .transaction(async |_| {
            runs.fetch_add(1, Ordering::Relaxed);
            Err(Error::rollback("no"))
        })
        .await;
    assert_eq!(result.unwrap_err().kind(), Kind::RolledBack);
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert_eq!(script.log().last().map(String::as_str), Some("rollback"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_commit_is_reported_and_never_rerun() {
    let script = Script::new([Answer::Fine, Answer::Fine, unknown()]);
    let db = script.database(|_| {});
    let result = db
        .transaction(async |tx| tx.execute("update a", ()).await)
        .await;
    assert!(result.unwrap_err().is_outcome_unknown());
    assert_eq!(script.count("begin"), 1);
}

#[tokio::test(start_paused = true)]
async fn once_means_once() {
    let script = Script::new([Answer::Fine, conflict()]);
    let db = script.database(|_| {});
    let options = TransactionOptions::new().once();
    let result = db
        .transaction_with(options, async |tx| tx.execute("update a", ()).await)
        .await;
    assert!(result.unwrap_err().is_conflict());
    assert_eq!(script.count("begin"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_inside_a_transaction_reruns_it() {
    let lost = failure(Kind::Unreachable, Class::RolledBack, Evidence::Silent);
    let script = Script::new([Answer::Fine, lost]);
    let db = script.database(|_| {});
    db.transaction(async |tx| tx.execute("update a", ()).await)
        .await
        .unwrap();
    assert_eq!(script.count("begin"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_inside_a_savepoint_is_the_whole_unit_s() {
    let script = Script::new([Answer::Fine, Answer::Fine, conflict()]);
    let db = script.database(|_| {});
    let attempt = db
        .transaction(async |tx| {
            // Swallowed: the savepoint is undone, but a conflict cannot be cured by a part.
            drop(
                tx.savepoint(async |tx| tx.execute("update a", ()).await)
                    .await,
            );
            Ok(tx.attempt())
        })
        .await
        .unwrap();
    assert_eq!(attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn reruns_end_with_the_attempts() {
    let script = Script::new((0..100).flat_map(|_| [Answer::Fine, conflict()]));
    let db = script.database(|_| {});
    let result = db
        .transaction(async |tx| tx.execute("update a", ()).await)
        .await;
    assert!(result.unwrap_err().is_conflict());
    assert_eq!(script.count("begin"), 5);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_kept_reaches_no_connection() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    let long = "x".repeat(201);
    for options in [
        TransactionOptions::new().exactly_once_as(""),
        TransactionOptions::new().exactly_once_as(&long),
        TransactionOptions::new().exactly_once_as("a\0b"),
        TransactionOptions::new().read_only().exactly_once(),
    ] {
        let result = db.transaction_with(options, async |_| Ok(())).await;
        assert_eq!(result.unwrap_err().kind(), Kind::Config);
    }
    assert!(script.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_commit_that_cannot_be_looked_into_stays_unknown_until_the_deadline() {
    let away = || failure(Kind::Unreachable, Class::NotSent, Evidence::Silent);
    let answers = [Answer::Fine, Answer::Fine, unknown()];
    let script = Script::new(answers.into_iter().chain((0..10_000).map(|_| away())));
    let db = script.database(|config| config.ride_through = Duration::from_secs(60));
    let options = TransactionOptions::new()
        .exactly_once_as("order-7")
        .timeout(Duration::from_secs(5));
    let started = Instant::now();
    let runs = AtomicU32::new(0);
    let result = db
        .transaction_with(options, async |_| {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .await;
    let error = result.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    assert!(error.to_string().contains("token order-7"), "{error}");
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    // A begin, the row behind it and a commit; then only attempts to find out.
    assert_eq!(script.count("begin") + script.count("commit"), 2);
    assert!(script.count("batch") > 5);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_repeated_as_a_whole_after_a_conflict() {
    let script = Script::new([conflict()]);
    let db = script.database(|_| {});
    let affected = db
        .batch([statement("insert a", ()), statement("insert b", ())])
        .await
        .unwrap();
    assert_eq!(affected, [1, 1]);
    assert_eq!(script.count("batch"), 2);
}

#[tokio::test(start_paused = true)]
async fn other_work_is_repeated_under_the_same_policy() {
    let policy = mainstay::RetryPolicy::default();
    let attempts = mainstay::retry(&policy, async |attempt| {
        if attempt < 3 {
            return Err(Error::from(
                Report::new(Kind::Unreachable, "refused")
                    .class(Class::NotSent)
                    .evidence(Evidence::Silent),
            ));
        }
        Ok(attempt)
    })
    .await
    .unwrap();
    assert_eq!(attempts, 3);
    let runs = AtomicU32::new(0);
    let result: Result<()> = mainstay::retry(&policy, async |_| {
        runs.fetch_add(1, Ordering::Relaxed);
        Err(Report::new(Kind::Statement, "wrong").into())
    })
    .await;
    assert!(result.is_err());
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_statement_reaches_no_connection() {
    let script = Script::new([]);
    let db = script.database(|_| {});
    let error = db.execute("set x = 1", ()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::SessionStatement);
    assert!(script.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_environment_says_how_often_and_how_soon() {
    for most in 0..4_u32 {
        let settings = move |name: &str| match name {
            "DATABASE_URL" => Some("postgres://u@script:1/d".to_owned()),
            "DB_RETRY_MAX" => Some(most.to_string()),
            "DB_RETRY_BASE" => Some("20".to_owned()),
            _ => None,
        };
        let from_environment = mainstay::Config::from_variables(settings).unwrap();
        let script = Script::new((0..100).map(|_| read_lost()));
        let db = script.database(|config| *config = from_environment);
        let started = Instant::now();
        let error = db.execute("select 1", ()).await.unwrap_err();
        assert_eq!(error.attempts(), most + 1);
        assert_eq!(script.count("run select 1"), most as usize + 1);
        // Full jitter below 20, 40 and 80 ms; the clock counts in milliseconds.
        let longest = Duration::from_millis(20 * (2_u64.pow(most) - 1) + u64::from(most));
        assert!(
            started.elapsed() <= longest,
            "{most}: {:?}",
            started.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_retries_a_conflict_is_not_rerun_either() {
    let script = Script::new([Answer::Fine, conflict()]);
    let db = script.database(|config| config.retry_max = 0);
    let result = db
        .transaction(async |tx| tx.execute("update a", ()).await)
        .await;
    assert!(result.unwrap_err().is_conflict());
    assert_eq!(script.count("begin"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_is_repeated_after_every_failure_that_may_pass() {
    let policy = mainstay::RetryPolicy::default();
    let lost = || {
        Error::from(
            Report::new(Kind::OutcomeUnknown, "lost")
                .class(Class::OutcomeUnknown)
                .evidence(Evidence::Silent),
        )
    };
    let found = mainstay::retry_find(&policy, async |attempt| match attempt {
        1 | 2 => Err(lost()),
        n => Ok(Some(n)),
    });
    assert_eq!(found.await.unwrap(), Some(3));
    // What fails for good is not looked for again, and what is not there is an answer.
    let runs = AtomicU32::new(0);
    let count = || runs.fetch_add(1, Ordering::Relaxed);
    let wrong: Result<Option<()>> = mainstay::retry_find(&policy, async |_| {
        count();
        Err(Report::new(Kind::Statement, "wrong").into())
    })
    .await;
    assert!(wrong.is_err());
    let absent: Result<Option<()>> = mainstay::retry_find(&policy, async |_| {
        count();
        Ok(None)
    })
    .await;
    assert_eq!(absent.unwrap(), None);
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_yet_is_looked_for_until_the_attempts_or_the_time_end() {
    let policy = mainstay::RetryPolicy::new(5, Duration::from_millis(100)).until_found();
    let appears = |at: u32| {
        let policy = policy.clone();
        async move {
            mainstay::retry_find(&policy, async |n| Ok::<_, Error>((n >= at).then_some(n))).await
        }
    };
    assert_eq!(appears(5).await.unwrap(), Some(5));
    assert_eq!(appears(6).await.unwrap(), None);
    let started = Instant::now();
    let hurried = mainstay::RetryPolicy::new(1000, Duration::from_millis(100))
        .until_found()
        .timeout(Duration::from_secs(3));
    let absent: Result<Option<()>> = mainstay::retry_find(&hurried, async |_| Ok(None)).await;
    assert_eq!(absent.unwrap(), None);
    assert!(started.elapsed() <= Duration::from_secs(3));
    // A caller who goes away stops it.
    let dropped = tokio::time::timeout(
        Duration::from_millis(1),
        mainstay::retry_find(&hurried, async |_| Ok::<Option<()>, Error>(None)),
    )
    .await;
    assert!(dropped.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_budget_of_an_outage_is_shared_by_all_callers_and_earned_back() {
    // Nothing but losses: after the reserve the first attempt is the last.
    let script = Script::new((0..2_000).map(|_| read_lost()));
    let db = script.database(|config| {
        config.connection_limit = 2;
        config.ride_through = Duration::from_secs(3600);
    });
    for _ in 0..500 {
        db.execute("select 1", ()).await.unwrap_err();
    }
    // Two connections, three retries each, are less than the least reserve of twenty.
    assert_eq!(script.count("run select 1"), 500 + 20);
}
