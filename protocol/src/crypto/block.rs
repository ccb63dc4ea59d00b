//! AES' modes that are no AEAD of aws-lc, put together from its CBC and CTR: CBC-MAC as CMAC (RFC 4493) and
//! CCM (RFC 3610) take it.
//!
//! CBC-MAC is the last block of a CBC encryption. aws-lc encrypts in place, so that the message is copied
//! through a small buffer; that is still twice as fast as its own CMAC, which enters and leaves the cipher
//! for every block, and several times as fast as the other implementations of CCM there are.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

pub(super) type Block = [u8; 16];

/// Bytes that are copied and encrypted at a time.
const CHUNK: usize = 8 * 1024;

/// An AES key for encrypting in CBC; its round keys are overwritten when it is dropped.
pub(super) struct Cbc(EncryptingKey);

/// An AES key for CTR.
pub(super) struct Ctr(EncryptingKey);

fn unbound(key: &[u8]) -> UnboundCipherKey {
    let algorithm = if key.len() == 16 { &AES_128 } else { &AES_256 };
    UnboundCipherKey::new(algorithm, key).expect("the key has 16 or 32 bytes")
}

impl Cbc {
    /// `key` has 16 or 32 bytes.
    pub(super) fn new(key: &[u8]) -> Cbc {
        Cbc(EncryptingKey::cbc(unbound(key)).expect("AES has CBC"))
    }

    /// One block, encrypted alone.
    pub(super) fn encrypt_block(&self, mut block: Block) -> Block {
        self.encrypt([0; 16], &mut block);
        block
    }

    fn encrypt(&self, iv: Block, blocks: &mut [u8]) {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        self.0.less_safe_encrypt(blocks, context).expect("the data are whole blocks");
    }
}

impl Ctr {
    /// `key` has 16 or 32 bytes.
    pub(super) fn new(key: &[u8]) -> Ctr {
        Ctr(EncryptingKey::ctr(unbound(key)).expect("AES has CTR"))
    }

    /// Encrypts, or decrypts, from this counter block on.
    pub(super) fn apply(&self, counter: Block, data: &mut [u8]) {
        let context = EncryptionContext::Iv128(FixedLength::from(counter));
        self.0.less_safe_encrypt(data, context).expect("CTR takes any length");
    }
}

/// A running CBC-MAC. The last block is held back, since CMAC must know it before it goes in.
pub(super) struct CbcMac<'key> {
    key: &'key Cbc,
    state: Block,
    held: Block,
    held_length: usize,
}

impl<'key> CbcMac<'key> {
    pub(super) fn new(key: &'key Cbc) -> CbcMac<'key> {
        CbcMac { key, state: [0; 16], held: [0; 16], held_length: 0 }
    }

    /// Takes in the next piece of the message.
    pub(super) fn update(&mut self, data: &[u8]) {
        let fits = data.len().min(16 - self.held_length);
        let (now, later) = data.split_at(fits);
        self.held[self.held_length..][..fits].copy_from_slice(now);
        self.held_length += fits;
        if later.is_empty() {
            return;
        }
        self.absorb_held();
        let whole = (later.len() - 1) / 16 * 16;
        self.absorb(&later[..whole]);
        self.held_length = later.len() - whole;
        self.held[..self.held_length].copy_from_slice(&later[whole..]);
    }

    /// Fills the last block up with zeros. CCM does so after the additional data and after the message.
    pub(super) fn pad(&mut self) {
        if self.held_length > 0 {
            self.held[self.held_length..].fill(0);
            self.held_length = 16;
        }
    }

    fn absorb_held(&mut self) {
        let mut block = self.held;
        self.key.encrypt(self.state, &mut block);
        self.state = block;
        self.held_length = 0;
    }

    fn absorb(&mut self, blocks: &[u8]) {
        if blocks.len() <= 512 {
            self.absorb_through(&mut [0; 512], blocks);
        } else {
            self.absorb_through(&mut [0; CHUNK], blocks);
        }
    }

    fn absorb_through(&mut self, buffer: &mut [u8], blocks: &[u8]) {
        for chunk in blocks.chunks(buffer.len()) {
            let copy = &mut buffer[..chunk.len()];
            copy.copy_from_slice(chunk);
            self.key.encrypt(self.state, copy);
            self.state = *copy.last_chunk().expect("a chunk has at least a block");
        }
    }

    /// The CBC-MAC of what was taken in, the last block filled up with zeros.
    pub(super) fn finish(mut self) -> Block {
        self.pad();
        if self.held_length > 0 {
            self.absorb_held();
        }
        self.state
    }

    /// The CMAC of what was taken in: RFC 4493 2.4.
    pub(super) fn finish_cmac(mut self, subkeys: &Subkeys) -> Block {
        let subkey = if self.held_length == 16 {
            subkeys.whole
        } else {
            self.held[self.held_length..].fill(0);
            self.held[self.held_length] = 0x80;
            subkeys.padded
        };
        self.held = xor(self.held, subkey.to_be_bytes());
        self.absorb_held();
        self.state
    }
}

/// K1 and K2 of CMAC: RFC 4493 2.3.
#[derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub(super) struct Subkeys {
    whole: u128,
    padded: u128,
}

impl Subkeys {
    pub(super) fn new(key: &Cbc) -> Subkeys {
        let double = |value: u128| value << 1 ^ 0x87 & (value >> 127).wrapping_neg();
        let whole = double(u128::from_be_bytes(key.encrypt_block([0; 16])));
        Subkeys { whole, padded: double(whole) }
    }
}

/// An AES key for CCM with nonces of 11 bytes and tags of 16.
pub(super) struct Ccm {
    cbc: Cbc,
    ctr: Ctr,
}

impl Ccm {
    pub(super) const NONCE: usize = 11;

    /// `key` has 16 or 32 bytes.
    pub(super) fn new(key: &[u8]) -> Ccm {
        Ccm { cbc: Cbc::new(key), ctr: Ctr::new(key) }
    }

    /// Encrypts in place and gives the tag. `data` has less than 2^32 bytes, `aad` from 1 to 0xFEFF.
    pub(super) fn seal(&self, nonce: &[u8; Ccm::NONCE], aad: &[u8], data: &mut [u8]) -> Block {
        let tag = self.tag(nonce, aad, data);
        self.ctr.apply(counter(nonce, 1), data);
        tag
    }

    /// Decrypts in place and gives the tag that it should have come with.
    pub(super) fn open(&self, nonce: &[u8; Ccm::NONCE], aad: &[u8], data: &mut [u8]) -> Block {
        self.ctr.apply(counter(nonce, 1), data);
        self.tag(nonce, aad, data)
    }

    /// RFC 3610 2.2 and 2.3: the CBC-MAC, encrypted with the first block of the key stream.
    fn tag(&self, nonce: &[u8; Ccm::NONCE], aad: &[u8], plain: &[u8]) -> Block {
        /// L: bytes of the length field, 15 less those of the nonce.
        const L: u8 = 4;
        let length = u32::try_from(plain.len()).expect("a frame has less than 2^32 bytes");
        let aad_length = u16::try_from(aad.len()).expect("the additional data are a header");
        assert!((1..0xFF00).contains(&aad_length), "other lengths of additional data have other forms");
        let mut first = [0; 16];
        first[0] = (1 << 6) | (((16 - 2) / 2) << 3) | (L - 1);
        first[1..12].copy_from_slice(nonce);
        first[12..].copy_from_slice(&length.to_be_bytes());
        let mut mac = CbcMac::new(&self.cbc);
        mac.update(&first);
        mac.update(&aad_length.to_be_bytes());
        mac.update(aad);
        mac.pad();
        mac.update(plain);
        let mut tag = mac.finish();
        self.ctr.apply(counter(nonce, 0), &mut tag);
        tag
    }
}

/// A block of CCM's key stream before encryption: RFC 3610 2.3.
fn counter(nonce: &[u8; Ccm::NONCE], count: u32) -> Block {
    let mut block = [0; 16];
    block[0] = 3; // L - 1
    block[1..12].copy_from_slice(nonce);
    block[12..].copy_from_slice(&count.to_be_bytes());
    block
}

fn xor(a: Block, b: Block) -> Block {
    (u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ccm::aead::consts::{U11, U16};
    use ccm::{AeadInOut, KeyInit};
    use proptest::prelude::*;

    type Reference128 = ccm::Ccm<aes::Aes128, U16, U11>;
    type Reference256 = ccm::Ccm<aes::Aes256, U16, U11>;

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    #[test]
    fn cmac_as_aws_lc_has_it() {
        let key = [0x2B; 16];
        let cbc = Cbc::new(&key);
        let subkeys = Subkeys::new(&cbc);
        let reference = aws_lc_rs::cmac::Key::new(aws_lc_rs::cmac::AES_128, &key).unwrap();
        for length in
            (0..100).chain([511, 512, 513, 528, 529, CHUNK - 1, CHUNK, CHUNK + 16, CHUNK + 33, 3 * CHUNK])
        {
            let message = pattern(length);
            let expected = aws_lc_rs::cmac::sign(&reference, &message).unwrap();
            for cut in [0, 1, 15, 16, 17, 80, length / 2, length] {
                let (a, b) = message.split_at(cut.min(length));
                let mut mac = CbcMac::new(&cbc);
                mac.update(a);
                mac.update(b);
                assert_eq!(&mac.finish_cmac(&subkeys)[..], expected.as_ref(), "{length} {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn ccm_as_another_implementation_has_it(
            key: [u8; 32],
            nonce: [u8; 11],
            aad in proptest::collection::vec(any::<u8>(), 1..70),
            length in prop_oneof![0usize..100, 500usize..600, 8000usize..20000],
        ) {
            let plain = pattern(length);
            let mut expected = plain.clone();
            let tag = Reference256::new(&key.into())
                .encrypt_inout_detached(&nonce.into(), &aad, (&mut expected[..]).into())
                .unwrap();
            let ccm = Ccm::new(&key);
            let mut data = plain.clone();
            prop_assert_eq!(&ccm.seal(&nonce, &aad, &mut data)[..], &tag[..]);
            prop_assert!(data == expected);
            prop_assert_eq!(&ccm.open(&nonce, &aad, &mut data)[..], &tag[..]);
            prop_assert!(data == plain);

            let key: [u8; 16] = *key.first_chunk().unwrap();
            let mut expected = plain.clone();
            let tag = Reference128::new(&key.into())
                .encrypt_inout_detached(&nonce.into(), &aad, (&mut expected[..]).into())
                .unwrap();
            prop_assert_eq!(&Ccm::new(&key).seal(&nonce, &aad, &mut data)[..], &tag[..]);
            prop_assert!(data == expected);
        }
    }
}
