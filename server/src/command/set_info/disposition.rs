//! Deleting by handle: FileDispositionInformation, MS-FSA 2.1.5.15.3 and 2.1.5.15.4.

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::fscc::file_info::{DispositionFlags, DispositionInformation, DispositionInformationEx};

use super::file::too_short;
use crate::access;
use crate::convert;
use crate::state::open::{DiskObject, Open};

/// FileDispositionInformation.
pub async fn set(open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let delete = DispositionInformation::parse(data).map_err(too_short)?.delete_pending;
    let flags = if delete { DispositionFlags::DELETE } else { DispositionFlags::EMPTY };
    change(open, disk, flags).await
}

/// What may stand in FileDispositionInformationEx. No program runs from a file here: FORCE_IMAGE_SECTION_CHECK finds none.
const KNOWN: DispositionFlags = DispositionFlags::DELETE
    .union(DispositionFlags::POSIX_SEMANTICS)
    .union(DispositionFlags::FORCE_IMAGE_SECTION_CHECK)
    .union(DispositionFlags::ON_CLOSE)
    .union(DispositionFlags::IGNORE_READONLY_ATTRIBUTE);

/// FileDispositionInformationEx.
pub async fn set_ex(open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let flags = DispositionFlags(DispositionInformationEx::parse(data).map_err(too_short)?.flags);
    if !KNOWN.contains(flags) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    change(open, disk, flags).await
}

async fn change(open: &Open, disk: &DiskObject, flags: DispositionFlags) -> Result<(), NtStatus> {
    access::require(open.granted_access, AccessMask::DELETE)?;
    let delete = flags.contains(DispositionFlags::DELETE);
    if delete {
        check(disk, flags.contains(DispositionFlags::IGNORE_READONLY_ATTRIBUTE)).await?;
    }
    {
        let mut changing = disk.changing.lock();
        changing.posix_delete = delete && flags.contains(DispositionFlags::POSIX_SEMANTICS);
        if flags.contains(DispositionFlags::ON_CLOSE) {
            changing.delete_on_close = delete;
            return Ok(());
        }
    }
    let wakes = {
        let mut opens = disk.node().opens();
        opens.set_delete_pending(&disk.link, delete);
        match opens.watches() {
            Some(watches) if delete => watches.delete_pending(),
            Some(watches) => {
                watches.delete_withdrawn();
                Vec::new()
            }
            None => Vec::new(),
        }
    };
    drop(wakes);
    Ok(())
}

/// Whether the file may be deleted. That a directory is empty is looked at now and again when it goes.
async fn check(disk: &DiskObject, even_read_only: bool) -> Result<(), NtStatus> {
    let metadata = disk.file.metadata().await.map_err(convert::status)?;
    if convert::attributes(&metadata).contains(FileAttributes::READONLY) && !even_read_only {
        return Err(NtStatus::CANNOT_DELETE);
    }
    if disk.link.place().is_none() {
        return Err(NtStatus::CANNOT_DELETE);
    }
    if disk.is_directory() && !disk.file.read_dir(0, 1, false).await.map_err(convert::status)?.is_empty() {
        return Err(NtStatus::DIRECTORY_NOT_EMPTY);
    }
    Ok(())
}
