//! What must hold for a configuration as a whole, whoever wrote it.

use super::duration::LONGEST;
use super::{
    ChannelBinding, Config, PostgresTarget, ReadFrom, SessionAttrs, SslMode, Target, Tls, refusal,
};
use crate::Result;
use std::path::Path;
use std::time::Duration;

/// The most connections PostgreSQL itself can be configured for.
pub(super) const MOST_CONNECTIONS: u32 = 262_143;

impl Config {
    /// Checks that the settings fit together.
    ///
    /// Called for every configuration that comes from text, and by the builder before it opens.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`](crate::Kind::Config), naming the setting.
    pub fn check(&self) -> Result<()> {
        self.check_counts()?;
        self.check_times()?;
        match &self.target {
            Target::Postgres(target) => {
                check_postgres(target)?;
                self.check_replicas(target)
            }
            Target::Sqlite(target) => at_most_a_year("busy_timeout", target.busy_timeout),
        }
    }

    fn check_counts(&self) -> Result<()> {
        let most = MOST_CONNECTIONS as usize;
        if self.connection_limit == 0 || self.connection_limit > most {
            return refuse(
                format!("connection_limit must be from 1 to {most}"),
                "leave it out for the default of two a core and one",
            );
        }
        if self.min_connections > self.connection_limit {
            return refuse(
                format!(
                    "min_connections ({}) is more than connection_limit ({})",
                    self.min_connections, self.connection_limit
                ),
                "lower the one or raise the other",
            );
        }
        if self.max_waiters == 0 {
            return refuse("max_waiters must be at least 1", "leave it out for 10000");
        }
        Ok(())
    }

    fn check_replicas(&self, target: &PostgresTarget) -> Result<()> {
        at_most_a_year("max_replica_lag", target.max_replica_lag)?;
        if target.read_from != ReadFrom::Replica {
            return Ok(());
        }
        if target.hosts.len() < 2 {
            return refuse(
                "read_from=replica needs more than one host",
                "list them as in postgres://user@first:5432,second:5432/database",
            );
        }
        if target.pgbouncer {
            return refuse(
                "read_from=replica cannot be kept behind a pooler, which may stand before any server",
                "connect to the servers themselves, or leave read_from out",
            );
        }
        if !matches!(
            target.wanted(),
            SessionAttrs::ReadWrite | SessionAttrs::Primary
        ) {
            return refuse(
                "read_from=replica says where reads go, and target_session_attrs must find the server \
                 for writes",
                "leave target_session_attrs out",
            );
        }
        if self.connection_limit < 2 {
            return refuse(
                "read_from=replica needs a connection_limit of at least 2",
                "one connection goes to the primary, one to a standby",
            );
        }
        Ok(())
    }

    fn check_times(&self) -> Result<()> {
        for (name, time) in [
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if time.is_zero() {
                return refuse(format!("{name} must be more than 0"), "for example 5s");
            }
        }
        // Less would be rounded to 0 on its way to the server, which means "no limit" there.
        if self
            .statement_timeout
            .is_some_and(|time| time < Duration::from_millis(1))
        {
            return refuse("statement_timeout must be at least 1ms", "for example 30s");
        }
        let limits = [
            ("pool_timeout", self.pool_timeout),
            ("connect_timeout", Some(self.connect_timeout)),
            ("timeout", Some(self.timeout)),
            ("statement_timeout", self.statement_timeout),
            ("max_connection_lifetime", self.max_connection_lifetime),
            (
                "max_idle_connection_lifetime",
                self.max_idle_connection_lifetime,
            ),
            ("retry_base", Some(self.retry_base)),
            ("ride_through", Some(self.ride_through)),
            ("slow_statement", self.slow_statement),
            ("long_hold", self.long_hold),
            ("shed_after", self.shed_after),
            ("close_grace", Some(self.close_grace)),
        ];
        for (name, time) in limits {
            at_most_a_year(name, time.unwrap_or_default())?;
        }
        Ok(())
    }
}

fn check_postgres(target: &PostgresTarget) -> Result<()> {
    if target.hosts.is_empty() {
        return refuse(
            "there is no host",
            "for example postgres://user@localhost/database",
        );
    }
    for (what, text) in [("user", &target.user), ("database", &target.database)] {
        if text.is_empty() {
            return refuse(
                format!("the {what} is empty"),
                "for example postgres://user@localhost/database",
            );
        }
    }
    check_tls(&target.tls)?;
    if target.channel_binding == ChannelBinding::Require && target.tls.mode == SslMode::Disable {
        return refuse(
            "channel_binding=require cannot be kept with sslmode=disable",
            "the channel is TLS: write sslmode=require or stronger",
        );
    }
    Ok(())
}

fn check_tls(tls: &Tls) -> Result<()> {
    match (&tls.client_cert, &tls.client_key) {
        (Some(_), None) => {
            return refuse(
                "sslcert without sslkey",
                "sslcert is the client's own certificate, as in libpq, and needs its key in \
                 sslkey; Prisma's sslcert, the certificate of the authority, is sslrootcert here",
            );
        }
        (None, Some(_)) => {
            return refuse(
                "sslkey without sslcert",
                "name the certificate that it belongs to",
            );
        }
        _ => {}
    }
    if tls.mode == SslMode::Disable && (tls.root_cert.is_some() || tls.client_cert.is_some()) {
        return refuse(
            "certificates are given but sslmode=disable never uses them",
            "leave out sslmode or the certificates",
        );
    }
    let is_system = tls.root_cert.as_deref() == Some(Path::new("system"));
    if is_system && tls.mode != SslMode::VerifyFull {
        return refuse(
            "sslrootcert=system with a weaker sslmode than verify-full checks nothing",
            "write sslmode=verify-full",
        );
    }
    Ok(())
}

fn at_most_a_year(name: &str, time: Duration) -> Result<()> {
    if time > LONGEST {
        return refuse(
            format!("{name} is at most 365d"),
            "for no limit, write 0 where it is allowed",
        );
    }
    Ok(())
}

fn refuse(message: impl Into<String>, remedy: &'static str) -> Result<()> {
    Err(refusal(message.into()).remedy(remedy).into())
}
