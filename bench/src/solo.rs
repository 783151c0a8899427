//! One caller, ten idle connections: what an acquire and its release cost when nobody is in the way.

use std::time::{Duration, Instant};

use crate::counting::allocations;
use crate::peers::{self, Checks, PATIENCE, Peer};
use crate::{Effort, median};

const LIMIT: usize = 10;
/// Short enough that a round of all fits between two interruptions, long enough to be timed.
const OPERATIONS: u32 = 2_000;

struct Row {
    name: &'static str,
    nanos: Vec<f64>,
    allocations: f64,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            nanos: Vec::new(),
            allocations: 0.0,
        }
    }

    async fn measure(&mut self, peer: &impl Peer) {
        turns(peer, 100).await;
        let before = allocations();
        self.nanos.push(nanos(peer, OPERATIONS).await);
        self.allocations = (allocations() - before) as f64 / f64::from(OPERATIONS);
    }
}

/// Nanoseconds of one acquire and release, over so many.
pub async fn nanos(peer: &impl Peer, count: u32) -> f64 {
    let begun = Instant::now();
    turns(peer, count).await;
    begun.elapsed().as_nanos() as f64 / f64::from(count)
}

async fn turns(peer: &impl Peer, count: u32) {
    for _ in 0..count {
        let held = peer.take(PATIENCE).await.expect("one is idle");
        peer.give(held).await;
    }
}

pub async fn run(effort: Effort) {
    println!("### One task, acquire and release\n");
    println!("| pool | ns | of deadpool | of deadpool without timeouts | allocations |");
    println!("|---|---|---|---|---|");
    for checks in [Checks::Off, Checks::Default] {
        let mainstay = peers::mainstay(LIMIT, checks);
        let fixed = peers::fixed(LIMIT, checks);
        let shared = peers::shared(LIMIT, checks);
        let deadpool = peers::deadpool(LIMIT, true);
        let unbounded = peers::deadpool(LIMIT, false);
        let bb8 = peers::bb8(LIMIT, checks, PATIENCE).await;
        let mobc = peers::mobc(LIMIT, checks);
        let connpool = peers::connpool(LIMIT, checks);
        let semaphore = peers::semaphore(LIMIT);
        let mut rows = [
            "mainstay",
            "mainstay, deadline given",
            "mainstay, a place",
            "deadpool Fast",
            "deadpool Fast, no timeouts",
            "bb8",
            "mobc",
            "connpool-rs",
            "semaphore and stack",
        ]
        .map(Row::new);
        for _ in 0..effort.rounds * 30 {
            let [a, b, s, c, d, e, f, g, h] = &mut rows;
            a.measure(&mainstay).await;
            b.measure(&fixed).await;
            s.measure(&shared).await;
            c.measure(&deadpool).await;
            d.measure(&unbounded).await;
            e.measure(&bb8).await;
            f.measure(&mobc).await;
            g.measure(&connpool).await;
            h.measure(&semaphore).await;
        }
        let nanos = rows.each_mut().map(|row| median(&mut row.nanos));
        println!("| *{}* | | | | |", checks.title());
        for (row, ns) in rows.iter().zip(nanos) {
            let (name, allocations) = (row.name, row.allocations);
            let (bounded, plain) = (ns / nanos[3], ns / nanos[4]);
            println!("| {name} | {ns:.0} | {bounded:.2} | {plain:.2} | {allocations:.2} |");
        }
    }
    println!();
    // Whatever idles in the background ends before the next scenario.
    tokio::time::sleep(Duration::from_millis(10)).await;
}
