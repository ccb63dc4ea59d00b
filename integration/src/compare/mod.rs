//! `cargo integration compare`: a race against Samba.
//!
//! The servers serve the same directory of the same file system and have turns, A B A B A B, with the same client at the
//! same pace: one connection, signed, the next request when the answer has come. Beside the rate stands the server's own
//! processor time for an operation, which survives a noisy machine. The third is the floor: a program that does the
//! socket, file and MAC calls of each operation and nothing else.
//!
//! Every turn has a directory of its own that is made, and removed, by this program and not through a server.

mod contender;
mod results;
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use self::contender::{Contender, Who};
use self::results::{Metric, Results, Row, Sample};
use self::workload::{FILE_SIZE, LARGE, MANY, Timed, Turn, Workload};
use crate::checks::{Checks, Failure};
use crate::client::{Client, Trouble};
use crate::samba::Samba;
use crate::scratch::Scratch;
use crate::server::{target_directory, workspace};

/// `cargo integration compare`.
#[derive(clap::Args)]
pub struct Options {
    /// About three minutes instead of twenty
    #[arg(long)]
    quick: bool,
    /// Only these workloads
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// On which file systems the directory lies
    #[arg(long, value_delimiter = ',', default_value = "tmpfs,disk")]
    on: Vec<FileSystem>,
    /// Turns of each server for each workload
    #[arg(long)]
    turns: Option<usize>,
}

/// Where the shared directory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FileSystem {
    /// In memory: `/dev/shm`
    Tmpfs,
    /// On the disk that has the target directory
    Disk,
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            FileSystem::Tmpfs => "tmpfs",
            FileSystem::Disk => "disk",
        }
    }

    fn scratch(self) -> Scratch {
        match self {
            FileSystem::Tmpfs => Scratch::in_memory("race"),
            FileSystem::Disk => Scratch::below(&target_directory(), "race"),
        }
    }
}

/// Logged-in clients that do nothing, to see what one costs.
const IDLE_CLIENTS: usize = 100;

/// `cargo integration compare`.
pub fn run(checks: &mut Checks, options: &Options) {
    if cfg!(debug_assertions) {
        checks.note("a debug build: client and floor are far slower than they are in a release build");
    }
    if !checks.check("compare: cargo build --release", build) {
        return;
    }
    let mut rows = Vec::new();
    let mut names = BTreeMap::new();
    for file_system in &options.on {
        let raced = checks.check(&format!("compare: the race on {}", file_system.name()), || {
            race(options, *file_system, &mut names, &mut rows)
        });
        if !raced {
            break;
        }
    }
    let results = Results { names, rows, circumstances: circumstances() };
    println!();
    for (what, is) in &results.circumstances {
        println!("{what}: {is}");
    }
    println!("{}", results.table());
    for line in results.lines() {
        println!("{line}");
    }
}

fn build() -> Result<(), Failure> {
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--locked", "--package", "shoal"])
        .current_dir(workspace())
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo build: {status}")) }
}

fn circumstances() -> Vec<(String, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    vec![
        ("processor".to_owned(), processor.map_or("", |(_, name)| name).to_owned()),
        ("cores".to_owned(), cores.to_string()),
        ("kernel".to_owned(), read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("Samba".to_owned(), Samba::version()),
        ("Shoal".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]
}

/// All workloads on one file system.
#[tokio::main(flavor = "current_thread")]
async fn race(
    options: &Options,
    file_system: FileSystem,
    names: &mut BTreeMap<Who, String>,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    // What the turns' directories hold must be open to the rival's user, whatever our own mask.
    rustix::process::umask(rustix::fs::Mode::empty());
    let scratch = file_system.scratch();
    let share = scratch.directory("share");
    let contenders =
        [Contender::shoal(scratch.path(), &share)?, Contender::samba(&share)?, Contender::floor(&share)?];
    names.extend(contenders.iter().map(|contender| (contender.who, contender.name.clone())));

    let wanted = |workload: &&Workload| options.only.is_empty() || options.only.contains(workload);
    let workloads: Vec<Workload> = Workload::ALL.iter().filter(wanted).copied().collect();
    let stage = Stage { share };
    if workloads.iter().any(|workload| workload.is_large()) {
        stage.names(LARGE, MANY)?;
    }
    let turns = options.turns.unwrap_or(if options.quick { 3 } else { 5 });
    // Memory first, while nobody has done anything.
    let mut order = workloads;
    order.sort_by_key(|workload| !workload.is_memory());
    let before = rows.len();
    for workload in order {
        let mut row = Row { file_system: file_system.name().to_owned(), workload, turns: BTreeMap::new() };
        for turn in 0..turns {
            for contender in &contenders {
                let sample = if workload.is_memory() {
                    if turn > 0 {
                        continue;
                    }
                    memory(contender, workload).await
                } else {
                    one_turn(contender, workload, &stage, turn, options.quick).await
                };
                let sample =
                    sample.map_err(|why| format!("{} in {}: {why}", contender.name, workload.name()))?;
                row.turns.entry(contender.who).or_default().push(sample);
            }
        }
        rows.push(row);
    }
    rows[before..].sort_by_key(|row| row.workload);
    for contender in contenders {
        contender.stop()?;
    }
    Ok(())
}

/// The directory that all serve, as this program sees it.
struct Stage {
    share: PathBuf,
}

impl Stage {
    /// Makes `directory` with `count` empty files.
    fn names(&self, directory: &str, count: usize) -> Result<(), Failure> {
        let path = self.share.join(directory);
        let told = |path: &Path, e: std::io::Error| format!("cannot make {}: {e}", path.display());
        std::fs::create_dir(&path).map_err(|e| told(&path, e))?;
        for number in 0..count {
            let file = path.join(workload::name(number));
            std::fs::File::create(&file).map_err(|e| told(&file, e))?;
        }
        Ok(())
    }

    /// Makes the file that is read and written.
    fn file(&self, directory: &str) -> Result<(), Failure> {
        let path = self.share.join(workload::file_in(directory).replace('\\', "/"));
        std::fs::write(&path, vec![0xA5; FILE_SIZE])
            .map_err(|e| format!("cannot write {}: {e}", path.display()))
    }

    fn remove(&self, directory: &str) -> Result<(), Failure> {
        let path = self.share.join(directory);
        std::fs::remove_dir_all(&path).map_err(|e| format!("cannot remove {}: {e}", path.display()))
    }
}

async fn log_in(contender: &Contender) -> Result<Client, Trouble> {
    let mut client = Client::connect(contender.address).await?;
    client.login(&contender.user, &contender.password, &contender.share).await?;
    Ok(client)
}

async fn one_turn(
    contender: &Contender,
    workload: Workload,
    stage: &Stage,
    turn: usize,
    quick: bool,
) -> Result<Sample, Failure> {
    let told = |trouble: Trouble| trouble.to_string();
    let scans = contender.scans();
    let longer = if quick || workload.operations(scans) <= 1 { 1 } else { 4 };
    let operations = workload.operations(scans) * longer;
    let warm_up = workload.warm_up(scans);
    let directory = format!("{}-{turn}-{}", workload.name(), contender.name);
    stage.names(&directory, workload.names(operations + warm_up))?;
    if workload.has_file() {
        stage.file(&directory)?;
    }
    let client = log_in(contender).await.map_err(told)?;
    let mut racer = Turn::new(client, workload, &directory).await.map_err(told)?;
    if warm_up > 0 {
        racer.run(warm_up).await.map_err(told)?;
    }
    let before = contender.processes.map(|processes| processes.cpu()).transpose()?;
    let timed = racer.run(operations).await.map_err(told)?;
    let after = contender.processes.map(|processes| processes.cpu()).transpose()?;
    racer.finish().await.map_err(told)?;
    stage.remove(&directory)?;
    let cpu = after.zip(before).map(|(after, before)| after.since(&before));
    Ok(sample(&timed, cpu))
}

fn sample(timed: &Timed, cpu: Option<Duration>) -> Sample {
    let operations = timed.operations as f64;
    let mut sample = Sample::from([(Metric::Rate, operations / timed.elapsed.as_secs_f64())]);
    let mut latencies = timed.latencies.clone();
    latencies.sort_unstable();
    if let Some(last) = latencies.len().checked_sub(1) {
        let at = (latencies.len() * 99 / 100).min(last);
        sample.insert(Metric::P99, latencies[at].as_secs_f64() * 1e6);
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

/// What a server holds, alone or for each client that is logged in. Pages that processes share are divided among them.
async fn memory(contender: &Contender, workload: Workload) -> Result<Sample, Failure> {
    let Some(processes) = contender.processes else { return Ok(Sample::new()) };
    let idle = processes.memory()?.proportional as f64 / 1024.0;
    if workload == Workload::MemoryIdle {
        return Ok(Sample::from([(Metric::Memory, idle)]));
    }
    let mut clients = Vec::new();
    for _ in 0..IDLE_CLIENTS {
        clients.push(log_in(contender).await.map_err(|trouble| trouble.to_string())?);
    }
    // A connection gives back its buffer when it has been idle for some seconds.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let grown = processes.memory()?.proportional as f64 / 1024.0 - idle;
    Ok(Sample::from([(Metric::Memory, grown / IDLE_CLIENTS as f64)]))
}
