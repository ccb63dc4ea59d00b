//! Finding what a name means: cached, asked for once however many want to know, and checked where others may have
//! changed the tree.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::NodeInfo;
use crate::counters::Count;
use crate::error::{FsError, Fut, Result};
use crate::fold::FoldedName;
use crate::lookup::coherence::{CaughtUp, Stamp, suspect};
use crate::lookup::gate::{Gate, GateGuard, Mode};
use crate::lookup::index::{self, Answer};
use crate::lookup::link::{GONE, Link, Place};
use crate::lookup::slot::{Access, Answers, Claim, Meaning, Slot, Value};
use crate::metadata::{BackendKey, Kind, Metadata};
use crate::name::{DiskName, Name};
use crate::node::{Changing, Directory, Node};
use crate::path::Path;
use crate::rank::operation;
use crate::sync::{Defect, defect, spawn};
use crate::{Plan, Root, Vfs};

/// A link, and its metadata if the lookup came by it.
pub type Looked<F> = Option<(Arc<Link<F>>, Option<Metadata>)>;

/// What the backend says of a name.
pub(crate) struct Found<F> {
    pub(crate) value: Value<F>,
    /// Other spellings were not looked for.
    partial: bool,
    metadata: Vec<(Arc<Link<F>>, Metadata)>,
}

impl<F> Found<F> {
    /// What may be kept of it as the meaning of `name` in `dir`: not a directory that could not be given its place there
    /// just now.
    fn stored(&self, dir: &Node<F>, name: &Name) -> Value<F> {
        let is_here = |link: &Arc<Link<F>>| link.spelling_in(dir, name).is_some();
        if self.value.links().iter().all(is_here) { self.value.clone() } else { Value::Unknown }
    }

    fn pick(&self, name: &Name) -> Looked<F> {
        let link = self.value.pick(name)?;
        let metadata = self.metadata.iter().find(|(of, _)| Arc::ptr_eq(of, link)).map(|(_, m)| m.clone());
        Some((Arc::clone(link), metadata))
    }
}

/// The right to change one name. The fields' order is the order in which it ends if it is dropped: whoever has the claim
/// next may ask the index.
pub(crate) struct NameGuard<F> {
    changing: Changing<F>,
    pub(crate) claim: Claim<F>,
    _gate: GateGuard,
}

impl<F> NameGuard<F> {
    pub(crate) fn new(claim: Claim<F>, changing: Changing<F>, gate: GateGuard) -> NameGuard<F> {
        NameGuard { changing, claim, _gate: gate }
    }

    /// The backend is about to change the name.
    pub(crate) fn begin(&mut self) {
        self.changing.begin();
        self.claim.begin();
    }

    /// The end: [`Claim::publish`]. What comes back is the name's slot, for [`Vfs::let_go`].
    pub(crate) fn publish(mut self, value: Value<F>) -> Arc<Slot<F>> {
        let slot = Arc::clone(self.claim.slot());
        self.changing.has_ended();
        self.claim.publish(value);
        slot
    }

    /// The end, with nothing changed as the backend says. The index need not believe it.
    pub(crate) fn abort(self) {
        drop(self.changing);
        self.claim.abort();
    }
}

impl<F: Default + Send + 'static> Vfs<F> {
    /// The node of a path's last directory: every component but the last is walked. The root's own path gives the
    /// root.
    ///
    /// # Errors
    /// `PathNotFound` if a component is missing or no directory, `Symlink` if it is a symbolic link.
    pub async fn resolve_parent(&self, root: &Root<F>, path: &Path) -> Result<Arc<Node<F>>> {
        self.resolve_parent_within(root, path, &mut CaughtUp::default()).await
    }

    /// [`Vfs::resolve_parent`] within an operation that goes on.
    ///
    /// # Errors
    /// As there.
    pub async fn resolve_parent_within(
        &self,
        root: &Root<F>,
        path: &Path,
        caught_up: &mut CaughtUp,
    ) -> Result<Arc<Node<F>>> {
        match path.parent_and_last() {
            Some((parents, _)) => self.walk_within(root, parents, caught_up).await,
            None => Ok(Arc::clone(root.link.node())),
        }
    }

    /// The directory that `names` lead to from the root.
    ///
    /// # Errors
    /// As [`Vfs::resolve_parent`].
    pub async fn walk(&self, root: &Root<F>, names: &[Name]) -> Result<Arc<Node<F>>> {
        self.walk_within(root, names, &mut CaughtUp::default()).await
    }

    async fn walk_within(
        &self,
        root: &Root<F>,
        names: &[Name],
        caught_up: &mut CaughtUp,
    ) -> Result<Arc<Node<F>>> {
        let mut above = None;
        for name in names {
            let dir = above.as_ref().unwrap_or(&root.link).node();
            let link = match self.hit(dir, name, caught_up) {
                Some(known) => Ok(known),
                None => self.missed(dir, name, caught_up).await.map(|looked| looked.map(|(link, _)| link)),
            };
            let link = match link {
                Ok(Some(link)) => link,
                Ok(None) | Err(FsError::NotFound | FsError::NotADirectory | FsError::Stale) => {
                    return Err(FsError::PathNotFound);
                }
                Err(error) => return Err(error),
            };
            match link.node().kind() {
                Kind::Directory => above = Some(link),
                Kind::Symlink => return Err(FsError::Symlink),
                Kind::File | Kind::Special => return Err(FsError::PathNotFound),
            }
        }
        Ok(Arc::clone(above.as_ref().unwrap_or(&root.link).node()))
    }

    /// The directory that a path's last component stands in, and what that is there: [`Vfs::resolve_parent`] and
    /// [`Vfs::lookup_with_metadata`] in one walk. `None`: the path is the root's own.
    ///
    /// # Errors
    /// As there.
    pub async fn look_up_path(
        &self,
        root: &Root<F>,
        path: &Path,
    ) -> Result<Option<(Arc<Node<F>>, Looked<F>)>> {
        self.look_up_path_within(root, path, &mut CaughtUp::default()).await
    }

    /// [`Vfs::look_up_path`] within an operation that goes on.
    ///
    /// # Errors
    /// As there.
    pub async fn look_up_path_within(
        &self,
        root: &Root<F>,
        path: &Path,
        caught_up: &mut CaughtUp,
    ) -> Result<Option<(Arc<Node<F>>, Looked<F>)>> {
        let Some((parents, last)) = path.parent_and_last() else { return Ok(None) };
        let dir = self.walk_within(root, parents, caught_up).await?;
        let looked = self.lookup_within(&dir, last, caught_up).await?;
        Ok(Some((dir, looked)))
    }

    /// What `name` in `dir` means.
    ///
    /// # Errors
    /// `NotADirectory`; `PathNotFound` if `dir` itself is gone; what the backend says.
    pub async fn lookup_one(&self, dir: &Arc<Node<F>>, name: &Name) -> Result<Option<Arc<Link<F>>>> {
        let mut caught_up = CaughtUp::default();
        match self.hit(dir, name, &mut caught_up) {
            Some(known) => Ok(known),
            None => Ok(self.missed(dir, name, &mut caught_up).await?.map(|(link, _)| link)),
        }
    }

    /// [`Vfs::lookup_one`], with the metadata if the backend told it just now.
    ///
    /// # Errors
    /// As there.
    pub async fn lookup_with_metadata(&self, dir: &Arc<Node<F>>, name: &Name) -> Result<Looked<F>> {
        self.lookup_within(dir, name, &mut CaughtUp::default()).await
    }

    /// [`Vfs::lookup_with_metadata`] within an operation that goes on.
    ///
    /// # Errors
    /// As there.
    pub async fn lookup_within(
        &self,
        dir: &Arc<Node<F>>,
        name: &Name,
        caught_up: &mut CaughtUp,
    ) -> Result<Looked<F>> {
        match self.hit(dir, name, caught_up) {
            Some(known) => Ok(known.map(|link| (link, None))),
            None => self.missed(dir, name, caught_up).await,
        }
    }

    /// What is stored of a name and believed by now, without waiting: the hot path. `None`: the name has to be asked for.
    #[inline]
    fn hit(&self, dir: &Arc<Node<F>>, name: &Name, caught_up: &mut CaughtUp) -> Option<Meaning<F>> {
        let stamp = if dir.mount.trust { Stamp::default() } else { self.catch_up(dir, caught_up)? };
        self.cached(dir, name, stamp)
    }

    /// The long way, in a box: it is rare, and each future that may have to take it would have room for it.
    #[cold]
    fn missed<'a>(
        &'a self,
        dir: &'a Arc<Node<F>>,
        name: &'a Name,
        caught_up: &'a mut CaughtUp,
    ) -> Fut<'a, Looked<F>> {
        Box::pin(operation(self.lookup_missed(dir, name, caught_up)))
    }

    /// See [`Node::catch_up`].
    #[inline]
    pub(crate) fn catch_up(&self, dir: &Arc<Node<F>>, caught_up: &mut CaughtUp) -> Option<Stamp> {
        dir.catch_up(&self.slots, caught_up)
    }

    /// What is stored of a name and believed, `None` if nothing: the hot path.
    #[inline]
    pub(crate) fn cached(&self, dir: &Node<F>, name: &Name, stamp: Stamp) -> Option<Option<Arc<Link<F>>>> {
        let known = self.slots.peek(dir.siblings()?, &dir.mount.fold.folded(name), |slot| {
            slot.touch();
            slot.believed(name, stamp)
        })??;
        self.count(if known.is_some() { Count::Hits } else { Count::NegativeHits });
        Some(known)
    }

    pub(crate) fn slot(&self, dir: &Node<F>, fold: &FoldedName) -> Arc<Slot<F>> {
        let siblings = dir.siblings().unwrap_or_else(|| unreachable!("names stand in directories"));
        let (slot, evicted) = self.slots.find_or_make(siblings, fold);
        if evicted > 0 {
            self.counts.add(Count::Evictions, evicted as u64);
        }
        slot
    }

    /// A name has gone from `dir`, and all is let go of but its slot. Where there is an index, that says as much; without
    /// one the next who asks for the name is saved a search.
    pub(crate) fn let_go(&self, dir: &Node<F>, slot: Arc<Slot<F>>) {
        self.slots.let_go(slot, dir.has_index() && self.options.plan == Plan::Claims);
    }

    /// The slot of a place, if there is one.
    fn slot_at(&self, place: &Place<F>) -> Option<Arc<Slot<F>>> {
        let fold = place.dir.mount.fold.fold(&place.name);
        self.slots.find(place.dir.siblings()?, &fold)
    }

    /// One asks, and all who wait get the answer. It is kept as long as foreign changes are noted. Where they are not, what
    /// is stored tells which object it was and saves the search for its spelling, but the backend is asked.
    async fn lookup_missed(
        &self,
        dir: &Arc<Node<F>>,
        name: &Name,
        caught_up: &mut CaughtUp,
    ) -> Result<Looked<F>> {
        if dir.kind() != Kind::Directory {
            return Err(FsError::NotADirectory);
        }
        let fold = dir.mount.fold.fold(name);
        loop {
            let stamp = self.catch_up(dir, caught_up);
            if stamp.is_none()
                && let Some(hit) = caught_up.across(self.verify(dir, name)).await?
            {
                self.count(Count::Hits);
                return Ok(Some(hit));
            }
            self.count(Count::Misses);
            let slot = self.slot(dir, &fold);
            match caught_up.across(slot.value_or_claim(stamp)).await? {
                Access::Value(value) => {
                    // Asked by somebody else after we had come. He may have spelled the name otherwise.
                    match value.pick(name) {
                        None => return Ok(None),
                        Some(link) if self.is_whole(dir) || dir.mount.exact || link.is_at(dir, name) => {
                            return Ok(Some((Arc::clone(link), None)));
                        }
                        Some(_) => {}
                    }
                    if let Some(stamp) = stamp
                        && let Some(known) = self.cached(dir, name, stamp)
                    {
                        return Ok(known.map(|link| (link, None)));
                    }
                }
                Access::Claim(mut claim) => {
                    // Before the storage is asked: what others change from now on is noted, or gives another stamp.
                    claim.since(if dir.mount.trust { stamp } else { dir.stamp() });
                    let stored = (!self.is_whole(dir)).then(|| claim.value());
                    let found = match self.find(dir, name, &claim, stored.as_ref(), caught_up).await {
                        Ok(found) => found,
                        Err(error) => {
                            claim.fail(error.clone());
                            return Err(error);
                        }
                    };
                    if defect(Defect::StampAfterCall) {
                        claim.since(dir.stamp());
                    }
                    // A directory that was removed meanwhile gets no new entries.
                    if dir.mount.trust && dir.is_dead() {
                        return Err(FsError::PathNotFound);
                    }
                    claim.set_partial(found.partial);
                    let picked = found.pick(name);
                    let (stored, answers) = match found.stored(dir, name) {
                        stored if claim.stamp().is_some() => (stored, Answers::All),
                        // That a name is absent is true now and for those who waited, and is not kept.
                        Value::Negative => (Value::Unknown, Answers::Earlier),
                        stored => (stored, Answers::Earlier),
                    };
                    claim.answer(stored, found.value, answers);
                    return Ok(picked);
                }
            }
        }
    }

    /// Asks the backend whether a name still means what is stored, without a claim. `None`: find out properly.
    ///
    /// Nobody had the claim when the value was read, so it was the name's meaning then; that the backend said so as
    /// well after that leaves out a foreign change before the question.
    pub(crate) async fn verify(&self, dir: &Arc<Node<F>>, name: &Name) -> Result<Looked<F>> {
        let Some(siblings) = dir.siblings() else { return Ok(None) };
        let stored = self.slots.peek(siblings, &dir.mount.fold.folded(name), |slot| {
            slot.touch();
            slot.peek()
        });
        let Some((value, false)) = stored else { return Ok(None) };
        let Some(link) = value.pick(name) else { return Ok(None) };
        // A link that was found elsewhere has moved there, and is still stored here.
        let Some(spelling) = link.spelling_in(dir, name) else { return Ok(None) };
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

    /// Whether all spellings of a name are looked for whenever it is: where that is done once for all times, unless each
    /// search reads more names than an index takes. Then the spelling that was asked for is tried first.
    fn is_whole(&self, dir: &Node<F>) -> bool {
        dir.mount.trust && !dir.is_full()
    }

    /// Asks the backend for one exact spelling.
    pub(crate) async fn ask(&self, dir: &Node<F>, name: &DiskName) -> Result<Option<NodeInfo>> {
        self.count(Count::BackendLookups);
        dir.mount.backend.lookup(&dir.be, name).await.map_err(gone_directory)
    }

    /// Asks the backend which object one exact spelling means.
    pub(crate) async fn ask_which(&self, dir: &Node<F>, name: &DiskName) -> Result<Option<BackendKey>> {
        self.count(Count::BackendLookups);
        dir.mount.backend.identify(&dir.be, name).await.map_err(gone_directory)
    }

    /// Asks what a name means: the directory's index which spellings it has, and the backend what is there. `stored` is what
    /// was known, and whose spellings are tried before a search, unless all spellings are wanted. Called with the name's
    /// claim.
    pub(crate) async fn find(
        &self,
        dir: &Arc<Node<F>>,
        name: &Name,
        claim: &Claim<F>,
        stored: Option<&Value<F>>,
        caught_up: &mut CaughtUp,
    ) -> Result<Found<F>> {
        let mount = &dir.mount;
        let mut partial = false;
        let links = match self.find_by_index(dir, claim.fold(), caught_up).await? {
            Some(links) => links,
            None if mount.exact && !mount.folds => {
                let disk = name.to_disk();
                let info = caught_up.across(self.ask(dir, &disk)).await?;
                info.map(|info| (disk, info)).into_iter().collect()
            }
            None => {
                let hint = match stored {
                    Some(stored) if !mount.exact => {
                        caught_up.across(self.find_by_hints(dir, name, stored)).await?
                    }
                    _ => None,
                };
                partial = hint.is_some();
                match hint {
                    Some(hint) => vec![hint],
                    None => self.search(dir, name, claim.fold(), caught_up).await?,
                }
            }
        };
        let mut metadata = Vec::with_capacity(links.len());
        for (disk, info) in links {
            if let Some(link) = self.link_of(dir, &disk.to_name(), &info) {
                metadata.push((link, info.metadata));
            }
        }
        let value = Value::of(metadata.iter().map(|(link, _)| Arc::clone(link)).collect());
        Ok(Found { value, partial, metadata })
    }

    /// What the index and then the backend say of a name. `None`: there is no index, or not of this name.
    async fn find_by_index(
        &self,
        dir: &Arc<Node<F>>,
        fold: &FoldedName,
        caught_up: &mut CaughtUp,
    ) -> Result<Option<Vec<(DiskName, NodeInfo)>>> {
        if self.options.plan == Plan::DirectoryLock {
            return Ok(None);
        }
        let Some(stamp) = (match dir.mount.revalidate {
            None => dir.catch_up_for_index(&self.slots, caught_up),
            Some(age) => self.revalidate(dir, age).await?,
        }) else {
            return Ok(None);
        };
        let Answer::Spellings(spellings) = dir.index_answer(fold, stamp) else { return Ok(None) };
        self.count(Count::IndexAnswers);
        let mut links = Vec::with_capacity(spellings.len());
        for disk in spellings {
            if let Some(info) = caught_up.across(self.ask(dir, &disk)).await? {
                links.push((disk, info));
            }
        }
        Ok(Some(links))
    }

    /// Compares the directory's token with its index', unless that was done so recently.
    async fn revalidate(&self, dir: &Arc<Node<F>>, age: Duration) -> Result<Option<Stamp>> {
        if !dir.has_index() {
            return Ok(None);
        }
        if !dir.index_is_fresh(age) {
            let when = Instant::now();
            let token = dir.mount.backend.token(&dir.be).await.map_err(gone_directory)?;
            dir.index_revalidate(token, when);
        }
        Ok(Some(Stamp::default()))
    }

    /// Asks the backend for the spellings by which a name may be found without a search.
    async fn find_by_hints(
        &self,
        dir: &Arc<Node<F>>,
        name: &Name,
        stored: &Value<F>,
    ) -> Result<Option<(DiskName, NodeInfo)>> {
        let disk = name.to_disk();
        if let Some(info) = self.ask(dir, &disk).await? {
            return Ok(Some((disk, info)));
        }
        let spellings = stored.links().iter().filter_map(|link| link.spelling_in(dir, name));
        for spelling in spellings.filter(|spelling| spelling != name) {
            let disk = spelling.to_disk();
            if let Some(info) = self.ask(dir, &disk).await? {
                // As good as a search, this time.
                self.searched(dir);
                return Ok(Some((disk, info)));
            }
        }
        Ok(None)
    }

    /// A name is searched for. The second time in a directory its index is made.
    fn searched(&self, dir: &Arc<Node<F>>) {
        if let Some(stamp) = dir.stamp_for_index()
            && dir.index_searched(stamp)
            && let Some(ticket) = dir.index_begin(stamp)
        {
            self.count(Count::IndexFills);
            spawn(index::fill(ticket));
        }
    }

    /// Looks for all spellings of a name. Where that reads the whole directory, and its index is being made, that is waited
    /// for, by all who search meanwhile.
    async fn search(
        &self,
        dir: &Arc<Node<F>>,
        name: &Name,
        fold: &FoldedName,
        caught_up: &mut CaughtUp,
    ) -> Result<Vec<(DiskName, NodeInfo)>> {
        self.searched(dir);
        if !dir.mount.folds
            && caught_up.across(dir.index_filled()).await
            && let Some(links) = self.find_by_index(dir, fold, caught_up).await?
        {
            return Ok(links);
        }
        self.count(Count::BackendFoldedLookups);
        let backend = &dir.mount.backend;
        let found = caught_up.across(backend.lookup_folded(&dir.be, name, &dir.mount.fold)).await;
        let found = found.map_err(gone_directory)?;
        dir.index_learnt(fold, found.iter().map(|(disk, _)| disk));
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
        suspect(&self.slots, &place.dir, &place.name);
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
        caught_up: &mut CaughtUp,
    ) -> Result<NameGuard<F>> {
        let Some(directory) = dir.directory() else { return Err(FsError::NotADirectory) };
        let fold = dir.mount.fold.fold(name);
        let gate = if defect(Defect::NoGate) { &Gate::new(dir.id()) } else { &directory.gate };
        let gate = caught_up.across(gate.acquire(mode)).await;
        if dir.is_dead() {
            return Err(FsError::PathNotFound);
        }
        let slot = self.slot(dir, &fold);
        let mut claim = caught_up.across(slot.claim()).await;
        claim.since(dir.stamp());
        let changing = Changing::new(dir, slot, None);
        Ok(NameGuard::new(claim, changing, gate))
    }

    /// What a claimed name means, known for sure; with `all`, each of its spellings.
    pub(crate) async fn value(
        &self,
        dir: &Arc<Node<F>>,
        name: &Name,
        claim: &mut Claim<F>,
        all: bool,
        caught_up: &mut CaughtUp,
    ) -> Result<Value<F>> {
        self.catch_up(dir, caught_up);
        if let Some(believed) = claim.believed(all)
            && claim.stamp() == dir.stamp()
        {
            return Ok(believed);
        }
        claim.since(dir.stamp());
        let stored = (!all && !self.is_whole(dir)).then(|| claim.value());
        let found = self.find(dir, name, claim, stored.as_ref(), caught_up).await?;
        claim.set_partial(found.partial);
        claim.learn(if claim.stamp().is_some() || !found.value.links().is_empty() {
            found.stored(dir, name)
        } else {
            Value::Unknown
        });
        Ok(found.value)
    }

    /// Waits until no operation is about to change the link's name.
    pub async fn settled(&self, link: &Link<F>) {
        let Some(place) = link.place_now() else { return };
        let Some(slot) = self.slot_at(&place) else { return };
        slot.settled().await;
    }

    /// Checks that a directory still stands where it is believed to, up to its root: others may have moved it away.
    /// Nothing to do where nobody else changes the tree.
    ///
    /// # Errors
    /// `Stale` if it does not; `Busy` while we move it ourselves, so that nobody can tell
    /// ([`Vfs::own_moves_settled`]).
    pub(crate) async fn check_ancestry(&self, dir: &Arc<Node<F>>, caught_up: &mut CaughtUp) -> Result<()> {
        let mut node = Arc::clone(dir);
        while !node.mount.trust {
            let Some(directory) = node.directory() else { break };
            if directory.mounts.load(std::sync::atomic::Ordering::SeqCst) > 0 {
                break;
            }
            // Before the place is read: a directory that is there again may have been away when it was asked for.
            let moves = self.moves();
            let Some(place) = directory.place.lock().clone() else { break };
            let believed = self.catch_up(&place.dir, caught_up).and_then(|stamp| {
                let fold = place.dir.mount.fold.folded(&place.name);
                self.slots.peek(place.dir.siblings()?, &fold, |slot| slot.believed(&place.name, stamp))?
            });
            if believed.flatten().is_some_and(|link| link.node().id() == node.id()) {
                node = place.dir;
                continue;
            }
            match caught_up.across(self.ask_which(&place.dir, &place.name.to_disk())).await {
                Ok(Some(key)) if key == node.key() => {}
                Ok(_) | Err(FsError::PathNotFound) => {
                    // In this order: a move of ours gives it its place before it says that it has ended.
                    if directory.moving.load(std::sync::atomic::Ordering::SeqCst) {
                        return Err(FsError::Busy);
                    }
                    let is_here = directory.place.lock().as_ref().is_some_and(|now| now.same(&place));
                    if !is_here || self.moves() != moves {
                        continue;
                    }
                    self.suspect(&place);
                    return Err(FsError::Stale);
                }
                Err(error) => return Err(error),
            }
            node = place.dir;
        }
        Ok(())
    }

    /// Waits until no move of our own is under way of `dir` or of a directory above it. Called without any lock.
    pub(crate) async fn own_moves_settled(&self, dir: &Arc<Node<F>>) {
        let is_moving = |dir: &Directory<F>| dir.moving.load(std::sync::atomic::Ordering::SeqCst);
        self.settled_above(dir, is_moving).await;
    }

    /// Waits until nobody is about to change the name of `dir` or of a directory above it. Called without any lock.
    pub(crate) async fn names_settled(&self, dir: &Arc<Node<F>>) {
        self.settled_above(dir, |_| true).await;
    }

    async fn settled_above(&self, dir: &Arc<Node<F>>, is_meant: impl Fn(&Directory<F>) -> bool) {
        let mut above = Some(Arc::clone(dir));
        while let Some(node) = above {
            let place = node.directory().and_then(|directory| directory.place.lock().clone());
            if let Some(place) = &place
                && node.directory().is_some_and(&is_meant)
                && let Some(slot) = self.slot_at(place)
            {
                slot.settled().await;
            }
            above = place.map(|place| place.dir);
        }
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
