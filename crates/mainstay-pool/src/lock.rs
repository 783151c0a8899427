//! Why a module for a lock: under shuttle the same code runs with locks at which a scheduler may
//! change threads (`tests/handover.rs`), so there is one place that says which locks they are.
//!
//! Those of `parking_lot`: whoever finds one taken looks again a few times, giving way meanwhile, before
//! it sleeps, and what happens under these locks takes less time than falling asleep does.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

#[cfg(not(shuttle))]
#[inline]
pub(crate) fn enter<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// Nothing panics under the locks of this crate; if something did, what they guard is still the best
/// there is.
#[cfg(shuttle)]
pub(crate) fn enter<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What a lock guards, for its only owner.
#[cfg(not(shuttle))]
pub(crate) fn own<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut()
}

#[cfg(shuttle)]
pub(crate) fn own<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex
        .get_mut()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
