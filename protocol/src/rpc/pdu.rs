//! Protocol data units of connection-oriented RPC: MS-RPCE 2.2.2 and C706 chapter 12. A fragment is one unit, and over
//! a named pipe one message.

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

use crate::Malformed;
use crate::dtyp::Guid;
use crate::encode::patch_u16;
use crate::flags::flags;
use crate::parse;

/// Bytes of the common header.
pub const HEADER: usize = 16;

/// The longest fragment that we take and send: what Windows uses over pipes.
pub const FRAGMENT_MAX: u16 = 4280;

/// The longest fragment that everyone must take (C706 12.6.3: MustRecvFragSize).
pub const FRAGMENT_LEAST: u16 = 1432;

/// The longest fragment that is looked at: some clients send up to this before they know our bound.
pub const FRAGMENT_TAKEN: u16 = 5840;

/// The most presentation contexts that are looked at in one unit.
pub const CONTEXTS_MAX: usize = 32;

flags! {
    /// pfc_flags.
    pub struct PduFlags: u8 {
        /// The first fragment of a call.
        FIRST = 0x01;
        /// The last fragment of a call.
        LAST = 0x02;
        /// In a bind: headers can be signed; else a cancel is pending.
        SUPPORT_HEADER_SIGN = 0x04;
        /// Calls can run at the same time.
        CONC_MPX = 0x10;
        /// With a fault: the call did not run.
        DID_NOT_EXECUTE = 0x20;
        /// No answer is wanted.
        MAYBE = 0x40;
        /// The request states an object.
        OBJECT_UUID = 0x80;
    }
}

/// An interface or a transfer syntax: an identifier and a version, its major number in the low half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Syntax {
    /// Which.
    pub uuid: Guid,
    /// Which version of it.
    pub version: u32,
}

impl Syntax {
    const LEN: usize = 20;

    /// NDR 2.0, the one transfer syntax that is spoken here.
    pub const NDR: Syntax = Syntax {
        uuid: Guid::from_fields(
            0x8a88_5d04,
            0x1ceb,
            0x11c9,
            [0x9f, 0xe8, 0x08, 0x00, 0x2b, 0x10, 0x48, 0x60],
        ),
        version: 2,
    };

    /// NDR64: offered by 64-bit Windows, and declined.
    pub const NDR64: Syntax = Syntax {
        uuid: Guid::from_fields(
            0x7171_0533,
            0xbeba,
            0x4937,
            [0x83, 0x19, 0xb5, 0xdb, 0xef, 0x9c, 0xcc, 0x36],
        ),
        version: 1,
    };

    /// Whether it is no syntax but a bind time feature negotiation (MS-RPCE 3.3.1.5.3): its first 8 bytes say so, and
    /// the other 8 are the client's features.
    pub fn is_feature_negotiation(&self) -> bool {
        self.uuid.0[..8] == [0x2c, 0x1c, 0xb7, 0x6c, 0x12, 0x98, 0x40, 0x45]
    }

    fn parse(input: &[u8]) -> parse::Parsed<'_, Syntax> {
        let (rest, (uuid, version)) = (parse::array::<16>, parse::u32).parse(input)?;
        Ok((rest, Syntax { uuid: Guid(uuid), version }))
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&self.uuid.0);
        out.put_u32_le(self.version);
    }
}

/// A presentation context: an interface, and the transfer syntaxes that the client can use with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The client's number for it.
    pub id: u16,
    /// The interface.
    pub abstract_syntax: Syntax,
    /// The client's transfer syntaxes.
    pub transfer_syntaxes: Vec<Syntax>,
}

/// bind (11) and alter_context (14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The longest fragment that the client sends.
    pub max_xmit_frag: u16,
    /// The longest fragment that the client takes.
    pub max_recv_frag: u16,
    /// The association group; 0: a new one.
    pub assoc_group_id: u32,
    /// The contexts that are offered.
    pub contexts: Vec<Context>,
}

/// What became of an offered context: MS-RPCE 2.2.2.4 for the last.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextOutcome {
    /// It can be used.
    Acceptance = 0,
    /// The user refused it.
    UserRejection = 1,
    /// The provider refused it: see `reason`.
    ProviderRejection = 2,
    /// The features that both have are in `reason`.
    NegotiateAck = 3,
}

/// The result for one offered context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextResult {
    /// What became of it.
    pub outcome: ContextOutcome,
    /// Why ([`REASON_ABSTRACT_SYNTAX`] and the like); with `NegotiateAck` the features.
    pub reason: u16,
    /// The syntax that was chosen; zeros if none was.
    pub transfer_syntax: Syntax,
}

/// reason: nothing in particular.
pub const REASON_NOT_SPECIFIED: u16 = 0;
/// reason: there is no such interface on this pipe.
pub const REASON_ABSTRACT_SYNTAX: u16 = 1;
/// reason: none of the transfer syntaxes is spoken here.
pub const REASON_TRANSFER_SYNTAXES: u16 = 2;
/// reason: there are too many.
pub const REASON_LOCAL_LIMIT: u16 = 3;

/// bind_ack (12) and alter_context_resp (15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindAck {
    /// The longest fragment that the server sends.
    pub max_xmit_frag: u16,
    /// The longest fragment that the server takes.
    pub max_recv_frag: u16,
    /// The association group.
    pub assoc_group_id: u32,
    /// Where the server listens, without a zero at the end: `\PIPE\srvsvc`; empty in alter_context_resp.
    pub secondary_address: Vec<u8>,
    /// One for each offered context, in their order.
    pub results: Vec<ContextResult>,
}

/// bind_nak (13): why the bind was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindNak {
    /// 0: not said; 4: protocol version; [`NAK_AUTHENTICATION`].
    pub reason: u16,
}

/// bind_nak: authentication of this kind (here: any, on top of the session's) is not known.
pub const NAK_AUTHENTICATION: u16 = 8;

/// request (0), one fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// About how many bytes of stub are still to come, this fragment's among them; 0: not said.
    pub alloc_hint: u32,
    /// The context that the call is in.
    pub context_id: u16,
    /// The operation's number.
    pub opnum: u16,
    /// The object that the call is about.
    pub object: Option<Guid>,
    /// The arguments, or a piece of them.
    pub stub: Bytes,
}

/// response (2), one fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// About how many bytes of stub are still to come, this fragment's among them.
    pub alloc_hint: u32,
    /// The context of the call.
    pub context_id: u16,
    /// The results, or a piece of them.
    pub stub: Bytes,
}

/// fault (3): the call failed below the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The context of the call.
    pub context_id: u16,
    /// Why: [`FAULT_OP_RANGE`] and the like.
    pub status: u32,
}

/// nca_op_rng_error: the interface has no such operation.
pub const FAULT_OP_RANGE: u32 = 0x1C01_0002;
/// nca_unk_if: the context is not known.
pub const FAULT_UNKNOWN_INTERFACE: u32 = 0x1C01_0003;
/// nca_proto_error: the units do not fit together.
pub const FAULT_PROTOCOL: u32 = 0x1C01_000B;
/// RPC_X_BAD_STUB_DATA: the arguments did not parse.
pub const FAULT_NDR: u32 = 0x0000_06F7;
/// nca_s_fault_remote_no_memory: the arguments are longer than we take.
pub const FAULT_NO_MEMORY: u32 = 0x1C00_001B;
/// ERROR_ACCESS_DENIED.
pub const FAULT_ACCESS_DENIED: u32 = 5;

/// What a unit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// request.
    Request(Request),
    /// response.
    Response(Response),
    /// fault.
    Fault(Fault),
    /// bind.
    Bind(Bind),
    /// bind_ack.
    BindAck(BindAck),
    /// bind_nak.
    BindNak(BindNak),
    /// alter_context.
    AlterContext(Bind),
    /// alter_context_resp.
    AlterContextResponse(BindAck),
    /// Any other (auth3, co_cancel, orphaned, ...), not looked into.
    Other(u8),
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Body::Request(_) => 0,
            Body::Response(_) => 2,
            Body::Fault(_) => 3,
            Body::Bind(_) => 11,
            Body::BindAck(_) => 12,
            Body::BindNak(_) => 13,
            Body::AlterContext(_) => 14,
            Body::AlterContextResponse(_) => 15,
            Body::Other(kind) => *kind,
        }
    }
}

/// PTYPE of orphaned: the client gives its call up.
pub const ORPHANED: u8 = 19;

/// One unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pdu {
    /// Where in a call it stands.
    pub flags: PduFlags,
    /// The client's number of the call.
    pub call_id: u32,
    /// Bytes of authentication at its end. We neither make nor check any.
    pub auth_length: u16,
    /// What it is.
    pub body: Body,
}

/// The length of the unit at the start of `input`; nothing if its header is not whole yet.
///
/// Errors: `Value` for another version than 5.0 (5.1 is taken too) or another data representation than little-endian;
/// `Length` below the header's or above `FRAGMENT_TAKEN`.
pub fn length(input: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(header) = input.first_chunk::<HEADER>() else { return Ok(None) };
    if header[0] != 5 || header[1] > 1 {
        return Err(Malformed::Value("RPC version"));
    }
    // Integers little-endian, characters ASCII; floating point does not occur.
    if header[4] != 0x10 {
        return Err(Malformed::Value("RPC data representation"));
    }
    let length = u16::from_le_bytes([header[8], header[9]]);
    if length < HEADER as u16 || length > FRAGMENT_TAKEN {
        return Err(Malformed::Length);
    }
    Ok(Some(usize::from(length)))
}

impl Pdu {
    /// A unit that is a whole call, or no part of one.
    pub fn single(call_id: u32, body: Body) -> Pdu {
        Pdu { flags: PduFlags::FIRST | PduFlags::LAST, call_id, auth_length: 0, body }
    }

    /// Reads a unit that takes the whole of `unit`.
    ///
    /// Errors: those of [`length`]; `Truncated`; `TooMany` contexts; `Value` for an unknown result.
    pub fn parse(unit: &Bytes) -> Result<Pdu, Malformed> {
        if length(unit)? != Some(unit.len()) {
            return Err(Malformed::Length);
        }
        let (kind, flags) = (unit[2], PduFlags(unit[3]));
        let auth_length = u16::from_le_bytes([unit[10], unit[11]]);
        let call_id = u32::from_le_bytes([unit[12], unit[13], unit[14], unit[15]]);
        // The authentication stands at the end, behind 8 bytes that say what it is.
        let end = match auth_length {
            0 => unit.len(),
            length => unit.len().checked_sub(usize::from(length) + 8).ok_or(Malformed::Length)?,
        };
        let input = unit.get(HEADER..end).ok_or(Malformed::Length)?;
        let stub = |rest: &[u8]| unit.slice(end - rest.len()..end);
        let body = match kind {
            0 => {
                let (mut rest, (alloc_hint, context_id, opnum)) =
                    (parse::u32, parse::u16, parse::u16).parse(input)?;
                let mut object = None;
                if flags.contains(PduFlags::OBJECT_UUID) {
                    let (after, uuid) = parse::array::<16>(rest)?;
                    (rest, object) = (after, Some(Guid(uuid)));
                }
                Body::Request(Request { alloc_hint, context_id, opnum, object, stub: stub(rest) })
            }
            2 => {
                let (rest, (alloc_hint, context_id, _cancels)) =
                    (parse::u32, parse::u16, parse::u16).parse(input)?;
                Body::Response(Response { alloc_hint, context_id, stub: stub(rest) })
            }
            3 => {
                let (_, (_hint, context_id, _cancels, status)) =
                    (parse::u32, parse::u16, parse::u16, parse::u32).parse(input)?;
                Body::Fault(Fault { context_id, status })
            }
            11 => Body::Bind(bind(input)?),
            12 => Body::BindAck(bind_ack(unit, input)?),
            13 => Body::BindNak(BindNak { reason: parse::u16(input)?.1 }),
            14 => Body::AlterContext(bind(input)?),
            15 => Body::AlterContextResponse(bind_ack(unit, input)?),
            kind => Body::Other(kind),
        };
        Ok(Pdu { flags, call_id, auth_length, body })
    }

    /// The unit's bytes. A stub must not take it above 65,535 bytes: who makes fragments sees to that.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        let mut flags = self.flags;
        if matches!(&self.body, Body::Request(Request { object: Some(_), .. })) {
            flags |= PduFlags::OBJECT_UUID;
        }
        out.put_slice(&[5, 0, self.body.kind(), flags.0, 0x10, 0, 0, 0]);
        out.put_u32_le(0); // frag_length, below; auth_length
        out.put_u32_le(self.call_id);
        match &self.body {
            Body::Request(request) => {
                out.put_u32_le(request.alloc_hint);
                out.put_u16_le(request.context_id);
                out.put_u16_le(request.opnum);
                if let Some(object) = &request.object {
                    out.put_slice(&object.0);
                }
                out.put_slice(&request.stub);
            }
            Body::Response(response) => {
                out.put_u32_le(response.alloc_hint);
                out.put_u16_le(response.context_id);
                out.put_u16_le(0);
                out.put_slice(&response.stub);
            }
            Body::Fault(fault) => {
                out.put_u32_le(0);
                out.put_u16_le(fault.context_id);
                out.put_u16_le(0);
                out.put_u32_le(fault.status);
                out.put_u32_le(0);
            }
            Body::Bind(bind) | Body::AlterContext(bind) => put_bind(&mut out, bind),
            Body::BindAck(ack) | Body::AlterContextResponse(ack) => put_bind_ack(&mut out, ack),
            Body::BindNak(nak) => {
                out.put_u16_le(nak.reason);
                out.put_slice(&[1, 5, 0]); // the one version that is spoken: 5.0
                crate::encode::pad(&mut out, 0, 4);
            }
            Body::Other(_) => {}
        }
        let length = out.len() as u16;
        patch_u16(&mut out, 8, length);
        out.freeze()
    }
}

fn bind(input: &[u8]) -> Result<Bind, Malformed> {
    let (mut rest, (max_xmit_frag, max_recv_frag, assoc_group_id, count, ())) =
        (parse::u16, parse::u16, parse::u32, parse::u8, parse::skip(3)).parse(input)?;
    if usize::from(count) > CONTEXTS_MAX {
        return Err(Malformed::TooMany("presentation contexts"));
    }
    let mut contexts = Vec::new();
    for _ in 0..count {
        let (after, (id, count, _reserved, abstract_syntax)) =
            (parse::u16, parse::u8, parse::u8, Syntax::parse).parse(rest)?;
        let (mut syntaxes, after) =
            after.split_at_checked(usize::from(count) * Syntax::LEN).ok_or(Malformed::Truncated)?;
        rest = after;
        let mut transfer_syntaxes = Vec::with_capacity(usize::from(count));
        while !syntaxes.is_empty() {
            let (after, syntax) = Syntax::parse(syntaxes)?;
            transfer_syntaxes.push(syntax);
            syntaxes = after;
        }
        contexts.push(Context { id, abstract_syntax, transfer_syntaxes });
    }
    Ok(Bind { max_xmit_frag, max_recv_frag, assoc_group_id, contexts })
}

fn put_bind(out: &mut BytesMut, bind: &Bind) {
    let contexts = &bind.contexts[..bind.contexts.len().min(CONTEXTS_MAX)];
    out.put_u16_le(bind.max_xmit_frag);
    out.put_u16_le(bind.max_recv_frag);
    out.put_u32_le(bind.assoc_group_id);
    out.put_u8(contexts.len() as u8);
    out.put_bytes(0, 3);
    for context in contexts {
        let syntaxes = &context.transfer_syntaxes[..context.transfer_syntaxes.len().min(255)];
        out.put_u16_le(context.id);
        out.put_u8(syntaxes.len() as u8);
        out.put_u8(0);
        context.abstract_syntax.encode(out);
        for syntax in syntaxes {
            syntax.encode(out);
        }
    }
}

fn bind_ack(unit: &[u8], input: &[u8]) -> Result<BindAck, Malformed> {
    let (rest, (max_xmit_frag, max_recv_frag, assoc_group_id, length)) =
        (parse::u16, parse::u16, parse::u32, parse::u16).parse(input)?;
    let (rest, address) = parse::take(usize::from(length))(rest)?;
    let at = HEADER + input.len() - rest.len();
    debug_assert!(at <= unit.len());
    let (rest, ()) = parse::skip(at.next_multiple_of(4) - at)(rest)?;
    let (mut rest, (count, ())) = (parse::u8, parse::skip(3)).parse(rest)?;
    if usize::from(count) > CONTEXTS_MAX {
        return Err(Malformed::TooMany("presentation contexts"));
    }
    let mut results = Vec::new();
    for _ in 0..count {
        let (after, (outcome, reason, transfer_syntax)) =
            (parse::u16, parse::u16, Syntax::parse).parse(rest)?;
        let outcome = match outcome {
            0 => ContextOutcome::Acceptance,
            1 => ContextOutcome::UserRejection,
            2 => ContextOutcome::ProviderRejection,
            3 => ContextOutcome::NegotiateAck,
            _ => return Err(Malformed::Value("presentation context result")),
        };
        results.push(ContextResult { outcome, reason, transfer_syntax });
        rest = after;
    }
    let secondary_address = address.strip_suffix(&[0]).unwrap_or(address).to_vec();
    Ok(BindAck { max_xmit_frag, max_recv_frag, assoc_group_id, secondary_address, results })
}

fn put_bind_ack(out: &mut BytesMut, ack: &BindAck) {
    let address = &ack.secondary_address[..ack.secondary_address.len().min(255)];
    let results = &ack.results[..ack.results.len().min(CONTEXTS_MAX)];
    out.put_u16_le(ack.max_xmit_frag);
    out.put_u16_le(ack.max_recv_frag);
    out.put_u32_le(ack.assoc_group_id);
    if address.is_empty() {
        out.put_u16_le(0);
    } else {
        out.put_u16_le(address.len() as u16 + 1);
        out.put_slice(address);
        out.put_u8(0);
    }
    crate::encode::pad(out, 0, 4);
    out.put_u8(results.len() as u8);
    out.put_bytes(0, 3);
    for result in results {
        out.put_u16_le(result.outcome as u16);
        out.put_u16_le(result.reason);
        result.transfer_syntax.encode(out);
    }
}

/// A call's stub in fragments of at most `fragment_max` bytes each (header included): at least one. `wrap` makes the
/// body of one from its alloc_hint and its piece.
pub fn fragments(
    call_id: u32,
    stub: Bytes,
    fragment_max: u16,
    wrap: impl Fn(u32, Bytes) -> Body,
) -> impl Iterator<Item = Bytes> {
    // Pieces are multiples of 8 bytes, so that alignment within one is that within the stub (C706 12.6.3.7).
    let piece = (usize::from(fragment_max).saturating_sub(HEADER + 8) & !7).max(8);
    let count = stub.len().div_ceil(piece).max(1);
    (0..count).map(move |index| {
        let at = index * piece;
        let mut flags = PduFlags::EMPTY;
        if index == 0 {
            flags |= PduFlags::FIRST;
        }
        if index + 1 == count {
            flags |= PduFlags::LAST;
        }
        let body = wrap((stub.len() - at) as u32, stub.slice(at..stub.len().min(at + piece)));
        Pdu { flags, call_id, auth_length: 0, body }.encode()
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rpc::srvsvc;
    use proptest::prelude::*;

    /// A bind as 64-bit Windows sends it: NDR, NDR64 and the negotiation of features.
    pub(crate) fn windows_bind() -> Vec<u8> {
        let srvsvc = [
            0xc8, 0x4f, 0x32, 0x4b, 0x70, 0x16, 0xd3, 0x01, 0x12, 0x78, 0x5a, 0x47, 0xbf, 0x6e, 0xe1, 0x88,
            3, 0, 0, 0,
        ];
        let ndr = [
            0x04, 0x5d, 0x88, 0x8a, 0xeb, 0x1c, 0xc9, 0x11, 0x9f, 0xe8, 0x08, 0x00, 0x2b, 0x10, 0x48, 0x60,
            2, 0, 0, 0,
        ];
        let ndr64 = [
            0x33, 0x05, 0x71, 0x71, 0xba, 0xbe, 0x37, 0x49, 0x83, 0x19, 0xb5, 0xdb, 0xef, 0x9c, 0xcc, 0x36,
            1, 0, 0, 0,
        ];
        let features = [0x2c, 0x1c, 0xb7, 0x6c, 0x12, 0x98, 0x40, 0x45, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        [
            &[5, 0, 11, 3, 0x10, 0, 0, 0, 160, 0, 0, 0, 2, 0, 0, 0][..],
            &[0xb8, 0x10, 0xb8, 0x10, 0, 0, 0, 0, 3, 0, 0, 0],
            &[0, 0, 1, 0],
            &srvsvc,
            &ndr,
            &[1, 0, 1, 0],
            &srvsvc,
            &ndr64,
            &[2, 0, 1, 0],
            &srvsvc,
            &features,
        ]
        .concat()
    }

    #[test]
    fn bind_of_windows() {
        let bytes = Bytes::from(windows_bind());
        let pdu = Pdu::parse(&bytes).unwrap();
        let Body::Bind(bind) = &pdu.body else { panic!("{pdu:?}") };
        assert_eq!((pdu.call_id, bind.max_recv_frag, bind.contexts.len()), (2, 4280, 3));
        assert_eq!(bind.contexts[0].abstract_syntax, srvsvc::SYNTAX);
        assert_eq!(bind.contexts[0].transfer_syntaxes, [Syntax::NDR]);
        assert_eq!(bind.contexts[1].transfer_syntaxes, [Syntax::NDR64]);
        assert!(bind.contexts[2].transfer_syntaxes[0].is_feature_negotiation());
        assert_eq!(pdu.encode(), bytes);
    }

    fn with_length(mut bytes: Vec<u8>) -> Bytes {
        let length = bytes.len() as u16;
        bytes[8..10].copy_from_slice(&length.to_le_bytes());
        Bytes::from(bytes)
    }

    #[test]
    fn cut_at_every_length() {
        let whole = windows_bind();
        for length in 0..whole.len() {
            assert!(Pdu::parse(&Bytes::copy_from_slice(&whole[..length])).is_err());
            if length >= HEADER {
                assert!(Pdu::parse(&with_length(whole[..length].to_vec())).is_err());
            }
        }
    }

    #[test]
    fn headers_that_are_not_ours() {
        for (at, value) in [(0, 4), (1, 2), (4, 0), (4, 0x11), (8, 15), (9, 0x17), (10, 0xFF)] {
            let mut bytes = windows_bind();
            bytes[at] = value;
            assert!(Pdu::parse(&Bytes::from(bytes)).is_err(), "{at} = {value}");
        }
        assert_eq!(length(&windows_bind()[..15]), Ok(None));
        assert_eq!(length(&windows_bind()), Ok(Some(160)));
    }

    #[test]
    fn bind_ack_known_bytes() {
        let ack = BindAck {
            max_xmit_frag: 4280,
            max_recv_frag: 4280,
            assoc_group_id: 0x53f0,
            secondary_address: br"\PIPE\srvsvc".to_vec(),
            results: vec![ContextResult {
                outcome: ContextOutcome::Acceptance,
                reason: 0,
                transfer_syntax: Syntax::NDR,
            }],
        };
        let pdu = Pdu::single(1, Body::BindAck(ack.clone()));
        let bytes = pdu.encode();
        assert_eq!(bytes.len(), 68); // as in the captures of everybody
        assert_eq!(bytes[24..28], [13, 0, b'\\', b'P']);
        assert_eq!(Pdu::parse(&bytes), Ok(pdu));
        let alter = BindAck { secondary_address: Vec::new(), ..ack };
        let pdu = Pdu::single(1, Body::AlterContextResponse(alter));
        assert_eq!(pdu.encode().len(), 56);
        assert_eq!(Pdu::parse(&pdu.encode()), Ok(pdu));
    }

    #[test]
    fn others_round_trip() {
        for body in [
            Body::Fault(Fault { context_id: 1, status: FAULT_OP_RANGE }),
            Body::BindNak(BindNak { reason: NAK_AUTHENTICATION }),
            Body::Request(Request {
                alloc_hint: 4,
                context_id: 1,
                opnum: 15,
                object: None,
                stub: Bytes::from_static(&[1, 2, 3, 4]),
            }),
            Body::Response(Response { alloc_hint: 0, context_id: 0, stub: Bytes::new() }),
            Body::Other(ORPHANED),
        ] {
            let pdu = Pdu::single(9, body);
            assert_eq!(Pdu::parse(&pdu.encode()), Ok(pdu));
        }
        let request = Request {
            alloc_hint: 0,
            context_id: 1,
            opnum: 2,
            object: Some(Guid([1; 16])),
            stub: Bytes::new(),
        };
        let parsed = Pdu::parse(&Pdu::single(9, Body::Request(request.clone())).encode()).unwrap();
        assert_eq!(parsed.body, Body::Request(request));
        assert!(parsed.flags.contains(PduFlags::OBJECT_UUID));
    }

    #[test]
    fn authentication_is_cut_off_the_stub() {
        let request = Request {
            alloc_hint: 0,
            context_id: 0,
            opnum: 0,
            object: None,
            stub: Bytes::from_static(&[9; 28]),
        };
        let mut bytes = Pdu::single(1, Body::Request(request)).encode().to_vec();
        bytes[10] = 16;
        let pdu = Pdu::parse(&Bytes::from(bytes.clone())).unwrap();
        let Body::Request(request) = pdu.body else { panic!() };
        assert_eq!((pdu.auth_length, request.stub.len()), (16, 4));
        bytes[10] = 29;
        assert!(Pdu::parse(&Bytes::from(bytes)).is_err());
    }

    proptest! {
        #[test]
        fn fragments_are_whole(length in 0..20_000_usize, fragment_max in 0..=FRAGMENT_TAKEN) {
            let stub = Bytes::from((0..length).map(|byte| byte as u8).collect::<Vec<_>>());
            let wrap = |alloc_hint, stub| Body::Response(Response { alloc_hint, context_id: 0, stub });
            let units: Vec<Bytes> = fragments(7, stub.clone(), fragment_max, wrap).collect();
            let mut joined = Vec::new();
            for (index, unit) in units.iter().enumerate() {
                prop_assert!(unit.len() <= usize::from(fragment_max).max(HEADER + 16));
                let pdu = Pdu::parse(unit).unwrap();
                prop_assert_eq!(pdu.flags.contains(PduFlags::FIRST), index == 0);
                prop_assert_eq!(pdu.flags.contains(PduFlags::LAST), index + 1 == units.len());
                let Body::Response(response) = pdu.body else { panic!() };
                prop_assert_eq!(response.alloc_hint as usize, length - joined.len());
                joined.extend_from_slice(&response.stub);
            }
            prop_assert_eq!(Bytes::from(joined), stub);
        }

        #[test]
        fn hostile(kind in 0_u8..20, flags: u8, auth in 0_u8..40, tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = vec![5, 0, kind, flags, 0x10, 0, 0, 0, 0, 0, auth, 0, 1, 0, 0, 0];
            bytes.extend(tail);
            let _ = Pdu::parse(&with_length(bytes.clone()));
            let _ = Pdu::parse(&Bytes::from(bytes));
        }
    }
}
