//! Pools side by side: the same work, limit, allocator and settings, in rounds that take turns, so
//! that a busy neighbour slows all of them alike. Prints Markdown tables; what counts is the ratio.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml` (below a minute), `-- --long` (five minutes).

mod counting;
mod crowd;
mod load;
mod peers;
mod solo;

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

fn main() {
    let long = std::env::args().any(|argument| argument == "--long");
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
        solo::run(effort).await;
        crowd::run(effort).await;
        load::run(effort).await;
    };
    // On a worker, where a service's own tasks run.
    let done = runtime.block_on(runtime.spawn(all));
    done.expect("a measurement panicked");
}

/// The middle value.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
