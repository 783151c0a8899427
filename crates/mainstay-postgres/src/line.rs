//! Reads of strangers on one session.
//!
//! Several callers have a read under way on one session, each with a Sync of its own, and none may
//! feel the others. The server answers in the order in which it was asked, so whoever is first in the
//! [`Line`] is what it is busy with. That tells all there is to know: when a later one has been
//! answered, an abandoned one before it is over; and when the server says nothing for long while
//! others wait, the first one is to blame.
//!
//! What is to blame is cancelled, which is no harm: everything here only reads. A cancel request may
//! arrive late and hit the next one instead; that one is asked again and never hears of it.
//!
//! Sometimes it is no server that is to blame but a caller who keeps the future of his read and does not
//! poll it: what has come of his answer fills its channel, and the driver cannot go on to the answers behind it.
//! Then the session is given up, and all who wait ask again on connections of their own.

use mainstay_core::backend::Burden;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How often the line is looked at while something is under way. A server that answers nothing
/// between two looks is late: ordinary reads are a hundred times faster, and a cancel request, which
/// costs the server a process, is still rare.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// For how many looks an answer may stay untaken while others wait behind it. A caller who is polled takes
/// it at once, also on a machine that is busy; one who is kept by something else while he holds the future of
/// his read may be kept for any time.
pub(crate) const UNTAKEN_LOOKS: u32 = 4;

/// A result that grows beyond this is a burden, and so are parameters that are larger: on a network of one
/// gigabit a second they keep those behind them waiting for a millisecond.
pub(crate) const LARGE_BYTES: usize = 128 * 1_024;

/// The reads on their way over one session, in the order in which they were sent. As many as the pool
/// gives places, and the abandoned ones among them.
#[derive(Debug, Default)]
pub(crate) struct Line {
    next: u64,
    tickets: VecDeque<Ticket>,
    /// How many cancel requests were sent because of this line.
    cancels: u64,
    cancelling: bool,
    /// How many answers had come at the last look.
    answered: u64,
    /// For how many looks the driver has not been able to hand an answer over.
    untaken: u32,
    /// When the session was given up because of that.
    given_up: Option<Instant>,
}

#[derive(Debug)]
struct Ticket {
    number: u64,
    state: State,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    /// Somebody waits for the answer.
    Awaited,
    /// Somebody waits, and will be told to come back on a connection of its own.
    Evicted,
    /// Nobody waits any more.
    Abandoned,
}

/// What became of a read that the server cancelled.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// Not because of this line.
    ByOthers,
    /// By a request that was meant for another one.
    ByMistake,
    /// Because it kept others waiting.
    ForGood,
}

impl Line {
    /// Somebody sends a read, behind all that were sent before.
    pub(crate) fn join(&mut self) -> Number {
        self.next += 1;
        self.tickets.push_back(Ticket {
            number: self.next,
            state: State::Awaited,
        });
        Number {
            number: self.next,
            // One that is under way may still hit whoever comes now.
            cancels: self.cancels - u64::from(self.cancelling),
        }
    }

    /// An answer has come: it is over, and so is all before it that nobody waits for.
    pub(crate) fn land(&mut self, number: Number) {
        let is_first = |first: &Ticket| first.number == number.number;
        if self.tickets.front().is_some_and(is_first) {
            self.tickets.pop_front();
            return;
        }
        self.tickets.retain(|ticket| {
            ticket.number > number.number
                || (ticket.number < number.number && ticket.state != State::Abandoned)
        });
    }

    /// Somebody goes away before the answer came.
    pub(crate) fn leave(&mut self, number: Number) {
        let mut tickets = self.tickets.iter_mut();
        if let Some(ticket) = tickets.find(|ticket| ticket.number == number.number) {
            ticket.state = State::Abandoned;
        }
    }

    /// What a cancelled read is to make of it.
    pub(crate) fn cancelled(&self, number: Number) -> Cancelled {
        if self.cancels == number.cancels {
            return Cancelled::ByOthers;
        }
        let evicted =
            |ticket: &Ticket| ticket.number == number.number && ticket.state == State::Evicted;
        if self.tickets.iter().any(evicted) {
            Cancelled::ForGood
        } else {
            Cancelled::ByMistake
        }
    }

    /// Whether nothing is under way, and no cancel request.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.tickets.is_empty() && !self.cancelling
    }

    /// Whether the only ones left are those that nobody waits for.
    pub(crate) fn is_abandoned(&self) -> bool {
        let abandoned = |ticket: &Ticket| ticket.state == State::Abandoned;
        !self.tickets.is_empty() && self.tickets.iter().all(abandoned)
    }

    /// Everything sent has been answered.
    pub(crate) fn put_in_order(&mut self) {
        self.tickets.clear();
        self.cancelling = false;
    }

    /// Looks after [`LOOK_EVERY`] whether somebody keeps the others waiting, while the server has
    /// answered so many requests in all. If so it is to be cancelled; then
    /// [`on_cancelled`](Self::on_cancelled) is to be told.
    pub(crate) fn look(&mut self, answered: u64) -> bool {
        self.untaken = 0;
        let is_silent = std::mem::replace(&mut self.answered, answered) == answered;
        if !is_silent || self.cancelling {
            return false;
        }
        let waits = |ticket: &&Ticket| ticket.state == State::Awaited;
        let is_waited_for = self.tickets.iter().skip(1).any(|ticket| waits(&ticket));
        let Some(first) = self.tickets.front_mut().filter(|_| is_waited_for) else {
            return false;
        };
        if first.state == State::Awaited {
            first.state = State::Evicted;
        }
        self.cancels += 1;
        self.cancelling = true;
        true
    }

    /// Looks while an answer is not taken by whoever asked for it, which keeps all answers behind it from
    /// those who wait for them. Says whether the session is to be given up for their sake.
    pub(crate) fn look_at_untaken(&mut self, now: Instant) -> bool {
        self.untaken = self.untaken.saturating_add(1);
        let waits = |ticket: &&Ticket| ticket.state != State::Abandoned;
        let gives_up =
            self.untaken >= UNTAKEN_LOOKS && self.tickets.iter().filter(waits).count() > 1;
        if gives_up {
            self.given_up = Some(now);
        }
        gives_up
    }

    /// Why the answer did not come, if the session was given up: those who wait hear of it at once, and who
    /// hears of it later was not waiting.
    pub(crate) fn given_up(&self, now: Instant) -> Option<Burden> {
        let waited = now.saturating_duration_since(self.given_up?);
        Some(if waited > LOOK_EVERY {
            Burden::Large
        } else {
            Burden::Slow
        })
    }

    /// Whether a cancel request that was decided on is still wanted.
    pub(crate) fn is_cancelling(&self) -> bool {
        self.cancelling
    }

    /// The server has dealt with the cancel request.
    pub(crate) fn on_cancelled(&mut self) {
        self.cancelling = false;
    }
}

/// One's place in the line.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Number {
    number: u64,
    /// How many cancel requests had been dealt with by then.
    cancels: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks twice with nothing answered in between.
    fn is_stuck(line: &mut Line) -> bool {
        assert!(!line.look(line.answered + 1));
        line.look(line.answered)
    }

    #[test]
    fn an_abandoned_read_is_over_when_a_later_one_is_answered() {
        let mut line = Line::default();
        let (first, second) = (line.join(), line.join());
        line.leave(first);
        assert!(!line.is_at_rest() && !line.is_abandoned());
        line.land(second);
        assert!(line.is_at_rest());
    }

    #[test]
    fn the_last_one_to_leave_leaves_an_abandoned_line() {
        let mut line = Line::default();
        let (first, second) = (line.join(), line.join());
        line.land(first);
        line.leave(second);
        assert!(line.is_abandoned() && !line.is_at_rest());
        line.put_in_order();
        assert!(line.is_at_rest());
    }

    #[test]
    fn answers_may_be_taken_in_any_order() {
        let mut line = Line::default();
        let (first, second) = (line.join(), line.join());
        line.land(second);
        assert!(!line.is_at_rest());
        line.land(first);
        assert!(line.is_at_rest());
    }

    #[test]
    fn one_that_keeps_others_waiting_is_cancelled_for_good_and_another_by_mistake() {
        let mut line = Line::default();
        let (slow, behind) = (line.join(), line.join());
        assert!(is_stuck(&mut line));
        assert!(!is_stuck(&mut line), "one request at a time");
        assert_eq!(line.cancelled(slow), Cancelled::ForGood);
        assert_eq!(line.cancelled(behind), Cancelled::ByMistake);
        line.on_cancelled();
        let later = line.join();
        assert_eq!(line.cancelled(later), Cancelled::ByOthers);
    }

    #[test]
    fn one_that_comes_while_a_cancel_request_is_under_way_may_be_hit_by_mistake() {
        let mut line = Line::default();
        line.join();
        let behind = line.join();
        assert!(is_stuck(&mut line));
        line.land(behind);
        let next = line.join();
        assert_eq!(line.cancelled(next), Cancelled::ByMistake);
        line.on_cancelled();
        let later = line.join();
        assert_eq!(line.cancelled(later), Cancelled::ByOthers);
    }

    #[test]
    fn nobody_is_cancelled_on_whom_nobody_waits_or_while_answers_come() {
        let mut line = Line::default();
        assert!(!is_stuck(&mut line));
        let alone = line.join();
        assert!(!is_stuck(&mut line));
        line.join();
        for answered in 10..20 {
            assert!(!line.look(answered));
        }
        line.land(alone);
        assert!(!is_stuck(&mut line));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_given_up_when_an_answer_is_not_taken_while_others_wait() {
        let now = Instant::now();
        let is_given_up = |line: &mut Line| {
            let looks = (1..=UNTAKEN_LOOKS).map(|_| line.look_at_untaken(now));
            looks.collect::<Vec<_>>().contains(&true)
        };
        let mut line = Line::default();
        let idle = line.join();
        assert!(!is_given_up(&mut line), "it keeps nobody");
        let gone = line.join();
        line.leave(gone);
        assert!(!is_given_up(&mut line), "that one waits no more");
        line.land(idle);
        line.join();
        line.join();
        line.look(1);
        for _ in 1..UNTAKEN_LOOKS {
            assert!(!line.look_at_untaken(now));
        }
        line.look(2);
        assert!(!line.look_at_untaken(now), "it was taken in between");
        assert_eq!(line.given_up(now), None);
        assert!(is_given_up(&mut line));
        assert_eq!(line.given_up(now + LOOK_EVERY), Some(Burden::Slow));
        assert_eq!(line.given_up(now + LOOK_EVERY * 2), Some(Burden::Large));
    }

    #[test]
    fn an_abandoned_read_is_cancelled_when_somebody_waits_behind_it() {
        let mut line = Line::default();
        let gone = line.join();
        line.leave(gone);
        assert!(!is_stuck(&mut line));
        let behind = line.join();
        assert!(is_stuck(&mut line));
        assert_eq!(line.cancelled(behind), Cancelled::ByMistake);
    }
}
