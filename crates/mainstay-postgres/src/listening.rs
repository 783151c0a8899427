//! LISTEN: hearing what other sessions announce.
//!
//! A notification is sent once and kept nowhere, so the ear must be open before the server is asked
//! to speak: the session's own channel is subscribed to first, LISTEN is sent second. From then on
//! the task that moves the session's bytes puts what comes into a bounded queue, whether or not
//! anybody takes it out, so that a slow listener holds up neither the session nor the server.

use crate::classify::{Described, Phase, ServerError, lost};
use crate::session::{Flight, Link};
use crate::wire::Reached;
use mainstay_core::backend::{BoxFuture, Call, Heard, Listening, Notification};
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Kind, Result};
use std::fmt;
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};

/// The server walks the list of a session's channels for every notification of the database.
const CHANNELS_MAX: usize = 100;

/// `NAMEDATALEN` - 1: the server cuts a longer name off, and `pg_notify` refuses it.
const NAME_BYTES_MAX: usize = 63;

/// An open subscription.
pub(crate) struct Ear {
    link: Arc<Link>,
    notifications: broadcast::Receiver<tokio_postgres::Notification>,
}

/// Why no session behind a transaction pooler can listen.
pub(crate) fn refused_by_pooler() -> Error {
    Report::new(
        Kind::Config,
        "LISTEN hears nothing behind a transaction pooler (pgbouncer=true): \
         every transaction is another session of the server",
    )
    .remedy("open a Database on the server itself for listening")
    .into()
}

impl Link {
    /// Subscribes to channels.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        channels: &[String],
        call: Call,
    ) -> Result<Box<dyn Listening>> {
        if self.style.pooled {
            return Err(refused_by_pooler());
        }
        let text = listen_text(channels)?;
        let ear = Ear {
            notifications: self.hear(),
            link: Arc::clone(self),
        };
        // Nobody writes on a session that listens.
        self.usage().in_hands = None;
        let flight = Flight::start_reading(self);
        let leg = self.leg(self.preparing());
        let listening = self
            .answer(leg, call.deadline, self.client.batch_execute(&text))
            .await;
        flight.land();
        listening.map(|()| Box::new(ear) as Box<dyn Listening>)
    }

    /// The end of a session that was only listening: nothing was under way.
    fn deaf(&self) -> Error {
        let words = self.log.last_words().map(ServerError::from);
        let how = match &words {
            Some(words) => words.to_string(),
            None => self.log.ended().unwrap_or_else(|| "it ended".to_owned()),
        };
        let report = lost(
            Phase::Prepare,
            Reached::NotWritten,
            words.as_ref(),
            self.style.pooled,
        );
        let report = match words {
            Some(words) => report.described(words),
            None => report,
        };
        let host = self.endpoint.host();
        report
            .class(Class::NotSent)
            .message(format!(
                "the connection to {host} was lost while listening: {how}"
            ))
            .into()
    }
}

impl Listening for Ear {
    fn next(&mut self) -> BoxFuture<'_, Result<Heard>> {
        Box::pin(async {
            match self.notifications.recv().await {
                Ok(heard) => Ok(Heard::Notification(Notification::new(
                    heard.channel(),
                    heard.payload(),
                    heard.process_id(),
                ))),
                Err(RecvError::Lagged(missed)) => Ok(Heard::Missed(missed)),
                Err(RecvError::Closed) => Err(self.link.deaf()),
            }
        })
    }
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear")
            .field("host", &self.link.endpoint.host().to_string())
            .finish_non_exhaustive()
    }
}

/// One LISTEN a channel, in one transaction: all or none.
fn listen_text(channels: &[String]) -> Result<String> {
    if channels.is_empty() || channels.len() > CHANNELS_MAX {
        let message = format!(
            "a listener takes 1 to {CHANNELS_MAX} channels, not {}",
            channels.len()
        );
        return Err(Report::new(Kind::Config, message)
            .remedy("tell kinds of news apart by their payload")
            .into());
    }
    channels.iter().map(|name| listen_to(name)).collect()
}

fn listen_to(name: &str) -> Result<String> {
    let what = match name {
        "" => "is empty",
        _ if name.contains('\0') => "contains a NUL character",
        _ if name.len() > NAME_BYTES_MAX => "is longer than 63 bytes",
        _ => return Ok(format!("LISTEN \"{}\";", name.replace('"', "\"\""))),
    };
    Err(Report::new(Kind::Config, format!("the channel name {name:?} {what}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(names: &[&str]) -> Result<String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        listen_text(&names)
    }

    #[test]
    fn names_of_channels_are_quoted() {
        let text = text(&["orders", "Odd \"one\"; drop table t"]).unwrap();
        let expected = "LISTEN \"orders\";LISTEN \"Odd \"\"one\"\"; drop table t\";";
        assert_eq!(text, expected);
    }

    #[test]
    fn channels_that_cannot_be_listened_to_are_refused() {
        let long = "x".repeat(64);
        for names in [&[][..], &[""], &["a\0b"], &["fine", &long]] {
            assert_eq!(text(names).unwrap_err().kind(), Kind::Config, "{names:?}");
        }
        assert!(text(&["é".repeat(31).as_str()]).is_ok());
        let many: Vec<String> = (0..=CHANNELS_MAX).map(|n| n.to_string()).collect();
        assert!(listen_text(&many).is_err());
        assert!(listen_text(&many[1..]).is_ok());
    }
}
