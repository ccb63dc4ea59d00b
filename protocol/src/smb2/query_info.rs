//! SMB2 QUERY_INFO: 2.2.37 and 2.2.38. The classes are [`fscc`](crate::fscc)'s.

use super::FileId;
use super::header::Header;
use crate::Malformed;
use crate::encode::Body;
use crate::parse::{self, buffer, u8, u16, u32};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// What is asked about, here and in SET_INFO.
pub mod info_type {
    /// SMB2_0_INFO_FILE.
    pub const FILE: u8 = 0x01;
    /// SMB2_0_INFO_FILESYSTEM.
    pub const FILESYSTEM: u8 = 0x02;
    /// SMB2_0_INFO_SECURITY.
    pub const SECURITY: u8 = 0x03;
    /// SMB2_0_INFO_QUOTA.
    pub const QUOTA: u8 = 0x04;
}

/// Asks about an open's file, its volume or its descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryInfoRequest {
    /// One of [`info_type`].
    pub info_type: u8,
    /// The information class; 0 for descriptors.
    pub file_info_class: u8,
    /// The most that may come back, in bytes.
    pub output_buffer_length: u32,
    /// Which parts of a descriptor.
    pub additional_information: u32,
    /// Flags for extended attributes: [`QueryInfoRequest::RESTART_SCAN`] and the others.
    pub flags: u32,
    /// The open.
    pub file_id: FileId,
    /// The input: names of extended attributes, a quota query.
    pub input: Bytes,
}

const REQUEST_SIZE: u16 = 41;
const REQUEST_BUFFER: usize = Header::LEN + 40;

impl QueryInfoRequest {
    /// SL_RESTART_SCAN.
    pub const RESTART_SCAN: u32 = 0x0000_0001;
    /// SL_RETURN_SINGLE_ENTRY.
    pub const RETURN_SINGLE_ENTRY: u32 = 0x0000_0002;
    /// SL_INDEX_SPECIFIED.
    pub const INDEX_SPECIFIED: u32 = 0x0000_0004;

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<QueryInfoRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (rest, (info_type, file_info_class, output_buffer_length)) = (u8, u8, u32).parse(body)?;
        let (rest, (offset, _reserved, length)) = (u16, u16, u32).parse(rest)?;
        let (_, (additional_information, flags, file_id)) = (u32, u32, FileId::parse).parse(rest)?;
        Ok(QueryInfoRequest {
            info_type,
            file_info_class,
            output_buffer_length,
            additional_information,
            flags,
            file_id,
            input: buffer(message, offset.into(), length as usize, REQUEST_BUFFER)?,
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, REQUEST_SIZE);
        body.put_u8(self.info_type);
        body.put_u8(self.file_info_class);
        body.put_u32_le(self.output_buffer_length);
        body.put_u16_le(if self.input.is_empty() { 0 } else { REQUEST_BUFFER as u16 });
        body.put_u16_le(0);
        body.put_u32_le(self.input.len() as u32);
        body.put_u32_le(self.additional_information);
        body.put_u32_le(self.flags);
        self.file_id.encode(&mut body);
        body.put_tail(&self.input);
    }
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryInfoResponse {
    /// As it stands.
    pub buffer: Bytes,
}

const RESPONSE_SIZE: u16 = 9;
const RESPONSE_BUFFER: usize = Header::LEN + 8;

impl QueryInfoResponse {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<QueryInfoResponse, Malformed> {
        let body = parse::body(message, RESPONSE_SIZE)?;
        let (_, (offset, length)) = (u16, u32).parse(body)?;
        let buffer = buffer(message, offset.into(), length as usize, RESPONSE_BUFFER)?;
        Ok(QueryInfoResponse { buffer })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, RESPONSE_SIZE);
        body.put_u16_le(RESPONSE_BUFFER as u16);
        body.put_u32_le(self.buffer.len() as u32);
        body.put_tail(&self.buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::{self, codec};

    fn request() -> QueryInfoRequest {
        QueryInfoRequest {
            info_type: info_type::FILE,
            file_info_class: 0x0F,
            output_buffer_length: 0x400,
            additional_information: 7,
            flags: 1,
            file_id: FileId { persistent: 1, volatile: 2 },
            input: Bytes::from_static(&[1, 2, 3]),
        }
    }

    #[test]
    fn request_known_bytes() {
        codec(
            "2900 01 0f 00040000 6800 0000 03000000 07000000 01000000 0100000000000000 0200000000000000
             010203",
            &request(),
            QueryInfoRequest::parse,
            QueryInfoRequest::encode,
        );
        codec(
            "2900 01 0f 00040000 0000 0000 00000000 07000000 01000000 0100000000000000 0200000000000000
             00",
            &QueryInfoRequest { input: Bytes::new(), ..request() },
            QueryInfoRequest::parse,
            QueryInfoRequest::encode,
        );
        let parsed = check::parse(
            "2900 01 0f 00040000 6700 0000 03000000 07000000 01000000 0100000000000000 0200000000000000
             010203",
            QueryInfoRequest::parse,
        );
        assert_eq!(parsed, Err(Malformed::Offset));
    }

    #[test]
    fn response() {
        codec(
            "0900 4800 03000000 010203",
            &QueryInfoResponse { buffer: Bytes::from_static(&[1, 2, 3]) },
            QueryInfoResponse::parse,
            QueryInfoResponse::encode,
        );
    }
}
