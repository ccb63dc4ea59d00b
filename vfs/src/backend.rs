//! `Backend`: the storage below the cache. Each verb states the guarantee that it is called with.
//!
//! A backend does system calls (or what stands for them) and nothing else: the cache above has taken the name's claim
//! and its directory's gate before a verb that changes the tree, so that a backend never locks a name itself.
//!
//! **Nothing leaves the root.** An object is found only by one name in one directory that was itself found so; a
//! backend opens `name` relative to `dir`, follows no symbolic link and crosses no `..`.
//!
//! **Foreign changes.** Unless it is [`Coherence::Exclusive`], other processes may change the tree at any time. What the
//! cache may then believe depends on how it learns of that: see [`Coherence`]. Where it does not, it looks each component
//! up again (`lookup`, the exact spelling) before it uses it, and compares the answer's [`BackendKey`] with the one it
//! had: the same, and it goes on with the node it knows (the new [`NodeInfo::node`] is thrown away, so a backend should
//! make it cheaply, or open the directory's descriptor only when the node is first used as a directory); another, and
//! the name's old meaning is forgotten.

use std::any::Any;
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{FsError, Fut, Result};
use crate::fold::Fold;
use crate::metadata::{BackendKey, DosAttributes, Kind, Metadata, SetMetadata, Timestamp, VolumeInfo};
use crate::name::{DiskName, Name};

/// How the cache learns of what others do to the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coherence {
    /// Nobody but this process changes the tree: what was once looked up, present or absent, is believed for ever.
    Exclusive,
    /// Changes of names are told by a [`Watcher`]: each is queued when the call that made it returns. What was looked up
    /// in a directory while that was watched is believed once the queue has been read.
    Notify,
    /// Nothing is told, but a directory's [`Token`] changes with each change of a name in it. Which names a directory
    /// has is believed while its token is the same; so long after it was last compared it need not be again.
    Revalidate(Duration),
    /// Nothing is told: what names mean is looked up each time.
    #[default]
    None,
}

/// What a backend can do and promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// How the cache learns of foreign changes.
    pub coherence: Coherence,
    /// The storage compares names as the share does: two spellings that fold alike never stand in one directory, and
    /// `lookup_folded` is no scan.
    pub folds: bool,
    /// `rename` and `link` without `replace` are refused by the storage itself if the target exists.
    pub no_replace: bool,
}

impl Caps {
    /// Whether nobody but this process changes the tree.
    pub fn exclusive(&self) -> bool {
        self.coherence == Coherence::Exclusive
    }
}

/// What changes when a name in a directory does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// When the directory's names last changed.
    pub modified: Timestamp,
    /// When anything of it last changed.
    pub changed: Timestamp,
    /// A change from now on is sure to give another token. Where clocks are coarse, one that comes within the same tick
    /// as the last does not.
    pub settled: bool,
}

impl Token {
    /// Whether no name has changed between the two.
    pub fn is(&self, other: &Token) -> bool {
        (self.modified, self.changed) == (other.modified, other.changed)
    }
}

/// The number of a watched directory: no other has it as long as the queue may still speak of it.
pub type WatchId = u64;

/// What the queue of a [`Watcher`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The name was made in the watched directory.
    Created(WatchId, &'a [u8]),
    /// The name was removed from it.
    Removed(WatchId, &'a [u8]),
    /// The name was moved away.
    MovedFrom(WatchId, &'a [u8]),
    /// Something was moved to the name, and has perhaps replaced what was there.
    MovedTo(WatchId, &'a [u8]),
    /// The name was changed, maybe moved away, and whether it is there now is not known.
    Unsure(WatchId, &'a [u8]),
    /// The directory itself was moved.
    Moved(WatchId),
    /// The directory is no longer watched: it was removed, or its file system went.
    Ended(WatchId),
    /// Changes were lost: whatever was learnt before may be wrong.
    Lost,
}

/// The queue of the changes of names, own ones and foreign, in the directories that a backend watches. A change is queued
/// before the call that made it returns, and the changes of one directory in the order in which they happened. None of
/// its methods waits for the storage.
pub trait Watcher: Send + Sync + 'static {
    /// Queues each change in `dir` from now on.
    ///
    /// # Errors
    /// `NotSupported` where changes may be missed, `NoSpace` if no more can be watched; both are no news of the
    /// directory itself.
    fn watch(&self, dir: &BackendNode) -> Result<WatchId>;

    /// Queues no more changes of this directory.
    fn unwatch(&self, watch: WatchId);

    /// Whether each change in this directory is told by itself, so that our own can be waited for. Otherwise several changes
    /// of a name may be told as one.
    fn tells_each(&self, watch: WatchId) -> bool {
        let _ = watch;
        true
    }

    /// Whether nothing is queued.
    fn is_empty(&self) -> bool;

    /// Takes out all that is queued when it is called, and maybe more, and hands it on in order.
    fn read(&self, each: &mut dyn FnMut(Change<'_>));
}

/// Who is told the names of a directory; false: that is enough.
pub trait NameSink: Any + Send {
    /// One name, as it stands on the disk.
    fn name(&mut self, disk: &[u8]) -> bool;
}

/// A backend's own object for a node; opaque to the cache. It should keep the identity alive: while it lives, its
/// [`BackendKey`] should not be given to another object (a descriptor of the object does that).
#[derive(Clone)]
pub struct BackendNode(pub Arc<dyn Any + Send + Sync>);

impl BackendNode {
    /// Wraps a backend's object.
    pub fn new<T: Any + Send + Sync>(object: T) -> BackendNode {
        BackendNode(Arc::new(object))
    }

    /// The object, if it is a `T`.
    pub fn downcast_ref<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for BackendNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackendNode")
    }
}

/// What a lookup or a create found.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The backend's object.
    pub node: BackendNode,
    /// Its metadata at that moment.
    pub metadata: Metadata,
}

/// How an object is to be created.
#[derive(Clone, Debug)]
pub struct CreateHow {
    /// `File` or `Directory`; anything else is `NotSupported`.
    pub kind: Kind,
    /// The permission bits.
    pub mode: u32,
    /// What to store of the DOS side; `None`: nothing.
    pub dos: Option<DosAttributes>,
    /// The handle that comes back need not be able to write.
    pub read_only_handle: bool,
}

impl CreateHow {
    /// A file that anybody may read and write as far as the share lets them.
    pub fn file() -> CreateHow {
        CreateHow { kind: Kind::File, mode: 0o666, dos: None, read_only_handle: false }
    }

    /// A directory, likewise.
    pub fn directory() -> CreateHow {
        CreateHow { kind: Kind::Directory, mode: 0o777, dos: None, read_only_handle: false }
    }
}

/// What an open object is to be used for. Neither: its attributes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenHow {
    /// Data is read, or the directory listed.
    pub read: bool,
    /// Data is written.
    pub write: bool,
}

/// One name of a listing.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// The name as on disk.
    pub name: Name,
    /// The position *after* this entry: the listing goes on from here.
    pub cookie: u64,
    /// What sort of object, if the storage told.
    pub kind: Option<Kind>,
    /// Its metadata, if it was asked for and the object was still there.
    pub metadata: Option<Metadata>,
}

/// A storage. All verbs are asynchronous; a backend whose calls block says itself where they run.
///
/// *Mutators* (`create`, `unlink`, `rmdir`, `rename`, `link`) run to their end in a task of their own whatever becomes
/// of the request; they are never dropped half way. Readers may be dropped at any time.
pub trait Backend: Send + Sync + 'static {
    /// What the backend can do; asked once, at mount.
    fn caps(&self) -> Caps;

    /// The root directory. It stays the same object for the life of the mount.
    fn root(&self) -> Fut<'_, NodeInfo>;

    /// The object of exactly this spelling in `dir`; `None` if there is none. A symbolic link is found as itself.
    ///
    /// Called with the name's claim or, to verify what is cached, without; never with a lock. `NotFound`, `Stale` or
    /// `NotADirectory` says that `dir` itself is gone.
    fn lookup<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName) -> Fut<'a, Option<NodeInfo>>;

    /// Which object [`Backend::lookup`] would find, where nothing else of it is wanted.
    fn identify<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName) -> Fut<'a, Option<BackendKey>> {
        Box::pin(async move { Ok(self.lookup(dir, name).await?.map(|info| info.metadata.key)) })
    }

    /// Every spelling in `dir` that folds like `name`, with its object. May be a scan unless [`Caps::folds`].
    ///
    /// Called with the name's claim.
    fn lookup_folded<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a Name,
        fold: &'a Fold,
    ) -> Fut<'a, Vec<(DiskName, NodeInfo)>>;

    /// Tells `sink` every name in `dir`, in no order, until it has enough: each that stands there during the whole call, and
    /// some of those that come or go meanwhile. The sink comes back.
    ///
    /// Called without any lock, or with the claim of a name in `dir`. `NotSupported`: the cache makes no index.
    fn names<'a>(&'a self, dir: &'a BackendNode, sink: Box<dyn NameSink>) -> Fut<'a, Box<dyn NameSink>> {
        let _ = (dir, sink);
        Box::pin(ready(Err(FsError::NotSupported)))
    }

    /// Makes a file or a directory and opens it. Exclusive: `Exists` if anything has this spelling.
    ///
    /// Called with the name's claim and `dir`'s gate (shared): `dir` is not being removed by us.
    fn create<'a>(
        &'a self,
        dir: &'a BackendNode,
        name: &'a DiskName,
        how: &'a CreateHow,
    ) -> Fut<'a, (NodeInfo, Arc<dyn BackendFile>)>;

    /// Removes a name of something that is no directory. `Stale` if the name means another object than `expect`,
    /// `NotFound` if it means none.
    ///
    /// Called with the name's claim and `dir`'s gate (shared).
    fn unlink<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()>;

    /// Removes an empty directory; `NotEmpty` if it is not. Otherwise as [`Backend::unlink`].
    ///
    /// Called with the name's claim, `dir`'s gate (shared) and the victim's own gate (exclusive): nothing of ours is
    /// being made in it.
    fn rmdir<'a>(&'a self, dir: &'a BackendNode, name: &'a DiskName, expect: &'a BackendKey) -> Fut<'a, ()>;

    /// Moves a name. Without `replace`: `Exists` if the target exists, as far as the storage can tell
    /// ([`Caps::no_replace`]; our claim on the target keeps our own clients out in any case). `NotFound` if
    /// `from` means nothing or, with `expect`, another object than that; without, whatever it means is moved.
    ///
    /// Called with both names' claims, both directories' gates (shared), the gate of a directory that is replaced
    /// (exclusive), and for a directory that changes its parent the topology lock: no loop can arise.
    fn rename<'a>(
        &'a self,
        from_dir: &'a BackendNode,
        from: &'a DiskName,
        expect: Option<&'a BackendKey>,
        to_dir: &'a BackendNode,
        to: &'a DiskName,
        replace: bool,
    ) -> Fut<'a, ()>;

    /// A directory stands as `name` in `dir` from now on: a [`Backend::rename`] of ours has moved it there. Whoever notes where
    /// directories stand notes it. Does not wait.
    fn moved(&self, _node: &BackendNode, _dir: &BackendNode, _name: &DiskName) {}

    /// Gives the open file `node` another name.
    ///
    /// Called with the new name's claim and its directory's gate (shared).
    fn link<'a>(
        &'a self,
        node: &'a dyn BackendFile,
        to_dir: &'a BackendNode,
        to: &'a DiskName,
        replace: bool,
    ) -> Fut<'a, ()>;

    /// Opens what `name` in `dir` means (`dir` = `None`: the root itself, `name` is then ignored). `Stale` if that is
    /// another object than `expect`, `NotFound` if nothing; `SpecialFile` for devices, FIFOs and sockets, `Symlink`
    /// for symbolic links unless only attributes are wanted.
    ///
    /// Called without any lock.
    fn open<'a>(
        &'a self,
        dir: Option<&'a BackendNode>,
        name: &'a DiskName,
        expect: &'a BackendKey,
        how: OpenHow,
    ) -> Fut<'a, Arc<dyn BackendFile>>;

    /// The storage's sizes and names.
    fn volume(&self) -> Fut<'_, VolumeInfo>;

    /// The queue of changes, for [`Coherence::Notify`]; asked for once, at mount.
    fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        None
    }

    /// The directory's token, for [`Coherence::Revalidate`]; `None`: it has none that can be relied on.
    fn token<'a>(&'a self, dir: &'a BackendNode) -> Fut<'a, Option<Token>> {
        let _ = dir;
        Box::pin(ready(Ok(None)))
    }

    /// Ends when no call that was answered with `Indeterminate` can still have an effect. Until then the names that it
    /// touched stay claimed.
    fn settle(&self) -> Fut<'_, ()> {
        Box::pin(ready(Ok(())))
    }
}

/// An open object. All data and attributes go through it; it stays valid when its name moves or goes.
pub trait BackendFile: Send + Sync + 'static {
    /// For [`Backend::link`]: the backend finds its own type again.
    fn as_any(&self) -> &dyn Any;

    /// What the object is like now.
    fn metadata(&self) -> Fut<'_, Metadata>;

    /// What the object was like when it was opened, if opening it told that: who asks at once need not ask the storage.
    fn metadata_when_opened(&self) -> Option<Metadata> {
        None
    }

    /// Changes its metadata; all that is `Some` or, on an error, some of it.
    fn set_metadata<'a>(&'a self, set: &'a SetMetadata) -> Fut<'a, ()>;

    /// At most `length` bytes from `offset`; fewer at the end of the file, none beyond it.
    fn read_at(&self, offset: u64, length: usize) -> Fut<'_, Bytes>;

    /// Writes all of `data` at `offset`, or fails. The answer is its length.
    fn write_at<'a>(&'a self, offset: u64, data: Bytes) -> Fut<'a, usize>;

    /// What was written is on stable storage when this ends.
    fn flush(&self) -> Fut<'_, ()>;

    /// Reserves space for the first `bytes` bytes, without changing the length.
    fn allocate(&self, bytes: u64) -> Fut<'_, ()>;

    /// The range reads as zeros from now on, and stays allocated where the storage can do that. The length stays.
    fn zero_range(&self, offset: u64, length: u64) -> Fut<'_, ()>;

    /// The range reads as zeros from now on, and its space is given back. The length stays.
    fn punch(&self, offset: u64, length: u64) -> Fut<'_, ()>;

    /// The ranges (offset, length) that hold data, within the given one and the file's length, ascending, not
    /// touching.
    fn allocated_ranges(&self, offset: u64, length: u64) -> Fut<'_, Vec<(u64, u64)>>;

    /// At most `max` names from position `cookie` on (0: the start), without `.` and `..`; none: the end. A name that
    /// stands in the directory during the whole listing is told exactly once, whatever else comes and goes. With
    /// `metadata` each entry carries its own.
    fn read_dir(&self, cookie: u64, max: usize, metadata: bool) -> Fut<'_, Vec<DirEntry>>;

    /// What a symbolic link holds.
    fn readlink(&self) -> Fut<'_, Vec<u8>> {
        Box::pin(ready(Err(FsError::NotSupported)))
    }

    /// The value of the extended attribute `name`; `None` if there is none.
    fn get_xattr<'a>(&'a self, name: &'a str) -> Fut<'a, Option<Vec<u8>>> {
        let _ = name;
        Box::pin(ready(Err(FsError::NotSupported)))
    }

    /// Sets the extended attribute `name`.
    fn set_xattr<'a>(&'a self, name: &'a str, value: &'a [u8]) -> Fut<'a, ()> {
        let _ = (name, value);
        Box::pin(ready(Err(FsError::NotSupported)))
    }

    /// Removes the extended attribute `name`; that it was not there is no error.
    fn remove_xattr<'a>(&'a self, name: &'a str) -> Fut<'a, ()> {
        let _ = name;
        Box::pin(ready(Err(FsError::NotSupported)))
    }

    /// The names of the extended attributes.
    fn list_xattrs(&self) -> Fut<'_, Vec<String>> {
        Box::pin(ready(Err(FsError::NotSupported)))
    }
}
