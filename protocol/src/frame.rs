//! The direct TCP transport's framing: MS-SMB2 2.1. A zero byte, then the payload's length as 24 bits, big-endian.

use crate::Malformed;

/// Length in bytes of the prefix before each payload.
pub const HEADER: usize = 4;

/// The largest payload that the 24-bit length can announce.
pub const PAYLOAD_MAX: usize = 0x00FF_FFFF;

/// The length in bytes of the payload that `bytes` begin, or `None` while the prefix is not whole.
///
/// Nothing is said of whether the payload is there, nor of whether it is too long for us: both are the caller's.
/// A first byte other than zero (NetBIOS session requests and keep-alives, or not SMB at all) is
/// [`Malformed::ProtocolId`].
pub fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    match *bytes {
        [] => Ok(None),
        [0, a, b, c, ..] => Ok(Some(u32::from_be_bytes([0, a, b, c]) as usize)),
        [0, ..] => Ok(None),
        _ => Err(Malformed::ProtocolId),
    }
}

/// The prefix of a payload of `length` bytes, which must be at most [`PAYLOAD_MAX`].
pub fn prefix(length: usize) -> [u8; HEADER] {
    assert!(length <= PAYLOAD_MAX, "a payload of {length} bytes does not fit the frame's 24 bits");
    (length as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bytes() {
        assert_eq!(length(&[]), Ok(None));
        assert_eq!(length(&[0, 1, 2]), Ok(None));
        assert_eq!(length(&[0, 1, 2, 3, 0xFE]), Ok(Some(0x01_02_03)));
        assert_eq!(length(&[0x85]), Err(Malformed::ProtocolId));
        assert_eq!(prefix(0x01_02_03), [0, 1, 2, 3]);
        assert_eq!(length(&prefix(PAYLOAD_MAX)), Ok(Some(PAYLOAD_MAX)));
    }
}
