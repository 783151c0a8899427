//! What the gates of one endpoint decide. Pure: `now` comes in, a verdict goes out.

use crate::status::GateStatus;
use mainstay_core::{Error, Evidence, Result};
use mainstay_resilience::{Admission, Breaker, BreakerConfig, LoginGate};
use std::time::Duration;
use tokio::time::Instant;

/// Everything that decides, behind one short lock.
pub(super) struct Rules {
    pub(super) execute: Side,
    pub(super) connect: Side,
    pub(super) login: LoginGate,
    /// What the server said to whom it refused last.
    pub(super) refused: Option<Error>,
}

/// One breaker with its prober.
pub(super) struct Side {
    pub(super) breaker: Breaker,
    /// The last failure that counted, for the refusal's text.
    pub(super) cause: Option<(Error, Instant)>,
    /// Whether a prober is there.
    pub(super) probing: bool,
    /// How many answers to probes there were.
    pub(super) answers: u64,
}

/// Which of the two breakers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Execute,
    Connect,
}

/// Which gate refuses, with what its words need.
pub(super) struct Refusal {
    pub(super) by: By,
    pub(super) retry_after: Duration,
    pub(super) since: Instant,
    pub(super) cause: Option<(Error, Instant)>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum By {
    Operator,
    Execute,
    Connect,
    Login,
}

impl Rules {
    pub(super) fn new(config: BreakerConfig) -> Self {
        Self {
            connect: Side::new(for_connects(config.clone())),
            execute: Side::new(config),
            login: LoginGate::default(),
            refused: None,
        }
    }

    pub(super) fn side(&mut self, which: Which) -> &mut Side {
        match which {
            Which::Execute => &mut self.execute,
            Which::Connect => &mut self.connect,
        }
    }

    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Refusal> {
        if let refused @ Admission::Refuse { .. } = self.execute.breaker.admit(now) {
            return Err(self.execute_refusal(refused));
        }
        if let refused @ Admission::Refuse { .. } = self.connect.breaker.admit(now) {
            return Err(self.connect.refusal(By::Connect, refused));
        }
        self.login_refusal(now).map_or(Ok(()), Err)
    }

    /// The refusal that stands, by the gate that refuses most.
    pub(super) fn standing(&self, now: Instant) -> Option<Refusal> {
        let execute = self.execute.breaker.refusing(now);
        let connect = self.connect.breaker.refusing(now);
        let execute = execute.map(|refused| self.execute_refusal(refused));
        execute
            .or_else(|| connect.map(|refused| self.connect.refusal(By::Connect, refused)))
            .or_else(|| self.login_refusal(now))
    }

    /// The latest word is the best: those whose statements were lost know less about a server that is down
    /// than those who try to connect to it.
    fn execute_refusal(&self, refused: Admission) -> Refusal {
        let mut refusal = self.execute.refusal(By::Execute, refused);
        let connect = self.connect.cause.as_ref();
        if connect.map(|(_, at)| at) > refusal.cause.as_ref().map(|(_, at)| at) {
            refusal.cause = connect.cloned();
        }
        refusal
    }

    fn login_refusal(&self, now: Instant) -> Option<Refusal> {
        if self.execute.breaker.is_forced_closed() {
            return None;
        }
        let Some(Admission::Refuse { retry_after, since }) = self.login.refusing(now) else {
            return None;
        };
        Some(Refusal {
            by: By::Login,
            retry_after,
            since,
            cause: self.refused.clone().zip(self.login.refused_at()),
        })
    }

    pub(super) fn admit_login(&mut self, now: Instant) -> Result<(), Refusal> {
        // The words first: the attempt that passes leaves the gate shut behind it.
        let refusal = self.login_refusal(now);
        match self.login.admit(now) {
            Admission::Pass => Ok(()),
            Admission::Refuse { .. } => refusal.map_or(Ok(()), Err),
        }
    }

    pub(super) fn on_connect(
        &mut self,
        (began, now): (Instant, Instant),
        failure: Option<&Error>,
        permanent: bool,
    ) -> Option<Duration> {
        // Whoever refuses us is there.
        let evidence = match failure {
            Some(error) if !permanent => error.evidence(),
            _ => Evidence::Answered,
        };
        self.connect.note(now, failure, evidence);
        if self.connect.breaker.refusing(now).is_some() {
            // The pool's attempts are as good as the prober's: one at a time, and paced.
            if evidence != Evidence::Neither {
                self.connect.on_probe(now, evidence == Evidence::Answered);
            }
        } else {
            self.connect.breaker.on_connect(now, began, evidence);
        }
        if let (true, Some(error)) = (permanent, failure) {
            self.refused = Some(error.clone());
            let wait = self.login.on_refused(now);
            return (!self.execute.breaker.is_forced_closed()).then_some(wait);
        }
        if evidence != Evidence::Neither {
            self.login.forget();
        }
        None
    }

    pub(super) fn login_status(&self, now: Instant) -> GateStatus {
        let refusal = self.login_refusal(now);
        let refused = self
            .refused
            .as_ref()
            .filter(|_| self.login.refused_at().is_some());
        GateStatus {
            state: match (&refusal, refused) {
                (Some(_), _) => "open",
                // The next attempt decides.
                (None, Some(_)) => "half_open",
                (None, None) => "closed",
            },
            times_opened: self.login.times_shut(),
            cause: refused.map(|error| error.message().to_owned()),
            retry_after: refusal.map(|refusal| refusal.retry_after),
        }
    }
}

impl Side {
    fn new(config: BreakerConfig) -> Self {
        Self {
            breaker: Breaker::new(config),
            cause: None,
            probing: false,
            answers: 0,
        }
    }

    pub(super) fn note(&mut self, now: Instant, failure: Option<&Error>, evidence: Evidence) {
        if let (Some(error), Evidence::Silent | Evidence::Exhausted) = (failure, evidence) {
            self.cause = Some((error.clone(), now));
        }
    }

    pub(super) fn on_probe(&mut self, now: Instant, ok: bool) {
        self.answers += 1;
        self.breaker.on_probe(now, ok);
    }

    fn refusal(&self, by: By, refused: Admission) -> Refusal {
        let (retry_after, since) = match refused {
            Admission::Refuse { retry_after, since } => (retry_after, since),
            Admission::Pass => (Duration::ZERO, Instant::now()), // never asked for
        };
        let by = if self.breaker.is_forced_open() {
            By::Operator
        } else {
            by
        };
        Refusal {
            by,
            retry_after,
            since,
            cause: self.cause.clone(),
        }
    }

    pub(super) fn status(&self, now: Instant) -> GateStatus {
        let retry_after = self
            .breaker
            .refusing(now)
            .and_then(|refused| match refused {
                Admission::Refuse { retry_after, .. } => Some(retry_after),
                Admission::Pass => None,
            });
        let cause = self.cause.as_ref().filter(|_| retry_after.is_some());
        GateStatus {
            state: self.breaker.state_name(),
            times_opened: self.breaker.times_opened(),
            cause: cause.map(|(error, _)| error.message().to_owned()),
            retry_after,
        }
    }
}

impl Refusal {
    /// Whether those are served all the same who need no new connection.
    pub(super) fn is_only_for_new_connections(&self) -> bool {
        matches!(self.by, By::Connect | By::Login)
    }
}

impl By {
    /// The gate's name in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Operator | Self::Execute => "execute",
            Self::Connect => "connect",
            Self::Login => "credentials",
        }
    }
}

/// The pool itself opens few connections at once, so connects need no ramp.
fn for_connects(mut config: BreakerConfig) -> BreakerConfig {
    config.ramp_step = Duration::ZERO;
    config
}
