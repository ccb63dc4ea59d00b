//! Histories of real threads: what several clients were told of a few names, each call with its begin and its end, could
//! have been told by one after the other. After each window all comes to rest, and every name means to the cache what
//! it means to the storage.
//!
//! The models have the same on schedules of their choice (`models/linear.rs`), and with the wrong turns that they must
//! catch; here the schedule is the machine's, on storages that really take time. That the search here can fail is shown
//! on histories that were made up, and on recorded ones of which an answer was changed.
//!
//! `SHOAL_STRESS=seconds` makes each last so long.
#![cfg(not(shuttle))]

mod linear;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use linear::{Call, End, Event, Id, Place, Tree, unexplained};
use shoal_vfs::latency::Latency;
use shoal_vfs::local::{self, Local};
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;

const DIRECTORIES: usize = 2;
const NAMES: [[&str; 2]; 4] = [["a", "A"], ["b", "B"], ["long name", "LONG name"], ["d", "D"]];
const PLACES: usize = DIRECTORIES * NAMES.len();
const CLIENTS: usize = 4;
/// Calls of each client in a window: with the looks at its end fewer than a search takes.
const CALLS: usize = 5;

/// A small generator: the same seed, the same choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % sides as u64) as usize
    }
}

fn seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = since.expect("a time").as_nanos() as u64;
    println!("seed {seed}");
    seed
}

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

type Held = Arc<Link<u32>>;

fn id(link: &Held) -> Id {
    Arc::as_ptr(link) as usize
}

struct Bed {
    vfs: Arc<Vfs<u32>>,
    backend: Arc<dyn Backend>,
    directories: Vec<Arc<Node<u32>>>,
    /// The same, as the storage knows them.
    stored: Vec<BackendNode>,
    clock: AtomicU64,
}

impl Bed {
    async fn new(backend: Arc<dyn Backend>, options: Options) -> Bed {
        let vfs = Vfs::new(options);
        let root = vfs.mount(Arc::clone(&backend), Fold::Insensitive).await.expect("mounts");
        let top = backend.root().await.expect("tells").node;
        let (mut directories, mut stored) = (Vec::new(), Vec::new());
        for index in 0..DIRECTORIES {
            let spelled = name(&format!("directory {index}"));
            let made = vfs.create(root.link().node(), &spelled, CreateHow::directory(), |_, _| ()).await;
            let Ok(Creation::Created { link, .. }) = made else { panic!("creates") };
            directories.push(Arc::clone(link.node()));
            let found = backend.lookup(&top, &spelled.to_disk()).await.expect("looks up");
            stored.push(found.expect("is there").node);
        }
        Bed { vfs, backend, directories, stored, clock: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// One call, and the link that it came by.
    async fn call(&self, dice: &mut Dice, held: &[Held]) -> (Event, Option<Held>) {
        let place: Place = dice.roll(PLACES);
        let dir = &self.directories[place / NAMES.len()];
        let spelled = name(NAMES[place % NAMES.len()][dice.roll(2)]);
        let (what, replace) = (dice.roll(12), dice.roll(2) == 0);
        let link = if held.is_empty() { None } else { Some(Arc::clone(&held[dice.roll(held.len())])) };
        let begin = self.now();
        let (call, found) = match (what, link) {
            (0..2, _) => {
                match self.vfs.create(dir, &spelled, CreateHow::file(), |_, _| ()).await.expect("answers") {
                    Creation::Created { link, .. } => (Call::Create(place, id(&link), true), Some(link)),
                    Creation::Exists(link) => (Call::Create(place, id(&link), false), Some(link)),
                }
            }
            (2, Some(link)) => {
                link.node().opens().set_delete_pending(&link, true);
                let removed = self.vfs.remove_link(&link).await.expect("removes");
                // Another's removal has taken back what was pending.
                assert!(removed != Removal::Kept || link.is_gone());
                (Call::Remove(id(&link), removed == Removal::Removed), None)
            }
            (3..7, Some(link)) => {
                let renamed = self.vfs.rename(&link, dir, &spelled, replace, |_| Ok::<_, ()>(())).await;
                (Call::Rename(id(&link), place, replace, end(renamed)), None)
            }
            (7, Some(link)) => match self.vfs.open(&link, OpenHow::default()).await {
                Err(FsError::NotFound | FsError::Stale) => (Call::Link(id(&link), place, End::Gone, 0), None),
                file => {
                    let file = file.expect("opens");
                    let made = self.vfs.link(&link, &file, dir, &spelled, false, |_| Ok::<_, ()>(())).await;
                    let new = made.as_ref().ok().map(|(link, ())| Arc::clone(link));
                    let end = end(made.map(drop));
                    (Call::Link(id(&link), place, end, new.as_ref().map_or(0, id)), new)
                }
            },
            _ => {
                let found = self.vfs.lookup_one(dir, &spelled).await.expect("looks up");
                (Call::Look(place, found.as_ref().map(id)), found)
            }
        };
        (Event { begin, end: self.now(), call }, found)
    }

    /// A client's calls, beginning together with those of the others.
    async fn client(&self, mut dice: Dice, mut held: Vec<Held>) -> (Vec<Event>, Vec<Held>) {
        let mut events = Vec::new();
        for _ in 0..CALLS {
            let (event, found) = self.call(&mut dice, &held).await;
            events.push(event);
            held.extend(found);
        }
        (events, held)
    }

    /// Every name at rest: to the cache what it is to the storage.
    async fn at_rest(&self) -> (Tree, Vec<Event>, Vec<Held>) {
        self.vfs.quiesce().await;
        self.vfs.check_at_rest().await;
        let (mut tree, mut events, mut held) = (Tree::new(), Vec::new(), Vec::new());
        for place in 0..PLACES {
            let (dir, text) = (place / NAMES.len(), NAMES[place % NAMES.len()][1]);
            let begin = self.now();
            let found = self.vfs.lookup_one(&self.directories[dir], &name(text)).await.expect("looks up");
            events.push(Event { begin, end: self.now(), call: Call::Look(place, found.as_ref().map(id)) });
            let stored = self.backend.lookup_folded(&self.stored[dir], &name(text), &Fold::Insensitive).await;
            let stored: Vec<_> = stored
                .expect("looks up")
                .into_iter()
                .map(|(disk, info)| (disk.to_name(), info.metadata.key))
                .collect();
            let known: Vec<_> = found
                .iter()
                .map(|link| (link.name().expect("stands somewhere"), link.node().key()))
                .collect();
            assert_eq!(known, stored, "{text} in directory {dir}");
            if let Some(link) = found {
                tree.insert(place, id(&link));
                held.push(link);
            }
        }
        (tree, events, held)
    }
}

fn end(result: Result<(), RenameError<()>>) -> End {
    match result {
        Ok(()) => End::Done,
        Err(RenameError::Fs(FsError::NotFound | FsError::Stale)) => End::Gone,
        Err(RenameError::Fs(FsError::Exists)) => End::Taken,
        Err(error) => panic!("{error:?}"),
    }
}

fn length() -> Option<Duration> {
    let seconds = std::env::var("SHOAL_STRESS").ok()?;
    Some(Duration::from_secs(seconds.parse().expect("SHOAL_STRESS is a number of seconds")))
}

/// A window after the other; the first that no order explains. What was recorded comes to `each`.
fn record(
    backend: Arc<dyn Backend>,
    options: Options,
    windows: usize,
    mut each: impl FnMut(&Tree, &[Event], &mut Dice),
) -> Option<Vec<Event>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
    let bed = runtime.block_on(Bed::new(backend, options));
    let until = length().map(|length| Instant::now() + length);
    let mut dice = Dice(seed());
    let (mut start, _, mut held) = runtime.block_on(bed.at_rest());
    let mut window = 0;
    while until.map_or(window < windows, |until| Instant::now() < until) {
        window += 1;
        let together = Barrier::new(CLIENTS);
        let (mut events, mut kept) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let dice = Dice((dice.roll(1 << 30) as u64) << 32 | dice.roll(1 << 30) as u64);
                    let (bed, runtime, together, held) = (&bed, &runtime, &together, held.clone());
                    scope.spawn(move || {
                        together.wait();
                        runtime.block_on(bed.client(dice, held))
                    })
                })
                .collect();
            for client in clients {
                let (seen, links) = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                events.extend(seen);
                kept.extend(links);
            }
        });
        let (tree, looks, links) = runtime.block_on(bed.at_rest());
        events.extend(looks);
        if let Some(events) = unexplained(&start, &events) {
            return Some(events);
        }
        each(&start, &events, &mut dice);
        (start, held) = (tree, links);
        // Till here, so that no two links of a window are taken for one.
        drop(kept);
    }
    println!("{window} windows of {} calls", CLIENTS * CALLS);
    None
}

fn is_linearizable(backend: Arc<dyn Backend>, options: Options, windows: usize) {
    if let Some(mut events) = record(backend, options, windows, |_, _, _| {}) {
        events.sort_by_key(|event| event.begin);
        panic!("no order explains {events:#?}");
    }
}

fn memory(exclusive: bool) -> Arc<Memory> {
    Memory::new(MemoryOptions { exclusive, ..MemoryOptions::default() })
}

fn slow(exclusive: bool) -> Arc<Latency> {
    Arc::new(Latency::new(memory(exclusive), Duration::from_micros(50)))
}

const LITTLE: usize = 3;

#[test]
fn in_memory() {
    is_linearizable(memory(true), Options::default(), 1_500);
}

#[test]
fn in_little_memory() {
    is_linearizable(memory(true), Options { names_max: LITTLE, ..Options::default() }, 1_000);
}

#[test]
fn in_shared_memory() {
    is_linearizable(memory(false), Options::default(), 1_000);
}

#[test]
fn over_a_slow_storage() {
    is_linearizable(slow(true), Options::default(), 100);
}

#[test]
fn over_a_slow_shared_storage() {
    is_linearizable(slow(false), Options { names_max: LITTLE, ..Options::default() }, 80);
}

/// A directory of the real file system that goes with the test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn on_the_real_file_system() {
    for coherence in
        [Coherence::Exclusive, Coherence::Notify, Coherence::Revalidate(Duration::ZERO), Coherence::None]
    {
        let path = std::env::temp_dir().join(format!("shoal-histories-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a scratch directory");
        let scratch = Scratch(path);
        let options = local::Options { coherence: Some(coherence), ..local::Options::default() };
        let local = Local::open(&scratch.0, options).expect("opens");
        is_linearizable(Arc::new(local), Options::default(), 200);
    }
}

/// Of what was recorded, one answer is changed at a time: most of such histories were never possible, and are rejected.
#[test]
fn changed_answers_are_rejected() {
    let (mut changed, mut rejected) = (0, 0);
    let found = record(memory(true), Options::default(), 300, |start, events, dice| {
        let mut events = events.to_vec();
        let at = dice.roll(events.len());
        let call = &mut events[at].call;
        *call = match *call {
            Call::Look(place, Some(_)) => Call::Look(place, None),
            Call::Look(place, None) => Call::Look(place, Some(1)),
            Call::Create(place, id, made) => Call::Create(place, id, !made),
            Call::Remove(id, was_there) => Call::Remove(id, !was_there),
            Call::Rename(id, to, replace, End::Done) => Call::Rename(id, to, replace, End::Gone),
            Call::Rename(id, to, replace, _) => Call::Rename(id, to, replace, End::Done),
            Call::Link(id, to, End::Done, made) => Call::Link(id, to, End::Taken, made),
            Call::Link(id, to, _, made) => Call::Link(id, to, End::Done, made),
        };
        changed += 1;
        rejected += usize::from(unexplained(start, &events).is_some());
    });
    assert!(found.is_none());
    println!("{rejected} of {changed} changed histories were rejected");
    assert!(rejected * 10 > changed * 8, "{rejected} of {changed}");
}
