//! A Docker engine to run containers on: the machine's, or one that is started for the check and ended after it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::checks::Failure;
use crate::peers;
use crate::running::{Running, last_lines};
use crate::scratch::Scratch;

/// How long an engine may take until it answers.
const START_TIME: Duration = Duration::from_secs(60);
/// How long it may take to end.
const STOP_TIME: Duration = Duration::from_secs(20);
/// How long it may take to say that it is there.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// An engine that answers, and the program that reads compose files.
pub struct Engine {
    /// DOCKER_HOST, where it is our own.
    host: Option<OsString>,
    compose: &'static [&'static str],
    own: Option<Own>,
}

/// An engine of our own.
struct Own {
    child: Child,
    files: Scratch,
    _bridge: Bridge,
}

/// A network bridge that is removed when the engine has ended.
struct Bridge {
    name: String,
}

impl Bridge {
    /// An address for tests (RFC 2544), outside what [`Own::start`] has for networks.
    const ADDRESS: &str = "198.19.0.1/24";

    fn make(name: String) -> Result<Bridge, Failure> {
        let bridge = Bridge { name };
        let name = bridge.name.as_str();
        for words in [
            &["link", "add", "name", name, "type", "bridge"][..],
            &["address", "add", Bridge::ADDRESS, "dev", name],
            &["link", "set", name, "up"],
        ] {
            let mut command = Command::new("ip");
            command.args(words).env("PATH", path());
            Running::start(command, &format!("ip {}", words.join(" ")), ANSWER_TIME)?.succeed()?;
        }
        Ok(bridge)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let mut command = Command::new("ip");
        command.args(["link", "delete", &self.name]).env("PATH", path());
        // It is gone already where the machine's network was made anew.
        let _ = Running::start_after_all(command, "ip link delete", ANSWER_TIME).and_then(Running::succeed);
    }
}

/// How the two programs are called that read compose files: the plugin of Docker's client, and Debian 12's docker-compose.
const COMPOSE: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];

impl Engine {
    /// The machine's engine; else, as root on Debian, one of our own. The failure says why there is none.
    pub fn find() -> Result<Engine, Failure> {
        let mut engine = Engine { host: None, compose: COMPOSE[0], own: None };
        let answer = engine.answers();
        if answer.is_err() && !peers::may_install() {
            return Err(format!(
                "no Docker engine answers ({}). Start one, or run this once as root on Debian.",
                answer.err().unwrap_or_default()
            ));
        }
        if answer.is_err() {
            for (program, package) in [
                ("dockerd", "docker.io"),
                ("ip", "iproute2"),
                // Where the kernel has no overlayfs, or not on this file system.
                ("fuse-overlayfs", "fuse-overlayfs"),
            ] {
                peers::install_program(program, package)?;
            }
            let own = Own::start()?;
            engine.host = Some(own.host());
            engine.own = Some(own);
            engine.answers()?;
        }
        engine.compose = match compose() {
            Some(compose) => compose,
            None => {
                peers::install_program("docker-compose", "docker-compose")?;
                compose().ok_or("neither `docker compose` nor `docker-compose` works")?
            }
        };
        Ok(engine)
    }

    /// Whether it is one of our own.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// `docker` with arguments.
    pub fn docker<I: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments);
        self.reach(&mut command);
        command
    }

    /// The program that reads compose files, with arguments.
    pub fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.compose[0]);
        command.args(&self.compose[1..]).args(arguments);
        self.reach(&mut command);
        command
    }

    /// Lets another program use this engine.
    pub fn reach(&self, command: &mut Command) {
        command.env("PATH", path());
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
            // It has no network of its own to build on.
            command.env("SHOAL_BUILD_NETWORK", "host");
        }
    }

    /// A line about it.
    pub fn describe(&self) -> Result<String, Failure> {
        let format = "engine {{.ServerVersion}}, {{.Driver}}, {{.NCPU}} CPUs";
        let command = self.docker(["info", "--format", format]);
        let told = Running::start(command, "docker info", ANSWER_TIME)?.succeed()?;
        let whose = if self.is_own() { "an engine of our own" } else { "the machine's engine" };
        Ok(format!("{whose}: {}; {}", last_lines(&told, 1), self.compose.join(" ")))
    }

    fn answers(&self) -> Result<(), Failure> {
        let command = self.docker(["version", "--format", "{{.Server.Version}}"]);
        Running::start(command, "docker version", ANSWER_TIME)?.succeed().map(drop)
    }

    /// Ends an engine of our own, and removes all that it had.
    pub fn end(&mut self) -> Result<(), Failure> {
        match self.own.take() {
            Some(mut own) => own.end(),
            None => Ok(()),
        }
    }
}

fn compose() -> Option<&'static [&'static str]> {
    COMPOSE.into_iter().find(|words| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("version").env("PATH", path());
        let asked = Running::start(command, "asking for compose", ANSWER_TIME);
        asked.and_then(Running::succeed).is_ok()
    })
}

/// The engine and what it calls live in sbin, which is not on every user's PATH.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

impl Own {
    fn start() -> Result<Own, Failure> {
        let files = Scratch::new("engine");
        let at = files.path();
        let log = at.join("log");
        let told = |e: std::io::Error| format!("cannot make {}: {e}", log.display());
        let err = std::fs::File::create(&log).map_err(told)?;
        let out = err.try_clone().map_err(told)?;
        let config = at.join("daemon.json");
        std::fs::write(&config, "{}").map_err(|e| format!("cannot write {}: {e}", config.display()))?;
        let namespace = format!("shoal-{}", std::process::id());
        let bridge = Bridge::make(namespace.clone())?;
        let mut command = Command::new("dockerd");
        command
            .arg("--data-root")
            .arg(files.directory("data"))
            .arg("--exec-root")
            .arg(files.directory("exec"))
            .arg("--pidfile")
            .arg(at.join("pid"))
            .arg("--host")
            .arg(host(at))
            // Somebody else's containerd may run here.
            .args(["--containerd-namespace", &namespace])
            .args(["--containerd-plugins-namespace", &format!("{namespace}-plugins")])
            // Without a bridge of its own it would take docker0, or remove it. The filter stays as it is.
            .args(["--bridge", &bridge.name, "--ip-masq=false"])
            .arg(format!("--iptables={}", bridges_are_filtered()))
            // Addresses for tests (RFC 2544), which no network has that this machine is on.
            .args(["--default-address-pool", "base=198.18.0.0/16,size=24"])
            .arg("--config-file")
            .arg(config)
            .args(["--log-level", "warn"])
            .env("PATH", path())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|e| format!("cannot start dockerd: {e}"))?;
        let mut own = Own { child, files, _bridge: bridge };
        let begun = Instant::now();
        loop {
            if own.files.path().join("docker.sock").exists() {
                return Ok(own);
            }
            let ended = own.child.try_wait().map_err(|e| format!("dockerd cannot be waited for: {e}"))?;
            if ended.is_some() || begun.elapsed() > START_TIME {
                let told = std::fs::read_to_string(&log).unwrap_or_default();
                let how = ended.map_or_else(
                    || format!("did not answer within {START_TIME:?}"),
                    |status| format!("ended with {status}"),
                );
                return Err(format!(
                    "an engine of our own {how}; what stands in the way:\n{}",
                    last_lines(&told, 8)
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn host(&self) -> OsString {
        host(self.files.path())
    }

    fn end(&mut self) -> Result<(), Failure> {
        let ended = self.end_process();
        // What was still mounted would keep the directory from being removed.
        let at = self.files.path().to_owned();
        for place in mounts_below(&at).into_iter().rev() {
            let _ = Command::new("umount").arg("--lazy").arg(place).stderr(Stdio::null()).status();
        }
        ended
    }

    fn end_process(&mut self) -> Result<(), Failure> {
        let containerd = self.files.path().join("exec/containerd/containerd.pid");
        let containerd =
            std::fs::read_to_string(containerd).ok().and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?));
        if !matches!(self.child.try_wait(), Ok(None)) {
            return Ok(());
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + STOP_TIME;
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.child.try_wait() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(containerd) = containerd {
            let _ = kill_process(containerd, Signal::KILL);
        }
        Err(format!("an engine of our own did not end within {STOP_TIME:?} of SIGTERM"))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn host(at: &Path) -> OsString {
    let mut host = OsString::from("unix://");
    host.push(at.join("docker.sock"));
    host
}

fn mounts_below(at: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = text.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    places.filter(|place| place.starts_with(at)).collect()
}

/// Whether this machine's filter would keep containers of one bridge from each other unless the engine adds its rules.
fn bridges_are_filtered() -> bool {
    let filtered = std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if filtered.map_or(true, |text| text.trim() != "1") {
        return false;
    }
    let rules = Command::new("iptables").args(["-S", "FORWARD"]).env("PATH", path()).output();
    rules.is_ok_and(|rules| String::from_utf8_lossy(&rules.stdout).contains("-P FORWARD DROP"))
}
