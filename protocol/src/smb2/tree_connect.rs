//! SMB2 TREE_CONNECT: 2.2.9 and 2.2.10.

use super::header::Header;
use crate::Malformed;
use crate::encode::{Body, put_utf16};
use crate::fscc::AccessMask;
use crate::parse::{self, Utf16, buffer_ref, u8, u16, u32, utf16};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// Asks for access to a share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeConnectRequest {
    /// Flags (3.1.1): [`TreeConnectRequest::CLUSTER_RECONNECT`] and the others.
    pub flags: u16,
    /// `\\server\share`.
    pub path: Utf16,
}

const REQUEST_SIZE: u16 = 9;
const REQUEST_BUFFER: usize = Header::LEN + 8;

impl TreeConnectRequest {
    /// SMB2_TREE_CONNECT_FLAG_CLUSTER_RECONNECT.
    pub const CLUSTER_RECONNECT: u16 = 0x0001;
    /// SMB2_TREE_CONNECT_FLAG_REDIRECT_TO_OWNER.
    pub const REDIRECT_TO_OWNER: u16 = 0x0002;
    /// SMB2_TREE_CONNECT_FLAG_EXTENSION_PRESENT. The extension itself (2.2.9.1, for clusters) is passed over.
    pub const EXTENSION_PRESENT: u16 = 0x0004;

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<TreeConnectRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (_, (flags, offset, length)) = (u16, u16, u16).parse(body)?;
        let path = buffer_ref(message, offset.into(), length.into(), REQUEST_BUFFER)?;
        Ok(TreeConnectRequest { flags, path: utf16(path)? })
    }

    /// Appends the body, without an extension. The path must be shorter than 64 KiB.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, REQUEST_SIZE);
        body.put_u16_le(self.flags & !Self::EXTENSION_PRESENT);
        body.put_u16_le(REQUEST_BUFFER as u16);
        body.put_u16_le(self.path.byte_len() as u16);
        put_utf16(&mut body, &self.path);
        if self.path.is_empty() {
            body.put_u8(0);
        }
    }
}

/// What the share is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeConnectResponse {
    /// [`TreeConnectResponse::DISK`], [`TreeConnectResponse::PIPE`] or [`TreeConnectResponse::PRINT`].
    pub share_type: u8,
    /// SMB2_SHAREFLAG_*.
    pub share_flags: u32,
    /// SMB2_SHARE_CAP_*.
    pub capabilities: u32,
    /// What the user may do at most in the share.
    pub maximal_access: AccessMask,
}

const RESPONSE_SIZE: u16 = 16;

impl TreeConnectResponse {
    /// SMB2_SHARE_TYPE_DISK.
    pub const DISK: u8 = 0x01;
    /// SMB2_SHARE_TYPE_PIPE.
    pub const PIPE: u8 = 0x02;
    /// SMB2_SHARE_TYPE_PRINT.
    pub const PRINT: u8 = 0x03;

    /// SMB2_SHAREFLAG_MANUAL_CACHING: nothing is cached offline unless the user says so. The default.
    pub const MANUAL_CACHING: u32 = 0x0000_0000;
    /// SMB2_SHAREFLAG_NO_CACHING: nothing may be cached offline.
    pub const NO_CACHING: u32 = 0x0000_0030;
    /// SMB2_SHAREFLAG_ACCESS_BASED_DIRECTORY_ENUM.
    pub const ACCESS_BASED_DIRECTORY_ENUM: u32 = 0x0000_0800;
    /// SMB2_SHAREFLAG_FORCE_LEVELII_OPLOCK.
    pub const FORCE_LEVELII_OPLOCK: u32 = 0x0000_1000;
    /// SMB2_SHAREFLAG_ENCRYPT_DATA: the client must encrypt what it sends to this share (3.x).
    pub const ENCRYPT_DATA: u32 = 0x0000_8000;

    /// SMB2_SHARE_CAP_CONTINUOUS_AVAILABILITY.
    pub const CAP_CONTINUOUS_AVAILABILITY: u32 = 0x0000_0010;

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<TreeConnectResponse, Malformed> {
        let body = parse::body(message, RESPONSE_SIZE)?;
        let (_, (share_type, _reserved, share_flags, capabilities, maximal_access)) =
            (u8, u8, u32, u32, u32).parse(body)?;
        Ok(TreeConnectResponse {
            share_type,
            share_flags,
            capabilities,
            maximal_access: AccessMask(maximal_access),
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(RESPONSE_SIZE);
        out.put_u8(self.share_type);
        out.put_u8(0);
        out.put_u32_le(self.share_flags);
        out.put_u32_le(self.capabilities);
        out.put_u32_le(self.maximal_access.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::{self, codec};

    #[test]
    fn request() {
        let request = TreeConnectRequest { flags: 0, path: r"\\a\b".into() };
        codec(
            "0900 0000 4800 0a00 5c00 5c00 6100 5c00 6200",
            &request,
            TreeConnectRequest::parse,
            TreeConnectRequest::encode,
        );
    }

    #[test]
    fn request_with_an_extension() {
        let parsed = check::parse(
            "0900 0400 5800 0400 10000000 0000 00000000000000000000 5c00 6100",
            TreeConnectRequest::parse,
        );
        assert_eq!(parsed, Ok(TreeConnectRequest { flags: 4, path: r"\a".into() }));
    }

    #[test]
    fn request_with_a_bad_path() {
        let body = "0900 0000 4800 0300 5c00 5c";
        assert_eq!(check::parse(body, TreeConnectRequest::parse), Err(Malformed::Length));
        let body = "0900 0000 4700 0200 5c00";
        assert_eq!(check::parse(body, TreeConnectRequest::parse), Err(Malformed::Offset));
    }

    #[test]
    fn response() {
        let response = TreeConnectResponse {
            share_type: TreeConnectResponse::PIPE,
            share_flags: 0x30,
            capabilities: 0,
            maximal_access: AccessMask(0x001F_00A9),
        };
        codec(
            "1000 02 00 30000000 00000000 a9001f00",
            &response,
            TreeConnectResponse::parse,
            TreeConnectResponse::encode,
        );
    }
}
