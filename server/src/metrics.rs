//! Counters: requests by command, failures by command and status, bytes, disconnects by cause.
//!
//! A connection counts for itself, without sharing a cache line with others; when it ends its counts are added to the
//! server's, and whoever reads sums those with the living connections'.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::header::Command;

use crate::misbehaved::Misbehaved;

const COMMANDS: usize = Command::ALL.len();

/// What one connection counts.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    requests: [AtomicU64; COMMANDS],
    /// Answers that were not SUCCESS, by command number and status, in order. Every login has one of them, and few
    /// connections have many: a map would be larger.
    statuses: Mutex<Vec<((u16, u32), u64)>>,
    panics: AtomicU64,
    misbehaved: Mutex<Option<&'static str>>,
}

impl ConnectionMetrics {
    /// One more request. Only the connection's reader counts them, so that nothing can come between the two steps.
    pub(crate) fn count(&self, command: Command) {
        let count = &self.requests[command as usize];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// One more answer.
    pub(crate) fn answered(&self, command: Command, status: NtStatus) {
        if status != NtStatus::SUCCESS {
            let key = (command as u16, status.0);
            let mut statuses = self.statuses.lock();
            match statuses.binary_search_by_key(&key, |(key, _)| *key) {
                Ok(at) => statuses[at].1 += 1,
                Err(at) => statuses.insert(at, (key, 1)),
            }
        }
    }

    /// One more handler that panicked.
    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// What ended the connection.
    pub(crate) fn misbehaved(&self, fault: Misbehaved) {
        self.misbehaved.lock().get_or_insert(fault.name());
    }

    /// The requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// Counts of connections that have ended, or of all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that were refused: too many.
    pub refused: u64,
    /// Requests by command number.
    pub requests: [u64; COMMANDS],
    /// Answers that were not SUCCESS, by command number and status. SUCCESS is the rest.
    pub statuses: BTreeMap<(u16, u32), u64>,
    /// Handlers that panicked: each is a bug.
    pub panics: u64,
    /// Disconnects by their cause.
    pub misbehaved: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Adds what a connection has counted.
    pub fn add(&mut self, metrics: &ConnectionMetrics) {
        for (sum, count) in self.requests.iter_mut().zip(&metrics.requests) {
            *sum += count.load(Ordering::Relaxed);
        }
        for (key, count) in metrics.statuses.lock().iter() {
            *self.statuses.entry(*key).or_default() += count;
        }
        self.panics += metrics.panics.load(Ordering::Relaxed);
        if let Some(cause) = *metrics.misbehaved.lock() {
            *self.misbehaved.entry(cause).or_default() += 1;
        }
    }
}
