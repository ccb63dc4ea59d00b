//! A real smbd, started on a free port of 127.0.0.1 with a configuration and a directory of its own, and ended with all
//! its children by their process ids.
//!
//! It is Samba as its administrators run it. What makes it slower and is not needed is left out (logging, ACLs in
//! extended attributes, streams); nothing is turned off that makes it quicker, and nothing turned on that would not be
//! safe. Each setting below that is not about where its files lie says why.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::checks::Failure;
use crate::peers;
use crate::scratch::Scratch;
use crate::server::{PASSWORD, USER};
use crate::usage::ProcessTree;

/// The account of the system that the user becomes. Every Linux has it, so that none need be made, and nothing
/// that a race leaves behind is root's. (Samba's own guest would be `nobody`.)
const ACCOUNT: &str = "daemon";
/// How long it may take until it answers: it makes a dozen databases first.
const START_TIME: Duration = Duration::from_secs(30);
/// How long it may take to end.
const STOP_TIME: Duration = Duration::from_secs(5);

/// A running smbd.
pub struct Samba {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    log: PathBuf,
    /// Its databases; they go with it.
    _files: Scratch,
}

impl Samba {
    /// Starts it with `shares` (name and directory). The directories are made accessible to its user.
    pub fn start(shares: &[(&str, &Path)]) -> Result<Samba, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Err(
                "smbd serves users by becoming them, and so must be started as root. Without it race \
                        against a server that runs already: --against ADDR:PORT"
                    .to_owned(),
            );
        }
        peers::install()?;
        // Where distributions put its databases of locks and open files, /run, is in memory as well.
        let files = Scratch::in_memory("samba");
        let at = files.path();
        for name in ["private", "lock", "state", "cache", "pid", "log", "ncalrpc"] {
            files.directory(name);
        }
        for name in ["", "lock", "pid"] {
            mode(&at.join(name), 0o755)?;
        }
        for (_, directory) in shares {
            mode(directory, 0o777)?;
        }
        let port = free_port()?;
        let configuration = at.join("smb.conf");
        write(&configuration, &configuration_of(at, port, shares))?;
        write(&at.join("usermap"), &format!("{ACCOUNT} = {USER}\n"))?;
        add_user(&configuration)?;
        let log = at.join("log").join("console");
        let output = File::create(&log).map_err(|e| format!("cannot make {}: {e}", log.display()))?;
        let errors = output.try_clone().map_err(|e| e.to_string())?;
        let mut child = Command::new(program("smbd"))
            .args(["--foreground", "--no-process-group", "--configfile"])
            .arg(&configuration)
            // It ends when this pipe does, and so with us however we end.
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            // A group for it and its children, which a signal to ours does not reach.
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot start smbd: {e}"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + START_TIME;
        while TcpStream::connect(address).is_err() {
            let ended = child.try_wait().map_err(|e| e.to_string())?;
            if ended.is_some() || Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("smbd did not start:\n{}", said.trim_end()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Samba { child, address, log, _files: files })
    }

    /// Its processes: one that listens, one for each connection, and helpers.
    pub fn processes(&self) -> ProcessTree {
        ProcessTree::new(self.child.id())
    }

    /// What it said, if it has ended.
    pub fn must_run(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                Err(format!("smbd ended, {status}:\n{}", said.trim_end()))
            }
            Err(e) => Err(format!("cannot ask for smbd: {e}")),
        }
    }

    /// Its version, as it says it.
    pub fn version() -> String {
        let output = Command::new(program("smbd")).arg("--version").stdin(Stdio::null()).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.unwrap_or_default().trim().trim_start_matches("Version ").to_owned()
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + STOP_TIME;
        // The group is there as long as any of its processes is, and the leader until it is waited for.
        while Instant::now() < deadline {
            let _ = self.child.try_wait();
            if rustix::process::test_kill_process_group(group).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

fn configuration_of(at: &Path, port: u16, shares: &[(&str, &Path)]) -> String {
    let at = at.display();
    let mut text = format!(
        "[global]
    # A file server on its own, on one port of the loopback device, without the services around it.
    server role = standalone server
    netbios name = RIVAL
    disable netbios = yes
    interfaces = 127.0.0.1
    bind interfaces only = yes
    smb ports = {port}
    load printers = no
    printcap name = /dev/null
    disable spoolss = yes

    passdb backend = tdbsam:{at}/private/passdb.tdb
    private dir = {at}/private
    lock directory = {at}/lock
    state directory = {at}/state
    cache directory = {at}/cache
    pid directory = {at}/pid
    ncalrpc dir = {at}/ncalrpc
    username map = {at}/usermap

    # Errors only, and those to a file: nothing is logged of what the race does.
    log level = 0
    logging = file
    log file = {at}/log/smbd

    # The client says what it wants in each run: plain, signed or encrypted. The default would do as well.
    server signing = auto
    server smb encrypt = default
    # What our client speaks; the default's lower end makes no difference to it.
    server min protocol = SMB2_02

    # Everything else is Samba's default, and what matters of it is: leases and oplocks on, DOS attributes in an extended
    # attribute (as Shoal stores them), reads and writes by threads (aio read size = 1), no sendfile, names in any case,
    # share modes in its own database and not in the kernel (kernel share modes = no), strict sync = yes.
    # Shares have no vfs objects: acl_xattr and streams_xattr would cost it more.
"
    );
    for (name, path) in shares {
        text.push_str(&format!("\n[{name}]\n    path = {}\n    read only = no\n", path.display()));
    }
    text
}

fn add_user(configuration: &Path) -> Result<(), Failure> {
    let mut child = Command::new(program("smbpasswd"))
        .arg("-c")
        .arg(configuration)
        .args(["-s", "-a", ACCOUNT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run smbpasswd: {e}"))?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let asked = stdin.write_all(format!("{PASSWORD}\n{PASSWORD}\n").as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|e| format!("smbpasswd: {e}"))?;
    if asked.is_ok() && output.status.success() {
        return Ok(());
    }
    Err(format!("smbpasswd: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end()))
}

/// Where `program` is: sbin is not on every user's PATH.
fn program(name: &str) -> PathBuf {
    let sbin = Path::new("/usr/sbin").join(name);
    if sbin.exists() { sbin } else { PathBuf::from(name) }
}

/// A port that is free at this moment: smbd cannot be asked to choose one.
fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| format!("no free port: {e}"))?;
    Ok(listener.local_addr().map_err(|e| e.to_string())?.port())
}

fn mode(path: &Path, mode: u32) -> Result<(), Failure> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}
