//! The create contexts that this server reads and answers: MS-SMB2 2.2.13.2 and 2.2.14.2; processing in 3.3.5.9.1 to .14.

use shoal_protocol::NtStatus;
use shoal_protocol::smb2::create::CreateContext;
use shoal_protocol::smb2::create::contexts::{
    self, AllocationSize, DiskIdResponse, MaximalAccessRequest, MaximalAccessResponse, Timewarp,
};

use crate::access;
use crate::convert::Facts;
use crate::state::tree::TreeConnect;

/// What the contexts of a request ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// MxAc: the rights that the user could have.
    pub maximal_access: Option<MaximalAccessRequest>,
    /// QFid: the file's number and its volume's.
    pub disk_id: bool,
    /// AlSi: bytes to set aside for a new or overwritten file.
    pub allocation_size: u64,
}

impl Asked {
    /// Reads the contexts. Those that ask for what is not there (durable handles, leases) go unanswered, as MS-SMB2 wants it; a
    /// descriptor for a new file (SecD) has no effect, as on a file system that keeps none.
    pub fn parse(list: &[CreateContext]) -> Result<Asked, NtStatus> {
        let mut asked = Asked::default();
        let malformed = |_| NtStatus::INVALID_PARAMETER;
        for context in list {
            // 2.2.13.2: "The length ... MUST be ... 4 bytes or greater".
            if context.name.len() < 4 {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            match &context.name[..] {
                contexts::EA_BUFFER if !context.data.is_empty() => {
                    return Err(NtStatus::EAS_NOT_SUPPORTED);
                }
                contexts::MAXIMAL_ACCESS => {
                    asked.maximal_access =
                        Some(MaximalAccessRequest::parse(&context.data).map_err(malformed)?);
                }
                contexts::DISK_ID => asked.disk_id = true,
                contexts::ALLOCATION_SIZE => {
                    asked.allocation_size = AllocationSize::parse(&context.data).map_err(malformed)?.0;
                }
                // There are no snapshots.
                contexts::TIMEWARP if Timewarp::parse(&context.data).map_err(malformed)?.0.0 != 0 => {
                    return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
                }
                // 3.3.5.9.7, 3.3.5.9.12: a durable handle that is to be taken up again cannot be known.
                contexts::DURABLE_RECONNECT | contexts::DURABLE_RECONNECT_V2 => {
                    return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
                }
                _ => {}
            }
        }
        Ok(asked)
    }

    /// The answers, now that the file is open.
    pub fn answer(&self, tree: &TreeConnect, facts: &Facts, volume_id: u64) -> Vec<CreateContext> {
        let mut answers = Vec::new();
        if let Some(request) = self.maximal_access {
            // 3.3.5.9.5: a client that knows the file by its time needs no answer.
            let known = request.timestamp.is_some_and(|time| time.0 != 0 && time == facts.last_write_time);
            let response = if known {
                MaximalAccessResponse { status: NtStatus::NONE_MAPPED, access: Default::default() }
            } else {
                MaximalAccessResponse {
                    status: NtStatus::SUCCESS,
                    access: access::maximal(tree.maximal_access),
                }
            };
            answers.push(response.context());
        }
        if self.disk_id {
            answers.push(DiskIdResponse { file_id: facts.index_number, volume_id }.context());
        }
        answers
    }
}
