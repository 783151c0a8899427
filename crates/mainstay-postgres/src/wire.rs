//! What the driver does not tell.
//!
//! Whether a lost statement may be repeated depends on facts that tokio-postgres keeps to itself:
//! whether a single byte was written, in what transaction state the server was when it last said
//! so, how many answers are still due, and what the server's last words were before the connection
//! ended. So a [`Wire`] lies between the driver and the (already encrypted) stream and keeps a
//! [`Log`] of what passes. It changes nothing, except for one thing: it can end the session
//! politely from outside, because the driver does so only when its last handle is gone.

mod frames;
mod retype;

use self::frames::FrameScanner;
use self::retype::Retyper;
use crate::classify::CRASH;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

/// The setting that makes the read lane. Reported by PostgreSQL 14 and later.
pub(crate) const READ_ONLY: &str = "default_transaction_read_only";

/// A server reports a dozen parameters; a broken one must not fill our memory.
const PARAMETERS_MAX: usize = 64;

/// How much is read after a failed write, to hear why it failed.
const SALVAGE_BYTES_MAX: usize = 64 * 1_024;

/// Terminate: the polite end of a session.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// The state that the server reports with each `ReadyForQuery`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum TransactionState {
    /// No transaction.
    Idle,
    /// Inside one.
    Open,
    /// Inside one that can only be rolled back.
    Aborted,
}

/// What the server said before the connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastWords {
    /// FATAL, PANIC, or the WARNING with which a crashing server takes its leave.
    pub(crate) severity: String,
    /// SQLSTATE.
    pub(crate) code: String,
    /// The message, in the server's language.
    pub(crate) message: String,
}

/// A place in the log, taken before something is sent.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Mark {
    written: u64,
    received: u64,
    requests: u64,
}

/// How far the server had come with a request when the connection ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// No byte of it was written.
    NotWritten,
    /// The server ended the session in place of an answer, so it did not take effect.
    Refused,
    /// Nobody knows.
    Unknown,
}

#[derive(Debug, Default)]
struct Facts {
    written: u64,
    received: u64,
    /// Requests written that end with a `ReadyForQuery`.
    requests: u64,
    /// `ReadyForQuery` messages received, the one that ends the startup not counted.
    ready: u64,
    started: bool,
    /// Requests at the end of the queue that only close statements: nobody waits for them.
    trailing_closes: u64,
    /// Whether the request being written closes something, and whether it does anything else.
    closes: bool,
    asks: bool,
    /// `CommandComplete` messages since the last `ReadyForQuery`.
    completes: u32,
    /// Whether any message has come since the last `ReadyForQuery`.
    spoken: bool,
    /// Errors received.
    errors: u64,
    state: Option<TransactionState>,
    parameters: HashMap<String, String>,
    /// What the server says of `default_transaction_read_only`, looked at after every statement.
    read_only: Option<bool>,
    key: Option<Vec<u8>>,
    last_words: Option<LastWords>,
    ended: Option<String>,
    /// Something came that is not the protocol.
    garbled: bool,
    closing: bool,
    reader: Option<Waker>,
}

/// What a look at the log shows.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Glance {
    pub(crate) is_ended: bool,
    /// As [`Log::is_pending`].
    pub(crate) is_pending: bool,
    pub(crate) state: TransactionState,
    /// The reported `default_transaction_read_only`, if it is.
    pub(crate) read_only: Option<bool>,
}

/// What has passed over one connection; shared by the [`Wire`] that writes it and the session.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Facts>);

impl Log {
    /// Each change is complete in itself, so a panic elsewhere leaves the facts true.
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where we are.
    pub(crate) fn mark(&self) -> Mark {
        let facts = self.facts();
        Mark {
            written: facts.written,
            received: facts.received,
            requests: facts.requests,
        }
    }

    /// Whether the server has said anything since.
    pub(crate) fn has_heard_since(&self, mark: Mark) -> bool {
        self.facts().received > mark.received
    }

    /// Whether the server has said anything to the request number `index` (from 0) of those sent
    /// since the mark. To the first one anything counts: what was asked before has to be answered
    /// before. To a later one of the same flight the answers to those before it do not: they were a
    /// matter of no time, and since then it has been silent.
    pub(crate) fn has_heard_of(&self, mark: Mark, index: u64) -> bool {
        let facts = self.facts();
        let only_before = index > 0 && facts.ready == mark.requests + index && !facts.spoken;
        facts.received > mark.received && !only_before
    }

    /// How far the server had come with the request number `index` (from 0) of those sent since the
    /// mark, now that its answer will not come. The request is done when the server has reported
    /// `completes` commands complete.
    ///
    /// Other requests may have been queued before ours, never between: so as long as the server
    /// has answered no more requests than had been written at the mark plus `index`, ours was not
    /// answered; and a session that ends with FATAL takes down what it was doing.
    pub(crate) fn reached(&self, mark: Mark, index: u64, completes: u32) -> Reached {
        let facts = self.facts();
        if facts.written == mark.written {
            return Reached::NotWritten;
        }
        let refused = facts
            .last_words
            .as_ref()
            .is_some_and(|words| words.severity == "FATAL" && words.code != CRASH);
        let ours = mark.requests + index;
        let undone = facts.ready < ours || (facts.ready == ours && facts.completes < completes);
        if refused && undone {
            Reached::Refused
        } else {
            Reached::Unknown
        }
    }

    /// How many commands the server has reported complete since it was last ready.
    pub(crate) fn completes(&self) -> u32 {
        self.facts().completes
    }

    /// How many errors the server has reported so far.
    pub(crate) fn errors(&self) -> u64 {
        self.facts().errors
    }

    /// Whether answers are due that somebody may have waited for.
    pub(crate) fn is_pending(&self) -> bool {
        self.facts().is_pending()
    }

    /// Everything that a session's condition depends on.
    pub(crate) fn glance(&self) -> Glance {
        let facts = self.facts();
        Glance {
            is_ended: facts.ended.is_some(),
            is_pending: facts.is_pending(),
            state: facts.state.unwrap_or(TransactionState::Idle),
            read_only: facts.read_only,
        }
    }

    /// How many requests the server has answered.
    pub(crate) fn answered(&self) -> u64 {
        self.facts().ready
    }

    /// Forgets answers that are not due any more, if the count was wrong. To be called when the last
    /// request is known to have been answered.
    pub(crate) fn settle(&self) {
        let mut facts = self.facts();
        facts.requests = facts.ready;
        facts.trailing_closes = 0;
    }

    /// The transaction state that the server reported last.
    pub(crate) fn state(&self) -> TransactionState {
        self.facts().state.unwrap_or(TransactionState::Idle)
    }

    /// The value of a parameter that the server reports.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.facts().parameters.get(name).cloned()
    }

    /// Process and secret, as a cancel request wants them.
    pub(crate) fn key(&self) -> Option<Vec<u8>> {
        self.facts().key.clone()
    }

    /// What the server said before the connection ended.
    pub(crate) fn last_words(&self) -> Option<LastWords> {
        self.facts().last_words.clone()
    }

    /// How the connection ended, if it has.
    pub(crate) fn ended(&self) -> Option<String> {
        self.facts().ended.clone()
    }

    /// Notes how the connection ended; the first account counts.
    pub(crate) fn end(&self, how: impl Into<String>) {
        self.facts().ended.get_or_insert_with(|| how.into());
    }

    /// Notes that something came that is not the protocol.
    pub(crate) fn garble(&self) {
        self.facts().garbled = true;
    }

    /// Whether something came that is not the protocol.
    pub(crate) fn is_garbled(&self) -> bool {
        self.facts().garbled
    }

    /// Asks the wire to end the session.
    pub(crate) fn close(&self) {
        let reader = {
            let mut facts = self.facts();
            facts.closing = true;
            facts.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Facts {
    fn is_pending(&self) -> bool {
        self.requests.saturating_sub(self.ready) > self.trailing_closes
    }

    fn on_sent(&mut self, tag: u8) {
        match tag {
            b'S' | b'Q' | b'F' => {
                self.requests += 1;
                // A lone Sync is a question, a Close before it is the driver tidying up.
                let tidies = std::mem::take(&mut self.closes);
                let asks = std::mem::take(&mut self.asks) || !tidies || tag != b'S';
                self.trailing_closes = if asks { 0 } else { self.trailing_closes + 1 };
            }
            b'C' => self.closes = true,
            // Startup and password.
            0 | b'p' => {}
            _ => self.asks = true,
        }
    }

    fn on_received(&mut self, tag: u8, body: &[u8]) {
        self.spoken = tag != b'Z';
        match tag {
            b'Z' => {
                // The first one ends the startup, which is no request.
                if std::mem::replace(&mut self.started, true) {
                    self.ready += 1;
                }
                self.trailing_closes = self
                    .trailing_closes
                    .min(self.requests.saturating_sub(self.ready));
                self.completes = 0;
                self.state = Some(match body.first() {
                    Some(b'T') => TransactionState::Open,
                    Some(b'E') => TransactionState::Aborted,
                    _ => TransactionState::Idle,
                });
            }
            b'C' => self.completes = self.completes.saturating_add(1),
            // The Sync behind the request was read as part of the data, and thrown away.
            b'G' => self.requests = self.requests.saturating_sub(1),
            b'S' => {
                if let Some((name, value)) = frames::parameter(body)
                    && (self.parameters.len() < PARAMETERS_MAX
                        || self.parameters.contains_key(&name))
                {
                    if name == READ_ONLY {
                        self.read_only = Some(value == "on");
                    }
                    self.parameters.insert(name, value);
                }
            }
            b'K' => self.key = Some(body.to_vec()),
            b'E' | b'N' => {
                self.errors += u64::from(tag == b'E');
                if let Some((severity, code, message)) = frames::complaint(body) {
                    self.on_complaint(LastWords {
                        severity,
                        code,
                        message,
                    });
                }
            }
            _ => {}
        }
    }

    /// A crashing server says so in a notice (57P01, 57P02) and hangs up.
    fn on_complaint(&mut self, words: LastWords) {
        let ends = matches!(words.severity.as_str(), "FATAL" | "PANIC")
            || matches!(words.code.as_str(), "57P01" | "57P02");
        if ends {
            self.last_words.get_or_insert(words);
        }
    }
}

/// A stream that keeps a [`Log`].
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    log: Arc<Log>,
    incoming: FrameScanner,
    outgoing: FrameScanner,
    /// How much of [`TERMINATE`] has been written, once closing has begun.
    terminated: usize,
    end_point: Option<Vec<u8>>,
    /// Where nothing is prepared; see [`retype`].
    retyper: Option<Retyper>,
}

impl<S> Wire<S> {
    /// Wraps a stream. `end_point` is the hash that binds a login to the TLS channel.
    pub(crate) fn new(stream: S, end_point: Option<Vec<u8>>, log: Arc<Log>) -> Self {
        Self {
            retyper: None,
            stream,
            log,
            incoming: FrameScanner::incoming(),
            outgoing: FrameScanner::outgoing(),
            terminated: 0,
            end_point,
        }
    }

    /// Hides the database's own types from the driver.
    pub(crate) fn hiding_types(mut self) -> Self {
        self.retyper = Some(Retyper::default());
        self
    }

    fn received(&mut self, bytes: &[u8]) {
        let mut facts = self.log.facts();
        facts.received += bytes.len() as u64;
        let wanted = |tag| matches!(tag, b'Z' | b'S' | b'K' | b'E' | b'N');
        self.incoming
            .scan(bytes, wanted, |tag, body| facts.on_received(tag, body));
    }

    fn sent(&mut self, bytes: &[u8]) {
        let mut facts = self.log.facts();
        facts.written += bytes.len() as u64;
        self.outgoing
            .scan(bytes, |_| false, |tag, _| facts.on_sent(tag));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// After a failed write the reason may still lie unread in the receive buffer.
    fn salvage(&mut self, cx: &mut Context<'_>) {
        let mut scratch = [0; 4_096];
        let mut heard = 0;
        while heard < SALVAGE_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    heard += buffer.filled().len();
                    let bytes = buffer.filled().to_vec();
                    self.received(&bytes);
                }
                _ => return,
            }
        }
    }

    fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        match &outcome {
            Ok(()) if buffer.filled().len() == before => self.log.end("the server hung up"),
            Ok(()) => self.received(&buffer.filled()[before..]),
            Err(error) => self.log.end(error.to_string()),
        }
        Poll::Ready(outcome)
    }

    /// Reads through the retyper, which may hold something back: then there is more to read, not an
    /// end.
    fn poll_retyped(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(retyper) = &mut self.retyper {
                let ready = retyper.hand_out(buffer.remaining());
                if !ready.is_empty() {
                    buffer.put_slice(&ready);
                    return Poll::Ready(Ok(()));
                }
            }
            let mut scratch = [0; 4_096];
            let mut read = ReadBuf::new(&mut scratch);
            ready!(self.poll_stream(cx, &mut read))?;
            match &mut self.retyper {
                Some(retyper) if !read.filled().is_empty() => retyper.take_in(read.filled()),
                _ => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Says goodbye and reads until the server has let go. Ready when it has.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.terminated < TERMINATE.len() {
            let rest = &TERMINATE[self.terminated..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(written) if written > 0 => self.terminated += written,
                _ => return Poll::Ready(()),
            }
        }
        if ready!(Pin::new(&mut self.stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        let mut scratch = [0; 4_096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let closing = {
            let mut facts = self.log.facts();
            facts.reader = Some(cx.waker().clone());
            facts.closing
        };
        if closing {
            ready!(self.poll_goodbye(cx));
            self.log.end("closed by us");
            return Poll::Ready(Ok(()));
        }
        if self.retyper.is_some() {
            return self.poll_retyped(cx, buffer);
        }
        self.poll_stream(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        match &outcome {
            Ok(written) => self.sent(&bytes[..*written]),
            Err(error) => {
                self.salvage(cx);
                self.log.end(error.to_string());
            }
        }
        Poll::Ready(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        if let Err(error) = &outcome {
            self.salvage(cx);
            self.log.end(error.to_string());
        }
        Poll::Ready(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Wire<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.end_point {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}

#[cfg(test)]
mod tests;
