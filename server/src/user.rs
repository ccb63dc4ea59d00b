//! `shoal user`: the user file changed and listed. A change is made under the directory's lock, to a new file that replaces the old.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use rustix::termios;
use shoal::config::{self, Raw, UserSettings};
use shoal::users::{self, folded};
use zeroize::Zeroizing;

use crate::cli::{Failure, Password, UserArguments, UserChange};

/// Carries `arguments` out.
pub fn run(arguments: &UserArguments) -> Result<(), Failure> {
    let file = arguments.file().map_err(|problems| Failure::configuration(&problems))?;
    match &arguments.change {
        UserChange::Add { name, password } => {
            config::user_name(name).map_err(|message| Failure::told(vec![format!("shoal: {message}")]))?;
            // Asked for before the lock is taken: people take their time.
            let password = password.ask(name)?;
            change(&file, |users| {
                if find(users, name).is_some() {
                    return Err(format!(
                        "{}: the user \"{name}\" is there already; shoal user passwd changes the password",
                        file.display()
                    ));
                }
                users.push(UserSettings::with_password(name, &password));
                Ok(())
            })
        }
        UserChange::Passwd { name, password } => {
            // No use asking for the password of somebody who is not there.
            find(&mut read(&file)?, name).ok_or_else(|| Failure::run_time(absent(&file, name)))?;
            let password = password.ask(name)?;
            change(&file, |users| {
                let user = find(users, name).ok_or_else(|| absent(&file, name))?;
                user.nt_hash = UserSettings::with_password(name, &password).nt_hash;
                Ok(())
            })
        }
        UserChange::Remove { name } => change(&file, |users| {
            let before = users.len();
            users.retain(|user| folded(&user.name) != folded(name));
            if users.len() == before { Err(absent(&file, name)) } else { Ok(()) }
        }),
        UserChange::List => {
            let mut out = io::stdout().lock();
            for user in read(&file)? {
                let state = if user.disabled { " (disabled)" } else { "" };
                if writeln!(out, "{}{state}", user.name).is_err() {
                    break;
                }
            }
            Ok(())
        }
    }
}

fn absent(file: &Path, name: &str) -> String {
    format!("{}: there is no user \"{name}\"", file.display())
}

fn find<'u>(users: &'u mut [UserSettings], name: &str) -> Option<&'u mut UserSettings> {
    users.iter_mut().find(|user| folded(&user.name) == folded(name))
}

/// The users of `file`, none if it is not there.
fn read(file: &Path) -> Result<Vec<UserSettings>, Failure> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    Raw::users_in(file).map_err(|problems| Failure::configuration(&problems))
}

/// Reads `file`, changes what it holds, and replaces it, with no other change in between.
fn change(
    file: &Path,
    how: impl FnOnce(&mut Vec<UserSettings>) -> Result<(), String>,
) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::run_time(format!("{}: {}", file.display(), config::reason(&error)));
    let _lock = users::lock(file).map_err(failed)?;
    let mut users = read(file)?;
    how(&mut users).map_err(Failure::run_time)?;
    users::save(file, &users).map_err(failed)
}

impl Password {
    /// The password, from where the flag says; or asked for, twice if somebody types it.
    fn ask(&self, name: &str) -> Result<Zeroizing<String>, Failure> {
        let password = match &self.password_file {
            Some(path) if path == Path::new("-") => first_line(io::stdin().lock()),
            Some(path) => std::fs::File::open(path).and_then(|file| first_line(io::BufReader::new(file))),
            None if !io::stdin().is_terminal() => first_line(io::stdin().lock()),
            None => typed(&format!("Password for {name}: ")),
        };
        let from = match &self.password_file {
            Some(path) if path != Path::new("-") => path.display().to_string(),
            _ => "standard input".to_owned(),
        };
        let password =
            password.map_err(|error| Failure::run_time(format!("{from}: {}", config::reason(&error))))?;
        if password.is_empty() {
            return Err(Failure::run_time(format!("{from}: the password is empty")));
        }
        let typed_in = self.password_file.is_none() && io::stdin().is_terminal();
        if typed_in && typed("Again: ").map_err(Failure::run_time)? != password {
            return Err(Failure::run_time("the two passwords differ; nothing was changed"));
        }
        Ok(password)
    }
}

fn first_line(mut input: impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    input.read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned()))
}

/// A line typed at the terminal, without showing it.
fn typed(prompt: &str) -> io::Result<Zeroizing<String>> {
    let stdin = io::stdin();
    eprint!("{prompt}");
    io::stderr().flush()?;
    let shown = termios::tcgetattr(&stdin)?;
    let mut silent = shown.clone();
    silent.local_modes &= !termios::LocalModes::ECHO;
    termios::tcsetattr(&stdin, termios::OptionalActions::Flush, &silent)?;
    let line = first_line(stdin.lock());
    termios::tcsetattr(&stdin, termios::OptionalActions::Flush, &shown)?;
    eprintln!();
    line
}
