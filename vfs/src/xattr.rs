//! What is kept in extended attributes, in the layouts that Samba reads and writes, so that a share can be taken over and given back.
//!
//! `user.DOSATTRIB` holds the DOS attributes and the creation time. Its layout is NDR, little-endian, found out from the outside by
//! setting attributes through smbd 4.22 and dumping what it stored, and by planting values and asking smbd what it made of them:
//!
//! ```text
//! text\0                 the attributes as "0x22", and nothing more, in the oldest form; empty ever since
//! [to 2] u16 version  [to 4, a union's tag again] u16 version  [to 4]
//! 1:  u32 attributes  u32 EA size  u64 size  u64 allocation size  u64 creation time  u64 change time
//! 2:  u32 flags  u32 attributes  and more, of which smbd makes nothing
//! 3:  u32 valid  u32 attributes  u32 EA size  u64 size  u64 allocation size  u64 creation time  u64 change time
//! 4:  u32 valid  u32 attributes  u64 a time that names the object  u64 creation time
//! 5:  u32 valid  u32 attributes  u64 creation time
//! ```
//!
//! Times are counts of 100 ns since 1601. We write version 5, as smbd 4.22 does.

use crate::metadata::{DosAttributes, Kind, Timestamp};

/// The extended attribute with the DOS attributes and the creation time.
pub const DOS_ATTRIBUTES: &str = "user.DOSATTRIB";

const DIRECTORY: u32 = 0x10;
const NORMAL: u32 = 0x80;

const VALID_ATTRIBUTES: u32 = 0x01;
const VALID_CREATION_TIME: u32 = 0x10;

/// Seconds from 1601 to 1970.
const EPOCH_SECS: i64 = 11_644_473_600;
const TICKS_PER_SEC: u64 = 10_000_000;

/// The value to store. A directory's own bit is always among the attributes, as Samba has it.
pub fn encode_dos_attributes(dos: &DosAttributes, kind: Kind) -> [u8; 24] {
    let mut attributes = dos.attributes & !(DIRECTORY | NORMAL);
    if kind == Kind::Directory {
        attributes |= DIRECTORY;
    }
    let creation_time = dos.creation_time.and_then(to_ticks);
    let valid = VALID_ATTRIBUTES | if creation_time.is_some() { VALID_CREATION_TIME } else { 0 };
    let mut value = [0; 24];
    value[2..4].copy_from_slice(&5_u16.to_le_bytes());
    value[4..6].copy_from_slice(&5_u16.to_le_bytes());
    value[8..12].copy_from_slice(&valid.to_le_bytes());
    value[12..16].copy_from_slice(&attributes.to_le_bytes());
    value[16..24].copy_from_slice(&creation_time.unwrap_or(0).to_le_bytes());
    value
}

/// What a stored value means; `None` if it is of no form that we know, or says nothing. The bits for DIRECTORY and NORMAL, which follow
/// from the object's kind and from the other bits, are left out.
pub fn decode_dos_attributes(value: &[u8]) -> Option<DosAttributes> {
    let text = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    if let Some(digits) = value[..text].strip_prefix(b"0x")
        && text + 1 >= value.len()
    {
        let attributes = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        return Some(DosAttributes { attributes: attributes & !(DIRECTORY | NORMAL), creation_time: None });
    }
    let mut fields = Fields { value, at: text + 1 };
    let version = fields.u16()?;
    let tag = fields.align(4).u16()?;
    fields.align(4);
    if version != tag {
        return None;
    }
    let valid = match version {
        1 => VALID_ATTRIBUTES | VALID_CREATION_TIME,
        2 => {
            fields.u32()?;
            VALID_ATTRIBUTES
        }
        _ => fields.u32()?,
    };
    let attributes = fields.u32()?;
    let creation_time = match version {
        1 | 3 => fields.skip(4 + 8 + 8).u64()?,
        2 => 0,
        4 => fields.skip(8).u64()?,
        5 => fields.u64()?,
        _ => return None,
    };
    if valid & (VALID_ATTRIBUTES | VALID_CREATION_TIME) == 0 {
        return None;
    }
    Some(DosAttributes {
        attributes: if valid & VALID_ATTRIBUTES == 0 { 0 } else { attributes & !(DIRECTORY | NORMAL) },
        creation_time: if valid & VALID_CREATION_TIME == 0 { None } else { from_ticks(creation_time) },
    })
}

/// Little-endian fields, each at its alignment from the start of the value.
struct Fields<'a> {
    value: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn align(&mut self, to: usize) -> &mut Self {
        self.at = self.at.next_multiple_of(to);
        self
    }

    fn skip(&mut self, bytes: usize) -> &mut Self {
        self.at += bytes;
        self
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let field = self.value.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.align(2).take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4).take().map(u32::from_le_bytes)
    }

    /// A time or a size: two u32 in NDR's eyes, aligned as one of them.
    fn u64(&mut self) -> Option<u64> {
        self.align(4).take().map(u64::from_le_bytes)
    }
}

fn to_ticks(time: Timestamp) -> Option<u64> {
    let secs = u64::try_from(time.secs.checked_add(EPOCH_SECS)?).ok()?;
    secs.checked_mul(TICKS_PER_SEC)?.checked_add(u64::from(time.nanos / 100))
}

fn from_ticks(ticks: u64) -> Option<Timestamp> {
    // Zero and all ones mean "not set".
    if ticks == 0 || ticks == u64::MAX {
        return None;
    }
    let secs = i64::try_from(ticks / TICKS_PER_SEC).ok()? - EPOCH_SECS;
    Some(Timestamp::new(secs, (ticks % TICKS_PER_SEC) as u32 * 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    // As smbd 4.22.6 stored them for a file with `setmode +r` and for a directory with `setmode +h`.
    const READ_ONLY: &str = "00 00 0500 05000000 11000000 21000000 6e223886d67bdd01";
    const HIDDEN_DIRECTORY: &str = "00 00 0500 05000000 11000000 12000000 02c73986d67bdd01";

    #[test]
    fn what_samba_stored() {
        let read_only = decode_dos_attributes(&hex(READ_ONLY)).unwrap();
        assert_eq!(read_only.attributes, 0x21);
        let hidden = decode_dos_attributes(&hex(HIDDEN_DIRECTORY)).unwrap();
        assert_eq!(hidden.attributes, 0x02);
        assert_eq!(hidden.creation_time, Some(Timestamp::new(1_795_498_919, 613_414_600)));
        assert_eq!(encode_dos_attributes(&hidden, Kind::Directory)[..], hex(HIDDEN_DIRECTORY));
    }

    #[test]
    fn round_trip() {
        for kind in [Kind::File, Kind::Directory] {
            for attributes in [0, 1, 0x27, 0x2000] {
                for creation_time in
                    [None, Some(Timestamp::new(1, 200)), Some(Timestamp::new(-11_644_473_600, 100))]
                {
                    let dos = DosAttributes { attributes, creation_time };
                    assert_eq!(decode_dos_attributes(&encode_dos_attributes(&dos, kind)), Some(dos));
                }
            }
        }
        // Before 1601 there is nothing.
        let before = DosAttributes { attributes: 1, creation_time: Some(Timestamp::new(i64::MIN, 0)) };
        assert_eq!(
            decode_dos_attributes(&encode_dos_attributes(&before, Kind::File)).unwrap().creation_time,
            None
        );
    }

    #[test]
    fn older_forms() {
        assert_eq!(
            decode_dos_attributes(b"0x23\0"),
            Some(DosAttributes { attributes: 0x23, creation_time: None })
        );
        assert_eq!(decode_dos_attributes(b"0x7"), Some(DosAttributes { attributes: 7, creation_time: None }));
        let time = "6e223886d67bdd01";
        let no_size = "00".repeat(4 + 8 + 8);
        let first = format!("0000 0100 01000000 22000000 {no_size} {time} {time}");
        let third = format!("0000 0300 03000000 11000000 22000000 {no_size} {time} {time}");
        let fourth = format!("0000 0400 04000000 11000000 22000000 {} {time}", "ff".repeat(8));
        for value in [first, third, fourth] {
            let dos = decode_dos_attributes(&hex(&value)).unwrap();
            assert_eq!(dos.attributes, 0x22);
            assert_eq!(dos.creation_time, Some(Timestamp::new(1_795_498_919, 602_647_800)));
        }
        let second = decode_dos_attributes(&hex("0000 0200 02000000 11000000 22000000")).unwrap();
        assert_eq!(second, DosAttributes { attributes: 0x22, creation_time: None });
    }

    #[test]
    fn hostile_values_mean_nothing() {
        let good = encode_dos_attributes(&DosAttributes { attributes: 1, creation_time: None }, Kind::File);
        for length in 0..good.len() {
            assert_eq!(decode_dos_attributes(&good[..length]), None, "{length}");
        }
        assert_eq!(decode_dos_attributes(b"0x\0"), None);
        assert_eq!(decode_dos_attributes(b"0x123456789\0"), None);
        assert_eq!(decode_dos_attributes(&[0xFF; 64]), None);
        assert_eq!(decode_dos_attributes(&[0; 64]), None);
        assert_eq!(
            decode_dos_attributes(&hex("0000 0500 04000000 11000000 22000000 0000000000000000")),
            None
        );
    }
}
