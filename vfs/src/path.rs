//! Paths: names below a root. A path never leads upwards: dot directories are no names (MS-FSCC 2.1.5.1).

use crate::name::{Name, NameError};
use std::fmt;

/// A path below a share's root; with no component, the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(Vec<Name>);

impl Path {
    /// The root.
    pub const fn root() -> Path {
        Path(Vec::new())
    }

    /// A client's path, its components parted by `\`. One `\` at the end is passed over, as Windows does for a directory. Whether one may
    /// stand at the beginning (not in an SMB2 CREATE) is for the server to say: here it is an empty component.
    ///
    /// # Errors
    /// What is wrong with the first component that is no name.
    pub fn from_utf16(units: &[u16]) -> Result<Path, NameError> {
        const SEPARATOR: u16 = b'\\' as u16;
        let units = units.strip_suffix(&[SEPARATOR]).unwrap_or(units);
        if units.is_empty() {
            return Ok(Path::root());
        }
        units.split(|unit| *unit == SEPARATOR).map(Name::from_utf16).collect::<Result<_, _>>().map(Path)
    }

    /// The components, from the root on.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// Is this the root itself?
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components before the last, and the last; None for the root.
    pub fn parent_and_last(&self) -> Option<(&[Name], &Name)> {
        self.0.split_last().map(|(last, parent)| (parent, last))
    }

    /// Goes one component down.
    pub fn push(&mut self, name: Name) {
        self.0.push(name);
    }
}

impl From<Vec<Name>> for Path {
    fn from(names: Vec<Name>) -> Path {
        Path(names)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\\" };
            write!(f, "{separator}{name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Result<Path, NameError> {
        Path::from_utf16(&text.encode_utf16().collect::<Vec<_>>())
    }

    #[test]
    fn splits_at_backslashes() {
        assert!(path("").unwrap().is_root());
        assert!(path("\\").unwrap().is_root());
        assert!(path("").unwrap().parent_and_last().is_none());
        let deep = path("a\\b c\\d\\").unwrap();
        assert_eq!(deep.to_string(), "a\\b c\\d");
        let (parent, last) = deep.parent_and_last().unwrap();
        assert_eq!((parent.len(), last.to_string()), (2, "d".to_owned()));
    }

    #[test]
    fn no_path_leads_out() {
        for (text, error) in [
            ("..", NameError::Dot),
            ("a\\..\\..\\b", NameError::Dot),
            ("a\\.\\b", NameError::Dot),
            ("a\\\u{f02e}", NameError::Dot),
            ("\\a", NameError::Empty),
            ("a\\\\b", NameError::Empty),
            ("a/../../b", NameError::Forbidden),
            ("a\\b\0", NameError::Forbidden),
        ] {
            assert_eq!(path(text), Err(error), "{text:?}");
        }
    }
}
