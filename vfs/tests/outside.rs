//! Others change the tree while we serve it: a mover who knows nothing of the cache, against each way in which the cache
//! learns of that. What it must not do is to tell something that was no longer so when it was asked.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use shoal_vfs::faulty::{Fault, Faulty, Verb};
use shoal_vfs::local::{self, Local};
use shoal_vfs::memory::{Memory, MemoryOptions, Watches};
use shoal_vfs::*;

const EACH_TIME: Coherence = Coherence::Revalidate(Duration::ZERO);

/// A way to learn of changes, and how many directories may have a watch of their own: those beyond are told of by the mark
/// of their file system, where the process may ask for one, and are looked up each time elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mode {
    coherence: Coherence,
    watches_max: Option<usize>,
}

impl From<Coherence> for Mode {
    fn from(coherence: Coherence) -> Mode {
        Mode { coherence, watches_max: None }
    }
}

const fn watches(watches_max: Option<usize>) -> Mode {
    Mode { coherence: Coherence::Notify, watches_max }
}

const MODES: [Mode; 6] = [
    watches(None),
    watches(Some(0)),
    watches(Some(1)),
    watches(Some(2)),
    Mode { coherence: EACH_TIME, watches_max: None },
    Mode { coherence: Coherence::None, watches_max: None },
];

/// Set for the process that runs `directories_beyond_the_systems_watches_are_right` in a user namespace.
const FEW_WATCHES: &str = "SHOAL_TEST_FEW_WATCHES";

/// Whether this process may mark a file system.
fn may_mark() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").expect("tells");
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("tells").trim();
    let may = u64::from_str_radix(capabilities, 16).expect("is a number") >> 21 & 1 == 1;
    if !may {
        eprintln!("not tested: this process may not mark a file system (CAP_SYS_ADMIN)");
    }
    may && std::env::var_os(FEW_WATCHES).is_none()
}

/// A small generator: the same seed, the same choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % sides as u64) as usize
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }
}

/// A directory that is shared, and one beside it that is not. Both go with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(below: &FsPath) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = below.join(format!("shoal-outside-{}-{next}", std::process::id()));
        fs::create_dir_all(path.join("share")).expect("a scratch directory");
        fs::create_dir(path.join("beside")).expect("a scratch directory");
        Scratch(path)
    }

    fn share(&self, path: &str) -> PathBuf {
        self.0.join("share").join(path)
    }

    fn beside(&self, path: &str) -> PathBuf {
        self.0.join("beside").join(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where tests on the real file system run: on the disk, and in memory where there is such a thing.
fn places() -> Vec<PathBuf> {
    let mut places = vec![std::env::temp_dir()];
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() {
        places.push(shm);
    }
    places
}

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

fn path(text: &str) -> Path {
    Path::from(text.split('/').filter(|part| !part.is_empty()).map(name).collect::<Vec<_>>())
}

fn open(scratch: &Scratch, mode: impl Into<Mode>) -> Arc<Local> {
    let Mode { coherence, watches_max } = mode.into();
    let options = local::Options { coherence: Some(coherence), watches_max, ..local::Options::default() };
    Arc::new(Local::open(&scratch.share(""), options).expect("opens"))
}

struct Bed {
    vfs: Arc<Vfs<()>>,
    root: Root<()>,
}

impl Bed {
    async fn of(backend: Arc<dyn Backend>) -> Bed {
        let vfs = Vfs::new(Options::default());
        let root = vfs.mount(backend, Fold::Insensitive).await.expect("mounts");
        Bed { vfs, root }
    }

    async fn local(scratch: &Scratch, mode: impl Into<Mode>) -> Bed {
        Bed::of(open(scratch, mode)).await
    }

    /// What a path means to a client: the inode number, and how its last name is spelled.
    async fn see(&self, at: &str) -> Option<(u64, String)> {
        let (_, found) = match self.vfs.look_up_path(&self.root, &path(at)).await {
            Ok(found) => found.expect("not the root"),
            Err(FsError::PathNotFound) => return None,
            Err(error) => panic!("{at}: {error}"),
        };
        let (link, _) = found?;
        Some((link.node().key().inode, link.name().expect("not the root").to_string()))
    }

    async fn link(&self, at: &str) -> Arc<Link<()>> {
        let (_, found) =
            self.vfs.look_up_path(&self.root, &path(at)).await.expect("walks").expect("not the root");
        found.expect("is there").0
    }

    async fn create(&self, at: &str, how: CreateHow) -> Result<Creation<(), ()>> {
        let at = path(at);
        let dir = self.vfs.resolve_parent(&self.root, &at).await?;
        let (_, last) = at.parent_and_last().expect("not the root");
        self.vfs.create(&dir, last, how, |_, _| ()).await
    }

    async fn remove(&self, at: &str) -> Result<()> {
        let (_, found) = self.vfs.look_up_path(&self.root, &path(at)).await?.expect("not the root");
        let Some((link, _)) = found else { return Err(FsError::NotFound) };
        link.node().opens().set_delete_pending(&link, true);
        self.vfs.remove_link(&link).await.map(drop)
    }

    async fn rename(&self, at: &str, to: &str) -> Result<()> {
        let (_, found) = self.vfs.look_up_path(&self.root, &path(at)).await?.expect("not the root");
        let Some((link, _)) = found else { return Err(FsError::NotFound) };
        let to = path(to);
        let dir = self.vfs.resolve_parent(&self.root, &to).await?;
        let (_, last) = to.parent_and_last().expect("not the root");
        match self.vfs.rename(&link, &dir, last, true, |_| Ok::<_, ()>(())).await {
            Ok(()) => Ok(()),
            Err(RenameError::Fs(error)) => Err(error),
            Err(RenameError::Refused(())) => unreachable!("nothing is refused"),
        }
    }

    async fn open(&self, at: &str, how: OpenHow) -> Arc<dyn BackendFile> {
        loop {
            let (_, found) =
                self.vfs.look_up_path(&self.root, &path(at)).await.expect("walks").expect("is below");
            let (link, _) = found.expect("is there");
            match self.vfs.open(&link, how).await {
                Ok(file) => return file,
                Err(FsError::Stale) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

const READ: OpenHow = OpenHow { read: true, write: false };
const WRITE: OpenHow = OpenHow { read: true, write: true };

/// What is there now, by the file system's own account: each path below the share.
fn truth(share: &FsPath) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut below = vec![String::new()];
    while let Some(dir) = below.pop() {
        let Ok(entries) = fs::read_dir(share.join(&dir)) else { continue };
        for entry in entries {
            let entry = entry.expect("lists");
            let at = format!("{dir}{}", entry.file_name().to_str().expect("is text"));
            let metadata = entry.metadata().expect("is there");
            if metadata.is_dir() {
                below.push(format!("{at}/"));
            }
            found.insert(at, metadata.ino());
        }
    }
    found
}

const NAMES: [&str; 6] = ["a", "A", "b", "B", "c", "longer name"];
const DIRECTORIES: [&str; 3] = ["", "d/", "d/e/"];

/// What a client is to see of a path: the exact spelling of its last name, or else the first that folds alike.
fn expected(share: &FsPath, at: &str) -> Option<(u64, String)> {
    let (dir, last) = at.rsplit_once('/').map_or(("", at), |(dir, last)| (dir, last));
    let entries = fs::read_dir(share.join(dir)).ok()?;
    let mut found: Vec<(String, u64)> = entries
        .map(|entry| entry.expect("lists"))
        .map(|entry| {
            (
                entry.file_name().to_str().expect("is text").to_owned(),
                entry.metadata().expect("is there").ino(),
            )
        })
        .filter(|(spelled, _)| Fold::Insensitive.eq(&name(spelled), &name(last)))
        .collect();
    found.sort();
    let exact = found.iter().find(|(spelled, _)| spelled == last).or(found.first());
    exact.map(|(spelled, inode)| (*inode, spelled.clone()))
}

/// One change by the mover; some fail, as they may.
fn move_something(scratch: &Scratch, dice: &mut Dice) {
    let at = scratch.share(&format!("{}{}", dice.pick(&DIRECTORIES), dice.pick(&NAMES)));
    let to = scratch.share(&format!("{}{}", dice.pick(&DIRECTORIES), dice.pick(&NAMES)));
    let _may_fail = match dice.roll(9) {
        0 | 1 => fs::write(&at, "outside"),
        2 => fs::remove_file(&at),
        3 => fs::rename(&at, &to),
        4 => fs::hard_link(&at, &to),
        5 => fs::create_dir(&at),
        6 => fs::remove_dir(&at),
        7 => fs::rename(scratch.share("d/e"), scratch.beside("e")),
        _ => fs::rename(scratch.beside("e"), scratch.share("d/e")),
    };
}

/// After each change by the mover, whatever is asked is answered as it is then.
#[tokio::test]
async fn each_change_is_seen_when_its_call_has_returned() {
    for place in places() {
        for mode in MODES {
            for seed in 0..3 {
                let scratch = Scratch::new(&place);
                fs::create_dir_all(scratch.share("d/e")).expect("makes");
                let bed = Bed::local(&scratch, mode).await;
                let (mut dice, mut mover) = (Dice(seed), Dice(seed ^ 0x5555));
                for step in 0..400 {
                    std::thread::scope(|scope| scope.spawn(|| move_something(&scratch, &mut mover)).join())
                        .expect("moves");
                    for _ in 0..3 {
                        let at = format!("{}{}", dice.pick(&DIRECTORIES), dice.pick(&NAMES));
                        let seen = bed.see(&at).await;
                        assert_eq!(
                            seen,
                            expected(&scratch.share(""), &at),
                            "{at} at step {step} of {seed}, {mode:?}"
                        );
                    }
                }
                if mode == watches(None) || mode == watches(Some(0)) && may_mark() {
                    let counted = bed.vfs.counters();
                    assert!(
                        counted.hits + counted.negative_hits > 0 && counted.index_answers > 0,
                        "{counted:?}"
                    );
                }
                bed.vfs.check_at_rest().await;
            }
        }
    }
}

/// A mover and clients at once. At rest all is as the file system has it, in each case, and so say the indexes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_right_at_rest() {
    for place in places() {
        for mode in MODES {
            let scratch = Arc::new(Scratch::new(&place));
            fs::create_dir_all(scratch.share("d/e")).expect("makes");
            let bed = Arc::new(Bed::local(&scratch, mode).await);
            for round in 0..8 {
                let stop = Arc::new(AtomicBool::new(false));
                let mover = std::thread::spawn({
                    let (scratch, stop) = (Arc::clone(&scratch), Arc::clone(&stop));
                    move || {
                        let mut dice = Dice(round);
                        while !stop.load(Ordering::Relaxed) {
                            move_something(&scratch, &mut dice);
                        }
                    }
                });
                let clients: Vec<_> = (0..4)
                    .map(|client| {
                        let bed = Arc::clone(&bed);
                        tokio::spawn(async move {
                            let mut dice = Dice(round * 100 + client);
                            for _ in 0..100 {
                                let at = format!("{}{}", dice.pick(&DIRECTORIES), dice.pick(&NAMES));
                                let to = format!("{}{}", dice.pick(&DIRECTORIES), dice.pick(&NAMES));
                                let ended = match dice.roll(5) {
                                    0 => bed.create(&at, CreateHow::file()).await.map(drop),
                                    1 => bed.create(&at, CreateHow::directory()).await.map(drop),
                                    2 => bed.remove(&at).await,
                                    3 => bed.rename(&at, &to).await,
                                    _ => {
                                        bed.see(&at).await;
                                        Ok(())
                                    }
                                };
                                match ended {
                                    Ok(())
                                    | Err(
                                        FsError::NotFound
                                        | FsError::PathNotFound
                                        | FsError::Exists
                                        | FsError::NotEmpty
                                        | FsError::Invalid
                                        | FsError::Stale
                                        | FsError::Busy
                                        | FsError::IsADirectory
                                        | FsError::NotADirectory,
                                    ) => {}
                                    Err(error) => panic!("{at} {to}: {error}"),
                                }
                                tokio::task::yield_now().await;
                            }
                        })
                    })
                    .collect();
                for client in clients {
                    client.await.expect("ends");
                }
                stop.store(true, Ordering::Relaxed);
                mover.join().expect("ends");
                bed.vfs.quiesce().await;
                let share = scratch.share("");
                for dir in DIRECTORIES {
                    for last in NAMES {
                        let at = format!("{dir}{last}");
                        assert_eq!(
                            bed.see(&at).await,
                            expected(&share, &at),
                            "{at} in round {round}, {mode:?}"
                        );
                    }
                }
                for (at, inode) in truth(&share) {
                    assert_eq!(bed.see(&at).await.map(|(inode, _)| inode), Some(inode), "{at}, {mode:?}");
                }
                bed.vfs.check_at_rest().await;
            }
        }
    }
}

/// Others move on what we have just moved, and a client finds it there, before our rename has heard that it is done.
#[tokio::test]
async fn what_is_moved_on_beside_our_rename_stays_where_it_was_found() {
    for place in places() {
        for mode in MODES {
            for to in ["b", "A", "d/b", "taken"] {
                for is_directory in [false, true] {
                    let what = format!("to {to}, {is_directory}, {mode:?}");
                    let scratch = Scratch::new(&place);
                    fs::create_dir(scratch.share("d")).expect("makes");
                    for at in ["a", "taken"] {
                        if is_directory {
                            fs::create_dir(scratch.share(at)).expect("makes");
                        } else {
                            fs::write(scratch.share(at), "text").expect("writes");
                        }
                    }
                    let faulty = Faulty::new(open(&scratch, mode), 0);
                    let bed = Arc::new(Bed::of(faulty.clone()).await);
                    // Both directories are watched and have their indexes: what is found by one is all that there is.
                    for at in ["a", "d/x", "x", "y", "z", "d/y", "d/z"] {
                        bed.see(at).await;
                    }
                    bed.vfs.quiesce().await;
                    faulty.script(Verb::Rename, Fault::HangDone);
                    let renaming = tokio::spawn({
                        let bed = bed.clone();
                        async move { bed.rename("a", to).await }
                    });
                    faulty.hanging(1).await;
                    fs::rename(scratch.share(to), scratch.share("c")).expect("moves");
                    let found = bed.see("c").await;
                    // While we move a directory to another it gets no place by being found.
                    if !(is_directory && to == "d/b") {
                        assert_eq!(found, expected(&scratch.share(""), "c"), "{what}");
                    }
                    faulty.release();
                    assert_eq!(renaming.await.expect("ends"), Ok(()), "{what}");
                    for at in ["a", "c", "d/b", "taken"] {
                        assert_eq!(bed.see(at).await, expected(&scratch.share(""), at), "{at}, {what}");
                    }
                    bed.vfs.check_at_rest().await;
                    assert_eq!(bed.rename("c", "e").await, Ok(()), "{what}");
                    assert_eq!(bed.see("e").await, expected(&scratch.share(""), "e"), "{what}");
                }
            }
        }
    }
}

/// A file that was removed and made anew is written to, not the one that is no more.
#[tokio::test]
async fn writes_go_to_the_file_that_is_there() {
    for place in places() {
        for mode in MODES {
            let scratch = Scratch::new(&place);
            let bed = Bed::local(&scratch, mode).await;
            for round in 0..20 {
                let at = scratch.share("file");
                fs::write(&at, "before").expect("writes");
                for _ in 0..3 {
                    assert!(bed.see("FILE").await.is_some());
                }
                if round % 2 == 0 {
                    fs::remove_file(&at).expect("removes");
                    assert_eq!(bed.see("file").await, None, "{mode:?}");
                    fs::write(&at, "anew").expect("writes");
                } else {
                    fs::write(scratch.beside("other"), "over").expect("writes");
                    fs::rename(scratch.beside("other"), &at).expect("replaces");
                }
                let file = bed.open("file", WRITE).await;
                let text = file.read_at(0, 100).await.expect("reads");
                assert_eq!(text, if round % 2 == 0 { &b"anew"[..] } else { &b"over"[..] }, "{mode:?}");
                file.write_at(0, Bytes::from_static(b"ours")).await.expect("writes");
                assert_eq!(fs::read(&at).expect("reads"), b"ours", "{mode:?}");
            }
        }
    }
}

/// ext4 gives the number of an inode that has gone to the next one at once, maybe within a tick of its clock: what is found then is
/// the new object, whatever the old one was; and as long as somebody has the old one open its number is not given away.
#[tokio::test]
async fn an_inode_number_that_is_used_again_is_another_object() {
    let make = |at: &FsPath, kind, text: &str| match kind {
        Kind::Directory => fs::create_dir(at).expect("makes"),
        _ => fs::write(at, text).expect("writes"),
    };
    let number = |at: &FsPath| fs::metadata(at).expect("is there").ino();
    for place in places() {
        let mut again = 0;
        for mode in MODES {
            let scratch = Scratch::new(&place);
            let bed = Bed::local(&scratch, mode).await;
            let (old, new) = (scratch.share("old"), scratch.share("new"));
            for round in 0..24 {
                let was = if round % 2 == 0 { Kind::File } else { Kind::Directory };
                let is = if round / 2 % 2 == 0 { Kind::File } else { Kind::Directory };
                make(&old, was, "old");
                for _ in 0..2 {
                    assert_eq!(bed.see("old").await, expected(&scratch.share(""), "old"), "{mode:?}");
                }
                let before = number(&old);
                let open = if round % 3 == 0 { Some(bed.open("old", READ).await) } else { None };
                match was {
                    Kind::Directory => fs::remove_dir(&old).expect("removes"),
                    _ => fs::remove_file(&old).expect("removes"),
                }
                make(&new, is, "new");
                again += usize::from(number(&new) == before);
                assert!(open.is_none() || number(&new) != before, "its number is in use");
                assert_eq!(bed.see("old").await, None, "{mode:?}");
                assert_eq!(bed.see("new").await, expected(&scratch.share(""), "new"), "{mode:?}");
                assert_eq!(bed.link("new").await.node().kind(), is, "{mode:?}");
                match is {
                    Kind::Directory => {
                        bed.create("new/x", CreateHow::file()).await.expect("makes");
                        assert_eq!(bed.see("new/X").await, expected(&scratch.share(""), "new/x"), "{mode:?}");
                        bed.remove("new/x").await.expect("removes");
                    }
                    _ => {
                        let text = bed.open("new", READ).await.read_at(0, 100).await.expect("reads");
                        assert_eq!(&text[..], b"new", "{mode:?}");
                    }
                }
                if let (Some(open), Kind::File) = (open, was) {
                    assert_eq!(&open.read_at(0, 100).await.expect("reads")[..], b"old", "{mode:?}");
                }
                bed.remove("new").await.expect("removes");
                assert_eq!(bed.see("new").await, None, "{mode:?}");
            }
            bed.vfs.check_at_rest().await;
        }
        if again == 0 {
            eprintln!("not tested in {}: no number was used again", place.display());
        }
    }
}

/// What a rename replaces is what its rules have seen: when others put another object to the name after that, in the same
/// or in another case, the rules are asked again, and what they have not seen stays.
#[tokio::test]
async fn what_is_replaced_was_seen() {
    for mode in MODES {
        for stranger in ["target", "TARGET"] {
            for always in [false, true] {
                let scratch = Scratch::new(&std::env::temp_dir());
                fs::write(scratch.share("source"), "source").expect("writes");
                fs::write(scratch.share("target"), "target").expect("writes");
                let bed = Bed::local(&scratch, mode).await;
                let (source, target) = (bed.link("source").await, bed.link("target").await);
                let root = bed.root.link();
                let (share, beside) = (scratch.share(""), scratch.beside(""));
                let seen = Arc::new(AtomicU32::new(0));
                let counting = Arc::clone(&seen);
                let first = target.node().id();
                let to = name("Target");
                let replaced = bed.vfs.rename(&source, root.node(), &to, true, move |view| {
                    let round = counting.fetch_add(1, Ordering::Relaxed);
                    let (shown, _) = view.target.as_ref().expect("is there");
                    assert_eq!(round == 0, shown.node().id() == first);
                    if round == 0 || always {
                        let there = if round == 0 { "target" } else { stranger };
                        let kept = beside.join(format!("target{round}"));
                        fs::rename(share.join(there), kept).expect("renames");
                        fs::write(share.join(stranger), format!("stranger{round}")).expect("writes");
                    }
                    Ok::<_, ()>(())
                });
                let replaced = replaced.await;
                let read = |path: PathBuf| fs::read_to_string(path).ok();
                assert_eq!(read(scratch.beside("target0")).as_deref(), Some("target"));
                assert!(!target.is_gone(), "it was moved, not replaced");
                if always {
                    assert_eq!(replaced, Err(RenameError::Fs(FsError::Stale)), "{mode:?} {stranger}");
                    assert_eq!(read(scratch.share(stranger)).as_deref(), Some("stranger1"));
                    assert_eq!(read(scratch.beside("target1")).as_deref(), Some("stranger0"));
                    assert_eq!(read(scratch.share("source")).as_deref(), Some("source"));
                } else {
                    assert_eq!(replaced, Ok(()), "{mode:?} {stranger}");
                    assert_eq!(read(scratch.share("Target")).as_deref(), Some("source"));
                    let left = fs::read_dir(scratch.share("")).expect("lists").count();
                    assert_eq!(left, 1, "what the rules saw in the end was replaced");
                }
                bed.vfs.quiesce().await;
                bed.vfs.check_at_rest().await;
            }
        }
    }
}

/// A directory that is moved out of the share takes no new files with it, and comes back as what it is.
#[tokio::test]
async fn nothing_lands_outside() {
    for place in places() {
        for mode in MODES {
            let scratch = Scratch::new(&place);
            fs::create_dir_all(scratch.share("p/q")).expect("makes");
            let bed = Bed::local(&scratch, mode).await;
            for round in 0..10 {
                let at = format!("P/q/file{round}");
                for _ in 0..3 {
                    assert!(bed.see("p/Q").await.is_some());
                    assert!(bed.see(&at).await.is_none());
                }
                let (from, to) = if round % 2 == 0 { ("p", "p") } else { ("p/q", "q") };
                fs::rename(scratch.share(from), scratch.beside(to)).expect("moves away");
                let made = bed.create(&at, CreateHow::file()).await;
                assert!(matches!(made, Err(FsError::PathNotFound)), "{mode:?}");
                assert_eq!(truth(&scratch.beside("")).keys().filter(|at| at.contains("file")).count(), 0);
                fs::rename(scratch.beside(to), scratch.share(from)).expect("moves back");
                let made = bed.create(&at, CreateHow::file()).await.expect("makes");
                assert!(matches!(made, Creation::Created { .. }));
                fs::remove_file(scratch.share(&format!("p/q/file{round}"))).expect("is where it should be");
                assert!(bed.see(&at).await.is_none());
            }
        }
    }
}

/// So long as its token need not be compared again, a directory is believed to have the names that it had; our own changes
/// are seen at once, and lead to a comparison.
#[tokio::test]
async fn a_token_is_believed_as_long_as_was_asked_for() {
    let scratch = Scratch::new(&std::env::temp_dir());
    for number in 0..50 {
        fs::write(scratch.share(&format!("File{number}")), "").expect("writes");
    }
    // A token that was given this instant might be given again: the index is not made of such a directory.
    let age = fs::metadata(scratch.share("")).expect("is there").modified().expect("is known");
    while age.elapsed().is_ok_and(|age| age < Duration::from_millis(30)) {
        std::thread::yield_now();
    }
    let bed = Bed::local(&scratch, Coherence::Revalidate(Duration::from_secs(3600))).await;
    for _ in 0..3 {
        assert_eq!(bed.see("fILE7").await.expect("is there").1, "File7");
        assert!(bed.see("absent").await.is_none());
    }
    assert!(bed.vfs.counters().index_answers > 0);
    fs::write(scratch.share("Absent"), "").expect("writes");
    assert!(bed.see("absent").await.is_none(), "it was compared just now");
    bed.create("Ours", CreateHow::file()).await.expect("makes");
    assert!(bed.see("oURS").await.is_some());
    assert!(bed.see("absent").await.is_some());
}

/// A storage in memory that tells of changes, and whoever changes it directly.
async fn told(watches: Watches) -> (Bed, Arc<Memory>, BackendNode) {
    let options = MemoryOptions { exclusive: false, watches: Some(watches), ..MemoryOptions::default() };
    let memory = Memory::new(options);
    let root = memory.root().await.expect("tells").node;
    (Bed::of(Arc::clone(&memory) as Arc<dyn Backend>).await, memory, root)
}

/// More changes than the queue holds: what was known is forgotten, and all is right.
#[tokio::test]
async fn lost_changes_are_noticed() {
    let (bed, memory, root) = told(Watches { directories: 100, changes: 4 }).await;
    for round in 0..50 {
        for number in 0..6 {
            bed.see(&format!("name{number}")).await;
        }
        // Who makes the index does it when nobody waits for it.
        tokio::task::yield_now().await;
        for number in 0..=round % 6 {
            let disk = name(&format!("Name{number}")).to_disk();
            match memory.lookup(&root, &disk).await.expect("looks up") {
                Some(info) => memory.unlink(&root, &disk, &info.metadata.key).await.expect("removes"),
                None => drop(memory.create(&root, &disk, &CreateHow::file()).await.expect("makes")),
            }
        }
        for number in 0..6 {
            let disk = name(&format!("Name{number}")).to_disk();
            let there = memory.lookup(&root, &disk).await.expect("looks up");
            let seen = bed.see(&format!("nAME{number}")).await.map(|(inode, _)| inode);
            assert_eq!(seen, there.map(|info| info.metadata.key.inode), "name{number} in round {round}");
        }
    }
    assert!(bed.vfs.counters().index_answers > 0);
    bed.vfs.check_at_rest().await;
}

/// Directories beyond the bound of watches are served all the same: what they hold is looked up each time.
#[tokio::test]
async fn what_cannot_be_watched_is_looked_up() {
    for directories in [0, 1, 2] {
        let (bed, memory, root) = told(Watches { directories, changes: 1000 }).await;
        let how = CreateHow::directory();
        let outer = memory.create(&root, &name("outer").to_disk(), &how).await.expect("makes").0.node;
        let inner = memory.create(&outer, &name("inner").to_disk(), &how).await.expect("makes").0.node;
        for round in 0..20 {
            for (dir, below) in [(&root, ""), (&outer, "outer/"), (&inner, "outer/inner/")] {
                let at = format!("{below}x{round}");
                for _ in 0..3 {
                    assert!(bed.see(&at).await.is_none());
                }
                let disk = name(&format!("X{round}")).to_disk();
                let made = memory.create(dir, &disk, &CreateHow::file()).await.expect("makes").0;
                for _ in 0..3 {
                    assert_eq!(bed.see(&at).await.map(|(inode, _)| inode), Some(made.metadata.key.inode));
                }
                bed.rename(&at, &format!("{below}y")).await.expect("renames");
                assert!(bed.see(&at).await.is_none());
                bed.remove(&format!("{below}Y")).await.expect("removes");
                assert!(memory.lookup(dir, &name("y").to_disk()).await.expect("looks up").is_none());
            }
        }
        bed.vfs.check_at_rest().await;
    }
}

/// Names come and go while a client lists the directory: the index that comes of it knows of each.
#[tokio::test]
async fn a_listing_makes_an_index_that_holds() {
    for place in places() {
        let scratch = Scratch::new(&place);
        for number in 0..3000 {
            fs::write(scratch.share(&format!("File{number}")), "").expect("writes");
        }
        let bed = Bed::local(&scratch, Coherence::Notify).await;
        let top = Arc::clone(bed.root.link().node());
        let file = bed.vfs.open(&bed.root.link(), READ).await.expect("opens");
        let (mut cookie, mut listed, mut step) = (0, 0, 0);
        loop {
            let page = bed.vfs.read_dir(&top, &file, cookie, 100, false).await.expect("lists");
            let Some(last) = page.last() else { break };
            (cookie, listed, step) = (last.cookie, listed + page.len(), step + 1);
            // What comes and goes meanwhile is in the index as well.
            fs::remove_file(scratch.share(&format!("File{}", step * 7))).expect("removes");
            fs::write(scratch.share(&format!("New{step}")), "").expect("writes");
            bed.create(&format!("Ours{step}"), CreateHow::file()).await.expect("makes");
        }
        assert!(listed >= 2900);
        let before = bed.vfs.counters();
        for round in 1..=step {
            assert!(bed.see(&format!("fILE{}", round * 7)).await.is_none());
            assert!(bed.see(&format!("nEW{round}")).await.is_some());
            assert!(bed.see(&format!("oURS{round}")).await.is_some());
            assert!(bed.see(&format!("absent{round}")).await.is_none());
        }
        let after = bed.vfs.counters();
        assert_eq!(
            after.backend_folded_lookups, before.backend_folded_lookups,
            "the directory is not read again"
        );
        bed.vfs.check_at_rest().await;
    }
}

/// Two names are exchanged by others: the kernel tells last of the second name that something went from it.
#[tokio::test]
async fn names_that_were_exchanged_are_both_there() {
    for place in places() {
        for mode in MODES {
            let scratch = Scratch::new(&place);
            for dir in ["p", "q"] {
                fs::create_dir(scratch.share(dir)).expect("makes");
                for file in ["a", "b"] {
                    fs::write(scratch.share(&format!("{dir}/{file}")), dir).expect("writes");
                }
            }
            let bed = Bed::local(&scratch, mode).await;
            for _ in 0..3 {
                for absent in ["p/x", "p/y", "q/x", "q/y"] {
                    assert!(bed.see(absent).await.is_none());
                }
                for (one, two) in [("p/a", "p/b"), ("p/a", "q/b"), ("p", "q")] {
                    exchange(&scratch.share(one), &scratch.share(two));
                    for at in ["p/A", "p/B", "q/A", "q/B", "P", "Q"] {
                        assert_eq!(bed.see(at).await, expected(&scratch.share(""), at), "{at}, {mode:?}");
                    }
                }
            }
            bed.vfs.check_at_rest().await;
        }
    }
}

fn exchange(one: &FsPath, two: &FsPath) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).expect("exchanges");
}

/// A share of more directories than there are watches is cached all the same where the process may mark its file system,
/// and is right in any case.
#[tokio::test]
async fn directories_beyond_the_watches_are_cached() {
    directories_beyond(watches(Some(10)), may_mark()).await;
}

/// So it is without the privilege that a mark needs.
#[test]
fn directories_beyond_the_watches_are_right_without_privilege() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    // Privileges are a thread's, and directories begin to be watched in the thread that looks into them.
    let unprivileged = std::thread::spawn(|| {
        let mut sets = capabilities(None).expect("tells");
        sets.effective.remove(CapabilitySet::SYS_ADMIN);
        set_capabilities(None, sets).expect("gives up a privilege");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runs");
        runtime.block_on(directories_beyond(watches(Some(10)), false));
    });
    unprivileged.join().expect("ends");
}

/// So it is where it is the system that has no more watches.
#[test]
fn directories_beyond_the_systems_watches_are_right() {
    if std::env::var_os(FEW_WATCHES).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runs");
        return runtime.block_on(directories_beyond(watches(None), false));
    }
    let ourselves = std::env::current_exe().expect("is known");
    let script = "echo 10 > /proc/sys/user/max_inotify_watches && exec \"$0\" --exact --nocapture \"$1\"";
    let child = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script])
        .arg(ourselves)
        .arg("directories_beyond_the_systems_watches_are_right")
        .env(FEW_WATCHES, "1")
        .output();
    match child {
        Ok(child) if String::from_utf8_lossy(&child.stdout).contains("running 1 test") => {
            assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        }
        other => eprintln!("not tested: no user namespace with few watches is to be had: {other:?}"),
    }
}

async fn directories_beyond(mode: Mode, all_are_told: bool) {
    for place in places() {
        let scratch = Scratch::new(&place);
        let dirs: Vec<String> = (0..30).map(|number| format!("d{number}")).collect();
        for dir in &dirs {
            fs::create_dir(scratch.share(dir)).expect("makes");
            fs::write(scratch.share(&format!("{dir}/file")), "").expect("writes");
        }
        let bed = Bed::local(&scratch, mode).await;
        let look = async || {
            for dir in &dirs {
                assert!(bed.see(&format!("{dir}/FILE")).await.is_some());
                for absent in ["u", "v", "w"] {
                    assert!(bed.see(&format!("{dir}/{absent}")).await.is_none());
                }
            }
        };
        for _ in 0..4 {
            look().await;
        }
        let before = bed.vfs.counters();
        look().await;
        let asked = bed.vfs.counters().backend_lookups - before.backend_lookups;
        let searched = bed.vfs.counters().backend_folded_lookups - before.backend_folded_lookups;
        if all_are_told {
            assert_eq!((asked, searched), (0, 0));
        } else {
            // Twenty-one are not watched: each is looked for four times, and its names three times.
            assert!(asked > 20 * 4, "{asked}");
        }
        for (round, dir) in dirs.iter().enumerate() {
            let at = |name: &str| scratch.share(&format!("{dir}/{name}"));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    fs::write(at("U"), "").expect("writes");
                    fs::rename(at("file"), at("V")).expect("renames");
                    fs::write(at("passing"), "").expect("writes");
                    fs::remove_file(at("passing")).expect("removes");
                });
            });
            for (name, there) in [("u", true), ("v", true), ("file", false), ("w", false), ("PASSING", false)]
            {
                for _ in 0..2 {
                    assert_eq!(bed.see(&format!("{dir}/{name}")).await.is_some(), there, "{name} {round}");
                }
            }
            bed.create(&format!("{dir}/ours"), CreateHow::file()).await.expect("makes");
            assert!(bed.see(&format!("{dir}/OURS")).await.is_some());
            bed.rename(&format!("{dir}/ours"), &format!("{dir}/w")).await.expect("renames");
            bed.remove(&format!("{dir}/W")).await.expect("removes");
            assert!(bed.see(&format!("{dir}/w")).await.is_none());
            assert_eq!(truth(&scratch.share(&format!("{dir}/"))).len(), 2);
        }
        bed.vfs.check_at_rest().await;
    }
}

/// More changes than the kernel's queue holds, while nobody looks: what was known of the directory is learnt anew.
#[tokio::test]
async fn more_changes_than_the_kernel_keeps_are_noticed() {
    let most = ["inotify", "fanotify"].map(|which| {
        let most = fs::read_to_string(format!("/proc/sys/fs/{which}/max_queued_events"));
        most.ok().and_then(|most| most.trim().parse().ok()).unwrap_or(0_usize)
    });
    let most = most[0].max(most[1]);
    if most > 100_000 {
        return eprintln!("not tested: the kernel's queue holds {most} changes");
    }
    for place in places() {
        for mode in [watches(None), watches(Some(0)), watches(Some(1))] {
            let scratch = Scratch::new(&place);
            fs::create_dir(scratch.share("d")).expect("makes");
            let bed = Bed::local(&scratch, mode).await;
            for file in ["Early", "d/Early", "busy"] {
                fs::write(scratch.share(file), "").expect("writes");
            }
            let early = ["early", "d/early"];
            for _ in 0..4 {
                for (at, late) in early.iter().zip(["late", "d/late"]) {
                    assert!(bed.see(at).await.is_some() && bed.see(late).await.is_none());
                }
            }
            // Of one directory and then of the other. Names of their own, since what looks alike becomes one.
            for (step, dir) in ["", "d/"].into_iter().enumerate() {
                let mut busy = scratch.share("busy");
                for number in 0..most / 2 + 2 {
                    let next = scratch.share(&format!("{dir}busy{step}-{number}"));
                    fs::rename(&busy, &next).expect("renames");
                    busy = next;
                }
                fs::rename(busy, scratch.share("busy")).expect("renames");
                fs::write(scratch.share(&format!("{dir}Late")), "").expect("writes");
                fs::remove_file(scratch.share(&format!("{dir}Early"))).expect("removes");
                for (other, (at, late)) in early.iter().zip(["late", "d/late"]).enumerate() {
                    for _ in 0..3 {
                        assert_eq!(bed.see(at).await.is_some(), other > step, "{at}, {mode:?}");
                        assert_eq!(bed.see(late).await.is_some(), other <= step, "{late}, {mode:?}");
                    }
                }
            }
            bed.vfs.check_at_rest().await;
        }
    }
}

/// Something mounted in a test's directory, until the test ends.
struct Mounted(PathBuf);

impl Mounted {
    /// The directory `from` at `to` as well; `None`: this process may not.
    fn bind(from: &FsPath, to: &FsPath) -> Option<Mounted> {
        match rustix::mount::mount_bind(from, to) {
            Ok(()) => Some(Mounted(to.to_owned())),
            Err(error) => {
                eprintln!("not tested: nothing can be mounted here: {error}");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.as_path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// A directory that stands at two places of a share is one directory: what is made at one is there at the other, by us
/// and by others, and a file that is open through one is the same as through the other.
#[tokio::test]
async fn a_directory_that_is_mounted_twice_is_one() {
    for place in places() {
        for mode in MODES {
            let scratch = Scratch::new(&place);
            for dir in ["one", "one/below", "two"] {
                fs::create_dir(scratch.share(dir)).expect("makes");
            }
            let Some(_mounted) = Mounted::bind(&scratch.share("one"), &scratch.share("two")) else { return };
            let bed = Bed::local(&scratch, mode).await;
            for round in 0..12 {
                for (here, there) in [("one", "two"), ("two", "one"), ("one/below", "two/below")] {
                    let (at, other) = (format!("{here}/x{round}"), format!("{there}/X{round}"));
                    for _ in 0..2 {
                        assert!(bed.see(&at).await.is_none() && bed.see(&other).await.is_none(), "{mode:?}");
                    }
                    if round % 2 == 0 {
                        let made = bed.create(&at, CreateHow::file()).await.expect("makes");
                        assert!(matches!(made, Creation::Created { .. }));
                    } else {
                        fs::write(scratch.share(&at), "").expect("writes");
                    }
                    let seen = bed.see(&other).await.expect("is there as well");
                    assert_eq!(Some(seen), bed.see(&at).await, "{mode:?}");
                    let (one, two) = (bed.link(&at).await, bed.link(&other).await);
                    assert!(Arc::ptr_eq(one.node(), two.node()), "one file, one set of opens");
                    if round % 3 == 0 {
                        fs::remove_file(scratch.share(&at)).expect("removes");
                    } else {
                        bed.remove(&other).await.expect("removes");
                    }
                    assert!(bed.see(&at).await.is_none() && bed.see(&other).await.is_none(), "{mode:?}");
                }
            }
            bed.vfs.check_at_rest().await;
        }
    }
}
