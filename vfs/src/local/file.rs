//! An open object: data, attributes, space, extended attributes.
//!
//! An object that is open for its attributes alone has an O_PATH descriptor: nothing is opened in the file system's sense, no lease is
//! broken, no permission asked for. What Linux does not let such a descriptor do (extended attributes, the mode) goes through its magic
//! link in `/proc/self/fd`; a directory's extended attributes through its `.`.

use std::any::Any;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::inode::{DOS_ATTRIBUTES, Volume, metadata_of};
use super::read_dir::{self, Listing};
use super::run::{Runner, Verb, blocking, copying};
use super::sys::{self, Target};
use crate::backend::{BackendFile, DirEntry};
use crate::error::{FsError, Fut, Result};
use crate::metadata::{DosAttributes, Kind, Metadata, SetMetadata, Timestamp};
use crate::xattr::encode_dos_attributes;

/// The most ranges that one question for allocated ranges is answered with; what lies beyond is told as one range.
const RANGES: usize = 16 * 1024;

/// A read longer than this asks first how much there is, so that no buffer is made for what is not.
const LONG_READ: usize = 128 * 1024;

/// Zeros are written in pieces of this size where the file system cannot make them.
const ZEROS: usize = 64 * 1024;

/// The longest value of an extended attribute, and the longest list of names (Linux' own limits).
const XATTR_MAX: usize = 64 * 1024;

/// What an object was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Its attributes: an O_PATH descriptor.
    Path,
    /// Its data in one way or another.
    Data,
}

pub(super) struct Open {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) kind: Kind,
    pub(super) access: Access,
    pub(super) volume: Arc<Volume>,
    pub(super) listing: Mutex<Listing>,
    /// What it was like when it was opened, if it was there before.
    pub(super) when_opened: Option<Metadata>,
}

/// The local backend's open object.
pub(super) struct LocalFile {
    pub(super) open: Arc<Open>,
    pub(super) runner: Arc<Runner>,
}

impl Open {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        sys::borrow(&self.fd)
    }

    fn path_only(&self) -> bool {
        self.access == Access::Path
    }

    pub(super) fn target(&self) -> Target<'_> {
        match (self.access, self.kind) {
            (Access::Data, _) => Target::Open(self.fd()),
            (Access::Path, Kind::Directory) => Target::Directory(self.fd()),
            (Access::Path, _) => Target::Path(self.fd()),
        }
    }

    pub(super) fn metadata(&self) -> Result<Metadata> {
        let stat = sys::statx(self.fd())?;
        Ok(self.volume.metadata(&stat, self.target()))
    }

    /// Of a file or directory that was just made, with what was stored of its DOS side.
    pub(super) fn metadata_when_made(&self, dos: Option<DosAttributes>) -> Result<Metadata> {
        let metadata = metadata_of(&sys::statx(self.fd())?, dos);
        self.volume.remember_dos(&metadata);
        Ok(metadata)
    }

    fn set_metadata(&self, set: &SetMetadata) -> Result<()> {
        if let Some(size) = set.size {
            self.set_size(size)?;
        }
        if let Some(mode) = set.mode {
            sys::set_mode(self.fd(), self.path_only(), mode & 0o7777)?;
        }
        if let Some(dos) = &set.dos {
            self.set_dos(dos)?;
        }
        // Last: what goes before may touch the times.
        if set.accessed.is_some() || set.modified.is_some() {
            let times =
                Timestamps { last_access: timespec(set.accessed), last_modification: timespec(set.modified) };
            sys::set_times(self.fd(), &times)?;
        }
        Ok(())
    }

    pub(super) fn set_dos(&self, dos: &DosAttributes) -> Result<()> {
        let value = encode_dos_attributes(dos, self.kind);
        match sys::set_xattr(self.fd(), self.path_only(), DOS_ATTRIBUTES, &value) {
            // A file system without extended attributes forgets them, as FAT would forget a mode: a copy must not fail for it.
            Err(Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    fn set_size(&self, size: u64) -> Result<()> {
        if self.kind != Kind::File {
            return Err(FsError::IsADirectory);
        }
        match sys::ftruncate(self.fd(), size) {
            // Not open for writing: INVAL from a read-only descriptor, BADF from an O_PATH one.
            Err(Errno::BADF | Errno::INVAL) if i64::try_from(size).is_ok() => {
                let writable = sys::reopen(self.fd(), OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
                Ok(sys::ftruncate(sys::borrow(&writable), size)?)
            }
            result => Ok(result?),
        }
    }

    /// Reads on until `buffer` has `length` bytes or the file ends.
    fn read(&self, offset: u64, length: usize, buffer: &mut Vec<u8>, no_wait: bool) -> sys::Call<()> {
        while buffer.len() < length {
            let from = offset + buffer.len() as u64;
            if sys::pread(self.fd(), from, length - buffer.len(), buffer, no_wait)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<usize> {
        let mut written = 0;
        while written < data.len() {
            match sys::pwrite(self.fd(), offset + written as u64, &data[written..])? {
                0 => return Err(FsError::NoSpace),
                more => written += more,
            }
        }
        Ok(written)
    }

    fn size(&self) -> Result<u64> {
        Ok(sys::statx(self.fd())?.stx_size)
    }

    fn allocate(&self, bytes: u64) -> Result<()> {
        match sys::fallocate(self.fd(), FallocateFlags::KEEP_SIZE, 0, bytes) {
            // Nothing can be reserved here, and a write says by itself when the space is used up.
            Err(Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    fn zero(&self, offset: u64, length: u64, punch: bool) -> Result<()> {
        // Nothing beyond the end is ours to change: a client may say "to the end of the world".
        let end = offset.saturating_add(length).min(self.size()?);
        let Some(length) = end.checked_sub(offset).filter(|length| *length > 0) else { return Ok(()) };
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if !punch {
            match sys::fallocate(
                self.fd(),
                FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
                offset,
                length,
            ) {
                Err(Errno::OPNOTSUPP) => {}
                result => return Ok(result?),
            }
        }
        match sys::fallocate(self.fd(), hole, offset, length) {
            Err(Errno::OPNOTSUPP) => {}
            Ok(()) if punch => return Ok(()),
            Ok(()) => return Ok(sys::fallocate(self.fd(), FallocateFlags::KEEP_SIZE, offset, length)?),
            Err(errno) => return Err(errno.into()),
        }
        let zeros = vec![0; ZEROS];
        let mut at = offset;
        while at < end {
            let piece = (end - at).min(ZEROS as u64) as usize;
            at += self.write(at, &zeros[..piece])? as u64;
        }
        Ok(())
    }

    fn allocated_ranges(&self, offset: u64, length: u64) -> Result<Vec<(u64, u64)>> {
        let end = offset.saturating_add(length).min(self.size()?);
        let mut ranges = Vec::new();
        let mut at = offset;
        while at < end {
            let start = match sys::seek_data(self.fd(), at, false) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                // The file system does not know: all of it.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
                Err(errno) => return Err(errno.into()),
            };
            if start >= end {
                break;
            }
            let stop = match sys::seek_data(self.fd(), start, true) {
                Ok(stop) if ranges.len() + 1 < RANGES => stop.min(end),
                Ok(_) | Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NXIO) => end,
                Err(errno) => return Err(errno.into()),
            };
            // Somebody changes the file meanwhile: on, in any case.
            let stop = stop.max(start + 1);
            ranges.push((start, stop - start));
            at = stop;
        }
        Ok(ranges)
    }

    fn get_xattr(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let name = c_name(name)?;
        let mut value = vec![0; 1024];
        loop {
            match sys::get_xattr(self.target(), &name, &mut value) {
                Ok(length) => {
                    value.truncate(length);
                    return Ok(Some(value));
                }
                Err(Errno::NODATA) => return Ok(None),
                Err(Errno::RANGE) if value.len() < XATTR_MAX => value.resize(XATTR_MAX, 0),
                Err(errno) => return Err(xattr_error(errno)),
            }
        }
    }

    fn list_xattrs(&self) -> Result<Vec<String>> {
        let mut list = vec![0; 1024];
        let length = loop {
            match sys::list_xattrs(self.fd(), self.path_only(), &mut list) {
                Ok(length) => break length,
                Err(Errno::RANGE) if list.len() < XATTR_MAX => list.resize(XATTR_MAX, 0),
                Err(Errno::OPNOTSUPP) => break 0,
                Err(errno) => return Err(xattr_error(errno)),
            }
        };
        let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        // A name that is no text cannot be asked for either.
        Ok(names.filter_map(|name| std::str::from_utf8(name).ok()).map(str::to_owned).collect())
    }
}

fn c_name(name: &str) -> Result<std::ffi::CString> {
    std::ffi::CString::new(name).map_err(|_| FsError::InvalidName)
}

fn xattr_error(errno: Errno) -> FsError {
    match errno {
        // The name or the value is longer than any may be.
        Errno::RANGE | Errno::TOOBIG => FsError::NameTooLong,
        errno => errno.into(),
    }
}

fn timespec(time: Option<Timestamp>) -> Timespec {
    match time {
        Some(time) => Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() },
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
    }
}

impl LocalFile {
    fn run<T: Send + 'static>(
        &self,
        verb: Verb,
        allowed: Duration,
        job: impl FnOnce(&Open) -> Result<T> + Send + 'static,
    ) -> Fut<'_, T> {
        let open = self.open.clone();
        Box::pin(self.runner.run(verb, allowed, move || job(&open)))
    }
}

impl BackendFile for LocalFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn metadata(&self) -> Fut<'_, Metadata> {
        self.run(Verb::Metadata, Duration::ZERO, Open::metadata)
    }

    fn metadata_when_opened(&self) -> Option<Metadata> {
        self.open.when_opened.clone()
    }

    fn set_metadata<'a>(&'a self, set: &'a SetMetadata) -> Fut<'a, ()> {
        let set = set.clone();
        self.run(Verb::SetMetadata, Duration::ZERO, move |open| open.set_metadata(&set))
    }

    fn read_at(&self, offset: u64, length: usize) -> Fut<'_, Bytes> {
        let open = self.open.clone();
        Box::pin(async move {
            if offset.checked_add(length as u64).is_none_or(|end| end > i64::MAX as u64)
                && offset >= i64::MAX as u64
            {
                return Ok(Bytes::new());
            }
            let mut length = length.min((i64::MAX as u64 - offset) as usize);
            if length > LONG_READ {
                length =
                    length.min(usize::try_from(open.size()?.saturating_sub(offset)).unwrap_or(usize::MAX));
            }
            let mut buffer = Vec::with_capacity(length);
            if open.volume.no_wait.load(Relaxed) {
                match open.read(offset, length, &mut buffer, true) {
                    Ok(()) => return Ok(buffer.into()),
                    Err(Errno::AGAIN) => {
                        // The rest is not in the page cache.
                        return blocking(move || {
                            open.read(offset, length, &mut buffer, false)?;
                            Ok(buffer.into())
                        })
                        .await;
                    }
                    Err(Errno::OPNOTSUPP) => open.volume.no_wait.store(false, Relaxed),
                    Err(errno) => return Err(errno.into()),
                }
            }
            let job = move || {
                open.read(offset, length, &mut buffer, false)?;
                Ok(buffer.into())
            };
            self.runner.run(Verb::Read, copying(length), job).await
        })
    }

    fn write_at<'a>(&'a self, offset: u64, data: Bytes) -> Fut<'a, usize> {
        if offset.checked_add(data.len() as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Box::pin(std::future::ready(Err(FsError::FileTooLarge)));
        }
        self.run(Verb::Write, copying(data.len()), move |open| open.write(offset, &data))
    }

    fn flush(&self) -> Fut<'_, ()> {
        let open = self.open.clone();
        Box::pin(blocking(move || match open.kind {
            Kind::File => Ok(sys::fdatasync(open.fd())?),
            _ => Ok(sys::fsync(open.fd())?),
        }))
    }

    fn allocate(&self, bytes: u64) -> Fut<'_, ()> {
        if bytes == 0 {
            return Box::pin(std::future::ready(Ok(())));
        }
        if i64::try_from(bytes).is_err() {
            return Box::pin(std::future::ready(Err(FsError::FileTooLarge)));
        }
        self.run(Verb::Allocate, Duration::ZERO, move |open| open.allocate(bytes))
    }

    fn zero_range(&self, offset: u64, length: u64) -> Fut<'_, ()> {
        let open = self.open.clone();
        Box::pin(blocking(move || open.zero(offset, length, false)))
    }

    fn punch(&self, offset: u64, length: u64) -> Fut<'_, ()> {
        let open = self.open.clone();
        Box::pin(blocking(move || open.zero(offset, length, true)))
    }

    fn allocated_ranges(&self, offset: u64, length: u64) -> Fut<'_, Vec<(u64, u64)>> {
        let open = self.open.clone();
        Box::pin(blocking(move || open.allocated_ranges(offset, length)))
    }

    fn read_dir(&self, cookie: u64, max: usize, metadata: bool) -> Fut<'_, Vec<DirEntry>> {
        let slice = read_dir::slice(max, metadata);
        self.run(Verb::ReadDirectory, read_dir::allowance(slice, metadata), move |open| {
            if open.kind != Kind::Directory {
                return Err(FsError::NotADirectory);
            }
            open.listing.lock().read(&open.volume, open.fd(), cookie, slice, metadata)
        })
    }

    fn readlink(&self) -> Fut<'_, Vec<u8>> {
        self.run(Verb::Metadata, Duration::ZERO, |open| match open.kind {
            Kind::Symlink => Ok(sys::read_link(open.fd())?),
            _ => Err(FsError::Invalid),
        })
    }

    fn get_xattr<'a>(&'a self, name: &'a str) -> Fut<'a, Option<Vec<u8>>> {
        let name = name.to_owned();
        self.run(Verb::Xattr, Duration::ZERO, move |open| open.get_xattr(&name))
    }

    fn set_xattr<'a>(&'a self, name: &'a str, value: &'a [u8]) -> Fut<'a, ()> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.run(Verb::Xattr, Duration::ZERO, move |open| {
            sys::set_xattr(open.fd(), open.path_only(), &c_name(&name)?, &value).map_err(xattr_error)
        })
    }

    fn remove_xattr<'a>(&'a self, name: &'a str) -> Fut<'a, ()> {
        let name = name.to_owned();
        self.run(Verb::Xattr, Duration::ZERO, move |open| {
            match sys::remove_xattr(open.fd(), open.path_only(), &c_name(&name)?) {
                Err(Errno::NODATA) => Ok(()),
                result => result.map_err(xattr_error),
            }
        })
    }

    fn list_xattrs(&self) -> Fut<'_, Vec<String>> {
        self.run(Verb::Xattr, Duration::ZERO, Open::list_xattrs)
    }
}
