//! SMB2 CLOSE: 2.2.15 and 2.2.16; processing in 3.3.5.10. And all other ends of an open: 3.3.4.17.

use std::sync::Arc;

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::notify::{NotifyAction, NotifyFilter};
use shoal_protocol::smb2::close::{CloseRequest, CloseResponse, POSTQUERY_ATTRIB};
use shoal_vfs::{FsError, Kind, Removal, SetMetadata};

use crate::Server;
use crate::context::Context;
use crate::convert::{self, Facts};
use crate::reply::Reply;
use crate::state::open::{DiskObject, Object, Open};

/// Answers a CLOSE.
pub async fn handle(cx: &Context, request: CloseRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    let wanted = request.flags & POSTQUERY_ATTRIB != 0;
    let Some(closed) = finish(&cx.server, &open, wanted).await else {
        return Err(NtStatus::FILE_CLOSED);
    };
    let mut response = CloseResponse::default();
    if let Some(facts) = closed {
        response.flags = POSTQUERY_ATTRIB;
        response.creation_time = facts.creation_time;
        response.last_access_time = facts.last_access_time;
        response.last_write_time = facts.last_write_time;
        response.change_time = facts.change_time;
        response.allocation_size = facts.allocation_size;
        response.end_of_file = facts.end_of_file;
        response.file_attributes = facts.attributes;
    }
    Ok(response.into())
}

/// Closes an open whose session, tree connect or connection has ended. Nothing happens if it is being closed already.
pub async fn close_open(server: &Arc<Server>, open: Arc<Open>) {
    finish(server, &open, false).await;
}

/// Does all of closing: what others wait for is given up, and the name goes if this was the last handle of one that is to be deleted.
/// The facts are those just before. `None`: somebody else closes, or has closed, this open.
async fn finish(server: &Arc<Server>, open: &Arc<Open>, wanted: bool) -> Option<Option<Facts>> {
    if !open.close() {
        return None;
    }
    if let Some(session) = open.session.upgrade() {
        session.remove_open(open.id);
    }
    match &open.object {
        Object::Disk(disk) => Some(finish_disk(server, open, disk, wanted).await),
        Object::Pipe(pipe) => {
            pipe.close();
            Some(None)
        }
    }
}

async fn finish_disk(server: &Arc<Server>, open: &Open, disk: &DiskObject, wanted: bool) -> Option<Facts> {
    let (wrote, delete_on_close, posix_delete) = {
        let changing = disk.changing.lock();
        (changing.wrote, changing.delete_on_close, changing.posix_delete)
    };
    let settled = disk.node().opens().stream(disk.stream).write_time.closing(wrote, convert::now());
    if let Some(time) = settled {
        let set = SetMetadata { modified: Some(convert::timestamp(time)), ..SetMetadata::default() };
        if let Err(error) = disk.file.set_metadata(&set).await {
            tracing::debug!(%error, "the write time could not be set at close");
        }
    }
    let facts = if wanted { convert::current_facts(disk).await.ok() } else { None };

    let (wakes, watch, removal) = {
        let mut opens = disk.node().opens();
        let mut wakes = opens.stream(disk.stream).leave(open.id.volatile, disk.claim);
        let watch = opens.watches().and_then(|watches| watches.end(open.id.volatile));
        if delete_on_close && !opens.is_gone(&disk.link) {
            opens.set_delete_pending(&disk.link, true);
            if let Some(watches) = opens.watches() {
                wakes.extend(watches.delete_pending());
            }
        }
        opens.trim_watches();
        let removal = match opens.detach(&disk.link) {
            true => Some(When::Unused),
            false if posix_delete && opens.delete_pending(&disk.link) => Some(When::InUse),
            false => None,
        };
        (wakes, watch, removal)
    };
    drop(wakes);
    if let Some((tree, wakes)) = watch {
        server.watching.end(tree);
        drop(wakes);
    }
    if let Some(when) = removal {
        remove(server, disk, when).await;
    }
    facts
}

/// What a name that is to be deleted goes with.
#[derive(Clone, Copy)]
enum When {
    /// Its last handle.
    Unused,
    /// The handle that asked for POSIX semantics.
    InUse,
}

/// Removes the name, which is to be deleted.
async fn remove(server: &Arc<Server>, disk: &DiskObject, when: When) {
    let place = disk.link.place();
    let removal = match when {
        When::Unused => server.vfs.remove_link(&disk.link).await,
        When::InUse => server.vfs.remove_link_in_use(&disk.link).await,
    };
    match removal {
        Ok(Removal::AlreadyGone | Removal::Kept) => {}
        Ok(Removal::Removed) => {
            if let Some((dir, name)) = place {
                let filter = match disk.node().kind() {
                    Kind::Directory => NotifyFilter::DIR_NAME,
                    Kind::File | Kind::Symlink | Kind::Special => NotifyFilter::FILE_NAME,
                };
                server.watching.announce(&dir, &[(NotifyAction::Removed, &name)], filter);
            }
        }
        // A directory may have got a name since it was marked: then it stays, and is no longer marked (MS-FSA 2.1.5.4).
        Err(FsError::NotEmpty) => {}
        Err(error) => tracing::info!(%error, "a file that was to be deleted at close could not be"),
    }
}
