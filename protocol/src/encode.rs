//! The mirrors of [`parse`](crate::parse): little-endian fields, padding, UTF-16, and offsets patched in later.

use crate::parse::Utf16;
use bytes::{BufMut, BytesMut};

/// The length of an SMB2 header; offsets in a message count from the header's first byte.
const HEADER: usize = 64;

/// A message body under construction at the end of a buffer: knows where it began, and so what an offset is.
///
/// The header's 64 bytes stand immediately before in the same buffer. Everything before those, the earlier messages
/// of a chain, is never looked at.
pub struct Body<'a> {
    out: &'a mut BytesMut,
    start: usize,
}

impl<'a> Body<'a> {
    /// Begins a body with its StructureSize.
    pub fn new(out: &'a mut BytesMut, structure_size: u16) -> Body<'a> {
        let start = out.len();
        out.put_u16_le(structure_size);
        Body { out, start }
    }

    /// The offset from the header's first byte of what is written next.
    pub fn offset(&self) -> usize {
        HEADER + self.out.len() - self.start
    }

    /// Writes zeros until the next offset is a multiple of `alignment`.
    pub fn pad(&mut self, alignment: usize) {
        let zeros = self.offset().next_multiple_of(alignment) - self.offset();
        self.out.put_bytes(0, zeros);
    }

    /// Overwrites the 16 bits at `offset` (from the header's first byte), written before as a placeholder.
    pub fn patch_u16(&mut self, offset: usize, value: u16) {
        let at = self.start + offset - HEADER;
        self.out[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Overwrites the 32 bits at `offset` (from the header's first byte), written before as a placeholder.
    pub fn patch_u32(&mut self, offset: usize, value: u32) {
        let at = self.start + offset - HEADER;
        self.out[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes the variable part of a body whose StructureSize is odd: `bytes`, or one zero byte if there are none,
    /// for receivers that insist on the byte which the odd size counts.
    pub fn put_tail(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.out.put_u8(0);
        } else {
            self.out.put_slice(bytes);
        }
    }
}

impl std::ops::Deref for Body<'_> {
    type Target = BytesMut;

    fn deref(&self) -> &BytesMut {
        self.out
    }
}

impl std::ops::DerefMut for Body<'_> {
    fn deref_mut(&mut self) -> &mut BytesMut {
        self.out
    }
}

/// Appends `units` as little-endian UTF-16.
pub fn put_utf16(out: &mut BytesMut, units: &[u16]) {
    out.reserve(units.len() * 2);
    for &unit in units {
        out.put_u16_le(unit);
    }
}

/// Appends each of `values` as a little-endian 16-bit integer.
pub fn put_u16s(out: &mut BytesMut, values: &[u16]) {
    put_utf16(out, values);
}

/// Appends zeros until `out.len() - start` is a multiple of `alignment`.
pub fn pad(out: &mut BytesMut, start: usize, alignment: usize) {
    let written = out.len() - start;
    out.put_bytes(0, written.next_multiple_of(alignment) - written);
}

/// Overwrites the 16 bits at position `at` of `out`.
pub fn patch_u16(out: &mut BytesMut, at: usize, value: u16) {
    out[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Overwrites the 32 bits at position `at` of `out`.
pub fn patch_u32(out: &mut BytesMut, at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The bytes of a UTF-16 string.
pub fn utf16_bytes(text: &Utf16) -> Vec<u8> {
    text.iter().flat_map(|unit| unit.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_the_header() {
        let mut out = BytesMut::from(&[0xEE; 3 + HEADER][..]);
        let mut body = Body::new(&mut out, 9);
        body.put_u16_le(0);
        body.put_u8(7);
        body.pad(8);
        assert_eq!(body.offset(), 72);
        body.patch_u16(66, 0x1234);
        body.put_tail(&[]);
        assert_eq!(&out[67..], [9, 0, 0x34, 0x12, 7, 0, 0, 0, 0]);
        let mut out = BytesMut::from(&[1, 2, 3][..]);
        pad(&mut out, 1, 4);
        assert_eq!(&out[..], [1, 2, 3, 0, 0]);
    }
}
