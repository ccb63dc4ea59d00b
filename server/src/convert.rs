//! The border between the vfs, which speaks POSIX, and SMB: errors to NTSTATUS, metadata to MS-FSCC, times, attributes.
//!
//! All translation is here, nowhere else.

use shoal_protocol::NtStatus;
use shoal_protocol::dtyp::FileTime;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_vfs::{DosAttributes, FsError, Kind, Metadata, OpenHow, Timestamp};

use crate::state::open::DiskObject;

/// The status that says what a file system error says.
pub fn status(error: FsError) -> NtStatus {
    match error {
        FsError::NotFound | FsError::Stale => NtStatus::OBJECT_NAME_NOT_FOUND,
        FsError::PathNotFound => NtStatus::OBJECT_PATH_NOT_FOUND,
        FsError::Exists => NtStatus::OBJECT_NAME_COLLISION,
        FsError::NotADirectory => NtStatus::NOT_A_DIRECTORY,
        FsError::IsADirectory => NtStatus::FILE_IS_A_DIRECTORY,
        FsError::NotEmpty => NtStatus::DIRECTORY_NOT_EMPTY,
        FsError::AccessDenied | FsError::SpecialFile => NtStatus::ACCESS_DENIED,
        FsError::ReadOnly => NtStatus::MEDIA_WRITE_PROTECTED,
        FsError::NoSpace | FsError::Quota => NtStatus::DISK_FULL,
        FsError::FileTooLarge | FsError::Invalid => NtStatus::INVALID_PARAMETER,
        FsError::TooManyOpenFiles => NtStatus::TOO_MANY_OPENED_FILES,
        FsError::NameTooLong | FsError::InvalidName => NtStatus::OBJECT_NAME_INVALID,
        FsError::CrossDevice => NtStatus::NOT_SAME_DEVICE,
        FsError::Busy => NtStatus::SHARING_VIOLATION,
        // A symbolic link is never followed and never shown as a reparse point; MS-SMB2 3.3.5.9 would have
        // STOPPED_ON_SYMLINK name its target, which may be any path of this machine.
        FsError::Symlink => NtStatus::IO_REPARSE_TAG_NOT_HANDLED,
        FsError::NotSupported => NtStatus::NOT_SUPPORTED,
        FsError::NoMemory => NtStatus::INSUFFICIENT_RESOURCES,
        FsError::Deleted => NtStatus::DELETE_PENDING,
        FsError::Indeterminate | FsError::Io(_) => NtStatus::UNEXPECTED_IO_ERROR,
    }
}

/// A time of the vfs as SMB states it.
pub fn file_time(time: Timestamp) -> FileTime {
    FileTime::from_unix(time.secs, time.nanos)
}

/// A time that a client states. The caller has asked [`FileTime::is_time`].
pub fn timestamp(time: FileTime) -> Timestamp {
    let (secs, nanos) = time.to_unix();
    Timestamp::new(secs, nanos)
}

/// The wall clock.
pub fn now() -> FileTime {
    file_time(Timestamp::now())
}

/// What an open with these rights needs of the storage. An overwrite writes whatever it was granted.
pub fn open_how(access: AccessMask, overwrites: bool) -> OpenHow {
    OpenHow {
        read: access.intersects(AccessMask::READ_DATA | AccessMask::EXECUTE),
        write: overwrites || access.intersects(AccessMask::WRITE_DATA | AccessMask::APPEND_DATA),
    }
}

/// The attributes of an object with nothing stored: a file is to be archived, a directory is a directory.
fn default_attributes(kind: Kind) -> FileAttributes {
    match kind {
        Kind::Directory => FileAttributes::EMPTY,
        Kind::File | Kind::Symlink | Kind::Special => FileAttributes::ARCHIVE,
    }
}

/// The attributes that a client sees.
pub fn attributes(metadata: &Metadata) -> FileAttributes {
    shown_attributes(metadata.kind, stored_attributes(metadata))
}

/// The attributes that are stored, or would be: without DIRECTORY and NORMAL.
pub fn stored_attributes(metadata: &Metadata) -> FileAttributes {
    match metadata.dos {
        Some(dos) => FileAttributes(dos.attributes) & stored_mask(),
        None => default_attributes(metadata.kind),
    }
}

fn shown_attributes(kind: Kind, stored: FileAttributes) -> FileAttributes {
    match kind {
        Kind::Directory => stored | FileAttributes::DIRECTORY,
        Kind::File | Kind::Symlink | Kind::Special => stored.or_normal(),
    }
}

/// What is kept of attributes that a client sets; SPARSE_FILE has its own control code, and is kept beside.
fn stored_mask() -> FileAttributes {
    FileAttributes::SETTABLE | FileAttributes::SPARSE_FILE
}

/// The part of a client's attributes that a file or directory can have.
pub fn settable(attributes: FileAttributes) -> FileAttributes {
    attributes & FileAttributes::SETTABLE
}

/// What to store so that an object of this kind has these attributes and this creation time (None: the storage's own).
/// Nothing, where that is what it has anyway: the usual file costs no system call for it.
pub fn dos_to_store(
    kind: Kind,
    attributes: FileAttributes,
    creation_time: Option<Timestamp>,
) -> Option<DosAttributes> {
    let attributes = attributes & stored_mask();
    if attributes == default_attributes(kind) && creation_time.is_none() {
        return None;
    }
    Some(DosAttributes { attributes: attributes.bits(), creation_time })
}

/// When an object was created: as stored, as the storage knows, or as early as is known.
pub fn creation_time(metadata: &Metadata) -> Timestamp {
    metadata
        .dos
        .and_then(|dos| dos.creation_time)
        .or(metadata.born)
        .unwrap_or_else(|| metadata.modified.min(metadata.changed))
}

/// What CREATE, CLOSE, QUERY_INFO and QUERY_DIRECTORY say of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When it was created.
    pub creation_time: FileTime,
    /// When it was last read.
    pub last_access_time: FileTime,
    /// When its data last changed.
    pub last_write_time: FileTime,
    /// When anything of it last changed: the last write.
    pub change_time: FileTime,
    /// Bytes that it takes.
    pub allocation_size: u64,
    /// Its length in bytes; 0 for a directory.
    pub end_of_file: u64,
    /// Its attributes, NORMAL if none.
    pub attributes: FileAttributes,
    /// How many names it has.
    pub number_of_links: u32,
    /// FileInternalInformation.IndexNumber: the same for all its names.
    pub index_number: u64,
    /// The volume that the number belongs to.
    pub volume: u64,
    /// Whether it is a directory.
    pub directory: bool,
}

/// The facts of an object as its storage states them.
pub fn facts(metadata: &Metadata) -> Facts {
    let directory = metadata.kind == Kind::Directory;
    Facts {
        creation_time: file_time(creation_time(metadata)),
        last_access_time: file_time(metadata.accessed),
        last_write_time: file_time(metadata.modified),
        // The storage's change time cannot be set, and moves with every rename; clients set theirs, and expect neither. So the
        // last write stands for it, as with Samba.
        change_time: file_time(metadata.modified),
        allocation_size: if directory { 0 } else { metadata.allocated },
        end_of_file: if directory { 0 } else { metadata.size },
        attributes: attributes(metadata),
        // MS-FSCC 2.4.41; a directory's entries for its children are POSIX' affair.
        number_of_links: if directory { 1 } else { metadata.links },
        index_number: metadata.key.inode,
        volume: metadata.key.device,
        directory,
    }
}

/// The facts of an open as clients are to see them: a write shows in its own time (see [`WriteTime`]).
///
/// [`WriteTime`]: crate::state::file::WriteTime
pub fn shown_facts(disk: &DiskObject, metadata: &Metadata) -> Facts {
    let mut facts = facts(metadata);
    let mut opens = disk.node().opens();
    let write_time = &mut opens.stream(disk.stream).write_time;
    facts.last_write_time = write_time.show(facts.last_write_time, now());
    facts.change_time = facts.last_write_time;
    facts
}

/// The same, from what the storage says now.
pub async fn current_facts(disk: &DiskObject) -> Result<Facts, NtStatus> {
    let metadata = disk.file.metadata().await.map_err(status)?;
    Ok(shown_facts(disk, &metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_vfs::BackendKey;

    fn metadata(kind: Kind, dos: Option<DosAttributes>) -> Metadata {
        Metadata {
            key: BackendKey { device: 1, inode: 2, generation: 0 },
            kind,
            size: 10,
            allocated: 4096,
            links: 3,
            mode: 0o644,
            accessed: Timestamp::new(40, 0),
            modified: Timestamp::new(20, 0),
            changed: Timestamp::new(30, 0),
            born: None,
            dos,
        }
    }

    fn dos(attributes: u32) -> Option<DosAttributes> {
        Some(DosAttributes { attributes, creation_time: None })
    }

    #[test]
    fn attributes_as_shown() {
        for (kind, stored, shown) in [
            (Kind::File, None, 0x20),
            (Kind::File, dos(0), 0x80),
            (Kind::File, dos(0x03), 0x03),
            (Kind::File, dos(0x10), 0x80),
            (Kind::Directory, None, 0x10),
            (Kind::Directory, dos(0x22), 0x32),
        ] {
            assert_eq!(attributes(&metadata(kind, stored)), FileAttributes(shown), "{kind:?} {stored:?}");
        }
    }

    #[test]
    fn only_what_differs_is_stored() {
        let store = |kind, bits| dos_to_store(kind, FileAttributes(bits), None).map(|dos| dos.attributes);
        assert_eq!(store(Kind::File, 0x20), None);
        assert_eq!(store(Kind::File, 0x80), Some(0));
        assert_eq!(store(Kind::File, 0x21), Some(0x21));
        assert_eq!(store(Kind::Directory, 0x10), None);
        assert_eq!(store(Kind::Directory, 0x12), Some(0x02));
        let born = Some(Timestamp::new(1, 0));
        assert!(dos_to_store(Kind::File, FileAttributes::ARCHIVE, born).is_some());
    }

    #[test]
    fn creation_time_falls_back() {
        let mut file = metadata(Kind::File, None);
        assert_eq!(creation_time(&file), Timestamp::new(20, 0));
        file.born = Some(Timestamp::new(15, 0));
        assert_eq!(creation_time(&file), Timestamp::new(15, 0));
        file.dos = Some(DosAttributes { attributes: 0, creation_time: Some(Timestamp::new(5, 0)) });
        assert_eq!(creation_time(&file), Timestamp::new(5, 0));
    }

    #[test]
    fn a_directory_has_no_size_and_one_name() {
        let facts = facts(&metadata(Kind::Directory, None));
        assert_eq!((facts.end_of_file, facts.allocation_size, facts.number_of_links), (0, 0, 1));
    }
}
