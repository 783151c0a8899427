//! What the driver does not tell.
//!
//! Whether a lost statement may be repeated depends on facts that tokio-postgres keeps to itself:
//! whether a single byte was written, in what transaction state the server was when it last said
//! so, how many answers are still due, and what the server's last words were before the connection
//! ended. So a [`Wire`] lies between the driver and the (already encrypted) stream and keeps a
//! [`Log`] of what passes. Four things it does besides: it can end the session politely from outside,
//! because the driver does so only when its last handle is gone; it puts BEGIN before a request
//! ([`preface`]); where nothing is prepared it hides the database's own types ([`retype`]); and while
//! the server is busy it lets requests gather before they are written.
//!
//! The driver's task is woken by the first request and would run next, before the callers who are
//! about to ask as well, and every request would be a system call of its own. The server is busy
//! anyway, so nobody loses anything when those who can run now are let past first: by half as many
//! system calls with 500 callers, a tenth more of them are served. It is one turn of the task queue, never
//! a wait for a time or for an answer, which a distant server would make everybody feel.

mod frames;
mod log;
mod preface;
mod retype;

pub(crate) use self::log::{LastWords, Log, Mark, READ_ONLY, Reached, TransactionState};
pub(crate) use self::preface::Preface;

use self::frames::FrameScanner;
use self::preface::Sift;
use self::retype::Retyper;
use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

/// How much is read after a failed write, to hear why it failed.
const SALVAGE_BYTES_MAX: usize = 64 * 1_024;

/// Terminate: the polite end of a session.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

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
    /// A request with its preface: the driver takes it for written.
    unwritten: BytesMut,
    /// While the answer to a preface is due.
    sift: Option<Sift>,
    /// Whether what is about to be written has let others past.
    gathered: bool,
}

impl<S> Wire<S> {
    /// Wraps a stream. `end_point` is the hash that binds a login to the TLS channel.
    pub(crate) fn new(stream: S, end_point: Option<Vec<u8>>, log: Arc<Log>) -> Self {
        Self {
            retyper: None,
            unwritten: BytesMut::new(),
            sift: None,
            gathered: false,
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
        let wanted = |tag| matches!(tag, b'Z' | b'C' | b'S' | b'K' | b'E' | b'N');
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
        loop {
            let outcome = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
            match &outcome {
                Ok(()) if buffer.filled().len() == before => self.log.end("the server hung up"),
                Ok(()) => {
                    self.received(&buffer.filled()[before..]);
                    if self.sift_out(buffer, before) {
                        continue;
                    }
                }
                Err(error) => self.log.end(error.to_string()),
            }
            return Poll::Ready(outcome);
        }
    }

    /// Takes the answer to a preface out of what has come behind `before`. Whether nothing else was
    /// there: then there is more to read, not an end.
    fn sift_out(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> bool {
        let Some(sift) = &mut self.sift else {
            return false;
        };
        let kept = sift.sift(&mut buffer.filled_mut()[before..]);
        if sift.is_done() {
            self.sift = None;
        }
        buffer.set_filled(before + kept);
        kept == 0
    }

    /// Where a preface that waits for its request is to be put in what the driver writes.
    fn place_of_preface(&self, bytes: &[u8]) -> Option<usize> {
        self.log.facts().preface.as_ref()?;
        self.outgoing.find(bytes, Preface::may_precede)
    }

    /// Takes over what the driver writes, with the preface before it.
    fn put_preface(&mut self, bytes: &[u8]) {
        let mut facts = self.log.facts();
        if let Some(preface) = facts.preface.take() {
            let due = facts.requests.saturating_sub(facts.ready);
            self.sift = Some(Sift::new(&preface, due, &self.incoming));
            self.unwritten.extend_from_slice(&preface.frames);
        }
        self.unwritten.extend_from_slice(bytes);
    }

    /// Lets those past, once for each flush, who can ask now, if the server is busy with what was asked
    /// before.
    fn poll_gather(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.gathered || !self.log.is_pending() {
            return Poll::Ready(());
        }
        self.gathered = true;
        // Whoever wakes itself goes to the end of the queue.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what the driver takes for written.
    fn poll_unwritten(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let bytes = self.unwritten.split();
            let outcome = Pin::new(&mut self.stream).poll_write(cx, &bytes);
            let written = match &outcome {
                Poll::Ready(Ok(written)) => *written,
                _ => 0,
            };
            self.sent(&bytes[..written]);
            self.unwritten = bytes;
            self.unwritten.advance(written);
            match ready!(outcome) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) => {
                    self.salvage(cx);
                    self.log.end(error.to_string());
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
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
        if ready!(self.poll_unwritten(cx)).is_err() {
            return Poll::Ready(());
        }
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
            facts.asked = true;
            match &mut facts.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                reader @ None => *reader = Some(cx.waker().clone()),
            }
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
        mut bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unwritten(cx))?;
        ready!(self.poll_gather(cx));
        match self.place_of_preface(bytes) {
            Some(0) => {
                self.put_preface(bytes);
                return match self.poll_unwritten(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    // What is left goes with the next flush, as with any buffer.
                    _ => Poll::Ready(Ok(bytes.len())),
                };
            }
            Some(at) => bytes = &bytes[..at],
            None => {}
        }
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
        ready!(self.poll_unwritten(cx))?;
        self.gathered = false;
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
