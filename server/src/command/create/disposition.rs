//! What a CREATE may ask for, decided before the file system is looked at, and by what is there: MS-SMB2 2.2.13, 3.3.5.9; MS-FSA
//! 2.1.5.1.

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::smb2::create::{CreateDisposition, CreateOptions, CreateRequest, ShareAccess};

use crate::access::Desired;

/// The highest impersonation level, Delegate.
const DELEGATE: u32 = 3;

/// Bits of CreateOptions that mean nothing.
const OPTIONS_INVALID: CreateOptions = CreateOptions(0xFF00_0000);

/// Options that this server does not have: FILE_CREATE_TREE_CONNECTION, FILE_OPEN_BY_FILE_ID, FILE_RESERVE_OPFILTER.
const OPTIONS_NOT_SUPPORTED: CreateOptions = CreateOptions(0x0010_2080);

/// Attributes that may be asked for; most of them have no effect.
const ATTRIBUTES_VALID: FileAttributes = FileAttributes(0x0000_7FB7);

/// What a CREATE asks for, found sound.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The rights.
    pub desired: Desired,
    /// What others may do meanwhile.
    pub share: ShareAccess,
    /// What to do if the file is there, and if not.
    pub disposition: CreateDisposition,
    /// How.
    pub options: CreateOptions,
    /// The attributes of a new or overwritten file.
    pub attributes: FileAttributes,
}

impl Asked {
    /// Checks the fields of a request that need no look at a file.
    pub fn new(request: &CreateRequest) -> Result<Asked, NtStatus> {
        // 3.3.5.9: "If ImpersonationLevel is not one of the values specified in section 2.2.13, ... STATUS_BAD_IMPERSONATION_LEVEL".
        if request.impersonation_level > DELEGATE {
            return Err(NtStatus::BAD_IMPERSONATION_LEVEL);
        }
        let disposition = CreateDisposition::try_from(request.create_disposition)
            .map_err(|_| NtStatus::INVALID_PARAMETER)?;
        let options = request.create_options;
        if options.intersects(OPTIONS_INVALID) {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        if options.intersects(OPTIONS_NOT_SUPPORTED) {
            return Err(NtStatus::NOT_SUPPORTED);
        }
        if options.contains(CreateOptions::DIRECTORY_FILE)
            && (options.contains(CreateOptions::NON_DIRECTORY_FILE) || overwrites(disposition))
        {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let desired = Desired::new(request.desired_access)?;
        let all = ShareAccess::READ | ShareAccess::WRITE | ShareAccess::DELETE;
        if !all.contains(request.share_access) || !ATTRIBUTES_VALID.contains(request.file_attributes) {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        Ok(Asked {
            desired,
            share: request.share_access,
            disposition,
            options,
            attributes: request.file_attributes,
        })
    }

    /// Whether it must be a directory.
    pub fn directory(&self) -> bool {
        self.options.contains(CreateOptions::DIRECTORY_FILE)
    }

    /// Whether it must not be a directory.
    pub fn non_directory(&self) -> bool {
        self.options.contains(CreateOptions::NON_DIRECTORY_FILE)
    }

    /// Whether it is deleted when the handle closes.
    pub fn delete_on_close(&self) -> bool {
        self.options.contains(CreateOptions::DELETE_ON_CLOSE)
    }

    /// Whether what is there is overwritten.
    pub fn overwrites(&self) -> bool {
        overwrites(self.disposition)
    }

    /// Whether what is not there is an error.
    pub fn must_exist(&self) -> bool {
        matches!(self.disposition, CreateDisposition::Open | CreateDisposition::Overwrite)
    }

    /// Whether what is there is an error.
    pub fn must_not_exist(&self) -> bool {
        self.disposition == CreateDisposition::Create
    }

    /// Whether an existing object may be taken, by its kind.
    pub fn check_kind(
        &self,
        is_directory: bool,
        names_data: bool,
        names_directory: bool,
    ) -> Result<(), NtStatus> {
        if self.must_not_exist() {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        if is_directory {
            if self.non_directory() || names_data {
                return Err(NtStatus::FILE_IS_A_DIRECTORY);
            }
            if self.overwrites() {
                return Err(NtStatus::OBJECT_NAME_COLLISION);
            }
        } else if self.directory() || names_directory {
            return Err(NtStatus::NOT_A_DIRECTORY);
        }
        Ok(())
    }

    /// Whether a file with these attributes may be overwritten (MS-FSA 2.1.5.1.2): READONLY stops it, HIDDEN and SYSTEM must be
    /// asked for again.
    pub fn check_overwrite(&self, existing: FileAttributes) -> Result<(), NtStatus> {
        let kept = existing & (FileAttributes::HIDDEN | FileAttributes::SYSTEM);
        if existing.contains(FileAttributes::READONLY) || !self.attributes.contains(kept) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        Ok(())
    }

    /// The attributes that a new or overwritten object gets.
    pub fn new_attributes(&self, is_directory: bool) -> Result<FileAttributes, NtStatus> {
        if self.attributes.contains(FileAttributes::ENCRYPTED) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        let wanted = crate::convert::settable(self.attributes);
        if is_directory {
            // MS-FSA 2.1.5.1.1: a directory cannot be temporary.
            if wanted.contains(FileAttributes::TEMPORARY) {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            return Ok(wanted);
        }
        Ok(wanted | FileAttributes::ARCHIVE)
    }
}

fn overwrites(disposition: CreateDisposition) -> bool {
    matches!(
        disposition,
        CreateDisposition::Supersede | CreateDisposition::Overwrite | CreateDisposition::OverwriteIf
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_protocol::fscc::access::AccessMask;

    fn request() -> CreateRequest {
        CreateRequest {
            desired_access: AccessMask::READ_DATA,
            impersonation_level: 2,
            create_disposition: 1,
            ..CreateRequest::default()
        }
    }

    fn refused(change: impl FnOnce(&mut CreateRequest)) -> Option<NtStatus> {
        let mut request = request();
        change(&mut request);
        Asked::new(&request).err()
    }

    #[test]
    fn single_options() {
        for bit in 0..32 {
            let expected = match 1_u32 << bit {
                0x80 | 0x2000 | 0x0010_0000 => Some(NtStatus::NOT_SUPPORTED),
                0x0100_0000.. => Some(NtStatus::INVALID_PARAMETER),
                _ => None,
            };
            assert_eq!(
                refused(|request| request.create_options = CreateOptions(1 << bit)),
                expected,
                "{bit}"
            );
        }
        let both = CreateOptions::DIRECTORY_FILE | CreateOptions::NON_DIRECTORY_FILE;
        assert_eq!(refused(|request| request.create_options = both), Some(NtStatus::INVALID_PARAMETER));
    }

    #[test]
    fn single_attributes() {
        for bit in 0..32 {
            let valid = 0x7FB7_u32 & (1 << bit) != 0;
            let status = refused(|request| request.file_attributes = FileAttributes(1 << bit));
            assert_eq!(status.is_none(), valid, "{bit}");
        }
    }

    #[test]
    fn fields_out_of_range() {
        assert_eq!(refused(|r| r.impersonation_level = 4), Some(NtStatus::BAD_IMPERSONATION_LEVEL));
        assert_eq!(refused(|r| r.create_disposition = 6), Some(NtStatus::INVALID_PARAMETER));
        assert_eq!(refused(|r| r.share_access = ShareAccess(8)), Some(NtStatus::INVALID_PARAMETER));
        assert_eq!(refused(|r| r.desired_access = AccessMask(0)), Some(NtStatus::ACCESS_DENIED));
        assert_eq!(refused(|_| {}), None);
    }

    #[test]
    fn overwriting_asks_for_hidden_and_system_again() {
        let mut request = request();
        request.create_disposition = 5;
        for (asked, existing, allowed) in [
            (0x00, 0x20, true),
            (0x00, 0x22, false),
            (0x02, 0x22, true),
            (0x02, 0x26, false),
            (0x06, 0x26, true),
            (0x01, 0x21, false),
        ] {
            request.file_attributes = FileAttributes(asked);
            let result = Asked::new(&request).unwrap().check_overwrite(FileAttributes(existing));
            assert_eq!(result.is_ok(), allowed, "{asked:#x} over {existing:#x}");
        }
    }
}
