//! Waiting requests: STATUS_PENDING, AsyncId and CANCEL. MS-SMB2 3.3.4.2, 3.3.4.3 and 3.3.5.16.
//!
//! The only owner of going async. A handler that has to wait for something that may take for ever calls
//! [`Context::park`]; one that merely takes long is made async by `dispatch`'s timer. Both end here: the answers so far
//! leave, an interim response with an AsyncId and the credits follows, and the final answer carries that id and no credits.
//!
//! Whoever ends a wait does not drop the handler: the wait ends with a status as its value, and the handler tidies up.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::error::ErrorResponse;
use shoal_protocol::smb2::header::Header;
use shoal_protocol::smb2::{AsyncId, MessageId, Response, SessionId, TreeId};

use crate::context::Context;
use crate::dispatch;
use crate::reply::ReplyFrame;

/// Between two pieces of long work: whatever else waits for this thread has its turn, and so has another thread that waits
/// for its processor with what a client has just asked.
pub(crate) async fn give_way() {
    tokio::task::yield_now().await;
    std::thread::yield_now();
}

/// Connection.AsyncCommandList, and of Connection.RequestList the requests that did not finish at once.
#[derive(Default)]
pub(crate) struct Pending {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Requests that have gone async.
    parked: HashMap<AsyncId, Parked>,
    /// All requests of chains that run in a task of their own.
    running: HashMap<MessageId, Arc<Ticket>>,
    last: u64,
}

struct Parked {
    ticket: Arc<Ticket>,
    message: MessageId,
    session: SessionId,
    tree: TreeId,
}

/// What a running chain shares with those who may interrupt it.
#[derive(Default)]
pub(crate) struct Ticket {
    state: Mutex<TicketState>,
    /// The chain left the reader for a task of its own: it writes its replies itself.
    pub moved: AtomicBool,
    /// A request of the chain went async, so that others know the ticket.
    pub parked: AtomicBool,
}

#[derive(Default)]
struct TicketState {
    /// Requests of the chain that were interrupted, and with what.
    interrupted: Vec<(MessageId, NtStatus)>,
    waker: Option<Waker>,
}

impl Ticket {
    fn interrupt(&self, message: MessageId, status: NtStatus) {
        let waker = {
            let mut state = self.state.lock();
            if state.interrupted.iter().any(|(id, _)| *id == message) {
                return;
            }
            state.interrupted.push((message, status));
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_interrupted(&self, message: MessageId, waker: &Waker) -> Option<NtStatus> {
        let mut state = self.state.lock();
        let found = state.interrupted.iter().find(|(id, _)| *id == message).map(|(_, status)| *status);
        if found.is_none() {
            state.waker = Some(waker.clone());
        }
        found
    }
}

impl Pending {
    /// Notes that the requests of a chain go on in a task of their own.
    pub(crate) fn moved(&self, messages: &[MessageId], ticket: &Arc<Ticket>) {
        ticket.moved.store(true, Ordering::SeqCst);
        let mut table = self.table.lock();
        for message in messages {
            table.running.insert(*message, ticket.clone());
        }
    }

    /// Notes that such a chain is done.
    pub(crate) fn finished(&self, messages: &[MessageId]) {
        let mut table = self.table.lock();
        for message in messages {
            table.running.remove(message);
        }
    }

    /// Notes that a request's final answer is made.
    pub(crate) fn answered(&self, id: AsyncId) {
        self.table.lock().parked.remove(&id);
    }

    /// SMB2 CANCEL: 3.3.5.16. What is not found has been answered, or soon will be; a CANCEL has no answer of its own.
    pub(crate) fn cancel(&self, header: &Header) {
        let found = {
            let table = self.table.lock();
            match header.async_id() {
                Some(id) => table.parked.get(&id).map(|parked| (parked.ticket.clone(), parked.message)),
                None => {
                    table.running.get(&header.message_id).map(|ticket| (ticket.clone(), header.message_id))
                }
            }
        };
        if let Some((ticket, message)) = found {
            ticket.interrupt(message, NtStatus::CANCELLED);
        }
    }

    /// Ends the waits of a session, or of one tree connect of it, or all of them.
    pub(crate) fn interrupt(&self, session: Option<SessionId>, tree: Option<TreeId>, status: NtStatus) {
        let found: Vec<_> = {
            let table = self.table.lock();
            let wanted = |parked: &&Parked| {
                session.is_none_or(|id| parked.session == id) && tree.is_none_or(|id| parked.tree == id)
            };
            table
                .parked
                .values()
                .filter(wanted)
                .map(|parked| (parked.ticket.clone(), parked.message))
                .collect()
        };
        for (ticket, message) in found {
            ticket.interrupt(message, status);
        }
    }

    /// How many requests have gone async and wait for their final answer.
    pub(crate) fn len(&self) -> usize {
        self.table.lock().parked.len()
    }

    fn park(&self, limit: usize, parked: Parked) -> Option<AsyncId> {
        let mut table = self.table.lock();
        if table.parked.len() >= limit {
            return None;
        }
        table.last += 1;
        let id = AsyncId(table.last);
        table.parked.insert(id, parked);
        Some(id)
    }
}

impl Context {
    /// Waits for `wait`, however long that takes.
    ///
    /// If it is not ready at once the request goes async. The wait ends early with an error: CANCELLED after a CANCEL and
    /// when the connection ends, the status of the ending when the session or the tree connect ends (after their
    /// opens have been closed, which ends most waits in their own way), INSUFFICIENT_RESOURCES at the limit of waiting
    /// requests, and INTERNAL_ERROR in a chain whose rest would have to wait as well (3.3.5.2.7).
    pub async fn park<T>(&self, wait: impl Future<Output = T> + Send) -> Result<T, NtStatus> {
        let mut wait = pin!(wait);
        if let Poll::Ready(value) = poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx))).await {
            return Ok(value);
        }
        self.go_async()?;
        let message = self.header.message_id;
        poll_fn(|cx| {
            if let Poll::Ready(value) = wait.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            match self.ticket.poll_interrupted(message, cx.waker()) {
                Some(status) => Poll::Ready(Err(status)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Whether the request has gone async.
    pub fn is_async(&self) -> bool {
        self.chain.lock().answer.asynchronous.is_some()
    }

    /// Sends the interim response, once.
    pub(crate) fn go_async(&self) -> Result<(), NtStatus> {
        let mut chain = self.chain.lock();
        if chain.answer.asynchronous.is_some() {
            return Ok(());
        }
        if !self.last {
            return Err(NtStatus::INTERNAL_ERROR);
        }
        let parked = Parked {
            ticket: self.ticket.clone(),
            message: self.header.message_id,
            session: chain.session.as_ref().map_or(SessionId(0), |session| session.id),
            tree: chain.tree.as_ref().map_or(TreeId(0), |tree| tree.id),
        };
        self.ticket.parked.store(true, Ordering::Relaxed);
        let limit = self.connection.settings.limits.pending_per_connection;
        let id = self.connection.pending.park(limit, parked).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        // Whoever ends the session, tree connect or connection sets its mark first and looks for waiting requests
        // then; we are in the list by now, and look for the marks.
        let ended = if self.connection.is_ending() {
            Some(NtStatus::CANCELLED)
        } else if chain.session.as_ref().is_some_and(|session| session.is_closed()) {
            Some(NtStatus::USER_SESSION_DELETED)
        } else if chain.tree.as_ref().is_some_and(|tree| tree.is_closed()) {
            Some(NtStatus::NETWORK_NAME_DELETED)
        } else {
            None
        };
        if let Some(status) = ended {
            self.ticket.interrupt(self.header.message_id, status);
        }
        chain.answer.asynchronous = Some(id);
        let earlier = chain.replies.take();
        // MS-SMB2 3.3.4.2: "The server SHOULD NOT sign an interim response"; an encrypted request's is encrypted.
        let mut interim = ReplyFrame::new(self.encrypted.clone());
        let header = dispatch::answer_header(self, chain.answer, NtStatus::PENDING, true);
        interim.push(header, self.command_number, &Response::Error(ErrorResponse::empty()), None);
        // What a waiting request holds is bounded by its own limits: it does not count as in flight.
        if let Some(charge) = &mut chain.charge {
            charge.set(0);
        }
        drop(chain);
        earlier.into_iter().chain(interim.take()).for_each(|frame| self.connection.outbox.push(frame));
        if self.ticket.moved.load(Ordering::SeqCst) {
            self.connection.outbox.flush();
        }
        Ok(())
    }
}
