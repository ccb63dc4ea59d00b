//! A directory's gate: shared by all who change names in it, exclusive to who removes the directory itself.
//!
//! First come, first served: whoever comes after a waiting remover waits behind it, so that a stream of creators does
//! not starve it. The topology lock is a gate that is only ever taken exclusively.
//!
//! Who is in the gate stands in one word. As long as nobody waits, to pass and to leave it is one atomic step each. A bit
//! of the word says that there is a line; it is set and cleared under the line's mutex alone. While it is set nobody
//! passes but from the front of the line, and whoever leaves lets in the next.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::fifo::{Owner, Queue, Wait, Waiter, Wakes, give_up};
use crate::node::NodeId;
use crate::rank::{Held, Level, Rank, got, wait_for};
use crate::sync::{AtomicU32, Defect, Mutex, Ordering, defect, mutex};

/// There is a line.
const LINE: u32 = 1;
/// The one who has passed exclusively.
const EXCLUSIVE: u32 = 2;
/// One of those who have passed shared.
const SHARED: u32 = 4;

/// How a gate is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

impl Mode {
    /// What one who has passed so adds to the gate's word.
    fn one(self) -> u32 {
        match self {
            Mode::Shared => SHARED,
            Mode::Exclusive => EXCLUSIVE,
        }
    }

    /// Whether those in the gate admit another.
    fn is_admitted(self, word: u32) -> bool {
        match self {
            Mode::Shared => word & EXCLUSIVE == 0,
            Mode::Exclusive => word & !LINE == 0,
        }
    }
}

/// Those who wait. Allocated when somebody first has to.
type Waiting = Option<Box<Queue<Mode, ()>>>;

/// A gate. Its holder keeps an `Arc`, so that a guard may live in any task.
pub(crate) struct Gate {
    word: AtomicU32,
    /// The directory was removed. Set under the exclusive gate only, after the backend's success.
    dead: AtomicBool,
    line: Mutex<Waiting>,
    /// The directory; `None`: a topology lock.
    id: Option<NodeId>,
}

impl Gate {
    fn of(id: Option<NodeId>) -> Arc<Gate> {
        let line = mutex(Level::Line, None);
        Arc::new(Gate { word: AtomicU32::new(0), dead: AtomicBool::new(false), line, id })
    }

    /// The gate of the directory `id`.
    pub(crate) fn new(id: NodeId) -> Arc<Gate> {
        Gate::of(Some(id))
    }

    /// A topology lock.
    pub(crate) fn topology() -> Arc<Gate> {
        Gate::of(None)
    }

    fn rank(&self) -> Rank {
        self.id.map_or(Rank::Topology, Rank::Gate)
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
        let held = wait_for(|| self.rank());
        if !self.enter(mode)
            && let Some(waiter) = self.stand_in_line(mode)
        {
            Wait::new(Arc::new(Line { gate: Arc::clone(self), mode }), waiter).await;
        }
        GateGuard { gate: Arc::clone(self), mode, _held: held }
    }

    /// Passes the gate exclusively if nobody has it or waits for it.
    pub(crate) fn try_exclusive(self: &Arc<Gate>) -> Option<GateGuard> {
        let mode = Mode::Exclusive;
        let held = self.enter(mode).then(|| got(|| self.rank()))?;
        Some(GateGuard { gate: Arc::clone(self), mode, _held: held })
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.word.load(Ordering::Acquire) == 0
    }

    /// Passes the gate if nobody is in the way, nor in line.
    #[inline]
    fn enter(&self, mode: Mode) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & LINE == 0 && mode.is_admitted(word) {
            let entered = word + mode.one();
            match self.word.compare_exchange_weak(word, entered, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Gets into line. `None`: the way is free by now, and the gate passed.
    fn stand_in_line(&self, mode: Mode) -> Option<Arc<Waiter<()>>> {
        let mut line = self.line.lock();
        // To look once more and to begin the line is one step: who is in the way leaves after it, and looks for a line.
        let enters =
            |word: u32| word & LINE == 0 && mode.is_admitted(word) && !defect(Defect::LooksThenLines);
        let step = |word: u32| if enters(word) { word + mode.one() } else { word | LINE };
        match self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, |word| Some(step(word))) {
            Ok(word) if enters(word) => None,
            Ok(_) | Err(_) => Some(line.get_or_insert_with(|| Box::new(Queue::new())).push(mode)),
        }
    }

    #[inline]
    fn leave(&self, mode: Mode) {
        let word = self.word.fetch_sub(mode.one(), Ordering::Release);
        debug_assert!(word & !LINE >= mode.one(), "left a gate that was not passed");
        if word & LINE != 0 {
            self.let_in();
        }
    }

    #[cold]
    fn let_in(&self) {
        let mut line = self.line.lock();
        let wakes = self.advance(&mut line);
        drop(line);
        wakes.wake();
    }

    /// Lets in from the front of the line all that may come in.
    fn advance(&self, line: &mut Waiting) -> Wakes {
        let mut wakes = Wakes::default();
        while let Some(mode) = line.as_ref().and_then(|queue| queue.first()) {
            // All others only leave, while there is a line: whoever may come in now may still do so in a moment.
            if !mode.is_admitted(self.word.load(Ordering::Acquire)) {
                return wakes;
            }
            self.word.fetch_add(mode.one(), Ordering::Relaxed);
            let waiter = line.as_mut().and_then(|queue| queue.pop());
            if let Some(waiter) = waiter {
                wakes.push(waiter.grant(()));
            }
        }
        *line = None;
        self.word.fetch_and(!LINE, Ordering::Relaxed);
        wakes
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
        let mut line = self.gate.line.lock();
        if give_up(&mut line, waiter).is_some() {
            self.gate.word.fetch_sub(self.mode.one(), Ordering::Release);
        }
        // Those behind a remover who gave up may come in now.
        let wakes = self.gate.advance(&mut line);
        drop(line);
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
    #[inline]
    fn drop(&mut self) {
        self.gate.leave(self.mode);
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

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn threads_exclude_each_other() {
        const ALONE: u32 = 1_000;
        let (gate, inside) = (Gate::new(NodeId(1)), Arc::new(AtomicU32::new(0)));
        let pass_often = |first: usize| {
            let (gate, inside) = (Arc::clone(&gate), Arc::clone(&inside));
            async move {
                for turn in first..first + 2_000 {
                    let (mode, weight) =
                        if turn.is_multiple_of(4) { (Mode::Exclusive, ALONE) } else { (Mode::Shared, 1) };
                    let _passed = gate.acquire(mode).await;
                    let before = inside.fetch_add(weight, Ordering::SeqCst);
                    assert!(before == 0 || before < ALONE && weight == 1, "{mode:?} beside {before}");
                    if turn.is_multiple_of(3) {
                        tokio::task::yield_now().await;
                    }
                    inside.fetch_sub(weight, Ordering::SeqCst);
                }
            }
        };
        let tasks: Vec<_> = (0..8).map(|first| tokio::spawn(pass_often(first))).collect();
        for task in tasks {
            task.await.expect("passes each time");
        }
        assert!(gate.is_idle());
    }
}
