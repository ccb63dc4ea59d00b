//! The server's end of a named pipe that carries RPC: MS-RPCE 3.3.1.5 and 3.3.3.5. A pure state machine: bytes that
//! the client writes go in, messages that it reads come out.
//!
//! Bounds: a fragment that is not whole waits with at most `FRAGMENT_TAKEN` bytes; a call's arguments take at most
//! [`REQUEST_MAX`]; contexts at most `CONTEXTS_MAX`; answers that are not read yet [`UNREAD_MAX`] and one answer.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::pdu::{
    self, BindAck, BindNak, Body, CONTEXTS_MAX, Context, ContextOutcome, ContextResult, FRAGMENT_LEAST,
    FRAGMENT_MAX, Fault, Pdu, PduFlags, Syntax,
};
use super::{Answers, Interface, srvsvc, wkssvc};

/// The most bytes of one call's arguments.
pub const REQUEST_MAX: usize = 64 * 1024;

/// Bytes of answers that a client may leave unread; above it no further call is taken.
pub const UNREAD_MAX: usize = 64 * 1024;

/// Why the pipe took no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipeError {
    /// What was written is no RPC, or units do not fit together: the pipe is of no more use.
    #[error("the pipe is broken")]
    Broken,
    /// The client does not read what it is answered.
    #[error("answers are left unread")]
    Full,
}

/// A piece of a message that a client reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// At most as much as was asked for.
    pub data: Bytes,
    /// Bytes of the same message that are left: if there are any, the answer is STATUS_BUFFER_OVERFLOW.
    pub left: usize,
}

/// A call whose fragments are not all here.
#[derive(Debug)]
struct Call {
    id: u32,
    context_id: u16,
    opnum: u16,
    /// Nothing: it has grown too long, and will be answered with a fault.
    stub: Option<BytesMut>,
}

/// The server's end of an open pipe.
#[derive(Debug)]
pub struct Pipe {
    interface: Interface,
    /// Bytes of a fragment that is not whole.
    input: BytesMut,
    /// Messages to be read.
    output: VecDeque<Bytes>,
    /// Bytes in `output`.
    unread: usize,
    /// Numbers of the contexts that were accepted.
    contexts: Vec<u16>,
    bound: bool,
    /// The longest fragment that the client takes.
    fragment_max: u16,
    call: Option<Call>,
    broken: bool,
}

impl Pipe {
    /// A pipe that was just opened.
    pub fn new(interface: Interface) -> Pipe {
        Pipe {
            interface,
            input: BytesMut::new(),
            output: VecDeque::new(),
            unread: 0,
            contexts: Vec::new(),
            bound: false,
            fragment_max: FRAGMENT_MAX,
            call: None,
            broken: false,
        }
    }

    /// The interface that it offers.
    pub fn interface(&self) -> Interface {
        self.interface
    }

    /// Takes what the client writes: any number of fragments, the last of which may go on in the next write. Whatever
    /// has become whole is answered, with what `answers` says.
    ///
    /// Errors: `Broken`, then and for ever after; `Full`, and then nothing of `bytes` was taken.
    pub fn write(&mut self, mut bytes: &[u8], answers: &dyn Answers) -> Result<(), PipeError> {
        if self.broken {
            return Err(PipeError::Broken);
        }
        if self.unread > UNREAD_MAX {
            return Err(PipeError::Full);
        }
        while !bytes.is_empty() {
            let wanted = match pdu::length(&self.input) {
                Ok(length) => length.unwrap_or(pdu::HEADER) - self.input.len(),
                Err(_) => return self.break_off(),
            };
            let (piece, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.input.extend_from_slice(piece);
            bytes = rest;
            match pdu::length(&self.input) {
                Ok(Some(length)) if length == self.input.len() => {
                    let unit = self.input.split().freeze();
                    // One write can carry many calls: the bound holds between them too.
                    if self.unread > UNREAD_MAX {
                        return self.break_off();
                    }
                    self.unit(&unit, answers)?;
                }
                Ok(_) => {}
                Err(_) => return self.break_off(),
            }
        }
        Ok(())
    }

    /// Gives at most `max` bytes of the message that is next; nothing if none waits. A message that is read in pieces
    /// stays until its last byte.
    pub fn read(&mut self, max: usize) -> Option<Piece> {
        let message = self.output.front_mut()?;
        let data = message.split_to(max.min(message.len()));
        let left = message.remaining();
        if left == 0 {
            self.output.pop_front();
        }
        self.unread -= data.len();
        Some(Piece { data, left })
    }

    /// Bytes of the message that is next, if one waits.
    pub fn next_message(&self) -> Option<usize> {
        self.output.front().map(Bytes::len)
    }

    /// Messages that wait, and their bytes: for FSCTL_PIPE_PEEK and FilePipeLocalInformation.
    pub fn unread(&self) -> (usize, usize) {
        (self.output.len(), self.unread)
    }

    /// Whether the pipe is of no more use: STATUS_PIPE_BROKEN once all is read.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    fn break_off(&mut self) -> Result<(), PipeError> {
        self.broken = true;
        self.input = BytesMut::new();
        self.call = None;
        Err(PipeError::Broken)
    }

    fn send(&mut self, message: Bytes) {
        self.unread += message.len();
        self.output.push_back(message);
    }

    fn fault(&mut self, call_id: u32, context_id: u16, status: u32) {
        let mut pdu = Pdu::single(call_id, Body::Fault(Fault { context_id, status }));
        pdu.flags |= PduFlags::DID_NOT_EXECUTE;
        self.send(pdu.encode());
    }

    fn unit(&mut self, unit: &Bytes, answers: &dyn Answers) -> Result<(), PipeError> {
        let Ok(pdu) = Pdu::parse(unit) else { return self.break_off() };
        let Pdu { flags, call_id, auth_length, body } = pdu;
        match body {
            // The session is authenticated by SMB; a second time, within the pipe, is not offered.
            Body::Bind(_) if auth_length != 0 => {
                let nak = Body::BindNak(BindNak { reason: pdu::NAK_AUTHENTICATION });
                self.send(Pdu::single(call_id, nak).encode());
                Ok(())
            }
            Body::Bind(bind) if !self.bound => {
                self.bound = true;
                self.fragment_max = bind.max_recv_frag.clamp(FRAGMENT_LEAST, FRAGMENT_MAX);
                let ack = self.accept(&bind.contexts, bind.assoc_group_id);
                self.send(Pdu::single(call_id, Body::BindAck(ack)).encode());
                Ok(())
            }
            Body::AlterContext(bind) if self.bound && self.call.is_none() => {
                let mut ack = self.accept(&bind.contexts, bind.assoc_group_id);
                ack.secondary_address.clear();
                self.send(Pdu::single(call_id, Body::AlterContextResponse(ack)).encode());
                Ok(())
            }
            Body::Request(request) if self.bound => {
                if auth_length != 0 {
                    self.fault(call_id, request.context_id, pdu::FAULT_ACCESS_DENIED);
                    return Ok(());
                }
                self.request(flags, call_id, request, answers)
            }
            // Calls are answered as they come whole, so there is nothing left to cancel.
            Body::Other(pdu::ORPHANED) => {
                self.call = None;
                Ok(())
            }
            Body::Other(_) => Ok(()),
            _ => self.break_off(),
        }
    }

    /// Decides on each context: MS-RPCE 3.3.1.5.3 and C706 12.6.3.1.
    fn accept(&mut self, contexts: &[Context], assoc_group_id: u32) -> BindAck {
        let results = contexts.iter().map(|context| self.accept_one(context)).collect();
        BindAck {
            max_xmit_frag: self.fragment_max,
            max_recv_frag: FRAGMENT_MAX,
            // Any number but 0, which asks for one. Groups share context handles, and there are none.
            assoc_group_id: if assoc_group_id == 0 { 0x0001_5A0A } else { assoc_group_id },
            secondary_address: format!(r"\PIPE\{}", self.interface.pipe_name()).into_bytes(),
            results,
        }
    }

    fn accept_one(&mut self, context: &Context) -> ContextResult {
        let refused = |reason| ContextResult {
            outcome: ContextOutcome::ProviderRejection,
            reason,
            transfer_syntax: Syntax::default(),
        };
        if context.transfer_syntaxes.first().is_some_and(Syntax::is_feature_negotiation) {
            // No feature: one security context, and no call outlives its request.
            return ContextResult {
                outcome: ContextOutcome::NegotiateAck,
                reason: 0,
                transfer_syntax: Syntax::default(),
            };
        }
        // A newer minor version of the client's (the high half) would have operations that we lack.
        if context.abstract_syntax != self.interface.syntax() {
            return refused(pdu::REASON_ABSTRACT_SYNTAX);
        }
        if !context.transfer_syntaxes.contains(&Syntax::NDR) {
            return refused(pdu::REASON_TRANSFER_SYNTAXES);
        }
        if !self.contexts.contains(&context.id) {
            if self.contexts.len() >= CONTEXTS_MAX {
                return refused(pdu::REASON_LOCAL_LIMIT);
            }
            self.contexts.push(context.id);
        }
        ContextResult {
            outcome: ContextOutcome::Acceptance,
            reason: pdu::REASON_NOT_SPECIFIED,
            transfer_syntax: Syntax::NDR,
        }
    }

    /// Puts a call's fragments together and answers the call once it is whole.
    fn request(
        &mut self,
        flags: PduFlags,
        call_id: u32,
        request: pdu::Request,
        answers: &dyn Answers,
    ) -> Result<(), PipeError> {
        let mut call = match self.call.take() {
            // Calls are not multiplexed: we never said that they may be.
            Some(call) if !flags.contains(PduFlags::FIRST) && call.id == call_id => call,
            None if flags.contains(PduFlags::FIRST) => Call {
                id: call_id,
                context_id: request.context_id,
                opnum: request.opnum,
                stub: Some(BytesMut::new()),
            },
            _ => {
                self.fault(call_id, request.context_id, pdu::FAULT_PROTOCOL);
                return self.break_off();
            }
        };
        match &mut call.stub {
            Some(stub) if stub.len() + request.stub.len() <= REQUEST_MAX => {
                stub.extend_from_slice(&request.stub);
            }
            stub => *stub = None,
        }
        if !flags.contains(PduFlags::LAST) {
            self.call = Some(call);
            return Ok(());
        }
        let results = match call.stub {
            None => Err(pdu::FAULT_NO_MEMORY),
            Some(_) if !self.contexts.contains(&call.context_id) => Err(pdu::FAULT_UNKNOWN_INTERFACE),
            Some(stub) => match self.interface {
                Interface::Srvsvc => srvsvc::call(call.opnum, &stub, answers),
                Interface::Wkssvc => wkssvc::call(call.opnum, &stub, answers),
            },
        };
        match results {
            Ok(stub) => {
                let context_id = call.context_id;
                let wrap = |alloc_hint, stub| Body::Response(pdu::Response { alloc_hint, context_id, stub });
                for fragment in pdu::fragments(call_id, stub, self.fragment_max, wrap) {
                    self.send(fragment);
                }
            }
            Err(status) => self.fault(call_id, call.context_id, status),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Utf16;
    use crate::rpc::client::Client;
    use crate::rpc::srvsvc::tests::Sample;
    use crate::rpc::srvsvc::{ALL, SHARE_ENUM, ShareEnumRequest, ShareEnumResponse};
    use proptest::prelude::*;

    fn bound() -> (Pipe, Client) {
        let mut pipe = Pipe::new(Interface::Srvsvc);
        let mut client = Client::new(Interface::Srvsvc);
        pipe.write(&client.bind(), &Sample(1)).unwrap();
        client.bound(&pipe.read(4280).unwrap().data).unwrap();
        (pipe, client)
    }

    fn enumerate(level: u32) -> Bytes {
        ShareEnumRequest { level, preferred_maximum_length: ALL, ..Default::default() }.encode()
    }

    #[test]
    fn pipes_by_name() {
        let find = |name| Interface::by_pipe_name(&Utf16::from_str(name));
        assert_eq!(find("srvsvc"), Some(Interface::Srvsvc));
        assert_eq!(find("WksSvc"), Some(Interface::Wkssvc));
        assert_eq!((find("lsarpc"), find(""), find("srvsvcx")), (None, None, None));
    }

    #[test]
    fn bind_of_windows() {
        let mut pipe = Pipe::new(Interface::Srvsvc);
        pipe.write(&pdu::tests::windows_bind(), &Sample(0)).unwrap();
        let pdu = Pdu::parse(&pipe.read(65536).unwrap().data).unwrap();
        let Body::BindAck(ack) = pdu.body else { panic!("{pdu:?}") };
        assert_eq!(pdu.call_id, 2);
        assert_eq!(ack.secondary_address, br"\PIPE\srvsvc");
        let outcomes: Vec<_> = ack.results.iter().map(|result| (result.outcome, result.reason)).collect();
        assert_eq!(
            outcomes,
            [
                (ContextOutcome::Acceptance, 0),
                (ContextOutcome::ProviderRejection, pdu::REASON_TRANSFER_SYNTAXES),
                (ContextOutcome::NegotiateAck, 0),
            ]
        );
        assert_eq!(ack.results[1].transfer_syntax, Syntax::default());
        // Another interface than the pipe's.
        let mut pipe = Pipe::new(Interface::Wkssvc);
        pipe.write(&pdu::tests::windows_bind(), &Sample(0)).unwrap();
        let Body::BindAck(ack) = Pdu::parse(&pipe.read(65536).unwrap().data).unwrap().body else { panic!() };
        assert_eq!(ack.results[0].reason, pdu::REASON_ABSTRACT_SYNTAX);
    }

    #[test]
    fn a_call_in_any_pieces() {
        for size in [1, 2, 7, 16, 100, 10_000] {
            let (mut pipe, mut client) = bound();
            let request: Vec<Bytes> = client.request(SHARE_ENUM, &enumerate(1)).collect();
            for piece in request.concat().chunks(size) {
                pipe.write(piece, &Sample(300)).unwrap();
            }
            let mut results = None;
            while results.is_none() {
                let mut message = Vec::new();
                loop {
                    let Piece { data, left } = pipe.read(1000).unwrap();
                    message.extend_from_slice(&data);
                    assert!(message.len() + left <= 4280);
                    if left == 0 {
                        break;
                    }
                    assert_eq!(pipe.next_message(), Some(left));
                }
                results = client.response(&Bytes::from(message)).unwrap();
            }
            let response = ShareEnumResponse::parse(&results.unwrap()).unwrap();
            assert_eq!((response.shares.len(), response.status), (301, 0));
            assert_eq!((pipe.read(1), pipe.unread()), (None, (0, 0)));
        }
    }

    fn fault_of(pipe: &mut Pipe) -> u32 {
        let pdu = Pdu::parse(&pipe.read(65536).unwrap().data).unwrap();
        match pdu.body {
            Body::Fault(fault) => fault.status,
            body => panic!("{body:?}"),
        }
    }

    fn request(flags: PduFlags, call_id: u32, context_id: u16, stub: Bytes) -> Bytes {
        let body =
            Body::Request(pdu::Request { alloc_hint: 0, context_id, opnum: SHARE_ENUM, object: None, stub });
        Pdu { flags, call_id, auth_length: 0, body }.encode()
    }

    #[test]
    fn faults() {
        let (mut pipe, mut client) = bound();
        for unit in client.request(99, &[]) {
            pipe.write(&unit, &Sample(0)).unwrap();
        }
        assert_eq!(fault_of(&mut pipe), pdu::FAULT_OP_RANGE);
        let whole = PduFlags::FIRST | PduFlags::LAST;
        pipe.write(&request(whole, 1, 0, Bytes::new()), &Sample(0)).unwrap();
        assert_eq!(fault_of(&mut pipe), pdu::FAULT_NDR);
        pipe.write(&request(whole, 1, 5, enumerate(1)), &Sample(0)).unwrap();
        assert_eq!(fault_of(&mut pipe), pdu::FAULT_UNKNOWN_INTERFACE);
        // Too long a request: its fragments are dropped, not kept.
        let piece = Bytes::from(vec![0; 4000]);
        pipe.write(&request(PduFlags::FIRST, 7, 0, piece.clone()), &Sample(0)).unwrap();
        for _ in 0..40 {
            pipe.write(&request(PduFlags::EMPTY, 7, 0, piece.clone()), &Sample(0)).unwrap();
            assert!(pipe.call.as_ref().unwrap().stub.as_ref().is_none_or(|stub| stub.len() <= REQUEST_MAX));
        }
        pipe.write(&request(PduFlags::LAST, 7, 0, piece), &Sample(0)).unwrap();
        assert_eq!(fault_of(&mut pipe), pdu::FAULT_NO_MEMORY);
        assert!(!pipe.is_broken());
        // A fragment of another call in between.
        pipe.write(&request(PduFlags::FIRST, 8, 0, Bytes::new()), &Sample(0)).unwrap();
        let other = request(PduFlags::LAST, 9, 0, Bytes::new());
        assert_eq!(pipe.write(&other, &Sample(0)), Err(PipeError::Broken));
        assert_eq!(fault_of(&mut pipe), pdu::FAULT_PROTOCOL);
        assert!(pipe.is_broken());
    }

    #[test]
    fn what_is_no_rpc_breaks_the_pipe() {
        let mut pipe = Pipe::new(Interface::Srvsvc);
        assert_eq!(pipe.write(&[0; 16], &Sample(0)), Err(PipeError::Broken));
        assert_eq!(pipe.write(&pdu::tests::windows_bind(), &Sample(0)), Err(PipeError::Broken));
        // A request before the bind, and a second bind.
        let mut pipe = Pipe::new(Interface::Srvsvc);
        let whole = PduFlags::FIRST | PduFlags::LAST;
        assert_eq!(pipe.write(&request(whole, 1, 0, Bytes::new()), &Sample(0)), Err(PipeError::Broken));
        let (mut pipe, mut client) = bound();
        assert_eq!(pipe.write(&client.bind(), &Sample(0)), Err(PipeError::Broken));
    }

    #[test]
    fn a_bind_that_wants_more_authentication() {
        let mut bind = pdu::tests::windows_bind();
        bind.extend([0; 24]);
        bind[8] = bind.len() as u8;
        bind[10] = 16;
        let mut pipe = Pipe::new(Interface::Srvsvc);
        pipe.write(&bind, &Sample(0)).unwrap();
        let pdu = Pdu::parse(&pipe.read(65536).unwrap().data).unwrap();
        assert_eq!(pdu.body, Body::BindNak(BindNak { reason: pdu::NAK_AUTHENTICATION }));
        // It may try again without.
        pipe.write(&pdu::tests::windows_bind(), &Sample(0)).unwrap();
        assert!(pipe.next_message().is_some());
    }

    #[test]
    fn unread_answers_are_bounded() {
        let (mut pipe, _) = bound();
        let unit = request(PduFlags::FIRST | PduFlags::LAST, 1, 0, enumerate(1));
        let mut calls = 0;
        while pipe.write(&unit, &Sample(100)).is_ok() {
            calls += 1;
            assert!(calls < 100);
        }
        assert_eq!(pipe.write(&unit, &Sample(100)), Err(PipeError::Full));
        assert!(pipe.unread().1 < UNREAD_MAX + srvsvc::RESPONSE_MAX);
        while pipe.read(4280).is_some() {}
        assert!(pipe.write(&unit, &Sample(100)).is_ok());
        // In one write it is the same.
        let many = unit.repeat(1000);
        assert_eq!(pipe.write(&many, &Sample(100)), Err(PipeError::Broken));
        assert!(pipe.unread().1 < UNREAD_MAX + srvsvc::RESPONSE_MAX);
    }

    #[test]
    fn alter_context_adds_one() {
        let (mut pipe, _) = bound();
        let bind = pdu::Bind {
            max_xmit_frag: 4280,
            max_recv_frag: 4280,
            assoc_group_id: 1,
            contexts: vec![Context {
                id: 4,
                abstract_syntax: srvsvc::SYNTAX,
                transfer_syntaxes: vec![Syntax::NDR64, Syntax::NDR],
            }],
        };
        pipe.write(&Pdu::single(3, Body::AlterContext(bind)).encode(), &Sample(0)).unwrap();
        let pdu = Pdu::parse(&pipe.read(65536).unwrap().data).unwrap();
        let Body::AlterContextResponse(ack) = pdu.body else { panic!() };
        assert_eq!(ack.results[0].outcome, ContextOutcome::Acceptance);
        let whole = PduFlags::FIRST | PduFlags::LAST;
        pipe.write(&request(whole, 4, 4, enumerate(1)), &Sample(0)).unwrap();
        let pdu = Pdu::parse(&pipe.read(65536).unwrap().data).unwrap();
        assert!(matches!(pdu.body, Body::Response(_)));
    }

    proptest! {
        #[test]
        fn hostile(units in proptest::collection::vec(
            (0_u8..20, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..100)), 1..10), reads in 0..3_usize)
        {
            let (mut pipe, _) = bound();
            for (kind, flags, body) in units {
                let mut unit = vec![5, 0, kind, flags, 0x10, 0, 0, 0, 16 + body.len() as u8, 0, 0, 0, 1, 0, 0, 0];
                unit.extend(body);
                let _ = pipe.write(&unit, &Sample(1));
                for _ in 0..reads {
                    let _ = pipe.read(10);
                }
            }
            while pipe.read(100).is_some() {}
            prop_assert_eq!(pipe.unread(), (0, 0));
        }
    }
}
