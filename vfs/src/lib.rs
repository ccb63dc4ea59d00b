//! A tree of files below a root, in POSIX words, with a parallel lookup cache in front. It knows nothing of SMB.
//!
//! The unit of exclusion is **one name in one directory**. Two changes of different names in one directory share an
//! uncontended gate and nothing else, so a storage that takes 5 ms a call takes 5 ms for a hundred creates in one
//! directory, and not half a second.
//!
//! # The order of locks
//!
//! 1. *Gates* of directories, ascending by [`NodeId`]: shared to change names in it, exclusive to remove it.
//! 2. *Claims* on names, ascending by (directory, folded name).
//! 3. The *topology* lock of a device: for moving a directory to another parent, and nothing else.
//! 4. A node's *opens* ([`Node::opens`]), two nodes ascending by [`NodeId`]. Synchronous, never over an await.
//! 5. Short mutexes, nanoseconds: a shard of a table, then slots by key, then a link's place, then a directory's index.
//!    Who reads a mount's queue of changes has a mutex for that, and takes these under it, but no opens.
//!
//! 1 to 3 wait without a thread, in line. Every operation takes all its gates first and once, then its names, then
//! looks whether the names still mean what it took them for, or else lets go of everything and begins anew. So each
//! wait is for something of higher rank than all that is held, and nobody waits in a circle. Nothing of 1 to 3 is held
//! while a client is waited for. Debug builds and the models watch over this order: `rank`.
//!
//! # Who owns a claim
//!
//! The task that changes the name, not the request that asked for it. A change is polled once in place; if it has to
//! wait it becomes a task of its own, with its claims and gates, and runs to its end whatever becomes of the request.
//!
//! # Map
//!
//! [`backend`] is the storage below, with [`memory`] and the real file system as its kinds. `lookup` has the parts:
//! `fifo` waiting in line, `gate`, `slot` (position and lock), `link` (identity), `slotmap`, `evict` (memory),
//! `index` (which names a directory has), `coherence` (what may be believed where others change the tree too). `ops` tells the
//! operations, one story a file. [`node`] and [`opens`] are what the server sees of an object.

pub mod backend;
mod counters;
pub mod error;
pub mod faulty;
pub mod fold;
pub mod latency;
pub mod local;
mod lookup;
pub mod memory;
pub mod metadata;
pub mod name;
pub mod node;
pub mod opens;
mod ops;
pub mod path;
#[doc(hidden)]
pub mod probe;
mod rank;
pub mod stream;
pub mod sync;
pub mod xattr;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use backend::{
    Backend, BackendFile, BackendNode, Caps, Change, Coherence, CreateHow, DirEntry, NameSink, NodeInfo,
    OpenHow, Token, WatchId, Watcher,
};
pub use counters::Counters;
pub use error::{FsError, Fut, Result};
pub use fold::Fold;
pub use lookup::coherence::CaughtUp;
pub use lookup::link::Link;
pub use metadata::{BackendKey, DosAttributes, Kind, Metadata, SetMetadata, Timestamp, VolumeInfo};
pub use name::{DiskName, Name, NameError};
pub use node::{Node, NodeId};
pub use opens::{Attach, Opens};
pub use ops::create::Creation;
pub use ops::remove::Removal;
pub use ops::rename::{RenameError, RenameView};
pub use path::Path;

use dashmap::DashMap;

use counters::{Count, Counts};
use lookup::evict::Budget;
use lookup::gate::{Gate, Mode};
use lookup::slotmap::SlotMap;
use node::{Mount, NodeTable};
use ops::run::Running;
use rank::Level;

/// How changes in one directory exclude each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plan {
    /// By name: the design.
    #[default]
    Claims,
    /// By directory, as kernels do it: every change takes its directories' gates exclusively, and looks its name up while
    /// it has them. For comparison.
    DirectoryLock,
}

/// What a [`Vfs`] is made with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much memory the cache may take, in bytes; what is in use may exceed it.
    pub memory_max: usize,
    /// How many names the cache may keep; names in use may exceed it.
    pub names_max: usize,
    /// How changes exclude each other.
    pub plan: Plan,
}

impl Default for Options {
    fn default() -> Self {
        Options { memory_max: 256 << 20, names_max: usize::MAX, plan: Plan::Claims }
    }
}

/// The cache and the operations: one per server, for all its shares. `F` is what the server keeps of each object,
/// under the object's own mutex.
pub struct Vfs<F> {
    pub(crate) options: Options,
    pub(crate) slots: SlotMap<F>,
    pub(crate) nodes: Arc<NodeTable<F>>,
    /// The topology lock of each device: a directory is only ever moved within one, and a device that hangs holds up no
    /// other.
    topologies: DashMap<u64, Arc<Gate>>,
    /// Moves of directories begun and ended: a walk upwards between which no move began, when none was under way, saw
    /// one instant.
    moves_begun: AtomicU64,
    moves_ended: AtomicU64,
    /// Held while a directory is given another place: an instant.
    moves: sync::Mutex<()>,
    /// Renames of directories begun, before the rules look for what is open below, and ended, when the old name is no longer
    /// found.
    pub(crate) directory_renames_begun: AtomicU64,
    pub(crate) directory_renames_ended: AtomicU64,
    pub(crate) running: Arc<Running>,
    pub(crate) counts: Counts,
}

/// A point in time, as far as directories are renamed: how many renames had begun. `None`: some had not ended.
#[derive(Clone, Copy, Debug)]
pub struct Moment(Option<u64>);

/// A mounted tree.
pub struct Root<F> {
    link: Arc<Link<F>>,
    mount: Arc<Mount<F>>,
    _hold: Arc<Hold<F>>,
}

impl<F> Clone for Root<F> {
    fn clone(&self) -> Self {
        Root { link: Arc::clone(&self.link), mount: Arc::clone(&self.mount), _hold: Arc::clone(&self._hold) }
    }
}

impl<F> Root<F> {
    /// The root directory's link.
    pub fn link(&self) -> Arc<Link<F>> {
        Arc::clone(&self.link)
    }

    /// The storage.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.mount.backend
    }

    /// How names are compared.
    pub fn fold(&self) -> Fold {
        self.mount.fold
    }
}

/// Keeps a directory that is a root from being moved or removed through another share.
struct Hold<F>(Arc<Node<F>>);

impl<F> Hold<F> {
    fn new(node: &Arc<Node<F>>) -> Arc<Hold<F>> {
        if let Some(directory) = node.directory() {
            directory.mounts.fetch_add(1, Ordering::SeqCst);
        }
        Arc::new(Hold(Arc::clone(node)))
    }
}

impl<F> Drop for Hold<F> {
    fn drop(&mut self) {
        if let Some(directory) = self.0.directory() {
            directory.mounts.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl<F: Default + Send + 'static> Vfs<F> {
    /// An empty cache.
    pub fn new(options: Options) -> Arc<Vfs<F>> {
        let budget = Budget::new(options.memory_max, options.names_max);
        Arc::new(Vfs {
            slots: SlotMap::new(&budget),
            options,
            nodes: NodeTable::new(&budget),
            topologies: DashMap::new(),
            moves_begun: AtomicU64::new(0),
            moves_ended: AtomicU64::new(0),
            moves: sync::mutex(Level::Moves, ()),
            directory_renames_begun: AtomicU64::new(0),
            directory_renames_ended: AtomicU64::new(0),
            running: Running::new(),
            counts: Counts::default(),
        })
    }

    /// Mounts a storage. Two mounts of one storage, or of a part of it, share their objects, opens and claims as long
    /// as they compare names alike.
    ///
    /// # Errors
    /// What the backend says of its root; `NotADirectory` if that is none.
    pub async fn mount(&self, backend: Arc<dyn Backend>, fold: Fold) -> Result<Root<F>> {
        let info = backend.root().await?;
        if info.metadata.kind != Kind::Directory {
            return Err(FsError::NotADirectory);
        }
        let mount = Arc::new(Mount::new(backend, fold));
        let node = self.nodes.find_or_make(&mount, info.metadata.key, Kind::Directory, info.node);
        let hold = Hold::new(&node);
        let mut opens = node.opens();
        let state = opens.state();
        let link = match state.links.iter().find_map(std::sync::Weak::upgrade) {
            Some(link) => link,
            None => {
                let place = node.directory().and_then(|directory| directory.place.lock().clone());
                let link = node.link_to(place);
                state.add(&link);
                link
            }
        };
        drop(opens);
        Ok(Root { link, mount, _hold: hold })
    }

    /// What the cache has done so far.
    pub fn counters(&self) -> Counters {
        let budget = self.slots.budget();
        Counters {
            index_bytes: self.nodes.indexes.bytes() as u64,
            names: budget.names() as u64,
            nodes: self.nodes.len() as u64,
            bytes: budget.bytes() as u64,
            bytes_of_absent_names: budget.absent() as u64,
            ..self.counts.sum()
        }
    }

    /// Waits until no change is under way any more, for a tidy end.
    pub async fn quiesce(&self) {
        self.running.none().await;
    }

    /// This moment, before a name is looked up: for [`Vfs::stands_at`].
    pub fn moment(&self) -> Moment {
        // In this order: all that had begun by the second had ended by the first.
        let ended = self.directory_renames_ended.load(Ordering::SeqCst);
        let begun = self.directory_renames_begun.load(Ordering::SeqCst);
        Moment((begun == ended).then_some(begun))
    }

    /// Whether the directory `dir`, which `names` led to from `root` after `since`, is still found by them.
    ///
    /// Who makes an open in it known to the rules of those who rename directories ([`Vfs::rename`]'s `admit`), and is then
    /// told `true`, need not fear that one of them has overlooked it: a rename that did had ended before `since`, or shows
    /// here. Renames that are under way are waited for. Called without any lock.
    pub async fn stands_at(&self, root: &Root<F>, dir: &Arc<Node<F>>, names: &[Name], since: Moment) -> bool {
        if sync::defect(sync::Defect::OpenIgnoresMoves)
            || since.0 == Some(self.directory_renames_begun.load(Ordering::SeqCst))
        {
            return true;
        }
        // A directory that has its new place is found by its old name until its names are let go of.
        self.names_settled(dir).await;
        self.walk(root, names).await.is_ok_and(|now| now.id() == dir.id())
    }

    /// The names from `root` down to `link`, all of one instant. `None` if it does not stand below `root`.
    pub fn path(&self, root: &Root<F>, link: &Link<F>) -> Option<Vec<Name>> {
        for _ in 0..3 {
            let ended = self.moves_ended.load(Ordering::SeqCst);
            let begun = self.moves_begun.load(Ordering::SeqCst);
            let (names, reached) = link.names_below(Some(root.link.node()));
            if begun == ended && self.moves_begun.load(Ordering::SeqCst) == begun {
                return reached.then_some(names);
            }
        }
        let _still = self.moves.lock();
        let (names, reached) = link.names_below(Some(root.link.node()));
        reached.then_some(names)
    }

    /// Another number after each move of a directory. Read before a place that is asked for, and again after it.
    pub(crate) fn moves(&self) -> u64 {
        if sync::defect(sync::Defect::MovesAreNotCounted) {
            return 0;
        }
        self.moves_begun.load(Ordering::SeqCst)
    }

    /// Runs `f`, which gives a directory another place, so that [`Vfs::path`] notices.
    pub(crate) fn restructure(&self, f: impl FnOnce()) {
        if sync::defect(sync::Defect::UncountedMoves) {
            return f();
        }
        let _alone = self.moves.lock();
        self.moves_begun.fetch_add(1, Ordering::SeqCst);
        f();
        self.moves_ended.fetch_add(1, Ordering::SeqCst);
    }

    /// For models and tests, when nothing runs: nobody waits, nothing is claimed or gated, and what is believed of each
    /// name is what the backend says.
    #[doc(hidden)]
    pub async fn check_at_rest(&self) {
        assert!(self.topologies.iter().all(|lock| lock.is_idle()), "a topology lock is held");
        let nodes = self.nodes.all();
        let by_id: std::collections::HashMap<_, _> = nodes.iter().map(|node| (node.id(), node)).collect();
        for node in nodes.iter().filter_map(|node| node.directory()) {
            assert!(node.gate.is_idle(), "a gate is held");
            assert!(!node.moving.load(Ordering::SeqCst));
        }
        for slot in self.slots.all() {
            assert!(!slot.is_claimed(), "{slot:?} is claimed");
            let Some(dir) = by_id.get(&slot.dir.id).filter(|node| !node.is_dead()) else {
                continue;
            };
            if let Some(watching) = &dir.mount.watching {
                watching.catch_up(&self.slots);
            }
            if !slot.is_believed(dir.stamp()) {
                // No more than a hint.
                continue;
            }
            let value = slot.peek().0;
            for link in value.links() {
                let place = link.place_now().expect("a link in a slot stands somewhere");
                assert!(!link.is_gone(), "{slot:?} has a link that is gone");
                assert!(place.dir.id() == slot.dir.id, "{slot:?} has a link of another directory");
                assert!(dir.mount.fold.fold(&place.name) == slot.fold, "{slot:?} has a link of another name");
                let found = dir.mount.backend.lookup(&dir.be, &place.name.to_disk()).await.expect("looks up");
                let key = found.map(|info| info.metadata.key);
                assert_eq!(key, Some(link.node().key()), "{slot:?} is not what the backend has");
            }
            if matches!(value, lookup::slot::Value::Negative) {
                let name = Name::from_disk(slot.fold.as_bytes());
                let found =
                    dir.mount.backend.lookup_folded(&dir.be, &name, &dir.mount.fold).await.expect("looks up");
                assert!(found.is_empty(), "{slot:?} is believed to be absent");
            }
        }
        for dir in nodes.iter().filter(|node| node.directory().is_some() && !node.is_dead()) {
            lookup::index::check(dir).await;
        }
    }

    /// The lock under which directories of this one's device are moved.
    pub(crate) fn topology(&self, dir: &Node<F>) -> Arc<Gate> {
        let device = dir.key().device;
        let known = self.topologies.get(&device).map(|lock| Arc::clone(&lock));
        known.unwrap_or_else(|| Arc::clone(&self.topologies.entry(device).or_insert_with(Gate::topology)))
    }

    /// How a change of names passes its directories' gates.
    pub(crate) fn gate_mode(&self) -> Mode {
        match self.options.plan {
            Plan::Claims => Mode::Shared,
            Plan::DirectoryLock => Mode::Exclusive,
        }
    }

    pub(crate) fn count(&self, what: Count) {
        self.counts.add(what, 1);
    }
}
