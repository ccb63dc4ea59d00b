//! The client's end of a named pipe that carries RPC, for our own client: bind, one call at a time, its answer put
//! together.

use bytes::{Bytes, BytesMut};

use super::Interface;
use super::pdu::{self, Bind, Body, Context, ContextOutcome, FRAGMENT_MAX, Pdu, PduFlags, Syntax};
use crate::Malformed;

/// The most bytes of an answer that are kept.
pub const RESPONSE_MAX: usize = 4 << 20;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The bytes are no RPC.
    #[error("malformed RPC: {0}")]
    Malformed(#[from] Malformed),
    /// The interface was refused.
    #[error("bind refused")]
    Refused,
    /// The call failed below its interface.
    #[error("RPC fault {0:#010x}")]
    Fault(u32),
    /// A unit that does not belong here.
    #[error("unexpected RPC unit")]
    Unexpected,
}

/// The client's end of a pipe.
#[derive(Debug)]
pub struct Client {
    interface: Interface,
    call_id: u32,
    fragment_max: u16,
    stub: BytesMut,
}

impl Client {
    /// A pipe that was just opened.
    pub fn new(interface: Interface) -> Client {
        Client { interface, call_id: 0, fragment_max: FRAGMENT_MAX, stub: BytesMut::new() }
    }

    /// The first message to write.
    pub fn bind(&mut self) -> Bytes {
        self.call_id += 1;
        let bind = Bind {
            max_xmit_frag: FRAGMENT_MAX,
            max_recv_frag: FRAGMENT_MAX,
            assoc_group_id: 0,
            contexts: vec![Context {
                id: 0,
                abstract_syntax: self.interface.syntax(),
                transfer_syntaxes: vec![Syntax::NDR],
            }],
        };
        Pdu::single(self.call_id, Body::Bind(bind)).encode()
    }

    /// Takes the answer to the bind, one whole message.
    ///
    /// Errors: `Malformed`, `Refused`, `Unexpected`.
    pub fn bound(&mut self, message: &Bytes) -> Result<(), ClientError> {
        match Pdu::parse(message)?.body {
            Body::BindAck(ack) => match ack.results.first() {
                Some(result) if result.outcome == ContextOutcome::Acceptance => {
                    self.fragment_max = ack.max_recv_frag.min(FRAGMENT_MAX);
                    Ok(())
                }
                _ => Err(ClientError::Refused),
            },
            Body::BindNak(_) => Err(ClientError::Refused),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// The messages of a call.
    pub fn request(&mut self, opnum: u16, stub: &[u8]) -> impl Iterator<Item = Bytes> + use<> {
        self.call_id += 1;
        self.stub.clear();
        let wrap = move |alloc_hint, stub| {
            Body::Request(pdu::Request { alloc_hint, context_id: 0, opnum, object: None, stub })
        };
        pdu::fragments(self.call_id, Bytes::copy_from_slice(stub), self.fragment_max, wrap)
    }

    /// Takes one whole message of the answer; gives the results once the last is here.
    ///
    /// Errors: `Malformed`, also above [`RESPONSE_MAX`]; `Fault`; `Unexpected`.
    pub fn response(&mut self, message: &Bytes) -> Result<Option<Bytes>, ClientError> {
        let pdu = Pdu::parse(message)?;
        if pdu.call_id != self.call_id {
            return Err(ClientError::Unexpected);
        }
        match pdu.body {
            Body::Response(response) => {
                if self.stub.len() + response.stub.len() > RESPONSE_MAX {
                    return Err(Malformed::TooMany("bytes of results").into());
                }
                self.stub.extend_from_slice(&response.stub);
                Ok(pdu.flags.contains(PduFlags::LAST).then(|| self.stub.split().freeze()))
            }
            Body::Fault(fault) => Err(ClientError::Fault(fault.status)),
            _ => Err(ClientError::Unexpected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::pdu::{BindNak, Fault, Response};

    #[test]
    fn refusals_and_faults() {
        let mut client = Client::new(Interface::Wkssvc);
        client.bind();
        let nak = Pdu::single(1, Body::BindNak(BindNak { reason: 0 })).encode();
        assert_eq!(client.bound(&nak), Err(ClientError::Refused));
        assert_eq!(client.request(0, &[1; 5000]).count(), 2);
        let fault = Pdu::single(2, Body::Fault(Fault { context_id: 0, status: 5 })).encode();
        assert_eq!(client.response(&fault), Err(ClientError::Fault(5)));
        let other = Response { alloc_hint: 0, context_id: 0, stub: Bytes::new() };
        let other = Pdu::single(9, Body::Response(other)).encode();
        assert_eq!(client.response(&other), Err(ClientError::Unexpected));
        assert!(matches!(client.response(&Bytes::new()), Err(ClientError::Malformed(_))));
    }
}
