//! The admin socket: who is connected and what is open, reload, stop, and the end of one session. Requests and answers are JSON, one object a
//! line, over a Unix socket of mode 0600; besides, only the server's own uid and root are answered.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::{Command, SessionId};
use shoal_vfs::NodeId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::Server;
use crate::config::{AdminSettings, dialect_name};
use crate::metrics::Counts;
use crate::state::open::{Object, Open};
use crate::state::session::Session;

/// Longest request line, in bytes.
const REQUEST_MAX: u64 = 4 << 10;

/// Longest answer that our client reads, in bytes.
const ANSWER_MAX: u64 = 64 << 20;

/// Most rows in each table of a status; the counts beside the tables are always whole.
const ROWS_MAX: usize = 10_000;

/// Callers answered at once.
const CALLERS_MAX: usize = 16;

/// How long a caller may take for its request, and the server for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a caller asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What is connected and open.
    Status,
    /// Read the configuration again.
    Reload,
    /// Drain and end.
    Stop,
    /// End a session.
    CloseSession {
        /// Its id: decimal, or hexadecimal with 0x.
        id: String,
    },
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done {
        /// What there is to say besides: warnings, one a line.
        notes: Vec<String>,
    },
    /// The answer to [`Request::Status`].
    Status(Box<Status>),
    /// The configuration is wrong and the old one stays: every mistake.
    Configuration(Vec<String>),
    /// It is not done, for this reason.
    Failed(String),
}

/// A running server, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Shoal's version.
    pub version: String,
    /// The server's process.
    pub pid: u32,
    /// How long it has run.
    pub uptime_seconds: u64,
    /// Connections, authenticated or not.
    pub connections: usize,
    /// How many sessions there are.
    pub session_count: usize,
    /// How many tree connects.
    pub tree_count: usize,
    /// How many opens.
    pub open_count: usize,
    /// How many byte-range locks.
    pub lock_count: usize,
    /// The sessions, the first 10,000.
    pub sessions: Vec<SessionStatus>,
    /// The tree connects, the first 10,000.
    pub trees: Vec<TreeStatus>,
    /// The opens, the first 10,000.
    pub opens: Vec<OpenStatus>,
    /// What has been counted since the start, by name.
    pub counters: BTreeMap<String, u64>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its id in hexadecimal, as `close-session` takes it.
    pub id: String,
    /// Who: empty for nobody.
    pub user: String,
    /// Where from.
    pub address: String,
    /// The connection's dialect.
    pub dialect: String,
    /// Whether its requests must be signed.
    pub signed: bool,
    /// Whether its requests must be encrypted.
    pub encrypted: bool,
    /// Its tree connects.
    pub trees: usize,
    /// Its opens.
    pub opens: usize,
    /// How long it has been there.
    pub seconds: u64,
}

/// A tree connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeStatus {
    /// Its session's id.
    pub session: String,
    /// Its id.
    pub id: u32,
    /// The share.
    pub share: String,
}

/// An open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenStatus {
    /// Its session's id.
    pub session: String,
    /// The share.
    pub share: String,
    /// What is open, from the share's root.
    pub path: String,
    /// The access that was granted, a mask in hexadecimal.
    pub access: String,
    /// Byte-range locks on the file, through whichever open.
    pub locks: usize,
}

/// What a caller wants of the program around the server.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again, and say how that went.
    Reload(oneshot::Sender<Answer>),
    /// Drain and end.
    Stop,
}

/// Where the admin socket is if nothing names a place: none for a user without a runtime directory.
pub fn default_socket() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/run/shoal/shoal.sock"));
    }
    let directory = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    directory.is_absolute().then(|| directory.join("shoal.sock"))
}

/// The admin socket of this server; its file goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file that is ours.
    file: (u64, u64),
}

impl Listener {
    /// Listens at `settings.path`. A socket that nobody answers at any more is replaced; one where another server answers never is
    /// (`AddrInUse`).
    pub fn bind(settings: &AdminSettings) -> io::Result<Listener> {
        let path = settings.path.clone();
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if !settings.given {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        // Two servers that start at once must not both find the old socket dead and take each other's away.
        let directory = File::open(directory)?;
        directory.lock()?;
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            Ok(_) => match StdStream::connect(&path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(&path)?,
                Ok(_) => {
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server answers there"));
                }
                Err(error) => return Err(error),
            },
        }
        // The mode must be right from the first moment. The mask is the process's: nothing else makes files this early.
        let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let socket = UnixListener::bind(&path);
        rustix::process::umask(mask);
        let socket = socket?;
        let made = fs::symlink_metadata(&path)?;
        Ok(Listener { socket, path, file: (made.dev(), made.ino()) })
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers callers for ever. What only the program can do goes to it as `orders`.
    pub async fn serve(&self, server: Arc<Server>, orders: mpsc::Sender<Order>) {
        let callers = Arc::new(Semaphore::new(CALLERS_MAX));
        loop {
            let turn = callers.clone().acquire_owned().await.expect("the semaphore is never closed");
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: that passes, and must not spin.
                    tracing::warn!(%error, "the admin socket cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (server, orders) = (server.clone(), orders.clone());
            tokio::spawn(async move {
                if let Err(error) = answer(stream, &server, &orders).await {
                    tracing::debug!(%error, "an admin caller went away");
                }
                drop(turn);
            });
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Reads one request and answers it.
async fn answer(
    mut stream: UnixStream,
    server: &Arc<Server>,
    orders: &mpsc::Sender<Order>,
) -> io::Result<()> {
    let caller = stream.peer_cred()?.uid();
    if caller != 0 && caller != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("uid {caller} may not ask")));
    }
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(REQUEST_MAX));
    timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let request = serde_json::from_str(&line);
    let stop = matches!(request, Ok(Request::Stop));
    let answer = match request {
        Ok(request) => carry_out(request, server, orders).await,
        Err(error) => Answer::Failed(format!("no such request: {error}")),
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    timeout(PATIENCE, writer.write_all(text.as_bytes())).await??;
    if stop {
        // If nobody takes the order any more, the server is ending.
        let _ = orders.send(Order::Stop).await;
    }
    Ok(())
}

async fn carry_out(request: Request, server: &Arc<Server>, orders: &mpsc::Sender<Order>) -> Answer {
    let ends = || Answer::Failed("the server is ending".to_owned());
    match request {
        Request::Status => {
            // A look at each of a million opens takes its time: not on a thread that serves.
            let server = server.clone();
            match tokio::task::spawn_blocking(move || status(&server)).await {
                Ok(status) => Answer::Status(Box::new(status)),
                Err(error) => Answer::Failed(error.to_string()),
            }
        }
        // The order is given once the answer has left: see `answer`.
        Request::Stop => Answer::Done { notes: vec![] },
        Request::Reload => {
            let (result, told) = oneshot::channel();
            if orders.send(Order::Reload(result)).await.is_err() {
                return ends();
            }
            told.await.unwrap_or_else(|_| ends())
        }
        Request::CloseSession { id } => match session_id(&id) {
            None => Answer::Failed(format!("\"{id}\" is no session id, as in 0x1f")),
            Some(number) if server.close_session(SessionId(number)).await => Answer::Done { notes: vec![] },
            Some(_) => Answer::Failed(format!("there is no session {id}")),
        },
    }
}

/// What is connected and open now. Clients come and go meanwhile: the tables need not fit each other to the last row.
fn status(server: &Server) -> Status {
    let sessions: Vec<Arc<Session>> = server.sessions.iter().map(|entry| entry.value().clone()).collect();
    let opens: Vec<Arc<Open>> = server.opens.iter().map(|entry| entry.value().clone()).collect();
    let mut trees = Vec::new();
    let mut tree_count = 0;
    for session in &sessions {
        tree_count += session.tree_count();
        let room = ROWS_MAX.saturating_sub(trees.len());
        trees.extend(session.trees().iter().take(room).map(|tree| TreeStatus {
            session: hexadecimal(session.id),
            id: tree.id.0,
            share: tree.share.name.clone(),
        }));
    }
    let mut locks_of: HashMap<NodeId, usize> = HashMap::new();
    for disk in opens.iter().filter_map(|open| open.disk().ok()) {
        locks_of.entry(disk.node().id()).or_insert_with(|| {
            disk.node().opens().stream(disk.stream).ranges().map_or(0, |ranges| ranges.len())
        });
    }
    let now = Instant::now();
    let mut rows: Vec<SessionStatus> =
        sessions.iter().take(ROWS_MAX).map(|session| session_row(session, now)).collect();
    rows.sort_by(|a, b| b.seconds.cmp(&a.seconds).then_with(|| a.id.cmp(&b.id)));
    trees.sort_by(|a, b| (&a.session, a.id).cmp(&(&b.session, b.id)));
    let mut open_rows: Vec<OpenStatus> =
        opens.iter().take(ROWS_MAX).map(|open| open_row(open, &locks_of)).collect();
    open_rows.sort_by(|a, b| (&a.share, &a.path).cmp(&(&b.share, &b.path)));
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: now.duration_since(server.started).as_secs(),
        connections: server.connections.len(),
        session_count: sessions.len(),
        tree_count,
        open_count: opens.len(),
        lock_count: locks_of.values().sum(),
        sessions: rows,
        trees,
        opens: open_rows,
        counters: counters(&server.counts()),
    }
}

fn session_row(session: &Session, now: Instant) -> SessionStatus {
    let connection = session.connection.upgrade();
    let dialect = connection.as_ref().and_then(|connection| connection.dialect());
    SessionStatus {
        id: hexadecimal(session.id),
        user: session.user().name().to_owned(),
        address: connection.map_or_else(String::new, |connection| connection.peer.to_string()),
        dialect: dialect.map_or_else(String::new, |dialect| dialect_name(dialect).to_owned()),
        signed: session.signing_required,
        encrypted: session.encrypt_data,
        trees: session.tree_count(),
        opens: session.open_count(),
        seconds: now.duration_since(session.created).as_secs(),
    }
}

fn open_row(open: &Open, locks_of: &HashMap<NodeId, usize>) -> OpenStatus {
    let (path, locks) = match &open.object {
        Object::Disk(disk) => {
            let names: Vec<String> = disk.link.path().iter().map(|name| name.to_string()).collect();
            (format!("\\{}", names.join("\\")), locks_of.get(&disk.node().id()).copied().unwrap_or(0))
        }
        Object::Pipe(pipe) => (format!("\\{}", pipe.name()), 0),
    };
    OpenStatus {
        session: open.session.upgrade().map_or_else(String::new, |session| hexadecimal(session.id)),
        share: open.tree.share.name.clone(),
        path,
        access: format!("{:#010x}", open.granted_access.bits()),
        locks,
    }
}

fn hexadecimal(id: SessionId) -> String {
    format!("{:#x}", id.0)
}

/// The counts that are not zero, by names in the manner of `requests.create` and `statuses.create.STATUS_ACCESS_DENIED`.
fn counters(counts: &Counts) -> BTreeMap<String, u64> {
    let name = |command: usize| match Command::ALL.get(command) {
        Some(command) => snake_case(&format!("{command:?}")),
        None => command.to_string(),
    };
    let mut named = BTreeMap::new();
    named.insert("connections.accepted".to_owned(), counts.connections);
    named.insert("connections.refused".to_owned(), counts.refused);
    named.insert("panics".to_owned(), counts.panics);
    for (command, count) in counts.requests.iter().enumerate() {
        named.insert(format!("requests.{}", name(command)), *count);
    }
    for ((command, status), count) in &counts.statuses {
        let status = NtStatus(*status);
        named.insert(format!("statuses.{}.{status}", name(usize::from(*command))), *count);
    }
    for (cause, count) in &counts.misbehaved {
        named.insert(format!("disconnects.{cause}"), *count);
    }
    named.retain(|_, count| *count != 0);
    named
}

/// `SessionSetup` as `session_setup`.
fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn session_id(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Asks the server at `path`, from a program that is not the server.
pub fn ask(path: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = StdStream::connect(path)?;
    // A reload opens shares, which may take its time.
    stream.set_read_timeout(Some(PATIENCE * 3))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut text = String::new();
    BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut text)?;
    if text.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up without an answer"));
    }
    Ok(serde_json::from_str(&text)?)
}
