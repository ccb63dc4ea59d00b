//! SMB2 NEGOTIATE: 2.2.3 and 2.2.4; processing in 3.3.5.4, and in 3.3.5.3 for a client that begins with SMB1.
//!
//! Here, once, the dialect becomes a value of choices ([`Negotiated`]): nobody asks for it again to know how to sign.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use shoal_protocol::NtStatus;
use shoal_protocol::auth::Acceptor;
use shoal_protocol::crypto::{self, Cipher, SigningAlgorithm};
use shoal_protocol::dtyp::{FileTime, Guid};
use shoal_protocol::smb1;
use shoal_protocol::smb2::header::{Command, Header, HeaderFlags};
use shoal_protocol::smb2::negotiate::{
    Capabilities, Dialect, NegotiateContext, NegotiateRequest, NegotiateResponse, SecurityMode,
};
use shoal_protocol::smb2::{MessageId, Response};

use crate::Server;
use crate::config::{Settings, Signing};
use crate::connection::{Connection, Negotiated};
use crate::context::Context;
use crate::misbehaved::Misbehaved;
use crate::reply::{Reply, ReplyFrame};

/// SHA-512, the only hash of the preauthentication integrity: 2.2.3.1.1.
const SHA_512: u16 = 0x0001;
/// Bytes of our salt.
const SALT: usize = 32;
/// The sizes of a dialect without multi-credit requests: 3.3.5.4.
const SMALL: u32 = 65_536;

/// Answers a NEGOTIATE. That it is the first has been seen by `receive`.
pub async fn handle(cx: &Context, request: NegotiateRequest) -> Result<Reply, NtStatus> {
    let connection = &cx.connection;
    let settings = &connection.settings;
    if request.dialects.is_empty() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let dialect = settings.greatest_common(&request.dialects).ok_or(NtStatus::NOT_SUPPORTED)?;
    let mut contexts = Vec::new();
    let (signing, cipher) = match dialect {
        Dialect::Smb202 | Dialect::Smb210 => (SigningAlgorithm::HmacSha256, None),
        Dialect::Smb300 | Dialect::Smb302 => {
            let can = request.capabilities.contains(Capabilities::ENCRYPTION);
            (SigningAlgorithm::AesCmac, can.then_some(Cipher::Aes128Ccm))
        }
        Dialect::Smb311 => negotiate_contexts(&request.contexts, &mut contexts)?,
    };
    let mut capabilities = Capabilities::EMPTY;
    if dialect >= Dialect::Smb210 {
        capabilities |= Capabilities::LARGE_MTU;
    }
    if cipher.is_some() && dialect < Dialect::Smb311 {
        capabilities |= Capabilities::ENCRYPTION;
    }
    let negotiated = Negotiated {
        client_guid: request.client_guid,
        client_capabilities: request.capabilities,
        client_security_mode: request.security_mode,
        client_dialects: request.dialects,
        capabilities,
        signing,
        cipher,
        ..choices(settings, dialect)
    };
    if dialect == Dialect::Smb311 {
        connection.preauth.lock().update(&cx.message);
    }
    let response = response(settings, &negotiated, contexts);
    if connection.negotiated.set(negotiated).is_err() {
        // Another NEGOTIATE in the same chain.
        connection.misbehaved(Misbehaved::NegotiatedTwice);
        return Err(NtStatus::INVALID_PARAMETER);
    }
    Ok(response.into())
}

/// A client that begins with SMB1: 3.3.5.3. One that knows "SMB 2.???" comes back with an SMB2 NEGOTIATE; one that knows no more
/// than "SMB 2.002" gets that.
pub(crate) fn multi_protocol(
    server: &Arc<Server>,
    connection: &Arc<Connection>,
    payload: &Bytes,
) -> Result<(), Misbehaved> {
    let request = smb1::NegotiateRequest::parse(payload).map_err(|_| Misbehaved::Smb1)?;
    let settings = &connection.settings;
    // The SMB1 message stands for the message id 0, which can be used once.
    connection.window.lock().receive(MessageId(0), 1).map_err(|_| Misbehaved::SequenceOutsideWindow)?;
    let negotiated = if request.offers_smb_2_wildcard() && settings.dialects.1 > Dialect::Smb202 {
        connection.multi_protocol.store(true, Ordering::Relaxed);
        choices(settings, Dialect::Smb210)
    } else if request.offers_smb_2_002() && settings.dialects.0 == Dialect::Smb202 {
        choices(settings, Dialect::Smb202)
    } else {
        return Err(Misbehaved::Smb1);
    };
    let mut response = response(settings, &negotiated, Vec::new());
    if connection.multi_protocol.load(Ordering::Relaxed) {
        response.dialect_revision = Dialect::WILDCARD;
    } else {
        // `receive` saw that nothing was negotiated, and it is the only one that runs.
        let _ = connection.negotiated.set(negotiated);
    }
    connection.metrics.count(Command::Negotiate);
    let mut header = Header::request(Command::Negotiate);
    header.flags = HeaderFlags::SERVER_TO_REDIR;
    header.credit_charge = 0;
    header.credits = connection.window.lock().grant(1);
    let mut frame = ReplyFrame::new(None);
    frame.push(header, Command::Negotiate as u16, &Response::Negotiate(response), None);
    if let Some(frame) = frame.take() {
        connection.outbox.push(frame);
    }
    tracing::debug!(server = %server.settings.load().server_name, "multi-protocol negotiate");
    Ok(())
}

/// What a dialect alone decides.
fn choices(settings: &Settings, dialect: Dialect) -> Negotiated {
    let limits = &settings.limits;
    let multi_credit = dialect >= Dialect::Smb210;
    let size = |most: u32| if multi_credit { most } else { SMALL.min(most) };
    let required = match settings.signing {
        Signing::Required => SecurityMode::SIGNING_REQUIRED,
        Signing::Enabled => SecurityMode::EMPTY,
    };
    Negotiated {
        dialect,
        client_guid: Guid::default(),
        client_capabilities: Capabilities::EMPTY,
        client_security_mode: SecurityMode::EMPTY,
        client_dialects: Vec::new(),
        capabilities: if multi_credit { Capabilities::LARGE_MTU } else { Capabilities::EMPTY },
        security_mode: SecurityMode::SIGNING_ENABLED | required,
        signing: SigningAlgorithm::HmacSha256,
        cipher: None,
        multi_credit,
        max_transact_size: size(limits.max_transact_size),
        max_read_size: size(limits.max_read_size),
        max_write_size: size(limits.max_write_size),
    }
}

fn response(
    settings: &Settings,
    negotiated: &Negotiated,
    contexts: Vec<NegotiateContext>,
) -> NegotiateResponse {
    NegotiateResponse {
        security_mode: negotiated.security_mode,
        dialect_revision: negotiated.dialect as u16,
        server_guid: settings.server_guid,
        capabilities: negotiated.capabilities,
        max_transact_size: negotiated.max_transact_size,
        max_read_size: negotiated.max_read_size,
        max_write_size: negotiated.max_write_size,
        system_time: now(),
        // 3.3.5.4: "ServerStartTime SHOULD be set to zero".
        server_start_time: FileTime::ZERO,
        buffer: Acceptor::hint(),
        contexts,
    }
}

/// The contexts of 3.1.1: what the client offers becomes what we choose. Everything but these three is passed over: what
/// we do not have is not answered.
fn negotiate_contexts(
    offered: &[NegotiateContext],
    answered: &mut Vec<NegotiateContext>,
) -> Result<(SigningAlgorithm, Option<Cipher>), NtStatus> {
    let mut preauth = None;
    let mut encryption = None;
    let mut signing = None;
    for context in offered {
        // 3.3.5.4: more than one of a kind fails the request.
        let twice = match context {
            NegotiateContext::PreauthIntegrity { hash_algorithms, .. } => {
                preauth.replace(hash_algorithms).is_some()
            }
            NegotiateContext::Encryption { ciphers } => encryption.replace(ciphers).is_some(),
            NegotiateContext::Signing { algorithms } => signing.replace(algorithms).is_some(),
            _ => false,
        };
        if twice {
            return Err(NtStatus::INVALID_PARAMETER);
        }
    }
    let hashes = preauth.ok_or(NtStatus::INVALID_PARAMETER)?;
    if !hashes.contains(&SHA_512) {
        return Err(NtStatus::SMB_NO_PREAUTH_INTEGRITY_HASH_OVERLAP);
    }
    let mut salt = [0; SALT];
    crypto::random(&mut salt);
    answered.push(NegotiateContext::PreauthIntegrity {
        hash_algorithms: vec![SHA_512],
        salt: Bytes::copy_from_slice(&salt),
    });
    let mut cipher = None;
    if let Some(ciphers) = encryption {
        // The client's order: it knows what its processor is good at, and ours does them all.
        cipher = ciphers.iter().find_map(|id| Cipher::try_from(*id).ok());
        let chosen = cipher.map_or(0, Cipher::id);
        answered.push(NegotiateContext::Encryption { ciphers: vec![chosen] });
    }
    let mut algorithm = SigningAlgorithm::AesCmac;
    if let Some(algorithms) = signing {
        let ours = [SigningAlgorithm::AesGmac, SigningAlgorithm::AesCmac, SigningAlgorithm::HmacSha256];
        if let Some(chosen) = ours.into_iter().find(|ours| algorithms.contains(&ours.id())) {
            algorithm = chosen;
        }
        answered.push(NegotiateContext::Signing { algorithms: vec![algorithm.id()] });
    }
    Ok((algorithm, cipher))
}

/// The time, as the wire has it.
pub(crate) fn now() -> FileTime {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => FileTime::from_unix(since.as_secs() as i64, since.subsec_nanos()),
        Err(_) => FileTime::ZERO,
    }
}
