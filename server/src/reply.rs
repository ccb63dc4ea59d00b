//! Replies: MS-SMB2 3.3.4.1. The only way out for whatever answers a request.
//!
//! A handler returns a [`Reply`]. A [`ReplyFrame`] turns the replies of a chain into one frame: headers, padding,
//! NextCommand, signatures, encryption. The data of a large READ is not copied into it: it goes out as a segment of
//! its own, signed where it lies or encrypted from there.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use shoal_protocol::NtStatus;
use shoal_protocol::crypto::GmacNonce;
use shoal_protocol::frame;
use shoal_protocol::smb2::compound;
use shoal_protocol::smb2::error::ErrorResponse;
use shoal_protocol::smb2::header::{Header, HeaderFlags};
use shoal_protocol::smb2::transform::TransformHeader;
use shoal_protocol::smb2::*;

use crate::budget::Charge;
use crate::state::session::Session;

/// What a handler answers: a status and the body that goes with it. BUFFER_OVERFLOW and MORE_PROCESSING_REQUIRED are
/// answers with a body; an error without one is the `Err` of the handler.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status of the response's header.
    pub status: NtStatus,
    /// The response.
    pub body: Response,
}

impl Reply {
    /// A body that goes with another status than SUCCESS.
    pub fn with_status(status: NtStatus, body: impl Into<Response>) -> Reply {
        Reply { status, body: body.into() }
    }

    /// An error response that says no more than its status.
    pub fn error(status: NtStatus) -> Reply {
        Reply { status, body: Response::Error(ErrorResponse::empty()) }
    }
}

impl<B: Into<Response>> From<B> for Reply {
    fn from(body: B) -> Reply {
        Reply { status: NtStatus::SUCCESS, body: body.into() }
    }
}

/// READ data of at least this many bytes goes out from where it lies; less is cheaper to copy than to track.
const SEGMENT_MIN: usize = 4096;

/// A frame on its way to the client: its bytes, in up to two segments, and what they are charged with.
#[derive(Debug)]
pub struct Frame {
    /// The length prefix, the headers and bodies.
    pub head: Bytes,
    /// The data of a READ, or nothing.
    pub tail: Bytes,
    /// Given back when the frame has been written.
    pub charge: Option<Charge>,
}

impl Frame {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Whether it has no bytes: never, for a frame has at least its prefix.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The replies of one chain, until they are sent.
#[derive(Default)]
pub struct ReplyFrame {
    buffer: BytesMut,
    tail: Bytes,
    /// Where the last message begins.
    start: usize,
    messages: usize,
    /// Who signs the last message, once it is known whether another follows.
    signer: Option<(Arc<Session>, GmacNonce)>,
    /// Who encrypts the frame.
    encryption: Option<Arc<Session>>,
}

impl ReplyFrame {
    /// A frame without a reply; encrypted with the session's keys if one is given.
    pub fn new(encryption: Option<Arc<Session>>) -> ReplyFrame {
        ReplyFrame { encryption, ..ReplyFrame::default() }
    }

    /// Whether there is no reply in it.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.buffer.len() + self.tail.len()
    }

    /// Adds a reply to the command of this number. `signer` signs it, unless the frame is encrypted.
    pub fn push(&mut self, mut header: Header, number: u16, body: &Response, signer: Option<Arc<Session>>) {
        if self.messages == 0 {
            self.buffer.reserve(256);
            self.buffer.put_bytes(0, self.payload_at());
        } else {
            let tail = std::mem::take(&mut self.tail);
            self.buffer.put_slice(&tail);
            compound::link(&mut self.buffer, self.start);
            self.sign();
        }
        self.start = self.buffer.len();
        self.messages += 1;
        self.signer = match signer {
            Some(session) if self.encryption.is_none() && session.keys().is_some() => {
                header.flags |= HeaderFlags::SIGNED;
                Some((session, GmacNonce::response(&header)))
            }
            _ => None,
        };
        header.encode_unknown(number, &mut self.buffer);
        match body {
            Response::Read(read) if read.data.len() >= SEGMENT_MIN => {
                read.encode_fixed(&mut self.buffer);
                self.tail = read.data.clone();
            }
            body => body.encode(&mut self.buffer),
        }
    }

    /// The last message as it stands, unsigned, for the preauthentication hash.
    pub fn last_message(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Signs and encrypts what there is, and leaves an empty frame behind. `None` if there was nothing, or if the
    /// session has no nonce left to encrypt with.
    pub fn take(&mut self) -> Option<Frame> {
        if self.messages == 0 {
            return None;
        }
        self.sign();
        self.messages = 0;
        // Not `split`: the buffer would have two owners then, and count them.
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut tail = std::mem::take(&mut self.tail);
        let prefix = frame::prefix(buffer.len() - frame::HEADER + tail.len());
        buffer[..frame::HEADER].copy_from_slice(&prefix);
        if let Some(session) = &self.encryption {
            tail = seal(session, &mut buffer[frame::HEADER..], tail)?;
        }
        Some(Frame { head: buffer.freeze(), tail, charge: None })
    }

    /// Where the first message begins in the buffer.
    fn payload_at(&self) -> usize {
        frame::HEADER + if self.encryption.is_some() { TransformHeader::LEN } else { 0 }
    }

    fn sign(&mut self) {
        let Some((session, nonce)) = self.signer.take() else { return };
        let Some(keys) = session.keys() else { return };
        let message = &self.buffer[self.start..];
        let signature = keys.signing.sign(&[message, &self.tail], nonce);
        let at = self.start + Header::SIGNATURE_AT;
        self.buffer[at..at + signature.len()].copy_from_slice(&signature);
    }
}

/// Encrypts `payload`, which has room for the transform header at its start, and the data behind it: 3.1.4.3.
fn seal(session: &Session, payload: &mut [u8], tail: Bytes) -> Option<Bytes> {
    let ciphers = session.ciphers()?;
    let (header_bytes, data) = payload.split_at_mut(TransformHeader::LEN);
    let mut header = TransformHeader {
        signature: [0; 16],
        nonce: ciphers.nonces.next()?,
        original_message_size: (data.len() + tail.len()) as u32,
        flags: TransformHeader::ENCRYPTED,
        session_id: session.id,
    };
    let (nonce, aad) = (header.nonce, header.aad());
    let sealed = if tail.is_empty() {
        header.signature = ciphers.encryption.seal_in_place(&nonce, &aad, data);
        tail
    } else {
        let (sealed, signature) = ciphers.encryption.seal_with_tail(&nonce, &aad, data, &tail);
        header.signature = signature;
        sealed.into()
    };
    let mut encoded = BytesMut::with_capacity(TransformHeader::LEN);
    header.encode(&mut encoded);
    header_bytes.copy_from_slice(&encoded);
    Some(sealed)
}
