//! Ctrl-C.

/// Returns when the process is asked to stop.
///
/// # Cancel safety
///
/// Safe; a signal that came meanwhile is lost.
pub(super) async fn asked() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the signal ends the process by itself.
        std::future::pending::<()>().await;
    }
}
