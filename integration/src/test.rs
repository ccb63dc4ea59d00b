//! `cargo integration test`: every check there is. `.ci/run` calls it and nothing else.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::checks::{Checks, Failure};
use crate::release::RELEASE_BUILD;
use crate::server::workspace;
use crate::{compose, crowd, hostile, idle, load, models, parallel, peers, smbclient, storm, torture, tree};

/// `cargo integration test`.
#[derive(clap::Args)]
pub struct Options {
    /// Only these parts, by the names that a wrong one lists
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// What a part wants to find when it starts.
#[derive(Clone, Copy, PartialEq)]
enum Wants {
    /// Cargo alone.
    Nothing,
    /// The server's release build.
    Server,
    /// That, and Samba's clients.
    Peers,
}

/// The parts of the run, in their order: the name, what it wants, and the part itself.
type Part = (&'static str, Wants, fn(&mut Checks));
const PARTS: &[Part] = &[
    ("lint", Wants::Nothing, lint),
    ("unit", Wants::Nothing, unit),
    ("models", Wants::Nothing, models::run),
    ("smbclient", Wants::Peers, |checks| smbclient::run(checks, &smbclient::Options::default())),
    ("tree", Wants::Peers, |checks| tree::run(checks, &tree::Options::default())),
    ("crowd", Wants::Server, |checks| crowd::run(checks, &crowd::Options::default())),
    ("storm", Wants::Server, |checks| storm::run(checks, &storm::Options::short())),
    ("parallel", Wants::Server, |checks| parallel::run(checks, &parallel::Options::functional())),
    ("load", Wants::Peers, load::command::functional),
    ("idle", Wants::Server, |checks| idle::run(checks, &idle::Options::short())),
    ("hostile", Wants::Peers, |checks| hostile::run(checks, &hostile::Options::default())),
    ("torture", Wants::Peers, |checks| torture::run(checks, &torture::Options::default())),
    ("compose", Wants::Server, |checks| compose::run(checks, &compose::Options::default())),
    ("fuzz", Wants::Nothing, fuzz),
];

/// Runs all, or the chosen parts.
pub fn run(checks: &mut Checks, options: &Options) {
    let names: Vec<&str> = PARTS.iter().map(|(name, ..)| *name).collect();
    if let Some(unknown) = options.only.iter().find(|part| !names.contains(&part.as_str())) {
        let why = format!("no part {unknown}; there are: {}", names.join(", "));
        return checks.record("arguments", Err(why));
    }
    let (mut server, mut clients) = (None, None);
    let mut times = Vec::new();
    for (name, wants, part) in PARTS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        checks.note(&format!("part {name}"));
        let begun = Instant::now();
        // Each once, by the first part that wants it. Without it, what would follow says nothing.
        let there = (*wants != Wants::Peers || *clients.get_or_insert_with(|| samba(checks)))
            && (*wants == Wants::Nothing || *server.get_or_insert_with(|| release(checks)));
        if there {
            part(checks);
        } else {
            checks.record(name, Err("cannot start without what failed above".to_owned()));
        }
        times.push(format!("{name} {:.0}", begun.elapsed().as_secs_f32()));
    }
    checks.note(&format!("seconds by part: {}", times.join(", ")));
}

fn samba(checks: &mut Checks) -> bool {
    checks.check("peers: smbclient and smbtorture of Samba 4.22", peers::install)
}

fn release(checks: &mut Checks) -> bool {
    checks.check("cargo build --release", || cargo(RELEASE_BUILD, &[]))
}

fn lint(checks: &mut Checks) {
    checks.check("cargo fmt --check", || cargo(&["fmt", "--all", "--check"], &[]));
    checks.check("cargo clippy -D warnings", || {
        cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[])
    });
    checks.check("cargo doc -D warnings", || {
        cargo(&["doc", "--quiet", "--workspace", "--no-deps", "--locked"], &[("RUSTDOCFLAGS", "-D warnings")])
    });
    licences(checks);
}

/// Library, binary, wire and doc tests of every crate, `tidy` among them.
fn unit(checks: &mut Checks) {
    checks.check("cargo test: unit, wire, suite and documentation tests", || {
        cargo(&["test", "--quiet", "--workspace", "--locked"], &[])
    });
}

/// `cargo deny`, where it is installed.
fn licences(checks: &mut Checks) {
    let there = Command::new("cargo")
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if there.is_ok_and(|status| status.success()) {
        checks.check("cargo deny: licences and bans", || cargo(&["deny", "check", "licenses", "bans"], &[]));
    } else {
        checks.skip("cargo deny", "not installed here");
    }
}

/// A short smoke of each fuzz target, where `cargo fuzz` is installed.
fn fuzz(checks: &mut Checks) {
    let there = Command::new("cargo")
        .args(["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !there.is_ok_and(|status| status.success()) {
        return checks.skip("cargo fuzz", "not installed here");
    }
    for target in ["message", "chain", "spnego", "ndr"] {
        checks.check(&format!("cargo fuzz run {target}, 15 s"), || {
            let status = Command::new("cargo")
                .args([
                    "fuzz",
                    "run",
                    "--sanitizer",
                    "none",
                    target,
                    "--",
                    "-max_total_time=15",
                    "-verbosity=0",
                ])
                .current_dir(workspace().join("protocol"))
                .stdin(Stdio::null())
                .status()
                .map_err(|e| format!("cannot run cargo fuzz: {e}"))?;
            if status.success() {
                Ok(())
            } else {
                Err(format!("{status}: see protocol/fuzz/artifacts/{target}"))
            }
        });
    }
}

/// Runs cargo at the top of the workspace.
pub fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), Failure> {
    let status = Command::new("cargo")
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(workspace())
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {}: {status}", arguments.join(" "))) }
}
