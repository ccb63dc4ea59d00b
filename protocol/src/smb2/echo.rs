//! SMB2 ECHO: 2.2.28 and 2.2.29.

empty_message! {
    /// Asks whether the server is there.
    EchoRequest
}

empty_message! {
    /// It is.
    EchoResponse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::codec;

    #[test]
    fn request_and_response() {
        codec("0400 0000", &EchoRequest {}, EchoRequest::parse, EchoRequest::encode);
        codec("0400 0000", &EchoResponse {}, EchoResponse::parse, EchoResponse::encode);
    }
}
