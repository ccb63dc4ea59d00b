//! Chains of entries: each begins with NextEntryOffset, the distance to the next, 0 in the last. Listings of
//! directories, of streams, of extended attributes and of changes all have this form.

use bytes::{BufMut, Bytes, BytesMut};

use crate::Malformed;
use crate::encode::patch_u32;
use crate::parse;

/// A chain under construction, never longer than its limit. An entry that does not fit leaves no trace.
#[derive(Debug)]
pub(crate) struct Chain {
    out: BytesMut,
    limit: usize,
    alignment: usize,
    /// Where the last entry begins.
    last: Option<usize>,
}

impl Chain {
    /// An empty chain of at most `limit` bytes, whose entries begin at multiples of `alignment`.
    pub fn new(alignment: usize, limit: usize) -> Chain {
        Chain { out: BytesMut::new(), limit, alignment, last: None }
    }

    /// Appends an entry of `length` bytes, NextEntryOffset included, if it fits. `write` appends what follows
    /// NextEntryOffset, `length - 4` bytes.
    pub fn push(&mut self, length: usize, write: impl FnOnce(&mut BytesMut)) -> bool {
        let end = self.out.len();
        let at = end.next_multiple_of(self.alignment);
        if !self.fits(length) {
            return false;
        }
        // Room for a few entries more: the size of a page of a listing is not known before it is full.
        if self.out.capacity() - end < at - end + length {
            self.out.reserve((at - end + length).max(end).max(512).min(self.limit - end));
        }
        self.out.put_bytes(0, at - end);
        if let Some(last) = self.last.replace(at) {
            patch_u32(&mut self.out, last, (at - last) as u32);
        }
        self.out.put_u32_le(0);
        write(&mut self.out);
        debug_assert_eq!(self.out.len(), at + length, "the entry has the length that was announced");
        true
    }

    /// Whether an entry of `length` bytes would fit.
    pub fn fits(&self, length: usize) -> bool {
        let at = self.out.len().next_multiple_of(self.alignment);
        at.checked_add(length).is_some_and(|after| after <= self.limit)
    }

    /// Whether there is no entry yet.
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// The chain.
    pub fn finish(self) -> Bytes {
        self.out.freeze()
    }
}

/// The entries of a chain, each without its NextEntryOffset and up to where the next begins.
///
/// `least` is the length of the fixed part of an entry: an offset below it is an error, so every step goes forward
/// and the number of entries is bounded by the bytes.
pub(crate) struct Entries<'a> {
    rest: Option<&'a [u8]>,
    least: usize,
    alignment: usize,
}

impl<'a> Entries<'a> {
    /// The entries of `input`; an empty input has none.
    pub fn new(input: &'a [u8], alignment: usize, least: usize) -> Entries<'a> {
        Entries { rest: Some(input).filter(|input| !input.is_empty()), least: least.max(4), alignment }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let input = self.rest.take()?;
        let next = match parse::u32(input) {
            Ok((_, next)) => next as usize,
            Err(_) => return Some(Err(Malformed::Truncated)),
        };
        if input.len() < self.least {
            return Some(Err(Malformed::Truncated));
        }
        if next == 0 {
            return Some(Ok(&input[4..]));
        }
        if next < self.least {
            return Some(Err(Malformed::Offset));
        }
        if next % self.alignment != 0 {
            return Some(Err(Malformed::Alignment));
        }
        match input.split_at_checked(next) {
            Some((entry, rest)) => {
                self.rest = Some(rest);
                Some(Ok(&entry[4..]))
            }
            None => Some(Err(Malformed::Offset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_chained_and_bounded() {
        let mut chain = Chain::new(8, 24);
        assert!(chain.is_empty());
        assert!(chain.push(5, |out| out.put_u8(1)));
        assert!(!chain.push(17, |out| out.put_bytes(2, 13)));
        assert!(chain.push(16, |out| out.put_bytes(2, 12)));
        assert!(!chain.push(4, |_| {}));
        let bytes = chain.finish();
        assert_eq!(bytes[..], [8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        let entries: Vec<_> = Entries::new(&bytes, 8, 5).collect();
        assert_eq!(entries, [Ok(&[1, 0, 0, 0][..]), Ok(&[2; 12][..])]);
    }

    #[test]
    fn offsets_that_lead_nowhere() {
        let first = |bytes: &[u8]| Entries::new(bytes, 4, 8).next().map(|entry| entry.map(<[u8]>::len));
        assert_eq!(first(&[]), None);
        assert_eq!(first(&[0, 0, 0]), Some(Err(Malformed::Truncated)));
        assert_eq!(first(&[0; 7]), Some(Err(Malformed::Truncated)));
        assert_eq!(first(&[0; 8]), Some(Ok(4)));
        assert_eq!(first(&[4, 0, 0, 0, 0, 0, 0, 0]), Some(Err(Malformed::Offset)));
        assert_eq!(first(&[9, 0, 0, 0, 0, 0, 0, 0, 0]), Some(Err(Malformed::Alignment)));
        assert_eq!(first(&[12, 0, 0, 0, 0, 0, 0, 0]), Some(Err(Malformed::Offset)));
        assert_eq!(first(&[0xFC, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]), Some(Err(Malformed::Offset)));
        // The offset of an entry that is not there: the chain is cut short.
        assert_eq!(Entries::new(&[8, 0, 0, 0, 0, 0, 0, 0], 4, 8).count(), 2);
    }
}
