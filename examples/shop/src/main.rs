//! A shop as a service: orders, services, benefits, profiles and bookings over HTTP, on SQLite or on
//! PostgreSQL, whichever `DATABASE_URL` names.
//!
//! It is a program as a user of mainstay would write it, so every file holds what the application
//! itself has to decide and nothing else. In reading order: `config` reads the environment, `logs`
//! sets the log up, `app` is the router, `start` brings the schema and the first data while the
//! service already listens, `serve` runs it to an orderly end. `auth`, `validate` and `page` are
//! what the handlers in `orders`, `services`, `benefits`, `profile` and `bookings` have in common.

mod app;
mod auth;
mod benefits;
mod bookings;
mod config;
mod logs;
mod orders;
mod page;
mod profile;
mod seed;
mod serve;
mod services;
mod start;
mod stop;
mod validate;

use config::Config;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// What may still run on the runtime's own threads when everything has ended.
const LEFTOVERS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // One clear line, also where the log is JSON; nobody is left to tell when it fails.
            writeln!(std::io::stderr(), "shop: {failure}").ok();
            ExitCode::from(failure.code())
        }
    }
}

fn run() -> Result<(), Failure> {
    let config = Config::from_env().map_err(Failure::Config)?;
    logs::install(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::Start(format!("the runtime could not be started: {cause}")))?;
    let ended = runtime.block_on(serve::serve(config));
    runtime.shutdown_timeout(LEFTOVERS);
    ended
}

/// Why the shop ended other than asked to.
#[derive(Debug)]
enum Failure {
    /// The environment says something that cannot be.
    Config(String),
    /// It could not start.
    Start(String),
    /// A second signal came before the end was reached.
    Interrupted,
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Start(_) => 1,
            Self::Config(_) => 2,
            // 128 + SIGINT, as shells count.
            Self::Interrupted => 130,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(line) | Self::Start(line) => f.write_str(line),
            Self::Interrupted => f.write_str("ended by a second signal before work was finished"),
        }
    }
}
