//! COPY: bulk data in and out, with bounded memory.
//!
//! The driver has both directions, and three traps. A COPY that the server refuses before it begins
//! leaves one answer too many on the wire, because the driver sends a second Sync for it: whoever
//! used the session next would get somebody else's answer, so such a session is given up. A COPY that
//! the server refuses in the middle is not told to the sender, who would go on to send gigabytes: so
//! the log of the wire is asked before every piece. And the driver's stream of an outgoing COPY ends
//! before the server has said that the command is complete: the rest is read here.

use crate::classify::Phase;
use crate::flight::{Leg, is_nonsense};
use crate::session::{Flight, Link};
use crate::sql::{self, Token};
use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use mainstay_core::backend::{Call, CopySink, CopySource, Lane};
use mainstay_core::error::Report;
use mainstay_core::{Class, Error, Kind, Result};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio_postgres::{CopyInSink, CopyOutStream};

/// A large piece is sent in such parts: the driver copies each into its own buffer.
const PART_BYTES: usize = 64 * 1_024;

/// Which way the data of a COPY goes through the session.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Way {
    In,
    /// Out of a table, or out of a query, which may write.
    Out {
        of_query: bool,
    },
}

impl Link {
    /// Begins a `COPY … FROM STDIN`.
    pub(crate) async fn copy_in(
        self: &Arc<Self>,
        text: &Arc<str>,
        call: Call,
    ) -> Result<Box<dyn CopySink>> {
        if way(text) != Some(Way::In) {
            return Err(refused("copy_in takes a `COPY … FROM STDIN`"));
        }
        self.refuse_pooled()?;
        let flight = Flight::start(self);
        let preparing = self.prepare(text, call.deadline);
        let statement = self.behind_begin(call, preparing).await;
        let (flight, statement) = still_flying(flight, statement)?;
        let is_autonomous = !self.is_in_transaction();
        let mut beginning = Beginning {
            link: self,
            has_begun: false,
        };
        let mut guarded = self.send_guarded(Lane::Write, None, self.client.copy_in(&statement));
        // Until the data have ended, losing the session is as losing an open transaction.
        guarded.leg.phase = Phase::Transaction;
        let leg = guarded.leg;
        let sink = self.land_guarded(guarded, call).await?;
        beginning.has_begun = true;
        Ok(Box::new(Sink {
            errors: self.log.errors(),
            link: Arc::clone(self),
            flight: Some(flight),
            sink: Box::pin(sink),
            rest: Bytes::new(),
            leg,
            is_autonomous,
        }))
    }

    /// Begins a `COPY … TO STDOUT`.
    pub(crate) async fn copy_out(
        self: &Arc<Self>,
        text: &Arc<str>,
        call: Call,
    ) -> Result<Box<dyn CopySource>> {
        let Some(Way::Out { of_query }) = way(text) else {
            return Err(refused("copy_out takes a `COPY … TO STDOUT`"));
        };
        self.refuse_pooled()?;
        let flight = Flight::start(self);
        let preparing = self.prepare(text, call.deadline);
        let statement = self.behind_begin(call, preparing).await;
        let (flight, statement) = still_flying(flight, statement)?;
        let mut guarded = self.send_guarded(Lane::Write, None, self.client.copy_out(&statement));
        if !of_query && guarded.leg.phase == Phase::Write {
            guarded.leg.phase = Phase::Read;
        }
        let leg = guarded.leg;
        let stream = self.land_guarded(guarded, call).await;
        let (flight, stream) = still_flying(flight, stream)?;
        Ok(Box::new(Source {
            link: Arc::clone(self),
            flight: Some(flight),
            stream: Box::pin(stream),
            leg,
            tail: None,
        }))
    }

    fn refuse_pooled(&self) -> Result<()> {
        if !self.style.pooled {
            return Ok(());
        }
        Err(Report::new(
            Kind::Config,
            "COPY needs a prepared statement, which a transaction pooler does not keep",
        )
        .remedy("open a Database on the server itself for it")
        .into())
    }
}

/// An answer that is an error ends the flight.
fn still_flying<T>(flight: Flight, answer: Result<T>) -> Result<(Flight, T)> {
    match answer {
        Ok(answer) => Ok((flight, answer)),
        Err(error) => {
            flight.land();
            Err(error)
        }
    }
}

/// A COPY that is about to begin: if it does not, the session is given up.
struct Beginning<'a> {
    link: &'a Link,
    has_begun: bool,
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        if !self.has_begun {
            self.link.usage().broken = true;
        }
    }
}

/// Data on its way in.
struct Sink {
    link: Arc<Link>,
    /// Until the server has answered; dropped before, it leaves the session dirty.
    flight: Option<Flight>,
    sink: Pin<Box<CopyInSink<Bytes>>>,
    /// What of the last piece has not been handed to the driver.
    rest: Bytes,
    leg: Leg,
    /// The errors that the server had reported when it began.
    errors: u64,
    /// Outside of a transaction the end of the data commits them.
    is_autonomous: bool,
}

impl Sink {
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let room = ready!(self.sink.as_mut().poll_ready(context));
            room.map_err(|error| self.link.judge(self.leg, error))?;
            if self.rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let part = self.rest.split_to(self.rest.len().min(PART_BYTES));
            let sent = self.sink.as_mut().start_send(part);
            sent.map_err(|error| self.link.judge(self.leg, error))?;
        }
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<u64>> {
        let rows = ready!(self.sink.as_mut().poll_finish(context));
        if let Some(flight) = self.flight.take() {
            flight.land();
        }
        Poll::Ready(rows.map_err(|error| self.link.judge(self.leg, error)))
    }
}

impl CopySink for Sink {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.link.log.errors() == self.errors {
            return self.poll_rest(context);
        }
        // The server has refused it already; the end is only the way to hear why.
        self.rest.clear();
        let ended = ready!(self.poll_end(context));
        Poll::Ready(ended.and_then(|rows| {
            let message = format!("the server reported an error and took {rows} rows all the same");
            Err(Report::new(Kind::Other, message).into())
        }))
    }

    fn start_send(&mut self, piece: Bytes) {
        debug_assert!(
            self.rest.is_empty(),
            "a piece was sent before there was room"
        );
        self.rest = piece;
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<u64>> {
        if !self.rest.is_empty() {
            ready!(CopySink::poll_ready(self, context))?;
        }
        if self.is_autonomous {
            self.leg.phase = Phase::Write;
        }
        self.poll_end(context)
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

/// Data on its way out.
struct Source {
    link: Arc<Link>,
    /// Until the server is ready again; dropped before, it leaves the session dirty.
    flight: Option<Flight>,
    stream: Pin<Box<CopyOutStream>>,
    leg: Leg,
    /// After the last piece: how many of the messages have come that end the command.
    tail: Option<u32>,
}

/// What follows the data: the command is complete, the server is ready.
const TAIL_MESSAGES: u32 = 2;

impl CopySource for Source {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        while self.flight.is_some() {
            let next = ready!(self.stream.as_mut().poll_next(context));
            match (next, self.tail) {
                (Some(Ok(piece)), _) => return Poll::Ready(Some(Ok(piece))),
                (None, tail) => self.tail = Some(tail.unwrap_or(0)),
                // The stream knows nothing of these messages and shows each as an error.
                (Some(Err(error)), Some(seen)) if is_nonsense(&error) => {
                    self.tail = Some(seen + 1);
                    if seen + 1 == TAIL_MESSAGES {
                        self.land();
                    }
                }
                (Some(Err(error)), _) => {
                    self.land();
                    return Poll::Ready(Some(Err(self.link.judge(self.leg, error))));
                }
            }
        }
        Poll::Ready(None)
    }
}

impl Source {
    fn land(&mut self) {
        if let Some(flight) = self.flight.take() {
            flight.land();
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// Which way the data of a text goes, if it is a COPY through the session: `FROM STDIN` or `TO STDOUT`
/// outside of parentheses.
fn way(text: &str) -> Option<Way> {
    if sql::first_keyword(text).as_deref() != Some("copy") {
        return None;
    }
    let mut depth = 0_usize;
    let mut of_query = false;
    let mut last = None;
    for token in sql::tokens(text) {
        match token {
            Token::Open => {
                of_query |= last.as_deref() == Some("copy");
                depth += 1;
            }
            Token::Close => depth = depth.saturating_sub(1),
            Token::Word {
                name,
                quoted: false,
            } if depth == 0 => {
                match (last.as_deref(), &*name) {
                    (Some("from"), "stdin") => return Some(Way::In),
                    (Some("to"), "stdout") => return Some(Way::Out { of_query }),
                    _ => {}
                }
                last = Some(name);
                continue;
            }
            _ => {}
        }
        last = None;
    }
    None
}

fn refused(message: &'static str) -> Error {
    Report::new(Kind::Statement, message)
        .class(Class::Permanent)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_of_a_copy_is_read_from_its_text() {
        for (text, expected) in [
            ("copy t from stdin", Some(Way::In)),
            (
                "/* x */ COPY \"from\" (a, b) FROM STDIN (format csv)",
                Some(Way::In),
            ),
            ("copy t to stdout", Some(Way::Out { of_query: false })),
            (
                "copy t (a) to stdout with (format binary)",
                Some(Way::Out { of_query: false }),
            ),
            (
                "copy (select stdin from t where (a)) to stdout",
                Some(Way::Out { of_query: true }),
            ),
            ("copy t from '/tmp/stdin'", None),
            ("copy t to program 'stdout'", None),
            ("copy t from \"stdin\"", None),
            ("copy (select 1 from stdin) to '/tmp/x'", None),
            ("select 1 from stdin", None),
            ("", None),
        ] {
            assert_eq!(way(text), expected, "{text}");
        }
    }
}
