//! Encrypting a message: MS-SMB2 3.1.4.3, with the transform header of 2.2.41.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

use super::block::Ccm;
use super::{equal, sized};

/// The ciphers of SMB2_ENCRYPTION_CAPABILITIES: 2.2.3.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Cipher {
    /// AES-128-CCM: the one of 3.0 and 3.0.2.
    Aes128Ccm = 1,
    /// AES-128-GCM.
    Aes128Gcm = 2,
    /// AES-256-CCM.
    Aes256Ccm = 3,
    /// AES-256-GCM.
    Aes256Gcm = 4,
}

impl Cipher {
    /// The number on the wire.
    #[must_use]
    pub const fn id(self) -> u16 {
        self as u16
    }

    /// Bytes of a key: 16 or 32.
    #[must_use]
    pub const fn key_length(self) -> usize {
        match self {
            Cipher::Aes128Ccm | Cipher::Aes128Gcm => 16,
            Cipher::Aes256Ccm | Cipher::Aes256Gcm => 32,
        }
    }

    /// Bytes of the header's Nonce field that are used, from its beginning: 11 with CCM, 12 with GCM.
    #[must_use]
    pub const fn nonce_length(self) -> usize {
        match self {
            Cipher::Aes128Ccm | Cipher::Aes256Ccm => 11,
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => 12,
        }
    }
}

impl TryFrom<u16> for Cipher {
    type Error = crate::Malformed;

    fn try_from(id: u16) -> Result<Cipher, crate::Malformed> {
        Ok(match id {
            1 => Cipher::Aes128Ccm,
            2 => Cipher::Aes128Gcm,
            3 => Cipher::Aes256Ccm,
            4 => Cipher::Aes256Gcm,
            _ => return Err(crate::Malformed::Value("cipher")),
        })
    }
}

/// A key of one direction, with its round keys prepared. To be shared: sealing and opening need no `&mut`.
pub struct CipherKey {
    cipher: Cipher,
    prepared: Prepared,
}

// The differences in size do not matter: one or two of these stand in a session, behind its `Arc`.
#[allow(clippy::large_enum_variant)]
enum Prepared {
    Gcm(LessSafeKey),
    Ccm(Ccm),
}

impl CipherKey {
    /// Prepares a key. It should have `cipher.key_length()` bytes; another length is cut or padded with
    /// zeros.
    #[must_use]
    pub fn new(cipher: Cipher, key: &[u8]) -> CipherKey {
        let gcm = |algorithm, key: &[u8]| {
            let unbound = UnboundKey::new(algorithm, key).expect("the key has the algorithm's length");
            Prepared::Gcm(LessSafeKey::new(unbound))
        };
        let prepared = match cipher {
            Cipher::Aes128Gcm => gcm(&aead::AES_128_GCM, &sized::<16>(key)[..]),
            Cipher::Aes256Gcm => gcm(&aead::AES_256_GCM, &sized::<32>(key)[..]),
            Cipher::Aes128Ccm => Prepared::Ccm(Ccm::new(&sized::<16>(key)[..])),
            Cipher::Aes256Ccm => Prepared::Ccm(Ccm::new(&sized::<32>(key)[..])),
        };
        CipherKey { cipher, prepared }
    }

    /// The cipher that the key is for.
    #[must_use]
    pub const fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Encrypts `data` in place and gives the tag, which goes into the transform header's Signature field.
    ///
    /// `nonce` is the header's Nonce field: its first 11 (CCM) or 12 (GCM) bytes are used. It must never have
    /// been used with this key: take it from the key's [`NonceCounter`]. `aad` is the header from its Nonce
    /// field on.
    ///
    /// # Panics
    ///
    /// When `nonce` is shorter than the cipher's, or `data` has 2^32 bytes or more (a frame holds less than
    /// 2^24).
    #[must_use]
    pub fn seal_in_place(&self, nonce: &[u8], aad: &[u8], data: &mut [u8]) -> [u8; 16] {
        let nonce = &nonce[..self.cipher.nonce_length()];
        match &self.prepared {
            Prepared::Gcm(key) => {
                let nonce = Nonce::try_assume_unique_for_key(nonce).expect("the length is GCM's");
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), data);
                tag.expect("a frame is far below GCM's limit")
                    .as_ref()
                    .try_into()
                    .expect("a tag has 16 bytes")
            }
            Prepared::Ccm(key) => key.seal(nonce.try_into().expect("the length is CCM's"), aad, data),
        }
    }

    /// [`CipherKey::seal_in_place`] of `head` with `tail` behind it. Only `head` is encrypted in place; what becomes of `tail`,
    /// which may be shared, is returned with the tag of both. With GCM that is no copy more: the cipher reads the one
    /// and writes the other.
    ///
    /// # Panics
    ///
    /// As [`CipherKey::seal_in_place`].
    #[must_use]
    pub fn seal_with_tail(
        &self,
        nonce: &[u8],
        aad: &[u8],
        head: &mut [u8],
        tail: &[u8],
    ) -> (Vec<u8>, [u8; 16]) {
        let Prepared::Gcm(key) = &self.prepared else {
            let mut whole = [&*head, tail].concat();
            let tag = self.seal_in_place(nonce, aad, &mut whole);
            let (sealed_head, sealed_tail) = whole.split_at(head.len());
            head.copy_from_slice(sealed_head);
            return (sealed_tail.to_vec(), tag);
        };
        let nonce = Nonce::try_assume_unique_for_key(&nonce[..self.cipher.nonce_length()]);
        let nonce = nonce.expect("the length is GCM's");
        let mut sealed = vec![0; tail.len() + key.algorithm().tag_len()];
        key.seal_in_place_scatter(nonce, Aad::from(aad), head, tail, &mut sealed)
            .expect("a frame is far below GCM's limit");
        let tag = *sealed.last_chunk().expect("the tag is behind the data");
        sealed.truncate(tail.len());
        (sealed, tag)
    }

    /// Decrypts `data` in place. False when it was not sealed with this key, nonce, `aad` and tag: then
    /// nothing may be made of `data`, which holds neither the one nor the other any more.
    #[must_use]
    pub fn open_in_place(&self, nonce: &[u8], aad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> bool {
        let Some(nonce) = nonce.get(..self.cipher.nonce_length()) else { return false };
        match &self.prepared {
            Prepared::Gcm(key) => {
                let Ok(nonce) = Nonce::try_assume_unique_for_key(nonce) else { return false };
                key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, data).is_ok()
            }
            Prepared::Ccm(key) => {
                let expected = key.open(nonce.try_into().expect("the length is CCM's"), aad, data);
                let valid = equal(&expected, tag);
                if !valid {
                    // What is not authentic must not be seen, not even by mistake.
                    data.fill(0);
                }
                valid
            }
        }
    }
}

impl std::fmt::Debug for CipherKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CipherKey").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}

/// Gives every message of a key its own nonce. One for a key: create it with the key and share it with the
/// key, over all channels of the session.
///
/// 2.2.41: the nonce "MUST NOT be reused for all encrypted messages within a session". A counter cannot
/// repeat, where random nonces of 11 bytes would after some 2^44 messages.
#[derive(Debug)]
pub struct NonceCounter {
    next: AtomicU64,
}

impl NonceCounter {
    /// Nonces that a key may have. The distance to the counter's own end is so great that the increments of
    /// callers that are refused can never wrap it.
    const LIMIT: u64 = 1 << 63;

    /// A counter for a new key.
    #[must_use]
    pub const fn new() -> NonceCounter {
        NonceCounter { next: AtomicU64::new(0) }
    }

    /// The next nonce, as it stands in the transform header: 8 bytes of counter, the rest zero. `None` when
    /// the key is used up: then the session must end, since nothing may be encrypted any more.
    #[must_use]
    pub fn next(&self) -> Option<[u8; 16]> {
        // Relaxed: only that each value comes once matters, which the atomicity alone gives.
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        if count >= NonceCounter::LIMIT {
            return None;
        }
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&count.to_le_bytes());
        Some(nonce)
    }
}

impl Default for NonceCounter {
    fn default() -> NonceCounter {
        NonceCounter::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;
    use std::collections::HashSet;

    const ALL: [Cipher; 4] = [Cipher::Aes128Ccm, Cipher::Aes128Gcm, Cipher::Aes256Ccm, Cipher::Aes256Gcm];

    /// `sealed` is a whole encrypted message: the transform header and what follows.
    fn check(cipher: Cipher, key: &str, plain: &str, sealed: &str) {
        let key = CipherKey::new(cipher, &hex(key));
        let (plain, sealed) = (hex(plain), hex(sealed));
        let tag: [u8; 16] = sealed[4..20].try_into().unwrap();
        let mut data = plain.clone();
        assert_eq!(key.seal_in_place(&sealed[20..36], &sealed[20..52], &mut data), tag);
        assert_eq!(data, sealed[52..]);
        assert!(key.open_in_place(&sealed[20..36], &sealed[20..52], &mut data, &tag));
        assert_eq!(data, plain);
    }

    // Microsoft's open specification blog, "Encryption in SMB 3.0: a protocol perspective".
    #[test]
    fn published_messages_of_3_0() {
        check(
            Cipher::Aes128Ccm,
            "261B72350558F2E9DCF613070383EDBF",
            "FE534D4240000100000000000900400008000000000000000400000000000000
             FFFE0000010000001100001400E4080000000000000000000000000000000000
             3100700017000000000000000000000015010000390000020100000039020000
             00000000000000007000000000000000536D623320656E6372797074696F6E20
             74657374696E67",
            "FD534D42 81A286535415445DAE393921E44FA42E 66E69A111892584FB5ED524A744DA3EE 87000000 0000 0100
             1100001400E40800
             25C8FEE16605A437832D1CD52DA9F4645333482A175FE5384563F45FCDAFAEF3
             8BC62BA4D5C62897996625A44C29BE5658DE2E6117585779E7B59FFD971278D0
             8580D7FA899E410E910EABF5AA1DB43050B33B49182637759AC15D84BFCDF5B6
             B238993C0F4CF4D6012023F6C627297075D84B7803912D0A9639634453595EF3
             E33FFE4E7AC2AB",
        );
        check(
            Cipher::Aes128Ccm,
            "8FE2B57EC34D2DB5B1A9727F526BBDB5",
            "FE534D4240000100000000000900210009000000000000000400000000000000
             FFFE0000010000001100001400E4080000000000000000000000000000000000
             11000000170000000000000000000000",
            "FD534D42 A6015530A18F6D9AFFE22AFAE8E66484 86000000000000001100001400E40800 50000000 0000 0100
             1100001400E40800
             DBF46435C5F14169293CE079E344479BF670227E49873F458672C3098DAC467D
             D5809F369D674091665157871483E01F7BECD02064EAC3E235F913668BBC2F09
             7980D4B378F1993EFF6E60D177309E5B",
        );
    }

    // "SMB 3.1.1 Encryption in Windows 10".
    #[test]
    fn published_messages_of_3_1_1() {
        check(
            Cipher::Aes128Gcm,
            "A2F5E80E5D59103034F32E52F698E5EC",
            "FE534D4240000100000000000900010008000000000000000500000000000000
             FFFE000001000000250000000010000000000000000000000000000000000000
             3100700017000000000000000000000006000000040000000100000004000000
             00000000000000007000000000000000536D623320656E6372797074696F6E20
             74657374696E67",
            "FD534D42 BD73D97D2BC9001BCAFAC0FDFF5FEEBC C7D6822D269CAF48904C664C00000000 87000000 0000 0100
             2500000000100000
             6ECDD2A7AFC7B47763057A041B8FD4DAFFE990B70C9E09D36C084E02D14EF247
             F8BDE38ACF6256F8B1D3B56F77FBDEB312FEA5E92CBCC1ED8FB2EBBFAA75E49A
             4A394BB44576545567C24D4C014D47C9FBDFDAFD2C4F9B72F8D256452620A299
             F48E29E53D6B61D1C13A19E91AF013F00D17E3ABC2FC3D36C8C1B6B939732538
             52DBD442E46EE8",
        );
        check(
            Cipher::Aes128Gcm,
            "748C50868C90F302962A5C35F5F9A8BF",
            "FE534D4240000100000000000900010001000000000000000500000000000000
             FFFE000001000000250000000010000000000000000000000000000000000000
             11000000170000000000000000000000",
            "FD534D42 ACBE1CB7ED343ADF1725EF144D90D4B0 E06831DD2E8EB7B40000000000000000 50000000 0000 0100
             2500000000100000
             26BBBF949983A6C1C796559D0F2C510CB651D1F7B6AC8DED32A2A0B8F2D793A8
             15C6F6B848D69767A215841A42D400AE6DDB5F0B44173A014973321FDD7950DA
             6179159B82E03C9E18A050FF0EA1C967",
        );
    }

    // GCM's specification (McGrew and Viega), test case 16, for the 256-bit key.
    #[test]
    fn gcm_with_256_bits() {
        let key = CipherKey::new(
            Cipher::Aes256Gcm,
            &hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"),
        );
        let mut data = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
                            1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
        let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let tag = key.seal_in_place(&hex("cafebabefacedbaddecaf888"), &aad, &mut data);
        assert_eq!(tag[..], hex("76fc6ece0f4e1768cddf8853bb2d551b"));
        assert_eq!(
            data,
            hex("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
                 8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662")
        );
    }

    #[test]
    fn a_tail_is_sealed_as_if_it_were_in_place() {
        for cipher in ALL {
            let key = CipherKey::new(cipher, &[3; 32]);
            let nonce = NonceCounter::new().next().unwrap();
            for (head, tail) in [(0, 0), (80, 0), (0, 80), (80, 4096), (81, 15), (17, 100_001)] {
                let mut whole: Vec<u8> = (0..head + tail).map(|i| i as u8).collect();
                let (mut first, second) = (whole[..head].to_vec(), whole[head..].to_vec());
                let (sealed, tag) = key.seal_with_tail(&nonce, b"header", &mut first, &second);
                assert_eq!(tag, key.seal_in_place(&nonce, b"header", &mut whole), "{cipher:?}");
                assert_eq!([first, sealed].concat(), whole, "{cipher:?}: {head} and {tail}");
            }
        }
    }

    #[test]
    fn opens_only_what_was_sealed() {
        for cipher in ALL {
            let key = CipherKey::new(cipher, &[3; 32]);
            let nonce = NonceCounter::new().next().unwrap();
            for length in [0, 1, 15, 16, 17, 4096] {
                let plain: Vec<u8> = (0..length).map(|i| i as u8).collect();
                let mut sealed = plain.clone();
                let tag = key.seal_in_place(&nonce, b"header", &mut sealed);
                let open = |nonce: &[u8], aad: &[u8], sealed: &[u8], tag: &[u8; 16]| {
                    let mut data = sealed.to_vec();
                    key.open_in_place(nonce, aad, &mut data, tag).then_some(data)
                };
                assert_eq!(open(&nonce, b"header", &sealed, &tag), Some(plain), "{cipher:?}");
                // The exact nonce, without the padding, is the same.
                assert!(open(&nonce[..cipher.nonce_length()], b"header", &sealed, &tag).is_some());
                assert!(open(&nonce, b"heade", &sealed, &tag).is_none());
                assert!(open(&nonce[..10], b"header", &sealed, &tag).is_none());
                let mut other = nonce;
                other[cipher.nonce_length() - 1] ^= 1;
                assert!(open(&other, b"header", &sealed, &tag).is_none());
                for i in [0, 7, 15] {
                    let mut other = tag;
                    other[i] ^= 0x80;
                    assert!(open(&nonce, b"header", &sealed, &other).is_none());
                }
                if let Some(last) = sealed.last_mut() {
                    *last ^= 1;
                    assert!(open(&nonce, b"header", &sealed, &tag).is_none());
                }
            }
        }
    }

    #[test]
    fn numbers_on_the_wire() {
        for cipher in ALL {
            assert_eq!(Cipher::try_from(cipher.id()), Ok(cipher));
        }
        assert!(Cipher::try_from(0).is_err());
        assert!(Cipher::try_from(5).is_err());
    }

    // Attack 23: nonces never repeat.
    #[test]
    fn nonces_never_repeat() {
        let counter = NonceCounter::new();
        let mut seen = HashSet::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let take = || (0..10_000).map(|_| counter.next().unwrap()).collect::<Vec<_>>();
                    scope.spawn(take)
                })
                .collect();
            for thread in threads {
                for nonce in thread.join().unwrap() {
                    assert!(seen.insert(nonce[..11].to_vec()));
                    assert_eq!(nonce[11..], [0; 5]);
                }
            }
        });
    }

    #[test]
    fn a_used_up_key_gives_no_nonce() {
        let counter = NonceCounter { next: AtomicU64::new(NonceCounter::LIMIT - 1) };
        assert!(counter.next().is_some());
        assert!(counter.next().is_none());
        assert!(counter.next().is_none());
    }
}
