//! mainstay on PostgreSQL beside its peers: the same work, limit, allocator and server, in rounds
//! that take turns, so that a busy neighbour slows all of them alike. Prints Markdown tables; what
//! counts is the ratio. An error, a wrong answer or a connection too many voids the row.
//!
//! `cargo run --release --manifest-path bench/postgres/Cargo.toml -- selects` (or `writes`, `opening`,
//! `sleeper`); the arguments are in `effort.rs`.

mod effort;
mod opening;
mod peers;
mod pgbench;
mod report;
mod selects;
mod server;
mod sleeper;
mod writes;

use effort::Effort;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The most connections that anybody may open to the server.
pub const LIMIT: usize = 10;

/// Whatever stops a measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() {
    let effort = Effort::from_arguments();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let threads = cores.max(2);
    println!("{cores} CPUs, {threads} runtime threads, mimalloc, at most {LIMIT} connections\n");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("threads can be started");
    let all = async move {
        match effort.what.as_str() {
            "writes" => writes::run(&effort).await,
            "opening" => opening::run(&effort).await,
            "sleeper" => sleeper::run(&effort).await,
            _ => selects::run(&effort).await,
        }
    };
    // On a worker, where a service's own tasks run.
    runtime
        .block_on(runtime.spawn(all))
        .expect("a measurement panicked")
        .expect("the server or the proxy failed");
}
