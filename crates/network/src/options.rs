//! How a network is made, and what a pod wants of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Subnet;

/// How a network is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Configurations of CNI; the first in the order of their names counts. Looked at anew for each pod.
    pub cni_conf_dir: PathBuf,
    /// Where its plugins are, in this order.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Where its results are kept, in libcni's form.
    pub cni_cache_dir: PathBuf,
    /// How long one call of a plugin may take; then it is killed.
    pub cni_patience: Duration,
    /// Who has which address, and which pods were attached by which plugins.
    pub state_dir: PathBuf,
    /// Files that keep the pods' namespaces.
    pub netns_dir: PathBuf,
    /// Name of the bridge, at most 15 bytes; the table of nftables is named after it.
    pub bridge: String,
    /// At most one of IPv4 and one of IPv6; the first is of the primary address.
    pub subnets: Vec<Subnet>,
    /// Called where a kill leaves something half done, with the name of the point. For tests.
    pub fault: Option<fn(&'static str)>,
}

impl Options {
    /// The machine's usual places but for these two.
    pub fn at(state_dir: &Path, netns_dir: &Path) -> Self {
        Self {
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dirs: ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"].map(PathBuf::from).to_vec(),
            cni_cache_dir: "/var/lib/cni".into(),
            cni_patience: Duration::from_secs(120),
            state_dir: state_dir.to_owned(),
            netns_dir: netns_dir.to_owned(),
            bridge: "rubelet0".to_owned(),
            subnets: Subnet::defaults(),
            fault: None,
        }
    }

    /// A point at which a kill leaves something half done.
    pub(crate) fn reached(&self, point: &'static str) {
        if let Some(fault) = self.fault {
            fault(point);
        }
    }

    /// Name of the table of nftables: the bridge's without its number.
    pub(crate) fn table(&self) -> &str {
        self.bridge.trim_end_matches(|c: char| c.is_ascii_digit())
    }
}

/// Transport of a host port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As CNI and `nft` call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Its number in packets.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A port of the host that leads to one of the pod.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortMapping {
    /// `None`: all addresses of the host. The unspecified address of a family: all of that family.
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

/// A pod that is to have a network.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Of the sandbox: letters, digits, `_`, `.`, `-`, the first a letter or digit.
    pub id: &'a str,
    pub uid: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub ports: Vec<PortMapping>,
    /// Two of them count: `kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth`.
    pub annotations: &'a BTreeMap<String, String>,
    pub dns_servers: &'a [String],
    pub dns_searches: &'a [String],
    pub dns_options: &'a [String],
}

/// What a pod has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The primary one first.
    pub addresses: Vec<IpAddr>,
}
