//! A storage for models: the one in memory, each call of which takes several steps and, like a call on another thread,
//! goes on if nobody waits for it any more. It checks what it is called with.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use shoal_vfs::memory::{Memory, MemoryOptions, Watches};
use shoal_vfs::*;
use shuttle::future::spawn;

/// A name in a directory.
type Place = (usize, Vec<u8>);

#[derive(Default)]
struct Watch {
    /// What is being changed now.
    in_flight: Vec<Place>,
    /// Directories that were removed.
    removed: HashSet<usize>,
}

impl Watch {
    fn begin(&mut self, places: &[Place]) {
        for (index, place) in places.iter().enumerate() {
            // Two spellings of one name within one rename are one place.
            if places[..index].contains(place) {
                continue;
            }
            assert!(!self.in_flight.contains(place), "two changes of one name at a time");
            assert!(!self.removed.contains(&place.0), "a change begins in a removed directory");
            self.in_flight.push(place.clone());
        }
    }

    fn end(&mut self, places: &[Place], removed: Option<usize>) {
        self.in_flight.retain(|place| !places.contains(place));
        if let Some(removed) = removed {
            assert!(
                !self.in_flight.iter().any(|(dir, _)| *dir == removed),
                "a directory was removed while a name in it was being changed"
            );
            self.removed.insert(removed);
        }
    }
}

/// What the next call of a kind does instead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// A change does nothing and says that nobody knows.
    Unknown,
    /// A change says that nobody knows, and is made before the storage has settled.
    Late,
    /// A lookup fails.
    Lookup,
}

type Late = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

pub struct Stepped {
    inner: Arc<Memory>,
    watch: Arc<Mutex<Watch>>,
    pub lookups: AtomicUsize,
    fault: Mutex<Fault>,
    /// Every lookup fails.
    blind: AtomicBool,
    late: Mutex<Vec<Late>>,
}

/// A point at which any other task may go on.
fn step() {
    shuttle::sync::atomic::AtomicUsize::new(0).load(Ordering::SeqCst);
}

/// Is pending once. Not shuttle's `yield_now`, after which PCT lets every other task go first, as if nothing could ever
/// hold them up any longer.
async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

fn id(node: &BackendNode) -> usize {
    Arc::as_ptr(&node.0).cast::<u8>() as usize
}

fn place(dir: &BackendNode, name: &DiskName) -> Place {
    (id(dir), Fold::Insensitive.fold(&name.to_name()).as_bytes().to_vec())
}

impl Stepped {
    pub fn new(exclusive: bool, fold: Fold) -> Arc<Stepped> {
        Stepped::of(MemoryOptions { exclusive, fold, ..MemoryOptions::default() })
    }

    pub fn of(options: MemoryOptions) -> Arc<Stepped> {
        let inner = Memory::new(options);
        Arc::new(Stepped {
            inner,
            watch: Arc::default(),
            lookups: AtomicUsize::new(0),
            fault: Mutex::new(Fault::None),
            blind: AtomicBool::new(false),
            late: Mutex::default(),
        })
    }

    /// The storage itself, for what is done behind the cache's back.
    pub fn direct(&self) -> &Arc<Memory> {
        &self.inner
    }

    pub fn set_fault(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// From now on every lookup fails, or none.
    pub fn set_blind(&self, blind: bool) {
        self.blind.store(blind, Ordering::Relaxed);
    }

    fn lookup_fault(&self) -> Result<()> {
        if self.blind.load(Ordering::Relaxed) {
            return Err(FsError::Io(5));
        }
        let mut fault = self.fault.lock().unwrap();
        if *fault == Fault::Lookup {
            *fault = Fault::None;
            return Err(FsError::AccessDenied);
        }
        Ok(())
    }

    /// Runs a change in a task of its own, as a pool of threads would.
    async fn change<T: Send + 'static>(
        &self,
        places: Vec<Place>,
        call: impl Future<Output = (Result<T>, Option<usize>)> + Send + 'static,
    ) -> Result<T> {
        let watch = Arc::clone(&self.watch);
        let fault = match &mut *self.fault.lock().unwrap() {
            Fault::Lookup => Fault::None,
            fault => std::mem::replace(fault, Fault::None),
        };
        watch.lock().unwrap().begin(&places);
        if fault == Fault::Late {
            // Under way until the storage has settled.
            let late = async move {
                step();
                let (result, removed) = call.await;
                watch.lock().unwrap().end(&places, removed.filter(|_| result.is_ok()));
            };
            self.late.lock().unwrap().push(Box::pin(late));
            pause().await;
            return Err(FsError::Indeterminate);
        }
        let task = spawn(async move {
            step();
            let (result, removed) =
                if fault == Fault::Unknown { (Err(FsError::Indeterminate), None) } else { call.await };
            step();
            watch.lock().unwrap().end(&places, removed.filter(|_| result.is_ok()));
            result
        });
        Detached(Some(task)).await
    }
}

/// A task that goes on, and counts for the search for deadlocks, when nobody waits for it any more.
struct Detached<T>(Option<shuttle::future::JoinHandle<T>>);

impl<T> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<T> {
        let handle = self.0.as_mut().expect("polled before its end");
        std::pin::Pin::new(handle).poll(cx).map(|joined| joined.expect("ends"))
    }
}

impl<T> Drop for Detached<T> {
    fn drop(&mut self) {
        std::mem::forget(self.0.take());
    }
}

impl Backend for Stepped {
    fn caps(&self) -> Caps {
        self.inner.caps()
    }

    fn root(&self) -> Fut<'_, NodeInfo> {
        self.inner.root()
    }

    fn lookup<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName) -> Fut<'a, Option<NodeInfo>> {
        Box::pin(async move {
            self.lookups.fetch_add(1, Ordering::Relaxed);
            step();
            let found = self.inner.lookup(dir, name).await;
            pause().await;
            self.lookup_fault()?;
            found
        })
    }

    fn lookup_folded<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a Name,
        fold: &'a Fold,
    ) -> Fut<'a, Vec<(DiskName, NodeInfo)>> {
        Box::pin(async move {
            self.lookups.fetch_add(1, Ordering::Relaxed);
            step();
            let found = self.inner.lookup_folded(dir, name, fold).await;
            pause().await;
            self.lookup_fault()?;
            found
        })
    }

    fn create<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a DiskName,
        how: &'a CreateHow,
    ) -> Fut<'a, (NodeInfo, Arc<dyn BackendFile>)> {
        let places = vec![place(dir, name)];
        let (inner, dir, name, how) = (Arc::clone(&self.inner), dir.clone(), name.clone(), how.clone());
        Box::pin(self.change(places, async move { (inner.create(&dir, &name, &how).await, None) }))
    }

    fn unlink<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()> {
        let places = vec![place(dir, name)];
        let (inner, dir, name, expect) = (Arc::clone(&self.inner), dir.clone(), name.clone(), *expect);
        Box::pin(self.change(places, async move { (inner.unlink(&dir, &name, &expect).await, None) }))
    }

    fn rmdir<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()> {
        let places = vec![place(dir, name)];
        let (inner, dir, name, expect) = (Arc::clone(&self.inner), dir.clone(), name.clone(), *expect);
        Box::pin(self.change(places, async move {
            let victim = inner.lookup(&dir, &name).await.ok().flatten().map(|info| id(&info.node));
            (inner.rmdir(&dir, &name, &expect).await, victim)
        }))
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
        let places = vec![place(from_dir, from), place(to_dir, to)];
        let inner = Arc::clone(&self.inner);
        let (from_dir, from, expect) = (from_dir.clone(), from.clone(), expect.copied());
        let (to_dir, to) = (to_dir.clone(), to.clone());
        Box::pin(self.change(places, async move {
            let victim = inner.lookup(&to_dir, &to).await.ok().flatten();
            let victim = victim.filter(|info| info.metadata.kind == Kind::Directory && replace);
            let renamed = inner.rename(&from_dir, &from, expect.as_ref(), &to_dir, &to, replace).await;
            (renamed, victim.map(|info| id(&info.node)))
        }))
    }

    fn link<'a>(
        &'a self,
        node: &'a dyn BackendFile,
        to_dir: &'a BackendNode,
        to: &'a DiskName,
        replace: bool,
    ) -> Fut<'a, ()> {
        Box::pin(async move {
            let places = vec![place(to_dir, to)];
            self.watch.lock().unwrap().begin(&places);
            step();
            let linked = self.inner.link(node, to_dir, to, replace).await;
            step();
            self.watch.lock().unwrap().end(&places, None);
            linked
        })
    }

    fn open<'a>(
        &'a self,
        dir: Option<&'a BackendNode>,
        name: &'a DiskName,
        expect: &'a BackendKey,
        how: OpenHow,
    ) -> Fut<'a, Arc<dyn BackendFile>> {
        Box::pin(async move {
            step();
            self.inner.open(dir, name, expect, how).await
        })
    }

    fn volume(&self) -> Fut<'_, VolumeInfo> {
        self.inner.volume()
    }

    fn names<'a>(&'a self, dir: &'a BackendNode, sink: Box<dyn NameSink>) -> Fut<'a, Box<dyn NameSink>> {
        Box::pin(async move {
            pause().await;
            let sink = self.inner.names(dir, sink).await;
            pause().await;
            sink
        })
    }

    fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        Some(Arc::new(SlowWatcher(self.inner.watcher()?)))
    }

    fn token<'a>(&'a self, dir: &'a BackendNode) -> Fut<'a, Option<Token>> {
        self.inner.token(dir)
    }

    fn settle(&self) -> Fut<'_, ()> {
        Box::pin(async move {
            pause().await;
            let late = std::mem::take(&mut *self.late.lock().unwrap());
            for change in late {
                change.await;
            }
            pause().await;
            Ok(())
        })
    }
}

/// Beginning to watch takes its time.
struct SlowWatcher(Arc<dyn Watcher>);

impl Watcher for SlowWatcher {
    fn watch(&self, dir: &BackendNode) -> Result<WatchId> {
        for _ in 0..8 {
            step();
        }
        self.0.watch(dir)
    }

    fn unwatch(&self, watch: WatchId) {
        self.0.unwatch(watch);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn read(&self, each: &mut dyn FnMut(Change<'_>)) {
        self.0.read(each);
    }
}

/// What a model starts with.
pub struct Bed {
    pub vfs: Arc<Vfs<u32>>,
    pub storage: Arc<Stepped>,
    pub root: Root<u32>,
    pub top: Arc<Node<u32>>,
}

impl Bed {
    pub async fn new() -> Bed {
        Bed::with(true, Options::default()).await
    }

    /// A storage that others change too.
    pub async fn shared() -> Bed {
        Bed::with(false, Options::default()).await
    }

    pub async fn with(exclusive: bool, options: Options) -> Bed {
        Bed::over(Stepped::new(exclusive, Fold::Insensitive), options).await
    }

    /// A storage that keeps several spellings of a name side by side.
    pub async fn many() -> Bed {
        Bed::over(Stepped::new(true, Fold::Sensitive), Options::default()).await
    }

    /// A storage that others change too, and that tells of so many changes at a time.
    pub async fn told(changes: usize, names_max: usize) -> Bed {
        let watches = Some(Watches { directories: 100, changes });
        let storage = Stepped::of(MemoryOptions { exclusive: false, watches, ..MemoryOptions::default() });
        let options = Options { names_max, ..Options::default() };
        Bed::over(storage, options).await
    }

    pub async fn over(storage: Arc<Stepped>, options: Options) -> Bed {
        let vfs = Vfs::new(options);
        let root = vfs.mount(Arc::clone(&storage) as Arc<dyn Backend>, Fold::Insensitive).await.unwrap();
        let top = Arc::clone(root.link().node());
        Bed { vfs, storage, root, top }
    }

    pub fn clone(&self) -> Bed {
        Bed {
            vfs: Arc::clone(&self.vfs),
            storage: Arc::clone(&self.storage),
            root: self.root.clone(),
            top: Arc::clone(&self.top),
        }
    }

    /// Makes an object in the storage, unknown to the cache.
    pub async fn plant(&self, text: &str, how: CreateHow) -> BackendKey {
        let root = self.storage.root().await.unwrap().node;
        let (info, _) = self.storage.direct().create(&root, &name(text).to_disk(), &how).await.unwrap();
        info.metadata.key
    }

    /// Removes an object from the storage, behind the cache's back.
    pub async fn pluck(&self, text: &str) {
        let root = self.storage.root().await.unwrap().node;
        let disk = name(text).to_disk();
        let found = self.storage.direct().lookup(&root, &disk).await.unwrap().expect("is there");
        self.storage.direct().unlink(&root, &disk, &found.metadata.key).await.unwrap();
    }

    /// Makes a directory `text` in `dir`, known to the cache.
    pub async fn directory(&self, dir: &Arc<Node<u32>>, text: &str) -> Arc<Link<u32>> {
        self.create(dir, text, CreateHow::directory()).await.unwrap().0
    }

    pub async fn file(&self, text: &str) -> Arc<Link<u32>> {
        self.create(&self.top, text, CreateHow::file()).await.unwrap().0
    }

    /// The link, and whether it was made.
    pub async fn create(
        &self,
        dir: &Arc<Node<u32>>,
        text: &str,
        how: CreateHow,
    ) -> Result<(Arc<Link<u32>>, bool)> {
        Ok(match self.vfs.create(dir, &name(text), how, |_, _| ()).await? {
            Creation::Created { link, .. } => (link, true),
            Creation::Exists(link) => (link, false),
        })
    }

    pub async fn look(&self, text: &str) -> Option<Arc<Link<u32>>> {
        self.vfs.lookup_one(&self.top, &name(text)).await.unwrap()
    }

    pub async fn remove(&self, link: &Arc<Link<u32>>) -> Result<Removal> {
        link.node().opens().set_delete_pending(link, true);
        self.vfs.remove_link(link).await
    }

    pub async fn rename(&self, link: &Arc<Link<u32>>, dir: &Arc<Node<u32>>, to: &str) -> Result<(), FsError> {
        match self.vfs.rename(link, dir, &name(to), true, |_| Ok::<_, ()>(())).await {
            Ok(()) => Ok(()),
            Err(RenameError::Fs(error)) => Err(error),
            Err(RenameError::Refused(())) => unreachable!("nobody refuses"),
        }
    }

    /// The end of each model: all is at rest, and the cache is right.
    pub async fn finish(&self) {
        self.vfs.quiesce().await;
        self.vfs.check_at_rest().await;
    }
}

pub fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

/// Polls a future a few times and then drops it, as a request is dropped.
pub async fn abandon<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await;
        if let std::task::Poll::Ready(value) = polled {
            return Some(value);
        }
        pause().await;
    }
    None
}

/// Runs tasks side by side and waits for all.
#[macro_export]
macro_rules! together {
    ($($task:expr),+ $(,)?) => {{
        let tasks = [$(shuttle::future::spawn($task)),+];
        for task in tasks {
            task.await.unwrap();
        }
    }};
}

/// Runs an asynchronous model.
pub fn model<F: Future<Output = ()>>(
    f: impl Fn() -> F + Send + Sync + 'static,
) -> impl Fn() + Send + Sync + 'static {
    move || shuttle::future::block_on(f())
}
