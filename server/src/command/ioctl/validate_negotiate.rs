//! FSCTL_VALIDATE_NEGOTIATE_INFO: 2.2.31.4 and 2.2.32.6; processing in 3.3.5.15.12.
//!
//! A 3.0 client asks, under signature, for what was negotiated without one. If the two differ somebody in between has
//! changed it, and the connection ends.

use bytes::BytesMut;
use shoal_protocol::NtStatus;
use shoal_protocol::fscc::fsctl::{ValidateNegotiateInfoRequest, ValidateNegotiateInfoResponse};
use shoal_protocol::smb2::ioctl::{IoctlRequest, IoctlResponse};
use shoal_protocol::smb2::negotiate::Dialect;

use crate::context::Context;
use crate::misbehaved::Misbehaved;
use crate::reply::Reply;

/// Bytes of the answer.
const RESPONSE: u32 = 24;

/// Answers it, or ends the connection.
pub async fn handle(cx: &Context, request: &IoctlRequest) -> Result<Reply, NtStatus> {
    let Some(response) = validate(cx, request) else {
        cx.connection.misbehaved(Misbehaved::NegotiationTampered);
        // Nothing leaves on a connection that ends.
        return Err(NtStatus::ACCESS_DENIED);
    };
    let mut output = BytesMut::new();
    response.encode(&mut output);
    let response = IoctlResponse {
        ctl_code: request.ctl_code,
        file_id: request.file_id,
        flags: 0,
        input: Default::default(),
        output: output.freeze(),
    };
    Ok(response.into())
}

/// What to answer; `None` if it is not what was negotiated.
fn validate(cx: &Context, request: &IoctlRequest) -> Option<ValidateNegotiateInfoResponse> {
    let negotiated = cx.connection.negotiated()?;
    // 3.3.5.15.12: a 3.1.1 client has the preauthentication hash and does not ask.
    if negotiated.dialect == Dialect::Smb311 || request.max_output_response < RESPONSE {
        return None;
    }
    let claimed = ValidateNegotiateInfoRequest::parse(&request.input).ok()?;
    let same = cx.connection.settings.greatest_common(&claimed.dialects) == Some(negotiated.dialect)
        && claimed.dialects == negotiated.client_dialects
        && claimed.guid == negotiated.client_guid
        && claimed.security_mode == negotiated.client_security_mode.bits()
        && claimed.capabilities == negotiated.client_capabilities.bits();
    same.then(|| ValidateNegotiateInfoResponse {
        capabilities: negotiated.capabilities.bits(),
        guid: cx.connection.settings.server_guid,
        security_mode: negotiated.security_mode.bits(),
        dialect: negotiated.dialect as u16,
    })
}
