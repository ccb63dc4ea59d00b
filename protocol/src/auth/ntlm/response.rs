//! NTLMv2's one-way functions, responses and keys: MS-NLMP 3.3.2, 3.4.4 and 3.4.5.

use aws_lc_rs::rand;
use hmac::{Hmac, KeyInit, Mac};
use md4::Md4;
use md5::{Digest, Md5};
use rc4::{Rc4, StreamCipher};
use zeroize::Zeroizing;

use super::message::{AuthenticateMessage, AvPairs, MIC, NegotiateFlags};
use crate::Malformed;
use crate::dtyp::FileTime;

/// A key of NTLM: 16 bytes, overwritten when dropped.
pub(crate) type Key = Zeroizing<[u8; 16]>;

/// The NT hash of a password, NTOWFv1: MD4 of its UTF-16. It is all that a server needs to know of a user,
/// and all that a thief needs to be that user: keep it like the password.
#[must_use]
pub fn nt_hash(password: &str) -> [u8; 16] {
    let units: Zeroizing<Vec<u8>> =
        Zeroizing::new(password.encode_utf16().flat_map(u16::to_le_bytes).collect());
    Md4::digest(&*units).into()
}

pub(super) fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut digest = Md5::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().into()
}

/// RC4K: `data` encrypted, or decrypted, under a key of 1 to 256 bytes.
fn rc4(key: &[u8], data: &mut [u8]) {
    Rc4::new_from_slice(key).expect("the keys have 16 bytes").apply_keystream(data);
}

/// NTOWFv2: the user's key, from the NT hash, the name in capitals and the domain as the client wrote it.
pub(super) fn response_key(nt_hash: &[u8; 16], user: &[u16], domain: &[u16]) -> Key {
    let name: Vec<u8> = user
        .iter()
        .map(|&unit| upcase(unit))
        .chain(domain.iter().copied())
        .flat_map(u16::to_le_bytes)
        .collect();
    Zeroizing::new(hmac_md5(nt_hash, &[&name]))
}

/// One code unit in capitals, as Windows writes it: only where there is exactly one capital, of one code
/// unit, and never from outside ASCII into it (U+0131, the dotless i, stays).
pub(super) fn upcase(unit: u16) -> u16 {
    let Some(character) = char::from_u32(u32::from(unit)) else { return unit };
    let mut upper = character.to_uppercase();
    match (upper.next().map(u32::from).map(u16::try_from), upper.next()) {
        (Some(Ok(capital)), None) if character.is_ascii() || capital > 0x7F => capital,
        _ => unit,
    }
}

/// An NtChallengeResponse of the second version (2.2.2.8), taken apart.
pub(super) struct NtlmV2Response<'a> {
    proof: &'a [u8; 16],
    /// "temp" of 3.3.2: all that follows the proof.
    blob: &'a [u8],
}

impl<'a> NtlmV2Response<'a> {
    /// Bytes of NTLMv2_CLIENT_CHALLENGE (2.2.2.7) before its AV pairs.
    const FIXED: usize = 28;

    /// `None` for a response of the first version, or of LM: they have 24 bytes, and this has more.
    pub(super) fn parse(nt_response: &'a [u8]) -> Option<NtlmV2Response<'a>> {
        let (proof, blob) = nt_response.split_first_chunk::<16>()?;
        let versions = blob.starts_with(&[1, 1]);
        (versions && blob.len() >= Self::FIXED).then_some(NtlmV2Response { proof, blob })
    }

    /// What the client says in its AV pairs.
    pub(super) fn av_pairs(&self) -> Result<AvPairs, Malformed> {
        AvPairs::parse(&self.blob[Self::FIXED..])
    }

    /// The SessionBaseKey, if the response was made with this response key for this challenge.
    pub(super) fn verify(&self, response_key: &Key, server_challenge: [u8; 8]) -> Option<Key> {
        let proof = hmac_md5(&response_key[..], &[&server_challenge, self.blob]);
        let valid = crate::crypto::equal(&proof, self.proof);
        valid.then(|| Zeroizing::new(hmac_md5(&response_key[..], &[&proof])))
    }
}

/// A client's NtChallengeResponse and the SessionBaseKey.
pub(super) fn respond(
    response_key: &Key,
    server_challenge: [u8; 8],
    client_challenge: [u8; 8],
    time: FileTime,
    av_pairs: &[u8],
) -> (Vec<u8>, Key) {
    let mut blob = vec![1, 1, 0, 0, 0, 0, 0, 0];
    blob.extend(time.0.to_le_bytes());
    blob.extend(client_challenge);
    blob.extend([0; 4]);
    blob.extend(av_pairs);
    blob.extend([0; 4]);
    let proof = hmac_md5(&response_key[..], &[&server_challenge, &blob]);
    let session_base_key = Zeroizing::new(hmac_md5(&response_key[..], &[&proof]));
    ([&proof[..], &blob].concat(), session_base_key)
}

/// The session key that both sides go on with (3.1.5.1.2 and 3.2.5.1.2): the one that the client chose and
/// encrypted with the base key, if it did so, otherwise the base key.
pub(super) fn exported_session_key(base: &Key, message: &AuthenticateMessage<'_>) -> Result<Key, Malformed> {
    let mut key = base.clone();
    if message.flags.contains(NegotiateFlags::KEY_EXCH) {
        match *message.encrypted_session_key {
            // Without signing or sealing there is no key to exchange, and some clients then send none.
            [] if !message.flags.intersects(NegotiateFlags::SIGN | NegotiateFlags::SEAL) => {}
            ref encrypted => {
                key.copy_from_slice(
                    encrypted.try_into().map(|key: &[u8; 16]| key).map_err(|_| Malformed::Length)?,
                );
                rc4(&base[..], &mut key[..]);
            }
        }
    }
    Ok(key)
}

/// A fresh session key of the client, and the same encrypted for the server.
pub(super) fn exchange_session_key(base: &Key) -> (Key, [u8; 16]) {
    let mut key = Key::default();
    rand::fill(&mut key[..]).expect("the random generator does not fail");
    let mut encrypted = *key;
    rc4(&base[..], &mut encrypted);
    (key, encrypted)
}

/// The MIC of an AUTHENTICATE_MESSAGE: 3.1.5.1.2. `authenticate` is taken with its MIC field as zeros.
///
/// `None` when the message has no room for one.
pub(super) fn mic(
    session_key: &Key,
    negotiate: &[u8],
    challenge: &[u8],
    authenticate: &[u8],
) -> Option<[u8; 16]> {
    let (before, after) = (authenticate.get(..MIC.start)?, authenticate.get(MIC.end..)?);
    Some(hmac_md5(&session_key[..], &[negotiate, challenge, before, &[0; 16], after]))
}

/// Who signs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What signs a SPNEGO list of mechanisms: GSS_GetMIC with the keys of an NTLM session, 3.4.4.2.
///
/// Each side signs exactly one message, so that the sequence number is 0 and RC4 stands at its beginning.
#[derive(Clone)]
pub(crate) struct MessageKeys {
    session_key: Key,
    flags: NegotiateFlags,
}

impl MessageKeys {
    /// `None` without the extended session security: the signatures of the first version are of no use to
    /// anyone.
    pub(super) fn new(session_key: &Key, flags: NegotiateFlags) -> Option<MessageKeys> {
        let extended = flags.contains(NegotiateFlags::EXTENDED_SESSIONSECURITY);
        extended.then(|| MessageKeys { session_key: session_key.clone(), flags })
    }

    /// SIGNKEY: 3.4.5.2.
    fn signing_key(&self, side: Side) -> Key {
        let magic: &[u8] = match side {
            Side::Client => b"session key to client-to-server signing key magic constant\0",
            Side::Server => b"session key to server-to-client signing key magic constant\0",
        };
        Zeroizing::new(md5(&[&self.session_key[..], magic]))
    }

    /// SEALKEY: 3.4.5.3.
    fn sealing_key(&self, side: Side) -> Key {
        let magic: &[u8] = match side {
            Side::Client => b"session key to client-to-server sealing key magic constant\0",
            Side::Server => b"session key to server-to-client sealing key magic constant\0",
        };
        let length = if self.flags.contains(NegotiateFlags::KEY_128) {
            16
        } else if self.flags.contains(NegotiateFlags::KEY_56) {
            7
        } else {
            5
        };
        Zeroizing::new(md5(&[&self.session_key[..length], magic]))
    }

    /// MAC: 3.4.4.2, an NTLMSSP_MESSAGE_SIGNATURE (2.2.2.9.2) with the sequence number 0.
    pub(crate) fn sign(&self, side: Side, message: &[u8]) -> [u8; 16] {
        let mut signature = [0; 16];
        signature[0] = 1;
        let code = hmac_md5(&self.signing_key(side)[..], &[&[0; 4], message]);
        signature[4..12].copy_from_slice(&code[..8]);
        if self.flags.contains(NegotiateFlags::KEY_EXCH) {
            rc4(&self.sealing_key(side)[..], &mut signature[4..12]);
        }
        signature
    }

    /// Whether that side signed this message so.
    pub(crate) fn verify(&self, side: Side, message: &[u8], signature: &[u8]) -> bool {
        crate::crypto::equal(&self.sign(side, message), signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Utf16;
    use crate::crypto::hex;

    fn key(text: &str) -> Key {
        Zeroizing::new(hex(text).try_into().unwrap())
    }

    fn units(text: &str) -> Vec<u16> {
        Utf16::from_str(text).0
    }

    // 4.2.1 and 4.2.4: the common values.
    const SERVER_CHALLENGE: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
    const AV_PAIRS: &str = "02000c0044006f006d00610069006e00 01000c00530065007200760065007200 00000000";
    const FLAGS: NegotiateFlags = NegotiateFlags(0xe28a_8233);

    // 4.2.2.1.2 and 4.2.4.1.1.
    #[test]
    fn published_hashes() {
        assert_eq!(nt_hash("Password")[..], hex("a4f49c406510bdcab6824ee7c30fd852"));
        assert_eq!(nt_hash("")[..], hex("31d6cfe0d16ae931b73c59d7e0c089c0"));
        let key = response_key(&nt_hash("Password"), &units("User"), &units("Domain"));
        assert_eq!(key[..], hex("0c868a403bfd7a93a3001ef22ef02e3f"));
        assert_eq!(key, response_key(&nt_hash("Password"), &units("uSER"), &units("Domain")));
        assert_ne!(key, response_key(&nt_hash("Password"), &units("User"), &units("DOMAIN")));
    }

    // 4.2.4.1.3, 4.2.4.2.2, 4.2.4.1.2 and 4.2.4.2.3.
    #[test]
    fn published_response() {
        let key = response_key(&nt_hash("Password"), &units("User"), &units("Domain"));
        let (response, base) = respond(&key, SERVER_CHALLENGE, [0xaa; 8], FileTime::ZERO, &hex(AV_PAIRS));
        assert_eq!(response[..16], hex("68cd0ab851e51c96aabc927bebef6a1c"));
        assert_eq!(base[..], hex("8de40ccadbc14a82f15cb0ad0de95ca3"));

        let parsed = NtlmV2Response::parse(&response).unwrap();
        assert_eq!(parsed.verify(&key, SERVER_CHALLENGE), Some(base.clone()));
        assert_eq!(parsed.verify(&key, [0; 8]), None);
        assert!(parsed.av_pairs().is_ok());

        let mut encrypted = [0x55; 16];
        rc4(&base[..], &mut encrypted);
        assert_eq!(encrypted[..], hex("c5dad2544fc9799094ce1ce90bc9d03e"));
        let mut message = AuthenticateMessage {
            lm_response: &[],
            nt_response: &response,
            domain: Utf16::default(),
            user: Utf16::default(),
            workstation: Utf16::default(),
            encrypted_session_key: &encrypted,
            flags: FLAGS,
        };
        assert_eq!(exported_session_key(&base, &message).unwrap()[..], [0x55; 16]);
        message.encrypted_session_key = &encrypted[..15];
        assert!(exported_session_key(&base, &message).is_err());
        message.encrypted_session_key = &[];
        assert!(exported_session_key(&base, &message).is_err());
        message.flags = FLAGS.without(NegotiateFlags::KEY_EXCH);
        assert_eq!(exported_session_key(&base, &message).unwrap(), base);
    }

    // 4.2.4.4: the keys and the signature (there over the plaintext "Plaintext", whose sealing takes the
    // first 18 bytes of RC4; ours is the checksum before that, and the keys).
    #[test]
    fn published_message_keys() {
        let keys = MessageKeys::new(&key("55555555555555555555555555555555"), FLAGS).unwrap();
        assert_eq!(keys.signing_key(Side::Client)[..], hex("4788dc861b4782f35d43fd98fe1a2d39"));
        assert_eq!(keys.sealing_key(Side::Client)[..], hex("59f600973cc4960a25480a7c196e4c58"));

        let plaintext = hex("50006c00610069006e007400650078007400");
        let code = hmac_md5(&keys.signing_key(Side::Client)[..], &[&[0; 4], &plaintext]);
        let mut stream = plaintext.clone();
        stream.extend(&code[..8]);
        rc4(&keys.sealing_key(Side::Client)[..], &mut stream);
        assert_eq!(stream[..18], hex("54e50165bf1936dc996020c1811b0f06fb5f"));
        assert_eq!(stream[18..], hex("7fb38ec5c55d4976"));
        assert!(MessageKeys::new(&Key::default(), NegotiateFlags::SIGN).is_none());
    }

    // Microsoft's blog, "The anatomy of signing and cryptographic keys": the mechListMICs of the 3.1.1
    // example, whose session key it gives.
    #[test]
    fn published_mech_list_mics() {
        let keys =
            MessageKeys::new(&key("270E1BA896585EEB7AF3472D3B4C75A7"), NegotiateFlags(0xE288_8215)).unwrap();
        let mech_types = hex("30 0C  06 0A 2B06010401823702020A");
        assert!(keys.verify(Side::Client, &mech_types, &hex("0100000063775A9A5FD97F0600000000")));
        assert!(keys.verify(Side::Server, &mech_types, &hex("010000003B453CDC3524164200000000")));
        assert!(!keys.verify(Side::Server, &mech_types, &hex("0100000063775A9A5FD97F0600000000")));
        assert!(!keys.verify(Side::Client, &mech_types, &[]));
    }

    #[test]
    fn responses_of_the_first_version_are_none() {
        for length in [0, 1, 16, 24, 43] {
            assert!(NtlmV2Response::parse(&[1; 44][..length]).is_none());
        }
        assert!(NtlmV2Response::parse(&[1; 44]).is_some());
        assert!(NtlmV2Response::parse(&[2; 100]).is_none());
    }

    #[test]
    fn capitals() {
        for (unit, capital) in
            [('a', 'A'), ('Z', 'Z'), ('é', 'É'), ('ß', 'ß'), ('ı', 'ı'), ('ſ', 'ſ'), ('ÿ', 'Ÿ')]
        {
            assert_eq!(upcase(unit as u16), capital as u16, "{unit}");
        }
        assert_eq!(upcase(0xD83D), 0xD83D);
    }
}
