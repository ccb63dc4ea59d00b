//! A server in memory and a small client for it, over a pipe instead of a socket: real bytes in, real bytes out.
//!
//! The clock is tokio's and paused in the tests, so that a deadline of a minute costs nothing.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use shoal::Server;
use shoal::config::{Settings, ShareSettings, Signing, Target, UserSettings};
use shoal::users::Users;
use shoal_protocol::auth::Initiator;
use shoal_protocol::crypto::{
    Cipher, CipherKey, GmacNonce, NonceCounter, PreauthHash, SessionKeys, SigningAlgorithm, SigningKey,
};
use shoal_protocol::dtyp::Guid;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::smb2::header::{Command, Header, HeaderFlags, Routing};
use shoal_protocol::smb2::negotiate::{Capabilities, Dialect, NegotiateContext, SecurityMode};
use shoal_protocol::smb2::transform::TransformHeader;
use shoal_protocol::smb2::*;
use shoal_protocol::{NtStatus, Utf16, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The user that [`settings`] knows.
pub const USER: &str = "alice";
/// Her password.
pub const PASSWORD: &str = "correct horse";
/// A second user.
pub const OTHER: &str = "bob";
/// Bytes in the pipe in each direction.
const PIPE: usize = 1 << 20;

/// Settings for tests: a share in memory for users, one for guests, one that must be encrypted, one that is read-only.
pub fn settings() -> Settings {
    let share = |name: &str| ShareSettings {
        name: name.to_owned(),
        target: Target::Memory,
        ..ShareSettings::default()
    };
    Settings {
        shares: vec![
            share("share"),
            ShareSettings { guest: true, ..share("public") },
            ShareSettings { encrypt: true, ..share("secret") },
            ShareSettings { read_only: true, ..share("ro") },
            ShareSettings { hidden: true, ..share("hidden") },
        ],
        users: Users::new(
            [UserSettings::with_password(USER, PASSWORD), UserSettings::with_password(OTHER, PASSWORD)],
            true,
        ),
        guest: true,
        signing: Signing::Required,
        ..Settings::default()
    }
}

/// A server without a socket.
pub struct Host {
    pub server: Arc<Server>,
    next_port: AtomicU16,
}

impl Host {
    pub async fn new() -> Host {
        Host::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Host {
        let server = Server::new(settings).await.expect("the shares are in memory");
        Host { server, next_port: AtomicU16::new(1024) }
    }

    /// A client that has sent nothing.
    pub fn connect(&self) -> Client {
        self.connect_with(PIPE)
    }

    /// The same, with so many bytes in the pipe.
    pub fn connect_with(&self, pipe: usize) -> Client {
        let (ours, theirs) = duplex(pipe);
        let peer = SocketAddr::from(([127, 0, 0, 1], self.next_port.fetch_add(1, Ordering::Relaxed)));
        let server = self.server.clone();
        let served = tokio::spawn(async move { server.serve(theirs, peer).await });
        Client::new(ours, served)
    }

    /// A client that has negotiated 3.1.1.
    pub async fn negotiated(&self) -> Client {
        let mut client = self.connect();
        client.negotiate(&Dialect::ALL).await;
        client
    }

    /// A client that is logged in as [`USER`].
    pub async fn logged_in(&self) -> Client {
        let mut client = self.negotiated().await;
        client.login(USER, PASSWORD).await.expect("the password is right");
        client
    }

    /// A client that is logged in and connected to "share".
    pub async fn connected(&self) -> Client {
        let mut client = self.logged_in().await;
        client.tree_connect("share").await.expect("the share is there");
        client
    }
}

/// What a session of the client signs and encrypts with.
#[derive(Clone)]
pub struct ClientKeys {
    pub signing: Arc<SigningKey>,
    pub cipher: Option<Arc<ClientCipher>>,
}

pub struct ClientCipher {
    pub seal: CipherKey,
    pub open: CipherKey,
    pub nonces: NonceCounter,
}

/// One connection of a client.
pub struct Client {
    stream: DuplexStream,
    served: Option<JoinHandle<()>>,
    buffer: BytesMut,
    received: VecDeque<(Header, Response, Bytes)>,
    pub next_message: u64,
    pub credits: i64,
    pub dialect: Dialect,
    pub signing: SigningAlgorithm,
    pub cipher: Option<Cipher>,
    pub preauth: PreauthHash,
    pub session: SessionId,
    pub tree: TreeId,
    pub keys: Option<ClientKeys>,
    /// Sign what is sent.
    pub sign: bool,
    /// Encrypt what is sent.
    pub encrypt: bool,
    /// Offers of the next negotiation.
    pub offer_signing: Vec<u16>,
    pub offer_ciphers: Vec<u16>,
    pub security_mode: SecurityMode,
    pub guid: Guid,
}

impl Client {
    fn new(stream: DuplexStream, served: JoinHandle<()>) -> Client {
        Client {
            stream,
            served: Some(served),
            buffer: BytesMut::new(),
            received: VecDeque::new(),
            next_message: 0,
            credits: 1,
            dialect: Dialect::Smb311,
            signing: SigningAlgorithm::AesCmac,
            cipher: None,
            preauth: PreauthHash::new(),
            session: SessionId(0),
            tree: TreeId(0),
            keys: None,
            sign: false,
            encrypt: false,
            offer_signing: vec![2, 1, 0],
            offer_ciphers: vec![2, 1],
            security_mode: SecurityMode::SIGNING_ENABLED,
            guid: Guid([7; 16]),
        }
    }

    // Bytes.

    /// Sends bytes as they are.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        // The server may have hung up: the test sees it when it reads.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends a frame.
    pub async fn send_frame(&mut self, payload: &[u8]) {
        let mut bytes = BytesMut::new();
        bytes.put_slice(&frame::prefix(payload.len()));
        bytes.put_slice(payload);
        self.send_bytes(&bytes).await;
    }

    /// The next frame's payload, decrypted; `None` if the server has hung up.
    pub async fn receive_frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(length) = frame::length(&self.buffer).expect("the server frames its replies")
                && self.buffer.len() >= frame::HEADER + length
            {
                self.buffer.advance(frame::HEADER);
                return Some(self.decrypt(self.buffer.clone().split_to(length), length));
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    fn decrypt(&mut self, mut payload: BytesMut, length: usize) -> Bytes {
        self.buffer.advance(length);
        if !TransformHeader::is_transform(&payload) {
            return payload.freeze();
        }
        let header = TransformHeader::parse(&payload).expect("the server's transform header");
        let keys = self.keys.as_ref().and_then(|keys| keys.cipher.as_ref()).expect("keys for it");
        let mut data = payload.split_off(TransformHeader::LEN);
        assert!(keys.open.open_in_place(&header.nonce, &header.aad(), &mut data, &header.signature));
        data.freeze()
    }

    /// The nonce of the next frame, which must be encrypted.
    pub async fn receive_sealed(&mut self) -> [u8; 16] {
        loop {
            if let Ok(Some(length)) = frame::length(&self.buffer)
                && self.buffer.len() >= frame::HEADER + length
            {
                let payload = self.buffer.split_to(frame::HEADER + length);
                let header = TransformHeader::parse(&payload[frame::HEADER..]).expect("an encrypted frame");
                return header.nonce;
            }
            assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap_or(0), 0);
        }
    }

    /// Waits until the server has hung up, without anything more to read.
    pub async fn expect_disconnect(&mut self) {
        let end = timeout(Duration::from_secs(600), self.receive_frame()).await;
        match end {
            Err(_) => panic!("the server does not hang up"),
            Ok(Some(payload)) => panic!("the server answers {:?}", Header::parse(&payload)),
            Ok(None) => {}
        }
        self.served().await;
    }

    /// Waits until the server is done with this connection, all opens closed.
    pub async fn served(&mut self) {
        if let Some(served) = self.served.take() {
            served.await.expect("the connection's task does not panic");
        }
    }

    /// Hangs up, and waits until the server is done.
    pub async fn hang_up(mut self) {
        let served = self.served.take();
        drop(self.stream);
        if let Some(served) = served {
            served.await.expect("the connection's task does not panic");
        }
    }

    // Messages.

    /// A request's header with the next message id.
    pub fn header(&mut self, command: Command) -> Header {
        let mut header = Header::request(command);
        header.message_id = MessageId(self.next_message);
        header.session_id = self.session;
        header.routing = Routing::Sync { process_id: 0xFEFF, tree_id: self.tree };
        header.credits = 64;
        self.next_message += 1;
        header
    }

    /// As [`header`](Self::header), with a charge for a payload of `bytes`.
    pub fn header_for(&mut self, command: Command, bytes: usize) -> Header {
        let mut header = self.header(command);
        header.credit_charge = bytes.div_ceil(65536).max(1) as u16;
        self.next_message += u64::from(header.credit_charge) - 1;
        header
    }

    /// The bytes of a message, signed if the header says so.
    pub fn encode(&self, mut header: Header, body: &Request) -> BytesMut {
        let mut message = BytesMut::new();
        if self.sign && !self.encrypt {
            header.flags |= HeaderFlags::SIGNED;
        }
        header.encode(&mut message);
        body.encode(&mut message);
        self.sign_message(&mut message);
        message
    }

    /// Signs a message whose header has the flag, if there is a key.
    pub fn sign_message(&self, message: &mut [u8]) {
        let header = Header::parse(message).expect("our own header");
        if let Some(keys) = &self.keys
            && header.is_signed()
        {
            keys.signing.sign_in_place(message, GmacNonce::request(&header));
        }
    }

    /// Sends a payload, encrypted if that is switched on.
    pub async fn send_payload(&mut self, payload: &[u8]) {
        if !self.encrypt {
            return self.send_frame(payload).await;
        }
        let sealed = self.seal(payload, self.session);
        self.send_frame(&sealed).await;
    }

    /// An encrypted payload.
    pub fn seal(&self, payload: &[u8], session: SessionId) -> BytesMut {
        let keys = self.keys.as_ref().and_then(|keys| keys.cipher.clone()).expect("a cipher");
        let mut data = payload.to_vec();
        let mut header = TransformHeader {
            signature: [0; 16],
            nonce: keys.nonces.next().unwrap(),
            original_message_size: data.len() as u32,
            flags: TransformHeader::ENCRYPTED,
            session_id: session,
        };
        header.signature = keys.seal.seal_in_place(&header.nonce, &header.aad(), &mut data);
        let mut out = BytesMut::new();
        header.encode(&mut out);
        out.put_slice(&data);
        out
    }

    /// Sends one request and says its message id.
    pub async fn send(&mut self, body: impl Into<Request>) -> MessageId {
        let body = body.into();
        let header = self.header(body.command());
        let id = header.message_id;
        self.send_with(header, &body).await;
        id
    }

    /// Sends one request with this header.
    pub async fn send_with(&mut self, header: Header, body: &Request) {
        let message = self.encode(header, body);
        self.send_payload(&message).await;
    }

    /// Sends a chain. Message ids follow each other; `flags` of each are added to its header.
    pub async fn send_chain(&mut self, requests: Vec<(HeaderFlags, Request)>) -> Vec<MessageId> {
        let mut ids = Vec::new();
        let mut payload = BytesMut::new();
        let count = requests.len();
        for (index, (flags, body)) in requests.into_iter().enumerate() {
            let mut header = self.header(body.command());
            header.flags |= flags;
            if self.sign && !self.encrypt {
                header.flags |= HeaderFlags::SIGNED;
            }
            ids.push(header.message_id);
            let start = payload.len();
            header.encode(&mut payload);
            let mut message = payload.split_off(start);
            body.encode(&mut message);
            if index + 1 < count {
                compound::link(&mut message, 0);
            }
            self.sign_message(&mut message);
            payload.unsplit(message);
        }
        self.send_payload(&payload).await;
        ids
    }

    /// The next response, its signature verified if it has one; `None` if the server has hung up.
    pub async fn try_receive(&mut self) -> Option<(Header, Response, Bytes)> {
        if let Some(received) = self.received.pop_front() {
            return Some(received);
        }
        let payload = self.receive_frame().await?;
        for message in compound::split(&payload).expect("the server's chain") {
            let header = Header::parse(&message).expect("the server's header");
            assert!(header.is_response());
            if header.is_signed()
                && header.status != NtStatus::USER_SESSION_DELETED
                && let Some(keys) = &self.keys
            {
                assert!(
                    keys.signing.verify(&message, GmacNonce::response(&header)),
                    "signature of {header:?}"
                );
            }
            self.credits += i64::from(header.credits);
            let body = Response::parse(&header, &message).expect("the server's body");
            self.received.push_back((header, body, message));
        }
        self.received.pop_front()
    }

    /// The next response, within a minute.
    pub async fn receive(&mut self) -> (Header, Response) {
        let received = timeout(Duration::from_secs(60), self.try_receive()).await.expect("an answer in time");
        let (header, body, _) = received.expect("an answer, not the end of the connection");
        (header, body)
    }

    /// That nothing comes for `time`.
    pub async fn expect_silence(&mut self, time: Duration) {
        if let Ok(received) = timeout(time, self.try_receive()).await {
            panic!("expected silence, not {:?}", received.map(|(header, ..)| header));
        }
    }

    /// Sends a request and gives the final answer to it.
    pub async fn call(&mut self, body: impl Into<Request>) -> (Header, Response) {
        let id = self.send(body).await;
        self.answer(id).await
    }

    /// The same, and the status only.
    pub async fn status(&mut self, body: impl Into<Request>) -> NtStatus {
        self.call(body).await.0.status
    }

    /// The final answer to a request; answers to others are not expected.
    pub async fn answer(&mut self, id: MessageId) -> (Header, Response) {
        loop {
            let (header, body) = self.receive().await;
            assert_eq!(header.message_id, id);
            if header.status != NtStatus::PENDING {
                return (header, body);
            }
        }
    }

    // What every test needs.

    /// A NEGOTIATE request as this client sends it.
    pub fn negotiate_request(&self, dialects: &[Dialect]) -> NegotiateRequest {
        let mut contexts = Vec::new();
        if dialects.contains(&Dialect::Smb311) {
            contexts.push(NegotiateContext::PreauthIntegrity {
                hash_algorithms: vec![1],
                salt: Bytes::from_static(&[9; 32]),
            });
            if !self.offer_ciphers.is_empty() {
                contexts.push(NegotiateContext::Encryption { ciphers: self.offer_ciphers.clone() });
            }
            if !self.offer_signing.is_empty() {
                contexts.push(NegotiateContext::Signing { algorithms: self.offer_signing.clone() });
            }
        }
        NegotiateRequest {
            security_mode: self.security_mode,
            capabilities: Capabilities::ENCRYPTION | Capabilities::LARGE_MTU,
            client_guid: self.guid,
            dialects: dialects.iter().map(|dialect| *dialect as u16).collect(),
            contexts,
        }
    }

    /// Negotiates, and takes over what the server chose.
    pub async fn negotiate(&mut self, dialects: &[Dialect]) -> NegotiateResponse {
        let request = Request::from(self.negotiate_request(dialects));
        let header = self.header(Command::Negotiate);
        let message = self.encode(header, &request);
        self.preauth.update(&message);
        self.send_payload(&message).await;
        let (header, body, reply) = self.try_receive().await.expect("an answer to NEGOTIATE");
        self.preauth.update(&reply);
        let Response::Negotiate(response) = body else { panic!("{header:?} {body:?}") };
        self.dialect = Dialect::try_from(response.dialect_revision).expect("a dialect");
        self.signing = match self.dialect {
            Dialect::Smb202 | Dialect::Smb210 => SigningAlgorithm::HmacSha256,
            _ => SigningAlgorithm::AesCmac,
        };
        if self.dialect < Dialect::Smb311 && response.capabilities.contains(Capabilities::ENCRYPTION) {
            self.cipher = Some(Cipher::Aes128Ccm);
        }
        for context in &response.contexts {
            match context {
                NegotiateContext::Encryption { ciphers } => self.cipher = Cipher::try_from(ciphers[0]).ok(),
                NegotiateContext::Signing { algorithms } => {
                    self.signing = SigningAlgorithm::try_from(algorithms[0]).expect("one that we offered");
                }
                _ => {}
            }
        }
        response
    }

    /// Logs in; the error is the server's status.
    pub async fn login(&mut self, user: &str, password: &str) -> Result<SessionSetupResponse, NtStatus> {
        self.login_with(Initiator::new(user, password, ""), SessionId(0)).await
    }

    /// Logs in with this initiator, naming a session that this one replaces.
    pub async fn login_with(
        &mut self,
        mut initiator: Initiator,
        previous: SessionId,
    ) -> Result<SessionSetupResponse, NtStatus> {
        let mut preauth = self.preauth.clone();
        let before = self.session;
        let mut token = initiator.first();
        loop {
            let request = Request::from(SessionSetupRequest {
                security_mode: 1,
                previous_session_id: previous,
                buffer: token,
                ..SessionSetupRequest::default()
            });
            let mut header = self.header(Command::SessionSetup);
            header.credits = 8192;
            let message = self.encode(header, &request);
            preauth.update(&message);
            self.send_payload(&message).await;
            // The last answer is signed with keys that are made from what is in it.
            let payload = self.receive_frame().await.expect("an answer to SESSION_SETUP");
            let header = Header::parse(&payload).unwrap();
            self.credits += i64::from(header.credits);
            if header.status.is_error() && header.status != NtStatus::MORE_PROCESSING_REQUIRED {
                self.session = before;
                return Err(header.status);
            }
            let Ok(Response::SessionSetup(response)) = Response::parse(&header, &payload) else {
                panic!("{header:?}")
            };
            let first_login = self.keys.is_none();
            self.session = header.session_id;
            token = initiator.next(&response.buffer).expect("the server's token");
            if header.status == NtStatus::SUCCESS {
                let keyless = SessionFlags::IS_GUEST | SessionFlags::IS_NULL;
                if first_login && !response.session_flags.intersects(keyless) {
                    let key = initiator.session_key().expect("a key");
                    let hash = (self.dialect == Dialect::Smb311).then_some(preauth.value());
                    self.take_keys(key, hash);
                }
                if let Some(keys) = &self.keys
                    && header.is_signed()
                {
                    assert!(keys.signing.verify(&payload, GmacNonce::response(&header)));
                }
                return Ok(response);
            }
            preauth.update(&payload);
        }
    }

    fn take_keys(&mut self, key: &[u8; 16], hash: Option<&[u8; 64]>) {
        let keys = SessionKeys::derive(self.dialect, self.cipher, key, key, hash);
        self.keys = Some(ClientKeys {
            signing: Arc::new(SigningKey::new(self.signing, &keys.signing)),
            cipher: self.cipher.map(|cipher| {
                Arc::new(ClientCipher {
                    seal: CipherKey::new(cipher, &keys.client_to_server),
                    open: CipherKey::new(cipher, &keys.server_to_client),
                    nonces: NonceCounter::new(),
                })
            }),
        });
        self.sign = true;
    }

    /// Connects to a share.
    pub async fn tree_connect(&mut self, share: &str) -> Result<TreeConnectResponse, NtStatus> {
        let (header, body) = self.call(tree_connect_request(share)).await;
        match body {
            Response::TreeConnect(response) => {
                self.tree = header.tree_id();
                Ok(response)
            }
            _ => Err(header.status),
        }
    }

    /// Opens or creates a file for reading, writing and deleting, shared with everybody.
    pub async fn open(&mut self, name: &str) -> Result<FileId, NtStatus> {
        let (header, body) = self.call(create_request(name, 3)).await;
        match body {
            Response::Create(response) => Ok(response.file_id),
            _ => Err(header.status),
        }
    }

    /// An ECHO that must succeed: the connection is alive.
    pub async fn echo(&mut self) {
        assert_eq!(self.status(EchoRequest {}).await, NtStatus::SUCCESS);
    }
}

/// A TREE_CONNECT to a share of the server.
pub fn tree_connect_request(share: &str) -> TreeConnectRequest {
    TreeConnectRequest { flags: 0, path: utf16(&format!("\\\\server\\{share}")) }
}

/// A CREATE of a file: all access, shared with everybody. Disposition 1 opens, 2 creates, 3 does either.
pub fn create_request(name: &str, disposition: u32) -> CreateRequest {
    CreateRequest {
        impersonation_level: 2,
        desired_access: AccessMask::FILE_ALL,
        share_access: ShareAccess(7),
        create_disposition: disposition,
        name: utf16(name),
        ..CreateRequest::default()
    }
}

/// A LOCK of bytes; flags: 1 shared, 2 exclusive, 4 unlock, 0x10 fail at once.
pub fn lock_request(file_id: FileId, offset: u64, length: u64, flags: u32) -> LockRequest {
    LockRequest { lock_sequence: 0, file_id, locks: vec![LockElement { offset, length, flags }] }
}

/// Text as the wire has it.
pub fn utf16(text: &str) -> Utf16 {
    Utf16(text.encode_utf16().collect())
}
