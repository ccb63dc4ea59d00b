//! Many clients at once in one directory: each creates, renames and removes, and the end state must be what the
//! acknowledged operations say.
//!
//! Every client has names of its own and fights with all others for a few shared ones. A name's ledger counts
//! acknowledged arrivals (creates, renames to it) minus departures (removes, renames away): at the end it is 1 if the
//! name exists and 0 if it does not, and nothing else may be in the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::FileId;

use crate::checks::{Checks, Failure, demand};
use crate::client::{Client, Trouble, create, rename_information};
use crate::random::Random;
use crate::scratch::Scratch;
use crate::server::{PASSWORD, Server, USER};

/// `cargo integration crowd`.
#[derive(clap::Args)]
pub struct Options {
    /// How many clients
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Operations of each client on the memory share
    #[arg(long, default_value_t = 10_000)]
    operations: usize,
    /// Operations of each client on the directory share
    #[arg(long, default_value_t = 10_000)]
    directory_operations: usize,
    /// The seed of what they do
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { clients: 64, operations: 10_000, directory_operations: 10_000, seed: 1 }
    }
}

/// Names that all clients want.
const SHARED: usize = 16;
/// Own files that a client keeps at most at a time.
const OWN_MAX: usize = 6;
const GENERIC_ALL_BUT_SHARE: u32 = 0x0013_0197;
/// To list and no more: nobody may be renamed in a directory that another has open for DELETE.
const LIST_DIRECTORY: u32 = 0x0010_0081;
const FILE_CREATE: u32 = 2;
const FILE_OPEN: u32 = 1;
const RENAME_INFORMATION: u8 = 10;
const DISPOSITION_INFORMATION: u8 = 13;

/// Acknowledged arrivals minus departures of each name.
type Ledger = BTreeMap<String, i64>;

/// `cargo integration crowd`.
pub fn run(checks: &mut Checks, options: &Options) {
    let scratch = Scratch::new("crowd");
    let share = scratch.directory("share");
    let shares = ["memory=memory:".to_owned(), format!("share={}", share.display())];
    let mut server = match Server::start(scratch.path(), &shares) {
        Ok(server) => server,
        Err(why) => return checks.record("crowd: server", Err(why)),
    };
    let runs = [
        ("memory", options.operations, None),
        ("share", options.directory_operations, Some(share.join("dir"))),
    ];
    for (name, operations, local) in runs {
        let what = format!(
            "crowd: {} clients x {operations} operations in one directory of {name}",
            options.clients
        );
        checks.check(&what, || {
            crowd(&server, name, options, operations, local.as_deref())?;
            server.must_run()?;
            server.must_not_have_panicked()
        });
    }
    checks.check("crowd: the server ends at SIGTERM", || server.stop());
}

#[tokio::main]
async fn crowd(
    server: &Server,
    share: &'static str,
    options: &Options,
    operations: usize,
    local: Option<&Path>,
) -> Result<(), Failure> {
    let address = server.address;
    let told = |trouble: Trouble| trouble.to_string();
    let mut first = Client::connect(address).await.map_err(told)?;
    first.login(USER, PASSWORD, share).await.map_err(told)?;
    let made = first.create(create("dir", LIST_DIRECTORY, FILE_CREATE, 1)).await.map_err(told)?;

    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..options.clients {
        let seed = options.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number as u64);
        tasks.spawn(async move {
            let mut client = Client::connect(address).await?;
            client.login(USER, PASSWORD, share).await?;
            let mut member = Member {
                client,
                number,
                random: Random::new(seed),
                open: Vec::new(),
                named: 0,
                ledger: Ledger::new(),
            };
            for _ in 0..operations {
                member.step().await?;
            }
            for (name, file) in std::mem::take(&mut member.open) {
                member
                    .client
                    .close(file)
                    .await
                    .map_err(|e| Trouble::Broken(format!("closing {name}: {e}")))?;
            }
            Ok::<Ledger, Trouble>(member.ledger)
        });
    }
    let mut total = Ledger::new();
    while let Some(ended) = tasks.join_next().await {
        let ledger = ended.map_err(|e| format!("a client: {e}"))?.map_err(|e| format!("a client: {e}"))?;
        for (name, count) in ledger {
            *total.entry(name).or_default() += count;
        }
    }
    if let Some((name, count)) = total.iter().find(|(_, count)| !(0..=1).contains(*count)) {
        return Err(format!("{name} was acknowledged to exist {count} times at once"));
    }
    let expected: BTreeSet<String> =
        total.into_iter().filter(|(_, count)| *count == 1).map(|(name, _)| name).collect();
    let listed: BTreeSet<String> = first.names(made.file_id).await.map_err(told)?.into_iter().collect();
    same(&expected, &listed, "the listing")?;
    // A name that is listed can be opened, and none other.
    for name in (0..SHARED).map(shared_name).chain(expected.iter().take(50).cloned()) {
        let there = match first.create(create(&format!("dir\\{name}"), 0x80, FILE_OPEN, 0)).await {
            Ok(answer) => {
                first.close(answer.file_id).await.map_err(told)?;
                true
            }
            Err(Trouble::Status(NtStatus::OBJECT_NAME_NOT_FOUND)) => false,
            Err(trouble) => return Err(format!("opening {name}: {trouble}")),
        };
        demand(there == expected.contains(&name), || {
            format!("opening {name} finds it: {there}, listed: {}", !there)
        })?;
    }
    if let Some(local) = local {
        let entries = std::fs::read_dir(local).map_err(|e| format!("{}: {e}", local.display()))?;
        let on_disk: BTreeSet<String> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        same(&expected, &on_disk, "the disk")?;
    }
    first.close(made.file_id).await.map_err(told)
}

fn same(expected: &BTreeSet<String>, found: &BTreeSet<String>, whose: &str) -> Result<(), Failure> {
    let lacking: Vec<&String> = expected.difference(found).take(5).collect();
    let more: Vec<&String> = found.difference(expected).take(5).collect();
    demand(lacking.is_empty() && more.is_empty(), || {
        format!(
            "{whose} has {} names, {} were acknowledged; lacking: {lacking:?}; too many: {more:?}",
            found.len(),
            expected.len()
        )
    })
}

fn shared_name(number: usize) -> String {
    format!("shared-{number:02}")
}

struct Member {
    client: Client,
    number: usize,
    random: Random,
    /// Files that this client holds open, by their present names.
    open: Vec<(String, FileId)>,
    named: u64,
    ledger: Ledger,
}

impl Member {
    /// One operation, and its entry in the ledger if it was acknowledged.
    async fn step(&mut self) -> Result<(), Trouble> {
        let choice = self.random.below(3);
        if self.open.is_empty() || (choice == 0 && self.open.len() < OWN_MAX) {
            self.create().await
        } else if choice == 1 {
            self.rename().await
        } else {
            self.remove().await
        }
    }

    fn fresh_name(&mut self) -> String {
        if self.random.below(4) == 0 {
            return shared_name(self.random.below(SHARED));
        }
        self.named += 1;
        format!("client-{:02}-file-{}", self.number, self.named)
    }

    async fn create(&mut self) -> Result<(), Trouble> {
        let name = self.fresh_name();
        let request = create(&format!("dir\\{name}"), GENERIC_ALL_BUT_SHARE, FILE_CREATE, 0x40);
        match self.client.create(request).await {
            Ok(answer) => {
                self.open.push((name.clone(), answer.file_id));
                *self.ledger.entry(name).or_default() += 1;
                Ok(())
            }
            // Somebody has the name, or is removing it.
            Err(Trouble::Status(NtStatus::OBJECT_NAME_COLLISION | NtStatus::DELETE_PENDING)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    async fn rename(&mut self) -> Result<(), Trouble> {
        let which = self.random.below(self.open.len());
        let to = self.fresh_name();
        let information = rename_information(&format!("dir\\{to}"), false);
        match self.client.set_info(self.open[which].1, RENAME_INFORMATION, information).await {
            Ok(()) => {
                let from = std::mem::replace(&mut self.open[which].0, to.clone());
                *self.ledger.entry(from).or_default() -= 1;
                *self.ledger.entry(to).or_default() += 1;
                Ok(())
            }
            Err(Trouble::Status(NtStatus::OBJECT_NAME_COLLISION | NtStatus::DELETE_PENDING)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    async fn remove(&mut self) -> Result<(), Trouble> {
        let which = self.random.below(self.open.len());
        let (name, file) = self.open.swap_remove(which);
        // One in eight is closed and stays: the end state must not be empty.
        if self.random.below(8) != 0 {
            self.client.set_info(file, DISPOSITION_INFORMATION, Bytes::from_static(&[1])).await?;
            *self.ledger.entry(name).or_default() -= 1;
        }
        self.client.close(file).await
    }
}
