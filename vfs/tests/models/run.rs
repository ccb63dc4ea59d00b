//! Running a model under both schedulers, with and without a defect.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use shoal_vfs::sync::{Defect, choose_defect};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, Runner};

/// How many switches PCT places.
const DEPTH: usize = 3;
/// How many schedules a defect may hide in.
const DEFECT_SCHEDULES: usize = 200_000;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
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

/// The model holds in all of `schedules` orders, of each scheduler.
pub fn holds(name: &str, schedules: usize, model: impl Fn() + Send + Sync + 'static) {
    hush();
    choose_defect(Defect::None);
    let model = Arc::new(model);
    let schedules = schedules * scale();
    let start = Instant::now();
    let run = Arc::clone(&model);
    Runner::new(PctScheduler::new(DEPTH, schedules), config(false)).run(move || run());
    Runner::new(RandomScheduler::new(schedules), config(false)).run(move || model());
    println!("holds {name}: {} schedules in {:.1} s", 2 * schedules, start.elapsed().as_secs_f64());
}

/// The model breaks if the code takes this wrong turn.
pub fn catches(defect: Defect, model: impl Fn() + Send + Sync + 'static) {
    hush();
    choose_defect(defect);
    QUIET.set(true);
    let tried = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let model = Arc::new(model);
    let mut caught = false;
    // A round of each in turn, so that neither has to be exhausted before the other begins.
    let mut round = 500;
    while !caught && tried.load(Ordering::Relaxed) < DEFECT_SCHEDULES {
        for random in [false, true] {
            let (counting, run) = (Arc::clone(&tried), Arc::clone(&model));
            let counted = move || {
                counting.fetch_add(1, Ordering::Relaxed);
                run();
            };
            caught = catch_unwind(AssertUnwindSafe(|| {
                if random {
                    Runner::new(RandomScheduler::new(round), config(true)).run(counted);
                } else {
                    Runner::new(PctScheduler::new(DEPTH, round), config(true)).run(counted);
                }
            }))
            .is_err();
            if caught {
                break;
            }
        }
        round *= 2;
    }
    choose_defect(Defect::None);
    QUIET.set(false);
    let tried = tried.load(Ordering::Relaxed);
    assert!(caught, "{defect:?} was not caught in {tried} schedules");
    println!("caught {defect:?} after {tried} schedules, {:.2} s", start.elapsed().as_secs_f64());
}
