//! What is believed of a storage that others change too and that tells of it, and of a directory's index: whoever comes
//! after a change has ended sees it.

use std::sync::Arc;

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

/// Makes a directory's index, beside whatever else is done, by searches for names that are not there.
async fn fill(bed: &Bed) {
    for text in ["u", "v", "w"] {
        assert!(bed.look(text).await.is_none());
    }
}

/// Drives all slots out, so that the index has to answer; then whether each name is there.
async fn answers(bed: &Bed, names: &[(&str, bool)]) {
    for text in ["n1", "n2", "n3", "n4"] {
        assert!(bed.look(text).await.is_none());
    }
    for (text, there) in names {
        assert_eq!(bed.look(text).await.is_some(), *there, "{text}");
    }
    bed.finish().await;
}

/// A storage of ours alone with the file `a` in it, unknown to the cache, which keeps one name.
async fn little() -> Bed {
    let bed = Bed::with(true, Options { names_max: 1, ..Options::default() }).await;
    bed.plant("a", CreateHow::file()).await;
    bed
}

/// A directory's names are read while one is made in it, by two who want it in two cases.
pub async fn fills_beside_creates() {
    let bed = little().await;
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move { fill(&one).await },
        async move { drop(two.create(&two.top, "x", CreateHow::file()).await.unwrap()) },
        async move { drop(three.create(&three.top, "X", CreateHow::directory()).await.unwrap()) },
    );
    answers(&bed, &[("X", true), ("A", true)]).await;
}

/// A directory's names are read while one in it is renamed, changes its case, and goes to another directory.
pub async fn fills_beside_renames() {
    let bed = little().await;
    let d = bed.directory(&bed.top, "d").await;
    let (a, b) = (bed.look("a").await.unwrap(), bed.file("b").await);
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move { fill(&one).await },
        async move {
            two.rename(&a, &two.top, "A").await.unwrap();
            two.rename(&a, &two.top, "c").await.unwrap();
        },
        async move { three.rename(&b, d.node(), "b").await.unwrap() },
    );
    answers(&bed, &[("A", false), ("C", true), ("B", false), ("D", true)]).await;
}

/// A directory's names are read while one in it is removed and made again.
pub async fn fills_beside_removals() {
    let bed = little().await;
    let a = bed.look("a").await.unwrap();
    let b = bed.file("b").await;
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move { fill(&one).await },
        async move {
            assert_eq!(two.remove(&a).await, Ok(Removal::Removed));
            two.create(&two.top, "A", CreateHow::file()).await.unwrap();
        },
        async move { assert_eq!(three.remove(&b).await, Ok(Removal::Removed)) },
    );
    answers(&bed, &[("a", true), ("B", false)]).await;
}

/// A directory's names are read while others change them, and the queue tells of that.
pub async fn fills_beside_foreign_changes() {
    let bed = Bed::told(MANY, 1).await;
    bed.plant("a", CreateHow::file()).await;
    let d = bed.directory(&bed.top, "d").await;
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    together!(
        async move { fill(&one).await },
        async move {
            two.plant("x", CreateHow::file()).await;
            assert!(two.look("X").await.is_some(), "made, and then absent");
            two.pluck("a").await;
            assert!(two.look("A").await.is_none(), "removed, and then there");
        },
        async move {
            // A directory gets its new place in the cache, too.
            let root = three.storage.root().await.unwrap().node;
            let (from, to) = (name("d").to_disk(), name("e").to_disk());
            three.storage.direct().rename(&root, &from, None, &root, &to, false).await.unwrap();
            let found = three.look("E").await.expect("moved, and then absent");
            assert!(Arc::ptr_eq(found.node(), d.node()) && found.name() == Some(name("e")));
        },
    );
    answers(&bed, &[("X", true), ("A", false), ("D", false), ("E", true)]).await;
}

/// A directory's names are read while one in it is removed, of which nobody knows at first, and made again in another case.
pub async fn fills_beside_a_lost_answer() {
    let bed = little().await;
    let a = bed.look("a").await.unwrap();
    let (one, two) = (bed.clone(), bed.clone());
    together!(async move { fill(&one).await }, async move {
        two.storage.set_fault(Fault::Late);
        assert_eq!(two.remove(&a).await, Err(FsError::Indeterminate));
        two.vfs.quiesce().await;
        assert!(two.create(&two.top, "A", CreateHow::file()).await.unwrap().1, "it was removed");
    });
    answers(&bed, &[("a", true)]).await;
}

/// A directory's names are read while its slots are driven out, some of them by those who wait for the reading.
pub async fn fills_beside_evictions() {
    let bed = little().await;
    let (one, two, three) = (bed.clone(), bed.clone(), bed.clone());
    together!(async move { fill(&one).await }, async move { fill(&two).await }, async move {
        for text in ["x", "y"] {
            assert!(three.create(&three.top, text, CreateHow::file()).await.unwrap().1);
            assert!(three.look("A").await.is_some());
        }
    },);
    answers(&bed, &[("X", true), ("Y", true), ("A", true)]).await;
}

/// A directory has more names than its index takes: a name that is spelled as it stands there costs no search, and is
/// right while it is renamed and asked for in another case.
pub async fn full_directories() {
    let bed = Bed::many().await;
    for number in 0..9 {
        bed.plant(&format!("f{number}"), CreateHow::file()).await;
    }
    bed.plant("foo", CreateHow::file()).await;
    fill(&bed).await;
    bed.vfs.quiesce().await;
    let searches = bed.vfs.counters().backend_folded_lookups;
    assert!(bed.look("f1").await.is_some());
    assert_eq!(bed.vfs.counters().backend_folded_lookups, searches, "it was searched for");
    let (one, two) = (bed.clone(), bed.clone());
    let lower = bed.look("foo").await.unwrap();
    let kept = Arc::clone(&lower);
    together!(
        async move {
            for text in ["FOO", "foo"] {
                assert!(one.look(text).await.is_none_or(|link| Arc::ptr_eq(&link, &kept)));
            }
        },
        async move {
            assert!(!two.create(&two.top, "Foo", CreateHow::file()).await.unwrap().1, "made beside another");
            two.rename(&lower, &two.top, "bar").await.unwrap();
            assert!(two.look("foo").await.is_none() && two.look("Bar").await.is_some());
        },
    );
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
    holds("fills_beside_creates", 2_000, model(fills_beside_creates));
    holds("fills_beside_renames", 2_000, model(fills_beside_renames));
    holds("fills_beside_removals", 2_000, model(fills_beside_removals));
    holds("fills_beside_foreign_changes", 2_000, model(fills_beside_foreign_changes));
    holds("fills_beside_a_lost_answer", 2_000, model(fills_beside_a_lost_answer));
    holds("fills_beside_evictions", 2_000, model(fills_beside_evictions));
    holds("full_directories", 2_000, model(full_directories));
}
