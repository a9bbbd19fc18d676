//! Amounts as manifests write them: `500m`, `1.5`, `1Gi`, `2e3`.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Quantity, v1};

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
pub(crate) struct Amount {
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
    pub(crate) const ZERO: Self = Self { nano: 0, format: Format::Decimal };

    /// Reads one; none for what is no quantity. Finer than a billionth is rounded away from zero.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let (format, base, exponent) = scale(suffix)?;
        let nano = magnitude(whole, fraction, base, exponent).min(MOST);
        Some(Self { nano: if negative { -nano } else { nano }, format })
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }

    pub(crate) fn is_multiple(&self, of: &Self) -> bool {
        of.nano != 0 && self.nano % of.nano == 0
    }

    fn plus(self, other: Self) -> Self {
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
        if self.format == Format::Binary && self.nano.abs() >= 1024 * NANO {
            let mut whole = self.round_up(NANO).nano / NANO;
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
    Amount::parse(text).map(|amount| amount.to_string())
}

/// The value of a quantity as the API has it; none when it is none.
pub(crate) fn parsed(quantity: &Quantity) -> Option<Amount> {
    Amount::parse(&quantity.0)
}

/// Rounds up to a thousandth, which is the finest that a resource has.
pub(crate) fn round_up_to_milli(quantity: &mut Quantity) {
    if let Some(amount) = parsed(quantity) {
        quantity.0 = amount.round_up(MILLI).to_string();
    }
}

/// What all containers of a pod ask for together: the plain ones and sidecars at once, or an init container with the
/// sidecars before it, whichever is more.
pub(crate) fn pod_requests(spec: &v1::PodSpec) -> BTreeMap<String, Amount> {
    let mut total: BTreeMap<String, Amount> = BTreeMap::new();
    for container in &spec.containers {
        add(&mut total, &requests(container));
    }
    let mut sidecars = BTreeMap::new();
    let mut most_in_init: BTreeMap<String, Amount> = BTreeMap::new();
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container);
        let mut at_once = sidecars.clone();
        add(&mut at_once, &own);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.clone_from(&at_once);
            add(&mut total, &own);
        }
        for (name, amount) in at_once {
            let most = most_in_init.entry(name).or_insert(Amount::ZERO);
            *most = amount.max(*most);
        }
    }
    for (name, amount) in most_in_init {
        let entry = total.entry(name).or_insert(Amount::ZERO);
        *entry = amount.max(*entry);
    }
    total
}

fn requests(container: &v1::Container) -> BTreeMap<String, Amount> {
    let list = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    list.into_iter().flatten().filter_map(|(name, quantity)| Some((name.clone(), parsed(quantity)?))).collect()
}

fn add(total: &mut BTreeMap<String, Amount>, more: &BTreeMap<String, Amount>) {
    for (name, amount) in more {
        let entry = total.entry(name.clone()).or_insert(Amount::ZERO);
        *entry = entry.plus(*amount);
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

    #[test]
    fn order_is_by_value() {
        assert!(Amount::parse("1Gi") > Amount::parse("1G"));
        assert_eq!(Amount::parse("1"), Amount::parse("1000m"));
        let mut fine = Quantity("1500u".to_owned());
        round_up_to_milli(&mut fine);
        assert_eq!(fine.0, "2m");
    }
}
