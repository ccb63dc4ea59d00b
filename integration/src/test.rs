//! `cargo integration test`: every check there is. `.ci/run` calls it and nothing else.

use std::process::{Command, Stdio};

use crate::checks::{Checks, Failure};
use crate::server::workspace;
use crate::{crowd, hostile, idle, load, models, parallel, peers, smbclient, storm, torture, tree};

/// `cargo integration test`.
#[derive(clap::Args)]
pub struct Options {
    /// Only these parts: lint, unit, models, smbclient, tree, crowd, storm, idle, parallel, load, hostile,
    /// torture, fuzz
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

const PARTS: &[&str] = &[
    "lint",
    "unit",
    "models",
    "smbclient",
    "tree",
    "crowd",
    "storm",
    "idle",
    "parallel",
    "load",
    "hostile",
    "torture",
    "fuzz",
];

/// Runs all, or the chosen parts.
pub fn run(checks: &mut Checks, options: &Options) {
    if let Some(unknown) = options.only.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return checks
            .record("arguments", Err(format!("no part {unknown}; there are: {}", PARTS.join(", "))));
    }
    let wanted = |part: &str| options.only.is_empty() || options.only.iter().any(|only| only == part);
    if wanted("lint") {
        checks.check("cargo fmt --check", || cargo(&["fmt", "--all", "--check"], &[]));
        checks.check("cargo clippy -D warnings", || {
            cargo(
                &["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
                &[],
            )
        });
        checks.check("cargo doc -D warnings", || {
            cargo(
                &["doc", "--quiet", "--workspace", "--no-deps", "--locked"],
                &[("RUSTDOCFLAGS", "-D warnings")],
            )
        });
        licences(checks);
    }
    if wanted("unit") {
        // Library, binary, wire and doc tests of every crate, `tidy` among them.
        checks.check("cargo test: unit, wire, suite and documentation tests", || {
            cargo(&["test", "--quiet", "--workspace", "--locked"], &[])
        });
    }
    if wanted("models") {
        models::run(checks);
    }
    if !["smbclient", "tree", "crowd", "storm", "idle", "parallel", "load", "hostile", "torture"]
        .into_iter()
        .any(wanted)
    {
        return fuzz(checks, wanted("fuzz"));
    }
    if !checks.check("peers: smbclient and smbtorture of Samba 4.22", peers::install) {
        return;
    }
    let built = checks.check("cargo build --release", || {
        cargo(&["build", "--quiet", "--release", "--locked", "--package", "shoal"], &[])
    });
    if !built {
        return;
    }
    if wanted("smbclient") {
        smbclient::run(checks);
    }
    if wanted("tree") {
        tree::run(checks);
    }
    if wanted("crowd") {
        crowd::run(checks, &crowd::Options::default());
    }
    if wanted("storm") {
        storm::run(checks, &storm::Options::short());
    }
    if wanted("parallel") {
        parallel::run(checks, &parallel::Options::functional());
    }
    if wanted("load") {
        load::command::functional(checks);
    }
    if wanted("idle") {
        idle::run(checks, &idle::Options::short());
    }
    if wanted("hostile") {
        hostile::run(checks, &hostile::Options::default());
    }
    if wanted("torture") {
        torture::run(checks, &torture::Options::default());
    }
    fuzz(checks, wanted("fuzz"));
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
fn fuzz(checks: &mut Checks, wanted: bool) {
    if !wanted {
        return;
    }
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

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), Failure> {
    let status = Command::new("cargo")
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(workspace())
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {}: {status}", arguments.join(" "))) }
}
