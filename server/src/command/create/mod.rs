//! SMB2 CREATE: 2.2.13 and 2.2.14; processing in 3.3.5.9, MS-FSA 2.1.5.1.
//!
//! The story: check the fields, read the name, find the directory, then open what is there or make what is not. An open and
//! whatever stands against it (other opens, a deletion, a rename) meet under the node's one mutex; who meets a name that is
//! just changing waits for that and begins again.

mod contexts;
mod disposition;

use std::sync::Arc;

use parking_lot::Mutex;
use shoal_protocol::NtStatus;
use shoal_protocol::crypto;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::fscc::notify::{NotifyAction, NotifyFilter};
use shoal_protocol::smb2::FileId;
use shoal_protocol::smb2::create::{CreateRequest, CreateResponse};
use shoal_vfs::{
    Attach, BackendFile, CaughtUp, CreateHow, Creation, DosAttributes, FsError, Kind, Link, Metadata, Moment,
    Name, Node, OpenHow, Root, SetMetadata,
};

use self::disposition::Asked;
use crate::command::close::close_open;
use crate::context::Context;
use crate::convert::{self, Facts};
use crate::name::{self, ParsedName};
use crate::pipe::Pipe;
use crate::reply::Reply;
use crate::share::ShareKind;
use crate::state::file::{Admission, NodeState};
use crate::state::open::{Changing, DiskObject, Object, Open};
use crate::state::session::Session;
use crate::state::share_mode::Claim;
use crate::state::tree::TreeConnect;

/// How often a CREATE that meets names which change under it begins again.
const ATTEMPTS: u32 = 64;

/// Permission bits of new files and directories; the process' umask takes its part.
const FILE_MODE: u32 = 0o666;
const DIRECTORY_MODE: u32 = 0o777;

/// Answers a CREATE.
pub async fn handle(cx: &Context, request: CreateRequest) -> Result<Reply, NtStatus> {
    let (session, tree) = (cx.session()?, cx.tree()?);
    let asked = Asked::new(&request)?;
    let root = match &tree.share.kind {
        ShareKind::Disk { root } => root.clone(),
        ShareKind::Pipe => return open_pipe(cx, session, tree, &request, asked),
    };
    let contexts = contexts::Asked::parse(&request.contexts)?;
    let name = name::parse(&request.name)?;
    if name.names_data && asked.directory() {
        return Err(NtStatus::NOT_A_DIRECTORY);
    }
    let create = Create { cx, session, tree, root, asked, contexts, name };
    for _ in 0..ATTEMPTS {
        if let Some(opened) = create.attempt().await? {
            return Ok(create.answer(opened));
        }
    }
    Err(NtStatus::SHARING_VIOLATION)
}

struct Create<'a> {
    cx: &'a Context,
    session: Arc<Session>,
    tree: Arc<TreeConnect>,
    root: Root<NodeState>,
    asked: Asked,
    contexts: contexts::Asked,
    name: ParsedName,
}

struct Opened {
    open: Arc<Open>,
    action: u32,
    facts: Facts,
}

/// A file of the storage that is open, not yet of any client.
struct Found {
    file: Arc<dyn BackendFile>,
    metadata: Metadata,
    /// The server's own identity may not write it, and the client did not insist.
    read_only: bool,
}

impl Create<'_> {
    /// One try. None: a name changed meanwhile, begin again.
    async fn attempt(&self) -> Result<Option<Opened>, NtStatus> {
        let vfs = &self.cx.server.vfs;
        let since = vfs.moment();
        let mut caught_up = CaughtUp::default();
        let looked = vfs.look_up_path_within(&self.root, &self.name.path, &mut caught_up).await;
        let looked = looked.map_err(convert::status)?;
        let (Some((_, last)), Some((dir, found))) = (self.name.path.parent_and_last(), looked) else {
            return self.open_existing(None, self.root.link(), None, since).await;
        };
        match found {
            Some((link, metadata)) => self.open_existing(Some((&dir, last)), link, metadata, since).await,
            None if self.asked.must_exist() => Err(NtStatus::OBJECT_NAME_NOT_FOUND),
            None => self.create(&dir, last, &mut caught_up, since).await,
        }
    }

    async fn open_existing(
        &self,
        at: Option<(&Arc<Node<NodeState>>, &Name)>,
        link: Arc<Link<NodeState>>,
        metadata: Option<Metadata>,
        since: Moment,
    ) -> Result<Option<Opened>, NtStatus> {
        let is_directory = match link.node().kind() {
            Kind::File => false,
            Kind::Directory => true,
            Kind::Symlink => return Err(convert::status(FsError::Symlink)),
            Kind::Special => return Err(convert::status(FsError::SpecialFile)),
        };
        self.asked.check_kind(is_directory, self.name.names_data, self.name.names_directory)?;
        let Some(found) = self.open_file(&link, metadata, is_directory).await? else { return Ok(None) };
        let attributes = convert::attributes(&found.metadata);
        let granted = self.granted_existing(&found, attributes, at.is_none())?;
        let Some(claim) = self.join(at, &link, &found.metadata, granted).await? else { return Ok(None) };

        // From here on the open counts: whatever fails now closes it.
        let open = self.open(link, found.file, claim, granted, &found.metadata);
        let taken = self.take_over(&open, at.map(|(dir, _)| dir), found.metadata, since).await;
        if let Ok(Some((action, facts))) = taken {
            return Ok(Some(Opened { open, action, facts }));
        }
        // Nobody got it, and so the file stays.
        open.disk()?.changing.lock().delete_on_close = false;
        close_open(&self.cx.server, open).await;
        taken.map(|_| None)
    }

    /// Opens the file of the storage. None: the name means something else by now.
    async fn open_file(
        &self,
        link: &Arc<Link<NodeState>>,
        metadata: Option<Metadata>,
        is_directory: bool,
    ) -> Result<Option<Found>, NtStatus> {
        let desired = self.asked.desired;
        let wished = if desired.maximum { self.tree.maximal_access } else { desired.rights };
        let mut how = if is_directory {
            OpenHow { read: true, write: false }
        } else {
            convert::open_how(wished & self.tree.maximal_access, self.asked.overwrites())
        };
        let must_write = self.asked.overwrites()
            || desired.rights.intersects(AccessMask::WRITE_DATA | AccessMask::APPEND_DATA);
        let mut read_only = false;
        let file = loop {
            match self.cx.server.vfs.open(link, how).await {
                Ok(file) => break file,
                Err(FsError::Stale | FsError::NotFound | FsError::PathNotFound) => return Ok(None),
                // "Whatever may be had" is less than all where the server's own identity may not write.
                Err(FsError::AccessDenied | FsError::ReadOnly) if how.write && !must_write => {
                    how.write = false;
                    read_only = true;
                }
                Err(error) => return Err(convert::status(error)),
            }
        };
        let metadata = match file.metadata_when_opened().or(metadata) {
            Some(metadata) => metadata,
            None => file.metadata().await.map_err(convert::status)?,
        };
        Ok(Some(Found { file, metadata, read_only }))
    }

    fn granted_existing(
        &self,
        found: &Found,
        attributes: FileAttributes,
        is_root: bool,
    ) -> Result<AccessMask, NtStatus> {
        if self.asked.overwrites() {
            self.asked.check_overwrite(attributes)?;
            if !self.tree.maximal_access.contains(AccessMask::WRITE_DATA) {
                return Err(NtStatus::ACCESS_DENIED);
            }
        }
        let mut granted = self.asked.desired.granted(self.tree.maximal_access, attributes)?;
        if found.read_only {
            granted = granted.without(AccessMask::WRITE_DATA | AccessMask::APPEND_DATA);
        }
        self.check_delete_on_close(granted, attributes, is_root)?;
        Ok(granted)
    }

    /// MS-FSA 2.1.5.1: FILE_DELETE_ON_CLOSE takes the right to delete, and a file that may be deleted.
    fn check_delete_on_close(
        &self,
        granted: AccessMask,
        attributes: FileAttributes,
        is_root: bool,
    ) -> Result<(), NtStatus> {
        if !self.asked.delete_on_close() {
            return Ok(());
        }
        if !granted.contains(AccessMask::DELETE) {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        if attributes.contains(FileAttributes::READONLY) || is_root {
            return Err(NtStatus::CANNOT_DELETE);
        }
        Ok(())
    }

    /// Joins the other opens of the file. None: the name is gone or going; it has been waited for.
    async fn join(
        &self,
        at: Option<(&Arc<Node<NodeState>>, &Name)>,
        link: &Arc<Link<NodeState>>,
        metadata: &Metadata,
        granted: AccessMask,
    ) -> Result<Option<Claim>, NtStatus> {
        let claim = Claim::new(granted, self.asked.share);
        // Overwriting writes, whatever rights the handle will have.
        let implied = if self.asked.overwrites() { AccessMask::WRITE_DATA } else { AccessMask::EMPTY };
        let checked = Claim::new(granted | implied, self.asked.share);
        let attached = {
            let mut opens = link.node().opens();
            let attached = match at {
                Some((dir, name)) => opens.attach_at(link, dir, name),
                None => opens.attach(link),
            };
            if attached.is_ok() {
                let stream = opens.stream(self.name.stream);
                if !stream.modes().admits(checked) || stream.admit(claim) == Admission::Conflict {
                    let _last = opens.detach(link);
                    return Err(NtStatus::SHARING_VIOLATION);
                }
                stream.write_time.opened(convert::file_time(metadata.modified));
            }
            attached
        };
        match attached {
            Ok(()) => Ok(Some(claim)),
            Err(Attach::DeletePending) => Err(NtStatus::DELETE_PENDING),
            Err(Attach::Gone | Attach::Moving) => {
                self.cx.server.vfs.settled(link).await;
                Ok(None)
            }
        }
    }

    /// Gives the open to the session, and overwrites, if that is asked for. None: it is no longer where the client said.
    async fn take_over(
        &self,
        open: &Arc<Open>,
        dir: Option<&Arc<Node<NodeState>>>,
        metadata: Metadata,
        since: Moment,
    ) -> Result<Option<(u32, Facts)>, NtStatus> {
        let disk = open.disk()?;
        // Before anything is changed.
        if !self.enter(open, disk, dir, since).await? {
            return Ok(None);
        }
        let (action, metadata) = if self.asked.overwrites() {
            (self.overwritten_action(), self.overwrite(disk, metadata).await?)
        } else {
            (CreateResponse::OPENED, metadata)
        };
        Ok(Some((action, convert::shown_facts(disk, &metadata))))
    }

    fn overwritten_action(&self) -> u32 {
        match self.asked.disposition {
            shoal_protocol::smb2::create::CreateDisposition::Supersede => CreateResponse::SUPERSEDED,
            _ => CreateResponse::OVERWRITTEN,
        }
    }

    async fn overwrite(&self, disk: &DiskObject, before: Metadata) -> Result<Metadata, NtStatus> {
        let attributes = self.asked.new_attributes(false)?;
        let mut set = SetMetadata { size: Some(0), ..SetMetadata::default() };
        if attributes != convert::stored_attributes(&before) {
            let creation_time = before.dos.and_then(|dos| dos.creation_time);
            set.dos = Some(DosAttributes { attributes: attributes.bits(), creation_time });
        }
        disk.file.set_metadata(&set).await.map_err(convert::status)?;
        if self.contexts.allocation_size != 0 {
            disk.file.allocate(self.contexts.allocation_size).await.map_err(convert::status)?;
        }
        disk.changing.lock().archive_due = false;
        let changed = NotifyFilter::ATTRIBUTES
            | NotifyFilter::SIZE
            | NotifyFilter::LAST_WRITE
            | NotifyFilter::CREATION
            | NotifyFilter::EA
            | NotifyFilter::SECURITY;
        self.cx.server.watching.announce_changed(&disk.link, changed);
        disk.file.metadata().await.map_err(convert::status)
    }

    /// Makes what is not there. None: somebody else did.
    async fn create(
        &self,
        dir: &Arc<Node<NodeState>>,
        name: &Name,
        caught_up: &mut CaughtUp,
        since: Moment,
    ) -> Result<Option<Opened>, NtStatus> {
        let kind = if self.asked.directory() { Kind::Directory } else { Kind::File };
        if kind == Kind::File && self.name.names_directory {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        let needed = match kind {
            Kind::Directory => AccessMask::ADD_SUBDIRECTORY,
            _ => AccessMask::ADD_FILE,
        };
        crate::access::require(self.tree.maximal_access, needed)?;
        if dir.is_delete_pending() {
            return Err(NtStatus::DELETE_PENDING);
        }
        let attributes = self.asked.new_attributes(kind == Kind::Directory)?;
        let granted = self.asked.desired.granted(self.tree.maximal_access, FileAttributes::EMPTY)?;
        self.check_delete_on_close(granted, attributes, false)?;

        let claim = Claim::new(granted, self.asked.share);
        let stream = self.name.stream;
        let how = CreateHow {
            kind,
            mode: if kind == Kind::Directory { DIRECTORY_MODE } else { FILE_MODE },
            dos: convert::dos_to_store(kind, attributes, None),
            read_only_handle: !convert::open_how(granted, self.contexts.allocation_size != 0).write,
        };
        let publish = move |link: &Arc<Link<NodeState>>, opens: &mut shoal_vfs::Opens<'_, NodeState>| {
            // Nobody else can have seen the file.
            let attached = opens.attach(link).is_ok();
            debug_assert!(attached, "a new name can be opened");
            let admitted = opens.stream(stream).admit(claim);
            debug_assert_eq!(admitted, Admission::Granted, "a new file has no other open");
        };
        let creation = self.cx.server.vfs.create_within(dir, name, how, publish, caught_up).await;
        let Creation::Created { link, file, metadata, .. } = creation.map_err(convert::status)? else {
            return Ok(None);
        };
        link.node().opens().stream(stream).write_time.opened(convert::file_time(metadata.modified));
        let open = self.open(link, file, claim, granted, &metadata);
        let finished = self.finish_new(&open, dir, name, metadata, since).await;
        if let Ok(Some(facts)) = finished {
            return Ok(Some(Opened { open, action: CreateResponse::CREATED, facts }));
        }
        // A CREATE that fails leaves nothing behind, nor one that begins again: but what somebody else has opened meanwhile.
        let disk = open.disk()?;
        let is_alone = disk.node().opens().open_count(&disk.link) == 1;
        disk.changing.lock().delete_on_close = is_alone;
        close_open(&self.cx.server, open).await;
        finished.map(|_| None)
    }

    /// Gives the open of a new file to the session. None: it is no longer where the client said.
    async fn finish_new(
        &self,
        open: &Arc<Open>,
        dir: &Arc<Node<NodeState>>,
        name: &Name,
        mut metadata: Metadata,
        since: Moment,
    ) -> Result<Option<Facts>, NtStatus> {
        let disk = open.disk()?;
        if self.contexts.allocation_size != 0 && !disk.is_directory() {
            disk.file.allocate(self.contexts.allocation_size).await.map_err(convert::status)?;
            metadata = disk.file.metadata().await.map_err(convert::status)?;
        }
        let filter = if disk.is_directory() { NotifyFilter::DIR_NAME } else { NotifyFilter::FILE_NAME };
        self.cx.server.watching.announce(dir, &[(NotifyAction::Added, name)], filter);
        let is_there = self.enter(open, disk, Some(dir), since).await?;
        Ok(is_there.then(|| convert::shown_facts(disk, &metadata)))
    }

    fn open(
        &self,
        link: Arc<Link<NodeState>>,
        file: Arc<dyn BackendFile>,
        claim: Claim,
        granted: AccessMask,
        metadata: &Metadata,
    ) -> Arc<Open> {
        let is_directory = metadata.kind == Kind::Directory;
        let changing = Changing {
            archive_due: !is_directory
                && !convert::stored_attributes(metadata).contains(FileAttributes::ARCHIVE),
            ..Changing::default()
        };
        let object = Object::Disk(DiskObject {
            link,
            stream: self.name.stream,
            file,
            claim,
            enumeration: is_directory.then(Box::default),
            changing: Mutex::new(changing),
        });
        new_open(&self.session, &self.tree, granted, self.asked, object)
    }

    /// Gives the open, which is one in `dir` or (`None`) of the root, to the session. False: a directory on the way has been
    /// renamed by somebody who did not see yet that something was open below it.
    async fn enter(
        &self,
        open: &Arc<Open>,
        disk: &DiskObject,
        dir: Option<&Arc<Node<NodeState>>>,
        since: Moment,
    ) -> Result<bool, NtStatus> {
        // Before anybody can close it, and not at all if nobody gets it.
        disk.changing.lock().delete_on_close = self.asked.delete_on_close();
        if let Err(status) = self.session.insert_open(open.clone()) {
            disk.changing.lock().delete_on_close = false;
            return Err(status);
        }
        self.cx.set_related_open(open.id);
        let Some((dir, (above, _))) = dir.zip(self.name.path.parent_and_last()) else { return Ok(true) };
        Ok(self.cx.server.vfs.stands_at(&self.root, dir, above, since).await)
    }

    fn answer(&self, opened: Opened) -> Reply {
        let facts = opened.facts;
        let contexts = self.contexts.answer(&self.tree, &facts, facts.volume);
        let response = CreateResponse {
            oplock_level: 0,
            flags: 0,
            create_action: opened.action,
            creation_time: facts.creation_time,
            last_access_time: facts.last_access_time,
            last_write_time: facts.last_write_time,
            change_time: facts.change_time,
            allocation_size: facts.allocation_size,
            end_of_file: facts.end_of_file,
            file_attributes: facts.attributes,
            file_id: opened.open.id,
            contexts,
        };
        response.into()
    }
}

fn new_open(
    session: &Arc<Session>,
    tree: &Arc<TreeConnect>,
    granted: AccessMask,
    asked: Asked,
    object: Object,
) -> Arc<Open> {
    let (session, tree) = (Arc::downgrade(session), tree.clone());
    // All ones means something else (3.3.5.2.7.2), and zero looks like nothing.
    let id = FileId { persistent: crypto::random_id(), volatile: crypto::random_id() };
    Arc::new(Open::new(id, session, tree, granted, asked.options, object))
}

/// Opens a named pipe (MS-SMB2 3.3.5.9, "If the TreeConnect.Share.Type is a named pipe").
fn open_pipe(
    cx: &Context,
    session: Arc<Session>,
    tree: Arc<TreeConnect>,
    request: &CreateRequest,
    asked: Asked,
) -> Result<Reply, NtStatus> {
    let pipe = Pipe::open(&request.name)?;
    let granted = asked.desired.granted(tree.maximal_access, FileAttributes::EMPTY)?;
    let open = new_open(&session, &tree, granted, asked, Object::Pipe(pipe));
    session.insert_open(open.clone())?;
    cx.set_related_open(open.id);
    let response = CreateResponse {
        create_action: CreateResponse::OPENED,
        allocation_size: 4096,
        file_attributes: FileAttributes::NORMAL,
        file_id: open.id,
        ..CreateResponse::default()
    };
    Ok(response.into())
}
