//! The name in a CREATE, and the new name of a rename or link: MS-SMB2 2.2.13 and 3.3.5.9, MS-FSCC 2.1.5.
//!
//! The one place where a client's name becomes a path below the share's root and a stream of what is there.

use shoal_protocol::NtStatus;
use shoal_vfs::{Name, Path};

use crate::state::file::StreamName;

const BACKSLASH: u16 = b'\\' as u16;
const SLASH: u16 = b'/' as u16;
const COLON: u16 = b':' as u16;
const PARENT: [u16; 2] = [b'.' as u16; 2];

/// Most UTF-16 units of a path that a client may send: what Windows can make of a path (MS-FSCC 2.1.5).
const PATH_UNITS_MAX: usize = 32_760;

/// What a client's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedName {
    /// The path below the share's root; with no component the root itself.
    pub path: Path,
    /// The stream of what is there.
    pub stream: StreamName,
    /// A stream was named, even if only as `::$DATA`: it cannot be a directory then.
    pub names_data: bool,
    /// The name ended with a separator: it can only be a directory.
    pub names_directory: bool,
}

/// Reads the name of a CREATE, or the new name of a rename or link.
///
/// A separator at the beginning is INVALID_PARAMETER (3.3.5.9: "If the file name in the Buffer field ... begins with a backslash"),
/// a name that no Windows file can have OBJECT_NAME_INVALID, and a step above the root OBJECT_PATH_SYNTAX_BAD.
pub fn parse(units: &[u16]) -> Result<ParsedName, NtStatus> {
    if units.first().is_some_and(|&unit| is_separator(unit)) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if units.len() > PATH_UNITS_MAX {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    let (units, names_directory) = match units.split_last() {
        Some((&last, before)) if is_separator(last) => (before, true),
        _ => (units, false),
    };
    if units.is_empty() {
        let root = ParsedName {
            path: Path::root(),
            stream: StreamName::Unnamed,
            names_data: false,
            names_directory,
        };
        return Ok(root);
    }
    let (units, stream, names_data) = split_stream(units)?;
    let mut names = Vec::new();
    for units in units.split(|&unit| is_separator(unit)) {
        // A step upwards takes the last component back: that is done here, with the names alone, and never above the root.
        if units == PARENT {
            names.pop().ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)?;
        } else {
            names.push(Name::from_utf16(units).map_err(|_| NtStatus::OBJECT_NAME_INVALID)?);
        }
    }
    Ok(ParsedName { path: Path::from(names), stream, names_data, names_directory })
}

/// The wire has `\` (3.3.5.9). `/` is taken too, as Samba does and smbtorture expects: no name can hold it.
fn is_separator(unit: u16) -> bool {
    unit == BACKSLASH || unit == SLASH
}

/// Splits `name:stream:type` off the last component (MS-FSCC 2.1.5.3). This server has the unnamed stream only.
fn split_stream(units: &[u16]) -> Result<(&[u16], StreamName, bool), NtStatus> {
    // Without a way out of the loop, so that it takes several units at a time.
    if !units.iter().fold(false, |any, &unit| any | (unit == COLON)) {
        return Ok((units, StreamName::Unnamed, false));
    }
    let last = units.iter().rposition(|&unit| is_separator(unit)).map_or(0, |at| at + 1);
    let Some(colon) = units[last..].iter().position(|&unit| unit == COLON) else {
        return Ok((units, StreamName::Unnamed, false));
    };
    let (name, rest) = (&units[..last + colon], &units[last + colon + 1..]);
    let mut parts = rest.splitn(2, |&unit| unit == COLON);
    let (stream, kind) = (parts.next().unwrap_or_default(), parts.next());
    let is_data = kind.is_none_or(|kind| String::from_utf16_lossy(kind).eq_ignore_ascii_case("$DATA"));
    if stream.is_empty() && kind.is_some() && is_data && colon > 0 {
        return Ok((name, StreamName::Unnamed, true));
    }
    // Named streams are refused here and nowhere else: as a file system without them does.
    Err(NtStatus::OBJECT_NAME_INVALID)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ParsedName, NtStatus> {
        parse(&text.encode_utf16().collect::<Vec<_>>())
    }

    #[test]
    fn good_names() {
        for (text, path, data, directory) in [
            ("", "", false, false),
            ("a", "a", false, false),
            ("a\\b c\\D.txt", "a\\b c\\D.txt", false, false),
            ("a/b", "a\\b", false, false),
            ("dir\\", "dir", false, true),
            ("a::$DATA", "a", true, false),
            ("a\\b::$data", "a\\b", true, false),
            ("a.", "a.", false, false),
            ("...", "...", false, false),
            ("a\\..\\b", "b", false, false),
            ("a\\b\\..", "a", false, false),
            ("a\\..", "", false, false),
        ] {
            let name = parsed(text).unwrap_or_else(|status| panic!("{text:?}: {status}"));
            assert_eq!((name.names_data, name.names_directory), (data, directory), "{text:?}");
            let shown = name.path.to_string().replace('\u{f02e}', ".");
            assert_eq!(shown, path, "{text:?}");
        }
    }

    #[test]
    fn bad_names() {
        let long = "x".repeat(256);
        for (text, status) in [
            ("\\", NtStatus::INVALID_PARAMETER),
            ("\\a", NtStatus::INVALID_PARAMETER),
            ("/a", NtStatus::INVALID_PARAMETER),
            ("a\\\\b", NtStatus::OBJECT_NAME_INVALID),
            (".", NtStatus::OBJECT_NAME_INVALID),
            ("..", NtStatus::OBJECT_PATH_SYNTAX_BAD),
            ("a\\..\\..\\b", NtStatus::OBJECT_PATH_SYNTAX_BAD),
            ("a*", NtStatus::OBJECT_NAME_INVALID),
            ("a?b", NtStatus::OBJECT_NAME_INVALID),
            ("a<b", NtStatus::OBJECT_NAME_INVALID),
            ("a>b", NtStatus::OBJECT_NAME_INVALID),
            ("a\"b", NtStatus::OBJECT_NAME_INVALID),
            ("a|b", NtStatus::OBJECT_NAME_INVALID),
            ("a\u{1}b", NtStatus::OBJECT_NAME_INVALID),
            ("a\0b", NtStatus::OBJECT_NAME_INVALID),
            (&long, NtStatus::OBJECT_NAME_INVALID),
            ("a:b", NtStatus::OBJECT_NAME_INVALID),
            ("a:b:$DATA", NtStatus::OBJECT_NAME_INVALID),
            ("a:", NtStatus::OBJECT_NAME_INVALID),
            ("a::", NtStatus::OBJECT_NAME_INVALID),
            ("a::$INDEX_ALLOCATION", NtStatus::OBJECT_NAME_INVALID),
            ("a:b:c:d", NtStatus::OBJECT_NAME_INVALID),
            (":b", NtStatus::OBJECT_NAME_INVALID),
            ("::$DATA", NtStatus::OBJECT_NAME_INVALID),
            ("a:b\\c", NtStatus::OBJECT_NAME_INVALID),
        ] {
            assert_eq!(parsed(text), Err(status), "{text:?}");
        }
    }

    #[test]
    fn the_longest_component_is_taken() {
        assert!(parsed(&"x".repeat(255)).is_ok());
    }
}
