//! Repeating helps while few calls fail. When many do, it is the load that keeps a server down: so
//! all callers together repeat no more than the budget allows.

#![expect(clippy::print_stdout, reason = "a proof shows its numbers")]

use crate::run::seed;
use crate::script::{Answer, Script, failure, read_lost};
use futures_util::future::join_all;
use mainstay::{Class, Evidence, Kind};

const CALLERS: usize = 1000;
const CALLS_EACH: usize = 20;
/// The share of all attempts that fail, in percent.
const FAILING: u8 = 30;
/// Attempts for each call, at most.
const AMPLIFICATION: f64 = 1.2;

/// A thousand callers, whose every attempt may meet `fault`; answers attempts per call and the share
/// of calls that succeeded.
async fn run(fault: impl Fn() -> Answer) -> (f64, f64) {
    let mut rng = fastrand::Rng::with_seed(seed());
    let calls = CALLERS * CALLS_EACH;
    let answers = (0..calls * 3).map(|_| {
        if rng.u8(0..100) < FAILING {
            fault()
        } else {
            Answer::Fine
        }
    });
    let script = Script::new(answers.collect::<Vec<_>>());
    let db = script.database(|_| {});
    let callers = (0..CALLERS).map(|number| {
        let db = db.clone();
        async move {
            let text = format!("select {number}");
            let mut succeeded = 0;
            for _ in 0..CALLS_EACH {
                succeeded += usize::from(db.execute(&text, ()).await.is_ok());
            }
            succeeded
        }
    });
    let succeeded: usize = join_all(callers).await.into_iter().sum();
    let attempts = script.count("run");
    let [attempts, succeeded, calls] =
        [attempts, succeeded, calls].map(|n| f64::from(u32::try_from(n).unwrap()));
    println!(
        "{} attempts for {calls} calls of which {succeeded} succeeded: {:.3} each",
        attempts,
        attempts / calls
    );
    assert_eq!(db.status().breaker.state, "closed");
    (attempts / calls, succeeded / calls)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_of_a_server_that_fails_often_repeat_no_more_than_the_budget_allows() {
    let (amplification, succeeded) = run(read_lost).await;
    assert!(amplification <= AMPLIFICATION, "{amplification}");
    // And the budget is not saved for its own sake.
    assert!(amplification > 1.1, "{amplification}");
    assert!(succeeded > 0.8, "{succeeded}");
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_server_is_spared_in_the_same_way() {
    let exhausted = || failure(Kind::Other, Class::RolledBack, Evidence::Exhausted);
    let (amplification, _) = run(exhausted).await;
    assert!(amplification <= AMPLIFICATION, "{amplification}");
}
