//! The one place that knows whether the model checker is at work.
//!
//! Everything in `lookup`, `ops` and `memory` that locks or spawns takes it from here. Under `cfg(shuttle)` the same
//! names mean shuttle's: each use is then a point at which the checker may switch tasks. Seeded defects, which the
//! models must catch, are chosen here as well; outside the models none can be.

#[cfg(not(any(debug_assertions, shuttle)))]
use crate::rank::Level;

#[cfg(not(any(debug_assertions, shuttle)))]
pub use parking_lot::{Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
#[cfg(any(debug_assertions, shuttle))]
pub use watched::{Mutex, MutexGuard};

/// A mutex whose place in the order of locks is watched.
#[cfg(not(any(debug_assertions, shuttle)))]
pub(crate) fn mutex<T>(_: Level, value: T) -> Mutex<T> {
    Mutex::new(value)
}

/// Locks a mutex beside another of its level, in the order of their keys.
#[cfg(not(any(debug_assertions, shuttle)))]
pub(crate) fn lock_beside<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(any(debug_assertions, shuttle))]
pub(crate) use watched::{lock_beside, mutex};

#[cfg(any(debug_assertions, shuttle))]
mod watched {
    use std::ops::{Deref, DerefMut};

    #[cfg(not(shuttle))]
    use parking_lot as inner;
    #[cfg(shuttle)]
    use shuttle::sync as inner;

    use crate::rank::{HeldLevel, Level, beside, lock};

    /// A mutex in the form of parking_lot's: the checker's own in a model, and watched where it has a level.
    pub struct Mutex<T: ?Sized> {
        level: Option<Level>,
        inner: inner::Mutex<T>,
    }

    /// Its guard. The fields' order is the order in which it ends.
    pub struct MutexGuard<'a, T: ?Sized> {
        guard: inner::MutexGuard<'a, T>,
        _held: Option<HeldLevel>,
    }

    impl<T> Mutex<T> {
        /// A mutex that is not watched: nothing is locked while it is.
        pub fn new(value: T) -> Self {
            Mutex { level: None, inner: inner::Mutex::new(value) }
        }
    }

    impl<T: ?Sized> Mutex<T> {
        /// What it guards, of which nobody else knows.
        pub fn get_mut(&mut self) -> &mut T {
            #[cfg(not(shuttle))]
            return self.inner.get_mut();
            #[cfg(shuttle)]
            return self.inner.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        }

        /// Waits for it.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.enter(self.level.map(lock))
        }

        fn enter(&self, held: Option<HeldLevel>) -> MutexGuard<'_, T> {
            #[cfg(not(shuttle))]
            let guard = self.inner.lock();
            #[cfg(shuttle)]
            let guard = self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            MutexGuard { guard, _held: held }
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Mutex::new(T::default())
        }
    }

    impl<T: ?Sized> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.guard
        }
    }

    impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.guard
        }
    }

    /// A mutex whose place in the order of locks is watched.
    pub(crate) fn mutex<T>(level: Level, value: T) -> Mutex<T> {
        Mutex { level: Some(level), inner: inner::Mutex::new(value) }
    }

    /// Locks a mutex beside another of its level, in the order of their keys.
    pub(crate) fn lock_beside<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.enter(mutex.level.map(beside))
    }
}

/// Runs a future in a task of its own, whose end nobody awaits.
#[cfg(not(shuttle))]
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(future));
}

/// Runs a future in a task of its own, whose end nobody awaits.
#[cfg(shuttle)]
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    // Dropping its handle would take the task out of the checker's search for deadlocks.
    std::mem::forget(shuttle::future::spawn(future));
}

macro_rules! defects {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A wrong turn that the models take on purpose: each must be caught.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Defect {
            /// None.
            None,
            $($(#[$doc])* $name,)*
        }

        impl Defect {
            /// Every wrong turn.
            pub const ALL: &'static [Defect] = &[$(Defect::$name,)*];
        }
    };
}

defects! {
    /// The names are claimed before the victim directory is drained.
    NamesThenDrain,
    /// A claim is given up when the request is dropped, although its backend call goes on.
    RequestOwnedClaim,
    /// A waiter that is dropped keeps a grant it was given.
    LostGrant,
    /// A rename publishes its source's name before its target's, not both at once.
    SourceThenTarget,
    /// A rename publishes its target's name before its source's, not both at once.
    TargetThenSource,
    /// After waiting for its claims a rename does not look whether its object is still where it was.
    MissingRecheck,
    /// Claims are taken in the order source, target.
    UnorderedClaims,
    /// Directories are moved without the topology lock.
    NoTopology,
    /// A directory's removal does not mark it dead.
    NoDeadMark,
    /// An open does not look whether the object is gone.
    OpenIgnoresGone,
    /// The published value is read at the time of the poll, not carried by the grant.
    ValueAtPoll,
    /// A listing is returned while names in it are half-changed.
    UnsettledListing,
    /// A create takes no gate.
    NoGate,
    /// Where others change the tree, who came after the question was asked is told its answer too.
    AnswersLateComers,
    /// What was stored stays stored when a change's outcome is unknown.
    KeepsAfterUnknown,
    /// Moves of directories are not counted, so that a path may mix them.
    UncountedMoves,
    /// A move does not look whether its target stands below it.
    NoLoopCheck,
    /// An empty queue of changes is taken for one that was applied, though somebody may still be at that.
    DrainedIsEmpty,
    /// A foreign change of a claimed name is not remembered until its value is published.
    IgnoresRecheck,
    /// A value gets the stamp that its directory has after the storage was asked.
    StampAfterCall,
    /// A directory is watched only after the storage was asked of it.
    WatchesLate,
    /// What our own changes are told as is not expected to come once, but any number of times.
    ExpectsForEver,
    /// Changes that end while an index is filled are not kept for it.
    FillWithoutJournal,
    /// An index stays sure of a name of which nobody knows whether it was made.
    SureOfTheUnknown,
    /// An index is still used when changes were lost.
    KeepsLostIndex,
    /// A rename that keeps missing goes on with its gates shared.
    NoEscalator,
    /// Gates are taken in the order source, target, victim.
    UnorderedGates,
    /// Some take the topology lock before gates and claims.
    TopologyFirst,
    /// The opens of two nodes are locked in the order source, target.
    UnorderedOpens,
    /// A claim that ends is not handed to those who wait.
    NoHandOff,
    /// A removal tells its closer that somebody outside was quicker.
    TellsOfStrangers,
    /// An open does not look whether the object still has the name.
    OpenIgnoresPlace,
    /// An open does not look whether a directory above it was moved since it was looked up.
    OpenIgnoresMoves,
    /// A lookup that failed is taken for absence.
    ErrorIsAbsence,
    /// A directory is marked dead before the backend has removed it.
    DeadTooEarly,
    /// Names and gates are let go of at once when a change's outcome is unknown.
    LetsGoUnknown,
    /// A rename whose outcome was unknown is taken not to have happened.
    AssumesUndone,
    /// The removal of one spelling makes all that fold alike absent.
    ForgetsOtherSpellings,
    /// What was caught up with before a wait or a contradiction is taken for caught up after it.
    WaitsCaughtUp,
    /// The index is asked although changes of our own have ended of which it has not heard.
    IndexBehindOurs,
    /// Who finds a gate taken gets into line without looking once more: it may be left by then.
    LooksThenLines,
    /// Where nobody else changes the tree, a rename does not look whether its source's name still stands for the object.
    RenamesWhatIsThere,
    /// Who walks upwards does not see that a directory has moved away and back.
    MovesAreNotCounted,
    /// What is learnt of an unsure name while an index is filled is not kept for it.
    FillForgetsTheLearnt,
    /// The slot of a name that has gone is taken out although others hold it.
    LetsGoOfHeld,
}

/// Whether the models have chosen this defect.
#[cfg(not(shuttle))]
#[inline(always)]
pub(crate) const fn defect(_: Defect) -> bool {
    false
}

// Of the thread: the checker runs all tasks of a model on the thread that called it, and models run side by side.
#[cfg(shuttle)]
thread_local! {
    static DEFECT: std::cell::Cell<Defect> = const { std::cell::Cell::new(Defect::None) };
    static WATCHING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether the models have chosen this defect.
#[cfg(shuttle)]
pub(crate) fn defect(which: Defect) -> bool {
    DEFECT.get() == which
}

/// Chooses the defect of all runs on this thread from now on.
#[cfg(shuttle)]
pub fn choose_defect(which: Defect) {
    DEFECT.set(which);
}

/// Says whether the order of locks is watched in the runs on this thread from now on; it takes longer.
#[cfg(shuttle)]
pub fn watch_locks(watch: bool) {
    WATCHING.set(watch);
}

#[cfg(shuttle)]
pub(crate) fn is_watching_locks() -> bool {
    WATCHING.get()
}

/// Ends after `duration`.
#[cfg(not(shuttle))]
pub(crate) use tokio::time::sleep;

/// Time does not pass in a model: any other task may go first.
#[cfg(shuttle)]
pub(crate) async fn sleep(_: std::time::Duration) {
    shuttle::future::yield_now().await;
}
