//! `cargo integration torture`: smbtorture's tests, each in a process of its own, against expectations.
//!
//! Every worker has a server of its own on a fresh directory, because many smb2 tests use fixed file names. What
//! `torture/expected.toml` says of a test is held to in both directions: an unexpected pass fails the run as well.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::checks::{Checks, Failure};
use crate::divide::Claims;
use crate::scratch::{Scratch, wipe};
use crate::server::{PASSWORD, PASSWORD2, Server, USER, USER2};

/// Longer than the longest test of Samba's own run takes, twice over.
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// `cargo integration torture`.
#[derive(clap::Args, Clone)]
pub struct Options {
    /// Suites or tests (smb2.lock, smb2.lock.cancel); without any, every test that expected.toml lists
    pub suites: Vec<String>,
    /// Run against this server instead of starting one; its share's contents are the tests' to remove
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// The share to run on
    #[arg(long, default_value = "share")]
    pub share: String,
    /// User and password on a server given by --server
    #[arg(long, value_name = "NAME%PASSWORD")]
    pub user: Option<String>,
    /// Tests at once, each against a server of its own (with --server: one after the other)
    #[arg(long, default_value_t = 4)]
    pub workers: usize,
    /// Share the suites out with all who do the same on the share of --server; first the tests that all may run at once
    #[arg(long, requires = "server")]
    pub divide: bool,
    /// What the share stands on: a temporary directory, or `memory:`
    #[arg(long, default_value = "directory")]
    pub target: String,
    /// Keep every test's output in this directory
    #[arg(long, value_name = "DIR")]
    pub logs: Option<std::path::PathBuf>,
    /// Run each test this many times
    #[arg(long, default_value_t = 1)]
    pub repeat: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            suites: Vec::new(),
            server: None,
            share: "share".to_owned(),
            user: None,
            workers: 4,
            divide: false,
            target: "directory".to_owned(),
            logs: None,
            repeat: 1,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectations {
    pass: Vec<String>,
    long: Vec<String>,
    controls: Vec<String>,
    alone: Vec<String>,
    together: Vec<String>,
    #[serde(default)]
    fail: Vec<ExpectedFailure>,
}

/// A test that a better server passes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedFailure {
    test: String,
    /// The feature that it needs.
    needs: String,
    /// Which server passes it.
    better: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Pass,
    Fail,
    Skip,
}

/// `cargo integration torture`.
pub fn run(checks: &mut Checks, options: &Options) {
    if let Err(why) = run_all(checks, options) {
        checks.record("smbtorture", Err(why));
    }
}

fn run_all(checks: &mut Checks, options: &Options) -> Result<(), Failure> {
    let expected = expectations()?;
    if options.divide {
        return divided(checks, options, &expected);
    }
    let tests = chosen(&expected, &options.suites)?;
    let jobs: VecDeque<String> =
        tests.iter().flat_map(|test| std::iter::repeat_n(test.clone(), options.repeat)).collect();
    let workers = if options.server.is_some() { 1 } else { options.workers.clamp(1, jobs.len().max(1)) };
    checks.note(&format!("smbtorture: {} tests, {workers} at once, on {}", jobs.len(), options.target));
    if let Some(logs) = &options.logs {
        std::fs::create_dir_all(logs).map_err(|e| format!("cannot make {}: {e}", logs.display()))?;
    }

    let jobs = Mutex::new(jobs);
    let checks = Mutex::new(checks);
    let counts = Mutex::new(BTreeMap::<&str, u32>::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                if let Err(why) = work(options, &expected, &jobs, &checks, &counts) {
                    checks.lock().expect("no check panics").record("smbtorture's server", Err(why));
                }
            });
        }
    });
    summary(&counts.into_inner().expect("no worker panics"));
    Ok(())
}

fn expectations() -> Result<Expectations, Failure> {
    toml::from_str(include_str!("../torture/expected.toml")).map_err(|e| format!("expected.toml: {e}"))
}

/// How many tests `programs` run together that share them out among themselves.
pub fn divided_tests(programs: usize) -> Result<usize, Failure> {
    let expected = expectations()?;
    let shared_out: usize = suites(&expected).iter().map(|(_, tests)| tests.len()).sum();
    Ok(expected.together.len() * programs + shared_out)
}

fn summary(counts: &BTreeMap<&str, u32>) {
    let line: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    println!("smbtorture: {}", line.join(", "));
}

/// `--divide`: what all run at once, and then the suites that nobody else has taken. Suites do not get in each other's
/// way, because each has file names of its own; two runs of one suite would.
fn divided(checks: &mut Checks, options: &Options, expected: &Expectations) -> Result<(), Failure> {
    let place = options.server.as_deref().unwrap_or_default();
    let address = resolve(place)?;
    let user = options.user.clone().unwrap_or_else(|| format!("{USER}%{PASSWORD}"));
    let (name, password) = user.split_once('%').ok_or("--user wants NAME%PASSWORD")?;
    let scratch = Scratch::new("torture");
    let client = scratch.directory("client");
    let log = scratch.path().join("smbtorture.log");
    let mut counts = BTreeMap::new();
    let mut run = |test: &str| -> Result<(), Failure> {
        let begun = Instant::now();
        let (verdict, why) = one(options, test, place, &client, &log)?;
        let (word, outcome) = judge(expected, test, verdict, why);
        println!("{word:16} {:6.1}s  {test}", begun.elapsed().as_secs_f32());
        *counts.entry(word).or_default() += 1;
        checks.record(test, outcome);
        Ok(())
    };
    let mut claims = Claims::join(address, name, password, &options.share)?;
    for test in &expected.together {
        run(test)?;
    }
    for (suite, tests) in suites(expected) {
        if claims.claim(&suite)? {
            for test in tests {
                run(&test)?;
            }
        }
    }
    claims.leave(TIME_LIMIT)?;
    summary(&counts);
    Ok(())
}

/// The tests that must pass, by suite; the suites with the longest tests first.
fn suites(expected: &Expectations) -> Vec<(String, Vec<String>)> {
    let mut suites = BTreeMap::<String, Vec<String>>::new();
    let fit = |test: &&String| !expected.controls.contains(test) && !expected.alone.contains(test);
    for test in expected.pass.iter().filter(fit) {
        let suite: Vec<&str> = test.splitn(3, '.').take(2).collect();
        suites.entry(suite.join(".")).or_default().push(test.clone());
    }
    let mut suites: Vec<_> = suites.into_iter().collect();
    let long = |tests: &[String]| tests.iter().filter(|test| expected.long.contains(test)).count();
    suites.sort_by_key(|(_, tests)| std::cmp::Reverse((long(tests), tests.len())));
    suites
}

/// The address of HOST:PORT.
fn resolve(place: &str) -> Result<SocketAddr, Failure> {
    let mut found = place.to_socket_addrs().map_err(|e| format!("{place}: {e}"))?;
    found.next().ok_or_else(|| format!("{place} has no address"))
}

/// The tests that were asked for, the longest first.
fn chosen(expected: &Expectations, suites: &[String]) -> Result<Vec<String>, Failure> {
    let listed = || expected.pass.iter().chain(expected.fail.iter().map(|fail| &fail.test));
    let mut tests: Vec<String> = if suites.is_empty() {
        listed().cloned().collect()
    } else {
        // smbtorture prints SUITE.CASE.TEST and runs SUITE.CASE.
        let output = Command::new("smbtorture").arg("--list").stdin(Stdio::null()).output();
        let output = output.map_err(|e| format!("cannot run smbtorture: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let known = text.lines().filter_map(|line| line.rsplit_once('.').map(|(test, _)| test.to_owned()));
        let wanted = |test: &String| {
            suites.iter().any(|suite| {
                test == suite || test.strip_prefix(suite.as_str()).is_some_and(|r| r.starts_with('.'))
            })
        };
        known.filter(wanted).collect()
    };
    if tests.is_empty() {
        return Err(format!("smbtorture has no test of that name: {}", suites.join(" ")));
    }
    let rank = |test: &String| expected.long.iter().position(|long| long == test).unwrap_or(usize::MAX);
    tests.sort_by_key(rank);
    Ok(tests)
}

fn work(
    options: &Options,
    expected: &Expectations,
    jobs: &Mutex<VecDeque<String>>,
    checks: &Mutex<&mut Checks>,
    counts: &Mutex<BTreeMap<&str, u32>>,
) -> Result<(), Failure> {
    let scratch = Scratch::new("torture");
    let share = scratch.directory("share");
    let client = scratch.directory("client");
    let mut server = None;
    loop {
        let Some(test) = jobs.lock().expect("no worker panics").pop_front() else { break };
        wipe(&share).map_err(|e| format!("cannot empty {}: {e}", share.display()))?;
        let place = match &options.server {
            Some(place) => place.clone(),
            None => {
                // A memory share is emptied by starting anew.
                if options.target.starts_with("memory") {
                    server = None;
                }
                if server.is_none() {
                    let target = match options.target.as_str() {
                        "directory" => share.display().to_string(),
                        other => other.to_owned(),
                    };
                    let config = scratch.path().join("torture.toml");
                    std::fs::write(&config, "[server]\ntorture_controls = true\n")
                        .map_err(|e| format!("cannot write {}: {e}", config.display()))?;
                    let config = config.display().to_string();
                    let shares = [format!("share={target}")];
                    server = Some(Server::start_with(scratch.path(), &shares, &["--config", &config])?);
                }
                server.as_ref().expect("started above").address.to_string()
            }
        };
        let log = match &options.logs {
            Some(logs) => logs.join(format!("{}.log", test.replace(' ', "_"))),
            None => scratch.path().join("smbtorture.log"),
        };
        let begun = Instant::now();
        let (verdict, why) = one(options, &test, &place, &client, &log)?;
        let seconds = begun.elapsed().as_secs_f32();
        let mut broken = None;
        if let Some(running) = server.as_mut()
            && let Err(why) = running.must_run().and_then(|()| running.must_not_have_panicked())
        {
            broken = Some(why);
            server = None;
        }
        let (word, outcome) = judge(expected, &test, verdict, why);
        let outcome = match broken {
            Some(why) => {
                Err(format!("{why}; the test: {}", outcome.err().unwrap_or_else(|| word.to_owned())))
            }
            None => outcome,
        };
        println!("{word:16} {seconds:6.1}s  {test}");
        *counts.lock().expect("no worker panics").entry(word).or_default() += 1;
        checks.lock().expect("no check panics").record(&test, outcome);
    }
    match server {
        Some(server) => server.stop(),
        None => Ok(()),
    }
}

fn judge(
    expected: &Expectations,
    test: &str,
    verdict: Verdict,
    why: String,
) -> (&'static str, Result<(), Failure>) {
    let listed = expected.fail.iter().find(|fail| fail.test == test);
    let must_pass = expected.pass.iter().chain(&expected.together).any(|pass| pass == test);
    match (verdict, listed) {
        (Verdict::Pass, None) => ("pass", Ok(())),
        (Verdict::Pass, Some(fail)) => {
            let why = format!(
                "passes, though expected.toml says that it needs {}: take it off the list",
                fail.needs
            );
            ("unexpected pass", Err(why))
        }
        (_, Some(fail)) => {
            println!("                          needs {}; {} passes", fail.needs, fail.better);
            ("expected failure", Ok(()))
        }
        (Verdict::Skip, None) if !must_pass => ("skip", Ok(())),
        (Verdict::Skip, None) => ("skip", Err(format!("skipped: {why}"))),
        (Verdict::Fail, None) if must_pass => ("fail", Err(why)),
        // Samba 4.22 does not pass it either, or it belongs to a suite that is not held to yet.
        (Verdict::Fail, None) => {
            println!("                          {why}");
            ("fail, not listed", Ok(()))
        }
    }
}

/// Runs one test; the text says how it ended if it did not pass.
fn one(
    options: &Options,
    test: &str,
    place: &str,
    directory: &Path,
    log: &Path,
) -> Result<(Verdict, String), Failure> {
    let user = options.user.clone().unwrap_or_else(|| format!("{USER}%{PASSWORD}"));
    let (host, port) = place.rsplit_once(':').ok_or_else(|| format!("{place} is no HOST:PORT"))?;
    let output = File::create(log).map_err(|e| format!("cannot make {}: {e}", log.display()))?;
    let stderr = output.try_clone().map_err(|e| e.to_string())?;
    let mut command = Command::new("smbtorture");
    command
        .arg(format!("//{host}/{}", options.share))
        .args(["-p", port, "-U", &user, "--configfile=/dev/null"])
        .arg("--option=torture:progress=no")
        .arg(format!("--option=torture:user2name={USER2}"))
        .arg(format!("--option=torture:user2password={PASSWORD2}"))
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(stderr)
        .process_group(0);
    if options.divide {
        // How long a test of smb2.bench goes on, 10 s otherwise.
        command.arg("--option=torture:timelimit=3");
    }
    command.arg(test);
    let mut child = command.spawn().map_err(|e| format!("cannot start smbtorture: {e}"))?;
    let deadline = Instant::now() + TIME_LIMIT;
    let ended = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    if ended.is_none() {
        let _ = rustix::process::kill_process_group(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::KILL,
        );
        let _ = child.wait();
    }
    let mut text = Vec::new();
    File::open(log).and_then(|mut file| file.read_to_end(&mut text)).map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&text);
    let Some(status) = ended else {
        return Ok((Verdict::Fail, format!("killed after {TIME_LIMIT:?}; last: {}", last_words(&text))));
    };
    let mut verdict = None;
    for line in text.lines() {
        let word = line.split_once(": ").map(|(word, _)| word);
        match word {
            Some("failure" | "error") => verdict = Some(Verdict::Fail),
            Some("skip") if verdict.is_none() => verdict = Some(Verdict::Skip),
            Some("success") if verdict.is_none() => verdict = Some(Verdict::Pass),
            _ => {}
        }
    }
    Ok(match verdict {
        Some(Verdict::Pass) if status.success() => (Verdict::Pass, String::new()),
        Some(Verdict::Skip) => (Verdict::Skip, reason(&text)),
        Some(_) => (Verdict::Fail, reason(&text)),
        None => (Verdict::Fail, format!("no result, {status}; last: {}", last_words(&text))),
    })
}

/// What stands between the brackets of the first failure, on one line.
fn reason(text: &str) -> String {
    let mut lines = text.lines().skip_while(|line| {
        !(line.ends_with('[') && ["failure: ", "error: ", "skip: "].iter().any(|word| line.starts_with(word)))
    });
    lines.next();
    let body: Vec<&str> = lines.take_while(|line| *line != "]").collect();
    let body = body.join(" ");
    if body.is_empty() { last_words(text) } else { body.chars().take(400).collect() }
}

fn last_words(text: &str) -> String {
    let mut told = text.lines().filter(|line| !line.starts_with("time: ") && !line.trim().is_empty());
    told.next_back().unwrap_or("(nothing)").chars().take(300).collect()
}
