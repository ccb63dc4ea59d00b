//! Accepting connections over TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tracing::Instrument;

use crate::Server;

/// The system's queue of connections that nobody has accepted yet.
const BACKLOG: u32 = 1024;
/// After an accept that failed: for want of descriptors or threads, most likely, and that passes.
const PAUSE: Duration = Duration::from_millis(50);

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens at `address`; a port 0 stands for any free one.
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        let socket = if address.is_ipv4() {
            tokio::net::TcpSocket::new_v4()?
        } else {
            tokio::net::TcpSocket::new_v6()?
        };
        // A server that starts again must not wait for its predecessor's connections to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Listener { socket, address })
    }

    /// The address that it really listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Server {
    /// Serves whoever comes to `listener`, on threads of the server's own ([`crate::loops`]), until it is drained.
    pub fn listen(self: &Arc<Self>, listener: Listener) {
        let server = self.clone();
        let span = tracing::info_span!("listener", address = %listener.address);
        tokio::spawn(async move { accept(server, listener).await }.instrument(span));
    }
}

async fn accept(server: Arc<Server>, listener: Listener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            () = server.stopped() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Err(error) = prepare(&stream) {
                    tracing::debug!(%peer, %error, "socket options");
                }
                if let Err(error) = hand_over(&server, stream, peer) {
                    tracing::warn!(%peer, %error, "cannot serve");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Gives a connection to one of the server's threads: from then on it is that thread's alone.
fn hand_over(server: &Arc<Server>, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    // Whoever waits for it has to be the thread that serves it.
    let stream = stream.into_std()?;
    let (thread, place) = server.loops.place()?;
    let server = server.clone();
    thread.spawn(async move {
        place.begin();
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                let (reader, writer) = stream.into_split();
                server.serve_halves(reader, writer, peer).await;
            }
            Err(error) => tracing::warn!(%peer, %error, "cannot serve"),
        }
    });
    Ok(())
}

/// Replies leave at once, and a peer that is gone without a word is found out.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    rustix::net::sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    rustix::net::sockopt::set_tcp_keepcnt(stream, 4)?;
    // Keepalive asks only while nothing is on its way. An answer that nobody acknowledges would be sent again for a
    // quarter of an hour, and all that time the peer's locks would stand. (TCP looks at this when it sends again, which
    // can be most of a minute later.)
    rustix::net::sockopt::set_tcp_user_timeout(stream, 120_000)?;
    Ok(())
}
