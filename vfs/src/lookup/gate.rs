//! A directory's gate: shared by all who change names in it, exclusive to who removes the directory itself.
//!
//! First come, first served: whoever comes after a waiting remover waits behind it, so that a stream of creators does
//! not starve it. The topology lock is a gate that is only ever taken exclusively.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::fifo::{Owner, Queue, Wait, Waiter, Wakes, give_up};
use crate::node::NodeId;
use crate::rank::{Held, Level, Rank, got, wait_for};
use crate::sync::{Defect, Mutex, defect, mutex};

/// How a gate is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

#[derive(Default)]
struct Inner {
    shared: u32,
    exclusive: bool,
    /// Allocated when somebody first has to wait.
    queue: Option<Box<Queue<Mode, ()>>>,
}

impl Inner {
    fn admits(&self, mode: Mode) -> bool {
        match mode {
            Mode::Shared => !self.exclusive,
            Mode::Exclusive => !self.exclusive && self.shared == 0,
        }
    }

    fn enter(&mut self, mode: Mode) {
        debug_assert!(self.admits(mode), "entered a gate that is taken");
        match mode {
            Mode::Shared => self.shared += 1,
            Mode::Exclusive => self.exclusive = true,
        }
    }

    fn exit(&mut self, mode: Mode) {
        match mode {
            Mode::Shared => self.shared -= 1,
            Mode::Exclusive => {
                debug_assert!(self.exclusive);
                self.exclusive = false;
            }
        }
    }

    /// Lets in from the front of the line all that may come in.
    fn advance(&mut self) -> Wakes {
        let mut wakes = Wakes::default();
        while let Some(mode) = self.queue.as_ref().and_then(|queue| queue.first()) {
            if !self.admits(mode) {
                break;
            }
            self.enter(mode);
            let waiter = self.queue.as_mut().and_then(|queue| queue.pop());
            if let Some(waiter) = waiter {
                wakes.push(waiter.grant(()));
            }
        }
        if self.queue.as_ref().is_some_and(|queue| queue.is_empty()) {
            self.queue = None;
        }
        wakes
    }
}

/// A gate. Its holder keeps an `Arc`, so that a guard may live in any task.
pub(crate) struct Gate {
    inner: Mutex<Inner>,
    rank: Rank,
    /// The directory was removed. Set under the exclusive gate only, after the backend's success.
    dead: AtomicBool,
}

impl Gate {
    fn of(rank: Rank) -> Arc<Gate> {
        Arc::new(Gate { inner: mutex(Level::Line, Inner::default()), rank, dead: AtomicBool::new(false) })
    }

    /// The gate of the directory `id`.
    pub(crate) fn new(id: NodeId) -> Arc<Gate> {
        Gate::of(Rank::Gate(id))
    }

    /// A topology lock.
    pub(crate) fn topology() -> Arc<Gate> {
        Gate::of(Rank::Topology)
    }

    /// Whether the directory was removed. Stable for whoever holds the gate.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Marks the directory as removed, for ever.
    pub(crate) fn set_dead(&self) {
        if !defect(Defect::NoDeadMark) {
            self.dead.store(true, Ordering::Release);
        }
    }

    /// Passes the gate, waiting in line.
    pub(crate) async fn acquire(self: &Arc<Gate>, mode: Mode) -> GateGuard {
        let held = wait_for(|| self.rank.clone());
        let waiter = {
            let mut inner = self.inner.lock();
            if inner.queue.is_none() && inner.admits(mode) {
                inner.enter(mode);
                None
            } else {
                Some(inner.queue.get_or_insert_with(|| Box::new(Queue::new())).push(mode))
            }
        };
        if let Some(waiter) = waiter {
            Wait::new(Arc::new(Line { gate: Arc::clone(self), mode }), waiter).await;
        }
        GateGuard { gate: Arc::clone(self), mode, _held: held }
    }

    /// Passes the gate exclusively if nobody has it or waits for it.
    pub(crate) fn try_exclusive(self: &Arc<Gate>) -> Option<GateGuard> {
        let mut inner = self.inner.lock();
        if inner.queue.is_some() || !inner.admits(Mode::Exclusive) {
            return None;
        }
        inner.enter(Mode::Exclusive);
        drop(inner);
        Some(GateGuard { gate: Arc::clone(self), mode: Mode::Exclusive, _held: got(|| self.rank.clone()) })
    }

    pub(crate) fn is_idle(&self) -> bool {
        let inner = self.inner.lock();
        inner.shared == 0 && !inner.exclusive && inner.queue.is_none()
    }
}

/// A gate together with how one waiter wants to pass it: what its grant, if lost, has to be undone as.
struct Line {
    gate: Arc<Gate>,
    mode: Mode,
}

impl Owner for Line {
    type Grant = ();

    fn leave(&self, waiter: &Waiter<()>) {
        let mut inner = self.gate.inner.lock();
        if give_up(&mut inner.queue, waiter).is_some() {
            inner.exit(self.mode);
        }
        // Those behind a remover who gave up may come in now.
        let wakes = inner.advance();
        drop(inner);
        wakes.wake();
    }
}

/// The gate is passed; dropping leaves it.
pub(crate) struct GateGuard {
    gate: Arc<Gate>,
    mode: Mode,
    _held: Held,
}

impl GateGuard {
    pub(crate) fn is_dead(&self) -> bool {
        self.gate.is_dead()
    }
}

impl Drop for GateGuard {
    fn drop(&mut self) {
        let mut inner = self.gate.inner.lock();
        inner.exit(self.mode);
        let wakes = inner.advance();
        drop(inner);
        wakes.wake();
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    async fn is_waiting<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn a_remover_is_not_overtaken() {
        let gate = Gate::new(NodeId(1));
        let first = gate.acquire(Mode::Shared).await;
        let mut remover = pin!(gate.acquire(Mode::Exclusive));
        assert!(is_waiting(remover.as_mut()).await);
        let mut late = pin!(gate.acquire(Mode::Shared));
        assert!(is_waiting(late.as_mut()).await);
        drop(first);
        let removing = remover.await;
        assert!(is_waiting(late.as_mut()).await);
        drop(removing);
        drop(late.await);
        assert!(gate.is_idle());
    }

    #[tokio::test]
    async fn those_behind_a_remover_who_gave_up_come_in() {
        let gate = Gate::new(NodeId(1));
        let first = gate.acquire(Mode::Shared).await;
        let mut late = pin!(gate.acquire(Mode::Shared));
        {
            let mut remover = pin!(gate.acquire(Mode::Exclusive));
            assert!(is_waiting(remover.as_mut()).await);
            assert!(is_waiting(late.as_mut()).await);
        }
        drop(late.await);
        drop(first);
        assert!(gate.is_idle());
    }

    #[tokio::test]
    async fn a_grant_that_nobody_took_is_passed_on() {
        let gate = Gate::new(NodeId(1));
        let first = gate.acquire(Mode::Exclusive).await;
        let mut next = pin!(gate.acquire(Mode::Exclusive));
        {
            let mut dropped = pin!(gate.acquire(Mode::Exclusive));
            assert!(is_waiting(dropped.as_mut()).await);
            assert!(is_waiting(next.as_mut()).await);
            drop(first);
        }
        drop(next.await);
        assert!(gate.is_idle());
    }
}
