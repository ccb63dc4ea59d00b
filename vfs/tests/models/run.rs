//! Running a model under both schedulers, with and without a defect.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use shoal_vfs::sync::{Defect, choose_defect, watch_locks};
use shuttle::scheduler::{PctScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, Runner};

/// How many switches PCT places.
const DEPTH: usize = 3;
/// How many schedules of one scheduler a defect may hide in.
const DEFECT_SCHEDULES: usize = 1_500_000;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, Copy, Debug)]
pub enum With {
    Pct,
    Random,
}

impl With {
    pub const BOTH: [With; 2] = [With::Pct, With::Random];

    fn run(self, schedules: usize, quiet: bool, model: impl Fn() + Send + Sync + 'static) {
        let scheduler: Box<dyn Scheduler + Send> = match self {
            With::Pct => Box::new(PctScheduler::new(DEPTH, schedules)),
            With::Random => Box::new(Weighted::new(schedules)),
        };
        Runner::new(scheduler, config(quiet)).run(model);
    }
}

/// Random, but not evenly: some tasks are slow, and may stand still for long, until by chance others are. With even chances
/// nobody ever waits for more than a few steps of the others.
struct Weighted {
    left: usize,
    state: u64,
    /// Which tasks are slow now.
    salt: u64,
    /// About how many steps that stays so, in this schedule.
    steady: u64,
}

impl Weighted {
    fn new(schedules: usize) -> Weighted {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Weighted {
            left: schedules,
            state: since.map_or(1, |since| since.as_nanos() as u64),
            salt: 0,
            steady: 1,
        }
    }

    fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// From 1 to 256, each power of two as often as any other.
    fn weight(&self, task: TaskId) -> u64 {
        1 << (mix(self.salt ^ usize::from(task) as u64) % 9)
    }
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Scheduler for Weighted {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.left = self.left.checked_sub(1)?;
        self.salt = self.roll();
        self.steady = 16 << (self.roll() % 5);
        Some(Schedule::new(self.salt))
    }

    fn next_task(&mut self, runnable: &[&Task], _: Option<TaskId>, _: bool) -> Option<TaskId> {
        if self.roll().is_multiple_of(self.steady) {
            self.salt = self.roll();
        }
        let total: u64 = runnable.iter().map(|task| self.weight(task.id())).sum();
        let mut at = self.roll() % total;
        runnable.iter().map(|task| task.id()).find(|task| {
            let weight = self.weight(*task);
            let found = at < weight;
            at = at.wrapping_sub(weight);
            found
        })
    }

    fn next_u64(&mut self) -> u64 {
        self.roll()
    }
}

fn config(quiet: bool) -> Config {
    let mut config = Config::new();
    config.stack_size = 256 * 1024;
    // A schedule is long: printed if it is asked for, to be replayed.
    let print = !quiet && std::env::var_os("SHOAL_MODELS_SCHEDULE").is_some();
    config.failure_persistence = if print { FailurePersistence::Print } else { FailurePersistence::None };
    config
}

fn scale() -> usize {
    std::env::var("SHOAL_MODELS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
}

/// The model holds in all of `schedules` orders, of each scheduler; in a tenth of them, with the order of locks watched.
pub fn holds(name: &str, schedules: usize, model: impl Fn() + Send + Sync + 'static) {
    let start = Instant::now();
    let schedules = schedules * scale();
    quietly_holds(schedules, model);
    println!("holds {name}: {} schedules in {:.1} s", 2 * schedules, start.elapsed().as_secs_f64());
}

/// [`holds`], for one of many.
pub fn quietly_holds(schedules: usize, model: impl Fn() + Send + Sync + 'static) {
    hush();
    choose_defect(Defect::None);
    let model = Arc::new(model);
    for with in With::BOTH {
        for watched in [true, false] {
            watch_locks(watched);
            let part = if watched { schedules.div_ceil(10) } else { schedules - schedules.div_ceil(10) };
            let run = Arc::clone(&model);
            with.run(part, false, move || run());
        }
    }
}

/// One run of a model.
pub fn once(model: impl Fn() + Send + Sync + 'static) {
    hush();
    choose_defect(Defect::None);
    watch_locks(true);
    Runner::new(shuttle::scheduler::RoundRobinScheduler::new(1), config(false)).run(model);
}

/// In how many schedules of one scheduler the model breaks if the code takes this wrong turn, and what breaks.
fn caught(defect: Defect, with: With, model: &Arc<dyn Fn() + Send + Sync>) -> Result<(usize, String), usize> {
    let tried = Arc::new(AtomicUsize::new(0));
    let (counting, run) = (Arc::clone(&tried), Arc::clone(model));
    let counted = move || {
        counting.fetch_add(1, Ordering::Relaxed);
        run();
    };
    // A thread of its own: what a broken run leaves in the checker's is not to break the next.
    let broke = std::thread::spawn(move || {
        choose_defect(defect);
        watch_locks(false);
        QUIET.set(true);
        with.run(DEFECT_SCHEDULES, true, counted);
    })
    .join();
    let tried = tried.load(Ordering::Relaxed);
    let Err(payload) = broke else { return Err(tried) };
    let text = payload.downcast::<String>().map_or_else(
        |payload| payload.downcast::<&str>().map_or_else(|_| String::new(), |text| text.to_string()),
        |text| *text,
    );
    Ok((tried, text.lines().next().unwrap_or_default().to_owned()))
}

/// The model breaks under both schedulers if the code takes this wrong turn. False: it did not.
pub fn catches(defect: Defect, model: Arc<dyn Fn() + Send + Sync>) -> bool {
    hush();
    let start = Instant::now();
    match With::BOTH.map(|with| caught(defect, with, &model)) {
        [Ok((pct, why)), Ok((random, _))] => {
            let took = start.elapsed().as_secs_f64();
            println!(
                "caught {defect:?} after {} schedules ({pct} pct, {random} random, {took:.1} s): {why:.100}",
                pct + random
            );
            true
        }
        ends => {
            println!("MISSED {defect:?}: {ends:?}");
            false
        }
    }
}
