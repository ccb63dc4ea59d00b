//! A client that does what it likes with a few names, and what has to hold when all clients have come to rest.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use shoal_vfs::*;

/// A small generator: the same seed, the same choices.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % sides as u64) as usize
    }
}

/// A seed that differs from run to run, printed.
pub fn seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = since.expect("a time").as_nanos() as u64;
    println!("seed {seed}");
    seed
}

pub fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

/// Panics on purpose are not worth a backtrace each.
pub fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"a fault on purpose") {
                loud(info);
            }
        }));
    });
}

/// What `future` comes to. A bug of the storage on the way there leaves the outcome unknown to who called, and is
/// nobody else's affair.
pub async fn calm<T, E: From<FsError>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let mut future = Box::pin(future);
    std::future::poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .unwrap_or_else(|_| Poll::Ready(Err(E::from(FsError::Indeterminate))))
    })
    .await
}

pub struct Client {
    pub vfs: Arc<Vfs<u32>>,
    pub root: Root<u32>,
    pub dice: Dice,
    pub busy: Arc<AtomicU64>,
    /// The names that it knows.
    pub names: Arc<[Name]>,
    /// The storage has faults.
    pub faulty: bool,
}

impl Client {
    pub fn some_name(&mut self) -> Name {
        self.names[self.dice.roll(self.names.len())].clone()
    }

    /// A directory at random: the root, or one or two levels below.
    pub async fn some_directory(&mut self) -> Arc<Node<u32>> {
        let mut dir = Arc::clone(self.root.link().node());
        for _ in 0..self.dice.roll(3) {
            let name = self.some_name();
            match calm(self.vfs.lookup_one(&dir, &name)).await {
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
            FsError::Io(_) | FsError::NoSpace | FsError::CrossDevice | FsError::Indeterminate
                if self.faulty => {}
            error => panic!("{error:?}"),
        }
    }

    pub async fn act(&mut self) {
        let dir = self.some_directory().await;
        let name = self.some_name();
        match self.dice.roll(12) {
            0..3 => {
                let how = if self.dice.roll(2) == 0 { CreateHow::directory() } else { CreateHow::file() };
                let publish = |link: &Arc<Link<u32>>, opens: &mut Opens<'_, u32>| {
                    opens.attach(link).expect("is new");
                };
                match calm(self.vfs.create(&dir, &name, how, publish)).await {
                    Ok(Creation::Created { link, .. }) => self.close(&link, false).await,
                    Ok(Creation::Exists(_)) => {}
                    Err(error) => self.expect(error),
                }
            }
            3..6 => {
                let Ok(Some(link)) = calm(self.vfs.lookup_one(&dir, &name)).await else { return };
                let attached = link.node().opens().attach_at(&link, &dir, &name);
                if attached.is_err() {
                    self.vfs.settled(&link).await;
                    return;
                }
                if let Ok(file) = calm(self.vfs.open(&link, OpenHow::default())).await {
                    // Who has it open keeps it from being replaced and removed.
                    let metadata = file.metadata().await;
                    assert!(metadata.is_ok() || self.faulty, "{metadata:?}");
                    if let Ok(metadata) = metadata {
                        assert!(metadata.links > 0, "{:?} was removed while it was open", link.name());
                    }
                }
                let remove = self.dice.roll(2) == 0;
                self.close(&link, remove).await;
            }
            6..10 => {
                let Ok(Some(link)) = calm(self.vfs.lookup_one(&dir, &name)).await else { return };
                let (to_dir, to) = (self.some_directory().await, self.some_name());
                let replace = self.dice.roll(2) == 0;
                let admit = |view: &mut RenameView<'_, u32>| match &view.target {
                    Some((link, opens)) if opens.open_count(link) > 0 => Err(()),
                    _ if view.sibling.as_ref().is_some_and(|link| view.source.open_count(link) > 0) => {
                        Err(())
                    }
                    _ => Ok(()),
                };
                match calm(self.vfs.rename(&link, &to_dir, &to, replace, admit)).await {
                    Ok(()) | Err(RenameError::Refused(())) => {}
                    Err(RenameError::Fs(error)) => self.expect(error),
                }
            }
            10 => {
                let Ok(Some(link)) = calm(self.vfs.lookup_one(&dir, &name)).await else { return };
                if link.node().kind() != Kind::File {
                    return;
                }
                let (to_dir, to) = (self.some_directory().await, self.some_name());
                let Ok(file) = calm(self.vfs.open(&link, OpenHow::default())).await else { return };
                let linked = self.vfs.link(&link, &file, &to_dir, &to, false, |_| Ok::<_, ()>(()));
                match calm(linked).await {
                    Ok(_) | Err(RenameError::Refused(())) => {}
                    Err(RenameError::Fs(error)) => self.expect(error),
                }
            }
            _ => {
                let root = self.root.link();
                let how = OpenHow { read: true, write: false };
                let page = match calm(self.vfs.open(&root, how)).await {
                    Ok(file) => calm(self.vfs.read_dir(root.node(), &file, 0, 100, true)).await,
                    Err(error) => Err(error),
                };
                let page = match page {
                    Ok(page) => page,
                    Err(error) => return self.expect(error),
                };
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
        if is_last && let Err(error) = calm(self.vfs.remove_link(link)).await {
            assert_ne!(error, FsError::Busy);
            self.expect(error);
        }
    }
}

/// Every name of the tree, by the cache and by the storage.
pub async fn check(vfs: &Arc<Vfs<u32>>, root: &Root<u32>, names: &[Name]) {
    vfs.check_at_rest().await;
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
        for name in names {
            let there = listed.contains(&root.fold().fold(name));
            let found = vfs.lookup_one(link.node(), name).await.expect("looks up");
            assert_eq!(found.is_some(), there);
        }
    }
}
