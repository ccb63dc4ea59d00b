//! Just enough of GCM's field, GF(2^128), to join the GMACs of two pieces: NIST SP800-38D 6.3 and 6.4.
//!
//! A signature is computed over a message whose Signature field is zero, but a received message holds the
//! signature there, and a message to be sent lies in two pieces. aws-lc takes one contiguous buffer. Copying
//! a megabyte to change sixteen bytes costs a third of the whole signature; GHASH is linear, so the short
//! beginning can be computed apart and added, at the cost of some thirty multiplications.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Multiplies two elements, in GCM's order of bits (the first bit of a block is the coefficient of x^0). The
/// time does not depend on the values.
fn multiply(x: u128, y: u128) -> u128 {
    let (mut z, mut v) = (0, y);
    for i in (0..128).rev() {
        z ^= v & (x >> i & 1).wrapping_neg();
        v = (v >> 1) ^ (0xE1 << 120 & (v & 1).wrapping_neg());
    }
    z
}

/// The hash subkey H of a key and its powers H^(2^i).
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct HashKey {
    powers: [u128; HashKey::POWERS],
}

impl HashKey {
    /// Enough for messages of 2^28 bytes; a frame has less than 2^24.
    const POWERS: usize = 24;

    /// `h` is the zero block, encrypted.
    pub(super) fn new(h: [u8; 16]) -> HashKey {
        let mut powers = [u128::from_be_bytes(h); HashKey::POWERS];
        for i in 1..HashKey::POWERS {
            powers[i] = multiply(powers[i - 1], powers[i - 1]);
        }
        HashKey { powers }
    }

    /// H^exponent · element. The time depends on the exponent, which is a length.
    fn multiply_power(&self, mut element: u128, exponent: usize) -> u128 {
        for (i, power) in self.powers.iter().enumerate() {
            if exponent >> i & 1 == 1 {
                element = multiply(element, *power);
            }
        }
        element
    }

    /// What must be added to GMAC(tail) to have GMAC(head || tail), with one key and nonce.
    ///
    /// GMAC(X) = E + (T(X) + L(X))·H, where E depends on the nonce only, L(X) is the block with the length,
    /// and T, GHASH without the length, has T(head || tail) = T(head)·H^n + T(tail) for a tail of n blocks.
    ///
    /// # Panics
    ///
    /// When `head` is not a multiple of 16 bytes: then the blocks of the tail would be others.
    pub(super) fn prefix(&self, head: &[u8], tail_length: usize) -> [u8; 16] {
        let (blocks, rest) = head.as_chunks::<16>();
        assert!(rest.is_empty(), "the head must be whole blocks");
        let h = self.powers[0];
        let hashed = blocks.iter().fold(0, |y, block| multiply(y ^ u128::from_be_bytes(*block), h));
        let moved = self.multiply_power(hashed, tail_length.div_ceil(16));
        let lengths = length_block(head.len() + tail_length) ^ length_block(tail_length);
        multiply(moved ^ lengths, h).to_be_bytes()
    }
}

/// The last block of GHASH for `bytes` of additional data and no text.
fn length_block(bytes: usize) -> u128 {
    (bytes as u128 * 8) << 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    fn element(text: &str) -> u128 {
        u128::from_be_bytes(hex(text).try_into().unwrap())
    }

    // From test case 2 of GCM's specification: X1 = C·H, and the GHASH of the one block.
    #[test]
    fn published_products() {
        let h = element("66e94bd4ef8a2c3b884cfa59ca342b2e");
        let c = element("0388dace60b6a392f328c2b971b2fe78");
        let x1 = multiply(c, h);
        assert_eq!(x1, element("5e2ec746917062882c85b0685353deb7"));
        assert_eq!(multiply(x1 ^ 0x80, h), element("f38cbb1ad69223dcc3457ae5b6b0f885"));
    }

    #[test]
    fn powers() {
        let key = HashKey::new(hex("66e94bd4ef8a2c3b884cfa59ca342b2e").try_into().unwrap());
        let one = 1 << 127;
        assert_eq!(key.multiply_power(one, 0), one);
        let mut product = one;
        for exponent in 1..40 {
            product = multiply(product, key.powers[0]);
            assert_eq!(key.multiply_power(one, exponent), product);
        }
    }
}
