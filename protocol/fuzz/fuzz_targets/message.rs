//! One message in both directions. Bytes that begin with an SMB2 header are taken as they are; of others the first
//! names the command, and the rest is the body, so that the fuzzer need not find out about headers first.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use shoal_protocol::NtStatus;
use shoal_protocol::smb2::create::contexts;
use shoal_protocol::smb2::error::SymbolicLinkError;
use shoal_protocol::smb2::{Command, CreateContext, Header, OplockBreakNotification, Request, Response};

fn after_header(encode: impl Fn(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::zeroed(Header::LEN);
    encode(&mut out);
    out.freeze()
}

fn request(command: Command, message: &Bytes) {
    let Ok(request) = Request::parse(command, message) else { return };
    assert_eq!(request.command(), command);
    let again = Request::parse(command, &after_header(|out| request.encode(out))).expect("what was encoded");
    let once_more = Request::parse(command, &after_header(|out| again.encode(out)));
    assert_eq!(once_more.as_ref(), Ok(&again));
    if let Request::Create(create) = request {
        typed(&create.contexts);
    }
}

fn response(header: &Header, message: &Bytes) {
    let Ok(response) = Response::parse(header, message) else { return };
    let again = Response::parse(header, &after_header(|out| response.encode(out))).expect("what was encoded");
    let once_more = Response::parse(header, &after_header(|out| again.encode(out)));
    assert_eq!(once_more.as_ref(), Ok(&again));
    match response {
        Response::Create(create) => typed(&create.contexts),
        Response::Error(error) => {
            let _ = SymbolicLinkError::parse(error.error_data());
        }
        _ => {}
    }
}

fn typed(list: &[CreateContext]) {
    for context in list {
        let data = &context.data[..];
        let _ = contexts::AllocationSize::parse(data);
        let _ = contexts::Timewarp::parse(data);
        let _ = contexts::MaximalAccessRequest::parse(data);
        let _ = contexts::MaximalAccessResponse::parse(data);
        let _ = contexts::DiskIdResponse::parse(data);
        let _ = contexts::DurableReconnect::parse(data);
        let _ = contexts::DurableRequestV2::parse(data);
        let _ = contexts::DurableReconnectV2::parse(data);
        if let Ok(lease) = contexts::Lease::parse(data) {
            assert_eq!(contexts::Lease::parse(&lease.context().data), Ok(lease));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    if Header::is_smb2(data) {
        let message = Bytes::copy_from_slice(data);
        let Ok(header) = Header::parse(&message) else { return };
        request(header.command, &message);
        response(&header, &message);
        let _ = OplockBreakNotification::parse(&message);
        return;
    }
    let Some((&number, body)) = data.split_first() else { return };
    let command = Command::ALL[usize::from(number) % Command::ALL.len()];
    let mut message = BytesMut::zeroed(Header::LEN);
    message.extend_from_slice(body);
    let message = message.freeze();
    request(command, &message);
    for status in [NtStatus::SUCCESS, NtStatus::INVALID_PARAMETER] {
        response(&Header { status, ..Header::request(command) }, &message);
    }
    let _ = OplockBreakNotification::parse(&message);
});
