//! Which lane a text takes.
//!
//! Nobody can tell a read from a write by looking at the text, so the database is asked, once per
//! text, and the answer is remembered. What is remembered as a read is asked again after a while:
//! somebody may have replaced a function by one that writes.

use mainstay_core::backend::{Backend, Lane, Presumption};
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

#[derive(Default)]
pub(crate) struct Router {
    texts: RwLock<HashMap<Arc<str>, Known>>,
}

struct Known {
    lane: Lane,
    since: Instant,
}

/// What is known about a text before it is sent.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// This lane.
    Known(Lane),
    /// The database has to be asked, on a connection of the read lane.
    Ask,
}

impl Router {
    /// Says where a one-shot statement goes; refuses what would change a session that somebody else
    /// uses next.
    pub(crate) fn route(&self, backend: &dyn Backend, text: &str) -> Result<Route> {
        if let Some(lane) = self.remembered(text) {
            return Ok(Route::Known(lane));
        }
        match backend.presume(text) {
            Presumption::Writes => {
                if changes_definitions(text) {
                    self.forget_all();
                }
                Ok(Route::Known(Lane::Write))
            }
            Presumption::Session(keyword) => Err(session_statement(keyword)),
            Presumption::Unknown => Ok(Route::Ask),
        }
    }

    /// Remembers what the database said.
    pub(crate) fn remember(&self, text: &Arc<str>, lane: Lane) {
        let mut texts = self.texts.write().unwrap_or_else(PoisonError::into_inner);
        // Starting over is cheaper than keeping an order that nearly nobody needs: the hot texts
        // are back after one question each.
        if texts.len() >= TEXTS_MAX && !texts.contains_key(text) {
            texts.clear();
        }
        texts.insert(
            Arc::clone(text),
            Known {
                lane,
                since: Instant::now(),
            },
        );
    }

    fn remembered(&self, text: &str) -> Option<Lane> {
        let texts = self.texts.read().unwrap_or_else(PoisonError::into_inner);
        let known = texts.get(text)?;
        let stale = known.lane == Lane::Read && known.since.elapsed() > BELIEVED;
        (!stale).then_some(known.lane)
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

    #[tokio::test(start_paused = true)]
    async fn a_read_is_believed_for_a_while_and_a_write_for_ever() {
        let router = Router::default();
        router.remember(&"select 1".into(), Lane::Read);
        router.remember(&"select f()".into(), Lane::Write);
        assert_eq!(router.remembered("select 1"), Some(Lane::Read));
        tokio::time::advance(BELIEVED + Duration::from_secs(1)).await;
        assert_eq!(router.remembered("select 1"), None);
        assert_eq!(router.remembered("select f()"), Some(Lane::Write));
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
