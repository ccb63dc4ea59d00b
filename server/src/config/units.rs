//! Numbers with units, as people write them: `8 MiB`, `30 s`, `5ms`.

use std::time::Duration;

/// What a number in the configuration counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things: a bare number.
    Count,
    /// Bytes: a bare number, or text with B, KiB, MiB or GiB.
    Bytes,
    /// A time: text with ms, s, min or h. Kept in milliseconds.
    Time,
}

/// A value as the file has it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written<'a> {
    Integer(i64),
    Text(&'a str),
    /// Anything else; its kind, with an article.
    Other(&'static str),
}

const BYTES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: &[(&str, u64)] = &[("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// The number that `value` stands for, in `unit` (a time in milliseconds).
pub(super) fn number(unit: Unit, value: Written<'_>) -> Result<u64, String> {
    match (unit, value) {
        (Unit::Count | Unit::Bytes, Written::Integer(number)) => {
            u64::try_from(number).map_err(|_| format!("is {number}; it cannot be negative"))
        }
        (Unit::Bytes, Written::Text(text)) => scaled(text, BYTES)
            .ok_or_else(|| format!("is \"{text}\"; expected bytes, as in 65536 or \"8 MiB\"")),
        (Unit::Time, Written::Text(text)) => scaled(text, TIMES)
            .ok_or_else(|| format!("is \"{text}\"; expected a time, as in \"30 s\" or \"5 ms\"")),
        (Unit::Time, Written::Integer(number)) => {
            Err(format!("is {number}; expected a time with its unit, as in \"{number} s\""))
        }
        (Unit::Count, Written::Text(text)) => Err(format!("is the text \"{text}\"; expected a number")),
        (Unit::Count, Written::Other(kind)) => Err(format!("is {kind}; expected a number")),
        (Unit::Bytes, Written::Other(kind)) => {
            Err(format!("is {kind}; expected bytes, as in 65536 or \"8 MiB\""))
        }
        (Unit::Time, Written::Other(kind)) => Err(format!("is {kind}; expected a time, as in \"30 s\"")),
    }
}

/// A time such as `5ms` or `30 s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    scaled(text, TIMES).map(Duration::from_millis)
}

/// `number` in the largest unit that divides it.
pub fn show(unit: Unit, number: u64) -> String {
    let units = match unit {
        Unit::Count => return number.to_string(),
        Unit::Bytes => BYTES,
        Unit::Time => TIMES,
    };
    let (name, scale) = units
        .iter()
        .find(|(_, scale)| number != 0 && number.is_multiple_of(*scale))
        .copied()
        .unwrap_or(units[units.len() - 1]);
    format!("{} {name}", number / scale)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_shows() {
        for (unit, numbers) in [
            (Unit::Bytes, &[0, 1, 1023, 1024, 65_536, 8 << 20, 3 << 30][..]),
            (Unit::Time, &[1, 999, 1000, 90_000, 7_200_000][..]),
        ] {
            for number in numbers {
                let text = show(unit, *number);
                assert_eq!(super::number(unit, Written::Text(&text)), Ok(*number), "{text}");
            }
        }
        assert_eq!(show(Unit::Bytes, 8 << 20), "8 MiB");
        assert_eq!(show(Unit::Time, 90_000), "90 s");
    }

    #[test]
    fn refuses_what_has_no_unit_or_no_number() {
        for text in [
            "",
            "5",
            "MiB",
            "5 mib",
            "5 MB",
            "-5 s",
            "5.5 s",
            "99999999999999999999 s",
            "18446744073709551615 h",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(duration("5ms"), Some(Duration::from_millis(5)));
        assert_eq!(duration("2 min"), Some(Duration::from_secs(120)));
    }
}
