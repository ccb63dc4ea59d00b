//! Search patterns with the meanings that DOS gave them: MS-FSA 2.1.4.4.
//!
//! Matched as an automaton that is in many places of the pattern at once: the time is bounded by the name's length times
//! the pattern's, in words of 64 places, whatever the pattern. There is no backtracking that a pattern could provoke.

use shoal_protocol::NtStatus;
use shoal_vfs::fold::upcase;

/// Longest pattern taken, in UTF-16 units, runs of `*` counted once. No longer pattern can match any name but by
/// stars and DOS wildcards that match nothing.
const PATTERN_MAX: usize = 255;

const WORDS: usize = PATTERN_MAX / 64 + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// This unit, in any case.
    Unit(u16),
    /// `*`: any run of units, none too.
    Star,
    /// `?`: one unit.
    One,
    /// `<`, DOS_STAR: any run that does not take the name's last dot.
    DosStar,
    /// `>`, DOS_QM: one unit; before a dot and at the end also none.
    DosOne,
    /// `"`, DOS_DOT: a dot, or nothing at the end.
    DosDot,
}

/// A search pattern, ready to be matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pieces: Vec<Piece>,
    /// The pattern as written, if there is no wildcard in it.
    plain: Option<Vec<u16>>,
    sensitive: bool,
}

impl Pattern {
    /// Reads a pattern. An empty one is `*`. OBJECT_NAME_INVALID for what cannot stand in one.
    pub fn parse(units: &[u16], sensitive: bool) -> Result<Pattern, NtStatus> {
        let fold = |unit| if sensitive { unit } else { upcase(unit) };
        let mut pieces = Vec::with_capacity(units.len().min(PATTERN_MAX));
        for &unit in units {
            let piece = match u8::try_from(unit) {
                Ok(b'*') => Piece::Star,
                Ok(b'?') => Piece::One,
                Ok(b'<') => Piece::DosStar,
                Ok(b'>') => Piece::DosOne,
                Ok(b'"') => Piece::DosDot,
                Ok(0 | b'\\' | b'/' | b':' | b'|') => return Err(NtStatus::OBJECT_NAME_INVALID),
                _ => Piece::Unit(fold(unit)),
            };
            if piece == Piece::Star && pieces.last() == Some(&Piece::Star) {
                continue;
            }
            if pieces.len() == PATTERN_MAX {
                return Err(NtStatus::OBJECT_NAME_INVALID);
            }
            pieces.push(piece);
        }
        if pieces.is_empty() {
            pieces.push(Piece::Star);
        }
        let plain = pieces.iter().all(|piece| matches!(piece, Piece::Unit(_))).then(|| units.to_vec());
        Ok(Pattern { pieces, plain, sensitive })
    }

    /// Whether every name matches.
    pub fn is_all(&self) -> bool {
        self.pieces == [Piece::Star]
    }

    /// The name that it is, if there is no wildcard in it: one lookup then answers for the whole directory.
    pub fn plain(&self) -> Option<&[u16]> {
        self.plain.as_deref()
    }

    /// Whether `name` matches.
    pub fn matches(&self, name: &[u16]) -> bool {
        if self.is_all() {
            return true;
        }
        if self.plain.is_some() {
            return name.len() == self.pieces.len()
                && name
                    .iter()
                    .zip(&self.pieces)
                    .all(|(&unit, piece)| *piece == Piece::Unit(self.fold(unit)));
        }
        let last_dot = name.iter().rposition(|&unit| unit == u16::from(b'.'));
        let mut places = Places::default();
        places.add(0);
        for (at, &unit) in name.iter().enumerate() {
            places.close(&self.pieces, Some(unit));
            places = places.step(&self.pieces, self.fold(unit), last_dot == Some(at));
            if places.is_empty() {
                return false;
            }
        }
        places.close(&self.pieces, None);
        places.contains(self.pieces.len())
    }

    fn fold(&self, unit: u16) -> u16 {
        if self.sensitive { unit } else { upcase(unit) }
    }
}

/// A set of places in a pattern: before piece 0, before piece 1, ... behind the last.
#[derive(Clone, Copy, Default)]
struct Places([u64; WORDS]);

impl Places {
    fn add(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn contains(&self, place: usize) -> bool {
        self.0[place / 64] & (1 << (place % 64)) != 0
    }

    fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// Adds the places that are reached without taking a unit, when `next` is the unit that comes (None: the end).
    fn close(&mut self, pieces: &[Piece], next: Option<u16>) {
        // Ascending: a place that is added is looked at afterwards.
        for word in 0..WORDS {
            let mut seen = 0;
            loop {
                let fresh = self.0[word] & !seen;
                if fresh == 0 {
                    break;
                }
                let bit = fresh.trailing_zeros() as usize;
                seen |= 1 << bit;
                let place = word * 64 + bit;
                let passes = match pieces.get(place) {
                    Some(Piece::Star | Piece::DosStar) => true,
                    Some(Piece::DosOne) => next.is_none_or(|unit| unit == u16::from(b'.')),
                    Some(Piece::DosDot) => next.is_none(),
                    Some(Piece::Unit(_) | Piece::One) | None => false,
                };
                if passes {
                    self.add(place + 1);
                }
            }
        }
    }

    /// The places after `unit` (folded) was taken.
    fn step(&self, pieces: &[Piece], unit: u16, is_last_dot: bool) -> Places {
        let mut after = Places::default();
        for word in 0..WORDS {
            let mut left = self.0[word];
            while left != 0 {
                let place = word * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                let is_dot = unit == u16::from(b'.');
                match pieces.get(place) {
                    Some(Piece::Unit(wanted)) if *wanted == unit => after.add(place + 1),
                    Some(Piece::One) => after.add(place + 1),
                    Some(Piece::Star) => after.add(place),
                    Some(Piece::DosStar) if !is_last_dot => after.add(place),
                    Some(Piece::DosOne) if !is_dot => after.add(place + 1),
                    Some(Piece::DosDot) if is_dot => after.add(place + 1),
                    _ => {}
                }
            }
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(&units(pattern), false).expect("a pattern of the table").matches(&units(name))
    }

    #[test]
    fn table() {
        for (pattern, name, expected) in [
            ("*", "anything", true),
            ("", "anything", true),
            ("**", "x", true),
            ("abc", "ABC", true),
            ("abc", "abcd", false),
            ("a*", "a", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbcd", false),
            ("*.txt", "a.txt", true),
            ("*.txt", "a.b.TXT", true),
            ("*.txt", "txt", false),
            ("*.*", "a.b", true),
            ("*.*", "ab", false),
            ("?", "a", true),
            ("?", "", false),
            ("?", "ab", false),
            ("a?c", "abc", true),
            ("???", "ab", false),
            // DOS_QM: what a command line's ? becomes
            (">>>", "ab", true),
            (">>>", "abcd", false),
            ("a>>.txt", "a.txt", true),
            ("a>>.txt", "abc.txt", true),
            ("a>>.txt", "abcd.txt", false),
            // DOS_STAR and DOS_DOT: what *. and *.* become
            ("<.txt", "a.b.txt", true),
            ("<.b", "a.b.txt", false),
            ("<", "ab", true),
            ("<\"*", "ab", true),
            ("<\"*", "a.b.c", true),
            ("<.", "ab", false),
            ("a\"", "a", true),
            ("a\"", "a.", true),
            ("a\"b", "a.b", true),
            ("a\"b", "ab", false),
            ("*\"", "abc", true),
            ("<\">>>", "name.ext", true),
            ("<\">>>", "name.exte", false),
            ("<\">>>", "name", true),
            ("\u{e4}*", "\u{c4}b", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn case_can_matter() {
        let pattern = Pattern::parse(&units("a*"), true).unwrap();
        assert!(pattern.matches(&units("ab")) && !pattern.matches(&units("AB")));
    }

    #[test]
    fn separators_are_no_pattern() {
        for text in ["a\\b", "a/b", "a:b", "a|b", "\0"] {
            assert_eq!(Pattern::parse(&units(text), false), Err(NtStatus::OBJECT_NAME_INVALID), "{text:?}");
        }
        assert!(Pattern::parse(&units(&"*a".repeat(200)), false).is_err());
        assert!(Pattern::parse(&units(&"*".repeat(5000)), false).unwrap().is_all());
    }

    /// Attack 22: patterns that would take a backtracking matcher for ever.
    #[test]
    fn hostile_patterns_take_bounded_time() {
        let name = units(&"a".repeat(255));
        for pattern in ["*a", "<a", "*?", "<>", ">*"] {
            let mut text = pattern.repeat(120);
            text.push('b');
            let pattern = Pattern::parse(&units(&text), false).unwrap();
            let begin = Instant::now();
            assert!(!pattern.matches(&name));
            assert!(begin.elapsed() < Duration::from_millis(100), "{text}");
        }
    }
}
