//! SMB2 QUERY_INFO: 2.2.37 and 2.2.38; processing in 3.3.5.20.

mod file;
mod filesystem;
mod security;

use bytes::BytesMut;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::query_info::{QueryInfoRequest, QueryInfoResponse, info_type};

use crate::context::Context;
use crate::reply::Reply;

/// Answers a QUERY_INFO.
pub async fn handle(cx: &Context, request: QueryInfoRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    match request.info_type {
        info_type::FILE => file::query(cx, &open, &request).await,
        info_type::FILESYSTEM => filesystem::query(cx, &open, &request).await,
        info_type::SECURITY => security::query(cx, &open, &request),
        // 3.3.5.20.4: there are no quotas.
        info_type::QUOTA => Err(NtStatus::NOT_SUPPORTED),
        _ => Err(NtStatus::INVALID_PARAMETER),
    }
}

/// What a class says, cut to the client's buffer: BUFFER_OVERFLOW comes with as much as there is room for (3.3.5.20.1).
fn answer(whole: BytesMut, request: &QueryInfoRequest) -> Reply {
    let room = request.output_buffer_length as usize;
    let whole = whole.freeze();
    if whole.len() <= room {
        return QueryInfoResponse { buffer: whole }.into();
    }
    Reply::with_status(NtStatus::BUFFER_OVERFLOW, QueryInfoResponse { buffer: whole.slice(..room) })
}

/// INFO_LENGTH_MISMATCH if the client's buffer has no room for the fixed part of a class.
fn require_room(request: &QueryInfoRequest, least: usize) -> Result<(), NtStatus> {
    if (request.output_buffer_length as usize) < least {
        return Err(NtStatus::INFO_LENGTH_MISMATCH);
    }
    Ok(())
}
