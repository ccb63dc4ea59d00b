//! SESSION_SETUP, LOGOFF, TREE_CONNECT and what must be proven before anything else: MS-SMB2 3.3.5.2.4, .9, .11, 3.3.5.5 to 3.3.5.8.

use std::time::Duration;

use bytes::Bytes;
use shoal::config::{ShareSettings, Signing, UserSettings};
use shoal::users::Users;
use shoal_protocol::NtStatus;
use shoal_protocol::auth::Initiator;
use shoal_protocol::smb2::header::{Command, HeaderFlags};
use shoal_protocol::smb2::negotiate::{Dialect, SecurityMode};
use shoal_protocol::smb2::session_setup::SessionFlags;
use shoal_protocol::smb2::*;

use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn users_guests_and_nobody() {
    let host = Host::new().await;
    let mut client = host.negotiated().await;
    assert_eq!(client.login(USER, "wrong").await, Err(NtStatus::LOGON_FAILURE));
    assert_eq!(client.login(USER, "").await, Err(NtStatus::LOGON_FAILURE));
    client.login(&USER.to_uppercase(), PASSWORD).await.unwrap();
    assert_eq!(client.tree_connect("nowhere").await, Err(NtStatus::BAD_NETWORK_NAME));
    client.tree_connect("Hidden").await.unwrap();
    client.tree_connect("ipc$").await.unwrap();
    assert_eq!(client.tree_connect("ro").await.unwrap().maximal_access.bits(), 0x0012_00A9);

    let mut client = host.negotiated().await;
    let response = client.login("nobody-knows-me", "whatever").await.unwrap();
    assert_eq!(response.session_flags, SessionFlags::IS_GUEST);
    assert_eq!(client.tree_connect("share").await, Err(NtStatus::ACCESS_DENIED));
    client.tree_connect("public").await.unwrap();
    client.tree_connect("IPC$").await.unwrap();

    let mut client = host.negotiated().await;
    let response = client.login_with(Initiator::anonymous(), SessionId(0)).await.unwrap();
    assert_eq!(response.session_flags, SessionFlags::IS_NULL);
    assert_eq!(client.tree_connect("share").await, Err(NtStatus::ACCESS_DENIED));
    client.tree_connect("IPC$").await.unwrap();

    for initiator in [
        Initiator::new(USER, PASSWORD, "").without_spnego(),
        Initiator::new(USER, PASSWORD, "WORKGROUP").preferring_kerberos(),
    ] {
        let mut client = host.negotiated().await;
        client.login_with(initiator, SessionId(0)).await.unwrap();
        client.echo().await;
    }
}

#[tokio::test(start_paused = true)]
async fn paths_to_shares() {
    let host = Host::new().await;
    let mut client = host.logged_in().await;
    for (path, status) in [
        (r"\\server\share", NtStatus::SUCCESS),
        (r"\\10.0.0.1\SHARE", NtStatus::SUCCESS),
        (r"\\server\share\more", NtStatus::BAD_NETWORK_NAME),
        (r"\\server\", NtStatus::BAD_NETWORK_NAME),
        (r"\\\share", NtStatus::BAD_NETWORK_NAME),
        (r"\\server", NtStatus::BAD_NETWORK_NAME),
        (r"\server\share", NtStatus::INVALID_PARAMETER),
        ("share", NtStatus::INVALID_PARAMETER),
        ("", NtStatus::INVALID_PARAMETER),
    ] {
        let request = TreeConnectRequest { flags: 0, path: utf16(path) };
        assert_eq!(client.status(request).await, status, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn signatures_are_required_and_verified() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    // Not signed.
    client.sign = false;
    assert_eq!(client.status(create_request("x", 3)).await, NtStatus::ACCESS_DENIED);
    assert_eq!(client.status(EchoRequest {}).await, NtStatus::ACCESS_DENIED);
    client.sign = true;
    // Signed wrongly, in each byte of the signature and of the body.
    let request = Request::from(create_request("x", 3));
    for byte in [48, 63, 70, 100] {
        let header = client.header(Command::Create);
        let mut message = client.encode(header, &request);
        message[byte] ^= 0x40;
        client.send_payload(&message).await;
        let (header, _) = client.receive().await;
        assert_eq!(header.status, NtStatus::ACCESS_DENIED, "{byte}");
        assert!(!header.is_signed());
    }
    // Answers are signed; the harness verifies them.
    let (header, _) = client.call(EchoRequest {}).await;
    assert!(header.is_signed());
    assert_eq!(header.status, NtStatus::SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn signing_is_optional_where_it_may_be() {
    let mut settings = settings();
    settings.signing = Signing::Enabled;
    let host = Host::with(settings).await;
    let mut client = host.logged_in().await;
    client.sign = false;
    let (header, _) = client.call(EchoRequest {}).await;
    assert_eq!((header.status, header.is_signed()), (NtStatus::SUCCESS, false));
    // Who signs gets it back.
    client.sign = true;
    assert!(client.call(EchoRequest {}).await.0.is_signed());
    // Who asks for it has to.
    let mut client = host.connect();
    client.security_mode = SecurityMode::SIGNING_ENABLED | SecurityMode::SIGNING_REQUIRED;
    client.negotiate(&Dialect::ALL).await;
    client.login(USER, PASSWORD).await.unwrap();
    client.sign = false;
    assert_eq!(client.status(EchoRequest {}).await, NtStatus::ACCESS_DENIED);
}

#[tokio::test(start_paused = true)]
async fn ids_that_are_not_there() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let (session, tree) = (client.session, client.tree);
    client.session = SessionId(session.0 ^ 1);
    assert_eq!(client.status(create_request("x", 3)).await, NtStatus::USER_SESSION_DELETED);
    assert_eq!(client.status(LogoffRequest {}).await, NtStatus::USER_SESSION_DELETED);
    assert_eq!(client.status(SessionSetupRequest::default()).await, NtStatus::USER_SESSION_DELETED);
    client.session = session;
    client.tree = TreeId(tree.0 + 1);
    assert_eq!(client.status(create_request("x", 3)).await, NtStatus::NETWORK_NAME_DELETED);
    assert_eq!(client.status(TreeDisconnectRequest {}).await, NtStatus::NETWORK_NAME_DELETED);
    client.tree = tree;
    assert_eq!(client.status(TreeDisconnectRequest {}).await, NtStatus::SUCCESS);
    assert_eq!(client.status(TreeDisconnectRequest {}).await, NtStatus::NETWORK_NAME_DELETED);
    assert_eq!(client.status(LogoffRequest {}).await, NtStatus::SUCCESS);
    assert_eq!(client.status(LogoffRequest {}).await, NtStatus::USER_SESSION_DELETED);
    // Another connection's session is not ours.
    let mut one = host.connected().await;
    let mut two = host.logged_in().await;
    two.session = one.session;
    assert_eq!(two.status(create_request("x", 3)).await, NtStatus::USER_SESSION_DELETED);
    one.echo().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_login_on_a_session_keeps_keys_and_opens() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let file = client.open("kept").await.unwrap();
    let session = client.session;
    client.login(USER, PASSWORD).await.unwrap();
    assert_eq!(client.session, session);
    assert_eq!(client.status(FlushRequest { file_id: file }).await, NtStatus::SUCCESS);
    // Whoever does not have the keys cannot do it.
    client.sign = false;
    assert_eq!(client.login(OTHER, PASSWORD).await, Err(NtStatus::ACCESS_DENIED));
    client.sign = true;
    assert_eq!(client.status(FlushRequest { file_id: file }).await, NtStatus::SUCCESS);
}

/// Attack 18: a re-authentication that fails, again and again, disturbs nobody.
#[tokio::test(start_paused = true)]
async fn attack_18_failing_reauthentication_beside_io() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let file = client.open("copied").await.unwrap();
    for round in 0..50u64 {
        let data = Bytes::from(vec![round as u8; 1000]);
        let write = WriteRequest { offset: round * 1000, file_id: file, data, ..WriteRequest::default() };
        let write = client.send(write).await;
        assert_eq!(client.answer(write).await.0.status, NtStatus::SUCCESS);
        assert_eq!(client.login(USER, "wrong").await, Err(NtStatus::LOGON_FAILURE));
    }
    let read = ReadRequest { length: 50_000, file_id: file, ..ReadRequest::default() };
    let (_, Response::Read(read)) = client.call(read).await else { panic!() };
    assert!(read.data.chunks(1000).enumerate().all(|(round, data)| data == [round as u8; 1000]));
    client.hang_up().await;
    assert_eq!(host.server.open_count(), 0);
}

/// An expired session may close what it has and log in again, and nothing else: 3.3.5.2.9.
#[tokio::test(start_paused = true)]
async fn an_expired_session_has_to_log_in_again() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let (one, two) = (client.open("one").await.unwrap(), client.open("two").await.unwrap());
    let session = host.server.sessions.get(&client.session).map(|entry| entry.value().clone()).unwrap();
    session.expire_at(tokio::time::Instant::now() + Duration::from_secs(10));
    assert_eq!(client.status(FlushRequest { file_id: one }).await, NtStatus::SUCCESS);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(client.status(FlushRequest { file_id: one }).await, NtStatus::NETWORK_SESSION_EXPIRED);
    assert_eq!(client.status(CloseRequest { flags: 0, file_id: one }).await, NtStatus::SUCCESS);
    client.login(USER, PASSWORD).await.unwrap();
    assert_eq!(client.status(FlushRequest { file_id: two }).await, NtStatus::SUCCESS);
}

#[tokio::test(start_paused = true)]
async fn a_login_replaces_the_previous_session_of_the_same_user() {
    let host = Host::new().await;
    let mut lost = host.connected().await;
    lost.open("held").await.unwrap();
    assert_eq!(host.server.open_count(), 1);
    // Another user cannot end it.
    let mut other = host.negotiated().await;
    other.login_with(Initiator::new(OTHER, PASSWORD, ""), lost.session).await.unwrap();
    // Nor a guest, nor a login that fails.
    let mut guest = host.negotiated().await;
    guest.login_with(Initiator::new("nobody", "", ""), lost.session).await.unwrap();
    let mut failed = host.negotiated().await;
    failed.login_with(Initiator::new(USER, "wrong", ""), lost.session).await.unwrap_err();
    lost.echo().await;
    // She can.
    let mut again = host.negotiated().await;
    again.login_with(Initiator::new(USER, PASSWORD, ""), lost.session).await.unwrap();
    assert_eq!(host.server.open_count(), 0);
    assert_eq!(lost.status(create_request("x", 3)).await, NtStatus::USER_SESSION_DELETED);
    again.tree_connect("share").await.unwrap();
}

/// Attack 4, as far as there are no channels: binding is refused, and the session that it names works on.
#[tokio::test(start_paused = true)]
async fn attack_4_binding_is_refused() {
    let host = Host::new().await;
    let mut victim = host.connected().await;
    let mut attacker = host.negotiated().await;
    attacker.session = victim.session;
    for _ in 0..1000 {
        let request = SessionSetupRequest {
            flags: SessionSetupRequest::BINDING,
            buffer: Initiator::new(USER, "wrong", "").first(),
            ..SessionSetupRequest::default()
        };
        assert_eq!(attacker.status(request.clone()).await, NtStatus::INVALID_PARAMETER);
        // Signed, with a signature that is none.
        let mut header = attacker.header(Command::SessionSetup);
        header.flags |= HeaderFlags::SIGNED;
        header.signature = [1; 16];
        attacker.send_with(header, &request.into()).await;
        assert_eq!(attacker.receive().await.0.status, NtStatus::ACCESS_DENIED);
    }
    victim.echo().await;
    // With the keys it is refused as a server without channels does it, under signature.
    let mut second = host.negotiated().await;
    (second.session, second.keys, second.sign) = (victim.session, victim.keys.clone(), true);
    let request =
        SessionSetupRequest { flags: SessionSetupRequest::BINDING, ..SessionSetupRequest::default() };
    let (header, _) = second.call(request).await;
    assert_eq!((header.status, header.is_signed()), (NtStatus::REQUEST_NOT_ACCEPTED, true));
    // It gave no access to the session either.
    let chain = vec![
        (
            HeaderFlags::EMPTY,
            Request::from(SessionSetupRequest {
                flags: SessionSetupRequest::BINDING,
                ..SessionSetupRequest::default()
            }),
        ),
        (HeaderFlags::RELATED_OPERATIONS, tree_connect_request("share").into()),
    ];
    second.send_chain(chain).await;
    assert_eq!(second.receive().await.0.status, NtStatus::REQUEST_NOT_ACCEPTED);
    assert_eq!(second.receive().await.0.status, NtStatus::INVALID_PARAMETER);
    victim.echo().await;
}

/// Attack 17: the session ends, by LOGOFF and by PreviousSessionId, with requests of every kind in flight.
#[tokio::test(start_paused = true)]
async fn attack_17_the_session_ends_under_requests() {
    let host = Host::new().await;
    for by_logoff in [true, false].repeat(10) {
        let mut client = host.connected().await;
        let file = client.open("busy").await.unwrap();
        let lock = client.send(lock_request(file, 0, 10, 2 | 0x10)).await;
        assert_eq!(client.answer(lock).await.0.status, NtStatus::SUCCESS);
        let other = client.open("busy").await.unwrap();
        let mut ids = vec![client.send(lock_request(other, 0, 10, 2)).await];
        for _ in 0..20 {
            let data = Bytes::from_static(b"data");
            ids.push(
                client
                    .send(WriteRequest { offset: 100, file_id: other, data, ..WriteRequest::default() })
                    .await,
            );
            ids.push(
                client
                    .send(ReadRequest { offset: 100, length: 4, file_id: file, ..ReadRequest::default() })
                    .await,
            );
        }
        if by_logoff {
            ids.push(client.send(LogoffRequest {}).await);
        } else {
            let mut again = host.negotiated().await;
            again.login_with(Initiator::new(USER, PASSWORD, ""), client.session).await.unwrap();
        }
        let after = client.send(create_request("after", 3)).await;
        ids.push(after);
        // Every request is answered once.
        while !ids.is_empty() {
            let (header, _) = client.receive().await;
            if header.status != NtStatus::PENDING {
                let place = ids.iter().position(|id| *id == header.message_id).expect("answered once");
                ids.remove(place);
                if header.message_id == after {
                    assert_eq!(header.status, NtStatus::USER_SESSION_DELETED);
                }
            }
        }
        assert_eq!(host.server.open_count(), 0);
        client.hang_up().await;
    }
    assert_eq!(host.server.counts().panics, 0);
}

/// A reload: shares come and go, passwords change; who is connected keeps what he has.
#[tokio::test(start_paused = true)]
async fn a_reload_takes_effect_and_disturbs_nobody() {
    let host = Host::new().await;
    let mut client = host.connected().await;
    let file = client.open("kept").await.unwrap();
    let mut changed = settings();
    changed.shares.retain(|share| share.name != "public" && share.name != "share");
    changed.shares.push(ShareSettings { name: "new".to_owned(), ..ShareSettings::default() });
    changed.users = Users::new([UserSettings::with_password(USER, "another")], false);
    host.server.reload(changed).await.unwrap();
    assert_eq!(client.status(FlushRequest { file_id: file }).await, NtStatus::SUCCESS);
    assert_eq!(client.tree_connect("public").await, Err(NtStatus::BAD_NETWORK_NAME));
    client.tree_connect("new").await.unwrap();
    let mut later = host.negotiated().await;
    assert_eq!(later.login(USER, PASSWORD).await, Err(NtStatus::LOGON_FAILURE));
    later.login(USER, "another").await.unwrap();
    // A share that stays is the same tree of files.
    client.tree_connect("hidden").await.unwrap();
    client.open("here").await.unwrap();
    host.server.reload(settings()).await.unwrap();
    client.tree_connect("hidden").await.unwrap();
    assert_eq!(client.status(create_request("here", 2)).await, NtStatus::OBJECT_NAME_COLLISION);
}
