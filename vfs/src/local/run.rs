//! Where a call runs: inline on the caller's thread as long as calls of its sort are quick, in the blocking pool while they are not.
//!
//! A hop to the pool costs 20 to 30 µs of CPU, many times a cached call, so it must be earned. For each verb a moving average of the time
//! that its calls took is kept, less what their bytes or entries may take; above 200 µs the verb's calls go to the pool, where they are
//! timed as well, and they come back when the average has sunk. One slow call counts for no more than four times the threshold's worth:
//! it takes a few in a row to move a verb, and a thread that was merely preempted once moves none.
//!
//! Changes of names in one directory exclude each other in the kernel, whatever file system it is. Sent to the pool all at once they
//! would each take a thread to wait for the directory's lock, and hundreds that spin for one lock cost more than what they wait for. So
//! in the pool they go by turns: two of each directory, one with the lock and one on its way to it or from it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{FsError, Result};
use crate::metadata::BackendKey;

/// The sorts of calls that are timed apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verb {
    Lookup,
    Search,
    Create,
    Remove,
    Rename,
    Link,
    Open,
    Metadata,
    SetMetadata,
    Xattr,
    Read,
    Write,
    Allocate,
    ReadDirectory,
    Volume,
}

const VERBS: usize = Verb::Volume as usize + 1;

const SLOW: u32 = 200_000;
const SAMPLE_MAX: u128 = 4 * SLOW as u128;

/// What a byte may take to copy, in picoseconds: 2 GB/s.
const COPY_PICOS: u64 = 500;

/// How many changes of one directory's names are in the pool at once.
const TURNS: usize = 2;

/// Directories are told apart by so many values of their inodes' numbers; those that share one share their turns.
const TURNSTILES: usize = 256;

/// The paces of one share's verbs, and the turns of its directories.
#[derive(Default)]
pub(super) struct Runner {
    /// The moving average per verb, in nanoseconds.
    averages: [AtomicU32; VERBS],
    /// Made when a change of names first goes to the pool.
    turnstiles: OnceLock<Box<[Arc<Semaphore>]>>,
}

/// What a call of `bytes` bytes may take beyond the ordinary.
pub(super) fn copying(bytes: usize) -> Duration {
    Duration::from_nanos(bytes as u64 * COPY_PICOS / 1000)
}

impl Runner {
    /// Is this verb in the pool at present?
    pub(super) fn is_slow(&self, verb: Verb) -> bool {
        self.averages[verb as usize].load(Relaxed) > SLOW
    }

    fn note(&self, verb: Verb, took: Duration, allowed: Duration) {
        let average = &self.averages[verb as usize];
        let sample = took.saturating_sub(allowed).as_nanos().min(SAMPLE_MAX) as u32;
        // Two threads may note at once and one sample be lost: no harm.
        let old = average.load(Relaxed);
        average.store(old - old / 8 + sample / 8, Relaxed);
    }

    /// Runs a `job` that changes names in the directory `dir`, where its verb belongs at present.
    pub(super) async fn run_in_turn<T: Send + 'static>(
        self: &Arc<Runner>,
        verb: Verb,
        dir: BackendKey,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = if self.is_slow(verb) { self.turn(dir).await } else { None };
        let job = move || {
            // Not over before the call is, whoever stops to wait for it.
            let _turn = turn;
            job()
        };
        self.run(verb, Duration::ZERO, job).await
    }

    async fn turn(&self, dir: BackendKey) -> Option<OwnedSemaphorePermit> {
        let turnstiles = self
            .turnstiles
            .get_or_init(|| (0..TURNSTILES).map(|_| Arc::new(Semaphore::new(TURNS))).collect());
        let turnstile = turnstiles[dir.inode as usize % TURNSTILES].clone();
        // It is never closed.
        turnstile.acquire_owned().await.ok()
    }

    /// Runs `job` where its verb belongs at present; `allowed` is what it may take beyond the ordinary.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Runner>,
        verb: Verb,
        allowed: Duration,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if !self.is_slow(verb) {
            return self.timed(verb, allowed, job);
        }
        let runner = self.clone();
        blocking(move || runner.timed(verb, allowed, job)).await
    }

    fn timed<T>(&self, verb: Verb, allowed: Duration, job: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = job();
        self.note(verb, start.elapsed(), allowed);
        result
    }
}

/// Runs `job` in the blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(job).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down; the job may or may not have run.
            Err(_) => Err(FsError::Indeterminate),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    async fn thread_of(runner: &Arc<Runner>, takes: Duration) -> thread::ThreadId {
        let job = move || {
            thread::sleep(takes);
            Ok(thread::current().id())
        };
        runner.run(Verb::Lookup, Duration::ZERO, job).await.unwrap()
    }

    #[tokio::test]
    async fn slow_calls_move_to_the_pool_and_quick_ones_come_back() {
        let here = thread::current().id();
        let runner = Arc::new(Runner::default());
        assert_eq!(thread_of(&runner, Duration::ZERO).await, here);
        assert_eq!(thread_of(&runner, Duration::from_millis(5)).await, here);
        assert_eq!(thread_of(&runner, Duration::ZERO).await, here, "one slow call moves nothing");
        for _ in 0..8 {
            thread_of(&runner, Duration::from_millis(2)).await;
        }
        assert_ne!(thread_of(&runner, Duration::from_millis(2)).await, here);
        assert!(!runner.is_slow(Verb::Read), "each verb has a pace of its own");
        for _ in 0..64 {
            thread_of(&runner, Duration::ZERO).await;
        }
        assert_eq!(thread_of(&runner, Duration::ZERO).await, here);
    }

    #[tokio::test]
    async fn slow_changes_in_one_directory_go_by_turns() {
        let runner = Arc::new(Runner::default());
        let at_once = Arc::new(AtomicU32::new(0));
        let most = Arc::new(AtomicU32::new(0));
        let in_dir = |inode| {
            let (runner, at_once, most) = (runner.clone(), at_once.clone(), most.clone());
            async move {
                let job = move || {
                    most.fetch_max(at_once.fetch_add(1, Relaxed) + 1, Relaxed);
                    thread::sleep(Duration::from_millis(5));
                    at_once.fetch_sub(1, Relaxed);
                    Ok(())
                };
                let dir = BackendKey { device: 1, inode, generation: 0 };
                runner.run_in_turn(Verb::Create, dir, job).await
            }
        };
        for _ in 0..8 {
            in_dir(1).await.unwrap();
        }
        assert!(runner.is_slow(Verb::Create));
        let in_one: Vec<_> = (0..16).map(|_| tokio::spawn(in_dir(1))).collect();
        for task in in_one {
            task.await.unwrap().unwrap();
        }
        assert_eq!(most.load(Relaxed), TURNS as u32);
        let in_many: Vec<_> = (0..16).map(|inode| tokio::spawn(in_dir(inode))).collect();
        for task in in_many {
            task.await.unwrap().unwrap();
        }
        assert!(most.load(Relaxed) > TURNS as u32, "directories do not wait for each other");
    }

    #[tokio::test]
    async fn long_copies_are_no_slow_calls() {
        let runner = Arc::new(Runner::default());
        for _ in 0..8 {
            let job = || {
                thread::sleep(Duration::from_millis(1));
                Ok(())
            };
            runner.run(Verb::Write, Duration::from_secs(1), job).await.unwrap();
        }
        assert!(!runner.is_slow(Verb::Write));
        assert_eq!(copying(1 << 20), Duration::from_nanos(524_288));
    }
}
