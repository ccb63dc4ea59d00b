//! The client against a server of ours in this process, and against peers that lie.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use shoal::Server;
use shoal::config::{Settings, ShareSettings, Signing, UserSettings};
use shoal::listener::Listener;
use shoal::users::Users;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::{ChangeNotifyRequest, CreateResponse, FileId, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const FILE_CREATE: u32 = 2;
const ACCESS: u32 = 0x0013_0197;
const LIST_DIRECTORY: u32 = 0x0010_0081;
const ALL: [Protection; 3] = [Protection::Plain, Protection::Signed, Protection::Encrypted];

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

async fn server(credits_max: u16) -> (Arc<Server>, SocketAddr) {
    let mut settings = Settings {
        shares: vec![ShareSettings { name: "memory".to_owned(), ..ShareSettings::default() }],
        users: Users::new([UserSettings::with_password("alice", "secret")], false),
        signing: Signing::Enabled,
        ..Settings::default()
    };
    settings.limits.credits_max = credits_max;
    let server = Server::new(settings).await.expect("the share is in memory");
    let listener = Listener::bind(any_port()).expect("there is a free port");
    let address = listener.address();
    server.listen(listener);
    (server, address)
}

async fn connected(address: SocketAddr, protection: Protection) -> (Connection, Tree) {
    let mut connection = Connection::connect(address).await.expect("connects");
    let session = connection.login("alice", "secret", protection).await.expect("logs in");
    let tree = connection.tree_connect(session, "memory").await.expect("connects to the share");
    (connection, tree)
}

async fn opened(connection: &mut Connection, tree: Tree, name: &str, access: u32, options: u32) -> FileId {
    let request = Request::Create(create(name, access, FILE_CREATE, options));
    match connection.exchange(tree, request).await.expect("answers").response() {
        Ok(Response::Create(answer)) => answer.file_id,
        other => panic!("CREATE of {name}: {other:?}"),
    }
}

#[tokio::test]
async fn a_megabyte_goes_up_and_down_in_each_protection() {
    let (_server, address) = server(8192).await;
    let data: Bytes = (0..1 << 20).map(|n: u32| (n ^ n >> 8) as u8).collect::<Vec<u8>>().into();
    for protection in ALL {
        let (mut connection, tree) = connected(address, protection).await;
        let file = opened(&mut connection, tree, &format!("{protection:?}"), ACCESS, 0).await;
        for number in 0..4 {
            connection.submit(tree, write(file, number << 20, data.clone()), number).expect("is sent");
        }
        let mut seen = Vec::new();
        let mut reading = false;
        while seen.len() < 8 {
            // Only now: a read could overtake the write of its part.
            if seen.len() == 4 && !std::mem::replace(&mut reading, true) {
                for number in 0..4 {
                    connection
                        .submit(tree, read(file, number << 20, 1 << 20), 100 + number)
                        .expect("is sent");
                }
            }
            connection.progress().await.expect("goes on");
            while let Some(reply) = connection.next_reply() {
                match reply.response().expect("is a success") {
                    Response::Write(answer) => assert_eq!(answer.count, 1 << 20),
                    Response::Read(answer) => assert_eq!(answer.data, data, "{protection:?}"),
                    other => panic!("{other:?}"),
                }
                seen.push(reply.ticket);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 100, 101, 102, 103]);
    }
}

#[tokio::test]
async fn requests_beyond_the_credits_wait_for_them() {
    let (_server, address) = server(32).await;
    let (mut connection, tree) = connected(address, Protection::Signed).await;
    const MANY: u64 = 1000;
    for ticket in 0..MANY {
        connection.submit(tree, echo(), ticket).expect("is sent or kept");
    }
    let mut next = 0;
    while next < MANY {
        connection.progress().await.expect("goes on");
        while let Some(reply) = connection.next_reply() {
            assert_eq!((reply.ticket, reply.header.status), (next, NtStatus::SUCCESS));
            next += 1;
        }
    }
}

#[tokio::test]
async fn chains_are_answered_one_by_one() {
    let (_server, address) = server(8192).await;
    for protection in ALL {
        let (mut connection, tree) = connected(address, protection).await;
        let name = format!("chain-{protection:?}");
        let chain = vec![
            Request::Create(create(&name, ACCESS, FILE_CREATE, 0)),
            query_info(FileId::RELATED, 34),
            close(FileId::RELATED),
        ];
        connection.submit_chain(tree, chain, 7).expect("is sent");
        let mut statuses = Vec::new();
        while statuses.len() < 3 {
            connection.progress().await.expect("goes on");
            while let Some(reply) = connection.next_reply() {
                assert_eq!(reply.ticket, 7);
                statuses.push(reply.header.status);
            }
        }
        assert_eq!(statuses, [NtStatus::SUCCESS; 3]);
        let removed = connection.exchange(tree, delete_on_close(&name)).await.expect("answers");
        let file = CreateResponse::parse(&removed.message).expect("is one").file_id;
        connection.exchange(tree, close(file)).await.expect("answers").response().expect("is a success");
    }
}

#[tokio::test]
async fn an_interim_response_is_no_answer() {
    let (_server, address) = server(8192).await;
    let (mut connection, tree) = connected(address, Protection::Signed).await;
    let directory = opened(&mut connection, tree, "watched", LIST_DIRECTORY, 1).await;
    let watch = ChangeNotifyRequest {
        flags: 0,
        output_buffer_length: 1000,
        file_id: directory,
        completion_filter: 1,
    };
    connection.submit(tree, Request::ChangeNotify(watch), 1).expect("is sent");
    let making = Request::Create(create("watched\\file", ACCESS, FILE_CREATE, 0));
    connection.submit(tree, making, 2).expect("is sent");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        connection.progress().await.expect("goes on");
        while let Some(reply) = connection.next_reply() {
            assert_eq!(reply.header.status, NtStatus::SUCCESS);
            seen.push(reply.ticket);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2]);
}

#[tokio::test]
async fn sessions_stand_beside_each_other_on_a_connection() {
    let (server, address) = server(8192).await;
    let mut connection = Connection::connect(address).await.expect("connects");
    let mut trees = Vec::new();
    for protection in ALL {
        let session = connection.login("alice", "secret", protection).await.expect("logs in");
        trees.push(connection.tree_connect(session, "memory").await.expect("connects to the share"));
    }
    for (number, tree) in trees.iter().enumerate() {
        opened(&mut connection, *tree, &format!("of-{number}"), ACCESS, 0).await;
    }
    assert_eq!(server.open_count(), 3);
}

#[tokio::test]
async fn wrong_credentials_and_shares_are_told_by_their_status() {
    let (_server, address) = server(8192).await;
    let mut connection = Connection::connect(address).await.expect("connects");
    let refused = connection.login("alice", "wrong", Protection::Signed).await;
    assert!(matches!(refused, Err(Trouble::Status(NtStatus::LOGON_FAILURE))), "{refused:?}");
    let session = connection.login("alice", "secret", Protection::Signed).await.expect("logs in");
    let refused = connection.tree_connect(session, "nothing").await;
    assert!(matches!(refused, Err(Trouble::Status(NtStatus::BAD_NETWORK_NAME))), "{refused:?}");
}

/// Between client and server: changes the last byte of the server's frame of this number.
async fn liar(server: SocketAddr, frame: usize) -> SocketAddr {
    let listener = TcpListener::bind(any_port()).await.expect("there is a free port");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(async move {
        let (client, _) = listener.accept().await?;
        let server = TcpStream::connect(server).await?;
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        for number in 0.. {
            let length = from_server.read_u32().await?;
            let mut payload = vec![0; length as usize];
            from_server.read_exact(&mut payload).await?;
            if number == frame
                && let Some(last) = payload.last_mut()
            {
                *last ^= 1;
            }
            to_client.write_u32(length).await?;
            to_client.write_all(&payload).await?;
        }
        Ok::<(), std::io::Error>(())
    });
    address
}

#[tokio::test]
async fn a_reply_that_was_changed_on_the_way_is_refused() {
    let (_server, address) = server(8192).await;
    // NEGOTIATE, SESSION_SETUP twice, TREE_CONNECT, and then the frame that is changed.
    for protection in [Protection::Signed, Protection::Encrypted] {
        let (mut connection, tree) = connected(liar(address, 4).await, protection).await;
        let refused = connection.exchange(tree, echo()).await;
        assert!(matches!(&refused, Err(Trouble::Broken(_))), "{protection:?}: {refused:?}");
    }
    // Whoever does not verify does not see it.
    let (mut connection, tree) = connected(liar(address, 4).await, Protection::Signed).await;
    connection.verify(false);
    connection
        .exchange(tree, query_directory(FileId::default(), 37, 100, true))
        .await
        .expect("is taken as it is");
    // The login is covered as well.
    let mut connection = Connection::connect(liar(address, 1).await).await.expect("connects");
    let refused = connection.login("alice", "secret", Protection::Signed).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    for nonsense in
        [&b""[..], b"\0\0", b"HTTP/1.1 400 Bad Request\r\n", b"\0\xFF\xFF\xFF", b"\0\0\0\x05hello", &[0; 200]]
    {
        let listener = TcpListener::bind(any_port()).await.expect("there is a free port");
        let address = listener.local_addr().expect("is bound");
        tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await?;
            // Its request is read first, so that closing is no reset.
            let mut request = [0; 16];
            peer.read_exact(&mut request).await?;
            peer.write_all(nonsense).await?;
            peer.shutdown().await
        });
        let refused = Connection::connect(address).await.map(drop);
        assert!(matches!(refused, Err(Trouble::Broken(_))), "{nonsense:?}: {refused:?}");
    }
}
