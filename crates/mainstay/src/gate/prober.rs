//! The one who asks while a breaker is open, so that no caller has to.
//!
//! A breaker that only a caller can close stays open when the callers have been told to stay away,
//! and one whose single probe was lost stays half open for ever. So the prober is a task of its own,
//! every question of it has a bound, and however it ends (a panic, a runtime that shuts down) its
//! place is free again for the next.

use super::Gate;
use super::rules::Which;
use crate::connector::CONNECT_MARGIN;
use crate::engine::Engine;
use mainstay_core::error::Report;
use mainstay_core::{Deadline, Evidence, Kind, Result};
use std::sync::Weak;
use tokio::time::{Instant, sleep_until, timeout_at};

impl Gate {
    /// Sees to it that each breaker that needs a prober has one.
    pub(super) fn send_probers(&self) {
        for which in [Which::Execute, Which::Connect] {
            // Without a runtime nobody waits; the next call inside one comes here again.
            let Ok(runtime) = tokio::runtime::Handle::try_current() else {
                return;
            };
            if self.is_prober_missing(which) {
                let post = Post {
                    engine: self.engine.clone(),
                    which,
                    held: true,
                };
                runtime.spawn(probe(post));
            }
        }
    }

    /// Whether a prober is needed and not there; takes its place if so.
    fn is_prober_missing(&self, which: Which) -> bool {
        let Some(mut rules) = self.rules() else {
            return false;
        };
        let side = rules.side(which);
        let is_needed = side.breaker.next_probe(Instant::now()).is_some();
        is_needed && !std::mem::replace(&mut side.probing, true)
    }

    /// When to ask next, and how many answers there were so far; `None` when nobody needs to ask, and
    /// then the place is free.
    fn next_probe(&self, which: Which) -> Option<(Instant, u64)> {
        let mut rules = self.rules()?;
        let side = rules.side(which);
        let next = side.breaker.next_probe(Instant::now());
        side.probing = next.is_some();
        Some((next?, side.answers))
    }

    /// Takes in what was found, unless the attempt has been heard of already.
    fn on_probe(&self, which: Which, answers_before: u64, result: &Result<()>) {
        let now = Instant::now();
        if let Some(mut rules) = self.rules() {
            let side = rules.side(which);
            if side.answers == answers_before {
                side.note(now, result.as_ref().err(), Evidence::Silent);
                side.on_probe(now, result.is_ok());
            }
        }
        self.publish();
    }
}

/// The place of a prober, of which there is one a breaker.
struct Post {
    engine: Weak<Engine>,
    which: Which,
    held: bool,
}

impl Drop for Post {
    fn drop(&mut self) {
        if self.held
            && let Some(engine) = self.engine.upgrade()
            && let Some(mut rules) = engine.gate.rules()
        {
            rules.side(self.which).probing = false;
        }
    }
}

/// Asks the database, for everybody, until the breaker needs no more answers. It ends with the
/// engine.
async fn probe(mut post: Post) {
    let which = post.which;
    loop {
        let next = match post.engine.upgrade() {
            Some(engine) => engine.gate.next_probe(which),
            None => None,
        };
        let Some((at, answers)) = next else {
            post.held = false;
            return;
        };
        sleep_until(at).await;
        let Some(engine) = post.engine.upgrade() else {
            return;
        };
        let result = ask(&engine, which).await;
        engine.gate.on_probe(which, answers, &result);
    }
}

/// One question, for as long as one connect may take and a little longer: an attempt that is under way
/// has ended when the next one begins.
async fn ask(engine: &Engine, which: Which) -> Result<()> {
    let patience = engine.config.connect_timeout.saturating_add(CONNECT_MARGIN);
    let deadline = Deadline::from_now(patience);
    let question = async {
        let pool = engine.lanes.pool(engine.home());
        if which == Which::Connect {
            let opened = pool.open_another(deadline.instant()).await;
            if opened.map_err(|error| crate::lanes::explain(&error))? {
                return Ok(());
            }
            // There is no room for another one; those that are there speak for the server.
        }
        engine.ask(deadline).await
    };
    let silence = || {
        Report::new(
            Kind::Unreachable,
            format!("the database did not answer a probe within {patience:.1?}"),
        )
        .evidence(Evidence::Silent)
        .into()
    };
    timeout_at(deadline.instant(), question)
        .await
        .unwrap_or_else(|_| Err(silence()))
}
