//! File system information classes: MS-FSCC 2.5.

use bytes::{BufMut, BytesMut};
use nom::Parser;

use super::fixed::fixed;
use crate::Malformed;
use crate::dtyp::{FileTime, Guid};
use crate::encode::put_utf16;
use crate::flags::flags;
use crate::parse::{self, Utf16};

/// The classes of MS-FSCC 2.5, by number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsInformationClass {
    /// FileFsVolumeInformation: 2.5.9.
    Volume = 1,
    /// FileFsLabelInformation: 2.5.5, set.
    Label = 2,
    /// FileFsSizeInformation: 2.5.8.
    Size = 3,
    /// FileFsDeviceInformation: 2.5.10.
    Device = 4,
    /// FileFsAttributeInformation: 2.5.1.
    Attribute = 5,
    /// FileFsControlInformation: 2.5.2, query and set.
    Control = 6,
    /// FileFsFullSizeInformation: 2.5.4.
    FullSize = 7,
    /// FileFsObjectIdInformation: 2.5.6, query and set.
    ObjectId = 8,
    /// FileFsSectorSizeInformation: 2.5.7.
    SectorSize = 11,
}

impl TryFrom<u8> for FsInformationClass {
    type Error = Malformed;

    fn try_from(value: u8) -> Result<FsInformationClass, Malformed> {
        Ok(match value {
            1 => FsInformationClass::Volume,
            2 => FsInformationClass::Label,
            3 => FsInformationClass::Size,
            4 => FsInformationClass::Device,
            5 => FsInformationClass::Attribute,
            6 => FsInformationClass::Control,
            7 => FsInformationClass::FullSize,
            8 => FsInformationClass::ObjectId,
            11 => FsInformationClass::SectorSize,
            _ => return Err(Malformed::Value("file system information class")),
        })
    }
}

impl FsInformationClass {
    /// The least OutputBufferLength (in bytes) with which a query can be answered, if only in part: below it the
    /// answer is STATUS_INFO_LENGTH_MISMATCH (MS-SMB2 3.3.5.20.2).
    pub const fn least_len(self) -> usize {
        match self {
            FsInformationClass::Volume => 24,
            FsInformationClass::Label => 0,
            FsInformationClass::Size => SizeInformation::LEN,
            FsInformationClass::Device => DeviceInformation::LEN,
            FsInformationClass::Attribute => 16,
            FsInformationClass::Control => ControlInformation::LEN,
            FsInformationClass::FullSize => FullSizeInformation::LEN,
            FsInformationClass::ObjectId => ObjectIdInformation::LEN,
            FsInformationClass::SectorSize => SectorSizeInformation::LEN,
        }
    }
}

flags! {
    /// What a file system can do: FileSystemAttributes, MS-FSCC 2.5.1.
    pub struct FileSystemAttributes: u32 {
        /// Names are found by their exact case if asked so.
        CASE_SENSITIVE_SEARCH = 0x0000_0001;
        /// Names keep their case.
        CASE_PRESERVED_NAMES = 0x0000_0002;
        /// Names are Unicode.
        UNICODE_ON_DISK = 0x0000_0004;
        /// Access control lists are kept and obeyed.
        PERSISTENT_ACLS = 0x0000_0008;
        /// Files can be compressed.
        FILE_COMPRESSION = 0x0000_0010;
        /// Users can have quotas.
        VOLUME_QUOTAS = 0x0000_0020;
        /// Files can be sparse.
        SUPPORTS_SPARSE_FILES = 0x0000_0040;
        /// There are reparse points.
        SUPPORTS_REPARSE_POINTS = 0x0000_0080;
        /// Data can be kept elsewhere.
        SUPPORTS_REMOTE_STORAGE = 0x0000_0100;
        /// A close says whether the file was deleted by POSIX rules.
        RETURNS_CLEANUP_RESULT_INFO = 0x0000_0200;
        /// Unlink and rename can have POSIX meaning.
        SUPPORTS_POSIX_UNLINK_RENAME = 0x0000_0400;
        /// The volume is compressed as a whole.
        VOLUME_IS_COMPRESSED = 0x0000_8000;
        /// Files have object ids.
        SUPPORTS_OBJECT_IDS = 0x0001_0000;
        /// Files can be encrypted.
        SUPPORTS_ENCRYPTION = 0x0002_0000;
        /// Files have named streams.
        NAMED_STREAMS = 0x0004_0000;
        /// Nothing can be changed.
        READ_ONLY_VOLUME = 0x0008_0000;
        /// It can be written once, in sequence.
        SEQUENTIAL_WRITE_ONCE = 0x0010_0000;
        /// There are transactions.
        SUPPORTS_TRANSACTIONS = 0x0020_0000;
        /// Files can have several names.
        SUPPORTS_HARD_LINKS = 0x0040_0000;
        /// There are extended attributes.
        SUPPORTS_EXTENDED_ATTRIBUTES = 0x0080_0000;
        /// Files can be opened by their number.
        SUPPORTS_OPEN_BY_FILE_ID = 0x0100_0000;
        /// There is a journal of changes.
        SUPPORTS_USN_JOURNAL = 0x0200_0000;
        /// There are integrity streams.
        SUPPORT_INTEGRITY_STREAMS = 0x0400_0000;
        /// Blocks can be shared: DUPLICATE_EXTENTS_TO_FILE works.
        SUPPORTS_BLOCK_REFCOUNTING = 0x0800_0000;
        /// Data that is not written reads as zeros from where it is sparse.
        SUPPORTS_SPARSE_VDL = 0x1000_0000;
    }
}

/// FileFsVolumeInformation (1), query: MS-FSCC 2.5.9.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeInformation {
    /// When the volume was made.
    pub volume_creation_time: FileTime,
    /// The volume's number.
    pub volume_serial_number: u32,
    /// Whether files have object ids.
    pub supports_objects: bool,
    /// The volume's name.
    pub volume_label: Utf16,
}

impl VolumeInformation {
    /// Reads the structure at the start of `input`; what follows is ignored.
    ///
    /// Errors: `Truncated`; `Length` for half a unit.
    pub fn parse(input: &[u8]) -> Result<VolumeInformation, Malformed> {
        let (rest, (time, serial, length, objects, _)) =
            (parse::u64, parse::u32, parse::u32, parse::u8, parse::u8).parse(input)?;
        let (_, label) = parse::take(length as usize)(rest)?;
        Ok(VolumeInformation {
            volume_creation_time: FileTime(time),
            volume_serial_number: serial,
            supports_objects: objects != 0,
            volume_label: parse::utf16(label)?,
        })
    }

    /// Appends the structure.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.volume_creation_time.0);
        out.put_u32_le(self.volume_serial_number);
        out.put_u32_le(self.volume_label.byte_len() as u32);
        out.put_u8(u8::from(self.supports_objects));
        out.put_u8(0);
        put_utf16(out, &self.volume_label);
    }
}

/// FileFsLabelInformation (2), set: MS-FSCC 2.5.5.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelInformation {
    /// The volume's new name.
    pub volume_label: Utf16,
}

impl LabelInformation {
    /// Reads the structure at the start of `input`; what follows is ignored.
    ///
    /// Errors: `Truncated`; `Length` for half a unit.
    pub fn parse(input: &[u8]) -> Result<LabelInformation, Malformed> {
        let (rest, length) = parse::u32(input)?;
        let (_, label) = parse::take(length as usize)(rest)?;
        Ok(LabelInformation { volume_label: parse::utf16(label)? })
    }

    /// Appends the structure.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.volume_label.byte_len() as u32);
        put_utf16(out, &self.volume_label);
    }
}

/// FileFsAttributeInformation (5), query: MS-FSCC 2.5.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeInformation {
    /// What the file system can do.
    pub file_system_attributes: FileSystemAttributes,
    /// UTF-16 units that a component of a path may have.
    pub maximum_component_name_length: u32,
    /// The file system's name. Windows clients use what NTFS can do only if it says `NTFS`.
    pub file_system_name: Utf16,
}

impl AttributeInformation {
    /// Reads the structure at the start of `input`; what follows is ignored.
    ///
    /// Errors: `Truncated`; `Length` for half a unit.
    pub fn parse(input: &[u8]) -> Result<AttributeInformation, Malformed> {
        let (rest, (attributes, maximum, length)) = (parse::u32, parse::u32, parse::u32).parse(input)?;
        let (_, name) = parse::take(length as usize)(rest)?;
        Ok(AttributeInformation {
            file_system_attributes: FileSystemAttributes(attributes),
            maximum_component_name_length: maximum,
            file_system_name: parse::utf16(name)?,
        })
    }

    /// Appends the structure.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.file_system_attributes.0);
        out.put_u32_le(self.maximum_component_name_length);
        out.put_u32_le(self.file_system_name.byte_len() as u32);
        put_utf16(out, &self.file_system_name);
    }
}

/// DeviceType of a disk: FILE_DEVICE_DISK.
pub const DEVICE_DISK: u32 = 7;
/// DeviceType of a named pipe: FILE_DEVICE_NAMED_PIPE.
pub const DEVICE_NAMED_PIPE: u32 = 0x11;
/// Characteristics: nothing can be changed.
pub const DEVICE_READ_ONLY: u32 = 0x0000_0002;
/// Characteristics: reached over the network.
pub const DEVICE_REMOTE: u32 = 0x0000_0010;
/// Characteristics: a volume is mounted on it.
pub const DEVICE_IS_MOUNTED: u32 = 0x0000_0020;

/// Flags of [`SectorSizeInformation`]: the file system's blocks begin where the device's physical sectors do.
pub const SECTOR_ALIGNED_DEVICE: u32 = 0x0000_0001;
/// Flags of [`SectorSizeInformation`]: the partition begins at a physical sector.
pub const SECTOR_ALIGNED_PARTITION: u32 = 0x0000_0002;
/// Flags of [`SectorSizeInformation`]: seeks cost nothing.
pub const SECTOR_NO_SEEK_PENALTY: u32 = 0x0000_0004;
/// Flags of [`SectorSizeInformation`]: the device takes TRIM.
pub const SECTOR_TRIM_ENABLED: u32 = 0x0000_0008;
/// [`SectorSizeInformation`]'s byte offsets when they are not known.
pub const SECTOR_OFFSET_UNKNOWN: u32 = 0xFFFF_FFFF;

fixed! {
    /// FileFsSizeInformation (3), query: MS-FSCC 2.5.8.
    pub struct SizeInformation [24] {
        /// Units in all.
        total_allocation_units: u64,
        /// Units free for the caller.
        available_allocation_units: u64,
        /// Sectors in a unit.
        sectors_per_allocation_unit: u32,
        /// Bytes in a sector.
        bytes_per_sector: u32,
    }

    /// FileFsDeviceInformation (4), query: MS-FSCC 2.5.10.
    pub struct DeviceInformation [8] {
        /// [`DEVICE_DISK`] and the like.
        device_type: u32,
        /// [`DEVICE_REMOTE`] and the like.
        characteristics: u32,
    }

    /// FileFsControlInformation (6), query and set: MS-FSCC 2.5.2.
    pub struct ControlInformation [48] {
        /// Not used: free bytes at which content indexing starts.
        free_space_start_filtering: u64,
        /// Not used.
        free_space_threshold: u64,
        /// Not used.
        free_space_stop_filtering: u64,
        /// Bytes at which a user is warned; all ones: never.
        default_quota_threshold: u64,
        /// Bytes that a user may have; all ones: no bound.
        default_quota_limit: u64,
        /// How quotas are kept.
        file_system_control_flags: u32,
    }

    /// FileFsFullSizeInformation (7), query: MS-FSCC 2.5.4.
    pub struct FullSizeInformation [32] {
        /// Units in all.
        total_allocation_units: u64,
        /// Units free for the caller.
        caller_available_allocation_units: u64,
        /// Units free.
        actual_available_allocation_units: u64,
        /// Sectors in a unit.
        sectors_per_allocation_unit: u32,
        /// Bytes in a sector.
        bytes_per_sector: u32,
    }

    /// FileFsObjectIdInformation (8), query and set: MS-FSCC 2.5.6.
    pub struct ObjectIdInformation [64] {
        /// The volume's object id.
        object_id: Guid,
        /// Whatever the file system adds.
        extended_info: Extended,
    }

    /// FileFsSectorSizeInformation (11), query: MS-FSCC 2.5.7.
    pub struct SectorSizeInformation [28] {
        /// Bytes of a logical sector.
        logical_bytes_per_sector: u32,
        /// Bytes of a physical sector: written whole or not at all.
        physical_bytes_per_sector_for_atomicity: u32,
        /// Bytes of a physical sector: written fast.
        physical_bytes_per_sector_for_performance: u32,
        /// Bytes that the file system takes for a physical sector.
        file_system_effective_physical_bytes_per_sector_for_atomicity: u32,
        /// [`SECTOR_ALIGNED_DEVICE`] and the like.
        flags: u32,
        /// Bytes from a physical sector's start to the first logical one.
        byte_offset_for_sector_alignment: u32,
        /// Bytes from a physical sector's start to the partition.
        byte_offset_for_partition_alignment: u32,
    }
}

/// ExtendedInfo of an object id: 48 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended(pub [u8; 48]);

impl Default for Extended {
    fn default() -> Extended {
        Extended([0; 48])
    }
}

impl super::fixed::Field for Extended {
    const LEN: usize = 48;

    fn read(input: &[u8]) -> parse::Parsed<'_, Extended> {
        let (rest, bytes) = parse::array(input)?;
        Ok((rest, Extended(bytes)))
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    macro_rules! known {
        ($name:ident, $value:expr, $bytes:expr) => {{
            let value = $value;
            let bytes: Vec<u8> = $bytes.to_vec();
            let mut out = BytesMut::new();
            value.encode(&mut out);
            assert_eq!(out[..], bytes[..], stringify!($name));
            assert_eq!($name::parse(&bytes), Ok(value));
            bytes
        }};
    }

    #[test]
    fn fixed_bytes() {
        let size = known!(
            SizeInformation,
            SizeInformation {
                total_allocation_units: 10,
                available_allocation_units: 9,
                sectors_per_allocation_unit: 8,
                bytes_per_sector: 512,
            },
            [10, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 2, 0, 0]
        );
        for length in 0..size.len() {
            assert_eq!(SizeInformation::parse(&size[..length]), Err(Malformed::Truncated));
        }
        known!(
            DeviceInformation,
            DeviceInformation { device_type: DEVICE_DISK, characteristics: DEVICE_IS_MOUNTED },
            [7, 0, 0, 0, 0x20, 0, 0, 0]
        );
        let mut full = [0; 32];
        (full[0], full[8], full[16], full[24], full[28]) = (10, 8, 9, 1, 4);
        known!(
            FullSizeInformation,
            FullSizeInformation {
                total_allocation_units: 10,
                caller_available_allocation_units: 8,
                actual_available_allocation_units: 9,
                sectors_per_allocation_unit: 1,
                bytes_per_sector: 4,
            },
            full
        );
        let mut control = [0; 48];
        control[24..40].fill(0xFF);
        control[40] = 3;
        known!(
            ControlInformation,
            ControlInformation {
                default_quota_threshold: u64::MAX,
                default_quota_limit: u64::MAX,
                file_system_control_flags: 3,
                ..Default::default()
            },
            control
        );
        let mut id = [0; 64];
        id[..16].fill(7);
        id[63] = 1;
        let mut extended = Extended::default();
        extended.0[47] = 1;
        known!(
            ObjectIdInformation,
            ObjectIdInformation { object_id: Guid([7; 16]), extended_info: extended },
            id
        );
        let mut sector = [0; 28];
        (sector[1], sector[5], sector[9], sector[13], sector[16]) = (2, 16, 16, 16, 3);
        known!(
            SectorSizeInformation,
            SectorSizeInformation {
                logical_bytes_per_sector: 512,
                physical_bytes_per_sector_for_atomicity: 4096,
                physical_bytes_per_sector_for_performance: 4096,
                file_system_effective_physical_bytes_per_sector_for_atomicity: 4096,
                flags: SECTOR_ALIGNED_DEVICE | SECTOR_ALIGNED_PARTITION,
                ..Default::default()
            },
            sector
        );
    }

    #[test]
    fn named_bytes() {
        let volume = known!(
            VolumeInformation,
            VolumeInformation {
                volume_creation_time: FileTime(1),
                volume_serial_number: 2,
                supports_objects: true,
                volume_label: Utf16::from_str("ab"),
            },
            [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 1, 0, b'a', 0, b'b', 0]
        );
        let attribute = known!(
            AttributeInformation,
            AttributeInformation {
                file_system_attributes: FileSystemAttributes::UNICODE_ON_DISK
                    | FileSystemAttributes::CASE_PRESERVED_NAMES,
                maximum_component_name_length: 255,
                file_system_name: Utf16::from_str("NTFS"),
            },
            [6, 0, 0, 0, 255, 0, 0, 0, 8, 0, 0, 0, b'N', 0, b'T', 0, b'F', 0, b'S', 0]
        );
        let label = known!(
            LabelInformation,
            LabelInformation { volume_label: Utf16::from_str("x") },
            [2, 0, 0, 0, b'x', 0]
        );
        for length in 0..volume.len() {
            assert_eq!(VolumeInformation::parse(&volume[..length]), Err(Malformed::Truncated));
        }
        for length in 0..attribute.len() {
            assert_eq!(AttributeInformation::parse(&attribute[..length]), Err(Malformed::Truncated));
        }
        for length in 0..label.len() {
            assert_eq!(LabelInformation::parse(&label[..length]), Err(Malformed::Truncated));
        }
        assert_eq!(LabelInformation::parse(&[1, 0, 0, 0, 9]), Err(Malformed::Length));
    }

    proptest! {
        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = VolumeInformation::parse(&bytes);
            let _ = AttributeInformation::parse(&bytes);
            let _ = LabelInformation::parse(&bytes);
            let _ = ObjectIdInformation::parse(&bytes);
        }
    }
}
