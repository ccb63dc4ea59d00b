//! SMB2 LOGOFF: 2.2.7 and 2.2.8; processing in 3.3.5.6.

use shoal_protocol::NtStatus;
use shoal_protocol::smb2::logoff::{LogoffRequest, LogoffResponse};

use crate::context::Context;
use crate::reply::Reply;
use crate::teardown;

/// Answers a LOGOFF, when all that the session had is closed.
pub async fn handle(cx: &Context, _request: LogoffRequest) -> Result<Reply, NtStatus> {
    let session = cx.session()?;
    teardown::end_session(&cx.server, &session).await;
    tracing::info!(connection = cx.connection.id, session = %session.id, "logged off");
    Ok(LogoffResponse {}.into())
}
