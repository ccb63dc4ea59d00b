//! SMB2 TREE_DISCONNECT: 2.2.11 and 2.2.12; processing in 3.3.5.8.

use shoal_protocol::NtStatus;
use shoal_protocol::smb2::tree_disconnect::{TreeDisconnectRequest, TreeDisconnectResponse};

use crate::context::Context;
use crate::reply::Reply;
use crate::teardown;

/// Answers a TREE_DISCONNECT, when all that was open through it is closed.
pub async fn handle(cx: &Context, _request: TreeDisconnectRequest) -> Result<Reply, NtStatus> {
    let (session, tree) = (cx.session()?, cx.tree()?);
    teardown::end_tree(&cx.server, &session, &tree).await;
    Ok(TreeDisconnectResponse {}.into())
}
