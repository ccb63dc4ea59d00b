//! SMB2 READ: 2.2.19 and 2.2.20; processing in 3.3.5.12, MS-FSA 2.1.5.3.

use std::sync::atomic::Ordering;

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::smb2::read::{ReadRequest, ReadResponse};

use crate::access;
use crate::context::Context;
use crate::convert;
use crate::reply::Reply;
use crate::state::byte_range::Range;
use crate::state::open::{DiskObject, Object, Open};

/// Answers a READ.
pub async fn handle(cx: &Context, request: ReadRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    match &open.object {
        Object::Disk(disk) => read_file(cx, &open, disk, &request).await,
        Object::Pipe(pipe) => {
            let data = cx.park(pipe.read(request.length as usize)).await??;
            let status = if data.more { NtStatus::BUFFER_OVERFLOW } else { NtStatus::SUCCESS };
            Ok(Reply::with_status(status, ReadResponse { data: data.bytes, ..ReadResponse::default() }))
        }
    }
}

async fn read_file(
    cx: &Context,
    open: &Open,
    disk: &DiskObject,
    request: &ReadRequest,
) -> Result<Reply, NtStatus> {
    if disk.is_directory() {
        return Err(NtStatus::INVALID_DEVICE_REQUEST);
    }
    // A client that may run a file reads it to do so.
    access::require_any(open.granted_access, AccessMask::READ_DATA | AccessMask::EXECUTE)?;
    let (offset, length) = (request.offset, u64::from(request.length));
    // Offsets are signed on Windows' side.
    let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
    let (Some(_), Some(range)) = (end, Range::new(offset, length)) else {
        return Err(NtStatus::INVALID_PARAMETER);
    };
    let permitted = match disk.node().opens().stream(disk.stream).ranges() {
        Some(ranges) => ranges.permits(open.id.volatile, range, false),
        None => true,
    };
    if !permitted {
        return Err(NtStatus::FILE_LOCK_CONFLICT);
    }
    let data = disk.file.read_at(offset, request.length as usize).await.map_err(convert::status)?;
    let count = data.len() as u64;
    // 3.3.5.12: fewer bytes than MinimumCount, or none of those asked for, is the end of the file.
    if count < u64::from(request.minimum_count) || (count == 0 && length != 0) {
        return Err(NtStatus::END_OF_FILE);
    }
    disk.changing.lock().position = offset + count;
    let padding = cx.connection.read_padding.load(Ordering::Relaxed);
    Ok(ReadResponse { data, padding, ..ReadResponse::default() }.into())
}
