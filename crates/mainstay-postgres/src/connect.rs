//! One attempt to open one session.
//!
//! An operator who reads the error at night wants one line: which host, what happened, what to try.
//! And the attempt must end on time whatever hangs: the resolver, the handshake, a server that
//! accepts and says nothing. So one deadline bounds the whole, the hosts of a list share it, and
//! every failure is put into words here.

pub(crate) mod dial;
pub(crate) mod login;
mod role;
mod startup;

use self::dial::{Endpoint, Stream, addresses};
use self::login::Login;
use self::role::AnotherRole;
use self::startup::{Caller, options, refusal};
use crate::hosts::Hosts;
use crate::replicas::{WriteCount, reads_from_replicas};
use crate::session::Style;
use crate::stale::StaleTexts;
use crate::tls::TlsPolicy;
use crate::types::CustomTypes;
use crate::wire::{Log, Wire};
use mainstay_core::backend::Lane;
use mainstay_core::config::{Host, PostgresTarget, SessionAttrs, SslMode};
use mainstay_core::error::Report;
use mainstay_core::{Class, Config, Deadline, Error, Evidence, Kind, Result};
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::config::SslNegotiation;
use tokio_postgres::tls::TlsConnect;

/// The driver's half that moves the bytes.
pub(crate) type Driver = tokio_postgres::Connection<tokio::io::Empty, Wire<Stream>>;

/// A session that has just been opened.
pub(crate) struct Opened {
    pub(crate) client: tokio_postgres::Client,
    pub(crate) driver: Driver,
    pub(crate) log: Arc<Log>,
    pub(crate) endpoint: Endpoint,
    /// What its server had to be.
    pub(crate) wanted: SessionAttrs,
}

/// Opens sessions with one database.
#[derive(Debug)]
pub(crate) struct Connector {
    target: PostgresTarget,
    tls: TlsPolicy,
    connect_timeout: Duration,
    statement_timeout: Option<Duration>,
    patience: Duration,
    /// Whether the lane is a setting of the session; see [`crate::read_lane`].
    lanes: bool,
    /// Whether statements are prepared; where not, the driver must not look types up.
    prepares: bool,
    types: CustomTypes,
    stale: StaleTexts,
    hosts: Hosts,
    /// Counted where reads are sent to standbys.
    writes: Option<Arc<WriteCount>>,
}

/// What is wanted of whoever answers.
#[derive(Copy, Clone)]
struct Question<'a> {
    database: &'a str,
    wanted: SessionAttrs,
    login: &'a Login,
}

impl Connector {
    pub(crate) fn new(config: &Config, target: &PostgresTarget, style: Style) -> Result<Self> {
        Ok(Self {
            prepares: style.statements > 0,
            types: CustomTypes::default(),
            stale: StaleTexts::default(),
            hosts: Hosts::new(target.hosts.len()),
            writes: reads_from_replicas(target).then(Arc::default),
            tls: TlsPolicy::new(&target.tls)?,
            target: target.clone(),
            connect_timeout: config.connect_timeout,
            statement_timeout: config.statement_timeout,
            patience: config.timeout,
            lanes: style.lanes,
        })
    }

    pub(crate) fn target(&self) -> &PostgresTarget {
        &self.target
    }

    pub(crate) fn types(&self) -> &CustomTypes {
        &self.types
    }

    pub(crate) fn stale(&self) -> &StaleTexts {
        &self.stale
    }

    /// How long a call may take that says nothing about it.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn tls(&self) -> &TlsPolicy {
        &self.tls
    }

    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    pub(crate) fn writes(&self) -> Option<&Arc<WriteCount>> {
        self.writes.as_ref()
    }

    /// What the server of a session must be.
    fn wanted(&self, lane: Lane) -> SessionAttrs {
        match lane {
            Lane::Read if reads_from_replicas(&self.target) => SessionAttrs::PreferStandby,
            _ => self.target.wanted(),
        }
    }

    /// Asks the hosts until one takes us that is what was wanted.
    pub(crate) async fn open(&self, lane: Lane, deadline: Deadline) -> Result<Opened> {
        let (database, wanted) = (&*self.target.database, self.wanted(lane));
        self.open_wanted(database, wanted, deadline).await
    }

    /// The same, into another database of the server that takes writes.
    pub(crate) async fn open_database(&self, database: &str, deadline: Deadline) -> Result<Opened> {
        let wanted = self.wanted(Lane::Write);
        self.open_wanted(database, wanted, deadline).await
    }

    async fn open_wanted(
        &self,
        database: &str,
        wanted: SessionAttrs,
        deadline: Deadline,
    ) -> Result<Opened> {
        let deadline = deadline.earliest(Deadline::from_now(self.connect_timeout));
        let login = self.login(deadline).await?;
        let question = Question {
            database,
            wanted,
            login: &login,
        };
        let refused = match self.ask_in_order(question, deadline).await {
            Err(error) if error.kind() == Kind::Credentials => error,
            outcome => return outcome,
        };
        // A token may have been replaced between the question and the login.
        if self.target.credentials.is_none() {
            return Err(refused);
        }
        let fresh = self.login(deadline).await?;
        if fresh == login {
            return Err(refused);
        }
        let login = &fresh;
        self.ask_in_order(Question { login, ..question }, deadline)
            .await
    }

    /// Those that are preferred first.
    async fn ask_in_order(&self, question: Question<'_>, deadline: Deadline) -> Result<Opened> {
        if question.wanted != SessionAttrs::PreferStandby {
            return self.ask_hosts(question, deadline).await;
        }
        let with = |wanted| Question { wanted, ..question };
        let half = share(deadline, 2);
        match self.ask_hosts(with(SessionAttrs::Standby), half).await {
            Err(error) if error.class() != Class::Permanent => {
                self.ask_hosts(with(SessionAttrs::Any), deadline).await
            }
            outcome => outcome,
        }
    }

    async fn ask_hosts(&self, question: Question<'_>, deadline: Deadline) -> Result<Opened> {
        let now = Instant::now();
        let candidates = match question.wanted {
            SessionAttrs::Standby if reads_from_replicas(&self.target) => {
                self.hosts.candidates_to_read(now)
            }
            _ => self.hosts.candidates(now),
        };
        let mut failures: Vec<Error> = Vec::new();
        let mut has_answered = false;
        for (turn, candidate) in candidates.iter().enumerate() {
            if candidate.is_resting && has_answered {
                continue;
            }
            let mut until = share(deadline, candidates.len() - turn);
            if let Some(limit) = candidate.limit {
                until = until.earliest(Deadline::from_now(limit));
            }
            match self.open_host(candidate.index, question, until).await {
                Ok(opened) => {
                    self.hosts.on_opened(candidate.index);
                    return Ok(opened);
                }
                Err(error) if error.class() == Class::Permanent => return Err(error),
                Err(error) => {
                    if is_another_role(&error) {
                        has_answered = true;
                        self.hosts.on_opened(candidate.index);
                    } else {
                        self.hosts.on_failed(candidate.index, Instant::now());
                    }
                    failures.push(error);
                }
            }
        }
        Err(summary(failures))
    }

    async fn open_host(
        &self,
        index: usize,
        question: Question<'_>,
        deadline: Deadline,
    ) -> Result<Opened> {
        let host = &self.target.hosts[index];
        let started = Instant::now();
        let attempt = self.open_addresses(index, question, deadline);
        match tokio::time::timeout_at(deadline.instant(), attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(silent(host, started.elapsed())),
        }
    }

    /// The name is looked up anew each time: on a failover it may lead elsewhere.
    async fn open_addresses(
        &self,
        index: usize,
        question: Question<'_>,
        deadline: Deadline,
    ) -> Result<Opened> {
        let host = &self.target.hosts[index];
        let addresses = addresses(host).await?;
        let mut failure = None;
        for (turn, address) in addresses.iter().enumerate() {
            let started = Instant::now();
            let share = share(deadline, addresses.len() - turn);
            let endpoint =
                Endpoint::new(host.clone(), address.clone(), index, self.target.keep_alive);
            let attempt = self.open_endpoint(endpoint, question);
            match tokio::time::timeout_at(share.instant(), attempt).await {
                Ok(Ok(opened)) => return Ok(opened),
                Ok(Err(error)) if error.class() == Class::Permanent => return Err(error),
                Ok(Err(error)) => failure = Some(error),
                Err(_) => failure = Some(silent(host, started.elapsed())),
            }
        }
        Err(failure.unwrap_or_else(|| silent(host, Duration::ZERO)))
    }

    /// TLS or not, as the mode says. Unix sockets never speak it, as in libpq.
    async fn open_endpoint(&self, endpoint: Endpoint, question: Question<'_>) -> Result<Opened> {
        let mode = if endpoint.is_local() {
            SslMode::Disable
        } else {
            self.tls.mode()
        };
        match mode {
            SslMode::Disable => self.start(endpoint, false, question).await,
            SslMode::Allow => {
                let plain = self.start(endpoint.clone(), false, question).await;
                match plain {
                    // What a server says that only takes TLS.
                    Err(error) if error.sqlstate() == Some("28000") => {
                        self.start(endpoint, true, question).await
                    }
                    outcome => outcome,
                }
            }
            _ => self.start(endpoint, true, question).await,
        }
    }

    async fn start(
        &self,
        mut endpoint: Endpoint,
        tls: bool,
        question: Question<'_>,
    ) -> Result<Opened> {
        let Question {
            database,
            wanted,
            login,
        } = question;
        let dialled = endpoint.dial(tls.then_some(&self.tls)).await?;
        endpoint.encrypted = dialled.encrypted;
        let log = Arc::new(Log::default());
        let mut wire = Wire::new(dialled.stream, dialled.end_point, Arc::clone(&log));
        if !self.prepares {
            wire = wire.hiding_types();
        }
        let config = self.driver_config(database, login);
        let started = config
            .connect_raw(tokio::io::empty(), Negotiated { stream: wire })
            .await;
        match started {
            Ok((client, mut driver)) => {
                self.check_role(&client, &mut driver, &log, &endpoint, wanted)
                    .await?;
                Ok(Opened {
                    client,
                    driver,
                    log,
                    endpoint,
                    wanted,
                })
            }
            Err(error) => Err(refusal(
                &error,
                &log,
                endpoint.host(),
                &Caller {
                    user: &login.user,
                    database,
                    pooled: self.target.pgbouncer,
                },
            )),
        }
    }

    fn driver_config(&self, database: &str, login: &Login) -> tokio_postgres::Config {
        use mainstay_core::config::ChannelBinding as Ours;
        use tokio_postgres::config::ChannelBinding as Theirs;
        let mut config = tokio_postgres::Config::new();
        config
            .user(&login.user)
            .dbname(database)
            // The stream is negotiated already; this makes the driver take it as it is.
            .ssl_mode(tokio_postgres::config::SslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct)
            .channel_binding(match self.target.channel_binding {
                Ours::Disable => Theirs::Disable,
                Ours::Prefer => Theirs::Prefer,
                Ours::Require => Theirs::Require,
            });
        if let Some(password) = &login.password {
            config.password(password.expose());
        }
        if let Some(name) = &self.target.application_name {
            config.application_name(name);
        }
        let options = options(&self.target, self.lanes, self.statement_timeout);
        if !options.is_empty() {
            config.options(options);
        }
        config
    }
}

/// The stream is ready; the driver only has to take it, and the channel binding with it.
struct Negotiated {
    stream: Wire<Stream>,
}

impl TlsConnect<tokio::io::Empty> for Negotiated {
    type Stream = Wire<Stream>;
    type Error = std::io::Error;
    type Future = Ready<std::io::Result<Wire<Stream>>>;

    fn connect(self, _nothing: tokio::io::Empty) -> Self::Future {
        ready(Ok(self.stream))
    }
}

/// An even share of the time that is left, so that a host that swallows packets does not use up
/// what the next one needs.
fn share(deadline: Deadline, among: usize) -> Deadline {
    let now = Instant::now();
    let among = u32::try_from(among.max(1)).unwrap_or(u32::MAX);
    Deadline::after(now, deadline.remaining(now) / among)
}

/// Nobody answered in time.
fn silent(host: &Host, waited: Duration) -> Error {
    Report::new(
        Kind::Unreachable,
        format!("{host} did not answer within {waited:.1?}"),
    )
    .remedy("is the address right, and does a firewall let us through?")
    .waited(waited)
    .timed_out()
    .into()
}

/// Whether a host has answered and is only another than was wanted.
fn is_another_role(error: &Error) -> bool {
    error.downcast_ref::<AnotherRole>().is_some()
}

/// One failure speaks for itself; of several, each is named.
fn summary(mut failures: Vec<Error>) -> Error {
    if failures.len() < 2 {
        return failures.pop().unwrap_or_else(|| {
            Report::new(Kind::Config, "the configuration names no host").into()
        });
    }
    let messages: Vec<&str> = failures.iter().map(Error::message).collect();
    let message = format!("no host takes us: {}", messages.join("; "));
    let evidence = if failures
        .iter()
        .all(|error| error.evidence() == Evidence::Exhausted)
    {
        Evidence::Exhausted
    } else {
        Evidence::Silent
    };
    let last = failures.swap_remove(failures.len() - 1);
    last.into_report()
        .message(message)
        .evidence(evidence)
        .into()
}
