//! What the pipes have to say: the server and its shares. MS-SRVS, MS-WKST.

use std::sync::Arc;

use shoal_protocol::dtyp::FileTime;
use shoal_protocol::rpc::{Answers, ServerEntry, ShareEntry, ShareKind as RpcKind, srvsvc};

use crate::Server;
use crate::config::Settings;
use crate::convert;
use crate::share::{ShareKind, Shares};

/// The version of Windows that clients are told of: 10, which speaks SMB 3.1.1.
const VERSION: (u32, u32) = (10, 0);

/// The server's answers at one moment.
pub struct Said {
    settings: Arc<Settings>,
    shares: Arc<Shares>,
}

impl Said {
    /// What `server` says now.
    pub fn new(server: &Server) -> Said {
        Said { settings: server.settings.load_full(), shares: server.shares.load_full() }
    }
}

impl Answers for Said {
    fn server(&self) -> ServerEntry {
        ServerEntry {
            name: self.settings.server_name.clone(),
            domain: self.settings.netbios_domain.clone(),
            comment: self.settings.comment.clone(),
            version_major: VERSION.0,
            version_minor: VERSION.1,
            server_type: srvsvc::TYPE_FILE_SERVER,
            users: u32::MAX,
        }
    }

    /// A hidden share is not told of; IPC$ is, and is marked so that clients leave it out where people look.
    fn shares(&self) -> Vec<ShareEntry> {
        self.shares
            .iter()
            .filter_map(|share| {
                let kind = match share.kind {
                    ShareKind::Disk { .. } if share.hidden => return None,
                    ShareKind::Disk { .. } => RpcKind::Disk,
                    ShareKind::Pipe => RpcKind::Ipc,
                };
                Some(ShareEntry {
                    name: share.name.clone(),
                    kind,
                    hidden: share.hidden,
                    comment: share.comment.clone(),
                    max_uses: u32::MAX,
                    ..ShareEntry::default()
                })
            })
            .collect()
    }

    fn now(&self) -> FileTime {
        convert::now()
    }
}
