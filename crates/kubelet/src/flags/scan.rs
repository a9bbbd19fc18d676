//! Numbers, switches and durations as Go's standard library reads them, with its errors' words.

/// Why a text is not what it should be, in Go's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("strconv.{function}: parsing {text}: invalid syntax")]
    Syntax { function: &'static str, text: String },
    #[error("strconv.{function}: parsing {text}: value out of range")]
    Range { function: &'static str, text: String },
    #[error("time: invalid duration {0}")]
    Duration(String),
    #[error("time: missing unit in duration {0}")]
    MissingUnit(String),
    #[error("time: unknown unit {unit} in duration {text}")]
    UnknownUnit { unit: String, text: String },
}

/// A text in Go's double quotes (`%q`).
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote_into(&mut out, text);
    out
}

/// Appends the text in Go's double quotes.
pub(crate) fn quote_into(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        // Writing to a String never fails.
        let _ = match c {
            '"' => write!(out, "\\\""),
            '\\' => write!(out, "\\\\"),
            '\u{7}' => write!(out, "\\a"),
            '\u{8}' => write!(out, "\\b"),
            '\u{c}' => write!(out, "\\f"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            '\u{b}' => write!(out, "\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(out, "\\x{:02x}", c as u32),
            c if is_printable(c) => write!(out, "{c}"),
            c if (c as u32) < 0x1_0000 => write!(out, "\\u{:04x}", c as u32),
            c => write!(out, "\\U{:08x}", c as u32),
        };
    }
    out.push('"');
}

/// Whether Go shows the character as it is: no control, format, surrogate or private character and no space but U+0020.
fn is_printable(c: char) -> bool {
    if c.is_control() || c.is_whitespace() {
        return c == ' ';
    }
    !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{f_0000}'..)
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

/// A duration as `-1h2m3.5s`, in nanoseconds.
pub(crate) fn scan_duration(text: &str) -> Result<i64, ScanError> {
    let invalid = || ScanError::Duration(quoted(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
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
            return Err(ScanError::MissingUnit(quoted(text)));
        }
        let Some((_, size)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(ScanError::UnknownUnit { unit: quoted(unit), text: quoted(text) });
        };
        total += amount(whole, fraction, *size).ok_or_else(invalid)?;
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(invalid());
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// The digits at the beginning, and the rest.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `whole.fraction` times the unit's size, in nanoseconds.
fn amount(whole: &str, fraction: &str, size: i128) -> Option<i128> {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok().filter(|n| *n <= 1_i128 << 63)? };
    // 18 digits decide all nanoseconds; Go ignores what follows, too.
    let digits = &fraction[..fraction.len().min(18)];
    let part: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let scale = 10_i128.pow(u32::try_from(digits.len()).ok()?);
    Some(whole * size + part * size / scale)
}

/// A duration as Go shows it: `1m30s`, `100ms`, `0s`.
pub(crate) fn show_duration(nanos: i64) -> String {
    let magnitude = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    if magnitude == 0 {
        return "0s".to_owned();
    }
    if magnitude < 1_000_000_000 {
        let (size, unit) = match magnitude {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "\u{b5}s"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{}{unit}", magnitude / size, decimals(magnitude % size, size));
    }
    let seconds = magnitude / 1_000_000_000;
    let rest = decimals(magnitude % 1_000_000_000, 1_000_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}{rest}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}{rest}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}{rest}s"),
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
