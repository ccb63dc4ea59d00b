//! File attributes: MS-FSCC 2.6.

use crate::flags::flags;

flags! {
    /// Attributes of a file or directory. None at all means "as they are" in a set, and NORMAL in a reply.
    pub struct FileAttributes: u32 {
        /// The file is not written to.
        READONLY = 0x0000_0001;
        /// Not listed as a rule.
        HIDDEN = 0x0000_0002;
        /// Part of the operating system.
        SYSTEM = 0x0000_0004;
        /// A directory.
        DIRECTORY = 0x0000_0010;
        /// To be archived: set whenever the file is changed.
        ARCHIVE = 0x0000_0020;
        /// A device; not used over the wire.
        DEVICE = 0x0000_0040;
        /// None of the others.
        NORMAL = 0x0000_0080;
        /// Temporary: better kept in memory.
        TEMPORARY = 0x0000_0100;
        /// Ranges that were never written take no space.
        SPARSE_FILE = 0x0000_0200;
        /// A reparse point: a symbolic link or the like.
        REPARSE_POINT = 0x0000_0400;
        /// Stored compressed.
        COMPRESSED = 0x0000_0800;
        /// The data is not at hand.
        OFFLINE = 0x0000_1000;
        /// Not to be indexed by a content indexer.
        NOT_CONTENT_INDEXED = 0x0000_2000;
        /// Stored encrypted.
        ENCRYPTED = 0x0000_4000;
        /// Protected by integrity streams.
        INTEGRITY_STREAM = 0x0000_8000;
        /// Not read by a scrubber.
        NO_SCRUB_DATA = 0x0002_0000;
        /// Opening it recalls it from remote storage.
        RECALL_ON_OPEN = 0x0004_0000;
        /// To be kept at hand.
        PINNED = 0x0008_0000;
        /// Need not be kept at hand.
        UNPINNED = 0x0010_0000;
        /// Reading its data recalls it from remote storage.
        RECALL_ON_DATA_ACCESS = 0x0040_0000;
    }
}

impl FileAttributes {
    /// What a client may set on an existing file; the rest is what the file is, or has its own control code.
    pub const SETTABLE: FileAttributes = FileAttributes(
        FileAttributes::READONLY.0
            | FileAttributes::HIDDEN.0
            | FileAttributes::SYSTEM.0
            | FileAttributes::ARCHIVE.0
            | FileAttributes::TEMPORARY.0
            | FileAttributes::OFFLINE.0
            | FileAttributes::NOT_CONTENT_INDEXED.0,
    );

    /// The attributes as a reply states them: NORMAL stands if, and only if, no other does (2.6).
    pub const fn or_normal(self) -> FileAttributes {
        match self.0 & !FileAttributes::NORMAL.0 {
            0 => FileAttributes::NORMAL,
            others => FileAttributes(others),
        }
    }

    /// Whether DIRECTORY is set.
    pub const fn is_directory(self) -> bool {
        self.0 & FileAttributes::DIRECTORY.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_stands_alone() {
        assert_eq!(FileAttributes(0).or_normal(), FileAttributes::NORMAL);
        assert_eq!(FileAttributes(0x80).or_normal(), FileAttributes::NORMAL);
        assert_eq!(FileAttributes(0xA0).or_normal(), FileAttributes::ARCHIVE);
    }
}
