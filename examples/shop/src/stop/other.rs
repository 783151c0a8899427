//! Ctrl-C is all there is.

pub(crate) struct Signals;

impl Signals {
    /// Nothing to prepare.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next one and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            // Without a handler nothing arrives here, and the system ends the process itself.
            Err(_) => std::future::pending().await,
        }
    }
}
