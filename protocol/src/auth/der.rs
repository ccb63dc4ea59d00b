//! The little of BER that SPNEGO needs: X.690 8.1, elements with a one-byte tag and a definite length.
//!
//! Reading is as tolerant as Windows is: a length may take more bytes than it needs, and what follows the
//! last known field is passed over. It is bounded by the bytes that are there, borrows from them, and never
//! recurses.

use crate::Malformed;

pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0A;
pub(super) const GENERAL_STRING: u8 = 0x1B;
pub(super) const SEQUENCE: u8 = 0x30;
/// [APPLICATION 0], constructed: the outermost of a GSS-API initial token (RFC 2743 3.1).
pub(super) const APPLICATION_0: u8 = 0x60;

/// The tag of the field `[number]`, explicit and so constructed.
pub(super) const fn context(number: u8) -> u8 {
    0xA0 | number
}

/// Reads the elements of some content one after the other.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

/// One element.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// Tag, length and content, as they stand on the wire.
    pub(super) whole: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The next element, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Element<'a>>, Malformed> {
        let [tag, first, rest @ ..] = self.0 else {
            return if self.0.is_empty() { Ok(None) } else { Err(Malformed::Truncated) };
        };
        if tag & 0x1F == 0x1F {
            return Err(Malformed::Value("tag of more than one byte"));
        }
        let (length, rest) = match *first {
            short @ 0..=0x7F => (usize::from(short), rest),
            // 0x80 is the indefinite length, which DER does not have; over four bytes nothing can be there.
            long @ 0x81..=0x84 => {
                let (bytes, rest) =
                    rest.split_at_checked(usize::from(long & 0x7F)).ok_or(Malformed::Truncated)?;
                (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
            }
            _ => return Err(Malformed::Value("length of an element")),
        };
        let (content, after) = rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        let whole = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Ok(Some(Element { tag: *tag, content, whole }))
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.next()? {
            Some(element) if element.tag == tag => Ok(element.content),
            Some(_) => Err(Malformed::Value("tag")),
            None => Err(Malformed::Truncated),
        }
    }
}

/// The content of the one element that `bytes` begin with.
pub(super) fn only(bytes: &[u8], tag: u8) -> Result<&[u8], Malformed> {
    Reader(bytes).expect(tag)
}

/// One element around `parts`, with the shortest length.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    let bytes = (length as u32).to_be_bytes();
    match length {
        0..=0x7F => out.push(length as u8),
        0x80..=0xFF => out.extend([0x81, bytes[3]]),
        0x100..=0xFFFF => out.extend([0x82, bytes[2], bytes[3]]),
        _ => {
            out.push(0x84);
            out.extend(bytes);
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths() {
        for length in [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000] {
            let content = vec![7; length];
            let bytes = element(OCTET_STRING, &[&content]);
            let mut reader = Reader(&bytes);
            let read = reader.next().unwrap().unwrap();
            assert!(read.content == content && read.whole == bytes && read.tag == OCTET_STRING);
            assert!(reader.next().unwrap().is_none());
            assert!(Reader(&bytes[..bytes.len() - 1]).next().is_err());
        }
        // Longer than it needs to be.
        assert_eq!(only(&[4, 0x84, 0, 0, 0, 1, 9], OCTET_STRING), Ok(&[9][..]));
        // Indefinite, too long a length, announced but not there, another tag, nothing.
        assert!(only(&[4, 0x80, 0, 0], OCTET_STRING).is_err());
        assert!(only(&[4, 0x85, 0, 0, 0, 0, 0], OCTET_STRING).is_err());
        assert!(only(&[4, 0x84, 0xFF, 0xFF, 0xFF, 0xFF, 1], OCTET_STRING).is_err());
        assert!(only(&[5, 0], OCTET_STRING).is_err());
        assert!(only(&[], OCTET_STRING).is_err());
        assert!(only(&[0x1F, 0x20, 0], 0x1F).is_err());
    }

    proptest! {
        #[test]
        fn reads_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader(&bytes);
            while let Ok(Some(element)) = reader.next() {
                prop_assert!(element.content.len() < element.whole.len());
            }
        }
    }
}
