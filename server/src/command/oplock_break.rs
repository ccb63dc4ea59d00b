//! SMB2 OPLOCK_BREAK acknowledgments: 2.2.24; processing in 3.3.5.22.
//!
//! Neither oplocks nor leases are granted, so no acknowledgment has anything to acknowledge.

use shoal_protocol::NtStatus;
use shoal_protocol::smb2::oplock_break::OplockBreakRequest;

use crate::context::Context;
use crate::reply::Reply;

/// SMB2_OPLOCK_LEVEL_II, the highest level that an acknowledgment may keep.
const LEVEL_II: u8 = 0x01;

/// Refuses an acknowledgment as the specification wants it where no break is under way.
pub async fn handle(cx: &Context, request: OplockBreakRequest) -> Result<Reply, NtStatus> {
    match request {
        OplockBreakRequest::Oplock { oplock_level, file_id } => {
            cx.open(file_id)?;
            // 3.3.5.22.1: a level that no acknowledgment can have is INVALID_PARAMETER; Open.OplockState is not Breaking, so the
            // rest is INVALID_OPLOCK_PROTOCOL.
            Err(if oplock_level > LEVEL_II {
                NtStatus::INVALID_PARAMETER
            } else {
                NtStatus::INVALID_OPLOCK_PROTOCOL
            })
        }
        // 3.3.5.22.2: "If no lease is found ... STATUS_OBJECT_NAME_NOT_FOUND".
        OplockBreakRequest::Lease { .. } => Err(NtStatus::OBJECT_NAME_NOT_FOUND),
    }
}
