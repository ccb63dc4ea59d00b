//! Create contexts: the chain itself, 2.2.13.2, and the typed forms of requests (2.2.13.2.x) and responses
//! (2.2.14.2.x).

use super::FileId;
use crate::dtyp::{FileTime, Guid};
use crate::encode::{pad, patch_u32};
use crate::flags::flags;
use crate::fscc::AccessMask;
use crate::parse::{array, buffer_ref, take, u16, u32, u64};
use crate::{Malformed, NtStatus};
use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

/// The most contexts that we read in one message; about 15 are defined, and none may stand twice.
const CONTEXTS_MAX: usize = 64;

/// The longest context name that we read, in bytes; the defined ones have 4 or 16.
const NAME_MAX: usize = 256;

/// The fixed part of a context in bytes.
const HEAD: usize = 16;

/// SMB2_CREATE_EA_BUFFER: FILE_FULL_EA_INFORMATION entries.
pub const EA_BUFFER: &[u8] = b"ExtA";
/// SMB2_CREATE_SD_BUFFER: a self-relative security descriptor.
pub const SD_BUFFER: &[u8] = b"SecD";
/// SMB2_CREATE_DURABLE_HANDLE_REQUEST, and its response.
pub const DURABLE_REQUEST: &[u8] = b"DHnQ";
/// SMB2_CREATE_DURABLE_HANDLE_RECONNECT.
pub const DURABLE_RECONNECT: &[u8] = b"DHnC";
/// SMB2_CREATE_ALLOCATION_SIZE.
pub const ALLOCATION_SIZE: &[u8] = b"AlSi";
/// SMB2_CREATE_QUERY_MAXIMAL_ACCESS_REQUEST, and its response.
pub const MAXIMAL_ACCESS: &[u8] = b"MxAc";
/// SMB2_CREATE_TIMEWARP_TOKEN.
pub const TIMEWARP: &[u8] = b"TWrp";
/// SMB2_CREATE_QUERY_ON_DISK_ID, and its response.
pub const DISK_ID: &[u8] = b"QFid";
/// SMB2_CREATE_REQUEST_LEASE in both versions, and their responses.
pub const LEASE: &[u8] = b"RqLs";
/// SMB2_CREATE_DURABLE_HANDLE_REQUEST_V2, and its response.
pub const DURABLE_REQUEST_V2: &[u8] = b"DH2Q";
/// SMB2_CREATE_DURABLE_HANDLE_RECONNECT_V2.
pub const DURABLE_RECONNECT_V2: &[u8] = b"DH2C";
/// Apple's extensions; the data is left raw.
pub const AAPL: &[u8] = b"AAPL";
/// SMB2_CREATE_APP_INSTANCE_ID.
pub const APP_INSTANCE_ID: &[u8] =
    &[0x45, 0xBC, 0xA6, 0x6A, 0xEF, 0xA7, 0xF7, 0x4A, 0x90, 0x08, 0xFA, 0x46, 0x2E, 0x14, 0x4D, 0x74];
/// SMB2_CREATE_APP_INSTANCE_VERSION.
pub const APP_INSTANCE_VERSION: &[u8] =
    &[0xB9, 0x82, 0xD0, 0xB7, 0x3B, 0x56, 0x07, 0x4F, 0xA0, 0x7B, 0x52, 0x4A, 0x81, 0x16, 0xA0, 0x10];

/// One create context, its data not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateContext {
    /// The name: four letters or a GUID's 16 bytes.
    pub name: Bytes,
    /// The data.
    pub data: Bytes,
}

impl CreateContext {
    /// A context with one of this module's names.
    pub fn new(name: &'static [u8], data: Bytes) -> CreateContext {
        CreateContext { name: Bytes::from_static(name), data }
    }

    /// The data of the first context called `name`.
    pub fn find<'a>(contexts: &'a [CreateContext], name: &[u8]) -> Option<&'a Bytes> {
        contexts.iter().find(|context| context.name == name).map(|context| &context.data)
    }
}

/// The chain of contexts in `length` bytes at `offset` of `message`, none before `least`.
///
/// Refused: a Next that is not a multiple of 8, that leads into its own context or beyond the chain; a name of less
/// than 4 bytes (2.2.13.2: "four or more octets") or over the fixed part; data that is misaligned or overlaps
/// the name; a name or data that reach beyond the own context. Data of length 0 may have any offset.
#[inline]
pub(super) fn parse(
    message: &Bytes,
    offset: usize,
    length: usize,
    least: usize,
) -> Result<Vec<CreateContext>, Malformed> {
    let mut contexts = Vec::new();
    if length == 0 {
        return Ok(contexts);
    }
    let mut chain = buffer_ref(message, offset, length, least)?;
    loop {
        let (_, (next, name_offset, name_length)) = (u32, u16, u16).parse(chain)?;
        let (_, (_, _reserved, data_offset, data_length)) = (take(8usize), u16, u16, u32).parse(chain)?;
        let (next, name_offset, name_length) =
            (next as usize, usize::from(name_offset), usize::from(name_length));
        let (data_offset, data_length) = (usize::from(data_offset), data_length as usize);
        let own = if next == 0 {
            chain
        } else {
            if !next.is_multiple_of(8) {
                return Err(Malformed::Alignment);
            }
            if next < HEAD {
                return Err(Malformed::Offset);
            }
            chain.get(..next).ok_or(Malformed::Offset)?
        };
        if !(4..=NAME_MAX).contains(&name_length) {
            return Err(Malformed::Length);
        }
        let name = buffer_ref(own, name_offset, name_length, HEAD)?;
        if data_length != 0 && !data_offset.is_multiple_of(8) {
            return Err(Malformed::Alignment);
        }
        let data = buffer_ref(own, data_offset, data_length, name_offset + name_length)?;
        if contexts.len() == CONTEXTS_MAX {
            return Err(Malformed::TooMany("create contexts"));
        }
        // slice_ref would want a slice of `message` even for nothing.
        let data = if data.is_empty() { Bytes::new() } else { message.slice_ref(data) };
        contexts.push(CreateContext { name: message.slice_ref(name), data });
        if next == 0 {
            return Ok(contexts);
        }
        chain = &chain[next..];
    }
}

/// Appends `contexts` as a chain; the first stands at once and must be 8-byte aligned in the message.
pub(super) fn encode(contexts: &[CreateContext], out: &mut BytesMut) {
    let mut previous: Option<usize> = None;
    for context in contexts {
        if let Some(start) = previous {
            pad(out, start, 8);
            let next = (out.len() - start) as u32;
            patch_u32(out, start, next);
        }
        let start = out.len();
        let data_offset = (HEAD + context.name.len()).next_multiple_of(8);
        out.put_u32_le(0);
        out.put_u16_le(HEAD as u16);
        out.put_u16_le(context.name.len() as u16);
        out.put_u16_le(0);
        out.put_u16_le(if context.data.is_empty() { 0 } else { data_offset as u16 });
        out.put_u32_le(context.data.len() as u32);
        out.put_slice(&context.name);
        pad(out, start, 8);
        out.put_slice(&context.data);
        previous = Some(start);
    }
}

/// The whole of `data` must be what `parser` reads.
fn exactly<'a, T>(
    data: &'a [u8],
    mut parser: impl Parser<&'a [u8], Output = T, Error = Malformed>,
) -> Result<T, Malformed> {
    let (rest, value) = parser.parse(data)?;
    if rest.is_empty() { Ok(value) } else { Err(Malformed::Length) }
}

/// SMB2_CREATE_ALLOCATION_SIZE: 2.2.13.2.6. The space, in bytes, that a new file is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationSize(pub u64);

impl AllocationSize {
    /// Parses a context's data, which must be 8 bytes.
    pub fn parse(data: &[u8]) -> Result<AllocationSize, Malformed> {
        exactly(data, u64).map(AllocationSize)
    }

    /// The context.
    pub fn context(&self) -> CreateContext {
        CreateContext::new(ALLOCATION_SIZE, Bytes::copy_from_slice(&self.0.to_le_bytes()))
    }
}

/// SMB2_CREATE_TIMEWARP_TOKEN: 2.2.13.2.7. Open the file as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timewarp(pub FileTime);

impl Timewarp {
    /// Parses a context's data, which must be 8 bytes.
    pub fn parse(data: &[u8]) -> Result<Timewarp, Malformed> {
        exactly(data, u64).map(|time| Timewarp(FileTime(time)))
    }

    /// The context.
    pub fn context(&self) -> CreateContext {
        CreateContext::new(TIMEWARP, Bytes::copy_from_slice(&self.0.0.to_le_bytes()))
    }
}

/// SMB2_CREATE_QUERY_MAXIMAL_ACCESS_REQUEST: 2.2.13.2.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaximalAccessRequest {
    /// Answer only if the file's last write time differs from this.
    pub timestamp: Option<FileTime>,
}

impl MaximalAccessRequest {
    /// Parses a context's data: nothing, or 8 bytes.
    pub fn parse(data: &[u8]) -> Result<MaximalAccessRequest, Malformed> {
        if data.is_empty() {
            return Ok(MaximalAccessRequest { timestamp: None });
        }
        exactly(data, u64).map(|time| MaximalAccessRequest { timestamp: Some(FileTime(time)) })
    }

    /// The context.
    pub fn context(&self) -> CreateContext {
        let data = self.timestamp.map_or(Bytes::new(), |time| Bytes::copy_from_slice(&time.0.to_le_bytes()));
        CreateContext::new(MAXIMAL_ACCESS, data)
    }
}

/// SMB2_CREATE_QUERY_MAXIMAL_ACCESS_RESPONSE: 2.2.14.2.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaximalAccessResponse {
    /// Whether the access could be told.
    pub status: NtStatus,
    /// All that the user may do with the file.
    pub access: AccessMask,
}

impl MaximalAccessResponse {
    /// Parses a context's data, which must be 8 bytes.
    pub fn parse(data: &[u8]) -> Result<MaximalAccessResponse, Malformed> {
        let (status, access) = exactly(data, (u32, u32))?;
        Ok(MaximalAccessResponse { status: NtStatus(status), access: AccessMask(access) })
    }

    /// The context.
    pub fn context(&self) -> CreateContext {
        let mut data = BytesMut::with_capacity(8);
        data.put_u32_le(self.status.0);
        data.put_u32_le(self.access.0);
        CreateContext::new(MAXIMAL_ACCESS, data.freeze())
    }
}

/// SMB2_CREATE_QUERY_ON_DISK_ID, the response: 2.2.14.2.9. The request has no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskIdResponse {
    /// The file's number on its volume.
    pub file_id: u64,
    /// The volume's number.
    pub volume_id: u64,
}

impl DiskIdResponse {
    /// Parses a context's data, which must be 32 bytes.
    pub fn parse(data: &[u8]) -> Result<DiskIdResponse, Malformed> {
        let (file_id, volume_id, _reserved) = exactly(data, (u64, u64, array::<16>))?;
        Ok(DiskIdResponse { file_id, volume_id })
    }

    /// The context.
    pub fn context(&self) -> CreateContext {
        let mut data = BytesMut::with_capacity(32);
        data.put_u64_le(self.file_id);
        data.put_u64_le(self.volume_id);
        data.put_bytes(0, 16);
        CreateContext::new(DISK_ID, data.freeze())
    }
}

flags! {
    /// What a lease lets its holder cache: 2.2.13.2.8.
    pub struct LeaseState: u32 {
        /// SMB2_LEASE_READ_CACHING.
        READ_CACHING = 0x01;
        /// SMB2_LEASE_HANDLE_CACHING.
        HANDLE_CACHING = 0x02;
        /// SMB2_LEASE_WRITE_CACHING.
        WRITE_CACHING = 0x04;
    }
}

/// The flags of a lease, in both directions.
pub mod lease_flags {
    /// SMB2_LEASE_FLAG_BREAK_IN_PROGRESS, in responses.
    pub const BREAK_IN_PROGRESS: u32 = 0x02;
    /// SMB2_LEASE_FLAG_PARENT_LEASE_KEY_SET (version 2).
    pub const PARENT_LEASE_KEY_SET: u32 = 0x04;
}

/// SMB2_CREATE_REQUEST_LEASE and _V2, request and response: 2.2.13.2.8, 2.2.13.2.10, 2.2.14.2.10, 2.2.14.2.11.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// The client's name for the lease.
    pub lease_key: [u8; 16],
    /// What is asked for, or granted.
    pub lease_state: LeaseState,
    /// Some of [`lease_flags`].
    pub lease_flags: u32,
    /// What only version 2 has.
    pub v2: Option<LeaseV2>,
}

/// The rest of a lease of version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseV2 {
    /// The lease of the directory that the file is in; counts if the flag says so.
    pub parent_lease_key: [u8; 16],
    /// Counts the lease's changes of state.
    pub epoch: u16,
}

impl Lease {
    /// Parses a context's data: 32 bytes are version 1, 52 are version 2.
    pub fn parse(data: &[u8]) -> Result<Lease, Malformed> {
        let (rest, (lease_key, lease_state, lease_flags, _duration)) =
            (array::<16>, u32, u32, u64).parse(data)?;
        let v2 = if rest.is_empty() {
            None
        } else {
            let (parent_lease_key, epoch, _reserved) = exactly(rest, (array::<16>, u16, u16))?;
            Some(LeaseV2 { parent_lease_key, epoch })
        };
        Ok(Lease { lease_key, lease_state: LeaseState(lease_state), lease_flags, v2 })
    }

    /// The context.
    pub fn context(&self) -> CreateContext {
        let mut data = BytesMut::with_capacity(52);
        data.put_slice(&self.lease_key);
        data.put_u32_le(self.lease_state.0);
        data.put_u32_le(self.lease_flags);
        data.put_u64_le(0);
        if let Some(v2) = &self.v2 {
            data.put_slice(&v2.parent_lease_key);
            data.put_u16_le(v2.epoch);
            data.put_u16_le(0);
        }
        CreateContext::new(LEASE, data.freeze())
    }
}

/// SMB2_CREATE_DURABLE_HANDLE_REQUEST: 2.2.13.2.3, and its response, 2.2.14.2.3. Neither says anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurableRequest {}

impl DurableRequest {
    /// Parses a request's data, which must be 16 bytes.
    pub fn parse(data: &[u8]) -> Result<DurableRequest, Malformed> {
        exactly(data, array::<16>).map(|_| DurableRequest {})
    }

    /// The request's context.
    pub fn context(&self) -> CreateContext {
        CreateContext::new(DURABLE_REQUEST, Bytes::from_static(&[0; 16]))
    }

    /// The response's context.
    pub fn granted(&self) -> CreateContext {
        CreateContext::new(DURABLE_REQUEST, Bytes::from_static(&[0; 8]))
    }
}

/// SMB2_CREATE_DURABLE_HANDLE_RECONNECT: 2.2.13.2.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurableReconnect {
    /// The open that is wanted back.
    pub file_id: FileId,
}

impl DurableReconnect {
    /// Parses a context's data, which must be 16 bytes.
    pub fn parse(data: &[u8]) -> Result<DurableReconnect, Malformed> {
        exactly(data, FileId::parse).map(|file_id| DurableReconnect { file_id })
    }

    /// The context.
    pub fn context(&self) -> CreateContext {
        let mut data = BytesMut::with_capacity(16);
        self.file_id.encode(&mut data);
        CreateContext::new(DURABLE_RECONNECT, data.freeze())
    }
}

/// SMB2_CREATE_DURABLE_HANDLE_REQUEST_V2: 2.2.13.2.11.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurableRequestV2 {
    /// How long the open is to outlive its connection, in milliseconds; 0: as the server likes.
    pub timeout_ms: u32,
    /// [`DurableRequestV2::PERSISTENT`] or 0.
    pub flags: u32,
    /// The client's name for this CREATE.
    pub create_guid: Guid,
}

impl DurableRequestV2 {
    /// SMB2_DHANDLE_FLAG_PERSISTENT.
    pub const PERSISTENT: u32 = 0x02;

    /// Parses a context's data, which must be 32 bytes.
    pub fn parse(data: &[u8]) -> Result<DurableRequestV2, Malformed> {
        let (timeout_ms, flags, _reserved, guid) = exactly(data, (u32, u32, u64, array::<16>))?;
        Ok(DurableRequestV2 { timeout_ms, flags, create_guid: Guid(guid) })
    }

    /// The context.
    pub fn context(&self) -> CreateContext {
        let mut data = BytesMut::with_capacity(32);
        data.put_u32_le(self.timeout_ms);
        data.put_u32_le(self.flags);
        data.put_u64_le(0);
        data.put_slice(&self.create_guid.0);
        CreateContext::new(DURABLE_REQUEST_V2, data.freeze())
    }
}

/// SMB2_CREATE_DURABLE_HANDLE_RESPONSE_V2: 2.2.14.2.12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurableResponseV2 {
    /// How long the open outlives its connection, in milliseconds.
    pub timeout_ms: u32,
    /// [`DurableRequestV2::PERSISTENT`] or 0.
    pub flags: u32,
}

impl DurableResponseV2 {
    /// Parses a context's data, which must be 8 bytes.
    pub fn parse(data: &[u8]) -> Result<DurableResponseV2, Malformed> {
        let (timeout_ms, flags) = exactly(data, (u32, u32))?;
        Ok(DurableResponseV2 { timeout_ms, flags })
    }

    /// The context.
    pub fn context(&self) -> CreateContext {
        let mut data = BytesMut::with_capacity(8);
        data.put_u32_le(self.timeout_ms);
        data.put_u32_le(self.flags);
        CreateContext::new(DURABLE_REQUEST_V2, data.freeze())
    }
}

/// SMB2_CREATE_DURABLE_HANDLE_RECONNECT_V2: 2.2.13.2.12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurableReconnectV2 {
    /// The open that is wanted back.
    pub file_id: FileId,
    /// The client's name for the CREATE that made it.
    pub create_guid: Guid,
    /// [`DurableRequestV2::PERSISTENT`] or 0.
    pub flags: u32,
}

impl DurableReconnectV2 {
    /// Parses a context's data, which must be 36 bytes.
    pub fn parse(data: &[u8]) -> Result<DurableReconnectV2, Malformed> {
        let (file_id, guid, flags) = exactly(data, (FileId::parse, array::<16>, u32))?;
        Ok(DurableReconnectV2 { file_id, create_guid: Guid(guid), flags })
    }

    /// The context.
    pub fn context(&self) -> CreateContext {
        let mut data = BytesMut::with_capacity(36);
        self.file_id.encode(&mut data);
        data.put_slice(&self.create_guid.0);
        data.put_u32_le(self.flags);
        CreateContext::new(DURABLE_RECONNECT_V2, data.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smb2::check::hex;
    use std::fmt::Debug;

    fn chain(text: &str) -> Result<Vec<CreateContext>, Malformed> {
        let bytes = hex(text);
        parse(&bytes, 0, bytes.len(), 0)
    }

    #[test]
    fn chains_round_trip() {
        let contexts = [
            CreateContext::new(EA_BUFFER, Bytes::from_static(b"odd")),
            CreateContext::new(DISK_ID, Bytes::new()),
            CreateContext::new(APP_INSTANCE_ID, Bytes::from_static(&[1; 20])),
            CreateContext::new(LEASE, Bytes::from_static(&[2; 32])),
        ];
        let mut out = BytesMut::new();
        encode(&contexts, &mut out);
        let bytes = out.freeze();
        assert_eq!(parse(&bytes, 0, bytes.len(), 0).as_deref(), Ok(&contexts[..]));
        for length in 1..bytes.len() {
            assert!(parse(&bytes.slice(..length), 0, length, 0).is_err(), "{length}");
        }
        assert_eq!(CreateContext::find(&contexts, LEASE).map(Bytes::len), Some(32));
        assert_eq!(CreateContext::find(&contexts, AAPL), None);
    }

    #[test]
    fn hostile_chains() {
        let one = "1000 0400 0000 1800 08000000 4d784163 00000000 0101010101010101";
        assert!(chain(&format!("00000000 {one}")).is_ok());
        // Next into itself, misaligned, beyond the end, and to the very end, where nothing stands.
        assert_eq!(chain(&format!("08000000 {one}")), Err(Malformed::Offset));
        assert_eq!(chain(&format!("14000000 {one}")), Err(Malformed::Alignment));
        assert_eq!(chain(&format!("28000000 {one}")), Err(Malformed::Offset));
        assert_eq!(chain(&format!("f8ffffff {one}")), Err(Malformed::Offset));
        assert_eq!(chain(&format!("20000000 {one}")), Err(Malformed::Truncated));
        // Data that lies in the next context.
        assert_eq!(chain(&format!("18000000 {one}")), Err(Malformed::Offset));
        // Names: too short, over the head, beyond the end.
        assert_eq!(chain("00000000 1000 0300 0000 0000 00000000 4d784163 00000000"), Err(Malformed::Length));
        assert_eq!(chain("00000000 0800 0400 0000 0000 00000000 4d784163 00000000"), Err(Malformed::Offset));
        assert_eq!(chain("00000000 1000 0900 0000 0000 00000000 4d784163 00000000"), Err(Malformed::Offset));
        assert_eq!(chain("00000000 1800 0400 0000 0000 00000000 4d784163 00000000"), Err(Malformed::Offset));
        // Data: misaligned, over the name, beyond the end, huge.
        let data = |fields: &str| {
            chain(&format!("00000000 1000 0400 0000 {fields} 4d784163 00000000 0101010101010101"))
        };
        assert_eq!(data("1900 01000000"), Err(Malformed::Alignment));
        assert_eq!(data("1000 08000000"), Err(Malformed::Offset));
        assert_eq!(data("1800 09000000"), Err(Malformed::Offset));
        assert_eq!(data("1800 ffffffff"), Err(Malformed::Offset));
        // No data: the offset does not count.
        assert!(data("ffff 00000000").is_ok());
        let many = "18000000 1000 0400 0000 0000 00000000 4d784163 00000000".repeat(CONTEXTS_MAX + 1);
        assert_eq!(chain(&many), Err(Malformed::TooMany("create contexts")));
    }

    fn typed<T: PartialEq + Debug>(
        value: T,
        context: &CreateContext,
        name: &[u8],
        text: &str,
        parse: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) {
        let data = hex(text);
        assert_eq!(context.name, name);
        assert_eq!(context.data, data);
        assert_eq!(parse(&data).as_ref(), Ok(&value));
        for length in 0..data.len() {
            assert!(parse(&data[..length]).is_err() || length == 0 && name == MAXIMAL_ACCESS || length == 32);
        }
        let mut longer = data.to_vec();
        longer.push(0);
        assert!(parse(&longer).is_err());
    }

    #[test]
    fn typed_forms() {
        let value = AllocationSize(0x1000);
        typed(value, &value.context(), ALLOCATION_SIZE, "0010000000000000", AllocationSize::parse);
        let value = Timewarp(FileTime(3));
        typed(value, &value.context(), TIMEWARP, "0300000000000000", Timewarp::parse);
        let value = MaximalAccessRequest { timestamp: Some(FileTime(3)) };
        typed(value, &value.context(), MAXIMAL_ACCESS, "0300000000000000", MaximalAccessRequest::parse);
        let value = MaximalAccessRequest { timestamp: None };
        assert_eq!(MaximalAccessRequest::parse(&value.context().data), Ok(value));
        let value =
            MaximalAccessResponse { status: NtStatus::ACCESS_DENIED, access: AccessMask(0x001F_01FF) };
        typed(value, &value.context(), MAXIMAL_ACCESS, "220000c0 ff011f00", MaximalAccessResponse::parse);
        let value = DiskIdResponse { file_id: 1, volume_id: 2 };
        typed(
            value,
            &value.context(),
            DISK_ID,
            "0100000000000000 0200000000000000 00000000000000000000000000000000",
            DiskIdResponse::parse,
        );
        let value = DurableRequest {};
        typed(
            value,
            &value.context(),
            DURABLE_REQUEST,
            "00000000000000000000000000000000",
            DurableRequest::parse,
        );
        assert_eq!(value.granted().data.len(), 8);
        let value = DurableReconnect { file_id: FileId { persistent: 1, volatile: 2 } };
        typed(
            value,
            &value.context(),
            DURABLE_RECONNECT,
            "0100000000000000 0200000000000000",
            DurableReconnect::parse,
        );
        let value = DurableRequestV2 {
            timeout_ms: 60_000,
            flags: DurableRequestV2::PERSISTENT,
            create_guid: Guid([7; 16]),
        };
        typed(
            value,
            &value.context(),
            DURABLE_REQUEST_V2,
            "60ea0000 02000000 0000000000000000 07070707070707070707070707070707",
            DurableRequestV2::parse,
        );
        let value = DurableResponseV2 { timeout_ms: 60_000, flags: 0 };
        typed(value, &value.context(), DURABLE_REQUEST_V2, "60ea0000 00000000", DurableResponseV2::parse);
        let value = DurableReconnectV2 {
            file_id: FileId { persistent: 1, volatile: 2 },
            create_guid: Guid([7; 16]),
            flags: 0,
        };
        typed(
            value,
            &value.context(),
            DURABLE_RECONNECT_V2,
            "0100000000000000 0200000000000000 07070707070707070707070707070707 00000000",
            DurableReconnectV2::parse,
        );
    }

    #[test]
    fn leases() {
        let v1 = Lease {
            lease_key: [5; 16],
            lease_state: LeaseState::READ_CACHING | LeaseState::WRITE_CACHING,
            lease_flags: 0,
            v2: None,
        };
        let text = "05050505050505050505050505050505 05000000 00000000 0000000000000000";
        typed(v1, &v1.context(), LEASE, text, Lease::parse);
        let v2 = Lease {
            lease_flags: lease_flags::PARENT_LEASE_KEY_SET,
            v2: Some(LeaseV2 { parent_lease_key: [6; 16], epoch: 3 }),
            ..v1
        };
        let text = "05050505050505050505050505050505 05000000 04000000 0000000000000000
            06060606060606060606060606060606 0300 0000";
        typed(v2, &v2.context(), LEASE, text, Lease::parse);
    }
}
