//! Dropping a future in the middle, at every place where it can be dropped.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Polls a future so many times, each time it asks to be polled, and drops it. Answers whether it had
/// finished by then: a test tries 0, 1, 2 … until it has.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use mainstay_testkit::poll_times;
/// use tokio::task::yield_now;
///
/// assert!(!poll_times(yield_now(), 1).await);
/// assert!(poll_times(yield_now(), 2).await);
/// # });
/// ```
///
/// # Cancel safety
///
/// Dropping it drops the future.
pub async fn poll_times<T>(future: impl Future<Output = T>, times: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        let mut polled = false;
        let done = poll_fn(|context| {
            if polled {
                return Poll::Ready(false);
            }
            polled = true;
            match future.as_mut().poll(context) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending => Poll::Pending,
            }
        });
        if done.await {
            return true;
        }
    }
    false
}
