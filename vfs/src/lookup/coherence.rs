//! What the cache may believe where others change the tree too.
//!
//! Each directory has a [`Stamp`] while what is learnt in it is kept, and each value that is stored has the stamp which
//! its directory had *before* the storage was asked; it is believed as long as the two are the same. Where nobody else
//! changes the tree there is one stamp for ever. Where nothing is told of foreign changes there is none, and what a name
//! means is looked up each time (`ops::lookup`).
//!
//! Where a [`Watcher`] tells of them, the rules are these:
//!
//! - A directory gets its stamp after it has begun to be watched. So whatever changes after the storage was asked is in
//!   the queue.
//! - Before anything is believed the queue is read to its end, once an operation ([`Watching::catch_up`], the *barrier*). A
//!   change is queued before the call that made it returns, so a reader misses nothing that had ended when he came. That
//!   the barrier was passed is a value, [`CaughtUp`], which an operation hands on from its walk to its change. It is lost
//!   where the operation waits for somebody, and where the storage contradicts what was believed: who went on with what
//!   he knew before would only be contradicted again.
//! - An empty queue says nothing while somebody has read from it and not yet applied what he read. The barrier is passed
//!   if nobody was at that before the queue was seen empty, and nobody after it.
//! - A change makes the value of its name unknown; of a name that is claimed, also of one that is just being looked up, it
//!   is remembered, and what is published then is not kept.
//! - The changes that we make come through the queue as well. What is going to come is noted before the call, and leaves
//!   the value alone. It is noted for makings and removals only: of two moves to one name in a row the kernel tells one,
//!   whatever their cookies, if what was moved came from where nobody watches; then nobody knows whose it was. (Two
//!   makings or two removals of a name have another change between them, which is told.) What was noted is forgotten
//!   when the call fails, when changes are lost, and when the watch ends.
//! - The index hears of our changes from the queue alone, and of those that were expected the slot does not hear at all.
//!   So who asks the index of a name that he has claimed passes the barrier again if any change of ours has ended since:
//!   it may be of this name, and its value evicted by now.
//! - Where several changes of a name may be told as one, ours are not waited for either, and the value of what we changed is
//!   looked up once more.
//! - A walk goes down from the root through directories each of which is watched, and believes or looks up each name on
//!   the way; so what it finds stands where it was found, however the directories above are moved.
//! - When changes are lost no stamp from before is one any more, at once and whatever there is of values and indexes.
//! - A directory that cannot be watched has no stamp, and no client is told of that.
//!
//! Where foreign changes show in a directory's token alone ([`Coherence::Revalidate`](crate::Coherence::Revalidate)) it is
//! the index that is believed, after the token was compared: that a name is absent, and how one is spelled. An object is
//! looked up each time, since a token does not tell of what stands behind a name that stays.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};

use ahash::RandomState;
use hashbrown::HashTable;

use super::slot::Slot;
use super::slotmap::SlotMap;
use crate::backend::{Change, WatchId, Watcher};
use crate::fold::Folded;
use crate::name::{DiskName, Name};
use crate::node::{Directory, Node};
use crate::rank::Level;
use crate::sync::{AtomicBool, AtomicU32, AtomicUsize, Defect, Mutex, Ordering, defect, mutex};

/// A directory is watched when it is looked into for the second time; if that came to nothing it is tried again after so
/// many more (in the models few enough to come about).
const LOOKS: u32 = 2;
const LOOKS_AGAIN: u32 = if cfg!(shuttle) { 4 } else { 256 };

/// Since when what is learnt in a directory is kept. The default: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(u32);

/// What a directory has of its watch.
#[derive(Default)]
pub(crate) struct Watched {
    /// Zero: it is not watched.
    stamp: AtomicU32,
    looks: AtomicU32,
    id: Mutex<Option<WatchId>>,
}

/// The watched directories of a mount, and the queue of what happens in them.
pub(crate) struct Watching<F> {
    watcher: Arc<dyn Watcher>,
    /// Those who read from the queue and may not have applied yet what they read.
    busy: AtomicUsize,
    /// Held by who reads from the queue. Before all other short mutexes.
    reading: Mutex<()>,
    watched: Mutex<BTreeMap<WatchId, Weak<Node<F>>>>,
    /// The last stamp that was given, and the last one that is none any more.
    given: AtomicU32,
    lost: AtomicU32,
    expected: Mutex<HashTable<Expectation>>,
    hasher: RandomState,
    /// How many changes of our own have ended.
    ours: AtomicU32,
    /// Some may be queued: to read is then cheaper than to ask whether there is anything to read.
    queued: AtomicBool,
}

/// A directory by its watch.
type Last<F> = Option<(WatchId, Arc<Node<F>>)>;

/// A change of our own that the queue is going to tell of so many times.
struct Expectation {
    watch: WatchId,
    disk: DiskName,
    made: bool,
    times: u32,
}

impl Expectation {
    fn is(&self, watch: WatchId, disk: &[u8], made: bool) -> bool {
        self.watch == watch && self.made == made && self.disk.as_bytes() == disk
    }
}

/// That what others had changed in a mount is noted by now. An operation gets it on its walk, and has it as long as it waits
/// for nobody.
#[derive(Debug, Default)]
pub struct CaughtUp(Option<Passed>);

#[derive(Clone, Copy, Debug)]
struct Passed {
    mount: usize,
    /// How many changes of our own had ended before.
    ours: u32,
}

impl CaughtUp {
    /// Awaits something on the way: what is noted is not enough any more if that has to wait.
    pub async fn across<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let polled = future.as_mut().poll(cx);
            if polled.is_pending() {
                self.lose();
            }
            polled
        })
        .await
    }

    /// Something was not as it was believed to be.
    pub fn lose(&mut self) {
        if !defect(Defect::WaitsCaughtUp) {
            self.0 = None;
        }
    }
}

impl<F> Watching<F> {
    pub(crate) fn new(watcher: Arc<dyn Watcher>) -> Watching<F> {
        Watching {
            watcher,
            busy: AtomicUsize::new(0),
            reading: mutex(Level::Reading, ()),
            watched: mutex(Level::Watches, BTreeMap::new()),
            given: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            expected: Mutex::new(HashTable::new()),
            hasher: RandomState::new(),
            ours: AtomicU32::new(0),
            queued: AtomicBool::new(false),
        }
    }

    /// The barrier: when it returns, all that had been queued when it was called is applied. Called without any lock but
    /// gates and claims.
    pub(crate) fn catch_up(&self, slots: &SlotMap<F>) {
        if self.is_caught_up() {
            return;
        }
        let _alone = self.reading.lock();
        let _busy = Busy::new(&self.busy);
        self.queued.store(false, Ordering::Relaxed);
        let mut last = None;
        self.watcher.read(&mut |change| self.apply(slots, change, &mut last));
    }

    fn is_caught_up(&self) -> bool {
        if defect(Defect::DrainedIsEmpty) {
            return self.watcher.is_empty();
        }
        if self.queued.load(Ordering::Relaxed) {
            return false;
        }
        let is_idle = || self.busy.load(Ordering::SeqCst) == 0;
        is_idle() && self.watcher.is_empty() && is_idle()
    }

    /// `last` is the directory of the change before: most come in rows.
    fn apply(&self, slots: &SlotMap<F>, change: Change<'_>, last: &mut Last<F>) {
        if matches!(change, Change::Moved(_) | Change::Ended(_) | Change::Lost) {
            *last = None;
        }
        match change {
            Change::Created(watch, disk) => self.name_changed(slots, last, (watch, disk), Some(true), true),
            Change::MovedTo(watch, disk) => self.name_changed(slots, last, (watch, disk), Some(true), false),
            Change::Removed(watch, disk) | Change::MovedFrom(watch, disk) => {
                self.name_changed(slots, last, (watch, disk), Some(false), true);
            }
            Change::Unsure(watch, disk) => self.name_changed(slots, last, (watch, disk), None, true),
            Change::Moved(watch) => {
                // Told by the directory that it stood in as well, if that is watched.
                let Some(node) = self.node(watch) else { return };
                let place = node.directory().and_then(|directory| directory.place.lock().clone());
                if let Some(place) = place {
                    suspect(slots, &place.dir, &place.name);
                }
            }
            Change::Ended(watch) => {
                let node = self.node(watch);
                drop(self.watched.lock().remove(&watch));
                self.expected.lock().retain(|expected| expected.watch != watch);
                if let Some(node) = node
                    && let Some(directory) = node.directory()
                {
                    directory.watched.stamp.store(0, Ordering::SeqCst);
                    *directory.watched.id.lock() = None;
                    node.forget_index();
                }
            }
            Change::Lost => {
                self.expected.lock().clear();
                self.lost.store(self.given.load(Ordering::SeqCst), Ordering::SeqCst);
                if !defect(Defect::KeepsLostIndex) {
                    let watched: Vec<_> = self.watched.lock().values().cloned().collect();
                    watched.iter().filter_map(Weak::upgrade).for_each(|node| node.forget_index());
                }
                tracing::debug!(
                    "more has changed in a share than the system tells; its names are learnt anew"
                );
            }
        }
    }

    fn name_changed(
        &self,
        slots: &SlotMap<F>,
        last: &mut Last<F>,
        (watch, disk): (WatchId, &[u8]),
        present: Option<bool>,
        may_be_ours: bool,
    ) {
        if last.as_ref().is_none_or(|(known, _)| *known != watch) {
            *last = self.node(watch).map(|node| (watch, node));
        }
        let Some((_, node)) = last else { return };
        let name = Name::from_disk(disk);
        let fold = node.mount.fold.fold(&name);
        node.index_told(&fold, disk, present);
        if may_be_ours && self.take_expected(watch, disk, present == Some(true)) {
            return;
        }
        suspect_folded(slots, node, &Folded::of(&fold));
    }

    fn node(&self, watch: WatchId) -> Option<Arc<Node<F>>> {
        self.watched.lock().get(&watch)?.upgrade()
    }

    fn hash(&self, watch: WatchId, disk: &[u8], made: bool) -> u64 {
        self.hasher.hash_one((watch, made, disk))
    }

    fn add_expected(&self, watch: WatchId, disk: &DiskName, made: bool) {
        let hash = self.hash(watch, disk.as_bytes(), made);
        let mut expected = self.expected.lock();
        if let Some(known) = expected.find_mut(hash, |known| known.is(watch, disk.as_bytes(), made)) {
            known.times += 1;
            return;
        }
        let first = Expectation { watch, disk: disk.clone(), made, times: 1 };
        expected
            .insert_unique(hash, first, |known| self.hash(known.watch, known.disk.as_bytes(), known.made));
    }

    fn take_expected(&self, watch: WatchId, disk: &[u8], made: bool) -> bool {
        let mut expected = self.expected.lock();
        if expected.is_empty() {
            return false;
        }
        let hash = self.hash(watch, disk, made);
        let Ok(mut found) = expected.find_entry(hash, |known| known.is(watch, disk, made)) else {
            return false;
        };
        if defect(Defect::ExpectsForEver) {
            return true;
        }
        found.get_mut().times -= 1;
        if found.get().times == 0 {
            found.remove();
        }
        true
    }

    /// The stamp of a directory, if it has one that holds still.
    fn stamp(&self, directory: &Directory<F>) -> Option<Stamp> {
        let stamp = directory.watched.stamp.load(Ordering::SeqCst);
        (stamp > self.lost.load(Ordering::SeqCst)).then_some(Stamp(stamp))
    }

    /// Begins to watch a directory, if it is not watched. `None`: it cannot be.
    fn watch(&self, dir: &Arc<Node<F>>, directory: &Directory<F>) -> Option<Stamp> {
        let mut watched = self.watched.lock();
        if let Some(stamp) = self.stamp(directory) {
            return Some(stamp);
        }
        let early = defect(Defect::WatchesLate).then(|| {
            let stamp = self.given.fetch_add(1, Ordering::SeqCst) + 1;
            directory.watched.stamp.store(stamp, Ordering::SeqCst);
            stamp
        });
        let id = match self.watcher.watch(&dir.be) {
            Ok(id) => id,
            Err(error) => {
                tracing::debug!(%error, "a directory cannot be watched; its names are looked up each time");
                return None;
            }
        };
        // Another node of the same directory may have had it, one that is about to end.
        watched.insert(id, Arc::downgrade(dir));
        *directory.watched.id.lock() = Some(id);
        let stamp = early.unwrap_or_else(|| self.given.fetch_add(1, Ordering::SeqCst) + 1);
        directory.watched.stamp.store(stamp, Ordering::SeqCst);
        Some(Stamp(stamp))
    }

    /// A directory's node ends, and with it its watch.
    pub(crate) fn end(&self, directory: &mut Directory<F>) {
        let Some(id) = directory.watched.id.get_mut().take() else { return };
        let mut watched = self.watched.lock();
        if watched.get(&id).is_some_and(|watched| watched.strong_count() == 0) {
            watched.remove(&id);
            self.watcher.unwatch(id);
        }
    }
}

/// What is stored of a name is no longer believed.
pub(crate) fn suspect<F>(slots: &SlotMap<F>, dir: &Node<F>, name: &Name) {
    suspect_folded(slots, dir, &dir.mount.fold.folded(name));
}

fn suspect_folded<F>(slots: &SlotMap<F>, dir: &Node<F>, fold: &Folded) {
    let forgotten = dir.siblings().and_then(|siblings| slots.peek(siblings, fold, Slot::suspect));
    // Outside the map's lock: it may be the last of its node.
    drop(forgotten);
}

/// Somebody reads from the queue.
struct Busy<'a>(&'a AtomicUsize);

impl Busy<'_> {
    fn new(busy: &AtomicUsize) -> Busy<'_> {
        busy.fetch_add(1, Ordering::SeqCst);
        Busy(busy)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<F> Node<F> {
    /// Since when what is learnt in this directory is kept; `None`: it is not.
    #[inline]
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        if self.mount.trust {
            return Some(Stamp::default());
        }
        self.mount.watching.as_ref()?.stamp(self.directory()?)
    }

    /// [`Node::stamp`] of a directory that is looked into, which is watched from the second time on.
    pub(crate) fn stamp_when_looked_into(self: &Arc<Self>) -> Option<Stamp> {
        if let Some(stamp) = self.stamp() {
            return Some(stamp);
        }
        let (watching, directory) = (self.mount.watching.as_ref()?, self.directory()?);
        let looks = directory.watched.looks.fetch_add(1, Ordering::Relaxed) + 1;
        if looks == LOOKS || looks % LOOKS_AGAIN == 0 { watching.watch(self, directory) } else { None }
    }

    /// [`Node::stamp`] of a directory all of whose names are to be learnt.
    pub(crate) fn stamp_for_index(self: &Arc<Self>) -> Option<Stamp> {
        if self.mount.revalidate.is_some() {
            // The index has a token.
            return Some(Stamp::default());
        }
        if let Some(stamp) = self.stamp() {
            return Some(stamp);
        }
        self.mount.watching.as_ref()?.watch(self, self.directory()?)
    }

    /// A change of our own that is about to be made, so that it is not taken for a foreign one.
    pub(crate) fn expect(self: &Arc<Self>, name: &Name, made: bool) -> Option<Expected<F>> {
        let watching = self.mount.watching.as_ref()?;
        self.stamp()?;
        let watch = (*self.directory()?.watched.id.lock())?;
        if !watching.watcher.tells_each(watch) {
            return None;
        }
        let disk = name.to_disk();
        watching.add_expected(watch, &disk, made);
        Some(Expected { dir: Arc::clone(self), watch, disk, made, came: false })
    }

    /// A change of our own in this directory has ended: what it told is queued. Called before its claim is let go of.
    pub(crate) fn has_changed(&self) {
        if let Some(watching) = &self.mount.watching {
            watching.ours.fetch_add(1, Ordering::SeqCst);
            watching.queued.store(true, Ordering::Relaxed);
        }
    }

    /// The stamp under which what is stored of this directory's names is believed by now: all that others have changed
    /// before this is noted. `None`: nothing is believed.
    #[inline]
    pub(crate) fn catch_up(self: &Arc<Self>, slots: &SlotMap<F>, caught_up: &mut CaughtUp) -> Option<Stamp> {
        let Some(watching) = &self.mount.watching else { return self.stamp() };
        let stamp = self.stamp_when_looked_into()?;
        let mount = Arc::as_ptr(&self.mount) as usize;
        if caught_up.0.is_some_and(|passed| passed.mount == mount) {
            return Some(stamp);
        }
        let ours = watching.ours.load(Ordering::SeqCst);
        watching.catch_up(slots);
        caught_up.0 = Some(Passed { mount, ours });
        self.stamp()
    }

    /// [`Node::catch_up`] before the index is asked of a name that is claimed; of a directory that is not watched, nothing.
    pub(crate) fn catch_up_for_index(
        self: &Arc<Self>,
        slots: &SlotMap<F>,
        caught_up: &mut CaughtUp,
    ) -> Option<Stamp> {
        self.stamp()?;
        if let Some(watching) = &self.mount.watching
            && caught_up.0.is_some_and(|passed| passed.ours != watching.ours.load(Ordering::SeqCst))
            && !defect(Defect::IndexBehindOurs)
        {
            caught_up.0 = None;
        }
        self.catch_up(slots, caught_up)
    }
}

/// A change of our own that the queue is going to tell of, unless it does not come about.
pub(crate) struct Expected<F> {
    dir: Arc<Node<F>>,
    watch: WatchId,
    disk: DiskName,
    made: bool,
    came: bool,
}

impl<F> Expected<F> {
    /// The change was made.
    pub(crate) fn came(mut self) {
        self.came = true;
    }
}

impl<F> Drop for Expected<F> {
    fn drop(&mut self) {
        if !self.came
            && let Some(watching) = &self.dir.mount.watching
        {
            // It may have come all the same, and been told: then nothing is left to take back.
            watching.take_expected(self.watch, self.disk.as_bytes(), self.made);
        }
    }
}
