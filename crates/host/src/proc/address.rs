//! Addresses of the host: by its name, and of the interface that the default route leaves by.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::path::Path;

use super::{ProcError, read_bounded};

/// Routing tables can be long on routers.
const ROUTES_MAX: u64 = 16 << 20;

/// What the resolver says about a name, `/etc/hosts` included. Blocks as long as the resolver does.
pub fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for address in (name, 0).to_socket_addrs()? {
        if !found.contains(&address.ip()) {
            found.push(address.ip());
        }
    }
    Ok(found)
}

/// Global addresses of the interfaces that default routes leave by: first IPv4, then IPv6, at most one of each.
/// Empty without a default route.
pub fn default_addresses() -> Result<Vec<IpAddr>, ProcError> {
    let routes = |path: &str| match read_bounded(Path::new(path), ROUTES_MAX) {
        Err(ProcError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    };
    let addresses =
        interface_addresses().map_err(|source| ProcError::Read { path: "interface addresses".into(), source })?;
    Ok(choose(&routes("/proc/net/route")?, &routes("/proc/net/ipv6_route")?, &addresses))
}

fn choose(routes4: &str, routes6: &str, addresses: &[(String, IpAddr)]) -> Vec<IpAddr> {
    let first = |interfaces: Vec<&str>, is_fit: fn(&IpAddr) -> bool| {
        let found = |i: &str| addresses.iter().find(|(name, ip)| name == i && is_fit(ip)).map(|(_, ip)| *ip);
        interfaces.into_iter().find_map(found)
    };
    let v4 = first(default_interfaces4(routes4), |ip| ip.is_ipv4() && is_global(ip));
    let v6 = first(default_interfaces6(routes6), |ip| ip.is_ipv6() && is_global(ip));
    v4.into_iter().chain(v6).collect()
}

/// Neither loopback, link-local, multicast nor unspecified.
fn is_global(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_multicast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => {
            !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_multicast() && !ip.is_unspecified()
        }
    }
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, numbers in hexadecimal; lowest metric first.
fn default_interfaces4(text: &str) -> Vec<&str> {
    let zero = "00000000";
    by_metric(text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_default = fields.get(1) == Some(&zero) && fields.get(7) == Some(&zero);
        let metric = fields.get(6)?.parse().ok()?;
        is_default.then_some((metric, *fields.first()?))
    }))
}

/// `destination prefix source prefix next-hop metric refcnt use flags interface`, in hexadecimal; the kernel's entry for
/// unreachable destinations is on `lo`.
fn default_interfaces6(text: &str) -> Vec<&str> {
    let zero = "00000000000000000000000000000000";
    by_metric(text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_default = fields.first() == Some(&zero) && fields.get(1) == Some(&"00");
        let metric = u32::from_str_radix(fields.get(5)?, 16).ok()?;
        (is_default && fields.last() != Some(&"lo")).then_some((metric, *fields.last()?))
    }))
}

/// Interfaces, lowest metric first.
fn by_metric<'a>(routes: impl Iterator<Item = (u32, &'a str)>) -> Vec<&'a str> {
    let mut found: Vec<_> = routes.collect();
    found.sort_by_key(|r| r.0);
    found.into_iter().map(|r| r.1).collect()
}

/// (interface, address) of all interfaces that are up, in the kernel's order.
pub fn interface_addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut head: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs fills `head` with a list that it owns until freeifaddrs; an error leaves nothing to free.
    if unsafe { libc::getifaddrs(&mut head) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = head;
    while !next.is_null() {
        // SAFETY: `next` is a node of the list, which is not freed before the end of this function.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if entry.ifa_addr.is_null() || entry.ifa_flags & libc::IFF_UP as u32 == 0 {
            continue;
        }
        // SAFETY: the address is not null, and its family says which structure it is; the name is a C string.
        let (address, name) = unsafe {
            let name: CString = std::ffi::CStr::from_ptr(entry.ifa_name).to_owned();
            let address = match i32::from((*entry.ifa_addr).sa_family) {
                libc::AF_INET => {
                    let raw = (*entry.ifa_addr.cast::<libc::sockaddr_in>()).sin_addr.s_addr;
                    Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(raw))))
                }
                libc::AF_INET6 => {
                    let raw = (*entry.ifa_addr.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr;
                    Some(IpAddr::V6(Ipv6Addr::from(raw)))
                }
                _ => None,
            };
            (address, name)
        };
        if let Some(address) = address {
            found.push((name.to_string_lossy().into_owned(), address));
        }
    }
    // SAFETY: `head` came from getifaddrs and is freed once; no reference into the list is left.
    unsafe { libc::freeifaddrs(head) };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES4: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
        eth0\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t0002000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
    const ROUTES6: &str = "\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 \
        00000001 00000000 00000003     eth0\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff \
        00000001 00000000 00200200       lo\n";

    #[test]
    fn the_best_default_route_decides() {
        let ip = |t: &str| t.parse::<IpAddr>().unwrap();
        let addresses: Vec<(String, IpAddr)> = [
            ("lo", "127.0.0.1"),
            ("wlan0", "192.168.1.5"),
            ("eth0", "169.254.1.1"),
            ("eth0", "10.0.2.15"),
            ("eth0", "fe80::1"),
            ("eth0", "2001:db8::5"),
            ("lo", "::1"),
        ]
        .map(|(n, a)| (n.to_owned(), ip(a)))
        .to_vec();
        assert_eq!(choose(ROUTES4, ROUTES6, &addresses), [ip("10.0.2.15"), ip("2001:db8::5")]);
        assert_eq!(choose(ROUTES4, "", &addresses[..3]), [ip("192.168.1.5")], "the next route when one has no address");
        assert_eq!(choose("", "", &addresses), [] as [IpAddr; 0]);
        assert_eq!(choose("", ROUTES6.lines().nth(1).unwrap(), &addresses), [] as [IpAddr; 0]);
    }

    #[test]
    fn this_machine_answers() {
        assert!(interface_addresses().unwrap().iter().any(|(name, ip)| name == "lo" && ip.is_loopback()));
        default_addresses().unwrap();
        assert!(lookup("localhost").unwrap().iter().all(IpAddr::is_loopback));
    }
}
