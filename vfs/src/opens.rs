//! `Opens`: the guard of a node's one mutex. Under it an open meets a removal, a rename, and the server's own rules.
//!
//! A mark that must hold while the backend is at work (gone, moving) is set under this mutex before the call, and an
//! open that meets it waits ([`Vfs::settled`](crate::Vfs::settled)) and looks the name up again. So open and removal
//! are decided by one mutex, whichever comes first.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

use crate::lookup::link::{DELETE_PENDING, GONE, Link, MOVING};
use crate::name::Name;
use crate::node::Node;
use crate::sync::{Defect, MutexGuard, defect};

/// What a node's mutex guards.
pub(crate) struct State<F> {
    /// Its names, as far as they are in use.
    pub(crate) links: Vec<Weak<Link<F>>>,
    pub(crate) server: F,
}

impl<F: Default> Default for State<F> {
    fn default() -> Self {
        State { links: Vec::new(), server: F::default() }
    }
}

impl<F> State<F> {
    /// Adds a name, and throws out those that nobody uses any more.
    pub(crate) fn add(&mut self, link: &Arc<Link<F>>) {
        self.links.retain(|link| link.strong_count() > 0);
        self.links.push(Arc::downgrade(link));
    }
}

/// Why a link cannot be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Attach {
    /// The name is removed, or means another object by now: wait until it is settled, then look it up again.
    #[error("the name is gone")]
    Gone,
    /// The name is being renamed: likewise.
    #[error("the name is moving")]
    Moving,
    /// The name goes with its last open; no new open is let in.
    #[error("the name's deletion is pending")]
    DeletePending,
}

/// The guard of a node's mutex; it is also the guard of `F`, what the server keeps of the node.
pub struct Opens<'a, F> {
    node: &'a Node<F>,
    state: MutexGuard<'a, State<F>>,
}

impl<F> Deref for Opens<'_, F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.state.server
    }
}

impl<F> DerefMut for Opens<'_, F> {
    fn deref_mut(&mut self) -> &mut F {
        &mut self.state.server
    }
}

impl<'a, F> Opens<'a, F> {
    pub(crate) fn new(node: &'a Node<F>, state: MutexGuard<'a, State<F>>) -> Opens<'a, F> {
        Opens { node, state }
    }

    pub(crate) fn state(&mut self) -> &mut State<F> {
        &mut self.state
    }

    fn check(&self, link: &Link<F>) {
        debug_assert!(std::ptr::eq(&**link.node(), self.node), "a link of another node");
    }

    /// Counts one more open of `link`.
    ///
    /// # Errors
    /// [`Attach`] says why it cannot be opened. For a link that was looked up by its name, [`Opens::attach_at`] also
    /// sees that it still has that name.
    pub fn attach(&mut self, link: &Arc<Link<F>>) -> Result<(), Attach> {
        self.check(link);
        if link.has(GONE) && !defect(Defect::OpenIgnoresGone) {
            return Err(Attach::Gone);
        }
        if link.has(MOVING) {
            return Err(Attach::Moving);
        }
        if link.has(DELETE_PENDING) {
            return Err(Attach::DeletePending);
        }
        link.set_opens(link.opens() + 1);
        Ok(())
    }

    /// [`Opens::attach`], if `link` still is what `name` in `dir` means.
    ///
    /// # Errors
    /// As there; `Gone` if the link was renamed since it was looked up.
    pub fn attach_at(&mut self, link: &Arc<Link<F>>, dir: &Node<F>, name: &Name) -> Result<(), Attach> {
        let place = link.place_now();
        let is_there = place.is_some_and(|place| {
            place.dir.id() == dir.id() && (place.name == *name || dir.mount.fold.eq(&place.name, name))
        });
        if is_there || defect(Defect::OpenIgnoresPlace) { self.attach(link) } else { Err(Attach::Gone) }
    }

    /// Counts one open of `link` less. `true`: that was the last one of a link whose deletion is pending, and
    /// [`Vfs::remove_link`](crate::Vfs::remove_link) is to be called.
    #[must_use]
    pub fn detach(&mut self, link: &Arc<Link<F>>) -> bool {
        self.check(link);
        let opens = link.opens();
        debug_assert!(opens > 0, "detached more often than attached");
        link.set_opens(opens.saturating_sub(1));
        // Also if the name is being replaced just now: should that fail, the removal has still to be made.
        opens <= 1 && link.has(DELETE_PENDING)
    }

    /// How many opens `link` has.
    pub fn open_count(&self, link: &Link<F>) -> u32 {
        self.check(link);
        link.opens()
    }

    /// How many opens all the names of the node have together.
    pub fn open_count_of_all(&self) -> u32 {
        self.state.links.iter().filter_map(Weak::upgrade).map(|link| link.opens()).sum()
    }

    /// Says whether `link` goes with its last open.
    pub fn set_delete_pending(&mut self, link: &Link<F>, pending: bool) {
        self.check(link);
        link.set(DELETE_PENDING, pending);
    }

    /// Whether `link` goes with its last open.
    pub fn delete_pending(&self, link: &Link<F>) -> bool {
        self.check(link);
        link.has(DELETE_PENDING)
    }

    /// Whether `link` is removed, or is just being removed.
    pub fn is_gone(&self, link: &Link<F>) -> bool {
        self.check(link);
        link.has(GONE)
    }
}
