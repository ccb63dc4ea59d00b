//! `cargo integration load`.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::smbtorture::{self, Torture};
use super::{Directories, Limit, Mix, Outcome, Plan, Protection, prepare};
use crate::checks::{Checks, Failure, demand};
use crate::scratch::Scratch;
use crate::server::{PASSWORD, Server, USER};

/// `cargo integration load`.
#[derive(clap::Args)]
pub struct Options {
    /// The server, ADDR:PORT; without it a Shoal of our own is started, with a share in memory
    #[arg(long)]
    server: Option<SocketAddr>,
    /// The share
    #[arg(long, default_value = "memory")]
    share: String,
    /// The user
    #[arg(long, default_value = USER)]
    user: String,
    /// The user's password
    #[arg(long, default_value = PASSWORD)]
    password: String,
    /// How many clients
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// How many connections they share
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Operations that each client has under way at a time
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// echo, create, open-close, open-absent, rename, unlink, stat, list, read-4k|64k|1m, write-4k|64k|1m, untar or office
    #[arg(long, default_value = "create")]
    mix: Mix,
    /// All clients in one directory, or each in its own
    #[arg(long, value_enum, default_value = "one")]
    directory: Where,
    /// Files that stand in each directory already
    #[arg(long, default_value_t = 0)]
    names: usize,
    /// How long, in seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// So many operations instead
    #[arg(long, conflicts_with = "seconds")]
    operations: Option<u64>,
    /// plain, signed or encrypted
    #[arg(long, value_enum, default_value = "signed")]
    protection: Protection,
    /// Take the signatures of replies as they are
    #[arg(long)]
    no_verify: bool,
    /// So many smbtorture processes instead of our own client, each with its part of the connections
    #[arg(long, value_name = "N", conflicts_with_all = ["mix", "operations", "json"])]
    smbtorture: Option<usize>,
    /// The tests that they run
    #[arg(long, value_delimiter = ',', requires = "smbtorture", default_values_t = smbtorture::TESTS.map(String::from))]
    tests: Vec<String>,
    /// Write the result into this file
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Where {
    One,
    Many,
}

/// `cargo integration load`.
pub fn run(checks: &mut Checks, options: &Options) {
    if let Some(processes) = options.smbtorture {
        let torture = Torture {
            processes,
            tests: options.tests.clone(),
            seconds: options.seconds.ceil().clamp(1.0, 1e6) as u64,
            connections: (options.connections / processes.max(1)).max(1),
            depth: options.depth,
            server: options.server,
            share: &options.share,
            user: &options.user,
            password: &options.password,
        };
        return smbtorture::run(checks, &torture);
    }
    let name = format!(
        "load: {}, {} clients on {} connections, {} under way each",
        options.mix, options.clients, options.connections, options.depth
    );
    checks.check(&name, || with_server(options));
}

/// Every mix for a moment, on a directory and in memory, in each protection: nothing may go wrong.
pub fn functional(checks: &mut Checks) {
    const OPERATIONS: u64 = 400;
    let scratch = Scratch::new("load");
    let share = scratch.directory("share");
    let shares = ["memory=memory:".to_owned(), format!("share={}", share.display())];
    let server = settings(&scratch)
        .and_then(|settings| Server::start_with(scratch.path(), &shares, &["--config", &settings]));
    let mut server = match server {
        Ok(server) => server,
        Err(why) => return checks.record("load: server", Err(why)),
    };
    for (share, protection) in
        [("memory", Protection::Plain), ("share", Protection::Signed), ("memory", Protection::Encrypted)]
    {
        checks.check(&format!("load: every mix on {share}, {protection:?}"), || {
            let runtime = runtime(2)?;
            for mix in Mix::ALL {
                let operations = if mix.is_large() { OPERATIONS / 10 } else { OPERATIONS };
                let plan = Plan {
                    protection,
                    connections: 2,
                    clients: 5,
                    depth: 2,
                    directories: Directories::Many(2),
                    ..Plan::new(server.address, share, mix)
                };
                let outcome = runtime.block_on(measured(&plan, Limit::Operations(operations)));
                let outcome = outcome.map_err(|e| format!("{mix}: {e}"))?;
                demand(outcome.operations == operations && outcome.errors.is_empty(), || {
                    format!(
                        "{mix}: {} of {operations} operations; errors: {:?}",
                        outcome.operations, outcome.errors
                    )
                })?;
                demand(outcome.latencies.len() == operations, || format!("{mix}: latencies are lacking"))?;
            }
            server.must_run()?;
            server.must_not_have_panicked()
        });
    }
    checks.check("load: nothing is left on the share", || {
        let left = std::fs::read_dir(&share).map_err(|e| e.to_string())?.count();
        demand(left == 0, || format!("{left} names are left"))
    });
    checks.check("load: the server ends at SIGTERM", || server.stop());
}

/// A configuration that lets a plain load pass; a client that signs is signed to all the same.
pub fn settings(scratch: &Scratch) -> Result<String, Failure> {
    let settings = scratch.path().join("shoal.toml");
    std::fs::write(&settings, "[server]\nsigning = \"enabled\"\n").map_err(|e| e.to_string())?;
    Ok(settings.display().to_string())
}

fn with_server(options: &Options) -> Result<(), Failure> {
    if let Some(address) = options.server {
        return load(options, address);
    }
    let scratch = Scratch::new("load");
    let shares = [format!("{}=memory:", options.share)];
    let mut server = Server::start_with(scratch.path(), &shares, &["--config", &settings(&scratch)?])?;
    load(options, server.address)?;
    println!("server    {:>12} KiB resident", server.resident_kib()?);
    server.must_run()?;
    server.stop()
}

fn load(options: &Options, address: SocketAddr) -> Result<(), Failure> {
    let plan = Plan {
        user: options.user.clone(),
        password: options.password.clone(),
        protection: options.protection,
        connections: options.connections,
        clients: options.clients,
        depth: options.depth,
        directories: match options.directory {
            Where::One => Directories::One,
            Where::Many => Directories::Many(options.clients),
        },
        names: options.names,
        verify: !options.no_verify,
        ..Plan::new(address, &options.share, options.mix)
    };
    let limit = match options.operations {
        Some(count) => Limit::Operations(count),
        None => Limit::Time(Duration::from_secs_f64(options.seconds.clamp(0.001, 1e6))),
    };
    let outcome = runtime(plan.connections)?.block_on(measured(&plan, limit))?;
    print(&outcome);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&json(&plan, &outcome)).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
    }
    if outcome.operations == 0 { Err("no operation ended well".to_owned()) } else { Ok(()) }
}

/// A runtime with no more threads than there are connections to drive.
pub fn runtime(connections: usize) -> Result<tokio::runtime::Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(connections.clamp(1, cores))
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start a runtime: {e}"))
}

async fn measured(plan: &Plan, limit: Limit) -> Result<Outcome, Failure> {
    let mut prepared = prepare(plan).await.map_err(|e| e.to_string())?;
    let watch = std::io::stderr().is_terminal().then(|| {
        let (bar, done) = (progress_bar(limit), prepared.done());
        tokio::spawn(async move {
            let began = std::time::Instant::now();
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let operations = done.load(Ordering::Relaxed);
                match limit {
                    Limit::Time(_) => bar.set_position(began.elapsed().as_millis() as u64),
                    Limit::Operations(_) => bar.set_position(operations),
                }
                bar.set_message(format!("{operations} operations"));
            }
        })
    });
    let outcome = prepared.measure(limit).await;
    if let Some(watch) = watch {
        watch.abort();
        eprint!("\r\x1b[K");
    }
    let outcome = outcome.map_err(|e| e.to_string())?;
    prepared.finish().await.map_err(|e| format!("cleaning up: {e}"))?;
    Ok(outcome)
}

fn progress_bar(limit: Limit) -> ProgressBar {
    let length = match limit {
        Limit::Time(time) => time.as_millis() as u64,
        Limit::Operations(count) => count,
    };
    let style = ProgressStyle::with_template("{wide_bar} {percent}% {msg}");
    let bar = ProgressBar::new(length);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

fn print(outcome: &Outcome) {
    println!("operations{:>12}   in {:.2} s", outcome.operations, outcome.elapsed.as_secs_f64());
    println!("rate      {:>12.0}/s", outcome.rate());
    if outcome.bytes > 0 {
        let mib = outcome.bytes as f64 / f64::from(1 << 20) / outcome.elapsed.as_secs_f64();
        println!("payload   {mib:>12.1} MiB/s");
    }
    for (name, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        println!("{name:<10}{:>12.1} us", outcome.latency(part).as_nanos() as f64 / 1000.0);
    }
    for (name, count) in &outcome.errors {
        println!("error     {count:>12}   {name}");
    }
}

/// The result as JSON, for `--json` and for reports.
pub fn json(plan: &Plan, outcome: &Outcome) -> serde_json::Value {
    let microseconds = |part: f64| outcome.latency(part).as_nanos() as f64 / 1000.0;
    let directories = match plan.directories {
        Directories::One => 1,
        Directories::Many(count) => count,
    };
    serde_json::json!({
        "server": plan.address.to_string(),
        "mix": plan.mix.to_string(),
        "protection": plan.protection,
        "clients": plan.clients,
        "connections": plan.connections,
        "depth": plan.depth,
        "directories": directories,
        "names": plan.names,
        "seconds": outcome.elapsed.as_secs_f64(),
        "operations": outcome.operations,
        "rate": outcome.rate(),
        "bytes": outcome.bytes,
        "latency_us": {
            "p50": microseconds(0.5),
            "p99": microseconds(0.99),
            "p99.9": microseconds(0.999),
            "max": microseconds(1.0),
        },
        "errors": outcome.errors,
    })
}
