//! The way of replies to the socket.
//!
//! Replies are queued in order and leave together, several in a vectored write. Whoever has put a reply there may write it: the connection's
//! own task when it has handled all that it has read, another task as soon as its request is done. One of them holds the
//! writer; what others queue meanwhile goes with it. A write that would wait is left to the connection's task, which
//! is woken when the socket takes more.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Buf;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;

use crate::reply::Frame;

/// Segments in one write.
const SEGMENTS_MAX: usize = 32;

type Sink = Pin<Box<dyn AsyncWrite + Send>>;

/// What is on its way to one client.
pub(crate) struct Outbox {
    queue: Mutex<VecDeque<Frame>>,
    writer: Mutex<Writer>,
    /// Bytes that are queued or being written. They go up under the queue's lock and down under the writer's: so whoever
    /// holds both finds frames of exactly so many bytes.
    bytes: AtomicUsize,
    /// Bytes that have gone: a connection where this stands still while `bytes` is not 0 does not read.
    written: AtomicU64,
    failed: AtomicBool,
    /// The connection's own task.
    task: Mutex<Option<Waker>>,
}

struct Writer {
    sink: Option<Sink>,
    sending: VecDeque<Frame>,
}

impl Outbox {
    pub(crate) fn new(sink: Sink) -> Outbox {
        Outbox {
            // Room for one: most clients wait for each answer, and room for the usual four is a lot for one that is idle.
            queue: Mutex::new(VecDeque::with_capacity(1)),
            writer: Mutex::new(Writer { sink: Some(sink), sending: VecDeque::with_capacity(1) }),
            bytes: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            task: Mutex::new(None),
        }
    }

    /// Queues a frame; it leaves with the next flush.
    pub(crate) fn push(&self, frame: Frame) {
        let mut queue = self.queue.lock();
        // Under the lock: after `discard` nothing comes any more.
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        self.bytes.fetch_add(frame.len(), Ordering::AcqRel);
        queue.push_back(frame);
    }

    /// Bytes that have not been written.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether a write has failed, or the outbox was closed.
    pub(crate) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Bytes that have been written.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Sets whom to wake for a write that has to wait, and for anything else that the connection's task must see.
    pub(crate) fn set_task(&self, waker: &Waker) {
        *self.task.lock() = Some(waker.clone());
    }

    /// Wakes the connection's task.
    pub(crate) fn wake_task(&self) {
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Writes what can be written at once, from any task.
    pub(crate) fn flush(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        if self.poll_flush(&mut cx).is_pending() || self.failed.load(Ordering::Relaxed) {
            self.wake_task();
        }
    }

    /// Writes what can be written. Ready when nothing is left (or somebody else is writing it), pending when the socket is
    /// full: then `cx` is woken if it is the last that asked.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.bytes.load(Ordering::SeqCst) == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            // Whoever holds the writer looks for more after letting it go, and wakes the connection's task if the
            // socket is full.
            let Some(mut writer) = self.writer.try_lock() else { return Poll::Ready(Ok(())) };
            let written = self.write(&mut writer, cx);
            if let Poll::Ready(Err(_)) = written {
                self.failed.store(true, Ordering::SeqCst);
                self.discard(&mut writer);
            }
            drop(writer);
            if !matches!(written, Poll::Ready(Ok(()))) {
                return written;
            }
            // Who pushed a frame while we held the writer could not take it. All changes of `bytes` stand in one
            // order: if theirs comes before this exchange, it fails and we go on; if it comes after, they have seen what
            // we did before it, and find the writer free, or held by somebody who has yet to come here. A mere load
            // would not be seen by them.
            if self.bytes.compare_exchange(0, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return written;
            }
        }
    }

    /// Drops what is queued and what was being written. `failed` is set already, so that it stays empty.
    fn discard(&self, writer: &mut Writer) {
        writer.sending = VecDeque::new();
        let mut queue = self.queue.lock();
        let queued = std::mem::take(&mut *queue);
        self.bytes.store(0, Ordering::SeqCst);
        drop(queue);
        drop(queued);
    }

    /// Writes until nothing is left.
    fn write(&self, writer: &mut Writer, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Writer { sink, sending } = writer;
        let Some(sink) = sink else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        loop {
            if sending.is_empty() {
                std::mem::swap(sending, &mut *self.queue.lock());
                if sending.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            let mut slices = [IoSlice::new(&[]); SEGMENTS_MAX];
            let mut count = 0;
            let segments = sending.iter().flat_map(|frame| [&frame.head, &frame.tail]);
            for segment in segments.filter(|segment| !segment.is_empty()).take(SEGMENTS_MAX) {
                slices[count] = IoSlice::new(segment);
                count += 1;
            }
            let sink = sink.as_mut();
            let written = match &slices[..count] {
                // Most replies are one segment, and the system takes one with less ado.
                [only] => sink.poll_write(cx, only),
                slices => sink.poll_write_vectored(cx, slices),
            };
            let written = match written {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => written,
            };
            let left = self.bytes.fetch_sub(written, Ordering::SeqCst) - written;
            // Nobody else changes it: we hold the writer.
            self.written.store(self.written() + written as u64, Ordering::Relaxed);
            advance(sending, written);
            if left == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Ends the writing side: what is queued is dropped, the socket's sending side is shut down.
    pub(crate) async fn close(&self) {
        self.failed.store(true, Ordering::SeqCst);
        let sink = {
            let mut writer = self.writer.lock();
            self.discard(&mut writer);
            writer.sink.take()
        };
        if let Some(mut sink) = sink {
            // The peer may be gone, and then there is nothing to shut down.
            let _ = std::future::poll_fn(|cx| sink.as_mut().poll_shutdown(cx)).await;
        }
    }
}

/// Takes `written` bytes off the front; a frame that is done gives its charge back.
fn advance(sending: &mut VecDeque<Frame>, mut written: usize) {
    while written > 0 {
        let Some(frame) = sending.front_mut() else { return };
        for segment in [&mut frame.head, &mut frame.tail] {
            let part = segment.len().min(written);
            segment.advance(part);
            written -= part;
        }
        if frame.is_empty() {
            sending.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use bytes::Bytes;

    use super::*;

    /// Takes a few bytes at a time, and fails after so many.
    struct Narrow {
        taken: Arc<AtomicUsize>,
        limit: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let part = bytes.len().min(3);
            if self.taken.fetch_add(part, Ordering::SeqCst) + part > self.limit {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            Poll::Ready(Ok(part))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn outbox(limit: usize) -> (Outbox, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        (Outbox::new(Box::pin(Narrow { taken: taken.clone(), limit })), taken)
    }

    fn frame() -> Frame {
        Frame { head: Bytes::from_static(b"1234"), tail: Bytes::from_static(b"5"), charge: None }
    }

    /// Two threads push and flush at once, again and again: what is left, each time that both are done.
    fn race(outbox: &Outbox, rounds: usize) -> Vec<usize> {
        let barrier = Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        barrier.wait();
                        outbox.push(frame());
                        outbox.flush();
                        barrier.wait();
                    }
                });
            }
            let round = |_| {
                barrier.wait();
                barrier.wait();
                outbox.bytes()
            };
            (0..rounds).map(round).collect()
        })
    }

    #[test]
    fn no_frame_is_left_lying() {
        let (outbox, taken) = outbox(usize::MAX);
        assert_eq!(race(&outbox, 5000), [0; 5000]);
        assert_eq!((outbox.written(), taken.load(Ordering::SeqCst)), (50_000, 50_000));
    }

    #[test]
    fn nothing_is_kept_after_a_failure() {
        for limit in 0..200 {
            let (outbox, _) = outbox(limit);
            assert_eq!(race(&outbox, 25), [0; 25]);
            assert!(outbox.is_failed());
        }
    }
}
