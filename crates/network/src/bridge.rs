//! The built-in network: a bridge, a pair of links for each pod, addresses from the book.
//!
//! What is in the book is there before anything of it is in the kernel, and leaves it after: so nothing is in the kernel that the book
//! does not know.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use rubelet_host::netlink::{Family, Message, Netlink, attributes};

use crate::book::{Entry, How};
use crate::link::{self, Place};
use crate::{Attached, NetworkError, Options, PortMapping, State, Subnet, Wanted, kernel_error, rules};

/// How the host's ends of links begin.
const LINK_PREFIX: &str = "rbl";

fn table(options: &Options) -> String {
    options.bridge.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
}

/// Not longer than a link's name may be.
fn link_name(id: &str) -> String {
    format!("{LINK_PREFIX}{}", &id.get(..12).unwrap_or(id))
}

pub(crate) fn attach(
    options: &Options,
    state: &mut State,
    wanted: &Wanted<'_>,
    namespace: &Path,
) -> Result<Attached, NetworkError> {
    refuse_bandwidth(wanted)?;
    check_ports(state, wanted)?;
    let subnets: Vec<Subnet> = state.subnets.iter().copied().filter(|s| s.is_v4() || has_v6()).collect();
    let mut places = Vec::new();
    for subnet in &subnets {
        let last = state.book.last(subnet.is_v4());
        let gateway = subnet.gateway();
        let address = subnet.next(last, |a| state.book.is_taken(a)).ok_or(NetworkError::Exhausted(*subnet))?;
        places.push(Place { address, prefix: subnet.prefix(), gateway });
    }
    let addresses: Vec<IpAddr> = places.iter().map(|place| place.address).collect();
    let link = link_name(wanted.id);
    let entry = Entry { addresses: addresses.clone(), link: link.clone(), ..Entry::of(wanted) };
    state.book.write(wanted.id, Some(entry.clone()))?;
    let mtu = link::uplink_mtu();
    let bridge = lay(options, state, &subnets, mtu)?;
    link::connect(&link, bridge, mtu, namespace, &places).map_err(kernel_error("connect the pod to the bridge"))?;
    rules::add(&table(options), &entry).map_err(kernel_error("add the pod's host ports"))?;
    Ok(Attached { addresses })
}

/// The annotations are CNI's; nothing here limits traffic.
fn refuse_bandwidth(wanted: &Wanted<'_>) -> Result<(), NetworkError> {
    let asked = ["kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"];
    match asked.into_iter().find(|name| wanted.annotations.contains_key(*name)) {
        Some(name) => Err(NetworkError::Unsupported(format!(
            "annotation {name}: the built-in network does not limit traffic; configure CNI with the plugin bandwidth"
        ))),
        None => Ok(()),
    }
}

/// Two pods cannot have one port of the host.
fn check_ports(state: &State, wanted: &Wanted<'_>) -> Result<(), NetworkError> {
    let meets = |a: &PortMapping, b: &PortMapping| {
        let of = |port: &PortMapping| port.host_ip.filter(|ip| !ip.is_unspecified());
        let overlap = of(a).is_none() || of(b).is_none() || of(a) == of(b);
        a.protocol == b.protocol && a.host_port == b.host_port && overlap
    };
    for (id, pod) in state.book.entries().filter(|(id, pod)| *id != wanted.id && pod.how == How::Bridge) {
        let taken = wanted.ports.iter().find(|port| pod.ports.iter().any(|other| meets(port, other)));
        if let Some(port) = taken {
            let holder = format!("{} (sandbox {id})", pod.pod);
            return Err(NetworkError::PortTaken { protocol: port.protocol, port: port.host_port, holder });
        }
    }
    Ok(())
}

pub(crate) fn detach(options: &Options, state: &mut State, id: &str, entry: &Entry) -> Result<(), NetworkError> {
    rules::remove(&table(options), entry).map_err(kernel_error("remove the pod's host ports"))?;
    link::remove(&entry.link).map_err(kernel_error("remove the pod's link"))?;
    state.book.write(id, None)?;
    // The last one takes all of it along.
    if !state.book.entries().any(|(_, pod)| pod.how == How::Bridge) {
        state.is_laid = false;
        dismantle(options)?;
    }
    Ok(())
}

/// Makes bridge and rules, and what of the machine they need, the first time and when the bridge is gone. Its number.
fn lay(options: &Options, state: &mut State, subnets: &[Subnet], mtu: u32) -> Result<u32, NetworkError> {
    if state.is_laid
        && let Ok(index) = link::index(&options.bridge)
    {
        return Ok(index);
    }
    let index = link::make_bridge(&options.bridge, mtu).map_err(kernel_error("make the bridge"))?;
    let mut netlink = Netlink::open(Family::Route).map_err(kernel_error("open netlink"))?;
    for subnet in subnets {
        let said = format!("give the bridge the address {}", subnet.gateway());
        link::add_address(&mut netlink, index, subnet.gateway(), subnet.prefix()).map_err(kernel_error(said))?;
    }
    set("ipv4/ip_forward", "1")?;
    // So that 127.0.0.1:PORT leads to pods; the rules keep pods from this machine's loopback.
    set(&format!("ipv4/conf/{}/route_localnet", options.bridge), "1")?;
    if subnets.iter().any(|subnet| !subnet.is_v4()) {
        set("ipv6/conf/all/forwarding", "1")?;
    }
    let pods: Vec<Entry> =
        state.book.entries().filter(|(_, pod)| pod.how == How::Bridge).map(|(_, pod)| pod.clone()).collect();
    rules::lay(&table(options), &options.bridge, subnets, pods.iter())
        .map_err(kernel_error("make the table of nftables"))?;
    state.is_laid = true;
    Ok(index)
}

/// Writes a setting of the kernel's network, unless it is so already.
fn set(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys/net").join(name);
    if fs::read_to_string(&path).is_ok_and(|text| text.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(crate::file_error("write", &path))
}

fn has_v6() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|text| text.trim() == "0")
}

/// Removes links that belong to no pod of the book, and makes the rules those of the book, if there are any.
pub(crate) fn sweep(options: &Options, state: &mut State) -> Result<(), NetworkError> {
    let known: BTreeSet<String> = state.book.entries().map(|(_, pod)| pod.link.clone()).collect();
    let Ok(bridge) = link::index(&options.bridge) else { return Ok(()) };
    let mut strangers = Vec::new();
    let listed = Netlink::open(Family::Route).and_then(|mut netlink| {
        netlink.list(Message::new(18, 0, &[0; 16]), |_, body| strangers.extend(stranger(body, bridge, &known)))
    });
    listed.map_err(kernel_error("list the links"))?;
    for name in strangers {
        link::remove(&name).map_err(kernel_error(format!("remove the link {name}")))?;
    }
    let subnets: Vec<Subnet> = state.subnets.iter().copied().filter(|s| s.is_v4() || has_v6()).collect();
    let has_pods = state.book.entries().any(|(_, pod)| pod.how == How::Bridge);
    match has_pods {
        true => lay(options, state, &subnets, link::uplink_mtu()).map(drop),
        false => dismantle(options),
    }
}

/// The name of a link of ours on the bridge that nobody knows.
fn stranger(body: &[u8], bridge: u32, known: &BTreeSet<String>) -> Option<String> {
    const NAME: u16 = 3;
    const MASTER: u16 = 10;
    let found = attributes(body, 16);
    let value = |kind: u16| found.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value);
    let name = String::from_utf8_lossy(value(NAME)?).trim_end_matches('\0').to_owned();
    let is_on_bridge = value(MASTER)? == bridge.to_ne_bytes();
    (is_on_bridge && name.starts_with(LINK_PREFIX) && !known.contains(&name)).then_some(name)
}

fn dismantle(options: &Options) -> Result<(), NetworkError> {
    link::remove(&options.bridge).map_err(kernel_error("remove the bridge"))?;
    rules::dismantle(&table(options)).map_err(kernel_error("remove the table of nftables"))
}
