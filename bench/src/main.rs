//! Pools side by side: the same work, limit, allocator and settings, in rounds that take turns, so
//! that a busy neighbour slows all of them alike. Prints Markdown tables; what counts is the ratio.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml` (below a minute), `-- --long` (five minutes),
//! `-- --check` (a minute; only mainstay and deadpool, fails when an aim is missed).

mod check;
mod counting;
mod crowd;
mod load;
mod peers;
mod solo;

use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// How much of everything is measured.
#[derive(Copy, Clone)]
pub struct Effort {
    /// Rounds in which everybody has a turn.
    pub rounds: usize,
    /// The length of one turn of a crowd.
    pub turn: Duration,
}

fn main() -> ExitCode {
    let told = |word: &str| std::env::args().any(|argument| argument == word);
    let (long, check) = (told("--long"), told("--check"));
    let effort = if long {
        Effort {
            rounds: 5,
            turn: Duration::from_millis(500),
        }
    } else {
        Effort {
            rounds: 3,
            turn: Duration::from_millis(160),
        }
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} CPUs, {} runtime threads\n", cores.max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(2))
        .enable_all()
        .build()
        .expect("threads can be started");
    let all = async move {
        if check {
            return check::run().await;
        }
        solo::run(effort).await;
        crowd::run(effort).await;
        load::run(effort).await;
        true
    };
    // On a worker, where a service's own tasks run.
    let done = runtime.block_on(runtime.spawn(all));
    if done.expect("a measurement panicked") {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The middle value.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
