//! Waiting requests: STATUS_PENDING, CANCEL, and what ends a wait otherwise. MS-SMB2 3.3.4.2, 3.3.5.16.

use std::time::Duration;

use shoal::config::{ShareSettings, Target};
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::header::{Command, Header, HeaderFlags, Routing};
use shoal_protocol::smb2::*;
use tokio::time::Instant;

use crate::harness::*;

const EXCLUSIVE: u32 = 2;
const AT_ONCE: u32 = 0x10;

/// A client with a lock, and a second handle whose lock waits for it: the waiting request's id and its interim header.
async fn waiting(client: &mut Client) -> (FileId, FileId, MessageId, Header) {
    let holder = client.open("locked").await.unwrap();
    let status = client.status(lock_request(holder, 0, 10, EXCLUSIVE | AT_ONCE)).await;
    assert_eq!(status, NtStatus::SUCCESS);
    let waiter = client.open("locked").await.unwrap();
    let id = client.send(lock_request(waiter, 5, 10, EXCLUSIVE)).await;
    let (interim, _) = client.receive().await;
    assert_eq!((interim.message_id, interim.status), (id, NtStatus::PENDING));
    assert!(interim.async_id().is_some_and(|id| id.0 != 0));
    assert!(interim.credits > 0, "the interim response carries the credits");
    (holder, waiter, id, interim)
}

async fn cancel(client: &mut Client, id: MessageId, by: Option<AsyncId>) {
    let mut header = client.header(Command::Cancel);
    client.next_message -= 1;
    header.message_id = id;
    if let Some(by) = by {
        header.flags |= HeaderFlags::ASYNC_COMMAND;
        header.routing = Routing::Async(by);
    }
    client.send_with(header, &CancelRequest {}.into()).await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_what_it_waits_for_comes() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let (holder, _, id, interim) = waiting(&mut client).await;
    // Everything else goes on meanwhile.
    client.echo().await;
    client.expect_silence(Duration::from_secs(3600)).await;
    let unlock = client.send(lock_request(holder, 0, 10, 4)).await;
    let mut answers = [client.receive().await.0, client.receive().await.0];
    answers.sort_by_key(|header| header.message_id == id);
    assert_eq!((answers[0].message_id, answers[0].status), (unlock, NtStatus::SUCCESS));
    let last = &answers[1];
    assert_eq!((last.message_id, last.status), (id, NtStatus::SUCCESS));
    assert_eq!((last.async_id(), last.credits), (interim.async_id(), 0));
    assert!(last.is_signed());
}

#[tokio::test(start_paused = true)]
async fn cancel_by_either_id() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let (_, waiter, id, interim) = waiting(&mut client).await;
    cancel(&mut client, id, interim.async_id()).await;
    let (header, _) = client.receive().await;
    assert_eq!((header.message_id, header.status), (id, NtStatus::CANCELLED));
    assert_eq!(header.async_id(), interim.async_id());
    let id = client.send(lock_request(waiter, 5, 10, EXCLUSIVE)).await;
    assert_eq!(client.receive().await.0.status, NtStatus::PENDING);
    cancel(&mut client, id, None).await;
    assert_eq!(client.answer(id).await.0.status, NtStatus::CANCELLED);
    // Again, and for what was never asked: nothing happens.
    cancel(&mut client, id, interim.async_id()).await;
    cancel(&mut client, MessageId(7777), Some(AsyncId(7777))).await;
    client.expect_silence(Duration::from_secs(1)).await;
    client.echo().await;
}

/// A CANCEL has no answer to refuse it with; one that proves nothing cancels nothing.
#[tokio::test(start_paused = true)]
async fn an_unsigned_cancel_cancels_nothing() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let (_, _, id, interim) = waiting(&mut client).await;
    client.sign = false;
    cancel(&mut client, id, interim.async_id()).await;
    client.expect_silence(Duration::from_secs(1)).await;
    client.sign = true;
    cancel(&mut client, id, interim.async_id()).await;
    assert_eq!(client.answer(id).await.0.status, NtStatus::CANCELLED);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_handle_tree_and_session_ends_the_wait() {
    let host = Host::new().await;
    for ending in 0..3 {
        let mut client = host.connected().await;
        let (_, waiter, id, _) = waiting(&mut client).await;
        let end = match ending {
            0 => client.send(CloseRequest { flags: 0, file_id: waiter }).await,
            1 => client.send(TreeDisconnectRequest {}).await,
            _ => client.send(LogoffRequest {}).await,
        };
        let answers = [client.receive().await.0, client.receive().await.0];
        let wait = answers.iter().find(|header| header.message_id == id).expect("the wait is answered");
        // With the tree connect and the session the holder's handle goes too, and it may be the first to go.
        assert!(wait.status.is_error() || ending > 0, "{ending}: {}", wait.status);
        let end = answers.iter().find(|header| header.message_id == end).expect("the end is answered");
        assert_eq!(end.status, NtStatus::SUCCESS);
        client.hang_up().await;
        assert_eq!(host.server.open_count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_connection_ends_the_wait() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    waiting(&mut client).await;
    client.hang_up().await;
    // The task that waited needs a moment more than the connection.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(host.server.open_count(), 0);
    let mut client = host.connected().await;
    let file = client.open("locked").await.unwrap();
    let status = client.status(lock_request(file, 0, 100, EXCLUSIVE | AT_ONCE)).await;
    assert_eq!(status, NtStatus::SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn waits_have_a_limit() {
    let mut settings = settings();
    settings.limits.pending_per_connection = 4;
    let host = Host::with(settings).await;
    let mut client = host.connected().await;
    let (_, waiter, first, _) = waiting(&mut client).await;
    let mut ids = vec![first];
    for _ in 1..4 {
        ids.push(client.send(lock_request(waiter, 5, 10, EXCLUSIVE)).await);
        assert_eq!(client.receive().await.0.status, NtStatus::PENDING);
    }
    assert_eq!(client.status(lock_request(waiter, 5, 10, EXCLUSIVE)).await, NtStatus::INSUFFICIENT_RESOURCES);
    cancel(&mut client, ids[0], None).await;
    assert_eq!(client.answer(ids[0]).await.0.status, NtStatus::CANCELLED);
    let id = client.send(lock_request(waiter, 5, 10, EXCLUSIVE)).await;
    let (header, _) = client.receive().await;
    assert_eq!((header.message_id, header.status), (id, NtStatus::PENDING));
}

/// Attack 20: requests that wait, cancelled in every order, again and again, leave nothing behind.
#[tokio::test(start_paused = true)]
async fn attack_20_waits_and_cancels_in_storms() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let (_, waiter, first, _) = waiting(&mut client).await;
    for round in 0..20 {
        let mut ids = Vec::new();
        for _ in 0..50 {
            ids.push(client.send(lock_request(waiter, 5, 10, EXCLUSIVE)).await);
        }
        if round % 2 == 0 {
            ids.reverse();
        }
        for id in &ids {
            cancel(&mut client, *id, None).await;
            cancel(&mut client, *id, None).await;
        }
        let mut interims = 0;
        while !ids.is_empty() {
            let (header, _) = client.receive().await;
            if header.status == NtStatus::PENDING {
                interims += 1;
                continue;
            }
            assert_eq!(header.status, NtStatus::CANCELLED);
            let place = ids.iter().position(|id| *id == header.message_id).expect("answered once");
            ids.remove(place);
        }
        assert_eq!(interims, 50);
    }
    cancel(&mut client, first, None).await;
    assert_eq!(client.answer(first).await.0.status, NtStatus::CANCELLED);
    assert_eq!(host.server.pending_count(), 0);
}

/// A request that the disk keeps waiting goes async too, once it has taken long; a CANCEL does not tear it in two.
#[tokio::test(start_paused = true)]
async fn slow_storage_goes_async() {
    let mut settings = settings();
    let slow = Target::Latency(Duration::from_secs(2), Box::new(Target::Memory));
    settings.shares.push(ShareSettings { name: "slow".to_owned(), target: slow, ..ShareSettings::default() });
    let host = Host::with(settings).await;
    let mut client = host.logged_in().await;
    client.tree_connect("slow").await.unwrap();
    let start = Instant::now();
    let id = client.send(create_request("file", 2)).await;
    client.echo().await;
    assert_eq!(start.elapsed(), Duration::ZERO, "nothing waits for the disk but what asked it");
    let (interim, _) = client.receive().await;
    assert_eq!((interim.message_id, interim.status), (id, NtStatus::PENDING));
    assert_eq!(start.elapsed(), Duration::from_millis(500));
    cancel(&mut client, id, interim.async_id()).await;
    let (header, body) = client.answer(id).await;
    assert_eq!(
        (header.status, header.async_id(), header.credits),
        (NtStatus::SUCCESS, interim.async_id(), 0)
    );
    let Response::Create(created) = body else { panic!("{header:?}") };
    let close = client.call(CloseRequest { flags: 0, file_id: created.file_id }).await;
    assert_eq!(close.0.status, NtStatus::SUCCESS);
    // The connection goes while the disk is at it: nothing stays open.
    client.send(create_request("other", 2)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.hang_up().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((host.server.open_count(), host.server.bytes_in_flight()), (0, 0));
}

/// In a chain only the last request may wait.
#[tokio::test(start_paused = true)]
async fn waits_in_chains() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let (holder, waiter, first, _) = waiting(&mut client).await;
    let lock = Request::from(lock_request(waiter, 5, 10, EXCLUSIVE));
    let ids = client
        .send_chain(vec![(HeaderFlags::EMPTY, lock.clone()), (HeaderFlags::EMPTY, EchoRequest {}.into())])
        .await;
    assert_eq!(client.answer(ids[0]).await.0.status, NtStatus::INTERNAL_ERROR);
    assert_eq!(client.answer(ids[1]).await.0.status, NtStatus::SUCCESS);
    let ids = client
        .send_chain(vec![(HeaderFlags::EMPTY, EchoRequest {}.into()), (HeaderFlags::EMPTY, lock)])
        .await;
    assert_eq!(client.receive().await.0.message_id, ids[0]);
    let (header, _) = client.receive().await;
    assert_eq!((header.message_id, header.status), (ids[1], NtStatus::PENDING));
    cancel(&mut client, first, None).await;
    assert_eq!(client.answer(first).await.0.status, NtStatus::CANCELLED);
    client.send(lock_request(holder, 0, 10, 4)).await;
    let answers = [client.receive().await.0, client.receive().await.0];
    assert!(answers.iter().any(|header| header.message_id == ids[1] && header.status == NtStatus::SUCCESS));
}
