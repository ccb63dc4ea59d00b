//! Replies: MS-SMB2 3.3.4.1. The only way out for anything that answers a request.
//!
//! A handler returns a [`Reply`]; [`ReplyFrame`] turns the replies of a chain into one frame: headers, padding,
//! NextCommand, signatures, encryption.
