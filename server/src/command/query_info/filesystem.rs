//! File system information: 3.3.5.20.2, MS-FSCC 2.5.

use bytes::BytesMut;
use shoal_protocol::NtStatus;
use shoal_protocol::Utf16;
use shoal_protocol::dtyp::{FileTime, Guid};
use shoal_protocol::fscc::fs_info::*;
use shoal_protocol::smb2::query_info::QueryInfoRequest;
use shoal_vfs::VolumeInfo;

use super::{answer, require_room};
use crate::context::Context;
use crate::convert;
use crate::reply::Reply;
use crate::share::ShareKind;
use crate::state::open::Open;

/// The sectors that clients are told of. Everything is a multiple of them.
const SECTOR: u32 = 512;

/// Quotas are not kept: all that is said of them is that nobody has one.
const NO_QUOTA: u64 = u64::MAX;

/// Answers what is asked about the volume of an open.
pub async fn query(cx: &Context, open: &Open, request: &QueryInfoRequest) -> Result<Reply, NtStatus> {
    let class =
        FsInformationClass::try_from(request.file_info_class).map_err(|_| NtStatus::INVALID_INFO_CLASS)?;
    require_room(request, class.least_len())?;
    let share = &open.tree.share;
    let ShareKind::Disk { root } = &share.kind else { return Err(NtStatus::INVALID_PARAMETER) };
    let volume = root.backend().volume().await.map_err(convert::status)?;
    let block = volume.block_size.max(SECTOR);
    let sectors_per_allocation_unit = block / SECTOR;
    let units = |bytes: u64| bytes / u64::from(block);

    let mut out = BytesMut::new();
    match class {
        FsInformationClass::Volume => VolumeInformation {
            volume_creation_time: FileTime::ZERO,
            volume_serial_number: volume.serial,
            supports_objects: false,
            volume_label: Utf16::from_str(if volume.label.is_empty() { &share.name } else { &volume.label }),
        }
        .encode(&mut out),
        FsInformationClass::Size => SizeInformation {
            total_allocation_units: units(volume.total_bytes),
            available_allocation_units: units(volume.available_bytes),
            sectors_per_allocation_unit,
            bytes_per_sector: SECTOR,
        }
        .encode(&mut out),
        FsInformationClass::FullSize => FullSizeInformation {
            total_allocation_units: units(volume.total_bytes),
            caller_available_allocation_units: units(volume.available_bytes),
            actual_available_allocation_units: units(volume.free_bytes),
            sectors_per_allocation_unit,
            bytes_per_sector: SECTOR,
        }
        .encode(&mut out),
        FsInformationClass::Device => {
            let read_only = if share.read_only { DEVICE_READ_ONLY } else { 0 };
            DeviceInformation { device_type: DEVICE_DISK, characteristics: DEVICE_IS_MOUNTED | read_only }
                .encode(&mut out);
        }
        FsInformationClass::Attribute => AttributeInformation {
            file_system_attributes: attributes(&volume, share.read_only),
            maximum_component_name_length: volume.name_max,
            file_system_name: Utf16::from_str("NTFS"),
        }
        .encode(&mut out),
        FsInformationClass::Control => ControlInformation {
            default_quota_threshold: NO_QUOTA,
            default_quota_limit: NO_QUOTA,
            ..ControlInformation::default()
        }
        .encode(&mut out),
        FsInformationClass::ObjectId => {
            ObjectIdInformation { object_id: volume_id(cx, &volume), extended_info: Extended([0; 48]) }
                .encode(&mut out)
        }
        FsInformationClass::SectorSize => SectorSizeInformation {
            logical_bytes_per_sector: SECTOR,
            physical_bytes_per_sector_for_atomicity: block,
            physical_bytes_per_sector_for_performance: block,
            file_system_effective_physical_bytes_per_sector_for_atomicity: block,
            flags: SECTOR_ALIGNED_DEVICE | SECTOR_ALIGNED_PARTITION,
            byte_offset_for_sector_alignment: 0,
            byte_offset_for_partition_alignment: 0,
        }
        .encode(&mut out),
        FsInformationClass::Label => return Err(NtStatus::INVALID_INFO_CLASS),
    }
    Ok(answer(out, request))
}

/// What a share can do. Descriptors, named streams and extended attributes are not among it.
fn attributes(volume: &VolumeInfo, read_only: bool) -> FileSystemAttributes {
    let mut attributes = FileSystemAttributes::CASE_SENSITIVE_SEARCH
        | FileSystemAttributes::CASE_PRESERVED_NAMES
        | FileSystemAttributes::UNICODE_ON_DISK
        | FileSystemAttributes::SUPPORTS_POSIX_UNLINK_RENAME
        | FileSystemAttributes::SUPPORTS_HARD_LINKS;
    if volume.sparse {
        attributes |= FileSystemAttributes::SUPPORTS_SPARSE_FILES;
    }
    if read_only {
        attributes |= FileSystemAttributes::READ_ONLY_VOLUME;
    }
    attributes
}

/// A number for the volume that is the same as long as the server and the volume are.
fn volume_id(cx: &Context, volume: &VolumeInfo) -> Guid {
    let mut id = cx.server.settings.load().server_guid.0;
    for (byte, serial) in id.iter_mut().zip(volume.serial.to_le_bytes()) {
        *byte ^= serial;
    }
    Guid(id)
}
