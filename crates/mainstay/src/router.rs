//! Which lane a text takes.
//!
//! Nobody can tell a read from a write by looking at the text, so the database is asked, once per
//! text, and the answer is remembered. What is remembered as a read is asked again after a while:
//! somebody may have replaced a function by one that writes.

use mainstay_core::backend::{Backend, Burden, Lane, Presumption};
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// The most texts that are remembered. An application has hundreds; one that builds texts with
/// values in them has no end of them, and must not fill the memory.
const TEXTS_MAX: usize = 10_000;

/// How long an answer "reads" is believed. Changes of functions and views that pass through this
/// handle are noticed at once; others within this time.
const BELIEVED: Duration = Duration::from_secs(300);

/// How long a text is given connections of its own after it was slow. Shorter: it may have been the
/// server that was slow, and then everybody shares again soon.
const SLOW_BELIEVED: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Router {
    texts: RwLock<HashMap<Arc<str>, Known>>,
}

struct Known {
    lane: Lane,
    alone: bool,
    until: Option<Instant>,
}

/// What is known about a text before it is sent.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// This lane; `alone` where it was a burden on others with whom it shared a connection.
    Known {
        /// Where it goes.
        lane: Lane,
        /// Whether it gets a connection of its own.
        alone: bool,
    },
    /// The database has to be asked, on a connection of the read lane.
    Ask,
}

impl Router {
    /// Says where a one-shot statement goes; refuses what would change a session that somebody else
    /// uses next.
    pub(crate) fn route(&self, backend: &dyn Backend, text: &str) -> Result<Route> {
        if let Some(known) = self.remembered(text) {
            return Ok(known);
        }
        match backend.presume(text) {
            Presumption::Writes => {
                if changes_definitions(text) {
                    self.forget_all();
                }
                Ok(Route::Known {
                    lane: Lane::Write,
                    alone: false,
                })
            }
            Presumption::Session(keyword) => Err(session_statement(keyword)),
            Presumption::Unknown => Ok(Route::Ask),
        }
    }

    /// Remembers what the database said.
    pub(crate) fn remember(&self, text: &Arc<str>, lane: Lane) {
        let believed = (lane == Lane::Read).then_some(BELIEVED);
        self.keep(text, lane, false, believed);
    }

    /// Remembers that a read is better run on a connection of its own.
    pub(crate) fn remember_alone(&self, text: &Arc<str>, burden: Burden) {
        let believed = match burden {
            Burden::Large => BELIEVED,
            Burden::Slow => SLOW_BELIEVED,
        };
        self.keep(text, Lane::Read, true, Some(believed));
    }

    fn keep(&self, text: &Arc<str>, lane: Lane, alone: bool, believed: Option<Duration>) {
        let mut texts = self.texts.write().unwrap_or_else(PoisonError::into_inner);
        // Starting over is cheaper than keeping an order that nearly nobody needs: the hot texts
        // are back after one question each.
        if texts.len() >= TEXTS_MAX && !texts.contains_key(text) {
            texts.clear();
        }
        let until = believed.map(|believed| Instant::now() + believed);
        texts.insert(Arc::clone(text), Known { lane, alone, until });
    }

    fn remembered(&self, text: &str) -> Option<Route> {
        let texts = self.texts.read().unwrap_or_else(PoisonError::into_inner);
        let known = texts.get(text)?;
        let stale = known.until.is_some_and(|until| until <= Instant::now());
        (!stale).then_some(Route::Known {
            lane: known.lane,
            alone: known.alone,
        })
    }

    /// Forgets everything; called when definitions may have changed.
    pub(crate) fn forget_all(&self) {
        self.texts
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.texts.read().unwrap().len()
    }
}

/// Whether a text may change what another text does: functions, views, policies.
pub(crate) fn changes_definitions(text: &str) -> bool {
    let first = text
        .trim_start()
        .get(..6)
        .unwrap_or_default()
        .to_ascii_lowercase();
    first == "create"
        || first.starts_with("alter")
        || first.starts_with("drop")
        || first == "commen"
}

fn session_statement(keyword: &str) -> Error {
    Report::new(
        Kind::SessionStatement,
        format!("`{keyword}` changes the session, which the next caller would inherit"),
    )
    .remedy("use with_connection for session state, transaction for transactions")
    .into()
}

/// Refuses what must not be sent inside a transaction: its own control, and what outlives it.
pub(crate) fn check_inside_transaction(backend: &dyn Backend, text: &str) -> Result<()> {
    let Presumption::Session(keyword) = backend.presume(text) else {
        return Ok(());
    };
    let second = text
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_ascii_lowercase();
    let ends_with_transaction = match keyword {
        "lock" | "declare" | "fetch" | "move" | "close" => true,
        "set" => matches!(second.as_str(), "local" | "constraints"),
        _ => false,
    };
    if ends_with_transaction {
        return Ok(());
    }
    Err(Report::new(
        Kind::SessionStatement,
        format!("`{keyword}` is not for the inside of a transaction"),
    )
    .remedy("the transaction's own methods begin, nest and end it; `set local` is welcome")
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_texts_is_bounded() {
        let router = Router::default();
        for number in 0..TEXTS_MAX + 10 {
            router.remember(&format!("select {number}").into(), Lane::Read);
        }
        assert!(router.len() <= TEXTS_MAX);
    }

    fn known(lane: Lane, alone: bool) -> Option<Route> {
        Some(Route::Known { lane, alone })
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_is_believed_for_a_while_and_a_write_for_ever() {
        let router = Router::default();
        router.remember(&"select 1".into(), Lane::Read);
        router.remember(&"select f()".into(), Lane::Write);
        assert_eq!(router.remembered("select 1"), known(Lane::Read, false));
        tokio::time::advance(BELIEVED + Duration::from_secs(1)).await;
        assert_eq!(router.remembered("select 1"), None);
        assert_eq!(router.remembered("select f()"), known(Lane::Write, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burden_is_alone_for_a_while() {
        let router = Router::default();
        router.remember_alone(&"select large".into(), Burden::Large);
        router.remember_alone(&"select slow".into(), Burden::Slow);
        assert_eq!(router.remembered("select slow"), known(Lane::Read, true));
        tokio::time::advance(SLOW_BELIEVED + Duration::from_secs(1)).await;
        assert_eq!(router.remembered("select slow"), None);
        assert_eq!(router.remembered("select large"), known(Lane::Read, true));
    }

    #[test]
    fn definitions_are_recognised() {
        for text in [
            "create function",
            " CREATE view",
            "drop table x",
            "Alter table x",
        ] {
            assert!(changes_definitions(text), "{text}");
        }
        assert!(!changes_definitions("insert into created values (1)"));
    }
}
