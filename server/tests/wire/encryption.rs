//! Encryption: MS-SMB2 3.3.5.2.1.1, 3.3.5.2.9, 3.3.5.2.11 and 3.1.4.3.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};
use shoal_protocol::NtStatus;
use shoal_protocol::crypto::Cipher;
use shoal_protocol::smb2::header::{Command, HeaderFlags};
use shoal_protocol::smb2::negotiate::Dialect;
use shoal_protocol::smb2::session_setup::SessionFlags;
use shoal_protocol::smb2::*;

use crate::harness::*;

async fn encrypting(host: &Host, dialect: Dialect, cipher: u16) -> Client {
    let mut client = host.connect();
    client.offer_ciphers = vec![cipher];
    client.negotiate(&[dialect]).await;
    client.login(USER, PASSWORD).await.unwrap();
    client.encrypt = true;
    client
}

#[tokio::test(start_paused = true)]
async fn every_cipher_carries_every_size() {
    let host = Host::new().await;
    for (dialect, cipher) in [
        (Dialect::Smb300, Cipher::Aes128Ccm),
        (Dialect::Smb302, Cipher::Aes128Ccm),
        (Dialect::Smb311, Cipher::Aes128Ccm),
        (Dialect::Smb311, Cipher::Aes128Gcm),
        (Dialect::Smb311, Cipher::Aes256Ccm),
        (Dialect::Smb311, Cipher::Aes256Gcm),
    ] {
        let mut client = encrypting(&host, dialect, cipher.id()).await;
        assert_eq!(client.cipher, Some(cipher));
        client.tree_connect("secret").await.unwrap();
        let file = client.open("file").await.unwrap();
        for size in [0usize, 1, 15, 16, 4095, 4096, 65_536, 200_000] {
            let data: Bytes = (0..size).map(|i| i as u8).collect();
            let header = client.header_for(Command::Write, size);
            let write = WriteRequest { file_id: file, data: data.clone(), ..WriteRequest::default() };
            client.send_with(header, &write.into()).await;
            assert_eq!(client.receive().await.0.status, NtStatus::SUCCESS);
            let header = client.header_for(Command::Read, size);
            let read = ReadRequest { file_id: file, length: size as u32, ..ReadRequest::default() };
            client.send_with(header, &read.into()).await;
            let (header, body) = client.receive().await;
            let Response::Read(read) = body else { panic!("{header:?}") };
            assert_eq!(read.data, data);
        }
        let chain = vec![
            (HeaderFlags::EMPTY, Request::from(create_request("file", 1))),
            (
                HeaderFlags::RELATED_OPERATIONS,
                ReadRequest { length: 100_000, ..ReadRequest::default() }.into(),
            ),
            (HeaderFlags::RELATED_OPERATIONS, CloseRequest { flags: 0, file_id: FileId::RELATED }.into()),
        ];
        client.send_chain(chain).await;
        for _ in 0..3 {
            let (header, _) = client.receive().await;
            // The READ asks for more than its one credit pays for.
            let expected =
                if header.command == Command::Read { NtStatus::INVALID_PARAMETER } else { NtStatus::SUCCESS };
            assert_eq!(header.status, expected);
        }
        // Data that is encrypted from where it lies has to come before the messages that follow it.
        let chain = vec![
            (HeaderFlags::EMPTY, Request::from(create_request("file", 1))),
            (
                HeaderFlags::RELATED_OPERATIONS,
                ReadRequest { length: 65_536, ..ReadRequest::default() }.into(),
            ),
            (
                HeaderFlags::RELATED_OPERATIONS,
                ReadRequest { offset: 1, length: 65_536, ..ReadRequest::default() }.into(),
            ),
        ];
        client.send_chain(chain).await;
        assert_eq!(client.receive().await.0.status, NtStatus::SUCCESS);
        for offset in [0, 1] {
            let (header, body) = client.receive().await;
            let Response::Read(read) = body else { panic!("{header:?}") };
            let expected: Bytes = (offset..offset + 65_536).map(|i| i as u8).collect();
            assert_eq!(read.data, expected);
        }
        client.hang_up().await;
    }
}

/// Attack 23: plain requests where only encrypted ones may come.
#[tokio::test(start_paused = true)]
async fn attack_23_plain_requests_are_refused() {
    // A share that must be encrypted.
    let host = Host::new().await;
    let mut client = host.logged_in().await;
    let tree = client.tree_connect("secret").await.unwrap();
    assert_ne!(tree.share_flags & TreeConnectResponse::ENCRYPT_DATA, 0);
    assert_eq!(client.status(create_request("x", 3)).await, NtStatus::ACCESS_DENIED);
    client.encrypt = true;
    let file = client.open("x").await.unwrap();
    client.encrypt = false;
    assert_eq!(client.status(FlushRequest { file_id: file }).await, NtStatus::ACCESS_DENIED);
    assert_eq!(client.status(TreeDisconnectRequest {}).await, NtStatus::ACCESS_DENIED);
    client.encrypt = true;
    assert_eq!(client.status(FlushRequest { file_id: file }).await, NtStatus::SUCCESS);
    // One who cannot encrypt.
    let mut client = host.connect();
    client.negotiate(&[Dialect::Smb210]).await;
    client.login(USER, PASSWORD).await.unwrap();
    assert_eq!(client.tree_connect("secret").await, Err(NtStatus::ACCESS_DENIED));

    // A server where everything is encrypted.
    let mut settings = settings();
    settings.encrypt = true;
    let host = Host::with(settings).await;
    for dialect in [Dialect::Smb202, Dialect::Smb210] {
        let mut client = host.connect();
        client.negotiate(&[dialect]).await;
        assert_eq!(client.login(USER, PASSWORD).await, Err(NtStatus::ACCESS_DENIED));
    }
    let mut client = host.negotiated().await;
    assert_eq!(client.login("nobody", "").await, Err(NtStatus::ACCESS_DENIED));
    let mut client = host.negotiated().await;
    let response = client.login(USER, PASSWORD).await.unwrap();
    assert_eq!(response.session_flags, SessionFlags::ENCRYPT_DATA);
    assert_eq!(client.tree_connect("share").await, Err(NtStatus::ACCESS_DENIED));
    client.encrypt = true;
    client.tree_connect("share").await.unwrap();
    client.encrypt = false;
    assert_eq!(client.status(create_request("x", 3)).await, NtStatus::ACCESS_DENIED);
    assert_eq!(client.status(LogoffRequest {}).await, NtStatus::ACCESS_DENIED);
}

/// Attack 23: transform headers that are wrong end the connection; nobody's keys open another's session.
#[tokio::test(start_paused = true)]
async fn attack_23_wrong_transforms_end_the_connection() {
    let host = Host::new().await;
    let echo = |client: &mut Client| {
        let header = client.header(Command::Echo);
        client.encode(header, &EchoRequest {}.into())
    };
    // Each byte of the header, one of the data, a cut, too long.
    for at in (0..52).chain([52, 100]) {
        let mut client = encrypting(&host, Dialect::Smb311, 2).await;
        let message = echo(&mut client);
        let mut sealed = client.seal(&message, client.session);
        sealed[at] ^= 0x10;
        // Reserved, and what the cipher leaves of the nonce, are authenticated too.
        client.send_frame(&sealed).await;
        client.expect_disconnect().await;
    }
    for length in [0usize, 4, 51, 52, 60, 115] {
        let mut client = encrypting(&host, Dialect::Smb311, 2).await;
        let message = echo(&mut client);
        let sealed = client.seal(&message, client.session);
        client.send_frame(&sealed[..length]).await;
        client.expect_disconnect().await;
    }
    // Another session's id, outside and inside.
    let mut victim = encrypting(&host, Dialect::Smb311, 2).await;
    victim.tree_connect("share").await.unwrap();
    let mut client = encrypting(&host, Dialect::Smb311, 2).await;
    let message = echo(&mut client);
    let sealed = client.seal(&message, victim.session);
    client.send_frame(&sealed).await;
    client.expect_disconnect().await;
    let mut client = encrypting(&host, Dialect::Smb311, 2).await;
    let own = client.session;
    client.session = victim.session;
    let message = echo(&mut client);
    let sealed = client.seal(&message, own);
    client.send_frame(&sealed).await;
    client.expect_disconnect().await;
    // Two sessions on one connection: a chain sealed by one does not reach into the other.
    let mut client = encrypting(&host, Dialect::Smb311, 2).await;
    client.encrypt = false;
    let (first, first_keys) = (client.session, client.keys.take());
    (client.session, client.sign) = (SessionId(0), false);
    client.login(OTHER, PASSWORD).await.unwrap();
    let second = client.session;
    client.session = first;
    let mut chain = BytesMut::new();
    for session in [first, second] {
        client.session = session;
        let start = chain.len();
        let header = client.header(Command::TreeConnect);
        client.sign = false;
        let mut message = client.encode(header, &tree_connect_request("share").into());
        if start == 0 {
            compound::link(&mut message, 0);
        }
        chain.unsplit(message);
    }
    client.keys = first_keys;
    let sealed = client.seal(&chain, first);
    client.send_frame(&sealed).await;
    assert_eq!(client.receive().await.0.status, NtStatus::SUCCESS);
    assert_eq!(client.receive().await.0.status, NtStatus::ACCESS_DENIED);
    // A guest has no keys to encrypt with.
    let mut client = host.negotiated().await;
    client.login("nobody", "").await.unwrap();
    let mut with_keys = encrypting(&host, Dialect::Smb311, 2).await;
    let message = echo(&mut with_keys);
    let sealed = with_keys.seal(&message, client.session);
    client.send_frame(&sealed).await;
    client.expect_disconnect().await;
    victim.echo().await;
    assert_eq!(host.server.counts().panics, 0);
}

/// Attack 23: no nonce comes twice, over several answers at once.
#[tokio::test(start_paused = true)]
async fn attack_23_nonces_never_repeat() {
    let host = Host::new().await;
    let mut client = encrypting(&host, Dialect::Smb311, 2).await;
    let mut seen = HashSet::new();
    let mut payload = BytesMut::new();
    for _ in 0..5_000 {
        payload.clear();
        let header = client.header(Command::Echo);
        let message = client.encode(header, &EchoRequest {}.into());
        let sealed = client.seal(&message, client.session);
        client.send_frame(&sealed).await;
        let nonce = client.receive_sealed().await;
        assert!(seen.insert(nonce));
    }
}
