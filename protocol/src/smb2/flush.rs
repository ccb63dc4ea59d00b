//! SMB2 FLUSH: 2.2.17 and 2.2.18.

use super::FileId;
use crate::Malformed;
use crate::parse::{self, u16, u32};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// Asks that what was written to an open be on stable storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlushRequest {
    /// The open.
    pub file_id: FileId,
}

const REQUEST_SIZE: u16 = 24;

impl FlushRequest {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<FlushRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (_, (_reserved1, _reserved2, file_id)) = (u16, u32, FileId::parse).parse(body)?;
        Ok(FlushRequest { file_id })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(REQUEST_SIZE);
        out.put_bytes(0, 6);
        self.file_id.encode(out);
    }
}

empty_message! {
    /// It is.
    FlushResponse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::codec;

    #[test]
    fn request() {
        let request = FlushRequest { file_id: FileId { persistent: 1, volatile: 2 } };
        codec(
            "1800 0000 00000000 0100000000000000 0200000000000000",
            &request,
            FlushRequest::parse,
            FlushRequest::encode,
        );
    }

    #[test]
    fn response() {
        codec("0400 0000", &FlushResponse {}, FlushResponse::parse, FlushResponse::encode);
    }
}
