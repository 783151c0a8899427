//! One turn of one peer: a program of its own for each, because no two of the peers' SQLite libraries
//! can be in one. Every program has this file and answers with one line.
//!
//! `PROGRAM turn PEER inserts|reads|mixed CALLERS MILLISECONDS FULL|NORMAL FILE`

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whatever stops a peer; it voids its row.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The rows that are there to be read.
pub const ROWS: i64 = 10_000;
pub const CREATE: &str = "create table if not exists t
    (id integer primary key, owner integer not null, body text not null)";
pub const INSERT: &str = "insert into t (owner, body) values ($1, $2)";
pub const READ: &str = "select body from t where id = $1";
pub const COUNT: &str = "select count(*) from t";
pub const BUSY: Duration = Duration::from_secs(5);

/// What every connection is told, with its `synchronous`; the log is chosen before.
#[allow(dead_code)] // mainstay sets all of this by itself
pub const PRAGMAS: [(&str, &str); 5] = [
    ("foreign_keys", "on"),
    ("cache_size", "-16000"),
    ("temp_store", "memory"),
    ("mmap_size", "0"),
    ("journal_size_limit", "67108864"),
];

/// One way to use SQLite from asynchronous code.
pub trait Peer: Send + Sync + 'static {
    fn insert(&self, owner: i64, body: String)
    -> impl Future<Output = Result<(), Failure>> + Send;
    fn read(&self, id: i64) -> impl Future<Output = Result<String, Failure>> + Send;
    fn count(&self) -> impl Future<Output = Result<i64, Failure>> + Send;
}

/// What is to be done.
pub struct Task {
    pub peer: String,
    what: String,
    callers: usize,
    length: Duration,
    pub synchronous: String,
    pub file: String,
}

impl Task {
    /// From the arguments after `turn`.
    pub fn from_arguments() -> Self {
        let given: Vec<String> = std::env::args().skip(2).collect();
        let [peer, what, callers, length, synchronous, file] =
            <[String; 6]>::try_from(given).expect("six arguments");
        Self {
            peer,
            what,
            callers: callers.parse().expect("a number of callers"),
            length: Duration::from_millis(length.parse().expect("milliseconds")),
            synchronous,
            file,
        }
    }

    /// Whether nobody reads, nobody writes, or half of them do either.
    fn writes(&self, caller: usize) -> bool {
        match self.what.as_str() {
            "inserts" => true,
            "mixed" => caller % 2 == 0,
            _ => false,
        }
    }
}

/// What one caller did, with the microseconds of each call.
struct Done {
    wrote: bool,
    took: Vec<u32>,
}

async fn call<P: Peer>(peer: Arc<P>, caller: usize, writes: bool, stop: Arc<AtomicBool>) -> Result<Done, Failure> {
    let owner = i64::try_from(caller)?;
    // Everybody has a way of his own through the rows.
    let mut number = owner.wrapping_mul(7_919);
    let body = "x".repeat(100);
    let mut took = Vec::with_capacity(100_000);
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        if writes {
            peer.insert(owner, body.clone()).await?;
        } else {
            number = (number.wrapping_mul(1_103_515_245) + 12_345) & 0x7FFF_FFFF;
            let text = peer.read(number % ROWS + 1).await?;
            if text.len() != 100 {
                return Err("a row that was read is not the one that was written".into());
            }
        }
        took.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(Done { wrote: writes, took })
}

/// What the least served caller had of the most served one's, among those who do the same.
fn fairness(done: &[Done], wrote: bool) -> f64 {
    let calls = done.iter().filter(|one| one.wrote == wrote).map(|one| one.took.len());
    match (calls.clone().min(), calls.max()) {
        (Some(least), Some(most)) => least as f64 / most.max(1) as f64,
        _ => 1.0,
    }
}

async fn measure<P: Peer>(peer: P, task: &Task) -> Result<String, Failure> {
    let peer = Arc::new(peer);
    let before = peer.count().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let callers: Vec<_> = (0..task.callers)
        .map(|caller| {
            let writes = task.writes(caller);
            tokio::spawn(call(Arc::clone(&peer), caller, writes, Arc::clone(&stop)))
        })
        .collect();
    tokio::time::sleep(task.length).await;
    stop.store(true, Ordering::Relaxed);
    let mut done = Vec::new();
    for caller in callers {
        done.push(caller.await??);
    }
    let length = begun.elapsed();
    let wrote: usize = done.iter().filter(|one| one.wrote).map(|one| one.took.len()).sum();
    let found = peer.count().await? - before;
    if found != i64::try_from(wrote)? {
        return Err(format!("{wrote} inserts were acknowledged, {found} are there").into());
    }
    let read: usize = done.iter().filter(|one| !one.wrote).map(|one| one.took.len()).sum();
    let fairness = fairness(&done, true).min(fairness(&done, false));
    let mut took: Vec<u32> = done.into_iter().flat_map(|one| one.took).collect();
    took.sort_unstable();
    let at = |share: f64| {
        let index = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
        took.get(index).map_or(f64::NAN, |&us| f64::from(us) / 1_000.0)
    };
    let seconds = length.as_secs_f64();
    Ok(format!(
        "{} {} {fairness} {} {} {}",
        wrote as f64 / seconds,
        read as f64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0),
    ))
}

/// Runs a turn, for which `open` opens the peer, and prints what it showed.
pub fn run<P: Peer, F: Future<Output = Result<P, Failure>> + Send>(task: &Task, version: &str, open: F) {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(2))
        .enable_all()
        .build()
        .expect("threads can be started");
    let done = runtime.block_on(async { measure(open.await?, task).await });
    match done {
        Ok(line) => println!("{version} {line}"),
        Err(error) => println!("{version} void {}", error.to_string().replace('\n', " ")),
    }
}
