//! What the servers race in: each workload's material, its operation, and how many there are in a turn.

use std::time::{Duration, Instant};

use bytes::Bytes;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::{
    EchoRequest, FileId, QueryDirectoryRequest, ReadRequest, Request, Response, WriteRequest,
};
use shoal_protocol::{Utf16, smb2};

use crate::client::{Client, Result, Trouble, create, rename_information};

/// Names in a directory before the run.
pub const NAMES: usize = 2_000;
/// Names in the large directory.
pub const MANY: usize = 100_000;
/// The large directory's own name.
pub const LARGE: &str = "large";
/// Bytes of the file that is read and written.
pub const FILE_SIZE: usize = 16 << 20;
/// Its name.
const FILE: &str = "data";
/// Handles that renames take turns on.
const HANDLES: u64 = 64;

/// FILE_READ_DATA, FILE_READ_ATTRIBUTES, READ_CONTROL and SYNCHRONIZE.
const READING: u32 = 0x0012_0081;
/// The same with FILE_WRITE_DATA, for files that are made or written.
const WRITING: u32 = 0x0012_0083;
/// DELETE, for renames and removals.
const REMOVING: u32 = 0x0001_0080;
const FILE_OPEN: u32 = 1;
const FILE_CREATE: u32 = 2;
const DIRECTORY_FILE: u32 = 0x0000_0001;
const NON_DIRECTORY_FILE: u32 = 0x0000_0040;
const DELETE_ON_CLOSE: u32 = 0x0000_1000;
const RENAME_INFORMATION: u8 = 10;
/// FileIdBothDirectoryInformation: what Windows' clients list with.
const ID_BOTH_DIRECTORY: u8 = 37;
/// A page of a listing, as most clients ask for it.
const PAGE: u32 = 65_536;

/// One of the things that servers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// CREATE of a new name, and CLOSE.
    CreateClose,
    /// CREATE that opens a name for reading, and CLOSE.
    OpenClose,
    /// CREATE that opens a name which is not there in any case, another each time.
    OpenAbsent,
    /// The same in the large directory.
    OpenAbsentLarge,
    /// SET_INFO that renames an open file.
    Rename,
    /// CREATE with DELETE_ON_CLOSE, and CLOSE.
    Unlink,
    /// ECHO.
    Echo,
    /// READ of 4 KiB.
    Read4k,
    /// WRITE of 4 KiB.
    Write4k,
    /// QUERY_DIRECTORY until the large directory has been listed.
    List,
    /// ECHO right behind each QUERY_DIRECTORY of such a listing.
    EchoBehindList,
    /// What a server holds with no client.
    MemoryIdle,
    /// What it holds more for each client that is logged in and idle.
    MemoryPerConnection,
}

impl Workload {
    /// All, in the order of the table.
    pub const ALL: &[Workload] = &[
        Workload::CreateClose,
        Workload::OpenClose,
        Workload::OpenAbsent,
        Workload::OpenAbsentLarge,
        Workload::Rename,
        Workload::Unlink,
        Workload::Echo,
        Workload::Read4k,
        Workload::Write4k,
        Workload::List,
        Workload::EchoBehindList,
        Workload::MemoryIdle,
        Workload::MemoryPerConnection,
    ];

    /// Its name in tables, lines and arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Workload::CreateClose => "create+close",
            Workload::OpenClose => "open+close",
            Workload::OpenAbsent => "open-absent",
            Workload::OpenAbsentLarge => "open-absent-100k",
            Workload::Rename => "rename",
            Workload::Unlink => "unlink",
            Workload::Echo => "echo",
            Workload::Read4k => "read-4k",
            Workload::Write4k => "write-4k",
            Workload::List => "list-100k",
            Workload::EchoBehindList => "echo-behind-list",
            Workload::MemoryIdle => "memory-idle",
            Workload::MemoryPerConnection => "memory-per-connection",
        }
    }

    /// Whether it needs the large directory.
    pub const fn is_large(self) -> bool {
        matches!(self, Workload::OpenAbsentLarge | Workload::List | Workload::EchoBehindList)
    }

    /// Whether it is about memory, and so no client's turn.
    pub const fn is_memory(self) -> bool {
        matches!(self, Workload::MemoryIdle | Workload::MemoryPerConnection)
    }

    /// Operations in a turn of the quick run: of a server whose names cost the same however many there are, and of one
    /// that scans directories (it would sit here for minutes otherwise; its books are kept in nanoseconds as well).
    pub const fn operations(self, scans: bool) -> u64 {
        match (self, scans) {
            (Workload::CreateClose | Workload::Rename | Workload::Unlink, true) => 300,
            (Workload::OpenClose | Workload::OpenAbsent, true) => 600,
            (Workload::OpenAbsentLarge, true) => 12,
            (Workload::Read4k | Workload::Write4k, true) => 1_500,
            (Workload::List | Workload::EchoBehindList, _) => 1,
            (Workload::MemoryIdle | Workload::MemoryPerConnection, _) => 0,
            (Workload::Echo, _) => 5_000,
            (_, false) => 3_000,
        }
    }

    /// Operations before those that count: the server has the directory at hand, and its code and the client's are warm.
    pub const fn warm_up(self, scans: bool) -> u64 {
        match (self, scans) {
            (Workload::List | Workload::EchoBehindList, _) => 0,
            (Workload::OpenAbsentLarge, true) => 2,
            (_, true) => 30,
            (_, false) => 200,
        }
    }

    /// Names that the turn's own directory must have: [`NAMES`], and those that the turn uses up.
    pub const fn names(self, operations: u64) -> usize {
        match self {
            Workload::CreateClose | Workload::OpenClose | Workload::OpenAbsent | Workload::Rename => NAMES,
            Workload::Unlink => NAMES + operations as usize,
            _ => 0,
        }
    }

    /// Whether the turn reads or writes the file.
    pub const fn has_file(self) -> bool {
        matches!(self, Workload::Read4k | Workload::Write4k)
    }
}

impl std::str::FromStr for Workload {
    type Err = String;

    fn from_str(name: &str) -> Result<Workload, String> {
        Workload::ALL.iter().copied().find(|workload| workload.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Workload::ALL.iter().map(|workload| workload.name()).collect();
            format!("there are: {}", names.join(", "))
        })
    }
}

/// The name of the `number`th file that is there before the run.
pub fn name(number: usize) -> String {
    format!("file-{number:06}.dat")
}

/// Where the file that is read and written lies in a turn's directory.
pub fn file_in(directory: &str) -> String {
    format!("{directory}\\{FILE}")
}

/// What a turn took.
#[derive(Clone, Debug, Default)]
pub struct Timed {
    /// Operations; of a listing, names.
    pub operations: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Of each operation.
    pub latencies: Vec<Duration>,
    /// Until a listing's first page was there.
    pub first_page: Option<Duration>,
}

/// A client at the start of a turn, with all open that the operations need.
pub struct Turn {
    client: Client,
    workload: Workload,
    directory: String,
    handles: Vec<FileId>,
    data: Bytes,
    next: u64,
}

impl Turn {
    /// Opens what `workload` needs in `directory`.
    pub async fn new(client: Client, workload: Workload, directory: &str) -> Result<Turn> {
        let directory = if workload.is_large() { LARGE } else { directory }.to_owned();
        let mut turn = Turn { client, workload, directory, handles: Vec::new(), data: Bytes::new(), next: 0 };
        match workload {
            Workload::Rename => {
                for number in 0..HANDLES as usize {
                    let name = format!("{}\\{}", turn.directory, name(number));
                    turn.open(&name, REMOVING, NON_DIRECTORY_FILE).await?;
                }
            }
            _ if workload.has_file() => {
                let name = file_in(&turn.directory);
                turn.open(&name, WRITING, NON_DIRECTORY_FILE).await?;
                turn.data = Bytes::from(vec![0x5A; turn.length()]);
            }
            Workload::List | Workload::EchoBehindList => {
                let name = turn.directory.clone();
                turn.open(&name, READING, DIRECTORY_FILE).await?;
            }
            _ => {}
        }
        Ok(turn)
    }

    async fn open(&mut self, name: &str, access: u32, options: u32) -> Result<()> {
        let answer = self.client.create(create(name, access, FILE_OPEN, options)).await?;
        self.handles.push(answer.file_id);
        Ok(())
    }

    /// Bytes of a READ or WRITE.
    const fn length(&self) -> usize {
        4 << 10
    }

    /// Does `operations`, and says what they took.
    pub async fn run(&mut self, operations: u64) -> Result<Timed> {
        match self.workload {
            Workload::List => return self.list().await,
            Workload::EchoBehindList => return self.echo_behind_list().await,
            _ => {}
        }
        let mut latencies = Vec::with_capacity(operations as usize);
        let begun = Instant::now();
        let mut before = begun;
        for _ in 0..operations {
            let number = self.next;
            self.next += 1;
            self.operation(number).await?;
            let after = Instant::now();
            latencies.push(after - before);
            before = after;
        }
        Ok(Timed { operations, elapsed: before - begun, latencies, first_page: None })
    }

    /// Ends the client's side in order.
    pub async fn finish(mut self) -> Result<()> {
        for handle in std::mem::take(&mut self.handles) {
            self.client.close(handle).await?;
        }
        Ok(())
    }

    async fn operation(&mut self, number: u64) -> Result<()> {
        match self.workload {
            Workload::CreateClose => {
                let name = format!("{}\\new-{number:06}.dat", self.directory);
                self.create_and_close(&name, WRITING, FILE_CREATE, NON_DIRECTORY_FILE).await
            }
            Workload::OpenClose => {
                // A stride that is prime to the count, so that neighbours are not neighbours in the directory.
                let name = format!("{}\\{}", self.directory, name(number as usize * 677 % NAMES));
                self.create_and_close(&name, READING, FILE_OPEN, NON_DIRECTORY_FILE).await
            }
            Workload::OpenAbsent | Workload::OpenAbsentLarge => {
                let name = format!("{}\\Absent-{number:06}.DAT", self.directory);
                match self.client.create(create(&name, READING, FILE_OPEN, NON_DIRECTORY_FILE)).await {
                    Err(Trouble::Status(NtStatus::OBJECT_NAME_NOT_FOUND)) => Ok(()),
                    Ok(_) => Err(Trouble::Broken(format!("{name} is there"))),
                    Err(trouble) => Err(trouble),
                }
            }
            Workload::Rename => {
                let handle = self.handles[(number % HANDLES) as usize];
                let to = rename_information(&format!("{}\\moved-{number:06}.dat", self.directory), false);
                self.client.set_info(handle, RENAME_INFORMATION, to).await
            }
            Workload::Unlink => {
                let name = format!("{}\\{}", self.directory, name(number as usize));
                let options = NON_DIRECTORY_FILE | DELETE_ON_CLOSE;
                self.create_and_close(&name, REMOVING, FILE_OPEN, options).await
            }
            Workload::Echo => self.client.call(&Request::Echo(EchoRequest {})).await.map(drop),
            Workload::Read4k => {
                let length = self.length();
                let request = Request::Read(ReadRequest {
                    length: length as u32,
                    offset: self.place(number),
                    file_id: self.handles[0],
                    ..ReadRequest::default()
                });
                match self.client.call(&request).await? {
                    (_, Response::Read(answer)) if answer.data.len() == length => Ok(()),
                    _ => Err(Trouble::Broken("a READ that is short".to_owned())),
                }
            }
            Workload::Write4k => {
                let request = Request::Write(WriteRequest {
                    offset: self.place(number),
                    file_id: self.handles[0],
                    data: self.data.clone(),
                    ..WriteRequest::default()
                });
                self.client.call(&request).await.map(drop)
            }
            Workload::List
            | Workload::EchoBehindList
            | Workload::MemoryIdle
            | Workload::MemoryPerConnection => {
                Err(Trouble::Broken("not an operation that is repeated".to_owned()))
            }
        }
    }

    /// Where in the file the `number`th READ or WRITE is.
    fn place(&self, number: u64) -> u64 {
        let blocks = (FILE_SIZE / self.length()) as u64;
        number % blocks * self.length() as u64
    }

    async fn create_and_close(
        &mut self,
        name: &str,
        access: u32,
        disposition: u32,
        options: u32,
    ) -> Result<()> {
        let answer = self.client.create(create(name, access, disposition, options)).await?;
        self.client.close(answer.file_id).await
    }

    fn page(&self, first: bool) -> Request {
        Request::QueryDirectory(QueryDirectoryRequest {
            file_information_class: ID_BOTH_DIRECTORY,
            flags: if first { QueryDirectoryRequest::RESTART_SCANS } else { 0 },
            file_index: 0,
            file_id: self.handles[0],
            output_buffer_length: PAGE,
            search_pattern: Utf16::from("*"),
        })
    }

    async fn list(&mut self) -> Result<Timed> {
        let mut timed = Timed::default();
        let begun = Instant::now();
        let mut before = begun;
        loop {
            let answer = match self.client.call(&self.page(timed.first_page.is_none())).await {
                Ok((_, Response::QueryDirectory(answer))) => answer,
                Ok(_) => return Err(Trouble::Broken("QUERY_DIRECTORY answered with another".to_owned())),
                Err(Trouble::Status(NtStatus::NO_MORE_FILES)) => break,
                Err(trouble) => return Err(trouble),
            };
            let after = Instant::now();
            timed.first_page.get_or_insert(after - begun);
            timed.latencies.push(after - before);
            timed.operations += entries(&answer.buffer)?;
            before = after;
        }
        timed.elapsed = begun.elapsed();
        whole(timed.operations)?;
        Ok(timed)
    }

    /// The latencies are the ECHOs'.
    async fn echo_behind_list(&mut self) -> Result<Timed> {
        let mut timed = Timed::default();
        let mut names = 0;
        let begun = Instant::now();
        loop {
            let page = self.page(names == 0);
            let listing = self.client.request(&page);
            let echo = self.client.request(&Request::Echo(EchoRequest {}));
            self.client.send(&listing).await?;
            self.client.send(&echo).await?;
            let sent = Instant::now();
            let (mut listed, mut echoed) = (None, false);
            while listed.is_none() || !echoed {
                let (header, message) = self.client.receive().await?;
                if header.status == NtStatus::PENDING {
                    continue;
                }
                if header.command == smb2::Command::Echo {
                    timed.latencies.push(sent.elapsed());
                    echoed = true;
                } else {
                    listed = Some((header, message));
                }
            }
            let Some((header, message)) = listed else { break };
            let answer = Response::parse(&header, &message);
            match answer.map_err(|e| Trouble::Broken(format!("response: {e}")))? {
                Response::QueryDirectory(answer) => names += entries(&answer.buffer)?,
                _ if header.status == NtStatus::NO_MORE_FILES => break,
                _ => return Err(Trouble::Status(header.status)),
            }
        }
        timed.operations = timed.latencies.len() as u64;
        timed.elapsed = begun.elapsed();
        whole(names)?;
        Ok(timed)
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
