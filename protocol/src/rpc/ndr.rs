//! NDR 2.0, the layout of a call's arguments: C706 chapter 14, little-endian as MS-RPCE 2.2.1 has it.
//!
//! A structure's pointers are referent numbers; what they point to follows the structure (or the whole array of
//! structures), in the order of the pointers. Everything is aligned to its own size from the stub's start.

use bytes::{BufMut, Bytes, BytesMut};

use crate::Malformed;
use crate::parse::{self, Utf16};

/// Reads a stub. Every count is checked against the bytes that are there before anything is allocated.
#[derive(Debug)]
pub struct Reader<'a> {
    stub: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `stub`.
    pub fn new(stub: &'a [u8]) -> Reader<'a> {
        Reader { stub, at: 0 }
    }

    /// Bytes that are left.
    pub fn remaining(&self) -> usize {
        self.stub.len().saturating_sub(self.at)
    }

    /// Passes over padding up to a multiple of `alignment` from the stub's start.
    pub fn align(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    /// `count` bytes as they stand.
    ///
    /// Errors: `Truncated`.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed::Truncated)?;
        let bytes = self.stub.get(self.at..end).ok_or(Malformed::Truncated)?;
        self.at = end;
        Ok(bytes)
    }

    /// An unsigned long, aligned.
    ///
    /// Errors: `Truncated`.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4);
        let bytes = self.bytes(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A unique pointer's referent: whether it points to anything. (Which number it has does not matter, since no
    /// interface here uses full pointers.)
    ///
    /// Errors: `Truncated`.
    pub fn pointer(&mut self) -> Result<bool, Malformed> {
        Ok(self.u32()? != 0)
    }

    /// A conformant and varying string of 16-bit units, without the zero that ends it.
    ///
    /// Errors: `Truncated`; `Value` if it does not begin at its first unit, is longer than its room, or does not end
    /// with a zero.
    pub fn string(&mut self) -> Result<Utf16, Malformed> {
        let room = self.u32()?;
        let offset = self.u32()?;
        let count = self.u32()?;
        if offset != 0 || count > room {
            return Err(Malformed::Value("string bounds"));
        }
        let bytes = (count as usize).checked_mul(2).ok_or(Malformed::Truncated)?;
        let mut text = parse::utf16(self.bytes(bytes)?)?;
        match text.0.pop() {
            None | Some(0) => Ok(text),
            Some(_) => Err(Malformed::Value("string not terminated")),
        }
    }

    /// A unique pointer to a string. For a parameter: what it points to follows at once.
    ///
    /// Errors: those of [`Reader::string`].
    pub fn unique_string(&mut self) -> Result<Option<Utf16>, Malformed> {
        match self.pointer()? {
            true => self.string().map(Some),
            false => Ok(None),
        }
    }

    /// `count` structures whose members are of these kinds, and what their pointers point to.
    ///
    /// Errors: `Truncated`, without an allocation, if there cannot be so many; those of [`Reader::string`].
    pub fn structures(&mut self, count: usize, kinds: &[Kind]) -> Result<Vec<Vec<Value>>, Malformed> {
        self.align(4);
        let least = count.checked_mul(4 * kinds.len()).ok_or(Malformed::Truncated)?;
        if least > self.remaining() || kinds.is_empty() {
            return Err(Malformed::Truncated);
        }
        let fixed: Vec<u32> = (0..count * kinds.len()).map(|_| self.u32()).collect::<Result<_, _>>()?;
        let mut structures = Vec::with_capacity(count);
        for members in fixed.chunks_exact(kinds.len()) {
            let mut values = Vec::with_capacity(kinds.len());
            for (kind, &member) in kinds.iter().zip(members) {
                values.push(match kind {
                    Kind::Long => Value::Long(member),
                    Kind::Text if member == 0 => Value::Text(None),
                    Kind::Text => Value::Text(Some(self.string()?)),
                    Kind::Octets if member == 0 => Value::Octets(None),
                    Kind::Octets => {
                        let count = self.u32()? as usize;
                        Value::Octets(Some(Bytes::copy_from_slice(self.bytes(count)?)))
                    }
                });
            }
            structures.push(values);
        }
        Ok(structures)
    }
}

/// What a member of a structure is. The interfaces here have only members of 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An unsigned long.
    Long,
    /// A unique pointer to a string.
    Text,
    /// A unique pointer to a conformant array of bytes.
    Octets,
}

/// A member of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An unsigned long.
    Long(u32),
    /// A unique pointer to a string.
    Text(Option<Utf16>),
    /// A unique pointer to a conformant array of bytes.
    Octets(Option<Bytes>),
}

impl Value {
    /// A string.
    pub fn text(text: &str) -> Value {
        Value::Text(Some(Utf16::from_str(text)))
    }

    /// About how many bytes the member takes, with what it points to.
    pub fn size(&self) -> usize {
        match self {
            Value::Long(_) | Value::Text(None) | Value::Octets(None) => 4,
            Value::Text(Some(text)) => 4 + 12 + (text.byte_len() + 2).next_multiple_of(4),
            Value::Octets(Some(octets)) => 4 + 4 + octets.len().next_multiple_of(4),
        }
    }
}

/// Writes a stub.
#[derive(Debug, Default)]
pub struct Writer {
    out: BytesMut,
    pointers: u32,
}

impl Writer {
    /// An empty stub.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Writes zeros up to a multiple of `alignment`.
    pub fn align(&mut self, alignment: usize) {
        crate::encode::pad(&mut self.out, 0, alignment);
    }

    /// An unsigned long, aligned.
    pub fn u32(&mut self, value: u32) {
        self.align(4);
        self.out.put_u32_le(value);
    }

    /// Bytes as they stand.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    /// A unique pointer: 0, or the next referent number (from 0x20000 in steps of 4, as Windows does).
    pub fn pointer(&mut self, present: bool) {
        let referent = match present {
            true => {
                self.pointers += 1;
                0x0002_0000 + 4 * (self.pointers - 1)
            }
            false => 0,
        };
        self.u32(referent);
    }

    /// A conformant and varying string, with a zero at its end.
    pub fn string(&mut self, text: &[u16]) {
        let count = text.len() as u32 + 1;
        self.u32(count);
        self.u32(0);
        self.u32(count);
        crate::encode::put_utf16(&mut self.out, text);
        self.out.put_u16_le(0);
    }

    /// A unique pointer to a string. For a parameter: what it points to follows at once.
    pub fn unique_string(&mut self, text: Option<&[u16]>) {
        self.pointer(text.is_some());
        if let Some(text) = text {
            self.string(text);
        }
    }

    /// Structures, and behind all of them what their pointers point to.
    pub fn structures(&mut self, structures: &[Vec<Value>]) {
        for value in structures.iter().flatten() {
            match value {
                Value::Long(value) => self.u32(*value),
                Value::Text(text) => self.pointer(text.is_some()),
                Value::Octets(octets) => self.pointer(octets.is_some()),
            }
        }
        for value in structures.iter().flatten() {
            match value {
                Value::Text(Some(text)) => self.string(text),
                Value::Octets(Some(octets)) => {
                    self.u32(octets.len() as u32);
                    self.bytes(octets);
                }
                _ => {}
            }
        }
    }

    /// The stub.
    pub fn finish(self) -> Bytes {
        self.out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_bytes() {
        let mut writer = Writer::new();
        writer.unique_string(Some(&Utf16::from_str("ab")));
        writer.pointer(false);
        writer.u32(7);
        let stub = writer.finish();
        assert_eq!(
            stub[..],
            [
                0, 0, 2, 0, // referent
                3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, b'a', 0, b'b', 0, 0, 0, // string
                0, 0, // padding
                0, 0, 0, 0, // null pointer
                7, 0, 0, 0,
            ]
        );
        let mut reader = Reader::new(&stub);
        assert_eq!(reader.unique_string(), Ok(Some(Utf16::from_str("ab"))));
        assert_eq!(reader.unique_string(), Ok(None));
        assert_eq!(reader.u32(), Ok(7));
        assert_eq!((reader.remaining(), reader.u32()), (0, Err(Malformed::Truncated)));
    }

    #[test]
    fn bad_strings() {
        let string = |room: u32, offset: u32, count: u32, units: &[u8]| {
            let mut bytes = Vec::new();
            for number in [room, offset, count] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(units);
            Reader::new(&bytes).string()
        };
        assert_eq!(string(1, 0, 1, &[0, 0]), Ok(Utf16::default()));
        assert_eq!(string(0, 0, 0, &[]), Ok(Utf16::default()));
        assert_eq!(string(9, 0, 2, &[b'a', 0, 0, 0]), Ok(Utf16::from_str("a")));
        assert_eq!(string(1, 0, 2, &[0; 4]), Err(Malformed::Value("string bounds")));
        assert_eq!(string(3, 1, 2, &[0; 4]), Err(Malformed::Value("string bounds")));
        assert_eq!(string(1, 0, 1, &[b'a', 0]), Err(Malformed::Value("string not terminated")));
        assert_eq!(string(u32::MAX, 0, u32::MAX, &[0; 4]), Err(Malformed::Truncated));
    }

    #[test]
    fn many_structures_cannot_be_announced() {
        let mut reader = Reader::new(&[0; 64]);
        assert_eq!(reader.structures(usize::MAX, &[Kind::Long]), Err(Malformed::Truncated));
        assert_eq!(reader.structures(17, &[Kind::Long]), Err(Malformed::Truncated));
        assert_eq!(reader.structures(8, &[Kind::Long, Kind::Text]).unwrap().len(), 8);
    }

    fn any_value(kind: Kind) -> BoxedStrategy<Value> {
        match kind {
            Kind::Long => any::<u32>().prop_map(Value::Long).boxed(),
            Kind::Text => proptest::option::of(proptest::collection::vec(1_u16.., 0..20))
                .prop_map(|units| Value::Text(units.map(Utf16)))
                .boxed(),
            Kind::Octets => proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20))
                .prop_map(|bytes| Value::Octets(bytes.map(Bytes::from)))
                .boxed(),
        }
    }

    const KINDS: [Kind; 4] = [Kind::Text, Kind::Long, Kind::Octets, Kind::Text];

    proptest! {
        #[test]
        fn structures_round_trip(list in proptest::collection::vec(KINDS.map(any_value), 0..8)) {
            let list: Vec<Vec<Value>> = list.into_iter().map(Vec::from).collect();
            let mut writer = Writer::new();
            writer.structures(&list);
            let stub = writer.finish();
            prop_assert!(stub.len() <= list.iter().flatten().map(Value::size).sum::<usize>());
            prop_assert_eq!(Reader::new(&stub).structures(list.len(), &KINDS), Ok(list));
        }

        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0..20_usize) {
            let _ = Reader::new(&bytes).structures(count, &KINDS);
            let _ = Reader::new(&bytes).unique_string();
            let _ = Reader::new(&bytes).string();
        }
    }
}
