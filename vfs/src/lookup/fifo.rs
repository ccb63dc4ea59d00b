//! Waiting in line, without a thread: the list that gates, names and the topology lock share.
//!
//! A queue lives inside its owner's mutex. Whoever ends a wait writes the grant into the waiter's own cell *first* and
//! wakes it afterwards; a waiter that is dropped between the two finds the grant in its cell and gives it back to the
//! owner, which passes it on. Nothing is read at the time of the poll but the cell: a grant carries all it says.
//!
//! Order of locks: the owner's mutex, then a cell.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::rank::Level;
use crate::sync::{Defect, Mutex, defect, mutex};

enum Cell<G> {
    Waiting(Option<Waker>),
    Granted(G),
    /// The grant was taken, or the wait given up.
    Done,
}

/// Where one waiter's grant is put.
pub(crate) struct Waiter<G> {
    ticket: u64,
    cell: Mutex<Cell<G>>,
}

impl<G> Waiter<G> {
    /// A waiter of no queue, for a single value.
    pub(crate) fn alone() -> Arc<Waiter<G>> {
        Arc::new(Waiter { ticket: 0, cell: mutex(Level::Cell, Cell::Waiting(None)) })
    }

    /// Records the grant; the waker is to be woken once all locks are let go.
    #[must_use]
    pub(crate) fn grant(&self, grant: G) -> Option<Waker> {
        let mut cell = self.cell.lock();
        match std::mem::replace(&mut *cell, Cell::Granted(grant)) {
            Cell::Waiting(waker) => waker,
            Cell::Granted(_) | Cell::Done => unreachable!("a waiter leaves its queue before it is granted"),
        }
    }

    /// Takes the grant, or leaves the waker.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<G> {
        let mut cell = self.cell.lock();
        match std::mem::replace(&mut *cell, Cell::Done) {
            Cell::Granted(grant) => Poll::Ready(grant),
            Cell::Waiting(old) => {
                let waker = match old {
                    Some(old) if old.will_wake(cx.waker()) => old,
                    _ => cx.waker().clone(),
                };
                *cell = Cell::Waiting(Some(waker));
                Poll::Pending
            }
            Cell::Done => unreachable!("polled after its end"),
        }
    }
}

/// Those who wait, in the order in which they came; `K` is what each wants.
pub(crate) struct Queue<K, G> {
    waiting: VecDeque<(K, Arc<Waiter<G>>)>,
    next: u64,
}

impl<K: Copy, G> Queue<K, G> {
    pub(crate) fn new() -> Queue<K, G> {
        Queue { waiting: VecDeque::new(), next: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gets into line.
    pub(crate) fn push(&mut self, want: K) -> Arc<Waiter<G>> {
        let waiter = Arc::new(Waiter { ticket: self.next, cell: mutex(Level::Cell, Cell::Waiting(None)) });
        self.next += 1;
        self.waiting.push_back((want, Arc::clone(&waiter)));
        waiter
    }

    /// What the first in line wants.
    pub(crate) fn first(&self) -> Option<K> {
        self.waiting.front().map(|(want, _)| *want)
    }

    /// Takes the first out of the line.
    pub(crate) fn pop(&mut self) -> Option<Arc<Waiter<G>>> {
        self.waiting.pop_front().map(|(_, waiter)| waiter)
    }

    /// Takes all of whom `f` holds out of the line.
    pub(crate) fn take_all(&mut self, f: impl Fn(K) -> bool, mut each: impl FnMut(K, &Waiter<G>)) {
        self.waiting.retain(|(want, waiter)| {
            let take = f(*want);
            if take {
                each(*want, waiter);
            }
            !take
        });
    }

    fn remove(&mut self, ticket: u64) -> bool {
        // Tickets ascend along the line.
        match self.waiting.binary_search_by_key(&ticket, |(_, waiter)| waiter.ticket) {
            Ok(at) => self.waiting.remove(at).is_some(),
            Err(_) => false,
        }
    }
}

/// The wakers of a step, woken when its locks are let go.
#[derive(Default)]
pub(crate) struct Wakes {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Wakes {
    pub(crate) fn push(&mut self, waker: Option<Waker>) {
        match waker {
            Some(waker) if self.first.is_none() => self.first = Some(waker),
            Some(waker) => self.more.push(waker),
            None => {}
        }
    }

    #[inline]
    pub(crate) fn wake(self) {
        // Most often there is nobody.
        if let Some(first) = self.first {
            first.wake();
            self.more.into_iter().for_each(Waker::wake);
        }
    }
}

/// Gives a wait up, under the owner's mutex. A grant that was recorded already comes back: the owner passes it on.
///
/// The cell decides: who has a grant is in no line any more, and his ticket may be another's in a line that began since.
#[must_use]
pub(crate) fn give_up<K: Copy, G>(line: &mut Option<Box<Queue<K, G>>>, waiter: &Waiter<G>) -> Option<G> {
    let cell = std::mem::replace(&mut *waiter.cell.lock(), Cell::Done);
    match cell {
        Cell::Granted(_) if defect(Defect::LostGrant) => None,
        Cell::Granted(grant) => Some(grant),
        Cell::Done => None,
        Cell::Waiting(_) => {
            let left = line.as_mut().is_some_and(|queue| queue.remove(waiter.ticket));
            debug_assert!(left, "a waiter without a grant is in line");
            if line.as_ref().is_some_and(|queue| queue.is_empty()) {
                *line = None;
            }
            None
        }
    }
}

/// What a queue lives in.
pub(crate) trait Owner {
    type Grant;

    /// A waiter does not wait any more: takes it out of the line, or passes its grant on, under the owner's mutex.
    fn leave(&self, waiter: &Waiter<Self::Grant>);
}

/// A wait for a grant. Dropping it leaves the line, or passes the grant on.
pub(crate) struct Wait<O: Owner> {
    owner: Arc<O>,
    waiter: Arc<Waiter<O::Grant>>,
    done: bool,
}

impl<O: Owner> Wait<O> {
    pub(crate) fn new(owner: Arc<O>, waiter: Arc<Waiter<O::Grant>>) -> Wait<O> {
        Wait { owner, waiter, done: false }
    }
}

impl<O: Owner> Future for Wait<O> {
    type Output = O::Grant;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O::Grant> {
        let polled = self.waiter.poll(cx);
        self.done = polled.is_ready();
        polled
    }
}

impl<O: Owner> Drop for Wait<O> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.owner.leave(&self.waiter);
    }
}
