//! The cache's memory: what it takes, what it may take, and what goes when that is not enough.
//!
//! It is counted, in bytes as they are asked of the allocator: whoever makes a slot, a link or a node enters it in the
//! [`Budget`], and whoever ends it takes it out; a table enters what it grows by. What is in use is counted and stays:
//! a slot that somebody holds, a name that is open.
//!
//! A hand goes round the tables of the slot map, one after the other (CLOCK: it moves only when room is needed). A slot
//! that was asked for again since the hand last came by is passed over once; one that was asked for only once goes, so
//! that a walk over a million names does not drive out those in use. Taking a slot out of its table, under the shard's
//! lock, when nothing but the table refers to it, cannot be noticed but by its memory and by the backend that is asked
//! again: whoever wants the name next makes a slot for it.
//!
//! Slots of names that do not exist, or of which nothing is known, may take a quarter of the budget, and those of one
//! directory a quarter of that: a client that asks for names at random drives out what
//! others asked for at random, and nothing else. (The cache does not know clients. That one client may fill the share
//! of the directory that it asks in is the price.)
//!
//! Where a directory has an index, a name that goes takes its slot with it: the slot would say no more than the index does,
//! and the hand would have to come by for it.
//!
//! Indexes of directories' names may take half of the budget. An index says of a name what dozens of slots would take to
//! say, so within that half slots make room for it.
//!
//! A sixteenth of the budget is left to what is not counted: a table's memory from before it grew, what the allocator
//! rounds up, names on their way from the storage.
//!
//! A link goes with its slot, a node with the last of its links, when nothing else refers to them: the table of nodes
//! keeps none alive. A directory whose names are in the cache keeps its slot for as long as others can go, since the
//! names are found by its number, and it would have another if it went and came again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use super::slot::Slot;
use super::slotmap::{SHARDS, SlotMap};
use crate::counters::{SEATS, Tally};
use crate::node::NodeId;

/// What an `Arc` has beside its content.
pub(crate) const ARC: usize = 2 * size_of::<usize>();

/// How many buckets the hand passes at a time, and how many slots go while there is still some room: more than the one
/// that was made.
const STEPS: usize = 64;
const VICTIMS: usize = 4;

/// What is wanted of the evictor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    None,
    /// Little room is left: a few slots go.
    Soft,
    /// There is no room left: slots go until there is.
    Hard,
}

/// What is tallied: bytes, slots, and the part of the bytes that slots of absent and unknown names take.
const BYTES: usize = 0;
const NAMES: usize = 1;
const ABSENT: usize = 2;

/// What all threads together may keep to themselves of what there may be: one part in so many. Of the bytes that is well
/// within the sixteenth that is left to what is not counted.
const UNTOLD: usize = 64;
/// What one thread may keep to itself at most, in bytes and in slots.
const UNTOLD_BYTES: usize = 32 << 10;
const UNTOLD_NAMES: usize = 128;

/// What the cache takes and may take.
pub(crate) struct Budget {
    tally: Tally<3>,
    /// All of the cache was gone through and too much of it was in use: it is not gone through again before it takes so
    /// many bytes.
    pinned: AtomicUsize,
    /// Somebody goes through all of it just now.
    rounding: AtomicBool,
    /// What may be counted.
    bytes_max: usize,
    names_max: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize, names_max: usize) -> Arc<Budget> {
        let untold = |max: usize, most: usize| (max / (UNTOLD * SEATS)).min(most);
        let bytes = untold(bytes_max, UNTOLD_BYTES);
        Arc::new(Budget {
            tally: Tally::new([bytes, untold(names_max, UNTOLD_NAMES), bytes / 4]),
            pinned: AtomicUsize::new(0),
            rounding: AtomicBool::new(false),
            bytes_max: bytes_max - bytes_max / 16,
            names_max,
        })
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.tally.add(BYTES, bytes as isize);
    }

    pub(crate) fn sub(&self, bytes: usize) {
        self.tally.add(BYTES, -(bytes as isize));
    }

    /// What the cache takes now.
    pub(crate) fn bytes(&self) -> usize {
        self.tally.sum(BYTES)
    }

    /// How many slots there are.
    pub(crate) fn names(&self) -> usize {
        self.tally.sum(NAMES)
    }

    /// What slots of absent and unknown names take now.
    pub(crate) fn absent(&self) -> usize {
        self.tally.sum(ABSENT)
    }

    fn absent_max(&self) -> usize {
        self.bytes_max / 4
    }

    /// What the indexes of all directories may take: beyond it the longest unused ones go.
    pub(crate) fn indexes_max(&self) -> usize {
        self.bytes_max / 2
    }

    fn is_short(&self) -> bool {
        self.tally.about(BYTES) > self.bytes_max || self.tally.about(NAMES) > self.names_max
    }

    fn is_nearly_short(&self) -> bool {
        nearly(self.tally.about(BYTES), self.bytes_max)
    }

    fn is_over(&self) -> bool {
        self.is_short() || self.tally.about(ABSENT) > self.absent_max()
    }

    /// Absent names take all that they may, at all or in this directory.
    fn is_crowded(&self, siblings: &Siblings) -> bool {
        nearly(self.tally.about(ABSENT), self.absent_max())
            || siblings.absent.load(Ordering::Relaxed) > self.absent_max() / 4
    }

    /// What an insertion beside `siblings` calls for.
    fn pressure(&self, siblings: &Siblings) -> Pressure {
        if self.is_over() && self.tally.about(BYTES) >= self.pinned.load(Ordering::Relaxed) {
            Pressure::Hard
        } else if self.is_nearly_short() || self.is_crowded(siblings) {
            Pressure::Soft
        } else {
            Pressure::None
        }
    }

    /// Begins to go through the whole cache, unless somebody else does.
    fn begin_round(&self) -> Option<Round<'_>> {
        (!self.rounding.swap(true, Ordering::Acquire)).then_some(Round(self))
    }
}

fn nearly(now: usize, max: usize) -> bool {
    now > max - max / 16
}

struct Round<'a>(&'a Budget);

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let Budget { pinned, rounding, bytes_max, .. } = self.0;
        let vain = if self.0.is_over() { self.0.tally.about(BYTES) + bytes_max / 64 } else { 0 };
        pinned.store(vain, Ordering::Relaxed);
        rounding.store(false, Ordering::Release);
    }
}

/// What the slots of one directory have in common. They keep it, and it does not keep the directory.
pub(crate) struct Siblings {
    pub(crate) id: NodeId,
    names: AtomicU32,
    /// The bytes of those that are absent or unknown.
    absent: AtomicUsize,
    budget: Arc<Budget>,
}

impl Siblings {
    pub(crate) fn new(id: NodeId, budget: &Arc<Budget>) -> Arc<Siblings> {
        let (names, absent) = (AtomicU32::new(0), AtomicUsize::new(0));
        Arc::new(Siblings { id, names, absent, budget: Arc::clone(budget) })
    }

    /// A slot of so many bytes is in the map from now on; nothing is known of its name.
    pub(crate) fn came(&self, bytes: usize) {
        self.names.fetch_add(1, Ordering::Relaxed);
        self.budget.tally.add(NAMES, 1);
        self.budget.add(bytes);
        self.is_absent(bytes);
    }

    /// It is not in the map any more.
    pub(super) fn went(&self, bytes: usize, absent: bool) {
        self.names.fetch_sub(1, Ordering::Relaxed);
        self.budget.tally.add(NAMES, -1);
        self.budget.sub(bytes);
        if absent {
            self.is_present(bytes);
        }
    }

    /// The name of a slot of so many bytes is absent, or nothing is known of it any more.
    pub(crate) fn is_absent(&self, bytes: usize) {
        self.absent.fetch_add(bytes, Ordering::Relaxed);
        self.budget.tally.add(ABSENT, bytes as isize);
    }

    /// It means something now.
    pub(crate) fn is_present(&self, bytes: usize) {
        self.absent.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.tally.add(ABSENT, -(bytes as isize));
    }

    /// How many slots the directory has.
    fn names(&self) -> u32 {
        self.names.load(Ordering::Relaxed)
    }
}

/// What becomes of a slot that the hand comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Stays,
    Goes,
    /// It was not looked at: there is room enough.
    Enough,
}

impl<F> SlotMap<F> {
    /// Makes room after an insertion beside `siblings`. The answer: how many slots went.
    pub(super) fn relieve(&self, siblings: &Siblings) -> usize {
        let pressure = self.budget().pressure(siblings);
        if pressure == Pressure::None {
            return 0;
        }
        if pressure == Pressure::Hard
            && let Some(_round) = self.budget().begin_round()
        {
            // Twice round: the first time everything may have been used.
            let (mut gone, mut tables) = (0, 0);
            while tables <= 2 * SHARDS && self.budget().is_over() {
                let (went, is_end) = self.sweep(usize::MAX, pressure);
                gone += went;
                tables += usize::from(is_end);
            }
            return gone;
        }
        self.sweep(VICTIMS, Pressure::Soft).0
    }

    /// Looks at some slots: how many went, and whether the hand came to the end of a table.
    fn sweep(&self, victims: usize, pressure: Pressure) -> (usize, bool) {
        let budget = self.budget();
        let (gone, is_end) = self.pass(STEPS, |slot, gone| {
            if gone == victims || pressure == Pressure::Hard && !budget.is_over() {
                return Turn::Enough;
            }
            if !may_go(slot, budget, pressure) {
                return Turn::Stays;
            }
            let is_absent = slot.is_absent();
            slot.dir.went(slot.bytes(), is_absent);
            Turn::Goes
        });
        // The slots end here, outside of all locks, and with them what only they held.
        (gone.len(), is_end)
    }
}

/// Whether a slot that only its table holds is to go; it has had its turn then.
fn may_go<F>(slot: &mut Slot<F>, budget: &Budget, pressure: Pressure) -> bool {
    if !slot.is_known() {
        return true;
    }
    let is_absent = slot.is_absent();
    let short = if pressure == Pressure::Hard { budget.is_short() } else { budget.is_nearly_short() };
    let wanted = short || is_absent && budget.is_crowded(&slot.dir);
    if !wanted || slot.take_used() || slot.is_open() {
        return false;
    }
    // Only while there are others: a chain of directories would go one a round.
    pressure == Pressure::Hard
        || !slot.links().iter().any(|link| link.node().siblings().is_some_and(|dir| dir.names() > 0))
}
