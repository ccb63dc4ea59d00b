//! Listings: bounded slices of a directory, with positions that survive between them; and the scan for the spellings of a name.
//!
//! A position is the kernel's own (`d_off`). The kernel answers with as many names as fit its buffer; those that the caller did not ask
//! for yet wait in [`Listing`], so that going on where the last slice ended needs no seek. (Where two names share a position, as two of
//! one hash do in ext4, only going on without a seek tells each exactly once.)

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;

use super::inode::{Directory, Volume, kind_of_type};
use super::sys::{self, Target};
use crate::backend::{DirEntry, NameSink, NodeInfo};
use crate::error::{FsError, Result};
use crate::fold::{Fold, FoldedName};
use crate::lookup::index::is_spelling;
use crate::metadata::Kind;
use crate::name::{DiskName, Name};

/// The most names of one slice.
const SLICE: usize = 1024;
/// The most with metadata: two system calls each.
const SLICE_WITH_METADATA: usize = 128;

/// The kernel's buffer: what the slice may need at 48 bytes a name, but no less than any one entry takes, and no more than this.
const SPACE_MAX: usize = 64 * 1024;
const SPACE_MIN: usize = 2 * 1024;

/// The kernel's buffer for a search: about five hundred names a read, the first two of which are made in place.
const SCAN_SPACE: usize = 16 * 1024;

/// How many names a slice has that was asked for `max`.
pub(super) fn slice(max: usize, metadata: bool) -> usize {
    max.clamp(1, if metadata { SLICE_WITH_METADATA } else { SLICE })
}

/// What a slice may take beyond an ordinary call.
pub(super) fn allowance(slice: usize, metadata: bool) -> Duration {
    Duration::from_nanos(slice as u64 * if metadata { 4000 } else { 500 })
}

/// An open directory's position, and the names that were read but not told yet.
#[derive(Default)]
pub(super) struct Listing {
    /// The position after the last name that was told.
    at: u64,
    /// Something was read since the directory was opened.
    begun: bool,
    waiting: VecDeque<(DiskName, u64, Option<Kind>)>,
}

impl Listing {
    /// At most `max` names from `cookie` on, of the directory behind `fd`.
    pub(super) fn read(
        &mut self,
        volume: &Volume,
        fd: BorrowedFd<'_>,
        cookie: u64,
        max: usize,
        metadata: bool,
    ) -> Result<Vec<DirEntry>> {
        if cookie != self.at || cookie == 0 && self.begun {
            sys::seek_directory(fd, cookie)?;
            self.waiting.clear();
            self.at = cookie;
        }
        self.begun = true;
        let mut space = Vec::new();
        let mut entries = Vec::with_capacity(max.min(self.waiting.len().max(16)));
        while entries.len() < max {
            let Some((name, cookie, kind)) = self.waiting.pop_front() else {
                if space.is_empty() {
                    space.resize((max * 48).clamp(SPACE_MIN, SPACE_MAX), MaybeUninit::uninit());
                }
                let waiting = &mut self.waiting;
                let more = sys::read_names(fd, &mut space, |name, cookie, file_type| {
                    // UNKNOWN comes out as Special, which a file system may only say of what it knows.
                    let kind = (!matches!(file_type, rustix::fs::FileType::Unknown))
                        .then(|| kind_of_type(file_type));
                    waiting.push_back((DiskName::new(name), cookie, kind));
                })?;
                if more {
                    continue;
                }
                break;
            };
            self.at = cookie;
            entries.push(DirEntry { name: name.to_name(), cookie, kind, metadata: None });
            if metadata {
                let entry = entries.last_mut().expect("one was just pushed");
                if let Ok(stat) = sys::statx_at(fd, name.as_bytes()) {
                    let told = volume.metadata(&stat, Target::Name(fd, name.as_bytes()));
                    entry.kind = Some(told.kind);
                    entry.metadata = Some(told);
                }
            }
        }
        Ok(entries)
    }
}

/// A reading of all names of a directory.
pub(super) struct Scan {
    fd: OwnedFd,
    sink: Box<dyn NameSink>,
}

impl Scan {
    pub(super) fn begin(volume: &Volume, dir: &Arc<Directory>, sink: Box<dyn NameSink>) -> Result<Scan> {
        let path = dir.descriptor()?;
        let fd = volume.open_at(sys::borrow(&path), b".", OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        Ok(Scan { fd, sink })
    }

    /// Reads on by a buffer's worth. False: that was the end, or enough.
    pub(super) fn step(&mut self) -> Result<bool> {
        let mut space = [MaybeUninit::uninit(); SCAN_SPACE];
        let mut goes_on = true;
        let sink = &mut self.sink;
        let more = sys::read_names(sys::borrow(&self.fd), &mut space, |disk, _, _| {
            goes_on = goes_on && sink.name(disk);
        })?;
        Ok(more && goes_on)
    }

    pub(super) fn finish(self) -> Box<dyn NameSink> {
        self.sink
    }
}

/// Keeps the spellings of one name.
pub(super) struct Spellings {
    fold: Fold,
    wanted: FoldedName,
    pub(super) found: Vec<DiskName>,
}

impl Spellings {
    pub(super) fn of(fold: Fold, name: &Name) -> Box<Spellings> {
        Box::new(Spellings { fold, wanted: fold.fold(name), found: Vec::new() })
    }
}

impl NameSink for Spellings {
    fn name(&mut self, disk: &[u8]) -> bool {
        if is_spelling(self.fold, disk, &self.wanted) {
            self.found.push(DiskName::new(disk));
        }
        true
    }
}

/// The objects of the spellings that were found.
pub(super) fn look_up(
    volume: &Arc<Volume>,
    dir: &Arc<Directory>,
    spellings: Vec<DiskName>,
) -> Result<Vec<(DiskName, NodeInfo)>> {
    let mut found = Vec::with_capacity(spellings.len());
    for disk in spellings {
        match volume.lookup(dir, &disk) {
            Ok(Some(info)) => found.push((disk, info)),
            Ok(None) | Err(FsError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
