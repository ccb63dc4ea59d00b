//! Sharing suites out among programs that know nothing of each other but the share that they all test.
//!
//! Who creates the file that stands for a suite has the suite, and holds the file open with delete-on-close: whatever
//! ends a program, its claims go with its connection. A claim is kept until nobody works any more, because a suite whose
//! claim is gone would be taken once again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shoal_protocol::NtStatus;
use shoal_protocol::smb2::FileId;
use tokio::runtime::Runtime;

use crate::checks::Failure;
use crate::client::{Client, Trouble, create};

/// Where the claims stand on the share.
const DIRECTORY: &str = "smbtorture-suites";
const READ_AND_DELETE: u32 = 0x0011_0081;
const FILE_CREATE: u32 = 2;
const FILE_OPEN_IF: u32 = 3;
const DIRECTORY_FILE: u32 = 0x0000_0001;
const DELETE_ON_CLOSE: u32 = 0x0000_1000;
/// How often it is asked whether others still work.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// One program's claims, for as long as it lives.
pub struct Claims {
    runtime: Runtime,
    client: Client,
    /// The file that says to the others that this program still works.
    working: FileId,
}

impl Claims {
    /// Joins those who share out work on `share`.
    pub fn join(address: SocketAddr, user: &str, password: &str, share: &str) -> Result<Claims, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("tokio: {e}"))?;
        let made = runtime.block_on(async {
            let mut client = Client::connect(address).await?;
            client.login(user, password, share).await?;
            let request = create(DIRECTORY, READ_AND_DELETE, FILE_OPEN_IF, DIRECTORY_FILE);
            let directory = client.create(request).await?.file_id;
            client.close(directory).await?;
            let mut id = [0; 8];
            shoal_protocol::crypto::random(&mut id);
            let name = format!("{DIRECTORY}\\working-{:016x}", u64::from_le_bytes(id));
            let request = create(&name, READ_AND_DELETE, FILE_CREATE, DELETE_ON_CLOSE);
            let working = client.create(request).await?.file_id;
            Ok::<_, Trouble>((client, working))
        });
        let (client, working) = made.map_err(|e| format!("joining the others: {e}"))?;
        Ok(Claims { runtime, client, working })
    }

    /// Whether `suite` is this program's to run.
    pub fn claim(&mut self, suite: &str) -> Result<bool, Failure> {
        let request = create(&format!("{DIRECTORY}\\{suite}"), READ_AND_DELETE, FILE_CREATE, DELETE_ON_CLOSE);
        match self.runtime.block_on(self.client.create(request)) {
            Ok(_) => Ok(true),
            Err(Trouble::Status(NtStatus::OBJECT_NAME_COLLISION | NtStatus::DELETE_PENDING)) => Ok(false),
            Err(trouble) => Err(format!("claiming {suite}: {trouble}")),
        }
    }

    /// Says that this program works no more, and waits until that is true of all.
    pub fn leave(mut self, patience: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        self.runtime
            .block_on(self.client.close(self.working))
            .map_err(|e| format!("leaving the others: {e}"))?;
        loop {
            let names = self.runtime.block_on(async {
                let listing = create(DIRECTORY, READ_AND_DELETE, FILE_OPEN_IF, DIRECTORY_FILE);
                let listing = self.client.create(listing).await?.file_id;
                let names = self.client.names(listing).await?;
                self.client.close(listing).await?;
                Ok::<_, Trouble>(names)
            });
            let names = names.map_err(|e| format!("asking who still works: {e}"))?;
            let working = names.iter().filter(|name| name.starts_with("working-")).count();
            if working == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{working} others still worked after {patience:?}"));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}
