//! One client after the other: random operations against a plain model of a case-preserving tree, on storages that
//! fold names and on ones that do not, alone and with others who make names behind the cache's back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use shoal_vfs::local::{self, Local};
use shoal_vfs::memory::{Memory, MemoryOptions};
use shoal_vfs::*;

/// Few names, each in several cases, so that they meet.
const NAMES: [&str; 6] = ["a", "A", "b", "B", "long name", "LONG name"];
const DIRECTORIES: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Look {
        dir: usize,
        name: usize,
    },
    Create {
        dir: usize,
        name: usize,
        directory: bool,
    },
    Remove {
        dir: usize,
        name: usize,
    },
    Rename {
        dir: usize,
        name: usize,
        to_dir: usize,
        to: usize,
        replace: bool,
    },
    Link {
        dir: usize,
        name: usize,
        to_dir: usize,
        to: usize,
        replace: bool,
    },
    List {
        dir: usize,
    },
    /// Opened, and kept open; what is to go with its close goes then.
    Open {
        dir: usize,
        name: usize,
    },
    /// The open with this number, from the last one on, is closed, with or without the name.
    Close {
        open: usize,
        remove: bool,
    },
    /// Made by somebody else.
    Plant {
        dir: usize,
        name: usize,
    },
    /// Removed by somebody else.
    Pluck {
        dir: usize,
        name: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (dir, name) = (0..DIRECTORIES, 0..NAMES.len());
    let place = (dir.clone(), name.clone());
    let two = (place.clone(), place.clone(), any::<bool>());
    let step = prop_oneof![
        3 => place.clone().prop_map(|(dir, name)| Step::Look { dir, name }),
        4 => (place.clone(), prop::bool::weighted(0.2))
            .prop_map(|((dir, name), directory)| Step::Create { dir, name, directory }),
        2 => place.clone().prop_map(|(dir, name)| Step::Remove { dir, name }),
        4 => two.clone().prop_map(|((dir, name), (to_dir, to), replace)| Step::Rename { dir, name, to_dir, to, replace }),
        1 => two.prop_map(|((dir, name), (to_dir, to), replace)| Step::Link { dir, name, to_dir, to, replace }),
        1 => dir.prop_map(|dir| Step::List { dir }),
        2 => place.clone().prop_map(|(dir, name)| Step::Open { dir, name }),
        2 => (0..4_usize, any::<bool>()).prop_map(|(open, remove)| Step::Close { open, remove }),
        1 => place.clone().prop_map(|(dir, name)| Step::Plant { dir, name }),
        1 => place.prop_map(|(dir, name)| Step::Pluck { dir, name }),
    ];
    prop::collection::vec(step, 1..60)
}

/// What a directory holds: spelling to object, and whether that is a directory.
type Directory = BTreeMap<String, (u64, bool)>;

struct Model {
    fold: Fold,
    /// Whether the storage itself lets no two spellings stand side by side.
    folds: bool,
    directories: Vec<Directory>,
}

impl Model {
    fn same(&self, a: &str, b: &str) -> bool {
        self.fold.eq(&name(a), &name(b))
    }

    fn spellings(&self, dir: usize, text: &str) -> Vec<String> {
        self.directories[dir].keys().filter(|held| self.same(held, text)).cloned().collect()
    }

    /// What a client means by a name: the exact spelling, or else the first.
    fn pick(&self, dir: usize, text: &str) -> Option<String> {
        let spellings = self.spellings(dir, text);
        spellings.iter().find(|held| *held == text).or(spellings.first()).cloned()
    }

    fn object(&self, dir: usize, text: &str) -> Option<(u64, bool)> {
        self.pick(dir, text).map(|spelled| self.directories[dir][&spelled])
    }

    /// What a rename of `from` would replace.
    fn target(&self, from_dir: usize, from: &str, dir: usize, text: &str) -> Option<String> {
        let others: Vec<_> =
            self.spellings(dir, text).into_iter().filter(|held| dir != from_dir || *held != from).collect();
        others.iter().find(|held| *held == text).or(others.first()).cloned()
    }
}

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name")
}

struct Bed {
    vfs: Arc<Vfs<()>>,
    directories: Vec<Arc<Node<()>>>,
    storage: Arc<dyn Backend>,
    planted: Vec<BackendNode>,
    model: Model,
    exclusive: bool,
    /// What is open, and its object.
    opens: Vec<(Arc<Link<()>>, u64)>,
}

impl Bed {
    async fn new(storage: Arc<dyn Backend>, fold: Fold, names_max: usize) -> Bed {
        let caps = storage.caps();
        let (exclusive, folds) = (caps.exclusive(), caps.folds);
        let vfs = Vfs::new(Options { names_max, ..Options::default() });
        let root = vfs.mount(Arc::clone(&storage), fold).await.expect("mounts");
        let top = Arc::clone(root.link().node());
        let mut directories = Vec::new();
        let mut planted = Vec::new();
        let root_node = storage.root().await.expect("tells").node;
        let mut model = Model { fold, folds, directories: vec![Directory::new(); DIRECTORIES] };
        for i in 0..DIRECTORIES {
            let spelled = name(&format!("dir{i}"));
            if i == 0 && exclusive && !folds {
                // Nobody can put two spellings side by side later.
                let made = storage.create(&root_node, &spelled.to_disk(), &CreateHow::directory()).await;
                let dir = made.expect("creates").0.node;
                for text in NAMES {
                    let disk = name(text).to_disk();
                    let made = storage.create(&dir, &disk, &CreateHow::file()).await.expect("creates");
                    model.directories[0].insert(text.to_owned(), (made.0.metadata.key.inode, false));
                }
                let found = vfs.lookup_one(&top, &spelled).await.expect("looks up").expect("is there");
                directories.push(Arc::clone(found.node()));
                planted.push(dir);
                continue;
            }
            let made = vfs.create(&top, &spelled, CreateHow::directory(), |_, _| ()).await.expect("creates");
            let Creation::Created { link, .. } = made else { panic!("exists") };
            directories.push(Arc::clone(link.node()));
            let found = storage.lookup(&root_node, &spelled.to_disk()).await.expect("looks up");
            planted.push(found.expect("is there").node);
        }
        Bed { vfs, directories, storage, planted, model, exclusive, opens: Vec::new() }
    }

    async fn look(&self, dir: usize, text: &str) -> Option<Arc<Link<()>>> {
        self.vfs.lookup_one(&self.directories[dir], &name(text)).await.expect("looks up")
    }

    async fn step(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Look { dir, name: n } => {
                let found = self.look(dir, NAMES[n]).await;
                let expected = self.model.object(dir, NAMES[n]);
                prop_assert_eq!(
                    found.as_ref().map(|link| link.node().key().inode),
                    expected.map(|(object, _)| object)
                );
                let spelled = found.and_then(|link| link.name()).map(|name| name.to_string());
                prop_assert_eq!(spelled, self.model.pick(dir, NAMES[n]));
            }
            Step::Create { dir, name: n, directory } => {
                let how = if directory { CreateHow::directory() } else { CreateHow::file() };
                let made = self.vfs.create(&self.directories[dir], &name(NAMES[n]), how, |_, _| ()).await;
                match made.expect("answers") {
                    Creation::Created { link, .. } => {
                        prop_assert_eq!(self.model.object(dir, NAMES[n]), None);
                        let object = (link.node().key().inode, directory);
                        self.model.directories[dir].insert(NAMES[n].to_owned(), object);
                    }
                    Creation::Exists(link) => {
                        let object = self.model.object(dir, NAMES[n]).map(|(object, _)| object);
                        prop_assert_eq!(Some(link.node().key().inode), object);
                    }
                }
            }
            Step::Remove { dir, name: n } => {
                let Some(link) = self.look(dir, NAMES[n]).await else { return Ok(()) };
                link.node().opens().set_delete_pending(&link, true);
                if link.node().opens().open_count(&link) > 0 {
                    // It goes with its last open, unless that is taken back.
                    prop_assert_eq!(self.vfs.remove_link(&link).await, Ok(Removal::Kept));
                    prop_assert_eq!(link.node().opens().attach(&link), Err(Attach::DeletePending));
                    link.node().opens().set_delete_pending(&link, false);
                    return Ok(());
                }
                prop_assert_eq!(self.vfs.remove_link(&link).await, Ok(Removal::Removed));
                let spelled = self.model.pick(dir, NAMES[n]).expect("was there");
                self.model.directories[dir].remove(&spelled);
            }
            Step::Rename { dir, name: n, to_dir, to, replace } => {
                let Some(link) = self.look(dir, NAMES[n]).await else { return Ok(()) };
                let from = self.model.pick(dir, NAMES[n]).expect("was there");
                let (object, is_directory) = self.model.directories[dir][&from];
                let (to_node, to_name) = (&self.directories[to_dir], name(NAMES[to]));
                let renamed = self.vfs.rename(&link, to_node, &to_name, replace, |_| Ok::<_, ()>(())).await;
                if dir == to_dir && from == NAMES[to] {
                    prop_assert_eq!(renamed, Ok(()));
                    return Ok(());
                }
                let target = self.model.target(dir, &from, to_dir, NAMES[to]);
                let replaced = target.as_ref().map(|target| self.model.directories[to_dir][target]);
                let expected = match replaced {
                    Some(_) if !replace => Err(RenameError::Fs(FsError::Exists)),
                    Some((other, _)) if other == object => Ok(()),
                    Some((_, true)) if !is_directory => Err(RenameError::Fs(FsError::IsADirectory)),
                    Some((_, false)) if is_directory => Err(RenameError::Fs(FsError::NotADirectory)),
                    _ => Ok(()),
                };
                prop_assert_eq!(&renamed, &expected);
                if renamed.is_ok() {
                    self.model.directories[dir].remove(&from);
                    if let Some(target) = target {
                        self.model.directories[to_dir].remove(&target);
                    }
                    self.model.directories[to_dir].insert(NAMES[to].to_owned(), (object, is_directory));
                    prop_assert_eq!(link.name(), Some(to_name));
                }
            }
            Step::Link { dir, name: n, to_dir, to, replace } => {
                let Some(link) = self.look(dir, NAMES[n]).await else { return Ok(()) };
                let (object, is_directory) = self.model.object(dir, NAMES[n]).expect("was there");
                let file = self.vfs.open(&link, OpenHow::default()).await.expect("opens");
                let target = self.model.pick(to_dir, NAMES[to]);
                let replaced = target.as_ref().map(|target| self.model.directories[to_dir][target]);
                let (to_node, to_name) = (&self.directories[to_dir], name(NAMES[to]));
                let made = self.vfs.link(&link, &file, to_node, &to_name, replace, |_| Ok::<_, ()>(())).await;
                match made {
                    Ok((made, ())) => {
                        prop_assert!(!is_directory && (replace || replaced.is_none()));
                        let spelled = made.name().expect("stands somewhere").to_string();
                        prop_assert_eq!(&spelled, target.as_deref().unwrap_or(NAMES[to]));
                        self.model.directories[to_dir].insert(spelled, (object, false));
                    }
                    Err(RenameError::Fs(FsError::IsADirectory)) => {
                        prop_assert!(is_directory || replaced.is_some_and(|(_, is_directory)| is_directory));
                    }
                    Err(RenameError::Fs(FsError::Exists)) => prop_assert!(!replace && replaced.is_some()),
                    Err(error) => return Err(TestCaseError::fail(format!("{error:?}"))),
                }
            }
            Step::List { dir } => self.check(dir).await?,
            Step::Open { dir, name: n } => {
                let Some(link) = self.look(dir, NAMES[n]).await else { return Ok(()) };
                let attached = link.node().opens().attach_at(&link, &self.directories[dir], &name(NAMES[n]));
                prop_assert_eq!(attached, Ok(()));
                let object = self.model.object(dir, NAMES[n]).expect("was there").0;
                self.opens.push((link, object));
            }
            Step::Close { open, remove } => {
                if open >= self.opens.len() {
                    return Ok(());
                }
                let (link, object) = self.opens.swap_remove(self.opens.len() - 1 - open);
                let was_gone = link.is_gone();
                let is_last = {
                    let mut opens = link.node().opens();
                    let others = opens.open_count(&link) > 1;
                    // The flag of a handle; pending it becomes with the close.
                    opens.set_delete_pending(&link, remove && !others);
                    opens.detach(&link)
                };
                if !is_last {
                    return Ok(());
                }
                let place = link.place().expect("stands somewhere");
                let removed = self.vfs.remove_link(&link).await.expect("removes");
                if was_gone {
                    prop_assert_eq!(removed, Removal::AlreadyGone);
                    return Ok(());
                }
                let dir = self.directories.iter().position(|dir| dir.id() == place.0.id());
                let held = &mut self.model.directories[dir.expect("is one of them")];
                let spelled = place.1.to_string();
                // Others may have been quicker, and have put another object there.
                let is_there = held.get(&spelled).is_some_and(|(held, _)| *held == object);
                prop_assert_eq!(removed, if is_there { Removal::Removed } else { Removal::AlreadyGone });
                if is_there {
                    held.remove(&spelled);
                }
            }
            Step::Plant { dir, name: n } => {
                let taken = !self.model.spellings(dir, NAMES[n]).is_empty();
                let is_there = self.model.directories[dir].contains_key(NAMES[n]);
                if self.exclusive || is_there || (taken && self.model.folds) {
                    return Ok(());
                }
                let disk = name(NAMES[n]).to_disk();
                let made = self.storage.create(&self.planted[dir], &disk, &CreateHow::file()).await;
                let (info, _) = made.expect("creates");
                self.model.directories[dir].insert(NAMES[n].to_owned(), (info.metadata.key.inode, false));
            }
            Step::Pluck { dir, name: n } => {
                let Some((object, false)) = self.model.directories[dir].get(NAMES[n]).copied() else {
                    return Ok(());
                };
                if self.exclusive {
                    return Ok(());
                }
                let disk = name(NAMES[n]).to_disk();
                let found = self.storage.lookup(&self.planted[dir], &disk).await.expect("looks up");
                let key = found.expect("is there").metadata.key;
                prop_assert_eq!(key.inode, object);
                self.storage.unlink(&self.planted[dir], &disk, &key).await.expect("removes");
                self.model.directories[dir].remove(NAMES[n]);
            }
        }
        Ok(())
    }

    /// What the storage holds is what the model holds.
    async fn check(&self, dir: usize) -> TestCaseResult {
        let found = self.storage.lookup_folded(&self.planted[dir], &name("x"), &Fold::Sensitive).await;
        prop_assert!(found.expect("looks up").is_empty());
        let mut held = Directory::new();
        for text in NAMES {
            let found =
                self.storage.lookup(&self.planted[dir], &name(text).to_disk()).await.expect("looks up");
            if let Some(info) = found {
                let is_directory = info.metadata.kind == Kind::Directory;
                held.insert(text.to_owned(), (info.metadata.key.inode, is_directory));
            }
        }
        prop_assert_eq!(&held, &self.model.directories[dir]);
        Ok(())
    }
}

fn memory(fold: Fold, exclusive: bool) -> Arc<dyn Backend> {
    Memory::new(MemoryOptions { fold, exclusive, ..MemoryOptions::default() })
}

fn run(storage: Arc<dyn Backend>, fold: Fold, small: bool, steps: &[Step]) -> TestCaseResult {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut bed = Bed::new(storage, fold, if small { 2 } else { 1_000 }).await;
        for step in steps {
            bed.step(*step).await?;
        }
        for dir in 0..DIRECTORIES {
            bed.check(dir).await?;
        }
        Ok(())
    })
}

/// On the real file system, in a directory that goes with the test.
fn run_local(fold: Fold, small: bool, steps: &[Step]) -> TestCaseResult {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let scratch = std::env::temp_dir().join(format!("shoal-sequential-{}-{next}", std::process::id()));
    std::fs::create_dir(&scratch).expect("a scratch directory");
    let local = Local::open(&scratch, local::Options::default()).expect("opens");
    let ran = run(Arc::new(local), fold, small, steps);
    std::fs::remove_dir_all(&scratch).expect("removes the scratch directory");
    ran
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn folding_storage(steps in steps(), small in any::<bool>()) {
        run(memory(Fold::Insensitive, true), Fold::Insensitive, small, &steps)?;
    }

    #[test]
    fn sensitive_share(steps in steps(), small in any::<bool>()) {
        run(memory(Fold::Sensitive, true), Fold::Sensitive, small, &steps)?;
    }

    #[test]
    fn storage_that_does_not_fold(steps in steps(), small in any::<bool>()) {
        run(memory(Fold::Sensitive, true), Fold::Insensitive, small, &steps)?;
    }

    #[test]
    fn folding_storage_of_others(steps in steps(), small in any::<bool>()) {
        run(memory(Fold::Insensitive, false), Fold::Insensitive, small, &steps)?;
    }

    #[test]
    fn sensitive_share_of_others(steps in steps(), small in any::<bool>()) {
        run(memory(Fold::Sensitive, false), Fold::Sensitive, small, &steps)?;
    }

    #[test]
    fn storage_of_others_that_does_not_fold(steps in steps(), small in any::<bool>()) {
        run(memory(Fold::Sensitive, false), Fold::Insensitive, small, &steps)?;
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn local(steps in steps(), small in any::<bool>()) {
        run_local(Fold::Insensitive, small, &steps)?;
    }

    #[test]
    fn local_sensitive(steps in steps(), small in any::<bool>()) {
        run_local(Fold::Sensitive, small, &steps)?;
    }
}
