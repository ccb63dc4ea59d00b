//! SMB2 READ: 2.2.19 and 2.2.20.

use super::FileId;
use super::header::Header;
use crate::Malformed;
use crate::encode::Body;
use crate::parse::{self, buffer, u8, u16, u32, u64};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// Asks for data of a file or pipe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadRequest {
    /// [`ReadRequest::READ_UNBUFFERED`] and others (3.0.2 and later).
    pub flags: u8,
    /// How much to read at most, in bytes.
    pub length: u32,
    /// From where.
    pub offset: u64,
    /// The open.
    pub file_id: FileId,
    /// With less than this the read fails.
    pub minimum_count: u32,
    /// SMB2_CHANNEL_*: 0, or RDMA.
    pub channel: u32,
    /// How much the client means to read hereafter.
    pub remaining_bytes: u32,
    /// For RDMA; empty if `channel` is 0.
    pub channel_info: Bytes,
}

const REQUEST_SIZE: u16 = 49;
const REQUEST_BUFFER: usize = Header::LEN + 48;

impl ReadRequest {
    /// SMB2_READFLAG_READ_UNBUFFERED.
    pub const READ_UNBUFFERED: u8 = 0x01;
    /// SMB2_READFLAG_REQUEST_COMPRESSED.
    pub const REQUEST_COMPRESSED: u8 = 0x02;

    /// Parses the body of `message`, a whole message with its header.
    #[inline]
    pub fn parse(message: &Bytes) -> Result<ReadRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (rest, (_padding, flags, length, offset, file_id)) =
            (u8, u8, u32, u64, FileId::parse).parse(body)?;
        let (rest, (minimum_count, channel, remaining_bytes)) = (u32, u32, u32).parse(rest)?;
        let (_, (info_offset, info_length)) = (u16, u16).parse(rest)?;
        // Without a channel the two fields are to be ignored.
        let channel_info = if channel == 0 {
            Bytes::new()
        } else {
            buffer(message, info_offset.into(), info_length.into(), REQUEST_BUFFER)?
        };
        Ok(ReadRequest {
            flags,
            length,
            offset,
            file_id,
            minimum_count,
            channel,
            remaining_bytes,
            channel_info,
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, REQUEST_SIZE);
        body.put_u8(READ_BUFFER as u8);
        body.put_u8(self.flags);
        body.put_u32_le(self.length);
        body.put_u64_le(self.offset);
        self.file_id.encode(&mut body);
        body.put_u32_le(self.minimum_count);
        body.put_u32_le(self.channel);
        body.put_u32_le(self.remaining_bytes);
        body.put_u16_le(if self.channel_info.is_empty() { 0 } else { REQUEST_BUFFER as u16 });
        body.put_u16_le(self.channel_info.len() as u16);
        body.put_tail(&self.channel_info);
    }
}

/// The data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadResponse {
    /// What was read; not empty if the status is success, save for a read of length 0.
    pub data: Bytes,
    /// What is left to read over the channel (RDMA).
    pub data_remaining: u32,
    /// Bytes between the fixed part and the data: none, but for tests of clients, which must go by the offset. Not parsed.
    pub padding: u8,
}

const RESPONSE_SIZE: u16 = 17;
const READ_BUFFER: usize = Header::LEN + ReadResponse::FIXED;

impl ReadResponse {
    /// The length of the fixed part in bytes; the data follows it at once.
    pub const FIXED: usize = 16;

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<ReadResponse, Malformed> {
        let body = parse::body(message, RESPONSE_SIZE)?;
        let (_, (offset, _reserved, length, data_remaining, _flags)) = (u8, u8, u32, u32, u32).parse(body)?;
        let data = buffer(message, offset.into(), length as usize, READ_BUFFER)?;
        Ok(ReadResponse { data, data_remaining, padding: 0 })
    }

    /// Appends the fixed part only, for a sender that has the data go out from where it is, right behind.
    #[inline]
    pub fn encode_fixed(&self, out: &mut BytesMut) {
        out.put_u16_le(RESPONSE_SIZE);
        out.put_u8(READ_BUFFER as u8 + self.padding);
        out.put_u8(0);
        out.put_u32_le(self.data.len() as u32);
        out.put_u32_le(self.data_remaining);
        out.put_u32_le(0);
        out.put_bytes(0, usize::from(self.padding));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::{self, codec};

    fn request() -> ReadRequest {
        ReadRequest {
            flags: 1,
            length: 0x10000,
            offset: 0x1122,
            file_id: FileId { persistent: 1, volatile: 2 },
            minimum_count: 3,
            channel: 0,
            remaining_bytes: 4,
            channel_info: Bytes::new(),
        }
    }

    const FIXED: &str = "3100 50 01 00000100 2211000000000000 0100000000000000 0200000000000000 03000000";

    #[test]
    fn request_known_bytes() {
        codec(
            &format!("{FIXED} 00000000 04000000 0000 0000 00"),
            &request(),
            ReadRequest::parse,
            ReadRequest::encode,
        );
        let rdma = ReadRequest { channel: 1, channel_info: Bytes::from_static(&[9; 16]), ..request() };
        codec(
            &format!("{FIXED} 01000000 04000000 7000 1000 09090909090909090909090909090909"),
            &rdma,
            ReadRequest::parse,
            ReadRequest::encode,
        );
    }

    #[test]
    fn channel_fields_count_only_with_a_channel() {
        let fields = |channel: &str| {
            check::parse(&format!("{FIXED} {channel} 04000000 ffff ffff 00"), ReadRequest::parse)
        };
        assert_eq!(fields("00000000"), Ok(request()));
        assert_eq!(fields("01000000"), Err(Malformed::Offset));
    }

    #[test]
    fn response() {
        let response = ReadResponse { data: Bytes::from_static(b"hello"), ..ReadResponse::default() };
        codec(
            "1100 50 00 05000000 00000000 00000000 68656c6c6f",
            &response,
            ReadResponse::parse,
            ReadResponse::encode,
        );
        let mut out = BytesMut::new();
        response.encode_fixed(&mut out);
        assert_eq!(out.len(), ReadResponse::FIXED);
        codec(
            "1100 50 00 00000000 00000000 00000000 00",
            &ReadResponse::default(),
            ReadResponse::parse,
            ReadResponse::encode,
        );
    }
}
