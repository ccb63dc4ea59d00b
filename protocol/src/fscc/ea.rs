//! Extended attributes: FILE_FULL_EA_INFORMATION and FILE_GET_EA_INFORMATION, MS-FSCC 2.4 FileFullEaInformation (class
//! 15, and the create context ExtA).

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

use super::chain::{Chain, Entries};
use crate::Malformed;
use crate::parse;

/// Flags: whoever does not understand the attribute must not use the file.
pub const NEED_EA: u8 = 0x80;

/// One extended attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ea {
    /// 0 or [`NEED_EA`].
    pub flags: u8,
    /// The name: ASCII, without case, at most 255 bytes (254 on NTFS).
    pub name: Vec<u8>,
    /// The value; an empty one in a set removes the attribute.
    pub value: Vec<u8>,
}

impl Ea {
    /// Bytes of an entry before its name.
    const FIXED: usize = 8;

    /// Whether the name may be set (FileFullEaInformation): not empty, no control character, none of `"*+,/:;<=>?[\]|`. Where it may
    /// not, the answer is STATUS_INVALID_EA_NAME.
    pub fn is_valid_name(name: &[u8]) -> bool {
        (1..=254).contains(&name.len())
            && name
                .iter()
                .all(|byte| byte.is_ascii() && *byte >= 0x20 && !b"\"*+,/:;<=>?[\\]|".contains(byte))
    }

    /// Reads a list.
    ///
    /// Errors: `Truncated`, `Offset`, `Alignment`; `Value` if a name is not terminated. The answer to all of them is
    /// STATUS_EA_LIST_INCONSISTENT where a file's attributes are set.
    pub fn parse_all(input: &[u8]) -> Result<Vec<Ea>, Malformed> {
        let mut list = Vec::new();
        for entry in Entries::new(input, 4, Ea::FIXED) {
            let (rest, (flags, name, value)) = (parse::u8, parse::u8, parse::u16).parse(entry?)?;
            let (rest, (name, zero, value)) =
                (parse::take(usize::from(name)), parse::u8, parse::take(usize::from(value))).parse(rest)?;
            let _ = rest;
            if zero != 0 {
                return Err(Malformed::Value("EA name"));
            }
            list.push(Ea { flags, name: name.to_vec(), value: value.to_vec() });
        }
        Ok(list)
    }

    /// Bytes of an entry on the wire, without padding.
    pub fn encoded_len(&self) -> usize {
        Ea::FIXED + self.name.len().min(255) + 1 + self.value.len().min(65535)
    }

    /// EaSize of a file with these attributes, as class 7 and listings state it: what OS/2's format takes, 4 bytes for
    /// the list and 4 a piece with its name, the zero and the value. 0 if there are none.
    pub fn size_of_all<'a>(list: impl IntoIterator<Item = (&'a [u8], usize)>) -> u32 {
        let mut total = 0_u64;
        for (name, value) in list {
            total += 5 + name.len() as u64 + value as u64;
        }
        match total {
            0 => 0,
            total => u32::try_from(total + 4).unwrap_or(u32::MAX),
        }
    }
}

/// Writes a list of extended attributes, at most as long as the client's buffer.
#[derive(Debug)]
pub struct EaEncoder(Chain);

impl EaEncoder {
    /// An empty list of at most `limit` bytes.
    pub fn new(limit: usize) -> EaEncoder {
        EaEncoder(Chain::new(4, limit))
    }

    /// Appends an attribute, unless it does not fit: then it gives false. A name above 255 bytes or a value above
    /// 65,535 is cut: the format has no more room.
    pub fn push(&mut self, ea: &Ea) -> bool {
        self.0.push(ea.encoded_len(), |out: &mut BytesMut| {
            let name = &ea.name[..ea.name.len().min(255)];
            let value = &ea.value[..ea.value.len().min(65535)];
            out.put_u8(ea.flags);
            out.put_u8(name.len() as u8);
            out.put_u16_le(value.len() as u16);
            out.put_slice(name);
            out.put_u8(0);
            out.put_slice(value);
        })
    }

    /// Whether there is no attribute yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The list.
    pub fn finish(self) -> Bytes {
        self.0.finish()
    }
}

/// Reads the names that a query of class 15 asks for: FILE_GET_EA_INFORMATION.
///
/// Errors: `Truncated`, `Offset`, `Alignment`; `Value` if a name is not terminated.
pub fn parse_names(input: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut names = Vec::new();
    for entry in Entries::new(input, 4, 6) {
        let (rest, length) = parse::u8(entry?)?;
        let (_, (name, zero)) = (parse::take(usize::from(length)), parse::u8).parse(rest)?;
        if zero != 0 {
            return Err(Malformed::Value("EA name"));
        }
        names.push(name.to_vec());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: [u8; 28] = [
        16, 0, 0, 0, 0, 2, 3, 0, b'A', b'B', 0, 1, 2, 3, 0, 0, // with 2 bytes of padding
        0, 0, 0, 0, 0x80, 1, 2, 0, b'C', 0, 4, 5,
    ];

    fn known() -> [Ea; 2] {
        [
            Ea { flags: 0, name: b"AB".to_vec(), value: vec![1, 2, 3] },
            Ea { flags: NEED_EA, name: b"C".to_vec(), value: vec![4, 5] },
        ]
    }

    #[test]
    fn known_bytes() {
        assert_eq!(Ea::parse_all(&KNOWN).unwrap(), known());
        let mut encoder = EaEncoder::new(28);
        assert!(known().iter().all(|ea| encoder.push(ea)));
        assert_eq!(encoder.finish()[..], KNOWN);
        let mut encoder = EaEncoder::new(27);
        assert!(encoder.push(&known()[0]) && !encoder.push(&known()[1]));
        assert_eq!(encoder.finish().len(), 14);
        for length in 1..KNOWN.len() {
            assert!(Ea::parse_all(&KNOWN[..length]).is_err());
        }
        let mut bytes = KNOWN;
        bytes[10] = 1;
        assert_eq!(Ea::parse_all(&bytes), Err(Malformed::Value("EA name")));
    }

    #[test]
    fn sizes_and_names() {
        assert_eq!(Ea::size_of_all([]), 0);
        assert_eq!(Ea::size_of_all([(&b"AB"[..], 3), (b"C", 2)]), 4 + 10 + 8);
        assert!(Ea::is_valid_name(b"USER.NAME"));
        for name in [&b""[..], b"a:b", b"a\0", b"a*", b"\xE9", &[b'a'; 255]] {
            assert!(!Ea::is_valid_name(name));
        }
        let names = [8, 0, 0, 0, 2, b'A', b'B', 0, 0, 0, 0, 0, 1, b'C', 0];
        assert_eq!(parse_names(&names).unwrap(), [b"AB".to_vec(), b"C".to_vec()]);
        for length in 1..names.len() {
            assert!(parse_names(&names[..length]).is_err());
        }
    }

    proptest! {
        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Ea::parse_all(&bytes);
            let _ = parse_names(&bytes);
        }
    }
}
