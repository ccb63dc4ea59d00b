//! ACL and ACE: who may do what. MS-DTYP 2.4.4 and 2.4.5.

use bytes::{BufMut, BytesMut};

use super::Sid;
use crate::flags::flags;
use crate::fscc::access::AccessMask;
use crate::malformed::Malformed;

flags! {
    /// How an entry is inherited, and which accesses an audit entry watches: MS-DTYP 2.4.4.1.
    pub struct AceFlags: u8 {
        /// Files below inherit the entry.
        OBJECT_INHERIT = 0x01;
        /// Directories below inherit the entry.
        CONTAINER_INHERIT = 0x02;
        /// Those that inherit the entry do not pass it on.
        NO_PROPAGATE_INHERIT = 0x04;
        /// The entry is there to be inherited only; it does not rule the object that it stands on.
        INHERIT_ONLY = 0x08;
        /// The entry was inherited.
        INHERITED = 0x10;
        /// Audit what succeeds.
        SUCCESSFUL_ACCESS = 0x40;
        /// Audit what fails.
        FAILED_ACCESS = 0x80;
    }
}

/// What an entry says, by its AceType.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AceKind {
    /// ACCESS_ALLOWED_ACE (0) and what only adds conditions or object types to it is in `Other`.
    Allowed {
        /// The rights granted.
        mask: AccessMask,
        /// To whom.
        sid: Sid,
    },
    /// ACCESS_DENIED_ACE (1).
    Denied {
        /// The rights refused.
        mask: AccessMask,
        /// To whom.
        sid: Sid,
    },
    /// SYSTEM_AUDIT_ACE (2).
    Audit {
        /// The rights whose use is reported.
        mask: AccessMask,
        /// By whom.
        sid: Sid,
    },
    /// SYSTEM_MANDATORY_LABEL_ACE (17).
    MandatoryLabel {
        /// The label's policy.
        mask: AccessMask,
        /// The integrity level.
        sid: Sid,
    },
    /// Any other type (object, callback, resource attribute, ...), kept as it came.
    Other {
        /// AceType.
        kind: u8,
        /// All after the 4 bytes of ACE_HEADER.
        data: Vec<u8>,
    },
}

/// One entry of an access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ace {
    /// Inheritance and audit flags.
    pub flags: AceFlags,
    /// Type and content.
    pub kind: AceKind,
}

impl Ace {
    /// An entry that grants, with these flags.
    pub fn allow(sid: Sid, mask: AccessMask, flags: AceFlags) -> Ace {
        Ace { flags, kind: AceKind::Allowed { mask, sid } }
    }

    /// An entry that refuses, with these flags.
    pub fn deny(sid: Sid, mask: AccessMask, flags: AceFlags) -> Ace {
        Ace { flags, kind: AceKind::Denied { mask, sid } }
    }

    /// Bytes on the wire, a multiple of 4.
    pub fn encoded_len(&self) -> usize {
        match &self.kind {
            AceKind::Allowed { sid, .. }
            | AceKind::Denied { sid, .. }
            | AceKind::Audit { sid, .. }
            | AceKind::MandatoryLabel { sid, .. } => 8 + sid.encoded_len(),
            AceKind::Other { data, .. } => 4 + data.len().next_multiple_of(4),
        }
    }

    /// Reads the entry at the start of `input`; gives it and what follows. Bytes of the entry behind its SID (padding
    /// that some clients send) are dropped.
    ///
    /// Errors: `Truncated`; `Value` if AceSize is no multiple of 4 or too small for the type; the SID's.
    pub fn parse(input: &[u8]) -> Result<(Ace, &[u8]), Malformed> {
        let (&[kind, flags, a, b], _) = input.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        let size = usize::from(u16::from_le_bytes([a, b]));
        if size < 4 || size % 4 != 0 {
            return Err(Malformed::Value("ACE size"));
        }
        let (ace, rest) = input.split_at_checked(size).ok_or(Malformed::Truncated)?;
        let data = &ace[4..];
        let kind = match kind {
            0 | 1 | 2 | 17 => {
                let (&mask, sid) = data.split_first_chunk::<4>().ok_or(Malformed::Value("ACE size"))?;
                let mask = AccessMask(u32::from_le_bytes(mask));
                let (sid, _) = Sid::parse(sid)?;
                match kind {
                    0 => AceKind::Allowed { mask, sid },
                    1 => AceKind::Denied { mask, sid },
                    2 => AceKind::Audit { mask, sid },
                    _ => AceKind::MandatoryLabel { mask, sid },
                }
            }
            kind => AceKind::Other { kind, data: data.to_vec() },
        };
        Ok((Ace { flags: AceFlags(flags), kind }, rest))
    }

    /// Appends the entry.
    pub fn encode(&self, out: &mut BytesMut) {
        let (kind, body) = match &self.kind {
            AceKind::Allowed { mask, sid } => (0, Ok((mask, sid))),
            AceKind::Denied { mask, sid } => (1, Ok((mask, sid))),
            AceKind::Audit { mask, sid } => (2, Ok((mask, sid))),
            AceKind::MandatoryLabel { mask, sid } => (17, Ok((mask, sid))),
            AceKind::Other { kind, data } => (*kind, Err(data)),
        };
        out.put_u8(kind);
        out.put_u8(self.flags.0);
        out.put_u16_le(self.encoded_len() as u16);
        match body {
            Ok((mask, sid)) => {
                out.put_u32_le(mask.0);
                sid.encode(out);
            }
            Err(data) => {
                out.put_slice(data);
                out.put_bytes(0, data.len().next_multiple_of(4) - data.len());
            }
        }
    }
}

/// An access control list. An empty one grants nothing; one that is absent grants all (MS-DTYP 2.5.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// AclRevision: 2, or 4 if entries of object types stand in it.
    pub revision: u8,
    /// The entries, in the order in which they rule.
    pub aces: Vec<Ace>,
}

impl Acl {
    /// Bytes of the header.
    pub const HEADER: usize = 8;

    /// The most bytes that AclSize can state.
    pub const LEN_MAX: usize = u16::MAX as usize;

    /// A list of revision 2.
    pub fn new(aces: Vec<Ace>) -> Acl {
        Acl { revision: 2, aces }
    }

    /// Bytes on the wire. A list above `LEN_MAX` cannot be encoded; `encode` then leaves out the last entries.
    pub fn encoded_len(&self) -> usize {
        Acl::HEADER + self.aces.iter().map(Ace::encoded_len).sum::<usize>()
    }

    /// Reads the list at the start of `input`.
    ///
    /// Errors: `Truncated`; `Value` for an unknown revision, or a size below the header's; `TooMany` if the count of
    /// entries cannot fit into AclSize (so nothing is allocated for a count alone); the entries'.
    pub fn parse(input: &[u8]) -> Result<Acl, Malformed> {
        let (&[revision, _, a, b, c, d, _, _], _) =
            input.split_first_chunk::<8>().ok_or(Malformed::Truncated)?;
        if !(2..=4).contains(&revision) {
            return Err(Malformed::Value("ACL revision"));
        }
        let size = usize::from(u16::from_le_bytes([a, b]));
        if size < Acl::HEADER {
            return Err(Malformed::Value("ACL size"));
        }
        let mut rest = &input.get(..size).ok_or(Malformed::Truncated)?[Acl::HEADER..];
        let count = usize::from(u16::from_le_bytes([c, d]));
        if count > rest.len() / 4 {
            return Err(Malformed::TooMany("ACEs"));
        }
        let mut aces = Vec::with_capacity(count);
        for _ in 0..count {
            let (ace, after) = Ace::parse(rest)?;
            aces.push(ace);
            rest = after;
        }
        Ok(Acl { revision, aces })
    }

    /// Appends the list. Entries that would take it above 65,535 bytes are left out.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u8(self.revision);
        out.put_u8(0);
        out.put_u32_le(0); // AclSize and AceCount, below
        out.put_u16_le(0);
        let mut count = 0_u16;
        for ace in &self.aces {
            if out.len() - start + ace.encoded_len() > Acl::LEN_MAX {
                break;
            }
            ace.encode(out);
            count += 1;
        }
        let size = (out.len() - start) as u16;
        out[start + 2..start + 4].copy_from_slice(&size.to_le_bytes());
        out[start + 4..start + 6].copy_from_slice(&count.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KNOWN: [u8; 28] = [
        2, 0, 0x1c, 0, 1, 0, 0, 0, // revision, size, count
        0, 3, 0x14, 0, // allowed, object and container inherit, size
        0xff, 0x01, 0x1f, 0x00, // full access
        1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, // everyone
    ];

    #[test]
    fn known_bytes() {
        let acl = Acl::parse(&KNOWN).unwrap();
        let flags = AceFlags::OBJECT_INHERIT | AceFlags::CONTAINER_INHERIT;
        assert_eq!(acl, Acl::new(vec![Ace::allow(Sid::everyone(), AccessMask(0x001f_01ff), flags)]));
        let mut out = BytesMut::new();
        acl.encode(&mut out);
        assert_eq!(out[..], KNOWN);
    }

    #[test]
    fn cut_at_every_length() {
        for length in 0..KNOWN.len() {
            assert_eq!(Acl::parse(&KNOWN[..length]), Err(Malformed::Truncated));
        }
    }

    #[test]
    fn wrong_sizes_and_counts() {
        for (at, value, error) in [
            (0, 5, Malformed::Value("ACL revision")),
            (2, 7, Malformed::Value("ACL size")),
            (2, 0x1b, Malformed::Truncated), // the entry leaves the list
            (4, 2, Malformed::Truncated),
            (4, 6, Malformed::TooMany("ACEs")),
            (10, 0x13, Malformed::Value("ACE size")),
            (10, 0x18, Malformed::Truncated),
            (10, 0x04, Malformed::Value("ACE size")),
            (10, 0x00, Malformed::Value("ACE size")),
            (17, 3, Malformed::Truncated),
        ] {
            let mut bytes = KNOWN;
            bytes[at] = value;
            assert_eq!(Acl::parse(&bytes), Err(error), "{at} = {value}");
        }
    }

    #[test]
    fn too_long_to_encode() {
        let ace = Ace::allow(Sid::everyone(), AccessMask(1), AceFlags(0));
        let acl = Acl::new(vec![ace; 4000]);
        let mut out = BytesMut::new();
        acl.encode(&mut out);
        assert!(out.len() <= Acl::LEN_MAX);
        assert_eq!(Acl::parse(&out).unwrap().aces.len(), (65535 - 8) / 20);
    }

    fn any_ace() -> impl Strategy<Value = Ace> {
        (0_u8..22, any::<u8>(), any::<u32>(), proptest::collection::vec(any::<u32>(), 0..=15)).prop_map(
            |(kind, flags, mask, sub)| {
                let sid = Sid::new(5, &sub);
                let mask = AccessMask(mask);
                let kind = match kind {
                    0 => AceKind::Allowed { mask, sid },
                    1 => AceKind::Denied { mask, sid },
                    2 => AceKind::Audit { mask, sid },
                    17 => AceKind::MandatoryLabel { mask, sid },
                    kind => AceKind::Other { kind, data: vec![kind; 4 * sub.len()] },
                };
                Ace { flags: AceFlags(flags), kind }
            },
        )
    }

    proptest! {
        #[test]
        fn round_trip(aces in proptest::collection::vec(any_ace(), 0..20)) {
            let acl = Acl::new(aces);
            let mut out = BytesMut::new();
            acl.encode(&mut out);
            prop_assert_eq!(out.len(), acl.encoded_len());
            prop_assert_eq!(Acl::parse(&out).unwrap(), acl);
        }

        #[test]
        fn hostile(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), size: u8) {
            let _ = Acl::parse(&bytes);
            if bytes.len() > 8 {
                bytes[..6].copy_from_slice(&[2, 0, size, 0, 3, 0]);
                let _ = Acl::parse(&bytes);
            }
        }
    }
}
