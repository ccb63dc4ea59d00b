//! The steps of NTLM: MS-NLMP 3.2.5.1 for the server and 3.1.5.1 for the client. States are consumed; SPNEGO
//! is around them, not here.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::message::{
    AuthenticateMessage, AvFlags, AvPairs, ChallengeMessage, MIC, NegotiateFlags, NegotiateMessage,
    TargetInfo,
};
use super::response::{self, Key, MessageKeys, NtlmV2Response};
use crate::auth::{Accounts, AuthError, Identity, Lookup};
use crate::dtyp::FileTime;
use crate::{Malformed, Utf16, crypto};

/// Bytes of a NEGOTIATE_MESSAGE that we are ready to keep until the next token, before anyone has said who he
/// is. Names of the longest sort make some 600.
const NEGOTIATE_MAX: usize = 4096;

/// What the server grants if the client asks for it.
const GRANTED: NegotiateFlags = NegotiateFlags(
    NegotiateFlags::REQUEST_TARGET.0
        | NegotiateFlags::SIGN.0
        | NegotiateFlags::SEAL.0
        | NegotiateFlags::ALWAYS_SIGN.0
        | NegotiateFlags::EXTENDED_SESSIONSECURITY.0
        | NegotiateFlags::VERSION.0
        | NegotiateFlags::KEY_128.0
        | NegotiateFlags::KEY_56.0
        | NegotiateFlags::KEY_EXCH.0,
);

/// The server after its challenge.
pub(in crate::auth) struct ExpectAuthenticate {
    negotiate: Bytes,
    challenge: Bytes,
    server_challenge: [u8; 8],
    flags: NegotiateFlags,
}

/// Who it is, and the keys.
pub(in crate::auth) struct Authenticated {
    pub(in crate::auth) identity: Identity,
    pub(in crate::auth) session_key: Key,
    /// To sign with as the session's owner. None for a guest, whose key is nobody's, and without the flags
    /// for it.
    pub(in crate::auth) message_keys: Option<MessageKeys>,
}

/// Answers a NEGOTIATE_MESSAGE: 3.2.5.1.1.
pub(in crate::auth) fn challenge(
    negotiate: &[u8],
    target: &TargetInfo,
    now: FileTime,
    server_challenge: [u8; 8],
) -> Result<(ExpectAuthenticate, Bytes), AuthError> {
    if negotiate.len() > NEGOTIATE_MAX {
        return Err(Malformed::TooMany("bytes of a NEGOTIATE_MESSAGE").into());
    }
    let asked = NegotiateMessage::parse(negotiate)?.flags;
    let strings = if asked.contains(NegotiateFlags::UNICODE) {
        NegotiateFlags::UNICODE
    } else if asked.contains(NegotiateFlags::OEM) {
        NegotiateFlags::OEM
    } else {
        return Err(Malformed::Value("NegotiateFlags").into());
    };
    let flags = asked & GRANTED
        | strings
        | NegotiateFlags::NTLM
        | NegotiateFlags::TARGET_TYPE_SERVER
        | NegotiateFlags::TARGET_INFO;
    let challenge = ChallengeMessage {
        flags,
        server_challenge,
        target_name: Utf16::from_str(&target.netbios_computer),
        target_info: target.encode(now),
    }
    .encode();
    let state = ExpectAuthenticate {
        negotiate: Bytes::copy_from_slice(negotiate),
        challenge: challenge.clone(),
        server_challenge,
        flags,
    };
    Ok((state, challenge))
}

impl ExpectAuthenticate {
    /// Decides on an AUTHENTICATE_MESSAGE: 3.2.5.1.2.
    pub(in crate::auth) fn authenticate(
        self,
        authenticate: &[u8],
        accounts: &dyn Accounts,
    ) -> Result<Authenticated, AuthError> {
        let mut message = AuthenticateMessage::parse(authenticate)?;
        // What the client claims beyond what was granted it does not have.
        message.flags &= self.flags | NegotiateFlags::ANONYMOUS;

        if message.user.is_empty()
            && message.nt_response.is_empty()
            && matches!(message.lm_response, [] | [0])
        {
            return anonymous(&message);
        }

        let (identity, lookup) = look_up(&message, accounts);
        let (hash, refused) = match lookup {
            Lookup::Hash(hash) => (hash, None),
            Lookup::Unknown if accounts.guest_ok() => return Ok(guest(&message)),
            // The same work is done for those who cannot get in as for the others: else the time would tell
            // who exists.
            Lookup::Unknown => (Zeroizing::new([0x5A; 16]), Some(AuthError::UnknownUser)),
            Lookup::Disabled => (Zeroizing::new([0x5A; 16]), Some(AuthError::Disabled)),
        };
        let response = NtlmV2Response::parse(message.nt_response).ok_or(AuthError::NotNtlmV2)?;
        let verified = self.verify(&response, &hash, &message);
        if let Some(error) = refused {
            return Err(error);
        }
        let base = verified.ok_or(AuthError::WrongPassword)?;
        let session_key = response::exported_session_key(&base, &message)?;
        if response.av_pairs()?.flags.contains(AvFlags::MIC_PROVIDED) {
            // The flag is under the response's proof, so that nobody on the way can take the MIC away with
            // it.
            let expected = response::mic(&session_key, &self.negotiate, &self.challenge, authenticate);
            let expected = expected.ok_or(Malformed::Truncated)?;
            if !crypto::equal(&expected, &authenticate[MIC]) {
                return Err(AuthError::Mic);
            }
        }
        let message_keys = MessageKeys::new(&session_key, message.flags);
        Ok(Authenticated { identity, session_key, message_keys })
    }

    /// The session base key, if the response is right for one of the spellings of the domain that clients are
    /// known to compute it with, whatever they send: as sent, in capitals, empty.
    fn verify(
        &self,
        response: &NtlmV2Response<'_>,
        hash: &[u8; 16],
        message: &AuthenticateMessage<'_>,
    ) -> Option<Key> {
        let capitals: Vec<u16> = message.domain.iter().map(|&unit| response::upcase(unit)).collect();
        [&message.domain[..], &capitals, &[]].into_iter().find_map(|domain| {
            let key = response::response_key(hash, &message.user, domain);
            response.verify(&key, self.server_challenge)
        })
    }
}

/// Finds the account. A name of the form user@domain, with the domain's own field empty, is looked up as it
/// is, and if nobody has it, in its two parts.
fn look_up(message: &AuthenticateMessage<'_>, accounts: &dyn Accounts) -> (Identity, Lookup) {
    let (name, domain) = (message.user.to_string_lossy(), message.domain.to_string_lossy());
    let lookup = accounts.nt_hash(&name, &domain);
    if matches!(lookup, Lookup::Unknown)
        && domain.is_empty()
        && let Some((user, realm)) = name.rsplit_once('@')
    {
        let lookup = accounts.nt_hash(user, realm);
        return (Identity::User { name: user.to_owned(), domain: realm.to_owned() }, lookup);
    }
    (Identity::User { name, domain }, lookup)
}

/// 3.2.5.1.2: the session base key of an anonymous client is zero. It may still send a key of its own choice
/// under it.
fn anonymous(message: &AuthenticateMessage<'_>) -> Result<Authenticated, AuthError> {
    let session_key = response::exported_session_key(&Key::default(), message)?;
    let message_keys = MessageKeys::new(&session_key, message.flags);
    Ok(Authenticated { identity: Identity::Anonymous, session_key, message_keys })
}

/// Someone that we do not know: what he signs we cannot check, nor he what we sign.
fn guest(message: &AuthenticateMessage<'_>) -> Authenticated {
    let asked = message.user.to_string_lossy();
    Authenticated { identity: Identity::Guest { asked }, session_key: Key::default(), message_keys: None }
}

/// What a client authenticates with.
pub(in crate::auth) enum Credentials {
    User { name: String, domain: String, nt_hash: Key },
    Anonymous,
}

/// What the client asks for.
const ASKED: NegotiateFlags =
    NegotiateFlags(GRANTED.0 | NegotiateFlags::UNICODE.0 | NegotiateFlags::OEM.0 | NegotiateFlags::NTLM.0);

/// Bytes of TargetInfo that the client is ready to give back: its response must fit in 16 bits.
const TARGET_INFO_MAX: usize = 32 * 1024;

/// The client's NEGOTIATE_MESSAGE: 3.1.5.1.1.
pub(in crate::auth) fn negotiate() -> Bytes {
    NegotiateMessage { flags: ASKED }.encode()
}

/// The client's AUTHENTICATE_MESSAGE, its session key, and what it signs with: 3.1.5.1.2.
pub(in crate::auth) fn authenticate(
    credentials: &Credentials,
    negotiate: &[u8],
    challenge: &[u8],
) -> Result<(Bytes, Key, Option<MessageKeys>), AuthError> {
    let offer = ChallengeMessage::parse(challenge)?;
    if offer.target_info.len() > TARGET_INFO_MAX {
        return Err(Malformed::TooMany("bytes of TargetInfo").into());
    }
    let mut flags = offer.flags & ASKED;
    if flags.contains(NegotiateFlags::UNICODE) {
        flags = flags.without(NegotiateFlags::OEM);
    }

    let mut message = AuthenticateMessage {
        lm_response: &[],
        nt_response: &[],
        domain: Utf16::default(),
        user: Utf16::default(),
        workstation: Utf16::from_str("SHOAL-CLIENT"),
        encrypted_session_key: &[],
        flags,
    };
    let (nt_response, base, with_mic) = match credentials {
        Credentials::Anonymous => {
            message.flags |= NegotiateFlags::ANONYMOUS;
            message.lm_response = &[0];
            (Vec::new(), Key::default(), false)
        }
        Credentials::User { name, domain, nt_hash } => {
            message.user = Utf16::from_str(name);
            message.domain = Utf16::from_str(domain);
            message.lm_response = &[0; 24];
            let key = response::response_key(nt_hash, &message.user, &message.domain);
            // A server that states its time understands the MIC; one that does not would refuse it.
            let timestamp = AvPairs::parse(&offer.target_info)?.timestamp;
            let pairs = match timestamp {
                Some(_) => AvPairs::add_flags(&offer.target_info, AvFlags::MIC_PROVIDED),
                None => offer.target_info.clone(),
            };
            let mut client_challenge = [0; 8];
            crypto::random(&mut client_challenge);
            let time = timestamp.unwrap_or(FileTime::ZERO);
            let (nt_response, base) =
                response::respond(&key, offer.server_challenge, client_challenge, time, &pairs);
            (nt_response, base, timestamp.is_some())
        }
    };
    message.nt_response = &nt_response;
    let (mut session_key, encrypted) = response::exchange_session_key(&base);
    if flags.contains(NegotiateFlags::KEY_EXCH) {
        message.encrypted_session_key = &encrypted;
    } else {
        session_key = base;
    }
    let mut bytes = message.encode();
    if with_mic {
        let mic =
            response::mic(&session_key, negotiate, challenge, &bytes).expect("our message has room for it");
        bytes[MIC].copy_from_slice(&mic);
    }
    let message_keys = MessageKeys::new(&session_key, message.flags);
    Ok((bytes.freeze(), session_key, message_keys))
}
