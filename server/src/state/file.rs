//! What all opens of one file share: share modes, byte-range locks, the write time on its way. MS-SMB2 3.3.1.10.
//!
//! [`NodeState`] is the `F` of the server's `Vfs<F>`: it stands under the node's one mutex (`Node::opens`), together
//! with the marks of the name cache, so that an open meets a delete, a rename or another open exactly once.

use std::sync::Arc;

use shoal_protocol::dtyp::FileTime;

use super::byte_range::ByteRanges;
use super::notify::Watches;
use super::share_mode::{Claim, ShareModes};
use super::turn::Wake;

/// Which stream of a file. Only the unnamed one can be opened; `crate::name` refuses every other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StreamName {
    /// The file's data, `::$DATA`.
    #[default]
    Unnamed,
}

/// What the server keeps for one file system object.
#[derive(Debug, Default)]
pub struct NodeState {
    unnamed: FileState,
    watches: Option<Box<Watches>>,
}

impl NodeState {
    /// The state of one stream.
    pub fn stream(&mut self, stream: StreamName) -> &mut FileState {
        match stream {
            StreamName::Unnamed => &mut self.unnamed,
        }
    }

    /// The watches of a directory, if it has any.
    pub fn watches(&mut self) -> Option<&mut Watches> {
        self.watches.as_deref_mut()
    }

    /// The watches of a directory, about to get its first perhaps.
    pub fn watches_or_new(&mut self) -> &mut Watches {
        self.watches.get_or_insert_default()
    }

    /// Lets go of the watches' memory once there are none.
    pub fn trim_watches(&mut self) {
        if self.watches.as_ref().is_some_and(|watches| watches.is_empty()) {
            self.watches = None;
        }
    }

    /// How many opens there are, over all streams.
    pub fn open_count(&self) -> u32 {
        self.unnamed.open_count
    }
}

/// What a CREATE is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is in: the open is counted from now on.
    Granted,
    /// Another open is in the way (STATUS_SHARING_VIOLATION).
    Conflict,
}

/// The state of one (node, stream).
#[derive(Debug, Default)]
pub struct FileState {
    open_count: u32,
    modes: ShareModes,
    ranges: Option<Box<ByteRanges>>,
    /// Held by who finds the end of the file and writes there; there is none before the first that does.
    appending: Option<Arc<tokio::sync::Mutex<()>>>,
    /// The write time that is shown, and what becomes of it.
    pub write_time: WriteTime,
}

impl FileState {
    /// Decides whether an open may join, and counts it in if so.
    pub fn admit(&mut self, claim: Claim) -> Admission {
        if !self.modes.admits(claim) {
            return Admission::Conflict;
        }
        self.modes.insert(claim);
        self.open_count += 1;
        Admission::Granted
    }

    /// Counts out an open that was admitted with `claim`; `owner` is its volatile id. What is returned waited for it.
    pub fn leave(&mut self, owner: u64, claim: Claim) -> Vec<Wake> {
        self.modes.remove(claim);
        debug_assert!(self.open_count > 0, "an open leaves once");
        self.open_count = self.open_count.saturating_sub(1);
        let wakes = match &mut self.ranges {
            Some(ranges) => ranges.release_all(owner),
            None => Vec::new(),
        };
        self.trim();
        if self.open_count == 0 {
            self.write_time = WriteTime::default();
            self.appending = None;
        }
        wakes
    }

    /// How many opens there are.
    pub fn open_count(&self) -> u32 {
        self.open_count
    }

    /// The share modes of the opens.
    pub fn modes(&self) -> &ShareModes {
        &self.modes
    }

    /// The locks, if there are any.
    pub fn ranges(&mut self) -> Option<&mut ByteRanges> {
        self.ranges.as_deref_mut()
    }

    /// The locks, about to get the first perhaps.
    pub fn ranges_or_new(&mut self) -> &mut ByteRanges {
        self.ranges.get_or_insert_default()
    }

    /// What those hold, one after another, who write at the end of the file wherever that is.
    pub fn appending(&mut self) -> Arc<tokio::sync::Mutex<()>> {
        self.appending.get_or_insert_default().clone()
    }

    /// Lets go of the locks' memory once there are none.
    pub fn trim(&mut self) {
        if self.ranges.as_ref().is_some_and(|ranges| ranges.is_empty()) {
            self.ranges = None;
        }
    }
}

/// How long after the first write the write time that others see may stay as it was (MS-FSA 2.1.1.5: the times of an open
/// file are updated lazily; two seconds is what clients have learnt to expect).
const WRITE_TIME_DELAY: u64 = 2 * 10_000_000;

/// The write time of an open file, as clients see it.
///
/// A disk notes a write at once. Windows' file systems let the time that others see lag behind, and clients depend on it:
/// the first write shows after two seconds, or when the file is flushed, resized, or its attributes are set; later writes show
/// when their handle is closed; and a time that a client has set stays, whatever is written.
#[derive(Debug, Default)]
pub struct WriteTime {
    stage: Stage,
    /// What the disk said when the file was last opened: the time to show while a first write is pending.
    known: FileTime,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The disk's time is right.
    #[default]
    Settled,
    /// There was a first write; until `due` it does not show.
    Pending { due: FileTime },
    /// `shown` is what clients see. Writes since are noted in `dirty`.
    Shown { shown: FileTime, dirty: bool },
    /// A client set this time. It stays until it sets another or the last open is closed.
    Sticky { shown: FileTime, dirty: bool },
}

impl WriteTime {
    /// The disk's time, read at an open.
    pub fn opened(&mut self, disk: FileTime) {
        if self.stage == Stage::Settled {
            self.known = disk;
        }
    }

    /// A write is about to be made.
    pub fn wrote(&mut self, now: FileTime) {
        self.advance(now);
        self.stage = match self.stage {
            Stage::Settled => Stage::Pending { due: FileTime(now.0.saturating_add(WRITE_TIME_DELAY)) },
            Stage::Pending { due } => Stage::Pending { due },
            Stage::Shown { shown, .. } => Stage::Shown { shown, dirty: true },
            Stage::Sticky { shown, .. } => Stage::Sticky { shown, dirty: true },
        };
    }

    /// The time to show, given what the disk says.
    pub fn show(&mut self, disk: FileTime, now: FileTime) -> FileTime {
        self.advance(now);
        match self.stage {
            Stage::Settled => disk,
            Stage::Pending { .. } => self.known,
            Stage::Shown { shown, .. } | Stage::Sticky { shown, .. } => shown,
        }
    }

    /// A flush, or attributes were set: a pending time shows from now on.
    pub fn flushed(&mut self, now: FileTime) {
        self.advance(now);
        if let Stage::Pending { .. } = self.stage {
            self.stage = Stage::Shown { shown: now, dirty: false };
        }
    }

    /// The size was set: that shows at once, unless a client has set the time.
    pub fn resized(&mut self, now: FileTime) {
        self.stage = match self.stage {
            Stage::Sticky { shown, .. } => Stage::Sticky { shown, dirty: true },
            _ => Stage::Shown { shown: now, dirty: false },
        };
    }

    /// A client set the time, on the disk too.
    pub fn set(&mut self, time: FileTime) {
        self.stage = Stage::Sticky { shown: time, dirty: false };
    }

    /// A client wants no time that writes make: what is shown now stays (-1 of MS-FSCC 2.4.7).
    pub fn freeze(&mut self, disk: FileTime, now: FileTime) {
        let shown = self.show(disk, now);
        self.stage = Stage::Sticky { shown, dirty: true };
    }

    /// A client takes that back (-2 of MS-FSCC 2.4.7). The time shown is still the frozen one.
    pub fn thaw(&mut self) {
        if let Stage::Sticky { shown, .. } = self.stage {
            self.stage = Stage::Shown { shown, dirty: false };
        }
    }

    /// An open that wrote is being closed: the time that the disk must be given now, if its own is not the right one.
    pub fn closing(&mut self, wrote: bool, now: FileTime) -> Option<FileTime> {
        self.advance(now);
        match self.stage {
            Stage::Settled => None,
            // The disk has the time of the last write, at most two seconds old. It is the truth, and costs nothing.
            Stage::Pending { .. } if wrote => {
                self.stage = Stage::Settled;
                None
            }
            Stage::Shown { shown, dirty } if wrote => {
                self.stage = Stage::Settled;
                Some(if dirty { now } else { shown })
            }
            Stage::Sticky { shown, dirty: true } => {
                self.stage = Stage::Sticky { shown, dirty: false };
                Some(shown)
            }
            Stage::Pending { .. } | Stage::Shown { .. } | Stage::Sticky { .. } => None,
        }
    }

    fn advance(&mut self, now: FileTime) {
        if let Stage::Pending { due } = self.stage
            && now >= due
        {
            self.stage = Stage::Shown { shown: due, dirty: false };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_protocol::fscc::access::AccessMask;
    use shoal_protocol::smb2::create::ShareAccess;

    const SECOND: u64 = 10_000_000;
    const START: u64 = 1_000_000 * SECOND;

    fn at(seconds: u64) -> FileTime {
        FileTime(START + seconds * SECOND)
    }

    fn opened() -> WriteTime {
        let mut time = WriteTime::default();
        time.opened(at(0));
        time
    }

    #[test]
    fn opens_come_and_go() {
        let mut file = FileState::default();
        let read = Claim::new(AccessMask::READ_DATA, ShareAccess::READ);
        let write = Claim::new(AccessMask::WRITE_DATA, ShareAccess::READ | ShareAccess::WRITE);
        assert_eq!(file.admit(read), Admission::Granted);
        assert_eq!(file.admit(write), Admission::Conflict);
        assert_eq!(file.open_count(), 1);
        assert!(file.leave(1, read).is_empty());
        assert_eq!(file.admit(write), Admission::Granted);
    }

    #[test]
    fn a_first_write_shows_after_two_seconds() {
        let mut time = opened();
        time.wrote(at(1));
        assert_eq!(time.show(at(1), at(2)), at(0));
        assert_eq!(time.show(at(1), at(4)), at(3));
        assert_eq!(time.closing(true, at(5)), Some(at(3)), "the disk knows only the write itself");
    }

    #[test]
    fn a_second_write_shows_at_close() {
        let mut time = opened();
        time.wrote(at(1));
        assert_eq!(time.show(at(1), at(4)), at(3));
        time.wrote(at(4));
        assert_eq!(time.show(at(4), at(9)), at(3));
        assert_eq!(time.closing(true, at(9)), Some(at(9)));
        assert_eq!(time.show(at(9), at(10)), at(9));
    }

    #[test]
    fn a_flush_and_a_new_size_show_at_once() {
        let mut time = opened();
        time.wrote(at(1));
        time.flushed(at(2));
        assert_eq!(time.show(at(1), at(2)), at(2));
        assert_eq!(time.closing(true, at(3)), Some(at(2)));
        let mut time = opened();
        time.resized(at(1));
        assert_eq!(time.show(at(0), at(1)), at(1));
        let mut time = opened();
        time.flushed(at(1));
        assert_eq!(time.show(at(0), at(1)), at(0), "nothing was pending");
    }

    #[test]
    fn a_time_that_was_set_stays() {
        let mut time = opened();
        time.wrote(at(1));
        time.set(at(100));
        time.wrote(at(2));
        time.resized(at(3));
        assert_eq!(time.show(at(3), at(9)), at(100));
        assert_eq!(time.closing(true, at(9)), Some(at(100)));
        assert_eq!(time.closing(false, at(9)), None);
    }

    #[test]
    fn freeze_and_thaw() {
        let mut time = opened();
        time.freeze(at(0), at(1));
        time.wrote(at(2));
        assert_eq!(time.show(at(2), at(9)), at(0));
        time.thaw();
        assert_eq!(time.show(at(2), at(9)), at(0));
        time.wrote(at(10));
        assert_eq!(time.closing(true, at(11)), Some(at(11)));
    }

    #[test]
    fn a_short_write_and_close_leaves_the_time_to_the_disk() {
        let mut time = opened();
        time.wrote(at(1));
        assert_eq!(time.closing(true, at(2)), None);
        assert_eq!(time.show(at(1), at(2)), at(1));
    }
}
