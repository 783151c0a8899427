//! What travels in front of a request and under its Sync.
//!
//! Every request of the driver ends with a Sync of its own, so a statement that is sent behind a BEGIN
//! without waiting for its answer runs by itself when BEGIN fails. The server leaves out everything
//! behind an error only up to the next Sync. So BEGIN is put before the statement *inside* its request,
//! where the driver has no place for it: on the way out by [`Preface`], and what the server answers to
//! it is kept from the driver by [`Sift`]. An error goes through: it is the answer to the whole.

use super::frames::{FrameScanner, HEADER};

/// Commands without parameters, as the driver would have sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preface {
    pub(super) frames: Vec<u8>,
    commands: usize,
}

impl Preface {
    /// One command each.
    pub(crate) fn new(commands: &[&str]) -> Self {
        let mut frames = Vec::with_capacity(64 * commands.len());
        for command in commands {
            // Unnamed, without types; bound without formats and values; executed to its end.
            frame(&mut frames, b'P', &[b"\0", command.as_bytes(), b"\0\0\0"]);
            frame(&mut frames, b'B', &[&[0; 8]]);
            frame(&mut frames, b'E', &[&[0; 5]]);
        }
        Self {
            frames,
            commands: commands.len(),
        }
    }

    /// Whether a frame of this type begins a request before which it can be put.
    pub(super) fn may_precede(tag: u8) -> bool {
        matches!(tag, b'P' | b'B')
    }
}

fn frame(frames: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    frames.push(tag);
    frames.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    for part in parts {
        frames.extend_from_slice(part);
    }
}

/// Takes the answers to a [`Preface`] out of what the server sends.
#[derive(Debug)]
pub(super) struct Sift {
    /// Answers that end before.
    due: u64,
    /// Messages that are still to be taken out.
    left: usize,
    header: [u8; HEADER],
    have: usize,
    /// Bytes of the present body that have not come yet.
    missing: usize,
    takes_out: bool,
}

impl Sift {
    /// Begins where the scanner of what comes stands, `due` answers before the one that matters.
    pub(super) fn new(preface: &Preface, due: u64, scanner: &FrameScanner) -> Self {
        let (header, have, missing) = scanner.place();
        let is_ending = have > 0 && header[0] == b'Z';
        Self {
            due: due - u64::from(is_ending && due > 0),
            // Parsed, bound, complete.
            left: 3 * preface.commands,
            header,
            have,
            missing,
            takes_out: false,
        }
    }

    /// Moves what is to be handed on to the front of `bytes` and answers how much it is.
    pub(super) fn sift(&mut self, bytes: &mut [u8]) -> usize {
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() {
            if self.have == 0 {
                self.takes_out = self.is_for_us(bytes[from]);
            }
            let rest = bytes.len() - from;
            let take = if self.have < HEADER {
                let take = rest.min(HEADER - self.have);
                self.header[self.have..self.have + take].copy_from_slice(&bytes[from..from + take]);
                self.have += take;
                if self.have == HEADER {
                    let [_, length @ ..] = self.header;
                    self.missing = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                }
                take
            } else {
                let take = rest.min(self.missing);
                self.missing -= take;
                take
            };
            if !self.takes_out {
                bytes.copy_within(from..from + take, to);
                to += take;
            }
            from += take;
            if self.have == HEADER && self.missing == 0 {
                self.have = 0;
            }
        }
        to
    }

    /// Whether everything that was to be taken out has been.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && !(self.takes_out && self.have > 0)
    }

    fn is_for_us(&mut self, tag: u8) -> bool {
        match tag {
            _ if self.due > 0 => {
                self.due -= u64::from(tag == b'Z');
                false
            }
            // They come at any time and answer nothing.
            b'N' | b'S' | b'A' => false,
            // The server leaves out the rest, up to the Sync; nor is there another answer to it.
            b'E' | b'Z' => {
                self.left = 0;
                false
            }
            _ if self.left == 0 => false,
            _ => {
                self.left -= 1;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(&mut bytes, tag, &[body]);
        bytes
    }

    fn began() -> Vec<u8> {
        [
            message(b'1', b""),
            message(b'2', b""),
            message(b'C', b"BEGIN\0"),
        ]
        .concat()
    }

    /// What is handed on of a stream that comes in pieces.
    fn handed_on(sift: &mut Sift, pieces: &[&[u8]]) -> Vec<u8> {
        let mut all = Vec::new();
        for piece in pieces {
            let mut bytes = piece.to_vec();
            let length = sift.sift(&mut bytes);
            all.extend(&bytes[..length]);
        }
        all
    }

    fn sift(commands: usize, due: u64) -> Sift {
        let preface = Preface::new(&vec!["BEGIN"; commands]);
        Sift::new(&preface, due, &FrameScanner::incoming())
    }

    #[test]
    fn a_command_is_parsed_bound_and_executed() {
        let preface = Preface::new(&["BEGIN"]);
        let parse = message(b'P', b"\0BEGIN\0\0\0");
        let bind = message(b'B', b"\0\0\0\0\0\0\0\0");
        let execute = message(b'E', b"\0\0\0\0\0");
        assert_eq!(preface.frames, [parse, bind, execute].concat());
    }

    #[test]
    fn the_answer_to_it_is_taken_out_wherever_the_stream_is_cut() {
        let before = [message(b'3', b""), message(b'Z', b"I")].concat();
        let told = message(b'S', b"a\0b\0");
        let answer = [
            message(b'2', b""),
            message(b'D', &[7; 9]),
            message(b'C', b"SELECT 1\0"),
            message(b'Z', b"T"),
            message(b'1', b""),
        ]
        .concat();
        let stream = [&before[..], &told, &began(), &began(), &answer].concat();
        let expected = [&before[..], &told, &answer].concat();
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                let mut sift = sift(2, 1);
                assert_eq!(handed_on(&mut sift, &pieces), expected, "{first} {second}");
                assert!(sift.is_done());
            }
        }
    }

    #[test]
    fn it_begins_in_the_middle_of_a_message() {
        for (tag, due) in [(b'Z', 1), (b'S', 0)] {
            let stream = message(tag, b"I");
            for cut in 1..=stream.len() {
                let mut scanner = FrameScanner::incoming();
                scanner.scan(&stream[..cut], |_| false, |_, _| {});
                // The log has counted the answer when it was complete.
                let due = if cut == stream.len() { 0 } else { due };
                let mut sift = Sift::new(&Preface::new(&["BEGIN"]), due, &scanner);
                let rest = [&stream[cut..], &began()[..], b"2\0\0\0\x04"].concat();
                let expected = [&stream[cut..], b"2\0\0\0\x04"].concat();
                assert_eq!(handed_on(&mut sift, &[&rest]), expected, "{cut}");
                assert!(sift.is_done());
            }
        }
    }

    #[test]
    fn an_error_is_the_answer_to_the_whole() {
        for answered in 0..3 {
            let frames = [message(b'1', b""), message(b'2', b"")];
            let before = frames[..answered.min(2)].concat();
            let refusal = [message(b'E', b"x"), message(b'Z', b"I")].concat();
            let mut sift = sift(1, 0);
            let stream = [&before[..], &refusal].concat();
            assert_eq!(handed_on(&mut sift, &[&stream]), refusal);
            assert!(sift.is_done());
        }
    }

    #[test]
    fn nonsense_does_not_panic() {
        let mut sift = sift(3, 2);
        let nonsense = [
            b'Z', 0, 0, 0, 0, b'Z', 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
        ];
        handed_on(&mut sift, &[&nonsense, &nonsense]);
    }
}
