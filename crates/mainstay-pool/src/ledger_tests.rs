//! The ledger alone: no runtime, no lock, and time is an argument.

use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::connector::{CloseReason, Condition};
use crate::error::Cause;
use crate::ledger::{Ledger, Offer};
use crate::opening::Failure;
use crate::orders::{Order, Orders};
use crate::settings::Settings;
use crate::waiters::{Answer, Priority, Request, Ticket, Use};

const SECOND: Duration = Duration::from_secs(1);

fn ledger(limit: usize) -> Ledger<u32, &'static str> {
    let settings = Settings {
        limit,
        ..Settings::default()
    };
    Ledger::new(settings.sane(), fastrand::Rng::with_seed(1))
}

/// Asks, and expects to be queued.
fn queue(
    ledger: &mut Ledger<u32, &'static str>,
    now: Instant,
    orders: &mut Orders<u32>,
) -> Ticket<u32, &'static str> {
    match ledger.request(now, &Request::until(now + SECOND), Waker::noop(), orders) {
        Offer::Queue(ticket) => ticket,
        Offer::Lend(..) | Offer::Refuse(_) => panic!("there was nothing to lend"),
    }
}

fn connects(orders: &Orders<u32>) -> Vec<usize> {
    let slots = orders.iter().filter_map(|order| match order {
        Order::Connect { index, .. } => Some(*index),
        _ => None,
    });
    slots.collect()
}

#[test]
fn what_arrives_is_put_into_the_oldest_waiters_place() {
    let (mut ledger, now, mut orders) = (ledger(1), Instant::now(), Orders::new());
    let first = queue(&mut ledger, now, &mut orders);
    let second = queue(&mut ledger, now, &mut orders);
    assert_eq!(connects(&orders), [0], "the limit is one");
    ledger.connected(now, 0, 42, &mut orders);
    let answer = first.look(Waker::noop());
    assert!(matches!(answer, Some(Answer::Lent(grant, _)) if grant.connection == 42));
    assert!(second.look(Waker::noop()).is_none());
    ledger.give_back(now, 0, 42, Condition::Clean, &mut orders);
    assert!(matches!(
        second.look(Waker::noop()),
        Some(Answer::Lent(grant, _)) if grant.connection == 42
    ));
}

#[test]
fn clean_return_orders_nothing_once_the_upkeep_is_set() {
    let (mut ledger, now, mut orders) = (ledger(1), Instant::now(), Orders::new());
    let key = queue(&mut ledger, now, &mut orders);
    ledger.connected(now, 0, 42, &mut orders);
    assert!(key.look(Waker::noop()).is_some());
    ledger.give_back(now, 0, 42, Condition::Clean, &mut orders);
    orders = Orders::new();
    for n in 1..1000 {
        let now = now + Duration::from_micros(n);
        let offer = ledger.request(now, &Request::until(now), Waker::noop(), &mut orders);
        assert!(matches!(offer, Offer::Lend(grant) if grant.connection == 42));
        ledger.give_back(now, 0, 42, Condition::Clean, &mut orders);
    }
    assert!(orders.is_empty(), "no wake, no task, no event");
}

#[test]
fn slot_counts_until_the_connection_has_gone() {
    let (mut ledger, now, mut orders) = (ledger(1), Instant::now(), Orders::new());
    let key = queue(&mut ledger, now, &mut orders);
    ledger.connected(now, 0, 42, &mut orders);
    assert!(key.look(Waker::noop()).is_some());
    orders = Orders::new();
    ledger.give_back(now, 0, 42, Condition::Broken, &mut orders);
    let closing = Order::Close {
        index: 0,
        connection: 42,
        reason: CloseReason::Broken,
    };
    assert_eq!(
        std::mem::discriminant(orders.iter().next().unwrap()),
        std::mem::discriminant(&closing)
    );
    queue(&mut ledger, now, &mut orders);
    assert_eq!((ledger.status().in_use(), connects(&orders).len()), (1, 0));
    ledger.vacate(now, 0, &mut orders);
    assert_eq!(
        (ledger.status().connecting, connects(&orders).len()),
        (1, 1)
    );
}

#[test]
fn failure_is_the_cause_until_connecting_succeeds() {
    let (mut ledger, now, mut orders) = (ledger(2), Instant::now(), Orders::new());
    queue(&mut ledger, now, &mut orders);
    assert_eq!(ledger.cause_of_timeout(), Cause::Silent);
    let failure = Failure {
        error: Some("refused"),
        permanent: false,
        retry_after: None,
    };
    ledger.connect_failed(now, 0, failure, &mut orders);
    assert_eq!(ledger.cause_of_timeout(), Cause::Unreachable("refused"));
    orders = Orders::new();
    let later = now + SECOND;
    ledger.tend(later, &mut orders);
    assert_eq!(
        connects(&orders),
        [0],
        "the next attempt, paced by the upkeep"
    );
    ledger.connected(later, 0, 42, &mut orders);
    assert_eq!(ledger.cause_of_timeout(), Cause::Exhausted);
    assert_eq!(ledger.last_error(later), Some(("refused", SECOND)));
}

#[test]
fn only_whom_no_rule_concerns_joins_a_plain_queue_the_quick_way() {
    let (mut ledger, now, mut orders) = (ledger(1), Instant::now(), Orders::new());
    ledger.settings.max_waiters = 3;
    let first = queue(&mut ledger, now, &mut orders);
    ledger.connected(now, 0, 42, &mut orders);
    assert!(first.look(Waker::noop()).is_some());
    queue(&mut ledger, now, &mut orders);
    ledger.weather = ledger.outlook();
    let plain = Request::until(now + SECOND);
    let mut joins = |request: Request| {
        let offer = ledger.offer_quickly(now, &request, Waker::noop());
        assert_eq!(ledger.weather, ledger.outlook());
        matches!(offer, Some(Offer::Queue(_)))
    };
    assert!(!joins(Request::until(now)), "too late");
    assert!(!joins(plain.priority(Priority::Batch)), "another line");
    let wanted = Use::Shared;
    assert!(!joins(Request { wanted, ..plain }), "another use");
    assert!(joins(plain));
    assert!(joins(plain));
    assert!(!joins(plain), "the bound on waiters");
    let waiting = ledger.status().waiting;
    assert_eq!(waiting, 3);
}
