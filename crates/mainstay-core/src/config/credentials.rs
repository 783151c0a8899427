//! Credentials that are asked for whenever a connection is opened.
//!
//! A cloud's database takes a token that is good for a quarter of an hour, and a vault hands out roles
//! that are replaced every day. A pool that was given a password once works until the first connection
//! has to be opened anew. So credentials may be a question instead of a text.

use super::Secret;
use crate::Result;
use crate::backend::BoxFuture;
use crate::error::{Kind, Report};
use crate::{Class, Error, Evidence};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// What a session logs in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The role; `None` for the one in the URL.
    pub user: Option<String>,
    /// Its password, or a token in the place of one.
    pub password: Secret,
}

impl Credentials {
    /// A role and its password.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: Some(user.into()),
            password: Secret::new(password),
        }
    }

    /// A password for the role in the URL.
    #[must_use]
    pub fn password(password: impl Into<String>) -> Self {
        Self {
            user: None,
            password: Secret::new(password),
        }
    }
}

type Question = dyn Fn() -> BoxFuture<'static, Result<Credentials>> + Send + Sync;

/// Where credentials come from; asked once for each connection that is opened.
#[derive(Clone)]
pub struct CredentialsProvider(Arc<Question>);

impl CredentialsProvider {
    /// Wraps a question. It is asked within the time for one attempt to connect, by several connections
    /// at once if they are opened at once; a cache of its answers is its own affair.
    ///
    /// ```
    /// use mainstay_core::config::{Credentials, CredentialsProvider};
    ///
    /// # #[derive(Debug)] struct Down;
    /// # impl std::fmt::Display for Down {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("down") }
    /// # }
    /// # impl std::error::Error for Down {}
    /// # async fn token() -> Result<String, Down> { Ok("t".into()) }
    /// let provider = CredentialsProvider::new(|| async { token().await.map(Credentials::password) });
    /// ```
    pub fn new<F, Fut, E>(ask: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self(Arc::new(move || {
            let asked = ask();
            Box::pin(async move { asked.await.map_err(|error| failed(error.into())) })
        }))
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// [`Kind::Credentials`] with the provider's own error as its source. Asking again may help.
    ///
    /// # Cancel safety
    ///
    /// That of the question.
    pub async fn ask(&self) -> Result<Credentials> {
        (self.0)().await
    }
}

/// The provider's own words may quote what must not be shown, so they are the source and not the text.
fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Report::new(Kind::Credentials, "the provider of the credentials failed")
        .class(Class::NotSent)
        .evidence(Evidence::Neither)
        .remedy("look at the cause; it is asked again for the next connection")
        .source(Failure(error))
        .into()
}

/// A boxed error is none itself.
#[derive(Debug)]
struct Failure(Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Debug for CredentialsProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsProvider(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_failure_keeps_its_cause_and_may_be_asked_again() {
        let provider = CredentialsProvider::new(|| async { Err("the vault is sealed") });
        let asked = pin!(provider.ask()).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Err(error)) = asked else {
            panic!("{asked:?}");
        };
        let labels = (error.kind(), error.class());
        assert_eq!(labels, (Kind::Credentials, Class::NotSent));
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.to_string(), "the vault is sealed");
    }

    #[test]
    fn nothing_shows_what_is_secret() {
        let credentials = Credentials::new("app", "hunter2");
        let answer = credentials.clone();
        let provider = CredentialsProvider::new(move || {
            let answer = answer.clone();
            async { Ok::<_, Error>(answer) }
        });
        let shown = format!("{credentials:?} {provider:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
