//! The bytes in flight: requests that are being handled and replies that have not left, per connection and in total.
//!
//! Over a budget the reader stops reading (style.md, section 10), until replies have gone. A connection with nothing
//! in flight may always go on with one chain: so the total can be passed by one chain a connection, and nobody is
//! starved by others who do not read. A request that parks gives its charge back: what it holds has a bound of its
//! own, and it may wait for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// The budget of all connections.
#[derive(Debug)]
pub struct TotalBudget {
    limit: usize,
    in_flight: AtomicUsize,
    /// Readers that stopped because of the total.
    waiting: Mutex<Vec<Waker>>,
    any_waiting: AtomicBool,
}

impl TotalBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<TotalBudget> {
        Arc::new(TotalBudget {
            limit,
            in_flight: AtomicUsize::new(0),
            waiting: Mutex::new(Vec::new()),
            any_waiting: AtomicBool::new(false),
        })
    }

    /// Bytes in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn release(&self, bytes: usize) {
        let before = self.in_flight.fetch_sub(bytes, Ordering::SeqCst);
        if before - bytes < self.limit && self.any_waiting.load(Ordering::SeqCst) {
            let waiting = {
                let mut waiting = self.waiting.lock();
                self.any_waiting.store(false, Ordering::SeqCst);
                std::mem::take(&mut *waiting)
            };
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

/// The budget of one connection.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    in_flight: AtomicUsize,
    total: Arc<TotalBudget>,
    /// The reader, while it has stopped.
    reader: Mutex<Option<Waker>>,
    stopped: AtomicBool,
}

impl Budget {
    /// A budget of `limit` bytes, within `total`.
    pub fn new(limit: usize, total: Arc<TotalBudget>) -> Arc<Budget> {
        Arc::new(Budget {
            limit,
            in_flight: AtomicUsize::new(0),
            total,
            reader: Mutex::new(None),
            stopped: AtomicBool::new(false),
        })
    }

    /// Bytes in flight on this connection.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether the reader may take another chain.
    pub fn has_room(&self) -> bool {
        let mine = self.in_flight.load(Ordering::SeqCst);
        mine == 0 || (mine < self.limit && self.total.in_flight.load(Ordering::SeqCst) < self.total.limit)
    }

    /// As [`has_room`](Self::has_room), but if there is none `waker` is woken when there may be.
    pub fn poll_room(&self, waker: &Waker) -> bool {
        if self.has_room() {
            return true;
        }
        *self.reader.lock() = Some(waker.clone());
        self.stopped.store(true, Ordering::SeqCst);
        if self.in_flight.load(Ordering::SeqCst) < self.limit {
            let mut waiting = self.total.waiting.lock();
            if !waiting.iter().any(|other| other.will_wake(waker)) {
                waiting.push(waker.clone());
            }
            self.total.any_waiting.store(true, Ordering::SeqCst);
        }
        // A release between the first look and the marks has seen no marks.
        self.has_room()
    }

    /// Charges `bytes`.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.in_flight.fetch_add(bytes, Ordering::SeqCst);
        self.total.in_flight.fetch_add(bytes, Ordering::SeqCst);
        Charge { budget: self.clone(), bytes }
    }

    fn release(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.in_flight.fetch_sub(bytes, Ordering::SeqCst);
        self.total.release(bytes);
        if self.stopped.load(Ordering::SeqCst) && self.has_room() {
            self.stopped.store(false, Ordering::SeqCst);
            let reader = self.reader.lock().take();
            if let Some(reader) = reader {
                reader.wake();
            }
        }
    }
}

/// A charge that is too large by less is left as it is until all of it is given back: see [`Charge::settle`].
const SLACK: usize = 4096;

/// Bytes that are charged until this is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Makes it a charge of `bytes`.
    pub fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            self.budget.in_flight.fetch_add(more, Ordering::SeqCst);
            self.budget.total.in_flight.fetch_add(more, Ordering::SeqCst);
        } else {
            self.budget.release(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Makes it a charge of `bytes`, or a little more: what is left will go soon, and to give a little back before is not
    /// worth its price.
    pub fn settle(&mut self, bytes: usize) {
        if bytes > self.bytes || self.bytes - bytes >= SLACK {
            self.set(bytes);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_full_connection_waits_for_itself() {
        let total = TotalBudget::new(1000);
        let budget = Budget::new(100, total.clone());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let first = budget.charge(90);
        assert!(budget.poll_room(&waker), "90 of 100");
        let second = budget.charge(90);
        assert!(!budget.poll_room(&waker));
        drop(first);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(budget.has_room());
        drop(second);
        assert_eq!((budget.in_flight(), total.in_flight()), (0, 0));
    }

    #[test]
    fn a_full_server_still_takes_one_chain_a_connection() {
        let total = TotalBudget::new(100);
        let (a, b) = (Budget::new(1000, total.clone()), Budget::new(1000, total.clone()));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let hog = a.charge(500);
        assert!(b.poll_room(&waker), "nothing in flight");
        let mut one = b.charge(1);
        assert!(!b.poll_room(&waker));
        one.set(5);
        assert_eq!(total.in_flight(), 505);
        drop(hog);
        assert!(woken.0.load(Ordering::SeqCst) >= 1);
        assert!(b.has_room());
        one.set(0);
        assert_eq!(total.in_flight(), 0);
    }

    #[test]
    fn a_settled_charge_is_never_too_small_and_little_too_large() {
        let total = TotalBudget::new(100_000);
        let budget = Budget::new(100_000, total.clone());
        let mut charge = budget.charge(10_000);
        for (bytes, charged) in [(9_000, 10_000), (12_000, 12_000), (7_905, 12_000), (7_904, 7_904), (0, 0)] {
            charge.settle(bytes);
            assert_eq!((budget.in_flight(), total.in_flight()), (charged, charged));
        }
        charge.settle(1);
        drop(charge);
        assert_eq!((budget.in_flight(), total.in_flight()), (0, 0));
    }
}
