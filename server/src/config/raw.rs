//! The configuration as written: file and flags are read into [`Raw`], and [`Raw::settle`] makes [`Settings`] of it or lists every mistake.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shoal_protocol::dtyp::Guid;
use shoal_protocol::smb2::Dialect;
use shoal_vfs::Coherence;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::units::{self, Unit, Written};
use super::{AdminSettings, Limits, LogFormat, Settings, ShareSettings, Signing, Target, UserSettings};
use crate::users::{self, Users};

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In a file, at a line counted from 1; line 0 stands for the file as a whole.
    File(PathBuf, usize),
    /// By a flag, shown as given but without secrets.
    Flag(String),
    /// Nowhere: the configuration as a whole.
    Whole,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, 0) => write!(f, "{}", path.display()),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Flag(flag) => f.write_str(flag),
            Origin::Whole => f.write_str("configuration"),
        }
    }
}

/// A mistake, or a warning: one line, place first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it is.
    pub origin: Origin,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A line is a line, whatever a name or a parser's message holds.
        let line = format!("{}: {}", self.origin, self.message);
        f.write_str(&line.replace(|c: char| c.is_control(), " "))
    }
}

/// A key of the configuration: what `docs/configuration.md` must say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `server`, `limits`, `users.NAME` or `shares.NAME`.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// What kind of value it takes, with its unit.
    pub kind: String,
    /// Its default as the file would write it; empty if there is none.
    pub default: String,
}

type Key = (&'static str, &'static str, &'static str);

const SECTIONS: &[&str] = &["server", "limits", "users", "shares"];

const SERVER: &[Key] = &[
    ("listen", "\"ADDR:PORT\", or a list of them", "\"127.0.0.1:4455\""),
    ("name", "text", "\"SHOAL\""),
    ("domain", "text", "\"WORKGROUP\""),
    ("comment", "text", "\"Shoal\""),
    ("guid", "GUID", ""),
    ("signing", "\"required\" or \"enabled\"", "\"required\""),
    ("encrypt", "true or false", "false"),
    ("min_dialect", "dialect", "\"2.0.2\""),
    ("max_dialect", "dialect", "\"3.1.1\""),
    ("users_file", "path", "\"users.toml\""),
    ("admin", "path, or \"none\"", ""),
    ("log_format", "\"text\" or \"json\"", "\"text\""),
    ("torture_controls", "true or false", "false"),
    ("directory_lock", "true or false", "false"),
];

const USER: &[Key] = &[
    ("password", "text", ""),
    ("password_file", "path", ""),
    ("nt_hash", "32 hex digits", ""),
    ("disabled", "true or false", "false"),
];

const SHARE: &[Key] = &[
    ("target", "path, \"memory:\" or \"latency:TIME:TARGET\"", ""),
    ("ro", "true or false", "false"),
    ("guest", "true or false", "false"),
    ("case", "\"insensitive\" or \"sensitive\"", "\"insensitive\""),
    ("coherence", "\"auto\", \"exclusive\", \"notify\", \"revalidate\" or \"none\"", "\"auto\""),
    ("encrypt", "true or false", "false"),
    ("hidden", "true or false", "false"),
    ("comment", "text", "\"\""),
    ("identity", "\"service\"", "\"service\""),
];

/// The keys of a share that `--share` takes as options, and how it takes them.
const SHARE_OPTIONS: [(&str, &str); 8] = [
    ("ro", "ro"),
    ("guest", "guest"),
    ("case", "case=insensitive|sensitive"),
    ("coherence", "coherence=auto|exclusive|notify|revalidate|none"),
    ("encrypt", "encrypt"),
    ("hidden", "hidden"),
    ("comment", "comment=TEXT"),
    ("identity", "identity=service"),
];

/// How a share may notice what other processes do. A token is compared each time it is needed.
const COHERENCES: [(&str, Option<Coherence>); 5] = [
    ("auto", None),
    ("exclusive", Some(Coherence::Exclusive)),
    ("notify", Some(Coherence::Notify)),
    ("revalidate", Some(Coherence::Revalidate(Duration::ZERO))),
    ("none", Some(Coherence::None)),
];

/// As the configuration writes it.
pub(super) fn coherence_name(coherence: Option<Coherence>) -> &'static str {
    COHERENCES.iter().find(|(_, known)| *known == coherence).map_or("auto", |(name, _)| name)
}

/// What people write out of habit, and the key that it stands for here.
const HABITS: &[(&str, &str)] = &[
    ("path", "target"),
    ("directory", "target"),
    ("dir", "target"),
    ("read_only", "ro"),
    ("readonly", "ro"),
    ("read only", "ro"),
    ("guest_ok", "guest"),
    ("public", "guest"),
    ("browseable", "hidden"),
    ("browsable", "hidden"),
    ("workgroup", "domain"),
    ("netbios_name", "name"),
    ("server_name", "name"),
    ("bind", "listen"),
    ("address", "listen"),
    ("encryption", "encrypt"),
    ("case_sensitive", "case"),
    ("users", "users_file"),
];

const DIALECTS: &[(&str, Dialect)] = &[
    ("2.0.2", Dialect::Smb202),
    ("2.1", Dialect::Smb210),
    ("3.0", Dialect::Smb300),
    ("3.0.2", Dialect::Smb302),
    ("3.1.1", Dialect::Smb311),
];

/// How deep `latency:` may wrap `latency:`.
const WRAPPERS_MAX: usize = 4;

/// Every key of the configuration, in the order of `docs/configuration.md`.
pub fn reference() -> Vec<Reference> {
    let written = |section, keys: &[Key]| {
        let one = |&(key, kind, default): &Key| Reference {
            section,
            key,
            kind: kind.into(),
            default: default.into(),
        };
        keys.iter().map(one).collect::<Vec<_>>()
    };
    let limits = Limits::KEYS.iter().map(|key| {
        let (kind, default) = match key.unit {
            Unit::Count => ("number", key.default.to_string()),
            Unit::Bytes => ("bytes", format!("\"{}\"", units::show(key.unit, key.default))),
            Unit::Time => ("time", format!("\"{}\"", units::show(key.unit, key.default))),
        };
        let (least, most) = (units::show(key.unit, key.least), units::show(key.unit, key.most));
        Reference { section: "limits", key: key.name, kind: format!("{kind}, {least} to {most}"), default }
    });
    let mut all = written("server", SERVER);
    all.extend(limits);
    all.extend(written("users.NAME", USER));
    all.extend(written("shares.NAME", SHARE));
    all
}

#[derive(Clone, Debug)]
struct At<T> {
    origin: Origin,
    value: T,
}

#[derive(Clone, Debug)]
struct RawShare {
    origin: Origin,
    target: Option<Target>,
    settings: ShareSettings,
}

#[derive(Clone, Debug)]
struct RawUser {
    origin: Origin,
    name: String,
    secrets: Vec<Zeroizing<[u8; 16]>>,
    /// Something about it is wrong and reported already: perhaps its secret.
    broken: bool,
    disabled: bool,
}

/// The configuration as written, from however many files and flags, and the mistakes found on the way.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    listen: Vec<At<SocketAddr>>,
    listen_flags: Vec<At<SocketAddr>>,
    name: Option<String>,
    domain: Option<String>,
    comment: Option<String>,
    guid: Option<Guid>,
    signing: Option<Signing>,
    encrypt: Option<At<bool>>,
    torture_controls: bool,
    directory_lock: bool,
    min_dialect: Option<At<Dialect>>,
    max_dialect: Option<At<Dialect>>,
    users_file: Option<At<PathBuf>>,
    admin: Option<Option<PathBuf>>,
    admin_default: Option<PathBuf>,
    log_format: Option<LogFormat>,
    limits: Limits,
    limit_lines: HashMap<&'static str, Origin>,
    users: Vec<RawUser>,
    shares: Vec<RawShare>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Raw {
    /// Reads the configuration file at `path`. Paths in it are relative to its directory.
    pub fn read_file(&mut self, path: &Path) {
        let Some(text) = self.text_of(path) else { return };
        let (table, errors) = DeTable::parse_recoverable(&text);
        let file = File { path, text: &text, base: path.parent().unwrap_or(Path::new("")) };
        self.syntax(&file, errors);
        for (key, value) in in_order(table.get_ref()) {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("server", DeValue::Table(table)) => {
                    self.each(&file, "server", SERVER, table, Raw::server_key)
                }
                ("limits", DeValue::Table(table)) => self.limits(&file, table),
                ("users", DeValue::Table(table)) => self.users(&file, table),
                ("shares", DeValue::Table(table)) => self.shares(&file, table),
                (name, _) if SECTIONS.contains(&name) => {
                    let message =
                        format!("\"{name}\" is {}; expected the section [{name}]", kind(value.get_ref()));
                    self.problem(file.at(key), message);
                }
                (name, DeValue::Table(_)) => {
                    let message = format!(
                        "unknown section [{name}]; the nearest known section is [{}]",
                        nearest(name, SECTIONS)
                    );
                    self.problem(file.at(key), message);
                }
                (name, _) => self.problem(file.at(key), stray(name)),
            }
        }
        if self.users_file.is_none() {
            let beside = file.base.join("users.toml");
            if beside.exists() {
                self.users_file = Some(At { origin: Origin::File(path.to_owned(), 0), value: beside });
            }
        }
    }

    /// `--listen ADDR:PORT`. Such flags together replace what the file says.
    pub fn flag_listen(&mut self, text: &str) {
        let origin = Origin::Flag(format!("--listen {text}"));
        match address(text) {
            Ok(value) => self.listen_flags.push(At { origin, value }),
            Err(message) => self.problem(origin, message),
        }
    }

    /// `--share NAME=TARGET[,OPTION...]`. The target ends at the first comma.
    pub fn flag_share(&mut self, text: &str) {
        let origin = Origin::Flag(format!("--share {text}"));
        let Some((name, rest)) = text.split_once('=') else {
            return self.problem(origin, "expected NAME=TARGET[,OPTION...]".to_owned());
        };
        let mut parts = rest.split(',');
        let target = match target(parts.next().unwrap_or_default(), Path::new(""), 0) {
            Ok(target) => Some(target),
            Err(message) => return self.problem(origin, format!("target {message}")),
        };
        let mut share = RawShare { origin: origin.clone(), target, settings: named(name) };
        for option in parts {
            let settings = &mut share.settings;
            match option.split_once('=') {
                None if option == "ro" => settings.read_only = true,
                None if option == "guest" => settings.guest = true,
                None if option == "encrypt" => settings.encrypt = true,
                None if option == "hidden" => settings.hidden = true,
                Some(("case", "insensitive")) => settings.insensitive = true,
                Some(("case", "sensitive")) => settings.insensitive = false,
                Some(("coherence", name)) if COHERENCES.iter().any(|(known, _)| *known == name) => {
                    settings.coherence =
                        COHERENCES.iter().find(|(known, _)| *known == name).and_then(|(_, c)| *c);
                }
                Some(("identity", "service")) => {}
                Some(("comment", comment)) => settings.comment = comment.to_owned(),
                _ => {
                    let name = option.split('=').next().unwrap_or_default();
                    let near = nearest(name, &SHARE_OPTIONS.map(|(name, _)| name));
                    let shown =
                        SHARE_OPTIONS.iter().find(|(name, _)| *name == near).map_or(near, |(_, shown)| shown);
                    let message =
                        format!("unknown option \"{option}\"; the nearest known option is \"{shown}\"");
                    self.problem(origin.clone(), message);
                }
            }
        }
        self.shares.push(share);
    }

    /// `--user NAME:PASSWORD` or `--user NAME:@FILE`.
    pub fn flag_user(&mut self, text: &str) {
        let Some((name, secret)) = text.split_once(':') else {
            // What was given may be a password: it is not shown.
            return self.problem(
                Origin::Flag("--user".to_owned()),
                "expected NAME:PASSWORD or NAME:@FILE".to_owned(),
            );
        };
        let origin = Origin::Flag(format!("--user {name}"));
        let password = match secret.strip_prefix('@') {
            Some(file) => password_in(Path::new(file)),
            None if secret.is_empty() => Err("has an empty password".to_owned()),
            None => Ok(Zeroizing::new(secret.to_owned())),
        };
        let mut user = RawUser {
            origin: origin.clone(),
            name: name.to_owned(),
            secrets: vec![],
            broken: false,
            disabled: false,
        };
        match password {
            Ok(password) => user.secrets.push(shoal_protocol::auth::nt_hash(&password).into()),
            Err(message) => {
                user.broken = true;
                self.problem(origin, message);
            }
        }
        self.users.push(user);
    }

    /// `--users FILE`: replaces `users_file`.
    pub fn flag_users_file(&mut self, path: &Path) {
        self.users_file = Some(At { origin: Origin::Flag("--users".to_owned()), value: path.to_owned() });
    }

    /// `--admin SOCKET`: replaces `admin`.
    pub fn flag_admin(&mut self, path: &Path) {
        self.admin = Some(if path == Path::new("none") { None } else { Some(path.to_owned()) });
    }

    /// `--log-format`: replaces `log_format`.
    pub fn flag_log_format(&mut self, format: LogFormat) {
        self.log_format = Some(format);
    }

    /// The place of the admin socket when neither file nor flag names one.
    pub fn default_admin(&mut self, path: Option<PathBuf>) {
        self.admin_default = path;
    }

    /// The user file of the configuration file `config`: what it names, else users.toml beside it, whether that is there or not.
    pub fn users_file_of(config: &Path) -> Result<PathBuf, Vec<Problem>> {
        let mut raw = Raw::default();
        raw.read_file(config);
        match raw.users_file {
            _ if !raw.problems.is_empty() => Err(raw.problems),
            Some(at) => Ok(at.value),
            None => Ok(config.with_file_name("users.toml")),
        }
    }

    /// The accounts in the user file `path`.
    pub fn users_in(path: &Path) -> Result<Vec<UserSettings>, Vec<Problem>> {
        let mut raw = Raw::default();
        raw.read_users_file(path);
        let users = raw.settle_users(false);
        if raw.problems.is_empty() {
            Ok(users.list().into_iter().cloned().collect())
        } else {
            Err(raw.problems)
        }
    }

    /// All that is meant, with warnings; or every mistake, in the order of the lines.
    pub fn settle(mut self) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
        if let Some(file) = self.users_file.clone() {
            self.read_users_file(&file.value);
        }
        let defaults = Settings::default();
        let listen = if self.listen_flags.is_empty() { &self.listen } else { &self.listen_flags };
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for at in listen.clone() {
            if at.value.port() != 0 && addresses.contains(&at.value) {
                self.problem(at.origin, format!("listen {} is listed twice", at.value));
            }
            addresses.push(at.value);
        }
        let dialects = self.settle_dialects();
        let shares = self.settle_shares(dialects.1);
        let guest = shares.iter().any(|share| share.guest);
        let users = self.settle_users(guest);
        self.settle_limits();
        if users.is_empty() && !guest && !shares.is_empty() {
            let message = "there is no user and no guest share: nobody can log in".to_owned();
            self.warnings.push(Problem { origin: Origin::Whole, message });
        }
        let encrypt = self.encrypt.as_ref().is_some_and(|at| at.value);
        let admin = match (self.admin, self.admin_default) {
            (Some(given), _) => given.map(|path| AdminSettings { path, given: true }),
            (None, default) => default.map(|path| AdminSettings { path, given: false }),
        };
        if !self.problems.is_empty() {
            self.problems.sort();
            self.problems.dedup();
            return Err(self.problems);
        }
        let settings = Settings {
            listen: if addresses.is_empty() { defaults.listen } else { addresses },
            server_name: self.name.unwrap_or(defaults.server_name),
            netbios_domain: self.domain.unwrap_or(defaults.netbios_domain),
            comment: self.comment.unwrap_or(defaults.comment),
            server_guid_given: self.guid.is_some(),
            server_guid: self.guid.unwrap_or(defaults.server_guid),
            signing: self.signing.unwrap_or(defaults.signing),
            dialects,
            encrypt,
            guest,
            shares,
            users,
            limits: self.limits,
            admin,
            log_format: self.log_format.unwrap_or_default(),
            torture_controls: self.torture_controls,
            directory_lock: self.directory_lock,
        };
        self.warnings.sort();
        Ok((settings, self.warnings))
    }

    fn settle_dialects(&mut self) -> (Dialect, Dialect) {
        let (least, most) = Settings::default().dialects;
        let min = self.min_dialect.as_ref().map_or(least, |at| at.value);
        let max = self.max_dialect.as_ref().map_or(most, |at| at.value);
        if min > max
            && let Some(at) = self.max_dialect.as_ref().or(self.min_dialect.as_ref())
        {
            let message =
                format!("min_dialect {} is above max_dialect {}", dialect_name(min), dialect_name(max));
            self.problem(at.origin.clone(), message);
        }
        if let Some(at) = self.encrypt.clone()
            && at.value
            && max < Dialect::Smb300
        {
            let message = format!("encrypt needs SMB 3.0, but max_dialect is {}", dialect_name(max));
            self.problem(at.origin, message);
        }
        (min, max)
    }

    fn settle_shares(&mut self, max: Dialect) -> Vec<ShareSettings> {
        let encrypt_all = self.encrypt.as_ref().is_some_and(|at| at.value);
        let mut seen: HashMap<String, Origin> = HashMap::new();
        let mut settled = Vec::new();
        for share in std::mem::take(&mut self.shares) {
            let RawShare { origin, target, mut settings } = share;
            let name = &settings.name;
            if let Err(message) = share_name(name) {
                self.problem(origin.clone(), message);
            }
            if let Some(other) = seen.insert(name.to_lowercase(), origin.clone()) {
                self.problem(origin.clone(), format!("the share \"{name}\" is there already: {other}"));
            }
            if settings.guest && (settings.encrypt || encrypt_all) {
                let message = format!(
                    "the share \"{name}\" cannot have both guest and encrypt: a guest has no key to encrypt with"
                );
                self.problem(origin.clone(), message);
            }
            if settings.encrypt && max < Dialect::Smb300 {
                let message = format!(
                    "the share \"{name}\" has encrypt, which needs SMB 3.0, but max_dialect is {}",
                    dialect_name(max)
                );
                self.problem(origin.clone(), message);
            }
            match target {
                Some(target) => {
                    if settings.coherence.is_some() && target.is_memory() {
                        let message =
                            format!("the share \"{name}\" is in memory, where coherence has no effect");
                        self.problem(origin.clone(), message);
                    }
                    settings.target = target;
                }
                None => {
                    let message = format!("the share \"{name}\" has no target: a directory, or \"memory:\"");
                    self.problem(origin, message);
                }
            }
            settled.push(settings);
        }
        if settled.is_empty() && self.problems.is_empty() {
            let message =
                "there is no share; give [shares.NAME] in the file, or --share NAME=TARGET".to_owned();
            self.problem(Origin::Whole, message);
        }
        settled
    }

    fn settle_users(&mut self, guest: bool) -> Users {
        let mut seen: HashMap<String, Origin> = HashMap::new();
        let mut settled = Vec::new();
        for RawUser { origin, name, mut secrets, broken, disabled } in std::mem::take(&mut self.users) {
            if let Err(message) = user_name(&name) {
                self.problem(origin.clone(), message);
            }
            if let Some(other) = seen.insert(users::folded(&name), origin.clone()) {
                self.problem(origin.clone(), format!("the user \"{name}\" is there already: {other}"));
            }
            match (secrets.pop(), secrets.is_empty()) {
                (Some(nt_hash), true) => settled.push(UserSettings { name, nt_hash, disabled }),
                (Some(_), false) => {
                    let message = format!(
                        "the user \"{name}\" has more than one of password, password_file and nt_hash"
                    );
                    self.problem(origin, message);
                }
                (None, _) if broken => {}
                (None, _) => {
                    let message =
                        format!("the user \"{name}\" has none of password, password_file and nt_hash");
                    self.problem(origin, message);
                }
            }
        }
        Users::new(settled, guest)
    }

    /// The limits that must fit each other. A part that was not written follows its whole.
    fn settle_limits(&mut self) {
        let written = |name: &str| self.limit_lines.contains_key(name);
        let limits = &mut self.limits;
        if !written("connections_per_address") {
            limits.connections_per_address = limits.connections_per_address.min(limits.connections);
        }
        if !written("opens_per_session") {
            limits.opens_per_session = limits.opens_per_session.min(limits.opens);
        }
        if !written("reply_budget_per_connection") {
            limits.reply_budget_per_connection =
                limits.reply_budget_per_connection.min(limits.reply_budget_total);
        }
        let limits = limits.clone();
        let largest = limits.max_read_size.max(limits.max_write_size).max(limits.max_transact_size) as usize;
        let pairs = [
            (
                "reply_budget_per_connection",
                limits.reply_budget_per_connection,
                "the largest of max_read_size, max_write_size and max_transact_size",
                largest,
                Unit::Bytes,
            ),
            (
                "reply_budget_total",
                limits.reply_budget_total,
                "reply_budget_per_connection",
                limits.reply_budget_per_connection,
                Unit::Bytes,
            ),
            (
                "connections",
                limits.connections,
                "connections_per_address",
                limits.connections_per_address,
                Unit::Count,
            ),
            ("opens", limits.opens, "opens_per_session", limits.opens_per_session, Unit::Count),
        ];
        for (name, value, other, least, unit) in pairs {
            if value >= least {
                continue;
            }
            // The line to mend is one that was written; a default alone is never wrong.
            let line = [name, other, "max_read_size", "max_write_size", "max_transact_size"]
                .iter()
                .find_map(|name| self.limit_lines.get(name).cloned());
            let (value, least) = (units::show(unit, value as u64), units::show(unit, least as u64));
            let message = format!("{name} is {value}, less than {other}, which is {least}");
            self.problem(line.unwrap_or(Origin::Whole), message);
        }
    }

    fn problem(&mut self, origin: Origin, message: String) {
        self.problems.push(Problem { origin, message });
    }

    fn text_of(&mut self, path: &Path) -> Option<String> {
        match fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) => {
                self.problem(Origin::File(path.to_owned(), 0), format!("cannot be read: {}", reason(&error)));
                None
            }
        }
    }

    fn syntax(&mut self, file: &File<'_>, errors: Vec<toml::de::Error>) {
        for error in errors {
            let line = error.span().map_or(0, |span| file.line(span.start));
            self.problem(Origin::File(file.path.to_owned(), line), error.message().to_owned());
        }
    }

    /// Calls `read` for each key of a section, and reports what it does not take.
    fn each(&mut self, file: &File<'_>, section: &str, keys: &[Key], table: &DeTable<'_>, read: ReadKey) {
        let known: Vec<&'static str> = keys.iter().map(|key| key.0).collect();
        for (key, value) in in_order(table) {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                self.problem(file.at(key), unknown(name, section, &known));
            } else if let Err(message) = read(self, file, file.at(key), name, value.get_ref()) {
                self.problem(file.at(key), format!("{name} {message}"));
            }
        }
    }

    fn server_key(
        &mut self,
        file: &File<'_>,
        origin: Origin,
        key: &str,
        value: &DeValue<'_>,
    ) -> Result<(), String> {
        match key {
            "listen" => {
                let each = match value {
                    DeValue::Array(list) => {
                        list.iter().map(|item| (file.origin(item), item.get_ref())).collect()
                    }
                    one => vec![(origin, one)],
                };
                if each.is_empty() {
                    return Err("is an empty list; expected \"ADDR:PORT\"".to_owned());
                }
                for (origin, value) in each {
                    match text(value).and_then(address) {
                        Ok(value) => self.listen.push(At { origin, value }),
                        Err(message) => self.problem(origin, format!("listen {message}")),
                    }
                }
            }
            "name" => self.name = Some(netbios_name(text(value)?)?),
            "domain" => self.domain = Some(netbios_name(text(value)?)?),
            "comment" => self.comment = Some(comment(text(value)?)?),
            "guid" => {
                let text = text(value)?;
                let guid = text.parse().map_err(|_| {
                    format!("is \"{text}\"; expected a GUID, as in \"0f8fad5b-d9cb-469f-a165-70867728950e\"")
                })?;
                self.guid = Some(guid);
            }
            "signing" => {
                self.signing =
                    Some(choice(value, &[("required", Signing::Required), ("enabled", Signing::Enabled)])?);
            }
            "encrypt" => self.encrypt = Some(At { origin, value: boolean(value)? }),
            "torture_controls" => self.torture_controls = boolean(value)?,
            "directory_lock" => self.directory_lock = boolean(value)?,
            "min_dialect" => self.min_dialect = Some(At { origin, value: choice(value, DIALECTS)? }),
            "max_dialect" => self.max_dialect = Some(At { origin, value: choice(value, DIALECTS)? }),
            "users_file" => {
                // A flag was there first and rules.
                if self.users_file.is_none() {
                    self.users_file = Some(At { origin, value: file.base.join(text(value)?) });
                }
            }
            "admin" => {
                let path = text(value)?;
                if self.admin.is_none() {
                    self.admin = Some(if path == "none" { None } else { Some(file.base.join(path)) });
                }
            }
            "log_format" => {
                let format = choice(value, &[("text", LogFormat::Text), ("json", LogFormat::Json)])?;
                self.log_format.get_or_insert(format);
            }
            _ => unreachable!("{key} is in SERVER but not read"),
        }
        Ok(())
    }

    fn limits(&mut self, file: &File<'_>, table: &DeTable<'_>) {
        let known: Vec<&'static str> = Limits::KEYS.iter().map(|key| key.name).collect();
        for (key, value) in in_order(table) {
            let name = key.get_ref().as_ref();
            let Some(limit) = Limits::KEYS.iter().find(|limit| limit.name == name) else {
                self.problem(file.at(key), unknown(name, "limits", &known));
                continue;
            };
            let written = match value.get_ref() {
                DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(number) => Written::Integer(number),
                    Err(_) => Written::Other("a number out of range"),
                },
                DeValue::String(text) => Written::Text(text),
                other => Written::Other(kind(other)),
            };
            match limit.read(written) {
                Ok(number) => {
                    self.limits.set(name, number);
                    self.limit_lines.insert(limit.name, file.at(key));
                }
                Err(message) => self.problem(file.at(key), format!("{name} {message}")),
            }
        }
    }

    fn read_users_file(&mut self, path: &Path) {
        let Some(text) = self.text_of(path) else { return };
        self.warn_of_readers(path);
        let (table, errors) = DeTable::parse_recoverable(&text);
        let file = File { path, text: &text, base: path.parent().unwrap_or(Path::new("")) };
        self.syntax(&file, errors);
        for (key, value) in in_order(table.get_ref()) {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("users", DeValue::Table(table)) => self.users(&file, table),
                (name, _) => {
                    let message = format!("unknown section [{name}]; a user file has [users.NAME] only");
                    self.problem(file.at(key), message);
                }
            }
        }
    }

    /// An NT hash is as good as its password: whoever may read the file may log in.
    fn warn_of_readers(&mut self, path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        let Ok(metadata) = fs::metadata(path) else { return };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let message =
                format!("other users can read the secrets in it (mode {mode:04o}); chmod 600 keeps them out");
            self.warnings.push(Problem { origin: Origin::File(path.to_owned(), 0), message });
        }
    }

    fn users(&mut self, file: &File<'_>, table: &DeTable<'_>) {
        for (key, value) in in_order(table) {
            let name = key.get_ref().as_ref();
            let DeValue::Table(table) = value.get_ref() else {
                let message = format!(
                    "\"{name}\" in [users] is {}; expected the section [users.{name}]",
                    kind(value.get_ref())
                );
                self.problem(file.at(key), message);
                continue;
            };
            let origin = file.at(key);
            self.users.push(RawUser {
                origin,
                name: name.to_owned(),
                secrets: vec![],
                broken: false,
                disabled: false,
            });
            let before = self.problems.len();
            self.each(file, &format!("users.{name}"), USER, table, Raw::user_key);
            // A secret that was given but is wrong, or misspelt, is one mistake and not two.
            let broken = self.problems.len() > before;
            self.users.last_mut().expect("just pushed").broken = broken;
        }
    }

    fn user_key(
        &mut self,
        file: &File<'_>,
        _origin: Origin,
        key: &str,
        value: &DeValue<'_>,
    ) -> Result<(), String> {
        let user = self.users.last_mut().expect("a user was pushed before its keys are read");
        let hash = match key {
            "password" => text(value).and_then(|password| match password {
                "" => Err("is empty".to_owned()),
                password => Ok(shoal_protocol::auth::nt_hash(password).into()),
            }),
            "password_file" => {
                let password = text(value).and_then(|path| password_in(&file.base.join(path)));
                password.map(|password| shoal_protocol::auth::nt_hash(&password).into())
            }
            "nt_hash" => text(value).and_then(|digits| {
                users::hash_from_hex(digits).ok_or_else(|| "is not 32 hex digits".to_owned())
            }),
            "disabled" => {
                user.disabled = boolean(value)?;
                return Ok(());
            }
            _ => unreachable!("{key} is in USER but not read"),
        };
        user.secrets.push(hash?);
        Ok(())
    }

    fn shares(&mut self, file: &File<'_>, table: &DeTable<'_>) {
        for (key, value) in in_order(table) {
            let name = key.get_ref().as_ref();
            let DeValue::Table(table) = value.get_ref() else {
                let message = format!(
                    "\"{name}\" in [shares] is {}; expected the section [shares.{name}]",
                    kind(value.get_ref())
                );
                self.problem(file.at(key), message);
                continue;
            };
            let before = self.problems.len();
            self.shares.push(RawShare { origin: file.at(key), target: None, settings: named(name) });
            self.each(file, &format!("shares.{name}"), SHARE, table, Raw::share_key);
            let share = self.shares.last_mut().expect("just pushed");
            // A target that was given but is wrong, or misspelt, is one mistake and not two.
            if share.target.is_none() && self.problems.len() > before {
                share.target = Some(Target::Memory);
            }
        }
    }

    fn share_key(
        &mut self,
        file: &File<'_>,
        _origin: Origin,
        key: &str,
        value: &DeValue<'_>,
    ) -> Result<(), String> {
        let share = self.shares.last_mut().expect("a share was pushed before its keys are read");
        let settings = &mut share.settings;
        match key {
            "target" => share.target = Some(target(text(value)?, file.base, 0)?),
            "ro" => settings.read_only = boolean(value)?,
            "guest" => settings.guest = boolean(value)?,
            "case" => settings.insensitive = choice(value, &[("insensitive", true), ("sensitive", false)])?,
            "coherence" => settings.coherence = choice(value, &COHERENCES)?,
            "encrypt" => settings.encrypt = boolean(value)?,
            "hidden" => settings.hidden = boolean(value)?,
            "comment" => settings.comment = comment(text(value)?)?,
            "identity" => choice(value, &[("service", ())])?,
            _ => unreachable!("{key} is in SHARE but not read"),
        }
        Ok(())
    }
}

type ReadKey = fn(&mut Raw, &File<'_>, Origin, &str, &DeValue<'_>) -> Result<(), String>;

/// The file being read.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
    base: &'a Path,
}

impl File<'_> {
    fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    fn at(&self, key: &Spanned<toml::de::DeString<'_>>) -> Origin {
        Origin::File(self.path.to_owned(), self.line(key.span().start))
    }

    fn origin(&self, value: &Spanned<DeValue<'_>>) -> Origin {
        Origin::File(self.path.to_owned(), self.line(value.span().start))
    }
}

/// The entries of a table in the order of the file.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<toml::de::DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// The kind of a value, with its article.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("is {}; expected text in quotes", kind(value)))
}

fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    match value {
        DeValue::Boolean(value) => Ok(*value),
        DeValue::String(text) => Err(format!("is \"{text}\"; it can be true or false, without quotes")),
        other => Err(format!("is {}; it can be true or false", kind(other))),
    }
}

fn choice<T: Clone>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Result<T, String> {
    let text = text(value)?;
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(choice.clone());
    }
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let (last, rest) = names.split_last().expect("a choice has names");
    let names = if rest.is_empty() { last.clone() } else { format!("{} or {last}", rest.join(", ")) };
    Err(format!("is \"{text}\"; it can be {names}"))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not ADDR:PORT, as in 127.0.0.1:4455 or [::1]:4455"))
}

/// What `text` names; directories are relative to `base`.
fn target(text: &str, base: &Path, depth: usize) -> Result<Target, String> {
    if depth > WRAPPERS_MAX {
        return Err(format!("has more than {WRAPPERS_MAX} wrappers"));
    }
    if let Some(rest) = text.strip_prefix("memory:") {
        if rest.is_empty() {
            return Ok(Target::Memory);
        }
        return Err(format!("is \"{text}\"; nothing can stand after \"memory:\""));
    }
    if let Some(rest) = text.strip_prefix("latency:") {
        let parts = rest.split_once(':').and_then(|(time, inner)| Some((units::duration(time)?, inner)));
        let Some((delay, inner)) = parts else {
            return Err(format!(
                "is \"{text}\"; expected \"latency:TIME:TARGET\", as in \"latency:5ms:memory:\""
            ));
        };
        return Ok(Target::Latency(delay, Box::new(target(inner, base, depth + 1)?)));
    }
    match text {
        "" => Err("is empty; it can be a directory or \"memory:\"".to_owned()),
        _ if text.contains('\0') => Err("has a NUL character".to_owned()),
        _ => Ok(Target::Directory(base.join(text))),
    }
}

fn named(name: &str) -> ShareSettings {
    ShareSettings { name: name.to_owned(), ..ShareSettings::default() }
}

/// MS-SMB2 2.2.9 and MS-SRVS 2.2.4.23 leave a share's name to the server; these are the characters that no client can send in one.
fn share_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.encode_utf16().count() > 80 {
        return Err(format!("the share's name \"{name}\" must have 1 to 80 characters"));
    }
    if let Some(bad) = name.chars().find(|c| c.is_control() || "\"/\\[]:|<>+=;,*?".contains(*c)) {
        return Err(format!("the share's name \"{name}\" cannot have {bad:?}"));
    }
    if name.trim() != name {
        return Err(format!("the share's name \"{name}\" cannot begin or end with a space"));
    }
    if name.eq_ignore_ascii_case("IPC$") {
        return Err(format!("the share's name \"{name}\" is the server's own"));
    }
    Ok(())
}

/// Whether `name` can be a user's: the error says why not.
pub fn user_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.encode_utf16().count() > 104 {
        return Err(format!("the user's name \"{name}\" must have 1 to 104 characters"));
    }
    if let Some(bad) = name.chars().find(|c| c.is_control() || "\"/\\[]:;|=,+*?<>%@".contains(*c)) {
        return Err(format!("the user's name \"{name}\" cannot have {bad:?}"));
    }
    Ok(())
}

/// A computer's or domain's NetBIOS name, in upper case.
fn netbios_name(name: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=15).contains(&name.len()) && name.chars().all(fits) {
        return Ok(name.to_ascii_uppercase());
    }
    Err(format!("is \"{name}\"; expected 1 to 15 letters, digits, \"-\" or \"_\""))
}

fn comment(text: &str) -> Result<String, String> {
    if text.encode_utf16().count() > 255 || text.chars().any(char::is_control) {
        return Err("must be one line of at most 255 characters".to_owned());
    }
    Ok(text.to_owned())
}

/// The dialect as the configuration writes it.
pub fn dialect_name(dialect: Dialect) -> &'static str {
    DIALECTS.iter().find(|(_, other)| *other == dialect).map_or("?", |(name, _)| name)
}

/// The password on the first line of a file.
fn password_in(path: &Path) -> Result<Zeroizing<String>, String> {
    let text = fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| format!("is in {}, which cannot be read: {}", path.display(), reason(&error)))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(format!("is in {}, whose first line is empty", path.display())),
    }
}

/// An error of the system in its own words, without the number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

fn unknown(name: &str, section: &str, known: &[&'static str]) -> String {
    format!("unknown key \"{name}\" in [{section}]; the nearest known key is \"{}\"", nearest(name, known))
}

/// A key above all sections: it belongs into one.
fn stray(name: &str) -> String {
    let keys: Vec<(&'static str, &'static str)> = SERVER
        .iter()
        .map(|key| (key.0, "server"))
        .chain(Limits::KEYS.iter().map(|key| (key.name, "limits")))
        .collect();
    let names: Vec<&'static str> = keys.iter().map(|key| key.0).collect();
    let near = nearest(name, &names);
    let section = keys.iter().find(|key| key.0 == near).map_or("server", |key| key.1);
    format!("unknown key \"{name}\" outside all sections; the nearest known key is \"{near}\" in [{section}]")
}

/// The one of `known` that is most like `name`.
fn nearest<'k>(name: &str, known: &[&'k str]) -> &'k str {
    let name = name.to_lowercase();
    let habit = HABITS.iter().find(|(written, _)| *written == name).map(|(_, meant)| *meant);
    let distance = |key: &&str| match habit {
        Some(meant) if meant == *key => 0,
        _ => strsim::damerau_levenshtein(&name, key) + 1,
    };
    known.iter().copied().min_by_key(distance).unwrap_or_default()
}
