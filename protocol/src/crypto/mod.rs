//! The cryptography of SMB2 and SMB3 as pure functions over keys and buffers: MS-SMB2 3.1.4 and 3.1.5.
//!
//! | file | section |
//! |---|---|
//! | [`signing`] | 3.1.4.1 and 3.1.5.1: signing a message, verifying a signature |
//! | [`kdf`] | 3.1.4.2: keys from the session key |
//! | [`encryption`] | 3.1.4.3: encrypting a message; the nonces |
//! | [`preauth`] | 3.1.4.4.1 and 3.3.5.4: the preauthentication integrity hash |
//!
//! Below them stand `block`, the modes of AES that aws-lc does not have fast or at all, and `gf128`, which
//! joins GMACs.
//!
//! A key object holds what can be prepared once for a key (HMAC's padded state, AES' round keys, GHASH's
//! tables), so that a message costs no set-up. Every key is overwritten when it is dropped: by the underlying
//! library where it holds the key, by `zeroize` where we do. Nothing here compares secret bytes but
//! [`equal`].

pub mod encryption;
pub mod kdf;
pub mod preauth;
pub mod signing;

mod block;
mod gf128;

pub use encryption::{Cipher, CipherKey, NonceCounter};
pub use kdf::{SessionKeys, channel_signing_key};
pub use preauth::PreauthHash;
pub use signing::{GmacNonce, SigningAlgorithm, SigningKey};

use subtle::ConstantTimeEq;

/// Whether two authentication codes are the same, in a time that depends only on their lengths.
///
/// The one comparison of signatures, MICs and responses in the workspace: a comparison that stops at the
/// first difference lets a peer find a valid code byte by byte.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    bool::from(a.ct_eq(b))
}

/// Fills `buf` with random bytes fit for keys, challenges and identifiers.
pub fn random(buf: &mut [u8]) {
    // The generator of aws-lc ends the process when the system has no entropy; there is no error to pass on.
    aws_lc_rs::rand::fill(buf).expect("the random generator does not fail");
}

/// How many identifiers are drawn at once.
const IDS: usize = 64;

thread_local! {
    static DRAWN: std::cell::RefCell<Vec<u64>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// An identifier of 64 bits that nobody can guess, never all zeros or all ones: those have a meaning in most fields.
///
/// The generator's set-up costs more than its bytes, so each thread draws some in advance. Keys do not come from here.
#[must_use]
pub fn random_id() -> u64 {
    DRAWN.with_borrow_mut(|drawn| {
        loop {
            match drawn.pop() {
                Some(0 | u64::MAX) => {}
                Some(id) => return id,
                None => {
                    let mut bytes = [0; IDS * 8];
                    random(&mut bytes);
                    let (ids, _) = bytes.as_chunks::<8>();
                    drawn.extend(ids.iter().map(|id| u64::from_ne_bytes(*id)));
                }
            }
        }
    })
}

/// Sixteen bytes of key material as the AES algorithms take it: cut, or padded with zeros.
///
/// MS-SMB2 3.2.1.3: "If the cryptographic key is less than 16 bytes, it is right-padded with zero bytes."
fn sized<const N: usize>(key: &[u8]) -> zeroize::Zeroizing<[u8; N]> {
    let mut sized = zeroize::Zeroizing::new([0; N]);
    let length = key.len().min(N);
    sized[..length].copy_from_slice(&key[..length]);
    sized
}

/// Bytes from hex for the test vectors; spaces and newlines lay them out.
#[cfg(test)]
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    assert!(digits.len().is_multiple_of(2));
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_compares_lengths_too() {
        assert!(equal(b"", b""));
        assert!(equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abd"));
        assert!(!equal(b"abc", b"ab"));
    }

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<u64> = (0..10 * IDS).map(|_| random_id()).collect();
        assert_eq!(ids.len(), 10 * IDS);
    }

    #[test]
    fn random_fills() {
        let mut buf = [0; 32];
        random(&mut buf);
        assert_ne!(buf, [0; 32]);
    }
}
