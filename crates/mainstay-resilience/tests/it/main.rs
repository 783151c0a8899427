//! The laws of failure handling, driven from outside with instants written by hand and random
//! events from a seed.

#![expect(
    clippy::print_stderr,
    reason = "a failing seed is printed to be replayed"
)]

mod breaker_never_sticks;
mod deadline_is_kept;
mod retries_stay_within_budget;
mod seeds;
