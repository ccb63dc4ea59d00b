//! `shoal ping`: what a server says to a NEGOTIATE (MS-SMB2 2.2.3 and 2.2.4). The health check of a container: no login, one round trip.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use shoal_protocol::crypto;
use shoal_protocol::dtyp::Guid;
use shoal_protocol::frame;
use shoal_protocol::smb2::header::Header;
use shoal_protocol::smb2::negotiate::{NegotiateContext, NegotiateRequest, NegotiateResponse};
use shoal_protocol::smb2::{Capabilities, Command, Dialect, SecurityMode};

/// Longest wait for each of connecting, sending and the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// No answer to NEGOTIATE is larger, whatever length it announces.
const ANSWER_MAX: usize = 64 << 10;

/// What a server said.
#[derive(Debug)]
pub struct Answer {
    response: NegotiateResponse,
    took: Duration,
}

/// Asks the server at `address`.
pub fn ping(address: SocketAddr) -> io::Result<Answer> {
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let message = request();
    let mut out = frame::prefix(message.len()).to_vec();
    out.extend_from_slice(&message);
    stream.write_all(&out)?;

    let mut prefix = [0; frame::HEADER];
    stream.read_exact(&mut prefix)?;
    let length = frame::length(&prefix).ok().flatten().filter(|length| *length <= ANSWER_MAX);
    let length = length.ok_or_else(|| wrong("the answer is no SMB message"))?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    let answer = Bytes::from(answer);
    let header = Header::parse(&answer).map_err(|_| wrong("the answer is no SMB2 message"))?;
    if header.status.is_error() {
        return Err(wrong(header.status));
    }
    let response = NegotiateResponse::parse(&answer).map_err(|_| wrong("the answer is malformed"))?;
    Ok(Answer { response, took: started.elapsed() })
}

fn request() -> BytesMut {
    let mut salt = vec![0; 32];
    crypto::random(&mut salt);
    let mut guid = [0; 16];
    crypto::random(&mut guid);
    let request = NegotiateRequest {
        security_mode: SecurityMode::SIGNING_ENABLED,
        capabilities: Capabilities::default(),
        client_guid: Guid(guid),
        dialects: [Dialect::Smb202, Dialect::Smb210, Dialect::Smb300, Dialect::Smb302, Dialect::Smb311]
            .map(|dialect| dialect as u16)
            .to_vec(),
        // 2.2.3.1.1: a client of 3.1.1 must send this one; 1 is SHA-512.
        contexts: vec![NegotiateContext::PreauthIntegrity { hash_algorithms: vec![1], salt: salt.into() }],
    };
    let mut message = BytesMut::new();
    Header::request(Command::Negotiate).encode(&mut message);
    request.encode(&mut message);
    message
}

fn wrong(what: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.response.dialect_revision;
        let dialect = match Dialect::try_from(revision) {
            Ok(dialect) => shoal::config::dialect_name(dialect).to_owned(),
            Err(_) => format!("dialect {revision:#06x}"),
        };
        let signing = if self.response.security_mode.contains(SecurityMode::SIGNING_REQUIRED) {
            "required"
        } else {
            "enabled"
        };
        let micros = self.took.as_micros();
        write!(f, "SMB {dialect}, signing {signing}, server {}, {micros} us", self.response.server_guid)
    }
}
