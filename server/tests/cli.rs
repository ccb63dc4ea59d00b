//! The program itself: its lines, exit statuses, signals, user file and admin socket, to the letter that users' scripts rely on.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("shoal-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The program, in this directory, with nothing of this process's environment that it would heed.
    fn shoal(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
        command.args(arguments).current_dir(&self.0).stdin(Stdio::null());
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").env("XDG_RUNTIME_DIR", &self.0);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.shoal(arguments).output().unwrap()
    }

    /// A command that must end with 0; what it printed.
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// A command that must fail with `code`; what it complained of, this directory left out.
    fn bad(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        text(&output.stderr).replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running server.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Running {
    /// Starts `shoal serve` on a free port with a share in memory, and waits until it is ready.
    fn start(scratch: &Scratch, more: &[&str]) -> Running {
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--share", "s=memory:", "--user", "u:p"];
        arguments.extend(more);
        Running::ready(scratch.shoal(&arguments))
    }

    fn ready(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let Some(address) = line.strip_prefix("shoal: listening on ") else {
            let _ = child.kill();
            let mut log = String::new();
            let _ = child.stderr.take().unwrap().read_to_string(&mut log);
            panic!("no ready line but {line:?}; the log: {log}");
        };
        let address = address.trim_end().parse().unwrap();
        Running { child, out, address }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, at most the 5 s that are promised; the exit status and the log.
    fn end(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "still there");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (status.code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_demo_prints_how_to_reach_it_before_it_is_ready() {
    let scratch = Scratch::new();
    // Somebody else's demo may hold the port for a moment: then there is nothing to see here.
    let Ok(taken) = TcpListener::bind("127.0.0.1:4455") else { return };
    assert_eq!(
        scratch.bad(1, &[]).lines().last().unwrap(),
        "shoal: cannot listen on 127.0.0.1:4455: Address already in use: another program listens there; --listen names another address"
    );
    drop(taken);
    let mut child = scratch.shoal(&[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let command = lines.next().unwrap().unwrap();
    let ready = lines.next().unwrap().unwrap();
    let _ = child.kill();
    let _ = child.wait();
    let password = command.strip_prefix("smbclient //127.0.0.1/demo -p 4455 -U demo%").expect(&command);
    assert!(password.len() >= 12 && password.chars().all(|c| c.is_ascii_alphanumeric()), "{password}");
    assert_eq!(ready, "shoal: listening on 127.0.0.1:4455");
}

#[test]
fn a_ready_line_for_each_address_with_its_real_port() {
    let scratch = Scratch::new();
    let mut server = Running::start(&scratch, &["--listen", "127.0.0.2:0"]);
    assert_ne!(server.address.port(), 0);
    let mut second = String::new();
    server.out.read_line(&mut second).unwrap();
    let second: SocketAddr = second.strip_prefix("shoal: listening on ").unwrap().trim_end().parse().unwrap();
    assert_eq!(second.ip().to_string(), "127.0.0.2");
    for address in [server.address, second] {
        let line = scratch.good(&["ping", &address.to_string()]);
        assert!(line.starts_with(&format!("{address}: SMB 3.1.1, signing required, server ")), "{line}");
    }
}

#[test]
fn signals_end_it_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let scratch = Scratch::new();
        let server = Running::start(&scratch, &[]);
        // A connection that says nothing must not hold it up.
        let _idle = std::net::TcpStream::connect(server.address).unwrap();
        server.signal(signal);
        assert_eq!(server.end().0, Some(0));
    }
}

#[test]
fn what_fails_at_run_time_ends_with_1_and_one_line() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let quiet = |arguments: &[&str]| {
        let mut all = vec!["serve", "--user", "u:p", "--admin", "none"];
        all.extend(arguments);
        scratch.bad(1, &all)
    };
    assert_eq!(
        quiet(&["--share", "s=memory:", "--listen", &address]),
        format!(
            "shoal: cannot listen on {address}: Address already in use: another program listens there; --listen names another address\n"
        )
    );
    assert_eq!(
        quiet(&["--share", "s=memory:", "--listen", "192.0.2.77:0"]),
        "shoal: cannot listen on 192.0.2.77:0: Cannot assign requested address: this machine has no such address; --listen names another\n"
    );
    let line = quiet(&["--share", "s=/nonexistent/directory", "--listen", "127.0.0.1:0"]);
    assert!(line.starts_with("shoal: share \"s\": /nonexistent/directory: "), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
    let refused = scratch.bad(1, &["ping", "127.0.0.1:1"]);
    assert_eq!(refused, "shoal: 127.0.0.1:1: Connection refused\n");
}

#[test]
fn a_wrong_configuration_ends_with_2_and_a_line_for_each_mistake() {
    let scratch = Scratch::new();
    scratch.file("shoal.toml", "[server]\nlisen = \"x\"\n[shares.s]\ntarget = \"memory:\"\nro = 1\n");
    let lines = "shoal.toml:2: unknown key \"lisen\" in [server]; the nearest known key is \"listen\"\n\
                 shoal.toml:5: ro is a number; it can be true or false\n";
    for command in ["serve", "check"] {
        assert_eq!(scratch.bad(2, &[command]), lines);
        assert_eq!(scratch.bad(2, &[command, "--config", "shoal.toml"]), lines);
    }
    assert_eq!(
        scratch.bad(2, &["check", "--config", "none.toml"]),
        "none.toml: cannot be read: No such file or directory\n"
    );
    assert_eq!(scratch.run(&["serve", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(
        scratch.bad(2, &["ping", "somewhere"]),
        "shoal: \"somewhere\" is not ADDR:PORT, as in 127.0.0.1:4455\n"
    );
    let wrong = scratch
        .shoal(&["serve", "--share", "s=memory:", "--user", "u:p"])
        .env("RUST_LOG", "a=b=c")
        .current_dir("/")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).starts_with("RUST_LOG: \"a=b=c\": "), "{}", text(&wrong.stderr));
}

#[test]
fn check_prints_what_is_meant_and_finds_missing_directories() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.0.join("docs")).unwrap();
    scratch.file("shoal.toml", "[users.u]\npassword = \"sesame\"\n[shares.docs]\ntarget = \"docs\"\n");
    let printed = scratch.good(&["check"]);
    assert!(printed.starts_with("[server]\nlisten = [\"127.0.0.1:4455\"]\n"), "{printed}");
    assert!(printed.contains("\n[shares.\"docs\"]\ntarget = \"docs\"\nro = false\n"), "{printed}");
    assert!(printed.contains("\n# [users.\"u\"]\n") && !printed.contains("sesame"), "{printed}");

    scratch.file("plain", "");
    let output = scratch.run(&[
        "check",
        "--share",
        "gone=absent",
        "--share",
        "file=plain",
        "--share",
        "slow=latency:1ms:nowhere",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        "share \"gone\": absent: No such file or directory\n\
         share \"file\": plain is not a directory\n\
         share \"slow\": nowhere: No such file or directory\n"
    );
}

/// Runs `shoal user` with a password on standard input.
fn with_password(scratch: &Scratch, arguments: &[&str], password: &str) -> Output {
    let mut command = scratch.shoal(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_user_file_is_kept() {
    let scratch = Scratch::new();
    let users = scratch.0.join("users.toml");
    let hash_of = |password: &str| {
        let hash = shoal_protocol::auth::nt_hash(password);
        shoal::users::hash_to_hex(&hash).to_string()
    };
    assert_eq!(scratch.good(&["user", "list"]), "");
    assert_eq!(with_password(&scratch, &["user", "add", "bob"], "secret\n").status.code(), Some(0));
    assert_eq!(fs::metadata(&users).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&users).unwrap().contains(&hash_of("secret")));
    let file = scratch.file("password", "from a file\nnot this\n");
    scratch.good(&["user", "add", "Anna Maria", "--password-file", file.to_str().unwrap()]);
    assert!(fs::read_to_string(&users).unwrap().contains(&hash_of("from a file")));
    assert_eq!(scratch.good(&["user", "list"]), "Anna Maria\nbob\n");

    assert_eq!(
        text(&with_password(&scratch, &["user", "add", "BOB", "--password-file", "-"], "x\n").stderr),
        "shoal: users.toml: the user \"BOB\" is there already; shoal user passwd changes the password\n"
    );
    assert_eq!(
        with_password(&scratch, &["user", "passwd", "Bob", "--password-file", "-"], "other\r\n")
            .status
            .code(),
        Some(0)
    );
    let kept = fs::read_to_string(&users).unwrap();
    assert!(kept.contains(&hash_of("other")) && !kept.contains(&hash_of("secret")), "{kept}");
    assert_eq!(
        text(&with_password(&scratch, &["user", "passwd", "bob"], "\n").stderr),
        "shoal: standard input: the password is empty\n"
    );
    assert_eq!(
        scratch.bad(1, &["user", "remove", "carol"]),
        "shoal: users.toml: there is no user \"carol\"\n"
    );
    assert_eq!(
        scratch.bad(1, &["user", "passwd", "carol"]),
        "shoal: users.toml: there is no user \"carol\"\n"
    );
    assert_eq!(scratch.bad(2, &["user", "add", "a/b"]), "shoal: the user's name \"a/b\" cannot have '/'\n");
    scratch.good(&["user", "remove", "bob"]);
    assert_eq!(scratch.good(&["user", "list"]), "Anna Maria\n");

    // Where it is: beside the configuration, or what that names, or what the flag names.
    fs::create_dir(scratch.0.join("etc")).unwrap();
    scratch.file("etc/shoal.toml", "[shares.s]\ntarget = \"memory:\"\n");
    assert_eq!(
        with_password(&scratch, &["user", "--config", "etc/shoal.toml", "add", "x"], "x\n").status.code(),
        Some(0)
    );
    assert!(scratch.0.join("etc/users.toml").exists());
    scratch
        .file("etc/shoal.toml", "[server]\nusers_file = \"named.toml\"\n[shares.s]\ntarget = \"memory:\"\n");
    assert_eq!(
        with_password(&scratch, &["user", "--config", "etc/shoal.toml", "add", "y"], "y\n").status.code(),
        Some(0)
    );
    assert_eq!(scratch.good(&["user", "list", "--users", "etc/named.toml"]), "y\n");

    // Nothing is lost when two change it at once.
    let adding: Vec<Child> = (0..8)
        .map(|i| {
            let file = file.to_str().unwrap();
            scratch.shoal(&["user", "add", &format!("many{i}"), "--password-file", file]).spawn().unwrap()
        })
        .collect();
    for mut child in adding {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(scratch.good(&["user", "list"]).lines().count(), 9);
    let left: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn a_broken_user_file_is_left_alone() {
    let scratch = Scratch::new();
    let users = scratch.file("users.toml", "[users.bob]\nnt_hash = \"short\"\n");
    let before = fs::read(&users).unwrap();
    let output = with_password(&scratch, &["user", "add", "carol"], "x\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).ends_with("users.toml:2: nt_hash is not 32 hex digits\n"));
    assert_eq!(fs::read(&users).unwrap(), before);
}

#[test]
fn the_admin_socket_answers_its_owner() {
    let scratch = Scratch::new();
    let socket = scratch.0.join("a.sock");
    let admin = ["--admin", socket.to_str().unwrap()];
    assert_eq!(
        scratch.bad(1, &["status", admin[0], admin[1]]),
        "shoal: no server answers at a.sock: No such file or directory; --admin SOCKET names another\n"
    );
    let server = Running::start(&scratch, &admin);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let status: serde_json::Value =
        serde_json::from_str(&scratch.good(&["status", "--json", admin[0], admin[1]])).unwrap();
    assert_eq!(status["pid"], server.child.id());
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((status["session_count"].as_u64(), status["open_count"].as_u64()), (Some(0), Some(0)));
    let table = scratch.good(&["status", admin[0], admin[1]]);
    assert!(
        table.starts_with(&format!(
            "shoal {}, process {}, up ",
            env!("CARGO_PKG_VERSION"),
            server.child.id()
        )),
        "{table}"
    );

    assert_eq!(
        scratch.bad(1, &["close-session", "0x1234", admin[0], admin[1]]),
        "shoal: there is no session 0x1234\n"
    );
    assert_eq!(
        scratch.bad(1, &["close-session", "me", admin[0], admin[1]]),
        "shoal: \"me\" is no session id, as in 0x1f\n"
    );
    assert_eq!(scratch.good(&["stop", admin[0], admin[1]]), "");
    assert_eq!(server.end().0, Some(0));
    assert!(!socket.exists());
}

#[test]
fn an_admin_socket_is_never_taken_away() {
    let scratch = Scratch::new();
    let socket = scratch.0.join("a.sock");
    let admin = socket.to_str().unwrap();
    let first = Running::start(&scratch, &["--admin", admin]);
    let other =
        ["serve", "--listen", "127.0.0.1:0", "--share", "s=memory:", "--user", "u:p", "--admin", admin];
    assert_eq!(scratch.bad(1, &other), "shoal: admin socket a.sock: another server answers there\n");
    let status: serde_json::Value =
        serde_json::from_str(&scratch.good(&["status", "--json", "--admin", admin])).unwrap();
    assert_eq!(status["pid"], first.child.id());
    // A file that is no socket stays, too.
    scratch.file("plain", "precious");
    let plain = scratch.0.join("plain");
    let other = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--share",
        "s=memory:",
        "--user",
        "u:p",
        "--admin",
        plain.to_str().unwrap(),
    ];
    assert_eq!(scratch.bad(1, &other), "shoal: admin socket plain: there is a file that is no socket\n");
    assert_eq!(fs::read(&plain).unwrap(), b"precious");
    // The socket of a server that was killed does not stand in the way.
    first.signal(Signal::KILL);
    drop(first);
    assert!(socket.exists());
    let next = Running::start(&scratch, &["--admin", admin]);
    next.signal(Signal::TERM);
    assert_eq!(next.end().0, Some(0));
}

/// As a user with a runtime directory, the second server does without; as root the place is another, which a test must not use.
#[test]
fn a_default_admin_socket_that_is_taken_is_done_without() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let scratch = Scratch::new();
    let first = Running::start(&scratch, &[]);
    let second = Running::start(&scratch, &[]);
    let status: serde_json::Value = serde_json::from_str(&scratch.good(&["status", "--json"])).unwrap();
    assert_eq!(status["pid"], first.child.id());
    second.signal(Signal::TERM);
    let (code, log) = second.end();
    assert_eq!(code, Some(0));
    assert!(log.contains("another server answers there; going on without"), "{log}");
    assert!(scratch.0.join("shoal.sock").exists());
}

#[test]
fn reload_takes_over_what_is_right_and_keeps_the_rest() {
    let scratch = Scratch::new();
    let socket = scratch.0.join("a.sock");
    let admin = ["--admin", socket.to_str().unwrap()];
    let good = "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"a.sock\"\n[users.u]\npassword = \"x\"\n[shares.s]\ntarget = \"memory:\"\n";
    let config = scratch.file("shoal.toml", good);
    let server = Running::ready(scratch.shoal(&["serve"]));
    assert_eq!(scratch.good(&["reload", admin[0], admin[1]]), "");

    fs::write(&config, format!("{good}case = \"none\"\n")).unwrap();
    assert_eq!(
        scratch.bad(2, &["reload", admin[0], admin[1]]),
        "shoal.toml:8: case is \"none\"; it can be \"insensitive\" or \"sensitive\"\n"
    );
    fs::write(&config, format!("{good}[shares.t]\ntarget = \"/nonexistent\"\n")).unwrap();
    let failed = scratch.bad(1, &["reload", admin[0], admin[1]]);
    assert!(
        failed.starts_with("shoal: share \"t\": /nonexistent: ")
            && failed.ends_with("; the old configuration stays\n"),
        "{failed}"
    );
    fs::write(&config, good.replace("127.0.0.1:0", "127.0.0.1:1")).unwrap();
    let output = scratch.run(&["reload", admin[0], admin[1]]);
    assert_eq!(text(&output.stderr), "warning: listen changed, which waits for the next start\n");
    assert_eq!(output.status.code(), Some(0));
    // It serves on through all of that.
    scratch.good(&["ping", &server.address.to_string()]);
}

#[test]
fn the_service_manager_is_told() {
    let scratch = Scratch::new();
    let path = scratch.0.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        text(&buffer[..length])
    };
    let mut command = scratch.shoal(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--share",
        "s=memory:",
        "--user",
        "u:p",
        "--admin",
        "none",
    ]);
    command.env("NOTIFY_SOCKET", &path);
    let server = Running::ready(command);
    assert_eq!(told(), "READY=1");
    server.signal(Signal::HUP);
    let reloading = told();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(told(), "READY=1");
    server.signal(Signal::TERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn logs_go_to_standard_error_as_asked() {
    let scratch = Scratch::new();
    let server = Running::start(&scratch, &["--log-format", "json"]);
    server.signal(Signal::TERM);
    let (code, log) = server.end();
    assert_eq!(code, Some(0));
    assert!(!log.is_empty());
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}

/// Something that accepts and never answers is not well.
#[test]
fn ping_does_not_wait_for_ever() {
    let scratch = Scratch::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let began = Instant::now();
    let line = scratch.bad(1, &["ping", &silent.local_addr().unwrap().to_string()]);
    assert!(line.ends_with(": no answer within 5 s\n"), "{line}");
    assert!(began.elapsed() < Duration::from_secs(15));
}
