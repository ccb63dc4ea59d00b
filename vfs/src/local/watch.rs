//! The queue of changes (inotify) of a share's watched directories.
//!
//! The kernel queues a change before the call that made it returns, whoever made it, and the changes of one directory in
//! their order; two in a row that look alike become one. If there are more than its queue holds it says so once, and the
//! watches go on. Only file systems no name of which changes but by a call of this kernel are watched.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, Weak};

use super::inode::{Directory, Volume};
use super::sys;
use crate::backend::{BackendNode, Change, WatchId, Watcher};
use crate::error::{FsError, Result};

/// What is read of the queue at once: some hundred changes.
const SPACE: usize = 16 * 1024;

/// The most that one change takes: its head, and the longest name with what fills it up.
const LARGEST: usize = 16 + 256;

pub(super) struct Queue {
    volume: Weak<Volume>,
    /// Made when the first directory is to be watched; `None`: the system has no more of them.
    fd: OnceLock<Option<OwnedFd>>,
}

impl Queue {
    pub(super) fn new(volume: &Arc<Volume>) -> Queue {
        Queue { volume: Arc::downgrade(volume), fd: OnceLock::new() }
    }
}

impl Watcher for Queue {
    fn watch(&self, dir: &BackendNode) -> Result<WatchId> {
        let dir: Arc<Directory> = dir.0.clone().downcast().map_err(|_| FsError::NotADirectory)?;
        let volume = self.volume.upgrade().ok_or(FsError::NotSupported)?;
        let descriptor = dir.descriptor()?;
        if !volume.tells_changes(&dir, sys::borrow(&descriptor))? {
            return Err(FsError::NotSupported);
        }
        let fd = self.fd.get_or_init(|| sys::watcher().ok()).as_ref().ok_or(FsError::NoSpace)?;
        let watch = sys::watch(sys::borrow(fd), sys::borrow(&descriptor))?;
        u64::try_from(watch).map_err(|_| FsError::Invalid)
    }

    fn unwatch(&self, watch: WatchId) {
        if let (Some(Some(fd)), Ok(watch)) = (self.fd.get(), i32::try_from(watch)) {
            // It may have ended by itself.
            let _ = sys::unwatch(sys::borrow(fd), watch);
        }
    }

    fn is_empty(&self) -> bool {
        match self.fd.get() {
            // An error is not news of an empty queue: reading will tell.
            Some(Some(fd)) => sys::queued(sys::borrow(fd)).is_ok_and(|bytes| bytes == 0),
            _ => true,
        }
    }

    fn read(&self, each: &mut dyn FnMut(Change<'_>)) {
        let Some(Some(fd)) = self.fd.get() else { return };
        let mut space = [MaybeUninit::uninit(); SPACE];
        loop {
            match sys::read_changes(sys::borrow(fd), &mut space, &mut *each) {
                // As long as one more would have fitted, that was all.
                Ok(read) if read + LARGEST <= SPACE => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the queue of changes cannot be read");
                    return each(Change::Lost);
                }
            }
        }
    }
}
