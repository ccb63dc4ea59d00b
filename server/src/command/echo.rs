//! SMB2 ECHO: 2.2.28 and 2.2.29; processing in 3.3.5.17.

use shoal_protocol::NtStatus;
use shoal_protocol::smb2::echo::{EchoRequest, EchoResponse};

use crate::context::Context;
use crate::reply::Reply;

/// Answers an ECHO: the server is there. It needs no session.
pub async fn handle(_cx: &Context, _request: EchoRequest) -> Result<Reply, NtStatus> {
    Ok(EchoResponse {}.into())
}
