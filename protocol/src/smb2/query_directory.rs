//! SMB2 QUERY_DIRECTORY: 2.2.33 and 2.2.34. The entries are [`fscc`](crate::fscc)'s.

use super::FileId;
use super::header::Header;
use crate::Malformed;
use crate::encode::{Body, put_utf16};
use crate::parse::{self, Utf16, buffer, buffer_ref, u8, u16, u32, utf16};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// Asks for the next names of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryDirectoryRequest {
    /// The class of the entries.
    pub file_information_class: u8,
    /// [`QueryDirectoryRequest::RESTART_SCANS`] and the others.
    pub flags: u8,
    /// Where to go on from, with [`QueryDirectoryRequest::INDEX_SPECIFIED`].
    pub file_index: u32,
    /// The open.
    pub file_id: FileId,
    /// The most that may come back, in bytes.
    pub output_buffer_length: u32,
    /// Which names, with wildcards.
    pub search_pattern: Utf16,
}

const REQUEST_SIZE: u16 = 33;
const REQUEST_BUFFER: usize = Header::LEN + 32;

impl QueryDirectoryRequest {
    /// SMB2_RESTART_SCANS: from the beginning.
    pub const RESTART_SCANS: u8 = 0x01;
    /// SMB2_RETURN_SINGLE_ENTRY.
    pub const RETURN_SINGLE_ENTRY: u8 = 0x02;
    /// SMB2_INDEX_SPECIFIED.
    pub const INDEX_SPECIFIED: u8 = 0x04;
    /// SMB2_REOPEN: from the beginning, with a new pattern.
    pub const REOPEN: u8 = 0x10;

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<QueryDirectoryRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (rest, (file_information_class, flags, file_index, file_id)) =
            (u8, u8, u32, FileId::parse).parse(body)?;
        let (_, (offset, length, output_buffer_length)) = (u16, u16, u32).parse(rest)?;
        let pattern = buffer_ref(message, offset.into(), length.into(), REQUEST_BUFFER)?;
        Ok(QueryDirectoryRequest {
            file_information_class,
            flags,
            file_index,
            file_id,
            output_buffer_length,
            search_pattern: utf16(pattern)?,
        })
    }

    /// Appends the body. The pattern must be shorter than 64 KiB.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, REQUEST_SIZE);
        body.put_u8(self.file_information_class);
        body.put_u8(self.flags);
        body.put_u32_le(self.file_index);
        self.file_id.encode(&mut body);
        body.put_u16_le(REQUEST_BUFFER as u16);
        body.put_u16_le(self.search_pattern.byte_len() as u16);
        body.put_u32_le(self.output_buffer_length);
        put_utf16(&mut body, &self.search_pattern);
        if self.search_pattern.is_empty() {
            body.put_u8(0);
        }
    }
}

/// The entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryDirectoryResponse {
    /// As they stand.
    pub buffer: Bytes,
}

const RESPONSE_SIZE: u16 = 9;
const RESPONSE_BUFFER: usize = Header::LEN + QueryDirectoryResponse::FIXED;

impl QueryDirectoryResponse {
    /// The length of the fixed part in bytes; the buffer follows it at once.
    pub const FIXED: usize = 8;

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<QueryDirectoryResponse, Malformed> {
        let body = parse::body(message, RESPONSE_SIZE)?;
        let (_, (offset, length)) = (u16, u32).parse(body)?;
        let buffer = buffer(message, offset.into(), length as usize, RESPONSE_BUFFER)?;
        Ok(QueryDirectoryResponse { buffer })
    }

    /// Appends the fixed part only, for a sender that has the buffer go out from where it is, right behind.
    pub fn encode_fixed(&self, out: &mut BytesMut) {
        out.put_u16_le(RESPONSE_SIZE);
        out.put_u16_le(RESPONSE_BUFFER as u16);
        out.put_u32_le(self.buffer.len() as u32);
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

    #[test]
    fn request() {
        let request = QueryDirectoryRequest {
            file_information_class: 0x25,
            flags: QueryDirectoryRequest::RESTART_SCANS,
            file_index: 3,
            file_id: FileId { persistent: 1, volatile: 2 },
            output_buffer_length: 0x10000,
            search_pattern: "*".into(),
        };
        codec(
            "2100 25 01 03000000 0100000000000000 0200000000000000 6000 0200 00000100 2a00",
            &request,
            QueryDirectoryRequest::parse,
            QueryDirectoryRequest::encode,
        );
        let odd = "2100 25 01 03000000 0100000000000000 0200000000000000 6000 0100 00000100 2a00";
        assert_eq!(check::parse(odd, QueryDirectoryRequest::parse), Err(Malformed::Length));
    }

    #[test]
    fn response() {
        codec(
            "0900 4800 03000000 010203",
            &QueryDirectoryResponse { buffer: Bytes::from_static(&[1, 2, 3]) },
            QueryDirectoryResponse::parse,
            QueryDirectoryResponse::encode,
        );
    }
}
