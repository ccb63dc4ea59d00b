//! Message ids and credits: MS-SMB2 3.3.1.1, 3.3.1.2, 3.3.5.2.3 and 3.3.5.2.5.

use std::time::Duration;

use bytes::Bytes;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::header::{Command, HeaderFlags, Routing};
use shoal_protocol::smb2::negotiate::Dialect;
use shoal_protocol::smb2::*;

use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn credits_are_granted_as_asked_up_to_8192() {
    let host = Host::new().await;
    let mut client = host.connect();
    // Before the login a few; at the login all that is asked for.
    let request = client.negotiate_request(&[Dialect::Smb210]).into();
    let mut header = client.header(Command::Negotiate);
    header.credits = 8192;
    client.send_with(header, &request).await;
    let (header, _) = client.receive().await;
    assert_eq!(header.credits, 32);
    let mut client = host.logged_in().await;
    let mut echo = client.header(Command::Echo);
    echo.credits = u16::MAX;
    client.send_with(echo, &EchoRequest {}.into()).await;
    client.receive().await;
    // Message ids are counted from 0: each that was used is a credit spent.
    assert_eq!(client.credits - client.next_message as i64, 8192);
}

/// Attack 20: ids that were used, were never granted, or run over the end of what was granted, end the connection.
#[tokio::test(start_paused = true)]
async fn attack_20_ids_outside_the_window() {
    let host = Host::new().await;
    let echo = Request::from(EchoRequest {});
    let outside: [(&str, u64, u16); 6] = [
        ("used", 0, 1),
        ("never granted", 100_000, 1),
        ("reserved", u64::MAX, 1),
        ("over the end", u64::MAX - 1, 2),
        ("a charge beyond the window", 3, u16::MAX),
        ("a charge over used ids", 2, 3),
    ];
    for (what, id, charge) in outside {
        let mut client = host.logged_in().await;
        let mut header = client.header(Command::Echo);
        // Two requests have been used for the login, and one for NEGOTIATE.
        assert_eq!(header.message_id, MessageId(3), "{what}");
        header.message_id = MessageId(id);
        header.credit_charge = charge;
        client.send_with(header, &echo).await;
        client.expect_disconnect().await;
    }
    assert_eq!(host.server.counts().misbehaved["sequence-outside-window"], 6);
}

/// Attack 20: an id that never comes costs the client its window, and us nothing.
#[tokio::test(start_paused = true)]
async fn attack_20_an_id_left_out() {
    let host = Host::new().await;
    let mut client = host.logged_in().await;
    let hole = client.next_message;
    client.next_message += 1;
    let mut granted = 0;
    let mut last = 0;
    for _ in 0..20_000 {
        let mut header = client.header(Command::Echo);
        header.credits = 100;
        client.send_with(header, &EchoRequest {}.into()).await;
        let Some((header, ..)) = client.try_receive().await else { break };
        granted += u32::from(header.credits);
        last = header.message_id.0;
    }
    assert!(last - hole < 2 * 8192, "{last}");
    assert!(granted < 2 * 8192);
}

/// Attack 20: more CANCELs than there can be requests, for everything and nothing.
#[tokio::test(start_paused = true)]
async fn attack_20_a_flood_of_cancels() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    for round in 0..20_000u64 {
        let mut header = client.header(Command::Cancel);
        client.next_message -= 1;
        header.message_id = MessageId(round % 50);
        if round % 3 == 0 {
            header.flags |= HeaderFlags::ASYNC_COMMAND;
            header.routing = Routing::Async(AsyncId(round));
        }
        client.send_with(header, &CancelRequest {}.into()).await;
    }
    client.echo().await;
    client.expect_silence(Duration::from_secs(1)).await;
}

/// 3.3.5.2.5: a payload costs a credit for each 64 KiB, in both directions, where requests of several credits exist.
#[tokio::test(start_paused = true)]
async fn payloads_are_paid_for() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let file = client.open("paid").await.unwrap();
    let large = Bytes::from(vec![1; 65_537]);
    let requests: Vec<(Request, u16, NtStatus)> = vec![
        (write(file, large.clone()), 1, NtStatus::INVALID_PARAMETER),
        (write(file, large.slice(1..)), 1, NtStatus::SUCCESS),
        (write(file, large.clone()), 2, NtStatus::SUCCESS),
        (write(file, large.slice(1..)), 0, NtStatus::SUCCESS),
        (write(file, large.clone()), 0, NtStatus::INVALID_PARAMETER),
        (read(file, 65_537), 1, NtStatus::INVALID_PARAMETER),
        (read(file, 65_536), 1, NtStatus::SUCCESS),
        (read(file, 131_073), 2, NtStatus::INVALID_PARAMETER),
        (read(file, 131_072), 2, NtStatus::SUCCESS),
        (read(file, (8 << 20) + 1), 129, NtStatus::INVALID_PARAMETER),
        (read(file, u32::MAX), 128, NtStatus::INVALID_PARAMETER),
        (read(file, 8 << 20), 128, NtStatus::SUCCESS),
    ];
    for (index, (request, charge, status)) in requests.into_iter().enumerate() {
        let mut header = client.header(request.command());
        header.credit_charge = charge;
        client.next_message += u64::from(charge.max(1)) - 1;
        client.send_with(header, &request).await;
        assert_eq!(client.receive().await.0.status, status, "{index}");
    }
    // 2.0.2 knows no charges, and no payloads that need them.
    let mut client = host.connect();
    client.negotiate(&[Dialect::Smb202]).await;
    client.login(USER, PASSWORD).await.unwrap();
    client.tree_connect("share").await.unwrap();
    let file = client.open("paid").await.unwrap();
    for (request, status) in [
        (write(file, large.slice(1..)), NtStatus::SUCCESS),
        (write(file, large.clone()), NtStatus::INVALID_PARAMETER),
        (read(file, 65_537), NtStatus::INVALID_PARAMETER),
    ] {
        let mut header = client.header(request.command());
        header.credit_charge = 77;
        client.send_with(header, &request).await;
        assert_eq!(client.receive().await.0.status, status);
    }
}

fn write(file_id: FileId, data: Bytes) -> Request {
    WriteRequest { file_id, data, ..WriteRequest::default() }.into()
}

fn read(file_id: FileId, length: u32) -> Request {
    ReadRequest { file_id, length, ..ReadRequest::default() }.into()
}
