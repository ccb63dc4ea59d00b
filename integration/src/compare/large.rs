//! The workloads in a directory of 100,000 names: looking for one that is absent, listing it, and an ECHO behind that.

use std::path::Path;
use std::time::{Duration, Instant};

use shoal_protocol::NtStatus;
use shoal_protocol::smb2::{CreateOptions, FileId, Request, Response};

use super::contender::Contender;
use crate::checks::Failure;
use crate::client::{
    Connection, Protection, Reply, Result, Tree, Trouble, close, create, delete_on_close, echo,
    query_directory,
};

/// Names in the directory.
pub const MANY: usize = 100_000;
/// The directory's name.
const DIRECTORY: &str = "large";
/// Requests under way when the directory is made through the server.
const UNDER_WAY: usize = 64;
/// How long that may take before the server is left out of these workloads.
const PATIENCE: Duration = Duration::from_secs(120);

/// FILE_READ_DATA, FILE_READ_ATTRIBUTES, READ_CONTROL and SYNCHRONIZE.
const READING: u32 = 0x0012_0081;
const FILE_OPEN: u32 = 1;
const FILE_CREATE: u32 = 2;
/// FileIdBothDirectoryInformation: what Windows' clients list with.
const ID_BOTH_DIRECTORY: u8 = 37;
/// A page of a listing, as most clients ask for it.
const PAGE: u32 = 64 << 10;
/// A page that keeps a server busy for a while.
const LONG_PAGE: u32 = 1 << 20;

fn name(number: usize) -> String {
    format!("file-{number:06}.dat")
}

/// Makes the directory in a share that lies on this machine.
pub fn make_here(share: &Path) -> Result<(), Failure> {
    let path = share.join(DIRECTORY);
    let made = std::fs::create_dir(&path).and_then(|()| {
        (0..MANY).try_for_each(|number| std::fs::File::create(path.join(name(number))).map(drop))
    });
    made.map_err(|e| format!("cannot make {MANY} names in {}: {e}", path.display()))
}

/// Makes the directory through the server. False if it takes too long: what was made is then removed again.
pub async fn make_there(contender: &Contender) -> Result<bool> {
    let (mut connection, tree) = log_in(contender, Protection::Signed).await?;
    let options = CreateOptions::DIRECTORY_FILE.0;
    let made = Request::Create(create(DIRECTORY, READING, FILE_CREATE, options));
    connection.submit_chain(tree, vec![made, close(FileId::RELATED)], 0)?;
    let deadline = Instant::now() + PATIENCE;
    let make = |number| {
        let name = format!("{DIRECTORY}\\{}", name(number));
        Request::Create(create(&name, READING, FILE_CREATE, CreateOptions::NON_DIRECTORY_FILE.0))
    };
    let made = all(&mut connection, tree, MANY, Some(deadline), make).await?;
    if made == MANY {
        return Ok(true);
    }
    remove_some(&mut connection, tree, made).await?;
    Ok(false)
}

/// Removes the directory through the server.
pub async fn remove_there(contender: &Contender) -> Result<()> {
    let (mut connection, tree) = log_in(contender, Protection::Signed).await?;
    remove_some(&mut connection, tree, MANY).await
}

async fn remove_some(connection: &mut Connection, tree: Tree, count: usize) -> Result<()> {
    let remove = |number| delete_on_close(&format!("{DIRECTORY}\\{}", name(number)));
    all(connection, tree, count, None, remove).await?;
    connection.submit_chain(tree, vec![delete_on_close(DIRECTORY), close(FileId::RELATED)], 0)?;
    for _ in 0..2 {
        next(connection).await?.response()?;
    }
    Ok(())
}

/// Does `count` CREATEs, each with its CLOSE, many at a time. Says how many were done before the deadline.
async fn all(
    connection: &mut Connection,
    tree: Tree,
    count: usize,
    deadline: Option<Instant>,
    request: impl Fn(usize) -> Request,
) -> Result<usize> {
    let (mut sent, mut under_way) = (0, 0);
    loop {
        let late = deadline.is_some_and(|deadline| Instant::now() > deadline);
        while !late && sent < count && under_way < UNDER_WAY {
            connection.submit_chain(tree, vec![request(sent), close(FileId::RELATED)], 1)?;
            sent += 1;
            under_way += 1;
        }
        if under_way == 0 {
            return Ok(sent);
        }
        let reply = next(connection).await?;
        let is_close = matches!(reply.response()?, Response::Close(_));
        if is_close && reply.ticket == 1 {
            under_way -= 1;
        }
    }
}

async fn next(connection: &mut Connection) -> Result<Reply> {
    loop {
        match connection.next_reply() {
            Some(reply) => return Ok(reply),
            None => connection.progress().await?,
        }
    }
}

/// A connection that is logged in, and its tree.
pub async fn log_in(contender: &Contender, protection: Protection) -> Result<(Connection, Tree)> {
    let mut connection = Connection::connect(contender.address).await?;
    let session = connection.login(&contender.user, &contender.password, protection).await?;
    let tree = connection.tree_connect(session, &contender.share).await?;
    Ok((connection, tree))
}

/// What a turn took.
#[derive(Default)]
pub struct Timed {
    /// Operations; of a listing, names.
    pub operations: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Of each operation; of a listing, of each page.
    pub latencies: Vec<Duration>,
    /// Until a listing's first page was there.
    pub first_page: Option<Duration>,
}

/// A client at the directory.
pub struct Visitor {
    connection: Connection,
    tree: Tree,
    looked_for: u64,
}

impl Visitor {
    /// Logs in.
    pub async fn new(contender: &Contender) -> Result<Visitor> {
        let (connection, tree) = log_in(contender, Protection::Signed).await?;
        Ok(Visitor { connection, tree, looked_for: 0 })
    }

    /// Looks for so many names that are not there, in capitals; another each time.
    pub async fn open_absent(&mut self, operations: u64) -> Result<Timed> {
        let mut timed = Timed { operations, ..Timed::default() };
        let begun = Instant::now();
        let mut before = begun;
        for _ in 0..operations {
            let name = format!("{DIRECTORY}\\ABSENT-{:06}.DAT", self.looked_for);
            self.looked_for += 1;
            let request = create(&name, READING, FILE_OPEN, CreateOptions::NON_DIRECTORY_FILE.0);
            let reply = self.connection.exchange(self.tree, Request::Create(request)).await?;
            if reply.header.status != NtStatus::OBJECT_NAME_NOT_FOUND {
                return Err(Trouble::Broken(format!("{name}: {}", reply.header.status)));
            }
            let after = Instant::now();
            timed.latencies.push(after - before);
            before = after;
        }
        timed.elapsed = before - begun;
        Ok(timed)
    }

    async fn open(&mut self) -> Result<FileId> {
        let request = create(DIRECTORY, READING, FILE_OPEN, CreateOptions::DIRECTORY_FILE.0);
        match self.connection.exchange(self.tree, Request::Create(request)).await?.response()? {
            Response::Create(answer) => Ok(answer.file_id),
            _ => Err(Trouble::Broken("CREATE was answered with another command".to_owned())),
        }
    }

    /// Opens the directory, lists all of it, and closes it; the clock runs for the listing.
    pub async fn list(&mut self) -> Result<Timed> {
        let directory = self.open().await?;
        let mut timed = Timed::default();
        let begun = Instant::now();
        let mut before = begun;
        loop {
            let request = query_directory(directory, ID_BOTH_DIRECTORY, PAGE, timed.first_page.is_none());
            let reply = self.connection.exchange(self.tree, request).await?;
            let after = Instant::now();
            if reply.header.status == NtStatus::NO_MORE_FILES {
                timed.elapsed = after - begun;
                break;
            }
            timed.first_page.get_or_insert(after - begun);
            timed.latencies.push(after - before);
            timed.operations += page(&reply)?;
            before = after;
        }
        self.connection.exchange(self.tree, close(directory)).await?.response()?;
        whole(timed.operations)?;
        Ok(timed)
    }

    /// So many listings in long pages, with an ECHO in the same write as each: the latencies are the ECHOs'.
    pub async fn echo_behind_list(&mut self, listings: u64) -> Result<Timed> {
        let mut timed = Timed::default();
        for _ in 0..listings {
            let directory = self.open().await?;
            let begun = Instant::now();
            self.list_with_echoes(directory, &mut timed.latencies).await?;
            timed.elapsed += begun.elapsed();
            self.connection.exchange(self.tree, close(directory)).await?.response()?;
        }
        timed.operations = timed.latencies.len() as u64;
        Ok(timed)
    }

    async fn list_with_echoes(&mut self, directory: FileId, latencies: &mut Vec<Duration>) -> Result<()> {
        let length = LONG_PAGE.min(self.connection.max_transact_size);
        let mut names = 0;
        loop {
            let request = query_directory(directory, ID_BOTH_DIRECTORY, length, names == 0);
            self.connection.submit(self.tree, request, 1)?;
            self.connection.submit(self.tree, echo(), 2)?;
            let sent = Instant::now();
            let mut listed = None;
            for _ in 0..2 {
                let reply = next(&mut self.connection).await?;
                match reply.ticket {
                    1 => listed = Some(reply),
                    _ => latencies.push(sent.elapsed()),
                }
            }
            match listed {
                Some(reply) if reply.header.status != NtStatus::NO_MORE_FILES => names += page(&reply)?,
                _ => return whole(names),
            }
        }
    }
}

/// A listing must have every name, and may have `.` and `..`.
fn whole(names: u64) -> Result<()> {
    if (MANY as u64..=MANY as u64 + 2).contains(&names) {
        return Ok(());
    }
    Err(Trouble::Broken(format!("a listing of {MANY} names has {names}")))
}

/// How many entries a page has.
fn page(reply: &Reply) -> Result<u64> {
    match reply.response()? {
        Response::QueryDirectory(answer) => entries(&answer.buffer),
        _ => Err(Trouble::Broken("QUERY_DIRECTORY was answered with another command".to_owned())),
    }
}

fn entries(page: &[u8]) -> Result<u64> {
    let (mut at, mut count) = (0, 1);
    loop {
        let next = page.get(at..).and_then(|rest| rest.first_chunk::<4>());
        let next = next.ok_or_else(|| Trouble::Broken("a page that is cut short".to_owned()))?;
        match u32::from_le_bytes(*next) {
            0 => return Ok(count),
            next => at += next as usize,
        }
        count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_and_a_page_that_is_cut_short_is_an_error() {
        let mut two = vec![0; 48];
        two[0] = 24;
        assert_eq!(entries(&two).unwrap(), 2);
        assert!(entries(&two[..26]).is_err());
        assert!(entries(&[]).is_err());
    }

    #[test]
    fn a_listing_that_lacks_a_name_is_an_error() {
        for (names, ok) in [(MANY - 1, false), (MANY, true), (MANY + 2, true), (MANY + 3, false)] {
            assert_eq!(whole(names as u64).is_ok(), ok, "{names}");
        }
    }
}
