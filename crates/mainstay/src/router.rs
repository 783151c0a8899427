//! Which lane a text takes.
//!
//! Nobody can tell a read from a write by looking at the text, so the database is asked, once per
//! text, and the answer is remembered. What is remembered as a read is asked again after a while:
//! somebody may have replaced a function by one that writes. Beside the lane it is remembered how a text
//! behaves among others on a shared connection.

use mainstay_core::backend::{Backend, Burden, Lane, Presumption};
use mainstay_core::error::Report;
use mainstay_core::{Error, Kind, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
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

/// By how many answers the brief ones have to be ahead before a text is taken for brief.
const BRIEF: u8 = 100;

/// By how many they can be ahead at most: a hiccup of the server, which everybody feels who is on it, changes
/// nothing, and a text that has become slow is found out after some 150 answers.
const SURE: u8 = u8::MAX;

struct Known {
    lane: Lane,
    alone: bool,
    /// By how many answers the brief ones are ahead, up to [`SURE`].
    briefness: AtomicU8,
    until: Option<Instant>,
}

/// With whom a statement shares a connection where connections are shared.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// With nobody: it was a burden on others.
    Alone,
    /// With others that are answered in a moment.
    Brief {
        /// One more answer that is brief changes nothing.
        sure: bool,
    },
    /// With whoever is there.
    Mixed,
}

impl Company {
    /// Whether it is for a moment.
    pub(crate) fn is_brief(self) -> bool {
        matches!(self, Self::Brief { .. })
    }
}

/// What is known about a text before it is sent.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// This lane, in this company.
    Known(Lane, Company),
    /// The database has to be asked, on a connection of the read lane.
    Ask,
}

impl Router {
    /// Says where a one-shot statement goes; refuses what would change a session that somebody else
    /// uses next.
    pub(crate) fn route(&self, now: Instant, backend: &dyn Backend, text: &str) -> Result<Route> {
        if let Some(known) = self.remembered(now, text) {
            return Ok(known);
        }
        match backend.presume(text) {
            Presumption::Writes => {
                if changes_definitions(text) {
                    self.forget_all();
                }
                Ok(Route::Known(Lane::Write, Company::Mixed))
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

    /// Notes that a text was answered on a shared connection, in the time of the brief or later. Two that
    /// note at once may count as one.
    pub(crate) fn note(&self, text: &str, was_brief: bool) {
        let texts = self.texts.read().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = texts.get(text) else {
            return;
        };
        let before = known.briefness.load(Ordering::Relaxed);
        let after = match was_brief {
            true => before.saturating_add(1),
            false => before.saturating_sub(1),
        };
        if after != before {
            known.briefness.store(after, Ordering::Relaxed);
        }
    }

    fn keep(&self, text: &Arc<str>, lane: Lane, alone: bool, believed: Option<Duration>) {
        let mut texts = self.texts.write().unwrap_or_else(PoisonError::into_inner);
        // Starting over is cheaper than keeping an order that nearly nobody needs: the hot texts
        // are back after one question each.
        if texts.len() >= TEXTS_MAX && !texts.contains_key(text) {
            texts.clear();
        }
        let until = believed.map(|believed| Instant::now() + believed);
        let known = Known {
            lane,
            alone,
            briefness: AtomicU8::new(0),
            until,
        };
        texts.insert(Arc::clone(text), known);
    }

    fn remembered(&self, now: Instant, text: &str) -> Option<Route> {
        let texts = self.texts.read().unwrap_or_else(PoisonError::into_inner);
        let known = texts.get(text)?;
        let stale = known.until.is_some_and(|until| until <= now);
        let company = match known.briefness.load(Ordering::Relaxed) {
            _ if known.alone => Company::Alone,
            SURE => Company::Brief { sure: true },
            BRIEF.. => Company::Brief { sure: false },
            _ => Company::Mixed,
        };
        (!stale).then_some(Route::Known(known.lane, company))
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
        let company = if alone {
            Company::Alone
        } else {
            Company::Mixed
        };
        Some(Route::Known(lane, company))
    }

    #[test]
    fn a_text_is_brief_while_most_answers_are() {
        let router = Router::default();
        let text = "select 1";
        router.remember(&text.into(), Lane::Read);
        let company = || match router.remembered(Instant::now(), text) {
            Some(Route::Known(Lane::Read, company)) => company,
            other => panic!("{other:?}"),
        };
        let note = |answers: u8, was_brief| (0..answers).for_each(|_| router.note(text, was_brief));
        note(BRIEF - 1, true);
        assert_eq!(company(), Company::Mixed);
        note(1, true);
        assert_eq!(company(), Company::Brief { sure: false });
        note(SURE, true);
        assert_eq!(company(), Company::Brief { sure: true });
        note(128, false); // all that can be on one session, at once
        assert_eq!(company(), Company::Brief { sure: false });
        note(50, false);
        assert_eq!(company(), Company::Mixed);
        for number in 0..1_000 {
            router.note(text, number % 3 == 0);
        }
        assert_eq!(company(), Company::Mixed);
        router.note("select 2", true); // of which nothing is known
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_is_believed_for_a_while_and_a_write_for_ever() {
        let router = Router::default();
        router.remember(&"select 1".into(), Lane::Read);
        router.remember(&"select f()".into(), Lane::Write);
        assert_eq!(
            router.remembered(Instant::now(), "select 1"),
            known(Lane::Read, false)
        );
        tokio::time::advance(BELIEVED + Duration::from_secs(1)).await;
        assert_eq!(router.remembered(Instant::now(), "select 1"), None);
        assert_eq!(
            router.remembered(Instant::now(), "select f()"),
            known(Lane::Write, false)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_burden_is_alone_for_a_while() {
        let router = Router::default();
        router.remember_alone(&"select large".into(), Burden::Large);
        router.remember_alone(&"select slow".into(), Burden::Slow);
        assert_eq!(
            router.remembered(Instant::now(), "select slow"),
            known(Lane::Read, true)
        );
        tokio::time::advance(SLOW_BELIEVED + Duration::from_secs(1)).await;
        assert_eq!(router.remembered(Instant::now(), "select slow"), None);
        assert_eq!(
            router.remembered(Instant::now(), "select large"),
            known(Lane::Read, true)
        );
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
