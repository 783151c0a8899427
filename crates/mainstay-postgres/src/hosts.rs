//! Which host to ask next, and whether what answers is what was wanted.
//!
//! On the day of a failover one host swallows packets, one is still a standby, and the application has
//! two seconds of patience. So what was learnt about a host is kept: one that failed goes behind the
//! others and gets less of the time, one that has failed a moment ago is not asked at all while another
//! one answers, and none is given up: if nobody else is there, everybody is asked.

use mainstay_core::config::SessionAttrs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a host that failed is left alone while others answer; doubles with each failure. Shorter
/// than anybody notices at first, and a host that comes back is used again within seconds.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// How much of the time a host gets that has failed before. Long enough for a login across an ocean,
/// short enough that the others are asked again within the two seconds that an outage may be ridden out.
const SECOND_CHANCE: Duration = Duration::from_secs(1);

/// What a server is, as far as it matters whom to connect to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    /// It replays what another one writes.
    pub(crate) in_recovery: bool,
    /// Its own default for sessions is read-only: so is an old primary fenced off.
    pub(crate) read_only: bool,
}

impl Role {
    /// Whether such a server is wanted.
    pub(crate) fn suits(self, wanted: SessionAttrs) -> bool {
        match wanted {
            SessionAttrs::Any | SessionAttrs::PreferStandby => true,
            SessionAttrs::ReadWrite => !self.in_recovery && !self.read_only,
            SessionAttrs::ReadOnly => self.in_recovery || self.read_only,
            SessionAttrs::Primary => !self.in_recovery,
            SessionAttrs::Standby => self.in_recovery,
        }
    }

    /// What it is, in words.
    pub(crate) fn words(self) -> &'static str {
        match (self.in_recovery, self.read_only) {
            (true, _) => "is in recovery",
            (false, true) => "is read-only",
            (false, false) => "takes writes",
        }
    }
}

/// What was learnt about the hosts of one database, in the order of the URL.
#[derive(Debug)]
pub(crate) struct Hosts {
    states: Mutex<Vec<State>>,
    /// Whose turn it is among those that take reads.
    turn: AtomicUsize,
}

#[derive(Clone, Debug, Default)]
struct State {
    failures: u32,
    not_before: Option<Instant>,
    /// When its server was started, in microseconds since 1970.
    started: Option<i64>,
    /// It has said what it is, and no session with it has been lost since.
    is_known: bool,
    /// Whether it was in recovery when it said so.
    in_recovery: bool,
    /// How far it has come in its log; see [`crate::replicas`].
    position: u64,
}

impl State {
    fn pause(&self) -> Duration {
        PAUSE
            .saturating_mul(1 << self.failures.clamp(1, 10).saturating_sub(1))
            .min(PAUSE_MAX)
    }

    fn is_resting(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|at| at > now)
    }
}

/// A host to be asked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its place in the URL.
    pub(crate) index: usize,
    /// How long it may take at most, if it has failed before and is not the only one.
    pub(crate) limit: Option<Duration>,
    /// It failed a moment ago: asked only if nobody else answers.
    pub(crate) is_resting: bool,
}

impl Hosts {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            states: Mutex::new(vec![State::default(); count]),
            turn: AtomicUsize::new(0),
        }
    }

    fn with<T>(&self, index: usize, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.get_mut(index).map(act)
    }

    /// The same for a session that reads: standbys before all others, each in turn, so that they share the
    /// reads.
    pub(crate) fn candidates_to_read(&self, now: Instant) -> Vec<Candidate> {
        let mut candidates = self.candidates(now);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let count = states.len().max(1);
        candidates.sort_by_key(|candidate| {
            let state = states.get(candidate.index);
            let is_primary = state.is_some_and(|state| state.is_known && !state.in_recovery);
            let place = (candidate.index + count - turn % count) % count;
            (candidate.is_resting, is_primary, place)
        });
        candidates
    }

    /// The hosts in the order in which to ask them: those of which nothing bad is known as the URL lists
    /// them, then those that failed, the longest ago first.
    pub(crate) fn candidates(&self, now: Instant) -> Vec<Candidate> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let is_alone = states.len() == 1;
        let mut found: Vec<_> = states.iter().enumerate().collect();
        found.sort_by_key(|(_, state)| state.not_before);
        let candidate = |(index, state): (usize, &State)| Candidate {
            index,
            limit: (state.failures > 0 && !is_alone).then_some(SECOND_CHANCE),
            is_resting: state.is_resting(now) && !is_alone,
        };
        found.into_iter().map(candidate).collect()
    }

    /// It has given us a session.
    pub(crate) fn on_opened(&self, index: usize) {
        self.with(index, |state| {
            state.failures = 0;
            state.not_before = None;
        });
    }

    /// It did not answer, or not in time; or a session with it was lost.
    pub(crate) fn on_failed(&self, index: usize, now: Instant) {
        self.with(index, |state| {
            // Whatever answers next may be something else.
            (state.is_known, state.position) = (false, 0);
            // Ten sessions that are lost together are one failure.
            if !state.is_resting(now) {
                state.failures = state.failures.saturating_add(1);
                state.not_before = Some(now + state.pause());
            }
        });
    }

    /// Notes when its server was started. Answers whether that is another start than the one before.
    pub(crate) fn on_started(&self, index: usize, started: i64) -> bool {
        let before = self.with(index, |state| state.started.replace(started));
        before.flatten().is_some_and(|before| before != started)
    }

    /// It has said what it is to a session that was just opened.
    pub(crate) fn on_known(&self, index: usize, role: Role) {
        self.with(index, |state| {
            (state.is_known, state.in_recovery) = (true, role.in_recovery);
        });
    }

    /// It has come that far in its log.
    pub(crate) fn on_position(&self, index: usize, position: u64) {
        self.with(index, |state| state.position = state.position.max(position));
    }

    /// How far it is known to have come.
    pub(crate) fn position(&self, index: usize) -> u64 {
        self.with(index, |state| state.position).unwrap_or_default()
    }

    /// Whether it has, and nothing has happened since after which something else could be there.
    pub(crate) fn is_known(&self, index: usize) -> bool {
        self.with(index, |state| state.is_known).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(hosts: &Hosts, now: Instant) -> Vec<(usize, bool)> {
        let candidates = hosts.candidates(now);
        candidates
            .iter()
            .map(|one| (one.index, one.is_resting))
            .collect()
    }

    const PRIMARY: Role = Role {
        in_recovery: false,
        read_only: false,
    };
    const STANDBY: Role = Role {
        in_recovery: true,
        read_only: false,
    };

    #[tokio::test(start_paused = true)]
    async fn who_reads_asks_the_standbys_in_turn_and_the_primary_after_them() {
        let hosts = Hosts::new(3);
        let now = Instant::now();
        hosts.on_known(0, PRIMARY);
        hosts.on_known(1, STANDBY);
        let order = || -> Vec<usize> {
            let candidates = hosts.candidates_to_read(now);
            candidates.iter().map(|one| one.index).collect()
        };
        let orders = [order(), order(), order()];
        assert!(orders.iter().all(|order| order[2] == 0), "{orders:?}");
        assert!(orders.iter().any(|order| order[0] == 1), "{orders:?}");
        assert!(orders.iter().any(|order| order[0] == 2), "{orders:?}");
        hosts.on_failed(1, now);
        let order = hosts.candidates_to_read(now);
        assert_eq!(order[2].index, 1, "after a failure a primary is better");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_does_not_go_back_until_it_is_lost() {
        let hosts = Hosts::new(2);
        hosts.on_position(1, 70);
        hosts.on_position(1, 60);
        assert_eq!((hosts.position(0), hosts.position(1)), (0, 70));
        hosts.on_failed(1, Instant::now());
        assert_eq!(hosts.position(1), 0, "who answers next may be another one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_failed_goes_behind_the_others_and_rests() {
        let hosts = Hosts::new(3);
        let now = Instant::now();
        assert_eq!(order(&hosts, now), [(0, false), (1, false), (2, false)]);
        hosts.on_failed(0, now);
        assert_eq!(order(&hosts, now), [(1, false), (2, false), (0, true)]);
        let rested = now + PAUSE;
        assert_eq!(order(&hosts, rested), [(1, false), (2, false), (0, false)]);
        assert_eq!(hosts.candidates(rested)[2].limit, Some(SECOND_CHANCE));
        hosts.on_opened(0);
        assert_eq!(order(&hosts, now), [(0, false), (1, false), (2, false)]);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_bound_and_losses_at_once_count_as_one() {
        let hosts = Hosts::new(2);
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            for _ in 0..10 {
                hosts.on_failed(0, now);
            }
            let until = hosts.with(0, |state| state.not_before).flatten().unwrap();
            pauses.push(until - now);
            now = until;
        }
        assert_eq!(pauses[..3], [PAUSE, PAUSE * 2, PAUSE * 4]);
        assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_loss_nobody_knows_what_answers_next() {
        let hosts = Hosts::new(2);
        assert!(!hosts.is_known(0));
        hosts.on_known(0, PRIMARY);
        assert_eq!((hosts.is_known(0), hosts.is_known(1)), (true, false));
        hosts.on_failed(0, Instant::now());
        assert!(!hosts.is_known(0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_only_host_is_always_asked_and_has_all_the_time() {
        let hosts = Hosts::new(1);
        let now = Instant::now();
        hosts.on_failed(0, now);
        let only = Candidate {
            index: 0,
            limit: None,
            is_resting: false,
        };
        assert_eq!(hosts.candidates(now), [only]);
    }

    #[test]
    fn a_restart_is_a_start_at_another_time() {
        let hosts = Hosts::new(1);
        assert!(!hosts.on_started(0, 10));
        assert!(!hosts.on_started(0, 10));
        assert!(hosts.on_started(0, 11));
        assert!(!hosts.on_started(7, 11));
    }

    #[test]
    fn the_words_mean_what_libpq_means() {
        use SessionAttrs::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
        let role = |in_recovery, read_only| Role {
            in_recovery,
            read_only,
        };
        let (primary, fenced, standby) = (role(false, false), role(false, true), role(true, false));
        for (wanted, expected) in [
            (Any, [true, true, true]),
            (PreferStandby, [true, true, true]),
            (ReadWrite, [true, false, false]),
            (ReadOnly, [false, true, true]),
            (Primary, [true, true, false]),
            (Standby, [false, false, true]),
        ] {
            let found = [primary, fenced, standby].map(|role| role.suits(wanted));
            assert_eq!(found, expected, "{wanted:?}");
        }
    }
}
