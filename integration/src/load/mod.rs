//! A load on a server through our own client: clients spread over connections, each with requests under way, all doing
//! operations of one mix; what comes out is a rate, a histogram of latencies and the errors by status.
//!
//! | file | what |
//! |---|---|
//! | [`mix`] | the operations and the requests that each is made of |
//! | [`lane`] | one place of a client from which one operation at a time is under way |
//! | [`station`] | a connection with its lanes, driven by one task |
//! | [`bulk`] | material made and removed outside the clock |
//! | [`command`] | `cargo integration load` |
//! | [`smbtorture`] | the same with smbtorture processes in our client's place |
//!
//! [`prepare`] connects and makes what the mix needs. [`Prepared::measure`] has the lanes work until the limit.
//! Operations that use material up (a removal needs a file, a creation leaves one) do so in rounds; between them the clock
//! stands still. So that a measurement by [`Limit::Operations`] counts that verb alone, in the server's CPU time as well,
//! the plan's `round` should be no less than the operations, or [`Prepared::restock`] come before it.

mod bulk;
pub mod command;
mod lane;
mod mix;
mod smbtorture;
mod station;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use hdrhistogram::Histogram;
use tokio::task::JoinSet;

pub use crate::client::Protection;
use crate::client::{Connection, Result, Trouble};
use crate::server::{PASSWORD, USER};
use bulk::Job;
use lane::{Lane, Place};
pub use mix::Mix;
use station::Station;

/// What load to put on which server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub address: SocketAddr,
    /// Who logs in.
    pub user: String,
    /// The password.
    pub password: String,
    /// Which share.
    pub share: String,
    /// How requests are protected.
    pub protection: Protection,
    /// How many connections.
    pub connections: usize,
    /// How many clients, spread over the connections.
    pub clients: usize,
    /// Operations under way for each client at a time.
    pub depth: usize,
    /// What they do.
    pub mix: Mix,
    /// Where they do it.
    pub directories: Directories,
    /// Files that stand in each directory already before the run, beside those that the mix itself needs.
    pub names: usize,
    /// Operations that material is made for at a time.
    pub round: u64,
    /// Whether the signatures of replies are verified.
    pub verify: bool,
    /// The share's directory if it is on this machine: the directories and names are then made and removed there directly.
    pub local: Option<PathBuf>,
}

impl Plan {
    /// One signed connection with one client that has one operation under way, as the user of our own servers, in one
    /// directory.
    pub fn new(address: SocketAddr, share: &str, mix: Mix) -> Plan {
        Plan {
            address,
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            share: share.to_owned(),
            protection: Protection::Signed,
            connections: 1,
            clients: 1,
            depth: 1,
            mix,
            directories: Directories::One,
            names: 0,
            round: 2_000,
            verify: true,
            local: None,
        }
    }

    fn lanes(&self) -> usize {
        self.clients * self.depth
    }

    fn directories(&self) -> usize {
        match self.directories {
            Directories::One => 1,
            Directories::Many(count) => count.max(1),
        }
    }

    /// Files in each directory beside those that are a lane's own.
    fn names(&self) -> usize {
        self.names.max(self.mix.names_min())
    }
}

/// Where the clients work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directories {
    /// All in one directory.
    One,
    /// Spread evenly over so many.
    Many(usize),
}

/// When a measurement ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After this time on the clock.
    Time(Duration),
    /// After so many operations.
    Operations(u64),
}

/// What a measurement found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Operations that ended as they should.
    pub operations: u64,
    /// How long they took together, without the time between rounds.
    pub elapsed: Duration,
    /// Payload read, written or listed.
    pub bytes: u64,
    /// Of each operation, in nanoseconds.
    pub latencies: Histogram<u64>,
    /// Operations that ended otherwise, by the name of the status or the words for what broke.
    pub errors: BTreeMap<String, u64>,
}

impl Outcome {
    fn empty() -> Outcome {
        Outcome {
            operations: 0,
            elapsed: Duration::ZERO,
            bytes: 0,
            latencies: histogram(),
            errors: BTreeMap::new(),
        }
    }

    /// Operations per second.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.operations as f64 / seconds } else { 0.0 }
    }

    /// The latency in which this part of the operations (0.99, say) was done.
    pub fn latency(&self, part: f64) -> Duration {
        Duration::from_nanos(self.latencies.value_at_quantile(part))
    }

    /// Adds what another found beside it or after it; the time is the caller's.
    fn add(&mut self, other: &Outcome) {
        self.operations += other.operations;
        self.bytes += other.bytes;
        // Both have the same bounds and grow by themselves.
        let _ = self.latencies.add(&other.latencies);
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are within the histogram's bounds")
}

/// What is left of a measurement, shared by all connections.
struct Budget {
    operations: AtomicU64,
    until: Option<Instant>,
    /// A lane has no material any more: the round is over for all.
    over: AtomicBool,
}

impl Budget {
    /// Whether another operation may begin at this time.
    fn take(&self, now: Instant) -> bool {
        if self.over.load(Ordering::Relaxed) || self.until.is_some_and(|until| now >= until) {
            return false;
        }
        self.operations.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Connections that are logged in, with their lanes and the material.
pub struct Prepared {
    plan: Plan,
    stations: Vec<Station>,
    directories: Vec<String>,
    done: Arc<AtomicU64>,
}

/// Connects, logs in, and makes the directories, names and files that the mix needs.
pub async fn prepare(plan: &Plan) -> Result<Prepared> {
    if plan.connections == 0 || plan.clients == 0 || plan.depth == 0 {
        return Err(Trouble::Broken(
            "a load needs a connection, a client and a request under way".to_owned(),
        ));
    }
    let mut label = [0; 4];
    shoal_protocol::crypto::random(&mut label);
    let label = u32::from_le_bytes(label);
    let directories: Vec<String> =
        (0..plan.directories()).map(|number| format!("load-{label:08x}-{number}")).collect();
    let done = Arc::new(AtomicU64::new(0));
    let payload = mix::payload(plan.mix.payload_max());
    let connections = plan.connections.min(plan.clients);
    let mut stations = Vec::with_capacity(connections);
    for number in 0..connections {
        let mut connection = Connection::connect(plan.address).await?;
        connection.verify(plan.verify);
        let session = connection.login(&plan.user, &plan.password, plan.protection).await?;
        let tree = connection.tree_connect(session, &plan.share).await?;
        let mut lanes = Vec::new();
        for client in (number..plan.clients).step_by(connections) {
            for lane in 0..plan.depth {
                let place = Place {
                    directory: directories[client % directories.len()].clone(),
                    label: format!("{client}-{lane}"),
                    seed: (client * plan.depth + lane) as u64,
                    names: plan.names(),
                    span: plan.mix.span(plan.lanes()),
                };
                lanes.push(Lane::new(plan.mix, place, payload.clone()));
            }
        }
        stations.push(Station::new(connection, tree, lanes, Arc::clone(&done)));
    }
    let mut prepared = Prepared { plan: plan.clone(), stations, directories, done };
    prepared.furnish().await?;
    prepared.restock(plan.round).await?;
    Ok(prepared)
}

impl Prepared {
    /// Operations done so far, for who wants to watch.
    pub fn done(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.done)
    }

    /// Has all lanes work until the limit.
    pub async fn measure(&mut self, limit: Limit) -> Result<Outcome> {
        let mut total = Outcome::empty();
        loop {
            let began = Instant::now();
            let (operations, until) = match limit {
                Limit::Time(time) => (u64::MAX, Some(began + time.saturating_sub(total.elapsed))),
                Limit::Operations(count) => (count - total.operations, None),
            };
            let budget = Arc::new(Budget {
                operations: AtomicU64::new(operations),
                until,
                over: AtomicBool::new(false),
            });
            let outcomes = self.each(move |mut station| {
                let budget = Arc::clone(&budget);
                async move {
                    let outcome = station.drive(&budget).await;
                    Ok((station, outcome))
                }
            });
            let outcomes = outcomes.await?;
            total.elapsed += began.elapsed();
            outcomes.iter().for_each(|outcome| total.add(outcome));
            let ended = match limit {
                Limit::Time(time) => total.elapsed >= time,
                // What failed counts as well, or a server that fails all would hold us for ever.
                Limit::Operations(count) => total.operations + total.errors.values().sum::<u64>() >= count,
            };
            if ended || self.stations.iter().all(|station| station.is_broken()) {
                return Ok(total);
            }
            self.restock(self.plan.round).await?;
        }
    }

    /// Makes ready for so many operations: removes what the last ones left, makes what the next ones use up.
    pub async fn restock(&mut self, operations: u64) -> Result<()> {
        if !self.plan.mix.uses_material() {
            return Ok(());
        }
        let lanes = self.plan.lanes() as u64;
        // One lane does all there is; several do not share it out evenly.
        let each = if lanes == 1 { operations } else { operations.div_ceil(lanes) * 5 / 4 + 8 };
        self.each(move |mut station| async move {
            station.restock(each).await?;
            Ok((station, ()))
        })
        .await?;
        Ok(())
    }

    /// Closes what is open and removes what was made.
    pub async fn finish(mut self) -> Result<()> {
        self.each(|mut station| async move {
            station.finish().await?;
            Ok((station, ()))
        })
        .await?;
        if let Some(local) = &self.plan.local {
            for directory in &self.directories {
                std::fs::remove_dir_all(local.join(directory))?;
            }
            return Ok(());
        }
        let jobs = self.directories.iter().flat_map(|directory| {
            (0..self.plan.names())
                .map(move |number| Job::Remove(format!("{directory}\\{}", mix::name(number))))
        });
        let jobs: Vec<Job> = jobs.collect();
        self.share_out(jobs).await?;
        let directories = std::mem::take(&mut self.directories);
        self.share_out(directories.into_iter().map(Job::RemoveDirectory).collect()).await
    }

    /// Makes the directories, the names in them, and what each lane has of its own.
    async fn furnish(&mut self) -> Result<()> {
        let names = self.plan.names();
        if let Some(local) = &self.plan.local {
            for directory in &self.directories {
                let path = local.join(directory);
                std::fs::create_dir(&path)?;
                // The server may be another user than we are.
                std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
                for number in 0..names {
                    std::fs::write(path.join(mix::name(number)), b"")?;
                }
            }
        } else {
            self.share_out(self.directories.iter().cloned().map(Job::MakeDirectory).collect()).await?;
            let jobs = self.directories.iter().flat_map(|directory| {
                (0..names).map(move |number| Job::Make(format!("{directory}\\{}", mix::name(number))))
            });
            let jobs: Vec<Job> = jobs.collect();
            self.share_out(jobs).await?;
        }
        self.each(|mut station| async move {
            station.furnish().await?;
            Ok((station, ()))
        })
        .await?;
        Ok(())
    }

    /// Has the connections do these jobs together.
    async fn share_out(&mut self, jobs: Vec<Job>) -> Result<()> {
        let count = self.stations.len();
        let mut shares: Vec<Vec<Job>> = (0..count).map(|_| Vec::new()).collect();
        for (number, job) in jobs.into_iter().enumerate() {
            shares[number % count].push(job);
        }
        self.each(move |mut station| {
            let jobs = shares.pop().unwrap_or_default();
            async move {
                station.work_off(jobs).await?;
                Ok((station, ()))
            }
        })
        .await?;
        Ok(())
    }

    /// Runs `what` for every station beside each other, a task each.
    async fn each<T, F>(&mut self, mut what: impl FnMut(Station) -> F) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<(Station, T)>> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for (number, station) in std::mem::take(&mut self.stations).into_iter().enumerate() {
            let work = what(station);
            tasks.spawn(async move { work.await.map(|(station, found)| (number, station, found)) });
        }
        let mut ended = Vec::new();
        while let Some(task) = tasks.join_next().await {
            ended.push(task.map_err(|e| Trouble::Broken(format!("a task of the load: {e}")))??);
        }
        ended.sort_by_key(|(number, ..)| *number);
        let (stations, found) = ended.into_iter().map(|(_, station, found)| (station, found)).unzip();
        self.stations = stations;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_once() {
        let budget = Budget { operations: AtomicU64::new(2), until: None, over: AtomicBool::new(false) };
        let now = Instant::now();
        assert_eq!([budget.take(now), budget.take(now), budget.take(now)], [true, true, false]);
        let budget = Budget { operations: AtomicU64::new(9), until: Some(now), over: AtomicBool::new(false) };
        assert!(!budget.take(now));
        let budget = Budget { operations: AtomicU64::new(9), until: None, over: AtomicBool::new(true) };
        assert!(!budget.take(now));
    }

    #[test]
    fn outcomes_add_up() {
        let mut total = Outcome::empty();
        assert_eq!(total.rate(), 0.0);
        for (operations, nanoseconds) in [(98, 1_000), (2, 5_000_000)] {
            let mut one = Outcome { operations, bytes: 10, ..Outcome::empty() };
            one.latencies.record_n(nanoseconds, operations).expect("is within the bounds");
            one.errors.insert("STATUS_X".to_owned(), 3);
            total.add(&one);
        }
        total.elapsed = Duration::from_millis(500);
        assert_eq!((total.operations, total.bytes, total.errors["STATUS_X"]), (100, 20, 6));
        assert_eq!(total.rate(), 200.0);
        // Three digits: within a thousandth.
        assert_eq!(total.latency(0.5).as_nanos() / 10, 100);
        assert_eq!(total.latency(0.98).as_nanos() / 10, 100);
        assert_eq!(total.latency(0.99).as_micros() / 10, 500);
    }
}
