//! The three messages of NTLM: MS-NLMP 2.2.1, with the structures of 2.2.2.

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

use crate::auth::spnego::NTLMSSP_SIGNATURE;
use crate::dtyp::FileTime;
use crate::flags::flags;
use crate::parse::{array, skip, take, u16, u32, utf16};
use crate::{Malformed, Utf16};

flags! {
    /// NegotiateFlags: 2.2.2.5. Those that have a meaning between a modern client and us.
    pub struct NegotiateFlags: u32 {
        /// Strings are UTF-16.
        UNICODE = 0x0000_0001;
        /// Strings are in the OEM code page.
        OEM = 0x0000_0002;
        /// The client asks for a TargetName.
        REQUEST_TARGET = 0x0000_0004;
        /// Messages will be signed.
        SIGN = 0x0000_0010;
        /// Messages will be encrypted.
        SEAL = 0x0000_0020;
        /// NTLM itself.
        NTLM = 0x0000_0200;
        /// The client is anonymous.
        ANONYMOUS = 0x0000_0800;
        /// Signatures are always present, if only as dummies.
        ALWAYS_SIGN = 0x0000_8000;
        /// TargetName is a domain.
        TARGET_TYPE_DOMAIN = 0x0001_0000;
        /// TargetName is a server.
        TARGET_TYPE_SERVER = 0x0002_0000;
        /// The signatures and keys of NTLM's second session security.
        EXTENDED_SESSIONSECURITY = 0x0008_0000;
        /// The challenge has a TargetInfo.
        TARGET_INFO = 0x0080_0000;
        /// The messages have a Version.
        VERSION = 0x0200_0000;
        /// Keys of 128 bits.
        KEY_128 = 0x2000_0000;
        /// The client chooses the session key and sends it, encrypted.
        KEY_EXCH = 0x4000_0000;
        /// Keys of 56 bits.
        KEY_56 = 0x8000_0000;
    }

    /// MsvAvFlags: 2.2.2.1.
    pub struct AvFlags: u32 {
        /// The account's authentication is constrained.
        CONSTRAINED = 0x0000_0001;
        /// The AUTHENTICATE_MESSAGE has a MIC.
        MIC_PROVIDED = 0x0000_0002;
        /// The target name comes from an untrusted source.
        UNTRUSTED_TARGET_NAME = 0x0000_0004;
    }
}

/// MessageType: 2.2.1.
const NEGOTIATE: u32 = 1;
const CHALLENGE: u32 = 2;
const AUTHENTICATE: u32 = 3;

/// Version (2.2.2.10) of what we send: an invented 6.1, build 0, revision 15. It is for debugging only.
const VERSION: [u8; 8] = [6, 1, 0, 0, 0, 0, 0, 15];

/// Where the MIC stands in an AUTHENTICATE_MESSAGE, and its length.
pub(super) const MIC: std::ops::Range<usize> = 72..88;

/// Reads the signature and the type; gives the rest.
fn header(message: &[u8], expected: u32) -> Result<&[u8], Malformed> {
    let (rest, (signature, kind)) = (array::<8>, u32).parse(message)?;
    if &signature != NTLMSSP_SIGNATURE {
        return Err(Malformed::ProtocolId);
    }
    if kind != expected {
        return Err(Malformed::Value("MessageType"));
    }
    Ok(rest)
}

/// Len, MaxLen and BufferOffset of a payload field, resolved: 2.2.1.
fn payload<'a>(message: &'a [u8], fields: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    let (rest, (length, _max, offset)) = (u16, u16, u32).parse(fields)?;
    if length == 0 {
        // An absent field's offset means nothing, and some clients leave it at zero.
        return Ok((rest, &[]));
    }
    let start = usize::try_from(offset).map_err(|_| Malformed::Offset)?;
    let end = start.checked_add(usize::from(length)).ok_or(Malformed::Offset)?;
    Ok((rest, message.get(start..end).ok_or(Malformed::Offset)?))
}

/// NEGOTIATE_MESSAGE: 2.2.1.1. The names that a client may send along are not read: nothing depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiateMessage {
    /// What the client can do.
    pub flags: NegotiateFlags,
}

impl NegotiateMessage {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When it is no NEGOTIATE_MESSAGE or ends before its flags.
    pub fn parse(message: &[u8]) -> Result<NegotiateMessage, Malformed> {
        let (_, flags) = u32(header(message, NEGOTIATE)?)?;
        Ok(NegotiateMessage { flags: NegotiateFlags(flags) })
    }

    /// The message as it goes on the wire, with empty names.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(40);
        out.put_slice(NTLMSSP_SIGNATURE);
        out.put_u32_le(NEGOTIATE);
        out.put_u32_le(self.flags.bits());
        out.put_bytes(0, 16); // DomainNameFields, WorkstationFields
        out.put_slice(&VERSION);
        out.freeze()
    }
}

/// CHALLENGE_MESSAGE: 2.2.1.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengeMessage {
    /// What the server chose.
    pub flags: NegotiateFlags,
    /// The random challenge.
    pub server_challenge: [u8; 8],
    /// The name of the server. In UTF-16 even where the flags say OEM: it is encoded accordingly.
    pub target_name: Utf16,
    /// The AV pairs, encoded, with the MsvAvEOL at their end.
    pub target_info: Bytes,
}

impl ChallengeMessage {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When it is no CHALLENGE_MESSAGE, or a field lies outside.
    pub fn parse(message: &[u8]) -> Result<ChallengeMessage, Malformed> {
        let rest = header(message, CHALLENGE)?;
        let (rest, target_name) = payload(message, rest)?;
        let (rest, (flags, server_challenge, ())) = (u32, array::<8>, skip(8)).parse(rest)?;
        let flags = NegotiateFlags(flags);
        let target_info =
            if flags.contains(NegotiateFlags::TARGET_INFO) { payload(message, rest)?.1 } else { &[] };
        Ok(ChallengeMessage {
            flags,
            server_challenge,
            target_name: text(target_name, flags)?,
            target_info: Bytes::copy_from_slice(target_info),
        })
    }

    /// The message as it goes on the wire.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        const PAYLOAD: usize = 56;
        let name = encode_text(&self.target_name, self.flags);
        let mut out = BytesMut::with_capacity(PAYLOAD + name.len() + self.target_info.len());
        out.put_slice(NTLMSSP_SIGNATURE);
        out.put_u32_le(CHALLENGE);
        put_fields(&mut out, &name, PAYLOAD);
        out.put_u32_le(self.flags.bits());
        out.put_slice(&self.server_challenge);
        out.put_bytes(0, 8);
        put_fields(&mut out, &self.target_info, PAYLOAD + name.len());
        out.put_slice(if self.flags.contains(NegotiateFlags::VERSION) { &VERSION } else { &[0; 8] });
        out.put_slice(&name);
        out.put_slice(&self.target_info);
        out.freeze()
    }
}

/// AUTHENTICATE_MESSAGE: 2.2.1.3. It borrows from the bytes that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticateMessage<'a> {
    /// LmChallengeResponse.
    pub lm_response: &'a [u8],
    /// NtChallengeResponse.
    pub nt_response: &'a [u8],
    /// DomainName.
    pub domain: Utf16,
    /// UserName.
    pub user: Utf16,
    /// Workstation.
    pub workstation: Utf16,
    /// EncryptedRandomSessionKey.
    pub encrypted_session_key: &'a [u8],
    /// What both sides agreed on.
    pub flags: NegotiateFlags,
}

/// Code units that a user's or domain's name may have. Windows' longest is a UPN of 1,024, of which no part
/// that anyone has is near.
const NAME_MAX: usize = 1024;

impl<'a> AuthenticateMessage<'a> {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When it is no AUTHENTICATE_MESSAGE, a field lies outside, or a name is too long.
    pub fn parse(message: &'a [u8]) -> Result<AuthenticateMessage<'a>, Malformed> {
        let rest = header(message, AUTHENTICATE)?;
        let (rest, lm_response) = payload(message, rest)?;
        let (rest, nt_response) = payload(message, rest)?;
        let (rest, domain) = payload(message, rest)?;
        let (rest, user) = payload(message, rest)?;
        let (rest, workstation) = payload(message, rest)?;
        let (rest, encrypted_session_key) = payload(message, rest)?;
        let (_, flags) = u32(rest)?;
        let flags = NegotiateFlags(flags);
        Ok(AuthenticateMessage {
            lm_response,
            nt_response,
            domain: text(domain, flags)?,
            user: text(user, flags)?,
            workstation: text(workstation, flags)?,
            encrypted_session_key,
            flags,
        })
    }

    /// The message as it goes on the wire, with a MIC of zeros (bytes 72 to 88), to be filled in over the
    /// whole.
    #[must_use]
    pub fn encode(&self) -> BytesMut {
        let fields = [
            self.lm_response,
            self.nt_response,
            &encode_text(&self.domain, self.flags),
            &encode_text(&self.user, self.flags),
            &encode_text(&self.workstation, self.flags),
            self.encrypted_session_key,
        ];
        let mut out = BytesMut::new();
        out.put_slice(NTLMSSP_SIGNATURE);
        out.put_u32_le(AUTHENTICATE);
        let mut offset = MIC.end;
        for field in fields {
            put_fields(&mut out, field, offset);
            offset += field.len();
        }
        out.put_u32_le(self.flags.bits());
        out.put_slice(&VERSION);
        out.put_bytes(0, MIC.len());
        fields.iter().for_each(|field| out.put_slice(field));
        out
    }
}

fn put_fields(out: &mut BytesMut, field: &[u8], offset: usize) {
    out.put_u16_le(field.len() as u16);
    out.put_u16_le(field.len() as u16);
    out.put_u32_le(offset as u32);
}

/// A name of the payload. In the OEM code page, whichever it is, we take the bytes for Latin-1: ASCII is
/// right then, and only Windows 9x sent anything else.
fn text(bytes: &[u8], flags: NegotiateFlags) -> Result<Utf16, Malformed> {
    let text = if flags.contains(NegotiateFlags::UNICODE) {
        utf16(bytes)?
    } else {
        Utf16(bytes.iter().map(|&byte| u16::from(byte)).collect())
    };
    if text.len() > NAME_MAX { Err(Malformed::TooMany("characters of a name")) } else { Ok(text) }
}

fn encode_text(text: &Utf16, flags: NegotiateFlags) -> Vec<u8> {
    if flags.contains(NegotiateFlags::UNICODE) {
        text.iter().flat_map(|unit| unit.to_le_bytes()).collect()
    } else {
        text.iter().map(|&unit| u8::try_from(unit).unwrap_or(b'?')).collect()
    }
}

/// AvId: 2.2.2.1.
const AV_EOL: u16 = 0;
const AV_NB_COMPUTER_NAME: u16 = 1;
const AV_NB_DOMAIN_NAME: u16 = 2;
const AV_DNS_COMPUTER_NAME: u16 = 3;
const AV_DNS_DOMAIN_NAME: u16 = 4;
const AV_FLAGS: u16 = 6;
const AV_TIMESTAMP: u16 = 7;

/// Who the server says it is: the names in a CHALLENGE_MESSAGE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetInfo {
    /// The NetBIOS name of the computer: at most 15 characters, customarily in capitals.
    pub netbios_computer: String,
    /// The NetBIOS name of its domain; for a server on its own that of the computer, or a workgroup's.
    pub netbios_domain: String,
    /// The DNS name of the computer, or what stands for it.
    pub dns_computer: String,
    /// The DNS name of its domain; may be empty.
    pub dns_domain: String,
}

impl TargetInfo {
    /// The AV pairs of a challenge at the time `now`.
    pub(super) fn encode(&self, now: FileTime) -> Bytes {
        let mut out = BytesMut::new();
        for (id, name) in [
            (AV_NB_DOMAIN_NAME, &self.netbios_domain),
            (AV_NB_COMPUTER_NAME, &self.netbios_computer),
            (AV_DNS_DOMAIN_NAME, &self.dns_domain),
            (AV_DNS_COMPUTER_NAME, &self.dns_computer),
        ] {
            // The names are our own settings; the bound keeps a strange one from breaking the length's 16
            // bits.
            let units: Vec<u8> = name.encode_utf16().take(255).flat_map(u16::to_le_bytes).collect();
            put_pair(&mut out, id, &units);
        }
        put_pair(&mut out, AV_TIMESTAMP, &now.0.to_le_bytes());
        put_pair(&mut out, AV_EOL, &[]);
        out.freeze()
    }
}

fn put_pair(out: &mut BytesMut, id: u16, value: &[u8]) {
    out.put_u16_le(id);
    out.put_u16_le(value.len() as u16);
    out.put_slice(value);
}

/// What we take from the AV pairs of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AvPairs {
    /// MsvAvFlags.
    pub flags: AvFlags,
    /// MsvAvTimestamp.
    pub timestamp: Option<FileTime>,
}

impl AvPairs {
    /// Reads pairs up to MsvAvEOL, or to the end of the bytes if there is none. Those that we do not use
    /// (names, channel bindings, target name, single host) are passed over.
    ///
    /// # Errors
    ///
    /// When a pair is longer than what is there, or one of those that we use has a wrong length.
    pub fn parse(mut rest: &[u8]) -> Result<AvPairs, Malformed> {
        let mut pairs = AvPairs::default();
        while !rest.is_empty() {
            let (after, (id, length)) = (u16, u16).parse(rest)?;
            if id == AV_EOL {
                break;
            }
            let (after, value) = take(usize::from(length))(after)?;
            match id {
                AV_FLAGS => {
                    let bytes = value.try_into().map_err(|_| Malformed::Length)?;
                    pairs.flags = AvFlags(u32::from_le_bytes(bytes));
                }
                AV_TIMESTAMP => {
                    let bytes = value.try_into().map_err(|_| Malformed::Length)?;
                    pairs.timestamp = Some(FileTime(u64::from_le_bytes(bytes)));
                }
                _ => {}
            }
            rest = after;
        }
        Ok(pairs)
    }

    /// The pairs of a challenge as a client gives them back: its flags added before the end.
    pub(super) fn add_flags(target_info: &[u8], flags: AvFlags) -> Bytes {
        let mut out = BytesMut::with_capacity(target_info.len() + 12);
        let mut rest = target_info;
        // What does not parse is left away; the server that sent it will hardly miss it.
        while let Ok((after, (id, length))) = (u16, u16).parse(rest) {
            let Ok((after, value)) = take(usize::from(length))(after) else { break };
            if id == AV_EOL {
                break;
            }
            if id != AV_FLAGS {
                put_pair(&mut out, id, value);
            }
            rest = after;
        }
        put_pair(&mut out, AV_FLAGS, &flags.bits().to_le_bytes());
        put_pair(&mut out, AV_EOL, &[]);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;
    use proptest::prelude::*;

    // 4.2.4.3, as the specification prints them.
    const CHALLENGE_BYTES: &str = "
        4e544c4d53535000 02000000  0c000c0038000000  33828ae2  0123456789abcdef  0000000000000000
        2400240044000000  060070170000000f
        530065007200760065007200
        02000c0044006f006d00610069006e00 01000c00530065007200760065007200 00000000";

    const AUTHENTICATE_BYTES: &str = "
        4e544c4d53535000 03000000  180018006c000000  5400540084000000  0c000c0048000000  0800080054000000
        100010005c000000  10001000d8000000  358288e2  0501280a0000000f
        44006f006d00610069006e00  5500730065007200  43004f004d0050005500540045005200
        86c35097ac9cec102554764a57cccc19aaaaaaaaaaaaaaaa
        68cd0ab851e51c96aabc927bebef6a1c
        0101000000000000 0000000000000000 aaaaaaaaaaaaaaaa 00000000
        02000c0044006f006d00610069006e00 01000c00530065007200760065007200 00000000 00000000
        c5dad2544fc9799094ce1ce90bc9d03e";

    #[test]
    fn published_challenge() {
        let bytes = hex(CHALLENGE_BYTES);
        let challenge = ChallengeMessage::parse(&bytes).unwrap();
        assert_eq!(challenge.server_challenge[..], hex("0123456789abcdef"));
        assert_eq!(challenge.target_name.to_string(), "Server");
        assert_eq!(challenge.target_info[..], bytes[68..]);
        let mut encoded = challenge.encode().to_vec();
        encoded[48..56].copy_from_slice(&bytes[48..56]); // another version
        assert_eq!(encoded, bytes);
        for length in 0..bytes.len() {
            assert!(ChallengeMessage::parse(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn published_authenticate() {
        let bytes = hex(AUTHENTICATE_BYTES);
        let message = AuthenticateMessage::parse(&bytes).unwrap();
        assert_eq!(message.user.to_string(), "User");
        assert_eq!(message.domain.to_string(), "Domain");
        assert_eq!(message.workstation.to_string(), "COMPUTER");
        assert_eq!((message.lm_response.len(), message.nt_response.len()), (24, 84));
        assert_eq!(message.encrypted_session_key, hex("c5dad2544fc9799094ce1ce90bc9d03e"));
        assert_eq!(AuthenticateMessage::parse(&message.encode()).unwrap(), message);
        for length in 0..bytes.len() {
            assert!(AuthenticateMessage::parse(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn negotiate() {
        let bytes =
            hex("4E544C4D53535000 01000000 978208E2 0000000000000000 0000000000000000 060380250000000F");
        let message = NegotiateMessage::parse(&bytes).unwrap();
        assert!(
            message.flags.contains(NegotiateFlags::KEY_EXCH | NegotiateFlags::SIGN | NegotiateFlags::UNICODE)
        );
        assert_eq!(NegotiateMessage::parse(&message.encode()), Ok(message));
        // Windows 9x ends after the flags.
        assert_eq!(NegotiateMessage::parse(&bytes[..16]), Ok(message));
        for length in 0..16 {
            assert!(NegotiateMessage::parse(&bytes[..length]).is_err());
        }
        assert_eq!(AuthenticateMessage::parse(&bytes), Err(Malformed::Value("MessageType")));
    }

    #[test]
    fn oem_names() {
        let flags = NegotiateFlags::OEM;
        let message = AuthenticateMessage {
            lm_response: &[],
            nt_response: &[],
            domain: Utf16::from_str("WG"),
            user: Utf16::from_str("jos\u{e9}"),
            workstation: Utf16::default(),
            encrypted_session_key: &[],
            flags,
        };
        let bytes = message.encode();
        assert!(bytes.ends_with(b"WGjos\xe9"));
        assert_eq!(AuthenticateMessage::parse(&bytes).unwrap(), message);
    }

    #[test]
    fn offsets_stay_inside() {
        let mut bytes = hex(AUTHENTICATE_BYTES);
        // UserNameFields: an odd length, a length beyond, an offset beyond, the sum beyond 32 bits.
        for fields in ["0700070054000000", "ffffffff54000000", "080008000000ffff", "ffffffffffffffff"] {
            bytes[36..44].copy_from_slice(&hex(fields));
            assert!(AuthenticateMessage::parse(&bytes).is_err(), "{fields}");
        }
        // Absent, with an offset of no meaning.
        bytes[36..44].copy_from_slice(&hex("00000000ffffffff"));
        assert!(AuthenticateMessage::parse(&bytes).unwrap().user.is_empty());
    }

    #[test]
    fn av_pairs() {
        let target = TargetInfo {
            netbios_computer: "SHOAL".into(),
            netbios_domain: "WORKGROUP".into(),
            dns_computer: "shoal".into(),
            dns_domain: String::new(),
        };
        let now = FileTime(0x01D0_AECB_ADF5_A1A1);
        let pairs = target.encode(now);
        assert_eq!(AvPairs::parse(&pairs), Ok(AvPairs { flags: AvFlags::EMPTY, timestamp: Some(now) }));
        let added = AvPairs::add_flags(&pairs, AvFlags::MIC_PROVIDED);
        assert_eq!(
            AvPairs::parse(&added),
            Ok(AvPairs { flags: AvFlags::MIC_PROVIDED, timestamp: Some(now) })
        );
        assert_eq!(added.len(), pairs.len() + 8);
        // Without an end it ends with the bytes; cut within a pair it is refused.
        assert!(AvPairs::parse(&pairs[..pairs.len() - 4]).is_ok());
        assert_eq!(AvPairs::parse(&[]), Ok(AvPairs::default()));
        assert!(AvPairs::parse(&pairs[..pairs.len() - 5]).is_err());
        assert!(AvPairs::parse(&hex("0600 0200 0200 00000000")).is_err());
    }

    proptest! {
        #[test]
        fn reads_any_bytes(kind in 1u8..4, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut message = NTLMSSP_SIGNATURE.to_vec();
            message.extend([kind, 0, 0, 0]);
            message.extend(&bytes);
            let _ = NegotiateMessage::parse(&message);
            let _ = ChallengeMessage::parse(&message);
            let _ = AuthenticateMessage::parse(&message);
            let _ = AvPairs::parse(&bytes);
            let _ = AvPairs::add_flags(&bytes, AvFlags::EMPTY);
        }

        #[test]
        fn reads_changed_messages(at in 0usize..232, byte in any::<u8>()) {
            let mut bytes = hex(AUTHENTICATE_BYTES);
            bytes[at] = byte;
            let _ = AuthenticateMessage::parse(&bytes);
        }
    }
}
