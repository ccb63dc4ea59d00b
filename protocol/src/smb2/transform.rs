//! The header of an encrypted message: SMB2 TRANSFORM_HEADER, 2.2.41.

use super::SessionId;
use crate::Malformed;
use crate::parse::{array, u16, u32, u64};
use bytes::{BufMut, BytesMut};
use nom::Parser;

/// The first four bytes of an encrypted message.
pub const PROTOCOL_ID: [u8; 4] = [0xFD, b'S', b'M', b'B'];

/// The 52 bytes before an encrypted payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransformHeader {
    /// The authentication tag over the encrypted payload and [`TransformHeader::aad`].
    pub signature: [u8; 16],
    /// The nonce: 11 bytes for CCM, 12 for GCM, the others zero.
    pub nonce: [u8; 16],
    /// The length of the payload in bytes; equal before and after encryption.
    pub original_message_size: u32,
    /// 1 in all dialects: "encrypted" in 3.1.1, AES-128-CCM in 3.0 and 3.0.2 (whatever was negotiated).
    pub flags: u16,
    /// The session whose keys encrypted it.
    pub session_id: SessionId,
}

impl TransformHeader {
    /// The length of the header in bytes.
    pub const LEN: usize = 52;
    /// The one value of `flags`.
    pub const ENCRYPTED: u16 = 0x0001;
    /// Where the signature stands.
    pub const SIGNATURE_AT: usize = 4;
    /// Where the authenticated part of the header begins; it goes to the header's end.
    pub const AAD_AT: usize = 20;

    /// Whether `bytes` begin with the protocol identifier of an encrypted message.
    #[inline]
    pub fn is_transform(bytes: &[u8]) -> bool {
        bytes.starts_with(&PROTOCOL_ID)
    }

    /// Parses the header at the start of `payload`.
    ///
    /// Flags other than 1 are refused ([`Malformed::Value`]), as is an OriginalMessageSize that differs from the
    /// number of bytes behind the header ([`Malformed::Length`]): 3.3.5.2.1.1 ends the connection for both.
    pub fn parse(payload: &[u8]) -> Result<TransformHeader, Malformed> {
        let (rest, protocol_id) = array::<4>(payload)?;
        if protocol_id != PROTOCOL_ID {
            return Err(Malformed::ProtocolId);
        }
        let (rest, (signature, nonce)) = (array::<16>, array::<16>).parse(rest)?;
        let (rest, (original_message_size, _reserved, flags, session_id)) =
            (u32, u16, u16, u64).parse(rest)?;
        if flags != TransformHeader::ENCRYPTED {
            return Err(Malformed::Value("transform flags"));
        }
        if original_message_size as usize != rest.len() {
            return Err(Malformed::Length);
        }
        Ok(TransformHeader {
            signature,
            nonce,
            original_message_size,
            flags,
            session_id: SessionId(session_id),
        })
    }

    /// Appends the 52 bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&PROTOCOL_ID);
        out.put_slice(&self.signature);
        out.put_slice(&self.aad());
    }

    /// The part of the header that is authenticated with the payload: nonce to session id, bytes 20 to 52.
    pub fn aad(&self) -> [u8; 32] {
        let mut aad = [0; 32];
        aad[..16].copy_from_slice(&self.nonce);
        aad[16..20].copy_from_slice(&self.original_message_size.to_le_bytes());
        aad[22..24].copy_from_slice(&self.flags.to_le_bytes());
        aad[24..].copy_from_slice(&self.session_id.0.to_le_bytes());
        aad
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::hex;

    #[test]
    fn known_bytes() {
        let bytes = hex("fd534d42 0f0e0d0c0b0a09080706050403020100 0102030405060708090a0b0000000000
            03000000 0000 0100 1122334455667788 aabbcc");
        let header = TransformHeader {
            signature: std::array::from_fn(|i| 15 - i as u8),
            nonce: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0, 0, 0, 0],
            original_message_size: 3,
            flags: 1,
            session_id: SessionId(0x8877_6655_4433_2211),
        };
        assert_eq!(TransformHeader::parse(&bytes), Ok(header.clone()));
        let mut out = BytesMut::new();
        header.encode(&mut out);
        assert_eq!(out, bytes[..52]);
        assert_eq!(header.aad(), bytes[TransformHeader::AAD_AT..52]);
        for length in 0..bytes.len() {
            assert!(TransformHeader::parse(&bytes[..length]).is_err(), "{length}");
        }
        let with = |at: usize, value: u8| {
            let mut bytes = bytes.to_vec();
            bytes[at] = value;
            TransformHeader::parse(&bytes)
        };
        assert_eq!(with(0, 0xFE), Err(Malformed::ProtocolId));
        assert_eq!(with(42, 2), Err(Malformed::Value("transform flags")));
        assert_eq!(with(36, 4), Err(Malformed::Length));
    }
}
