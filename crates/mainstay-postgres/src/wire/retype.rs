//! Types that the driver must not look up.
//!
//! The driver asks the catalog about every type that it does not know, by a prepared statement, while
//! the rows of the answer are already on their way. Behind a transaction pooler that statement lives
//! in a session that somebody else has next; and a result larger than a buffer is taken by nobody
//! meanwhile, so the question is never answered. So where nothing is prepared, a type of the
//! database's own is shown to the driver as `unknown`, which it hands on as it comes, with the type's
//! true number in the place of the type modifier. [`crate::types`] reads it there.

use bytes::{Buf, BufMut, BytesMut};
use tokio_postgres::types::Type;

/// `RowDescription`.
const DESCRIPTION: u8 = b'T';

/// A description that is longer is passed on as it is: 1,664 columns with the longest names are less.
const DESCRIPTION_MAX: usize = 256 * 1_024;

/// What precedes a body: the type and a length that counts itself.
const HEADER: usize = 5;

/// Table, number of the column: what stands between a column's name and its type.
const BEFORE_TYPE: usize = 6;
/// Type, size, modifier, format.
const FROM_TYPE: usize = 12;

/// Passes on what the server sends, with the descriptions of rows changed. Holds back an unfinished
/// header and an unfinished description, nothing else.
#[derive(Debug, Default)]
pub(super) struct Retyper {
    /// What has come and is not ready to be passed on.
    held: BytesMut,
    /// Bytes of the present body that have not come yet.
    missing: usize,
    ready: BytesMut,
}

impl Retyper {
    /// Takes in what has come.
    pub(super) fn take_in(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.missing == 0 {
                let take = bytes.len().min(HEADER - self.held.len());
                self.held.put_slice(&bytes[..take]);
                bytes = &bytes[take..];
                if self.held.len() < HEADER {
                    return;
                }
                let length = (&self.held[1..]).get_u32() as usize;
                self.missing = length.saturating_sub(4);
                let is_held = self.held[0] == DESCRIPTION && self.missing <= DESCRIPTION_MAX;
                if !is_held || self.missing == 0 {
                    self.ready.unsplit(self.held.split());
                }
            }
            let take = bytes.len().min(self.missing);
            let (body, rest) = bytes.split_at(take);
            bytes = rest;
            self.missing -= take;
            if self.held.is_empty() {
                self.ready.put_slice(body);
                continue;
            }
            self.held.put_slice(body);
            if self.missing == 0 {
                retype(&mut self.held[HEADER..]);
                self.ready.unsplit(self.held.split());
            }
        }
    }

    /// Hands out what is ready, as much as there is room for.
    pub(super) fn hand_out(&mut self, room: usize) -> BytesMut {
        let take = room.min(self.ready.len());
        self.ready.split_to(take)
    }
}

/// Changes the types that the driver does not know. A body that is not well-formed is left to the
/// driver's judgement.
fn retype(body: &mut [u8]) {
    let mut at = 2; // the number of columns
    while let Some(length) = body
        .get(at..)
        .and_then(|rest| rest.iter().position(|&b| b == 0))
    {
        let start = at + length + 1 + BEFORE_TYPE;
        let Some(column) = body.get_mut(start..start + FROM_TYPE) else {
            return;
        };
        let number = [column[0], column[1], column[2], column[3]];
        if Type::from_oid(u32::from_be_bytes(number)).is_none() {
            column[..4].copy_from_slice(&Type::UNKNOWN.oid().to_be_bytes());
            column[6..10].copy_from_slice(&number);
        }
        at = start + FROM_TYPE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description with one column of each type.
    fn description(types: &[u32], modifier: i32) -> Vec<u8> {
        let mut body = u16::try_from(types.len()).unwrap().to_be_bytes().to_vec();
        for number in types {
            body.extend(b"name\0\0\0\0\x09\0\x01");
            body.extend(number.to_be_bytes());
            body.extend([0, 4]);
            body.extend(modifier.to_be_bytes());
            body.extend([0, 1]);
        }
        frame(DESCRIPTION, &body)
    }

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    fn passed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut retyper = Retyper::default();
        let mut out = Vec::new();
        for piece in pieces {
            retyper.take_in(piece);
            loop {
                let some = retyper.hand_out(7);
                if some.is_empty() {
                    break;
                }
                out.extend(some);
            }
        }
        out
    }

    #[test]
    fn an_unknown_type_becomes_unknown_and_keeps_its_number_wherever_the_stream_is_cut() {
        let stream = [
            frame(b'Z', b"I"),
            description(&[23, 16_500, 25], -1),
            frame(b'D', &[7; 40]),
            frame(b'n', b""),
        ]
        .concat();
        let mut expected = stream.clone();
        // Behind the first frame, the header, the count and one column of 23 bytes.
        let at = 6 + 5 + 2 + 23 + 11;
        expected[at..at + 4].copy_from_slice(&705_u32.to_be_bytes());
        expected[at + 6..at + 10].copy_from_slice(&16_500_u32.to_be_bytes());
        assert_ne!(stream, expected);
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(passed(&pieces), expected, "{first} {second}");
            }
        }
    }

    #[test]
    fn what_is_broken_or_far_too_long_is_passed_on_as_it_is() {
        let whole = description(&[16_500], -1);
        let broken = frame(DESCRIPTION, &whole[HEADER..whole.len() - 3]);
        assert_eq!(passed(&[&broken]), broken);
        let long = frame(DESCRIPTION, &vec![0x41; DESCRIPTION_MAX + 1]);
        assert_eq!(passed(&[&long]), long);
        let nonsense = [
            b'Z',
            0,
            0,
            0,
            0,
            DESCRIPTION,
            0,
            0,
            0,
            4,
            b'Z',
            0,
            0,
            0,
            5,
            b'I',
        ];
        assert_eq!(passed(&[&nonsense]), nonsense);
    }
}
