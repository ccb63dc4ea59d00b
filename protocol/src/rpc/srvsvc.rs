//! The server service: MS-SRVS. Formats, and the calls that list shares and describe the server.
//!
//! What is here: NetrShareEnum (15), NetrShareGetInfo (16), NetrShareCheck (20), NetrServerGetInfo (21), NetrRemoteTOD
//! (28), NetrShareEnumSticky (36).

use bytes::{Bytes, BytesMut};

use super::ndr::{Kind, Reader, Value, Writer};
use super::pdu::{FAULT_NDR, FAULT_OP_RANGE, Syntax};
use super::{
    Answers, DEVICE_NOT_SHARED, INVALID_LEVEL, MORE_DATA, NET_NAME_NOT_FOUND, SUCCESS, ServerEntry,
    ShareEntry, ShareKind,
};
use crate::Malformed;
use crate::dtyp::{FileTime, Guid};
use crate::parse::Utf16;

/// The interface: version 3.0.
pub const SYNTAX: Syntax = Syntax {
    uuid: Guid::from_fields(0x4b32_4fc8, 0x1670, 0x01d3, [0x12, 0x78, 0x5a, 0x47, 0xbf, 0x6e, 0xe1, 0x88]),
    version: 3,
};

/// NetrShareEnum.
pub const SHARE_ENUM: u16 = 15;
/// NetrShareEnumSticky: the shares that are there after a restart.
pub const SHARE_ENUM_STICKY: u16 = 36;
/// NetrShareGetInfo.
pub const SHARE_GET_INFO: u16 = 16;
/// NetrShareCheck: is this path shared?
pub const SHARE_CHECK: u16 = 20;
/// NetrServerGetInfo.
pub const SERVER_GET_INFO: u16 = 21;
/// NetrRemoteTOD.
pub const REMOTE_TOD: u16 = 28;

/// PLATFORM_ID_NT.
pub const PLATFORM_NT: u32 = 500;

/// SV_TYPE flags of a file server that is no domain controller: workstation, server, NT, NT server.
pub const TYPE_FILE_SERVER: u32 = 0x0000_9003;

/// STYPE_SPECIAL: the share is hidden (IPC$, C$, ...).
pub const STYPE_SPECIAL: u32 = 0x8000_0000;

/// The most bytes of a response's stub. A list that is longer is given in pieces.
pub const RESPONSE_MAX: usize = 1 << 20;

/// PreferedMaximumLength that asks for all.
pub const ALL: u32 = u32::MAX;

/// One member of a SHARE_INFO structure.
#[derive(Clone, Copy)]
enum Member {
    Name,
    Type,
    Remark,
    Permissions,
    MaxUses,
    CurrentUses,
    Path,
    Password,
    Flags,
    DescriptorSize,
    Descriptor,
}

impl Member {
    fn kind(self) -> Kind {
        match self {
            Member::Name | Member::Remark | Member::Path | Member::Password => Kind::Text,
            Member::Descriptor => Kind::Octets,
            _ => Kind::Long,
        }
    }
}

/// The members of SHARE_INFO at a level: MS-SRVS 2.2.4.22 and following. Nothing for an unknown level.
fn members(level: u32) -> Option<&'static [Member]> {
    use Member::*;
    Some(match level {
        0 => &[Name],
        1 => &[Name, Type, Remark],
        2 => &[Name, Type, Remark, Permissions, MaxUses, CurrentUses, Path, Password],
        501 => &[Name, Type, Remark, Flags],
        502 => &[
            Name,
            Type,
            Remark,
            Permissions,
            MaxUses,
            CurrentUses,
            Path,
            Password,
            DescriptorSize,
            Descriptor,
        ],
        1004 => &[Remark],
        1005 => &[Flags],
        1006 => &[MaxUses],
        _ => return None,
    })
}

/// Levels to which the interface gives a structure, served here or not: MS-SRVS 2.2.3.6.
fn is_share_level(level: u32) -> bool {
    matches!(level, 0 | 1 | 2 | 501..=503 | 1004..=1007 | 1501)
}

/// The same for the server's own structures: MS-SRVS 2.2.3.7.
fn is_server_level(level: u32) -> bool {
    matches!(level, 100..=103 | 502 | 503 | 599 | 1005..=1599)
}

/// Levels of NetrShareEnum. (Those above are of NetrShareGetInfo only; Windows has 503 too.)
fn is_enum_level(level: u32) -> bool {
    matches!(level, 0 | 1 | 2 | 501 | 502)
}

fn share_type(share: &ShareEntry) -> u32 {
    let kind = match share.kind {
        ShareKind::Disk => 0,
        ShareKind::Printer => 1,
        ShareKind::Ipc => 3,
    };
    kind | if share.hidden { STYPE_SPECIAL } else { 0 }
}

fn values(share: &ShareEntry, members: &[Member]) -> Vec<Value> {
    let descriptor = share.security_descriptor.as_ref().map(|descriptor| {
        let mut out = BytesMut::new();
        descriptor.encode(&mut out);
        out.freeze()
    });
    let value = |member: &Member| match member {
        Member::Name => Value::text(&share.name),
        Member::Type => Value::Long(share_type(share)),
        Member::Remark => Value::text(&share.comment),
        // For share-level security only, which is gone; Windows sends 0.
        Member::Permissions => Value::Long(0),
        Member::MaxUses => Value::Long(share.max_uses),
        Member::CurrentUses => Value::Long(share.current_uses),
        Member::Path => Value::text(&share.path),
        Member::Password => Value::Text(None),
        Member::Flags => Value::Long(share.flags),
        Member::DescriptorSize => Value::Long(descriptor.as_ref().map_or(0, |bytes| bytes.len() as u32)),
        Member::Descriptor => Value::Octets(descriptor.clone()),
    };
    members.iter().map(value).collect()
}

/// NetrShareEnum's arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareEnumRequest {
    /// The server, as the client calls it.
    pub server_name: Option<Utf16>,
    /// Which structure is wanted.
    pub level: u32,
    /// About how many bytes are wanted; [`ALL`].
    pub preferred_maximum_length: u32,
    /// Where to go on; nothing: from the start, and no going on is wanted.
    pub resume_handle: Option<u32>,
}

impl ShareEnumRequest {
    /// Reads the arguments. At an unknown level what follows the level cannot be read, and is taken as not there.
    ///
    /// Errors: the reader's; `Value` if the level is stated twice and differs.
    pub fn parse(stub: &[u8]) -> Result<ShareEnumRequest, Malformed> {
        let mut reader = Reader::new(stub);
        let server_name = reader.unique_string()?;
        let level = reader.u32()?;
        if reader.u32()? != level {
            return Err(Malformed::Value("share level"));
        }
        let request =
            ShareEnumRequest { server_name, level, preferred_maximum_length: ALL, resume_handle: None };
        let Some(members) = members(level).filter(|_| is_enum_level(level)) else { return Ok(request) };
        // Entries in a request mean nothing, but they may be there.
        container(&mut reader, members)?;
        let preferred_maximum_length = reader.u32()?;
        let resume_handle = match reader.pointer()? {
            true => Some(reader.u32()?),
            false => None,
        };
        Ok(ShareEnumRequest { preferred_maximum_length, resume_handle, ..request })
    }

    /// The arguments' stub.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.unique_string(self.server_name.as_deref());
        writer.u32(self.level);
        writer.u32(self.level);
        writer.pointer(true);
        writer.u32(0);
        writer.pointer(false);
        writer.u32(self.preferred_maximum_length);
        writer.pointer(self.resume_handle.is_some());
        if let Some(handle) = self.resume_handle {
            writer.u32(handle);
        }
        writer.finish()
    }
}

/// NetrShareEnum's results, as a client reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareEnumResponse {
    /// The shares; what the level does not state is empty.
    pub shares: Vec<ShareInfo>,
    /// How many there are from where the call began.
    pub total_entries: u32,
    /// Where the next call goes on.
    pub resume_handle: Option<u32>,
    /// [`SUCCESS`], [`MORE_DATA`] or an error.
    pub status: u32,
}

/// SHARE_INFO_*_CONTAINER behind its pointer: MS-SRVS 2.2.4.32 and following.
fn container(reader: &mut Reader<'_>, members: &[Member]) -> Result<Vec<Vec<Value>>, Malformed> {
    if !reader.pointer()? {
        return Ok(Vec::new());
    }
    let count = reader.u32()?;
    if !reader.pointer()? {
        return Ok(Vec::new());
    }
    if reader.u32()? != count {
        return Err(Malformed::Value("share count"));
    }
    let kinds: Vec<Kind> = members.iter().map(|member| member.kind()).collect();
    reader.structures(count as usize, &kinds)
}

/// What a client reads of a share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareInfo {
    /// Its name.
    pub name: Utf16,
    /// STYPE: 0 a disk, 1 a printer, 3 pipes, with [`STYPE_SPECIAL`].
    pub share_type: u32,
    /// What people read of it.
    pub remark: Utf16,
    /// What it shares.
    pub path: Utf16,
    /// SHI1005_FLAGS.
    pub flags: u32,
    /// Who may use it, as it came.
    pub security_descriptor: Option<Bytes>,
}

impl ShareEnumResponse {
    /// Reads the results.
    ///
    /// Errors: the reader's; `Value` for an unknown level.
    pub fn parse(stub: &[u8]) -> Result<ShareEnumResponse, Malformed> {
        let mut reader = Reader::new(stub);
        let level = reader.u32()?;
        if reader.u32()? != level {
            return Err(Malformed::Value("share level"));
        }
        let mut shares = Vec::new();
        if let Some(members) = members(level).filter(|_| is_enum_level(level)) {
            let list = container(&mut reader, members)?;
            shares.extend(list.into_iter().map(|values| share_info(members, values)));
        } else if is_share_level(level) && reader.pointer()? {
            return Err(Malformed::Value("share level"));
        }
        let total_entries = reader.u32()?;
        let resume_handle = match reader.pointer()? {
            true => Some(reader.u32()?),
            false => None,
        };
        Ok(ShareEnumResponse { shares, total_entries, resume_handle, status: reader.u32()? })
    }
}

fn share_info(members: &[Member], values: Vec<Value>) -> ShareInfo {
    let mut share = ShareInfo::default();
    for (member, value) in members.iter().zip(values) {
        match (member, value) {
            (Member::Name, Value::Text(text)) => share.name = text.unwrap_or_default(),
            (Member::Remark, Value::Text(text)) => share.remark = text.unwrap_or_default(),
            (Member::Path, Value::Text(text)) => share.path = text.unwrap_or_default(),
            (Member::Type, Value::Long(value)) => share.share_type = value,
            (Member::Flags, Value::Long(value)) => share.flags = value,
            (Member::Descriptor, Value::Octets(octets)) => share.security_descriptor = octets,
            _ => {}
        }
    }
    share
}

/// Answers the call `opnum` with these arguments: the results' stub, or the status of a fault.
pub fn call(opnum: u16, stub: &[u8], answers: &dyn Answers) -> Result<Bytes, u32> {
    let results = match opnum {
        SHARE_ENUM => share_enum(stub, answers.shares(), is_enum_level),
        SHARE_ENUM_STICKY => {
            let mut shares = answers.shares();
            shares.retain(|share| share.kind != ShareKind::Ipc); // pipes are made at each start
            share_enum(stub, shares, |level| matches!(level, 0 | 1 | 2 | 502))
        }
        SHARE_CHECK => share_check(stub, answers),
        SHARE_GET_INFO => share_get_info(stub, answers),
        SERVER_GET_INFO => server_get_info(stub, answers),
        REMOTE_TOD => remote_tod(stub, answers),
        _ => return Err(FAULT_OP_RANGE),
    };
    results.map_err(|_| FAULT_NDR)
}

/// MS-SRVS 3.1.4.8 and 3.1.4.9.
fn share_enum(
    stub: &[u8],
    shares: Vec<ShareEntry>,
    is_level: impl Fn(u32) -> bool,
) -> Result<Bytes, Malformed> {
    let request = ShareEnumRequest::parse(stub)?;
    let mut writer = Writer::new();
    writer.u32(request.level);
    writer.u32(request.level);
    let Some(members) = members(request.level).filter(|_| is_level(request.level)) else {
        if is_share_level(request.level) {
            writer.pointer(false);
        }
        writer.u32(0);
        writer.pointer(false);
        writer.u32(INVALID_LEVEL);
        return Ok(writer.finish());
    };
    let from = (request.resume_handle.unwrap_or(0) as usize).min(shares.len());
    let left = &shares[from..];
    // At least one is given, however little was asked for: or the client would ask for ever.
    let limit = (request.preferred_maximum_length as usize).min(RESPONSE_MAX - 256);
    let mut list = Vec::new();
    let mut size = 0;
    for share in left {
        let values = values(share, members);
        size += values.iter().map(Value::size).sum::<usize>();
        if size > limit && !list.is_empty() {
            break;
        }
        list.push(values);
    }
    writer.pointer(true);
    writer.u32(list.len() as u32);
    writer.pointer(true);
    writer.u32(list.len() as u32);
    writer.structures(&list);
    writer.u32(left.len() as u32);
    let more = list.len() < left.len();
    writer.pointer(request.resume_handle.is_some());
    if request.resume_handle.is_some() {
        // 3.1.4.8: 0 once everything has been given.
        writer.u32(if more { (from + list.len()) as u32 } else { 0 });
    }
    writer.u32(if more { MORE_DATA } else { SUCCESS });
    Ok(writer.finish())
}

/// The answer of the calls that give one structure, by its level. `known` says whether the interface gives the level an
/// arm in its union, which is a pointer; the other levels have an empty one.
pub(super) fn union(level: u32, known: bool, structure: Result<Vec<Value>, u32>) -> Bytes {
    let mut writer = Writer::new();
    writer.u32(level);
    match structure {
        Ok(values) => {
            writer.pointer(true);
            writer.structures(&[values]);
            writer.u32(SUCCESS);
        }
        Err(status) => {
            if known {
                writer.pointer(false);
            }
            writer.u32(status);
        }
    }
    writer.finish()
}

/// MS-SRVS 3.1.4.10.
fn share_get_info(stub: &[u8], answers: &dyn Answers) -> Result<Bytes, Malformed> {
    let mut reader = Reader::new(stub);
    reader.unique_string()?;
    let name = reader.string()?.to_string_lossy();
    let level = reader.u32()?;
    let Some(members) = members(level) else {
        return Ok(union(level, is_share_level(level), Err(INVALID_LEVEL)));
    };
    let name = name.to_lowercase();
    let share = answers.shares().into_iter().find(|share| share.name.to_lowercase() == name);
    Ok(union(level, true, share.map(|share| values(&share, members)).ok_or(NET_NAME_NOT_FOUND)))
}

/// NetrShareCheck: the type of a share of this path.
fn share_check(stub: &[u8], answers: &dyn Answers) -> Result<Bytes, Malformed> {
    let mut reader = Reader::new(stub);
    reader.unique_string()?;
    let path = reader.string()?.to_string_lossy().to_lowercase();
    let share = answers.shares().into_iter().find(|share| share.path.to_lowercase() == path);
    let mut writer = Writer::new();
    writer.u32(share.as_ref().map_or(0, share_type));
    writer.u32(if share.is_some() { SUCCESS } else { DEVICE_NOT_SHARED });
    Ok(writer.finish())
}

/// MS-SRVS 3.1.4.17; the structures: 2.2.4.40 to 2.2.4.42.
fn server_get_info(stub: &[u8], answers: &dyn Answers) -> Result<Bytes, Malformed> {
    let mut reader = Reader::new(stub);
    reader.unique_string()?;
    let level = reader.u32()?;
    let ServerEntry { name, comment, version_major, version_minor, server_type, users, .. } =
        answers.server();
    let values = match level {
        100..=102 => {
            let mut values = vec![Value::Long(PLATFORM_NT), Value::text(&name)];
            if level >= 101 {
                values.extend([
                    Value::Long(version_major),
                    Value::Long(version_minor),
                    Value::Long(server_type),
                    Value::text(&comment),
                ]);
            }
            if level >= 102 {
                values.extend([
                    Value::Long(users),
                    Value::Long(15),      // minutes until idle sessions are cut
                    Value::Long(0),       // not hidden
                    Value::Long(240),     // seconds between announcements
                    Value::Long(3000),    // milliseconds by which they vary
                    Value::Long(100_000), // users a licence
                    Value::text(""),      // where users' directories are
                ]);
            }
            Ok(values)
        }
        _ => Err(INVALID_LEVEL),
    };
    Ok(union(level, is_server_level(level), values))
}

/// MS-SRVS 3.1.4.21; the structure is TIME_OF_DAY_INFO. The time zone is UTC.
fn remote_tod(stub: &[u8], answers: &dyn Answers) -> Result<Bytes, Malformed> {
    Reader::new(stub).unique_string()?;
    let mut writer = Writer::new();
    writer.pointer(true);
    for number in time_of_day(answers.now()) {
        writer.u32(number);
    }
    writer.u32(SUCCESS);
    Ok(writer.finish())
}

fn time_of_day(now: FileTime) -> [u32; 12] {
    let (secs, nanos) = now.to_unix();
    let days = secs.div_euclid(86_400);
    let of_day = secs.rem_euclid(86_400) as u32;
    let (year, month, day) = civil(days);
    [
        secs as u32,                                                      // seconds since 1970
        (secs as u32).wrapping_mul(1000).wrapping_add(nanos / 1_000_000), // milliseconds of some clock
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        nanos / 10_000_000, // hundredths
        0,                  // minutes west of UTC
        310,                // the clock's interval in 0.1 ms
        day,
        month,
        year,
        (days + 4).rem_euclid(7) as u32, // 1970-01-01 was a Thursday
    ]
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. The year is counted
/// from March, so that the leap day is its last.
fn civil(days: i64) -> (u32, u32, u32) {
    let days = days + 719_468; // from 0000-03-01
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::dtyp::{Ace, AceFlags, Acl, ControlFlags, SecurityDescriptor, Sid};
    use crate::fscc::AccessMask;
    use proptest::prelude::*;

    /// A server with `n` shares and IPC$.
    pub(crate) struct Sample(pub usize);

    impl Answers for Sample {
        fn server(&self) -> ServerEntry {
            ServerEntry {
                name: "SHOAL".into(),
                domain: "WORKGROUP".into(),
                comment: "a shoal".into(),
                version_major: 10,
                version_minor: 0,
                server_type: TYPE_FILE_SERVER,
                users: 7,
            }
        }

        fn shares(&self) -> Vec<ShareEntry> {
            let disk = |index| ShareEntry {
                name: format!("share{index}"),
                comment: "files".into(),
                path: format!(r"C:\share{index}"),
                max_uses: u32::MAX,
                security_descriptor: Some(SecurityDescriptor {
                    control: ControlFlags::SELF_RELATIVE | ControlFlags::DACL_PRESENT,
                    dacl: Some(Acl::new(vec![Ace::allow(
                        Sid::everyone(),
                        AccessMask::FILE_ALL,
                        AceFlags::EMPTY,
                    )])),
                    ..SecurityDescriptor::default()
                }),
                ..ShareEntry::default()
            };
            let ipc = ShareEntry {
                name: "IPC$".into(),
                kind: ShareKind::Ipc,
                hidden: true,
                comment: "pipes".into(),
                max_uses: u32::MAX,
                ..ShareEntry::default()
            };
            (0..self.0).map(disk).chain([ipc]).collect()
        }

        fn now(&self) -> FileTime {
            FileTime::from_unix(1_709_164_800 + 3600 * 13 + 60 * 14 + 15, 160_000_000)
        }
    }

    fn enumerate(answers: &Sample, request: &ShareEnumRequest) -> ShareEnumResponse {
        ShareEnumResponse::parse(&call(SHARE_ENUM, &request.encode(), answers).unwrap()).unwrap()
    }

    #[test]
    fn request_known_bytes() {
        let request = ShareEnumRequest {
            server_name: Some(Utf16::from_str("x")),
            level: 1,
            preferred_maximum_length: ALL,
            resume_handle: Some(0),
        };
        let known = [
            0, 0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, b'x', 0, 0, 0, // ServerName
            1, 0, 0, 0, 1, 0, 0, 0, // Level, and the union's switch
            4, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, // container: no entries
            0xFF, 0xFF, 0xFF, 0xFF, // PreferedMaximumLength
            8, 0, 2, 0, 0, 0, 0, 0, // ResumeHandle
        ];
        assert_eq!(request.encode()[..], known);
        assert_eq!(ShareEnumRequest::parse(&known), Ok(request));
        for length in 0..known.len() {
            assert!(ShareEnumRequest::parse(&known[..length]).is_err(), "{length}");
        }
        let mut differs = known;
        differs[24] = 2;
        assert!(ShareEnumRequest::parse(&differs).is_err());
    }

    #[test]
    fn response_known_bytes() {
        let request = ShareEnumRequest { level: 1, preferred_maximum_length: ALL, ..Default::default() };
        let stub = call(SHARE_ENUM, &request.encode(), &Sample(0)).unwrap();
        assert_eq!(
            stub[..],
            [
                1, 0, 0, 0, 1, 0, 0, 0, // Level, switch
                0, 0, 2, 0, 1, 0, 0, 0, 4, 0, 2, 0, 1, 0, 0, 0, // container, array
                8, 0, 2, 0, 3, 0, 0, 0x80, 12, 0, 2, 0, // IPC$
                5, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, b'I', 0, b'P', 0, b'C', 0, b'$', 0, 0, 0, 0, 0, //
                6, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, b'p', 0, b'i', 0, b'p', 0, b'e', 0, b's', 0, 0,
                0, //
                1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // TotalEntries, no ResumeHandle, success
            ]
        );
    }

    #[test]
    fn all_levels() {
        for level in [0, 1, 2, 501, 502] {
            let request = ShareEnumRequest { level, preferred_maximum_length: ALL, ..Default::default() };
            let response = enumerate(&Sample(2), &request);
            assert_eq!((response.status, response.total_entries), (SUCCESS, 3), "{level}");
            let names: Vec<String> =
                response.shares.iter().map(|share| share.name.to_string_lossy()).collect();
            assert_eq!(names, ["share0", "share1", "IPC$"]);
            if level != 0 {
                assert_eq!(response.shares[2].share_type, STYPE_SPECIAL | 3);
            }
            if level == 502 {
                let descriptor = response.shares[0].security_descriptor.clone().unwrap();
                assert!(SecurityDescriptor::parse(&descriptor).unwrap().dacl.is_some());
                assert_eq!(response.shares[1].path, Utf16::from_str(r"C:\share1"));
            }
        }
        for level in [3, 503, 1005, u32::MAX] {
            let request = ShareEnumRequest { level, ..Default::default() };
            let response = enumerate(&Sample(2), &request);
            assert_eq!((response.status, response.shares.len()), (INVALID_LEVEL, 0));
        }
    }

    #[test]
    fn in_pieces() {
        let answers = Sample(40);
        let mut request = ShareEnumRequest {
            level: 1,
            preferred_maximum_length: 300,
            resume_handle: Some(0),
            ..Default::default()
        };
        let mut names = Vec::new();
        loop {
            let response = enumerate(&answers, &request);
            assert!(!response.shares.is_empty());
            assert_eq!(response.total_entries as usize, 41 - names.len());
            names.extend(response.shares.into_iter().map(|share| share.name));
            request.resume_handle = response.resume_handle;
            match response.status {
                MORE_DATA => {}
                status => break assert_eq!((status, request.resume_handle), (SUCCESS, Some(0))),
            }
        }
        assert_eq!(names.len(), 41);
        let tiny = ShareEnumRequest { level: 1, preferred_maximum_length: 0, ..Default::default() };
        assert_eq!(enumerate(&answers, &tiny).shares.len(), 1);
        let beyond = ShareEnumRequest { level: 1, resume_handle: Some(u32::MAX), ..Default::default() };
        assert_eq!(enumerate(&answers, &beyond).shares.len(), 0);
    }

    #[test]
    fn responses_are_bounded() {
        let request = ShareEnumRequest { level: 502, preferred_maximum_length: ALL, ..Default::default() };
        let stub = call(SHARE_ENUM, &request.encode(), &Sample(20_000)).unwrap();
        assert!(stub.len() <= RESPONSE_MAX);
        assert_eq!(ShareEnumResponse::parse(&stub).unwrap().status, MORE_DATA);
    }

    fn get_info(name: &str, level: u32) -> Bytes {
        let mut writer = Writer::new();
        writer.unique_string(None);
        writer.string(&Utf16::from_str(name));
        writer.u32(level);
        call(SHARE_GET_INFO, &writer.finish(), &Sample(1)).unwrap()
    }

    #[test]
    fn share_info_by_name() {
        for level in [0, 1, 2, 501, 502, 1004, 1005, 1006] {
            let stub = get_info("SHARE0", level);
            assert_eq!(stub[..4], level.to_le_bytes());
            assert_eq!(stub[4..8], [0, 0, 2, 0]);
            assert_eq!(stub[stub.len() - 4..], [0; 4], "{level}");
        }
        assert_eq!(get_info("share0", 1005)[..], [0xed, 3, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(get_info("none", 1)[..], [1, 0, 0, 0, 0, 0, 0, 0, 0x06, 0x09, 0, 0]);
        assert_eq!(get_info("share0", 77)[..], [77, 0, 0, 0, 124, 0, 0, 0]);
    }

    fn server_info(level: u32) -> Bytes {
        let mut writer = Writer::new();
        writer.unique_string(Some(&Utf16::from_str(r"\\SHOAL")));
        writer.u32(level);
        call(SERVER_GET_INFO, &writer.finish(), &Sample(1)).unwrap()
    }

    #[test]
    fn server() {
        let mut known = vec![
            101, 0, 0, 0, 0, 0, 2, 0, // level, pointer
            0xF4, 1, 0, 0, 4, 0, 2, 0, 10, 0, 0, 0, 0, 0, 0, 0, 3, 0x90, 0, 0, 8, 0, 2, 0, //
            6, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, b'S', 0, b'H', 0, b'O', 0, b'A', 0, b'L', 0, 0, 0, //
            8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0,
        ];
        known.extend(crate::encode::utf16_bytes(&Utf16::from_str("a shoal\0")));
        known.extend([0; 4]);
        assert_eq!(server_info(101)[..], known);
        assert_eq!(server_info(99)[..], [99, 0, 0, 0, 124, 0, 0, 0]);
        assert_eq!(server_info(103)[..], [103, 0, 0, 0, 0, 0, 0, 0, 124, 0, 0, 0]);
        assert!(server_info(100).len() < server_info(101).len());
        assert!(server_info(102).len() > server_info(101).len());
    }

    #[test]
    fn time() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(-1), (1969, 12, 31));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(-134_774), (1601, 1, 1));
        let tod = time_of_day(Sample(0).now());
        assert_eq!(tod[2..], [13, 14, 15, 16, 0, 310, 29, 2, 2024, 4]);
        assert_eq!(call(REMOTE_TOD, &[0; 4], &Sample(0)).unwrap().len(), 56);
        let _ = time_of_day(FileTime(u64::MAX));
        let _ = time_of_day(FileTime(1 << 63));
    }

    #[test]
    fn paths_and_sticky_shares() {
        let check = |path: &str| {
            let mut writer = Writer::new();
            writer.unique_string(None);
            writer.string(&Utf16::from_str(path));
            call(SHARE_CHECK, &writer.finish(), &Sample(1)).unwrap()
        };
        assert_eq!(check(r"c:\SHARE0")[..], [0; 8]);
        assert_eq!(check("elsewhere")[..], [0, 0, 0, 0, 0x07, 0x09, 0, 0]);
        for (level, status, count) in [(1, SUCCESS, 2), (501, INVALID_LEVEL, 0)] {
            let request = ShareEnumRequest { level, preferred_maximum_length: ALL, ..Default::default() };
            let stub = call(SHARE_ENUM_STICKY, &request.encode(), &Sample(2)).unwrap();
            let response = ShareEnumResponse::parse(&stub).unwrap();
            assert_eq!((response.status, response.shares.len()), (status, count));
        }
    }

    #[test]
    fn faults() {
        assert_eq!(call(0, &[], &Sample(0)), Err(FAULT_OP_RANGE));
        assert_eq!(call(SHARE_ENUM, &[], &Sample(0)), Err(FAULT_NDR));
        assert_eq!(call(SHARE_GET_INFO, &[0; 8], &Sample(0)), Err(FAULT_NDR));
    }

    proptest! {
        #[test]
        fn hostile(opnum in 10_u16..40, bytes in proptest::collection::vec(any::<u8>(), 0..120), zeros in 0..12_usize) {
            let mut bytes = bytes;
            for at in (0..zeros * 4).step_by(4) {
                if let Some(piece) = bytes.get_mut(at + 1..at + 4) {
                    piece.fill(0); // small numbers lead further
                }
            }
            let _ = call(opnum, &bytes, &Sample(1));
            let _ = ShareEnumResponse::parse(&bytes);
        }
    }
}
