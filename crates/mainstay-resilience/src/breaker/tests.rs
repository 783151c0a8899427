use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn breaker(ride_through: Duration) -> Breaker {
    let config = BreakerConfig {
        ride_through,
        seed: Some(1),
        ..BreakerConfig::default()
    };
    Breaker::new(config)
}

/// A breaker that opened at the returned instant because connects were refused.
fn opened() -> (Breaker, Instant) {
    let (mut breaker, now) = (breaker(Duration::ZERO), Instant::now());
    refuse_connects(&mut breaker, now, 5);
    assert_eq!(breaker.state_name(), "open");
    (breaker, now)
}

fn refuse_connects(breaker: &mut Breaker, now: Instant, times: u32) {
    (0..times).for_each(|_| breaker.on_evidence(now, Evidence::Silent, None));
}

fn passes(breaker: &mut Breaker, now: Instant) -> bool {
    breaker.admit(now) == Admission::Pass
}

/// Asks whenever it is time to and finds the database well, until the breaker closes; returns that
/// instant.
fn probe_until_closed(breaker: &mut Breaker, mut now: Instant) -> Instant {
    for _ in 0..10 {
        let Some(at) = breaker.next_probe(now) else {
            return now;
        };
        now = at;
        breaker.on_probe(now, true);
    }
    panic!("ten good probes did not close it: {breaker:?}");
}

#[test]
fn a_hundred_unique_violations_do_not_move_it() {
    let (mut breaker, start) = (breaker(Duration::ZERO), Instant::now());
    for n in 0..100_u32 {
        let now = start + n * 10 * MILLI;
        assert!(passes(&mut breaker, now));
        breaker.on_evidence(now, Evidence::Answered, Some(u64::from(n % 3)));
        assert_eq!(breaker.state(), State::Closed);
    }
    assert_eq!(breaker.times_opened(), 0);
}

#[test]
fn answers_that_are_errors_keep_lost_calls_below_the_share() {
    let (mut breaker, now) = (breaker(Duration::ZERO), Instant::now());
    for n in 0..100 {
        breaker.on_evidence(now, Evidence::Answered, Some(n));
    }
    for n in 0..99 {
        breaker.on_evidence(now, Evidence::Silent, Some(n));
        assert_eq!(breaker.state(), State::Closed, "{n}");
    }
    breaker.on_evidence(now, Evidence::Silent, Some(99));
    assert_eq!(breaker.state_name(), "open");
}

#[test]
fn shed_and_cancelled_calls_count_as_nothing() {
    let (mut breaker, now) = (breaker(Duration::ZERO), Instant::now());
    (0..1000).for_each(|n| breaker.on_evidence(now, Evidence::Neither, Some(n)));
    assert!(passes(&mut breaker, now));
    // They do not dilute real failures either.
    (0..5).for_each(|n| breaker.on_evidence(now, Evidence::Silent, Some(n)));
    assert!(!passes(&mut breaker, now));
}

#[test]
fn one_statement_that_kills_its_connection_opens_nothing() {
    let (mut breaker, now) = (breaker(Duration::ZERO), Instant::now());
    (0..50).for_each(|_| breaker.on_evidence(now, Evidence::Silent, Some(7)));
    assert!(passes(&mut breaker, now));
    breaker.on_evidence(now, Evidence::Silent, Some(8));
    assert!(!passes(&mut breaker, now));
}

#[test]
fn an_exhausted_server_opens_it_by_share_but_not_as_a_refused_connect() {
    let (mut breaker, now) = (breaker(Duration::ZERO), Instant::now());
    (0..10).for_each(|n| breaker.on_evidence(now, Evidence::Answered, Some(n)));
    (0..9).for_each(|_| breaker.on_evidence(now, Evidence::Exhausted, None));
    assert!(passes(&mut breaker, now));
    breaker.on_evidence(now, Evidence::Exhausted, None);
    assert!(!passes(&mut breaker, now));
}

#[test]
fn four_failures_are_too_few_and_an_answer_ends_a_run_of_refused_connects() {
    let (mut breaker, now) = (breaker(Duration::ZERO), Instant::now());
    (0..20).for_each(|n| breaker.on_evidence(now, Evidence::Answered, Some(n)));
    refuse_connects(&mut breaker, now, 4);
    breaker.on_evidence(now, Evidence::Answered, Some(1));
    refuse_connects(&mut breaker, now, 4);
    assert!(passes(&mut breaker, now));
    refuse_connects(&mut breaker, now, 1);
    assert!(!passes(&mut breaker, now));
}

#[test]
fn failures_older_than_the_window_are_forgotten() {
    let (mut breaker, start) = (breaker(Duration::ZERO), Instant::now());
    (0..4).for_each(|n| breaker.on_evidence(start, Evidence::Silent, Some(n)));
    breaker.on_evidence(start + 10 * SECOND, Evidence::Silent, Some(9));
    assert!(passes(&mut breaker, start + 10 * SECOND));
}

#[test]
fn old_news_opens_nothing() {
    let (mut breaker, start) = (breaker(2 * SECOND), Instant::now());
    refuse_connects(&mut breaker, start, 5);
    assert!(
        passes(&mut breaker, start + 15 * SECOND),
        "nobody asked for a quarter of a minute"
    );
    // A run of slow refusals counts as long as it goes on, though it is longer than the window.
    refuse_connects(&mut breaker, start + 15 * SECOND, 1);
    assert!(!passes(&mut breaker, start + 15 * SECOND));
}

#[test]
fn a_burst_of_which_nothing_more_was_heard_opens_nothing() {
    let (mut breaker, start) = (breaker(2 * SECOND), Instant::now());
    // A restart takes every statement in flight, and then the service is quiet.
    (0..50).for_each(|n| breaker.on_evidence(start, Evidence::Silent, Some(n)));
    assert!(passes(&mut breaker, start + 3 * SECOND));
    assert_eq!(breaker.times_opened(), 0);
    // It is still away: the next failure opens.
    breaker.on_evidence(start + 3 * SECOND, Evidence::Silent, Some(1));
    assert!(!passes(&mut breaker, start + 3 * SECOND));
}

/// A service in full use: a thousand answers a second until `start`.
fn busy(ride_through: Duration) -> (Breaker, Instant) {
    let (mut breaker, mut now) = (breaker(ride_through), Instant::now());
    for n in 0..10_000 {
        now += MILLI;
        assert!(passes(&mut breaker, now));
        breaker.on_evidence(now, Evidence::Answered, Some(n % 20));
    }
    (breaker, now)
}

#[test]
fn a_silence_after_thousands_of_answers_opens_it_when_the_ride_through_has_passed() {
    let (mut breaker, start) = busy(2 * SECOND);
    // Twenty callers run into their deadlines together; those who come after them hang.
    let first_loss = start + 2 * SECOND;
    (0..20).for_each(|n| breaker.on_evidence(first_loss, Evidence::Silent, Some(n)));
    for n in 0..100_u32 {
        assert!(passes(&mut breaker, first_loss + n * 20 * MILLI), "{n}");
        // They end in the queue of the pool, which says nothing about the server.
        breaker.on_evidence(first_loss + n * 20 * MILLI, Evidence::Neither, Some(7));
    }
    assert!(!passes(&mut breaker, first_loss + 2 * SECOND + 20 * MILLI));
}

#[test]
fn one_answer_among_those_who_passed_keeps_it_closed() {
    let (mut breaker, start) = busy(2 * SECOND);
    (0..20).for_each(|n| breaker.on_evidence(start, Evidence::Silent, Some(n)));
    assert!(passes(&mut breaker, start + SECOND));
    breaker.on_evidence(start + SECOND * 3 / 2, Evidence::Answered, Some(3));
    assert!(passes(&mut breaker, start + 3 * SECOND));
    assert_eq!(breaker.times_opened(), 0);
}

#[test]
fn without_a_ride_through_a_few_losses_among_thousands_of_answers_open_nothing() {
    let (mut breaker, start) = busy(Duration::ZERO);
    (0..20).for_each(|n| breaker.on_evidence(start, Evidence::Silent, Some(n)));
    assert!(passes(&mut breaker, start));
    assert_eq!(breaker.times_opened(), 0);
}

#[test]
fn a_connect_that_nobody_answered_says_since_when_nobody_has() {
    let (mut lost, start) = (breaker(2 * SECOND), Instant::now());
    let mut answered = lost.clone();
    let now = start + 5 * SECOND;
    (0..5).for_each(|_| lost.on_connect(now, start, Evidence::Silent));
    assert!(!passes(&mut lost, now), "it has been away for five seconds");
    // An answer in the meantime is newer than their beginning.
    answered.on_evidence(now - SECOND, Evidence::Answered, Some(1));
    (0..5).for_each(|_| answered.on_connect(now, start, Evidence::Silent));
    assert!(passes(&mut answered, now));
    assert!(!passes(&mut answered, now + SECOND));
}

#[test]
fn what_a_call_would_meet_is_told_without_counting_as_a_call() {
    let (mut breaker, now) = opened();
    let told = breaker.refusing(now).unwrap();
    assert_eq!(told, breaker.admit(now));
    let overdue = now + 60 * SECOND;
    assert!(breaker.refusing(overdue).is_some());
    assert!(passes(&mut breaker, overdue), "the place was not taken");
    breaker.force_close();
    assert_eq!(breaker.refusing(now), None);
    breaker.force_open(now);
    assert!(breaker.is_forced_open());
    assert_eq!(breaker.refusing(now), Some(breaker.admit(now)));
}

#[test]
fn a_short_outage_is_ridden_through_and_a_long_one_is_not() {
    let (mut breaker, start) = (breaker(2 * SECOND), Instant::now());
    (0..50).for_each(|n| breaker.on_evidence(start, Evidence::Silent, Some(n)));
    refuse_connects(&mut breaker, start + SECOND, 20);
    assert!(passes(&mut breaker, start + 2 * SECOND - MILLI));
    let at = start + 2 * SECOND;
    let Admission::Refuse { since, .. } = breaker.admit(at) else {
        panic!("{breaker:?}")
    };
    assert_eq!(since, start, "the outage began with the first loss");
    assert_eq!(breaker.times_opened(), 1);
}

#[test]
fn a_database_that_is_back_within_the_ride_through_is_never_refused() {
    let (mut breaker, start) = (breaker(2 * SECOND), Instant::now());
    (0..50).for_each(|n| breaker.on_evidence(start, Evidence::Silent, Some(n)));
    refuse_connects(&mut breaker, start + SECOND, 8);
    breaker.on_evidence(start + SECOND * 3 / 2, Evidence::Answered, None);
    // Quiet traffic: most of the window is still failures, but the latest news is good.
    for quarter in 7..60 {
        let now = start + quarter * SECOND / 4;
        assert!(passes(&mut breaker, now), "{quarter}");
        breaker.on_evidence(now, Evidence::Answered, Some(1));
    }
    assert_eq!(breaker.times_opened(), 0);
}

#[test]
fn each_outage_has_a_ride_through_of_its_own() {
    let (mut breaker, start) = (breaker(2 * SECOND), Instant::now());
    refuse_connects(&mut breaker, start, 5);
    breaker.on_evidence(start + SECOND, Evidence::Answered, None);
    let second = start + 20 * SECOND;
    refuse_connects(&mut breaker, second, 5);
    assert!(passes(&mut breaker, second + SECOND));
    assert!(!passes(&mut breaker, second + 2 * SECOND));
}

#[test]
fn mostly_failing_opens_although_some_calls_are_answered() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut breaker, start) = (breaker(2 * SECOND), Instant::now());
        for n in 0..1000_u32 {
            let evidence = if rng.u32(0..10) == 0 {
                Evidence::Answered
            } else {
                Evidence::Silent
            };
            breaker.on_evidence(start + n * 10 * MILLI, evidence, Some(rng.u64(0..9)));
        }
        assert_eq!(breaker.times_opened(), 1, "seed {seed}");
    }
}

#[test]
fn the_prober_asks_at_least_every_half_second_and_not_in_step() {
    let (mut breaker, mut now) = opened();
    let mut waits = vec![];
    for _ in 0..100 {
        let next = breaker.next_probe(now).unwrap();
        waits.push(next - now);
        now = next;
        breaker.on_probe(now, false);
    }
    assert!(
        waits
            .iter()
            .all(|wait| (250 * MILLI..=500 * MILLI).contains(wait)),
        "{waits:?}"
    );
    let (shortest, longest) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*longest - *shortest > 150 * MILLI, "{waits:?}");
    assert_eq!(
        breaker.times_opened(),
        1,
        "a bad probe does not open it anew"
    );
}

#[test]
fn nobody_asks_while_it_is_closed_and_an_overdue_probe_is_due_now() {
    let mut closed = breaker(SECOND);
    let now = Instant::now();
    assert_eq!(closed.next_probe(now), None);
    closed.on_probe(now, true);
    assert_eq!(closed.state(), State::Closed);
    let (breaker, start) = opened();
    assert_eq!(
        breaker.next_probe(start + 9 * SECOND),
        Some(start + 9 * SECOND)
    );
}

#[test]
fn two_good_probes_close_it_within_six_hundred_milliseconds() {
    let (mut breaker, start) = opened();
    let first = breaker.next_probe(start).unwrap();
    breaker.on_probe(first, true);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(!passes(&mut breaker, first));
    let second = breaker.next_probe(first).unwrap();
    assert_eq!(second, first + 50 * MILLI);
    breaker.on_probe(second, true);
    assert_eq!(breaker.state(), State::Closed);
    assert!(passes(&mut breaker, second));
    assert!(second - start <= 550 * MILLI);
}

#[test]
fn a_bad_probe_half_open_reopens_it_with_the_same_beginning() {
    let (mut breaker, start) = opened();
    breaker.on_probe(start + SECOND, true);
    breaker.on_probe(start + 2 * SECOND, false);
    let State::Open { until, since } = breaker.state() else {
        panic!("{breaker:?}")
    };
    assert_eq!(since, start);
    assert!(until > start + 2 * SECOND);
    // The good probe before the bad one counts no longer.
    breaker.on_probe(start + 3 * SECOND, true);
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[test]
fn those_who_are_refused_hear_when_asking_again_can_help() {
    let (mut breaker, now) = opened();
    let probe = breaker.next_probe(now).unwrap();
    let expected = Admission::Refuse {
        retry_after: probe - now + 50 * MILLI,
        since: now,
    };
    assert_eq!(breaker.admit(now), expected);
}

#[test]
fn late_news_decides_nothing_while_it_is_open() {
    let (mut breaker, now) = opened();
    let before = breaker.state();
    (0..100).for_each(|n| breaker.on_evidence(now, Evidence::Answered, Some(n)));
    (0..100).for_each(|n| breaker.on_evidence(now, Evidence::Silent, Some(n)));
    assert_eq!(breaker.state(), before);
}

#[test]
fn the_ramp_doubles_with_every_batch_of_answers() {
    let (mut breaker, start) = opened();
    let now = probe_until_closed(&mut breaker, start);
    for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
        let admitted = (0..10_000)
            .take_while(|_| passes(&mut breaker, now))
            .count();
        assert_eq!(admitted, expected);
        (0..admitted).for_each(|_| breaker.on_evidence(now, Evidence::Answered, Some(1)));
    }
    assert!(
        (0..10_000).all(|_| passes(&mut breaker, now)),
        "then there is no limit"
    );
}

#[test]
fn the_ramp_ends_by_time_even_if_nobody_ever_reports() {
    let (mut breaker, start) = opened();
    let closed = probe_until_closed(&mut breaker, start);
    let mut most = 0;
    for step in 0..9 {
        let now = closed + step * 50 * MILLI;
        let admitted = (0..10_000)
            .take_while(|_| passes(&mut breaker, now))
            .count();
        assert!(admitted <= 1 << step, "step {step}");
        most = most.max(admitted);
    }
    assert_eq!(most, 256);
    let now = closed + 450 * MILLI;
    assert!((0..10_000).all(|_| passes(&mut breaker, now)));
}

#[test]
fn a_failure_begins_the_ramp_again_and_a_relapse_opens_without_ride_through() {
    let mut breaker = breaker(2 * SECOND);
    let start = Instant::now();
    refuse_connects(&mut breaker, start, 5);
    assert!(!passes(&mut breaker, start + 2 * SECOND));
    let now = probe_until_closed(&mut breaker, start + 2 * SECOND) + 101 * MILLI;
    assert_eq!((0..9).take_while(|_| passes(&mut breaker, now)).count(), 4);
    breaker.on_evidence(now, Evidence::Silent, Some(1));
    (0..3).for_each(|_| breaker.on_evidence(now, Evidence::Neither, Some(1)));
    assert_eq!((0..9).take_while(|_| passes(&mut breaker, now)).count(), 1);
    refuse_connects(&mut breaker, now, 5);
    let State::Open { since, .. } = breaker.state() else {
        panic!("{breaker:?}")
    };
    assert_eq!(since, start, "the same outage still");
    assert_eq!(breaker.times_opened(), 2);
}

#[test]
fn a_missing_prober_is_replaced_by_one_caller() {
    let (mut breaker, start) = opened();
    let due = breaker.next_probe(start).unwrap();
    assert!(!passes(&mut breaker, due + 15 * SECOND - MILLI));
    let now = due + 15 * SECOND;
    assert!(passes(&mut breaker, now));
    assert!(!passes(&mut breaker, now), "only one");
    breaker.on_evidence(now, Evidence::Answered, Some(1));
    assert_eq!(breaker.state(), State::HalfOpen);
    // One that never reports is replaced as well.
    assert!(passes(&mut breaker, now + 16 * SECOND));
    assert!(passes(&mut breaker, now + 32 * SECOND));
    breaker.on_evidence(now + 32 * SECOND, Evidence::Silent, Some(1));
    assert_eq!(breaker.state_name(), "open");
}

#[test]
fn an_operator_opens_closes_and_hands_back() {
    let (mut breaker, now) = (breaker(Duration::ZERO), Instant::now());
    breaker.force_open(now);
    assert_eq!(breaker.state_name(), "open");
    assert_eq!(breaker.next_probe(now), None);
    breaker.on_probe(now, true);
    let refused = Admission::Refuse {
        retry_after: FORCED_RETRY_AFTER,
        since: now,
    };
    assert_eq!(breaker.admit(now + 99 * SECOND), refused);

    breaker.force_close();
    refuse_connects(&mut breaker, now, 100);
    assert!(passes(&mut breaker, now));

    breaker.automatic(now);
    assert!(
        passes(&mut breaker, now),
        "failures under an order are forgotten"
    );
    refuse_connects(&mut breaker, now, 5);
    assert!(!passes(&mut breaker, now));

    breaker.force_open(now);
    breaker.automatic(now);
    assert!(passes(&mut breaker, now));
    assert!(
        !passes(&mut breaker, now),
        "after a forced opening there is a ramp"
    );
}

#[test]
fn extreme_settings_neither_panic_nor_stick() {
    for extreme in [Duration::ZERO, Duration::MAX] {
        let config = BreakerConfig {
            window: extreme,
            failures: 0,
            failure_percent: 0,
            silent_connects: 0,
            ride_through: Duration::ZERO,
            probe_every: extreme,
            confirm_after: extreme,
            probes_to_close: 0,
            probe_patience: extreme,
            ramp_step: extreme,
            seed: Some(1),
        };
        let (mut breaker, now) = (Breaker::new(config), Instant::now());
        assert!(passes(&mut breaker, now), "nothing has failed yet");
        refuse_connects(&mut breaker, now, 1);
        assert_eq!(breaker.state_name(), "open");
        let closed = probe_until_closed(&mut breaker, now);
        assert!(passes(&mut breaker, closed));
    }
}
