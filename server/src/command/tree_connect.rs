//! SMB2 TREE_CONNECT: 2.2.9 and 2.2.10; processing in 3.3.5.7.

use std::sync::Arc;

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::smb2::tree_connect::{TreeConnectRequest, TreeConnectResponse};

use crate::context::Context;
use crate::reply::Reply;
use crate::share::Share;
use crate::state::tree::TreeConnect;

/// The longest share name that is looked up; a configured one has at most 80 characters.
const NAME_MAX: usize = 256;

/// What may be done in a share that is read-only: to read and to execute.
const READ_ONLY: AccessMask = AccessMask(0x0012_00A9);

/// Answers a TREE_CONNECT.
pub async fn handle(cx: &Context, request: TreeConnectRequest) -> Result<Reply, NtStatus> {
    let session = cx.session()?;
    let share = find(cx, &request.path)?;
    let user = session.user();
    if (user.is_guest() || user.is_anonymous()) && !share.guest {
        return Err(NtStatus::ACCESS_DENIED);
    }
    // 3.3.5.7: a client that cannot encrypt would be refused at its first request.
    if share.encrypt && !session.can_encrypt() {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let maximal_access = if share.read_only { READ_ONLY } else { AccessMask::FILE_ALL };
    let response = TreeConnectResponse {
        share_type: if share.is_pipe() { TreeConnectResponse::PIPE } else { TreeConnectResponse::DISK },
        share_flags: share_flags(&share),
        capabilities: 0,
        maximal_access,
    };
    let trees_max = cx.connection.settings.limits.trees_per_session;
    let tree = session
        .insert_tree(trees_max, |id| TreeConnect::new(id, share, Arc::downgrade(&session), maximal_access))?;
    cx.set_tree(tree);
    Ok(response.into())
}

/// The share that `\\server\share` names. The server's part is not judged: clients know us by many names.
fn find(cx: &Context, path: &[u16]) -> Result<Arc<Share>, NtStatus> {
    const SEPARATOR: u16 = b'\\' as u16;
    let rest = path.strip_prefix(&[SEPARATOR, SEPARATOR]).ok_or(NtStatus::INVALID_PARAMETER)?;
    let mut parts = rest.split(|unit| *unit == SEPARATOR);
    let (Some(server), Some(share), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NtStatus::BAD_NETWORK_NAME);
    };
    if server.is_empty() || share.is_empty() || share.len() > NAME_MAX {
        return Err(NtStatus::BAD_NETWORK_NAME);
    }
    let name = String::from_utf16(share).map_err(|_| NtStatus::BAD_NETWORK_NAME)?;
    cx.server.shares.load().find(&name).ok_or(NtStatus::BAD_NETWORK_NAME)
}

fn share_flags(share: &Share) -> u32 {
    let caching =
        if share.is_pipe() { TreeConnectResponse::NO_CACHING } else { TreeConnectResponse::MANUAL_CACHING };
    caching | if share.encrypt { TreeConnectResponse::ENCRYPT_DATA } else { 0 }
}
