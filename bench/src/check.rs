//! Why a check: an aim that nobody measures again is soon an aim that was met once. Mainstay and
//! deadpool take turns, what is compared is the median of the rounds' ratios, and the command fails when one is
//! missed: `cargo run --release --manifest-path bench/Cargo.toml -- --check`.

use std::time::Duration;

use crate::counting::allocations;
use crate::crowd::{self, Turn};
use crate::peers::{self, Checks, Peer};
use crate::{load, median, solo};

const ROUNDS: usize = 15;

/// One aim and how far it was reached.
struct Verdict {
    aim: &'static str,
    value: f64,
    met: bool,
}

fn at_most(aim: &'static str, value: f64, bound: f64) -> Verdict {
    let met = value <= bound;
    Verdict { aim, value, met }
}

fn at_least(aim: &'static str, value: f64, bound: f64) -> Verdict {
    let met = value >= bound;
    Verdict { aim, value, met }
}

/// Measures everything and says whether every aim was met.
pub async fn run() -> bool {
    let mut verdicts = alone().await;
    verdicts.extend(yielding().await);
    verdicts.extend(holding().await);
    verdicts.extend(overloaded().await);
    println!("| aim | measured | |");
    println!("|---|---|---|");
    for Verdict { aim, value, met } in &verdicts {
        let word = if *met { "met" } else { "**missed**" };
        println!("| {aim} | {value:.3} | {word} |");
    }
    verdicts.iter().all(|verdict| verdict.met)
}

async fn alone() -> Vec<Verdict> {
    const OPERATIONS: u32 = 2_000;
    let (limit, checks) = (10, Checks::Off);
    let (mainstay, fixed) = (peers::mainstay(limit, checks), peers::fixed(limit, checks));
    let (bounded, unbounded) = (peers::deadpool(limit, true), peers::deadpool(limit, false));
    let mut nanos: [Vec<f64>; 4] = Default::default();
    let mut counted = 0;
    for round in 0..ROUNDS * 20 {
        let before = allocations();
        nanos[0].push(solo::nanos(&mainstay, OPERATIONS).await);
        nanos[1].push(solo::nanos(&fixed, OPERATIONS).await);
        // The first round opens the connection.
        counted += if round == 0 {
            0
        } else {
            allocations() - before
        };
        nanos[2].push(solo::nanos(&bounded, OPERATIONS).await);
        nanos[3].push(solo::nanos(&unbounded, OPERATIONS).await);
    }
    let [mainstay, fixed, bounded, unbounded] = &nanos;
    let each = counted as f64 / (f64::from(OPERATIONS) * 2.0 * (ROUNDS * 20 - 1) as f64);
    println!(
        "alone: deadpool that never waits takes {:.2} of what mainstay does",
        ratio(unbounded, fixed)
    );
    vec![
        // The upkeep may wake while it is counted: a handful, not one for each.
        at_most(
            "allocations of an uncontended acquire and release",
            each,
            0.001,
        ),
        at_least(
            "as fast as deadpool `Fast` with the same wait, times",
            ratio(bounded, mainstay),
            2.5,
        ),
        at_least(
            "the same with the deadline given",
            ratio(bounded, fixed),
            2.5,
        ),
    ]
}

/// The median of what the turns of one round say of each other. The machine changes its pace between
/// rounds, and medians of each side alone may come from different ones.
fn ratio(these: &[f64], those: &[f64]) -> f64 {
    median(&mut ratios(these, those))
}

/// Between what the median of the ratios lies with 95 % certainty, whatever their distribution: the
/// binomial confidence interval of a median, with the normal approximation of its ranks.
fn likely(these: &[f64], those: &[f64]) -> [f64; 2] {
    let mut ratios = ratios(these, those);
    ratios.sort_by(f64::total_cmp);
    let (count, reach) = (ratios.len() as f64, 0.98 * (ratios.len() as f64).sqrt());
    let rank = |rank: f64| ratios[(rank.clamp(1.0, count) as usize) - 1];
    [
        rank((count / 2.0 - reach).floor()),
        rank((count / 2.0 + reach).ceil() + 1.0),
    ]
}

fn ratios(these: &[f64], those: &[f64]) -> Vec<f64> {
    these.iter().zip(those).map(|(a, b)| a / b).collect()
}

/// Turns of mainstay, of deadpool, and of a second deadpool: how far the two differ is how far two
/// pools differ that are the same.
async fn turns(
    rounds: usize,
    tasks: usize,
    limit: usize,
    hold: Duration,
    length: Duration,
) -> [Vec<Turn>; 3] {
    let mainstay = peers::mainstay(limit, Checks::Off);
    let deadpools = [peers::deadpool(limit, true), peers::deadpool(limit, true)];
    let mut turns: [Vec<Turn>; 3] = Default::default();
    for round in 0..rounds {
        // Each comes first, in the middle and last equally often.
        for place in 0..3 {
            let who = (round + place) % 3;
            let turn = match who {
                0 => turn(&mainstay, tasks, hold, length).await,
                _ => turn(&deadpools[who - 1], tasks, hold, length).await,
            };
            turns[who].push(turn);
        }
    }
    turns
}

async fn turn(peer: &impl Peer, tasks: usize, hold: Duration, length: Duration) -> Turn {
    crowd::turn(peer, tasks, hold, length).await
}

fn each(turns: &[Turn], pick: impl Fn(&Turn) -> f64) -> Vec<f64> {
    turns.iter().map(pick).collect()
}

fn middle(turns: &[Turn], pick: impl Fn(&Turn) -> f64) -> f64 {
    median(&mut each(turns, pick))
}

async fn yielding() -> Vec<Verdict> {
    let length = Duration::from_millis(150);
    let [ours, theirs, _] = turns(ROUNDS, 100, 10, Duration::ZERO, length).await;
    vec![at_least(
        "100 tasks, 10 connections, held for a yield: calls, of deadpool's",
        ratio(
            &each(&ours, |turn| turn.rate),
            &each(&theirs, |turn| turn.rate),
        ),
        1.0,
    )]
}

async fn holding() -> Vec<Verdict> {
    let (hold, length) = (Duration::from_millis(1), Duration::from_millis(640));
    let [ours, theirs, again] = turns(24, 1000, 50, hold, length).await;
    let [ours99, theirs99, again99] =
        [&ours, &theirs, &again].map(|turns| each(turns, |turn| turn.waits[1]));
    let tail = ratio(&ours99, &theirs99);
    let same = likely(&again99, &theirs99);
    println!(
        "holding: a second deadpool says between {:.3} and {:.3}, mainstay {tail:.3} of the first one's p99",
        same[0], same[1]
    );
    let spread = middle(&ours, |turn| turn.waits[2] / turn.waits[0]);
    let (least, most) = (
        middle(&ours, |turn| turn.fairness[0]),
        middle(&ours, |turn| turn.fairness[1]),
    );
    vec![
        at_most(
            "1,000 tasks, 50 connections, 1 ms: p99, of deadpool's, as far as it can be told",
            tail,
            same[1].max(1.0),
        ),
        at_most("the same: p99.9, of its own p50", spread, 1.3),
        at_least("the same: least served task, of the mean", least, 0.9),
        at_most("the same: most served task, of the mean", most, 1.1),
    ]
}

async fn overloaded() -> Vec<Verdict> {
    let mut shares: [Vec<f64>; 2] = Default::default();
    for _ in 0..3 {
        for (share, offered) in shares.iter_mut().zip([1.5, 3.0]) {
            share.push(load::share(offered, Duration::from_millis(480)).await);
        }
    }
    let [less, more] = shares.each_mut().map(|all| median(all));
    vec![
        at_least("useful work at 1.5 times the capacity", less, 0.95),
        at_least("useful work at 3 times the capacity", more, 0.95),
    ]
}
