//! What the check of the containers runs inside a client: a writer that remembers what the server promised and looks
//! for it later, and a holder of locks whom another waits to see gone.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::{
    FileId, FlushRequest, LockElement, LockRequest, ReadRequest, Request, Response, ShareAccess, WriteRequest,
};

use crate::checks::{Checks, Failure, demand};
use crate::client::{Client, Trouble, create};
use crate::random::Random;

/// `integration witness`.
#[derive(clap::Args)]
pub struct Options {
    /// What to do
    #[arg(value_enum)]
    role: Role,
    /// The server
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// User and password
    #[arg(long, value_name = "NAME%PASSWORD")]
    user: String,
    /// The share
    #[arg(long, default_value = "data")]
    share: String,
    /// What the files' names begin with
    #[arg(long)]
    name: String,
    /// Where a writer keeps how much was acknowledged
    #[arg(long, value_name = "FILE", default_value = "/tmp/acknowledged")]
    record: PathBuf,
    /// How long to go on, or to wait
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Role {
    /// Write and flush until the server goes away, and record what was acknowledged
    Write,
    /// Look for what was acknowledged
    Verify,
    /// Open a file for itself alone, lock a range of another, and write until killed
    Hold,
    /// Be refused what another holds
    Refused,
    /// Wait until what another holds is free
    Take,
}

/// Files that one writer fills at the same time, over a connection each.
const FILES: usize = 4;
/// What is written between two flushes.
const BLOCK: usize = 16 << 10;
/// What a holder writes at a time.
const HELD_WRITE: usize = 64 << 10;
const READ_WRITE: u32 = 0x0012_019F;
const FILE_OPEN: u32 = 1;
const FILE_OPEN_IF: u32 = 3;
const FILE_OVERWRITE_IF: u32 = 5;
const NO_SHARING: ShareAccess = ShareAccess(0);
/// How often a taker tries.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// `integration witness`.
pub fn run(checks: &mut Checks, options: &Options) {
    let outcome = match options.role {
        Role::Write => write(options),
        Role::Verify => verify(options),
        Role::Hold => hold(options),
        Role::Refused => refused(options),
        Role::Take => take(options),
    };
    checks.check("witness", || outcome);
}

/// Block `index` of a file: nothing that another block, file or writer has.
fn block(name: &str, file: usize, index: u64) -> Bytes {
    let mut seed = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (file as u64) << 56;
    for byte in name.bytes() {
        seed = seed.rotate_left(7) ^ u64::from(byte);
    }
    let mut random = Random::new(seed);
    let mut content = Vec::with_capacity(BLOCK);
    content.extend_from_slice(&index.to_le_bytes());
    while content.len() < BLOCK {
        content.extend_from_slice(&(random.below(1 << 31) as u32).to_le_bytes());
    }
    Bytes::from(content)
}

fn file_name(options: &Options, file: usize) -> String {
    format!("{}-{file}", options.name)
}

async fn connect(options: &Options) -> Result<Client, Failure> {
    let mut found = options.server.to_socket_addrs().map_err(|e| format!("{}: {e}", options.server))?;
    let address: SocketAddr = found.next().ok_or_else(|| format!("{} has no address", options.server))?;
    let (user, password) = options.user.split_once('%').ok_or("--user wants NAME%PASSWORD")?;
    let mut client = Client::connect(address).await.map_err(|e| format!("connecting: {e}"))?;
    client.login(user, password, &options.share).await.map_err(|e| format!("logging in: {e}"))?;
    Ok(client)
}

#[tokio::main(flavor = "current_thread")]
async fn write(options: &Options) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let mut writers = Vec::new();
    for file in 0..FILES {
        let mut client = connect(options).await?;
        let name = options.name.clone();
        let made =
            client.create(create(&file_name(options, file), READ_WRITE, FILE_OVERWRITE_IF, 0x40)).await;
        let made = made.map_err(|e| format!("making {}: {e}", file_name(options, file)))?;
        writers.push(tokio::spawn(async move {
            let mut acknowledged = 0;
            while Instant::now() < deadline {
                match write_and_flush(&mut client, made.file_id, &name, file, acknowledged).await {
                    Ok(()) => acknowledged += 1,
                    // The server is gone: what it acknowledged counts.
                    Err(Trouble::Broken(why)) => return Ok((acknowledged, why)),
                    Err(Trouble::Status(status)) => {
                        return Err(format!("block {acknowledged} was answered with {status}"));
                    }
                }
            }
            Ok((acknowledged, "the time was over".to_owned()))
        }));
    }
    let mut record = String::new();
    let mut total = 0;
    for (file, writer) in writers.into_iter().enumerate() {
        let (acknowledged, why) = writer.await.map_err(|e| e.to_string())??;
        println!("{}: {acknowledged} flushes acknowledged, then: {why}", file_name(options, file));
        record.push_str(&format!("{file} {acknowledged}\n"));
        total += acknowledged;
    }
    std::fs::write(&options.record, record).map_err(|e| format!("{}: {e}", options.record.display()))?;
    demand(total > 0, || "no flush was acknowledged at all".to_owned())
}

async fn write_and_flush(
    client: &mut Client,
    file_id: FileId,
    name: &str,
    file: usize,
    index: u64,
) -> Result<(), Trouble> {
    write_at(client, file_id, index * BLOCK as u64, block(name, file, index)).await?;
    client.call(&Request::Flush(FlushRequest { file_id })).await.map(drop)
}

async fn write_at(client: &mut Client, file_id: FileId, offset: u64, data: Bytes) -> Result<(), Trouble> {
    let length = data.len();
    let request = WriteRequest { offset, file_id, channel: 0, remaining_bytes: 0, flags: 0, data };
    match client.call(&Request::Write(request)).await? {
        (_, Response::Write(answer)) if answer.count as usize == length => Ok(()),
        (_, answer) => {
            Err(Trouble::Broken(format!("a WRITE of {length} bytes was answered with {answer:?}")))
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn verify(options: &Options) -> Result<(), Failure> {
    let record =
        std::fs::read_to_string(&options.record).map_err(|e| format!("{}: {e}", options.record.display()))?;
    let mut client = connect(options).await?;
    let mut total = 0;
    for line in record.lines() {
        let numbers = line.split_once(' ').and_then(|(file, acknowledged)| {
            Some((file.parse::<usize>().ok()?, acknowledged.parse::<u64>().ok()?))
        });
        let (file, acknowledged) = numbers.ok_or_else(|| format!("not a record: {line}"))?;
        let name = file_name(options, file);
        let there = client.create(create(&name, READ_WRITE, FILE_OPEN, 0x40)).await;
        let file_id = there.map_err(|e| format!("opening {name}: {e}"))?.file_id;
        for index in 0..acknowledged {
            let request = ReadRequest {
                flags: 0,
                length: BLOCK as u32,
                offset: index * BLOCK as u64,
                file_id,
                minimum_count: 0,
                channel: 0,
                remaining_bytes: 0,
                channel_info: Bytes::new(),
            };
            let data = match client.call(&Request::Read(request)).await {
                Ok((_, Response::Read(answer))) => answer.data,
                Ok((_, answer)) => return Err(format!("a READ was answered with {answer:?}")),
                Err(trouble) => {
                    return Err(format!("{name}: block {index} of {acknowledged} flushed ones: {trouble}"));
                }
            };
            demand(data == block(&options.name, file, index), || {
                format!("{name}: block {index} of {acknowledged} flushed ones is not what was written")
            })?;
        }
        client.close(file_id).await.map_err(|e| format!("closing {name}: {e}"))?;
        total += acknowledged;
    }
    println!("{total} flushed blocks are there");
    demand(total > 0, || "the record promises nothing".to_owned())
}

/// Opens the file that nobody else may have while it is open.
async fn open_alone(client: &mut Client, options: &Options, disposition: u32) -> Result<FileId, Trouble> {
    let mut request = create(&format!("{}-alone", options.name), READ_WRITE, disposition, 0x40);
    request.share_access = NO_SHARING;
    client.create(request).await.map(|answer| answer.file_id)
}

/// Opens the other file and locks its beginning.
async fn lock_range(client: &mut Client, options: &Options, disposition: u32) -> Result<(), Trouble> {
    let request = create(&format!("{}-range", options.name), READ_WRITE, disposition, 0x40);
    let file_id = client.create(request).await?.file_id;
    let range =
        LockElement { offset: 0, length: 100, flags: LockElement::EXCLUSIVE | LockElement::FAIL_IMMEDIATELY };
    let request = LockRequest { lock_sequence: 0, file_id, locks: vec![range] };
    match client.call(&Request::Lock(request)).await {
        Ok(_) => Ok(()),
        Err(trouble) => {
            client.close(file_id).await?;
            Err(trouble)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn hold(options: &Options) -> Result<(), Failure> {
    let mut client = connect(options).await?;
    let told = |e: Trouble| format!("holding: {e}");
    let alone = open_alone(&mut client, options, FILE_OPEN_IF).await.map_err(told)?;
    lock_range(&mut client, options, FILE_OPEN_IF).await.map_err(told)?;
    let content = Bytes::from(vec![b'h'; HELD_WRITE]);
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let mut written = 0u64;
    while Instant::now() < deadline {
        // A file of 64 MiB, over and over.
        write_at(&mut client, alone, written % 1024 * HELD_WRITE as u64, content.clone())
            .await
            .map_err(told)?;
        written += 1;
        if written == 64 {
            println!("holding");
        }
    }
    Err(format!("nobody ended the holder for {} s", options.seconds))
}

#[tokio::main(flavor = "current_thread")]
async fn refused(options: &Options) -> Result<(), Failure> {
    let mut client = connect(options).await?;
    match open_alone(&mut client, options, FILE_OPEN).await {
        Err(Trouble::Status(NtStatus::SHARING_VIOLATION)) => {}
        Err(trouble) => return Err(format!("what another has open alone: {trouble}")),
        Ok(_) => return Err("what another has open alone could be opened".to_owned()),
    }
    match lock_range(&mut client, options, FILE_OPEN).await {
        Err(Trouble::Status(NtStatus::LOCK_NOT_GRANTED)) => Ok(()),
        Err(trouble) => Err(format!("what another has locked: {trouble}")),
        Ok(()) => Err("what another has locked could be locked".to_owned()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn take(options: &Options) -> Result<(), Failure> {
    let mut client = connect(options).await?;
    let begun = Instant::now();
    let (mut alone, mut range) = (None, None);
    loop {
        if alone.is_none() {
            alone = match open_alone(&mut client, options, FILE_OPEN).await {
                Ok(_) => Some(begun.elapsed()),
                Err(Trouble::Status(NtStatus::SHARING_VIOLATION)) => None,
                Err(trouble) => return Err(format!("taking the file: {trouble}")),
            };
        }
        if range.is_none() {
            range = match lock_range(&mut client, options, FILE_OPEN).await {
                Ok(()) => Some(begun.elapsed()),
                Err(Trouble::Status(NtStatus::LOCK_NOT_GRANTED)) => None,
                Err(trouble) => return Err(format!("taking the range: {trouble}")),
            };
        }
        if let (Some(alone), Some(range)) = (alone, range) {
            println!("the file was free after {alone:.1?}, the range after {range:.1?}");
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(options.seconds) {
            return Err(format!(
                "after {} s, file free: {}, range free: {}",
                options.seconds,
                alone.is_some(),
                range.is_some()
            ));
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}
