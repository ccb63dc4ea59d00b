//! Which names a directory has, folded: so that a name which is absent in any case costs no call of the storage, and one
//! that stands there in another case a single lookup of its exact spelling.
//!
//! It is made by the second search for a name that was not known, of the names that the storage tells then, or of a
//! client's listing; where nobody else changes the tree, a directory that was made by us has it from the start. The
//! rules by which it is right:
//!
//! - It is asked for a name, and told of a change of it, only by whoever has that name's claim. So what is under way is
//!   nobody's business but its owner's, and for each name by itself the index has to be right at the end of each claim.
//! - Changes that end while the names are being read are kept in a journal, and applied in order to what was read: for a
//!   name that changed meanwhile the last change decides, for all others the reading is right.
//!   So is what a search finds of a name that was unsure: it may have been read as it was before.
//! - A name whose change came to no known end (its outcome is unknown, its task was lost) is *unsure* before its claim ends:
//!   the index has no answer for it, until somebody with its claim has looked.
//! - Where a watcher tells of changes, it tells of ours as well, and the index follows the queue alone: it is what the
//!   storage was when the queue was last read, and that is done before each question. The directory is watched before
//!   its names are read. A name of which the queue cannot say whether it is there stands in the index, and is unsure: the
//!   storage is asked for each spelling in any case. See `coherence`.
//! - Where foreign changes show in the directory's token alone, it is compared before the index is believed, and an index
//!   whose token is another is dropped. Our own changes give another token as well: a directory that is written to all the
//!   time has no index there. The token is taken before the names are read, and must be the same after it; and it must be
//!   one that a later change is sure to replace.
//! - Who fills it is a task of its own, which no client can cancel, one a directory. If it is lost, what it was to make
//!   is forgotten, and those who wait go on without.
//!
//! It takes about twelve bytes a name besides the name. All are dropped, the longest unused first, when they take too
//! much together ([`Indexes::shed`]).

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use ahash::RandomState;
use hashbrown::HashTable;

use super::coherence::Stamp;
use super::evict::Budget;
use super::fifo::{Owner, Queue, Wait, Waiter, Wakes, give_up};
use crate::backend::{DirEntry, NameSink, Token};
use crate::error::{FsError, Result};
use crate::fold::{Fold, FoldedName};
use crate::name::{DiskName, Name};
use crate::node::{Node, NodeId};
use crate::rank::Level;
use crate::sync::{Defect, Mutex, defect, mutex};

/// The most names of one directory's index (in the models few enough to come about).
const ENTRIES_MAX: usize = if cfg!(shuttle) { 8 } else { 2_000_000 };

/// The most memory of one directory's index, in bytes.
const BYTES_MAX: usize = 64 << 20;

/// The most changes that are kept for a directory while its names are read.
const JOURNAL_MAX: usize = 64 * 1024;

/// The most unsure names of a directory.
const UNSURE_MAX: usize = 1024;

/// The search that makes the index; if that came to nothing it is tried again after so many more.
const SEARCHES: u32 = 2;
const SEARCHES_AGAIN: u32 = 256;

/// The names of one directory by their folded form: the names as on disk one after the other, each behind its length, and
/// a table of where they begin.
pub(crate) struct NameIndex {
    fold: Fold,
    table: HashTable<Entry>,
    arena: Vec<u8>,
    /// Bytes of the arena that no name uses any more.
    unused: usize,
}

/// Where a name begins in the arena, and the hash of its folded form.
#[derive(Clone, Copy)]
struct Entry {
    at: u32,
    hash: u32,
}

impl Entry {
    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

/// A table's hash of the half that is kept of a name's.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn hash_of(fold: &FoldedName) -> u32 {
    static STATE: OnceLock<RandomState> = OnceLock::new();
    STATE.get_or_init(RandomState::new).hash_one(fold.as_bytes()) as u32
}

/// The length of a name's length.
const LENGTH: usize = 2;

fn name_at(arena: &[u8], at: u32) -> &[u8] {
    let at = at as usize;
    let length = usize::from(u16::from_le_bytes([arena[at], arena[at + 1]]));
    &arena[at + LENGTH..at + LENGTH + length]
}

impl NameIndex {
    pub(crate) fn new(fold: Fold) -> NameIndex {
        NameIndex { fold, table: HashTable::new(), arena: Vec::new(), unused: 0 }
    }

    /// The memory that it takes, near enough.
    pub(crate) fn bytes(&self) -> usize {
        self.arena.capacity() + self.table.capacity() * (size_of::<Entry>() + 1) * 8 / 7
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.len()
    }

    /// The form under which a name is found.
    fn folded(&self, disk: &[u8]) -> FoldedName {
        self.fold.fold(&Name::from_disk(disk))
    }

    /// Enters a name, by the hash of its folded form. False: there is no room for it.
    pub(crate) fn insert(&mut self, hash: u32, disk: &[u8]) -> bool {
        let Ok(length) = u16::try_from(disk.len()) else { return false };
        let arena = &mut self.arena;
        if self.table.find(spread(hash), |entry| name_at(arena, entry.at) == disk).is_some() {
            return true;
        }
        if self.table.len() >= ENTRIES_MAX || arena.len() + LENGTH + disk.len() > BYTES_MAX {
            return false;
        }
        let at = arena.len() as u32;
        arena.extend_from_slice(&length.to_le_bytes());
        arena.extend_from_slice(disk);
        self.table.insert_unique(spread(hash), Entry { at, hash }, Entry::spread);
        true
    }

    fn remove(&mut self, hash: u32, disk: &[u8]) {
        if let Ok(entry) = self.table.find_entry(spread(hash), |entry| name_at(&self.arena, entry.at) == disk)
        {
            entry.remove();
            self.unused += LENGTH + disk.len();
        }
        if self.unused > 4096 && self.unused > self.arena.len() / 2 {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.len() - self.unused);
        let mut table = HashTable::with_capacity(self.table.len());
        for entry in &self.table {
            let name = name_at(&self.arena, entry.at);
            let at = arena.len() as u32;
            arena.extend_from_slice(&(name.len() as u16).to_le_bytes());
            arena.extend_from_slice(name);
            table.insert_unique(entry.spread(), Entry { at, ..*entry }, Entry::spread);
        }
        (self.table, self.arena, self.unused) = (table, arena, 0);
    }

    /// False: there is no room for it.
    fn apply(&mut self, change: &Changed) -> bool {
        match change {
            Changed::Name { disk, present } => {
                let hash = hash_of(&self.folded(disk.as_bytes()));
                self.set(hash, disk.as_bytes(), *present)
            }
            Changed::Absent(fold) => {
                let hash = hash_of(fold);
                for disk in self.spellings(fold, hash) {
                    self.remove(hash, disk.as_bytes());
                }
                true
            }
        }
    }

    fn set(&mut self, hash: u32, disk: &[u8], present: bool) -> bool {
        if present {
            return self.insert(hash, disk);
        }
        self.remove(hash, disk);
        true
    }

    /// Every spelling of the name of this folded form, whose hash is `hash`.
    pub(crate) fn spellings(&self, wanted: &FoldedName, hash: u32) -> Vec<DiskName> {
        let found = self.table.iter_hash(spread(hash)).filter(|entry| entry.hash == hash);
        let names = found.map(|entry| name_at(&self.arena, entry.at));
        names.filter(|disk| is_spelling(self.fold, disk, wanted)).map(DiskName::new).collect()
    }

    /// Every name, for checks.
    pub(crate) fn all(&self) -> Vec<DiskName> {
        self.table.iter().map(|entry| DiskName::new(name_at(&self.arena, entry.at))).collect()
    }
}

/// Does the disk name `disk` fold to `wanted`?
pub(crate) fn is_spelling(fold: Fold, disk: &[u8], wanted: &FoldedName) -> bool {
    // Most names are plain: no character of theirs is shown through the private-use map (whose letters begin with EF).
    if fold == Fold::Insensitive && disk.is_ascii() && !wanted.as_bytes().contains(&0xEF) {
        return disk.eq_ignore_ascii_case(wanted.as_bytes());
    }
    fold.fold(&Name::from_disk(disk)) == *wanted
}

/// What was changed or learnt of a name while the names were being read.
enum Changed {
    /// A spelling came or went.
    Name { disk: DiskName, present: bool },
    /// Whatever spellings were read: when all were looked for there was none but those that follow.
    Absent(FoldedName),
}

enum Stage {
    /// There is none.
    None,
    /// It is being made, by who has this ticket.
    Filling {
        ticket: u64,
        stamp: Stamp,
        journal: Vec<Changed>,
        /// By a client's listing, which may never come to its end: nobody waits for it.
        listing: bool,
    },
    Complete {
        stamp: Stamp,
        names: Box<NameIndex>,
    },
}

/// What a directory has of an index.
pub(crate) struct DirIndex {
    inner: Mutex<Inner>,
    /// There was no room for all names when it was last to be made or kept. Beside the mutex: each search asks for it.
    full: AtomicBool,
    /// There is one. Beside the mutex too: each name that goes asks for it.
    complete: AtomicBool,
}

struct Inner {
    stage: Stage,
    /// Searches for names that were not known, since there was an index.
    searches: u32,
    /// When it was last of use, by the clock of all.
    used: u64,
    /// What it is counted as.
    bytes: usize,
    /// Names whose last change has come to no known end.
    unsure: BTreeSet<FoldedName>,
    /// Those who wait for the filling to end.
    queue: Option<Box<Queue<(), ()>>>,
    listing: Option<Box<Listing>>,
    /// The token for which the index holds, and when it was last compared; where that is what tells of changes.
    token: Option<(Token, Option<Instant>)>,
}

/// A client's listing from which the index is being made.
pub(crate) struct Listing {
    ticket: u64,
    /// Which open directory it goes through, and up to where.
    file: usize,
    at: u64,
    names: NameIndex,
}

/// What an index says of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing: there is no index, or the name is unsure.
    Unknown,
    /// Its spellings on the disk; none: it is absent.
    Spellings(Vec<DiskName>),
}

impl DirIndex {
    /// None yet.
    pub(crate) fn new() -> DirIndex {
        DirIndex {
            inner: mutex(
                Level::Index,
                Inner {
                    stage: Stage::None,
                    searches: 0,
                    used: 0,
                    bytes: 0,
                    unsure: BTreeSet::new(),
                    queue: None,
                    listing: None,
                    token: None,
                },
            ),
            full: AtomicBool::new(false),
            complete: AtomicBool::new(false),
        }
    }
}

impl Inner {
    fn is_unsure(&self, fold: &FoldedName) -> bool {
        self.unsure.contains(fold)
    }

    /// False: there are too many.
    fn unsure(&mut self, fold: FoldedName) -> bool {
        self.unsure.insert(fold);
        self.unsure.len() <= UNSURE_MAX
    }

    fn sure(&mut self, fold: &FoldedName) {
        self.unsure.remove(fold);
    }

    /// False: there is no room for it.
    fn apply(&mut self, hash: u32, disk: &[u8], present: bool) -> bool {
        match &mut self.stage {
            Stage::None => true,
            Stage::Filling { .. } if defect(Defect::FillWithoutJournal) => true,
            Stage::Filling { journal, .. } => {
                journal.push(Changed::Name { disk: DiskName::new(disk), present });
                journal.len() < JOURNAL_MAX
            }
            Stage::Complete { names, .. } => names.set(hash, disk, present),
        }
    }

    /// A name that may be there is in the index, and unsure. False: there is no room for it, or as many are unsure as make
    /// it worth while to read the names anew.
    fn told(&mut self, fold: &FoldedName, disk: &[u8], present: Option<bool>) -> bool {
        let hash = hash_of(fold);
        if !self.apply(hash, disk, present.unwrap_or(true)) {
            return false;
        }
        let names = match &self.stage {
            Stage::None => return true,
            Stage::Filling { .. } => None,
            Stage::Complete { names, .. } => Some(names),
        };
        if present.is_none() {
            self.unsure.insert(fold.clone());
            return self.unsure.len() <= UNSURE_MAX + names.map_or(0, |names| names.table.len() / 2);
        }
        // Another spelling may be what is unsure.
        let is_only =
            |names: &NameIndex| names.spellings(fold, hash).iter().all(|other| other.as_bytes() == disk);
        if !self.unsure.is_empty() && names.is_some_and(|names| is_only(names)) {
            self.unsure.remove(fold);
        }
        true
    }

    /// Forgets what there is, or was to be. Those who wait go on without.
    fn forget(&mut self, wakes: &mut Wakes) {
        self.stage = Stage::None;
        self.unsure.clear();
        self.listing = None;
        self.token = None;
        self.searches = SEARCHES;
        self.wake(wakes);
    }

    fn wake(&mut self, wakes: &mut Wakes) {
        if let Some(mut queue) = self.queue.take() {
            while let Some(waiter) = queue.pop() {
                wakes.push(waiter.grant(()));
            }
        }
    }
}

/// The indexes of all directories, and the memory that they take.
pub(crate) struct Indexes<F> {
    bytes: AtomicUsize,
    budget: Arc<Budget>,
    /// Counts questions: the time by which the longest unused is found.
    clock: AtomicU64,
    /// The directories that have one with names in it.
    known: Mutex<BTreeMap<NodeId, Weak<Node<F>>>>,
}

impl<F> Indexes<F> {
    pub(crate) fn new(budget: &Arc<Budget>) -> Indexes<F> {
        // An index that nobody has asked has 0.
        let (bytes, clock) = (AtomicUsize::new(0), AtomicU64::new(1));
        Indexes { bytes, budget: Arc::clone(budget), clock, known: Mutex::new(BTreeMap::new()) }
    }

    /// The memory that all of them take, near enough.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Drops the longest unused ones until no more than `target` bytes are left. Called without any lock.
    pub(crate) fn shed(&self, target: usize) {
        let known: Vec<Weak<Node<F>>> = self.known.lock().values().cloned().collect();
        let mut known: Vec<(u64, Arc<Node<F>>)> = known
            .iter()
            .filter_map(Weak::upgrade)
            .filter_map(|node| {
                let used = node.directory()?.index.inner.lock().used;
                Some((used, node))
            })
            .collect();
        known.sort_unstable_by_key(|(used, _)| *used);
        for (_, node) in known {
            if self.bytes() <= target {
                break;
            }
            node.forget_index();
        }
    }

    /// A moment, for telling what was used longer ago, and one filling from another.
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether another index was of use since then. While none is, the clock stands, and who asks changes nothing that
    /// other processors look at.
    fn is_past(&self, used: u64) -> bool {
        self.clock.load(Ordering::Relaxed) != used
    }

    /// The index of a directory takes so many bytes instead of so many. Called with it locked.
    fn recount(&self, node: &Arc<Node<F>>, before: usize, now: usize) {
        match (before, now) {
            (0, 0) => {}
            (0, _) => drop(self.known.lock().insert(node.id(), Arc::downgrade(node))),
            (_, 0) => drop(self.known.lock().remove(&node.id())),
            _ => {}
        }
        if now >= before {
            self.bytes.fetch_add(now - before, Ordering::Relaxed);
            self.budget.add(now - before);
        } else {
            self.bytes.fetch_sub(before - now, Ordering::Relaxed);
            self.budget.sub(before - now);
        }
    }

    /// A directory's node ends.
    pub(crate) fn end(&self, id: NodeId, index: &mut DirIndex) {
        let bytes = index.inner.get_mut().bytes;
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.budget.sub(bytes);
            drop(self.known.lock().remove(&id));
        }
    }
}

/// The names that one change ends for a directory: a rename's source, what it replaces, and its target.
const CHANGES_MAX: usize = 3;

/// A change that has come to its end: the name's folded form, its spelling, and whether that is there now.
pub(crate) type Ended<'a> = (&'a FoldedName, &'a Name, bool);

impl<F> Node<F> {
    /// Does `f` to the directory's index, and counts what it takes then. `f` says false if there is no room: it is
    /// dropped.
    fn with_index<R>(self: &Arc<Self>, f: impl FnOnce(&mut Inner, &mut Wakes) -> (bool, R)) -> Option<R> {
        let mut wakes = Wakes::default();
        let DirIndex { inner, complete, .. } = &self.directory()?.index;
        let mut inner = inner.lock();
        let (fits, result) = f(&mut inner, &mut wakes);
        if !fits {
            inner.forget(&mut wakes);
        }
        let is_complete = matches!(inner.stage, Stage::Complete { .. });
        if complete.load(Ordering::Relaxed) != is_complete {
            complete.store(is_complete, Ordering::Relaxed);
        }
        let now = match &inner.stage {
            Stage::Complete { names, .. } => names.bytes(),
            Stage::Filling { .. } => inner.listing.as_ref().map_or(0, |listing| listing.names.bytes()),
            Stage::None => 0,
        };
        let before = std::mem::replace(&mut inner.bytes, now);
        let indexes = self.indexes();
        if before != now {
            indexes.recount(self, before, now);
        }
        drop(inner);
        wakes.wake();
        let most = indexes.budget.indexes_max();
        if now > before && indexes.bytes() > most {
            // Some more than needed, so that the next names need not come here.
            indexes.shed(most - most / 16);
        }
        Some(result)
    }

    /// What the index says of a name; where the queue fills it, with the spellings that are perhaps not there. `stamp`: what was learnt in this directory since then is believed. Called with the
    /// name's claim.
    pub(crate) fn index_answer(self: &Arc<Self>, fold: &FoldedName, stamp: Stamp) -> Answer {
        let Some(directory) = self.directory() else { return Answer::Unknown };
        // All who change something in the directory come by here: as little as can be is done under its lock.
        let hash = hash_of(fold);
        let mut inner = directory.index.inner.lock();
        match &inner.stage {
            Stage::Complete { stamp: since, names }
                if (*since == stamp || defect(Defect::KeepsLostIndex))
                    && (self.mount.is_notified() || !inner.is_unsure(fold)) =>
            {
                let spellings = names.spellings(fold, hash);
                if self.indexes().is_past(inner.used) {
                    inner.used = self.indexes().tick();
                }
                Answer::Spellings(spellings)
            }
            _ => Answer::Unknown,
        }
    }

    /// Whether the token need not be compared before the index is asked: it was, so recently, and we have changed nothing
    /// since.
    pub(crate) fn index_is_fresh(&self, age: Duration) -> bool {
        let Some(directory) = self.directory() else { return false };
        let inner = directory.index.inner.lock();
        matches!(inner.token, Some((_, Some(compared))) if !age.is_zero() && compared.elapsed() < age)
    }

    /// Whether the directory has more names than an index takes: each search reads them all.
    pub(crate) fn is_full(&self) -> bool {
        self.directory().is_some_and(|directory| directory.index.full.load(Ordering::Relaxed))
    }

    fn set_full(&self, full: bool) {
        if let Some(directory) = self.directory() {
            directory.index.full.store(full, Ordering::Relaxed);
        }
    }

    /// Whether there is an index, at the moment.
    pub(crate) fn has_index(&self) -> bool {
        self.directory().is_some_and(|directory| directory.index.complete.load(Ordering::Relaxed))
    }

    /// The directory's token was asked for at `when`: an index that holds for another is dropped.
    pub(crate) fn index_revalidate(self: &Arc<Self>, token: Option<Token>, when: Instant) {
        self.with_index(|inner, _| {
            if !matches!(inner.stage, Stage::Complete { .. }) {
                return (true, ());
            }
            match (&mut inner.token, token) {
                (Some((held, compared)), Some(token)) if held.is(&token) => {
                    *compared = Some(when);
                    (true, ())
                }
                _ => (false, ()),
            }
        });
    }

    /// A name that is not known is about to be searched for. True: it is time to make the index.
    pub(crate) fn index_searched(&self, stamp: Stamp) -> bool {
        let Some(directory) = self.directory() else { return false };
        let mut inner = directory.index.inner.lock();
        let has_one = match &inner.stage {
            Stage::None => false,
            Stage::Filling { stamp: since, listing, .. } => *since == stamp && !listing,
            Stage::Complete { stamp: since, .. } => *since == stamp,
        };
        if has_one {
            return false;
        }
        inner.searches += 1;
        inner.searches == SEARCHES || inner.searches % SEARCHES_AGAIN == 0
    }

    /// A directory that was just made is worth its index at the first search; where nobody but us makes names in it, it
    /// has it: none.
    pub(crate) fn index_of_new(self: &Arc<Self>) {
        let fold = self.mount.fold;
        let trust = self.mount.trust;
        self.with_index(|inner, _| {
            inner.searches = SEARCHES - 1;
            if trust {
                let names = Box::new(NameIndex::new(fold));
                inner.stage = Stage::Complete { stamp: Stamp::default(), names };
            }
            (true, ())
        });
    }

    /// From now on changes are kept for who fills the index. `None`: there is one, or somebody else fills it; a client's
    /// listing, which may never come to its end, makes room for who does it in one go.
    pub(crate) fn index_begin(self: &Arc<Self>, stamp: Stamp) -> Option<Ticket<F>> {
        let ticket = self.index_begin_as(stamp, None)?;
        Some(Ticket { dir: Arc::clone(self), number: ticket })
    }

    fn index_begin_as(self: &Arc<Self>, stamp: Stamp, file: Option<usize>) -> Option<u64> {
        let ticket = self.indexes().tick();
        let begun = self.with_index(|inner, _| {
            let begin = match &inner.stage {
                Stage::None => true,
                Stage::Filling { stamp: since, listing, .. } => {
                    let other = inner.listing.as_ref().is_some_and(|listing| Some(listing.file) != file);
                    *since != stamp || *listing && !(file.is_some() && other)
                }
                Stage::Complete { stamp: since, .. } => *since != stamp,
            };
            if begin {
                let (journal, listing) = (Vec::new(), file.is_some());
                inner.stage = Stage::Filling { ticket, stamp, journal, listing };
                inner.unsure.clear();
                inner.listing = None;
            }
            (true, begin)
        });
        (begun == Some(true)).then_some(ticket)
    }

    /// Waits until nobody fills the index any more. `false`: nobody did.
    pub(crate) async fn index_filled(self: &Arc<Self>) -> bool {
        let waiter = {
            let Some(directory) = self.directory() else { return false };
            let mut inner = directory.index.inner.lock();
            if !matches!(inner.stage, Stage::Filling { listing: false, .. }) {
                return false;
            }
            inner.queue.get_or_insert_with(|| Box::new(Queue::new())).push(())
        };
        Wait::new(Arc::new(Line(Arc::clone(self))), waiter).await;
        true
    }

    /// A client is about to list the directory from `from` on, through this open `file`: a listing from the start to the end
    /// makes the index, if there is none. What comes back is for [`Node::index_listed`].
    pub(crate) fn index_listing(self: &Arc<Self>, file: usize, from: u64, stamp: Stamp) -> Option<Listing> {
        if from == 0 {
            let ticket = self.index_begin_as(stamp, Some(file))?;
            return Some(Listing { ticket, file, at: 0, names: NameIndex::new(self.mount.fold) });
        }
        let directory = self.directory()?;
        let mut inner = directory.index.inner.lock();
        let listing = inner.listing.take_if(|listing| listing.file == file)?;
        // Going on elsewhere than where it ended: some names may be left out.
        if listing.at == from { Some(*listing) } else { None }
    }

    /// A page of a client's listing; none: that was the end.
    pub(crate) fn index_listed(self: &Arc<Self>, mut listing: Listing, page: &[DirEntry]) {
        let Some(last) = page.last() else {
            let ticket = Ticket { dir: Arc::clone(self), number: listing.ticket };
            return ticket.finish(listing.names, None);
        };
        listing.at = last.cookie;
        let mut fits = true;
        for entry in page {
            let fold = listing.names.fold.fold(&entry.name);
            fits = fits && listing.names.insert(hash_of(&fold), entry.name.to_disk().as_bytes());
        }
        self.with_index(|inner, _| match inner.stage {
            Stage::Filling { ticket, .. } if ticket == listing.ticket => {
                inner.listing = Some(Box::new(listing));
                if !fits {
                    self.set_full(true);
                }
                (fits, ())
            }
            _ => (true, ()),
        });
    }

    /// What came of a change of a name is not known. Called with the name's claim.
    pub(crate) fn index_unsure(self: &Arc<Self>, fold: &FoldedName) {
        if self.mount.is_notified() {
            return;
        }
        self.with_index(|inner, _| match inner.stage {
            Stage::None => (true, ()),
            _ => (inner.unsure(fold.clone()), ()),
        });
    }

    /// Names are there now, or are not any more, in this order. Called with the names' claims, before their meanings are
    /// published.
    pub(crate) fn index_changed<'a>(self: &Arc<Self>, changes: impl IntoIterator<Item = Ended<'a>>) {
        if self.mount.is_notified() {
            return;
        }
        // Made ready before the lock, for the same reason as in `index_answer`.
        let mut changes = changes.into_iter();
        let ready: [_; CHANGES_MAX] = std::array::from_fn(|_| {
            let (fold, name, present) = changes.next()?;
            Some((fold, hash_of(fold), name.to_disk(), present))
        });
        let are_all = changes.next().is_none();
        debug_assert!(are_all, "more names than one change has");
        self.with_index(|inner, _| {
            let fits = are_all
                && ready.iter().flatten().all(|(fold, hash, disk, present)| {
                    inner.sure(fold);
                    inner.apply(*hash, disk.as_bytes(), *present)
                });
            if let Some((_, compared)) = &mut inner.token {
                *compared = None;
            }
            if !fits {
                self.set_full(true);
            }
            (fits, ())
        });
    }

    /// Every spelling of a name was looked for, and these were found. Called with the name's claim.
    pub(crate) fn index_learnt<'a>(
        self: &Arc<Self>,
        fold: &FoldedName,
        found: impl Iterator<Item = &'a DiskName>,
    ) {
        if self.mount.is_notified() {
            return;
        }
        self.with_index(|inner, _| {
            if !inner.is_unsure(fold) {
                return (true, ());
            }
            inner.sure(fold);
            let mut fits = match &mut inner.stage {
                Stage::None => true,
                // It may have been read before the change of which nobody knew what came of it.
                Stage::Filling { .. } if defect(Defect::FillForgetsTheLearnt) => true,
                Stage::Filling { journal, .. } => {
                    journal.push(Changed::Absent(fold.clone()));
                    journal.len() < JOURNAL_MAX
                }
                Stage::Complete { names, .. } => names.apply(&Changed::Absent(fold.clone())),
            };
            for disk in found {
                fits &= inner.apply(hash_of(fold), disk.as_bytes(), true);
            }
            (fits, ())
        });
    }

    /// The queue says that a name was made or is gone; `None`: one or the other.
    pub(crate) fn index_told(self: &Arc<Self>, fold: &FoldedName, disk: &[u8], present: Option<bool>) {
        self.with_index(|inner, _| (inner.told(fold, disk, present), ()));
    }

    /// What was known of the names is not to be relied on.
    pub(crate) fn forget_index(self: &Arc<Self>) {
        self.with_index(|inner, _| (matches!(inner.stage, Stage::None), ()));
    }

    fn indexes(&self) -> &Indexes<F> {
        &self.table().indexes
    }
}

/// The right to fill the index of one directory; dropped, it is given up.
pub(crate) struct Ticket<F> {
    dir: Arc<Node<F>>,
    number: u64,
}

impl<F> Ticket<F> {
    /// What was read becomes the index, with what has changed since it was begun. It holds for `token`.
    fn finish(self, mut names: NameIndex, token: Option<Token>) {
        self.dir.with_index(|inner, wakes| {
            let Stage::Filling { ticket, stamp, journal, .. } = &mut inner.stage else { return (true, ()) };
            if *ticket != self.number {
                return (true, ());
            }
            let fits = std::mem::take(journal).iter().all(|change| names.apply(change));
            self.dir.set_full(!fits);
            inner.stage = Stage::Complete { stamp: *stamp, names: Box::new(names) };
            inner.listing = None;
            inner.token = token.map(|token| (token, None));
            inner.used = self.number;
            inner.wake(wakes);
            (fits, ())
        });
    }
}

impl<F> Drop for Ticket<F> {
    fn drop(&mut self) {
        self.dir.with_index(|inner, _| {
            let is_mine = matches!(inner.stage, Stage::Filling { ticket, .. } if ticket == self.number);
            (!is_mine, ())
        });
    }
}

/// Those who wait for the filling of a directory's index.
struct Line<F>(Arc<Node<F>>);

impl<F> Owner for Line<F> {
    type Grant = ();

    fn leave(&self, waiter: &Waiter<()>) {
        // Everybody is told at once: there is nothing to pass on.
        if let Some(directory) = self.0.directory() {
            let _told = give_up(&mut directory.index.inner.lock().queue, waiter);
        }
    }
}

/// Takes the names that the storage tells, and counts what they take as they come.
struct Collect {
    names: NameIndex,
    fits: bool,
    counted: usize,
    budget: Arc<Budget>,
}

impl Collect {
    fn new<F>(dir: &Node<F>) -> Box<Collect> {
        let (names, budget) = (NameIndex::new(dir.mount.fold), Arc::clone(&dir.indexes().budget));
        Box::new(Collect { names, fits: true, counted: 0, budget })
    }

    /// The names; they are the receiver's to count.
    fn into_names(mut self) -> NameIndex {
        let none = NameIndex::new(self.names.fold);
        std::mem::replace(&mut self.names, none)
    }
}

impl NameSink for Collect {
    fn name(&mut self, disk: &[u8]) -> bool {
        let fold = self.names.folded(disk);
        self.fits = self.names.insert(hash_of(&fold), disk);
        let now = self.names.bytes();
        self.budget.add(now - self.counted);
        self.counted = now;
        self.fits
    }
}

impl Drop for Collect {
    fn drop(&mut self) {
        self.budget.sub(self.counted);
    }
}

/// For models and tests, when nothing runs: what the index knows of each name is what the storage has.
pub(crate) async fn check<F>(dir: &Arc<Node<F>>) {
    let known = {
        let Some(directory) = dir.directory() else { return };
        let inner = directory.index.inner.lock();
        match &inner.stage {
            Stage::Complete { stamp, names } if Some(*stamp) == dir.stamp() => {
                let names =
                    names.all().into_iter().filter(|disk| !inner.is_unsure(&names.folded(disk.as_bytes())));
                let unsure = inner.unsure.clone();
                Some((names.collect::<BTreeSet<_>>(), unsure))
            }
            _ => None,
        }
    };
    let Some((known, unsure)) = known else { return };
    let Ok(sink) = dir.mount.backend.names(&dir.be, Collect::new(dir)).await else { return };
    let sink: Box<dyn Any> = sink;
    let Ok(told) = sink.downcast::<Collect>() else { return };
    let mut names = told.names.all();
    names.retain(|disk| !unsure.contains(&told.names.folded(disk.as_bytes())));
    assert_eq!(known, names.into_iter().collect(), "the index of {:?} is not what the backend has", dir.id());
}

/// Fills the index of the ticket's directory with the names that the storage has.
pub(crate) async fn fill<F>(ticket: Ticket<F>) {
    let dir = Arc::clone(&ticket.dir);
    match read(&dir).await {
        Ok(Some((names, token))) => ticket.finish(names, token),
        Ok(None) | Err(FsError::NotSupported) => {}
        Err(error) => tracing::debug!(%error, "a directory's names cannot be read for its index"),
    }
}

/// The names of a directory, and the token that it had all the time. `None`: there are too many, or it had several.
async fn read<F>(dir: &Arc<Node<F>>) -> Result<Option<(NameIndex, Option<Token>)>> {
    let backend = &dir.mount.backend;
    let mut token = None;
    if dir.mount.revalidate.is_some() {
        token = backend.token(&dir.be).await?;
        if !token.is_some_and(|token| token.settled) {
            return Ok(None);
        }
    }
    let sink: Box<dyn Any> = backend.names(&dir.be, Collect::new(dir)).await?;
    let Ok(collected) = sink.downcast::<Collect>() else { return Ok(None) };
    if let Some(token) = &token
        && !backend.token(&dir.be).await?.is_some_and(|now| now.is(token))
    {
        return Ok(None);
    }
    if !collected.fits {
        dir.set_full(true);
    }
    Ok(collected.fits.then(|| (collected.into_names(), token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(name: &str) -> FoldedName {
        Fold::Insensitive.fold(&Name::from_str(name).unwrap())
    }

    fn spellings(index: &NameIndex, name: &str) -> Vec<String> {
        let mut names: Vec<String> =
            index.spellings(&folded(name), hash_of(&folded(name))).iter().map(DiskName::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn spellings_of_one_name() {
        let is = |disk: &[u8], name: &str| is_spelling(Fold::Insensitive, disk, &folded(name));
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
        let mut index = NameIndex::new(Fold::Insensitive);
        let set = |index: &mut NameIndex, name: &str, present| {
            let disk = name.as_bytes();
            let fold = index.folded(disk);
            index.set(hash_of(&fold), disk, present)
        };
        for round in 0..3 {
            for number in 0..10_000 {
                assert!(set(&mut index, &format!("Name-{number}"), true));
            }
            set(&mut index, "Ärger", true);
            set(&mut index, "ärger", true);
            assert_eq!(spellings(&index, "nAME-77"), ["Name-77"], "{round}");
            assert_eq!(spellings(&index, "ÄRGER"), ["Ärger", "ärger"]);
            assert!(spellings(&index, "name-10000").is_empty());
            for number in 0..10_000 {
                set(&mut index, &format!("Name-{number}"), false);
            }
            assert!(spellings(&index, "name-77").is_empty());
            assert_eq!(spellings(&index, "ÄRGER"), ["Ärger", "ärger"]);
        }
        assert!(index.arena.len() < 20_000 && index.len() == 2, "what is removed leaves no memory behind");
        assert!(set(&mut index, &"x".repeat(765), true), "the longest name that a client can say");
    }
}
