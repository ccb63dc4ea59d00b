//! Watches of a directory: what CHANGE_NOTIFY waits for. MS-SMB2 3.3.5.19, MS-FSA 2.1.5.11.
//!
//! A watch belongs to an open and lives in the state of its directory's node. It begins with the open's first
//! CHANGE_NOTIFY, whose filter and WATCH_TREE hold from then on, and gathers events between requests, up to a bound: beyond
//! it the events are let go and the client is told to look for itself (STATUS_NOTIFY_ENUM_DIR).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::sync::Arc;

use shoal_protocol::fscc::notify::{NotifyAction, NotifyFilter};
use shoal_vfs::{Link, Name, Node};

use super::file::NodeState;
use super::turn::{Turn, Wake, turn};

/// One change, named relative to the directory that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub action: NotifyAction,
    /// To whom: components joined by `\`.
    pub name: Vec<u16>,
}

impl Event {
    /// Its size in a FILE_NOTIFY_INFORMATION buffer (MS-FSCC 2.7.1), padding included.
    fn encoded_len(&self) -> usize {
        (12 + 2 * self.name.len()).next_multiple_of(4)
    }
}

/// What [`Watches::poll`] has for a request.
#[derive(Debug)]
pub enum Answer {
    /// These happened since the last answer.
    Changes(Vec<Event>),
    /// More happened than the request, or the server, has room for.
    Overflow,
    /// The directory is to be deleted.
    Deleted,
    /// Nothing yet: wait for the turn, then ask again.
    Wait(Turn),
}

#[derive(Debug)]
struct Watch {
    owner: u64,
    filter: NotifyFilter,
    tree: bool,
    /// Most bytes of events kept.
    limit: usize,
    events: Vec<Event>,
    bytes: usize,
    overflow: bool,
    deleted: bool,
    waiting: VecDeque<Wake>,
}

impl Watch {
    fn push(&mut self, event: &Event) {
        // A file that is written to a thousand times between two requests changed once.
        if self.overflow || self.events.last() == Some(event) {
            return;
        }
        self.bytes += event.encoded_len();
        if self.bytes > self.limit {
            self.overflow = true;
            self.forget();
        } else {
            self.events.push(event.clone());
        }
    }

    fn forget(&mut self) {
        self.events = Vec::new();
        self.bytes = 0;
    }

    /// The first request that still waits.
    fn next_wake(&mut self) -> Option<Wake> {
        while let Some(wake) = self.waiting.pop_front() {
            if !wake.is_abandoned() {
                return Some(wake);
            }
        }
        None
    }
}

/// The watches of one directory.
#[derive(Debug, Default)]
pub struct Watches {
    watches: Vec<Watch>,
}

impl Watches {
    /// Whether nobody watches.
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// Whether `owner` has a watch already.
    pub fn contains(&self, owner: u64) -> bool {
        self.watches.iter().any(|watch| watch.owner == owner)
    }

    /// Begins a watch, unless the owner has one.
    pub fn begin(&mut self, owner: u64, filter: NotifyFilter, tree: bool, limit: usize) {
        if !self.contains(owner) {
            self.watches.push(Watch {
                owner,
                filter,
                tree,
                limit,
                events: Vec::new(),
                bytes: 0,
                overflow: false,
                deleted: false,
                waiting: VecDeque::new(),
            });
        }
    }

    /// What has happened for `owner`, in at most `room` bytes. `None`: it has no watch (it has been closed).
    pub fn poll(&mut self, owner: u64, room: usize) -> Option<Answer> {
        let watch = self.watches.iter_mut().find(|watch| watch.owner == owner)?;
        if watch.deleted {
            return Some(Answer::Deleted);
        }
        if watch.overflow || watch.bytes > room {
            watch.overflow = false;
            watch.forget();
            return Some(Answer::Overflow);
        }
        if !watch.events.is_empty() {
            watch.bytes = 0;
            return Some(Answer::Changes(std::mem::take(&mut watch.events)));
        }
        watch.waiting.retain(|wake| !wake.is_abandoned());
        let (turn, wake) = turn();
        watch.waiting.push_back(wake);
        Some(Answer::Wait(turn))
    }

    /// Notes a change `depth` directories below this one (0: in it). What is returned has something to read.
    pub fn note(&mut self, events: &[Event], filter: NotifyFilter, depth: usize) -> Vec<Wake> {
        let mut wakes = Vec::new();
        for watch in &mut self.watches {
            if (depth > 0 && !watch.tree) || !watch.filter.intersects(filter) {
                continue;
            }
            for event in events {
                watch.push(event);
            }
            wakes.extend(watch.next_wake());
        }
        wakes
    }

    /// The directory will be deleted: every request learns of it.
    pub fn delete_pending(&mut self) -> Vec<Wake> {
        let mut wakes = Vec::new();
        for watch in &mut self.watches {
            watch.deleted = true;
            wakes.extend(watch.waiting.drain(..));
        }
        wakes
    }

    /// The directory will not be deleted after all.
    pub fn delete_withdrawn(&mut self) {
        for watch in &mut self.watches {
            watch.deleted = false;
        }
    }

    /// The owner is closed. `Some(tree)` if it had a watch; its requests find out when the wakes are let go.
    pub fn end(&mut self, owner: u64) -> Option<(bool, Vec<Wake>)> {
        let at = self.watches.iter().position(|watch| watch.owner == owner)?;
        let watch = self.watches.swap_remove(at);
        Some((watch.tree, watch.waiting.into()))
    }
}

/// How many watches a server has, so that a change which nobody watches costs one load.
#[derive(Debug, Default)]
pub struct Watching {
    all: AtomicUsize,
    trees: AtomicUsize,
}

impl Watching {
    /// A watch begins.
    pub fn begin(&self, tree: bool) {
        self.all.fetch_add(1, Ordering::SeqCst);
        if tree {
            self.trees.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A watch ends.
    pub fn end(&self, tree: bool) {
        self.all.fetch_sub(1, Ordering::SeqCst);
        if tree {
            self.trees.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether anybody watches anything.
    pub fn any(&self) -> bool {
        self.all.load(Ordering::SeqCst) != 0
    }

    /// Whether anybody watches a whole tree.
    pub fn any_tree(&self) -> bool {
        self.trees.load(Ordering::SeqCst) != 0
    }

    /// Tells whoever watches `dir`, or a tree that it is in, what happened to names in it, one after the other.
    pub fn announce(
        &self,
        dir: &Arc<Node<NodeState>>,
        changes: &[(NotifyAction, &Name)],
        filter: NotifyFilter,
    ) {
        if !self.any() {
            return;
        }
        let mut events: Vec<Event> =
            changes.iter().map(|(action, name)| Event { action: *action, name: name.to_utf16() }).collect();
        let mut dir = dir.clone();
        let mut depth = 0;
        loop {
            let wakes = match dir.opens().watches() {
                Some(watches) => watches.note(&events, filter, depth),
                None => Vec::new(),
            };
            drop(wakes);
            if !self.any_tree() {
                return;
            }
            let Some((above, name)) = dir.place() else { return };
            let mut prefix = name.to_utf16();
            prefix.push(u16::from(b'\\'));
            for event in &mut events {
                event.name.splice(0..0, prefix.iter().copied());
            }
            dir = above;
            depth += 1;
        }
    }

    /// Tells whoever watches that something of the object behind `link` changed.
    pub fn announce_changed(&self, link: &Link<NodeState>, filter: NotifyFilter) {
        if self.any()
            && let Some((dir, name)) = link.place()
        {
            self.announce(&dir, &[(NotifyAction::Modified, &name)], filter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    const ROOM: usize = 1000;

    fn event(name: &str) -> Event {
        Event { action: NotifyAction::Added, name: name.encode_utf16().collect() }
    }

    fn names(answer: Option<Answer>) -> Vec<String> {
        match answer {
            Some(Answer::Changes(events)) => {
                events.iter().map(|event| String::from_utf16_lossy(&event.name)).collect()
            }
            other => panic!("no changes but {other:?}"),
        }
    }

    #[test]
    fn events_wait_for_requests_and_requests_for_events() {
        let mut watches = Watches::default();
        watches.begin(1, NotifyFilter::FILE_NAME, false, ROOM);
        assert!(watches.note(&[event("a")], NotifyFilter::FILE_NAME, 0).is_empty());
        assert_eq!(names(watches.poll(1, ROOM)), ["a"]);
        let Some(Answer::Wait(turn)) = watches.poll(1, ROOM) else { panic!() };
        let mut turn = pin!(turn);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(turn.as_mut().poll(&mut cx).is_pending());
        drop(watches.note(&[event("b")], NotifyFilter::FILE_NAME, 0));
        assert!(turn.as_mut().poll(&mut cx).is_ready());
        assert_eq!(names(watches.poll(1, ROOM)), ["b"]);
    }

    #[test]
    fn filter_and_depth() {
        let table = [
            (NotifyFilter::FILE_NAME, false, NotifyFilter::FILE_NAME, 0, true),
            (NotifyFilter::FILE_NAME, false, NotifyFilter::DIR_NAME, 0, false),
            (NotifyFilter::FILE_NAME, false, NotifyFilter::FILE_NAME, 1, false),
            (NotifyFilter::FILE_NAME, true, NotifyFilter::FILE_NAME, 3, true),
            (NotifyFilter::FILE_NAME | NotifyFilter::SIZE, true, NotifyFilter::SIZE, 0, true),
        ];
        for (wanted, tree, happened, depth, seen) in table {
            let mut watches = Watches::default();
            watches.begin(1, wanted, tree, ROOM);
            watches.note(&[event("a")], happened, depth);
            let changes = matches!(watches.poll(1, ROOM), Some(Answer::Changes(_)));
            assert_eq!(changes, seen, "{wanted:?} {tree} {happened:?} {depth}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_overflow_once() {
        let mut watches = Watches::default();
        watches.begin(1, NotifyFilter::FILE_NAME, false, 40);
        for name in ["a", "b", "c", "d"] {
            watches.note(&[event(name)], NotifyFilter::FILE_NAME, 0);
        }
        assert!(matches!(watches.poll(1, ROOM), Some(Answer::Overflow)));
        assert!(matches!(watches.poll(1, ROOM), Some(Answer::Wait(_))));
        watches.note(&[event("e")], NotifyFilter::FILE_NAME, 0);
        assert!(matches!(watches.poll(1, 8), Some(Answer::Overflow)), "no room in the request");
    }

    #[test]
    fn deletion_and_close() {
        let mut watches = Watches::default();
        watches.begin(1, NotifyFilter::FILE_NAME, true, ROOM);
        let Some(Answer::Wait(_turn)) = watches.poll(1, ROOM) else { panic!() };
        assert_eq!(watches.delete_pending().len(), 1);
        assert!(matches!(watches.poll(1, ROOM), Some(Answer::Deleted)));
        watches.delete_withdrawn();
        let Some(Answer::Wait(_turn)) = watches.poll(1, ROOM) else { panic!() };
        assert!(matches!(watches.end(1), Some((true, wakes)) if wakes.len() == 1));
        assert!(watches.poll(1, ROOM).is_none());
        assert!(watches.end(1).is_none() && watches.is_empty());
    }

    #[test]
    fn the_same_change_again_is_one() {
        let mut watches = Watches::default();
        watches.begin(1, NotifyFilter::SIZE, false, ROOM);
        for _ in 0..3 {
            watches.note(&[event("a")], NotifyFilter::SIZE, 0);
        }
        assert_eq!(names(watches.poll(1, ROOM)), ["a"]);
    }
}
