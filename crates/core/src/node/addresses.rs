//! Which addresses the node has.

use std::net::IpAddr;

use rubelet_api::v1;

/// What flags say about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRules {
    /// `--node-ip`: one, or one of each family; an unspecified one only says which family is preferred.
    pub given: Vec<IpAddr>,
    /// `--cloud-provider=external`: the cloud's controller names the addresses.
    pub is_cloud_external: bool,
}

/// What the host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSight {
    /// Of all interfaces that are up.
    pub interfaces: Vec<IpAddr>,
    /// What the resolver says of the node's name.
    pub looked_up: Vec<IpAddr>,
    /// Of the interfaces that default routes leave by.
    pub defaults: Vec<IpAddr>,
}

impl AddressRules {
    /// Reads `--node-ip`.
    ///
    /// # Errors
    /// What it can't be, in upstream's words.
    pub fn parse(text: &str, is_cloud_external: bool) -> Result<(Self, Vec<String>), String> {
        let (mut given, mut unreadable) = (Vec::new(), Vec::new());
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.parse::<IpAddr>() {
                Ok(ip) => given.push(ip),
                Err(_) => unreadable.push(part.to_owned()),
            }
        }
        match given.as_slice() {
            [] | [_] => {}
            [first, second] if first.is_ipv4() == second.is_ipv4() => {
                return Err("must contain either a single IP or a dual-stack pair of IPs".to_owned());
            }
            [first, second] if first.is_unspecified() || second.is_unspecified() => {
                return Err("dual-stack node IPs cannot include '0.0.0.0' or '::'".to_owned());
            }
            [_, _] => {}
            _ => return Err("must contain either a single IP or a dual-stack pair of IPs".to_owned()),
        }
        Ok((Self { given, is_cloud_external }, unreadable))
    }

    fn first(&self) -> Option<IpAddr> {
        self.given.first().copied().filter(|ip| !ip.is_unspecified())
    }

    fn second(&self) -> Option<IpAddr> {
        self.given.get(1).copied().filter(|ip| !ip.is_unspecified())
    }

    /// Whether the resolver has to be asked for the node's name.
    #[must_use]
    pub fn needs_lookup(&self, name: &str) -> bool {
        self.first().is_none() && !self.is_cloud_external && name.parse::<IpAddr>().is_err()
    }

    /// What the cloud's controller is told that the node was given.
    pub(super) fn provided(&self) -> Option<String> {
        let first = self.first().filter(|_| self.is_cloud_external)?;
        Some(self.second().map_or_else(|| first.to_string(), |second| format!("{first},{second}")))
    }
}

/// The node's addresses, `known` being those of the Node object.
///
/// kubelet 1.36: those that were given, else the name if it is one, else what the resolver says of the name, else that of the default
/// route. With an external cloud, what its controller said stays; before it said anything only what was given is said.
pub(super) fn addresses(
    rules: &AddressRules,
    sight: &AddressSight,
    name: &str,
    known: &[v1::NodeAddress],
) -> Result<Vec<v1::NodeAddress>, String> {
    if let Some(first) = rules.first() {
        check(first, sight).map_err(|why| format!("failed to validate nodeIP: {why}"))?;
    }
    if let Some(second) = rules.second() {
        check(second, sight).map_err(|why| format!("failed to validate secondaryNodeIP: {why}"))?;
    }
    if rules.is_cloud_external && (!known.is_empty() || rules.first().is_none()) {
        return Ok(known.to_vec());
    }
    let internal: Vec<IpAddr> = match (rules.first(), rules.second()) {
        (Some(first), Some(second)) => vec![first, second],
        (Some(first), None) => vec![first],
        (None, _) => vec![one(rules, sight, name)?],
    };
    let address = |type_: &str, address: String| v1::NodeAddress { type_: type_.to_owned(), address };
    let mut all: Vec<_> = internal.into_iter().map(|ip| address("InternalIP", ip.to_string())).collect();
    all.push(address("Hostname", name.to_owned()));
    Ok(all)
}

fn one(rules: &AddressRules, sight: &AddressSight, name: &str) -> Result<IpAddr, String> {
    if let Ok(ip) = name.parse() {
        return Ok(ip);
    }
    let is_preferred = |ip: &&IpAddr| ip.is_ipv4() == rules.given.first().is_none_or(IpAddr::is_ipv4);
    let fit: Vec<IpAddr> = sight.looked_up.iter().copied().filter(|ip| check(*ip, sight).is_ok()).collect();
    let choose = |all: &[IpAddr]| all.iter().find(is_preferred).or(all.first()).copied();
    choose(&fit)
        .or_else(|| choose(&sight.defaults))
        .ok_or_else(|| format!("can't get ip address of node {name}. error: no default routes found"))
}

/// Whether an address may be the node's.
fn check(ip: IpAddr, sight: &AddressSight) -> Result<(), String> {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let why = if ip.is_loopback() {
        "nodeIP can't be loopback address"
    } else if ip.is_multicast() {
        "nodeIP can't be a multicast address"
    } else if is_link_local {
        "nodeIP can't be a link-local unicast address"
    } else if ip.is_unspecified() {
        "nodeIP can't be an all zeros address"
    } else if !sight.interfaces.contains(&ip) {
        return Err(format!("node IP: \"{ip}\" not found in the host's network interfaces"));
    } else {
        return Ok(());
    };
    Err(why.to_owned())
}

/// The addresses that pods see as the host's, of a Node object. kubelet 1.36: internal ones before external ones, the first and one of
/// the other family.
#[must_use]
pub fn host_ips(node: &v1::Node) -> Vec<IpAddr> {
    let all = node.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    let of = |type_: &str| -> Vec<IpAddr> {
        all.iter().filter(|a| a.type_ == type_).filter_map(|a| a.address.parse().ok()).collect()
    };
    let mut found: Vec<IpAddr> = Vec::new();
    for ip in of("InternalIP").into_iter().chain(of("ExternalIP")) {
        if found.iter().all(|known| known.is_ipv4() != ip.is_ipv4()) {
            found.push(ip);
        }
    }
    found
}
