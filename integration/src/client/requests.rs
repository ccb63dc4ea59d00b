//! Requests with the fields that this client always fills alike.

use bytes::Bytes;
use shoal_protocol::Utf16;
use shoal_protocol::crypto::{Cipher, SigningAlgorithm};
use shoal_protocol::dtyp::Guid;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::smb2::{
    Capabilities, CloseRequest, CreateOptions, CreateRequest, EchoRequest, FileId, NegotiateContext,
    NegotiateRequest, QueryDirectoryRequest, QueryInfoRequest, ReadRequest, Request, SecurityMode, SessionId,
    SessionSetupRequest, SetInfoRequest, ShareAccess, WriteRequest,
};

use super::{Result, Trouble};

/// The NEGOTIATE that this client sends: 3.1.1 with AES-GMAC or AES-CMAC, and AES-128-GCM for who wants encryption.
pub fn negotiate() -> NegotiateRequest {
    let mut salt = [0; 32];
    shoal_protocol::crypto::random(&mut salt);
    let mut guid = [0; 16];
    shoal_protocol::crypto::random(&mut guid);
    NegotiateRequest {
        security_mode: SecurityMode::SIGNING_ENABLED,
        capabilities: Capabilities::LARGE_MTU | Capabilities::ENCRYPTION,
        client_guid: Guid(guid),
        dialects: vec![0x0311],
        contexts: vec![
            NegotiateContext::PreauthIntegrity {
                hash_algorithms: vec![1],
                salt: Bytes::copy_from_slice(&salt),
            },
            NegotiateContext::Encryption { ciphers: vec![Cipher::Aes128Gcm.id()] },
            NegotiateContext::Signing {
                algorithms: vec![SigningAlgorithm::AesGmac.id(), SigningAlgorithm::AesCmac.id()],
            },
        ],
    }
}

/// A SESSION_SETUP with this token.
pub fn session_setup(token: Bytes) -> SessionSetupRequest {
    SessionSetupRequest {
        flags: 0,
        security_mode: 1,
        capabilities: 0,
        channel: 0,
        previous_session_id: SessionId(0),
        buffer: token,
    }
}

/// A CREATE of `name` with full sharing: `disposition` and `options` as in MS-SMB2 2.2.13.
pub fn create(name: &str, access: u32, disposition: u32, options: u32) -> CreateRequest {
    CreateRequest {
        requested_oplock_level: 0,
        impersonation_level: 2,
        desired_access: AccessMask(access),
        file_attributes: FileAttributes(0),
        share_access: ShareAccess(7),
        create_disposition: disposition,
        create_options: CreateOptions(options),
        name: Utf16::from(name),
        contexts: Vec::new(),
    }
}

/// A CREATE of an existing file that goes when it is closed.
pub fn delete_on_close(name: &str) -> Request {
    const DELETE: u32 = 0x0001_0000;
    Request::Create(create(name, DELETE, 1, CreateOptions::DELETE_ON_CLOSE.0))
}

/// A CLOSE.
pub fn close(file_id: FileId) -> Request {
    Request::Close(CloseRequest { flags: 0, file_id })
}

/// An ECHO.
pub fn echo() -> Request {
    Request::Echo(EchoRequest {})
}

/// A READ.
pub fn read(file_id: FileId, offset: u64, length: u32) -> Request {
    Request::Read(ReadRequest { length, offset, file_id, ..ReadRequest::default() })
}

/// A WRITE.
pub fn write(file_id: FileId, offset: u64, data: Bytes) -> Request {
    Request::Write(WriteRequest { offset, file_id, data, ..WriteRequest::default() })
}

/// A SET_INFO of a file information class.
pub fn set_info(file_id: FileId, class: u8, buffer: Bytes) -> Request {
    Request::SetInfo(SetInfoRequest {
        info_type: 1,
        file_info_class: class,
        additional_information: 0,
        file_id,
        buffer,
    })
}

/// A QUERY_INFO of a file information class.
pub fn query_info(file_id: FileId, class: u8) -> Request {
    Request::QueryInfo(QueryInfoRequest {
        info_type: 1,
        file_info_class: class,
        output_buffer_length: 4096,
        file_id,
        ..QueryInfoRequest::default()
    })
}

/// A QUERY_DIRECTORY for all names, answered in at most `length` bytes, from the beginning if `restart`.
pub fn query_directory(file_id: FileId, class: u8, length: u32, restart: bool) -> Request {
    Request::QueryDirectory(QueryDirectoryRequest {
        file_information_class: class,
        flags: if restart { QueryDirectoryRequest::RESTART_SCANS } else { 0 },
        file_index: 0,
        file_id,
        output_buffer_length: length,
        search_pattern: Utf16::from("*"),
    })
}

/// FILE_RENAME_INFORMATION for SMB2 (MS-FSCC 2.4.42.2).
pub fn rename_information(name: &str, replace: bool) -> Bytes {
    let mut buffer = Vec::with_capacity(20 + 2 * name.len() + 4);
    buffer.extend_from_slice(&[u8::from(replace), 0, 0, 0, 0, 0, 0, 0]);
    buffer.extend_from_slice(&[0; 8]);
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    let length = (buffer.len() - 20) as u32;
    buffer[16..20].copy_from_slice(&length.to_le_bytes());
    // Windows wants at least the size of the structure with its padding.
    while buffer.len() < 24 {
        buffer.push(0);
    }
    Bytes::from(buffer)
}

/// Reads FILE_NAMES_INFORMATION entries (MS-FSCC 2.4.33), all but `.` and `..`.
pub fn names_of(buffer: &[u8], names: &mut Vec<String>) -> Result<()> {
    let short = || Trouble::Broken("a listing is cut short".to_owned());
    let number = |at: usize| -> Result<usize> {
        let bytes = buffer.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or_else(short)?;
        Ok(u32::from_le_bytes(*bytes) as usize)
    };
    let mut at = 0;
    loop {
        let (next, length) = (number(at)?, number(at + 8)?);
        let name = buffer.get(at + 12..at + 12 + length).ok_or_else(short)?;
        let units: Vec<u16> =
            name.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        let name = String::from_utf16_lossy(&units);
        if name != "." && name != ".." {
            names.push(name);
        }
        if next == 0 {
            return Ok(());
        }
        at += next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_has_its_length_and_its_least_size() {
        let short = rename_information("a", true);
        assert_eq!(short.len(), 24);
        assert_eq!((short[0], &short[16..22]), (1, &[2, 0, 0, 0, b'a', 0][..]));
        let long = rename_information("dir\\name", false);
        assert_eq!((long[0], long[16], long.len()), (0, 16, 36));
    }

    #[test]
    fn a_listing_that_is_cut_short_is_an_error() {
        let mut entry = vec![0; 12];
        entry[8] = 4;
        entry.extend_from_slice(&[b'a', 0, b'b', 0]);
        let mut names = Vec::new();
        names_of(&entry, &mut names).expect("is whole");
        assert_eq!(names, ["ab"]);
        for length in 0..entry.len() {
            assert!(names_of(&entry[..length], &mut Vec::new()).is_err(), "{length}");
        }
    }
}
