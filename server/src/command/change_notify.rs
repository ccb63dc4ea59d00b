//! SMB2 CHANGE_NOTIFY: 2.2.35 and 2.2.36; processing in 3.3.5.19, MS-FSA 2.1.5.11.
//!
//! Changes that clients make through this server are seen; those that local processes make are not.

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::notify::{NotifyEncoder, NotifyFilter};
use shoal_protocol::smb2::change_notify::{ChangeNotifyRequest, ChangeNotifyResponse};

use crate::access;
use crate::context::Context;
use crate::reply::Reply;
use crate::state::notify::Answer;
use crate::state::open::{DiskObject, Open};

/// Answers a CHANGE_NOTIFY, once something has happened.
pub async fn handle(cx: &Context, request: ChangeNotifyRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    // Bits that mean nothing are never seen to happen.
    let filter = NotifyFilter(request.completion_filter);
    let disk = open.disk()?;
    if !disk.is_directory() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    access::require(open.granted_access, AccessMask::LIST_DIRECTORY)?;

    let room = request.output_buffer_length as usize;
    // The first request's room bounds what is kept between requests, as on Windows.
    let limit = room.min(cx.connection.settings.limits.notify_buffer);
    begin(cx, &open, disk, filter, request.flags & ChangeNotifyRequest::WATCH_TREE != 0, limit)?;
    loop {
        let answer = match disk.node().opens().watches() {
            Some(watches) => watches.poll(open.id.volatile, room),
            None => None,
        };
        match answer {
            Some(Answer::Wait(turn)) => cx.park(turn).await?,
            Some(Answer::Deleted) => return Err(NtStatus::DELETE_PENDING),
            Some(Answer::Overflow) => return Ok(look_for_yourself()),
            Some(Answer::Changes(events)) => {
                let mut list = NotifyEncoder::new(room);
                let all = events.iter().all(|event| list.push(event.action, &event.name));
                return Ok(if all {
                    ChangeNotifyResponse { buffer: list.finish() }.into()
                } else {
                    look_for_yourself()
                });
            }
            // 3.3.5.10: a CLOSE ends what waits on the handle.
            None => return Ok(Reply::with_status(NtStatus::NOTIFY_CLEANUP, ChangeNotifyResponse::default())),
        }
    }
}

/// Begins the handle's watch, unless there is one.
fn begin(
    cx: &Context,
    open: &Open,
    disk: &DiskObject,
    filter: NotifyFilter,
    tree: bool,
    limit: usize,
) -> Result<(), NtStatus> {
    let mut opens = disk.node().opens();
    if open.is_closed() {
        return Err(NtStatus::FILE_CLOSED);
    }
    if opens.delete_pending(&disk.link) {
        return Err(NtStatus::DELETE_PENDING);
    }
    let watches = opens.watches_or_new();
    if !watches.contains(open.id.volatile) {
        watches.begin(open.id.volatile, filter, tree, limit);
        cx.server.watching.begin(tree);
    }
    Ok(())
}

/// 3.3.4.4: more happened than there is room for.
fn look_for_yourself() -> Reply {
    Reply::with_status(NtStatus::NOTIFY_ENUM_DIR, ChangeNotifyResponse::default())
}
