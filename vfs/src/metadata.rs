//! What is known of an object: its identity, kind, sizes, times and DOS attributes.

use std::time::{SystemTime, UNIX_EPOCH};

/// What sort of object a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link. It is never followed.
    Symlink,
    /// A device, FIFO or socket. It is never opened.
    Special,
}

/// The identity of an object on its storage: the same for each of its names, and while it lives never another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    /// The storage; no two storages of a process share one.
    pub device: u64,
    /// The number of the object there.
    pub inode: u64,
    /// Tells two lives of one inode number apart; zero where the storage has nothing of the sort.
    pub generation: u64,
}

/// A point in time: seconds since 1970 (negative: before) and nanoseconds below one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub secs: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanos: u32,
}

impl Timestamp {
    /// The time of `secs` seconds and `nanos` nanoseconds.
    pub const fn new(secs: i64, nanos: u32) -> Timestamp {
        Timestamp { secs, nanos }
    }

    /// The wall clock now.
    pub fn now() -> Timestamp {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp::new(since.as_secs() as i64, since.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => Timestamp::new(-(before.as_secs() as i64), 0),
                    nanos => Timestamp::new(-(before.as_secs() as i64) - 1, 1_000_000_000 - nanos),
                }
            }
        }
    }
}

/// What is stored of a file's DOS side, in the words of MS-FSCC 2.6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DosAttributes {
    /// READONLY 1, HIDDEN 2, SYSTEM 4, ARCHIVE 0x20 and so on, as stored.
    pub attributes: u32,
    /// The creation time, if it was set and is not the storage's own.
    pub creation_time: Option<Timestamp>,
}

/// All that one look at an object tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its identity.
    pub key: BackendKey,
    /// Its kind.
    pub kind: Kind,
    /// Its length in bytes.
    pub size: u64,
    /// The bytes of storage it takes.
    pub allocated: u64,
    /// How many names it has. Zero: removed, and kept by opens alone.
    pub links: u32,
    /// The permission bits of its POSIX mode.
    pub mode: u32,
    /// When it was last read.
    pub accessed: Timestamp,
    /// When its contents last changed.
    pub modified: Timestamp,
    /// When anything of it last changed.
    pub changed: Timestamp,
    /// When the storage made it, if the storage knows.
    pub born: Option<Timestamp>,
    /// The DOS side; `None`: nothing is stored, the defaults hold.
    pub dos: Option<DosAttributes>,
}

/// A change to an object's metadata; what is `None` stays. The change time is the storage's own affair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetMetadata {
    /// The new access time.
    pub accessed: Option<Timestamp>,
    /// The new modification time.
    pub modified: Option<Timestamp>,
    /// The new permission bits.
    pub mode: Option<u32>,
    /// The new length: cut off, or filled up with a hole.
    pub size: Option<u64>,
    /// The new DOS side.
    pub dos: Option<DosAttributes>,
}

/// The storage that a tree lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Bytes of the whole.
    pub total_bytes: u64,
    /// Bytes free.
    pub free_bytes: u64,
    /// Bytes free to the server's own identity.
    pub available_bytes: u64,
    /// Bytes of an allocation unit.
    pub block_size: u32,
    /// A number that stays the same for the storage's life.
    pub serial: u32,
    /// Its label.
    pub label: String,
    /// What sort of file system it is, as the system calls it.
    pub fs_type: String,
    /// The longest name, in units of a client (UTF-16).
    pub name_max: u32,
    /// Whether files may have holes.
    pub sparse: bool,
}
