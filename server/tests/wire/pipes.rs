//! The pipes of IPC$: RPC through reads and writes, and through FSCTL_PIPE_TRANSCEIVE.

use bytes::Bytes;
use shoal_protocol::NtStatus;
use shoal_protocol::fscc::fsctl::Fsctl;
use shoal_protocol::rpc::client::Client as Rpc;
use shoal_protocol::rpc::{Interface, srvsvc};
use shoal_protocol::smb2::*;

use crate::harness::*;

async fn transceive(client: &mut Client, file_id: FileId, input: Bytes, room: u32) -> (NtStatus, Bytes) {
    let request = IoctlRequest {
        ctl_code: Fsctl::PIPE_TRANSCEIVE.0,
        file_id,
        max_input_response: 0,
        max_output_response: room,
        flags: IoctlRequest::IS_FSCTL,
        input,
        output: Bytes::new(),
    };
    match client.call(request).await {
        (header, Response::Ioctl(response)) => (header.status, response.output),
        (header, body) => panic!("{header:?} {body:?}"),
    }
}

async fn open(client: &mut Client, name: &str) -> Result<FileId, NtStatus> {
    match client.call(create_request(name, 1)).await {
        (_, Response::Create(response)) => Ok(response.file_id),
        (header, _) => Err(header.status),
    }
}

fn share_names(stub: &Bytes) -> Vec<String> {
    let response = srvsvc::ShareEnumResponse::parse(stub).unwrap();
    response.shares.iter().map(|share| share.name.to_string_lossy()).collect()
}

fn enumerate() -> Bytes {
    srvsvc::ShareEnumRequest {
        server_name: None,
        level: 1,
        preferred_maximum_length: u32::MAX,
        resume_handle: None,
    }
    .encode()
}

#[tokio::test(start_paused = true)]
async fn shares_are_listed_both_ways() {
    let host = Host::new().await;
    let mut client = host.logged_in().await;
    client.tree_connect("IPC$").await.unwrap();
    assert_eq!(open(&mut client, "nosuchpipe").await, Err(NtStatus::OBJECT_NAME_NOT_FOUND));
    let mut listed = Vec::new();

    // FSCTL_PIPE_TRANSCEIVE.
    let pipe = open(&mut client, "srvsvc").await.unwrap();
    let mut rpc = Rpc::new(Interface::Srvsvc);
    let (status, answer) = transceive(&mut client, pipe, rpc.bind(), 4096).await;
    assert_eq!(status, NtStatus::SUCCESS);
    rpc.bound(&answer).unwrap();
    for request in rpc.request(srvsvc::SHARE_ENUM, &enumerate()) {
        // Room for a part of it only: the rest is read.
        let (status, first) = transceive(&mut client, pipe, request, 100).await;
        assert_eq!((status, first.len()), (NtStatus::BUFFER_OVERFLOW, 100));
        let read = ReadRequest { file_id: pipe, length: 65536, ..Default::default() };
        let (_, Response::Read(rest)) = client.call(read).await else { panic!("the rest") };
        let whole = Bytes::from([&first[..], &rest.data[..]].concat());
        listed.push(share_names(&rpc.response(&whole).unwrap().expect("one fragment")));
    }

    // WRITE and READ, the read before the write.
    let pipe = open(&mut client, "SRVSVC").await.unwrap();
    let mut rpc = Rpc::new(Interface::Srvsvc);
    let mut messages = vec![rpc.bind()];
    messages.extend(rpc.request(srvsvc::SHARE_ENUM, &enumerate()));
    let mut answers = Vec::new();
    for message in messages {
        let read = client.send(ReadRequest { file_id: pipe, length: 65536, ..Default::default() }).await;
        assert_eq!(client.receive().await.0.status, NtStatus::PENDING);
        let write = client.send(WriteRequest { file_id: pipe, data: message, ..Default::default() }).await;
        for _ in 0..2 {
            let (header, body) = client.receive().await;
            assert_eq!(header.status, NtStatus::SUCCESS);
            match body {
                Response::Read(response) => {
                    assert_eq!(header.message_id, read);
                    answers.push(response.data);
                }
                _ => assert_eq!(header.message_id, write),
            }
        }
    }
    rpc.bound(&answers[0]).unwrap();
    listed.push(share_names(&rpc.response(&answers[1]).unwrap().expect("one fragment")));

    for names in listed {
        assert_eq!(names, ["IPC$", "share", "public", "secret", "ro"], "what is hidden is not told of");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipe_is_no_file() {
    let host = Host::new().await;
    let mut client = host.logged_in().await;
    client.tree_connect("IPC$").await.unwrap();
    let pipe = open(&mut client, "wkssvc").await.unwrap();
    let dir = QueryDirectoryRequest {
        file_information_class: 37,
        flags: 0,
        file_index: 0,
        file_id: pipe,
        output_buffer_length: 4096,
        search_pattern: utf16("*"),
    };
    assert_eq!(client.status(dir).await, NtStatus::INVALID_DEVICE_REQUEST);
    assert_eq!(client.status(lock_request(pipe, 0, 1, 0x12)).await, NtStatus::INVALID_DEVICE_REQUEST);
    for class in 0..=80 {
        let query = QueryInfoRequest {
            info_type: 1,
            file_info_class: class,
            output_buffer_length: 4096,
            file_id: pipe,
            ..Default::default()
        };
        assert_ne!(client.status(query).await, NtStatus::INTERNAL_ERROR, "class {class}");
    }
    // A read that waits ends with its handle.
    let read = client.send(ReadRequest { file_id: pipe, length: 10, ..Default::default() }).await;
    assert_eq!(client.receive().await.0.status, NtStatus::PENDING);
    let close = client.send(CloseRequest { flags: 0, file_id: pipe }).await;
    let mut answers = [client.receive().await.0, client.receive().await.0];
    answers.sort_by_key(|header| header.message_id == read);
    assert_eq!((answers[0].message_id, answers[0].status), (close, NtStatus::SUCCESS));
    assert_eq!(answers[1].status, NtStatus::PIPE_DISCONNECTED);
}
