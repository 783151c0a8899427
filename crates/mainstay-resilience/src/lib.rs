//! What to do about failure.
//!
//! A database call can fail before anything was sent, after everything was done, or anywhere
//! between, and each place asks for something else: do it again, do all of it again, say that
//! nobody knows, or give up at once. This crate holds those decisions and nothing besides. It opens
//! no socket, knows no SQL and no pool, starts no task and reads no environment. `now` comes in, a
//! decision comes out, so every rule here can be tested with instants written by hand.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | class | what an error means for what may be done next |
//! | evidence | what a result says about the health of the database |
//! | deadline | the instant that bounds everything one call does |
//! | backoff | the wait before the next attempt: longer each time, and random |
//! | budget | tokens that every retry costs and every success earns back |
//! | breaker | the gate that stops calls while the database does not answer |
//! | ride-through | the length up to which an outage is waited out before the breaker opens |
//! | login gate | the slower gate of a server that refuses our credentials |
//! | probe | the question "are you back?", asked by one prober while the breaker is open |
//!
//! # Example
//!
//! The thin shell around the decisions: everything that waits or acts is here, everything that
//! judges is in the crate.
//!
//! ```
//! use mainstay_resilience::{
//!     Admission, Breaker, BreakerConfig, Class, Deadline, Decision, Evidence, Retrier, Work,
//! };
//! use std::time::Duration;
//! use tokio::time::Instant;
//!
//! /// Stands for one statement sent to a server that loses the first connection.
//! async fn read(attempt: u32) -> Result<&'static str, (Class, Evidence)> {
//!     if attempt == 1 { Err((Class::ReadLost, Evidence::Silent)) } else { Ok("row") }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let (retrier, mut breaker) = (Retrier::default(), Breaker::new(BreakerConfig::default()));
//! let deadline = Deadline::from_now(Duration::from_secs(30));
//! let (mut rng, mut attempt, statement) = (mainstay_resilience::Rng::new(), 1, Some(42));
//! let row = loop {
//!     if let Admission::Refuse { retry_after, .. } = breaker.admit(Instant::now()) {
//!         break Err(format!("the database does not answer, try again in {retry_after:?}"));
//!     }
//!     let (class, evidence) = match read(attempt).await {
//!         Ok(row) => {
//!             breaker.on_evidence(Instant::now(), Evidence::Answered, statement);
//!             retrier.on_success();
//!             break Ok(row);
//!         }
//!         Err(failure) => failure,
//!     };
//!     let now = Instant::now();
//!     breaker.on_evidence(now, evidence, statement);
//!     match retrier.decide(now, attempt, class, evidence, Work::Read, deadline, &mut rng) {
//!         Decision::Again { after } => tokio::time::sleep(after).await,
//!         Decision::Stop(reason) => break Err(format!("{class}, not retried: {reason:?}")),
//!     }
//!     attempt += 1;
//! };
//! assert_eq!(row, Ok("row"));
//! # }
//! ```
//!
//! # Reading order
//!
//! `class`, `deadline`, `backoff` and `budget` are the parts; `retry` puts them together; `breaker`
//! stands apart, in front of everything, and `login` beside it.

// The blank lines keep the modules in reading order; without them they would be sorted by name.
mod class;

mod deadline;

mod backoff;

mod budget;

mod retry;

mod breaker;

mod login;

pub use self::backoff::Backoff;
pub use self::breaker::{Admission, Breaker, BreakerConfig, State};
pub use self::budget::Budget;
pub use self::class::{Class, Evidence};
pub use self::deadline::Deadline;
pub use self::login::{LOGIN_INTERVAL, LoginGate};
pub use self::retry::{Decision, Retrier, RetryPolicy, StopReason, Work};
/// The source of jitter that [`Backoff::delay`] and [`Retrier::decide`] draw from.
pub use fastrand::Rng;
