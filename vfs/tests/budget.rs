//! The cache within its budget of memory, by what the allocator is asked for.

use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;

const BUDGET: usize = 64 << 20;
const DIRECTORIES: usize = 16;

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().build().expect("starts");
}

/// What a future comes to that has nothing to wait for.
fn now<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| {
        let _entered = runtime.enter();
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits"),
        }
    })
}

/// Lets what was spawned go on: indexes are made in tasks of their own.
fn rest() {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
        });
    });
}

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

/// A storage that keeps nothing: it has every name that begins with a letter, as a directory if that is a `d`, and no
/// other.
struct Endless;

impl Endless {
    fn info(dir: u64, name: &[u8]) -> Option<NodeInfo> {
        let first = name.first()?.to_ascii_lowercase();
        let kind = if first == b'd' { Kind::Directory } else { Kind::File };
        // FNV-1a; that two of the names of these tests should meet is as good as impossible.
        let inode = name.iter().fold(0xcbf2_9ce4_8422_2325 ^ dir, |hash, byte| {
            (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0000_0100_0000_01b3)
        });
        first.is_ascii_lowercase().then(|| NodeInfo {
            node: BackendNode::new(inode),
            metadata: Metadata {
                key: BackendKey { device: u64::MAX, inode, generation: 0 },
                kind,
                size: 0,
                allocated: 0,
                links: 1,
                mode: 0o755,
                accessed: Timestamp::default(),
                modified: Timestamp::default(),
                changed: Timestamp::default(),
                born: None,
                dos: None,
            },
        })
    }
}

fn refuse<'a, T: Send + 'a>() -> Fut<'a, T> {
    Box::pin(ready(Err(FsError::NotSupported)))
}

impl Backend for Endless {
    fn caps(&self) -> Caps {
        Caps { coherence: Coherence::Exclusive, folds: true, ..Caps::default() }
    }

    fn root(&self) -> Fut<'_, NodeInfo> {
        Box::pin(ready(Endless::info(0, b"d").ok_or(FsError::NotFound)))
    }

    fn lookup<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName) -> Fut<'a, Option<NodeInfo>> {
        let dir = dir.downcast_ref::<u64>().copied().unwrap_or_default();
        Box::pin(ready(Ok(Endless::info(dir, name.as_bytes()))))
    }

    fn lookup_folded<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a Name,
        _: &'a Fold,
    ) -> Fut<'a, Vec<(DiskName, NodeInfo)>> {
        let (dir, disk) = (dir.downcast_ref::<u64>().copied().unwrap_or_default(), name.to_disk());
        let found = Endless::info(dir, disk.as_bytes());
        Box::pin(ready(Ok(found.map(|info| (disk, info)).into_iter().collect())))
    }

    fn create<'a>(
        &'a self,
        _: &'a BackendNode,
        _: &'a DiskName,
        _: &'a CreateHow,
    ) -> Fut<'a, (NodeInfo, Arc<dyn BackendFile>)> {
        refuse()
    }

    fn unlink<'a>(&'a self, _: &'a BackendNode, _: &'a DiskName, _: &'a BackendKey) -> Fut<'a, ()> {
        refuse()
    }

    fn rmdir<'a>(&'a self, _: &'a BackendNode, _: &'a DiskName, _: &'a BackendKey) -> Fut<'a, ()> {
        refuse()
    }

    fn rename<'a>(
        &'a self,
        _: &'a BackendNode,
        _: &'a DiskName,
        _: Option<&'a BackendKey>,
        _: &'a BackendNode,
        _: &'a DiskName,
        _: bool,
    ) -> Fut<'a, ()> {
        refuse()
    }

    fn link<'a>(
        &'a self,
        _: &'a dyn BackendFile,
        _: &'a BackendNode,
        _: &'a DiskName,
        _: bool,
    ) -> Fut<'a, ()> {
        refuse()
    }

    fn open<'a>(
        &'a self,
        _: Option<&'a BackendNode>,
        _: &'a DiskName,
        _: &'a BackendKey,
        _: OpenHow,
    ) -> Fut<'a, Arc<dyn BackendFile>> {
        refuse()
    }

    fn volume(&self) -> Fut<'_, VolumeInfo> {
        refuse()
    }
}

struct Bed {
    vfs: Arc<Vfs<u64>>,
    root: Root<u64>,
    directories: Vec<Arc<Node<u64>>>,
}

impl Bed {
    fn new(storage: Arc<dyn Backend>, memory_max: usize) -> Bed {
        let vfs = Vfs::new(Options { memory_max, ..Options::default() });
        let root = now(vfs.mount(storage, Fold::Insensitive)).expect("mounts");
        Bed { vfs, root, directories: Vec::new() }
    }

    fn look(&self, dir: &Arc<Node<u64>>, text: &str) -> Option<Arc<Link<u64>>> {
        now(self.vfs.lookup_one(dir, &name(text))).expect("looks up")
    }

    fn enter_directories(&mut self) {
        for i in 0..DIRECTORIES {
            let dir = self.look(self.root.link().node(), &format!("d{i:02}")).expect("is there");
            self.directories.push(Arc::clone(dir.node()));
        }
    }

    fn is_warm(&self, dir: &Arc<Node<u64>>, text: &str) -> bool {
        let before = self.vfs.counters().misses;
        self.look(dir, text).expect("is there");
        self.vfs.counters().misses == before
    }
}

/// The name of 20 characters with this number.
fn numbered(i: usize) -> String {
    format!("a name of many {:05}", i / DIRECTORIES)
}

/// Looks at so many names in several directories, at some of them again and again.
fn walk_many(bed: &mut Bed, names: usize) {
    bed.enter_directories();
    let top = Arc::clone(&bed.directories[0]);
    let hot: Vec<_> = (0..500).map(|i| format!("hot {i}")).collect();
    let held: Vec<_> = (0..100).map(|i| bed.look(&top, &format!("open {i}")).expect("is there")).collect();
    for link in &held {
        link.node().opens().attach(link).expect("opens");
    }
    for text in hot.iter().chain(&hot) {
        bed.look(&top, text).expect("is there");
    }
    for i in 0..names {
        let found = bed.look(&bed.directories[i % DIRECTORIES], &numbered(i));
        assert!(found.is_some(), "{i}");
        if i % 8 == 0 {
            bed.look(&top, &hot[i / 8 % hot.len()]).expect("is there");
        }
        if i % 1024 == 0 {
            rest();
            let counted = bed.vfs.counters().bytes;
            assert!(counted <= BUDGET as u64, "{counted} bytes after {i} names");
        }
    }
    let warm = hot.iter().filter(|text| bed.is_warm(&top, text)).count();
    assert!(warm >= 490, "{warm} of 500 names in use were in the cache");
    for (i, link) in held.iter().enumerate() {
        assert!(bed.is_warm(&top, &format!("open {i}")), "an open name stays");
        assert!(Arc::ptr_eq(link, &bed.look(&top, &format!("open {i}")).expect("is there")));
        assert_eq!(link.node().opens().open_count(link), 1);
    }
    let counters = bed.vfs.counters();
    assert!(counters.evictions as usize > names / 3, "{counters:?}");
    assert!(counters.names > 50_000, "the budget is used: {counters:?}");
}

#[test]
fn a_million_names_of_a_storage_without_end() {
    let mut counted = 0;
    let used = measure(|| {
        let mut bed = Bed::new(Arc::new(Endless), BUDGET);
        walk_many(&mut bed, 1_000_000);
        counted = bed.vfs.counters().bytes;
        // What the storage's own objects take is not the cache's.
        let nodes = bed.vfs.counters().nodes * 24;
        assert!(nodes < 8 << 20);
    });
    assert!(used.bytes_max <= BUDGET as u64, "{used:?}, counted {counted}");
    assert!(counted * 100 / 95 > BUDGET as u64 * 9 / 10, "{counted}");
    // In builds with assertions the order of locks is watched, in lists that stay with the thread.
    assert!(used.bytes_current < 4096, "all of it comes back: {used:?}");
}

#[test]
fn a_million_names_in_memory() {
    let names = if cfg!(debug_assertions) { 300_000 } else { 1_000_000 };
    let storage = Memory::new(MemoryOptions { limit: 4 << 30, ..MemoryOptions::default() });
    // Made without a cache, so that the one that is measured has seen none of it.
    let make = |dir: &BackendNode, text: &str, how: CreateHow| {
        now(storage.create(dir, &DiskName::new(text.as_bytes()), &how)).expect("creates").0.node
    };
    let root = now(storage.root()).expect("is there").node;
    let dirs: Vec<_> =
        (0..DIRECTORIES).map(|i| make(&root, &format!("d{i:02}"), CreateHow::directory())).collect();
    (0..500).for_each(|i| drop(make(&dirs[0], &format!("hot {i}"), CreateHow::file())));
    (0..100).for_each(|i| drop(make(&dirs[0], &format!("open {i}"), CreateHow::file())));
    for i in 0..names {
        make(&dirs[i % DIRECTORIES], &numbered(i), CreateHow::file());
    }
    let used = measure(|| walk_many(&mut Bed::new(Arc::clone(&storage) as Arc<dyn Backend>, BUDGET), names));
    assert!(used.bytes_max <= BUDGET as u64, "{used:?}");
    // In builds with assertions the order of locks is watched, in lists that stay with the thread.
    assert!(used.bytes_current < 4096, "all of it comes back: {used:?}");
}

#[test]
fn names_that_are_not_there_take_a_quarter() {
    let mut bed = Bed::new(Arc::new(Endless), BUDGET);
    bed.enter_directories();
    let dirs = bed.directories.clone();
    let present: Vec<_> = (0..50_000).map(|i| format!("present {i}")).collect();
    present.iter().for_each(|text| drop(bed.look(&dirs[1], text)));
    let before = bed.vfs.counters().bytes;
    let a_quarter = BUDGET as u64 / 4;
    // One directory has its share of it.
    for i in 0..100_000 {
        assert!(bed.look(&dirs[0], &format!("{i}")).is_none());
    }
    let one = bed.vfs.counters().bytes_of_absent_names;
    assert!((a_quarter / 5..a_quarter / 3).contains(&one), "{one}");
    // All together have no more than the quarter, and drive out nothing else.
    for i in 0..200_000 {
        assert!(bed.look(&dirs[i % DIRECTORIES], &format!("{i} in vain")).is_none());
        assert!(bed.vfs.counters().bytes_of_absent_names <= a_quarter);
    }
    assert!(bed.vfs.counters().bytes_of_absent_names > a_quarter * 8 / 10);
    assert!(bed.vfs.counters().bytes > before);
    let warm = present.iter().filter(|text| bed.is_warm(&dirs[1], text)).count();
    assert_eq!(warm, present.len());
}

#[test]
fn what_is_in_use_may_exceed_the_budget() {
    let mut bed = Bed::new(Arc::new(Endless), 1 << 20);
    bed.enter_directories();
    let dir = Arc::clone(&bed.directories[0]);
    let held: Vec<_> = (0..20_000).map(|i| bed.look(&dir, &format!("held {i}")).expect("is there")).collect();
    assert!(bed.vfs.counters().bytes > 2 << 20);
    assert!(held.iter().enumerate().all(|(i, _)| bed.is_warm(&dir, &format!("held {i}"))));
    drop(held);
    for i in 0..1_000 {
        bed.look(&dir, &format!("next {i}")).expect("is there");
    }
    assert!(bed.vfs.counters().bytes <= 1 << 20, "{:?}", bed.vfs.counters());
}

/// Where a directory has an index, what it says need not be kept once more: names that come and go leave no slots behind.
/// Where it has none, the slot of a name that went saves a search.
#[test]
fn names_that_have_gone_are_kept_where_there_is_no_index() {
    let bed = Bed::new(Memory::new(MemoryOptions::default()), BUDGET);
    let top = Arc::clone(bed.root.link().node());
    let make = |dir: &Arc<Node<u64>>, text: &str, how: CreateHow| match now(bed.vfs.create(
        dir,
        &name(text),
        how,
        |_, _| (),
    ))
    .expect("creates")
    {
        Creation::Created { link, .. } => link,
        Creation::Exists(_) => panic!("{text} exists"),
    };
    let rename = |link: &Arc<Link<u64>>, dir: &Arc<Node<u64>>, text: &str| {
        let renamed = now(bed.vfs.rename(link, dir, &name(text), false, |_| Ok::<_, ()>(())));
        assert!(renamed.is_ok(), "{text}");
    };
    let remove = |link: &Arc<Link<u64>>| {
        link.node().opens().set_delete_pending(link, true);
        assert_eq!(now(bed.vfs.remove_link(link)), Ok(Removal::Removed));
    };
    // A directory that was made just now has one; the root of a storage not before a task of its own has read its names.
    let dir = Arc::clone(make(&top, "d", CreateHow::directory()).node());
    let before = bed.vfs.counters();
    let link = make(&dir, "0", CreateHow::file());
    for number in 1..1_000 {
        rename(&link, &dir, &number.to_string());
    }
    let now_there = bed.vfs.counters();
    assert_eq!(now_there.names, before.names + 1, "one name is left of a thousand");
    assert_eq!(now_there.bytes_of_absent_names, before.bytes_of_absent_names);
    remove(&link);
    assert_eq!(bed.vfs.counters().names, before.names);
    assert!(bed.look(&dir, "7").is_none() && bed.look(&dir, "999").is_none());
    assert_eq!(bed.vfs.counters().backend_folded_lookups, before.backend_folded_lookups);

    let link = make(&top, "a", CreateHow::file());
    rename(&link, &top, "b");
    let before = bed.vfs.counters();
    assert!(bed.look(&top, "a").is_none());
    assert_eq!(bed.vfs.counters().negative_hits, before.negative_hits + 1, "what is known of it is kept");
}

#[test]
fn a_deep_chain_of_directories_goes() {
    let bed = Bed::new(Arc::new(Endless), 4 << 20);
    let mut dir = Arc::clone(bed.root.link().node());
    for _ in 0..100_000 {
        dir = Arc::clone(bed.look(&dir, "deeper").expect("is there").node());
    }
    let root = bed.root.link();
    assert!(bed.vfs.counters().bytes > 4 << 20, "the way up to a directory in use is in use");
    drop(dir);
    for i in 0..20_000 {
        bed.look(root.node(), &format!("next {i}")).expect("is there");
    }
    let counters = bed.vfs.counters();
    assert!(counters.bytes <= 4 << 20 && counters.nodes < 20_000, "{counters:?}");
}

#[test]
fn a_hit_allocates_nothing() {
    let mut bed = Bed::new(Arc::new(Endless), BUDGET);
    bed.enter_directories();
    let dir = Arc::clone(&bed.directories[0]);
    let path: Vec<_> = (0..5).map(|i| name(&format!("directory {i}"))).collect();
    let (present, absent) = (name("Some name of a file"), name("0 is not a letter"));
    let all = || {
        assert!(now(bed.vfs.lookup_one(&dir, &present)).expect("looks up").is_some());
        assert!(now(bed.vfs.lookup_one(&dir, &absent)).expect("looks up").is_none());
        now(bed.vfs.walk(&bed.root, &path)).expect("walks");
    };
    all();
    assert_eq!(measure(all).count_total, 0);
    // A claim and a gate neither.
    let probe = bed.vfs.probe(&dir, &present);
    let locks = measure(|| {
        now(probe.claim());
        now(bed.vfs.probe_gate(&dir));
    });
    assert_eq!(locks.count_total, 0);
}

/// What a lookup needs if it has to ask is not a part of it before.
#[test]
fn the_future_of_a_lookup_is_small() {
    let bed = Bed::new(Arc::new(Endless), BUDGET);
    let (top, text) = (Arc::clone(bed.root.link().node()), name("Some name of a file"));
    let one = size_of_val(&bed.vfs.lookup_one(&top, &text));
    let mut caught_up = CaughtUp::default();
    let within = size_of_val(&bed.vfs.lookup_within(&top, &text, &mut caught_up));
    let walk = size_of_val(&bed.vfs.walk(&bed.root, std::slice::from_ref(&text)));
    assert!(one.max(within) <= 128 && walk <= 256, "{one}, {within} and {walk} bytes");
}

#[test]
fn a_name_takes_130_bytes() {
    // The mutexes know their rank in builds with assertions.
    let most = if cfg!(debug_assertions) { 160 } else { 130 };
    for count in [1_000_u64, 7_200, 15_000, 100_000] {
        let mut bed = Bed::new(Arc::new(Endless), BUDGET);
        bed.enter_directories();
        let used = measure(|| {
            for i in 0..count {
                drop(bed.vfs.probe(&bed.directories[0], &name(&format!("{i:020}"))));
            }
        });
        let each = used.bytes_current as u64 / count;
        assert!(each <= most, "{each} bytes each of {count}");
        let counted = bed.vfs.counters().bytes_of_absent_names / count;
        assert!(counted <= each && each - counted <= 24, "{counted} of {each} bytes are counted");
    }
}
