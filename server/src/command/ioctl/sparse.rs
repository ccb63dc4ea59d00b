//! Holes: FSCTL_SET_SPARSE, FSCTL_SET_ZERO_DATA, FSCTL_QUERY_ALLOCATED_RANGES; MS-FSA 2.1.5.9.

use bytes::BytesMut;
use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::fscc::fsctl::{AllocatedRange, ZeroData, parse_set_sparse};
use shoal_protocol::fscc::notify::NotifyFilter;
use shoal_protocol::smb2::ioctl::IoctlRequest;
use shoal_vfs::{DosAttributes, SetMetadata};

use super::{answer, response};
use crate::access;
use crate::context::Context;
use crate::convert;
use crate::reply::Reply;
use crate::state::byte_range::Range;

/// Marks a file as sparse, or no longer.
pub async fn set_sparse(cx: &Context, request: &IoctlRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    let disk = open.disk()?;
    access::require_any(
        open.granted_access,
        AccessMask::WRITE_DATA | AccessMask::WRITE_ATTRIBUTES | AccessMask::APPEND_DATA,
    )?;
    if disk.is_directory() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let before = disk.file.metadata().await.map_err(convert::status)?;
    let stored = convert::stored_attributes(&before);
    let wanted = if parse_set_sparse(&request.input) {
        stored | FileAttributes::SPARSE_FILE
    } else {
        stored.without(FileAttributes::SPARSE_FILE)
    };
    if wanted != stored {
        let creation_time = before.dos.and_then(|dos| dos.creation_time);
        let dos = DosAttributes { attributes: wanted.bits(), creation_time };
        let set = SetMetadata { dos: Some(dos), ..SetMetadata::default() };
        disk.file.set_metadata(&set).await.map_err(convert::status)?;
        cx.server.watching.announce_changed(&disk.link, NotifyFilter::ATTRIBUTES);
    }
    Ok(answer(request, Default::default()))
}

/// Zeroes a range; of a sparse file its space is given back.
pub async fn set_zero_data(cx: &Context, request: &IoctlRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    let disk = open.disk()?;
    access::require(open.granted_access, AccessMask::WRITE_DATA)?;
    if disk.is_directory() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let asked = ZeroData::parse(&request.input).map_err(|_| NtStatus::INVALID_PARAMETER)?;
    let (begin, end) = (asked.file_offset, asked.beyond_final_zero);
    if begin > end || i64::try_from(end).is_err() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let metadata = disk.file.metadata().await.map_err(convert::status)?;
    let end = end.min(metadata.size);
    if begin >= end {
        return Ok(answer(request, Default::default()));
    }
    let range = Range { offset: begin, length: end - begin };
    {
        let mut opens = disk.node().opens();
        let stream = opens.stream(disk.stream);
        if stream.ranges().is_some_and(|ranges| !ranges.permits(open.id.volatile, range, true)) {
            return Err(NtStatus::FILE_LOCK_CONFLICT);
        }
        stream.write_time.wrote(convert::now());
        drop(opens);
        disk.changing.lock().wrote = true;
    }
    let sparse = convert::stored_attributes(&metadata).contains(FileAttributes::SPARSE_FILE);
    let zeroed = if sparse {
        disk.file.punch(range.offset, range.length).await
    } else {
        disk.file.zero_range(range.offset, range.length).await
    };
    zeroed.map_err(convert::status)?;
    cx.server.watching.announce_changed(&disk.link, NotifyFilter::LAST_WRITE);
    Ok(answer(request, Default::default()))
}

/// Tells which parts of a range hold data.
pub async fn query_allocated_ranges(cx: &Context, request: &IoctlRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    let disk = open.disk()?;
    access::require(open.granted_access, AccessMask::READ_DATA)?;
    if disk.is_directory() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let asked = AllocatedRange::parse(&request.input).map_err(|_| NtStatus::INVALID_PARAMETER)?;
    let end = asked.file_offset.checked_add(asked.length);
    if end.is_none_or(|end| i64::try_from(end).is_err()) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let metadata = disk.file.metadata().await.map_err(convert::status)?;
    let ranges = if convert::stored_attributes(&metadata).contains(FileAttributes::SPARSE_FILE) {
        disk.file.allocated_ranges(asked.file_offset, asked.length).await.map_err(convert::status)?
    } else {
        // A file that is not sparse has no holes, whatever the storage does.
        let end = (asked.file_offset + asked.length).min(metadata.size);
        end.checked_sub(asked.file_offset)
            .filter(|length| *length != 0)
            .map(|length| (asked.file_offset, length))
            .into_iter()
            .collect()
    };
    let fit = request.max_output_response as usize / AllocatedRange::LEN;
    if fit == 0 && !ranges.is_empty() {
        return Err(NtStatus::BUFFER_TOO_SMALL);
    }
    let mut output = BytesMut::new();
    for (file_offset, length) in ranges.iter().copied().take(fit) {
        AllocatedRange { file_offset, length }.encode(&mut output);
    }
    let status = if ranges.len() > fit { NtStatus::BUFFER_OVERFLOW } else { NtStatus::SUCCESS };
    Ok(Reply::with_status(status, response(request, output.freeze())))
}
