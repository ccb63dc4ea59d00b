//! Whether some order explains what was recorded.
//!
//! The search is that of Wing and Gong: among the calls that no other had ended before, one is taken as the first that
//! the sequential tree explains, and so on; what was tried in vain is remembered. Names that no rename or link connects
//! have nothing to do with each other, so each such component is searched for itself.

use std::collections::{BTreeMap, HashMap, HashSet};

/// A name in a directory, in whatever case.
pub type Place = usize;
/// A link, as long as somebody holds it.
pub type Id = usize;
/// What each name means.
pub type Tree = BTreeMap<Place, Id>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Done,
    /// The source is no more.
    Gone,
    /// The target is taken.
    Taken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Look(Place, Option<Id>),
    /// What has the name, and whether it was made.
    Create(Place, Id, bool),
    /// Whether it was there.
    Remove(Id, bool),
    /// To a place, and whether what is there may be replaced.
    Rename(Id, Place, bool, End),
    /// A new name, and the link that it got.
    Link(Id, Place, End, Id),
}

#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub begin: u64,
    pub end: u64,
    pub call: Call,
}

/// The tree after the call, if the call could have answered so.
fn explains(tree: &Tree, call: Call) -> Option<Tree> {
    let mut after = tree.clone();
    let place_of = |id: Id| tree.iter().find(|(_, held)| **held == id).map(|(place, _)| *place);
    let fits = match call {
        Call::Look(place, found) => tree.get(&place) == found.as_ref(),
        Call::Create(place, id, true) => after.insert(place, id).is_none(),
        Call::Create(place, id, false) => tree.get(&place) == Some(&id),
        Call::Remove(id, was_there) => {
            let place = place_of(id);
            place.map(|place| after.remove(&place));
            place.is_some() == was_there
        }
        Call::Rename(id, to, replace, end) => match (place_of(id), end) {
            (None, end) => end == End::Gone,
            (Some(from), End::Done) => {
                after.remove(&from);
                let replaced = after.insert(to, id);
                replaced.is_none() || replace
            }
            (Some(from), End::Taken) => !replace && from != to && tree.contains_key(&to),
            (Some(_), End::Gone) => false,
        },
        Call::Link(_, to, End::Done, made) => after.insert(to, made).is_none(),
        Call::Link(_, to, End::Taken, _) => tree.contains_key(&to),
        Call::Link(id, _, End::Gone, _) => place_of(id).is_none(),
    };
    fits.then_some(after)
}

/// The most calls of a component.
const MOST: usize = u64::BITS as usize;

fn is_explained(start: &Tree, events: &[Event]) -> bool {
    fn search(tree: &Tree, left: u64, events: &[Event], vain: &mut HashSet<(u64, Tree)>) -> bool {
        if left == 0 {
            return true;
        }
        if !vain.insert((left, tree.clone())) {
            return false;
        }
        let of = |index: &usize| left & (1 << index) != 0;
        let first_end = (0..events.len()).filter(of).map(|index| events[index].end).min().unwrap_or(u64::MAX);
        (0..events.len()).filter(of).any(|index| {
            events[index].begin < first_end
                && explains(tree, events[index].call)
                    .is_some_and(|after| search(&after, left & !(1 << index), events, vain))
        })
    }
    assert!((1..=MOST).contains(&events.len()), "{} calls are too many for one search", events.len());
    search(start, u64::MAX >> (MOST - events.len()), events, &mut HashSet::new())
}

/// What a call speaks of. Places and links are told apart by their parity.
fn touched(call: Call) -> Vec<usize> {
    let (place, link) = (|place: Place| place * 2, |id: Id| id * 2 + 1);
    match call {
        Call::Look(at, None) => vec![place(at)],
        Call::Look(at, Some(id)) | Call::Create(at, id, _) => vec![place(at), link(id)],
        Call::Remove(id, _) => vec![link(id)],
        Call::Rename(id, to, ..) => vec![link(id), place(to)],
        Call::Link(id, to, _, made) => vec![link(id), place(to), link(made)],
    }
}

struct Components(HashMap<usize, usize>);

impl Components {
    fn root(&mut self, of: usize) -> usize {
        let above = *self.0.entry(of).or_insert(of);
        if above == of {
            return of;
        }
        let root = self.root(above);
        self.0.insert(of, root);
        root
    }

    fn join(&mut self, all: &[usize]) {
        for pair in all.windows(2) {
            let (a, b) = (self.root(pair[0]), self.root(pair[1]));
            self.0.insert(a, b);
        }
    }
}

/// The first component that no order explains.
pub fn unexplained(start: &Tree, events: &[Event]) -> Option<Vec<Event>> {
    let mut components = Components(HashMap::new());
    start.iter().for_each(|(place, id)| components.join(&[place * 2, id * 2 + 1]));
    events.iter().for_each(|event| components.join(&touched(event.call)));
    let mut parts: HashMap<usize, (Tree, Vec<Event>)> = HashMap::new();
    for (place, id) in start {
        parts.entry(components.root(place * 2)).or_default().0.insert(*place, *id);
    }
    for event in events {
        parts.entry(components.root(touched(event.call)[0])).or_default().1.push(*event);
    }
    let mut parts = parts.into_values().filter(|(_, events)| !events.is_empty());
    parts.find(|(start, events)| !is_explained(start, events)).map(|(_, events)| events)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(begin: u64, end: u64, call: Call) -> Event {
        Event { begin, end, call }
    }

    #[test]
    fn the_checker_has_teeth() {
        let start = Tree::from([(0, 1), (5, 9)]);
        let during = |calls: &[Call]| -> Vec<Event> {
            let rename = event(0, 100, Call::Rename(1, 1, true, End::Done));
            let others = calls.iter().enumerate();
            let others = others.map(|(at, call)| event(at as u64 * 2 + 1, at as u64 * 2 + 2, *call));
            std::iter::once(rename).chain(others).collect()
        };
        let wrong: &[&[Call]] = &[
            // Seen at neither name, at both, and at the old one after the new one.
            &[Call::Look(0, None), Call::Look(1, None)],
            &[Call::Look(1, Some(1)), Call::Look(0, Some(1))],
            &[Call::Look(1, Some(1)), Call::Look(1, None)],
            // Removed twice, made twice, and removed and there.
            &[Call::Remove(9, true), Call::Remove(9, true)],
            &[Call::Create(7, 3, true), Call::Create(7, 4, true)],
            &[Call::Remove(9, true), Call::Look(5, Some(9))],
            // Replaced without leave, refused without cause, gone though there.
            &[Call::Rename(9, 0, false, End::Done), Call::Look(1, None)],
            &[Call::Rename(9, 8, false, End::Taken)],
            &[Call::Rename(9, 8, true, End::Gone)],
            &[Call::Link(9, 8, End::Taken, 0)],
            &[Call::Link(9, 8, End::Done, 4), Call::Look(8, None)],
        ];
        for calls in wrong {
            assert!(unexplained(&start, &during(calls)).is_some(), "{calls:?} was accepted");
        }
        let right: &[&[Call]] = &[
            &[Call::Look(1, Some(1)), Call::Look(0, None)],
            &[Call::Look(0, Some(1)), Call::Look(1, None), Call::Look(1, Some(1))],
            &[Call::Remove(9, true), Call::Remove(9, false), Call::Look(5, None)],
            &[Call::Rename(9, 8, false, End::Done), Call::Look(5, None), Call::Look(8, Some(9))],
            &[Call::Link(9, 8, End::Done, 4), Call::Remove(9, true), Call::Look(8, Some(4))],
        ];
        for calls in right {
            assert!(unexplained(&start, &during(calls)).is_none(), "{calls:?} was rejected");
        }
    }
}
