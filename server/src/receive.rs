//! From a frame to a chain of requests: decryption, the sequence window, the chain's structure. MS-SMB2 3.3.5.2.1 to 3.3.5.2.3,
//! 3.3.5.2.6 and 3.3.5.2.7.
//!
//! All of it runs on the connection's reader, in the order of the wire. So do CANCEL, which never waits, and the first
//! poll of every chain, in the thread's [`Lane`]: most are done with it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use bytes::{Bytes, BytesMut};
use shoal_protocol::smb1;
use shoal_protocol::smb2::MessageId;
use shoal_protocol::smb2::compound;
use shoal_protocol::smb2::header::{Command, Header};
use shoal_protocol::smb2::transform::TransformHeader;
use tracing::Instrument;

use crate::Server;
use crate::budget::Charge;
use crate::command::{cancel, negotiate};
use crate::connection::Connection;
use crate::context::Context;
use crate::dispatch::{self, Incoming};
use crate::misbehaved::Misbehaved;
use crate::pending::Ticket;
use crate::state::session::Session;

/// Takes in one frame's payload: answers it, or starts what will.
pub(crate) fn frame(
    server: &Arc<Server>,
    connection: &Arc<Connection>,
    payload: BytesMut,
) -> Result<(), Misbehaved> {
    if Header::is_smb2(&payload) {
        chain(server, connection, payload.freeze(), None)
    } else if TransformHeader::is_transform(&payload) {
        let (payload, session) = open(connection, payload)?;
        chain(server, connection, payload, Some(session))
    } else if smb1::is_smb1(&payload) && connection.negotiated().is_none() {
        negotiate::multi_protocol(server, connection, &payload.freeze())
    } else {
        // A compression transform belongs here too: we negotiate none.
        Err(Misbehaved::Protocol)
    }
}

/// Decrypts a message: 3.3.5.2.1.1.
fn open(connection: &Connection, mut payload: BytesMut) -> Result<(Bytes, Arc<Session>), Misbehaved> {
    let header = TransformHeader::parse(&payload).map_err(Misbehaved::Header)?;
    let session = connection.session(header.session_id).ok_or(Misbehaved::Transform("no such session"))?;
    let ciphers = session.ciphers().ok_or(Misbehaved::Transform("the session has no cipher"))?;
    let mut data = payload.split_off(TransformHeader::LEN);
    // As it came, reserved bytes and all.
    let aad = &payload[TransformHeader::AAD_AT..];
    if !ciphers.decryption.open_in_place(&header.nonce, aad, &mut data, &header.signature) {
        return Err(Misbehaved::Transform("wrong key or changed bytes"));
    }
    if !Header::is_smb2(&data) {
        return Err(Misbehaved::Transform("no SMB2 message inside"));
    }
    Ok((data.freeze(), session))
}

fn chain(
    server: &Arc<Server>,
    connection: &Arc<Connection>,
    payload: Bytes,
    encrypted: Option<Arc<Session>>,
) -> Result<(), Misbehaved> {
    let length = payload.len();
    let mut requests = Vec::with_capacity(1);
    for message in compound::messages(payload) {
        let message = message.map_err(Misbehaved::Chain)?;
        let (mut header, number) = Header::parse_unknown(&message).map_err(Misbehaved::Header)?;
        let command = Command::try_from(number).ok();
        // A command that does not exist is treated as one that has nothing special until `dispatch` refuses it.
        header.command = command.unwrap_or(Command::Echo);
        admit(connection, &header)?;
        requests.push(Incoming { header, number, message });
    }
    if let Some(session) = &encrypted {
        let first = requests.first().map(|request| request.header.session_id);
        if first != Some(session.id) {
            return Err(Misbehaved::Transform("the message inside is of another session"));
        }
    }
    // A CANCEL alone: nothing to run, nothing to answer.
    if let [Incoming { header, message, .. }] = &requests[..]
        && header.command == Command::Cancel
    {
        if dispatch::may_cancel(connection, header, message, encrypted.as_deref()) {
            cancel::handle(connection, header);
        }
        connection.metrics.count(Command::Cancel);
        return Ok(());
    }
    for Incoming { header, number, .. } in &requests {
        if *number == header.command as u16 {
            connection.metrics.count(header.command);
        }
    }
    let charge = connection.budget.charge(length + requests.iter().map(Incoming::reply_size).sum::<usize>());
    let ids = Ids::of(&requests);
    let job = Job { server: server.clone(), connection: connection.clone(), encrypted, charge, requests };
    run(connection, job, ids);
    Ok(())
}

/// 3.3.5.2.2 and 3.3.5.2.3, for one message of a chain.
fn admit(connection: &Connection, header: &Header) -> Result<(), Misbehaved> {
    if header.is_response() {
        return Err(Misbehaved::Response);
    }
    let negotiated = connection.negotiated();
    match header.command {
        Command::Negotiate if negotiated.is_some() => return Err(Misbehaved::NegotiatedTwice),
        Command::Negotiate => {}
        _ if negotiated.is_none() => return Err(Misbehaved::NotNegotiated),
        _ => {}
    }
    // 3.3.5.2.3: "If the received request is an SMB2 CANCEL, this section MUST be skipped."
    if header.command == Command::Cancel {
        return Ok(());
    }
    let multi_credit = negotiated.is_some_and(|negotiated| negotiated.multi_credit);
    let charge = if multi_credit { header.credit_charge.max(1) } else { 1 };
    let received = connection.window.lock().receive(header.message_id, charge);
    received.map_err(|_| Misbehaved::SequenceOutsideWindow)
}

/// The message ids of a chain: nearly always one.
#[derive(Clone)]
enum Ids {
    One(MessageId),
    Many(Vec<MessageId>),
}

impl Ids {
    fn of(requests: &[Incoming]) -> Ids {
        match requests {
            [one] => Ids::One(one.header.message_id),
            many => Ids::Many(many.iter().map(|request| request.header.message_id).collect()),
        }
    }

    fn as_slice(&self) -> &[MessageId] {
        match self {
            Ids::One(id) => std::slice::from_ref(id),
            Ids::Many(ids) => ids,
        }
    }
}

/// A chain that is about to run.
struct Job {
    server: Arc<Server>,
    connection: Arc<Connection>,
    encrypted: Option<Arc<Session>>,
    charge: Charge,
    requests: Vec<Incoming>,
}

/// A future that runs one chain after the other, so that they all have its memory: a chain's own is some kilobytes. A
/// chain that has to wait takes the lane with it into a task of its own.
struct Lane {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The ticket of all its chains.
    ticket: Arc<Ticket>,
}

/// What a lane's future and whoever polls it tell each other.
#[derive(Default)]
enum Seat {
    /// The last chain is done.
    #[default]
    Free,
    /// The next chain.
    Taken(Job),
    /// A chain is running.
    Running,
}

thread_local! {
    /// The lane of the reader that runs on this thread at present, whichever connection's.
    static LANE: Cell<Option<Lane>> = const { Cell::new(None) };
    /// The seat in the lane that [`run`] polls at present. It needs no lock: a lane asks for its next chain only while `run`
    /// polls it, for one that goes on in a task of its own has moved, and ends with its chain. And `run` never runs
    /// within a chain: only a reader calls it.
    static SEAT: Cell<Seat> = const { Cell::new(Seat::Free) };
}

impl Lane {
    fn new() -> Lane {
        let ticket = Arc::new(Ticket::default());
        Lane { future: Box::pin(lane(ticket.clone())), ticket }
    }
}

async fn lane(mut ticket: Arc<Ticket>) {
    loop {
        let Job { server, connection, encrypted, charge, requests } = poll_fn(|_| next_job()).await;
        let mut cx = Context::new(server, connection, encrypted, ticket, charge);
        dispatch::chain(&mut cx, requests).await;
        ticket = cx.ticket;
        if ticket.moved.load(Ordering::SeqCst) {
            return;
        }
    }
}

fn next_job() -> Poll<Job> {
    match SEAT.replace(Seat::Running) {
        Seat::Taken(job) => Poll::Ready(job),
        seat => {
            debug_assert!(matches!(seat, Seat::Running), "a lane was polled outside of `run`");
            SEAT.set(Seat::Free);
            Poll::Pending
        }
    }
}

/// Polls a chain once, here; if it has to wait it goes on in a task of its own.
fn run(connection: &Arc<Connection>, job: Job, ids: Ids) {
    let mut lane = LANE.take().unwrap_or_else(Lane::new);
    SEAT.set(Seat::Taken(job));
    let polled = lane.future.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
    let seat = SEAT.take();
    debug_assert!(!matches!(seat, Seat::Taken(_)), "the lane did not take its chain");
    if polled.is_ready() {
        return;
    }
    let Lane { future, ticket } = lane;
    if matches!(seat, Seat::Free) {
        // The ticket of a chain that went async is known by a message id that is over.
        if !ticket.parked.load(Ordering::Relaxed) {
            LANE.set(Some(Lane { future, ticket }));
        }
        return;
    }
    connection.tasks.fetch_add(1, Ordering::SeqCst);
    connection.pending.moved(ids.as_slice(), &ticket);
    let running = Running { connection: connection.clone(), ids };
    let task = async move {
        let _running = running;
        future.await;
    };
    tokio::spawn(task.in_current_span());
}

/// A chain in a task of its own, as its connection sees it. Dropped with the task, also when that panics.
struct Running {
    connection: Arc<Connection>,
    ids: Ids,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.connection.pending.finished(self.ids.as_slice());
        self.connection.task_done();
    }
}
