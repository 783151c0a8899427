//! Why a module for a lock: under shuttle the same code runs with locks at which a scheduler may
//! change threads (`tests/handover.rs`), so there is one place that says which locks they are.

use std::sync::PoisonError;
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

/// Locks. Nothing panics under the locks of this crate; if something did, what they guard is still
/// the best there is.
#[inline]
pub(crate) fn enter<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
