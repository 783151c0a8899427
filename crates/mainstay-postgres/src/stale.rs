//! Texts whose plans no longer fit, told by one session to all others of the database.
//!
//! After a migration every session holds plans that the server refuses (`cached plan must not change
//! result type`), and each would find that out for itself. A single statement is prepared anew and sent
//! again; a transaction has to be run again from its start, and with several sessions one unit could
//! meet one stale plan after another until its attempts are used up. So whoever is refused says so here,
//! and every session looks before it uses what it has prepared.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many reports are kept. A session that has missed more forgets everything it has prepared, which
/// costs it one round trip for each text that it still needs.
const KEPT: usize = 64;

/// What was reported for one database; shared by its sessions.
#[derive(Debug, Default)]
pub(crate) struct StaleTexts {
    /// How many reports there were. Written under the lock, read before it is taken.
    reports: AtomicU64,
    latest: Mutex<VecDeque<Arc<str>>>,
}

/// What a session has to forget.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Texts(Vec<Arc<str>>),
    Everything,
}

impl StaleTexts {
    /// A plan of this text was refused.
    pub(crate) fn report(&self, text: &Arc<str>) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() == KEPT {
            latest.pop_front();
        }
        latest.push_back(Arc::clone(text));
        self.reports.fetch_add(1, Ordering::Release);
    }

    /// What was reported after the first `seen` reports, which then are the reports seen.
    pub(crate) fn since(&self, seen: &mut u64) -> Option<News> {
        // Nearly always; no lock is taken for it.
        if self.reports.load(Ordering::Acquire) == *seen {
            return None;
        }
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let reports = self.reports.load(Ordering::Acquire);
        let missed = usize::try_from(reports - *seen).unwrap_or(usize::MAX);
        *seen = reports;
        if missed > latest.len() {
            return Some(News::Everything);
        }
        let first = latest.len() - missed;
        Some(News::Texts(latest.range(first..).cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_hears_every_report_once() {
        let stale = StaleTexts::default();
        let text = |n: u64| Arc::<str>::from(format!("select {n}"));
        let (mut early, mut late) = (0, 0);
        assert_eq!(stale.since(&mut early), None);
        stale.report(&text(1));
        assert_eq!(stale.since(&mut early), Some(News::Texts(vec![text(1)])));
        assert_eq!(stale.since(&mut early), None);
        stale.report(&text(2));
        assert_eq!(stale.since(&mut early), Some(News::Texts(vec![text(2)])));
        let both = News::Texts(vec![text(1), text(2)]);
        assert_eq!(stale.since(&mut late), Some(both));
    }

    #[test]
    fn who_missed_too_much_forgets_everything() {
        let stale = StaleTexts::default();
        let (mut seen, mut all) = (0, 1);
        for number in 0..=KEPT {
            stale.report(&Arc::from(number.to_string()));
        }
        assert_eq!(stale.since(&mut seen), Some(News::Everything));
        assert_eq!(stale.since(&mut seen), None);
        let Some(News::Texts(texts)) = stale.since(&mut all) else {
            panic!("not more than are kept");
        };
        assert_eq!(texts.len(), KEPT);
        assert_eq!(&*texts[0], "1");
    }
}
