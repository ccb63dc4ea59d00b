//! SMB2 CLOSE: 2.2.15 and 2.2.16.

use super::FileId;
use crate::Malformed;
use crate::dtyp::FileTime;
use crate::fscc::FileAttributes;
use crate::parse::{self, u16, u32, u64};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// SMB2_CLOSE_FLAG_POSTQUERY_ATTRIB: answer with the file's attributes; in the response: they are there.
pub const POSTQUERY_ATTRIB: u16 = 0x0001;

/// Ends an open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseRequest {
    /// [`POSTQUERY_ATTRIB`] or 0.
    pub flags: u16,
    /// The open.
    pub file_id: FileId,
}

const REQUEST_SIZE: u16 = 24;

impl CloseRequest {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<CloseRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (_, (flags, _reserved, file_id)) = (u16, u32, FileId::parse).parse(body)?;
        Ok(CloseRequest { flags, file_id })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(REQUEST_SIZE);
        out.put_u16_le(self.flags);
        out.put_u32_le(0);
        self.file_id.encode(out);
    }
}

/// The open has ended. All but `flags` is zero unless the attributes were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseResponse {
    /// [`POSTQUERY_ATTRIB`] if the rest means anything.
    pub flags: u16,
    /// When the file was made.
    pub creation_time: FileTime,
    /// When it was last read.
    pub last_access_time: FileTime,
    /// When its data last changed.
    pub last_write_time: FileTime,
    /// When anything of it last changed.
    pub change_time: FileTime,
    /// How much space it has, in bytes.
    pub allocation_size: u64,
    /// How long it is, in bytes.
    pub end_of_file: u64,
    /// Its attributes.
    pub file_attributes: FileAttributes,
}

const RESPONSE_SIZE: u16 = 60;

impl CloseResponse {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<CloseResponse, Malformed> {
        let body = parse::body(message, RESPONSE_SIZE)?;
        let (rest, (flags, _reserved, creation_time, last_access_time)) = (u16, u32, u64, u64).parse(body)?;
        let (rest, (last_write_time, change_time)) = (u64, u64).parse(rest)?;
        let (_, (allocation_size, end_of_file, file_attributes)) = (u64, u64, u32).parse(rest)?;
        Ok(CloseResponse {
            flags,
            creation_time: FileTime(creation_time),
            last_access_time: FileTime(last_access_time),
            last_write_time: FileTime(last_write_time),
            change_time: FileTime(change_time),
            allocation_size,
            end_of_file,
            file_attributes: FileAttributes(file_attributes),
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16_le(RESPONSE_SIZE);
        out.put_u16_le(self.flags);
        out.put_u32_le(0);
        out.put_u64_le(self.creation_time.0);
        out.put_u64_le(self.last_access_time.0);
        out.put_u64_le(self.last_write_time.0);
        out.put_u64_le(self.change_time.0);
        out.put_u64_le(self.allocation_size);
        out.put_u64_le(self.end_of_file);
        out.put_u32_le(self.file_attributes.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::codec;

    #[test]
    fn request() {
        let request =
            CloseRequest { flags: POSTQUERY_ATTRIB, file_id: FileId { persistent: 1, volatile: 2 } };
        codec(
            "1800 0100 00000000 0100000000000000 0200000000000000",
            &request,
            CloseRequest::parse,
            CloseRequest::encode,
        );
    }

    #[test]
    fn response() {
        let response = CloseResponse {
            flags: POSTQUERY_ATTRIB,
            creation_time: FileTime(1),
            last_access_time: FileTime(2),
            last_write_time: FileTime(3),
            change_time: FileTime(4),
            allocation_size: 5,
            end_of_file: 6,
            file_attributes: FileAttributes(0x20),
        };
        codec(
            "3c00 0100 00000000 0100000000000000 0200000000000000 0300000000000000 0400000000000000
             0500000000000000 0600000000000000 20000000",
            &response,
            CloseResponse::parse,
            CloseResponse::encode,
        );
    }
}
