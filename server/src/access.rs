//! Who may do what: desired access to granted access. MS-SMB2 3.3.5.9, MS-FSA 2.1.5.1.2.1.
//!
//! Descriptors are not stored yet. Without one, whoever may use a share has every right that the share gives, and the
//! READONLY attribute takes some away; what the server's own identity may not do fails when it is done.

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;

/// Every right that changes something.
pub const WRITES: AccessMask = AccessMask(
    AccessMask::WRITE_DATA.0
        | AccessMask::APPEND_DATA.0
        | AccessMask::WRITE_EA.0
        | AccessMask::WRITE_ATTRIBUTES.0
        | AccessMask::DELETE_CHILD.0
        | AccessMask::DELETE.0
        | AccessMask::WRITE_DAC.0
        | AccessMask::WRITE_OWNER.0,
);

/// What READONLY takes from the rights on a file (MS-FSA 2.1.5.1.2.1).
const READONLY_TAKES: AccessMask =
    AccessMask(AccessMask::WRITE_DATA.0 | AccessMask::APPEND_DATA.0 | AccessMask::DELETE_CHILD.0);

/// What a CREATE asks for, generic rights resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The rights that must be granted.
    pub rights: AccessMask,
    /// MAXIMUM_ALLOWED: and whatever else may be had.
    pub maximum: bool,
}

impl Desired {
    /// Reads a DesiredAccess field.
    pub fn new(mask: AccessMask) -> Result<Desired, NtStatus> {
        if mask.is_empty() || mask.intersects(AccessMask::RESERVED) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        // The privilege that it takes (SeSecurityPrivilege) nobody has here.
        if mask.contains(AccessMask::ACCESS_SYSTEM_SECURITY) {
            return Err(NtStatus::PRIVILEGE_NOT_HELD);
        }
        let maximum = mask.contains(AccessMask::MAXIMUM_ALLOWED);
        Ok(Desired { rights: mask.without(AccessMask::MAXIMUM_ALLOWED).map_generic(), maximum })
    }

    /// The rights of an open, if it can have what it must. `share` is the tree connect's MaximalAccess; `attributes` are those
    /// of the object as it is: none for one that is being created.
    pub fn granted(self, share: AccessMask, attributes: FileAttributes) -> Result<AccessMask, NtStatus> {
        let restricted =
            attributes.contains(FileAttributes::READONLY) && !attributes.contains(FileAttributes::DIRECTORY);
        let available = if restricted { share.without(READONLY_TAKES) } else { share };
        if !available.contains(self.rights) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        Ok(if self.maximum { available } else { self.rights })
    }
}

/// What stands in a maximal access context: the rights that somebody could be granted (MS-SMB2 3.3.5.9.5). READONLY does not count:
/// it can be taken off.
pub fn maximal(share: AccessMask) -> AccessMask {
    share
}

/// Nothing if `granted` has all of `needed`, else ACCESS_DENIED.
pub fn require(granted: AccessMask, needed: AccessMask) -> Result<(), NtStatus> {
    if granted.contains(needed) { Ok(()) } else { Err(NtStatus::ACCESS_DENIED) }
}

/// Nothing if `granted` has any of `needed`, else ACCESS_DENIED.
pub fn require_any(granted: AccessMask, needed: AccessMask) -> Result<(), NtStatus> {
    if granted.intersects(needed) { Ok(()) } else { Err(NtStatus::ACCESS_DENIED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: AccessMask = AccessMask::FILE_ALL;
    const RO: FileAttributes = FileAttributes::READONLY;
    const NONE: FileAttributes = FileAttributes::EMPTY;

    #[test]
    fn masks_that_are_refused() {
        for (mask, status) in [
            (0, NtStatus::ACCESS_DENIED),
            (0x0400_0000, NtStatus::ACCESS_DENIED),
            (0x0800_0000, NtStatus::ACCESS_DENIED),
            (0x0000_8000, NtStatus::ACCESS_DENIED),
            (0x0020_0000, NtStatus::ACCESS_DENIED),
            (0x0100_0000, NtStatus::PRIVILEGE_NOT_HELD),
        ] {
            assert_eq!(Desired::new(AccessMask(mask)), Err(status), "{mask:#x}");
        }
    }

    #[test]
    fn rights_that_are_granted() {
        let read_only = ALL.without(WRITES);
        for (mask, share, attributes, granted) in [
            (0x1, ALL, NONE, Some(0x1)),
            (0x8000_0000, ALL, NONE, Some(0x0012_0089)),
            (0x0200_0000, ALL, NONE, Some(0x001F_01FF)),
            (0x0200_0000, ALL, RO, Some(0x001F_01B9)),
            (0x0200_0002, ALL, RO, None),
            (0x2, ALL, RO, None),
            (0x4, ALL, RO, None),
            (0x0001_0000, ALL, RO, Some(0x0001_0000)),
            (0x2, ALL, FileAttributes(0x11), Some(0x2)),
            (0x2, read_only, NONE, None),
            (0x0001_0000, read_only, NONE, None),
            (0x0200_0000, read_only, NONE, Some(0x0012_00A9)),
        ] {
            let desired = Desired::new(AccessMask(mask)).expect("a mask of the table");
            let result = desired.granted(share, attributes).ok().map(AccessMask::bits);
            assert_eq!(result, granted, "{mask:#x} {share:?} {attributes:?}");
        }
    }
}
