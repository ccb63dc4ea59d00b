//! How many calls to the file system each warm request makes: an extra `statx` shows here and in no timing. `close` is not
//! counted: there is one for each file that was opened. `ioctl` asks whether somebody else has changed names.

use bytes::Bytes;
use rustix::fs::statfs;
use shoal_protocol::NtStatus;
use shoal_protocol::fscc::file_info::FileInformationClass;
use shoal_protocol::smb2::*;
use shoal_vfs::local::take_calls;

use super::files::{CREATE, OPEN, Scratch, close, created, make, make_directory, set};
use crate::harness::*;

/// ext4, XFS, btrfs and tmpfs: others, and kernels before 6.13, need the longer way now and then.
const TELLING: [u32; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994];

fn is_telling(scratch: &Scratch) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.trim().parse::<u32>().ok());
    let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    kernel >= (6, 13) && TELLING.contains(&(statfs(&scratch.0).unwrap().f_type as u32))
}

fn rename_to(name: &str) -> Bytes {
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut information = vec![0; 16];
    information.extend_from_slice(&(name.len() as u32).to_le_bytes());
    information.extend_from_slice(&name);
    information.into()
}

#[tokio::test(start_paused = true)]
async fn of_each_warm_request() {
    let scratch = Scratch::new("system-calls");
    if !is_telling(&scratch) {
        return;
    }
    let host = scratch.host("share").await;
    let mut client = host.negotiated().await;
    client.login(USER, PASSWORD).await.unwrap();
    client.tree_connect("disk").await.unwrap();
    make_directory(&mut client, "dir").await;
    let open = |name: &str| create_request(&format!("dir\\{name}"), OPEN);
    for _ in 0..4 {
        make(&mut client, "dir\\file").await;
        let absent = created(&mut client, open("absent")).await;
        assert_eq!(absent.unwrap_err(), NtStatus::OBJECT_NAME_NOT_FOUND);
        // Who makes a directory's index does it when nobody waits for it.
        tokio::task::yield_now().await;
    }
    if take_calls().contains(&"lgetxattr") {
        // A sandbox that does not know getxattrat.
        return;
    }
    macro_rules! calls {
        ($request:expr, [$($call:literal),*]) => {{
            take_calls();
            let answer = $request.await;
            let expected: &[&str] = &[$($call),*];
            assert_eq!(take_calls(), expected, "{}", stringify!($request));
            answer
        }};
    }
    let success = NtStatus::SUCCESS;
    calls!(client.echo(), []);
    let absent = calls!(created(&mut client, open("absent")), ["ioctl"]);
    assert_eq!(absent.unwrap_err(), NtStatus::OBJECT_NAME_NOT_FOUND);

    let opened = calls!(created(&mut client, open("file")), ["ioctl", "openat2", "statx"]);
    let file_id = opened.unwrap().file_id;
    let data = Bytes::from_static(&[7; 4096]);
    let write = WriteRequest { offset: 0, channel: 0, remaining_bytes: 0, flags: 0, file_id, data };
    assert_eq!(client.status(write.clone()).await, success);
    assert_eq!(calls!(client.status(write), ["pwrite64"]), success);
    let read = ReadRequest { length: 4096, file_id, ..ReadRequest::default() };
    assert_eq!(calls!(client.status(read), ["preadv2"]), success);
    calls!(close(&mut client, file_id), []);

    // A whole operation asks once, from its walk to its change.
    let new = create_request("dir\\new", CREATE);
    let made = calls!(created(&mut client, new), ["ioctl", "openat2", "statx"]);
    let file_id = made.unwrap().file_id;
    // Our own change is in the queue, which is known without asking.
    calls!(created(&mut client, open("absent")), ["read"]).unwrap_err();
    let rename = |name: &str| set(file_id, FileInformationClass::Rename, rename_to(name));
    assert_eq!(calls!(client.status(rename("dir\\newer")), ["ioctl", "renameat2"]), success);
    // A move to a name cannot be told from a foreign one right after it: what has the name is looked at again.
    assert_eq!(calls!(client.status(rename("dir\\newest")), ["read", "statx", "renameat2"]), success);
    let dispose = set(file_id, FileInformationClass::Disposition, Bytes::from_static(&[1]));
    // The rename has changed the file, so that its attributes are read again.
    assert_eq!(calls!(client.status(dispose), ["statx", "fgetxattr"]), success);
    calls!(close(&mut client, file_id), ["read", "statx", "unlinkat"]);
}
