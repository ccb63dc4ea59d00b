//! A storage in memory: a real tree of files and directories, bounded, for the demo, for embedding and for tests.
//!
//! A directory keeps its names by folded name and by position, so that no verb looks at all of them. A file keeps
//! pages of 64 KiB; what was never written takes nothing. All that is kept counts against one limit.
//!
//! Its locks are held for a copy in memory at most, and never over an await: each verb is one step. Two directories
//! are locked in the order of their inode numbers, and a directory before what stands in it.

mod names;

use std::any::Any;
use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use names::{Entry, Key, Locked, Names, NewName};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use crate::backend::{
    Backend, BackendFile, BackendNode, Caps, Change, Coherence, CreateHow, DirEntry, NameSink, NodeInfo,
    OpenHow, WatchId, Watcher,
};
use crate::error::{FsError, Fut, Result};
use crate::fold::Fold;
use crate::metadata::{BackendKey, DosAttributes, Kind, Metadata, SetMetadata, Timestamp, VolumeInfo};
use crate::name::{DiskName, Name};

const PAGE: u64 = 64 * 1024;
const BLOCK: u64 = 4096;
/// What an object and its name are counted as; a directory takes [`names::BYTES`] more.
const OBJECT: u64 = 512;
/// The largest length and offset, as in POSIX.
const SIZE_MAX: u64 = i64::MAX as u64;
/// Extended attributes of one object, all together.
const XATTRS_MAX: usize = 64 * 1024;

/// How a memory storage is made.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// The bytes that it may take, about.
    pub limit: u64,
    /// How names are compared in its directories.
    pub fold: Fold,
    /// Whether the cache may believe that nobody else changes it. False only in tests, which then do.
    pub exclusive: bool,
    /// Whether it tells of changes, where it is not exclusive: for tests too.
    pub watches: Option<Watches>,
    /// Its label.
    pub label: String,
}

/// The bounds of a memory storage's queue of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watches {
    /// How many directories may be watched.
    pub directories: usize,
    /// How many changes are kept until they are read; more are lost.
    pub changes: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        MemoryOptions {
            limit: 1024 * 1024 * 1024,
            fold: Fold::Insensitive,
            exclusive: true,
            watches: None,
            label: "memory".to_owned(),
        }
    }
}

/// The storage.
pub struct Memory {
    volume: Arc<Volume>,
    root: Arc<Inode>,
}

/// What all of a storage's objects share.
struct Volume {
    options: MemoryOptions,
    device: u64,
    hasher: ahash::RandomState,
    next_inode: AtomicU64,
    used: AtomicU64,
    queue: Option<Arc<Told>>,
}

/// The queue of changes, for the one who watches.
struct Told {
    bounds: Watches,
    inner: Mutex<ToldInner>,
}

#[derive(Default)]
struct ToldInner {
    /// The watched directories by their inode numbers.
    watched: HashMap<u64, WatchId, ahash::RandomState>,
    last: WatchId,
    queue: Vec<ToldChange>,
}

enum ToldChange {
    Created(WatchId, DiskName),
    Removed(WatchId, DiskName),
    MovedTo(WatchId, DiskName),
    Moved(WatchId),
    Ended(WatchId),
    Lost,
}

impl Told {
    /// Queues a change in the directory `inode`, or of it, if that is watched. Called with the directory locked, so that
    /// its changes are queued in their order.
    fn tell(&self, inode: u64, change: impl FnOnce(WatchId) -> ToldChange) {
        let mut inner = self.inner.lock();
        let Some(watch) = inner.watched.get(&inode).copied() else { return };
        if inner.queue.len() < self.bounds.changes {
            let change = change(watch);
            inner.queue.push(change);
        } else if !matches!(inner.queue.last(), Some(ToldChange::Lost)) {
            inner.queue.push(ToldChange::Lost);
        }
    }

    /// The directory is gone.
    fn end(&self, inode: u64) {
        self.tell(inode, ToldChange::Ended);
        self.inner.lock().watched.remove(&inode);
    }
}

impl Watcher for Told {
    fn watch(&self, dir: &BackendNode) -> Result<WatchId> {
        let dir = dir.downcast_ref::<Inode>().ok_or(FsError::NotSupported)?;
        let _standing = dir.names()?.lock_all()?;
        let mut inner = self.inner.lock();
        if let Some(known) = inner.watched.get(&dir.number) {
            return Ok(*known);
        }
        if inner.watched.len() >= self.bounds.directories {
            return Err(FsError::NoSpace);
        }
        inner.last += 1;
        let watch = inner.last;
        inner.watched.insert(dir.number, watch);
        Ok(watch)
    }

    fn unwatch(&self, watch: WatchId) {
        self.inner.lock().watched.retain(|_, known| *known != watch);
    }

    fn is_empty(&self) -> bool {
        self.inner.lock().queue.is_empty()
    }

    fn read(&self, each: &mut dyn FnMut(Change<'_>)) {
        let changes = std::mem::take(&mut self.inner.lock().queue);
        for change in &changes {
            each(match change {
                ToldChange::Created(watch, name) => Change::Created(*watch, name.as_bytes()),
                ToldChange::Removed(watch, name) => Change::Removed(*watch, name.as_bytes()),
                ToldChange::MovedTo(watch, name) => Change::MovedTo(*watch, name.as_bytes()),
                ToldChange::Moved(watch) => Change::Moved(*watch),
                ToldChange::Ended(watch) => Change::Ended(*watch),
                ToldChange::Lost => Change::Lost,
            });
        }
    }
}

impl Volume {
    fn tell(&self, inode: u64, change: impl FnOnce(WatchId) -> ToldChange) {
        if let Some(queue) = &self.queue {
            queue.tell(inode, change);
        }
    }

    fn charge(&self, bytes: u64) -> Result<()> {
        let charged = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.options.limit)
        });
        charged.map(drop).map_err(|_| FsError::NoSpace)
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

struct Inode {
    number: u64,
    kind: Kind,
    volume: Arc<Volume>,
    attributes: Mutex<Attributes>,
    body: Body,
}

struct Attributes {
    links: u32,
    mode: u32,
    accessed: Timestamp,
    modified: Timestamp,
    changed: Timestamp,
    born: Timestamp,
    dos: Option<DosAttributes>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

enum Body {
    File(RwLock<Data>),
    Directory(Box<Names>),
}

#[derive(Default)]
struct Data {
    size: u64,
    /// By number. A page holds what was written of it; the rest reads as zeros.
    pages: BTreeMap<u64, Vec<u8>>,
    /// What the pages are charged as.
    charged: u64,
    /// What was reserved without being written.
    reserved: u64,
}

/// What an object without contents is counted as.
fn taken(kind: Kind) -> u64 {
    if kind == Kind::Directory { OBJECT + names::BYTES } else { OBJECT }
}

fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK) * BLOCK
}

impl Data {
    fn allocated(&self) -> u64 {
        self.charged.max(self.reserved)
    }

    /// Charges the volume for `pages` bytes of pages and `reserved` reserved ones in place of what was charged before.
    fn recharge(&mut self, volume: &Volume, pages: u64, reserved: u64) -> Result<()> {
        let (before, after) = (self.allocated(), pages.max(reserved));
        if after > before {
            volume.charge(after - before)?;
        } else {
            volume.give_back(before - after);
        }
        self.charged = pages;
        self.reserved = reserved;
        Ok(())
    }

    fn read(&self, offset: u64, length: usize) -> Bytes {
        let end = self.size.min(offset.saturating_add(length as u64));
        if offset >= end {
            return Bytes::new();
        }
        let mut out = BytesMut::with_capacity((end - offset) as usize);
        let mut at = offset;
        while at < end {
            let (page, start) = (at / PAGE, (at % PAGE) as usize);
            let length = (PAGE - start as u64).min(end - at) as usize;
            let held = self.pages.get(&page).and_then(|page| page.get(start..)).unwrap_or_default();
            let held = &held[..held.len().min(length)];
            out.extend_from_slice(held);
            out.resize(out.len() + length - held.len(), 0);
            at += length as u64;
        }
        out.freeze()
    }

    fn write(&mut self, volume: &Volume, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= SIZE_MAX);
        let end = end.ok_or(FsError::FileTooLarge)?;
        // Charged before anything is written, so that a full storage leaves the file as it was.
        let mut grown = 0;
        each_page(offset, end, |page, range| {
            let held = self.pages.get(&page).map_or(0, Vec::len);
            grown += blocks(held.max(range.end) as u64) - blocks(held as u64);
        });
        if grown > 0 {
            self.recharge(volume, self.charged + grown, self.reserved)?;
        }
        let mut rest = data;
        let pages = &mut self.pages;
        each_page(offset, end, |page, range| {
            let (now, later) = rest.split_at(range.len());
            rest = later;
            let page = pages.entry(page).or_default();
            if page.len() < range.start {
                page.resize(range.start, 0);
            }
            let over = now.len().min(page.len() - range.start);
            page[range.start..range.start + over].copy_from_slice(&now[..over]);
            page.extend_from_slice(&now[over..]);
        });
        self.size = self.size.max(end);
        Ok(())
    }

    /// Makes the range read as zeros and gives back whole pages.
    fn punch(&mut self, volume: &Volume, offset: u64, end: u64) {
        let mut freed = 0;
        // Only pages that are there: the range may be as long as it likes.
        let touched: Vec<u64> =
            self.pages.range(offset / PAGE..end.div_ceil(PAGE)).map(|(page, _)| *page).collect();
        for number in touched {
            let MapEntry::Occupied(mut page) = self.pages.entry(number) else { continue };
            let held = page.get().len();
            let start = offset.saturating_sub(number * PAGE).min(PAGE) as usize;
            let stop = (end - number * PAGE).min(PAGE) as usize;
            let left = if stop >= held {
                page.get_mut().truncate(start);
                page.get().len()
            } else {
                page.get_mut()[start..stop].fill(0);
                held
            };
            freed += blocks(held as u64) - blocks(left as u64);
            if left == 0 {
                page.remove();
            } else if left < held / 2 {
                page.get_mut().shrink_to_fit();
            }
        }
        if freed > 0 {
            // Giving back cannot fail.
            let _ = self.recharge(volume, self.charged - freed, self.reserved);
        }
    }

    fn set_size(&mut self, volume: &Volume, size: u64) -> Result<()> {
        if size > SIZE_MAX {
            return Err(FsError::FileTooLarge);
        }
        if size < self.size {
            self.punch(volume, size, self.size);
            let _ = self.recharge(volume, self.charged, self.reserved.min(blocks(size)));
        }
        self.size = size;
        Ok(())
    }
}

/// Calls `f` with each page of a range and the part of it in the range.
fn each_page(offset: u64, end: u64, mut f: impl FnMut(u64, std::ops::Range<usize>)) {
    let mut at = offset;
    while at < end {
        let start = at % PAGE;
        let length = (PAGE - start).min(end - at);
        f(at / PAGE, start as usize..(start + length) as usize);
        at += length;
    }
}

impl Inode {
    fn new(volume: &Arc<Volume>, how: &CreateHow) -> Result<Arc<Inode>> {
        let body = match how.kind {
            Kind::File => Body::File(RwLock::default()),
            Kind::Directory => Body::Directory(Box::default()),
            Kind::Symlink | Kind::Special => return Err(FsError::NotSupported),
        };
        volume.charge(taken(how.kind))?;
        let now = Timestamp::now();
        let attributes = Attributes {
            links: if how.kind == Kind::Directory { 2 } else { 1 },
            mode: how.mode & 0o7777,
            accessed: now,
            modified: now,
            changed: now,
            born: now,
            dos: how.dos,
            xattrs: BTreeMap::new(),
        };
        Ok(Arc::new(Inode {
            number: volume.next_inode.fetch_add(1, Ordering::Relaxed),
            kind: how.kind,
            volume: Arc::clone(volume),
            attributes: Mutex::new(attributes),
            body,
        }))
    }

    fn key(&self) -> BackendKey {
        BackendKey { device: self.volume.device, inode: self.number, generation: 0 }
    }

    fn metadata(&self) -> Metadata {
        let (size, allocated) = match &self.body {
            Body::File(data) => {
                let data = data.read();
                (data.size, data.allocated())
            }
            Body::Directory(_) => (0, 0),
        };
        let attributes = self.attributes.lock();
        Metadata {
            key: self.key(),
            kind: self.kind,
            size,
            allocated,
            links: attributes.links,
            mode: attributes.mode,
            accessed: attributes.accessed,
            modified: attributes.modified,
            changed: attributes.changed,
            born: Some(attributes.born),
            dos: attributes.dos,
        }
    }

    fn info(self: &Arc<Inode>) -> NodeInfo {
        NodeInfo {
            node: BackendNode(Arc::clone(self) as Arc<dyn Any + Send + Sync>),
            metadata: self.metadata(),
        }
    }

    fn names(&self) -> Result<&Names> {
        match &self.body {
            Body::Directory(names) => Ok(names),
            Body::File(_) => Err(FsError::NotADirectory),
        }
    }

    fn data(&self) -> Result<&RwLock<Data>> {
        match &self.body {
            Body::File(data) => Ok(data),
            Body::Directory(_) => Err(FsError::IsADirectory),
        }
    }

    fn data_mut(&self) -> Result<RwLockWriteGuard<'_, Data>> {
        self.data().map(RwLock::write)
    }

    /// Its contents, or its names, changed.
    fn modified(&self) {
        let now = Timestamp::now();
        let mut attributes = self.attributes.lock();
        attributes.modified = now;
        attributes.changed = now;
    }

    /// It got so many names more or less.
    fn relink(&self, by: i32) {
        let mut attributes = self.attributes.lock();
        attributes.links = attributes.links.saturating_add_signed(by);
        attributes.changed = Timestamp::now();
    }

    fn key_of(&self, name: &DiskName) -> Key {
        Key::new(self.volume.options.fold.fold(&name.to_name()), &self.volume.hasher)
    }

    fn new_name(&self, name: &DiskName) -> NewName {
        NewName { key: self.key_of(name), name: name.clone() }
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        let mut freed = taken(self.kind);
        // Not nested: a client may have made the tree as deep as it likes.
        let mut below = match &mut self.body {
            Body::File(data) => {
                freed += data.get_mut().allocated();
                Vec::new()
            }
            Body::Directory(names) => names.take(),
        };
        freed += self
            .attributes
            .get_mut()
            .xattrs
            .iter()
            .map(|(name, value)| (name.len() + value.len()) as u64)
            .sum::<u64>();
        self.volume.give_back(freed);
        while let Some(inode) = below.pop() {
            if let Some(mut inode) = Arc::into_inner(inode)
                && let Body::Directory(names) = &mut inode.body
            {
                below.extend(names.take());
            }
        }
    }
}

/// Locks the parts of two names, in one directory or in two in the order of their numbers; `None`: it is one part.
fn two<'a>(
    (a, a_key): (&'a Inode, &Key),
    (b, b_key): (&'a Inode, &Key),
) -> Result<(Locked<'a>, Option<Locked<'a>>)> {
    let (a_names, b_names) = (a.names()?, b.names()?);
    if a.number == b.number {
        a_names.lock_two(a_key, b_key)
    } else if a.number < b.number {
        let first = a_names.lock(a_key)?;
        Ok((first, Some(b_names.lock(b_key)?)))
    } else {
        let second = b_names.lock(b_key)?;
        Ok((a_names.lock(a_key)?, Some(second)))
    }
}

impl Memory {
    /// An empty storage.
    pub fn new(options: MemoryOptions) -> Arc<Memory> {
        // Device numbers that no real device has.
        static DEVICES: AtomicU64 = AtomicU64::new(0x5348_4f41_0000_0000);
        let volume = Arc::new(Volume {
            device: DEVICES.fetch_add(1, Ordering::Relaxed),
            hasher: ahash::RandomState::new(),
            next_inode: AtomicU64::new(2),
            // The root is not charged: a storage of no bytes is one that is full.
            used: AtomicU64::new(0),
            queue: options.watches.map(|bounds| Arc::new(Told { bounds, inner: Mutex::default() })),
            options,
        });
        let now = Timestamp::now();
        let attributes = Attributes {
            links: 2,
            mode: 0o755,
            accessed: now,
            modified: now,
            changed: now,
            born: now,
            dos: None,
            xattrs: BTreeMap::new(),
        };
        volume.used.fetch_add(taken(Kind::Directory), Ordering::Relaxed);
        let root = Arc::new(Inode {
            number: 1,
            kind: Kind::Directory,
            volume: Arc::clone(&volume),
            attributes: Mutex::new(attributes),
            body: Body::Directory(Box::default()),
        });
        Arc::new(Memory { volume, root })
    }

    fn inode<'a>(&self, node: &'a BackendNode) -> Result<&'a Inode> {
        node.downcast_ref::<Inode>()
            .filter(|inode| Arc::ptr_eq(&inode.volume, &self.volume))
            .ok_or(FsError::CrossDevice)
    }

    fn lookup_now(&self, dir: &BackendNode, name: &DiskName) -> Result<Option<NodeInfo>> {
        let dir = self.inode(dir)?;
        let key = dir.key_of(name);
        let found = dir
            .names()?
            .lock(&key)?
            .get(&key)
            .filter(|entry| entry.name == *name)
            .map(|entry| Arc::clone(&entry.inode));
        Ok(found.map(|inode| inode.info()))
    }

    fn lookup_folded_now(
        &self,
        dir: &BackendNode,
        name: &Name,
        fold: &Fold,
    ) -> Result<Vec<(DiskName, NodeInfo)>> {
        let dir = self.inode(dir)?;
        let of = |entry: &Entry| (entry.name.clone(), Arc::clone(&entry.inode));
        let found: Vec<(DiskName, Arc<Inode>)> = if *fold == self.volume.options.fold {
            let key = Key::new(fold.fold(name), &self.volume.hasher);
            dir.names()?.lock(&key)?.get(&key).map(of).into_iter().collect()
        } else {
            let names = dir.names()?.lock_all()?;
            names.iter().filter(|entry| fold.eq(&entry.name.to_name(), name)).map(of).collect()
        };
        Ok(found.into_iter().map(|(name, inode)| (name, inode.info())).collect())
    }

    fn create_now(
        &self,
        dir: &BackendNode,
        name: &DiskName,
        how: &CreateHow,
    ) -> Result<(NodeInfo, Arc<dyn BackendFile>)> {
        let dir = self.inode(dir)?;
        let new = dir.new_name(name);
        let inode = Inode::new(&self.volume, how);
        let mut names = dir.names()?.lock(&new.key)?;
        if names.get(&new.key).is_some() {
            return Err(FsError::Exists);
        }
        let inode = inode?;
        names.insert(new, Arc::clone(&inode));
        self.volume.tell(dir.number, |watch| ToldChange::Created(watch, name.clone()));
        drop(names);
        if how.kind == Kind::Directory {
            dir.relink(1);
        }
        dir.modified();
        Ok((inode.info(), Arc::new(MemoryFile { inode })))
    }

    fn remove_now(&self, dir: &BackendNode, name: &DiskName, expect: &BackendKey, kind: Kind) -> Result<()> {
        let dir = self.inode(dir)?;
        let key = dir.key_of(name);
        let mut names = dir.names()?.lock(&key)?;
        let entry = names.get(&key).filter(|entry| entry.name == *name).ok_or(FsError::NotFound)?;
        if entry.inode.key() != *expect {
            return Err(FsError::Stale);
        }
        let is_directory = entry.inode.kind == Kind::Directory;
        match kind {
            Kind::Directory if !is_directory => return Err(FsError::NotADirectory),
            Kind::Directory => entry.inode.names()?.remove_all()?,
            _ if is_directory => return Err(FsError::IsADirectory),
            _ => {}
        }
        let old = names.remove(&key);
        self.volume.tell(dir.number, |watch| ToldChange::Removed(watch, name.clone()));
        if let (Some(queue), Some(old)) = (&self.volume.queue, &old) {
            queue.end(old.inode.number);
        }
        drop(names);
        if is_directory {
            dir.relink(-1);
        }
        dir.modified();
        if let Some(old) = old {
            old.inode.relink(if is_directory { -2 } else { -1 });
        }
        Ok(())
    }

    fn rename_now(
        &self,
        from_dir: &BackendNode,
        from: &DiskName,
        expect: Option<&BackendKey>,
        to_dir: &BackendNode,
        to: &DiskName,
        replace: bool,
    ) -> Result<()> {
        let (from_dir, to_dir) = (self.inode(from_dir)?, self.inode(to_dir)?);
        let from_key = from_dir.key_of(from);
        let mut new = to_dir.new_name(to);
        let is_one = from_dir.number == to_dir.number;
        let (mut from_names, mut other_names) = two((from_dir, &from_key), (to_dir, &new.key))?;
        let source = from_names.get(&from_key).filter(|entry| entry.name == *from);
        let source = Arc::clone(&source.ok_or(FsError::NotFound)?.inode);
        if expect.is_some_and(|expect| source.key() != *expect) {
            return Err(FsError::NotFound);
        }
        if is_one && from_key == new.key {
            // Another case of the same name.
            if let Some(entry) = from_names.get_mut(&from_key) {
                std::mem::swap(&mut entry.name, &mut new.name);
            }
            self.tell_moved((from_dir, from), (to_dir, to), &source);
            drop((from_names, other_names));
            source.relink(0);
            from_dir.modified();
            return Ok(());
        }
        let to_names = other_names.as_mut().unwrap_or(&mut from_names);
        let target = to_names.get(&new.key).map(|entry| Arc::clone(&entry.inode));
        let is_directory = source.kind == Kind::Directory;
        if let Some(target) = &target {
            if !replace {
                return Err(FsError::Exists);
            }
            if Arc::ptr_eq(target, &source) {
                // As rename(2) does with two names of one object.
                return Ok(());
            }
            match (is_directory, target.kind == Kind::Directory) {
                (true, true) => target.names()?.remove_all()?,
                (true, false) => return Err(FsError::NotADirectory),
                (false, true) => return Err(FsError::IsADirectory),
                (false, false) => {}
            }
        }
        match to_names.get_mut(&new.key) {
            // The name stood there all the time: a listing tells it once.
            Some(entry) => {
                std::mem::swap(&mut entry.name, &mut new.name);
                entry.inode = Arc::clone(&source);
            }
            None => to_names.insert(new, Arc::clone(&source)),
        }
        let taken = from_names.remove(&from_key);
        self.tell_moved((from_dir, from), (to_dir, to), &source);
        if let (Some(queue), Some(target)) = (&self.volume.queue, &target) {
            queue.end(target.number);
        }
        drop((from_names, other_names));
        drop(taken);
        if is_directory && !is_one {
            from_dir.relink(-1);
            to_dir.relink(1);
        }
        if let Some(target) = target {
            if target.kind == Kind::Directory {
                to_dir.relink(-1);
                target.relink(-2);
            } else {
                target.relink(-1);
            }
        }
        from_dir.modified();
        if !is_one {
            to_dir.modified();
        }
        source.relink(0);
        Ok(())
    }

    fn tell_moved(&self, from: (&Inode, &DiskName), to: (&Inode, &DiskName), what: &Inode) {
        self.volume.tell(from.0.number, |watch| ToldChange::Removed(watch, from.1.clone()));
        self.volume.tell(to.0.number, |watch| ToldChange::MovedTo(watch, to.1.clone()));
        self.volume.tell(what.number, ToldChange::Moved);
    }

    fn link_now(
        &self,
        file: &dyn BackendFile,
        to_dir: &BackendNode,
        to: &DiskName,
        replace: bool,
    ) -> Result<()> {
        let file = file.as_any().downcast_ref::<MemoryFile>().ok_or(FsError::CrossDevice)?;
        let inode = &file.inode;
        if !Arc::ptr_eq(&inode.volume, &self.volume) {
            return Err(FsError::CrossDevice);
        }
        if inode.kind == Kind::Directory {
            return Err(FsError::IsADirectory);
        }
        let to_dir = self.inode(to_dir)?;
        let mut new = to_dir.new_name(to);
        let mut names = to_dir.names()?.lock(&new.key)?;
        {
            // Checked and counted in one step, so that a last name that goes meanwhile is not followed by another.
            let mut attributes = inode.attributes.lock();
            if attributes.links == 0 {
                return Err(FsError::NotFound);
            }
            let target = names.get(&new.key);
            match target {
                Some(_) if !replace => return Err(FsError::Exists),
                Some(target) if target.inode.kind == Kind::Directory => return Err(FsError::IsADirectory),
                Some(target) if Arc::ptr_eq(&target.inode, inode) => return Ok(()),
                _ => {}
            }
            attributes.links += 1;
            attributes.changed = Timestamp::now();
        }
        let replaced = match names.get_mut(&new.key) {
            Some(entry) => {
                self.volume.tell(to_dir.number, |watch| ToldChange::Removed(watch, entry.name.clone()));
                std::mem::swap(&mut entry.name, &mut new.name);
                Some(std::mem::replace(&mut entry.inode, Arc::clone(inode)))
            }
            None => {
                names.insert(new, Arc::clone(inode));
                None
            }
        };
        self.volume.tell(to_dir.number, |watch| ToldChange::Created(watch, to.clone()));
        drop(names);
        if let Some(replaced) = replaced {
            replaced.relink(-1);
        }
        to_dir.modified();
        Ok(())
    }

    fn open_now(
        &self,
        dir: Option<&BackendNode>,
        name: &DiskName,
        expect: &BackendKey,
    ) -> Result<Arc<dyn BackendFile>> {
        let inode = match dir {
            None => Arc::clone(&self.root),
            Some(dir) => {
                let dir = self.inode(dir)?;
                let key = dir.key_of(name);
                let names = dir.names()?.lock(&key)?;
                let entry = names.get(&key).filter(|entry| entry.name == *name);
                Arc::clone(&entry.ok_or(FsError::NotFound)?.inode)
            }
        };
        if inode.key() != *expect {
            return Err(FsError::Stale);
        }
        Ok(Arc::new(MemoryFile { inode }))
    }
}

impl Backend for Memory {
    fn caps(&self) -> Caps {
        let options = &self.volume.options;
        let coherence = match (options.exclusive, options.watches) {
            (true, _) => Coherence::Exclusive,
            (false, Some(_)) => Coherence::Notify,
            (false, None) => Coherence::None,
        };
        Caps { coherence, folds: options.fold == Fold::Insensitive, no_replace: true }
    }

    fn root(&self) -> Fut<'_, NodeInfo> {
        Box::pin(ready(Ok(self.root.info())))
    }

    fn lookup<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName) -> Fut<'a, Option<NodeInfo>> {
        Box::pin(ready(self.lookup_now(dir, name)))
    }

    fn lookup_folded<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a Name,
        fold: &'a Fold,
    ) -> Fut<'a, Vec<(DiskName, NodeInfo)>> {
        Box::pin(ready(self.lookup_folded_now(dir, name, fold)))
    }

    fn names<'a>(&'a self, dir: &'a BackendNode, sink: Box<dyn NameSink>) -> Fut<'a, Box<dyn NameSink>> {
        Box::pin(async move {
            let dir = self.inode(dir)?;
            let names: Vec<DiskName> =
                dir.names()?.lock_all()?.iter().map(|entry| entry.name.clone()).collect();
            let mut sink = sink;
            let _enough = names.iter().all(|name| sink.name(name.as_bytes()));
            Ok(sink)
        })
    }

    fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        self.volume.queue.clone().map(|queue| queue as Arc<dyn Watcher>)
    }

    fn create<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a DiskName,
        how: &'a CreateHow,
    ) -> Fut<'a, (NodeInfo, Arc<dyn BackendFile>)> {
        Box::pin(async move { self.create_now(dir, name, how) })
    }

    fn unlink<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()> {
        Box::pin(async move { self.remove_now(dir, name, expect, Kind::File) })
    }

    fn rmdir<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()> {
        Box::pin(async move { self.remove_now(dir, name, expect, Kind::Directory) })
    }

    fn rename<'a>(
        &'a self,
        from_dir: &'a BackendNode,
        from: &'a DiskName,
        expect: Option<&'a BackendKey>,
        to_dir: &'a BackendNode,
        to: &'a DiskName,
        replace: bool,
    ) -> Fut<'a, ()> {
        Box::pin(async move { self.rename_now(from_dir, from, expect, to_dir, to, replace) })
    }

    fn link<'a>(
        &'a self,
        node: &'a dyn BackendFile,
        to_dir: &'a BackendNode,
        to: &'a DiskName,
        replace: bool,
    ) -> Fut<'a, ()> {
        Box::pin(async move { self.link_now(node, to_dir, to, replace) })
    }

    fn open<'a>(
        &'a self,
        dir: Option<&'a BackendNode>,
        name: &'a DiskName,
        expect: &'a BackendKey,
        _how: OpenHow,
    ) -> Fut<'a, Arc<dyn BackendFile>> {
        Box::pin(ready(self.open_now(dir, name, expect)))
    }

    fn volume(&self) -> Fut<'_, VolumeInfo> {
        let options = &self.volume.options;
        let free = options.limit.saturating_sub(self.volume.used.load(Ordering::Relaxed));
        Box::pin(ready(Ok(VolumeInfo {
            total_bytes: options.limit,
            free_bytes: free,
            available_bytes: free,
            block_size: BLOCK as u32,
            serial: (self.volume.device as u32) ^ 0x5348_4f41,
            label: options.label.clone(),
            fs_type: "memory".to_owned(),
            name_max: 255,
            sparse: true,
        })))
    }
}

/// An open object.
struct MemoryFile {
    inode: Arc<Inode>,
}

impl MemoryFile {
    fn set_now(&self, set: &SetMetadata) -> Result<()> {
        let inode = &self.inode;
        let mut resized = false;
        if let Some(size) = set.size {
            let mut data = inode.data_mut()?;
            resized = data.size != size;
            data.set_size(&inode.volume, size)?;
        }
        let now = Timestamp::now();
        let mut attributes = inode.attributes.lock();
        attributes.changed = now;
        if resized {
            attributes.modified = now;
        }
        if let Some(accessed) = set.accessed {
            attributes.accessed = accessed;
        }
        if let Some(modified) = set.modified {
            attributes.modified = modified;
        }
        if let Some(mode) = set.mode {
            attributes.mode = mode & 0o7777;
        }
        if let Some(dos) = set.dos {
            attributes.dos = Some(dos);
        }
        Ok(())
    }

    fn write_now(&self, offset: u64, data: &[u8]) -> Result<usize> {
        if !data.is_empty() {
            self.inode.data_mut()?.write(&self.inode.volume, offset, data)?;
            self.inode.modified();
        }
        Ok(data.len())
    }

    fn allocate_now(&self, bytes: u64) -> Result<()> {
        if bytes > SIZE_MAX - PAGE {
            return Err(FsError::FileTooLarge);
        }
        let mut data = self.inode.data_mut()?;
        let (charged, reserved) = (data.charged, data.reserved.max(blocks(bytes)));
        data.recharge(&self.inode.volume, charged, reserved)
    }

    fn punch_now(&self, offset: u64, length: u64) -> Result<()> {
        let end = offset.checked_add(length).ok_or(FsError::Invalid)?;
        let mut data = self.inode.data_mut()?;
        let end = end.min(data.size);
        if offset < end {
            data.punch(&self.inode.volume, offset, end);
            drop(data);
            self.inode.modified();
        }
        Ok(())
    }

    fn ranges_now(&self, offset: u64, length: u64) -> Result<Vec<(u64, u64)>> {
        let data = self.inode.data()?.read();
        let end = offset.saturating_add(length).min(data.size);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        if offset >= end {
            return Ok(ranges);
        }
        for (page, held) in data.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let start = (page * PAGE).max(offset);
            let stop = (page * PAGE + blocks(held.len() as u64)).min(end);
            if start >= stop {
                continue;
            }
            match ranges.last_mut() {
                Some((at, length)) if *at + *length == start => *length += stop - start,
                _ => ranges.push((start, stop - start)),
            }
        }
        Ok(ranges)
    }

    fn read_dir_now(&self, cookie: u64, max: usize, metadata: bool) -> Result<Vec<DirEntry>> {
        let names = match self.inode.names().and_then(Names::lock_all) {
            Ok(names) => names,
            // Removed while it was open: it has no names.
            Err(FsError::NotFound) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let Some(from) = cookie.checked_add(1) else { return Ok(Vec::new()) };
        let page: Vec<(u64, DiskName, Arc<Inode>)> = names
            .iter_from(from)
            .take(max)
            .map(|(position, entry)| (position, entry.name.clone(), Arc::clone(&entry.inode)))
            .collect();
        drop(names);
        let entry = |(cookie, name, inode): (u64, DiskName, Arc<Inode>)| DirEntry {
            name: name.to_name(),
            cookie,
            kind: Some(inode.kind),
            metadata: metadata.then(|| inode.metadata()),
        };
        Ok(page.into_iter().map(entry).collect())
    }

    fn set_xattr_now(&self, name: &str, value: Option<&[u8]>) -> Result<()> {
        let volume = &self.inode.volume;
        let mut attributes = self.inode.attributes.lock();
        let before = attributes.xattrs.get(name).map_or(0, |value| name.len() + value.len());
        let after = value.map_or(0, |value| name.len() + value.len());
        let all: usize = attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if all - before + after > XATTRS_MAX {
            return Err(FsError::NoSpace);
        }
        volume.charge(after as u64)?;
        volume.give_back(before as u64);
        match value {
            Some(value) => drop(attributes.xattrs.insert(name.to_owned(), value.to_vec())),
            None => drop(attributes.xattrs.remove(name)),
        }
        attributes.changed = Timestamp::now();
        Ok(())
    }
}

impl BackendFile for MemoryFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn metadata(&self) -> Fut<'_, Metadata> {
        Box::pin(ready(Ok(self.inode.metadata())))
    }

    fn set_metadata<'a>(&'a self, set: &'a SetMetadata) -> Fut<'a, ()> {
        Box::pin(ready(self.set_now(set)))
    }

    fn read_at(&self, offset: u64, length: usize) -> Fut<'_, Bytes> {
        Box::pin(ready(self.inode.data().map(|data| data.read().read(offset, length))))
    }

    fn write_at<'a>(&'a self, offset: u64, data: Bytes) -> Fut<'a, usize> {
        Box::pin(ready(self.write_now(offset, &data)))
    }

    fn flush(&self) -> Fut<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    fn allocate(&self, bytes: u64) -> Fut<'_, ()> {
        Box::pin(ready(self.allocate_now(bytes)))
    }

    fn zero_range(&self, offset: u64, length: u64) -> Fut<'_, ()> {
        Box::pin(ready(self.punch_now(offset, length)))
    }

    fn punch(&self, offset: u64, length: u64) -> Fut<'_, ()> {
        Box::pin(ready(self.punch_now(offset, length)))
    }

    fn allocated_ranges(&self, offset: u64, length: u64) -> Fut<'_, Vec<(u64, u64)>> {
        Box::pin(ready(self.ranges_now(offset, length)))
    }

    fn read_dir(&self, cookie: u64, max: usize, metadata: bool) -> Fut<'_, Vec<DirEntry>> {
        Box::pin(ready(self.read_dir_now(cookie, max, metadata)))
    }

    fn get_xattr<'a>(&'a self, name: &'a str) -> Fut<'a, Option<Vec<u8>>> {
        Box::pin(ready(Ok(self.inode.attributes.lock().xattrs.get(name).cloned())))
    }

    fn set_xattr<'a>(&'a self, name: &'a str, value: &'a [u8]) -> Fut<'a, ()> {
        Box::pin(ready(self.set_xattr_now(name, Some(value))))
    }

    fn remove_xattr<'a>(&'a self, name: &'a str) -> Fut<'a, ()> {
        Box::pin(ready(self.set_xattr_now(name, None)))
    }

    fn list_xattrs(&self) -> Fut<'_, Vec<String>> {
        Box::pin(ready(Ok(self.inode.attributes.lock().xattrs.keys().cloned().collect())))
    }
}
