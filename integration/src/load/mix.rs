//! The mixes: what one operation of each is.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::random::Random;

/// What the clients do, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// ECHO.
    Echo,
    /// CREATE of a file that is not there, and its CLOSE.
    Create,
    /// CREATE of one of the names that are there, and its CLOSE.
    OpenClose,
    /// CREATE of a name that is not there, another each time, and the error.
    OpenAbsent,
    /// SET_INFO that renames an open file, to another name each time.
    Rename,
    /// CREATE of a file that is there with FILE_DELETE_ON_CLOSE, and its CLOSE.
    Unlink,
    /// CREATE, QUERY_INFO and CLOSE of one of the names, as a chain in one frame.
    Stat,
    /// QUERY_DIRECTORY from the beginning until STATUS_NO_MORE_FILES, 64 KiB at a time, on an open directory.
    List,
    /// READ of so many bytes from an open file.
    Read(u32),
    /// WRITE of so many bytes to an open file.
    Write(u32),
    /// A file of an archive: CREATE, WRITE, SET_INFO of its times, CLOSE; a directory before every fiftieth.
    Untar,
    /// As people work with documents: of 100 operations 35 stat, 25 open, read 16 KiB and close, 10 list the directory,
    /// 5 look for a name that is absent, 10 open, write 4 KiB and close, 10 save (a temporary file made, written and
    /// renamed over the document), 5 set times.
    Office,
}

impl Mix {
    /// Every mix, with the sizes that the command line knows.
    pub const ALL: [Mix; 16] = [
        Mix::Echo,
        Mix::Create,
        Mix::OpenClose,
        Mix::OpenAbsent,
        Mix::Rename,
        Mix::Unlink,
        Mix::Stat,
        Mix::List,
        Mix::Read(4 << 10),
        Mix::Read(64 << 10),
        Mix::Read(1 << 20),
        Mix::Write(4 << 10),
        Mix::Write(64 << 10),
        Mix::Write(1 << 20),
        Mix::Untar,
        Mix::Office,
    ];

    /// Whether an operation moves a MiB, or lists a directory.
    pub fn is_large(self) -> bool {
        matches!(self, Mix::List | Mix::Read(0x10_0000..) | Mix::Write(0x10_0000..))
    }

    /// Names that must be in a directory for it.
    pub(super) fn names_min(self) -> usize {
        match self {
            Mix::OpenClose | Mix::Stat | Mix::Office => 64,
            Mix::List => 1_000,
            _ => 0,
        }
    }

    /// Whether operations use up files, or leave some behind.
    pub(super) fn uses_material(self) -> bool {
        matches!(self, Mix::Create | Mix::Unlink | Mix::Untar)
    }

    /// The longest content that is written at once.
    pub(super) fn payload_max(self) -> usize {
        match self {
            Mix::Read(size) | Mix::Write(size) => size as usize,
            Mix::Untar | Mix::Office => 64 << 10,
            _ => 0,
        }
    }

    /// The length of the file that a lane of so many reads or writes: all together about 64 MiB, and 16 requests at most.
    pub(super) fn span(self, lanes: usize) -> u64 {
        match self {
            Mix::Read(size) | Mix::Write(size) => {
                let size = u64::from(size);
                ((64 << 20) / lanes as u64 / size).clamp(1, 16) * size
            }
            _ => 0,
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |f: &mut fmt::Formatter<'_>, verb: &str, size: u32| match size {
            size if size.is_multiple_of(1 << 20) => write!(f, "{verb}-{}m", size >> 20),
            size => write!(f, "{verb}-{}k", size >> 10),
        };
        f.write_str(match *self {
            Mix::Echo => "echo",
            Mix::Create => "create",
            Mix::OpenClose => "open-close",
            Mix::OpenAbsent => "open-absent",
            Mix::Rename => "rename",
            Mix::Unlink => "unlink",
            Mix::Stat => "stat",
            Mix::List => "list",
            Mix::Read(bytes) => return size(f, "read", bytes),
            Mix::Write(bytes) => return size(f, "write", bytes),
            Mix::Untar => "untar",
            Mix::Office => "office",
        })
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let names = || Mix::ALL.map(|mix| mix.to_string()).join(", ");
        Mix::ALL
            .into_iter()
            .find(|mix| mix.to_string() == text)
            .ok_or_else(|| format!("there is no mix \"{text}\"; there are: {}", names()))
    }
}

/// The name of a file that stands in a directory already.
pub fn name(number: usize) -> String {
    format!("name-{number:06}")
}

/// Bytes that neither compress nor repeat.
pub fn payload(length: usize) -> Bytes {
    let mut random = Random::new(0x5EED);
    (0..length).map(|_| random.below(256) as u8).collect::<Vec<u8>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mix_is_found_by_its_name() {
        for mix in Mix::ALL {
            assert_eq!(mix.to_string().parse(), Ok(mix));
        }
        assert_eq!(Mix::Read(1 << 20).to_string(), "read-1m");
        assert_eq!(Mix::Write(64 << 10).to_string(), "write-64k");
        assert!("read-3k".parse::<Mix>().unwrap_err().contains("read-4k"));
    }

    #[test]
    fn files_to_read_are_a_whole_number_of_requests() {
        assert_eq!(Mix::Read(1 << 20).span(1), 16 << 20);
        assert_eq!(Mix::Read(1 << 20).span(256), 1 << 20);
        assert_eq!(Mix::Write(4096).span(4), 16 * 4096);
    }
}
