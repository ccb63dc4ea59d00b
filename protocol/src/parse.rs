//! Shared parsers: little-endian integers, byte runs, UTF-16, and the buffers that an SMB2 message names by
//! offset and length.
//!
//! The primitives are nom parsers over `&[u8]` with [`Malformed`] as their error, so that tuples of them read like
//! the tables of the specification:
//!
//! ```
//! use nom::Parser;
//! use shoal_protocol::parse::{self, u16, u32};
//! let (rest, (flags, _reserved, length)) = (u16, u16, u32).parse(&[1, 0, 0, 0, 2, 0, 0, 0, 9][..])?;
//! assert_eq!((flags, length, rest), (1, 2, &[9][..]));
//! # Ok::<(), nom::Err<shoal_protocol::Malformed>>(())
//! ```

use crate::Malformed;
use bytes::Bytes;
use std::fmt;

/// What a nom parser over bytes gives here: the rest and the value.
pub type Parsed<'a, T> = nom::IResult<&'a [u8], T, Malformed>;

/// The length of an SMB2 header; the offsets of a message count from the header's first byte.
const HEADER: usize = 64;

#[inline]
const fn truncated() -> nom::Err<Malformed> {
    nom::Err::Error(Malformed::Truncated)
}

/// One byte.
#[inline]
pub fn u8(input: &[u8]) -> Parsed<'_, u8> {
    match input.split_first() {
        Some((&value, rest)) => Ok((rest, value)),
        None => Err(truncated()),
    }
}

/// A 16-bit little-endian integer.
#[inline]
pub fn u16(input: &[u8]) -> Parsed<'_, u16> {
    let (rest, bytes) = array::<2>(input)?;
    Ok((rest, u16::from_le_bytes(bytes)))
}

/// A 32-bit little-endian integer.
#[inline]
pub fn u32(input: &[u8]) -> Parsed<'_, u32> {
    let (rest, bytes) = array::<4>(input)?;
    Ok((rest, u32::from_le_bytes(bytes)))
}

/// A 64-bit little-endian integer.
#[inline]
pub fn u64(input: &[u8]) -> Parsed<'_, u64> {
    let (rest, bytes) = array::<8>(input)?;
    Ok((rest, u64::from_le_bytes(bytes)))
}

/// A 16-bit big-endian integer.
#[inline]
pub fn be_u16(input: &[u8]) -> Parsed<'_, u16> {
    let (rest, bytes) = array::<2>(input)?;
    Ok((rest, u16::from_be_bytes(bytes)))
}

/// A 32-bit big-endian integer.
#[inline]
pub fn be_u32(input: &[u8]) -> Parsed<'_, u32> {
    let (rest, bytes) = array::<4>(input)?;
    Ok((rest, u32::from_be_bytes(bytes)))
}

/// `N` bytes, copied.
#[inline]
pub fn array<const N: usize>(input: &[u8]) -> Parsed<'_, [u8; N]> {
    match input.split_first_chunk::<N>() {
        Some((bytes, rest)) => Ok((rest, *bytes)),
        None => Err(truncated()),
    }
}

/// `count` bytes, borrowed.
#[inline]
pub fn take<'a>(count: usize) -> impl Fn(&'a [u8]) -> Parsed<'a, &'a [u8]> {
    move |input| match input.split_at_checked(count) {
        Some((bytes, rest)) => Ok((rest, bytes)),
        None => Err(truncated()),
    }
}

/// Passes over `count` bytes.
#[inline]
pub fn skip<'a>(count: usize) -> impl Fn(&'a [u8]) -> Parsed<'a, ()> {
    move |input| match input.get(count..) {
        Some(rest) => Ok((rest, ())),
        None => Err(truncated()),
    }
}

/// `count` little-endian 16-bit integers. Allocates only once the bytes are known to be there.
pub fn u16s<'a>(count: usize) -> impl Fn(&'a [u8]) -> Parsed<'a, Vec<u16>> {
    move |input| {
        let bytes = count.checked_mul(2).ok_or(truncated())?;
        let (rest, bytes) = take(bytes)(input)?;
        Ok((rest, units(bytes)))
    }
}

fn units(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|&pair| u16::from_le_bytes(pair)).collect()
}

/// UTF-16 as it stands on the wire. An odd number of bytes is [`Malformed::Length`]; unpaired surrogates are kept.
pub fn utf16(bytes: &[u8]) -> Result<Utf16, Malformed> {
    if !bytes.len().is_multiple_of(2) {
        return Err(Malformed::Length);
    }
    Ok(Utf16(units(bytes)))
}

/// The body of an SMB2 message behind its StructureSize field, which must be `structure_size`.
///
/// The fixed part is promised to be whole: the slice has at least `structure_size - 2` bytes, one less where the
/// size is odd. (Section 2.2: an odd size counts the first byte of the variable part, "regardless of how long
/// Buffer[] actually is", and clients do leave that byte away when the buffer is empty.)
#[inline]
pub fn body(message: &[u8], structure_size: u16) -> Result<&[u8], Malformed> {
    let body = message.get(HEADER..).ok_or(Malformed::Truncated)?;
    let (rest, size) = u16(body)?;
    if size != structure_size {
        return Err(Malformed::StructureSize);
    }
    if body.len() < usize::from(structure_size & !1) {
        return Err(Malformed::Truncated);
    }
    Ok(rest)
}

/// A buffer that a message names by `offset` (from the header's first byte) and `length`: a view, no copy.
///
/// `least` is the first offset at which it may begin, the end of the fixed part; one that begins before, or ends
/// after the message, is [`Malformed::Offset`]. An empty buffer may have any offset.
#[inline]
pub fn buffer(message: &Bytes, offset: usize, length: usize, least: usize) -> Result<Bytes, Malformed> {
    if length == 0 {
        return Ok(Bytes::new());
    }
    let end = buffer_end(message, offset, length, least)?;
    Ok(message.slice(offset..end))
}

/// As [`buffer`], but borrowed: for what is decoded at once and not kept.
#[inline]
pub fn buffer_ref(message: &[u8], offset: usize, length: usize, least: usize) -> Result<&[u8], Malformed> {
    if length == 0 {
        return Ok(&[]);
    }
    let end = buffer_end(message, offset, length, least)?;
    Ok(&message[offset..end])
}

#[inline]
fn buffer_end(message: &[u8], offset: usize, length: usize, least: usize) -> Result<usize, Malformed> {
    let end = offset.checked_add(length).ok_or(Malformed::Offset)?;
    if offset < least || end > message.len() {
        return Err(Malformed::Offset);
    }
    Ok(end)
}

/// A string of UTF-16 code units as Windows has them: any units, unpaired surrogates included.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Utf16(pub Vec<u16>);

impl Utf16 {
    /// The UTF-16 form of `text`.
    #[allow(clippy::should_implement_trait, reason = "it cannot fail, so FromStr does not fit")]
    pub fn from_str(text: &str) -> Utf16 {
        Utf16(text.encode_utf16().collect())
    }

    /// As a `String`, with U+FFFD for unpaired surrogates.
    pub fn to_string_lossy(&self) -> String {
        String::from_utf16_lossy(&self.0)
    }

    /// The length in bytes on the wire.
    pub fn byte_len(&self) -> usize {
        self.0.len() * 2
    }
}

impl std::ops::Deref for Utf16 {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        &self.0
    }
}

impl From<&str> for Utf16 {
    fn from(text: &str) -> Utf16 {
        Utf16::from_str(text)
    }
}

impl From<Vec<u16>> for Utf16 {
    fn from(units: Vec<u16>) -> Utf16 {
        Utf16(units)
    }
}

impl fmt::Display for Utf16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for unit in char::decode_utf16(self.0.iter().copied()) {
            f.write_char(unit.unwrap_or(char::REPLACEMENT_CHARACTER))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Utf16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_end_with_the_bytes() {
        assert_eq!(u32(&[1, 2, 3, 4, 5]), Ok((&[5][..], 0x0403_0201)));
        assert_eq!(be_u32(&[1, 2, 3, 4]), Ok((&[][..], 0x0102_0304)));
        assert_eq!(u64(&[0; 7]), Err(nom::Err::Error(Malformed::Truncated)));
        assert_eq!(u16s(2)(&[1, 0, 2, 0, 9]), Ok((&[9][..], vec![1, 2])));
        assert_eq!(u16s(usize::MAX)(&[1, 0]), Err(nom::Err::Error(Malformed::Truncated)));
    }

    #[test]
    fn utf16_keeps_lone_surrogates_and_refuses_half_units() {
        let name = utf16(&[0x61, 0, 0x00, 0xD8]).unwrap();
        assert_eq!(name.0, [0x61, 0xD800]);
        assert_eq!(name.to_string(), "a\u{FFFD}");
        assert_eq!(utf16(&[0x61]), Err(Malformed::Length));
        assert_eq!(Utf16::from_str("aé").byte_len(), 4);
    }

    #[test]
    fn buffers_stay_inside() {
        let message = Bytes::from_static(&[7; 100]);
        assert_eq!(buffer(&message, 80, 20, 80).unwrap().len(), 20);
        assert_eq!(buffer(&message, 80, 21, 80), Err(Malformed::Offset));
        assert_eq!(buffer(&message, 79, 1, 80), Err(Malformed::Offset));
        assert_eq!(buffer(&message, usize::MAX, 2, 80), Err(Malformed::Offset));
        assert_eq!(buffer(&message, 0, 0, 80), Ok(Bytes::new()));
        assert_eq!(buffer(&message, 5000, 0, 80), Ok(Bytes::new()));
    }

    #[test]
    fn body_checks_the_structure_size() {
        let mut message = vec![0; 64 + 9];
        message[64] = 9;
        assert_eq!(body(&message, 9).unwrap().len(), 7);
        assert_eq!(body(&message[..72], 9).unwrap().len(), 6);
        assert_eq!(body(&message[..71], 9), Err(Malformed::Truncated));
        assert_eq!(body(&message, 8), Err(Malformed::StructureSize));
        assert_eq!(body(&message[..65], 9), Err(Malformed::Truncated));
        assert_eq!(body(&message[..10], 9), Err(Malformed::Truncated));
    }
}
