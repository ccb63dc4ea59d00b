//! Renaming by link, from wherever the link stands now; and giving an object another name (a hard link).
//!
//! What has to be locked depends on what the names mean, and that is only sure once they are locked. So the gates are
//! taken on a guess, then the names, then the guess is checked; if it was wrong all is let go of and tried again. After
//! some misses the directories' gates are taken exclusively, so that nobody else's changes can make it miss again.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::Vfs;
use crate::backend::BackendFile;
use crate::counters::Count;
use crate::error::{FsError, Result};
use crate::lookup::coherence::CaughtUp;
use crate::lookup::gate::{Gate, GateGuard, Mode};
use crate::lookup::link::{GONE, Link, MOVING, Place};
use crate::lookup::slot::{Claim, Value};
use crate::metadata::{BackendKey, Kind};
use crate::name::Name;
use crate::node::{Changing, Node, NodeId};
use crate::opens::Opens;
use crate::ops::create::settle;
use crate::ops::run::contained;
use crate::rank::operation;
use crate::sync::{Defect, defect, spawn};

/// How many misses until the gates are taken exclusively (in the models few enough to come about), and until `Busy`.
const ESCALATE: usize = if cfg!(shuttle) { 2 } else { 8 };
const GIVE_UP: usize = 64;

/// What the server's rules for a rename may look at and change, immediately before the backend is called.
pub struct RenameView<'a, F> {
    /// The link that is renamed.
    pub link: &'a Arc<Link<F>>,
    /// The opens of its node.
    pub source: Opens<'a, F>,
    /// The name that would be replaced, and its node's opens.
    pub target: Option<(Arc<Link<F>>, Opens<'a, F>)>,
    /// The name that would be replaced, if it is another name of the very same node.
    pub sibling: Option<Arc<Link<F>>>,
}

/// Why a rename did not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenameError<E> {
    /// The tree or the storage does not let it be.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The server's rules refused it.
    #[error("refused by the server's rules")]
    Refused(E),
}

/// The right to move one name onto another. The fields' order is the order in which it ends if it is dropped, as that of
/// [`super::lookup::NameGuard`].
struct RenameGuard<F> {
    /// In one directory both names at once; else the source's, and the target's.
    changing: (Changing<F>, Option<Changing<F>>),
    from: Claim<F>,
    /// `None`: both names are one slot.
    to: Option<Claim<F>>,
    _topology: Option<GateGuard>,
    _gates: [Option<GateGuard>; 3],
    place: Place<F>,
    /// What the target's name means, the link itself included if it is the same name.
    target_value: Value<F>,
    target: Option<Arc<Link<F>>>,
    /// How the target was spelled when its name was claimed; where others write too it may be found elsewhere since.
    spelling: Option<Name>,
    /// What the source's name is to mean, if the backend has to look: it is not believed, only known from before.
    expect: Option<BackendKey>,
}

impl<F> RenameGuard<F> {
    /// What is replaced, and how it is spelled.
    fn replaced(&self) -> Option<(&Arc<Link<F>>, &Name)> {
        self.target.as_ref().zip(self.spelling.as_ref())
    }

    fn begin(&mut self) {
        self.changing.0.begin();
        if let Some(changing) = &mut self.changing.1 {
            changing.begin();
        }
        self.from.begin();
        if let Some(to) = &mut self.to {
            to.begin();
        }
    }

    fn has_ended(&mut self) {
        self.changing.0.has_ended();
        if let Some(changing) = &mut self.changing.1 {
            changing.has_ended();
        }
    }

    fn abort(self) {
        drop(self.changing);
        self.from.abort();
        if let Some(to) = self.to {
            to.abort();
        }
    }
}

/// The marks of a rename under way; taken back if it does not come about.
struct Marks<F> {
    link: Arc<Link<F>>,
    target: Option<Arc<Link<F>>>,
    done: bool,
}

impl<F> Drop for Marks<F> {
    fn drop(&mut self) {
        if !self.done {
            set_marked(&self.link, MOVING, false);
            if let Some(target) = &self.target {
                set_marked(target, GONE, false);
            }
        }
    }
}

/// Marks of a name that is about to be replaced or removed; taken back if that does not come about.
pub(crate) struct Marked<F> {
    link: Arc<Link<F>>,
    /// What is taken back.
    pub(crate) marks: u8,
}

impl<F> Marked<F> {
    /// Of a link that is marked already.
    pub(crate) fn new(link: &Arc<Link<F>>, marks: u8) -> Marked<F> {
        Marked { link: Arc::clone(link), marks }
    }

    /// It came about.
    pub(crate) fn keep(&mut self) {
        self.marks = 0;
    }
}

impl<F> Drop for Marked<F> {
    fn drop(&mut self) {
        if self.marks != 0 {
            set_marked(&self.link, self.marks, false);
        }
    }
}

/// A directory that is renamed: from before the rules look for what is open below it until its new name is found, and its old
/// one is not ([`Vfs::stands_at`]).
struct MovingDirectory<F> {
    vfs: Arc<Vfs<F>>,
    node: Arc<Node<F>>,
    has_arrived: bool,
}

impl<F> MovingDirectory<F> {
    fn new(vfs: &Arc<Vfs<F>>, node: &Arc<Node<F>>) -> Option<MovingDirectory<F>> {
        node.directory()?.moving.store(true, Ordering::SeqCst);
        vfs.directory_renames_begun.fetch_add(1, Ordering::SeqCst);
        Some(MovingDirectory { vfs: Arc::clone(vfs), node: Arc::clone(node), has_arrived: false })
    }

    /// It has got its place. Its names are let go of only after that: who waits for the end of the move waits for them.
    fn arrive(&mut self) {
        self.has_arrived = true;
        if let Some(directory) = self.node.directory() {
            directory.moving.store(false, Ordering::SeqCst);
        }
    }
}

impl<F> Drop for MovingDirectory<F> {
    fn drop(&mut self) {
        // By now somebody else may be at moving it on.
        if !self.has_arrived {
            self.arrive();
        }
        self.vfs.directory_renames_ended.fetch_add(1, Ordering::SeqCst);
    }
}

fn set_marked<F>(link: &Arc<Link<F>>, mark: u8, on: bool) {
    let opens = link.node().opens();
    link.set(mark, on);
    drop(opens);
}

fn is_root<F>(node: &Node<F>) -> bool {
    node.directory().is_some_and(|directory| directory.mounts.load(Ordering::SeqCst) > 0)
}

/// Locks the opens of one or two nodes in the order of their numbers.
fn view<'a, F>(link: &'a Arc<Link<F>>, target: Option<&'a Arc<Link<F>>>) -> RenameView<'a, F> {
    let source_node = link.node();
    match target {
        None => RenameView { link, source: source_node.opens(), target: None, sibling: None },
        Some(target) if target.node().id() == source_node.id() => {
            RenameView { link, source: source_node.opens(), target: None, sibling: Some(Arc::clone(target)) }
        }
        Some(target) => {
            let (source, opens) = if source_node.id() < target.node().id() || defect(Defect::UnorderedOpens) {
                let source = source_node.opens();
                (source, target.node().opens())
            } else {
                let opens = target.node().opens();
                (source_node.opens(), opens)
            };
            RenameView { link, source, target: Some((Arc::clone(target), opens)), sibling: None }
        }
    }
}

impl<F: Default + Send + 'static> Vfs<F> {
    /// Moves `link` to the name `to` in `to_dir`, as one change: whoever looks sees both names before it or both after.
    ///
    /// `admit` holds the server's rules. It runs under the opens of the source and of what would be replaced,
    /// immediately before the backend is called; it may run several times, and must not change anything of its own on
    /// the way to an error. Its `Ok` sets the marks that turn away new opens until the change is through; the last one
    /// is the answer.
    ///
    /// A name spelled as before is a success that changes nothing. A link that replaces another name of its own object
    /// leaves that one name.
    ///
    /// # Errors
    /// `NotFound` if the link is gone, `PathNotFound` if `to_dir` is; `Exists` without `replace`; `Invalid` for a
    /// directory below itself; `AccessDenied` for a share's root; `CrossDevice`; `Busy` after many lost races; what
    /// the backend says. `Refused` is `admit`'s own.
    pub async fn rename<T: Send + 'static, E: Send + 'static>(
        self: &Arc<Self>,
        link: &Arc<Link<F>>,
        to_dir: &Arc<Node<F>>,
        to: &Name,
        replace: bool,
        admit: impl FnMut(&mut RenameView<'_, F>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, RenameError<E>> {
        self.rename_within(link, to_dir, to, replace, admit, &mut CaughtUp::default()).await
    }

    /// [`Vfs::rename`] within an operation that has found the directory.
    ///
    /// # Errors
    /// As there.
    pub async fn rename_within<T: Send + 'static, E: Send + 'static>(
        self: &Arc<Self>,
        link: &Arc<Link<F>>,
        to_dir: &Arc<Node<F>>,
        to: &Name,
        replace: bool,
        admit: impl FnMut(&mut RenameView<'_, F>) -> Result<T, E> + Send + 'static,
        caught_up: &mut CaughtUp,
    ) -> Result<T, RenameError<E>> {
        operation(self.move_link(link, to_dir, to, replace, admit, caught_up)).await
    }

    async fn move_link<T: Send + 'static, E: Send + 'static>(
        self: &Arc<Self>,
        link: &Arc<Link<F>>,
        to_dir: &Arc<Node<F>>,
        to: &Name,
        replace: bool,
        mut admit: impl FnMut(&mut RenameView<'_, F>) -> Result<T, E> + Send + 'static,
        caught_up: &mut CaughtUp,
    ) -> Result<T, RenameError<E>> {
        let mut victim: Option<Arc<Node<F>>> = None;
        let mut contradicted = None;
        for attempt in 0..GIVE_UP {
            let mode = if attempt >= ESCALATE && !defect(Defect::NoEscalator) {
                Mode::Exclusive
            } else {
                self.gate_mode()
            };
            let locked =
                self.lookup_and_lock_rename(link, to_dir, to, victim.as_ref(), mode, caught_up).await?;
            let Some(mut guard) = locked else {
                self.count(Count::Retries);
                caught_up.lose();
                if let Some(place) = link.place_now().filter(|place| !place.dir.mount.trust) {
                    self.own_moves_settled(&place.dir).await;
                }
                continue;
            };
            if guard.place.is(to_dir, to) {
                let mut view = view(link, None);
                return admit(&mut view).map_err(RenameError::Refused);
            }
            if guard.target.is_some() && !replace {
                let is_there = match &guard.expect {
                    Some(key) => {
                        let from = guard.place.name.to_disk();
                        self.ask_which(&guard.place.dir, &from).await? == Some(*key)
                    }
                    None => true,
                };
                return Err(if is_there { FsError::Exists.into() } else { FsError::NotFound.into() });
            }
            let target = guard.target.clone();
            let moving = MovingDirectory::new(self, link.node());
            let is_drained = match &target {
                Some(target) if target.node().kind() == Kind::Directory => {
                    victim.as_ref().is_some_and(|victim| victim.id() == target.node().id())
                }
                _ => true,
            };
            let admitted = {
                let mut view = view(link, target.as_ref());
                let admitted = admit(&mut view).map_err(RenameError::Refused)?;
                if is_drained {
                    link.set(MOVING, true);
                    if let Some(target) = &target {
                        target.set(GONE, true);
                    }
                }
                admitted
            };
            if !is_drained {
                // Only now, when the rules allow it, is anybody made to wait for the directory that is replaced.
                victim = target.map(|target| Arc::clone(target.node()));
                continue;
            }
            let marks = Marks { link: Arc::clone(link), target, done: false };
            let (this, to_dir, to) = (Arc::clone(self), Arc::clone(to_dir), to.clone());
            let is_proven = guard.expect.is_none();
            let outcome = self
                .run(async move {
                    // Here, so that they end before the guard.
                    let mut marks = marks;
                    guard.begin();
                    // What comes to the target's name is not told apart from a foreign move to it.
                    let expected = guard.place.dir.expect(&guard.place.name, false);
                    let outcome =
                        contained(pin!(this.rename_on_disk(&guard, &marks.link, &to_dir, &to))).await;
                    match outcome {
                        Ok(name) => {
                            this.count(Count::Renames);
                            if let Some(expected) = expected {
                                expected.came();
                            }
                            guard.place.dir.has_changed();
                            // Of one mount it is told once.
                            if !Arc::ptr_eq(&guard.place.dir.mount, &to_dir.mount) {
                                to_dir.has_changed();
                            }
                            let place = Place { dir: to_dir, name };
                            let arrival = this.arrival(&marks.link, &guard.place, &place).await;
                            marks.done = true;
                            this.commit_rename(guard, moving, &marks.link, place, arrival);
                            Ok(())
                        }
                        Err(FsError::Indeterminate) => {
                            let place = Place { dir: to_dir, name: to };
                            this.settle_rename(guard, marks, moving, place);
                            Err(FsError::Indeterminate)
                        }
                        Err(error) => {
                            drop((marks, moving));
                            if error.contradicts_cache() || !to_dir.mount.trust {
                                drop(guard);
                            } else {
                                guard.abort();
                            }
                            Err(error)
                        }
                    }
                })
                .await?;
            match outcome {
                Ok(()) => return Ok(admitted),
                // Nothing was believed of the name, and it is not the link's.
                Err(FsError::NotFound) if !is_proven => return Err(FsError::NotFound.into()),
                // What was stored was wrong, and is forgotten now: once more.
                Err(
                    error @ (FsError::Exists | FsError::Stale | FsError::NotFound | FsError::NotADirectory),
                ) if contradicted.is_none() => {
                    self.count(Count::Retries);
                    caught_up.lose();
                    contradicted = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(contradicted.unwrap_or(FsError::Busy).into())
    }

    /// Takes the gates, the names, and for a directory that changes its parent the topology lock, and checks that all
    /// is as it was guessed. `None`: it was not.
    async fn lookup_and_lock_rename(
        &self,
        link: &Arc<Link<F>>,
        to_dir: &Arc<Node<F>>,
        to: &Name,
        victim: Option<&Arc<Node<F>>>,
        mode: Mode,
        caught_up: &mut CaughtUp,
    ) -> Result<Option<RenameGuard<F>>> {
        let node = link.node();
        let Some(mut place) = link.place_now() else { return Err(FsError::AccessDenied) };
        let (Some(from_directory), Some(to_directory)) = (place.dir.directory(), to_dir.directory()) else {
            return Err(FsError::NotADirectory);
        };
        if is_root(node) {
            return Err(FsError::AccessDenied);
        }
        if place.dir.key().device != to_dir.key().device {
            return Err(FsError::CrossDevice);
        }

        let mut topology = None;
        if defect(Defect::TopologyFirst)
            && node.id().0.is_multiple_of(2)
            && node.kind() == Kind::Directory
            && place.dir.id() != to_dir.id()
        {
            topology = Some(self.topology(to_dir).acquire(Mode::Exclusive).await);
        }

        // Gates, ascending.
        let drained =
            victim.and_then(|victim| Some((victim.id(), &victim.directory()?.gate, Mode::Exclusive)));
        let mut wanted: [Option<(NodeId, &Arc<Gate>, Mode)>; 3] = [
            Some((place.dir.id(), &from_directory.gate, mode)),
            Some((to_dir.id(), &to_directory.gate, mode)),
            drained,
        ];
        if !defect(Defect::UnorderedGates) {
            wanted.sort_by_key(|gate| gate.map(|(id, _, mode)| (id, std::cmp::Reverse(mode))));
        }
        let mut gates = [None, None, None];
        let mut last = None;
        for (place, (id, gate, mode)) in gates.iter_mut().zip(wanted.into_iter().flatten()) {
            // Of one directory there is one gate, and the stronger wish came first.
            if last.replace(id) != Some(id) {
                *place = Some(caught_up.across(gate.acquire(mode)).await);
            }
        }
        // Whoever renamed it within its directory meanwhile need not be run after; with the gate held exclusively, nobody
        // does any more.
        if !link.is_at(&place.dir, &place.name)
            && let Some(now) = link.place_now().filter(|now| now.dir.id() == place.dir.id())
        {
            place = now;
        }
        if place.dir.is_dead() {
            return if link.is_at(&place.dir, &place.name) { Err(FsError::NotFound) } else { Ok(None) };
        }
        if to_dir.is_dead() {
            return Err(FsError::PathNotFound);
        }

        // Names, ascending.
        let from_slot = self.slot(&place.dir, &place.dir.mount.fold.fold(&place.name));
        let to_slot = self.slot(to_dir, &to_dir.mount.fold.fold(to));
        let is_one_slot = Arc::ptr_eq(&from_slot, &to_slot);
        let (mut from, mut to_claim) = if is_one_slot {
            (caught_up.across(from_slot.claim()).await, None)
        } else if defect(Defect::UnorderedClaims) || from_slot.key() < to_slot.key() {
            let from = caught_up.across(from_slot.claim()).await;
            (from, Some(caught_up.across(to_slot.claim()).await))
        } else {
            let to_claim = caught_up.across(to_slot.claim()).await;
            (caught_up.across(from_slot.claim()).await, Some(to_claim))
        };
        from.since(place.dir.stamp());
        if let Some(claim) = &mut to_claim {
            claim.since(to_dir.stamp());
        }
        let changing = match place.dir.id() == to_dir.id() {
            true => (Changing::new(&place.dir, from_slot, (!is_one_slot).then_some(to_slot)), None),
            false => {
                let changing = Changing::new(&place.dir, from_slot, None);
                (changing, Some(Changing::new(to_dir, to_slot, None)))
            }
        };

        // Is it still there?
        if !link.is_at(&place.dir, &place.name) && !defect(Defect::MissingRecheck) {
            return Ok(None);
        }
        if link.is_gone() {
            return Err(FsError::NotFound);
        }
        if !place.dir.mount.trust && place.dir.id() != to_dir.id() {
            match self.check_ancestry(&place.dir, caught_up).await {
                Ok(()) => {}
                Err(FsError::Stale) => return Err(FsError::NotFound),
                Err(FsError::Busy) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let expect = self.unproven(link, &place, &from, caught_up);
        let target_value = match &mut to_claim {
            Some(claim) => self.value(to_dir, to, claim, false, caught_up).await?,
            // Before a change of case alone all other spellings are looked at.
            None => self.value(to_dir, to, &mut from, true, caught_up).await?,
        };
        // The name itself was looked up just now, and nothing else will be.
        if is_one_slot
            && expect.is_some()
            && !target_value
                .links()
                .iter()
                .any(|known| known.node().id() == node.id() && known.is_at(&place.dir, &place.name))
        {
            return Err(FsError::NotFound);
        }
        let others = || target_value.links().iter().filter(|other| !Arc::ptr_eq(other, link));
        let target = others().find(|other| other.is_at(to_dir, to)).or_else(|| others().next()).cloned();
        let spelling = target.as_ref().and_then(|target| target.spelling_in(to_dir, to));
        // A directory that was found here and could not be given its place yet, or what has been found elsewhere since.
        if target.is_some() && spelling.is_none() {
            return Ok(None);
        }

        if node.kind() == Kind::Directory && place.dir.id() != to_dir.id() {
            if !defect(Defect::NoTopology) && topology.is_none() {
                topology = Some(caught_up.across(self.topology(to_dir).acquire(Mode::Exclusive)).await);
                self.count(Count::Topology);
            }
            // Parents change under the topology lock alone.
            if to_dir.is_below(node) && !defect(Defect::NoLoopCheck) {
                return Err(FsError::Invalid);
            }
        }
        if let Some(target) = &target
            && target.node().kind() == Kind::Directory
        {
            if is_root(target.node()) {
                return Err(FsError::AccessDenied);
            }
            if place.dir.is_below(target.node()) {
                return Err(FsError::NotEmpty);
            }
        }
        Ok(Some(RenameGuard {
            from,
            to: to_claim,
            changing,
            _topology: topology,
            _gates: gates,
            place,
            target_value,
            target,
            spelling,
            expect,
        }))
    }

    /// The link's object, unless it is believed that the name at `place`, which is claimed, still means it. The backend
    /// renames whatever has the name; and where nobody else changes the tree, a link may still stand at its old name after
    /// a rename of which nobody knows what has come.
    fn unproven(
        &self,
        link: &Arc<Link<F>>,
        place: &Place<F>,
        claim: &Claim<F>,
        caught_up: &mut CaughtUp,
    ) -> Option<BackendKey> {
        if place.dir.mount.trust && defect(Defect::RenamesWhatIsThere) {
            return None;
        }
        let stamp = self.catch_up(&place.dir, caught_up);
        let is_proven = stamp.is_some() && stamp == claim.stamp() && claim.is_believed_to_mean(link);
        (!is_proven).then(|| link.node().key())
    }

    /// Whether the link, which the backend has just moved from `before`, has to be told that it stands at `place` now: until
    /// it is moved once more, as [`Link::moves`] says. It has not if it was found elsewhere meanwhile, and is not at
    /// `place`: others have moved it on, and whoever found it knows better than who moved it before. Where the backend
    /// does not say it is left as it was found; neither name is believed then, and the next lookup decides.
    async fn arrival(&self, link: &Arc<Link<F>>, before: &Place<F>, place: &Place<F>) -> Option<u16> {
        let moves = link.moves();
        if before.dir.mount.trust || link.is_at(&before.dir, &before.name) {
            return Some(moves);
        }
        // Who found it may as well have asked before we moved it. In a box, since it is rare.
        let found = Box::pin(self.ask_again(&place.dir, &place.name)).await;
        (found == Ok(Some(link.node().key()))).then_some(moves)
    }

    /// Tells the world, at one instant, that `link` stands at `place`, unless its [`Vfs::arrival`] there is none any more.
    fn commit_rename(
        &self,
        mut guard: RenameGuard<F>,
        mut moving: Option<MovingDirectory<F>>,
        link: &Arc<Link<F>>,
        place: Place<F>,
        arrival: Option<u16>,
    ) {
        guard.has_ended();
        let RenameGuard {
            from,
            to,
            changing,
            _topology,
            _gates,
            place: before,
            target_value,
            target,
            spelling,
            expect: _,
        } = guard;
        {
            let to_fold = to.as_ref().unwrap_or(&from).fold();
            let gone = (from.fold(), &before.name, false);
            let replaced = target.as_ref().and(spelling.as_ref()).map(|spelling| (to_fold, spelling, false));
            let come = replaced.into_iter().chain([(to_fold, &place.name, true)]);
            if before.dir.id() == place.dir.id() {
                place.dir.index_changed([gone].into_iter().chain(come));
            } else {
                before.dir.index_changed([gone]);
                place.dir.index_changed(come);
            }
        }
        if let (Some(target), Some(spelling)) = (&target, &spelling) {
            if target.is_at(&place.dir, spelling) {
                self.mark_removed(target);
            } else {
                // Somebody outside has moved it away, and it was found there.
                set_marked(target, GONE, false);
            }
        }
        let opens = link.node().opens();
        // Whoever finds it elsewhere moves it with the opens held.
        let stands = arrival == Some(link.moves());
        if stands && link.node().kind() == Kind::Directory {
            let mount = &place.dir.mount;
            mount.backend.moved(&link.node().be, &place.dir.be, &place.name.to_disk());
            self.restructure(|| link.set_place(place));
        } else if stands {
            link.set_place(place);
        }
        link.set(MOVING, false);
        if let Some(moving) = &mut moving {
            moving.arrive();
        }
        let rest = match &target {
            Some(target) => target_value.without(target, true),
            None => target_value,
        };
        let to_value = if stands { rest.with(link) } else { Value::Unknown };
        match to {
            None => from.publish(to_value),
            Some(to) => {
                let from_value =
                    if stands { Self::value_without(&before, &from, link) } else { Value::Unknown };
                let left = Arc::clone(from.slot());
                publish_both(from, from_value, to, to_value);
                drop(changing);
                self.let_go(&before.dir, left);
            }
        }
        drop(opens);
        drop(moving);
    }

    /// How a name that is about to be replaced is spelled. The backend replaces whatever has the spelling: it is to be what
    /// the rules have let go, and where others write too that may have been moved away since.
    ///
    /// # Errors
    /// `Stale` if it was.
    async fn spelled_now(&self, dir: &Node<F>, target: &Link<F>, to: &Name) -> Result<Name> {
        let spelling = target.spelling_in(dir, to).ok_or(FsError::Stale)?;
        let is_there =
            dir.mount.trust || self.ask_which(dir, &spelling.to_disk()).await? == Some(target.node().key());
        if is_there { Ok(spelling) } else { Err(FsError::Stale) }
    }

    /// Has the backend do it. The answer is how the name is spelled now.
    async fn rename_on_disk(
        &self,
        guard: &RenameGuard<F>,
        link: &Arc<Link<F>>,
        to_dir: &Arc<Node<F>>,
        to: &Name,
    ) -> Result<Name> {
        let backend = &to_dir.mount.backend;
        let (from_dir, from) = (&guard.place.dir, guard.place.name.to_disk());
        let expect = guard.expect.as_ref();
        let Some((target, spelling)) = guard.replaced() else {
            backend.rename(&from_dir.be, &from, expect, &to_dir.be, &to.to_disk(), false).await?;
            return Ok(to.clone());
        };
        if self.spelled_now(to_dir, target, to).await? != *spelling {
            return Err(FsError::Stale);
        }
        let disk = spelling.to_disk();
        if target.node().id() == link.node().id() {
            // Of two names of one object a rename would leave both.
            backend.unlink(&from_dir.be, &from, &link.node().key()).await?;
        } else {
            backend.rename(&from_dir.be, &from, expect, &to_dir.be, &disk, true).await?;
        }
        if *spelling == *to {
            return Ok(to.clone());
        }
        // What was replaced was spelled otherwise on the disk.
        match backend.rename(&to_dir.be, &disk, None, &to_dir.be, &to.to_disk(), false).await {
            Ok(()) => Ok(to.clone()),
            Err(FsError::Indeterminate) => Err(FsError::Indeterminate),
            Err(error) => {
                tracing::debug!(%error, "a renamed object keeps the case of the name that it replaced");
                Ok(spelling.clone())
            }
        }
    }

    /// Nobody knows whether a rename came about. Its names stay claimed and its links marked until the backend does; it
    /// is then asked.
    fn settle_rename(
        self: &Arc<Self>,
        guard: RenameGuard<F>,
        marks: Marks<F>,
        moving: Option<MovingDirectory<F>>,
        place: Place<F>,
    ) {
        if defect(Defect::LetsGoUnknown) {
            return self.hold_until_settled(&place.dir, (guard, marks, moving));
        }
        let (this, task) = (Arc::clone(self), self.running.enter());
        spawn(async move {
            let (_task, mut marks) = (task, marks);
            settle(&place.dir).await;
            if !defect(Defect::AssumesUndone)
                && let Some(name) = this.is_renamed(&guard, &marks.link, &place).await
            {
                let (link, place) = (Arc::clone(&marks.link), Place { dir: place.dir, name });
                let arrival = this.arrival(&link, &guard.place, &place).await;
                marks.done = true;
                this.commit_rename(guard, moving, &link, place, arrival);
            } else {
                // The names end as unknown.
                drop((marks, moving));
                drop(guard);
            }
        });
    }

    /// Whether the backend has the link at `place`, and no longer where it was: how it is spelled there.
    async fn is_renamed(&self, guard: &RenameGuard<F>, link: &Link<F>, place: &Place<F>) -> Option<Name> {
        let key = link.node().key();
        let is_at = async |dir: &Node<F>, name: &Name| {
            self.ask_again(dir, name).await.map(|found| found == Some(key))
        };
        if !matches!(is_at(&guard.place.dir, &guard.place.name).await, Ok(false)) {
            return None;
        }
        for name in std::iter::once(place.name.clone()).chain(guard.spelling.clone()) {
            if matches!(is_at(&place.dir, &name).await, Ok(true)) {
                return Some(name);
            }
        }
        None
    }

    /// Gives the object of `link`, which is open as `file`, another name: `to` in `to_dir`. `admit` as for a rename;
    /// its `source` are the opens of the object. The answer is the new link, and `admit`'s.
    ///
    /// # Errors
    /// `IsADirectory` for a directory or one that would be replaced; otherwise as for a rename.
    pub async fn link<T: Send + 'static, E: Send + 'static>(
        self: &Arc<Self>,
        link: &Arc<Link<F>>,
        file: &Arc<dyn BackendFile>,
        to_dir: &Arc<Node<F>>,
        to: &Name,
        replace: bool,
        admit: impl FnMut(&mut RenameView<'_, F>) -> Result<T, E> + Send + 'static,
    ) -> Result<(Arc<Link<F>>, T), RenameError<E>> {
        operation(self.add_link(link, file, to_dir, to, replace, admit)).await
    }

    async fn add_link<T: Send + 'static, E: Send + 'static>(
        self: &Arc<Self>,
        link: &Arc<Link<F>>,
        file: &Arc<dyn BackendFile>,
        to_dir: &Arc<Node<F>>,
        to: &Name,
        replace: bool,
        mut admit: impl FnMut(&mut RenameView<'_, F>) -> Result<T, E> + Send + 'static,
    ) -> Result<(Arc<Link<F>>, T), RenameError<E>> {
        let node = link.node();
        if node.kind() == Kind::Directory {
            return Err(FsError::IsADirectory.into());
        }
        if node.key().device != to_dir.key().device {
            return Err(FsError::CrossDevice.into());
        }
        let mut contradicted = false;
        loop {
            let mut caught_up = CaughtUp::default();
            let mut guard = self.lookup_and_lock(to_dir, to, self.gate_mode(), &mut caught_up).await?;
            let value = self.value(to_dir, to, &mut guard.claim, false, &mut caught_up).await?;
            let target = value.pick(to).cloned();
            match &target {
                Some(_) if !replace => return Err(FsError::Exists.into()),
                Some(target) if target.node().kind() == Kind::Directory => {
                    return Err(FsError::IsADirectory.into());
                }
                _ => {}
            }
            let admitted = {
                let mut view = view(link, target.as_ref());
                let admitted = admit(&mut view).map_err(RenameError::Refused)?;
                if let Some(target) = &target {
                    if target.node().id() == node.id() {
                        return Ok((Arc::clone(target), admitted));
                    }
                    target.set(GONE, true);
                }
                admitted
            };
            let (this, node, file) = (Arc::clone(self), Arc::clone(node), Arc::clone(file));
            let (dir, to) = (Arc::clone(to_dir), to.clone());
            let mut mark = target.as_ref().map(|target| Marked::new(target, GONE));
            let outcome = self
                .run(async move {
                    guard.begin();
                    let name = match &target {
                        Some(target) => match this.spelled_now(&dir, target, &to).await {
                            Ok(spelling) => spelling,
                            Err(error) => {
                                drop(mark);
                                drop(guard);
                                return Err(error);
                            }
                        },
                        None => to,
                    };
                    let disk = name.to_disk();
                    let backend = &dir.mount.backend;
                    let replace = target.is_some();
                    let linked =
                        contained(pin!(async { backend.link(&*file, &dir.be, &disk, replace).await })).await;
                    match linked {
                        Ok(()) => {
                            this.count(Count::Links);
                            mark.iter_mut().for_each(Marked::keep);
                            let rest = match &target {
                                Some(target) => {
                                    this.mark_removed(target);
                                    value.without(target, true)
                                }
                                None => value,
                            };
                            let mut opens = node.opens();
                            let spelled = name.clone();
                            let made = node.link_to(Some(Place { dir: Arc::clone(&dir), name }));
                            opens.state().add(&made);
                            drop(opens);
                            dir.index_changed([(guard.claim.fold(), &spelled, true)]);
                            dir.has_changed();
                            guard.publish(rest.with(&made));
                            Ok(made)
                        }
                        Err(error) => {
                            // Its end, which is unknown, may still be to come.
                            match (target, mark) {
                                (Some(target), Some(mark)) if error == FsError::Indeterminate => {
                                    this.settle_removal(Place { dir, name }, &target, mark, guard, None);
                                }
                                (_, mark) => {
                                    drop(mark);
                                    this.failed(&dir, guard, &error);
                                }
                            }
                            Err(error)
                        }
                    }
                })
                .await?;
            match outcome {
                Ok(made) => return Ok((made, admitted)),
                Err(FsError::Exists | FsError::Stale) if !contradicted => contradicted = true,
                Err(error) => {
                    if matches!(error, FsError::NotFound | FsError::Stale) {
                        // The file's last name is being removed: nobody is told of that before all are.
                        self.settled(link).await;
                    }
                    return Err(error.into());
                }
            }
        }
    }
}

fn publish_both<F>(from: Claim<F>, from_value: Value<F>, to: Claim<F>, to_value: Value<F>) {
    if defect(Defect::SourceThenTarget) {
        from.publish(from_value);
        to.publish(to_value);
    } else if defect(Defect::TargetThenSource) {
        to.publish(to_value);
        from.publish(from_value);
    } else {
        Claim::publish_two((from, from_value), (to, to_value));
    }
}
