//! The one SMB1 message that a server without SMB1 understands: SMB_COM_NEGOTIATE, MS-CIFS 2.2.4.52, and in it the
//! two dialect strings that lead to SMB2 (MS-SMB2 3.2.4.2.1, 3.3.5.3). The answer is an SMB2 NEGOTIATE response.

use crate::Malformed;
use crate::parse::{array, skip, take, u8, u16};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// The first four bytes of every SMB1 message.
pub const PROTOCOL_ID: [u8; 4] = [0xFF, b'S', b'M', b'B'];

/// The dialect string of SMB 2.0.2.
pub const SMB_2_002: &[u8] = b"SMB 2.002";
/// The dialect string for "2.1 or later, to be negotiated again".
pub const SMB_2_WILDCARD: &[u8] = b"SMB 2.???";

const COMMAND_NEGOTIATE: u8 = 0x72;
const HEADER: usize = 32;
/// The most dialects that we read; clients offer about ten.
const DIALECTS_MAX: usize = 64;
/// BufferFormat of a null-terminated string: MS-CIFS 2.2.1.1.
const FORMAT_DIALECT: u8 = 0x02;

/// Whether `payload` begins with the protocol identifier of an SMB1 message.
#[inline]
pub fn is_smb1(payload: &[u8]) -> bool {
    payload.starts_with(&PROTOCOL_ID)
}

/// An SMB1 negotiate request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NegotiateRequest {
    /// The dialect strings, without their terminators.
    pub dialects: Vec<Bytes>,
}

impl NegotiateRequest {
    /// What a client offers that would speak any SMB2 and no SMB1.
    pub fn multi_protocol() -> NegotiateRequest {
        NegotiateRequest {
            dialects: vec![
                Bytes::from_static(b"NT LM 0.12"),
                Bytes::from_static(SMB_2_002),
                Bytes::from_static(SMB_2_WILDCARD),
            ],
        }
    }

    /// Whether "SMB 2.002" is offered.
    pub fn offers_smb_2_002(&self) -> bool {
        self.dialects.iter().any(|dialect| dialect == SMB_2_002)
    }

    /// Whether "SMB 2.???" is offered.
    pub fn offers_smb_2_wildcard(&self) -> bool {
        self.dialects.iter().any(|dialect| dialect == SMB_2_WILDCARD)
    }

    /// Parses a whole payload, which must be an SMB1 negotiate request.
    pub fn parse(payload: &Bytes) -> Result<NegotiateRequest, Malformed> {
        let (rest, (protocol_id, command, _)) = (array::<4>, u8, skip(HEADER - 5)).parse(&payload[..])?;
        if protocol_id != PROTOCOL_ID {
            return Err(Malformed::ProtocolId);
        }
        if command != COMMAND_NEGOTIATE {
            return Err(Malformed::Value("SMB1 command"));
        }
        let (rest, (word_count, byte_count)) = (u8, u16).parse(rest)?;
        if word_count != 0 {
            return Err(Malformed::StructureSize);
        }
        let (_, mut bytes) = take(usize::from(byte_count))(rest)?;
        let mut dialects = Vec::new();
        while !bytes.is_empty() {
            if dialects.len() == DIALECTS_MAX {
                return Err(Malformed::TooMany("dialects"));
            }
            let (rest, format) = u8(bytes)?;
            if format != FORMAT_DIALECT {
                return Err(Malformed::Value("SMB1 buffer format"));
            }
            let end = rest.iter().position(|&byte| byte == 0).ok_or(Malformed::Truncated)?;
            let (rest, dialect) = take(end)(rest)?;
            dialects.push(if dialect.is_empty() { Bytes::new() } else { payload.slice_ref(dialect) });
            bytes = &rest[1..];
        }
        Ok(NegotiateRequest { dialects })
    }

    /// Appends the whole message, header included. The strings must have no zero byte.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&PROTOCOL_ID);
        out.put_u8(COMMAND_NEGOTIATE);
        out.put_u32_le(0);
        // SMB_FLAGS_CANONICALIZED_PATHS and SMB_FLAGS_CASE_INSENSITIVE.
        out.put_u8(0x18);
        // Unicode, NTSTATUS, extended security, long names.
        out.put_u16_le(0xC853);
        out.put_bytes(0, 12);
        // TID, PID, UID, MID.
        out.put_u16_le(0xFFFF);
        out.put_u16_le(0xFEFF);
        out.put_u16_le(0);
        out.put_u16_le(0);
        out.put_u8(0);
        let length: usize = self.dialects.iter().map(|dialect| dialect.len() + 2).sum();
        out.put_u16_le(length as u16);
        for dialect in &self.dialects {
            out.put_u8(FORMAT_DIALECT);
            out.put_slice(dialect);
            out.put_u8(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::hex;

    #[test]
    fn known_bytes() {
        let bytes = hex("ff534d42 72 00000000 18 53c8 000000000000000000000000 ffff fffe 0000 0000
            00 2200 02 4e54204c4d20302e3132 00 02 534d4220322e303032 00 02 534d4220322e3f3f3f 00");
        let request = NegotiateRequest::multi_protocol();
        let mut out = BytesMut::new();
        request.encode(&mut out);
        assert_eq!(out, bytes);
        assert_eq!(NegotiateRequest::parse(&bytes), Ok(request.clone()));
        assert!(request.offers_smb_2_002() && request.offers_smb_2_wildcard());
        assert!(is_smb1(&bytes));
        for length in 0..bytes.len() {
            assert!(NegotiateRequest::parse(&bytes.slice(..length)).is_err(), "{length}");
        }
    }

    #[test]
    fn smb1_only() {
        let request = NegotiateRequest { dialects: vec![Bytes::from_static(b"NT LM 0.12"), Bytes::new()] };
        let mut out = BytesMut::new();
        request.encode(&mut out);
        let parsed = NegotiateRequest::parse(&out.freeze()).unwrap();
        assert_eq!(parsed, request);
        assert!(!parsed.offers_smb_2_002() && !parsed.offers_smb_2_wildcard());
    }

    #[test]
    fn wrong_fields() {
        let mut out = BytesMut::new();
        NegotiateRequest::multi_protocol().encode(&mut out);
        let with = |at: usize, value: u8| {
            let mut bytes = out.clone();
            bytes[at] = value;
            NegotiateRequest::parse(&bytes.freeze())
        };
        assert_eq!(with(0, 0xFE), Err(Malformed::ProtocolId));
        assert_eq!(with(4, 0x73), Err(Malformed::Value("SMB1 command")));
        assert_eq!(with(32, 1), Err(Malformed::StructureSize));
        assert_eq!(with(33, 0xFF), Err(Malformed::Truncated));
        assert_eq!(with(35, 3), Err(Malformed::Value("SMB1 buffer format")));
        let many = NegotiateRequest { dialects: vec![Bytes::new(); DIALECTS_MAX + 1] };
        let mut out = BytesMut::new();
        many.encode(&mut out);
        assert_eq!(NegotiateRequest::parse(&out.freeze()), Err(Malformed::TooMany("dialects")));
    }
}
