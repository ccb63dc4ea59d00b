//! Linearizability: what several clients saw of one directory could have been seen by one after the other.
//!
//! The search is that of Wing and Gong: among the operations that no other had ended before, one is taken as the first
//! that the sequential directory explains, and so on; what was tried in vain is remembered.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use shoal_vfs::*;
use shuttle::future::spawn;
use shuttle::rand::{Rng, thread_rng};

use crate::backend::{Bed, model};
use crate::run::holds;

const NAMES: [&str; 3] = ["a", "b", "c"];

type Object = u64;

#[derive(Clone, Debug)]
enum Call {
    /// The name's object, if any.
    Look(usize, Option<Object>),
    /// The name's object, and whether it was made.
    Create(usize, Object, bool),
    /// Whether it was there.
    Remove(Object, bool),
    /// Whether it was there; what had the name is replaced.
    Rename(Object, usize, bool),
}

#[derive(Clone, Debug)]
struct Event {
    begin: usize,
    end: usize,
    call: Call,
}

/// A directory, one call at a time: what each name means.
type Directory = BTreeMap<usize, Object>;

/// The directory after the call, if the call could have answered so.
fn explains(directory: &Directory, call: &Call) -> Option<Directory> {
    let mut after = directory.clone();
    let name_of = |object: &Object| directory.iter().find(|(_, held)| *held == object).map(|(name, _)| *name);
    let fits = match call {
        Call::Look(name, found) => directory.get(name) == found.as_ref(),
        Call::Create(name, object, true) => after.insert(*name, *object).is_none(),
        Call::Create(name, object, false) => directory.get(name) == Some(object),
        Call::Remove(object, was_there) => {
            let name = name_of(object);
            name.map(|name| after.remove(&name));
            name.is_some() == *was_there
        }
        Call::Rename(object, to, was_there) => {
            let name = name_of(object);
            if let Some(name) = name {
                after.remove(&name);
                after.insert(*to, *object);
            }
            name.is_some() == *was_there
        }
    };
    fits.then_some(after)
}

/// Whether some order of the events, each between its begin and its end, explains all of them.
fn is_linearizable(start: &Directory, events: &[Event]) -> bool {
    fn search(
        directory: &Directory,
        left: u32,
        events: &[Event],
        vain: &mut HashSet<(u32, Directory)>,
    ) -> bool {
        if left == 0 {
            return true;
        }
        if !vain.insert((left, directory.clone())) {
            return false;
        }
        let of = |index: &usize| left & (1 << index) != 0;
        let first_end =
            (0..events.len()).filter(of).map(|index| events[index].end).min().unwrap_or(usize::MAX);
        (0..events.len()).filter(of).any(|index| {
            events[index].begin < first_end
                && explains(directory, &events[index].call)
                    .is_some_and(|after| search(&after, left & !(1 << index), events, vain))
        })
    }
    search(start, (1 << events.len()) - 1, events, &mut HashSet::new())
}

fn object(link: &Link<u32>) -> Object {
    link.node().key().inode
}

async fn act(bed: &Bed, links: &[Arc<Link<u32>>], action: u32, name: usize) -> Call {
    let link = &links[name % links.len()];
    match action {
        0..4 => Call::Look(name, bed.look(NAMES[name]).await.map(|link| object(&link))),
        4..6 => {
            let (made, is_new) = bed.create(&bed.top, NAMES[name], CreateHow::file()).await.unwrap();
            Call::Create(name, object(&made), is_new)
        }
        6 => {
            let was_there = bed.remove(link).await.unwrap() == Removal::Removed;
            Call::Remove(object(link), was_there)
        }
        _ => {
            let to = (name + action as usize) % NAMES.len();
            let was_there = match bed.rename(link, &bed.top, NAMES[to]).await {
                Ok(()) => true,
                Err(FsError::NotFound) => false,
                Err(error) => panic!("{error}"),
            };
            Call::Rename(object(link), to, was_there)
        }
    }
}

/// Three clients, three random calls each.
async fn one_directory(exclusive: bool) {
    let bed = Bed::with(exclusive, Options::default()).await;
    let mut links = Vec::new();
    let mut start = Directory::new();
    for (index, name) in NAMES.iter().enumerate().take(2) {
        let link = bed.file(name).await;
        start.insert(index, object(&link));
        links.push(link);
    }
    // A name that is known to be absent.
    bed.look(NAMES[2]).await;
    let clock = Arc::new(AtomicUsize::new(0));
    let events = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let (bed, links, clock, events) = (bed.clone(), links.clone(), clock.clone(), events.clone());
            spawn(async move {
                for _ in 0..3 {
                    let (action, name) =
                        (thread_rng().gen_range(0..10u32), thread_rng().gen_range(0..NAMES.len()));
                    let begin = clock.fetch_add(1, Ordering::Relaxed);
                    let call = act(&bed, &links, action, name).await;
                    let end = clock.fetch_add(1, Ordering::Relaxed);
                    events.lock().unwrap().push(Event { begin, end, call });
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let events = events.lock().unwrap().clone();
    assert!(is_linearizable(&start, &events), "no order explains {events:#?}");
    bed.finish().await;
}

#[test]
fn the_checker_has_teeth() {
    let event = |begin, end, call| Event { begin, end, call };
    let start = Directory::from([(0, 1)]);
    // A rename seen half done: neither name.
    let half = [
        event(0, 9, Call::Rename(1, 1, true)),
        event(1, 2, Call::Look(0, None)),
        event(3, 4, Call::Look(1, None)),
    ];
    assert!(!is_linearizable(&start, &half));
    let whole = [
        event(0, 9, Call::Rename(1, 1, true)),
        event(1, 2, Call::Look(1, None)),
        event(3, 4, Call::Look(0, None)),
    ];
    assert!(is_linearizable(&start, &whole));
}

#[test]
fn linearizable() {
    holds("linearizable", 15000, model(|| one_directory(true)));
}

#[test]
fn linearizable_where_others_write_too() {
    holds("linearizable_where_others_write_too", 10000, model(|| one_directory(false)));
}
