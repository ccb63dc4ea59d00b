//! `cargo integration compare`: a race against Samba, or against any server by address.
//!
//! The servers serve the same directory of the same file system and have turns, A B A B A B, with the same client at the
//! same pace: one connection, the next request when the answer has come. Beside the rate stands the server's own processor
//! time for an operation, which survives a noisy machine. The third is the floor: a program that does the socket, file and
//! MAC calls of each operation and nothing else.
//!
//! | file | what |
//! |---|---|
//! | [`workload`] | what is done, and how often |
//! | [`large`] | what is done in a directory of 100,000 names |
//! | [`contender`] | those who race, started and ended |
//! | [`results`] | medians, the table, the lines with the ratios |
//! | [`targets`] | the figures that Shoal holds itself to |
//!
//! The directories that a turn needs are made in the shared directory itself, not through a server. Only of a server
//! that runs elsewhere that cannot be.

mod contender;
mod large;
mod results;
mod targets;
mod workload;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

pub use self::contender::Who;
use self::contender::{Contender, SHARE};
use self::large::{Timed, Visitor};
pub use self::results::{Metric, Results, Row, Sample, figure, significant};
pub use self::workload::Workload;
use crate::checks::{Checks, Failure};
use crate::client::Trouble;
use crate::load::{self, Limit, Outcome, Plan};
use crate::release::{self, RELEASE_BUILD};
use crate::report;
use crate::samba::Samba;
use crate::scratch::Scratch;
use crate::server::{PASSWORD, USER, binary, target_directory, workspace};
use crate::test::cargo;

/// `cargo integration compare`.
#[derive(clap::Args)]
pub struct Options {
    /// Whom to race against: a Samba that is started here (as root), or ADDR:PORT
    #[arg(long, default_value = "samba")]
    against: Against,
    /// The account at ADDR:PORT
    #[arg(long, default_value = USER)]
    user: String,
    /// Its password
    #[arg(long, default_value = PASSWORD)]
    password: String,
    /// The share there; directories are made in it and removed again
    #[arg(long, default_value = SHARE)]
    share: String,
    /// The server's process, if it runs on this machine, for its processor time and memory
    #[arg(long)]
    pid: Option<u32>,
    /// About three minutes instead of twenty
    #[arg(long)]
    quick: bool,
    /// With the server as `cargo build --release` makes it, instead of `cargo integration release`
    #[arg(long)]
    plain: bool,
    /// Only these workloads
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// On which file systems the shared directory lies
    #[arg(long, value_delimiter = ',', default_value = "tmpfs,disk")]
    on: Vec<FileSystem>,
    /// Where the one on the disk lies; by default where cargo builds
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Turns of each server for each workload
    #[arg(long)]
    turns: Option<usize>,
    /// Writes a report that is one HTML file
    #[arg(long)]
    html: Option<PathBuf>,
    /// Writes the tables in Markdown
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Writes the pictures into this directory
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// The opponent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Against {
    Samba,
    Address(SocketAddr),
}

impl std::str::FromStr for Against {
    type Err = String;

    fn from_str(text: &str) -> Result<Against, String> {
        if text == "samba" {
            return Ok(Against::Samba);
        }
        text.parse().map(Against::Address).map_err(|_| "neither `samba` nor ADDR:PORT".to_owned())
    }
}

/// Where the shared directory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FileSystem {
    /// In memory: `/dev/shm`
    Tmpfs,
    /// On a disk
    Disk,
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            FileSystem::Tmpfs => "tmpfs",
            FileSystem::Disk => "disk",
        }
    }

    fn scratch(self, disk: Option<&Path>) -> Scratch {
        match self {
            FileSystem::Tmpfs => Scratch::in_memory("race"),
            FileSystem::Disk => Scratch::below(disk.unwrap_or(&target_directory()), "race"),
        }
    }
}

/// Logged-in clients that do nothing, to see what one more costs.
const IDLE_CLIENTS: usize = 100;
/// Those that come before: what a server does for the first ones it does once, and Shoal has threads for up to 32.
const FIRST_CLIENTS: usize = 40;
/// A connection gives its buffers back when it has been idle for some seconds.
const IDLE_TIME: Duration = Duration::from_secs(8);
/// What the longer run multiplies a turn's operations by.
const LONGER: u64 = 4;

/// `cargo integration compare`.
pub fn run(checks: &mut Checks, options: &Options) {
    if cfg!(debug_assertions) {
        checks.note("a debug build: client and floor are far slower than they are in a release build");
    }
    let Some(program) = program(checks, options) else { return };
    let (mut rows, mut names) = (Vec::new(), BTreeMap::new());
    for file_system in &options.on {
        let raced = checks.check(&format!("compare: the race on {}", file_system.name()), || {
            race(options, &program.path, *file_system, &mut names, &mut rows)
        });
        if !raced {
            break;
        }
    }
    let results = Results { names, rows, circumstances: circumstances(options, &program) };
    println!();
    for (what, is) in &results.circumstances {
        println!("{what}: {is}");
    }
    println!("{}", results.table());
    for line in results.lines() {
        println!("{line}");
    }
    println!();
    for line in targets::lines(&results) {
        println!("{line}");
    }
    if let Err(why) = write_reports(options, &results) {
        checks.record("compare: reports", Err(why));
    }
}

fn write_reports(options: &Options, results: &Results) -> Result<(), Failure> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
    };
    if let Some(path) = &options.html {
        write(path, report::html(results))?;
    }
    if let Some(path) = &options.markdown {
        write(path, report::markdown(results))?;
    }
    if let Some(directory) = &options.svg {
        std::fs::create_dir_all(directory)
            .map_err(|e| format!("cannot make {}: {e}", directory.display()))?;
        for (name, picture) in report::pictures(results) {
            write(&directory.join(name), picture)?;
        }
    }
    Ok(())
}

/// The build that races.
struct Program {
    path: PathBuf,
    /// How it is made.
    made_by: &'static str,
}

/// The server as it is shipped, or else, where that is wanted or the compiler's tools are lacking, the plain build.
fn program(checks: &mut Checks, options: &Options) -> Option<Program> {
    if !options.plain {
        match release::guided() {
            Ok(path) => return Some(Program { path, made_by: "cargo integration release" }),
            Err(why) => checks.note(&format!("the race is with the plain build: {why}")),
        }
    }
    let built = checks.check("compare: cargo build --release", || cargo(RELEASE_BUILD, &[]));
    built.then(|| Program { path: binary(), made_by: "cargo build --release" })
}

fn circumstances(options: &Options, program: &Program) -> Vec<(String, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(workspace()).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut lines = vec![
        ("processor", format!("{}, {cores} cores", processor.map_or("unknown", |(_, name)| name))),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        (
            "Shoal",
            format!("{} {}, {}", env!("CARGO_PKG_VERSION"), commit.unwrap_or_default(), program.made_by),
        ),
    ];
    if options.against == Against::Samba {
        lines.push(("Samba", Samba::version()));
    }
    lines.push(("command", format!("cargo integration {}", arguments.join(" "))));
    lines.into_iter().map(|(what, is)| (what.to_owned(), is)).collect()
}

/// All workloads on one file system. Whoever interrupts it finds no server and no directory left behind.
#[tokio::main(flavor = "current_thread")]
async fn race(
    options: &Options,
    program: &Path,
    file_system: FileSystem,
    names: &mut BTreeMap<Who, String>,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    let mut terminated =
        signal(SignalKind::terminate()).map_err(|e| format!("cannot wait for a signal: {e}"))?;
    tokio::select! {
        raced = race_all(options, program, file_system, names, rows) => raced,
        _ = terminated.recv() => Err("terminated".to_owned()),
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    }
}

async fn race_all(
    options: &Options,
    program: &Path,
    file_system: FileSystem,
    names: &mut BTreeMap<Who, String>,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    // What is made for the turns must be open to the rival's user, whatever our own mask.
    rustix::process::umask(rustix::fs::Mode::empty());
    let scratch = file_system.scratch(options.disk.as_deref());
    let share = scratch.directory("share");
    let rival = match options.against {
        Against::Samba => Contender::samba(&share)?,
        Against::Address(address) => {
            Contender::elsewhere(address, &options.user, &options.password, &options.share, options.pid)
        }
    };
    let contenders = [Contender::shoal(program, scratch.path(), &share)?, rival, Contender::floor(&share)?];
    names.extend(contenders.iter().map(|contender| (contender.who, contender.name.clone())));

    let wanted = |workload: &&Workload| options.only.is_empty() || options.only.contains(workload);
    let mut workloads: Vec<Workload> = Workload::ALL.iter().filter(wanted).copied().collect();
    let before = rows.len();
    // Memory first, while nobody has done anything.
    workloads.sort_by_key(|workload| !workload.is_memory());
    let small = workloads.iter().take_while(|workload| workload.is_memory()).count();
    for workload in workloads.drain(..small).collect::<Vec<_>>() {
        rows.push(row(options, file_system, workload, &contenders, &[]).await?);
    }
    let mut without = Vec::new();
    let large = workloads.iter().any(|workload| workload.is_large());
    if large {
        large::make_here(&share)?;
        let elsewhere = contenders.iter().filter(|contender| contender.directory.is_none());
        for contender in elsewhere {
            if !large::make_there(contender)
                .await
                .map_err(|trouble| format!("{}: {trouble}", contender.name))?
            {
                println!("{} takes too long to make 100,000 names: it is left out there", contender.name);
                without.push(contender.who);
            }
        }
    }
    for workload in workloads {
        rows.push(row(options, file_system, workload, &contenders, &without).await?);
    }
    rows[before..].sort_by_key(|row| row.workload);
    for contender in contenders {
        if large && contender.directory.is_none() && !without.contains(&contender.who) {
            large::remove_there(&contender).await.map_err(|trouble| trouble.to_string())?;
        }
        contender.stop()?;
    }
    Ok(())
}

/// All turns of a workload.
async fn row(
    options: &Options,
    file_system: FileSystem,
    workload: Workload,
    contenders: &[Contender],
    without_large: &[Who],
) -> Result<Row, Failure> {
    let mut row = Row { file_system: file_system.name().to_owned(), workload, turns: BTreeMap::new() };
    let turns = match workload {
        _ if workload.is_memory() => 1,
        _ => options.turns.unwrap_or(if options.quick { 3 } else { 5 }),
    };
    for _ in 0..turns {
        for contender in contenders {
            if workload.is_large() && without_large.contains(&contender.who) {
                continue;
            }
            let sample = match workload {
                Workload::MemoryIdle | Workload::MemoryPerConnection => memory(contender, workload).await,
                _ if workload.is_large() => large_turn(contender, workload, options.quick).await,
                _ => turn(contender, workload, options.quick).await,
            };
            let sample = sample.map_err(|why| format!("{} in {}: {why}", contender.name, workload.name()))?;
            row.turns.entry(contender.who).or_default().push(sample);
        }
    }
    Ok(row)
}

/// A turn of a workload that is a load's mix.
async fn turn(contender: &Contender, workload: Workload, quick: bool) -> Result<Sample, Failure> {
    let told = |trouble: Trouble| trouble.to_string();
    let mix = workload.mix().ok_or("no mix")?;
    let scans = contender.scans();
    let operations = workload.operations(scans) * if quick { 1 } else { LONGER };
    let warm_up = workload.warm_up(scans);
    let plan = Plan {
        user: contender.user.clone(),
        password: contender.password.clone(),
        protection: workload.protection(),
        names: workload.names(),
        // All that the turn uses up, made before its clock runs.
        round: operations + warm_up,
        local: contender.directory.clone(),
        ..Plan::new(contender.address, &contender.share, mix)
    };
    let mut racer = load::prepare(&plan).await.map_err(told)?;
    faultless(racer.measure(Limit::Operations(warm_up)).await.map_err(told)?)?;
    let (outcome, cpu) = {
        let before = contender.processes.map(|processes| processes.cpu()).transpose()?;
        let outcome = racer.measure(Limit::Operations(operations)).await.map_err(told)?;
        let after = contender.processes.map(|processes| processes.cpu()).transpose()?;
        (faultless(outcome)?, after.zip(before).map(|(after, before)| after.since(&before)))
    };
    racer.finish().await.map_err(told)?;
    let mut sample = Sample::from([
        (Metric::Rate, outcome.rate()),
        (Metric::P50, outcome.latency(0.5).as_secs_f64() * 1e6),
        (Metric::P99, outcome.latency(0.99).as_secs_f64() * 1e6),
    ]);
    if let Some(cpu) = cpu {
        sample.insert(Metric::Cpu, cpu.as_secs_f64() * 1e6 / outcome.operations as f64);
    }
    Ok(sample)
}

/// A race of servers that refuse is none.
fn faultless(outcome: Outcome) -> Result<Outcome, Failure> {
    match outcome.errors.iter().next() {
        None => Ok(outcome),
        Some((error, count)) => Err(format!("{count} times {error}")),
    }
}

/// A turn of a workload in the large directory.
async fn large_turn(contender: &Contender, workload: Workload, quick: bool) -> Result<Sample, Failure> {
    let told = |trouble: Trouble| trouble.to_string();
    let scans = contender.scans();
    let longer = if quick || workload != Workload::OpenAbsentLarge { 1 } else { LONGER };
    let operations = workload.operations(scans) * longer;
    let mut visitor = Visitor::new(contender).await.map_err(told)?;
    if workload == Workload::OpenAbsentLarge {
        visitor.open_absent(workload.warm_up(scans)).await.map_err(told)?;
    }
    let before = contender.processes.map(|processes| processes.cpu()).transpose()?;
    let timed = match workload {
        Workload::List => visitor.list().await,
        Workload::EchoBehindList => visitor.echo_behind_list(operations).await,
        _ => visitor.open_absent(operations).await,
    };
    let timed = timed.map_err(told)?;
    let after = contender.processes.map(|processes| processes.cpu()).transpose()?;
    Ok(sample(&timed, after.zip(before).map(|(after, before)| after.since(&before))))
}

fn sample(timed: &Timed, cpu: Option<Duration>) -> Sample {
    let operations = timed.operations as f64;
    let mut sample = Sample::from([(Metric::Rate, operations / timed.elapsed.as_secs_f64())]);
    let mut latencies = timed.latencies.clone();
    latencies.sort_unstable();
    for (metric, percent) in [(Metric::P50, 50), (Metric::P99, 99)] {
        // The least latency that so many of 100 operations kept to.
        if let Some(at) = (latencies.len() * percent).div_ceil(100).checked_sub(1) {
            sample.insert(metric, latencies[at].as_secs_f64() * 1e6);
        }
    }
    if let Some(cpu) = cpu {
        sample.insert(Metric::Cpu, cpu.as_secs_f64() * 1e6 / operations);
    }
    if let Some(first_page) = timed.first_page {
        sample.insert(Metric::FirstPage, first_page.as_secs_f64() * 1e3);
        sample.insert(Metric::Whole, timed.elapsed.as_secs_f64() * 1e3);
    }
    sample
}

/// What a server holds, alone or for each more client that is logged in. Pages that processes share are divided among them.
async fn memory(contender: &Contender, workload: Workload) -> Result<Sample, Failure> {
    let Some(processes) = contender.processes else { return Ok(Sample::new()) };
    let held = || Ok::<_, Failure>(processes.memory()?.proportional as f64 / 1024.0);
    if workload == Workload::MemoryIdle {
        return Ok(Sample::from([(Metric::Memory, held()?)]));
    }
    let mut clients = Vec::new();
    let mut held_with = async |count: usize| {
        while clients.len() < count {
            clients.push(Visitor::new(contender).await.map_err(|trouble| trouble.to_string())?);
        }
        tokio::time::sleep(IDLE_TIME).await;
        held()
    };
    let before = held_with(FIRST_CLIENTS).await?;
    let grown = held_with(FIRST_CLIENTS + IDLE_CLIENTS).await? - before;
    Ok(Sample::from([(Metric::Memory, grown / IDLE_CLIENTS as f64)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_one_of_the_latencies() {
        let p99 = |count: u64| {
            let latencies = (1..=count).map(Duration::from_micros).rev().collect();
            let timed =
                Timed { operations: count, elapsed: Duration::from_secs(1), latencies, first_page: None };
            sample(&timed, None)[&Metric::P99].round()
        };
        assert_eq!([1, 12, 100, 200, 1_000].map(p99), [1.0, 12.0, 99.0, 198.0, 990.0]);
    }

    #[test]
    fn an_opponent_is_samba_or_an_address() {
        assert_eq!("samba".parse(), Ok(Against::Samba));
        assert_eq!("127.0.0.1:445".parse(), Ok(Against::Address(([127, 0, 0, 1], 445).into())));
        assert!("nfs".parse::<Against>().is_err());
    }
}
