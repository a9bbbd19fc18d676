//! Durations as the configuration writes them: `1m0s`, `100ms`, `-1.5h`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::quote::quoted;

/// A length of time in nanoseconds, negative or not, at most about 292 years.
///
/// Reads and writes itself as Go does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration {
    /// Nanoseconds.
    pub nanos: i64,
}

/// Why a text is no duration, in upstream's words. The texts are quoted already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not numbers with units, or too long.
    #[error("time: invalid duration {0}")]
    Invalid(String),
    /// A number without unit.
    #[error("time: missing unit in duration {0}")]
    MissingUnit(String),
    /// A unit that does not exist.
    #[error("time: unknown unit {unit} in duration {text}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// All of it.
        text: String,
    },
}

const SECOND: i64 = 1_000_000_000;

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl Duration {
    /// No time.
    pub const ZERO: Self = Self { nanos: 0 };

    /// That many seconds.
    pub const fn seconds(seconds: i64) -> Self {
        Self { nanos: seconds * SECOND }
    }

    /// That many thousandths of a second.
    pub const fn millis(millis: i64) -> Self {
        Self { nanos: millis * 1_000_000 }
    }

    /// For waiting; nothing when negative.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.nanos).unwrap_or(0))
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let invalid = || DurationError::Invalid(quoted(text));
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (whole, after) = digits(rest);
            let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
            if whole.is_empty() && fraction.is_empty() {
                return Err(invalid());
            }
            let unit_len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_len);
            if unit.is_empty() {
                return Err(DurationError::MissingUnit(quoted(text)));
            }
            let Some((_, size)) = UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(DurationError::UnknownUnit { unit: quoted(unit), text: quoted(text) });
            };
            total += part(whole, fraction, *size).ok_or_else(invalid)?;
            if total > i128::from(i64::MAX) + i128::from(negative) {
                return Err(invalid());
            }
            rest = after;
        }
        let nanos = i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())?;
        Ok(Self { nanos })
    }
}

/// The digits at the beginning, and the rest.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `whole.fraction` times the unit's size, in nanoseconds.
fn part(whole: &str, fraction: &str, size: i128) -> Option<i128> {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok().filter(|n| *n <= 1_i128 << 63)? };
    // 18 digits decide all nanoseconds; Go ignores what follows, too.
    let digits = &fraction[..fraction.len().min(18)];
    let part: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let scale = 10_i128.pow(u32::try_from(digits.len()).ok()?);
    Some(whole * size + part * size / scale)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.nanos.unsigned_abs();
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        match size {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{size}ns"),
            1_000..1_000_000 => write!(f, "{}{}\u{b5}s", size / 1_000, decimals(size % 1_000, 1_000)),
            1_000_000..1_000_000_000 => {
                write!(f, "{}{}ms", size / 1_000_000, decimals(size % 1_000_000, 1_000_000))
            }
            _ => {
                let seconds = size / SECOND.unsigned_abs();
                let rest = decimals(size % SECOND.unsigned_abs(), SECOND.unsigned_abs());
                match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
                    (0, 0, seconds) => write!(f, "{seconds}{rest}s"),
                    (0, minutes, seconds) => write!(f, "{minutes}m{seconds}{rest}s"),
                    (hours, minutes, seconds) => write!(f, "{hours}h{minutes}m{seconds}{rest}s"),
                }
            }
        }
    }
}

/// `.5` for a half of `size`, empty for nothing.
fn decimals(part: u64, size: u64) -> String {
    if part == 0 {
        return String::new();
    }
    let width = size.ilog10() as usize;
    format!(".{part:0width$}").trim_end_matches('0').to_owned()
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown_as_in_go() {
        for (text, shown) in [
            ("0", "0s"),
            ("1m", "1m0s"),
            ("60s", "1m0s"),
            ("90m", "1h30m0s"),
            ("100ms", "100ms"),
            ("0.1s", "100ms"),
            ("1500ms", "1.5s"),
            ("-1.5h", "-1h30m0s"),
            ("1us", "1\u{b5}s"),
            ("1\u{3bc}s", "1\u{b5}s"),
            ("1500ns", "1.5\u{b5}s"),
            ("1h1ns", "1h0m0.000000001s"),
            ("+5s", "5s"),
            (".5m", "30s"),
            ("9223372036854775807ns", "2562047h47m16.854775807s"),
            ("-9223372036854775808ns", "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration() {
        for (text, words) in [
            ("", r#"time: invalid duration """#),
            ("soon", r#"time: invalid duration "soon""#),
            ("5", r#"time: missing unit in duration "5""#),
            ("5d", r#"time: unknown unit "d" in duration "5d""#),
            ("-", r#"time: invalid duration "-""#),
            ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
            ("1s ", r#"time: unknown unit "s " in duration "1s ""#),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap_err().to_string(), words);
        }
    }
}
