//! The names of a directory in memory. They lie in parts by their hashes, each behind a lock of its own, so that clients
//! who change different names seldom wait for each other.
//!
//! Of one directory's parts several are locked in the order of their numbers. A listing locks them all: a page of it is
//! one step, like any other verb.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};

use super::Inode;
use crate::error::{FsError, Result};
use crate::fold::FoldedName;
use crate::name::DiskName;

const PARTS: usize = 8;

/// What the parts take.
pub(super) const BYTES: u64 = size_of::<Names>() as u64;

#[derive(Default)]
pub(super) struct Names {
    parts: [Part; PARTS],
    last_position: AtomicU64,
    /// Set with all parts locked.
    removed: AtomicBool,
}

/// A part, on a cache line of its own.
#[repr(align(64))]
#[derive(Default)]
struct Part(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_name: HashTable<Entry>,
    /// The hash of the name at each position. A name has the same as long as it stands.
    by_position: BTreeMap<u64, u64>,
}

/// A folded name and its hash.
#[derive(PartialEq, Eq)]
pub(super) struct Key {
    fold: FoldedName,
    hash: u64,
}

/// What stands in a directory.
pub(super) struct Entry {
    key: Key,
    pub(super) name: DiskName,
    pub(super) inode: Arc<Inode>,
    position: u64,
}

/// A name that is to be inserted, made before its part is locked.
pub(super) struct NewName {
    pub(super) key: Key,
    pub(super) name: DiskName,
}

impl Key {
    pub(super) fn new(fold: FoldedName, hasher: &ahash::RandomState) -> Key {
        let hash = hasher.hash_one(fold.as_bytes());
        Key { fold, hash }
    }

    /// Which part: by bits that the tables themselves do not look at first.
    fn part(&self) -> usize {
        (self.hash >> 40) as usize % PARTS
    }
}

/// A part of a directory's names, locked.
pub(super) struct Locked<'a> {
    names: &'a Names,
    table: MutexGuard<'a, Table>,
}

impl Locked<'_> {
    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.table.by_name.find(key.hash, |entry| entry.key == *key)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.table.by_name.find_mut(key.hash, |entry| entry.key == *key)
    }

    /// Enters a name that is not there.
    pub(super) fn insert(&mut self, NewName { key, name }: NewName, inode: Arc<Inode>) {
        let position = self.names.last_position.fetch_add(1, Ordering::Relaxed) + 1;
        let hash = key.hash;
        self.table.by_position.insert(position, hash);
        self.table.by_name.insert_unique(hash, Entry { key, name, inode, position }, |entry| entry.key.hash);
    }

    /// What is taken out had better be dropped when the part is not locked any more.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Entry> {
        let found = self.table.by_name.find_entry(key.hash, |entry| entry.key == *key).ok()?;
        let (entry, _) = found.remove();
        self.table.by_position.remove(&entry.position);
        Some(entry)
    }
}

/// All parts, locked.
pub(super) struct All<'a> {
    tables: [MutexGuard<'a, Table>; PARTS],
}

impl All<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.tables.iter().flat_map(|table| table.by_name.iter())
    }

    /// The names at positions from `from` on, in the order of their positions, each with its own.
    pub(super) fn iter_from(&self, from: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let mut parts = self.tables.each_ref().map(|table| {
            let at = |(position, hash): (&u64, &u64)| {
                let entry = table.by_name.find(*hash, |entry| entry.position == *position)?;
                Some((*position, entry))
            };
            table.by_position.range(from..).filter_map(at).peekable()
        });
        std::iter::from_fn(move || {
            let first = |part: &mut Peekable<_>| part.peek().map(|(position, _): &(u64, &Entry)| *position);
            let least =
                parts.iter_mut().filter_map(|part| Some((first(part)?, part))).min_by_key(|(at, _)| *at);
            least.and_then(|(_, part)| part.next())
        })
    }
}

impl Names {
    fn part(&self, number: usize) -> Result<Locked<'_>> {
        let table = self.parts[number].0.lock();
        if self.removed.load(Ordering::Relaxed) {
            return Err(FsError::NotFound);
        }
        Ok(Locked { names: self, table })
    }

    /// The part that a name lies in.
    ///
    /// # Errors
    /// `NotFound` if the directory was removed.
    pub(super) fn lock(&self, key: &Key) -> Result<Locked<'_>> {
        self.part(key.part())
    }

    /// The parts of two names, and of one directory; `None`: the second is the first.
    ///
    /// # Errors
    /// As [`Names::lock`].
    pub(super) fn lock_two(&self, a: &Key, b: &Key) -> Result<(Locked<'_>, Option<Locked<'_>>)> {
        let (a, b) = (a.part(), b.part());
        Ok(match a.cmp(&b) {
            std::cmp::Ordering::Equal => (self.part(a)?, None),
            std::cmp::Ordering::Less => {
                let first = self.part(a)?;
                (first, Some(self.part(b)?))
            }
            std::cmp::Ordering::Greater => {
                let second = self.part(b)?;
                (self.part(a)?, Some(second))
            }
        })
    }

    /// All parts.
    ///
    /// # Errors
    /// As [`Names::lock`].
    pub(super) fn lock_all(&self) -> Result<All<'_>> {
        let tables = self.parts.each_ref().map(|part| part.0.lock());
        if self.removed.load(Ordering::Relaxed) {
            return Err(FsError::NotFound);
        }
        Ok(All { tables })
    }

    /// The directory goes, if it is empty: nothing gets a name in it any more.
    ///
    /// # Errors
    /// `NotEmpty`, and as [`Names::lock`].
    pub(super) fn remove_all(&self) -> Result<()> {
        let all = self.lock_all()?;
        if all.iter().next().is_some() {
            return Err(FsError::NotEmpty);
        }
        self.removed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// For the end of a directory: what stands in it.
    pub(super) fn take(&mut self) -> Vec<Arc<Inode>> {
        let tables = self.parts.iter_mut().map(|part| std::mem::take(part.0.get_mut()));
        tables.flat_map(|table| table.by_name).map(|entry| entry.inode).collect()
    }
}
