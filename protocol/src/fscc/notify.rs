//! Changes in a directory: FILE_NOTIFY_INFORMATION (MS-FSCC 2.7.1) and the filters of SMB2 CHANGE_NOTIFY (MS-SMB2
//! 2.2.35).

use bytes::{BufMut, Bytes};
use nom::Parser;

use super::chain::{Chain, Entries};
use crate::Malformed;
use crate::encode::put_utf16;
use crate::flags::flags;
use crate::parse::{self, Utf16};

flags! {
    /// CompletionFilter: which changes are reported (MS-SMB2 2.2.35).
    pub struct NotifyFilter: u32 {
        /// A file is created, renamed or deleted.
        FILE_NAME = 0x0001;
        /// A directory is created, renamed or deleted.
        DIR_NAME = 0x0002;
        /// Attributes change.
        ATTRIBUTES = 0x0004;
        /// A size changes.
        SIZE = 0x0008;
        /// The time of the last write changes.
        LAST_WRITE = 0x0010;
        /// The time of the last access changes.
        LAST_ACCESS = 0x0020;
        /// The time of creation changes.
        CREATION = 0x0040;
        /// Extended attributes change.
        EA = 0x0080;
        /// A descriptor changes.
        SECURITY = 0x0100;
        /// A stream is created, renamed or deleted.
        STREAM_NAME = 0x0200;
        /// A stream's size changes.
        STREAM_SIZE = 0x0400;
        /// A stream is written to.
        STREAM_WRITE = 0x0800;
        /// All that can be asked for.
        ALL = 0x0FFF;
    }
}

/// What happened to a file: MS-FSCC 2.7.1.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotifyAction {
    /// It came.
    Added = 1,
    /// It went.
    Removed = 2,
    /// It was changed.
    Modified = 3,
    /// It was renamed; this is the old name, and the next change says the new one.
    RenamedOldName = 4,
    /// The new name of the change before.
    RenamedNewName = 5,
    /// A stream came.
    AddedStream = 6,
    /// A stream went.
    RemovedStream = 7,
    /// A stream was changed.
    ModifiedStream = 8,
    /// An object id was taken away with its file.
    RemovedByDelete = 9,
    /// An object id could not be put back.
    IdNotTunnelled = 10,
    /// An object id was put back to another file.
    TunnelledIdCollision = 11,
}

impl TryFrom<u32> for NotifyAction {
    type Error = Malformed;

    fn try_from(value: u32) -> Result<NotifyAction, Malformed> {
        Ok(match value {
            1 => NotifyAction::Added,
            2 => NotifyAction::Removed,
            3 => NotifyAction::Modified,
            4 => NotifyAction::RenamedOldName,
            5 => NotifyAction::RenamedNewName,
            6 => NotifyAction::AddedStream,
            7 => NotifyAction::RemovedStream,
            8 => NotifyAction::ModifiedStream,
            9 => NotifyAction::RemovedByDelete,
            10 => NotifyAction::IdNotTunnelled,
            11 => NotifyAction::TunnelledIdCollision,
            _ => return Err(Malformed::Value("notify action")),
        })
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyInformation {
    /// What happened.
    pub action: NotifyAction,
    /// To what: a path below the watched directory.
    pub file_name: Utf16,
}

impl NotifyInformation {
    /// Bytes of an entry before its name.
    pub const FIXED: usize = 12;

    /// Reads all changes of a reply.
    ///
    /// Errors: `Truncated`, `Offset`, `Alignment`; `Value` for an unknown action; `Length` for half a unit.
    pub fn parse_all(input: &[u8]) -> Result<Vec<NotifyInformation>, Malformed> {
        let mut changes = Vec::new();
        for entry in Entries::new(input, 4, NotifyInformation::FIXED) {
            let (rest, (action, length)) = (parse::u32, parse::u32).parse(entry?)?;
            let (_, name) = parse::take(length as usize)(rest)?;
            changes.push(NotifyInformation { action: action.try_into()?, file_name: parse::utf16(name)? });
        }
        Ok(changes)
    }
}

/// Writes changes, at most as long as the client's buffer: entries begin at multiples of 4 bytes. Where one does not
/// fit, the reply is STATUS_NOTIFY_ENUM_DIR without any (MS-SMB2 3.3.4.4).
#[derive(Debug)]
pub struct NotifyEncoder(Chain);

impl NotifyEncoder {
    /// An empty list of at most `limit` bytes.
    pub fn new(limit: usize) -> NotifyEncoder {
        NotifyEncoder(Chain::new(4, limit))
    }

    /// Appends a change, unless it does not fit: then it gives false.
    pub fn push(&mut self, action: NotifyAction, name: &[u16]) -> bool {
        self.0.push(NotifyInformation::FIXED + name.len() * 2, |out| {
            out.put_u32_le(action as u32);
            out.put_u32_le((name.len() * 2) as u32);
            put_utf16(out, name);
        })
    }

    /// Whether there is no change yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The list.
    pub fn finish(self) -> Bytes {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: [u8; 32] = [
        16, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, b'a', 0, 0, 0, // renamed from a, 2 bytes of padding
        0, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, b'b', 0, b'c', 0,
    ];

    #[test]
    fn known_bytes() {
        let mut encoder = NotifyEncoder::new(32);
        assert!(encoder.push(NotifyAction::RenamedOldName, &[0x61]));
        assert!(encoder.push(NotifyAction::RenamedNewName, &[0x62, 0x63]));
        assert!(!encoder.push(NotifyAction::Added, &[]));
        assert_eq!(encoder.len(), 32);
        assert_eq!(encoder.finish()[..], KNOWN);
        let changes = NotifyInformation::parse_all(&KNOWN).unwrap();
        assert_eq!(changes[1].file_name, Utf16::from_str("bc"));
        assert_eq!(changes[0].action, NotifyAction::RenamedOldName);
        for length in 1..KNOWN.len() {
            assert!(NotifyInformation::parse_all(&KNOWN[..length]).is_err());
        }
    }

    proptest! {
        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = NotifyInformation::parse_all(&bytes);
        }
    }
}
