//! What the server is that has just opened a session, and whether it still is.
//!
//! From version 14 a server says so by itself, when a session opens and whenever it changes; the first
//! session with a host asks nevertheless, and the first after a loss, because then it is known when the
//! server was started and whether a pooler answers in its place. Behind a pooler the reports are somebody
//! else's, so there each session asks that wants a certain server.

use super::startup::{Caller, MARK, refusal};
use super::{Connector, Driver};
use crate::classify::Phase;
use crate::connect::dial::Endpoint;
use crate::hosts::Role;
use crate::pooled::settings_were_dropped;
use crate::session::{Flight, Link};
use crate::wire::{Log, READ_ONLY};
use mainstay_core::backend::Lane;
use mainstay_core::config::SessionAttrs;
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Error, Evidence, Kind, Result};
use std::fmt;
use std::sync::Arc;
use tokio::time::Instant;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

/// Reported by PostgreSQL 14 and later.
const HOT_STANDBY: &str = "in_hot_standby";

/// Whether it replays, its own default for sessions (the lane is set over it), its process, when it was
/// started, and our mark.
const ROLE: &str = "
select pg_catalog.pg_is_in_recovery(),
    (select s.reset_val = 'on' from pg_catalog.pg_settings s
        where s.name = 'default_transaction_read_only'),
    pg_catalog.pg_backend_pid(),
    (extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint,
    pg_catalog.current_setting($1, true)";

/// A server that answers and is another than was wanted.
#[derive(Copy, Clone, Debug)]
pub(super) struct AnotherRole(Role);

impl fmt::Display for AnotherRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.words())
    }
}

impl std::error::Error for AnotherRole {}

/// The answer.
#[derive(Copy, Clone, Debug)]
struct Answer {
    role: Role,
    process: i32,
    started: i64,
    /// It has taken the options that the session was opened with.
    took_options: bool,
}

impl Answer {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            role: Role {
                in_recovery: row.try_get(0)?,
                read_only: row.try_get(1)?,
            },
            process: row.try_get(2)?,
            started: row.try_get(3)?,
            took_options: row.try_get::<_, Option<&str>>(4)? == Some("on"),
        })
    }
}

async fn ask(client: &Client) -> Result<Answer, tokio_postgres::Error> {
    let rows = client.query_typed(ROLE, &[(&MARK, Type::TEXT)]).await?;
    // One row is what the statement answers; nothing else is possible.
    rows.first().map_or_else(
        || {
            Ok(Answer {
                role: Role {
                    in_recovery: true,
                    read_only: true,
                },
                process: 0,
                started: 0,
                took_options: false,
            })
        },
        Answer::read,
    )
}

impl Connector {
    /// Refuses a session with a server that is not what was wanted, and with a pooler that nobody
    /// mentioned.
    pub(super) async fn check_role(
        &self,
        client: &Client,
        driver: &mut Driver,
        log: &Log,
        endpoint: &Endpoint,
        wanted: SessionAttrs,
    ) -> Result<()> {
        let is_known = self.hosts.is_known(endpoint.index);
        if wanted == SessionAttrs::Any && (is_known || !self.lanes) {
            return Ok(());
        }
        let role = match reported(log).filter(|_| !self.target.pgbouncer && is_known) {
            Some(role) => role,
            None => {
                let answer = self.ask_role(client, driver, log, endpoint).await?;
                if self.lanes && !answer.took_options {
                    return Err(settings_were_dropped(endpoint.host()));
                }
                if !is_known {
                    self.note_process(&answer, log, endpoint);
                }
                self.hosts.on_started(endpoint.index, answer.started);
                self.hosts.on_known(endpoint.index, answer.role);
                answer.role
            }
        };
        if role.suits(wanted) {
            return Ok(());
        }
        Err(unsuited(endpoint, role))
    }

    async fn ask_role(
        &self,
        client: &Client,
        driver: &mut Driver,
        log: &Log,
        endpoint: &Endpoint,
    ) -> Result<Answer> {
        let answer = tokio::select! {
            answer = ask(client) => answer,
            // It ends before it answers; what it said last is in the log.
            _ = driver => return Err(broke_off(endpoint, log)),
        };
        answer.map_err(|error| {
            let caller = Caller {
                user: &self.target.user,
                database: &self.target.database,
                pooled: self.target.pgbouncer,
            };
            refusal(&error, log, endpoint.host(), &caller)
        })
    }

    fn note_process(&self, answer: &Answer, log: &Log, endpoint: &Endpoint) {
        let process = log.key().and_then(|key| key.first_chunk::<4>().copied());
        if !self.target.pgbouncer && process.map(i32::from_be_bytes) != Some(answer.process) {
            tracing::warn!(
                host = %endpoint.host(),
                "the session's process is not the one that answered the login: a pooler seems to \
                 stand between; in transaction mode it needs pgbouncer=true in the URL"
            );
        }
    }
}

fn reported(log: &Log) -> Option<Role> {
    Some(Role {
        in_recovery: log.parameter(HOT_STANDBY)? == "on",
        read_only: log.parameter(READ_ONLY)? == "on",
    })
}

fn broke_off(endpoint: &Endpoint, log: &Log) -> Error {
    let how = log.ended().unwrap_or_default();
    let message = format!(
        "{} broke off while it was asked what it is: {how}",
        endpoint.host()
    );
    Report::new(Kind::Unreachable, message).into()
}

/// Asking again can help: it is what a failover changes.
fn unsuited(endpoint: &Endpoint, role: Role) -> Error {
    let message = format!(
        "{} {}, which is not what was asked for",
        endpoint.host(),
        role.words()
    );
    Report::new(Kind::Unreachable, message)
        .class(Class::NotSent)
        .evidence(Evidence::Silent)
        .source(AnotherRole(role))
        .remedy(
            "is there a server that suits target_session_attrs? a promotion is noticed by itself",
        )
        .into()
}

impl Link {
    /// As [`still_serves`](Self::still_serves), as a call of its own.
    pub(crate) async fn look_again(self: &Arc<Self>, deadline: Deadline) -> Result<bool> {
        let flight = Flight::start(self);
        let serves = self.still_serves(deadline).await;
        flight.land();
        serves
    }

    /// Whether the server is still what sessions with it were opened for, and has not been started again
    /// since. An error means that it cannot be asked.
    pub(crate) async fn still_serves(&self, deadline: Deadline) -> Result<bool> {
        let wanted = self.wanted;
        if wanted == SessionAttrs::Any {
            return Ok(true);
        }
        let leg = self.leg(Phase::Prepare);
        let answer = self.answer(leg, deadline, ask(&self.client)).await?;
        let hosts = &self.connector.hosts;
        let is_restarted = hosts.on_started(self.endpoint.index, answer.started);
        Ok(answer.role.suits(wanted) && !is_restarted)
    }

    /// The next session is asked of another host first, if there is one.
    pub(crate) fn note_silence(&self) {
        let hosts = self.connector.hosts();
        hosts.on_failed(self.endpoint.index, Instant::now());
    }

    /// The error of a session that is not lent again because its server is another than was wanted.
    pub(crate) fn demoted(&self) -> Error {
        let message = format!(
            "{} is not the server any more that its sessions were opened for",
            self.endpoint.host()
        );
        Report::new(Kind::ReadOnly, message)
            .class(Class::NotSent)
            .evidence(Evidence::Silent)
            .into()
    }

    /// Whether a refusal to write means that the server has changed, not that the unit asked for it.
    pub(crate) fn is_demotion(&self, phase: Phase) -> bool {
        let is_write = match phase {
            Phase::Write | Phase::Commit => true,
            Phase::Transaction => self.usage().transaction != Some(Lane::Read),
            _ => false,
        };
        is_write && self.style.demands
    }
}
