//! Removing a name: by its link, from wherever it stands now, when its deletion is pending and nobody has it open.

use std::pin::pin;
use std::sync::Arc;

use crate::Vfs;
use crate::counters::Count;
use crate::error::{FsError, Result};
use crate::lookup::coherence::CaughtUp;
use crate::lookup::gate::{GateGuard, Mode};
use crate::lookup::link::{DELETE_PENDING, GONE, Link, Place};
use crate::lookup::slot::{Claim, Value};
use crate::metadata::Kind;
use crate::node::Changing;
use crate::ops::create::settle;
use crate::ops::lookup::NameGuard;
use crate::ops::rename::Marked;
use crate::ops::run::contained;
use crate::sync::{Defect, defect, spawn};

/// What became of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The name was removed.
    Removed,
    /// It was gone already.
    AlreadyGone,
    /// Its deletion is not pending, or it is open: nothing was done.
    Kept,
}

impl<F: Default + Send + 'static> Vfs<F> {
    /// Removes the link's name, if its deletion is pending and it has no opens; both is decided under the node's
    /// `opens`. Called after the last close. It goes on if the caller is dropped. A failed removal clears the pending
    /// deletion. A name that somebody outside removed first counts as removed.
    ///
    /// # Errors
    /// `NotEmpty` for a directory with names in it; what the backend says. Never `Busy`.
    pub async fn remove_link(self: &Arc<Self>, link: &Arc<Link<F>>) -> Result<Removal> {
        let (this, link) = (Arc::clone(self), Arc::clone(link));
        self.run(async move { this.remove(&link, When::Unused).await }).await?
    }

    /// The same, though others may have it open, as POSIX has it: the name goes, and what is open stays as it is until
    /// it is closed.
    ///
    /// # Errors
    /// As there.
    pub async fn remove_link_in_use(self: &Arc<Self>, link: &Arc<Link<F>>) -> Result<Removal> {
        let (this, link) = (Arc::clone(self), Arc::clone(link));
        self.run(async move { this.remove(&link, When::Pending).await }).await?
    }

    async fn remove(self: &Arc<Self>, link: &Arc<Link<F>>, when: When) -> Result<Removal> {
        let node = link.node();
        // Nobody renames what is to be removed, so this does not go on for ever.
        loop {
            let Some(place) = link.place_now() else { return Ok(self.forget_delete(link)) };
            if node
                .directory()
                .is_some_and(|directory| directory.mounts.load(std::sync::atomic::Ordering::SeqCst) > 0)
            {
                self.forget_delete(link);
                return Err(FsError::AccessDenied);
            }
            if link.is_gone() {
                self.settled(link).await;
                if link.is_gone() {
                    return Ok(Removal::AlreadyGone);
                }
            }
            if !when.is_due(link) {
                return Ok(Removal::Kept);
            }
            let mut caught_up = CaughtUp::default();
            let (mut guard, drained) = match self.lock_for_removal(link, &place, &mut caught_up).await {
                Ok(locked) => locked,
                // The directory was removed, and so the name before it.
                Err(FsError::PathNotFound) if link.is_at(&place.dir, &place.name) => {
                    self.mark_removed(link);
                    return Ok(Removal::AlreadyGone);
                }
                Err(FsError::PathNotFound) => continue,
                Err(error) => return Err(error),
            };
            if !link.is_at(&place.dir, &place.name) {
                self.count(Count::Retries);
                continue;
            }
            {
                let opens = node.opens();
                if link.has(GONE) {
                    return Ok(Removal::AlreadyGone);
                }
                if !when.is_due(link) {
                    return Ok(Removal::Kept);
                }
                link.set(GONE, true);
                drop(opens);
            }
            // A failed removal clears what was pending.
            let mut marked = Marked::new(link, GONE | DELETE_PENDING);
            let away = match self.check_ancestry(&place.dir, &mut caught_up).await {
                Ok(()) => false,
                Err(FsError::Stale) => true,
                Err(FsError::Busy) => {
                    marked.marks = GONE;
                    drop(marked);
                    drop((guard, drained));
                    self.count(Count::Retries);
                    self.own_moves_settled(&place.dir).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let rest = Self::value_without(&place, &guard.claim, link);
            guard.begin();
            let expected = if away { None } else { place.dir.expect(&place.name, false) };
            if defect(Defect::DeadTooEarly)
                && let Some(directory) = node.directory()
            {
                directory.gate.set_dead();
            }
            let (backend, disk, key) = (&place.dir.mount.backend, place.name.to_disk(), node.key());
            let removed = match node.kind() {
                // Somebody outside moved its directory: what stands in it is no longer ours to remove.
                _ if away => Err(FsError::Stale),
                Kind::Directory => {
                    contained(pin!(async { backend.rmdir(&place.dir.be, &disk, &key).await })).await
                }
                _ => contained(pin!(async { backend.unlink(&place.dir.be, &disk, &key).await })).await,
            };
            match removed {
                Ok(()) => {
                    self.count(Count::Removes);
                    marked.keep();
                    if let Some(expected) = expected {
                        expected.came();
                    }
                    self.mark_removed(link);
                    place.dir.index_changed([(guard.claim.fold(), &place.name, false)]);
                    place.dir.has_changed();
                    let slot = guard.publish(rest);
                    self.let_go(&place.dir, slot);
                    drop(drained);
                    return Ok(Removal::Removed);
                }
                Err(error) if defect(Defect::TellsOfStrangers) => return Err(error),
                Err(FsError::NotFound | FsError::Stale) => {
                    // The place may have been corrected by a lookup that found the object elsewhere.
                    if link.is_at(&place.dir, &place.name) {
                        marked.keep();
                        self.mark_removed(link);
                        drop(guard);
                        return Ok(Removal::AlreadyGone);
                    }
                    marked.marks = GONE;
                    drop(marked);
                    drop(guard);
                    self.count(Count::Retries);
                }
                Err(FsError::Indeterminate) => {
                    self.settle_removal(place, link, marked, guard, drained);
                    return Err(FsError::Indeterminate);
                }
                Err(error) => {
                    drop(marked);
                    self.failed(&place.dir, guard, &error);
                    return Err(error);
                }
            }
        }
    }

    /// Nobody knows whether a removal came about, or a replacement by a link. The name stays claimed, marked and behind its
    /// gates until the backend does; it is then asked.
    pub(crate) fn settle_removal(
        self: &Arc<Self>,
        place: Place<F>,
        link: &Arc<Link<F>>,
        marked: Marked<F>,
        guard: NameGuard<F>,
        drained: Option<GateGuard>,
    ) {
        if defect(Defect::LetsGoUnknown) {
            return self.hold_until_settled(&place.dir, (guard, marked, drained));
        }
        let (this, link, task) = (Arc::clone(self), Arc::clone(link), self.running.enter());
        spawn(async move {
            let (_task, mut marked) = (task, marked);
            settle(&place.dir).await;
            let found = this.ask_again(&place.dir, &place.name).await;
            if found.is_ok_and(|found| found != Some(link.node().key())) {
                marked.keep();
                this.mark_removed(&link);
            }
            // The name ends as unknown.
            drop(marked);
            drop(guard);
            drop(drained);
        });
    }

    /// The gates, ascending, then the name.
    async fn lock_for_removal(
        &self,
        link: &Arc<Link<F>>,
        place: &Place<F>,
        caught_up: &mut CaughtUp,
    ) -> Result<(NameGuard<F>, Option<GateGuard>)> {
        let victim = link.node();
        let mode = self.gate_mode();
        let Some(directory) = victim.directory() else {
            return Ok((self.lookup_and_lock(&place.dir, &place.name, mode, caught_up).await?, None));
        };
        let Some(above) = place.dir.directory() else { return Err(FsError::NotADirectory) };
        if defect(Defect::NamesThenDrain) {
            let guard = self.lookup_and_lock(&place.dir, &place.name, mode, caught_up).await?;
            return Ok((guard, Some(directory.gate.acquire(Mode::Exclusive).await)));
        }
        let (gate, drained) = if place.dir.id() < victim.id() {
            let gate = above.gate.acquire(mode).await;
            (gate, directory.gate.acquire(Mode::Exclusive).await)
        } else {
            let drained = directory.gate.acquire(Mode::Exclusive).await;
            (above.gate.acquire(mode).await, drained)
        };
        if gate.is_dead() {
            return Err(FsError::PathNotFound);
        }
        let slot = self.slot(&place.dir, &place.dir.mount.fold.fold(&place.name));
        let mut claim = slot.claim().await;
        claim.since(place.dir.stamp());
        let changing = Changing::new(&place.dir, slot, None);
        Ok((NameGuard::new(claim, changing, gate), Some(drained)))
    }

    /// What is left of a name's meaning without `link`.
    pub(crate) fn value_without(place: &Place<F>, claim: &Claim<F>, link: &Arc<Link<F>>) -> Value<F> {
        match claim.value_without(link, place.dir.mount.exact) {
            // Where others create names too and nobody tells, absence is not kept.
            Value::Negative if claim.stamp().is_none() => Value::Unknown,
            _ if defect(Defect::ForgetsOtherSpellings) => Value::Negative,
            value => value,
        }
    }

    /// The link's name is no more.
    pub(crate) fn mark_removed(&self, link: &Arc<Link<F>>) {
        let node = link.node();
        let opens = node.opens();
        link.set(GONE, true);
        link.set(DELETE_PENDING, false);
        drop(opens);
        if let Some(directory) = node.directory() {
            self.restructure(|| directory.gate.set_dead());
            self.nodes.forget(node);
        }
    }

    fn forget_delete(&self, link: &Arc<Link<F>>) -> Removal {
        let opens = link.node().opens();
        link.set(DELETE_PENDING, false);
        drop(opens);
        Removal::Kept
    }
}

/// When a link whose deletion is pending is to be removed.
#[derive(Clone, Copy)]
enum When {
    /// With its last open.
    Unused,
    /// Now.
    Pending,
}

impl When {
    fn is_due<F>(self, link: &Link<F>) -> bool {
        link.has(DELETE_PENDING) && (matches!(self, When::Pending) || link.opens() == 0)
    }
}
