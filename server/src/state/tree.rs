//! Per TreeConnect: MS-SMB2 3.3.1.9.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::smb2::TreeId;

use crate::share::Share;
use crate::state::session::Session;

/// One client's connection to one share, within a session.
pub struct TreeConnect {
    /// TreeConnect.TreeId, unique within the session.
    pub id: TreeId,
    /// TreeConnect.Share.
    pub share: Arc<Share>,
    /// TreeConnect.Session.
    pub session: Weak<Session>,
    /// TreeConnect.MaximalAccess: no open of this tree gets more.
    pub maximal_access: AccessMask,
    /// Set once, when the tree connect ends; from then on no open can be added to it.
    closed: AtomicBool,
}

impl TreeConnect {
    /// A tree connect that is alive.
    pub fn new(
        id: TreeId,
        share: Arc<Share>,
        session: Weak<Session>,
        maximal_access: AccessMask,
    ) -> TreeConnect {
        TreeConnect { id, share, session, maximal_access, closed: AtomicBool::new(false) }
    }

    /// Whether the tree connect has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Ends it. False if it had ended before: then somebody else closes its opens.
    pub fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::SeqCst)
    }
}
