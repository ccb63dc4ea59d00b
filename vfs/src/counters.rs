//! What the cache has done so far, counted per thread and summed when it is read.
//!
//! A thread that counts has a seat, as long as there is a free one: nobody else writes to its numbers, so that it adds to
//! them without an atomic addition, which each hit would have to pay. Those without a seat share one set of numbers.

use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};

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
pub(crate) const SEATS: usize = u64::BITS as usize;

/// Numbers on cache lines of their own.
#[repr(align(128))]
#[derive(Default)]
struct Numbers([AtomicU64; KINDS]);

pub(crate) struct Counts {
    of_seats: [Numbers; SEATS],
    of_others: Numbers,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts { of_seats: std::array::from_fn(|_| Numbers::default()), of_others: Numbers::default() }
    }
}

/// Which seats are taken, a bit each.
struct Seats(AtomicU64);

static SEATS_TAKEN: Seats = Seats(AtomicU64::new(0));

impl Seats {
    /// A free seat. Whoever takes it sees what was counted there before.
    fn take(&self) -> Option<usize> {
        let free = |taken: u64| taken.trailing_ones() as usize;
        let take = |taken: u64| (free(taken) < SEATS).then(|| taken | 1 << free(taken));
        self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, take).ok().map(free)
    }

    fn give_back(&self, seat: usize) {
        self.0.fetch_and(!(1 << seat), Ordering::Release);
    }
}

/// The seat of a thread, until that ends.
struct Seat {
    seats: &'static Seats,
    number: Option<usize>,
}

impl Seat {
    fn among(seats: &'static Seats) -> Seat {
        Seat { seats, number: seats.take() }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.seats.give_back(number);
        }
    }
}

thread_local! {
    static SEAT: Seat = Seat::among(&SEATS_TAKEN);
}

/// This thread's seat. A thread that ends has given it back.
#[inline]
fn seat() -> Option<usize> {
    SEAT.try_with(|seat| seat.number).ok().flatten()
}

/// Quantities that all threads change and few look at exactly: each thread keeps to itself what it has added and taken
/// until that is much, and what comes and goes in one thread is nobody else's business. (The kernel has it as
/// `percpu_counter`.)
pub(crate) struct Tally<const N: usize> {
    told: [AtomicIsize; N],
    of_seats: [Untold<N>; SEATS],
    /// How much a thread may keep to itself.
    slack: [usize; N],
}

/// What a thread has not told, on cache lines of its own.
#[repr(align(128))]
struct Untold<const N: usize>([AtomicIsize; N]);

impl<const N: usize> Tally<N> {
    /// All are 0, and what [`Tally::about`] says of each is wrong by no more than `SEATS` times its `slack`.
    pub(crate) fn new(slack: [usize; N]) -> Tally<N> {
        let none = || std::array::from_fn(|_| AtomicIsize::new(0));
        Tally { told: none(), of_seats: std::array::from_fn(|_| Untold(none())), slack }
    }

    #[inline]
    pub(crate) fn add(&self, what: usize, n: isize) {
        let mut told = n;
        if let Some(seat) = seat() {
            let untold = &self.of_seats[seat].0[what];
            told += untold.load(Ordering::Relaxed);
            let is_much = told.unsigned_abs() > self.slack[what];
            untold.store(if is_much { 0 } else { told }, Ordering::Relaxed);
            if !is_much {
                return;
            }
        }
        self.told[what].fetch_add(told, Ordering::Relaxed);
    }

    /// What has been told: one read.
    #[inline]
    pub(crate) fn about(&self, what: usize) -> usize {
        self.told[what].load(Ordering::Relaxed).max(0) as usize
    }

    /// All of it, as far as nobody changes it meanwhile.
    pub(crate) fn sum(&self, what: usize) -> usize {
        let told = self.told[what].load(Ordering::Relaxed);
        let untold = self.of_seats.iter().map(|untold| untold.0[what].load(Ordering::Relaxed));
        (told + untold.sum::<isize>()).max(0) as usize
    }
}

impl Counts {
    #[inline]
    pub(crate) fn add(&self, what: Count, n: u64) {
        match seat().and_then(|seat| self.of_seats.get(seat)) {
            Some(Numbers(numbers)) => {
                let number = &numbers[what as usize];
                number.store(number.load(Ordering::Relaxed) + n, Ordering::Relaxed);
            }
            None => {
                self.of_others.0[what as usize].fetch_add(n, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn sum(&self) -> Counters {
        let of = |what: Count| {
            let what = what as usize;
            let all = self.of_seats.iter().chain([&self.of_others]);
            all.map(|numbers| numbers.0[what].load(Ordering::Relaxed)).sum()
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

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn threads_leave_their_seats() {
        // Of the test's own: other tests have some of the others just now, and on a large machine maybe all.
        static TAKEN: Seats = Seats(AtomicU64::new(0));
        thread_local! {
            static SEAT: Seat = Seat::among(&TAKEN);
        }
        for _ in 0..2 * SEATS {
            let thread = std::thread::spawn(|| SEAT.with(|seat| seat.number));
            assert_eq!(thread.join().expect("has a seat"), Some(0));
        }
    }

    #[test]
    fn nothing_is_lost_with_a_seat_or_without() {
        const THREADS: usize = 2 * SEATS;
        const TIMES: u64 = 20_000;
        // One after the other: each finds what the one before has counted.
        let counts = Counts::default();
        for _ in 0..THREADS {
            std::thread::scope(|scope| drop(scope.spawn(|| counts.add(Count::Misses, 1))));
        }
        assert_eq!(counts.sum().misses, THREADS as u64);

        // All at once: some have none.
        let without = |counts: &Counts| counts.of_others.0[Count::Misses as usize].load(Ordering::Relaxed);
        let (counts, all_there) = (Counts::default(), Barrier::new(THREADS));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    counts.add(Count::Misses, 1);
                    all_there.wait();
                    (0..TIMES).for_each(|_| counts.add(Count::Hits, 1));
                });
            }
        });
        let sum = counts.sum();
        assert_eq!((sum.misses, sum.hits), (THREADS as u64, THREADS as u64 * TIMES));
        assert!(without(&counts) >= (THREADS - SEATS) as u64);
    }

    #[test]
    fn a_tally_is_told_what_is_much_and_knows_all() {
        const THREADS: usize = SEATS + 10;
        let (tally, all_there) = (Tally::new([10, 0]), Barrier::new(THREADS));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    all_there.wait();
                    // What comes and goes again, and 7 that stay.
                    for _ in 0..1000 {
                        tally.add(0, 10);
                        tally.add(0, -10);
                        tally.add(1, 2);
                        tally.add(1, -1);
                    }
                    tally.add(0, 7);
                });
            }
        });
        assert_eq!((tally.sum(0), tally.sum(1)), (7 * THREADS, 1000 * THREADS));
        assert!(tally.about(0) >= 7 * (THREADS - SEATS), "who has no seat tells all: {}", tally.about(0));
        assert_eq!(tally.about(1), tally.sum(1), "without slack all is told");
        let other = Tally::new([10]);
        (0..10).for_each(|_| other.add(0, 1));
        let untold = other.about(0);
        assert!(untold == 0 || seat().is_none());
        other.add(0, 1);
        assert_eq!(other.about(0), 11, "11 are much");
        other.add(0, -20);
        assert_eq!((other.about(0), other.sum(0)), (0, 0), "nothing is less than none");
    }

    #[test]
    fn a_seat_is_one_threads_and_then_anothers() {
        let seats = Seats(AtomicU64::new(0));
        let mut taken: Vec<_> = (0..SEATS).map(|_| seats.take().expect("is free")).collect();
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..SEATS));
        assert_eq!(seats.take(), None);
        seats.give_back(7);
        assert_eq!((seats.take(), seats.take()), (Some(7), None));
    }
}
