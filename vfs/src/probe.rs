//! The parts of an operation one by one, for the benches.

use std::sync::Arc;

use crate::Vfs;
use crate::lookup::gate::Mode;
use crate::lookup::slot::Slot;
use crate::name::Name;
use crate::node::Node;

/// One name's slot.
pub struct Probe<F>(Arc<Slot<F>>);

impl<F> Probe<F> {
    /// Claims the name, and lets go of it.
    pub async fn claim(&self) {
        self.0.claim().await.abort();
    }
}

impl<F: Default + Send + 'static> Vfs<F> {
    /// The slot of `name` in `dir`.
    pub fn probe(&self, dir: &Node<F>, name: &Name) -> Probe<F> {
        Probe(self.slot(dir, &dir.mount.fold.fold(name)))
    }

    /// Folds `name`, and hashes what `dir` keeps it by.
    pub fn probe_hash(&self, dir: &Node<F>, name: &Name) -> u64 {
        dir.siblings().map_or(0, |siblings| self.slots.hash(siblings, &dir.mount.fold.folded(name)))
    }

    /// Passes the gate of `dir`, and leaves it.
    pub async fn probe_gate(&self, dir: &Node<F>) {
        if let Some(directory) = dir.directory() {
            drop(directory.gate.acquire(Mode::Shared).await);
        }
    }
}
