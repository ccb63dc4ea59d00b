//! SMB2 CREATE: 2.2.13 and 2.2.14; its contexts are in [`contexts`].

pub mod contexts;

pub use contexts::CreateContext;

use super::FileId;
use super::header::Header;
use crate::Malformed;
use crate::dtyp::FileTime;
use crate::encode::{Body, put_utf16};
use crate::flags::flags;
use crate::fscc::{AccessMask, FileAttributes};
use crate::parse::{self, Utf16, buffer_ref, u8, u16, u32, u64, utf16};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

flags! {
    /// ShareAccess: what others may do with the file meanwhile.
    pub struct ShareAccess: u32 {
        /// FILE_SHARE_READ.
        READ = 0x0000_0001;
        /// FILE_SHARE_WRITE.
        WRITE = 0x0000_0002;
        /// FILE_SHARE_DELETE.
        DELETE = 0x0000_0004;
    }

    /// CreateOptions.
    pub struct CreateOptions: u32 {
        /// FILE_DIRECTORY_FILE: it must be a directory.
        DIRECTORY_FILE = 0x0000_0001;
        /// FILE_WRITE_THROUGH: writes are answered when they are on stable storage.
        WRITE_THROUGH = 0x0000_0002;
        /// FILE_SEQUENTIAL_ONLY.
        SEQUENTIAL_ONLY = 0x0000_0004;
        /// FILE_NO_INTERMEDIATE_BUFFERING.
        NO_INTERMEDIATE_BUFFERING = 0x0000_0008;
        /// FILE_SYNCHRONOUS_IO_ALERT: to be ignored.
        SYNCHRONOUS_IO_ALERT = 0x0000_0010;
        /// FILE_SYNCHRONOUS_IO_NONALERT: to be ignored.
        SYNCHRONOUS_IO_NONALERT = 0x0000_0020;
        /// FILE_NON_DIRECTORY_FILE: it must not be a directory.
        NON_DIRECTORY_FILE = 0x0000_0040;
        /// FILE_CREATE_TREE_CONNECTION.
        CREATE_TREE_CONNECTION = 0x0000_0080;
        /// FILE_COMPLETE_IF_OPLOCKED: do not wait for a break.
        COMPLETE_IF_OPLOCKED = 0x0000_0100;
        /// FILE_NO_EA_KNOWLEDGE.
        NO_EA_KNOWLEDGE = 0x0000_0200;
        /// FILE_OPEN_REMOTE_INSTANCE.
        OPEN_REMOTE_INSTANCE = 0x0000_0400;
        /// FILE_RANDOM_ACCESS.
        RANDOM_ACCESS = 0x0000_0800;
        /// FILE_DELETE_ON_CLOSE.
        DELETE_ON_CLOSE = 0x0000_1000;
        /// FILE_OPEN_BY_FILE_ID: the name is a file id.
        OPEN_BY_FILE_ID = 0x0000_2000;
        /// FILE_OPEN_FOR_BACKUP_INTENT.
        OPEN_FOR_BACKUP_INTENT = 0x0000_4000;
        /// FILE_NO_COMPRESSION.
        NO_COMPRESSION = 0x0000_8000;
        /// FILE_OPEN_REQUIRING_OPLOCK.
        OPEN_REQUIRING_OPLOCK = 0x0001_0000;
        /// FILE_DISALLOW_EXCLUSIVE.
        DISALLOW_EXCLUSIVE = 0x0002_0000;
        /// FILE_RESERVE_OPFILTER.
        RESERVE_OPFILTER = 0x0010_0000;
        /// FILE_OPEN_REPARSE_POINT: open the reparse point itself.
        OPEN_REPARSE_POINT = 0x0020_0000;
        /// FILE_OPEN_NO_RECALL.
        OPEN_NO_RECALL = 0x0040_0000;
        /// FILE_OPEN_FOR_FREE_SPACE_QUERY.
        OPEN_FOR_FREE_SPACE_QUERY = 0x0080_0000;
    }
}

/// CreateDisposition: what to do if the file exists, and if it does not.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CreateDisposition {
    /// FILE_SUPERSEDE: replace it, or create it.
    Supersede = 0,
    /// FILE_OPEN: open it, or fail.
    Open = 1,
    /// FILE_CREATE: fail, or create it.
    Create = 2,
    /// FILE_OPEN_IF: open it, or create it.
    OpenIf = 3,
    /// FILE_OVERWRITE: empty it, or fail.
    Overwrite = 4,
    /// FILE_OVERWRITE_IF: empty it, or create it.
    OverwriteIf = 5,
}

impl TryFrom<u32> for CreateDisposition {
    type Error = Malformed;

    #[inline]
    fn try_from(value: u32) -> Result<CreateDisposition, Malformed> {
        Ok(match value {
            0 => CreateDisposition::Supersede,
            1 => CreateDisposition::Open,
            2 => CreateDisposition::Create,
            3 => CreateDisposition::OpenIf,
            4 => CreateDisposition::Overwrite,
            5 => CreateDisposition::OverwriteIf,
            _ => return Err(Malformed::Value("create disposition")),
        })
    }
}

/// Oplock levels, in requests, responses and breaks: 2.2.13.
pub mod oplock_level {
    /// SMB2_OPLOCK_LEVEL_NONE.
    pub const NONE: u8 = 0x00;
    /// SMB2_OPLOCK_LEVEL_II.
    pub const II: u8 = 0x01;
    /// SMB2_OPLOCK_LEVEL_EXCLUSIVE.
    pub const EXCLUSIVE: u8 = 0x08;
    /// SMB2_OPLOCK_LEVEL_BATCH.
    pub const BATCH: u8 = 0x09;
    /// SMB2_OPLOCK_LEVEL_LEASE: a lease context says the rest.
    pub const LEASE: u8 = 0xFF;
}

/// Asks for an open of a file, directory or pipe, made first if need be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateRequest {
    /// One of [`oplock_level`].
    pub requested_oplock_level: u8,
    /// Anonymous, identification, impersonation or delegate: 0 to 3.
    pub impersonation_level: u32,
    /// The rights asked for.
    pub desired_access: AccessMask,
    /// The attributes of a file that is made.
    pub file_attributes: FileAttributes,
    /// What others may do meanwhile.
    pub share_access: ShareAccess,
    /// The disposition as it stands; see [`CreateDisposition`].
    pub create_disposition: u32,
    /// Options.
    pub create_options: CreateOptions,
    /// The name, relative to the share's root, `\` between its components; empty for the root itself.
    pub name: Utf16,
    /// The contexts, in the order in which they stand.
    pub contexts: Vec<CreateContext>,
}

const REQUEST_SIZE: u16 = 57;
const REQUEST_BUFFER: usize = Header::LEN + 56;

impl CreateRequest {
    /// Parses the body of `message`, a whole message with its header.
    ///
    /// An empty name may stand at any offset. Context names must have at least 4 bytes.
    pub fn parse(message: &Bytes) -> Result<CreateRequest, Malformed> {
        let body = parse::body(message, REQUEST_SIZE)?;
        let (rest, (_security_flags, requested_oplock_level, impersonation_level)) =
            (u8, u8, u32).parse(body)?;
        let (rest, (_smb_create_flags, _reserved, desired_access, file_attributes)) =
            (u64, u64, u32, u32).parse(rest)?;
        let (rest, (share_access, create_disposition, create_options)) = (u32, u32, u32).parse(rest)?;
        let (_, (name_offset, name_length, contexts_offset, contexts_length)) =
            (u16, u16, u32, u32).parse(rest)?;
        let name = buffer_ref(message, name_offset.into(), name_length.into(), REQUEST_BUFFER)?;
        Ok(CreateRequest {
            requested_oplock_level,
            impersonation_level,
            desired_access: AccessMask(desired_access),
            file_attributes: FileAttributes(file_attributes),
            share_access: ShareAccess(share_access),
            create_disposition,
            create_options: CreateOptions(create_options),
            name: utf16(name)?,
            contexts: contexts::parse(
                message,
                contexts_offset as usize,
                contexts_length as usize,
                REQUEST_BUFFER,
            )?,
        })
    }

    /// Appends the body. The name must be shorter than 64 KiB.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, REQUEST_SIZE);
        body.put_u8(0);
        body.put_u8(self.requested_oplock_level);
        body.put_u32_le(self.impersonation_level);
        body.put_u64_le(0);
        body.put_u64_le(0);
        body.put_u32_le(self.desired_access.0);
        body.put_u32_le(self.file_attributes.0);
        body.put_u32_le(self.share_access.0);
        body.put_u32_le(self.create_disposition);
        body.put_u32_le(self.create_options.0);
        body.put_u16_le(REQUEST_BUFFER as u16);
        body.put_u16_le(self.name.byte_len() as u16);
        let contexts_at = body.offset();
        body.put_u64_le(0);
        put_utf16(&mut body, &self.name);
        if !self.contexts.is_empty() {
            put_contexts(&mut body, contexts_at, &self.contexts);
        } else if self.name.is_empty() {
            body.put_u8(0);
        }
    }
}

/// Appends `contexts`, aligned, and writes their offset and length at `fields`.
fn put_contexts(body: &mut Body<'_>, fields: usize, contexts: &[CreateContext]) {
    body.pad(8);
    let start = body.offset();
    contexts::encode(contexts, body);
    let length = body.offset() - start;
    body.patch_u32(fields, start as u32);
    body.patch_u32(fields + 4, length as u32);
}

/// The open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateResponse {
    /// One of [`oplock_level`].
    pub oplock_level: u8,
    /// [`CreateResponse::REPARSEPOINT`] or 0 (3.x).
    pub flags: u8,
    /// What was done: [`CreateResponse::OPENED`] and so on.
    pub create_action: u32,
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
    /// The open's name from here on.
    pub file_id: FileId,
    /// The contexts.
    pub contexts: Vec<CreateContext>,
}

const RESPONSE_SIZE: u16 = 89;
const RESPONSE_BUFFER: usize = Header::LEN + 88;

impl CreateResponse {
    /// FILE_SUPERSEDED: a file existed and was replaced.
    pub const SUPERSEDED: u32 = 0;
    /// FILE_OPENED: a file existed and was opened.
    pub const OPENED: u32 = 1;
    /// FILE_CREATED: the file was made.
    pub const CREATED: u32 = 2;
    /// FILE_OVERWRITTEN: a file existed and was emptied.
    pub const OVERWRITTEN: u32 = 3;

    /// SMB2_CREATE_FLAG_REPARSEPOINT: the last part of the path is a reparse point.
    pub const REPARSEPOINT: u8 = 0x01;

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<CreateResponse, Malformed> {
        let body = parse::body(message, RESPONSE_SIZE)?;
        let (rest, (oplock_level, flags, create_action)) = (u8, u8, u32).parse(body)?;
        let (rest, (creation_time, last_access_time, last_write_time, change_time)) =
            (u64, u64, u64, u64).parse(rest)?;
        let (rest, (allocation_size, end_of_file, file_attributes, _reserved2)) =
            (u64, u64, u32, u32).parse(rest)?;
        let (_, (file_id, contexts_offset, contexts_length)) = (FileId::parse, u32, u32).parse(rest)?;
        Ok(CreateResponse {
            oplock_level,
            flags,
            create_action,
            creation_time: FileTime(creation_time),
            last_access_time: FileTime(last_access_time),
            last_write_time: FileTime(last_write_time),
            change_time: FileTime(change_time),
            allocation_size,
            end_of_file,
            file_attributes: FileAttributes(file_attributes),
            file_id,
            contexts: contexts::parse(
                message,
                contexts_offset as usize,
                contexts_length as usize,
                RESPONSE_BUFFER,
            )?,
        })
    }

    /// Appends the body. Without contexts it ends with the fixed part, as Samba's does.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = Body::new(out, RESPONSE_SIZE);
        body.put_u8(self.oplock_level);
        body.put_u8(self.flags);
        body.put_u32_le(self.create_action);
        body.put_u64_le(self.creation_time.0);
        body.put_u64_le(self.last_access_time.0);
        body.put_u64_le(self.last_write_time.0);
        body.put_u64_le(self.change_time.0);
        body.put_u64_le(self.allocation_size);
        body.put_u64_le(self.end_of_file);
        body.put_u32_le(self.file_attributes.0);
        body.put_u32_le(0);
        self.file_id.encode(&mut body);
        let contexts_at = body.offset();
        body.put_u64_le(0);
        if !self.contexts.is_empty() {
            put_contexts(&mut body, contexts_at, &self.contexts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::{self, codec};

    fn request() -> CreateRequest {
        CreateRequest {
            requested_oplock_level: oplock_level::BATCH,
            impersonation_level: 2,
            desired_access: AccessMask(0x0012_0089),
            file_attributes: FileAttributes(0x80),
            share_access: ShareAccess::READ | ShareAccess::DELETE,
            create_disposition: CreateDisposition::OpenIf as u32,
            create_options: CreateOptions::NON_DIRECTORY_FILE,
            name: r"a\b".into(),
            contexts: vec![],
        }
    }

    const FIXED: &str = "3900 00 09 02000000 0000000000000000 0000000000000000 89001200 80000000
        05000000 03000000 40000000";

    #[test]
    fn request_known_bytes() {
        codec(
            &format!("{FIXED} 7800 0600 00000000 00000000 6100 5c00 6200"),
            &request(),
            CreateRequest::parse,
            CreateRequest::encode,
        );
        codec(
            &format!("{FIXED} 7800 0000 00000000 00000000 00"),
            &CreateRequest { name: Utf16::default(), ..request() },
            CreateRequest::parse,
            CreateRequest::encode,
        );
    }

    #[test]
    fn request_with_contexts() {
        let request = CreateRequest {
            contexts: vec![
                CreateContext { name: Bytes::from_static(b"MxAc"), data: Bytes::new() },
                CreateContext { name: Bytes::from_static(b"AlSi"), data: Bytes::from_static(&[1; 8]) },
            ],
            ..request()
        };
        codec(
            &format!(
                "{FIXED} 7800 0600 80000000 38000000 6100 5c00 6200 0000
                 18000000 1000 0400 0000 0000 00000000 4d784163 00000000
                 00000000 1000 0400 0000 1800 08000000 416c5369 00000000 0101010101010101"
            ),
            &request,
            CreateRequest::parse,
            CreateRequest::encode,
        );
    }

    #[test]
    fn lenient_where_windows_is() {
        let root = CreateRequest { name: Utf16::default(), ..request() };
        // NameOffset 0 for an empty name, and nothing at all behind the fixed part.
        let parsed = check::parse(&format!("{FIXED} 0000 0000 00000000 00000000"), CreateRequest::parse);
        assert_eq!(parsed, Ok(root));
        // A hole before the name, contexts of length 0 at any offset.
        let parsed = check::parse(
            &format!("{FIXED} 7a00 0600 ffff0000 00000000 eeee 6100 5c00 6200"),
            CreateRequest::parse,
        );
        assert_eq!(parsed, Ok(request()));
    }

    #[test]
    fn bad_names() {
        let parse = |fields: &str| {
            check::parse(&format!("{FIXED} {fields} 00000000 00000000 6100 5c00 6200"), CreateRequest::parse)
        };
        assert_eq!(parse("7800 0500"), Err(Malformed::Length));
        assert_eq!(parse("7700 0600"), Err(Malformed::Offset));
        assert_eq!(parse("4000 0600"), Err(Malformed::Offset));
        assert_eq!(parse("0000 0200"), Err(Malformed::Offset));
        assert_eq!(parse("7800 0800"), Err(Malformed::Offset));
        assert_eq!(parse("ffff ffff"), Err(Malformed::Offset));
    }

    #[test]
    fn contexts_outside_the_message() {
        let parse = |fields: &str| {
            check::parse(
                &format!(
                    "{FIXED} 7800 0000 {fields} 00000000 1000 0400 0000 0000 00000000 4d784163 00000000"
                ),
                CreateRequest::parse,
            )
        };
        assert!(parse("78000000 18000000").is_ok());
        assert_eq!(parse("78000000 19000000"), Err(Malformed::Offset));
        assert_eq!(parse("77000000 18000000"), Err(Malformed::Offset));
        assert_eq!(parse("00000000 18000000"), Err(Malformed::Offset));
        assert_eq!(parse("ffffffff ffffffff"), Err(Malformed::Offset));
        assert_eq!(parse("78000000 0f000000"), Err(Malformed::Truncated));
    }

    #[test]
    fn response() {
        let response = CreateResponse {
            oplock_level: oplock_level::II,
            flags: 0,
            create_action: CreateResponse::CREATED,
            creation_time: FileTime(1),
            last_access_time: FileTime(2),
            last_write_time: FileTime(3),
            change_time: FileTime(4),
            allocation_size: 0x1000,
            end_of_file: 0x123,
            file_attributes: FileAttributes(0x20),
            file_id: FileId { persistent: 5, volatile: 6 },
            contexts: vec![],
        };
        let fixed = "5900 01 00 02000000 0100000000000000 0200000000000000 0300000000000000 0400000000000000
             0010000000000000 2301000000000000 20000000 00000000 0500000000000000 0600000000000000";
        codec(
            &format!("{fixed} 00000000 00000000"),
            &response,
            CreateResponse::parse,
            CreateResponse::encode,
        );
        let contexts =
            vec![CreateContext { name: Bytes::from_static(b"MxAc"), data: Bytes::from_static(&[7; 8]) }];
        codec(
            &format!(
                "{fixed} 98000000 20000000
                 00000000 1000 0400 0000 1800 08000000 4d784163 00000000 0707070707070707"
            ),
            &CreateResponse { contexts, ..response },
            CreateResponse::parse,
            CreateResponse::encode,
        );
    }

    #[test]
    fn dispositions() {
        for value in 0..6 {
            assert_eq!(CreateDisposition::try_from(value).map(|disposition| disposition as u32), Ok(value));
        }
        assert_eq!(CreateDisposition::try_from(6), Err(Malformed::Value("create disposition")));
    }
}
