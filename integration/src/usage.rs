//! What a server costs: processor time and memory of a process with all its descendants, from the kernel's own books.
//!
//! The time is what the scheduler has counted for each thread, in nanoseconds (`/proc/PID/task/TID/schedstat`): the ticks
//! of `/proc/PID/stat` are 10 ms each, and would need seconds of work to say anything. Processes that end between two
//! readings are found in their parents' books, in ticks.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::checks::Failure;

/// A process and all that descends from it.
#[derive(Clone, Copy, Debug)]
pub struct ProcessTree {
    root: u32,
}

/// What a process tree has used of the processors up to one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Nanoseconds by process and thread.
    threads: BTreeMap<(u32, u32), u64>,
    /// Ticks by process, of its children that have ended and were waited for, with theirs.
    ended: BTreeMap<u32, u64>,
}

impl Reading {
    /// The processor time between `earlier` and this reading.
    ///
    /// Of a thread that has ended between the two, what it did after `earlier` is not known. Servers end threads that
    /// had nothing to do for a second or more, so that there is next to nothing to know.
    pub fn since(&self, earlier: &Reading) -> Duration {
        let nanoseconds: u64 = self
            .threads
            .iter()
            .map(|(thread, time)| time.saturating_sub(earlier.threads.get(thread).copied().unwrap_or(0)))
            .sum();
        let ticks: u64 = self
            .ended
            .iter()
            .map(|(process, ticks)| ticks.saturating_sub(earlier.ended.get(process).copied().unwrap_or(0)))
            .sum();
        // A process that was read earlier and was waited for since stands in both books.
        let gone = earlier.threads.iter().filter(|((pid, _), _)| !self.ended.contains_key(pid));
        let before = Duration::from_nanos(gone.map(|(_, time)| *time).sum());
        // USER_HZ is 100 on every architecture that Linux has today.
        Duration::from_nanos(nanoseconds) + Duration::from_millis(ticks * 10).saturating_sub(before)
    }
}

/// What a process tree holds of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident, each process' counted in full: pages that several share are counted several times.
    pub resident: u64,
    /// Resident, shared pages divided by how many share them.
    pub proportional: u64,
}

impl ProcessTree {
    /// The tree below and with `root`.
    pub fn new(root: u32) -> ProcessTree {
        ProcessTree { root }
    }

    /// The processes that it has at this moment, the root first.
    pub fn processes(self) -> Result<Vec<u32>, Failure> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let entries = std::fs::read_dir("/proc").map_err(|e| format!("/proc: {e}"))?;
        for pid in entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()) {
            // One that has ended meanwhile is nobody's child any more.
            if let Some(stat) = Stat::of(pid) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        let mut found = vec![self.root];
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            found.extend(children.get(pid).into_iter().flatten());
            next += 1;
        }
        Ok(found)
    }

    /// The processor time that it has used so far.
    pub fn cpu(self) -> Result<Reading, Failure> {
        let mut reading = Reading::default();
        for pid in self.processes()? {
            let Some(stat) = Stat::of(pid) else { continue };
            reading.ended.insert(pid, stat.children_ticks);
            let path = format!("/proc/{pid}/task");
            let Ok(threads) = std::fs::read_dir(&path) else { continue };
            for thread in threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()) {
                let Ok(text) = std::fs::read_to_string(format!("{path}/{thread}/schedstat")) else {
                    continue;
                };
                let time = text.split_whitespace().next().and_then(|time| time.parse().ok());
                reading.threads.insert((pid, thread), time.ok_or("a schedstat that is none")?);
            }
        }
        if reading.threads.is_empty() {
            return Err(format!(
                "no /proc/{}/task/*/schedstat: has it ended, or has the kernel no CONFIG_SCHED_INFO?",
                self.root
            ));
        }
        Ok(reading)
    }

    /// The memory that it has at this moment.
    pub fn memory(self) -> Result<Memory, Failure> {
        let mut memory = Memory::default();
        for pid in self.processes()? {
            let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
            memory.resident += kilobytes(&text, "Rss:") << 10;
            memory.proportional += kilobytes(&text, "Pss:") << 10;
        }
        if memory.resident == 0 {
            return Err(format!("no memory of process {} in /proc: has it ended?", self.root));
        }
        Ok(memory)
    }
}

/// What `/proc/PID/stat` says of a process.
struct Stat {
    parent: u32,
    children_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name, in parentheses, and may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Stat { parent: number(1)? as u32, children_ticks: number(13)? + number(14)? })
    }
}

fn kilobytes(text: &str, key: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    /// A shell whose child works and ends, says so, and waits for our end of the pipe to close.
    #[test]
    fn threads_children_and_those_that_ended_are_counted() {
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "read go; (i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done); echo done; read wait",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let tree = ProcessTree::new(shell.id());
        let own = ProcessTree::new(std::process::id());
        assert!(own.processes().unwrap().contains(&shell.id()));
        let memory = tree.memory().unwrap();
        assert!(memory.resident >= memory.proportional && memory.proportional > 0, "{memory:?}");
        let (before, own_before) = (tree.cpu().unwrap(), own.cpu().unwrap());
        let mut to = shell.stdin.take().unwrap();
        to.write_all(b"go\n").unwrap();
        let mut said = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut said).unwrap();
        // No shell does 300,000 rounds in 20 ms.
        for used in [tree.cpu().unwrap().since(&before), own.cpu().unwrap().since(&own_before)] {
            assert!(used >= Duration::from_millis(20), "the ended child's work is missing: {used:?}");
        }
        drop(to);
        shell.wait().unwrap();
        assert!(tree.cpu().is_err(), "an ended process has no time");
    }

    #[test]
    fn what_a_waited_for_child_did_earlier_is_not_counted_again() {
        let reading = |threads: &[((u32, u32), u64)], ended: &[(u32, u64)]| Reading {
            threads: threads.iter().copied().collect(),
            ended: ended.iter().copied().collect(),
        };
        let earlier = reading(&[((1, 1), 500), ((2, 2), 80_000_000)], &[(1, 3), (2, 0)]);
        // Process 2 did 80 ms before and 20 ms after; process 1 has it in its books with 100 ms.
        let later = reading(&[((1, 1), 700), ((1, 4), 50)], &[(1, 13)]);
        assert_eq!(later.since(&earlier), Duration::from_nanos(200 + 50) + Duration::from_millis(20));
        assert_eq!(earlier.since(&earlier), Duration::ZERO);
    }
}
