//! A payload as the server receives it, up to where the commands begin.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use shoal_protocol::smb2::{Header, Request, TransformHeader, compound};
use shoal_protocol::{frame, smb1};

fuzz_target!(|data: &[u8]| {
    if let Ok(Some(length)) = frame::length(data) {
        assert_eq!(frame::prefix(length), data[..frame::HEADER]);
    }
    let payload = Bytes::copy_from_slice(data);
    if let Ok(request) = smb1::NegotiateRequest::parse(&payload) {
        let mut out = BytesMut::new();
        request.encode(&mut out);
        assert_eq!(smb1::NegotiateRequest::parse(&out.freeze()), Ok(request));
    }
    if let Ok(header) = TransformHeader::parse(&payload) {
        let mut out = BytesMut::new();
        header.encode(&mut out);
        assert_eq!(out[TransformHeader::AAD_AT..], header.aad());
        assert_eq!(header.original_message_size as usize, payload.len() - TransformHeader::LEN);
    }
    let Ok(messages) = compound::split(&payload) else { return };
    assert_eq!(messages.iter().map(Bytes::len).sum::<usize>(), payload.len());
    for message in &messages {
        assert!(message.len() >= Header::LEN);
        if let Ok((header, number)) = Header::parse_unknown(message) {
            let mut out = BytesMut::new();
            header.encode_unknown(number, &mut out);
            assert_eq!(out, message[..Header::LEN]);
        }
        if let Ok(header) = Header::parse(message) {
            let _ = Request::parse(header.command, message);
        }
    }
});
