//! FSCTL_PIPE_TRANSCEIVE, FSCTL_PIPE_PEEK and FSCTL_PIPE_WAIT: 3.3.5.15.3, .4, .10; MS-FSCC 2.3.

use bytes::BytesMut;
use shoal_protocol::NtStatus;
use shoal_protocol::fscc::fsctl::{PipePeek, PipeWait};
use shoal_protocol::rpc::Interface;
use shoal_protocol::smb2::FileId;
use shoal_protocol::smb2::ioctl::IoctlRequest;

use super::{answer, response};
use crate::context::Context;
use crate::pipe::Pipe;
use crate::reply::Reply;
use crate::state::open::{Object, Open};

/// FILE_PIPE_CONNECTED_STATE.
const CONNECTED: u32 = 3;

fn pipe_of(open: &Open) -> Result<&Pipe, NtStatus> {
    match &open.object {
        Object::Pipe(pipe) => Ok(pipe),
        Object::Disk(_) => Err(NtStatus::NOT_SUPPORTED),
    }
}

/// Writes to a pipe and reads its answer.
pub async fn transceive(cx: &Context, request: &IoctlRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    let pipe = pipe_of(&open)?;
    let max = request.max_output_response as usize;
    let message = cx.park(pipe.transceive(&cx.server, &request.input, max)).await??;
    let status = if message.more { NtStatus::BUFFER_OVERFLOW } else { NtStatus::SUCCESS };
    let mut response = response(request, message.bytes);
    response.file_id = open.id;
    Ok(Reply::with_status(status, response))
}

/// What there is to be read, without taking it.
pub fn peek(cx: &Context, request: &IoctlRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    let (messages, bytes, first) = pipe_of(&open)?.unread();
    let mut output = BytesMut::new();
    PipePeek {
        named_pipe_state: CONNECTED,
        read_data_available: bytes as u32,
        number_of_messages: messages as u32,
        message_length: first as u32,
    }
    .encode(&mut output);
    if (request.max_output_response as usize) < output.len() {
        return Err(NtStatus::BUFFER_TOO_SMALL);
    }
    Ok(answer(request, output.freeze()))
}

/// Every pipe that there is has room at any time.
pub fn wait(cx: &Context, request: &IoctlRequest) -> Result<Reply, NtStatus> {
    if request.file_id != FileId::RELATED {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if !cx.tree()?.share.is_pipe() {
        return Err(NtStatus::NOT_SUPPORTED);
    }
    let asked = PipeWait::parse(&request.input).map_err(|_| NtStatus::INVALID_PARAMETER)?;
    Interface::by_pipe_name(&asked.name).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
    Ok(answer(request, Default::default()))
}
