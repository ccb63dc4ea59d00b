//! Objects of the real file system: their identity, what a look at them tells, and directories held as O_PATH descriptors.
//!
//! A directory is one [`Directory`] for as long as anybody holds it, however often it is looked up; all work in it is relative to its
//! descriptor. There are only so many descriptors: of the directories that nobody has used for a while some give theirs back, and open
//! it again by (parent, name) when they are next used. What is opened so must have the same identity; if the directory has moved
//! meanwhile that fails with `Stale`, and the cache's next lookup finds the directory at its new place and tells us.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use parking_lot::Mutex;
use rustix::fs::{FileType, OFlags, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

use super::sys::{self, Call, Target};
use crate::backend::{BackendNode, NodeInfo, Token};
use crate::error::{FsError, Result};
use crate::metadata::{BackendKey, DosAttributes, Kind, Metadata, Timestamp};
use crate::name::DiskName;
use crate::xattr::decode_dos_attributes;

pub(super) const DOS_ATTRIBUTES: &std::ffi::CStr = c"user.DOSATTRIB";

fn kind_of(mode: u16) -> Kind {
    kind_of_type(FileType::from_raw_mode(mode.into()))
}

pub(super) fn kind_of_type(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Special,
    }
}

/// The identity of an object. ext4 and others give an inode number to the next file at once, so the generation is made of the time at
/// which the object was made (its birth time does not change); its last two bits are the object's kind.
pub(super) fn key_of(stat: &Statx) -> BackendKey {
    let born = if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME) {
        (stat.stx_btime.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(stat.stx_btime.tv_nsec.into())
    } else {
        0
    };
    BackendKey {
        device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
        inode: stat.stx_ino,
        generation: born << 2 | kind_of(stat.stx_mode) as u64,
    }
}

/// The kind that an identity of [`key_of`]'s making says: it is known before anything is opened, so that nothing special ever is.
pub(super) fn kind_in_key(key: &BackendKey) -> Kind {
    [Kind::File, Kind::Directory, Kind::Symlink, Kind::Special][(key.generation & 3) as usize]
}

const _: () = assert!(Kind::File as u64 == 0 && Kind::Directory as u64 == 1);
const _: () = assert!(Kind::Symlink as u64 == 2 && Kind::Special as u64 == 3);

fn timestamp(time: &StatxTimestamp) -> Timestamp {
    Timestamp::new(time.tv_sec, time.tv_nsec)
}

pub(super) fn metadata_of(stat: &Statx, dos: Option<DosAttributes>) -> Metadata {
    let born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    Metadata {
        key: key_of(stat),
        kind: kind_of(stat.stx_mode),
        size: stat.stx_size,
        allocated: stat.stx_blocks.saturating_mul(512),
        links: stat.stx_nlink,
        mode: u32::from(stat.stx_mode) & 0o7777,
        accessed: timestamp(&stat.stx_atime),
        modified: timestamp(&stat.stx_mtime),
        changed: timestamp(&stat.stx_ctime),
        born: born.then(|| timestamp(&stat.stx_btime)),
        dos,
    }
}

/// What is stored of the DOS side of a file or directory. What cannot be read is as if it were not there: a listing must not fail for it.
fn read_dos(target: Target<'_>) -> Option<DosAttributes> {
    let mut value = [0; 256];
    let length = sys::get_xattr(target, DOS_ATTRIBUTES, &mut value).ok()?;
    decode_dos_attributes(&value[..length])
}

/// What was read of the DOS side of the objects last looked at, and the change time that each had then. As long as an object has that
/// change time still, nothing of it has changed: storing an extended attribute moves it. Each identity has one place, which it shares
/// with others: the last one has it.
///
/// Most objects have nothing stored. Of those a fingerprint is kept, eight bytes, so that a large directory is listed again with
/// one call for each name.
#[derive(Default)]
pub(super) struct DosMemory {
    places: OnceLock<Box<[Mutex<Option<Remembered>>]>>,
    plain: OnceLock<Box<[OnceLock<Box<PlainPage>>]>>,
    fingerprints: RandomState,
}

/// Fingerprints of objects of which nothing is stored: a page of their inodes' numbers; 0 is none.
type PlainPage = [AtomicU64; 512];

/// Pages of fingerprints, 4 KiB each, that a share keeps at most: as many as the inodes that it looks at fall into.
const PLAIN_PAGES: usize = 512;

#[derive(Clone, Copy)]
struct Remembered {
    key: BackendKey,
    changed: Timestamp,
    dos: Option<DosAttributes>,
}

/// About 400 KB a share, once it is used.
const REMEMBERED: usize = 4096;

/// A change time is coarse (a tick of at most 10 ms) before Linux 6.13: two changes in one tick look like one. One that is older than
/// this when it is seen cannot be met again.
const TICK: Duration = Duration::from_millis(20);

impl DosMemory {
    fn place(&self, key: &BackendKey) -> &Mutex<Option<Remembered>> {
        let places = self.places.get_or_init(|| (0..REMEMBERED).map(|_| Mutex::new(None)).collect());
        // Inode numbers are given out in order; what is looked at together has its places side by side.
        &places[key.inode as usize % REMEMBERED]
    }

    /// What an object is told by, with its change time; never 0.
    fn fingerprint(&self, key: &BackendKey, changed: Timestamp) -> u64 {
        let identity = (key.device, key.inode, key.generation, changed.secs, changed.nanos);
        self.fingerprints.hash_one(identity).max(1)
    }

    fn plain(&self, key: &BackendKey) -> &AtomicU64 {
        let pages = self.plain.get_or_init(|| (0..PLAIN_PAGES).map(|_| OnceLock::new()).collect());
        let number = key.inode as usize;
        let page =
            pages[number / 512 % PLAIN_PAGES].get_or_init(|| Box::new([const { AtomicU64::new(0) }; 512]));
        &page[number % 512]
    }
}

fn is_settled(changed: Timestamp, now: Timestamp) -> bool {
    let nanos = |time: Timestamp| i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    nanos(now) - nanos(changed) > TICK.as_nanos() as i128
}

/// What a whole share's calls have in common.
pub(super) struct Volume {
    /// Entering another file system is refused.
    pub(super) one_mount: bool,
    /// Change times tell any two changes apart that somebody looked between (Linux 6.13, the file systems that take part).
    pub(super) fine_times: bool,
    /// Reads may be tried without waiting; cleared once the file system says that it cannot tell.
    pub(super) no_wait: AtomicBool,
    dos: DosMemory,
    /// The root's device, if its file system is one of those that can be watched.
    watched: Option<u64>,
    /// The directories that somebody holds.
    directories: DashMap<BackendKey, Weak<Directory>>,
}

impl Volume {
    pub(super) fn new(one_mount: bool, fine_times: bool, watched: Option<u64>) -> Volume {
        Volume {
            one_mount,
            fine_times,
            no_wait: AtomicBool::new(true),
            dos: DosMemory::default(),
            watched,
            directories: DashMap::new(),
        }
    }

    /// Whether no name in this directory changes but by a call of this kernel that names it as it is told. Another file system than
    /// the root's, mounted below it, is asked what it is. Where the file system itself takes spellings for one another, and by
    /// other rules than ours, a change of one changes what others mean that the cache knows nothing of: nothing is believed there.
    pub(super) fn tells_changes(&self, dir: &Directory, fd: BorrowedFd<'_>) -> Result<bool> {
        let is_watched = self.watched == Some(dir.key.device) || super::is_watched(&sys::statfs(fd)?);
        Ok(is_watched && !sys::folds(fd)?)
    }

    /// The directory's token: what changes with each change of a name in it.
    pub(super) fn token(&self, dir: &Arc<Directory>) -> Result<Token> {
        let fd = dir.descriptor()?;
        let stat = sys::statx(sys::borrow(&fd))?;
        let (modified, changed) = (timestamp(&stat.stx_mtime), timestamp(&stat.stx_ctime));
        // Also where times are fine: some changes stamp the directory with another inode's time (a link in tmpfs, say).
        let settled = is_settled(changed, Timestamp::now());
        Ok(Token { modified, changed, settled })
    }

    /// Opens `name` in `dir`; if no descriptor is left, once more after some idle directories have given theirs back. The last
    /// descriptors are not for files: a client that opens all that it may keeps nobody from connecting.
    pub(super) fn open_at(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        flags: OFlags,
        mode: u32,
    ) -> Call<OwnedFd> {
        if NEARLY_OUT.load(Relaxed) && !is_room(dir) {
            return Err(Errno::MFILE);
        }
        let opened = match sys::open_at(dir, name, flags, mode, self.one_mount) {
            Err(Errno::MFILE) if give_back(64) > 0 => sys::open_at(dir, name, flags, mode, self.one_mount),
            result => result,
        };
        if opened.as_ref().is_ok_and(is_among_the_last) {
            NEARLY_OUT.store(true, Relaxed);
        }
        opened
    }

    /// What `target` is like, which `stat` was just asked of, with its DOS side: remembered, or read.
    pub(super) fn metadata(&self, stat: &Statx, target: Target<'_>) -> Metadata {
        let mut metadata = metadata_of(stat, None);
        if !matches!(metadata.kind, Kind::File | Kind::Directory) {
            return metadata;
        }
        let plain = self.dos.fingerprint(&metadata.key, metadata.changed);
        if self.dos.plain(&metadata.key).load(Relaxed) == plain {
            return metadata;
        }
        let place = self.dos.place(&metadata.key);
        if let Some(known) = *place.lock()
            && (known.key, known.changed) == (metadata.key, metadata.changed)
        {
            metadata.dos = known.dos;
            return metadata;
        }
        metadata.dos = read_dos(target);
        self.remember_dos(&metadata);
        metadata
    }

    /// Notes what is stored of an object, if a later change is sure to move its change time.
    pub(super) fn remember_dos(&self, metadata: &Metadata) {
        let Metadata { key, changed, dos, .. } = *metadata;
        if self.fine_times || is_settled(changed, Timestamp::now()) {
            match dos {
                Some(_) => *self.dos.place(&key).lock() = Some(Remembered { key, changed, dos }),
                None => self.dos.plain(&key).store(self.dos.fingerprint(&key, changed), Relaxed),
            }
        }
    }

    /// The directory of this identity, if somebody holds it.
    fn held(&self, key: &BackendKey) -> Option<Arc<Directory>> {
        self.directories.get(key).and_then(|held| held.upgrade())
    }

    /// The one `Directory` of this identity, which was just found as `place` and may be had with this descriptor.
    pub(super) fn hold(
        self: &Arc<Volume>,
        key: BackendKey,
        place: Option<Place>,
        fd: Arc<OwnedFd>,
    ) -> Arc<Directory> {
        let directory = {
            let mut entry = self.directories.entry(key).or_default();
            if let Some(held) = entry.upgrade() {
                held.found_at(place);
                return held;
            }
            let directory = Arc::new(Directory {
                key,
                volume: self.clone(),
                place: Mutex::new(place),
                fd: Mutex::new(Some(fd)),
                used: AtomicBool::new(true),
            });
            *entry = Arc::downgrade(&directory);
            directory
        };
        keep_within_budget(&directory);
        directory
    }

    /// What a lookup of `name` in `dir` finds; `None`: nothing.
    pub(super) fn lookup(
        self: &Arc<Volume>,
        dir: &Arc<Directory>,
        name: &DiskName,
    ) -> Result<Option<NodeInfo>> {
        let fd = dir.descriptor()?;
        for _ in 0..8 {
            let stat = match sys::statx_at(sys::borrow(&fd), name.as_bytes()) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
            let by_name = Target::Name(sys::borrow(&fd), name.as_bytes());
            match kind_of(stat.stx_mode) {
                Kind::Directory => {}
                Kind::File | Kind::Symlink | Kind::Special => {
                    return Ok(Some(NodeInfo { node: leaf(), metadata: self.metadata(&stat, by_name) }));
                }
            }
            let key = key_of(&stat);
            let place = Place { parent: Arc::downgrade(dir), name: name.clone() };
            let directory = match self.held(&key) {
                Some(held) => {
                    held.found_at(Some(place));
                    held
                }
                None => match self.open_directory(sys::borrow(&fd), name, &key) {
                    Ok(opened) => self.hold(key, Some(place), Arc::new(opened)),
                    // Another object by now: look again.
                    Err(FsError::Stale | FsError::NotFound | FsError::NotADirectory | FsError::Symlink) => {
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            let metadata = self.metadata(&stat, by_name);
            return Ok(Some(NodeInfo { node: BackendNode(directory), metadata }));
        }
        Err(FsError::Busy)
    }

    /// An O_PATH descriptor of the directory `name` in `dir`, if it has this identity; `Stale` otherwise.
    fn open_directory(&self, dir: BorrowedFd<'_>, name: &DiskName, key: &BackendKey) -> Result<OwnedFd> {
        let fd = self.open_at(dir, name.as_bytes(), OFlags::PATH | OFlags::DIRECTORY, 0)?;
        let stat = sys::statx(sys::borrow(&fd))?;
        if key_of(&stat) == *key { Ok(fd) } else { Err(FsError::Stale) }
    }
}

/// The object of everything that is no directory: it is opened by its name, so there is nothing to keep.
struct Leaf;

pub(super) fn leaf() -> BackendNode {
    static LEAF: OnceLock<Arc<Leaf>> = OnceLock::new();
    BackendNode(LEAF.get_or_init(|| Arc::new(Leaf)).clone())
}

/// Where a directory was last found. The parent is held by whoever holds the child (the cache does); if it is gone, so is this place.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) parent: Weak<Directory>,
    pub(super) name: DiskName,
}

/// A directory that somebody holds.
pub(super) struct Directory {
    pub(super) key: BackendKey,
    volume: Arc<Volume>,
    /// `None`: a root, whose descriptor is never given back.
    place: Mutex<Option<Place>>,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    /// Used since the budget last looked.
    used: AtomicBool,
}

impl Directory {
    /// A descriptor to work relative to: at least O_PATH.
    pub(super) fn descriptor(self: &Arc<Directory>) -> Result<Arc<OwnedFd>> {
        match self.open_descriptor() {
            Some(fd) => Ok(fd),
            None => self.reopen(),
        }
    }

    fn open_descriptor(&self) -> Option<Arc<OwnedFd>> {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        self.fd.lock().clone()
    }

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        self.fd.lock().is_some()
    }

    /// Opens the directory again from its nearest ancestor that is open. A loop, not a recursion: a path may have thousands of components.
    fn reopen(self: &Arc<Directory>) -> Result<Arc<OwnedFd>> {
        let mut closed = Vec::new();
        let mut next = self.clone();
        let mut fd = loop {
            let place = next.place.lock().clone().ok_or(FsError::Stale)?;
            let parent = place.parent.upgrade().ok_or(FsError::Stale)?;
            closed.push((next, place.name));
            match parent.open_descriptor() {
                Some(fd) => break fd,
                // The places contradict each other: round and round.
                None if closed.len() > 32_768 => return Err(FsError::Stale),
                None => next = parent,
            }
        };
        for (directory, name) in closed.into_iter().rev() {
            let opened = match directory.volume.open_directory(sys::borrow(&fd), &name, &directory.key) {
                Ok(opened) => Arc::new(opened),
                Err(FsError::NotFound | FsError::NotADirectory | FsError::Symlink) => {
                    return Err(FsError::Stale);
                }
                Err(error) => return Err(error),
            };
            let mut place = directory.fd.lock();
            let first = place.is_none();
            fd = place.get_or_insert(opened).clone();
            drop(place);
            if first {
                keep_within_budget(&directory);
            }
        }
        Ok(fd)
    }

    /// Notes where the directory was just found.
    pub(super) fn found_at(&self, place: Option<Place>) {
        let mut known = self.place.lock();
        let (Some(found), Some(known)) = (place, known.as_mut()) else { return };
        if !known.parent.ptr_eq(&found.parent) || known.name != found.name {
            *known = found;
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.volume.directories.remove_if(&self.key, |_, held| held.strong_count() == 0);
        GONE.fetch_add(1, Relaxed);
    }
}

/// The directories of all shares that have a descriptor, the longest unused first, as far as is known.
static OPEN: Mutex<VecDeque<Weak<Directory>>> = Mutex::new(VecDeque::new());

/// How many directories have gone since the list was last swept; what is left of each there keeps its memory.
static GONE: AtomicUsize = AtomicUsize::new(0);

/// How many of them there may be: half of the process' limit. Zero: not yet asked.
static BUDGET: AtomicUsize = AtomicUsize::new(0);

/// The limit has changed: ask again.
pub(super) fn limit_changed() {
    BUDGET.store(0, Relaxed);
}

fn budget() -> usize {
    match BUDGET.load(Relaxed) {
        0 => {
            let limit = sys::descriptor_limit().0.unwrap_or(u64::MAX);
            let budget = usize::try_from(limit / 2).unwrap_or(usize::MAX).max(16);
            BUDGET.store(budget, Relaxed);
            budget
        }
        budget => budget,
    }
}

/// The last descriptor that was opened was one of those that are not for files.
static NEARLY_OUT: AtomicBool = AtomicBool::new(false);

/// A descriptor gets the least number that is free: one so high says that all below it are taken. A sixteenth is left, or what a
/// thousand connections need.
fn is_among_the_last(fd: &OwnedFd) -> bool {
    let limit = budget() * 2;
    fd.as_raw_fd() as usize >= limit - (limit / 16).min(1024)
}

/// Whether there is a descriptor for one more file, if need be one that an idle directory gives back. `any` is any descriptor.
fn is_room(any: BorrowedFd<'_>) -> bool {
    loop {
        match sys::duplicate(any) {
            Ok(next) if !is_among_the_last(&next) => {
                NEARLY_OUT.store(false, Relaxed);
                return true;
            }
            _ if give_back(64) == 0 => return false,
            _ => {}
        }
    }
}

/// Counts a directory that has just got its descriptor in, and lets the longest unused ones go for it.
fn keep_within_budget(directory: &Arc<Directory>) {
    let budget = budget();
    let over = {
        let mut open = OPEN.lock();
        let gone = GONE.load(Relaxed);
        if gone > 1024 && gone > open.len() / 2 {
            GONE.store(0, Relaxed);
            open.retain(|directory| directory.strong_count() > 0);
        }
        open.push_back(Arc::downgrade(directory));
        open.len() > budget
    };
    if over {
        // Some more than one, so that the next ones need not come here.
        give_back(1 + budget / 64);
    }
}

/// Lets up to `wanted` directories give their descriptors back, the longest unused first. How many did, or were gone already.
pub(super) fn give_back(wanted: usize) -> usize {
    let mut given = 0;
    let mut closing = Vec::new();
    {
        let mut open = OPEN.lock();
        // Each is passed over once if it was used; twice round everybody has had its turn.
        for _ in 0..2 * open.len() {
            if given == wanted {
                break;
            }
            let Some(candidate) = open.pop_front() else { break };
            let Some(directory) = candidate.upgrade() else {
                given += 1;
                continue;
            };
            let is_root = directory.place.lock().is_none();
            if is_root || directory.used.swap(false, Relaxed) {
                open.push_back(candidate);
                // Dropped outside of the lock: dropping the last hold on a directory closes its descriptor.
                closing.push((None, directory));
                continue;
            }
            let fd = directory.fd.lock().take();
            given += 1;
            closing.push((fd, directory));
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_time_settles() {
        let changed = Timestamp::new(10, 990_000_000);
        assert!(!is_settled(changed, Timestamp::new(11, 0)));
        assert!(!is_settled(changed, Timestamp::new(9, 0)));
        assert!(is_settled(changed, Timestamp::new(11, 15_000_000)));
    }
}
