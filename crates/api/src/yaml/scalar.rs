//! What a scalar means, by YAML 1.1 as upstream reads it.

use super::Contents;

/// The value of a scalar. `plain` is false for quoted and block scalars and those with a tag; `tag` is the name of an
/// explicit tag of YAML's own.
///
/// # Errors
///
/// Why the text does not fit its explicit tag, or that JSON has no such number.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&str>) -> Result<Contents, String> {
    match tag {
        None if plain => untagged(text),
        Some("binary") => binary(text),
        Some(name @ ("int" | "float" | "bool" | "null")) => {
            let value = untagged(text)?;
            let fits = matches!(
                (&value, name),
                (Contents::Integer(_), "int" | "float")
                    | (Contents::Float(_), "float")
                    | (Contents::Bool(_), "bool")
                    | (Contents::Null, "null")
            );
            if fits { Ok(value) } else { Err(format!("{text:?} is not what its tag !!{name} says")) }
        }
        None | Some(_) => Ok(Contents::Text(text.to_owned())),
    }
}

fn binary(text: &str) -> Result<Contents, String> {
    let bytes = base64(text).ok_or("!!binary with something else than base64")?;
    String::from_utf8(bytes).map(Contents::Text).map_err(|_| "!!binary that is not text".to_owned())
}

fn untagged(text: &str) -> Result<Contents, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Contents::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Contents::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Contents::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN"
        | ".NAN" => return Err(format!("{text} is a number that JSON does not have")),
        other => number(other).unwrap_or_else(|| Contents::Text(other.to_owned())),
    })
}

fn number(text: &str) -> Option<Contents> {
    let first = text.bytes().next()?;
    if first == b'.' {
        return is_decimal(text).then(|| float(text)).flatten();
    }
    if !(first.is_ascii_digit() || first == b'+' || first == b'-') {
        return None;
    }
    let digits = text.replace('_', "");
    integer(&digits).or_else(|| is_decimal(&digits).then(|| float(&digits)).flatten())
}

fn integer(text: &str) -> Option<Contents> {
    let (negative, body) = match text.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, body) = match body.get(..2) {
        Some("0x" | "0X") => (16, &body[2..]),
        Some("0b" | "0B") => (2, &body[2..]),
        Some("0o" | "0O") => (8, &body[2..]),
        Some(two) if two.starts_with('0') => (8, &body[1..]),
        Some(_) | None => (10, body),
    };
    if !body.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let size = u64::from_str_radix(body, radix).ok()?;
    match negative {
        false => Some(Contents::Integer(size.into())),
        true => 0_i64.checked_sub_unsigned(size).map(|number| Contents::Integer(number.into())),
    }
}

/// `[-+]?(.5|5|5.|5.5)(e[-+]?5)?`
fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    mantissa_fits
        && exponent.is_none_or(|e| {
            let e = e.strip_prefix(['-', '+']).unwrap_or(e);
            !e.is_empty() && digits(e)
        })
}

/// A number that JSON can hold, an integer where nothing is lost.
fn float(text: &str) -> Option<Contents> {
    let number: f64 = text.parse().ok()?;
    // Beyond this a double does not count in ones any more and JSON writes an exponent.
    const EXACT_MAX: f64 = 1e15;
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        return Some(Contents::Integer(number as i128));
    }
    number.is_finite().then_some(Contents::Float(number))
}

/// Base64 of RFC 4648 with padding; line breaks and blanks are skipped.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut held, mut padding) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0_u32, 0_u32);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                continue;
            }
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = (bits << 6 | u32::from(six)) & 0xff_ffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    let fits = matches!((held, padding), (0, 0) | (2, 1) | (4, 2));
    (fits && bits & ((1 << held) - 1) == 0).then_some(out)
}
