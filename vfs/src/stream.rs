//! Named streams, kept in extended attributes of their file as Samba's `streams_xattr` keeps them, so that a share can be taken over
//! and given back: the stream `notes` of type `$DATA` is the attribute `user.DosStream.notes:$DATA`, its value the stream's bytes and one
//! NUL. A value holds 64 KiB at most (ext4: as much as is left of a block), and is read and written whole.

use crate::backend::BackendFile;
use crate::error::{FsError, Result};
use crate::fold::Fold;
use crate::name::Name;

const PREFIX: &str = "user.DosStream.";
const SUFFIX: &str = ":$DATA";

/// The most bytes of a stream: Linux' limit for an extended attribute's value, less the NUL.
pub const STREAM_BYTES_MAX: usize = 65_535;

/// The extended attribute that keeps the stream `name`.
///
/// # Errors
/// `InvalidName` for a name that is no text, `NameTooLong` for one that Linux cannot keep.
pub fn xattr_name(name: &Name) -> Result<String> {
    let text = std::str::from_utf8(name.as_wtf8()).map_err(|_| FsError::InvalidName)?;
    if PREFIX.len() + text.len() + SUFFIX.len() > 255 {
        return Err(FsError::NameTooLong);
    }
    Ok(format!("{PREFIX}{text}{SUFFIX}"))
}

/// The stream that an extended attribute keeps, if it keeps one.
pub fn stream_name(xattr: &str) -> Option<Name> {
    Name::from_str(xattr.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?).ok()
}

/// The name, as it is stored, of the stream that `name` means in any case.
///
/// # Errors
/// What the backend says.
pub async fn find(file: &dyn BackendFile, name: &Name, fold: &Fold) -> Result<Option<Name>> {
    let mut names =
        file.list_xattrs().await?.into_iter().filter_map(|xattr| stream_name(&xattr)).collect::<Vec<_>>();
    names.sort();
    let exact = names.iter().position(|stored| stored == name);
    let found = exact.or_else(|| names.iter().position(|stored| fold.eq(stored, name)));
    Ok(found.map(|index| names.swap_remove(index)))
}

/// The names and lengths of a file's streams (not its main one).
///
/// # Errors
/// What the backend says.
pub async fn list(file: &dyn BackendFile) -> Result<Vec<(Name, u64)>> {
    let mut streams = Vec::new();
    for xattr in file.list_xattrs().await? {
        if let Some(name) = stream_name(&xattr)
            && let Some(value) = file.get_xattr(&xattr).await?
        {
            streams.push((name, value.len().saturating_sub(1) as u64));
        }
    }
    Ok(streams)
}

/// All bytes of a stream; `None` if there is none of this name.
///
/// # Errors
/// What the backend says.
pub async fn read(file: &dyn BackendFile, name: &Name) -> Result<Option<Vec<u8>>> {
    let mut value = file.get_xattr(&xattr_name(name)?).await?;
    if let Some(value) = &mut value {
        // The NUL is no part of it. What has none was cut short by somebody else, and is taken as it is.
        if value.last() == Some(&0) {
            value.pop();
        }
    }
    Ok(value)
}

/// Makes `content` all of a stream, and the stream if there is none.
///
/// # Errors
/// `FileTooLarge` for more than [`STREAM_BYTES_MAX`], and what the backend says.
pub async fn write(file: &dyn BackendFile, name: &Name, content: &[u8]) -> Result<()> {
    if content.len() > STREAM_BYTES_MAX {
        return Err(FsError::FileTooLarge);
    }
    let mut value = Vec::with_capacity(content.len() + 1);
    value.extend_from_slice(content);
    value.push(0);
    file.set_xattr(&xattr_name(name)?, &value).await
}

/// Removes a stream.
///
/// # Errors
/// What the backend says.
pub async fn remove(file: &dyn BackendFile, name: &Name) -> Result<()> {
    file.remove_xattr(&xattr_name(name)?).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Backend, CreateHow};
    use crate::local::{Local, Options};
    use crate::name::DiskName;

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    #[test]
    fn names() {
        assert_eq!(xattr_name(&name("bar")).unwrap(), "user.DosStream.bar:$DATA");
        assert_eq!(stream_name("user.DosStream.bar:$DATA"), Some(name("bar")));
        for other in
            ["user.DOSATTRIB", "user.DosStream.:$DATA", "user.DosStream.bar", "user.DosStream.a\\b:$DATA"]
        {
            assert_eq!(stream_name(other), None, "{other}");
        }
        assert_eq!(xattr_name(&name(&"x".repeat(240))), Err(FsError::NameTooLong));
        assert_eq!(xattr_name(&Name::from_utf16(&[0xD800]).unwrap()), Err(FsError::InvalidName));
    }

    #[tokio::test]
    async fn contents() {
        let path = std::env::temp_dir().join(format!("shoal-stream-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let local = Local::open(&path, Options::default()).unwrap();
        let root = local.root().await.unwrap().node;
        let (_, file) = local.create(&root, &DiskName::new(b"f"), &CreateHow::file()).await.unwrap();
        let file = &*file;
        assert_eq!(read(file, &name("s")).await, Ok(None));
        write(file, &name("s"), b"").await.unwrap();
        write(file, &name("Tail"), b"ends in NUL\0").await.unwrap();
        assert_eq!(read(file, &name("s")).await, Ok(Some(vec![])));
        assert_eq!(read(file, &name("Tail")).await, Ok(Some(b"ends in NUL\0".to_vec())));
        assert_eq!(find(file, &name("tAIL"), &Fold::Insensitive).await, Ok(Some(name("Tail"))));
        assert_eq!(find(file, &name("tAIL"), &Fold::Sensitive).await, Ok(None));
        assert_eq!(write(file, &name("s"), &vec![0; 65_536]).await, Err(FsError::FileTooLarge));
        let mut listed = list(file).await.unwrap();
        listed.sort();
        assert_eq!(listed, [(name("Tail"), 12), (name("s"), 0)]);
        remove(file, &name("s")).await.unwrap();
        assert_eq!(read(file, &name("s")).await, Ok(None));
        std::fs::remove_dir_all(&path).unwrap();
    }
}
