//! What a failing storage does to whom: an error reaches those who asked, and nobody else; an outcome that nobody knows
//! keeps the names until it is known; a bug ends one request; and afterwards the cache says what the storage says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shoal_vfs::faulty::{Fault, Faulty, Verb};
use shoal_vfs::latency::Latency;
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;
use tokio::time::timeout;

use crate::client::{calm, hush, name};

const UNKNOWN: [Fault; 3] = [Fault::UnknownUndone, Fault::UnknownDone, Fault::UnknownLate];

struct Bed {
    faulty: Arc<Faulty>,
    vfs: Arc<Vfs<u32>>,
    top: Arc<Node<u32>>,
    root: Root<u32>,
}

impl Bed {
    async fn new(exclusive: bool) -> Bed {
        Bed::behind(exclusive, |faulty| faulty).await
    }

    async fn behind(exclusive: bool, wrap: impl FnOnce(Arc<Faulty>) -> Arc<dyn Backend>) -> Bed {
        let memory = Memory::new(MemoryOptions { exclusive, ..MemoryOptions::default() });
        let faulty = Faulty::new(memory, 1);
        let vfs = Vfs::new(Options::default());
        let root = vfs.mount(wrap(Arc::clone(&faulty)), Fold::Insensitive).await.expect("mounts");
        let top = Arc::clone(root.link().node());
        Bed { faulty, vfs, top, root }
    }

    async fn create(&self, text: &str) -> Result<Arc<Link<u32>>> {
        make(&self.vfs, &self.top, text, CreateHow::file()).await
    }

    async fn directory(&self, text: &str) -> Arc<Link<u32>> {
        make(&self.vfs, &self.top, text, CreateHow::directory()).await.expect("creates")
    }

    async fn look(&self, text: &str) -> Result<Option<Arc<Link<u32>>>> {
        self.vfs.lookup_one(&self.top, &name(text)).await
    }

    async fn is_there(&self, text: &str) -> bool {
        self.look(text).await.expect("looks up").is_some()
    }

    async fn remove(&self, link: &Arc<Link<u32>>) -> Result<Removal> {
        link.node().opens().set_delete_pending(link, true);
        self.vfs.remove_link(link).await
    }

    async fn rename(&self, link: &Arc<Link<u32>>, to: &str, replace: bool) -> Result<(), RenameError<()>> {
        self.vfs.rename(link, &self.top, &name(to), replace, |_| Ok(())).await
    }

    async fn at_rest(&self) {
        timeout(Duration::from_secs(20), self.vfs.quiesce()).await.expect("all comes to rest");
        self.vfs.check_at_rest().await;
    }
}

async fn make(
    vfs: &Arc<Vfs<u32>>,
    dir: &Arc<Node<u32>>,
    text: &str,
    how: CreateHow,
) -> Result<Arc<Link<u32>>> {
    match vfs.create(dir, &name(text), how, |_, _| ()).await? {
        Creation::Created { link, .. } => Ok(link),
        Creation::Exists(_) => Err(FsError::Exists),
    }
}

/// An error is told to those who wait for that answer, is not stored, and is not taken for absence.
#[tokio::test(start_paused = true)]
async fn an_error_reaches_those_who_asked() {
    const DELAY: Duration = Duration::from_millis(5);
    for exclusive in [true, false] {
        for (fault, error) in [(Fault::Io, FsError::Io(5)), (Fault::Denied, FsError::AccessDenied)] {
            let bed = Bed::behind(exclusive, |faulty| Arc::new(Latency::new(faulty, DELAY))).await;
            let root = bed.faulty.root().await.expect("tells").node;
            let planted = bed.faulty.create(&root, &name("x").to_disk(), &CreateHow::file()).await;
            drop(planted.expect("creates"));
            bed.faulty.script(Verb::Lookup, fault);
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let (vfs, top) = (Arc::clone(&bed.vfs), Arc::clone(&bed.top));
                    tokio::spawn(async move {
                        vfs.lookup_one(&top, &name("x")).await.map(|found| found.is_some())
                    })
                })
                .collect();
            let mut failed = 0;
            for reader in readers {
                match reader.await.expect("ends") {
                    Ok(found) => assert!(found, "an error was taken for absence"),
                    Err(told) => {
                        assert_eq!(told, error);
                        failed += 1;
                    }
                }
            }
            assert!(failed >= 1 && (!exclusive || failed == 4), "{failed} of 4 were told");
            assert!(bed.is_there("x").await, "the error was stored");
            bed.at_rest().await;
        }
    }
}

/// Each change whose outcome nobody knows: until the storage has settled the name stays claimed, and its directory as
/// it is; then the cache asks what has come of it.
#[tokio::test]
async fn unknown_outcomes() {
    for exclusive in [true, false] {
        for fault in UNKNOWN {
            for verb in [Verb::Create, Verb::Remove, Verb::Rename, Verb::Link] {
                unknown_outcome(exclusive, verb, fault).await;
            }
        }
    }
}

async fn unknown_outcome(exclusive: bool, verb: Verb, fault: Fault) {
    let bed = Bed::new(exclusive).await;
    let dir = bed.directory("dir").await;
    let x = make(&bed.vfs, dir.node(), "x", CreateHow::file()).await.expect("creates");
    let file = bed.vfs.open(&x, OpenHow::default()).await.expect("opens");
    bed.faulty.stay_unsettled(true);
    bed.faulty.script(verb, fault);
    let (old, new) = (name("x"), name("y"));
    let admit = |_: &mut RenameView<'_, u32>| Ok::<_, ()>(());
    let touched = if verb == Verb::Remove { &old } else { &new };
    match verb {
        Verb::Create => {
            let made = make(&bed.vfs, dir.node(), "y", CreateHow::file()).await;
            assert_eq!(made.err(), Some(FsError::Indeterminate));
        }
        Verb::Remove => assert_eq!(bed.remove(&x).await, Err(FsError::Indeterminate)),
        Verb::Rename => {
            let renamed = bed.vfs.rename(&x, dir.node(), &new, false, admit).await;
            assert_eq!(renamed, Err(RenameError::Fs(FsError::Indeterminate)));
        }
        _ => {
            let linked = bed.vfs.link(&x, &file, dir.node(), &new, false, admit).await;
            assert_eq!(linked.err(), Some(RenameError::Fs(FsError::Indeterminate)));
        }
    }
    // Nobody changes the name, nobody removes the directory.
    let waits = |future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| async move {
        let mut future = future;
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    };
    let (vfs, node, text) = (Arc::clone(&bed.vfs), Arc::clone(dir.node()), touched.to_string());
    let creating = async move { drop(make(&vfs, &node, &text, CreateHow::file()).await) };
    if verb != Verb::Remove || !exclusive {
        assert!(waits(Box::pin(creating)).await, "{verb:?} {fault:?}: the name was let go of");
    }
    let (vfs, removed) = (Arc::clone(&bed.vfs), Arc::clone(&dir));
    removed.node().opens().set_delete_pending(&removed, true);
    let removing = async move { drop(vfs.remove_link(&removed).await) };
    assert!(waits(Box::pin(removing)).await, "{verb:?} {fault:?}: the gate was let go of");
    if verb == Verb::Remove || verb == Verb::Rename {
        // Who would open it now waits for what becomes of it.
        assert!(
            x.node().opens().attach(&x).is_err(),
            "{verb:?} {fault:?}: opened before the outcome is known"
        );
    }
    bed.faulty.stay_unsettled(false);
    timeout(Duration::from_secs(20), bed.vfs.quiesce()).await.expect("all comes to rest");
    bed.vfs.check_at_rest().await;
    let is_done = fault != Fault::UnknownUndone;
    let has = async |name: &Name| bed.vfs.lookup_one(dir.node(), name).await;
    // The removal of the directory that was begun above goes on though nobody waits for it; it is not empty, unless
    // its only name was removed.
    match verb {
        Verb::Remove if is_done => assert!(x.is_gone()),
        _ => {
            let expected = match verb {
                Verb::Create | Verb::Link => (true, is_done),
                Verb::Rename => (!is_done, is_done),
                _ => (true, false),
            };
            let found = (has(&old).await.expect("looks up"), has(&new).await.expect("looks up"));
            assert_eq!((found.0.is_some(), found.1.is_some()), expected, "{verb:?} {fault:?}");
        }
    }
    if verb == Verb::Rename {
        // The link stands where the object is, and by it the object is opened and removed.
        assert_eq!(x.name(), Some(if is_done { new.clone() } else { old.clone() }), "{fault:?}");
        bed.vfs.open(&x, OpenHow::default()).await.expect("opens by its link");
        assert_eq!(bed.remove(&x).await, Ok(Removal::Removed));
        assert!(has(&old).await.expect("looks up").is_none());
        assert!(has(&new).await.expect("looks up").is_none());
    }
    bed.at_rest().await;
}

/// A directory whose removal may or may not have happened takes no new names before that is known.
#[tokio::test]
async fn a_removal_of_a_directory_with_an_unknown_outcome() {
    for fault in UNKNOWN {
        let bed = Bed::new(true).await;
        let dir = bed.directory("dir").await;
        bed.faulty.stay_unsettled(true);
        bed.faulty.script(Verb::Remove, fault);
        assert_eq!(bed.remove(&dir).await, Err(FsError::Indeterminate));
        let (vfs, node) = (Arc::clone(&bed.vfs), Arc::clone(dir.node()));
        let creating = tokio::spawn(async move { make(&vfs, &node, "x", CreateHow::file()).await.map(drop) });
        tokio::task::yield_now().await;
        assert!(!creating.is_finished(), "{fault:?}");
        bed.faulty.stay_unsettled(false);
        let created = timeout(Duration::from_secs(20), creating).await.expect("ends").expect("ends");
        if fault == Fault::UnknownUndone {
            assert_eq!(created, Ok(()));
        } else {
            assert_eq!(created, Err(FsError::PathNotFound));
            assert!(!bed.is_there("dir").await);
        }
        bed.at_rest().await;
    }
}

/// A target that may or may not have been replaced is not opened before that is known.
#[tokio::test]
async fn a_replacement_with_an_unknown_outcome() {
    for fault in UNKNOWN {
        let bed = Bed::new(true).await;
        let (x, y) = (bed.create("x").await.expect("creates"), bed.create("y").await.expect("creates"));
        bed.faulty.stay_unsettled(true);
        bed.faulty.script(Verb::Rename, fault);
        let renamed = bed.rename(&x, "Y", true).await;
        assert_eq!(renamed, Err(RenameError::Fs(FsError::Indeterminate)));
        assert_eq!(y.node().opens().attach(&y), Err(Attach::Gone));
        bed.faulty.stay_unsettled(false);
        bed.at_rest().await;
        let found = bed.look("y").await.expect("looks up").expect("is there");
        let stays = fault == Fault::UnknownUndone;
        assert!(Arc::ptr_eq(&found, if stays { &y } else { &x }), "{fault:?}");
        assert_eq!(y.is_gone(), !stays);
        assert_eq!(found.node().opens().attach(&found), Ok(()));
    }
}

/// Where others write too: what stands in a directory that we are moving is removed all the same, once that has ended.
#[tokio::test]
async fn a_removal_below_a_directory_that_moves() {
    let bed = Bed::new(false).await;
    let (d, e) = (bed.directory("d").await, bed.directory("e").await);
    let k = make(&bed.vfs, d.node(), "k", CreateHow::file()).await.expect("creates");
    let x = make(&bed.vfs, d.node(), "x", CreateHow::file()).await.expect("creates");
    bed.faulty.stay_unsettled(true);
    bed.faulty.script(Verb::Rename, Fault::UnknownDone);
    let moved = bed.vfs.rename(&d, e.node(), &name("d"), false, |_| Ok::<_, ()>(())).await;
    assert_eq!(moved, Err(RenameError::Fs(FsError::Indeterminate)));
    k.node().opens().set_delete_pending(&k, true);
    let vfs = Arc::clone(&bed.vfs);
    let removing = tokio::spawn(async move { vfs.remove_link(&k).await });
    let (vfs, to) = (Arc::clone(&bed.vfs), Arc::clone(&bed.top));
    let renaming =
        tokio::spawn(async move { vfs.rename(&x, &to, &name("y"), false, |_| Ok::<_, ()>(())).await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!removing.is_finished() && !renaming.is_finished(), "the directory is not where it was");
    bed.faulty.stay_unsettled(false);
    let removed = timeout(Duration::from_secs(20), removing).await.expect("ends").expect("ends");
    assert_eq!(removed, Ok(Removal::Removed));
    let renamed = timeout(Duration::from_secs(20), renaming).await.expect("ends").expect("ends");
    assert_eq!(renamed, Ok(()));
    let root = bed.root.backend().root().await.expect("tells").node;
    let find = async |dir: &BackendNode, text: &str| {
        bed.root.backend().lookup(dir, &name(text).to_disk()).await.expect("looks up")
    };
    let e = find(&root, "e").await.expect("is there").node;
    let d = find(&e, "d").await.expect("is there").node;
    assert!(find(&d, "k").await.is_none() && find(&d, "x").await.is_none());
    assert!(find(&root, "y").await.is_some());
    bed.at_rest().await;
}

/// A rename that replaces a name spelled otherwise is two calls, and of either nobody may know.
#[tokio::test]
async fn a_change_of_case_with_an_unknown_outcome() {
    for fault in UNKNOWN {
        let bed = Bed::new(true).await;
        let (x, y) = (bed.create("x").await.expect("creates"), bed.create("y").await.expect("creates"));
        let file = bed.vfs.open(&x, OpenHow::default()).await.expect("opens");
        // Another name of the same object is replaced by removing the old one; then its case is changed.
        let admit = |_: &mut RenameView<'_, u32>| Ok::<_, ()>(());
        let linked = bed.vfs.link(&x, &file, &bed.top, &name("z"), false, admit).await;
        let (z, ()) = linked.expect("links");
        bed.faulty.script(Verb::Rename, fault);
        assert_eq!(bed.rename(&x, "Z", true).await, Err(RenameError::Fs(FsError::Indeterminate)));
        bed.at_rest().await;
        let spelled = if fault == Fault::UnknownUndone { "z" } else { "Z" };
        assert_eq!(x.name(), Some(name(spelled)), "{fault:?}");
        assert!(Arc::ptr_eq(&bed.look("z").await.expect("looks up").expect("is there"), &x));
        assert!(z.is_gone() && !bed.is_there("x").await && !y.is_gone());
        bed.at_rest().await;
    }
}

/// A call that hangs holds up who wants its name, and nobody else; and not less so when its request is dropped.
#[tokio::test]
async fn a_call_that_hangs() {
    for exclusive in [true, false] {
        let bed = Bed::new(exclusive).await;
        bed.faulty.script(Verb::Create, Fault::Hang);
        let (vfs, top) = (Arc::clone(&bed.vfs), Arc::clone(&bed.top));
        let hung = tokio::spawn(async move { make(&vfs, &top, "x", CreateHow::file()).await.map(drop) });
        timeout(Duration::from_secs(20), bed.faulty.hanging(1)).await.expect("hangs");
        hung.abort();
        assert!(hung.await.expect_err("was dropped").is_cancelled());
        // Others go on, in the same directory.
        let y = timeout(Duration::from_secs(20), bed.create("y")).await.expect("goes on").expect("creates");
        timeout(Duration::from_secs(20), bed.rename(&y, "z", false))
            .await
            .expect("goes on")
            .expect("renames");
        let waiting = {
            let (vfs, top) = (Arc::clone(&bed.vfs), Arc::clone(&bed.top));
            tokio::spawn(async move { make(&vfs, &top, "X", CreateHow::file()).await.map(drop) })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "the name was let go of");
        bed.faulty.release();
        let end = timeout(Duration::from_secs(20), waiting).await.expect("ends").expect("ends");
        assert_eq!(end, Err(FsError::Exists));
        bed.at_rest().await;
    }
}

/// A bug in the storage ends the request that met it. Its peers, and the names, are none the worse.
#[tokio::test]
async fn a_bug_ends_one_request() {
    hush();
    for exclusive in [true, false] {
        for verb in [Verb::Create, Verb::Remove, Verb::Rename, Verb::Link, Verb::Lookup, Verb::Open] {
            let bed = Bed::new(exclusive).await;
            let x = bed.create("x").await.expect("creates");
            let t = bed.create("t").await.expect("creates");
            let file = bed.vfs.open(&x, OpenHow::default()).await.expect("opens");
            bed.faulty.script(verb, Fault::Panic);
            let met = match verb {
                Verb::Create => calm(bed.create("y")).await.err(),
                Verb::Remove => calm(bed.remove(&x)).await.err(),
                Verb::Rename => match calm(bed.rename(&x, "t", true)).await {
                    Err(RenameError::Fs(error)) => Some(error),
                    renamed => panic!("{renamed:?}"),
                },
                Verb::Link => {
                    let t = name("t");
                    let linked = bed.vfs.link(&x, &file, &bed.top, &t, true, |_| Ok::<_, ()>(()));
                    match calm(linked).await {
                        Err(RenameError::Fs(error)) => Some(error),
                        _ => panic!("linked"),
                    }
                }
                Verb::Lookup => calm(bed.look("unknown")).await.err(),
                _ => calm(bed.vfs.open(&x, OpenHow::default())).await.err(),
            };
            assert_eq!(met, Some(FsError::Indeterminate), "{verb:?}");
            bed.at_rest().await;
            for (link, text) in [(&x, "x"), (&t, "t")] {
                // Nothing had happened, and nothing is marked.
                assert!(bed.is_there(text).await, "{verb:?}");
                assert_eq!(link.node().opens().attach(link), Ok(()), "{verb:?} {text}");
                assert!(!link.node().opens().detach(link));
            }
            assert!(!bed.is_there("y").await && !bed.is_there("unknown").await);
            bed.create("y").await.expect("creates");
            bed.rename(&x, "t", true).await.expect("renames");
            assert_eq!(bed.remove(&x).await, Ok(Removal::Removed));
            bed.at_rest().await;
        }
    }
}

/// A failed removal is not tried again by the next close.
#[tokio::test]
async fn a_failed_removal_is_no_longer_pending() {
    for fault in [Fault::Io, Fault::NoSpace, Fault::Denied] {
        let bed = Bed::new(true).await;
        let x = bed.create("x").await.expect("creates");
        bed.faulty.script(Verb::Remove, fault);
        assert!(bed.remove(&x).await.is_err());
        assert_eq!(bed.vfs.remove_link(&x).await, Ok(Removal::Kept));
        assert_eq!(x.node().opens().attach(&x), Ok(()));
        bed.at_rest().await;
    }
}

/// A rename that the storage refuses leaves both names as they were.
#[tokio::test]
async fn a_refused_rename_changes_nothing() {
    for exclusive in [true, false] {
        for (fault, error) in [
            (Fault::CrossDevice, FsError::CrossDevice),
            (Fault::NoSpace, FsError::NoSpace),
            (Fault::Io, FsError::Io(5)),
            (Fault::Denied, FsError::AccessDenied),
        ] {
            let bed = Bed::new(exclusive).await;
            let (x, y) = (bed.create("x").await.expect("creates"), bed.create("y").await.expect("creates"));
            bed.faulty.script(Verb::Rename, fault);
            assert_eq!(bed.rename(&x, "y", true).await, Err(RenameError::Fs(error)));
            for (link, text) in [(&x, "x"), (&y, "y")] {
                assert!(Arc::ptr_eq(&bed.look(text).await.expect("looks up").expect("is there"), link));
                assert_eq!(link.node().opens().attach(link), Ok(()));
            }
            bed.at_rest().await;
        }
    }
}

/// What contradicts the cache is asked for again, once, and then told.
#[tokio::test]
async fn a_stale_answer_is_asked_again() {
    let bed = Bed::new(true).await;
    let x = bed.create("x").await.expect("creates");
    bed.faulty.script(Verb::Rename, Fault::Stale);
    assert_eq!(bed.rename(&x, "y", false).await, Ok(()));
    bed.faulty.script(Verb::Rename, Fault::Stale);
    bed.faulty.script(Verb::Rename, Fault::Stale);
    assert_eq!(bed.rename(&x, "z", false).await, Err(RenameError::Fs(FsError::Stale)));
    assert!(bed.is_there("y").await);
    bed.at_rest().await;
}

/// On a storage that cannot refuse to replace, our own clients still lose no file to one another.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_no_replace() {
    for exclusive in [true, false] {
        for _ in 0..50 {
            let bed = Bed::new(exclusive).await;
            bed.faulty.replace_always();
            assert!(!bed.root.backend().caps().no_replace);
            let links = [bed.create("a").await, bed.create("b").await].map(|link| link.expect("creates"));
            let tasks: Vec<_> = links
                .iter()
                .map(|link| {
                    let (vfs, top, link) = (Arc::clone(&bed.vfs), Arc::clone(&bed.top), Arc::clone(link));
                    tokio::spawn(async move {
                        vfs.rename(&link, &top, &name("c"), false, |_| Ok::<_, ()>(())).await
                    })
                })
                .collect();
            let (vfs, top) = (Arc::clone(&bed.vfs), Arc::clone(&bed.top));
            let creator =
                tokio::spawn(async move { make(&vfs, &top, "C", CreateHow::file()).await.map(drop) });
            let mut won = 0;
            for task in tasks {
                match task.await.expect("ends") {
                    Ok(()) => won += 1,
                    Err(error) => assert_eq!(error, RenameError::Fs(FsError::Exists)),
                }
            }
            let created = creator.await.expect("ends").is_ok();
            assert_eq!(won + usize::from(created), 1, "one has the name");
            let mut left = 0;
            for text in ["a", "b", "c"] {
                left += usize::from(bed.is_there(text).await);
            }
            assert_eq!(left, if created { 3 } else { 2 }, "a file was lost");
            bed.at_rest().await;
        }
    }
}

/// A storage may read less than it was asked for.
#[tokio::test]
async fn short_reads() {
    let bed = Bed::new(true).await;
    let x = bed.create("x").await.expect("creates");
    let file = bed.vfs.open(&x, OpenHow { read: true, write: true }).await.expect("opens");
    file.write_at(0, Bytes::from(vec![7; 1000])).await.expect("writes");
    bed.faulty.script(Verb::Read, Fault::Short);
    let short = file.read_at(0, 1000).await.expect("reads").len();
    assert!((1..1000).contains(&short), "{short}");
    assert_eq!(file.read_at(0, 1000).await.expect("reads").len(), 1000);
}
