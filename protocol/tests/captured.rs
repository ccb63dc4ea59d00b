//! What other implementations really send: each file of `testdata/` is one message, header included, as a client or
//! server put it on the wire. All must parse, and come out the same after encoding and parsing again.
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
