//! SMB2 LOCK: 2.2.26 and 2.2.27.

use super::FileId;
use super::header::Header;
use crate::Malformed;
use crate::parse::{u16, u32, u64};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// SMB2_LOCK_ELEMENT: 2.2.26.1. One range to lock or unlock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockElement {
    /// Where the range begins.
    pub offset: u64,
    /// How long it is, in bytes; 0 is a range too.
    pub length: u64,
    /// [`LockElement::SHARED`] and the others, in the combinations that 3.3.5.14 allows.
    pub flags: u32,
}

impl LockElement {
    /// SMB2_LOCKFLAG_SHARED_LOCK.
    pub const SHARED: u32 = 0x0000_0001;
    /// SMB2_LOCKFLAG_EXCLUSIVE_LOCK.
    pub const EXCLUSIVE: u32 = 0x0000_0002;
    /// SMB2_LOCKFLAG_UNLOCK.
    pub const UNLOCK: u32 = 0x0000_0004;
    /// SMB2_LOCKFLAG_FAIL_IMMEDIATELY.
    pub const FAIL_IMMEDIATELY: u32 = 0x0000_0010;
}

/// Locks or unlocks ranges of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockRequest {
    /// LockSequenceNumber in the low 4 bits, LockSequenceIndex above them, as they stand.
    pub lock_sequence: u32,
    /// The open.
    pub file_id: FileId,
    /// The ranges. May be empty, which 3.3.5.14 refuses.
    pub locks: Vec<LockElement>,
}

const REQUEST_SIZE: u16 = 48;
/// The fixed part without the one element that StructureSize counts.
const REQUEST_FIXED: usize = 24;
const ELEMENT: usize = 24;

impl LockRequest {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<LockRequest, Malformed> {
        // Not parse::body, which would insist on an element: 3.3.5.14 has its own answer to a count of zero.
        let body = message.get(Header::LEN..).ok_or(Malformed::Truncated)?;
        let (rest, structure_size) = u16(body)?;
        if structure_size != REQUEST_SIZE {
            return Err(Malformed::StructureSize);
        }
        let (rest, (count, lock_sequence, file_id)) = (u16, u32, FileId::parse).parse(rest)?;
        let count = usize::from(count);
        if rest.len() < count * ELEMENT {
            return Err(Malformed::Truncated);
        }
        let mut locks = Vec::with_capacity(count);
        let mut rest = rest;
        for _ in 0..count {
            let (behind, (offset, length, flags, _reserved)) = (u64, u64, u32, u32).parse(rest)?;
            locks.push(LockElement { offset, length, flags });
            rest = behind;
        }
        Ok(LockRequest { lock_sequence, file_id, locks })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(REQUEST_FIXED + ELEMENT * self.locks.len());
        out.put_u16_le(REQUEST_SIZE);
        out.put_u16_le(self.locks.len() as u16);
        out.put_u32_le(self.lock_sequence);
        self.file_id.encode(out);
        for lock in &self.locks {
            out.put_u64_le(lock.offset);
            out.put_u64_le(lock.length);
            out.put_u32_le(lock.flags);
            out.put_u32_le(0);
        }
    }
}

empty_message! {
    /// It is done.
    LockResponse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::{self, codec};

    #[test]
    fn request() {
        let request = LockRequest {
            lock_sequence: 0x25,
            file_id: FileId { persistent: 1, volatile: 2 },
            locks: vec![
                LockElement { offset: 3, length: 4, flags: LockElement::SHARED },
                LockElement { offset: u64::MAX, length: 0, flags: LockElement::UNLOCK },
            ],
        };
        codec(
            "3000 0200 25000000 0100000000000000 0200000000000000
             0300000000000000 0400000000000000 01000000 00000000
             ffffffffffffffff 0000000000000000 04000000 00000000",
            &request,
            LockRequest::parse,
            LockRequest::encode,
        );
    }

    #[test]
    fn counts() {
        let parse = |count: &str| {
            check::parse(
                &format!(
                    "3000 {count} 00000000 0100000000000000 0200000000000000
                     0300000000000000 0400000000000000 01000000 00000000"
                ),
                LockRequest::parse,
            )
            .map(|request| request.locks.len())
        };
        assert_eq!(parse("0000"), Ok(0));
        assert_eq!(parse("0100"), Ok(1));
        assert_eq!(parse("0200"), Err(Malformed::Truncated));
        assert_eq!(parse("ffff"), Err(Malformed::Truncated));
        let none = "3000 0000 00000000 0100000000000000 0200000000000000";
        assert_eq!(check::parse(none, LockRequest::parse).unwrap().locks, []);
    }

    #[test]
    fn response() {
        codec("0400 0000", &LockResponse {}, LockResponse::parse, LockResponse::encode);
    }
}
