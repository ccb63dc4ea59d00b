//! What the parts of the lookup cache cost: a hit, a miss, a claim, a gate, a fold, a walk; and the bytes of an entry, counted.

use std::fmt::Write;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{Criterion, criterion_group};
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;

/// The outcome of a future that has nothing to wait for. Inline, so that it is polled where it was made, as if it were awaited there:
/// to move it would take as long as a part of what is measured.
#[inline(always)]
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

struct Bed {
    vfs: Arc<Vfs<()>>,
    root: Root<()>,
    top: Arc<Node<()>>,
}

impl Bed {
    fn new(options: Options) -> Bed {
        let vfs = Vfs::new(options);
        let storage = Memory::new(MemoryOptions { limit: 8 << 30, ..MemoryOptions::default() });
        let root = now(vfs.mount(storage, Fold::Insensitive)).expect("mounts");
        let top = Arc::clone(root.link().node());
        Bed { vfs, root, top }
    }

    fn create(&self, dir: &Arc<Node<()>>, text: &str, how: CreateHow) -> Arc<Link<()>> {
        match now(self.vfs.create(dir, &name(text), how, |_, _| ())).expect("creates") {
            Creation::Created { link, .. } | Creation::Exists(link) => link,
        }
    }

    fn look(&self, dir: &Arc<Node<()>>, name: &Name) -> Option<Arc<Link<()>>> {
        now(self.vfs.lookup_one(dir, name)).expect("looks up")
    }
}

/// Twenty characters.
fn numbered(i: usize) -> String {
    format!("Quarterly report {i:03}")
}

fn names(c: &mut Criterion) {
    let units: Vec<u16> = numbered(7).encode_utf16().collect();
    let cyrillic: Vec<u16> = "Квартальный отчёт 07".encode_utf16().collect();
    let bed = Bed::new(Options::default());
    c.bench_function("name of 20 units", |b| b.iter(|| Name::from_utf16(black_box(&units))));
    for (what, units) in [("ASCII", &units), ("Cyrillic", &cyrillic)] {
        let name = Name::from_utf16(units).expect("a name");
        c.bench_function(&format!("fold and hash 20 units, {what}"), |b| {
            b.iter(|| bed.vfs.probe_hash(&bed.top, black_box(&name)));
        });
    }
}

fn lookups(c: &mut Criterion) {
    let bed = Bed::new(Options::default());
    for i in 0..1000 {
        bed.create(&bed.top, &numbered(i), CreateHow::file());
    }
    let present = name(&numbered(500));
    let absent = name("not there, in no case");
    assert!(bed.look(&bed.top, &absent).is_none());
    c.bench_function("hit", |b| b.iter(|| bed.look(&bed.top, black_box(&present))));
    c.bench_function("negative hit", |b| b.iter(|| bed.look(&bed.top, black_box(&absent))));
    let hot: Vec<Name> = (0..1000).map(|i| name(&numbered(i).to_uppercase())).collect();
    let mut at = 0;
    c.bench_function("hit, in turn over 1,000 names in another case", |b| {
        b.iter(|| {
            at = (at + 1) % hot.len();
            bed.look(&bed.top, &hot[at])
        });
    });

    // A cache without room asks the storage each time.
    let none = Vfs::<()>::new(Options { memory_max: 0, ..Options::default() });
    let root = now(none.mount(Arc::clone(bed.root.backend()), Fold::Insensitive)).expect("mounts");
    let top = Arc::clone(root.link().node());
    let hot: Vec<Name> = (0..1000).map(|i| name(&numbered(i))).collect();
    c.bench_function("miss, storage in memory", |b| {
        b.iter(|| {
            at = (at + 1) % hot.len();
            now(none.lookup_one(&top, &hot[at])).expect("looks up")
        });
    });
    let counters = none.counters();
    assert!(counters.hits == 0, "{counters:?}");
}

fn locks(c: &mut Criterion) {
    let bed = Bed::new(Options::default());
    let probe = bed.vfs.probe(&bed.top, &name("a name"));
    c.bench_function("claim and release", |b| b.iter(|| now(probe.claim())));
    c.bench_function("gate, shared", |b| b.iter(|| now(bed.vfs.probe_gate(&bed.top))));
}

fn walk(c: &mut Criterion) {
    let bed = Bed::new(Options::default());
    let path: Vec<Name> = (0..5).map(|i| name(&numbered(i))).collect();
    let mut dir = Arc::clone(&bed.top);
    for name in &path {
        dir = Arc::clone(bed.create(&dir, &name.to_string(), CreateHow::directory()).node());
    }
    c.bench_function("walk of five components", |b| {
        b.iter(|| now(bed.vfs.walk(&bed.root, black_box(&path))).expect("walks"));
    });
}

/// What the allocator was asked for, and not given back, for each of so many names.
fn bytes_per_entry() -> String {
    let mut table = String::new();
    let _ = writeln!(table, "\nbytes per name of 20 characters, counted:");
    for count in [1_000, 10_000, 100_000, 1_000_000] {
        let bed = Bed::new(Options { memory_max: usize::MAX, ..Options::default() });
        let held: Vec<_> = (0..100).map(|i| bed.create(&bed.top, &numbered(i), CreateHow::file())).collect();
        let bare = allocation_counter::measure(|| {
            for i in 0..count {
                drop(bed.vfs.probe(&bed.top, &name(&format!("{i:020}"))));
            }
        });
        drop(held);
        let _ = writeln!(
            table,
            "  {count:>9} names: slot and map {:.1}",
            bare.bytes_current as f64 / f64::from(count)
        );
    }
    table
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = names, lookups, locks, walk
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    let _entered = runtime.enter();
    all();
    Criterion::default().configure_from_args().final_summary();
    println!("{}", bytes_per_entry());
}
