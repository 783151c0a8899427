use std::time::Duration;

use mainstay_resilience::{Class, Deadline, Decision, Evidence, Retrier, RetryPolicy, Rng, Work};
use tokio::time::Instant;

use crate::seeds::for_each_seed;

const CALLS: u32 = 20_000;

/// Runs `CALLS` calls whose attempts fail with this probability; returns attempts and successes.
fn run(retrier: &Retrier, failing_percent: u32, evidence: Evidence, rng: &mut Rng) -> (u32, u32) {
    let now = Instant::now();
    let deadline = Deadline::after(now, Duration::from_secs(60));
    let (mut attempts, mut successes) = (0, 0);
    for _ in 0..CALLS {
        let mut attempt = 1;
        loop {
            attempts += 1;
            if rng.u32(0..100) >= failing_percent {
                successes += 1;
                retrier.on_success();
                break;
            }
            let (class, work) = (Class::RolledBack, Work::Unit);
            match retrier.decide(now, attempt, class, evidence, work, deadline, rng) {
                Decision::Again { .. } => attempt += 1,
                Decision::Stop(_) => break,
            }
        }
    }
    (attempts, successes)
}

/// The promise of the budget's documentation: the reserve, and a share of what succeeded.
fn bound(policy: RetryPolicy, successes: u32) -> u32 {
    policy.capacity / policy.cost + successes * policy.refund / policy.cost
}

#[test]
fn retries_never_exceed_the_reserve_and_the_share_of_successes() {
    for_each_seed(|_, mut rng| {
        let failing_percent = rng.u32(0..=100);
        let (conflict, outage) = (RetryPolicy::conflicts(), RetryPolicy::outages());
        for (policy, evidence) in [(conflict, Evidence::Answered), (outage, Evidence::Silent)] {
            let retrier = Retrier::new(conflict, outage);
            let (attempts, successes) = run(&retrier, failing_percent, evidence, &mut rng);
            let retries = attempts - CALLS;
            assert!(
                retries <= bound(policy, successes),
                "{retries} at {failing_percent} %"
            );
        }
    });
}

#[test]
fn thirty_percent_failures_cost_at_most_a_fifth_more_load() {
    let mut rng = Rng::with_seed(30);
    let (attempts, _) = run(&Retrier::default(), 30, Evidence::Silent, &mut rng);
    let amplification = f64::from(attempts) / f64::from(CALLS);
    assert!(amplification <= 1.2, "{amplification}");
    assert!(
        amplification > 1.1,
        "most of the budget is of use: {amplification}"
    );
    // The same attempts without a budget: what the bound protects from.
    let unbounded = RetryPolicy::outages().with_in_flight(u32::MAX);
    let retrier = Retrier::new(unbounded, unbounded);
    let (attempts, _) = run(&retrier, 30, Evidence::Silent, &mut rng);
    assert!(f64::from(attempts) / f64::from(CALLS) > 1.35);
}

#[test]
fn a_total_outage_is_retried_from_the_reserve_only() {
    let mut rng = Rng::with_seed(100);
    let (attempts, _) = run(&Retrier::default(), 100, Evidence::Silent, &mut rng);
    assert_eq!(attempts, CALLS + 20);
    let (attempts, _) = run(&Retrier::default(), 100, Evidence::Answered, &mut rng);
    assert_eq!(attempts, CALLS + 500);
}

#[test]
fn losing_everything_in_flight_at_once_is_affordable() {
    let outage = RetryPolicy::outages().with_in_flight(1000);
    let retrier = Retrier::new(RetryPolicy::conflicts(), outage);
    let now = Instant::now();
    let deadline = Deadline::after(now, Duration::from_secs(30));
    let mut rng = Rng::with_seed(1);
    let mut retry = || {
        let (class, evidence) = (Class::ReadLost, Evidence::Silent);
        retrier.decide(now, 1, class, evidence, Work::Read, deadline, &mut rng)
    };
    assert!((0..1000).all(|_| matches!(retry(), Decision::Again { .. })));
    assert!(matches!(retry(), Decision::Stop(_)));
}

#[test]
fn the_loss_of_one_server_is_covered_in_the_middle_of_traffic_that_fails_now_and_then() {
    const IN_FLIGHT: u32 = 50;
    const RETRIES: u32 = 3;
    for_each_seed(|_, mut rng| {
        // The reserve of the facade: every call in flight, every attempt of it.
        let outage = RetryPolicy::outages()
            .with_attempts(RETRIES + 1)
            .with_in_flight(IN_FLIGHT * RETRIES);
        let retrier = Retrier::new(RetryPolicy::conflicts(), outage);
        let now = Instant::now();
        let deadline = Deadline::after(now, Duration::from_secs(30));
        // Up to one call in ten fails, which five successes a retry can pay for.
        let failing_percent = rng.u32(0..=10);
        for _ in 0..3 {
            run(&retrier, failing_percent, Evidence::Silent, &mut rng);
            let mut retry = |attempt| {
                let (class, evidence) = (Class::ReadLost, Evidence::Silent);
                retrier.decide(
                    now,
                    attempt,
                    class,
                    evidence,
                    Work::Read,
                    deadline,
                    &mut rng,
                )
            };
            let refused = (0..IN_FLIGHT)
                .flat_map(|_| 1..=2)
                .filter(|attempt| matches!(retry(*attempt), Decision::Stop(_)))
                .count();
            assert_eq!(refused, 0, "at {failing_percent} %");
        }
    });
}

#[test]
fn the_budgets_are_apart_in_both_directions() {
    let retrier = Retrier::default();
    let mut rng = Rng::with_seed(7);
    run(&retrier, 100, Evidence::Answered, &mut rng);
    assert_eq!(retrier.conflict_budget().tokens(), 0);
    let outage = retrier.outage_budget();
    assert_eq!(outage.tokens(), outage.capacity());
}
