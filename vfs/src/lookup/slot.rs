//! A slot: one folded name in one directory, what it is known to mean, and the claim on it.
//!
//! | From | Event | To |
//! |---|---|---|
//! | unknown, free | a reader or claimer comes | claimed: *in lookup*; whoever came is the owner |
//! | unknown, claimed | a reader comes | waits for the answer, or becomes owner if the owner gives up |
//! | known | a reader comes | the value; while a change is in flight that is the value before it |
//! | claimed | a claimer comes | waits in line |
//! | claimed | the owner publishes | the value; readers are answered, the claim goes to the next in line or is free |
//! | claimed | the owner gives up before it changed anything | the value as it was; handed on |
//! | claimed | the owner is lost after its call began | unknown; handed on |
//! | claimed | a foreign change is noted | remembered: nothing is believed, and what is published then is stored as unknown |
//!
//! "In lookup" is no flag of its own: it is *unknown and claimed*. The claim is handed over directly and in line, so
//! that nobody barges in and nobody is woken for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::coherence::Stamp;
use super::evict::{ARC, Siblings};
use super::fifo::{Owner, Queue, Wait, Waiter, Wakes, give_up};
use super::link::Link;
use crate::error::{FsError, Result};
use crate::fold::{Folded, FoldedName};
use crate::name::Name;
use crate::node::NodeId;
use crate::rank::{Held, Level, Rank, wait_for};
use crate::sync::{Defect, Mutex, MutexGuard, defect, lock_beside, mutex};

/// What a name means.
pub(crate) enum Value<F> {
    /// Nobody knows.
    Unknown,
    /// Nothing. It has no spelling: whoever creates the name spells it.
    Negative,
    /// One object.
    Positive(Arc<Link<F>>),
    /// Several spellings on the disk fold alike; at least two, ordered by their bytes.
    Many(Box<[Arc<Link<F>>]>),
}

impl<F> Clone for Value<F> {
    fn clone(&self) -> Self {
        match self {
            Value::Unknown => Value::Unknown,
            Value::Negative => Value::Negative,
            Value::Positive(link) => Value::Positive(Arc::clone(link)),
            Value::Many(links) => Value::Many(links.clone()),
        }
    }
}

impl<F> Value<F> {
    /// The value of a name with these links.
    pub(crate) fn of(mut links: Vec<Arc<Link<F>>>) -> Value<F> {
        match links.len() {
            0 => Value::Negative,
            1 => links.pop().map_or(Value::Negative, Value::Positive),
            _ => {
                links.sort_by_key(|link| link.spelling());
                Value::Many(links.into())
            }
        }
    }

    pub(crate) fn is_known(&self) -> bool {
        !matches!(self, Value::Unknown)
    }

    pub(crate) fn links(&self) -> &[Arc<Link<F>>] {
        match self {
            Value::Unknown | Value::Negative => &[],
            Value::Positive(link) => std::slice::from_ref(link),
            Value::Many(links) => links,
        }
    }

    /// What a client means that spells the name so: the exact spelling, or else the first.
    #[inline]
    pub(crate) fn pick(&self, name: &Name) -> Option<&Arc<Link<F>>> {
        pick(self.links(), name)
    }

    /// The value without `link`. `exact`: the storage holds no other spelling than those known.
    pub(crate) fn without(&self, link: &Arc<Link<F>>, exact: bool) -> Value<F> {
        let rest: Vec<_> = self.links().iter().filter(|other| !Arc::ptr_eq(other, link)).cloned().collect();
        if rest.is_empty() { Value::nothing_left(exact) } else { Value::of(rest) }
    }

    fn nothing_left(exact: bool) -> Value<F> {
        if exact { Value::Negative } else { Value::Unknown }
    }

    /// The value with `link` beside what is there.
    pub(crate) fn with(&self, link: &Arc<Link<F>>) -> Value<F> {
        if self.links().is_empty() {
            return Value::Positive(Arc::clone(link));
        }
        let mut links: Vec<_> =
            self.links().iter().filter(|other| !Arc::ptr_eq(other, link)).cloned().collect();
        links.push(Arc::clone(link));
        Value::of(links)
    }
}

fn pick<'a, F>(links: &'a [Arc<Link<F>>], name: &Name) -> Option<&'a Arc<Link<F>>> {
    match links {
        [] => None,
        [link] => Some(link),
        [first, ..] => {
            Some(links.iter().find(|link| link.spelling().as_ref() == Some(name)).unwrap_or(first))
        }
    }
}

/// What a name means to a client: one link, or none if it is absent.
pub(crate) type Meaning<F> = Option<Arc<Link<F>>>;

/// What one in the line waits for.
#[derive(Clone, Copy)]
pub(crate) enum Want {
    /// The value; `seen` is the number of the claim that was held when the reader came, `stamp` the directory's then.
    Value { seen: u32, stamp: Option<Stamp> },
    /// The claim.
    Claim,
    /// That whoever has the claim now is through.
    Settled,
}

/// What a wait ends with.
pub(crate) enum Grant<F> {
    /// The value as it was published.
    Answer(Result<Value<F>>),
    /// The claim is yours.
    Claim,
    /// The claim that was held is over.
    Settled,
}

/// Which readers an end of a claim answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// All of them, as long as whatever others have changed would have been noted: the late ones only if the directory has
    /// kept its stamp, and nothing was noted.
    All,
    /// Those who had come before the claim was taken: for them, what its owner asked the backend is recent enough.
    Earlier,
    /// None: the next reader asks for itself.
    None,
}

/// What the end of a claim answers.
enum Answer<F> {
    None,
    /// The value that is published, if that is known.
    Published,
    This(Result<Value<F>>),
}

/// A [`Value`] and the claim, laid out so that a slot is small: there are as many as names.
struct Inner<F> {
    /// What a positive value means.
    link: Option<Arc<Link<F>>>,
    /// What few slots have.
    rest: Option<Box<Rest<F>>>,
    /// The stamp that the directory had before the storage was asked for the value.
    stamp: Stamp,
    /// The value is not unknown.
    known: bool,
    /// Other spellings were not looked for.
    partial: bool,
    claimed: bool,
    /// A foreign change was noted while the slot was claimed.
    recheck: bool,
}

struct Rest<F> {
    /// The links of a value that has several; none of any other.
    many: Box<[Arc<Link<F>>]>,
    /// The number of the claim: it goes up with each, as long as anybody waits.
    episode: u32,
    /// Allocated when somebody first has to wait.
    queue: Option<Box<Queue<Want, Grant<F>>>>,
}

impl<F> Default for Rest<F> {
    fn default() -> Self {
        Rest { many: Box::default(), episode: 0, queue: None }
    }
}

impl<F> Inner<F> {
    fn many(&self) -> &[Arc<Link<F>>] {
        self.rest.as_ref().map_or(&[], |rest| &rest.many)
    }

    fn links(&self) -> &[Arc<Link<F>>] {
        match &self.link {
            Some(link) => std::slice::from_ref(link),
            None => self.many(),
        }
    }

    /// [`Value::pick`] of the value.
    #[inline]
    fn pick(&self, name: &Name) -> Option<&Arc<Link<F>>> {
        match (&self.link, &self.rest) {
            (Some(link), _) => Some(link),
            (None, Some(rest)) => pick(&rest.many, name),
            (None, None) => None,
        }
    }

    fn value(&self) -> Value<F> {
        match (&self.link, self.many()) {
            _ if !self.known => Value::Unknown,
            (Some(link), _) => Value::Positive(Arc::clone(link)),
            (None, []) => Value::Negative,
            (None, many) => Value::Many(many.into()),
        }
    }

    /// Stores a value of `slot`. What was stored before comes back, to be dropped outside the lock: it may be the last
    /// to hold its node.
    #[must_use]
    fn store(&mut self, slot: &Slot<F>, value: Value<F>) -> Value<F> {
        let many = match &mut self.rest {
            Some(rest) => std::mem::take(&mut rest.many),
            None => Box::default(),
        };
        let known = std::mem::replace(&mut self.known, value.is_known());
        let old = match self.link.take() {
            _ if !known => Value::Unknown,
            Some(link) => Value::Positive(link),
            None if many.is_empty() => Value::Negative,
            None => Value::Many(many),
        };
        match (old.links().is_empty(), value.links().is_empty()) {
            (true, false) => slot.dir.is_present(slot.bytes()),
            (false, true) => slot.dir.is_absent(slot.bytes()),
            (true, true) | (false, false) => {}
        }
        match value {
            Value::Unknown | Value::Negative => {}
            Value::Positive(link) => self.link = Some(link),
            Value::Many(links) => self.rest.get_or_insert_default().many = links,
        }
        self.trim();
        old
    }

    fn queue(&mut self) -> Option<&mut Queue<Want, Grant<F>>> {
        self.rest.as_mut().and_then(|rest| rest.queue.as_deref_mut())
    }

    /// Lets go of what is not needed any more.
    fn trim(&mut self) {
        let Some(rest) = &mut self.rest else { return };
        if rest.queue.as_ref().is_some_and(|queue| queue.is_empty()) {
            rest.queue = None;
        }
        if rest.queue.is_none() && rest.many.is_empty() {
            self.rest = None;
        }
    }
}

/// One folded name in one directory.
pub(crate) struct Slot<F> {
    pub(crate) dir: Arc<Siblings>,
    pub(crate) fold: FoldedName,
    /// Somebody asked for it again since the evictor last came by. Once does not count: who looks for a million names
    /// does not drive out those that are in use.
    used: AtomicBool,
    inner: Mutex<Inner<F>>,
}

impl<F> std::fmt::Debug for Slot<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} in {:?}", self.fold, self.dir.id)
    }
}

/// What a reader gets.
pub(crate) enum Access<F> {
    Value(Value<F>),
    Claim(Claim<F>),
}

impl<F> Slot<F> {
    pub(crate) fn new(dir: &Arc<Siblings>, fold: FoldedName) -> Slot<F> {
        let inner = Inner {
            link: None,
            rest: None,
            stamp: Stamp::default(),
            known: false,
            partial: false,
            claimed: false,
            recheck: false,
        };
        Slot { dir: Arc::clone(dir), fold, used: AtomicBool::new(false), inner: mutex(Level::Slot, inner) }
    }

    /// Whether it is the slot of this name.
    #[inline]
    pub(crate) fn is(&self, dir: &Siblings, fold: &Folded) -> bool {
        std::ptr::eq(&*self.dir, dir) && fold.is(&self.fold)
    }

    /// What slots are ordered by.
    pub(crate) fn key(&self) -> (NodeId, &FoldedName) {
        (self.dir.id, &self.fold)
    }

    /// The memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        ARC + size_of::<Self>() + self.fold.packed().heap_bytes()
    }

    /// Tells the evictor that the slot is of use. Stores only if that is news, so as not to dirty the line.
    #[inline]
    pub(crate) fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// What `name` means, by what is stored and believed: what was learnt under the directory's present stamp, `stamp`.
    #[inline]
    pub(crate) fn believed(&self, name: &Name, stamp: Stamp) -> Option<Meaning<F>> {
        let inner = self.inner.lock();
        if !inner.is_believed(Some(stamp)) {
            return None;
        }
        let picked = inner.pick(name);
        if inner.partial && picked.is_none_or(|link| link.spelling().as_ref() != Some(name)) {
            return None;
        }
        Some(picked.cloned())
    }

    /// The value as it is now, and whether somebody has the claim.
    pub(crate) fn peek(&self) -> (Value<F>, bool) {
        let inner = self.inner.lock();
        (inner.value(), inner.claimed)
    }

    pub(crate) fn is_believed(&self, stamp: Option<Stamp>) -> bool {
        self.inner.lock().is_believed(stamp)
    }

    pub(crate) fn is_claimed(&self) -> bool {
        self.inner.lock().claimed
    }

    /// For the evictor, who has the slot to itself: what its name means.
    pub(super) fn links(&mut self) -> &[Arc<Link<F>>] {
        self.inner.get_mut().links()
    }

    /// For the evictor: whether anything is known of the name.
    pub(super) fn is_known(&mut self) -> bool {
        self.inner.get_mut().known
    }

    /// For the evictor: whether the name is absent, or nothing is known of it.
    pub(super) fn is_absent(&mut self) -> bool {
        self.links().is_empty()
    }

    /// For the evictor: whether somebody asked for the slot again since this was last called.
    pub(super) fn take_used(&mut self) -> bool {
        std::mem::take(self.used.get_mut())
    }

    /// For the evictor: whether a link of the name is in use, so that the slot had better stay.
    pub(super) fn is_open(&mut self) -> bool {
        self.links().iter().any(|link| Arc::strong_count(link) > 1)
    }

    /// The value may have been changed by somebody else: it is forgotten, or will be when it is published. What was
    /// stored comes back, to be dropped outside all locks: it may be the last to hold its node.
    #[must_use]
    pub(crate) fn suspect(&self) -> Option<Value<F>> {
        let mut inner = self.inner.lock();
        if inner.claimed {
            inner.recheck = true;
            return None;
        }
        Some(inner.store(self, Value::Unknown))
    }

    /// The claim, waiting in line.
    pub(crate) async fn claim(self: &Arc<Slot<F>>) -> Claim<F> {
        let held = self.wait_for();
        let waiter = {
            let mut inner = self.inner.lock();
            if self.try_claim(&mut inner) {
                return self.granted(held, &inner);
            }
            inner.push(Want::Claim)
        };
        match Wait::new(Arc::clone(self), waiter).await {
            Grant::Claim => self.handed_on(held),
            Grant::Answer(_) | Grant::Settled => unreachable!("a claimer gets the claim"),
        }
    }

    /// The known value, or else the claim with which to find it out; the answer of whoever is finding it out now is
    /// waited for. What was learnt under `stamp`, the directory's present one, is as good as what the backend would say.
    pub(crate) async fn value_or_claim(self: &Arc<Slot<F>>, stamp: Option<Stamp>) -> Result<Access<F>> {
        let held = self.wait_for();
        let waiter = {
            let mut inner = self.inner.lock();
            if inner.is_believed(stamp) && !inner.partial {
                return Ok(Access::Value(inner.value()));
            }
            if self.try_claim(&mut inner) {
                return Ok(Access::Claim(self.granted(held, &inner)));
            }
            let seen = inner.episode();
            inner.push(Want::Value { seen, stamp })
        };
        match Wait::new(Arc::clone(self), waiter).await {
            Grant::Answer(_) if defect(Defect::ValueAtPoll) => Ok(Access::Value(self.peek().0)),
            Grant::Answer(answer) => answer.map(Access::Value),
            Grant::Claim => Ok(Access::Claim(self.handed_on(held))),
            Grant::Settled => unreachable!("a reader gets a value or the claim"),
        }
    }

    /// Waits until whoever has the claim now is through with it.
    pub(crate) async fn settled(self: &Arc<Slot<F>>) {
        let _held = self.wait_for();
        let waiter = {
            let mut inner = self.inner.lock();
            if !inner.claimed {
                return;
            }
            inner.push(Want::Settled)
        };
        Wait::new(Arc::clone(self), waiter).await;
    }

    fn wait_for(&self) -> Held {
        wait_for(|| Rank::Claim(self.dir.id, self.fold.clone()))
    }

    fn try_claim(&self, inner: &mut Inner<F>) -> bool {
        if inner.claimed {
            return false;
        }
        debug_assert!(inner.queue().is_none_or(|queue| queue.is_empty()), "a free slot has no waiters");
        inner.claimed = true;
        true
    }

    fn handed_on(self: &Arc<Slot<F>>, held: Held) -> Claim<F> {
        self.granted(held, &self.inner.lock())
    }

    fn granted(self: &Arc<Slot<F>>, held: Held, inner: &Inner<F>) -> Claim<F> {
        Claim {
            slot: Arc::clone(self),
            stamp: None,
            known: inner.known,
            partial: inner.partial,
            changing: false,
            done: false,
            _held: held,
        }
    }
}

/// Under which stamp something was learnt, and whether other spellings are known with it.
type Learnt = (Option<Stamp>, bool);

impl<F> Inner<F> {
    /// Whether the value is known, and as good as what the backend would say.
    #[inline]
    fn is_believed(&self, stamp: Option<Stamp>) -> bool {
        self.known && Some(self.stamp) == stamp && !self.recheck
    }

    fn push(&mut self, want: Want) -> Arc<Waiter<Grant<F>>> {
        let rest = self.rest.get_or_insert_default();
        rest.queue.get_or_insert_with(|| Box::new(Queue::new())).push(want)
    }

    fn episode(&self) -> u32 {
        self.rest.as_ref().map_or(0, |rest| rest.episode)
    }

    /// The claim is over, and neither the value nor anybody else has to hear of that. False: [`Inner::release`] is needed.
    #[inline]
    fn end_quietly(&mut self) -> bool {
        let is_quiet = self.rest.is_none() && !self.recheck;
        if is_quiet {
            self.claimed = false;
        }
        is_quiet
    }

    /// The claim is over: stores `value` if there is one, answers, and hands the claim on.
    fn release(
        &mut self,
        slot: &Slot<F>,
        value: Option<Value<F>>,
        (stamp, partial): Learnt,
        answer: Answer<F>,
        answers: Answers,
        wakes: &mut Wakes,
    ) -> Leftovers<F> {
        debug_assert!(self.claimed, "released without a claim");
        let answer = match answer {
            Answer::This(answer) => Some(answer),
            // If nobody waits nothing is told.
            Answer::Published if self.rest.is_some() => value.clone().filter(Value::is_known).map(Ok),
            Answer::Published | Answer::None => None,
        };
        let recheck = std::mem::take(&mut self.recheck) && !defect(Defect::IgnoresRecheck);
        let (value, unused) = if recheck { (Some(Value::Unknown), value) } else { (value, None) };
        if value.is_some() {
            (self.stamp, self.partial) = (stamp.unwrap_or_default(), partial);
        }
        let stored_before = value.map(|value| self.store(slot, value));
        let leftovers =
            |answer| Leftovers { _stored_before: stored_before, _unused: unused, _answer: answer };
        let episode = self.episode();
        let Some(queue) = self.queue() else {
            self.claimed = false;
            return leftovers(answer);
        };
        if let Some(answer) = &answer {
            queue.take_all(
                |want| match want {
                    // An error is told once, whoever asks.
                    Want::Value { .. } if answer.is_err() => true,
                    Want::Value { seen, stamp: at } => match answers {
                        Answers::All | Answers::Earlier if seen != episode => true,
                        Answers::All if !recheck && at.is_some() && at == stamp => true,
                        Answers::All | Answers::Earlier => defect(Defect::AnswersLateComers),
                        Answers::None => false,
                    },
                    _ => false,
                },
                |_, waiter| wakes.push(waiter.grant(Grant::Answer(answer.clone()))),
            );
        }
        self.hand_on(wakes);
        leftovers(answer)
    }

    /// Gives the claim, which nobody has any more, to the first in line, and tells those who wait for nothing but its end.
    fn hand_on(&mut self, wakes: &mut Wakes) {
        self.claimed = false;
        let Some(rest) = self.rest.as_mut() else { return };
        if defect(Defect::NoHandOff) {
            return;
        }
        let first = rest.queue.as_mut().and_then(|queue| {
            // Also where who had been handed it has given up: he was the last to come between them and its end.
            queue.take_all(
                |want| matches!(want, Want::Settled),
                |_, waiter| wakes.push(waiter.grant(Grant::Settled)),
            );
            queue.pop()
        });
        if let Some(next) = first {
            rest.episode = rest.episode.wrapping_add(1);
            self.claimed = true;
            wakes.push(next.grant(Grant::Claim));
        }
        self.trim();
    }
}

impl<F> Owner for Slot<F> {
    type Grant = Grant<F>;

    fn leave(&self, waiter: &Waiter<Grant<F>>) {
        let mut wakes = Wakes::default();
        let mut inner = self.inner.lock();
        let grant = give_up(&mut inner.rest.get_or_insert_default().queue, waiter);
        inner.trim();
        if matches!(grant, Some(Grant::Claim)) {
            inner.hand_on(&mut wakes);
        }
        drop(inner);
        wakes.wake();
        // An answer that nobody took: it may be the last to hold its node.
        drop(grant);
    }
}

/// The exclusive right to change what a name means, or to find it out. It belongs to the task that does so.
///
/// Dropped without a word it leaves the value as it was; after [`Claim::begin`] it leaves it unknown.
pub(crate) struct Claim<F> {
    slot: Arc<Slot<F>>,
    /// The stamp under which its owner asks the storage.
    stamp: Option<Stamp>,
    /// Something is stored; nobody but its owner stores anything.
    known: bool,
    /// What he publishes does not say what other spellings there are.
    partial: bool,
    changing: bool,
    done: bool,
    _held: Held,
}

impl<F> Claim<F> {
    /// The folded name.
    pub(crate) fn fold(&self) -> &FoldedName {
        &self.slot.fold
    }

    /// What is claimed.
    pub(crate) fn slot(&self) -> &Arc<Slot<F>> {
        &self.slot
    }

    /// What is learnt and published from now on is learnt under `stamp`, the directory's at this moment.
    pub(crate) fn since(&mut self, stamp: Option<Stamp>) {
        self.stamp = stamp;
    }

    /// The stamp of [`Claim::since`].
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// Whether all spellings were looked for that what is published tells of.
    pub(crate) fn set_partial(&mut self, partial: bool) {
        self.partial = partial;
    }

    /// The value, if it is believed; with `all`, only if it tells of all spellings.
    pub(crate) fn believed(&self, all: bool) -> Option<Value<F>> {
        if !self.known {
            return None;
        }
        let inner = self.slot.inner.lock();
        (inner.is_believed(self.stamp) && !(all && inner.partial)).then(|| inner.value())
    }

    /// Whether the value is believed, and `link` a part of it.
    pub(crate) fn is_believed_to_mean(&self, link: &Arc<Link<F>>) -> bool {
        let inner = self.slot.inner.lock();
        inner.is_believed(self.stamp) && inner.links().iter().any(|known| Arc::ptr_eq(known, link))
    }

    /// The value; nobody else publishes another while the claim is held.
    pub(crate) fn value(&self) -> Value<F> {
        self.slot.inner.lock().value()
    }

    /// The value without `link`. `exact`: the storage holds no other spelling than those known, as it is if they were all
    /// looked for.
    pub(crate) fn value_without(&self, link: &Arc<Link<F>>, exact: bool) -> Value<F> {
        let inner = self.slot.inner.lock();
        let exact = exact || inner.is_believed(self.stamp) && !inner.partial;
        match inner.links() {
            [only] if Arc::ptr_eq(only, link) => Value::nothing_left(exact),
            _ => inner.value().without(link, exact),
        }
    }

    /// The backend is about to change the name: from here on only [`Claim::publish`] leaves a known value.
    pub(crate) fn begin(&mut self) {
        self.changing = !defect(Defect::KeepsAfterUnknown);
    }

    /// Stores what was found out while the claim goes on.
    pub(crate) fn learn(&mut self, value: Value<F>) {
        self.known = value.is_known();
        let mut inner = self.slot.inner.lock();
        (inner.stamp, inner.partial) = (self.stamp.unwrap_or_default(), self.partial);
        let old = inner.store(&self.slot, value);
        drop(inner);
        drop(old);
    }

    fn learnt(&self) -> Learnt {
        (self.stamp, self.partial)
    }

    /// Whom the end of a change answers.
    pub(crate) fn answers(&self) -> Answers {
        if self.stamp.is_some() { Answers::All } else { Answers::None }
    }

    /// The end: stores `value`, which was learnt or made, and tells it to the waiting readers.
    pub(crate) fn publish(self, value: Value<F>) {
        let answers = self.answers();
        self.release(Some(value), Answer::Published, answers);
    }

    /// The end of a lookup whose answer holds for those who wait, and not for later.
    pub(crate) fn answer(self, stored: Value<F>, answer: Value<F>, answers: Answers) {
        self.release(Some(stored), Answer::This(Ok(answer)), answers);
    }

    /// The end of a lookup that failed: the waiting readers get the error; it is not stored.
    pub(crate) fn fail(self, error: FsError) {
        let stored = defect(Defect::ErrorIsAbsence).then_some(Value::Negative);
        self.release(stored, Answer::This(Err(error)), Answers::All);
    }

    /// The end, with nothing changed and nothing found out.
    pub(crate) fn abort(mut self) {
        self.changing = false;
    }

    fn release(mut self, value: Option<Value<F>>, answer: Answer<F>, answers: Answers) {
        self.done = true;
        let mut wakes = Wakes::default();
        let leftovers =
            self.slot.inner.lock().release(&self.slot, value, self.learnt(), answer, answers, &mut wakes);
        wakes.wake();
        drop(leftovers);
    }

    /// Ends two claims at one instant: nobody sees the one name changed and the other not.
    pub(crate) fn publish_two(
        (mut a, a_value): (Claim<F>, Value<F>),
        (mut b, b_value): (Claim<F>, Value<F>),
    ) {
        let (a_answers, b_answers) = (a.answers(), b.answers());
        a.done = true;
        b.done = true;
        let mut wakes = Wakes::default();
        let (mut a_inner, mut b_inner) = lock_two(&a.slot, &b.slot);
        let a_old =
            a_inner.release(&a.slot, Some(a_value), a.learnt(), Answer::Published, a_answers, &mut wakes);
        let b_old =
            b_inner.release(&b.slot, Some(b_value), b.learnt(), Answer::Published, b_answers, &mut wakes);
        drop((a_inner, b_inner));
        wakes.wake();
        drop((a_old, b_old));
    }
}

/// What the end of a claim leaves over. It is dropped outside the slot's lock: it may be the last of its node.
#[must_use]
struct Leftovers<F> {
    _stored_before: Option<Value<F>>,
    /// Published, and not stored.
    _unused: Option<Value<F>>,
    _answer: Option<Result<Value<F>>>,
}

/// Locks both in the order of their keys.
fn lock_two<'a, F>(a: &'a Slot<F>, b: &'a Slot<F>) -> (MutexGuard<'a, Inner<F>>, MutexGuard<'a, Inner<F>>) {
    debug_assert!(a.key() != b.key(), "one slot, locked twice");
    if a.key() < b.key() {
        let first = a.inner.lock();
        (first, lock_beside(&b.inner))
    } else {
        let first = b.inner.lock();
        (lock_beside(&a.inner), first)
    }
}

impl<F> Drop for Claim<F> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut inner = self.slot.inner.lock();
        if !self.changing && inner.end_quietly() {
            return;
        }
        let mut wakes = Wakes::default();
        let value = self.changing.then_some(Value::Unknown);
        let leftovers =
            inner.release(&self.slot, value, self.learnt(), Answer::None, Answers::None, &mut wakes);
        drop(inner);
        wakes.wake();
        drop(leftovers);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use super::*;
    use crate::fold::Fold;
    use crate::lookup::evict::Budget;

    async fn is_waiting<F: Future>(mut future: Pin<&mut F>) -> bool {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn who_waits_for_the_end_is_told_by_one_who_gave_up() {
        let fold = Fold::Insensitive.fold(&Name::from_str("x").expect("a name"));
        let siblings = Siblings::new(NodeId(1), &Budget::new(usize::MAX, usize::MAX));
        let slot = Arc::new(Slot::<()>::new(&siblings, fold));
        let first = slot.claim().await;
        let mut settled = pin!(slot.settled());
        {
            let mut second = pin!(slot.claim());
            assert!(is_waiting(second.as_mut()).await);
            // The second is handed the claim and does not look at it any more.
            drop(first);
            assert!(is_waiting(settled.as_mut()).await);
        }
        assert!(!is_waiting(settled.as_mut()).await, "nobody has the claim, and one waits for its end");
        drop(slot.claim().await);
    }
}
