//! SMB2 WRITE: 2.2.21 and 2.2.22; processing in 3.3.5.13, MS-FSA 2.1.5.4.

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::fscc::notify::NotifyFilter;
use shoal_protocol::smb2::create::CreateOptions;
use shoal_protocol::smb2::write::{WriteRequest, WriteResponse};
use shoal_vfs::{DosAttributes, SetMetadata};

use crate::access;
use crate::context::Context;
use crate::convert;
use crate::reply::Reply;
use crate::state::byte_range::Range;
use crate::state::open::{DiskObject, Object, Open};

/// SMB2_WRITEFLAG_WRITE_THROUGH.
const WRITE_THROUGH: u32 = 0x0000_0001;

/// The offset that stands for the end of the file.
const AT_END: u64 = u64::MAX;

/// Answers a WRITE.
pub async fn handle(cx: &Context, request: WriteRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    let count = match &open.object {
        Object::Disk(disk) => write_file(cx, &open, disk, request).await?,
        Object::Pipe(pipe) => pipe.write(&cx.server, &request.data)?,
    };
    Ok(WriteResponse { count: count as u32, remaining: 0 }.into())
}

async fn write_file(
    cx: &Context,
    open: &Open,
    disk: &DiskObject,
    request: WriteRequest,
) -> Result<usize, NtStatus> {
    if disk.is_directory() {
        return Err(NtStatus::INVALID_DEVICE_REQUEST);
    }
    access::require_any(open.granted_access, AccessMask::WRITE_DATA | AccessMask::APPEND_DATA)?;
    if request.offset != AT_END {
        return write_at(cx, open, disk, request).await;
    }
    // MS-FSA 2.1.5.4: a handle that may only append; elsewhere the offset makes no sense.
    if open.granted_access.contains(AccessMask::WRITE_DATA) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    // Where the end is and what is written there are one: of two that append, the second begins where the first ended.
    let appending = disk.node().opens().stream(disk.stream).appending();
    let _turn = appending.lock().await;
    let offset = disk.file.metadata().await.map_err(convert::status)?.size;
    write_at(cx, open, disk, WriteRequest { offset, ..request }).await
}

async fn write_at(
    cx: &Context,
    open: &Open,
    disk: &DiskObject,
    request: WriteRequest,
) -> Result<usize, NtStatus> {
    let offset = request.offset;
    let length = request.data.len() as u64;
    let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
    let (Some(end), Some(range)) = (end, Range::new(offset, length)) else {
        return Err(NtStatus::INVALID_PARAMETER);
    };
    if length == 0 {
        return Ok(0);
    }
    let first = {
        let mut opens = disk.node().opens();
        let stream = opens.stream(disk.stream);
        if stream.ranges().is_some_and(|ranges| !ranges.permits(open.id.volatile, range, true)) {
            return Err(NtStatus::FILE_LOCK_CONFLICT);
        }
        stream.write_time.wrote(convert::now());
        drop(opens);
        let mut changing = disk.changing.lock();
        changing.wrote = true;
        std::mem::take(&mut changing.archive_due)
    };
    if first {
        mark_archive(disk).await?;
    }
    let count = disk.file.write_at(offset, request.data).await.map_err(convert::status)?;
    disk.changing.lock().position = end;
    let through =
        request.flags & WRITE_THROUGH != 0 || open.create_options.contains(CreateOptions::WRITE_THROUGH);
    if through {
        disk.file.flush().await.map_err(convert::status)?;
        disk.node().opens().stream(disk.stream).write_time.flushed(convert::now());
    }
    cx.server.watching.announce_changed(&disk.link, NotifyFilter::SIZE | NotifyFilter::LAST_WRITE);
    Ok(count)
}

/// A file that is written to is to be archived (MS-FSCC 2.6).
async fn mark_archive(disk: &DiskObject) -> Result<(), NtStatus> {
    let metadata = disk.file.metadata().await.map_err(convert::status)?;
    let attributes = convert::stored_attributes(&metadata) | FileAttributes::ARCHIVE;
    let creation_time = metadata.dos.and_then(|dos| dos.creation_time);
    let dos = DosAttributes { attributes: attributes.bits(), creation_time };
    let set = SetMetadata { dos: Some(dos), ..SetMetadata::default() };
    disk.file.set_metadata(&set).await.map_err(convert::status)
}
