//! SMB2 CANCEL: 2.2.30; processing in 3.3.5.16.

use shoal_protocol::smb2::header::Header;

use crate::connection::Connection;

/// Ends the wait of the request that the header names: by its AsyncId if the client knows one, else by its MessageId.
///
/// CANCEL is the one command without an answer. `receive` calls this on the reader, so that a CANCEL is never behind
/// what it cancels, and `dispatch` for one inside a chain.
pub(crate) fn handle(connection: &Connection, header: &Header) {
    connection.pending.cancel(header);
}
