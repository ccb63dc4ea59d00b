//! Every call of the storage that an operation makes, failed in turn, in each way in which a call can fail: before its
//! effect and after it, with an error and with a bug. Whatever the caller is told, nothing stays claimed, and the cache
//! says what the storage has.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use shoal_vfs::faulty::{Fault, Faulty};
use shoal_vfs::latency::Latency;
use shoal_vfs::*;
use tokio::time::timeout;

use crate::cancel::{ALL, Bed, NAMES, On, What, is_done_or_was};
use crate::client::{calm, check, hush, name};

/// The ways to fail: what a call does, and what the next ones do.
const WAYS: [&[Fault]; 6] = [
    &[Fault::Io],
    &[Fault::UnknownDone],
    &[Fault::Panic],
    &[Fault::PanicDone],
    // The storage stays away for a while after it has lost an answer.
    &[Fault::UnknownDone, Fault::Io, Fault::Io, Fault::Io],
    &[Fault::PanicDone, Fault::Panic, Fault::Panic, Fault::Panic],
];

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);

/// What lies below, and whether a client has handles of all that is there, so that the cache knows it.
#[derive(Clone, Copy)]
struct Place {
    on: On,
    delay: Option<Duration>,
    held: bool,
}

/// A tree on a storage whose calls may fail.
struct Trial {
    bed: Bed,
    faulty: Arc<Faulty>,
    handles: Vec<Arc<Link<u32>>>,
    case: String,
}

impl Trial {
    async fn new(place: Place, case: String) -> Trial {
        let made = Mutex::new(None);
        let bed = Bed::behind(place.on, |backend| {
            let backend = match place.delay {
                Some(delay) => Arc::new(Latency::new(backend, delay)),
                None => backend,
            };
            let faulty = Faulty::new(backend, 1);
            *made.lock().expect("is free") = Some(Arc::clone(&faulty));
            faulty
        });
        let bed = bed.await;
        let faulty = made.lock().expect("is free").take().expect("was made");
        let mut handles = Vec::new();
        if place.held {
            for path in ["file", "other", "dir", "dir/inner", "full", "full/inner", "empty"] {
                handles.push(bed.look(path).await.expect("is there"));
            }
        }
        Trial { bed, faulty, handles, case }
    }

    async fn in_time<T>(&self, future: impl Future<Output = T>) -> T {
        timeout(LONG, future).await.unwrap_or_else(|_| panic!("{}: somebody waits for ever", self.case))
    }

    /// Runs it with these faults, and waits until all that it has begun has ended. The answer is how it ended.
    async fn run(&self, what: What, faults: &[(usize, Fault)]) -> Result<()> {
        self.faulty.count(faults);
        let end = self.in_time(calm(self.bed.run(what))).await;
        self.in_time(self.bed.vfs.quiesce()).await;
        end
    }

    /// Nothing is claimed, each name in any case is what the storage has, and another cache finds the same.
    async fn is_right(&self) {
        let names = NAMES.map(name);
        self.in_time(check(&self.bed.vfs, &self.bed.root, &names)).await;
        let fresh = Vfs::new(Options::default());
        let root = fresh.mount(Arc::clone(&self.bed.storage), Fold::Insensitive).await.expect("mounts");
        self.in_time(check(&fresh, &root, &names)).await;
    }

    /// Each object can be opened by each of its names: no mark of a change is left.
    async fn is_open_to_all(&self) {
        for text in NAMES {
            let Ok(link) = self.in_time(self.bed.look(text)).await else { continue };
            self.in_time(self.bed.vfs.open(&link, OpenHow::default())).await.expect("opens");
            let mut opens = link.node().opens();
            assert_eq!(opens.attach(&link), Ok(()), "{}: {text}", self.case);
            assert!(!opens.detach(&link), "{}: {text} is to be removed", self.case);
        }
    }

    /// Each handle's object is gone, or is where the handle says.
    async fn handles_are_right(&self) {
        for link in self.handles.iter().filter(|link| !link.is_gone()) {
            let opened = self.in_time(self.bed.vfs.open(link, OpenHow::default())).await;
            assert_eq!(opened.err(), None, "{}: {:?}", self.case, link.name());
        }
    }

    /// All of it, in the end of an operation.
    async fn is_well(&self) {
        self.is_right().await;
        self.is_open_to_all().await;
        self.handles_are_right().await;
    }
}

/// How many calls an operation makes, without a fault.
async fn calls(place: Place, what: What) -> usize {
    let trial = Trial::new(place, format!("{what:?}")).await;
    let end = trial.run(what, &[]).await;
    assert_eq!(end, Ok(()), "{what:?}");
    trial.faulty.calls()
}

async fn every_fault(on: On, delay: Option<Duration>) {
    hush();
    let (mut cases, mut met) = (0, 0);
    for (what, held) in ALL.into_iter().flat_map(|what| [(what, false), (what, true)]) {
        let place = Place { on, delay, held };
        for call in 0..calls(place, what).await {
            for way in WAYS {
                let held = if held { "known" } else { "unknown" };
                let trial = Trial::new(place, format!("{what:?}, {held}, {way:?} at call {call}")).await;
                let faults: Vec<_> = (call..).zip(way.iter().copied()).collect();
                let end = trial.run(what, &faults).await;
                println!("{}: {end:?}", trial.case);
                cases += 1;
                met += usize::from(trial.faulty.failed() > 0);
                trial.faulty.count(&[]);
                trial.is_well().await;
                // Done again, or having been done: the names and gates are free.
                let again = trial.run(what, &[]).await;
                assert!(is_done_or_was(&again), "{}, again: {again:?}", trial.case);
                trial.is_well().await;
            }
        }
    }
    println!("{cases} cases, in {met} of which a call failed");
    assert!(met == cases && cases > 400, "{cases} cases, in {met} of which a call failed");
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_every_verb_in_memory() {
    every_fault(On::Memory { exclusive: true }, None).await;
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_every_verb_where_others_write_too() {
    every_fault(On::Memory { exclusive: false }, None).await;
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_every_verb_on_the_real_file_system() {
    every_fault(On::Disk, None).await;
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_every_verb_over_a_slow_storage() {
    every_fault(On::Memory { exclusive: true }, Some(Duration::from_millis(1))).await;
}
