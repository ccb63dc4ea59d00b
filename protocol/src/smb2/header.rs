//! The SMB2 packet header: 2.2.1, synchronous (2.2.1.2) and asynchronous (2.2.1.1).

use super::{AsyncId, MessageId, SessionId, TreeId};
use crate::flags::flags;
use crate::parse::{array, skip, u16, u32, u64};
use crate::{Malformed, NtStatus};
use bytes::{BufMut, BytesMut};
use nom::Parser;

/// The first four bytes of every SMB2 message.
pub const PROTOCOL_ID: [u8; 4] = [0xFE, b'S', b'M', b'B'];

/// The command of a message: 2.2.1.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub enum Command {
    Negotiate = 0x0000,
    SessionSetup = 0x0001,
    Logoff = 0x0002,
    TreeConnect = 0x0003,
    TreeDisconnect = 0x0004,
    Create = 0x0005,
    Close = 0x0006,
    Flush = 0x0007,
    Read = 0x0008,
    Write = 0x0009,
    Lock = 0x000A,
    Ioctl = 0x000B,
    Cancel = 0x000C,
    Echo = 0x000D,
    QueryDirectory = 0x000E,
    ChangeNotify = 0x000F,
    QueryInfo = 0x0010,
    SetInfo = 0x0011,
    OplockBreak = 0x0012,
}

impl Command {
    /// All commands, in the order of their numbers.
    pub const ALL: [Command; 19] = [
        Command::Negotiate,
        Command::SessionSetup,
        Command::Logoff,
        Command::TreeConnect,
        Command::TreeDisconnect,
        Command::Create,
        Command::Close,
        Command::Flush,
        Command::Read,
        Command::Write,
        Command::Lock,
        Command::Ioctl,
        Command::Cancel,
        Command::Echo,
        Command::QueryDirectory,
        Command::ChangeNotify,
        Command::QueryInfo,
        Command::SetInfo,
        Command::OplockBreak,
    ];
}

impl TryFrom<u16> for Command {
    type Error = Malformed;

    #[inline]
    fn try_from(number: u16) -> Result<Command, Malformed> {
        Command::ALL.get(usize::from(number)).copied().ok_or(Malformed::Value("command"))
    }
}

flags! {
    /// The Flags of a header: 2.2.1.2.
    pub struct HeaderFlags: u32 {
        /// A response.
        SERVER_TO_REDIR = 0x0000_0001;
        /// The header is an asynchronous one.
        ASYNC_COMMAND = 0x0000_0002;
        /// A related operation of a compound chain.
        RELATED_OPERATIONS = 0x0000_0004;
        /// The message is signed.
        SIGNED = 0x0000_0008;
        /// The bits that hold the priority of a request (3.1.1).
        PRIORITY_MASK = 0x0000_0070;
        /// A DFS operation.
        DFS_OPERATIONS = 0x1000_0000;
        /// A replayed request (3.x).
        REPLAY_OPERATION = 0x2000_0000;
    }
}

/// What stands where the synchronous header has process and tree, the asynchronous one its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// SMB2 Packet Header - SYNC.
    Sync {
        /// The Reserved field, which Windows and Samba fill with a process id; a response echoes it.
        process_id: u32,
        /// The tree connect that the message is for.
        tree_id: TreeId,
    },
    /// SMB2 Packet Header - ASYNC.
    Async(AsyncId),
}

/// The 64 bytes before each message's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many credits the request consumes; 0 counts as 1.
    pub credit_charge: u16,
    /// The status of a response. In a request of a 3.x connection the low 16 bits are the ChannelSequence.
    pub status: NtStatus,
    /// What is asked or answered.
    pub command: Command,
    /// Credits requested, or granted.
    pub credits: u16,
    /// Flags.
    pub flags: HeaderFlags,
    /// The offset from this header to that of the next message of the chain; 0 in the last.
    pub next_command: u32,
    /// The request's number, echoed in its responses.
    pub message_id: MessageId,
    /// Process and tree, or the id of the asynchronous operation.
    pub routing: Routing,
    /// The session that the message is for.
    pub session_id: SessionId,
    /// The signature; zero in a message that is not signed.
    pub signature: [u8; 16],
}

impl Header {
    /// The length of a header in bytes.
    pub const LEN: usize = 64;
    /// Where in a message the Flags stand.
    pub const FLAGS_AT: usize = 16;
    /// Where in a message NextCommand stands.
    pub const NEXT_COMMAND_AT: usize = 20;
    /// Where in a message the signature stands.
    pub const SIGNATURE_AT: usize = 48;

    /// Whether `bytes` begin with the protocol identifier of an SMB2 message.
    #[inline]
    pub fn is_smb2(bytes: &[u8]) -> bool {
        bytes.starts_with(&PROTOCOL_ID)
    }

    /// Parses the header at the start of `message`.
    ///
    /// A wrong protocol identifier, a StructureSize other than 64 and a command number that nobody defined (then
    /// [`Header::parse_unknown`] says the rest) are malformed. A nonzero NextCommand is not judged here, see
    /// [`compound::split`](super::compound::split).
    #[inline]
    pub fn parse(message: &[u8]) -> Result<Header, Malformed> {
        let (mut header, number) = Header::parse_unknown(message)?;
        header.command = Command::try_from(number)?;
        Ok(header)
    }

    /// As [`Header::parse`], but gives the command as its number, whatever it is; the header's own `command` is then
    /// meaningless. For the answer to an unknown command.
    #[inline]
    pub fn parse_unknown(message: &[u8]) -> Result<(Header, u16), Malformed> {
        // One length check here lets the compiler drop those of the fields.
        let bytes: &[u8; Header::LEN] = message.first_chunk().ok_or(Malformed::Truncated)?;
        let (rest, protocol_id) = array::<4>(bytes)?;
        if protocol_id != PROTOCOL_ID {
            return Err(Malformed::ProtocolId);
        }
        let (rest, (structure_size, credit_charge, status, number)) = (u16, u16, u32, u16).parse(rest)?;
        if structure_size != 64 {
            return Err(Malformed::StructureSize);
        }
        let (rest, (credits, flags, next_command, message_id)) = (u16, u32, u32, u64).parse(rest)?;
        let flags = HeaderFlags(flags);
        let (rest, routing) = if flags.contains(HeaderFlags::ASYNC_COMMAND) {
            let (rest, id) = u64(rest)?;
            (rest, Routing::Async(AsyncId(id)))
        } else {
            let (rest, (process_id, tree_id)) = (u32, u32).parse(rest)?;
            (rest, Routing::Sync { process_id, tree_id: TreeId(tree_id) })
        };
        let (_, (session_id, signature)) = (u64, array::<16>).parse(rest)?;
        let header = Header {
            credit_charge,
            status: NtStatus(status),
            command: Command::Negotiate,
            credits,
            flags,
            next_command,
            message_id: MessageId(message_id),
            routing,
            session_id: SessionId(session_id),
            signature,
        };
        Ok((header, number))
    }

    /// Appends the 64 bytes.
    #[inline]
    pub fn encode(&self, out: &mut BytesMut) {
        self.encode_unknown(self.command as u16, out);
    }

    /// As [`Header::encode`], with a command number that is not one of [`Command`]'s.
    #[inline]
    pub fn encode_unknown(&self, number: u16, out: &mut BytesMut) {
        let mut bytes = [0; Header::LEN];
        bytes[0..4].copy_from_slice(&PROTOCOL_ID);
        bytes[4..6].copy_from_slice(&64u16.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.credit_charge.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.status.0.to_le_bytes());
        bytes[12..14].copy_from_slice(&number.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.credits.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.flags.0.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.next_command.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.message_id.0.to_le_bytes());
        match self.routing {
            Routing::Sync { process_id, tree_id } => {
                bytes[32..36].copy_from_slice(&process_id.to_le_bytes());
                bytes[36..40].copy_from_slice(&tree_id.0.to_le_bytes());
            }
            Routing::Async(id) => bytes[32..40].copy_from_slice(&id.0.to_le_bytes()),
        }
        bytes[40..48].copy_from_slice(&self.session_id.0.to_le_bytes());
        bytes[48..64].copy_from_slice(&self.signature);
        out.put_slice(&bytes);
    }

    /// A synchronous request's header: one credit charged and asked for, all else zero.
    pub fn request(command: Command) -> Header {
        Header {
            credit_charge: 1,
            status: NtStatus::SUCCESS,
            command,
            credits: 1,
            flags: HeaderFlags::EMPTY,
            next_command: 0,
            message_id: MessageId(0),
            routing: Routing::Sync { process_id: 0xFEFF, tree_id: TreeId(0) },
            session_id: SessionId(0),
            signature: [0; 16],
        }
    }

    /// The tree connect; 0 in an asynchronous header, which has none.
    #[inline]
    pub fn tree_id(&self) -> TreeId {
        match self.routing {
            Routing::Sync { tree_id, .. } => tree_id,
            Routing::Async(_) => TreeId(0),
        }
    }

    /// The asynchronous operation's id, if the header is an asynchronous one.
    #[inline]
    pub fn async_id(&self) -> Option<AsyncId> {
        match self.routing {
            Routing::Sync { .. } => None,
            Routing::Async(id) => Some(id),
        }
    }

    /// A request's ChannelSequence (3.x).
    #[inline]
    pub fn channel_sequence(&self) -> u16 {
        self.status.0 as u16
    }

    /// Whether this is a response.
    #[inline]
    pub fn is_response(&self) -> bool {
        self.flags.contains(HeaderFlags::SERVER_TO_REDIR)
    }

    /// Whether this is a related operation of a chain.
    #[inline]
    pub fn is_related(&self) -> bool {
        self.flags.contains(HeaderFlags::RELATED_OPERATIONS)
    }

    /// Whether the message says that it is signed.
    #[inline]
    pub fn is_signed(&self) -> bool {
        self.flags.contains(HeaderFlags::SIGNED)
    }

    /// The MessageId of `message`, whatever else is wrong with it, if there are enough bytes.
    #[inline]
    pub fn peek_message_id(message: &[u8]) -> Option<MessageId> {
        let (_, (_, id)) = (skip(24), u64).parse(message).ok()?;
        Some(MessageId(id))
    }

    /// The command number of `message`, whatever else is wrong with it, if there are enough bytes.
    #[inline]
    pub fn peek_command(message: &[u8]) -> Option<u16> {
        let (_, (_, number)) = (skip(12), u16).parse(message).ok()?;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::hex;

    const SYNC: &str = "fe534d42 4000 0100 22000034 0300 2100 08000000 98000000
        0500000000000000 fffe0000 07000000 1122334455667788 000102030405060708090a0b0c0d0e0f";

    fn sync() -> Header {
        Header {
            credit_charge: 1,
            status: NtStatus(0x3400_0022),
            command: Command::TreeConnect,
            credits: 33,
            flags: HeaderFlags::SIGNED,
            next_command: 0x98,
            message_id: MessageId(5),
            routing: Routing::Sync { process_id: 0xFEFF, tree_id: TreeId(7) },
            session_id: SessionId(0x8877_6655_4433_2211),
            signature: std::array::from_fn(|i| i as u8),
        }
    }

    #[test]
    fn known_bytes() {
        let bytes = hex(SYNC);
        assert_eq!(Header::parse(&bytes), Ok(sync()));
        let mut out = BytesMut::new();
        sync().encode(&mut out);
        assert_eq!(out, bytes);
        assert_eq!(Header::peek_message_id(&bytes), Some(MessageId(5)));
        assert_eq!(Header::peek_command(&bytes), Some(3));
        assert!(sync().is_signed() && !sync().is_related() && !sync().is_response());
    }

    #[test]
    fn asynchronous() {
        let header = Header {
            routing: Routing::Async(AsyncId(0x0102_0304_0506_0708)),
            flags: HeaderFlags::ASYNC_COMMAND | HeaderFlags::SERVER_TO_REDIR,
            ..sync()
        };
        let mut out = BytesMut::new();
        header.encode(&mut out);
        assert_eq!(out[32..40], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(Header::parse(&out), Ok(header.clone()));
        assert_eq!(header.tree_id(), TreeId(0));
        assert_eq!(header.async_id(), Some(AsyncId(0x0102_0304_0506_0708)));
    }

    #[test]
    fn cut_short_and_wrong() {
        let bytes = hex(SYNC);
        for length in 0..bytes.len() {
            assert_eq!(Header::parse(&bytes[..length]), Err(Malformed::Truncated), "{length}");
        }
        let with = |at: usize, value: u8| {
            let mut bytes = bytes.to_vec();
            bytes[at] = value;
            Header::parse(&bytes)
        };
        assert_eq!(with(0, 0xFD), Err(Malformed::ProtocolId));
        assert_eq!(with(4, 0x41), Err(Malformed::StructureSize));
        assert_eq!(with(12, 0x13), Err(Malformed::Value("command")));
        for (number, command) in Command::ALL.into_iter().enumerate() {
            assert_eq!(command as usize, number);
            assert_eq!(Command::try_from(number as u16), Ok(command));
        }
    }
}
