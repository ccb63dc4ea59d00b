//! Our own client on `shoal-protocol`: one connection, 3.1.1, signed, requests one after the other or raw frames.
//!
//! It is for checks that need many clients or bad ones; what foreign clients can prove is proven with them.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use shoal_protocol::auth::Initiator;
use shoal_protocol::crypto::{GmacNonce, PreauthHash, SessionKeys, SigningAlgorithm, SigningKey};
use shoal_protocol::dtyp::Guid;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::smb2::header::{Command, Header, HeaderFlags, Routing};
use shoal_protocol::smb2::{
    CloseRequest, CreateOptions, CreateRequest, CreateResponse, FileId, MessageId, NegotiateContext,
    NegotiateRequest, QueryDirectoryRequest, Request, Response, SessionId, SessionSetupRequest,
    SetInfoRequest, ShareAccess, TreeConnectRequest, TreeId,
};
use shoal_protocol::{NtStatus, Utf16, smb2};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Why a call did not give its answer.
#[derive(Debug)]
pub enum Trouble {
    /// The server answered with this status.
    Status(NtStatus),
    /// The connection or the answer was broken.
    Broken(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Status(status) => write!(f, "{status}"),
            Trouble::Broken(why) => f.write_str(why),
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(e: std::io::Error) -> Self {
        Trouble::Broken(format!("connection: {e}"))
    }
}

/// A result of the client.
pub type Result<T, E = Trouble> = std::result::Result<T, E>;

fn broken(what: &str) -> impl Fn(shoal_protocol::Malformed) -> Trouble {
    move |e| Trouble::Broken(format!("{what}: {e}"))
}

/// One connection with, once logged in, one session and one tree.
pub struct Client {
    stream: TcpStream,
    next_message_id: u64,
    session_id: SessionId,
    tree_id: TreeId,
    signing_algorithm: SigningAlgorithm,
    preauth: PreauthHash,
    signing: Option<SigningKey>,
}

impl Client {
    /// Connects and negotiates 3.1.1 with AES-GMAC or AES-CMAC signing.
    pub async fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            next_message_id: 0,
            session_id: SessionId(0),
            tree_id: TreeId(0),
            signing_algorithm: SigningAlgorithm::AesCmac,
            preauth: PreauthHash::new(),
            signing: None,
        };
        let frame = client.request(&Request::Negotiate(negotiate()));
        client.preauth.update(&frame);
        client.send(&frame).await?;
        let (header, message) = client.receive().await?;
        client.preauth.update(&message);
        let Response::Negotiate(answer) =
            Response::parse(&header, &message).map_err(broken("NEGOTIATE response"))?
        else {
            return Err(Trouble::Status(header.status));
        };
        for context in &answer.contexts {
            if let NegotiateContext::Signing { algorithms } = context
                && algorithms.first() == Some(&(SigningAlgorithm::AesGmac as u16))
            {
                client.signing_algorithm = SigningAlgorithm::AesGmac;
            }
        }
        Ok(client)
    }

    /// Logs in and connects to `share`.
    pub async fn login(&mut self, user: &str, password: &str, share: &str) -> Result<()> {
        let mut initiator = Initiator::new(user, password, "");
        let mut preauth = self.preauth.clone();
        let mut token = initiator.first();
        loop {
            let frame = self.request(&Request::SessionSetup(session_setup(token)));
            preauth.update(&frame);
            self.send(&frame).await?;
            let (header, message) = self.receive().await?;
            self.session_id = header.session_id;
            let parsed = Response::parse(&header, &message).map_err(broken("SESSION_SETUP response"))?;
            let Response::SessionSetup(answer) = parsed else { return Err(Trouble::Status(header.status)) };
            let next = initiator
                .next(&answer.buffer)
                .map_err(|e| Trouble::Broken(format!("authentication: {e}")))?;
            if header.status == NtStatus::SUCCESS {
                break;
            }
            // 3.2.5.3: the last, successful response is not part of the hash.
            preauth.update(&message);
            token = next;
        }
        let key = initiator.session_key().ok_or_else(|| Trouble::Broken("no session key".to_owned()))?;
        let hash = preauth.value();
        let keys = SessionKeys::derive(smb2::Dialect::Smb311, None, key, key, Some(hash));
        self.signing = Some(SigningKey::new(self.signing_algorithm, &keys.signing));
        let path = Utf16::from(format!("\\\\127.0.0.1\\{share}").as_str());
        let (header, _) = self.call(&Request::TreeConnect(TreeConnectRequest { flags: 0, path })).await?;
        self.tree_id = header.tree_id();
        Ok(())
    }

    /// One request as a frame's payload, signed once there is a key. It takes the next message id.
    pub fn request(&mut self, request: &Request) -> BytesMut {
        let mut header = Header::request(request.command());
        header.credit_charge = 1;
        header.credits = 128;
        header.message_id = MessageId(self.next_message_id);
        header.session_id = self.session_id;
        header.routing = Routing::Sync { process_id: 0xFEFF, tree_id: self.tree_id };
        self.next_message_id += 1;
        let mut out = BytesMut::with_capacity(256);
        header.encode(&mut out);
        request.encode(&mut out);
        self.sign(&mut out);
        out
    }

    /// Signs a payload of one message in place, if there is a key: sets the flag and the signature.
    pub fn sign(&self, message: &mut [u8]) {
        let Some(key) = &self.signing else { return };
        if message.len() < Header::LEN {
            return;
        }
        let mut field = [0; 4];
        field.copy_from_slice(&message[16..20]);
        let flags = u32::from_le_bytes(field) | HeaderFlags::SIGNED.bits();
        message[16..20].copy_from_slice(&flags.to_le_bytes());
        message[48..64].fill(0);
        let mut id = [0; 8];
        id.copy_from_slice(&message[24..32]);
        let cancel = message[12..14] == (Command::Cancel as u16).to_le_bytes();
        let nonce = GmacNonce {
            message_id: MessageId(u64::from_le_bytes(id)),
            is_server_response: false,
            is_cancel: cancel,
        };
        let signature = key.sign(&[message], nonce);
        message[48..64].copy_from_slice(&signature);
    }

    /// Sends a payload in its frame.
    pub async fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut frame = Vec::with_capacity(4 + payload.len());
        frame.extend_from_slice(&shoal_protocol::frame::prefix(payload.len()));
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await?;
        Ok(())
    }

    /// Receives the next message (the first of its frame).
    pub async fn receive(&mut self) -> Result<(Header, Bytes)> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).await?;
        let length = u32::from_be_bytes(prefix) as usize;
        if length > 16 << 20 {
            return Err(Trouble::Broken(format!("the server announces a frame of {length} bytes")));
        }
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await?;
        let payload = Bytes::from(payload);
        let header = Header::parse(&payload).map_err(broken("header of a response"))?;
        Ok((header, payload))
    }

    /// Sends a request and waits for its final answer; an answer that is none is `Trouble::Status`.
    pub async fn call(&mut self, request: &Request) -> Result<(Header, Response)> {
        let id = self.next_message_id;
        let frame = self.request(request);
        self.send(&frame).await?;
        loop {
            let (header, message) = self.receive().await?;
            if header.message_id.0 != id || header.status == NtStatus::PENDING {
                continue;
            }
            // NO_MORE_FILES is a warning by its severity, and yet no answer.
            return match Response::parse(&header, &message).map_err(broken("response"))? {
                Response::Error(_) => Err(Trouble::Status(header.status)),
                response => Ok((header, response)),
            };
        }
    }

    /// CREATE.
    pub async fn create(&mut self, request: CreateRequest) -> Result<CreateResponse> {
        match self.call(&Request::Create(request)).await? {
            (_, Response::Create(answer)) => Ok(answer),
            (header, _) => Err(Trouble::Broken(format!("CREATE answered with {:?}", header.command))),
        }
    }

    /// CLOSE.
    pub async fn close(&mut self, file_id: FileId) -> Result<()> {
        self.call(&Request::Close(CloseRequest { flags: 0, file_id })).await.map(drop)
    }

    /// SET_INFO of a file information class.
    pub async fn set_info(&mut self, file_id: FileId, class: u8, buffer: Bytes) -> Result<()> {
        let request = SetInfoRequest {
            info_type: 1,
            file_info_class: class,
            additional_information: 0,
            file_id,
            buffer,
        };
        self.call(&Request::SetInfo(request)).await.map(drop)
    }

    /// Every name in an open directory but `.` and `..`.
    pub async fn names(&mut self, directory: FileId) -> Result<Vec<String>> {
        let mut names = Vec::new();
        loop {
            let request = QueryDirectoryRequest {
                file_information_class: 12,
                flags: 0,
                file_index: 0,
                file_id: directory,
                output_buffer_length: 65_536,
                search_pattern: Utf16::from("*"),
            };
            match self.call(&Request::QueryDirectory(request)).await {
                Ok((_, Response::QueryDirectory(answer))) => names_of(&answer.buffer, &mut names)?,
                Ok(_) => {
                    return Err(Trouble::Broken("QUERY_DIRECTORY answered with another command".to_owned()));
                }
                Err(Trouble::Status(NtStatus::NO_MORE_FILES)) => return Ok(names),
                Err(trouble) => return Err(trouble),
            }
        }
    }
}

/// Reads FILE_NAMES_INFORMATION entries (MS-FSCC 2.4.33).
fn names_of(buffer: &[u8], names: &mut Vec<String>) -> Result<()> {
    let short = || Trouble::Broken("a listing is cut short".to_owned());
    let number = |at: usize| -> Result<usize> {
        let bytes = buffer.get(at..at + 4).ok_or_else(short)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    let mut at = 0;
    loop {
        let (next, length) = (number(at)?, number(at + 8)?);
        let name = buffer.get(at + 12..at + 12 + length).ok_or_else(short)?;
        let units: Vec<u16> =
            name.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        let name = String::from_utf16_lossy(&units);
        if name != "." && name != ".." {
            names.push(name);
        }
        if next == 0 {
            return Ok(());
        }
        at += next;
    }
}

/// The NEGOTIATE that this client sends.
pub fn negotiate() -> NegotiateRequest {
    let mut salt = [0; 32];
    shoal_protocol::crypto::random(&mut salt);
    let mut guid = [0; 16];
    shoal_protocol::crypto::random(&mut guid);
    NegotiateRequest {
        security_mode: smb2::SecurityMode::SIGNING_ENABLED,
        capabilities: smb2::Capabilities::LARGE_MTU,
        client_guid: Guid(guid),
        dialects: vec![0x0311],
        contexts: vec![
            NegotiateContext::PreauthIntegrity {
                hash_algorithms: vec![1],
                salt: Bytes::copy_from_slice(&salt),
            },
            NegotiateContext::Signing {
                algorithms: vec![SigningAlgorithm::AesGmac as u16, SigningAlgorithm::AesCmac as u16],
            },
        ],
    }
}

/// A SESSION_SETUP with this token.
pub fn session_setup(token: Bytes) -> SessionSetupRequest {
    SessionSetupRequest {
        flags: 0,
        security_mode: 1,
        capabilities: 0,
        channel: 0,
        previous_session_id: SessionId(0),
        buffer: token,
    }
}

/// A CREATE of `name` with full sharing: `disposition` and `options` as in MS-SMB2 2.2.13.
pub fn create(name: &str, access: u32, disposition: u32, options: u32) -> CreateRequest {
    CreateRequest {
        requested_oplock_level: 0,
        impersonation_level: 2,
        desired_access: AccessMask(access),
        file_attributes: FileAttributes(0),
        share_access: ShareAccess(7),
        create_disposition: disposition,
        create_options: CreateOptions(options),
        name: Utf16::from(name),
        contexts: Vec::new(),
    }
}

/// FILE_RENAME_INFORMATION for SMB2 (MS-FSCC 2.4.42.2).
pub fn rename_information(name: &str, replace: bool) -> Bytes {
    let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut buffer = Vec::with_capacity(24 + units.len());
    buffer.extend_from_slice(&[u8::from(replace), 0, 0, 0, 0, 0, 0, 0]);
    buffer.extend_from_slice(&[0; 8]);
    buffer.extend_from_slice(&(units.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&units);
    // Windows wants at least the size of the structure with its padding.
    while buffer.len() < 24 {
        buffer.push(0);
    }
    Bytes::from(buffer)
}
