//! Finding the frames in a stream of bytes, wherever the stream is cut.
//!
//! A frame of PostgreSQL's protocol is a type byte, a length and a body. The scanner keeps its
//! place between calls, keeps at most [`BODY_MAX`] bytes of the bodies that are asked for, and
//! copies nothing of the others, so that a result of any size costs a few bytes of state.

/// How much of a body is kept. The facts looked for stand at its beginning; a longer message of
/// the server is cut.
pub(super) const BODY_MAX: usize = 1_024;

/// What precedes a body: the type and a length that counts itself.
pub(super) const HEADER: usize = 5;

/// Where in the stream of frames we are.
#[derive(Debug)]
pub(super) struct FrameScanner {
    header: [u8; HEADER],
    have: usize,
    /// Bytes of the present body that have not come yet.
    missing: usize,
    body: Vec<u8>,
    keep: bool,
}

impl FrameScanner {
    /// For what the server sends: every frame has a type.
    pub(super) fn incoming() -> Self {
        Self {
            header: [0; HEADER],
            have: 0,
            missing: 0,
            body: Vec::new(),
            keep: false,
        }
    }

    /// For what the client sends: the first frame, the startup message, has no type byte. It is
    /// counted as one with the type 0.
    pub(super) fn outgoing() -> Self {
        Self {
            have: 1,
            ..Self::incoming()
        }
    }

    /// Where it stands: what is known of the present header, and what is missing of its body.
    pub(super) fn place(&self) -> ([u8; HEADER], usize, usize) {
        let missing = if self.have == HEADER { self.missing } else { 0 };
        (self.header, self.have, missing)
    }

    /// Where in `bytes`, which come next, the first frame begins whose type is `wanted`.
    pub(super) fn find(&self, bytes: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
        let (mut header, mut have, mut missing) = self.place();
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
            if have == 0 && wanted(rest[0]) {
                return Some(at);
            }
            if have < HEADER {
                let take = rest.len().min(HEADER - have);
                header[have..have + take].copy_from_slice(&rest[..take]);
                have += take;
                at += take;
                let [_, length @ ..] = header;
                missing = (u32::from_be_bytes(length) as usize).saturating_sub(4);
            } else {
                let take = rest.len().min(missing);
                missing -= take;
                at += take;
            }
            if have == HEADER && missing == 0 {
                have = 0;
            }
        }
    }

    /// Reads on. `wanted` says of a type whether its body is needed; `on_frame` is told type and
    /// body (cut to [`BODY_MAX`], empty if not wanted) of each frame that ends in `bytes`.
    pub(super) fn scan(
        &mut self,
        mut bytes: &[u8],
        wanted: impl Fn(u8) -> bool,
        mut on_frame: impl FnMut(u8, &[u8]),
    ) {
        loop {
            if self.have < HEADER {
                let take = bytes.len().min(HEADER - self.have);
                self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < HEADER {
                    return;
                }
                let [tag, length @ ..] = self.header;
                // A length below four is a broken peer; the driver refuses it, we must not stumble.
                self.missing = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                self.keep = wanted(tag);
                self.body.clear();
            }
            let take = bytes.len().min(self.missing);
            if self.keep {
                let room = BODY_MAX - self.body.len();
                self.body.extend_from_slice(&bytes[..take.min(room)]);
            }
            self.missing -= take;
            bytes = &bytes[take..];
            if self.missing > 0 {
                return;
            }
            on_frame(self.header[0], &self.body);
            self.body.clear();
            self.have = 0;
        }
    }
}

/// What an error or a notice says: severity (never localised), SQLSTATE, message.
pub(super) fn complaint(body: &[u8]) -> Option<(String, String, String)> {
    let (mut localised, mut severity, mut code, mut message) = (None, None, None, None);
    let mut rest = body;
    while let Some((&field, value)) = rest.split_first() {
        if field == 0 {
            break;
        }
        let end = value
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(value.len());
        let text = || String::from_utf8_lossy(&value[..end]).into_owned();
        match field {
            b'S' => localised = Some(text()),
            b'V' => severity = Some(text()),
            b'C' => code = Some(text()),
            b'M' => message = Some(text()),
            _ => {}
        }
        rest = value.get(end + 1..).unwrap_or_default();
    }
    // `V` came with PostgreSQL 9.6; poolers leave it out.
    Some((severity.or(localised)?, code?, message.unwrap_or_default()))
}

/// Name and value of a reported parameter.
pub(super) fn parameter(body: &[u8]) -> Option<(String, String)> {
    let mut parts = body.split(|&byte| byte == 0);
    let mut text = || {
        parts
            .next()
            .map(|part| String::from_utf8_lossy(part).into_owned())
    };
    Some((text()?, text()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    fn scanned(scanner: &mut FrameScanner, pieces: &[&[u8]]) -> Vec<(u8, Vec<u8>)> {
        let mut found = Vec::new();
        for piece in pieces {
            scanner.scan(
                piece,
                |tag| tag != b'D',
                |tag, body| found.push((tag, body.to_vec())),
            );
        }
        found
    }

    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let stream = [
            frame(b'Z', b"I"),
            frame(b'D', &[7; 40]),
            frame(b'1', b""),
            frame(b'S', b"a\0b\0"),
        ]
        .concat();
        let whole = scanned(&mut FrameScanner::incoming(), &[&stream]);
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[1], (b'D', Vec::new()));
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(
                    scanned(&mut FrameScanner::incoming(), &pieces),
                    whole,
                    "{first} {second}"
                );
            }
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(scanned(&mut FrameScanner::incoming(), &bytes), whole);
    }

    #[test]
    fn the_startup_message_has_no_type() {
        let startup = [&8_u32.to_be_bytes()[..], b"abcd"].concat();
        let stream = [startup, frame(b'S', b""), frame(b'Q', b"select\0")].concat();
        let tags: Vec<u8> = scanned(&mut FrameScanner::outgoing(), &[&stream])
            .iter()
            .map(|found| found.0)
            .collect();
        assert_eq!(tags, [0, b'S', b'Q']);
    }

    #[test]
    fn a_frame_is_found_before_it_is_read_wherever_the_stream_is_cut() {
        let startup = [&8_u32.to_be_bytes()[..], b"PBPB"].concat();
        let before = [startup, frame(b'Q', b"BPBPB\0"), frame(b'S', b"")].concat();
        let stream = [before.clone(), frame(b'B', b"PPPP"), frame(b'P', b"")].concat();
        for cut in 0..stream.len() {
            let mut scanner = FrameScanner::outgoing();
            scanner.scan(&stream[..cut], |_| false, |_, _| {});
            let found = scanner.find(&stream[cut..], |tag| matches!(tag, b'B' | b'P'));
            let expected = match cut {
                _ if cut <= before.len() => before.len() - cut,
                _ => before.len() + 9 - cut.min(before.len() + 9),
            };
            let is_there = cut <= before.len() + 9;
            assert_eq!(found, is_there.then_some(expected), "{cut}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let found = scanned(
            &mut FrameScanner::incoming(),
            &[&frame(b'E', &[b'x'; 100_000])],
        );
        assert_eq!(found[0].1.len(), BODY_MAX);
    }

    #[test]
    fn nonsense_does_not_panic() {
        let found = scanned(
            &mut FrameScanner::incoming(),
            &[&[b'Z', 0, 0, 0, 0, b'Z', 0xff, 0xff, 0xff, 0xff, 1]],
        );
        assert_eq!(found.len(), 1);
        assert_eq!(complaint(b""), None);
        assert_eq!(complaint(b"M"), None);
        assert_eq!(parameter(b"lonely"), None);
    }

    #[test]
    fn a_complaint_is_read_without_its_translation() {
        let body = b"SSCHWERWIEGEND\0VFATAL\0C57P01\0Mending\0Fx.c\0\0";
        let expected = ("FATAL".into(), "57P01".into(), "ending".into());
        assert_eq!(complaint(body), Some(expected));
    }
}
