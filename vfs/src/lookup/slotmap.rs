//! The map of all slots, (directory, folded name) to slot.
//!
//! The one file that knows which concurrent map it is: hash tables, each behind a lock of its own, as DashMap has them,
//! whose memory is known and through whose buckets the evictor's hand can go. No guard of the map leaves it, and under
//! one only a slot's own mutex is ever taken. A slot that anybody holds by an `Arc` stays in the map, so that there is
//! only ever one slot of a name: it is taken out under its shard's lock, when only the map is left to refer to it.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::RwLock;

use super::evict::{Budget, Siblings, Turn};
use super::slot::Slot;
use crate::fold::{Folded, FoldedName};
use crate::rank::{Level, lock};
use crate::sync::{Defect, defect};

pub(super) const SHARDS: usize = 64;

/// A part of the map, on cache lines of its own.
#[repr(align(128))]
struct Shard<F>(RwLock<Table<F>>);

struct Table<F> {
    slots: HashTable<Arc<Slot<F>>>,
    /// The bucket at which the evictor goes on.
    hand: usize,
}

pub(crate) struct SlotMap<F> {
    shards: Box<[Shard<F>]>,
    hasher: ahash::RandomState,
    /// The shard at which the evictor goes on.
    hand: AtomicUsize,
    budget: Arc<Budget>,
}

/// Which shard: by bits that the tables themselves do not look at first.
fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

impl<F> SlotMap<F> {
    pub(crate) fn new(budget: &Arc<Budget>) -> SlotMap<F> {
        let shard = || Shard(RwLock::new(Table { slots: HashTable::new(), hand: 0 }));
        SlotMap {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: ahash::RandomState::new(),
            hand: AtomicUsize::new(0),
            budget: Arc::clone(budget),
        }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    #[inline(always)]
    pub(crate) fn hash(&self, dir: &Siblings, fold: &Folded) -> u64 {
        let mut state = self.hasher.build_hasher();
        fold.hash_within(dir.id.0, &mut state);
        state.finish()
    }

    fn hash_of(&self, slot: &Slot<F>) -> u64 {
        self.hash(&slot.dir, &Folded::of(&slot.fold))
    }

    /// What `f` makes of the slot, if it is there. `f` may take the slot's mutex and nothing else.
    #[inline]
    pub(crate) fn peek<R>(&self, dir: &Siblings, fold: &Folded, f: impl FnOnce(&Slot<F>) -> R) -> Option<R> {
        if cfg!(shuttle) {
            // A checked mutex is a point to switch tasks at, which must not happen under the map's own lock.
            return self.find_folded(dir, fold).map(|slot| f(&slot));
        }
        let hash = self.hash(dir, fold);
        let _shard = lock(Level::Shard);
        let table = self.shards[shard_of(hash)].0.read();
        table.slots.find(hash, |slot| slot.is(dir, fold)).map(|slot| f(slot))
    }

    /// The slot, if it is there.
    pub(crate) fn find(&self, dir: &Siblings, fold: &FoldedName) -> Option<Arc<Slot<F>>> {
        self.find_folded(dir, &Folded::of(fold))
    }

    fn find_folded(&self, dir: &Siblings, fold: &Folded) -> Option<Arc<Slot<F>>> {
        let hash = self.hash(dir, fold);
        let table = self.shards[shard_of(hash)].0.read();
        table.slots.find(hash, |slot| slot.is(dir, fold)).map(Arc::clone)
    }

    /// The slot, made if it is not there. The second value: how many were evicted for it.
    pub(crate) fn find_or_make(&self, dir: &Arc<Siblings>, fold: &FoldedName) -> (Arc<Slot<F>>, usize) {
        let sought = &Folded::of(fold);
        if let Some(found) = self.find_folded(dir, sought) {
            found.touch();
            return (found, 0);
        }
        let hash = self.hash(dir, sought);
        let shard = &self.shards[shard_of(hash)].0;
        let made = Arc::new(Slot::new(dir, fold.clone()));
        {
            let mut table = shard.write();
            let before = table.slots.allocation_size();
            match table.slots.entry(hash, |slot| slot.is(dir, sought), |slot| self.hash_of(slot)) {
                Entry::Occupied(entry) => return (Arc::clone(entry.get()), 0),
                Entry::Vacant(entry) => drop(entry.insert(Arc::clone(&made))),
            }
            let grown = table.slots.allocation_size() - before;
            if grown > 0 {
                self.budget.add(grown);
            }
        }
        dir.came(made.bytes());
        let evicted = self.relieve(dir);
        (made, evicted)
    }

    /// Takes a slot out that says nothing: if nobody else holds it by now, and nothing is known of its name, or, where
    /// somebody else knows it (`absent`), that it is absent. It is still in the processor's caches: the evictor would
    /// have to fetch it.
    pub(crate) fn let_go(&self, slot: Arc<Slot<F>>, absent: bool) {
        let hash = self.hash_of(&slot);
        let at = Arc::as_ptr(&slot);
        drop(slot);
        let gone = {
            let _shard = lock(Level::Shard);
            let mut table = self.shards[shard_of(hash)].0.write();
            // Whatever slot is there now: the one that was meant may have gone.
            let Ok(mut entry) = table.slots.find_entry(hash, |slot| std::ptr::eq(Arc::as_ptr(slot), at))
            else {
                return;
            };
            let says_nothing = match Arc::get_mut(entry.get_mut()) {
                Some(unheld) => unheld.is_absent() && (absent || !unheld.is_known()),
                None => defect(Defect::LetsGoOfHeld),
            };
            if !says_nothing {
                return;
            }
            entry.remove().0
        };
        gone.dir.went(gone.bytes(), true);
    }

    /// Moves the evictor's hand over so many buckets, or to the end of the table that it stands in (the second value),
    /// asks `turn` about each slot that nobody holds, and takes out those that are to go. `turn` is told how many these
    /// are so far.
    pub(super) fn pass(
        &self,
        buckets: usize,
        mut turn: impl FnMut(&mut Slot<F>, usize) -> Turn,
    ) -> (Vec<Arc<Slot<F>>>, bool) {
        let mut gone = Vec::new();
        let shard = self.hand.load(Ordering::Relaxed);
        let _shard = lock(Level::Shard);
        let mut table = self.shards[shard % SHARDS].0.write();
        let Table { slots, hand } = &mut *table;
        for _ in 0..buckets {
            if *hand >= slots.num_buckets() {
                *hand = 0;
                // Unless somebody else was there at the same time.
                let next = shard.wrapping_add(1);
                let _ = self.hand.compare_exchange(shard, next, Ordering::Relaxed, Ordering::Relaxed);
                if slots.len() < slots.capacity() / 4 {
                    let before = slots.allocation_size();
                    slots.shrink_to(slots.len() * 2, |slot| self.hash_of(slot));
                    self.budget.sub(before - slots.allocation_size());
                }
                return (gone, true);
            }
            // Nobody can take hold of it either, as long as the shard is locked.
            let unheld = slots.get_bucket_mut(*hand).and_then(Arc::get_mut);
            match unheld.map_or(Turn::Stays, |slot| turn(slot, gone.len())) {
                Turn::Stays => {}
                Turn::Goes => {
                    if let Ok(entry) = slots.get_bucket_entry(*hand) {
                        gone.push(entry.remove().0);
                    }
                }
                Turn::Enough => break,
            }
            *hand += 1;
        }
        (gone, false)
    }

    /// Every slot there is, for checks.
    pub(crate) fn all(&self) -> Vec<Arc<Slot<F>>> {
        self.shards
            .iter()
            .flat_map(|shard| shard.0.read().slots.iter().cloned().collect::<Vec<_>>())
            .collect()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::super::slot::Value;
    use super::*;
    use crate::fold::Fold;
    use crate::name::Name;
    use crate::node::NodeId;

    fn map(names_max: usize) -> (SlotMap<()>, impl Fn(u64) -> Arc<Siblings>) {
        let budget = Budget::new(usize::MAX, names_max);
        (SlotMap::new(&budget), move |id| Siblings::new(NodeId(id), &budget))
    }

    fn folded(name: &str) -> FoldedName {
        Fold::Insensitive.fold(&Name::from_str(name).expect("a name"))
    }

    #[test]
    fn one_slot_a_name() {
        let (map, dir) = map(100);
        let (one, two) = (dir(1), dir(2));
        let (a, _) = map.find_or_make(&one, &folded("a"));
        assert!(Arc::ptr_eq(&a, &map.find_or_make(&one, &folded("A")).0));
        assert!(!Arc::ptr_eq(&a, &map.find_or_make(&two, &folded("a")).0));
        assert!(map.find(&one, &folded("b")).is_none());
        assert_eq!(map.budget().names(), 2);
    }

    async fn know(map: &SlotMap<()>, dir: &Arc<Siblings>, name: &str) {
        let (slot, _) = map.find_or_make(dir, &folded(name));
        slot.claim().await.publish(Value::Negative);
    }

    #[tokio::test]
    async fn a_flood_of_names_does_not_drive_out_what_is_used() {
        let (map, dir) = map(1_000);
        let (one, two) = (dir(1), dir(2));
        for i in 0..500 {
            know(&map, &one, &format!("used{i}")).await;
        }
        for i in 0..50_000 {
            know(&map, &two, &i.to_string()).await;
            let used = Folded::of(&folded(&format!("used{}", i % 500)));
            map.peek(&one, &used, Slot::touch);
        }
        let left = (0..500).filter(|i| map.find(&one, &folded(&format!("used{i}"))).is_some()).count();
        assert!(left > 450, "{left} of 500 are left");
    }

    #[test]
    fn the_bound_holds_and_what_is_held_stays() {
        let (map, dir) = map(1_000);
        let (one, two) = (dir(1), dir(2));
        let held: Vec<_> = (0..100).map(|i| map.find_or_make(&one, &folded(&format!("held{i}"))).0).collect();
        for i in 0..20_000 {
            map.find_or_make(&two, &folded(&format!("{i}")));
            assert!(map.budget().names() <= 1_100, "{}", map.budget().names());
        }
        for (i, slot) in held.iter().enumerate() {
            let found = map.find(&one, &folded(&format!("held{i}"))).expect("a held slot stays");
            assert!(Arc::ptr_eq(slot, &found));
        }
        assert_eq!(map.all().len(), map.budget().names());
    }
}
