//! Setting what a file is like: times, attributes, size, position, mode. MS-FSA 2.1.5.14.

use shoal_protocol::dtyp::FileTime;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::fscc::file_info::{
    AllocationInformation, BasicInformation, EndOfFileInformation, MODE_VALID, ModeInformation,
    PositionInformation,
};
use shoal_protocol::fscc::notify::NotifyFilter;
use shoal_protocol::{Malformed, NtStatus};
use shoal_vfs::{DosAttributes, Metadata, SetMetadata, Timestamp};

use crate::access;
use crate::context::Context;
use crate::convert;
use crate::state::byte_range::Range;
use crate::state::open::{DiskObject, Open};

/// FILE_SYNCHRONOUS_IO_ALERT and FILE_SYNCHRONOUS_IO_NONALERT: of a mode that is set only one may be there.
const MODE_SYNCHRONOUS: u32 = 0x0000_0030;
/// FILE_NO_INTERMEDIATE_BUFFERING and FILE_DELETE_ON_CLOSE cannot be set afterwards.
const MODE_FIXED: u32 = 0x0000_1008;

/// A buffer that is too short for its class (MS-FSA 2.1.5.14).
pub fn too_short(_: Malformed) -> NtStatus {
    NtStatus::INFO_LENGTH_MISMATCH
}

/// What a time of a set means (MS-FSCC 2.4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Keep,
    Freeze,
    Thaw,
    Set(Timestamp),
}

impl Change {
    fn read(time: FileTime) -> Result<Change, NtStatus> {
        match time {
            FileTime::ZERO => Ok(Change::Keep),
            FileTime::MINUS_ONE => Ok(Change::Freeze),
            FileTime::MINUS_TWO => Ok(Change::Thaw),
            time if time.is_time() => Ok(Change::Set(convert::timestamp(time))),
            _ => Err(NtStatus::INVALID_PARAMETER),
        }
    }

    fn time(self) -> Option<Timestamp> {
        match self {
            Change::Set(time) => Some(time),
            Change::Keep | Change::Freeze | Change::Thaw => None,
        }
    }
}

/// FileBasicInformation: MS-FSA 2.1.5.14.2.
pub async fn set_basic(cx: &Context, open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let basic = BasicInformation::parse(data).map_err(too_short)?;
    access::require(open.granted_access, AccessMask::WRITE_ATTRIBUTES)?;
    let creation = Change::read(basic.creation_time)?;
    let accessed = Change::read(basic.last_access_time)?;
    let written = Change::read(basic.last_write_time)?;
    // The change time is the storage's own affair: it is checked, and otherwise passed over.
    Change::read(basic.change_time)?;
    let wanted = basic.file_attributes;
    if wanted.contains(FileAttributes::DIRECTORY) && !disk.is_directory()
        || wanted.contains(FileAttributes::TEMPORARY) && disk.is_directory()
    {
        return Err(NtStatus::INVALID_PARAMETER);
    }

    let before = disk.file.metadata().await.map_err(convert::status)?;
    let set = SetMetadata {
        accessed: accessed.time(),
        modified: written.time(),
        dos: dos_to_set(&before, wanted, creation.time()),
        ..SetMetadata::default()
    };
    let changed = changed_filter(wanted, creation, accessed, written);
    if set != SetMetadata::default() {
        disk.file.set_metadata(&set).await.map_err(convert::status)?;
    }
    {
        let now = convert::now();
        let mut opens = disk.node().opens();
        let write_time = &mut opens.stream(disk.stream).write_time;
        match written {
            Change::Keep => write_time.flushed(now),
            Change::Freeze => write_time.freeze(convert::file_time(before.modified), now),
            Change::Thaw => write_time.thaw(),
            Change::Set(time) => write_time.set(convert::file_time(time)),
        }
    }
    if !wanted.is_empty() && !disk.is_directory() {
        disk.changing.lock().archive_due = !wanted.contains(FileAttributes::ARCHIVE);
    }
    if !changed.is_empty() {
        cx.server.watching.announce_changed(&disk.link, changed);
    }
    Ok(())
}

/// What to store, if attributes (none: they stay) or the creation time change.
fn dos_to_set(
    before: &Metadata,
    wanted: FileAttributes,
    creation_time: Option<Timestamp>,
) -> Option<DosAttributes> {
    let stored = convert::stored_attributes(before);
    let attributes = if wanted.is_empty() {
        stored
    } else {
        convert::settable(wanted) | (stored & FileAttributes::SPARSE_FILE)
    };
    if attributes == stored && creation_time.is_none() {
        return None;
    }
    let creation_time = creation_time.or(before.dos.and_then(|dos| dos.creation_time));
    Some(DosAttributes { attributes: attributes.bits(), creation_time })
}

fn changed_filter(
    wanted: FileAttributes,
    creation: Change,
    accessed: Change,
    written: Change,
) -> NotifyFilter {
    let mut filter = NotifyFilter::EMPTY;
    if !wanted.is_empty() {
        filter |= NotifyFilter::ATTRIBUTES;
    }
    for (change, reported) in [
        (creation, NotifyFilter::CREATION),
        (accessed, NotifyFilter::LAST_ACCESS),
        (written, NotifyFilter::LAST_WRITE),
    ] {
        if change.time().is_some() {
            filter |= reported;
        }
    }
    filter
}

/// FileEndOfFileInformation: MS-FSA 2.1.5.14.4.
pub async fn set_end_of_file(
    cx: &Context,
    open: &Open,
    disk: &DiskObject,
    data: &[u8],
) -> Result<(), NtStatus> {
    let size = EndOfFileInformation::parse(data).map_err(too_short)?.end_of_file;
    require_data(open, disk, size)?;
    resize(cx, open, disk, size).await
}

/// FileAllocationInformation: MS-FSA 2.1.5.14.1. Less than the data takes cuts the data.
pub async fn set_allocation(
    cx: &Context,
    open: &Open,
    disk: &DiskObject,
    data: &[u8],
) -> Result<(), NtStatus> {
    let size = AllocationInformation::parse(data).map_err(too_short)?.allocation_size;
    require_data(open, disk, size)?;
    let now = disk.file.metadata().await.map_err(convert::status)?;
    if size < now.size {
        return resize(cx, open, disk, size).await;
    }
    if size > now.allocated {
        disk.file.allocate(size).await.map_err(convert::status)?;
    }
    Ok(())
}

fn require_data(open: &Open, disk: &DiskObject, size: u64) -> Result<(), NtStatus> {
    if disk.is_directory() || i64::try_from(size).is_err() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    access::require(open.granted_access, AccessMask::WRITE_DATA)
}

async fn resize(cx: &Context, open: &Open, disk: &DiskObject, size: u64) -> Result<(), NtStatus> {
    let before = disk.file.metadata().await.map_err(convert::status)?.size;
    {
        // What another handle has locked may be neither cut away nor grown over.
        let (low, high) = (before.min(size), before.max(size));
        let mut opens = disk.node().opens();
        let stream = opens.stream(disk.stream);
        let changed = Range { offset: low, length: high - low };
        if stream.ranges().is_some_and(|ranges| !ranges.permits(open.id.volatile, changed, true)) {
            return Err(NtStatus::FILE_LOCK_CONFLICT);
        }
    }
    let set = SetMetadata { size: Some(size), ..SetMetadata::default() };
    disk.file.set_metadata(&set).await.map_err(convert::status)?;
    disk.node().opens().stream(disk.stream).write_time.resized(convert::now());
    disk.changing.lock().wrote = true;
    cx.server.watching.announce_changed(&disk.link, NotifyFilter::SIZE | NotifyFilter::LAST_WRITE);
    Ok(())
}

/// FilePositionInformation: MS-FSA 2.1.5.14.10. Nothing in SMB2 depends on it.
pub fn set_position(disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let position = PositionInformation::parse(data).map_err(too_short)?.current_byte_offset;
    if i64::try_from(position).is_err() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    disk.changing.lock().position = position;
    Ok(())
}

/// FileModeInformation: MS-FSA 2.1.5.14.8.
pub fn set_mode(disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let mode = ModeInformation::parse(data).map_err(too_short)?.mode;
    if mode & !MODE_VALID != 0 || mode & MODE_FIXED != 0 || mode & MODE_SYNCHRONOUS == MODE_SYNCHRONOUS {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    disk.changing.lock().mode = mode;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(Change::read(FileTime(0)), Ok(Change::Keep));
        assert_eq!(Change::read(FileTime(u64::MAX)), Ok(Change::Freeze));
        assert_eq!(Change::read(FileTime(u64::MAX - 1)), Ok(Change::Thaw));
        assert_eq!(Change::read(FileTime(u64::MAX - 2)), Err(NtStatus::INVALID_PARAMETER));
        assert!(matches!(Change::read(FileTime(1)), Ok(Change::Set(_))));
    }
}
