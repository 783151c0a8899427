//! Why refuse calls that might succeed?
//!
//! While a database is away, every call that is sent to it waits for its whole timeout and then
//! fails. Requests pile up behind these waits until the service is as dead as its database, and
//! when the database comes back, it meets all of them at once. A gate that knows "it does not
//! answer" can refuse within a microsecond, with the reason, and let one careful prober find out
//! when that has changed.
//!
//! The classic mistakes are about what to count. A breaker that counts constraint violations turns
//! one bad query into a total outage; one that counts them as *nothing* can use up its half-open
//! permits on them and never close. Here any answer of the server is a success, the probing is the
//! pool's own and needs no permits, and even a prober that died cannot keep the gate shut.
//!
//! Short outages never reach it: until [`BreakerConfig::ride_through`] has passed since the first
//! loss, callers pass and wait within their own deadlines for the pool to reconnect.
//!
//! An endpoint has two breakers, one for what statements say and one for what connects say: live
//! connections that answer are worth using while no new one can be had. A third gate, for refused
//! credentials, is slower and stands apart ([`LoginGate`](crate::LoginGate)).
//!
//! The states are named as in electricity: *closed* lets through, *open* does not. Their exits:
//!
//! * closed → open: enough failures, for longer than the ride-through;
//! * open → half-open: a good probe; callers are still refused;
//! * half-open → closed: a second good probe; a ramp limits the calls in flight for the first
//!   moments;
//! * half-open → open: a bad probe.

mod config;
mod ramp;
mod state;
#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

use tokio::time::Instant;

pub use self::config::BreakerConfig;
use self::ramp::Ramp;
pub use self::state::{Admission, State};
use self::window::{Tally, Window};
use crate::{Deadline, Evidence};

/// What those are told who meet a gate that an operator opened: nobody knows when it ends, so ask
/// again after this.
const FORCED_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The gate that stops calls while the database does not answer.
///
/// It holds no clock, no lock and no task: `now` comes in, decisions go out. Its owner asks
/// [`admit`](Self::admit) before a call, reports the result through
/// [`on_evidence`](Self::on_evidence), and lets one prober follow [`next_probe`](Self::next_probe)
/// and [`on_probe`](Self::on_probe).
///
/// ```
/// use mainstay_resilience::{Admission, Breaker, BreakerConfig, Evidence};
/// use std::time::Duration;
/// use tokio::time::Instant;
///
/// let mut breaker = Breaker::new(BreakerConfig::default());
/// let start = Instant::now();
/// for _ in 0..5 {
///     breaker.on_evidence(start, Evidence::Silent, None); // connects that were refused
/// }
/// assert_eq!(breaker.admit(start), Admission::Pass); // a short outage is waited out
/// let later = start + Duration::from_secs(2);
/// assert!(matches!(breaker.admit(later), Admission::Refuse { .. }));
/// assert!(breaker.next_probe(later).is_some());
/// ```
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    order: Order,
    phase: Phase,
    window: Window,
    /// Failed connects in a row, without any answer between them.
    silent_connects: u32,
    /// The first failure of the present trouble, or of the last one; the next failure after a calm
    /// begins a new one.
    first_loss: Option<Instant>,
    /// What was seen since the first failure of the present trouble.
    since_loss: Tally,
    /// When the first call passed of which, as of all after it, nothing has been heard since the latest
    /// failure.
    unheard_since: Option<Instant>,
    /// Whether the latest evidence was a failure.
    last_failed: bool,
    /// The latest failure.
    last_loss: Option<Instant>,
    /// The latest answer.
    last_answer: Option<Instant>,
    times_opened: u64,
    rng: fastrand::Rng,
}

/// What an operator ordered.
#[derive(Copy, Clone, Debug)]
enum Order {
    Automatic,
    Open { since: Instant },
    Closed,
}

/// Where the breaker is by itself.
#[derive(Clone, Debug)]
enum Phase {
    Closed { ramp: Option<Ramp> },
    Open(Outage),
    HalfOpen { outage: Outage, good_probes: u32 },
}

/// An outage that callers are spared.
#[derive(Clone, Debug)]
struct Outage {
    since: Instant,
    next_probe: Instant,
    /// A caller was let through in place of a missing prober and has not reported yet.
    stand_in: bool,
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        let rng = config
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self {
            window: Window::new(config.window),
            config,
            order: Order::Automatic,
            phase: Phase::Closed { ramp: None },
            silent_connects: 0,
            first_loss: None,
            since_loss: Tally::default(),
            unheard_since: None,
            last_failed: false,
            last_loss: None,
            last_answer: None,
            times_opened: 0,
            rng,
        }
    }

    /// Whether a call may go on. One that passes must report through
    /// [`on_evidence`](Self::on_evidence), with [`Evidence::Neither`] when it was dropped; a lost
    /// report slows the ramp a little and does no other harm.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.order {
            Order::Automatic => {}
            Order::Closed => return Admission::Pass,
            Order::Open { since } => {
                return Admission::Refuse {
                    retry_after: FORCED_RETRY_AFTER,
                    since,
                };
            }
        }
        self.let_ramp_end(now);
        if self.hears_of_it_still(now) {
            self.open_if_due(now);
        }
        match &mut self.phase {
            Phase::Closed { ramp: None } => {
                if self.last_failed {
                    self.unheard_since.get_or_insert(now);
                }
                Admission::Pass
            }
            Phase::Closed { ramp: Some(ramp) } => match ramp.try_enter(now) {
                Ok(()) => Admission::Pass,
                Err(retry_after) => Admission::Refuse {
                    retry_after,
                    since: ramp.since,
                },
            },
            Phase::Open(outage) | Phase::HalfOpen { outage, .. } => outage.admit(now, &self.config),
        }
    }

    /// Takes in what a result says about the database.
    ///
    /// `statement` tells one statement's text from another, so that a single statement that kills
    /// its connection opens nothing; `None` means a connect.
    pub fn on_evidence(&mut self, now: Instant, evidence: Evidence, statement: Option<u64>) {
        self.take_in(now, now, evidence, statement);
    }

    /// Takes in what came of a connect that began at `began`.
    ///
    /// One that was not answered in all its time says that nobody has answered since then, so the
    /// ride-through counts from there. Of a statement this cannot be said: it may wait for a lock.
    pub fn on_connect(&mut self, now: Instant, began: Instant, evidence: Evidence) {
        self.take_in(now, began.min(now), evidence, None);
    }

    fn take_in(
        &mut self,
        now: Instant,
        began: Instant,
        evidence: Evidence,
        statement: Option<u64>,
    ) {
        if !matches!(self.order, Order::Automatic) {
            return;
        }
        self.let_ramp_end(now);
        match &mut self.phase {
            Phase::Closed { ramp } => {
                // A connect was not admitted here and so holds no place.
                if let (Some(ramp), Some(_)) = (ramp, statement) {
                    ramp.leave();
                }
                match evidence {
                    Evidence::Answered => self.on_answer(now),
                    Evidence::Silent | Evidence::Exhausted => {
                        self.on_failure(now, began, evidence, statement);
                    }
                    Evidence::Neither => {}
                }
            }
            // Late news of calls that began before it opened decides nothing: the prober does.
            // Unless there is none.
            Phase::Open(outage) | Phase::HalfOpen { outage, .. } => {
                if std::mem::take(&mut outage.stand_in) && evidence != Evidence::Neither {
                    self.on_probe(now, evidence == Evidence::Answered);
                }
            }
        }
    }

    /// Takes in what the prober found: `ok` when the database answered it.
    pub fn on_probe(&mut self, now: Instant, ok: bool) {
        if !matches!(self.order, Order::Automatic) {
            return;
        }
        let (since, good_probes) = match &self.phase {
            Phase::Closed { .. } => {
                let evidence = if ok {
                    Evidence::Answered
                } else {
                    Evidence::Silent
                };
                return self.on_evidence(now, evidence, None);
            }
            Phase::Open(outage) => (outage.since, 0),
            Phase::HalfOpen {
                outage,
                good_probes,
            } => (outage.since, *good_probes),
        };
        let good_probes = if ok { good_probes.saturating_add(1) } else { 0 };
        if good_probes >= self.config.probes_to_close.max(1) {
            self.close(Some(Ramp::new(now, self.config.ramp_step, since)));
        } else if ok {
            let next_probe = Deadline::after(now, self.config.confirm_after).instant();
            let outage = Outage {
                since,
                next_probe,
                stand_in: false,
            };
            self.phase = Phase::HalfOpen {
                outage,
                good_probes,
            };
        } else {
            let next_probe = self.draw_probe(now);
            self.phase = Phase::Open(Outage {
                since,
                next_probe,
                stand_in: false,
            });
        }
    }

    /// The refusal that a call would meet now because it is open, without counting as a call.
    #[must_use]
    pub fn refusing(&self, now: Instant) -> Option<Admission> {
        match (&self.order, &self.phase) {
            (Order::Open { since }, _) => Some(Admission::Refuse {
                retry_after: FORCED_RETRY_AFTER,
                since: *since,
            }),
            (Order::Automatic, Phase::Open(outage) | Phase::HalfOpen { outage, .. }) => {
                Some(outage.refusal(now, &self.config))
            }
            _ => None,
        }
    }

    /// Whether an operator opened it.
    #[must_use]
    pub const fn is_forced_open(&self) -> bool {
        matches!(self.order, Order::Open { .. })
    }

    /// Whether an operator closed it.
    #[must_use]
    pub const fn is_forced_closed(&self) -> bool {
        matches!(self.order, Order::Closed)
    }

    /// When the prober is to ask next, never before `now`; `None` while nobody needs to ask.
    #[must_use]
    pub fn next_probe(&self, now: Instant) -> Option<Instant> {
        match (&self.order, &self.phase) {
            (Order::Automatic, Phase::Open(outage) | Phase::HalfOpen { outage, .. }) => {
                Some(outage.next_probe.max(now))
            }
            _ => None,
        }
    }

    /// Refuses every call until told otherwise. Nothing is probed meanwhile.
    pub fn force_open(&mut self, now: Instant) {
        self.order = Order::Open { since: now };
    }

    /// Lets every call pass until told otherwise. Evidence counts for nothing meanwhile.
    pub fn force_close(&mut self) {
        self.order = Order::Closed;
    }

    /// Ends an order. The breaker starts closed and without memory; after a forced opening, with a
    /// ramp.
    pub fn automatic(&mut self, now: Instant) {
        let ramp = match self.order {
            Order::Automatic => return,
            Order::Open { since } => Some(Ramp::new(now, self.config.ramp_step, since)),
            Order::Closed => None,
        };
        self.order = Order::Automatic;
        self.close(ramp);
    }

    /// The state, orders of an operator included.
    #[must_use]
    pub fn state(&self) -> State {
        match (&self.order, &self.phase) {
            (Order::Open { since }, _) => State::Open {
                until: Deadline::far_future(*since).instant(),
                since: *since,
            },
            (Order::Closed, _) | (_, Phase::Closed { .. }) => State::Closed,
            (_, Phase::Open(outage)) => State::Open {
                until: outage.next_probe,
                since: outage.since,
            },
            (_, Phase::HalfOpen { .. }) => State::HalfOpen,
        }
    }

    /// The state's name in logs, metrics and status.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.state() {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen => "half_open",
        }
    }

    /// How often it opened by itself, for metrics.
    #[must_use]
    pub const fn times_opened(&self) -> u64 {
        self.times_opened
    }

    fn on_answer(&mut self, now: Instant) {
        self.window.on_answer(now);
        self.since_loss.on_answer();
        self.silent_connects = 0;
        self.unheard_since = None;
        self.last_answer = Some(now);
        self.last_failed = false;
        if let Phase::Closed { ramp: Some(ramp) } = &mut self.phase {
            ramp.on_answer(now);
        }
    }

    fn on_failure(
        &mut self,
        now: Instant,
        began: Instant,
        evidence: Evidence,
        statement: Option<u64>,
    ) {
        if self.is_calm(now) {
            self.first_loss = None;
        }
        if self.first_loss.is_none() {
            self.since_loss = Tally::default();
        }
        let lost_since = self.last_answer.map_or(began, |answer| answer.max(began));
        self.first_loss.get_or_insert(lost_since);
        self.since_loss.on_failure(statement);
        self.unheard_since = None;
        self.last_failed = true;
        self.last_loss = Some(now);
        self.window.on_failure(now, statement);
        if statement.is_none() && evidence == Evidence::Silent {
            self.silent_connects = self.silent_connects.saturating_add(1);
        }
        if let Phase::Closed { ramp: Some(ramp) } = &mut self.phase {
            ramp.on_failure(now);
        }
        self.open_if_due(now);
    }

    /// Whether an earlier loss is over: the latest news is good, and so is most of the recent news.
    fn is_calm(&self, now: Instant) -> bool {
        !self.last_failed
            && !self
                .window
                .recent(now)
                .is_failing(self.config.failure_percent)
    }

    /// Whether what was seen says that the database is away, and still is.
    fn is_away(&self, now: Instant) -> bool {
        let seen = self.window.total(now);
        // A run of refused connects may be longer than the window, but its end must be within: old
        // news opens nothing.
        let refused = self.silent_connects >= self.config.silent_connects.max(1) && seen.failed > 0;
        let mostly_lost = self.last_failed
            && seen.failed >= self.config.failures
            && self.is_mostly_failing(now, seen)
            && seen.blames_more_than_one_statement();
        refused || mostly_lost
    }

    /// Whether failures have the share that opens it. A server that falls silent fails its calls one
    /// deadline at a time, while thousands that it had answered before still fill the window; so once the
    /// trouble has gone on for a while, what was before it counts no more.
    fn is_mostly_failing(&self, now: Instant, seen: Tally) -> bool {
        let lasts = self
            .first_loss
            .is_some_and(|at| now.saturating_duration_since(at) >= self.two_probes());
        let percent = self.config.failure_percent;
        seen.is_failing(percent) || lasts && self.since_loss.is_failing(percent)
    }

    /// How long it takes at most to hear twice from a prober: news that are older are no news.
    fn two_probes(&self) -> Duration {
        self.config.probe_every.saturating_mul(2)
    }

    /// Whether the latest failure is fresh, or calls have passed since and none of them has come back: in a
    /// network that swallows everything they hang, and no failure follows the first ones. An outage that goes on is heard of again and again; one of
    /// which nothing more was heard is perhaps over, and then a call finds out more cheaply than it
    /// is refused.
    fn hears_of_it_still(&self, now: Instant) -> bool {
        let is_older =
            |at: Option<Instant>, age| at.is_some_and(|at| now.saturating_duration_since(at) > age);
        let fresh = self.config.ride_through.max(self.two_probes());
        let is_fresh = self.last_loss.is_some() && !is_older(self.last_loss, fresh);
        is_fresh || is_older(self.unheard_since, self.two_probes())
    }

    fn open_if_due(&mut self, now: Instant) {
        let (Phase::Closed { ramp }, Some(first_loss)) = (&self.phase, self.first_loss) else {
            return;
        };
        // A relapse on the ramp belongs to the outage before it, which has been waited for long
        // enough.
        let (since, patience) = match ramp {
            Some(ramp) => (ramp.since, Duration::ZERO),
            None => (first_loss, self.config.ride_through),
        };
        if now.saturating_duration_since(first_loss) < patience || !self.is_away(now) {
            return;
        }
        let next_probe = self.draw_probe(now);
        self.phase = Phase::Open(Outage {
            since,
            next_probe,
            stand_in: false,
        });
        self.times_opened = self.times_opened.saturating_add(1);
    }

    fn close(&mut self, ramp: Option<Ramp>) {
        self.phase = Phase::Closed { ramp };
        self.window.clear();
        self.silent_connects = 0;
        self.first_loss = None;
        self.since_loss = Tally::default();
        self.unheard_since = None;
        self.last_failed = false;
        self.last_loss = None;
    }

    fn let_ramp_end(&mut self, now: Instant) {
        if let Phase::Closed {
            ramp: place @ Some(_),
        } = &mut self.phase
            && place.as_mut().is_some_and(|ramp| ramp.is_over(now))
        {
            *place = None;
        }
    }

    /// A random instant in the upper half of the time until the next probe is due at the latest.
    fn draw_probe(&mut self, now: Instant) -> Instant {
        let latest = self.config.probe_every.min(Deadline::FAR_FUTURE);
        let half = latest / 2;
        // Thirty days fit in 64 bits; `unwrap_or` never takes the second way.
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        let wait = latest - half + Duration::from_nanos(self.rng.u64(0..=spread));
        Deadline::after(now, wait).instant()
    }
}

impl Outage {
    fn admit(&mut self, now: Instant, config: &BreakerConfig) -> Admission {
        if Deadline::after(self.next_probe, config.probe_patience).is_past(now) {
            self.stand_in = true;
            self.next_probe = now; // the patience begins again, so one caller in each period
            return Admission::Pass;
        }
        self.refusal(now, config)
    }

    fn refusal(&self, now: Instant, config: &BreakerConfig) -> Admission {
        let until_probe = self.next_probe.saturating_duration_since(now);
        let retry_after = until_probe.saturating_add(config.confirm_after);
        Admission::Refuse {
            retry_after,
            since: self.since,
        }
    }
}
