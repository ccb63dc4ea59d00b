//! One connection: requests go out as far as the credits reach, replies are collected as they come.
//!
//! It has no task and no channel. [`Connection::submit`] encodes, signs and lays the request into the out-buffer;
//! [`Connection::progress`] sends what lies there in one call and waits until replies are here; [`Connection::next_reply`]
//! gives them, each with the ticket of its request. Who drives hundreds of clients over a connection does it in a loop over
//! these three, which costs two system calls for as many requests as there are replies to answer.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use shoal_protocol::auth::Initiator;
use shoal_protocol::crypto::{Cipher, PreauthHash, SigningAlgorithm};
use shoal_protocol::smb2::header::{Command, Header, HeaderFlags, Routing};
use shoal_protocol::smb2::{
    MessageId, NegotiateContext, Request, Response, SecurityMode, SessionId, TransformHeader,
    TreeConnectRequest, TreeConnectResponse, TreeId, compound,
};
use shoal_protocol::{NtStatus, Utf16, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::session::{Protection, Session, SessionRef};
use super::{Result, Trouble, broken, negotiate, session_setup};

/// The longest frame that is taken from a server: its largest READ or listing, with room.
const FRAME_MAX: usize = 16 << 20;
/// Room for replies that a read finds at least.
const READ_ROOM: usize = 32 * 1024;
/// From here on the data of a WRITE is not copied into the out-buffer.
const APART_FROM: usize = 16 * 1024;
/// Credits that are asked for until there are so many.
const CREDITS_WANTED: u32 = 1024;
/// The bytes that one credit pays for: 3.2.4.1.5.
const CREDIT_BYTES: usize = 65_536;

/// What a request is for: a session and a tree in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    session: Option<usize>,
    id: TreeId,
    encrypts: bool,
}

/// A final answer.
#[derive(Debug)]
pub struct Reply {
    /// What was given with the request.
    pub ticket: u64,
    /// Its header.
    pub header: Header,
    /// The whole message, decrypted.
    pub message: Bytes,
}

impl Reply {
    /// The command's own response; any other is `Trouble::Status`.
    pub fn response(&self) -> Result<Response> {
        match Response::parse(&self.header, &self.message).map_err(broken("response"))? {
            // NO_MORE_FILES is a warning by its severity, and yet no answer.
            Response::Error(_) => Err(Trouble::Status(self.header.status)),
            response => Ok(response),
        }
    }
}

/// A request that was sent.
struct Waiting {
    ticket: u64,
    session: Option<usize>,
    /// Its reply must be signed.
    signed: bool,
    /// Its reply must come encrypted.
    encrypted: bool,
}

/// A chain for which there are no credits yet.
struct Postponed {
    tree: Tree,
    chain: Vec<Request>,
    ticket: u64,
}

/// What is to be sent: pieces that are whole, then the frame under construction.
#[derive(Default)]
struct Outgoing {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
}

impl Outgoing {
    /// Closes the buffer, so that `data` can follow it from where it is.
    fn push_apart(&mut self, data: Bytes) {
        self.pieces.push_back(self.tail.split().freeze());
        self.pieces.push_back(data);
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.tail[..], |piece| &piece[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let all = self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]);
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(all.filter(|bytes| !bytes.is_empty())) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                return piece.advance(count);
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
        self.tail.advance(count);
    }
}

/// One connection, its sessions and what is under way on it.
pub struct Connection {
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: Outgoing,
    next_message_id: u64,
    credits: u32,
    waiting: HashMap<u64, Waiting>,
    postponed: VecDeque<Postponed>,
    replies: VecDeque<Reply>,
    sessions: Vec<Session>,
    preauth: PreauthHash,
    signing: SigningAlgorithm,
    cipher: Option<Cipher>,
    server_signs: bool,
    verify: bool,
    /// The longest READ in bytes that the server takes.
    pub max_read_size: u32,
    /// The longest WRITE in bytes that the server takes.
    pub max_write_size: u32,
    /// The longest answer in bytes that it gives to QUERY_DIRECTORY and QUERY_INFO.
    pub max_transact_size: u32,
}

impl Connection {
    /// Connects and negotiates 3.1.1.
    pub async fn connect(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Connection {
            stream,
            incoming: BytesMut::new(),
            outgoing: Outgoing::default(),
            next_message_id: 0,
            credits: 1,
            waiting: HashMap::new(),
            postponed: VecDeque::new(),
            replies: VecDeque::new(),
            sessions: Vec::new(),
            preauth: PreauthHash::new(),
            signing: SigningAlgorithm::AesCmac,
            cipher: None,
            server_signs: false,
            verify: true,
            max_read_size: 0,
            max_write_size: 0,
            max_transact_size: 0,
        };
        connection.negotiate().await?;
        Ok(connection)
    }

    /// Whether replies' signatures are verified, which costs as much as to make them. They are unless this says otherwise.
    pub fn verify(&mut self, verify: bool) {
        self.verify = verify;
    }

    async fn negotiate(&mut self) -> Result<()> {
        let mut preauth = self.preauth.clone();
        let reply = self.hashed(Tree::default(), Request::Negotiate(negotiate()), &mut preauth).await?;
        preauth.update(&reply.message);
        self.preauth = preauth;
        let Response::Negotiate(answer) = reply.response()? else {
            return Err(Trouble::Broken("NEGOTIATE was answered with another command".to_owned()));
        };
        if answer.dialect_revision != 0x0311 {
            return Err(Trouble::Broken(format!(
                "the server chose dialect {:#06x}",
                answer.dialect_revision
            )));
        }
        for context in &answer.contexts {
            match context {
                NegotiateContext::Signing { algorithms } => {
                    let chosen = algorithms.first().copied().unwrap_or(SigningAlgorithm::AesCmac.id());
                    self.signing =
                        SigningAlgorithm::try_from(chosen).map_err(broken("NEGOTIATE response"))?;
                }
                NegotiateContext::Encryption { ciphers } => {
                    self.cipher = ciphers.first().and_then(|&cipher| Cipher::try_from(cipher).ok());
                }
                _ => {}
            }
        }
        self.server_signs = answer.security_mode.contains(SecurityMode::SIGNING_REQUIRED);
        (self.max_read_size, self.max_write_size) = (answer.max_read_size, answer.max_write_size);
        self.max_transact_size = answer.max_transact_size;
        Ok(())
    }

    /// Logs in. Several sessions may stand on one connection; nothing else may be under way meanwhile.
    pub async fn login(&mut self, user: &str, password: &str, protection: Protection) -> Result<SessionRef> {
        let mut initiator = Initiator::new(user, password, "");
        let mut preauth = self.preauth.clone();
        let mut token = initiator.first();
        let mut id = SessionId(0);
        loop {
            let request = Request::SessionSetup(session_setup(token));
            let reply = self.hashed_in(id, request, &mut preauth).await?;
            id = reply.header.session_id;
            let Response::SessionSetup(answer) = reply.response()? else {
                return Err(Trouble::Broken("SESSION_SETUP was answered with another command".to_owned()));
            };
            let next = initiator
                .next(&answer.buffer)
                .map_err(|e| Trouble::Broken(format!("authentication: {e}")))?;
            if reply.header.status != NtStatus::SUCCESS {
                preauth.update(&reply.message);
                token = next;
                continue;
            }
            // 3.2.5.3: the last, successful response is not part of the hash.
            let key = initiator.session_key().ok_or_else(|| Trouble::Broken("no session key".to_owned()))?;
            let mut session = Session::new(id, key, preauth.value(), self.signing, self.cipher);
            // 3.2.5.3.1: it proves that the server saw the same bytes.
            if !session.verifies(&reply.header, &reply.message) {
                return Err(Trouble::Broken(
                    "the SESSION_SETUP response is not signed with its key".to_owned(),
                ));
            }
            session.protect(protection, self.server_signs, answer.session_flags)?;
            self.sessions.push(session);
            return Ok(SessionRef(self.sessions.len() - 1));
        }
    }

    /// Connects to a share. Nothing else may be under way meanwhile.
    pub async fn tree_connect(&mut self, session: SessionRef, share: &str) -> Result<Tree> {
        let tree = Tree { session: Some(session.0), ..Tree::default() };
        let address = self.stream.peer_addr()?;
        let path = Utf16::from(format!("\\\\{}\\{share}", address.ip()).as_str());
        let request = Request::TreeConnect(TreeConnectRequest { flags: 0, path });
        let reply = self.exchange(tree, request).await?;
        let Response::TreeConnect(answer) = reply.response()? else {
            return Err(Trouble::Broken("TREE_CONNECT was answered with another command".to_owned()));
        };
        let encrypts = answer.share_flags & TreeConnectResponse::ENCRYPT_DATA != 0;
        if encrypts && !self.sessions[session.0].can_encrypt() {
            return Err(Trouble::Broken(format!(
                "{share} wants AES-128-GCM, which the server does not offer"
            )));
        }
        Ok(Tree { id: reply.header.tree_id(), encrypts, ..tree })
    }

    /// Sends a request, or keeps it until there are credits for it. Its reply carries `ticket`.
    pub fn submit(&mut self, tree: Tree, request: Request, ticket: u64) -> Result<()> {
        if self.postponed.is_empty() && self.credits >= charge(&request) {
            return self.lay(tree, std::slice::from_ref(&request), ticket);
        }
        self.postponed.push_back(Postponed { tree, chain: vec![request], ticket });
        Ok(())
    }

    /// The same with a chain of related requests, in one frame. Each has its own reply, all with `ticket`.
    pub fn submit_chain(&mut self, tree: Tree, chain: Vec<Request>, ticket: u64) -> Result<()> {
        if self.postponed.is_empty() && self.credits >= chain.iter().map(charge).sum() {
            return self.lay(tree, &chain, ticket);
        }
        self.postponed.push_back(Postponed { tree, chain, ticket });
        Ok(())
    }

    /// The next reply that is here.
    pub fn next_reply(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    /// Sends what is to be sent and waits until there is a reply. Returns at once where nothing is under way.
    pub async fn progress(&mut self) -> Result<()> {
        std::future::poll_fn(|context| self.poll_progress(context)).await
    }

    /// Sends what is to be sent, without regard to replies.
    pub async fn flush(&mut self) -> Result<()> {
        while self.outgoing.has_remaining() {
            self.stream.write_buf(&mut self.outgoing).await?;
        }
        Ok(())
    }

    /// One request and its reply. Nothing else may be under way meanwhile.
    pub async fn exchange(&mut self, tree: Tree, request: Request) -> Result<Reply> {
        self.submit(tree, request, 0)?;
        self.awaited().await
    }

    async fn awaited(&mut self) -> Result<Reply> {
        self.progress().await?;
        self.next_reply().ok_or_else(|| Trouble::Broken("nothing is under way".to_owned()))
    }

    /// As [`exchange`](Self::exchange), with the request taken into the preauthentication hash.
    async fn hashed(&mut self, tree: Tree, request: Request, preauth: &mut PreauthHash) -> Result<Reply> {
        let from = self.outgoing.tail.len();
        self.lay(tree, &[request], 0)?;
        preauth.update(&self.outgoing.tail[from + frame::HEADER..]);
        self.awaited().await
    }

    /// The same for a session that is not there yet.
    async fn hashed_in(
        &mut self,
        id: SessionId,
        request: Request,
        preauth: &mut PreauthHash,
    ) -> Result<Reply> {
        let from = self.outgoing.tail.len() + frame::HEADER;
        self.lay(Tree::default(), &[request], 0)?;
        let message = &mut self.outgoing.tail[from..];
        message[40..48].copy_from_slice(&id.0.to_le_bytes());
        preauth.update(message);
        self.awaited().await
    }

    fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            while self.outgoing.has_remaining() {
                match pin!(self.stream.write_buf(&mut self.outgoing)).poll(context)? {
                    Poll::Ready(0) => return Poll::Ready(Err(closed())),
                    Poll::Ready(_) => {}
                    Poll::Pending => break,
                }
            }
            if !self.replies.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.waiting.is_empty() && !self.outgoing.has_remaining() {
                return Poll::Ready(if self.postponed.is_empty() {
                    Ok(())
                } else {
                    Err(Trouble::Broken("the server grants too few credits".to_owned()))
                });
            }
            if self.incoming.capacity() - self.incoming.len() < READ_ROOM / 2 {
                self.incoming.reserve(READ_ROOM);
            }
            match pin!(self.stream.read_buf(&mut self.incoming)).poll(context)? {
                Poll::Ready(0) => return Poll::Ready(Err(closed())),
                Poll::Ready(_) => self.absorb()?,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Encodes a chain into the out-buffer. There must be credits for it.
    fn lay(&mut self, tree: Tree, chain: &[Request], ticket: u64) -> Result<()> {
        let session = tree.session.and_then(|session| self.sessions.get(session));
        let encrypts = tree.encrypts || session.is_some_and(|session| session.encrypts);
        let out = &mut self.outgoing.tail;
        let frame_at = out.len();
        let payload_at = frame_at + frame::HEADER;
        let message_at = payload_at + if encrypts { TransformHeader::LEN } else { 0 };
        out.put_bytes(0, message_at - frame_at);
        let mut apart = Bytes::new();
        for (position, request) in chain.iter().enumerate() {
            let charge = charge(request);
            let mut header = Header::request(request.command());
            let lacking = CREDITS_WANTED.saturating_sub(self.credits).min(256);
            header.credit_charge = charge as u16;
            header.credits = (charge + lacking) as u16;
            header.message_id = MessageId(self.next_message_id);
            header.session_id = session.map_or(SessionId(0), |session| session.id);
            header.routing = Routing::Sync { process_id: 0xFEFF, tree_id: tree.id };
            // 3.2.4.1.1: a TREE_CONNECT of 3.1.1 is signed whatever the rest is.
            let signs = !encrypts
                && session.is_some_and(|session| session.signs || request.command() == Command::TreeConnect);
            if signs {
                header.flags |= HeaderFlags::SIGNED;
            }
            if position > 0 {
                header.flags |= HeaderFlags::RELATED_OPERATIONS;
            }
            let start = out.len();
            header.encode(out);
            match request {
                Request::Write(write) if !encrypts && chain.len() == 1 && write.data.len() >= APART_FROM => {
                    write.encode_fixed(out);
                    apart = write.data.clone();
                }
                request => request.encode(out),
            }
            if position + 1 < chain.len() {
                compound::link(out, start);
            }
            if signs && let Some(session) = session {
                let signature = session.signature(&[&out[start..], &apart], header.message_id, false);
                out[start + Header::SIGNATURE_AT..start + Header::LEN].copy_from_slice(&signature);
            }
            let waiting = Waiting { ticket, session: tree.session, signed: signs, encrypted: encrypts };
            self.waiting.insert(self.next_message_id, waiting);
            self.next_message_id += u64::from(charge);
            self.credits = self.credits.saturating_sub(charge);
        }
        if encrypts && let Some(session) = session {
            session.seal(&mut out[..], payload_at)?;
        }
        let length = out.len() - payload_at + apart.len();
        if length > frame::PAYLOAD_MAX {
            return Err(Trouble::Broken(format!("a request of {length} bytes does not fit a frame")));
        }
        out[frame_at..payload_at].copy_from_slice(&frame::prefix(length));
        if !apart.is_empty() {
            self.outgoing.push_apart(apart);
        }
        Ok(())
    }

    /// Takes whole frames out of what was read.
    fn absorb(&mut self) -> Result<()> {
        while let Some(length) = frame::length(&self.incoming).map_err(broken("frame"))? {
            if length > FRAME_MAX {
                return Err(Trouble::Broken(format!("the server announces a frame of {length} bytes")));
            }
            let lacking = (frame::HEADER + length).saturating_sub(self.incoming.len());
            if lacking > 0 {
                self.incoming.reserve(lacking);
                break;
            }
            self.incoming.advance(frame::HEADER);
            let payload = self.incoming.split_to(length);
            self.take(payload)?;
        }
        while let Some(next) = self.postponed.front() {
            if self.credits < next.chain.iter().map(charge).sum() {
                break;
            }
            if let Some(next) = self.postponed.pop_front() {
                self.lay(next.tree, &next.chain, next.ticket)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, mut payload: BytesMut) -> Result<()> {
        let encrypted = TransformHeader::is_transform(&payload);
        if encrypted {
            let header = TransformHeader::parse(&payload).map_err(broken("transform header"))?;
            let session = self.sessions.iter().find(|session| session.id == header.session_id);
            let session =
                session.ok_or_else(|| Trouble::Broken("a reply for no session of ours".to_owned()))?;
            session.open(&mut payload)?;
            payload.advance(TransformHeader::LEN);
        }
        let payload = payload.freeze();
        let header = Header::parse(&payload).map_err(broken("header of a response"))?;
        if header.next_command == 0 {
            return self.take_message(header, payload, encrypted);
        }
        for message in compound::split(&payload).map_err(broken("chain of responses"))? {
            let header = Header::parse(&message).map_err(broken("header of a response"))?;
            self.take_message(header, message, encrypted)?;
        }
        Ok(())
    }

    fn take_message(&mut self, header: Header, message: Bytes, encrypted: bool) -> Result<()> {
        if !header.flags.contains(HeaderFlags::SERVER_TO_REDIR) {
            return Err(Trouble::Broken("the server sends a request".to_owned()));
        }
        self.credits += u32::from(header.credits);
        if header.message_id == MessageId::UNSOLICITED {
            // A break. This client asks for no oplock and no lease, so there is nothing to give back.
            return Ok(());
        }
        // 3.2.5.1.5: an interim response; the final one comes under the same number.
        if header.status == NtStatus::PENDING && header.flags.contains(HeaderFlags::ASYNC_COMMAND) {
            return Ok(());
        }
        let id = header.message_id.0;
        let waiting = self.waiting.remove(&id);
        let waiting =
            waiting.ok_or_else(|| Trouble::Broken(format!("a reply to message {id}, which was not sent")))?;
        let session = waiting.session.and_then(|session| self.sessions.get(session));
        // 3.2.5.1.3: these two tell that there is no key to sign or encrypt with any more.
        let keyless =
            matches!(header.status, NtStatus::USER_SESSION_DELETED | NtStatus::NETWORK_SESSION_EXPIRED);
        if let Some(session) = session
            && !keyless
        {
            if waiting.encrypted && !encrypted {
                return Err(Trouble::Broken("the reply to an encrypted request is not encrypted".to_owned()));
            }
            let signed = header.flags.contains(HeaderFlags::SIGNED);
            if waiting.signed
                && !encrypted
                && (!signed || self.verify && !session.verifies(&header, &message))
            {
                return Err(Trouble::Broken(format!(
                    "the signature of a {:?} response is wrong",
                    header.command
                )));
            }
        }
        self.replies.push_back(Reply { ticket: waiting.ticket, header, message });
        Ok(())
    }
}

/// Raw access, for messages that are wrong on purpose: nobody waits for their answers.
impl Connection {
    /// One request as a frame's payload, signed if there is a session. It takes the next message id, whatever the credits.
    pub fn forge(&mut self, tree: Tree, request: &Request) -> BytesMut {
        let session = tree.session.and_then(|session| self.sessions.get(session));
        let mut header = Header::request(request.command());
        header.credits = 128;
        header.message_id = MessageId(self.next_message_id);
        header.session_id = session.map_or(SessionId(0), |session| session.id);
        header.routing = Routing::Sync { process_id: 0xFEFF, tree_id: tree.id };
        self.next_message_id += 1;
        let mut out = BytesMut::with_capacity(256);
        header.encode(&mut out);
        request.encode(&mut out);
        self.sign(tree, &mut out);
        out
    }

    /// Signs a payload of one message in place, if there is a session: sets the flag and the signature.
    pub fn sign(&self, tree: Tree, message: &mut [u8]) {
        if let Some(session) = tree.session.and_then(|session| self.sessions.get(session)) {
            session.sign(message);
        }
    }

    /// Sends a payload in its frame.
    pub async fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.outgoing.tail.put_slice(&frame::prefix(payload.len()));
        self.outgoing.tail.put_slice(payload);
        self.flush().await
    }

    /// Receives the next message (the first of its frame), whatever it is an answer to.
    pub async fn receive(&mut self) -> Result<(Header, Bytes)> {
        loop {
            if let Some(length) = frame::length(&self.incoming).map_err(broken("frame"))? {
                if length > FRAME_MAX {
                    return Err(Trouble::Broken(format!("the server announces a frame of {length} bytes")));
                }
                if self.incoming.len() >= frame::HEADER + length {
                    self.incoming.advance(frame::HEADER);
                    let payload = self.incoming.split_to(length).freeze();
                    let header = Header::parse(&payload).map_err(broken("header of a response"))?;
                    return Ok((header, payload));
                }
            }
            self.incoming.reserve(READ_ROOM);
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(closed());
            }
        }
    }
}

fn closed() -> Trouble {
    Trouble::Broken("connection: closed by the server".to_owned())
}

/// CreditCharge of a request: 3.2.4.1.5, by the longer of what it sends and what it asks for.
fn charge(request: &Request) -> u32 {
    let bytes = match request {
        Request::Read(read) => read.length as usize,
        Request::Write(write) => write.data.len(),
        Request::QueryDirectory(query) => query.output_buffer_length as usize,
        Request::QueryInfo(query) => (query.output_buffer_length as usize).max(query.input.len()),
        Request::SetInfo(set) => set.buffer.len(),
        Request::ChangeNotify(notify) => notify.output_buffer_length as usize,
        Request::Ioctl(ioctl) => (ioctl.input.len() + ioctl.output.len())
            .max(ioctl.max_input_response as usize + ioctl.max_output_response as usize),
        _ => 0,
    };
    bytes.div_ceil(CREDIT_BYTES).max(1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_protocol::smb2::FileId;

    #[test]
    fn credits_are_charged_by_size() {
        let read = |length| charge(&super::super::read(FileId::default(), 0, length));
        assert_eq!([0, 1, 65_536, 65_537, 1 << 20].map(read), [1, 1, 1, 2, 16]);
        let data = Bytes::from(vec![0; (1 << 20) + 1]);
        assert_eq!(charge(&super::super::write(FileId::default(), 0, data)), 17);
        assert_eq!(charge(&super::super::echo()), 1);
    }

    #[test]
    fn what_goes_out_stays_in_order() {
        let mut out = Outgoing::default();
        out.tail.put_slice(b"ab");
        out.push_apart(Bytes::from_static(b"cdef"));
        out.tail.put_slice(b"gh");
        assert_eq!(out.remaining(), 8);
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(out.chunks_vectored(&mut slices), 3);
        let mut seen = Vec::new();
        for step in [1, 2, 3, 2] {
            assert!(out.has_remaining());
            let mut some = vec![0; step];
            out.copy_to_slice(&mut some);
            seen.extend(some);
        }
        assert_eq!((seen.as_slice(), out.remaining()), (&b"abcdefgh"[..], 0));
    }
}
