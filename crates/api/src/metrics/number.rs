//! Numbers as Go prints them: bounds of buckets are text that clients compare.

use std::io::{self, Write};

/// Below this, whole numbers have no exponent.
const PLAIN_MAX: f64 = 1e6;

/// Writes a number in the shortest form that reads back the same; with an exponent from 1e6 on and below 1e-4.
pub(super) fn write(out: &mut impl Write, number: f64) -> io::Result<()> {
    if number.is_nan() {
        return out.write_all(b"NaN");
    }
    if number.is_infinite() {
        return out.write_all(if number > 0.0 { b"+Inf" } else { b"-Inf" });
    }
    if number.fract() == 0.0 && number.abs() < PLAIN_MAX {
        return write!(out, "{}", number as i64);
    }
    let magnitude = number.abs();
    // Go decides by the decimal exponent: below -4, or from 21 on; with the shortest digits from 6 on.
    if (1e-4..PLAIN_MAX).contains(&magnitude) {
        return write!(out, "{number}");
    }
    let mut digits = [0_u8; 32];
    let mut rest = &mut digits[..];
    write!(rest, "{number:e}")?;
    let left = rest.len();
    let shown = &digits[..digits.len() - left];
    let at = shown.iter().position(|byte| *byte == b'e').unwrap_or(shown.len());
    out.write_all(&shown[..at])?;
    let exponent = shown.get(at + 1..).unwrap_or_default();
    let (sign, exponent) = match exponent.strip_prefix(b"-") {
        Some(exponent) => (b'-', exponent),
        None => (b'+', exponent),
    };
    out.write_all(&[b'e', sign])?;
    if exponent.len() < 2 {
        out.write_all(b"0")?;
    }
    out.write_all(exponent)
}

pub(super) fn text(number: f64) -> String {
    let mut bytes = Vec::new();
    // Writing into memory does not fail, and what is written is ASCII.
    let _ = write(&mut bytes, number);
    String::from_utf8_lossy(&bytes).into_owned()
}
