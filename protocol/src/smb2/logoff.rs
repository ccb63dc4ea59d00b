//! SMB2 LOGOFF: 2.2.7 and 2.2.8.

empty_message! {
    /// Ends the session that the header names.
    LogoffRequest
}

empty_message! {
    /// The session has ended.
    LogoffResponse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::codec;

    #[test]
    fn request_and_response() {
        codec("0400 0000", &LogoffRequest {}, LogoffRequest::parse, LogoffRequest::encode);
        codec("0400 0000", &LogoffResponse {}, LogoffResponse::parse, LogoffResponse::encode);
    }
}
