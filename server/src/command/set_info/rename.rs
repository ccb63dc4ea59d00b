//! Renaming and linking by handle: FileRenameInformation and FileLinkInformation, MS-FSA 2.1.5.15.11 and 2.1.5.15.6.

use std::sync::Arc;

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::fscc::file_info::{LinkInformation, RenameFlags, RenameInformation, RenameInformationEx};
use shoal_protocol::fscc::notify::{NotifyAction, NotifyFilter};
use shoal_vfs::{CaughtUp, FsError, Kind, Link, Name, Node, OpenHow, Opens, RenameError, RenameView, Root};

use super::file::too_short;
use crate::Server;
use crate::access;
use crate::context::Context;
use crate::convert;
use crate::name;
use crate::state::file::{NodeState, StreamName};
use crate::state::open::{DiskObject, Object, Open};

/// FileRenameInformation.
pub async fn rename(cx: &Context, open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let asked = RenameInformation::parse(data).map_err(too_short)?;
    rename_to(cx, open, disk, Target::new(asked.root_directory, &asked.file_name, asked.replace_if_exists))
        .await
}

/// FileRenameInformationEx.
pub async fn rename_ex(cx: &Context, open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let asked = RenameInformationEx::parse(data).map_err(too_short)?;
    rename_to(cx, open, disk, Target::of_flags(&asked)?).await
}

/// FileLinkInformation.
pub async fn link(cx: &Context, open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let asked = LinkInformation::parse(data).map_err(too_short)?;
    link_to(cx, open, disk, Target::new(asked.root_directory, &asked.file_name, asked.replace_if_exists))
        .await
}

/// FileLinkInformationEx.
pub async fn link_ex(cx: &Context, open: &Open, disk: &DiskObject, data: &[u8]) -> Result<(), NtStatus> {
    let asked = RenameInformationEx::parse(data).map_err(too_short)?;
    link_to(cx, open, disk, Target::of_flags(&asked)?).await
}

/// The new name, as a request states it.
#[derive(Clone, Copy)]
struct Target<'a> {
    root: u64,
    name: &'a [u16],
    replace: bool,
    /// Even what is open is replaced, and an empty directory by another.
    posix: bool,
    even_read_only: bool,
}

/// Flags without a meaning where nothing is pinned and no storage reserved. Those about reserves take the right to manage the volume,
/// which nobody has here.
const WITHOUT_EFFECT: RenameFlags =
    RenameFlags::SUPPRESS_PIN_STATE_INHERITANCE.union(RenameFlags::SUPPRESS_STORAGE_RESERVE_INHERITANCE);
const MANAGE_VOLUME: RenameFlags =
    RenameFlags::NO_INCREASE_AVAILABLE_SPACE.union(RenameFlags::NO_DECREASE_AVAILABLE_SPACE);

impl<'a> Target<'a> {
    fn new(root: u64, name: &'a [u16], replace: bool) -> Target<'a> {
        Target { root, name, replace, posix: false, even_read_only: false }
    }

    fn of_flags(asked: &'a RenameInformationEx) -> Result<Target<'a>, NtStatus> {
        let flags = asked.flags;
        let known = WITHOUT_EFFECT
            | MANAGE_VOLUME
            | RenameFlags::REPLACE_IF_EXISTS
            | RenameFlags::POSIX_SEMANTICS
            | RenameFlags::IGNORE_READONLY_ATTRIBUTE;
        if !known.contains(flags) {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        if flags.intersects(MANAGE_VOLUME) {
            return Err(NtStatus::PRIVILEGE_NOT_HELD);
        }
        Ok(Target {
            root: asked.root_directory,
            name: &asked.file_name,
            replace: flags.contains(RenameFlags::REPLACE_IF_EXISTS),
            posix: flags.contains(RenameFlags::POSIX_SEMANTICS),
            even_read_only: flags.contains(RenameFlags::IGNORE_READONLY_ATTRIBUTE),
        })
    }

    /// The directory and the name in it.
    async fn resolve(
        &self,
        cx: &Context,
        root: &Root<NodeState>,
        caught_up: &mut CaughtUp,
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
        let dir = cx.server.vfs.resolve_parent_within(root, &parsed.path, caught_up).await;
        Ok((dir.map_err(convert::status)?, last.clone()))
    }

    /// A READONLY file is not replaced (MS-FSA 2.1.5.15.11).
    async fn check_read_only(
        &self,
        cx: &Context,
        source: &Link<NodeState>,
        dir: &Arc<Node<NodeState>>,
        name: &Name,
        caught_up: &mut CaughtUp,
    ) -> Result<(), NtStatus> {
        if !self.replace || self.even_read_only {
            return Ok(());
        }
        let vfs = &cx.server.vfs;
        let looked = vfs.lookup_within(dir, name, caught_up).await.map_err(convert::status)?;
        let Some((link, metadata)) = looked else {
            return Ok(());
        };
        if link.node().id() == source.node().id() || link.node().kind() != Kind::File {
            return Ok(());
        }
        let metadata = match metadata {
            Some(metadata) => metadata,
            None => match caught_up.across(vfs.open(&link, OpenHow::default())).await {
                Ok(file) => caught_up.across(file.metadata()).await.map_err(convert::status)?,
                // It is going: the rename will see what is there then.
                Err(_) => return Ok(()),
            },
        };
        if convert::attributes(&metadata).contains(FileAttributes::READONLY) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        Ok(())
    }

    /// Whether the rules let `target` be replaced by something of this kind (MS-FSA 2.1.5.15.11).
    fn admit(
        &self,
        source: Kind,
        target: &Link<NodeState>,
        opens: &mut Opens<'_, NodeState>,
    ) -> Result<(), NtStatus> {
        let directory = target.node().kind() == Kind::Directory;
        if directory && !(self.posix && source == Kind::Directory) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        // Whoever has it open has agreed to its going with FILE_SHARE_DELETE, or has not.
        if opens.open_count(target) > 0
            && !(self.posix && opens.stream(StreamName::Unnamed).modes().all_share_delete())
        {
            return Err(NtStatus::ACCESS_DENIED);
        }
        Ok(())
    }
}

/// What the rules saw of a rename or link that they let pass.
struct Seen {
    /// Where the source stood.
    from: Option<(Arc<Node<NodeState>>, Name)>,
    /// What went from the new name, and how that was spelled.
    replaced: Option<(Name, Kind)>,
}

impl Seen {
    fn of(view: &RenameView<'_, NodeState>) -> Seen {
        let target = view.target.as_ref().map(|(target, _)| target).or(view.sibling.as_ref());
        let replaced = target.and_then(|target| Some((target.name()?, target.node().kind())));
        Seen { from: view.link.place(), replaced }
    }
}

async fn rename_to(cx: &Context, open: &Open, disk: &DiskObject, target: Target<'_>) -> Result<(), NtStatus> {
    access::require(open.granted_access, AccessMask::DELETE)?;
    let root = open.tree.share.root().ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
    let mut caught_up = CaughtUp::default();
    let (to_dir, to) = target.resolve(cx, root, &mut caught_up).await?;
    if disk.link.is_in(&to_dir) {
        require_parent(&to_dir)?;
    } else {
        let Some((from_dir, _)) = disk.link.place() else { return Err(NtStatus::ACCESS_DENIED) };
        require_parent(&from_dir)?;
        require_parent(&to_dir)?;
        if to_dir.is_delete_pending() {
            return Err(NtStatus::DELETE_PENDING);
        }
    }
    target.check_read_only(cx, &disk.link, &to_dir, &to, &mut caught_up).await?;

    // Only a directory's opens are looked for in the whole server.
    let server = (disk.node().kind() == Kind::Directory).then(|| cx.server.clone());
    let rules = Target { name: &[], ..target };
    let admit = move |view: &mut RenameView<'_, NodeState>| {
        admit_rename(server.as_deref(), rules, view)?;
        Ok(Seen::of(view))
    };
    let vfs = &cx.server.vfs;
    let renamed = vfs.rename_within(&disk.link, &to_dir, &to, target.replace, admit, &mut caught_up).await;
    let seen = renamed.map_err(|error| refusal(error, target.posix))?;
    announce_moved(&cx.server, disk, seen, &to_dir, &to);
    Ok(())
}

/// What a client is told of a rename or link that did not come about.
fn refusal(error: RenameError<NtStatus>, posix: bool) -> NtStatus {
    let error = match error {
        RenameError::Refused(status) => return status,
        RenameError::Fs(error) => error,
    };
    match error {
        FsError::NotEmpty if posix => NtStatus::DIRECTORY_NOT_EMPTY,
        // The storage's words for a directory that is in the way.
        FsError::IsADirectory | FsError::NotADirectory | FsError::NotEmpty => NtStatus::ACCESS_DENIED,
        error => convert::status(error),
    }
}

/// A directory that somebody may delete gives no names away and takes none: MS-FSA 2.1.5.15.11 opens the new parent without
/// FILE_SHARE_DELETE; Windows and Samba look at the old one too.
fn require_parent(dir: &Node<NodeState>) -> Result<(), NtStatus> {
    if dir.opens().stream(StreamName::Unnamed).modes().has_deleters() {
        return Err(NtStatus::SHARING_VIOLATION);
    }
    Ok(())
}

/// What decides, under the opens of both names, just before the storage is asked. `server` is given for a directory.
fn admit_rename(
    server: Option<&Server>,
    rules: Target<'_>,
    view: &mut RenameView<'_, NodeState>,
) -> Result<(), NtStatus> {
    if view.source.delete_pending(view.link) {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let source = view.link.node();
    if let Some((target, opens)) = &mut view.target {
        rules.admit(source.kind(), target, opens)?;
    }
    // A sibling is of the same object, and has opens of its own.
    if let Some(sibling) = &view.sibling
        && view.source.open_count(sibling) > 0
        && !(rules.posix && view.source.stream(StreamName::Unnamed).modes().all_share_delete())
    {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if server.is_some_and(|server| is_open_below(server, source)) {
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

/// The change that is told of names of this kind.
fn name_filter(kind: Kind) -> NotifyFilter {
    match kind {
        Kind::Directory => NotifyFilter::DIR_NAME,
        Kind::File | Kind::Symlink | Kind::Special => NotifyFilter::FILE_NAME,
    }
}

/// Tells the name that went by being replaced, if one did.
fn announce_replaced(server: &Server, dir: &Arc<Node<NodeState>>, replaced: Option<(Name, Kind)>) {
    if let Some((name, kind)) = replaced {
        server.watching.announce(dir, &[(NotifyAction::Removed, &name)], name_filter(kind));
    }
}

fn announce_moved(server: &Server, disk: &DiskObject, seen: Seen, to_dir: &Arc<Node<NodeState>>, to: &Name) {
    let Some((from_dir, from)) = seen.from else { return };
    let within = from_dir.id() == to_dir.id();
    if within && from == *to {
        // It had the name already.
        return;
    }
    announce_replaced(server, to_dir, seen.replaced);
    let filter = name_filter(disk.node().kind());
    if within {
        let changes = [(NotifyAction::RenamedOldName, &from), (NotifyAction::RenamedNewName, to)];
        server.watching.announce(to_dir, &changes, filter);
    } else {
        server.watching.announce(&from_dir, &[(NotifyAction::Removed, &from)], filter);
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
    let mut caught_up = CaughtUp::default();
    let (to_dir, to) = target.resolve(cx, root, &mut caught_up).await?;
    require_parent(&to_dir)?;
    if to_dir.is_delete_pending() {
        return Err(NtStatus::DELETE_PENDING);
    }
    target.check_read_only(cx, &disk.link, &to_dir, &to, &mut caught_up).await?;
    let rules = Target { name: &[], ..target };
    let admit = move |view: &mut RenameView<'_, NodeState>| {
        if view.source.delete_pending(view.link) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        if let Some((target, opens)) = &mut view.target {
            rules.admit(view.link.node().kind(), target, opens)?;
        }
        Ok((Seen::of(view), view.sibling.is_some()))
    };
    let linked = cx.server.vfs.link(&disk.link, &disk.file, &to_dir, &to, target.replace, admit).await;
    let (_, (seen, had_it)) = linked.map_err(|error| refusal(error, target.posix))?;
    // A file that had the name already is left as it was.
    if !had_it {
        announce_replaced(&cx.server, &to_dir, seen.replaced);
        cx.server.watching.announce(&to_dir, &[(NotifyAction::Added, &to)], NotifyFilter::FILE_NAME);
    }
    Ok(())
}
