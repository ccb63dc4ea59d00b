//! smbclient, driven as a person drives it: every dialect, signed and encrypted, on a directory and on a memory share.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::checks::{Checks, Failure, demand};
use crate::scratch::Scratch;
use crate::server::{PASSWORD, Server, USER};

/// A way to connect: what smbclient is told.
pub struct Way {
    /// Its name in the log.
    pub name: &'static str,
    /// The highest and lowest dialect, in smbclient's words.
    dialect: &'static str,
    /// `--client-protection`.
    protection: Option<&'static str>,
}

const WAYS: &[Way] = &[
    Way { name: "2.0.2", dialect: "SMB2_02", protection: None },
    Way { name: "2.1", dialect: "SMB2_10", protection: None },
    Way { name: "3.0", dialect: "SMB3_00", protection: None },
    Way { name: "3.0.2", dialect: "SMB3_02", protection: None },
    Way { name: "3.1.1", dialect: "SMB3_11", protection: None },
    Way { name: "2.0.2 signed", dialect: "SMB2_02", protection: Some("sign") },
    Way { name: "2.1 signed", dialect: "SMB2_10", protection: Some("sign") },
    Way { name: "3.0 signed", dialect: "SMB3_00", protection: Some("sign") },
    Way { name: "3.0.2 signed", dialect: "SMB3_02", protection: Some("sign") },
    Way { name: "3.1.1 signed", dialect: "SMB3_11", protection: Some("sign") },
    Way { name: "3.0 encrypted", dialect: "SMB3_00", protection: Some("encrypt") },
    Way { name: "3.0.2 encrypted", dialect: "SMB3_02", protection: Some("encrypt") },
    Way { name: "3.1.1 encrypted", dialect: "SMB3_11", protection: Some("encrypt") },
];

/// The way that is used where the way does not matter.
pub const ANY_WAY: &Way = &WAYS[4];

/// `cargo integration smbclient`.
#[derive(clap::Args, Default)]
pub struct Options {
    /// A day's work on this server's shares, in place of all checks on a server started here
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// User and password on a server given by --server
    #[arg(long, value_name = "NAME%PASSWORD", requires = "server")]
    user: Option<String>,
    /// The shares of a server given by --server
    #[arg(long = "share", value_name = "NAME", value_delimiter = ',', requires = "server", default_values = ["data"])]
    shares: Vec<String>,
}

/// Where smbclient goes, and as whom.
#[derive(Clone)]
pub struct Place {
    host: String,
    port: u16,
    user: String,
}

impl From<u16> for Place {
    /// A server that the checks started on this machine.
    fn from(port: u16) -> Self {
        Place { host: "127.0.0.1".to_owned(), port, user: format!("{USER}%{PASSWORD}") }
    }
}

impl From<&Place> for Place {
    fn from(place: &Place) -> Self {
        place.clone()
    }
}

impl Place {
    /// HOST:PORT, and NAME%PASSWORD if they are not the usual ones.
    pub fn parse(server: &str, user: Option<&str>) -> Result<Place, Failure> {
        let parts = server.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let (host, port) = parts.ok_or_else(|| format!("{server} is no HOST:PORT"))?;
        let usual = Place::from(port);
        Ok(Place { host: host.to_owned(), user: user.map_or(usual.user, str::to_owned), port })
    }
}

/// `cargo integration smbclient`.
pub fn run(checks: &mut Checks, options: &Options) {
    let scratch = Scratch::new("smbclient");
    if let Some(server) = &options.server {
        let place = match Place::parse(server, options.user.as_deref()) {
            Ok(place) => place,
            Err(why) => return checks.record("smbclient: --server", Err(why)),
        };
        for way in WAYS {
            for share in &options.shares {
                let client = Client { place: place.clone(), way, share, local: None, scratch: &scratch };
                checks
                    .check(&format!("smbclient {} on //{server}/{share}", way.name), || client.everything());
            }
        }
        return;
    }
    let share = scratch.directory("share");
    let closed = scratch.directory("closed");
    let shares = [
        format!("share={}", share.display()),
        "memory=memory:".to_owned(),
        format!("secret={},encrypt,hidden", scratch.directory("secret").display()),
        format!("closed={},ro", closed.display()),
        "open=memory:,guest".to_owned(),
    ];
    let server = match Server::start(scratch.path(), &shares) {
        Ok(server) => server,
        Err(why) => return checks.record("smbclient: server", Err(why)),
    };
    for way in WAYS {
        for name in ["share", "memory"] {
            let local = (name == "share").then_some(share.as_path());
            let client = Client { place: server.port().into(), way, share: name, local, scratch: &scratch };
            checks.check(&format!("smbclient {} on {name}", way.name), || client.everything());
        }
    }
    checks.check("smbclient: -L lists the shares that are not hidden", || listing(&server));
    checks.check("smbclient: what must be refused", || refusals(&scratch, &closed));
    checks.check("smbclient: a guest reaches a guest share alone", || guests(&server));
    checks.check("smbclient: the server ends at SIGTERM", || server.stop());
}

/// Runs smbclient on a share with `commands`; its output, or both outputs if it failed.
pub fn smbclient(
    place: impl Into<Place>,
    share: &str,
    way: &Way,
    directory: &Path,
    commands: &str,
) -> Result<String, Failure> {
    with_arguments(place, share, way, directory, &["-c", commands])
}

/// The same with arguments in place of commands: `-Tx FILE`, say.
pub fn with_arguments(
    place: impl Into<Place>,
    share: &str,
    way: &Way,
    directory: &Path,
    arguments: &[&str],
) -> Result<String, Failure> {
    let place = place.into();
    let mut all = vec!["-U", &place.user];
    all.extend_from_slice(arguments);
    call(place.port, &format!("//{}/{share}", place.host), way, directory, &all)
}

fn call(port: u16, target: &str, way: &Way, directory: &Path, arguments: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new("smbclient");
    command
        .args([target, "-p", &port.to_string(), "-m", way.dialect, "--configfile=/dev/null"])
        .arg(format!("--option=client min protocol={}", way.dialect))
        .args([
            "--option=client ipc min protocol=SMB2_02",
            &format!("--option=client ipc max protocol={}", way.dialect),
        ]);
    if let Some(protection) = way.protection {
        command.arg(format!("--client-protection={protection}"));
    }
    let output = command
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot start smbclient: {e}"))?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(told + &complaint)
    } else {
        Err(format!("smbclient {}: {}\n{told}{complaint}", arguments.join(" "), output.status))
    }
}

struct Client<'a> {
    place: Place,
    way: &'a Way,
    share: &'a str,
    /// The share's directory, where it can be looked at.
    local: Option<&'a Path>,
    scratch: &'a Scratch,
}

impl Client<'_> {
    /// A day's work on a share; each step's effect is looked at from the other side.
    fn everything(&self) -> Result<(), Failure> {
        let here = self.scratch.directory("here");
        let content: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(here.join("up"), &content).map_err(|e| e.to_string())?;
        std::fs::write(here.join("empty"), b"").map_err(|e| e.to_string())?;

        self.smb("mkdir dir; mkdir dir\\sub; put up dir\\one; put empty dir\\nothing")?;
        self.holds("dir/one", Some(&content))?;
        self.holds("dir/nothing", Some(b""))?;
        let listing = self.smb("ls dir\\*")?;
        for (name, size) in [("one", "300000"), ("nothing", "0"), ("sub", "D")] {
            let line = listing.lines().find(|line| line.split_whitespace().next() == Some(name));
            let line = line.ok_or_else(|| format!("ls does not show {name}:\n{listing}"))?;
            demand(line.contains(size), || format!("ls of {name} lacks {size}: {line}"))?;
        }
        self.smb("get dir\\one down; get DIR\\ONE down2; get dir\\nothing down3")?;
        for name in ["down", "down2"] {
            let got = std::fs::read(here.join(name)).map_err(|e| e.to_string())?;
            demand(got == content, || format!("{name} differs from what was put"))?;
        }
        let empty = std::fs::read(here.join("down3")).map_err(|e| e.to_string())?;
        demand(empty.is_empty(), || "an empty file came back with content".to_owned())?;

        self.smb("rename dir\\one dir\\two; rename dir\\nothing dir\\sub\\moved; rename dir\\two dir\\TWO")?;
        self.holds("dir/one", None)?;
        self.holds("dir/TWO", Some(&content))?;
        self.holds("dir/sub/moved", Some(b""))?;
        let told = self.smb("ls dir\\*")?;
        demand(told.contains("TWO") && !told.contains("two"), || {
            format!("the new case is not shown:\n{told}")
        })?;

        let told = self.smb("du dir\\*")?;
        demand(told.contains("300000"), || format!("du does not count 300000 bytes:\n{told}"))?;
        let told = self.smb("allinfo dir\\two")?;
        for word in [
            "create_time:",
            "write_time:",
            "change_time:",
            "attributes: A",
            "stream: [::$DATA], 300000 bytes",
        ] {
            demand(told.contains(word), || format!("allinfo lacks '{word}':\n{told}"))?;
        }
        self.smb("setmode dir\\two +rh")?;
        let told = self.smb("allinfo dir\\two")?;
        demand(told.contains("attributes: RHA"), || format!("setmode +rh is not kept:\n{told}"))?;
        self.refused("del dir\\two", "NT_STATUS_CANNOT_DELETE")?;
        self.smb("setmode dir\\two -rh; del dir\\two")?;
        self.holds("dir/TWO", None)?;
        self.refused("rmdir dir", "NT_STATUS_DIRECTORY_NOT_EMPTY")?;
        self.smb("del dir\\sub\\moved; rmdir dir\\sub; rmdir dir")?;
        self.holds("dir", None)?;
        self.refused("get dir\\one down", "NT_STATUS_OBJECT_PATH_NOT_FOUND")?;
        self.refused("get one down", "NT_STATUS_OBJECT_NAME_NOT_FOUND")?;

        self.tar(&here)
    }

    /// A small tree with `tarmode` up and down, then `deltree`.
    fn tar(&self, here: &Path) -> Result<(), Failure> {
        let tree = here.join("tree");
        let _ = std::fs::remove_dir_all(&tree);
        std::fs::create_dir_all(tree.join("a/b/c")).map_err(|e| e.to_string())?;
        for (name, length) in [("a/x", 10usize), ("a/b/y", 70_000), ("a/b/c/ä ö.txt", 1)] {
            std::fs::write(tree.join(name), vec![b'z'; length]).map_err(|e| e.to_string())?;
        }
        command(here, "tar", &["cf", "up.tar", "tree"])?;
        self.smb_args(here, &["-Tx", "up.tar"])?;
        self.holds("tree/a/b/c/ä ö.txt", Some(b"z"))?;
        self.smb_args(here, &["-Tc", "down.tar", "tree"])?;
        let back = here.join("back");
        let _ = std::fs::remove_dir_all(&back);
        std::fs::create_dir_all(&back).map_err(|e| e.to_string())?;
        command(&back, "tar", &["xf", "../down.tar"])?;
        command(here, "diff", &["-r", "tree", "back/tree"])?;
        self.smb("deltree tree")?;
        self.holds("tree", None)?;
        let told = self.smb("ls")?;
        demand(!told.contains("tree"), || format!("deltree left the tree:\n{told}"))
    }

    fn smb(&self, commands: &str) -> Result<String, Failure> {
        let here = self.scratch.directory("here");
        let told = smbclient(&self.place, self.share, self.way, &here, commands)?;
        // allinfo asks for snapshots as well and says so where there are none, as on a Samba without them.
        let complaint =
            told.lines().find(|line| line.contains("NT_STATUS_") && !line.contains("shadow copy data"));
        demand(complaint.is_none(), || format!("{commands}: {told}"))?;
        Ok(told)
    }

    fn smb_args(&self, here: &Path, arguments: &[&str]) -> Result<String, Failure> {
        let told = with_arguments(&self.place, self.share, self.way, here, arguments)?;
        demand(!told.contains("NT_STATUS_"), || format!("{}: {told}", arguments.join(" ")))?;
        Ok(told)
    }

    fn refused(&self, commands: &str, status: &str) -> Result<(), Failure> {
        let here = self.scratch.directory("here");
        let told = match smbclient(&self.place, self.share, self.way, &here, commands) {
            Ok(told) | Err(told) => told,
        };
        demand(told.contains(status), || format!("{commands} should end with {status}:\n{told}"))
    }

    /// What the share's directory has under `path`: this content, or nothing.
    fn holds(&self, path: &str, content: Option<&[u8]>) -> Result<(), Failure> {
        let Some(local) = self.local else { return Ok(()) };
        match (std::fs::read(local.join(path)), content) {
            (Ok(found), Some(content)) => demand(found == content, || format!("{path} on disk differs")),
            (Ok(_), None) => Err(format!("{path} is still on disk")),
            (Err(_), None) => demand(!local.join(path).exists(), || format!("{path} is still on disk")),
            (Err(e), Some(_)) => Err(format!("{path} on disk: {e}")),
        }
    }
}

fn listing(server: &Server) -> Result<(), Failure> {
    for way in WAYS {
        let here = std::env::temp_dir();
        let user = format!("{USER}%{PASSWORD}");
        let told = call(server.port(), "--list=127.0.0.1", way, &here, &["-U", &user])
            .map_err(|why| format!("{}: {why}", way.name))?;
        for name in ["share", "memory", "closed", "open", "IPC$"] {
            demand(told.contains(name), || format!("{}: -L lacks {name}:\n{told}", way.name))?;
        }
        demand(!told.contains("secret"), || format!("{}: -L shows a hidden share:\n{told}", way.name))?;
    }
    Ok(())
}

/// On a server without a guest share, where an unknown user is nobody at all.
fn refusals(scratch: &Scratch, closed: &Path) -> Result<(), Failure> {
    let here = Scratch::new("refusals");
    let shares = [
        format!("share={}", scratch.directory("share").display()),
        format!("secret={},encrypt,hidden", scratch.directory("secret").display()),
        format!("closed={},ro", closed.display()),
    ];
    let server = Server::start(here.path(), &shares)?;
    std::fs::write(closed.join("readable"), b"text").map_err(|e| e.to_string())?;
    std::fs::write(here.path().join("f"), b"text").map_err(|e| e.to_string())?;
    let expect = |share: &str, user: &str, commands: &str, status: &str| {
        let target = format!("//127.0.0.1/{share}");
        let told = match call(server.port(), &target, ANY_WAY, here.path(), &["-U", user, "-c", commands]) {
            Ok(told) | Err(told) => told,
        };
        demand(told.contains(status), || {
            format!("{commands} on {share} as {user} should end with {status}:\n{told}")
        })
    };
    let alice = format!("{USER}%{PASSWORD}");
    expect("share", &format!("{USER}%wrong"), "ls", "NT_STATUS_LOGON_FAILURE")?;
    expect("share", "nobody%nothing", "ls", "NT_STATUS_LOGON_FAILURE")?;
    expect("absent", &alice, "ls", "NT_STATUS_BAD_NETWORK_NAME")?;
    expect("closed", &alice, "put f", "NT_STATUS_ACCESS_DENIED")?;
    expect("closed", &alice, "mkdir d", "NT_STATUS_ACCESS_DENIED")?;
    expect("closed", &alice, "del readable", "NT_STATUS_ACCESS_DENIED")?;
    smbclient(server.port(), "closed", ANY_WAY, here.path(), "get readable")?;
    // A share that must be encrypted takes smbclient there by itself in 3.x and refuses 2.x.
    smbclient(server.port(), "secret", ANY_WAY, here.path(), "put f; get f g; del f")?;
    let old = &WAYS[1];
    let told = match smbclient(server.port(), "secret", old, here.path(), "ls") {
        Ok(told) | Err(told) => told,
    };
    demand(told.contains("NT_STATUS_ACCESS_DENIED"), || format!("an encrypted share let 2.1 in:\n{told}"))
}

fn guests(server: &Server) -> Result<(), Failure> {
    let here = Scratch::new("guests");
    std::fs::write(here.path().join("f"), b"text").map_err(|e| e.to_string())?;
    for user in ["%", "nobody%nothing"] {
        let target = "//127.0.0.1/open";
        let told = call(server.port(), target, ANY_WAY, here.path(), &["-U", user, "-c", "put f; ls; del f"]);
        // A server whose guest share is for guests alone may still refuse an unknown user who gives a password.
        match told {
            Ok(told) => demand(!told.contains("NT_STATUS_"), || told)?,
            Err(told) if user != "%" => demand(told.contains("NT_STATUS_LOGON_FAILURE"), || told)?,
            Err(told) => return Err(told),
        }
        let told =
            match call(server.port(), "//127.0.0.1/share", ANY_WAY, here.path(), &["-U", user, "-c", "ls"]) {
                Ok(told) | Err(told) => told,
            };
        let refused = told.contains("NT_STATUS_ACCESS_DENIED") || told.contains("NT_STATUS_LOGON_FAILURE");
        demand(refused, || format!("{user} reached a share that is not for guests:\n{told}"))?;
    }
    Ok(())
}

/// Runs a local program; its complaint if it fails.
pub fn command(directory: &Path, program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot start {program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{program} {}: {}\n{}",
        arguments.join(" "),
        output.status,
        text.chars().take(2000).collect::<String>()
    ))
}
