//! The real file system, on Linux: a directory and all that is below it.
//!
//! - A share's root is opened once by its path. From there on each call names one component relative to an open directory, follows no
//!   symbolic link and knows no `..`: nothing outside of the root can be named.
//! - What a name means is compared with what the cache believes (device, inode number, birth time) before and after it is opened or
//!   removed; `Stale` says that it is another object.
//! - Devices, FIFOs and sockets are seen and may be removed or renamed, and are never opened; nor are symbolic links.
//! - A file system mounted below the root belongs to the share, as it does for Samba, unless [`Options::one_mount`].
//! - Calls run inline as long as they are quick: see `run.rs`.
//! - DOS attributes are stored as Samba stores them: see [`crate::xattr`].

mod file;
mod inode;
mod mark;
mod moves;
mod read_dir;
mod run;
mod sys;
#[cfg(test)]
mod tests;
mod watch;

use std::any::Any;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{OFlags, StatFs};
use rustix::io::Errno;

use self::file::{Access, LocalFile, Open};
use self::inode::{Directory, Place, Volume, key_of, kind_in_key, leaf};
use self::read_dir::{Scan, Spellings};
use self::run::{Runner, Verb, blocking};
use self::watch::{Queue, WATCHES_MAX};
use crate::backend::{
    Backend, BackendFile, BackendNode, Caps, Coherence, CreateHow, NameSink, NodeInfo, OpenHow, Token,
    Watcher,
};
use crate::error::{FsError, Fut, Result};
use crate::fold::Fold;
use crate::metadata::{BackendKey, Kind, VolumeInfo};
use crate::name::{DiskName, Name};

/// How a directory of the real file system is served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How the cache learns of what others do; `None`: by a queue of changes where the root's file system can be watched,
    /// and not at all elsewhere. Where it is said to be `Exclusive` and is not, clients see what is no longer there, and worse.
    pub coherence: Option<Coherence>,
    /// File systems mounted below the root are not entered: what lies in them fails with `CrossDevice`.
    pub one_mount: bool,
    /// The most directories that have a watch of their own; `None`: 65,536. Of those beyond, the whole file system's changes tell
    /// where the process may ask for these.
    pub watches_max: Option<usize>,
}

/// A directory of the real file system as a backend.
pub struct Local {
    volume: Arc<Volume>,
    runner: Arc<Runner>,
    root: Arc<Directory>,
    coherence: Coherence,
    watches_max: usize,
}

/// File systems whose change times (from Linux 6.13 on) tell apart any two changes that somebody looked between.
const FINE_TIMES: [i64; 4] = [EXT4, XFS, BTRFS, TMPFS];

/// File systems no name of which changes but by a call of this kernel, which can thus be watched. Not overlays: what changes beneath
/// one is not told.
const WATCHED: [i64; 7] = [EXT4, XFS, BTRFS, TMPFS, F2FS, BCACHEFS, ZFS];

const EXT4: i64 = 0xEF53;
const XFS: i64 = 0x5846_5342;
const BTRFS: i64 = 0x9123_683E;
const TMPFS: i64 = 0x0102_1994;
const F2FS: i64 = 0xF2F5_2010;
const BCACHEFS: i64 = 0xCA45_1A4E;
const ZFS: i64 = 0x2FC1_2FC1;

impl Local {
    /// Serves the directory `root`.
    ///
    /// # Errors
    /// What the system says when it is opened or looked at.
    pub fn open(root: &Path, options: Options) -> io::Result<Local> {
        let fd = Arc::new(sys::open_root(root)?);
        let stat = sys::statx(sys::borrow(&fd))?;
        let info = sys::statfs(sys::borrow(&fd))?;
        let fine_times = FINE_TIMES.contains(&file_system(&info)) && sys::kernel_version() >= (6, 13);
        let watched = is_watched(&info);
        let coherence =
            options.coherence.unwrap_or(if watched { Coherence::Notify } else { Coherence::None });
        let key = key_of(&stat);
        let volume = Arc::new(Volume::new(options.one_mount, fine_times, watched.then_some(key.device)));
        let root = volume.hold(key, None, fd);
        let watches_max = options.watches_max.unwrap_or(WATCHES_MAX);
        Ok(Local { volume, runner: Arc::default(), root, coherence, watches_max })
    }

    fn run<T: Send + 'static>(
        &self,
        verb: Verb,
        job: impl FnOnce(&Arc<Volume>) -> Result<T> + Send + 'static,
    ) -> Fut<'_, T> {
        let volume = self.volume.clone();
        Box::pin(self.runner.run(verb, Duration::ZERO, move || job(&volume)))
    }

    /// Runs a job that changes names in `dir`.
    fn change<T: Send + 'static>(
        &self,
        verb: Verb,
        dir: &BackendNode,
        job: impl FnOnce(&Arc<Volume>, &Arc<Directory>) -> Result<T> + Send + 'static,
    ) -> Fut<'_, T> {
        let dir = match directory(dir) {
            Ok(dir) => dir,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let volume = self.volume.clone();
        Box::pin(self.runner.run_in_turn(verb, dir.key, move || job(&volume, &dir)))
    }

    /// Reads all names of a directory: the first thousand where such a call belongs, the rest in the pool, as long as the directory may
    /// be.
    async fn scan(&self, dir: &Arc<Directory>, sink: Box<dyn NameSink>) -> Result<Box<dyn NameSink>> {
        let dir = dir.clone();
        let begun = self.runner.run(Verb::Search, Duration::from_micros(500), {
            let volume = self.volume.clone();
            move || {
                let mut scan = Scan::begin(&volume, &dir, sink)?;
                // The last read only says that there is no more.
                let more = scan.step()? && scan.step()?;
                Ok((scan, more))
            }
        });
        let (mut scan, more) = begun.await?;
        if more {
            scan = blocking(move || {
                while scan.step()? {}
                Ok(scan)
            })
            .await?;
        }
        Ok(scan.finish())
    }

    /// Makes an open object out of a job that opens one.
    fn run_open(
        &self,
        verb: Verb,
        job: impl FnOnce(&Arc<Volume>) -> Result<Open> + Send + 'static,
    ) -> Fut<'_, Arc<dyn BackendFile>> {
        let opened = self.run(verb, job);
        Box::pin(async move { Ok(self.file(opened.await?)) })
    }

    fn file(&self, open: Open) -> Arc<dyn BackendFile> {
        Arc::new(LocalFile { open: Arc::new(open), runner: self.runner.clone() })
    }
}

/// The directory that a node of ours is.
fn directory(node: &BackendNode) -> Result<Arc<Directory>> {
    node.0.clone().downcast().map_err(|_| FsError::NotADirectory)
}

fn open_object(volume: &Arc<Volume>, fd: Arc<OwnedFd>, kind: Kind, access: Access) -> Open {
    Open { fd, kind, access, volume: volume.clone(), listing: Mutex::default(), when_opened: None }
}

const FILE: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);
const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// Opens an existing object; see [`Backend::open`].
fn open(
    volume: &Arc<Volume>,
    dir: &Arc<Directory>,
    name: &[u8],
    expect: &BackendKey,
    how: OpenHow,
) -> Result<Open> {
    let kind = kind_in_key(expect);
    let flags = match (kind, how.read, how.write) {
        (Kind::Symlink, true, _) | (Kind::Symlink, _, true) => return Err(FsError::Symlink),
        (Kind::Special, true, _) | (Kind::Special, _, true) => return Err(FsError::SpecialFile),
        (_, false, false) => OFlags::PATH,
        // To write into a directory is to make names in it, which no descriptor for writing is needed for.
        (Kind::Directory, ..) => LIST,
        (_, true, false) => OFlags::RDONLY | FILE,
        (_, false, true) => OFlags::WRONLY | FILE,
        (_, true, true) => OFlags::RDWR | FILE,
    };
    let dir = dir.descriptor()?;
    let fd = match volume.open_at(sys::borrow(&dir), name, flags, 0) {
        Ok(fd) => fd,
        // None of these can come of an object of the expected kind: the name means another by now.
        Err(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO) => return Err(FsError::Stale),
        Err(errno) => return Err(errno.into()),
    };
    let stat = sys::statx(sys::borrow(&fd))?;
    if key_of(&stat) != *expect {
        return Err(FsError::Stale);
    }
    let access = if flags == OFlags::PATH { Access::Path } else { Access::Data };
    let mut open = open_object(volume, Arc::new(fd), kind, access);
    open.when_opened = Some(volume.metadata(&stat, open.target()));
    Ok(open)
}

fn create(
    volume: &Arc<Volume>,
    dir: &Arc<Directory>,
    name: &DiskName,
    how: &CreateHow,
) -> Result<(NodeInfo, Open)> {
    let parent = dir.descriptor()?;
    let parent = sys::borrow(&parent);
    let open = match how.kind {
        Kind::File => {
            // Even a handle that is only read needs no narrower descriptor: what it may do is the server's to say.
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | FILE;
            let fd = volume.open_at(parent, name.as_bytes(), flags, how.mode)?;
            open_object(volume, Arc::new(fd), Kind::File, Access::Data)
        }
        Kind::Directory => {
            sys::mkdir_at(parent, name.as_bytes(), how.mode)?;
            match volume.open_at(parent, name.as_bytes(), LIST, 0) {
                Ok(fd) => open_object(volume, Arc::new(fd), Kind::Directory, Access::Data),
                Err(errno) => {
                    // Gone already (an outsider), or there is no descriptor left for it.
                    let _ = sys::unlink_at(parent, name.as_bytes(), true);
                    return Err(errno.into());
                }
            }
        }
        Kind::Symlink | Kind::Special => return Err(FsError::NotSupported),
    };
    let dressed = how
        .dos
        .as_ref()
        .map_or(Ok(()), |dos| open.set_dos(dos))
        .and_then(|()| open.metadata_when_made(how.dos));
    let metadata = match dressed {
        Ok(metadata) => metadata,
        Err(error) => {
            // Nobody has seen it: whole, or not at all.
            let _ = sys::unlink_at(parent, name.as_bytes(), how.kind == Kind::Directory);
            return Err(error);
        }
    };
    let node = if how.kind == Kind::Directory {
        let place = Place { parent: Arc::downgrade(dir), name: name.clone() };
        BackendNode(volume.hold(metadata.key, Some(place), open.fd.clone()))
    } else {
        leaf()
    };
    Ok((NodeInfo { node, metadata }, open))
}

fn remove(dir: &Arc<Directory>, name: &DiskName, expect: &BackendKey, as_directory: bool) -> Result<()> {
    let dir = dir.descriptor()?;
    let dir = sys::borrow(&dir);
    if key_of(&sys::statx_at(dir, name.as_bytes())?) != *expect {
        return Err(FsError::Stale);
    }
    match (as_directory, kind_in_key(expect) == Kind::Directory) {
        (false, true) => return Err(FsError::IsADirectory),
        (true, false) => return Err(FsError::NotADirectory),
        _ => {}
    }
    match sys::unlink_at(dir, name.as_bytes(), as_directory) {
        // Some file systems say "exists" of a directory that is not empty.
        Err(Errno::EXIST) if as_directory => Err(FsError::NotEmpty),
        result => Ok(result?),
    }
}

fn rename(
    from: (&Arc<Directory>, &DiskName),
    expect: Option<&BackendKey>,
    to: (&Arc<Directory>, &DiskName),
    replace: bool,
) -> Result<()> {
    let descriptor = to.0.descriptor()?;
    let to_dir = sys::borrow(&descriptor);
    // Mostly it is one directory.
    let elsewhere = if Arc::ptr_eq(from.0, to.0) { None } else { Some(from.0.descriptor()?) };
    let from_dir = elsewhere.as_ref().map_or(to_dir, |dir| sys::borrow(dir));
    let (from, to) = (from.1.as_bytes(), to.1.as_bytes());
    if let Some(expect) = expect
        && key_of(&sys::statx_at(from_dir, from)?) != *expect
    {
        return Err(FsError::NotFound);
    }
    match sys::rename_at(from_dir, from, to_dir, to, !replace) {
        // A file system that cannot tell by itself (or a move of a directory below itself, which fails again). The caller's claim on the
        // target keeps our own clients out; against an outsider a moment stays open.
        Err(Errno::INVAL | Errno::NOSYS) if !replace => match sys::statx_at(to_dir, to) {
            Ok(_) => Err(FsError::Exists),
            Err(Errno::NOENT) => Ok(sys::rename_at(from_dir, from, to_dir, to, false)?),
            Err(errno) => Err(errno.into()),
        },
        Err(Errno::EXIST) if replace => Err(FsError::NotEmpty),
        result => Ok(result?),
    }
}

fn link(open: &Open, to_dir: &Arc<Directory>, to: &DiskName, replace: bool) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let dir = to_dir.descriptor()?;
    let dir = sys::borrow(&dir);
    match sys::link_at(open.fd(), dir, to.as_bytes()) {
        Err(Errno::EXIST) if replace => {}
        // linkat(2) says EPERM of a directory.
        Err(Errno::PERM) if open.kind == Kind::Directory => return Err(FsError::IsADirectory),
        result => return Ok(result?),
    }
    // Under a name of its own first, then over the old one: the name is never absent.
    let passing = format!(".shoal-link-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    sys::link_at(open.fd(), dir, passing.as_bytes())?;
    let renamed = sys::rename_at(dir, passing.as_bytes(), dir, to.as_bytes(), false);
    if renamed.is_err() || sys::statx_at(dir, passing.as_bytes()).is_ok() {
        // Linux leaves both names if they are of one object already.
        let _ = sys::unlink_at(dir, passing.as_bytes(), false);
    }
    Ok(renamed?)
}

fn volume_info(root: &Arc<Directory>) -> Result<VolumeInfo> {
    let fd = root.descriptor()?;
    let info = sys::statfs(sys::borrow(&fd))?;
    let unit = match info.f_frsize as u64 {
        0 => info.f_bsize as u64,
        unit => unit,
    };
    let fs_type = file_system_name(file_system(&info));
    Ok(VolumeInfo {
        total_bytes: info.f_blocks.saturating_mul(unit),
        free_bytes: info.f_bfree.saturating_mul(unit),
        available_bytes: info.f_bavail.saturating_mul(unit),
        block_size: u32::try_from(unit).unwrap_or(4096),
        serial: serial(&root.key),
        label: String::new(),
        fs_type: fs_type.to_owned(),
        name_max: (info.f_namelen as u32).clamp(1, 255),
        sparse: !matches!(fs_type, "vfat" | "exfat"),
    })
}

/// A serial number that stays the same across restarts: of what the root is, since not every file system has a number of its own.
fn serial(root: &BackendKey) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in [root.inode, root.generation].iter().flat_map(|word| word.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (hash ^ hash >> 32) as u32
}

/// Whether directories of this file system can be watched.
fn is_watched(info: &StatFs) -> bool {
    WATCHED.contains(&file_system(info))
}

/// The file system's magic number.
fn file_system(info: &StatFs) -> i64 {
    (info.f_type as u64 & 0xFFFF_FFFF) as i64
}

fn file_system_name(magic: i64) -> &'static str {
    match magic {
        EXT4 => "ext4",
        XFS => "xfs",
        BTRFS => "btrfs",
        TMPFS => "tmpfs",
        ZFS => "zfs",
        F2FS => "f2fs",
        BCACHEFS => "bcachefs",
        0x794C_7630 => "overlay",
        0x0000_6969 => "nfs",
        0x00C3_6400 => "ceph",
        0x6573_5546 => "fuse",
        0xFF53_4D42 => "cifs",
        0xFE53_4D42 => "smb2",
        0x7366_746E => "ntfs3",
        0x0000_4D44 => "vfat",
        0x2011_BAB0 => "exfat",
        0x0102_1997 => "9p",
        0x7371_7368 => "squashfs",
        0xE0F5_E1E2 => "erofs",
        _ => "unknown",
    }
}

impl Backend for Local {
    fn caps(&self) -> Caps {
        Caps { coherence: self.coherence, folds: false, no_replace: true }
    }

    fn root(&self) -> Fut<'_, NodeInfo> {
        let root = self.root.clone();
        self.run(Verb::Metadata, move |volume| {
            let fd = root.descriptor()?;
            let stat = sys::statx(sys::borrow(&fd))?;
            let metadata = volume.metadata(&stat, sys::Target::Directory(sys::borrow(&fd)));
            Ok(NodeInfo { node: BackendNode(root), metadata })
        })
    }

    fn lookup<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName) -> Fut<'a, Option<NodeInfo>> {
        let (dir, name) = (dir.clone(), name.clone());
        self.run(Verb::Lookup, move |volume| volume.lookup(&directory(&dir)?, &name))
    }

    fn moved(&self, node: &BackendNode, dir: &BackendNode, name: &DiskName) {
        if let (Ok(node), Ok(dir)) = (directory(node), directory(dir)) {
            node.found_at(Some(Place { parent: Arc::downgrade(&dir), name: name.clone() }));
        }
    }

    fn identify<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName) -> Fut<'a, Option<BackendKey>> {
        let (dir, name) = (dir.clone(), name.clone());
        self.run(Verb::Lookup, move |_| {
            let dir = directory(&dir)?.descriptor()?;
            match sys::statx_at(sys::borrow(&dir), name.as_bytes()) {
                Ok(stat) => Ok(Some(key_of(&stat))),
                Err(Errno::NOENT) => Ok(None),
                Err(errno) => Err(errno.into()),
            }
        })
    }

    fn lookup_folded<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a Name,
        fold: &'a Fold,
    ) -> Fut<'a, Vec<(DiskName, NodeInfo)>> {
        Box::pin(async move {
            if *fold == Fold::Sensitive {
                let disk = name.to_disk();
                let found = self.lookup(dir, &disk).await?;
                return Ok(found.map(|info| (disk, info)).into_iter().collect());
            }
            let dir = directory(dir)?;
            let sink: Box<dyn Any> = self.scan(&dir, Spellings::of(*fold, name)).await?;
            let spellings = sink.downcast::<Spellings>().map(|sink| sink.found).unwrap_or_default();
            if spellings.is_empty() {
                return Ok(Vec::new());
            }
            self.run(Verb::Lookup, move |volume| read_dir::look_up(volume, &dir, spellings)).await
        })
    }

    fn names<'a>(&'a self, dir: &'a BackendNode, sink: Box<dyn NameSink>) -> Fut<'a, Box<dyn NameSink>> {
        Box::pin(async move { self.scan(&directory(dir)?, sink).await })
    }

    fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        Some(Arc::new(Queue::new(&self.volume, self.watches_max)))
    }

    fn token<'a>(&'a self, dir: &'a BackendNode) -> Fut<'a, Option<Token>> {
        let dir = dir.clone();
        self.run(Verb::Metadata, move |volume| volume.token(&directory(&dir)?).map(Some))
    }

    fn create<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a DiskName,
        how: &'a CreateHow,
    ) -> Fut<'a, (NodeInfo, Arc<dyn BackendFile>)> {
        let (name, how) = (name.clone(), how.clone());
        let created = self.change(Verb::Create, dir, move |volume, dir| create(volume, dir, &name, &how));
        Box::pin(async move {
            let (info, open) = created.await?;
            Ok((info, self.file(open)))
        })
    }

    fn unlink<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()> {
        let (name, expect) = (name.clone(), *expect);
        self.change(Verb::Remove, dir, move |_, dir| remove(dir, &name, &expect, false))
    }

    fn rmdir<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()> {
        let (name, expect) = (name.clone(), *expect);
        self.change(Verb::Remove, dir, move |_, dir| remove(dir, &name, &expect, true))
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
        let (from, expect, to) = (from.clone(), expect.copied(), to.clone());
        let from_dir = if Arc::ptr_eq(&from_dir.0, &to_dir.0) { None } else { Some(from_dir.clone()) };
        self.change(Verb::Rename, to_dir, move |_, to_dir| {
            let elsewhere = from_dir.as_ref().map(directory).transpose()?;
            let from_dir = elsewhere.as_ref().unwrap_or(to_dir);
            rename((from_dir, &from), expect.as_ref(), (to_dir, &to), replace)
        })
    }

    fn link<'a>(
        &'a self,
        node: &'a dyn BackendFile,
        to_dir: &'a BackendNode,
        to: &'a DiskName,
        replace: bool,
    ) -> Fut<'a, ()> {
        let Some(file) = node.as_any().downcast_ref::<LocalFile>() else {
            return Box::pin(std::future::ready(Err(FsError::CrossDevice)));
        };
        let (open, to) = (file.open.clone(), to.clone());
        self.change(Verb::Link, to_dir, move |_, to_dir| link(&open, to_dir, &to, replace))
    }

    fn open<'a>(
        &'a self,
        dir: Option<&'a BackendNode>,
        name: &'a DiskName,
        expect: &'a BackendKey,
        how: OpenHow,
    ) -> Fut<'a, Arc<dyn BackendFile>> {
        let (dir, expect) = (dir.cloned(), *expect);
        let root = self.root.clone();
        let name = name.clone();
        self.run_open(Verb::Open, move |volume| match dir {
            Some(dir) => open(volume, &directory(&dir)?, name.as_bytes(), &expect, how),
            None => open(volume, &root, b".", &expect, how),
        })
    }

    fn volume(&self) -> Fut<'_, VolumeInfo> {
        let root = self.root.clone();
        self.run(Verb::Volume, move |_| volume_info(&root))
    }
}

/// The system calls of local backends that this thread has made since the last time it asked, by name.
#[cfg(feature = "counted")]
pub fn take_calls() -> Vec<&'static str> {
    sys::take_calls()
}

/// Raises this process' limit of open descriptors as far as it may: to the hard limit, and beyond it, up to 1,048,576, if it is
/// privileged. The answer is the limit that holds now.
///
/// # Errors
/// What the system says.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    const WANTED: u64 = 1 << 20;
    let (soft, hard) = sys::descriptor_limit();
    let (soft, hard) = (soft.unwrap_or(u64::MAX), hard.unwrap_or(u64::MAX));
    let system =
        std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let wanted = WANTED.min(system.unwrap_or(WANTED));
    let limit = if soft >= wanted {
        soft
    } else if hard < wanted && sys::set_descriptor_limit(wanted, wanted).is_ok() {
        wanted
    } else {
        let limit = hard.min(wanted);
        if limit > soft {
            sys::set_descriptor_limit(limit, hard)?;
        }
        limit.max(soft)
    };
    inode::limit_changed();
    Ok(limit)
}
