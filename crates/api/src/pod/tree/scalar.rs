//! What a scalar means, by YAML 1.1 as upstream reads it.

use super::Contents;

/// The value of a scalar. `plain` is false for quoted and block scalars; `tag` is the suffix of an explicit tag.
///
/// # Errors
///
/// Why the text does not fit its explicit tag.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&str>) -> Result<Contents, String> {
    match tag {
        None | Some("") if plain => Ok(untagged(text)),
        Some("binary") => binary(text),
        Some("int" | "float" | "bool" | "null") => {
            let value = untagged(text);
            let fits = matches!(
                (&value, tag),
                (Contents::Integer(_), Some("int" | "float"))
                    | (Contents::Float(_), Some("float"))
                    | (Contents::Bool(_), Some("bool"))
                    | (Contents::Null, Some("null"))
            );
            if fits {
                Ok(value)
            } else {
                Err(format!("{text:?} is not what its tag !!{} says", tag.unwrap_or_default()))
            }
        }
        _ => Ok(Contents::Text(text.to_owned())),
    }
}

fn binary(text: &str) -> Result<Contents, String> {
    let bytes = base64(text).ok_or("!!binary with something else than base64")?;
    String::from_utf8(bytes).map(Contents::Text).map_err(|_| "!!binary that is not text".to_owned())
}

fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=') {
        let value = ALPHABET.iter().position(|one| *one == byte)?;
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Some(bytes)
}

fn untagged(text: &str) -> Contents {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Contents::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Contents::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Contents::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Contents::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Contents::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Contents::Float(f64::NAN),
        other => number(other).unwrap_or_else(|| Contents::Text(other.to_owned())),
    }
}

fn number(text: &str) -> Option<Contents> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.as_bytes().first()? {
        b'-' => (-1, &plain[1..]),
        b'+' => (1, &plain[1..]),
        _ => (1, plain.as_str()),
    };
    if let Some(whole) = whole(digits) {
        return Some(Contents::Integer(sign * whole));
    }
    let form = digits.bytes().next().is_some_and(|b| b.is_ascii_digit() || b == b'.')
        && digits.bytes().any(|b| b.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !form {
        return None;
    }
    plain.parse::<f64>().ok().map(Contents::Float)
}

/// Digits with their base: `0x`, `0o`, `0b`, a leading `0` for octal; at most 64 bits, above that it is a float.
fn whole(digits: &str) -> Option<i128> {
    let (base, rest) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if rest.starts_with(['+', '-']) {
        return None;
    }
    u64::from_str_radix(rest, base).ok().map(i128::from)
}
