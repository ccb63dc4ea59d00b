//! `cargo integration load --smbtorture N`: so many real smbtorture processes at once instead of our own client.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::checks::{Checks, Failure, demand};
use crate::peers;
use crate::scratch::Scratch;
use crate::server::Server;
use crate::usage::Memory;

/// What every process runs where no tests are named.
pub const TESTS: [&str; 4] =
    ["smb2.bench.path-contention-shared", "smb2.bench.echo", "smb2.bench.read", "smb2.bench.session-setup"];
/// How much longer than its time a test may take: connecting, and what it makes and removes.
const GRACE: Duration = Duration::from_secs(60);

/// What to run.
pub struct Torture<'a> {
    /// How many processes.
    pub processes: usize,
    /// The tests that each runs, one after the other, each process beginning with another one.
    pub tests: Vec<String>,
    /// How long a test of `smb2.bench` goes on, in whole seconds.
    pub seconds: u64,
    /// Connections of each process.
    pub connections: usize,
    /// Requests under way on each connection.
    pub depth: usize,
    /// A server that runs already; without it one of our own is started, with a share in memory for each process.
    pub server: Option<SocketAddr>,
    /// The share on it.
    pub share: &'a str,
    /// The user.
    pub user: &'a str,
    /// The password.
    pub password: &'a str,
}

/// Runs them all and reports each one's result.
pub fn run(checks: &mut Checks, torture: &Torture<'_>) {
    if !checks.check("peers: smbclient and smbtorture of Samba 4.22", peers::install) {
        return;
    }
    let name = format!("load: {} smbtorture processes, {}", torture.processes, torture.tests.join(", "));
    checks.check(&name, || match torture.server {
        Some(address) => all(torture, address, |_| torture.share.to_owned()),
        None => {
            let scratch = Scratch::new("smbtorture");
            // A test's names are its own, but the same in every process.
            let shares: Vec<String> =
                (0..torture.processes).map(|number| format!("load-{number}=memory:")).collect();
            let mut server = Server::start(scratch.path(), &shares)?;
            let tree = server.processes();
            let (before, began) = (tree.cpu()?, Instant::now());
            all(torture, server.address, |number| format!("load-{number}"))?;
            let (cpu, elapsed) = (tree.cpu()?.since(&before).as_secs_f64(), began.elapsed().as_secs_f64());
            let Memory { resident, .. } = tree.memory()?;
            println!("server: {cpu:.2} s of CPU in {elapsed:.1} s, {} KiB resident", resident >> 10);
            server.must_run()?;
            server.stop()
        }
    });
}

/// Fails with the first of the tests that failed; all are reported.
fn all(torture: &Torture<'_>, address: SocketAddr, share: impl Fn(usize) -> String) -> Result<(), Failure> {
    let scratch = Scratch::new("smbtorture");
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..torture.processes {
            let (share, results, scratch) = (share(number), &results, &scratch);
            scope.spawn(move || {
                let directory = scratch.directory(&format!("process-{number}"));
                let first = number % torture.tests.len().max(1);
                for test in torture.tests.iter().cycle().skip(first).take(torture.tests.len()) {
                    let result = one(torture, test, address, &share, &directory);
                    let mut results = results.lock().expect("no process of the load panics");
                    results.push((number, test.clone(), result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no process of the load panics");
    results.sort_by_key(|(number, ..)| *number);
    let mut failed = Vec::new();
    for (number, test, result) in &results {
        match result {
            Ok(figures) => println!("smbtorture {number:<3} {test:<36} ok  {figures}"),
            Err(why) => {
                println!("smbtorture {number:<3} {test:<36} FAILED");
                failed.push(format!("process {number}, {test}: {why}"));
            }
        }
    }
    demand(failed.is_empty(), || failed.join("\n"))?;
    demand(!results.is_empty(), || "no process, or no test".to_owned())
}

/// Runs one test; what it gives is the test's own figures, if it has any.
fn one(
    torture: &Torture<'_>,
    test: &str,
    address: SocketAddr,
    share: &str,
    directory: &Path,
) -> Result<String, Failure> {
    let log = directory.join(format!("{test}.log"));
    let output = std::fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let stderr = output.try_clone().map_err(|e| e.to_string())?;
    let mut child = Command::new("smbtorture")
        .arg(format!("//{}/{share}", address.ip()))
        .args(["-p", &address.port().to_string()])
        .args(["-U", &format!("{}%{}", torture.user, torture.password), "--configfile=/dev/null"])
        .arg("--option=torture:progress=no")
        .arg(format!("--option=torture:timelimit={}", torture.seconds))
        .arg(format!("--option=torture:nprocs={}", torture.connections))
        .arg(format!("--option=torture:qdepth={}", torture.depth))
        .arg(test)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(stderr)
        .spawn()
        .map_err(|e| format!("cannot start smbtorture: {e}"))?;
    let deadline = Instant::now() + Duration::from_secs(torture.seconds) + GRACE;
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = std::fs::read(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let last =
        text.lines().rev().find(|line| !line.trim().is_empty() && *line != "]").unwrap_or("it said nothing");
    match status {
        None => {
            Err(format!("not done after {:?}; last: {last}", Duration::from_secs(torture.seconds) + GRACE))
        }
        Some(status) if status.success() && text.lines().any(|line| line.starts_with("success: ")) => {
            Ok(figures(&text))
        }
        Some(status) => Err(format!("{status}: {last}")),
    }
}

/// The last figures of a benchmark: `2.00 second: open[num/s=4002,...] close[num/s=4001,...]`.
fn figures(text: &str) -> String {
    let last =
        text.lines().rev().find_map(|line| line.split_once(" second: ").filter(|_| line.contains("num/s=")));
    let Some((_, line)) = last else { return String::new() };
    let figures = line.split_whitespace().filter_map(|figure| {
        let (verb, rest) = figure.split_once("[num/s=")?;
        let rate = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(format!("{verb} {rate}/s"))
    });
    figures.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmark_s_last_figures_are_read() {
        let text = "Running for 2 seconds\n1.00 second: open[num/s=1,avslat=0.1]\n\
                    2.00 second: open[num/s=4002,avslat=0.000510] close[num/s=4001,avslat=0.000488]\n\
                    2.00 seconds\nsuccess: path-contention-shared\n";
        assert_eq!(figures(text), "open 4002/s, close 4001/s");
        assert_eq!(figures("success: lock\n"), "");
    }
}
