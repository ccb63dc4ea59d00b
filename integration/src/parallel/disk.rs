//! What the parallel lookup cache gains on a disk of this machine, where the kernel's own lock of a directory still lets
//! only one change of it happen at a time.
//!
//! Creates of many clients in one directory, with claims and with the directory lock: what is around the kernel's part (the
//! lookup, share modes, attributes, signatures, replies) happens beside each other with the one and in turn with the
//! other. And opens of absent names, another each time, in a directory of 100,000: the name index answers them, where
//! Samba has to read the directory to find that no spelling of the name is there.

use std::path::Path;
use std::time::Duration;

use super::{CLIENTS, CONNECTIONS, Lock, Options, REQUESTS, median};
use crate::checks::{Checks, Failure, demand};
use crate::load::command::runtime;
use crate::load::{Limit, Mix, Outcome, Plan, prepare};
use crate::samba::Samba;
use crate::scratch::Scratch;
use crate::server::Server;

const NAMES: usize = 100_000;
/// Misses of Shoal that are measured in a round, and of Samba, which takes thousands of times as long.
const MISSES: [u64; 2] = [5_000, 30];
/// Misses before those that count: the index is filled by the second.
const WARM: u64 = 10;

/// `cargo integration parallel --disk`.
pub fn run(checks: &mut Checks, options: &Options) {
    let disk: fn(&str) -> Scratch = Scratch::new;
    for (place, scratch) in [("disk", disk), ("tmpfs", Scratch::in_memory)] {
        checks.check(&format!("parallel: creates in one directory on {place}, with both locks"), || {
            let [claims, lock] = creates(scratch, options)?;
            println!("creates on {place}, claims: {claims:.0}/s, directory lock: {lock:.0}/s");
            println!("creates on {place} claims / directory lock: {:.2}", claims / lock);
            Ok(())
        });
    }
    checks.check(&format!("parallel: names that are absent among {NAMES}"), || {
        let [shoal, samba] = misses(options)?;
        let [shoal, samba] = [shoal, samba].map(|time| time.as_nanos() as f64 / 1000.0);
        println!("misses among {NAMES} names, median: Shoal {shoal:.1} us, Samba {samba:.1} us");
        Ok(())
    });
}

async fn measure(plan: &Plan, warm: u64, limit: Limit) -> Result<Outcome, Failure> {
    let mut prepared = prepare(plan).await.map_err(|e| e.to_string())?;
    if warm > 0 {
        prepared.measure(Limit::Operations(warm)).await.map_err(|e| e.to_string())?;
    }
    let outcome = prepared.measure(limit).await.map_err(|e| e.to_string())?;
    prepared.finish().await.map_err(|e| format!("cleaning up: {e}"))?;
    demand(outcome.errors.is_empty(), || format!("{}: {:?}", plan.mix, outcome.errors))?;
    Ok(outcome)
}

fn start(scratch: &Scratch, share: &Path, lock: Lock) -> Result<Server, Failure> {
    let shares = [format!("disk={}", share.display())];
    Server::start_with(scratch.path(), &shares, &["--config", &super::settings(scratch, lock)?])
}

/// The rates with claims and with the directory lock, measured in turns.
fn creates(scratch: fn(&str) -> Scratch, options: &Options) -> Result<[f64; 2], Failure> {
    let scratch = [scratch("parallel"), scratch("parallel")];
    let locks = [Lock::Claims, Lock::Directory];
    let mut servers = Vec::new();
    for (scratch, lock) in scratch.iter().zip(locks) {
        servers.push(start(scratch, &scratch.directory("share"), lock)?);
    }
    let time = Limit::Time(Duration::from_secs_f64(options.seconds.clamp(0.05, 3600.0)));
    let mut rates = [Vec::new(), Vec::new()];
    let runtime = runtime(CONNECTIONS)?;
    for _ in 0..options.rounds.max(1) {
        for (server, rates) in servers.iter().zip(&mut rates) {
            let plan = Plan {
                clients: CLIENTS,
                connections: CONNECTIONS,
                depth: REQUESTS,
                round: 8_192,
                ..Plan::new(server.address, "disk", Mix::Create)
            };
            rates.push(runtime.block_on(measure(&plan, 0, time))?.rate());
        }
    }
    for server in servers {
        server.stop()?;
    }
    Ok(rates.map(median))
}

/// The median times of Shoal and of Samba, in turns.
fn misses(options: &Options) -> Result<[Duration; 2], Failure> {
    let scratch = [Scratch::new("parallel"), Scratch::new("parallel")];
    let shares = [scratch[0].directory("share"), scratch[1].directory("share")];
    let server = start(&scratch[0], &shares[0], Lock::Claims)?;
    let mut samba = Samba::start(&[("disk", &shares[1])])?;
    let mut times = [Vec::new(), Vec::new()];
    let runtime = runtime(1)?;
    let addresses = [server.address, samba.address];
    for _ in 0..options.rounds.max(1) {
        for (which, address) in addresses.into_iter().enumerate() {
            let plan = Plan {
                names: NAMES,
                local: Some(shares[which].clone()),
                ..Plan::new(address, "disk", Mix::OpenAbsent)
            };
            let outcome = runtime.block_on(measure(&plan, WARM, Limit::Operations(MISSES[which])))?;
            times[which].push(outcome.latency(0.5).as_secs_f64());
        }
    }
    samba.must_run()?;
    server.stop()?;
    Ok(times.map(|times| Duration::from_secs_f64(median(times))))
}
