//! The chain loop, what is proven before a handler runs, and its answer. MS-SMB2 3.3.5.2.4 to 3.3.5.2.11, 3.3.4.1.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use shoal_protocol::NtStatus;
use shoal_protocol::crypto::{GmacNonce, PreauthHash};
use shoal_protocol::smb2::header::{Command, Header, HeaderFlags, Routing};
use shoal_protocol::smb2::negotiate::Dialect;
use shoal_protocol::smb2::{FileId, Request, Response, SessionId, TreeId};
use tokio::time::{Instant, Sleep, sleep};

use crate::Server;
use crate::budget::Charge;
use crate::command::{self, Needs, cancel};
use crate::connection::Connection;
use crate::context::{AnswerIds, Chain, Context, RelatedOpen};
use crate::pending::Ticket;
use crate::reply::{Reply, ReplyFrame};
use crate::state::session::Session;

/// A request that takes longer than this goes async, so that its client knows that we are at it.
const SLOW: Duration = Duration::from_millis(500);

/// The answers of a chain are sent when there is so much of them, even if the chain goes on: a frame has a bound, and our
/// memory too.
const FRAME_REPLIES: usize = 1 << 20;

/// What a client gets at once that has not logged in.
const CREDITS_BEFORE_LOGIN: u16 = 32;

/// A payload that a credit pays for: 3.3.5.2.5.
const CREDIT: usize = 64 * 1024;

/// One request of a chain, as it came.
pub(crate) struct Incoming {
    pub header: Header,
    /// The command's number, which may be none of [`Command`]'s; the header's command is ECHO then.
    pub number: u16,
    pub message: Bytes,
}

impl Incoming {
    /// What its answer may take at most, from what can be told without parsing it: for the budget.
    pub(crate) fn reply_size(&self) -> usize {
        let paid = usize::from(self.header.credit_charge.max(1)) * CREDIT;
        match self.header.command {
            // 2.2.19: Length stands at byte 4 of the body.
            Command::Read => {
                let length = self
                    .message
                    .get(Header::LEN + 4..Header::LEN + 8)
                    .and_then(|bytes| bytes.try_into().ok());
                length.map_or(0, |bytes| u32::from_le_bytes(bytes) as usize).min(paid)
            }
            Command::QueryDirectory | Command::QueryInfo | Command::Ioctl => paid,
            _ => 512,
        }
    }
}

impl Context {
    pub(crate) fn new(
        server: Arc<Server>,
        connection: Arc<Connection>,
        encrypted: Option<Arc<Session>>,
        ticket: Arc<Ticket>,
        charge: Charge,
    ) -> Context {
        let chain = Chain {
            session: None,
            tree: None,
            open: RelatedOpen::None,
            answer: AnswerIds { session: SessionId(0), tree: TreeId(0), asynchronous: None },
            signer: None,
            proven: None,
            replies: ReplyFrame::new(encrypted.clone()),
            charge: Some(charge),
        };
        Context {
            server,
            connection,
            header: Header::request(Command::Echo),
            command_number: Command::Echo as u16,
            message: Bytes::new(),
            encrypted,
            related: false,
            orphan: false,
            last: true,
            compound: false,
            ticket,
            chain: Mutex::new(chain),
        }
    }
}

/// Handles the requests of one frame in order, and sends their answers.
pub(crate) async fn chain(cx: &mut Context, requests: Vec<Incoming>) {
    let mut left = requests.len();
    cx.compound = left > 1;
    // 3.3.5.2.7.2: "If the first operation has SMB2_FLAGS_RELATED_OPERATIONS set, the server SHOULD fail processing the
    // compound chain request."
    let first_is_related = requests.first().is_some_and(|request| request.header.is_related());
    for (index, Incoming { header, number, message }) in requests.into_iter().enumerate() {
        left -= 1;
        cx.last = left == 0;
        cx.related = index > 0 && header.is_related();
        cx.header = header;
        cx.command_number = number;
        cx.message = message;
        cx.orphan = first_is_related && (index == 0 || cx.related);
        let chain = cx.chain.get_mut();
        chain.answer =
            AnswerIds { session: cx.header.session_id, tree: cx.header.tree_id(), asynchronous: None };
        chain.signer = None;
        if !cx.related {
            chain.session = None;
            chain.tree = None;
            chain.open = RelatedOpen::None;
        }
        let command = cx.header.command;
        let reply = one(cx).await;
        if cx.connection.is_ending() {
            return;
        }
        if let Some(reply) = reply {
            cx.connection.metrics.answered(command, reply.status);
            answer(cx, &reply);
        }
    }
    let chain = cx.chain.get_mut();
    let charge = chain.charge.take();
    if let Some(mut frame) = chain.replies.take() {
        // From here on the answer is what is in flight, not the request.
        frame.charge = charge.map(|mut charge| {
            charge.settle(frame.len());
            charge
        });
        cx.connection.outbox.push(frame);
        if cx.ticket.moved.load(Ordering::SeqCst) {
            cx.connection.outbox.flush();
        }
    }
}

/// Proves what the request needs, runs its handler, and makes every failure an answer. `None`: there is no answer.
async fn one(cx: &mut Context) -> Option<Reply> {
    let command = cx.header.command;
    if command == Command::Cancel {
        if may_cancel(&cx.connection, &cx.header, &cx.message, cx.encrypted.as_deref()) {
            cancel::handle(&cx.connection, &cx.header);
        }
        return None;
    }
    let request = match prove(cx) {
        Ok(request) => request,
        Err(status) => {
            note_failure(cx, command, status);
            return Some(Reply::error(status));
        }
    };
    let reply = handler(cx, request).await.unwrap_or_else(Reply::error);
    if reply.status.is_error() {
        note_failure(cx, command, reply.status);
    }
    Some(reply)
}

/// 3.3.5.2.7.2: a CREATE that failed has no FileId to give, but its status.
fn note_failure(cx: &mut Context, command: Command, status: NtStatus) {
    if command == Command::Create {
        cx.chain.get_mut().open = RelatedOpen::Failed(status);
    }
}

/// Runs the handler. A panic is caught here, at the border of the task, and answered; a request that is slow goes async.
async fn handler(cx: &Context, request: Request) -> Result<Reply, NtStatus> {
    let command = cx.header.command;
    let span = tracing::debug_span!(
        "request",
        message = cx.header.message_id.0,
        session = %cx.header.session_id,
        ?command
    );
    let mut handler = pin!(command::handle(cx, request));
    let may_go_async = cx.last && command::needs(command) == Needs::Tree;
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|task| {
        let _entered = span.enter();
        match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(task))) {
            Ok(Poll::Ready(result)) => {
                let status = result.as_ref().map_or_else(|status| *status, |reply| reply.status);
                tracing::debug!(%status, "answered");
                return Poll::Ready(result);
            }
            Ok(Poll::Pending) => {}
            Err(panic) => {
                let what = panic.downcast_ref::<&str>().copied();
                let what = what.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("");
                tracing::error!(connection = cx.connection.id, ?command, "a handler panicked: {what}");
                cx.connection.metrics.panicked();
                return Poll::Ready(Err(NtStatus::INTERNAL_ERROR));
            }
        }
        if may_go_async && !cx.is_async() {
            let timer = timer.get_or_insert_with(|| Box::pin(sleep(SLOW)));
            if timer.as_mut().poll(task).is_ready() {
                // At the limit of waiting requests it stays as it is: the client waits without knowing.
                let _ = cx.go_async();
            }
        }
        Poll::Pending
    })
    .await
}

/// Finds the session and tree connect, verifies the signature, checks the credits and parses. The order is that of 3.3.5.2.4,
/// .5, .9 and .11.
fn prove(cx: &mut Context) -> Result<Request, NtStatus> {
    let command = cx.header.command;
    let needs = command::needs(command);
    let chain = cx.chain.get_mut();
    if cx.related && !cx.orphan {
        chain.answer.session = chain.session.as_ref().map_or(cx.header.session_id, |session| session.id);
        chain.answer.tree = chain.tree.as_ref().map_or(cx.header.tree_id(), |tree| tree.id);
    } else if command != Command::Negotiate {
        chain.session = cx.connection.session(cx.header.session_id);
    }
    if let Some(encrypted) = &cx.encrypted
        && chain.session.as_ref().is_some_and(|session| session.id != encrypted.id)
    {
        // Whoever has one session's keys does not speak for another's.
        chain.session = None;
        return Err(NtStatus::ACCESS_DENIED);
    }
    // 3.3.5.2.7.2: "if the previous operation failed to create SessionId or TreeId, or the previous operation does not
    // contain a SessionId or TreeId, the server MUST fail the current operation ... with STATUS_INVALID_PARAMETER".
    let fails = cx.orphan
        || cx.related && (needs >= Needs::Session && chain.session.is_none())
        || cx.related && (needs == Needs::Tree && chain.tree.is_none())
        || cx.command_number != command as u16;
    // What inherits no session may still be signed by that of the request before, and has its refusal signed then.
    let session = match &chain.session {
        None if fails => chain.proven.as_ref(),
        session => session.as_ref(),
    };
    let signed = cx.header.is_signed();
    let verified = verify(
        &cx.connection,
        &cx.header,
        &cx.message,
        cx.encrypted.is_some(),
        session.map(|session| &**session),
    );
    if verified.is_ok() {
        // An encrypted answer needs no signature, and `reply` gives it none.
        chain.signer = session.filter(|session| signed || session.signing_required).cloned();
        // Only a request that follows looks at it.
        if signed && !cx.last {
            chain.proven = chain.signer.clone();
        }
    }
    if fails {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    verified?;
    if needs >= Needs::Session {
        let session = chain.session.as_ref().ok_or(NtStatus::USER_SESSION_DELETED)?;
        // A request before in this chain, or on another core, may have ended it.
        if session.is_closed() {
            return Err(NtStatus::USER_SESSION_DELETED);
        }
        if session.has_expiry()
            && session.is_expired(Instant::now())
            && !command::allowed_when_expired(command)
        {
            return Err(NtStatus::NETWORK_SESSION_EXPIRED);
        }
        if session.encrypt_data && cx.encrypted.is_none() {
            return Err(NtStatus::ACCESS_DENIED);
        }
        if needs == Needs::Tree {
            if !cx.related {
                chain.tree = session.tree(cx.header.tree_id());
            }
            let tree = chain.tree.as_ref().ok_or(NtStatus::NETWORK_NAME_DELETED)?;
            if tree.is_closed() {
                return Err(NtStatus::NETWORK_NAME_DELETED);
            }
            if tree.share.encrypt && cx.encrypted.is_none() {
                return Err(NtStatus::ACCESS_DENIED);
            }
        }
    }
    let request = Request::parse(command, &cx.message).map_err(|malformed| {
        tracing::debug!(?command, "malformed request: {malformed}");
        NtStatus::INVALID_PARAMETER
    })?;
    // Whatever becomes of this request, the next one in the chain refers to the file that it names: 3.3.5.2.7.2.
    if !cx.related
        && let Some(id) = file_id(&request)
    {
        chain.open = RelatedOpen::Id(id);
    }
    check_sizes(cx, &request)?;
    Ok(request)
}

/// The FileId that a request contains.
fn file_id(request: &Request) -> Option<FileId> {
    Some(match request {
        Request::Close(request) => request.file_id,
        Request::Flush(request) => request.file_id,
        Request::Read(request) => request.file_id,
        Request::Write(request) => request.file_id,
        Request::Lock(request) => request.file_id,
        Request::Ioctl(request) => request.file_id,
        Request::QueryDirectory(request) => request.file_id,
        Request::ChangeNotify(request) => request.file_id,
        Request::QueryInfo(request) => request.file_id,
        Request::SetInfo(request) => request.file_id,
        Request::Negotiate(_)
        | Request::SessionSetup(_)
        | Request::Logoff(_)
        | Request::TreeConnect(_)
        | Request::TreeDisconnect(_)
        | Request::Create(_)
        | Request::Cancel(_)
        | Request::Echo(_)
        | Request::OplockBreak(_) => return None,
    })
}

/// The signature of a request: 3.3.5.2.4.
fn verify(
    connection: &Connection,
    header: &Header,
    message: &[u8],
    encrypted: bool,
    session: Option<&Session>,
) -> Result<(), NtStatus> {
    if encrypted || header.command == Command::Negotiate {
        return Ok(());
    }
    if !header.is_signed() {
        let required = session.is_some_and(|session| session.signing_required);
        return if required { Err(NtStatus::ACCESS_DENIED) } else { Ok(()) };
    }
    let Some(session) = session else {
        // SESSION_SETUP finds its own way: of a session that is being set up there are no keys, and one that is to be
        // bound is another connection's.
        let no_matter = header.command == Command::SessionSetup;
        return if no_matter { Ok(()) } else { Err(NtStatus::USER_SESSION_DELETED) };
    };
    match session.keys() {
        // A guest or anonymous session has no key: what it signs with says nothing, and nothing asks for it.
        None => Ok(()),
        Some(keys) if keys.signing.verify(message, GmacNonce::request(header)) => Ok(()),
        Some(_) => {
            tracing::debug!(connection = connection.id, session = %session.id, "wrong signature");
            Err(NtStatus::ACCESS_DENIED)
        }
    }
}

/// Whether a CANCEL may cancel: it has no answer to refuse it with, so that an unproven one is passed over.
pub(crate) fn may_cancel(
    connection: &Connection,
    header: &Header,
    message: &[u8],
    encrypted: Option<&Session>,
) -> bool {
    if encrypted.is_some() {
        return true;
    }
    let session = connection.session(header.session_id);
    if session.as_ref().is_some_and(|session| session.encrypt_data) {
        return false;
    }
    verify(connection, header, message, false, session.as_deref()).is_ok()
}

/// The sizes that a request names, against what was negotiated and what its credits pay for: 3.3.5.2.5 and the commands'
/// own sections.
fn check_sizes(cx: &Context, request: &Request) -> Result<(), NtStatus> {
    let Some(negotiated) = cx.connection.negotiated() else { return Ok(()) };
    let (transact, read, write) =
        (negotiated.max_transact_size, negotiated.max_read_size, negotiated.max_write_size);
    let (sent, received, limit) = match request {
        Request::Read(request) => (0, request.length as usize, read),
        Request::Write(request) => (request.data.len(), 0, write),
        Request::Ioctl(request) => {
            let sent = request.input.len() + request.output.len();
            let received =
                (request.max_input_response as usize).saturating_add(request.max_output_response as usize);
            (sent, received, transact)
        }
        Request::QueryDirectory(request) => (0, request.output_buffer_length as usize, transact),
        Request::ChangeNotify(request) => (0, request.output_buffer_length as usize, transact),
        Request::QueryInfo(request) => (request.input.len(), request.output_buffer_length as usize, transact),
        Request::SetInfo(request) => (request.buffer.len(), 0, transact),
        _ => return Ok(()),
    };
    let largest = sent.max(received);
    if largest > limit as usize {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    // "If Connection.SupportsMultiCredit is TRUE, the server MUST verify the CreditCharge field ... against the size"
    if negotiated.multi_credit && largest > usize::from(cx.header.credit_charge.max(1)) * CREDIT {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    Ok(())
}

/// The header of an answer: 3.3.4.1.1 to 3.3.4.1.3. `interim`: the one that says that another follows.
pub(crate) fn answer_header(cx: &Context, ids: AnswerIds, status: NtStatus, interim: bool) -> Header {
    let mut flags = HeaderFlags::SERVER_TO_REDIR;
    flags |= cx.header.flags & HeaderFlags::PRIORITY_MASK;
    if cx.related && !interim {
        flags |= HeaderFlags::RELATED_OPERATIONS;
    }
    let routing = match (ids.asynchronous, cx.header.routing) {
        (Some(id), _) => {
            flags |= HeaderFlags::ASYNC_COMMAND;
            Routing::Async(id)
        }
        (None, Routing::Sync { process_id, .. }) => Routing::Sync { process_id, tree_id: ids.tree },
        (None, Routing::Async(_)) => Routing::Sync { process_id: 0, tree_id: ids.tree },
    };
    if status == NtStatus::USER_SESSION_DELETED && cx.header.is_signed() {
        // There is no key any more; but a client that requires signatures believes the status only with the flag.
        flags |= HeaderFlags::SIGNED;
    }
    // 3.3.4.2 and 3.3.4.3: the interim response carries the credits, the final one none.
    let credits = match (interim, ids.asynchronous) {
        (false, Some(_)) => 0,
        // Nobody needs many requests to log in.
        _ if !cx.connection.is_logged_in() => {
            cx.connection.window.lock().grant(cx.header.credits.min(CREDITS_BEFORE_LOGIN))
        }
        _ => cx.connection.window.lock().grant(cx.header.credits),
    };
    Header {
        credit_charge: cx.header.credit_charge,
        status,
        command: cx.header.command,
        credits,
        flags,
        next_command: 0,
        message_id: cx.header.message_id,
        routing,
        session_id: ids.session,
        signature: [0; 16],
    }
}

/// Adds the answer to those of the chain.
fn answer(cx: &mut Context, reply: &Reply) {
    let ids = cx.chain.get_mut().answer;
    let header = answer_header(cx, ids, reply.status, false);
    let chain = cx.chain.get_mut();
    let signer = chain.signer.take();
    chain.replies.push(header, cx.command_number, &reply.body, signer);
    if let Some(id) = ids.asynchronous {
        cx.connection.pending.answered(id);
    }
    note_preauth(&cx.connection, chain, reply);
    if !cx.last
        && chain.replies.len() >= FRAME_REPLIES
        && let Some(mut frame) = chain.replies.take()
    {
        frame.charge = Some(cx.connection.budget.charge(frame.len()));
        cx.connection.outbox.push(frame);
        if cx.ticket.moved.load(Ordering::SeqCst) {
            cx.connection.outbox.flush();
        }
    }
}

/// The answers that are part of the preauthentication hash: 3.3.5.4, 3.3.5.5.
fn note_preauth(connection: &Connection, chain: &Chain, reply: &Reply) {
    if connection.dialect() != Some(Dialect::Smb311) {
        return;
    }
    let update = |hash: &mut PreauthHash| hash.update(chain.replies.last_message());
    match &reply.body {
        Response::Negotiate(_) => update(&mut connection.preauth.lock()),
        Response::SessionSetup(_) if reply.status == NtStatus::MORE_PROCESSING_REQUIRED => {
            if let Some(handshake) = connection.handshakes.lock().get_mut(&chain.answer.session) {
                update(&mut handshake.preauth);
            }
        }
        _ => {}
    }
}
