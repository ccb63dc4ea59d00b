//! Compound chains: MS-SMB2 3.3.5.2.7.

use bytes::Bytes;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::header::{Command, HeaderFlags};
use shoal_protocol::smb2::*;

use crate::harness::*;

const NONE: HeaderFlags = HeaderFlags::EMPTY;
const RELATED: HeaderFlags = HeaderFlags::RELATED_OPERATIONS;

fn close(file_id: FileId) -> Request {
    CloseRequest { flags: 0, file_id }.into()
}

/// The statuses of the answers to a chain, in order.
async fn statuses(client: &mut Client, chain: Vec<(HeaderFlags, Request)>) -> Vec<NtStatus> {
    let ids = client.send_chain(chain).await;
    let mut statuses = Vec::new();
    for id in ids {
        statuses.push(client.answer(id).await.0.status);
    }
    statuses
}

#[tokio::test(start_paused = true)]
async fn related_requests_inherit_session_tree_and_file() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let data = Bytes::from_static(b"hello");
    let chain = vec![
        (NONE, Request::from(create_request("file", 3))),
        (RELATED, WriteRequest { data, file_id: FileId::RELATED, ..WriteRequest::default() }.into()),
        (RELATED, ReadRequest { length: 5, file_id: FileId::RELATED, ..ReadRequest::default() }.into()),
        (RELATED, close(FileId::RELATED)),
        (RELATED, close(FileId::RELATED)),
    ];
    client.send_chain(chain).await;
    // One frame, 8-byte aligned, each answer signed: the harness verifies them.
    let expected = [
        (Command::Create, NtStatus::SUCCESS),
        (Command::Write, NtStatus::SUCCESS),
        (Command::Read, NtStatus::SUCCESS),
        (Command::Close, NtStatus::SUCCESS),
        (Command::Close, NtStatus::FILE_CLOSED),
    ];
    let tree = client.tree;
    for (index, (command, status)) in expected.into_iter().enumerate() {
        let (header, body) = client.receive().await;
        assert_eq!((header.command, header.status), (command, status));
        assert_eq!((header.session_id, header.tree_id()), (client.session, tree));
        assert_eq!(header.is_related(), index > 0);
        assert!(header.is_signed());
        assert_eq!(header.next_command == 0, index == 4);
        if let Response::Read(read) = body {
            assert_eq!(&read.data[..], b"hello");
        }
    }
    // A whole login in a chain, without knowing an id: the tree connect and what follows use what the first made.
    let chain = vec![
        (NONE, Request::from(tree_connect_request("share"))),
        (RELATED, create_request("file", 1).into()),
        (RELATED, close(FileId::RELATED)),
        (RELATED, TreeDisconnectRequest {}.into()),
    ];
    assert_eq!(statuses(&mut client, chain).await, [NtStatus::SUCCESS; 4]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_passed_on() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let not_found = NtStatus::OBJECT_NAME_NOT_FOUND;
    let chain = vec![
        (NONE, Request::from(create_request("absent", 1))),
        (RELATED, FlushRequest { file_id: FileId::RELATED }.into()),
        (RELATED, close(FileId::RELATED)),
    ];
    assert_eq!(statuses(&mut client, chain).await, [not_found; 3]);
    // No file before.
    let chain = vec![(NONE, Request::from(EchoRequest {})), (RELATED, close(FileId::RELATED))];
    let got = statuses(&mut client, chain).await;
    assert_eq!(got[0], NtStatus::SUCCESS);
    assert!(got[1].is_error());
    // The first must not be related.
    let chain = vec![(RELATED, Request::from(create_request("x", 3))), (RELATED, close(FileId::RELATED))];
    assert_eq!(statuses(&mut client, chain).await, [NtStatus::INVALID_PARAMETER; 2]);
    // A failure that is no CREATE's does not keep the file from being closed.
    let chain = vec![
        (NONE, Request::from(create_request("empty", 3))),
        (RELATED, ReadRequest { length: 5, file_id: FileId::RELATED, ..ReadRequest::default() }.into()),
        (RELATED, close(FileId::RELATED)),
    ];
    assert_eq!(
        statuses(&mut client, chain).await,
        [NtStatus::SUCCESS, NtStatus::END_OF_FILE, NtStatus::SUCCESS]
    );
    client.hang_up().await;
    assert_eq!(host.server.open_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn unrelated_requests_stand_alone() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let chain = vec![
        (NONE, Request::from(create_request("absent", 1))),
        (NONE, EchoRequest {}.into()),
        (NONE, create_request("one", 3).into()),
        (NONE, close(FileId::RELATED)),
        (NONE, create_request("two", 3).into()),
    ];
    let expected = [
        NtStatus::OBJECT_NAME_NOT_FOUND,
        NtStatus::SUCCESS,
        NtStatus::SUCCESS,
        NtStatus::FILE_CLOSED,
        NtStatus::SUCCESS,
    ];
    assert_eq!(statuses(&mut client, chain).await, expected);
}

/// Attack 6: a chain ends its own tree connect or session, and goes on.
#[tokio::test(start_paused = true)]
async fn attack_6_the_chain_ends_what_it_stands_on() {
    let host = Host::new().await;
    for flags in [NONE, RELATED] {
        let mut client = host.connected().await;
        let chain = vec![
            (NONE, Request::from(TreeDisconnectRequest {})),
            (flags, create_request("x", 3).into()),
            (flags, close(FileId::RELATED)),
            (flags, TreeDisconnectRequest {}.into()),
        ];
        let gone = NtStatus::NETWORK_NAME_DELETED;
        assert_eq!(statuses(&mut client, chain).await, [NtStatus::SUCCESS, gone, gone, gone], "{flags:?}");
        client.hang_up().await;

        let mut client = host.connected().await;
        let file = client.open("held").await.unwrap();
        let chain = vec![
            (NONE, Request::from(FlushRequest { file_id: file })),
            (flags, LogoffRequest {}.into()),
            (flags, create_request("x", 3).into()),
            (flags, tree_connect_request("share").into()),
            (flags, FlushRequest { file_id: file }.into()),
            (flags, LogoffRequest {}.into()),
        ];
        let gone = NtStatus::USER_SESSION_DELETED;
        let expected = [NtStatus::SUCCESS, NtStatus::SUCCESS, gone, gone, gone, gone];
        assert_eq!(statuses(&mut client, chain).await, expected, "{flags:?}");
        assert_eq!(host.server.open_count(), 0);
        client.hang_up().await;
    }
    assert!(host.server.sessions.is_empty());
}

/// A client that requires signatures must be able to believe the refusals: the harness verifies each that is signed.
#[tokio::test(start_paused = true)]
async fn refusals_in_a_chain_are_signed() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    // The first is related to nothing; a third that is not related stands on its own.
    client
        .send_chain(vec![
            (RELATED, Request::from(create_request("x", 3))),
            (RELATED, close(FileId::RELATED)),
            (NONE, close(FileId::RELATED)),
        ])
        .await;
    for status in [NtStatus::INVALID_PARAMETER, NtStatus::INVALID_PARAMETER, NtStatus::FILE_CLOSED] {
        let (header, _) = client.receive().await;
        assert_eq!((header.status, header.is_signed()), (status, true));
    }
    // The second has another session, that does not exist; the third inherits that nothing.
    let session = client.session;
    let mut chain = Vec::new();
    for (index, flags) in [NONE, NONE, RELATED].into_iter().enumerate() {
        client.session = SessionId(session.0 + index as u64);
        let mut header = client.header(Command::Close);
        header.flags |= flags | HeaderFlags::SIGNED;
        let mut message = client.encode(header, &close(FileId::RELATED));
        if index < 2 {
            compound::link(&mut message, 0);
            client.sign_message(&mut message);
        }
        chain.extend_from_slice(&message);
    }
    client.session = session;
    client.send_frame(&chain).await;
    for status in [NtStatus::FILE_CLOSED, NtStatus::USER_SESSION_DELETED, NtStatus::INVALID_PARAMETER] {
        let (header, _) = client.receive().await;
        assert_eq!((header.status, header.is_signed()), (status, true));
    }
}

#[tokio::test(start_paused = true)]
async fn long_chains_have_a_bound() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let echos = |count: usize| (0..count).map(|_| (NONE, Request::from(EchoRequest {}))).collect::<Vec<_>>();
    assert_eq!(statuses(&mut client, echos(128)).await, [NtStatus::SUCCESS; 128]);
    client.send_chain(echos(129)).await;
    client.expect_disconnect().await;
}

/// Many large READs in one chain: the answers come in several frames, none larger than a frame may be.
#[tokio::test(start_paused = true)]
async fn a_chain_of_large_reads() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let file = client.open("large").await.unwrap();
    let end = SetInfoRequest {
        info_type: 1,
        file_info_class: 20,
        additional_information: 0,
        file_id: file,
        buffer: Bytes::copy_from_slice(&(1u64 << 23).to_le_bytes()),
    };
    assert_eq!(client.status(end).await, NtStatus::SUCCESS);
    let read = ReadRequest { length: 65_536, file_id: file, ..ReadRequest::default() };
    let chain = (0..100).map(|_| (NONE, Request::from(read.clone()))).collect();
    client.send_chain(chain).await;
    for _ in 0..100 {
        let (header, Response::Read(read)) = client.receive().await else { panic!() };
        assert_eq!((header.status, read.data.len()), (NtStatus::SUCCESS, 65_536));
    }
}
