//! SMB2 OPLOCK_BREAK: the notification 2.2.23, the acknowledgment 2.2.24 and the response 2.2.25, each for oplocks
//! and for leases. The two differ in their StructureSize.

use super::FileId;
use super::create::contexts::LeaseState;
use super::header::Header;
use crate::Malformed;
use crate::parse::{self, array, u8, u16, u32, u64};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

const OPLOCK_SIZE: u16 = 24;
const LEASE_SIZE: u16 = 36;
const LEASE_NOTIFICATION_SIZE: u16 = 44;

/// An acknowledgment of a break, from the client: 2.2.24.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OplockBreakRequest {
    /// 2.2.24.1.
    Oplock {
        /// The level that the client keeps.
        oplock_level: u8,
        /// The open whose oplock was broken.
        file_id: FileId,
    },
    /// 2.2.24.2.
    Lease {
        /// Zero.
        flags: u32,
        /// The lease that was broken.
        lease_key: [u8; 16],
        /// What the client keeps of it.
        lease_state: LeaseState,
    },
}

/// The specification's name for [`OplockBreakRequest`].
pub type OplockBreakAcknowledgment = OplockBreakRequest;

/// The answer to an acknowledgment: 2.2.25.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OplockBreakResponse {
    /// 2.2.25.1.
    Oplock {
        /// The level that the client has.
        oplock_level: u8,
        /// The open.
        file_id: FileId,
    },
    /// 2.2.25.2.
    Lease {
        /// Zero.
        flags: u32,
        /// The lease.
        lease_key: [u8; 16],
        /// What the client has of it.
        lease_state: LeaseState,
    },
}

/// A break, from the server: 2.2.23. Its MessageId is [`MessageId::UNSOLICITED`](super::MessageId::UNSOLICITED).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OplockBreakNotification {
    /// 2.2.23.1.
    Oplock {
        /// The level that the client may keep.
        oplock_level: u8,
        /// The open whose oplock is broken.
        file_id: FileId,
    },
    /// 2.2.23.2.
    Lease {
        /// The lease's epoch (version 2).
        new_epoch: u16,
        /// [`OplockBreakNotification::ACK_REQUIRED`] or 0.
        flags: u32,
        /// The lease that is broken.
        lease_key: [u8; 16],
        /// What the client has of it.
        current_lease_state: LeaseState,
        /// What it may keep.
        new_lease_state: LeaseState,
    },
}

fn structure_size(message: &[u8]) -> Result<u16, Malformed> {
    let body = message.get(Header::LEN..).ok_or(Malformed::Truncated)?;
    Ok(u16(body)?.1)
}

fn parse_oplock(message: &[u8]) -> Result<(u8, FileId), Malformed> {
    let body = parse::body(message, OPLOCK_SIZE)?;
    let (_, (oplock_level, _reserved, _reserved2, file_id)) = (u8, u8, u32, FileId::parse).parse(body)?;
    Ok((oplock_level, file_id))
}

fn encode_oplock(oplock_level: u8, file_id: &FileId, out: &mut BytesMut) {
    out.put_u16_le(OPLOCK_SIZE);
    out.put_u8(oplock_level);
    out.put_bytes(0, 5);
    file_id.encode(out);
}

fn parse_lease(message: &[u8]) -> Result<(u32, [u8; 16], LeaseState), Malformed> {
    let body = parse::body(message, LEASE_SIZE)?;
    let (_, (_reserved, flags, lease_key, lease_state, _duration)) =
        (u16, u32, array::<16>, u32, u64).parse(body)?;
    Ok((flags, lease_key, LeaseState(lease_state)))
}

fn encode_lease(flags: u32, lease_key: &[u8; 16], lease_state: LeaseState, out: &mut BytesMut) {
    out.put_u16_le(LEASE_SIZE);
    out.put_u16_le(0);
    out.put_u32_le(flags);
    out.put_slice(lease_key);
    out.put_u32_le(lease_state.0);
    out.put_u64_le(0);
}

impl OplockBreakRequest {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<OplockBreakRequest, Malformed> {
        Ok(match structure_size(message)? {
            LEASE_SIZE => {
                let (flags, lease_key, lease_state) = parse_lease(message)?;
                OplockBreakRequest::Lease { flags, lease_key, lease_state }
            }
            _ => {
                let (oplock_level, file_id) = parse_oplock(message)?;
                OplockBreakRequest::Oplock { oplock_level, file_id }
            }
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            OplockBreakRequest::Oplock { oplock_level, file_id } => {
                encode_oplock(*oplock_level, file_id, out)
            }
            OplockBreakRequest::Lease { flags, lease_key, lease_state } => {
                encode_lease(*flags, lease_key, *lease_state, out);
            }
        }
    }
}

impl OplockBreakResponse {
    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<OplockBreakResponse, Malformed> {
        Ok(match structure_size(message)? {
            LEASE_SIZE => {
                let (flags, lease_key, lease_state) = parse_lease(message)?;
                OplockBreakResponse::Lease { flags, lease_key, lease_state }
            }
            _ => {
                let (oplock_level, file_id) = parse_oplock(message)?;
                OplockBreakResponse::Oplock { oplock_level, file_id }
            }
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            OplockBreakResponse::Oplock { oplock_level, file_id } => {
                encode_oplock(*oplock_level, file_id, out)
            }
            OplockBreakResponse::Lease { flags, lease_key, lease_state } => {
                encode_lease(*flags, lease_key, *lease_state, out);
            }
        }
    }
}

impl OplockBreakNotification {
    /// SMB2_NOTIFY_BREAK_LEASE_FLAG_ACK_REQUIRED.
    pub const ACK_REQUIRED: u32 = 0x01;

    /// Parses the body of `message`, a whole message with its header.
    pub fn parse(message: &Bytes) -> Result<OplockBreakNotification, Malformed> {
        if structure_size(message)? != LEASE_NOTIFICATION_SIZE {
            let (oplock_level, file_id) = parse_oplock(message)?;
            return Ok(OplockBreakNotification::Oplock { oplock_level, file_id });
        }
        let body = parse::body(message, LEASE_NOTIFICATION_SIZE)?;
        let (_, (new_epoch, flags, lease_key, current_lease_state, new_lease_state)) =
            (u16, u32, array::<16>, u32, u32).parse(body)?;
        Ok(OplockBreakNotification::Lease {
            new_epoch,
            flags,
            lease_key,
            current_lease_state: LeaseState(current_lease_state),
            new_lease_state: LeaseState(new_lease_state),
        })
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            OplockBreakNotification::Oplock { oplock_level, file_id } => {
                encode_oplock(*oplock_level, file_id, out);
            }
            OplockBreakNotification::Lease {
                new_epoch,
                flags,
                lease_key,
                current_lease_state,
                new_lease_state,
            } => {
                out.put_u16_le(LEASE_NOTIFICATION_SIZE);
                out.put_u16_le(*new_epoch);
                out.put_u32_le(*flags);
                out.put_slice(lease_key);
                out.put_u32_le(current_lease_state.0);
                out.put_u32_le(new_lease_state.0);
                // BreakReason, AccessMaskHint and ShareMaskHint are reserved.
                out.put_bytes(0, 12);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::codec;

    const OPLOCK: &str = "1800 01 00 00000000 0100000000000000 0200000000000000";
    const LEASE: &str = "2400 0000 00000000 05050505050505050505050505050505 01000000 0000000000000000";

    #[test]
    fn acknowledgments() {
        let request =
            OplockBreakRequest::Oplock { oplock_level: 1, file_id: FileId { persistent: 1, volatile: 2 } };
        codec(OPLOCK, &request, OplockBreakRequest::parse, OplockBreakRequest::encode);
        let request =
            OplockBreakRequest::Lease { flags: 0, lease_key: [5; 16], lease_state: LeaseState::READ_CACHING };
        codec(LEASE, &request, OplockBreakRequest::parse, OplockBreakRequest::encode);
    }

    #[test]
    fn responses() {
        let response =
            OplockBreakResponse::Oplock { oplock_level: 1, file_id: FileId { persistent: 1, volatile: 2 } };
        codec(OPLOCK, &response, OplockBreakResponse::parse, OplockBreakResponse::encode);
        let response = OplockBreakResponse::Lease {
            flags: 0,
            lease_key: [5; 16],
            lease_state: LeaseState::READ_CACHING,
        };
        codec(LEASE, &response, OplockBreakResponse::parse, OplockBreakResponse::encode);
    }

    #[test]
    fn notifications() {
        let notification = OplockBreakNotification::Oplock {
            oplock_level: 1,
            file_id: FileId { persistent: 1, volatile: 2 },
        };
        codec(OPLOCK, &notification, OplockBreakNotification::parse, OplockBreakNotification::encode);
        let notification = OplockBreakNotification::Lease {
            new_epoch: 3,
            flags: OplockBreakNotification::ACK_REQUIRED,
            lease_key: [5; 16],
            current_lease_state: LeaseState(7),
            new_lease_state: LeaseState::READ_CACHING,
        };
        codec(
            "2c00 0300 01000000 05050505050505050505050505050505 07000000 01000000 00000000 00000000 00000000",
            &notification,
            OplockBreakNotification::parse,
            OplockBreakNotification::encode,
        );
    }
}
