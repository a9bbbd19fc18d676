//! Numbers, switches and durations as Go's standard library reads them, with its errors' words.

use rubelet_api::duration::{Duration, DurationError};
pub(crate) use rubelet_api::quote::{quote_into, quoted};

/// Why a text is not what it should be, in Go's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("strconv.{function}: parsing {text}: invalid syntax")]
    Syntax { function: &'static str, text: String },
    #[error("strconv.{function}: parsing {text}: value out of range")]
    Range { function: &'static str, text: String },
    #[error(transparent)]
    Duration(#[from] DurationError),
}

/// A switch: `1`, `t`, `T`, `TRUE`, `true`, `True` and their opposites.
pub(crate) fn scan_bool(text: &str) -> Result<bool, ScanError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(ScanError::Syntax { function: "ParseBool", text: quoted(text) }),
    }
}

/// A signed number of that many bits; `0x`, `0o`, `0b` and a leading `0` choose the base.
pub(crate) fn scan_int(text: &str, bits: u32) -> Result<i64, ScanError> {
    const FUNCTION: &str = "ParseInt";
    let syntax = || ScanError::Syntax { function: FUNCTION, text: quoted(text) };
    let range = || ScanError::Range { function: FUNCTION, text: quoted(text) };
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = based(rest);
    let digits = without_underscores(digits, radix != 10).ok_or_else(syntax)?;
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(syntax());
    }
    let magnitude = i128::from_str_radix(&digits, radix).map_err(|_| range())?;
    let value = if negative { -magnitude } else { magnitude };
    let limit = 1_i128 << (bits - 1);
    if value < -limit || value >= limit {
        return Err(range());
    }
    i64::try_from(value).map_err(|_| range())
}

/// The base that a number's beginning chooses, and its digits.
fn based(text: &str) -> (u32, &str) {
    let bytes = text.as_bytes();
    if bytes.len() < 2 || bytes[0] != b'0' {
        return (10, text);
    }
    match bytes[1] {
        b'x' | b'X' => (16, &text[2..]),
        b'o' | b'O' => (8, &text[2..]),
        b'b' | b'B' => (2, &text[2..]),
        _ => (8, &text[1..]),
    }
}

/// The digits without the single underscores that may stand between them and after a base.
fn without_underscores(digits: &str, is_based: bool) -> Option<String> {
    if !digits.contains('_') {
        return Some(digits.to_owned());
    }
    let is_misplaced = digits.ends_with('_') || digits.contains("__") || digits.starts_with('_') && !is_based;
    (!is_misplaced).then(|| digits.replace('_', ""))
}

/// A decimal number without sign that fits 31 bits, as log levels are.
pub(crate) fn scan_level(text: &str) -> Result<u32, ScanError> {
    const FUNCTION: &str = "ParseUint";
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ScanError::Syntax { function: FUNCTION, text: quoted(text) });
    }
    match text.parse::<u32>() {
        Ok(level) if level < 1 << 31 => Ok(level),
        _ => Err(ScanError::Range { function: FUNCTION, text: quoted(text) }),
    }
}

/// A duration as `-1h2m3.5s`, in nanoseconds.
pub(crate) fn scan_duration(text: &str) -> Result<i64, ScanError> {
    Ok(text.parse::<Duration>()?.nanos)
}

/// A duration as Go shows it: `1m30s`, `100ms`, `0s`.
pub(crate) fn show_duration(nanos: i64) -> String {
    Duration { nanos }.to_string()
}
