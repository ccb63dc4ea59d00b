//! FILETIME: a moment as SMB states it. MS-DTYP 2.3.3.

use std::fmt;

/// Intervals of 100 ns in a second.
const TICKS: i64 = 10_000_000;

/// Seconds from 1601-01-01 to 1970-01-01, both UTC.
const EPOCH: i64 = 11_644_473_600;

/// Intervals of 100 ns since 1601-01-01 00:00 UTC.
///
/// Where a time is set (MS-FSCC 2.4.7), 0 means "leave it", -1 "leave it, and do not change it for the operations that
/// follow on this handle", and -2 "change it again for the operations that follow".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileTime(pub u64);

impl FileTime {
    /// Not known; in a request to set: leave it as it is.
    pub const ZERO: FileTime = FileTime(0);

    /// In a request to set: stop the updates that this handle's operations make.
    pub const MINUS_ONE: FileTime = FileTime(u64::MAX);

    /// In a request to set: take up those updates again.
    pub const MINUS_TWO: FileTime = FileTime(u64::MAX - 1);

    /// The last moment that is a time and not a sign: the wire's number is signed.
    pub const MAX: FileTime = FileTime(i64::MAX as u64);

    /// From seconds and nanoseconds since 1970-01-01 UTC. What lies before 1601 becomes the first moment, since 0 is
    /// no time; what lies beyond the range becomes `MAX`. Less than 100 ns is cut off.
    pub const fn from_unix(secs: i64, nanos: u32) -> FileTime {
        let Some(since_1601) = secs.checked_add(EPOCH) else { return FileTime::MAX };
        if since_1601 < 0 {
            return FileTime(1);
        }
        let Some(ticks) = since_1601.checked_mul(TICKS) else { return FileTime::MAX };
        match ticks.checked_add((nanos / 100) as i64) {
            Some(0) => FileTime(1),
            Some(ticks) => FileTime(ticks as u64),
            None => FileTime::MAX,
        }
    }

    /// Seconds and nanoseconds since 1970-01-01 UTC; the nanoseconds count upwards, also before 1970.
    pub const fn to_unix(self) -> (i64, u32) {
        let ticks = self.0 as i64;
        (ticks.div_euclid(TICKS) - EPOCH, ticks.rem_euclid(TICKS) as u32 * 100)
    }

    /// Whether this is a moment: neither 0 nor one of the signs (any number with the top bit set).
    pub const fn is_time(self) -> bool {
        self.0 != 0 && self.0 <= FileTime::MAX.0
    }
}

impl fmt::Debug for FileTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            FileTime::ZERO => f.write_str("FileTime(none)"),
            FileTime::MINUS_ONE => f.write_str("FileTime(-1)"),
            FileTime::MINUS_TWO => f.write_str("FileTime(-2)"),
            FileTime(ticks) => {
                let (secs, nanos) = self.to_unix();
                write!(f, "FileTime({ticks:#x} = {secs}.{nanos:09} unix)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        assert_eq!(FileTime::from_unix(0, 0), FileTime(0x019d_b1de_d53e_8000));
        assert_eq!(FileTime::from_unix(0, 199), FileTime(0x019d_b1de_d53e_8001));
        assert_eq!(FileTime(0x019d_b1de_d53e_8001).to_unix(), (0, 100));
        assert_eq!(FileTime::from_unix(-1, 999_999_900).to_unix(), (-1, 999_999_900));
        assert_eq!(FileTime::from_unix(i64::MIN, 0), FileTime(1));
        assert_eq!(FileTime::from_unix(-EPOCH, 0), FileTime(1));
        assert_eq!(FileTime::from_unix(i64::MAX, 0), FileTime::MAX);
    }

    #[test]
    fn signs_are_no_times() {
        for sign in [FileTime::ZERO, FileTime::MINUS_ONE, FileTime::MINUS_TWO] {
            assert!(!sign.is_time());
        }
        assert!(FileTime(1).is_time() && FileTime::MAX.is_time());
    }

    proptest! {
        #[test]
        fn round_trip(ticks in 1_u64..=i64::MAX as u64) {
            let (secs, nanos) = FileTime(ticks).to_unix();
            prop_assert_eq!(FileTime::from_unix(secs, nanos), FileTime(ticks));
        }

        #[test]
        fn never_panics(ticks: u64, secs: i64, nanos: u32) {
            let _ = FileTime(ticks).to_unix();
            let _ = FileTime::from_unix(secs, nanos);
        }
    }
}
