//! A link: one name of one object. It is what an open handle holds, and it follows the object when that is renamed.
//!
//! The kernel's dentry is three things at once: a position, a lock and an identity. Here a [`Slot`](super::slot::Slot)
//! is the position and the lock, a link the identity, a [`Node`] the object; so nothing moves under who holds a lock.
//!
//! The marks and the count of opens are guarded by the node's `opens` mutex: they are read and changed through
//! [`Opens`](crate::opens::Opens) alone, and are atomic only for want of a cell that knows of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};

use super::evict::ARC;
use crate::name::Name;
use crate::node::Node;
use crate::rank::Level;
use crate::sync::{Mutex, mutex};

/// Where a link stands: in which directory, spelled how.
pub(crate) struct Place<F> {
    pub(crate) dir: Arc<Node<F>>,
    pub(crate) name: Name,
}

impl<F> Clone for Place<F> {
    fn clone(&self) -> Self {
        Place { dir: Arc::clone(&self.dir), name: self.name.clone() }
    }
}

impl<F> Place<F> {
    pub(crate) fn is(&self, dir: &Node<F>, name: &Name) -> bool {
        self.dir.id() == dir.id() && self.name == *name
    }

    pub(crate) fn same(&self, other: &Place<F>) -> bool {
        self.is(&other.dir, &other.name)
    }

    /// The memory that the name takes elsewhere.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.name.packed().heap_bytes()
    }
}

/// The name is removed, or is being removed.
pub(crate) const GONE: u8 = 1;
/// A rename of it is under way.
pub(crate) const MOVING: u8 = 2;
/// It goes with its last open (MS-FSA's Link.IsDeleted).
pub(crate) const DELETE_PENDING: u8 = 4;

/// One name of one object.
pub struct Link<F> {
    node: Arc<Node<F>>,
    /// For everything but a directory; a directory's only place is its node's.
    place: Mutex<Option<Place<F>>>,
    marks: AtomicU8,
    /// How often it was moved: who has moved away and back is not where he was all the time.
    moves: AtomicU16,
    opens: AtomicU32,
}

impl<F> Link<F> {
    pub(crate) fn new(node: Arc<Node<F>>, place: Option<Place<F>>) -> Arc<Link<F>> {
        let link = Link {
            node,
            place: mutex(Level::Place, None),
            marks: AtomicU8::new(0),
            moves: AtomicU16::new(0),
            opens: AtomicU32::new(0),
        };
        link.node.budget().add(ARC + size_of::<Self>());
        let link = Arc::new(link);
        if let Some(place) = place {
            link.set_place(place);
        }
        link
    }

    fn place_cell(&self) -> &Mutex<Option<Place<F>>> {
        match self.node.directory() {
            Some(directory) => &directory.place,
            None => &self.place,
        }
    }

    /// The object.
    pub fn node(&self) -> &Arc<Node<F>> {
        &self.node
    }

    /// Another number after each move. Read before the place.
    pub(crate) fn moves(&self) -> u16 {
        self.moves.load(Ordering::Acquire)
    }

    pub(crate) fn place_now(&self) -> Option<Place<F>> {
        self.place_cell().lock().clone()
    }

    /// Moves the link. Called with the node's `opens` held.
    pub(crate) fn set_place(&self, place: Place<F>) {
        let bytes = place.heap_bytes();
        let old = self.place_cell().lock().replace(place);
        self.moves.fetch_add(1, Ordering::Release);
        let before = old.as_ref().map_or(0, Place::heap_bytes);
        if bytes != before {
            self.node.budget().add(bytes);
            self.node.budget().sub(before);
        }
        // Outside the lock: the directory may end here.
        drop(old);
    }

    /// The directory that the name stands in, and the name as it is spelled there. `None`: a share's root.
    pub fn place(&self) -> Option<(Arc<Node<F>>, Name)> {
        self.place_now().map(|place| (place.dir, place.name))
    }

    /// Whether the name stands in `dir`.
    pub fn is_in(&self, dir: &Node<F>) -> bool {
        self.place_cell().lock().as_ref().is_some_and(|place| place.dir.id() == dir.id())
    }

    /// The name as it is spelled on the disk. `None`: a share's root.
    pub fn name(&self) -> Option<Name> {
        self.spelling()
    }

    pub(crate) fn spelling(&self) -> Option<Name> {
        self.place_cell().lock().as_ref().map(|place| place.name.clone())
    }

    /// How the link is spelled, if it stands in `dir` under `wanted` or a name that is the same there.
    pub(crate) fn spelling_in(&self, dir: &Node<F>, wanted: &Name) -> Option<Name> {
        let place = self.place_cell().lock();
        let Place { dir: here, name } = place.as_ref()?;
        (here.id() == dir.id() && dir.mount.fold.eq(name, wanted)).then(|| name.clone())
    }

    pub(crate) fn is_at(&self, dir: &Node<F>, name: &Name) -> bool {
        self.place_cell().lock().as_ref().is_some_and(|place| place.is(dir, name))
    }

    pub(crate) fn has(&self, mark: u8) -> bool {
        self.marks.load(Ordering::Acquire) & mark != 0
    }

    /// Called with the node's `opens` held.
    pub(crate) fn set(&self, mark: u8, on: bool) {
        let marks = self.marks.load(Ordering::Relaxed);
        self.marks.store(if on { marks | mark } else { marks & !mark }, Ordering::Release);
        if mark & DELETE_PENDING != 0
            && let Some(directory) = self.node.directory()
        {
            directory.delete_pending.store(on, Ordering::SeqCst);
        }
    }

    pub(crate) fn opens(&self) -> u32 {
        self.opens.load(Ordering::Acquire)
    }

    /// Called with the node's `opens` held.
    pub(crate) fn set_opens(&self, opens: u32) {
        self.opens.store(opens, Ordering::Release);
    }

    /// The name was removed, or is just being removed.
    pub fn is_gone(&self) -> bool {
        self.has(GONE)
    }

    /// The names from the topmost root that is known down to this one. A rename above it at the same time may mix old
    /// and new names; where that matters, [`Vfs::path`](crate::Vfs::path) tells the names of one instant.
    pub fn path(&self) -> Vec<Name> {
        self.names_below(None).0
    }

    /// The names from `root` (or the topmost root) down to this one, and whether `root` was reached.
    pub(crate) fn names_below(&self, root: Option<&Node<F>>) -> (Vec<Name>, bool) {
        let is_root = |node: &Node<F>| root.is_some_and(|root| root.id() == node.id());
        let mut names = Vec::new();
        let mut reached = is_root(&self.node);
        let mut place = if reached { None } else { self.place_now() };
        while let Some(Place { dir, name }) = place {
            names.push(name);
            reached = is_root(&dir);
            place = if reached { None } else { dir.directory().and_then(|dir| dir.place.lock().clone()) };
        }
        names.reverse();
        (names, reached)
    }
}

impl<F> Drop for Link<F> {
    fn drop(&mut self) {
        let name = self.place.get_mut().as_ref().map_or(0, Place::heap_bytes);
        self.node.budget().sub(ARC + size_of::<Self>() + name);
    }
}
