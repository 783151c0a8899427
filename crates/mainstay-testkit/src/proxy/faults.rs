//! The faults that are in force: written by the test, read by every connection before each step.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// A way through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What clients send.
    ToTarget,
    /// What the target answers.
    FromTarget,
}

/// Shared between the proxy's handle and its connections.
#[derive(Debug)]
pub(super) struct Faults {
    flow: watch::Sender<Flow>,
    latency: Mutex<Duration>,
    cut: Mutex<Option<Cut>>,
    open: AtomicUsize,
    accepted: AtomicU64,
    sent: AtomicU64,
    answered: AtomicU64,
    round_trips: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    flowing: bool,
    /// The connections up to this number are stranded: nothing passes on them any more.
    stranded: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    left: u64,
    direction: Direction,
}

/// How many bytes of a piece may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    All,
    /// This many, then the connection is to be cut.
    Only(usize),
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            flow: watch::Sender::new(Flow {
                flowing: true,
                stranded: 0,
            }),
            latency: Mutex::default(),
            cut: Mutex::default(),
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
        }
    }
}

impl Faults {
    pub(super) fn flow(&self, flowing: bool) {
        self.flow.send_modify(|flow| flow.flowing = flowing);
    }

    pub(super) fn strand(&self) {
        let stranded = self.accepted();
        self.flow.send_modify(|flow| flow.stranded = stranded);
    }

    pub(super) fn set_latency(&self, delay: Duration) {
        *self.latency.lock().unwrap_or_else(PoisonError::into_inner) = delay;
    }

    pub(super) fn latency(&self) -> Duration {
        *self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cut_after(&self, bytes: u64, direction: Direction) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        *cut = Some(Cut {
            left: bytes,
            direction,
        });
    }

    /// Counts a piece against the pending cut. The piece that the cut falls into uses it up.
    pub(super) fn pass(&self, direction: Direction, length: usize) -> Passage {
        let mut pending = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cut) = pending.as_mut().filter(|cut| cut.direction == direction) else {
            return Passage::All;
        };
        match usize::try_from(cut.left) {
            Ok(left) if left < length => {
                *pending = None;
                Passage::Only(left)
            }
            _ => {
                cut.left -= length as u64;
                Passage::All
            }
        }
    }

    pub(super) fn passed(&self, direction: Direction) -> u64 {
        self.counter(direction).load(Ordering::Acquire)
    }

    fn counter(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToTarget => &self.sent,
            Direction::FromTarget => &self.answered,
        }
    }

    pub(super) fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Acquire)
    }

    pub(super) fn open_links(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    /// Counts a connection for as long as the answer lives.
    pub(super) fn count_link(self: &Arc<Self>) -> CountedLink {
        self.open.fetch_add(1, Ordering::AcqRel);
        let before = self.accepted.fetch_add(1, Ordering::AcqRel);
        CountedLink {
            faults: Arc::clone(self),
            number: before + 1,
            is_asked: AtomicBool::new(false),
        }
    }
}

/// One open connection in the count.
#[derive(Debug)]
pub(super) struct CountedLink {
    faults: Arc<Faults>,
    /// Counted from 1.
    number: u64,
    /// Whether the client was the last one to say something.
    is_asked: AtomicBool,
}

impl CountedLink {
    /// Takes note of bytes that are given to the other side. A round trip begins when the client says
    /// something and was not the last one who did: however much it says, it waits once.
    pub(super) fn count_bytes(&self, direction: Direction, length: usize) {
        self.faults
            .counter(direction)
            .fetch_add(length as u64, Ordering::AcqRel);
        let asks = direction == Direction::ToTarget;
        if length > 0 && !self.is_asked.swap(asks, Ordering::AcqRel) && asks {
            self.faults.round_trips.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Returns at once unless nothing passes on this connection, then when something does again.
    pub(super) async fn until_flowing(&self) {
        let mut flow = self.faults.flow.subscribe();
        let passes = |flow: &Flow| flow.flowing && self.number > flow.stranded;
        // Fails only when the sender is gone, and the sender is ours.
        flow.wait_for(passes).await.ok(); // see above
    }
}

impl Deref for CountedLink {
    type Target = Faults;

    fn deref(&self) -> &Faults {
        &self.faults
    }
}

impl Drop for CountedLink {
    fn drop(&mut self) {
        self.faults.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_counts_its_own_direction_and_happens_once() {
        let faults = Faults::default();
        faults.cut_after(5, Direction::FromTarget);
        assert_eq!(faults.pass(Direction::ToTarget, 100), Passage::All);
        assert_eq!(faults.pass(Direction::FromTarget, 5), Passage::All);
        assert_eq!(faults.pass(Direction::FromTarget, 1), Passage::Only(0));
        assert_eq!(faults.pass(Direction::FromTarget, 100), Passage::All);
    }
}
