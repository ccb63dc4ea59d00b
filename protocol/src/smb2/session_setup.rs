//! SMB2 SESSION_SETUP: 2.2.5 and 2.2.6.

use super::SessionId;
use super::header::Header;
use crate::Malformed;
use crate::encode::Body;
use crate::flags::flags;
use crate::parse::{self, buffer, u8, u16, u32, u64};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// One step of a client's authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionSetupRequest {
    /// [`SessionSetupRequest::BINDING`] or 0.
    pub flags: u8,
    /// What the client says of signing, as in NEGOTIATE.
    pub security_mode: u8,
    /// The client's capabilities; only DFS counts here.
    pub capabilities: u32,
    /// Must be ignored.
    pub channel: u32,
    /// The session that this one replaces, after a connection was lost.
    pub previous_session_id: SessionId,
    /// The security buffer: the client's GSS token.
    pub buffer: Bytes,
}

const REQUEST_SIZE: u16 = 25;
const REQUEST_BUFFER: usize = Header::LEN + 24;

impl SessionSetupRequest {
    /// SMB2_SESSION_FLAG_BINDING: bind this connection to an existing session (3.x).
    pub const BINDING: u8 = 0x01;

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<SessionSetupRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (rest, (flags, security_mode, capabilities, channel)) = (u8, u8, u32, u32).parse(body)?;
        let (_, (offset, length, previous_session_id)) = (u16, u16, u64).parse(rest)?;
        Ok(SessionSetupRequest {
            flags,
            security_mode,
            capabilities,
            channel,
            previous_session_id: SessionId(previous_session_id),
            buffer: buffer(message, offset.into(), length.into(), REQUEST_BUFFER)?,
        })
    }

    /// Appends the body. The buffer must be shorter than 64 KiB.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, REQUEST_SIZE);
        body.put_u8(self.flags);
        body.put_u8(self.security_mode);
        body.put_u32_le(self.capabilities);
        body.put_u32_le(self.channel);
        body.put_u16_le(REQUEST_BUFFER as u16);
        body.put_u16_le(self.buffer.len() as u16);
        body.put_u64_le(self.previous_session_id.0);
        body.put_tail(&self.buffer);
    }
}

flags! {
    /// SessionFlags of the response.
    pub struct SessionFlags: u16 {
        /// The user was authenticated as a guest.
        IS_GUEST = 0x0001;
        /// The user is anonymous.
        IS_NULL = 0x0002;
        /// The server wants all of the session encrypted (3.x).
        ENCRYPT_DATA = 0x0004;
    }
}

/// The server's next step, or the end of the authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionSetupResponse {
    /// What the session is.
    pub session_flags: SessionFlags,
    /// The security buffer: the server's GSS token.
    pub buffer: Bytes,
}

const RESPONSE_SIZE: u16 = 9;
const RESPONSE_BUFFER: usize = Header::LEN + 8;

impl SessionSetupResponse {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<SessionSetupResponse, Malformed> {
        let body = parse::body(message, RESPONSE_SIZE)?;
        let (_, (session_flags, offset, length)) = (u16, u16, u16).parse(body)?;
        Ok(SessionSetupResponse {
            session_flags: SessionFlags(session_flags),
            buffer: buffer(message, offset.into(), length.into(), RESPONSE_BUFFER)?,
        })
    }

    /// Appends the body. The buffer must be shorter than 64 KiB.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, RESPONSE_SIZE);
        body.put_u16_le(self.session_flags.0);
        body.put_u16_le(RESPONSE_BUFFER as u16);
        body.put_u16_le(self.buffer.len() as u16);
        body.put_tail(&self.buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::{self, codec};

    #[test]
    fn request() {
        let request = SessionSetupRequest {
            flags: SessionSetupRequest::BINDING,
            security_mode: 2,
            capabilities: 1,
            channel: 0,
            previous_session_id: SessionId(0x1122),
            buffer: Bytes::from_static(b"NTLMSSP"),
        };
        codec(
            "1900 01 02 01000000 00000000 5800 0700 2211000000000000 4e544c4d535350",
            &request,
            SessionSetupRequest::parse,
            SessionSetupRequest::encode,
        );
        let empty = SessionSetupRequest { buffer: Bytes::new(), ..request };
        codec(
            "1900 01 02 01000000 00000000 5800 0000 2211000000000000 00",
            &empty,
            SessionSetupRequest::parse,
            SessionSetupRequest::encode,
        );
        // Nothing at all where the buffer would be.
        let body = "1900 01 02 01000000 00000000 0000 0000 2211000000000000";
        assert_eq!(check::parse(body, SessionSetupRequest::parse), Ok(empty));
        let body = "1900 01 02 01000000 00000000 4000 0100 2211000000000000 00";
        assert_eq!(check::parse(body, SessionSetupRequest::parse), Err(Malformed::Offset));
    }

    #[test]
    fn response() {
        let response = SessionSetupResponse {
            session_flags: SessionFlags::IS_NULL | SessionFlags::ENCRYPT_DATA,
            buffer: Bytes::from_static(&[0xA1, 0x07]),
        };
        codec(
            "0900 0600 4800 0200 a107",
            &response,
            SessionSetupResponse::parse,
            SessionSetupResponse::encode,
        );
    }
}
