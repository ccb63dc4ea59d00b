//! The messages of SMB2 and SMB3: MS-SMB2 2.2.
//!
//! One file a command, request and response side by side. A struct has the specification's fields in snake case,
//! without those that only say how the rest is laid out (StructureSize, reserved fields, offsets, lengths, counts):
//! these are checked when parsing and derived when encoding.
//!
//! `parse` takes a whole message, its header included, since the offsets in it count from there; it may not go on
//! beyond the message's end (see [`compound::split`]). Buffers are views of it, not copies. `encode` appends the body
//! only; the header's 64 bytes must stand immediately before it in the same buffer.

macro_rules! empty_message {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {}

        impl $name {
            /// Parses the body of `message`, a whole message with its header.
            #[inline]
            pub fn parse(message: &bytes::Bytes) -> Result<$name, $crate::Malformed> {
                $crate::parse::body(message, 4)?;
                Ok($name {})
            }

            /// Appends the body.
            #[inline]
            pub fn encode(&self, out: &mut bytes::BytesMut) {
                bytes::BufMut::put_slice(out, &[4, 0, 0, 0]);
            }
        }
    };
}

pub mod cancel;
pub mod change_notify;
pub mod close;
pub mod compound;
pub mod create;
pub mod echo;
pub mod error;
pub mod flush;
pub mod header;
pub mod ioctl;
pub mod lock;
pub mod logoff;
pub mod negotiate;
pub mod oplock_break;
pub mod query_directory;
pub mod query_info;
pub mod read;
pub mod session_setup;
pub mod set_info;
pub mod transform;
pub mod tree_connect;
pub mod tree_disconnect;
pub mod write;

pub use cancel::CancelRequest;
pub use change_notify::{ChangeNotifyRequest, ChangeNotifyResponse};
pub use close::{CloseRequest, CloseResponse};
pub use create::{
    CreateContext, CreateDisposition, CreateOptions, CreateRequest, CreateResponse, ShareAccess,
};
pub use echo::{EchoRequest, EchoResponse};
pub use error::{ErrorContext, ErrorResponse};
pub use flush::{FlushRequest, FlushResponse};
pub use header::{Command, Header, HeaderFlags, Routing};
pub use ioctl::{IoctlRequest, IoctlResponse};
pub use lock::{LockElement, LockRequest, LockResponse};
pub use logoff::{LogoffRequest, LogoffResponse};
pub use negotiate::{
    Capabilities, Dialect, NegotiateContext, NegotiateRequest, NegotiateResponse, SecurityMode,
};
pub use oplock_break::{
    OplockBreakAcknowledgment, OplockBreakNotification, OplockBreakRequest, OplockBreakResponse,
};
pub use query_directory::{QueryDirectoryRequest, QueryDirectoryResponse};
pub use query_info::{QueryInfoRequest, QueryInfoResponse};
pub use read::{ReadRequest, ReadResponse};
pub use session_setup::{SessionFlags, SessionSetupRequest, SessionSetupResponse};
pub use set_info::{SetInfoRequest, SetInfoResponse};
pub use transform::TransformHeader;
pub use tree_connect::{TreeConnectRequest, TreeConnectResponse};
pub use tree_disconnect::{TreeDisconnectRequest, TreeDisconnectResponse};
pub use write::{WriteRequest, WriteResponse};

use crate::parse::{Parsed, u64};
use crate::{Malformed, NtStatus};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;
use std::fmt;

macro_rules! ids {
    ($( $(#[$about:meta])* $name:ident($int:ty) )*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    )*};
}

ids! {
    /// The number of a request on its connection, echoed in the responses.
    MessageId(u64)
    /// The server's number for an operation that it answers later.
    AsyncId(u64)
    /// The server's number for a session; 0 is none.
    SessionId(u64)
    /// The server's number for a tree connect in its session; 0 is none.
    TreeId(u32)
}

impl MessageId {
    /// The id in messages that no request asked for: oplock and lease break notifications.
    pub const UNSOLICITED: MessageId = MessageId(u64::MAX);
}

/// SMB2_FILEID: 2.2.14.1.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// The part that outlives the connection, for durable opens.
    pub persistent: u64,
    /// The part that names the open in its session.
    pub volatile: u64,
}

impl FileId {
    /// All ones: in a related request of a chain, the open that the chain is about.
    pub const RELATED: FileId = FileId { persistent: u64::MAX, volatile: u64::MAX };

    /// The nom parser of an id.
    #[inline]
    pub fn parse(input: &[u8]) -> Parsed<'_, FileId> {
        let (rest, (persistent, volatile)) = (u64, u64).parse(input)?;
        Ok((rest, FileId { persistent, volatile }))
    }

    /// Appends the 16 bytes.
    #[inline]
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.persistent);
        out.put_u64_le(self.volatile);
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}:{:#x}", self.persistent, self.volatile)
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileId({self})")
    }
}

/// A request of any command.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant is its command's request")]
pub enum Request {
    Negotiate(NegotiateRequest),
    SessionSetup(SessionSetupRequest),
    Logoff(LogoffRequest),
    TreeConnect(TreeConnectRequest),
    TreeDisconnect(TreeDisconnectRequest),
    Create(CreateRequest),
    Close(CloseRequest),
    Flush(FlushRequest),
    Read(ReadRequest),
    Write(WriteRequest),
    Lock(LockRequest),
    Ioctl(IoctlRequest),
    Cancel(CancelRequest),
    Echo(EchoRequest),
    QueryDirectory(QueryDirectoryRequest),
    ChangeNotify(ChangeNotifyRequest),
    QueryInfo(QueryInfoRequest),
    SetInfo(SetInfoRequest),
    OplockBreak(OplockBreakRequest),
}

impl Request {
    /// Parses the body of `message`, a whole message whose header named `command`.
    #[inline]
    pub fn parse(command: Command, message: &Bytes) -> Result<Request, Malformed> {
        Ok(match command {
            Command::Negotiate => Request::Negotiate(NegotiateRequest::parse(message)?),
            Command::SessionSetup => Request::SessionSetup(SessionSetupRequest::parse(message)?),
            Command::Logoff => Request::Logoff(LogoffRequest::parse(message)?),
            Command::TreeConnect => Request::TreeConnect(TreeConnectRequest::parse(message)?),
            Command::TreeDisconnect => Request::TreeDisconnect(TreeDisconnectRequest::parse(message)?),
            Command::Create => Request::Create(CreateRequest::parse(message)?),
            Command::Close => Request::Close(CloseRequest::parse(message)?),
            Command::Flush => Request::Flush(FlushRequest::parse(message)?),
            Command::Read => Request::Read(ReadRequest::parse(message)?),
            Command::Write => Request::Write(WriteRequest::parse(message)?),
            Command::Lock => Request::Lock(LockRequest::parse(message)?),
            Command::Ioctl => Request::Ioctl(IoctlRequest::parse(message)?),
            Command::Cancel => Request::Cancel(CancelRequest::parse(message)?),
            Command::Echo => Request::Echo(EchoRequest::parse(message)?),
            Command::QueryDirectory => Request::QueryDirectory(QueryDirectoryRequest::parse(message)?),
            Command::ChangeNotify => Request::ChangeNotify(ChangeNotifyRequest::parse(message)?),
            Command::QueryInfo => Request::QueryInfo(QueryInfoRequest::parse(message)?),
            Command::SetInfo => Request::SetInfo(SetInfoRequest::parse(message)?),
            Command::OplockBreak => Request::OplockBreak(OplockBreakRequest::parse(message)?),
        })
    }

    /// The command that it is a request of.
    pub fn command(&self) -> Command {
        match self {
            Request::Negotiate(_) => Command::Negotiate,
            Request::SessionSetup(_) => Command::SessionSetup,
            Request::Logoff(_) => Command::Logoff,
            Request::TreeConnect(_) => Command::TreeConnect,
            Request::TreeDisconnect(_) => Command::TreeDisconnect,
            Request::Create(_) => Command::Create,
            Request::Close(_) => Command::Close,
            Request::Flush(_) => Command::Flush,
            Request::Read(_) => Command::Read,
            Request::Write(_) => Command::Write,
            Request::Lock(_) => Command::Lock,
            Request::Ioctl(_) => Command::Ioctl,
            Request::Cancel(_) => Command::Cancel,
            Request::Echo(_) => Command::Echo,
            Request::QueryDirectory(_) => Command::QueryDirectory,
            Request::ChangeNotify(_) => Command::ChangeNotify,
            Request::QueryInfo(_) => Command::QueryInfo,
            Request::SetInfo(_) => Command::SetInfo,
            Request::OplockBreak(_) => Command::OplockBreak,
        }
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Request::Negotiate(request) => request.encode(out),
            Request::SessionSetup(request) => request.encode(out),
            Request::Logoff(request) => request.encode(out),
            Request::TreeConnect(request) => request.encode(out),
            Request::TreeDisconnect(request) => request.encode(out),
            Request::Create(request) => request.encode(out),
            Request::Close(request) => request.encode(out),
            Request::Flush(request) => request.encode(out),
            Request::Read(request) => request.encode(out),
            Request::Write(request) => request.encode(out),
            Request::Lock(request) => request.encode(out),
            Request::Ioctl(request) => request.encode(out),
            Request::Cancel(request) => request.encode(out),
            Request::Echo(request) => request.encode(out),
            Request::QueryDirectory(request) => request.encode(out),
            Request::ChangeNotify(request) => request.encode(out),
            Request::QueryInfo(request) => request.encode(out),
            Request::SetInfo(request) => request.encode(out),
            Request::OplockBreak(request) => request.encode(out),
        }
    }
}

/// A response of any command, or the error response that stands in its place.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each variant is its command's response")]
pub enum Response {
    Negotiate(NegotiateResponse),
    SessionSetup(SessionSetupResponse),
    Logoff(LogoffResponse),
    TreeConnect(TreeConnectResponse),
    TreeDisconnect(TreeDisconnectResponse),
    Create(CreateResponse),
    Close(CloseResponse),
    Flush(FlushResponse),
    Read(ReadResponse),
    Write(WriteResponse),
    Lock(LockResponse),
    Ioctl(IoctlResponse),
    Echo(EchoResponse),
    QueryDirectory(QueryDirectoryResponse),
    ChangeNotify(ChangeNotifyResponse),
    QueryInfo(QueryInfoResponse),
    SetInfo(SetInfoResponse),
    OplockBreak(OplockBreakResponse),
    Error(ErrorResponse),
}

impl Response {
    /// Whether a response of `command` under `status` has the command's own body: 3.3.4.4.
    ///
    /// Success has it; of the other statuses those few that the commands name. One case cannot be told by the
    /// status: a server-side copy that failed (3.3.5.15.6) may say in an IOCTL response how far it came.
    pub fn has_own_body(command: Command, status: NtStatus) -> bool {
        matches!(
            (command, status),
            (_, NtStatus::SUCCESS)
                | (Command::SessionSetup, NtStatus::MORE_PROCESSING_REQUIRED)
                | (
                    Command::Read | Command::Ioctl | Command::QueryInfo | Command::QueryDirectory,
                    NtStatus::BUFFER_OVERFLOW
                )
                | (Command::ChangeNotify, NtStatus::NOTIFY_ENUM_DIR | NtStatus::NOTIFY_CLEANUP)
        )
    }

    /// Parses the body of `message`, a whole response with the given header. Not for the notifications that no
    /// request asked for: see [`OplockBreakNotification::parse`].
    pub fn parse(header: &Header, message: &Bytes) -> Result<Response, Malformed> {
        // Only the structure's size tells the IOCTL response of a failed copy from an error.
        let copy_failed = header.command == Command::Ioctl && message.get(Header::LEN) == Some(&49);
        if !Response::has_own_body(header.command, header.status) && !copy_failed {
            return Ok(Response::Error(ErrorResponse::parse(message)?));
        }
        Ok(match header.command {
            Command::Negotiate => Response::Negotiate(NegotiateResponse::parse(message)?),
            Command::SessionSetup => Response::SessionSetup(SessionSetupResponse::parse(message)?),
            Command::Logoff => Response::Logoff(LogoffResponse::parse(message)?),
            Command::TreeConnect => Response::TreeConnect(TreeConnectResponse::parse(message)?),
            Command::TreeDisconnect => Response::TreeDisconnect(TreeDisconnectResponse::parse(message)?),
            Command::Create => Response::Create(CreateResponse::parse(message)?),
            Command::Close => Response::Close(CloseResponse::parse(message)?),
            Command::Flush => Response::Flush(FlushResponse::parse(message)?),
            Command::Read => Response::Read(ReadResponse::parse(message)?),
            Command::Write => Response::Write(WriteResponse::parse(message)?),
            Command::Lock => Response::Lock(LockResponse::parse(message)?),
            Command::Ioctl => Response::Ioctl(IoctlResponse::parse(message)?),
            // No response to CANCEL is defined.
            Command::Cancel => return Err(Malformed::Value("command")),
            Command::Echo => Response::Echo(EchoResponse::parse(message)?),
            Command::QueryDirectory => Response::QueryDirectory(QueryDirectoryResponse::parse(message)?),
            Command::ChangeNotify => Response::ChangeNotify(ChangeNotifyResponse::parse(message)?),
            Command::QueryInfo => Response::QueryInfo(QueryInfoResponse::parse(message)?),
            Command::SetInfo => Response::SetInfo(SetInfoResponse::parse(message)?),
            Command::OplockBreak => Response::OplockBreak(OplockBreakResponse::parse(message)?),
        })
    }

    /// Appends the body.
    #[inline]
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Response::Negotiate(response) => response.encode(out),
            Response::SessionSetup(response) => response.encode(out),
            Response::Logoff(response) => response.encode(out),
            Response::TreeConnect(response) => response.encode(out),
            Response::TreeDisconnect(response) => response.encode(out),
            Response::Create(response) => response.encode(out),
            Response::Close(response) => response.encode(out),
            Response::Flush(response) => response.encode(out),
            Response::Read(response) => response.encode(out),
            Response::Write(response) => response.encode(out),
            Response::Lock(response) => response.encode(out),
            Response::Ioctl(response) => response.encode(out),
            Response::Echo(response) => response.encode(out),
            Response::QueryDirectory(response) => response.encode(out),
            Response::ChangeNotify(response) => response.encode(out),
            Response::QueryInfo(response) => response.encode(out),
            Response::SetInfo(response) => response.encode(out),
            Response::OplockBreak(response) => response.encode(out),
            Response::Error(response) => response.encode(out),
        }
    }
}

macro_rules! from_variants {
    ($outer:ident: $($variant:ident($inner:ty)),* $(,)?) => {$(
        impl From<$inner> for $outer {
            #[inline]
            fn from(inner: $inner) -> $outer {
                $outer::$variant(inner)
            }
        }
    )*};
}

from_variants! { Request:
    Negotiate(NegotiateRequest), SessionSetup(SessionSetupRequest), Logoff(LogoffRequest),
    TreeConnect(TreeConnectRequest), TreeDisconnect(TreeDisconnectRequest), Create(CreateRequest),
    Close(CloseRequest), Flush(FlushRequest), Read(ReadRequest), Write(WriteRequest), Lock(LockRequest),
    Ioctl(IoctlRequest), Cancel(CancelRequest), Echo(EchoRequest), QueryDirectory(QueryDirectoryRequest),
    ChangeNotify(ChangeNotifyRequest), QueryInfo(QueryInfoRequest), SetInfo(SetInfoRequest),
    OplockBreak(OplockBreakRequest),
}

from_variants! { Response:
    Negotiate(NegotiateResponse), SessionSetup(SessionSetupResponse), Logoff(LogoffResponse),
    TreeConnect(TreeConnectResponse), TreeDisconnect(TreeDisconnectResponse), Create(CreateResponse),
    Close(CloseResponse), Flush(FlushResponse), Read(ReadResponse), Write(WriteResponse), Lock(LockResponse),
    Ioctl(IoctlResponse), Echo(EchoResponse), QueryDirectory(QueryDirectoryResponse),
    ChangeNotify(ChangeNotifyResponse), QueryInfo(QueryInfoResponse), SetInfo(SetInfoResponse),
    OplockBreak(OplockBreakResponse), Error(ErrorResponse),
}

#[cfg(test)]
pub(crate) mod check {
    //! The four tests of every message: known bytes, round trip, cut short at every length, wrong StructureSize.

    use super::*;

    /// Bytes from hexadecimal digits, whitespace between them at will.
    pub fn hex(text: &str) -> Bytes {
        let digits: Vec<u8> =
            text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// A message with an empty header and the given body.
    pub fn message(body: &[u8]) -> Bytes {
        let mut message = BytesMut::zeroed(Header::LEN);
        message.put_slice(body);
        message.freeze()
    }

    /// Parses what `body` says, as a message's body.
    pub fn parse<T>(body: &str, parse: impl Fn(&Bytes) -> Result<T, Malformed>) -> Result<T, Malformed> {
        parse(&message(&hex(body)))
    }

    /// All four, for a message whose body is `body`, as its encoder writes it, and whose value is `value`.
    pub fn codec<T: PartialEq + fmt::Debug>(
        body: &str,
        value: &T,
        parse: impl Fn(&Bytes) -> Result<T, Malformed>,
        encode: impl Fn(&T, &mut BytesMut),
    ) {
        let body = hex(body);
        let message = message(&body);
        assert_eq!(parse(&message).as_ref(), Ok(value), "known bytes");

        // Something stands before the header: offsets must not notice.
        let mut out = BytesMut::zeroed(3 + Header::LEN);
        encode(value, &mut out);
        assert_eq!(&out[3 + Header::LEN..], &body[..], "encoded bytes");

        for length in 0..message.len() {
            match parse(&message.slice(..length)) {
                Err(_) => {}
                // Only padding may be missed by nobody.
                Ok(parsed) => {
                    assert_eq!(&parsed, value, "cut at {length}");
                    assert!(message[length..].iter().all(|&byte| byte == 0), "cut at {length}");
                }
            }
        }

        let mut wrong = message.to_vec();
        wrong[Header::LEN] ^= 0x80;
        assert_eq!(parse(&wrong.into()), Err(Malformed::StructureSize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_know_their_command() {
        for command in Command::ALL {
            let request = match command {
                Command::Echo => Request::from(EchoRequest {}),
                Command::Cancel => CancelRequest {}.into(),
                Command::Logoff => LogoffRequest {}.into(),
                Command::TreeDisconnect => TreeDisconnectRequest {}.into(),
                Command::Flush => FlushRequest { file_id: FileId::RELATED }.into(),
                _ => continue,
            };
            let mut out = BytesMut::zeroed(Header::LEN);
            request.encode(&mut out);
            assert_eq!(request.command(), command);
            assert_eq!(Request::parse(command, &out.freeze()), Ok(request));
        }
    }

    #[test]
    fn responses_by_status() {
        let parse = |command, status, body: &str| {
            let header = Header { status, ..Header::request(command) };
            Response::parse(&header, &check::message(&check::hex(body)))
        };
        let error = Ok(Response::Error(ErrorResponse::empty()));
        let nothing = "0900 0000 00000000 00";
        assert_eq!(parse(Command::Create, NtStatus::OBJECT_NAME_NOT_FOUND, nothing), error);
        assert_eq!(parse(Command::Read, NtStatus::PENDING, nothing), error);
        assert_eq!(parse(Command::QueryDirectory, NtStatus::NO_MORE_FILES, nothing), error);
        assert_eq!(parse(Command::Cancel, NtStatus::CANCELLED, nothing), error);
        assert_eq!(parse(Command::Cancel, NtStatus::SUCCESS, "0400 0000"), Err(Malformed::Value("command")));
        assert_eq!(
            parse(Command::SessionSetup, NtStatus::MORE_PROCESSING_REQUIRED, "0900 0000 4800 0200 aabb"),
            Ok(Response::SessionSetup(SessionSetupResponse {
                session_flags: SessionFlags::EMPTY,
                buffer: Bytes::from_static(&[0xAA, 0xBB]),
            }))
        );
        assert_eq!(
            parse(Command::QueryInfo, NtStatus::BUFFER_OVERFLOW, "0900 4800 01000000 aa"),
            Ok(Response::QueryInfo(QueryInfoResponse { buffer: Bytes::from_static(&[0xAA]) }))
        );
        assert_eq!(
            parse(Command::ChangeNotify, NtStatus::NOTIFY_ENUM_DIR, nothing),
            Ok(Response::ChangeNotify(ChangeNotifyResponse { buffer: Bytes::new() }))
        );
        assert_eq!(parse(Command::Ioctl, NtStatus::INVALID_PARAMETER, nothing), error);
        let copied = "3100 0000 f2401400 01000000000000000200000000000000
            70000000 00000000 70000000 0c000000 00000000 00000000 000000000000000000000000";
        assert!(matches!(
            parse(Command::Ioctl, NtStatus::INVALID_PARAMETER, copied),
            Ok(Response::Ioctl(response)) if response.output.len() == 12
        ));
    }

    #[test]
    fn ids_print_as_hexadecimal() {
        assert_eq!(format!("{} {:?}", TreeId(16), AsyncId(1)), "0x10 AsyncId(0x1)");
        assert_eq!(format!("{:?}", FileId { persistent: 1, volatile: 2 }), "FileId(0x1:0x2)");
    }
}
