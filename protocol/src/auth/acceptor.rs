//! The server's side: RFC 4178 3 and 5, MS-SPNG 3.2.5, around MS-NLMP 3.2.5.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::ntlm::handshake::{self, Authenticated, ExpectAuthenticate};
use super::ntlm::message::TargetInfo;
use super::ntlm::response::{MessageKeys, Side};
use super::spnego::{self, Mechanism, NegState, NegTokenInit, NegTokenResp, Token};
use super::{Accounts, AuthError, Identity};
use crate::Malformed;
use crate::dtyp::FileTime;

/// Bytes of a list of mechanisms that we are ready to keep until the last token.
const MECH_TYPES_MAX: usize = 2048;

/// One authentication, on the server's side. Every token consumes it; [`Step::Continue`] gives it back.
///
/// It holds at most some six kilobytes, whatever the client sends.
pub struct Acceptor {
    target: TargetInfo,
    state: State,
}

enum State {
    /// Nothing has come. `hinted`: an empty token came, and was answered with the hint.
    Start { hinted: bool },
    /// NTLM is agreed on; its first message has not come.
    ExpectNegotiate(Negotiation),
    /// The challenge is given. Without a negotiation it goes without SPNEGO.
    ExpectAuthenticate(Option<Negotiation>, ExpectAuthenticate),
    /// Authenticated, but the mechListMIC that is required has not come.
    ExpectMechListMic(Negotiation, MessageKeys, Box<Authenticated>),
}

/// What SPNEGO needs to remember.
struct Negotiation {
    /// The client's list of mechanisms, as it sent it.
    mech_types: Vec<u8>,
    /// Whether the mechListMIC must come. RFC 4178 5: it may be left away only when the mechanism is the
    /// first of the list.
    mic_required: bool,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Start { .. } => "Start",
            State::ExpectNegotiate(_) => "ExpectNegotiate",
            State::ExpectAuthenticate(..) => "ExpectAuthenticate",
            State::ExpectMechListMic(..) => "ExpectMechListMic",
        };
        f.debug_struct("Acceptor").field("state", &state).finish_non_exhaustive()
    }
}

/// What comes of a token.
#[derive(Debug)]
pub enum Step {
    /// STATUS_MORE_PROCESSING_REQUIRED, with this token.
    Continue {
        /// For the next token.
        acceptor: Acceptor,
        /// The security buffer of the response.
        token: Bytes,
    },
    /// Authenticated.
    Done(Accepted),
    /// Refused, with [`AuthError::status`] and no token.
    Failed(AuthError),
}

/// An authentication that succeeded.
pub struct Accepted {
    /// Who it is.
    pub identity: Identity,
    /// What the keys of the session are derived from. For a guest it is zero, and for an anonymous client it
    /// is no secret: their sessions can neither sign nor encrypt.
    pub session_key: Zeroizing<[u8; 16]>,
    /// The security buffer of the last response. Empty without SPNEGO.
    pub token: Bytes,
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accepted").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// For a new authentication, or a repeated one of a session.
    #[must_use]
    pub fn new(target: TargetInfo) -> Acceptor {
        Acceptor { target, state: State::Start { hinted: false } }
    }

    /// The security buffer of a NEGOTIATE response: which mechanisms there are (MS-SPNG 3.2.5.2).
    #[must_use]
    pub fn hint() -> Bytes {
        spnego::encode_hint()
    }

    /// Takes the security buffer of a SESSION_SETUP request.
    ///
    /// `now` goes into the challenge and obliges the client to add its MIC. `challenge` must be random, and
    /// is used if the token is the first of NTLM.
    #[must_use]
    pub fn step(self, token: &[u8], now: FileTime, challenge: [u8; 8], accounts: &dyn Accounts) -> Step {
        self.advance(token, now, challenge, accounts).unwrap_or_else(Step::Failed)
    }

    fn advance(
        self,
        token: &[u8],
        now: FileTime,
        challenge: [u8; 8],
        accounts: &dyn Accounts,
    ) -> Result<Step, AuthError> {
        let Acceptor { target, state } = self;
        if let (State::Start { hinted: false }, []) = (&state, token) {
            // MS-SPNG 3.2.5.2: called "without an input_token" the acceptor gives its hint. Once is enough.
            let acceptor = Acceptor { target, state: State::Start { hinted: true } };
            return Ok(Step::Continue { acceptor, token: Acceptor::hint() });
        }
        match (state, Token::parse(token)?) {
            (State::Start { .. }, Token::Init(init)) => {
                let negotiation = Negotiation::new(&init)?;
                let reply = NegTokenResp { mechanism: Some(Mechanism::Ntlm), ..NegTokenResp::default() };
                match init.mech_token {
                    // The optimistic token is for the first mechanism of the list, and so for us only if that
                    // is NTLM.
                    Some(token) if !negotiation.mic_required => {
                        give_challenge(target, negotiation, reply, token, now, challenge)
                    }
                    _ => {
                        let state = if negotiation.mic_required {
                            NegState::RequestMic
                        } else {
                            NegState::AcceptIncomplete
                        };
                        let token = NegTokenResp { state: Some(state), ..reply }.encode();
                        let acceptor = Acceptor { target, state: State::ExpectNegotiate(negotiation) };
                        Ok(Step::Continue { acceptor, token })
                    }
                }
            }
            (State::Start { .. }, Token::Ntlm(message)) => {
                let (ntlm, token) = handshake::challenge(message, &target, now, challenge)?;
                let acceptor = Acceptor { target, state: State::ExpectAuthenticate(None, ntlm) };
                Ok(Step::Continue { acceptor, token })
            }
            (_, Token::Resp(NegTokenResp { state: Some(NegState::Reject), .. })) => Err(AuthError::Rejected),
            (State::ExpectNegotiate(negotiation), Token::Resp(resp)) => {
                let token = resp.response_token.ok_or(Malformed::Missing("responseToken"))?;
                give_challenge(target, negotiation, NegTokenResp::default(), token, now, challenge)
            }
            (State::ExpectAuthenticate(None, ntlm), Token::Ntlm(message)) => {
                let Authenticated { identity, session_key, .. } = ntlm.authenticate(message, accounts)?;
                Ok(Step::Done(Accepted { identity, session_key, token: Bytes::new() }))
            }
            (State::ExpectAuthenticate(Some(negotiation), ntlm), Token::Resp(resp)) => {
                let token = resp.response_token.ok_or(Malformed::Missing("responseToken"))?;
                let authenticated = ntlm.authenticate(token, accounts)?;
                finish(target, negotiation, authenticated, resp.mech_list_mic)
            }
            (State::ExpectMechListMic(negotiation, keys, authenticated), Token::Resp(resp)) => {
                let mic = resp.mech_list_mic.ok_or(AuthError::MechListMic)?;
                negotiation.verify(&keys, mic)?;
                Ok(completed(*authenticated, None))
            }
            _ => Err(AuthError::Unexpected),
        }
    }
}

impl Negotiation {
    fn new(init: &NegTokenInit<'_>) -> Result<Negotiation, AuthError> {
        if init.mech_types.len() > MECH_TYPES_MAX {
            return Err(Malformed::TooMany("bytes of mechTypes").into());
        }
        let place = init.mechanisms.iter().position(|mechanism| *mechanism == Mechanism::Ntlm);
        let place = place.ok_or(AuthError::NoMechanism)?;
        Ok(Negotiation { mech_types: init.mech_types.to_vec(), mic_required: place != 0 })
    }

    fn verify(&self, keys: &MessageKeys, mic: &[u8]) -> Result<(), AuthError> {
        if keys.verify(Side::Client, &self.mech_types, mic) { Ok(()) } else { Err(AuthError::MechListMic) }
    }
}

fn give_challenge(
    target: TargetInfo,
    negotiation: Negotiation,
    reply: NegTokenResp<'_>,
    message: &[u8],
    now: FileTime,
    challenge: [u8; 8],
) -> Result<Step, AuthError> {
    let (ntlm, challenge) = handshake::challenge(message, &target, now, challenge)?;
    let reply =
        NegTokenResp { state: Some(NegState::AcceptIncomplete), response_token: Some(&challenge), ..reply };
    let acceptor = Acceptor { target, state: State::ExpectAuthenticate(Some(negotiation), ntlm) };
    Ok(Step::Continue { acceptor, token: reply.encode() })
}

/// The end of SPNEGO, RFC 4178 5: who sends a mechListMIC gets one.
fn finish(
    target: TargetInfo,
    negotiation: Negotiation,
    authenticated: Authenticated,
    mech_list_mic: Option<&[u8]>,
) -> Result<Step, AuthError> {
    if let Identity::Guest { .. } = authenticated.identity {
        // Neither side can check the other's: a guest's password, and so the key, is his alone. It protects
        // nothing here, since whoever changes the list could as well come as a guest himself.
        return Ok(completed(authenticated, None));
    }
    let Some(keys) = authenticated.message_keys.clone() else {
        // Old clients do without the extended session security; but then without a code too.
        let required = negotiation.mic_required || mech_list_mic.is_some();
        return if required { Err(AuthError::MechListMic) } else { Ok(completed(authenticated, None)) };
    };
    match mech_list_mic {
        Some(mic) => {
            negotiation.verify(&keys, mic)?;
            let ours = keys.sign(Side::Server, &negotiation.mech_types);
            Ok(completed(authenticated, Some(&ours)))
        }
        None if negotiation.mic_required => {
            let ours = keys.sign(Side::Server, &negotiation.mech_types);
            let reply = NegTokenResp {
                state: Some(NegState::AcceptIncomplete),
                mech_list_mic: Some(&ours),
                ..NegTokenResp::default()
            };
            let state = State::ExpectMechListMic(negotiation, keys, Box::new(authenticated));
            Ok(Step::Continue { acceptor: Acceptor { target, state }, token: reply.encode() })
        }
        None => Ok(completed(authenticated, None)),
    }
}

fn completed(authenticated: Authenticated, mech_list_mic: Option<&[u8]>) -> Step {
    let reply =
        NegTokenResp { state: Some(NegState::AcceptCompleted), mech_list_mic, ..NegTokenResp::default() };
    let Authenticated { identity, session_key, .. } = authenticated;
    Step::Done(Accepted { identity, session_key, token: reply.encode() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Initiator, Lookup, nt_hash};
    use crate::crypto::hex;
    use proptest::prelude::*;

    /// One user, one disabled.
    struct Users {
        guest: bool,
    }

    impl Accounts for Users {
        fn nt_hash(&self, user: &str, _domain: &str) -> Lookup {
            match user.to_lowercase().as_str() {
                "anna" => Lookup::Hash(Zeroizing::new(nt_hash("Geheim-ß€😀"))),
                "empty" => Lookup::Hash(Zeroizing::new(nt_hash(""))),
                "off" => Lookup::Disabled,
                _ => Lookup::Unknown,
            }
        }

        fn guest_ok(&self) -> bool {
            self.guest
        }
    }

    const NOBODY_ELSE: Users = Users { guest: false };
    const GUESTS_TOO: Users = Users { guest: true };
    const NOW: FileTime = FileTime(0x01D0_AECB_ADF5_A1A1);
    const CHALLENGE: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];

    fn new_acceptor() -> Acceptor {
        Acceptor::new(TargetInfo {
            netbios_computer: "SHOAL".into(),
            netbios_domain: "WORKGROUP".into(),
            dns_computer: "shoal".into(),
            dns_domain: String::new(),
        })
    }

    fn step(acceptor: Acceptor, token: &[u8], accounts: &Users) -> Step {
        acceptor.step(token, NOW, CHALLENGE, accounts)
    }

    fn go_on(acceptor: Acceptor, token: &[u8]) -> (Acceptor, Bytes) {
        match step(acceptor, token, &NOBODY_ELSE) {
            Step::Continue { acceptor, token } => (acceptor, token),
            Step::Done(_) => panic!("done too soon"),
            Step::Failed(error) => panic!("{error}"),
        }
    }

    fn failure(acceptor: Acceptor, token: &[u8]) -> AuthError {
        match step(acceptor, token, &NOBODY_ELSE) {
            Step::Failed(error) => error,
            _ => panic!("not refused"),
        }
    }

    /// The whole conversation; gives how many tokens the client sent too.
    fn run(mut client: Initiator, accounts: &Users) -> Result<(Accepted, Initiator, usize), AuthError> {
        let mut acceptor = new_acceptor();
        let mut token = client.first();
        for count in 1..6 {
            match step(acceptor, &token, accounts) {
                Step::Continue { acceptor: next, token: answer } => {
                    acceptor = next;
                    token = client.next(&answer)?;
                }
                Step::Done(accepted) => {
                    assert!(client.next(&accepted.token)?.is_empty());
                    assert!(client.is_done());
                    return Ok((accepted, client, count));
                }
                Step::Failed(error) => return Err(error),
            }
        }
        panic!("it does not end");
    }

    #[test]
    fn a_user_gets_in() {
        for (user, domain) in
            [("anna", ""), ("ANNA", "WORKGROUP"), ("Anna", "elsewhere"), ("anna@somewhere", "")]
        {
            for (client, count) in [
                (Initiator::new(user, "Geheim-ß€😀", domain), 2),
                (Initiator::new(user, "Geheim-ß€😀", domain).preferring_kerberos(), 3),
                (Initiator::new(user, "Geheim-ß€😀", domain).without_spnego(), 2),
            ] {
                let (accepted, client, sent) = run(client, &NOBODY_ELSE).unwrap();
                let (name, realm) = user.split_once('@').unwrap_or((user, domain));
                assert_eq!(accepted.identity, Identity::User { name: name.into(), domain: realm.into() });
                assert_eq!(Some(&*accepted.session_key), client.session_key());
                assert_ne!(*accepted.session_key, [0; 16]);
                assert_eq!(sent, count);
            }
        }
        run(Initiator::new("empty", "", ""), &NOBODY_ELSE).unwrap();
    }

    #[test]
    fn others_do_not() {
        for (user, password, error) in [
            ("anna", "geheim", AuthError::WrongPassword),
            ("anna", "", AuthError::WrongPassword),
            ("off", "x", AuthError::Disabled),
            ("berta", "x", AuthError::UnknownUser),
            ("berta@home", "x", AuthError::UnknownUser),
        ] {
            for client in [
                Initiator::new(user, password, "WORKGROUP"),
                Initiator::new(user, password, "").preferring_kerberos(),
                Initiator::new(user, password, "").without_spnego(),
            ] {
                assert_eq!(run(client, &NOBODY_ELSE).unwrap_err(), error);
            }
            assert_eq!(error.status(), crate::NtStatus::LOGON_FAILURE);
        }
    }

    #[test]
    fn guests_and_the_anonymous() {
        for client in
            [Initiator::new("berta", "x", "WG"), Initiator::new("berta", "", "").preferring_kerberos()]
        {
            let (accepted, ..) = run(client, &GUESTS_TOO).unwrap();
            assert_eq!(accepted.identity, Identity::Guest { asked: "berta".into() });
            assert_eq!(*accepted.session_key, [0; 16]);
        }
        // A wrong password makes no guest.
        assert_eq!(run(Initiator::new("anna", "x", ""), &GUESTS_TOO).unwrap_err(), AuthError::WrongPassword);
        assert_eq!(run(Initiator::new("off", "x", ""), &GUESTS_TOO).unwrap_err(), AuthError::Disabled);
        for client in [
            Initiator::anonymous(),
            Initiator::anonymous().preferring_kerberos(),
            Initiator::anonymous().without_spnego(),
        ] {
            let (accepted, client, _) = run(client, &NOBODY_ELSE).unwrap();
            assert_eq!(accepted.identity, Identity::Anonymous);
            assert_eq!(Some(&*accepted.session_key), client.session_key());
        }
    }

    /// The last token of a client, and the acceptor that expects it.
    fn last_token(mut client: Initiator) -> (Acceptor, Bytes) {
        let (mut acceptor, mut answer) = go_on(new_acceptor(), &client.first());
        loop {
            let token = client.next(&answer).unwrap();
            if client.session_key().is_some() {
                return (acceptor, token);
            }
            (acceptor, answer) = go_on(acceptor, &token);
        }
    }

    fn parse(token: &[u8]) -> NegTokenResp<'_> {
        let Token::Resp(resp) = Token::parse(token).unwrap() else { panic!("another token") };
        resp
    }

    #[test]
    fn request_mic_asks_for_the_second_best_mechanism() {
        let (_, answer) =
            go_on(new_acceptor(), &Initiator::new("anna", "", "").preferring_kerberos().first());
        let asked = NegTokenResp {
            state: Some(NegState::RequestMic),
            mechanism: Some(Mechanism::Ntlm),
            ..NegTokenResp::default()
        };
        assert_eq!(parse(&answer), asked);
        // NTLM first, but without its token.
        let init =
            spnego::encode_init(&spnego::encode_mech_types(&[Mechanism::Ntlm, Mechanism::Kerberos]), None);
        let (acceptor, answer) = go_on(new_acceptor(), &init);
        assert_eq!(parse(&answer), NegTokenResp { state: Some(NegState::AcceptIncomplete), ..asked });
        let negotiate = handshake::negotiate();
        let resp = NegTokenResp { response_token: Some(&negotiate), ..NegTokenResp::default() };
        let (_, answer) = go_on(acceptor, &resp.encode());
        assert!(parse(&answer).response_token.unwrap().starts_with(b"NTLMSSP\0\x02"));
    }

    #[test]
    fn the_mech_list_mic_is_checked() {
        let client = || Initiator::new("anna", "Geheim-ß€😀", "");
        // Changed.
        for client in [client(), client().preferring_kerberos(), Initiator::anonymous()] {
            let (acceptor, token) = last_token(client);
            let mut token = token.to_vec();
            *token.last_mut().unwrap() ^= 1; // the sequence number
            assert_eq!(failure(acceptor, &token), AuthError::MechListMic);
        }
        // The list changed on the way: Kerberos taken out of it, so that NTLM is the first.
        let mut victim = client().preferring_kerberos();
        let _ = victim.first();
        let forged = spnego::encode_init(&spnego::encode_mech_types(&[Mechanism::Ntlm]), None);
        let (forged_acceptor, answer) = go_on(new_acceptor(), &forged);
        let (forged_acceptor, answer) = go_on(forged_acceptor, &victim.next(&answer).unwrap());
        assert_eq!(failure(forged_acceptor, &victim.next(&answer).unwrap()), AuthError::MechListMic);
        // Left away, where it may be.
        let (acceptor, token) = last_token(client());
        let without = NegTokenResp { mech_list_mic: None, ..parse(&token) }.encode();
        let Step::Done(accepted) = step(acceptor, &without, &NOBODY_ELSE) else { panic!("refused") };
        assert_eq!(parse(&accepted.token).mech_list_mic, None);
        // Left away where it may not be: it may come after ours, but it must come.
        let (acceptor, token) = last_token(client().preferring_kerberos());
        let resp = parse(&token);
        let (acceptor, answer) = go_on(acceptor, &NegTokenResp { mech_list_mic: None, ..resp }.encode());
        assert_eq!(parse(&answer).state, Some(NegState::AcceptIncomplete));
        assert_eq!(parse(&answer).mech_list_mic.unwrap().len(), 16);
        let late = NegTokenResp { response_token: None, ..resp }.encode();
        assert!(matches!(step(acceptor, &late, &NOBODY_ELSE), Step::Done(_)));
        let (acceptor, token) = last_token(client().preferring_kerberos());
        let (acceptor, _) = go_on(acceptor, &NegTokenResp { mech_list_mic: None, ..parse(&token) }.encode());
        assert_eq!(failure(acceptor, &NegTokenResp::default().encode()), AuthError::MechListMic);
    }

    #[test]
    fn the_mic_of_ntlm_is_checked() {
        for at in [16usize, 60, 75] {
            let mut client = Initiator::new("anna", "Geheim-ß€😀", "").without_spnego();
            let (acceptor, challenge) = go_on(new_acceptor(), &client.first());
            let mut token = client.next(&challenge).unwrap().to_vec();
            match at {
                16 => token[16] = 23,    // the LM response shorter: nothing else depends on it
                60 => token[60] ^= 0x10, // NTLMSSP_NEGOTIATE_SIGN taken away
                _ => token[at] ^= 1,     // the MIC itself
            }
            assert_eq!(failure(acceptor, &token), AuthError::Mic, "{at}");
        }
        // Our challenge changed on the way to the client: its flags.
        let mut client = Initiator::new("anna", "Geheim-ß€😀", "").without_spnego();
        let (acceptor, challenge) = go_on(new_acceptor(), &client.first());
        let mut challenge = challenge.to_vec();
        challenge[20] ^= 0x20;
        assert_eq!(failure(acceptor, &client.next(&challenge).unwrap()), AuthError::Mic);
    }

    #[test]
    fn responses_of_the_first_version_are_refused() {
        for nt_response in [&[7; 24][..], &[], &[7; 43]] {
            let message = crate::auth::ntlm::message::AuthenticateMessage {
                lm_response: &[7; 24],
                nt_response,
                domain: "WG".into(),
                user: "anna".into(),
                workstation: "OLD".into(),
                encrypted_session_key: &[],
                flags: crate::auth::ntlm::message::NegotiateFlags(0x0000_0201),
            };
            let (acceptor, _) = go_on(new_acceptor(), &handshake::negotiate());
            assert_eq!(failure(acceptor, &message.encode()), AuthError::NotNtlmV2);
        }
    }

    #[test]
    fn empty_and_misplaced_tokens() {
        // Once the hint, then no more.
        let (acceptor, hint) = go_on(new_acceptor(), &[]);
        assert_eq!(hint, Acceptor::hint());
        assert!(matches!(failure(acceptor, &[]), AuthError::Malformed(_)));
        let (acceptor, _) = go_on(new_acceptor(), &[]);
        go_on(acceptor, &Initiator::new("anna", "", "").first());

        let new = new_acceptor;
        assert_eq!(failure(new(), &NegTokenResp::default().encode()), AuthError::Unexpected);
        let kerberos = spnego::encode_init(&spnego::encode_mech_types(&[Mechanism::Kerberos]), Some(b"x"));
        assert_eq!(failure(new(), &kerberos), AuthError::NoMechanism);
        let reject = NegTokenResp { state: Some(NegState::Reject), ..NegTokenResp::default() }.encode();
        for token in
            [&[][..], &Initiator::new("anna", "", "").first(), &handshake::negotiate(), &reject, b"x"]
        {
            let (acceptor, _) = go_on(new(), &Initiator::new("anna", "", "").first());
            failure(acceptor, token);
            let (acceptor, _) = go_on(new(), &Initiator::new("anna", "", "").preferring_kerberos().first());
            failure(acceptor, token);
            let (acceptor, _) = go_on(new(), &handshake::negotiate());
            failure(acceptor, token);
        }
        // A message too long to be kept.
        let mut long = handshake::negotiate().to_vec();
        long.resize(5000, 0);
        assert!(matches!(failure(new(), &long), AuthError::Malformed(_)));
    }

    #[test]
    fn tokens_cut_at_every_length_are_refused() {
        for client in [
            || Initiator::new("anna", "Geheim-ß€😀", "WORKGROUP"),
            || Initiator::new("anna", "Geheim-ß€😀", "WORKGROUP").without_spnego(),
            || Initiator::new("anna", "Geheim-ß€😀", "WORKGROUP").preferring_kerberos(),
        ] {
            let first = client().first();
            for length in 1..first.len() {
                // An NTLM NEGOTIATE may end after its flags.
                let whole = first.starts_with(b"NTLMSSP\0") && length >= 16;
                assert_eq!(
                    matches!(step(new_acceptor(), &first[..length], &NOBODY_ELSE), Step::Failed(_)),
                    !whole
                );
            }
            let length = last_token(client()).1.len();
            for length in 0..length {
                let (acceptor, token) = last_token(client());
                failure(acceptor, &token[..length]);
            }
        }
    }

    // Microsoft's blog, "The anatomy of signing and cryptographic keys", the 3.1.1 example: its first token
    // is answered as Windows did, but for names, version and challenge.
    #[test]
    fn windows_first_token() {
        let first = hex("
            604806062B0601050502A03E303CA00E300C060A2B06010401823702020AA22A04284E544C4D5353500001000000
            978208E200000000000000000000000000000000060380250000000F");
        let (_, answer) = go_on(new_acceptor(), &first);
        let resp = parse(&answer);
        assert_eq!((resp.state, resp.mechanism), (Some(NegState::AcceptIncomplete), Some(Mechanism::Ntlm)));
        let challenge = resp.response_token.unwrap();
        assert_eq!(challenge[20..24], hex("15828AE2"));
        assert_eq!(challenge[24..32], CHALLENGE);
    }

    proptest! {
        #[test]
        fn any_tokens(
            tokens in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..4),
        ) {
            let mut acceptor = new_acceptor();
            for token in tokens {
                match step(acceptor, &token, &GUESTS_TOO) {
                    Step::Continue { acceptor: next, .. } => acceptor = next,
                    _ => break,
                }
            }
        }

        // Nobody gets in with a changed last token, unless the change was in something without meaning: then
        // as himself.
        #[test]
        fn changed_tokens(at in 0usize..600, byte in any::<u8>(), spnego in any::<bool>()) {
            let client = Initiator::new("anna", "Geheim-ß€😀", "WORKGROUP");
            let (acceptor, token) = last_token(if spnego { client } else { client.without_spnego() });
            let mut token = token.to_vec();
            let at = at % token.len();
            token[at] = byte;
            if let Step::Done(accepted) = step(acceptor, &token, &NOBODY_ELSE) {
                let Identity::User { name, .. } = accepted.identity else { panic!("another identity") };
                prop_assert_eq!(name, "anna");
            }
        }

        #[test]
        fn changed_answers(at in 0usize..400, byte in any::<u8>()) {
            let mut client = Initiator::new("anna", "Geheim-ß€😀", "WORKGROUP");
            let (_, answer) = go_on(new_acceptor(), &client.first());
            let mut answer = answer.to_vec();
            let at = at % answer.len();
            answer[at] = byte;
            let _ = client.next(&answer);
        }
    }
}
