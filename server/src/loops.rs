//! The threads that serve connections, each with an event loop of its own.
//!
//! A connection stays with the thread that it is given at its beginning. What it touches stays in that processor's caches,
//! and a request costs nothing of what one scheduler for all threads does to share its work out: locks, clocks, and threads
//! that look into each other's queues.
//!
//! In exchange nobody takes work off a thread that has too much. So there are several threads a processor, and a newcomer
//! goes to the one with the fewest connections: few have a thread each, which the kernel spreads over the processors as it
//! goes along, and thousands share what there is.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Threads a processor,
const PER_PROCESSOR: usize = 4;

/// as long as they are no more than this: each takes some 70 KiB.
const THREADS: usize = 32;

/// Calls to a file system that may be under way in threads of their own, for each loop. Tokio's 512 would be thousands for all.
const BLOCKING_THREADS: usize = 128;

/// Event loops, started when they are first needed. They end when this is dropped, whatever they still have.
pub struct Loops {
    most: usize,
    running: Mutex<Vec<EventLoop>>,
}

struct EventLoop {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    /// Its end ends the loop.
    _alive: oneshot::Sender<()>,
}

impl EventLoop {
    fn start(number: usize) -> io::Result<EventLoop> {
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        thread::Builder::new().name(format!("loop-{number}")).spawn(move || {
            // What it says is that its other half is gone.
            let _ = runtime.block_on(ended);
            // A call to a file system that hangs must not keep anybody.
            runtime.shutdown_background();
        })?;
        Ok(EventLoop { handle, connections: Arc::default(), _alive: alive })
    }
}

/// A connection's place on a thread, given back when dropped.
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Loops {
    /// Up to four for each of the machine's processors; up to one where there are many.
    pub fn new() -> Loops {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Loops::at_most((processors * PER_PROCESSOR).min(THREADS).max(processors))
    }

    fn at_most(most: usize) -> Loops {
        Loops { most, running: Mutex::default() }
    }

    /// A place on the thread with the fewest connections, to be kept by the connection that is spawned there.
    ///
    /// # Errors
    /// The system's, where there is no thread yet and none can be had.
    pub fn place(&self) -> io::Result<(Handle, Place)> {
        let mut running = self.running.lock();
        let fewest = running.iter().map(|each| each.connections.load(Ordering::Relaxed)).min();
        if fewest != Some(0) && running.len() < self.most {
            match EventLoop::start(running.len()) {
                Ok(started) => running.push(started),
                Err(error) if running.is_empty() => return Err(error),
                Err(error) => tracing::warn!(%error, threads = running.len(), "cannot start another thread"),
            }
        }
        let chosen = running.iter().min_by_key(|each| each.connections.load(Ordering::Relaxed));
        let chosen = chosen.ok_or(io::ErrorKind::OutOfMemory)?;
        chosen.connections.fetch_add(1, Ordering::Relaxed);
        Ok((chosen.handle.clone(), Place(chosen.connections.clone())))
    }
}

impl Default for Loops {
    fn default() -> Self {
        Loops::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread::ThreadId;
    use std::time::Duration;

    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
    use tokio::time::timeout;

    use super::*;

    /// A connection that says on which thread it is, and leaves when it is told to.
    fn connect(loops: &Loops, told: &UnboundedSender<ThreadId>) -> oneshot::Sender<()> {
        let (leave, left) = oneshot::channel::<()>();
        let told = told.clone();
        let (handle, place) = loops.place().unwrap();
        handle.spawn(async move {
            let _place = place;
            told.send(thread::current().id()).unwrap();
            let _ = left.await;
        });
        leave
    }

    async fn threads(told: &mut UnboundedReceiver<ThreadId>, count: usize) -> HashMap<ThreadId, usize> {
        let mut threads = HashMap::new();
        for _ in 0..count {
            *threads.entry(told.recv().await.unwrap()).or_default() += 1;
        }
        threads
    }

    #[tokio::test]
    async fn a_connection_goes_where_there_are_fewest() {
        let loops = Loops::at_most(3);
        let (told, mut tells) = unbounded_channel();
        let mut connections: Vec<_> = (0..9).map(|_| connect(&loops, &told)).collect();
        let threads = threads(&mut tells, 9).await;
        assert_eq!(threads.into_values().collect::<Vec<_>>(), [3, 3, 3]);

        // The first, fourth and seventh are one thread's.
        for leaves in [6, 3, 0] {
            connections.remove(leaves).send(()).unwrap();
        }
        let emptied = async {
            while loops.running.lock()[0].connections.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), emptied).await.expect("those that leave are not counted any more");
        let first = loops.running.lock()[0].connections.clone();
        let _newcomers: Vec<_> = (0..3).map(|_| connect(&loops, &told)).collect();
        assert_eq!(first.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_thread_that_has_nothing_is_used_before_another_is_started() {
        let loops = Loops::at_most(3);
        let (told, mut tells) = unbounded_channel();
        for _ in 0..5 {
            let leaves = connect(&loops, &told);
            threads(&mut tells, 1).await;
            drop(leaves);
            let left = async {
                while loops.running.lock()[0].connections.load(Ordering::Relaxed) > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(10), left).await.unwrap();
        }
        assert_eq!(loops.running.lock().len(), 1);
    }

    #[tokio::test]
    async fn they_end_with_their_connections() {
        let loops = Loops::at_most(2);
        let (told, mut tells) = unbounded_channel();
        let connections: Vec<_> = (0..2).map(|_| connect(&loops, &told)).collect();
        threads(&mut tells, 2).await;
        drop(loops);
        for mut leave in connections {
            timeout(Duration::from_secs(10), leave.closed()).await.expect("the connection is dropped");
        }
    }
}
