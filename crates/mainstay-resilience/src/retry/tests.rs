use super::*;

const CLASSES: [Class; 5] = [
    Class::NotSent,
    Class::RolledBack,
    Class::ReadLost,
    Class::OutcomeUnknown,
    Class::Permanent,
];
const EVIDENCE: [Evidence; 4] = [
    Evidence::Answered,
    Evidence::Silent,
    Evidence::Exhausted,
    Evidence::Neither,
];
const WORK: [Work; 5] = [
    Work::Read,
    Work::Write,
    Work::IdempotentWrite,
    Work::Unit,
    Work::Once,
];

fn decide(retrier: &Retrier, class: Class, evidence: Evidence, work: Work) -> Decision {
    let now = Instant::now();
    let deadline = Deadline::after(now, Duration::from_secs(60));
    retrier.decide(
        now,
        1,
        class,
        evidence,
        work,
        deadline,
        &mut fastrand::Rng::with_seed(1),
    )
}

/// `-` never, `c` from the conflict budget, `o` from the outage budget.
fn letter(class: Class, evidence: Evidence, work: Work) -> char {
    let retrier = Retrier::default();
    let decision = decide(&retrier, class, evidence, work);
    let conflict = retrier.conflict_budget().tokens() < retrier.conflict_budget().capacity();
    let outage = retrier.outage_budget().tokens() < retrier.outage_budget().capacity();
    match (decision, conflict, outage) {
        (Decision::Stop(StopReason::NotAllowed), false, false) => '-',
        (Decision::Again { .. }, true, false) => 'c',
        (Decision::Again { .. }, false, true) => 'o',
        other => panic!("{class} {evidence} {work:?}: {other:?}"),
    }
}

#[test]
fn every_combination_follows_the_written_table() {
    // One row a class, one word an evidence (answered, silent, exhausted, neither), one letter a
    // work (read, write, idempotent write, unit, once).
    let expected = [
        "oooo- oooo- oooo- -----",
        "cccc- o-oo- oooo- -----",
        "o-oo- o-oo- o-oo- -----",
        "--o-- --o-- --o-- -----",
        "----- ----- ----- -----",
    ];
    for (class, row) in CLASSES.into_iter().zip(expected) {
        let words = EVIDENCE.map(|evidence| {
            WORK.map(|work| letter(class, evidence, work))
                .into_iter()
                .collect::<String>()
        });
        assert_eq!(words.join(" "), row, "{class}");
    }
}

#[test]
fn a_lost_commit_is_never_rerun() {
    let retrier = Retrier::default();
    for evidence in EVIDENCE {
        for work in [Work::Unit, Work::Write, Work::Once] {
            let decision = decide(&retrier, Class::OutcomeUnknown, evidence, work);
            assert_eq!(decision, Decision::Stop(StopReason::NotAllowed));
        }
    }
}

#[test]
fn attempts_are_counted_from_one_and_include_the_first() {
    let retrier = Retrier::default();
    let now = Instant::now();
    let deadline = Deadline::after(now, Duration::from_secs(60));
    let mut rng = fastrand::Rng::with_seed(1);
    let mut attempts_until_stop = |class, evidence, work| {
        (1..100)
            .find(|attempt| {
                let decision =
                    retrier.decide(now, *attempt, class, evidence, work, deadline, &mut rng);
                decision == Decision::Stop(StopReason::Attempts)
            })
            .unwrap()
    };
    assert_eq!(
        attempts_until_stop(Class::RolledBack, Evidence::Answered, Work::Unit),
        5
    );
    assert_eq!(
        attempts_until_stop(Class::ReadLost, Evidence::Silent, Work::Read),
        3
    );
}

#[test]
fn one_attempt_turns_retries_off() {
    let policy = RetryPolicy::outages().with_attempts(0);
    assert_eq!(policy.attempts, 1);
    let retrier = Retrier::new(policy, policy);
    let decision = decide(&retrier, Class::NotSent, Evidence::Silent, Work::Read);
    assert_eq!(decision, Decision::Stop(StopReason::Attempts));
}

#[test]
fn an_empty_outage_budget_leaves_conflicts_alone() {
    let retrier = Retrier::default();
    for _ in 0..20 {
        let decision = decide(&retrier, Class::NotSent, Evidence::Silent, Work::Write);
        assert!(matches!(decision, Decision::Again { .. }));
    }
    let decision = decide(&retrier, Class::NotSent, Evidence::Silent, Work::Write);
    assert_eq!(decision, Decision::Stop(StopReason::Budget));
    let decision = decide(&retrier, Class::RolledBack, Evidence::Answered, Work::Unit);
    assert!(matches!(decision, Decision::Again { .. }));
}

#[test]
fn no_time_left_is_too_late_even_without_a_wait() {
    let policy = RetryPolicy::outages().with_base(Duration::ZERO);
    let retrier = Retrier::new(policy, policy);
    let now = Instant::now();
    let decide = |deadline| {
        let (class, evidence) = (Class::NotSent, Evidence::Silent);
        let mut rng = fastrand::Rng::with_seed(1);
        retrier.decide(now, 1, class, evidence, Work::Read, deadline, &mut rng)
    };
    assert_eq!(
        decide(Deadline::at(now)),
        Decision::Stop(StopReason::Deadline)
    );
    let soon = Deadline::after(now, Duration::from_nanos(1));
    assert_eq!(
        decide(soon),
        Decision::Again {
            after: Duration::ZERO
        }
    );
}

#[test]
fn a_stop_costs_nothing() {
    let retrier = Retrier::default();
    let now = Instant::now();
    let mut rng = fastrand::Rng::with_seed(1);
    let (class, evidence, work) = (Class::NotSent, Evidence::Silent, Work::Read);
    let past = retrier.decide(now, 1, class, evidence, work, Deadline::at(now), &mut rng);
    assert_eq!(past, Decision::Stop(StopReason::Deadline));
    let deadline = Deadline::far_future(now);
    let used = retrier.decide(now, 3, class, evidence, work, deadline, &mut rng);
    assert_eq!(used, Decision::Stop(StopReason::Attempts));
    assert_eq!(
        retrier.outage_budget().tokens(),
        retrier.outage_budget().capacity()
    );
}

#[test]
fn clones_share_one_budget() {
    let retrier = Retrier::default();
    let clone = retrier.clone();
    assert!(matches!(
        decide(&clone, Class::NotSent, Evidence::Silent, Work::Read),
        Decision::Again { .. }
    ));
    assert_eq!(retrier.outage_budget().tokens(), 95);
    retrier.on_success();
    assert_eq!(clone.outage_budget().tokens(), 96);
}

#[test]
fn a_longer_base_lifts_the_cap() {
    let policy = RetryPolicy::conflicts().with_base(Duration::from_secs(3));
    assert_eq!(policy.cap, Duration::from_secs(3));
    let policy = RetryPolicy::conflicts().with_base(Duration::from_millis(1));
    assert_eq!(policy.cap, Duration::from_millis(500));
}
