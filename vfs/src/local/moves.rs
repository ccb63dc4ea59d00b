//! Names that were moved one after the other, told from names that were exchanged.
//!
//! Of an exchange of two names the kernel tells as of two moves in a row: the first name to the second, and the second to the
//! first. So the last word of the second name is that something went from it, though something is there. Who sees that a
//! name came and then that it went knows only by where the second move leads: back to where the first one began, and
//! nobody can say whether the name is there; to any other place, and it is gone.
//!
//! Of a directory's first change after it is watched, or after changes were lost, it is not known what came before: if that is
//! a move away it may be the second half of an exchange.
//!
//! Both halves of a move have its cookie. The first half of a second move is held back until the other half is read, or until
//! there is nothing more to be read: the other half is still to come then, or leads where nobody watches, and where the
//! move led is not known. Nothing else of that directory comes between the two halves, as the kernel tells both while it
//! holds the locks of both directories.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ahash::RandomState;

use crate::backend::{Change, WatchId};
use crate::name::DiskName;

/// What two halves of one move have in common, and no two moves of about the same time.
pub(super) type Cookie = u32;

#[derive(Clone, PartialEq, Eq)]
struct Place {
    watch: WatchId,
    name: DiskName,
}

impl Place {
    fn new(watch: WatchId, name: &[u8]) -> Place {
        Place { watch, name: DiskName::new(name) }
    }
}

/// Something was moved to a name.
struct Arrival {
    name: DiskName,
    from: Origin,
}

/// Where something came from: unknown where nobody watches the directory, or where the two halves were not read together.
type Origin = Option<Place>;

/// Something was moved away from a name, and where to is not read yet.
struct Departure {
    from: Place,
    /// The last change before this was that something came to the name, from there. This half is held back then.
    after: Option<Origin>,
}

/// How many of the last first halves a second half is looked for among. It comes next, but for those of other directories that
/// other processors tell just then; one that is not found came from nobody knows where.
const RECENT: usize = 64;

#[derive(Default)]
pub(super) struct Moves {
    /// The directories of which a change was read since they are watched, and since changes were lost; with what came, if
    /// the last change was that something was moved to a name.
    known: HashMap<WatchId, Option<Arrival>, RandomState>,
    /// The first halves of moves of which the others are not read yet: mostly one, and the other half is read next.
    departures: Vec<(Cookie, Departure)>,
}

impl Moves {
    /// Hands a change on, or holds it back.
    pub(super) fn told(&mut self, change: Change<'_>, cookie: Cookie, each: &mut dyn FnMut(Change<'_>)) {
        match change {
            Change::MovedFrom(watch, name) => {
                let (is_first, before) = match self.known.entry(watch) {
                    Entry::Occupied(mut last) => (false, last.get_mut().take()),
                    Entry::Vacant(none) => {
                        none.insert(None);
                        (true, None)
                    }
                };
                let before = before.filter(|arrival| arrival.name.as_bytes() == name);
                let after = before.map(|arrival| arrival.from);
                if after.is_none() {
                    each(if is_first { Change::Unsure(watch, name) } else { change });
                }
                self.departures.push((cookie, Departure { from: Place::new(watch, name), after }));
            }
            Change::MovedTo(watch, name) => {
                // The last of that cookie: the numbers go round.
                let recent = self.departures.len().saturating_sub(RECENT);
                let at = self.departures[recent..].iter().rposition(|(other, _)| *other == cookie);
                let from = at.map(|at| recent + at).map(|at| {
                    let (_, departure) = self.departures.swap_remove(at);
                    departure.release(Some((watch, name)), each);
                    departure.from
                });
                self.known.insert(watch, Some(Arrival { name: DiskName::new(name), from }));
                each(change);
            }
            Change::Created(watch, _) | Change::Removed(watch, _) => {
                self.known.insert(watch, None);
                each(change);
            }
            Change::Ended(watch) => {
                self.known.remove(&watch);
                each(change);
            }
            Change::Lost => {
                self.known.clear();
                each(change);
            }
            Change::Unsure(..) | Change::Moved(_) => each(change),
        }
    }

    /// There is nothing more to be read.
    pub(super) fn ended(&mut self, each: &mut dyn FnMut(Change<'_>)) {
        for (_, departure) in self.departures.drain(..) {
            departure.release(None, each);
        }
    }
}

impl Departure {
    /// Hands on what was held back, if it was, now that it is known where the move led, or that nobody can know.
    fn release(&self, to: Option<(WatchId, &[u8])>, each: &mut dyn FnMut(Change<'_>)) {
        let Some(after) = &self.after else { return };
        let (watch, name) = (self.from.watch, self.from.name.as_bytes());
        let is_elsewhere = match (after, to) {
            (Some(from), Some((watch, name))) => from.watch != watch || from.name.as_bytes() != name,
            _ => false,
        };
        each(if is_elsewhere { Change::MovedFrom(watch, name) } else { Change::Unsure(watch, name) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is handed on of so many changes, read in one go: `+` came, `-` went, `?` is not known, with watch and name.
    fn read(moves: &mut Moves, changes: &[(Change<'_>, Cookie)]) -> Vec<String> {
        let mut told = Vec::new();
        let mut each = |change: Change<'_>| {
            let (sign, watch, name) = match change {
                Change::Created(watch, name) | Change::MovedTo(watch, name) => ('+', watch, name),
                Change::Removed(watch, name) | Change::MovedFrom(watch, name) => ('-', watch, name),
                Change::Unsure(watch, name) => ('?', watch, name),
                Change::Moved(_) | Change::Ended(_) | Change::Lost => return,
            };
            told.push(format!("{sign}{watch}{}", String::from_utf8_lossy(name)));
        };
        for (change, cookie) in changes {
            moves.told(*change, *cookie, &mut each);
        }
        moves.ended(&mut each);
        told
    }

    fn rename<'a>(
        from: (WatchId, &'a str),
        to: (WatchId, &'a str),
        cookie: Cookie,
    ) -> [(Change<'a>, Cookie); 2] {
        let (from, to) = ((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()));
        [(Change::MovedFrom(from.0, from.1), cookie), (Change::MovedTo(to.0, to.1), cookie)]
    }

    /// Of some directories a change has been read.
    fn known() -> Moves {
        let mut moves = Moves::default();
        read(&mut moves, &[1, 2, 3].map(|watch| (Change::Created(watch, b"x"), 0)));
        moves
    }

    #[test]
    fn a_name_that_is_moved_on_is_gone() {
        let changes = [rename((1, "a"), (1, "b"), 7), rename((1, "b"), (1, "c"), 8)].concat();
        assert_eq!(read(&mut known(), &changes), ["-1a", "+1b", "-1b", "+1c"]);
        let changes = [rename((1, "a"), (2, "b"), 7), rename((2, "b"), (2, "a"), 8)].concat();
        assert_eq!(read(&mut known(), &changes), ["-1a", "+2b", "-2b", "+2a"]);
    }

    /// It is the same to the kernel whether a name was moved there and back or exchanged.
    #[test]
    fn of_a_name_that_leads_back_nobody_knows() {
        let changes = [rename((1, "a"), (1, "b"), 7), rename((1, "b"), (1, "a"), 8)].concat();
        assert_eq!(read(&mut known(), &changes), ["-1a", "+1b", "?1b", "+1a"]);
        let changes = [rename((1, "a"), (2, "b"), 7), rename((2, "b"), (1, "a"), 8)].concat();
        assert_eq!(read(&mut known(), &changes), ["-1a", "+2b", "?2b", "+1a"]);
    }

    #[test]
    fn the_first_that_is_read_may_be_the_end_of_an_exchange() {
        let (back, on) = (rename((1, "b"), (1, "a"), 8), rename((1, "c"), (1, "d"), 9));
        let mut moves = Moves::default();
        assert_eq!(read(&mut moves, &back), ["?1b", "+1a"]);
        assert_eq!(read(&mut moves, &on), ["-1c", "+1d"]);
        assert_eq!(read(&mut moves, &[(Change::Lost, 0)]), [""; 0]);
        assert_eq!(read(&mut moves, &back), ["?1b", "+1a"]);
        // Another directory's tell nothing of this one, and a watch that has ended tells nothing of the next.
        assert_eq!(read(&mut moves, &rename((2, "b"), (2, "a"), 10)), ["?2b", "+2a"]);
        read(&mut moves, &[(Change::Ended(1), 0)]);
        assert_eq!(read(&mut moves, &on), ["?1c", "+1d"]);
    }

    /// What came before changes were lost is not what came before the next.
    #[test]
    fn changes_are_lost_between() {
        let mut moves = known();
        assert_eq!(read(&mut moves, &rename((1, "a"), (1, "b"), 7)), ["-1a", "+1b"]);
        read(&mut moves, &[(Change::Lost, 0)]);
        assert_eq!(read(&mut moves, &rename((1, "b"), (1, "c"), 8)), ["?1b", "+1c"]);
    }

    #[test]
    fn reads_come_between() {
        let (there, back) = (rename((1, "a"), (1, "b"), 7), rename((1, "b"), (1, "a"), 8));
        let mut moves = known();
        assert_eq!(read(&mut moves, &there), ["-1a", "+1b"]);
        assert_eq!(read(&mut moves, &back), ["?1b", "+1a"]);
        // The second half of what was held back is still to come.
        let mut moves = known();
        let on = rename((1, "b"), (1, "c"), 8);
        assert_eq!(read(&mut moves, &there), ["-1a", "+1b"]);
        assert_eq!(read(&mut moves, &on[..1]), ["?1b"]);
        assert_eq!(read(&mut moves, &on[1..]), ["+1c"]);
        // And so it is not known where that came from.
        assert_eq!(read(&mut moves, &rename((1, "c"), (1, "d"), 9)), ["?1c", "+1d"]);
    }

    #[test]
    fn a_half_that_is_far_away_is_nobody_s() {
        let away: Vec<_> =
            (0..RECENT as Cookie).map(|cookie| (Change::MovedFrom(2, b"y"), 100 + cookie)).collect();
        let (there, back) = (rename((1, "a"), (1, "b"), 7), rename((1, "b"), (1, "c"), 8));
        let mut moves = known();
        read(&mut moves, &there);
        let near = [&back[..1], &away[1..], &back[1..]].concat();
        assert_eq!(read(&mut moves, &near).last().unwrap(), "+1c");
        assert_eq!(read(&mut moves, &rename((1, "c"), (1, "d"), 9)), ["-1c", "+1d"]);
        let mut moves = known();
        read(&mut moves, &there);
        let far = [&back[..1], &away[..], &back[1..]].concat();
        assert_eq!(read(&mut moves, &far).last().unwrap(), "?1b");
        assert_eq!(read(&mut moves, &rename((1, "c"), (1, "d"), 9)), ["?1c", "+1d"]);
    }

    #[test]
    fn where_nobody_watches_nothing_is_known() {
        let mut moves = known();
        assert_eq!(read(&mut moves, &[(Change::MovedTo(1, b"b"), 7)]), ["+1b"]);
        assert_eq!(read(&mut moves, &rename((1, "b"), (1, "c"), 8)), ["?1b", "+1c"]);
        assert_eq!(read(&mut moves, &[(Change::MovedFrom(1, b"c"), 9)]), ["?1c"]);
    }

    #[test]
    fn other_changes_come_between() {
        let mut moves = known();
        let there = rename((1, "a"), (1, "b"), 7);
        assert_eq!(read(&mut moves, &there), ["-1a", "+1b"]);
        assert_eq!(read(&mut moves, &[(Change::Created(1, b"x"), 0)]), ["+1x"]);
        assert_eq!(read(&mut moves, &[(Change::MovedFrom(1, b"b"), 8)]), ["-1b"]);
        // Those of another directory between the two halves.
        let mut moves = known();
        assert_eq!(read(&mut moves, &there), ["-1a", "+1b"]);
        let on = rename((1, "b"), (1, "c"), 8);
        let other = rename((2, "y"), (2, "z"), 9);
        let mixed = [on[0], other[0], (Change::Created(3, b"x"), 0), on[1], other[1]];
        assert_eq!(read(&mut moves, &mixed), ["-2y", "+3x", "-1b", "+1c", "+2z"]);
    }
}
