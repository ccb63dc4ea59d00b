//! NEGOTIATE in every dialect and every wrong way: MS-SMB2 3.3.5.3 and 3.3.5.4.

use bytes::{BufMut, Bytes, BytesMut};
use shoal_protocol::NtStatus;
use shoal_protocol::crypto::{Cipher, SigningAlgorithm};
use shoal_protocol::smb1;
use shoal_protocol::smb2::header::{Command, Header};
use shoal_protocol::smb2::negotiate::{Capabilities, Dialect, NegotiateContext, SecurityMode};
use shoal_protocol::smb2::*;

use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn every_dialect_serves() {
    let host = Host::new().await;
    for dialect in Dialect::ALL {
        let mut client = host.connect();
        let response = client.negotiate(&[dialect]).await;
        assert_eq!(response.dialect_revision, dialect as u16);
        assert!(response.security_mode.contains(SecurityMode::SIGNING_REQUIRED));
        let size = if dialect == Dialect::Smb202 { 65536 } else { 8 << 20 };
        assert_eq!(
            (response.max_transact_size, response.max_read_size, response.max_write_size),
            (size, size, size)
        );
        assert_eq!(response.capabilities.contains(Capabilities::LARGE_MTU), dialect > Dialect::Smb202);
        let unwanted = Capabilities::MULTI_CHANNEL | Capabilities::LEASING | Capabilities::PERSISTENT_HANDLES;
        assert!(!response.capabilities.intersects(unwanted), "{:?}", response.capabilities);
        client.login(USER, PASSWORD).await.unwrap();
        let tree = client.tree_connect("SHARE").await.unwrap();
        assert_eq!((tree.share_type, tree.maximal_access.bits()), (TreeConnectResponse::DISK, 0x001F_01FF));
        client.echo().await;
        client.hang_up().await;
    }
    assert!(host.server.connections.is_empty() && host.server.sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_greatest_common_dialect_is_chosen() {
    let mut settings = settings();
    settings.dialects = (Dialect::Smb210, Dialect::Smb302);
    let host = Host::with(settings).await;
    let mut client = host.connect();
    assert_eq!(client.negotiate(&Dialect::ALL).await.dialect_revision, 0x0302);
    let mut client = host.connect();
    let request = client.negotiate_request(&[Dialect::Smb202, Dialect::Smb311]);
    assert_eq!(client.status(request).await, NtStatus::NOT_SUPPORTED);
    let request = NegotiateRequest { dialects: vec![], ..client.negotiate_request(&[]) };
    assert_eq!(client.status(request).await, NtStatus::INVALID_PARAMETER);
    // Nothing was settled by those.
    assert_eq!(client.negotiate(&[Dialect::Smb210]).await.dialect_revision, 0x0210);
}

#[tokio::test(start_paused = true)]
async fn contexts_choose_signing_and_cipher() {
    let host = Host::new().await;
    type Row = (&'static [u16], &'static [u16], SigningAlgorithm, Option<Cipher>);
    let table: [Row; 6] = [
        (&[0, 1, 2], &[1, 2], SigningAlgorithm::AesGmac, Some(Cipher::Aes128Ccm)),
        (&[0, 1], &[4, 2], SigningAlgorithm::AesCmac, Some(Cipher::Aes256Gcm)),
        (&[0], &[3], SigningAlgorithm::HmacSha256, Some(Cipher::Aes256Ccm)),
        (&[], &[2], SigningAlgorithm::AesCmac, Some(Cipher::Aes128Gcm)),
        (&[77, 2], &[99], SigningAlgorithm::AesGmac, None),
        (&[1], &[], SigningAlgorithm::AesCmac, None),
    ];
    for (signing, ciphers, expect_signing, expect_cipher) in table {
        let mut client = host.connect();
        (client.offer_signing, client.offer_ciphers) = (signing.to_vec(), ciphers.to_vec());
        let response = client.negotiate(&[Dialect::Smb311]).await;
        assert_eq!((client.signing, client.cipher), (expect_signing, expect_cipher));
        assert_eq!(
            response.contexts.len(),
            1 + usize::from(!signing.is_empty()) + usize::from(!ciphers.is_empty())
        );
        client.login(USER, PASSWORD).await.unwrap();
        client.tree_connect("share").await.unwrap();
        client.encrypt = expect_cipher.is_some();
        client.echo().await;
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_contexts_are_refused() {
    let host = Host::new().await;
    let mut client = host.connect();
    let good = client.negotiate_request(&[Dialect::Smb311]);
    let with = |change: &dyn Fn(&mut Vec<NegotiateContext>)| {
        let mut request = good.clone();
        change(&mut request.contexts);
        request
    };
    let without = with(&|contexts| drop(contexts.remove(0)));
    let twice = with(&|contexts| contexts.push(contexts[1].clone()));
    let other_hash = with(&|contexts| {
        contexts[0] = NegotiateContext::PreauthIntegrity { hash_algorithms: vec![7], salt: Bytes::new() };
    });
    let unknown = with(&|contexts| {
        contexts.push(NegotiateContext::Other { kind: 0x100, data: Bytes::from_static(b"?") });
        contexts.push(NegotiateContext::Compression { flags: 1, algorithms: vec![1, 2, 3] });
    });
    assert_eq!(client.status(without).await, NtStatus::INVALID_PARAMETER);
    assert_eq!(client.status(twice).await, NtStatus::INVALID_PARAMETER);
    assert_eq!(client.status(other_hash).await, NtStatus::SMB_NO_PREAUTH_INTEGRITY_HASH_OVERLAP);
    let (_, Response::Negotiate(response)) = client.call(unknown).await else { panic!() };
    assert!(response.contexts.iter().all(|context| !matches!(context, NegotiateContext::Compression { .. })));
}

#[tokio::test(start_paused = true)]
async fn smb1_leads_upwards() {
    let host = Host::new().await;
    let send = |dialects: &[&'static [u8]]| {
        let mut payload = BytesMut::new();
        let dialects = dialects.iter().map(|dialect| Bytes::from_static(dialect)).collect();
        smb1::NegotiateRequest { dialects }.encode(&mut payload);
        payload
    };
    // The wildcard: once more, with SMB2.
    let mut client = host.connect();
    client.send_frame(&send(&[b"NT LM 0.12", smb1::SMB_2_002, smb1::SMB_2_WILDCARD])).await;
    let (header, Response::Negotiate(response)) = client.receive().await else { panic!() };
    assert_eq!((header.message_id, header.credits), (MessageId(0), 1));
    assert_eq!(response.dialect_revision, Dialect::WILDCARD);
    client.next_message = 1;
    client.negotiate(&Dialect::ALL).await;
    client.login(USER, PASSWORD).await.unwrap();
    client.echo().await;
    // Only 2.0.2.
    let mut client = host.connect();
    client.send_frame(&send(&[smb1::SMB_2_002])).await;
    let (_, Response::Negotiate(response)) = client.receive().await else { panic!() };
    assert_eq!(response.dialect_revision, 0x0202);
    client.next_message = 1;
    client.dialect = Dialect::Smb202;
    client.signing = SigningAlgorithm::HmacSha256;
    client.login(USER, PASSWORD).await.unwrap();
    client.echo().await;
    // None of ours; and SMB1 where it does not belong.
    let mut client = host.connect();
    client.send_frame(&send(&[b"NT LM 0.12"])).await;
    client.expect_disconnect().await;
    let mut client = host.negotiated().await;
    client.send_frame(&send(&[smb1::SMB_2_WILDCARD])).await;
    client.expect_disconnect().await;
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_connection() {
    let host = Host::new().await;
    // A second NEGOTIATE, alone or in one chain with the first.
    let mut client = host.negotiated().await;
    let request = client.negotiate_request(&Dialect::ALL);
    client.send(request.clone()).await;
    client.expect_disconnect().await;
    // Anything before NEGOTIATE.
    let mut client = host.connect();
    client.send(EchoRequest {}).await;
    client.expect_disconnect().await;
    // Not SMB at all, a NetBIOS session request, a compressed message, a response, too short.
    let mut header = BytesMut::new();
    Header::request(Command::Echo).encode(&mut header);
    let mut response = header.clone();
    response[Header::FLAGS_AT] |= 1;
    let mut compressed = BytesMut::zeroed(64);
    compressed[..4].copy_from_slice(b"\xFCSMB");
    for payload in [&b"GET / HTTP/1.1\r\n\r\n"[..], &compressed, &response, &header[..40], b""] {
        let mut client = host.negotiated().await;
        client.send_frame(payload).await;
        client.expect_disconnect().await;
    }
    let mut client = host.connect();
    client.send_bytes(&[0x81, 0, 0, 68]).await;
    client.expect_disconnect().await;
    // A chain whose links lead nowhere.
    for next in [4u32, 60, 65, 72, 0xFFFF_FFF8] {
        let mut client = host.negotiated().await;
        let mut payload = header.clone();
        payload[Header::NEXT_COMMAND_AT..][..4].copy_from_slice(&next.to_le_bytes());
        payload.put_bytes(0, 4);
        client.send_frame(&payload).await;
        client.expect_disconnect().await;
    }
    // A command that does not exist is a small matter.
    let mut client = host.negotiated().await;
    let mut unknown = header.clone();
    (unknown[12], unknown[24]) = (0x13, 1);
    client.send_frame(&unknown).await;
    let payload = client.receive_frame().await.unwrap();
    let (header, number) = Header::parse_unknown(&payload).unwrap();
    assert_eq!((header.status, number), (NtStatus::INVALID_PARAMETER, 0x13));
    client.next_message += 1;
    client.echo().await;
    let counts = host.server.counts();
    assert_eq!(counts.misbehaved["negotiated-twice"], 1);
    assert_eq!(counts.misbehaved["not-negotiated"], 1);
    assert_eq!(counts.misbehaved["protocol"], 3);
    assert_eq!(counts.panics, 0);
}
