//! SMB2 CANCEL: 2.2.30. It has no response.

empty_message! {
    /// Ends the operation that the header's AsyncId or MessageId names.
    CancelRequest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::codec;

    #[test]
    fn request() {
        codec("0400 0000", &CancelRequest {}, CancelRequest::parse, CancelRequest::encode);
    }
}
