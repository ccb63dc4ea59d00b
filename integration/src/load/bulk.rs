//! Material made and removed outside the clock: chains of CREATE and CLOSE, many under way.

use bytes::Bytes;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::{CreateOptions, FileId, Request};

use crate::client::{Connection, Result, Tree, Trouble, close, create, delete_on_close, write};

/// One thing to be made or removed, by its path in the share.
pub enum Job {
    /// An empty file.
    Make(String),
    /// A file with this content.
    Fill(String, Bytes),
    /// A directory.
    MakeDirectory(String),
    /// A file goes. That it is not there is no error.
    Remove(String),
    /// An empty directory goes.
    RemoveDirectory(String),
}

/// Chains under way at a time.
const WINDOW: usize = 32;
const FILE_CREATE: u32 = 2;
const FILE_OVERWRITE_IF: u32 = 5;
const ACCESS: u32 = 0x0013_0197;
const DELETE: u32 = 0x0001_0000;

impl Job {
    fn chain(&self) -> Vec<Request> {
        let directory = CreateOptions::DIRECTORY_FILE.0;
        let (name, opening) = match self {
            Job::Make(name) => (name, Request::Create(create(name, ACCESS, FILE_CREATE, 0))),
            Job::Fill(name, data) => {
                let opening = Request::Create(create(name, ACCESS, FILE_OVERWRITE_IF, 0));
                return vec![opening, write(FileId::RELATED, 0, data.clone()), close(FileId::RELATED)];
            }
            Job::MakeDirectory(name) => (name, Request::Create(create(name, ACCESS, FILE_CREATE, directory))),
            Job::Remove(name) => (name, delete_on_close(name)),
            Job::RemoveDirectory(name) => {
                let options = directory | CreateOptions::DELETE_ON_CLOSE.0;
                (name, Request::Create(create(name, DELETE, 1, options)))
            }
        };
        debug_assert!(!name.is_empty());
        vec![opening, close(FileId::RELATED)]
    }

    fn may_end_in(&self, status: NtStatus) -> bool {
        status == NtStatus::SUCCESS
            || (matches!(self, Job::Remove(_)) && status == NtStatus::OBJECT_NAME_NOT_FOUND)
    }

    fn name(&self) -> &str {
        match self {
            Job::Make(name)
            | Job::Fill(name, _)
            | Job::MakeDirectory(name)
            | Job::Remove(name)
            | Job::RemoveDirectory(name) => name,
        }
    }
}

/// Does all jobs. They are begun in their order, but not ended in it: none may need another.
pub async fn work_off(connection: &mut Connection, tree: Tree, jobs: &[Job]) -> Result<()> {
    let (mut next, mut under_way) = (0, 0);
    while next < jobs.len() || under_way > 0 {
        while under_way < WINDOW && next < jobs.len() {
            let chain = jobs[next].chain();
            connection.submit_chain(tree, chain, next as u64)?;
            (next, under_way) = (next + 1, under_way + 1);
        }
        connection.progress().await?;
        while let Some(reply) = connection.next_reply() {
            let job = &jobs[reply.ticket as usize];
            if !job.may_end_in(reply.header.status) {
                let (command, status) = (reply.header.command, reply.header.status);
                return Err(Trouble::Broken(format!("{command:?} of {}: {status}", job.name())));
            }
            if reply.header.command == shoal_protocol::smb2::Command::Close {
                under_way -= 1;
            }
        }
    }
    Ok(())
}
