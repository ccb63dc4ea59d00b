//! A storage that takes more names for the same than the share does, as ext4 with `+F`, ZFS and vfat may: two names to
//! the share, and one to the storage. Claims do not keep the two apart, so the storage has to: nothing is lost, nothing
//! is made twice, and what is stored of the one name while the other is changed is at worst found out when it is used.
#![cfg(not(shuttle))]

use std::path::Path as FsPath;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use shoal_vfs::local::{self, Local};
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

/// What an open of `link` finds, if it is there.
async fn content(vfs: &Arc<Vfs<u32>>, link: &Arc<Link<u32>>) -> Result<Bytes> {
    vfs.open(link, OpenHow { read: true, write: false }).await?.read_at(0, 100).await
}

async fn write(vfs: &Arc<Vfs<u32>>, dir: &Arc<Node<u32>>, text: &str) -> Result<Option<Arc<Link<u32>>>> {
    match vfs.create(dir, &name(text), CreateHow::file(), |_, _| ()).await? {
        Creation::Created { link, file, .. } => {
            file.write_at(0, Bytes::copy_from_slice(text.as_bytes())).await?;
            Ok(Some(link))
        }
        Creation::Exists(_) => Ok(None),
    }
}

/// `one` and `two` are one name to the storage, and two to a share that compares names as `fold` does.
async fn two_names_that_are_one(backend: Arc<dyn Backend>, fold: Fold, one: &str, two: &str) {
    assert!(!fold.eq(&name(one), &name(two)));
    let vfs = Vfs::<u32>::new(Options::default());
    let root = vfs.mount(Arc::clone(&backend), fold).await.expect("mounts");
    let top = Arc::clone(root.link().node());
    let node = backend.root().await.expect("tells").node;
    for round in 0..20 {
        // Both at once: one is made.
        let makers: Vec<_> = [one, two]
            .map(|text| {
                let (vfs, top, text) = (Arc::clone(&vfs), Arc::clone(&top), text.to_owned());
                tokio::spawn(async move { write(&vfs, &top, &text).await })
            })
            .into();
        let mut made = Vec::new();
        for maker in makers {
            match maker.await.expect("ends") {
                Ok(link) => made.extend(link),
                Err(error) => assert_eq!(error, FsError::Exists),
            }
        }
        assert_eq!(made.len(), 1, "one has the name, in round {round}");
        let link = made.remove(0);
        let spelled = link.name().expect("stands somewhere").to_string();
        let other = if spelled == one { two } else { one };
        assert_eq!(content(&vfs, &link).await.expect("opens"), spelled.as_bytes());
        // A move to the other spelling never loses what is there.
        let moved = write(&vfs, &top, "moved").await.expect("creates").expect("is new");
        for replace in [false, true] {
            let renamed = vfs.rename(&moved, &top, &name(other), replace, |_| Ok::<_, ()>(())).await;
            match renamed {
                Err(RenameError::Fs(FsError::Exists | FsError::Stale)) => {
                    assert_eq!(content(&vfs, &link).await.expect("is there"), spelled.as_bytes());
                }
                // Only if it was found under that spelling, and so was replaced with leave.
                renamed => {
                    assert_eq!(renamed, Ok(()));
                    assert!(replace, "replaced without leave");
                    assert_eq!(content(&vfs, &moved).await.expect("is there"), Bytes::from_static(b"moved"));
                }
            }
        }
        // Through whichever spelling it is found, it is the object that is there, or it is found out.
        for text in [one, two] {
            let Some(found) = vfs.lookup_one(&top, &name(text)).await.expect("looks up") else { continue };
            let stored = backend.lookup(&node, &name(text).to_disk()).await.expect("looks up");
            match content(&vfs, &found).await {
                Ok(_) => assert_eq!(stored.map(|info| info.metadata.key), Some(found.node().key())),
                Err(error) => assert_eq!(error, FsError::Stale),
            }
        }
        for text in [one, two, "moved"] {
            let Some(found) = vfs.lookup_one(&top, &name(text)).await.expect("looks up") else { continue };
            found.node().opens().set_delete_pending(&found, true);
            let removed = vfs.remove_link(&found).await.expect("removes");
            assert!(matches!(removed, Removal::Removed | Removal::AlreadyGone), "{removed:?}");
        }
        for text in [one, two, "moved"] {
            let left = backend.lookup(&node, &name(text).to_disk()).await.expect("looks up");
            assert!(left.is_none(), "{text} is left in round {round}");
        }
    }
    vfs.quiesce().await;
}

/// A case-sensitive share on a storage that folds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory() {
    for exclusive in [true, false] {
        let options = MemoryOptions { exclusive, fold: Fold::Insensitive, ..MemoryOptions::default() };
        two_names_that_are_one(Memory::new(options), Fold::Sensitive, "name", "NAME").await;
    }
}

/// A file system in a file, mounted where that may be done.
struct Mounted(tempdir::Dir);

mod tempdir {
    pub struct Dir(pub std::path::PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

impl Mounted {
    /// Why not, if it cannot be.
    fn new(make: &[&str], text: &str) -> std::result::Result<Mounted, String> {
        let path = std::env::temp_dir().join(format!("shoal-{text}-{}", std::process::id()));
        let dir = tempdir::Dir(path);
        std::fs::create_dir(&dir.0).map_err(|error| error.to_string())?;
        let (image, at) = (dir.0.join("image"), dir.0.join("mounted"));
        std::fs::create_dir(&at).map_err(|error| error.to_string())?;
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(16 << 20).map_err(|error| error.to_string())?;
        run(Command::new(make[0]).args(&make[1..]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(Mounted(dir))
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.0.join("mounted")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(self.path()));
    }
}

fn run(command: &mut Command) -> std::result::Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", said.trim())) }
}

async fn on(path: &FsPath, fold: Fold, one: &str, two: &str) {
    for coherence in [Coherence::Notify, Coherence::None] {
        let options = local::Options { coherence: Some(coherence), ..local::Options::default() };
        let backend = Arc::new(Local::open(path, options).expect("opens"));
        two_names_that_are_one(backend, fold, one, two).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_ext4_with_casefold() {
    match Mounted::new(&["mkfs.ext4", "-q", "-O", "casefold", "-E", "encoding=utf8"], "casefold") {
        Err(why) => println!("skipped: {why}"),
        Ok(mounted) => {
            let folded = mounted.path().join("folded");
            std::fs::create_dir(&folded).expect("creates");
            if let Err(why) = run(Command::new("chattr").arg("+F").arg(&folded)) {
                return println!("skipped: {why}");
            }
            on(&folded, Fold::Sensitive, "name", "NAME").await;
            // Two names to Windows, which has no foldings of several letters.
            on(&folded, Fold::Insensitive, "stra\u{df}e", "STRASSE").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_vfat() {
    match Mounted::new(&["mkfs.vfat"], "vfat") {
        Err(why) => println!("skipped: {why}"),
        Ok(mounted) => on(&mounted.path(), Fold::Sensitive, "name", "NAME").await,
    }
}
