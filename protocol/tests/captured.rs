//! What other implementations really send: each file of `testdata/` is one message, header included, as a client or
//! server put it on the wire. All must parse, and come out the same after encoding and parsing again; damaged ones
//! must not do harm.
//!
//! `SHOAL_CAPTURES=DIR cargo test -p shoal-protocol --test captured` does the same with a directory of your own.

use bytes::{Bytes, BytesMut};
use shoal_protocol::smb2::{
    Command, Header, MessageId, OplockBreakNotification, Request, Response, TransformHeader, compound,
};
use shoal_protocol::{Malformed, smb1};
use std::path::{Path, PathBuf};

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "bin"));
    files.sort();
    files
}

fn after_header(encode: impl Fn(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::zeroed(Header::LEN);
    encode(&mut out);
    out.freeze()
}

fn check(message: &Bytes) -> Result<(), Malformed> {
    if smb1::is_smb1(message) {
        let request = smb1::NegotiateRequest::parse(message)?;
        assert!(request.offers_smb_2_wildcard() || request.offers_smb_2_002());
        return Ok(());
    }
    let header = Header::parse(message)?;
    let mut out = BytesMut::new();
    header.encode(&mut out);
    assert_eq!(out, message[..Header::LEN], "the header");

    if !header.is_response() {
        let request = Request::parse(header.command, message)?;
        let again = after_header(|out| request.encode(out));
        assert_eq!(Request::parse(header.command, &again)?, request);
    } else if header.command == Command::OplockBreak && header.message_id == MessageId::UNSOLICITED {
        let notification = OplockBreakNotification::parse(message)?;
        let again = after_header(|out| notification.encode(out));
        assert_eq!(again[Header::LEN..], message[Header::LEN..]);
    } else {
        let response = Response::parse(&header, message)?;
        let again = after_header(|out| response.encode(out));
        assert_eq!(Response::parse(&header, &again)?, response);
    }
    Ok(())
}

/// Checks every file; gives the number of messages, and what was wrong with which.
fn check_all(directory: &Path) -> (usize, Vec<String>) {
    let (mut count, mut wrong) = (0, Vec::new());
    for file in files(directory) {
        let payload = Bytes::from(std::fs::read(&file).unwrap());
        let name = file.file_name().unwrap().to_string_lossy();
        let messages = if TransformHeader::is_transform(&payload) {
            TransformHeader::parse(&payload).map(|_| Vec::new())
        } else if smb1::is_smb1(&payload) {
            Ok(vec![payload])
        } else {
            compound::split(&payload)
        };
        match messages {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(messages) => {
                for message in messages {
                    count += 1;
                    if let Err(error) = check(&message) {
                        wrong.push(format!("{name}: {error}: {message:?}"));
                    }
                }
            }
        }
    }
    (count, wrong)
}

#[test]
fn testdata() {
    let (count, wrong) = check_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"));
    assert!(count > 0, "no captured message was found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn own_captures() {
    if let Some(directory) = std::env::var_os("SHOAL_CAPTURES") {
        let (count, wrong) = check_all(Path::new(&directory));
        assert!(wrong.is_empty(), "{} of {count} messages: {wrong:#?}", wrong.len());
    }
}

/// xorshift64*: what it damages is the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What parses, however damaged, must have a fixed point: encoding and parsing changes it at most once.
fn settle(message: &Bytes) {
    let Ok(header) = Header::parse(message) else { return };
    if let Ok(request) = Request::parse(header.command, message) {
        let again = Request::parse(header.command, &after_header(|out| request.encode(out))).unwrap();
        let once_more = Request::parse(header.command, &after_header(|out| again.encode(out)));
        assert_eq!(once_more.as_ref(), Ok(&again));
    }
    if let Ok(response) = Response::parse(&header, message) {
        let again = Response::parse(&header, &after_header(|out| response.encode(out))).unwrap();
        let once_more = Response::parse(&header, &after_header(|out| again.encode(out)));
        assert_eq!(once_more.as_ref(), Ok(&again));
    }
    let _ = OplockBreakNotification::parse(message);
}

#[test]
fn damaged() {
    const EDGES: [u32; 8] = [0, 1, 7, 0x40, 0x7FFF, 0xFFFF, 0x8000_0000, 0xFFFF_FFFF];
    let mut random = Random(0x5EED);
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")) {
        let whole = std::fs::read(&file).unwrap();
        for _ in 0..1000 {
            let mut payload = whole.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(payload.len());
                match random.below(4) {
                    0 => payload.truncate(at.max(1)),
                    1 => payload[at] = random.next() as u8,
                    2 => payload[at] ^= 1 << random.below(8),
                    _ => {
                        let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
                        let end = payload.len().min(at + 1 + random.below(4));
                        payload[at..end].copy_from_slice(&edge[..end - at]);
                    }
                }
            }
            let payload = Bytes::from(payload);
            let _ = smb1::NegotiateRequest::parse(&payload);
            let _ = TransformHeader::parse(&payload);
            for message in compound::split(&payload).unwrap_or_default() {
                settle(&message);
            }
        }
    }
}
