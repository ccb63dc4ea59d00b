//! A Shoal started on a free port of 127.0.0.1, watched, and ended by its process id.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::checks::Failure;
use crate::usage::ProcessTree;

/// A user of every server that the checks start.
pub const USER: &str = "alice";
/// Its password.
pub const PASSWORD: &str = "alicepw";
/// A second user, for tests that want one.
pub const USER2: &str = "bob";
/// Its password.
pub const PASSWORD2: &str = "bobpw";

/// How long a server may take until it says that it listens.
const START_TIME: Duration = Duration::from_secs(20);
/// How long a server may take to end after SIGTERM: the promise is 5 s, and this machine is noisy.
const STOP_TIME: Duration = Duration::from_secs(10);

/// A running server.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts the release build with `shares` (`NAME=TARGET[,OPTION...]`), keeping its log in `directory`.
    pub fn start(directory: &Path, shares: &[String]) -> Result<Server, Failure> {
        Server::start_with(directory, shares, &[])
    }

    /// The same with further arguments.
    pub fn start_with(directory: &Path, shares: &[String], further: &[&str]) -> Result<Server, Failure> {
        Server::start_program(&binary(), directory, shares, further)
    }

    /// The same of another build.
    pub fn start_program(
        program: &Path,
        directory: &Path,
        shares: &[String],
        further: &[&str],
    ) -> Result<Server, Failure> {
        let log = directory.join("shoal.log");
        let stderr = File::create(&log).map_err(|e| format!("cannot make {}: {e}", log.display()))?;
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        for share in shares {
            command.arg("--share").arg(share);
        }
        command.arg("--user").arg(format!("{USER}:{PASSWORD}"));
        command.arg("--user").arg(format!("{USER2}:{PASSWORD2}"));
        command.arg("--admin").arg(directory.join("admin.sock"));
        command.args(further).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().map_err(|e| format!("cannot start {}: {e}", program.display()))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("shoal: listening on ") {
                    let _ = tell.send(address.trim().parse::<SocketAddr>());
                }
            }
        });
        let address = match told.recv_timeout(START_TIME) {
            Ok(Ok(address)) => address,
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the server did not start:\n{}", tail(&log, 20)));
            }
        };
        Ok(Server { child, address, log })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its processes.
    pub fn processes(&self) -> ProcessTree {
        ProcessTree::new(self.child.id())
    }

    /// Its resident memory in KiB, from `/proc`.
    pub fn resident_kib(&self) -> Result<u64, Failure> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e} (did it end?)"))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| format!("no VmRSS in {path}"))
    }

    /// Fails if the process has ended.
    pub fn must_run(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the server ended, {status}:\n{}", tail(&self.log, 20))),
            Err(e) => Err(format!("cannot ask for the server: {e}")),
        }
    }

    /// Fails if the log has a panic: a caught one is a defect as well.
    pub fn must_not_have_panicked(&self) -> Result<(), Failure> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        match log.lines().find(|line| line.contains("panicked at") || line.contains("INTERNAL_ERROR")) {
            Some(line) => Err(format!("the server's log has a panic: {line}")),
            None => Ok(()),
        }
    }

    /// Ends it with SIGTERM; it must be gone in time with exit code 0.
    pub fn stop(mut self) -> Result<(), Failure> {
        self.must_run()?;
        self.must_not_have_panicked()?;
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(|e| format!("cannot send SIGTERM: {e}"))?;
        let deadline = Instant::now() + STOP_TIME;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("SIGTERM ended the server with {status}")),
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Err(e) => return Err(format!("cannot wait for the server: {e}")),
            }
        }
        Err(format!("the server did not end within {STOP_TIME:?} of SIGTERM:\n{}", tail(&self.log, 20)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's program: the release build beside this program's own target directory.
pub fn binary() -> PathBuf {
    target_directory().join("release").join("shoal")
}

/// The workspace's root.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace").to_owned()
}

/// Where cargo builds.
pub fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => PathBuf::from(path),
        None => workspace().join("target"),
    }
}

fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
