//! How fast a pod may receive and send: a token bucket on each end of its pair of links.
//!
//! The bucket for what it sends is in the pod's own namespace: who may administer the network there can remove it.

use std::collections::BTreeMap;

use rubelet_host::netlink::{Attributes, Message};

use crate::NetworkError;

/// Limits in bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) to_pod: Option<u64>,
    pub(crate) from_pod: Option<u64>,
}

/// kubelet 1.36: a rate is at least 1k and at most 1P.
const RATE_MIN: u64 = 1_000;
const RATE_MAX: u64 = 1_000_000_000_000_000;

impl Shape {
    /// What the annotations `kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth` say.
    pub(crate) fn of(annotations: &BTreeMap<String, String>) -> Result<Self, NetworkError> {
        let rate = |direction: &str| {
            let name = format!("kubernetes.io/{direction}-bandwidth");
            let Some(text) = annotations.get(&name) else { return Ok(None) };
            let wrong = |what: &str| NetworkError::Unsupported(format!("annotation {name}: {text:?} {what}"));
            let bits = bits_per_second(text).ok_or_else(|| wrong("is not a rate such as 10M"))?;
            match bits {
                ..RATE_MIN => Err(wrong("is unreasonably small (< 1kbit)")),
                RATE_MIN..=RATE_MAX => Ok(Some(bits)),
                _ => Err(wrong("is unreasonably large (> 1Pbit)")),
            }
        };
        Ok(Self { to_pod: rate("ingress")?, from_pod: rate("egress")? })
    }

    pub(crate) fn is_any(self) -> bool {
        self.to_pod.is_some() || self.from_pod.is_some()
    }
}

/// A quantity of bits, rounded up: `1M`, `1.5M`, `500k`, `1Gi`, `1e6`.
pub(crate) fn bits_per_second(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let factor: u128 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "m" => return bits_per_second(digits).map(|bits| bits.div_ceil(1000)),
        other => {
            let exponent: u32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_u128.checked_pow(exponent)?
        }
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && part.is_empty() || part.len() > 18 || part.contains('.') {
        return None;
    }
    let number: u128 = format!("0{whole}{part}").parse().ok()?;
    let places = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    u64::try_from(number.checked_mul(factor)?.div_ceil(places)).ok()
}

/// Puts a token bucket on a link.
pub(super) fn limit(link: u32, bits_per_second: u64, mtu: u32) -> Message {
    const RTM_NEWQDISC: u16 = 36;
    const CREATE_OR_REPLACE: u16 = 0x400 | 0x100;
    const ROOT: u32 = u32::MAX;
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    const PARAMETERS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    const ETHERNET: u8 = 1;
    let rate = (bits_per_second / 8).max(1);
    let rate32 = u32::try_from(rate).unwrap_or(u32::MAX);
    // What comes at once: 10 ms of the rate, and whole packets also before they are cut to the link's size.
    let burst = u32::try_from(rate / 100).unwrap_or(u32::MAX).clamp((2 * mtu).max(64 << 10), 16 << 20);
    // What waits: 25 ms of the rate.
    let waiting = u32::try_from(rate / 40).unwrap_or(u32::MAX).clamp(64 << 10, 64 << 20);
    // `struct tc_tbf_qopt`: rate, peak rate, limit, buffer, mtu.
    let ratespec = |rate: u32| {
        let mut bytes = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&rate.to_ne_bytes());
        bytes
    };
    let mut parameters = [ratespec(rate32), ratespec(0)].concat();
    for number in [burst.saturating_add(waiting), 0, 0] {
        parameters.extend_from_slice(&number.to_ne_bytes());
    }
    let options = Attributes::default().with(PARAMETERS, &parameters).with(BURST, &burst.to_ne_bytes());
    let options = if rate > u64::from(u32::MAX) { options.with(RATE64, &rate.to_ne_bytes()) } else { options };
    // `struct tcmsg`: family, link, handle, parent, information.
    let mut fixed = vec![0; 4];
    for number in [link, 0, ROOT, 0] {
        fixed.extend_from_slice(&number.to_ne_bytes());
    }
    Message::new(RTM_NEWQDISC, CREATE_OR_REPLACE, &fixed).text(KIND, "tbf").nest(OPTIONS, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_quantities() {
        let all = [
            ("1M", Some(1_000_000)),
            ("1Ki", Some(1024)),
            ("7", Some(7)),
            ("1.5M", Some(1_500_000)),
            ("1e6", Some(1_000_000)),
            ("1500m", Some(2)),
            ("0.0001", Some(1)),
            ("x", None),
            ("", None),
            (".", None),
            ("1X", None),
            ("-1M", None),
            ("1.2.3", None),
            ("99999999999999999999P", None),
        ];
        for (text, want) in all {
            assert_eq!(bits_per_second(text), want, "{text}");
        }
    }

    #[test]
    fn annotations_are_limits() {
        let of = |text: &str| Shape::of(&BTreeMap::from([("kubernetes.io/egress-bandwidth".into(), text.into())]));
        assert_eq!(of("10M").unwrap(), Shape { to_pod: None, from_pod: Some(10_000_000) });
        assert!(of("10M").unwrap().is_any() && !Shape::of(&BTreeMap::new()).unwrap().is_any());
        let said = "annotation kubernetes.io/egress-bandwidth: \"1\" is unreasonably small (< 1kbit)";
        assert_eq!(of("1").unwrap_err().to_string(), said);
        assert!(of("2P").is_err() && of("fast").is_err());
    }
}
