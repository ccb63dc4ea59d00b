//! Reparse points: REPARSE_DATA_BUFFER and the symbolic link. MS-FSCC 2.1.2.

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;

use crate::Malformed;
use crate::encode::put_utf16;
use crate::parse::{self, Utf16};

/// IO_REPARSE_TAG_SYMLINK: a symbolic link.
pub const TAG_SYMLINK: u32 = 0xA000_000C;
/// IO_REPARSE_TAG_MOUNT_POINT: a junction.
pub const TAG_MOUNT_POINT: u32 = 0xA000_0003;
/// IO_REPARSE_TAG_NFS: a special file of Unix.
pub const TAG_NFS: u32 = 0x8000_0014;
/// IO_REPARSE_TAG_DFS: a link of DFS.
pub const TAG_DFS: u32 = 0x8000_000A;
/// IO_REPARSE_TAG_LX_SYMLINK: a symbolic link as WSL stores it.
pub const TAG_LX_SYMLINK: u32 = 0xA000_001D;
/// IO_REPARSE_TAG_AF_UNIX: a socket as WSL stores it.
pub const TAG_AF_UNIX: u32 = 0x8000_0023;
/// IO_REPARSE_TAG_LX_FIFO: a named pipe as WSL stores it.
pub const TAG_LX_FIFO: u32 = 0x8000_0024;
/// IO_REPARSE_TAG_LX_CHR: a character device as WSL stores it.
pub const TAG_LX_CHR: u32 = 0x8000_0025;
/// IO_REPARSE_TAG_LX_BLK: a block device as WSL stores it.
pub const TAG_LX_BLK: u32 = 0x8000_0026;

/// The bit of a tag that says it is Microsoft's: only then there is no GUID in the header.
pub const TAG_MICROSOFT: u32 = 0x8000_0000;

/// The most bytes of a reparse point, header included: MAXIMUM_REPARSE_DATA_BUFFER_SIZE.
pub const LEN_MAX: usize = 16 * 1024;

/// A reparse point of any kind, its data not looked into (2.1.2.2 and 2.1.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReparseData {
    /// What kind it is.
    pub reparse_tag: u32,
    /// Whose it is, where the tag is not Microsoft's.
    pub reparse_guid: Option<crate::dtyp::Guid>,
    /// ReparseDataLength bytes.
    pub data: Bytes,
}

impl ReparseData {
    /// Reads a reparse point that takes the whole of `input`, as FSCTL_SET_REPARSE_POINT sends it.
    ///
    /// Errors: `Truncated`; `Length` if data follows or it is above 16 KiB. The answer to all of them is
    /// STATUS_IO_REPARSE_DATA_INVALID.
    pub fn parse(input: &[u8]) -> Result<ReparseData, Malformed> {
        if input.len() > LEN_MAX {
            return Err(Malformed::Length);
        }
        let (rest, (reparse_tag, length, _reserved)) = (parse::u32, parse::u16, parse::u16).parse(input)?;
        let (rest, reparse_guid) = match reparse_tag & TAG_MICROSOFT {
            0 => {
                let (rest, guid) = parse::array::<16>(rest)?;
                (rest, Some(crate::dtyp::Guid(guid)))
            }
            _ => (rest, None),
        };
        let (rest, data) = parse::take(usize::from(length))(rest)?;
        if !rest.is_empty() {
            return Err(Malformed::Length);
        }
        Ok(ReparseData { reparse_tag, reparse_guid, data: Bytes::copy_from_slice(data) })
    }

    /// Appends the reparse point. Data above 65,535 bytes is cut: the format has no more room.
    pub fn encode(&self, out: &mut BytesMut) {
        let data = &self.data[..self.data.len().min(usize::from(u16::MAX))];
        out.put_u32_le(self.reparse_tag);
        out.put_u16_le(data.len() as u16);
        out.put_u16_le(0);
        if let Some(guid) = &self.reparse_guid {
            out.put_slice(guid.as_bytes());
        }
        out.put_slice(data);
    }
}

/// Flags of a symbolic link: the target counts from where the link stands.
pub const SYMLINK_RELATIVE: u32 = 1;

/// The data of a symbolic link, without the header: 2.1.2.4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SymbolicLink {
    /// The target as the system follows it.
    pub substitute_name: Utf16,
    /// The target as people read it.
    pub print_name: Utf16,
    /// 0 or [`SYMLINK_RELATIVE`].
    pub flags: u32,
}

impl SymbolicLink {
    /// Reads the data of a reparse point whose tag is [`TAG_SYMLINK`].
    ///
    /// Errors: `Truncated`; `Offset` for a name outside PathBuffer; `Length` for half a unit.
    pub fn parse(data: &[u8]) -> Result<SymbolicLink, Malformed> {
        let (path, (substitute_at, substitute, print_at, print, flags)) =
            (parse::u16, parse::u16, parse::u16, parse::u16, parse::u32).parse(data)?;
        let name = |at: u16, length: u16| {
            let at = usize::from(at);
            parse::utf16(path.get(at..at + usize::from(length)).ok_or(Malformed::Offset)?)
        };
        Ok(SymbolicLink {
            substitute_name: name(substitute_at, substitute)?,
            print_name: name(print_at, print)?,
            flags,
        })
    }

    /// The whole reparse point, header included; nothing if the names are too long for one.
    pub fn to_reparse_data(&self) -> Option<ReparseData> {
        let mut data = BytesMut::new();
        let substitute = self.substitute_name.byte_len();
        let print = self.print_name.byte_len();
        if 8 + 12 + substitute + print > LEN_MAX {
            return None;
        }
        data.put_u16_le(0);
        data.put_u16_le(substitute as u16);
        data.put_u16_le(substitute as u16);
        data.put_u16_le(print as u16);
        data.put_u32_le(self.flags);
        put_utf16(&mut data, &self.substitute_name);
        put_utf16(&mut data, &self.print_name);
        Some(ReparseData { reparse_tag: TAG_SYMLINK, reparse_guid: None, data: data.freeze() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINK: [u8; 28] = [
        0x0C, 0, 0, 0xA0, 20, 0, 0, 0, // tag, length, reserved
        0, 0, 4, 0, 4, 0, 4, 0, 1, 0, 0, 0, // substitute name, print name, flags
        b'.', 0, b'.', 0, b'x', 0, b'y', 0,
    ];

    #[test]
    fn known_bytes() {
        let point = ReparseData::parse(&LINK).unwrap();
        assert_eq!(point.reparse_tag, TAG_SYMLINK);
        let link = SymbolicLink::parse(&point.data).unwrap();
        let expected = SymbolicLink {
            substitute_name: Utf16::from_str(".."),
            print_name: Utf16::from_str("xy"),
            flags: SYMLINK_RELATIVE,
        };
        assert_eq!(link, expected);
        let mut out = BytesMut::new();
        link.to_reparse_data().unwrap().encode(&mut out);
        assert_eq!(out[..], LINK);
        for length in 0..LINK.len() {
            assert_eq!(ReparseData::parse(&LINK[..length]), Err(Malformed::Truncated));
        }
        for length in 0..20 {
            assert!(SymbolicLink::parse(&LINK[8..8 + length]).is_err());
        }
        assert_eq!(ReparseData::parse(&[&LINK[..], &[0]].concat()), Err(Malformed::Length));
    }

    #[test]
    fn foreign_tags_have_a_guid() {
        let bytes = [&[1, 0, 0, 0, 1, 0, 0, 0][..], &[7; 16], &[9]].concat();
        let point = ReparseData::parse(&bytes).unwrap();
        assert_eq!(point.reparse_guid, Some(crate::dtyp::Guid([7; 16])));
        let mut out = BytesMut::new();
        point.encode(&mut out);
        assert_eq!(out[..], bytes);
    }

    proptest! {
        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = ReparseData::parse(&bytes);
            let _ = SymbolicLink::parse(&bytes);
        }
    }
}
