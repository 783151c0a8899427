//! Why one task: everything that is due by time (idleness, lifetimes, pacing, long holds, a standing
//! queue) has one next instant. One task sleeps until then, or until it is rung because an earlier
//! one turned up.

use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use tokio::time::sleep_until;

use crate::connector::Connector;
use crate::lender::Lender;

/// Lets the next ring begin another upkeep if this one ends, for whatever reason.
struct Shift<K: Connector>(Weak<Lender<K>>);

impl<K: Connector> Drop for Shift<K> {
    fn drop(&mut self) {
        if let Some(lender) = self.0.upgrade() {
            lender.upkeep_ended();
        }
    }
}

/// Tends the pool until it is gone. Every round awaits, so it cannot run hot.
pub(crate) async fn run<K: Connector>(lender: Weak<Lender<K>>, bell: Arc<Notify>) {
    let shift = Shift(lender);
    loop {
        let next = {
            let Some(lender) = shift.0.upgrade() else {
                return;
            };
            lender.visit(|ledger, now, orders| ledger.tend(now, orders))
        };
        match next {
            Some(at) => tokio::select! {
                () = bell.notified() => {}
                () = sleep_until(at) => {}
            },
            None => bell.notified().await,
        }
    }
}
