//! A storm of mkdir, rename and remove over nested directories of a real file system: at the end the tree is what the
//! acknowledgements say.
//!
//! Every object has an owner, the client that made it, and nobody else moves or removes it. A directory never has a name twice: each
//! rename gives it the next version of its name. So a path that is resolved at all is resolved to the very directories that
//! were meant, whatever moved meanwhile, and an acknowledgement says where exactly its object stands. What is fought over are the
//! files' names that all clients want, the directories that go while others make something in them, and the directories on the way to
//! them. A request that fails for one of the reasons that such a fight has changed nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::{FileId, Request, WriteRequest};

use crate::checks::{Checks, Failure, demand};
use crate::client::{Client, Trouble, create, rename_information};
use crate::random::Random;
use crate::scratch::Scratch;
use crate::server::{PASSWORD, Server, USER, target_directory};

/// `cargo integration storm`.
#[derive(clap::Args)]
pub struct Options {
    /// How many clients
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Operations of each client in a run
    #[arg(long, default_value_t = 600)]
    operations: usize,
    /// How many runs
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// The seed of what the clients do; each run has the next
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the share is to be; by default below cargo's target directory, on the machine's own disk
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Options {
    /// A short storm, for the run of all checks.
    pub fn short() -> Options {
        Options { clients: 32, operations: 300, runs: 2, seed: 1, directory: None }
    }
}

/// Names of files that all clients want, in every directory.
const SHARED: usize = 3;
/// What a client owns at most at a time.
const OWN_MAX: usize = 10;
/// Directories within directories, at most.
const DEPTH_MAX: usize = 5;
/// Directories of all clients, at most: few enough that clients meet in them.
const DIRECTORIES_MAX: usize = 40;

const DELETE_ACCESS: u32 = 0x0011_0080;
const WRITE_ACCESS: u32 = 0x0012_0196;
const LOOK_ACCESS: u32 = 0x0010_0081;
const FILE_OPEN: u32 = 1;
const FILE_CREATE: u32 = 2;
const DIRECTORY_FILE: u32 = 0x01;
const NON_DIRECTORY_FILE: u32 = 0x40;
const DELETE_ON_CLOSE: u32 = 0x1000;
const RENAME_INFORMATION: u8 = 10;
const DISPOSITION_INFORMATION: u8 = 13;

/// `cargo integration storm`.
pub fn run(checks: &mut Checks, options: &Options) {
    let below = options.directory.clone().unwrap_or_else(|| target_directory().join("tmp"));
    let scratch = Scratch::below(&below, "storm");
    let share = scratch.directory("share");
    checks.note(&format!("storm: {} is on {}", share.display(), file_system(&share)));
    let mut server = match Server::start(scratch.path(), &[format!("share={}", share.display())]) {
        Ok(server) => server,
        Err(why) => return checks.record("storm: server", Err(why)),
    };
    for number in 0..options.runs {
        let seed = options.seed.wrapping_add(number as u64);
        let what = format!(
            "storm: {} clients x {} operations, seed {seed}, run {} of {}",
            options.clients,
            options.operations,
            number + 1,
            options.runs
        );
        let mut counts = String::new();
        checks.check(&what, || {
            counts = storm(&server, options, seed, &share)?;
            server.must_run()?;
            server.must_not_have_panicked()
        });
        checks.note(&format!("storm: acknowledged {counts}"));
    }
    checks.check("storm: the server ends at SIGTERM", || server.stop());
}

/// The type of the file system that `path` is on, as the kernel calls it.
fn file_system(path: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let on = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        path.starts_with(point).then_some((point.len(), kind))
    });
    // Of two at one point the later one lies above.
    on.max_by_key(|(length, _)| *length).map_or("an unknown file system", |(_, kind)| kind).to_owned()
}

/// An object, for all of the run.
type Token = usize;

/// Where an object stands: in which directory (`None`: the run's own), under which name.
type Place = (Option<Token>, String);

struct Object {
    directory: bool,
    /// The client that it belongs to.
    owner: usize,
    /// What is in a file: no other file ever has the same.
    text: String,
    /// As last acknowledged; `None` once its removal was.
    place: Option<Place>,
    /// What was acknowledged of it, with the number of the acknowledgement.
    story: Vec<String>,
}

/// Everything that was acknowledged.
#[derive(Default)]
struct Ledger {
    objects: Vec<Object>,
    acknowledged: u64,
    counts: BTreeMap<&'static str, u64>,
    versions: usize,
}

impl Ledger {
    fn note(&mut self, client: usize, token: Token, verb: &'static str, place: Option<Place>) {
        self.acknowledged += 1;
        *self.counts.entry(verb).or_default() += 1;
        let where_to = place.as_ref().map_or_else(String::new, |place| format!(" {}", self.show(place)));
        let line = format!("#{} client {client}: {verb}{where_to}", self.acknowledged);
        self.objects[token].story.push(line);
        self.objects[token].place = place;
    }

    fn made(&mut self, client: usize, directory: bool, text: String, place: Place) -> Token {
        let token = self.objects.len();
        self.objects.push(Object { directory, owner: client, text, place: None, story: Vec::new() });
        self.note(client, token, if directory { "mkdir" } else { "create" }, Some(place));
        token
    }

    fn show(&self, (parent, name): &Place) -> String {
        match parent {
            Some(parent) => format!("{name} in object {parent}"),
            None => format!("{name} at the top"),
        }
    }

    /// The names from the run's directory down to the object. `None`: a directory above it is gone, as far as is known.
    fn names(&self, token: Token) -> Option<Vec<String>> {
        let mut names = Vec::new();
        let mut next = Some(token);
        while let Some(token) = next {
            let (parent, name) = self.objects[token].place.as_ref()?;
            names.push(name.clone());
            next = *parent;
            // Two directories of which each was acknowledged to stand in the other.
            if names.len() > self.objects.len() {
                return None;
            }
        }
        names.reverse();
        Some(names)
    }

    fn live_directories(&self) -> Vec<Token> {
        let live = |object: &Object| object.directory && object.place.is_some();
        (0..self.objects.len()).filter(|token| live(&self.objects[*token])).collect()
    }

    fn story(&self, token: Token) -> String {
        let object = &self.objects[token];
        let kind = if object.directory { "directory" } else { "file" };
        let last: Vec<&String> = object.story.iter().rev().take(6).rev().collect();
        let lines: String = last.iter().map(|line| format!("\n  {line}")).collect();
        format!("{kind} {token} of client {}:{lines}", object.owner)
    }
}

/// One run; what was acknowledged how often.
#[tokio::main]
async fn storm(server: &Server, options: &Options, seed: u64, share: &Path) -> Result<String, Failure> {
    let told = |trouble: Trouble| trouble.to_string();
    let base = format!("run-{seed}");
    let mut first = Client::connect(server.address).await.map_err(told)?;
    first.login(USER, PASSWORD, "share").await.map_err(told)?;
    let made = first.create(create(&base, LOOK_ACCESS, FILE_CREATE, DIRECTORY_FILE)).await.map_err(told)?;
    first.close(made.file_id).await.map_err(told)?;

    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..options.clients {
        let (address, operations) = (server.address, options.operations);
        let (ledger, base) = (ledger.clone(), base.clone());
        let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number as u64 * 0xD1B5_4A32);
        tasks.spawn(async move {
            let mut client = Client::connect(address).await.map_err(told)?;
            client.login(USER, PASSWORD, "share").await.map_err(told)?;
            let mut member =
                Member { client, number, base, random: Random::new(seed), ledger, own: Vec::new(), made: 0 };
            for _ in 0..operations {
                member.step().await.map_err(|why| format!("client {number}: {why}"))?;
            }
            Ok::<(), Failure>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|e| format!("a client: {e}"))??;
    }
    let ledger = Arc::into_inner(ledger).expect("all clients have ended").into_inner().expect("no panic");
    let mut on_disk = BTreeMap::new();
    walk(&share.join(&base), "", &mut on_disk)?;
    verify(&ledger, &on_disk)?;
    let mut listed = BTreeSet::new();
    list(&mut first, &base, &mut listed).await?;
    let walked: BTreeSet<String> = on_disk.into_keys().collect();
    demand(listed == walked, || {
        let differ: Vec<&String> = listed.symmetric_difference(&walked).take(5).collect();
        format!("the server's listings and the disk differ in {differ:?}")
    })?;
    for verb in [
        "mkdir",
        "create",
        "rename",
        "rename of a directory",
        "replace",
        "remove",
        "rmdir",
        "delete on close",
    ] {
        demand(ledger.counts.contains_key(verb), || format!("no {verb} was acknowledged: no storm"))?;
    }
    Ok(ledger.counts.iter().map(|(verb, count)| format!("{verb} {count}")).collect::<Vec<_>>().join(", "))
}

/// What stands at each path: a file with what is in it, or a directory.
type Tree = BTreeMap<String, Option<String>>;

fn walk(directory: &Path, above: &str, tree: &mut Tree) -> Result<(), Failure> {
    let failed = |e: std::io::Error| format!("{}: {e}", directory.display());
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = format!("{above}{}", entry.file_name().to_string_lossy());
        if entry.file_type().map_err(failed)?.is_dir() {
            walk(&entry.path(), &format!("{path}\\"), tree)?;
            tree.insert(path, None);
        } else {
            let text = std::fs::read_to_string(entry.path()).map_err(failed)?;
            tree.insert(path, Some(text));
        }
    }
    Ok(())
}

/// Every path below `base` as the server lists it.
async fn list(client: &mut Client, base: &str, paths: &mut BTreeSet<String>) -> Result<(), Failure> {
    let mut to_list = vec![String::new()];
    while let Some(inner) = to_list.pop() {
        let told = |trouble: Trouble| format!("listing {inner:?}: {trouble}");
        let path = format!("{base}{inner}");
        let opened = client.create(create(&path, LOOK_ACCESS, FILE_OPEN, DIRECTORY_FILE)).await;
        let handle = opened.map_err(told)?.file_id;
        for name in client.names(handle).await.map_err(told)? {
            let below = format!("{inner}\\{name}");
            paths.insert(below[1..].to_owned());
            if name.starts_with('d') {
                to_list.push(below);
            }
        }
        client.close(handle).await.map_err(told)?;
    }
    Ok(())
}

/// Whether the tree is what was acknowledged; if not, which acknowledgement it contradicts.
fn verify(ledger: &Ledger, tree: &Tree) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    let mut expected: BTreeMap<String, Token> = BTreeMap::new();
    for (token, object) in ledger.objects.iter().enumerate() {
        let Some((parent, _)) = &object.place else { continue };
        if let Some(parent) = parent
            && ledger.objects[*parent].place.is_none()
        {
            wrong.push(format!(
                "{}\nstands in a directory whose removal was acknowledged: {}",
                ledger.story(token),
                ledger.story(*parent)
            ));
            continue;
        }
        let Some(path) = ledger.names(token).map(|names| names.join("\\")) else { continue };
        if let Some(other) = expected.insert(path.clone(), token) {
            wrong.push(format!(
                "two were acknowledged to be {path}: {}\nand {}",
                ledger.story(other),
                ledger.story(token)
            ));
            continue;
        }
        match tree.get(&path) {
            None => wrong.push(format!("{path} is not there: {}", ledger.story(token))),
            Some(None) if object.directory => {}
            Some(Some(text)) if !object.directory && *text == object.text => {}
            Some(found) => {
                wrong.push(format!("{path} is another object ({found:?}): {}", ledger.story(token)));
            }
        }
    }
    for path in tree.keys().filter(|path| !expected.contains_key(*path)) {
        let name = path.rsplit('\\').next().unwrap_or(path);
        let known: Vec<String> = (0..ledger.objects.len())
            .filter(|token| {
                ledger.objects[*token].story.iter().any(|line| line.split(' ').any(|word| word == name))
            })
            .map(|token| ledger.story(token))
            .take(3)
            .collect();
        wrong.push(format!("{path} should not be there; that name had {}", known.join("\nand ")));
    }
    demand(wrong.is_empty(), || {
        let shown: Vec<&str> = wrong.iter().take(5).map(String::as_str).collect();
        format!("{} acknowledgements are contradicted\n{}", wrong.len(), shown.join("\n"))
    })
}

/// Why a step ends the run.
type Step = Result<(), Failure>;

struct Member {
    client: Client,
    number: usize,
    base: String,
    random: Random,
    ledger: Arc<Mutex<Ledger>>,
    /// What this client owns and has not removed.
    own: Vec<Token>,
    /// How many files it has made.
    made: usize,
}

/// Whether a fight over names or directories can end so: then the request has done nothing.
fn is_lost_fight(status: NtStatus) -> bool {
    matches!(
        status,
        NtStatus::OBJECT_NAME_NOT_FOUND
            | NtStatus::OBJECT_PATH_NOT_FOUND
            | NtStatus::OBJECT_NAME_COLLISION
            | NtStatus::DELETE_PENDING
            | NtStatus::SHARING_VIOLATION
            | NtStatus::ACCESS_DENIED
            | NtStatus::DIRECTORY_NOT_EMPTY
            // A directory below itself.
            | NtStatus::INVALID_PARAMETER
    )
}

/// `None` for a request that did nothing.
fn fought<T>(answer: Result<T, Trouble>, what: &str) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Trouble::Status(status)) if is_lost_fight(status) => Ok(None),
        Err(trouble) => Err(format!("{what}: {trouble}")),
    }
}

impl Member {
    async fn step(&mut self) -> Step {
        let choice = self.random.below(16);
        if self.own.is_empty() || (choice < 5 && self.own.len() < OWN_MAX) {
            return if self.random.below(3) == 0 { self.mkdir().await } else { self.create().await };
        }
        match choice {
            0..=7 => self.rename().await,
            8 => self.replace().await,
            9..=11 => self.remove().await,
            12 => self.make_for_a_moment().await,
            _ => self.look().await,
        }
    }

    fn ledger<T>(&self, f: impl FnOnce(&mut Ledger) -> T) -> T {
        f(&mut self.ledger.lock().expect("no client panics"))
    }

    /// The path of what has these names below the run's directory.
    fn path(&self, names: &[String]) -> String {
        let mut path = self.base.clone();
        for name in names {
            path.push('\\');
            path.push_str(name);
        }
        path
    }

    /// A directory that is there as far as is known, and its names.
    fn some_directory(&mut self) -> (Option<Token>, Vec<String>) {
        let live = self.ledger(|ledger| ledger.live_directories());
        if live.is_empty() || self.random.below(8) == 0 {
            return (None, Vec::new());
        }
        let token = live[self.random.below(live.len())];
        match self.ledger(|ledger| ledger.names(token)) {
            Some(names) if names.len() < DEPTH_MAX => (Some(token), names),
            _ => (None, Vec::new()),
        }
    }

    /// A place for something new, and its path.
    fn some_place(&mut self, directory: bool) -> (Place, String) {
        let (parent, mut names) = self.some_directory();
        let name = if !directory && self.random.below(3) == 0 {
            format!("shared-{}", self.random.below(SHARED))
        } else {
            let version = self.ledger(|ledger| {
                ledger.versions += 1;
                ledger.versions
            });
            format!("{}{version}", if directory { 'd' } else { 'f' })
        };
        names.push(name.clone());
        ((parent, name), self.path(&names))
    }

    /// One of this client's own, where it stands, and its path.
    fn some_own(&mut self) -> Option<(Token, Place, String)> {
        let mut token = self.own[self.random.below(self.own.len())];
        // Directories are fewer, and there is more to fight over in them.
        if self.random.below(3) == 0
            && let Some(directory) = self.own.iter().copied().find(|own| self.is_directory(*own))
        {
            token = directory;
        }
        let (place, names) = self.ledger(|ledger| (ledger.objects[token].place.clone(), ledger.names(token)));
        Some((token, place?, self.path(&names?)))
    }

    fn is_directory(&self, token: Token) -> bool {
        self.ledger(|ledger| ledger.objects[token].directory)
    }

    fn note(&self, token: Token, verb: &'static str, place: Option<Place>) {
        let number = self.number;
        self.ledger(|ledger| ledger.note(number, token, verb, place));
    }

    async fn mkdir(&mut self) -> Step {
        if self.ledger(|ledger| ledger.live_directories().len()) >= DIRECTORIES_MAX {
            return self.look().await;
        }
        let (place, path) = self.some_place(true);
        let request = create(&path, LOOK_ACCESS, FILE_CREATE, DIRECTORY_FILE);
        let Some(made) = fought(self.client.create(request).await, "mkdir")? else { return Ok(()) };
        let number = self.number;
        let token = self.ledger(|ledger| ledger.made(number, true, String::new(), place));
        self.own.push(token);
        self.close(made.file_id).await
    }

    async fn create(&mut self) -> Step {
        let (place, path) = self.some_place(false);
        let request = create(&path, WRITE_ACCESS, FILE_CREATE, NON_DIRECTORY_FILE);
        let Some(made) = fought(self.client.create(request).await, "create")? else { return Ok(()) };
        self.made += 1;
        let (number, text) = (self.number, format!("client {} file {}", self.number, self.made));
        let data = Bytes::from(text.clone());
        let token = self.ledger(|ledger| ledger.made(number, false, text, place));
        self.own.push(token);
        let write = WriteRequest { file_id: made.file_id, data, ..WriteRequest::default() };
        self.client.call(&Request::Write(write)).await.map_err(|e| format!("writing {path}: {e}"))?;
        self.close(made.file_id).await
    }

    /// Opens one of this client's own by where it was acknowledged to stand. Its directory may have moved; but where that is found,
    /// so must it be.
    async fn open_own(
        &mut self,
        token: Token,
        path: &str,
        access: u32,
        options: u32,
    ) -> Result<Option<FileId>, Failure> {
        match self.client.create(create(path, access, FILE_OPEN, options)).await {
            Err(Trouble::Status(NtStatus::OBJECT_NAME_NOT_FOUND)) => {
                let story = self.ledger(|ledger| ledger.story(token));
                Err(format!("{path} is not found, against the acknowledgements: {story}"))
            }
            answer => Ok(fought(answer, "open")?.map(|opened| opened.file_id)),
        }
    }

    async fn rename(&mut self) -> Step {
        let Some((token, _, path)) = self.some_own() else { return Ok(()) };
        let Some(file) = self.open_own(token, &path, DELETE_ACCESS, 0).await? else { return Ok(()) };
        let directory = self.is_directory(token);
        let (place, to) = self.some_place(directory);
        let information = rename_information(&to, false);
        if fought(self.client.set_info(file, RENAME_INFORMATION, information).await, "rename")?.is_some() {
            self.note(token, if directory { "rename of a directory" } else { "rename" }, Some(place));
        }
        self.close(file).await
    }

    /// One own file takes the place of another.
    async fn replace(&mut self) -> Step {
        let (Some((token, _, path)), Some((other, place, to))) = (self.some_own(), self.some_own()) else {
            return Ok(());
        };
        if token == other || self.is_directory(token) || self.is_directory(other) {
            return Ok(());
        }
        let Some(file) = self.open_own(token, &path, DELETE_ACCESS, 0).await? else { return Ok(()) };
        let information = rename_information(&to, true);
        if fought(self.client.set_info(file, RENAME_INFORMATION, information).await, "replace")?.is_some() {
            self.note(other, "go by being replaced", None);
            self.note(token, "replace", Some(place));
            self.own.retain(|own| *own != other);
        }
        self.close(file).await
    }

    async fn remove(&mut self) -> Step {
        let Some((token, _, path)) = self.some_own() else { return Ok(()) };
        let by_option = self.random.below(2) == 0;
        let options = if by_option { DELETE_ON_CLOSE } else { 0 };
        let Some(file) = self.open_own(token, &path, DELETE_ACCESS, options).await? else { return Ok(()) };
        let pending = by_option || {
            let delete = Bytes::from_static(&[1]);
            fought(self.client.set_info(file, DISPOSITION_INFORMATION, delete).await, "remove")?.is_some()
        };
        self.close(file).await?;
        if !pending {
            return Ok(());
        }
        if self.is_directory(token) {
            // Somebody may have made something in it meanwhile, and then it stays.
            if self.stays(token).await? {
                return Ok(());
            }
            self.note(token, "rmdir", None);
        } else {
            self.note(token, "remove", None);
        }
        self.own.retain(|own| *own != token);
        Ok(())
    }

    /// Whether a directory that was to go with its last handle is still there, once that is decided.
    async fn stays(&mut self, token: Token) -> Result<bool, Failure> {
        for _ in 0..2000 {
            let Some(names) = self.ledger(|ledger| ledger.names(token)) else { return Ok(false) };
            let path = self.path(&names);
            match self.client.create(create(&path, LOOK_ACCESS, FILE_OPEN, DIRECTORY_FILE)).await {
                Ok(opened) => {
                    self.close(opened.file_id).await?;
                    return Ok(true);
                }
                Err(Trouble::Status(NtStatus::OBJECT_NAME_NOT_FOUND)) => return Ok(false),
                // Others look at it, or a directory above it has moved.
                Err(Trouble::Status(status)) if is_lost_fight(status) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(trouble) => return Err(format!("looking for {path}: {trouble}")),
            }
        }
        Err(format!("it is not decided whether {}", self.ledger(|ledger| ledger.story(token))))
    }

    /// A file that goes with its only handle; nobody hears of it.
    async fn make_for_a_moment(&mut self) -> Step {
        let (_, path) = self.some_place(false);
        let request = create(&path, DELETE_ACCESS, FILE_CREATE, NON_DIRECTORY_FILE | DELETE_ON_CLOSE);
        let Some(made) = fought(self.client.create(request).await, "create for a moment")? else {
            return Ok(());
        };
        self.close(made.file_id).await?;
        self.ledger(|ledger| *ledger.counts.entry("delete on close").or_default() += 1);
        Ok(())
    }

    /// Opens anybody's file or directory and lists a directory: in the way of whoever wants to rename or remove it.
    async fn look(&mut self) -> Step {
        let count = self.ledger(|ledger| ledger.objects.len());
        if count == 0 {
            return Ok(());
        }
        let token = self.random.below(count);
        let Some(names) = self.ledger(|ledger| ledger.names(token)) else { return Ok(()) };
        let request = create(&self.path(&names), LOOK_ACCESS, FILE_OPEN, 0);
        let Some(opened) = fought(self.client.create(request).await, "look")? else { return Ok(()) };
        if self.is_directory(token) {
            let listed = self.client.names(opened.file_id).await;
            listed.map_err(|e| format!("listing {}: {e}", self.path(&names)))?;
        }
        self.close(opened.file_id).await
    }

    async fn close(&mut self, file: FileId) -> Step {
        self.client.close(file).await.map_err(|e| format!("closing: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[(&str, Option<&str>)]) -> Tree {
        paths.iter().map(|(path, text)| ((*path).to_owned(), text.map(str::to_owned))).collect()
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let dir = ledger.made(1, true, String::new(), (None, "d1".to_owned()));
        ledger.made(2, false, "a".to_owned(), (Some(dir), "f2".to_owned()));
        let other = ledger.made(3, true, String::new(), (None, "d3".to_owned()));
        ledger.note(3, other, "rename of a directory", Some((Some(dir), "d4".to_owned())));
        ledger
    }

    #[test]
    fn a_tree_as_acknowledged() {
        let right = [("d1", None), ("d1\\f2", Some("a")), ("d1\\d4", None)];
        assert_eq!(verify(&ledger(), &tree(&right)), Ok(()));
    }

    #[test]
    fn contradictions_are_told() {
        let told = |ledger: &Ledger, paths: &[(&str, Option<&str>)], part: &str| {
            let why = verify(ledger, &tree(paths)).expect_err("a contradiction");
            assert!(why.contains(part), "{why}");
        };
        let (dir, file, below) = (("d1", None), ("d1\\f2", Some("a")), ("d1\\d4", None));
        told(
            &ledger(),
            &[dir, below],
            "d1\\f2 is not there: file 1 of client 2:\n  #2 client 2: create f2 in object 0",
        );
        told(&ledger(), &[dir, file, ("d3", None)], "#4 client 3: rename of a directory d4 in object 0");
        told(&ledger(), &[dir, ("d1\\f2", Some("b")), below], "d1\\f2 is another object");
        told(
            &ledger(),
            &[dir, file, below, ("d3", None)],
            "d3 should not be there; that name had directory 2",
        );
        let mut removed = ledger();
        removed.note(1, 0, "rmdir", None);
        told(&removed, &[], "stands in a directory whose removal was acknowledged");
        let mut twice = ledger();
        twice.made(4, false, "c".to_owned(), (Some(0), "f2".to_owned()));
        told(&twice, &[dir, file, below], "two were acknowledged to be d1\\f2");
    }
}
