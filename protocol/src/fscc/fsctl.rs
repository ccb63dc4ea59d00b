//! Control codes of SMB2 IOCTL and what goes with them: MS-FSCC 2.3; MS-SMB2 2.2.31 and 2.2.32.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

use super::fixed::fixed;
use crate::Malformed;
use crate::dtyp::Guid;
use crate::parse::{self, Utf16};

/// A control code: any number, some with a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fsctl(pub u32);

macro_rules! codes {
    ($( $(#[$doc:meta])* $name:ident = $value:literal; )*) => {
        impl Fsctl {
            $( $(#[$doc])* pub const $name: Fsctl = Fsctl($value); )*

            /// The code's name in the specification, without `FSCTL_`.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $value => Some(stringify!($name)), )*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Locks a volume.
    LOCK_VOLUME = 0x0009_0018;
    /// Unlocks a volume.
    UNLOCK_VOLUME = 0x0009_001C;
    /// Dismounts a volume.
    DISMOUNT_VOLUME = 0x0009_0020;
    /// Is this a valid path?
    IS_PATHNAME_VALID = 0x0009_002C;
    /// How is the file compressed?
    GET_COMPRESSION = 0x0009_003C;
    /// The boot sector of a FAT volume.
    QUERY_FAT_BPB = 0x0009_0058;
    /// Counters of the file system.
    FILESYSTEM_GET_STATISTICS = 0x0009_0060;
    /// The geometry of an NTFS volume.
    GET_NTFS_VOLUME_DATA = 0x0009_0064;
    /// Where the file's blocks are.
    GET_RETRIEVAL_POINTERS = 0x0009_0073;
    /// Must the volume be checked?
    IS_VOLUME_DIRTY = 0x0009_0078;
    /// Files of an owner.
    FIND_FILES_BY_SID = 0x0009_008F;
    /// Gives the file an object id.
    SET_OBJECT_ID = 0x0009_0098;
    /// The file's object id.
    GET_OBJECT_ID = 0x0009_009C;
    /// Takes the file's object id away.
    DELETE_OBJECT_ID = 0x0009_00A0;
    /// Makes the file a reparse point.
    SET_REPARSE_POINT = 0x0009_00A4;
    /// What reparse point is it?
    GET_REPARSE_POINT = 0x0009_00A8;
    /// Makes a reparse point a file again.
    DELETE_REPARSE_POINT = 0x0009_00AC;
    /// Sets what belongs to an object id.
    SET_OBJECT_ID_EXTENDED = 0x0009_00BC;
    /// The file's object id; one is made if it has none.
    CREATE_OR_GET_OBJECT_ID = 0x0009_00C0;
    /// Makes a file sparse, or no longer.
    SET_SPARSE = 0x0009_00C4;
    /// Encrypts a file or no longer.
    SET_ENCRYPTION = 0x0009_00D7;
    /// The file's record in the journal.
    READ_FILE_USN_DATA = 0x0009_00EB;
    /// Ends the file's record in the journal.
    WRITE_USN_CLOSE_RECORD = 0x0009_00EF;
    /// Marks a handle for backup.
    MARK_HANDLE = 0x0009_00FC;
    /// Shares equal data of two files.
    SIS_COPYFILE = 0x0009_0100;
    /// Recalls a file from remote storage.
    RECALL_FILE = 0x0009_0117;
    /// Spare blocks of a UDF medium.
    QUERY_SPARING_INFO = 0x0009_0138;
    /// What a UDF volume says of itself.
    QUERY_ON_DISK_VOLUME_INFO = 0x0009_013C;
    /// Blocks are zeroed when they are freed.
    SET_ZERO_ON_DEALLOCATION = 0x0009_0194;
    /// Asks for an oplock; local only.
    REQUEST_OPLOCK = 0x0009_0240;
    /// Which checksums has the file?
    GET_INTEGRITY_INFORMATION = 0x0009_027C;
    /// Which ranges are valid?
    QUERY_FILE_REGIONS = 0x0009_0284;
    /// The geometry of a ReFS volume.
    GET_REFS_VOLUME_DATA = 0x0009_02D8;
    /// May virtual disks be shared here?
    QUERY_SHARED_VIRTUAL_DISK_SUPPORT = 0x0009_0300;
    /// A message to a shared virtual disk.
    SVHDX_SYNC_TUNNEL_REQUEST = 0x0009_0304;
    /// A message to a shared virtual disk.
    SVHDX_ASYNC_TUNNEL_REQUEST = 0x0009_0364;
    /// Gives the file checksums.
    SET_INTEGRITY_INFORMATION_EX = 0x0009_0380;
    /// Where the file's blocks are, and how often they are used.
    GET_RETRIEVAL_POINTERS_AND_REFCOUNT = 0x0009_03D3;
    /// In how many pieces is the file?
    GET_RETRIEVAL_POINTER_COUNT = 0x0009_042B;
    /// Snapshots of a stream.
    REFS_STREAM_SNAPSHOT_MANAGEMENT = 0x0009_0440;
    /// Which ranges take space?
    QUERY_ALLOCATED_RANGES = 0x0009_40CF;
    /// A token for the data of a range.
    OFFLOAD_READ = 0x0009_4264;
    /// Zeroes a range.
    SET_ZERO_DATA = 0x0009_80C8;
    /// Bad blocks of a UDF medium.
    SET_DEFECT_MANAGEMENT = 0x0009_8134;
    /// The ranges' data is no longer needed.
    FILE_LEVEL_TRIM = 0x0009_8208;
    /// Writes the data that a token stands for.
    OFFLOAD_WRITE = 0x0009_8268;
    /// Shares blocks of one file with another.
    DUPLICATE_EXTENTS_TO_FILE = 0x0009_8344;
    /// The same, and all or nothing if asked so.
    DUPLICATE_EXTENTS_TO_FILE_EX = 0x0009_83E8;
    /// Compresses a file or no longer.
    SET_COMPRESSION = 0x0009_C040;
    /// Gives the file checksums.
    SET_INTEGRITY_INFORMATION = 0x0009_C280;
    /// Where is this path in the DFS?
    DFS_GET_REFERRALS = 0x0006_0194;
    /// Where is this path in the DFS?
    DFS_GET_REFERRALS_EX = 0x0006_01B0;
    /// Waits for a pipe to be free.
    PIPE_WAIT = 0x0011_0018;
    /// What is there to be read from a pipe?
    PIPE_PEEK = 0x0011_400C;
    /// Writes to a pipe and reads its answer.
    PIPE_TRANSCEIVE = 0x0011_C017;
    /// A key for copying from the file.
    SRV_REQUEST_RESUME_KEY = 0x0014_0078;
    /// Link tracking of a handle.
    LMR_GET_LINK_TRACKING_INFORMATION = 0x0014_00E8;
    /// Link tracking of a handle.
    LMR_SET_LINK_TRACKING_INFORMATION = 0x0014_00EC;
    /// Keeps the open over a lost connection.
    LMR_REQUEST_RESILIENCY = 0x0014_01D4;
    /// Which other addresses has the server?
    QUERY_NETWORK_INTERFACE_INFO = 0x0014_01FC;
    /// Was the negotiation tampered with?
    VALIDATE_NEGOTIATE_INFO = 0x0014_0204;
    /// Which snapshots are there?
    SRV_ENUMERATE_SNAPSHOTS = 0x0014_4064;
    /// Copies ranges into this file; it must be open for reading and writing.
    SRV_COPYCHUNK = 0x0014_40F2;
    /// Hashes of the file for BranchCache.
    SRV_READ_HASH = 0x0014_41BB;
    /// Copies ranges into this file; it must be open for writing.
    SRV_COPYCHUNK_WRITE = 0x0014_80F2;
}

impl Fsctl {
    /// Whether the code asks that the handle can read data (MS-FSCC 2.3, access bits of the code).
    pub const fn needs_read(self) -> bool {
        self.0 >> 14 & 1 != 0
    }

    /// Whether the code asks that the handle can write data.
    pub const fn needs_write(self) -> bool {
        self.0 >> 15 & 1 != 0
    }
}

impl fmt::Debug for Fsctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "FSCTL_{name}"),
            None => write!(f, "FSCTL({:#010x})", self.0),
        }
    }
}

/// VALIDATE_NEGOTIATE_INFO request: MS-SMB2 2.2.31.4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidateNegotiateInfoRequest {
    /// Capabilities of the NEGOTIATE request.
    pub capabilities: u32,
    /// ClientGuid of the NEGOTIATE request.
    pub guid: Guid,
    /// SecurityMode of the NEGOTIATE request.
    pub security_mode: u16,
    /// Dialects of the NEGOTIATE request.
    pub dialects: Vec<u16>,
}

impl ValidateNegotiateInfoRequest {
    /// Reads the request at the start of `input`; what follows is ignored.
    ///
    /// Errors: `Truncated`.
    pub fn parse(input: &[u8]) -> Result<ValidateNegotiateInfoRequest, Malformed> {
        let (rest, (capabilities, guid, security_mode, count)) =
            (parse::u32, parse::array::<16>, parse::u16, parse::u16).parse(input)?;
        let (_, dialects) = parse::u16s(usize::from(count))(rest)?;
        Ok(ValidateNegotiateInfoRequest { capabilities, guid: Guid(guid), security_mode, dialects })
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.capabilities);
        out.put_slice(&self.guid.0);
        out.put_u16_le(self.security_mode);
        out.put_u16_le(self.dialects.len() as u16);
        crate::encode::put_u16s(out, &self.dialects);
    }
}

/// A key for server-side copies: opaque to clients.
pub type ResumeKey = [u8; 24];

fixed! {
    /// VALIDATE_NEGOTIATE_INFO response: MS-SMB2 2.2.32.6.
    pub struct ValidateNegotiateInfoResponse [24] {
        /// Capabilities of the NEGOTIATE response.
        capabilities: u32,
        /// ServerGuid of the NEGOTIATE response.
        guid: Guid,
        /// SecurityMode of the NEGOTIATE response.
        security_mode: u16,
        /// DialectRevision of the NEGOTIATE response.
        dialect: u16,
    }

    /// SRV_REQUEST_RESUME_KEY response: MS-SMB2 2.2.32.3. Its context is empty, and yet 32 bytes are sent (3.3.5.15.5).
    pub struct ResumeKeyResponse [32] {
        /// The key.
        resume_key: ResumeKey,
    }

    /// One range of a server-side copy: SRV_COPYCHUNK, MS-SMB2 2.2.31.1.1.
    pub struct CopyChunk [24] {
        /// Bytes from the source's start.
        source_offset: u64,
        /// Bytes from the target's start.
        target_offset: u64,
        /// Bytes to copy.
        length: u32,
    }

    /// SRV_COPYCHUNK_RESPONSE: MS-SMB2 2.2.32.1. With STATUS_INVALID_PARAMETER it states the server's limits instead
    /// (3.3.5.15.6.2): chunks, bytes a chunk, bytes in all.
    pub struct CopyChunkResponse [12] {
        /// Chunks that were copied.
        chunks_written: u32,
        /// Bytes of the chunk that failed in part.
        chunk_bytes_written: u32,
        /// Bytes in all.
        total_bytes_written: u32,
    }

    /// FILE_ZERO_DATA_INFORMATION, of SET_ZERO_DATA: MS-FSCC 2.3.
    pub struct ZeroData [16] {
        /// First byte to be zeroed.
        file_offset: u64,
        /// First byte not to be zeroed any more.
        beyond_final_zero: u64,
    }

    /// FILE_ALLOCATED_RANGE_BUFFER: QUERY_ALLOCATED_RANGES, both ways.
    pub struct AllocatedRange [16] {
        /// Bytes from the file's start.
        file_offset: u64,
        /// Bytes.
        length: u64,
    }

    /// The fixed part of the response to PIPE_PEEK; data follows it.
    pub struct PipePeek [16] {
        /// 1: disconnected, 2: listening, 3: connected, 4: closing.
        named_pipe_state: u32,
        /// Bytes that can be read.
        read_data_available: u32,
        /// Messages that wait.
        number_of_messages: u32,
        /// Bytes of the first of them.
        message_length: u32,
    }

    /// COMPRESSION_FORMAT: GET_COMPRESSION's response and SET_COMPRESSION's request. 0: none, 1: default, 2: LZNT1.
    pub struct CompressionFormat [2] {
        /// The format.
        format: u16,
    }

    /// GET_INTEGRITY_INFORMATION response.
    pub struct IntegrityInformation [16] {
        /// 0: none, 1: CRC-32, 2: CRC-64.
        checksum_algorithm: u16,
        /// Reserved.
        reserved: u16,
        /// 1: checksums are not enforced.
        flags: u32,
        /// Bytes that a checksum is of.
        checksum_chunk_size: u32,
        /// Bytes of a cluster.
        cluster_size: u32,
    }

    /// DUPLICATE_EXTENTS_DATA: DUPLICATE_EXTENTS_TO_FILE.
    pub struct DuplicateExtents [40] {
        /// FileId.Persistent of the source.
        source_persistent: u64,
        /// FileId.Volatile of the source.
        source_volatile: u64,
        /// Bytes from the source's start.
        source_file_offset: u64,
        /// Bytes from the target's start.
        target_file_offset: u64,
        /// Bytes to share.
        byte_count: u64,
    }

    /// FILE_OBJECTID_BUFFER: GET_OBJECT_ID and CREATE_OR_GET_OBJECT_ID.
    pub struct ObjectId [64] {
        /// The file's object id.
        object_id: Guid,
        /// The volume on which it was made.
        birth_volume_id: Guid,
        /// The object id that it had there.
        birth_object_id: Guid,
        /// The domain.
        domain_id: Guid,
    }

    /// NETWORK_RESILIENCY_REQUEST: LMR_REQUEST_RESILIENCY, MS-SMB2 2.2.31.3.
    pub struct ResiliencyRequest [8] {
        /// Milliseconds for which the open is to be kept.
        timeout: u32,
    }

    /// FILE_REGION_INPUT: QUERY_FILE_REGIONS.
    pub struct FileRegionInput [24] {
        /// Bytes from the file's start.
        file_offset: u64,
        /// Bytes.
        length: u64,
        /// 1: valid cached data, 2: valid data.
        desired_usage: u32,
    }

    /// FILE_REGION_OUTPUT with its one region: QUERY_FILE_REGIONS.
    pub struct FileRegionOutput [40] {
        /// Reserved.
        flags: u32,
        /// Regions in all.
        total_region_entry_count: u32,
        /// Regions here: 1.
        region_entry_count: u32,
        /// Reserved.
        reserved: u32,
        /// Bytes from the file's start.
        file_offset: u64,
        /// Bytes.
        length: u64,
        /// What was asked for.
        usage: u32,
    }
}

/// SRV_COPYCHUNK_COPY: SRV_COPYCHUNK and SRV_COPYCHUNK_WRITE, MS-SMB2 2.2.31.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyChunkCopy {
    /// The source's key.
    pub source_key: ResumeKey,
    /// The ranges.
    pub chunks: Vec<CopyChunk>,
}

impl CopyChunkCopy {
    /// The ranges that Windows takes in a request, the default of ServerSideCopyMaxNumberofChunks.
    pub const CHUNKS_MAX: u32 = 256;
    /// Bytes that Windows takes in a range, the default of ServerSideCopyMaxChunkSize.
    pub const CHUNK_BYTES_MAX: u32 = 1024 * 1024;
    /// Bytes that Windows takes in a request, the default of ServerSideCopyMaxDataSize.
    pub const BYTES_MAX: u32 = 16 * 1024 * 1024;

    /// Reads the request at the start of `input`; what follows is ignored.
    ///
    /// Errors: `Truncated`, also if ChunkCount states more than is there.
    pub fn parse(input: &[u8]) -> Result<CopyChunkCopy, Malformed> {
        let (rest, (source_key, count, _reserved)) =
            (parse::array::<24>, parse::u32, parse::u32).parse(input)?;
        let chunks = list(rest, count as usize)?;
        Ok(CopyChunkCopy { source_key, chunks })
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&self.source_key);
        out.put_u32_le(self.chunks.len() as u32);
        out.put_u32_le(0);
        for chunk in &self.chunks {
            chunk.encode(out);
        }
    }
}

/// `count` ranges, which must be there whole before any is allocated for.
fn list(input: &[u8], count: usize) -> Result<Vec<CopyChunk>, Malformed> {
    let bytes = count.checked_mul(CopyChunk::LEN).ok_or(Malformed::Truncated)?;
    let bytes = input.get(..bytes).ok_or(Malformed::Truncated)?;
    bytes.chunks_exact(CopyChunk::LEN).map(CopyChunk::parse).collect()
}

impl AllocatedRange {
    /// Reads the ranges of a response.
    ///
    /// Errors: `Length` if the last is not whole.
    pub fn parse_all(input: &[u8]) -> Result<Vec<AllocatedRange>, Malformed> {
        if !input.len().is_multiple_of(AllocatedRange::LEN) {
            return Err(Malformed::Length);
        }
        input.chunks_exact(AllocatedRange::LEN).map(AllocatedRange::parse).collect()
    }
}

/// FILE_SET_SPARSE_BUFFER: SET_SPARSE. Without any bytes it means true.
pub fn parse_set_sparse(input: &[u8]) -> bool {
    input.first().is_none_or(|&byte| byte != 0)
}

/// FSCTL_PIPE_WAIT request: MS-FSCC 2.3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipeWait {
    /// How long to wait in units of 100 ns, if it is stated; else as long as the pipe's default is.
    pub timeout: Option<u64>,
    /// The pipe's name without `\PIPE\`.
    pub name: Utf16,
}

impl PipeWait {
    /// Reads the request at the start of `input`; what follows is ignored.
    ///
    /// Errors: `Truncated`; `Length` for half a unit.
    pub fn parse(input: &[u8]) -> Result<PipeWait, Malformed> {
        let (rest, (timeout, length, specified, _padding)) =
            (parse::u64, parse::u32, parse::u8, parse::u8).parse(input)?;
        let (_, name) = parse::take(length as usize)(rest)?;
        Ok(PipeWait { timeout: Some(timeout).filter(|_| specified != 0), name: parse::utf16(name)? })
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.timeout.unwrap_or(0));
        out.put_u32_le(self.name.byte_len() as u32);
        out.put_u8(u8::from(self.timeout.is_some()));
        out.put_u8(0);
        crate::encode::put_utf16(out, &self.name);
    }
}

/// FILE_LEVEL_TRIM request: MS-FSCC 2.3.
///
/// Errors: `Truncated`, also if NumRanges states more than is there.
pub fn parse_trim(input: &[u8]) -> Result<Vec<AllocatedRange>, Malformed> {
    let (rest, (_key, count)) = (parse::u32, parse::u32).parse(input)?;
    let bytes = (count as usize).checked_mul(AllocatedRange::LEN).ok_or(Malformed::Truncated)?;
    AllocatedRange::parse_all(rest.get(..bytes).ok_or(Malformed::Truncated)?)
}

/// SRV_SNAPSHOT_ARRAY, the response to SRV_ENUMERATE_SNAPSHOTS: MS-SMB2 2.2.32.2. If the names do not fit into
/// `limit` bytes, only their number and size are stated.
pub fn encode_snapshots(names: &[Utf16], limit: usize) -> Bytes {
    let mut out = BytesMut::new();
    let size = names.iter().map(|name| name.byte_len() + 2).sum::<usize>() + 2;
    let fits = 12 + size <= limit && !names.is_empty();
    out.put_u32_le(names.len() as u32);
    out.put_u32_le(if fits { names.len() as u32 } else { 0 });
    out.put_u32_le(size as u32);
    if fits {
        for name in names {
            crate::encode::put_utf16(&mut out, name);
            out.put_u16_le(0);
        }
    }
    // An empty list still ends with a zero: 16 bytes are what Windows sends.
    out.put_bytes(0, if fits { 2 } else { 4 });
    out.freeze()
}

/// One interface of QUERY_NETWORK_INTERFACE_INFO's response: NETWORK_INTERFACE_INFO, MS-SMB2 2.2.32.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkInterfaceInfo {
    /// The interface's number.
    pub if_index: u32,
    /// [`NetworkInterfaceInfo::RSS_CAPABLE`] and [`NetworkInterfaceInfo::RDMA_CAPABLE`].
    pub capability: u32,
    /// Bits a second.
    pub link_speed: u64,
    /// Its address.
    pub address: IpAddr,
}

impl NetworkInterfaceInfo {
    /// Bytes of each entry.
    pub const LEN: usize = 152;
    /// Capability: several queues.
    pub const RSS_CAPABLE: u32 = 1;
    /// Capability: RDMA.
    pub const RDMA_CAPABLE: u32 = 2;

    const INET: u16 = 0x0002;
    const INET6: u16 = 0x0017;

    /// Appends a list, each entry pointing to the next.
    pub fn encode_all(interfaces: &[NetworkInterfaceInfo], out: &mut BytesMut) {
        for (at, interface) in interfaces.iter().enumerate() {
            let start = out.len();
            let last = at + 1 == interfaces.len();
            out.put_u32_le(if last { 0 } else { NetworkInterfaceInfo::LEN as u32 });
            out.put_u32_le(interface.if_index);
            out.put_u32_le(interface.capability);
            out.put_u32_le(0);
            out.put_u64_le(interface.link_speed);
            match interface.address {
                IpAddr::V4(address) => {
                    out.put_u16_le(NetworkInterfaceInfo::INET);
                    out.put_u16(0);
                    out.put_slice(&address.octets());
                }
                IpAddr::V6(address) => {
                    out.put_u16_le(NetworkInterfaceInfo::INET6);
                    out.put_u16(0);
                    out.put_u32_le(0);
                    out.put_slice(&address.octets());
                }
            }
            out.put_bytes(0, NetworkInterfaceInfo::LEN - (out.len() - start));
        }
    }

    /// Reads a list.
    ///
    /// Errors: `Truncated`, `Offset`, `Alignment`; `Value` for an unknown address family.
    pub fn parse_all(input: &[u8]) -> Result<Vec<NetworkInterfaceInfo>, Malformed> {
        let mut interfaces = Vec::new();
        for entry in super::chain::Entries::new(input, 8, NetworkInterfaceInfo::LEN) {
            let (rest, (if_index, capability, _reserved, link_speed, family, _port)) =
                (parse::u32, parse::u32, parse::u32, parse::u64, parse::u16, parse::u16).parse(entry?)?;
            let address = match family {
                NetworkInterfaceInfo::INET => IpAddr::V4(Ipv4Addr::from(parse::array::<4>(rest)?.1)),
                NetworkInterfaceInfo::INET6 => {
                    IpAddr::V6(Ipv6Addr::from((parse::u32, parse::array::<16>).parse(rest)?.1.1))
                }
                _ => return Err(Malformed::Value("address family")),
            };
            interfaces.push(NetworkInterfaceInfo { if_index, capability, link_speed, address });
        }
        Ok(interfaces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(encode: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        encode(&mut out);
        out
    }

    #[test]
    fn names_and_access() {
        assert_eq!(format!("{:?}", Fsctl(0x001C_0001)), "FSCTL(0x001c0001)");
        assert_eq!(format!("{:?}", Fsctl::PIPE_TRANSCEIVE), "FSCTL_PIPE_TRANSCEIVE");
        assert!(Fsctl::SRV_COPYCHUNK.needs_read() && !Fsctl::SRV_COPYCHUNK.needs_write());
        assert!(!Fsctl::SET_ZERO_DATA.needs_read() && Fsctl::SET_ZERO_DATA.needs_write());
        assert!(Fsctl::SET_COMPRESSION.needs_read() && Fsctl::SET_COMPRESSION.needs_write());
    }

    #[test]
    fn validate_negotiate() {
        let request = ValidateNegotiateInfoRequest {
            capabilities: 0x7F,
            guid: Guid([5; 16]),
            security_mode: 1,
            dialects: vec![0x0202, 0x0302],
        };
        let bytes = encoded(|out| request.encode(out));
        let known = [&[0x7F, 0, 0, 0][..], &[5; 16], &[1, 0, 2, 0, 0x02, 0x02, 0x02, 0x03]].concat();
        assert_eq!(bytes[..], known);
        assert_eq!(ValidateNegotiateInfoRequest::parse(&bytes), Ok(request));
        for length in 0..bytes.len() {
            assert_eq!(ValidateNegotiateInfoRequest::parse(&bytes[..length]), Err(Malformed::Truncated));
        }
        let response = ValidateNegotiateInfoResponse {
            capabilities: 1,
            guid: Guid([6; 16]),
            security_mode: 3,
            dialect: 0x0302,
        };
        let bytes = encoded(|out| response.encode(out));
        assert_eq!(bytes[..], [&[1, 0, 0, 0][..], &[6; 16], &[3, 0, 0x02, 0x03]].concat());
        assert_eq!(ValidateNegotiateInfoResponse::parse(&bytes), Ok(response));
    }

    #[test]
    fn copy_chunks() {
        let copy = CopyChunkCopy {
            source_key: [7; 24],
            chunks: vec![CopyChunk { source_offset: 1, target_offset: 2, length: 3 }; 2],
        };
        let bytes = encoded(|out| copy.encode(out));
        let chunk = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes[..], [&[7; 24][..], &[2, 0, 0, 0, 0, 0, 0, 0], &chunk, &chunk].concat());
        assert_eq!(CopyChunkCopy::parse(&bytes), Ok(copy));
        for length in 0..bytes.len() {
            assert_eq!(CopyChunkCopy::parse(&bytes[..length]), Err(Malformed::Truncated));
        }
        let mut many = bytes.clone();
        many[24..28].fill(0xFF);
        assert_eq!(CopyChunkCopy::parse(&many), Err(Malformed::Truncated));
        let response =
            CopyChunkResponse { chunks_written: 1, chunk_bytes_written: 0, total_bytes_written: 3 };
        assert_eq!(encoded(|out| response.encode(out))[..], [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(encoded(|out| ResumeKeyResponse { resume_key: [9; 24] }.encode(out)).len(), 32);
        assert_eq!(ResumeKeyResponse::parse(&[9; 28]).unwrap().resume_key, [9; 24]);
    }

    #[test]
    fn small_ones() {
        assert!(parse_set_sparse(&[]) && parse_set_sparse(&[1]) && !parse_set_sparse(&[0]));
        assert_eq!(AllocatedRange::parse_all(&[0; 17]), Err(Malformed::Length));
        assert_eq!(AllocatedRange::parse_all(&[0; 32]).unwrap().len(), 2);
        let wait = PipeWait { timeout: Some(5), name: Utf16::from_str("srvsvc") };
        let bytes = encoded(|out| wait.encode(out));
        assert_eq!(bytes[..14], [5, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 1, 0]);
        assert_eq!(PipeWait::parse(&bytes), Ok(wait));
        for length in 0..bytes.len() {
            assert_eq!(PipeWait::parse(&bytes[..length]), Err(Malformed::Truncated));
        }
        assert_eq!(encode_snapshots(&[], 16)[..], [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        let names = [Utf16::from_str("@GMT-2026.01.01-00.00.00")];
        let all = encode_snapshots(&names, 64);
        assert_eq!((all.len(), &all[..12]), (64, &[1, 0, 0, 0, 1, 0, 0, 0, 52, 0, 0, 0][..]));
        assert_eq!(encode_snapshots(&names, 63)[..12], [1, 0, 0, 0, 0, 0, 0, 0, 52, 0, 0, 0]);
        assert_eq!(parse_trim(&[0, 0, 0, 0, 1, 0, 0, 0]), Err(Malformed::Truncated));
        assert_eq!(parse_trim(&[0; 8]), Ok(vec![]));
    }

    #[test]
    fn interfaces() {
        let interfaces = [
            NetworkInterfaceInfo {
                if_index: 2,
                capability: NetworkInterfaceInfo::RSS_CAPABLE,
                link_speed: 1_000_000_000,
                address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            },
            NetworkInterfaceInfo {
                if_index: 3,
                capability: 0,
                link_speed: 10,
                address: IpAddr::V6("2001:db8::1".parse().unwrap()),
            },
        ];
        let bytes = encoded(|out| NetworkInterfaceInfo::encode_all(&interfaces, out));
        assert_eq!(bytes.len(), 304);
        assert_eq!(
            bytes[..32],
            [
                152, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, // Next, IfIndex, Capability, Reserved
                0x00, 0xCA, 0x9A, 0x3B, 0, 0, 0, 0, // LinkSpeed
                2, 0, 0, 0, 192, 0, 2, 1, // family, port, address
            ]
        );
        assert_eq!(NetworkInterfaceInfo::parse_all(&bytes).unwrap(), interfaces);
        for length in 1..bytes.len() {
            assert!(NetworkInterfaceInfo::parse_all(&bytes[..length]).is_err());
        }
    }

    proptest! {
        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ValidateNegotiateInfoRequest::parse(&bytes);
            let _ = CopyChunkCopy::parse(&bytes);
            let _ = AllocatedRange::parse_all(&bytes);
            let _ = PipeWait::parse(&bytes);
            let _ = parse_trim(&bytes);
            let _ = NetworkInterfaceInfo::parse_all(&bytes);
        }
    }
}
