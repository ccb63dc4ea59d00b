//! `cargo integration compose`: the scene of `docker-compose.yml`, brought up under a name of its own, checked from the
//! clients' side, and taken down whatever happens.
//!
//! What is checked is what only containers can show: other hosts with names and addresses, a client that is killed, one
//! that vanishes without a word, a network that is cut, a server that is stopped and killed under load.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::checks::{Checks, Failure, demand};
use crate::engine::Engine;
use crate::peers;
use crate::running::{self, Running, wait_for};
use crate::server::{binary, target_directory, workspace};

/// `cargo integration compose`.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Leave the scene as it is at the end, to look at it; the command to take it down is printed
    #[arg(long)]
    keep: bool,
}

/// The user of the scene, as `docker-compose.yml` has it unless told otherwise.
const USER: &str = "shoal%shoal";
/// Where clients find the server.
const SERVER: &str = "server:4455";
/// How many clients the scene is scaled to, and smbtortures at once.
const CLIENTS: usize = 16;
const TORTURES: usize = 8;
/// What a cut is to last.
const CUT_SECONDS: u64 = 10;
/// The copy under which the network is cut, and how far it is then.
const COPY_MIB: u64 = 768;
const CUT_AT_MIB: u64 = 64;

const BUILD_TIME: Duration = Duration::from_secs(600);
const UP_TIME: Duration = Duration::from_secs(90);
const DOWN_TIME: Duration = Duration::from_secs(120);
const HEALTH_TIME: Duration = Duration::from_secs(40);
/// For a command inside a container that has nothing to wait for.
const SHORT: Duration = Duration::from_secs(30);
/// For one that works.
const LONG: Duration = Duration::from_secs(240);
/// A killed client's connection ends at once, and what it held with it; the rest is the machine's noise.
const KILLED_TIME: u64 = 10;
/// A client that vanished is given up after two minutes (`listener.rs`), when TCP next sends again: that can be most of
/// a minute later.
const VANISHED_TIME: Duration = Duration::from_secs(190);
/// The promise is 5 s.
const STOP_TIME: Duration = Duration::from_secs(15);

/// What is up and must come down, for whoever comes first: the end of the check, a panic, or an interruption.
static SCENE: Mutex<Option<Scene>> = Mutex::new(None);

/// A running scene: an engine, and the project's name on it.
struct Scene {
    engine: Engine,
    project: String,
}

/// `cargo integration compose`.
pub fn run(checks: &mut Checks, options: &Options) {
    let engine = match Engine::find() {
        Ok(engine) => engine,
        Err(why) if must_run() => return checks.record("compose: a Docker engine", Err(why)),
        Err(why) => return checks.skip("compose", &why),
    };
    let described = engine.describe();
    let own = engine.is_own();
    let project = format!("shoal-check-{}", std::process::id());
    *scene() = Some(Scene { engine, project });
    let _down = TakeDown;
    end_on_signals();
    match described {
        Ok(text) => checks.note(&format!("compose: {text}")),
        Err(why) => return checks.record("compose: the engine", Err(why)),
    }
    everything(checks);
    if options.keep && !own {
        if let Some(scene) = scene().take() {
            let words = scene.compose(&["down", "--volumes"]);
            println!("the scene is left up; SHOAL_PORT=0 {words:?} takes it down");
        }
        return;
    }
    checks.check("compose: everything is taken down", take_down);
}

/// Whether a machine without an engine fails the check: in CI, and wherever one may be installed.
fn must_run() -> bool {
    std::env::var_os("CI").is_some() || peers::may_install()
}

fn everything(checks: &mut Checks) {
    if !checks.check("compose: build the images", build) {
        return;
    }
    if !checks.check("compose: up starts the server, and it alone", server_alone) {
        return;
    }
    if !checks.check("compose: clients and Samba come up beside it", others) {
        return;
    }
    let mut vanished = None;
    checks.check("compose: a client vanishes without a word while it writes", || {
        vanished = Some(vanish()?);
        Ok(())
    });
    checks.check("compose: smbclient by host name in every dialect", || {
        integration("client", 1, "smbclient", &["--share=data,scratch"], LONG)
    });
    checks.check("compose: the same shares on Samba", samba);
    checks
        .check("compose: a tree of 5,000 files up and down", || integration("client", 1, "tree", &[], LONG));
    checks.check("compose: a client killed while it writes lets go of all it had", killed);
    checks.check(&format!("compose: the network cut for {CUT_SECONDS} s under a copy"), cut);
    checks.check(&format!("compose: {TORTURES} containers of smbtorture on one share"), torture);
    if let Some(taker) = vanished {
        checks.check("compose: what the vanished client had is free in time", || found_out(taker));
    }
    if checks.check(&format!("compose: scale to {CLIENTS} clients"), || scale(CLIENTS)) {
        checks.check("compose: SIGTERM under load; every acknowledged flush is there", || {
            ended_under_load("stop", &["stop", "--time", "10"], "0")
        });
        checks.check("compose: SIGKILL under load; every acknowledged flush is there", || {
            ended_under_load("kill", &["kill", "--signal", "KILL"], "137")
        });
    }
    checks.check("compose: the server's log has no panic", no_panic);
}

// ---- the scene ----

impl Scene {
    fn compose(&self, arguments: &[&str]) -> Command {
        let mut all = vec!["--project-name", &self.project];
        // `down` takes away what the profiles brought only if they are named.
        for profile in ["client", "samba", "torture", "hand"] {
            if arguments.first() != Some(&"up") || arguments.contains(&profile) {
                all.extend(["--profile", profile]);
            }
        }
        all.extend_from_slice(arguments);
        let mut command = self.engine.compose(&all);
        command
            .current_dir(workspace())
            .env("SHOAL_DOCKERFILE", dockerfile())
            // Any free port: the usual one may be taken.
            .env("SHOAL_PORT", "0")
            .env("SHOAL_USER", "shoal")
            .env("SHOAL_PASSWORD", "shoal")
            .env_remove("COMPOSE_FILE")
            .env_remove("COMPOSE_PROFILES");
        command
    }

    /// Takes it down, and looks that nothing is left.
    fn down(&mut self) -> Result<(), Failure> {
        let command = self.compose(&["down", "--volumes", "--timeout", "2"]);
        let down = Running::start_after_all(command, "compose down", DOWN_TIME).and_then(Running::succeed);
        let mut left = Vec::new();
        for kind in [&["container", "ls", "--all"][..], &["volume", "ls"], &["network", "ls"]] {
            let label = format!("label=com.docker.compose.project={}", self.project);
            let list = [kind, &["--quiet", "--filter", &label]].concat();
            let list = Running::start_after_all(self.engine.docker(list), "listing what is left", SHORT)?;
            for id in list.succeed()?.split_whitespace() {
                left.push(format!("{} {id}", kind[0]));
                let force: &[&str] = if kind[0] == "network" { &[] } else { &["--force"] };
                let remove = [&[kind[0], "rm"][..], force, &[id]].concat();
                let remove =
                    Running::start_after_all(self.engine.docker(remove), "removing what is left", SHORT)?;
                let _ = remove.wait();
            }
        }
        let engine = self.engine.end();
        down?;
        engine?;
        demand(left.is_empty(), || format!("compose down left {}", left.join(", ")))
    }
}

fn scene() -> std::sync::MutexGuard<'static, Option<Scene>> {
    SCENE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever comes second waits until the first is done.
fn take_down() -> Result<(), Failure> {
    static DOWN: Mutex<()> = Mutex::new(());
    let _alone = DOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = scene().take();
    match taken {
        Some(mut scene) => scene.down(),
        None => Ok(()),
    }
}

/// Takes the scene down if nothing else has: after a panic.
struct TakeDown;

impl Drop for TakeDown {
    fn drop(&mut self) {
        if let Err(why) = take_down() {
            eprintln!("taking the scene down: {why}");
        }
    }
}

/// SIGINT and SIGTERM end what runs, take the scene down, and end us.
fn end_on_signals() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be listened for");
            let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be listened for");
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        eprintln!("interrupted: taking the scene down");
        running::interrupt();
        let outcome = take_down();
        if let Err(why) = outcome {
            eprintln!("taking the scene down: {why}");
        }
        std::process::exit(130);
    });
}

/// `Dockerfile.host`, which takes the programs that cargo made here, unless the environment says otherwise.
fn dockerfile() -> String {
    std::env::var("SHOAL_DOCKERFILE").unwrap_or_else(|_| "Dockerfile.host".to_owned())
}

/// Runs `docker` to its good end.
fn docker(arguments: &[&str], what: &str, limit: Duration) -> Result<String, Failure> {
    start_docker(arguments, what, limit)?.succeed()
}

fn start_docker(arguments: &[&str], what: &str, limit: Duration) -> Result<Running, Failure> {
    let command = scene().as_ref().ok_or("the scene is down")?.engine.docker(arguments);
    Running::start(command, what, limit)
}

fn compose(arguments: &[&str], what: &str, limit: Duration) -> Result<String, Failure> {
    let command = scene().as_ref().ok_or("the scene is down")?.compose(arguments);
    Running::start(command, what, limit)?.succeed()
}

/// The ids of a service's containers by their numbers.
fn containers(service: &str) -> Result<BTreeMap<usize, String>, Failure> {
    let project = scene().as_ref().ok_or("the scene is down")?.project.clone();
    let told = docker(
        &[
            "ps",
            "--all",
            "--filter",
            &format!("label=com.docker.compose.project={project}"),
            "--filter",
            &format!("label=com.docker.compose.service={service}"),
            "--format",
            "{{.Label \"com.docker.compose.container-number\"}} {{.ID}}",
        ],
        "docker ps",
        SHORT,
    )?;
    told.lines()
        .map(|line| {
            let numbered =
                line.split_once(' ').and_then(|(number, id)| Some((number.parse().ok()?, id.to_owned())));
            numbered.ok_or_else(|| format!("docker ps: {line}"))
        })
        .collect()
}

fn container(service: &str, number: usize) -> Result<String, Failure> {
    containers(service)?.remove(&number).ok_or_else(|| format!("there is no {service} number {number}"))
}

/// Runs a command inside a container.
fn exec(service: &str, number: usize, words: &[&str], limit: Duration) -> Result<String, Failure> {
    start_exec(service, number, words, limit)?.succeed()
}

fn start_exec(service: &str, number: usize, words: &[&str], limit: Duration) -> Result<Running, Failure> {
    let id = container(service, number)?;
    let arguments = [&["exec", id.as_str()], words].concat();
    start_docker(&arguments, &format!("{} in {service} {number}", words.join(" ")), limit)
}

/// Runs this program inside a container, against the server.
fn integration(
    service: &str,
    number: usize,
    command: &str,
    further: &[&str],
    limit: Duration,
) -> Result<(), Failure> {
    let said = start_integration(service, number, command, further, limit)?.succeed()?;
    for line in said.lines().filter(|line| line.starts_with("the ")) {
        println!("                          {line}");
    }
    let checks = said.lines().filter(|line| line.starts_with("ok ")).count();
    if checks > 1 {
        println!("                          {checks} checks in the container");
    }
    Ok(())
}

fn start_integration(
    service: &str,
    number: usize,
    command: &str,
    further: &[&str],
    limit: Duration,
) -> Result<Running, Failure> {
    let (server, user) = (format!("--server={SERVER}"), format!("--user={USER}"));
    let words = [&["integration", command][..], further, &[server.as_str(), user.as_str()]].concat();
    start_exec(service, number, &words, limit)
}

fn inspect(id: &str, format: &str) -> Result<String, Failure> {
    docker(&["inspect", "--format", format, id], "docker inspect", SHORT).map(|told| told.trim().to_owned())
}

fn until_healthy(service: &str) -> Result<(), Failure> {
    let id = container(service, 1)?;
    let mut last = String::new();
    wait_for(&format!("{service} to be healthy"), HEALTH_TIME, Duration::from_millis(200), || {
        last = inspect(&id, "{{.State.Status}} {{.State.Health.Status}}")?;
        match last.as_str() {
            "running healthy" => Ok(Some(())),
            _ if last.starts_with("running") || last.starts_with("created") => Ok(None),
            _ => Err(format!("{service} is {last}:\n{}", log(&id)?)),
        }
    })
    .map_err(|why| format!("{why}: {last}\n{}", log(&id).unwrap_or_default()))
}

fn log(id: &str) -> Result<String, Failure> {
    docker(&["logs", "--tail", "30", id], "docker logs", SHORT)
}

/// The FLUSH requests that the server has counted, and the sessions that it has.
fn flushes_and_sessions() -> Result<(u64, u64), Failure> {
    let told = exec("server", 1, &["shoal", "status", "--json"], SHORT)?;
    let status: serde_json::Value =
        serde_json::from_str(&told).map_err(|e| format!("shoal status: {e}: {told}"))?;
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
    Ok((number(&status["counters"]["requests.flush"]), number(&status["session_count"])))
}

// ---- the checks ----

fn build() -> Result<(), Failure> {
    if dockerfile() == "Dockerfile.host" {
        let cargo = crate::test::cargo(
            &[
                "build",
                "--quiet",
                "--release",
                "--locked",
                "-p",
                "shoal",
                "-p",
                "shoal-integration",
                "--bin",
                "shoal",
                "--bin",
                "integration",
            ],
            &[],
        );
        cargo?;
        in_context(&["shoal", "integration"])?;
        base()?;
    }
    let begun = Instant::now();
    compose(&["build", "server", "client", "samba"], "compose build", BUILD_TIME)?;
    println!("                          built in {:.0} s", begun.elapsed().as_secs_f32());
    for image in ["shoal-server", "shoal-client", "shoal-samba"] {
        let size = inspect(image, "{{.Size}}")?;
        let size: u64 = size.parse().map_err(|e| format!("the size of {image}, {size}: {e}"))?;
        println!("                          {image}: {:.1} MB", size as f64 / 1e6);
    }
    Ok(())
}

/// The Dockerfiles look for the programs below the top of the repository, wherever cargo builds.
fn in_context(programs: &[&str]) -> Result<(), Failure> {
    let there = workspace().join("target");
    if target_directory() == there {
        return Ok(());
    }
    let release = there.join("release");
    std::fs::create_dir_all(&release).map_err(|e| format!("{}: {e}", release.display()))?;
    for program in programs {
        let from = target_directory().join("release").join(program);
        std::fs::copy(&from, release.join(program))
            .map_err(|e| format!("copying {}: {e}", from.display()))?;
    }
    Ok(())
}

/// Has the engine the base image? Else it is pulled, and where no registry is reached it is made of Debian's packages.
fn base() -> Result<(), Failure> {
    const BASE: &str = "debian:bookworm-slim";
    if docker(&["image", "inspect", BASE], "docker image inspect", SHORT).is_ok() {
        return Ok(());
    }
    if docker(&["pull", "--quiet", BASE], "docker pull", Duration::from_secs(60)).is_ok() {
        return Ok(());
    }
    peers::install_program("debootstrap", "debootstrap")?;
    let begun = Instant::now();
    let mut command = Command::new("bash");
    command.arg(workspace().join("integration/images/base.sh"));
    scene().as_ref().ok_or("the scene is down")?.engine.reach(&mut command);
    Running::start(command, "integration/images/base.sh", BUILD_TIME)?.succeed()?;
    println!(
        "                          {BASE} made of Debian's packages in {:.0} s",
        begun.elapsed().as_secs_f32()
    );
    Ok(())
}

fn server_alone() -> Result<(), Failure> {
    compose(&["up", "--detach", "--no-build"], "compose up", UP_TIME)?;
    for service in ["samba", "client", "torture", "hand"] {
        demand(containers(service)?.is_empty(), || format!("a plain up started {service}"))?;
    }
    until_healthy("server")?;
    let id = container("server", 1)?;
    let asked = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} \
                 {{.HostConfig.Privileged}} {{.HostConfig.SecurityOpt}}";
    let confined = inspect(&id, asked)?;
    demand(confined == "10001:10001 true [ALL] [] false [no-new-privileges:true]", || {
        format!("the server is confined as {confined}")
    })?;
    // From the machine, through the published port.
    let place = docker(&["port", &id, "4455/tcp"], "docker port", SHORT)?;
    let place = place.lines().next().unwrap_or_default().trim().to_owned();
    let mut ping = Command::new(binary());
    ping.args(["ping", &place]);
    Running::start(ping, &format!("shoal ping {place}"), SHORT)?.succeed().map(drop)
}

fn others() -> Result<(), Failure> {
    let up = ["up", "--detach", "--no-build", "--scale", "client=3", "client", "samba", "hand"];
    compose(&up, "compose up of clients and Samba", UP_TIME)?;
    until_healthy("samba")
}

fn scale(clients: usize) -> Result<(), Failure> {
    let scale = format!("client={clients}");
    let up = ["up", "--detach", "--no-build", "--no-recreate", "--scale", &scale, "client"];
    compose(&up, "compose up --scale", UP_TIME)?;
    let running = containers("client")?.len();
    demand(running == clients, || format!("{running} clients in place of {clients}"))
}

/// The rival answers in the same way to the same commands.
fn samba() -> Result<(), Failure> {
    for share in ["data", "scratch"] {
        let place = format!("//samba/{share}");
        let commands = "put /usr/local/bin/integration up; ls; get up /tmp/down; del up";
        let words = ["smbclient", &place, "-p", "4455", "-U", USER, "-c", commands];
        let said = exec("client", 1, &words, LONG)?;
        demand(!said.contains("NT_STATUS"), || said.clone())?;
        exec("client", 1, &["cmp", "/usr/local/bin/integration", "/tmp/down"], SHORT)?;
    }
    Ok(())
}

/// Client 3 takes a file and a range, writes, and is cut off. Returns who waits from then on for what it had.
fn vanish() -> Result<Running, Failure> {
    let limit = VANISHED_TIME + LONG;
    let seconds = format!("--seconds={}", limit.as_secs());
    let mut holder =
        start_integration("client", 3, "witness", &["hold", "--name=vanished", &seconds], limit)?;
    holder.until_it_says("holding")?;
    hand(&format!("ip link set {} down", veth(3)?), SHORT)?;
    integration("client", 1, "witness", &["refused", "--name=vanished"], SHORT)?;
    // The holder goes on inside its container; what ends here is the program that watches it.
    drop(holder);
    let seconds = format!("--seconds={}", VANISHED_TIME.as_secs());
    let taker = ["take", "--name=vanished", &seconds];
    start_integration("client", 1, "witness", &taker, VANISHED_TIME + SHORT)
}

fn found_out(taker: Running) -> Result<(), Failure> {
    let said = taker.succeed();
    // From here on it is a client like the others.
    hand(&format!("ip link set {} up", veth(3)?), SHORT)?;
    println!("                          {}", said?.lines().next().unwrap_or_default());
    Ok(())
}

fn killed() -> Result<(), Failure> {
    let mut holder = start_integration("client", 2, "witness", &["hold", "--name=killed"], LONG)?;
    holder.until_it_says("holding")?;
    integration("client", 1, "witness", &["refused", "--name=killed"], SHORT)?;
    docker(&["kill", &container("client", 2)?], "docker kill of client 2", SHORT)?;
    let seconds = format!("--seconds={KILLED_TIME}");
    integration("client", 1, "witness", &["take", "--name=killed", &seconds], LONG)
}

/// A file goes up; on its way the host cuts the client off for a while, and nothing moves; then it arrives whole.
fn cut() -> Result<(), Failure> {
    exec("client", 1, &["sh", "-c", &format!("head -c {COPY_MIB}M /dev/urandom >/tmp/copy")], LONG)?;
    let veth = veth(1)?;
    let script = format!(
        "size() {{ stat -c %s /data/copy 2>/dev/null || echo 0; }}; \
         for round in $(seq 3000); do [ $(size) -ge {at} ] && break; sleep 0.01; done; \
         ip link set {veth} down || exit 1; sleep 1; before=$(size); sleep {rest}; after=$(size); \
         ip link set {veth} up; echo cut $before $after",
        at = CUT_AT_MIB << 20,
        rest = CUT_SECONDS - 1,
    );
    let cutter = start_exec("hand", 1, &["sh", "-c", &script], SHORT * 3)?;
    let put = ["smbclient", "//server/data", "-p", "4455", "-U", USER, "-c", "put /tmp/copy copy"];
    let copy = start_exec("client", 1, &put, LONG)?;
    let told = cutter.succeed()?;
    let sizes: Vec<u64> = told.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let (&[before, after], whole) = (sizes.as_slice(), COPY_MIB << 20) else {
        return Err(format!("the cut was told as: {told}"));
    };
    demand(before >= CUT_AT_MIB << 20 && before < whole, || {
        format!("the cut came at {before} of {whole} bytes, not under the copy")
    })?;
    demand(after == before, || {
        format!("the file grew from {before} to {after} bytes through a network that was cut")
    })?;
    let said = copy.succeed()?;
    demand(!said.contains("NT_STATUS"), || said.clone())?;
    println!("                          cut at {} of {COPY_MIB} MiB", before >> 20);
    let up = exec("client", 1, &["sha256sum", "/tmp/copy"], LONG)?;
    let there = exec("hand", 1, &["sha256sum", "/data/copy"], LONG)?;
    let sum = |text: &str| text.split_whitespace().next().map(str::to_owned);
    demand(sum(&up).is_some() && sum(&up) == sum(&there), || format!("{up} went up, {there} arrived"))?;
    exec("client", 1, &["rm", "/tmp/copy"], SHORT).map(drop)
}

/// The host's end of a client's network.
fn veth(number: usize) -> Result<String, Failure> {
    let index = exec("client", number, &["cat", "/sys/class/net/eth0/iflink"], SHORT)?;
    let index = index.trim();
    let name = hand(&format!("ip -o link | sed -n 's/^{index}: \\([^@:]*\\).*/\\1/p'"), SHORT)?;
    let name = name.trim().to_owned();
    demand(!name.is_empty(), || format!("the host has no interface {index} for client {number}"))?;
    Ok(name)
}

fn hand(script: &str, limit: Duration) -> Result<String, Failure> {
    exec("hand", 1, &["sh", "-c", script], limit)
}

/// All containers of smbtorture end well, and together they ran every test.
fn torture() -> Result<(), Failure> {
    let scale = format!("torture={TORTURES}");
    let up = ["up", "--detach", "--no-build", "--no-recreate", "--scale", &scale, "torture"];
    compose(&up, "compose up of smbtorture", UP_TIME)?;
    let tortures = containers("torture")?;
    demand(tortures.len() == TORTURES, || format!("{} containers in place of {TORTURES}", tortures.len()))?;
    let mut passed = 0;
    let mut failed = String::new();
    for (number, id) in &tortures {
        let code = docker(&["wait", id], &format!("the end of torture {number}"), LONG)?;
        let said = docker(&["logs", id], "docker logs", SHORT)?;
        let count = said.lines().filter(|line| line.starts_with("pass ")).count();
        passed += count;
        if code.trim() != "0" || count == 0 {
            failed.push_str(&format!("torture {number} ended with {}:\n", code.trim()));
            for line in said.lines().filter(|line| !line.starts_with("pass ")) {
                failed.push_str(&format!("  {line}\n"));
            }
        }
    }
    println!("                          {passed} tests in {TORTURES} containers");
    demand(failed.is_empty(), || failed)?;
    let wanted = crate::torture::divided_tests(TORTURES)?;
    demand(passed == wanted, || format!("{passed} tests ran, {wanted} were to be shared out"))
}

/// All clients write and flush; the server is ended by `how` in the midst of it, and started again.
fn ended_under_load(name: &str, how: &[&str], code: &str) -> Result<(), Failure> {
    let server = container("server", 1)?;
    let clients: Vec<usize> = containers("client")?.into_keys().collect();
    demand(clients.len() == CLIENTS, || format!("there are {} clients, not {CLIENTS}", clients.len()))?;
    let (before, _) = flushes_and_sessions()?;
    let mut writers = Vec::new();
    for number in &clients {
        let name = format!("--name={name}-{number}");
        writers.push((*number, start_integration("client", *number, "witness", &["write", &name], LONG)?));
    }
    // All of them are at it: four files each, and no end in sight.
    let wanted = before + clients.len() as u64 * 50;
    wait_for(
        "the load: 50 flushes of each client",
        Duration::from_secs(60),
        Duration::from_millis(200),
        || {
            let (flushes, sessions) = flushes_and_sessions()?;
            Ok((flushes > wanted && sessions >= 4 * clients.len() as u64).then_some(()))
        },
    )?;
    let begun = Instant::now();
    docker(&[how, &[server.as_str()]].concat(), &format!("docker {}", how.join(" ")), STOP_TIME)?;
    let took = begun.elapsed();
    let ended = inspect(&server, "{{.State.ExitCode}}")?;
    demand(ended == code, || {
        format!("the server ended with {ended}, not {code}:\n{}", log(&server).unwrap_or_default())
    })?;
    let mut flushed = 0;
    for (number, writer) in writers {
        let said = writer.succeed().map_err(|why| format!("client {number}: {why}"))?;
        flushed += said
            .lines()
            .filter_map(|line| line.split_once(": ")?.1.split_once(" flushes")?.0.parse::<u64>().ok())
            .sum::<u64>();
        demand(!said.contains("the time was over"), || {
            format!("client {number} saw no end of the server:\n{said}")
        })?;
    }
    println!(
        "                          ended in {took:.1?}; {flushed} flushes acknowledged to {} clients",
        clients.len()
    );
    docker(&["start", &server], "docker start", SHORT)?;
    until_healthy("server")?;
    for number in &clients {
        let name = format!("--name={name}-{number}");
        let verified = start_integration("client", *number, "witness", &["verify", &name], LONG)?.succeed();
        verified.map_err(|why| format!("client {number}: {why}"))?;
    }
    Ok(())
}

fn no_panic() -> Result<(), Failure> {
    let told = docker(&["logs", &container("server", 1)?], "docker logs", SHORT)?;
    match told.lines().find(|line| line.contains("panicked at") || line.contains("INTERNAL_ERROR")) {
        Some(line) => Err(format!("the server's log has a panic: {line}")),
        None => Ok(()),
    }
}
