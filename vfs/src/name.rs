//! Names of one component: as clients spell them ([`Name`]) and as they stand on the disk ([`DiskName`]).
//!
//! A client's name is UTF-16 and may not hold what Windows forbids (MS-FSCC 2.1.5.2); a name on a Linux disk is any bytes but `/` and
//! NUL. Between the two stands one reversible map into the private-use block U+F000 to U+F0FF, the one that Cygwin and the Linux client
//! (`mapchars`) use: U+F0xx stands for the byte xx, where xx is
//!
//! - 01 to 1F or one of `" * : < > ? \ |`, which a client may not say plainly,
//! - a space or a dot (20, 2E) at the very end of a name, which Windows programs cannot say,
//! - 80 to FF, a byte that is not part of valid UTF-8.
//!
//! A disk name that *really* holds such a code point is shown byte by byte (U+F0EF, ...), so that disk to client to disk is always the
//! identity. A name from a client that could be spelled in two ways is put into the form that a listing would show, so that for each disk
//! name there is exactly one `Name`: the cache relies on it. Unpaired surrogates are kept as WTF-8, in memory and on the disk.

use std::fmt;
use std::sync::Arc;

/// The longest component, in UTF-16 units (MS-FSCC 2.1.5.2).
pub const NAME_UNITS_MAX: usize = 255;

const INLINE: usize = 39;

/// Bytes, up to 39 of them inline and more in a shared allocation. 40 bytes of size: the length's type has spare values, one of which
/// says "on the heap". Inline the bytes behind the length are zero, and what fits inline is never on the heap: so equal names are equal
/// as they lie in memory, and may be compared, folded and hashed by [`Words`].
#[derive(Clone)]
pub(crate) enum Packed {
    Inline { bytes: [u8; INLINE], length: Length },
    Heap(Arc<[u8]>),
}

/// Up to 39 bytes and, in the last one, their number: what is inline in a [`Packed`], in registers. Little endian, whatever the machine.
pub(crate) type Words = [u64; 5];

/// `a == b`, without a detour through memory.
#[inline]
pub(crate) fn same_words(a: &Words, b: &Words) -> bool {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) == 0
}

macro_rules! lengths {
    ($($name:ident)*) => {
        #[derive(Clone, Copy)]
        #[repr(u8)]
        pub(crate) enum Length { $($name),* }
        const LENGTHS: [Length; INLINE + 1] = [$(Length::$name),*];
    };
}
lengths!(L0 L1 L2 L3 L4 L5 L6 L7 L8 L9 L10 L11 L12 L13 L14 L15 L16 L17 L18 L19 L20 L21 L22 L23 L24 L25 L26 L27 L28 L29 L30 L31 L32
    L33 L34 L35 L36 L37 L38 L39);

const _: () = assert!(size_of::<Packed>() == INLINE + 1);

impl Packed {
    pub(crate) fn new(bytes: &[u8]) -> Packed {
        let mut inline = [0; INLINE];
        match inline.get_mut(..bytes.len()) {
            Some(space) => {
                space.copy_from_slice(bytes);
                Packed::Inline { bytes: inline, length: LENGTHS[bytes.len()] }
            }
            None => Packed::Heap(bytes.into()),
        }
    }

    /// Units of UTF-16 that are all ASCII.
    fn from_ascii(units: &[u16]) -> Packed {
        let mut inline = [0; INLINE];
        match inline.get_mut(..units.len()) {
            Some(space) => {
                space.iter_mut().zip(units).for_each(|(byte, unit)| *byte = *unit as u8);
                Packed::Inline { bytes: inline, length: LENGTHS[units.len()] }
            }
            None => Packed::Heap(units.iter().map(|unit| *unit as u8).collect()),
        }
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Packed::Inline { bytes, length } => &bytes[..*length as usize],
            Packed::Heap(bytes) => bytes,
        }
    }

    /// What is inline, as words. `None`: it is on the heap.
    #[inline]
    pub(crate) fn words(&self) -> Option<Words> {
        let Packed::Inline { bytes, length } = self else { return None };
        let word = |at: usize| bytes[at..].first_chunk().copied().map(u64::from_le_bytes);
        // The last word begins a byte early, and loses that byte to make room for the length.
        let last = word(INLINE - 8)? >> 8 | (*length as u64) << 56;
        Some([word(0)?, word(8)?, word(16)?, word(24)?, last])
    }

    /// The bytes of [`Packed::words`].
    pub(crate) fn from_words(words: Words) -> Packed {
        let mut bytes = [0; INLINE + 1];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Packed::new(&bytes[..usize::from(bytes[INLINE])])
    }

    /// The memory that it takes beside its own 40 bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Packed::Inline { .. } => 0,
            Packed::Heap(bytes) => bytes.len().next_multiple_of(size_of::<usize>()) + 2 * size_of::<usize>(),
        }
    }
}

impl PartialEq for Packed {
    #[inline]
    fn eq(&self, other: &Packed) -> bool {
        match (self.words(), other.words()) {
            (Some(a), Some(b)) => same_words(&a, &b),
            (None, None) => self.as_bytes() == other.as_bytes(),
            _ => false,
        }
    }
}
impl Eq for Packed {}
impl PartialOrd for Packed {
    fn partial_cmp(&self, other: &Packed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Packed {
    fn cmp(&self, other: &Packed) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}
impl std::hash::Hash for Packed {
    // As the slice hashes, so that a table may be asked with a borrowed slice.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// Collects bytes into a [`Packed`]; allocates only when they outgrow the inline space.
pub(crate) struct Builder {
    inline: [u8; INLINE],
    length: usize,
    heap: Vec<u8>,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder { inline: [0; INLINE], length: 0, heap: Vec::new() }
    }

    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        // What has outgrown the space ends beyond it for ever.
        match self.inline.get_mut(self.length..end) {
            Some(space) => space.copy_from_slice(bytes),
            None => self.push_on_heap(bytes),
        }
        self.length = end;
    }

    #[inline(never)]
    fn push_on_heap(&mut self, bytes: &[u8]) {
        if self.heap.is_empty() {
            self.heap.reserve((self.length + bytes.len()).max(4 * INLINE));
            self.heap.extend_from_slice(&self.inline[..self.length]);
        }
        self.heap.extend_from_slice(bytes);
    }

    /// Appends a code point (or a lone surrogate) in generalized UTF-8.
    #[inline]
    pub(crate) fn push_code_point(&mut self, c: u32) {
        let tail = |shift: u32| 0x80 | ((c >> shift) & 0x3F);
        let (word, length) = match c {
            0..=0x7F => (c, 1),
            0x80..=0x7FF => (0xC0 | c >> 6 | tail(0) << 8, 2),
            0x800..=0xFFFF => (0xE0 | c >> 12 | tail(6) << 8 | tail(0) << 16, 3),
            _ => (0xF0 | c >> 18 | tail(12) << 8 | tail(6) << 16 | tail(0) << 24, 4),
        };
        let bytes = word.to_le_bytes();
        match self.inline.get_mut(self.length..).and_then(|space| space.first_chunk_mut()) {
            // In one piece, as it is in the register: behind the character it is zero, like the space.
            Some(space) => {
                *space = bytes;
                self.length += length;
            }
            None => self.push(&bytes[..length]),
        }
    }

    pub(crate) fn written(&mut self) -> &mut [u8] {
        if self.heap.is_empty() { &mut self.inline[..self.length] } else { &mut self.heap }
    }

    pub(crate) fn finish(self) -> Packed {
        if self.heap.is_empty() {
            Packed::Inline { bytes: self.inline, length: LENGTHS[self.length] }
        } else {
            Packed::Heap(self.heap.into())
        }
    }
}

/// The first code point of `bytes` in generalized UTF-8 (lone surrogates allowed, over-long forms not), and its length in bytes.
#[inline]
pub(crate) fn decode(bytes: &[u8]) -> Option<(u32, usize)> {
    let first = *bytes.first()?;
    let tail =
        |at: usize| bytes.get(at).filter(|byte| **byte & 0xC0 == 0x80).map(|byte| u32::from(byte & 0x3F));
    let lead = u32::from(first);
    match first {
        0..=0x7F => Some((lead, 1)),
        0xC2..=0xDF => Some(((lead & 0x1F) << 6 | tail(1)?, 2)),
        0xE0..=0xEF => {
            let c = (lead & 0x0F) << 12 | tail(1)? << 6 | tail(2)?;
            (c >= 0x800).then_some((c, 3))
        }
        0xF0..=0xF4 => {
            let c = (lead & 0x07) << 18 | tail(1)? << 12 | tail(2)? << 6 | tail(3)?;
            (0x1_0000..0x11_0000).contains(&c).then_some((c, 4))
        }
        _ => None,
    }
}

fn is_lead(c: u32) -> bool {
    (0xD800..0xDC00).contains(&c)
}

fn is_trail(c: u32) -> bool {
    (0xDC00..0xE000).contains(&c)
}

/// A byte that a client may not say plainly, anywhere in a name (MS-FSCC 2.1.5.2), other than `/` and NUL, which no disk name has.
const fn is_forbidden(byte: u8) -> bool {
    matches!(byte, 0x01..=0x1F | b'"' | b'*' | b':' | b'<' | b'>' | b'?' | b'\\' | b'|')
}

/// No name of a client's has this byte: a forbidden one, `/` or NUL.
const UNSPEAKABLE: u8 = 1;
/// It begins the encoding of a private-use code point, among others.
const PRIVATE: u8 = 2;
const NOT_ASCII: u8 = 4;

/// What is to be known of each byte, so that a name is looked through once.
static CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        let byte = at as u8;
        if is_forbidden(byte) || matches!(byte, 0 | b'/') {
            table[at] |= UNSPEAKABLE;
        }
        if byte == 0xEF {
            table[at] |= PRIVATE;
        }
        if !byte.is_ascii() {
            table[at] |= NOT_ASCII;
        }
        at += 1;
    }
    table
};

/// All that is to be known of any of the bytes.
#[inline]
fn classes(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |all, byte| all | CLASSES[usize::from(*byte)])
}

const fn is_forbidden_at_the_end(byte: u8) -> bool {
    matches!(byte, b' ' | b'.')
}

/// The byte that this code point stands for, if it does at this place.
fn stands_for(c: u32, is_last: bool) -> Option<u8> {
    if c & !0xFF != 0xF000 {
        return None;
    }
    let byte = (c & 0xFF) as u8;
    (byte >= 0x80 || is_forbidden(byte) || is_last && is_forbidden_at_the_end(byte)).then_some(byte)
}

/// Why a client's name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A component of no characters.
    #[error("the name is empty")]
    Empty,
    /// `.` or `..`, also when spelled through the private-use map.
    #[error("the name is a dot directory")]
    Dot,
    /// A character that MS-FSCC 2.1.5.2 forbids: `/ \ : * ? " < > |`, or a control character.
    #[error("the name has a forbidden character")]
    Forbidden,
    /// More than 255 UTF-16 units.
    #[error("the name is too long")]
    TooLong,
}

/// One component of a path as a client spells it: never empty, `.` or `..`; no character that Windows forbids; kept as WTF-8, in the one
/// form in which a listing would show it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Packed);

impl Name {
    /// A client's name.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it; all are OBJECT_NAME_INVALID to a client.
    pub fn from_utf16(units: &[u16]) -> Result<Name, NameError> {
        if units.is_empty() {
            return Err(NameError::Empty);
        }
        if units.len() > NAME_UNITS_MAX {
            return Err(NameError::TooLong);
        }
        // Without a way out of the loop, so that it takes several units at a time.
        if units.iter().fold(0, |all, unit| all | unit) < 0x80 {
            return Name::checked(Packed::from_ascii(units));
        }
        let mut out = Builder::new();
        for c in char::decode_utf16(units.iter().copied()) {
            out.push_code_point(c.map_or_else(|lone| u32::from(lone.unpaired_surrogate()), u32::from));
        }
        Name::checked(out.finish())
    }

    /// A name from text, for tests and configuration.
    ///
    /// # Errors
    /// As [`Name::from_utf16`].
    #[expect(
        clippy::should_implement_trait,
        reason = "the error is a NameError and the call needs no import"
    )]
    pub fn from_str(text: &str) -> Result<Name, NameError> {
        if text.encode_utf16().count() > NAME_UNITS_MAX {
            return Err(NameError::TooLong);
        }
        Name::checked(Packed::new(text.as_bytes()))
    }

    fn checked(spelled: Packed) -> Result<Name, NameError> {
        let bytes = spelled.as_bytes();
        match bytes {
            [] => return Err(NameError::Empty),
            b"." | b".." => return Err(NameError::Dot),
            _ => {}
        }
        let classes = classes(bytes);
        if classes & UNSPEAKABLE != 0 {
            return Err(NameError::Forbidden);
        }
        // Only a name with a private-use code point, or with a plain dot or space at its end, has a second spelling.
        let is_canonical =
            classes & PRIVATE == 0 && !bytes.last().copied().is_some_and(is_forbidden_at_the_end);
        if is_canonical {
            return Ok(Name(spelled));
        }
        let disk = Name(spelled).to_disk();
        match disk.as_bytes() {
            b"." | b".." => Err(NameError::Dot),
            disk => Ok(Name::from_disk(disk)),
        }
    }

    /// The name under which clients see this disk name. Never fails: `disk` is what a directory lists, thus not empty, not `.` or `..`,
    /// and without `/` and NUL.
    pub fn from_disk(disk: &[u8]) -> Name {
        debug_assert!(
            !matches!(disk, b"" | b"." | b"..") && !disk.iter().any(|byte| matches!(byte, 0 | b'/'))
        );
        let is_plain = classes(disk) & (UNSPEAKABLE | NOT_ASCII) == 0;
        if is_plain && !disk.last().copied().is_some_and(is_forbidden_at_the_end) {
            return Name(Packed::new(disk));
        }
        let mut out = Builder::new();
        let mut rest = disk;
        while !rest.is_empty() {
            let (show, length) = match decode(rest) {
                None => (false, 1),
                Some((c, length)) => {
                    let after = &rest[length..];
                    // A pair of surrogates that is not written as one code point would come back as one.
                    let is_pair = is_lead(c) && decode(after).is_some_and(|(next, _)| is_trail(next));
                    let is_last = after.is_empty();
                    match c {
                        _ if is_pair => (false, 6),
                        0..=0x7F => {
                            let byte = c as u8;
                            (!(is_forbidden(byte) || is_last && is_forbidden_at_the_end(byte)), 1)
                        }
                        _ => (stands_for(c, is_last).is_none(), length),
                    }
                }
            };
            let (now, after) = rest.split_at(length);
            if show {
                out.push(now);
            } else {
                now.iter().for_each(|byte| out.push_code_point(0xF000 | u32::from(*byte)));
            }
            rest = after;
        }
        Name(out.finish())
    }

    /// The name on the disk.
    pub fn to_disk(&self) -> DiskName {
        let bytes = self.as_wtf8();
        // U+F0xx is EF 80 80 to EF 83 BF.
        if classes(bytes) & PRIVATE == 0 {
            return DiskName(self.0.clone());
        }
        let mut out = Builder::new();
        let mut rest = bytes;
        while let Some((c, length)) = decode(rest) {
            let (now, after) = rest.split_at(length);
            match stands_for(c, after.is_empty()) {
                Some(byte) => out.push(&[byte]),
                None => out.push(now),
            }
            rest = after;
        }
        DiskName(out.finish())
    }

    /// The name in WTF-8: UTF-8, but that an unpaired surrogate has its three bytes.
    #[inline]
    pub fn as_wtf8(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The name in UTF-16, as it goes onto the wire.
    pub fn to_utf16(&self) -> Vec<u16> {
        let mut units = Vec::with_capacity(self.as_wtf8().len());
        self.extend_utf16(&mut units);
        units
    }

    /// Appends the name in UTF-16 to `out`.
    pub fn extend_utf16(&self, out: &mut Vec<u16>) {
        let mut rest = self.as_wtf8();
        if rest.is_ascii() {
            out.extend(rest.iter().map(|byte| u16::from(*byte)));
            return;
        }
        while let Some((c, length)) = decode(rest) {
            match u16::try_from(c) {
                Ok(unit) => out.push(unit),
                Err(_) => {
                    let offset = c - 0x1_0000;
                    out.extend([0xD800 | (offset >> 10) as u16, 0xDC00 | (offset & 0x3FF) as u16]);
                }
            }
            rest = &rest[length..];
        }
    }

    pub(crate) fn packed(&self) -> &Packed {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_wtf8()))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_wtf8()), f)
    }
}

/// One component as it stands on the disk: any bytes but `/` and NUL. Made by [`Name::to_disk`], or from what a directory lists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskName(Packed);

impl DiskName {
    /// A name as a directory lists it: not empty, not `.` or `..`, without `/` and NUL.
    pub fn new(bytes: &[u8]) -> DiskName {
        debug_assert!(
            !matches!(bytes, b"" | b"." | b"..") && !bytes.iter().any(|byte| matches!(byte, 0 | b'/'))
        );
        DiskName(Packed::new(bytes))
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The name under which clients see it.
    pub fn to_name(&self) -> Name {
        Name::from_disk(self.as_bytes())
    }
}

impl fmt::Debug for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn from_utf16(text: &str) -> Result<Name, NameError> {
        Name::from_utf16(&text.encode_utf16().collect::<Vec<_>>())
    }

    #[test]
    fn a_client_may_not_say() {
        assert_eq!(from_utf16(""), Err(NameError::Empty));
        for dot in [".", "..", "\u{f02e}", ".\u{f02e}"] {
            assert_eq!(from_utf16(dot), Err(NameError::Dot), "{dot:?}");
            assert_eq!(Name::from_str(dot), Err(NameError::Dot), "{dot:?}");
        }
        for forbidden in ["a/b", "a\\b", "a:b", "a*", "?", "a\"b", "<", ">", "|", "a\0", "\u{1}", "\u{1f}"] {
            assert_eq!(from_utf16(forbidden), Err(NameError::Forbidden), "{forbidden:?}");
        }
        assert_eq!(from_utf16(&"x".repeat(256)), Err(NameError::TooLong));
        assert!(from_utf16(&"ᄀ".repeat(255)).is_ok());
        assert!(from_utf16("...").is_ok());
        assert!(from_utf16("\u{7f}").is_ok());
    }

    #[test]
    fn the_map_by_example() {
        for (disk, client) in [
            (&b"plain.txt"[..], "plain.txt"),
            (b"a:b*?", "a\u{f03a}b\u{f02a}\u{f03f}"),
            (b"\x01\x1f\\|<>\"", "\u{f001}\u{f01f}\u{f05c}\u{f07c}\u{f03c}\u{f03e}\u{f022}"),
            (b"end.", "end\u{f02e}"),
            (b"end ", "end\u{f020}"),
            (b"..a. ", "..a.\u{f020}"),
            (b"\xe9t\xe9", "\u{f0e9}t\u{f0e9}"),
            ("été".as_bytes(), "été"),
            // Really U+F03A on the disk: shown by its bytes.
            ("\u{f03a}".as_bytes(), "\u{f0ef}\u{f080}\u{f0ba}"),
            // Not one of those that stand for a byte at this place: itself.
            ("\u{f041}\u{f020}x".as_bytes(), "\u{f041}\u{f020}x"),
            ("x\u{f020}".as_bytes(), "x\u{f0ef}\u{f080}\u{f0a0}"),
            // A pair in CESU-8, an over-long slash, a lone continuation.
            (b"\xed\xa0\x80\xed\xb0\x80", "\u{f0ed}\u{f0a0}\u{f080}\u{f0ed}\u{f0b0}\u{f080}"),
            (b"\xc0\xaf", "\u{f0c0}\u{f0af}"),
            (b"\x80", "\u{f080}"),
        ] {
            let name = Name::from_disk(disk);
            assert_eq!(name.as_wtf8(), client.as_bytes(), "{}", disk.escape_ascii());
            assert_eq!(name.to_disk().as_bytes(), disk);
            assert_eq!(from_utf16(client).as_ref(), Ok(&name));
        }
    }

    #[test]
    fn two_spellings_are_one_name() {
        assert_eq!(from_utf16("end.").unwrap(), from_utf16("end\u{f02e}").unwrap());
        assert_eq!(from_utf16("\u{f0c3}\u{f0a9}").unwrap(), from_utf16("é").unwrap());
    }

    #[test]
    fn lone_surrogates_survive() {
        for units in [&[0xD800][..], &[0xDC00, 0xD800], &[0x61, 0xDBFF, 0x62]] {
            let name = Name::from_utf16(units).unwrap();
            assert_eq!(name.to_utf16(), units);
            assert_eq!(name.to_disk().to_name(), name);
        }
        assert_eq!(from_utf16("𝄞").unwrap().as_wtf8(), "𝄞".as_bytes());
    }

    fn disk_name() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            any::<u8>(),
            prop::sample::select(b"\xef\x80\x81\x82\x83\xa0\xae\xba\xed\xb0. :a".to_vec()),
        ];
        prop::collection::vec(byte, 1..60).prop_filter("a directory may list it", |disk| {
            !matches!(disk.as_slice(), b"." | b"..") && !disk.iter().any(|byte| matches!(byte, 0 | b'/'))
        })
    }

    proptest! {
        #[test]
        fn disk_to_client_to_disk_is_the_identity(disk in disk_name()) {
            let name = Name::from_disk(&disk);
            prop_assert_eq!(name.to_disk(), DiskName::new(&disk));
            let units = name.to_utf16();
            prop_assert!(units.len() <= disk.len());
            prop_assert_eq!(Name::from_utf16(&units), Ok(name));
        }

        #[test]
        fn each_name_has_one_disk_name(units in prop::collection::vec(
            prop_oneof![any::<u16>(), 0xF000..=0xF0FFu16, 0xD800..=0xDFFFu16, 0x20..=0x7Eu16], 1..40))
        {
            if let Ok(name) = Name::from_utf16(&units) {
                let disk = name.to_disk();
                prop_assert!(!matches!(disk.as_bytes(), b"." | b".." | b""));
                prop_assert!(!disk.as_bytes().iter().any(|byte| matches!(byte, 0 | b'/')));
                prop_assert_eq!(disk.to_name(), name);
            }
        }
    }
}
