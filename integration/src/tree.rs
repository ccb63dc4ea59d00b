//! A tree of thousands of files, up and down with smbclient, compared by hash: nothing is lost and nothing changes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::checks::{Checks, Failure, demand};
use crate::random::Random;
use crate::scratch::Scratch;
use crate::server::{Server, workspace};
use crate::smbclient::{ANY_WAY, Place, command, smbclient, with_arguments};

/// How many files a tree must have to count.
const FILES_MIN: usize = 5_000;
/// Where to stop collecting.
const FILES_MAX: usize = 5_500;

/// `cargo integration tree`.
#[derive(clap::Args, Default)]
pub struct Options {
    /// A made-up tree on this server's share, in place of our dependencies' sources on a server started here
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// User and password on a server given by --server
    #[arg(long, value_name = "NAME%PASSWORD", requires = "server")]
    user: Option<String>,
    /// The shares of a server given by --server
    #[arg(long = "share", value_name = "NAME", value_delimiter = ',', requires = "server", default_values = ["data"])]
    shares: Vec<String>,
}

/// `cargo integration tree`.
pub fn run(checks: &mut Checks, options: &Options) {
    let scratch = Scratch::new("tree");
    let tree = scratch.directory("local").join("tree");
    let mut files = 0;
    let made_up = options.server.is_some();
    let from = if made_up { "make one up" } else { "gather the sources of our dependencies" };
    let gathered = checks.check(&format!("tree: {from}"), || {
        files = if made_up { make(&tree)? } else { gather(&tree)? };
        demand(files >= FILES_MIN, || format!("only {files} files to be found, {FILES_MIN} wanted"))?;
        command(
            &scratch.directory("local"),
            "sh",
            &["-c", "cd tree && find . -type f -print0 | xargs -0 sha256sum > ../sums"],
        )
        .map(drop)?;
        command(&scratch.directory("local"), "tar", &["cf", "tree.tar", "tree"]).map(drop)
    });
    if !gathered {
        return;
    }
    if let Some(server) = &options.server {
        for share in &options.shares {
            checks.check(&format!("tree: {files} files up and down with tar on //{server}/{share}"), || {
                with_tar(&scratch, &Place::parse(server, options.user.as_deref())?, share)
            });
        }
        return;
    }
    let share = scratch.directory("share");
    let server =
        Server::start(scratch.path(), &[format!("share={}", share.display()), "memory=memory:".to_owned()]);
    let server = match server {
        Ok(server) => server,
        Err(why) => return checks.record("tree: server", Err(why)),
    };
    let place = Place::from(server.port());
    for name in ["share", "memory"] {
        checks.check(&format!("tree: {files} files up and down with tar on {name}"), || {
            with_tar(&scratch, &place, name)
        });
        checks.check(&format!("tree: {files} files up and down with mput and mget on {name}"), || {
            with_mput(&scratch, &place, name)
        });
        checks.check(
            &format!("tree: the same with tar on {name} while another client renames directories"),
            || beside_renames(&scratch, &place, name),
        );
    }
    checks.check("tree: the server ends at SIGTERM", || server.stop());
}

fn with_tar(scratch: &Scratch, place: &Place, share: &str) -> Result<(), Failure> {
    let local = scratch.directory("local");
    tar(place, share, &local, &["-Tx", "tree.tar"])?;
    let down = fresh(scratch, "down")?;
    tar(place, share, &down, &["-Tc", "down.tar", "tree"])?;
    command(&down, "tar", &["xf", "down.tar"])?;
    same(&local, &down)?;
    smbclient(place, share, ANY_WAY, &local, "deltree tree").and_then(quiet)
}

fn with_mput(scratch: &Scratch, place: &Place, share: &str) -> Result<(), Failure> {
    let local = scratch.directory("local");
    smbclient(place, share, ANY_WAY, &local, "recurse; prompt; mput tree").and_then(quiet)?;
    let down = fresh(scratch, "down")?;
    smbclient(place, share, ANY_WAY, &down, "recurse; prompt; mget tree").and_then(quiet)?;
    same(&local, &down)?;
    smbclient(place, share, ANY_WAY, &local, "deltree tree").and_then(quiet)
}

fn beside_renames(scratch: &Scratch, place: &Place, share: &str) -> Result<(), Failure> {
    let elsewhere = scratch.directory("elsewhere");
    std::fs::write(elsewhere.join("f"), b"carried along").map_err(|e| e.to_string())?;
    let made = "mkdir beside; mkdir beside\\a; mkdir beside\\a\\inner; put f beside\\a\\inner\\f";
    smbclient(place, share, ANY_WAY, &elsewhere, made).and_then(quiet)?;
    let ended = AtomicBool::new(false);
    let (copied, renamed) = std::thread::scope(|scope| {
        let renamer = scope.spawn(|| {
            let there_and_back = "rename beside\\a beside\\b; rename beside\\b\\inner beside\\inner2; \
                                  rename beside\\inner2 beside\\b\\inner; rename beside\\b beside\\a; ";
            let mut rounds = 0;
            while !ended.load(Ordering::Relaxed) {
                let commands = there_and_back.repeat(20);
                smbclient(place, share, ANY_WAY, &elsewhere, &commands).and_then(quiet)?;
                rounds += 20;
            }
            Ok::<u32, Failure>(rounds)
        });
        let copied = with_tar(scratch, place, share);
        ended.store(true, Ordering::Relaxed);
        (copied, renamer.join().expect("the renamer does not panic"))
    });
    copied?;
    let rounds = renamed?;
    demand(rounds > 0, || "no directory was renamed meanwhile".to_owned())?;
    smbclient(place, share, ANY_WAY, &elsewhere, "get beside\\a\\inner\\f back; deltree beside")
        .and_then(quiet)?;
    let back = std::fs::read(elsewhere.join("back")).map_err(|e| e.to_string())?;
    demand(back == b"carried along", || "the file in the renamed directories changed".to_owned())
}

fn tar(place: &Place, share: &str, directory: &Path, arguments: &[&str]) -> Result<(), Failure> {
    with_arguments(place, share, ANY_WAY, directory, arguments).and_then(quiet)
}

/// smbclient ends well even where a single file failed: its words tell.
fn quiet(told: String) -> Result<(), Failure> {
    match told.lines().find(|line| line.contains("NT_STATUS_")) {
        Some(line) => Err(line.to_owned()),
        None => Ok(()),
    }
}

fn same(local: &Path, down: &Path) -> Result<(), Failure> {
    let sums = local.join("sums");
    command(
        &down.join("tree"),
        "sha256sum",
        &["--check", "--quiet", "--strict", &sums.display().to_string()],
    )?;
    let count = |top: &Path| {
        command(&top.join("tree"), "find", &[".", "-type", "f"]).map(|text| text.lines().count())
    };
    let (there, here) = (count(local)?, count(down)?);
    demand(there == here, || format!("{there} files went up and {here} came down"))
}

fn fresh(scratch: &Scratch, name: &str) -> Result<PathBuf, Failure> {
    let path = scratch.directory(name);
    crate::scratch::wipe(&path).map_err(|e| format!("cannot empty {}: {e}", path.display()))?;
    Ok(path)
}

/// Makes up a tree of 5,000 files in a hundred directories, the same each time.
fn make(to: &Path) -> Result<usize, Failure> {
    let mut random = Random::new(1);
    for number in 0..FILES_MIN {
        // Three levels, and a file in each hundred that has nothing in it.
        let directory =
            to.join(format!("part {}/{}", number / 1000, ["ä", "b", "C C", "d.d"][number / 250 % 4]));
        let directory = directory.join((number / 50 % 5).to_string());
        let length = if number % 100 == 0 { 0 } else { random.below(16 << 10) };
        let content: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::write(directory.join(format!("file-{number}.dat")), content))
            .map_err(|e| format!("making {}: {e}", directory.display()))?;
    }
    Ok(FILES_MIN)
}

/// Copies the unpacked sources of the project's own dependencies until there are enough files.
fn gather(to: &Path) -> Result<usize, Failure> {
    let lock =
        std::fs::read_to_string(workspace().join("Cargo.lock")).map_err(|e| format!("Cargo.lock: {e}"))?;
    let lock: toml::Table = lock.parse().map_err(|e| format!("Cargo.lock: {e}"))?;
    let packages = lock["package"].as_array().ok_or("Cargo.lock names no packages")?;
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let registries = cargo_home.ok_or("neither CARGO_HOME nor HOME is set")?.join("registry").join("src");
    let registries = std::fs::read_dir(&registries).map_err(|e| format!("{}: {e}", registries.display()))?;
    let registries: Vec<PathBuf> = registries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let mut files = 0;
    for package in packages {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let name = format!("{}-{}", text("name"), text("version"));
        // What other platforms need was never unpacked.
        if let Some(from) = registries.iter().map(|registry| registry.join(&name)).find(|from| from.is_dir())
            && files < FILES_MAX
        {
            copy(&from, &to.join(&name), &mut files)?;
        }
    }
    Ok(files)
}

fn copy(from: &Path, to: &Path, files: &mut usize) -> Result<(), Failure> {
    let problem = |e: std::io::Error| format!("copying {}: {e}", from.display());
    std::fs::create_dir_all(to).map_err(problem)?;
    for entry in std::fs::read_dir(from).map_err(problem)? {
        let entry = entry.map_err(problem)?;
        let kind = entry.file_type().map_err(problem)?;
        if kind.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()), files)?;
        } else if kind.is_file() && *files < FILES_MAX {
            let copy = to.join(entry.file_name());
            std::fs::copy(entry.path(), &copy).map_err(problem)?;
            // smbclient reads a tar's modes as DOS attributes: an executable would become READONLY, and deltree fail.
            std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o644)).map_err(problem)?;
            *files += 1;
        }
    }
    Ok(())
}
