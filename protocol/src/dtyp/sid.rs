//! SID: who someone is. MS-DTYP 2.4.2.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, BytesMut};

use crate::malformed::Malformed;

/// A security identifier: an authority and the numbers below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid {
    /// Always 1 (MS-DTYP 2.4.2.2).
    pub revision: u8,
    /// IdentifierAuthority: 48 bits, big-endian on the wire.
    pub authority: u64,
    /// SubAuthority: at most 15 numbers; the last is the relative identifier (RID).
    pub sub: Vec<u32>,
}

impl Sid {
    /// The most sub-authorities that a SID can have.
    pub const SUB_MAX: usize = 15;

    /// Bytes on the wire of the longest SID.
    pub const LEN_MAX: usize = 8 + 4 * Sid::SUB_MAX;

    /// A SID of revision 1. Sub-authorities beyond the fifteenth are dropped, and the authority's top 16 bits.
    pub fn new(authority: u64, sub: &[u32]) -> Sid {
        Sid {
            revision: 1,
            authority: authority & 0xFFFF_FFFF_FFFF,
            sub: sub[..sub.len().min(Sid::SUB_MAX)].to_vec(),
        }
    }

    /// S-1-1-0: everyone.
    pub fn everyone() -> Sid {
        Sid::new(1, &[0])
    }

    /// S-1-3-0: stands in an inheritable entry for whoever creates the child.
    pub fn creator_owner() -> Sid {
        Sid::new(3, &[0])
    }

    /// S-1-5-7: a session without a user.
    pub fn anonymous() -> Sid {
        Sid::new(5, &[7])
    }

    /// S-1-5-11: whoever has proven who he is.
    pub fn authenticated_users() -> Sid {
        Sid::new(5, &[11])
    }

    /// S-1-5-18: the system itself.
    pub fn local_system() -> Sid {
        Sid::new(5, &[18])
    }

    /// S-1-5-32-544: the administrators of this machine.
    pub fn administrators() -> Sid {
        Sid::new(5, &[32, 544])
    }

    /// S-1-5-32-545: the users of this machine.
    pub fn users() -> Sid {
        Sid::new(5, &[32, 545])
    }

    /// S-1-22-1-UID: a Unix user that has no Windows identity, as Samba and NFS servers name it.
    pub fn unix_user(uid: u32) -> Sid {
        Sid::new(22, &[1, uid])
    }

    /// S-1-22-2-GID: a Unix group that has no Windows identity.
    pub fn unix_group(gid: u32) -> Sid {
        Sid::new(22, &[2, gid])
    }

    /// Bytes on the wire.
    pub fn encoded_len(&self) -> usize {
        8 + 4 * self.sub.len().min(Sid::SUB_MAX)
    }

    /// Reads a SID at the start of `input`; gives it and what follows.
    ///
    /// Errors: `Truncated`; `Value` if the revision is not 1; `TooMany` above 15 sub-authorities.
    pub fn parse(input: &[u8]) -> Result<(Sid, &[u8]), Malformed> {
        let (&[revision, count, a, b, c, d, e, f], rest) =
            input.split_first_chunk::<8>().ok_or(Malformed::Truncated)?;
        if revision != 1 {
            return Err(Malformed::Value("SID revision"));
        }
        let count = usize::from(count);
        if count > Sid::SUB_MAX {
            return Err(Malformed::TooMany("SID sub-authorities"));
        }
        let (numbers, rest) = rest.split_at_checked(4 * count).ok_or(Malformed::Truncated)?;
        let (numbers, _) = numbers.as_chunks::<4>();
        let sub = numbers.iter().map(|&number| u32::from_le_bytes(number)).collect();
        Ok((Sid { revision, authority: u64::from_be_bytes([0, 0, a, b, c, d, e, f]), sub }, rest))
    }

    /// Appends the SID.
    pub fn encode(&self, out: &mut BytesMut) {
        let sub = &self.sub[..self.sub.len().min(Sid::SUB_MAX)];
        out.put_u8(self.revision);
        out.put_u8(sub.len() as u8);
        out.put_uint(self.authority, 6);
        for &number in sub {
            out.put_u32_le(number);
        }
    }
}

/// The text form of MS-DTYP 2.4.2.1: an authority of 2^32 and more is written in hex.
impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.authority > u64::from(u32::MAX) {
            write!(f, "S-{}-{:#014x}", self.revision, self.authority)?;
        } else {
            write!(f, "S-{}-{}", self.revision, self.authority)?;
        }
        for number in &self.sub {
            write!(f, "-{number}")?;
        }
        Ok(())
    }
}

/// The text is not a SID of the form `S-1-5-32-544`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SID")]
pub struct NotASid;

impl FromStr for Sid {
    type Err = NotASid;

    fn from_str(text: &str) -> Result<Sid, NotASid> {
        let mut parts = text.split('-');
        if !matches!(parts.next(), Some("S" | "s")) || parts.next() != Some("1") {
            return Err(NotASid);
        }
        let authority = parts.next().ok_or(NotASid)?;
        let authority = match authority.strip_prefix("0x").or_else(|| authority.strip_prefix("0X")) {
            Some(hex) => number(hex, 16)?,
            None => number(authority, 10)?,
        };
        if authority >> 48 != 0 {
            return Err(NotASid);
        }
        let mut sub = Vec::new();
        for part in parts {
            if sub.len() == Sid::SUB_MAX {
                return Err(NotASid);
            }
            sub.push(u32::try_from(number(part, 10)?).map_err(|_| NotASid)?);
        }
        Ok(Sid { revision: 1, authority, sub })
    }
}

/// A number of digits alone: `from_str_radix` would take a sign too.
fn number(digits: &str, radix: u32) -> Result<u64, NotASid> {
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(NotASid);
    }
    u64::from_str_radix(digits, radix).map_err(|_| NotASid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADMINISTRATORS: [u8; 16] = [
        1, 2, // Revision, SubAuthorityCount
        0, 0, 0, 0, 0, 5, // IdentifierAuthority
        0x20, 0, 0, 0, // 32
        0x20, 0x02, 0, 0, // 544
    ];

    #[test]
    fn known_bytes() {
        let (sid, rest) = Sid::parse(&ADMINISTRATORS).unwrap();
        assert_eq!(sid, Sid::administrators());
        assert!(rest.is_empty());
        let mut out = BytesMut::new();
        sid.encode(&mut out);
        assert_eq!(&out[..], ADMINISTRATORS);
        assert_eq!(sid.encoded_len(), 16);
    }

    #[test]
    fn cut_at_every_length() {
        for length in 0..ADMINISTRATORS.len() {
            assert_eq!(Sid::parse(&ADMINISTRATORS[..length]), Err(Malformed::Truncated));
        }
    }

    #[test]
    fn out_of_range() {
        let mut bytes = [0xFF; 80];
        bytes[0] = 1;
        bytes[1] = 16;
        assert_eq!(Sid::parse(&bytes), Err(Malformed::TooMany("SID sub-authorities")));
        bytes[1] = 15;
        assert_eq!(Sid::parse(&bytes).unwrap().0.sub.len(), 15);
        bytes[0] = 2;
        assert_eq!(Sid::parse(&bytes), Err(Malformed::Value("SID revision")));
    }

    #[test]
    fn text() {
        assert_eq!(Sid::administrators().to_string(), "S-1-5-32-544");
        assert_eq!("S-1-5-32-544".parse(), Ok(Sid::administrators()));
        let wide = Sid::new(0x1234_5678_9abc, &[1]);
        assert_eq!(wide.to_string(), "S-1-0x123456789abc-1");
        assert_eq!(wide.to_string().parse(), Ok(wide));
        for text in ["", "S-1", "S-2-5", "S-1-5-", "S-1-5-+1", "S-1-0x1000000000000", "S-1-5-4294967296"] {
            assert_eq!(text.parse::<Sid>(), Err(NotASid), "{text}");
        }
        let many = format!("S-1-5{}", "-1".repeat(16));
        assert_eq!(many.parse::<Sid>(), Err(NotASid));
    }

    proptest! {
        #[test]
        fn round_trip(authority in 0_u64..1 << 48, sub in proptest::collection::vec(any::<u32>(), 0..=15)) {
            let sid = Sid::new(authority, &sub);
            let mut out = BytesMut::new();
            sid.encode(&mut out);
            prop_assert_eq!(out.len(), sid.encoded_len());
            prop_assert_eq!(Sid::parse(&out).unwrap().0, sid.clone());
            prop_assert_eq!(sid.to_string().parse::<Sid>(), Ok(sid));
        }

        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Sid::parse(&bytes);
        }
    }
}
