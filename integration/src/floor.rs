//! `cargo integration floor`: what an operation costs at least, as a program to race against.
//!
//! It speaks just enough of SMB 3.1.1 for our own client: NEGOTIATE, NTLM, and each request as the socket, file and MAC
//! calls that any server must do for it. No share modes, no locks, no cache, no case folding, no attributes that are
//! stored, no limits: a table of descriptors for each connection, a thread for each, calls that block. It is a yardstick
//! and no server: it trusts its client, and what the client does not ask for it refuses.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};
use rustix::fs::{AtFlags, Dir, DirEntry, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use shoal_protocol::auth::{self, Acceptor, Lookup, Step, TargetInfo};
use shoal_protocol::crypto::{
    self, Cipher, CipherKey, GmacNonce, NonceCounter, PreauthHash, SessionKeys, SigningAlgorithm, SigningKey,
};
use shoal_protocol::dtyp::{FileTime, Guid};
use shoal_protocol::frame;
use shoal_protocol::fscc::directory_info::{DirectoryClass, DirectoryEncoder, DirectoryEntry};
use shoal_protocol::fscc::file_info::{BasicInformation, NetworkOpenInformation, StandardInformation};
use shoal_protocol::fscc::{AccessMask, FileAttributes};
use shoal_protocol::smb2::close::POSTQUERY_ATTRIB;
use shoal_protocol::smb2::{
    self, Capabilities, CloseRequest, CloseResponse, Command, CreateDisposition, CreateOptions,
    CreateRequest, CreateResponse, EchoResponse, ErrorResponse, FileId, FlushResponse, Header, HeaderFlags,
    LogoffResponse, NegotiateContext, NegotiateRequest, NegotiateResponse, QueryDirectoryRequest,
    QueryDirectoryResponse, QueryInfoRequest, QueryInfoResponse, ReadRequest, ReadResponse, Request,
    Response, Routing, SecurityMode, SessionFlags, SessionId, SessionSetupRequest, SessionSetupResponse,
    SetInfoRequest, SetInfoResponse, TransformHeader, TreeConnectResponse, TreeDisconnectResponse, TreeId,
    WriteResponse,
};
use shoal_protocol::{Malformed, NtStatus};
use zeroize::Zeroizing;

use crate::server::{PASSWORD, USER};

/// `cargo integration floor`.
#[derive(clap::Args)]
pub struct Options {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The directory to serve, under any share name
    directory: PathBuf,
}

/// The longest READ and WRITE: what the race asks for, and no more.
const DATA_MAX: usize = 1 << 20;
/// The longest listing.
const LISTING_MAX: usize = 1 << 20;
/// A frame, with room for headers.
const FRAME_MAX: usize = DATA_MAX + (64 << 10);
/// The one session and the one tree of a connection.
const SESSION: SessionId = SessionId(1);
const TREE: TreeId = TreeId(1);
/// Of a WRITE request: where its data's offset and length, its place in the file and its open stand (2.2.21).
const WRITE_DATA_OFFSET: usize = Header::LEN + 2;
const WRITE_LENGTH: usize = Header::LEN + 4;
const WRITE_PLACE: usize = Header::LEN + 8;
const WRITE_VOLATILE: usize = Header::LEN + 24;

/// Serves until it is killed.
pub fn run(options: &Options) -> ExitCode {
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("floor: {why}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> Result<(), String> {
    let root = open_root(&options.directory).map_err(|e| format!("{}: {e}", options.directory.display()))?;
    let root = Arc::new(root);
    let listener = TcpListener::bind(options.listen).map_err(|e| format!("{}: {e}", options.listen))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    println!("floor: listening on {address}");
    for stream in listener.incoming() {
        let (stream, root) = (stream.map_err(|e| format!("accept: {e}"))?, root.clone());
        std::thread::spawn(move || {
            if let Err(why) = Connection::new(stream, root).serve() {
                eprintln!("floor: {why}");
            }
        });
    }
    Ok(())
}

fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Why a connection ended before its client left.
type Broken = String;

fn malformed(why: Malformed) -> Broken {
    format!("malformed: {why}")
}

struct Connection {
    stream: TcpStream,
    root: Arc<OwnedFd>,
    /// What was received and not handled yet stands in `received[begin..end]`.
    received: Vec<u8>,
    begin: usize,
    end: usize,
    /// The frame that goes out next, as far as `sending`. It is never cut: its pages stay where they are.
    out: Vec<u8>,
    sending: usize,
    /// A header and a body on their way into `out`.
    scratch: BytesMut,
    preauth: PreauthHash,
    algorithm: SigningAlgorithm,
    cipher: Option<Cipher>,
    /// The authentication under way.
    handshake: Option<(Acceptor, PreauthHash)>,
    signing: Option<SigningKey>,
    ciphers: Option<Ciphers>,
    opens: Vec<Option<Open>>,
    free: Vec<usize>,
}

struct Ciphers {
    from_client: CipherKey,
    to_client: CipherKey,
    nonces: NonceCounter,
}

/// One descriptor of the table.
struct Open {
    file: OwnedFd,
    path: String,
    directory: bool,
    delete: bool,
    listing: Option<Listing>,
}

/// Where a listing has got to.
struct Listing {
    entries: Dir,
    /// Read from the directory, and without room in the last answer.
    next: Option<DirEntry>,
}

/// What a request comes to.
enum Answer {
    Body(NtStatus, Response),
    /// A READ's data stands in `out` already, where it belongs.
    Data(usize),
    Nothing,
}

impl Answer {
    fn done(response: impl Into<Response>) -> Answer {
        Answer::Body(NtStatus::SUCCESS, response.into())
    }

    fn refused(status: NtStatus) -> Answer {
        Answer::Body(status, Response::Error(ErrorResponse::empty()))
    }
}

impl From<Errno> for Answer {
    fn from(error: Errno) -> Answer {
        Answer::refused(match error {
            Errno::NOENT => NtStatus::OBJECT_NAME_NOT_FOUND,
            Errno::EXIST => NtStatus::OBJECT_NAME_COLLISION,
            Errno::NOTDIR => NtStatus::OBJECT_PATH_NOT_FOUND,
            Errno::NOTEMPTY => NtStatus::DIRECTORY_NOT_EMPTY,
            Errno::ISDIR => NtStatus::FILE_IS_A_DIRECTORY,
            _ => NtStatus::ACCESS_DENIED,
        })
    }
}

/// The one account.
struct Alice;

impl auth::Accounts for Alice {
    fn nt_hash(&self, user: &str, _domain: &str) -> Lookup {
        if user.eq_ignore_ascii_case(USER) {
            Lookup::Hash(Zeroizing::new(auth::nt_hash(PASSWORD)))
        } else {
            Lookup::Unknown
        }
    }

    fn guest_ok(&self) -> bool {
        false
    }
}

impl Connection {
    fn new(stream: TcpStream, root: Arc<OwnedFd>) -> Connection {
        Connection {
            stream,
            root,
            received: vec![0; FRAME_MAX],
            begin: 0,
            end: 0,
            out: vec![0; FRAME_MAX],
            sending: 0,
            scratch: BytesMut::with_capacity(1024),
            preauth: PreauthHash::new(),
            algorithm: SigningAlgorithm::AesCmac,
            cipher: None,
            handshake: None,
            signing: None,
            ciphers: None,
            opens: Vec::new(),
            free: Vec::new(),
        }
    }

    fn serve(mut self) -> Result<(), Broken> {
        self.stream.set_nodelay(true).map_err(|e| e.to_string())?;
        while let Some((begin, end)) = self.receive()? {
            self.frame(begin, end)?;
            if self.sending > 0 {
                let length = self.sending - frame::HEADER;
                self.out[..frame::HEADER].copy_from_slice(&frame::prefix(length));
                self.stream.write_all(&self.out[..self.sending]).map_err(|e| format!("send: {e}"))?;
            }
        }
        Ok(())
    }

    /// Where the next frame's payload stands; `None` when the client has left.
    fn receive(&mut self) -> Result<Option<(usize, usize)>, Broken> {
        loop {
            let held = &self.received[self.begin..self.end];
            if let Some(length) = frame::length(held).map_err(malformed)? {
                if frame::HEADER + length > FRAME_MAX {
                    return Err(format!("a frame of {length} bytes"));
                }
                if held.len() >= frame::HEADER + length {
                    let begin = self.begin + frame::HEADER;
                    self.begin = begin + length;
                    return Ok(Some((begin, begin + length)));
                }
            }
            if self.begin == self.end {
                (self.begin, self.end) = (0, 0);
            } else if self.begin > 0 {
                self.received.copy_within(self.begin..self.end, 0);
                (self.begin, self.end) = (0, self.end - self.begin);
            }
            match self.stream.read(&mut self.received[self.end..]).map_err(|e| format!("receive: {e}"))? {
                0 => return Ok(None),
                count => self.end += count,
            }
        }
    }

    /// Answers one frame into `out`.
    fn frame(&mut self, begin: usize, end: usize) -> Result<(), Broken> {
        self.sending = 0;
        let mut at = begin;
        let encrypted = TransformHeader::is_transform(&self.received[begin..end]);
        if encrypted {
            let header = TransformHeader::parse(&self.received[begin..end]).map_err(malformed)?;
            let ciphers = self.ciphers.as_ref().ok_or("encrypted without a key")?;
            at += TransformHeader::LEN;
            let data = &mut self.received[at..end];
            if !ciphers.from_client.open_in_place(&header.nonce, &header.aad(), data, &header.signature) {
                return Err("wrong key or changed bytes".to_owned());
            }
        }
        let first = frame::HEADER + if encrypted { TransformHeader::LEN } else { 0 };
        let mut to = first;
        let mut related = None;
        loop {
            let header = Header::parse(&self.received[at..end]).map_err(malformed)?;
            let last = header.next_command == 0;
            let next = if last { end } else { at + header.next_command as usize };
            if next > end {
                return Err("a chain beyond its frame".to_owned());
            }
            let until = self.message(&header, at, next, to, encrypted, &mut related)?;
            if last {
                to = until;
                break;
            }
            (at, to) = (next, until);
        }
        if to == first {
            return Ok(());
        }
        self.sending = to;
        if encrypted {
            self.encrypt(first, to)?;
        }
        Ok(())
    }

    fn encrypt(&mut self, first: usize, to: usize) -> Result<(), Broken> {
        let ciphers = self.ciphers.as_ref().ok_or("encrypted without a key")?;
        let mut header = TransformHeader {
            signature: [0; 16],
            nonce: ciphers.nonces.next().ok_or("the key is used up")?,
            original_message_size: (to - first) as u32,
            flags: TransformHeader::ENCRYPTED,
            session_id: SESSION,
        };
        let data = &mut self.out[first..to];
        header.signature = ciphers.to_client.seal_in_place(&header.nonce, &header.aad(), data);
        self.scratch.clear();
        header.encode(&mut self.scratch);
        self.out[frame::HEADER..first].copy_from_slice(&self.scratch);
        Ok(())
    }

    /// Answers the message at `received[begin..end]` into `out` from `to` on; says where the answer ends.
    fn message(
        &mut self,
        header: &Header,
        begin: usize,
        end: usize,
        to: usize,
        encrypted: bool,
        related: &mut Option<FileId>,
    ) -> Result<usize, Broken> {
        let signed = header.is_signed() && !encrypted;
        if signed {
            let key = self.signing.as_ref().ok_or("signed without a key")?;
            if !key.verify(&self.received[begin..end], GmacNonce::request(header)) {
                return Err("a wrong signature".to_owned());
            }
        }
        let answer = match header.command {
            // Its data goes to the file from where it was received.
            Command::Write => self.write(begin, end)?,
            _ => {
                let message = Bytes::copy_from_slice(&self.received[begin..end]);
                let request = Request::parse(header.command, &message).map_err(malformed)?;
                self.answer(&message, request, to, related)?
            }
        };
        let mut reply = Header {
            status: NtStatus::SUCCESS,
            flags: HeaderFlags::SERVER_TO_REDIR,
            next_command: 0,
            routing: Routing::Sync { process_id: 0xFEFF, tree_id: header.tree_id() },
            signature: [0; 16],
            credits: header.credits.clamp(1, 512),
            ..header.clone()
        };
        if header.is_related() {
            reply.flags |= HeaderFlags::RELATED_OPERATIONS;
        }
        match header.command {
            Command::SessionSetup => reply.session_id = SESSION,
            Command::TreeConnect => reply.routing = Routing::Sync { process_id: 0xFEFF, tree_id: TREE },
            _ => {}
        }
        // The last answer of a login is signed with the key that it made.
        let sign = signed || (header.command == Command::SessionSetup && self.handshake.is_none());
        if sign && self.signing.is_some() {
            reply.flags |= HeaderFlags::SIGNED;
        }
        self.scratch.clear();
        let mut until = to;
        match answer {
            Answer::Nothing => return Ok(to),
            Answer::Body(status, response) => {
                reply.status = status;
                reply.encode(&mut self.scratch);
                response.encode(&mut self.scratch);
            }
            Answer::Data(count) => {
                reply.encode(&mut self.scratch);
                // The fixed part of 2.2.20, whose data stands behind it in `out`.
                self.scratch.put_u16_le(17);
                self.scratch.put_u16_le((Header::LEN + ReadResponse::FIXED) as u16);
                self.scratch.put_u32_le(count as u32);
                self.scratch.put_u64_le(0);
                until += count;
            }
        }
        self.out[to..to + self.scratch.len()].copy_from_slice(&self.scratch);
        until += self.scratch.len();
        if header.next_command != 0 {
            let padded = to + (until - to).next_multiple_of(8);
            self.out[until..padded].fill(0);
            until = padded;
            let next = ((until - to) as u32).to_le_bytes();
            self.out[to + Header::NEXT_COMMAND_AT..][..4].copy_from_slice(&next);
        }
        if header.command == Command::SessionSetup
            && let Some((_, preauth)) = &mut self.handshake
        {
            preauth.update(&self.out[to..until]);
        }
        if header.command == Command::Negotiate {
            self.preauth.update(&self.out[to..until]);
        }
        if let Some(key) = &self.signing
            && sign
        {
            key.sign_in_place(&mut self.out[to..until], GmacNonce::response(&reply));
        }
        Ok(until)
    }

    fn answer(
        &mut self,
        message: &Bytes,
        request: Request,
        to: usize,
        related: &mut Option<FileId>,
    ) -> Result<Answer, Broken> {
        // All ones: the open that the chain is about.
        let id = |id: FileId| if id == FileId::RELATED { related.unwrap_or(id) } else { id };
        Ok(match request {
            Request::Negotiate(request) => self.negotiate(message, &request)?,
            Request::SessionSetup(request) => self.session_setup(message, &request)?,
            Request::Logoff(_) => Answer::done(Response::Logoff(LogoffResponse {})),
            Request::TreeConnect(_) => Answer::done(Response::TreeConnect(TreeConnectResponse {
                share_type: TreeConnectResponse::DISK,
                maximal_access: AccessMask(0x001F_01FF),
                ..TreeConnectResponse::default()
            })),
            Request::TreeDisconnect(_) => Answer::done(Response::TreeDisconnect(TreeDisconnectResponse {})),
            Request::Create(request) => match self.create(&request) {
                Ok(response) => {
                    *related = Some(response.file_id);
                    Answer::done(Response::Create(response))
                }
                Err(error) => error.into(),
            },
            Request::Close(request) => {
                let file_id = id(request.file_id);
                self.close(&CloseRequest { file_id, ..request })
            }
            Request::Read(request) => {
                let file_id = id(request.file_id);
                self.read(&ReadRequest { file_id, ..request }, to)
            }
            Request::Flush(request) => match self.open(id(request.file_id)) {
                Some(open) => match rustix::fs::fdatasync(&open.file) {
                    Ok(()) => Answer::done(Response::Flush(FlushResponse {})),
                    Err(error) => error.into(),
                },
                None => Answer::refused(NtStatus::FILE_CLOSED),
            },
            Request::SetInfo(request) => {
                let file_id = id(request.file_id);
                self.set_info(&SetInfoRequest { file_id, ..request })
            }
            Request::QueryInfo(request) => {
                let file_id = id(request.file_id);
                self.query_info(&QueryInfoRequest { file_id, ..request })
            }
            Request::QueryDirectory(request) => {
                let file_id = id(request.file_id);
                self.query_directory(&QueryDirectoryRequest { file_id, ..request })
            }
            Request::Echo(_) => Answer::done(Response::Echo(EchoResponse {})),
            Request::Cancel(_) => Answer::Nothing,
            _ => Answer::refused(NtStatus::NOT_SUPPORTED),
        })
    }

    fn negotiate(&mut self, message: &Bytes, request: &NegotiateRequest) -> Result<Answer, Broken> {
        if !request.dialects.contains(&(smb2::Dialect::Smb311 as u16)) {
            return Err("a client without 3.1.1".to_owned());
        }
        let mut salt = [0; 32];
        crypto::random(&mut salt);
        let mut contexts = vec![NegotiateContext::PreauthIntegrity {
            hash_algorithms: vec![1],
            salt: Bytes::copy_from_slice(&salt),
        }];
        for offered in &request.contexts {
            match offered {
                NegotiateContext::Signing { algorithms } => {
                    if algorithms.contains(&SigningAlgorithm::AesGmac.id()) {
                        self.algorithm = SigningAlgorithm::AesGmac;
                    }
                    contexts.push(NegotiateContext::Signing { algorithms: vec![self.algorithm.id()] });
                }
                NegotiateContext::Encryption { ciphers } => {
                    self.cipher = ciphers.iter().find_map(|id| Cipher::try_from(*id).ok());
                    let chosen = self.cipher.map_or(0, Cipher::id);
                    contexts.push(NegotiateContext::Encryption { ciphers: vec![chosen] });
                }
                _ => {}
            }
        }
        self.preauth.update(message);
        Ok(Answer::done(Response::Negotiate(NegotiateResponse {
            security_mode: SecurityMode::SIGNING_ENABLED,
            dialect_revision: smb2::Dialect::Smb311 as u16,
            server_guid: Guid([0x46; 16]),
            capabilities: Capabilities::LARGE_MTU,
            max_transact_size: LISTING_MAX as u32,
            max_read_size: DATA_MAX as u32,
            max_write_size: DATA_MAX as u32,
            system_time: now(),
            server_start_time: FileTime::ZERO,
            buffer: Acceptor::hint(),
            contexts,
        })))
    }

    fn session_setup(&mut self, message: &Bytes, request: &SessionSetupRequest) -> Result<Answer, Broken> {
        let (acceptor, mut preauth) = self.handshake.take().unwrap_or_else(|| {
            let target = TargetInfo {
                netbios_computer: "FLOOR".to_owned(),
                netbios_domain: "FLOOR".to_owned(),
                dns_computer: "floor".to_owned(),
                dns_domain: String::new(),
            };
            (Acceptor::new(target), self.preauth.clone())
        });
        preauth.update(message);
        let mut challenge = [0; 8];
        crypto::random(&mut challenge);
        match acceptor.step(&request.buffer, now(), challenge, &Alice) {
            Step::Continue { acceptor, token } => {
                self.handshake = Some((acceptor, preauth));
                let response = SessionSetupResponse { session_flags: SessionFlags::EMPTY, buffer: token };
                Ok(Answer::Body(NtStatus::MORE_PROCESSING_REQUIRED, Response::SessionSetup(response)))
            }
            Step::Failed(error) => Ok(Answer::refused(error.status())),
            Step::Done(accepted) => {
                let key = &accepted.session_key[..];
                let hash = Some(preauth.value());
                let keys = SessionKeys::derive(smb2::Dialect::Smb311, self.cipher, key, key, hash);
                self.signing = Some(SigningKey::new(self.algorithm, &keys.signing));
                self.ciphers = self.cipher.map(|cipher| Ciphers {
                    from_client: CipherKey::new(cipher, &keys.client_to_server),
                    to_client: CipherKey::new(cipher, &keys.server_to_client),
                    nonces: NonceCounter::new(),
                });
                let buffer = accepted.token;
                let response = SessionSetupResponse { session_flags: SessionFlags::EMPTY, buffer };
                Ok(Answer::done(Response::SessionSetup(response)))
            }
        }
    }

    fn open(&self, id: FileId) -> Option<&Open> {
        self.opens.get(usize::try_from(id.volatile).ok()?)?.as_ref()
    }

    fn open_mut(&mut self, id: FileId) -> Option<&mut Open> {
        self.opens.get_mut(usize::try_from(id.volatile).ok()?)?.as_mut()
    }

    fn create(&mut self, request: &CreateRequest) -> Result<CreateResponse, Errno> {
        let mut path = request.name.to_string_lossy().replace('\\', "/");
        if path.is_empty() {
            path.push('.');
        }
        let disposition =
            CreateDisposition::try_from(request.create_disposition).map_err(|_| Errno::INVAL)?;
        let directory = request.create_options.contains(CreateOptions::DIRECTORY_FILE);
        let (file, create_action) =
            self.open_or_make(&path, request.desired_access, disposition, directory)?;
        let stat = rustix::fs::fstat(&file)?;
        let open = Open {
            file,
            path,
            directory: is_directory(&stat),
            delete: request.create_options.contains(CreateOptions::DELETE_ON_CLOSE),
            listing: None,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.opens.push(None);
            self.opens.len() - 1
        });
        self.opens[slot] = Some(open);
        let facts = Facts::of(&stat);
        Ok(CreateResponse {
            create_action,
            creation_time: facts.change,
            last_access_time: facts.access,
            last_write_time: facts.write,
            change_time: facts.change,
            allocation_size: facts.allocated,
            end_of_file: facts.size,
            file_attributes: facts.attributes,
            file_id: FileId { persistent: slot as u64, volatile: slot as u64 },
            ..CreateResponse::default()
        })
    }

    fn open_or_make(
        &self,
        path: &str,
        access: AccessMask,
        disposition: CreateDisposition,
        directory: bool,
    ) -> Result<(OwnedFd, u32), Errno> {
        let all = AccessMask::GENERIC_ALL | AccessMask::MAXIMUM_ALLOWED;
        let reads =
            access.intersects(AccessMask::READ_DATA | AccessMask::EXECUTE | AccessMask::GENERIC_READ | all);
        let writes = access
            .intersects(AccessMask::WRITE_DATA | AccessMask::APPEND_DATA | AccessMask::GENERIC_WRITE | all)
            && !directory;
        // The cheapest descriptor that does what was asked for.
        let how = match (reads, writes) {
            _ if directory && !reads => OFlags::PATH | OFlags::DIRECTORY,
            (_, true) => OFlags::RDWR,
            (true, false) => OFlags::RDONLY,
            (false, false) => OFlags::PATH,
        };
        let how = how | OFlags::CLOEXEC;
        let making = OFlags::CREATE | if writes { OFlags::RDWR } else { OFlags::RDONLY } | OFlags::CLOEXEC;
        let exists = |flags| match self.openat(path, flags) {
            // Directories are not opened for writing, whatever the access says.
            Err(Errno::ISDIR) => self.openat(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC),
            other => other,
        };
        let make = || {
            if directory {
                rustix::fs::mkdirat(&*self.root, path, Mode::from(0o755))?;
                return self.openat(path, how);
            }
            self.openat(path, making | OFlags::EXCL)
        };
        Ok(match disposition {
            CreateDisposition::Open => (exists(how)?, CreateResponse::OPENED),
            CreateDisposition::Create => (make()?, CreateResponse::CREATED),
            CreateDisposition::OpenIf => match exists(how) {
                Err(Errno::NOENT) => (make()?, CreateResponse::CREATED),
                other => (other?, CreateResponse::OPENED),
            },
            CreateDisposition::Overwrite => {
                (self.openat(path, how | OFlags::RDWR | OFlags::TRUNC)?, CreateResponse::OVERWRITTEN)
            }
            CreateDisposition::OverwriteIf | CreateDisposition::Supersede => {
                (self.openat(path, making | OFlags::RDWR | OFlags::TRUNC)?, CreateResponse::OVERWRITTEN)
            }
        })
    }

    fn openat(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mode = if flags.contains(OFlags::CREATE) { Mode::from(0o644) } else { Mode::empty() };
        rustix::fs::openat2(&*self.root, path, flags, mode, ResolveFlags::BENEATH)
    }

    fn close(&mut self, request: &CloseRequest) -> Answer {
        let slot = request.file_id.volatile as usize;
        let Some(open) = self.opens.get_mut(slot).and_then(Option::take) else {
            return Answer::refused(NtStatus::FILE_CLOSED);
        };
        self.free.push(slot);
        let mut response = CloseResponse::default();
        if request.flags & POSTQUERY_ATTRIB != 0
            && let Ok(stat) = rustix::fs::fstat(&open.file)
        {
            let facts = Facts::of(&stat);
            response = CloseResponse {
                flags: POSTQUERY_ATTRIB,
                creation_time: facts.change,
                last_access_time: facts.access,
                last_write_time: facts.write,
                change_time: facts.change,
                allocation_size: facts.allocated,
                end_of_file: facts.size,
                file_attributes: facts.attributes,
            };
        }
        if open.delete {
            let flags = if open.directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            if let Err(error) = rustix::fs::unlinkat(&*self.root, open.path.as_str(), flags) {
                return error.into();
            }
        }
        Answer::done(Response::Close(response))
    }

    fn read(&mut self, request: &ReadRequest, to: usize) -> Answer {
        let slot = request.file_id.volatile as usize;
        let Some(open) = self.opens.get(slot).and_then(Option::as_ref) else {
            return Answer::refused(NtStatus::FILE_CLOSED);
        };
        let at = to + Header::LEN + ReadResponse::FIXED;
        let Some(room) = self.out.get_mut(at..at + request.length as usize) else {
            return Answer::refused(NtStatus::INVALID_PARAMETER);
        };
        match rustix::io::pread(&open.file, room, request.offset) {
            Ok(0) if request.length > 0 => Answer::refused(NtStatus::END_OF_FILE),
            Ok(count) => Answer::Data(count),
            Err(error) => error.into(),
        }
    }

    /// A WRITE, without a copy of its data: the fields are read in place.
    fn write(&mut self, begin: usize, end: usize) -> Result<Answer, Broken> {
        let message = &self.received[begin..end];
        let field = |at: usize| -> Result<u64, Broken> {
            let bytes = message.get(at..at + 8).ok_or("a WRITE that is cut short")?;
            Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
        };
        let offset = (field(WRITE_DATA_OFFSET)? & 0xFFFF) as usize;
        let length = (field(WRITE_LENGTH)? & 0xFFFF_FFFF) as usize;
        let mut place = field(WRITE_PLACE)?;
        let slot = field(WRITE_VOLATILE)? as usize;
        let Some(open) = self.opens.get(slot).and_then(Option::as_ref) else {
            return Ok(Answer::refused(NtStatus::FILE_CLOSED));
        };
        let mut data = message.get(offset..offset + length).ok_or("a WRITE that is cut short")?;
        while !data.is_empty() {
            match rustix::io::pwrite(&open.file, data, place) {
                Ok(count) => {
                    data = &data[count..];
                    place += count as u64;
                }
                Err(error) => return Ok(error.into()),
            }
        }
        Ok(Answer::done(Response::Write(WriteResponse { count: length as u32, remaining: 0 })))
    }

    fn set_info(&mut self, request: &SetInfoRequest) -> Answer {
        let root = self.root.clone();
        let Some(open) = self.open_mut(request.file_id) else {
            return Answer::refused(NtStatus::FILE_CLOSED);
        };
        let done = Answer::done(Response::SetInfo(SetInfoResponse {}));
        let buffer = &request.buffer;
        match (request.info_type, request.file_info_class) {
            // FILE_RENAME_INFORMATION: MS-FSCC 2.4.42.2.
            (1, 10) if buffer.len() >= 20 => {
                let length = u32::from_le_bytes([buffer[16], buffer[17], buffer[18], buffer[19]]) as usize;
                let name =
                    buffer.get(20..20 + length).and_then(|name| shoal_protocol::parse::utf16(name).ok());
                let Some(name) = name else { return Answer::refused(NtStatus::INVALID_PARAMETER) };
                let path = name.to_string_lossy().replace('\\', "/");
                let flags = if buffer[0] == 0 { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
                match rustix::fs::renameat_with(&*root, open.path.as_str(), &*root, path.as_str(), flags) {
                    Ok(()) => {
                        open.path = path;
                        done
                    }
                    Err(error) => error.into(),
                }
            }
            // FILE_DISPOSITION_INFORMATION.
            (1, 13) if !buffer.is_empty() => {
                open.delete = buffer[0] != 0;
                done
            }
            // FILE_END_OF_FILE_INFORMATION.
            (1, 20) if buffer.len() >= 8 => {
                let size = u64::from_le_bytes(buffer[..8].try_into().expect("eight bytes"));
                match rustix::fs::ftruncate(&open.file, size) {
                    Ok(()) => done,
                    Err(error) => error.into(),
                }
            }
            _ => Answer::refused(NtStatus::NOT_SUPPORTED),
        }
    }

    fn query_info(&self, request: &QueryInfoRequest) -> Answer {
        let Some(open) = self.open(request.file_id) else {
            return Answer::refused(NtStatus::FILE_CLOSED);
        };
        let stat = match rustix::fs::fstat(&open.file) {
            Ok(stat) => stat,
            Err(error) => return error.into(),
        };
        let facts = Facts::of(&stat);
        let mut out = BytesMut::new();
        match (request.info_type, request.file_info_class) {
            (1, 4) => BasicInformation {
                creation_time: facts.change,
                last_access_time: facts.access,
                last_write_time: facts.write,
                change_time: facts.change,
                file_attributes: facts.attributes,
            }
            .encode(&mut out),
            (1, 5) => StandardInformation {
                allocation_size: facts.allocated,
                end_of_file: facts.size,
                number_of_links: 1,
                delete_pending: open.delete,
                directory: open.directory,
            }
            .encode(&mut out),
            (1, 34) => NetworkOpenInformation {
                creation_time: facts.change,
                last_access_time: facts.access,
                last_write_time: facts.write,
                change_time: facts.change,
                allocation_size: facts.allocated,
                end_of_file: facts.size,
                file_attributes: facts.attributes,
            }
            .encode(&mut out),
            _ => return Answer::refused(NtStatus::NOT_SUPPORTED),
        }
        Answer::done(Response::QueryInfo(QueryInfoResponse { buffer: out.freeze() }))
    }

    /// Names as the directory has them, each with an lstat unless only names are asked for.
    fn query_directory(&mut self, request: &QueryDirectoryRequest) -> Answer {
        let Some(open) = self.open_mut(request.file_id) else {
            return Answer::refused(NtStatus::FILE_CLOSED);
        };
        let Ok(class) = DirectoryClass::try_from(request.file_information_class) else {
            return Answer::refused(NtStatus::INVALID_INFO_CLASS);
        };
        if request.search_pattern.to_string_lossy() != "*" {
            return Answer::refused(NtStatus::NOT_SUPPORTED);
        }
        let anew = QueryDirectoryRequest::RESTART_SCANS | QueryDirectoryRequest::REOPEN;
        if request.flags & anew != 0 {
            open.listing = None;
        }
        let listing = match &mut open.listing {
            Some(listing) => listing,
            listing => match Dir::read_from(&open.file) {
                Ok(entries) => listing.insert(Listing { entries, next: None }),
                Err(error) => return error.into(),
            },
        };
        let room = (request.output_buffer_length as usize).min(LISTING_MAX);
        let mut encoder = DirectoryEncoder::new(class, room);
        while let Some(entry) = listing.next.take().map(Ok).or_else(|| listing.entries.next()) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return error.into(),
            };
            let name: Vec<u16> = entry.file_name().to_string_lossy().encode_utf16().collect();
            if !encoder.fits(name.len()) {
                listing.next = Some(entry);
                break;
            }
            let mut found = DirectoryEntry { file_name: &name[..], ..DirectoryEntry::default() };
            if !class.names_only() {
                let nofollow = AtFlags::SYMLINK_NOFOLLOW;
                let Ok(stat) = rustix::fs::statat(open.file.as_fd(), entry.file_name(), nofollow) else {
                    continue;
                };
                let facts = Facts::of(&stat);
                found.creation_time = facts.change;
                found.last_access_time = facts.access;
                found.last_write_time = facts.write;
                found.change_time = facts.change;
                found.end_of_file = facts.size;
                found.allocation_size = facts.allocated;
                found.file_attributes = facts.attributes;
                found.file_id = u128::from(stat.st_ino);
            }
            encoder.push(&found);
        }
        if encoder.is_empty() {
            return Answer::refused(NtStatus::NO_MORE_FILES);
        }
        Answer::done(Response::QueryDirectory(QueryDirectoryResponse { buffer: encoder.finish() }))
    }
}

/// A file's facts in SMB's terms.
struct Facts {
    access: FileTime,
    write: FileTime,
    change: FileTime,
    size: u64,
    allocated: u64,
    attributes: FileAttributes,
}

impl Facts {
    fn of(stat: &Stat) -> Facts {
        let time = |seconds: i64, nanos| FileTime::from_unix(seconds, nanos as u32);
        let directory = is_directory(stat);
        Facts {
            access: time(stat.st_atime, stat.st_atime_nsec),
            write: time(stat.st_mtime, stat.st_mtime_nsec),
            change: time(stat.st_ctime, stat.st_ctime_nsec),
            size: if directory { 0 } else { stat.st_size as u64 },
            allocated: stat.st_blocks as u64 * 512,
            attributes: if directory { FileAttributes::DIRECTORY } else { FileAttributes::ARCHIVE },
        }
    }
}

fn is_directory(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir()
}

fn now() -> FileTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    FileTime::from_unix(since.as_secs() as i64, since.subsec_nanos())
}
