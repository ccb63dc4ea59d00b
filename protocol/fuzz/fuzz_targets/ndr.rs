//! What a client writes to the pipes of IPC$, and what a server answers to our client.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use shoal_protocol::dtyp::FileTime;
use shoal_protocol::rpc::pdu::{self, Pdu};
use shoal_protocol::rpc::pipe::Pipe;
use shoal_protocol::rpc::{Answers, Interface, ServerEntry, ShareEntry, srvsvc, wkssvc};

struct Few;

impl Answers for Few {
    fn server(&self) -> ServerEntry {
        ServerEntry { name: "SERVER".into(), domain: "GROUP".into(), ..ServerEntry::default() }
    }

    fn shares(&self) -> Vec<ShareEntry> {
        let share = |name: &str| ShareEntry { name: name.into(), ..ShareEntry::default() };
        vec![share("one"), share("two")]
    }

    fn now(&self) -> FileTime {
        FileTime(1)
    }
}

fuzz_target!(|data: &[u8]| {
    let _ = pdu::length(data);
    let _ = Pdu::parse(&Bytes::copy_from_slice(data));
    let _ = srvsvc::ShareEnumRequest::parse(data);
    let _ = srvsvc::ShareEnumResponse::parse(data);
    for opnum in [15, 16, 21, 28, 0xFFFF] {
        let _ = srvsvc::call(opnum, data, &Few);
    }
    let _ = wkssvc::call(0, data, &Few);

    for interface in [Interface::Srvsvc, Interface::Wkssvc] {
        let mut pipe = Pipe::new(interface);
        // In pieces, as a client may write.
        for piece in data.chunks(1 + data.len() / 3) {
            if pipe.write(piece, &Few).is_err() {
                break;
            }
        }
        while pipe.read(100).is_some() {}
    }
});
