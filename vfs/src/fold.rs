//! Which names are the same but for case: the upcase table, and the folded form of a name that the cache's keys are made of.
//!
//! The table is the one that Windows (Vista to 8) writes into `$UpCase` when it formats an NTFS volume: one UTF-16 unit to one unit,
//! no normalization, no mapping to several characters, surrogates unchanged. In Unicode's words it is the simple upper-case mapping
//! of version 5.1 within the BMP, without the mappings that two different lower-case letters would share (`µ`, `ı`, `ſ`, `ς`, the
//! Greek symbol letters), and with the Greek letters with iota subscript mapped to their title-case forms. MS-FSA leaves the table to
//! the file system; a client that folds a name more finely or more coarsely than we do would see two files or none, so the table is
//! pinned: a test holds a checksum over all 65,536 units.

use crate::name::{Builder, Name, Packed, Words, decode, same_words};
use std::fmt;
use std::hash::Hasher;

/// (first, last, step, distance): each unit from `first` to `last` in steps of `step` maps to itself plus `distance`.
#[rustfmt::skip]
const RUNS: &[(u16, u16, u16, i32)] = &[
    (0x0061, 0x007a, 1, -32), (0x00e0, 0x00f6, 1, -32), (0x00f8, 0x00fe, 1, -32), (0x00ff, 0x00ff, 1, 121),
    (0x0101, 0x012f, 2, -1), (0x0133, 0x0137, 2, -1), (0x013a, 0x0148, 2, -1), (0x014b, 0x0177, 2, -1),
    (0x017a, 0x017e, 2, -1), (0x0180, 0x0180, 1, 195), (0x0183, 0x0185, 2, -1), (0x0188, 0x0188, 1, -1),
    (0x018c, 0x018c, 1, -1), (0x0192, 0x0192, 1, -1), (0x0195, 0x0195, 1, 97), (0x0199, 0x0199, 1, -1),
    (0x019a, 0x019a, 1, 163), (0x019e, 0x019e, 1, 130), (0x01a1, 0x01a5, 2, -1), (0x01a8, 0x01a8, 1, -1),
    (0x01ad, 0x01ad, 1, -1), (0x01b0, 0x01b0, 1, -1), (0x01b4, 0x01b6, 2, -1), (0x01b9, 0x01b9, 1, -1),
    (0x01bd, 0x01bd, 1, -1), (0x01bf, 0x01bf, 1, 56), (0x01c6, 0x01c6, 1, -2), (0x01c9, 0x01c9, 1, -2),
    (0x01cc, 0x01cc, 1, -2), (0x01ce, 0x01dc, 2, -1), (0x01dd, 0x01dd, 1, -79), (0x01df, 0x01ef, 2, -1),
    (0x01f3, 0x01f3, 1, -2), (0x01f5, 0x01f5, 1, -1), (0x01f9, 0x021f, 2, -1), (0x0223, 0x0233, 2, -1),
    (0x023c, 0x023c, 1, -1), (0x0242, 0x0242, 1, -1), (0x0247, 0x024f, 2, -1), (0x0250, 0x0250, 1, 10783),
    (0x0251, 0x0251, 1, 10780), (0x0253, 0x0253, 1, -210), (0x0254, 0x0254, 1, -206),
    (0x0256, 0x0257, 1, -205), (0x0259, 0x0259, 1, -202), (0x025b, 0x025b, 1, -203),
    (0x0260, 0x0260, 1, -205), (0x0263, 0x0263, 1, -207), (0x0268, 0x0268, 1, -209),
    (0x0269, 0x0269, 1, -211), (0x026b, 0x026b, 1, 10743), (0x026f, 0x026f, 1, -211),
    (0x0271, 0x0271, 1, 10749), (0x0272, 0x0272, 1, -213), (0x0275, 0x0275, 1, -214),
    (0x027d, 0x027d, 1, 10727), (0x0280, 0x0280, 1, -218), (0x0283, 0x0283, 1, -218),
    (0x0288, 0x0288, 1, -218), (0x0289, 0x0289, 1, -69), (0x028a, 0x028b, 1, -217),
    (0x028c, 0x028c, 1, -71), (0x0292, 0x0292, 1, -219), (0x0371, 0x0373, 2, -1), (0x0377, 0x0377, 1, -1),
    (0x037b, 0x037d, 1, 130), (0x03ac, 0x03ac, 1, -38), (0x03ad, 0x03af, 1, -37), (0x03b1, 0x03c1, 1, -32),
    (0x03c3, 0x03cb, 1, -32), (0x03cc, 0x03cc, 1, -64), (0x03cd, 0x03ce, 1, -63), (0x03d7, 0x03d7, 1, -8),
    (0x03d9, 0x03ef, 2, -1), (0x03f2, 0x03f2, 1, 7), (0x03f8, 0x03f8, 1, -1), (0x03fb, 0x03fb, 1, -1),
    (0x0430, 0x044f, 1, -32), (0x0450, 0x045f, 1, -80), (0x0461, 0x0481, 2, -1), (0x048b, 0x04bf, 2, -1),
    (0x04c2, 0x04ce, 2, -1), (0x04cf, 0x04cf, 1, -15), (0x04d1, 0x0523, 2, -1), (0x0561, 0x0586, 1, -48),
    (0x1d79, 0x1d79, 1, 35332), (0x1d7d, 0x1d7d, 1, 3814), (0x1e01, 0x1e95, 2, -1),
    (0x1ea1, 0x1eff, 2, -1), (0x1f00, 0x1f07, 1, 8), (0x1f10, 0x1f15, 1, 8), (0x1f20, 0x1f27, 1, 8),
    (0x1f30, 0x1f37, 1, 8), (0x1f40, 0x1f45, 1, 8), (0x1f51, 0x1f57, 2, 8), (0x1f60, 0x1f67, 1, 8),
    (0x1f70, 0x1f71, 1, 74), (0x1f72, 0x1f75, 1, 86), (0x1f76, 0x1f77, 1, 100), (0x1f78, 0x1f79, 1, 128),
    (0x1f7a, 0x1f7b, 1, 112), (0x1f7c, 0x1f7d, 1, 126), (0x1f80, 0x1f87, 1, 8), (0x1f90, 0x1f97, 1, 8),
    (0x1fa0, 0x1fa7, 1, 8), (0x1fb0, 0x1fb1, 1, 8), (0x1fb3, 0x1fb3, 1, 9), (0x1fc3, 0x1fc3, 1, 9),
    (0x1fd0, 0x1fd1, 1, 8), (0x1fe0, 0x1fe1, 1, 8), (0x1fe5, 0x1fe5, 1, 7), (0x1ff3, 0x1ff3, 1, 9),
    (0x214e, 0x214e, 1, -28), (0x2170, 0x217f, 1, -16), (0x2184, 0x2184, 1, -1), (0x24d0, 0x24e9, 1, -26),
    (0x2c30, 0x2c5e, 1, -48), (0x2c61, 0x2c61, 1, -1), (0x2c65, 0x2c65, 1, -10795),
    (0x2c66, 0x2c66, 1, -10792), (0x2c68, 0x2c6c, 2, -1), (0x2c73, 0x2c73, 1, -1), (0x2c76, 0x2c76, 1, -1),
    (0x2c81, 0x2ce3, 2, -1), (0x2d00, 0x2d25, 1, -7264), (0xa641, 0xa65f, 2, -1), (0xa663, 0xa66d, 2, -1),
    (0xa681, 0xa697, 2, -1), (0xa723, 0xa72f, 2, -1), (0xa733, 0xa76f, 2, -1), (0xa77a, 0xa77c, 2, -1),
    (0xa77f, 0xa787, 2, -1), (0xa78c, 0xa78c, 1, -1), (0xff41, 0xff5a, 1, -32),
];

static UPCASE: [u16; 0x1_0000] = table();

const fn table() -> [u16; 0x1_0000] {
    let mut table = [0; 0x1_0000];
    let mut unit = 0;
    while unit < table.len() {
        table[unit] = unit as u16;
        unit += 1;
    }
    let mut run = 0;
    while run < RUNS.len() {
        let (first, last, step, distance) = RUNS[run];
        let mut unit = first as i32;
        while unit <= last as i32 {
            table[unit as usize] = (unit + distance) as u16;
            unit += step as i32;
        }
        run += 1;
    }
    table
}

/// The upper-case form of one UTF-16 unit, as NTFS has it.
#[inline]
pub fn upcase(unit: u16) -> u16 {
    UPCASE[usize::from(unit)]
}

/// How a share compares names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// As Windows does: names that differ only in case are the same name.
    Insensitive,
    /// Byte by byte.
    Sensitive,
}

impl Fold {
    /// The form of `name` that is the same for all names that this fold holds to be the same.
    pub fn fold(&self, name: &Name) -> FoldedName {
        self.folded(name).into_name()
    }

    /// [`Fold::fold`], to look something up by.
    #[inline]
    pub(crate) fn folded(&self, name: &Name) -> Folded {
        let words = name.packed().words();
        let folded = match self {
            Fold::Sensitive => words,
            Fold::Insensitive => words.and_then(upcase_ascii),
        };
        folded.map_or_else(|| self.folded_slowly(name), Folded::Short)
    }

    #[inline(never)]
    fn folded_slowly(&self, name: &Name) -> Folded {
        Folded::of(&FoldedName(match self {
            Fold::Sensitive => name.packed().clone(),
            Fold::Insensitive => fold_bytes(name.as_wtf8()),
        }))
    }

    /// Do these two spell the same name?
    pub fn eq(&self, a: &Name, b: &Name) -> bool {
        if a == b {
            return true;
        }
        match self {
            Fold::Sensitive => false,
            Fold::Insensitive if a.as_wtf8().is_ascii() && b.as_wtf8().is_ascii() => {
                a.as_wtf8().eq_ignore_ascii_case(b.as_wtf8())
            }
            Fold::Insensitive => self.fold(a) == self.fold(b),
        }
    }
}

/// The name in upper case, if it is all ASCII: eight characters at a time, and no branch for any of them. The length, in the last byte,
/// is no letter and stays.
#[inline]
fn upcase_ascii(words: Words) -> Option<Words> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = EACH * 0x80;
    let [a, b, c, d, e] = words;
    if (a | b | c | d | e) & HIGH != 0 {
        return None;
    }
    Some(words.map(|word| {
        // The highest bit of each byte that is 'a' or more, and of each that is more than 'z'.
        let from_a = word.wrapping_add(EACH * (0x80 - b'a' as u64));
        let beyond_z = word.wrapping_add(EACH * (0x7F - b'z' as u64));
        word ^ ((from_a ^ beyond_z) & HIGH) >> 2
    }))
}

fn fold_bytes(bytes: &[u8]) -> Packed {
    let mut out = Builder::new();
    if bytes.is_ascii() {
        out.push(bytes);
        out.written().make_ascii_uppercase();
        return out.finish();
    }
    let mut rest = bytes;
    while let Some((code_point, length)) = decode(rest) {
        match u16::try_from(code_point) {
            Ok(unit) => out.push_code_point(u32::from(upcase(unit))),
            Err(_) => out.push(&rest[..length]),
        }
        rest = &rest[length..];
    }
    debug_assert!(rest.is_empty(), "a Name is well-formed WTF-8");
    out.finish()
}

/// A name's folded form: equal, and of one hash, for all spellings that a [`Fold`] takes for the same name. At most 39 bytes are kept
/// inline; a longer one is shared on the heap. Ordered by its bytes (the lock order among names of one directory).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FoldedName(Packed);

impl FoldedName {
    /// The folded name in WTF-8.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn packed(&self) -> &Packed {
        &self.0
    }
}

/// A [`FoldedName`] on its way to what is kept under it: a short one in words, which stay in registers and need no heap.
pub(crate) enum Folded {
    Short(Words),
    Long(FoldedName),
}

impl Folded {
    #[inline]
    pub(crate) fn of(name: &FoldedName) -> Folded {
        name.0.words().map_or_else(|| Folded::Long(name.clone()), Folded::Short)
    }

    pub(crate) fn into_name(self) -> FoldedName {
        match self {
            Folded::Short(words) => FoldedName(Packed::from_words(words)),
            Folded::Long(name) => name,
        }
    }

    #[inline]
    pub(crate) fn is(&self, name: &FoldedName) -> bool {
        match self {
            Folded::Short(words) => name.0.words().is_some_and(|name| same_words(words, &name)),
            Folded::Long(long) => long == name,
        }
    }

    /// Feeds a hasher with it and with the number of what it is looked for in.
    #[inline]
    pub(crate) fn hash_within<H: Hasher>(&self, within: u64, state: &mut H) {
        let mut pair = |low: u64, high: u64| state.write_u128(u128::from(low) | u128::from(high) << 64);
        match self {
            // Of a fixed length. A hasher multiplies once a pair, and these do not wait for each other.
            Folded::Short([a, b, c, d, e]) => {
                pair(*a, *b);
                pair(*c, *d);
                pair(*e, within);
            }
            Folded::Long(name) => {
                state.write(name.as_bytes());
                state.write_u64(within);
            }
        }
    }
}

impl std::borrow::Borrow<[u8]> for FoldedName {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for FoldedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use proptest::prelude::*;

    use super::*;

    fn folded(name: &str) -> FoldedName {
        Fold::Insensitive.fold(&Name::from_str(name).unwrap())
    }

    #[test]
    fn the_table_is_the_pinned_one() {
        // FNV-1a, 64 bits, over the table in little endian.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in UPCASE.iter().flat_map(|unit| unit.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        assert_eq!(hash, 0x48ed_4531_e939_9927);
        assert_eq!((0..=u16::MAX).filter(|unit| upcase(*unit) != *unit).count(), 973);
    }

    #[test]
    fn folding_twice_is_folding_once() {
        for unit in 0..=u16::MAX {
            assert_eq!(upcase(upcase(unit)), upcase(unit), "{unit:#x}");
            if (0xD800..0xE000).contains(&unit) || (0xF000..0xF100).contains(&unit) {
                assert_eq!(upcase(unit), unit, "surrogates and the private-use map stay themselves");
            }
        }
    }

    #[test]
    fn what_windows_keeps_apart() {
        for (a, b) in [
            ("\u{b5}", "\u{39c}"),
            ("ı", "I"),
            ("ſ", "S"),
            ("ς", "Σ"),
            ("ß", "SS"),
            ("𐐨", "𐐀"),
            ("é", "e\u{301}"),
        ] {
            assert_ne!(folded(a), folded(b), "{a} {b}");
        }
        for (a, b) in [
            ("straße", "STRAßE"),
            ("ÿ", "Ÿ"),
            ("дом", "ДОМ"),
            ("ά", "Ά"),
            ("ａ", "Ａ"),
            ("ⅷ", "Ⅷ"),
            ("ⱥ", "Ⱥ"),
        ] {
            assert_eq!(folded(a), folded(b), "{a} {b}");
            assert!(Fold::Insensitive.eq(&Name::from_str(a).unwrap(), &Name::from_str(b).unwrap()));
            assert!(!Fold::Sensitive.eq(&Name::from_str(a).unwrap(), &Name::from_str(b).unwrap()));
        }
    }

    /// As the table is meant, by way of UTF-16 and with nothing of ours but the table. Of a name without lone surrogates.
    fn unit_by_unit(name: &Name) -> String {
        let units: Vec<u16> = name.to_utf16().into_iter().map(upcase).collect();
        String::from_utf16(&units).expect("no lone surrogates")
    }

    /// What is looked for under `folded` is what is kept under `slow`, and nothing else; and it hashes alike.
    fn assert_is(folded: &Folded, slow: &FoldedName) {
        let hash = |folded: &Folded| {
            let mut state = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
            folded.hash_within(7, &mut state);
            state.finish()
        };
        assert!(folded.is(slow), "{slow:?}");
        assert_eq!(hash(folded), hash(&Folded::of(slow)), "{slow:?}");
        let mut other = slow.as_bytes().to_vec();
        for at in 0..other.len() {
            other[at] ^= 1;
            assert!(!folded.is(&FoldedName(Packed::new(&other))), "{slow:?} with another byte {at}");
            other[at] ^= 1;
        }
        other.pop();
        assert!(!folded.is(&FoldedName(Packed::new(&other))), "{slow:?} without its last byte");
    }

    fn assert_both_ways(name: &Name) {
        let slow = FoldedName(fold_bytes(name.as_wtf8()));
        assert_is(&Fold::Insensitive.folded(name), &slow);
        assert_is(&Fold::Sensitive.folded(name), &FoldedName(name.packed().clone()));
        for (fold, expected) in [(Fold::Insensitive, slow.as_bytes()), (Fold::Sensitive, name.as_wtf8())] {
            assert_eq!(fold.fold(name).as_bytes(), expected);
            assert!(fold.fold(name) == FoldedName(Packed::new(expected)));
        }
    }

    #[test]
    fn the_fast_way_is_the_slow_way_wherever_a_character_stands() {
        for length in 1..=48 {
            for at in 0..length {
                for c in ('\u{20}'..'\u{7F}').chain(['\u{80}', 'é', 'ÿ', 'ж', 'ɐ', '\u{fffd}', '𝄞']) {
                    let mut text: Vec<char> = "aZ@[`{z".chars().cycle().take(length).collect();
                    text[at] = c;
                    let text: String = text.into_iter().collect();
                    let Ok(name) = Name::from_str(&text) else { continue };
                    assert_eq!(Fold::Insensitive.fold(&name).as_bytes(), unit_by_unit(&name).as_bytes());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_fast_way_is_the_slow_way(units in prop::collection::vec(
            prop_oneof![20 => 0x20..0x7Fu16, 1 => any::<u16>()], 1..=48))
        {
            if let Ok(name) = Name::from_utf16(&units) {
                assert_both_ways(&name);
                if String::from_utf16(&units).is_ok() {
                    let folded = Fold::Insensitive.fold(&name);
                    let expected = unit_by_unit(&name);
                    prop_assert_eq!(folded.as_bytes(), expected.as_bytes());
                }
            }
        }

        #[test]
        fn any_bytes_in_words(bytes in prop::collection::vec(
            prop_oneof![20 => 0..0x80u8, 1 => any::<u8>()], 0..=48))
        {
            let packed = Packed::new(&bytes);
            let Some(words) = packed.words() else {
                prop_assert!(bytes.len() > 39);
                return Ok(());
            };
            let back = Packed::from_words(words);
            prop_assert_eq!(back.as_bytes(), &bytes);
            let upper = bytes.is_ascii().then(|| bytes.to_ascii_uppercase());
            let folded = upcase_ascii(words).map(|words| Packed::from_words(words).as_bytes().to_vec());
            prop_assert_eq!(folded, upper);
        }
    }

    #[test]
    fn no_byte_beyond_ascii_is_overlooked() {
        for length in 0..=39 {
            let ascii = vec![b'k'; length];
            assert!(Packed::new(&ascii).words().and_then(upcase_ascii).is_some());
            for at in 0..length {
                let mut bytes = ascii.clone();
                bytes[at] = 0x80;
                assert!(Packed::new(&bytes).words().and_then(upcase_ascii).is_none(), "{at} of {length}");
            }
        }
    }

    #[test]
    fn a_key_is_small_and_inline() {
        assert_eq!(size_of::<FoldedName>(), 40);
        assert_eq!(folded("ReadMe.txt").as_bytes(), b"README.TXT");
        let long = "ä".repeat(200);
        assert_eq!(folded(&long).as_bytes(), "Ä".repeat(200).as_bytes());
        // A fold may lengthen a name: U+0250 has two bytes in UTF-8, its upper case three.
        assert_eq!(folded(&"\u{250}".repeat(19)).as_bytes(), "\u{2c6f}".repeat(19).as_bytes());
    }
}
