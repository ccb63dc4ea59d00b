//! One file for each of the 19 commands, and the one `match` that leads to them.
//!
//! [`Needs`] says what a command needs before its handler runs (3.3.5.2.9, 3.3.5.2.11): `dispatch` proves it, and
//! the handler gets it with `cx.session()?` and `cx.tree()?`.

pub mod cancel;
pub mod change_notify;
pub mod close;
pub mod create;
pub mod echo;
pub mod flush;
pub mod ioctl;
pub mod lock;
pub mod logoff;
pub mod negotiate;
pub mod oplock_break;
pub mod query_directory;
pub mod query_info;
pub mod read;
pub mod session_setup;
pub mod set_info;
pub mod tree_connect;
pub mod tree_disconnect;
pub mod write;

use shoal_protocol::NtStatus;
use shoal_protocol::smb2::{Command, Request};

use crate::context::Context;
use crate::reply::Reply;

/// What must be proven before a command's handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing: NEGOTIATE, SESSION_SETUP, CANCEL and ECHO find their own way.
    Nothing,
    /// A valid session.
    Session,
    /// A valid session and a tree connect of it.
    Tree,
}

/// What `command` needs.
pub fn needs(command: Command) -> Needs {
    match command {
        Command::Negotiate | Command::SessionSetup | Command::Cancel | Command::Echo => Needs::Nothing,
        Command::Logoff | Command::TreeConnect => Needs::Session,
        Command::TreeDisconnect
        | Command::Create
        | Command::Close
        | Command::Flush
        | Command::Read
        | Command::Write
        | Command::Lock
        | Command::Ioctl
        | Command::QueryDirectory
        | Command::ChangeNotify
        | Command::QueryInfo
        | Command::SetInfo
        | Command::OplockBreak => Needs::Tree,
    }
}

/// Whether a session that has to authenticate again, or is only being set up, may still send `command` (3.3.5.2.9).
pub fn allowed_when_expired(command: Command) -> bool {
    matches!(command, Command::Logoff | Command::Close | Command::Lock)
}

/// Runs the handler of `request`.
pub async fn handle(cx: &Context, request: Request) -> Result<Reply, NtStatus> {
    match request {
        Request::Negotiate(request) => negotiate::handle(cx, request).await,
        Request::SessionSetup(request) => session_setup::handle(cx, request).await,
        Request::Logoff(request) => logoff::handle(cx, request).await,
        Request::TreeConnect(request) => tree_connect::handle(cx, request).await,
        Request::TreeDisconnect(request) => tree_disconnect::handle(cx, request).await,
        Request::Create(request) => create::handle(cx, request).await,
        Request::Close(request) => close::handle(cx, request).await,
        Request::Flush(request) => flush::handle(cx, request).await,
        Request::Read(request) => read::handle(cx, request).await,
        Request::Write(request) => write::handle(cx, request).await,
        Request::Lock(request) => lock::handle(cx, request).await,
        Request::Ioctl(request) => ioctl::handle(cx, request).await,
        // `dispatch` does not bring it here: it has no answer.
        Request::Cancel(_) => Err(NtStatus::INVALID_PARAMETER),
        Request::Echo(request) => echo::handle(cx, request).await,
        Request::QueryDirectory(request) => query_directory::handle(cx, request).await,
        Request::ChangeNotify(request) => change_notify::handle(cx, request).await,
        Request::QueryInfo(request) => query_info::handle(cx, request).await,
        Request::SetInfo(request) => set_info::handle(cx, request).await,
        Request::OplockBreak(request) => oplock_break::handle(cx, request).await,
    }
}
