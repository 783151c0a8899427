//! More load than capacity: how much of the capacity still goes into calls that are answered before
//! their caller has given up.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::peers::{self, Checks, Peer};
use crate::{Effort, median};

const LIMIT: usize = 20;
const HOLD: Duration = Duration::from_millis(10);
/// When callers give up; every pool is told.
const DEADLINE: Duration = Duration::from_millis(200);

/// Answers in a second that the connections can give, measured with nobody giving up.
async fn capacity(length: Duration) -> f64 {
    let peer = peers::semaphore(LIMIT);
    let begun = Instant::now();
    let crowd: Vec<_> = (0..LIMIT)
        .map(|_| {
            let peer = peer.clone();
            tokio::spawn(async move {
                let mut calls = 0_u32;
                while begun.elapsed() < length {
                    let held = peer.take(DEADLINE).await.expect("one for each");
                    sleep(HOLD).await;
                    peer.give(held).await;
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let mut calls = 0;
    for task in crowd {
        calls += task.await.expect("no caller panics");
    }
    f64::from(calls) / begun.elapsed().as_secs_f64()
}

/// Offers calls at this rate and returns how many a second were answered in time.
async fn useful<P: Peer>(peer: &P, rate: f64, length: Duration) -> f64 {
    let begun = Instant::now();
    let mut calls = Vec::new();
    let mut offered = 0.0;
    while begun.elapsed() < length {
        // A millisecond's worth of arrivals at a time: the timer is no finer.
        sleep_until(Instant::now() + Duration::from_millis(1)).await;
        let due = begun.elapsed().as_secs_f64() * rate;
        while offered < due {
            offered += 1.0;
            let peer = peer.clone();
            calls.push(tokio::spawn(async move {
                let asked = Instant::now();
                let Some(held) = peer.take(DEADLINE).await else {
                    return false;
                };
                sleep(HOLD).await;
                peer.give(held).await;
                asked.elapsed() <= DEADLINE
            }));
        }
    }
    let mut answered = 0_u32;
    for call in calls {
        answered += u32::from(call.await.expect("no caller panics"));
    }
    // The calls that were begun last end after the length, and count on both sides.
    f64::from(answered) / begun.elapsed().as_secs_f64()
}

/// How much of the capacity is useful when so many times the capacity is offered to mainstay.
pub async fn share(offered: f64, length: Duration) -> f64 {
    let capacity = capacity(length).await;
    let pool = peers::mainstay(LIMIT, Checks::Off);
    useful(&pool, capacity * offered, length).await / capacity
}

pub async fn run(effort: Effort) {
    println!(
        "### More load than capacity: {LIMIT} connections held for {HOLD:?}, given up after {DEADLINE:?}\n"
    );
    println!("| pool | useful at 1.5 x | useful at 3 x |");
    println!("|---|---|---|");
    let names = [
        "mainstay",
        "deadpool Fast",
        "bb8",
        "mobc",
        "connpool-rs",
        "semaphore and stack",
    ];
    let mut shares: [[Vec<f64>; 2]; 6] = Default::default();
    let length = effort.turn * 3;
    for _ in 0..effort.rounds {
        for (column, offered) in [1.5, 3.0].into_iter().enumerate() {
            let capacity = capacity(effort.turn * 2).await;
            let rate = capacity * offered;
            let checks = Checks::Off;
            let bb8 = peers::bb8(LIMIT, checks, DEADLINE).await;
            let useful = [
                useful(&peers::mainstay(LIMIT, checks), rate, length).await,
                useful(&peers::deadpool(LIMIT, true), rate, length).await,
                useful(&bb8, rate, length).await,
                useful(&peers::mobc(LIMIT, checks), rate, length).await,
                useful(&peers::connpool(LIMIT, checks), rate, length).await,
                useful(&peers::semaphore(LIMIT), rate, length).await,
            ];
            for (row, useful) in shares.iter_mut().zip(useful) {
                row[column].push(useful / capacity);
            }
        }
    }
    for (name, row) in names.iter().zip(&mut shares) {
        let [less, more] = row.each_mut().map(|shares| median(shares) * 100.0);
        println!("| {name} | {less:.0} % | {more:.0} % |");
    }
    println!();
}
