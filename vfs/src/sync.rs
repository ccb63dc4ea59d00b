//! The one place that knows whether the model checker is at work.
//!
//! Everything in `lookup`, `ops` and `memory` that locks or spawns takes it from here. Under `cfg(shuttle)` the same
//! names mean shuttle's: each use is then a point at which the checker may switch tasks. Seeded defects, which the
//! models must catch, are chosen here as well; outside the models none can be.

#[cfg(not(shuttle))]
pub use parking_lot::{Mutex, MutexGuard};

#[cfg(shuttle)]
pub use checked::{Mutex, MutexGuard};

#[cfg(shuttle)]
mod checked {
    /// shuttle's mutex in the form of parking_lot's.
    pub struct Mutex<T: ?Sized>(shuttle::sync::Mutex<T>);
    /// Its guard.
    pub type MutexGuard<'a, T> = shuttle::sync::MutexGuard<'a, T>;

    impl<T> Mutex<T> {
        /// A new mutex.
        pub fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }
    }

    impl<T: ?Sized> Mutex<T> {
        /// Waits for it.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Mutex::new(T::default())
        }
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
    // Dropping shuttle's handle detaches the task, as tokio's does.
    drop(shuttle::future::spawn(future));
}

/// A wrong turn that the models take on purpose: each must be caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Defect {
    /// None.
    None = 0,
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
    /// A change of the tree takes no gate.
    NoGate,
}

/// Whether the models have chosen this defect.
#[cfg(not(shuttle))]
#[inline(always)]
pub(crate) const fn defect(_: Defect) -> bool {
    false
}

#[cfg(shuttle)]
static DEFECT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether the models have chosen this defect.
#[cfg(shuttle)]
pub(crate) fn defect(which: Defect) -> bool {
    DEFECT.load(std::sync::atomic::Ordering::Relaxed) == which as u8
}

/// Chooses the defect of all runs from now on.
#[cfg(shuttle)]
pub fn choose_defect(which: Defect) {
    DEFECT.store(which as u8, std::sync::atomic::Ordering::Relaxed);
}

/// Ends after `duration`.
#[cfg(not(shuttle))]
pub(crate) use tokio::time::sleep;

/// Time does not pass in a model: any other task may go first.
#[cfg(shuttle)]
pub(crate) async fn sleep(_: std::time::Duration) {
    shuttle::future::yield_now().await;
}
