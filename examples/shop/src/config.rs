//! What the environment says.

use mainstay::{Builder, Database};
use std::io::IsTerminal;

/// A file beside the shop: nothing to install, nothing to start.
const DATABASE_URL: &str = "file:./shop.db";
const LISTEN_ADDR: &str = "127.0.0.1:8080";

/// Everything that the shop reads from the environment.
#[derive(Debug)]
pub(crate) struct Config {
    /// The database; nothing has been opened yet.
    pub(crate) database: mainstay::Config,
    /// Where to listen; port 0 picks a free one.
    pub(crate) listen: String,
    pub(crate) log: Log,
}

/// How to log.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) json: bool,
    pub(crate) filter: String,
}

impl Config {
    /// Reads the environment. The error is one line for whoever started the shop.
    pub(crate) fn from_env() -> Result<Self, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let database = mainstay::Config::from_variables(|name| match name {
            "DATABASE_URL" => variable(name).or_else(|| Some(DATABASE_URL.to_owned())),
            _ => variable(name),
        });
        let json = match variable("LOG_FORMAT").as_deref() {
            Some("json") => true,
            Some("text") => false,
            // People read terminals, machines read everything else.
            None => !std::io::stderr().is_terminal(),
            Some(other) => return Err(format!("LOG_FORMAT is {other:?}; say json or text")),
        };
        Ok(Self {
            database: database.map_err(|error| error.to_string())?,
            listen: variable("LISTEN_ADDR").unwrap_or_else(|| LISTEN_ADDR.to_owned()),
            log: Log {
                json,
                filter: variable("RUST_LOG").unwrap_or_else(|| "info".to_owned()),
            },
        })
    }

    /// Opens the database without asking it: it may still be away.
    pub(crate) fn open(&self) -> Result<Database, String> {
        // `DB_CONECTION_LIMIT` is no error, since the prefix is not ours alone; it is logged.
        mainstay::Config::near_misses(
            std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()),
        );
        Builder::from_config(self.database.clone())
            .open_lazy()
            .map_err(|error| error.to_string())
    }
}
