use std::time::Duration;

use mainstay_resilience::{Admission, Breaker, BreakerConfig, Evidence, Rng, State};
use tokio::time::Instant;

use crate::seeds::for_each_seed;

const PROBE_EVERY: Duration = Duration::from_millis(500);
const CONFIRM_AFTER: Duration = Duration::from_millis(50);

/// Anything may happen in any order: results nobody admitted, probes nobody asked for, admissions
/// nobody reports.
fn random_event(breaker: &mut Breaker, now: &mut Instant, rng: &mut Rng) {
    match rng.u32(0..8) {
        0 | 1 => *now += Duration::from_millis(rng.u64(0..2_000)),
        2 | 3 => {
            if let Admission::Refuse { retry_after, since } = breaker.admit(*now) {
                assert!(retry_after <= PROBE_EVERY + CONFIRM_AFTER);
                assert!(since <= *now);
            }
        }
        4..=6 => {
            let statement = rng.bool().then(|| rng.u64(0..3));
            let evidence = match rng.u32(0..10) {
                0..=5 => Evidence::Silent,
                6 => Evidence::Exhausted,
                7 => Evidence::Neither,
                _ => Evidence::Answered,
            };
            breaker.on_evidence(*now, evidence, statement);
        }
        _ => breaker.on_probe(*now, rng.bool()),
    }
}

fn random_breaker(seed: u64, rng: &mut Rng) -> Breaker {
    let mut config = BreakerConfig::default();
    config.ride_through = Duration::from_millis(rng.u64(0..3_000));
    config.seed = Some(seed);
    Breaker::new(config)
}

#[test]
fn whatever_happened_two_good_probes_close_it() {
    let opened = std::cell::Cell::new(0);
    let half_open = std::cell::Cell::new(0);
    for_each_seed(|seed, mut rng| {
        let (mut breaker, mut now) = (random_breaker(seed, &mut rng), Instant::now());
        for _ in 0..rng.u32(0..500) {
            random_event(&mut breaker, &mut now, &mut rng);
            let next = breaker.next_probe(now);
            match breaker.state() {
                State::Closed => assert_eq!(next, None),
                State::Open { until, .. } => {
                    assert!(until <= now + PROBE_EVERY);
                    assert_eq!(next, Some(until.max(now)));
                    opened.set(opened.get() + 1);
                }
                State::HalfOpen => {
                    assert!(next.unwrap() <= now + CONFIRM_AFTER);
                    half_open.set(half_open.get() + 1);
                }
            }
        }
        let start = now;
        for _ in 0..2 {
            now = breaker.next_probe(now).unwrap_or(now);
            breaker.on_probe(now, true);
        }
        assert_eq!(breaker.state(), State::Closed);
        assert!(now - start <= PROBE_EVERY + CONFIRM_AFTER);
        // The ramp ends as well, though nobody reports.
        assert_eq!(
            breaker.admit(now + Duration::from_millis(450)),
            Admission::Pass
        );
    });
    if std::env::var("MAINSTAY_SEED").is_err() {
        assert!(
            opened.get() > 1000 && half_open.get() > 1000,
            "the walk must reach every state"
        );
    }
}

#[test]
fn even_without_a_prober_somebody_passes_in_the_end() {
    for_each_seed(|seed, mut rng| {
        let (mut breaker, mut now) = (random_breaker(seed, &mut rng), Instant::now());
        for _ in 0..rng.u32(0..500) {
            random_event(&mut breaker, &mut now, &mut rng);
        }
        let patience = Duration::from_secs(15) + PROBE_EVERY;
        assert_eq!(breaker.admit(now + patience), Admission::Pass);
    });
}
