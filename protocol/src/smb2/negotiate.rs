//! SMB2 NEGOTIATE: 2.2.3 and 2.2.4; its contexts are in [`contexts`].

pub mod contexts;

pub use contexts::NegotiateContext;

use super::header::Header;
use crate::Malformed;
use crate::dtyp::{FileTime, Guid};
use crate::encode::{Body, put_u16s};
use crate::flags::flags;
use crate::parse::{self, array, buffer, u16, u16s, u32, u64};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;
use std::fmt;

/// The most dialects that we read in one request; 5 are defined.
const DIALECTS_MAX: u16 = 64;

/// A dialect revision that we know.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// SMB 2.0.2.
    Smb202 = 0x0202,
    /// SMB 2.1.
    Smb210 = 0x0210,
    /// SMB 3.0.
    Smb300 = 0x0300,
    /// SMB 3.0.2.
    Smb302 = 0x0302,
    /// SMB 3.1.1.
    Smb311 = 0x0311,
}

impl Dialect {
    /// The revision in the answer to an SMB1 negotiate that offers "SMB 2.???".
    pub const WILDCARD: u16 = 0x02FF;

    /// All of them, lowest first.
    pub const ALL: [Dialect; 5] =
        [Dialect::Smb202, Dialect::Smb210, Dialect::Smb300, Dialect::Smb302, Dialect::Smb311];

    /// Whether it belongs to the SMB 3.x dialect family.
    pub const fn is_3x(self) -> bool {
        self as u16 >= Dialect::Smb300 as u16
    }
}

impl TryFrom<u16> for Dialect {
    type Error = Malformed;

    fn try_from(revision: u16) -> Result<Dialect, Malformed> {
        Dialect::ALL
            .into_iter()
            .find(|dialect| *dialect as u16 == revision)
            .ok_or(Malformed::Value("dialect"))
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dialect::Smb202 => "2.0.2",
            Dialect::Smb210 => "2.1",
            Dialect::Smb300 => "3.0",
            Dialect::Smb302 => "3.0.2",
            Dialect::Smb311 => "3.1.1",
        })
    }
}

flags! {
    /// SecurityMode of NEGOTIATE: what a side says of signing.
    pub struct SecurityMode: u16 {
        /// SMB2_NEGOTIATE_SIGNING_ENABLED.
        SIGNING_ENABLED = 0x0001;
        /// SMB2_NEGOTIATE_SIGNING_REQUIRED.
        SIGNING_REQUIRED = 0x0002;
    }

    /// Capabilities of a connection's two sides: SMB2_GLOBAL_CAP_*.
    pub struct Capabilities: u32 {
        /// Distributed file system.
        DFS = 0x0000_0001;
        /// Leases (2.1 and later).
        LEASING = 0x0000_0002;
        /// Requests of more than one credit (2.1 and later).
        LARGE_MTU = 0x0000_0004;
        /// Several channels a session (3.x).
        MULTI_CHANNEL = 0x0000_0008;
        /// Persistent handles (3.x).
        PERSISTENT_HANDLES = 0x0000_0010;
        /// Leases on directories (3.x).
        DIRECTORY_LEASING = 0x0000_0020;
        /// Encryption (3.0 and 3.0.2; in 3.1.1 a context says it).
        ENCRYPTION = 0x0000_0040;
        /// Notifications from the server (3.1.1).
        NOTIFICATIONS = 0x0000_0080;
    }
}

/// A client's offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NegotiateRequest {
    /// What the client says of signing.
    pub security_mode: SecurityMode,
    /// What the client can (3.x).
    pub capabilities: Capabilities,
    /// The client's name for itself; zero for 2.0.2.
    pub client_guid: Guid,
    /// The dialect revisions offered, as they stand.
    pub dialects: Vec<u16>,
    /// The contexts; there are none unless `dialects` has 3.1.1.
    pub contexts: Vec<NegotiateContext>,
}

const REQUEST_SIZE: u16 = 36;
const REQUEST_DIALECTS: usize = Header::LEN + REQUEST_SIZE as usize;

impl NegotiateRequest {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<NegotiateRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (rest, (dialect_count, security_mode, _reserved, capabilities, client_guid)) =
            (u16, u16, u16, u32, array::<16>).parse(body)?;
        let (rest, (context_offset, context_count, _reserved2)) = (u32, u16, u16).parse(rest)?;
        if dialect_count > DIALECTS_MAX {
            return Err(Malformed::TooMany("dialects"));
        }
        let (_, dialects) = u16s(usize::from(dialect_count))(rest)?;
        // Without 3.1.1 the three fields are ClientStartTime, which the server ignores.
        let contexts = if dialects.contains(&(Dialect::Smb311 as u16)) {
            let least = REQUEST_DIALECTS + 2 * dialects.len();
            contexts::parse(message, context_offset as usize, context_count, least)?
        } else {
            Vec::new()
        };
        Ok(NegotiateRequest {
            security_mode: SecurityMode(security_mode),
            capabilities: Capabilities(capabilities),
            client_guid: Guid(client_guid),
            dialects,
            contexts,
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, REQUEST_SIZE);
        body.put_u16_le(self.dialects.len() as u16);
        body.put_u16_le(self.security_mode.0);
        body.put_u16_le(0);
        body.put_u32_le(self.capabilities.0);
        body.put_slice(&self.client_guid.0);
        let context_offset_at = body.offset();
        body.put_u32_le(0);
        body.put_u16_le(self.contexts.len() as u16);
        body.put_u16_le(0);
        put_u16s(&mut body, &self.dialects);
        if !self.contexts.is_empty() {
            body.pad(8);
            let offset = body.offset() as u32;
            body.patch_u32(context_offset_at, offset);
            contexts::encode(&self.contexts, &mut body);
        }
    }
}

/// The server's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NegotiateResponse {
    /// What the server says of signing.
    pub security_mode: SecurityMode,
    /// The dialect chosen, or [`Dialect::WILDCARD`].
    pub dialect_revision: u16,
    /// The server's name for itself.
    pub server_guid: Guid,
    /// What the server can.
    pub capabilities: Capabilities,
    /// The longest buffer of QUERY_INFO, QUERY_DIRECTORY, SET_INFO, CHANGE_NOTIFY and IOCTL, in bytes.
    pub max_transact_size: u32,
    /// The longest READ, in bytes.
    pub max_read_size: u32,
    /// The longest WRITE, in bytes.
    pub max_write_size: u32,
    /// The server's clock.
    pub system_time: FileTime,
    /// When the server started; servers send zero.
    pub server_start_time: FileTime,
    /// The security buffer: the server's first GSS token.
    pub buffer: Bytes,
    /// The contexts (3.1.1).
    pub contexts: Vec<NegotiateContext>,
}

const RESPONSE_SIZE: u16 = 65;
const RESPONSE_BUFFER: usize = Header::LEN + 64;

impl NegotiateResponse {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<NegotiateResponse, Malformed> {
        let body = parse::body(message, RESPONSE_SIZE)?;
        let (rest, (security_mode, dialect_revision, context_count, server_guid, capabilities)) =
            (u16, u16, u16, array::<16>, u32).parse(body)?;
        let (rest, (max_transact_size, max_read_size, max_write_size, system_time, server_start_time)) =
            (u32, u32, u32, u64, u64).parse(rest)?;
        let (_, (offset, length, context_offset)) = (u16, u16, u32).parse(rest)?;
        let contexts = if dialect_revision == Dialect::Smb311 as u16 {
            contexts::parse(message, context_offset as usize, context_count, RESPONSE_BUFFER)?
        } else {
            Vec::new()
        };
        Ok(NegotiateResponse {
            security_mode: SecurityMode(security_mode),
            dialect_revision,
            server_guid: Guid(server_guid),
            capabilities: Capabilities(capabilities),
            max_transact_size,
            max_read_size,
            max_write_size,
            system_time: FileTime(system_time),
            server_start_time: FileTime(server_start_time),
            buffer: buffer(message, offset.into(), length.into(), RESPONSE_BUFFER)?,
            contexts,
        })
    }

    /// Appends the body. The security buffer must be shorter than 64 KiB.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, RESPONSE_SIZE);
        body.put_u16_le(self.security_mode.0);
        body.put_u16_le(self.dialect_revision);
        body.put_u16_le(self.contexts.len() as u16);
        body.put_slice(&self.server_guid.0);
        body.put_u32_le(self.capabilities.0);
        body.put_u32_le(self.max_transact_size);
        body.put_u32_le(self.max_read_size);
        body.put_u32_le(self.max_write_size);
        body.put_u64_le(self.system_time.0);
        body.put_u64_le(self.server_start_time.0);
        body.put_u16_le(RESPONSE_BUFFER as u16);
        body.put_u16_le(self.buffer.len() as u16);
        let context_offset_at = body.offset();
        body.put_u32_le(0);
        if self.contexts.is_empty() {
            body.put_tail(&self.buffer);
            return;
        }
        body.put_slice(&self.buffer);
        body.pad(8);
        let offset = body.offset() as u32;
        body.patch_u32(context_offset_at, offset);
        contexts::encode(&self.contexts, &mut body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::{self, codec};

    #[test]
    fn request_without_contexts() {
        let request = NegotiateRequest {
            security_mode: SecurityMode::SIGNING_ENABLED,
            capabilities: Capabilities::DFS | Capabilities::ENCRYPTION,
            client_guid: Guid(std::array::from_fn(|i| i as u8)),
            dialects: vec![0x0202, 0x0210],
            contexts: vec![],
        };
        codec(
            "2400 0200 0100 0000 41000000 000102030405060708090a0b0c0d0e0f 0000000000000000 0202 1002",
            &request,
            NegotiateRequest::parse,
            NegotiateRequest::encode,
        );
        // The same with a ClientStartTime, which is no context offset.
        let parsed = check::parse(
            "2400 0200 0100 0000 41000000 000102030405060708090a0b0c0d0e0f ffffffffffffffff 0202 1002",
            NegotiateRequest::parse,
        );
        assert_eq!(parsed, Ok(request));
    }

    #[test]
    fn request_with_contexts() {
        let request = NegotiateRequest {
            security_mode: SecurityMode::SIGNING_REQUIRED,
            capabilities: Capabilities::EMPTY,
            client_guid: Guid([0x11; 16]),
            dialects: vec![0x0302, 0x0311],
            contexts: vec![
                NegotiateContext::PreauthIntegrity {
                    hash_algorithms: vec![1],
                    salt: Bytes::from_static(&[1, 2, 3]),
                },
                NegotiateContext::Signing { algorithms: vec![2, 1] },
            ],
        };
        codec(
            "2400 0200 0200 0000 00000000 11111111111111111111111111111111 68000000 0200 0000 0203 1103
             0100 0900 00000000 0100 0300 0100 010203 00000000000000
             0800 0600 00000000 0200 0200 0100",
            &request,
            NegotiateRequest::parse,
            NegotiateRequest::encode,
        );
    }

    #[test]
    fn request_with_no_dialect_or_too_many() {
        let head = "2400 0000 0100 0000 00000000 00000000000000000000000000000000 0000000000000000";
        assert_eq!(check::parse(head, NegotiateRequest::parse).unwrap().dialects, []);
        let head = "2400 ffff 0100 0000 00000000 00000000000000000000000000000000 0000000000000000 0202";
        assert_eq!(check::parse(head, NegotiateRequest::parse), Err(Malformed::TooMany("dialects")));
    }

    #[test]
    fn contexts_outside_the_message() {
        let at = |offset: &str| {
            check::parse(
                &format!(
                    "2400 0100 0200 0000 00000000 11111111111111111111111111111111 {offset} 0100 0000 1103
                     0000 0800 0400 00000000 0100 0100"
                ),
                NegotiateRequest::parse,
            )
        };
        assert!(at("68000000").is_ok());
        assert_eq!(at("64000000"), Err(Malformed::Offset));
        assert_eq!(at("00000000"), Err(Malformed::Offset));
        assert!(at("70000000").is_err());
        assert!(at("ffffffff").is_err());
    }

    #[test]
    fn response() {
        let response = NegotiateResponse {
            security_mode: SecurityMode::SIGNING_ENABLED | SecurityMode::SIGNING_REQUIRED,
            dialect_revision: 0x0311,
            server_guid: Guid([0x22; 16]),
            capabilities: Capabilities::LARGE_MTU,
            max_transact_size: 0x10_0000,
            max_read_size: 0x20_0000,
            max_write_size: 0x40_0000,
            system_time: FileTime(0x0102_0304_0506_0708),
            server_start_time: FileTime::ZERO,
            buffer: Bytes::from_static(&[0x60, 0x48, 0x06]),
            contexts: vec![NegotiateContext::Encryption { ciphers: vec![2] }],
        };
        codec(
            "4100 0300 1103 0100 22222222222222222222222222222222 04000000 00001000 00002000 00004000
             0807060504030201 0000000000000000 8000 0300 88000000 604806 0000000000
             0200 0400 00000000 0100 0200",
            &response,
            NegotiateResponse::parse,
            NegotiateResponse::encode,
        );
        let older = NegotiateResponse {
            dialect_revision: 0x0210,
            contexts: vec![],
            buffer: Bytes::new(),
            ..response
        };
        codec(
            "4100 0300 1002 0000 22222222222222222222222222222222 04000000 00001000 00002000 00004000
             0807060504030201 0000000000000000 8000 0000 00000000 00",
            &older,
            NegotiateResponse::parse,
            NegotiateResponse::encode,
        );
    }

    #[test]
    fn dialects() {
        assert_eq!(Dialect::try_from(0x0311), Ok(Dialect::Smb311));
        assert_eq!(Dialect::try_from(0x02FF), Err(Malformed::Value("dialect")));
        assert!(Dialect::Smb202 < Dialect::Smb311);
        assert!(Dialect::Smb300.is_3x() && !Dialect::Smb210.is_3x());
        assert_eq!(Dialect::Smb302.to_string(), "3.0.2");
    }
}
