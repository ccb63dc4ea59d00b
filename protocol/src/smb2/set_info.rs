//! SMB2 SET_INFO: 2.2.39 and 2.2.40. The classes are [`fscc`](crate::fscc)'s.

use super::FileId;
use super::header::Header;
use crate::Malformed;
use crate::encode::Body;
use crate::parse::{self, buffer, u8, u16, u32};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

pub use super::query_info::info_type;

/// Changes what is known of an open's file, its volume or its descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetInfoRequest {
    /// One of [`info_type`].
    pub info_type: u8,
    /// The information class; 0 for descriptors.
    pub file_info_class: u8,
    /// Which parts of a descriptor.
    pub additional_information: u32,
    /// The open.
    pub file_id: FileId,
    /// The information.
    pub buffer: Bytes,
}

const REQUEST_SIZE: u16 = 33;
const REQUEST_BUFFER: usize = Header::LEN + 32;

impl SetInfoRequest {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<SetInfoRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (rest, (info_type, file_info_class, length)) = (u8, u8, u32).parse(body)?;
        let (_, (offset, _reserved, additional_information, file_id)) =
            (u16, u16, u32, FileId::parse).parse(rest)?;
        Ok(SetInfoRequest {
            info_type,
            file_info_class,
            additional_information,
            file_id,
            buffer: buffer(message, offset.into(), length as usize, REQUEST_BUFFER)?,
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, REQUEST_SIZE);
        body.put_u8(self.info_type);
        body.put_u8(self.file_info_class);
        body.put_u32_le(self.buffer.len() as u32);
        body.put_u16_le(REQUEST_BUFFER as u16);
        body.put_u16_le(0);
        body.put_u32_le(self.additional_information);
        self.file_id.encode(&mut body);
        body.put_tail(&self.buffer);
    }
}

/// It is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetInfoResponse {}

const RESPONSE_SIZE: u16 = 2;

impl SetInfoResponse {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<SetInfoResponse, Malformed> {
        parse::body(message, RESPONSE_SIZE)?;
        Ok(SetInfoResponse {})
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(RESPONSE_SIZE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::{self, codec};

    #[test]
    fn request() {
        let request = SetInfoRequest {
            info_type: info_type::FILE,
            file_info_class: 0x14,
            additional_information: 0,
            file_id: FileId { persistent: 1, volatile: 2 },
            buffer: Bytes::from_static(&[8; 8]),
        };
        codec(
            "2100 01 14 08000000 6000 0000 00000000 0100000000000000 0200000000000000 0808080808080808",
            &request,
            SetInfoRequest::parse,
            SetInfoRequest::encode,
        );
        let parsed = check::parse(
            "2100 01 14 08000000 5f00 0000 00000000 0100000000000000 0200000000000000 0808080808080808",
            SetInfoRequest::parse,
        );
        assert_eq!(parsed, Err(Malformed::Offset));
    }

    #[test]
    fn response() {
        codec("0200", &SetInfoResponse {}, SetInfoResponse::parse, SetInfoResponse::encode);
    }
}
