//! Renames and links through the wire: every rule of MS-FSA 2.1.5.15.11 (FileRenameInformation), 2.1.5.15.6 (FileLinkInformation) and
//! their Ex forms, and of deletion beside them, as a table of what stands there, what is asked, and what comes of it.

use std::time::Duration;

use bytes::Bytes;
use shoal::config::{ShareSettings, Target};
use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::fscc::file_info::*;
use shoal_protocol::fscc::notify::{NotifyAction, NotifyInformation};
use shoal_protocol::smb2::*;

use crate::files::{
    CREATE, OPEN, OVERWRITE, Scratch, close, created, directory, disposition, encoded, make, make_directory,
    set,
};
use crate::harness::*;

/// All rights but DELETE.
const NO_DELETE: AccessMask = AccessMask(AccessMask::FILE_ALL.0 & !AccessMask::DELETE.0);
const ATTRIBUTES: AccessMask = AccessMask::READ_ATTRIBUTES;
const RWD: ShareAccess = ShareAccess(7);
const RW: ShareAccess = ShareAccess(3);

const REPLACE: u32 = RenameFlags::REPLACE_IF_EXISTS.0;
const POSIX: u32 = RenameFlags::POSIX_SEMANTICS.0;
const EVEN_READ_ONLY: u32 = RenameFlags::IGNORE_READONLY_ATTRIBUTE.0;

/// What is done before the request, by another client than the one that asks.
#[derive(Clone, Copy, Debug)]
enum Given {
    /// Somebody has it open, with these rights, sharing this.
    Open(&'static str, AccessMask, ShareAccess),
    /// A second name of a file.
    Linked(&'static str, &'static str),
    ReadOnly(&'static str),
    /// Its deletion is pending, and the handle that keeps it has no right to delete.
    Pending(&'static str),
    /// The source's own deletion is pending.
    SourcePending,
    /// A directory that is opened by the asking client before and removed by the other one.
    Removed(&'static str),
    /// The source is renamed by another handle first.
    Moved(&'static str),
}

use Given::{Linked, Moved, Open, Pending, ReadOnly, Removed, SourcePending};

/// What is asked of a handle of the source.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Rename(&'static str, bool),
    RenameEx(&'static str, u32),
    Link(&'static str, bool),
    LinkEx(&'static str, u32),
    /// With a RootDirectory that is not 0.
    RenameBelowHandle(&'static str),
    /// Only so many bytes of the structure.
    RenameCut(usize),
}

use Asked::{Link, LinkEx, Rename, RenameBelowHandle, RenameCut, RenameEx};

struct Case {
    source: &'static str,
    access: AccessMask,
    given: &'static [Given],
    asked: Asked,
    status: NtStatus,
    /// Every name below the case's directory at the end.
    left: &'static [&'static str],
}

/// Where every case begins: two files, an empty directory and one with a file.
const BEGINNING: [&str; 5] = ["dir", "empty", "file", "taken", "dir\\inside"];

const fn case(
    source: &'static str,
    given: &'static [Given],
    asked: Asked,
    status: NtStatus,
    left: &'static [&'static str],
) -> Case {
    Case { source, access: AccessMask::FILE_ALL, given, asked, status, left }
}

const fn unchanged(source: &'static str, given: &'static [Given], asked: Asked, status: NtStatus) -> Case {
    case(source, given, asked, status, &BEGINNING)
}

/// The rename of `file`, `taken` and `dir` in all ways. `dir` stands for a directory with a file in it, `empty` for one without.
fn cases() -> Vec<Case> {
    const OK: NtStatus = NtStatus::SUCCESS;
    const DENIED: NtStatus = NtStatus::ACCESS_DENIED;
    const INVALID_NAME: NtStatus = NtStatus::OBJECT_NAME_INVALID;
    const SHARING: NtStatus = NtStatus::SHARING_VIOLATION;
    const INVALID: NtStatus = NtStatus::INVALID_PARAMETER;
    const COLLISION: NtStatus = NtStatus::OBJECT_NAME_COLLISION;
    const TAKEN: &[&str] = &["dir", "empty", "taken", "dir\\inside"];
    const NEW: &[&str] = &["dir", "empty", "new", "taken", "dir\\inside"];
    const NEW_DIR: &[&str] = &["empty", "file", "new", "taken", "new\\inside"];
    const TWICE: &[&str] = &["dir", "empty", "file", "new", "taken", "dir\\inside"];
    vec![
        // A name that is free.
        case("file", &[], Rename("new", false), OK, NEW),
        case("file", &[], Rename("new", true), OK, NEW),
        case("file", &[], RenameEx("new", 0), OK, NEW),
        case(
            "file",
            &[],
            Rename("dir\\new", false),
            OK,
            &["dir", "empty", "taken", "dir\\inside", "dir\\new"],
        ),
        case("dir", &[], Rename("new", false), OK, NEW_DIR),
        case(
            "dir",
            &[],
            Rename("empty\\new", false),
            OK,
            &["empty", "file", "taken", "empty\\new", "empty\\new\\inside"],
        ),
        case("file", &[Open("file", ATTRIBUTES, RWD)], Rename("new", false), OK, NEW),
        case("file", &[Open("file", AccessMask::READ_DATA, RWD)], Rename("new", false), OK, NEW),
        // The same object.
        unchanged("file", &[], Rename("file", false), OK),
        unchanged("file", &[], Rename("file", true), OK),
        unchanged("file", &[], RenameEx("file", REPLACE | POSIX), OK),
        unchanged("dir", &[], Rename("dir", false), OK),
        case("file", &[], Rename("FILE", false), OK, &["FILE", "dir", "empty", "taken", "dir\\inside"]),
        case("dir", &[], Rename("Dir", false), OK, &["Dir", "empty", "file", "taken", "Dir\\inside"]),
        case("file", &[Linked("file", "new")], Rename("new", false), COLLISION, TWICE),
        case("file", &[Linked("file", "new")], Rename("new", true), OK, NEW),
        case(
            "file",
            &[Linked("file", "new")],
            Rename("NEW", true),
            OK,
            &["NEW", "dir", "empty", "taken", "dir\\inside"],
        ),
        // From wherever it is now.
        case("file", &[Moved("dir\\moved")], Rename("new", false), OK, NEW),
        case(
            "file",
            &[Moved("new")],
            Rename("NEW", false),
            OK,
            &["NEW", "dir", "empty", "taken", "dir\\inside"],
        ),
        // A name that is taken.
        unchanged("file", &[], Rename("taken", false), COLLISION),
        unchanged("file", &[], Rename("TAKEN", false), COLLISION),
        unchanged("file", &[], RenameEx("taken", POSIX), COLLISION),
        unchanged("file", &[], Rename("empty", false), COLLISION),
        case("file", &[], Rename("taken", true), OK, TAKEN),
        case("file", &[], Rename("TAKEN", true), OK, &["TAKEN", "dir", "empty", "dir\\inside"]),
        case("file", &[], RenameEx("taken", REPLACE), OK, TAKEN),
        case("file", &[], RenameEx("taken", REPLACE | POSIX), OK, TAKEN),
        // By something that is open.
        unchanged("file", &[Open("taken", AccessMask::READ_DATA, RWD)], Rename("taken", true), DENIED),
        unchanged("file", &[Open("taken", ATTRIBUTES, RWD)], Rename("taken", true), DENIED),
        unchanged("file", &[Open("taken", ATTRIBUTES, RWD)], RenameEx("taken", REPLACE), DENIED),
        case(
            "file",
            &[Open("taken", AccessMask::FILE_ALL, RWD)],
            RenameEx("taken", REPLACE | POSIX),
            OK,
            TAKEN,
        ),
        unchanged(
            "file",
            &[Open("taken", AccessMask::READ_DATA, RW)],
            RenameEx("taken", REPLACE | POSIX),
            DENIED,
        ),
        unchanged("file", &[Pending("taken")], Rename("taken", true), DENIED),
        // By a directory, or by what is read-only.
        unchanged("file", &[], Rename("empty", true), DENIED),
        unchanged("dir", &[], Rename("empty", true), DENIED),
        unchanged("file", &[], RenameEx("empty", REPLACE | POSIX), DENIED),
        case(
            "dir",
            &[],
            RenameEx("empty", REPLACE | POSIX),
            OK,
            &["empty", "file", "taken", "empty\\inside"],
        ),
        unchanged("empty", &[], RenameEx("dir", REPLACE | POSIX), NtStatus::DIRECTORY_NOT_EMPTY),
        unchanged("empty", &[], Rename("taken", true), DENIED),
        unchanged("file", &[ReadOnly("taken")], Rename("taken", true), DENIED),
        unchanged("file", &[ReadOnly("taken")], RenameEx("taken", REPLACE | POSIX), DENIED),
        case("file", &[ReadOnly("taken")], RenameEx("taken", REPLACE | EVEN_READ_ONLY), OK, TAKEN),
        // What is read-only itself may be renamed.
        case("file", &[ReadOnly("file")], Rename("new", false), OK, NEW),
        // A directory with something open in it, or below itself.
        unchanged("dir", &[Open("dir\\inside", ATTRIBUTES, RWD)], Rename("new", false), DENIED),
        case("dir", &[Open("dir", ATTRIBUTES, RWD)], Rename("new", false), OK, NEW_DIR),
        unchanged("dir", &[], Rename("dir\\below", false), SHARING),
        // The directories on the way.
        unchanged("file", &[], Rename("none\\new", false), NtStatus::OBJECT_PATH_NOT_FOUND),
        unchanged("file", &[], Rename("taken\\new", false), NtStatus::OBJECT_PATH_NOT_FOUND),
        unchanged("file", &[Open("empty", AccessMask::DELETE, RWD)], Rename("empty\\new", false), SHARING),
        unchanged("file", &[Open("empty", AccessMask::DELETE, RW)], Rename("empty\\new", false), SHARING),
        case(
            "file",
            &[Open("empty", AccessMask::LIST_DIRECTORY, RW)],
            Rename("empty\\new", false),
            OK,
            &["dir", "empty", "taken", "dir\\inside", "empty\\new"],
        ),
        unchanged("dir\\inside", &[Open("dir", AccessMask::DELETE, RWD)], Rename("new", false), SHARING),
        unchanged("dir\\inside", &[Open("dir", AccessMask::DELETE, RWD)], Rename("dir\\new", false), SHARING),
        unchanged("file", &[Pending("empty")], Rename("empty\\new", false), NtStatus::DELETE_PENDING),
        case(
            "file",
            &[Removed("empty")],
            Rename("empty\\new", false),
            NtStatus::OBJECT_PATH_NOT_FOUND,
            &["dir", "file", "taken", "dir\\inside"],
        ),
        // What is to be deleted is not renamed any more.
        unchanged("file", &[SourcePending], Rename("new", false), DENIED),
        unchanged("file", &[SourcePending], Link("new", false), DENIED),
        // The right to delete.
        Case { access: NO_DELETE, ..unchanged("file", &[], Rename("new", false), DENIED) },
        Case { access: NO_DELETE, ..unchanged("file", &[], RenameEx("new", 0), DENIED) },
        Case { access: NO_DELETE, ..case("file", &[], Link("new", false), OK, TWICE) },
        // Names and structures that cannot be.
        unchanged("file", &[], Rename("", false), INVALID),
        unchanged("file", &[], Rename("\\", false), INVALID),
        unchanged("file", &[], Rename("new*", false), INVALID_NAME),
        unchanged("file", &[], Rename("ne<w", false), INVALID_NAME),
        unchanged("file", &[], Rename("empty\\\\new", false), INVALID_NAME),
        unchanged("file", &[], Rename(".", false), INVALID_NAME),
        unchanged("file", &[], Rename(":stream", false), INVALID_NAME),
        unchanged("file", &[], Rename("new:stream", false), INVALID_NAME),
        unchanged("file", &[], Rename("new::$DATA", false), INVALID_NAME),
        unchanged("file", &[], RenameBelowHandle("new"), INVALID),
        unchanged("file", &[], RenameCut(0), NtStatus::INFO_LENGTH_MISMATCH),
        unchanged("file", &[], RenameCut(19), NtStatus::INFO_LENGTH_MISMATCH),
        unchanged("file", &[], RenameEx("new", 0x80), INVALID),
        unchanged(
            "file",
            &[],
            RenameEx("new", RenameFlags::NO_DECREASE_AVAILABLE_SPACE.0),
            NtStatus::PRIVILEGE_NOT_HELD,
        ),
        case("file", &[], RenameEx("new", RenameFlags::SUPPRESS_PIN_STATE_INHERITANCE.0), OK, NEW),
        // Links.
        case("file", &[], Link("new", false), OK, TWICE),
        case("file", &[], LinkEx("new", 0), OK, TWICE),
        case("file", &[], Link("taken", true), OK, &BEGINNING),
        case("file", &[], LinkEx("taken", REPLACE), OK, &BEGINNING),
        unchanged("file", &[], Link("taken", false), COLLISION),
        unchanged("file", &[], Link("file", true), OK),
        unchanged("file", &[], Link("file", false), COLLISION),
        unchanged("file", &[], Link("empty", true), DENIED),
        unchanged("dir", &[], Link("new", false), NtStatus::FILE_IS_A_DIRECTORY),
        unchanged("file", &[Open("taken", ATTRIBUTES, RWD)], Link("taken", true), DENIED),
        case("file", &[Open("taken", ATTRIBUTES, RWD)], LinkEx("taken", REPLACE | POSIX), OK, &BEGINNING),
        unchanged("file", &[ReadOnly("taken")], Link("taken", true), DENIED),
        unchanged("file", &[Open("empty", AccessMask::DELETE, RWD)], Link("empty\\new", false), SHARING),
        unchanged("file", &[Pending("empty")], Link("empty\\new", false), NtStatus::DELETE_PENDING),
        unchanged("file", &[], Link("none\\new", false), NtStatus::OBJECT_PATH_NOT_FOUND),
        unchanged("file", &[], Link("new:stream", false), INVALID_NAME),
    ]
}

/// Opens what is there, a file or a directory.
async fn open(client: &mut Client, name: &str, access: AccessMask, share: ShareAccess) -> FileId {
    let request = CreateRequest { desired_access: access, share_access: share, ..create_request(name, OPEN) };
    created(client, request).await.unwrap_or_else(|status| panic!("opening {name}: {status}")).file_id
}

fn rename_flags(
    class: FileInformationClass,
    file_id: FileId,
    root: u64,
    name: &str,
    flags: u32,
) -> SetInfoRequest {
    let asked =
        RenameInformationEx { flags: RenameFlags(flags), root_directory: root, file_name: utf16(name) };
    set(file_id, class, encoded(|out| asked.encode(out)))
}

fn below(base: &str, name: &str) -> String {
    // What begins with one of these is no name below anything.
    if name.is_empty() || name.starts_with(['\\', ':', '.']) {
        name.to_owned()
    } else {
        format!("{base}\\{name}")
    }
}

fn request(file_id: FileId, base: &str, asked: Asked) -> SetInfoRequest {
    use FileInformationClass as Class;
    let with = |class, root, name, flags| rename_flags(class, file_id, root, &below(base, name), flags);
    match asked {
        Rename(name, replace) => with(Class::Rename, 0, name, u32::from(replace)),
        RenameEx(name, flags) => with(Class::RenameEx, 0, name, flags),
        Link(name, replace) => with(Class::Link, 0, name, u32::from(replace)),
        LinkEx(name, flags) => with(Class::LinkEx, 0, name, flags),
        RenameBelowHandle(name) => with(Class::Rename, file_id.volatile | 1, name, 0),
        RenameCut(length) => {
            let mut cut = with(Class::Rename, 0, "new", 0);
            cut.buffer.truncate(length);
            cut
        }
    }
}

/// Every name below `base`, itself excepted.
async fn names_below(client: &mut Client, base: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut to_list = vec![String::new()];
    while let Some(inner) = to_list.pop() {
        let path = if inner.is_empty() { base.to_owned() } else { format!("{base}\\{inner}") };
        let request =
            CreateRequest { desired_access: AccessMask::LIST_DIRECTORY, ..create_request(&path, OPEN) };
        let handle = match created(client, request).await {
            Ok(response) => response.file_id,
            // It is empty, or else it could not be about to go.
            Err(NtStatus::DELETE_PENDING) => continue,
            Err(status) => panic!("listing {path}: {status}"),
        };
        let query = QueryDirectoryRequest {
            file_information_class: 1,
            flags: 0,
            file_index: 0,
            file_id: handle,
            output_buffer_length: 65_536,
            search_pattern: utf16("*"),
        };
        let (_, Response::QueryDirectory(listed)) = client.call(query).await else { panic!("a listing") };
        let class = shoal_protocol::fscc::directory_info::DirectoryClass::Directory;
        let entries =
            shoal_protocol::fscc::directory_info::DirectoryEntry::parse_all(class, &listed.buffer).unwrap();
        for entry in entries {
            let name = entry.file_name.to_string_lossy();
            if name == "." || name == ".." {
                continue;
            }
            let name = if inner.is_empty() { name } else { format!("{inner}\\{name}") };
            if entry.file_attributes.contains(FileAttributes::DIRECTORY) {
                to_list.push(name.clone());
            }
            names.push(name);
        }
        close(client, handle).await;
    }
    names.sort_by_key(|name| (name.matches('\\').count(), name.clone()));
    names
}

async fn prepare(client: &mut Client, base: &str) {
    for name in ["", "\\dir", "\\empty"] {
        let made = created(client, directory(&format!("{base}{name}"), CREATE)).await.unwrap();
        close(client, made.file_id).await;
    }
    for name in ["file", "taken", "dir\\inside"] {
        make(client, &format!("{base}\\{name}")).await;
    }
}

/// What is given, done by `other`; the handles that stay open.
async fn give(
    client: &mut Client,
    other: &mut Client,
    source: FileId,
    base: &str,
    given: Given,
) -> Option<FileId> {
    let path = |name| format!("{base}\\{name}");
    match given {
        Open(name, access, share) => return Some(open(other, &path(name), access, share).await),
        Linked(from, to) => {
            let file = open(other, &path(from), ATTRIBUTES, RWD).await;
            assert_eq!(other.status(request(file, base, Link(to, false))).await, NtStatus::SUCCESS);
            close(other, file).await;
        }
        ReadOnly(name) => {
            let file = open(other, &path(name), AccessMask::WRITE_ATTRIBUTES, RWD).await;
            let basic = BasicInformation { file_attributes: FileAttributes::READONLY, ..Default::default() };
            let asked = set(file, FileInformationClass::Basic, encoded(|out| basic.encode(out)));
            assert_eq!(other.status(asked).await, NtStatus::SUCCESS);
            close(other, file).await;
        }
        Pending(name) => {
            let keeps = open(other, &path(name), ATTRIBUTES, RWD).await;
            let file = open(other, &path(name), AccessMask::DELETE, RWD).await;
            assert_eq!(other.status(disposition(file, true)).await, NtStatus::SUCCESS);
            close(other, file).await;
            return Some(keeps);
        }
        SourcePending => assert_eq!(client.status(disposition(source, true)).await, NtStatus::SUCCESS),
        Removed(name) => {
            let file = open(other, &path(name), AccessMask::DELETE, RWD).await;
            assert_eq!(other.status(disposition(file, true)).await, NtStatus::SUCCESS);
            close(other, file).await;
        }
        Moved(to) => {
            let file = open(other, &path("file"), AccessMask::DELETE, RWD).await;
            assert_eq!(other.status(request(file, base, Rename(to, false))).await, NtStatus::SUCCESS);
            close(other, file).await;
        }
    }
    None
}

async fn run(client: &mut Client, other: &mut Client, number: usize, case: &Case) -> Result<(), String> {
    let base = format!("case-{number}");
    prepare(client, &base).await;
    let source = open(client, &format!("{base}\\{}", case.source), case.access, RWD).await;
    let mut kept = Vec::new();
    for given in case.given {
        kept.extend(give(client, other, source, &base, *given).await);
    }
    let status = client.status(request(source, &base, case.asked)).await;
    let left = names_below(client, &base).await;
    // What was to be deleted is not, so that the next case begins as this one.
    let _ = client.status(disposition(source, false)).await;
    close(client, source).await;
    for file_id in kept {
        close(other, file_id).await;
    }
    if status != case.status || left != case.left {
        return Err(format!(
            "{:?} of {} with {:?}: {status}, leaving {left:?}; expected {}, leaving {:?}",
            case.asked, case.source, case.given, case.status, case.left
        ));
    }
    Ok(())
}

async fn run_all(host: &Host, share: &str) {
    let mut client = host.logged_in().await;
    client.tree_connect(share).await.unwrap();
    let mut other = host.logged_in().await;
    other.tree_connect(share).await.unwrap();
    let mut failures = Vec::new();
    for (number, case) in cases().iter().enumerate() {
        if let Err(why) = run(&mut client, &mut other, number, case).await {
            failures.push(why);
        }
    }
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn rules_in_memory() {
    run_all(&Host::new().await, "share").await;
}

#[tokio::test(start_paused = true)]
async fn rules_on_a_disk() {
    let scratch = Scratch::new("rename");
    run_all(&scratch.host("share").await, "disk").await;
}

async fn write(client: &mut Client, file_id: FileId, offset: u64, data: &'static [u8]) -> NtStatus {
    client
        .status(WriteRequest { offset, file_id, data: Bytes::from_static(data), ..Default::default() })
        .await
}

async fn read(client: &mut Client, file_id: FileId) -> Bytes {
    let request = ReadRequest { file_id, length: 1000, ..Default::default() };
    let (_, Response::Read(response)) = client.call(request).await else { panic!("data") };
    response.data
}

async fn is_pending(client: &mut Client, file_id: FileId) -> bool {
    let query = QueryInfoRequest {
        info_type: 1,
        file_info_class: FileInformationClass::Standard.number(),
        output_buffer_length: 24,
        file_id,
        ..Default::default()
    };
    let (_, Response::QueryInfo(response)) = client.call(query).await else { panic!("an answer") };
    StandardInformation::parse(&response.buffer).unwrap().delete_pending
}

/// FILE_RENAME_POSIX_SEMANTICS: "Existing handles to the replaced file continue to be valid. Any subsequent opens of the target name
/// will open the renamed file." (MS-FSCC 2.4.43)
async fn a_replaced_file_is_still_read_by_who_has_it_open(host: &Host, share: &str) {
    let mut client = host.logged_in().await;
    client.tree_connect(share).await.unwrap();
    let mut other = host.logged_in().await;
    other.tree_connect(share).await.unwrap();
    let old = other.open("taken").await.unwrap();
    assert_eq!(write(&mut other, old, 0, b"old").await, NtStatus::SUCCESS);
    let file = client.open("file").await.unwrap();
    assert_eq!(write(&mut client, file, 0, b"new").await, NtStatus::SUCCESS);
    let posix = rename_flags(FileInformationClass::RenameEx, file, 0, "taken", REPLACE | POSIX);
    assert_eq!(client.status(posix).await, NtStatus::SUCCESS);
    assert_eq!(&read(&mut other, old).await[..], b"old");
    assert_eq!(write(&mut other, old, 3, b"er").await, NtStatus::SUCCESS);
    assert_eq!(&read(&mut other, old).await[..], b"older");
    assert!(is_pending(&mut other, old).await);
    // Neither is it renamed nor does its deletion take the new one along.
    assert_eq!(other.status(request(old, "", Rename(".back", false))).await, NtStatus::OBJECT_NAME_NOT_FOUND);
    assert_eq!(other.status(disposition(old, true)).await, NtStatus::SUCCESS);
    close(&mut other, old).await;
    let again = other.open("taken").await.unwrap();
    assert_eq!(&read(&mut other, again).await[..], b"new");
    assert!(!is_pending(&mut other, again).await);
}

#[tokio::test(start_paused = true)]
async fn posix_renames() {
    a_replaced_file_is_still_read_by_who_has_it_open(&Host::new().await, "share").await;
    let scratch = Scratch::new("posix-rename");
    a_replaced_file_is_still_read_by_who_has_it_open(&scratch.host("share").await, "disk").await;
}

/// FILE_DISPOSITION_POSIX_SEMANTICS: the name goes with the handle that was told so, not with the last.
async fn a_name_goes_with_its_handle(host: &Host, share: &str) {
    let mut client = host.logged_in().await;
    client.tree_connect(share).await.unwrap();
    let mut other = host.logged_in().await;
    other.tree_connect(share).await.unwrap();
    let dispose = |file_id, flags: u32| {
        let asked = DispositionInformationEx { flags };
        set(file_id, FileInformationClass::DispositionEx, encoded(|out| asked.encode(out)))
    };
    let (delete, posix, even_read_only) = (
        DispositionFlags::DELETE.0,
        DispositionFlags::POSIX_SEMANTICS.0,
        DispositionFlags::IGNORE_READONLY_ATTRIBUTE.0,
    );
    let kept = other.open("file").await.unwrap();
    let file = client.open("file").await.unwrap();
    assert_eq!(client.status(dispose(file, 0x20)).await, NtStatus::INVALID_PARAMETER);
    // Withdrawn.
    assert_eq!(client.status(dispose(file, delete | posix)).await, NtStatus::SUCCESS);
    assert_eq!(client.status(dispose(file, 0)).await, NtStatus::SUCCESS);
    close(&mut client, file).await;
    let file = client.open("file").await.unwrap();
    // Without POSIX semantics it waits for the last handle.
    assert_eq!(client.status(dispose(file, delete)).await, NtStatus::SUCCESS);
    close(&mut client, file).await;
    assert_eq!(client.open("file").await, Err(NtStatus::DELETE_PENDING));
    assert_eq!(other.status(dispose(kept, 0)).await, NtStatus::SUCCESS);
    let file = client.open("file").await.unwrap();
    assert_eq!(write(&mut client, file, 0, b"old").await, NtStatus::SUCCESS);
    assert_eq!(client.status(dispose(file, delete | posix)).await, NtStatus::SUCCESS);
    assert_eq!(client.open("file").await, Err(NtStatus::DELETE_PENDING), "until the handle is closed");
    close(&mut client, file).await;
    let new = client.open("file").await.unwrap();
    assert_eq!(write(&mut client, new, 0, b"new").await, NtStatus::SUCCESS);
    assert_eq!(&read(&mut other, kept).await[..], b"old");
    assert!(is_pending(&mut other, kept).await);
    close(&mut other, kept).await;
    assert!(!is_pending(&mut client, new).await);
    // A read-only file, and a directory that somebody lists.
    let basic = BasicInformation { file_attributes: FileAttributes::READONLY, ..Default::default() };
    let asked = set(new, FileInformationClass::Basic, encoded(|out| basic.encode(out)));
    assert_eq!(client.status(asked).await, NtStatus::SUCCESS);
    assert_eq!(client.status(dispose(new, delete | posix)).await, NtStatus::CANNOT_DELETE);
    assert_eq!(client.status(dispose(new, delete | posix | even_read_only)).await, NtStatus::SUCCESS);
    close(&mut client, new).await;
    let made = created(&mut client, directory("dir", CREATE)).await.unwrap().file_id;
    let listing = open(&mut other, "dir", AccessMask::LIST_DIRECTORY, RWD).await;
    assert_eq!(client.status(dispose(made, delete | posix)).await, NtStatus::SUCCESS);
    close(&mut client, made).await;
    assert_eq!(client.open("dir\\late").await, Err(NtStatus::OBJECT_PATH_NOT_FOUND));
    let made = created(&mut client, directory("dir", CREATE)).await.unwrap().file_id;
    close(&mut client, made).await;
    close(&mut other, listing).await;
    assert!(client.open("dir\\file").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn posix_deletions() {
    a_name_goes_with_its_handle(&Host::new().await, "share").await;
    let scratch = Scratch::new("posix-deletion");
    a_name_goes_with_its_handle(&scratch.host("share").await, "disk").await;
}

/// A directory is renamed while something below it is opened, at each moment of the rename: either that is open and the rename
/// is refused, or the directory has gone and whatever was asked for has not come about. On a storage that takes its time.
#[tokio::test(start_paused = true)]
async fn directories_are_not_renamed_around_an_open() {
    let target = Target::Latency(Duration::from_millis(5), Box::new(Target::Memory));
    let mut settings = settings();
    settings.shares.push(ShareSettings { name: "slow".to_owned(), target, ..Default::default() });
    let host = Host::with(settings).await;
    let (mut renamer, mut opener) = (host.logged_in().await, host.logged_in().await);
    renamer.tree_connect("slow").await.unwrap();
    opener.tree_connect("slow").await.unwrap();
    for (what, name, disposition) in
        [("open", "in\\file", OPEN), ("create", "in\\new", CREATE), ("overwrite", "in\\file", OVERWRITE)]
    {
        let (mut renamed, mut opened) = (0, 0);
        for moment in -40_i64..40 {
            let base = format!("{what}{moment}");
            for dir in [base.clone(), format!("{base}\\in")] {
                make_directory(&mut renamer, &dir).await;
            }
            let file = renamer.open(&format!("{base}\\in\\file")).await.unwrap();
            assert_eq!(write(&mut renamer, file, 0, b"data").await, NtStatus::SUCCESS);
            close(&mut renamer, file).await;
            let moved = format!("{base} moved");
            let dir = open(&mut renamer, &base, AccessMask::DELETE, RWD).await;
            let rename = rename_flags(FileInformationClass::Rename, dir, 0, &moved, 0);
            let create = create_request(&format!("{base}\\{name}"), disposition);
            let between = tokio::time::sleep(Duration::from_micros(500 * moment.unsigned_abs()));
            let (rename, create) = if moment < 0 {
                let create = opener.send(create).await;
                between.await;
                (renamer.send(rename).await, create)
            } else {
                let rename = renamer.send(rename).await;
                between.await;
                (rename, opener.send(create).await)
            };
            let created = match opener.answer(create).await {
                (_, Response::Create(response)) => Ok(response.file_id),
                (header, _) => Err(header.status),
            };
            let (answer, _) = renamer.answer(rename).await;
            let left = match (answer.status, created) {
                (NtStatus::SUCCESS, Err(NtStatus::OBJECT_PATH_NOT_FOUND)) => {
                    renamed += 1;
                    let file = renamer.open(&format!("{moved}\\in\\file")).await.unwrap();
                    assert_eq!(&read(&mut renamer, file).await[..], b"data", "{what} {moment}");
                    close(&mut renamer, file).await;
                    assert_eq!(
                        names_below(&mut renamer, &moved).await,
                        ["in", "in\\file"],
                        "{what} {moment}"
                    );
                    moved
                }
                (NtStatus::ACCESS_DENIED, Ok(file)) => {
                    opened += 1;
                    close(&mut opener, file).await;
                    base
                }
                ends => panic!("{what} {moment}: {ends:?}"),
            };
            assert_eq!(
                renamer.status(rename_flags(FileInformationClass::Rename, dir, 0, &left, 0)).await,
                NtStatus::SUCCESS
            );
            close(&mut renamer, dir).await;
        }
        assert!(renamed > 0 && opened > 0, "{what}: renamed {renamed} times, opened {opened} times");
    }
}

#[tokio::test(start_paused = true)]
async fn watches_see_what_a_rename_replaces() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let mut other = host.connected().await;
    prepare(&mut client, "base").await;
    let root = open(&mut other, "", AccessMask::LIST_DIRECTORY, RWD).await;
    let watch = ChangeNotifyRequest {
        flags: ChangeNotifyRequest::WATCH_TREE,
        output_buffer_length: 4096,
        file_id: root,
        // FILE_NOTIFY_CHANGE_FILE_NAME and _DIR_NAME.
        completion_filter: 0x3,
    };
    // The watch begins with its first request.
    let id = other.send(watch.clone()).await;
    assert_eq!(other.receive().await.0.status, NtStatus::PENDING);
    make(&mut client, "first").await;
    other.answer(id).await;
    let file = client.open("base\\file").await.unwrap();
    let dir = open(&mut client, "base\\dir", AccessMask::DELETE, RWD).await;
    use NotifyAction::{Added, Removed, RenamedNewName, RenamedOldName};
    for (file_id, asked, told) in [
        (file, Rename("file", true), &[][..]),
        (file, Link("file", true), &[]),
        (
            file,
            Rename("TAKEN", true),
            &[(Removed, "taken"), (RenamedOldName, "file"), (RenamedNewName, "TAKEN")],
        ),
        (file, Link("file", false), &[(Added, "file")]),
        (file, Link("file", true), &[]),
        (
            file,
            Rename("file", true),
            &[(Removed, "file"), (RenamedOldName, "TAKEN"), (RenamedNewName, "file")],
        ),
        (file, Rename("File", false), &[(RenamedOldName, "file"), (RenamedNewName, "File")]),
        (
            dir,
            RenameEx("empty", REPLACE | POSIX),
            &[(Removed, "empty"), (RenamedOldName, "dir"), (RenamedNewName, "empty")],
        ),
        (dir, Rename("dir", false), &[(RenamedOldName, "empty"), (RenamedNewName, "dir")]),
    ] {
        assert_eq!(client.status(request(file_id, "base", asked)).await, NtStatus::SUCCESS, "{asked:?}");
        let mark = created(&mut client, create_request("mark", CREATE)).await.unwrap().file_id;
        assert_eq!(client.status(disposition(mark, true)).await, NtStatus::SUCCESS);
        close(&mut client, mark).await;
        let (_, Response::ChangeNotify(response)) = other.call(watch.clone()).await else {
            panic!("changes")
        };
        let seen: Vec<_> = NotifyInformation::parse_all(&response.buffer)
            .unwrap()
            .iter()
            .map(|change| (change.action, change.file_name.to_string_lossy()))
            .collect();
        let mut expected: Vec<_> =
            told.iter().map(|(action, name)| (*action, format!("base\\{name}"))).collect();
        expected.extend([(Added, "mark".to_owned()), (Removed, "mark".to_owned())]);
        assert_eq!(seen, expected, "{asked:?}");
    }
}
