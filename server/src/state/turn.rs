//! A place in a queue: what a request that must wait holds, and what wakes it.
//!
//! State hands out a [`Turn`] to whoever must wait and keeps the [`Wake`] beside the reason. Plain std: no runtime,
//! no clock. A wake that comes before the wait is kept; a dropped `Wake` wakes too, so that nobody waits for a
//! state that is gone.

use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
struct Shared {
    come: bool,
    waker: Option<Waker>,
}

/// The waiting side: a future that ends when its [`Wake`] is delivered or dropped.
#[derive(Debug)]
pub struct Turn(Arc<Mutex<Shared>>);

/// The waking side. Collect it under the state's lock, let it go (drop or [`Wake::deliver`]) outside.
#[derive(Debug)]
pub struct Wake(Arc<Mutex<Shared>>);

/// A new pair.
pub fn turn() -> (Turn, Wake) {
    let shared = Arc::new(Mutex::new(Shared::default()));
    (Turn(shared.clone()), Wake(shared))
}

impl Wake {
    /// Wakes the waiter. The same as dropping; the name says that it is meant.
    pub fn deliver(self) {}

    /// Whether the waiter has given up (its [`Turn`] is gone).
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        let waker = {
            let mut shared = self.0.lock();
            shared.come = true;
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Future for Turn {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.lock();
        if shared.come {
            return Poll::Ready(());
        }
        match &mut shared.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            slot => *slot = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(turn: &mut Turn) -> Poll<()> {
        Pin::new(turn).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn waits_until_the_wake_is_let_go() {
        let (mut turn, wake) = turn();
        assert!(poll(&mut turn).is_pending());
        wake.deliver();
        assert!(poll(&mut turn).is_ready());
    }

    #[test]
    fn an_early_wake_is_kept() {
        let (mut turn, wake) = turn();
        drop(wake);
        assert!(poll(&mut turn).is_ready());
    }

    #[test]
    fn an_abandoned_turn_shows() {
        let (turn, wake) = turn();
        assert!(!wake.is_abandoned());
        drop(turn);
        assert!(wake.is_abandoned());
    }
}
