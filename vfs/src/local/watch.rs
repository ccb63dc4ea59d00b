//! The queue of changes (inotify) of a share's watched directories.
//!
//! The kernel queues a change before the call that made it returns, whoever made it, and the changes of one directory in
//! their order; two in a row that look alike become one. If there are more than its queue holds it says so once, and the
//! watches go on. Only file systems no name of which changes but by a call of this kernel are watched.
//!
//! Of two names that are exchanged it tells as of two moves in a row: see [`moves`](super::moves).
//!
//! Directories for which there is no watch left are told of by the mark of their file system (`mark`), where that may be.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, Weak};

use ahash::RandomState;
use parking_lot::Mutex;

use super::inode::{Directory, Volume};
use super::mark::Mark;
use super::moves::Moves;
use super::sys;
use crate::backend::{BackendNode, Change, WatchId, Watcher};
use crate::error::{FsError, Result};

/// The most directories of a mount that have a watch each, if nothing else is asked for. The system's own bound, which all
/// its processes share, may be less.
pub(super) const WATCHES_MAX: usize = 64 * 1024;

/// What is read of the queue at once: some hundred changes.
const SPACE: usize = 16 * 1024;

/// The most that one change takes: its head, and the longest name with what fills it up.
const LARGEST: usize = 16 + 256;

pub(super) struct Queue {
    volume: Weak<Volume>,
    /// Made when the first directory is to be watched; `None`: the system has no more of them.
    fd: OnceLock<Option<OwnedFd>>,
    /// The watches that there are, and how many there may be.
    watches: Mutex<HashSet<WatchId, RandomState>>,
    watches_max: usize,
    moves: Mutex<Moves>,
    mark: Mark,
}

impl Queue {
    pub(super) fn new(volume: &Arc<Volume>, watches_max: usize) -> Queue {
        Queue {
            volume: Arc::downgrade(volume),
            fd: OnceLock::new(),
            watches: Mutex::default(),
            watches_max,
            moves: Mutex::default(),
            mark: Mark::default(),
        }
    }

    fn fd(&self) -> Option<&OwnedFd> {
        self.fd.get()?.as_ref()
    }

    fn read_watches(&self, fd: &OwnedFd, each: &mut dyn FnMut(Change<'_>)) {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut moves = self.moves.lock();
        loop {
            let read = sys::read_changes(sys::borrow(fd), &mut space, &mut |change, cookie| {
                if let Change::Ended(watch) = change {
                    self.watches.lock().remove(&watch);
                }
                moves.told(change, cookie, each);
            });
            match read {
                // As long as one more would have fitted, that was all.
                Ok(read) if read + LARGEST <= SPACE => return moves.ended(each),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the queue of changes cannot be read");
                    moves.ended(each);
                    return moves.told(Change::Lost, 0, each);
                }
            }
        }
    }
}

impl Watcher for Queue {
    fn watch(&self, dir: &BackendNode) -> Result<WatchId> {
        let dir: Arc<Directory> = dir.0.clone().downcast().map_err(|_| FsError::NotADirectory)?;
        let volume = self.volume.upgrade().ok_or(FsError::NotSupported)?;
        let descriptor = dir.descriptor()?;
        let descriptor = sys::borrow(&descriptor);
        if !volume.tells_changes(&dir, descriptor)? {
            return Err(FsError::NotSupported);
        }
        let fd = self.fd.get_or_init(|| sys::watcher().ok()).as_ref();
        if let Some(fd) = fd.filter(|_| self.watches.lock().len() < self.watches_max) {
            match sys::watch(sys::borrow(fd), descriptor) {
                Ok(watch) => {
                    let watch = u64::try_from(watch).map_err(|_| FsError::Invalid)?;
                    self.watches.lock().insert(watch);
                    return Ok(watch);
                }
                Err(rustix::io::Errno::NOSPC) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.mark.watch(descriptor)
    }

    fn unwatch(&self, watch: WatchId) {
        match (self.fd(), i32::try_from(watch)) {
            (Some(fd), Ok(number)) => {
                self.watches.lock().remove(&watch);
                // It may have ended by itself.
                let _ = sys::unwatch(sys::borrow(fd), number);
            }
            _ => self.mark.unwatch(watch),
        }
    }

    fn tells_each(&self, watch: WatchId) -> bool {
        !Mark::is_its(watch)
    }

    fn is_empty(&self) -> bool {
        // An error is not news of an empty queue: reading will tell.
        let is_empty = |fd| sys::queued(sys::borrow(fd)).is_ok_and(|bytes| bytes == 0);
        self.fd().is_none_or(is_empty) && self.mark.is_empty()
    }

    fn read(&self, each: &mut dyn FnMut(Change<'_>)) {
        if let Some(fd) = self.fd() {
            self.read_watches(fd, &mut *each);
        }
        self.mark.read(each);
    }
}
