//! SMB2 LOCK: 2.2.26 and 2.2.27; processing in 3.3.5.14.
//!
//! LockSequenceNumber matters for handles that can be resumed (resilient, durable, persistent) and with multichannel; this
//! server grants none of these, so there is nothing to replay (3.3.5.14, "If Open.IsResilient or ...").

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::smb2::lock::{LockElement, LockRequest, LockResponse};

use crate::access;
use crate::context::Context;
use crate::reply::Reply;
use crate::state::byte_range::{Acquire, Range};
use crate::state::open::{DiskObject, Open};

const SHARED: u32 = 0x01;
const EXCLUSIVE: u32 = 0x02;
const UNLOCK: u32 = 0x04;
const FAIL_IMMEDIATELY: u32 = 0x10;

/// Answers a LOCK: locks or unlocks, as its first element says.
pub async fn handle(cx: &Context, request: LockRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    let disk = open.disk()?;
    let Some(first) = request.locks.first() else { return Err(NtStatus::INVALID_PARAMETER) };
    if disk.is_directory() {
        return Err(NtStatus::INVALID_DEVICE_REQUEST);
    }
    if first.flags == UNLOCK {
        return unlock(&open, disk, &request.locks);
    }
    access::require_any(open.granted_access, AccessMask::READ_DATA | AccessMask::WRITE_DATA)?;
    // All are checked before any is taken.
    let locks = request
        .locks
        .iter()
        .map(|element| Wanted::new(element, request.locks.len()))
        .collect::<Result<Vec<Wanted>, NtStatus>>()?;
    for (at, lock) in locks.iter().enumerate() {
        if let Err(status) = take(cx, &open, disk, lock).await {
            give_back(&open, disk, &locks[..at]);
            return Err(status);
        }
    }
    Ok(LockResponse {}.into())
}

#[derive(Clone, Copy)]
struct Wanted {
    range: Range,
    exclusive: bool,
    wait: bool,
}

impl Wanted {
    fn new(element: &LockElement, count: usize) -> Result<Wanted, NtStatus> {
        let (exclusive, wait) = match element.flags {
            SHARED => (false, true),
            EXCLUSIVE => (true, true),
            flags if flags == SHARED | FAIL_IMMEDIATELY => (false, false),
            flags if flags == EXCLUSIVE | FAIL_IMMEDIATELY => (true, false),
            _ => return Err(NtStatus::INVALID_PARAMETER),
        };
        // 3.3.5.14.2: only a request for one lock may wait.
        if wait && count > 1 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let range = Range::new(element.offset, element.length).ok_or(NtStatus::INVALID_LOCK_RANGE)?;
        Ok(Wanted { range, exclusive, wait })
    }
}

async fn take(cx: &Context, open: &Open, disk: &DiskObject, lock: &Wanted) -> Result<(), NtStatus> {
    let (owner, limit) = (open.id.volatile, cx.connection.settings.limits.locks_per_open);
    loop {
        let decision = {
            let mut opens = disk.node().opens();
            // Under the same mutex as the end of the open, so that no lock is left behind.
            if open.is_closed() {
                return closed_meanwhile(open);
            }
            let ranges = opens.stream(disk.stream).ranges_or_new();
            ranges.acquire(owner, lock.range, lock.exclusive, lock.wait, limit)
        };
        match decision {
            Acquire::Granted => return Ok(()),
            Acquire::Refused => return Err(NtStatus::LOCK_NOT_GRANTED),
            Acquire::TooMany => return Err(NtStatus::INSUFFICIENT_RESOURCES),
            Acquire::Wait(turn) => cx.park(turn).await?,
        }
    }
}

/// The open was closed while the request waited. A CLOSE of the handle fails it; when the tree connect or the session ends, all that
/// stood in its way has ended as well, and Windows answers that the lock was had.
fn closed_meanwhile(open: &Open) -> Result<(), NtStatus> {
    let session_ended = open.session.upgrade().is_none_or(|session| session.is_closed());
    if open.tree.is_closed() || session_ended { Ok(()) } else { Err(NtStatus::RANGE_NOT_LOCKED) }
}

fn give_back(open: &Open, disk: &DiskObject, taken: &[Wanted]) {
    for lock in taken {
        let wakes = {
            let mut opens = disk.node().opens();
            let stream = opens.stream(disk.stream);
            let wakes = stream
                .ranges()
                .map(|ranges| ranges.undo(open.id.volatile, lock.range, lock.exclusive))
                .unwrap_or_default();
            stream.trim();
            wakes
        };
        drop(wakes);
    }
}

/// Unlocks one element after the other; those before one that fails stay unlocked (3.3.5.14.1).
fn unlock(open: &Open, disk: &DiskObject, elements: &[LockElement]) -> Result<Reply, NtStatus> {
    for element in elements {
        let range = Range { offset: element.offset, length: element.length };
        let wakes = {
            let mut opens = disk.node().opens();
            let stream = opens.stream(disk.stream);
            let wakes = if element.flags == UNLOCK {
                stream
                    .ranges()
                    .and_then(|ranges| ranges.release(open.id.volatile, range))
                    .ok_or(NtStatus::RANGE_NOT_LOCKED)
            } else {
                Err(NtStatus::INVALID_PARAMETER)
            };
            stream.trim();
            wakes
        };
        drop(wakes?);
    }
    Ok(LockResponse {}.into())
}
