//! Subnets of pods.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address range with a prefix length; the address is the first of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    first: IpAddr,
    prefix: u8,
}

/// Why a text is no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subnet such as 10.1.0.0/16")]
pub struct SubnetError(String);

/// IPv6 addresses that are given out of a subnet at most.
const SIXES_MAX: u128 = 1 << 24;

impl Subnet {
    /// Ranges that nobody else is known to use by default.
    pub fn defaults() -> Vec<Self> {
        let six = Ipv6Addr::new(0xfd86, 0x7275, 0x6265, 0, 0, 0, 0, 0);
        vec![Self { first: Ipv4Addr::new(10, 86, 0, 0).into(), prefix: 16 }, Self { first: six.into(), prefix: 64 }]
    }

    pub fn is_v4(&self) -> bool {
        self.first.is_ipv4()
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub(crate) fn first(&self) -> IpAddr {
        self.first
    }

    fn bits(&self) -> u32 {
        let all: u32 = if self.is_v4() { 32 } else { 128 };
        all - u32::from(self.prefix)
    }

    /// How many addresses there are, the first (the net's) and the last (broadcast) included.
    fn size(&self) -> u128 {
        1_u128.checked_shl(self.bits()).unwrap_or(u128::MAX).min(if self.is_v4() { u128::MAX } else { SIXES_MAX })
    }

    fn nth(&self, n: u128) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => {
                Ipv4Addr::from_bits(first.to_bits().wrapping_add(u32::try_from(n).unwrap_or(u32::MAX))).into()
            }
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits().wrapping_add(n)).into(),
        }
    }

    /// The bridge's own address: the second of the range.
    pub(crate) fn gateway(&self) -> IpAddr {
        self.nth(1)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |bits: u128| bits.checked_shr(self.bits()).unwrap_or(0);
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(other)) => shift(first.to_bits().into()) == shift(other.to_bits().into()),
            (IpAddr::V6(first), IpAddr::V6(other)) => shift(first.to_bits()) == shift(other.to_bits()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// The first free address after `last`, going round: one that was just given back is not given out at once.
    pub(crate) fn next(&self, last: Option<IpAddr>, is_taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let end = self.size().saturating_sub(1);
        let count = end.saturating_sub(2);
        let at = |address: IpAddr| match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(one)) => u128::from(one.to_bits().wrapping_sub(first.to_bits())),
            (IpAddr::V6(first), IpAddr::V6(one)) => one.to_bits().wrapping_sub(first.to_bits()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 1,
        };
        let start = last.filter(|l| self.contains(*l)).map_or(1, at);
        (0..count).map(|step| self.nth(2 + (start - 1 + step) % count)).find(|address| !is_taken(*address))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first, self.prefix)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let wrong = || SubnetError(text.to_owned());
        let (address, prefix) = text.trim().split_once('/').ok_or_else(wrong)?;
        let (address, prefix): (IpAddr, u8) =
            (address.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?);
        let longest = if address.is_ipv4() { 29 } else { 125 };
        if prefix > longest || prefix == 0 {
            return Err(wrong());
        }
        let mut subnet = Self { first: address, prefix };
        let bits = subnet.bits();
        subnet.first = match address {
            IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() >> bits << bits).into(),
            IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() >> bits << bits).into(),
        };
        Ok(subnet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_what_is_in_them() {
        let four: Subnet = "10.1.2.3/24".parse().unwrap();
        assert_eq!((four.to_string().as_str(), four.gateway().to_string().as_str()), ("10.1.2.0/24", "10.1.2.1"));
        assert!(four.contains("10.1.2.255".parse().unwrap()) && !four.contains("10.1.3.0".parse().unwrap()));
        let six: Subnet = "fd00::/64".parse().unwrap();
        assert!(six.contains("fd00::ffff".parse().unwrap()) && !six.contains("fd01::".parse().unwrap()));
        for bad in ["", "10.0.0.0", "10.0.0.0/30", "10.0.0.0/0", "x/8", "::/126"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_go_round() {
        let subnet: Subnet = "10.0.0.0/29".parse().unwrap();
        let free = |_| false;
        let mut last = None;
        let mut given = Vec::new();
        for _ in 0..6 {
            last = subnet.next(last, free);
            given.push(last.unwrap().to_string());
        }
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]);
        let taken = |a: IpAddr| a != "10.0.0.4".parse::<IpAddr>().unwrap();
        assert_eq!(subnet.next(last, taken).unwrap().to_string(), "10.0.0.4");
        assert_eq!(subnet.next(last, |_| true), None);
    }
}
