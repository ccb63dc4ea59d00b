//! SMB2 IOCTL: 2.2.31 and 2.2.32. The control codes and their payloads are in [`fscc::fsctl`](crate::fscc).

use super::FileId;
use super::header::Header;
use crate::Malformed;
use crate::encode::Body;
use crate::parse::{self, buffer, u16, u32};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// Asks for a file system control or a pipe's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoctlRequest {
    /// The control code.
    pub ctl_code: u32,
    /// The open; all ones for codes that need none.
    pub file_id: FileId,
    /// The most input that may come back, in bytes.
    pub max_input_response: u32,
    /// The most output that may come back, in bytes.
    pub max_output_response: u32,
    /// [`IoctlRequest::IS_FSCTL`] or 0.
    pub flags: u32,
    /// The input.
    pub input: Bytes,
    /// The output, which requests do not have, but could.
    pub output: Bytes,
}

const REQUEST_SIZE: u16 = 57;
const REQUEST_BUFFER: usize = Header::LEN + 56;

impl IoctlRequest {
    /// SMB2_0_IOCTL_IS_FSCTL.
    pub const IS_FSCTL: u32 = 0x0000_0001;

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<IoctlRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (rest, (_reserved, ctl_code, file_id)) = (u16, u32, FileId::parse).parse(body)?;
        let (rest, (input_offset, input_count, max_input_response)) = (u32, u32, u32).parse(rest)?;
        let (rest, (output_offset, output_count, max_output_response)) = (u32, u32, u32).parse(rest)?;
        let (_, (flags, _reserved2)) = (u32, u32).parse(rest)?;
        Ok(IoctlRequest {
            ctl_code,
            file_id,
            max_input_response,
            max_output_response,
            flags,
            input: buffer(message, input_offset as usize, input_count as usize, REQUEST_BUFFER)?,
            output: buffer(message, output_offset as usize, output_count as usize, REQUEST_BUFFER)?,
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, REQUEST_SIZE);
        body.put_u16_le(0);
        body.put_u32_le(self.ctl_code);
        self.file_id.encode(&mut body);
        body.put_u32_le(REQUEST_BUFFER as u32);
        body.put_u32_le(self.input.len() as u32);
        body.put_u32_le(self.max_input_response);
        let output_offset =
            if self.output.is_empty() { 0 } else { output_offset(REQUEST_BUFFER, &self.input) };
        body.put_u32_le(output_offset as u32);
        body.put_u32_le(self.output.len() as u32);
        body.put_u32_le(self.max_output_response);
        body.put_u32_le(self.flags);
        body.put_u32_le(0);
        put_buffers(&mut body, &self.input, &self.output);
    }
}

// "The output buffer MUST be 8-byte aligned": behind the input, if there is one.
fn output_offset(first: usize, input: &[u8]) -> usize {
    (first + input.len()).next_multiple_of(8)
}

fn put_buffers(body: &mut Body<'_>, input: &[u8], output: &[u8]) {
    if input.is_empty() && output.is_empty() {
        body.put_u8(0);
        return;
    }
    body.put_slice(input);
    if !output.is_empty() {
        body.pad(8);
        body.put_slice(output);
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoctlResponse {
    /// The control code.
    pub ctl_code: u32,
    /// The open.
    pub file_id: FileId,
    /// Zero.
    pub flags: u32,
    /// The input, for the codes that send it back.
    pub input: Bytes,
    /// The output.
    pub output: Bytes,
}

const RESPONSE_SIZE: u16 = 49;
const RESPONSE_BUFFER: usize = Header::LEN + 48;

impl IoctlResponse {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<IoctlResponse, Malformed> {
        let body = parse::body(message, RESPONSE_SIZE)?;
        let (rest, (_reserved, ctl_code, file_id)) = (u16, u32, FileId::parse).parse(body)?;
        let (_, (input_offset, input_count, output_offset, output_count, flags, _reserved2)) =
            (u32, u32, u32, u32, u32, u32).parse(rest)?;
        Ok(IoctlResponse {
            ctl_code,
            file_id,
            flags,
            input: buffer(message, input_offset as usize, input_count as usize, RESPONSE_BUFFER)?,
            output: buffer(message, output_offset as usize, output_count as usize, RESPONSE_BUFFER)?,
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, RESPONSE_SIZE);
        body.put_u16_le(0);
        body.put_u32_le(self.ctl_code);
        self.file_id.encode(&mut body);
        body.put_u32_le(RESPONSE_BUFFER as u32);
        body.put_u32_le(self.input.len() as u32);
        body.put_u32_le(output_offset(RESPONSE_BUFFER, &self.input) as u32);
        body.put_u32_le(self.output.len() as u32);
        body.put_u32_le(self.flags);
        body.put_u32_le(0);
        put_buffers(&mut body, &self.input, &self.output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::{self, codec};

    fn request() -> IoctlRequest {
        IoctlRequest {
            ctl_code: 0x0011_C017,
            file_id: FileId { persistent: 1, volatile: 2 },
            max_input_response: 0,
            max_output_response: 0x400,
            flags: IoctlRequest::IS_FSCTL,
            input: Bytes::from_static(&[1, 2, 3]),
            output: Bytes::new(),
        }
    }

    const HEAD: &str = "3900 0000 17c01100 0100000000000000 0200000000000000";

    #[test]
    fn request_known_bytes() {
        codec(
            &format!("{HEAD} 78000000 03000000 00000000 00000000 00000000 00040000 01000000 00000000 010203"),
            &request(),
            IoctlRequest::parse,
            IoctlRequest::encode,
        );
        codec(
            &format!("{HEAD} 78000000 00000000 00000000 00000000 00000000 00040000 01000000 00000000 00"),
            &IoctlRequest { input: Bytes::new(), ..request() },
            IoctlRequest::parse,
            IoctlRequest::encode,
        );
        codec(
            &format!(
                "{HEAD} 78000000 03000000 00000000 80000000 02000000 00040000 01000000 00000000
                 010203 0000000000 0405"
            ),
            &IoctlRequest { output: Bytes::from_static(&[4, 5]), ..request() },
            IoctlRequest::parse,
            IoctlRequest::encode,
        );
    }

    #[test]
    fn buffers_outside_the_message() {
        let parse = |input: &str, output: &str| {
            check::parse(
                &format!("{HEAD} {input} 00000000 {output} 00040000 01000000 00000000 010203"),
                IoctlRequest::parse,
            )
        };
        assert!(parse("78000000 03000000", "00000000 00000000").is_ok());
        assert_eq!(parse("77000000 03000000", "00000000 00000000"), Err(Malformed::Offset));
        assert_eq!(parse("79000000 03000000", "00000000 00000000"), Err(Malformed::Offset));
        assert_eq!(parse("00000000 00000000", "40000000 01000000"), Err(Malformed::Offset));
        assert_eq!(parse("00000000 00000000", "ffffffff ffffffff"), Err(Malformed::Offset));
        assert!(parse("ffffffff 00000000", "ffffffff 00000000").is_ok());
    }

    #[test]
    fn response() {
        let response = IoctlResponse {
            ctl_code: 0x0014_0204,
            file_id: FileId::RELATED,
            flags: 0,
            input: Bytes::new(),
            output: Bytes::from_static(&[7; 3]),
        };
        codec(
            "3100 0000 04021400 ffffffffffffffff ffffffffffffffff
             70000000 00000000 70000000 03000000 00000000 00000000 070707",
            &response,
            IoctlResponse::parse,
            IoctlResponse::encode,
        );
        codec(
            "3100 0000 04021400 ffffffffffffffff ffffffffffffffff
             70000000 01000000 78000000 03000000 00000000 00000000 01 00000000000000 070707",
            &IoctlResponse { input: Bytes::from_static(&[1]), ..response },
            IoctlResponse::parse,
            IoctlResponse::encode,
        );
    }
}
