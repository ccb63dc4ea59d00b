//! The end of sessions and tree connects, however it comes: LOGOFF (MS-SMB2 3.3.5.6), TREE_DISCONNECT (3.3.5.8),
//! PreviousSessionId (3.3.5.5.3), the end of a connection (3.3.7.1), the administrator.
//!
//! Always in this order: the mark is set, so that nothing can be added; the opens are closed, which ends the waits for
//! locks and notifications on them in their own way; what still waits is interrupted.

use std::sync::Arc;

use shoal_protocol::NtStatus;

use crate::Server;
use crate::command::close::close_open;
use crate::state::session::Session;
use crate::state::tree::TreeConnect;

/// Ends a session. The second to end it waits for nothing.
pub async fn end_session(server: &Arc<Server>, session: &Arc<Session>) {
    if !session.close() {
        return;
    }
    server.sessions.remove(&session.id);
    let connection = session.connection.upgrade();
    if let Some(connection) = &connection {
        connection.remove_session(session.id);
    }
    let trees = session.trees();
    for tree in &trees {
        tree.close();
    }
    for open in session.opens_of(None) {
        end_open(server, session, open).await;
    }
    for tree in trees {
        session.remove_tree(tree.id);
    }
    if let Some(connection) = &connection {
        connection.pending.interrupt(Some(session.id), None, NtStatus::USER_SESSION_DELETED);
    }
}

/// Ends a tree connect. The second to end it waits for nothing.
pub async fn end_tree(server: &Arc<Server>, session: &Arc<Session>, tree: &Arc<TreeConnect>) {
    if !tree.close() {
        return;
    }
    session.remove_tree(tree.id);
    for open in session.opens_of(Some(tree.id)) {
        end_open(server, session, open).await;
    }
    if let Some(connection) = session.connection.upgrade() {
        connection.pending.interrupt(Some(session.id), Some(tree.id), NtStatus::NETWORK_NAME_DELETED);
    }
}

async fn end_open(server: &Arc<Server>, session: &Session, open: Arc<crate::state::open::Open>) {
    let id = open.id;
    close_open(server, open).await;
    session.remove_open(id);
}
