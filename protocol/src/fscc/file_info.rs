//! File information classes: MS-FSCC 2.4. (Those that list a directory: [`super::directory_info`].) Its subsections are
//! in the order of the names and are numbered anew in each edition, so the names are cited here.
//!
//! A structure has `parse` where a client sets it or our own client reads it, and `encode` for the other way. Lengths
//! and offsets are never fields: they are made when encoding and checked when parsing.

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

use super::chain::{Chain, Entries};
use super::fixed::fixed;
use super::{AccessMask, FileAttributes};
use crate::Malformed;
use crate::dtyp::FileTime;
use crate::encode::put_utf16;
use crate::flags::flags;
use crate::parse::{self, Utf16};

macro_rules! classes {
    ($( $(#[$doc:meta])* $name:ident = $value:literal, least $least:literal; )*) => {
        /// The classes of MS-FSCC 2.4, by number.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FileInformationClass {
            $( $(#[$doc])* $name = $value, )*
        }

        impl FileInformationClass {
            /// The least OutputBufferLength (in bytes) with which a query of the class can be answered, if only in
            /// part: below it the answer is STATUS_INFO_LENGTH_MISMATCH (MS-SMB2 3.3.5.20.1). It is the size that
            /// the structure has in memory on Windows, where a name counts as one unit. 0: not queried this way.
            pub const fn least_len(self) -> usize {
                match self { $( FileInformationClass::$name => $least, )* }
            }
        }

        impl TryFrom<u8> for FileInformationClass {
            type Error = Malformed;

            fn try_from(value: u8) -> Result<FileInformationClass, Malformed> {
                match value {
                    $( $value => Ok(FileInformationClass::$name), )*
                    _ => Err(Malformed::Value("file information class")),
                }
            }
        }
    };
}

classes! {
    /// FileDirectoryInformation, lists a directory.
    Directory = 1, least 0;
    /// FileFullDirectoryInformation, lists a directory.
    FullDirectory = 2, least 0;
    /// FileBothDirectoryInformation, lists a directory.
    BothDirectory = 3, least 0;
    /// FileBasicInformation.
    Basic = 4, least 40;
    /// FileStandardInformation.
    Standard = 5, least 24;
    /// FileInternalInformation.
    Internal = 6, least 8;
    /// FileEaInformation.
    Ea = 7, least 4;
    /// FileAccessInformation.
    Access = 8, least 4;
    /// FileNameInformation.
    Name = 9, least 8;
    /// FileRenameInformation.
    Rename = 10, least 0;
    /// FileLinkInformation.
    Link = 11, least 0;
    /// FileNamesInformation, lists a directory.
    Names = 12, least 0;
    /// FileDispositionInformation.
    Disposition = 13, least 0;
    /// FilePositionInformation.
    Position = 14, least 8;
    /// FileFullEaInformation.
    FullEa = 15, least 0;
    /// FileModeInformation.
    Mode = 16, least 4;
    /// FileAlignmentInformation.
    Alignment = 17, least 4;
    /// FileAllInformation.
    All = 18, least 104;
    /// FileAllocationInformation.
    Allocation = 19, least 0;
    /// FileEndOfFileInformation.
    EndOfFile = 20, least 0;
    /// FileAlternateNameInformation.
    AlternateName = 21, least 8;
    /// FileStreamInformation.
    Stream = 22, least 32;
    /// FilePipeInformation.
    Pipe = 23, least 8;
    /// FilePipeLocalInformation.
    PipeLocal = 24, least 40;
    /// FilePipeRemoteInformation.
    PipeRemote = 25, least 16;
    /// FileCompressionInformation.
    Compression = 28, least 16;
    /// FileObjectIdInformation.
    ObjectId = 29, least 0;
    /// FileQuotaInformation.
    Quota = 32, least 0;
    /// FileReparsePointInformation.
    ReparsePoint = 33, least 0;
    /// FileNetworkOpenInformation.
    NetworkOpen = 34, least 56;
    /// FileAttributeTagInformation.
    AttributeTag = 35, least 8;
    /// FileIdBothDirectoryInformation, lists a directory.
    IdBothDirectory = 37, least 0;
    /// FileIdFullDirectoryInformation, lists a directory.
    IdFullDirectory = 38, least 0;
    /// FileValidDataLengthInformation.
    ValidDataLength = 39, least 0;
    /// FileShortNameInformation.
    ShortName = 40, least 0;
    /// FileHardLinkInformation, local only.
    HardLink = 46, least 0;
    /// FileNormalizedNameInformation.
    NormalizedName = 48, least 8;
    /// FileIdGlobalTxDirectoryInformation, lists a directory.
    IdGlobalTxDirectory = 50, least 0;
    /// FileStandardLinkInformation.
    StandardLink = 54, least 12;
    /// FileIdInformation.
    Id = 59, least 24;
    /// FileIdExtdDirectoryInformation, lists a directory.
    IdExtdDirectory = 60, least 0;
    /// FileIdExtdBothDirectoryInformation.
    IdExtdBothDirectory = 63, least 0;
    /// FileDispositionInformationEx.
    DispositionEx = 64, least 0;
    /// FileRenameInformationEx.
    RenameEx = 65, least 0;
    /// FileStatInformation.
    Stat = 68, least 72;
    /// FileCaseSensitiveInformation.
    CaseSensitive = 71, least 4;
    /// FileLinkInformationEx.
    LinkEx = 72, least 0;
}

impl FileInformationClass {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

fixed! {
    /// FileBasicInformation (4), query and set: MS-FSCC 2.4.7. In a set, a time of 0 and attributes of 0 mean "leave
    /// it"; for -1 and -2 see [`FileTime`].
    pub struct BasicInformation [40] {
        /// When the file was created.
        creation_time: FileTime,
        /// When it was last read.
        last_access_time: FileTime,
        /// When its data was last written.
        last_write_time: FileTime,
        /// When anything of it last changed.
        change_time: FileTime,
        /// Its attributes.
        file_attributes: FileAttributes,
    }

    /// FileStandardInformation (5), query: MS-FSCC 2.4.
    pub struct StandardInformation [24] {
        /// Bytes set aside for the file.
        allocation_size: u64,
        /// Bytes of data.
        end_of_file: u64,
        /// Names that the file has. NTFS says 0 once deletion is pending.
        number_of_links: u32,
        /// Whether the file goes with its last handle.
        delete_pending: bool,
        /// Whether it is a directory.
        directory: bool,
    }

    /// FileInternalInformation (6), query: MS-FSCC 2.4.
    pub struct InternalInformation [8] {
        /// The file's number, unique in the volume.
        index_number: u64,
    }

    /// FileEaInformation (7), query: MS-FSCC 2.4.
    pub struct EaInformation [4] {
        /// Bytes of the extended attributes.
        ea_size: u32,
    }

    /// FileAccessInformation (8), query: MS-FSCC 2.4.1.
    pub struct AccessInformation [4] {
        /// The rights that the handle was granted.
        access_flags: AccessMask,
    }

    /// FilePositionInformation (14), query and set: MS-FSCC 2.4.
    pub struct PositionInformation [8] {
        /// Bytes from the file's start; of no effect in SMB2, but kept.
        current_byte_offset: u64,
    }

    /// FileModeInformation (16), query and set: MS-FSCC 2.4.
    pub struct ModeInformation [4] {
        /// Those of the create options that can change: see [`MODE_VALID`].
        mode: u32,
    }

    /// FileAlignmentInformation (17), query: MS-FSCC 2.4.3.
    pub struct AlignmentInformation [4] {
        /// The alignment that buffers need, less one: 0 is a byte, 7 is eight bytes.
        alignment_requirement: u32,
    }

    /// FileAllocationInformation (19), set: MS-FSCC 2.4.4.
    pub struct AllocationInformation [8] {
        /// Bytes to set aside; fewer than the data has cuts the data.
        allocation_size: u64,
    }

    /// FileEndOfFileInformation (20), set: MS-FSCC 2.4.
    pub struct EndOfFileInformation [8] {
        /// The new length of the data in bytes.
        end_of_file: u64,
    }

    /// FileValidDataLengthInformation (39), set: MS-FSCC 2.4.
    pub struct ValidDataLengthInformation [8] {
        /// Bytes from the start that are really written.
        valid_data_length: u64,
    }

    /// FileDispositionInformation (13), set: MS-FSCC 2.4.
    pub struct DispositionInformation [1] {
        /// Whether the file is to go with its last handle.
        delete_pending: bool,
    }

    /// FileDispositionInformationEx (64), set.
    pub struct DispositionInformationEx [4] {
        /// What is to happen, raw: see [`DispositionFlags`].
        flags: u32,
    }

    /// FilePipeInformation (23), query and set: MS-FSCC 2.4.
    pub struct PipeInformation [8] {
        /// 0: a stream of bytes, 1: messages.
        read_mode: u32,
        /// 0: operations wait, 1: they do not.
        completion_mode: u32,
    }

    /// FilePipeLocalInformation (24), query: MS-FSCC 2.4.
    pub struct PipeLocalInformation [40] {
        /// 0: a stream of bytes, 1: messages.
        named_pipe_type: u32,
        /// 0: client to server, 1: server to client, 2: both ways.
        named_pipe_configuration: u32,
        /// The most instances; 0xFFFF_FFFF: no bound.
        maximum_instances: u32,
        /// Instances now.
        current_instances: u32,
        /// Bytes that wait on the way in at most.
        inbound_quota: u32,
        /// Bytes that can be read.
        read_data_available: u32,
        /// Bytes that wait on the way out at most.
        outbound_quota: u32,
        /// Bytes that can be written.
        write_quota_available: u32,
        /// 1: disconnected, 2: listening, 3: connected, 4: closing.
        named_pipe_state: u32,
        /// 0: the client's end, 1: the server's.
        named_pipe_end: u32,
    }

    /// FileCompressionInformation (28), query: MS-FSCC 2.4.
    pub struct CompressionInformation [16] {
        /// Bytes of the data as it is stored.
        compressed_file_size: u64,
        /// 0: none, 2: LZNT1.
        compression_format: u16,
        /// Binary logarithm of the compression unit.
        compression_unit_shift: u8,
        /// Binary logarithm of the chunk.
        chunk_shift: u8,
        /// Binary logarithm of the cluster.
        cluster_shift: u8,
    }

    /// FileNetworkOpenInformation (34), query: MS-FSCC 2.4.
    pub struct NetworkOpenInformation [56] {
        /// When the file was created.
        creation_time: FileTime,
        /// When it was last read.
        last_access_time: FileTime,
        /// When its data was last written.
        last_write_time: FileTime,
        /// When anything of it last changed.
        change_time: FileTime,
        /// Bytes set aside for the file.
        allocation_size: u64,
        /// Bytes of data.
        end_of_file: u64,
        /// Its attributes.
        file_attributes: FileAttributes,
    }

    /// FileAttributeTagInformation (35), query: MS-FSCC 2.4.6.
    pub struct AttributeTagInformation [8] {
        /// The file's attributes.
        file_attributes: FileAttributes,
        /// What kind of reparse point it is, if it is one; else 0.
        reparse_tag: u32,
    }

    /// FileStandardLinkInformation (54), query: MS-FSCC 2.4.
    pub struct StandardLinkInformation [12] {
        /// Names that are not pending deletion.
        number_of_accessible_links: u32,
        /// Names in all.
        total_number_of_links: u32,
        /// Whether the file goes with its last handle.
        delete_pending: bool,
        /// Whether it is a directory.
        directory: bool,
    }

    /// FileIdInformation (59), query: MS-FSCC 2.4.
    pub struct IdInformation [24] {
        /// The volume's number.
        volume_serial_number: u64,
        /// The file's number of 128 bits.
        file_id: [u8; 16],
    }

    /// FileStatInformation (68), query.
    pub struct StatInformation [72] {
        /// The file's number.
        file_id: u64,
        /// When the file was created.
        creation_time: FileTime,
        /// When it was last read.
        last_access_time: FileTime,
        /// When its data was last written.
        last_write_time: FileTime,
        /// When anything of it last changed.
        change_time: FileTime,
        /// Bytes set aside for the file.
        allocation_size: u64,
        /// Bytes of data.
        end_of_file: u64,
        /// Its attributes.
        file_attributes: FileAttributes,
        /// What kind of reparse point it is, if it is one; else 0.
        reparse_tag: u32,
        /// Names that the file has.
        number_of_links: u32,
        /// The rights that the caller has.
        effective_access: AccessMask,
    }

    /// FileCaseSensitiveInformation (71), query and set.
    pub struct CaseSensitiveInformation [4] {
        /// 1: names in this directory differ by case.
        flags: u32,
    }
}

/// The bits that a mode may have (MS-FSCC 2.4): FILE_WRITE_THROUGH, SEQUENTIAL_ONLY, NO_INTERMEDIATE_BUFFERING,
/// SYNCHRONOUS_IO_ALERT, SYNCHRONOUS_IO_NONALERT and DELETE_ON_CLOSE of the create options.
pub const MODE_VALID: u32 = 0x0000_103E;

flags! {
    /// Flags of FileDispositionInformationEx.
    pub struct DispositionFlags: u32 {
        /// Delete; without it, no longer delete.
        DELETE = 0x01;
        /// The name goes when this handle is closed, whoever else has the file open.
        POSIX_SEMANTICS = 0x02;
        /// Check first that no program runs from the file.
        FORCE_IMAGE_SECTION_CHECK = 0x04;
        /// DELETE sets or clears the handle's delete-on-close instead.
        ON_CLOSE = 0x08;
        /// Even if the file is read-only.
        IGNORE_READONLY_ATTRIBUTE = 0x10;
    }

    /// Flags of FileRenameInformationEx (MS-FSCC 2.4) and FileLinkInformationEx.
    pub struct RenameFlags: u32 {
        /// What has the new name is replaced.
        REPLACE_IF_EXISTS = 0x01;
        /// Even if it is open.
        POSIX_SEMANTICS = 0x02;
        /// The pin state does not come from the new parent.
        SUPPRESS_PIN_STATE_INHERITANCE = 0x04;
        /// Storage reserves do not come from the new parent.
        SUPPRESS_STORAGE_RESERVE_INHERITANCE = 0x08;
        /// Reserved space need not grow.
        NO_INCREASE_AVAILABLE_SPACE = 0x10;
        /// Reserved space need not shrink.
        NO_DECREASE_AVAILABLE_SPACE = 0x20;
        /// Even if what has the name is read-only.
        IGNORE_READONLY_ATTRIBUTE = 0x40;
    }
}

/// A name behind its length of 32 bits.
fn counted_name(input: &[u8]) -> Result<Utf16, Malformed> {
    let (rest, length) = parse::u32(input)?;
    let (_, name) = parse::take(length as usize)(rest)?;
    parse::utf16(name)
}

fn put_counted_name(out: &mut BytesMut, name: &[u16]) {
    out.put_u32_le((name.len() * 2) as u32);
    put_utf16(out, name);
}

macro_rules! names {
    ($( $(#[$about:meta])* $name:ident; )*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            /// The name, not terminated.
            pub file_name: Utf16,
        }

        impl $name {
            /// Reads the structure at the start of `input`; what follows is ignored.
            ///
            /// Errors: `Truncated`; `Length` for half a unit.
            pub fn parse(input: &[u8]) -> Result<$name, Malformed> {
                Ok($name { file_name: counted_name(input)? })
            }

            /// Appends the structure.
            pub fn encode(&self, out: &mut BytesMut) {
                put_counted_name(out, &self.file_name);
            }
        }
    )*};
}

names! {
    /// FileNameInformation (9; over SMB2 as a part of class 18 only): MS-FSCC 2.4. The path in the share, with `\` first.
    NameInformation;
    /// FileAlternateNameInformation (21), query: MS-FSCC 2.4.5. The 8.3 name.
    AlternateNameInformation;
    /// FileNormalizedNameInformation (48), query: MS-FSCC 2.4. The path in the share, without `\` first.
    NormalizedNameInformation;
    /// FileShortNameInformation (40), set: MS-FSCC 2.4. The 8.3 name.
    ShortNameInformation;
}

/// FileAllInformation (18), query: MS-FSCC 2.4.2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllInformation {
    /// Class 4.
    pub basic: BasicInformation,
    /// Class 5.
    pub standard: StandardInformation,
    /// Class 6.
    pub internal: InternalInformation,
    /// Class 7.
    pub ea: EaInformation,
    /// Class 8.
    pub access: AccessInformation,
    /// Class 14.
    pub position: PositionInformation,
    /// Class 16.
    pub mode: ModeInformation,
    /// Class 17.
    pub alignment: AlignmentInformation,
    /// Class 9.
    pub name: NameInformation,
}

impl AllInformation {
    /// Bytes of all but the name and its length.
    pub const FIXED: usize = 96;

    /// Reads the structure at the start of `input`; what follows is ignored.
    ///
    /// Errors: `Truncated`; `Length` for half a unit in the name.
    pub fn parse(input: &[u8]) -> Result<AllInformation, Malformed> {
        if input.len() < AllInformation::FIXED {
            return Err(Malformed::Truncated);
        }
        Ok(AllInformation {
            basic: BasicInformation::parse(input)?,
            standard: StandardInformation::parse(&input[40..])?,
            internal: InternalInformation::parse(&input[64..])?,
            ea: EaInformation::parse(&input[72..])?,
            access: AccessInformation::parse(&input[76..])?,
            position: PositionInformation::parse(&input[80..])?,
            mode: ModeInformation::parse(&input[88..])?,
            alignment: AlignmentInformation::parse(&input[92..])?,
            name: NameInformation::parse(&input[96..])?,
        })
    }

    /// Appends the structure.
    pub fn encode(&self, out: &mut BytesMut) {
        self.basic.encode(out);
        self.standard.encode(out);
        self.internal.encode(out);
        self.ea.encode(out);
        self.access.encode(out);
        self.position.encode(out);
        self.mode.encode(out);
        self.alignment.encode(out);
        self.name.encode(out);
    }
}

/// The common form of classes 10, 11, 65 and 72: flags, a root, a name.
fn parse_rename(input: &[u8]) -> Result<(u32, u64, Utf16), Malformed> {
    let (rest, (flags, _reserved, root)) = (parse::u32, parse::u32, parse::u64).parse(input)?;
    Ok((flags, root, counted_name(rest)?))
}

/// SMB2 wants at least 24 bytes of these classes, which is what the structure takes in memory on Windows.
const RENAME_LEAST: usize = 24;

fn put_rename(out: &mut BytesMut, flags: u32, root: u64, name: &[u16]) {
    let start = out.len();
    out.put_u32_le(flags);
    out.put_u32_le(0);
    out.put_u64_le(root);
    put_counted_name(out, name);
    let written = out.len() - start;
    out.put_bytes(0, RENAME_LEAST.saturating_sub(written));
}

macro_rules! renames {
    ($( $(#[$about:meta])* $name:ident; )*) => {$(
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            /// Whether what has the new name is replaced.
            pub replace_if_exists: bool,
            /// Always 0 over the network.
            pub root_directory: u64,
            /// The new path, counted from the share's root; behind a `:` the new name of a stream.
            pub file_name: Utf16,
        }

        impl $name {
            /// Reads the structure at the start of `input`; what follows is ignored.
            ///
            /// Errors: `Truncated`; `Length` for half a unit in the name.
            pub fn parse(input: &[u8]) -> Result<$name, Malformed> {
                let (flags, root_directory, file_name) = parse_rename(input)?;
                // ReplaceIfExists is one byte; the other three are reserved.
                Ok($name { replace_if_exists: flags & 0xFF != 0, root_directory, file_name })
            }

            /// Appends the structure.
            pub fn encode(&self, out: &mut BytesMut) {
                put_rename(out, u32::from(self.replace_if_exists), self.root_directory, &self.file_name);
            }
        }
    )*};
}

renames! {
    /// FileRenameInformation for SMB2 (10), set: MS-FSCC 2.4.
    RenameInformation;
    /// FileLinkInformation for SMB2 (11), set: MS-FSCC 2.4.
    LinkInformation;
}

/// FileRenameInformationEx (65) and FileLinkInformationEx (72), set: MS-FSCC 2.4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenameInformationEx {
    /// How.
    pub flags: RenameFlags,
    /// Always 0 over the network.
    pub root_directory: u64,
    /// The new path, counted from the share's root.
    pub file_name: Utf16,
}

impl RenameInformationEx {
    /// Reads the structure at the start of `input`; what follows is ignored.
    ///
    /// Errors: `Truncated`; `Length` for half a unit in the name.
    pub fn parse(input: &[u8]) -> Result<RenameInformationEx, Malformed> {
        let (flags, root_directory, file_name) = parse_rename(input)?;
        Ok(RenameInformationEx { flags: RenameFlags(flags), root_directory, file_name })
    }

    /// Appends the structure.
    pub fn encode(&self, out: &mut BytesMut) {
        put_rename(out, self.flags.0, self.root_directory, &self.file_name);
    }
}

/// One stream of FileStreamInformation (22): MS-FSCC 2.4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamInformation {
    /// Bytes of data.
    pub stream_size: u64,
    /// Bytes set aside.
    pub stream_allocation_size: u64,
    /// Its full name: `::$DATA` for the unnamed one, `:name:$DATA`.
    pub stream_name: Utf16,
}

impl StreamInformation {
    /// Bytes of an entry before its name.
    const FIXED: usize = 24;

    /// Reads all streams of a reply.
    ///
    /// Errors: `Truncated`, `Offset`, `Alignment`, and `Length` for half a unit in a name.
    pub fn parse_all(input: &[u8]) -> Result<Vec<StreamInformation>, Malformed> {
        let mut streams = Vec::new();
        for entry in Entries::new(input, 8, StreamInformation::FIXED) {
            let (rest, (length, stream_size, stream_allocation_size)) =
                (parse::u32, parse::u64, parse::u64).parse(entry?)?;
            let (_, name) = parse::take(length as usize)(rest)?;
            let stream_name = parse::utf16(name)?;
            streams.push(StreamInformation { stream_size, stream_allocation_size, stream_name });
        }
        Ok(streams)
    }
}

/// Writes FileStreamInformation (22), at most as long as the client's buffer.
#[derive(Debug)]
pub struct StreamEncoder(Chain);

impl StreamEncoder {
    /// An empty list of at most `limit` bytes.
    pub fn new(limit: usize) -> StreamEncoder {
        StreamEncoder(Chain::new(8, limit))
    }

    /// Appends a stream, unless it does not fit: then it gives false, and the reply is STATUS_BUFFER_OVERFLOW with
    /// the streams before it.
    pub fn push(&mut self, stream: &StreamInformation) -> bool {
        self.0.push(StreamInformation::FIXED + stream.stream_name.byte_len(), |out| {
            out.put_u32_le(stream.stream_name.byte_len() as u32);
            out.put_u64_le(stream.stream_size);
            out.put_u64_le(stream.stream_allocation_size);
            put_utf16(out, &stream.stream_name);
        })
    }

    /// Whether there is no stream yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The list.
    pub fn finish(self) -> Bytes {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Encodes, compares with the known bytes, parses, and cuts at every length that the fields need.
    macro_rules! known {
        ($name:ident { $($field:ident: $value:expr),* $(,)? } => $bytes:expr) => {{
            let value = $name { $($field: $value),* };
            let bytes: Vec<u8> = $bytes.to_vec();
            let mut out = BytesMut::new();
            value.encode(&mut out);
            assert_eq!(out[..], bytes[..], stringify!($name));
            assert_eq!($name::LEN, bytes.len());
            assert_eq!($name::parse(&bytes), Ok(value));
            for length in 0..$name::LEN - $name::RESERVED {
                assert_eq!($name::parse(&bytes[..length]), Err(Malformed::Truncated));
            }
            bytes
        }};
    }

    fn concat(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    const TIMES: [u8; 32] =
        [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn known_bytes() {
        let basic = known!(BasicInformation {
            creation_time: FileTime(1), last_access_time: FileTime(2), last_write_time: FileTime(3),
            change_time: FileTime(4), file_attributes: FileAttributes::ARCHIVE,
        } => concat(&[&TIMES, &[0x20, 0, 0, 0], &[0; 4]]));
        let standard = known!(StandardInformation {
            allocation_size: 0x1000, end_of_file: 5, number_of_links: 2, delete_pending: true, directory: false,
        } => [0, 0x10, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]);
        let internal = known!(InternalInformation { index_number: 7 } => [7, 0, 0, 0, 0, 0, 0, 0]);
        let ea = known!(EaInformation { ea_size: 8 } => [8, 0, 0, 0]);
        let access = known!(AccessInformation { access_flags: AccessMask(0x1f01ff) } => [0xff, 1, 0x1f, 0]);
        let position = known!(PositionInformation { current_byte_offset: 9 } => [9, 0, 0, 0, 0, 0, 0, 0]);
        let mode = known!(ModeInformation { mode: 2 } => [2, 0, 0, 0]);
        let alignment = known!(AlignmentInformation { alignment_requirement: 0 } => [0; 4]);
        known!(AllocationInformation { allocation_size: 9 } => [9, 0, 0, 0, 0, 0, 0, 0]);
        known!(EndOfFileInformation { end_of_file: 9 } => [9, 0, 0, 0, 0, 0, 0, 0]);
        known!(ValidDataLengthInformation { valid_data_length: 9 } => [9, 0, 0, 0, 0, 0, 0, 0]);
        known!(DispositionInformation { delete_pending: true } => [1]);
        known!(DispositionInformationEx { flags: 0x13 } => [0x13, 0, 0, 0]);
        known!(PipeInformation { read_mode: 1, completion_mode: 0 } => [1, 0, 0, 0, 0, 0, 0, 0]);
        known!(CompressionInformation {
            compressed_file_size: 9, compression_format: 2, compression_unit_shift: 16, chunk_shift: 12, cluster_shift: 11,
        } => [9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 16, 12, 11, 0, 0, 0]);
        known!(NetworkOpenInformation {
            creation_time: FileTime(1), last_access_time: FileTime(2), last_write_time: FileTime(3),
            change_time: FileTime(4), allocation_size: 5, end_of_file: 6, file_attributes: FileAttributes(7),
        } => concat(&[&TIMES, &[5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]]));
        known!(AttributeTagInformation {
            file_attributes: FileAttributes::REPARSE_POINT, reparse_tag: 0xA000_000C,
        } => [0, 4, 0, 0, 0x0C, 0, 0, 0xA0]);
        known!(StandardLinkInformation {
            number_of_accessible_links: 1, total_number_of_links: 2, delete_pending: false, directory: true,
        } => [1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0]);
        known!(IdInformation { volume_serial_number: 1, file_id: [9; 16] } => concat(&[&[1, 0, 0, 0, 0, 0, 0, 0], &[9; 16]]));
        known!(CaseSensitiveInformation { flags: 1 } => [1, 0, 0, 0]);

        let name = [6, 0, 0, 0, b'\\', 0, b'a', 0, b'b', 0];
        let whole =
            concat(&[&basic, &standard, &internal, &ea, &access, &position, &mode, &alignment, &name]);
        let all = AllInformation::parse(&whole).unwrap();
        assert_eq!(all.name.file_name, Utf16::from_str("\\ab"));
        let mut out = BytesMut::new();
        all.encode(&mut out);
        assert_eq!(out[..], whole[..]);
        for length in 0..whole.len() {
            assert_eq!(AllInformation::parse(&whole[..length]), Err(Malformed::Truncated));
        }
    }

    #[test]
    fn basic_without_its_reserved_end() {
        assert!(BasicInformation::parse(&[0; 36]).is_ok());
        assert_eq!(BasicInformation::parse(&[0; 35]), Err(Malformed::Truncated));
    }

    #[test]
    fn rename() {
        let bytes = [
            1, 0xEE, 0xEE, 0xEE, 0xEE, 0xEE, 0xEE, 0xEE, // ReplaceIfExists, Reserved
            0, 0, 0, 0, 0, 0, 0, 0, // RootDirectory
            4, 0, 0, 0, b'x', 0, b'y', 0,
        ];
        let rename = RenameInformation::parse(&bytes).unwrap();
        assert_eq!(
            rename,
            RenameInformation {
                replace_if_exists: true,
                root_directory: 0,
                file_name: Utf16::from_str("xy")
            }
        );
        for length in 0..bytes.len() {
            assert_eq!(RenameInformation::parse(&bytes[..length]), Err(Malformed::Truncated));
        }
        let mut odd = bytes;
        odd[16] = 3;
        assert_eq!(LinkInformation::parse(&odd), Err(Malformed::Length));
        let mut long = bytes;
        long[19] = 0xFF;
        assert_eq!(LinkInformation::parse(&long), Err(Malformed::Truncated));

        let mut out = BytesMut::new();
        LinkInformation { file_name: Utf16::from_str("z"), ..Default::default() }.encode(&mut out);
        assert_eq!(out.len(), RENAME_LEAST);
        assert_eq!(LinkInformation::parse(&out).unwrap().file_name, Utf16::from_str("z"));

        let ex = RenameInformationEx {
            flags: RenameFlags::REPLACE_IF_EXISTS | RenameFlags::POSIX_SEMANTICS,
            root_directory: 0,
            file_name: Utf16::from_str("abc"),
        };
        let mut out = BytesMut::new();
        ex.encode(&mut out);
        assert_eq!(out[0], 3);
        assert_eq!(RenameInformationEx::parse(&out), Ok(ex));
    }

    #[test]
    fn streams() {
        let streams = ["::$DATA", ":ab:$DATA"].map(|name| StreamInformation {
            stream_size: 3,
            stream_allocation_size: 4096,
            stream_name: Utf16::from_str(name),
        });
        let mut encoder = StreamEncoder::new(82);
        assert!(streams.iter().all(|stream| encoder.push(stream)));
        let bytes = encoder.finish();
        assert_eq!(bytes.len(), 40 + 42);
        assert_eq!(bytes[..8], [40, 0, 0, 0, 14, 0, 0, 0]);
        assert_eq!(StreamInformation::parse_all(&bytes).unwrap(), streams);
        for length in 1..bytes.len() {
            assert!(StreamInformation::parse_all(&bytes[..length]).is_err());
        }
        let mut encoder = StreamEncoder::new(81);
        assert!(encoder.push(&streams[0]) && !encoder.push(&streams[1]));
        assert_eq!(StreamInformation::parse_all(&encoder.finish()).unwrap(), streams[..1]);
        assert_eq!(StreamInformation::parse_all(&[]), Ok(vec![]));
    }

    #[test]
    fn class_numbers() {
        for number in 0..=255 {
            if let Ok(class) = FileInformationClass::try_from(number) {
                assert_eq!(class.number(), number);
            }
        }
        assert_eq!(FileInformationClass::try_from(18), Ok(FileInformationClass::All));
        assert!(FileInformationClass::try_from(0).is_err());
    }

    proptest! {
        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            let _ = BasicInformation::parse(&bytes);
            let _ = AllInformation::parse(&bytes);
            let _ = RenameInformation::parse(&bytes);
            let _ = RenameInformationEx::parse(&bytes);
            let _ = NameInformation::parse(&bytes);
            let _ = StreamInformation::parse_all(&bytes);
        }

        #[test]
        fn names_round_trip(name in proptest::collection::vec(any::<u16>(), 0..300), replace: bool) {
            let rename = RenameInformation { replace_if_exists: replace, root_directory: 0, file_name: Utf16(name) };
            let mut out = BytesMut::new();
            rename.encode(&mut out);
            prop_assert_eq!(RenameInformation::parse(&out), Ok(rename));
        }
    }
}
