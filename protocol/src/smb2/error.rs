//! The error response: 2.2.2, its contexts 2.2.2.1 and the symbolic link error 2.2.2.2.1.
//!
//! It stands in place of a command's own response under every status but success and the few that the commands
//! name, in interim responses (STATUS_PENDING) too.

use super::header::Header;
use crate::Malformed;
use crate::encode::{Body, pad};
use crate::parse::{self, buffer, u8, u16, u32};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// One error context of a 3.1.1 error response: 2.2.2.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorContext {
    /// What `data` is: [`ErrorContext::DEFAULT`], or [`ErrorContext::SHARE_REDIRECT`].
    pub id: u32,
    /// The error data.
    pub data: Bytes,
}

impl ErrorContext {
    /// SMB2_ERROR_ID_DEFAULT: the data that would have stood in the response without contexts.
    pub const DEFAULT: u32 = 0;
    /// SMB2_ERROR_ID_SHARE_REDIRECT.
    pub const SHARE_REDIRECT: u32 = 0x7264_5253;
}

/// An error response. On a 3.1.1 connection error data travels in contexts, on others as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The contexts (3.1.1); if there are any, `data` is not sent.
    pub contexts: Vec<ErrorContext>,
    /// The error data: nothing, the needed length of STATUS_BUFFER_TOO_SMALL, or a symbolic link error.
    pub data: Bytes,
}

const STRUCTURE_SIZE: u16 = 9;
const BUFFER: usize = Header::LEN + 8;

impl ErrorResponse {
    /// An error response that says no more than its status.
    pub const fn empty() -> ErrorResponse {
        ErrorResponse { contexts: Vec::new(), data: Bytes::new() }
    }

    /// `data` in the form that the connection's dialect has: in a context for 3.1.1, else plain.
    pub fn with_data(data: Bytes, contexts: bool) -> ErrorResponse {
        if contexts {
            ErrorResponse {
                contexts: vec![ErrorContext { id: ErrorContext::DEFAULT, data }],
                data: Bytes::new(),
            }
        } else {
            ErrorResponse { contexts: Vec::new(), data }
        }
    }

    /// The error data, wherever it stands: that of the first default context, or the plain one.
    pub fn error_data(&self) -> &Bytes {
        let context = self.contexts.iter().find(|context| context.id == ErrorContext::DEFAULT);
        context.map_or(&self.data, |context| &context.data)
    }

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<ErrorResponse, Malformed> {
        let body = parse::body(message, STRUCTURE_SIZE)?;
        let (_, (count, _reserved, length)) = (u8, u8, u32).parse(body)?;
        let data = buffer(message, BUFFER, length as usize, BUFFER)?;
        if count == 0 {
            return Ok(ErrorResponse { contexts: Vec::new(), data });
        }
        let mut contexts = Vec::new();
        let mut at = 0usize;
        for _ in 0..count {
            let (_, (length, id)) = (u32, u32).parse(data.get(at..).ok_or(Malformed::Truncated)?)?;
            let start = at + 8;
            let end = start.checked_add(length as usize).ok_or(Malformed::Offset)?;
            if end > data.len() {
                return Err(Malformed::Truncated);
            }
            contexts.push(ErrorContext { id, data: data.slice(start..end) });
            at = end.next_multiple_of(8);
        }
        Ok(ErrorResponse { contexts, data: Bytes::new() })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, STRUCTURE_SIZE);
        body.put_u8(self.contexts.len() as u8);
        body.put_u8(0);
        if self.contexts.is_empty() {
            body.put_u32_le(self.data.len() as u32);
            // 2.2.2: "If the ByteCount field is zero then the server MUST supply an ErrorData field that is one byte
            // in length".
            body.put_tail(&self.data);
            return;
        }
        let mut data = BytesMut::new();
        for context in &self.contexts {
            pad(&mut data, 0, 8);
            data.put_u32_le(context.data.len() as u32);
            data.put_u32_le(context.id);
            data.put_slice(&context.data);
        }
        body.put_u32_le(data.len() as u32);
        body.put_slice(&data);
    }
}

/// The data of STATUS_STOPPED_ON_SYMLINK: 2.2.2.2.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolicLinkError {
    /// How many bytes of the path that was asked for lie behind the link.
    pub unparsed_path_length: u16,
    /// Whether the target is relative (SYMLINK_FLAG_RELATIVE).
    pub relative: bool,
    /// Where the link leads.
    pub substitute_name: crate::Utf16,
    /// The same, as it is to be shown.
    pub print_name: crate::Utf16,
}

impl SymbolicLinkError {
    const TAG: u32 = 0x4C4D_5953;
    const REPARSE_TAG: u32 = 0xA000_000C;

    /// Parses error data.
    pub fn parse(data: &[u8]) -> Result<SymbolicLinkError, Malformed> {
        let (rest, (_length, tag, reparse_tag, _reparse_length)) = (u32, u32, u32, u16).parse(data)?;
        if tag != Self::TAG || reparse_tag != Self::REPARSE_TAG {
            return Err(Malformed::Value("symbolic link error tag"));
        }
        let (rest, (unparsed_path_length, substitute_at, substitute_length)) = (u16, u16, u16).parse(rest)?;
        let (paths, (print_at, print_length, flags)) = (u16, u16, u32).parse(rest)?;
        let path = |at: u16, length: u16| {
            let path = parse::buffer_ref(paths, usize::from(at), usize::from(length), 0)?;
            parse::utf16(path)
        };
        Ok(SymbolicLinkError {
            unparsed_path_length,
            relative: flags & 1 != 0,
            substitute_name: path(substitute_at, substitute_length)?,
            print_name: path(print_at, print_length)?,
        })
    }

    /// The error data. The names must have less than 64 KiB together.
    pub fn encode(&self) -> Bytes {
        let (substitute, print) = (self.substitute_name.byte_len(), self.print_name.byte_len());
        let mut out = BytesMut::with_capacity(28 + substitute + print);
        out.put_u32_le((24 + substitute + print) as u32);
        out.put_u32_le(Self::TAG);
        out.put_u32_le(Self::REPARSE_TAG);
        out.put_u16_le((12 + substitute + print) as u16);
        out.put_u16_le(self.unparsed_path_length);
        out.put_u16_le(0);
        out.put_u16_le(substitute as u16);
        out.put_u16_le(substitute as u16);
        out.put_u16_le(print as u16);
        out.put_u32_le(self.relative.into());
        crate::encode::put_utf16(&mut out, &self.substitute_name);
        crate::encode::put_utf16(&mut out, &self.print_name);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::{self, codec, hex};

    #[test]
    fn response() {
        codec("0900 00 00 00000000 00", &ErrorResponse::empty(), ErrorResponse::parse, ErrorResponse::encode);
        let response = ErrorResponse::with_data(Bytes::from_static(&[0x10, 0, 0, 0]), false);
        codec("0900 00 00 04000000 10000000", &response, ErrorResponse::parse, ErrorResponse::encode);
        assert_eq!(response.error_data().len(), 4);
    }

    #[test]
    fn response_with_contexts() {
        let response = ErrorResponse::with_data(Bytes::from_static(&[0x10, 0, 0, 0]), true);
        codec(
            "0900 01 00 0c000000 04000000 00000000 10000000",
            &response,
            ErrorResponse::parse,
            ErrorResponse::encode,
        );
        assert_eq!(response.error_data().len(), 4);
        let response = ErrorResponse {
            contexts: vec![
                ErrorContext { id: ErrorContext::SHARE_REDIRECT, data: Bytes::from_static(&[1]) },
                ErrorContext { id: ErrorContext::DEFAULT, data: Bytes::from_static(&[2]) },
            ],
            data: Bytes::new(),
        };
        codec(
            "0900 02 00 19000000 01000000 53526472 01 00000000000000 01000000 00000000 02",
            &response,
            ErrorResponse::parse,
            ErrorResponse::encode,
        );
        let huge = "0900 01 00 0c000000 ffffffff 00000000 10000000";
        assert_eq!(check::parse(huge, ErrorResponse::parse), Err(Malformed::Truncated));
        let many = "0900 ff 00 0c000000 04000000 00000000 10000000";
        assert_eq!(check::parse(many, ErrorResponse::parse), Err(Malformed::Truncated));
    }

    #[test]
    fn symbolic_link() {
        let error = SymbolicLinkError {
            unparsed_path_length: 6,
            relative: true,
            substitute_name: "ab".into(),
            print_name: "c".into(),
        };
        let bytes = hex("1e000000 53594d4c 0c0000a0 1200 0600 0000 0400 0400 0200 01000000 6100 6200 6300");
        assert_eq!(error.encode(), bytes);
        assert_eq!(SymbolicLinkError::parse(&bytes), Ok(error));
        for length in 0..bytes.len() {
            assert!(SymbolicLinkError::parse(&bytes[..length]).is_err(), "{length}");
        }
    }
}
