//! Our own client on `shoal-protocol`: 3.1.1, signed, encrypted or plain, with as many requests under way on a connection as the server grants credits.
//!
//! | file | what |
//! |---|---|
//! | [`connection`] | frames, credits, message ids, requests sent and replies collected |
//! | [`session`] | login, keys, signing and encryption of one session |
//! | [`requests`] | requests with sensible fields |
//! | [`sequential`] | one request after the other, and raw frames: for checks that need many clients or bad ones |
//!
//! What foreign clients can prove is proven with them. This one is for what they cannot do: hundreds of requests in one
//! moment, a load that costs the machine little, messages that are wrong. Whatever the server sends, the client gives an
//! error and does not panic.

mod connection;
mod requests;
mod sequential;
mod session;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Reply, Tree};
pub use requests::{
    close, create, delete_on_close, echo, names_of, negotiate, query_directory, query_info, read,
    rename_information, session_setup, set_info, write,
};
pub use sequential::Client;
pub use session::Protection;

use shoal_protocol::NtStatus;

/// Why a call did not give its answer.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The server answered with this status.
    Status(NtStatus),
    /// The connection or the answer was broken.
    Broken(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Status(status) => write!(f, "{status}"),
            Trouble::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Trouble {}

impl From<std::io::Error> for Trouble {
    fn from(e: std::io::Error) -> Self {
        Trouble::Broken(format!("connection: {e}"))
    }
}

/// A result of the client.
pub type Result<T, E = Trouble> = std::result::Result<T, E>;

fn broken(what: &str) -> impl Fn(shoal_protocol::Malformed) -> Trouble {
    move |e| Trouble::Broken(format!("{what}: {e}"))
}
