//! What has passed over a connection, as far as decisions depend on it.

use super::frames;
use super::preface::Preface;
use crate::classify::CRASH;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// The setting that makes the read lane. Reported by PostgreSQL 14 and later.
pub(crate) const READ_ONLY: &str = "default_transaction_read_only";

/// A server reports a dozen parameters; a broken one must not fill our memory.
pub(super) const PARAMETERS_MAX: usize = 64;

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
pub(super) struct Facts {
    pub(super) written: u64,
    pub(super) received: u64,
    /// Requests written that end with a `ReadyForQuery`.
    pub(super) requests: u64,
    /// `ReadyForQuery` messages received, the one that ends the startup not counted.
    pub(super) ready: u64,
    started: bool,
    /// Requests at the end of the queue that only close statements: nobody waits for them.
    trailing_closes: u64,
    /// Whether the request being written closes something, and whether it does anything else.
    closes: bool,
    asks: bool,
    /// `CommandComplete` messages since the last `ReadyForQuery`.
    completes: u32,
    /// Whether the command that was reported complete last is ROLLBACK.
    rolled_back: bool,
    /// Whether any message has come since the last `ReadyForQuery`.
    spoken: bool,
    /// Errors received.
    errors: u64,
    state: Option<TransactionState>,
    pub(super) parameters: HashMap<String, String>,
    /// What the server says of `default_transaction_read_only`, looked at after every statement.
    read_only: Option<bool>,
    key: Option<Vec<u8>>,
    last_words: Option<LastWords>,
    ended: Option<String>,
    /// Something came that is not the protocol.
    garbled: bool,
    pub(super) closing: bool,
    pub(super) reader: Option<Waker>,
    /// Whether the driver has asked for what comes since somebody looked.
    pub(super) asked: bool,
    /// To be put before the next request that it may precede.
    pub(super) preface: Option<Preface>,
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
    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
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

    /// Whether the driver has asked for what comes since this was last asked. It asks whenever it is polled,
    /// unless the receiver of an answer does not take what has come of it.
    pub(crate) fn take_asked(&self) -> bool {
        std::mem::take(&mut self.facts().asked)
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

    /// Whether the command that the server reported complete last is ROLLBACK.
    pub(crate) fn has_rolled_back(&self) -> bool {
        self.facts().rolled_back
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

    /// Puts commands before the next statement that is sent: the caller's, who sends it before anybody
    /// else can send one.
    pub(crate) fn precede(&self, preface: Preface) {
        self.facts().preface = Some(preface);
    }

    /// Takes commands back that have not been sent.
    pub(crate) fn take_preface(&self) -> Option<Preface> {
        self.facts().preface.take()
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

    pub(super) fn on_sent(&mut self, tag: u8) {
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

    pub(super) fn on_received(&mut self, tag: u8, body: &[u8]) {
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
            b'C' => {
                self.completes = self.completes.saturating_add(1);
                self.rolled_back = body == b"ROLLBACK\0";
            }
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
