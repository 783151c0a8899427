//! What the loss of one connection says about the others.
//!
//! A server that goes down takes all its connections with it, and not all of them notice. So when one
//! is lost, its siblings are checked before they are lent again. And a server that refuses to write may
//! be one that another has taken over from: it is asked, and if it is so, no connection that was opened
//! before is lent again. A refusal alone is no proof, a lost connection is none either.

use crate::engine::Engine;
use mainstay_core::backend::Lane;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result};
use mainstay_pool::Request;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

/// One look at a time.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    looking: AtomicBool,
}

/// Whether a server has refused to write that was chosen because it takes writes.
fn is_demotion(failure: &Error) -> bool {
    failure.kind() == Kind::ReadOnly && failure.class() == Class::RolledBack
}

impl Engine {
    /// Draws the conclusion from a failure.
    pub(crate) fn look_out(&self, failure: &Error) {
        if failure.evidence() != Evidence::Silent {
            return;
        }
        if !is_demotion(failure) {
            self.lanes.check_all();
            return;
        }
        if self.lookout.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(look(Looking(self.me().clone())))),
            Err(_) => self.lookout.looking.store(false, Ordering::Release),
        }
    }

    /// Whether a connection that is open now leads to a server that still is what was wanted.
    async fn still_serves(&self, deadline: Deadline) -> Result<bool> {
        let request = Request::until(deadline.instant());
        let lease = self.lanes.pool(Lane::Write).acquire_with(request).await;
        let lease = lease.map_err(|error| crate::lanes::explain(&error))?;
        self.backend.still_serves(&**lease, deadline).await
    }
}

/// The right to look, free again however the looking ends: a panic, a runtime that shuts down.
struct Looking(Weak<Engine>);

impl Drop for Looking {
    fn drop(&mut self) {
        if let Some(engine) = self.0.upgrade() {
            engine.lookout.looking.store(false, Ordering::Release);
        }
    }
}

/// Ends with its answer or its deadline.
async fn look(looking: Looking) {
    let Some(engine) = looking.0.upgrade() else {
        return;
    };
    let deadline = Deadline::from_now(engine.config.connect_timeout);
    match engine.still_serves(deadline).await {
        Ok(false) => {
            tracing::warn!(
                target_server = engine.backend.target(),
                "the server has become another one; its connections are not lent again"
            );
            engine.lanes.begin_generation();
        }
        // It was another one that refused, or nobody could be asked: each is asked before it is lent.
        Ok(true) | Err(_) => engine.lanes.check_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_core::error::Report;

    #[test]
    fn only_a_refusal_by_a_server_that_should_write_asks_who_serves() {
        let refusal = |class| Error::from(Report::new(Kind::ReadOnly, "no").class(class));
        assert!(is_demotion(&refusal(Class::RolledBack)));
        // A transaction that was begun read-only.
        assert!(!is_demotion(&refusal(Class::Permanent)));
    }
}
