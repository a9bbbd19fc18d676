//! From bytes to text: encodings, and what is no text at all.

use std::borrow::Cow;

use crate::problem::Position;

/// Bytes that are no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct TextError {
    pub(crate) position: Option<Position>,
    pub(crate) message: String,
}

/// UTF-8, or UTF-16 with a byte order mark; a mark is left out.
///
/// # Errors
///
/// Empty, not text.
pub(crate) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, TextError> {
    let whole = |message: &str| Err(TextError { position: None, message: message.to_owned() });
    let text = match bytes {
        [] => return whole("the file is empty"),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes).map(Cow::Owned),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes).map(Cow::Owned),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest).map(Cow::Borrowed),
        bytes => utf8(bytes).map(Cow::Borrowed),
    }?;
    match text.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}')) {
        None => Ok(text),
        Some((at, c)) => {
            let message = format!("not text: control character U+{:04X}{}", u32::from(c), half_written(c));
            Err(TextError { position: Some(place(&text[..at])), message })
        }
    }
}

fn half_written(c: char) -> &'static str {
    if c == '\0' { " (a NUL byte; is the file written completely?)" } else { "" }
}

fn utf8(bytes: &[u8]) -> Result<&str, TextError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let byte = bytes[error.valid_up_to()];
        let message = format!("not text: byte 0x{byte:02x} is not UTF-8");
        TextError { position: Some(place(&good)), message }
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, TextError> {
    let broken = || TextError { position: None, message: "not text: broken UTF-16".to_owned() };
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(broken());
    }
    let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
    String::from_utf16(&units).map_err(|_| broken())
}

/// The place after a text.
fn place(before: &str) -> Position {
    let line = before.matches('\n').count() as u64 + 1;
    let last = before.rsplit('\n').next().unwrap_or_default();
    Position { line, column: last.chars().count() as u64 + 1 }
}

/// How a text without any value is called.
pub(crate) fn empty(text: &str) -> &'static str {
    if text.trim().is_empty() {
        "the file is empty"
    } else if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        "the file has only comments"
    } else {
        "the file has no contents"
    }
}
