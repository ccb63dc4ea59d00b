//! Where a call runs: inline on the caller's thread as long as calls of its sort are quick, in the blocking pool while they are not.
//!
//! A hop to the pool costs 20 to 30 µs of CPU, many times a cached call, so it must be earned. For each verb a moving average of the time
//! that its calls took is kept, less what their bytes or entries may take; above 200 µs the verb's calls go to the pool, where they are
//! timed as well, and they come back when the average has sunk. One slow call counts for no more than four times the threshold's worth:
//! it takes a few in a row to move a verb, and a thread that was merely preempted once moves none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::error::{FsError, Result};

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

/// The paces of one share's verbs.
#[derive(Default)]
pub(super) struct Runner {
    /// The moving average per verb, in nanoseconds.
    averages: [AtomicU32; VERBS],
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

    /// Runs `job` where its verb belongs at present; `allowed` is what it may take beyond the ordinary.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Runner>,
        verb: Verb,
        allowed: Duration,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let runner = self.clone();
        let timed = move || {
            let start = Instant::now();
            let result = job();
            runner.note(verb, start.elapsed(), allowed);
            result
        };
        if self.is_slow(verb) { blocking(timed).await } else { timed() }
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
