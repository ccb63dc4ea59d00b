//! Negotiate contexts (3.1.1): 2.2.3.1 in requests, 2.2.4.1 in responses. Both have the same forms.

use crate::Malformed;
use crate::encode::{pad, patch_u16, put_u16s, put_utf16};
use crate::parse::{Utf16, buffer, take, u16, u16s, u32, utf16};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// The most contexts that we read in one message; 8 are defined.
const CONTEXTS_MAX: u16 = 64;

const PREAUTH_INTEGRITY: u16 = 0x0001;
const ENCRYPTION: u16 = 0x0002;
const COMPRESSION: u16 = 0x0003;
const NETNAME: u16 = 0x0005;
const TRANSPORT: u16 = 0x0006;
const RDMA_TRANSFORM: u16 = 0x0007;
const SIGNING: u16 = 0x0008;

/// One negotiate context. The lists are in the sender's order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NegotiateContext {
    /// SMB2_PREAUTH_INTEGRITY_CAPABILITIES: 2.2.3.1.1.
    PreauthIntegrity {
        /// The hash algorithms; 1 is SHA-512.
        hash_algorithms: Vec<u16>,
        /// The sender's salt.
        salt: Bytes,
    },
    /// SMB2_ENCRYPTION_CAPABILITIES: 2.2.3.1.2.
    Encryption {
        /// The ciphers; 0 in a response: none in common.
        ciphers: Vec<u16>,
    },
    /// SMB2_COMPRESSION_CAPABILITIES: 2.2.3.1.3.
    Compression {
        /// 1 if chained compression is supported.
        flags: u32,
        /// The algorithms.
        algorithms: Vec<u16>,
    },
    /// SMB2_NETNAME_NEGOTIATE_CONTEXT_ID: 2.2.3.1.4. The server's name as the client has it.
    NetName(Utf16),
    /// SMB2_TRANSPORT_CAPABILITIES: 2.2.3.1.5.
    Transport {
        /// 1 if the transport's security makes encryption needless.
        flags: u32,
    },
    /// SMB2_RDMA_TRANSFORM_CAPABILITIES: 2.2.3.1.6.
    Rdma {
        /// The transforms.
        transforms: Vec<u16>,
    },
    /// SMB2_SIGNING_CAPABILITIES: 2.2.3.1.7.
    Signing {
        /// The algorithms: 0 HMAC-SHA256, 1 AES-CMAC, 2 AES-GMAC.
        algorithms: Vec<u16>,
    },
    /// One that we do not know; the server must ignore it.
    Other {
        /// The ContextType.
        kind: u16,
        /// The data.
        data: Bytes,
    },
}

impl NegotiateContext {
    /// The ContextType.
    pub fn kind(&self) -> u16 {
        match self {
            NegotiateContext::PreauthIntegrity { .. } => PREAUTH_INTEGRITY,
            NegotiateContext::Encryption { .. } => ENCRYPTION,
            NegotiateContext::Compression { .. } => COMPRESSION,
            NegotiateContext::NetName(_) => NETNAME,
            NegotiateContext::Transport { .. } => TRANSPORT,
            NegotiateContext::Rdma { .. } => RDMA_TRANSFORM,
            NegotiateContext::Signing { .. } => SIGNING,
            NegotiateContext::Other { kind, .. } => *kind,
        }
    }

    fn parse_data(kind: u16, message: &Bytes, data: &[u8]) -> Result<NegotiateContext, Malformed> {
        Ok(match kind {
            PREAUTH_INTEGRITY => {
                let (rest, (count, salt_length)) = (u16, u16).parse(data)?;
                let (rest, hash_algorithms) = list(count, "hash algorithms", rest)?;
                let (_, salt) = take(salt_length.into())(rest)?;
                NegotiateContext::PreauthIntegrity { hash_algorithms, salt: message.slice_ref(salt) }
            }
            ENCRYPTION => {
                let (rest, count) = u16(data)?;
                NegotiateContext::Encryption { ciphers: list(count, "ciphers", rest)?.1 }
            }
            COMPRESSION => {
                let (rest, (count, _padding, flags)) = (u16, u16, u32).parse(data)?;
                let (_, algorithms) = list(count, "compression algorithms", rest)?;
                NegotiateContext::Compression { flags, algorithms }
            }
            NETNAME => NegotiateContext::NetName(utf16(data)?),
            TRANSPORT => NegotiateContext::Transport { flags: u32(data)?.1 },
            RDMA_TRANSFORM => {
                let (rest, (count, _reserved1, _reserved2)) = (u16, u16, u32).parse(data)?;
                NegotiateContext::Rdma { transforms: list(count, "RDMA transforms", rest)?.1 }
            }
            SIGNING => {
                let (rest, count) = u16(data)?;
                NegotiateContext::Signing { algorithms: list(count, "signing algorithms", rest)?.1 }
            }
            _ => NegotiateContext::Other { kind, data: message.slice_ref(data) },
        })
    }

    fn encode_data(&self, out: &mut BytesMut) {
        match self {
            NegotiateContext::PreauthIntegrity { hash_algorithms, salt } => {
                out.put_u16_le(hash_algorithms.len() as u16);
                out.put_u16_le(salt.len() as u16);
                put_u16s(out, hash_algorithms);
                out.put_slice(salt);
            }
            NegotiateContext::Encryption { ciphers: list }
            | NegotiateContext::Signing { algorithms: list } => {
                out.put_u16_le(list.len() as u16);
                put_u16s(out, list);
            }
            NegotiateContext::Compression { flags, algorithms } => {
                out.put_u16_le(algorithms.len() as u16);
                out.put_u16_le(0);
                out.put_u32_le(*flags);
                put_u16s(out, algorithms);
            }
            NegotiateContext::NetName(name) => put_utf16(out, name),
            NegotiateContext::Transport { flags } => out.put_u32_le(*flags),
            NegotiateContext::Rdma { transforms } => {
                out.put_u16_le(transforms.len() as u16);
                out.put_u16_le(0);
                out.put_u32_le(0);
                put_u16s(out, transforms);
            }
            NegotiateContext::Other { data, .. } => out.put_slice(data),
        }
    }
}

// 2.2.3.1.1 and 2.2.3.1.7: the count "MUST be greater than zero". The other lists are held to the same.
fn list<'a>(count: u16, what: &'static str, input: &'a [u8]) -> Result<(&'a [u8], Vec<u16>), Malformed> {
    if count == 0 {
        return Err(Malformed::Missing(what));
    }
    Ok(u16s(count.into())(input)?)
}

/// The `count` contexts at `offset` of `message`, which may not begin before `least`.
pub(super) fn parse(
    message: &Bytes,
    offset: usize,
    count: u16,
    least: usize,
) -> Result<Vec<NegotiateContext>, Malformed> {
    if count > CONTEXTS_MAX {
        return Err(Malformed::TooMany("negotiate contexts"));
    }
    let mut contexts = Vec::new();
    let mut offset = offset;
    for index in 0..count {
        let head = buffer(message, offset, 8, least)?;
        let (_, (kind, length, _reserved)) = (u16, u16, u32).parse(&head[..])?;
        let start = offset + 8;
        let end = start + usize::from(length);
        let data = message.get(start..end).ok_or(Malformed::Offset)?;
        contexts.push(NegotiateContext::parse_data(kind, message, data)?);
        if index + 1 < count {
            // "Subsequent negotiate contexts MUST appear at the first 8-byte-aligned offset following the previous"
            // one; counted from the first, which need not be aligned itself for us to find them.
            offset += (8 + usize::from(length)).next_multiple_of(8);
        }
    }
    Ok(contexts)
}

/// Appends `contexts`, the first at once, which must be 8-byte aligned in the message; none behind the last.
pub(super) fn encode(contexts: &[NegotiateContext], out: &mut BytesMut) {
    let first = out.len();
    for context in contexts {
        pad(out, first, 8);
        out.put_u16_le(context.kind());
        let length_at = out.len();
        out.put_u16_le(0);
        out.put_u32_le(0);
        let start = out.len();
        context.encode_data(out);
        let length = out.len() - start;
        patch_u16(out, length_at, length as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(contexts: &[NegotiateContext]) {
        let mut out = BytesMut::zeroed(64);
        encode(contexts, &mut out);
        let message = out.freeze();
        assert_eq!(parse(&message, 64, contexts.len() as u16, 64).as_deref(), Ok(contexts));
        for length in 0..message.len() {
            let cut = parse(&message.slice(..length), 64, contexts.len() as u16, 64);
            assert!(cut.is_err(), "{length}");
        }
    }

    #[test]
    fn every_kind() {
        round_trip(&[
            NegotiateContext::PreauthIntegrity {
                hash_algorithms: vec![1],
                salt: Bytes::from_static(&[9; 32]),
            },
            NegotiateContext::Encryption { ciphers: vec![4, 3, 2, 1] },
            NegotiateContext::Compression { flags: 1, algorithms: vec![3, 4] },
            NegotiateContext::NetName("server".into()),
            NegotiateContext::Transport { flags: 1 },
            NegotiateContext::Rdma { transforms: vec![1, 2] },
            NegotiateContext::Signing { algorithms: vec![2, 1, 0] },
            NegotiateContext::Other { kind: 0x0100, data: Bytes::from_static(b"posix") },
        ]);
    }

    #[test]
    fn empty_lists_and_hostile_counts() {
        let parse_one = |kind: u16, data: &[u8]| {
            let mut out = BytesMut::zeroed(64);
            encode(&[NegotiateContext::Other { kind, data: Bytes::copy_from_slice(data) }], &mut out);
            parse(&out.freeze(), 64, 1, 64)
        };
        for kind in [PREAUTH_INTEGRITY, COMPRESSION, RDMA_TRANSFORM] {
            assert!(matches!(parse_one(kind, &[0; 8]), Err(Malformed::Missing(_))), "{kind}");
        }
        for kind in [ENCRYPTION, SIGNING] {
            assert!(matches!(parse_one(kind, &[0; 2]), Err(Malformed::Missing(_))), "{kind}");
        }
        for kind in [PREAUTH_INTEGRITY, ENCRYPTION, COMPRESSION, RDMA_TRANSFORM, SIGNING] {
            assert_eq!(parse_one(kind, &[0xFF; 20]), Err(Malformed::Truncated), "{kind}");
            assert_eq!(parse_one(kind, &[]), Err(Malformed::Truncated), "{kind}");
        }
        assert_eq!(parse_one(NETNAME, &[0x61]), Err(Malformed::Length));
        let message = Bytes::from_static(&[0; 128]);
        assert_eq!(parse(&message, 64, 0xFFFF, 64), Err(Malformed::TooMany("negotiate contexts")));
        assert_eq!(parse(&message, 64, 0, 64), Ok(vec![]));
    }
}
