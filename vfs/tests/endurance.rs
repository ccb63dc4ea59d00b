//! Many clients for long: 64 on eight names, and 64 on a million. Descriptors and memory stay what they are.
//!
//! `SHOAL_STRESS=seconds` makes each half last so long; otherwise it is bounded by counts. One test, in a process of its
//! own: it looks at what the process takes.
#![cfg(not(shuttle))]

#[allow(dead_code, reason = "shared with the storms")]
#[path = "stress/client.rs"]
mod client;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::{Client, Dice, check, name, seed};
use shoal_vfs::local::{self, Local};
use shoal_vfs::*;

const CLIENTS: u64 = 64;
const MILLION: usize = 1_000_000;
/// What a client of the million has at most at a time.
const FILES: usize = 32;
const BUDGET: usize = 16 << 20;

/// How long each half lasts, if it was said.
fn length() -> Option<Duration> {
    let seconds = std::env::var("SHOAL_STRESS").ok()?;
    Some(Duration::from_secs(seconds.parse().expect("SHOAL_STRESS is a number of seconds")))
}

/// What the process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("is there").count()
}

/// What the process has in memory, in KiB.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("is there");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("is told");
    line.trim().trim_end_matches(" kB").parse().expect("is a number")
}

/// A directory of the real file system that goes with the test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What was taken at each step of the way.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    descriptors: usize,
    resident: usize,
    bytes: u64,
    nodes: u64,
}

fn most(of: &[Taken]) -> Taken {
    of.iter().fold(Taken::default(), |most, next| Taken {
        descriptors: most.descriptors.max(next.descriptors),
        resident: most.resident.max(next.resident),
        bytes: most.bytes.max(next.bytes),
        nodes: most.nodes.max(next.nodes),
    })
}

/// When a client is through: after so many rounds, or at the time that was said. It counts all rounds.
#[derive(Clone)]
struct Goal {
    rounds: u64,
    until: Option<Instant>,
    done: Arc<AtomicU64>,
}

impl Goal {
    fn new(rounds: u64) -> Goal {
        Goal { rounds, until: length().map(|length| Instant::now() + length), done: Arc::default() }
    }

    fn part(&self, begun: Instant) -> f64 {
        match length() {
            Some(length) => begun.elapsed().as_secs_f64() / length.as_secs_f64(),
            None => self.done.load(Ordering::Relaxed) as f64 / (self.rounds * CLIENTS) as f64,
        }
    }

    fn goes_on(&self, round: u64) -> bool {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.until.map_or(round < self.rounds, |until| Instant::now() < until)
    }
}

/// Lets `client` run 64 times, and looks on: the second half takes no more than the first, but for the descriptors of
/// what there is more of by then.
async fn endure<C: Future<Output = ()> + Send + 'static>(
    text: &str,
    vfs: &Arc<Vfs<u32>>,
    goal: Goal,
    client: impl Fn(u64) -> C,
) {
    let begun = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let looking = {
        let (vfs, goal, over) = (Arc::clone(vfs), goal.clone(), Arc::clone(&over));
        std::thread::spawn(move || {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                let Counters { bytes, nodes, .. } = vfs.counters();
                let taken = Taken { descriptors: descriptors(), resident: resident(), bytes, nodes };
                if goal.part(begun) < 0.5 {
                    first.push(taken)
                } else {
                    second.push(taken)
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
            (first, second)
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(|i| tokio::spawn(client(i))).collect();
    for client in clients {
        client.await.expect("ends");
    }
    vfs.quiesce().await;
    over.store(true, Ordering::Relaxed);
    looking.thread().unpark();
    let (first, second) = looking.join().expect("ends");
    let (first, second) = (most(&first), most(&second));
    let rounds = goal.done.load(Ordering::Relaxed);
    println!("{text}: {rounds} rounds in {:?}: first {first:?}, then {second:?}", begun.elapsed());
    println!("{text}: {:?}", vfs.counters());
    // What 64 clients have open at a time differs, and a tree that still grows keeps a descriptor an object.
    let more = second.nodes.saturating_sub(first.nodes) as usize;
    assert!(second.descriptors <= first.descriptors + 2 * CLIENTS as usize + more, "descriptors grow");
    assert!(second.resident <= first.resident + first.resident / 8 + 8 * 1024, "memory grows");
    assert!(first.bytes.max(second.bytes) <= BUDGET as u64 + (1 << 20), "more than the budget");
}

/// A client of the million: it looks at names at random, makes one, and renames and removes what it has made.
async fn one_of_a_million(vfs: Arc<Vfs<u32>>, root: Root<u32>, goal: Goal, mut dice: Dice) {
    let top = Arc::clone(root.link().node());
    let some = |dice: &mut Dice| name(&format!("name {}", dice.roll(MILLION)));
    let mut mine: Vec<Arc<Link<u32>>> = Vec::new();
    let mut round = 0;
    while goal.goes_on(round) {
        round += 1;
        for _ in 0..4 {
            let looked = some(&mut dice);
            if let Some(link) = vfs.lookup_one(&top, &looked).await.expect("looks up") {
                // Renamed meanwhile, perhaps.
                let _ = vfs.open(&link, OpenHow::default()).await;
            }
        }
        let fresh = some(&mut dice);
        match vfs.create(&top, &fresh, CreateHow::file(), |_, _| ()).await.expect("creates") {
            Creation::Created { link, .. } => mine.push(link),
            Creation::Exists(_) => {}
        }
        let target = some(&mut dice);
        if let Some(link) = mine.last() {
            match vfs.rename(link, &top, &target, false, |_| Ok::<_, ()>(())).await {
                Ok(()) | Err(RenameError::Fs(FsError::Exists)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        if mine.len() == FILES {
            let link = mine.swap_remove(dice.roll(FILES));
            link.node().opens().set_delete_pending(&link, true);
            assert_eq!(vfs.remove_link(&link).await, Ok(Removal::Removed));
        }
        tokio::task::yield_now().await;
    }
    for link in mine {
        link.node().opens().set_delete_pending(&link, true);
        assert_eq!(vfs.remove_link(&link).await, Ok(Removal::Removed));
    }
}

async fn on_few_names(path: &std::path::Path) {
    let backend = Arc::new(Local::open(path, local::Options::default()).expect("opens"));
    let vfs = Vfs::<u32>::new(Options { memory_max: BUDGET, ..Options::default() });
    let root = vfs.mount(backend, Fold::Insensitive).await.expect("mounts");
    let names: Arc<[Name]> = ["a", "B", "c", "A", "b", "d", "E", "e"].map(name).into();
    let (busy, goal, seed) = (Arc::new(AtomicU64::new(0)), Goal::new(200), seed());
    endure("eight names", &vfs, goal.clone(), |i| {
        let mut client = Client {
            vfs: Arc::clone(&vfs),
            root: root.clone(),
            dice: Dice(seed ^ i),
            busy: Arc::clone(&busy),
            names: Arc::clone(&names),
            faulty: false,
        };
        let goal = goal.clone();
        async move {
            let mut round = 0;
            while goal.goes_on(round) {
                round += 1;
                client.act().await;
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    assert_eq!(busy.load(Ordering::Relaxed), 0, "given up after many lost races");
    check(&vfs, &root, &names).await;
}

async fn on_a_million_names(path: &std::path::Path) {
    let backend = Arc::new(Local::open(path, local::Options::default()).expect("opens"));
    let vfs = Vfs::<u32>::new(Options { memory_max: BUDGET, ..Options::default() });
    let root = vfs.mount(backend, Fold::Insensitive).await.expect("mounts");
    let (goal, seed) = (Goal::new(50), seed());
    endure("a million names", &vfs, goal.clone(), |i| {
        one_of_a_million(Arc::clone(&vfs), root.clone(), goal.clone(), Dice(seed ^ i))
    })
    .await;
    check(&vfs, &root, &[]).await;
    assert_eq!(std::fs::read_dir(path).expect("is there").count(), 0);
}

#[test]
fn takes_no_more_and_no_more() {
    let before = descriptors();
    for few in [true, false] {
        let path = std::env::temp_dir().join(format!("shoal-endurance-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a scratch directory");
        let scratch = Scratch(path);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .expect("starts");
        if few {
            runtime.block_on(on_few_names(&scratch.0));
        } else {
            runtime.block_on(on_a_million_names(&scratch.0));
        }
        drop(runtime);
        drop(scratch);
    }
    // All of it comes back. The system's own timers and the like may be a few.
    let after = descriptors();
    assert!(after <= before + 4, "{before} descriptors, and {after} afterwards");
}
