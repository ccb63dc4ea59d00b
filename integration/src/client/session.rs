//! One session on a connection: its keys, and what they do to a message.

use bytes::BytesMut;
use shoal_protocol::crypto::{
    Cipher, CipherKey, GmacNonce, NonceCounter, SessionKeys, SigningAlgorithm, SigningKey,
};
use shoal_protocol::smb2::header::{Command, Header, HeaderFlags};
use shoal_protocol::smb2::{Dialect, MessageId, SessionFlags, SessionId, TransformHeader};

use super::{Result, Trouble, broken};

/// How requests are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// Neither signed nor encrypted, which the server must allow. (A TREE_CONNECT is signed all the same.)
    Plain,
    /// Signed, with AES-GMAC where the server has it.
    Signed,
    /// Encrypted with AES-128-GCM.
    Encrypted,
}

/// A session of a [`Connection`](super::Connection): its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRef(pub(super) usize);

pub(super) struct Session {
    pub(super) id: SessionId,
    signing: SigningKey,
    sealing: Option<Sealing>,
    /// Requests are signed, and so must be their replies.
    pub(super) signs: bool,
    /// Requests are encrypted, and so must be their replies.
    pub(super) encrypts: bool,
}

struct Sealing {
    outwards: CipherKey,
    nonces: NonceCounter,
    inwards: CipherKey,
}

impl Session {
    /// The session that an authentication ended in.
    pub(super) fn new(
        id: SessionId,
        key: &[u8],
        preauth: &[u8; 64],
        algorithm: SigningAlgorithm,
        cipher: Option<Cipher>,
    ) -> Session {
        let keys = SessionKeys::derive(Dialect::Smb311, cipher, key, key, Some(preauth));
        let sealing = cipher.map(|cipher| Sealing {
            outwards: CipherKey::new(cipher, &keys.client_to_server),
            nonces: NonceCounter::new(),
            inwards: CipherKey::new(cipher, &keys.server_to_client),
        });
        Session {
            id,
            signing: SigningKey::new(algorithm, &keys.signing),
            sealing,
            signs: true,
            encrypts: false,
        }
    }

    /// Settles how requests go out: as `wanted`, if the server allows, or encrypted where the server wants all so.
    pub(super) fn protect(
        &mut self,
        wanted: Protection,
        server_signs: bool,
        flags: SessionFlags,
    ) -> Result<()> {
        let nobody = flags.intersects(SessionFlags::IS_GUEST | SessionFlags::IS_NULL);
        self.encrypts = wanted == Protection::Encrypted || flags.contains(SessionFlags::ENCRYPT_DATA);
        self.signs = wanted == Protection::Signed && !self.encrypts && !nobody;
        if self.encrypts && self.sealing.is_none() {
            return Err(Trouble::Broken("the server does not encrypt with AES-128-GCM".to_owned()));
        }
        if wanted == Protection::Plain && server_signs && !self.encrypts {
            return Err(Trouble::Broken("the server requires signing".to_owned()));
        }
        Ok(())
    }

    /// Whether requests of this session can be encrypted.
    pub(super) fn can_encrypt(&self) -> bool {
        self.sealing.is_some()
    }

    /// The signature of a message in one or two pieces, whose Signature field is zero.
    pub(super) fn signature(&self, pieces: &[&[u8]], message_id: MessageId, is_cancel: bool) -> [u8; 16] {
        self.signing.sign(pieces, GmacNonce { message_id, is_server_response: false, is_cancel })
    }

    /// Signs a payload of one message in place, whatever its header says: sets the flag and the signature.
    pub(super) fn sign(&self, message: &mut [u8]) {
        if message.len() < Header::LEN {
            return;
        }
        let mut field = [0; 4];
        field.copy_from_slice(&message[Header::FLAGS_AT..Header::FLAGS_AT + 4]);
        let flags = u32::from_le_bytes(field) | HeaderFlags::SIGNED.bits();
        message[Header::FLAGS_AT..Header::FLAGS_AT + 4].copy_from_slice(&flags.to_le_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&message[24..32]);
        let is_cancel = message[12..14] == (Command::Cancel as u16).to_le_bytes();
        let nonce =
            GmacNonce { message_id: MessageId(u64::from_le_bytes(id)), is_server_response: false, is_cancel };
        self.signing.sign_in_place(message, nonce);
    }

    /// Whether the server signed this message with the session's key.
    pub(super) fn verifies(&self, header: &Header, message: &[u8]) -> bool {
        header.flags.contains(HeaderFlags::SIGNED)
            && self.signing.verify(message, GmacNonce::response(header))
    }

    /// Encrypts what stands in `frame` behind the room for a transform header at `at`, and fills that in.
    pub(super) fn seal(&self, frame: &mut [u8], at: usize) -> Result<()> {
        let sealing =
            self.sealing.as_ref().ok_or_else(|| Trouble::Broken("the session has no cipher".to_owned()))?;
        let nonce =
            sealing.nonces.next().ok_or_else(|| Trouble::Broken("the nonces are used up".to_owned()))?;
        let data = &mut frame[at + TransformHeader::LEN..];
        let mut header = TransformHeader {
            signature: [0; 16],
            nonce,
            original_message_size: data.len() as u32,
            flags: TransformHeader::ENCRYPTED,
            session_id: self.id,
        };
        header.signature = sealing.outwards.seal_in_place(&header.nonce, &header.aad(), data);
        let mut bytes = BytesMut::with_capacity(TransformHeader::LEN);
        header.encode(&mut bytes);
        frame[at..at + TransformHeader::LEN].copy_from_slice(&bytes);
        Ok(())
    }

    /// Decrypts a payload behind its transform header in place.
    pub(super) fn open(&self, payload: &mut [u8]) -> Result<()> {
        let sealing =
            self.sealing.as_ref().ok_or_else(|| Trouble::Broken("the session has no cipher".to_owned()))?;
        let header = TransformHeader::parse(payload).map_err(broken("transform header"))?;
        let data = &mut payload[TransformHeader::LEN..];
        if sealing.inwards.open_in_place(&header.nonce, &header.aad(), data, &header.signature) {
            Ok(())
        } else {
            Err(Trouble::Broken("a reply does not decrypt with the session's key".to_owned()))
        }
    }
}
