//! Deleting by handle: FileDispositionInformation, MS-FSA 2.1.5.14.3.

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

/// FileDispositionInformationEx. POSIX_SEMANTICS is taken as what it adds to: the name goes with its last handle.
pub async fn set_ex(open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let flags = DispositionFlags(DispositionInformationEx::parse(data).map_err(too_short)?.flags);
    change(open, disk, flags).await
}

async fn change(open: &Open, disk: &DiskObject, flags: DispositionFlags) -> Result<(), NtStatus> {
    access::require(open.granted_access, AccessMask::DELETE)?;
    let delete = flags.contains(DispositionFlags::DELETE);
    if delete {
        check(disk, flags.contains(DispositionFlags::IGNORE_READONLY_ATTRIBUTE)).await?;
    }
    if flags.contains(DispositionFlags::ON_CLOSE) {
        disk.changing.lock().delete_on_close = delete;
        return Ok(());
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
