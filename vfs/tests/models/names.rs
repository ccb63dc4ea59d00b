//! Names: claims, single flight, cancellation, opens against removals.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shoal_vfs::*;
use shuttle::future::spawn;

use crate::backend::{Bed, Fault, abandon, model, name};
use crate::run::holds;
use crate::together;

/// Creators, some of whom are dropped, and a remover of one name.
pub async fn claims_are_exclusive_under_cancel() {
    let bed = Bed::new().await;
    let (a, b, c) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move {
            abandon(a.create(&a.top, "x", CreateHow::file()), 2).await;
        },
        async move {
            abandon(b.create(&b.top, "X", CreateHow::file()), 3).await;
        },
        async move {
            let (link, _) = c.create(&c.top, "x", CreateHow::file()).await.unwrap();
            c.remove(&link).await.unwrap();
        },
    );
    bed.finish().await;
}

/// Four readers of one unknown name ask once.
pub async fn lookups_coalesce() {
    let bed = Bed::new().await;
    let key = bed.plant("x", CreateHow::file()).await;
    let tasks: Vec<_> = (0..4)
        .map(|i| {
            let bed = bed.clone();
            spawn(async move {
                let link = bed.look(if i % 2 == 0 { "x" } else { "X" }).await.unwrap();
                assert_eq!(link.node().key(), key);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(bed.storage.lookups.load(Ordering::Relaxed), 1);
    bed.finish().await;
}

/// The reader who asks is dropped; so is one who waits.
pub async fn readers_are_cancelled() {
    let bed = Bed::new().await;
    let key = bed.plant("x", CreateHow::file()).await;
    let (a, b, c, d) = (bed.clone(), bed.clone(), bed.clone(), bed.clone());
    together!(
        async move {
            abandon(a.look("x"), 1).await;
        },
        async move {
            abandon(b.look("x"), 2).await;
        },
        async move { assert_eq!(c.look("x").await.unwrap().node().key(), key) },
        async move { assert!(!d.create(&d.top, "x", CreateHow::file()).await.unwrap().1) },
    );
    bed.finish().await;
}

/// Claimers and gate waiters are dropped while they wait, or just when they were granted.
pub async fn waiters_are_cancelled() {
    let bed = Bed::new().await;
    let dir = bed.directory(&bed.top, "d").await;
    let tasks: Vec<_> = (0..4)
        .map(|i| {
            let (bed, dir) = (bed.clone(), Arc::clone(&dir));
            spawn(async move {
                match i {
                    0 => drop(abandon(bed.create(dir.node(), "x", CreateHow::file()), 2).await),
                    1 => drop(abandon(bed.create(dir.node(), "x", CreateHow::file()), 1).await),
                    2 => {
                        // Not empty, perhaps: then it stays.
                        let _ = bed.remove(&dir).await;
                    }
                    _ => match bed.create(dir.node(), "x", CreateHow::file()).await {
                        Ok(_) | Err(FsError::PathNotFound) => {}
                        Err(error) => panic!("{error}"),
                    },
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    bed.finish().await;
}

/// What was told to those who waited is what was found out, whatever became of the slot since.
pub async fn answers_carry_their_value() {
    let bed = Bed::new().await;
    bed.plant("x", CreateHow::file()).await;
    let (a, b, c) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move { assert!(a.look("x").await.is_some()) },
        async move { assert!(b.look("x").await.is_some()) },
        async move {
            let link = c.look("x").await.unwrap();
            c.storage.set_fault(Fault::Unknown);
            assert_eq!(c.remove(&link).await, Err(FsError::Indeterminate));
        },
    );
    assert!(bed.look("x").await.is_some());
    bed.finish().await;
}

/// After a change whose outcome is unknown the name is asked for anew, and not before the backend has settled.
pub async fn unknown_outcomes() {
    let bed = Bed::new().await;
    let link = bed.file("x").await;
    let (a, b, c) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move {
            a.storage.set_fault(Fault::Late);
            assert_eq!(a.remove(&link).await, Err(FsError::Indeterminate));
        },
        async move {
            // The name stays claimed until then: who would make it anew waits.
            assert!(b.create(&b.top, "x", CreateHow::file()).await.is_ok());
        },
        async move {
            c.look("x").await;
        },
    );
    bed.vfs.quiesce().await;
    bed.look("x").await;
    bed.finish().await;
}

/// A target that is replaced is not opened once the rename was admitted.
pub async fn opens_against_replacement() {
    let bed = Bed::new().await;
    let target = bed.file("x").await;
    let source = bed.file("y").await;
    let (a, b) = (bed.clone(), bed.clone());
    let opened = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&opened);
    let watched = Arc::clone(&target);
    together!(
        async move {
            let admitted = a
                .vfs
                .rename(&source, &a.top, &name("x"), true, |view| {
                    let (link, opens) = view.target.as_ref().expect("x is there");
                    if opens.open_count(link) > 0 { Err(()) } else { Ok(()) }
                })
                .await;
            assert!(matches!(admitted, Ok(()) | Err(RenameError::Refused(()))));
        },
        async move {
            loop {
                let link = b.look("x").await.expect("a replaced name is never absent");
                let attached = link.node().opens().attach_at(&link, &b.top, &name("x"));
                match attached {
                    Ok(()) => {
                        if Arc::ptr_eq(&link, &watched) {
                            counting.store(1, Ordering::Relaxed);
                        }
                        break;
                    }
                    Err(Attach::Gone | Attach::Moving) => b.vfs.settled(&link).await,
                    Err(Attach::DeletePending) => panic!("nobody deletes"),
                }
            }
        },
    );
    if opened.load(Ordering::Relaxed) == 1 {
        assert!(!target.is_gone(), "an object that is open was replaced");
    }
    bed.finish().await;
}

/// The last of two closers removes the file, once, and a creator makes it anew.
pub async fn last_close_removes() {
    let bed = Bed::new().await;
    let link = bed.file("x").await;
    for _ in 0..2 {
        link.node().opens().attach(&link).unwrap();
    }
    link.node().opens().set_delete_pending(&link, true);
    let removed = Arc::new(AtomicUsize::new(0));
    let close = |bed: Bed, link: Arc<Link<u32>>, removed: Arc<AtomicUsize>| async move {
        let is_last = link.node().opens().detach(&link);
        if is_last && bed.vfs.remove_link(&link).await == Ok(Removal::Removed) {
            removed.fetch_add(1, Ordering::Relaxed);
        }
    };
    let (a, b) = (
        close(bed.clone(), link.clone(), removed.clone()),
        close(bed.clone(), link.clone(), removed.clone()),
    );
    let (c, old) = (bed.clone(), link.node().id());
    let creator = async move {
        loop {
            let (found, made) = c.create(&c.top, "x", CreateHow::file()).await.unwrap();
            if made {
                assert_ne!(found.node().id(), old);
                return;
            }
            let attached = found.node().opens().attach_at(&found, &c.top, &name("x"));
            assert!(matches!(attached, Err(Attach::Gone | Attach::DeletePending)), "{attached:?}");
            c.vfs.settled(&found).await;
            shuttle::future::yield_now().await;
        }
    };
    let tasks = [spawn(a), spawn(b), spawn(creator)];
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(removed.load(Ordering::Relaxed), 1);
    bed.finish().await;
}

/// What a listing told, a lookup after it says too.
pub async fn listings_are_settled() {
    let bed = Bed::new().await;
    let link = bed.file("x").await;
    assert!(bed.look("y").await.is_none());
    let (a, b) = (bed.clone(), bed.clone());
    together!(async move { a.rename(&link, &a.top, "y").await.unwrap() }, async move {
        let file = b.vfs.open(&b.root.link(), OpenHow { read: true, write: false }).await.unwrap();
        let page = b.vfs.read_dir(&b.top, &file, 0, 10, false).await.unwrap();
        let listed: Vec<_> = page.iter().map(|entry| entry.name.to_string()).collect();
        if listed.contains(&"y".to_owned()) {
            assert!(b.look("y").await.is_some(), "listed, and then absent");
        }
        if !listed.contains(&"x".to_owned()) {
            assert!(b.look("x").await.is_none(), "not listed, and then there");
        }
    },);
    bed.finish().await;
}

/// Where others change the tree: who asks after they did, sees it, also if somebody else's question is under way.
pub async fn late_comers_ask_again() {
    let bed = Bed::shared().await;
    let (a, b, c) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move {
            a.look("x").await;
        },
        async move {
            b.look("x").await;
        },
        async move {
            c.plant("x", CreateHow::file()).await;
            assert!(c.look("x").await.is_some(), "made, and then absent");
        },
    );
    bed.finish().await;
}

/// Eviction meanwhile: still one slot a name, and nobody is forgotten.
pub async fn eviction_meanwhile() {
    let bed = Bed::with(true, Options { names_max: 1, ..Options::default() }).await;
    let tasks: Vec<_> = (0..3)
        .map(|i| {
            let bed = bed.clone();
            spawn(async move {
                let mine = format!("n{i}");
                assert!(bed.create(&bed.top, &mine, CreateHow::file()).await.unwrap().1);
                let (link, _) = bed.create(&bed.top, "x", CreateHow::file()).await.unwrap();
                assert!(bed.look(&mine).await.is_some());
                drop(link);
                assert!(bed.look("x").await.is_some());
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    bed.finish().await;
}

/// A name comes and goes in a directory that has an index, and with it its slot, while others ask for it and make it too.
pub async fn names_come_and_go() {
    let bed = Bed::new().await;
    let dir = Arc::clone(bed.directory(&bed.top, "d").await.node());
    assert!(bed.vfs.lookup_one(&dir, &name("x")).await.unwrap().is_none());
    let come_and_go = |bed: Bed, dir: Arc<Node<u32>>| async move {
        let (link, is_made) = bed.create(&dir, "x", CreateHow::file()).await.unwrap();
        if is_made {
            let found = bed.vfs.lookup_one(&dir, &name("x")).await.unwrap();
            assert!(found.is_some_and(|found| Arc::ptr_eq(&found, &link)), "made, and then absent");
            assert_eq!(bed.remove(&link).await, Ok(Removal::Removed));
        }
        bed.vfs.lookup_one(&dir, &name("x")).await.unwrap();
    };
    together!(come_and_go(bed.clone(), Arc::clone(&dir)), come_and_go(bed.clone(), Arc::clone(&dir)));
    assert!(bed.vfs.lookup_one(&dir, &name("x")).await.unwrap().is_none());
    bed.finish().await;
}

#[test]
fn claims_are_exclusive() {
    holds("claims_are_exclusive_under_cancel", 5000, model(claims_are_exclusive_under_cancel));
}

#[test]
fn single_flight() {
    holds("lookups_coalesce", 5000, model(lookups_coalesce));
    holds("readers_are_cancelled", 5000, model(readers_are_cancelled));
}

#[test]
fn cancelled_waiters() {
    holds("waiters_are_cancelled", 5000, model(waiters_are_cancelled));
}

#[test]
fn values() {
    holds("answers_carry_their_value", 5000, model(answers_carry_their_value));
    holds("unknown_outcomes", 1000, model(unknown_outcomes));
}

#[test]
fn opens() {
    holds("opens_against_replacement", 5000, model(opens_against_replacement));
    holds("last_close_removes", 5000, model(last_close_removes));
}

#[test]
fn listings() {
    holds("listings_are_settled", 5000, model(listings_are_settled));
}

#[test]
fn foreign_changes() {
    holds("late_comers_ask_again", 5000, model(late_comers_ask_again));
}

#[test]
fn eviction() {
    holds("eviction_meanwhile", 5000, model(eviction_meanwhile));
    holds("names_come_and_go", 5000, model(names_come_and_go));
}
