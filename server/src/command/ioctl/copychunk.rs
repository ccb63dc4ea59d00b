//! Server-side copy: FSCTL_SRV_REQUEST_RESUME_KEY, FSCTL_SRV_COPYCHUNK and FSCTL_SRV_COPYCHUNK_WRITE; 3.3.5.15.5 and .6.

use std::sync::Arc;

use bytes::BytesMut;
use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::fsctl::{
    CopyChunk, CopyChunkCopy, CopyChunkResponse, Fsctl, ResumeKey, ResumeKeyResponse,
};
use shoal_protocol::fscc::notify::NotifyFilter;
use shoal_protocol::smb2::FileId;
use shoal_protocol::smb2::ioctl::IoctlRequest;

use super::{answer, response};
use crate::access;
use crate::context::Context;
use crate::convert;
use crate::pending::give_way;
use crate::reply::Reply;
use crate::state::byte_range::Range;
use crate::state::open::Open;

/// A key that names the open in later copies: its id, which nobody can guess. It is of use in its own session only.
pub fn resume_key(cx: &Context, request: &IoctlRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    open.disk()?;
    if (request.max_output_response as usize) < ResumeKeyResponse::LEN {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let mut key: ResumeKey = [0; 24];
    key[..8].copy_from_slice(&open.id.persistent.to_le_bytes());
    key[8..16].copy_from_slice(&open.id.volatile.to_le_bytes());
    let mut output = BytesMut::new();
    ResumeKeyResponse { resume_key: key }.encode(&mut output);
    Ok(answer(request, output.freeze()))
}

/// The open of this session that a key names.
fn source(cx: &Context, key: &ResumeKey) -> Result<Arc<Open>, NtStatus> {
    let half = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&key[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let id = FileId { persistent: half(0), volatile: half(8) };
    // 3.3.5.15.6: "If the SourceKey ... does not represent an open ... STATUS_OBJECT_NAME_NOT_FOUND".
    cx.session()?.open(id.volatile).filter(|open| open.id == id).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)
}

/// Copies ranges of the file behind the key into this one.
pub async fn copy(cx: &Context, request: &IoctlRequest) -> Result<Reply, NtStatus> {
    let target = cx.open(request.file_id)?;
    if (request.max_output_response as usize) < CopyChunkResponse::LEN {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let asked = CopyChunkCopy::parse(&request.input).map_err(|_| NtStatus::INVALID_PARAMETER)?;
    let total: u64 = asked.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
    let out_of_bounds = asked.chunks.len() > CopyChunkCopy::CHUNKS_MAX as usize
        || total > u64::from(CopyChunkCopy::BYTES_MAX)
        || asked
            .chunks
            .iter()
            .any(|chunk| chunk.length == 0 || chunk.length > CopyChunkCopy::CHUNK_BYTES_MAX);
    if out_of_bounds {
        return Ok(limits(request));
    }
    let source = source(cx, &asked.source_key)?;
    // 3.3.5.15.6: the source is read, the target written; without _WRITE the target could be read too.
    access::require_any(source.granted_access, AccessMask::READ_DATA | AccessMask::EXECUTE)?;
    access::require_any(target.granted_access, AccessMask::WRITE_DATA | AccessMask::APPEND_DATA)?;
    if Fsctl(request.ctl_code) == Fsctl::SRV_COPYCHUNK {
        access::require(target.granted_access, AccessMask::READ_DATA)?;
    }
    if source.disk()?.is_directory() || target.disk()?.is_directory() {
        return Err(NtStatus::INVALID_DEVICE_REQUEST);
    }

    let mut done = CopyChunkResponse::default();
    let mut status = NtStatus::SUCCESS;
    for chunk in &asked.chunks {
        match copy_chunk(&source, &target, chunk).await {
            Ok(()) => {
                done.chunks_written += 1;
                done.total_bytes_written += chunk.length;
            }
            Err(error) => {
                status = error;
                break;
            }
        }
        give_way().await;
    }
    if done.chunks_written > 0 {
        let filter = NotifyFilter::SIZE | NotifyFilter::LAST_WRITE;
        cx.server.watching.announce_changed(&target.disk()?.link, filter);
    }
    Ok(reply(request, status, done))
}

async fn copy_chunk(source: &Open, target: &Open, chunk: &CopyChunk) -> Result<(), NtStatus> {
    let (from, to) = (source.disk()?, target.disk()?);
    let length = u64::from(chunk.length);
    let checked = |offset: u64| {
        let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        end.and_then(|_| Range::new(offset, length)).ok_or(NtStatus::INVALID_PARAMETER)
    };
    let (read, write) = (checked(chunk.source_offset)?, checked(chunk.target_offset)?);
    if from
        .node()
        .opens()
        .stream(from.stream)
        .ranges()
        .is_some_and(|ranges| !ranges.permits(source.id.volatile, read, false))
    {
        return Err(NtStatus::FILE_LOCK_CONFLICT);
    }
    let data = from.file.read_at(read.offset, chunk.length as usize).await.map_err(convert::status)?;
    // MS-SMB2 3.3.5.15.6: a range beyond the source's end is an error.
    if data.len() != chunk.length as usize {
        return Err(NtStatus::INVALID_VIEW_SIZE);
    }
    {
        let mut opens = to.node().opens();
        let stream = opens.stream(to.stream);
        if stream.ranges().is_some_and(|ranges| !ranges.permits(target.id.volatile, write, true)) {
            return Err(NtStatus::FILE_LOCK_CONFLICT);
        }
        stream.write_time.wrote(convert::now());
        drop(opens);
        to.changing.lock().wrote = true;
    }
    to.file.write_at(write.offset, data).await.map_err(convert::status)?;
    Ok(())
}

/// 3.3.5.15.6.2: a request beyond the limits is told what they are.
fn limits(request: &IoctlRequest) -> Reply {
    let limits = CopyChunkResponse {
        chunks_written: CopyChunkCopy::CHUNKS_MAX,
        chunk_bytes_written: CopyChunkCopy::CHUNK_BYTES_MAX,
        total_bytes_written: CopyChunkCopy::BYTES_MAX,
    };
    reply(request, NtStatus::INVALID_PARAMETER, limits)
}

fn reply(request: &IoctlRequest, status: NtStatus, done: CopyChunkResponse) -> Reply {
    let mut output = BytesMut::new();
    done.encode(&mut output);
    Reply::with_status(status, response(request, output.freeze()))
}
