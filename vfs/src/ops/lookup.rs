//! Finding what a name means: cached, asked for once however many want to know, and checked where others may have
//! changed the tree.

use std::sync::Arc;

use crate::backend::NodeInfo;
use crate::counters::Count;
use crate::error::{FsError, Result};
use crate::fold::FoldedName;
use crate::lookup::gate::{Gate, GateGuard, Mode};
use crate::lookup::link::{GONE, Link, Place};
use crate::lookup::slot::{Access, Answers, Claim, Slot, Value};
use crate::metadata::{Kind, Metadata};
use crate::name::{DiskName, Name};
use crate::node::{Changing, Node};
use crate::path::Path;
use crate::rank::operation;
use crate::sync::{Defect, defect};
use crate::{Root, Vfs};

/// A link, and its metadata if the lookup came by it.
pub type Looked<F> = Option<(Arc<Link<F>>, Option<Metadata>)>;

/// What the backend says of a name.
pub(crate) struct Found<F> {
    pub(crate) value: Value<F>,
    metadata: Vec<(Arc<Link<F>>, Metadata)>,
}

impl<F> Found<F> {
    pub(crate) fn cached(value: Value<F>) -> Found<F> {
        Found { value, metadata: Vec::new() }
    }

    /// What may be kept of it: not a directory that could not be given its place here just now.
    fn stored(&self, dir: &Node<F>) -> Value<F> {
        let is_here = |link: &Arc<Link<F>>| link.place_now().is_some_and(|place| place.dir.id() == dir.id());
        if self.value.links().iter().all(is_here) { self.value.clone() } else { Value::Unknown }
    }

    fn pick(&self, name: &Name) -> Looked<F> {
        let link = self.value.pick(name)?;
        let metadata = self.metadata.iter().find(|(of, _)| Arc::ptr_eq(of, link)).map(|(_, m)| m.clone());
        Some((Arc::clone(link), metadata))
    }
}

/// The right to change one name. The fields' order is the order in which it ends.
pub(crate) struct NameGuard<F> {
    pub(crate) claim: Claim<F>,
    _changing: Changing<F>,
    _gate: GateGuard,
}

impl<F> NameGuard<F> {
    pub(crate) fn new(claim: Claim<F>, changing: Changing<F>, gate: GateGuard) -> NameGuard<F> {
        NameGuard { claim, _changing: changing, _gate: gate }
    }
}

impl<F: Default + Send + 'static> Vfs<F> {
    /// The node of a path's last directory: every component but the last is walked. The root's own path gives the
    /// root.
    ///
    /// # Errors
    /// `PathNotFound` if a component is missing or no directory, `Symlink` if it is a symbolic link.
    pub async fn resolve_parent(&self, root: &Root<F>, path: &Path) -> Result<Arc<Node<F>>> {
        match path.parent_and_last() {
            Some((parents, _)) => self.walk(root, parents).await,
            None => Ok(Arc::clone(root.link.node())),
        }
    }

    /// The directory that `names` lead to from the root.
    ///
    /// # Errors
    /// As [`Vfs::resolve_parent`].
    pub async fn walk(&self, root: &Root<F>, names: &[Name]) -> Result<Arc<Node<F>>> {
        let mut dir = Arc::clone(root.link.node());
        for name in names {
            let link = match self.lookup_one(&dir, name).await {
                Ok(Some(link)) => link,
                Ok(None) | Err(FsError::NotFound | FsError::NotADirectory | FsError::Stale) => {
                    return Err(FsError::PathNotFound);
                }
                Err(error) => return Err(error),
            };
            match link.node().kind() {
                Kind::Directory => dir = Arc::clone(link.node()),
                Kind::Symlink => return Err(FsError::Symlink),
                Kind::File | Kind::Special => return Err(FsError::PathNotFound),
            }
        }
        Ok(dir)
    }

    /// What `name` in `dir` means.
    ///
    /// # Errors
    /// `NotADirectory`; `PathNotFound` if `dir` itself is gone; what the backend says.
    pub async fn lookup_one(&self, dir: &Arc<Node<F>>, name: &Name) -> Result<Option<Arc<Link<F>>>> {
        if dir.mount.trust
            && let Some(known) = self.cached(dir, name, &dir.mount.fold.fold(name))
        {
            return Ok(known);
        }
        Ok(self.lookup_with_metadata(dir, name).await?.map(|(link, _)| link))
    }

    /// [`Vfs::lookup_one`], with the metadata if the backend told it just now.
    ///
    /// # Errors
    /// As there.
    pub async fn lookup_with_metadata(&self, dir: &Arc<Node<F>>, name: &Name) -> Result<Looked<F>> {
        if dir.kind() != Kind::Directory {
            return Err(FsError::NotADirectory);
        }
        let fold = dir.mount.fold.fold(name);
        if !dir.mount.trust {
            return operation(self.lookup_checked(dir, name, &fold)).await;
        }
        match self.cached(dir, name, &fold) {
            Some(known) => Ok(known.map(|link| (link, None))),
            None => operation(self.lookup_trusted(dir, name, &fold)).await,
        }
    }

    /// What is stored of a name, `None` if nothing: the hot path. Only where what is stored is believed.
    #[inline]
    pub(crate) fn cached(
        &self,
        dir: &Node<F>,
        name: &Name,
        fold: &FoldedName,
    ) -> Option<Option<Arc<Link<F>>>> {
        let known = self.slots.peek(dir.id(), fold, |slot| {
            slot.touch();
            slot.with_value(|value| match value {
                Value::Unknown => None,
                known => Some(known.pick(name).cloned()),
            })
        })??;
        self.count(if known.is_some() { Count::Hits } else { Count::NegativeHits });
        Some(known)
    }

    pub(crate) fn slot(&self, dir: &Node<F>, fold: &FoldedName) -> Arc<Slot<F>> {
        let (slot, evicted) = self.slots.find_or_make(dir.id(), fold);
        if evicted > 0 {
            self.counts.add(Count::Evictions, evicted as u64);
        }
        slot
    }

    /// Where nobody but us changes the tree: one asks, all who wait get the answer, and it is kept.
    async fn lookup_trusted(&self, dir: &Arc<Node<F>>, name: &Name, fold: &FoldedName) -> Result<Looked<F>> {
        self.count(Count::Misses);
        let slot = self.slot(dir, fold);
        match slot.value_or_claim(true).await? {
            Access::Value(value) => Ok(value.pick(name).map(|link| (Arc::clone(link), None))),
            Access::Claim(claim) => {
                let found = match self.find(dir, name, None).await {
                    Ok(found) => found,
                    Err(error) => {
                        claim.fail(error.clone());
                        return Err(error);
                    }
                };
                // A directory that was removed meanwhile gets no new entries.
                if dir.is_dead() {
                    return Err(FsError::PathNotFound);
                }
                let picked = found.pick(name);
                claim.answer(found.stored(dir), found.value, Answers::All);
                Ok(picked)
            }
        }
    }

    /// Where others change the tree too: what is stored tells which object it was and saves the scan for its spelling,
    /// but the backend is asked.
    async fn lookup_checked(&self, dir: &Arc<Node<F>>, name: &Name, fold: &FoldedName) -> Result<Looked<F>> {
        loop {
            if let Some(hit) = self.verify(dir, name, fold).await? {
                self.count(Count::Hits);
                return Ok(Some(hit));
            }
            self.count(Count::Misses);
            let slot = self.slot(dir, fold);
            match slot.value_or_claim(false).await? {
                Access::Value(value) => {
                    // Asked by somebody else after we had come. He may have spelled the name otherwise.
                    match value.pick(name) {
                        None => return Ok(None),
                        Some(link) if dir.mount.exact || link.is_at(dir, name) => {
                            return Ok(Some((Arc::clone(link), None)));
                        }
                        Some(_) => continue,
                    }
                }
                Access::Claim(claim) => {
                    let found = match self.find(dir, name, Some(&claim.value())).await {
                        Ok(found) => found,
                        Err(error) => {
                            claim.fail(error.clone());
                            return Err(error);
                        }
                    };
                    let picked = found.pick(name);
                    // That a name is absent is true now and for those who waited, and is not kept.
                    let stored = match &found.value {
                        Value::Negative => Value::Unknown,
                        value => value.clone(),
                    };
                    claim.answer(stored, found.value, Answers::Earlier);
                    return Ok(picked);
                }
            }
        }
    }

    /// Asks the backend whether a name still means what is stored, without a claim. `None`: find out properly.
    ///
    /// Nobody had the claim when the value was read, so it was the name's meaning then; that the backend said so as
    /// well after that leaves out a foreign change before the question.
    pub(crate) async fn verify(
        &self,
        dir: &Arc<Node<F>>,
        name: &Name,
        fold: &FoldedName,
    ) -> Result<Option<(Arc<Link<F>>, Option<Metadata>)>> {
        let stored = self.slots.peek(dir.id(), fold, |slot| {
            slot.touch();
            slot.peek()
        });
        let Some((value, false)) = stored else { return Ok(None) };
        let Some(link) = value.pick(name) else { return Ok(None) };
        // A link that was found elsewhere has moved there, and is still stored here.
        let Some(spelling) = link.spelling_in(dir, fold) else { return Ok(None) };
        if !dir.mount.exact && spelling != *name {
            return Ok(None);
        }
        let Some(info) = self.ask(dir, &spelling.to_disk()).await? else { return Ok(None) };
        let same = info.metadata.key == link.node().key()
            && info.metadata.kind == link.node().kind()
            && link.is_at(dir, &spelling)
            && !link.has(GONE)
            && !link.node().is_dead();
        Ok(same.then(|| (Arc::clone(link), Some(info.metadata))))
    }

    /// Asks the backend for one exact spelling.
    pub(crate) async fn ask(&self, dir: &Node<F>, name: &DiskName) -> Result<Option<NodeInfo>> {
        self.count(Count::BackendLookups);
        dir.mount.backend.lookup(&dir.be, name).await.map_err(gone_directory)
    }

    /// Asks the backend what a name means; `stored` is what was known, and whose spellings are tried before a scan,
    /// unless all spellings are wanted. Called with the name's claim.
    pub(crate) async fn find(
        &self,
        dir: &Arc<Node<F>>,
        name: &Name,
        stored: Option<&Value<F>>,
    ) -> Result<Found<F>> {
        let mount = &dir.mount;
        let mut found = Found::cached(Value::Negative);
        let mut links = Vec::new();
        if mount.exact && !mount.folds {
            let disk = name.to_disk();
            if let Some(info) = self.ask(dir, &disk).await? {
                links.push((disk, info));
            }
        } else {
            if let Some(stored) = stored
                && !mount.exact
                && !mount.trust
            {
                let fold = mount.fold.fold(name);
                let spellings = stored.links().iter().filter_map(|link| link.spelling_in(dir, &fold));
                for spelling in std::iter::once(name.clone()).chain(spellings) {
                    let disk = spelling.to_disk();
                    if let Some(info) = self.ask(dir, &disk).await? {
                        links.push((disk, info));
                        break;
                    }
                }
            }
            if links.is_empty() {
                self.count(Count::BackendFoldedLookups);
                links =
                    mount.backend.lookup_folded(&dir.be, name, &mount.fold).await.map_err(gone_directory)?;
            }
        }
        for (disk, info) in links {
            if let Some(link) = self.link_of(dir, &disk.to_name(), &info) {
                found.metadata.push((link, info.metadata));
            }
        }
        found.value = Value::of(found.metadata.iter().map(|(link, _)| Arc::clone(link)).collect());
        Ok(found)
    }

    /// The link of an object that was found as `name` in `dir`: the one that is in use, if there is one.
    /// `None`: the object cannot be there (a directory above itself).
    pub(crate) fn link_of(&self, dir: &Arc<Node<F>>, name: &Name, info: &NodeInfo) -> Option<Arc<Link<F>>> {
        let metadata = &info.metadata;
        let node = self.nodes.find_or_make(&dir.mount, metadata.key, metadata.kind, info.node.clone());
        let place = Place { dir: Arc::clone(dir), name: name.clone() };
        if node.kind() == Kind::Directory {
            self.directory_link(&node, place)
        } else {
            Some(file_link(&node, place, metadata))
        }
    }

    fn directory_link(&self, node: &Arc<Node<F>>, place: Place<F>) -> Option<Arc<Link<F>>> {
        let directory = node.directory()?;
        loop {
            let mut opens = node.opens();
            let state = opens.state();
            let link =
                match state.links.iter().filter_map(std::sync::Weak::upgrade).find(|link| !link.has(GONE)) {
                    Some(link) => link,
                    None => {
                        // A statement of its own: the new link takes the same lock.
                        let known = directory.place.lock().clone();
                        let link = node.link_to(known);
                        state.add(&link);
                        link
                    }
                };
            let here = link.place_now();
            if here.as_ref().is_some_and(|here| here.same(&place)) {
                return Some(link);
            }
            let is_new = here.is_none() && directory.mounts.load(std::sync::atomic::Ordering::SeqCst) == 0;
            if is_new {
                // First seen. A directory has no place only before it is known to anybody, so it is above nothing.
                link.set_place(place);
                return Some(link);
            }
            drop(opens);
            // Moved by somebody else. If a move of our own is under way the name is served as it is, and who opens it
            // by this place will look again.
            let Some(_topology) = self.topology(node).try_exclusive() else { return Some(link) };
            if place.dir.is_below(node) {
                return None;
            }
            let opens = node.opens();
            // Between the two locks nobody else can have moved it but for a rename within its directory.
            let unchanged = match (&here, link.place_now()) {
                (Some(before), Some(now)) => before.same(&now),
                (None, None) => true,
                _ => false,
            };
            if !unchanged {
                drop(opens);
                continue;
            }
            self.restructure(|| link.set_place(place.clone()));
            drop(opens);
            if let Some(old) = here {
                self.suspect(&old);
            }
            return Some(link);
        }
    }

    /// What is stored of a place is no longer believed.
    pub(crate) fn suspect(&self, place: &Place<F>) {
        let fold = place.dir.mount.fold.fold(&place.name);
        if let Some(slot) = self.slots.find(place.dir.id(), &fold) {
            slot.suspect();
        }
    }

    /// Passes the directory's gate and claims the name, in this order, whatever is intended with it.
    ///
    /// # Errors
    /// `PathNotFound` if the directory is removed.
    pub(crate) async fn lookup_and_lock(
        &self,
        dir: &Arc<Node<F>>,
        name: &Name,
        mode: Mode,
    ) -> Result<NameGuard<F>> {
        let Some(directory) = dir.directory() else { return Err(FsError::NotADirectory) };
        let fold = dir.mount.fold.fold(name);
        let gate = if defect(Defect::NoGate) { &Gate::new(dir.id()) } else { &directory.gate };
        let gate = gate.acquire(mode).await;
        if dir.is_dead() {
            return Err(FsError::PathNotFound);
        }
        let slot = self.slot(dir, &fold);
        let claim = slot.claim().await;
        let changing = Changing::new(dir, &slot);
        Ok(NameGuard::new(claim, changing, gate))
    }

    /// What a claimed name means, known for sure; with `all`, each of its spellings.
    pub(crate) async fn value(
        &self,
        dir: &Arc<Node<F>>,
        name: &Name,
        claim: &Claim<F>,
        all: bool,
    ) -> Result<Value<F>> {
        let stored = claim.value();
        if dir.mount.trust && stored.is_known() {
            return Ok(stored);
        }
        let found = self.find(dir, name, (!all).then_some(&stored)).await?;
        claim.learn(if dir.mount.trust || !found.value.links().is_empty() {
            found.stored(dir)
        } else {
            Value::Unknown
        });
        Ok(found.value)
    }

    /// Whom the end of a change answers.
    pub(crate) fn answers(dir: &Node<F>) -> Answers {
        if dir.mount.trust { Answers::All } else { Answers::None }
    }

    /// Waits until no operation is about to change the link's name.
    pub async fn settled(&self, link: &Link<F>) {
        let Some(place) = link.place_now() else { return };
        let fold = place.dir.mount.fold.fold(&place.name);
        let Some(slot) = self.slots.find(place.dir.id(), &fold) else { return };
        slot.settled().await;
    }

    /// Checks that a directory still stands where it is believed to, up to its root: others may have moved it away.
    /// Nothing to do where nobody else changes the tree.
    ///
    /// # Errors
    /// `Stale` if it does not.
    pub(crate) async fn check_ancestry(&self, dir: &Arc<Node<F>>) -> Result<()> {
        let mut node = Arc::clone(dir);
        while !node.mount.trust {
            let Some(directory) = node.directory() else { break };
            if directory.mounts.load(std::sync::atomic::Ordering::SeqCst) > 0 {
                break;
            }
            let Some(place) = directory.place.lock().clone() else { break };
            match self.ask(&place.dir, &place.name.to_disk()).await {
                Ok(Some(info)) if info.metadata.key == node.key() => {}
                Ok(_) | Err(FsError::PathNotFound) => {
                    self.suspect(&place);
                    return Err(FsError::Stale);
                }
                Err(error) => return Err(error),
            }
            node = place.dir;
        }
        Ok(())
    }
}

/// The link of a file, or of something else that may have several names.
fn file_link<F>(node: &Arc<Node<F>>, place: Place<F>, metadata: &Metadata) -> Arc<Link<F>> {
    let mut opens = node.opens();
    let state = opens.state();
    let live: Vec<_> =
        state.links.iter().filter_map(std::sync::Weak::upgrade).filter(|link| !link.has(GONE)).collect();
    if let Some(link) = live.iter().find(|link| link.is_at(&place.dir, &place.name)) {
        return Arc::clone(link);
    }
    // It has one name, and the one that is in use is another: somebody else renamed it.
    if let [link] = live.as_slice()
        && metadata.links == 1
        && !node.mount.trust
    {
        link.set_place(place);
        return Arc::clone(link);
    }
    let link = node.link_to(Some(place));
    state.add(&link);
    link
}

/// Of a lookup in a directory these errors speak of the directory.
fn gone_directory(error: FsError) -> FsError {
    match error {
        FsError::NotFound | FsError::Stale | FsError::NotADirectory => FsError::PathNotFound,
        error => error,
    }
}
