//! Links, addresses and routes, by route netlink.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;

use rubelet_host::netlink::{Attributes, Family, Message, Netlink};
use rubelet_host::netns;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFF_UP: u32 = 1;
const AF_BRIDGE: u8 = 7;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Addresses are usable at once: no search for duplicates in a network of our own.
const IFA_F_NODAD: u8 = 2;

/// `struct ifinfomsg`.
fn info(family: u8, index: u32, flags: u32) -> Vec<u8> {
    let mut bytes = vec![family, 0, 0, 0];
    bytes.extend_from_slice(&index.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes
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
    Netlink::open(Family::Route)?.ask(Message::new(RTM_NEWLINK, 0, &info(0, 1, IFF_UP)))
}

/// Makes a bridge that is up, unless it is there. Its number.
pub(crate) fn make_bridge(name: &str, mtu: u32) -> io::Result<u32> {
    let mut netlink = Netlink::open(Family::Route)?;
    match index(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let kind = Attributes::default().text(1, "bridge");
            // A fixed address: without one, the bridge's changes with each pod that comes and goes.
            let address = hardware_address(name.as_bytes());
            let new = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info(0, 0, IFF_UP))
                .text(IFLA_IFNAME, name)
                .number(IFLA_MTU, mtu)
                .with(IFLA_ADDRESS, &address)
                .nest(IFLA_LINKINFO, kind);
            netlink.ask(new)?;
        }
        Err(e) => return Err(e),
        Ok(index) => netlink.ask(Message::new(RTM_NEWLINK, 0, &info(0, index, IFF_UP)))?,
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

/// Removes a link; one that is not there is no error.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    match index(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(index) => Netlink::open(Family::Route)?.ask(Message::new(RTM_DELLINK, 0, &info(0, index, 0))),
    }
}

/// Gives a link an address, unless it has it.
pub(crate) fn add_address(netlink: &mut Netlink, link: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let (family, bytes) = octets(address);
    let mut fixed = vec![family, prefix, IFA_F_NODAD, 0];
    fixed.extend_from_slice(&link.to_ne_bytes());
    let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed).with(2, &bytes).with(1, &bytes);
    if let IpAddr::V4(four) = address {
        let host_bits = 32 - u32::from(prefix);
        let broadcast = four.to_bits() | 1_u32.checked_shl(host_bits).unwrap_or(0).wrapping_sub(1);
        message = message.with(4, &broadcast.to_be_bytes());
    }
    netlink.ask(message)
}

/// A default route by a gateway.
fn add_default_route(netlink: &mut Netlink, link: u32, gateway: IpAddr) -> io::Result<()> {
    const MAIN_TABLE: u8 = 254;
    const BOOT_PROTOCOL: u8 = 3;
    const UNICAST: u8 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    let (family, bytes) = octets(gateway);
    let fixed = [family, 0, 0, 0, MAIN_TABLE, BOOT_PROTOCOL, 0, UNICAST, 0, 0, 0, 0];
    let new = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
    netlink.ask(new.with(RTA_GATEWAY, &bytes).number(RTA_OIF, link))
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(four) => (AF_INET, four.octets().to_vec()),
        IpAddr::V6(six) => (AF_INET6, six.octets().to_vec()),
    }
}

/// An address of a pod with the way out of its subnet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) gateway: IpAddr,
}

/// A pair of links: `host` on the bridge, `eth0` with its addresses in the namespace.
pub(crate) fn connect(host: &str, bridge: u32, mtu: u32, namespace: &Path, places: &[Place]) -> io::Result<()> {
    let file = fs::File::open(namespace)?;
    let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    let peer = Attributes::default()
        .raw(&info(0, 0, 0))
        .text(IFLA_IFNAME, "eth0")
        .with(IFLA_MTU, &mtu.to_ne_bytes())
        .with(IFLA_NET_NS_FD, &fd.to_ne_bytes());
    let kind = Attributes::default().text(1, "veth").nest(2, Attributes::default().nest(1, peer));
    let mut netlink = Netlink::open(Family::Route)?;
    // Neither can be up before it has the other.
    let new = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &info(0, 0, 0))
        .text(IFLA_IFNAME, host)
        .number(IFLA_MTU, mtu)
        .nest(IFLA_LINKINFO, kind);
    netlink.ask(new)?;
    let link = index(host)?;
    netlink.ask(Message::new(RTM_NEWLINK, 0, &info(0, link, IFF_UP)).number(IFLA_MASTER, bridge))?;
    // Replies of a pod to itself go back through the port they came from.
    let hairpin = Attributes::default().with(4, &[1]);
    netlink.ask(Message::new(RTM_SETLINK, 0, &info(AF_BRIDGE, link, 0)).nest(IFLA_PROTINFO, hairpin))?;
    netns::within(namespace, || {
        let mut inside = Netlink::open(Family::Route)?;
        let eth0 = index("eth0")?;
        inside.ask(Message::new(RTM_NEWLINK, 0, &info(0, eth0, IFF_UP)))?;
        for place in places {
            add_address(&mut inside, eth0, place.address, place.prefix)?;
        }
        for place in places {
            add_default_route(&mut inside, eth0, place.gateway)?;
        }
        Ok(())
    })
}

/// Largest packet of the link that leads out; 1500 when there is none.
pub(crate) fn uplink_mtu() -> u32 {
    const USUAL: u32 = 1500;
    let routes = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let link = routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000")).then(|| fields[0].to_owned())
    });
    let mtu = link.and_then(|link| fs::read_to_string(format!("/sys/class/net/{link}/mtu")).ok());
    mtu.and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL)
}
