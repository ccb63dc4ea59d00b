//! SPNEGO's tokens: RFC 4178 4.2, with the additions of MS-SPNG 2.2.1. Which token follows which is the
//! affair of [`Acceptor`](super::Acceptor) and [`Initiator`](super::Initiator).

use bytes::Bytes;

use super::der::{
    self, APPLICATION_0, ENUMERATED, GENERAL_STRING, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE,
};
use crate::Malformed;

/// SPNEGO itself, 1.3.6.1.5.5.2.
const SPNEGO: &[u8] = &[0x2B, 0x06, 0x01, 0x05, 0x05, 0x02];

/// Mechanisms that a token may list; clients list four or five.
const MECHANISMS_MAX: usize = 64;

/// The first bytes of every NTLM message: MS-NLMP 2.2.1.
pub(super) const NTLMSSP_SIGNATURE: &[u8; 8] = b"NTLMSSP\0";

/// A security mechanism by its object identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// NTLM, 1.3.6.1.4.1.311.2.2.10: the one that we speak.
    Ntlm,
    /// Kerberos 5, 1.2.840.113554.1.2.2.
    Kerberos,
    /// Kerberos 5 as Windows 2000 numbers it by mistake, 1.2.840.48018.1.2.2 (MS-SPNG 3.1.5.2).
    MsKerberos,
    /// NEGOEX, 1.3.6.1.4.1.311.2.2.30.
    NegoEx,
    /// Any other.
    Other,
}

impl Mechanism {
    const KNOWN: [(Mechanism, &[u8]); 4] = [
        (Mechanism::Ntlm, &[0x2B, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x0A]),
        (Mechanism::Kerberos, &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x12, 0x01, 0x02, 0x02]),
        (Mechanism::MsKerberos, &[0x2A, 0x86, 0x48, 0x82, 0xF7, 0x12, 0x01, 0x02, 0x02]),
        (Mechanism::NegoEx, &[0x2B, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x1E]),
    ];

    fn from_oid(oid: &[u8]) -> Mechanism {
        let known = Mechanism::KNOWN.iter().find(|(_, known)| *known == oid);
        known.map_or(Mechanism::Other, |(mechanism, _)| *mechanism)
    }

    /// The whole element. `Other`, which is only ever read, comes out as an empty identifier.
    fn encode(self) -> Vec<u8> {
        let known = Mechanism::KNOWN.iter().find(|(mechanism, _)| *mechanism == self);
        der::element(OBJECT_IDENTIFIER, &[known.map_or(&[], |(_, oid)| oid)])
    }
}

/// How far the acceptor is: negState of 4.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NegState {
    /// Authenticated; no further token is expected.
    AcceptCompleted = 0,
    /// A further token is expected.
    AcceptIncomplete = 1,
    /// Refused.
    Reject = 2,
    /// As AcceptIncomplete, and the mechListMIC must be exchanged. In the acceptor's first token only.
    RequestMic = 3,
}

/// The initiator's first token. It borrows from the bytes that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegTokenInit<'a> {
    /// The list of mechanisms as it stands in the token: what the mechListMIC is computed over.
    pub mech_types: &'a [u8],
    /// The same list, the most preferred first.
    pub mechanisms: Vec<Mechanism>,
    /// The optimistic token: the first one of the first mechanism.
    pub mech_token: Option<&'a [u8]>,
}

/// Any token after the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NegTokenResp<'a> {
    /// negState. Windows' clients leave it away.
    pub state: Option<NegState>,
    /// supportedMech: the acceptor's choice, in its first token only.
    pub mechanism: Option<Mechanism>,
    /// The mechanism's token.
    pub response_token: Option<&'a [u8]>,
    /// The code over the initiator's list of mechanisms, by the mechanism's keys.
    pub mech_list_mic: Option<&'a [u8]>,
}

/// What a security buffer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// SPNEGO, the first token.
    Init(NegTokenInit<'a>),
    /// SPNEGO, a later token.
    Resp(NegTokenResp<'a>),
    /// An NTLM message without SPNEGO around it.
    Ntlm(&'a [u8]),
}

impl Token<'_> {
    /// Reads a security buffer.
    ///
    /// # Errors
    ///
    /// What is neither a SPNEGO token nor an NTLM message is [`Malformed::ProtocolId`], as is a GSS-API token
    /// of another mechanism. What is one but cannot be read gives its own fault.
    pub fn parse(token: &[u8]) -> Result<Token<'_>, Malformed> {
        if token.starts_with(NTLMSSP_SIGNATURE) {
            return Ok(Token::Ntlm(token));
        }
        let Some(mut outermost) = Reader(token).next()? else { return Err(Malformed::Truncated) };
        if outermost.tag == APPLICATION_0 {
            let mut reader = Reader(outermost.content);
            if reader.expect(OBJECT_IDENTIFIER)? != SPNEGO {
                return Err(Malformed::ProtocolId);
            }
            outermost = reader.next()?.ok_or(Malformed::Truncated)?;
        }
        const INIT: u8 = der::context(0);
        const RESP: u8 = der::context(1);
        match outermost.tag {
            INIT => Ok(Token::Init(NegTokenInit::parse(outermost.content)?)),
            RESP => Ok(Token::Resp(NegTokenResp::parse(outermost.content)?)),
            _ => Err(Malformed::ProtocolId),
        }
    }
}

impl<'a> NegTokenInit<'a> {
    fn parse(content: &'a [u8]) -> Result<NegTokenInit<'a>, Malformed> {
        let mut fields = Reader(der::only(content, SEQUENCE)?);
        let (mut mech_types, mut mechanisms, mut mech_token) = (&content[..0], Vec::new(), None);
        while let Some(field) = fields.next()? {
            const MECH_TYPES: u8 = der::context(0);
            const MECH_TOKEN: u8 = der::context(2);
            match field.tag {
                MECH_TYPES => {
                    let list = Reader(field.content).next()?.ok_or(Malformed::Truncated)?;
                    if list.tag != SEQUENCE {
                        return Err(Malformed::Value("mechTypes"));
                    }
                    mech_types = list.whole;
                    mechanisms = parse_mechanisms(list.content)?;
                }
                MECH_TOKEN => mech_token = Some(der::only(field.content, OCTET_STRING)?),
                // reqFlags, which 4.2.1 says to ignore; negHints or a mechListMIC, neither of which an
                // initiator has anything to say with in its first token.
                _ => {}
            }
        }
        if mechanisms.is_empty() {
            return Err(Malformed::Missing("mechTypes"));
        }
        Ok(NegTokenInit { mech_types, mechanisms, mech_token })
    }
}

fn parse_mechanisms(content: &[u8]) -> Result<Vec<Mechanism>, Malformed> {
    let mut list = Reader(content);
    let mut mechanisms = Vec::new();
    while let Some(element) = list.next()? {
        if element.tag != OBJECT_IDENTIFIER {
            return Err(Malformed::Value("mechTypes"));
        }
        if mechanisms.len() == MECHANISMS_MAX {
            return Err(Malformed::TooMany("mechanisms"));
        }
        mechanisms.push(Mechanism::from_oid(element.content));
    }
    Ok(mechanisms)
}

impl<'a> NegTokenResp<'a> {
    fn parse(content: &'a [u8]) -> Result<NegTokenResp<'a>, Malformed> {
        let mut fields = Reader(der::only(content, SEQUENCE)?);
        let mut token = NegTokenResp::default();
        while let Some(field) = fields.next()? {
            const STATE: u8 = der::context(0);
            const MECHANISM: u8 = der::context(1);
            const RESPONSE_TOKEN: u8 = der::context(2);
            const MECH_LIST_MIC: u8 = der::context(3);
            match field.tag {
                STATE => {
                    token.state = Some(match der::only(field.content, ENUMERATED)? {
                        [0] => NegState::AcceptCompleted,
                        [1] => NegState::AcceptIncomplete,
                        [2] => NegState::Reject,
                        [3] => NegState::RequestMic,
                        _ => return Err(Malformed::Value("negState")),
                    });
                }
                MECHANISM => {
                    let oid = der::only(field.content, OBJECT_IDENTIFIER)?;
                    token.mechanism = Some(Mechanism::from_oid(oid));
                }
                RESPONSE_TOKEN => token.response_token = Some(der::only(field.content, OCTET_STRING)?),
                MECH_LIST_MIC => token.mech_list_mic = Some(der::only(field.content, OCTET_STRING)?),
                _ => {}
            }
        }
        Ok(token)
    }

    /// The token as it goes on the wire.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let field = |number, tag, content: &[u8]| {
            der::element(der::context(number), &[&der::element(tag, &[content])])
        };
        let octets = |number, content: Option<&[u8]>| {
            content.map_or_else(Vec::new, |content| field(number, OCTET_STRING, content))
        };
        let state = self.state.map_or_else(Vec::new, |state| field(0, ENUMERATED, &[state as u8]));
        let mechanism = self
            .mechanism
            .map_or_else(Vec::new, |mechanism| der::element(der::context(1), &[&mechanism.encode()]));
        let fields = [state, mechanism, octets(2, self.response_token), octets(3, self.mech_list_mic)];
        let sequence = der::element(SEQUENCE, &fields.each_ref().map(Vec::as_slice));
        der::element(der::context(1), &[&sequence]).into()
    }
}

/// The list of mechanisms alone, as the mechListMIC takes it.
pub(super) fn encode_mech_types(mechanisms: &[Mechanism]) -> Vec<u8> {
    let list: Vec<u8> = mechanisms.iter().flat_map(|mechanism| mechanism.encode()).collect();
    der::element(SEQUENCE, &[&list])
}

/// A NegTokenInit with this list (from [`encode_mech_types`]) and an optimistic token.
pub(super) fn encode_init(mech_types: &[u8], mech_token: Option<&[u8]>) -> Bytes {
    let mech_types = der::element(der::context(0), &[mech_types]);
    let mech_token = mech_token.map_or_else(Vec::new, |token| {
        der::element(der::context(2), &[&der::element(OCTET_STRING, &[token])])
    });
    initial(&[&mech_types, &mech_token])
}

/// The NegTokenInit2 that a server sends in its NEGOTIATE response, before the client has said anything:
/// MS-SPNG 2.2.1 and 3.2.5.2.
pub(super) fn encode_hint() -> Bytes {
    let mech_types = der::element(der::context(0), &[&encode_mech_types(&[Mechanism::Ntlm])]);
    let name = der::element(GENERAL_STRING, &[b"not_defined_in_RFC4178@please_ignore"]);
    let hints = der::element(SEQUENCE, &[&der::element(der::context(0), &[&name])]);
    initial(&[&mech_types, &der::element(der::context(3), &[&hints])])
}

fn initial(fields: &[&[u8]]) -> Bytes {
    let token = der::element(der::context(0), &[&der::element(SEQUENCE, fields)]);
    der::element(APPLICATION_0, &[&der::element(OBJECT_IDENTIFIER, &[SPNEGO]), &token]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;
    use proptest::prelude::*;

    // The first token of Windows 10 in Microsoft's blog on 3.1.1 (see crypto/preauth.rs).
    const FIRST: &str = "60 48  06 06 2B0601050502  A0 3E  30 3C
         A0 0E  30 0C  06 0A 2B06010401823702020A
         A2 2A  04 28  4E544C4D5353500001000000978208E200000000000000000000000000000000060380250000000F";

    #[test]
    fn reads_windows_first_token() {
        let bytes = hex(FIRST);
        let Token::Init(init) = Token::parse(&bytes).unwrap() else { panic!() };
        assert_eq!(init.mechanisms, [Mechanism::Ntlm]);
        assert_eq!(init.mech_types, hex("30 0C  06 0A 2B06010401823702020A"));
        assert!(init.mech_token.unwrap().starts_with(NTLMSSP_SIGNATURE));
        assert_eq!(encode_init(init.mech_types, init.mech_token), bytes);
    }

    #[test]
    fn reads_windows_last_token() {
        let bytes = hex("A1 1B  30 19  A0 03 0A 01 00  A3 12  04 10  010000003B453CDC3524164200000000");
        let resp = NegTokenResp {
            state: Some(NegState::AcceptCompleted),
            mech_list_mic: Some(&bytes[13..]),
            ..NegTokenResp::default()
        };
        assert_eq!(Token::parse(&bytes), Ok(Token::Resp(resp)));
        assert_eq!(resp.encode(), bytes);
    }

    #[test]
    fn round_trip_of_a_full_response() {
        let resp = NegTokenResp {
            state: Some(NegState::RequestMic),
            mechanism: Some(Mechanism::Ntlm),
            response_token: Some(&[1; 300]),
            mech_list_mic: Some(&[2; 16]),
        };
        assert_eq!(Token::parse(&resp.encode()), Ok(Token::Resp(resp)));
    }

    #[test]
    fn the_hint_lists_ntlm() {
        let hint = encode_hint();
        let Token::Init(init) = Token::parse(&hint).unwrap() else { panic!() };
        assert_eq!((init.mechanisms, init.mech_token), (vec![Mechanism::Ntlm], None));
        let hints = &hex("A3 2A 30 28 A0 26 1B 24");
        assert!(hint.windows(hints.len()).any(|window| window == hints));
        assert!(hint.ends_with(b"not_defined_in_RFC4178@please_ignore"));
    }

    #[test]
    fn mechanisms_in_any_order() {
        let all = [Mechanism::MsKerberos, Mechanism::Kerberos, Mechanism::NegoEx, Mechanism::Ntlm];
        let list = encode_mech_types(&all);
        let bytes = encode_init(&list, Some(b"ticket"));
        let Token::Init(init) = Token::parse(&bytes).unwrap() else { panic!() };
        assert_eq!(init.mechanisms, all);
        assert_eq!((init.mech_types, init.mech_token), (&list[..], Some(&b"ticket"[..])));
    }

    #[test]
    fn refuses_what_it_is_not() {
        assert_eq!(Token::parse(b"NTLMSSP\0x"), Ok(Token::Ntlm(b"NTLMSSP\0x")));
        assert!(Token::parse(b"").is_err());
        assert!(Token::parse(b"NTLMSSP").is_err());
        // A GSS token of Kerberos, no SPNEGO.
        let kerberos = der::element(APPLICATION_0, &[&Mechanism::Kerberos.encode(), &[1, 0]]);
        assert_eq!(Token::parse(&kerberos), Err(Malformed::ProtocolId));
        assert_eq!(
            Token::parse(&encode_init(&encode_mech_types(&[]), None)),
            Err(Malformed::Missing("mechTypes"))
        );
        let many = encode_init(&encode_mech_types(&[Mechanism::Kerberos; 65]), None);
        assert_eq!(Token::parse(&many), Err(Malformed::TooMany("mechanisms")));
        let bytes = hex(FIRST);
        for length in 0..bytes.len() {
            assert!(Token::parse(&bytes[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn reads_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Token::parse(&bytes);
        }

        #[test]
        fn reads_changed_tokens(at in 0usize..74, byte in any::<u8>()) {
            let mut bytes = hex(FIRST);
            bytes[at] = byte;
            let _ = Token::parse(&bytes);
        }
    }
}
