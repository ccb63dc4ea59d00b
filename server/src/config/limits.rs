//! Everything that a client can make grow has its bound here, by name; the code that enforces a bound reads it from [`Limits`].
//! One table makes the struct, its defaults, the keys of `[limits]` and the reference that `docs/configuration.md` is tested against.

use std::time::Duration;

use super::units::{self, Unit};

/// A key of `[limits]`, as the reference lists it.
#[derive(Clone, Copy, Debug)]
pub struct LimitKey {
    /// Its name in the file and in [`Limits`].
    pub name: &'static str,
    /// What its number counts.
    pub unit: Unit,
    /// Least value.
    pub least: u64,
    /// Greatest value.
    pub most: u64,
    /// Value when the file is silent, in `unit` (a time in milliseconds).
    pub default: u64,
}

/// A type that a limit can have in [`Limits`]: made from a number that has been checked against the key's range.
trait Number {
    fn from_number(number: u64) -> Self;
    fn number(&self) -> u64;
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Number for $kind {
            fn from_number(number: u64) -> Self {
                <$kind>::try_from(number).unwrap_or(<$kind>::MAX)
            }
            fn number(&self) -> u64 {
                *self as u64
            }
        }
    )*};
}
number!(u16, u32, u64, usize);

impl Number for Duration {
    fn from_number(number: u64) -> Self {
        Duration::from_millis(number)
    }
    fn number(&self) -> u64 {
        self.as_millis() as u64
    }
}

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty, $unit:ident, $least:expr => $most:expr, $default:expr;)+) => {
        /// The bounds of everything that a client can make grow: `[limits]` of the configuration.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $name: $kind,)+
        }

        impl Default for Limits {
            fn default() -> Limits {
                Limits { $($name: <$kind as Number>::from_number($default),)+ }
            }
        }

        impl Limits {
            /// Every key, in the order of the reference.
            pub const KEYS: &'static [LimitKey] = &[
                $(LimitKey { name: stringify!($name), unit: Unit::$unit, least: $least, most: $most, default: $default },)+
            ];

            /// Sets the limit called `name`; false if there is none. `number` has been checked against its key.
            pub(super) fn set(&mut self, name: &str, number: u64) -> bool {
                match name {
                    $(stringify!($name) => self.$name = Number::from_number(number),)+
                    _ => return false,
                }
                true
            }

            /// All limits by name, in their key's unit.
            pub fn numbers(&self) -> Vec<(&'static LimitKey, u64)> {
                let numbers = [$(self.$name.number(),)+];
                Self::KEYS.iter().zip(numbers).collect()
            }
        }
    };
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

limits! {
    /// Connections at once, from all addresses.
    connections: usize, Count, 1 => 1_000_000, 16_384;
    /// Connections at once from one address.
    connections_per_address: usize, Count, 1 => 1_000_000, 16_384;
    /// Time that a connection has to negotiate and log in; the same again for each later login that it begins.
    negotiate_timeout: Duration, Time, 100 => 3_600_000, 60_000;
    /// Sessions of one connection, finished logins and begun ones.
    sessions_per_connection: usize, Count, 1 => 65_536, 1_024;
    /// Tree connects of one session.
    trees_per_session: usize, Count, 1 => 65_536, 4_096;
    /// Opens of the whole server.
    opens: usize, Count, 16 => 16_777_216, 1_048_576;
    /// Opens of one session.
    opens_per_session: usize, Count, 16 => 16_777_216, 131_072;
    /// Byte-range locks of one open.
    locks_per_open: usize, Count, 1 => 1_048_576, 65_536;
    /// Credits that one connection can hold: the requests it may have under way.
    credits_max: u16, Count, 32 => 65_535, 8_192;
    /// Requests of one connection that wait with STATUS_PENDING: locks, notifications and the like.
    pending_per_connection: usize, Count, 1 => 65_536, 8_192;
    /// Largest buffer of an IOCTL, QUERY_INFO, SET_INFO, QUERY_DIRECTORY or CHANGE_NOTIFY.
    max_transact_size: u32, Bytes, 64 * KIB => 8 * MIB, 8 * MIB;
    /// Largest READ.
    max_read_size: u32, Bytes, 64 * KIB => 8 * MIB, 8 * MIB;
    /// Largest WRITE.
    max_write_size: u32, Bytes, 64 * KIB => 8 * MIB, 8 * MIB;
    /// Buffered notifications of one directory handle.
    notify_buffer: usize, Bytes, 4 * KIB => 16 * MIB, 64 * KIB;
    /// Replies and WRITE data of one connection in flight; the server stops reading from it until they have gone.
    reply_budget_per_connection: usize, Bytes, MIB => 4 * GIB, 32 * MIB;
    /// Replies and WRITE data of all connections in flight.
    reply_budget_total: usize, Bytes, 16 * MIB => 1024 * GIB, GIB;
    /// Bytes that each share in memory may hold, names and data.
    memory_share_size: u64, Bytes, MIB => 1024 * GIB, GIB;
    /// Memory that the lookup cache may take; what is open may exceed it.
    cache_size: usize, Bytes, MIB => 1024 * GIB, 256 * MIB;
}

impl LimitKey {
    /// Reads the value of this key: a number, or text with a unit. The error says what is expected.
    pub(super) fn read(&self, value: units::Written<'_>) -> Result<u64, String> {
        let number = units::number(self.unit, value)?;
        if (self.least..=self.most).contains(&number) {
            return Ok(number);
        }
        let (least, most) = (units::show(self.unit, self.least), units::show(self.unit, self.most));
        Err(format!("is {}; it can be {least} to {most}", units::show(self.unit, number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_ranges() {
        for key in Limits::KEYS {
            assert!((key.least..=key.most).contains(&key.default), "{}", key.name);
        }
    }

    #[test]
    fn every_key_sets_its_own_field() {
        for key in Limits::KEYS {
            let mut limits = Limits::default();
            let number = if key.default == key.most { key.least } else { key.most };
            assert!(limits.set(key.name, number), "{}", key.name);
            let changed: Vec<_> =
                limits.numbers().into_iter().filter(|(key, number)| *number != key.default).collect();
            assert_eq!(changed.len(), 1, "{}", key.name);
            assert_eq!((changed[0].0.name, changed[0].1), (key.name, number));
        }
        assert!(!Limits::default().set("nonsense", 1));
    }
}
