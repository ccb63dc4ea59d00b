//! Storms: clients on few names and on many, some of whose requests are dropped half way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shoal_vfs::faulty::Faulty;
use shoal_vfs::latency::Latency;
use shoal_vfs::local::{self, Local};
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;

use crate::client::{Client, Dice, calm, check, hush, name, seed};

const CLIENTS: u64 = 12;

/// How long a storm lasts, if it was said.
fn length() -> Option<Duration> {
    let seconds = std::env::var("SHOAL_STRESS").ok()?;
    Some(Duration::from_secs(seconds.parse().expect("SHOAL_STRESS is a number of seconds")))
}

/// Few names, in several spellings: high conflict.
pub fn few_names() -> Arc<[Name]> {
    ["a", "B", "c", "A", "b", "d", "E", "e"].map(name).into()
}

fn many_names() -> Arc<[Name]> {
    (0..2_000).map(|i| name(&format!("name {i}"))).collect()
}

/// Many clients, until each has done so many `rounds`, or for so long as was said.
pub async fn storm(vfs: &Arc<Vfs<u32>>, root: &Root<u32>, names: &Arc<[Name]>, rounds: usize, faulty: bool) {
    let busy = Arc::new(AtomicU64::new(0));
    let seed = seed();
    let until = length().map(|length| Instant::now() + length);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|i| {
            let mut client = Client {
                vfs: Arc::clone(vfs),
                root: root.clone(),
                dice: Dice(seed ^ i),
                busy: Arc::clone(&busy),
                names: Arc::clone(names),
                faulty,
            };
            tokio::spawn(async move {
                let mut round = 0;
                while until.map_or(round < rounds, |until| Instant::now() < until) {
                    round += 1;
                    // Some requests are dropped half way; but not those that hold an open, which has to be closed.
                    if client.dice.roll(10) == 0 {
                        let (dir, from, to) =
                            (client.some_directory().await, client.some_name(), client.some_name());
                        let Ok(Some(link)) = calm(client.vfs.lookup_one(&dir, &from)).await else { continue };
                        let rename = calm(client.vfs.rename(&link, &dir, &to, false, |_| Ok::<_, ()>(())));
                        let _ = tokio::time::timeout(Duration::from_micros(50), rename).await;
                    } else {
                        client.act().await;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("ends");
    }
    vfs.quiesce().await;
    println!("{:?}, {} busy", vfs.counters(), busy.load(Ordering::Relaxed));
    if !faulty {
        assert_eq!(busy.load(Ordering::Relaxed), 0, "given up after many lost races");
    }
}

async fn calm_weather(backend: Arc<dyn Backend>, options: Options, names: Arc<[Name]>, rounds: usize) {
    let vfs = Vfs::<u32>::new(options);
    let root = vfs.mount(backend, Fold::Insensitive).await.expect("mounts");
    storm(&vfs, &root, &names, rounds, false).await;
    check(&vfs, &root, &names[..8]).await;
}

/// The storage fails all the while, and is well again before all is compared.
async fn foul_weather(backend: Arc<dyn Backend>, per_mille: u64, rounds: usize) {
    hush();
    let faulty = Faulty::new(backend, seed());
    let vfs = Vfs::<u32>::new(Options::default());
    let root = vfs.mount(Arc::clone(&faulty) as Arc<dyn Backend>, Fold::Insensitive).await.expect("mounts");
    faulty.fail(per_mille);
    storm(&vfs, &root, &few_names(), rounds, true).await;
    faulty.fail(0);
    assert!(faulty.failed() > 100, "only {} calls failed", faulty.failed());
    check(&vfs, &root, &few_names()).await;
}

async fn in_time(run: impl Future<Output = ()>) {
    let limit = Duration::from_secs(120) + length().unwrap_or_default();
    tokio::time::timeout(limit, run).await.expect("nobody waits for ever");
}

macro_rules! storms {
    ($($test:ident: $run:expr;)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $test() {
            in_time($run).await;
        }
    )* };
}

fn memory(exclusive: bool) -> Arc<Memory> {
    Memory::new(MemoryOptions { exclusive, ..MemoryOptions::default() })
}

fn slow(exclusive: bool) -> Arc<Latency> {
    Arc::new(Latency::new(memory(exclusive), Duration::from_micros(100)))
}

storms! {
    in_memory: calm_weather(memory(true), Options::default(), few_names(), 4_000);
    in_little_memory: calm_weather(memory(true), Options { names_max: 3, ..Options::default() }, few_names(), 4_000);
    in_shared_memory: calm_weather(memory(false), Options::default(), few_names(), 4_000);
    under_directory_locks:
        calm_weather(memory(true), Options { plan: Plan::DirectoryLock, ..Options::default() }, few_names(), 2_000);
    over_a_slow_storage: calm_weather(slow(true), Options::default(), few_names(), 300);
    over_a_slow_shared_storage: calm_weather(slow(false), Options::default(), few_names(), 200);
    on_many_names: calm_weather(memory(true), Options::default(), many_names(), 1_000);
    on_many_names_in_little_memory:
        calm_weather(memory(true), Options { names_max: 100, ..Options::default() }, many_names(), 1_000);
    over_a_faulty_storage: foul_weather(memory(true), 100, 2_000);
    over_a_faulty_shared_storage: foul_weather(memory(false), 50, 2_000);
    over_a_slow_faulty_storage: foul_weather(slow(true), 100, 300);
}

/// A directory of the real file system that goes with the test.
pub struct Scratch(std::path::PathBuf);

impl Scratch {
    pub fn new(text: &str) -> Scratch {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("shoal-{text}-{}-{next}", std::process::id()));
        std::fs::create_dir(&path).expect("a scratch directory");
        Scratch(path)
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }

    fn local(&self) -> Arc<Local> {
        Arc::new(Local::open(&self.0, local::Options::default()).expect("opens"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_the_real_file_system() {
    let scratch = Scratch::new("stress");
    in_time(calm_weather(scratch.local(), Options::default(), few_names(), 1_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_a_faulty_file_system() {
    let scratch = Scratch::new("faulty");
    in_time(foul_weather(scratch.local(), 50, 500)).await;
}
