//! The changes of whole file systems (fanotify), for directories that have no watch of their own: one mark a file system,
//! for which this process needs CAP_SYS_ADMIN.
//!
//! A change is queued before the call that made it returns, as with watches. But what one process does to one name becomes
//! a single entry, in the place of the first, as long as that is queued: of a name made by one, removed by another and made
//! again by the first it is told that it was made, then that it was removed. (Seen on Linux 6.18, ext4 and tmpfs; changes
//! of different processes are not joined, those of threads are.) So neither the order of a name's entries nor their number
//! says anything. What holds is this: until the queue is seen empty, entries that are joined are both read. Hence all that
//! is read up to then is taken together. Where it says only that the name came, it is there; only that it went, it is
//! not; both, nobody knows. And no change of ours can be told from a foreign one by waiting for it.
//!
//! Everything that happens on the file system comes, also where nobody looks. That is bounded by what the queue holds
//! (`fs.fanotify.max_queued_events`, 16,384) for each time that it is read, some 0.5 µs an entry. If there was more, the
//! directories told of here begin anew, and those with watches go on. And where others change more than [`STRANGE_RATE`]
//! names a second elsewhere the mark is given up for a while ([`GIVEN_UP_FOR`]): at half a hundredth of a processor it
//! costs what a thousand lookups a second do.

use std::collections::{HashMap, HashSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ahash::RandomState;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::sys::{self, Entry};
use crate::backend::{Change, WatchId};
use crate::error::{FsError, Result};

/// Changes a second, by other processes and in directories that are not told of here, that are too many.
const STRANGE_RATE: u64 = if cfg!(test) { 1 } else { 10_000 };

/// That is looked at after so many of them.
const STRANGE_LOOK: u64 = if cfg!(test) { 500 } else { 100_000 };

const GIVEN_UP_FOR: Duration = Duration::from_secs(300);

/// The numbers of watches are less (they have 31 bits).
const FIRST: WatchId = 1 << 32;

/// A directory by its file system and the file system's handle of it, as the entries name it.
type Identity = Vec<u8>;

#[derive(Default)]
pub(super) struct Mark {
    /// There is or was a queue.
    used: AtomicBool,
    state: Mutex<State>,
}

struct State {
    queue: Option<Arc<OwnedFd>>,
    /// The file systems that are marked, and those that cannot be.
    marked: HashSet<[u8; 8], RandomState>,
    refused: HashSet<[u8; 8], RandomState>,
    /// Until when none is wanted.
    given_up: Option<Instant>,
    /// The process may not, or the system cannot.
    never: bool,
    numbers: HashMap<Identity, WatchId, RandomState>,
    identities: HashMap<WatchId, Identity, RandomState>,
    next: WatchId,
    /// What others changed elsewhere since then.
    strange: u64,
    since: Instant,
}

impl Default for State {
    fn default() -> State {
        State {
            queue: None,
            marked: HashSet::default(),
            refused: HashSet::default(),
            given_up: None,
            never: false,
            numbers: HashMap::default(),
            identities: HashMap::default(),
            next: FIRST,
            strange: 0,
            since: Instant::now(),
        }
    }
}

impl State {
    /// The queue, with the file system of `dir` marked.
    fn queue_for(&mut self, file_system: [u8; 8], dir: BorrowedFd<'_>) -> Result<()> {
        if self.never || self.refused.contains(&file_system) {
            return Err(FsError::NoSpace);
        }
        if self.given_up.is_some_and(|until| Instant::now() < until) {
            return Err(FsError::NoSpace);
        }
        let queue = match &self.queue {
            Some(queue) => Arc::clone(queue),
            None => {
                let Ok(queue) = sys::marker() else {
                    self.never = true;
                    return Err(FsError::NoSpace);
                };
                (self.given_up, self.strange, self.since) = (None, 0, Instant::now());
                Arc::clone(self.queue.insert(Arc::new(queue)))
            }
        };
        if self.marked.contains(&file_system) {
            return Ok(());
        }
        match sys::mark(sys::borrow(&queue), dir) {
            Ok(()) => {
                tracing::debug!(
                    "directories without a watch of their own are told of by their file system's mark"
                );
                self.marked.insert(file_system);
                Ok(())
            }
            Err(Errno::PERM) => {
                (self.never, self.queue) = (true, None);
                Err(FsError::NoSpace)
            }
            Err(_) => {
                self.refused.insert(file_system);
                Err(FsError::NoSpace)
            }
        }
    }

    fn forget_all(&mut self) -> Vec<WatchId> {
        self.numbers.clear();
        std::mem::take(&mut self.identities).into_keys().collect()
    }

    /// Whether others change so much elsewhere that the mark is not worth its while.
    fn is_too_much(&mut self) -> bool {
        if self.strange < STRANGE_LOOK {
            return false;
        }
        let seconds = self.since.elapsed().as_secs() + 1;
        let too_much = self.strange / seconds > STRANGE_RATE;
        (self.strange, self.since) = (0, Instant::now());
        too_much
    }
}

impl Mark {
    /// Whether this is the number of a directory that is told of here.
    pub(super) fn is_its(watch: WatchId) -> bool {
        watch >= FIRST
    }

    /// Tells of the changes in `dir` from now on. `NoSpace`: that is not to be had.
    pub(super) fn watch(&self, dir: BorrowedFd<'_>) -> Result<WatchId> {
        let mut state = self.state.lock();
        if state.never {
            return Err(FsError::NoSpace);
        }
        let file_system = sys::file_system_id(dir)?;
        let Ok(identity) = sys::handle(dir, file_system) else { return Err(FsError::NoSpace) };
        state.queue_for(file_system, dir)?;
        self.used.store(true, Ordering::SeqCst);
        if let Some(known) = state.numbers.get(&identity) {
            return Ok(*known);
        }
        let number = state.next;
        state.next += 1;
        state.numbers.insert(identity.clone(), number);
        state.identities.insert(number, identity);
        Ok(number)
    }

    pub(super) fn unwatch(&self, watch: WatchId) {
        let mut state = self.state.lock();
        if let Some(identity) = state.identities.remove(&watch) {
            state.numbers.remove(&identity);
        }
        if state.identities.is_empty() {
            // Nobody is told anything, so nothing need be queued.
            state.queue = None;
            state.marked.clear();
        }
    }

    fn queue(&self) -> Option<Arc<OwnedFd>> {
        if self.used.load(Ordering::SeqCst) { self.state.lock().queue.clone() } else { None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue().is_none_or(|queue| sys::queued(sys::borrow(&queue)).is_ok_and(|bytes| bytes == 0))
    }

    pub(super) fn read(&self, each: &mut dyn FnMut(Change<'_>)) {
        let Some(queue) = self.queue() else { return };
        let mut told = Told::default();
        let ourselves = std::process::id();
        let read = sys::read_marks(sys::borrow(&queue), &mut |entry: Entry<'_>| {
            if entry.kinds & sys::LOST != 0 {
                told.lost = true;
                return;
            }
            let mut state = self.state.lock();
            match state.numbers.get(entry.identity) {
                Some(watch) => told.add(*watch, &entry),
                // What we change ourselves is as much as we do.
                None if entry.process == ourselves => {}
                None => state.strange += 1,
            }
        });
        if let Err(error) = &read {
            tracing::warn!(%error, "the queue of a file system's changes cannot be read");
        }
        let ended = {
            let mut state = self.state.lock();
            let give_up = read.is_err() || state.is_too_much();
            if give_up {
                tracing::debug!("more changes elsewhere on a file system than its mark is worth");
                state.given_up = Some(Instant::now() + GIVEN_UP_FOR);
                state.queue = None;
                state.marked.clear();
            }
            if give_up || told.lost { state.forget_all() } else { Vec::new() }
        };
        if !ended.is_empty() {
            return ended.into_iter().for_each(|watch| each(Change::Ended(watch)));
        }
        for (watch, name, kinds) in &told.changes {
            each(match (kinds & sys::CAME != 0, kinds & sys::WENT != 0) {
                (true, false) => Change::MovedTo(*watch, name),
                (false, true) => Change::Removed(*watch, name),
                _ => Change::Unsure(*watch, name),
            });
        }
        for (watch, kinds) in told.directories {
            if kinds & sys::MOVED != 0 {
                each(Change::Moved(watch));
            }
            if kinds & sys::ENDED != 0 {
                self.unwatch(watch);
                each(Change::Ended(watch));
            }
        }
    }
}

/// What was read until the queue was empty: of each name, and of each directory itself, all together.
#[derive(Default)]
struct Told {
    lost: bool,
    changes: Vec<(WatchId, Vec<u8>, u64)>,
    at: HashMap<(WatchId, Vec<u8>), usize, RandomState>,
    directories: HashMap<WatchId, u64, RandomState>,
}

impl Told {
    fn add(&mut self, watch: WatchId, entry: &Entry<'_>) {
        if entry.kinds & (sys::MOVED | sys::ENDED) != 0 {
            *self.directories.entry(watch).or_insert(0) |= entry.kinds;
        }
        if entry.kinds & (sys::CAME | sys::WENT) == 0 {
            return;
        }
        let place = self.at.entry((watch, entry.name.to_vec())).or_insert(self.changes.len());
        match self.changes.get_mut(*place) {
            Some((_, _, kinds)) => *kinds |= entry.kinds,
            None => self.changes.push((watch, entry.name.to_vec(), entry.kinds)),
        }
    }
}
