//! Amounts as manifests and configurations write them: `500m`, `1.5`, `1Gi`, `2e3`; exact, and in one canonical
//! writing.

use std::fmt;

use crate::Quantity;

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a suffix.
    #[error("{RULE}")]
    Form,
    /// A suffix that does not exist.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// Upstream's words for what is no quantity.
pub(crate) const RULE: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const NANO: i128 = 1_000_000_000;
const MILLI: i128 = NANO / 1000;
/// Nothing is larger; what is, counts as this.
const MOST: i128 = i64::MAX as i128 * NANO;

/// How an amount is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `m`, `k`, `M` …
    Decimal,
    /// `Ki`, `Mi` …
    Binary,
    /// `e3` …
    Exponent,
}

/// An amount in billionths; equal and ordered by value, whatever the writing.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    nano: i128,
    format: Format,
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self { nano: 0, format: Format::Decimal };

    /// Reads one, as `500m`, `1.5`, `1Gi`, `2e3`. Finer than a billionth is rounded away from zero; more than
    /// 2^63 - 1 counts as that (kubelet 1.36).
    ///
    /// # Errors
    /// What it is not, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first().ok_or(QuantityError::Form)? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = split_digits(unsigned);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), split_digits);
        if !is_suffix_like(suffix) {
            return Err(QuantityError::Form);
        }
        // Upstream takes a lone sign, point or suffix for zero; that is a slip of the pen.
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Form);
        }
        let (format, base, exponent) = scale(suffix).ok_or(QuantityError::Suffix)?;
        let nano = magnitude(whole, fraction, base, exponent).min(MOST);
        Ok(Self { nano: if negative { -nano } else { nano }, format })
    }

    /// So many bytes, written with `Ki`, `Mi` …
    pub const fn bytes(bytes: i64) -> Self {
        Self { nano: bytes as i128 * NANO, format: Format::Binary }
    }

    /// So many pieces, written with `k`, `M` …
    pub const fn pieces(pieces: i64) -> Self {
        Self { nano: pieces as i128 * NANO, format: Format::Decimal }
    }

    /// So many units, in the writing of this one.
    #[must_use]
    pub const fn with_units(self, units: i64) -> Self {
        Self { nano: units as i128 * NANO, format: self.format }
    }

    /// Whole units, rounded up.
    pub fn units(&self) -> i64 {
        clamp(self.round_up(NANO).nano / NANO)
    }

    /// Thousandths, rounded up.
    pub fn milli(&self) -> i64 {
        clamp(self.round_up(MILLI).nano / MILLI)
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }

    pub(crate) fn is_multiple(&self, of: &Self) -> bool {
        of.nano != 0 && self.nano % of.nano == 0
    }

    /// The sum, in the writing of the first that is not zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: self.nano.saturating_add(other.nano).clamp(-MOST, MOST), format }
    }

    fn round_up(self, unit: i128) -> Self {
        let rest = self.nano % unit;
        let nano = match rest.signum() {
            0 => self.nano,
            sign => self.nano - rest + sign * unit,
        };
        Self { nano, ..self }
    }
}

fn clamp(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*`
fn is_suffix_like(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    rest.strip_prefix(['-', '+']).unwrap_or(rest).bytes().all(|b| b.is_ascii_digit())
}

/// Writing, base and exponent of a suffix.
fn scale(suffix: &str) -> Option<(Format, i128, i32)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [(&str, i32); 10] =
        [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
    if let Some(nth) = BINARY.iter().position(|one| *one == suffix) {
        return Some((Format::Binary, 1024, nth as i32 + 1));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(one, _)| *one == suffix) {
        return Some((Format::Decimal, 10, *exponent));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    exponent.parse().ok().map(|exponent| (Format::Exponent, 10, exponent))
}

/// `whole.fraction × base^exponent` in billionths, rounded up, at most a little more than [`MOST`].
fn magnitude(whole: &str, fraction: &str, base: i128, exponent: i32) -> i128 {
    let decimal = if base == 10 { exponent } else { 0 };
    let binary = if base == 10 { 1 } else { base.pow(exponent.unsigned_abs()) };
    let mut digits: Vec<i128> = whole.bytes().chain(fraction.bytes()).map(|b| i128::from(b - b'0')).collect();
    // The digits are an integer; its unit is 10^point.
    let point = i64::from(decimal) + 9 - fraction.len() as i64;
    let (mut value, mut inexact) = (0i128, false);
    if point < 0 {
        let cut = digits.len().saturating_sub(usize::try_from(-point).unwrap_or(usize::MAX));
        if binary == 1 {
            inexact = digits[cut..].iter().any(|digit| *digit != 0);
            digits.truncate(cut);
        } else {
            return fine(&digits, -point, binary);
        }
    }
    for digit in &digits {
        value = value.saturating_mul(10).saturating_add(*digit);
    }
    for _ in 0..point.clamp(0, 40) {
        value = value.saturating_mul(10);
    }
    value.saturating_mul(binary).saturating_add(i128::from(inexact))
}

/// Many decimals with a binary suffix: multiply first, then cut.
fn fine(digits: &[i128], cut: i64, binary: i128) -> i128 {
    let (mut rest, mut inexact) = (0i128, false);
    for digit in digits {
        rest = rest.saturating_mul(10).saturating_add(*digit);
    }
    rest = rest.saturating_mul(binary);
    for _ in 0..cut.min(60) {
        inexact |= rest % 10 != 0;
        rest /= 10;
    }
    rest + i128::from(inexact)
}

impl fmt::Display for Amount {
    /// The canonical writing: the largest suffix that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        if self.format == Format::Binary && self.nano.abs() >= 1024 * NANO && self.is_whole() {
            let mut whole = self.nano / NANO;
            let mut nth = 0;
            while nth < 6 && whole % 1024 == 0 {
                whole /= 1024;
                nth += 1;
            }
            return write!(f, "{whole}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][nth]);
        }
        let (mut mantissa, mut nth) = (self.nano, 0);
        while nth < 9 && mantissa % 1000 == 0 {
            mantissa /= 1000;
            nth += 1;
        }
        match self.format {
            Format::Exponent if nth == 3 => write!(f, "{mantissa}"),
            Format::Exponent => write!(f, "{mantissa}e{}", (nth as i32 - 3) * 3),
            Format::Decimal | Format::Binary => {
                write!(f, "{mantissa}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][nth])
            }
        }
    }
}

/// The canonical writing of a text; none when it is no quantity.
pub(crate) fn canonical(text: &str) -> Option<String> {
    Amount::parse(text).ok().map(|amount| amount.to_string())
}

/// The value of a quantity as the API has it; none when it is none.
pub(crate) fn parsed(quantity: &Quantity) -> Option<Amount> {
    Amount::parse(&quantity.0).ok()
}

/// Rounds up to a thousandth, which is the finest that a resource has.
pub(crate) fn round_up_to_milli(quantity: &mut Quantity) {
    if let Some(amount) = parsed(quantity) {
        quantity.0 = amount.round_up(MILLI).to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_writings() {
        let cases = [
            ("0", "0"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1000m", "1"),
            ("1024Ki", "1Mi"),
            ("1000k", "1M"),
            ("1023", "1023"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("1500e-3", "1500e-3"),
            ("9E", "9E"),
            ("2E2", "200"),
            ("+5", "5"),
            ("-100m", "-100m"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.0000000001", "1n"),
            ("99999999999999999999", "9223372036854775807"),
            ("64Mi", "64Mi"),
            ("1025Ki", "1025Ki"),
        ];
        for (text, expected) in cases {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        for text in ["", ".", "-", "1 Gi", "512MB", "1.2.3", "1ki", "1KB", "lots", "1e", "0x10", "١"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    /// Recorded from apimachinery 0.36: text, canonical writing, whole units, thousandths; or the error.
    #[test]
    fn recorded_quantities_are_the_same() {
        let recorded = include_str!("../../../tests/golden/quantities.tsv");
        let mut wrong = Vec::new();
        for line in recorded.lines() {
            let (text, theirs) = line.split_once('\t').unwrap();
            let ours = match Amount::parse(text) {
                Ok(amount) => format!("{amount}\t{}\t{}", amount.units(), amount.milli()),
                Err(error) => format!("E {error}"),
            };
            if ours != theirs {
                wrong.push(format!("{text}: ours {ours}, theirs {theirs}"));
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
        assert!(recorded.lines().count() > 1000);
    }

    #[test]
    fn order_is_by_value() {
        assert!(Amount::parse("1Gi").unwrap() > Amount::parse("1G").unwrap());
        assert_eq!(Amount::parse("1"), Amount::parse("1000m"));
        let mut fine = Quantity("1500u".to_owned());
        round_up_to_milli(&mut fine);
        assert_eq!(fine.0, "2m");
    }
}
