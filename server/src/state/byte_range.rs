//! Byte-range locks of one file: MS-SMB2 3.3.5.14, MS-FSA 2.1.4.10 and 2.1.5.8.
//!
//! Owners are opens, by their volatile id: in SMB2 neither the process nor the session matters, only the handle.

use super::turn::{Turn, Wake, turn};

/// A range of bytes. It may be empty: a lock of no bytes lies between two bytes and conflicts with what spans it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

impl Range {
    /// The range, unless it reaches beyond the last byte that 64 bits can name.
    pub fn new(offset: u64, length: u64) -> Option<Range> {
        let fits = length == 0 || offset.checked_add(length - 1).is_some();
        fits.then_some(Range { offset, length })
    }

    fn overlaps(self, other: Range) -> bool {
        // `length - 1` and inclusive ends, so that a range up to the very last byte works as any other.
        let (a, b) = if self.offset <= other.offset { (self, other) } else { (other, self) };
        match (a.length, b.length) {
            (0, _) => false,
            (_, 0) => b.offset > a.offset && b.offset <= a.offset + (a.length - 1),
            _ => b.offset <= a.offset + (a.length - 1),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Lock {
    owner: u64,
    range: Range,
    exclusive: bool,
}

#[derive(Debug)]
struct Waiting {
    owner: u64,
    wake: Wake,
}

/// What [`ByteRanges::acquire`] decided.
#[derive(Debug)]
pub enum Acquire {
    /// The lock is held from now on.
    Granted,
    /// Another lock is in the way, and the request does not wait.
    Refused,
    /// Another lock is in the way: wait for the turn, then ask again.
    Wait(Turn),
    /// The owner holds as many locks as it may.
    TooMany,
}

/// All locks of one (node, stream), and who waits for one.
#[derive(Debug, Default)]
pub struct ByteRanges {
    locks: Vec<Lock>,
    waiting: Vec<Waiting>,
}

impl ByteRanges {
    /// Whether there is neither a lock nor a waiter, so that the whole may be dropped.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty() && self.waiting.is_empty()
    }

    /// How many locks are held.
    pub fn len(&self) -> usize {
        self.locks.len()
    }

    /// Takes a lock for `owner`, or says why not. `limit` bounds the locks of one owner.
    pub fn acquire(
        &mut self,
        owner: u64,
        range: Range,
        exclusive: bool,
        wait: bool,
        limit: usize,
    ) -> Acquire {
        // A shared lock may stand on one's own exclusive lock; nothing else may overlap an exclusive one.
        let conflict = self.locks.iter().any(|held| {
            let excludes = if held.exclusive { exclusive || held.owner != owner } else { exclusive };
            excludes && held.range.overlaps(range)
        });
        if conflict {
            if !wait {
                return Acquire::Refused;
            }
            self.waiting.retain(|waiting| !waiting.wake.is_abandoned());
            let (turn, wake) = turn();
            self.waiting.push(Waiting { owner, wake });
            return Acquire::Wait(turn);
        }
        if self.locks.iter().filter(|held| held.owner == owner).count() >= limit {
            return Acquire::TooMany;
        }
        self.locks.push(Lock { owner, range, exclusive });
        Acquire::Granted
    }

    /// Gives up one lock of `owner` with exactly this range, an exclusive one first. `None`: there is no such lock.
    pub fn release(&mut self, owner: u64, range: Range) -> Option<Vec<Wake>> {
        let same = |held: &Lock| held.owner == owner && held.range == range;
        let at = self
            .locks
            .iter()
            .position(|held| same(held) && held.exclusive)
            .or_else(|| self.locks.iter().position(same))?;
        self.locks.remove(at);
        Some(self.wake_all())
    }

    /// Takes back the lock that was granted last with these very values: one part of a request failed.
    pub fn undo(&mut self, owner: u64, range: Range, exclusive: bool) -> Vec<Wake> {
        let same = |held: &Lock| held.owner == owner && held.range == range && held.exclusive == exclusive;
        if let Some(at) = self.locks.iter().rposition(same) {
            self.locks.remove(at);
        }
        self.wake_all()
    }

    /// The owner is closed: its locks go, its waiters are woken to find that out.
    pub fn release_all(&mut self, owner: u64) -> Vec<Wake> {
        let before = self.locks.len();
        self.locks.retain(|held| held.owner != owner);
        if self.locks.len() != before {
            return self.wake_all();
        }
        let mut wakes = Vec::new();
        let mut at = 0;
        while at < self.waiting.len() {
            if self.waiting[at].owner == owner {
                wakes.push(self.waiting.remove(at).wake);
            } else {
                at += 1;
            }
        }
        wakes
    }

    /// Whether `owner` may read (or write) these bytes. Nothing stands in the way of an empty range.
    pub fn permits(&self, owner: u64, range: Range, write: bool) -> bool {
        if range.length == 0 {
            return true;
        }
        // MS-FSA 2.1.4.10: a shared lock stops writes even through the handle that holds it.
        !self.locks.iter().any(|held| {
            held.range.overlaps(range) && if held.exclusive { held.owner != owner } else { write }
        })
    }

    fn wake_all(&mut self) -> Vec<Wake> {
        self.waiting.drain(..).map(|waiting| waiting.wake).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    const LIMIT: usize = 64;

    fn range(offset: u64, length: u64) -> Range {
        Range::new(offset, length).expect("a range of the table")
    }

    fn granted(acquired: Acquire) -> bool {
        matches!(acquired, Acquire::Granted)
    }

    #[test]
    fn ranges_end_with_the_last_byte() {
        assert!(Range::new(u64::MAX, 1).is_some());
        assert!(Range::new(u64::MAX, 2).is_none());
        assert!(Range::new(u64::MAX, 0).is_some());
        assert!(Range::new(0, u64::MAX).is_some());
        assert!(Range::new(1, u64::MAX).is_some());
        assert!(Range::new(2, u64::MAX).is_none());
    }

    #[test]
    fn overlap() {
        let table = [
            (0, 1, 1, 1, false),
            (0, 2, 1, 1, true),
            (10, 0, 10, 0, false),
            (10, 0, 9, 1, false),
            (10, 0, 10, 1, false),
            (10, 0, 11, 1, false),
            (10, 0, 9, 2, true),
            (10, 0, 10, 2, false),
            (10, 0, 9, 3, true),
            (0, 0, 0, 1, false),
            (u64::MAX, 1, u64::MAX - 1, 2, true),
            (u64::MAX, 1, u64::MAX, 0, false),
            (u64::MAX - 1, 2, u64::MAX, 0, true),
        ];
        for (o1, l1, o2, l2, expected) in table {
            assert_eq!(range(o1, l1).overlaps(range(o2, l2)), expected, "{o1}+{l1} and {o2}+{l2}");
            assert_eq!(range(o2, l2).overlaps(range(o1, l1)), expected, "{o2}+{l2} and {o1}+{l1}");
        }
    }

    #[test]
    fn second_lock_against_the_first() {
        // (first owner, exclusive) then (second owner, exclusive), on the same bytes
        let table = [
            (1, false, 2, false, true),
            (1, false, 1, false, true),
            (1, false, 2, true, false),
            (1, false, 1, true, false),
            (1, true, 2, false, false),
            (1, true, 1, false, true),
            (1, true, 1, true, false),
            (1, true, 2, true, false),
        ];
        for (first, first_exclusive, second, second_exclusive, expected) in table {
            let mut ranges = ByteRanges::default();
            assert!(granted(ranges.acquire(first, range(0, 10), first_exclusive, false, LIMIT)));
            assert_eq!(
                granted(ranges.acquire(second, range(5, 10), second_exclusive, false, LIMIT)),
                expected,
                "{first} exclusive {first_exclusive}, then {second} exclusive {second_exclusive}"
            );
        }
    }

    #[test]
    fn reads_and_writes_under_locks() {
        let table = [
            // lock exclusive, by its owner?, write?, permitted
            (true, true, true, true),
            (true, true, false, true),
            (true, false, true, false),
            (true, false, false, false),
            (false, true, true, false),
            (false, true, false, true),
            (false, false, true, false),
            (false, false, false, true),
        ];
        for (exclusive, own, write, expected) in table {
            let mut ranges = ByteRanges::default();
            assert!(granted(ranges.acquire(1, range(0, 10), exclusive, false, LIMIT)));
            let who = if own { 1 } else { 2 };
            assert_eq!(ranges.permits(who, range(9, 5), write), expected, "{exclusive} {own} {write}");
            assert!(ranges.permits(who, range(10, 5), write));
            assert!(ranges.permits(who, range(5, 0), write));
        }
    }

    #[test]
    fn unlock_takes_the_exclusive_one_first_and_only_exact_ranges() {
        let mut ranges = ByteRanges::default();
        assert!(granted(ranges.acquire(1, range(0, 10), true, false, LIMIT)));
        assert!(granted(ranges.acquire(1, range(0, 10), false, false, LIMIT)));
        assert!(ranges.release(1, range(0, 9)).is_none());
        assert!(ranges.release(2, range(0, 10)).is_none());
        assert!(ranges.release(1, range(0, 10)).is_some());
        assert!(granted(ranges.acquire(2, range(0, 10), false, false, LIMIT)), "the shared one is left");
        assert!(ranges.release(1, range(0, 10)).is_some());
        assert!(ranges.release(1, range(0, 10)).is_none());
    }

    #[test]
    fn a_waiter_is_woken_by_release_and_by_its_own_close() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut ranges = ByteRanges::default();
        assert!(granted(ranges.acquire(1, range(0, 10), true, true, LIMIT)));
        let Acquire::Wait(second) = ranges.acquire(2, range(0, 1), true, true, LIMIT) else { panic!() };
        let Acquire::Wait(third) = ranges.acquire(3, range(0, 1), true, true, LIMIT) else { panic!() };
        let (mut second, mut third) = (pin!(second), pin!(third));
        drop(ranges.release_all(3));
        assert!(third.as_mut().poll(&mut cx).is_ready());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        drop(ranges.release(1, range(0, 10)));
        assert!(second.as_mut().poll(&mut cx).is_ready());
        assert!(granted(ranges.acquire(2, range(0, 1), true, true, LIMIT)));
    }

    #[test]
    fn one_owner_cannot_grow_without_bound() {
        let mut ranges = ByteRanges::default();
        for at in 0..4 {
            assert!(granted(ranges.acquire(1, range(at, 1), false, false, 4)));
        }
        assert!(matches!(ranges.acquire(1, range(9, 1), false, false, 4), Acquire::TooMany));
        assert!(granted(ranges.acquire(2, range(9, 1), false, false, 4)));
    }

    /// Random locks, unlocks, closes, reads and writes of four opens on 16 bytes, against an oracle that looks at each byte.
    #[test]
    fn simulated_against_bytes() {
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut ranges = ByteRanges::default();
        let mut held: Vec<(u64, u64, u64, bool)> = Vec::new();
        let covers = |&(_, offset, length, _): &(u64, u64, u64, bool), byte: u64| {
            (offset..offset + length).contains(&byte)
        };
        for step in 0..50_000 {
            let (owner, offset) = (1 + random(4), random(16));
            let length = 1 + random(16 - offset);
            let bytes = || offset..offset + length;
            let exclusive = random(2) == 0;
            match random(8) {
                0..=2 => {
                    let free = held.iter().all(|lock| {
                        let apart = !bytes().any(|byte| covers(lock, byte));
                        apart || (!exclusive && (!lock.3 || lock.0 == owner))
                    });
                    let taken = ranges.acquire(owner, range(offset, length), exclusive, false, usize::MAX);
                    assert_eq!(granted(taken), free, "step {step}");
                    if free {
                        held.push((owner, offset, length, exclusive));
                    }
                }
                3..=4 => {
                    let same =
                        |lock: &&(u64, u64, u64, bool)| (lock.0, lock.1, lock.2) == (owner, offset, length);
                    let found = held.iter().filter(same).max_by_key(|lock| lock.3).copied();
                    let released = ranges.release(owner, range(offset, length)).is_some();
                    assert_eq!(released, found.is_some(), "step {step}");
                    if let Some(found) = found {
                        held.remove(held.iter().position(|lock| *lock == found).expect("just found"));
                    }
                }
                5 if random(10) == 0 => {
                    drop(ranges.release_all(owner));
                    held.retain(|lock| lock.0 != owner);
                }
                _ => {
                    let write = random(2) == 0;
                    let free = held.iter().all(|lock| {
                        let apart = !bytes().any(|byte| covers(lock, byte));
                        apart || if lock.3 { lock.0 == owner } else { !write }
                    });
                    assert_eq!(ranges.permits(owner, range(offset, length), write), free, "step {step}");
                }
            }
            assert_eq!(ranges.len(), held.len(), "step {step}");
        }
    }
}
