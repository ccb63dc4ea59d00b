//! The command line: flags as typed, and what the commands that are not the server itself do.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use shoal::config::{LogFormat, Problem, Raw, Settings, Target};

/// The configuration file that is read if no other is named and it is there.
const CONFIG: &str = "shoal.toml";

/// An SMB2/3 file server.
///
/// Without a command: the demo, a share in memory on 127.0.0.1:4455, and the command line to reach it with.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, max_term_width = 120)]
pub struct Arguments {
    /// How log lines look on standard error; RUST_LOG says which there are.
    #[arg(long, value_enum, global = true, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Arguments {
    /// How the demo's log lines look.
    pub fn log_format(&self) -> LogFormat {
        self.log_format.map_or(LogFormat::Text, LogFormat::from)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> LogFormat {
        match format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the shares that the configuration and the flags name.
    Serve(Configuration),
    /// Read the configuration, print what is meant, and every mistake with its line; exit 2 if there is any.
    Check(Configuration),
    /// Change or list the accounts of a user file.
    User(UserArguments),
    /// Show sessions, trees, opens, locks and counters of a running server.
    Status {
        /// One JSON object in place of the table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// Make a running server read its configuration again.
    Reload(Admin),
    /// Make a running server drain and end.
    Stop(Admin),
    /// End one session of a running server.
    CloseSession {
        /// The session's id, as `status` shows it.
        id: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Send a NEGOTIATE and show its answer; no login. Exit 0 if the server is well.
    Ping {
        /// The server.
        #[arg(value_name = "ADDR:PORT")]
        address: String,
    },
}

/// Everything that makes a configuration.
#[derive(Clone, Debug, Args)]
pub struct Configuration {
    /// The configuration file; shoal.toml of this directory if that is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An address to listen on, in place of the file's; may be given again.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,
    /// A share. TARGET is a directory, `memory:` or `latency:5ms:TARGET`; options are ro, guest, case=insensitive|sensitive,
    /// encrypt, hidden, comment=TEXT. May be given again.
    #[arg(long, value_name = "NAME=TARGET[,OPTION...]")]
    share: Vec<String>,
    /// A user, with the password or, as @FILE, a file with the password on its first line. May be given again.
    #[arg(long, value_name = "NAME:PASSWORD")]
    user: Vec<String>,
    /// The user file; users.toml beside the configuration if that is there.
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// The admin socket, or `none`.
    #[arg(long, value_name = "SOCKET")]
    admin: Option<PathBuf>,
    /// Given before or after the command, for which clap keeps it in [`Arguments`].
    #[arg(skip)]
    log_format: Option<LogFormat>,
}

impl Configuration {
    /// With the flag that stands outside the command.
    pub fn with_log_format(mut self, arguments: &Arguments) -> Configuration {
        self.log_format = arguments.log_format.map(LogFormat::from);
        self
    }

    /// Reads the file and the flags: what is meant, with warnings, or every mistake.
    pub fn settings(&self) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
        let mut raw = Raw::default();
        self.listen.iter().for_each(|text| raw.flag_listen(text));
        self.share.iter().for_each(|text| raw.flag_share(text));
        self.user.iter().for_each(|text| raw.flag_user(text));
        if let Some(path) = &self.users {
            raw.flag_users_file(path);
        }
        if let Some(path) = &self.admin {
            raw.flag_admin(path);
        }
        if let Some(format) = self.log_format {
            raw.flag_log_format(format);
        }
        raw.default_admin(shoal::admin::default_socket());
        if let Some(path) = self.file() {
            raw.read_file(path);
        }
        raw.settle()
    }

    /// The configuration file, if there is one to read.
    pub fn file(&self) -> Option<&Path> {
        match &self.config {
            Some(path) => Some(path),
            None => Some(Path::new(CONFIG)).filter(|path| path.exists()),
        }
    }
}

#[derive(Debug, Args)]
pub struct Admin {
    /// The server's admin socket; $XDG_RUNTIME_DIR/shoal.sock, or as root /run/shoal/shoal.sock, unless given.
    #[arg(long, value_name = "SOCKET")]
    pub admin: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct UserArguments {
    #[command(subcommand)]
    pub change: UserChange,
    /// The user file; by default users.toml beside the configuration, or what the configuration names.
    #[arg(long, value_name = "FILE", global = true)]
    pub users: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
}

impl UserArguments {
    /// The user file that is meant.
    pub fn file(&self) -> Result<PathBuf, Vec<Problem>> {
        match (&self.users, &self.config) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(config)) => Raw::users_file_of(config),
            (None, None) if Path::new(CONFIG).exists() => Raw::users_file_of(Path::new(CONFIG)),
            (None, None) => Ok(PathBuf::from("users.toml")),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum UserChange {
    /// Add a user.
    Add {
        /// The user's name.
        name: String,
        #[command(flatten)]
        password: Password,
    },
    /// Give a user another password.
    Passwd {
        /// The user's name.
        name: String,
        #[command(flatten)]
        password: Password,
    },
    /// Remove a user.
    Remove {
        /// The user's name.
        name: String,
    },
    /// Print the users' names.
    List,
}

#[derive(Debug, Args)]
pub struct Password {
    /// A file with the password on its first line, `-` for standard input; without it the password is asked for.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// Why a command ends with another exit status than 0; each line says what and where.
#[derive(Debug)]
pub struct Failure {
    lines: Vec<String>,
    /// The exit status: 2 for a wrong configuration, 1 for what went wrong at run time.
    pub code: u8,
}

impl Failure {
    /// Something went wrong at run time.
    pub fn run_time(what: impl fmt::Display) -> Failure {
        Failure { lines: vec![format!("shoal: {what}")], code: 1 }
    }

    /// The configuration is wrong.
    pub fn configuration(problems: &[Problem]) -> Failure {
        Failure { lines: problems.iter().map(Problem::to_string).collect(), code: 2 }
    }

    /// A server found its configuration wrong and told us.
    pub fn told(lines: Vec<String>) -> Failure {
        Failure { lines, code: 2 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// `shoal check`: prints what is meant. Reports what the server would find only when it starts, too.
pub fn check(configuration: &Configuration) -> Result<(), Failure> {
    let (settings, warnings) =
        configuration.settings().map_err(|problems| Failure::configuration(&problems))?;
    // The reader may have seen enough.
    let _ = io::stdout().write_all(settings.to_toml().as_bytes());
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    let missing: Vec<String> = settings
        .shares
        .iter()
        .filter_map(|share| Some(format!("share \"{}\": {}", share.name, missing(&share.target)?)))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Failure::told(missing)) }
}

/// What is wrong with a share's directory, if anything is.
fn missing(target: &Target) -> Option<String> {
    match target {
        Target::Memory => None,
        Target::Latency(_, inner) => missing(inner),
        Target::Directory(path) => match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => None,
            Ok(_) => Some(format!("{} is not a directory", path.display())),
            Err(error) => Some(format!("{}: {}", path.display(), shoal::config::reason(&error))),
        },
    }
}

/// `shoal ping`: a NEGOTIATE and its answer.
pub fn ping(address: &str) -> Result<(), Failure> {
    let parsed: SocketAddr = address.parse().map_err(|_| {
        Failure::told(vec![format!("shoal: \"{address}\" is not ADDR:PORT, as in 127.0.0.1:4455")])
    })?;
    let answer = crate::ping::ping(parsed)
        .map_err(|error| Failure::run_time(format!("{address}: {}", failing(&error))))?;
    println!("{address}: {answer}");
    Ok(())
}

/// What is wrong with a server that gave no good answer.
fn failing(error: &io::Error) -> String {
    match error.kind() {
        // A read that takes too long is told as the first by the system, a connection as the second.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer within 5 s".to_owned(),
        io::ErrorKind::UnexpectedEof => "it hung up without an answer".to_owned(),
        _ => shoal::config::reason(error),
    }
}
