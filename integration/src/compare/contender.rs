//! Those who race: a Shoal, its rival, and the floor, each with its address and, where it runs on this machine, its processes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::checks::Failure;
use crate::samba::Samba;
use crate::server::{PASSWORD, Server, USER};
use crate::usage::ProcessTree;

/// The share that all serve.
pub const SHARE: &str = "race";

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// This server.
    Shoal,
    /// The one that it is compared with.
    Rival,
    /// The least that an operation takes.
    Floor,
}

/// One of those who race.
pub struct Contender {
    /// Which.
    pub who: Who,
    /// Its name in tables and lines.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Who logs in.
    pub user: String,
    /// With what.
    pub password: String,
    /// To which share.
    pub share: String,
    /// The directory that it serves, if that lies on this machine.
    pub directory: Option<PathBuf>,
    /// Its processes, where they are to be seen.
    pub processes: Option<ProcessTree>,
    /// What ends it.
    running: Running,
}

enum Running {
    Shoal(Server),
    Samba(Samba),
    Floor(Floor),
    Elsewhere,
}

impl Contender {
    fn here(
        who: Who,
        name: &str,
        address: SocketAddr,
        directory: &Path,
        processes: ProcessTree,
        running: Running,
    ) -> Contender {
        Contender {
            who,
            name: name.to_owned(),
            address,
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            share: SHARE.to_owned(),
            directory: Some(directory.to_owned()),
            processes: Some(processes),
            running,
        }
    }

    /// Starts a Shoal, `program`, that serves `directory`; its own files are in `scratch`.
    pub fn shoal(program: &Path, scratch: &Path, directory: &Path) -> Result<Contender, Failure> {
        let config = scratch.join("shoal.toml");
        // As Samba by default, so that the unsigned runs are what they say; all others are signed or encrypted.
        std::fs::write(&config, "[server]\nsigning = \"enabled\"\n")
            .map_err(|e| format!("cannot write {}: {e}", config.display()))?;
        let shares = [format!("{SHARE}={}", directory.display())];
        let settings = ["--config", &config.display().to_string()];
        let server = Server::start_program(program, scratch, &shares, &settings)?;
        let (address, processes) = (server.address, server.processes());
        Ok(Contender::here(Who::Shoal, "shoal", address, directory, processes, Running::Shoal(server)))
    }

    /// Starts a Samba that serves `directory`.
    pub fn samba(directory: &Path) -> Result<Contender, Failure> {
        let samba = Samba::start(&[(SHARE, directory)])?;
        let (address, processes) = (samba.address, samba.processes());
        Ok(Contender::here(Who::Rival, "samba", address, directory, processes, Running::Samba(samba)))
    }

    /// Starts the floor on `directory`.
    pub fn floor(directory: &Path) -> Result<Contender, Failure> {
        let floor = Floor::start(directory)?;
        let (address, processes) = (floor.address, ProcessTree::new(floor.child.id()));
        Ok(Contender::here(Who::Floor, "floor", address, directory, processes, Running::Floor(floor)))
    }

    /// A server that runs already.
    pub fn elsewhere(
        address: SocketAddr,
        user: &str,
        password: &str,
        share: &str,
        pid: Option<u32>,
    ) -> Contender {
        Contender {
            who: Who::Rival,
            name: address.to_string(),
            address,
            user: user.to_owned(),
            password: password.to_owned(),
            share: share.to_owned(),
            directory: None,
            processes: pid.map(ProcessTree::new),
            running: Running::Elsewhere,
        }
    }

    /// Whether it scans directories for names in any case, and so gets fewer operations in a turn. Of a server that we do
    /// not know we believe it.
    pub fn scans(&self) -> bool {
        self.who == Who::Rival
    }

    /// Ends it; a Shoal must end in order and without a panic.
    pub fn stop(self) -> Result<(), Failure> {
        match self.running {
            Running::Shoal(server) => server.stop(),
            Running::Samba(mut samba) => samba.must_run(),
            Running::Floor(mut floor) => floor.must_run(),
            Running::Elsewhere => Ok(()),
        }
    }
}

/// The floor's process.
struct Floor {
    child: Child,
    address: SocketAddr,
}

impl Floor {
    fn start(directory: &Path) -> Result<Floor, Failure> {
        let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
        let mut child = Command::new(program)
            .arg("floor")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start the floor: {e}"))?;
        let mut line = String::new();
        let said = BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line);
        let address = line.trim().strip_prefix("floor: listening on ").and_then(|text| text.parse().ok());
        match (said, address) {
            (Ok(_), Some(address)) => Ok(Floor { child, address }),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("the floor did not start; it said: {}", line.trim()))
            }
        }
    }

    fn must_run(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the floor ended, {status}")),
            Err(e) => Err(format!("cannot ask for the floor: {e}")),
        }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
