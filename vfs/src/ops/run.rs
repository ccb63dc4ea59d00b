//! Running a change: in place if it does not wait, and else in a task of its own, which owns its claims.
//!
//! A request may be dropped at any time (CANCEL, a lost connection). What it asked the backend to do goes on all the
//! same, perhaps on another thread, so the claim has to be kept until that has ended.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use crate::Vfs;
use crate::counters::Count;
use crate::error::{FsError, Result};
use crate::lookup::fifo::{Owner, Queue, Wait, Waiter, Wakes, give_up};
use crate::rank::{Level, operation};
use crate::sync::{Defect, Mutex, defect, mutex, spawn};

/// The changes that run in tasks of their own.
pub(crate) struct Running {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tasks: usize,
    queue: Option<Box<Queue<(), ()>>>,
}

impl Running {
    pub(crate) fn new() -> Arc<Running> {
        Arc::new(Running { inner: mutex(Level::Line, Inner::default()) })
    }

    pub(crate) fn enter(self: &Arc<Running>) -> Task {
        self.inner.lock().tasks += 1;
        Task(Arc::clone(self))
    }

    /// Waits until there is none.
    pub(crate) async fn none(self: &Arc<Running>) {
        loop {
            let waiter = {
                let mut inner = self.inner.lock();
                if inner.tasks == 0 {
                    return;
                }
                inner.queue.get_or_insert_with(|| Box::new(Queue::new())).push(())
            };
            Wait::new(Arc::clone(self), waiter).await;
        }
    }
}

impl Owner for Running {
    type Grant = ();

    fn leave(&self, waiter: &Waiter<()>) {
        // Everybody is told at once: there is nothing to pass on.
        let _told = give_up(&mut self.inner.lock().queue, waiter);
    }
}

pub(crate) struct Task(Arc<Running>);

impl Drop for Task {
    fn drop(&mut self) {
        let mut wakes = Wakes::default();
        let mut inner = self.0.inner.lock();
        inner.tasks -= 1;
        if inner.tasks == 0
            && let Some(mut queue) = inner.queue.take()
        {
            while let Some(waiter) = queue.pop() {
                wakes.push(waiter.grant(()));
            }
        }
        drop(inner);
        wakes.wake();
    }
}

/// Tells the one who waits what a task came to, also if it came to nothing.
struct Tell<T>(Option<Arc<Waiter<Option<T>>>>);

impl<T> Tell<T> {
    fn tell(mut self, value: T) {
        if let Some(waker) = self.0.take().and_then(|waiter| waiter.grant(Some(value))) {
            waker.wake();
        }
    }
}

impl<T> Drop for Tell<T> {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take().and_then(|waiter| waiter.grant(None)) {
            waker.wake();
        }
    }
}

/// A call of the backend that changes something, or asks what has come of that. If it panics its outcome is unknown: who
/// called is told so, and what it touched is settled as after any other lost answer.
///
/// It comes pinned: an argument would lie in this future twice.
pub(crate) async fn contained<T>(mut call: Pin<&mut impl Future<Output = Result<T>>>) -> Result<T> {
    if cfg!(shuttle) {
        // A panic is how the checker, and what the models assert, end a run.
        return call.await;
    }
    poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))).unwrap_or_else(|_| {
            tracing::error!("a backend panicked; what it has done is unknown");
            Poll::Ready(Err(FsError::Indeterminate))
        })
    })
    .await
}

impl<F: Default + Send + 'static> Vfs<F> {
    /// Runs `change` to its end, whether or not the answer is still awaited.
    ///
    /// # Errors
    /// `Indeterminate` if it panicked in its own task; its guards have then let go of everything.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        change: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let mut change: Option<Pin<Box<dyn Future<Output = T> + Send>>> = Some(Box::pin(operation(change)));
        if defect(Defect::RequestOwnedClaim)
            && let Some(change) = change
        {
            return Ok(change.await);
        }
        // Once in place: most changes are through after that. There is no await between this poll and the spawn.
        let first = poll_fn(|cx| {
            Poll::Ready(match change.as_mut().map(|change| change.as_mut().poll(cx)) {
                Some(Poll::Ready(value)) => Some(value),
                Some(Poll::Pending) | None => None,
            })
        })
        .await;
        if let Some(value) = first {
            return Ok(value);
        }
        let waiter = Waiter::alone();
        let told = Arc::clone(&waiter);
        if let Some(change) = change {
            self.count(Count::Tasks);
            let task = self.running.enter();
            let tell = Tell(Some(told));
            spawn(async move {
                let _task = task;
                tell.tell(change.await);
            });
        }
        poll_fn(|cx| waiter.poll(cx)).await.ok_or(FsError::Indeterminate)
    }
}
