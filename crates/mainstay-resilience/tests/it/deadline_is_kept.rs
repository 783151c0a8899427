use std::time::Duration;

use mainstay_resilience::{
    Class, Deadline, Decision, Evidence, Retrier, RetryPolicy, StopReason, Work,
};
use tokio::time::Instant;

use crate::seeds::for_each_seed;

#[test]
fn no_attempt_begins_at_the_deadline_or_later() {
    for_each_seed(|_, mut rng| {
        let generous = RetryPolicy::outages()
            .with_attempts(u32::MAX)
            .with_in_flight(1_000_000);
        let retrier = Retrier::new(generous, generous);
        for _ in 0..50 {
            let start = Instant::now();
            let deadline = Deadline::after(start, Duration::from_millis(rng.u64(0..3_000)));
            let (mut now, mut attempt) = (start, 1);
            let reason = loop {
                now += Duration::from_micros(rng.u64(0..200_000)); // the attempt itself
                let (class, evidence) = (Class::NotSent, Evidence::Silent);
                match retrier.decide(
                    now,
                    attempt,
                    class,
                    evidence,
                    Work::Unit,
                    deadline,
                    &mut rng,
                ) {
                    Decision::Again { after } => {
                        now += after;
                        assert!(now < deadline.instant());
                    }
                    Decision::Stop(reason) => break reason,
                }
                attempt += 1;
            };
            assert_eq!(reason, StopReason::Deadline);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_loop_on_tokios_clock_ends_before_its_deadline() {
    let policy = RetryPolicy::outages()
        .with_attempts(u32::MAX)
        .with_in_flight(1_000_000);
    let retrier = Retrier::new(policy, policy);
    let mut rng = fastrand::Rng::with_seed(5);
    let deadline = Deadline::from_now(Duration::from_secs(10));
    let mut attempt = 1;
    while let Decision::Again { after } = retrier.decide(
        Instant::now(),
        attempt,
        Class::ReadLost,
        Evidence::Silent,
        Work::Read,
        deadline,
        &mut rng,
    ) {
        tokio::time::advance(after).await;
        assert!(!deadline.is_past(Instant::now()));
        attempt += 1;
    }
    assert!(attempt > 5, "ten seconds are enough for several attempts");
}
