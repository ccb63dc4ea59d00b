//! One connection, from its first byte to the last of its opens: MS-SMB2 3.3.1.7, 3.3.5.1 and 3.3.7.1.
//!
//! One task reads, hands whole frames to `receive`, and writes the replies that are ready when nothing whole is left to
//! read. It waits in one place, `Connection::wait`, for whatever comes first: bytes, room in the socket or in the
//! budget, the end of the connection, a deadline.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ahash::RandomState;
use bytes::{Buf, BytesMut};
use parking_lot::{Mutex, RwLock};
use shoal_protocol::NtStatus;
use shoal_protocol::crypto::{Cipher, PreauthHash, SigningAlgorithm};
use shoal_protocol::dtyp::Guid;
use shoal_protocol::frame;
use shoal_protocol::smb2::SessionId;
use shoal_protocol::smb2::negotiate::{Capabilities, Dialect, SecurityMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::Server;
use crate::budget::Budget;
use crate::config::Settings;
use crate::metrics::ConnectionMetrics;
use crate::misbehaved::Misbehaved;
use crate::outbox::Outbox;
use crate::pending::Pending;
use crate::receive;
use crate::state::sequence::SequenceWindow;
use crate::state::session::{Handshake, Session};
use crate::teardown;

/// The longest frame before somebody has logged in: a SESSION_SETUP with the longest token that its 16-bit length allows.
const FRAME_MAX_BEFORE_LOGIN: usize = 68 * 1024;
/// What a frame may have beyond the largest READ, WRITE or IOCTL buffer: headers, and small requests chained to it.
const FRAME_OVERHEAD: usize = 64 * 1024;
/// A read begins with room for this much: most requests are smaller.
const READ_MIN: usize = 1024;
/// The room doubles up to this when more comes than fits.
const READ_MAX: usize = 64 * 1024;
/// After so long without a byte the buffer of who sent longer frames than that goes.
const IDLE: Duration = Duration::from_secs(5);
/// A frame that has begun has [`FRAME_TIME`], and a second more for each so many bytes.
const FRAME_BYTES_PER_SECOND: usize = 16 * 1024;
/// See [`FRAME_BYTES_PER_SECOND`].
const FRAME_TIME: Duration = Duration::from_secs(60);
/// A client that takes no byte of its replies for so long is gone.
const WRITE_TIME: Duration = Duration::from_secs(60);
/// Replies leave at the latest when so much is queued, even if there is more to read.
const WRITE_AT: usize = 256 * 1024;

/// Connection: MS-SMB2 3.3.1.7.
pub struct Connection {
    /// A number for logs and the admin socket.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub created: Instant,
    /// The settings of when it was accepted; a reload does not change them.
    pub settings: Arc<Settings>,
    /// What its requests were, and how they went.
    pub metrics: ConnectionMetrics,
    pub(crate) negotiated: OnceLock<Negotiated>,
    /// Connection.PreauthIntegrityHashValue.
    pub(crate) preauth: Mutex<PreauthHash>,
    /// Connection.CommandSequenceWindow.
    pub(crate) window: Mutex<SequenceWindow>,
    /// Connection.SessionTable.
    sessions: RwLock<HashMap<SessionId, Arc<Session>, RandomState>>,
    /// Authentications under way, by the session's id.
    pub(crate) handshakes: Mutex<HashMap<SessionId, Box<Handshake>>>,
    pub(crate) pending: Pending,
    pub(crate) outbox: Outbox,
    pub(crate) budget: Arc<Budget>,
    /// Chains that run in tasks of their own.
    pub(crate) tasks: AtomicUsize,
    /// The SMB1 negotiate was answered with the wildcard: the NEGOTIATE that follows is the first.
    pub(crate) multi_protocol: AtomicBool,
    /// Bytes of padding in READ responses: none, unless smbtorture asked for some (`torture_controls`).
    pub(crate) read_padding: AtomicU8,
    ending: AtomicBool,
    draining: AtomicBool,
    logged_in: AtomicBool,
}

/// What NEGOTIATE has settled, once for all.
#[derive(Clone, Debug)]
pub struct Negotiated {
    /// Connection.Dialect.
    pub dialect: Dialect,
    /// Connection.ClientGuid.
    pub client_guid: Guid,
    /// Connection.ClientCapabilities.
    pub client_capabilities: Capabilities,
    /// Connection.ClientSecurityMode.
    pub client_security_mode: SecurityMode,
    /// The dialects that the client offered, for VALIDATE_NEGOTIATE_INFO.
    pub client_dialects: Vec<u16>,
    /// Connection.ServerCapabilities.
    pub capabilities: Capabilities,
    /// Connection.ServerSecurityMode.
    pub security_mode: SecurityMode,
    /// Connection.SigningAlgorithmId.
    pub signing: SigningAlgorithm,
    /// Connection.CipherId.
    pub cipher: Option<Cipher>,
    /// Connection.SupportsMultiCredit.
    pub multi_credit: bool,
    /// Connection.MaxTransactSize.
    pub max_transact_size: u32,
    /// Connection.MaxReadSize.
    pub max_read_size: u32,
    /// Connection.MaxWriteSize.
    pub max_write_size: u32,
}

impl Connection {
    pub(crate) fn new(
        id: u64,
        server: &Server,
        peer: SocketAddr,
        sink: Pin<Box<dyn AsyncWrite + Send>>,
    ) -> Connection {
        let settings = server.settings.load_full();
        let limits = &settings.limits;
        Connection {
            id,
            peer,
            created: Instant::now(),
            metrics: ConnectionMetrics::default(),
            negotiated: OnceLock::new(),
            preauth: Mutex::new(PreauthHash::new()),
            window: Mutex::new(SequenceWindow::new(limits.credits_max)),
            sessions: RwLock::default(),
            handshakes: Mutex::default(),
            pending: Pending::default(),
            outbox: Outbox::new(sink),
            budget: Budget::new(limits.reply_budget_per_connection, server.budget.clone()),
            tasks: AtomicUsize::new(0),
            multi_protocol: AtomicBool::new(false),
            read_padding: AtomicU8::new(0),
            ending: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            logged_in: AtomicBool::new(false),
            settings,
        }
    }

    /// What was negotiated; `None` before NEGOTIATE.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.get()
    }

    /// The dialect; `None` before NEGOTIATE.
    pub fn dialect(&self) -> Option<Dialect> {
        self.negotiated.get().map(|negotiated| negotiated.dialect)
    }

    /// The session of this id, if its user is authenticated.
    pub fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.sessions.read().get(&id).cloned()
    }

    /// All sessions.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.read().values().cloned().collect()
    }

    /// How many sessions there are, and how many authentications are under way.
    pub fn session_counts(&self) -> (usize, usize) {
        let sessions = self.sessions.read().len();
        (sessions, self.handshakes.lock().len())
    }

    pub(crate) fn insert_session(&self, session: Arc<Session>) {
        self.sessions.write().insert(session.id, session);
        self.logged_in.store(true, Ordering::Relaxed);
    }

    pub(crate) fn remove_session(&self, id: SessionId) -> Option<Arc<Session>> {
        let (removed, left) = {
            let mut sessions = self.sessions.write();
            (sessions.remove(&id), sessions.len())
        };
        self.handshakes.lock().remove(&id);
        if left == 0 {
            self.logged_in.store(false, Ordering::Relaxed);
        }
        removed
    }

    /// Whether somebody is logged in on it.
    pub fn is_logged_in(&self) -> bool {
        self.logged_in.load(Ordering::Relaxed)
    }

    /// Whether it has ended or is about to: nothing is read or sent any more.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Ends it, for something that the peer did.
    pub fn misbehaved(&self, fault: Misbehaved) {
        if !self.ending.swap(true, Ordering::SeqCst) {
            tracing::info!(connection = self.id, "disconnecting {}: the peer {fault}", self.peer);
            self.metrics.misbehaved(fault);
            self.outbox.wake_task();
        }
    }

    /// Ends it at once.
    pub fn disconnect(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.outbox.wake_task();
    }

    /// Lets it end as soon as what it has begun is done: no more is read, waits are ended.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.outbox.wake_task();
    }

    /// One chain in a task of its own is done.
    pub(crate) fn task_done(&self) {
        if self.tasks.fetch_sub(1, Ordering::SeqCst) == 1
            && (self.draining.load(Ordering::SeqCst) || self.is_ending())
        {
            self.outbox.wake_task();
        }
    }

    /// Reads, handles and answers until the connection ends.
    pub(crate) async fn run<R: AsyncRead + Unpin>(self: &Arc<Self>, server: &Arc<Server>, mut reader: R) {
        let mut input = Input::default();
        let mut clock = Clock::new(self.created);
        let mut told = None;
        loop {
            let frame_missing = match self.take_frames(server, &mut input.buffer) {
                Ok(missing) => missing,
                Err(fault) => {
                    self.misbehaved(fault);
                    return;
                }
            };
            match self.wait(&mut reader, &mut input, frame_missing, &mut clock, &mut told).await {
                Event::Received | Event::Room => {}
                Event::Idle => input = Input::default(),
                Event::Ended => return,
                Event::Late(fault) => {
                    self.misbehaved(fault);
                    return;
                }
            }
        }
    }

    /// Handles the whole frames of `buffer`, as far as the budget goes. Says how many bytes the frame that is begun
    /// still wants; `None` if none is begun, and 0 if a whole one waits for room.
    fn take_frames(
        self: &Arc<Self>,
        server: &Arc<Server>,
        buffer: &mut BytesMut,
    ) -> Result<Option<usize>, Misbehaved> {
        loop {
            if self.is_ending() || self.draining.load(Ordering::SeqCst) {
                return Ok(None);
            }
            let Some(length) = frame::length(buffer).map_err(Misbehaved::Frame)? else {
                return Ok((!buffer.is_empty()).then(|| frame::HEADER - buffer.len()));
            };
            if length > self.frame_max() {
                return Err(Misbehaved::FrameTooLong(length));
            }
            let whole = frame::HEADER + length;
            if buffer.len() < whole {
                return Ok(Some(whole - buffer.len()));
            }
            if !self.budget.has_room() {
                return Ok(Some(0));
            }
            let mut payload = buffer.split_to(whole);
            payload.advance(frame::HEADER);
            receive::frame(server, self, payload)?;
            if self.outbox.bytes() >= WRITE_AT {
                self.outbox.flush();
            }
        }
    }

    fn frame_max(&self) -> usize {
        match self.negotiated() {
            Some(negotiated) if self.is_logged_in() => {
                let largest = negotiated.max_transact_size.max(negotiated.max_write_size);
                largest as usize + FRAME_OVERHEAD
            }
            _ => FRAME_MAX_BEFORE_LOGIN,
        }
    }

    /// Waits for what comes first. `missing` is what [`take_frames`](Self::take_frames) said, `told` the waker that the
    /// outbox has: it is seldom another one, and to look into the outbox takes a lock.
    async fn wait<R: AsyncRead + Unpin>(
        self: &Arc<Self>,
        reader: &mut R,
        input: &mut Input,
        missing: Option<usize>,
        clock: &mut Clock,
        told: &mut Option<Waker>,
    ) -> Event {
        let whole_waits = missing == Some(0);
        poll_fn(|cx| {
            if !told.as_ref().is_some_and(|told| told.will_wake(cx.waker())) {
                self.outbox.set_task(cx.waker());
                *told = Some(cx.waker().clone());
            }
            if self.is_ending() {
                return Poll::Ready(Event::Ended);
            }
            if self.outbox.poll_flush(cx).is_ready() && self.outbox.is_failed() {
                return Poll::Ready(Event::Ended);
            }
            if self.draining.load(Ordering::SeqCst) {
                self.pending.interrupt(None, None, NtStatus::CANCELLED);
                if self.tasks.load(Ordering::SeqCst) == 0 && self.outbox.bytes() == 0 {
                    return Poll::Ready(Event::Ended);
                }
            } else if self.budget.poll_room(cx.waker()) {
                if whole_waits {
                    return Poll::Ready(Event::Room);
                }
                self.make_room(input, missing);
                match poll_read(reader, &mut input.buffer, cx) {
                    Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Event::Ended),
                    Poll::Ready(Ok(_)) => return Poll::Ready(Event::Received),
                    Poll::Pending => input.lend(),
                }
            }
            clock.poll(self, &input.buffer, missing, cx)
        })
        .await
    }

    /// Makes room for the next read. What a frame announces is only believed from somebody who is logged in; from
    /// others the buffer grows no faster than what has come.
    fn make_room(&self, input: &mut Input, missing: Option<usize>) {
        let buffer = &mut input.buffer;
        if buffer.capacity() == 0 {
            *buffer = SPARE.take().unwrap_or_default();
        }
        let have = buffer.len();
        let wanted = match missing {
            Some(missing) if self.is_logged_in() => missing.max(READ_MIN),
            Some(missing) => missing.min(have.max(READ_MIN)),
            None => READ_MIN,
        };
        input.large |= wanted > READ_MAX;
        if buffer.capacity() - have < wanted {
            buffer.reserve(wanted);
        }
    }

    /// Ends everything that the connection has: 3.3.7.1.
    pub(crate) async fn tear_down(self: &Arc<Self>, server: &Arc<Server>) {
        self.ending.store(true, Ordering::SeqCst);
        self.outbox.close().await;
        self.handshakes.lock().clear();
        for session in self.sessions() {
            teardown::end_session(server, &session).await;
        }
        self.pending.interrupt(None, None, NtStatus::CANCELLED);
    }
}

enum Event {
    /// There are more bytes in the buffer.
    Received,
    /// The budget has room again.
    Room,
    /// Nothing has come for a while and the buffer is empty.
    Idle,
    /// The peer is gone, or we have decided to go.
    Ended,
    /// A deadline has passed.
    Late(Misbehaved),
}

/// What has been read and not been handled.
#[derive(Default)]
struct Input {
    buffer: BytesMut,
    /// It was made for a long frame: more of those are likely to come.
    large: bool,
}

thread_local! {
    /// What the connections of this thread read into. It belongs to one of them from its first byte until it has handled
    /// all that it has read; so whoever waits for a request needs none, and what is read into is still in the processor's cache.
    static SPARE: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

impl Input {
    /// Leaves the buffer to the thread's other connections, if it is empty and of the usual size.
    fn lend(&mut self) {
        if !self.buffer.is_empty() || self.large {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        // If requests that wait have filled it, it is theirs.
        if buffer.try_reclaim(READ_MIN) {
            SPARE.set(Some(buffer));
        }
    }
}

fn poll_read<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<usize>> {
    // The future of `read_buf` keeps nothing between two polls, so that a new one a poll is as good as one kept.
    let read = pin!(reader.read_buf(buffer)).poll(cx);
    if let Poll::Ready(Ok(1..)) = read
        && buffer.len() == buffer.capacity()
        && buffer.capacity() < READ_MAX
    {
        // More has come than there was room for: the next read gets more.
        buffer.reserve(buffer.capacity());
    }
    read
}

/// The deadlines of a connection. They are kept as instants, and one timer is armed for the first of them; it is not
/// moved when that deadline goes away, only looked at when it fires, and it goes with the last.
struct Clock {
    /// Since when nobody is logged in.
    logged_out: Option<Instant>,
    /// Since when a frame has begun.
    frame: Option<Instant>,
    /// Since when the client has taken nothing of what waits for it, and how much it had taken by then.
    stalled: Option<(Instant, u64)>,
    /// Since when nothing has come.
    idle: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    fn new(now: Instant) -> Clock {
        Clock { logged_out: Some(now), frame: None, stalled: None, idle: None, timer: None }
    }

    fn poll(
        &mut self,
        connection: &Connection,
        buffer: &BytesMut,
        missing: Option<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        loop {
            let Some(deadline) = self.deadline(connection, buffer, missing) else {
                // Without a timer the thread's sleep needs none either.
                self.timer = None;
                return Poll::Pending;
            };
            let timer = match &mut self.timer {
                Some(timer) if timer.deadline() <= deadline => timer,
                timer => timer.insert(Box::pin(sleep_until(deadline))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
            let now = Instant::now();
            if now < deadline {
                continue;
            }
            return Poll::Ready(match self.stalled {
                Some((since, _)) if since + WRITE_TIME <= now => Event::Late(Misbehaved::NotReading),
                _ if self.idle.is_some_and(|since| since + IDLE <= now) => Event::Idle,
                _ => Event::Late(Misbehaved::TimedOut),
            });
        }
    }

    /// Brings the instants up to date and gives the first deadline.
    fn deadline(
        &mut self,
        connection: &Connection,
        buffer: &BytesMut,
        missing: Option<usize>,
    ) -> Option<Instant> {
        let mut first = None;
        let mut add =
            |deadline: Instant| first = Some(first.map_or(deadline, |first: Instant| first.min(deadline)));
        if connection.is_logged_in() {
            self.logged_out = None;
        } else {
            let since = *self.logged_out.get_or_insert_with(Instant::now);
            add(since + connection.settings.limits.negotiate_timeout);
        }
        match missing {
            Some(missing @ 1..) => {
                let seconds = (buffer.len() + missing) / FRAME_BYTES_PER_SECOND;
                add(*self.frame.get_or_insert_with(Instant::now)
                    + FRAME_TIME
                    + Duration::from_secs(seconds as u64));
            }
            _ => self.frame = None,
        }
        if connection.outbox.bytes() == 0 {
            self.stalled = None;
        } else {
            let written = connection.outbox.written();
            let (since, _) = match self.stalled {
                Some(stalled) if stalled.1 == written => stalled,
                _ => *self.stalled.insert((Instant::now(), written)),
            };
            add(since + WRITE_TIME);
        }
        if buffer.is_empty() && buffer.capacity() > 2 * READ_MIN {
            add(*self.idle.get_or_insert_with(Instant::now) + IDLE);
        } else {
            self.idle = None;
        }
        first
    }
}
