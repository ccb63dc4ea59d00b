//! What was checked and how it ended: a line per check while it runs, and the summary that closes a run.

use std::process::ExitCode;
use std::time::Instant;

/// Why a check did not pass: one or more lines for the person who reads the log.
pub type Failure = String;

/// The ledger of a run.
pub struct Checks {
    begun: Instant,
    passed: u32,
    failed: Vec<String>,
    skipped: u32,
}

impl Checks {
    /// An empty ledger; its clock starts now.
    pub fn new() -> Self {
        Checks { begun: Instant::now(), passed: 0, failed: Vec::new(), skipped: 0 }
    }

    /// Runs one check under `name` and records how it ended. Returns whether it passed.
    pub fn check(&mut self, name: &str, body: impl FnOnce() -> Result<(), Failure>) -> bool {
        let begun = Instant::now();
        let result = body();
        let seconds = begun.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                println!("ok      {seconds:6.1}s  {name}");
                self.passed += 1;
                true
            }
            Err(why) => {
                println!("FAILED  {seconds:6.1}s  {name}");
                for line in why.lines() {
                    println!("        {line}");
                }
                self.failed.push(name.to_owned());
                false
            }
        }
    }

    /// Records checks that were counted elsewhere (smbtorture's tests, say).
    pub fn record(&mut self, name: &str, result: Result<(), Failure>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(why) => {
                println!("FAILED           {name}: {why}");
                self.failed.push(name.to_owned());
            }
        }
    }

    /// Records that `name` could not be run here, and why.
    pub fn skip(&mut self, name: &str, why: &str) {
        println!("skipped          {name}: {why}");
        self.skipped += 1;
    }

    /// A line of progress.
    pub fn note(&self, text: &str) {
        println!("[{:5.0}s] {text}", self.begun.elapsed().as_secs_f32());
    }

    /// Prints what failed and the closing line; the exit code says whether all passed.
    pub fn finish(self) -> ExitCode {
        println!();
        for name in &self.failed {
            println!("failed: {name}");
        }
        println!("total time: {:.0} s", self.begun.elapsed().as_secs_f32());
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped);
        if self.failed.is_empty() && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Fails with `why` unless `condition` holds.
pub fn demand(condition: bool, why: impl FnOnce() -> String) -> Result<(), Failure> {
    if condition { Ok(()) } else { Err(why()) }
}
