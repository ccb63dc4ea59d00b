//! Mutated messages thrown at a running server, before and after login: it must stay up, flat in memory, and serve the
//! next client.
//!
//! After login the mutated message is signed again, so that it gets past the signature into the parsers and handlers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shoal_protocol::auth::Initiator;
use shoal_protocol::smb2::{
    ChangeNotifyRequest, CloseRequest, EchoRequest, FileId, FlushRequest, IoctlRequest, LockElement,
    LockRequest, QueryDirectoryRequest, QueryInfoRequest, ReadRequest, Request, SetInfoRequest,
    TreeConnectRequest, WriteRequest,
};
use shoal_protocol::{NtStatus, Utf16};

use crate::checks::{Checks, Failure, demand};
use crate::client::{Client, Trouble, create, negotiate, rename_information, session_setup};
use crate::random::Random;
use crate::scratch::Scratch;
use crate::server::{PASSWORD, Server, USER};
use crate::smbclient::{ANY_WAY, smbclient};

/// `cargo integration hostile`.
#[derive(clap::Args)]
pub struct Options {
    /// Mutated messages before login, and again after it
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// The seed of the mutations
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { messages: 100_000, seed: 1 }
    }
}

/// Connections that throw at once.
const THROWERS: u64 = 4;
/// Messages on one connection before it is replaced.
const PER_CONNECTION: u64 = 400;
/// Growth of the server's memory that is taken for noise of the allocator.
const GROWTH_MAX_KIB: u64 = 24 * 1024;

/// `cargo integration hostile`.
pub fn run(checks: &mut Checks, options: &Options) {
    let scratch = Scratch::new("hostile");
    let share = format!("share={}", scratch.directory("share").display());
    let mut server = match Server::start(scratch.path(), &[share]) {
        Ok(server) => server,
        Err(why) => return checks.record("hostile: server", Err(why)),
    };
    for logged_in in [false, true] {
        let when = if logged_in { "after" } else { "before" };
        checks.check(&format!("hostile: {} mutated messages {when} login", options.messages), || {
            // Pools and tables fill up first; only what grows after that is a leak.
            storm(&server, options.messages / 10, options.seed ^ 0x5EED, logged_in)?;
            let before = server.resident_kib()?;
            storm(&server, options.messages, options.seed, logged_in)?;
            server.must_run()?;
            server.must_not_have_panicked()?;
            let after = server.resident_kib()?;
            println!("                          resident memory: {before} KiB, then {after} KiB");
            demand(after < before + GROWTH_MAX_KIB, || format!("memory grew from {before} to {after} KiB"))?;
            let here = Scratch::new("next");
            std::fs::write(here.path().join("f"), b"text").map_err(|e| e.to_string())?;
            smbclient(server.port(), "share", ANY_WAY, here.path(), "put f next; ls next; del next").map(drop)
        });
    }
    checks.check("hostile: the server ends at SIGTERM", || server.stop());
}

#[tokio::main]
async fn storm(server: &Server, messages: u64, seed: u64, logged_in: bool) -> Result<(), Failure> {
    let address = server.address;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..THROWERS {
        tasks.spawn(async move {
            let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number));
            let mut thrown = 0;
            while thrown < messages / THROWERS {
                // A server that refuses connections for a moment is defending itself; one that stays away is down.
                let mut client = connect(address, logged_in).await?;
                thrown += volley(&mut client, &mut random, logged_in).await;
            }
            Ok::<(), Failure>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|e| e.to_string())??;
    }
    Ok(())
}

async fn connect(address: std::net::SocketAddr, logged_in: bool) -> Result<Client, Failure> {
    let mut last = String::new();
    for attempt in 0..20u64 {
        let made = async {
            let mut client = Client::connect(address).await?;
            if logged_in {
                client.login(USER, PASSWORD, "share").await?;
            }
            Ok::<Client, Trouble>(client)
        };
        match tokio::time::timeout(Duration::from_secs(20), made).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(trouble)) => last = trouble.to_string(),
            Err(_) => last = "no answer within 20 s".to_owned(),
        }
        tokio::time::sleep(Duration::from_millis(50 * attempt)).await;
    }
    Err(format!("the server serves no new client: {last}"))
}

/// Throws messages until the connection ends or has had its share; returns how many.
async fn volley(client: &mut Client, random: &mut Random, logged_in: bool) -> u64 {
    let mut file = FileId { persistent: 0, volatile: 0 };
    if logged_in {
        let name = format!("victim-{}", random.below(64));
        let options = if random.below(4) == 0 { 1 } else { 0 };
        if let Ok(answer) = client.create(create(&name, 0x001F_01FF, 3, options)).await {
            file = answer.file_id;
        }
    }
    for thrown in 0..PER_CONNECTION {
        let mut message = template(client, random, logged_in, file);
        mutate(&mut message, random);
        // A quarter keeps its broken signature.
        if logged_in && random.below(4) != 0 {
            client.sign(&mut message);
        }
        let echo = client.request(&Request::Echo(EchoRequest {}));
        if client.send(&message).await.is_err() || client.send(&echo).await.is_err() {
            return thrown + 1;
        }
        // The echo behind it tells that the message was dealt with; a server may as well end the connection.
        loop {
            match tokio::time::timeout(Duration::from_secs(10), client.receive()).await {
                Ok(Ok((header, _))) if header.command == shoal_protocol::smb2::header::Command::Echo => {
                    if header.status == NtStatus::USER_SESSION_DELETED && logged_in {
                        return thrown + 1;
                    }
                    break;
                }
                Ok(Ok(_)) => {}
                // No answer: the mutated message took the echo's place in the window, or asked for more bytes to come.
                Ok(Err(_)) | Err(_) => return thrown + 1,
            }
        }
    }
    PER_CONNECTION
}

/// A good message of any kind.
fn template(client: &mut Client, random: &mut Random, logged_in: bool, file_id: FileId) -> BytesMut {
    if !logged_in {
        let request = match random.below(4) {
            0 => Request::Negotiate(negotiate()),
            1 => Request::SessionSetup(session_setup(Initiator::new(USER, PASSWORD, "").first())),
            2 => Request::TreeConnect(TreeConnectRequest {
                flags: 0,
                path: Utf16::from("\\\\127.0.0.1\\share"),
            }),
            _ => Request::Create(create("file", 0x001F_01FF, 3, 0)),
        };
        return client.request(&request);
    }
    let names = ["victim-1", "dir\\file", "a\\b\\c", "victim-2:stream", "*", ""];
    let name = names[random.below(names.len())];
    let request = match random.below(16) {
        0 | 1 => Request::Create(create(name, 0x001F_01FF, random.below(6) as u32, random.below(2) as u32)),
        2 => Request::Close(CloseRequest { flags: 1, file_id }),
        3 => Request::Flush(FlushRequest { file_id }),
        4 => Request::Read(ReadRequest {
            flags: 0,
            length: 4096,
            offset: random.below(100_000) as u64,
            file_id,
            minimum_count: 0,
            channel: 0,
            remaining_bytes: 0,
            channel_info: Bytes::new(),
        }),
        5 => Request::Write(WriteRequest {
            offset: random.below(100_000) as u64,
            file_id,
            channel: 0,
            remaining_bytes: 0,
            flags: 0,
            data: Bytes::from_static(&[7; 300]),
        }),
        6 => Request::Lock(LockRequest {
            lock_sequence: 0,
            file_id,
            locks: vec![LockElement {
                offset: 0,
                length: random.below(100) as u64,
                flags: [1, 2, 4, 0x12][random.below(4)],
            }],
        }),
        7 | 8 => Request::Ioctl(IoctlRequest {
            ctl_code: [
                0x0014_0204,
                0x0009_00C4,
                0x0009_8063,
                0x0011_C017,
                0x0006_0194,
                0x0014_4064,
                0x0009_40CF,
            ][random.below(7)],
            file_id,
            max_input_response: 0,
            max_output_response: 4096,
            flags: 1,
            input: Bytes::from_static(&[0; 32]),
            output: Bytes::new(),
        }),
        9 => Request::QueryDirectory(QueryDirectoryRequest {
            file_information_class: [1, 2, 3, 12, 37, 38][random.below(6)],
            flags: random.below(4) as u8,
            file_index: 0,
            file_id,
            output_buffer_length: 4096,
            search_pattern: Utf16::from("*"),
        }),
        10 => Request::ChangeNotify(ChangeNotifyRequest {
            flags: 1,
            output_buffer_length: 1000,
            file_id,
            completion_filter: 0xFFF,
        }),
        11 | 12 => Request::QueryInfo(QueryInfoRequest {
            info_type: 1 + random.below(4) as u8,
            file_info_class: random.below(70) as u8,
            output_buffer_length: 2000,
            additional_information: 7,
            flags: 0,
            file_id,
            input: Bytes::new(),
        }),
        13 | 14 => Request::SetInfo(SetInfoRequest {
            info_type: 1,
            file_info_class: [4, 10, 13, 14, 16, 19, 20, 15, 64, 65][random.below(10)],
            additional_information: 0,
            file_id,
            buffer: if random.below(2) == 0 {
                rename_information("victim-3", true)
            } else {
                Bytes::from_static(&[0; 40])
            },
        }),
        _ => Request::SessionSetup(session_setup(Initiator::new(USER, "wrong", "").first())),
    };
    client.request(&request)
}

fn mutate(message: &mut BytesMut, random: &mut Random) {
    const EDGES: [u8; 8] = [0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, 0x40];
    for _ in 0..1 + random.below(4) {
        if message.is_empty() {
            return;
        }
        // Half of the mutations leave the header alone and reach the body.
        let from = if random.below(2) == 0 { 64.min(message.len() - 1) } else { 0 };
        let at = from + random.below(message.len() - from);
        match random.below(7) {
            0 => message[at] ^= 1 << random.below(8),
            1 => message[at] = EDGES[random.below(EDGES.len())],
            2 => message[at] = random.below(256) as u8,
            3 => {
                let wide = (at + 4).min(message.len());
                message[at..wide].fill(EDGES[random.below(EDGES.len())]);
            }
            4 => message.truncate(at),
            5 => {
                let more = random.below(64);
                message.extend(std::iter::repeat_n(EDGES[random.below(EDGES.len())], more));
            }
            _ => {
                let to = random.below(message.len());
                let byte = message[at];
                message[to] = byte;
            }
        }
    }
}
