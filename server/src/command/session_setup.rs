//! SMB2 SESSION_SETUP: 2.2.5 and 2.2.6; processing in 3.3.5.5.

use std::sync::Arc;

use shoal_protocol::NtStatus;
use shoal_protocol::auth::{Accepted, Acceptor, Identity, Step, TargetInfo};
use shoal_protocol::crypto::{self, GmacNonce, SessionKeys, SigningKey};
use shoal_protocol::smb2::SessionId;
use shoal_protocol::smb2::negotiate::{Dialect, SecurityMode};
use shoal_protocol::smb2::session_setup::{SessionFlags, SessionSetupRequest, SessionSetupResponse};
use tokio::time::Instant;

use super::negotiate::now;
use crate::config::{Settings, Signing};
use crate::connection::Negotiated;
use crate::context::Context;
use crate::reply::Reply;
use crate::state::session::{CipherKeys, Handshake, Keys, Session, SessionParts, User};
use crate::teardown;

/// Authentications that a connection may have under way. Clients do one at a time; some do two.
const HANDSHAKES_MAX: usize = 16;

/// Answers a SESSION_SETUP.
pub async fn handle(cx: &Context, request: SessionSetupRequest) -> Result<Reply, NtStatus> {
    let connection = &cx.connection;
    let negotiated = connection.negotiated().ok_or(NtStatus::INVALID_PARAMETER)?;
    let settings = cx.server.settings.load_full();
    // 3.3.5.5, 1 and 2: who cannot encrypt has no place where everything is.
    if settings.encrypt && negotiated.cipher.is_none() {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if request.flags & SessionSetupRequest::BINDING != 0 {
        return refuse_binding(cx, negotiated);
    }
    let existing = connection.session(cx.header.session_id);
    let (id, mut handshake) = take_handshake(cx, &settings, existing.is_some())?;
    cx.set_answer_session(id);
    if negotiated.dialect == Dialect::Smb311 {
        handshake.preauth.update(&cx.message);
    }
    let Handshake { acceptor, preauth, since } = *handshake;
    let mut challenge = [0; 8];
    crypto::random(&mut challenge);
    let accepted = match acceptor.step(&request.buffer, now(), challenge, &settings.users) {
        Step::Continue { acceptor, token } => {
            let handshake = Box::new(Handshake { acceptor, preauth, since });
            connection.handshakes.lock().insert(id, handshake);
            let response = SessionSetupResponse { session_flags: SessionFlags::EMPTY, buffer: token };
            return Ok(Reply::with_status(NtStatus::MORE_PROCESSING_REQUIRED, response));
        }
        Step::Failed(error) => {
            // A session that exists goes on: whoever fails to authenticate again has proven nothing, and may be anybody.
            let peer = connection.peer;
            tracing::info!(connection = connection.id, %peer, session = %id, "login failed: {error}");
            return Err(error.status());
        }
        Step::Done(accepted) => accepted,
    };
    let user = User { identity: accepted.identity.clone() };
    if settings.encrypt && !matches!(user.identity, Identity::User { .. }) {
        return Err(NtStatus::ACCESS_DENIED);
    }
    let session = match existing {
        Some(session) => {
            // 3.3.5.5.3: the session keeps its keys and everything that is open.
            session.reauthenticated(user, None);
            if session.is_closed() {
                return Err(NtStatus::USER_SESSION_DELETED);
            }
            session
        }
        None => {
            let preauth = (negotiated.dialect == Dialect::Smb311).then_some(preauth.value());
            let keys = keys(negotiated, &accepted, preauth);
            let session = new_session(cx, &settings, negotiated, &request, id, user, keys);
            cx.server.sessions.insert(id, session.clone());
            connection.insert_session(session.clone());
            if connection.is_ending() {
                // Its teardown may have looked before this was there.
                teardown::end_session(&cx.server, &session).await;
            }
            session
        }
    };
    tracing::info!(
        connection = connection.id,
        peer = %connection.peer,
        session = %id,
        user = session.user().name(),
        dialect = %negotiated.dialect,
        "logged in"
    );
    end_previous(cx, &session, request.previous_session_id).await;
    let user = session.user();
    let mut flags = SessionFlags::EMPTY;
    if user.is_guest() {
        flags |= SessionFlags::IS_GUEST;
    }
    if user.is_anonymous() {
        flags |= SessionFlags::IS_NULL;
    }
    if session.encrypt_data {
        flags |= SessionFlags::ENCRYPT_DATA;
    }
    // 3.3.5.5.3: the last answer of a 3.x client's login is signed, so that it can tell that both have the same keys.
    let sign = negotiated.dialect.is_3x() || session.signing_required;
    cx.set_session(session, sign);
    Ok(SessionSetupResponse { session_flags: flags, buffer: accepted.token }.into())
}

/// The state of the authentication that the header names: one under way, or a new one (for a new session, or an existing one).
fn take_handshake(
    cx: &Context,
    settings: &Settings,
    existing: bool,
) -> Result<(SessionId, Box<Handshake>), NtStatus> {
    let (connection, id) = (&cx.connection, cx.header.session_id);
    let (sessions, _) = connection.session_counts();
    let mut handshakes = connection.handshakes.lock();
    if let Some(handshake) = handshakes.remove(&id) {
        // An idle connection keeps nothing of its login.
        handshakes.shrink_to_fit();
        return Ok((id, handshake));
    }
    if id.0 != 0 && !existing {
        return Err(NtStatus::USER_SESSION_DELETED);
    }
    let now = Instant::now();
    handshakes.retain(|_, handshake| now - handshake.since < connection.settings.limits.negotiate_timeout);
    let limit = connection.settings.limits.sessions_per_connection;
    // One that the client has left in the middle makes room for the next.
    if handshakes.len() >= HANDSHAKES_MAX
        && let Some(oldest) =
            handshakes.iter().min_by_key(|(_, handshake)| handshake.since).map(|(id, _)| *id)
    {
        handshakes.remove(&oldest);
    }
    if !existing && sessions + handshakes.len() >= limit {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let id = if existing { id } else { cx.server.new_session_id() };
    let acceptor = Acceptor::new(target(settings));
    let preauth = connection.preauth.lock().clone();
    Ok((id, Box::new(Handshake { acceptor, preauth, since: now })))
}

fn target(settings: &Settings) -> TargetInfo {
    TargetInfo {
        netbios_computer: settings.server_name.clone(),
        netbios_domain: settings.netbios_domain.clone(),
        dns_computer: settings.server_name.to_lowercase(),
        dns_domain: String::new(),
    }
}

/// The keys of a new session: 3.3.5.5.3. A guest's and an anonymous user's are known to nobody or to everybody.
fn keys(negotiated: &Negotiated, accepted: &Accepted, preauth: Option<&[u8; 64]>) -> Option<Keys> {
    if !matches!(accepted.identity, Identity::User { .. }) {
        return None;
    }
    let key = &accepted.session_key[..];
    let keys = SessionKeys::derive(negotiated.dialect, negotiated.cipher, key, key, preauth);
    let cipher_keys =
        negotiated.cipher.map(|cipher| CipherKeys::new(cipher, keys.client_to_server, keys.server_to_client));
    Some(Keys {
        signing: SigningKey::new(negotiated.signing, &keys.signing),
        cipher_keys,
        application: keys.application,
    })
}

fn new_session(
    cx: &Context,
    settings: &Settings,
    negotiated: &Negotiated,
    request: &SessionSetupRequest,
    id: SessionId,
    user: User,
    keys: Option<Keys>,
) -> Arc<Session> {
    let encrypt_data = settings.encrypt && keys.as_ref().is_some_and(|keys| keys.cipher_keys.is_some());
    let asked = negotiated.client_security_mode.bits() | u16::from(request.security_mode);
    let asked = SecurityMode(asked).contains(SecurityMode::SIGNING_REQUIRED);
    let signing_required =
        keys.is_some() && !encrypt_data && (asked || settings.signing == Signing::Required);
    Arc::new(Session::new(SessionParts {
        id,
        server: Arc::downgrade(&cx.server),
        connection: Arc::downgrade(&cx.connection),
        user,
        keys,
        encrypt_data,
        signing_required,
        now: Instant::now(),
        expires: None,
    }))
}

/// PreviousSessionId: 3.3.5.5.3. A client that has lost its connection does not wait until we notice; but it ends only what
/// is its own.
async fn end_previous(cx: &Context, session: &Session, previous: SessionId) {
    if previous.0 == 0 || previous == session.id {
        return;
    }
    let found = cx.server.sessions.get(&previous).map(|entry| entry.value().clone());
    if let Some(previous) = found
        && previous.user().is_same(&session.user())
    {
        teardown::end_session(&cx.server, &previous).await;
    }
}

/// A session of another connection is to get this one as a channel. There is one channel a session for now: 3.3.5.5, 4 is
/// for servers that have more. The refusal is signed if the request proves that it may know of the session.
fn refuse_binding(cx: &Context, negotiated: &Negotiated) -> Result<Reply, NtStatus> {
    let id = cx.header.session_id;
    let session = cx.server.sessions.get(&id).map(|entry| entry.value().clone());
    let session = session.ok_or(NtStatus::USER_SESSION_DELETED)?;
    if negotiated.dialect.is_3x() && !cx.header.is_signed() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if let Some(keys) = session.keys()
        && cx.header.is_signed()
    {
        if !keys.signing.verify(&cx.message, GmacNonce::request(&cx.header)) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        cx.set_signer(session);
    }
    Err(NtStatus::REQUEST_NOT_ACCEPTED)
}
