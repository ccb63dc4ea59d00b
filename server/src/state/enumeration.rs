//! Where a directory handle stands in its listing: Open.EnumerationLocation and EnumerationSearchPattern, MS-SMB2 3.3.1.10.

use std::collections::VecDeque;

use shoal_vfs::DirEntry;

use super::pattern::Pattern;

/// What comes next in a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// `.`
    #[default]
    Dot,
    /// `..`
    DotDot,
    /// What is in the directory.
    Names,
    /// Nothing.
    End,
}

/// A listing under way.
#[derive(Debug, Default)]
pub struct Enumeration {
    /// The pattern. None before the first query.
    pub pattern: Option<Pattern>,
    /// What comes next.
    pub stage: Stage,
    /// The position in the storage's listing from which more names are read.
    pub cookie: u64,
    /// Names that were read and not yet sent.
    pub read: VecDeque<DirEntry>,
    /// Whether any name was sent since the listing began.
    pub sent: bool,
}

impl Enumeration {
    /// Goes back to the beginning; with a new pattern, or that which it had.
    pub fn restart(&mut self, pattern: Option<Pattern>) {
        let pattern = pattern.or(self.pattern.take());
        *self = Enumeration { pattern, ..Enumeration::default() };
    }
}
