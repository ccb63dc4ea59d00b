//! Compound chains: several messages in one payload, linked by NextCommand. 2.2.1, 3.2.4.1.4, 3.3.5.2.7, 3.3.4.1.3.

use super::header::Header;
use crate::Malformed;
use crate::encode;
use crate::parse::u32;
use bytes::{Bytes, BytesMut};

/// The longest chain that we accept, in messages.
pub const CHAIN_MAX: usize = 128;

/// The messages of a chain, each whole with its header, its padding to the next included. One without a chain is
/// a chain of one, and costs no search.
///
/// Each must have room for a header; NextCommand must be a multiple of 8 ([`Malformed::Alignment`]) and lie inside
/// the payload ([`Malformed::Offset`]). The headers are not judged otherwise.
pub fn split(payload: &Bytes) -> Result<Vec<Bytes>, Malformed> {
    messages(payload.clone()).collect()
}

/// As [`split`], one message after the other. After an error there is none.
pub fn messages(payload: Bytes) -> Messages {
    Messages { rest: Some(payload), count: 0 }
}

/// What [`messages`] gives.
#[derive(Clone, Debug)]
pub struct Messages {
    /// What has not been split. `None` after the last message.
    rest: Option<Bytes>,
    count: usize,
}

impl Iterator for Messages {
    type Item = Result<Bytes, Malformed>;

    fn next(&mut self) -> Option<Result<Bytes, Malformed>> {
        let rest = self.rest.take()?;
        Some(self.first(rest))
    }
}

impl Messages {
    fn first(&mut self, mut rest: Bytes) -> Result<Bytes, Malformed> {
        if rest.len() < Header::LEN {
            return Err(Malformed::Truncated);
        }
        if self.count == CHAIN_MAX {
            return Err(Malformed::TooMany("messages in a chain"));
        }
        self.count += 1;
        let (_, next) = u32(&rest[Header::NEXT_COMMAND_AT..])?;
        let next = next as usize;
        if next == 0 {
            return Ok(rest);
        }
        if !next.is_multiple_of(8) {
            return Err(Malformed::Alignment);
        }
        if next < Header::LEN || next > rest.len() {
            return Err(Malformed::Offset);
        }
        let message = rest.split_to(next);
        self.rest = Some(rest);
        Ok(message)
    }
}

/// Ends the message that begins at position `start` of `out`, if another is to follow it: pads it to a multiple of
/// 8 bytes and writes its length into its NextCommand. The padding belongs to the message and is signed with it.
pub fn link(out: &mut BytesMut, start: usize) {
    encode::pad(out, start, 8);
    let length = out.len() - start;
    encode::patch_u32(out, start + Header::NEXT_COMMAND_AT, length as u32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::{Command, EchoRequest};

    fn chain(count: usize) -> BytesMut {
        let mut out = BytesMut::new();
        for i in 0..count {
            let start = out.len();
            Header::request(Command::Echo).encode(&mut out);
            EchoRequest {}.encode(&mut out);
            if i + 1 < count {
                link(&mut out, start);
            }
        }
        out
    }

    #[test]
    fn splits_what_was_linked() {
        let messages = split(&chain(3).freeze()).unwrap();
        assert_eq!(messages.iter().map(Bytes::len).collect::<Vec<_>>(), [72, 72, 68]);
        for message in &messages {
            assert_eq!(Header::parse(message).unwrap().command, Command::Echo);
        }
        assert_eq!(split(&chain(1).freeze()).unwrap().len(), 1);
        assert_eq!(split(&chain(CHAIN_MAX).freeze()).unwrap().len(), CHAIN_MAX);
        assert_eq!(split(&chain(CHAIN_MAX + 1).freeze()), Err(Malformed::TooMany("messages in a chain")));
    }

    #[test]
    fn refuses_links_that_lead_nowhere() {
        let with = |next: u32| {
            let mut out = chain(2);
            encode::patch_u32(&mut out, Header::NEXT_COMMAND_AT, next);
            split(&out.freeze())
        };
        assert_eq!(with(68), Err(Malformed::Alignment));
        assert_eq!(with(8), Err(Malformed::Offset));
        assert_eq!(with(56), Err(Malformed::Offset));
        assert_eq!(with(144), Err(Malformed::Offset));
        assert_eq!(with(0xFFFF_FFF8), Err(Malformed::Offset));
        assert_eq!(with(80), Err(Malformed::Truncated));
        assert_eq!(with(0).unwrap().len(), 1);
        // The link leads exactly to the end: no message is there.
        let mut out = chain(2);
        out.truncate(72);
        assert_eq!(split(&out.freeze()), Err(Malformed::Truncated));
        let whole = chain(3).freeze();
        for length in 0..whole.len() - 4 {
            assert!(split(&whole.slice(..length)).is_err(), "{length}");
        }
    }
}
