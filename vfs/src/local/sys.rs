//! Every system call of the local backend, and every `unsafe` of the workspace. Each function is one call (repeated while it is
//! interrupted), relative to a descriptor; none takes a path of several components, but for the magic links in `/proc/self/fd`, which
//! name a descriptor of ours.
//!
//! In tests each call is counted by name, per thread: see [`counted`].

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, SeekFrom,
    StatFs, Statx, StatxFlags, Timestamps, XattrFlags,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, Rlimit};

use super::moves::Cookie;
use crate::backend::Change;
use crate::error::FsError;

/// The result of a system call.
pub(super) type Call<T> = Result<T, Errno>;

impl From<Errno> for FsError {
    fn from(errno: Errno) -> FsError {
        match errno {
            Errno::NOENT => FsError::NotFound,
            Errno::EXIST => FsError::Exists,
            Errno::NOTDIR => FsError::NotADirectory,
            Errno::ISDIR => FsError::IsADirectory,
            Errno::NOTEMPTY => FsError::NotEmpty,
            // BADF: the descriptor is not open for that.
            Errno::ACCESS | Errno::PERM | Errno::BADF => FsError::AccessDenied,
            Errno::ROFS => FsError::ReadOnly,
            Errno::NOSPC => FsError::NoSpace,
            Errno::MFILE | Errno::NFILE => FsError::TooManyOpenFiles,
            Errno::NAMETOOLONG => FsError::NameTooLong,
            Errno::ILSEQ => FsError::InvalidName,
            Errno::INVAL | Errno::OVERFLOW => FsError::Invalid,
            Errno::XDEV => FsError::CrossDevice,
            Errno::STALE => FsError::Stale,
            Errno::BUSY | Errno::TXTBSY | Errno::AGAIN => FsError::Busy,
            Errno::LOOP => FsError::Symlink,
            Errno::NXIO | Errno::NODEV => FsError::SpecialFile,
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY => FsError::NotSupported,
            Errno::DQUOT => FsError::Quota,
            Errno::FBIG => FsError::FileTooLarge,
            Errno::NOMEM => FsError::NoMemory,
            other => FsError::Io(other.raw_os_error()),
        }
    }
}

#[cfg(any(test, feature = "counted"))]
thread_local! {
    static CALLS: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[inline]
fn count(_call: &'static str) {
    #[cfg(any(test, feature = "counted"))]
    CALLS.with_borrow_mut(|calls| calls.push(_call));
}

/// The system calls that this thread has made since the last time it asked.
#[cfg(any(test, feature = "counted"))]
pub(super) fn take_calls() -> Vec<&'static str> {
    CALLS.take()
}

/// Opens a directory by an ordinary path: a share's root, once.
pub(super) fn open_root(path: &std::path::Path) -> Call<OwnedFd> {
    count("open");
    retry_on_intr(|| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    })
}

static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// How often what is moved away while it is being opened is looked for again.
const OPEN_TRIES: usize = 4;

/// Opens `name` (one component, or `.`) in `dir`. Follows no link of any sort; with `one_mount`, enters no other mount (EXDEV).
/// ESTALE: it was moved out of `dir` each time that it was tried.
pub(super) fn open_at(
    dir: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
    mode: u32,
    one_mount: bool,
) -> Call<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::from_raw_mode(mode);
    if !NO_OPENAT2.load(Relaxed) {
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        if one_mount {
            resolve |= ResolveFlags::NO_XDEV;
        }
        for _ in 0..OPEN_TRIES {
            count("openat2");
            match retry_on_intr(|| rustix::fs::openat2(dir, name, flags, mode, resolve)) {
                Err(Errno::NOSYS) => {
                    NO_OPENAT2.store(true, Relaxed);
                    break;
                }
                // Another mount, or what RESOLVE_BENEATH says of an object that somebody has moved out of `dir` between
                // its being found and the end of the call.
                Err(Errno::XDEV) => {}
                result => return result,
            }
        }
        if !NO_OPENAT2.load(Relaxed) {
            return Err(if one_mount { Errno::XDEV } else { Errno::STALE });
        }
    }
    // Before Linux 5.6. With a single component that is no `..`, NOFOLLOW alone keeps us in `dir`.
    count("openat");
    retry_on_intr(|| rustix::fs::openat(dir, name, flags, mode))
}

/// Opens the object of a descriptor anew, for other uses than it was opened for.
pub(super) fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Call<OwnedFd> {
    count("open");
    let path = proc_path(fd);
    retry_on_intr(|| rustix::fs::open(path.as_str(), flags | OFlags::CLOEXEC, Mode::empty()))
}

fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

const STATX: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// The attributes of `name` in `dir`; of a link itself; without setting off an automount.
pub(super) fn statx_at(dir: BorrowedFd<'_>, name: &[u8]) -> Call<Statx> {
    count("statx");
    retry_on_intr(|| rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, STATX))
}

/// The attributes of an open object, O_PATH or not.
pub(super) fn statx(fd: BorrowedFd<'_>) -> Call<Statx> {
    count("statx");
    retry_on_intr(|| rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, STATX))
}

/// Sizes and type of the file system.
pub(super) fn statfs(fd: BorrowedFd<'_>) -> Call<StatFs> {
    count("fstatfs");
    retry_on_intr(|| rustix::fs::fstatfs(fd))
}

/// Makes a directory.
pub(super) fn mkdir_at(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Call<()> {
    count("mkdirat");
    retry_on_intr(|| rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode)))
}

/// Removes a name: a directory's with `directory`, otherwise anything else's.
pub(super) fn unlink_at(dir: BorrowedFd<'_>, name: &[u8], directory: bool) -> Call<()> {
    count("unlinkat");
    let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    retry_on_intr(|| rustix::fs::unlinkat(dir, name, flags))
}

/// Moves a name; with `no_replace`, fails with EEXIST if the target exists (EINVAL: the file system cannot tell).
pub(super) fn rename_at(
    from_dir: BorrowedFd<'_>,
    from: &[u8],
    to_dir: BorrowedFd<'_>,
    to: &[u8],
    no_replace: bool,
) -> Call<()> {
    let flags = if no_replace { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
    count("renameat2");
    retry_on_intr(|| rustix::fs::renameat_with(from_dir, from, to_dir, to, flags))
}

/// Gives an open object another name.
pub(super) fn link_at(fd: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> Call<()> {
    count("linkat");
    match retry_on_intr(|| rustix::fs::linkat(fd, c"", dir, name, AtFlags::EMPTY_PATH)) {
        // Up to Linux 6.9 an empty path wants CAP_DAC_READ_SEARCH, and says so with ENOENT.
        Err(Errno::NOENT) => {
            count("linkat");
            let path = proc_path(fd);
            retry_on_intr(|| rustix::fs::linkat(CWD, path.as_str(), dir, name, AtFlags::SYMLINK_FOLLOW))
        }
        result => result,
    }
}

/// What the symbolic link of an O_PATH descriptor holds.
pub(super) fn read_link(fd: BorrowedFd<'_>) -> Call<Vec<u8>> {
    count("readlinkat");
    retry_on_intr(|| rustix::fs::readlinkat(fd, c"", Vec::new())).map(|target| target.into_bytes())
}

/// Appends up to `length` bytes from `offset` on to `buffer`, which has room for them. With `no_wait`: EAGAIN rather than wait for the
/// disk, EOPNOTSUPP where the file system cannot tell.
pub(super) fn pread(
    fd: BorrowedFd<'_>,
    offset: u64,
    length: usize,
    buffer: &mut Vec<u8>,
    no_wait: bool,
) -> Call<usize> {
    count("preadv2");
    let start = buffer.len();
    let space = buffer.spare_capacity_mut();
    let length = length.min(space.len());
    let vector = libc::iovec { iov_base: space.as_mut_ptr().cast(), iov_len: length };
    let flags = if no_wait { libc::RWF_NOWAIT } else { 0 };
    let read = retry_on_intr(|| {
        // SAFETY: `vector` is one iovec, for `length` bytes of `buffer`'s spare capacity, which outlives the call. The offset goes in two
        // halves for 32-bit kernels; a 64-bit kernel takes it whole from the first.
        let result = unsafe {
            libc::syscall(
                libc::SYS_preadv2,
                fd.as_raw_fd(),
                &raw const vector,
                1_usize,
                offset as libc::c_long,
                (offset >> 32) as libc::c_long,
                flags,
            )
        };
        usize::try_from(result).map_err(|_| last_errno())
    })?;
    // SAFETY: the kernel has written the first `read <= length` bytes of the spare capacity.
    unsafe { buffer.set_len(start + read) };
    Ok(read)
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Writes some of `data` at `offset`.
pub(super) fn pwrite(fd: BorrowedFd<'_>, offset: u64, data: &[u8]) -> Call<usize> {
    count("pwrite64");
    retry_on_intr(|| rustix::io::pwrite(fd, data, offset))
}

/// The data, and the metadata without which it cannot be read, are on stable storage.
pub(super) fn fdatasync(fd: BorrowedFd<'_>) -> Call<()> {
    count("fdatasync");
    retry_on_intr(|| rustix::fs::fdatasync(fd))
}

/// All of an object is on stable storage.
pub(super) fn fsync(fd: BorrowedFd<'_>) -> Call<()> {
    count("fsync");
    retry_on_intr(|| rustix::fs::fsync(fd))
}

/// Sets a file's length.
pub(super) fn ftruncate(fd: BorrowedFd<'_>, length: u64) -> Call<()> {
    count("ftruncate");
    retry_on_intr(|| rustix::fs::ftruncate(fd, length))
}

/// Allocates, punches or zeroes a range, as `flags` say.
pub(super) fn fallocate(fd: BorrowedFd<'_>, flags: FallocateFlags, offset: u64, length: u64) -> Call<()> {
    count("fallocate");
    retry_on_intr(|| rustix::fs::fallocate(fd, flags, offset, length))
}

/// The first byte of data (or of a hole) from `offset` on; ENXIO beyond the end.
pub(super) fn seek_data(fd: BorrowedFd<'_>, offset: u64, hole: bool) -> Call<u64> {
    count("lseek");
    rustix::fs::seek(fd, if hole { SeekFrom::Hole(offset) } else { SeekFrom::Data(offset) })
}

/// Moves an open directory to a position that `read_names` gave.
pub(super) fn seek_directory(fd: BorrowedFd<'_>, cookie: u64) -> Call<()> {
    count("lseek");
    rustix::fs::seek(fd, SeekFrom::Start(cookie)).map(drop)
}

/// Sets times, also through an O_PATH descriptor.
pub(super) fn set_times(fd: BorrowedFd<'_>, times: &Timestamps) -> Call<()> {
    count("utimensat");
    match retry_on_intr(|| rustix::fs::utimensat(fd, c"", times, AtFlags::EMPTY_PATH)) {
        // Before Linux 5.8.
        Err(Errno::INVAL) => {
            count("utimensat");
            let path = proc_path(fd);
            retry_on_intr(|| rustix::fs::utimensat(CWD, path.as_str(), times, AtFlags::empty()))
        }
        result => result,
    }
}

/// Sets the permission bits, also through an O_PATH descriptor.
pub(super) fn set_mode(fd: BorrowedFd<'_>, path_only: bool, mode: u32) -> Call<()> {
    let mode = Mode::from_raw_mode(mode);
    count("fchmod");
    if path_only {
        let path = proc_path(fd);
        return retry_on_intr(|| rustix::fs::chmodat(CWD, path.as_str(), mode, AtFlags::empty()));
    }
    retry_on_intr(|| rustix::fs::fchmod(fd, mode))
}

/// One read of an open directory: hands (name, position after it, type) of each entry to `each`, but `.` and `..`. False: the end.
/// `space` bounds the kernel's answer; 2 KiB hold any entry.
pub(super) fn read_names(
    fd: BorrowedFd<'_>,
    space: &mut [MaybeUninit<u8>],
    mut each: impl FnMut(&[u8], u64, FileType),
) -> Call<bool> {
    count("getdents64");
    let mut entries = RawDir::new(fd, space);
    loop {
        match entries.next() {
            None => return Ok(false),
            Some(Err(Errno::INTR)) => continue,
            Some(Err(errno)) => return Err(errno),
            Some(Ok(entry)) => {
                let name = entry.file_name().to_bytes();
                if !matches!(name, b"." | b".." | b"") {
                    each(name, entry.next_entry_cookie(), entry.file_type());
                }
            }
        }
        if entries.is_buffer_empty() {
            return Ok(true);
        }
    }
}

/// Whether the file system itself takes spellings of this directory's names for one another (`chattr +F`).
pub(super) fn folds(dir: BorrowedFd<'_>) -> Call<bool> {
    const FS_CASEFOLD_FL: u32 = 0x4000_0000;
    let opened = open_at(dir, b".", OFlags::RDONLY | OFlags::DIRECTORY, 0, false)?;
    count("ioctl");
    match rustix::fs::ioctl_getflags(&opened) {
        Ok(flags) => Ok(flags.bits() & FS_CASEFOLD_FL != 0),
        // It has no such flags.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// A queue of changes of names, which never waits.
pub(super) fn watcher() -> Call<OwnedFd> {
    count("inotify_init1");
    inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
}

/// Has each change of a name in `dir`, and of where itself is, queued from now on; the answer is the watch's number. Each change is in
/// the queue when the call that made it returns.
pub(super) fn watch(watcher: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> Call<i32> {
    count("inotify_add_watch");
    let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
    let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    inotify::add_watch(watcher, proc_path(dir).as_str(), names | itself | WatchFlags::ONLYDIR)
}

/// Ends a watch.
pub(super) fn unwatch(watcher: BorrowedFd<'_>, watch: i32) -> Call<()> {
    count("inotify_rm_watch");
    inotify::remove_watch(watcher, watch)
}

/// How many bytes of changes are queued.
pub(super) fn queued(watcher: BorrowedFd<'_>) -> Call<u64> {
    count("ioctl");
    rustix::io::ioctl_fionread(watcher)
}

/// One read of a queue of changes, each with its cookie, which the two halves of a move share; how many bytes they were. Zero: it
/// was empty.
pub(super) fn read_changes(
    watcher: BorrowedFd<'_>,
    space: &mut [MaybeUninit<u8>],
    each: &mut dyn FnMut(Change<'_>, Cookie),
) -> Call<usize> {
    count("read");
    let mut changes = inotify::Reader::new(watcher, space);
    let mut read = 0;
    loop {
        match changes.next() {
            Err(Errno::AGAIN) => return Ok(read),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
            Ok(event) => {
                let (watch, flags, cookie) = (event.wd(), event.events(), event.cookie());
                let mut each = |change: Change<'_>| each(change, cookie);
                let name = event.file_name().map(|name| name.to_bytes());
                // Its head, and the name with its NUL, filled up to the next head's alignment.
                read += 16 + name.map_or(0, |name| (name.len() + 1).next_multiple_of(16));
                if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                    each(Change::Lost);
                } else if let Ok(watch) = u64::try_from(watch) {
                    match name {
                        _ if flags
                            .intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT) =>
                        {
                            each(Change::Ended(watch));
                        }
                        None if flags.contains(ReadFlags::MOVE_SELF) => each(Change::Moved(watch)),
                        Some(name) if flags.contains(ReadFlags::CREATE) => each(Change::Created(watch, name)),
                        Some(name) if flags.contains(ReadFlags::MOVED_TO) => {
                            each(Change::MovedTo(watch, name))
                        }
                        Some(name) if flags.contains(ReadFlags::DELETE) => each(Change::Removed(watch, name)),
                        Some(name) if flags.contains(ReadFlags::MOVED_FROM) => {
                            each(Change::MovedFrom(watch, name));
                        }
                        _ => {}
                    }
                }
            }
        }
        if changes.is_buffer_empty() {
            return Ok(read);
        }
    }
}

/// A queue of the changes of marked file systems, which never waits.
pub(super) fn marker() -> Call<OwnedFd> {
    count("fanotify_init");
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_DFID_NAME | libc::FAN_NONBLOCK | libc::FAN_CLOEXEC;
    // SAFETY: two numbers.
    let fd = unsafe { libc::fanotify_init(flags, libc::O_RDONLY as libc::c_uint) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A name came.
pub(super) const CAME: u64 = libc::FAN_CREATE | libc::FAN_MOVED_TO;
/// A name went.
pub(super) const WENT: u64 = libc::FAN_DELETE | libc::FAN_MOVED_FROM;
/// A directory itself was moved.
pub(super) const MOVED: u64 = libc::FAN_MOVE_SELF;
/// A directory is no more.
pub(super) const ENDED: u64 = libc::FAN_DELETE_SELF;
/// There was more than the queue holds.
pub(super) const LOST: u64 = libc::FAN_Q_OVERFLOW;

/// Has each change of a name on the file system of `dir` queued from now on. Each is in the queue when the call that made it returns.
pub(super) fn mark(marker: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> Call<()> {
    count("fanotify_mark");
    let Ok(path) = std::ffi::CString::new(proc_path(dir)) else { return Err(Errno::INVAL) };
    let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM | libc::FAN_MARK_ONLYDIR;
    let kinds = CAME | WENT | MOVED | ENDED | libc::FAN_ONDIR;
    // SAFETY: `path` is a C string that outlives the call.
    let result =
        unsafe { libc::fanotify_mark(marker.as_raw_fd(), flags, kinds, libc::AT_FDCWD, path.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The number of a file system by which the entries of a marked one name it.
pub(super) fn file_system_id(fd: BorrowedFd<'_>) -> Call<[u8; 8]> {
    let info = statfs(fd)?;
    // SAFETY: `fsid_t` is two 32-bit numbers, whatever its fields are called.
    Ok(unsafe { std::mem::transmute_copy::<_, [u8; 8]>(&info.f_fsid) })
}

const _: () = assert!(size_of::<libc::fsid_t>() == 8);

/// The most bytes of a file system's own handle of an object, and the two numbers before them.
const HANDLE_MAX: usize = 128;
const HANDLE_HEAD: usize = 8;

/// By what the entries of a marked file system name this directory: the file system's number and its handle.
pub(super) fn handle(dir: BorrowedFd<'_>, file_system: [u8; 8]) -> Call<Vec<u8>> {
    #[repr(C, align(8))]
    struct Handle([u8; HANDLE_HEAD + HANDLE_MAX]);
    let mut handle = Handle([0; HANDLE_HEAD + HANDLE_MAX]);
    handle.0[..4].copy_from_slice(&(HANDLE_MAX as u32).to_ne_bytes());
    let mut mount = 0;
    count("name_to_handle_at");
    // SAFETY: the path is a C string; `handle` is a `file_handle` (aligned as one) with room for as many bytes as it says, and `mount`
    // an int; the kernel writes to these two only.
    let result = unsafe {
        libc::name_to_handle_at(
            dir.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if result < 0 {
        return Err(last_errno());
    }
    let length = u32_at(&handle.0, 0).ok_or(Errno::INVAL)? as usize;
    let used = handle.0.get(..HANDLE_HEAD + length).ok_or(Errno::INVAL)?;
    Ok([&file_system, used].concat())
}

/// What the queue of a marked file system tells of one name, or of a directory itself.
pub(super) struct Entry<'a> {
    /// [`CAME`] and so on, several perhaps.
    pub(super) kinds: u64,
    pub(super) process: u32,
    /// The directory, as [`handle`] has it.
    pub(super) identity: &'a [u8],
    pub(super) name: &'a [u8],
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads such a queue until it is empty.
pub(super) fn read_marks(marker: BorrowedFd<'_>, each: &mut dyn FnMut(Entry<'_>)) -> Call<()> {
    const SPACE: usize = 16 * 1024;
    /// The most that one entry takes.
    const LARGEST: usize =
        size_of::<libc::fanotify_event_metadata>() + 12 + HANDLE_HEAD + HANDLE_MAX + 256 + 8;
    let mut space = [0; SPACE];
    loop {
        count("read");
        let length = match retry_on_intr(|| rustix::io::read(marker, &mut space)) {
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let mut rest = &space[..length];
        while let Some(length) = u32_at(rest, 0).map(|length| length as usize)
            && let Some(entry) = rest.get(..length).filter(|_| length > 0)
        {
            rest = &rest[length..];
            if let Some(entry) = parse_mark(entry) {
                each(entry);
            }
        }
        if length + LARGEST <= SPACE {
            return Ok(());
        }
    }
}

/// One `fanotify_event_metadata` with what follows it. `None`: it names no directory.
fn parse_mark(entry: &[u8]) -> Option<Entry<'_>> {
    let head = usize::from(u16::from_ne_bytes(entry.get(6..8)?.try_into().ok()?));
    let kinds = u64::from_ne_bytes(entry.get(8..16)?.try_into().ok()?);
    let process = u32_at(entry, 20)?;
    if kinds & LOST != 0 {
        return Some(Entry { kinds, process, identity: &[], name: &[] });
    }
    let mut rest = entry.get(head..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?));
        let record = rest.get(..length).filter(|_| length > 0)?;
        rest = &rest[length..];
        if record[0] != libc::FAN_EVENT_INFO_TYPE_DFID_NAME {
            continue;
        }
        let end = 4 + 8 + HANDLE_HEAD + u32_at(record, 12)? as usize;
        let name = record.get(end..)?.split(|byte| *byte == 0).next()?;
        return Some(Entry { kinds, process, identity: record.get(4..end)?, name });
    }
}

/// What an extended attribute's value is asked of.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// An object open for more than its path.
    Open(BorrowedFd<'a>),
    /// An O_PATH descriptor of a directory, or any descriptor of one.
    Directory(BorrowedFd<'a>),
    /// An O_PATH descriptor of anything else.
    Path(BorrowedFd<'a>),
    /// A name in a directory; a link itself.
    Name(BorrowedFd<'a>, &'a [u8]),
}

/// `struct xattr_args` of the kernel.
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

const SYS_GETXATTRAT: libc::c_long = 464;
static NO_GETXATTRAT: AtomicBool =
    AtomicBool::new(!cfg!(any(target_arch = "x86_64", target_arch = "aarch64")));

/// The value of an extended attribute: into `value`, with its length (ERANGE: it is longer; ENODATA: there is none). An empty `value`
/// asks for the length alone.
pub(super) fn get_xattr(target: Target<'_>, name: &std::ffi::CStr, value: &mut [u8]) -> Call<usize> {
    match target {
        Target::Open(fd) => {
            count("fgetxattr");
            retry_on_intr(|| rustix::fs::fgetxattr(fd, name, &mut *value))
        }
        Target::Path(fd) => {
            count("getxattr");
            let path = proc_path(fd);
            retry_on_intr(|| rustix::fs::getxattr(path.as_str(), name, &mut *value))
        }
        Target::Directory(fd) => get_xattr_at(fd, b".", name, value),
        Target::Name(dir, file) => get_xattr_at(dir, file, name, value),
    }
}

fn get_xattr_at(dir: BorrowedFd<'_>, file: &[u8], name: &std::ffi::CStr, value: &mut [u8]) -> Call<usize> {
    if !NO_GETXATTRAT.load(Relaxed) {
        match getxattrat(dir, file, name, value) {
            // Before Linux 6.13; some sandboxes answer EPERM to what they do not know, and reading never gives that otherwise.
            Err(Errno::NOSYS | Errno::PERM) => NO_GETXATTRAT.store(true, Relaxed),
            result => return result,
        }
    }
    count("lgetxattr");
    let mut path = proc_path(dir).into_bytes();
    path.push(b'/');
    path.extend_from_slice(file);
    retry_on_intr(|| rustix::fs::lgetxattr(path.as_slice(), name, &mut *value))
}

fn getxattrat(dir: BorrowedFd<'_>, file: &[u8], name: &std::ffi::CStr, value: &mut [u8]) -> Call<usize> {
    let mut path = [0; 256];
    let Some(space) = path[..255].get_mut(..file.len()) else { return Err(Errno::NAMETOOLONG) };
    space.copy_from_slice(file);
    count("getxattrat");
    retry_on_intr(|| {
        let mut arguments = XattrArgs {
            value: value.as_mut_ptr() as u64,
            size: value.len().min(u32::MAX as usize) as u32,
            flags: 0,
        };
        // SAFETY: `path` ends in a NUL (its last byte is never written), `name` is a C string, and `arguments` describes the `value.len()`
        // bytes at `value`; all outlive the call, which writes to nothing but `value`.
        let result = unsafe {
            libc::syscall(
                SYS_GETXATTRAT,
                dir.as_raw_fd(),
                path.as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
                name.as_ptr(),
                &raw mut arguments,
                size_of::<XattrArgs>(),
            )
        };
        usize::try_from(result).map_err(|_| last_errno())
    })
}

/// As if the kernel were one of before Linux 5.6, or not.
#[cfg(test)]
pub(super) fn pretend_old(old: bool) {
    NO_OPENAT2.store(old, Relaxed);
    NO_GETXATTRAT.store(old, Relaxed);
}

/// Sets an extended attribute. Not by a name: what is changed is always held open.
pub(super) fn set_xattr(
    fd: BorrowedFd<'_>,
    path_only: bool,
    name: &std::ffi::CStr,
    value: &[u8],
) -> Call<()> {
    count("setxattr");
    if path_only {
        let path = proc_path(fd);
        return retry_on_intr(|| rustix::fs::setxattr(path.as_str(), name, value, XattrFlags::empty()));
    }
    retry_on_intr(|| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))
}

/// Removes an extended attribute (ENODATA: there is none).
pub(super) fn remove_xattr(fd: BorrowedFd<'_>, path_only: bool, name: &std::ffi::CStr) -> Call<()> {
    count("removexattr");
    if path_only {
        let path = proc_path(fd);
        return retry_on_intr(|| rustix::fs::removexattr(path.as_str(), name));
    }
    retry_on_intr(|| rustix::fs::fremovexattr(fd, name))
}

/// The names of the extended attributes, each ended by a NUL, into `list`. An empty `list` asks for the length alone.
pub(super) fn list_xattrs(fd: BorrowedFd<'_>, path_only: bool, list: &mut [u8]) -> Call<usize> {
    count("listxattr");
    if path_only {
        let path = proc_path(fd);
        return retry_on_intr(|| rustix::fs::listxattr(path.as_str(), &mut *list));
    }
    retry_on_intr(|| rustix::fs::flistxattr(fd, &mut *list))
}

/// The process' limit of open descriptors: (soft, hard); `None` is "no limit".
pub(super) fn descriptor_limit() -> (Option<u64>, Option<u64>) {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    (limit.current, limit.maximum)
}

/// Sets the process' limit of open descriptors.
pub(super) fn set_descriptor_limit(soft: u64, hard: u64) -> Call<()> {
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: Some(hard) })
}

/// Another descriptor of the same open object, with the least number that is free.
pub(super) fn duplicate(fd: BorrowedFd<'_>) -> Call<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}

/// The kernel's version, as far as (major, minor).
pub(super) fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Borrows a descriptor (short for `as_fd`, which needs the trait).
pub(super) fn borrow(fd: &OwnedFd) -> BorrowedFd<'_> {
    fd.as_fd()
}
