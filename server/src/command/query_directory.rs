//! SMB2 QUERY_DIRECTORY: 2.2.33 and 2.2.34; processing in 3.3.5.18, MS-FSA 2.1.5.6.3.
//!
//! A listing is read from the storage in slices of bounded size, with a yield between some of them, so that what else the connection
//! asks for is answered meanwhile. Where it stands is kept in the handle; a pattern without wildcards costs one lookup.

use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::fscc::directory_info::{DirectoryClass, DirectoryEncoder, DirectoryEntry, ShortName};
use shoal_protocol::fscc::reparse;
use shoal_protocol::smb2::query_directory::{QueryDirectoryRequest, QueryDirectoryResponse};
use shoal_vfs::{Fold, FsError, Kind, Metadata, Name, OpenHow};

use crate::access;
use crate::context::Context;
use crate::convert;
use crate::pending::give_way;
use crate::reply::Reply;
use crate::share::ShareKind;
use crate::state::enumeration::{Enumeration, Stage};
use crate::state::open::DiskObject;
use crate::state::pattern::Pattern;

/// Names that are read from the storage at once.
const SLICE: usize = 128;
/// So many slices are read before others have their turn: a millisecond or two. A page of 64 KiB takes hardly more, and is answered
/// without a task of its own.
const TURN: usize = 4;
/// See [`TURN`].
const LONG: u32 = 64 * 1024;

/// Answers a QUERY_DIRECTORY.
pub async fn handle(cx: &Context, request: QueryDirectoryRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    let disk = open.disk()?;
    let Some(enumeration) = &disk.enumeration else { return Err(NtStatus::INVALID_PARAMETER) };
    access::require(open.granted_access, AccessMask::LIST_DIRECTORY)?;
    let room = request.output_buffer_length;
    let class =
        DirectoryClass::try_from(request.file_information_class).map_err(|_| NtStatus::INVALID_INFO_CLASS)?;
    if (room as usize) < class.fixed_len() {
        return Err(NtStatus::INFO_LENGTH_MISMATCH);
    }
    let single = request.flags & QueryDirectoryRequest::RETURN_SINGLE_ENTRY != 0;

    let mut enumeration = enumeration.lock().await;
    begin(cx, &mut enumeration, &request)?;
    let mut list = DirectoryEncoder::new(class, room as usize);
    let long = room > LONG;
    let listing = Listing { cx, disk, class, enumeration: &mut enumeration, slices: 0, long };
    let full = listing.fill(&mut list, single).await?;
    if list.is_empty() {
        return Err(if full {
            NtStatus::BUFFER_OVERFLOW
        } else if enumeration.sent {
            NtStatus::NO_MORE_FILES
        } else {
            NtStatus::NO_SUCH_FILE
        });
    }
    enumeration.sent = true;
    Ok(QueryDirectoryResponse { buffer: list.finish() }.into())
}

/// Sets the pattern, and goes back to the beginning if that is asked for (3.3.5.18).
fn begin(
    cx: &Context,
    enumeration: &mut Enumeration,
    request: &QueryDirectoryRequest,
) -> Result<(), NtStatus> {
    let restart = request.flags & (QueryDirectoryRequest::RESTART_SCANS | QueryDirectoryRequest::REOPEN) != 0;
    if enumeration.pattern.is_some() && !restart {
        return Ok(());
    }
    let sensitive = match &cx.tree()?.share.kind {
        ShareKind::Disk { root } => root.fold() == Fold::Sensitive,
        ShareKind::Pipe => false,
    };
    let given = if request.search_pattern.is_empty() && enumeration.pattern.is_some() {
        None
    } else {
        Some(Pattern::parse(&request.search_pattern, sensitive)?)
    };
    enumeration.restart(given);
    Ok(())
}

/// What the listing says of a name; without metadata the name alone.
fn entry<'a>(name: &'a [u16], metadata: Option<&Metadata>) -> DirectoryEntry<&'a [u16]> {
    let mut entry = DirectoryEntry { file_name: name, ..DirectoryEntry::default() };
    if let Some(metadata) = metadata {
        let facts = convert::facts(metadata);
        entry.creation_time = facts.creation_time;
        entry.last_access_time = facts.last_access_time;
        entry.last_write_time = facts.last_write_time;
        entry.change_time = facts.change_time;
        entry.end_of_file = facts.end_of_file;
        entry.allocation_size = facts.allocation_size;
        entry.file_attributes = facts.attributes;
        entry.short_name = ShortName::NONE;
        entry.file_id = u128::from(facts.index_number);
        if metadata.kind == Kind::Symlink {
            entry.file_attributes |= FileAttributes::REPARSE_POINT;
            entry.reparse_tag = reparse::TAG_SYMLINK;
        }
    }
    entry
}

/// A name that matches, and what the storage says of it.
type Found = (Vec<u16>, Option<Metadata>);

struct Listing<'a> {
    cx: &'a Context,
    disk: &'a DiskObject,
    class: DirectoryClass,
    enumeration: &'a mut Enumeration,
    /// Read for this request.
    slices: usize,
    /// The page is larger than one that needs no turns.
    long: bool,
}

impl Listing<'_> {
    /// Fills `list` with the names that come next, with one if it is to be `single`. True: another one did not fit. The
    /// enumeration stands behind what is in the list.
    async fn fill(mut self, list: &mut DirectoryEncoder, single: bool) -> Result<bool, NtStatus> {
        loop {
            let (found, next) = match self.enumeration.stage {
                Stage::Dot => (self.dot(".").await?, Stage::DotDot),
                Stage::DotDot => (self.dot("..").await?, Stage::Names),
                Stage::Names => match self.plain_name() {
                    Some(name) => (self.look_up(&name).await?, Stage::End),
                    None => match self.tell_read(list, single) {
                        Some(full) => return Ok(full),
                        None => {
                            self.read_slice().await?;
                            continue;
                        }
                    },
                },
                Stage::End => return Ok(false),
            };
            if let Some((name, metadata)) = &found
                && !list.push(&entry(name, metadata.as_ref()))
            {
                return Ok(true);
            }
            self.enumeration.stage = next;
            if single && found.is_some() {
                return Ok(false);
            }
        }
    }

    /// Tells the matches among the names that were read already. `None`: there is room for more. `Some`: the answer is done, and
    /// whether that is because the next one did not fit.
    fn tell_read(&mut self, list: &mut DirectoryEncoder, single: bool) -> Option<bool> {
        let Enumeration { pattern, read, .. } = &mut *self.enumeration;
        let mut name = Vec::new();
        while let Some(next) = read.front() {
            name.clear();
            next.name.extend_utf16(&mut name);
            // A name without metadata went between being listed and being looked at.
            let tell = (next.metadata.is_some() || self.class.names_only())
                && pattern.as_ref().is_none_or(|pattern| pattern.matches(&name));
            if tell && !list.push(&entry(&name, next.metadata.as_ref())) {
                return Some(true);
            }
            read.pop_front();
            if tell && single {
                return Some(false);
            }
        }
        None
    }

    fn matches(&self, name: &[u16]) -> bool {
        self.enumeration.pattern.as_ref().is_none_or(|pattern| pattern.matches(name))
    }

    /// `.` or `..`, with the directory's own facts.
    async fn dot(&self, name: &str) -> Result<Option<Found>, NtStatus> {
        let name: Vec<u16> = name.encode_utf16().collect();
        if !self.matches(&name) {
            return Ok(None);
        }
        let metadata = if self.class.names_only() {
            None
        } else {
            Some(self.disk.file.metadata().await.map_err(convert::status)?)
        };
        Ok(Some((name, metadata)))
    }

    /// The name that a pattern without wildcards is.
    fn plain_name(&self) -> Option<Name> {
        let pattern = self.enumeration.pattern.as_ref()?;
        Name::from_utf16(pattern.plain()?).ok()
    }

    async fn look_up(&self, name: &Name) -> Result<Option<Found>, NtStatus> {
        let vfs = &self.cx.server.vfs;
        let (link, metadata) = match vfs.lookup_with_metadata(self.disk.node(), name).await {
            Ok(Some(found)) => found,
            Ok(None) | Err(FsError::NotFound | FsError::PathNotFound) => return Ok(None),
            Err(error) => return Err(convert::status(error)),
        };
        let metadata = match metadata {
            Some(metadata) => Some(metadata),
            None if self.class.names_only() => None,
            None => match vfs.open(&link, OpenHow::default()).await {
                Ok(file) => Some(file.metadata().await.map_err(convert::status)?),
                Err(FsError::NotFound | FsError::Stale) => return Ok(None),
                Err(error) => return Err(convert::status(error)),
            },
        };
        let spelled = link.name().unwrap_or_else(|| name.clone()).to_utf16();
        Ok(self.matches(&spelled).then_some((spelled, metadata)))
    }

    async fn read_slice(&mut self) -> Result<(), NtStatus> {
        // A long page leaves the reader early: it takes turns in any case.
        if self.slices.is_multiple_of(TURN) && self.slices != 0 || self.slices == 1 && self.long {
            give_way().await;
        }
        self.slices += 1;
        // The names read for a class without facts may be asked for by another class next: that is rare, and the facts are cheap.
        let slice = self
            .cx
            .server
            .vfs
            .read_dir(self.disk.node(), &self.disk.file, self.enumeration.cookie, SLICE, true)
            .await
            .map_err(convert::status)?;
        match slice.last() {
            Some(last) => self.enumeration.cookie = last.cookie,
            None => self.enumeration.stage = Stage::End,
        }
        self.enumeration.read.extend(slice);
        Ok(())
    }
}
