//! Every pair of operations, side by side on a small tree: it ends as if the one had come after the other, in what each
//! is told and in what is on the storage.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use shoal_vfs::*;
use shuttle::future::spawn;

use crate::backend::{Bed, model, name};
use crate::run::{once, quietly_holds};

/// What stands in the tree before: links that the operations go by, as handles do.
struct Tree {
    bed: Bed,
    links: HashMap<&'static str, Arc<Link<u32>>>,
    /// By their inode numbers.
    labels: HashMap<u64, &'static str>,
}

const FILES: [(&str, &str); 3] = [("", "f"), ("", "g"), ("d", "x")];
const DIRECTORIES: [(&str, &str); 3] = [("", "d"), ("", "e"), ("d", "k")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Look(&'static str, &'static str),
    Walk(&'static [&'static str]),
    Create(&'static str, &'static str),
    MakeDirectory(&'static str, &'static str),
    Link(&'static str, &'static str, &'static str),
    Remove(&'static str),
    DeleteOnClose(&'static str),
    Rename(&'static str, &'static str, &'static str),
    List(&'static str),
    Open(&'static str),
    OutsideCreate(&'static str),
    OutsideRemove(&'static str),
    OutsideMove(&'static str, &'static str),
    /// Moved by others, and found there by a client: a directory gets its new place in the cache.
    Rehome(&'static str, &'static str),
    /// Names are searched for that are not there, until the directory's index is made.
    Fill(&'static str),
}

/// What clients do: to a file, to a directory, within and across, to free names and to taken ones.
const OPS: [Op; 26] = [
    Op::Look("", "F"),
    Op::Look("", "z"),
    Op::Look("d", "x"),
    Op::Walk(&["d", "k"]),
    Op::Create("", "z"),
    Op::Create("", "F"),
    Op::Create("d", "z"),
    Op::Create("e", "z"),
    Op::MakeDirectory("e", "s"),
    Op::Link("f", "", "z"),
    Op::Link("g", "", "F"),
    Op::Remove("f"),
    Op::Remove("e"),
    Op::Remove("k"),
    Op::Remove("d"),
    Op::DeleteOnClose("g"),
    Op::DeleteOnClose("x"),
    Op::Rename("f", "", "Z"),
    Op::Rename("f", "", "F"),
    Op::Rename("f", "", "g"),
    Op::Rename("x", "e", "z"),
    Op::Rename("e", "d", "e"),
    Op::Rename("d", "e", "d"),
    Op::Rename("k", "", "e"),
    Op::List(""),
    Op::Open("f"),
];

/// What others do behind the cache's back.
const OUTSIDE: [Op; 4] =
    [Op::OutsideCreate("z"), Op::OutsideRemove("f"), Op::OutsideMove("e", "y"), Op::OutsideMove("f", "z")];

/// What makes the index of a directory.
const FILLS: [Op; 1] = [Op::Fill("")];

const REHOMES: [Op; 2] = [Op::Rehome("e", "y"), Op::Rehome("d", "y")];

/// How an operation ended that failed. Which of the words for an object that is gone it meets depends on how far it had
/// come.
fn failed(error: FsError) -> String {
    match error {
        FsError::NotFound | FsError::PathNotFound | FsError::Stale => "gone".to_owned(),
        error => format!("{error:?}"),
    }
}

fn told<T>(end: Result<T>, good: impl FnOnce(T) -> String) -> String {
    end.map_or_else(failed, good)
}

impl Tree {
    async fn new(way: Way) -> Tree {
        if way.storage == Storage::Told {
            return Tree::planted(way).await;
        }
        let options = Options { names_max: way.names_max, ..Options::default() };
        let bed = Bed::with(way.storage == Storage::Ours, options).await;
        let mut tree = Tree { bed, links: HashMap::new(), labels: HashMap::new() };
        for (dir, text) in DIRECTORIES {
            let made = tree.bed.create(&tree.dir(dir), text, CreateHow::directory()).await.unwrap().0;
            tree.add(text, made);
        }
        for (dir, text) in FILES {
            let made = tree.bed.create(&tree.dir(dir), text, CreateHow::file()).await.unwrap().0;
            tree.add(text, made);
        }
        tree
    }

    /// Made by others, and known by the spellings that they chose: no name was searched for, and there is no index yet.
    async fn planted(way: Way) -> Tree {
        let bed = Bed::told(1_000, way.names_max).await;
        let mut tree = Tree { bed, links: HashMap::new(), labels: HashMap::new() };
        let storage = Arc::clone(&tree.bed.storage);
        let mut nodes = HashMap::from([("", storage.root().await.unwrap().node)]);
        let directories = DIRECTORIES.map(|place| (place, CreateHow::directory()));
        let files = FILES.map(|place| (place, CreateHow::file()));
        for ((dir, text), how) in directories.into_iter().chain(files) {
            let disk = name(text).to_disk();
            let (info, _) = storage.direct().create(&nodes[dir], &disk, &how).await.unwrap();
            nodes.insert(text, info.node);
            let link = tree.bed.vfs.lookup_one(&tree.dir(dir), &name(text)).await.unwrap().unwrap();
            tree.add(text, link);
        }
        tree
    }

    fn add(&mut self, text: &'static str, link: Arc<Link<u32>>) {
        self.labels.insert(link.node().key().inode, text);
        self.links.insert(text, link);
    }

    fn clone(&self) -> Tree {
        Tree { bed: self.bed.clone(), links: self.links.clone(), labels: self.labels.clone() }
    }

    fn dir(&self, text: &str) -> Arc<Node<u32>> {
        if text.is_empty() { Arc::clone(&self.bed.top) } else { Arc::clone(self.links[text].node()) }
    }

    fn label(&self, key: BackendKey) -> &'static str {
        self.labels.get(&key.inode).copied().unwrap_or("new")
    }

    fn made(&self, (link, is_new): (Arc<Link<u32>>, bool)) -> String {
        format!("{} {}", if is_new { "made" } else { "exists" }, self.label(link.node().key()))
    }

    async fn run(&self, op: Op) -> String {
        let bed = &self.bed;
        match op {
            Op::Look(dir, text) => told(bed.vfs.lookup_one(&self.dir(dir), &name(text)).await, |found| {
                found.map_or("nothing".to_owned(), |link| self.label(link.node().key()).to_owned())
            }),
            Op::Walk(path) => {
                let path: Vec<_> = path.iter().copied().map(name).collect();
                told(bed.vfs.walk(&bed.root, &path).await, |node| self.label(node.key()).to_owned())
            }
            Op::Create(dir, text) => {
                told(bed.create(&self.dir(dir), text, CreateHow::file()).await, |made| self.made(made))
            }
            Op::MakeDirectory(dir, text) => {
                told(bed.create(&self.dir(dir), text, CreateHow::directory()).await, |made| self.made(made))
            }
            Op::Link(link, dir, to) => {
                let link = &self.links[link];
                let file = match bed.vfs.open(link, OpenHow::default()).await {
                    Ok(file) => file,
                    Err(error) => return failed(error),
                };
                let admit = |_: &mut RenameView<'_, u32>| Ok::<_, ()>(());
                match bed.vfs.link(link, &file, &self.dir(dir), &name(to), true, admit).await {
                    Ok((made, ())) => format!("{:?}", made.name().map(|name| name.to_string())),
                    Err(RenameError::Fs(error)) => failed(error),
                    Err(RenameError::Refused(())) => unreachable!("nobody refuses"),
                }
            }
            Op::Remove(link) => told(bed.remove(&self.links[link]).await, |end| match end {
                // Another's removal has failed meanwhile, and with it what was pending.
                Removal::Kept => failed(FsError::NotEmpty),
                end => format!("{end:?}"),
            }),
            Op::DeleteOnClose(link) => {
                let link = &self.links[link];
                loop {
                    let attached = link.node().opens().attach(link);
                    match attached {
                        Ok(()) => break,
                        Err(Attach::Moving) => bed.vfs.settled(link).await,
                        // That it is pending is as good as that it has come about.
                        Err(Attach::Gone | Attach::DeletePending) => return failed(FsError::NotFound),
                    }
                }
                let is_last = {
                    let mut opens = link.node().opens();
                    opens.set_delete_pending(link, true);
                    opens.detach(link)
                };
                assert!(is_last);
                told(bed.vfs.remove_link(link).await, |end| match end {
                    // Replaced between the close and the removal.
                    Removal::AlreadyGone => failed(FsError::NotFound),
                    end => format!("{end:?}"),
                })
            }
            Op::Rename(link, dir, to) => {
                told(bed.rename(&self.links[link], &self.dir(dir), to).await, |()| "renamed".to_owned())
            }
            Op::List(dir) => {
                let dir = self.dir(dir);
                let file =
                    bed.vfs.open(&bed.root.link(), OpenHow { read: true, write: false }).await.unwrap();
                // No instant of the directory: a name that comes or goes meanwhile may be told or not. What is told is
                // settled (`names::listings_are_settled`), and told once.
                told(bed.vfs.read_dir(&dir, &file, 0, 100, false).await, |page| {
                    let names: BTreeSet<_> = page.iter().map(|entry| entry.name.to_string()).collect();
                    assert_eq!(names.len(), page.len(), "a name is told twice");
                    "listed".to_owned()
                })
            }
            Op::Open(link) => {
                told(bed.vfs.open(&self.links[link], OpenHow::default()).await, |_| "opened".to_owned())
            }
            Op::OutsideCreate(text) => {
                let root = bed.storage.root().await.unwrap().node;
                let how = CreateHow::file();
                told(bed.storage.direct().create(&root, &name(text).to_disk(), &how).await, |_| {
                    "made".to_owned()
                })
            }
            Op::OutsideRemove(link) => {
                let root = bed.storage.root().await.unwrap().node;
                let key = self.links[link].node().key();
                let removed = bed.storage.direct().unlink(&root, &name(link).to_disk(), &key).await;
                told(removed, |()| "removed".to_owned())
            }
            Op::Fill(dir) => {
                let mut found = 0;
                for text in ["u", "v", "w"] {
                    match bed.vfs.lookup_one(&self.dir(dir), &name(text)).await {
                        Ok(link) => found += usize::from(link.is_some()),
                        Err(error) => return failed(error),
                    }
                }
                format!("{found} found")
            }
            Op::OutsideMove(from, to) => self.move_outside(from, to).await,
            Op::Rehome(from, to) => {
                let moved = self.move_outside(from, to).await;
                // Whoever else has moved it meanwhile, it is what the storage has.
                drop(bed.vfs.lookup_one(&bed.top, &name(to)).await);
                moved
            }
        }
    }

    async fn move_outside(&self, from: &str, to: &str) -> String {
        let storage = &self.bed.storage;
        let root = storage.root().await.unwrap().node;
        let (from, to) = (name(from).to_disk(), name(to).to_disk());
        let moved = storage.direct().rename(&root, &from, None, &root, &to, false).await;
        told(moved, |()| "moved".to_owned())
    }

    /// What is on the storage: path to object.
    async fn snapshot(&self) -> BTreeMap<String, &'static str> {
        let storage = self.bed.storage.direct();
        let mut seen = BTreeMap::new();
        let root = storage.root().await.unwrap();
        let mut work = vec![(String::new(), root.node, root.metadata.key, None)];
        while let Some((path, node, key, above)) = work.pop() {
            let how = OpenHow { read: true, write: false };
            let (dir, spelled): (Option<BackendNode>, DiskName) =
                above.unwrap_or((None, DiskName::new(b"root")));
            let file = storage.open(dir.as_ref(), &spelled, &key, how).await.unwrap();
            for entry in file.read_dir(0, 100, false).await.unwrap() {
                let disk = entry.name.to_disk();
                let info = storage.lookup(&node, &disk).await.unwrap().unwrap();
                let below = format!("{path}/{}", entry.name);
                let key = info.metadata.key;
                assert!(seen.insert(below.clone(), self.label(key)).is_none());
                if info.metadata.kind == Kind::Directory {
                    work.push((below, info.node, key, Some((Some(node.clone()), disk))));
                }
            }
        }
        seen
    }
}

/// Where a name that was to be replaced is moved away by others in that moment, its case may be that of either.
fn any_case(left: BTreeMap<String, &'static str>) -> BTreeMap<String, &'static str> {
    left.into_iter().map(|(path, label)| (path.to_lowercase(), label)).collect()
}

/// What both were told, and what is left.
type Outcome = (Option<(String, String)>, BTreeMap<String, &'static str>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Storage {
    Ours,
    Shared,
    /// Shared, and it tells of changes.
    Told,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    storage: Storage,
    names_max: usize,
}

/// What comes of the two one after the other, in either order.
fn in_turn(way: Way, a: Op, b: Op, with_answers: bool) -> Vec<Outcome> {
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    for a_first in [true, false] {
        let outcomes = Arc::clone(&outcomes);
        once(model(move || {
            let outcomes = Arc::clone(&outcomes);
            async move {
                let tree = Tree::new(way).await;
                let answers = if a_first {
                    let a = tree.run(a).await;
                    (a, tree.run(b).await)
                } else {
                    let b = tree.run(b).await;
                    (tree.run(a).await, b)
                };
                tree.bed.finish().await;
                let mut left = tree.snapshot().await;
                if !with_answers {
                    left = any_case(left);
                }
                outcomes.lock().unwrap().push((with_answers.then_some(answers), left));
            }
        }));
    }
    let outcomes = outcomes.lock().unwrap().clone();
    assert_eq!(outcomes.len(), 2);
    outcomes
}

fn side_by_side(way: Way, a: Op, b: Op, with_answers: bool, schedules: usize) {
    let mut allowed = in_turn(way, a, b, with_answers);
    if let Op::Rehome(from, to) = b {
        // What comes between the move and that a client finds it.
        allowed.extend(in_turn(way, a, Op::OutsideMove(from, to), with_answers));
    }
    let allowed = Arc::new(allowed);
    quietly_holds(
        schedules,
        model(move || {
            let allowed = Arc::clone(&allowed);
            async move {
                let tree = Tree::new(way).await;
                let (one, two) = (tree.clone(), tree.clone());
                let one = spawn(async move { one.run(a).await });
                let two = spawn(async move { two.run(b).await });
                let answers = (one.await.unwrap(), two.await.unwrap());
                tree.bed.finish().await;
                let mut left = tree.snapshot().await;
                if !with_answers {
                    left = any_case(left);
                }
                let outcome = (with_answers.then_some(answers), left);
                assert!(
                    allowed.contains(&outcome),
                    "{a:?} beside {b:?} ({way:?}) came to {outcome:?}; one after the other: {allowed:?}"
                );
            }
        }),
    );
}

fn every_pair(text: &str, way: Way, others: &[Op], with_answers: bool, schedules: usize) {
    let start = Instant::now();
    let mut pairs = 0;
    for (index, a) in OPS.iter().enumerate() {
        // Each pair of clients' operations once.
        let from = if others == OPS { index } else { 0 };
        for b in &others[from..] {
            // Two closes of one handle are no operations of a client; `last_close_removes` has two of one file.
            if a == b && matches!(a, Op::DeleteOnClose(_)) {
                continue;
            }
            side_by_side(way, *a, *b, with_answers, schedules);
            pairs += 1;
        }
    }
    println!("holds every_pair {text}: {pairs} pairs in {:.1} s", start.elapsed().as_secs_f64());
}

#[test]
fn every_pair_of_operations() {
    every_pair("alone", Way { storage: Storage::Ours, names_max: 1_000 }, &OPS, true, 30);
}

#[test]
fn every_pair_of_operations_with_eviction() {
    every_pair("with eviction", Way { storage: Storage::Ours, names_max: 1 }, &OPS, true, 20);
}

#[test]
fn every_pair_of_operations_where_others_write_too() {
    every_pair("where others write too", Way { storage: Storage::Shared, names_max: 1_000 }, &OPS, true, 20);
}

#[test]
fn every_operation_beside_an_outside_change() {
    every_pair(
        "beside an outside change",
        Way { storage: Storage::Shared, names_max: 1_000 },
        &OUTSIDE,
        false,
        30,
    );
}

#[test]
fn every_operation_beside_a_directory_that_gets_another_place() {
    for names_max in [1_000, 1] {
        let way = Way { storage: Storage::Shared, names_max };
        every_pair("beside re-homing", way, &REHOMES, false, 20);
    }
}

#[test]
fn every_operation_beside_the_making_of_an_index() {
    for names_max in [1_000, 1] {
        let way = Way { storage: Storage::Told, names_max };
        every_pair("beside the making of an index", way, &FILLS, true, 30);
    }
}
