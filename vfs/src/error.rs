//! `FsError`: the short list of causes for which anything in this crate fails.
//!
//! The words are POSIX'; the server's `convert.rs` turns each into one NTSTATUS.

use std::future::Future;
use std::pin::Pin;

/// Why an operation on the tree failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// The last component of the path, or the object itself, does not exist.
    #[error("no such object")]
    NotFound,
    /// An inner component of the path is missing or is no directory.
    #[error("no such path")]
    PathNotFound,
    /// The name is taken.
    #[error("the name exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// Something other than a directory was needed.
    #[error("is a directory")]
    IsADirectory,
    /// The directory that was to be removed or replaced has names in it.
    #[error("directory not empty")]
    NotEmpty,
    /// The server's own identity may not do this.
    #[error("access denied")]
    AccessDenied,
    /// The storage is mounted read-only.
    #[error("read-only storage")]
    ReadOnly,
    /// The storage is full.
    #[error("no space left")]
    NoSpace,
    /// The process or the system has no descriptor left.
    #[error("too many open files")]
    TooManyOpenFiles,
    /// The name is longer than the storage takes.
    #[error("name too long")]
    NameTooLong,
    /// The storage refuses the name.
    #[error("invalid name")]
    InvalidName,
    /// The request makes no sense: a directory moved below itself, an offset out of range.
    #[error("invalid argument")]
    Invalid,
    /// Source and target lie on different storage.
    #[error("crosses devices")]
    CrossDevice,
    /// The name no longer means the object that was expected: look up again.
    #[error("stale")]
    Stale,
    /// In use, or given up after many lost races.
    #[error("busy")]
    Busy,
    /// A component is a symbolic link; links are never followed.
    #[error("symbolic link")]
    Symlink,
    /// A device, FIFO or socket; such objects are never opened.
    #[error("special file")]
    SpecialFile,
    /// The storage cannot do this.
    #[error("not supported")]
    NotSupported,
    /// The quota is used up.
    #[error("quota exceeded")]
    Quota,
    /// The file would be larger than the storage takes.
    #[error("file too large")]
    FileTooLarge,
    /// Memory ran out.
    #[error("out of memory")]
    NoMemory,
    /// The object's deletion is pending.
    #[error("deletion pending")]
    Deleted,
    /// A change was begun and nobody knows whether it happened.
    #[error("outcome unknown")]
    Indeterminate,
    /// Any other error number of the operating system.
    #[error("input/output error (os error {0})")]
    Io(i32),
}

impl FsError {
    /// Whether the error contradicts what a cache believes of a name, so that it must be looked up again.
    pub fn contradicts_cache(&self) -> bool {
        matches!(
            self,
            FsError::NotFound
                | FsError::PathNotFound
                | FsError::Stale
                | FsError::Exists
                | FsError::NotADirectory
                | FsError::IsADirectory
        )
    }
}

/// The result of everything in this crate.
pub type Result<T, E = FsError> = std::result::Result<T, E>;

/// A boxed future of a backend's verb.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;
