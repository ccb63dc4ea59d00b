//! Readiness, as systemd's `Type=notify` and `Type=notify-reload` units want it: a few words in a datagram to `$NOTIFY_SOCKET`
//! (sd_notify(3)). Nothing happens when there is no such socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The server serves.
pub fn ready() {
    send("READY=1");
}

/// The server ends.
pub fn stopping() {
    send("STOPPING=1");
}

/// The server reads its configuration again; [`ready`] must follow.
pub fn reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

fn send(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(socket = %path.display(), %error, "cannot notify the service manager");
    }
}
