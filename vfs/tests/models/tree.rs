//! Renames and directories: deadlocks, loops, removed directories, paths.

use std::collections::HashSet;
use std::sync::Arc;

use shoal_vfs::*;
use shuttle::future::spawn;

use crate::backend::{Bed, model, name};
use crate::run::holds;
use crate::together;

/// `a` to `b` against `b` to `a`.
pub async fn opposite_renames() {
    let bed = Bed::new().await;
    let (x, y) = (bed.file("a").await, bed.file("b").await);
    let (one, two) = (bed.clone(), bed.clone());
    let ends = |end: Result<(), FsError>| match end {
        Ok(()) | Err(FsError::NotFound) => {}
        Err(error) => panic!("{error}"),
    };
    together!(async move { ends(one.rename(&x, &one.top, "b").await) }, async move {
        ends(two.rename(&y, &two.top, "a").await)
    },);
    let left = [bed.look("a").await, bed.look("b").await].into_iter().flatten().count();
    assert_eq!(left, 1, "one replaced the other");
    bed.finish().await;
}

/// Two renames of one link, and somebody who makes a new file where it was.
pub async fn renames_of_one_link() {
    let bed = Bed::new().await;
    let link = bed.file("a").await;
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    let (x, y) = (Arc::clone(&link), Arc::clone(&link));
    together!(
        async move { one.rename(&x, &one.top, "b").await.unwrap() },
        async move { two.rename(&y, &two.top, "c").await.unwrap() },
        async move {
            three.create(&three.top, "a", CreateHow::file()).await.unwrap();
        },
    );
    bed.finish().await;
    let place = link.name().unwrap().to_string();
    assert!(place == "b" || place == "c");
    assert!(Arc::ptr_eq(&bed.look(&place).await.unwrap(), &link));
}

/// A rename out of a directory onto that directory's neighbour, the neighbour's removal, and a create in it.
pub async fn rmdir_mess() {
    let bed = Bed::new().await;
    let d = bed.directory(&bed.top, "d").await;
    let p = bed.directory(&bed.top, "p").await;
    let x = bed.directory(d.node(), "x").await;
    let pd = bed.directory(p.node(), "d").await;
    // Known to be absent: a create asks nothing before it is made.
    let y = name("y");
    assert!(bed.vfs.lookup_one(pd.node(), &y).await.unwrap().is_none());
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    let fine = |end: Result<(), FsError>| match end {
        Ok(()) | Err(FsError::NotFound | FsError::NotEmpty | FsError::PathNotFound) => {}
        Err(error) => panic!("{error}"),
    };
    let (victim, made_in) = (Arc::clone(&pd), Arc::clone(&pd));
    together!(
        async move { fine(one.rename(&x, p.node(), "d").await) },
        async move { fine(two.remove(&victim).await.map(drop)) },
        async move { fine(three.create(made_in.node(), "y", CreateHow::file()).await.map(drop)) },
    );
    bed.finish().await;
}

/// A file is moved out of a directory and into another; both are being removed.
pub async fn removals_against_renames() {
    let bed = Bed::new().await;
    let a = bed.directory(&bed.top, "a").await;
    let b = bed.directory(&bed.top, "b").await;
    let (file, _) = bed.create(a.node(), "f", CreateHow::file()).await.unwrap();
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    let (to, from, victim) = (Arc::clone(&b), Arc::clone(&a), Arc::clone(&b));
    let fine = |end: Result<(), FsError>| match end {
        Ok(()) | Err(FsError::NotFound | FsError::NotEmpty | FsError::PathNotFound) => {}
        Err(error) => panic!("{error}"),
    };
    together!(
        async move { fine(one.rename(&file, to.node(), "g").await) },
        async move { fine(two.remove(&from).await.map(drop)) },
        async move { fine(three.remove(&victim).await.map(drop)) },
    );
    bed.finish().await;
    assert!(!a.is_gone() || !b.is_gone(), "the file is somewhere");
}

/// Three directories, each moved into the next.
pub async fn no_loops() {
    let bed = Bed::new().await;
    let links = [
        bed.directory(&bed.top, "a").await,
        bed.directory(&bed.top, "b").await,
        bed.directory(&bed.top, "c").await,
    ];
    let tasks: Vec<_> = (0..3)
        .map(|i| {
            let (bed, link, into) = (bed.clone(), Arc::clone(&links[i]), Arc::clone(&links[(i + 1) % 3]));
            spawn(async move {
                match bed.rename(&link, into.node(), "x").await {
                    Ok(()) | Err(FsError::Invalid) => {}
                    Err(error) => panic!("{error}"),
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // All are still reached from the root, by the cache's account and by the storage's.
    for link in &links {
        let mut seen = HashSet::new();
        let mut place = link.place();
        while let Some((dir, _)) = place {
            assert!(seen.insert(dir.id()), "a loop");
            if dir.id() == bed.top.id() {
                break;
            }
            place = links.iter().find(|link| link.node().id() == dir.id()).and_then(|link| link.place());
        }
        assert!(seen.contains(&bed.top.id()), "cut off from the root");
    }
    bed.finish().await;
}

/// A path is one that the object had at some instant.
pub async fn paths_of_one_instant() {
    let bed = Bed::new().await;
    let a = bed.directory(&bed.top, "a").await;
    let b = bed.directory(a.node(), "b").await;
    let (one, two) = (bed.clone(), bed.clone());
    let (outer, inner, seen) = (Arc::clone(&a), Arc::clone(&b), Arc::clone(&b));
    together!(
        async move {
            one.rename(&inner, outer.node(), "b2").await.unwrap();
            one.rename(&outer, &one.top, "A2").await.unwrap();
        },
        async move {
            for _ in 0..10 {
                let names = two.vfs.path(&two.root, &seen).expect("below the root");
                let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
                assert!(
                    [["a", "b"], ["a", "b2"], ["A2", "b2"]].iter().any(|path| names == path),
                    "{names:?} was never its path"
                );
            }
        },
    );
    bed.finish().await;
}

/// Somebody else moves a directory to and fro, while it is walked, and a file in it renamed and removed.
pub async fn foreign_moves() {
    let bed = Bed::shared().await;
    let a = bed.directory(&bed.top, "a").await;
    let (x, _) = bed.create(a.node(), "x", CreateHow::file()).await.unwrap();
    let (y, _) = bed.create(a.node(), "y", CreateHow::file()).await.unwrap();
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    let dir = Arc::clone(&a);
    together!(
        async move {
            let root = one.storage.root().await.unwrap().node;
            let (a, c) = (name("a").to_disk(), name("c").to_disk());
            one.storage.direct().rename(&root, &a, None, &root, &c, false).await.unwrap();
            shuttle::future::yield_now().await;
            one.storage.direct().rename(&root, &c, None, &root, &a, false).await.unwrap();
        },
        async move {
            for path in ["c", "a"] {
                match two.vfs.walk(&two.root, &[name(path)]).await {
                    Ok(found) => assert_eq!(found.id(), a.node().id()),
                    Err(FsError::PathNotFound) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        },
        async move {
            match three.rename(&x, dir.node(), "z").await {
                Ok(()) | Err(FsError::NotFound | FsError::PathNotFound) => {}
                Err(error) => panic!("{error}"),
            }
            three.remove(&y).await.unwrap();
        },
    );
    // At rest it is where it was, and found by whoever walks.
    let dir = bed.vfs.walk(&bed.root, &[name("a")]).await.unwrap();
    let found = [name("x"), name("z")];
    let mut there = 0;
    for name in &found {
        there += usize::from(bed.vfs.lookup_one(&dir, name).await.unwrap().is_some());
    }
    assert_eq!(there, 1);
    bed.finish().await;
}

/// Where others write too: we move a directory away and back, while a file in it is removed. It has been ours all the time.
pub async fn directories_move_away_and_back() {
    let bed = Bed::shared().await;
    let d = bed.directory(&bed.top, "d").await;
    let (x, _) = bed.create(d.node(), "x", CreateHow::file()).await.unwrap();
    let (one, two) = (bed.clone(), bed.clone());
    let moved = Arc::clone(&d);
    together!(
        async move {
            for text in ["e", "d"] {
                one.rename(&moved, &one.top, text).await.unwrap();
            }
        },
        async move { assert_eq!(two.remove(&x).await, Ok(Removal::Removed)) },
    );
    assert!(bed.vfs.lookup_one(d.node(), &name("x")).await.unwrap().is_none());
    bed.finish().await;
}

/// Somebody else moves a file away and a client finds it there, while another client replaces it where it was.
pub async fn targets_move_away() {
    let bed = Bed::shared().await;
    let d = bed.directory(&bed.top, "d").await;
    let (a, t) = (bed.file("a").await, bed.file("T").await);
    let (source, target) = (a.node().key(), t.node().key());
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    let looked_in = Arc::clone(d.node());
    together!(
        async move {
            let root = one.storage.root().await.unwrap().node;
            let storage = one.storage.direct();
            let into = storage.lookup(&root, &name("d").to_disk()).await.unwrap().unwrap().node;
            let (from, to) = (name("T").to_disk(), name("u").to_disk());
            let _replaced_first = storage.rename(&root, &from, None, &into, &to, false).await;
        },
        async move {
            two.vfs.lookup_one(&looked_in, &name("u")).await.unwrap();
            two.vfs.lookup_one(&looked_in, &name("U")).await.unwrap();
        },
        async move { three.rename(&a, &three.top, "t").await.unwrap() },
    );
    let found = |link: Option<Arc<Link<u32>>>| link.map(|link| link.node().key());
    let moved = found(bed.vfs.lookup_one(d.node(), &name("u")).await.unwrap());
    let (a, t) = (found(bed.look("a").await), found(bed.look("t").await));
    let u = found(bed.look("u").await);
    assert_eq!((a, u), (None, None), "renamed to another name than was said");
    // Replaced and then moved away, or the other way round, or replaced in its place.
    let is_one_after_the_other = match (moved, t) {
        (None, Some(t)) => t == source,
        (Some(moved), None) => moved == source,
        (Some(moved), Some(t)) => (moved, t) == (target, source),
        (None, None) => false,
    };
    assert!(is_one_after_the_other, "{moved:?} was moved away, {t:?} is left");
    bed.finish().await;
}

#[test]
fn foreign() {
    holds("foreign_moves", 5000, model(foreign_moves));
    holds("targets_move_away", 5000, model(targets_move_away));
    holds("directories_move_away_and_back", 5000, model(directories_move_away_and_back));
}

#[test]
fn renames() {
    holds("opposite_renames", 5000, model(opposite_renames));
    holds("renames_of_one_link", 5000, model(renames_of_one_link));
}

#[test]
fn removed_directories() {
    holds("rmdir_mess", 5000, model(rmdir_mess));
    holds("removals_against_renames", 5000, model(removals_against_renames));
}

#[test]
fn loops() {
    holds("no_loops", 5000, model(no_loops));
}

#[test]
fn paths() {
    holds("paths_of_one_instant", 5000, model(paths_of_one_instant));
}
