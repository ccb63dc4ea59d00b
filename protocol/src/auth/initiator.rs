//! The client's side, for our own client in tests and load generation: NTLMv2 in SPNEGO.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::ntlm::handshake::{self, Credentials};
use super::ntlm::nt_hash;
use super::ntlm::response::{MessageKeys, Side};
use super::spnego::{self, Mechanism, NegState, NegTokenResp, Token};
use super::{AuthError, Malformed};

/// One authentication, on the client's side: [`first`](Self::first), then [`next`](Self::next) for each token
/// of the server, until [`is_done`](Self::is_done).
pub struct Initiator {
    credentials: Credentials,
    outer: Outer,
    negotiate: Bytes,
    mech_types: Vec<u8>,
    state: State,
    session_key: Option<Zeroizing<[u8; 16]>>,
}

/// What is around NTLM.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outer {
    Spnego,
    SpnegoKerberosFirst,
    Nothing,
}

enum State {
    /// The first token was not asked for, or not answered.
    Start,
    /// NTLM's first message is sent.
    ExpectChallenge,
    /// NTLM's last message is sent.
    ExpectCompletion(Option<MessageKeys>),
    Done,
}

impl Initiator {
    /// As a user. The password is hashed at once.
    #[must_use]
    pub fn new(user: &str, password: &str, domain: &str) -> Initiator {
        Initiator::with_credentials(Credentials::User {
            name: user.to_owned(),
            domain: domain.to_owned(),
            nt_hash: Zeroizing::new(nt_hash(password)),
        })
    }

    /// As nobody.
    #[must_use]
    pub fn anonymous() -> Initiator {
        Initiator::with_credentials(Credentials::Anonymous)
    }

    fn with_credentials(credentials: Credentials) -> Initiator {
        Initiator {
            credentials,
            outer: Outer::Spnego,
            negotiate: handshake::negotiate(),
            mech_types: spnego::encode_mech_types(&[Mechanism::Ntlm]),
            state: State::Start,
            session_key: None,
        }
    }

    /// Without SPNEGO around NTLM, as some clients do it.
    #[must_use]
    pub fn without_spnego(self) -> Initiator {
        Initiator { outer: Outer::Nothing, ..self }
    }

    /// As a client in a domain does it: Kerberos is offered first, with a token (which is none, since we do
    /// not speak it), and NTLM as the last resort.
    #[must_use]
    pub fn preferring_kerberos(self) -> Initiator {
        let list = [Mechanism::MsKerberos, Mechanism::Kerberos, Mechanism::NegoEx, Mechanism::Ntlm];
        let mech_types = spnego::encode_mech_types(&list);
        Initiator { outer: Outer::SpnegoKerberosFirst, mech_types, ..self }
    }

    /// The first token.
    #[must_use]
    pub fn first(&mut self) -> Bytes {
        match self.outer {
            Outer::Spnego => {
                self.state = State::ExpectChallenge;
                spnego::encode_init(&self.mech_types, Some(&self.negotiate))
            }
            Outer::SpnegoKerberosFirst => spnego::encode_init(&self.mech_types, Some(b"not a ticket")),
            Outer::Nothing => {
                self.state = State::ExpectChallenge;
                self.negotiate.clone()
            }
        }
    }

    /// Takes a token of the server and gives the next one for it. After the server's last token it is empty.
    ///
    /// # Errors
    ///
    /// When the token does not parse or does not belong here, the server refused, or its mechListMIC is wrong
    /// or missing where we sent ours.
    pub fn next(&mut self, token: &[u8]) -> Result<Bytes, AuthError> {
        let state = std::mem::replace(&mut self.state, State::Done);
        if self.outer == Outer::Nothing {
            return match (state, token) {
                (State::ExpectChallenge, challenge) => {
                    let (message, _) = self.authenticate(challenge)?;
                    self.state = State::ExpectCompletion(None);
                    Ok(message)
                }
                (State::ExpectCompletion(_), []) => Ok(Bytes::new()),
                _ => Err(AuthError::Unexpected),
            };
        }
        let Token::Resp(resp) = Token::parse(token)? else { return Err(AuthError::Unexpected) };
        if resp.state == Some(NegState::Reject) {
            return Err(AuthError::Rejected);
        }
        match state {
            State::Start if self.outer == Outer::SpnegoKerberosFirst => {
                if resp.mechanism != Some(Mechanism::Ntlm) {
                    return Err(AuthError::NoMechanism);
                }
                self.state = State::ExpectChallenge;
                let reply = NegTokenResp { response_token: Some(&self.negotiate), ..NegTokenResp::default() };
                Ok(reply.encode())
            }
            State::ExpectChallenge => {
                let challenge = resp.response_token.ok_or(Malformed::Missing("responseToken"))?;
                let (message, keys) = self.authenticate(challenge)?;
                let mic = keys.as_ref().map(|keys| keys.sign(Side::Client, &self.mech_types));
                let reply = NegTokenResp {
                    response_token: Some(&message),
                    mech_list_mic: mic.as_ref().map(|mic| &mic[..]),
                    ..NegTokenResp::default()
                };
                self.state = State::ExpectCompletion(keys);
                Ok(reply.encode())
            }
            State::ExpectCompletion(keys) => {
                if resp.state != Some(NegState::AcceptCompleted) {
                    return Err(AuthError::Unexpected);
                }
                // A server that let us in as a guest cannot sign, so that a missing code is no proof of an
                // attack; the caller sees in the session's flags what it got. A wrong one is.
                if let (Some(keys), Some(mic)) = (keys, resp.mech_list_mic)
                    && !keys.verify(Side::Server, &self.mech_types, mic)
                {
                    return Err(AuthError::MechListMic);
                }
                Ok(Bytes::new())
            }
            State::Start | State::Done => Err(AuthError::Unexpected),
        }
    }

    fn authenticate(&mut self, challenge: &[u8]) -> Result<(Bytes, Option<MessageKeys>), AuthError> {
        let (message, key, keys) = handshake::authenticate(&self.credentials, &self.negotiate, challenge)?;
        self.session_key = Some(key);
        Ok((message, keys))
    }

    /// Whether the server's last token has come. A failed authentication is done too.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The session key, once the challenge has been answered.
    #[must_use]
    pub fn session_key(&self) -> Option<&[u8; 16]> {
        self.session_key.as_deref()
    }
}

impl std::fmt::Debug for Initiator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Initiator").field("done", &self.is_done()).finish_non_exhaustive()
    }
}
