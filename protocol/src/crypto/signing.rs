//! Signing: MS-SMB2 3.1.4.1 (an outgoing message) and 3.1.5.1 (verifying one).

use std::sync::OnceLock;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::block::{Cbc, CbcMac, Subkeys};
use super::gf128::HashKey;
use super::{equal, sized};
use crate::smb2::MessageId;
use crate::smb2::header::{Command, Header};

/// The algorithms of SMB2_SIGNING_CAPABILITIES: 2.2.3.1.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum SigningAlgorithm {
    /// HMAC-SHA256, its first 16 bytes: the one of 2.0.2 and 2.1.
    HmacSha256 = 0,
    /// AES-128-CMAC: the one of 3.0 and 3.0.2, and of 3.1.1 where nothing was negotiated.
    AesCmac = 1,
    /// AES-128-GMAC.
    AesGmac = 2,
}

impl SigningAlgorithm {
    /// The number on the wire.
    #[must_use]
    pub const fn id(self) -> u16 {
        self as u16
    }
}

impl TryFrom<u16> for SigningAlgorithm {
    type Error = crate::Malformed;

    fn try_from(id: u16) -> Result<SigningAlgorithm, crate::Malformed> {
        Ok(match id {
            0 => SigningAlgorithm::HmacSha256,
            1 => SigningAlgorithm::AesCmac,
            2 => SigningAlgorithm::AesGmac,
            _ => return Err(crate::Malformed::Value("signing algorithm")),
        })
    }
}

/// What makes a message's nonce for AES-GMAC. The other algorithms do not look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GmacNonce {
    /// The MessageId of the message's header.
    pub message_id: MessageId,
    /// Whether the server sends it. State who really sends: not a flag of the message, which its sender
    /// chose.
    pub is_server_response: bool,
    /// Whether it is an SMB2 CANCEL request: that one has the MessageId of another request.
    pub is_cancel: bool,
}

impl GmacNonce {
    /// For a message that a client sent, with this header.
    #[must_use]
    pub fn request(header: &Header) -> GmacNonce {
        GmacNonce {
            message_id: header.message_id,
            is_server_response: false,
            is_cancel: header.command == Command::Cancel,
        }
    }

    /// For a message that a server sent, with this header.
    #[must_use]
    pub fn response(header: &Header) -> GmacNonce {
        GmacNonce { message_id: header.message_id, is_server_response: true, is_cancel: false }
    }

    fn bytes(self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.message_id.0.to_le_bytes());
        nonce[8] = u8::from(self.is_server_response) | u8::from(self.is_cancel) << 1;
        nonce
    }
}

/// A signing key, prepared for its algorithm. To be shared: signing and verifying need no `&mut`.
pub struct SigningKey {
    algorithm: SigningAlgorithm,
    prepared: Prepared,
}

/// One of these stands in every session: what is large lies apart, so that nobody has room for another's algorithm.
enum Prepared {
    Hmac(Box<hmac::Key>),
    Cmac(Box<(Cbc, Subkeys)>),
    Gmac { key: LessSafeKey, joining: Joining },
}

/// What joins the GMACs of two pieces, made when the first long READ asks for it: many sessions have none.
struct Joining {
    key: Zeroizing<[u8; 16]>,
    hash: OnceLock<Box<HashKey>>,
}

impl Joining {
    fn hash(&self) -> &HashKey {
        self.hash.get_or_init(|| Box::new(HashKey::new(Cbc::new(&self.key[..]).encrypt_block([0; 16]))))
    }
}

/// Where the Signature field stands in the header: 2.2.1.
const SIGNATURE: std::ops::Range<usize> = 48..64;

const ZEROS: [u8; 16] = [0; 16];

/// From here on, two pieces are signed apart and joined; below, copying them together is cheaper.
const JOIN_FROM: usize = 64 * 1024;

impl SigningKey {
    /// Prepares a key. It should have 16 bytes; another length is cut or padded with zeros.
    #[must_use]
    pub fn new(algorithm: SigningAlgorithm, key: &[u8]) -> SigningKey {
        let key = sized::<16>(key);
        let prepared = match algorithm {
            SigningAlgorithm::HmacSha256 => {
                Prepared::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key[..])))
            }
            SigningAlgorithm::AesCmac => {
                let key = Cbc::new(&key[..]);
                let subkeys = Subkeys::new(&key);
                Prepared::Cmac(Box::new((key, subkeys)))
            }
            SigningAlgorithm::AesGmac => {
                let unbound = UnboundKey::new(&aead::AES_128_GCM, &key[..]).expect("the key has 16 bytes");
                let joining = Joining { key, hash: OnceLock::new() };
                Prepared::Gmac { key: LessSafeKey::new(unbound), joining }
            }
        };
        SigningKey { algorithm, prepared }
    }

    /// The algorithm that the key is for.
    #[must_use]
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// The signature of a message that lies in `segments`, one after the other: from the SMB2 header, whose
    /// Signature field is zero, to the end, with the padding if it stands in a compound chain.
    ///
    /// Two segments of which the first has a multiple of 16 bytes (a READ response's 80 and its data) are
    /// never copied.
    #[must_use]
    pub fn sign(&self, segments: &[&[u8]], nonce: GmacNonce) -> [u8; 16] {
        match &self.prepared {
            Prepared::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                segments.iter().for_each(|segment| context.update(segment));
                first_16(context.sign().as_ref())
            }
            Prepared::Cmac(prepared) => {
                let (key, subkeys) = &**prepared;
                let mut mac = CbcMac::new(key);
                segments.iter().for_each(|segment| mac.update(segment));
                mac.finish_cmac(subkeys)
            }
            Prepared::Gmac { key, joining } => {
                let nonce = nonce.bytes();
                match *segments {
                    [whole] | [whole, []] => gmac(key, nonce, whole),
                    [head, tail] if tail.len() >= JOIN_FROM && head.len().is_multiple_of(16) => {
                        let mut signature = gmac(key, nonce, tail);
                        let prefix = joining.hash().prefix(head, tail.len());
                        signature.iter_mut().zip(prefix).for_each(|(byte, add)| *byte ^= add);
                        signature
                    }
                    _ => joined(segments, |whole| gmac(key, nonce, whole)),
                }
            }
        }
    }

    /// Signs a whole message in place: writes its Signature field.
    ///
    /// # Panics
    ///
    /// When `message` is shorter than a header.
    pub fn sign_in_place(&self, message: &mut [u8], nonce: GmacNonce) {
        message[SIGNATURE].fill(0);
        let signature = self.sign(&[message], nonce);
        message[SIGNATURE].copy_from_slice(&signature);
    }

    /// Whether a whole received message, with the signature in its header, is signed with this key. The time
    /// does not depend on the signature. False as well for what is shorter than a header.
    #[must_use]
    pub fn verify(&self, message: &[u8], nonce: GmacNonce) -> bool {
        let Some((header, body)) = message.split_first_chunk::<64>() else { return false };
        let mut unsigned = *header;
        unsigned[SIGNATURE].copy_from_slice(&ZEROS);
        equal(&self.sign(&[&unsigned, body], nonce), &header[SIGNATURE])
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

fn first_16(code: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&code[..16]);
    first
}

/// RFC 4543: GCM with the message as its additional data and nothing to encrypt.
fn gmac(key: &LessSafeKey, nonce: [u8; 12], message: &[u8]) -> [u8; 16] {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(message), &mut []);
    first_16(tag.expect("a frame is far below GCM's limit").as_ref())
}

/// Gives `use_whole` the segments in one piece: on the stack if they are as short as most messages are.
fn joined<R>(segments: &[&[u8]], use_whole: impl FnOnce(&[u8]) -> R) -> R {
    let length: usize = segments.iter().map(|segment| segment.len()).sum();
    let mut short = [0; 512];
    match short.get_mut(..length) {
        Some(whole) => {
            let mut rest = &mut *whole;
            for segment in segments {
                let (here, after) = rest.split_at_mut(segment.len());
                here.copy_from_slice(segment);
                rest = after;
            }
            use_whole(whole)
        }
        None => use_whole(&segments.concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    const ALL: [SigningAlgorithm; 3] =
        [SigningAlgorithm::HmacSha256, SigningAlgorithm::AesCmac, SigningAlgorithm::AesGmac];

    fn nonce(message_id: u64) -> GmacNonce {
        GmacNonce { message_id: MessageId(message_id), is_server_response: true, is_cancel: false }
    }

    // RFC 4493 section 4.
    #[test]
    fn published_cmacs() {
        let key = SigningKey::new(SigningAlgorithm::AesCmac, &hex("2b7e1516 28aed2a6 abf71588 09cf4f3c"));
        let message = hex("6bc1bee2 2e409f96 e93d7e11 7393172a ae2d8a57 1e03ac9c 9eb76fac 45af8e51
                           30c81c46 a35ce411 e5fbc119 1a0a52ef f69f2445 df4f9b17 ad2b417b e66c3710");
        for (length, mac) in [
            (0, "bb1d6929 e9593728 7fa37d12 9b756746"),
            (16, "070a16b4 6b4d4144 f79bdd9d d04a287c"),
            (40, "dfa66747 de9ae630 30ca3261 1497c827"),
            (64, "51f0bebf 7e3b9d92 fc497417 79363cfe"),
        ] {
            for cut in 0..=length {
                let (a, b) = message[..length].split_at(cut);
                assert_eq!(key.sign(&[a, b], nonce(0))[..], hex(mac));
            }
        }
    }

    // RFC 4231 test case 1 has a key of 20 bytes and does not fit; this one is its case 2, whose key "Jefe"
    // we pad as HMAC itself does.
    #[test]
    fn published_hmac() {
        let key = SigningKey::new(SigningAlgorithm::HmacSha256, b"Jefe");
        assert_eq!(
            key.sign(&[b"what do ya want ", b"for nothing?"], nonce(0))[..],
            hex("5bdcc146bf60754e6a042426089575c7")
        );
    }

    // "The anatomy of signing and cryptographic keys": the last SESSION_SETUP response of the 3.1.1 example,
    // with its SigningKey.
    #[test]
    fn published_signature_of_3_1_1() {
        let key = SigningKey::new(SigningAlgorithm::AesCmac, &hex("73FE7A9A77BEF0BDE49C650D8CCB5F76"));
        let mut message = hex("
            FE534D4240000100000000000100800009000000000000000300000000000000FFFE000000000000
            1900000000100000EBE146DA120BA25FC3376A49DFE31BC10900000048001D00A11B3019A0030A01
            00A3120410010000003B453CDC3524164200000000");
        assert!(key.verify(&message, nonce(3)));
        let signature = message[SIGNATURE].to_vec();
        key.sign_in_place(&mut message, nonce(3));
        assert_eq!(message[SIGNATURE], signature);
    }

    // NIST's GCM test vectors (gcmEncryptExtIV128, [PTlen = 0], [AADlen = 128]), with the nonce set as bytes.
    #[test]
    fn published_gmac() {
        let unbound = UnboundKey::new(&aead::AES_128_GCM, &hex("77be63708971c4e240d1cb79e8d77feb")).unwrap();
        let signature = gmac(
            &LessSafeKey::new(unbound),
            hex("e0e00f19fed7ba0136a797f3").try_into().unwrap(),
            &hex("7a43ec1d9c0a5a78a0b16533a6213cab"),
        );
        assert_eq!(signature[..], hex("209fcc8d3675ed938e9c7166709dd946"));
    }

    #[test]
    fn nonce_of_gmac() {
        let mut nonce = GmacNonce {
            message_id: MessageId(0x0102_0304_0506_0708),
            is_server_response: false,
            is_cancel: false,
        };
        assert_eq!(nonce.bytes()[..], hex("08 07 06 05 04 03 02 01  00 00 00 00"));
        nonce.is_cancel = true;
        assert_eq!(nonce.bytes()[..], hex("08 07 06 05 04 03 02 01  02 00 00 00"));
        nonce = GmacNonce { is_server_response: true, is_cancel: false, ..nonce };
        assert_eq!(nonce.bytes()[..], hex("08 07 06 05 04 03 02 01  01 00 00 00"));

        let key = SigningKey::new(SigningAlgorithm::AesGmac, &[1; 16]);
        let request = GmacNonce { is_server_response: false, ..nonce };
        let cancel = GmacNonce { is_cancel: true, ..request };
        let message = [0; 80];
        let signatures = [nonce, request, cancel].map(|nonce| key.sign(&[&message], nonce));
        assert!(
            signatures[0] != signatures[1]
                && signatures[1] != signatures[2]
                && signatures[0] != signatures[2]
        );
    }

    #[test]
    fn pieces_sign_as_the_whole() {
        let message: Vec<u8> = (0..3 * JOIN_FROM + 5).map(|i| (i * 7 + i / 256) as u8).collect();
        for algorithm in ALL {
            let key = SigningKey::new(algorithm, &[9; 16]);
            for length in [64, 80, 500, 513, JOIN_FROM + 64, JOIN_FROM + 65, message.len()] {
                let message = &message[..length];
                let whole = key.sign(&[message], nonce(1));
                for cut in [0, 16, 63, 64, 80, 96, length] {
                    let (head, tail) = message.split_at(cut.min(length));
                    assert_eq!(key.sign(&[head, tail], nonce(1)), whole, "{algorithm:?} {length} {cut}");
                    assert_eq!(key.sign(&[&[], head, &[], tail], nonce(1)), whole);
                }
            }
        }
    }

    #[test]
    fn verifies_only_what_was_signed() {
        for algorithm in ALL {
            let key = SigningKey::new(algorithm, &[5; 16]);
            for length in [64, 65, 100, 80 + JOIN_FROM] {
                let mut message: Vec<u8> = (0..length).map(|i| i as u8).collect();
                key.sign_in_place(&mut message, nonce(8));
                assert!(key.verify(&message, nonce(8)));
                assert!(!SigningKey::new(algorithm, &[6; 16]).verify(&message, nonce(8)));
                for i in [0, 47, 48, 55, 63, length - 1] {
                    message[i] ^= 1;
                    assert!(!key.verify(&message, nonce(8)), "{algorithm:?} {length} {i}");
                    message[i] ^= 1;
                }
                let other = GmacNonce { is_server_response: false, ..nonce(8) };
                assert_eq!(key.verify(&message, other), algorithm != SigningAlgorithm::AesGmac);
            }
            for length in 0..64 {
                assert!(!key.verify(&[0; 64][..length], nonce(8)));
            }
        }
    }

    #[test]
    fn numbers_on_the_wire() {
        for algorithm in ALL {
            assert_eq!(SigningAlgorithm::try_from(algorithm.id()), Ok(algorithm));
        }
        assert!(SigningAlgorithm::try_from(3).is_err());
    }
}
