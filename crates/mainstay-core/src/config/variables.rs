//! The environment, handed in by whoever may read it.
//!
//! `DB_*` is for what an operator turns without touching the URL, which is often a secret managed
//! by somebody else. The prefix is not ours alone, so an unknown name is no error; a near miss of
//! one of ours is said aloud, because it is a limit that somebody believes in.

use super::parameters::{PARAMETERS, Parameter};
use super::{Config, Draft, refusal, url};
use crate::Result;

const URL: &str = "DATABASE_URL";
const PREFIX: &str = "DB_";

impl Config {
    /// Reads `DATABASE_URL` and the `DB_*` variables; a variable wins over the URL, and where the
    /// two disagree that is logged. A variable that is set but empty counts as not set.
    ///
    /// ```
    /// use mainstay_core::Config;
    ///
    /// let config = Config::from_variables(|name| match name {
    ///     "DATABASE_URL" => Some("file:./shop.db?connection_limit=4".to_owned()),
    ///     "DB_CONNECTION_LIMIT" => Some("8".to_owned()),
    ///     _ => None,
    /// })?;
    /// assert_eq!(config.connection_limit, 8);
    /// # Ok::<(), mainstay_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Kind::Config`](crate::Kind::Config), naming the variable.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let Some(text) = lookup(URL) else {
            return Err(refusal(format!("{URL} is not set"))
                .remedy(
                    "set it to file:./dev.db for SQLite or postgres://user@host/database for \
                     PostgreSQL",
                )
                .into());
        };
        let mut draft = url::draft(&text).and_then(Draft::settle).map_err(in_url)?;
        read(&mut draft, lookup)?;
        draft.finish()
    }

    /// Applies the `DB_*` variables on top of a configuration; `DATABASE_URL` is not looked up.
    ///
    /// On an error nothing has been changed.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`](crate::Kind::Config), naming the variable.
    pub fn apply_variables(&mut self, lookup: impl Fn(&str) -> Option<String>) -> Result<()> {
        let mut draft = Draft::new(self.clone());
        read(&mut draft, lookup)?;
        *self = draft.finish()?;
        Ok(())
    }

    /// The names that are nearly one of the known variables, each with the one that may be meant.
    /// Each is logged as a warning.
    ///
    /// Hand in the names of the whole environment; what does not begin with `DB_` is passed over.
    pub fn near_misses(names: impl IntoIterator<Item = String>) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        for name in names {
            if let Some(known) = meant(&name) {
                tracing::warn!(
                    variable = name,
                    "this variable is unknown and has no effect; did you mean {known}?"
                );
                found.push((name, known));
            }
        }
        found
    }
}

fn read(draft: &mut Draft, lookup: impl Fn(&str) -> Option<String>) -> Result<()> {
    for parameter in PARAMETERS {
        let Some(variable) = parameter.environment else {
            continue;
        };
        // Compose files and unit files set what is left out to nothing.
        if let Some(text) = lookup(variable).filter(|text| !text.trim().is_empty()) {
            draft.set_from_variable(parameter, variable, text.trim())?;
        }
    }
    Ok(())
}

fn in_url(error: crate::Error) -> crate::Error {
    let message = format!("{URL}: {}", error.message());
    error.into_report().message(message).into()
}

fn meant(name: &str) -> Option<&'static str> {
    let is_known = PARAMETERS
        .iter()
        .any(|parameter| parameter.environment == Some(name));
    // Other programs' variables are none of our business, so fewer slips than in the URL count.
    let own = name.strip_prefix(PREFIX).filter(|_| !is_known)?;
    Parameter::meant_by(own, 2)?.environment
}
