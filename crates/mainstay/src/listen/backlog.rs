//! What was heard and not yet read.
//!
//! A listener hears at the pace of others and is read at its own. So what waits is bounded, and what
//! did not fit is counted and told in the place where it is missing: a reader that is told of a gap
//! can look at the tables, one that is not told is wrong for ever.

use super::ListenEvent;
use mainstay_core::Error;
use mainstay_core::backend::Notification;
use std::collections::VecDeque;
use std::time::Duration;

/// At most 8,000 bytes of payload each, so 8 MB for a reader that has stopped reading.
pub(super) const BACKLOG_MAX: usize = 1_024;

/// At most `limit` notifications, then one gap, then one interruption.
#[derive(Debug)]
pub(super) struct Backlog {
    limit: usize,
    events: VecDeque<ListenEvent>,
}

impl Backlog {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            events: VecDeque::new(),
        }
    }

    pub(super) fn take(&mut self) -> Option<ListenEvent> {
        self.events.pop_front()
    }

    /// Keeps a notification, or counts it as missed when there is no room.
    pub(super) fn hear(&mut self, notification: Notification) {
        if self.events.len() < self.limit {
            self.events
                .push_back(ListenEvent::Notification(notification));
        } else {
            self.miss(1);
        }
    }

    /// Counts notifications that nobody will see.
    pub(super) fn miss(&mut self, more: u64) {
        // A reader that has not yet read of the interruption will look at the tables when it does,
        // so what is missed after it may be counted before it.
        let gap = self.events.iter_mut().rev().take(2).find_map(|event| {
            let ListenEvent::Missed(count) = event else {
                return None;
            };
            Some(count)
        });
        match gap {
            Some(count) => *count = count.saturating_add(more),
            None => self.events.push_back(ListenEvent::Missed(more)),
        }
    }

    /// Notes that the connection was lost and is there again. An interruption that nobody has read
    /// of yet goes on.
    pub(super) fn resubscribe(&mut self, cause: Error, away: Duration) {
        match self.events.back_mut() {
            Some(ListenEvent::Resubscribed {
                cause: last,
                away: total,
            }) => {
                *last = cause;
                *total = total.saturating_add(away);
            }
            _ => self
                .events
                .push_back(ListenEvent::Resubscribed { cause, away }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_core::Kind;
    use mainstay_core::error::Report;

    fn said(payload: &str) -> Notification {
        Notification::new("c", payload, 1)
    }

    fn lost() -> Error {
        Report::new(Kind::Unreachable, "gone").into()
    }

    fn all(backlog: &mut Backlog) -> Vec<String> {
        let events = std::iter::from_fn(|| backlog.take());
        let words = events.map(|event| match event {
            ListenEvent::Notification(notification) => notification.payload,
            ListenEvent::Missed(count) => format!("missed {count}"),
            ListenEvent::Resubscribed { away, .. } => format!("away {}", away.as_secs()),
        });
        words.collect()
    }

    #[test]
    fn what_does_not_fit_is_counted_in_its_place() {
        let mut backlog = Backlog::new(2);
        for payload in ["a", "b", "c", "d"] {
            backlog.hear(said(payload));
        }
        assert!(backlog.take().is_some() && backlog.take().is_some());
        backlog.hear(said("e"));
        assert_eq!(all(&mut backlog), ["missed 2", "e"]);
    }

    #[test]
    fn an_interruption_is_never_lost_and_the_backlog_stays_bounded() {
        let mut backlog = Backlog::new(2);
        for round in 0..100 {
            for _ in 0..5 {
                backlog.hear(said("x"));
            }
            backlog.miss(3);
            backlog.resubscribe(lost(), Duration::from_secs(round));
            assert!(backlog.events.len() <= 4, "{backlog:?}");
        }
        let away: u64 = (0..100).sum();
        let missed = 100 * 8 - 2;
        let expected = [
            "x",
            "x",
            &format!("missed {missed}"),
            &format!("away {away}"),
        ];
        assert_eq!(all(&mut backlog), expected);
    }

    #[test]
    fn two_interruptions_with_news_between_are_two() {
        let mut backlog = Backlog::new(10);
        backlog.resubscribe(lost(), Duration::from_secs(1));
        backlog.hear(said("x"));
        backlog.resubscribe(lost(), Duration::from_secs(2));
        assert_eq!(all(&mut backlog), ["away 1", "x", "away 2"]);
    }
}
