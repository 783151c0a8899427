//! A configuration in the making, and the rules that need more than one parameter.
//!
//! Some settings only mean something together: `sslaccept=strict` strengthens `sslmode`, `host=`
//! replaces what the authority says, `connect_timeout=0` refers to `timeout`. They are collected
//! here word by word and settled once, when everything has been said.

use super::form::{Given, Source};
use super::parameters::{Applies, Parameter};
use super::postgres_url::{Authority, hosts};
use super::{Config, PostgresTarget, SqliteTarget, SslMode, Target, Tls, refusal, sqlite_url};
use crate::Result;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Everything that has been said so far.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) authority: Authority,
    /// `host=`, which wins over the authority.
    pub(super) host: Option<String>,
    /// `port=`, for hosts that name none.
    pub(super) port: Option<u16>,
    pub(super) tls: TlsWords,
    pub(super) is_temporary: bool,
    /// What each parameter of the URL said. Bounded by the number of parameters that exist.
    given: BTreeMap<&'static str, Given>,
}

/// What the URL says about TLS, before it is known how it fits together.
#[derive(Debug, Default)]
pub(super) struct TlsWords {
    pub(super) mode: Option<SslMode>,
    pub(super) accept: Option<Accept>,
    pub(super) root_cert: Option<PathBuf>,
    pub(super) client_cert: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
}

/// Prisma's `sslaccept`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Accept {
    Strict,
    InvalidCertificates,
}

impl Draft {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            authority: Authority::default(),
            host: None,
            port: None,
            tls: TlsWords::default(),
            is_temporary: false,
            given: BTreeMap::new(),
        }
    }

    /// Sets a field that only PostgreSQL has; [`Applies`] has been asked before.
    pub(super) fn on_postgres(&mut self, set: impl FnOnce(&mut PostgresTarget)) {
        if let Target::Postgres(target) = &mut self.config.target {
            set(target);
        }
    }

    /// Sets a field that only SQLite has; [`Applies`] has been asked before.
    pub(super) fn on_sqlite(&mut self, set: impl FnOnce(&mut SqliteTarget)) {
        if let Target::Sqlite(target) = &mut self.config.target {
            set(target);
        }
    }

    /// Reads one parameter of the URL.
    pub(super) fn set_from_url(&mut self, parameter: &'static Parameter, text: &str) -> Result<()> {
        let name = parameter.name;
        let system = self.config.target.system();
        if !parameter.applies.to(system) {
            let there = match parameter.applies {
                Applies::Sqlite => "SQLite",
                Applies::Postgres | Applies::Both => "PostgreSQL",
            };
            return Err(refusal(format!("{name} is a parameter for {there} only"))
                .remedy(format!(
                    "leave it out of this URL, which names a {} database",
                    here(self)
                ))
                .into());
        }
        if self.given.contains_key(name) {
            return Err(refusal(format!("{name} is given twice"))
                .remedy("leave one of them out: which one wins would be a guess")
                .into());
        }
        let given = parameter.form.apply(self, name, text, Source::Url)?;
        self.given.insert(name, given);
        Ok(())
    }

    /// Reads one environment variable. It wins over the URL, and says so if the two disagree.
    pub(super) fn set_from_variable(
        &mut self,
        parameter: &'static Parameter,
        variable: &'static str,
        text: &str,
    ) -> Result<()> {
        let given = parameter
            .form
            .apply(self, variable, text, Source::Variable)?;
        if !parameter.applies.to(self.config.target.system()) {
            // Not an error: the same environment must serve when only the URL is changed.
            tracing::info!(
                variable,
                "this variable has no effect on a {} database",
                here(self)
            );
        } else if self
            .given
            .get(parameter.name)
            .is_some_and(|url| *url != given)
        {
            tracing::info!(
                variable,
                parameter = parameter.name,
                "the environment and the URL disagree; the environment wins"
            );
        }
        Ok(())
    }

    /// Settles what only a URL can say. Afterwards the target is as it will be used.
    pub(super) fn settle(mut self) -> Result<Self> {
        self.refuse_two_names_of_one_setting()?;
        if let Target::Sqlite(target) = &mut self.config.target {
            target.path = sqlite_url::settle(&target.path, self.is_temporary)?;
        }
        let tls = self.tls.settle()?;
        if let Target::Postgres(target) = &mut self.config.target {
            let authority = std::mem::take(&mut self.authority);
            target.hosts = hosts(authority, self.host.as_deref(), self.port)?;
            target.tls = tls;
        }
        Ok(self)
    }

    /// Settles what variables can say as well, and checks the whole.
    pub(super) fn finish(mut self) -> Result<Config> {
        // Prisma's "no limit"; the call's own limit always stands.
        if self.config.connect_timeout.is_zero() {
            self.config.connect_timeout = self.config.timeout;
        }
        self.config.check()?;
        Ok(self.config)
    }

    fn refuse_two_names_of_one_setting(&self) -> Result<()> {
        // Prisma's `socket_timeout` bounds a query on PostgreSQL and a lock's wait on SQLite.
        let own = match self.config.target {
            Target::Postgres(_) => "timeout",
            Target::Sqlite(_) => "busy_timeout",
        };
        if self.given.contains_key("socket_timeout") && self.given.contains_key(own) {
            let message = format!("socket_timeout and {own} are two names of one setting");
            return Err(refusal(message).remedy(format!("keep {own}")).into());
        }
        Ok(())
    }
}

fn here(draft: &Draft) -> &'static str {
    match draft.config.target {
        Target::Postgres(_) => "PostgreSQL",
        Target::Sqlite(_) => "SQLite",
    }
}

impl TlsWords {
    fn settle(&mut self) -> Result<Tls> {
        let is_system = self.root_cert.as_deref() == Some(Path::new("system"));
        let mode = match self.accept {
            Some(Accept::Strict) => self.strict_mode()?,
            // As in libpq, the system's authorities are only worth something with the name checked.
            _ if is_system => self.mode.unwrap_or(SslMode::VerifyFull),
            _ => self.mode.unwrap_or_default(),
        };
        if self.accept == Some(Accept::InvalidCertificates) {
            self.refuse_checks_that_accept_contradicts(mode)?;
        }
        Ok(Tls {
            mode,
            root_cert: self.root_cert.take(),
            client_cert: self.client_cert.take(),
            client_key: self.client_key.take(),
        })
    }

    /// `sslaccept=strict` is verify-full. It strengthens `require`, as Prisma's users write it;
    /// next to a mode that allows less, one of the two words is a mistake.
    fn strict_mode(&self) -> Result<SslMode> {
        match self.mode {
            None | Some(SslMode::Require | SslMode::VerifyFull) => Ok(SslMode::VerifyFull),
            Some(_) => Err(
                refusal("sslaccept=strict contradicts an sslmode that checks less")
                    .remedy("write sslmode=verify-full alone")
                    .into(),
            ),
        }
    }

    fn refuse_checks_that_accept_contradicts(&self, mode: SslMode) -> Result<()> {
        let checked = match mode {
            SslMode::VerifyCa => Some("sslmode=verify-ca"),
            SslMode::VerifyFull => Some("sslmode=verify-full"),
            _ if self.root_cert.is_some() => Some("sslrootcert"),
            _ => None,
        };
        checked.map_or(Ok(()), |checked| {
            Err(refusal(format!(
                "sslaccept=accept_invalid_certs contradicts {checked}"
            ))
            .remedy("leave sslaccept out to check the certificate")
            .into())
        })
    }
}
