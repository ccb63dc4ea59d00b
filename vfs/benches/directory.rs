//! Creates, renames and removals of different names in one directory at once, over a storage whose every call takes a while: with
//! claims on names, and with the directory locked as kernels lock it. Real time, on tokio's clock, which counts in milliseconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group};
use shoal_vfs::latency::Latency;
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const CLIENTS: [usize; 6] = [1, 4, 16, 64, 256, 1024];
const DELAYS: [Duration; 4] = [
    Duration::from_micros(50),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
];
const PLANS: [(Plan, &str); 2] = [(Plan::Claims, "claims"), (Plan::DirectoryLock, "directory lock")];
/// What would take longer, one client after the other, is left out.
const LONGEST: Duration = Duration::from_secs(5);

type Links = Vec<Arc<Link<()>>>;

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

struct Bed {
    vfs: Arc<Vfs<()>>,
    root: Root<()>,
}

impl Bed {
    async fn new(plan: Plan, delay: Duration) -> Bed {
        let memory: Arc<dyn Backend> = Memory::new(MemoryOptions::default());
        let storage = if delay.is_zero() { memory } else { Arc::new(Latency::new(memory, delay)) };
        let vfs = Vfs::new(Options { plan, ..Options::default() });
        let root = vfs.mount(storage, Fold::Insensitive).await.expect("mounts");
        Bed { vfs, root }
    }

    /// All at once: `each` with the cache, the directory and a number.
    async fn together<T: Send + 'static, W: Future<Output = T> + Send + 'static>(
        &self,
        clients: usize,
        each: impl Fn(Arc<Vfs<()>>, Arc<Node<()>>, usize) -> W,
    ) -> (Duration, Vec<T>) {
        let dir = self.root.link();
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for i in 0..clients {
            tasks.spawn(each(Arc::clone(&self.vfs), Arc::clone(dir.node()), i));
        }
        let all = tasks.join_all().await;
        (begin.elapsed(), all)
    }

    async fn create(&self, clients: usize, what: &'static str) -> (Duration, Links) {
        let each = |vfs: Arc<Vfs<()>>, dir: Arc<Node<()>>, i: usize| async move {
            match vfs.create(&dir, &name(&format!("{what}{i}")), CreateHow::file(), |_, _| ()).await {
                Ok(Creation::Created { link, .. }) => link,
                Ok(Creation::Exists(_)) => panic!("{what}{i} exists"),
                Err(error) => panic!("{error}"),
            }
        };
        self.together(clients, each).await
    }

    async fn rename(&self, links: &Links) -> Duration {
        let each = |vfs: Arc<Vfs<()>>, dir: Arc<Node<()>>, i: usize| {
            let link = Arc::clone(&links[i]);
            async move {
                let to = name(&format!("renamed {i}"));
                vfs.rename(&link, &dir, &to, false, |_| Ok::<_, ()>(())).await.expect("renames");
            }
        };
        self.together(links.len(), each).await.0
    }

    async fn remove(&self, links: &Links) -> Duration {
        let each = |vfs: Arc<Vfs<()>>, _, i: usize| {
            let link = Arc::clone(&links[i]);
            async move {
                link.node().opens().set_delete_pending(&link, true);
                assert_eq!(vfs.remove_link(&link).await, Ok(Removal::Removed));
            }
        };
        self.together(links.len(), each).await.0
    }

    /// How long creates, renames and removals took.
    async fn round(&self, clients: usize) -> [Duration; 3] {
        let (created, links) = self.create(clients, "new ").await;
        [created, self.rename(&links).await, self.remove(&links).await]
    }
}

/// What one delayed call really takes: the median of some.
async fn one_call(delay: Duration) -> Duration {
    let mut took = [Duration::ZERO; 41];
    for took in &mut took {
        let begin = Instant::now();
        tokio::time::sleep(delay).await;
        *took = begin.elapsed();
    }
    took.sort_unstable();
    took[took.len() / 2]
}

fn table(runtime: &Runtime) {
    println!("wall time / what one call takes, all clients at once in one directory");
    print!("{:>8} {:>9}  {:<15}{:<8}", "delay", "one call", "", "");
    CLIENTS.iter().for_each(|clients| print!("{clients:>9}"));
    println!();
    for delay in DELAYS {
        let call = runtime.block_on(one_call(delay));
        for (plan, plan_name) in PLANS {
            let mut rows = [const { Vec::new() }; 3];
            for clients in CLIENTS {
                if plan == Plan::DirectoryLock && call * 2 * clients as u32 > LONGEST {
                    continue;
                }
                let took = runtime.block_on(async { Bed::new(plan, delay).await.round(clients).await });
                for (row, took) in rows.iter_mut().zip(took) {
                    row.push(took.as_secs_f64() / call.as_secs_f64());
                }
            }
            for (row, what) in rows.iter().zip(["creates", "renames", "removes"]) {
                print!("{delay:>8?} {:>6.2} ms  {plan_name:<15}{what:<8}", call.as_secs_f64() * 1e3);
                for at in 0..CLIENTS.len() {
                    match row.get(at) {
                        Some(delays) => print!("{delays:>9.1}"),
                        None => print!("{:>9}", "-"),
                    }
                }
                println!();
            }
        }
    }
    println!("(-: would take longer than {LONGEST:?})");
}

fn without_delay(c: &mut Criterion) {
    let runtime = Runtime::new().expect("starts");
    let mut group = c.benchmark_group("create, rename, remove 256 names in memory");
    for (plan, plan_name) in PLANS {
        group.bench_function(BenchmarkId::from_parameter(plan_name), |b| {
            b.to_async(&runtime).iter_custom(|rounds| async move {
                let bed = Bed::new(plan, Duration::ZERO).await;
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    took += bed.round(256).await.iter().sum::<Duration>();
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = fast;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = without_delay
}

fn main() {
    fast();
    Criterion::default().configure_from_args().final_summary();
    table(&Runtime::new().expect("starts"));
}
