//! More callers than connections: how long each waits, and whether all are treated alike.

use std::time::{Duration, Instant};

use crate::peers::{self, Checks, PATIENCE, Peer};
use crate::{Effort, median};

/// What a crowd saw in one turn.
pub struct Turn {
    /// Calls in a second.
    pub rate: f64,
    /// Milliseconds from asking to holding: half, 99 % and 99.9 % waited less.
    pub waits: [f64; 3],
    /// Calls of the least and of the most served task, of the mean.
    pub fairness: [f64; 2],
}

/// One turn of a crowd: so many tasks that ask, hold and give back over and over.
pub async fn turn<P: Peer>(peer: &P, tasks: usize, hold: Duration, length: Duration) -> Turn {
    let begun = Instant::now();
    let mut crowd = Vec::new();
    for _ in 0..tasks {
        let peer = peer.clone();
        crowd.push(tokio::spawn(async move {
            let mut waits = Vec::with_capacity(1024);
            while begun.elapsed() < length {
                let asked = Instant::now();
                let Some(held) = peer.take(PATIENCE).await else {
                    continue;
                };
                waits.push(asked.elapsed().as_secs_f64() * 1e3);
                if hold.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(hold).await;
                }
                peer.give(held).await;
            }
            waits
        }));
    }
    let mut all = Vec::new();
    let mut counts = Vec::new();
    for task in crowd {
        let waits = task.await.expect("no caller panics");
        counts.push(waits.len() as f64);
        all.extend(waits);
    }
    let took = begun.elapsed().as_secs_f64();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let least = counts.iter().copied().fold(f64::INFINITY, f64::min);
    let most = counts.iter().copied().fold(0.0, f64::max);
    Turn {
        rate: all.len() as f64 / took,
        waits: [at(0.5), at(0.99), at(0.999)],
        fairness: [least / mean, most / mean],
    }
}

struct Row {
    name: &'static str,
    turns: Vec<Turn>,
}

impl Row {
    fn print(&mut self) {
        let of = |pick: &dyn Fn(&Turn) -> f64| {
            let mut values: Vec<f64> = self.turns.iter().map(pick).collect();
            median(&mut values)
        };
        let rate = of(&|turn| turn.rate);
        let [p50, p99, p999] = [0, 1, 2].map(|i| of(&|turn| turn.waits[i]));
        let [least, most] = [0, 1].map(|i| of(&|turn| turn.fairness[i]));
        let name = self.name;
        println!(
            "| {name} | {rate:.0} | {p50:.2} | {p99:.2} | {p999:.2} | {least:.2} | {most:.2} |"
        );
    }
}

/// Everybody's turn in one scenario, over and over.
async fn scenario(effort: Effort, tasks: usize, limit: usize, hold: Duration, length: Duration) {
    println!("### {tasks} tasks, {limit} connections, held for {hold:?}\n");
    println!("| pool | calls/s | wait p50 ms | p99 | p99.9 | least served, of the mean | most |");
    println!("|---|---|---|---|---|---|---|");
    for checks in [Checks::Off, Checks::Default] {
        let mainstay = peers::mainstay(limit, checks);
        let deadpool = peers::deadpool(limit, true);
        let bb8 = peers::bb8(limit, checks, PATIENCE).await;
        let mobc = peers::mobc(limit, checks);
        let connpool = peers::connpool(limit, checks);
        let semaphore = peers::semaphore(limit);
        let names = [
            "mainstay",
            "deadpool Fast",
            "bb8",
            "mobc",
            "connpool-rs",
            "semaphore and stack",
        ];
        let turns = Vec::new;
        let mut rows = names.map(|name| Row {
            name,
            turns: turns(),
        });
        for round in 0..effort.rounds {
            let [a, b, c, d, e, f] = &mut rows;
            // Back and forth, so that nobody always comes after the same one.
            if round % 2 == 0 {
                a.turns.push(turn(&mainstay, tasks, hold, length).await);
                b.turns.push(turn(&deadpool, tasks, hold, length).await);
                c.turns.push(turn(&bb8, tasks, hold, length).await);
                d.turns.push(turn(&mobc, tasks, hold, length).await);
                e.turns.push(turn(&connpool, tasks, hold, length).await);
                f.turns.push(turn(&semaphore, tasks, hold, length).await);
            } else {
                f.turns.push(turn(&semaphore, tasks, hold, length).await);
                e.turns.push(turn(&connpool, tasks, hold, length).await);
                d.turns.push(turn(&mobc, tasks, hold, length).await);
                c.turns.push(turn(&bb8, tasks, hold, length).await);
                b.turns.push(turn(&deadpool, tasks, hold, length).await);
                a.turns.push(turn(&mainstay, tasks, hold, length).await);
            }
        }
        println!("| *{}* | | | | | | |", checks.title());
        rows.iter_mut().for_each(Row::print);
    }
    println!();
}

pub async fn run(effort: Effort) {
    scenario(effort, 100, 10, Duration::ZERO, effort.turn / 2).await;
    // Fairness needs several turns of every task: a thousand on fifty take 40 ms for one.
    scenario(effort, 1000, 50, Duration::from_millis(1), effort.turn * 4).await;
}
