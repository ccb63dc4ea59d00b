//! SMB2 FLUSH: 2.2.17 and 2.2.18; processing in 3.3.5.11.

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::smb2::flush::{FlushRequest, FlushResponse};

use crate::access;
use crate::context::Context;
use crate::convert;
use crate::reply::Reply;
use crate::state::open::Object;

/// Answers a FLUSH: what was written is on stable storage then.
pub async fn handle(cx: &Context, request: FlushRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    let Object::Disk(disk) = &open.object else {
        // A pipe's data has been read by the other end when its write is answered.
        return Ok(FlushResponse {}.into());
    };
    // 3.3.5.11: a handle that cannot have written has nothing to flush. For a directory the rights to add to it count.
    access::require_any(open.granted_access, AccessMask::WRITE_DATA | AccessMask::APPEND_DATA)?;
    disk.file.flush().await.map_err(convert::status)?;
    disk.node().opens().stream(disk.stream).write_time.flushed(convert::now());
    Ok(FlushResponse {}.into())
}
