//! The order of locks, watched. In debug builds and in the models each lock is compared with all that are held already,
//! and one that is out of order panics, whether or not anybody was in the way this time.
//!
//! What is held across awaits ([`Rank`]: gates, claims, a topology lock) belongs to an operation and goes with it from
//! task to task, so the record of it is the operation's ([`operation`]). What is held for an instant ([`Level`]: the
//! mutexes) belongs to the thread. In other builds all of this is nothing.

use crate::fold::FoldedName;
use crate::node::NodeId;

/// What an operation waits for in line; each only while all that it holds is less.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(any(debug_assertions, shuttle)), allow(dead_code))]
pub(crate) enum Rank {
    /// A directory's gate, in either mode.
    Gate(NodeId),
    /// A name.
    Claim(NodeId, FoldedName),
    /// A device's topology lock.
    Topology,
}

/// A mutex, each locked only while all that the thread holds are less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(any(debug_assertions, shuttle)), allow(dead_code))]
pub(crate) enum Level {
    /// The reading of a mount's queue of changes.
    Reading,
    /// A node's opens.
    Opens(NodeId),
    /// The instant at which a directory gets another place.
    Moves,
    /// A shard of a table.
    Shard,
    /// A slot. Two are locked by [`crate::sync::lock_beside`], in the order of their keys.
    Slot,
    /// What is being changed in a directory.
    Changing,
    /// A link's or a directory's place.
    Place,
    /// A directory's index of names.
    Index,
    /// The watched directories of a mount.
    Watches,
    /// A line that is no slot's: a gate's, or that of who waits for the end.
    Line,
    /// Where a waiter's grant is put.
    Cell,
}

#[cfg(any(debug_assertions, shuttle))]
pub(crate) use watched::{Held, HeldLevel, beside, got, lock, operation, wait_for};

#[cfg(any(debug_assertions, shuttle))]
mod watched {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::{Arc, Mutex, PoisonError};

    #[cfg(shuttle)]
    use shuttle::thread_local;

    use super::{Level, Rank};

    /// What an operation holds.
    type Record = Arc<Mutex<Vec<Rank>>>;

    thread_local! {
        /// The operation that is being polled.
        static OPERATION: RefCell<Option<Record>> = const { RefCell::new(None) };
        static LEVELS: RefCell<Vec<Level>> = const { RefCell::new(Vec::new()) };
    }

    /// Whether locks are watched here and now. Where the models take a wrong turn on purpose they have to see it for
    /// themselves, by what comes of it.
    fn is_watching() -> bool {
        #[cfg(shuttle)]
        return !std::thread::panicking()
            && crate::sync::is_watching_locks()
            && shuttle::current::get_current_task().is_some();
        #[cfg(not(shuttle))]
        return !std::thread::panicking();
    }

    /// Held, or waited for.
    pub(crate) struct Held(Option<(Record, Rank)>);

    impl Drop for Held {
        fn drop(&mut self) {
            let Some((record, rank)) = self.0.take() else { return };
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = record.iter().rposition(|held| *held == rank) {
                record.swap_remove(at);
            }
        }
    }

    fn current() -> Option<Record> {
        OPERATION.with(|operation| operation.borrow().clone())
    }

    /// The operation that is polled is about to wait for this, or to get it at once.
    pub(crate) fn wait_for(rank: impl FnOnce() -> Rank) -> Held {
        if !is_watching() {
            return Held(None);
        }
        let rank = rank();
        LEVELS.with(|levels| {
            let levels = levels.borrow();
            assert!(levels.is_empty(), "waits for {rank:?} with {levels:?} locked");
        });
        let Some(record) = current() else { return Held(None) };
        let mut held = record.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = held.iter().max().cloned();
        if highest.as_ref().is_some_and(|highest| *highest >= rank) {
            drop(held);
            panic!("waits for {rank:?} while it holds {highest:?}");
        }
        held.push(rank.clone());
        drop(held);
        Held(Some((record, rank)))
    }

    /// The operation got this without being ready to wait for it.
    pub(crate) fn got(rank: impl FnOnce() -> Rank) -> Held {
        if !is_watching() {
            return Held(None);
        }
        let Some(record) = current() else { return Held(None) };
        let rank = rank();
        record.lock().unwrap_or_else(PoisonError::into_inner).push(rank.clone());
        Held(Some((record, rank)))
    }

    /// Puts the operation that was polled before back.
    struct Entered(Option<Record>);

    impl Entered {
        fn new(record: &Record) -> Entered {
            Entered(OPERATION.with(|operation| operation.replace(Some(Arc::clone(record)))))
        }
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            if !cfg!(shuttle) || is_watching() {
                OPERATION.with(|operation| operation.replace(self.0.take()));
            }
        }
    }

    /// `future` as an operation, or as a part of the one that calls it: whatever it waits for is compared with all that
    /// the operation holds. No mutex stays locked when it has to wait.
    pub(crate) async fn operation<T>(future: impl Future<Output = T>) -> T {
        if !is_watching() {
            return future.await;
        }
        let record = current().unwrap_or_default();
        let mut future = pin!(future);
        poll_fn(|cx| {
            let entered = Entered::new(&record);
            let before = LEVELS.with(|levels| levels.borrow().len());
            let polled = future.as_mut().poll(cx);
            let after = LEVELS.with(|levels| levels.borrow().len());
            assert_eq!(before, after, "a mutex stays locked over an await");
            drop(entered);
            polled
        })
        .await
    }

    /// A mutex that is locked.
    pub(crate) struct HeldLevel(Option<Level>);

    impl Drop for HeldLevel {
        fn drop(&mut self) {
            // A panic in a model ends the model.
            let Some(level) = self.0.filter(|_| !cfg!(shuttle) || is_watching()) else { return };
            // Not where the thread itself ends.
            let _ = LEVELS.try_with(|levels| {
                let mut levels = levels.borrow_mut();
                let at = levels.iter().rposition(|held| *held == level);
                debug_assert!(at.is_some() || std::thread::panicking(), "{level:?} was locked elsewhere");
                at.map(|at| levels.swap_remove(at));
            });
        }
    }

    fn push(level: Level, fits: impl FnOnce(Level) -> bool) -> HeldLevel {
        if !is_watching() {
            return HeldLevel(None);
        }
        let pushed = LEVELS.try_with(|levels| {
            let mut levels = levels.borrow_mut();
            let highest = levels.iter().max().copied();
            assert!(highest.is_none_or(fits), "locks {level:?} while it has {highest:?}");
            levels.push(level);
        });
        HeldLevel(pushed.is_ok().then_some(level))
    }

    /// The thread is about to lock this.
    pub(crate) fn lock(level: Level) -> HeldLevel {
        push(level, |highest| highest < level)
    }

    /// The thread is about to lock this beside another of its level, in an order that the caller knows.
    pub(crate) fn beside(level: Level) -> HeldLevel {
        push(level, |highest| highest <= level)
    }
}

#[cfg(not(any(debug_assertions, shuttle)))]
pub(crate) use unwatched::{Held, got, lock, operation, wait_for};

#[cfg(not(any(debug_assertions, shuttle)))]
mod unwatched {
    use super::{Level, Rank};

    /// Nothing.
    pub(crate) struct Held;

    /// Nothing.
    pub(crate) struct HeldLevel;

    #[inline(always)]
    pub(crate) fn wait_for(_: impl FnOnce() -> Rank) -> Held {
        Held
    }

    #[inline(always)]
    pub(crate) fn got(_: impl FnOnce() -> Rank) -> Held {
        Held
    }

    /// `future` itself.
    #[inline(always)]
    pub(crate) fn operation<F: Future>(future: F) -> F {
        future
    }

    #[inline(always)]
    pub(crate) fn lock(_: Level) -> HeldLevel {
        HeldLevel
    }
}

#[cfg(all(test, not(shuttle), debug_assertions))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fold::Fold;
    use crate::lookup::evict::{Budget, Siblings};
    use crate::lookup::gate::{Gate, Mode};
    use crate::lookup::slot::Slot;
    use crate::name::Name;
    use crate::sync::mutex;

    fn slot(dir: u64, name: &str) -> Arc<Slot<()>> {
        let siblings = Siblings::new(NodeId(dir), &Budget::new(usize::MAX, usize::MAX));
        Arc::new(Slot::new(&siblings, Fold::Insensitive.fold(&Name::from_str(name).expect("a name"))))
    }

    fn gate(id: u64) -> Arc<Gate> {
        Gate::new(NodeId(id))
    }

    #[tokio::test]
    async fn the_order_is_let_pass() {
        operation(async {
            let _first = gate(1).acquire(Mode::Shared).await;
            let _second = gate(2).acquire(Mode::Exclusive).await;
            let _a = slot(1, "a").claim().await;
            let b = slot(1, "b").claim().await;
            let _c = slot(2, "a").claim().await;
            // What was let go of does not count, and a part of the operation is the operation.
            drop(b);
            operation(async { drop(Gate::topology().acquire(Mode::Exclusive).await) }).await;
        })
        .await;
        // Two operations of one task have nothing to do with each other.
        let held = operation(gate(2).acquire(Mode::Shared)).await;
        drop(operation(gate(1).acquire(Mode::Shared)).await);
        drop(held);
    }

    #[tokio::test]
    #[should_panic(expected = "waits for Gate(NodeId(1)) while it holds Some(Gate(NodeId(2)))")]
    async fn gates_ascend() {
        operation(async {
            let _second = gate(2).acquire(Mode::Shared).await;
            gate(1).acquire(Mode::Shared).await;
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "waits for Gate(NodeId(1)) while it holds Some(Gate(NodeId(1)))")]
    async fn a_gate_is_not_passed_twice() {
        let gate = gate(1);
        operation(async {
            let _once = gate.acquire(Mode::Shared).await;
            gate.acquire(Mode::Shared).await;
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "waits for Gate(NodeId(5)) while it holds Some(Claim(NodeId(1)")]
    async fn gates_before_claims() {
        operation(async {
            let _claim = slot(1, "a").claim().await;
            gate(5).acquire(Mode::Exclusive).await;
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "waits for Claim(NodeId(1)")]
    async fn claims_ascend() {
        operation(async {
            let _b = slot(1, "b").claim().await;
            slot(1, "A").claim().await;
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "while it holds Some(Topology)")]
    async fn claims_before_the_topology_lock() {
        operation(async {
            let _topology = Gate::topology().acquire(Mode::Exclusive).await;
            slot(1, "a").claim().await;
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "while it holds Some(Claim(NodeId(1)")]
    async fn a_reader_waits_with_no_claim_above() {
        operation(async {
            let _b = slot(1, "b").claim().await;
            let _ = slot(1, "a").value_or_claim(None).await;
        })
        .await;
    }

    #[tokio::test]
    #[should_panic(expected = "while it holds Some(Claim(NodeId(2)")]
    async fn what_goes_to_another_task_goes_on_counting() {
        let mut moved = None;
        operation(async {
            let claim = slot(2, "a").claim().await;
            // As a change does that has to wait.
            let mut rest = Box::pin(operation(async move {
                tokio::task::yield_now().await;
                gate(1).acquire(Mode::Shared).await;
                drop(claim);
            }));
            std::future::poll_fn(|cx| std::task::Poll::Ready(rest.as_mut().poll(cx).is_pending())).await;
            moved = Some(tokio::spawn(rest));
        })
        .await;
        let moved = moved.expect("is spawned");
        if let Err(error) = moved.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }

    #[tokio::test]
    #[should_panic(expected = "a mutex stays locked over an await")]
    #[allow(clippy::await_holding_invalid_type, reason = "the fault that is looked for")]
    async fn no_mutex_over_an_await() {
        let place = mutex(Level::Place, ());
        let mut future = Box::pin(operation(async {
            let guard = place.lock();
            std::future::pending::<()>().await;
            drop(guard);
        }));
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await;
    }

    #[tokio::test]
    #[should_panic(expected = "with [Place] locked")]
    #[allow(clippy::await_holding_invalid_type, reason = "the fault that is looked for")]
    async fn nobody_waits_with_a_mutex_locked() {
        let place = mutex(Level::Place, ());
        let guard = place.lock();
        let waiting = gate(1);
        let mut waiting = Box::pin(waiting.acquire(Mode::Shared));
        std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
        drop(guard);
    }

    #[test]
    #[should_panic(expected = "locks Slot while it has Some(Place)")]
    fn a_slot_before_a_place() {
        let (slot, place) = (mutex(Level::Slot, ()), mutex(Level::Place, ()));
        let _place = place.lock();
        let _slot = slot.lock();
    }

    #[test]
    #[should_panic(expected = "locks Slot while it has Some(Slot)")]
    fn two_slots_by_their_keys_only() {
        let (a, b) = (mutex(Level::Slot, ()), mutex(Level::Slot, ()));
        let _a = a.lock();
        let _b = b.lock();
    }

    #[test]
    #[should_panic(expected = "locks Opens(NodeId(1)) while it has Some(Opens(NodeId(2)))")]
    fn opens_ascend() {
        let _two = lock(Level::Opens(NodeId(2)));
        lock(Level::Opens(NodeId(1)));
    }
}
