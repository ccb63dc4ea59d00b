//! `shoal status`, `reload`, `stop` and `close-session`: a running server asked over its admin socket.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use shoal::admin::{self, Answer, Request, Status};
use shoal::config::reason;

use crate::cli::{Admin, Failure};

/// `shoal status`.
pub fn status(admin: &Admin, json: bool) -> Result<(), Failure> {
    let Answer::Status(status) = ask(admin, &Request::Status)? else {
        return Err(Failure::run_time("the server gave another answer than a status"));
    };
    let text =
        if json { serde_json::to_string(&status).map_err(Failure::run_time)? + "\n" } else { table(&status) };
    // The reader may have seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// The commands that are done or not.
pub fn order(admin: &Admin, request: &Request) -> Result<(), Failure> {
    if let Answer::Done { notes } = ask(admin, request)? {
        for note in notes {
            eprintln!("warning: {note}");
        }
    }
    Ok(())
}

fn ask(admin: &Admin, request: &Request) -> Result<Answer, Failure> {
    let socket = socket(admin)?;
    let answer = admin::ask(&socket, request).map_err(|error| {
        let why = reason(&error);
        Failure::run_time(format!(
            "no server answers at {}: {why}; --admin SOCKET names another",
            socket.display()
        ))
    })?;
    match answer {
        Answer::Failed(why) => Err(Failure::run_time(why)),
        Answer::Configuration(problems) => Err(Failure::told(problems)),
        done => Ok(done),
    }
}

fn socket(admin: &Admin) -> Result<PathBuf, Failure> {
    admin.admin.clone().or_else(admin::default_socket).ok_or_else(|| {
        Failure::run_time(
            "where is the server's admin socket? $XDG_RUNTIME_DIR is not set; name it with --admin SOCKET",
        )
    })
}

fn table(status: &Status) -> String {
    let mut text = String::new();
    let Status {
        version,
        pid,
        uptime_seconds,
        connections,
        session_count,
        tree_count,
        open_count,
        lock_count,
        ..
    } = status;
    let _ = writeln!(text, "shoal {version}, process {pid}, up {uptime_seconds} s");
    let _ = writeln!(
        text,
        "{connections} connections, {session_count} sessions, {tree_count} tree connects, {open_count} opens, {lock_count} locks"
    );
    if !status.sessions.is_empty() {
        let _ = writeln!(
            text,
            "\n{:<20} {:<16} {:<24} {:<7} {:<10} {:>5} {:>7} {:>8}",
            "SESSION", "USER", "ADDRESS", "DIALECT", "PROTECTED", "TREES", "OPENS", "SECONDS"
        );
    }
    for session in &status.sessions {
        let protected = match (session.encrypted, session.signed) {
            (true, _) => "encrypted",
            (false, true) => "signed",
            (false, false) => "no",
        };
        let user = if session.user.is_empty() { "(nobody)" } else { &session.user };
        let _ = writeln!(
            text,
            "{:<20} {:<16} {:<24} {:<7} {:<10} {:>5} {:>7} {:>8}",
            session.id,
            user,
            session.address,
            session.dialect,
            protected,
            session.trees,
            session.opens,
            session.seconds
        );
    }
    if !status.trees.is_empty() {
        let _ = writeln!(text, "\n{:<20} {:>10} SHARE", "SESSION", "TREE");
    }
    for tree in &status.trees {
        let _ = writeln!(text, "{:<20} {:>10} {}", tree.session, tree.id, tree.share);
    }
    if !status.opens.is_empty() {
        let _ = writeln!(text, "\n{:<20} {:<10} {:>5} {:<16} PATH", "SESSION", "ACCESS", "LOCKS", "SHARE");
    }
    for open in &status.opens {
        let _ = writeln!(
            text,
            "{:<20} {:<10} {:>5} {:<16} {}",
            open.session,
            open.access,
            open.locks,
            open.share,
            printable(&open.path)
        );
    }
    if !status.counters.is_empty() {
        let _ = writeln!(text, "\n{:>12} COUNTER", "COUNT");
    }
    for (name, value) in &status.counters {
        let _ = writeln!(text, "{value:>12} {name}");
    }
    text
}

/// A client chose the name: no control character of it reaches the terminal.
fn printable(path: &str) -> String {
    path.replace(char::is_control, "?")
}
