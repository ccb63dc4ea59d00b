//! A wrapper that makes calls of a backend fail, for tests: by chance, from a seed; and on request the next call of a kind,
//! or the one with a certain number.
//!
//! What it does is what storages do: it refuses, forgets, runs full, answers late or never, does not know what became of
//! a change, or has a bug. What it never does is to lie: a call that it answers with success has had its effect.

use std::any::Any;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use bytes::Bytes;

use crate::backend::{
    Backend, BackendFile, BackendNode, Caps, CreateHow, DirEntry, NameSink, NodeInfo, OpenHow, Token, Watcher,
};
use crate::error::{FsError, Fut, Result};
use crate::fold::Fold;
use crate::metadata::{BackendKey, Metadata, SetMetadata, VolumeInfo};
use crate::name::{DiskName, Name};
use crate::sync::Mutex;

/// What a call does instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails, without effect, as a broken disk does.
    Io,
    /// Fails, without effect, because the object is said to be gone.
    Stale,
    /// Fails, without effect, because the storage is full.
    NoSpace,
    /// Fails, without effect, because the server's own identity may not do it.
    Denied,
    /// Fails, without effect, because the names lie on different storage.
    CrossDevice,
    /// Changes nothing, and says that nobody knows.
    UnknownUndone,
    /// Is done, and its answer is lost: says that nobody knows.
    UnknownDone,
    /// Says that nobody knows, and makes the change before the storage has settled.
    UnknownLate,
    /// Panics, without effect.
    Panic,
    /// Is done, and panics.
    PanicDone,
    /// Waits until [`Faulty::release`], and is then done.
    Hang,
    /// Is done, and waits until [`Faulty::release`] before it says so.
    HangDone,
    /// Reads less than is there.
    Short,
}

/// Of which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `lookup` and `lookup_folded`.
    Lookup,
    /// `create`.
    Create,
    /// `unlink` and `rmdir`.
    Remove,
    /// `rename`.
    Rename,
    /// `link`.
    Link,
    /// `open`.
    Open,
    /// A page of a listing.
    List,
    /// What is read of an open file: data, metadata, attributes.
    Read,
    /// What is written to an open file.
    Write,
}

impl Verb {
    /// Whether the call changes names.
    pub fn is_change(self) -> bool {
        matches!(self, Verb::Create | Verb::Remove | Verb::Rename | Verb::Link)
    }

    /// The faults that a call of this kind may have.
    fn faults(self) -> &'static [Fault] {
        match self {
            Verb::Create | Verb::Remove | Verb::Link => &[
                Fault::Io,
                Fault::Stale,
                Fault::NoSpace,
                Fault::UnknownUndone,
                Fault::UnknownDone,
                Fault::UnknownLate,
                Fault::Panic,
                Fault::PanicDone,
            ],
            Verb::Rename => &[
                Fault::Io,
                Fault::Stale,
                Fault::NoSpace,
                Fault::CrossDevice,
                Fault::UnknownUndone,
                Fault::UnknownDone,
                Fault::UnknownLate,
                Fault::Panic,
                Fault::PanicDone,
            ],
            Verb::Lookup | Verb::Open | Verb::List => &[Fault::Io, Fault::Stale, Fault::Panic],
            Verb::Read => &[Fault::Io, Fault::Short],
            Verb::Write => &[Fault::Io, Fault::NoSpace],
        }
    }
}

type Late = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct State {
    /// The next calls that are to fail.
    scripted: Vec<(Verb, Fault)>,
    /// How many calls there were since they were last counted from nothing, and which of them are to fail.
    calls: usize,
    numbered: Vec<(usize, Fault)>,
    /// Of a thousand calls so many fail.
    per_mille: u64,
    /// Changes that were answered and are still to be made, and how many are being made.
    late: Vec<Late>,
    settling: usize,
    /// Whether `settle` has to wait.
    unsettled: bool,
    /// Whether a rename that is not to replace anything does so all the same.
    replaces: bool,
    released: bool,
    hanging: usize,
    wakers: Vec<Waker>,
}

struct Plan {
    dice: AtomicU64,
    state: Mutex<State>,
    failed: AtomicU64,
}

impl Plan {
    fn roll(&self, sides: u64) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut x = self.dice.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }

    fn choose(&self, verb: Verb) -> Option<Fault> {
        let mut state = self.state.lock();
        let number = state.calls;
        state.calls += 1;
        let numbered = state.numbered.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault);
        let scripted = state.scripted.iter().position(|(of, _)| *of == verb);
        let fault = match numbered.or_else(|| scripted.map(|at| state.scripted.remove(at).1)) {
            Some(fault) => Some(fault),
            None if self.roll(1000) < state.per_mille => {
                let faults = verb.faults();
                Some(faults[self.roll(faults.len() as u64) as usize])
            }
            None => None,
        };
        if fault.is_some() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        fault
    }

    /// Waits until `f` holds of the state.
    async fn wait_until(&self, mut f: impl FnMut(&mut State) -> bool) {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if f(&mut state) {
                return Poll::Ready(());
            }
            state.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Changes the state, and tells those who wait.
    fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let result = f(&mut state);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// Before a call: fails in its place, or lets it be made.
    async fn before(&self, verb: Verb) -> Result<Option<Fault>> {
        let fault = self.choose(verb);
        match fault {
            Some(Fault::Io) => Err(FsError::Io(5)),
            Some(Fault::Stale) => Err(FsError::Stale),
            Some(Fault::NoSpace) => Err(FsError::NoSpace),
            Some(Fault::Denied) => Err(FsError::AccessDenied),
            Some(Fault::CrossDevice) => Err(FsError::CrossDevice),
            Some(Fault::UnknownUndone) => Err(FsError::Indeterminate),
            Some(Fault::Panic) => panic!("a fault on purpose"),
            Some(Fault::Hang) => {
                self.hang().await;
                Ok(None)
            }
            fault => Ok(fault),
        }
    }

    async fn hang(&self) {
        self.change(|state| state.hanging += 1);
        self.wait_until(|state| state.released).await;
        self.change(|state| state.hanging -= 1);
    }

    /// After a call: what it answered, maybe a handle, is lost, or is late.
    async fn after<T>(&self, fault: Option<Fault>, answer: Result<T>) -> Result<T> {
        match fault {
            Some(Fault::HangDone) => {
                self.hang().await;
                answer
            }
            Some(Fault::UnknownDone) => Err(FsError::Indeterminate),
            Some(Fault::PanicDone) => panic!("a fault on purpose"),
            _ => answer,
        }
    }

    /// A call that changes no names.
    async fn call<T>(&self, verb: Verb, call: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = self.before(verb).await?;
        let answer = call.await;
        self.after(fault, answer).await
    }

    /// A change of names: made, and perhaps not told; or made later.
    async fn make<T>(
        &self,
        verb: Verb,
        change: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.before(verb).await? {
            Some(Fault::UnknownLate) => {
                let late: Late = Box::pin(async move {
                    let _ = change.await;
                });
                self.state.lock().late.push(late);
                Err(FsError::Indeterminate)
            }
            fault => {
                let answer = change.await;
                self.after(fault, answer).await
            }
        }
    }
}

/// `inner`, some calls of which fail.
pub struct Faulty {
    inner: Arc<dyn Backend>,
    plan: Arc<Plan>,
}

impl Faulty {
    /// `inner`, of whose calls none fails yet. The same seed, the same choices.
    pub fn new(inner: Arc<dyn Backend>, seed: u64) -> Arc<Faulty> {
        let plan = Plan { dice: AtomicU64::new(seed), state: Mutex::default(), failed: AtomicU64::new(0) };
        Arc::new(Faulty { inner, plan: Arc::new(plan) })
    }

    /// From now on so many of a thousand calls fail.
    pub fn fail(&self, per_mille: u64) {
        self.plan.state.lock().per_mille = per_mille;
    }

    /// The next call of `verb` for which no other fault is scripted before it has this one.
    pub fn script(&self, verb: Verb, fault: Fault) {
        self.plan.state.lock().scripted.push((verb, fault));
    }

    /// Counts the calls from nothing. Those with these numbers, from 0 on, have these faults, instead of those
    /// that were numbered before.
    pub fn count(&self, faults: &[(usize, Fault)]) {
        let mut state = self.plan.state.lock();
        state.calls = 0;
        state.numbered = faults.to_vec();
    }

    /// How many calls there were since they were last counted from nothing.
    pub fn calls(&self) -> usize {
        self.plan.state.lock().calls
    }

    /// Whether the storage is not to settle for now.
    pub fn stay_unsettled(&self, unsettled: bool) {
        self.plan.change(|state| state.unsettled = unsettled);
    }

    /// From now on the storage cannot refuse to replace a name, as file systems without RENAME_NOREPLACE cannot: only
    /// what is known of the target before the call keeps it from being lost.
    pub fn replace_always(&self) {
        self.plan.state.lock().replaces = true;
    }

    /// Lets all go on that hang, and whoever would hang from now on.
    pub fn release(&self) {
        self.plan.change(|state| state.released = true);
    }

    /// Waits until so many calls hang.
    pub async fn hanging(&self, calls: usize) {
        self.plan.wait_until(|state| state.hanging >= calls).await;
    }

    /// How many calls had a fault.
    pub fn failed(&self) -> u64 {
        self.plan.failed.load(Ordering::Relaxed)
    }

    fn file(&self, inner: Arc<dyn BackendFile>) -> Arc<dyn BackendFile> {
        Arc::new(FaultyFile { inner, plan: Arc::clone(&self.plan) })
    }
}

/// Makes a call of the inner object unless it fails first.
macro_rules! perhaps {
    ($self:ident, $verb:expr, $call:expr) => {
        Box::pin(async move { $self.plan.call($verb, async move { $call.await }).await })
    };
}

impl Backend for Faulty {
    fn caps(&self) -> Caps {
        Caps {
            no_replace: self.inner.caps().no_replace && !self.plan.state.lock().replaces,
            ..self.inner.caps()
        }
    }

    fn root(&self) -> Fut<'_, NodeInfo> {
        self.inner.root()
    }

    fn lookup<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName) -> Fut<'a, Option<NodeInfo>> {
        perhaps!(self, Verb::Lookup, self.inner.lookup(dir, name))
    }

    fn lookup_folded<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a Name,
        fold: &'a Fold,
    ) -> Fut<'a, Vec<(DiskName, NodeInfo)>> {
        perhaps!(self, Verb::Lookup, self.inner.lookup_folded(dir, name, fold))
    }

    fn names<'a>(&'a self, dir: &'a BackendNode, sink: Box<dyn NameSink>) -> Fut<'a, Box<dyn NameSink>> {
        perhaps!(self, Verb::List, self.inner.names(dir, sink))
    }

    fn moved(&self, node: &BackendNode, dir: &BackendNode, name: &DiskName) {
        self.inner.moved(node, dir, name);
    }

    fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        self.inner.watcher()
    }

    fn token<'a>(&'a self, dir: &'a BackendNode) -> Fut<'a, Option<Token>> {
        perhaps!(self, Verb::Lookup, self.inner.token(dir))
    }

    fn create<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a DiskName,
        how: &'a CreateHow,
    ) -> Fut<'a, (NodeInfo, Arc<dyn BackendFile>)> {
        let (inner, dir, name, how) = (Arc::clone(&self.inner), dir.clone(), name.clone(), how.clone());
        Box::pin(async move {
            let change = async move { inner.create(&dir, &name, &how).await };
            let (info, file) = self.plan.make(Verb::Create, change).await?;
            Ok((info, self.file(file)))
        })
    }

    fn unlink<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()> {
        let (inner, dir, name, expect) = (Arc::clone(&self.inner), dir.clone(), name.clone(), *expect);
        Box::pin(self.plan.make(Verb::Remove, async move { inner.unlink(&dir, &name, &expect).await }))
    }

    fn rmdir<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()> {
        let (inner, dir, name, expect) = (Arc::clone(&self.inner), dir.clone(), name.clone(), *expect);
        Box::pin(self.plan.make(Verb::Remove, async move { inner.rmdir(&dir, &name, &expect).await }))
    }

    fn rename<'a>(
        &'a self,
        from_dir: &'a BackendNode,
        from: &'a DiskName,
        expect: Option<&'a BackendKey>,
        to_dir: &'a BackendNode,
        to: &'a DiskName,
        replace: bool,
    ) -> Fut<'a, ()> {
        let replace = replace || self.plan.state.lock().replaces;
        let inner = Arc::clone(&self.inner);
        let (from_dir, from, expect) = (from_dir.clone(), from.clone(), expect.copied());
        let (to_dir, to) = (to_dir.clone(), to.clone());
        let change =
            async move { inner.rename(&from_dir, &from, expect.as_ref(), &to_dir, &to, replace).await };
        Box::pin(self.plan.make(Verb::Rename, change))
    }

    fn link<'a>(
        &'a self,
        node: &'a dyn BackendFile,
        to_dir: &'a BackendNode,
        to: &'a DiskName,
        replace: bool,
    ) -> Fut<'a, ()> {
        // The inner backend knows its own files only.
        let file = node.as_any().downcast_ref::<FaultyFile>().map(|file| Arc::clone(&file.inner));
        let (inner, to_dir, to) = (Arc::clone(&self.inner), to_dir.clone(), to.clone());
        let change = async move {
            let Some(file) = file else { return Err(FsError::Invalid) };
            inner.link(&*file, &to_dir, &to, replace).await
        };
        Box::pin(self.plan.make(Verb::Link, change))
    }

    fn open<'a>(
        &'a self,
        dir: Option<&'a BackendNode>,
        name: &'a DiskName,
        expect: &'a BackendKey,
        how: OpenHow,
    ) -> Fut<'a, Arc<dyn BackendFile>> {
        Box::pin(async move {
            let opened = self.plan.call(Verb::Open, async { self.inner.open(dir, name, expect, how).await });
            Ok(self.file(opened.await?))
        })
    }

    fn volume(&self) -> Fut<'_, VolumeInfo> {
        self.inner.volume()
    }

    fn settle(&self) -> Fut<'_, ()> {
        Box::pin(async move {
            self.plan.wait_until(|state| !state.unsettled).await;
            let late = self.plan.change(|state| {
                state.settling += 1;
                std::mem::take(&mut state.late)
            });
            for change in late {
                change.await;
            }
            self.plan.change(|state| state.settling -= 1);
            // Another who settles may be making a change of ours.
            self.plan.wait_until(|state| state.settling == 0).await;
            self.inner.settle().await
        })
    }
}

struct FaultyFile {
    inner: Arc<dyn BackendFile>,
    plan: Arc<Plan>,
}

impl BackendFile for FaultyFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn metadata(&self) -> Fut<'_, Metadata> {
        perhaps!(self, Verb::Read, self.inner.metadata())
    }

    fn metadata_when_opened(&self) -> Option<Metadata> {
        self.inner.metadata_when_opened()
    }

    fn set_metadata<'a>(&'a self, set: &'a SetMetadata) -> Fut<'a, ()> {
        perhaps!(self, Verb::Write, self.inner.set_metadata(set))
    }

    fn read_at(&self, offset: u64, length: usize) -> Fut<'_, Bytes> {
        Box::pin(async move {
            let fault = self.plan.before(Verb::Read).await?;
            let mut data = self.inner.read_at(offset, length).await?;
            if fault == Some(Fault::Short) && data.len() > 1 {
                data.truncate(1 + self.plan.roll(data.len() as u64 - 1) as usize);
            }
            self.plan.after(fault, Ok(data)).await
        })
    }

    fn write_at<'a>(&'a self, offset: u64, data: Bytes) -> Fut<'a, usize> {
        perhaps!(self, Verb::Write, self.inner.write_at(offset, data))
    }

    fn flush(&self) -> Fut<'_, ()> {
        perhaps!(self, Verb::Write, self.inner.flush())
    }

    fn allocate(&self, bytes: u64) -> Fut<'_, ()> {
        perhaps!(self, Verb::Write, self.inner.allocate(bytes))
    }

    fn zero_range(&self, offset: u64, length: u64) -> Fut<'_, ()> {
        perhaps!(self, Verb::Write, self.inner.zero_range(offset, length))
    }

    fn punch(&self, offset: u64, length: u64) -> Fut<'_, ()> {
        perhaps!(self, Verb::Write, self.inner.punch(offset, length))
    }

    fn allocated_ranges(&self, offset: u64, length: u64) -> Fut<'_, Vec<(u64, u64)>> {
        perhaps!(self, Verb::Read, self.inner.allocated_ranges(offset, length))
    }

    fn read_dir(&self, cookie: u64, max: usize, metadata: bool) -> Fut<'_, Vec<DirEntry>> {
        perhaps!(self, Verb::List, self.inner.read_dir(cookie, max, metadata))
    }

    fn readlink(&self) -> Fut<'_, Vec<u8>> {
        perhaps!(self, Verb::Read, self.inner.readlink())
    }

    fn get_xattr<'a>(&'a self, name: &'a str) -> Fut<'a, Option<Vec<u8>>> {
        perhaps!(self, Verb::Read, self.inner.get_xattr(name))
    }

    fn set_xattr<'a>(&'a self, name: &'a str, value: &'a [u8]) -> Fut<'a, ()> {
        perhaps!(self, Verb::Write, self.inner.set_xattr(name, value))
    }

    fn remove_xattr<'a>(&'a self, name: &'a str) -> Fut<'a, ()> {
        perhaps!(self, Verb::Write, self.inner.remove_xattr(name))
    }

    fn list_xattrs(&self) -> Fut<'_, Vec<String>> {
        perhaps!(self, Verb::Read, self.inner.list_xattrs())
    }
}
