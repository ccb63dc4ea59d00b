//! Per Open: MS-SMB2 3.3.1.10.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::smb2::FileId;
use shoal_protocol::smb2::create::CreateOptions;
use shoal_vfs::{BackendFile, Link, Node};

use super::enumeration::Enumeration;
use super::file::{NodeState, StreamName};
use super::session::Session;
use super::share_mode::Claim;
use super::tree::TreeConnect;
use crate::pipe::Pipe;

/// A handle that a client holds.
pub struct Open {
    /// Open.FileId and Open.DurableFileId. Both halves are drawn at random: neither can be guessed.
    pub id: FileId,
    /// Open.Session.
    pub session: Weak<Session>,
    /// Open.TreeConnect.
    pub tree: Arc<TreeConnect>,
    /// Open.GrantedAccess.
    pub granted_access: AccessMask,
    /// Open.CreateOptions.
    pub create_options: CreateOptions,
    /// What it is a handle of.
    pub object: Object,
    closed: AtomicBool,
}

/// What an open is a handle of.
pub enum Object {
    /// A file or directory of a disk share.
    Disk(DiskObject),
    /// A named pipe.
    Pipe(Pipe),
}

/// A file or directory that is open.
pub struct DiskObject {
    /// The name that it was opened by, wherever that is now, and through it the node.
    pub link: Arc<Link<NodeState>>,
    /// The stream.
    pub stream: StreamName,
    /// The storage's side.
    pub file: Arc<dyn BackendFile>,
    /// What it asks of the file's data and grants to others, as counted in the node's state.
    pub claim: Claim,
    /// For a directory: where its listing stands. Queries of one handle run one after another.
    pub enumeration: Option<Box<tokio::sync::Mutex<Enumeration>>>,
    /// What changes while it is open.
    pub changing: Mutex<Changing>,
}

/// What changes while a file or directory is open.
#[derive(Debug, Default)]
pub struct Changing {
    /// FilePositionInformation: what a client set, or where its last READ or WRITE ended.
    pub position: u64,
    /// FileModeInformation, as a client set it.
    pub mode: u32,
    /// FILE_DELETE_ON_CLOSE: when this handle closes, the name becomes delete-pending.
    pub delete_on_close: bool,
    /// FILE_DISPOSITION_POSIX_SEMANTICS: when this handle closes, a name that is delete-pending goes, whoever else has it open.
    pub posix_delete: bool,
    /// Data was written, so that its close may have a write time to settle.
    pub wrote: bool,
    /// The file is not marked ARCHIVE: the first write through this handle does that.
    pub archive_due: bool,
}

impl Open {
    /// A handle that is open.
    pub fn new(
        id: FileId,
        session: Weak<Session>,
        tree: Arc<TreeConnect>,
        granted_access: AccessMask,
        create_options: CreateOptions,
        object: Object,
    ) -> Open {
        Open { id, session, tree, granted_access, create_options, object, closed: AtomicBool::new(false) }
    }

    /// The file or directory. INVALID_DEVICE_REQUEST for a pipe.
    pub fn disk(&self) -> Result<&DiskObject, NtStatus> {
        match &self.object {
            Object::Disk(disk) => Ok(disk),
            Object::Pipe(_) => Err(NtStatus::INVALID_DEVICE_REQUEST),
        }
    }

    /// Whether it is being closed, or is closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Begins its close. False if that has begun before: then somebody else does it.
    pub fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::SeqCst)
    }
}

impl DiskObject {
    /// The node.
    pub fn node(&self) -> &Arc<Node<NodeState>> {
        self.link.node()
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.enumeration.is_some()
    }
}
