//! `shoal serve` and the demo: from settings to ready lines, then signals and orders until the end.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal::Server;
use shoal::admin::{self, Answer, Order};
use shoal::config::{AdminSettings, LogFormat, Problem, Settings, reason};
use shoal::listener::Listener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::{Configuration, Failure};
use crate::{log, notify};

/// What is under way when the server is told to end has this long to finish; cutting off the rest takes half as long again at most,
/// and the promise is 5 s for everything.
const DRAIN: Duration = Duration::from_secs(3);

/// Characters of the demo's password: none that are taken for each other.
const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Reads the configuration anew.
type Reread = Box<dyn Fn() -> Result<(Settings, Vec<Problem>), Vec<Problem>>>;

/// `shoal serve`.
pub fn serve(configuration: Configuration) -> Result<(), Failure> {
    let (settings, warnings) =
        configuration.settings().map_err(|problems| Failure::configuration(&problems))?;
    log::start(settings.log_format)?;
    if let Some(file) = configuration.file() {
        tracing::info!(file = %file.display(), "configuration read");
    }
    warn(&warnings);
    run(settings, String::new(), Box::new(move || configuration.settings()))
}

/// `shoal` alone: a share in memory, and the command to reach it with, alone on a line before the ready line.
pub fn demo(log_format: LogFormat) -> Result<(), Failure> {
    log::start(log_format)?;
    let password = password();
    let admin = admin::default_socket().map(|path| AdminSettings { path, given: false });
    let settings = Settings { admin, ..Settings::demo(&password) };
    let address = settings.listen[0];
    let command = format!("smbclient //{}/demo -p {} -U demo%{password}\n", address.ip(), address.port());
    let kept = settings.clone();
    run(settings, command, Box::new(move || Ok((kept.clone(), Vec::new()))))
}

/// A fresh password of letters and digits, about 93 bits of it.
fn password() -> String {
    let mut password = String::new();
    while password.len() < 16 {
        let mut byte = [0];
        shoal_protocol::crypto::random(&mut byte);
        // Bytes beyond the last whole round of letters would make some letters likelier.
        if usize::from(byte[0]) < 256 / LETTERS.len() * LETTERS.len() {
            password.push(char::from(LETTERS[usize::from(byte[0]) % LETTERS.len()]));
        }
    }
    password
}

/// Runs a server until it is told to end. `announcement` goes to standard output before the ready lines.
fn run(settings: Settings, announcement: String, reread: Reread) -> Result<(), Failure> {
    match shoal_vfs::local::raise_descriptor_limit() {
        Ok(limit) => tracing::debug!(limit, "descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of descriptors stays as it is"),
    }
    // It listens, and carries out orders: where one of these hangs in a file system, the other thread accepts, and this
    // one has the signals. Who is accepted is served by threads of the server's own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::run_time(format!("no threads: {}", reason(&error))))?;
    let ended = runtime.block_on(supervise(settings, announcement, reread));
    // A call to a file system that hangs must not keep the program.
    runtime.shutdown_background();
    ended
}

async fn supervise(settings: Settings, announcement: String, reread: Reread) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::run_time(format!("signals: {}", reason(&error)));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;

    let (orders, mut ordered) = mpsc::channel(16);
    let admin = settings.admin.as_ref().map(bind_admin).transpose()?.flatten();
    let listen = settings.listen.clone();
    let server = Server::new(settings).await.map_err(Failure::run_time)?;
    let mut listeners = Vec::new();
    for address in listen {
        let listener =
            Listener::bind(address).map_err(|error| Failure::run_time(cannot_listen(address, &error)))?;
        listeners.push(listener);
    }

    let mut out = announcement;
    for listener in &listeners {
        out.push_str(&format!("shoal: listening on {}\n", listener.address()));
    }
    for listener in listeners {
        server.listen(listener);
    }
    let admin = admin.map(|listener| {
        let listener = Arc::new(listener);
        let (serving, server, orders) = (listener.clone(), server.clone(), orders.clone());
        let task = tokio::spawn(async move { serving.serve(server, orders).await });
        (listener, task)
    });
    // Nobody may be reading it any more: that is no reason to end.
    let _ = io::stdout().write_all(out.as_bytes()).and_then(|()| io::stdout().flush());
    notify::ready();

    loop {
        tokio::select! {
            () = either(&mut terminate, &mut interrupt) => break,
            _ = hangup.recv() => {
                reload(&server, &reread).await;
            }
            order = ordered.recv() => match order {
                Some(Order::Reload(told)) => {
                    let _ = told.send(reload(&server, &reread).await);
                }
                Some(Order::Stop) | None => break,
            }
        }
    }
    notify::stopping();
    tracing::info!("ending");
    tokio::select! {
        () = server.drain(DRAIN) => {}
        // Whoever asks twice does not want to wait.
        () = either(&mut terminate, &mut interrupt) => {}
    }
    if let Some((listener, task)) = admin {
        // The socket's file goes with the last of the two that hold the listener: it must be this one.
        task.abort();
        let _ = task.await;
        drop(listener);
    }
    Ok(())
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// The admin socket; none if it was not asked for by name and cannot be had.
fn bind_admin(settings: &AdminSettings) -> Result<Option<admin::Listener>, Failure> {
    match admin::Listener::bind(settings) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => {
            let what = format!("admin socket {}: {}", settings.path.display(), reason(&error));
            if settings.given {
                return Err(Failure::run_time(what));
            }
            tracing::warn!("{what}; going on without, --admin SOCKET names another");
            Ok(None)
        }
    }
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there; --listen names another address",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE; --listen names another address"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; --listen names another",
        _ => "--listen names another address",
    };
    format!("cannot listen on {address}: {}: {advice}", reason(error))
}

/// Reads the configuration again and puts it in force; the old one stays if the new one is wrong.
async fn reload(server: &Arc<Server>, reread: &Reread) -> Answer {
    notify::reloading();
    let answer = match reread() {
        Err(problems) => {
            for problem in &problems {
                tracing::error!("{problem}");
            }
            tracing::error!("the configuration is wrong; the old one stays");
            Answer::Configuration(problems.iter().map(Problem::to_string).collect())
        }
        Ok((mut settings, warnings)) => {
            warn(&warnings);
            let mut notes: Vec<String> = warnings.iter().map(Problem::to_string).collect();
            let now = server.settings.load_full();
            if !settings.server_guid_given {
                settings.server_guid = now.server_guid;
            }
            for what in settings.needs_restart(&now) {
                tracing::warn!("{what} changed, which waits for the next start");
                notes.push(format!("{what} changed, which waits for the next start"));
            }
            match server.reload(settings).await {
                Ok(()) => {
                    tracing::info!("configuration reloaded");
                    Answer::Done { notes }
                }
                Err(error) => {
                    tracing::error!("{error}; the old configuration stays");
                    Answer::Failed(format!("{error}; the old configuration stays"))
                }
            }
        }
    };
    notify::ready();
    answer
}

fn warn(warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}
