//! What only the real file system can show: links and special files, names that are no text, outsiders, descriptors given back, what is
//! stored on the disk, and how many system calls each operation takes.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use bytes::Bytes;

use super::*;
use crate::backend::Change;
use crate::metadata::{DosAttributes, SetMetadata, Timestamp};
use crate::xattr::DOS_ATTRIBUTES;
use crate::{Creation, Link, Node, Removal, Root, Vfs};

/// A directory that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("shoal-vfs-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    async fn serve(&self) -> Share {
        Share::of(&self.0).await
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Share {
    local: Local,
    root: BackendNode,
}

impl Share {
    async fn of(path: &Path) -> Share {
        let local = Local::open(path, Options::default()).unwrap();
        let root = local.root().await.unwrap();
        assert_eq!(root.metadata.kind, Kind::Directory);
        Share { local, root: root.node }
    }

    async fn find(&self, name: &str) -> NodeInfo {
        self.local.lookup(&self.root, &disk(name)).await.unwrap().unwrap()
    }

    async fn open(&self, name: &str, read: bool, write: bool) -> Arc<dyn BackendFile> {
        let expect = self.find(name).await.metadata.key;
        self.local.open(Some(&self.root), &disk(name), &expect, OpenHow { read, write }).await.unwrap()
    }

    async fn create(&self, name: &str) -> (NodeInfo, Arc<dyn BackendFile>) {
        self.local.create(&self.root, &disk(name), &CreateHow::file()).await.unwrap()
    }

    async fn mkdir(&self, dir: &BackendNode, name: &str) -> BackendNode {
        self.local.create(dir, &disk(name), &CreateHow::directory()).await.unwrap().0.node
    }
}

fn disk(name: &str) -> DiskName {
    DiskName::new(name.as_bytes())
}

const READ: OpenHow = OpenHow { read: true, write: false };
const ATTRIBUTES: OpenHow = OpenHow { read: false, write: false };

#[tokio::test]
async fn files_come_and_go() {
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    let (info, file) = share.create("a").await;
    assert_eq!((info.metadata.kind, info.metadata.size, info.metadata.dos), (Kind::File, 0, None));
    assert_eq!(file.write_at(3, Bytes::from_static(b"hello")).await, Ok(5));
    file.flush().await.unwrap();
    assert_eq!(file.read_at(0, 100).await.unwrap(), &b"\0\0\0hello"[..]);
    assert_eq!(file.read_at(8, 1).await.unwrap(), Bytes::new());
    assert_eq!(file.read_at(u64::MAX, 1).await.unwrap(), Bytes::new());
    assert_eq!(file.read_at(i64::MAX as u64 - 1, 100).await.unwrap(), Bytes::new());
    assert_eq!(file.write_at(i64::MAX as u64, Bytes::from_static(b"x")).await, Err(FsError::FileTooLarge));
    assert_eq!(fs::read(scratch.path("a")).unwrap(), b"\0\0\0hello");
    let again = share.local.create(&share.root, &disk("a"), &CreateHow::file()).await;
    assert_eq!(again.map(drop), Err(FsError::Exists));

    let dir = share.mkdir(&share.root, "d").await;
    share.local.rename(&share.root, &disk("a"), None, &dir, &disk("b"), false).await.unwrap();
    let moved = share.local.lookup(&dir, &disk("b")).await.unwrap().unwrap();
    assert_eq!(moved.metadata.key, info.metadata.key);
    assert_eq!(moved.metadata.size, 8);
    let key = share.find("d").await.metadata.key;
    assert_eq!(share.local.rmdir(&share.root, &disk("d"), &key).await, Err(FsError::NotEmpty));
    assert_eq!(share.local.unlink(&share.root, &disk("d"), &key).await, Err(FsError::IsADirectory));
    share.local.unlink(&dir, &disk("b"), &moved.metadata.key).await.unwrap();
    assert_eq!(share.local.unlink(&dir, &disk("b"), &moved.metadata.key).await, Err(FsError::NotFound));
    assert_eq!(file.metadata().await.unwrap().links, 0);
    assert_eq!(file.read_at(3, 5).await.unwrap(), &b"hello"[..], "an open file outlives its name");
    share.local.rmdir(&share.root, &disk("d"), &key).await.unwrap();
    assert!(share.local.lookup(&share.root, &disk("d")).await.unwrap().is_none());
}

#[tokio::test]
async fn renames_and_links_replace_only_when_told() {
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    let (a, file) = share.create("a").await;
    share.create("b").await;
    let root = &share.root;
    assert_eq!(
        share.local.rename(root, &disk("a"), None, root, &disk("b"), false).await,
        Err(FsError::Exists)
    );
    share.local.rename(root, &disk("a"), None, root, &disk("b"), true).await.unwrap();
    assert_eq!(share.find("b").await.metadata.key, a.metadata.key);

    share.create("c").await;
    assert_eq!(share.local.link(&*file, root, &disk("c"), false).await, Err(FsError::Exists));
    for _ in 0..2 {
        share.local.link(&*file, root, &disk("c"), true).await.unwrap();
        assert_eq!(share.find("c").await.metadata.key, a.metadata.key);
        assert_eq!(share.find("c").await.metadata.links, 2);
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 2, "no passing name stays behind");
    }
    let dir = share.mkdir(root, "d").await;
    let below = share.mkdir(&dir, "e").await;
    assert_eq!(
        share.local.rename(root, &disk("d"), None, &below, &disk("f"), false).await,
        Err(FsError::Invalid)
    );
    let handle = share.open("d", true, false).await;
    assert_eq!(share.local.link(&*handle, root, &disk("g"), false).await, Err(FsError::IsADirectory));
}

#[tokio::test]
async fn a_name_that_means_another_object_is_stale() {
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    let (info, _) = share.create("a").await;
    let key = info.metadata.key;
    // The new file most likely has the old one's inode number.
    fs::remove_file(scratch.path("a")).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    fs::write(scratch.path("a"), "other").unwrap();
    let open = share.local.open(Some(&share.root), &disk("a"), &key, READ).await;
    assert_eq!(open.map(drop), Err(FsError::Stale));
    assert_eq!(share.local.unlink(&share.root, &disk("a"), &key).await, Err(FsError::Stale));
    assert!(scratch.path("a").exists());
    for replacement in ["link", "directory", "fifo"] {
        fs::remove_file(scratch.path("a")).unwrap();
        match replacement {
            "link" => symlink("/etc/passwd", scratch.path("a")).unwrap(),
            "directory" => fs::create_dir(scratch.path("a")).unwrap(),
            _ => rustix::fs::mkfifoat(rustix::fs::CWD, scratch.path("a"), 0o666.into()).unwrap(),
        }
        for how in [READ, OpenHow { read: true, write: true }, ATTRIBUTES] {
            let open = share.local.open(Some(&share.root), &disk("a"), &key, how).await;
            assert_eq!(open.map(drop), Err(FsError::Stale), "{replacement} {how:?}");
        }
        if replacement == "directory" {
            fs::remove_dir(scratch.path("a")).unwrap();
            fs::write(scratch.path("a"), "").unwrap();
        }
    }
}

#[tokio::test]
async fn special_files_are_refused_at_once() {
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    rustix::fs::mkfifoat(rustix::fs::CWD, scratch.path("fifo"), 0o666.into()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(scratch.path("socket")).unwrap();
    symlink("/etc/passwd", scratch.path("link")).unwrap();
    symlink("/etc", scratch.path("dirlink")).unwrap();
    for (name, kind, error) in [
        ("fifo", Kind::Special, FsError::SpecialFile),
        ("socket", Kind::Special, FsError::SpecialFile),
        ("link", Kind::Symlink, FsError::Symlink),
        ("dirlink", Kind::Symlink, FsError::Symlink),
    ] {
        let info = share.find(name).await;
        assert_eq!(info.metadata.kind, kind, "{name}");
        let key = info.metadata.key;
        for how in [READ, OpenHow { read: false, write: true }, OpenHow { read: true, write: true }] {
            let open = share.local.open(Some(&share.root), &disk(name), &key, how).await;
            assert_eq!(open.map(drop), Err(error.clone()), "{name}");
        }
        // Its attributes may be asked for, and its name taken away.
        let open = share.local.open(Some(&share.root), &disk(name), &key, ATTRIBUTES).await.unwrap();
        assert_eq!(open.metadata().await.unwrap().key, key);
        if kind == Kind::Symlink {
            assert!(open.readlink().await.unwrap().starts_with(b"/etc"));
        }
        assert_eq!(share.local.lookup(&info.node, &disk("x")).await.map(drop), Err(FsError::NotADirectory));
        share.local.unlink(&share.root, &disk(name), &key).await.unwrap();
    }
}

/// attacks.md 24: a link to another directory is swapped in and out while a client goes through the name.
#[tokio::test]
async fn a_swapped_link_leads_nowhere() {
    let scratch = Scratch::new();
    let outside = Scratch::new();
    fs::write(outside.path("secret"), "outside").unwrap();
    let outside_inode = fs::metadata(outside.path("secret")).unwrap().ino();
    fs::create_dir(scratch.path("real")).unwrap();
    fs::write(scratch.path("real/secret"), "inside").unwrap();
    symlink(&outside.0, scratch.path("link")).unwrap();
    let share = scratch.serve().await;
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (stop, real, link, name) =
            (stop.clone(), scratch.path("real"), scratch.path("link"), scratch.path("name"));
        move || {
            while !stop.load(Relaxed) {
                fs::rename(&real, &name).unwrap();
                fs::rename(&name, &real).unwrap();
                fs::rename(&link, &name).unwrap();
                fs::rename(&name, &link).unwrap();
            }
        }
    });
    let (mut inside, mut links) = (0, 0);
    let begin = std::time::Instant::now();
    let (short, long) = (Duration::from_millis(500), Duration::from_secs(60));
    // On a busy machine it may be long until both were met.
    while begin.elapsed() < short || (inside == 0 || links == 0) && begin.elapsed() < long {
        let Ok(Some(info)) = share.local.lookup(&share.root, &disk("name")).await else { continue };
        if info.metadata.kind == Kind::Symlink {
            links += 1;
            continue;
        }
        let secret = share.local.lookup(&info.node, &disk("secret")).await.unwrap().unwrap();
        let file =
            share.local.open(Some(&info.node), &disk("secret"), &secret.metadata.key, READ).await.unwrap();
        assert_ne!(file.metadata().await.unwrap().key.inode, outside_inode);
        assert_eq!(file.read_at(0, 10).await.unwrap(), &b"inside"[..]);
        inside += 1;
    }
    stop.store(true, Relaxed);
    swapper.join().unwrap();
    assert!(inside > 0 && links > 0, "{inside} {links}");
}

#[tokio::test]
async fn any_disk_name_can_be_reached() {
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    let names: [&[u8]; 8] = [
        b"caf\xe9",
        b"a:b",
        b"tail.",
        b"tail ",
        b"\xff\xfe",
        "\u{f03a}".as_bytes(),
        b"\x01",
        b"\xed\xa0\x80",
    ];
    for name in names {
        fs::write(scratch.0.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let listing = share.local.open(None, &disk("x"), &share.root_key().await, READ).await.unwrap();
    let listed = listing.read_dir(0, 100, false).await.unwrap();
    assert_eq!(listed.len(), names.len());
    for entry in listed {
        // As a client does: the name from the listing, through UTF-16, in another case.
        let name = Name::from_utf16(&entry.name.to_utf16()).unwrap();
        let info = share.local.lookup(&share.root, &name.to_disk()).await.unwrap().unwrap();
        let file =
            share.local.open(Some(&share.root), &name.to_disk(), &info.metadata.key, READ).await.unwrap();
        assert_eq!(file.read_at(0, 100).await.unwrap(), name.to_disk().as_bytes());
        let shouted: Vec<u16> = name.to_utf16().into_iter().map(crate::fold::upcase).collect();
        let shouted = Name::from_utf16(&shouted).unwrap();
        let found = share.local.lookup_folded(&share.root, &shouted, &Fold::Insensitive).await.unwrap();
        assert_eq!(found.iter().map(|(disk, _)| disk.clone()).collect::<Vec<_>>(), [name.to_disk()]);
    }
}

impl Share {
    async fn root_key(&self) -> BackendKey {
        self.local.root().await.unwrap().metadata.key
    }
}

#[tokio::test]
async fn every_spelling_is_found() {
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    for name in ["Foo", "foo", "FOO2", "bar"] {
        fs::write(scratch.path(name), "").unwrap();
    }
    let found = |name: &'static str, fold: Fold| {
        let share = &share;
        async move {
            let name = Name::from_str(name).unwrap();
            let mut found: Vec<String> = share
                .local
                .lookup_folded(&share.root, &name, &fold)
                .await
                .unwrap()
                .into_iter()
                .map(|(disk, _)| disk.to_string())
                .collect();
            found.sort();
            found
        }
    };
    assert_eq!(found("fOO", Fold::Insensitive).await, ["Foo", "foo"]);
    assert_eq!(found("BAR", Fold::Insensitive).await, ["bar"]);
    assert!(found("nobody", Fold::Insensitive).await.is_empty());
    assert!(found("fOO", Fold::Sensitive).await.is_empty());
    assert_eq!(found("Foo", Fold::Sensitive).await, ["Foo"]);
    let name = Name::from_str(&"x".repeat(255)).unwrap();
    assert!(share.local.lookup(&share.root, &name.to_disk()).await.unwrap().is_none());
    let long = Name::from_str(&"ä".repeat(255)).unwrap();
    assert_eq!(share.local.lookup(&share.root, &long.to_disk()).await.map(drop), Err(FsError::NameTooLong));
}

/// A directory behind the cache.
struct Cached {
    vfs: Arc<Vfs<()>>,
    root: Root<()>,
}

impl Cached {
    async fn of(scratch: &Scratch) -> Cached {
        let vfs = Vfs::new(crate::Options::default());
        let local = Local::open(&scratch.0, Options::default()).unwrap();
        let root = vfs.mount(Arc::new(local), Fold::Insensitive).await.unwrap();
        Cached { vfs, root }
    }

    fn top(&self) -> Arc<Node<()>> {
        self.root.link().node().clone()
    }

    /// How the name is spelled on the disk, if it is there.
    async fn spelled(&self, name: &str) -> Option<String> {
        let name = Name::from_str(name).unwrap();
        let found = self.vfs.lookup_one(&self.top(), &name).await.unwrap()?;
        found.name().map(|name| name.to_string())
    }

    /// The same, and whether the directory was read for it.
    async fn searched(&self, name: &str) -> (Option<String>, bool) {
        sys::take_calls();
        let found = self.spelled(name).await;
        (found, sys::take_calls().contains(&"getdents64"))
    }

    async fn make(&self, name: &str) -> Arc<Link<()>> {
        let name = Name::from_str(name).unwrap();
        match self.vfs.create(&self.top(), &name, CreateHow::file(), |_, _| ()).await.unwrap() {
            Creation::Created { link, .. } => link,
            Creation::Exists(_) => panic!("{name} exists"),
        }
    }
}

/// Many more changes than the kernel keeps, of a name that is there in the end.
fn flood(path: &Path) {
    for _ in 0..9000 {
        fs::write(path, "").unwrap();
        fs::remove_file(path).unwrap();
    }
    fs::write(path, "").unwrap();
}

#[tokio::test]
async fn an_index_misses_nothing_that_outsiders_do() {
    let _alone = ALONE.lock().await;
    let scratch = Scratch::new();
    for number in 0..3000 {
        fs::write(scratch.path(&format!("File{number}")), "").unwrap();
    }
    let share = Cached::of(&scratch).await;
    let known = |name: &str| (Some(name.to_owned()), false);
    assert_eq!(share.searched("fILE7").await.0.as_deref(), Some("File7"));
    assert_eq!(share.searched("absent").await, (None, true));
    assert_eq!(share.searched("absent2").await, (None, false), "the third search is none");
    assert_eq!(share.searched("fILE2999").await, known("File2999"));
    fs::write(scratch.path("ABSENT"), "").unwrap();
    fs::create_dir(scratch.path("Absent2")).unwrap();
    assert_eq!(share.searched("absent").await, known("ABSENT"));
    assert_eq!(share.searched("absent2").await, known("Absent2"));
    fs::rename(scratch.path("ABSENT"), scratch.path("elsewhere")).unwrap();
    fs::hard_link(scratch.path("elsewhere"), scratch.path("ELSEWHERE")).unwrap();
    fs::remove_dir(scratch.path("Absent2")).unwrap();
    assert_eq!(share.searched("absent").await, (None, false));
    assert_eq!(share.searched("absent2").await, (None, false));
    assert_eq!(share.searched("elsewhere").await, known("elsewhere"));
    assert_eq!(share.searched("ELSEWHERE").await, known("ELSEWHERE"));
    assert_eq!(share.searched("elseWhere").await, known("ELSEWHERE"), "the first of both");
    fs::remove_file(scratch.path("ELSEWHERE")).unwrap();
    assert_eq!(share.searched("ELSEWHERE").await, known("elsewhere"));
    share.make("Ours").await;
    assert_eq!(share.searched("oURS").await, known("Ours"));
    assert_eq!(share.vfs.counters().index_fills, 1);

    flood(&scratch.path("flood"));
    fs::write(scratch.path("After"), "").unwrap();
    assert_eq!(share.spelled("aFTER").await.as_deref(), Some("After"));
    assert_eq!(share.spelled("FLOOD").await.as_deref(), Some("flood"));
    assert_eq!(share.spelled("absent").await, None);
}

/// While an outsider makes and removes names, each of them is seen as soon as his call has returned; also while the index is being made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_right_at_each_moment() {
    let scratch = Scratch::new();
    for number in 0..2000 {
        fs::write(scratch.path(&format!("filler-{number}")), "").unwrap();
    }
    for round in 0..20 {
        // A new share: its index is made anew.
        let share = Cached::of(&scratch).await;
        let stop = Arc::new(AtomicBool::new(false));
        let noise = std::thread::spawn({
            let (stop, path) = (stop.clone(), scratch.path("Noise"));
            move || {
                while !stop.load(Relaxed) {
                    fs::write(&path, "").unwrap();
                    fs::remove_file(&path).unwrap();
                }
            }
        });
        for step in 0..20 {
            let name = format!("Name-{round}-{step}");
            fs::write(scratch.path(&name), "").unwrap();
            assert_eq!(share.spelled(&name.to_uppercase()).await.as_deref(), Some(&*name));
            fs::rename(scratch.path(&name), scratch.path(&name.to_lowercase())).unwrap();
            assert_eq!(share.spelled(&name.to_uppercase()).await, Some(name.to_lowercase()));
            fs::remove_file(scratch.path(&name.to_lowercase())).unwrap();
            assert!(share.spelled(&name.to_uppercase()).await.is_none());
        }
        stop.store(true, Relaxed);
        noise.join().unwrap();
    }
}

#[tokio::test]
async fn a_huge_directory_in_slices() {
    const FILES: usize = 5000;
    let scratch = Scratch::new();
    for number in 0..FILES {
        fs::write(scratch.path(&format!("file-{number:05}")), "").unwrap();
    }
    let share = scratch.serve().await;
    let key = share.root_key().await;
    for (max, metadata) in [(1, false), (7, true), (1000, false), (100_000, true)] {
        let dir = share.local.open(None, &disk("x"), &key, READ).await.unwrap();
        let mut seen = std::collections::HashSet::new();
        let mut cookie = 0;
        let mut slices = 0;
        loop {
            let entries = dir.read_dir(cookie, max, metadata).await.unwrap();
            let Some(last) = entries.last() else { break };
            assert!(entries.len() <= max);
            cookie = last.cookie;
            for entry in entries {
                assert_eq!(entry.kind, Some(Kind::File));
                assert_eq!(entry.metadata.is_some(), metadata);
                // Others come and go while we read.
                if slices % 50 == 0 && seen.is_empty() {
                    fs::write(scratch.path("newcomer"), "").unwrap();
                    fs::remove_file(scratch.path("newcomer")).unwrap();
                }
                let name = entry.name.to_string();
                assert!(name == "newcomer" || seen.insert(name), "told twice: {}", entry.name);
            }
            slices += 1;
        }
        assert_eq!(seen.len(), FILES, "in slices of {max}");
        assert!(dir.read_dir(cookie, max, metadata).await.unwrap().is_empty(), "the end stays the end");
        assert_eq!(dir.read_dir(0, 10, false).await.unwrap().len(), 10, "and from the start again");
    }
    // A position survives the handle.
    let dir = share.local.open(None, &disk("x"), &key, READ).await.unwrap();
    let first = dir.read_dir(0, 100, false).await.unwrap();
    let second = dir.read_dir(first[99].cookie, 100, false).await.unwrap();
    let again = share.local.open(None, &disk("x"), &key, READ).await.unwrap();
    let resumed = again.read_dir(first[99].cookie, 100, false).await.unwrap();
    let names =
        |entries: &[crate::backend::DirEntry]| entries.iter().map(|e| e.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&resumed), names(&second));
    let back = again.read_dir(first[49].cookie, 50, false).await.unwrap();
    assert_eq!(names(&back), names(&first[50..]));
}

#[tokio::test]
async fn dos_attributes_are_kept_beside_the_file() {
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    let dos = DosAttributes { attributes: 0x22, creation_time: Some(Timestamp::new(1_000_000_000, 100)) };
    let how = CreateHow { dos: Some(dos), ..CreateHow::file() };
    let (info, file) = share.local.create(&share.root, &disk("hidden"), &how).await.unwrap();
    assert_eq!(info.metadata.dos, Some(dos));
    assert_eq!(share.find("hidden").await.metadata.dos, Some(dos));
    assert_eq!(file.metadata().await.unwrap().dos, Some(dos));

    // What another handle stores is seen at once, however often this one has looked.
    let other = share.open("hidden", false, false).await;
    for attributes in [0, 1, 2, 3, 0x20, 0x21] {
        let dos = DosAttributes { attributes, creation_time: None };
        other.set_metadata(&SetMetadata { dos: Some(dos), ..SetMetadata::default() }).await.unwrap();
        for _ in 0..2 {
            assert_eq!(file.metadata().await.unwrap().dos, Some(dos));
            assert_eq!(other.metadata().await.unwrap().dos, Some(dos));
        }
        assert_eq!(share.find("hidden").await.metadata.dos, Some(dos));
    }
    let how = CreateHow { dos: Some(dos), ..CreateHow::directory() };
    let (info, dir) = share.local.create(&share.root, &disk("dir"), &how).await.unwrap();
    assert_eq!(info.metadata.dos, Some(dos));
    let stored = dir.get_xattr(DOS_ATTRIBUTES).await.unwrap().unwrap();
    assert_eq!(stored[12], 0x32, "a directory says so");
    let by_path = share.open("dir", false, false).await;
    assert_eq!(by_path.metadata().await.unwrap().dos, Some(dos));
    for attributes in [1, 2] {
        let dos = DosAttributes { attributes, creation_time: None };
        by_path.set_metadata(&SetMetadata { dos: Some(dos), ..SetMetadata::default() }).await.unwrap();
        assert_eq!(share.find("dir").await.metadata.dos, Some(dos));
        assert_eq!(dir.metadata().await.unwrap().dos, Some(dos));
    }
    dir.set_xattr(DOS_ATTRIBUTES, b"garbage").await.unwrap();
    assert_eq!(share.find("dir").await.metadata.dos, None);
    let plain = share.create("plain").await.0;
    assert_eq!(plain.metadata.dos, None);
    assert_eq!(share.find("plain").await.metadata.dos, None);
}

/// That nothing is stored of a file is remembered as well, and only for as long as it is true.
#[tokio::test]
async fn a_plain_file_may_get_attributes() {
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    let dir = share.local.open(None, &disk("x"), &share.root_key().await, READ).await.unwrap();
    for number in 0..50 {
        let name = format!("plain-{number}");
        let (_, file) = share.create(&name).await;
        let dos = DosAttributes { attributes: number % 4, creation_time: None };
        for stored in [None, Some(dos), None] {
            match stored {
                Some(dos) => {
                    let set = SetMetadata { dos: Some(dos), ..SetMetadata::default() };
                    file.set_metadata(&set).await.unwrap();
                }
                None => file.set_xattr(DOS_ATTRIBUTES, b"garbage").await.unwrap(),
            }
            for _ in 0..2 {
                assert_eq!(share.find(&name).await.metadata.dos, stored);
                assert_eq!(file.metadata().await.unwrap().dos, stored);
                let listed = dir.read_dir(0, 100, true).await.unwrap();
                let entry = listed.iter().find(|entry| entry.name.to_disk() == disk(&name)).unwrap();
                assert_eq!(entry.metadata.as_ref().unwrap().dos, stored);
            }
        }
    }
}

#[tokio::test]
async fn a_handle_for_attributes_can_change_them_all() {
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    fs::write(scratch.path("f"), "12345").unwrap();
    fs::create_dir(scratch.path("d")).unwrap();
    for name in ["f", "d"] {
        let handle = share.open(name, false, false).await;
        let set = SetMetadata {
            accessed: Some(Timestamp::new(-5, 1)),
            modified: Some(Timestamp::new(7, 999_999_999)),
            mode: Some(0o700),
            ..SetMetadata::default()
        };
        handle.set_metadata(&set).await.unwrap();
        let now = handle.metadata().await.unwrap();
        assert_eq!((now.accessed, now.modified), (Timestamp::new(-5, 1), Timestamp::new(7, 999_999_999)));
        assert_eq!(now.mode, 0o700);
        assert_eq!(fs::metadata(scratch.path(name)).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(handle.get_xattr("user.a").await, Ok(None));
        let value = vec![7; 3000];
        handle.set_xattr("user.a", &value).await.unwrap();
        assert_eq!(handle.get_xattr("user.a").await, Ok(Some(value)));
        assert_eq!(handle.list_xattrs().await, Ok(vec!["user.a".to_owned()]));
        handle.remove_xattr("user.a").await.unwrap();
        handle.remove_xattr("user.a").await.unwrap();
        assert_eq!(handle.list_xattrs().await, Ok(vec![]));
        assert_eq!(handle.set_xattr("user.\0", b"").await, Err(FsError::InvalidName));
        assert_eq!(handle.read_at(0, 1).await, Err(FsError::AccessDenied));
    }
    let file = share.open("f", false, false).await;
    file.set_metadata(&SetMetadata { size: Some(2), ..SetMetadata::default() }).await.unwrap();
    let reader = share.open("f", true, false).await;
    assert_eq!(reader.read_at(0, 9).await.unwrap(), &b"12"[..]);
    assert_eq!(reader.write_at(0, Bytes::from_static(b"x")).await, Err(FsError::AccessDenied));
    reader.set_metadata(&SetMetadata { size: Some(1), ..SetMetadata::default() }).await.unwrap();
    assert_eq!(file.metadata().await.unwrap().size, 1);
    let huge = SetMetadata { size: Some(u64::MAX), ..SetMetadata::default() };
    assert_eq!(reader.set_metadata(&huge).await, Err(FsError::Invalid));
}

#[tokio::test]
async fn holes() {
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    let (_, file) = share.create("f").await;
    let block = Bytes::from(vec![1; 64 << 10]);
    for offset in [0, 1 << 20, 2 << 20] {
        file.write_at(offset, block.clone()).await.unwrap();
    }
    let ranges = [(0, 64 << 10), (1 << 20, 64 << 10), (2 << 20, 64 << 10)];
    assert_eq!(file.allocated_ranges(0, u64::MAX).await.unwrap(), ranges);
    assert_eq!(file.allocated_ranges(1 << 20, 4096).await.unwrap(), [(1 << 20, 4096)]);
    assert_eq!(file.allocated_ranges(2 << 30, 4096).await.unwrap(), []);
    file.punch(1 << 20, 64 << 10).await.unwrap();
    assert_eq!(file.allocated_ranges(0, u64::MAX).await.unwrap(), [ranges[0], ranges[2]]);
    file.zero_range(0, 10).await.unwrap();
    file.zero_range(2 << 20, u64::MAX).await.unwrap();
    file.punch(u64::MAX, 10).await.unwrap();
    let start = file.read_at(0, 11).await.unwrap();
    assert_eq!(start, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..]);
    assert!(file.read_at(2 << 20, 64 << 10).await.unwrap().iter().all(|byte| *byte == 0));
    let size = file.metadata().await.unwrap().size;
    assert_eq!(size, (2 << 20) + (64 << 10), "neither changes the length");
    file.allocate(8 << 20).await.unwrap();
    assert_eq!(file.metadata().await.unwrap().size, size);
    assert!(file.metadata().await.unwrap().allocated >= 8 << 20);
}

/// Tests that look at all directories of the process, or count, must not meet.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn idle_directories_give_their_descriptors_back() {
    let _alone = ALONE.lock().await;
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    let mut chain = vec![share.root.clone()];
    for depth in 0..50 {
        let dir = share.mkdir(&chain[depth], "d").await;
        chain.push(dir);
    }
    let deepest = &chain[50];
    let held = directory(deepest).unwrap();
    assert!(inode::give_back(usize::MAX) >= 50);
    assert!(!held.is_open());
    let how = CreateHow::file();
    share.local.create(deepest, &disk("f"), &how).await.unwrap();
    assert!(held.is_open());
    assert!(scratch.path(&"d/".repeat(50)).join("f").exists());

    // Moved while it had none: stale, until a lookup finds it again. The same node works on.
    inode::give_back(usize::MAX);
    fs::rename(scratch.path("d/d"), scratch.path("moved")).unwrap();
    assert_eq!(share.local.lookup(deepest, &disk("f")).await.map(drop), Err(FsError::Stale));
    let again = share.find("moved").await;
    assert!(Arc::ptr_eq(&again.node.0, &chain[2].0), "one node for one directory");
    assert!(share.local.lookup(deepest, &disk("f")).await.unwrap().is_some());

    // Moved while it had one: works on.
    fs::rename(scratch.path("moved"), scratch.path("d/back")).unwrap();
    assert!(share.local.lookup(deepest, &disk("f")).await.unwrap().is_some());

    // Another directory stands at its place: never taken for it.
    inode::give_back(usize::MAX);
    fs::rename(scratch.path("d/back"), scratch.path("aside")).unwrap();
    fs::create_dir_all(scratch.path("moved").join("d/".repeat(48))).unwrap();
    assert_eq!(share.local.lookup(deepest, &disk("f")).await.map(drop), Err(FsError::Stale));
}

/// In a process of its own, which may have few descriptors.
#[test]
fn many_objects_on_few_descriptors() {
    const CHILD: &str = "SHOAL_TEST_WITH_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        sys::set_descriptor_limit(512, 512).unwrap();
        inode::limit_changed();
        return runtime.block_on(use_many_objects());
    }
    let this = std::env::current_exe().unwrap();
    let name = "local::tests::many_objects_on_few_descriptors";
    let child = std::process::Command::new(this).args(["--exact", name]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}{child:?}");
}

async fn use_many_objects() {
    const DIRECTORIES: usize = 500;
    let scratch = Scratch::new();
    for d in 0..DIRECTORIES {
        fs::create_dir(scratch.path(&format!("d{d}"))).unwrap();
        for f in 0..20 {
            fs::write(scratch.path(&format!("d{d}/f{f}")), format!("{d} {f}")).unwrap();
        }
    }
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let share = scratch.serve().await;
    let read = async |dir: &BackendNode, name: &str| {
        let found = share.local.lookup(dir, &disk(name)).await?.unwrap();
        share.local.open(Some(dir), &disk(name), &found.metadata.key, READ).await
    };
    let (mut dirs, mut open) = (Vec::new(), Vec::new());
    for d in 0..DIRECTORIES {
        let dir = share.find(&format!("d{d}")).await.node;
        for f in 0..20 {
            let file = read(&dir, &format!("f{f}")).await.unwrap();
            assert_eq!(file.metadata().await.unwrap().size, format!("{d} {f}").len() as u64);
            if f == 7 && d % 5 == 0 {
                open.push((d, file));
            }
        }
        dirs.push(dir);
        assert!(descriptors() < 256 + open.len() + 32, "{} descriptors", descriptors());
    }
    // Those that gave theirs back open it again; files keep theirs.
    for (d, dir) in dirs.iter().enumerate() {
        let file = read(dir, "f19").await.unwrap();
        assert_eq!(file.read_at(0, 10).await.unwrap(), format!("{d} 19").as_bytes());
    }
    for (d, file) in &open {
        assert_eq!(file.read_at(0, 10).await.unwrap(), format!("{d} 7").as_bytes());
    }
    // Who opens what he can is refused, and others can still connect.
    let error = loop {
        match read(&dirs[open.len() % DIRECTORIES], "f3").await {
            Ok(file) => open.push((0, file)),
            Err(error) => break error,
        }
        assert!(open.len() < 512);
    };
    assert_eq!(error, FsError::TooManyOpenFiles);
    assert!(open.len() > 400, "{} files", open.len());
    // The directory that was to be read had given its descriptor back to make room while it was still in use for that, so there
    // may be one by now. Whoever takes it is the last.
    let mut refused = 0;
    for more in 0..4 {
        let name = format!("one more {more}");
        match share.local.create(&share.root, &disk(&name), &CreateHow::file()).await {
            Ok((_, file)) => open.push((0, file)),
            Err(error) => {
                assert_eq!(error, FsError::TooManyOpenFiles);
                assert!(!scratch.path(&name).exists());
                refused += 1;
            }
        }
    }
    assert!(refused >= 3, "refused {refused} of 4");
    let connections: Vec<_> = (0..8).map(|_| std::os::unix::net::UnixStream::pair().unwrap()).collect();
    drop(connections);
    open.truncate(300);
    let file = read(&dirs[499], "f3").await.unwrap();
    assert_eq!(file.read_at(0, 10).await.unwrap(), &b"499 3"[..]);
}

/// A directory whose descriptor was given back is opened again where we have moved it, and so is what stands below it.
#[test]
fn a_moved_directory_is_opened_again() {
    const CHILD: &str = "SHOAL_TEST_GIVES_DESCRIPTORS_BACK";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(move_and_open_again());
    }
    let this = std::env::current_exe().unwrap();
    let name = "local::tests::a_moved_directory_is_opened_again";
    let child = std::process::Command::new(this).args(["--exact", name]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}{child:?}");
}

async fn move_and_open_again() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("a/deep")).unwrap();
    fs::create_dir(scratch.path("other")).unwrap();
    fs::write(scratch.path("a/deep/file"), "").unwrap();
    let Cached { vfs, root } = Cached::of(&scratch).await;
    let name = |text: &str| Name::from_str(text).unwrap();
    let path = |text: &str| crate::Path::from(text.split('/').map(name).collect::<Vec<_>>());
    let find = async |at: &str| vfs.look_up_path(&root, &path(at)).await.unwrap().unwrap().1.unwrap().0;
    let (moved, file) = (find("a").await, find("a/deep/file").await);
    let other = Arc::clone(find("other").await.node());
    vfs.rename(&moved, &other, &name("b"), false, |_| Ok::<_, ()>(())).await.unwrap();
    // All but the root's.
    inode::give_back(usize::MAX);

    file.node().opens().set_delete_pending(&file, true);
    assert!(matches!(vfs.remove_link(&file).await, Ok(Removal::Removed)));
    assert!(!scratch.path("other/b/deep/file").exists());
}

#[test]
fn the_descriptor_limit_rises() {
    let limit = raise_descriptor_limit().unwrap();
    assert_eq!(sys::descriptor_limit().0.unwrap_or(u64::MAX), limit);
    assert_eq!(raise_descriptor_limit().unwrap(), limit);
}

#[tokio::test]
async fn the_volume_tells_of_itself() {
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    let volume = share.local.volume().await.unwrap();
    assert!(volume.total_bytes >= volume.free_bytes && volume.free_bytes >= volume.available_bytes);
    assert!(volume.block_size.is_power_of_two());
    assert_eq!(volume.name_max, 255);
    let again = Share::of(&scratch.0).await.local.volume().await.unwrap();
    assert_eq!((again.serial, again.total_bytes), (volume.serial, volume.total_bytes));
}

#[tokio::test]
async fn older_kernels_do() {
    let _alone = ALONE.lock().await;
    sys::pretend_old(true);
    let scratch = Scratch::new();
    let share = scratch.serve().await;
    symlink("/etc", scratch.path("link")).unwrap();
    let dos = Some(DosAttributes { attributes: 2, creation_time: None });
    for (name, how) in [("f", CreateHow::file()), ("d", CreateHow::directory())] {
        share.local.create(&share.root, &disk(name), &CreateHow { dos, ..how }).await.unwrap();
        // A share that remembers nothing.
        assert_eq!(scratch.serve().await.find(name).await.metadata.dos, dos);
        let handle = scratch.serve().await.open(name, false, false).await;
        assert_eq!(handle.metadata().await.unwrap().dos, dos);
        let key = share.find(name).await.metadata.key;
        fs::rename(scratch.path(name), scratch.path("aside")).unwrap();
        symlink("/etc/passwd", scratch.path(name)).unwrap();
        let open = share.local.open(Some(&share.root), &disk(name), &key, READ).await;
        assert_eq!(open.map(drop), Err(FsError::Stale));
        fs::rename(scratch.path("aside"), scratch.path(&format!("{name}-aside"))).unwrap();
    }
    assert_eq!(share.find("link").await.metadata.kind, Kind::Symlink);
    sys::pretend_old(false);
}

/// The system calls of each warm operation. An extra `statx` shows here. (`close` is not counted: one for each open and create.)
#[tokio::test]
async fn system_calls_per_operation() {
    let _alone = ALONE.lock().await;
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("d")).unwrap();
    fs::write(scratch.path("d/f"), vec![7; 5000]).unwrap();
    fs::write(scratch.path("d/g"), "").unwrap();
    let share = scratch.serve().await;
    if !share.local.volume.fine_times || sys::kernel_version() < (6, 13) {
        // Older kernels need the longer way now and then.
        return;
    }
    let dir = share.find("d").await.node;
    let key = share.find("d").await.metadata.key;
    let local = &share.local;
    share.find("d").await;
    if sys::take_calls().contains(&"lgetxattr") {
        // A sandbox that does not know getxattrat.
        return;
    }
    macro_rules! calls {
        ($operation:expr, $($call:literal)*) => {{
            sys::take_calls();
            let result = $operation.await.unwrap();
            let expected: &[&str] = &[$($call),*];
            assert_eq!(sys::take_calls(), expected, "{}", stringify!($operation));
            result
        }};
    }
    let found = calls!(local.lookup(&share.root, &disk("d")), "statx").unwrap();
    assert_eq!(found.metadata.key, key);
    let f = calls!(local.lookup(&dir, &disk("f")), "statx" "getxattrat").unwrap().metadata.key;
    // What is stored beside it, mostly nothing, is remembered.
    calls!(local.lookup(&dir, &disk("f")), "statx");
    calls!(local.lookup(&dir, &disk("absent")), "statx");
    let absent = Name::from_str("absent").unwrap();
    calls!(local.lookup_folded(&dir, &absent, &Fold::Insensitive), "openat2" "getdents64" "getdents64");

    let file = calls!(local.open(Some(&dir), &disk("f"), &f, READ), "openat2" "statx");
    let no_wait = share.local.volume.no_wait.load(Relaxed);
    if no_wait {
        assert_eq!(calls!(file.read_at(0, 4096), "preadv2").len(), 4096);
        // Short: the end has to be seen.
        assert_eq!(calls!(file.read_at(4096, 4096), "preadv2" "preadv2").len(), 904);
        calls!(file.read_at(5000, 4096), "preadv2");
    }
    calls!(file.metadata(), "statx");
    file.set_metadata(&SetMetadata { modified: Some(Timestamp::new(1, 0)), ..SetMetadata::default() })
        .await
        .unwrap();
    calls!(file.metadata(), "statx" "fgetxattr");
    calls!(local.open(Some(&dir), &disk("f"), &f, ATTRIBUTES), "openat2" "statx");

    let (_, new) = calls!(local.create(&dir, &disk("new"), &CreateHow::file()), "openat2" "statx");
    calls!(new.write_at(0, Bytes::from_static(b"hello")), "pwrite64");
    let when = Some(Timestamp::new(1, 0));
    calls!(new.set_metadata(&SetMetadata { modified: when, ..SetMetadata::default() }), "utimensat");
    let dos = Some(DosAttributes { attributes: 2, creation_time: None });
    let hidden = CreateHow { dos, ..CreateHow::file() };
    let (info, _) = calls!(local.create(&dir, &disk("hidden"), &hidden), "openat2" "setxattr" "statx");
    calls!(local.create(&dir, &disk("below"), &CreateHow::directory()), "mkdirat" "openat2" "statx");
    calls!(local.rename(&dir, &disk("hidden"), None, &dir, &disk("renamed"), false), "renameat2");
    calls!(local.unlink(&dir, &disk("renamed"), &info.metadata.key), "statx" "unlinkat");

    // It has changed since: its attributes are read with it, and whoever asks for them at once pays nothing.
    let listing =
        calls!(local.open(Some(&share.root), &disk("d"), &key, READ), "openat2" "statx" "fgetxattr");
    let seen = listing.metadata_when_opened().unwrap();
    assert_eq!(sys::take_calls(), [""; 0]);
    assert_eq!(calls!(listing.metadata(), "statx"), seen);
    let entries = calls!(listing.read_dir(0, 100, false), "getdents64" "getdents64");
    assert_eq!(entries.len(), 4);
    calls!(local.volume(), "fstatfs");
}

/// The system calls of each warm operation through the cache, where changes are told: one for the queue, and none for names that were
/// looked up before.
#[tokio::test]
async fn system_calls_behind_the_cache() {
    let _alone = ALONE.lock().await;
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("a/b")).unwrap();
    fs::write(scratch.path("a/b/File"), "").unwrap();
    let Cached { vfs, root } = Cached::of(&scratch).await;
    let name = |text: &str| Name::from_str(text).unwrap();
    let path = |text: &str| crate::Path::from(text.split('/').map(name).collect::<Vec<_>>());
    macro_rules! calls {
        ($operation:expr, $($call:literal)*) => {{
            sys::take_calls();
            let result = $operation.await.unwrap();
            let expected: &[&str] = &[$($call),*];
            assert_eq!(sys::take_calls(), expected, "{}", stringify!($operation));
            result
        }};
    }
    // The first two looks find the directories worth a watch and an index, the third finds what is in them.
    for _ in 0..3 {
        vfs.look_up_path(&root, &path("a/B/FILE")).await.unwrap();
        vfs.look_up_path(&root, &path("a/b/file")).await.unwrap();
        vfs.look_up_path(&root, &path("A/b/absent")).await.unwrap();
        // Who makes an index does it when nobody waits for it.
        tokio::task::yield_now().await;
    }
    let (dir, found) = calls!(vfs.look_up_path(&root, &path("a/b/File")), "ioctl").unwrap();
    let (link, _) = found.unwrap();
    calls!(vfs.look_up_path(&root, &path("a/B/FILE")), "ioctl");
    calls!(vfs.look_up_path(&root, &path("A/b/absent")), "ioctl");
    // A name that nobody has asked for yet: the index has it.
    assert!(calls!(vfs.look_up_path(&root, &path("a/b/absent too")), "ioctl").unwrap().1.is_none());
    calls!(vfs.open(&link, READ), "openat2" "statx");

    let absent = name("absent");
    let made = calls!(vfs.create(&dir, &absent, CreateHow::file(), |_, _| ()), "ioctl" "openat2" "statx");
    let Creation::Created { link, .. } = made else { panic!("it was absent") };
    // Our own change is in the queue.
    calls!(vfs.look_up_path(&root, &path("a/b/absent")), "read");
    calls!(vfs.rename(&link, &dir, &name("absent too"), false, |_| Ok::<_, ()>(())), "ioctl" "renameat2");
    vfs.look_up_path(&root, &path("a/b/absent too")).await.unwrap();
    link.node().opens().set_delete_pending(&link, true);
    calls!(vfs.remove_link(&link), "ioctl" "statx" "unlinkat");
    calls!(vfs.look_up_path(&root, &path("a/b/absent too")), "read");
    calls!(vfs.look_up_path(&root, &path("a/b/absent too")), "ioctl");
}

/// A file that is renamed again and again leaves names behind that are known to be absent: however many they are, its directory
/// is not read for them.
#[tokio::test]
async fn many_renames_need_no_search() {
    let _alone = ALONE.lock().await;
    let scratch = Scratch::new();
    fs::write(scratch.path("file 0"), "").unwrap();
    let Cached { vfs, root } = Cached::of(&scratch).await;
    let top = root.link();
    let dir = top.node();
    let name = |text: &str| Name::from_str(text).unwrap();
    for absent in ["x", "y", "z"] {
        assert!(vfs.lookup_one(dir, &name(absent)).await.unwrap().is_none());
        tokio::task::yield_now().await;
    }
    let link = vfs.lookup_one(dir, &name("file 0")).await.unwrap().unwrap();
    sys::take_calls();
    for number in 1..=6_000 {
        let to = name(&format!("file {number}"));
        vfs.rename(&link, dir, &to, false, |_| Ok::<_, ()>(())).await.unwrap();
    }
    let searches = sys::take_calls().into_iter().filter(|call| *call == "getdents64").count();
    assert_eq!(searches, 0);
    assert!(vfs.lookup_one(dir, &name("FILE 3000")).await.unwrap().is_none());
}

/// A mark that tells more of what others do elsewhere than it is worth is given up, and what it told of is looked up each
/// time from then on.
#[tokio::test]
async fn a_mark_that_tells_too_much_is_given_up() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("share")).unwrap();
    fs::create_dir(scratch.path("elsewhere")).unwrap();
    let options = Options { watches_max: Some(0), coherence: Some(Coherence::Notify), ..Options::default() };
    let local = Local::open(&scratch.path("share"), options).unwrap();
    let watcher = local.watcher().unwrap();
    let root = local.root().await.unwrap().node;
    let watch = match watcher.watch(&root) {
        Ok(watch) => watch,
        Err(FsError::NoSpace) => return eprintln!("not tested: this process may not mark a file system"),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(watcher.watch(&root), Ok(watch), "the same");
    let read = || {
        let mut told = Vec::new();
        watcher.read(&mut |change| {
            told.push(match change {
                Change::Created(_, name) | Change::MovedTo(_, name) => (Some(true), name.to_vec()),
                Change::Removed(_, name) | Change::MovedFrom(_, name) => (Some(false), name.to_vec()),
                Change::Unsure(_, name) => (None, name.to_vec()),
                Change::Ended(ended) => (Some(ended == watch), b"ended".to_vec()),
                Change::Moved(_) | Change::Lost => panic!("nothing of the sort"),
            });
        });
        told
    };
    fs::write(scratch.path("share/x"), "").unwrap();
    fs::write(scratch.path("share/y"), "").unwrap();
    fs::remove_file(scratch.path("share/y")).unwrap();
    fs::write(scratch.path("elsewhere/z"), "").unwrap();
    assert!(!watcher.is_empty());
    assert_eq!(read(), [(Some(true), b"x".to_vec()), (None, b"y".to_vec())]);
    fs::remove_file(scratch.path("share/x")).unwrap();
    assert_eq!(read(), [(Some(false), b"x".to_vec())]);
    // By another process: what we do ourselves is as much as we do.
    let script = "i=0; while [ $i -lt 2000 ]; do : > $i; i=$((i + 1)); done";
    let elsewhere = scratch.path("elsewhere");
    let busy = std::process::Command::new("sh").args(["-c", script]).current_dir(elsewhere).status();
    assert!(busy.unwrap().success());
    assert_eq!(read(), [(Some(true), b"ended".to_vec())]);
    assert!(watcher.is_empty());
    assert_eq!(watcher.watch(&root), Err(FsError::NoSpace));
    fs::write(scratch.path("share/x"), "").unwrap();
    assert!(watcher.is_empty());
}

/// A directory in which the file system itself takes spellings for one another, and by rules of its own: what is believed
/// of a name would not be put right by what is told of another spelling. So nothing is believed, and the storage's word
/// counts.
#[tokio::test]
async fn directories_that_fold_by_themselves_are_not_believed() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("on")).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let done = std::process::Command::new(program).args(arguments).current_dir(&scratch.0).output();
        done.is_ok_and(|done| done.status.success())
    };
    fs::File::create(scratch.path("image")).unwrap().set_len(16 << 20).unwrap();
    let is_mounted = run("mkfs.ext4", &["-q", "-O", "casefold", "-E", "encoding=utf8", "image"])
        && run("mount", &["-o", "loop", "image", "on"]);
    if !is_mounted {
        return eprintln!("not tested: no file system that folds by itself can be mounted here");
    }
    let _unmounts = Unmounts(scratch.path("on"));
    fs::create_dir(scratch.path("on/d")).unwrap();
    assert!(run("chattr", &["+F", "on/d"]));
    let options = Options { coherence: Some(Coherence::Notify), ..Options::default() };
    let local = Local::open(&scratch.path("on"), options).unwrap();
    let vfs: Arc<Vfs<()>> = Vfs::new(crate::Options::default());
    let root = vfs.mount(Arc::new(local), Fold::Insensitive).await.unwrap();
    let name = |text: &str| Name::from_str(text).unwrap();
    let dir = vfs.lookup_one(root.link().node(), &name("d")).await.unwrap().unwrap();
    // A letter with its accent is one to us, and the same as the letter and then the accent to the file system.
    for _ in 0..8 {
        for spelling in ["caf\u{e9}", "cafe\u{301}", "CAFE\u{301}"] {
            assert!(vfs.lookup_one(dir.node(), &name(spelling)).await.unwrap().is_none());
        }
    }
    let made = vfs.create(dir.node(), &name("cafe\u{301}"), CreateHow::file(), |_, _| ()).await.unwrap();
    assert!(matches!(made, Creation::Created { .. }));
    for spelling in ["CAFE\u{301}", "caf\u{e9}"] {
        assert!(vfs.lookup_one(dir.node(), &name(spelling)).await.unwrap().is_some(), "{spelling}");
    }
    let again = vfs.create(dir.node(), &name("caf\u{e9}"), CreateHow::file(), |_, _| ()).await;
    assert!(!matches!(again, Ok(Creation::Created { .. })), "it is the same file");
}

struct Unmounts(PathBuf);

impl Drop for Unmounts {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
