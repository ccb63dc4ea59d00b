//! Files through the wire: what CREATE makes and refuses, who may do what, listings, locks, notifications. MS-SMB2 3.3.5.9 to 3.3.5.21.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use shoal::config::{ShareSettings, Target};
use shoal_protocol::NtStatus;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::attributes::FileAttributes;
use shoal_protocol::fscc::directory_info::{DirectoryClass, DirectoryEntry};
use shoal_protocol::fscc::file_info::*;
use shoal_protocol::fscc::fsctl::Fsctl;
use shoal_protocol::fscc::notify::{NotifyAction, NotifyInformation};
use shoal_protocol::smb2::*;

use crate::harness::*;

pub const OPEN: u32 = 1;
pub const CREATE: u32 = 2;
pub const OPEN_IF: u32 = 3;
pub const OVERWRITE: u32 = 4;
pub const OVERWRITE_IF: u32 = 5;
pub const SUPERSEDE: u32 = 0;

const FILE: u8 = 1;
const FILESYSTEM: u8 = 2;
const SECURITY: u8 = 3;

pub async fn created(client: &mut Client, request: CreateRequest) -> Result<CreateResponse, NtStatus> {
    match client.call(request).await {
        (_, Response::Create(response)) => Ok(response),
        (header, _) => Err(header.status),
    }
}

pub fn directory(name: &str, disposition: u32) -> CreateRequest {
    CreateRequest { create_options: CreateOptions::DIRECTORY_FILE, ..create_request(name, disposition) }
}

pub async fn close(client: &mut Client, file_id: FileId) {
    assert_eq!(client.status(CloseRequest { flags: 0, file_id }).await, NtStatus::SUCCESS);
}

pub async fn make(client: &mut Client, name: &str) {
    let file_id = client.open(name).await.unwrap();
    close(client, file_id).await;
}

pub async fn make_directory(client: &mut Client, name: &str) {
    let made = created(client, directory(name, CREATE)).await.unwrap();
    close(client, made.file_id).await;
}

pub fn set(file_id: FileId, class: FileInformationClass, buffer: Bytes) -> SetInfoRequest {
    SetInfoRequest {
        info_type: FILE,
        file_info_class: class.number(),
        additional_information: 0,
        file_id,
        buffer,
    }
}

pub fn encoded(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut out);
    out.freeze()
}

fn rename(file_id: FileId, name: &str, replace: bool) -> SetInfoRequest {
    let asked = RenameInformation { replace_if_exists: replace, root_directory: 0, file_name: utf16(name) };
    set(file_id, FileInformationClass::Rename, encoded(|out| asked.encode(out)))
}

pub fn disposition(file_id: FileId, delete: bool) -> SetInfoRequest {
    let asked = DispositionInformation { delete_pending: delete };
    set(file_id, FileInformationClass::Disposition, encoded(|out| asked.encode(out)))
}

async fn list(
    client: &mut Client,
    file_id: FileId,
    pattern: &str,
    flags: u8,
) -> Result<Vec<String>, NtStatus> {
    let request = QueryDirectoryRequest {
        file_information_class: DirectoryClass::IdBothDirectory as u8,
        flags,
        file_index: 0,
        file_id,
        output_buffer_length: 65536,
        search_pattern: utf16(pattern),
    };
    match client.call(request).await {
        (_, Response::QueryDirectory(response)) => {
            let entries =
                DirectoryEntry::parse_all(DirectoryClass::IdBothDirectory, &response.buffer).unwrap();
            Ok(entries.iter().map(|entry| entry.file_name.to_string_lossy()).collect())
        }
        (header, _) => Err(header.status),
    }
}

/// A directory of this machine that goes with the value.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("shoal-wire-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub async fn host(&self, share: &str) -> Host {
        let path = self.0.join(share);
        let _ = std::fs::create_dir(&path);
        let disk =
            ShareSettings { name: "disk".to_owned(), target: Target::Directory(path), ..Default::default() };
        let mut settings = settings();
        settings.shares.push(disk);
        Host::with(settings).await
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn dispositions() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    for (disposition, absent, present) in [
        (OPEN, Err(NtStatus::OBJECT_NAME_NOT_FOUND), Ok(CreateResponse::OPENED)),
        (CREATE, Ok(CreateResponse::CREATED), Err(NtStatus::OBJECT_NAME_COLLISION)),
        (OPEN_IF, Ok(CreateResponse::CREATED), Ok(CreateResponse::OPENED)),
        (OVERWRITE, Err(NtStatus::OBJECT_NAME_NOT_FOUND), Ok(CreateResponse::OVERWRITTEN)),
        (OVERWRITE_IF, Ok(CreateResponse::CREATED), Ok(CreateResponse::OVERWRITTEN)),
        (SUPERSEDE, Ok(CreateResponse::CREATED), Ok(CreateResponse::SUPERSEDED)),
    ] {
        make(&mut client, "Present").await;
        for (name, expected) in [("absent", absent), ("pRESENT", present)] {
            let request = CreateRequest {
                create_options: CreateOptions::DELETE_ON_CLOSE,
                ..create_request(name, disposition)
            };
            let answer = created(&mut client, request).await;
            let action = answer.as_ref().map(|response| response.create_action).map_err(|status| *status);
            assert_eq!(action, expected, "{name} {disposition}");
            if let Ok(response) = answer {
                assert_eq!(response.file_attributes, FileAttributes::ARCHIVE);
                close(&mut client, response.file_id).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_are_refused() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    make_directory(&mut client, "dir").await;
    make(&mut client, "file").await;
    for (name, status) in [
        ("\\file", NtStatus::INVALID_PARAMETER),
        ("a*b", NtStatus::OBJECT_NAME_INVALID),
        ("dir\\\\file", NtStatus::OBJECT_NAME_INVALID),
        ("..\\file", NtStatus::OBJECT_PATH_SYNTAX_BAD),
        ("dir\\..\\..\\file", NtStatus::OBJECT_PATH_SYNTAX_BAD),
        ("file:stream", NtStatus::OBJECT_NAME_INVALID),
        ("none\\file", NtStatus::OBJECT_PATH_NOT_FOUND),
        ("file\\file", NtStatus::OBJECT_PATH_NOT_FOUND),
        ("dir::$DATA", NtStatus::FILE_IS_A_DIRECTORY),
        ("file\\", NtStatus::NOT_A_DIRECTORY),
    ] {
        assert_eq!(created(&mut client, create_request(name, OPEN_IF)).await.err(), Some(status), "{name}");
    }
    assert!(created(&mut client, create_request("FILE::$data", OPEN)).await.is_ok());
    assert!(created(&mut client, create_request("dir\\", OPEN)).await.is_ok());
    assert!(created(&mut client, create_request("dir/../file", OPEN)).await.is_ok());
    assert_eq!(created(&mut client, directory("file", OPEN)).await.err(), Some(NtStatus::NOT_A_DIRECTORY));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_to_be_deleted_turns_everybody_away() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let mut other = host.connected().await;
    let first = client.open("file").await.unwrap();
    let second = other.open("file").await.unwrap();
    assert_eq!(client.status(disposition(first, true)).await, NtStatus::SUCCESS);
    assert_eq!(other.open("file").await, Err(NtStatus::DELETE_PENDING));
    close(&mut client, first).await;
    assert_eq!(other.open("file").await, Err(NtStatus::DELETE_PENDING));
    assert_eq!(other.status(disposition(second, false)).await, NtStatus::SUCCESS);
    let third = client.open("file").await.unwrap();
    assert_eq!(client.status(disposition(third, true)).await, NtStatus::SUCCESS);
    close(&mut client, third).await;
    close(&mut other, second).await;
    let gone = created(&mut client, create_request("file", OPEN)).await.err();
    assert_eq!(gone, Some(NtStatus::OBJECT_NAME_NOT_FOUND));
}

#[tokio::test(start_paused = true)]
async fn directories_go_only_empty() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let dir = created(&mut client, directory("dir", CREATE)).await.unwrap().file_id;
    make(&mut client, "dir\\file").await;
    assert_eq!(client.status(disposition(dir, true)).await, NtStatus::DIRECTORY_NOT_EMPTY);
    let file = client.open("dir\\file").await.unwrap();
    assert_eq!(client.status(disposition(file, true)).await, NtStatus::SUCCESS);
    close(&mut client, file).await;
    assert_eq!(client.status(disposition(dir, true)).await, NtStatus::SUCCESS);
    assert_eq!(client.open("dir\\late").await, Err(NtStatus::DELETE_PENDING));
    close(&mut client, dir).await;
    assert_eq!(client.open("dir\\late").await, Err(NtStatus::OBJECT_PATH_NOT_FOUND));
}

#[tokio::test(start_paused = true)]
async fn renames() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    make_directory(&mut client, "dir").await;
    make(&mut client, "taken").await;
    let file = client.open("file").await.unwrap();
    for (to, replace, status) in [
        ("taken", false, NtStatus::OBJECT_NAME_COLLISION),
        ("dir", true, NtStatus::ACCESS_DENIED),
        ("none\\file", false, NtStatus::OBJECT_PATH_NOT_FOUND),
        ("dir\\moved", false, NtStatus::SUCCESS),
        ("dir\\MOVED", false, NtStatus::SUCCESS),
        ("taken", true, NtStatus::SUCCESS),
    ] {
        assert_eq!(client.status(rename(file, to, replace)).await, status, "{to}");
    }
    // What is open is not replaced, and a directory in which something is open stays where it is.
    let other = client.open("other").await.unwrap();
    assert_eq!(client.status(rename(other, "taken", true)).await, NtStatus::ACCESS_DENIED);
    let dir = created(&mut client, directory("dir", OPEN)).await.unwrap().file_id;
    let inside = client.open("dir\\inside").await.unwrap();
    assert_eq!(client.status(rename(dir, "elsewhere", false)).await, NtStatus::ACCESS_DENIED);
    close(&mut client, inside).await;
    assert_eq!(client.status(rename(dir, "elsewhere", false)).await, NtStatus::SUCCESS);
    assert!(created(&mut client, create_request("elsewhere\\inside", OPEN)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_whole_and_starts_again_when_asked() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    make_directory(&mut client, "dir").await;
    for number in 0..700 {
        make(&mut client, &format!("dir\\name-{number:04}.txt")).await;
    }
    let dir = created(&mut client, directory("dir", OPEN)).await.unwrap().file_id;
    let mut names = Vec::new();
    loop {
        match list(&mut client, dir, "*", 0).await {
            Ok(page) => names.extend(page),
            Err(status) => break assert_eq!(status, NtStatus::NO_MORE_FILES),
        }
    }
    assert_eq!(names[..2], [".", ".."]);
    assert_eq!(names.len(), 702);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 702);
    const RESTART: u8 = QueryDirectoryRequest::RESTART_SCANS;
    const SINGLE: u8 = QueryDirectoryRequest::RETURN_SINGLE_ENTRY;
    assert_eq!(list(&mut client, dir, "*", RESTART | SINGLE).await.unwrap(), ["."]);
    assert_eq!(list(&mut client, dir, "*", SINGLE).await.unwrap(), [".."]);
    assert_eq!(list(&mut client, dir, "NAME-0123.*", RESTART).await.unwrap(), ["name-0123.txt"]);
    assert_eq!(list(&mut client, dir, "name-0123.*", 0).await, Err(NtStatus::NO_MORE_FILES));
    // Without wildcards, and in another case.
    assert_eq!(list(&mut client, dir, "Name-0042.TXT", RESTART).await.unwrap(), ["name-0042.txt"]);
    assert_eq!(list(&mut client, dir, "*.none", RESTART).await, Err(NtStatus::NO_SUCH_FILE));
    assert_eq!(list(&mut client, dir, "name-0001", RESTART).await, Err(NtStatus::NO_SUCH_FILE));
}

/// A file that this client has written keeps its data; what is left of another's lock does not outlive its connection.
#[tokio::test(start_paused = true)]
async fn attack_1_locks_go_with_their_connection() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let mut other = host.connected().await;
    let theirs = other.open("file").await.unwrap();
    let ours = client.open("file").await.unwrap();
    const EXCLUSIVE: u32 = 0x12;
    for at in 0..100 {
        let status = other.status(lock_request(theirs, at * 10, 10, EXCLUSIVE)).await;
        assert_eq!(status, NtStatus::SUCCESS);
    }
    assert_eq!(client.status(lock_request(ours, 0, 1000, EXCLUSIVE)).await, NtStatus::LOCK_NOT_GRANTED);
    other.hang_up().await;
    assert_eq!(client.status(lock_request(ours, 0, 1000, EXCLUSIVE)).await, NtStatus::SUCCESS);
    let mut third = host.connected().await;
    let id = third.open("file").await.unwrap();
    let write = WriteRequest { offset: 5, file_id: id, data: Bytes::from_static(b"x"), ..Default::default() };
    assert_eq!(third.status(write).await, NtStatus::FILE_LOCK_CONFLICT);
}

/// Every SET_INFO class and every FSCTL that changes something asks for the right to do so, on the handle.
#[tokio::test(start_paused = true)]
async fn attack_11_nothing_is_changed_without_the_right() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let source = client.open("source").await.unwrap();
    let weak = CreateRequest {
        desired_access: AccessMask::READ_ATTRIBUTES | AccessMask::READ_CONTROL,
        ..create_request("file", OPEN_IF)
    };
    let weak = created(&mut client, weak).await.unwrap().file_id;
    let basic = BasicInformation { file_attributes: FileAttributes::HIDDEN, ..Default::default() };
    let requests = [
        set(weak, FileInformationClass::Basic, encoded(|out| basic.encode(out))),
        set(weak, FileInformationClass::EndOfFile, Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0])),
        set(weak, FileInformationClass::Allocation, Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0])),
        set(weak, FileInformationClass::DispositionEx, Bytes::from_static(&[1, 0, 0, 0])),
        set(weak, FileInformationClass::FullEa, Bytes::from_static(&[0; 16])),
        disposition(weak, true),
        rename(weak, "renamed", false),
    ];
    for request in requests {
        let class = request.file_info_class;
        assert_eq!(client.status(request).await, NtStatus::ACCESS_DENIED, "class {class}");
    }
    let sd = SetInfoRequest {
        info_type: SECURITY,
        file_info_class: 0,
        additional_information: 4,
        file_id: weak,
        buffer: Bytes::from_static(&[1, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    };
    assert_eq!(client.status(sd).await, NtStatus::ACCESS_DENIED);
    let key = ioctl(source, Fsctl::SRV_REQUEST_RESUME_KEY, &[]);
    let (_, Response::Ioctl(key)) = client.call(key).await else { panic!("a resume key") };
    let mut copy = key.output[..24].to_vec();
    copy.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    copy.extend_from_slice(&[0; 16]);
    copy.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    for (code, input) in [
        (Fsctl::SET_SPARSE, &[1][..]),
        (Fsctl::SET_ZERO_DATA, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
        (Fsctl::SET_COMPRESSION, &[0, 0]),
        (Fsctl::QUERY_ALLOCATED_RANGES, &[0; 16]),
        (Fsctl::SRV_COPYCHUNK, &copy),
        (Fsctl::SRV_COPYCHUNK_WRITE, &copy),
    ] {
        assert_eq!(client.status(ioctl(weak, code, input)).await, NtStatus::ACCESS_DENIED, "{code:?}");
    }
    let write = WriteRequest { file_id: weak, data: Bytes::from_static(b"x"), ..Default::default() };
    assert_eq!(client.status(write).await, NtStatus::ACCESS_DENIED);
    let read = ReadRequest { file_id: weak, length: 1, ..Default::default() };
    assert_eq!(client.status(read).await, NtStatus::ACCESS_DENIED);
    assert_eq!(client.status(lock_request(weak, 0, 1, 0x12)).await, NtStatus::ACCESS_DENIED);
    assert_eq!(client.status(FlushRequest { file_id: weak }).await, NtStatus::ACCESS_DENIED);

    // A share that is read-only gives no right that changes anything.
    client.tree_connect("ro").await.unwrap();
    assert_eq!(client.open("new").await, Err(NtStatus::ACCESS_DENIED));
    assert_eq!(created(&mut client, directory("new", CREATE)).await.err(), Some(NtStatus::ACCESS_DENIED));
    let all = CreateRequest { desired_access: AccessMask::MAXIMUM_ALLOWED, ..directory("", OPEN) };
    let root = created(&mut client, all).await.unwrap().file_id;
    for request in [
        set(root, FileInformationClass::Basic, encoded(|out| basic.encode(out))),
        disposition(root, true),
        rename(root, "renamed", false),
    ] {
        assert_eq!(client.status(request).await, NtStatus::ACCESS_DENIED);
    }
}

fn ioctl(file_id: FileId, code: Fsctl, input: &[u8]) -> IoctlRequest {
    IoctlRequest {
        ctl_code: code.0,
        file_id,
        max_input_response: 0,
        max_output_response: 4096,
        flags: IoctlRequest::IS_FSCTL,
        input: Bytes::copy_from_slice(input),
        output: Bytes::new(),
    }
}

/// Every information class with every length around its own: the answer is never longer than what was asked for.
#[tokio::test(start_paused = true)]
async fn attack_13_output_buffer_lengths() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let file = client.open("a file with a name of some length").await.unwrap();
    let dir = created(&mut client, directory("directory", CREATE)).await.unwrap().file_id;
    make(&mut client, "directory\\entry").await;
    let lengths: Vec<u32> = (0..140).chain([255, 256, 1024, 65535, 65536]).collect();
    for file_id in [file, dir] {
        for (info_type, classes) in [(FILE, 0..=80), (FILESYSTEM, 0..=14), (SECURITY, 0..=1)] {
            for class in classes {
                for &length in &lengths {
                    let request = QueryInfoRequest {
                        info_type,
                        file_info_class: class,
                        output_buffer_length: length,
                        additional_information: 7,
                        file_id,
                        ..Default::default()
                    };
                    let (header, body) = client.call(request).await;
                    if let Response::QueryInfo(response) = body {
                        assert!(response.buffer.len() <= length as usize, "{info_type} {class} {length}");
                        let whole = [NtStatus::SUCCESS, NtStatus::BUFFER_OVERFLOW];
                        assert!(whole.contains(&header.status));
                    } else {
                        assert!(header.status.is_error(), "{info_type} {class} {length}: {}", header.status);
                        assert_ne!(header.status, NtStatus::INTERNAL_ERROR, "{info_type} {class} {length}");
                    }
                }
            }
        }
    }
    for class in 0..=80 {
        for &length in &lengths {
            let request = QueryDirectoryRequest {
                file_information_class: class,
                flags: QueryDirectoryRequest::RESTART_SCANS,
                file_index: 0,
                file_id: dir,
                output_buffer_length: length,
                search_pattern: utf16("entry"),
            };
            let (header, body) = client.call(request).await;
            match body {
                Response::QueryDirectory(response) => assert!(response.buffer.len() <= length as usize),
                _ => {
                    let refused = [
                        NtStatus::INVALID_INFO_CLASS,
                        NtStatus::INFO_LENGTH_MISMATCH,
                        NtStatus::BUFFER_OVERFLOW,
                    ];
                    assert!(refused.contains(&header.status), "{class} {length}: {}", header.status);
                }
            }
        }
    }
}

/// Devices, FIFOs and sockets are refused at once, whatever is asked of them.
#[tokio::test]
async fn attack_22_special_files_are_refused_at_once() {
    let scratch = Scratch::new("special");
    let host = scratch.host("share").await;
    let share = scratch.0.join("share");
    let made = std::process::Command::new("mkfifo").arg(share.join("fifo")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(share.join("socket")).unwrap();
    let mut client = host.logged_in().await;
    client.tree_connect("disk").await.unwrap();
    let begun = Instant::now();
    for name in ["fifo", "socket"] {
        for access in [AccessMask::READ_DATA, AccessMask::WRITE_DATA, AccessMask::READ_ATTRIBUTES] {
            for disposition in [OPEN, OPEN_IF, OVERWRITE, OVERWRITE_IF, SUPERSEDE] {
                let request = CreateRequest { desired_access: access, ..create_request(name, disposition) };
                let status = created(&mut client, request).await.err();
                assert_eq!(status, Some(NtStatus::ACCESS_DENIED), "{name} {access:?} {disposition}");
            }
        }
    }
    client.echo().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// No symbolic link is followed, neither one that stands there nor one that comes and goes.
#[tokio::test]
async fn attack_24_symlinks_lead_nowhere() {
    let scratch = Scratch::new("links");
    let host = scratch.host("share").await;
    let share = scratch.0.join("share");
    let outside = scratch.0.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "outside").unwrap();
    std::os::unix::fs::symlink(&outside, share.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.join("secret"), share.join("file")).unwrap();
    let mut client = host.logged_in().await;
    client.tree_connect("disk").await.unwrap();
    for name in ["link", "link\\secret", "file", "link\\new"] {
        for disposition in [OPEN, OPEN_IF, OVERWRITE_IF, SUPERSEDE] {
            assert!(created(&mut client, create_request(name, disposition)).await.is_err(), "{name}");
        }
    }
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"outside");
    assert!(!outside.join("new").exists());

    // A directory that a local process swaps with a link while clients go through it.
    std::fs::create_dir(share.join("real")).unwrap();
    std::fs::write(share.join("real/secret"), "inside!").unwrap();
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (stop, share, outside) = (stop.clone(), share.clone(), outside.clone());
        move || swap(&stop, &share, &outside)
    });
    let mut reached = 0;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        let Ok(opened) = created(&mut client, create_request("swapped\\secret", OPEN)).await else {
            continue;
        };
        let read = ReadRequest { file_id: opened.file_id, length: 16, ..Default::default() };
        if let (_, Response::Read(response)) = client.call(read).await {
            assert_eq!(&response.data[..], b"inside!");
            reached += 1;
        }
        close(&mut client, opened.file_id).await;
    }
    stop.store(true, Ordering::SeqCst);
    swapper.join().unwrap();
    assert!(reached > 0, "the way was open now and then");
}

fn swap(stop: &AtomicBool, share: &Path, outside: &Path) {
    let swapped = share.join("swapped");
    while !stop.load(Ordering::SeqCst) {
        std::fs::rename(share.join("real"), &swapped).unwrap();
        std::thread::yield_now();
        std::fs::rename(&swapped, share.join("real")).unwrap();
        std::os::unix::fs::symlink(outside, &swapped).unwrap();
        std::thread::yield_now();
        std::fs::remove_file(&swapped).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn watches_tell_what_clients_do() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let mut other = host.connected().await;
    make_directory(&mut client, "dir").await;
    make_directory(&mut client, "dir\\sub").await;
    let root = created(&mut client, directory("", OPEN)).await.unwrap().file_id;
    let watch = ChangeNotifyRequest {
        flags: ChangeNotifyRequest::WATCH_TREE,
        output_buffer_length: 4096,
        file_id: root,
        completion_filter: 0x3,
    };
    let id = client.send(watch.clone()).await;
    assert_eq!(client.receive().await.0.status, NtStatus::PENDING);
    make(&mut other, "dir\\sub\\file").await;
    let (header, Response::ChangeNotify(response)) = client.answer(id).await else { panic!("changes") };
    assert_eq!(header.status, NtStatus::SUCCESS);
    let changes = NotifyInformation::parse_all(&response.buffer).unwrap();
    assert_eq!(
        changes,
        [NotifyInformation { action: NotifyAction::Added, file_name: utf16("dir\\sub\\file") }]
    );
    // What happens between two requests is kept, with both names of a rename in order.
    let file = other.open("dir\\sub\\file").await.unwrap();
    assert_eq!(other.status(rename(file, "dir\\sub\\other", false)).await, NtStatus::SUCCESS);
    assert_eq!(other.status(disposition(file, true)).await, NtStatus::SUCCESS);
    close(&mut other, file).await;
    let (_, Response::ChangeNotify(response)) = client.call(watch.clone()).await else { panic!("changes") };
    let changes = NotifyInformation::parse_all(&response.buffer).unwrap();
    let told: Vec<_> =
        changes.iter().map(|change| (change.action, change.file_name.to_string_lossy())).collect();
    assert_eq!(
        told,
        [
            (NotifyAction::RenamedOldName, "dir\\sub\\file".to_owned()),
            (NotifyAction::RenamedNewName, "dir\\sub\\other".to_owned()),
            (NotifyAction::Removed, "dir\\sub\\other".to_owned()),
        ]
    );
    // More than there is room for, and the end of the handle.
    for number in 0..200 {
        make(&mut other, &format!("dir\\file-{number}")).await;
    }
    let (header, _) = client.call(watch.clone()).await;
    assert_eq!(header.status, NtStatus::NOTIFY_ENUM_DIR);
    let id = client.send(watch).await;
    assert_eq!(client.receive().await.0.status, NtStatus::PENDING);
    let end = client.send(CloseRequest { flags: 0, file_id: root }).await;
    let mut answers = [client.receive().await.0, client.receive().await.0];
    answers.sort_by_key(|header| header.message_id == id);
    assert_eq!((answers[0].message_id, answers[0].status), (end, NtStatus::SUCCESS));
    assert_eq!((answers[1].message_id, answers[1].status), (id, NtStatus::NOTIFY_CLEANUP));
}

#[tokio::test(start_paused = true)]
async fn a_server_side_copy() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let source = client.open("source").await.unwrap();
    let target = client.open("target").await.unwrap();
    let data = Bytes::from(vec![7; 10_000]);
    let write = WriteRequest { file_id: source, data: data.clone(), ..Default::default() };
    assert_eq!(client.status(write).await, NtStatus::SUCCESS);
    let key = ioctl(source, Fsctl::SRV_REQUEST_RESUME_KEY, &[]);
    let (_, Response::Ioctl(key)) = client.call(key).await else { panic!("a resume key") };
    let request = |length: u32| {
        let mut copy = key.output[..24].to_vec();
        copy.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
        copy.extend_from_slice(&0_u64.to_le_bytes());
        copy.extend_from_slice(&500_u64.to_le_bytes());
        copy.extend_from_slice(&length.to_le_bytes());
        copy.extend_from_slice(&[0; 4]);
        ioctl(target, Fsctl::SRV_COPYCHUNK, &copy)
    };
    let (header, Response::Ioctl(done)) = client.call(request(10_000)).await else { panic!("a copy") };
    assert_eq!(header.status, NtStatus::SUCCESS);
    assert_eq!(done.output[..12], [1, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x27, 0, 0]);
    let read = ReadRequest { file_id: target, offset: 500, length: 20_000, ..Default::default() };
    let (_, Response::Read(response)) = client.call(read).await else { panic!("data") };
    assert_eq!(response.data, data);
    assert_eq!(client.status(request(10_001)).await, NtStatus::INVALID_VIEW_SIZE);
    let (header, body) = client.call(request(1 << 30)).await;
    assert_eq!(header.status, NtStatus::INVALID_PARAMETER);
    let Response::Ioctl(limits) = body else { panic!("the limits") };
    assert_eq!(limits.output.len(), 12);
    // The key of another session's open is none.
    let mut other = host.connected().await;
    let theirs = other.open("theirs").await.unwrap();
    let mut foreign = request(10);
    foreign.file_id = theirs;
    assert_eq!(other.status(foreign).await, NtStatus::OBJECT_NAME_NOT_FOUND);
}

/// Where the server departs from the specification, and how: see `deviations.toml`.
#[tokio::test(start_paused = true)]
async fn times_and_descriptors() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let file = client.open("file").await.unwrap();
    let query = |info_type, class| QueryInfoRequest {
        info_type,
        file_info_class: class,
        output_buffer_length: 4096,
        additional_information: 7,
        file_id: file,
        ..Default::default()
    };
    let written = BasicInformation {
        last_write_time: shoal_protocol::dtyp::FileTime::from_unix(1_000_000_000, 0),
        ..Default::default()
    };
    let request = set(file, FileInformationClass::Basic, encoded(|out| written.encode(out)));
    assert_eq!(client.status(request).await, NtStatus::SUCCESS);
    assert_eq!(client.status(rename(file, "renamed", false)).await, NtStatus::SUCCESS);
    let (_, Response::QueryInfo(basic)) = client.call(query(FILE, 4)).await else { panic!("basic") };
    let basic = BasicInformation::parse(&basic.buffer).unwrap();
    assert_eq!(basic.last_write_time, written.last_write_time);
    assert_eq!(basic.change_time, written.last_write_time);

    let (_, Response::QueryInfo(before)) = client.call(query(SECURITY, 0)).await else {
        panic!("descriptor")
    };
    let sd = SetInfoRequest {
        info_type: SECURITY,
        file_info_class: 0,
        additional_information: 4,
        file_id: file,
        buffer: Bytes::from_static(&[1, 0, 4, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    };
    assert_eq!(client.status(sd).await, NtStatus::SUCCESS);
    let (_, Response::QueryInfo(after)) = client.call(query(SECURITY, 0)).await else { panic!("descriptor") };
    assert_eq!(before, after);

    let (header, Response::QueryInfo(short)) = client.call(query(FILE, 21)).await else { panic!("name") };
    assert_eq!((header.status, &short.buffer[..]), (NtStatus::SUCCESS, &[0, 0, 0, 0][..]));
}

/// FILE_APPEND_DATA: what several clients write at the end of one file stands there whole, each piece once.
#[tokio::test(start_paused = true)]
async fn appends_of_several_clients_do_not_meet() {
    const CLIENTS: usize = 4;
    const EACH: usize = 50;
    let memory = Target::Latency(Duration::from_millis(5), Box::new(Target::Memory));
    let slow = ShareSettings { name: "slow".to_owned(), target: memory, ..Default::default() };
    let mut settings = settings();
    settings.shares.push(slow);
    let host = Host::with(settings).await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = host.logged_in().await;
        client.tree_connect("slow").await.unwrap();
        clients.push(tokio::spawn(async move {
            let request =
                CreateRequest { desired_access: AccessMask::APPEND_DATA, ..create_request("log", OPEN_IF) };
            let file_id = created(&mut client, request).await.unwrap().file_id;
            for line in 0..EACH {
                let data = Bytes::from(format!("client {number} line {line:02}\n"));
                let append = WriteRequest { offset: u64::MAX, file_id, data, ..Default::default() };
                assert_eq!(client.status(append).await, NtStatus::SUCCESS);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    let mut client = host.logged_in().await;
    client.tree_connect("slow").await.unwrap();
    let file_id = client.open("log").await.unwrap();
    let request = ReadRequest { file_id, length: 65536, ..Default::default() };
    let (_, Response::Read(response)) = client.call(request).await else { panic!("data") };
    let text = String::from_utf8(response.data.to_vec()).unwrap();
    for number in 0..CLIENTS {
        let own: Vec<_> =
            text.lines().filter(|line| line.starts_with(&format!("client {number} "))).collect();
        let all: Vec<_> = (0..EACH).map(|line| format!("client {number} line {line:02}")).collect();
        assert_eq!(own, all);
    }
    assert_eq!(text.lines().count(), CLIENTS * EACH);
    // With the right to write anywhere the offset makes no sense.
    let append =
        WriteRequest { offset: u64::MAX, file_id, data: Bytes::from_static(b"x"), ..Default::default() };
    assert_eq!(client.status(append).await, NtStatus::INVALID_PARAMETER);
}
