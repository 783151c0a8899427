//! Being asked to stop. Dropping what runs rolls it back and leaves no half-written file, which the
//! signals' own way of ending a process does not.

#[cfg_attr(unix, path = "interrupt/unix.rs")]
#[cfg_attr(not(unix), path = "interrupt/other.rs")]
mod system;

use crate::failure::{Failure, Result};

/// Works until it is done, or until the process is asked to stop: then the work is dropped.
///
/// # Cancel safety
///
/// That of the work.
pub(crate) async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        () = system::asked() => Err(Failure::interrupted()),
    }
}
