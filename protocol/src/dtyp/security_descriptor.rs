//! SECURITY_DESCRIPTOR in its self-relative form: MS-DTYP 2.4.6; and which of its parts are meant: 2.4.7.

use bytes::{BufMut, BytesMut};

use super::{Acl, Sid};
use crate::flags::flags;
use crate::malformed::Malformed;

flags! {
    /// Which parts of a descriptor a query or a set is about: SECURITY_INFORMATION, MS-DTYP 2.4.7.
    pub struct SecurityInformation: u32 {
        /// The owner.
        OWNER = 0x0000_0001;
        /// The group.
        GROUP = 0x0000_0002;
        /// The discretionary list.
        DACL = 0x0000_0004;
        /// The system (audit) list.
        SACL = 0x0000_0008;
        /// The integrity label, which stands in the system list.
        LABEL = 0x0000_0010;
        /// Resource attributes, which stand in the system list.
        ATTRIBUTE = 0x0000_0020;
        /// The central policy, which stands in the system list.
        SCOPE = 0x0000_0040;
        /// Everything that a backup saves.
        BACKUP = 0x0001_0000;
        /// The system list inherits again.
        UNPROTECTED_SACL = 0x1000_0000;
        /// The discretionary list inherits again.
        UNPROTECTED_DACL = 0x2000_0000;
        /// The system list inherits no more.
        PROTECTED_SACL = 0x4000_0000;
        /// The discretionary list inherits no more.
        PROTECTED_DACL = 0x8000_0000;
    }
}

flags! {
    /// Control: what is present in the descriptor and where it came from. MS-DTYP 2.4.6.
    pub struct ControlFlags: u16 {
        /// The owner was given by default.
        OWNER_DEFAULTED = 0x0001;
        /// The group was given by default.
        GROUP_DEFAULTED = 0x0002;
        /// A discretionary list is stated; if its offset is 0, it is the NULL list, which grants all.
        DACL_PRESENT = 0x0004;
        /// The discretionary list was given by default.
        DACL_DEFAULTED = 0x0008;
        /// A system list is stated.
        SACL_PRESENT = 0x0010;
        /// The system list was given by default.
        SACL_DEFAULTED = 0x0020;
        /// The discretionary list comes from a trusted source.
        DACL_TRUSTED = 0x0040;
        /// A server entry is wanted.
        SERVER_SECURITY = 0x0080;
        /// The discretionary list is to be computed by inheritance.
        DACL_INHERIT_REQUIRED = 0x0100;
        /// The system list is to be computed by inheritance.
        SACL_INHERIT_REQUIRED = 0x0200;
        /// The discretionary list was computed by inheritance.
        DACL_AUTO_INHERITED = 0x0400;
        /// The system list was computed by inheritance.
        SACL_AUTO_INHERITED = 0x0800;
        /// The discretionary list does not inherit.
        DACL_PROTECTED = 0x1000;
        /// The system list does not inherit.
        SACL_PROTECTED = 0x2000;
        /// The resource manager's byte (Sbz1) means something.
        RM_CONTROL_VALID = 0x4000;
        /// The parts stand behind the header at offsets; always set on the wire.
        SELF_RELATIVE = 0x8000;
    }
}

/// A security descriptor.
///
/// `dacl: None` with `DACL_PRESENT` in `control` is the NULL list, which grants all; without it, no list is stated.
/// The same holds for `sacl` and `SACL_PRESENT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityDescriptor {
    /// Control; encoding sets SELF_RELATIVE, and the PRESENT flag of each list that is there.
    pub control: ControlFlags,
    /// Who owns the object.
    pub owner: Option<Sid>,
    /// The object's primary group.
    pub group: Option<Sid>,
    /// The discretionary list: who may do what.
    pub dacl: Option<Acl>,
    /// The system list: what is audited.
    pub sacl: Option<Acl>,
}

impl SecurityDescriptor {
    /// Bytes of the header.
    pub const HEADER: usize = 20;

    /// Bytes on the wire.
    pub fn encoded_len(&self) -> usize {
        let sids = self.owner.iter().chain(&self.group).map(Sid::encoded_len).sum::<usize>();
        let acls = self.sacl.iter().chain(&self.dacl).map(Acl::encoded_len).sum::<usize>();
        SecurityDescriptor::HEADER + sids + acls
    }

    /// Reads a descriptor that starts at `input`'s start; its offsets may point to anywhere in `input` behind the
    /// header, and in any order.
    ///
    /// Errors: `Truncated`; `Value` if the revision is not 1 or it is not self-relative; `Offset` for a part that
    /// points into the header or out of `input`; the parts'. A list whose PRESENT flag is not set is passed over.
    pub fn parse(input: &[u8]) -> Result<SecurityDescriptor, Malformed> {
        let header = input.first_chunk::<{ SecurityDescriptor::HEADER }>().ok_or(Malformed::Truncated)?;
        if header[0] != 1 {
            return Err(Malformed::Value("security descriptor revision"));
        }
        let control = ControlFlags(u16::from_le_bytes([header[2], header[3]]));
        if !control.contains(ControlFlags::SELF_RELATIVE) {
            return Err(Malformed::Value("security descriptor not self-relative"));
        }
        let part = |field: usize| -> Result<Option<&[u8]>, Malformed> {
            let offset = [header[field], header[field + 1], header[field + 2], header[field + 3]];
            match u32::from_le_bytes(offset) as usize {
                0 => Ok(None),
                offset if offset < SecurityDescriptor::HEADER => Err(Malformed::Offset),
                offset => input.get(offset..).map(Some).ok_or(Malformed::Offset),
            }
        };
        let sid = |field| part(field)?.map(|bytes| Sid::parse(bytes).map(|(sid, _)| sid)).transpose();
        let acl = |field, present| match control.contains(present) {
            true => part(field)?.map(Acl::parse).transpose(),
            false => Ok(None),
        };
        Ok(SecurityDescriptor {
            control,
            owner: sid(4)?,
            group: sid(8)?,
            sacl: acl(12, ControlFlags::SACL_PRESENT)?,
            dacl: acl(16, ControlFlags::DACL_PRESENT)?,
        })
    }

    /// Appends the descriptor: header, system list, discretionary list, owner, group. Every part is a multiple of
    /// 4 bytes long, so each is aligned to 4 from the descriptor's start.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        let mut control = self.control | ControlFlags::SELF_RELATIVE;
        if self.dacl.is_some() {
            control |= ControlFlags::DACL_PRESENT;
        }
        if self.sacl.is_some() {
            control |= ControlFlags::SACL_PRESENT;
        }
        out.put_u8(1);
        out.put_u8(0);
        out.put_u16_le(control.0);
        out.put_bytes(0, 16);
        let point = |out: &mut BytesMut, field: usize| {
            let offset = (out.len() - start) as u32;
            out[start + field..start + field + 4].copy_from_slice(&offset.to_le_bytes());
        };
        if let Some(sacl) = &self.sacl {
            point(out, 12);
            sacl.encode(out);
        }
        if let Some(dacl) = &self.dacl {
            point(out, 16);
            dacl.encode(out);
        }
        if let Some(owner) = &self.owner {
            point(out, 4);
            owner.encode(out);
        }
        if let Some(group) = &self.group {
            point(out, 8);
            group.encode(out);
        }
    }

    /// The parts that `information` asks for, as a query answers them: what was not asked for is left out together
    /// with its flags.
    pub fn select(&self, information: SecurityInformation) -> SecurityDescriptor {
        let wants = |part: SecurityInformation| information.0 & part.0 != 0;
        let mut control = self.control.0;
        if !wants(SecurityInformation::OWNER) {
            control &= !ControlFlags::OWNER_DEFAULTED.0;
        }
        if !wants(SecurityInformation::GROUP) {
            control &= !ControlFlags::GROUP_DEFAULTED.0;
        }
        if !wants(SecurityInformation::DACL) {
            control &= !(ControlFlags::DACL_PRESENT.0
                | ControlFlags::DACL_DEFAULTED.0
                | ControlFlags::DACL_TRUSTED.0
                | ControlFlags::DACL_INHERIT_REQUIRED.0
                | ControlFlags::DACL_AUTO_INHERITED.0
                | ControlFlags::DACL_PROTECTED.0);
        }
        let sacl_parts = SecurityInformation(
            SecurityInformation::SACL.0
                | SecurityInformation::LABEL.0
                | SecurityInformation::ATTRIBUTE.0
                | SecurityInformation::SCOPE.0,
        );
        if !wants(sacl_parts) {
            control &= !(ControlFlags::SACL_PRESENT.0
                | ControlFlags::SACL_DEFAULTED.0
                | ControlFlags::SACL_INHERIT_REQUIRED.0
                | ControlFlags::SACL_AUTO_INHERITED.0
                | ControlFlags::SACL_PROTECTED.0);
        }
        SecurityDescriptor {
            control: ControlFlags(control),
            owner: self.owner.clone().filter(|_| wants(SecurityInformation::OWNER)),
            group: self.group.clone().filter(|_| wants(SecurityInformation::GROUP)),
            dacl: self.dacl.clone().filter(|_| wants(SecurityInformation::DACL)),
            sacl: self.sacl.clone().filter(|_| wants(sacl_parts)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtyp::{Ace, AceFlags};
    use crate::fscc::access::AccessMask;
    use proptest::prelude::*;

    const KNOWN: [u8; 72] = [
        1, 0, 0x04, 0x80, // revision, Sbz1, DACL present and self-relative
        0x30, 0, 0, 0, // owner
        0x3c, 0, 0, 0, // group
        0, 0, 0, 0, // no SACL
        0x14, 0, 0, 0, // DACL
        2, 0, 0x1c, 0, 1, 0, 0, 0, // the list
        0, 0, 0x14, 0, 0xa9, 0, 0x12, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, // everyone may read
        1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0, // the system owns it
        1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, // everyone is its group
    ];

    fn known() -> SecurityDescriptor {
        SecurityDescriptor {
            control: ControlFlags::DACL_PRESENT | ControlFlags::SELF_RELATIVE,
            owner: Some(Sid::local_system()),
            group: Some(Sid::everyone()),
            dacl: Some(Acl::new(vec![Ace::allow(Sid::everyone(), AccessMask(0x0012_00a9), AceFlags(0))])),
            sacl: None,
        }
    }

    #[test]
    fn known_bytes() {
        assert_eq!(SecurityDescriptor::parse(&KNOWN), Ok(known()));
        let mut out = BytesMut::new();
        known().encode(&mut out);
        assert_eq!(out[..], KNOWN);
        assert_eq!(known().encoded_len(), KNOWN.len());
    }

    #[test]
    fn cut_at_every_length() {
        for length in 0..KNOWN.len() {
            assert!(SecurityDescriptor::parse(&KNOWN[..length]).is_err());
        }
    }

    #[test]
    fn offsets_are_checked() {
        for (field, value, error) in [
            (4, 19, Malformed::Offset),
            (4, 73, Malformed::Offset),
            (4, 72, Malformed::Truncated),
            (7, 0xFF, Malformed::Offset),
            (16, 4, Malformed::Offset),
            (0, 2, Malformed::Value("security descriptor revision")),
            (3, 0, Malformed::Value("security descriptor not self-relative")),
        ] {
            let mut bytes = KNOWN;
            bytes[field] = value;
            assert_eq!(SecurityDescriptor::parse(&bytes), Err(error), "{field} = {value}");
        }
    }

    #[test]
    fn null_and_absent_lists() {
        let mut bytes = KNOWN;
        bytes[16] = 0;
        let null = SecurityDescriptor::parse(&bytes).unwrap();
        assert!(null.dacl.is_none() && null.control.contains(ControlFlags::DACL_PRESENT));
        let mut bytes = KNOWN;
        bytes[2] = 0;
        let absent = SecurityDescriptor::parse(&bytes).unwrap();
        assert!(absent.dacl.is_none() && !absent.control.contains(ControlFlags::DACL_PRESENT));
    }

    #[test]
    fn select_leaves_the_rest_out() {
        let owner = known().select(SecurityInformation::OWNER);
        assert_eq!(owner.owner, Some(Sid::local_system()));
        assert!(owner.group.is_none() && owner.dacl.is_none());
        assert_eq!(owner.control, ControlFlags::SELF_RELATIVE);
        let dacl = known().select(SecurityInformation::DACL);
        assert!(dacl.owner.is_none() && dacl.dacl.is_some());
        assert!(dacl.control.contains(ControlFlags::DACL_PRESENT));
    }

    proptest! {
        #[test]
        fn hostile(at in 0..KNOWN.len(), value: u8, second in 0..KNOWN.len(), other: u8) {
            let mut bytes = KNOWN;
            bytes[at] = value;
            bytes[second] = other;
            if let Ok(descriptor) = SecurityDescriptor::parse(&bytes) {
                let mut out = BytesMut::new();
                descriptor.encode(&mut out);
                prop_assert_eq!(out.len(), descriptor.encoded_len());
                prop_assert!(SecurityDescriptor::parse(&out).is_ok());
            }
        }

        #[test]
        fn garbage(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = SecurityDescriptor::parse(&bytes);
        }
    }
}
