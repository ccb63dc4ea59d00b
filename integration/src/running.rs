//! Programs that run beside us: their words are kept, their time is limited, and an interruption ends them.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::checks::Failure;

/// Process groups that are to end when we are interrupted.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
/// Once set, nothing more is started but by [`Running::start_after_all`].
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends all that runs, and lets nothing more start.
pub fn interrupt() {
    let mut groups = groups();
    INTERRUPTED.store(true, Ordering::SeqCst);
    for group in groups.drain(..) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// A program in a process group of its own.
pub struct Running {
    child: Child,
    /// What it is for, in messages.
    what: String,
    limit: Duration,
    deadline: Instant,
    said: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts `command`, which may take `limit`; `what` says what it is for.
    pub fn start(command: Command, what: &str, limit: Duration) -> Result<Running, Failure> {
        Running::launch(command, what, limit, false)
    }

    /// The same even after an interruption: what cleans up.
    pub fn start_after_all(command: Command, what: &str, limit: Duration) -> Result<Running, Failure> {
        Running::launch(command, what, limit, true)
    }

    fn launch(
        mut command: Command,
        what: &str,
        limit: Duration,
        after_all: bool,
    ) -> Result<Running, Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // Held until the child is listed: what an interruption does not find here has not started.
        let mut groups = groups();
        if INTERRUPTED.load(Ordering::SeqCst) && !after_all {
            return Err(format!("{what}: interrupted"));
        }
        let mut child = command
            .spawn()
            .map_err(|e| format!("{what}: cannot start {}: {e}", command.get_program().display()))?;
        groups.push(Pid::from_child(&child));
        drop(groups);
        let said = Arc::new(Mutex::new(String::new()));
        let out = child.stdout.take().expect("stdout is piped");
        let err = child.stderr.take().expect("stderr is piped");
        let readers = vec![listen(out, said.clone()), listen(err, said.clone())];
        Ok(Running { child, what: what.to_owned(), limit, deadline: Instant::now() + limit, said, readers })
    }

    /// Waits until it has said `word`.
    pub fn until_it_says(&mut self, word: &str) -> Result<(), Failure> {
        loop {
            let ended = self.ended()?;
            if self.said().contains(word) {
                return Ok(());
            }
            if let Some(status) = ended {
                return Err(format!(
                    "{}: ended with {status} before it said '{word}':\n{}",
                    self.what,
                    self.said()
                ));
            }
            self.still_in_time(&format!("for it to say '{word}'"))?;
        }
    }

    /// Waits for its end: how it ended, and what it said on both outputs.
    pub fn wait(mut self) -> Result<(ExitStatus, String), Failure> {
        let status = loop {
            if let Some(status) = self.ended()? {
                break status;
            }
            self.still_in_time("for its end")?;
        };
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Ok((status, self.said()))
    }

    /// Waits for its good end: what it said.
    pub fn succeed(self) -> Result<String, Failure> {
        let what = self.what.clone();
        match self.wait()? {
            (status, said) if status.success() => Ok(said),
            (status, said) => Err(format!("{what}: {status}\n{}", last_lines(&said, 15))),
        }
    }

    /// Everything that it has said so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        self.child.try_wait().map_err(|e| format!("{}: cannot be waited for: {e}", self.what))
    }

    fn still_in_time(&self, awaited: &str) -> Result<(), Failure> {
        if Instant::now() < self.deadline {
            std::thread::sleep(Duration::from_millis(10));
            return Ok(());
        }
        Err(format!(
            "{}: waited {awaited} for {:?}; so far:\n{}",
            self.what,
            self.limit,
            last_lines(&self.said(), 15)
        ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = self.child.wait();
        }
        groups().retain(|other| *other != group);
    }
}

fn groups() -> std::sync::MutexGuard<'static, Vec<Pid>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(mut from: impl Read + Send + 'static, said: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]);
            said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    })
}

/// The last `count` lines of `text`.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Asks every `pause` until there is an answer, or `limit` is over: then the failure says that `what` was waited for,
/// and why the last answer was none.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut ask: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("waited {limit:?} for {what}"));
        }
        std::thread::sleep(pause);
    }
}
