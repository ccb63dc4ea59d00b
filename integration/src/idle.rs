//! Ten thousand clients that are logged in and do nothing: what each costs the server, and that nobody is forgotten.
//!
//! After they have come a client that is new is served, every one of them is answered, and a thousand of them work at once.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use shoal_protocol::smb2::{EchoRequest, Request};
use tokio::task::JoinSet;

use crate::checks::{Checks, Failure, demand};
use crate::client::{Client, Trouble, create};
use crate::scratch::Scratch;
use crate::server::{PASSWORD, Server, USER};
use crate::usage::Memory;

/// `cargo integration idle`.
#[derive(clap::Args)]
pub struct Options {
    /// How many clients log in and stay
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// How many of them work at once afterwards
    #[arg(long, default_value_t = 1_000)]
    active: usize,
    /// What a client that does nothing may take of the server's memory, in bytes; 0: whatever it takes
    #[arg(long, default_value_t = 8192)]
    bytes_max: u64,
}

impl Options {
    /// A small crowd, for the run of all checks.
    pub fn short() -> Options {
        Options { connections: 1_000, active: 100, bytes_max: 0 }
    }
}

/// Clients that log in, or are asked for an answer, at a time.
const AT_ONCE: usize = 64;
/// Files that each active client makes and removes.
const FILES: usize = 10;
/// By then the server has given back the buffers of who says nothing.
const SETTLED: Duration = Duration::from_secs(7);
/// What an idle server may take.
const SERVER_MAX: u64 = 8 << 20;

const FILE_CREATE: u32 = 2;
const DELETE_ON_CLOSE: u32 = 0x1040;
const DELETE_AND_WRITE: u32 = 0x0013_0196;

/// `cargo integration idle`.
pub fn run(checks: &mut Checks, options: &Options) {
    if let Err(why) = raise_limit(options.connections as u64 + 256) {
        return checks.record("idle: descriptors", Err(why));
    }
    let scratch = Scratch::new("idle");
    let mut server = match Server::start(scratch.path(), &["memory=memory:".to_owned()]) {
        Ok(server) => server,
        Err(why) => return checks.record("idle: server", Err(why)),
    };
    let mut figures = String::new();
    let what = format!("idle: {} clients stay, {} of them work", options.connections, options.active);
    checks.check(&what, || {
        figures = crowd(&server, options)?;
        server.must_run()?;
        server.must_not_have_panicked()
    });
    checks.note(&figures);
    checks.check("idle: the server ends at SIGTERM", || server.stop());
}

/// Lets this process have so many descriptors.
fn raise_limit(wanted: u64) -> Result<(), Failure> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        return Err(format!("{wanted} descriptors are needed; `ulimit -Hn` gives {:?}", limit.maximum));
    }
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        setrlimit(Resource::Nofile, limit).map_err(|e| format!("{wanted} descriptors: {e}"))?;
    }
    Ok(())
}

/// All of it; the figures for the log.
#[tokio::main]
async fn crowd(server: &Server, options: &Options) -> Result<String, Failure> {
    let before = server.processes().memory()?;
    let mut idle = Vec::with_capacity(options.connections);
    while idle.len() < options.connections {
        let batch = (options.connections - idle.len()).min(AT_ONCE);
        let mut logins = JoinSet::new();
        for _ in 0..batch {
            logins.spawn(log_in(server.address));
        }
        while let Some(client) = logins.join_next().await {
            let number = idle.len();
            idle.push(ended(client)?.map_err(|e| format!("client {number}: {e}"))?);
        }
    }
    tokio::time::sleep(SETTLED).await;
    let after = server.processes().memory()?;

    // Who comes now is served, and so are all who have waited.
    let mut late = log_in(server.address).await.map_err(|e| format!("a client that comes late: {e}"))?;
    work(&mut late, "late").await.map_err(|e| format!("a client that comes late: {e}"))?;
    let idle = each(idle, |_, mut client| async move {
        client.call(&Request::Echo(EchoRequest {})).await?;
        Ok(client)
    })
    .await
    .map_err(|why| format!("ECHO: {why}"))?;

    let mut active = JoinSet::new();
    let mut idle = idle.into_iter();
    for (number, mut client) in idle.by_ref().take(options.active).enumerate() {
        active.spawn(async move {
            work(&mut client, &format!("client-{number}")).await.map_err(|e| format!("client {number}: {e}"))
        });
    }
    while let Some(worked) = active.join_next().await {
        ended(worked)??;
    }
    let with_work = server.processes().memory()?;
    judge(options, before, after, with_work)
}

fn judge(options: &Options, before: Memory, after: Memory, with_work: Memory) -> Result<String, Failure> {
    let each = after.proportional.saturating_sub(before.proportional) / options.connections.max(1) as u64;
    let figures = format!(
        "idle: the server alone {} KiB resident ({} KiB proportional), {each} bytes for each of {} clients, {} KiB \
         after {} of them have worked at once",
        before.resident / 1024,
        before.proportional / 1024,
        options.connections,
        with_work.resident / 1024,
        options.active
    );
    if options.bytes_max != 0 {
        demand(each <= options.bytes_max, || {
            format!("{figures}: more than {} bytes for a client", options.bytes_max)
        })?;
        demand(before.proportional <= SERVER_MAX, || {
            format!("{figures}: more than {} KiB for the server alone", SERVER_MAX / 1024)
        })?;
    }
    Ok(figures)
}

async fn log_in(address: SocketAddr) -> Result<Client, Trouble> {
    let mut client = Client::connect(address).await?;
    client.login(USER, PASSWORD, "memory").await?;
    Ok(client)
}

/// Makes files, asks after each of them by an ECHO, and has them go.
async fn work(client: &mut Client, name: &str) -> Result<(), Trouble> {
    for number in 0..FILES {
        let request = create(&format!("{name}-{number}"), DELETE_AND_WRITE, FILE_CREATE, DELETE_ON_CLOSE);
        let made = client.create(request).await?;
        client.call(&Request::Echo(EchoRequest {})).await?;
        client.close(made.file_id).await?;
    }
    Ok(())
}

/// Has each client do something, so many at a time.
async fn each<F>(clients: Vec<Client>, f: impl Fn(usize, Client) -> F) -> Result<Vec<Client>, Failure>
where
    F: Future<Output = Result<Client, Trouble>> + Send + 'static,
{
    let mut done = Vec::with_capacity(clients.len());
    let mut tasks = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        tasks.spawn(f(number, client));
        if tasks.len() >= AT_ONCE
            && let Some(client) = tasks.join_next().await
        {
            done.push(ended(client)?.map_err(|e| e.to_string())?);
        }
    }
    while let Some(client) = tasks.join_next().await {
        done.push(ended(client)?.map_err(|e| e.to_string())?);
    }
    Ok(done)
}

fn ended<T>(task: Result<T, tokio::task::JoinError>) -> Result<T, Failure> {
    task.map_err(|e| format!("a client: {e}"))
}
