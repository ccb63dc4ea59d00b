//! Shoal: an SMB2/3 file server.
//!
//! [`Server`] is what `main` and every test drive: made from [`config::Settings`], it serves any stream of bytes.
//! `ARCHITECTURE.md` at the repository's root is the map; a READ goes through `connection`, `receive`, `dispatch`,
//! `command::read`, and its answer leaves through `reply` and `outbox`.
#![forbid(unsafe_code)]

pub mod access;
pub mod admin;
pub mod budget;
pub mod command;
pub mod config;
pub mod connection;
pub mod context;
pub mod convert;
pub mod listener;
pub mod loops;
pub mod metrics;
pub mod misbehaved;
pub mod name;
pub mod pipe;
pub mod reply;
pub mod share;
pub mod state;
pub mod teardown;
pub mod users;

mod dispatch;
mod outbox;
mod pending;
mod receive;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ahash::RandomState;
use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::Mutex;
use shoal_protocol::crypto;
use shoal_protocol::smb2::SessionId;
use shoal_vfs::{Options, Plan, Vfs};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::budget::TotalBudget;
use crate::config::Settings;
use crate::connection::Connection;
use crate::loops::Loops;
use crate::metrics::Counts;
use crate::misbehaved::Misbehaved;
use crate::share::{ShareError, Shares};
use crate::state::file::NodeState;
use crate::state::notify::Watching;
use crate::state::open::Open;
use crate::state::session::Session;

/// A file server: its shares, its clients, what they have open.
pub struct Server {
    /// The settings in force.
    pub settings: ArcSwap<Settings>,
    /// The files of all shares.
    pub vfs: Arc<Vfs<NodeState>>,
    /// The shares in force.
    pub shares: ArcSwap<Shares>,
    /// GlobalSessionTable: MS-SMB2 3.3.1.5.
    pub sessions: DashMap<SessionId, Arc<Session>>,
    /// GlobalOpenTable, by FileId.Persistent: MS-SMB2 3.3.1.5.
    pub opens: DashMap<u64, Arc<Open>, RandomState>,
    /// ConnectionList, by our own number.
    pub connections: DashMap<u64, Arc<Connection>>,
    /// How many directories are watched: see [`state::notify`].
    pub watching: Watching,
    /// When it started.
    pub started: Instant,
    pub(crate) open_count: AtomicUsize,
    pub(crate) budget: Arc<TotalBudget>,
    /// Who serves what [`Server::listen`] accepts.
    pub(crate) loops: Loops,
    per_address: DashMap<IpAddr, usize>,
    next_connection: AtomicU64,
    /// Session ids go on from a random one in random-looking steps.
    session_base: u32,
    next_session: AtomicU32,
    /// Counts of the connections that have ended.
    ended: Mutex<Counts>,
    stopping: AtomicBool,
    changed: Notify,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A share cannot be opened.
    #[error(transparent)]
    Share(#[from] ShareError),
}

impl Server {
    /// Opens the shares of `settings`. Nothing is listened to yet: see [`Server::listen`] and [`Server::serve`].
    pub async fn new(settings: Settings) -> Result<Arc<Server>, StartError> {
        let plan = if settings.directory_lock { Plan::DirectoryLock } else { Plan::Claims };
        let options = Options { memory_max: settings.limits.cache_size, plan, ..Options::default() };
        let vfs = Vfs::new(options);
        let shares = Shares::open(&vfs, &settings, None).await?;
        Ok(Arc::new(Server {
            vfs,
            shares: ArcSwap::from_pointee(shares),
            sessions: DashMap::new(),
            opens: DashMap::default(),
            connections: DashMap::new(),
            watching: Watching::default(),
            started: Instant::now(),
            open_count: AtomicUsize::new(0),
            budget: TotalBudget::new(settings.limits.reply_budget_total),
            loops: Loops::new(),
            per_address: DashMap::new(),
            next_connection: AtomicU64::new(1),
            session_base: crypto::random_id() as u32,
            next_session: AtomicU32::new(0),
            ended: Mutex::default(),
            stopping: AtomicBool::new(false),
            changed: Notify::new(),
            settings: ArcSwap::from_pointee(settings),
        }))
    }

    /// Puts other settings in force. Shares whose settings stay the same stay as they are; clients of the others keep
    /// what they have. On an error nothing has changed.
    pub async fn reload(self: &Arc<Self>, settings: Settings) -> Result<(), StartError> {
        let shares = Shares::open(&self.vfs, &settings, Some(&self.shares.load())).await?;
        self.shares.store(Arc::new(shares));
        self.settings.store(Arc::new(settings));
        Ok(())
    }

    /// Serves one client until the connection ends and everything that it had is closed.
    pub fn serve<S>(self: &Arc<Self>, stream: S, peer: SocketAddr) -> impl Future<Output = ()> + Send
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        self.serve_halves(reader, writer, peer)
    }

    /// As [`Server::serve`], for a stream whose directions are apart already: `split` has a lock for each poll.
    pub(crate) async fn serve_halves<R, W>(self: &Arc<Self>, reader: R, writer: W, peer: SocketAddr)
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + 'static,
    {
        let Some(slot) = self.admit(peer.ip()) else {
            tracing::info!(%peer, "refused: too many connections");
            self.ended.lock().refused += 1;
            return;
        };
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        // Entered and left with every poll, and kept as long as the connection: only for who looks closely. What is said at
        // higher levels names the connection itself.
        let span = tracing::debug_span!("connection", id, %peer);
        let connection = Arc::new(Connection::new(id, self, peer, Box::pin(writer)));
        self.connections.insert(id, connection.clone());
        if self.is_stopping() {
            connection.drain();
        }
        let guard = Served { server: self.clone(), connection: connection.clone(), _slot: slot };
        async {
            tracing::debug!("connected");
            connection.run(self, reader).await;
            // Apart: what the end takes would be part of every connection's task from its beginning.
            Box::pin(connection.tear_down(self)).await;
            tracing::debug!("disconnected");
        }
        .instrument(span)
        .await;
        drop(guard);
    }

    /// A place for one more connection. At the limit of all, one that has not logged in has to make room.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let limits = &self.settings.load().limits;
        if self.connections.len() >= limits.connections {
            let oldest = self
                .connections
                .iter()
                .filter(|entry| !entry.value().is_logged_in())
                .min_by_key(|entry| *entry.key());
            let oldest = oldest.map(|entry| entry.value().clone())?;
            oldest.misbehaved(Misbehaved::Crowded);
            // It leaves its place in the table at once, so that the next newcomer does not choose it again.
            self.connections.remove(&oldest.id);
        }
        let mut count = self.per_address.entry(address).or_insert(0);
        if *count >= limits.connections_per_address {
            return None;
        }
        *count += 1;
        Some(Slot { server: self.clone(), address })
    }

    /// Ends a session, as if its client had logged off. False if there is none of this id.
    pub async fn close_session(self: &Arc<Self>, id: SessionId) -> bool {
        let Some(session) = self.sessions.get(&id).map(|entry| entry.value().clone()) else { return false };
        teardown::end_session(self, &session).await;
        true
    }

    /// Ends it all: no new connections; what is under way is finished, what waits is ended, and after `patience` whatever is
    /// left is cut off. Returns when all is closed, or `patience` has passed twice.
    pub async fn drain(self: &Arc<Self>, patience: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
        self.for_each_connection(Connection::drain);
        if timeout(patience, self.emptied()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "cutting off what is left");
            self.for_each_connection(Connection::disconnect);
            let _ = timeout(patience / 4, self.emptied()).await;
        }
        let _ = timeout(patience / 4, self.vfs.quiesce()).await;
    }

    fn for_each_connection(&self, act: impl Fn(&Connection)) {
        let connections: Vec<_> = self.connections.iter().map(|entry| entry.value().clone()).collect();
        connections.iter().for_each(|connection| act(connection));
    }

    /// Waits until there is no connection.
    async fn emptied(&self) {
        loop {
            let changed = self.changed.notified();
            if self.connections.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Whether it is being drained.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Returns when it is being drained.
    pub(crate) async fn stopped(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_stopping() {
                return;
            }
            changed.await;
        }
    }

    /// A SessionId that no session had within the last four billion logins. It has 32 bits only, as Samba's and most
    /// Windows servers' have: some clients keep no more. It is no secret.
    pub(crate) fn new_session_id(&self) -> SessionId {
        loop {
            // An odd factor makes different numbers of different ones.
            let step = self.next_session.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B1);
            let id = SessionId(u64::from(self.session_base.wrapping_add(step)));
            if id.0 != 0 && id.0 != u64::from(u32::MAX) && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    /// How many opens there are.
    pub fn open_count(&self) -> usize {
        self.open_count.load(Ordering::Relaxed)
    }

    /// How many bytes of requests and replies are in flight, on all connections.
    pub fn bytes_in_flight(&self) -> usize {
        self.budget.in_flight()
    }

    /// How many requests wait, on all connections.
    pub fn pending_count(&self) -> usize {
        self.connections.iter().map(|entry| entry.value().pending.len()).sum()
    }

    /// Everything that has been counted, by all connections.
    pub fn counts(&self) -> Counts {
        let mut counts = self.ended.lock().clone();
        for entry in &self.connections {
            counts.connections += 1;
            counts.add(&entry.value().metrics);
        }
        counts
    }
}

/// A place among the connections of an address; given back when dropped.
struct Slot {
    server: Arc<Server>,
    address: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(mut count) = self.server.per_address.get_mut(&self.address) {
            *count -= 1;
        }
        self.server.per_address.remove_if(&self.address, |_, count| *count == 0);
    }
}

/// A connection in the server's tables; leaves them when dropped, whatever happened meanwhile.
struct Served {
    server: Arc<Server>,
    connection: Arc<Connection>,
    _slot: Slot,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.connections.remove(&self.connection.id);
        let mut ended = self.server.ended.lock();
        ended.connections += 1;
        ended.add(&self.connection.metrics);
        drop(ended);
        self.server.changed.notify_waiters();
    }
}
