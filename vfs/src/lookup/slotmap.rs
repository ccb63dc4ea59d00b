//! The map of all slots, (directory, folded name) to slot, and its bound.
//!
//! The one file that knows which concurrent map it is. No guard of the map leaves it, and under one only a slot's own
//! mutex is ever taken. A slot that anybody holds by an `Arc` stays in the map, so that there is only ever one slot of
//! a name: it is taken out under its shard's lock, when only the map and the evictor's ring are left to refer to it.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::slot::Slot;
use crate::fold::FoldedName;
use crate::node::NodeId;
use crate::rank::{Level, lock};
use crate::sync::{Mutex, mutex};

/// A slot as the map keeps it: the key is in the slot, once.
struct SlotRef<F>(Arc<Slot<F>>);

/// What a slot is found by, wherever it lies: a hit allocates nothing.
trait Key {
    fn key(&self) -> (NodeId, &[u8]);
}

impl<F> Key for SlotRef<F> {
    fn key(&self) -> (NodeId, &[u8]) {
        (self.0.dir, self.0.fold.as_bytes())
    }
}

impl Key for (NodeId, &[u8]) {
    fn key(&self) -> (NodeId, &[u8]) {
        *self
    }
}

impl Hash for dyn Key + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (dir, fold) = self.key();
        state.write_u64(dir.0);
        state.write(fold);
    }
}

impl PartialEq for dyn Key + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn Key + '_ {}

impl<F> Hash for SlotRef<F> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self as &dyn Key).hash(state);
    }
}

impl<F> PartialEq for SlotRef<F> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<F> Eq for SlotRef<F> {}

impl<'a, F: 'a> Borrow<dyn Key + 'a> for SlotRef<F> {
    fn borrow(&self) -> &(dyn Key + 'a) {
        self
    }
}

/// A part of all slots, over which the evictor's hand goes round.
struct Ring<F> {
    slots: Vec<Arc<Slot<F>>>,
    hand: usize,
}

const RINGS: usize = 64;
/// How many slots one insertion above the bound looks at: more than the two that keep pace, and bounded.
const STEPS: usize = 32;

pub(crate) struct SlotMap<F> {
    map: DashMap<SlotRef<F>, (), ahash::RandomState>,
    rings: Box<[Mutex<Ring<F>>]>,
    count: AtomicUsize,
    /// Which ring gets the next slot, and which one is looked at next.
    turn: AtomicUsize,
    max: usize,
}

impl<F> SlotMap<F> {
    pub(crate) fn new(max: usize) -> SlotMap<F> {
        SlotMap {
            map: DashMap::with_hasher(ahash::RandomState::new()),
            rings: (0..RINGS).map(|_| mutex(Level::Ring, Ring { slots: Vec::new(), hand: 0 })).collect(),
            count: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            max: max.max(1),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// What `f` makes of the slot, if it is there. `f` may take the slot's mutex and nothing else.
    #[inline]
    pub(crate) fn peek<R>(&self, dir: NodeId, fold: &FoldedName, f: impl FnOnce(&Slot<F>) -> R) -> Option<R> {
        if cfg!(shuttle) {
            // A checked mutex is a point to switch tasks at, which must not happen under the map's own lock.
            return self.find(dir, fold).map(|slot| f(&slot));
        }
        let _shard = lock(Level::Shard);
        self.map.get(&(dir, fold.as_bytes()) as &dyn Key).map(|found| f(&found.key().0))
    }

    /// The slot, if it is there.
    pub(crate) fn find(&self, dir: NodeId, fold: &FoldedName) -> Option<Arc<Slot<F>>> {
        self.map.get(&(dir, fold.as_bytes()) as &dyn Key).map(|found| Arc::clone(&found.key().0))
    }

    /// The slot, made if it is not there. The second value: how many were evicted for it.
    pub(crate) fn find_or_make(&self, dir: NodeId, fold: &FoldedName) -> (Arc<Slot<F>>, usize) {
        if let Some(found) = self.find(dir, fold) {
            found.touch();
            return (found, 0);
        }
        let made = Arc::new(Slot::new(dir, fold.clone()));
        match self.map.entry(SlotRef(Arc::clone(&made))) {
            Entry::Occupied(entry) => return (Arc::clone(&entry.key().0), 0),
            Entry::Vacant(entry) => drop(entry.insert(())),
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.rings[turn % RINGS].lock().slots.push(Arc::clone(&made));
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let evicted = if count > self.max { self.evict(turn + 1, count - self.max) } else { 0 };
        (made, evicted)
    }

    /// Goes round and throws out up to two slots that nobody used for a whole round.
    fn evict(&self, from: usize, wanted: usize) -> usize {
        let wanted = wanted.min(2);
        let mut victims = Vec::new();
        let mut steps = STEPS;
        for ring in (0..RINGS).map(|ring| &self.rings[(from + ring) % RINGS]) {
            let mut ring = ring.lock();
            for _ in 0..ring.slots.len() {
                if victims.len() == wanted || steps == 0 {
                    break;
                }
                steps -= 1;
                let Ring { slots, hand } = &mut *ring;
                *hand %= slots.len();
                let slot = &slots[*hand];
                if slot.used.swap(false, Ordering::Relaxed) || slot.is_held() || !self.remove(slot) {
                    *hand += 1;
                } else {
                    victims.push(slots.swap_remove(*hand));
                }
            }
            if victims.len() == wanted || steps == 0 {
                break;
            }
        }
        self.count.fetch_sub(victims.len(), Ordering::Relaxed);
        // Dropped outside all locks: a victim may be the last to hold its node.
        victims.len()
    }

    /// Takes a slot out of the map if only the map and a ring refer to it.
    fn remove(&self, slot: &Arc<Slot<F>>) -> bool {
        let key = (slot.dir, slot.fold.as_bytes());
        let _shard = lock(Level::Shard);
        self.map.remove_if(&key as &dyn Key, |found, ()| Arc::strong_count(&found.0) == 2).is_some()
    }

    /// Every slot there is, for checks.
    pub(crate) fn all(&self) -> Vec<Arc<Slot<F>>> {
        self.map.iter().map(|found| Arc::clone(&found.key().0)).collect()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::fold::Fold;
    use crate::name::Name;

    fn folded(name: &str) -> FoldedName {
        Fold::Insensitive.fold(&Name::from_str(name).expect("a name"))
    }

    #[test]
    fn one_slot_a_name() {
        let map = SlotMap::<()>::new(100);
        let (a, _) = map.find_or_make(NodeId(1), &folded("a"));
        assert!(Arc::ptr_eq(&a, &map.find_or_make(NodeId(1), &folded("A")).0));
        assert!(!Arc::ptr_eq(&a, &map.find_or_make(NodeId(2), &folded("a")).0));
        assert!(map.find(NodeId(1), &folded("b")).is_none());
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn a_flood_of_names_does_not_drive_out_what_is_used() {
        let map = SlotMap::<()>::new(1_000);
        for i in 0..500 {
            map.find_or_make(NodeId(1), &folded(&format!("used{i}")));
        }
        for i in 0..50_000 {
            map.find_or_make(NodeId(2), &folded(&format!("{i}")));
            let used = folded(&format!("used{}", i % 500));
            map.peek(NodeId(1), &used, Slot::touch);
        }
        let left = (0..500).filter(|i| map.find(NodeId(1), &folded(&format!("used{i}"))).is_some()).count();
        assert!(left > 450, "{left} of 500 are left");
    }

    #[test]
    fn the_bound_holds_and_what_is_held_stays() {
        let map = SlotMap::<()>::new(1_000);
        let held: Vec<_> =
            (0..100).map(|i| map.find_or_make(NodeId(1), &folded(&format!("held{i}"))).0).collect();
        for i in 0..20_000 {
            map.find_or_make(NodeId(2), &folded(&format!("{i}")));
            assert!(map.len() <= 1_100, "{}", map.len());
        }
        for (i, slot) in held.iter().enumerate() {
            let found = map.find(NodeId(1), &folded(&format!("held{i}"))).expect("a held slot stays");
            assert!(Arc::ptr_eq(slot, &found));
        }
        assert_eq!(map.all().len(), map.len());
    }
}
