//! What the server shares: the Share object of MS-SMB2 3.3.1.6 and the table of them.
//!
//! A table never changes; a reload makes a new one, which keeps the `Arc<Share>` of every share whose settings stay the
//! same. A tree connect holds its own share, so a client that is connected to a removed share goes on until it leaves.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use shoal_vfs::local::{self, Local};
use shoal_vfs::memory::{self, MemoryOptions};
use shoal_vfs::{Backend, Coherence, Fold, FsError, Root, Vfs, latency};

use crate::config::{Limits, Settings, ShareSettings, Target, reason};
use crate::state::file::NodeState;

/// The name of the share that carries the named pipes.
pub const IPC: &str = "IPC$";

/// One share.
pub struct Share {
    /// Its name as configured; clients find it in any case.
    pub name: String,
    /// What it shows to somebody who lists shares.
    pub comment: String,
    /// What is behind it.
    pub kind: ShareKind,
    /// Nobody changes anything in it.
    pub read_only: bool,
    /// Guests and anonymous users may connect.
    pub guest: bool,
    /// Only encrypted requests are served (Share.EncryptData).
    pub encrypt: bool,
    /// Not listed, but connectable.
    pub hidden: bool,
    /// What it was made from: the same settings keep the same share over a reload.
    settings: Option<ShareSettings>,
}

/// What a share serves.
pub enum ShareKind {
    /// Files below a root.
    Disk {
        /// The mounted root.
        root: Root<NodeState>,
    },
    /// The named pipes (IPC$).
    Pipe,
}

impl Share {
    /// The root of a disk share; `None` for IPC$.
    pub fn root(&self) -> Option<&Root<NodeState>> {
        match &self.kind {
            ShareKind::Disk { root } => Some(root),
            ShareKind::Pipe => None,
        }
    }

    /// Whether this is IPC$.
    pub fn is_pipe(&self) -> bool {
        matches!(self.kind, ShareKind::Pipe)
    }

    fn ipc() -> Share {
        Share {
            name: IPC.to_owned(),
            comment: "IPC Service".to_owned(),
            kind: ShareKind::Pipe,
            read_only: false,
            guest: true,
            encrypt: false,
            hidden: true,
            settings: None,
        }
    }

    async fn mount(
        vfs: &Arc<Vfs<NodeState>>,
        settings: &ShareSettings,
        limits: &Limits,
    ) -> Result<Share, ShareError> {
        let target = settings.target.to_string();
        let failed = |cause: OpenError| ShareError { share: settings.name.clone(), target, cause };
        let fold = if settings.insensitive { Fold::Insensitive } else { Fold::Sensitive };
        let backend = match backend(&settings.target, fold, settings.coherence, limits).await {
            Ok(backend) => backend,
            Err(cause) => return Err(failed(cause)),
        };
        let root = vfs.mount(backend, fold).await.map_err(|error| failed(error.into()))?;
        Ok(Share {
            name: settings.name.clone(),
            comment: settings.comment.clone(),
            kind: ShareKind::Disk { root },
            read_only: settings.read_only,
            guest: settings.guest,
            encrypt: settings.encrypt,
            hidden: settings.hidden,
            settings: Some(settings.clone()),
        })
    }
}

/// A share that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("share \"{share}\": {target}: {cause}")]
pub struct ShareError {
    /// The share's name.
    pub share: String,
    /// What it should have shared.
    pub target: String,
    /// Why not.
    pub cause: OpenError,
}

/// Why a target could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system's answer for a directory.
    #[error("{}", reason(.0))]
    Directory(#[from] io::Error),
    /// The storage's answer when its root was asked for.
    #[error(transparent)]
    Root(#[from] FsError),
}

/// The shares of one moment, by name.
#[derive(Default)]
pub struct Shares {
    by_name: HashMap<String, Arc<Share>>,
    in_order: Vec<Arc<Share>>,
}

impl Shares {
    /// Opens everything that `settings` name; a share of `before` with the same settings is kept as it is.
    pub async fn open(
        vfs: &Arc<Vfs<NodeState>>,
        settings: &Settings,
        before: Option<&Shares>,
    ) -> Result<Shares, ShareError> {
        let mut shares = Shares::default();
        let ipc = before.and_then(|before| before.find(IPC)).unwrap_or_else(|| Arc::new(Share::ipc()));
        shares.insert(ipc);
        for wanted in &settings.shares {
            let kept = before
                .and_then(|before| before.find(&wanted.name))
                .filter(|share| share.settings.as_ref() == Some(wanted));
            let share = match kept {
                Some(share) => share,
                None => Arc::new(Share::mount(vfs, wanted, &settings.limits).await?),
            };
            shares.insert(share);
        }
        Ok(shares)
    }

    fn insert(&mut self, share: Arc<Share>) {
        self.by_name.insert(key(&share.name), share.clone());
        self.in_order.push(share);
    }

    /// The share of this name, in any case.
    pub fn find(&self, name: &str) -> Option<Arc<Share>> {
        self.by_name.get(&key(name)).cloned()
    }

    /// All shares, IPC$ first, then in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Share>> {
        self.in_order.iter()
    }
}

fn key(name: &str) -> String {
    name.to_lowercase()
}

async fn backend(
    target: &Target,
    fold: Fold,
    coherence: Option<Coherence>,
    limits: &Limits,
) -> Result<Arc<dyn Backend>, OpenError> {
    Ok(match target {
        Target::Directory(path) => {
            Arc::new(Local::open(path, local::Options { coherence, ..local::Options::default() })?)
        }
        Target::Memory => {
            let limit = limits.memory_share_size;
            memory::Memory::new(MemoryOptions { fold, limit, ..MemoryOptions::default() })
        }
        Target::Latency(delay, inner) => {
            let inner = Box::pin(backend(inner, fold, coherence, limits)).await?;
            Arc::new(latency::Latency::new(inner, *delay))
        }
    })
}
