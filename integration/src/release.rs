//! `cargo integration release`: the server's program as one ships it, built with a profile of itself at work.
//!
//! A small operation is a walk once through a hundred kilobytes of code, and what it costs is to fetch them. So the compiler
//! is told what is walked through (profile-guided optimization): the server is built to count its branches, works for a
//! while through the load generator's mixes, and is built again with what it counted. Nothing else differs from
//! `cargo build --release`.
//!
//! Both builds are of the same settings: a branch is known by the function, the part of the crate and the shape that it had
//! when it was counted. All of it is kept below `guided/` where cargo builds. What has not changed is not done again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::checks::{Checks, Failure, demand};
use crate::load::command::{runtime, settings};
use crate::load::{self, Limit, Mix, Plan, Protection};
use crate::peers;
use crate::scratch::Scratch;
use crate::server::{Server, target_directory};
use crate::test::cargo;

/// Operations of each mix in each part of the training; of large ones a fiftieth. To the compiler is hot what makes up 99 % of all
/// counts: the loops of the large ones would be nearly all of that, and what a rename alone runs through fell just below it.
const OPERATIONS: u64 = 5_000;
/// From the oldest LLVM whose tools read what our compilers' programs count to any that there may be.
const LLVM: std::ops::RangeInclusive<u32> = 19..=40;

/// What cargo is told to build the server.
pub const RELEASE_BUILD: &[&str] =
    &["build", "--quiet", "--release", "--locked", "--package", "shoal", "--bin", "shoal"];

/// `cargo integration release`.
pub fn run(checks: &mut Checks) {
    let mut made = None;
    checks.check("release: the server, built with a profile of itself at work", || {
        made = Some(guided()?);
        Ok(())
    });
    if let Some(program) = made {
        checks.note(&format!("the program: {}", program.display()));
    }
}

/// Makes the program, unless it is there and up to date: where it is.
pub fn guided() -> Result<PathBuf, Failure> {
    let host = host()?;
    let directory = target_directory().join("guided");
    let (counts, profile) = (directory.join("counts"), directory.join("shoal.profdata"));
    if changed(&profile).is_none() {
        // Without them the minutes that building takes would be for nothing.
        tools(&host)?;
    }
    let flag = format!("-Cprofile-generate={}", counts.display());
    let counting = build(&directory.join("counting"), &host, &flag)?;
    if changed(&profile) < changed(&counting) {
        let _ = std::fs::remove_dir_all(&counts);
        train(&counting)?;
        merge(&tools(&host)?, &counts, &profile)?;
    }
    let flag = format!("-Cprofile-use={}", profile.display());
    let built = build(&directory.join("build"), &host, &flag)?;
    let program = directory.join("shoal");
    if changed(&program) < changed(&built) {
        std::fs::copy(&built, &program).map_err(|e| format!("cannot write {}: {e}", program.display()))?;
    }
    Ok(program)
}

/// When a file was last written; what is not there was never.
fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// What the compiler calls this machine.
fn host() -> Result<String, Failure> {
    let said = said(Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV does not say what machine this is".to_owned())
}

/// Builds the server below `directory` with one more flag for the compiler: its program. With `--target` the flag is not
/// for what only the build itself runs.
fn build(directory: &Path, host: &str, flag: &str) -> Result<PathBuf, Failure> {
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    // A path may have spaces.
    let flags = flags.split_whitespace().chain([flag]).collect::<Vec<_>>().join("\x1f");
    let target = directory.display().to_string();
    let arguments = [RELEASE_BUILD, &["--target", host, "--target-dir", &target]].concat();
    cargo(&arguments, &[("CARGO_ENCODED_RUSTFLAGS", &flags)])?;
    Ok(directory.join(host).join("release").join("shoal"))
}

/// Has the server do what servers do: each mix, by one client that waits for each answer and by several at once, on a
/// directory and in memory, in each protection. It writes down what it counted when it ends.
fn train(program: &Path) -> Result<(), Failure> {
    let scratch = Scratch::in_memory("training");
    let share = scratch.directory("share");
    let shares = ["memory=memory:".to_owned(), format!("share={}", share.display())];
    let settings = settings(&scratch)?;
    let server = Server::start_program(program, scratch.path(), &shares, &["--config", &settings])?;
    let runtime = runtime(2)?;
    let parts = [
        ("share", Protection::Signed, 1),
        ("memory", Protection::Plain, 1),
        ("share", Protection::Encrypted, 1),
        ("share", Protection::Signed, 8),
    ];
    for (share, protection, clients) in parts {
        for mix in Mix::ALL {
            let operations = if mix.is_large() { OPERATIONS / 50 } else { OPERATIONS };
            let (connections, names) = (clients.min(2), 200);
            let plan =
                Plan { protection, connections, clients, names, ..Plan::new(server.address, share, mix) };
            let outcome = runtime.block_on(async {
                let mut prepared = load::prepare(&plan).await?;
                let outcome = prepared.measure(Limit::Operations(operations)).await?;
                prepared.finish().await?;
                Ok::<_, crate::client::Trouble>(outcome)
            });
            let outcome = outcome.map_err(|e| format!("training with {mix}: {e}"))?;
            demand(outcome.errors.is_empty(), || format!("training with {mix}: {:?}", outcome.errors))?;
        }
    }
    server.stop()
}

/// LLVM's tools that may read what was counted, the compiler's own first; installed where there is none.
fn tools(host: &str) -> Result<Vec<PathBuf>, Failure> {
    let sysroot = said(Command::new("rustc").args(["--print", "sysroot"]))?;
    let own = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/llvm-profdata");
    let by_version = LLVM.rev().map(|version| PathBuf::from(format!("llvm-profdata-{version}")));
    let known: Vec<PathBuf> = [own].into_iter().chain(by_version).collect();
    let there = || known.iter().filter(|tool| said(Command::new(tool).arg("--version")).is_ok()).cloned();
    let oldest = LLVM.start();
    if there().next().is_none() {
        peers::install_program(&format!("llvm-profdata-{oldest}"), &format!("llvm-{oldest}"))
            .map_err(|why| format!("{why} Or: rustup component add llvm-tools"))?;
    }
    Ok(there().collect())
}

/// Makes a profile of what was counted, with the first of the tools that can.
fn merge(tools: &[PathBuf], counts: &Path, profile: &Path) -> Result<(), Failure> {
    let merge = |tool| said(Command::new(tool).args(["merge", "--output"]).arg(profile).arg(counts));
    let mut whys = Vec::new();
    for tool in tools {
        match merge(tool) {
            Ok(_) => return Ok(()),
            Err(why) => whys.push(why),
        }
    }
    Err(format!("no profile can be made (rustup component add llvm-tools may help): {}", whys.join("; ")))
}

/// What a program says that ends well.
fn said(command: &mut Command) -> Result<String, Failure> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("cannot run {name}: {e}"))?;
    demand(output.status.success(), || {
        format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
