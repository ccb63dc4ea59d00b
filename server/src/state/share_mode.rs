//! Share modes: which opens of one file may stand beside each other. MS-SMB2 3.3.5.9, MS-FSA 2.1.5.1.2.2.
//!
//! Kept as seven counters, not as a list: admitting an open among 65,000 others costs the same as among two.

use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::smb2::create::ShareAccess;

/// What one open asks of the file's data, and what it lets others do: all that share modes look at.
///
/// Opens that touch only attributes ask nothing: they neither conflict nor are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    read: bool,
    write: bool,
    delete: bool,
    share_read: bool,
    share_write: bool,
    share_delete: bool,
}

impl Claim {
    /// The claim of an open with this access, granted or about to be, and this ShareAccess.
    pub fn new(access: AccessMask, share: ShareAccess) -> Claim {
        let any = |mask| access.intersects(mask);
        Claim {
            read: any(AccessMask::READ_DATA | AccessMask::EXECUTE),
            write: any(AccessMask::WRITE_DATA | AccessMask::APPEND_DATA),
            delete: any(AccessMask::DELETE),
            share_read: share.contains(ShareAccess::READ),
            share_write: share.contains(ShareAccess::WRITE),
            share_delete: share.contains(ShareAccess::DELETE),
        }
    }

    /// Whether this open takes part in share mode checks at all.
    pub fn counts(self) -> bool {
        self.read || self.write || self.delete
    }
}

/// The share modes of all opens of one (node, stream).
#[derive(Debug, Default)]
pub struct ShareModes {
    counted: u32,
    readers: u32,
    writers: u32,
    deleters: u32,
    share_read: u32,
    share_write: u32,
    share_delete: u32,
}

impl ShareModes {
    /// Whether an open with this claim may join those that are there.
    pub fn admits(&self, claim: Claim) -> bool {
        if !claim.counts() || self.counted == 0 {
            return true;
        }
        let all = self.counted;
        let others_allow = (!claim.read || self.share_read == all)
            && (!claim.write || self.share_write == all)
            && (!claim.delete || self.share_delete == all);
        let allows_others = (claim.share_read || self.readers == 0)
            && (claim.share_write || self.writers == 0)
            && (claim.share_delete || self.deleters == 0);
        others_allow && allows_others
    }

    /// Counts an open in. The caller has asked [`ShareModes::admits`] under the same lock.
    pub fn insert(&mut self, claim: Claim) {
        self.change(claim, |n| *n += 1);
    }

    /// Counts an open out, with the claim that it came in with.
    pub fn remove(&mut self, claim: Claim) {
        self.change(claim, |n| {
            debug_assert!(*n > 0, "share modes are counted out only once");
            *n = n.saturating_sub(1);
        });
    }

    /// Whether any open has, or could use, the right to delete the file.
    pub fn has_deleters(&self) -> bool {
        self.deleters > 0
    }

    /// Whether every counted open lets others delete (or rename) the file.
    pub fn all_share_delete(&self) -> bool {
        self.share_delete == self.counted
    }

    fn change(&mut self, claim: Claim, step: impl Fn(&mut u32)) {
        if !claim.counts() {
            return;
        }
        step(&mut self.counted);
        for (applies, counter) in [
            (claim.read, &mut self.readers),
            (claim.write, &mut self.writers),
            (claim.delete, &mut self.deleters),
            (claim.share_read, &mut self.share_read),
            (claim.share_write, &mut self.share_write),
            (claim.share_delete, &mut self.share_delete),
        ] {
            if applies {
                step(counter);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: AccessMask = AccessMask::READ_DATA;
    const W: AccessMask = AccessMask::WRITE_DATA;
    const A: AccessMask = AccessMask::APPEND_DATA;
    const X: AccessMask = AccessMask::EXECUTE;
    const D: AccessMask = AccessMask::DELETE;
    const STAT: AccessMask = AccessMask::READ_ATTRIBUTES;

    fn claim(access: AccessMask, share: &str) -> Claim {
        let mut bits = 0;
        for letter in share.chars() {
            bits |= match letter {
                'r' => ShareAccess::READ.bits(),
                'w' => ShareAccess::WRITE.bits(),
                'd' => ShareAccess::DELETE.bits(),
                _ => unreachable!("a letter of the table"),
            };
        }
        Claim::new(access, ShareAccess(bits))
    }

    #[test]
    fn second_open_against_the_first() {
        let table = [
            (R, "", R, "rwd", false),
            (R, "r", R, "r", true),
            (R, "r", R, "", false),
            (R, "r", W, "r", false),
            (R, "rw", W, "r", true),
            (W, "rw", R, "r", false),
            (W, "rw", R, "rw", true),
            (R, "rw", A, "rwd", true),
            (R, "r", A, "rwd", false),
            (X, "", X, "rwd", false),
            (X, "r", R, "r", true),
            (D, "d", D, "d", true),
            (D, "", D, "d", false),
            (R, "rw", D, "rwd", false),
            (D, "rwd", R, "rw", false),
            (STAT, "", W, "", true),
            (W, "", STAT, "", true),
        ];
        for (first, first_share, second, second_share, admitted) in table {
            let mut modes = ShareModes::default();
            modes.insert(claim(first, first_share));
            assert_eq!(
                modes.admits(claim(second, second_share)),
                admitted,
                "{first:?} sharing {first_share:?}, then {second:?} sharing {second_share:?}"
            );
        }
    }

    #[test]
    fn removal_undoes_insertion() {
        let mut modes = ShareModes::default();
        let exclusive = claim(W, "");
        modes.insert(exclusive);
        assert!(!modes.admits(claim(R, "rwd")));
        modes.remove(exclusive);
        assert!(modes.admits(claim(R, "")));
        assert_eq!(modes.counted, 0);
    }
}
