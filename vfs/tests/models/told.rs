//! What is believed of a storage that others change too and that tells of it, and of a directory's index: whoever comes
//! after a change has ended sees it.

use shoal_vfs::*;

use crate::backend::{Bed, Fault, model, name};
use crate::run::holds;
use crate::together;

const MANY: usize = 1_000;

/// Two looks, after which a directory is watched.
async fn watch(bed: &Bed) {
    for text in ["u", "v", "w"] {
        assert!(bed.look(text).await.is_none());
    }
}

/// Somebody reads the queue and has not applied it yet, when another comes.
pub async fn barrier() {
    let bed = Bed::told(MANY, MANY).await;
    watch(&bed).await;
    bed.file("x").await;
    for _ in 0..2 {
        assert!(bed.look("x").await.is_some());
    }
    let (one, two) = (bed.clone(), bed.clone());
    together!(
        async move {
            one.look("x").await;
            one.look("x").await;
        },
        async move {
            two.pluck("x").await;
            assert!(two.look("x").await.is_none(), "removed, and then there");
        },
    );
    bed.finish().await;
}

/// A name is made by others while it is looked up.
pub async fn changes_during_a_lookup() {
    let bed = Bed::told(MANY, MANY).await;
    watch(&bed).await;
    let (one, two) = (bed.clone(), bed.clone());
    together!(
        async move {
            one.look("x").await;
        },
        async move {
            two.plant("x", CreateHow::file()).await;
            assert!(two.look("x").await.is_some(), "made, and then absent");
        },
    );
    assert!(bed.look("x").await.is_some(), "made, and then absent");
    bed.finish().await;
}

/// A directory begins to be watched while names in it are looked up and made.
pub async fn watches_begin() {
    let bed = Bed::told(MANY, MANY).await;
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move {
            one.look("x").await;
        },
        async move {
            two.plant("x", CreateHow::file()).await;
            two.look("y").await;
            assert!(two.look("x").await.is_some(), "made, and then absent");
        },
        async move {
            three.look("z").await;
            three.look("x").await;
        },
    );
    for _ in 0..2 {
        assert!(bed.look("x").await.is_some(), "made, and then absent");
    }
    bed.finish().await;
}

/// A name that was looked up before its directory was watched, and made before that too.
pub async fn stamps() {
    let bed = Bed::told(MANY, MANY).await;
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move {
            one.look("x").await;
        },
        async move {
            two.plant("x", CreateHow::file()).await;
        },
        async move {
            three.look("y").await;
        },
    );
    assert!(bed.look("x").await.is_some(), "made, and then absent");
    bed.finish().await;
}

/// Changes are lost, and the directory is watched anew, while a name is looked up.
pub async fn lost_during_a_lookup() {
    let bed = Bed::told(1, MANY).await;
    let (one, two) = (bed.clone(), bed.clone());
    together!(
        async move {
            one.look("x").await;
        },
        async move {
            for text in ["p", "x", "q"] {
                two.plant(text, CreateHow::file()).await;
            }
            two.look("y").await;
        },
    );
    assert!(bed.look("x").await.is_some(), "made, and then absent");
    bed.finish().await;
}

/// A name that we made is removed and made again by others.
pub async fn own_changes_are_told_once() {
    let bed = Bed::told(MANY, MANY).await;
    watch(&bed).await;
    bed.file("x").await;
    let other = bed.clone();
    together!(
        async move {
            other.look("x").await;
        },
        async move {
            for _ in 0..2 {
                bed.pluck("x").await;
                assert!(bed.look("x").await.is_none(), "removed, and then there");
                bed.plant("x", CreateHow::file()).await;
                assert!(bed.look("x").await.is_some(), "made, and then absent");
            }
            bed.finish().await;
        },
    );
}

/// Others make a name that we make as well, after we have seen that it is absent.
pub async fn makings_meet_foreign_ones() {
    let bed = Bed::told(MANY, MANY).await;
    watch(&bed).await;
    let (one, two) = (bed.clone(), bed.clone());
    together!(
        async move {
            one.create(&one.top, "x", CreateHow::file()).await.expect("it is there, whoever made it");
        },
        async move {
            let root = two.storage.root().await.unwrap().node;
            let disk = name("x").to_disk();
            let _who_comes_first = two.storage.direct().create(&root, &disk, &CreateHow::file()).await;
        },
    );
    bed.finish().await;
}

/// A name that we make is evicted before the index has heard of it, while others look for it.
pub async fn makings_are_evicted() {
    let bed = Bed::told(MANY, 1).await;
    watch(&bed).await;
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move {
            one.look("x").await;
        },
        async move {
            two.look("y").await;
        },
        async move {
            three.file("x").await;
        },
    );
    assert!(bed.look("x").await.is_some(), "made, and then absent");
    bed.finish().await;
}

/// More changes than the queue holds.
pub async fn changes_are_lost() {
    let bed = Bed::told(1, MANY).await;
    bed.plant("a", CreateHow::file()).await;
    watch(&bed).await;
    assert!(bed.look("b").await.is_none());
    let (one, two) = (bed.clone(), bed.clone());
    together!(
        async move {
            one.look("b").await;
        },
        async move {
            for text in ["c", "d", "e", "B"] {
                two.plant(text, CreateHow::file()).await;
            }
            assert!(two.look("b").await.is_some(), "made, and then absent");
            assert!(two.look("D").await.is_some(), "made, and then absent");
        },
    );
    bed.finish().await;
}

/// A directory's names are read while others of ours are made, renamed and removed in it; then nothing is left of the
/// slots, and the index answers.
pub async fn fills() {
    let bed = Bed::with(true, Options { names_max: 1, ..Options::default() }).await;
    bed.plant("a", CreateHow::file()).await;
    let old = bed.look("a").await.unwrap();
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move {
            for text in ["u", "v", "w"] {
                assert!(one.look(text).await.is_none());
            }
        },
        async move {
            two.create(&two.top, "x", CreateHow::file()).await.unwrap();
        },
        async move { three.rename(&old, &three.top, "b").await.unwrap() },
    );
    for text in ["n1", "n2", "n3", "n4"] {
        assert!(bed.look(text).await.is_none());
    }
    assert!(bed.look("X").await.is_some(), "made, and then absent");
    assert!(bed.look("B").await.is_some() && bed.look("A").await.is_none());
    bed.finish().await;
}

/// A directory's names are read while one is being made of which nobody will know whether it was.
pub async fn fills_beside_the_unknown() {
    let bed = Bed::with(true, Options { names_max: 1, ..Options::default() }).await;
    bed.plant("a", CreateHow::file()).await;
    bed.storage.set_fault(Fault::Late);
    let (one, two) = (bed.clone(), bed.clone());
    together!(
        async move {
            let made = one.create(&one.top, "x", CreateHow::file()).await;
            assert_eq!(made.err(), Some(FsError::Indeterminate));
        },
        async move {
            for text in ["u", "v", "w"] {
                assert!(two.look(text).await.is_none());
            }
        },
    );
    bed.vfs.quiesce().await;
    for text in ["n1", "n2", "n3", "n4"] {
        assert!(bed.look(text).await.is_none());
    }
    assert!(bed.look("X").await.is_some(), "made, and then absent");
    bed.finish().await;
}

#[test]
fn foreign_changes_are_told() {
    holds("barrier", 4_000, model(barrier));
    holds("changes_during_a_lookup", 4_000, model(changes_during_a_lookup));
    holds("watches_begin", 4_000, model(watches_begin));
    holds("stamps", 4_000, model(stamps));
    holds("lost_during_a_lookup", 4_000, model(lost_during_a_lookup));
    holds("own_changes_are_told_once", 4_000, model(own_changes_are_told_once));
    holds("makings_meet_foreign_ones", 4_000, model(makings_meet_foreign_ones));
    holds("makings_are_evicted", 4_000, model(makings_are_evicted));
    holds("changes_are_lost", 4_000, model(changes_are_lost));
}

#[test]
fn indexes() {
    holds("fills", 2_000, model(fills));
    holds("fills_beside_the_unknown", 2_000, model(fills_beside_the_unknown));
}
