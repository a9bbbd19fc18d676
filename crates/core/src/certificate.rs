//! The node's own certificates: what they say, and when they are renewed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::now::Wall;

mod der;

use der::{Part, parts};

/// kubelet 1.36: waits between attempts to get a certificate; from the fifth on the last one.
const RETRY_SECS: [u64; 5] = [2, 4, 8, 16, 32];

/// What of a certificate decides whether it will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub not_before: Wall,
    pub not_after: Wall,
    /// The last common name of the subject.
    pub common_name: String,
    pub organizations: Vec<String>,
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

/// What a node wants to be called in its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl Wish {
    /// That of a node as a client of the API server.
    #[must_use]
    pub fn of_client(node: &str) -> Self {
        Self {
            common_name: format!("system:node:{node}"),
            organizations: vec!["system:nodes".to_owned()],
            names: Vec::new(),
            addresses: Vec::new(),
        }
    }

    /// That of a node's own servers. kubelet 1.36: not without an address, unless names alone are allowed
    /// (gate `AllowDNSOnlyNodeCSR`).
    #[must_use]
    pub fn of_server(node: &str, names: Vec<String>, addresses: Vec<IpAddr>, are_names_enough: bool) -> Option<Self> {
        let is_enough = !addresses.is_empty() || are_names_enough && !names.is_empty();
        is_enough.then(|| Self { names, addresses, ..Self::of_client(node) })
    }
}

impl Certificate {
    /// Reads a certificate in DER; `None` if it is not one.
    #[must_use]
    pub fn of_der(der: &[u8]) -> Option<Self> {
        der::certificate(der)
    }

    /// When it is to be renewed. kubelet 1.36: at 70 to 90 % of its life; `chance` is from 0 to 1.
    #[must_use]
    pub fn renew_at(&self, chance: f64) -> Wall {
        let life = self.not_after.duration_since(self.not_before);
        let life = Duration::try_from(life).unwrap_or_default();
        self.not_before.saturating_add(life.mul_f64(0.7 + 0.2 * chance.clamp(0.0, 1.0))).unwrap_or(self.not_after)
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, now: Wall) -> bool {
        now > self.not_after
    }

    /// Whether it is what is wanted; more names and organizations do not harm.
    #[must_use]
    pub fn fulfils(&self, wish: &Wish) -> bool {
        self.common_name == wish.common_name
            && wish.organizations.iter().all(|organization| self.organizations.contains(organization))
            && wish.names.iter().all(|name| self.names.contains(name))
            && wish.addresses.iter().all(|address| self.addresses.contains(address))
    }
}

/// How long to wait after so many failures in a row (from 1); `chance` (0 to 1) adds up to a tenth.
#[must_use]
pub fn retry_after(failures: u32, chance: f64) -> Duration {
    let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(RETRY_SECS.len() - 1);
    Duration::from_secs(RETRY_SECS[index]).mul_f64(1.0 + 0.1 * chance.clamp(0.0, 1.0))
}

/// The address in a subject alternative name.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(|four| Ipv4Addr::from(four).into())
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(|sixteen| Ipv6Addr::from(sixteen).into()))
        .ok()
}

/// Names and addresses of the extension's value.
fn alternatives(value: &[u8]) -> Option<(Vec<String>, Vec<IpAddr>)> {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let outer = parts(value).next()??;
    for found in parts(outer.body) {
        let Part { tag, body } = found?;
        match tag {
            0x82 => names.push(String::from_utf8_lossy(body).into_owned()),
            0x87 => addresses.extend(address(body)),
            _ => {}
        }
    }
    Some((names, addresses))
}

#[cfg(test)]
mod tests;
