//! The tokens of a session setup: several to one handshake, each behind its length in two bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_protocol::auth::{Acceptor, Accounts, Initiator, Lookup, Step, TargetInfo, nt_hash, spnego};
use shoal_protocol::dtyp::FileTime;
use zeroize::Zeroizing;

struct One;

impl Accounts for One {
    fn nt_hash(&self, user: &str, _: &str) -> Lookup {
        match user {
            "user" => Lookup::Hash(Zeroizing::new(nt_hash("password"))),
            "disabled" => Lookup::Disabled,
            _ => Lookup::Unknown,
        }
    }

    fn guest_ok(&self) -> bool {
        true
    }
}

fn tokens(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<2>()?;
        let (token, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        data = rest;
        Some(token)
    })
}

fuzz_target!(|data: &[u8]| {
    let _ = spnego::Token::parse(data);

    let target = TargetInfo {
        netbios_computer: "SERVER".into(),
        netbios_domain: "GROUP".into(),
        dns_computer: "server.test".into(),
        dns_domain: String::new(),
    };
    let mut acceptor = Acceptor::new(target);
    for token in tokens(data) {
        match acceptor.step(token, FileTime(1), [7; 8], &One) {
            Step::Continue { acceptor: next, .. } => acceptor = next,
            Step::Done(_) | Step::Failed(_) => break,
        }
    }

    let mut initiator = Initiator::new("user", "password", "GROUP");
    let _ = initiator.first();
    for token in tokens(data) {
        if initiator.next(token).is_err() {
            break;
        }
    }
});
