//! Why a queue of our own: a semaphore hands out permits, and whoever gets one still has to find a
//! connection, race for it, and give the permit back if it was cancelled meanwhile. Here the oldest
//! waiter gets the connection itself, in its own place, and a waiter that leaves takes nothing with it.
//!
//! Waiters live in a slab; four doubly linked lists run through it, one per priority and use, so
//! joining, leaving from the middle and serving the oldest all take constant time. Both uses of one
//! priority are one queue: who came first is told by a number. The slab never holds more than the
//! pool's `max_waiters`.

use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;

use tokio::task;
use tokio::time::Instant;

use crate::connector::Tag;
use crate::error::ShedReason;
use crate::lock::{self, Mutex};

/// Who is served first.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Nobody does; served after the interactive ones, though every eighth turn is its own.
    Batch,
}

/// What a connection is wanted for.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Use {
    /// A lease: nobody else uses the connection meanwhile.
    #[default]
    Exclusive,
    /// A place on a connection that others use at the same time.
    Shared,
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
    /// Whether the caller is known to need a place for a moment only; see [`brief`](Self::brief).
    pub brief: bool,
    /// Where the request was made, for `holders()`.
    pub site: &'static Location<'static>,
    pub(crate) wanted: Use,
    /// The task that asks, if it is one: a task that waits while it holds a lease may wait for itself.
    pub(crate) task: Option<task::Id>,
}

/// Who asks, as far as it matters for a connection that is there.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) prefer: Option<Tag>,
    pub(crate) site: &'static Location<'static>,
}

impl Caller {
    /// The caller of the function that asks, without preference.
    #[track_caller]
    pub(crate) fn here() -> Self {
        Self {
            prefer: None,
            site: Location::caller(),
        }
    }
}

impl Request {
    pub(crate) fn caller(&self) -> Caller {
        Caller {
            prefer: self.prefer,
            site: self.site,
        }
    }

    /// An interactive request without preference, made at the caller's place in the source.
    #[must_use]
    #[track_caller]
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            prefer: None,
            priority: Priority::default(),
            brief: false,
            site: Location::caller(),
            wanted: Use::default(),
            task: None,
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

    /// Says that a place is wanted for a moment only. Such callers gather on one connection, up to the
    /// depth of the pool, before another one is used, as long as nobody else is on it; all others are
    /// spread over the active set.
    #[must_use]
    pub fn brief(mut self, brief: bool) -> Self {
        self.brief = brief;
        self
    }

    /// Says where the request was made, for callers that were told themselves.
    #[must_use]
    pub fn site(mut self, site: &'static Location<'static>) -> Self {
        self.site = site;
        self
    }
}

/// What is lent: a whole connection, or a place on it.
pub(crate) struct Grant<C> {
    pub(crate) index: usize,
    /// The number of the place, if it is one.
    pub(crate) seat: Option<u64>,
    /// The setting of the connection.
    pub(crate) tag: Tag,
    pub(crate) connection: C,
}

/// What a waiter is told.
pub(crate) enum Answer<C, E> {
    /// This is yours, and counts as lent from that instant on.
    Lent(Grant<C>, Instant),
    /// Connecting was refused for good.
    Refused(E),
    /// All who waited were refused.
    TurnedAway(E),
    /// The pool was closed.
    Closed,
    /// You could not be served in time.
    Shed(ShedReason),
}

/// Which waiter; valid until it is answered or leaves.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key(usize);

/// Where a waiter finds its answer without asking the ledger, which everybody else visits. Filled
/// and given up only under the ledger's lock, looked into without it.
struct Letterbox<C, E>(Mutex<Letter<C, E>>);

enum Letter<C, E> {
    Awaited(Waker),
    Here(Answer<C, E>),
    Taken,
}

/// A waiter's way to its answer; given back with [`Waiters::leave`] unless the answer was taken.
pub(crate) struct Ticket<C, E> {
    key: Key,
    letterbox: Arc<Letterbox<C, E>>,
}

impl<C, E> Ticket<C, E> {
    /// Takes the answer, or leaves the waker that is to be woken when there is one.
    pub(crate) fn look(&self, waker: &Waker) -> Option<Answer<C, E>> {
        let mut letter = lock::enter(&self.letterbox.0);
        if let Letter::Awaited(kept) = &mut *letter {
            kept.clone_from(waker);
            return None;
        }
        letter.take()
    }
}

impl<C, E> Letter<C, E> {
    fn take(&mut self) -> Option<Answer<C, E>> {
        match std::mem::replace(self, Self::Taken) {
            Self::Here(answer) => Some(answer),
            Self::Awaited(_) | Self::Taken => None,
        }
    }
}

struct Waiter<C, E> {
    request: Request,
    since: Instant,
    /// Tells who came first where two lines are one queue.
    number: u64,
    /// Stays when it is answered or has left, for the next one in this place.
    letterbox: Arc<Letterbox<C, E>>,
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
    slab: Vec<Waiter<C, E>>,
    free: Vec<usize>,
    /// Two of each priority: for leases, and for places on shared connections.
    lines: [Line; 4],
    /// How many wait for a lease, and for a place.
    waiting: [usize; 2],
    joined: u64,
    /// Counts the interactive turns since the last batch turn.
    turn: u8,
}

/// One turn in this many goes to batch work while both kinds wait, so that it never starves.
const BATCH_TURN: u8 = 8;

impl<C, E> Waiters<C, E> {
    pub(crate) fn new() -> Self {
        Self {
            slab: Vec::new(),
            free: Vec::new(),
            lines: [Line::default(); 4],
            waiting: [0; 2],
            joined: 0,
            turn: 0,
        }
    }

    /// How many wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting[0] + self.waiting[1]
    }

    /// Whether all who wait stand in the same line, for a lease.
    pub(crate) fn are_alike(&self) -> bool {
        let [interactive, seats, batch, batch_seats] = self.lines.map(|line| line.first.is_some());
        !seats && !batch_seats && (interactive != batch)
    }

    /// Whether somebody of this priority waits; where all are alike, then all have it.
    pub(crate) fn all_have(&self, priority: Priority) -> bool {
        self.lines[priority as usize * 2].first.is_some()
    }

    /// How many wait for this use of a connection.
    pub(crate) fn waiting_for(&self, wanted: Use) -> usize {
        self.waiting[wanted as usize]
    }

    pub(crate) fn join(&mut self, now: Instant, request: Request, waker: &Waker) -> Ticket<C, E> {
        let line = line(&request);
        self.joined += 1;
        let letter = Letter::Awaited(waker.clone());
        let index = self.place(now, request, letter);
        let waiter = &mut self.slab[index];
        waiter.previous = self.lines[line].last;
        let letterbox = Arc::clone(&waiter.letterbox);
        match self.lines[line].last.replace(index) {
            Some(last) => self.slab[last].next = Some(index),
            None => self.lines[line].first = Some(index),
        }
        self.waiting[request.wanted as usize] += 1;
        let key = Key(index);
        Ticket { key, letterbox }
    }

    /// A place in the slab, with a letterbox that nobody else has: that of whoever was here before, if
    /// it has let go of it.
    fn place(&mut self, now: Instant, request: Request, letter: Letter<C, E>) -> usize {
        let Some(index) = self.free.pop() else {
            self.slab.push(Waiter {
                request,
                since: now,
                number: self.joined,
                letterbox: Arc::new(Letterbox(Mutex::new(letter))),
                previous: None,
                next: None,
            });
            return self.slab.len() - 1;
        };
        let waiter = &mut self.slab[index];
        (waiter.request, waiter.since) = (request, now);
        (waiter.number, waiter.next) = (self.joined, None);
        match Arc::get_mut(&mut waiter.letterbox) {
            Some(Letterbox(own)) => *lock::own(own) = letter,
            None => waiter.letterbox = Arc::new(Letterbox(Mutex::new(letter))),
        }
        index
    }

    /// Takes the waiter out, with the answer if there was one already.
    pub(crate) fn leave(&mut self, ticket: &Ticket<C, E>) -> Option<Answer<C, E>> {
        let mut letter = lock::enter(&ticket.letterbox.0);
        if matches!(*letter, Letter::Awaited(_)) {
            // Only without an answer is the key still this waiter's own.
            self.unlink(ticket.key.0);
        }
        letter.take()
    }

    /// Leaves the answer for the waiter, who is out of the queue by that, and returns who is to be
    /// woken.
    pub(crate) fn answer(&mut self, key: Key, answer: Answer<C, E>) -> Option<Waker> {
        self.unlink(key.0);
        let mut letter = lock::enter(&self.slab[key.0].letterbox.0);
        match std::mem::replace(&mut *letter, Letter::Here(answer)) {
            Letter::Awaited(waker) => Some(waker),
            Letter::Here(_) | Letter::Taken => None,
        }
    }

    /// Whose turn it is.
    pub(crate) fn oldest(&self) -> Option<Key> {
        self.by_turn(|waiters, priority| waiters.first(priority))
    }

    /// Whose turn it is among those who want a connection for this use.
    pub(crate) fn oldest_for(&self, wanted: Use) -> Option<Key> {
        self.by_turn(|waiters, priority| {
            waiters.lines[priority as usize * 2 + wanted as usize].first
        })
    }

    fn by_turn(&self, first: impl Fn(&Self, Priority) -> Option<usize>) -> Option<Key> {
        let interactive = || first(self, Priority::Interactive);
        let batch = || first(self, Priority::Batch);
        if self.turn + 1 >= BATCH_TURN {
            batch().or_else(interactive)
        } else {
            interactive().or_else(batch)
        }
        .map(Key)
    }

    /// Notes that this waiter was served, which moves the turn on.
    pub(crate) fn served(&mut self, key: Key) {
        let contended = self.first(Priority::Batch).is_some();
        self.turn = match self.slab[key.0].request.priority {
            Priority::Interactive if contended => self.turn.saturating_add(1),
            _ => 0,
        };
    }

    /// The oldest waiter of this priority, whatever it wants a connection for.
    pub(crate) fn oldest_of(&self, priority: Priority) -> Option<Key> {
        self.first(priority).map(Key)
    }

    fn first(&self, priority: Priority) -> Option<usize> {
        let line = priority as usize * 2;
        let [lease, place] = [self.lines[line].first, self.lines[line + 1].first];
        match (lease, place) {
            (Some(lease), Some(place)) if self.slab[place].number < self.slab[lease].number => {
                Some(place)
            }
            (lease, place) => lease.or(place),
        }
    }

    pub(crate) fn request(&self, key: Key) -> &Request {
        &self.slab[key.0].request
    }

    pub(crate) fn since(&self, key: Key) -> Instant {
        self.slab[key.0].since
    }

    /// Since when the one that waits longest does.
    pub(crate) fn oldest_since(&self) -> Option<Instant> {
        let first = self.lines.iter().filter_map(|line| line.first);
        first.map(|index| self.slab[index].since).min()
    }

    /// Takes a waiter out of its line and frees its place in the slab.
    fn unlink(&mut self, index: usize) {
        let Waiter {
            previous,
            next,
            request,
            ..
        } = &self.slab[index];
        let (previous, next, line) = (*previous, *next, line(request));
        let wanted = request.wanted as usize;
        match previous {
            Some(previous) => self.slab[previous].next = next,
            None => self.lines[line].first = next,
        }
        match next {
            Some(next) => self.slab[next].previous = previous,
            None => self.lines[line].last = previous,
        }
        self.waiting[wanted] -= 1;
        self.free.push(index);
    }
}

fn line(request: &Request) -> usize {
    request.priority as usize * 2 + request.wanted as usize
}
