//! SMB2 IOCTL: 2.2.31 and 2.2.32; processing in 3.3.5.15.
//!
//! One `match`: what is served, and what is refused with which status.

mod copychunk;
mod pipe;
mod sparse;
mod validate_negotiate;

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use shoal_protocol::NtStatus;
use shoal_protocol::dtyp::Guid;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::fsctl::{CompressionFormat, Fsctl, ObjectId, encode_snapshots};
use shoal_protocol::smb2::FileId;
use shoal_protocol::smb2::ioctl::{IoctlRequest, IoctlResponse};

use crate::access;
use crate::context::Context;
use crate::convert;
use crate::reply::Reply;

/// The least room that SRV_ENUMERATE_SNAPSHOTS must have for its answer (3.3.5.15.1).
const SNAPSHOTS_LEAST: u32 = 16;

/// smbtorture's private code for "put padding into READ responses from now on", by which it tests its own library.
const TORTURE_READ_PADDING: Fsctl = Fsctl(0x8384_8023);

/// How much padding, in bytes.
const READ_PADDING: u8 = 8;

/// COMPRESSION_FORMAT_NONE.
const COMPRESSION_NONE: u16 = 0;

/// Answers an IOCTL.
pub async fn handle(cx: &Context, request: IoctlRequest) -> Result<Reply, NtStatus> {
    // 3.3.5.15: "If the Flags field is not SMB2_0_IOCTL_IS_FSCTL ... STATUS_NOT_SUPPORTED".
    if request.flags & IoctlRequest::IS_FSCTL == 0 {
        return Err(NtStatus::NOT_SUPPORTED);
    }
    match Fsctl(request.ctl_code) {
        // These are about the connection or the server, not about an open (3.3.5.15: FileId is all ones).
        Fsctl::VALIDATE_NEGOTIATE_INFO => validate_negotiate::handle(cx, &request).await,
        Fsctl::DFS_GET_REFERRALS | Fsctl::DFS_GET_REFERRALS_EX => {
            // 3.3.5.15.2: this server is in no DFS.
            if request.file_id != FileId::RELATED {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            Err(NtStatus::FS_DRIVER_REQUIRED)
        }
        Fsctl::PIPE_WAIT => pipe::wait(cx, &request),
        Fsctl::PIPE_TRANSCEIVE => pipe::transceive(cx, &request).await,
        Fsctl::PIPE_PEEK => pipe::peek(cx, &request),

        Fsctl::SRV_REQUEST_RESUME_KEY => copychunk::resume_key(cx, &request),
        Fsctl::SRV_COPYCHUNK | Fsctl::SRV_COPYCHUNK_WRITE => copychunk::copy(cx, &request).await,
        Fsctl::SRV_ENUMERATE_SNAPSHOTS => {
            cx.open(request.file_id)?.disk()?;
            if request.max_output_response < SNAPSHOTS_LEAST {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            Ok(answer(&request, encode_snapshots(&[], request.max_output_response as usize)))
        }

        Fsctl::SET_SPARSE => sparse::set_sparse(cx, &request).await,
        Fsctl::SET_ZERO_DATA => sparse::set_zero_data(cx, &request).await,
        Fsctl::QUERY_ALLOCATED_RANGES => sparse::query_allocated_ranges(cx, &request).await,
        Fsctl::GET_COMPRESSION => {
            cx.open(request.file_id)?.disk()?;
            let mut output = BytesMut::new();
            CompressionFormat { format: COMPRESSION_NONE }.encode(&mut output);
            if (request.max_output_response as usize) < output.len() {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            Ok(answer(&request, output.freeze()))
        }
        Fsctl::SET_COMPRESSION => {
            let open = cx.open(request.file_id)?;
            open.disk()?;
            access::require(open.granted_access, AccessMask::WRITE_DATA)?;
            match CompressionFormat::parse(&request.input) {
                Ok(CompressionFormat { format: COMPRESSION_NONE }) => Ok(answer(&request, Bytes::new())),
                Ok(_) => Err(NtStatus::NOT_SUPPORTED),
                Err(_) => Err(NtStatus::INVALID_PARAMETER),
            }
        }
        Fsctl::GET_REPARSE_POINT | Fsctl::DELETE_REPARSE_POINT => {
            cx.open(request.file_id)?.disk()?;
            Err(NtStatus::NOT_A_REPARSE_POINT)
        }
        Fsctl::CREATE_OR_GET_OBJECT_ID | Fsctl::GET_OBJECT_ID => object_id(cx, &request).await,
        Fsctl::QUERY_NETWORK_INTERFACE_INFO => Err(NtStatus::INVALID_DEVICE_REQUEST),
        TORTURE_READ_PADDING if cx.connection.settings.torture_controls => {
            cx.connection.read_padding.store(READ_PADDING, Ordering::Relaxed);
            Ok(answer(&request, Bytes::new()))
        }
        // What clients of Windows try and do without: resilient handles, offloaded copies, shared blocks, ...
        _ => {
            cx.open(request.file_id)?;
            Err(NtStatus::INVALID_DEVICE_REQUEST)
        }
    }
}

/// An id of the file that is the same as long as the file and its volume are: made of their numbers, not stored.
async fn object_id(cx: &Context, request: &IoctlRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    let facts = convert::current_facts(open.disk()?).await?;
    let id = |high: u64, low: u64| Guid((u128::from(high) << 64 | u128::from(low)).to_le_bytes());
    let object_id = id(facts.volume, facts.index_number);
    let answered = ObjectId {
        object_id,
        birth_volume_id: id(0, facts.volume),
        birth_object_id: object_id,
        domain_id: Guid([0; 16]),
    };
    if (request.max_output_response as usize) < ObjectId::LEN {
        return Err(NtStatus::BUFFER_TOO_SMALL);
    }
    let mut output = BytesMut::new();
    answered.encode(&mut output);
    Ok(answer(request, output.freeze()))
}

/// An answer with `output`.
fn answer(request: &IoctlRequest, output: Bytes) -> Reply {
    response(request, output).into()
}

fn response(request: &IoctlRequest, output: Bytes) -> IoctlResponse {
    IoctlResponse {
        ctl_code: request.ctl_code,
        file_id: request.file_id,
        flags: 0,
        input: Bytes::new(),
        output,
    }
}
