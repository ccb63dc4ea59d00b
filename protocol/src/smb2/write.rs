//! SMB2 WRITE: 2.2.21 and 2.2.22.

use super::FileId;
use super::header::Header;
use crate::Malformed;
use crate::encode::Body;
use crate::parse::{self, buffer, u16, u32, u64};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// Data for a file or pipe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteRequest {
    /// Where in the file.
    pub offset: u64,
    /// The open.
    pub file_id: FileId,
    /// SMB2_CHANNEL_*: 0, or RDMA, which then carries the data.
    pub channel: u32,
    /// How much the client means to write hereafter.
    pub remaining_bytes: u32,
    /// [`WriteRequest::WRITE_THROUGH`] and [`WriteRequest::WRITE_UNBUFFERED`].
    pub flags: u32,
    /// The data: a view of the message.
    pub data: Bytes,
}

const REQUEST_SIZE: u16 = 49;
const REQUEST_BUFFER: usize = Header::LEN + 48;
const DATA_OFFSET_MAX: usize = 0x100;

impl WriteRequest {
    /// SMB2_WRITEFLAG_WRITE_THROUGH: answer when the data is on stable storage (2.1 and later).
    pub const WRITE_THROUGH: u32 = 0x0000_0001;
    /// SMB2_WRITEFLAG_WRITE_UNBUFFERED (3.0.2 and later).
    pub const WRITE_UNBUFFERED: u32 = 0x0000_0002;

    /// Parses the body of `message`, a whole message with its header.
    ///
    /// Data that begins beyond offset 0x100 is refused; a write of nothing may have any offset.
    #[inline]
    pub fn parse(message: &Bytes) -> Result<WriteRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (rest, (data_offset, length, offset, file_id)) = (u16, u32, u64, FileId::parse).parse(body)?;
        let (_, (channel, remaining_bytes, _info_offset, _info_length, flags)) =
            (u32, u32, u16, u16, u32).parse(rest)?;
        let data_offset = usize::from(data_offset);
        if length != 0 && data_offset > DATA_OFFSET_MAX {
            return Err(Malformed::Offset);
        }
        let data = buffer(message, data_offset, length as usize, REQUEST_BUFFER)?;
        Ok(WriteRequest { offset, file_id, channel, remaining_bytes, flags, data })
    }

    /// Appends the fixed part only, for a sender that has the data go out from where it is, right behind.
    pub fn encode_fixed(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, REQUEST_SIZE);
        body.put_u16_le(REQUEST_BUFFER as u16);
        body.put_u32_le(self.data.len() as u32);
        body.put_u64_le(self.offset);
        self.file_id.encode(&mut body);
        body.put_u32_le(self.channel);
        body.put_u32_le(self.remaining_bytes);
        body.put_u32_le(0);
        body.put_u32_le(self.flags);
    }

    /// Appends the body, the data copied.
    pub fn encode(&self, out: &mut BytesMut) {
        self.encode_fixed(out);
        if self.data.is_empty() {
            out.put_u8(0);
        } else {
            out.put_slice(&self.data);
        }
    }
}

/// How much was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteResponse {
    /// In bytes.
    pub count: u32,
    /// Zero.
    pub remaining: u32,
}

const RESPONSE_SIZE: u16 = 17;

impl WriteResponse {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<WriteResponse, Malformed> {
        let body = parse::body(message, RESPONSE_SIZE)?;
        let (_, (_reserved, count, remaining)) = (u16, u32, u32).parse(body)?;
        Ok(WriteResponse { count, remaining })
    }

    /// Appends the body: the fixed part, and not the byte that its odd size counts, for there is no buffer.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(RESPONSE_SIZE);
        out.put_u16_le(0);
        out.put_u32_le(self.count);
        out.put_u32_le(self.remaining);
        out.put_u32_le(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::{self, codec};

    fn request() -> WriteRequest {
        WriteRequest {
            offset: 0x1122,
            file_id: FileId { persistent: 1, volatile: 2 },
            channel: 0,
            remaining_bytes: 3,
            flags: WriteRequest::WRITE_THROUGH,
            data: Bytes::from_static(b"hello"),
        }
    }

    const REST: &str =
        "2211000000000000 0100000000000000 0200000000000000 00000000 03000000 0000 0000 01000000";

    #[test]
    fn request_known_bytes() {
        codec(
            &format!("3100 7000 05000000 {REST} 68656c6c6f"),
            &request(),
            WriteRequest::parse,
            WriteRequest::encode,
        );
        codec(
            &format!("3100 7000 00000000 {REST} 00"),
            &WriteRequest { data: Bytes::new(), ..request() },
            WriteRequest::parse,
            WriteRequest::encode,
        );
    }

    #[test]
    fn data_is_not_copied() {
        let message = check::message(&check::hex(&format!("3100 7000 05000000 {REST} 68656c6c6f")));
        let request = WriteRequest::parse(&message).unwrap();
        assert_eq!(request.data.as_ptr(), message[112..].as_ptr());
    }

    #[test]
    fn data_offset_and_length() {
        let zeros = "00".repeat(160);
        let parse = |fields: &str| {
            check::parse(&format!("3100 {fields} {REST} 68656c6c6f {zeros}"), WriteRequest::parse)
        };
        assert_eq!(parse("7000 05000000"), Ok(request()));
        assert_eq!(parse("6f00 05000000"), Err(Malformed::Offset));
        assert!(parse("0001 05000000").is_ok());
        assert_eq!(parse("0101 05000000"), Err(Malformed::Offset));
        assert!(parse("0101 00000000").is_ok());
        assert_eq!(parse("7000 a6000000"), Err(Malformed::Offset));
        assert_eq!(parse("7000 ffffffff"), Err(Malformed::Offset));
        assert_eq!(parse("0000 00000000").map(|request| request.data), Ok(Bytes::new()));
    }

    #[test]
    fn response() {
        codec(
            "1100 0000 05000000 00000000 0000 0000",
            &WriteResponse { count: 5, remaining: 0 },
            WriteResponse::parse,
            WriteResponse::encode,
        );
    }
}
