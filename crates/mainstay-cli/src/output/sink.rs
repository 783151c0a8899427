//! A stream that remembers when it ended. `println!` panics when its reader has gone away, which a
//! program must not do in the middle of a migration.

use super::human::Page;
use std::fmt;
use std::io::{ErrorKind, Write};

/// Where text goes.
pub(super) struct Sink {
    to: Box<dyn Write + Send>,
    colour: bool,
    state: State,
}

enum State {
    /// Text is written.
    Open,
    /// The reader has gone away: text is dropped. For good.
    Closed,
    /// A write failed: text is dropped, and somebody has to be told. For good.
    Failed(std::io::Error),
}

impl Sink {
    pub(super) fn new(to: Box<dyn Write + Send>, colour: bool) -> Self {
        Self {
            to,
            colour,
            state: State::Open,
        }
    }

    /// An empty page in this stream's colours.
    pub(super) fn page(&self) -> Page {
        Page::new(self.colour)
    }

    pub(super) fn write(&mut self, text: &str) {
        if !matches!(self.state, State::Open) {
            return;
        }
        let written = self
            .to
            .write_all(text.as_bytes())
            .and_then(|()| self.to.flush());
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.state = State::Closed,
            Err(error) => self.state = State::Failed(error),
        }
    }

    /// Why text was lost although somebody wanted to read it.
    pub(super) fn failed(&mut self) -> Option<std::io::Error> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Failed(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("colour", &self.colour)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_failure_and_a_full_disk_is() {
        for (kind, failed) in [
            (ErrorKind::BrokenPipe, false),
            (ErrorKind::StorageFull, true),
        ] {
            let mut sink = Sink::new(Box::new(Fails(kind)), false);
            sink.write("one");
            sink.write("two");
            assert_eq!(sink.failed().is_some(), failed, "{kind}");
        }
    }
}
