//! What every backend must do, seen through the cache: the same tests for memory, for the real file system, and for
//! storages that others change too.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use shoal_vfs::latency::Latency;
use shoal_vfs::local::{self, Local};
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;

type Node = shoal_vfs::Node<u32>;
type Link = shoal_vfs::Link<u32>;

/// A mounted backend.
struct Bed {
    vfs: Arc<Vfs<u32>>,
    root: Root<u32>,
    scratch: Option<PathBuf>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(scratch) = &self.scratch {
            let _ = std::fs::remove_dir_all(scratch);
        }
    }
}

impl Bed {
    async fn of(backend: Arc<dyn Backend>, fold: Fold, options: Options) -> Bed {
        let vfs = Vfs::new(options);
        let root = vfs.mount(backend, fold).await.expect("mounts");
        Bed { vfs, root, scratch: None }
    }

    async fn memory(storage: Fold, mount: Fold, exclusive: bool) -> Bed {
        let backend = Memory::new(MemoryOptions { fold: storage, exclusive, ..MemoryOptions::default() });
        Bed::of(backend, mount, Options::default()).await
    }

    async fn local(fold: Fold) -> Bed {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let scratch = std::env::temp_dir().join(format!("shoal-suite-{}-{next}", std::process::id()));
        std::fs::create_dir(&scratch).expect("a scratch directory");
        let backend = Local::open(&scratch, local::Options::default()).expect("opens");
        let mut bed = Bed::of(Arc::new(backend), fold, Options::default()).await;
        bed.scratch = Some(scratch);
        bed
    }

    async fn slow() -> Bed {
        let memory = Memory::new(MemoryOptions::default());
        let slow = Latency::new(memory, Duration::from_micros(100));
        Bed::of(Arc::new(slow), Fold::Insensitive, Options::default()).await
    }

    async fn locking_directories() -> Bed {
        let options = Options { plan: Plan::DirectoryLock, ..Options::default() };
        Bed::of(Memory::new(MemoryOptions::default()), Fold::Insensitive, options).await
    }

    fn top(&self) -> Arc<Node> {
        Arc::clone(self.root.link().node())
    }

    fn insensitive(&self) -> bool {
        self.root.fold() == Fold::Insensitive
    }

    fn exclusive(&self) -> bool {
        self.root.backend().caps().exclusive()
    }

    async fn find(&self, dir: &Arc<Node>, text: &str) -> Option<Arc<Link>> {
        self.vfs.lookup_one(dir, &name(text)).await.expect("looks up")
    }

    async fn make(&self, dir: &Arc<Node>, text: &str, how: CreateHow) -> (Arc<Link>, Arc<dyn BackendFile>) {
        match self.vfs.create(dir, &name(text), how, |_, _| ()).await.expect("creates") {
            Creation::Created { link, file, .. } => (link, file),
            Creation::Exists(_) => panic!("{text} exists"),
        }
    }

    async fn file(&self, dir: &Arc<Node>, text: &str) -> Arc<Link> {
        self.make(dir, text, CreateHow::file()).await.0
    }

    async fn directory(&self, dir: &Arc<Node>, text: &str) -> Arc<Node> {
        Arc::clone(self.make(dir, text, CreateHow::directory()).await.0.node())
    }

    async fn remove(&self, link: &Arc<Link>) -> Result<Removal> {
        link.node().opens().set_delete_pending(link, true);
        self.vfs.remove_link(link).await
    }

    async fn rename(
        &self,
        link: &Arc<Link>,
        dir: &Arc<Node>,
        to: &str,
        replace: bool,
    ) -> Result<(), RenameError<()>> {
        self.vfs.rename(link, dir, &name(to), replace, |_| Ok(())).await
    }

    async fn list(&self, dir: &Arc<Node>) -> BTreeSet<String> {
        let link = self.dir_link(dir).await;
        let file = self.vfs.open(&link, OpenHow { read: true, write: false }).await.expect("opens");
        let mut names = BTreeSet::new();
        let mut cookie = 0;
        loop {
            let page = self.vfs.read_dir(dir, &file, cookie, 7, true).await.expect("lists");
            let Some(last) = page.last() else { return names };
            cookie = last.cookie;
            for entry in page {
                assert!(names.insert(entry.name.to_string()), "{} twice", entry.name);
            }
        }
    }

    async fn dir_link(&self, dir: &Arc<Node>) -> Arc<Link> {
        let root = self.root.link();
        if root.node().id() == dir.id() {
            return root;
        }
        // A directory has one link; any name below it tells where it is, and it is found from its parent.
        for parent in [self.top()] {
            let file =
                self.vfs.open(&self.root.link(), OpenHow { read: true, write: false }).await.expect("opens");
            let mut cookie = 0;
            loop {
                let page = self.vfs.read_dir(&parent, &file, cookie, 100, false).await.expect("lists");
                let Some(last) = page.last() else { break };
                cookie = last.cookie;
                for entry in page {
                    let found = self.vfs.lookup_one(&parent, &entry.name).await.expect("looks up");
                    if let Some(link) = found.filter(|link| link.node().id() == dir.id()) {
                        return link;
                    }
                }
            }
        }
        panic!("only directories below the root are listed here")
    }

    fn path(&self, link: &Link) -> String {
        let names = self.vfs.path(&self.root, link).expect("below the root");
        names.iter().map(|name| format!("/{name}")).collect()
    }
}

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

fn path(text: &str) -> Path {
    Path::from(text.split('/').filter(|part| !part.is_empty()).map(name).collect::<Vec<_>>())
}

async fn creates_and_finds(bed: &Bed) {
    let top = bed.top();
    assert!(bed.find(&top, "Hello.txt").await.is_none());
    let link = bed.file(&top, "Hello.txt").await;
    assert_eq!(link.name().map(|name| name.to_string()).as_deref(), Some("Hello.txt"));
    let found = bed.find(&top, "Hello.txt").await.expect("is there");
    assert!(Arc::ptr_eq(&link, &found));
    let other_case = bed.find(&top, "HELLO.TXT").await;
    assert_eq!(other_case.is_some(), bed.insensitive());
    if let Some(other_case) = other_case {
        assert!(Arc::ptr_eq(&link, &other_case));
    }
    let again =
        bed.vfs.create(&top, &name("Hello.txt"), CreateHow::file(), |_, _| ()).await.expect("answers");
    assert!(matches!(again, Creation::Exists(found) if Arc::ptr_eq(&found, &link)));
    let other =
        bed.vfs.create(&top, &name("hello.TXT"), CreateHow::file(), |_, _| ()).await.expect("answers");
    assert_eq!(matches!(other, Creation::Exists(_)), bed.insensitive());
}

async fn publishes_before_anybody_sees(bed: &Bed) {
    let top = bed.top();
    let x = name("x");
    let made = bed.vfs.create(&top, &x, CreateHow::file(), |link, opens| {
        **opens = 7;
        opens.attach(link).expect("nobody was there before");
        opens.open_count(link)
    });
    let Creation::Created { link, value, .. } = made.await.expect("creates") else { panic!("exists") };
    assert_eq!(value, 1);
    assert_eq!(*link.node().opens(), 7);
}

async fn reads_and_writes(bed: &Bed) {
    let (link, file) = bed.make(&bed.top(), "data", CreateHow::file()).await;
    assert_eq!(file.write_at(3, Bytes::from_static(b"defg")).await, Ok(4));
    assert_eq!(file.read_at(0, 100).await.expect("reads"), Bytes::from_static(b"\0\0\0defg"));
    assert_eq!(file.read_at(7, 100).await.expect("reads"), Bytes::new());
    let far = 5 * 1024 * 1024 + 17;
    let block = Bytes::from(vec![0xA5; 200_000]);
    assert_eq!(file.write_at(far, block.clone()).await, Ok(200_000));
    assert_eq!(file.metadata().await.expect("tells").size, far + 200_000);
    assert_eq!(file.read_at(far, 200_000).await.expect("reads"), block);
    assert_eq!(file.read_at(far - 2, 3).await.expect("reads"), Bytes::from_static(b"\0\0\xA5"));
    let again = bed.vfs.open(&link, OpenHow { read: true, write: true }).await.expect("opens");
    again.set_metadata(&SetMetadata { size: Some(5), ..SetMetadata::default() }).await.expect("cuts");
    assert_eq!(file.read_at(0, 100).await.expect("reads"), Bytes::from_static(b"\0\0\0de"));
    again.set_metadata(&SetMetadata { size: Some(9), ..SetMetadata::default() }).await.expect("grows");
    assert_eq!(file.read_at(0, 100).await.expect("reads"), Bytes::from_static(b"\0\0\0de\0\0\0\0"));
    file.punch(3, 1).await.expect("punches");
    assert_eq!(file.read_at(0, 5).await.expect("reads"), Bytes::from_static(b"\0\0\0\0e"));
    file.zero_range(4, 1).await.expect("zeroes");
    assert_eq!(file.read_at(0, 100).await.expect("reads"), Bytes::from_static(&[0; 9]));
    file.flush().await.expect("flushes");
    assert!(matches!(
        file.write_at(u64::MAX - 3, Bytes::from_static(b"defg")).await,
        Err(FsError::FileTooLarge | FsError::Invalid)
    ));
}

async fn keeps_metadata(bed: &Bed) {
    let dos = DosAttributes { attributes: 0x22, creation_time: Some(Timestamp::new(1_000_000_000, 500)) };
    let how = CreateHow { dos: Some(dos), ..CreateHow::file() };
    let (link, file) = bed.make(&bed.top(), "meta", how).await;
    let before = file.metadata().await.expect("tells");
    assert_eq!((before.kind, before.size, before.links, before.key), (Kind::File, 0, 1, link.node().key()));
    let stored = before.dos.expect("is stored");
    assert_eq!(stored.attributes & 0x27, 0x22);
    assert_eq!(stored.creation_time, Some(Timestamp::new(1_000_000_000, 500)));
    let set = SetMetadata {
        accessed: Some(Timestamp::new(1_200_000_000, 100)),
        modified: Some(Timestamp::new(1_300_000_000, 200)),
        ..SetMetadata::default()
    };
    file.set_metadata(&set).await.expect("sets");
    let after = file.metadata().await.expect("tells");
    assert_eq!(after.accessed, Timestamp::new(1_200_000_000, 100));
    assert_eq!(after.modified, Timestamp::new(1_300_000_000, 200));
    assert_eq!(after.dos, before.dos);
    let (_, metadata) =
        bed.vfs.lookup_with_metadata(&bed.top(), &name("meta")).await.expect("looks up").expect("is there");
    if let Some(metadata) = metadata {
        assert_eq!(metadata.modified, Timestamp::new(1_300_000_000, 200));
    }
}

async fn walks(bed: &Bed) {
    let top = bed.top();
    let a = bed.directory(&top, "a").await;
    let b = bed.directory(&a, "b").await;
    let c = bed.file(&b, "c").await;
    let vfs = &bed.vfs;
    let parent = vfs.resolve_parent(&bed.root, &path("a/b/c")).await.expect("walks");
    assert_eq!(parent.id(), b.id());
    assert_eq!(bed.path(&c), "/a/b/c");
    assert!(b.is_below(&a) && b.is_below(&top) && !a.is_below(&b));
    assert_eq!(vfs.resolve_parent(&bed.root, &Path::root()).await.expect("walks").id(), top.id());
    assert_eq!(vfs.resolve_parent(&bed.root, &path("a/x/c")).await.err(), Some(FsError::PathNotFound));
    assert_eq!(vfs.resolve_parent(&bed.root, &path("a/b/c/d")).await.err(), Some(FsError::PathNotFound));
    assert_eq!(vfs.lookup_one(c.node(), &name("d")).await.err(), Some(FsError::NotADirectory));
    if bed.insensitive() {
        assert_eq!(vfs.resolve_parent(&bed.root, &path("A/B/C")).await.expect("walks").id(), b.id());
    }
}

async fn removes_with_the_last_close(bed: &Bed) {
    let top = bed.top();
    let link = bed.file(&top, "x").await;
    let node = link.node();
    node.opens().attach_at(&link, &top, &name("x")).expect("opens");
    node.opens().attach(&link).expect("opens");
    assert_eq!(bed.vfs.remove_link(&link).await, Ok(Removal::Kept));
    node.opens().set_delete_pending(&link, true);
    assert_eq!(node.opens().attach(&link), Err(Attach::DeletePending));
    assert!(!node.opens().detach(&link));
    assert_eq!(bed.vfs.remove_link(&link).await, Ok(Removal::Kept));
    assert!(bed.find(&top, "x").await.is_some());
    assert!(node.opens().detach(&link));
    assert_eq!(bed.vfs.remove_link(&link).await, Ok(Removal::Removed));
    assert!(bed.find(&top, "x").await.is_none());
    assert_eq!(node.opens().attach(&link), Err(Attach::Gone));
    assert_eq!(bed.vfs.remove_link(&link).await, Ok(Removal::AlreadyGone));
    let again = bed.file(&top, "X").await;
    assert_eq!(again.name(), Some(name("X")));
    assert_ne!(again.node().id(), node.id());
}

async fn an_open_file_outlives_its_name(bed: &Bed) {
    let top = bed.top();
    let (link, file) = bed.make(&top, "x", CreateHow::file()).await;
    file.write_at(0, Bytes::from_static(b"still here")).await.expect("writes");
    assert_eq!(bed.remove(&link).await, Ok(Removal::Removed));
    assert_eq!(file.read_at(0, 100).await.expect("reads"), Bytes::from_static(b"still here"));
    assert_eq!(file.metadata().await.expect("tells").links, 0);
    assert_eq!(bed.vfs.open(&link, OpenHow::default()).await.err(), Some(FsError::Stale));
}

async fn removes_directories(bed: &Bed) {
    let top = bed.top();
    let (dir, _file) = bed.make(&top, "dir", CreateHow::directory()).await;
    let inner = bed.file(dir.node(), "inner").await;
    assert_eq!(bed.remove(&dir).await, Err(FsError::NotEmpty));
    assert!(!dir.node().opens().delete_pending(&dir), "a failed removal is no longer pending");
    assert!(!dir.is_gone());
    bed.file(dir.node(), "more").await;
    assert_eq!(bed.remove(&inner).await, Ok(Removal::Removed));
    let more = bed.find(dir.node(), "more").await.expect("is there");
    assert_eq!(bed.remove(&more).await, Ok(Removal::Removed));
    assert_eq!(bed.remove(&dir).await, Ok(Removal::Removed));
    assert!(bed.find(&top, "dir").await.is_none());
    let late = bed.vfs.create(dir.node(), &name("late"), CreateHow::file(), |_, _| ()).await;
    assert_eq!(late.err(), Some(FsError::PathNotFound));
    let link = bed.file(&top, "file").await;
    assert!(matches!(
        bed.rename(&link, dir.node(), "x", false).await,
        Err(RenameError::Fs(FsError::PathNotFound))
    ));
    let again = bed.directory(&top, "dir").await;
    assert_ne!(again.id(), dir.node().id());
    assert!(bed.list(&again).await.is_empty());
}

async fn renames(bed: &Bed) {
    let top = bed.top();
    let (a, b) = (bed.directory(&top, "a").await, bed.directory(&top, "b").await);
    let (link, file) = bed.make(&a, "x", CreateHow::file()).await;
    file.write_at(0, Bytes::from_static(b"x")).await.expect("writes");
    assert!(bed.find(&a, "y").await.is_none());
    bed.rename(&link, &a, "y", false).await.expect("renames");
    assert!(bed.find(&a, "x").await.is_none());
    assert!(Arc::ptr_eq(&bed.find(&a, "y").await.expect("is there"), &link));
    bed.rename(&link, &b, "z", false).await.expect("renames");
    assert!(bed.find(&a, "y").await.is_none());
    assert!(Arc::ptr_eq(&bed.find(&b, "z").await.expect("is there"), &link));
    assert_eq!(bed.path(&link), "/b/z");
    assert_eq!(bed.vfs.counters().topology, 0, "a file is moved without the topology lock");
    assert_eq!(bed.list(&a).await, BTreeSet::new());
    assert_eq!(bed.list(&b).await, BTreeSet::from(["z".to_owned()]));
    let reopened = bed.vfs.open(&link, OpenHow { read: true, write: false }).await.expect("opens");
    assert_eq!(reopened.read_at(0, 9).await.expect("reads"), Bytes::from_static(b"x"));
    // By its old name it is not to be opened any more.
    assert_eq!(link.node().opens().attach_at(&link, &a, &name("x")), Err(Attach::Gone));
    link.node().opens().attach_at(&link, &b, &name("z")).expect("opens");
    // As it is.
    bed.rename(&link, &b, "z", false).await.expect("renames");
    assert_eq!(bed.path(&link), "/b/z");
}

async fn renames_case_only(bed: &Bed) {
    let top = bed.top();
    let link = bed.file(&top, "foo").await;
    bed.rename(&link, &top, "FOO", false).await.expect("renames");
    assert_eq!(link.name(), Some(name("FOO")));
    assert_eq!(bed.list(&top).await, BTreeSet::from(["FOO".to_owned()]));
    let found = bed.find(&top, "FOO").await.expect("is there");
    assert!(Arc::ptr_eq(&found, &link));
    assert_eq!(bed.find(&top, "foo").await.is_some(), bed.insensitive());
    let dir = bed.directory(&top, "dir").await;
    let dir_link = bed.find(&top, "dir").await.expect("is there");
    bed.rename(&dir_link, &top, "Dir", false).await.expect("renames");
    assert_eq!(bed.find(&top, "Dir").await.expect("is there").node().id(), dir.id());
}

async fn replaces(bed: &Bed) {
    let top = bed.top();
    let (old, old_file) = bed.make(&top, "target", CreateHow::file()).await;
    old_file.write_at(0, Bytes::from_static(b"old")).await.expect("writes");
    let (new, new_file) = bed.make(&top, "source", CreateHow::file()).await;
    new_file.write_at(0, Bytes::from_static(b"new")).await.expect("writes");
    let refused = bed.rename(&new, &top, "target", false).await;
    assert_eq!(refused, Err(RenameError::Fs(FsError::Exists)));
    let to = name("target");
    let refused = bed.vfs.rename(&new, &top, &to, true, |view| {
        assert!(view.target.is_some() && view.sibling.is_none());
        Err::<(), _>("no")
    });
    assert_eq!(refused.await, Err(RenameError::Refused("no")));
    assert!(!old.is_gone());
    let spelled = if bed.insensitive() { "TARGET" } else { "target" };
    bed.rename(&new, &top, spelled, true).await.expect("renames");
    assert!(old.is_gone());
    assert_eq!(old.node().opens().attach(&old), Err(Attach::Gone));
    assert!(Arc::ptr_eq(&bed.find(&top, "target").await.expect("is there"), &new) || !bed.insensitive());
    assert_eq!(bed.list(&top).await, BTreeSet::from([spelled.to_owned()]));
    assert_eq!(old_file.read_at(0, 9).await.expect("reads"), Bytes::from_static(b"old"));
    let file = bed.vfs.open(&new, OpenHow { read: true, write: false }).await.expect("opens");
    assert_eq!(file.read_at(0, 9).await.expect("reads"), Bytes::from_static(b"new"));
    assert_eq!(old_file.metadata().await.expect("tells").links, 0);
}

async fn moves_directories(bed: &Bed) {
    let top = bed.top();
    let a = bed.directory(&top, "a").await;
    let b = bed.directory(&a, "b").await;
    let file = bed.file(&b, "file").await;
    let other = bed.directory(&top, "other").await;
    let a_link = bed.find(&top, "a").await.expect("is there");
    assert_eq!(bed.rename(&a_link, &b, "x", false).await, Err(RenameError::Fs(FsError::Invalid)));
    assert_eq!(bed.rename(&a_link, &a, "x", false).await, Err(RenameError::Fs(FsError::Invalid)));
    bed.rename(&a_link, &other, "moved", false).await.expect("renames");
    assert_eq!(bed.path(&file), "/other/moved/b/file");
    assert!(b.is_below(&other));
    let parent = bed.vfs.resolve_parent(&bed.root, &path("other/moved/b/file")).await.expect("walks");
    assert_eq!(parent.id(), b.id());
    assert_eq!(bed.vfs.resolve_parent(&bed.root, &path("a/b/file")).await.err(), Some(FsError::PathNotFound));
    // Onto an empty directory, and not onto a full one or one above.
    let b_link = bed.find(&a, "b").await.expect("is there");
    let empty = bed.directory(&top, "empty").await;
    let full = bed.directory(&top, "full").await;
    bed.file(&full, "x").await;
    assert_eq!(bed.rename(&b_link, &top, "full", true).await, Err(RenameError::Fs(FsError::NotEmpty)));
    assert_eq!(bed.rename(&b_link, &top, "other", true).await, Err(RenameError::Fs(FsError::NotEmpty)));
    bed.rename(&b_link, &top, "empty", true).await.expect("renames");
    assert_eq!(bed.path(&file), "/empty/file");
    let late = bed.vfs.create(&empty, &name("late"), CreateHow::file(), |_, _| ()).await;
    assert_eq!(late.err(), Some(FsError::PathNotFound));
    bed.file(&full, "y").await;
    let root = bed.root.link();
    assert_eq!(bed.rename(&root, &full, "z", false).await, Err(RenameError::Fs(FsError::AccessDenied)));
}

async fn links(bed: &Bed) {
    let top = bed.top();
    let (a, file) = bed.make(&top, "a", CreateHow::file()).await;
    let b = bed.vfs.link(&a, &file, &top, &name("b"), false, |_| Ok::<_, ()>(())).await.expect("links").0;
    assert!(Arc::ptr_eq(a.node(), b.node()) && !Arc::ptr_eq(&a, &b));
    assert!(Arc::ptr_eq(&bed.find(&top, "b").await.expect("is there"), &b));
    assert_eq!(file.metadata().await.expect("tells").links, 2);
    let again = bed.vfs.link(&a, &file, &top, &name("b"), false, |_| Ok::<_, ()>(())).await;
    assert_eq!(again.err(), Some(RenameError::Fs(FsError::Exists)));
    // Deletion belongs to the name.
    a.node().opens().attach(&b).expect("opens");
    assert_eq!(bed.remove(&a).await, Ok(Removal::Removed));
    assert!(bed.find(&top, "a").await.is_none());
    assert!(!b.is_gone());
    b.node().opens().attach(&b).expect("opens");
    assert_eq!(file.metadata().await.expect("tells").links, 1);
    // Onto its sibling: one name is left.
    let c = bed.vfs.link(&b, &file, &top, &name("c"), false, |_| Ok::<_, ()>(())).await.expect("links").0;
    let to = name("c");
    let renamed = bed.vfs.rename(&b, &top, &to, true, |view| {
        assert!(view.sibling.is_some() && view.target.is_none());
        Ok::<_, ()>(())
    });
    renamed.await.expect("renames");
    assert!(c.is_gone());
    assert!(bed.find(&top, "b").await.is_none());
    assert!(Arc::ptr_eq(&bed.find(&top, "c").await.expect("is there"), &b));
    assert_eq!(bed.list(&top).await, BTreeSet::from(["c".to_owned()]));
    assert_eq!(file.metadata().await.expect("tells").links, 1);
    // Replacing another file.
    let d = bed.file(&top, "d").await;
    bed.vfs.link(&b, &file, &top, &name("d"), true, |_| Ok::<_, ()>(())).await.expect("links");
    assert!(d.is_gone());
    assert_eq!(bed.find(&top, "d").await.expect("is there").node().id(), b.node().id());
}

async fn lists_each_name_once(bed: &Bed) {
    let top = bed.top();
    let dir = bed.directory(&top, "dir").await;
    let mut links = Vec::new();
    for i in 0..150 {
        links.push(bed.file(&dir, &format!("name{i}")).await);
    }
    let link = bed.find(&top, "dir").await.expect("is there");
    let file = bed.vfs.open(&link, OpenHow { read: true, write: false }).await.expect("opens");
    let mut seen = BTreeSet::new();
    let mut cookie = 0;
    let mut round = 0;
    loop {
        let page = bed.vfs.read_dir(&dir, &file, cookie, 10, round % 2 == 0).await.expect("lists");
        let Some(last) = page.last() else { break };
        cookie = last.cookie;
        for entry in &page {
            assert!(seen.insert(entry.name.to_string()), "{} twice", entry.name);
        }
        // Others come and go meanwhile.
        if round < 20 {
            bed.file(&dir, &format!("new{round}")).await;
            assert_eq!(bed.remove(&links[round * 2]).await, Ok(Removal::Removed));
        }
        round += 1;
    }
    for i in (1..150).step_by(2) {
        assert!(seen.contains(&format!("name{i}")), "name{i} is missing");
    }
    // From the start again, and past the end.
    assert!(!bed.vfs.read_dir(&dir, &file, 0, 10, false).await.expect("lists").is_empty());
}

async fn one_creator_wins(bed: &Bed) {
    let top = bed.top();
    let tasks: Vec<_> = (0..32)
        .map(|i| {
            let (vfs, top) = (Arc::clone(&bed.vfs), Arc::clone(&top));
            let spelled = if i % 2 == 0 || !bed.insensitive() { "One" } else { "oNE" };
            tokio::spawn(
                async move { vfs.create(&top, &name(spelled), CreateHow::file(), move |_, _| i).await },
            )
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        match task.await.expect("ends").expect("answers") {
            Creation::Created { .. } => created += 1,
            Creation::Exists(link) => assert_eq!(link.node().kind(), Kind::File),
        }
    }
    assert_eq!(created, 1);
    assert_eq!(bed.list(&top).await.len(), 1);
}

async fn a_dropped_request_does_not_stop_its_change(bed: &Bed) {
    let top = bed.top();
    let x = name("x");
    {
        let make = bed.vfs.create(&top, &x, CreateHow::file(), |_, _| ());
        let mut make = std::pin::pin!(make);
        std::future::poll_fn(|cx| {
            let _ = make.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
    }
    bed.vfs.quiesce().await;
    // Either it had not begun, or it is through: a second creator finds out without hanging.
    let made = bed.vfs.create(&top, &name("x"), CreateHow::file(), |_, _| ()).await.expect("answers");
    assert_eq!(bed.list(&top).await.len(), 1);
    drop(made);
    assert_eq!(bed.vfs.remove_link(&bed.find(&top, "x").await.expect("is there")).await, Ok(Removal::Kept));
}

async fn opens_by_link(bed: &Bed) {
    let top = bed.top();
    let link = bed.file(&top, "x").await;
    bed.vfs.open(&link, OpenHow::default()).await.expect("opens");
    bed.vfs.open(&link, OpenHow { read: true, write: true }).await.expect("opens");
    let root = bed.vfs.open(&bed.root.link(), OpenHow { read: true, write: false }).await.expect("opens");
    assert_eq!(root.metadata().await.expect("tells").kind, Kind::Directory);
    assert!(bed.root.link().place().is_none());
}

// What others do to the same storage.

async fn sees_foreign_changes(bed: &Bed) {
    if bed.exclusive() {
        return;
    }
    let top = bed.top();
    let backend = bed.root.backend();
    let root = backend.root().await.expect("tells").node;
    // Created.
    assert!(bed.find(&top, "x").await.is_none());
    let (info, _) = backend.create(&root, &name("x").to_disk(), &CreateHow::file()).await.expect("creates");
    let link = bed.find(&top, "x").await.expect("is there");
    assert_eq!(link.node().key(), info.metadata.key);
    // Removed.
    backend.unlink(&root, &name("x").to_disk(), &info.metadata.key).await.expect("removes");
    assert!(bed.find(&top, "x").await.is_none());
    assert_eq!(bed.vfs.open(&link, OpenHow::default()).await.err(), Some(FsError::Stale));
    assert_eq!(bed.remove(&link).await, Ok(Removal::AlreadyGone));
    // Replaced.
    let mine = bed.file(&top, "y").await;
    let (other, _) = backend.create(&root, &name("z").to_disk(), &CreateHow::file()).await.expect("creates");
    backend
        .rename(&root, &name("z").to_disk(), None, &root, &name("y").to_disk(), true)
        .await
        .expect("renames");
    assert_eq!(bed.vfs.open(&mine, OpenHow::default()).await.err(), Some(FsError::Stale));
    let now = bed.find(&top, "y").await.expect("is there");
    assert_eq!(now.node().key(), other.metadata.key);
    // What is renamed by its link is that object or nothing, also to a name that is taken, in another case, and to its own.
    bed.file(&top, "taken").await;
    for to in ["w", "taken", "Y", "y"] {
        let renamed = bed.rename(&mine, &top, to, false).await;
        assert_eq!(renamed, Err(RenameError::Fs(FsError::NotFound)), "{to}");
    }
    assert!(bed.find(&top, "w").await.is_none());
    // Renamed: the link follows when it is found.
    backend
        .rename(&root, &name("y").to_disk(), None, &root, &name("v").to_disk(), false)
        .await
        .expect("renames");
    let found = bed.find(&top, "v").await.expect("is there");
    assert_eq!(found.node().id(), now.node().id());
    assert!(bed.find(&top, "y").await.is_none());
    assert_eq!(found.name(), Some(name("v")));
}

async fn sees_foreign_moves_of_directories(bed: &Bed) {
    if bed.exclusive() {
        return;
    }
    let top = bed.top();
    let backend = bed.root.backend();
    let root = backend.root().await.expect("tells").node;
    let a = bed.directory(&top, "a").await;
    let b = bed.directory(&a, "b").await;
    let file = bed.file(&b, "file").await;
    backend
        .rename(&root, &name("a").to_disk(), None, &root, &name("c").to_disk(), false)
        .await
        .expect("renames");
    assert_eq!(bed.vfs.resolve_parent(&bed.root, &path("a/b/file")).await.err(), Some(FsError::PathNotFound));
    let parent = bed.vfs.resolve_parent(&bed.root, &path("c/b/file")).await.expect("walks");
    assert_eq!(parent.id(), b.id());
    assert_eq!(bed.path(&file), "/c/b/file");
    // And back, and a new one in its place.
    backend
        .rename(&root, &name("c").to_disk(), None, &root, &name("a").to_disk(), false)
        .await
        .expect("renames");
    backend.create(&root, &name("c").to_disk(), &CreateHow::directory()).await.expect("creates");
    let other = bed.vfs.resolve_parent(&bed.root, &path("c/x")).await.expect("walks");
    assert_ne!(other.id(), a.id());
    let same = bed.vfs.resolve_parent(&bed.root, &path("a/x")).await.expect("walks");
    assert_eq!(same.id(), a.id());
    assert_eq!(bed.path(&file), "/a/b/file");
    // A removal by link does not reach into a directory that somebody moved away.
    backend
        .rename(&root, &name("a").to_disk(), None, &root, &name("d").to_disk(), false)
        .await
        .expect("renames");
    assert_eq!(bed.remove(&file).await, Ok(Removal::AlreadyGone));
    let parent = bed.vfs.resolve_parent(&bed.root, &path("d/b/file")).await.expect("walks");
    assert!(bed.find(&parent, "file").await.is_some());
}

async fn chooses_among_spellings(bed: &Bed) {
    let backend = bed.root.backend();
    if !bed.insensitive() || backend.caps().folds {
        return;
    }
    let top = bed.top();
    let root = backend.root().await.expect("tells").node;
    for spelled in ["Foo", "foo", "fOO"] {
        backend.create(&root, &name(spelled).to_disk(), &CreateHow::file()).await.expect("creates");
    }
    // The exact spelling, or else the first.
    for spelled in ["foo", "Foo", "fOO"] {
        let link = bed.find(&top, spelled).await.expect("is there");
        assert_eq!(link.name(), Some(name(spelled)));
    }
    assert!(bed.find(&top, "FOO").await.is_some());
    // A change of case alone meets the others.
    let link = bed.find(&top, "foo").await.expect("is there");
    assert_eq!(bed.rename(&link, &top, "FOO", false).await, Err(RenameError::Fs(FsError::Exists)));
    // Removing one leaves the others.
    assert_eq!(bed.remove(&link).await, Ok(Removal::Removed));
    let rest = bed.find(&top, "foo").await.expect("another spelling is there");
    assert_ne!(rest.name(), Some(name("foo")));
    assert_eq!(bed.remove(&rest).await, Ok(Removal::Removed));
    let last = bed.find(&top, "foo").await.expect("the last spelling is there");
    assert_eq!(bed.remove(&last).await, Ok(Removal::Removed));
    assert!(bed.find(&top, "foo").await.is_none());
    assert!(bed.list(&top).await.is_empty());
}

async fn stays_within_its_bound(bed: &Bed) {
    let vfs = Vfs::<u32>::new(Options { names_max: 100, ..Options::default() });
    let root = vfs.mount(Arc::clone(bed.root.backend()), bed.root.fold()).await.expect("mounts");
    let top = Arc::clone(root.link().node());
    let Creation::Created { link: dir, .. } =
        vfs.create(&top, &name("deep"), CreateHow::directory(), |_, _| ()).await.expect("creates")
    else {
        panic!("exists")
    };
    let mut held = Vec::new();
    for i in 0..500 {
        let created = vfs.create(dir.node(), &name(&format!("n{i}")), CreateHow::file(), |_, _| ()).await;
        let Ok(Creation::Created { link, .. }) = created else { panic!("does not create") };
        if i % 50 == 0 {
            link.node().opens().attach(&link).expect("opens");
            held.push((i, link));
        }
        let counters = vfs.counters();
        assert!(counters.names <= 120 && counters.nodes <= 150, "{counters:?}");
    }
    for (i, link) in held {
        let found = vfs.lookup_one(dir.node(), &name(&format!("n{i}"))).await.expect("looks up");
        assert!(Arc::ptr_eq(&found.expect("is there"), &link), "a link in use is found as itself");
        assert_eq!(link.node().opens().open_count(&link), 1);
        assert_eq!(link.path().len(), 2);
    }
    assert!(vfs.counters().evictions >= 300);
}

macro_rules! suite {
    ($($backend:ident: $bed:expr,)*) => { $(mod $backend {
        use super::*;
        tests! { $bed => creates_and_finds publishes_before_anybody_sees reads_and_writes keeps_metadata walks
            removes_with_the_last_close an_open_file_outlives_its_name removes_directories renames renames_case_only
            replaces moves_directories links lists_each_name_once one_creator_wins
            a_dropped_request_does_not_stop_its_change opens_by_link sees_foreign_changes
            sees_foreign_moves_of_directories chooses_among_spellings stays_within_its_bound }
    })* };
}

macro_rules! tests {
    ($bed:expr => $($test:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let bed = $bed.await;
            super::$test(&bed).await;
            bed.vfs.quiesce().await;
        }
    )* };
}

suite! {
    memory: Bed::memory(Fold::Insensitive, Fold::Insensitive, true),
    memory_sensitive: Bed::memory(Fold::Sensitive, Fold::Sensitive, true),
    memory_of_many_spellings: Bed::memory(Fold::Sensitive, Fold::Insensitive, true),
    shared_memory: Bed::memory(Fold::Insensitive, Fold::Insensitive, false),
    shared_memory_sensitive: Bed::memory(Fold::Sensitive, Fold::Sensitive, false),
    shared_memory_of_many_spellings: Bed::memory(Fold::Sensitive, Fold::Insensitive, false),
    local_insensitive: Bed::local(Fold::Insensitive),
    local_sensitive: Bed::local(Fold::Sensitive),
    slow: Bed::slow(),
    locking_directories: Bed::locking_directories(),
}

/// Two shares of which one lies in the other see each other's objects, opens and pending deletions.
#[tokio::test]
async fn overlapping_shares_are_one_tree() {
    let outer = Bed::local(Fold::Insensitive).await;
    let sub = outer.make(&outer.top(), "sub", CreateHow::directory()).await.0;
    let scratch = outer.scratch.clone().expect("a scratch directory").join("sub");
    let backend = Arc::new(Local::open(&scratch, local::Options::default()).expect("opens"));
    let inner = outer.vfs.mount(backend, Fold::Insensitive).await.expect("mounts");
    assert!(Arc::ptr_eq(inner.link().node(), sub.node()));
    let made = outer.file(sub.node(), "x").await;
    let found =
        outer.vfs.lookup_one(inner.link().node(), &name("X")).await.expect("looks up").expect("is there");
    assert!(Arc::ptr_eq(&made, &found));
    assert_eq!(outer.path(&made), "/sub/x");
    assert_eq!(outer.vfs.path(&inner, &made), Some(vec![name("x")]));
    assert_eq!(outer.vfs.path(&inner, &outer.root.link()), None);
    // A share's root is neither moved nor removed through the other.
    assert_eq!(
        outer.rename(&sub, &outer.top(), "moved", false).await,
        Err(RenameError::Fs(FsError::AccessDenied))
    );
    assert_eq!(outer.remove(&sub).await, Err(FsError::AccessDenied));
    // What is known of a root that is first reached from its own share.
    let deep = outer.make(sub.node(), "deep", CreateHow::directory()).await.0;
    drop(deep);
    let backend = Arc::new(Local::open(&scratch.join("deep"), local::Options::default()).expect("opens"));
    let deepest = outer.vfs.mount(backend, Fold::Insensitive).await.expect("mounts");
    let (file, _) = outer.make(deepest.link().node(), "y", CreateHow::file()).await;
    let walked = outer.vfs.resolve_parent(&outer.root, &path("sub/deep/y")).await.expect("walks");
    assert!(Arc::ptr_eq(&walked, deepest.link().node()));
    assert_eq!(outer.path(&file), "/sub/deep/y");
    assert_eq!(outer.remove(&file).await, Ok(Removal::Removed));
}

/// The claim of the design: over a storage that takes its time, changes in one directory take it side by side.
#[tokio::test(start_paused = true)]
async fn one_directory_is_no_queue() {
    const DELAY: Duration = Duration::from_millis(5);
    const CLIENTS: usize = 256;
    let delays = |since: tokio::time::Instant| since.elapsed().as_secs_f64() / DELAY.as_secs_f64();
    for plan in [Plan::Claims, Plan::DirectoryLock] {
        let slow = Latency::new(Memory::new(MemoryOptions::default()), DELAY);
        let bed = Bed::of(Arc::new(slow), Fold::Insensitive, Options { plan, ..Options::default() }).await;
        let top = bed.top();
        let together = |each: Box<dyn Fn(usize) -> tokio::task::JoinHandle<()>>| async move {
            let start = tokio::time::Instant::now();
            let tasks: Vec<_> = (0..CLIENTS).map(each).collect();
            for task in tasks {
                task.await.expect("ends");
            }
            delays(start)
        };
        let (vfs, dir) = (Arc::clone(&bed.vfs), Arc::clone(&top));
        let creates = together(Box::new(move |i| {
            let (vfs, dir) = (Arc::clone(&vfs), Arc::clone(&dir));
            tokio::spawn(async move {
                let made = vfs.create(&dir, &name(&format!("n{i}")), CreateHow::file(), |_, _| ()).await;
                assert!(matches!(made, Ok(Creation::Created { .. })));
            })
        }))
        .await;
        let (vfs, dir) = (Arc::clone(&bed.vfs), Arc::clone(&top));
        let renames = together(Box::new(move |i| {
            let (vfs, dir) = (Arc::clone(&vfs), Arc::clone(&dir));
            tokio::spawn(async move {
                let link =
                    vfs.lookup_one(&dir, &name(&format!("n{i}"))).await.expect("looks up").expect("is there");
                let to = name(&format!("m{i}"));
                vfs.rename(&link, &dir, &to, false, |_| Ok::<_, ()>(())).await.expect("renames");
            })
        }))
        .await;
        let (vfs, dir) = (Arc::clone(&bed.vfs), Arc::clone(&top));
        let removals = together(Box::new(move |i| {
            let (vfs, dir) = (Arc::clone(&vfs), Arc::clone(&dir));
            tokio::spawn(async move {
                let link =
                    vfs.lookup_one(&dir, &name(&format!("m{i}"))).await.expect("looks up").expect("is there");
                link.node().opens().set_delete_pending(&link, true);
                assert_eq!(vfs.remove_link(&link).await, Ok(Removal::Removed));
            })
        }))
        .await;
        match plan {
            Plan::Claims => {
                assert!(
                    creates <= 3.0 && renames <= 3.0 && removals <= 2.0,
                    "{creates} {renames} {removals} delays"
                );
            }
            Plan::DirectoryLock => assert!(creates >= 500.0, "{creates} delays: no directory lock"),
        }
    }
}

/// A change that panics in its own task lets go of its names.
#[tokio::test]
async fn a_panic_lets_go() {
    let slow = Latency::new(Memory::new(MemoryOptions::default()), Duration::from_micros(200));
    let bed = Bed::of(Arc::new(slow), Fold::Insensitive, Options::default()).await;
    let top = bed.top();
    let x = name("x");
    let made = bed.vfs.create(&top, &x, CreateHow::file(), |_, _| -> () { panic!("on purpose") }).await;
    assert_eq!(made.err(), Some(FsError::Indeterminate));
    bed.vfs.quiesce().await;
    // The file was made, and nobody knew: it is found.
    let made = bed.vfs.create(&top, &x, CreateHow::file(), |_, _| ()).await.expect("answers");
    assert!(matches!(made, Creation::Exists(_)));
}
