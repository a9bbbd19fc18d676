//! The rules of the built-in network, all in one table of ours.
//!
//! - `postrouting`: what leaves the pods' subnet for elsewhere gets this machine's address; so does what comes from this machine's
//!   loopback, and what pods send to themselves by a host port.
//! - `prerouting`, `output`: what is meant for this machine looks for its port in the maps `ports4`, `ports6` (any address of the host)
//!   and `bound4`, `bound6` (one address). A pod's ports are elements of these: adding and removing them costs the same for the first pod
//!   and the thousandth.
//! - `guard`: pods do not reach what listens on this machine's loopback, although packets to there may be routed.

use std::io;
use std::net::IpAddr;

use rubelet_host::netlink::{Attributes, Netlink};

use crate::PortMapping;
use crate::book::Entry;
use crate::nft::{
    self, Change, FIFTH_QUARTER, IIFNAME, L4PROTO, Map, NFPROTO, OIFNAME, QUARTER, SECOND, SIXTH_QUARTER, VALUE,
};
use crate::subnet::Subnet;

/// Types as `nft` counts them, six bits each.
const V4: u32 = 7;
const V6: u32 = 8;
const PROTOCOL: u32 = 12;
const SERVICE: u32 = 13;

const PORTS4: Map = Map {
    name: "ports4",
    id: 1,
    key_type: PROTOCOL << 6 | SERVICE,
    key_len: 8,
    value_type: V4 << 6 | SERVICE,
    value_len: 8,
};
const PORTS6: Map = Map { name: "ports6", id: 2, value_type: V6 << 6 | SERVICE, value_len: 20, ..PORTS4 };
const BOUND4: Map = Map { name: "bound4", id: 3, key_type: (PROTOCOL << 6 | V4) << 6 | SERVICE, key_len: 12, ..PORTS4 };
const BOUND6: Map = Map { name: "bound6", id: 4, key_type: (PROTOCOL << 6 | V6) << 6 | SERVICE, key_len: 24, ..PORTS6 };

const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DESTINATION: i32 = -100;
const PRIORITY_SOURCE: i32 = 100;
/// `RTN_LOCAL`, in the machine's order.
const LOCAL: u32 = 2;
/// `IPS_DST_NAT`.
const REDIRECTED: u32 = 1 << 5;

/// Makes the table anew with the ports of these pods, at once: nobody sees it half made.
pub(crate) fn lay<'a>(
    netlink: &mut Netlink,
    table: &str,
    bridge: &str,
    subnets: &[Subnet],
    pods: impl Iterator<Item = &'a Entry>,
) -> io::Result<()> {
    let mut changes = vec![Change::AddTable, Change::DeleteTable, Change::AddTable];
    changes.extend([PORTS4, PORTS6, BOUND4, BOUND6].map(Change::AddMap));
    let nat = |chain, hook, priority| Change::AddBase { chain, kind: "nat", hook, priority };
    changes.push(Change::AddBase { chain: "guard", kind: "filter", hook: PREROUTING, priority: PRIORITY_RAW });
    changes.push(Change::AddChain { chain: "hostports" });
    changes.push(nat("prerouting", PREROUTING, PRIORITY_DESTINATION));
    changes.push(nat("output", OUTPUT, PRIORITY_DESTINATION));
    changes.push(nat("postrouting", POSTROUTING, PRIORITY_SOURCE));
    let mut rule = |chain, expressions| changes.push(Change::AddRule { chain, expressions });
    rule("guard", guard(bridge));
    for chain in ["prerouting", "output"] {
        let is_local = nft::compare(VALUE, true, &LOCAL.to_ne_bytes());
        rule(chain, vec![nft::destination_kind(VALUE), is_local, nft::jump("hostports")]);
    }
    for map in [BOUND4, BOUND6, PORTS4, PORTS6] {
        rule("hostports", redirect(map));
    }
    for subnet in subnets {
        rule("postrouting", leaving(subnet, bridge));
        rule("postrouting", to_itself(subnet, bridge));
    }
    rule("postrouting", from_loopback(bridge));
    for pod in pods {
        changes.extend(ports(pod).into_iter().map(|(map, key, value)| Change::AddElement { map, key, value }));
    }
    nft::commit(netlink, table, &changes)
}

/// Adds a pod's ports.
pub(crate) fn add(netlink: &mut Netlink, table: &str, pod: &Entry) -> io::Result<()> {
    let changes: Vec<Change> =
        ports(pod).into_iter().map(|(map, key, value)| Change::AddElement { map, key, value }).collect();
    nft::commit(netlink, table, &changes)
}

/// Removes a pod's ports; those that are not there are no error.
pub(crate) fn remove(netlink: &mut Netlink, table: &str, pod: &Entry) -> io::Result<()> {
    let gone: Vec<Change> = ports(pod).into_iter().map(|(map, key, _)| Change::DeleteElement { map, key }).collect();
    match nft::commit(netlink, table, &gone) {
        // One that is not there keeps the others: each by itself then.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    for change in gone {
        match nft::commit(netlink, table, &[change]) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Removes the table; one that is not there is no error.
pub(crate) fn dismantle(netlink: &mut Netlink, table: &str) -> io::Result<()> {
    nft::commit(netlink, table, &[Change::AddTable, Change::DeleteTable])
}

/// The elements of a pod's ports: map, key, value.
fn ports(pod: &Entry) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let mut elements = Vec::new();
    for port in &pod.ports {
        for address in &pod.addresses {
            let bound = port.host_ip.filter(|ip| !ip.is_unspecified());
            let is_meant = port.host_ip.is_none_or(|ip| ip.is_ipv4() == address.is_ipv4());
            if !is_meant {
                continue;
            }
            let map = match (address, bound) {
                (IpAddr::V4(_), None) => PORTS4,
                (IpAddr::V6(_), None) => PORTS6,
                (IpAddr::V4(_), Some(_)) => BOUND4,
                (IpAddr::V6(_), Some(_)) => BOUND6,
            };
            elements.push((map.name, key(port, bound), value(*address, port.container_port)));
        }
    }
    elements
}

/// Parts are filled up to four bytes each.
fn key(port: &PortMapping, bound: Option<IpAddr>) -> Vec<u8> {
    let mut bytes = vec![port.protocol.number(), 0, 0, 0];
    bytes.extend(bound.map(octets).unwrap_or_default());
    bytes.extend(port.host_port.to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}

fn value(address: IpAddr, port: u16) -> Vec<u8> {
    let mut bytes = octets(address);
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

fn is_family(is_v4: bool) -> [Attributes; 2] {
    let family = if is_v4 { 2 } else { 10 };
    [nft::meta(NFPROTO, VALUE), nft::compare(VALUE, true, &[family])]
}

/// Packets from pods to this machine's loopback.
fn guard(bridge: &str) -> Vec<Attributes> {
    let from_pods = [nft::meta(IIFNAME, VALUE), nft::compare(VALUE, true, &nft::link_name(bridge))];
    let to_loopback =
        [nft::payload(1, 16, 4, VALUE), nft::mask(VALUE, &[255, 0, 0, 0]), nft::compare(VALUE, true, &[127, 0, 0, 0])];
    is_family(true).into_iter().chain(from_pods).chain(to_loopback).chain([nft::drop_packet()]).collect()
}

/// A connection to a port of the host that a map knows goes to its pod.
fn redirect(map: Map) -> Vec<Attributes> {
    let is_v4 = map.name.ends_with('4');
    let mut expressions = is_family(is_v4).to_vec();
    expressions.push(nft::meta(L4PROTO, QUARTER[0]));
    let is_bound = map.name.starts_with("bound");
    let port = match (is_bound, is_v4) {
        (false, _) => QUARTER[1],
        (true, true) => {
            expressions.push(nft::payload(1, 16, 4, QUARTER[1]));
            QUARTER[2]
        }
        (true, false) => {
            expressions.push(nft::payload(1, 24, 16, QUARTER[1]));
            SIXTH_QUARTER
        }
    };
    expressions.push(nft::payload(2, 2, 2, port));
    expressions.push(nft::lookup(map, VALUE, VALUE));
    expressions.push(nft::redirect(is_v4, VALUE, if is_v4 { QUARTER[1] } else { FIFTH_QUARTER }));
    expressions
}

/// Whose source is in the subnet.
fn from_subnet(subnet: &Subnet) -> Vec<Attributes> {
    let (length, offset) = if subnet.is_v4() { (4_usize, 12) } else { (16, 8) };
    let mut bits = vec![0_u8; length];
    for bit in 0..usize::from(subnet.prefix()) {
        bits[bit / 8] |= 0x80 >> (bit % 8);
    }
    let bytes = u32::try_from(length).unwrap_or(4);
    vec![
        nft::payload(1, offset, bytes, SECOND),
        nft::mask(SECOND, &bits),
        nft::compare(SECOND, true, &octets(subnet.first())),
    ]
}

/// From a pod to elsewhere.
fn leaving(subnet: &Subnet, bridge: &str) -> Vec<Attributes> {
    let mut expressions = is_family(subnet.is_v4()).to_vec();
    expressions.extend(from_subnet(subnet));
    expressions.extend([nft::meta(OIFNAME, VALUE), nft::compare(VALUE, false, &nft::link_name(bridge))]);
    expressions.push(nft::masquerade());
    expressions
}

/// From a pod by a host port to a pod, itself perhaps: the answer has to come back this way.
fn to_itself(subnet: &Subnet, bridge: &str) -> Vec<Attributes> {
    let mut expressions = is_family(subnet.is_v4()).to_vec();
    expressions.extend(from_subnet(subnet));
    expressions.extend([nft::meta(OIFNAME, VALUE), nft::compare(VALUE, true, &nft::link_name(bridge))]);
    expressions.extend(was_redirected());
    expressions.push(nft::masquerade());
    expressions
}

fn from_loopback(bridge: &str) -> Vec<Attributes> {
    let mut expressions = is_family(true).to_vec();
    expressions.extend([nft::payload(1, 12, 4, VALUE), nft::mask(VALUE, &[255, 0, 0, 0])]);
    expressions.push(nft::compare(VALUE, true, &[127, 0, 0, 0]));
    expressions.extend([nft::meta(OIFNAME, VALUE), nft::compare(VALUE, true, &nft::link_name(bridge))]);
    expressions.push(nft::masquerade());
    expressions
}

fn was_redirected() -> [Attributes; 3] {
    [
        nft::connection_status(VALUE),
        nft::mask(VALUE, &REDIRECTED.to_ne_bytes()),
        nft::compare(VALUE, false, &0_u32.to_ne_bytes()),
    ]
}
