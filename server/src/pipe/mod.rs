//! Named pipes on IPC$: what MS-SMB2 calls "the underlying object store" of a pipe share.
//!
//! There are two, `srvsvc` and `wkssvc`. The RPC that goes through them is `shoal_protocol::rpc`; `answers` says what they
//! have to say. A pipe belongs to one open, passes messages, and keeps a bounded number of bytes that were not read.

mod answers;

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use shoal_protocol::NtStatus;
use shoal_protocol::rpc::{self, Interface, PipeError};

use self::answers::Said;
use crate::Server;
use crate::state::turn::{Wake, turn};

/// The client's end of an open pipe.
pub struct Pipe {
    state: Mutex<State>,
}

struct State {
    rpc: rpc::Pipe,
    closed: bool,
    /// Reads that wait for something to be said.
    waiting: VecDeque<Wake>,
}

/// What a read of a pipe gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// At most as much as was asked for.
    pub bytes: Bytes,
    /// The message goes on (STATUS_BUFFER_OVERFLOW).
    pub more: bool,
}

impl Pipe {
    /// The quotas that a client is told of, in bytes.
    pub const QUOTA: u32 = 4096;

    /// Opens the pipe of this name. OBJECT_NAME_NOT_FOUND if there is none.
    pub fn open(name: &[u16]) -> Result<Pipe, NtStatus> {
        let interface = Interface::by_pipe_name(name).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        let state = State { rpc: rpc::Pipe::new(interface), closed: false, waiting: VecDeque::new() };
        Ok(Pipe { state: Mutex::new(state) })
    }

    /// The pipe's name.
    pub fn name(&self) -> &'static str {
        self.state.lock().rpc.interface().pipe_name()
    }

    /// Takes what a client writes; what it asks is answered at once, to be read.
    pub fn write(&self, server: &Server, bytes: &[u8]) -> Result<usize, NtStatus> {
        let wake = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(NtStatus::FILE_CLOSED);
            }
            state.rpc.write(bytes, &Said::new(server)).map_err(status)?;
            state.next_wake()
        };
        drop(wake);
        Ok(bytes.len())
    }

    /// Reads at most `max` bytes of the next message; waits until there is one.
    pub async fn read(&self, max: usize) -> Result<Message, NtStatus> {
        loop {
            let wait = {
                let mut state = self.state.lock();
                if state.closed {
                    return Err(NtStatus::PIPE_DISCONNECTED);
                }
                if let Some(piece) = state.rpc.read(max) {
                    return Ok(Message { bytes: piece.data, more: piece.left != 0 });
                }
                if state.rpc.is_broken() {
                    return Err(NtStatus::PIPE_BROKEN);
                }
                state.waiting.retain(|wake| !wake.is_abandoned());
                let (wait, wake) = turn();
                state.waiting.push_back(wake);
                wait
            };
            wait.await;
        }
    }

    /// FSCTL_PIPE_TRANSCEIVE: writes and reads the answer. BUSY if an earlier answer was not read.
    pub async fn transceive(&self, server: &Server, input: &[u8], max: usize) -> Result<Message, NtStatus> {
        if self.state.lock().rpc.next_message().is_some() {
            return Err(NtStatus::PIPE_BUSY);
        }
        self.write(server, input)?;
        self.read(max).await
    }

    /// Messages that can be read, their bytes, and those of the first.
    pub fn unread(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        let (messages, bytes) = state.rpc.unread();
        (messages, bytes, state.rpc.next_message().unwrap_or(0))
    }

    /// Bytes that can be read.
    pub fn readable(&self) -> usize {
        self.unread().1
    }

    /// Ends it: whoever waits for a message finds out.
    pub fn close(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }
}

impl State {
    fn next_wake(&mut self) -> Option<Wake> {
        self.rpc.next_message()?;
        while let Some(wake) = self.waiting.pop_front() {
            if !wake.is_abandoned() {
                return Some(wake);
            }
        }
        None
    }
}

fn status(error: PipeError) -> NtStatus {
    match error {
        PipeError::Broken => NtStatus::PIPE_BROKEN,
        PipeError::Full => NtStatus::PIPE_BUSY,
    }
}
