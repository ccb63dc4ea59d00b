//! SMB2 TREE_DISCONNECT: 2.2.11 and 2.2.12.

empty_message! {
    /// Ends the tree connect that the header names.
    TreeDisconnectRequest
}

empty_message! {
    /// The tree connect has ended.
    TreeDisconnectResponse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::codec;

    #[test]
    fn request_and_response() {
        let request = TreeDisconnectRequest {};
        codec("0400 0000", &request, TreeDisconnectRequest::parse, TreeDisconnectRequest::encode);
        let response = TreeDisconnectResponse {};
        codec("0400 0000", &response, TreeDisconnectResponse::parse, TreeDisconnectResponse::encode);
    }
}
