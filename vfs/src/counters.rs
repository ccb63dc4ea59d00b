//! What the cache has done so far, counted per thread and summed when it is read.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What has been done since the start, and what there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lookups that the cache answered, present names.
    pub hits: u64,
    /// Lookups that the cache answered, absent names.
    pub negative_hits: u64,
    /// Lookups that had to ask, or to wait for one who asked.
    pub misses: u64,
    /// Lookups of exact spellings that the backend was asked for.
    pub backend_lookups: u64,
    /// Lookups of any spelling that the backend was asked for.
    pub backend_folded_lookups: u64,
    /// Names that an index answered for: absent, or how they are spelled.
    pub index_answers: u64,
    /// Indexes that were begun because names were searched for.
    pub index_fills: u64,
    /// Objects created.
    pub creates: u64,
    /// Names removed.
    pub removes: u64,
    /// Names renamed.
    pub renames: u64,
    /// Hard links made.
    pub links: u64,
    /// Times the topology lock was taken.
    pub topology: u64,
    /// Attempts that found the world changed after their waits, and began anew.
    pub retries: u64,
    /// Changes that waited, and went on in a task of their own.
    pub tasks: u64,
    /// Names evicted from the cache.
    pub evictions: u64,
    /// Bytes that the indexes of directories' names take now.
    pub index_bytes: u64,
    /// Names in the cache now.
    pub names: u64,
    /// Objects known now.
    pub nodes: u64,
    /// Memory that the cache takes now, in bytes.
    pub bytes: u64,
    /// The part of it that names take which are absent, or of which nothing is known.
    pub bytes_of_absent_names: u64,
}

pub(crate) enum Count {
    Hits,
    NegativeHits,
    Misses,
    BackendLookups,
    BackendFoldedLookups,
    IndexAnswers,
    IndexFills,
    Creates,
    Removes,
    Renames,
    Links,
    Topology,
    Retries,
    Tasks,
    Evictions,
}

const KINDS: usize = Count::Evictions as usize + 1;
const SHARDS: usize = 16;

/// A shard on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Shard([AtomicU64; KINDS]);

#[derive(Default)]
pub(crate) struct Counts([Shard; SHARDS]);

thread_local! {
    static SHARD: Cell<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS)
    };
}

impl Counts {
    #[inline]
    pub(crate) fn add(&self, what: Count, n: u64) {
        let shard = SHARD.with(Cell::get);
        self.0[shard].0[what as usize].fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> Counters {
        let of = |what: Count| {
            let what = what as usize;
            self.0.iter().map(|shard| shard.0[what].load(Ordering::Relaxed)).sum()
        };
        Counters {
            hits: of(Count::Hits),
            negative_hits: of(Count::NegativeHits),
            misses: of(Count::Misses),
            backend_lookups: of(Count::BackendLookups),
            backend_folded_lookups: of(Count::BackendFoldedLookups),
            index_answers: of(Count::IndexAnswers),
            index_fills: of(Count::IndexFills),
            creates: of(Count::Creates),
            removes: of(Count::Removes),
            renames: of(Count::Renames),
            links: of(Count::Links),
            topology: of(Count::Topology),
            retries: of(Count::Retries),
            tasks: of(Count::Tasks),
            evictions: of(Count::Evictions),
            index_bytes: 0,
            names: 0,
            nodes: 0,
            bytes: 0,
            bytes_of_absent_names: 0,
        }
    }
}
