//! Access masks of files, directories, pipes and printers: MS-SMB2 2.2.13.1, MS-DTYP 2.4.3.

use crate::flags::flags;

flags! {
    /// Rights: what a CREATE asks for, what an open was granted, what an entry of a list is about.
    pub struct AccessMask: u32 {
        /// FILE_READ_DATA: read the file's data.
        READ_DATA = 0x0000_0001;
        /// FILE_WRITE_DATA: write the file's data.
        WRITE_DATA = 0x0000_0002;
        /// FILE_APPEND_DATA: write behind the file's end.
        APPEND_DATA = 0x0000_0004;
        /// FILE_READ_EA: read extended attributes.
        READ_EA = 0x0000_0008;
        /// FILE_WRITE_EA: write extended attributes.
        WRITE_EA = 0x0000_0010;
        /// FILE_EXECUTE: run the file.
        EXECUTE = 0x0000_0020;
        /// FILE_DELETE_CHILD: delete what is in the directory.
        DELETE_CHILD = 0x0000_0040;
        /// FILE_READ_ATTRIBUTES: read attributes and times.
        READ_ATTRIBUTES = 0x0000_0080;
        /// FILE_WRITE_ATTRIBUTES: write attributes and times.
        WRITE_ATTRIBUTES = 0x0000_0100;
        /// Delete the object.
        DELETE = 0x0001_0000;
        /// Read the descriptor, all but its system list.
        READ_CONTROL = 0x0002_0000;
        /// Change the discretionary list.
        WRITE_DAC = 0x0004_0000;
        /// Change the owner.
        WRITE_OWNER = 0x0008_0000;
        /// Wait for the object.
        SYNCHRONIZE = 0x0010_0000;
        /// Read and change the system list.
        ACCESS_SYSTEM_SECURITY = 0x0100_0000;
        /// Whatever may be had.
        MAXIMUM_ALLOWED = 0x0200_0000;
        /// Stands for `GENERIC_ALL_MAPPED`.
        GENERIC_ALL = 0x1000_0000;
        /// Stands for `GENERIC_EXECUTE_MAPPED`.
        GENERIC_EXECUTE = 0x2000_0000;
        /// Stands for `GENERIC_WRITE_MAPPED`.
        GENERIC_WRITE = 0x4000_0000;
        /// Stands for `GENERIC_READ_MAPPED`.
        GENERIC_READ = 0x8000_0000;
    }
}

// The rights of a directory have the numbers of a file's and other names (MS-SMB2 2.2.13.1.2).
impl AccessMask {
    /// FILE_LIST_DIRECTORY: list what is in the directory.
    pub const LIST_DIRECTORY: AccessMask = AccessMask::READ_DATA;
    /// FILE_ADD_FILE: create a file in the directory.
    pub const ADD_FILE: AccessMask = AccessMask::WRITE_DATA;
    /// FILE_ADD_SUBDIRECTORY: create a directory in the directory.
    pub const ADD_SUBDIRECTORY: AccessMask = AccessMask::APPEND_DATA;
    /// FILE_TRAVERSE: pass through the directory.
    pub const TRAVERSE: AccessMask = AccessMask::EXECUTE;

    /// The standard rights that any object has, SYNCHRONIZE among them.
    pub const STANDARD_ALL: AccessMask = AccessMask(0x001F_0000);

    /// FILE_ALL_ACCESS: every right of a file or directory.
    pub const FILE_ALL: AccessMask = AccessMask(0x001F_01FF);

    /// What GENERIC_ALL means for a file.
    pub const GENERIC_ALL_MAPPED: AccessMask = AccessMask::FILE_ALL;
    /// What GENERIC_READ means for a file: FILE_GENERIC_READ.
    pub const GENERIC_READ_MAPPED: AccessMask = AccessMask(0x0012_0089);
    /// What GENERIC_WRITE means for a file: FILE_GENERIC_WRITE.
    pub const GENERIC_WRITE_MAPPED: AccessMask = AccessMask(0x0012_0116);
    /// What GENERIC_EXECUTE means for a file: FILE_GENERIC_EXECUTE.
    pub const GENERIC_EXECUTE_MAPPED: AccessMask = AccessMask(0x0012_00A0);

    /// The four generic bits.
    pub const GENERIC: AccessMask = AccessMask(0xF000_0000);

    /// Bits that mean nothing and are refused in a CREATE (MS-SMB2 2.2.13.1: reserved).
    pub const RESERVED: AccessMask = AccessMask(0x0CE0_FE00);

    /// The mask with each generic bit replaced by the rights that it stands for (MS-DTYP 2.5.3.2 step 1).
    /// MAXIMUM_ALLOWED stays.
    pub const fn map_generic(self) -> AccessMask {
        let mut mask = self.0 & !AccessMask::GENERIC.0;
        if self.0 & AccessMask::GENERIC_READ.0 != 0 {
            mask |= AccessMask::GENERIC_READ_MAPPED.0;
        }
        if self.0 & AccessMask::GENERIC_WRITE.0 != 0 {
            mask |= AccessMask::GENERIC_WRITE_MAPPED.0;
        }
        if self.0 & AccessMask::GENERIC_EXECUTE.0 != 0 {
            mask |= AccessMask::GENERIC_EXECUTE_MAPPED.0;
        }
        if self.0 & AccessMask::GENERIC_ALL.0 != 0 {
            mask |= AccessMask::GENERIC_ALL_MAPPED.0;
        }
        AccessMask(mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_bits_become_rights() {
        assert_eq!(AccessMask(0x8000_0000).map_generic(), AccessMask(0x0012_0089));
        assert_eq!(AccessMask(0x4000_0000).map_generic(), AccessMask(0x0012_0116));
        assert_eq!(AccessMask(0x2000_0000).map_generic(), AccessMask(0x0012_00A0));
        assert_eq!(AccessMask(0x1000_0000).map_generic(), AccessMask(0x001F_01FF));
        assert_eq!(AccessMask(0x0200_0001).map_generic(), AccessMask(0x0200_0001));
        let named = AccessMask::FILE_ALL
            | AccessMask::GENERIC
            | AccessMask::ACCESS_SYSTEM_SECURITY
            | AccessMask::MAXIMUM_ALLOWED;
        assert_eq!(!named, AccessMask::RESERVED);
    }
}
