//! Bounds: what a client can make grow, and time.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use shoal_protocol::auth::Initiator;
use shoal_protocol::smb2::header::Command;
use shoal_protocol::smb2::negotiate::Dialect;
use shoal_protocol::smb2::*;
use shoal_protocol::{NtStatus, frame};
use tokio::time::{Instant, sleep};

use crate::files::{CREATE, OPEN, OVERWRITE, OVERWRITE_IF, SUPERSEDE, close, created};
use crate::harness::*;

/// Attack 8: SESSION_SETUPs with every kind of wrong token. None is a login, none is kept, none ends the server.
#[tokio::test(start_paused = true)]
async fn attack_8_wrong_tokens() {
    let host = Host::new().await;
    let mut client = host.negotiated().await;
    let good = Initiator::new(USER, PASSWORD, "").first();
    let mut random = 0x2545_F491_4F6C_DD1Du64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    for round in 0..20_000usize {
        let token = match round % 4 {
            0 => Bytes::new(),
            1 => good.slice(..next() % good.len()),
            2 => {
                let mut token = good.to_vec();
                for _ in 0..1 + next() % 3 {
                    let at = next() % token.len();
                    token[at] = next() as u8;
                }
                token.into()
            }
            _ => (0..next() % 300).map(|_| next() as u8).collect(),
        };
        client.session = SessionId(if round % 7 == 0 { 1 + next() as u64 } else { 0 });
        let (header, _) =
            client.call(SessionSetupRequest { buffer: token, ..SessionSetupRequest::default() }).await;
        assert_ne!(header.status, NtStatus::SUCCESS);
        if header.status == NtStatus::MORE_PROCESSING_REQUIRED {
            // Its next step is as wrong.
            client.session = header.session_id;
            let wrong = SessionSetupRequest { buffer: good.clone(), ..SessionSetupRequest::default() };
            assert!(client.status(wrong).await.is_error());
        }
    }
    assert_eq!(host.server.sessions.len(), 0);
    let connection = host.server.connections.iter().next().unwrap().value().clone();
    assert!(connection.session_counts().1 <= 16);
    assert_eq!(host.server.counts().panics, 0);
    client.session = SessionId(0);
    client.login(USER, PASSWORD).await.unwrap();
    client.echo().await;
}

/// Attack 9: whatever a set-up fails at, its place is free again.
#[tokio::test(start_paused = true)]
async fn attack_9_limits_recover_after_failed_set_ups() {
    let mut settings = settings();
    settings.limits.connections = 8;
    settings.limits.connections_per_address = 8;
    settings.limits.sessions_per_connection = 4;
    settings.limits.trees_per_session = 4;
    let host = Host::with(settings).await;
    for round in 0..100 {
        let mut client = host.connect();
        match round % 8 {
            0 => {}
            1 => client.send_bytes(b"\0\0\0").await,
            2 => client.send_frame(b"nonsense").await,
            3 => drop(client.negotiate(&Dialect::ALL).await),
            4 => {
                client.negotiate(&Dialect::ALL).await;
                client.login(USER, "wrong").await.unwrap_err();
            }
            5 => {
                client.negotiate(&Dialect::ALL).await;
                // Left in the middle.
                let buffer = Initiator::new(USER, PASSWORD, "").first();
                client.send(SessionSetupRequest { buffer, ..SessionSetupRequest::default() }).await;
                assert_eq!(client.receive().await.0.status, NtStatus::MORE_PROCESSING_REQUIRED);
            }
            6 => {
                client.negotiate(&Dialect::ALL).await;
                client.login(USER, PASSWORD).await.unwrap();
                client.tree_connect("nowhere").await.unwrap_err();
            }
            _ => {
                client.negotiate(&Dialect::ALL).await;
                client.login(USER, PASSWORD).await.unwrap();
                client.tree_connect("share").await.unwrap();
                client.open("file").await.unwrap();
            }
        }
        client.hang_up().await;
    }
    assert!(host.server.connections.is_empty() && host.server.sessions.is_empty());
    assert_eq!((host.server.open_count(), host.server.bytes_in_flight()), (0, 0));
    // All places are there again.
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(host.connected().await);
    }
    let mut ninth = host.connect();
    ninth.expect_disconnect().await;
    for client in &mut clients {
        client.echo().await;
    }
    // Sessions and tree connects have their limits, and recover from them.
    let client = &mut clients[0];
    for _ in 0..3 {
        (client.session, client.keys, client.sign) = (SessionId(0), None, false);
        client.login(USER, PASSWORD).await.unwrap();
    }
    let last = (client.session, client.keys.clone());
    (client.session, client.keys, client.sign) = (SessionId(0), None, false);
    assert_eq!(client.login(USER, PASSWORD).await, Err(NtStatus::INSUFFICIENT_RESOURCES));
    (client.session, client.keys, client.sign) = (last.0, last.1, true);
    for _ in 0..4 {
        client.tree_connect("share").await.unwrap();
    }
    assert_eq!(client.tree_connect("share").await, Err(NtStatus::INSUFFICIENT_RESOURCES));
    assert_eq!(client.status(TreeDisconnectRequest {}).await, NtStatus::SUCCESS);
    client.tree_connect("share").await.unwrap();
    assert_eq!(client.status(LogoffRequest {}).await, NtStatus::SUCCESS);
    (client.session, client.keys, client.sign) = (SessionId(0), None, false);
    client.login(USER, PASSWORD).await.unwrap();
}

/// At the limit of connections, one that has not logged in makes room.
#[tokio::test(start_paused = true)]
async fn newcomers_take_the_place_of_idlers() {
    let mut settings = settings();
    settings.limits.connections = 4;
    let host = Host::with(settings).await;
    let mut users = [host.logged_in().await, host.logged_in().await];
    let mut idlers = [host.negotiated().await, host.connect()];
    tokio::task::yield_now().await;
    let mut newcomer = host.logged_in().await;
    idlers[0].expect_disconnect().await;
    for user in &mut users {
        user.echo().await;
    }
    newcomer.echo().await;
    assert_eq!(host.server.counts().misbehaved["crowded"], 1);
}

/// Attack 10: connections that announce 16 MiB and send a byte a second, in every phase. They hold next to nothing, they
/// end, and others are served.
#[tokio::test(start_paused = true)]
async fn attack_10_slow_senders() {
    let host = Host::new().await;
    let announce = frame::prefix(frame::PAYLOAD_MAX);
    // Before the login a frame of that size is not even begun.
    for phase in 0..2 {
        let mut client = if phase == 0 { host.connect() } else { host.negotiated().await };
        client.send_bytes(&announce).await;
        client.expect_disconnect().await;
    }
    let mut slow = Vec::new();
    for index in 0..300usize {
        let mut client = match index % 3 {
            0 => host.connect(),
            1 => host.negotiated().await,
            _ => host.connected().await,
        };
        // As much as is allowed there, and a byte of it.
        let length = if index % 3 == 2 { 8 << 20 } else { 68 * 1024 };
        client.send_bytes(&frame::prefix(length)).await;
        client.send_bytes(b"\xFE").await;
        slow.push(client);
    }
    let start = Instant::now();
    let mut ended = 0;
    while ended < slow.len() {
        for client in &mut slow {
            client.send_bytes(b"S").await;
        }
        sleep(Duration::from_secs(1)).await;
        // Somebody else is served meanwhile.
        if start.elapsed().as_secs() % 60 == 1 {
            let mut client = host.connected().await;
            client.echo().await;
            client.hang_up().await;
        }
        ended = slow.len() - host.server.connections.len();
        assert!(start.elapsed() < Duration::from_secs(1200), "{ended} ended");
    }
    assert_eq!(host.server.counts().misbehaved["timed-out"], 300);
    assert_eq!(host.server.bytes_in_flight(), 0);
}

/// A connection that does not log in in time ends; one that is logged in may be silent for ever.
#[tokio::test(start_paused = true)]
async fn time_to_log_in() {
    let host = Host::new().await;
    let mut idle = host.connected().await;
    let start = Instant::now();
    let mut silent = host.connect();
    let mut negotiated = host.negotiated().await;
    // Wrong logins do not count.
    let mut trying = host.negotiated().await;
    for _ in 0..5 {
        sleep(Duration::from_secs(10)).await;
        trying.login(USER, "wrong").await.unwrap_err();
    }
    silent.expect_disconnect().await;
    negotiated.expect_disconnect().await;
    trying.expect_disconnect().await;
    assert_eq!(start.elapsed().as_secs(), 60);
    sleep(Duration::from_secs(100_000)).await;
    idle.echo().await;
    // After a logoff the time runs again.
    assert_eq!(idle.status(LogoffRequest {}).await, NtStatus::SUCCESS);
    idle.expect_disconnect().await;
}

/// A client that asks and never reads: the server stops reading, holds no more than the budget, and ends it.
#[tokio::test(start_paused = true)]
async fn replies_are_budgeted() {
    let mut settings = settings();
    settings.limits.reply_budget_per_connection = 4 << 20;
    let host = Host::with(settings).await;
    let mut client = host.connected().await;
    let file = client.open("large").await.unwrap();
    for part in 0..16u64 {
        let header = client.header_for(Command::Write, 1 << 20);
        let data = Bytes::from(vec![part as u8; 1 << 20]);
        let write = WriteRequest { offset: part << 20, file_id: file, data, ..WriteRequest::default() };
        client.send_with(header, &write.into()).await;
        assert_eq!(client.receive().await.0.status, NtStatus::SUCCESS);
    }
    let mut bytes = BytesMut::new();
    for part in 0..64u64 {
        let header = client.header_for(Command::Read, 1 << 20);
        let read = ReadRequest {
            offset: (part % 16) << 20,
            length: 1 << 20,
            file_id: file,
            ..ReadRequest::default()
        };
        let message = client.encode(header, &read.into());
        bytes.put_slice(&frame::prefix(message.len()));
        bytes.put_slice(&message);
    }
    client.send_bytes(&bytes).await;
    sleep(Duration::from_secs(1)).await;
    let held = host.server.bytes_in_flight();
    assert!((1 << 20..6 << 20).contains(&held), "{held}");
    // Others do not notice.
    let mut other = host.connected().await;
    other.echo().await;
    // Reading gets it going again.
    for part in 0..64u64 {
        let (header, Response::Read(read)) = client.receive().await else { panic!() };
        assert_eq!(header.status, NtStatus::SUCCESS);
        assert!(read.data.iter().all(|byte| *byte == (part % 16) as u8));
    }
    assert_eq!(host.server.bytes_in_flight(), 0);
    // Not reading ends it.
    for _ in 0..64 {
        let header = client.header_for(Command::Read, 1 << 20);
        let read = ReadRequest { length: 1 << 20, file_id: file, ..ReadRequest::default() };
        client.send_with(header, &read.into()).await;
    }
    client.served().await;
    assert_eq!(host.server.counts().misbehaved["not-reading"], 1);
    assert_eq!(host.server.bytes_in_flight(), 0);
}

/// A CREATE that is one open too many changes nothing: what it would have overwritten keeps its data, what it would have
/// deleted with its handle stays, and what it would have made is not there.
#[tokio::test(start_paused = true)]
async fn one_open_too_many_changes_nothing() {
    const TOO_MANY: NtStatus = NtStatus::TOO_MANY_OPENED_FILES;
    let mut settings = settings();
    settings.limits.opens_per_session = 2;
    let host = Host::with(settings).await;
    let mut client = host.connected().await;
    let full = client.open("full").await.unwrap();
    let data = Bytes::from_static(b"data");
    let write = WriteRequest { file_id: full, data: data.clone(), ..Default::default() };
    assert_eq!(client.status(write).await, NtStatus::SUCCESS);
    close(&mut client, full).await;
    for _ in 0..3 {
        let held = [client.open("one").await.unwrap(), client.open("two").await.unwrap()];
        for disposition in [OPEN, OVERWRITE, OVERWRITE_IF, SUPERSEDE] {
            let request = create_request("full", disposition);
            let deleting =
                CreateRequest { create_options: CreateOptions::DELETE_ON_CLOSE, ..request.clone() };
            for request in [request, deleting] {
                assert_eq!(created(&mut client, request).await.err(), Some(TOO_MANY));
            }
        }
        assert_eq!(created(&mut client, create_request("new", CREATE)).await.err(), Some(TOO_MANY));
        for file_id in held {
            close(&mut client, file_id).await;
        }
        let new = created(&mut client, create_request("new", OPEN)).await;
        assert_eq!(new.err(), Some(NtStatus::OBJECT_NAME_NOT_FOUND));
        let full = created(&mut client, create_request("full", OPEN)).await.unwrap().file_id;
        let read = ReadRequest { file_id: full, length: 100, ..Default::default() };
        let (_, Response::Read(response)) = client.call(read).await else { panic!("data") };
        assert_eq!(response.data, data);
        close(&mut client, full).await;
    }
}

/// The end: what is under way is answered, what waits is ended, and all is closed within the time.
#[tokio::test(start_paused = true)]
async fn a_drained_server_closes_everything() {
    let host = Host::new().await;
    let mut idle = host.logged_in().await;
    let mut busy = host.connected().await;
    let file = busy.open("file").await.unwrap();
    busy.call(lock_request(file, 0, 10, 2 | 0x10)).await;
    let other = busy.open("file").await.unwrap();
    let id = busy.send(lock_request(other, 0, 10, 2)).await;
    assert_eq!(busy.receive().await.0.status, NtStatus::PENDING);
    let start = Instant::now();
    host.server.drain(Duration::from_secs(4)).await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(busy.answer(id).await.0.status, NtStatus::CANCELLED);
    busy.expect_disconnect().await;
    idle.expect_disconnect().await;
    assert!(host.server.connections.is_empty() && host.server.opens.is_empty());
    // Nobody comes in any more.
    let mut late = host.connect();
    late.expect_disconnect().await;
}

/// What a connection's task keeps for as long as the connection stays: the buffers, the session and the rest come on top.
#[tokio::test(start_paused = true)]
async fn a_connections_task_is_small() {
    let host = Host::new().await;
    let (_ours, theirs) = tokio::io::duplex(1);
    let task = host.server.serve(theirs, ([127, 0, 0, 1], 1).into());
    assert!(size_of_val(&task) <= 768, "{} bytes", size_of_val(&task));
}

/// Who has said nothing for long has no buffer on the server, and is heard all the same.
#[tokio::test(start_paused = true)]
async fn whoever_was_silent_is_heard() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    for _ in 0..3 {
        client.expect_silence(Duration::from_secs(600)).await;
        client.echo().await;
        client.expect_silence(Duration::from_secs(600)).await;
        let file_id = client.open("file").await.unwrap();
        client.expect_silence(Duration::from_secs(600)).await;
        // More than is read at once into nothing.
        let data = Bytes::from(vec![7; 40_000]);
        let write = WriteRequest { file_id, data, ..Default::default() };
        assert_eq!(client.status(write).await, NtStatus::SUCCESS);
        assert_eq!(client.status(CloseRequest { flags: 0, file_id }).await, NtStatus::SUCCESS);
    }
}
