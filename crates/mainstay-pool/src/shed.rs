//! Why refuse anybody: first come, first served under sustained overload serves everyone just after
//! they gave up, and useful work drops to nothing. Two rules repair that. *Slack*: a waiter that has
//! less time left than a connection is usually held for could not use one. *Standing queue*
//! (controlled delay): if even the shortest wait of a whole interval was above the target, the queue
//! is not a burst; waiters older than twice the target are refused until it drains. Nor is it one while
//! connections cannot be opened: those who ride an outage out are left alone, and have an interval to be
//! served in when it is over.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::ShedReason;
use crate::ledger::Ledger;
use crate::observer::Event;
use crate::orders::{Order, Orders};
use crate::settings::Shedding;
use crate::waiters::{Answer, Priority};

/// Timers are no finer than this, so a hold that is shorter asks nobody for slack.
const SHORTEST_HOLD: Duration = Duration::from_millis(1);

/// The waits of those served in one interval, as far as the rule asks.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Served {
    Nobody,
    /// All of them waited longer than the target.
    Late,
    /// The shortest wait was within the target.
    Soon,
}

/// The memory of both rules.
pub(crate) struct Shedder {
    rule: Shedding,
    /// When the present interval ends; `None` while nobody waits.
    ends: Option<Instant>,
    /// What the waits of those served in the present interval were like.
    served: Served,
    standing: bool,
    /// A running estimate of the nanoseconds that 95 of 100 leases are held for at most; 0 while all
    /// are held shortly. A plain number, because every return of a lease moves it.
    usual_hold: u64,
}

impl Shedder {
    pub(crate) fn new(rule: Shedding) -> Self {
        Self {
            rule,
            ends: None,
            served: Served::Nobody,
            standing: false,
            usual_hold: 0,
        }
    }

    /// Moves the estimate a small step up or down, 19 times as far up: it rests at the 95th percentile.
    pub(crate) fn on_held(&mut self, held: Duration) {
        if self.usual_hold == 0 && held < SHORTEST_HOLD {
            return;
        }
        // Not `as_nanos`, whose 128 bits are felt here.
        let seconds = held.as_secs().saturating_mul(1_000_000_000);
        let held = seconds.saturating_add(u64::from(held.subsec_nanos()));
        let step = self.usual_hold.max(1_000_000) / 20;
        self.usual_hold = if held > self.usual_hold {
            self.usual_hold.saturating_add(step)
        } else {
            self.usual_hold.saturating_sub(step / 19)
        };
    }

    /// Somebody waits: says when the interval ends.
    pub(crate) fn on_join(&mut self, now: Instant, waiting: usize) -> Option<Instant> {
        if waiting == 0 {
            return None;
        }
        Some(*self.ends.get_or_insert(now + self.rule.interval))
    }

    /// When the interval ends, if one runs.
    pub(crate) fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Notes that the one that waits longest, since then and until that deadline, is about to be served,
    /// and says so if neither rule has anything against anybody.
    pub(crate) fn lets_serve(&mut self, now: Instant, since: Instant, deadline: Instant) -> bool {
        let is_over = self.ends.is_none_or(|ends| now >= ends);
        let usual_hold = Duration::from_nanos(self.usual_hold);
        if is_over || self.standing || deadline < now + usual_hold {
            return false;
        }
        self.note_served(|shedder| now > since + shedder.rule.target);
        true
    }

    fn note_served(&mut self, late: impl FnOnce(&Self) -> bool) {
        if self.served != Served::Soon {
            self.served = if late(self) {
                Served::Late
            } else {
                Served::Soon
            };
        }
    }

    /// Connections can be opened again: how long anybody has waited says nothing of the load.
    pub(crate) fn begin_anew(&mut self, now: Instant) {
        if self.ends.is_some() {
            self.ends = Some(now + self.rule.interval);
            (self.served, self.standing) = (Served::Soon, false);
        }
    }

    /// Nobody waits, so nothing stands.
    pub(crate) fn on_empty(&mut self) {
        if self.ends.is_some() {
            self.ends = None;
            (self.served, self.standing) = (Served::Nobody, false);
        }
    }

    /// Looks at the queue and says whether it stands. `serving` if the one that waits longest is about
    /// to be served; `oldest` says since when it waits.
    #[inline]
    fn look(&mut self, now: Instant, serving: bool, oldest: impl FnOnce() -> Instant) -> bool {
        let ends = *self.ends.get_or_insert(now + self.rule.interval);
        let is_over = now >= ends;
        if !is_over && (self.served == Served::Soon || !serving) {
            // Nothing that is seen now can change what will be said at the end.
            return self.standing;
        }
        let late = now > oldest() + self.rule.target;
        if is_over {
            self.standing = match self.served {
                // Then the longest wait is also the shortest.
                Served::Nobody => late,
                Served::Late => true,
                Served::Soon => false,
            };
            self.ends = Some(now + self.rule.interval);
            self.served = Served::Nobody;
        }
        if serving {
            self.note_served(|_| late);
        }
        self.standing
    }
}

impl<C: Clone, E: Clone> Ledger<C, E> {
    /// Refuses those who could not be served in time, batch work first.
    #[inline]
    pub(crate) fn shed(&mut self, now: Instant, serving: bool, orders: &mut Orders<C>) {
        let Some(shedder) = &mut self.shedder else {
            return;
        };
        if self.waiters.waiting() == 0 {
            shedder.on_empty();
        } else {
            self.shed_waiters(now, serving, orders);
        }
    }

    fn shed_waiters(&mut self, now: Instant, serving: bool, orders: &mut Orders<C>) {
        let is_away = self.is_away();
        let Some(shedder) = &mut self.shedder else {
            return;
        };
        let waiters = &self.waiters;
        let oldest = || waiters.oldest_since().unwrap_or(now);
        let standing = shedder.look(now, serving, oldest);
        if is_away {
            return; // a queue is no sign of overload then
        }
        if !standing && shedder.usual_hold == 0 {
            return; // nobody needs slack
        }
        let target = shedder.rule.target;
        let usual_hold = Duration::from_nanos(shedder.usual_hold);
        let usual = now + usual_hold;
        for priority in [Priority::Batch, Priority::Interactive] {
            while let Some(key) = self.waiters.oldest_of(priority) {
                let since = self.waiters.since(key);
                let deadline = self.waiters.request(key).deadline;
                if !standing && deadline >= usual {
                    break; // the slack asked for is never more than a usual hold
                }
                let slack = usual_hold.min(deadline.saturating_duration_since(since) / 4);
                let reason = if deadline.saturating_duration_since(now) < slack {
                    ShedReason::Slack
                } else if standing && now > since + longest_in_standing(target, priority) {
                    ShedReason::Standing
                } else {
                    break;
                };
                self.totals.shed += 1;
                orders.wake(self.waiters.answer(key, Answer::Shed(reason)));
                orders.push(Order::Tell(Event::Shed(reason)));
            }
        }
    }
}

/// How long somebody may have waited in a queue that stands.
fn longest_in_standing(target: Duration, priority: Priority) -> Duration {
    match priority {
        Priority::Batch => target,
        Priority::Interactive => 2 * target,
    }
}
