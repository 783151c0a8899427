//! Whether the service as a whole may be given work.
//!
//! A database that answers is not enough: a service whose tables do not exist yet is alive, and
//! every request to it fails. So the service itself has a say, and until it has spoken the layer
//! turns requests away and the load balancer is told to wait.

use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::watch;

/// The service's own word on whether it is ready; a cheap clone, shared by layer and routes.
///
/// ```
/// use mainstay_axum::Readiness;
/// let readiness = Readiness::waiting("the migrations are being applied");
/// assert_eq!(readiness.reason().as_deref(), Some("the migrations are being applied"));
/// readiness.ready();
/// assert_eq!(readiness.reason(), None);
/// ```
#[derive(Clone, Debug)]
pub struct Readiness {
    reason: Arc<watch::Sender<Option<Cow<'static, str>>>>,
}

impl Readiness {
    /// Ready from the start; the database alone decides.
    #[must_use]
    pub fn immediate() -> Self {
        Self {
            reason: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Not ready yet, for this reason. Clients read it.
    #[must_use]
    pub fn waiting(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: Arc::new(watch::Sender::new(Some(reason.into()))),
        }
    }

    /// Says that the service is ready.
    pub fn ready(&self) {
        self.reason.send_replace(None);
    }

    /// Says that the service is not ready, and why. Clients read it.
    pub fn not_ready(&self, reason: impl Into<Cow<'static, str>>) {
        self.reason.send_replace(Some(reason.into()));
    }

    /// Why the service is not ready; `None` when it is.
    #[must_use]
    pub fn reason(&self) -> Option<Cow<'static, str>> {
        self.reason.borrow().clone()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::immediate()
    }
}
