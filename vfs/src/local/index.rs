//! Which names a directory has, folded: so that a name which is absent in any case, or stands there in another case, need not be looked
//! for by reading the whole directory each time.
//!
//! A directory that is searched for the second time gets a watch (inotify), is read once more, and from then on each question is
//! answered from its index, after what the kernel has queued meanwhile was read and applied. The kernel queues a change before the call
//! that made it returns, whoever made it, so an answer misses nothing that had happened when it was asked for; our own changes come the
//! same way as foreign ones. The rules:
//!
//! - The queue is read and applied under the one lock under which the answer is given: an empty queue means that nothing is missing, not
//!   that somebody else has read it and not yet applied it.
//! - The watch is set before the directory is read. What is queued from then on is kept in a journal and applied, in order, to what was
//!   read: for a name that changed meanwhile the last change decides, for all others the reading is right.
//! - If changes were lost (the kernel's queue has a bound) all indexes are dropped.
//! - Only file systems on which each change passes through this kernel's own calls are watched. Elsewhere, and when watches or memory run
//!   out, a search reads the directory, as it did before.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use ahash::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;

use super::sys::{self, Change};
use crate::fold::{Fold, FoldedName};
use crate::metadata::BackendKey;
use crate::name::{DiskName, Name};

/// The most directories of a share with an index; the longest unused one makes room.
const DIRECTORIES: usize = 4096;

/// The most memory that the names of a share's indexes take, in bytes; so much is also the most of one directory.
const BYTES: usize = 64 << 20;

/// The most changes that are kept for a directory while it is read.
const JOURNAL: usize = 64 * 1024;

/// The names of one directory by their folded form: the names as on disk one after the other, each behind its length, and a table of
/// where they begin.
pub(super) struct NameIndex {
    table: HashTable<u32>,
    arena: Vec<u8>,
    /// Bytes of the arena that no name uses any more.
    unused: usize,
    hasher: RandomState,
}

fn name_at(arena: &[u8], at: u32) -> &[u8] {
    let at = at as usize;
    let length = arena[at] as usize;
    &arena[at + 1..at + 1 + length]
}

fn hash_of(hasher: &RandomState, disk: &[u8]) -> u64 {
    hasher.hash_one(Fold::Insensitive.fold(&Name::from_disk(disk)).as_bytes())
}

impl NameIndex {
    pub(super) fn new() -> NameIndex {
        NameIndex { table: HashTable::new(), arena: Vec::new(), unused: 0, hasher: RandomState::new() }
    }

    /// The memory that it takes, near enough.
    pub(super) fn bytes(&self) -> usize {
        self.arena.capacity() + self.table.capacity() * 6
    }

    /// False: there is no room for it.
    pub(super) fn insert(&mut self, disk: &[u8]) -> bool {
        let Ok(length) = u8::try_from(disk.len()) else { return false };
        if self.bytes() > BYTES {
            return false;
        }
        let at = self.arena.len() as u32;
        let (arena, hasher) = (&mut self.arena, &self.hasher);
        let hash = hash_of(hasher, disk);
        if self.table.find(hash, |at| name_at(arena, *at) == disk).is_none() {
            arena.push(length);
            arena.extend_from_slice(disk);
            self.table.insert_unique(hash, at, |at| hash_of(hasher, name_at(arena, *at)));
        }
        true
    }

    fn remove(&mut self, disk: &[u8]) {
        let hash = hash_of(&self.hasher, disk);
        if let Ok(entry) = self.table.find_entry(hash, |at| name_at(&self.arena, *at) == disk) {
            entry.remove();
            self.unused += 1 + disk.len();
        }
        if self.unused > 4096 && self.unused > self.arena.len() / 2 {
            let old = std::mem::replace(self, NameIndex::new());
            for at in &old.table {
                self.insert(name_at(&old.arena, *at));
            }
        }
    }

    fn apply(&mut self, disk: &[u8], present: bool) -> bool {
        if present {
            return self.insert(disk);
        }
        self.remove(disk);
        true
    }

    /// Every spelling of the name of this folded form.
    pub(super) fn spellings(&self, wanted: &FoldedName) -> Vec<DiskName> {
        let found = self.table.iter_hash(self.hasher.hash_one(wanted.as_bytes()));
        let names = found.map(|at| name_at(&self.arena, *at));
        names.filter(|disk| is_spelling(disk, wanted)).map(DiskName::new).collect()
    }
}

/// Does the disk name `disk` fold to `wanted`?
pub(super) fn is_spelling(disk: &[u8], wanted: &FoldedName) -> bool {
    // Most names are plain: no character of theirs is shown through the private-use map (whose letters begin with EF).
    if disk.is_ascii() && !wanted.as_bytes().contains(&0xEF) {
        return disk.eq_ignore_ascii_case(wanted.as_bytes());
    }
    Fold::Insensitive.fold(&Name::from_disk(disk)) == *wanted
}

/// The indexes of a share.
pub(super) struct Indexes {
    /// None: this file system is not watched.
    state: Option<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The queue; `None` before it is first needed, and after changes were lost.
    watcher: Option<OwnedFd>,
    by_watch: HashMap<i32, BackendKey, RandomState>,
    by_key: HashMap<BackendKey, Indexed, RandomState>,
    /// The memory of all that are ready.
    bytes: usize,
    /// Counts questions: the time by which the longest unused is found.
    clock: u64,
    /// Watches to end as soon as the queue is at hand.
    unwatched: Vec<i32>,
}

struct Indexed {
    watch: i32,
    used: u64,
    stage: Stage,
}

enum Stage {
    /// The directory is being read, by who has this ticket.
    Filling {
        ticket: u64,
        journal: Vec<(DiskName, bool)>,
    },
    Ready(NameIndex),
}

/// The right to fill the index of one directory.
pub(super) struct Ticket {
    key: BackendKey,
    number: u64,
}

impl Indexes {
    pub(super) fn new(watched: bool) -> Indexes {
        Indexes { state: watched.then(Mutex::default) }
    }

    /// Every spelling of `wanted` in the directory `key`, if that has an index.
    pub(super) fn answer(&self, key: &BackendKey, wanted: &FoldedName) -> Option<Vec<DiskName>> {
        let mut state = self.state.as_ref()?.lock();
        if !state.by_key.contains_key(key) {
            return None;
        }
        state.catch_up();
        state.clock += 1;
        let clock = state.clock;
        let indexed = state.by_key.get_mut(key)?;
        indexed.used = clock;
        match &indexed.stage {
            Stage::Ready(names) => Some(names.spellings(wanted)),
            Stage::Filling { .. } => None,
        }
    }

    /// Begins to watch the directory `key`, open as `dir`, which the caller reads then. `None`: it is watched already, or cannot be.
    pub(super) fn begin(&self, key: BackendKey, dir: BorrowedFd<'_>) -> Option<Ticket> {
        let mut state = self.state.as_ref()?.lock();
        let state = &mut *state;
        state.catch_up();
        if state.by_key.contains_key(&key) {
            return None;
        }
        if state.by_key.len() >= DIRECTORIES || state.bytes > BYTES {
            state.make_room();
            if state.by_key.len() >= DIRECTORIES || state.bytes > BYTES {
                return None;
            }
        }
        let watcher = match &mut state.watcher {
            Some(watcher) => watcher,
            none => none.insert(sys::watcher().ok()?),
        };
        let watch = sys::watch(sys::borrow(watcher), dir).ok()?;
        state.clock += 1;
        let ticket = state.clock;
        if let Some(other) = state.by_watch.get(&watch).copied() {
            // One directory under two identities: one of them is no longer true.
            state.forget(&other);
            return None;
        }
        state.by_watch.insert(watch, key);
        let stage = Stage::Filling { ticket, journal: Vec::new() };
        state.by_key.insert(key, Indexed { watch, used: ticket, stage });
        Some(Ticket { key, number: ticket })
    }

    /// What the reading has found becomes the directory's index, with what has changed since it began; every spelling of `wanted` in it.
    /// `None`: changes were lost, or are too many.
    pub(super) fn finish(
        &self,
        ticket: Ticket,
        mut names: NameIndex,
        wanted: &FoldedName,
    ) -> Option<Vec<DiskName>> {
        let mut state = self.state.as_ref()?.lock();
        state.catch_up();
        let indexed = state.by_key.get_mut(&ticket.key)?;
        let Stage::Filling { ticket: number, journal } = &mut indexed.stage else { return None };
        if *number != ticket.number {
            return None;
        }
        let journal = std::mem::take(journal);
        if !journal.iter().all(|(name, present)| names.apply(name.as_bytes(), *present)) {
            state.forget(&ticket.key);
            return None;
        }
        let spellings = names.spellings(wanted);
        let bytes = names.bytes();
        indexed.stage = Stage::Ready(names);
        state.bytes += bytes;
        Some(spellings)
    }

    /// The reading has not come to its end.
    pub(super) fn give_up(&self, ticket: &Ticket) {
        let Some(state) = &self.state else { return };
        let mut state = state.lock();
        if let Some(Indexed { stage: Stage::Filling { ticket: number, .. }, .. }) =
            state.by_key.get(&ticket.key)
            && *number == ticket.number
        {
            state.forget(&ticket.key);
        }
    }
}

impl State {
    /// Applies all that is queued.
    fn catch_up(&mut self) {
        let mut space = [MaybeUninit::uninit(); 4096];
        loop {
            let Some(watcher) = self.watcher.take() else { return };
            let mut lost = false;
            let more = sys::read_changes(sys::borrow(&watcher), &mut space, |change| match change {
                Change::Name { watch, name, present } => self.apply(watch, name, present),
                Change::Ended { watch } => {
                    if let Some(key) = self.by_watch.remove(&watch) {
                        self.remove(&key);
                    }
                }
                Change::Lost => lost = true,
            });
            if lost || more.is_err() {
                // With the queue all its watches end.
                *self = State { clock: self.clock, ..State::default() };
                return;
            }
            self.watcher = Some(watcher);
            self.end_watches();
            if more == Ok(false) {
                return;
            }
        }
    }

    fn apply(&mut self, watch: i32, name: &[u8], present: bool) {
        let Some(key) = self.by_watch.get(&watch).copied() else { return };
        let Some(indexed) = self.by_key.get_mut(&key) else { return };
        let fits = match &mut indexed.stage {
            Stage::Filling { journal, .. } => {
                journal.push((DiskName::new(name), present));
                journal.len() < JOURNAL
            }
            Stage::Ready(names) => {
                let before = names.bytes();
                let fits = names.apply(name, present);
                self.bytes = self.bytes + names.bytes() - before;
                fits
            }
        };
        if !fits {
            self.forget(&key);
        }
    }

    fn end_watches(&mut self) {
        let Some(watcher) = &self.watcher else { return };
        for watch in self.unwatched.drain(..) {
            // It may have ended by itself.
            let _ = sys::unwatch(sys::borrow(watcher), watch);
        }
    }

    /// Ends an index and its watch.
    fn forget(&mut self, key: &BackendKey) {
        if let Some(watch) = self.remove(key) {
            self.by_watch.remove(&watch);
            self.unwatched.push(watch);
            self.end_watches();
        }
    }

    fn remove(&mut self, key: &BackendKey) -> Option<i32> {
        let indexed = self.by_key.remove(key)?;
        if let Stage::Ready(names) = &indexed.stage {
            self.bytes -= names.bytes();
        }
        Some(indexed.watch)
    }

    /// Drops the longest unused indexes: a sixteenth of them, and on until the memory is half free.
    fn make_room(&mut self) {
        let ready = self.by_key.iter().filter(|(_, indexed)| matches!(indexed.stage, Stage::Ready(_)));
        let mut ready: Vec<(u64, BackendKey)> = ready.map(|(key, indexed)| (indexed.used, *key)).collect();
        ready.sort_unstable();
        let share = ready.len().div_ceil(16);
        for (index, (_, key)) in ready.iter().enumerate() {
            if index >= share && self.bytes <= BYTES / 2 {
                break;
            }
            self.forget(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(name: &str) -> FoldedName {
        Fold::Insensitive.fold(&Name::from_str(name).unwrap())
    }

    fn spellings(index: &NameIndex, name: &str) -> Vec<String> {
        let mut names: Vec<String> = index.spellings(&folded(name)).iter().map(DiskName::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn spellings_of_one_name() {
        let is = |disk: &[u8], name: &str| is_spelling(disk, &folded(name));
        assert!(is(b"ReadMe", "README"));
        assert!(!is(b"ReadMe2", "README"));
        assert!(is("straße".as_bytes(), "STRAßE"));
        assert!(is("ɐ".as_bytes(), "Ɐ"));
        assert!(is(b"A:b.", "a\u{f03a}B\u{f02e}"));
        assert!(!is(b"A:c.", "a\u{f03a}B\u{f02e}"));
        assert!(is(b"\xe9x", "\u{f0e9}X"));
        assert!(!is("\u{f03a}".as_bytes(), "\u{f03a}"), "the client means a colon");
    }

    #[test]
    fn names_come_and_go() {
        let mut index = NameIndex::new();
        for round in 0..3 {
            for number in 0..10_000 {
                assert!(index.insert(format!("Name-{number}").as_bytes()));
            }
            index.insert("Ärger".as_bytes());
            index.insert("ärger".as_bytes());
            assert_eq!(spellings(&index, "nAME-77"), ["Name-77"], "{round}");
            assert_eq!(spellings(&index, "ÄRGER"), ["Ärger", "ärger"]);
            assert!(spellings(&index, "name-10000").is_empty());
            for number in 0..10_000 {
                index.remove(format!("Name-{number}").as_bytes());
            }
            assert!(spellings(&index, "name-77").is_empty());
            assert_eq!(spellings(&index, "ÄRGER"), ["Ärger", "ärger"]);
        }
        assert!(index.arena.len() < 20_000, "what is removed leaves no memory behind");
        assert!(!index.insert(&[b'x'; 256]));
    }
}
