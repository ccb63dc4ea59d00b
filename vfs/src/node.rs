//! Nodes: the objects of the tree, found by their identity on the storage, and alive while anything refers to them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::backend::{Backend, BackendNode, Coherence};
use crate::fold::Fold;
use crate::lookup::coherence::{Watched, Watching};
use crate::lookup::evict::{ARC, Budget, Siblings};
use crate::lookup::gate::Gate;
use crate::lookup::index::{DirIndex, Indexes};
use crate::lookup::link::{Link, Place};
use crate::lookup::slot::Slot;
use crate::metadata::{BackendKey, Kind};
use crate::opens::{Opens, State};
use crate::rank::{Level, lock};
use crate::sync::{Defect, Mutex, defect, mutex};

/// The number of a node: ascending, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A mounted backend and how its names are compared.
pub(crate) struct Mount<F> {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) fold: Fold,
    /// What was once looked up is believed for ever.
    pub(crate) trust: bool,
    /// At most one spelling of a name can stand in a directory.
    pub(crate) exact: bool,
    /// `lookup_folded` is no scan.
    pub(crate) folds: bool,
    /// What others change is told.
    pub(crate) watching: Option<Watching<F>>,
    /// It shows in a directory's token, which need not be compared again for so long.
    pub(crate) revalidate: Option<Duration>,
}

impl<F> Mount<F> {
    pub(crate) fn new(backend: Arc<dyn Backend>, fold: Fold) -> Mount<F> {
        let caps = backend.caps();
        let folds = caps.folds && fold == Fold::Insensitive;
        let (watcher, revalidate) = match caps.coherence {
            Coherence::Notify => (backend.watcher(), None),
            Coherence::Revalidate(age) => (None, Some(age)),
            Coherence::Exclusive | Coherence::None => (None, None),
        };
        Mount {
            backend,
            fold,
            trust: caps.exclusive(),
            exact: folds || fold == Fold::Sensitive,
            folds,
            watching: watcher.map(Watching::new),
            revalidate,
        }
    }

    /// Whether changes are told, our own among them.
    pub(crate) fn is_notified(&self) -> bool {
        self.watching.is_some()
    }
}

/// What a directory has beside a node.
pub(crate) struct Directory<F> {
    pub(crate) gate: Arc<Gate>,
    /// Its one place; `None`: a root, or not known yet.
    pub(crate) place: Mutex<Option<Place<F>>>,
    /// It is the root of so many mounts: it is neither moved nor removed.
    pub(crate) mounts: AtomicU32,
    /// A rename of it is under way.
    pub(crate) moving: AtomicBool,
    /// Its deletion is pending: the mark of its link, readable without the node's mutex.
    pub(crate) delete_pending: AtomicBool,
    /// The names in it that are being changed.
    changing: Mutex<Vec<Arc<Slot<F>>>>,
    pub(crate) index: DirIndex,
    pub(crate) watched: Watched,
    /// What its slots in the cache have in common.
    siblings: Arc<Siblings>,
}

/// An object of the tree: a file, a directory, or something that is never opened.
pub struct Node<F> {
    id: NodeId,
    pub(crate) mount: Arc<Mount<F>>,
    pub(crate) be: BackendNode,
    key: BackendKey,
    kind: Kind,
    pub(crate) state: Mutex<State<F>>,
    directory: Option<Box<Directory<F>>>,
    table: Arc<NodeTable<F>>,
}

impl<F> Node<F> {
    /// Its number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Its identity on the storage.
    pub fn key(&self) -> BackendKey {
        self.key
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The one mutex over its marks, its opens and what the server keeps of it. Held shortly, never across an await;
    /// of two nodes in the order of their numbers.
    pub fn opens(&self) -> Opens<'_, F> {
        Opens::new(self, self.state.lock())
    }

    pub(crate) fn table(&self) -> &NodeTable<F> {
        &self.table
    }

    pub(crate) fn directory(&self) -> Option<&Directory<F>> {
        self.directory.as_deref()
    }

    /// What the slots of its names have in common, if it is a directory.
    pub(crate) fn siblings(&self) -> Option<&Arc<Siblings>> {
        self.directory().map(|directory| &directory.siblings)
    }

    /// What the memory of the cache is counted in.
    pub(crate) fn budget(&self) -> &Budget {
        &self.table.budget
    }

    /// The memory that it takes, but for its name.
    fn bytes(&self) -> usize {
        let directory = if self.directory.is_some() {
            size_of::<Directory<F>>() + 2 * ARC + size_of::<Gate>() + size_of::<Siblings>()
        } else {
            0
        };
        // Its list of links is made for four.
        ARC + size_of::<Self>() + 4 * size_of::<Weak<Link<F>>>() + directory
    }

    /// Where a directory stands: the directory above it, and its name there. `None` for a root, and for what is no directory
    /// (ask its links).
    pub fn place(&self) -> Option<(Arc<Node<F>>, crate::name::Name)> {
        self.directory()?.place.lock().as_ref().map(|place| (Arc::clone(&place.dir), place.name.clone()))
    }

    pub(crate) fn parent(&self) -> Option<Arc<Node<F>>> {
        self.directory()?.place.lock().as_ref().map(|place| Arc::clone(&place.dir))
    }

    /// Whether this directory stands somewhere below `ancestor`, or is it. Of a file only the latter is known: ask its
    /// link's place.
    pub fn is_below(&self, ancestor: &Node<F>) -> bool {
        if self.id == ancestor.id {
            return true;
        }
        let mut dir = self.parent();
        while let Some(node) = dir {
            if node.id == ancestor.id {
                return true;
            }
            dir = node.parent();
        }
        false
    }

    /// Whether this directory goes with its last open. A glance, for who is about to make something in it: who wants to be sure asks
    /// its link under [`Node::opens`].
    pub fn is_delete_pending(&self) -> bool {
        self.directory().is_some_and(|directory| directory.delete_pending.load(Ordering::SeqCst))
    }

    /// Whether the directory was removed.
    pub(crate) fn is_dead(&self) -> bool {
        self.directory().is_some_and(|directory| directory.gate.is_dead())
    }

    /// The names in this directory that are being changed now.
    pub(crate) fn changing(&self) -> Vec<Arc<Slot<F>>> {
        self.directory().map(|directory| directory.changing.lock().clone()).unwrap_or_default()
    }
}

impl<F> Drop for Node<F> {
    fn drop(&mut self) {
        self.table.forget(self);
        self.budget().sub(self.bytes());
        if let Some(mut directory) = self.directory.take() {
            self.table.indexes.end(self.id, &mut directory.index);
            if let Some(watching) = &self.mount.watching {
                watching.end(&mut directory);
            }
            self.directory = Some(directory);
        }
        // A chain of directories that only their children kept alive ends here, one after the other and not nested: a
        // client may have made it as deep as it likes.
        let mut above = self.directory.as_mut().and_then(|directory| directory.place.get_mut().take());
        while let Some(place) = above {
            self.budget().sub(place.heap_bytes());
            above = Arc::into_inner(place.dir).and_then(|mut node| {
                node.directory.as_mut().and_then(|directory| directory.place.get_mut().take())
            });
        }
    }
}

/// Notes for the time of a change that a name of a directory is being changed.
pub(crate) struct Changing<F> {
    dir: Arc<Node<F>>,
    slot: Arc<Slot<F>>,
    /// A rename within one directory changes two.
    other: Option<Arc<Slot<F>>>,
    /// The backend was asked for the change, and nobody knows yet what came of it.
    begun: bool,
}

impl<F> Changing<F> {
    pub(crate) fn new(dir: &Arc<Node<F>>, slot: Arc<Slot<F>>, other: Option<Arc<Slot<F>>>) -> Changing<F> {
        let changing = Changing { dir: Arc::clone(dir), slot, other, begun: false };
        if let Some(directory) = dir.directory() {
            directory.changing.lock().extend(changing.slots().cloned());
        }
        changing
    }

    /// The backend is about to be asked. If this is dropped before [`Changing::has_ended`], the directory's index has no
    /// answer for the names any more.
    pub(crate) fn begin(&mut self) {
        self.begun = true;
    }

    /// It is known what came of it.
    pub(crate) fn has_ended(&mut self) {
        self.begun = false;
    }

    fn slots(&self) -> impl Iterator<Item = &Arc<Slot<F>>> {
        [&self.slot].into_iter().chain(&self.other)
    }
}

impl<F> Drop for Changing<F> {
    fn drop(&mut self) {
        if self.begun && !defect(Defect::SureOfTheUnknown) {
            self.slots().for_each(|slot| self.dir.index_unsure(&slot.fold));
        }
        if let Some(directory) = self.dir.directory() {
            let mut changing = directory.changing.lock();
            // Their slots are dropped outside the lock; they are held here too.
            for slot in self.slots() {
                let at = changing.iter().position(|other| Arc::ptr_eq(slot, other));
                at.map(|at| changing.swap_remove(at));
            }
            if changing.is_empty() && changing.capacity() > 64 {
                *changing = Vec::new();
            }
        }
    }
}

/// Where nodes are found by their identity. It keeps none of them alive.
///
/// Directories of one storage that is mounted twice with different comparisons are different nodes: their names are
/// different things.
pub(crate) struct NodeTable<F> {
    map: DashMap<TableKey, Weak<Node<F>>, ahash::RandomState>,
    next: AtomicU64,
    pub(crate) indexes: Indexes<F>,
    budget: Arc<Budget>,
    /// What the map took when it was last looked at.
    bytes: AtomicUsize,
}

type TableKey = (BackendKey, bool);

fn table_key<F>(key: BackendKey, kind: Kind, mount: &Mount<F>) -> TableKey {
    (key, kind == Kind::Directory && mount.fold == Fold::Sensitive)
}

impl<F> NodeTable<F> {
    pub(crate) fn new(budget: &Arc<Budget>) -> Arc<NodeTable<F>> {
        let map = DashMap::with_hasher(ahash::RandomState::new());
        let (next, bytes) = (AtomicU64::new(1), AtomicUsize::new(0));
        let indexes = Indexes::new(budget);
        Arc::new(NodeTable { map, next, indexes, budget: Arc::clone(budget), bytes })
    }

    /// Enters what the map takes by now, and lets go of what it does not need any more.
    fn measure(&self) {
        if self.map.len() < self.map.capacity() / 8 {
            self.map.shrink_to_fit();
        }
        // A table of hashbrown's is full at seven eighths, and has a byte for each place beside the place.
        let bytes = self.map.capacity() / 7 * 8 * (size_of::<(TableKey, Weak<Node<F>>)>() + 1);
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        self.budget.add(bytes);
        self.budget.sub(before);
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Node<F>>> {
        self.map.iter().filter_map(|found| found.value().upgrade()).collect()
    }

    /// Takes `node`, which has ended, out, if it is what is found by its identity.
    pub(crate) fn forget(&self, node: &Node<F>) {
        let key = table_key(node.key, node.kind, &node.mount);
        let _shard = lock(Level::Shard);
        // By now it may lie elsewhere than it did. That it is dead is enough: who is found there alive came after it.
        self.map.remove_if(&key, |_, found| found.strong_count() == 0);
    }
}

impl<F: Default> NodeTable<F> {
    fn make(
        self: &Arc<Self>,
        mount: &Arc<Mount<F>>,
        key: BackendKey,
        kind: Kind,
        be: BackendNode,
    ) -> Arc<Node<F>> {
        let id = NodeId(self.next.fetch_add(1, Ordering::Relaxed));
        if id.0.is_multiple_of(256) {
            self.measure();
        }
        let directory = (kind == Kind::Directory).then(|| {
            Box::new(Directory {
                gate: Gate::new(id),
                place: mutex(Level::Place, None),
                mounts: AtomicU32::new(0),
                moving: AtomicBool::new(false),
                delete_pending: AtomicBool::new(false),
                changing: mutex(Level::Changing, Vec::new()),
                index: DirIndex::new(),
                watched: Watched::default(),
                siblings: Siblings::new(id, &self.budget),
            })
        });
        let (mount, table) = (Arc::clone(mount), Arc::clone(self));
        let state = mutex(Level::Opens(id), State::default());
        let node = Node { id, mount, be, key, kind, state, directory, table };
        self.budget.add(node.bytes());
        Arc::new(node)
    }

    /// The node of this identity. A removed directory's is no longer its.
    pub(crate) fn find_or_make(
        self: &Arc<Self>,
        mount: &Arc<Mount<F>>,
        key: BackendKey,
        kind: Kind,
        be: BackendNode,
    ) -> Arc<Node<F>> {
        let table_key = table_key(key, kind, mount);
        if let Some(found) = self.map.get(&table_key).and_then(|found| found.upgrade())
            && found.kind == kind
            && !found.is_dead()
        {
            return found;
        }
        let made = self.make(mount, key, kind, be);
        // Nodes whose last reference might be ours are dropped after the shard's guard: their drop locks the shard.
        let (node, _unused) = match self.map.entry(table_key) {
            Entry::Vacant(entry) => {
                entry.insert(Arc::downgrade(&made));
                (made, None)
            }
            Entry::Occupied(mut entry) => match entry.get().upgrade() {
                Some(found) if found.kind == kind && !found.is_dead() => (found, Some(made)),
                found => {
                    entry.insert(Arc::downgrade(&made));
                    (made, found)
                }
            },
        };
        node
    }

    /// A node for an object that was made just now. Whatever had its identity is no more.
    pub(crate) fn make_new(
        self: &Arc<Self>,
        mount: &Arc<Mount<F>>,
        key: BackendKey,
        kind: Kind,
        be: BackendNode,
    ) -> Arc<Node<F>> {
        let made = self.make(mount, key, kind, be);
        self.map.insert(table_key(key, kind, mount), Arc::downgrade(&made));
        made
    }
}

impl<F> Node<F> {
    pub(crate) fn link_to(self: &Arc<Self>, place: Option<Place<F>>) -> Arc<Link<F>> {
        Link::new(Arc::clone(self), place)
    }
}
