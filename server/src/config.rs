//! The configuration: what the file and the flags say ([`Raw`], as written), and what is meant ([`Settings`]). All mistakes are found
//! in one go and none is passed over: an unknown key is an error that names its line and the nearest known key.

mod limits;
mod raw;
mod units;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use shoal_protocol::dtyp::Guid;
use shoal_protocol::smb2::Dialect;
use shoal_vfs::Coherence;

pub use crate::users::UserSettings;
use crate::users::Users;
pub use limits::{LimitKey, Limits};
pub use raw::{Origin, Problem, Raw, Reference, dialect_name, reason, reference, user_name};
pub use units::{Unit, show};

/// Whether sessions of users must be signed. Guests and anonymous sessions have no key to sign with (MS-SMB2 3.3.5.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// Every request of a user must be signed.
    Required,
    /// Signed if the client asks for it.
    Enabled,
}

/// What a server is to do, checked and complete.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses to listen on. A port 0 stands for any free one.
    pub listen: Vec<SocketAddr>,
    /// The computer's name in NetBIOS form: at most 15 characters, upper case.
    pub server_name: String,
    /// The domain or workgroup that the server says it is in: at most 15 characters, upper case.
    pub netbios_domain: String,
    /// The server's description, as `srvsvc` tells it.
    pub comment: String,
    /// Identifies this server to clients (MS-SMB2 2.2.4).
    pub server_guid: Guid,
    /// Whether `server_guid` was configured, not drawn; a reload keeps a drawn one.
    pub server_guid_given: bool,
    /// Whether users' sessions must be signed.
    pub signing: Signing,
    /// Least and greatest dialect offered, both included.
    pub dialects: (Dialect, Dialect),
    /// Whether every session of a user must be encrypted; clients before SMB 3.0 are then refused.
    pub encrypt: bool,
    /// Whether some share takes guests, so that an unknown name may log in as one.
    pub guest: bool,
    /// The shares, IPC$ not among them.
    pub shares: Vec<ShareSettings>,
    /// The accounts.
    pub users: Users,
    /// The bounds of everything that a client can make grow.
    pub limits: Limits,
    /// The admin socket; none if it is switched off or no place for it is known.
    pub admin: Option<AdminSettings>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Whether the private control codes of smbtorture are answered.
    pub torture_controls: bool,
    /// Whether a change excludes all others in its directory, not only those of its name: for experiments.
    pub directory_lock: bool,
}

/// Where the admin socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// The socket's path.
    pub path: PathBuf,
    /// Whether it was configured: then the server must have it, else it does without when another server listens there.
    pub given: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// One share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareSettings {
    /// Its name as written; clients may spell it in any case.
    pub name: String,
    /// What is shared.
    pub target: Target,
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// Guests may use it.
    pub guest: bool,
    /// Names are found in any case.
    pub insensitive: bool,
    /// How what other processes do to a directory is noticed; `None`: as its file system allows.
    pub coherence: Option<Coherence>,
    /// Every request to it must be encrypted.
    pub encrypt: bool,
    /// Left out of share lists.
    pub hidden: bool,
    /// Its description in share lists.
    pub comment: String,
}

/// What a share shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A tree in memory, empty at first and gone with the server.
    Memory,
    /// Another target, each call of it delayed by a fixed time: for experiments.
    Latency(Duration, Box<Target>),
}

impl Default for ShareSettings {
    fn default() -> ShareSettings {
        ShareSettings {
            name: String::new(),
            target: Target::Memory,
            read_only: false,
            guest: false,
            insensitive: true,
            coherence: None,
            encrypt: false,
            hidden: false,
            comment: String::new(),
        }
    }
}

impl Default for Settings {
    /// No share and no user, on the default address; every other key at its default.
    fn default() -> Settings {
        Settings {
            listen: vec![DEFAULT_LISTEN],
            server_name: DEFAULT_NAME.to_owned(),
            netbios_domain: DEFAULT_DOMAIN.to_owned(),
            comment: DEFAULT_COMMENT.to_owned(),
            server_guid: random_guid(),
            server_guid_given: false,
            signing: Signing::Required,
            dialects: (Dialect::Smb202, Dialect::Smb311),
            encrypt: false,
            guest: false,
            shares: Vec::new(),
            users: Users::default(),
            limits: Limits::default(),
            admin: None,
            log_format: LogFormat::Text,
            torture_controls: false,
            directory_lock: false,
        }
    }
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4455);
const DEFAULT_NAME: &str = "SHOAL";
const DEFAULT_DOMAIN: &str = "WORKGROUP";
const DEFAULT_COMMENT: &str = "Shoal";

impl Settings {
    /// The demo: a share `demo` in memory, and a user `demo` with `password`.
    pub fn demo(password: &str) -> Settings {
        Settings {
            shares: vec![ShareSettings { name: "demo".to_owned(), ..ShareSettings::default() }],
            users: Users::new([UserSettings::with_password("demo", password)], false),
            ..Settings::default()
        }
    }
}

impl Settings {
    /// The greatest dialect of ours among the revisions that a client offers.
    pub fn greatest_common(&self, offered: &[u16]) -> Option<Dialect> {
        let (least, greatest) = self.dialects;
        let ours = |revision: &u16| {
            Dialect::try_from(*revision).ok().filter(|dialect| (least..=greatest).contains(dialect))
        };
        offered.iter().filter_map(ours).max()
    }

    /// What differs from `now`, the settings of the running server, and cannot change before the next start.
    pub fn needs_restart(&self, now: &Settings) -> Vec<&'static str> {
        let fixed = [
            ("listen", self.listen != now.listen),
            ("admin", self.admin != now.admin),
            ("log_format", self.log_format != now.log_format),
            ("guid", self.server_guid != now.server_guid),
            ("reply_budget_total", self.limits.reply_budget_total != now.limits.reply_budget_total),
            ("directory_lock", self.directory_lock != now.directory_lock),
            ("cache_size", self.limits.cache_size != now.limits.cache_size),
        ];
        fixed.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// All that is meant, as a configuration file would say it, without any secret: users are comments.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let listen: Vec<String> = self.listen.iter().map(|address| quoted(&address.to_string())).collect();
        let signing = match self.signing {
            Signing::Required => "required",
            Signing::Enabled => "enabled",
        };
        let log_format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let admin = self.admin.as_ref().map_or("none".into(), |admin| admin.path.to_string_lossy());
        let mut line = |key: &str, value: String| text.push_str(&format!("{key} = {value}\n"));
        line("listen", format!("[{}]", listen.join(", ")));
        line("name", quoted(&self.server_name));
        line("domain", quoted(&self.netbios_domain));
        line("comment", quoted(&self.comment));
        if self.server_guid_given {
            line("guid", quoted(&self.server_guid.to_string()));
        }
        line("signing", quoted(signing));
        line("encrypt", self.encrypt.to_string());
        line("min_dialect", quoted(dialect_name(self.dialects.0)));
        line("max_dialect", quoted(dialect_name(self.dialects.1)));
        line("admin", quoted(&admin));
        line("log_format", quoted(log_format));
        line("torture_controls", self.torture_controls.to_string());
        line("directory_lock", self.directory_lock.to_string());
        text.insert_str(0, "[server]\n");
        text.push_str("\n[limits]\n");
        for (key, number) in self.limits.numbers() {
            let value = match key.unit {
                Unit::Count => number.to_string(),
                unit => quoted(&show(unit, number)),
            };
            text.push_str(&format!("{} = {value}\n", key.name));
        }
        for share in &self.shares {
            let case = if share.insensitive { "insensitive" } else { "sensitive" };
            let coherence = raw::coherence_name(share.coherence);
            text.push_str(&format!(
                "\n[shares.{}]\ntarget = {}\nro = {}\nguest = {}\ncase = \"{case}\"\ncoherence = \"{coherence}\"\nencrypt = {}\nhidden = {}\ncomment = {}\nidentity = \"service\"\n",
                quoted(&share.name),
                quoted(&share.target.to_string()),
                share.read_only,
                share.guest,
                share.encrypt,
                share.hidden,
                quoted(&share.comment),
            ));
        }
        for user in self.users.list() {
            let state = if user.disabled { "\n# disabled = true" } else { "" };
            text.push_str(&format!("\n# [users.{}]{state}\n", quoted(&user.name)));
        }
        text
    }
}

impl Target {
    /// Whether it is a tree in memory, delayed or not.
    fn is_memory(&self) -> bool {
        match self {
            Target::Directory(_) => false,
            Target::Memory => true,
            Target::Latency(_, inner) => inner.is_memory(),
        }
    }
}

impl fmt::Display for Target {
    /// As the configuration writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Directory(path) => write!(f, "{}", path.display()),
            Target::Memory => f.write_str("memory:"),
            Target::Latency(delay, inner) => {
                let delay = show(Unit::Time, delay.as_millis() as u64).replace(' ', "");
                write!(f, "latency:{delay}:{inner}")
            }
        }
    }
}

/// `text` in TOML's quotes.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A version 4 GUID.
fn random_guid() -> Guid {
    let mut bytes = [0; 16];
    shoal_protocol::crypto::random(&mut bytes);
    bytes[7] = bytes[7] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Guid(bytes)
}
