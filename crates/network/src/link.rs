//! Links, addresses and routes, by route netlink.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use rubelet_host::netlink::{Attributes, Family, Message, Netlink, attributes, errno};
use rubelet_host::netns;

use crate::{Subnet, sysctl};

mod shape;

pub(crate) use shape::Shape;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const MAIN_TABLE: u8 = 254;
const UNICAST: u8 = 1;
/// Addresses are usable at once: no search for duplicates in a network of our own.
const IFA_F_NODAD: u8 = 2;
/// The pod's interface.
pub(crate) const ETH0: &str = "eth0";

/// `struct ifinfomsg`; `flags` are those to set, of `change`.
fn info(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0];
    for number in [index, flags, change] {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
    bytes
}

/// Changes what is there under a name.
fn change(name: &str, flags: u32, change: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &info(0, flags, change)).text(IFLA_IFNAME, name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

/// The number of a link in the calling thread's network namespace.
pub(crate) fn index(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::netdevice::name_to_index(&socket, name).map_err(|e| match e {
        rustix::io::Errno::NODEV => io::ErrorKind::NotFound.into(),
        e => e.into(),
    })
}

/// Raises `lo` in the calling thread's network namespace.
pub(crate) fn raise_loopback() -> io::Result<()> {
    // The first link of every namespace.
    Netlink::open(Family::Route)?.ask(Message::new(RTM_NEWLINK, 0, &info(1, IFF_UP, IFF_UP)))
}

/// Makes a bridge, unless it is there, and raises it. Its number.
pub(crate) fn make_bridge(name: &str, mtu: u32) -> io::Result<u32> {
    let mut netlink = Netlink::open(Family::Route)?;
    match index(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let kind = Attributes::default().text(INFO_KIND, "bridge");
            let new = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info(0, 0, 0))
                .text(IFLA_IFNAME, name)
                .number(IFLA_MTU, mtu)
                // A fixed address: without one, the bridge's changes with each pod that comes and goes.
                .with(IFLA_ADDRESS, &hardware_address(name.as_bytes()))
                .nest(IFLA_LINKINFO, kind);
            netlink.ask_all(&[new, change(name, IFF_UP, IFF_UP)])?;
        }
        Err(e) => return Err(e),
        Ok(_) => netlink.ask(change(name, IFF_UP, IFF_UP).number(IFLA_MTU, mtu))?,
    }
    index(name)
}

/// A locally administered address that follows from a seed.
fn hardware_address(seed: &[u8]) -> [u8; 6] {
    // FNV-1a.
    let hash = seed
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    [0x02, a, b, c, d, e]
}

/// Removes a link; one that is not there is no error. Takes some 20 ms.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    let gone = Message::new(RTM_DELLINK, 0, &info(0, 0, 0)).text(IFLA_IFNAME, name);
    missing_is_fine(Netlink::open(Family::Route)?.ask(gone)).map(drop)
}

/// Takes a link down, so that nothing passes it any more. False when there is none.
pub(crate) fn cut_off(name: &str) -> io::Result<bool> {
    // To take it off its bridge as well would take as long as its removal.
    missing_is_fine(Netlink::open(Family::Route)?.ask(change(name, 0, IFF_UP)))
}

/// The kernel says `ENODEV` of a link that is not there.
fn missing_is_fine(done: io::Result<()>) -> io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound || errno(&e) == Some(NO_DEVICE) => Ok(false),
        Err(e) => Err(e),
    }
}

const NO_DEVICE: i32 = rustix::io::Errno::NODEV.raw_os_error();

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(four) => (AF_INET, four.octets().to_vec()),
        IpAddr::V6(six) => (AF_INET6, six.octets().to_vec()),
    }
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        AF_INET6 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// An address of a link, out of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    pub(crate) subnet: Subnet,
}

impl Place {
    /// Gives a link the address, unless it has it.
    fn add(&self, link: u32) -> Message {
        let (family, bytes) = octets(self.address);
        let mut fixed = vec![family, self.subnet.prefix(), IFA_F_NODAD, 0];
        fixed.extend_from_slice(&link.to_ne_bytes());
        let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
        let message = message.with(IFA_LOCAL, &bytes).with(IFA_ADDRESS, &bytes);
        match self.address {
            IpAddr::V4(four) => {
                let host_bits = 32 - u32::from(self.subnet.prefix());
                let broadcast = four.to_bits() | 1_u32.checked_shl(host_bits).unwrap_or(0).wrapping_sub(1);
                message.with(IFA_BROADCAST, &broadcast.to_be_bytes())
            }
            IpAddr::V6(_) => message,
        }
    }

    /// The default route by the subnet's gateway.
    fn way_out(&self, link: u32) -> Message {
        const BOOT_PROTOCOL: u8 = 3;
        let (family, bytes) = octets(self.subnet.gateway());
        let fixed = [family, 0, 0, 0, MAIN_TABLE, BOOT_PROTOCOL, 0, UNICAST, 0, 0, 0, 0];
        let new = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
        new.with(RTA_GATEWAY, &bytes).number(RTA_OIF, link)
    }
}

/// Gives a link these addresses and takes all others but link-local ones from it.
pub(crate) fn set_addresses(link: u32, places: &[Place]) -> io::Result<()> {
    let mut netlink = Netlink::open(Family::Route)?;
    let mut messages: Vec<Message> = places.iter().map(|place| place.add(link)).collect();
    netlink.list(Message::new(RTM_GETADDR, 0, &[0; 8]), |_, body| {
        let Some((fixed, is_ours)) = body.get(..8).map(|fixed| (fixed, number(&fixed[4..]) == link)) else { return };
        let found = attributes(body, 8);
        let value = |kind| found.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value);
        let Some(bytes) = value(IFA_LOCAL).or(value(IFA_ADDRESS)) else { return };
        let Some(has) = address(fixed[0], bytes).filter(|_| is_ours) else { return };
        let is_wanted = places.iter().any(|place| place.address == has && place.subnet.prefix() == fixed[1]);
        let is_local = matches!(has, IpAddr::V6(six) if six.is_unicast_link_local());
        if !is_wanted && !is_local {
            messages.push(Message::new(RTM_DELADDR, 0, fixed).with(IFA_LOCAL, bytes));
        }
    })?;
    netlink.ask_all(&messages)
}

/// One pod's pair of links.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    /// Name of the host's end.
    pub(crate) host: &'a str,
    /// Shown beside it.
    pub(crate) alias: &'a str,
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
    pub(crate) places: &'a [Place],
    pub(crate) shape: Shape,
}

/// Makes a pair of links: the host's end on the bridge, `eth0` with its addresses in the namespace.
pub(crate) fn connect(pair: &Pair<'_>, namespace: &Path) -> io::Result<()> {
    let file = fs::File::open(namespace)?;
    let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    let seed = pair.places.first().map(|place| octets(place.address).1).unwrap_or_default();
    let peer = Attributes::default()
        .raw(&info(0, 0, 0))
        .text(IFLA_IFNAME, ETH0)
        .with(IFLA_MTU, &pair.mtu.to_ne_bytes())
        // Follows from the address: who gets the address later is found under it at once.
        .with(IFLA_ADDRESS, &hardware_address(&seed))
        .with(IFLA_NET_NS_FD, &fd.to_ne_bytes());
    let kind = Attributes::default().text(INFO_KIND, "veth").nest(INFO_DATA, Attributes::default().nest(1, peer));
    let new = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info(0, 0, 0))
        .text(IFLA_IFNAME, pair.host)
        .number(IFLA_MTU, pair.mtu)
        .number(IFLA_MASTER, pair.bridge)
        .nest(IFLA_LINKINFO, kind);
    // Replies of a pod to itself go back through the port they came from.
    let hairpin = Attributes::default().with(4, &[1]);
    let port = Attributes::default().text(INFO_SLAVE_KIND, "bridge").nest(INFO_SLAVE_DATA, hairpin);
    let mut messages = vec![new];
    if sysctl::knows_v6() {
        // The host's end needs no address of its own.
        const NO_LOCAL_ADDRESS: u8 = 1;
        let six = Attributes::default().with(8, &[NO_LOCAL_ADDRESS]);
        let families = Attributes::default().nest(u16::from(AF_INET6), six);
        messages.push(change(pair.host, 0, 0).nest(IFLA_AF_SPEC, families));
    }
    messages.push(change(pair.host, IFF_UP, IFF_UP).text(IFLA_IFALIAS, pair.alias).nest(IFLA_LINKINFO, port));
    let mut netlink = Netlink::open(Family::Route)?;
    netlink.ask_all(&messages)?;
    if let Some(rate) = pair.shape.to_pod {
        netlink.ask(shape::limit(index(pair.host)?, rate, pair.mtu))?;
    }
    netns::within(namespace, || inside(pair))?;
    wait_until_up(&mut netlink, index(pair.host)?)?;
    wait_until_up(&mut netlink, pair.bridge)
}

/// Waits until the kernel has noticed that a link has its other end: until then it drops what goes there, and who has sent it tries again
/// after a second only. New kernels look when they are asked, others soon.
fn wait_until_up(netlink: &mut Netlink, link: u32) -> io::Result<()> {
    const IFLA_OPERSTATE: u16 = 16;
    const UP: &[u8] = &[6];
    const SOON: Duration = Duration::from_micros(200);
    const TRIES_MAX: usize = 5000;
    for _ in 0..TRIES_MAX {
        let mut is_up = false;
        netlink.fetch(&Message::new(RTM_GETLINK, 0, &info(link, 0, 0)), |_, body| {
            is_up = attributes(body, 16).contains(&(IFLA_OPERSTATE, UP));
        })?;
        if is_up {
            return Ok(());
        }
        std::thread::sleep(SOON);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "a link does not come up"))
}

/// The pod's end; in its namespace.
fn inside(pair: &Pair<'_>) -> io::Result<()> {
    sysctl::for_pod(ETH0)?;
    let eth0 = index(ETH0)?;
    let mut messages = vec![Message::new(RTM_NEWLINK, 0, &info(eth0, IFF_UP, IFF_UP))];
    messages.extend(pair.places.iter().map(|place| place.add(eth0)));
    messages.extend(pair.places.iter().map(|place| place.way_out(eth0)));
    messages.extend(pair.shape.from_pod.map(|rate| shape::limit(eth0, rate, pair.mtu)));
    let mut netlink = Netlink::open(Family::Route)?;
    netlink.ask_all(&messages)?;
    wait_until_up(&mut netlink, eth0)
}

/// Names of all links of a kind in the calling thread's network namespace.
pub(crate) fn of_kind(kind: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    Netlink::open(Family::Route)?.list(Message::new(RTM_GETLINK, 0, &info(0, 0, 0)), |_, body| {
        let found = attributes(body, 16);
        let value = |kind: u16| found.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value);
        let details = attributes(value(IFLA_LINKINFO).unwrap_or_default(), 0);
        let is_of_kind = details.iter().any(|(k, value)| *k == INFO_KIND && text(value) == kind);
        names.extend(value(IFLA_IFNAME).filter(|_| is_of_kind).map(text));
    })?;
    Ok(names)
}

/// Addresses of a link in the calling thread's network namespace.
pub(crate) fn addresses(link: u32) -> io::Result<Vec<IpAddr>> {
    let mut all = Vec::new();
    Netlink::open(Family::Route)?.list(Message::new(RTM_GETADDR, 0, &[0; 8]), |_, body| {
        let is_of_link = body.get(4..8).is_some_and(|bytes| number(bytes) == link);
        let found = attributes(body, 8);
        let value = |kind| found.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value);
        all.extend(value(IFA_LOCAL).or(value(IFA_ADDRESS)).filter(|_| is_of_link).and_then(|b| address(body[0], b)));
    })?;
    Ok(all)
}

/// Largest packet of the link that leads out; 1500 when there is none.
pub(crate) fn uplink_mtu() -> u32 {
    const USUAL: u32 = 1500;
    // Addresses that are in documents only: the way to them is the way to everything.
    let outside = [IpAddr::from([192, 0, 2, 254]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe])];
    outside.into_iter().find_map(|address| mtu_towards(address).ok().flatten()).unwrap_or(USUAL)
}

fn mtu_towards(address: IpAddr) -> io::Result<Option<u32>> {
    const LOOPBACK: u32 = 1;
    let mut netlink = Netlink::open(Family::Route)?;
    let (family, bytes) = octets(address);
    let bits = if family == AF_INET { 32 } else { 128 };
    let ask = Message::new(RTM_GETROUTE, 0, &[family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).with(RTA_DST, &bytes);
    let mut link = None;
    netlink.fetch(&ask, |_, body| {
        link = attributes(body, 12).into_iter().find(|(kind, _)| *kind == RTA_OIF).map(|(_, value)| number(value));
    })?;
    let Some(link) = link.filter(|link| *link != LOOPBACK) else { return Ok(None) };
    let mut mtu = None;
    netlink.fetch(&Message::new(RTM_GETLINK, 0, &info(link, 0, 0)), |_, body| {
        mtu = attributes(body, 16).into_iter().find(|(kind, _)| *kind == IFLA_MTU).map(|(_, value)| number(value));
    })?;
    Ok(mtu)
}

/// A route of the main table into a subnet by a link that is not the bridge: text and link's name. Wider routes are no matter.
pub(crate) fn route_into(subnet: Subnet, bridge: &str) -> io::Result<Option<(String, String)>> {
    let family = if subnet.is_v4() { AF_INET } else { AF_INET6 };
    let own = index(bridge).ok();
    let mut found = None;
    let mut netlink = Netlink::open(Family::Route)?;
    let ask = Message::new(RTM_GETROUTE, 0, &[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    netlink.list(ask, |_, body| {
        let Some(&[f, bits, _, _, table, _, _, kind]) = body.get(..8).and_then(|b| <&[u8; 8]>::try_from(b).ok()) else {
            return;
        };
        if f != family || table != MAIN_TABLE || kind != UNICAST || bits < subnet.prefix() {
            return;
        }
        let all = attributes(body, 12);
        let value = |kind: u16| all.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value);
        let link = value(RTA_OIF).map(number);
        let to = value(RTA_DST).and_then(|bytes| address(family, bytes));
        if let (Some(to), Some(link)) = (to.filter(|to| subnet.contains(*to)), link.filter(|l| Some(*l) != own)) {
            found = Some((format!("{to}/{bits}"), link));
        }
    })?;
    let Some((route, link)) = found else { return Ok(None) };
    let mut name = link.to_string();
    netlink.fetch(&Message::new(RTM_GETLINK, 0, &info(link, 0, 0)), |_, body| {
        name =
            attributes(body, 16).into_iter().find(|(k, _)| *k == IFLA_IFNAME).map_or(String::new(), |(_, v)| text(v));
    })?;
    Ok(Some((route, name)))
}
