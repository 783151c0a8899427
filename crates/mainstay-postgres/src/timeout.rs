//! How the deadline of a call travels to the server.
//!
//! A client that stops waiting has stopped nothing. The server goes on, and of a write that commits by
//! itself nobody knows afterwards whether it happened. With `statement_timeout` the server itself
//! stops in time and says so: a definite answer in place of an unknown outcome, and one that does
//! not need the client to be alive. It never covers COMMIT, whose end is not the server's to choose.
//!
//! It is a setting of the session, which the next statement would feel. So behind a write it is taken
//! back in the same flight, and a transaction sets it for itself, in the text of its BEGIN. Neither has
//! a round trip of its own. Reads that share a session rely on the session's own setting: one
//! caller's deadline is not the others'.

use crate::classify::Phase;
use crate::flight::{Launched, launch};
use crate::run::DriverResult;
use crate::session::Link;
use mainstay_core::backend::{Call, Lane};
use mainstay_core::{Deadline, Result};
use std::time::Duration;
use tokio::time::Instant;

/// The server's answer has to be here before the client stops waiting: a tenth of the time, at most
/// this, which is longer than a round trip between regions takes.
const MARGIN_MAX: Duration = Duration::from_millis(50);

/// The longest that the server takes.
const LIMIT_MAX: u64 = i32::MAX as u64;

/// The session's own setting in milliseconds: the configuration's, the role's, the server's.
const OWN: &str = "select (extract(epoch from \
                   pg_catalog.current_setting('statement_timeout')::interval) * 1000)::bigint";

/// Takes the limit back; the session's own setting is in force again.
pub(crate) const LIFT: &str = "RESET statement_timeout";

/// How long the server may work on a statement, in milliseconds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit(u64);

impl Limit {
    /// The limit that is worth sending, if any. Not when the session's own is as short; and not when
    /// the caller has given at least half of the ordinary patience: hardly anything runs into that,
    /// and two more messages for every write would be a price for everything that does not.
    fn choose(remaining: Duration, own: Option<Duration>, patience: Duration) -> Option<Self> {
        let limit = remaining - (remaining / 10).min(MARGIN_MAX);
        if limit >= patience / 2 || own.is_some_and(|own| limit >= own) {
            return None;
        }
        // Zero would mean no limit at all, and there is a longest one: 25 days.
        u64::try_from(limit.as_millis())
            .ok()
            .map(|millis| Self(millis.clamp(1, LIMIT_MAX)))
    }

    /// What is sent behind a BEGIN.
    fn for_transaction(self) -> String {
        format!("SET LOCAL statement_timeout = {}", self.0)
    }

    fn for_session(self) -> String {
        format!("SET statement_timeout = {}", self.0)
    }
}

/// A limit on its way before a write; to be lifted behind it.
#[must_use]
pub(crate) struct Limited<'a> {
    link: &'a Link,
    set: Launched<'a, DriverResult<()>>,
}

/// The way back to the session's own setting.
#[must_use]
pub(crate) struct Lifting<'a> {
    link: &'a Link,
    set: Launched<'a, DriverResult<()>>,
    lift: Launched<'a, DriverResult<()>>,
}

impl Link {
    /// Sends a limit before a write that runs by itself, if it is worth it. Behind a transaction pooler
    /// the setting would meet another session, and in the hands of a user it may be the user's.
    pub(crate) async fn limit_write(&self, call: Call) -> Result<Option<Limited<'_>>> {
        let is_free = call.lane == Lane::Write
            && !self.style.pooled
            && !self.is_in_transaction()
            && !self.usage().handed_over;
        if !is_free {
            return Ok(None);
        }
        let Some(limit) = self.limit_of(call.deadline).await? else {
            return Ok(None);
        };
        // Noted before it is sent: whoever finds it so lifts it.
        self.usage().limited = true;
        let client = &self.client;
        let set = launch(async move { client.batch_execute(&limit.for_session()).await });
        Ok(Some(Limited { link: self, set }))
    }

    /// What sets the limit for the statements of a transaction that begins now, if it is worth it.
    pub(crate) async fn limit_of_transaction(&self, call: Call) -> Result<Option<String>> {
        let limit = self.limit_of(call.deadline).await?;
        Ok(limit.map(Limit::for_transaction))
    }

    async fn limit_of(&self, deadline: Deadline) -> Result<Option<Limit>> {
        let patience = self.connector.patience();
        let remaining = |now| deadline.remaining(now);
        // Most calls end here, and nobody is asked.
        if Limit::choose(remaining(Instant::now()), None, patience).is_none() {
            return Ok(None);
        }
        let own = self.own_limit(deadline).await?;
        Ok(Limit::choose(remaining(Instant::now()), own, patience))
    }

    /// The session's own setting. Asked for once a session, by the first call that needs it.
    async fn own_limit(&self, deadline: Deadline) -> Result<Option<Duration>> {
        if let Some(known) = self.own_limit.get() {
            return Ok(*known);
        }
        let leg = self.leg(Phase::Prepare);
        let rows = self
            .answer(leg, deadline, self.client.query_typed(OWN, &[]))
            .await?;
        let millis: i64 = match rows.first() {
            Some(row) => row.try_get(0).map_err(|error| self.judge(leg, error))?,
            None => 0,
        };
        let own = u64::try_from(millis).ok().filter(|millis| *millis > 0);
        // Two that ask at once get the same answer.
        Ok(*self
            .own_limit
            .get_or_init(|| own.map(Duration::from_millis)))
    }
}

impl<'a> Limited<'a> {
    /// Sends the way back, behind the write.
    pub(crate) fn lift(self) -> Lifting<'a> {
        let Self { link, set } = self;
        let lift = launch(link.client.batch_execute(LIFT));
        Lifting { link, set, lift }
    }
}

impl Lifting<'_> {
    /// Waits until the session's own setting is in force again. If that is not certain, it stays noted,
    /// and the session is put in order before anybody else gets it.
    pub(crate) async fn landed(self, call: Call) {
        let Self { link, set, lift } = self;
        let leg = link.leg(Phase::Prepare);
        let both = async {
            set.landed().await?;
            lift.landed().await
        };
        match link.answer(leg, call.deadline, both).await {
            Ok(()) => link.usage().limited = false,
            Err(error) => tracing::debug!(%error, "a statement's limit was not lifted yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_limit_is_sent_where_it_is_shorter_than_what_is_there() {
        let patience = millis(30_000);
        for (remaining, own, sent) in [
            // The usual patience, or half of it: not worth it.
            (30_000, None, None),
            (15_050, None, None),
            (15_000, None, Some(14_950)),
            (2_000, None, Some(1_950)),
            (100, None, Some(90)),
            // Never zero, which means none.
            (1, None, Some(1)),
            (0, None, Some(1)),
            // The session's own is as short.
            (2_000, Some(1_950), None),
            (2_000, Some(1_951), Some(1_950)),
            (2_000, Some(60_000), Some(1_950)),
        ] {
            let limit = Limit::choose(millis(remaining), own.map(millis), patience);
            assert_eq!(limit, sent.map(Limit), "{remaining} ms, own {own:?}");
        }
    }

    #[test]
    fn no_limit_is_longer_than_the_server_takes() {
        let days = |n: u64| millis(n * 24 * 3_600 * 1_000);
        let limit = Limit::choose(days(30), None, days(100));
        assert_eq!(limit, Some(Limit(2_147_483_647)));
    }

    #[test]
    fn the_server_answers_before_the_client_stops_waiting() {
        for remaining in 2..20_000 {
            if let Some(Limit(limit)) = Limit::choose(millis(remaining), None, millis(30_000)) {
                assert!(limit < remaining, "{remaining}");
            }
        }
    }
}
