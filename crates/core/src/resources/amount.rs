//! Amounts of resources, exact to a billionth.

use std::ops::{Add, Sub};

use rubelet_api::Quantity;

/// An amount of a resource, in billionths of its unit (a core, a byte, a piece).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Amount(i128);

const NANO: i128 = 1_000_000_000;
const MICRO: i128 = 1_000_000;

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The amount that an API quantity names. Text that is no quantity counts as zero: validation refused it before.
    pub fn of(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }

    /// The amount that the text names (`100m`, `64Mi`, `1.5`, `2e3`); `None` when it is no quantity.
    pub fn parse(text: &str) -> Option<Self> {
        let digits_end =
            text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits_end);
        let (is_negative, number) = match number.as_bytes().first()? {
            b'-' => (true, &number[1..]),
            b'+' => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 20 || fraction.len() > 20 {
            return None;
        }
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let mantissa: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let (up, down) = scale(suffix)?;
        let divisor = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(down)?;
        let scaled = mantissa.checked_mul(up)?;
        // Finer than a billionth is rounded away from zero, as the API does.
        let nano = div_ceil(scaled.checked_mul(NANO / gcd(NANO, divisor))?, divisor / gcd(NANO, divisor));
        Some(Self(if is_negative { -nano } else { nano }))
    }

    /// From thousandths of the unit.
    pub const fn from_milli(milli: i64) -> Self {
        Self(milli as i128 * MICRO)
    }

    /// From whole units.
    pub const fn from_units(units: i64) -> Self {
        Self(units as i128 * NANO)
    }

    /// Whole units, rounded up.
    pub fn units(self) -> i64 {
        clamp(div_ceil(self.0, NANO))
    }

    /// Thousandths of the unit, rounded up.
    pub fn milli(self) -> i64 {
        clamp(div_ceil(self.0, MICRO))
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, rhs: Self) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, rhs: Self) -> Self {
        Self(self.0.saturating_sub(rhs.0))
    }
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, NANO),
        "u" => (1, MICRO),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (NANO, 1),
        "T" => (1000 * NANO, 1),
        "P" => (MICRO * NANO, 1),
        "E" => (NANO * NANO, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn div_ceil(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by > 0 { quotient + 1 } else { quotient }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::Amount;

    #[test]
    fn quantities_are_read_as_the_api_reads_them() {
        for (text, milli, units) in [
            ("0", 0, 0),
            ("1", 1000, 1),
            ("100m", 100, 1),
            ("1500m", 1500, 2),
            ("1.5", 1500, 2),
            (".5", 500, 1),
            ("64Mi", 67_108_864_000, 67_108_864),
            ("1k", 1_000_000, 1000),
            ("2e3", 2_000_000, 2000),
            ("1E", i64::MAX, 1_000_000_000_000_000_000),
            ("1u", 1, 1),
            ("0.1m", 1, 1),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("-1", -1000, -1),
            ("5E-1", 500, 1),
        ] {
            let amount = Amount::parse(text).unwrap_or_else(|| panic!("{text} is no quantity"));
            assert_eq!((amount.milli(), amount.units()), (milli, units), "{text}");
        }
    }

    #[test]
    fn other_text_is_no_quantity() {
        for text in ["", "m", "1 Gi", "1gi", "--1", "1.2.3", "0x10", "1e", "1e99"] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }
}
