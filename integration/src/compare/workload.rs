//! What the servers race in, and how many operations a turn has.

use crate::load::{Mix, Protection};

/// Names in a directory before the run.
pub const NAMES: usize = 2_000;

/// One of the things that servers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// CREATE of a new name, and CLOSE.
    CreateClose,
    /// CREATE that opens a name, and CLOSE.
    OpenClose,
    /// CREATE that opens a name which is not there in any case, another each time.
    OpenAbsent,
    /// The same in a directory of 100,000 names.
    OpenAbsentLarge,
    /// SET_INFO that renames an open file.
    Rename,
    /// CREATE with DELETE_ON_CLOSE, and CLOSE.
    Unlink,
    /// ECHO.
    Echo,
    /// READ of 4 KiB.
    Read4k,
    /// WRITE of 4 KiB.
    Write4k,
    /// READ of 1 MiB, neither signed nor encrypted.
    Read1mPlain,
    /// READ of 1 MiB, signed.
    Read1mSigned,
    /// READ of 1 MiB, encrypted.
    Read1mEncrypted,
    /// WRITE of 1 MiB, neither signed nor encrypted.
    Write1mPlain,
    /// WRITE of 1 MiB, signed.
    Write1mSigned,
    /// WRITE of 1 MiB, encrypted.
    Write1mEncrypted,
    /// QUERY_DIRECTORY until the directory of 100,000 names has been listed.
    List,
    /// ECHO right behind each QUERY_DIRECTORY of such a listing.
    EchoBehindList,
    /// What a server holds with no client.
    MemoryIdle,
    /// What it holds more for each more client that is logged in and idle, after the first ones.
    MemoryPerConnection,
}

impl Workload {
    /// All, in the order of the table.
    pub const ALL: &[Workload] = &[
        Workload::CreateClose,
        Workload::OpenClose,
        Workload::OpenAbsent,
        Workload::OpenAbsentLarge,
        Workload::Rename,
        Workload::Unlink,
        Workload::Echo,
        Workload::Read4k,
        Workload::Write4k,
        Workload::Read1mPlain,
        Workload::Read1mSigned,
        Workload::Read1mEncrypted,
        Workload::Write1mPlain,
        Workload::Write1mSigned,
        Workload::Write1mEncrypted,
        Workload::List,
        Workload::EchoBehindList,
        Workload::MemoryIdle,
        Workload::MemoryPerConnection,
    ];

    /// Its name in tables, lines and arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Workload::CreateClose => "create+close",
            Workload::OpenClose => "open+close",
            Workload::OpenAbsent => "open-absent",
            Workload::OpenAbsentLarge => "open-absent-100k",
            Workload::Rename => "rename",
            Workload::Unlink => "unlink",
            Workload::Echo => "echo",
            Workload::Read4k => "read-4k",
            Workload::Write4k => "write-4k",
            Workload::Read1mPlain => "read-1m-plain",
            Workload::Read1mSigned => "read-1m-signed",
            Workload::Read1mEncrypted => "read-1m-encrypted",
            Workload::Write1mPlain => "write-1m-plain",
            Workload::Write1mSigned => "write-1m-signed",
            Workload::Write1mEncrypted => "write-1m-encrypted",
            Workload::List => "list-100k",
            Workload::EchoBehindList => "echo-behind-list",
            Workload::MemoryIdle => "memory-idle",
            Workload::MemoryPerConnection => "memory-per-connection",
        }
    }

    /// The load that it is, unless it is something of its own.
    pub const fn mix(self) -> Option<Mix> {
        Some(match self {
            Workload::CreateClose => Mix::Create,
            Workload::OpenClose => Mix::OpenClose,
            Workload::OpenAbsent => Mix::OpenAbsent,
            Workload::Rename => Mix::Rename,
            Workload::Unlink => Mix::Unlink,
            Workload::Echo => Mix::Echo,
            Workload::Read4k => Mix::Read(4 << 10),
            Workload::Write4k => Mix::Write(4 << 10),
            Workload::Read1mPlain | Workload::Read1mSigned | Workload::Read1mEncrypted => Mix::Read(1 << 20),
            Workload::Write1mPlain | Workload::Write1mSigned | Workload::Write1mEncrypted => {
                Mix::Write(1 << 20)
            }
            Workload::OpenAbsentLarge
            | Workload::List
            | Workload::EchoBehindList
            | Workload::MemoryIdle
            | Workload::MemoryPerConnection => return None,
        })
    }

    /// How its requests are protected.
    pub const fn protection(self) -> Protection {
        match self {
            Workload::Read1mPlain | Workload::Write1mPlain => Protection::Plain,
            Workload::Read1mEncrypted | Workload::Write1mEncrypted => Protection::Encrypted,
            _ => Protection::Signed,
        }
    }

    /// Whether it needs the large directory.
    pub const fn is_large(self) -> bool {
        matches!(self, Workload::OpenAbsentLarge | Workload::List | Workload::EchoBehindList)
    }

    /// Whether it is about memory, and so no client's turn.
    pub const fn is_memory(self) -> bool {
        matches!(self, Workload::MemoryIdle | Workload::MemoryPerConnection)
    }

    /// Names in the directory of a turn.
    pub const fn names(self) -> usize {
        match self {
            Workload::CreateClose
            | Workload::OpenClose
            | Workload::OpenAbsent
            | Workload::Rename
            | Workload::Unlink => NAMES,
            _ => 0,
        }
    }

    /// Operations in a turn of the quick run: of a server whose names cost the same however many there are, and of one
    /// that scans directories, which would otherwise sit there for minutes. (Its directory then grows less, to its
    /// advantage; its time is kept in nanoseconds, so that fewer operations say as much.)
    pub const fn operations(self, scans: bool) -> u64 {
        match (self, scans) {
            (Workload::CreateClose | Workload::Rename | Workload::Unlink, true) => 300,
            (Workload::OpenClose | Workload::OpenAbsent, true) => 600,
            (Workload::OpenAbsentLarge, true) => 12,
            (Workload::Echo | Workload::Read4k | Workload::Write4k, _) => 3_000,
            // Listings.
            (Workload::EchoBehindList, false) => 4,
            (Workload::List | Workload::EchoBehindList, _) => 1,
            (Workload::MemoryIdle | Workload::MemoryPerConnection, _) => 0,
            (
                Workload::Read1mPlain
                | Workload::Read1mSigned
                | Workload::Read1mEncrypted
                | Workload::Write1mPlain
                | Workload::Write1mSigned
                | Workload::Write1mEncrypted,
                _,
            ) => 200,
            (_, false) => 3_000,
        }
    }

    /// Operations before those that count: the server then has the directory at hand, and its code and the client's are
    /// in the processor's caches. (Every server's listings are measured from the first on.)
    pub const fn warm_up(self, scans: bool) -> u64 {
        match (self, scans) {
            (Workload::OpenAbsentLarge, true) => 2,
            (Workload::CreateClose | Workload::Rename | Workload::Unlink, true) => 30,
            _ => 200,
        }
    }
}

impl std::str::FromStr for Workload {
    type Err = String;

    fn from_str(name: &str) -> Result<Workload, String> {
        Workload::ALL.iter().copied().find(|workload| workload.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Workload::ALL.iter().map(|workload| workload.name()).collect();
            format!("there are: {}", names.join(", "))
        })
    }
}
