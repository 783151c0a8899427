//! Why a queue of our own: a semaphore hands out permits, and whoever gets one still has to find a
//! connection, race for it, and give the permit back if it was cancelled meanwhile. Here the oldest
//! waiter gets the connection itself, in its own place, and a waiter that leaves takes nothing with it.
//!
//! Places live in a slab; two doubly linked lists run through it, one per priority, so joining,
//! leaving from the middle and serving the oldest all take constant time. The slab never holds more
//! than the pool's `max_waiters`.

use std::panic::Location;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::connector::Tag;
use crate::error::ShedReason;

/// Who is served first.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Nobody does; served after the interactive ones, though every eighth turn is its own.
    Batch,
}

/// What a caller asks for.
#[derive(Copy, Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// The instant that bounds everything: queueing, checking, connecting.
    pub deadline: Instant,
    /// The setting a connection should have, if there is a choice.
    pub prefer: Option<Tag>,
    /// Who is served first.
    pub priority: Priority,
    /// Where the request was made, for `holders()`.
    pub site: &'static Location<'static>,
}

impl Request {
    /// An interactive request without preference, made at the caller's place in the source.
    #[must_use]
    #[track_caller]
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            prefer: None,
            priority: Priority::default(),
            site: Location::caller(),
        }
    }

    /// Prefers a connection that was last used with this setting.
    #[must_use]
    pub fn prefer(mut self, tag: impl Into<Option<Tag>>) -> Self {
        self.prefer = tag.into();
        self
    }

    /// Changes who is served first.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Says where the request was made, for callers that were told themselves.
    #[must_use]
    pub fn site(mut self, site: &'static Location<'static>) -> Self {
        self.site = site;
        self
    }
}

/// What a waiter is told.
pub(crate) enum Answer<C, E> {
    /// The connection of this slot is yours; the ledger counts it as lent already.
    Lent(usize, C),
    /// Connecting was refused for good.
    Refused(E),
    /// The pool was closed.
    Closed,
    /// You could not be served in time.
    Shed(ShedReason),
}

/// A waiter's place; owned by the waiter until it leaves.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key(usize);

enum State<C, E> {
    Free,
    Waiting(Option<Waker>),
    Answered(Answer<C, E>),
}

struct Place<C, E> {
    request: Request,
    since: Instant,
    state: State<C, E>,
    previous: Option<usize>,
    next: Option<usize>,
}

#[derive(Copy, Clone, Default)]
struct Line {
    first: Option<usize>,
    last: Option<usize>,
}

/// Everybody who waits.
pub(crate) struct Waiters<C, E> {
    places: Vec<Place<C, E>>,
    free: Vec<usize>,
    lines: [Line; 2],
    waiting: usize,
    /// Counts the interactive turns since the last batch turn.
    turn: u8,
}

/// One turn in this many goes to batch work while both kinds wait, so that it never starves.
const BATCH_TURN: u8 = 8;

impl<C, E> Waiters<C, E> {
    pub(crate) fn new() -> Self {
        let lines = [Line::default(); 2];
        Self {
            places: Vec::new(),
            free: Vec::new(),
            lines,
            waiting: 0,
            turn: 0,
        }
    }

    /// How many wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many places are taken, with those that were answered and have not looked yet.
    pub(crate) fn taken(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn join(&mut self, now: Instant, request: Request) -> Key {
        let line = request.priority as usize;
        let place = Place {
            request,
            since: now,
            state: State::Waiting(None),
            previous: self.lines[line].last,
            next: None,
        };
        let index = if let Some(index) = self.free.pop() {
            self.places[index] = place;
            index
        } else {
            self.places.push(place);
            self.places.len() - 1
        };
        match self.lines[line].last.replace(index) {
            Some(last) => self.places[last].next = Some(index),
            None => self.lines[line].first = Some(index),
        }
        self.waiting += 1;
        Key(index)
    }

    /// Takes the answer, or leaves the waker that is to be woken when there is one.
    pub(crate) fn poll(&mut self, key: Key, waker: &Waker) -> Option<Answer<C, E>> {
        if let State::Waiting(kept) = &mut self.places[key.0].state {
            if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
                *kept = Some(waker.clone());
            }
            return None;
        }
        self.leave(key)
    }

    /// Gives the place back, with the answer if there was one already.
    pub(crate) fn leave(&mut self, key: Key) -> Option<Answer<C, E>> {
        if matches!(self.places[key.0].state, State::Waiting(_)) {
            self.unlink(key.0);
        }
        self.free.push(key.0);
        match std::mem::replace(&mut self.places[key.0].state, State::Free) {
            State::Answered(answer) => Some(answer),
            State::Waiting(_) | State::Free => None,
        }
    }

    /// Puts the answer into the waiter's place and returns who is to be woken.
    pub(crate) fn answer(&mut self, key: Key, answer: Answer<C, E>) -> Option<Waker> {
        self.unlink(key.0);
        match std::mem::replace(&mut self.places[key.0].state, State::Answered(answer)) {
            State::Waiting(waker) => waker,
            State::Answered(_) | State::Free => None,
        }
    }

    /// Whose turn it is.
    pub(crate) fn oldest(&self) -> Option<Key> {
        let [interactive, batch] = [self.lines[0].first, self.lines[1].first];
        let batch_turn = self.turn + 1 >= BATCH_TURN;
        if batch_turn {
            batch.or(interactive)
        } else {
            interactive.or(batch)
        }
        .map(Key)
    }

    /// Notes that this waiter was served, which moves the turn on.
    pub(crate) fn served(&mut self, key: Key) {
        let contended = self.lines[1].first.is_some();
        self.turn = match self.places[key.0].request.priority {
            Priority::Interactive if contended => self.turn.saturating_add(1),
            _ => 0,
        };
    }

    /// The oldest waiter of this priority.
    pub(crate) fn first(&self, priority: Priority) -> Option<Key> {
        self.lines[priority as usize].first.map(Key)
    }

    pub(crate) fn request(&self, key: Key) -> &Request {
        &self.places[key.0].request
    }

    pub(crate) fn since(&self, key: Key) -> Instant {
        self.places[key.0].since
    }

    /// How long the one that waits longest has waited.
    pub(crate) fn longest_wait(&self, now: Instant) -> Duration {
        self.lines
            .iter()
            .filter_map(|line| line.first)
            .map(|index| now.saturating_duration_since(self.places[index].since))
            .max()
            .unwrap_or_default()
    }

    fn unlink(&mut self, index: usize) {
        let Place {
            previous,
            next,
            request,
            ..
        } = &self.places[index];
        let (previous, next, line) = (*previous, *next, request.priority as usize);
        match previous {
            Some(previous) => self.places[previous].next = next,
            None => self.lines[line].first = next,
        }
        match next {
            Some(next) => self.places[next].previous = previous,
            None => self.lines[line].last = previous,
        }
        self.waiting -= 1;
    }
}
