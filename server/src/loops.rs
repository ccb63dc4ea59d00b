//! The threads that serve connections, each with an event loop of its own.
//!
//! A connection stays with the thread that it is given at its beginning. What it touches stays in one processor's caches, as
//! long as the kernel leaves the thread there, and a request costs nothing of what one scheduler for all threads does to
//! share its work out: locks, clocks, and threads that look into each other's queues.
//!
//! In exchange nobody takes work off a thread that has too much. So there are several threads a processor, and a newcomer
//! goes to the one with the fewest connections: few have a thread each, which the kernel spreads over the processors as it
//! goes along, and thousands share what there is. A thread that a call to a file system holds up gets no newcomers after
//! the first.

use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::sync::{Arc, Once, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// Threads a processor, as long as that makes no more than [`THREADS`].
const PER_PROCESSOR: usize = 4;

/// Threads, unless there are more processors: each takes some 70 KiB.
const THREADS: usize = 32;

/// Calls to a file system that may be under way in threads of their own, for all loops together; each has its part, and
/// this much at least.
const BLOCKING_THREADS: usize = 512;
const BLOCKING_THREADS_MIN: usize = 32;

/// A thread at which a newcomer has waited so long is held up.
const HELD_UP: Duration = Duration::from_millis(100);

/// Event loops, started when they are first needed. They end when this is dropped: a server's, when its last connection has
/// gone.
pub struct Loops {
    most: usize,
    running: Mutex<Vec<EventLoop>>,
    start: Start,
    /// It was said that no more threads can be had: each newcomer finds that out, and the log is not theirs to fill.
    warned: Once,
}

/// Starts a loop: which it is, and of how many.
type Start = fn(usize, usize) -> io::Result<EventLoop>;

struct EventLoop {
    handle: Handle,
    load: Arc<Mutex<Load>>,
    /// Its end ends the loop.
    _alive: oneshot::Sender<()>,
}

#[derive(Default)]
struct Load {
    connections: usize,
    /// Since when those wait that have not begun.
    waiting: VecDeque<Instant>,
}

impl EventLoop {
    fn start(number: usize, most: usize) -> io::Result<EventLoop> {
        let (alive, ended) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let run = move || match runtime(most) {
            Ok(runtime) => {
                let _ = tell.send(Ok(runtime.handle().clone()));
                // What this says is that its other half is gone.
                let _ = runtime.block_on(ended);
                // A call to a file system that hangs must not keep anybody.
                runtime.shutdown_background();
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        };
        thread::Builder::new().name(format!("loop-{number}")).spawn(run)?;
        let handle = told.recv().map_err(io::Error::other)??;
        Ok(EventLoop { handle, load: Arc::default(), _alive: alive })
    }

    /// What newcomers go by: whether it is held up, and how many it has.
    fn burden(&self) -> (bool, usize) {
        let load = self.load.lock();
        (load.waiting.front().is_some_and(|since| since.elapsed() > HELD_UP), load.connections)
    }
}

fn runtime(most: usize) -> io::Result<Runtime> {
    let blocking = (BLOCKING_THREADS / most).max(BLOCKING_THREADS_MIN);
    Builder::new_current_thread().enable_all().max_blocking_threads(blocking).build()
}

/// A connection's place on a thread, given back when dropped.
pub struct Place(Arc<Mutex<Load>>);

impl Place {
    /// The connection runs there.
    pub fn begin(&self) {
        self.0.lock().waiting.pop_front();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().connections -= 1;
    }
}

impl Loops {
    /// Up to four for each of the machine's processors, and 32 in all; where there are more processors, one for each.
    pub fn new() -> Loops {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Loops::at_most((processors * PER_PROCESSOR).min(THREADS).max(processors), EventLoop::start)
    }

    fn at_most(most: usize, start: Start) -> Loops {
        Loops { most, running: Mutex::default(), start, warned: Once::new() }
    }

    /// A place on the thread with the fewest connections, to be kept by the connection that is spawned there.
    ///
    /// # Errors
    /// The system's, where there is no thread yet and none can be had.
    pub fn place(&self) -> io::Result<(Handle, Place)> {
        let mut running = self.running.lock();
        let is_free = |each: &EventLoop| each.burden() == (false, 0);
        if running.len() < self.most && !running.iter().any(is_free) {
            match (self.start)(running.len(), self.most) {
                Ok(started) => running.push(started),
                Err(error) if running.is_empty() => return Err(error),
                Err(error) => self.warned.call_once(|| {
                    tracing::warn!(%error, threads = running.len(), "cannot start another thread; these serve all");
                }),
            }
        }
        let chosen = running.iter().min_by_key(|each| each.burden()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut load = chosen.load.lock();
        load.connections += 1;
        load.waiting.push_back(Instant::now());
        Ok((chosen.handle.clone(), Place(chosen.load.clone())))
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

    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
    use tokio::time::{sleep, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn at_most(most: usize) -> Loops {
        Loops::at_most(most, EventLoop::start)
    }

    /// A connection that says on which thread it is, and leaves when it is told to.
    fn connect(loops: &Loops, told: &UnboundedSender<ThreadId>) -> oneshot::Sender<()> {
        let (leave, left) = oneshot::channel::<()>();
        let told = told.clone();
        let (handle, place) = loops.place().unwrap();
        handle.spawn(async move {
            place.begin();
            told.send(thread::current().id()).unwrap();
            let _ = left.await;
        });
        leave
    }

    async fn threads(told: &mut UnboundedReceiver<ThreadId>, count: usize) -> HashMap<ThreadId, usize> {
        let mut threads = HashMap::new();
        for _ in 0..count {
            let thread = timeout(PATIENCE, told.recv()).await.expect("each begins").unwrap();
            *threads.entry(thread).or_default() += 1;
        }
        threads
    }

    fn first_load(loops: &Loops) -> Arc<Mutex<Load>> {
        loops.running.lock()[0].load.clone()
    }

    async fn emptied(load: &Mutex<Load>) {
        let empty = async {
            while load.lock().connections > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, empty).await.expect("those that leave are not counted any more");
    }

    #[tokio::test]
    async fn a_connection_goes_where_there_are_fewest() {
        let loops = at_most(3);
        let (told, mut tells) = unbounded_channel();
        let mut connections = Vec::new();
        for _ in 0..9 {
            connections.push(connect(&loops, &told));
        }
        let threads = threads(&mut tells, 9).await;
        assert_eq!(threads.into_values().collect::<Vec<_>>(), [3, 3, 3]);

        // The first, fourth and seventh are one thread's.
        for leaves in [6, 3, 0] {
            connections.remove(leaves).send(()).unwrap();
        }
        let first = first_load(&loops);
        emptied(&first).await;
        let _newcomers: Vec<_> = (0..3).map(|_| connect(&loops, &told)).collect();
        assert_eq!(first.lock().connections, 3);
    }

    #[tokio::test]
    async fn a_thread_that_has_nothing_is_used_before_another_is_started() {
        let loops = at_most(3);
        let (told, mut tells) = unbounded_channel();
        for _ in 0..5 {
            let leaves = connect(&loops, &told);
            threads(&mut tells, 1).await;
            drop(leaves);
            emptied(&first_load(&loops)).await;
        }
        assert_eq!(loops.running.lock().len(), 1);
    }

    #[tokio::test]
    async fn a_thread_that_is_held_up_gets_no_second_newcomer() {
        let loops = at_most(2);
        let (told, mut tells) = unbounded_channel();
        let _first = connect(&loops, &told);
        threads(&mut tells, 1).await;
        let (release, released) = mpsc::channel::<()>();
        let hang = loops.running.lock()[0].handle.clone();
        hang.spawn(async move {
            let _ = released.recv();
        });
        let others: Vec<_> = (0..3).map(|_| connect(&loops, &told)).collect();
        // Two of the three found the other thread with fewer, or as few, and one waits here.
        let first = first_load(&loops);
        assert_eq!(first.lock().waiting.len(), 1);
        sleep(HELD_UP + Duration::from_millis(50)).await;
        let more: Vec<_> = (0..4).map(|_| connect(&loops, &told)).collect();
        assert_eq!(first.lock().connections, 2, "none of the newcomers");
        threads(&mut tells, 6).await;
        drop(release);
        threads(&mut tells, 1).await;
        drop((others, more));
    }

    #[tokio::test]
    async fn where_no_more_threads_can_be_had_one_does() {
        let start: Start = |number, most| match number {
            0 => EventLoop::start(number, most),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        };
        let loops = Loops::at_most(3, start);
        let (told, mut tells) = unbounded_channel();
        let _connections: Vec<_> = (0..4).map(|_| connect(&loops, &told)).collect();
        assert_eq!(threads(&mut tells, 4).await.into_values().collect::<Vec<_>>(), [4]);
        let none = Loops::at_most(3, |_, _| Err(io::ErrorKind::WouldBlock.into()));
        assert_eq!(none.place().map(drop).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn they_end_with_their_connections() {
        let loops = at_most(2);
        let (told, mut tells) = unbounded_channel();
        let connections: Vec<_> = (0..2).map(|_| connect(&loops, &told)).collect();
        threads(&mut tells, 2).await;
        drop(loops);
        for mut leave in connections {
            timeout(PATIENCE, leave.closed()).await.expect("the connection is dropped");
        }
    }
}
