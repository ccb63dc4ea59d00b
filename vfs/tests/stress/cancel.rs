//! Every operation, dropped at each of its polls, alone and while another does the same: nothing stays claimed, nobody
//! waits for ever, the cache is right, and what was dropped can be done again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use shoal_vfs::latency::Latency;
use shoal_vfs::local::{self, Local};
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;

use crate::client::{check, name};
use crate::storms::Scratch;

/// Polls a future so often, and then gives it up.
struct Polls<F> {
    future: Pin<Box<F>>,
    left: usize,
}

impl<F: Future> Future for Polls<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.left -= 1;
        match self.future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if self.left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

async fn dropped_at<F: Future>(poll: usize, future: F) -> Option<F::Output> {
    Polls { future: Box::pin(future), left: poll }.await
}

#[derive(Clone)]
pub struct Bed {
    pub vfs: Arc<Vfs<u32>>,
    pub root: Root<u32>,
    pub storage: Arc<dyn Backend>,
    /// Goes with the last of the bed.
    _scratch: Option<Arc<Scratch>>,
}

/// What lies below.
#[derive(Clone, Copy)]
pub enum On {
    Memory { exclusive: bool },
    Disk,
}

impl On {
    fn storage(self) -> (Arc<dyn Backend>, Option<Arc<Scratch>>) {
        match self {
            On::Memory { exclusive } => {
                (Memory::new(MemoryOptions { exclusive, ..MemoryOptions::default() }), None)
            }
            On::Disk => {
                let scratch = Arc::new(Scratch::new("bed"));
                let local = Local::open(scratch.path(), local::Options::default()).expect("opens");
                (Arc::new(local), Some(scratch))
            }
        }
    }
}

impl Bed {
    async fn new(on: On) -> Bed {
        // Each call has to be waited for, so that there is something to drop.
        Bed::behind(on, |backend| Arc::new(Latency::new(backend, Duration::from_millis(1)))).await
    }

    /// `file`, `other`, `dir/`, `dir/inner`, `full/inner/`, `empty/`, known to a cache of which nothing is left.
    pub async fn behind(on: On, wrap: impl FnOnce(Arc<dyn Backend>) -> Arc<dyn Backend>) -> Bed {
        let (backend, scratch) = on.storage();
        let bed = Bed::over(wrap(backend), scratch).await;
        for (path, how) in [
            ("file", CreateHow::file()),
            ("other", CreateHow::file()),
            ("dir", CreateHow::directory()),
            ("dir/inner", CreateHow::file()),
            ("full", CreateHow::directory()),
            ("full/inner", CreateHow::directory()),
            ("empty", CreateHow::directory()),
        ] {
            let (dir, last) = bed.parent(path).await.expect("walks");
            bed.vfs.create(&dir, &last, how, |_, _| ()).await.expect("creates");
        }
        Bed::over(bed.storage, bed._scratch).await
    }

    async fn over(storage: Arc<dyn Backend>, scratch: Option<Arc<Scratch>>) -> Bed {
        let vfs = Vfs::new(Options::default());
        let root = vfs.mount(Arc::clone(&storage), Fold::Insensitive).await.expect("mounts");
        Bed { vfs, root, storage, _scratch: scratch }
    }

    async fn parent(&self, path: &str) -> Result<(Arc<Node<u32>>, Name)> {
        let path = Path::from(path.split('/').map(name).collect::<Vec<_>>());
        let dir = self.vfs.resolve_parent(&self.root, &path).await?;
        Ok((dir, path.parent_and_last().expect("has a name").1.clone()))
    }

    pub async fn look(&self, path: &str) -> Result<Arc<Link<u32>>> {
        let (dir, last) = self.parent(path).await?;
        self.vfs.lookup_one(&dir, &last).await?.ok_or(FsError::NotFound)
    }

    async fn create(&self, path: &str, how: CreateHow) -> Result<()> {
        let (dir, last) = self.parent(path).await?;
        self.vfs.create(&dir, &last, how, |_, _| ()).await.map(drop)
    }

    async fn remove(&self, path: &str, in_use: bool) -> Result<()> {
        let link = self.look(path).await?;
        link.node().opens().set_delete_pending(&link, true);
        if in_use {
            self.vfs.remove_link_in_use(&link).await.map(drop)
        } else {
            self.vfs.remove_link(&link).await.map(drop)
        }
    }

    async fn rename(&self, from: &str, to: &str, replace: bool) -> Result<()> {
        let link = self.look(from).await?;
        let (dir, last) = self.parent(to).await?;
        match self.vfs.rename(&link, &dir, &last, replace, |_| Ok::<_, ()>(())).await {
            Err(RenameError::Fs(error)) => Err(error),
            renamed => {
                renamed.expect("nobody refuses");
                Ok(())
            }
        }
    }

    async fn link(&self, from: &str, to: &str, replace: bool) -> Result<()> {
        let link = self.look(from).await?;
        let file = self.vfs.open(&link, OpenHow::default()).await?;
        let (dir, last) = self.parent(to).await?;
        match self.vfs.link(&link, &file, &dir, &last, replace, |_| Ok::<_, ()>(())).await {
            Err(RenameError::Fs(error)) => Err(error),
            linked => linked.map(drop).map_err(|_| FsError::Busy),
        }
    }

    async fn list(&self, path: &str) -> Result<()> {
        let link = self.look(path).await?;
        let file = self.vfs.open(&link, OpenHow { read: true, write: false }).await?;
        self.vfs.read_dir(link.node(), &file, 0, 10, true).await.map(drop)
    }

    pub async fn run(&self, what: What) -> Result<()> {
        match what {
            What::Look => self.look("dir/INNER").await.map(drop),
            What::LookAbsent => match self.look("dir/absent").await {
                Err(FsError::NotFound) => Ok(()),
                found => found.map(|link| panic!("{:?}", link.name())),
            },
            What::Metadata => {
                let (dir, last) = self.parent("dir/inner").await?;
                self.vfs.lookup_with_metadata(&dir, &last).await.map(drop)
            }
            What::Walk => self.vfs.walk(&self.root, &[name("full"), name("inner")]).await.map(drop),
            What::Open => {
                let link = self.look("file").await?;
                self.vfs.open(&link, OpenHow { read: true, write: true }).await.map(drop)
            }
            What::SetLength => {
                let link = self.look("file").await?;
                let file = self.vfs.open(&link, OpenHow { read: true, write: true }).await?;
                file.set_metadata(&SetMetadata { size: Some(5), ..SetMetadata::default() }).await?;
                file.metadata().await.map(|metadata| assert_eq!(metadata.size, 5))
            }
            What::Write => {
                let link = self.look("dir/inner").await?;
                let file = self.vfs.open(&link, OpenHow { read: true, write: true }).await?;
                file.write_at(0, Bytes::from_static(b"data")).await?;
                file.flush().await?;
                file.read_at(0, 4).await.map(|data| assert_eq!(&data[..], b"data"))
            }
            What::List => self.list("dir").await,
            What::Settled => {
                let link = self.look("file").await?;
                self.vfs.settled(&link).await;
                Ok(())
            }
            What::Quiesce => {
                self.vfs.quiesce().await;
                Ok(())
            }
            What::Mount => self.vfs.mount(Arc::clone(&self.storage), Fold::Insensitive).await.map(drop),
            What::Create => self.create("dir/made", CreateHow::file()).await,
            What::CreateExisting => self.create("dir/INNER", CreateHow::file()).await,
            What::MakeDirectory => self.create("dir/made", CreateHow::directory()).await,
            What::Unlink => self.remove("file", false).await,
            What::UnlinkInUse => self.remove("dir/inner", true).await,
            What::RemoveDirectory => self.remove("empty", false).await,
            What::RemoveFull => match self.remove("full", false).await {
                Err(FsError::NotEmpty) => Ok(()),
                // Another's removal may have failed meanwhile, and with it what was pending.
                removed => {
                    removed?;
                    self.look("full/inner").await.map(drop)
                }
            },
            What::Rename => self.rename("file", "renamed", false).await,
            What::RenameCase => self.rename("file", "FILE", false).await,
            What::RenameInto => self.rename("file", "dir/renamed", false).await,
            What::RenameOnto => self.rename("file", "other", true).await,
            What::RenameOntoCase => self.rename("file", "OTHER", true).await,
            What::RenameOntoInto => self.rename("file", "dir/inner", true).await,
            What::RenameTaken => match self.rename("file", "Other", false).await {
                Err(FsError::Exists) => Ok(()),
                renamed => renamed.map(|()| panic!("renamed onto a name that is taken")),
            },
            What::RenameDirectory => self.rename("dir", "renamed", false).await,
            What::MoveDirectory => self.rename("full", "dir/full", false).await,
            What::ReplaceDirectory => self.rename("full", "empty", true).await,
            What::Link => self.link("file", "dir/linked", false).await,
            What::LinkOnto => self.link("file", "other", true).await,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    Look,
    LookAbsent,
    Metadata,
    Walk,
    Open,
    SetLength,
    Write,
    List,
    Settled,
    Quiesce,
    Mount,
    Create,
    CreateExisting,
    MakeDirectory,
    Unlink,
    UnlinkInUse,
    RemoveDirectory,
    RemoveFull,
    Rename,
    RenameCase,
    RenameInto,
    RenameOnto,
    RenameOntoCase,
    RenameOntoInto,
    RenameTaken,
    RenameDirectory,
    MoveDirectory,
    ReplaceDirectory,
    Link,
    LinkOnto,
}

pub const ALL: [What; 30] = [
    What::Look,
    What::LookAbsent,
    What::Metadata,
    What::Walk,
    What::Open,
    What::SetLength,
    What::Write,
    What::List,
    What::Settled,
    What::Quiesce,
    What::Mount,
    What::Create,
    What::CreateExisting,
    What::MakeDirectory,
    What::Unlink,
    What::UnlinkInUse,
    What::RemoveDirectory,
    What::RemoveFull,
    What::Rename,
    What::RenameCase,
    What::RenameInto,
    What::RenameOnto,
    What::RenameOntoCase,
    What::RenameOntoInto,
    What::RenameTaken,
    What::RenameDirectory,
    What::MoveDirectory,
    What::ReplaceDirectory,
    What::Link,
    What::LinkOnto,
];

/// The names that may stand in the tree afterwards, in the case in which they were not made.
pub const NAMES: [&str; 10] =
    ["FILE", "Renamed", "OTHER", "Dir", "Full", "Empty", "Inner", "Made", "Linked", "Absent"];

/// How the one ends that comes after another has done the same: it finds the source gone, or the target there.
pub fn is_done_or_was(end: &Result<()>) -> bool {
    matches!(end, Ok(()) | Err(FsError::NotFound | FsError::Exists | FsError::Stale))
}

async fn drop_everywhere(on: On, contended: bool) {
    for what in ALL {
        let mut polls = 0;
        loop {
            polls += 1;
            assert!(polls < 200, "{what:?} never ends");
            let bed = Bed::new(on).await;
            let peer = contended.then(|| {
                let bed = bed.clone();
                tokio::spawn(async move { bed.run(what).await })
            });
            if contended {
                // The peer is under way first.
                tokio::task::yield_now().await;
            }
            let end = dropped_at(polls, bed.run(what)).await;
            if let Some(peer) = peer {
                let end = tokio::time::timeout(Duration::from_secs(60), peer).await;
                let end = end.unwrap_or_else(|_| panic!("{what:?}: the peer waits for ever")).expect("ends");
                assert!(is_done_or_was(&end), "{what:?} at {polls}: the peer's end is {end:?}");
            }
            let rest = tokio::time::timeout(Duration::from_secs(60), bed.vfs.quiesce()).await;
            rest.unwrap_or_else(|_| panic!("{what:?} dropped at {polls}: a task never ends"));
            bed.vfs.check_at_rest().await;
            let again = tokio::time::timeout(Duration::from_secs(60), bed.run(what)).await;
            let again =
                again.unwrap_or_else(|_| panic!("{what:?} dropped at {polls}: the next waits for ever"));
            assert!(is_done_or_was(&again), "{what:?} dropped at {polls}, again: {again:?}");
            bed.vfs.quiesce().await;
            // All of the tree, by the cache and by the storage.
            check(&bed.vfs, &bed.root, &NAMES.map(name)).await;
            if let Some(end) = end {
                assert!(is_done_or_was(&end), "{what:?}: {end:?}");
                break;
            }
        }
        println!("{what:?}: dropped at each of {} polls", polls - 1);
    }
}

#[tokio::test(start_paused = true)]
async fn alone() {
    drop_everywhere(On::Memory { exclusive: true }, false).await;
}

#[tokio::test(start_paused = true)]
async fn alone_where_others_write_too() {
    drop_everywhere(On::Memory { exclusive: false }, false).await;
}

#[tokio::test(start_paused = true)]
async fn beside_another() {
    drop_everywhere(On::Memory { exclusive: true }, true).await;
}

#[tokio::test(start_paused = true)]
async fn beside_another_where_others_write_too() {
    drop_everywhere(On::Memory { exclusive: false }, true).await;
}

#[tokio::test(start_paused = true)]
async fn alone_on_the_real_file_system() {
    drop_everywhere(On::Disk, false).await;
}

#[tokio::test(start_paused = true)]
async fn beside_another_on_the_real_file_system() {
    drop_everywhere(On::Disk, true).await;
}
