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
    /// Bytes that are queued or being written.
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
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        self.bytes.fetch_add(frame.len(), Ordering::Relaxed);
        self.queue.lock().push_back(frame);
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
        loop {
            if self.bytes.load(Ordering::SeqCst) == 0 {
                return Poll::Ready(Ok(()));
            }
            // Whoever holds the writer looks at the queue again after letting it go, and wakes the connection's task if
            // the socket is full.
            let Some(mut writer) = self.writer.try_lock() else { return Poll::Ready(Ok(())) };
            let written = self.write(&mut writer, cx);
            drop(writer);
            match written {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    self.failed.store(true, Ordering::SeqCst);
                    self.queue.lock().clear();
                    self.bytes.store(0, Ordering::SeqCst);
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(())) => {
                    if self.queue.lock().is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }

    /// Writes until the queue is empty.
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
                Poll::Ready(Err(error)) => {
                    *sending = VecDeque::new();
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => written,
            };
            self.bytes.fetch_sub(written, Ordering::SeqCst);
            self.written.fetch_add(written as u64, Ordering::Relaxed);
            advance(sending, written);
        }
    }

    /// Ends the writing side: what is queued is dropped, the socket's sending side is shut down.
    pub(crate) async fn close(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.queue.lock().clear();
        let sink = {
            let mut writer = self.writer.lock();
            writer.sending.clear();
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
