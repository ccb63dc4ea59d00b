//! Bytes to meaning and back, for everything that an SMB2 or SMB3 server and its clients say to each other.
//!
//! No async, no clock, no socket, no file: functions from bytes to values and from values to bytes. One module
//! for each specification document:
//!
//! | module | document |
//! |---|---|
//! | [`frame`] | MS-SMB2 2.1: the direct TCP length prefix |
//! | [`smb1`] | MS-CIFS 2.2.4.52: the one SMB1 message that leads to SMB2 |
//! | [`smb2`] | MS-SMB2 2.2: header, the 19 commands, compound chains, transform header |
//! | [`fscc`] | MS-FSCC: information classes, attributes, control codes |
//! | [`dtyp`] | MS-DTYP: GUID, FILETIME, SID, security descriptor |
//! | [`crypto`] | MS-SMB2 3.1.4 and 3.1.5: signing, encryption, key derivation |
//! | [`auth`] | RFC 4178 and MS-NLMP: SPNEGO and NTLM |
//! | [`rpc`] | MS-RPCE, MS-SRVS, MS-WKST: what is said over the pipes of IPC$ |
//! | [`status`] | MS-ERREF 2.3: NTSTATUS |
//!
//! Below them stand [`parse`] and [`encode`], the primitives, [`malformed`], every way in which bytes can be
//! wrong, and the `flags!` macro.
//!
//! Two rules hold everywhere. Bytes from a peer never cause a panic. And no allocation has a size that the peer
//! merely announced: what is allocated is bounded by the bytes that are really there.
#![forbid(unsafe_code)]

mod flags;

pub mod auth;
pub mod crypto;
pub mod dtyp;
pub mod encode;
pub mod frame;
pub mod fscc;
pub mod malformed;
pub mod parse;
pub mod rpc;
pub mod smb1;
pub mod smb2;
pub mod status;

pub use malformed::Malformed;
pub use parse::Utf16;
pub use status::NtStatus;
