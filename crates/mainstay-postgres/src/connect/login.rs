//! Who we are: what the URL says, or what a provider answers now.

use super::Connector;
use mainstay_core::config::Secret;
use mainstay_core::error::Report;
use mainstay_core::{Class, Deadline, Evidence, Kind, Result};

/// Role and password of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
}

impl Connector {
    /// Asks the provider, if there is one.
    pub(crate) async fn login(&self, deadline: Deadline) -> Result<Login> {
        let Some(provider) = &self.target.credentials else {
            return Ok(Login {
                user: self.target.user.clone(),
                password: self.target.password.clone(),
            });
        };
        let asked = tokio::time::timeout_at(deadline.instant(), provider.ask());
        let credentials = asked.await.unwrap_or_else(|_| {
            let message = "the provider of the credentials did not answer in time";
            Err(Report::new(Kind::Credentials, message)
                .class(Class::NotSent)
                .evidence(Evidence::Neither)
                .remedy("it has as long as one attempt to connect, see connect_timeout")
                .timed_out()
                .into())
        })?;
        Ok(Login {
            user: credentials.user.unwrap_or_else(|| self.target.user.clone()),
            password: Some(credentials.password),
        })
    }
}
