//! Per Session: MS-SMB2 3.3.1.8.
//!
//! A session exists from the moment that its user is authenticated: an exchange that has only begun is a
//! [`Handshake`] in its connection's table, and costs no more than that. A session ends once ([`Session::close`]);
//! after that nothing can be added to its tables, and whoever ended it closes what is in them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use ahash::RandomState;
use dashmap::DashMap;
use parking_lot::RwLock;
use shoal_protocol::NtStatus;
use shoal_protocol::auth::{Acceptor, Identity};
use shoal_protocol::crypto::{Cipher, CipherKey, NonceCounter, PreauthHash, SigningKey};
use shoal_protocol::smb2::{FileId, SessionId, TreeId};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::Server;
use crate::connection::Connection;
use crate::state::open::Open;
use crate::state::tree::TreeConnect;

/// Shards of a session's table of opens: one session is seldom used by more cores than this at once.
const OPEN_SHARDS: usize = 4;

/// An authenticated user on a connection, with what it has opened.
pub struct Session {
    /// Session.SessionId.
    pub id: SessionId,
    /// The server, for the tables that all sessions share.
    pub server: Weak<Server>,
    /// The connection that it was set up on (Session.ChannelList has one entry).
    pub connection: Weak<Connection>,
    /// Session.CreationTime.
    pub created: Instant,
    /// Session.EncryptData: every request after the set-up comes encrypted.
    pub encrypt_data: bool,
    /// Session.SigningRequired.
    pub signing_required: bool,
    /// Session.TreeConnectTable.
    trees: RwLock<HashMap<TreeId, Arc<TreeConnect>, RandomState>>,
    /// Session.OpenTable, by FileId.Volatile; made for the first open, since it is large and many sessions are idle.
    opens: OnceLock<DashMap<u64, Arc<Open>, RandomState>>,
    keys: Option<Keys>,
    user: RwLock<Arc<User>>,
    expires: RwLock<Option<Instant>>,
    /// Whether `expires` is set, for every request to see without a lock. It changes under the lock.
    expiring: AtomicBool,
    next_tree: AtomicU32,
    open_count: AtomicUsize,
    closed: AtomicBool,
}

/// Who a session acts for (Session.UserName, Session.IsGuest, Session.IsAnonymous).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As authenticated.
    pub identity: Identity,
}

impl User {
    /// The account's name; empty for an anonymous user.
    pub fn name(&self) -> &str {
        match &self.identity {
            Identity::User { name, .. } => name,
            Identity::Guest { .. } => "Guest",
            Identity::Anonymous => "",
        }
    }

    /// Session.IsGuest.
    pub fn is_guest(&self) -> bool {
        matches!(self.identity, Identity::Guest { .. })
    }

    /// Session.IsAnonymous.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.identity, Identity::Anonymous)
    }

    /// Whether both are the same account. A guest is never the same as anybody.
    pub fn is_same(&self, other: &User) -> bool {
        match (&self.identity, &other.identity) {
            (Identity::User { name: a, .. }, Identity::User { name: b, .. }) => {
                a.to_lowercase() == b.to_lowercase()
            }
            _ => false,
        }
    }
}

/// The keys of a session (3.2.5.3.1, 3.3.5.5.3). They are made once; a re-authentication keeps them.
pub struct Keys {
    /// Session.SigningKey.
    pub signing: SigningKey,
    /// Session.DecryptionKey and Session.EncryptionKey, if the connection has a cipher.
    pub cipher_keys: Option<CipherKeys>,
    /// Session.ApplicationKey.
    pub application: Zeroizing<Vec<u8>>,
}

/// The keys of both directions as bytes. What a cipher prepares from them is large, and most sessions never encrypt.
pub struct CipherKeys {
    cipher: Cipher,
    client_to_server: Zeroizing<Vec<u8>>,
    server_to_client: Zeroizing<Vec<u8>>,
    prepared: OnceLock<Box<Ciphers>>,
}

impl CipherKeys {
    /// The keys of a session for the connection's cipher.
    pub fn new(
        cipher: Cipher,
        client_to_server: Zeroizing<Vec<u8>>,
        server_to_client: Zeroizing<Vec<u8>>,
    ) -> CipherKeys {
        CipherKeys { cipher, client_to_server, server_to_client, prepared: OnceLock::new() }
    }

    fn prepared(&self) -> &Ciphers {
        self.prepared.get_or_init(|| {
            Box::new(Ciphers {
                decryption: CipherKey::new(self.cipher, &self.client_to_server),
                encryption: CipherKey::new(self.cipher, &self.server_to_client),
                nonces: NonceCounter::new(),
            })
        })
    }
}

/// Both directions of an encrypted session.
pub struct Ciphers {
    /// What the client sends.
    pub decryption: CipherKey,
    /// What we send.
    pub encryption: CipherKey,
    /// Each of our messages has a nonce of its own.
    pub nonces: NonceCounter,
}

/// An authentication under way, of a new session or of an existing one.
pub struct Handshake {
    /// Reads the client's next token.
    pub acceptor: Acceptor,
    /// Session.PreauthIntegrityHashValue so far (3.1.1).
    pub preauth: PreauthHash,
    /// When it began.
    pub since: Instant,
}

/// What a session is made from.
pub struct SessionParts {
    /// Its id.
    pub id: SessionId,
    /// The server.
    pub server: Weak<Server>,
    /// Its connection.
    pub connection: Weak<Connection>,
    /// Whose it is.
    pub user: User,
    /// Its keys; a guest and an anonymous user have none that count.
    pub keys: Option<Keys>,
    /// Session.EncryptData.
    pub encrypt_data: bool,
    /// Session.SigningRequired.
    pub signing_required: bool,
    /// When it was authenticated.
    pub now: Instant,
    /// When it has to authenticate again.
    pub expires: Option<Instant>,
}

impl Session {
    /// A session whose user has just been authenticated.
    pub fn new(parts: SessionParts) -> Session {
        Session {
            id: parts.id,
            server: parts.server,
            connection: parts.connection,
            created: parts.now,
            encrypt_data: parts.encrypt_data,
            signing_required: parts.signing_required,
            trees: RwLock::new(HashMap::with_hasher(RandomState::new())),
            opens: OnceLock::new(),
            keys: parts.keys,
            user: RwLock::new(Arc::new(parts.user)),
            expiring: AtomicBool::new(parts.expires.is_some()),
            expires: RwLock::new(parts.expires),
            next_tree: AtomicU32::new(1),
            open_count: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Whose session it is.
    pub fn user(&self) -> Arc<User> {
        self.user.read().clone()
    }

    /// Whether it is a guest's.
    pub fn is_guest(&self) -> bool {
        self.user.read().is_guest()
    }

    /// Whether nobody logged in.
    pub fn is_anonymous(&self) -> bool {
        self.user.read().is_anonymous()
    }

    /// The keys, if it has any.
    pub fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// Both ciphers, if it can encrypt.
    pub fn ciphers(&self) -> Option<&Ciphers> {
        self.keys.as_ref()?.cipher_keys.as_ref().map(CipherKeys::prepared)
    }

    /// Whether it can encrypt.
    pub fn can_encrypt(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.cipher_keys.is_some())
    }

    /// Whether there is a time after which it has to authenticate again.
    pub fn has_expiry(&self) -> bool {
        self.expiring.load(Ordering::Acquire)
    }

    /// Whether it has to authenticate again before it can go on.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.read().is_some_and(|expires| expires <= now)
    }

    /// The user has authenticated again (3.3.5.5.3): keys and tables stay.
    pub fn reauthenticated(&self, user: User, expires: Option<Instant>) {
        *self.user.write() = Arc::new(user);
        self.set_expiry(expires);
    }

    /// Makes the session need a new authentication from `when` on.
    pub fn expire_at(&self, when: Instant) {
        self.set_expiry(Some(when));
    }

    fn set_expiry(&self, when: Option<Instant>) {
        let mut expires = self.expires.write();
        *expires = when;
        self.expiring.store(when.is_some(), Ordering::Release);
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Ends it. False if it had ended before: then somebody else closes what it has.
    pub fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::SeqCst)
    }

    /// The tree connect of this id.
    pub fn tree(&self, id: TreeId) -> Option<Arc<TreeConnect>> {
        self.trees.read().get(&id).cloned()
    }

    /// All tree connects.
    pub fn trees(&self) -> Vec<Arc<TreeConnect>> {
        self.trees.read().values().cloned().collect()
    }

    /// How many tree connects there are.
    pub fn tree_count(&self) -> usize {
        self.trees.read().len()
    }

    /// Takes a tree connect out.
    pub(crate) fn remove_tree(&self, id: TreeId) {
        self.trees.write().remove(&id);
    }

    /// Adds a tree connect that `make` makes with its id.
    pub fn insert_tree(
        &self,
        trees_max: usize,
        make: impl FnOnce(TreeId) -> TreeConnect,
    ) -> Result<Arc<TreeConnect>, NtStatus> {
        let tree = {
            let mut trees = self.trees.write();
            if trees.len() >= trees_max {
                return Err(NtStatus::INSUFFICIENT_RESOURCES);
            }
            let id = loop {
                let id = TreeId(self.next_tree.fetch_add(1, Ordering::Relaxed));
                if id.0 != 0 && id.0 != u32::MAX && !trees.contains_key(&id) {
                    break id;
                }
            };
            let tree = Arc::new(make(id));
            trees.insert(id, tree.clone());
            tree
        };
        if self.is_closed() {
            self.remove_tree(tree.id);
            return Err(NtStatus::USER_SESSION_DELETED);
        }
        Ok(tree)
    }

    /// The open of this FileId.Volatile.
    pub fn open(&self, volatile: u64) -> Option<Arc<Open>> {
        self.opens.get()?.get(&volatile).map(|open| open.value().clone())
    }

    /// Puts a new open into this session's table and the server's. On an error it is in neither, and the caller
    /// closes it: TOO_MANY_OPENED_FILES at a limit, or that the session or the tree connect has ended meanwhile.
    pub fn insert_open(&self, open: Arc<Open>) -> Result<(), NtStatus> {
        let server = self.server.upgrade().ok_or(NtStatus::USER_SESSION_DELETED)?;
        let limits = &server.settings.load().limits;
        // The counts go up first, so that many inserting at once cannot pass the limits together.
        let mine = self.open_count.fetch_add(1, Ordering::Relaxed);
        let all = server.open_count.fetch_add(1, Ordering::Relaxed);
        if mine >= limits.opens_per_session || all >= limits.opens {
            self.open_count.fetch_sub(1, Ordering::Relaxed);
            server.open_count.fetch_sub(1, Ordering::Relaxed);
            return Err(NtStatus::TOO_MANY_OPENED_FILES);
        }
        let (id, tree) = (open.id, open.tree.clone());
        server.opens.insert(id.persistent, open.clone());
        let table = || DashMap::with_capacity_and_hasher_and_shard_amount(0, RandomState::new(), OPEN_SHARDS);
        self.opens.get_or_init(table).insert(id.volatile, open);
        // The end of a session or tree connect sets its mark first and then looks into the table; here it is the
        // other way round. So one of the two sees the other.
        let ended = if self.is_closed() {
            NtStatus::USER_SESSION_DELETED
        } else if tree.is_closed() {
            NtStatus::NETWORK_NAME_DELETED
        } else {
            return Ok(());
        };
        self.remove_open(id);
        Err(ended)
    }

    /// Takes an open out of this session's table and the server's. `None` if it was not there (any more).
    pub fn remove_open(&self, id: FileId) -> Option<Arc<Open>> {
        let (_, open) = self.opens.get()?.remove(&id.volatile)?;
        self.open_count.fetch_sub(1, Ordering::Relaxed);
        if let Some(server) = self.server.upgrade()
            && server.opens.remove(&open.id.persistent).is_some()
        {
            server.open_count.fetch_sub(1, Ordering::Relaxed);
        }
        Some(open)
    }

    /// All opens, or those of one tree connect.
    pub fn opens_of(&self, tree: Option<TreeId>) -> Vec<Arc<Open>> {
        let wanted = |open: &Open| tree.is_none_or(|tree| open.tree.id == tree);
        let entries = self.opens.get().into_iter().flat_map(DashMap::iter);
        entries.filter(|entry| wanted(entry.value())).map(|entry| entry.value().clone()).collect()
    }

    /// How many opens it has.
    pub fn open_count(&self) -> usize {
        self.open_count.load(Ordering::Relaxed)
    }
}
