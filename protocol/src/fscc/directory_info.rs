//! The classes that list a directory: MS-FSCC 2.4, asked for by SMB2 QUERY_DIRECTORY (MS-SMB2 2.2.33).

use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

use super::FileAttributes;
use super::chain::{Chain, Entries};
use crate::Malformed;
use crate::dtyp::FileTime;
use crate::encode::put_utf16;
use crate::parse::{self, Utf16};

/// Which facts a listing states, by number.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirectoryClass {
    /// FileDirectoryInformation: times, sizes, attributes.
    Directory = 1,
    /// FileFullDirectoryInformation: with the size of the extended attributes.
    FullDirectory = 2,
    /// FileBothDirectoryInformation: with the short name too.
    BothDirectory = 3,
    /// FileNamesInformation: names alone.
    Names = 12,
    /// FileIdBothDirectoryInformation: as 3, with the file's number.
    IdBothDirectory = 37,
    /// FileIdFullDirectoryInformation: as 2, with the file's number.
    IdFullDirectory = 38,
    /// FileIdExtdDirectoryInformation: as 2, with the reparse tag and the file's number of 128 bits.
    IdExtdDirectory = 60,
    /// FileIdExtdBothDirectoryInformation: as 60, with the short name.
    IdExtdBothDirectory = 63,
}

impl TryFrom<u8> for DirectoryClass {
    type Error = Malformed;

    fn try_from(value: u8) -> Result<DirectoryClass, Malformed> {
        Ok(match value {
            1 => DirectoryClass::Directory,
            2 => DirectoryClass::FullDirectory,
            3 => DirectoryClass::BothDirectory,
            12 => DirectoryClass::Names,
            37 => DirectoryClass::IdBothDirectory,
            38 => DirectoryClass::IdFullDirectory,
            60 => DirectoryClass::IdExtdDirectory,
            63 => DirectoryClass::IdExtdBothDirectory,
            _ => return Err(Malformed::Value("directory information class")),
        })
    }
}

impl DirectoryClass {
    /// Bytes of an entry before its name. A client's buffer that is smaller is STATUS_INFO_LENGTH_MISMATCH; one that
    /// holds this and not the name is STATUS_BUFFER_OVERFLOW (MS-SMB2 3.3.5.18).
    pub const fn fixed_len(self) -> usize {
        match self {
            DirectoryClass::Directory => 64,
            DirectoryClass::FullDirectory => 68,
            DirectoryClass::BothDirectory => 94,
            DirectoryClass::Names => 12,
            DirectoryClass::IdBothDirectory => 104,
            DirectoryClass::IdFullDirectory => 80,
            DirectoryClass::IdExtdDirectory => 88,
            DirectoryClass::IdExtdBothDirectory => 114,
        }
    }

    /// Whether only names are stated, so that nothing need be known of the files.
    pub const fn names_only(self) -> bool {
        matches!(self, DirectoryClass::Names)
    }

    /// Whether the size of the extended attributes (or the reparse tag) is stated.
    pub const fn has_ea_size(self) -> bool {
        !matches!(self, DirectoryClass::Directory | DirectoryClass::Names)
    }

    /// Whether the short name is stated.
    pub const fn has_short_name(self) -> bool {
        matches!(
            self,
            DirectoryClass::BothDirectory
                | DirectoryClass::IdBothDirectory
                | DirectoryClass::IdExtdBothDirectory
        )
    }
}

/// A short (8.3) name: at most 12 units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShortName {
    units: [u16; 12],
    length: u8,
}

impl ShortName {
    /// No short name.
    pub const NONE: ShortName = ShortName { units: [0; 12], length: 0 };

    /// The short name, or none if it has more than 12 units.
    pub fn new(name: &[u16]) -> Option<ShortName> {
        let mut units = [0; 12];
        units.get_mut(..name.len())?.copy_from_slice(name);
        Some(ShortName { units, length: name.len() as u8 })
    }
}

impl Deref for ShortName {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        &self.units[..usize::from(self.length)]
    }
}

/// What a listing says of one file. `N` is `&[u16]` when encoding and [`Utf16`] when parsed. Which fields go onto
/// the wire, and which are there after parsing, depends on the class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryEntry<N> {
    /// The place in the directory; 0 where the file system has no such order.
    pub file_index: u32,
    /// When the file was created.
    pub creation_time: FileTime,
    /// When it was last read.
    pub last_access_time: FileTime,
    /// When its data was last written.
    pub last_write_time: FileTime,
    /// When anything of it last changed.
    pub change_time: FileTime,
    /// Bytes of data.
    pub end_of_file: u64,
    /// Bytes set aside.
    pub allocation_size: u64,
    /// Its attributes.
    pub file_attributes: FileAttributes,
    /// Bytes of the extended attributes.
    pub ea_size: u32,
    /// What kind of reparse point it is. The classes without a field of its own state it in place of `ea_size` when
    /// the attributes say REPARSE_POINT.
    pub reparse_tag: u32,
    /// The 8.3 name.
    pub short_name: ShortName,
    /// The file's number; the classes of 64 bits state the low half.
    pub file_id: u128,
    /// The file's name.
    pub file_name: N,
}

/// The common head of all classes but Names, behind NextEntryOffset.
type Head = (u32, (u64, u64, u64, u64), (u64, u64), u32, u32);

fn head(input: &[u8]) -> parse::Parsed<'_, Head> {
    (
        parse::u32,
        (parse::u64, parse::u64, parse::u64, parse::u64),
        (parse::u64, parse::u64),
        parse::u32,
        parse::u32,
    )
        .parse(input)
}

fn short_name(input: &[u8]) -> Result<(&[u8], ShortName), Malformed> {
    let (rest, (bytes, _reserved, units)) = (parse::u8, parse::u8, parse::take(24)).parse(input)?;
    let units = units.get(..usize::from(bytes)).ok_or(Malformed::Value("short name length"))?;
    let name = ShortName::new(&parse::utf16(units)?).ok_or(Malformed::Value("short name length"))?;
    Ok((rest, name))
}

impl DirectoryEntry<Utf16> {
    /// Reads all entries of a reply.
    ///
    /// Errors: `Truncated`, `Offset`, `Alignment`; `Value` for the length of a short name; `Length` for half a unit.
    pub fn parse_all(class: DirectoryClass, input: &[u8]) -> Result<Vec<DirectoryEntry<Utf16>>, Malformed> {
        Entries::new(input, 8, class.fixed_len()).map(|entry| DirectoryEntry::parse(class, entry?)).collect()
    }

    fn parse(class: DirectoryClass, input: &[u8]) -> Result<DirectoryEntry<Utf16>, Malformed> {
        let mut entry = DirectoryEntry::default();
        if class.names_only() {
            let (rest, (index, length)) = (parse::u32, parse::u32).parse(input)?;
            entry.file_index = index;
            entry.file_name = parse::utf16(parse::take(length as usize)(rest)?.1)?;
            return Ok(entry);
        }
        let (mut rest, (index, times, sizes, attributes, length)) = head(input)?;
        entry.file_index = index;
        entry.creation_time = FileTime(times.0);
        entry.last_access_time = FileTime(times.1);
        entry.last_write_time = FileTime(times.2);
        entry.change_time = FileTime(times.3);
        (entry.end_of_file, entry.allocation_size) = sizes;
        entry.file_attributes = FileAttributes(attributes);
        let extended = matches!(class, DirectoryClass::IdExtdDirectory | DirectoryClass::IdExtdBothDirectory);
        if class.has_ea_size() {
            let (after, ea_size) = parse::u32(rest)?;
            rest = after;
            if !extended && entry.file_attributes.contains(FileAttributes::REPARSE_POINT) {
                entry.reparse_tag = ea_size;
            } else {
                entry.ea_size = ea_size;
            }
        }
        if extended {
            let (after, (tag, id)) = (parse::u32, parse::array::<16>).parse(rest)?;
            entry.reparse_tag = tag;
            entry.file_id = u128::from_le_bytes(id);
            rest = after;
        }
        if class.has_short_name() {
            (rest, entry.short_name) = short_name(rest)?;
        }
        let reserved = match class {
            DirectoryClass::IdBothDirectory => 2,
            DirectoryClass::IdFullDirectory => 4,
            _ => 0,
        };
        if reserved != 0 {
            let (after, ((), id)) = (parse::skip(reserved), parse::u64).parse(rest)?;
            entry.file_id = u128::from(id);
            rest = after;
        }
        entry.file_name = parse::utf16(parse::take(length as usize)(rest)?.1)?;
        Ok(entry)
    }
}

impl<N: Deref<Target = [u16]>> DirectoryEntry<N> {
    /// Appends the entry without its NextEntryOffset.
    fn encode(&self, class: DirectoryClass, out: &mut BytesMut) {
        let name: &[u16] = &self.file_name;
        let name_bytes = (name.len() * 2) as u32;
        out.put_u32_le(self.file_index);
        if class.names_only() {
            out.put_u32_le(name_bytes);
            put_utf16(out, name);
            return;
        }
        for time in [self.creation_time, self.last_access_time, self.last_write_time, self.change_time] {
            out.put_u64_le(time.0);
        }
        out.put_u64_le(self.end_of_file);
        out.put_u64_le(self.allocation_size);
        out.put_u32_le(self.file_attributes.0);
        out.put_u32_le(name_bytes);
        let extended = matches!(class, DirectoryClass::IdExtdDirectory | DirectoryClass::IdExtdBothDirectory);
        if extended {
            out.put_u32_le(self.ea_size);
            out.put_u32_le(self.reparse_tag);
            out.put_u128_le(self.file_id);
        } else if class.has_ea_size() {
            out.put_u32_le(match self.file_attributes.contains(FileAttributes::REPARSE_POINT) {
                true => self.reparse_tag,
                false => self.ea_size,
            });
        }
        if class.has_short_name() {
            out.put_u8(self.short_name.length * 2);
            out.put_u8(0);
            put_utf16(out, &self.short_name.units);
        }
        match class {
            DirectoryClass::IdBothDirectory => {
                out.put_u16_le(0);
                out.put_u64_le(self.file_id as u64);
            }
            DirectoryClass::IdFullDirectory => {
                out.put_u32_le(0);
                out.put_u64_le(self.file_id as u64);
            }
            _ => {}
        }
        put_utf16(out, name);
    }
}

/// Writes a listing, at most as long as the client's buffer: entries begin at multiples of 8 bytes.
#[derive(Debug)]
pub struct DirectoryEncoder {
    class: DirectoryClass,
    chain: Chain,
}

impl DirectoryEncoder {
    /// An empty listing of at most `limit` bytes.
    pub fn new(class: DirectoryClass, limit: usize) -> DirectoryEncoder {
        DirectoryEncoder { class, chain: Chain::new(8, limit) }
    }

    /// Appends an entry, unless it does not fit: then it gives false, the listing is as before, and the entry is the
    /// first of the next reply.
    pub fn push<N: Deref<Target = [u16]>>(&mut self, entry: &DirectoryEntry<N>) -> bool {
        let class = self.class;
        self.chain.push(class.fixed_len() + entry.file_name.len() * 2, |out| entry.encode(class, out))
    }

    /// Whether an entry with a name of `units` UTF-16 units would still fit: asked before the file is looked at.
    pub fn fits(&self, units: usize) -> bool {
        self.chain.fits(self.class.fixed_len() + units * 2)
    }

    /// Whether there is no entry yet.
    pub fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.chain.len()
    }

    /// The class of the listing.
    pub fn class(&self) -> DirectoryClass {
        self.class
    }

    /// The listing.
    pub fn finish(self) -> Bytes {
        self.chain.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLASSES: [DirectoryClass; 8] = [
        DirectoryClass::Directory,
        DirectoryClass::FullDirectory,
        DirectoryClass::BothDirectory,
        DirectoryClass::Names,
        DirectoryClass::IdBothDirectory,
        DirectoryClass::IdFullDirectory,
        DirectoryClass::IdExtdDirectory,
        DirectoryClass::IdExtdBothDirectory,
    ];

    fn entry(name: &str) -> DirectoryEntry<Utf16> {
        DirectoryEntry {
            file_index: 9,
            creation_time: FileTime(1),
            last_access_time: FileTime(2),
            last_write_time: FileTime(3),
            change_time: FileTime(4),
            end_of_file: 5,
            allocation_size: 6,
            file_attributes: FileAttributes::ARCHIVE,
            ea_size: 7,
            reparse_tag: 0,
            short_name: ShortName::new(&Utf16::from_str("AB~1")).unwrap(),
            file_id: 0x1122_3344_5566_7788,
            file_name: Utf16::from_str(name),
        }
    }

    fn encode(class: DirectoryClass, entries: &[DirectoryEntry<Utf16>]) -> Bytes {
        let mut encoder = DirectoryEncoder::new(class, 1 << 20);
        assert!(entries.iter().all(|entry| encoder.push(entry)));
        encoder.finish()
    }

    const HEAD: [u8; 64] = [
        0, 0, 0, 0, 9, 0, 0, 0, // NextEntryOffset, FileIndex
        1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0,
        0, // times
        5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, // EndOfFile, AllocationSize
        0x20, 0, 0, 0, 2, 0, 0, 0, // FileAttributes, FileNameLength
    ];
    const EA: &[u8] = &[7, 0, 0, 0];
    const SHORT: &[u8] =
        &[8, 0, b'A', 0, b'B', 0, b'~', 0, b'1', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const ID: &[u8] = &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
    const NAME: &[u8] = &[b'x', 0];

    #[test]
    fn known_bytes() {
        let tag: &[u8] = &[0; 4];
        let high: &[u8] = &[0; 8];
        for (class, tail) in [
            (DirectoryClass::Directory, [NAME].concat()),
            (DirectoryClass::FullDirectory, [EA, NAME].concat()),
            (DirectoryClass::BothDirectory, [EA, SHORT, NAME].concat()),
            (DirectoryClass::IdBothDirectory, [EA, SHORT, &[0, 0], ID, NAME].concat()),
            (DirectoryClass::IdFullDirectory, [EA, &[0; 4], ID, NAME].concat()),
            (DirectoryClass::IdExtdDirectory, [EA, tag, ID, high, NAME].concat()),
            (DirectoryClass::IdExtdBothDirectory, [EA, tag, ID, high, SHORT, NAME].concat()),
        ] {
            let bytes = encode(class, &[entry("x")]);
            assert_eq!(bytes[..], [&HEAD[..], &tail].concat(), "{class:?}");
            assert_eq!(bytes.len(), class.fixed_len() + 2);
        }
        assert_eq!(
            encode(DirectoryClass::Names, &[entry("x")])[..],
            [0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, b'x', 0]
        );
    }

    #[test]
    fn entries_are_chained_at_multiples_of_eight() {
        for class in CLASSES {
            let entries = [entry("a"), entry("bcd"), entry("efghi")];
            let bytes = encode(class, &entries);
            let first = (class.fixed_len() + 2).next_multiple_of(8);
            assert_eq!(u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize, first);
            let parsed = DirectoryEntry::parse_all(class, &bytes).unwrap();
            for (parsed, entry) in parsed.iter().zip(&entries) {
                assert_eq!(parsed.file_name, entry.file_name, "{class:?}");
                assert_eq!(parsed.file_index, 9);
                if !class.names_only() {
                    assert_eq!(parsed.change_time, FileTime(4));
                }
                if class.has_short_name() {
                    assert_eq!(parsed.short_name, entry.short_name);
                }
                if class.has_ea_size() {
                    assert_eq!(parsed.ea_size, 7);
                }
            }
            assert_eq!(parsed.len(), 3);
            for length in 1..bytes.len() {
                assert!(DirectoryEntry::parse_all(class, &bytes[..length]).is_err(), "{class:?} {length}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left() {
        let class = DirectoryClass::Names;
        let mut encoder = DirectoryEncoder::new(class, 30);
        assert!(encoder.is_empty());
        assert!(encoder.push(&entry("a")));
        assert_eq!(encoder.len(), 14);
        assert!(encoder.fits(1) && !encoder.fits(2));
        assert!(!encoder.push(&entry("ab")));
        assert!(encoder.push(&entry("b")));
        let bytes = encoder.finish();
        assert_eq!(bytes.len(), 30);
        assert_eq!(DirectoryEntry::parse_all(class, &bytes).unwrap().len(), 2);
        let mut encoder = DirectoryEncoder::new(class, 13);
        assert!(!encoder.push(&entry("a")) && encoder.is_empty());
        assert!(encoder.finish().is_empty());
    }

    #[test]
    fn a_reparse_point_states_its_tag() {
        let mut link = entry("l");
        link.file_attributes = FileAttributes::REPARSE_POINT;
        link.reparse_tag = 0xA000_000C;
        let parsed = DirectoryEntry::parse_all(
            DirectoryClass::IdBothDirectory,
            &encode(DirectoryClass::IdBothDirectory, &[link.clone()]),
        );
        let parsed = &parsed.unwrap()[0];
        assert_eq!((parsed.reparse_tag, parsed.ea_size), (0xA000_000C, 0));
        let bytes = encode(DirectoryClass::IdExtdDirectory, &[link]);
        let parsed = &DirectoryEntry::parse_all(DirectoryClass::IdExtdDirectory, &bytes).unwrap()[0];
        assert_eq!((parsed.reparse_tag, parsed.ea_size), (0xA000_000C, 7));
    }

    #[test]
    fn short_names_are_bounded() {
        assert!(ShortName::new(&[0x41; 12]).is_some());
        assert!(ShortName::new(&[0x41; 13]).is_none());
        let mut bytes = encode(DirectoryClass::BothDirectory, &[entry("x")]).to_vec();
        bytes[68] = 25;
        assert!(DirectoryEntry::parse_all(DirectoryClass::BothDirectory, &bytes).is_err());
    }

    proptest! {
        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..300), which in 0..CLASSES.len(), next: u8) {
            let mut bytes = bytes;
            let _ = DirectoryEntry::parse_all(CLASSES[which], &bytes);
            if bytes.len() > 4 {
                bytes[..4].copy_from_slice(&[next & 0xF8, 0, 0, 0]);
                let _ = DirectoryEntry::parse_all(CLASSES[which], &bytes);
            }
        }

        #[test]
        fn bounded(limit in 0..2000_usize, lengths in proptest::collection::vec(0..255_usize, 1..40), which in 0..CLASSES.len()) {
            let class = CLASSES[which];
            let mut encoder = DirectoryEncoder::new(class, limit);
            let mut pushed = 0;
            for length in &lengths {
                let units = vec![0x61; *length];
                let fits = encoder.fits(*length);
                let entry = DirectoryEntry::<&[u16]> { file_name: &units, ..DirectoryEntry::default() };
                prop_assert_eq!(encoder.push(&entry), fits);
                if !fits {
                    break;
                }
                pushed += 1;
            }
            let bytes = encoder.finish();
            prop_assert!(bytes.len() <= limit);
            let parsed = DirectoryEntry::parse_all(class, &bytes).unwrap();
            prop_assert_eq!(parsed.len(), pushed);
            for (entry, length) in parsed.iter().zip(&lengths) {
                prop_assert_eq!(entry.file_name.len(), *length);
            }
        }
    }
}
