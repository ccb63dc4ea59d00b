//! The foreign programs that the checks drive, and installing them: smbclient and smbtorture of Samba 4.22.
//!
//! On Debian, as root, what lacks is installed through `apt-get` from bookworm-backports, which is added to the sources
//! if it is absent. Anywhere else the check fails with a line that says what to install.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::checks::{Checks, Failure};

/// The Samba whose behaviour and tests the checks expect.
const SAMBA: &str = "4.22";
/// Debian's release that carries it for Debian 12.
const BACKPORTS: &str = "bookworm-backports";

/// `cargo integration peers`.
pub fn run(checks: &mut Checks) {
    checks.check("peers: smbclient and smbtorture of Samba 4.22", install);
}

/// Makes sure that smbclient, smbtorture and smbd 4.22 are there.
pub fn install() -> Result<(), Failure> {
    let lacking = lacking();
    if lacking.is_empty() {
        return Ok(());
    }
    let what = lacking.join(", ");
    if !may_install() {
        return Err(format!(
            "lacking: {what}. Install Samba {SAMBA}'s smbclient, samba and samba-testsuite \
             (Debian 12: from {BACKPORTS}), or run this once as root on Debian."
        ));
    }
    add_backports()?;
    let _quiet = NoServices::new();
    apt(&["update", "-q"])?;
    apt(&[
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
        "-t",
        BACKPORTS,
        "samba",
        "smbclient",
        "samba-testsuite",
    ])?;
    let still = self::lacking();
    if still.is_empty() {
        Ok(())
    } else {
        Err(format!("still lacking after installing: {}", still.join(", ")))
    }
}

/// Whether packages may be installed here: as root on Debian.
pub fn may_install() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/etc/debian_version").exists()
}

/// Makes sure that `program` is there, which Debian has in `package`.
pub fn install_program(program: &str, package: &str) -> Result<(), Failure> {
    if is_there(program) {
        return Ok(());
    }
    if !may_install() {
        return Err(format!(
            "lacking: {program}. Install it (Debian: {package}), or run this once as root on Debian."
        ));
    }
    let _quiet = NoServices::new();
    let install = ["install", "-y", "-q", "--no-install-recommends", package];
    // The lists may be absent or too old to find the package by.
    apt(&install).or_else(|_| apt(&["update", "-q"]).and_then(|()| apt(&install)))?;
    if is_there(program) {
        Ok(())
    } else {
        Err(format!("{package} is installed, and there is still no {program}"))
    }
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The sbin directories are not on every user's PATH.
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).any(|directory| directory.join(program).is_file())
}

fn lacking() -> Vec<String> {
    ["smbclient", "smbtorture", "smbd"]
        .into_iter()
        .filter_map(|program| match version(program) {
            Some(text) if text.contains(SAMBA) => None,
            Some(text) => Some(format!("{program} {SAMBA} (here: {})", text.lines().next().unwrap_or(""))),
            None => Some(format!("{program} {SAMBA}")),
        })
        .collect()
}

fn version(program: &str) -> Option<String> {
    // smbd lives in sbin, which is not on every user's PATH.
    let candidates = [program.to_owned(), format!("/usr/sbin/{program}")];
    candidates.iter().find_map(|path| {
        let output = Command::new(path).arg("--version").stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    })
}

fn add_backports() -> Result<(), Failure> {
    let known = Command::new("grep")
        .args(["-rqs", BACKPORTS, "/etc/apt/sources.list", "/etc/apt/sources.list.d"])
        .status();
    if known.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let mirror =
        mirror().ok_or_else(|| format!("no Debian mirror in apt's sources: add {BACKPORTS} by hand"))?;
    let path = format!("/etc/apt/sources.list.d/{BACKPORTS}.list");
    std::fs::write(&path, format!("deb {mirror} {BACKPORTS} main\n"))
        .map_err(|e| format!("cannot write {path}: {e}"))
}

/// The Debian mirror that this machine already uses.
fn mirror() -> Option<String> {
    let output =
        Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some("bookworm"))?;
    Some(line.split_whitespace().next()?.trim_end_matches('/').to_owned())
}

/// While it lives, installing a package starts no service: a test run must not leave an smbd on port 445 behind.
struct NoServices {
    made: bool,
}

impl NoServices {
    const POLICY: &'static str = "/usr/sbin/policy-rc.d";

    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let made = !Path::new(Self::POLICY).exists()
            && std::fs::write(Self::POLICY, "#!/bin/sh\nexit 101\n").is_ok()
            && std::fs::set_permissions(Self::POLICY, std::fs::Permissions::from_mode(0o755)).is_ok();
        NoServices { made }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.made {
            let _ = std::fs::remove_file(Self::POLICY);
        }
    }
}

fn apt(arguments: &[&str]) -> Result<(), Failure> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot run apt-get: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let last: Vec<&str> = text.lines().rev().take(6).collect();
    Err(format!(
        "apt-get {} failed: {}",
        arguments.join(" "),
        last.into_iter().rev().collect::<Vec<_>>().join("; ")
    ))
}
