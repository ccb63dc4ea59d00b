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

const PARTS: usize = 16;

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

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::fold::Fold;
    use crate::memory::{Memory, MemoryOptions};
    use crate::name::Name;

    /// One of few names, in lower or upper case.
    fn name(number: u16, upper: bool) -> Name {
        let text = format!("name {number}");
        Name::from_str(&if upper { text.to_uppercase() } else { text }).expect("a name")
    }

    struct Bed {
        memory: Arc<Memory>,
        names: Names,
    }

    impl Bed {
        fn new() -> Bed {
            Bed { memory: Memory::new(MemoryOptions::default()), names: Names::default() }
        }

        fn key(&self, name: &Name) -> Key {
            Key::new(Fold::Insensitive.fold(name), &self.memory.volume.hasher)
        }

        fn insert(&self, name: &Name) -> u64 {
            let how = crate::CreateHow::file();
            let inode = Inode::new(&self.memory.volume, &how).expect("there is room");
            let number = inode.number;
            let new = NewName { key: self.key(name), name: name.to_disk() };
            self.names.lock(&self.key(name)).expect("is there").insert(new, inode);
            number
        }

        fn listed(&self, from: u64) -> Vec<(u64, DiskName)> {
            let all = self.names.lock_all().expect("is there");
            all.iter_from(from).map(|(position, entry)| (position, entry.name.clone())).collect()
        }
    }

    proptest! {
        /// Names come and go; those that are left are found in any case, and listed once each, in the order in which they
        /// came, from wherever a page begins.
        #[test]
        fn a_listing_has_the_names_of_all_parts_in_their_order(
            changes in prop::collection::vec((0..40_u16, any::<bool>()), 0..200), cut in any::<prop::sample::Index>())
        {
            let bed = Bed::new();
            let (mut order, mut inodes) = (Vec::new(), HashMap::new());
            for (number, upper) in changes {
                let name = name(number, upper);
                let key = bed.key(&name);
                let gone = bed.names.lock(&key).unwrap().remove(&key);
                prop_assert_eq!(gone.map(|entry| entry.inode.number), inodes.remove(&number));
                if let Some(at) = order.iter().position(|(known, _)| *known == number) {
                    order.remove(at);
                } else {
                    inodes.insert(number, bed.insert(&name));
                    order.push((number, name.to_disk()));
                }
            }
            for number in 0..40 {
                let key = bed.key(&name(number, false));
                let found = bed.names.lock(&key).unwrap().get(&key).map(|entry| entry.inode.number);
                prop_assert_eq!(found, inodes.get(&number).copied());
            }
            let all = bed.listed(0);
            let spelled: Vec<_> = all.iter().map(|(_, name)| name.clone()).collect();
            prop_assert_eq!(spelled, order.into_iter().map(|(_, name)| name).collect::<Vec<_>>());
            prop_assert!(all.is_sorted_by(|(a, _), (b, _)| a < b), "each has a position of its own");
            if !all.is_empty() {
                let cut = cut.index(all.len());
                prop_assert_eq!(&bed.listed(all[cut].0)[..], &all[cut..]);
                prop_assert_eq!(&bed.listed(all[cut].0 + 1)[..], &all[cut + 1..]);
            }
        }
    }

    #[test]
    fn names_lie_in_all_parts_and_two_are_locked_whichever_comes_first() {
        let bed = Bed::new();
        let mut parts = [0; PARTS];
        for number in 0..1000 {
            let (a, b) = (bed.key(&name(number, false)), bed.key(&name(number + 1, true)));
            parts[a.part()] += 1;
            for (a, b) in [(&a, &b), (&b, &a)] {
                let (first, second) = bed.names.lock_two(a, b).expect("is there");
                assert_eq!(second.is_none(), a.part() == b.part(), "one lock for one part");
                assert!(bed.names.parts[a.part()].0.is_locked() && bed.names.parts[b.part()].0.is_locked());
                drop((first, second));
            }
        }
        assert!(parts.iter().all(|names| *names > 0), "{parts:?}");
    }

    #[test]
    fn an_empty_directory_goes_and_gets_no_names_any_more() {
        let bed = Bed::new();
        let only = name(1, false);
        bed.insert(&only);
        assert_eq!(bed.names.remove_all(), Err(FsError::NotEmpty));
        let key = bed.key(&only);
        assert!(bed.names.lock(&key).expect("is there").remove(&key).is_some());
        assert_eq!(bed.names.remove_all(), Ok(()));
        assert!(matches!(bed.names.lock(&key), Err(FsError::NotFound)));
        assert!(matches!(bed.names.lock_two(&key, &bed.key(&name(2, false))), Err(FsError::NotFound)));
        assert_eq!(bed.names.remove_all(), Err(FsError::NotFound));
    }
}
