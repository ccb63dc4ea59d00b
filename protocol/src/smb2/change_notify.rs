//! SMB2 CHANGE_NOTIFY: 2.2.35 and 2.2.36. The filter, and what comes back, are [`fscc`](crate::fscc)'s.

use super::FileId;
use super::header::Header;
use crate::Malformed;
use crate::encode::Body;
use crate::parse::{self, buffer, u16, u32};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// Asks to be told of changes in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeNotifyRequest {
    /// [`ChangeNotifyRequest::WATCH_TREE`] or 0.
    pub flags: u16,
    /// The most that may come back, in bytes.
    pub output_buffer_length: u32,
    /// The open.
    pub file_id: FileId,
    /// Which changes.
    pub completion_filter: u32,
}

const REQUEST_SIZE: u16 = 32;

impl ChangeNotifyRequest {
    /// SMB2_WATCH_TREE: the directories below, too.
    pub const WATCH_TREE: u16 = 0x0001;

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<ChangeNotifyRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (_, (flags, output_buffer_length, file_id, completion_filter, _reserved)) =
            (u16, u32, FileId::parse, u32, u32).parse(body)?;
        Ok(ChangeNotifyRequest { flags, output_buffer_length, file_id, completion_filter })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(REQUEST_SIZE);
        out.put_u16_le(self.flags);
        out.put_u32_le(self.output_buffer_length);
        self.file_id.encode(out);
        out.put_u32_le(self.completion_filter);
        out.put_u32_le(0);
    }
}

/// The changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeNotifyResponse {
    /// FILE_NOTIFY_INFORMATION entries; none under NOTIFY_ENUM_DIR.
    pub buffer: Bytes,
}

const RESPONSE_SIZE: u16 = 9;
const RESPONSE_BUFFER: usize = Header::LEN + 8;

impl ChangeNotifyResponse {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<ChangeNotifyResponse, Malformed> {
        let body = parse::body(message, RESPONSE_SIZE)?;
        let (_, (offset, length)) = (u16, u32).parse(body)?;
        let buffer = buffer(message, offset.into(), length as usize, RESPONSE_BUFFER)?;
        Ok(ChangeNotifyResponse { buffer })
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
    use crate::smb2::check::codec;

    #[test]
    fn request() {
        let request = ChangeNotifyRequest {
            flags: ChangeNotifyRequest::WATCH_TREE,
            output_buffer_length: 0x1000,
            file_id: FileId { persistent: 1, volatile: 2 },
            completion_filter: 0x17,
        };
        codec(
            "2000 0100 00100000 0100000000000000 0200000000000000 17000000 00000000",
            &request,
            ChangeNotifyRequest::parse,
            ChangeNotifyRequest::encode,
        );
    }

    #[test]
    fn response() {
        codec(
            "0900 4800 03000000 010203",
            &ChangeNotifyResponse { buffer: Bytes::from_static(&[1, 2, 3]) },
            ChangeNotifyResponse::parse,
            ChangeNotifyResponse::encode,
        );
    }
}
