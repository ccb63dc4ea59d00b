//! Renaming and linking by handle: FileRenameInformation and FileLinkInformation, MS-FSA 2.1.5.14.11 and 2.1.5.14.6.

use std::sync::Arc;

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::fscc::file_info::{LinkInformation, RenameFlags, RenameInformation, RenameInformationEx};
use shoal_protocol::fscc::notify::{NotifyAction, NotifyFilter};
use shoal_vfs::{Kind, Link, Name, Node, OpenHow, RenameError, RenameView, Root};

use super::file::too_short;
use crate::Server;
use crate::access;
use crate::context::Context;
use crate::convert;
use crate::name;
use crate::state::file::NodeState;
use crate::state::open::{DiskObject, Object, Open};

/// FileRenameInformation.
pub async fn rename(cx: &Context, open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let asked = RenameInformation::parse(data).map_err(too_short)?;
    let target = Target {
        root: asked.root_directory,
        name: &asked.file_name,
        replace: asked.replace_if_exists,
        even_read_only: false,
    };
    rename_to(cx, open, disk, target).await
}

/// FileRenameInformationEx. POSIX_SEMANTICS changes nothing: an open target stays in the way.
pub async fn rename_ex(cx: &Context, open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let asked = RenameInformationEx::parse(data).map_err(too_short)?;
    rename_to(cx, open, disk, Target::of_flags(&asked)).await
}

/// FileLinkInformation.
pub async fn link(cx: &Context, open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let asked = LinkInformation::parse(data).map_err(too_short)?;
    let target = Target {
        root: asked.root_directory,
        name: &asked.file_name,
        replace: asked.replace_if_exists,
        even_read_only: false,
    };
    link_to(cx, open, disk, target).await
}

/// FileLinkInformationEx.
pub async fn link_ex(cx: &Context, open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let asked = RenameInformationEx::parse(data).map_err(too_short)?;
    link_to(cx, open, disk, Target::of_flags(&asked)).await
}

/// The new name, as a request states it.
#[derive(Clone, Copy)]
struct Target<'a> {
    root: u64,
    name: &'a [u16],
    replace: bool,
    even_read_only: bool,
}

impl<'a> Target<'a> {
    fn of_flags(asked: &'a RenameInformationEx) -> Target<'a> {
        Target {
            root: asked.root_directory,
            name: &asked.file_name,
            replace: asked.flags.contains(RenameFlags::REPLACE_IF_EXISTS),
            even_read_only: asked.flags.contains(RenameFlags::IGNORE_READONLY_ATTRIBUTE),
        }
    }

    /// The directory and the name in it.
    async fn resolve(
        &self,
        cx: &Context,
        root: &Root<NodeState>,
    ) -> Result<(Arc<Node<NodeState>>, Name), NtStatus> {
        // 3.3.5.21.1: RootDirectory is 0 over the network.
        if self.root != 0 || self.name.is_empty() {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let parsed = name::parse(self.name)?;
        if parsed.names_data {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        let Some((_, last)) = parsed.path.parent_and_last() else {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        };
        let dir = cx.server.vfs.resolve_parent(root, &parsed.path).await.map_err(convert::status)?;
        Ok((dir, last.clone()))
    }

    /// A READONLY file is not replaced (MS-FSA 2.1.5.14.11).
    async fn check_read_only(
        &self,
        cx: &Context,
        source: &Link<NodeState>,
        dir: &Arc<Node<NodeState>>,
        name: &Name,
    ) -> Result<(), NtStatus> {
        if !self.replace || self.even_read_only {
            return Ok(());
        }
        let vfs = &cx.server.vfs;
        let Some((link, metadata)) = vfs.lookup_with_metadata(dir, name).await.map_err(convert::status)?
        else {
            return Ok(());
        };
        if link.node().id() == source.node().id() || link.node().kind() != Kind::File {
            return Ok(());
        }
        let metadata = match metadata {
            Some(metadata) => metadata,
            None => match vfs.open(&link, OpenHow::default()).await {
                Ok(file) => file.metadata().await.map_err(convert::status)?,
                // It is going: the rename will see what is there then.
                Err(_) => return Ok(()),
            },
        };
        if convert::attributes(&metadata).contains(FileAttributes::READONLY) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        Ok(())
    }
}

async fn rename_to(cx: &Context, open: &Open, disk: &DiskObject, target: Target<'_>) -> Result<(), NtStatus> {
    access::require(open.granted_access, AccessMask::DELETE)?;
    let root = open.tree.share.root().ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
    let (to_dir, to) = target.resolve(cx, root).await?;
    let Some((from_dir, from)) = disk.link.place() else { return Err(NtStatus::ACCESS_DENIED) };
    require_parent(&from_dir)?;
    target.check_read_only(cx, &disk.link, &to_dir, &to).await?;

    let server = cx.server.clone();
    let admit = move |view: &mut RenameView<'_, NodeState>| admit_rename(&server, view);
    match cx.server.vfs.rename(&disk.link, &to_dir, &to, target.replace, admit).await {
        Ok(()) => {}
        Err(RenameError::Refused(status)) => return Err(status),
        Err(RenameError::Fs(error)) => return Err(rename_status(error)),
    }
    announce_moved(&cx.server, disk, (&from_dir, &from), (&to_dir, &to));
    Ok(())
}

fn rename_status(error: shoal_vfs::FsError) -> NtStatus {
    match error {
        // The storage's words for a directory that is in the way.
        shoal_vfs::FsError::IsADirectory
        | shoal_vfs::FsError::NotADirectory
        | shoal_vfs::FsError::NotEmpty => NtStatus::ACCESS_DENIED,
        error => convert::status(error),
    }
}

/// A directory that somebody may delete gives no names away (SHARING_VIOLATION, as Windows and Samba have it).
fn require_parent(dir: &Node<NodeState>) -> Result<(), NtStatus> {
    if dir.opens().stream(Default::default()).modes().has_deleters() {
        return Err(NtStatus::SHARING_VIOLATION);
    }
    Ok(())
}

/// What decides, under the opens of both names, just before the storage is asked.
fn admit_rename(server: &Server, view: &mut RenameView<'_, NodeState>) -> Result<(), NtStatus> {
    if view.source.delete_pending(view.link) {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if let Some((target, opens)) = &mut view.target {
        if target.node().kind() == Kind::Directory {
            return Err(NtStatus::ACCESS_DENIED);
        }
        if opens.open_count(target) > 0 {
            return Err(NtStatus::ACCESS_DENIED);
        }
    }
    if view.link.node().kind() == Kind::Directory && is_open_below(server, view.link.node()) {
        return Err(NtStatus::ACCESS_DENIED);
    }
    Ok(())
}

/// Whether anything below the directory is open. Every open of the server is looked at: directories are renamed seldom.
fn is_open_below(server: &Server, directory: &Arc<Node<NodeState>>) -> bool {
    server.opens.iter().any(|entry| match &entry.value().object {
        Object::Disk(disk) => disk.link.place().is_some_and(|(dir, _)| dir.is_below(directory)),
        Object::Pipe(_) => false,
    })
}

fn announce_moved(
    server: &Server,
    disk: &DiskObject,
    (from_dir, from): (&Arc<Node<NodeState>>, &Name),
    (to_dir, to): (&Arc<Node<NodeState>>, &Name),
) {
    let filter = if disk.is_directory() { NotifyFilter::DIR_NAME } else { NotifyFilter::FILE_NAME };
    if from_dir.id() == to_dir.id() {
        let changes = [(NotifyAction::RenamedOldName, from), (NotifyAction::RenamedNewName, to)];
        server.watching.announce(from_dir, &changes, filter);
    } else {
        server.watching.announce(from_dir, &[(NotifyAction::Removed, from)], filter);
        server.watching.announce(to_dir, &[(NotifyAction::Added, to)], filter);
    }
    if !disk.is_directory() {
        // Windows says this of renamed files beside the names, and smbtorture waits for it.
        let filter = NotifyFilter::ATTRIBUTES | NotifyFilter::CREATION;
        server.watching.announce(to_dir, &[(NotifyAction::Modified, to)], filter);
    }
}

async fn link_to(cx: &Context, open: &Open, disk: &DiskObject, target: Target<'_>) -> Result<(), NtStatus> {
    access::require(open.tree.maximal_access, AccessMask::ADD_FILE)?;
    if disk.is_directory() {
        return Err(NtStatus::FILE_IS_A_DIRECTORY);
    }
    let root = open.tree.share.root().ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
    let (to_dir, to) = target.resolve(cx, root).await?;
    target.check_read_only(cx, &disk.link, &to_dir, &to).await?;
    let admit = |view: &mut RenameView<'_, NodeState>| {
        if view.source.delete_pending(view.link) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        match &mut view.target {
            Some((target, _)) if target.node().kind() == Kind::Directory => Err(NtStatus::ACCESS_DENIED),
            Some((target, opens)) if opens.open_count(target) > 0 => Err(NtStatus::ACCESS_DENIED),
            _ => Ok(()),
        }
    };
    match cx.server.vfs.link(&disk.link, &disk.file, &to_dir, &to, target.replace, admit).await {
        Ok(_) => {}
        Err(RenameError::Refused(status)) => return Err(status),
        Err(RenameError::Fs(error)) => return Err(rename_status(error)),
    }
    cx.server.watching.announce(&to_dir, &[(NotifyAction::Added, &to)], NotifyFilter::FILE_NAME);
    Ok(())
}
