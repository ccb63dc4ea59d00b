//! GUID: a 128-bit identifier. MS-DTYP 2.3.4.

use std::fmt;
use std::str::FromStr;

/// A GUID in the order of its bytes on the wire: the first three fields little-endian, the rest as they stand.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// The GUID of all zeroes.
    pub const ZERO: Guid = Guid([0; 16]);

    /// Puts a GUID together from the four fields of MS-DTYP 2.3.4.2, as its text form is read.
    pub const fn from_fields(data1: u32, data2: u16, data3: u16, data4: [u8; 8]) -> Guid {
        let a = data1.to_le_bytes();
        let b = data2.to_le_bytes();
        let c = data3.to_le_bytes();
        let d = data4;
        Guid([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }

    /// The bytes on the wire.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether every byte is zero.
    pub fn is_zero(&self) -> bool {
        *self == Guid::ZERO
    }
}

impl From<[u8; 16]> for Guid {
    fn from(bytes: [u8; 16]) -> Guid {
        Guid(bytes)
    }
}

/// The text form of MS-DTYP 2.3.4.3 without its braces.
impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let g = &self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:02x}{:02x}-{:02x}{:02x}{:02x}{:02x}{:02x}{:02x}",
            u32::from_le_bytes([g[0], g[1], g[2], g[3]]),
            u16::from_le_bytes([g[4], g[5]]),
            u16::from_le_bytes([g[6], g[7]]),
            g[8],
            g[9],
            g[10],
            g[11],
            g[12],
            g[13],
            g[14],
            g[15]
        )
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a GUID of the form `00000000-0000-0000-0000-000000000000`, with or without braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID")]
pub struct NotAGuid;

impl FromStr for Guid {
    type Err = NotAGuid;

    fn from_str(text: &str) -> Result<Guid, NotAGuid> {
        let text = match text.strip_prefix('{') {
            Some(inner) => inner.strip_suffix('}').ok_or(NotAGuid)?,
            None => text,
        };
        let mut digits = [0_u8; 32];
        let mut count = 0;
        if text.len() != 36 {
            return Err(NotAGuid);
        }
        for (at, byte) in text.bytes().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(NotAGuid);
                }
                continue;
            }
            digits[count] = (byte as char).to_digit(16).ok_or(NotAGuid)? as u8;
            count += 1;
        }
        let mut bytes = [0_u8; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        bytes[0..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        Ok(Guid(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SRVSVC: Guid =
        Guid::from_fields(0x4b32_4fc8, 0x1670, 0x01d3, [0x12, 0x78, 0x5a, 0x47, 0xbf, 0x6e, 0xe1, 0x88]);

    #[test]
    fn known_bytes() {
        let wire =
            [0xc8, 0x4f, 0x32, 0x4b, 0x70, 0x16, 0xd3, 0x01, 0x12, 0x78, 0x5a, 0x47, 0xbf, 0x6e, 0xe1, 0x88];
        assert_eq!(SRVSVC.0, wire);
    }

    #[test]
    fn text_round_trip() {
        let text = "4b324fc8-1670-01d3-1278-5a47bf6ee188";
        assert_eq!(SRVSVC.to_string(), text);
        assert_eq!(text.parse(), Ok(SRVSVC));
        assert_eq!(format!("{{{text}}}").parse(), Ok(SRVSVC));
    }

    #[test]
    fn bad_text() {
        for text in [
            "",
            "{",
            "4b324fc8-1670-01d3-1278-5a47bf6ee18",
            "4b324fc8-1670-01d3-1278-5a47bf6ee18g",
            "4b324fc8+1670-01d3-1278-5a47bf6ee188",
            "{4b324fc8-1670-01d3-1278-5a47bf6ee188",
            "4b324fc8-1670-01d3-1278-5a47bf6eé88",
        ] {
            assert_eq!(text.parse::<Guid>(), Err(NotAGuid), "{text}");
        }
    }
}
