//! `cargo integration parallel`: that clients which create, rename and remove in one directory do not wait for each other.
//!
//! On a share each call of which takes 5 ms, 64 clients with four requests each, over 16 connections and all in one moment,
//! create, rename and remove 256 different names in one directory. What that takes is told in delays of 5 ms: three or so if
//! nobody waits for anybody, hundreds if a lock of the directory lets one in at a time, which the same server does with
//! `directory_lock`. Creates are the CREATE alone, renames the SET_INFO on handles that are open, removals the CLOSE of
//! handles whose file is to go. Then the same clients work in one directory of a share in memory and in 64 of them, in
//! short turns: there the processor is what all wait for, and one directory should do as well as many.
//!
//! What the acknowledgements say must be what a listing shows, or the command fails; the timings fail it with `--demand`.

mod disk;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::{CreateResponse, FileId, Request};

use crate::checks::{Checks, Failure, demand};
use crate::client::{
    Client, Connection, Protection, Reply, Result, Tree, Trouble, close, create, rename_information, set_info,
};
use crate::load::command::runtime;
use crate::load::{Directories, Limit, Mix, Plan, prepare};
use crate::plot::{self, Axis, Bars, Line};
use crate::scratch::Scratch;
use crate::server::{PASSWORD, Server, USER};

/// `cargo integration parallel`.
#[derive(clap::Args)]
pub struct Options {
    /// Rounds of each measurement; their median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long the turns of a round in one directory take, and those in many, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Draw the results into this directory, as parallel.svg and parallel-directories.svg
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Measure on a disk of this machine as well, beside Samba
    #[arg(long)]
    disk: bool,
    /// Fail where a timing misses its target
    #[arg(long)]
    demand: bool,
}

impl Options {
    /// One round, for the end states alone.
    pub fn functional() -> Options {
        Options { rounds: 1, seconds: 0.5, plots: None, disk: false, demand: false }
    }
}

const CLIENTS: usize = 64;
const REQUESTS: usize = 4;
const CONNECTIONS: usize = 16;
const AT_ONCE: usize = CLIENTS * REQUESTS;
const DELAY: Duration = Duration::from_millis(5);
/// One directory and many have so many turns each in a round.
const TURNS: u32 = 4;
/// What is made ready for a turn, so that nothing is made ready within it.
const ROUND: u64 = 32_768;
/// How many requests at a time the picture has.
const STEPS: [usize; 5] = [1, 4, 16, 64, 256];
const VERBS: [&str; 3] = ["creates", "renames", "removes"];
/// The most delays that creates and renames may take with claims.
const DELAYS_MAX: [f64; 2] = [4.0, 5.0];
/// The least that the rate in one directory may be of that in many.
const ONE_TO_MANY_MIN: f64 = 0.9;

const FILE_CREATE: u32 = 2;
const ACCESS: u32 = 0x0013_0197;
const LIST_DIRECTORY: u32 = 0x0010_0081;
const RENAME_INFORMATION: u8 = 10;
const DISPOSITION_INFORMATION: u8 = 13;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    Claims,
    Directory,
}

impl Lock {
    fn name(self) -> &'static str {
        match self {
            Lock::Claims => "claims",
            Lock::Directory => "directory lock",
        }
    }
}

/// The delays that one round took, by verb.
type Delays = [f64; 3];

/// `cargo integration parallel`.
pub fn run(checks: &mut Checks, options: &Options) {
    let mut picture = Vec::new();
    for lock in [Lock::Claims, Lock::Directory] {
        let name = format!("parallel: {AT_ONCE} at once in one directory, {}", lock.name());
        checks.check(&name, || {
            let (delays, lines) = one_directory(lock, options)?;
            picture.extend(lines);
            for (verb, delays) in VERBS.iter().zip(delays) {
                println!(
                    "{verb} {CLIENTS} clients {}ms {}: {delays:.1} delays",
                    DELAY.as_millis(),
                    lock.name()
                );
            }
            for ((verb, delays), most) in VERBS.iter().zip(delays).zip(DELAYS_MAX) {
                demand(!options.demand || lock != Lock::Claims || delays <= most, || {
                    format!("{verb} took {delays:.1} delays, {most} at most are wanted")
                })?;
            }
            Ok(())
        });
    }
    let mut rates = [Vec::new(), Vec::new()];
    for (verb, mix) in [("creates", Mix::Create), ("renames", Mix::Rename)] {
        checks.check(&format!("parallel: {verb} in one directory and in {CLIENTS}"), || {
            let OneAndMany { rates: [one, many], ratio, cpu } = one_and_many(verb, mix, options)?;
            rates[0].push(Some(one));
            rates[1].push(Some(many));
            println!("{verb} one directory: {one:.0}/s, {CLIENTS} directories: {many:.0}/s");
            println!(
                "{verb} one directory: {:.1} us of CPU, {CLIENTS} directories: {:.1} us",
                cpu[0], cpu[1]
            );
            println!("{verb} one directory / many directories: {ratio:.2}");
            demand(!options.demand || ratio >= ONE_TO_MANY_MIN, || {
                format!(
                    "{verb} in one directory have {ratio:.2} of the rate in many, {ONE_TO_MANY_MIN} is wanted"
                )
            })
        });
    }
    if options.disk {
        disk::run(checks, options);
    }
    if let Some(directory) = &options.plots {
        checks.check(&format!("parallel: pictures in {}", directory.display()), || {
            let svg = plot::lines(
                "Changes of different names in one directory, 5 ms a storage call",
                &Axis::logarithmic("requests in one moment"),
                &Axis::logarithmic("delays of 5 ms until all are done"),
                &picture,
            )?;
            std::fs::write(directory.join("parallel.svg"), svg).map_err(|e| e.to_string())?;
            let names = ["in one directory".to_owned(), format!("in {CLIENTS} directories")];
            let bars = names.into_iter().zip(rates).map(|(name, values)| Bars { name, values });
            let svg = plot::grouped_bars(
                &format!("{CLIENTS} clients on a share in memory"),
                &Axis::linear("a second"),
                &["creates (with close)".to_owned(), "renames".to_owned()],
                &bars.collect::<Vec<_>>(),
            )?;
            std::fs::write(directory.join("parallel-directories.svg"), svg).map_err(|e| e.to_string())
        });
    }
}

/// A configuration with this lock.
fn settings(scratch: &Scratch, lock: Lock) -> Result<String, Failure> {
    let settings = scratch.path().join("shoal.toml");
    let text = format!("[server]\ndirectory_lock = {}\n", lock == Lock::Directory);
    std::fs::write(&settings, text).map_err(|e| e.to_string())?;
    Ok(settings.display().to_string())
}

fn start(scratch: &Scratch, lock: Lock) -> Result<Server, Failure> {
    let shares = [format!("slow=latency:{}ms:memory:", DELAY.as_millis()), "memory=memory:".to_owned()];
    Server::start_with(scratch.path(), &shares, &["--config", &settings(scratch, lock)?])
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// The median delays of all at once, and lines of the picture if one is wanted.
fn one_directory(lock: Lock, options: &Options) -> Result<(Delays, Vec<Line>), Failure> {
    let scratch = Scratch::new("parallel");
    let mut server = start(&scratch, lock)?;
    let mut measured = Vec::new();
    let mut lines: Vec<Line> = Vec::new();
    runtime(CONNECTIONS)?.block_on(async {
        let mut fleet = Fleet::new(&server).await.map_err(|e| e.to_string())?;
        for number in 0..options.rounds.max(1) {
            measured.push(fleet.round(&format!("round-{number}"), AT_ONCE).await?);
        }
        if options.plots.is_some() {
            let names = VERBS.iter().take(2).map(|verb| format!("{verb}, {}", lock.name()));
            lines = names.map(|name| Line { name, points: Vec::new() }).collect();
            for at_once in STEPS {
                let mut rounds = Vec::new();
                for number in 0..options.rounds.max(1) {
                    rounds.push(fleet.round(&format!("step-{at_once}-{number}"), at_once).await?);
                }
                for (verb, line) in lines.iter_mut().enumerate() {
                    line.points.push((at_once as f64, median(rounds.iter().map(|delays| delays[verb]))));
                }
            }
        }
        Ok::<(), Failure>(())
    })?;
    server.must_run()?;
    server.stop()?;
    let delays = std::array::from_fn(|verb| median(measured.iter().map(|delays| delays[verb])));
    Ok((delays, lines))
}

/// A place from which one request is sent: a client's session on a connection.
struct Ship {
    connection: Connection,
    trees: Vec<Tree>,
}

/// All clients, and one beside them who makes directories and lists them.
struct Fleet {
    ships: Vec<Ship>,
    flag: Client,
}

impl Fleet {
    async fn new(server: &Server) -> Result<Fleet> {
        let mut ships = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut connection = Connection::connect(server.address).await?;
            let mut trees = Vec::new();
            for _ in 0..CLIENTS / CONNECTIONS {
                let session = connection.login(USER, PASSWORD, Protection::Signed).await?;
                trees.push(connection.tree_connect(session, "slow").await?);
            }
            ships.push(Ship { connection, trees });
        }
        let mut flag = Client::connect(server.address).await?;
        flag.login(USER, PASSWORD, "slow").await?;
        Ok(Fleet { ships, flag })
    }

    /// Creates, renames and removes so many names at once in a directory made for it, and looks after each what is there.
    async fn round(&mut self, directory: &str, at_once: usize) -> Result<Delays, Failure> {
        let told = |trouble: Trouble| trouble.to_string();
        let made = self.flag.create(create(directory, LIST_DIRECTORY, FILE_CREATE, 1)).await.map_err(told)?;
        self.flag.close(made.file_id).await.map_err(told)?;
        let path = |kind: &str, number: usize| format!("{directory}\\{kind}-{number:03}");

        let (creates, replies) = self
            .volley(at_once, |number| {
                Request::Create(create(&path("made", number), ACCESS, FILE_CREATE, 0x40))
            })
            .await?;
        let files =
            replies.iter().map(|reply| CreateResponse::parse(&reply.message).map(|answer| answer.file_id));
        let files: Vec<FileId> =
            files.collect::<Result<_, _>>().map_err(|e| format!("CREATE response: {e}"))?;
        self.must_list(directory, "made", at_once).await?;

        let (renames, _) = self
            .volley(at_once, |number| {
                set_info(
                    files[number],
                    RENAME_INFORMATION,
                    rename_information(&path("renamed", number), false),
                )
            })
            .await?;
        self.must_list(directory, "renamed", at_once).await?;

        let disposition =
            |number: usize| set_info(files[number], DISPOSITION_INFORMATION, Bytes::from_static(&[1]));
        self.volley(at_once, disposition).await?;
        let (removes, _) = self.volley(at_once, |number| close(files[number])).await?;
        self.must_list(directory, "removed", 0).await?;
        Ok([creates, renames, removes])
    }

    /// Sends so many requests in one moment, request `n` by client `n` modulo their number, and waits for all answers, which
    /// must be successes. Returns the delays that this took, and the replies in the requests' order.
    async fn volley(
        &mut self,
        at_once: usize,
        request: impl Fn(usize) -> Request,
    ) -> Result<(f64, Vec<Reply>), Failure> {
        let mut tasks = tokio::task::JoinSet::new();
        let mut ships: Vec<Ship> = std::mem::take(&mut self.ships);
        for number in 0..at_once {
            let client = number % CLIENTS;
            let ship = &mut ships[client % CONNECTIONS];
            let tree = ship.trees[client / CONNECTIONS];
            ship.connection.submit(tree, request(number), number as u64).map_err(|e| e.to_string())?;
        }
        let began = Instant::now();
        for (which, mut ship) in ships.into_iter().enumerate() {
            let due = (0..at_once).filter(|number| number % CLIENTS % CONNECTIONS == which).count();
            tasks.spawn(async move {
                let mut replies = Vec::with_capacity(due);
                while replies.len() < due {
                    ship.connection.progress().await?;
                    while let Some(reply) = ship.connection.next_reply() {
                        replies.push(reply);
                    }
                }
                Ok::<_, Trouble>((which, ship, replies))
            });
        }
        let mut replies = Vec::with_capacity(at_once);
        let mut ships = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            let (which, ship, more) = ended.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            ships.push((which, ship));
            replies.extend(more);
        }
        let delays = began.elapsed().as_secs_f64() / DELAY.as_secs_f64();
        ships.sort_by_key(|(which, _)| *which);
        self.ships = ships.into_iter().map(|(_, ship)| ship).collect();
        replies.sort_by_key(|reply| reply.ticket);
        match replies.iter().find(|reply| reply.header.status != NtStatus::SUCCESS) {
            Some(reply) => Err(format!("{:?}: {}", reply.header.command, reply.header.status)),
            None => Ok((delays, replies)),
        }
    }

    /// Fails unless the directory has exactly so many names of this kind.
    async fn must_list(&mut self, directory: &str, kind: &str, count: usize) -> Result<(), Failure> {
        let told = |trouble: Trouble| trouble.to_string();
        let opened = self.flag.create(create(directory, LIST_DIRECTORY, 1, 1)).await.map_err(told)?;
        let listed = self.flag.names(opened.file_id).await.map_err(told)?;
        self.flag.close(opened.file_id).await.map_err(told)?;
        let listed: BTreeSet<String> = listed.into_iter().collect();
        let wanted: BTreeSet<String> = (0..count).map(|number| format!("{kind}-{number:03}")).collect();
        demand(listed == wanted, || {
            let lacking: Vec<&String> = wanted.difference(&listed).take(5).collect();
            let more: Vec<&String> = listed.difference(&wanted).take(5).collect();
            format!(
                "{directory} has {} names, {count} were {kind}; lacking: {lacking:?}; too many: {more:?}",
                listed.len()
            )
        })
    }
}

/// What one directory and many did, in turns.
struct OneAndMany {
    /// Medians, a second.
    rates: [f64; 2],
    /// The median of what each two turns that followed each other give.
    ratio: f64,
    /// Medians of the server's processor time for an operation, in microseconds.
    cpu: [f64; 2],
}

/// The rates in one directory and in many, in short turns: what else the machine does changes from second to second, and
/// two turns that follow each other have the same of it.
fn one_and_many(verb: &str, mix: Mix, options: &Options) -> Result<OneAndMany, Failure> {
    let scratch = Scratch::new("parallel");
    let mut server = start(&scratch, Lock::Claims)?;
    let kinds = [Directories::One, Directories::Many(CLIENTS)];
    let (mut rates, mut cpu) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let turn = Limit::Time(Duration::from_secs_f64(options.seconds.clamp(0.05, 3600.0) / f64::from(TURNS)));
    runtime(CONNECTIONS)?.block_on(async {
        let mut prepared = Vec::new();
        for directories in kinds {
            let plan = Plan {
                clients: CLIENTS,
                connections: CONNECTIONS,
                depth: REQUESTS,
                directories,
                round: ROUND,
                ..Plan::new(server.address, "memory", mix)
            };
            prepared.push(prepare(&plan).await.map_err(|e| e.to_string())?);
        }
        for number in 0..options.rounds.max(1) as u32 * TURNS {
            // Each is first as often as second.
            let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
            for which in order {
                let prepared = &mut prepared[which];
                prepared.restock(ROUND).await.map_err(|e| e.to_string())?;
                let before = server.processes().cpu()?;
                let outcome = prepared.measure(turn).await.map_err(|e| e.to_string())?;
                let used = server.processes().cpu()?.since(&before);
                demand(outcome.errors.is_empty(), || format!("{verb}: {:?}", outcome.errors))?;
                rates[which].push(outcome.rate());
                cpu[which].push(used.as_secs_f64() * 1e6 / outcome.operations.max(1) as f64);
            }
        }
        for prepared in prepared {
            prepared.finish().await.map_err(|e| format!("cleaning up: {e}"))?;
        }
        Ok::<(), Failure>(())
    })?;
    server.must_run()?;
    server.stop()?;
    let ratio = median(rates[0].iter().zip(&rates[1]).map(|(one, many)| one / many));
    Ok(OneAndMany { rates: rates.map(median), ratio, cpu: cpu.map(median) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
