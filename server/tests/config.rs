//! The configuration from outside: what is meant, each mistake by its exact line, and that the documentation tells the truth.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shoal::config::{LogFormat, Problem, Raw, Settings, ShareSettings, Signing, Target, reference};
use shoal_protocol::smb2::Dialect;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("shoal-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The lines of `problems`, with this directory left out.
    fn lines(&self, problems: &[Problem]) -> Vec<String> {
        let prefix = format!("{}/", self.0.display());
        problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Settled = Result<(Settings, Vec<Problem>), Vec<Problem>>;

fn settle(file: &Path) -> Settled {
    let mut raw = Raw::default();
    raw.read_file(file);
    raw.settle()
}

/// All mistakes in a shoal.toml of this text.
fn mistakes(text: &str) -> Vec<String> {
    let scratch = Scratch::new();
    let file = scratch.file("shoal.toml", text);
    scratch.lines(&settle(&file).expect_err("mistakes were expected"))
}

/// What a shoal.toml of this text means.
fn meant(text: &str) -> Settings {
    let scratch = Scratch::new();
    let file = scratch.file("shoal.toml", text);
    match settle(&file) {
        Ok((settings, _)) => settings,
        Err(problems) => panic!("{:?}", scratch.lines(&problems)),
    }
}

/// A share, so that the configuration has no mistake but the one under test.
const SHARE: &str = "[shares.s]\ntarget = \"memory:\"\n";

/// The mistakes of `[server]` with this line, all on line 2.
fn server_mistakes(line: &str) -> Vec<String> {
    mistakes(&format!("[server]\n{line}\n{SHARE}"))
}

fn flag_mistakes(flags: impl FnOnce(&mut Raw)) -> Vec<String> {
    let mut raw = Raw::default();
    flags(&mut raw);
    raw.settle().expect_err("mistakes were expected").iter().map(Problem::to_string).collect()
}

#[test]
fn silence_means_the_safe_defaults() {
    let settings = meant(SHARE);
    assert_eq!(settings.listen, ["127.0.0.1:4455".parse().unwrap()]);
    assert_eq!(settings.signing, Signing::Required);
    assert_eq!(settings.dialects, (Dialect::Smb202, Dialect::Smb311));
    assert!(!settings.guest && !settings.encrypt && settings.users.is_empty() && settings.admin.is_none());
    let share = ShareSettings { name: "s".to_owned(), ..ShareSettings::default() };
    assert_eq!(settings.shares, [share]);
    assert_eq!(settings.limits, Default::default());
}

#[test]
fn everything_can_be_said() {
    let scratch = Scratch::new();
    scratch.file("bob.password", "bob's secret\nand a second line\n");
    scratch.file(
        "accounts.toml",
        "[users.\"anna maria\"]\nnt_hash = \"A4F49C406510BDCAB6824EE7C30FD852\"\ndisabled = true\n",
    );
    let file = scratch.file(
        "shoal.toml",
        r#"
        [server]
        listen = ["0.0.0.0:445", "[::1]:4455"]
        name = "nas-1"
        domain = "Home"
        comment = "In the cellar"
        guid = "0f8fad5b-d9cb-469f-a165-70867728950e"
        signing = "enabled"
        min_dialect = "3.0"
        max_dialect = "3.0.2"
        users_file = "accounts.toml"
        admin = "admin.sock"
        log_format = "json"
        [limits]
        connections = 20_000
        max_read_size = "1 MiB"
        notify_buffer = 8192
        negotiate_timeout = "90 s"
        [users.alice]
        password = "Password"
        [users.bob]
        password_file = "bob.password"
        [shares.docs]
        target = "tree/docs"
        ro = true
        guest = true
        case = "sensitive"
        coherence = "revalidate"
        hidden = true
        comment = "Papers"
        identity = "service"
        [shares.slow]
        target = "latency:5ms:memory:"
        encrypt = true
        "#,
    );
    let (settings, warnings) = settle(&file).unwrap();
    assert_eq!(scratch.lines(&warnings), [""; 0]);
    assert_eq!(settings.listen, ["0.0.0.0:445".parse().unwrap(), "[::1]:4455".parse().unwrap()]);
    assert_eq!((settings.server_name.as_str(), settings.netbios_domain.as_str()), ("NAS-1", "HOME"));
    assert_eq!(settings.comment, "In the cellar");
    assert_eq!(settings.server_guid.to_string(), "0f8fad5b-d9cb-469f-a165-70867728950e");
    assert!(settings.server_guid_given && settings.guest);
    assert_eq!(settings.signing, Signing::Enabled);
    assert_eq!(settings.dialects, (Dialect::Smb300, Dialect::Smb302));
    assert_eq!(settings.log_format, LogFormat::Json);
    let admin = settings.admin.as_ref().unwrap();
    assert_eq!((admin.path.as_path(), admin.given), (scratch.0.join("admin.sock").as_path(), true));
    assert_eq!(settings.limits.connections, 20_000);
    assert_eq!(settings.limits.max_read_size, 1 << 20);
    assert_eq!(settings.limits.notify_buffer, 8192);
    assert_eq!(settings.limits.negotiate_timeout.as_secs(), 90);

    let hash = shoal_protocol::auth::nt_hash;
    assert_eq!(*settings.users.get("ALICE").unwrap().nt_hash, hash("Password"));
    assert_eq!(*settings.users.get("bob").unwrap().nt_hash, hash("bob's secret"));
    let anna = settings.users.get("Anna Maria").unwrap();
    assert_eq!((*anna.nt_hash, anna.disabled), (hash("Password"), true));

    assert_eq!(settings.shares[0].target, Target::Directory(scratch.0.join("tree/docs")));
    let docs = &settings.shares[0];
    assert!(docs.read_only && docs.guest && !docs.insensitive && docs.hidden && !docs.encrypt);
    assert_eq!(docs.coherence, Some(shoal_vfs::Coherence::Revalidate(Duration::ZERO)));
    assert_eq!(settings.shares[1].target.to_string(), "latency:5ms:memory:");
    assert!(settings.shares[1].encrypt);

    // What is printed of it means the same again, but for the accounts, which it keeps to itself.
    let text = settings.to_toml();
    assert!(!text.to_lowercase().contains("a4f49c40") && !text.contains("Password"), "{text}");
    let again = meant(&text);
    assert_eq!(again.to_toml(), text.split("\n# [users.").next().unwrap());
}

#[test]
fn every_mistake_is_listed_by_its_line() {
    let text = r#"lisen = "127.0.0.1:4455"
[server]
signing = "maybe"
encrypt = "yes"
listen = ["127.0.0.1:4455", "everywhere"]
min_dialect = "1.0"
[limit]
[limits]
conections = 5
connections = "many"
max_read_size = "8 MB"
negotiate_timeout = 30
opens = 3
[users.alice]
pasword = "x"
[shares.docs]
path = "/srv/docs"
"#;
    assert_eq!(
        mistakes(text),
        [
            "shoal.toml:1: unknown key \"lisen\" outside all sections; the nearest known key is \"listen\" in [server]",
            "shoal.toml:3: signing is \"maybe\"; it can be \"required\" or \"enabled\"",
            "shoal.toml:4: encrypt is \"yes\"; it can be true or false, without quotes",
            "shoal.toml:5: listen \"everywhere\" is not ADDR:PORT, as in 127.0.0.1:4455 or [::1]:4455",
            "shoal.toml:6: min_dialect is \"1.0\"; it can be \"2.0.2\", \"2.1\", \"3.0\", \"3.0.2\" or \"3.1.1\"",
            "shoal.toml:7: unknown section [limit]; the nearest known section is [limits]",
            "shoal.toml:9: unknown key \"conections\" in [limits]; the nearest known key is \"connections\"",
            "shoal.toml:10: connections is the text \"many\"; expected a number",
            "shoal.toml:11: max_read_size is \"8 MB\"; expected bytes, as in 65536 or \"8 MiB\"",
            "shoal.toml:12: negotiate_timeout is 30; expected a time with its unit, as in \"30 s\"",
            "shoal.toml:13: opens is 3; it can be 16 to 16777216",
            "shoal.toml:15: unknown key \"pasword\" in [users.alice]; the nearest known key is \"password\"",
            "shoal.toml:17: unknown key \"path\" in [shares.docs]; the nearest known key is \"target\"",
        ]
    );
}

#[test]
fn wrong_kinds_of_value() {
    let cases = [
        ("listen = 4455", "listen is a number; expected text in quotes"),
        ("listen = []", "listen is an empty list; expected \"ADDR:PORT\""),
        ("listen = [true]", "listen is true or false; expected text in quotes"),
        (
            "name = \"sixteen-letters-\"",
            "name is \"sixteen-letters-\"; expected 1 to 15 letters, digits, \"-\" or \"_\"",
        ),
        ("domain = \"\"", "domain is \"\"; expected 1 to 15 letters, digits, \"-\" or \"_\""),
        ("comment = \"a\\nb\"", "comment must be one line of at most 255 characters"),
        ("guid = \"5\"", "guid is \"5\"; expected a GUID, as in \"0f8fad5b-d9cb-469f-a165-70867728950e\""),
        ("signing = true", "signing is true or false; expected text in quotes"),
        ("encrypt = 1", "encrypt is a number; it can be true or false"),
        ("log_format = \"xml\"", "log_format is \"xml\"; it can be \"text\" or \"json\""),
        ("users_file = 1.5", "users_file is a number with a fraction; expected text in quotes"),
        ("admin = 1979-05-27", "admin is a date; expected text in quotes"),
    ];
    for (line, message) in cases {
        assert_eq!(server_mistakes(line), [format!("shoal.toml:2: {message}")], "{line}");
    }
    assert_eq!(
        mistakes("limits = 5\n"),
        ["shoal.toml:1: \"limits\" is a number; expected the section [limits]"]
    );
    assert_eq!(
        mistakes("[users]\nalice = \"secret\"\n"),
        ["shoal.toml:2: \"alice\" in [users] is text; expected the section [users.alice]"]
    );
    assert_eq!(
        mistakes("[shares]\ndocs = \"/srv\"\n"),
        ["shoal.toml:2: \"docs\" in [shares] is text; expected the section [shares.docs]"]
    );
    for (line, message) in [
        ("opens = -5", "opens is -5; it cannot be negative"),
        ("opens = 1.5", "opens is a number with a fraction; expected a number"),
        ("notify_buffer = true", "notify_buffer is true or false; expected bytes, as in 65536 or \"8 MiB\""),
        ("notify_buffer = \"1 GiB\"", "notify_buffer is 1 GiB; it can be 4 KiB to 16 MiB"),
        (
            "negotiate_timeout = \"1 day\"",
            "negotiate_timeout is \"1 day\"; expected a time, as in \"30 s\" or \"5 ms\"",
        ),
    ] {
        assert_eq!(
            mistakes(&format!("[limits]\n{line}\n{SHARE}")),
            [format!("shoal.toml:2: {message}")],
            "{line}"
        );
    }
}

#[test]
fn broken_syntax_has_its_line_too() {
    let found = mistakes("[server]\nname = \n[shares.s]\ntarget = \"memory:\"\ntarget = \"memory:\"\n");
    assert!(found[0].starts_with("shoal.toml:2: "), "{found:?}");
    assert!(found.iter().any(|line| line.starts_with("shoal.toml:5: ")), "{found:?}");
    assert!(found.iter().all(|line| !line.contains('\n')), "{found:?}");
}

#[test]
fn files_that_cannot_be_read() {
    let scratch = Scratch::new();
    let problems = settle(&scratch.0.join("absent.toml")).unwrap_err();
    assert_eq!(scratch.lines(&problems), ["absent.toml: cannot be read: No such file or directory"]);

    let file = scratch.file(
        "shoal.toml",
        &format!("[server]\nusers_file = \"none.toml\"\n[users.u]\npassword_file = \"no.password\"\n[users.v]\npassword_file = \"empty\"\n{SHARE}"),
    );
    scratch.file("empty", "\n");
    assert_eq!(
        scratch.lines(&settle(&file).unwrap_err()),
        [
            "none.toml: cannot be read: No such file or directory",
            "shoal.toml:4: password_file is in no.password, which cannot be read: No such file or directory",
            "shoal.toml:6: password_file is in empty, whose first line is empty",
        ]
    );
}

#[test]
fn shares_that_cannot_be() {
    let cases = [
        ("[shares.s]\n", "shoal.toml:1: the share \"s\" has no target: a directory, or \"memory:\""),
        ("[shares.'a/b']\ntarget = \"memory:\"\n", "shoal.toml:1: the share's name \"a/b\" cannot have '/'"),
        (
            "[shares.\"\"]\ntarget = \"memory:\"\n",
            "shoal.toml:1: the share's name \"\" must have 1 to 80 characters",
        ),
        (
            "[shares.\" a\"]\ntarget = \"memory:\"\n",
            "shoal.toml:1: the share's name \" a\" cannot begin or end with a space",
        ),
        (
            "[shares.'ipc$']\ntarget = \"memory:\"\n",
            "shoal.toml:1: the share's name \"ipc$\" is the server's own",
        ),
        (
            "[shares.s]\ntarget = \"\"\n",
            "shoal.toml:2: target is empty; it can be a directory or \"memory:\"",
        ),
        (
            "[shares.s]\ntarget = \"memory:x\"\n",
            "shoal.toml:2: target is \"memory:x\"; nothing can stand after \"memory:\"",
        ),
        (
            "[shares.s]\ntarget = \"latency:5:memory:\"\n",
            "shoal.toml:2: target is \"latency:5:memory:\"; expected \"latency:TIME:TARGET\", as in \"latency:5ms:memory:\"",
        ),
        (
            "[shares.s]\ntarget = \"memory:\"\ncase = \"both\"\n",
            "shoal.toml:3: case is \"both\"; it can be \"insensitive\" or \"sensitive\"",
        ),
        (
            "[shares.s]\ntarget = \"/tmp\"\ncoherence = \"always\"\n",
            "shoal.toml:3: coherence is \"always\"; it can be \"auto\", \"exclusive\", \"notify\", \"revalidate\" or \"none\"",
        ),
        (
            "[shares.s]\ntarget = \"latency:5ms:memory:\"\ncoherence = \"none\"\n",
            "shoal.toml:1: the share \"s\" is in memory, where coherence has no effect",
        ),
        (
            "[shares.s]\ntarget = \"memory:\"\nidentity = \"user\"\n",
            "shoal.toml:3: identity is \"user\"; it can be \"service\"",
        ),
        (
            "[shares.s]\ntarget = \"memory:\"\nguest = true\nencrypt = true\n",
            "shoal.toml:1: the share \"s\" cannot have both guest and encrypt: a guest has no key to encrypt with",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(mistakes(text), [message], "{text}");
    }
    let wrapped = format!("[shares.s]\ntarget = \"{}memory:\"\n", "latency:1ms:".repeat(6));
    assert_eq!(mistakes(&wrapped), ["shoal.toml:2: target has more than 4 wrappers"]);
    assert_eq!(
        mistakes("[shares.Docs]\ntarget = \"memory:\"\n[shares.docs]\ntarget = \"memory:\"\n"),
        ["shoal.toml:3: the share \"docs\" is there already: shoal.toml:1"]
    );
    assert_eq!(
        mistakes(""),
        ["configuration: there is no share; give [shares.NAME] in the file, or --share NAME=TARGET"]
    );
}

#[test]
fn users_that_cannot_be() {
    let user = |body: &str| mistakes(&format!("[users.u]\n{body}\n{SHARE}"));
    assert_eq!(user(""), ["shoal.toml:1: the user \"u\" has none of password, password_file and nt_hash"]);
    assert_eq!(
        user("password = \"x\"\nnt_hash = \"a4f49c406510bdcab6824ee7c30fd852\""),
        ["shoal.toml:1: the user \"u\" has more than one of password, password_file and nt_hash"]
    );
    assert_eq!(user("password = \"\""), ["shoal.toml:2: password is empty"]);
    assert_eq!(user("nt_hash = \"abc\""), ["shoal.toml:2: nt_hash is not 32 hex digits"]);
    assert_eq!(
        mistakes(&format!("[users.'a:b']\npassword = \"x\"\n{SHARE}")),
        ["shoal.toml:1: the user's name \"a:b\" cannot have ':'"]
    );
    assert_eq!(
        mistakes(&format!("[users.Alice]\npassword = \"x\"\n[users.alice]\npassword = \"x\"\n{SHARE}")),
        ["shoal.toml:3: the user \"alice\" is there already: shoal.toml:1"]
    );
}

#[test]
fn keys_that_do_not_fit_each_other() {
    assert_eq!(
        mistakes(&format!("[server]\nmin_dialect = \"3.0\"\nmax_dialect = \"2.1\"\n{SHARE}")),
        ["shoal.toml:3: min_dialect 3.0 is above max_dialect 2.1"]
    );
    assert_eq!(
        mistakes(&format!("[server]\nencrypt = true\nmax_dialect = \"2.1\"\n{SHARE}")),
        ["shoal.toml:2: encrypt needs SMB 3.0, but max_dialect is 2.1"]
    );
    assert_eq!(
        mistakes(&format!("[server]\nmax_dialect = \"2.1\"\n{SHARE}encrypt = true\n")),
        ["shoal.toml:3: the share \"s\" has encrypt, which needs SMB 3.0, but max_dialect is 2.1"]
    );
    assert_eq!(
        mistakes(&format!("[limits]\nreply_budget_per_connection = \"2 MiB\"\n{SHARE}")),
        [
            "shoal.toml:2: reply_budget_per_connection is 2 MiB, less than the largest of max_read_size, max_write_size and max_transact_size, which is 8 MiB"
        ]
    );
    assert_eq!(
        mistakes(&format!("[limits]\nopens_per_session = 200\nopens = 100\n{SHARE}")),
        ["shoal.toml:3: opens is 100, less than opens_per_session, which is 200"]
    );
    let limits = meant(&format!("[limits]\nopens = 100\nconnections = 50\n{SHARE}")).limits;
    assert_eq!((limits.opens_per_session, limits.connections_per_address), (100, 50));
    assert_eq!(
        mistakes(&format!("[server]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n{SHARE}")),
        ["shoal.toml:2: listen 127.0.0.1:1 is listed twice"]
    );
}

#[test]
fn flags_mean_the_same() {
    let mut raw = Raw::default();
    raw.flag_listen("127.0.0.1:0");
    raw.flag_share("docs=/srv/docs,ro,guest,case=sensitive,hidden,comment=All papers");
    raw.flag_share("fast=memory:,encrypt");
    raw.flag_share("slow=latency:5ms:/srv/slow");
    raw.flag_user("alice:pass:with@colon");
    raw.flag_admin(Path::new("/run/x.sock"));
    raw.flag_log_format(LogFormat::Json);
    let (settings, warnings) = raw.settle().unwrap();
    assert_eq!(warnings, []);
    assert_eq!(settings.listen, ["127.0.0.1:0".parse().unwrap()]);
    let docs = &settings.shares[0];
    assert_eq!((docs.name.as_str(), docs.comment.as_str()), ("docs", "All papers"));
    assert_eq!(docs.target, Target::Directory("/srv/docs".into()));
    assert!(docs.read_only && docs.guest && docs.hidden && !docs.insensitive);
    assert!(settings.shares[1].encrypt && settings.shares[1].target == Target::Memory);
    assert_eq!(settings.shares[2].target.to_string(), "latency:5ms:/srv/slow");
    let alice = settings.users.get("alice").unwrap();
    assert_eq!(*alice.nt_hash, shoal_protocol::auth::nt_hash("pass:with@colon"));
    assert!(settings.admin.unwrap().given);
}

#[test]
fn flags_that_are_wrong() {
    assert_eq!(
        flag_mistakes(|raw| {
            raw.flag_listen("4455");
            raw.flag_share("docs");
            raw.flag_share("a=memory:,reed");
            raw.flag_share("b=memory:,case=odd");
            raw.flag_user("secretword");
            raw.flag_user("bob:");
            raw.flag_user("carol:@/nonexistent/file");
            raw.flag_users_file(Path::new("/nonexistent/users.toml"));
        }),
        [
            "/nonexistent/users.toml: cannot be read: No such file or directory",
            "--listen 4455: \"4455\" is not ADDR:PORT, as in 127.0.0.1:4455 or [::1]:4455",
            "--share a=memory:,reed: unknown option \"reed\"; the nearest known option is \"ro\"",
            "--share b=memory:,case=odd: unknown option \"case=odd\"; the nearest known option is \"case=insensitive|sensitive\"",
            "--share docs: expected NAME=TARGET[,OPTION...]",
            "--user: expected NAME:PASSWORD or NAME:@FILE",
            "--user bob: has an empty password",
            "--user carol: is in /nonexistent/file, which cannot be read: No such file or directory",
        ]
    );
}

#[test]
fn flags_overrule_or_add_to_the_file() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "shoal.toml",
        &format!("[server]\nlisten = \"127.0.0.1:1\"\nadmin = \"a\"\n{SHARE}[users.u]\npassword = \"x\"\n"),
    );
    let mut raw = Raw::default();
    raw.flag_listen("127.0.0.1:2");
    raw.flag_share("more=memory:");
    raw.flag_admin(Path::new("none"));
    raw.flag_user("v:y");
    raw.read_file(&file);
    let (settings, _) = raw.settle().unwrap();
    assert_eq!(settings.listen, ["127.0.0.1:2".parse().unwrap()]);
    assert_eq!(settings.shares.len(), 2);
    assert_eq!(settings.users.len(), 2);
    assert_eq!(settings.admin, None);

    let mut raw = Raw::default();
    raw.flag_share("S=memory:");
    raw.read_file(&file);
    let problems = raw.settle().unwrap_err();
    assert_eq!(
        scratch.lines(&problems),
        ["shoal.toml:4: the share \"s\" is there already: --share S=memory:"]
    );
}

#[test]
fn the_user_file_beside_the_configuration_is_read() {
    let scratch = Scratch::new();
    let file = scratch.file("shoal.toml", SHARE);
    scratch.file("users.toml", "[users.bob]\nnt_hash = \"a4f49c406510bdcab6824ee7c30fd852\"\n");
    let (settings, warnings) = settle(&file).unwrap();
    assert!(settings.users.get("bob").is_some() && warnings.is_empty());

    let users = scratch.file("users.toml", "[server]\n[users.bob]\nnt_hash = \"x\"\n");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(
        scratch.lines(&settle(&file).unwrap_err()),
        [
            "users.toml:1: unknown section [server]; a user file has [users.NAME] only",
            "users.toml:3: nt_hash is not 32 hex digits"
        ]
    );
}

#[test]
fn what_may_be_meant_but_looks_wrong_is_warned_of() {
    let scratch = Scratch::new();
    let file = scratch.file("shoal.toml", SHARE);
    let (_, warnings) = settle(&file).unwrap();
    assert_eq!(
        scratch.lines(&warnings),
        ["configuration: there is no user and no guest share: nobody can log in"]
    );

    let users = scratch.file("users.toml", "[users.bob]\nnt_hash = \"a4f49c406510bdcab6824ee7c30fd852\"\n");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o640)).unwrap();
    let (_, warnings) = settle(&file).unwrap();
    assert_eq!(
        scratch.lines(&warnings),
        ["users.toml: other users can read the secrets in it (mode 0640); chmod 600 keeps them out"]
    );
}

#[test]
fn only_what_can_change_while_it_runs_does() {
    let now = meant(&format!("[server]\nadmin = \"none\"\n{SHARE}"));
    let mut next = meant(&format!(
        "[server]\nlisten = \"127.0.0.1:9\"\ncomment = \"x\"\nadmin = \"none\"\n[limits]\ncache_size = \"8 MiB\"\n{SHARE}"
    ));
    next.server_guid = now.server_guid;
    assert_eq!(next.needs_restart(&now), ["listen", "cache_size"]);
    assert_eq!(now.needs_restart(&now), [""; 0]);
}

/// docs/configuration.md has exactly the keys that there are, in their order, with their kinds and defaults.
#[test]
fn the_documentation_is_true() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
    let mut section = "";
    let mut documented = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## [") {
            section = name.trim_end_matches(']');
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", key, kind, default, meaning, ""] = cells[..]
            && let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'))
        {
            assert!(!meaning.is_empty(), "{key}");
            documented.push(format!("{section} {key} | {kind} | {default}"));
        }
    }
    let known: Vec<String> = reference()
        .iter()
        .map(|key| format!("{} {} | {} | {}", key.section, key.key, key.kind, key.default))
        .collect();
    for (documented, known) in documented.iter().zip(&known) {
        assert_eq!(documented, known);
    }
    assert_eq!(documented.len(), known.len());
}

/// The example at the head of docs/configuration.md is one.
#[test]
fn the_documented_example_is_right() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
    let example = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let scratch = Scratch::new();
    scratch.file("alice.password", "secret\n");
    let file = scratch.file("shoal.toml", example);
    assert_eq!(scratch.lines(&settle(&file).unwrap().1), [""; 0]);
}

/// Every limit is read by the code that enforces it: a key without effect would be a lie.
#[test]
fn every_limit_is_enforced_somewhere() {
    let mut source = String::new();
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("config") {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("config.rs") {
                source.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let idle: Vec<&str> = reference()
        .iter()
        .filter(|key| key.section == "limits" && !source.contains(&format!("limits.{}", key.key)))
        .map(|key| key.key)
        .collect();
    assert_eq!(idle, [""; 0]);
}
