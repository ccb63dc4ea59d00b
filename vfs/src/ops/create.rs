//! Creating a file or a directory.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::Vfs;
use crate::backend::{BackendFile, CreateHow};
use crate::counters::Count;
use crate::error::{FsError, Result};
use crate::lookup::coherence::CaughtUp;
use crate::lookup::link::{Link, Place};
use crate::lookup::slot::Value;
use crate::metadata::{BackendKey, Kind, Metadata};
use crate::name::Name;
use crate::node::Node;
use crate::opens::Opens;
use crate::ops::run::contained;
use crate::rank::operation;
use crate::sync::{Defect, defect, sleep, spawn};

/// What became of a create.
pub enum Creation<F, T> {
    /// The object was made.
    Created {
        /// Its name.
        link: Arc<Link<F>>,
        /// It is open.
        file: Arc<dyn BackendFile>,
        /// What it is like.
        metadata: Metadata,
        /// What `publish` answered.
        value: T,
    },
    /// The name is taken. Nothing was changed, and `publish` was not called.
    Exists(Arc<Link<F>>),
}

/// How often a name that others keep making and removing is tried.
const TRIES: usize = 16;

/// How often, and after which pause, a storage is asked what has come of a change that it did not answer.
const ASKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(10);

impl<F: Default + Send + 'static> Vfs<F> {
    /// Makes `name` in `dir`, if it is not there in any spelling that the share takes for the same. `publish` runs
    /// under the new node's `opens` before anybody can find the name, so that the creator's open is the first.
    ///
    /// # Errors
    /// `PathNotFound` if `dir` is removed; `Exists` if others keep making the name; what the backend says.
    pub async fn create<T: Send + 'static>(
        self: &Arc<Self>,
        dir: &Arc<Node<F>>,
        name: &Name,
        how: CreateHow,
        publish: impl FnOnce(&Arc<Link<F>>, &mut Opens<'_, F>) -> T + Send + 'static,
    ) -> Result<Creation<F, T>> {
        self.create_within(dir, name, how, publish, &mut CaughtUp::default()).await
    }

    /// [`Vfs::create`] within an operation that has looked the name up.
    ///
    /// # Errors
    /// As there.
    pub async fn create_within<T: Send + 'static>(
        self: &Arc<Self>,
        dir: &Arc<Node<F>>,
        name: &Name,
        how: CreateHow,
        publish: impl FnOnce(&Arc<Link<F>>, &mut Opens<'_, F>) -> T + Send + 'static,
        caught_up: &mut CaughtUp,
    ) -> Result<Creation<F, T>> {
        operation(self.make(dir, name, how, publish, caught_up)).await
    }

    async fn make<T: Send + 'static>(
        self: &Arc<Self>,
        dir: &Arc<Node<F>>,
        name: &Name,
        how: CreateHow,
        publish: impl FnOnce(&Arc<Link<F>>, &mut Opens<'_, F>) -> T + Send + 'static,
        caught_up: &mut CaughtUp,
    ) -> Result<Creation<F, T>> {
        if !matches!(how.kind, Kind::File | Kind::Directory) {
            return Err(FsError::NotSupported);
        }
        let mut publish = publish;
        for _ in 0..TRIES {
            // A name that exists costs no claim.
            if let Some(link) = self.known(dir, name, caught_up).await? {
                return Ok(Creation::Exists(link));
            }
            let mut guard = self.lookup_and_lock(dir, name, self.gate_mode(), caught_up).await?;
            // Most likely it is absent, in every spelling: that is asked for at once.
            let value = self.value(dir, name, &mut guard.claim, true, caught_up).await?;
            if let Some(link) = value.pick(name) {
                let link = Arc::clone(link);
                let (stored, answers) = (guard.claim.value(), guard.claim.answers());
                guard.claim.answer(stored, value, answers);
                return Ok(Creation::Exists(link));
            }
            let (this, dir, name, how) = (Arc::clone(self), Arc::clone(dir), name.clone(), how.clone());
            let outcome = self
                .run(async move {
                    guard.begin();
                    let expected = dir.expect(&name, true);
                    let disk = name.to_disk();
                    let backend = &dir.mount.backend;
                    let outcome = contained(pin!(async { backend.create(&dir.be, &disk, &how).await })).await;
                    match outcome {
                        Ok((info, file)) => {
                            this.count(Count::Creates);
                            if let Some(expected) = expected {
                                expected.came();
                            }
                            dir.index_changed([(guard.claim.fold(), &name, true)]);
                            dir.has_changed();
                            let metadata = info.metadata;
                            let node =
                                this.nodes.make_new(&dir.mount, metadata.key, metadata.kind, info.node);
                            node.index_of_new();
                            let link = node.link_to(Some(Place { dir: Arc::clone(&dir), name }));
                            let mut opens = node.opens();
                            opens.state().add(&link);
                            let value = publish(&link, &mut opens);
                            drop(opens);
                            guard.publish(Value::Positive(Arc::clone(&link)));
                            Ok(Creation::Created { link, file, metadata, value })
                        }
                        Err(error) => {
                            // Before the claim: whatever came of it all the same is then taken for foreign.
                            drop(expected);
                            this.failed(&dir, guard, &error);
                            Err((error, publish))
                        }
                    }
                })
                .await?;
            match outcome {
                Ok(creation) => return Ok(creation),
                // Made by somebody else: the next round finds it.
                Err((FsError::Exists, back)) => {
                    self.count(Count::Retries);
                    caught_up.lose();
                    publish = back;
                }
                // The directory itself went.
                Err((FsError::NotFound | FsError::Stale | FsError::NotADirectory, _)) => {
                    return Err(FsError::PathNotFound);
                }
                Err((error, _)) => return Err(error),
            }
        }
        Err(FsError::Exists)
    }

    /// The link of a name that is known to exist, without waiting for anybody.
    async fn known(
        &self,
        dir: &Arc<Node<F>>,
        name: &Name,
        caught_up: &mut CaughtUp,
    ) -> Result<Option<Arc<Link<F>>>> {
        match self.catch_up(dir, caught_up) {
            Some(stamp) => Ok(self.cached(dir, name, stamp).flatten()),
            None => Ok(caught_up.across(self.verify(dir, name)).await?.map(|(link, _)| link)),
        }
    }

    /// Ends the change of a name that the backend refused. If nobody knows whether it happened the name stays claimed
    /// until the backend does.
    pub(crate) fn failed(&self, dir: &Arc<Node<F>>, guard: super::lookup::NameGuard<F>, error: &FsError) {
        if *error == FsError::Indeterminate {
            self.hold_until_settled(dir, guard);
        } else if error.contradicts_cache() || !dir.mount.trust {
            // Ends as unknown.
            drop(guard);
        } else {
            guard.abort();
        }
    }

    /// Asks what a name means after the answer to a change of it was lost. Where answers are lost, this one may be too, so it
    /// is asked for some times.
    ///
    /// # Errors
    /// What the backend said last: then nobody knows.
    pub(crate) async fn ask_again(&self, dir: &Node<F>, name: &Name) -> Result<Option<BackendKey>> {
        let disk = name.to_disk();
        let mut asked = 1;
        loop {
            let outcome = contained(pin!(self.ask_which(dir, &disk))).await;
            match outcome {
                Err(error) if asked == ASKS => return Err(error),
                Err(_) => sleep(PAUSE).await,
                told => return told,
            }
            asked += 1;
        }
    }

    /// Keeps `guard` in a task of its own until no call whose outcome is unknown can still have an effect.
    pub(crate) fn hold_until_settled<G: Send + 'static>(&self, dir: &Arc<Node<F>>, guard: G) {
        let guard = (!defect(Defect::LetsGoUnknown)).then_some(guard);
        let (dir, task) = (Arc::clone(dir), self.running.enter());
        spawn(async move {
            let _task = task;
            settle(&dir).await;
            drop(guard);
        });
    }
}

/// Waits until no call whose outcome is unknown can still have an effect on `dir`.
pub(crate) async fn settle<F>(dir: &Node<F>) {
    if let Err(error) = dir.mount.backend.settle().await {
        tracing::warn!(%error, "a backend cannot say whether its calls have ended");
    }
}
