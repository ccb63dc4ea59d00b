//! Many clients at once on few names, on real threads: whatever they do and however their requests are dropped, all
//! comes to rest, the cache agrees with the storage, and the tree is a tree.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shoal_vfs::latency::Latency;
use shoal_vfs::local::{self, Local};
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;

const CLIENTS: u64 = 12;

/// A small generator: the same seed, the same choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % sides as u64) as usize
    }
}

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

struct Client {
    vfs: Arc<Vfs<u32>>,
    root: Root<u32>,
    dice: Dice,
    busy: Arc<AtomicU64>,
}

impl Client {
    fn some_name(&mut self) -> Name {
        name(["a", "B", "c", "A", "b", "d"][self.dice.roll(6)])
    }

    /// A directory at random: the root, or one or two levels below.
    async fn some_directory(&mut self) -> Arc<Node<u32>> {
        let mut dir = Arc::clone(self.root.link().node());
        for _ in 0..self.dice.roll(3) {
            let name = self.some_name();
            match self.vfs.lookup_one(&dir, &name).await {
                Ok(Some(link)) if link.node().kind() == Kind::Directory => dir = Arc::clone(link.node()),
                _ => break,
            }
        }
        dir
    }

    fn expect(&self, error: FsError) {
        match error {
            FsError::Busy => {
                self.busy.fetch_add(1, Ordering::Relaxed);
            }
            FsError::NotFound
            | FsError::PathNotFound
            | FsError::Exists
            | FsError::NotEmpty
            | FsError::Invalid
            | FsError::Stale
            | FsError::IsADirectory
            | FsError::NotADirectory => {}
            error => panic!("{error:?}"),
        }
    }

    async fn act(&mut self) {
        let dir = self.some_directory().await;
        let name = self.some_name();
        match self.dice.roll(12) {
            0..3 => {
                let how = if self.dice.roll(2) == 0 { CreateHow::directory() } else { CreateHow::file() };
                match self
                    .vfs
                    .create(&dir, &name, how, |link, opens| opens.attach(link).expect("is new"))
                    .await
                {
                    Ok(Creation::Created { link, .. }) => self.close(&link, false).await,
                    Ok(Creation::Exists(_)) => {}
                    Err(error) => self.expect(error),
                }
            }
            3..6 => {
                let Ok(Some(link)) = self.vfs.lookup_one(&dir, &name).await else { return };
                let attached = link.node().opens().attach_at(&link, &dir, &name);
                if attached.is_err() {
                    self.vfs.settled(&link).await;
                    return;
                }
                if let Ok(file) = self.vfs.open(&link, OpenHow::default()).await {
                    // Who has it open keeps it from being replaced and removed.
                    let metadata = file.metadata().await.expect("tells");
                    assert!(metadata.links > 0, "{:?} was removed while it was open", link.name());
                }
                let remove = self.dice.roll(2) == 0;
                self.close(&link, remove).await;
            }
            6..10 => {
                let Ok(Some(link)) = self.vfs.lookup_one(&dir, &name).await else { return };
                let (to_dir, to) = (self.some_directory().await, self.some_name());
                let replace = self.dice.roll(2) == 0;
                let admit = |view: &mut RenameView<'_, u32>| match &view.target {
                    Some((link, opens)) if opens.open_count(link) > 0 => Err(()),
                    _ if view.sibling.as_ref().is_some_and(|link| view.source.open_count(link) > 0) => {
                        Err(())
                    }
                    _ => Ok(()),
                };
                match self.vfs.rename(&link, &to_dir, &to, replace, admit).await {
                    Ok(()) | Err(RenameError::Refused(())) => {}
                    Err(RenameError::Fs(error)) => self.expect(error),
                }
            }
            10 => {
                let Ok(Some(link)) = self.vfs.lookup_one(&dir, &name).await else { return };
                if link.node().kind() != Kind::File {
                    return;
                }
                let (to_dir, to) = (self.some_directory().await, self.some_name());
                let Ok(file) = self.vfs.open(&link, OpenHow::default()).await else { return };
                match self.vfs.link(&link, &file, &to_dir, &to, false, |_| Ok::<_, ()>(())).await {
                    Ok(_) | Err(RenameError::Refused(())) => {}
                    Err(RenameError::Fs(error)) => self.expect(error),
                }
            }
            _ => {
                let root = self.root.link();
                let file = self.vfs.open(&root, OpenHow { read: true, write: false }).await.expect("opens");
                let page = self.vfs.read_dir(root.node(), &file, 0, 100, true).await.expect("lists");
                let mut seen = HashSet::new();
                for entry in page {
                    assert!(seen.insert(entry.name.clone()), "{} twice", entry.name);
                }
            }
        }
    }

    async fn close(&self, link: &Arc<Link<u32>>, remove: bool) {
        let is_last = {
            let mut opens = link.node().opens();
            if remove {
                opens.set_delete_pending(link, true);
            }
            opens.detach(link)
        };
        if is_last && let Err(error) = self.vfs.remove_link(link).await {
            assert_ne!(error, FsError::Busy);
            self.expect(error);
        }
    }
}

/// Every name of the tree, by the cache and by the storage.
async fn check(vfs: &Arc<Vfs<u32>>, root: &Root<u32>) {
    let backend = root.backend();
    let mut work = vec![(root.link(), backend.root().await.expect("tells").node, Vec::new())];
    let mut seen = HashSet::new();
    while let Some((link, node, path)) = work.pop() {
        assert!(seen.insert(link.node().id()), "a directory at two places");
        assert_eq!(vfs.path(root, &link).as_ref(), Some(&path));
        let file = vfs.open(&link, OpenHow { read: true, write: false }).await.expect("opens");
        let mut cookie = 0;
        let mut listed = HashSet::new();
        loop {
            let page = vfs.read_dir(link.node(), &file, cookie, 3, true).await.expect("lists");
            let Some(last) = page.last() else { break };
            cookie = last.cookie;
            for entry in page {
                let found =
                    vfs.lookup_one(link.node(), &entry.name).await.expect("looks up").expect("is there");
                let info =
                    backend.lookup(&node, &entry.name.to_disk()).await.expect("looks up").expect("is there");
                assert_eq!(found.node().key(), info.metadata.key);
                assert_eq!(found.name().as_ref(), Some(&entry.name));
                assert!(!found.is_gone());
                let opens = found.node().opens();
                assert_eq!(opens.open_count(&found), 0);
                assert!(!opens.delete_pending(&found), "a pending deletion was forgotten");
                drop(opens);
                let folded = root.fold().fold(&entry.name);
                assert!(listed.insert(folded), "{} in two spellings", entry.name);
                if info.metadata.kind == Kind::Directory {
                    let mut below = path.clone();
                    below.push(entry.name.clone());
                    work.push((found, info.node, below));
                }
            }
        }
        for text in ["a", "b", "c", "d"] {
            let there = listed.contains(&root.fold().fold(&name(text)));
            let found = vfs.lookup_one(link.node(), &name(text)).await.expect("looks up");
            assert_eq!(found.is_some(), there);
        }
    }
}

async fn storm(backend: Arc<dyn Backend>, options: Options, rounds: usize) {
    let vfs = Vfs::<u32>::new(options);
    let root = vfs.mount(backend, Fold::Insensitive).await.expect("mounts");
    let busy = Arc::new(AtomicU64::new(0));
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_nanos() as u64;
    println!("seed {seed}");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|i| {
            let mut client = Client {
                vfs: Arc::clone(&vfs),
                root: root.clone(),
                dice: Dice(seed ^ i),
                busy: Arc::clone(&busy),
            };
            tokio::spawn(async move {
                for _ in 0..rounds {
                    // Some requests are dropped half way; but not those that hold an open, which has to be closed.
                    if client.dice.roll(10) == 0 {
                        let (dir, from, to) =
                            (client.some_directory().await, client.some_name(), client.some_name());
                        let Ok(Some(link)) = client.vfs.lookup_one(&dir, &from).await else { continue };
                        let rename = client.vfs.rename(&link, &dir, &to, false, |_| Ok::<_, ()>(()));
                        let _ = tokio::time::timeout(Duration::from_micros(50), rename).await;
                    } else {
                        client.act().await;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("ends");
    }
    vfs.quiesce().await;
    check(&vfs, &root).await;
    let counters = vfs.counters();
    println!("{counters:?}, {} busy", busy.load(Ordering::Relaxed));
    assert_eq!(busy.load(Ordering::Relaxed), 0, "given up after many lost races");
}

macro_rules! storms {
    ($($test:ident: $backend:expr, $options:expr, $rounds:expr;)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $test() {
            let run = storm($backend, $options, $rounds);
            tokio::time::timeout(Duration::from_secs(120), run).await.expect("nobody waits for ever");
        }
    )* };
}

fn memory(exclusive: bool) -> Arc<Memory> {
    Memory::new(MemoryOptions { exclusive, ..MemoryOptions::default() })
}

storms! {
    in_memory: memory(true), Options::default(), 4_000;
    in_little_memory: memory(true), Options { names_max: 3, ..Options::default() }, 4_000;
    in_shared_memory: memory(false), Options::default(), 4_000;
    under_directory_locks: memory(true), Options { plan: Plan::DirectoryLock, ..Options::default() }, 2_000;
    over_a_slow_storage: Arc::new(Latency::new(memory(true), Duration::from_micros(100))), Options::default(), 300;
    over_a_slow_shared_storage: Arc::new(Latency::new(memory(false), Duration::from_micros(100))), Options::default(), 200;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_the_real_file_system() {
    let scratch = std::env::temp_dir().join(format!("shoal-stress-{}", std::process::id()));
    std::fs::create_dir(&scratch).expect("a scratch directory");
    let backend = Arc::new(Local::open(&scratch, local::Options::default()).expect("opens"));
    let run = storm(backend, Options::default(), 1_000);
    tokio::time::timeout(Duration::from_secs(120), run).await.expect("nobody waits for ever");
    std::fs::remove_dir_all(&scratch).expect("removes the scratch directory");
}
