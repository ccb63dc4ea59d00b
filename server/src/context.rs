//! What a handler has in hand: possession is the proof of the check.
//!
//! One [`Context`] lives as long as one chain of requests, and belongs to whoever runs the chain; between two requests
//! `dispatch` puts the next request's header and what it has proven into it. Handlers see it shared.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::header::Header;
use shoal_protocol::smb2::{AsyncId, FileId, SessionId, TreeId};

use crate::Server;
use crate::budget::Charge;
use crate::connection::Connection;
use crate::pending::Ticket;
use crate::reply::ReplyFrame;
use crate::state::open::Open;
use crate::state::session::Session;
use crate::state::tree::TreeConnect;

/// The request that is being answered, and the chain that it stands in.
pub struct Context {
    /// The server.
    pub server: Arc<Server>,
    /// The connection that the request came on.
    pub connection: Arc<Connection>,
    /// The request's header.
    pub header: Header,
    /// The request's whole message, header included.
    pub message: Bytes,
    /// Request.IsEncrypted: the session whose keys opened the frame. The whole answer is encrypted with them too.
    pub encrypted: Option<Arc<Session>>,
    /// The command's number as it came: it may be one that nobody defined, and the answer repeats it.
    pub(crate) command_number: u16,
    /// Whether the request goes on with what the one before it used (SMB2_FLAGS_RELATED_OPERATIONS).
    pub(crate) related: bool,
    /// Whether it goes back to a first request that is itself related to nothing: it fails (3.3.5.2.7.2).
    pub(crate) orphan: bool,
    /// Whether nothing follows in the chain: only then may the request go async.
    pub(crate) last: bool,
    /// Whether more than one request came in this frame.
    pub(crate) compound: bool,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) chain: Mutex<Chain>,
}

/// What changes while a request is handled, and what the next one in the chain inherits.
pub(crate) struct Chain {
    pub session: Option<Arc<Session>>,
    pub tree: Option<Arc<TreeConnect>>,
    pub open: RelatedOpen,
    /// The ids for the header of the answer.
    pub answer: AnswerIds,
    /// Who signs the answer, if it is signed.
    pub signer: Option<Arc<Session>>,
    /// The session that last proved itself by a signature in this chain.
    pub proven: Option<Arc<Session>>,
    /// The answers so far.
    pub replies: ReplyFrame,
    /// What this chain has charged to the budgets.
    pub charge: Option<Charge>,
}

/// The ids that the header of an answer carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerIds {
    pub session: SessionId,
    pub tree: TreeId,
    /// Set when the request has gone async: its final answer carries it.
    pub asynchronous: Option<AsyncId>,
}

/// The FileId that a related request would use (3.3.5.2.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RelatedOpen {
    /// The request before neither contained nor made a FileId.
    None,
    /// It contained or made this one.
    Id(FileId),
    /// It was a CREATE that failed with this status.
    Failed(NtStatus),
}

impl Context {
    /// The session of the request, valid when the request began.
    pub fn session(&self) -> Result<Arc<Session>, NtStatus> {
        self.chain.lock().session.clone().ok_or(NtStatus::USER_SESSION_DELETED)
    }

    /// The tree connect of the request, connected when the request began.
    pub fn tree(&self) -> Result<Arc<TreeConnect>, NtStatus> {
        self.chain.lock().tree.clone().ok_or(NtStatus::NETWORK_NAME_DELETED)
    }

    /// The open that `id` means, within this session and tree connect; in a related request whatever the request before
    /// it used, without regard to `id` (3.3.5.2.7.2: "the values used for FileId ... MUST be the ones used in
    /// processing the previous operation").
    ///
    /// FILE_CLOSED if there is none (3.3.5.12 and the others), INVALID_HANDLE if the request before has none to give, and
    /// the status of the CREATE before it that failed.
    pub fn open(&self, id: FileId) -> Result<Arc<Open>, NtStatus> {
        let mut chain = self.chain.lock();
        let id = match (self.related, chain.open) {
            (false, _) => id,
            (true, RelatedOpen::Id(id)) => id,
            (true, RelatedOpen::None) => return Err(NtStatus::INVALID_HANDLE),
            (true, RelatedOpen::Failed(status)) => return Err(status),
        };
        chain.open = RelatedOpen::Id(id);
        let session = chain.session.as_ref().ok_or(NtStatus::USER_SESSION_DELETED)?;
        let tree = chain.tree.as_ref().ok_or(NtStatus::NETWORK_NAME_DELETED)?;
        session
            .open(id.volatile)
            .filter(|open| open.id == id && open.tree.id == tree.id)
            .ok_or(NtStatus::FILE_CLOSED)
    }

    /// Makes `id` what related requests that follow refer to. CREATE calls it with what it opened.
    pub fn set_related_open(&self, id: FileId) {
        self.chain.lock().open = RelatedOpen::Id(id);
    }

    /// Makes `session` the session of this answer and of what follows, and has the answer signed or not. SESSION_SETUP calls
    /// it.
    pub(crate) fn set_session(&self, session: Arc<Session>, sign: bool) {
        let mut chain = self.chain.lock();
        chain.answer.session = session.id;
        if sign {
            chain.signer = Some(session.clone());
        }
        chain.session = Some(session);
    }

    /// Has the answer signed with the keys of a session that is not the request's.
    pub(crate) fn set_signer(&self, session: Arc<Session>) {
        self.chain.lock().signer = Some(session);
    }

    /// Puts `id` into the header of the answer: a session that is only being set up has no more than an id.
    pub(crate) fn set_answer_session(&self, id: SessionId) {
        self.chain.lock().answer.session = id;
    }

    /// Makes `tree` the tree connect of this answer and of what follows. TREE_CONNECT calls it.
    pub(crate) fn set_tree(&self, tree: Arc<TreeConnect>) {
        let mut chain = self.chain.lock();
        chain.answer.tree = tree.id;
        chain.tree = Some(tree);
    }

    /// Whether this request was encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted.is_some()
    }
}
