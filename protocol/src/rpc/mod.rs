//! DCE/RPC over the named pipes of IPC$: MS-RPCE (and C706, on which it builds), MS-SRVS, MS-WKST.
//!
//! | module | what |
//! |---|---|
//! | [`pdu`] | the fragments that go through a pipe: MS-RPCE 2.2.2, C706 chapter 12 |
//! | [`ndr`] | how arguments are laid out: C706 chapter 14 |
//! | [`srvsvc`] | the server service: shares, the server itself, its time |
//! | [`wkssvc`] | the workstation service |
//! | [`pipe`] | the server's end of a pipe: bytes in, bytes out |
//! | [`client`] | the client's end |
//!
//! A pipe asks [`Answers`] for what it is to say; it knows no server.

pub mod client;
pub mod ndr;
pub mod pdu;
pub mod pipe;
pub mod srvsvc;
pub mod wkssvc;

pub use pipe::{Pipe, PipeError};

use crate::dtyp::{FileTime, SecurityDescriptor};

/// ERROR_SUCCESS.
pub const SUCCESS: u32 = 0;
/// ERROR_ACCESS_DENIED.
pub const ACCESS_DENIED: u32 = 5;
/// ERROR_INVALID_LEVEL: the information level is not known.
pub const INVALID_LEVEL: u32 = 124;
/// ERROR_MORE_DATA: there is more than was asked for.
pub const MORE_DATA: u32 = 234;
/// NERR_NetNameNotFound: no share has the name.
pub const NET_NAME_NOT_FOUND: u32 = 2310;
/// NERR_DeviceNotShared: no share has the path.
pub const DEVICE_NOT_SHARED: u32 = 2311;

/// The interfaces that a pipe can offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interface {
    /// MS-SRVS, on the pipe `srvsvc`.
    Srvsvc,
    /// MS-WKST, on the pipe `wkssvc`.
    Wkssvc,
}

impl Interface {
    /// The interface of the pipe that a CREATE on IPC$ names, in any case; nothing if there is no such pipe.
    pub fn by_pipe_name(name: &[u16]) -> Option<Interface> {
        [Interface::Srvsvc, Interface::Wkssvc].into_iter().find(|interface| {
            let own = interface.pipe_name();
            own.len() == name.len()
                && own.bytes().zip(name).all(|(byte, &unit)| {
                    u8::try_from(unit).is_ok_and(|unit| unit.eq_ignore_ascii_case(&byte))
                })
        })
    }

    /// The pipe's name.
    pub const fn pipe_name(self) -> &'static str {
        match self {
            Interface::Srvsvc => "srvsvc",
            Interface::Wkssvc => "wkssvc",
        }
    }

    /// The interface's identifier and version.
    pub const fn syntax(self) -> pdu::Syntax {
        match self {
            Interface::Srvsvc => srvsvc::SYNTAX,
            Interface::Wkssvc => wkssvc::SYNTAX,
        }
    }
}

/// What a share is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ShareKind {
    /// Files.
    #[default]
    Disk,
    /// A printer's queue.
    Printer,
    /// Named pipes.
    Ipc,
}

/// What is said of a share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareEntry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ShareKind,
    /// Whether clients leave it out when they list shares for people.
    pub hidden: bool,
    /// What people read of it.
    pub comment: String,
    /// What it shares, as a Windows path (levels 2 and 502). Empty: not told.
    pub path: String,
    /// The most users at once; `u32::MAX`: no bound.
    pub max_uses: u32,
    /// Users now.
    pub current_uses: u32,
    /// SHI1005_FLAGS, how offline copies are made and so on: the ShareFlags of TREE_CONNECT.
    pub flags: u32,
    /// Who may use it (level 502), if told.
    pub security_descriptor: Option<SecurityDescriptor>,
}

/// What is said of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEntry {
    /// Its NetBIOS name.
    pub name: String,
    /// Its workgroup or domain.
    pub domain: String,
    /// What people read of it.
    pub comment: String,
    /// The version of Windows that it resembles.
    pub version_major: u32,
    /// The second number of it.
    pub version_minor: u32,
    /// SV_TYPE flags: MS-SRVS 2.2.2.7. See [`srvsvc::TYPE_FILE_SERVER`].
    pub server_type: u32,
    /// Sessions that may be idle at once: a figure that people read.
    pub users: u32,
}

/// What a pipe has to say to this caller. Shares that he may not see are not given.
pub trait Answers {
    /// The server.
    fn server(&self) -> ServerEntry;
    /// The shares, in the order in which they are listed. It must be the same from call to call for a listing in
    /// pieces to be whole.
    fn shares(&self) -> Vec<ShareEntry>;
    /// The time.
    fn now(&self) -> FileTime;
}
