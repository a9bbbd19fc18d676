//! The built-in network: a bridge, a pair of links for each pod, addresses from the book.
//!
//! What is in the book is there before anything of it is in the kernel, and leaves it after: so nothing is in the kernel that the book
//! does not know. A pod's link that is on its way out is the exception; it bears our name and is no pod's.

use std::collections::BTreeSet;
use std::path::Path;

use rubelet_host::netlink::Netlink;
use rubelet_host::{chain, proc};

use crate::book::{Book, Entry};
use crate::error::kernel_error;
use crate::leaving::Leaving;
use crate::link::{self, Pair, Place, Shape};
use crate::{Attached, NetworkError, Options, PortMapping, Protocol, Subnet, Wanted};
use crate::{conntrack, doors, nft, rules, sysctl};

/// How the host's ends of links begin.
const LINK_PREFIX: &str = "rbl";

/// The bridge and who is on it.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) book: Book,
    /// From which pods get addresses from now on.
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) leaving: Leaving,
    /// The subnets for which bridge and rules are known to have been laid.
    laid: Option<Vec<Subnet>>,
    /// A connection to nftables; see [`nft::open`].
    nft: Option<Netlink>,
    has_warned: bool,
}

impl Bridge {
    pub(crate) fn new(book: Book, subnets: Vec<Subnet>) -> Self {
        Self { book, subnets, leaving: Leaving::default(), laid: None, nft: None, has_warned: false }
    }

    /// Gives a pod addresses, a link and ports. What was begun is taken back if it fails.
    pub(crate) fn attach(
        &mut self,
        options: &Options,
        wanted: &Wanted<'_>,
        namespace: &Path,
    ) -> Result<Attached, NetworkError> {
        let shape = Shape::of(wanted.annotations)?;
        self.check_ports(wanted)?;
        let places = self.choose()?;
        let link = self.link_name(wanted.id);
        self.leaving.wait(&link);
        let entry = Entry {
            addresses: places.iter().map(|place| place.address).collect(),
            subnets: places.iter().map(|place| place.subnet).collect(),
            link,
            ..Entry::of(wanted)
        };
        self.book.write(wanted.id, Some(entry.clone()))?;
        options.reached("attach.booked");
        if let Err(error) = self.make(options, &entry, &places, shape, namespace) {
            if let Err(second) = self.detach(options, wanted.id) {
                tracing::warn!(pod = entry.pod, err = %chain(&second), "what was begun of a pod's network is still there");
            }
            return Err(error);
        }
        Ok(Attached { addresses: entry.addresses })
    }

    fn make(
        &mut self,
        options: &Options,
        entry: &Entry,
        places: &[Place],
        shape: Shape,
        namespace: &Path,
    ) -> Result<(), NetworkError> {
        let mtu = link::uplink_mtu();
        let bridge = self.lay(options, mtu)?;
        options.reached("attach.laid");
        let pair = Pair { host: &entry.link, alias: &entry.pod, bridge, mtu, places, shape };
        let connected = link::connect(&pair, namespace);
        connected.map_err(kernel_error(if shape.is_any() {
            "connect the pod to the bridge with the limits of the annotations kubernetes.io/{ingress,egress}-bandwidth"
        } else {
            "connect the pod to the bridge"
        }))?;
        options.reached("attach.connected");
        rules::add(rules_by(&mut self.nft)?, options.table(), entry)
            .map_err(kernel_error("add the pod's host ports"))?;
        options.reached("attach.ports");
        forget_udp(rules_by(&mut self.nft)?, entry, false)
    }

    /// One address of each subnet.
    fn choose(&self) -> Result<Vec<Place>, NetworkError> {
        self.usable()
            .map(|subnet| {
                let last = self.book.last(subnet.is_v4());
                let address = subnet.next(last, |a| self.book.is_taken(a)).ok_or(NetworkError::Exhausted(subnet))?;
                Ok(Place { address, subnet })
            })
            .collect()
    }

    /// The subnets, without those of IPv6 where it is not in use.
    fn usable(&self) -> impl Iterator<Item = Subnet> {
        self.subnets.iter().copied().filter(|subnet| subnet.is_v4() || sysctl::has_v6())
    }

    /// Not longer than a link's name may be, and nobody else's.
    fn link_name(&self, id: &str) -> String {
        let mut name = format!("{LINK_PREFIX}{}", &id.get(..12).unwrap_or(id));
        let mut n = 0;
        while self.book.entries().any(|(_, pod)| pod.link == name) {
            n += 1;
            name = format!("{LINK_PREFIX}-{n}");
        }
        name
    }

    /// Two pods cannot have one port of the host.
    fn check_ports(&self, wanted: &Wanted<'_>) -> Result<(), NetworkError> {
        let of = |port: &PortMapping| port.host_ip.filter(|ip| !ip.is_unspecified());
        let may_meet = |a: &PortMapping, b: &PortMapping| match (a.host_ip, b.host_ip) {
            (Some(x), Some(y)) => x.is_ipv4() == y.is_ipv4() && (of(a).is_none() || of(b).is_none() || x == y),
            (None, _) | (_, None) => true,
        };
        let is_same = |a: &PortMapping, b: &PortMapping| a.protocol == b.protocol && a.host_port == b.host_port;
        for (id, pod) in self.book.entries() {
            let meets =
                |port: &PortMapping| pod.ports.iter().any(|other| is_same(port, other) && may_meet(port, other));
            if let Some(port) = wanted.ports.iter().find(|port| meets(port)) {
                let holder = format!("{} (sandbox {id})", pod.pod);
                return Err(NetworkError::PortTaken { protocol: port.protocol, port: port.host_port, holder });
            }
        }
        Ok(())
    }

    /// Takes back what a pod has; one that has nothing is no error.
    pub(crate) fn detach(&mut self, options: &Options, id: &str) -> Result<(), NetworkError> {
        let Some(entry) = self.book.get(id).cloned() else { return Ok(()) };
        rules::remove(rules_by(&mut self.nft)?, options.table(), &entry)
            .map_err(kernel_error("remove the pod's host ports"))?;
        options.reached("detach.ports");
        forget_udp(rules_by(&mut self.nft)?, &entry, true)?;
        let is_there = link::cut_off(&entry.link).map_err(kernel_error("take the pod's link down"))?;
        options.reached("detach.cut");
        self.book.write(id, None)?;
        options.reached("detach.booked");
        if is_there {
            self.leaving.add(&entry.link);
        }
        // The last one takes all of it along. What stays nevertheless is the next sweep's.
        if !self.has_pods()
            && let Err(error) = self.take_down(options)
        {
            tracing::warn!(err = %chain(&error), "something of the network is left though it has no pods");
        }
        Ok(())
    }

    fn has_pods(&self) -> bool {
        self.book.entries().next().is_some()
    }

    /// Removes rules and bridge, the latter in the background.
    fn take_down(&mut self, options: &Options) -> Result<(), NetworkError> {
        self.laid = None;
        let netlink = rules_by(&mut self.nft)?;
        rules::dismantle(netlink, options.table()).map_err(kernel_error("remove the table of nftables"))?;
        options.reached("down.rules");
        doors::close(netlink, options.table()).map_err(kernel_error("remove the rules in other tables"))?;
        options.reached("down.doors");
        if link::cut_off(&options.bridge).map_err(kernel_error("take the bridge down"))? {
            self.leaving.add(&options.bridge);
        }
        Ok(())
    }

    /// Makes bridge and rules, and what of the machine they need, unless they are there. The bridge's number.
    fn lay(&mut self, options: &Options, mtu: u32) -> Result<u32, NetworkError> {
        let table = options.table();
        let subnets = self.all_subnets();
        let has_table =
            nft::has_table(rules_by(&mut self.nft)?, table).map_err(kernel_error("look for the table of nftables"))?;
        if has_table
            && self.laid.as_ref() == Some(&subnets)
            && let Ok(index) = link::index(&options.bridge)
        {
            return Ok(index);
        }
        self.laid = None;
        self.leaving.wait(&options.bridge);
        refuse_used(&subnets, options)?;
        let index = link::make_bridge(&options.bridge, mtu)
            .map_err(kernel_error(format!("make the bridge {}", options.bridge)))?;
        sysctl::for_bridge(&options.bridge, subnets.iter().any(|subnet| !subnet.is_v4()))?;
        let gateways: Vec<Place> =
            subnets.iter().map(|subnet| Place { address: subnet.gateway(), subnet: *subnet }).collect();
        link::set_addresses(index, &gateways).map_err(kernel_error("set the bridge's addresses"))?;
        options.reached("lay.bridge");
        rules::lay(rules_by(&mut self.nft)?, table, &options.bridge, &subnets, self.book.entries().map(|(_, pod)| pod))
            .map_err(kernel_error("make the table of nftables"))?;
        self.open_doors(options);
        self.laid = Some(subnets);
        Ok(index)
    }

    /// Those of which pods get addresses, and those of which living pods have some.
    fn all_subnets(&self) -> Vec<Subnet> {
        let mut all: Vec<Subnet> = self.usable().collect();
        for subnet in self.book.entries().flat_map(|(_, pod)| pod.subnets.iter()) {
            if !all.contains(subnet) {
                all.push(*subnet);
            }
        }
        all
    }

    /// Another firewall that cannot be changed may yet let pods through: no reason to refuse them.
    fn open_doors(&mut self, options: &Options) {
        let Some(netlink) = self.nft.as_mut() else { return };
        let Err((place, error)) = doors::open(netlink, &options.bridge, options.table()) else { return };
        if !self.has_warned {
            self.has_warned = true;
            tracing::warn!(
                table = place,
                err = %chain(&error),
                "the firewall cannot be told to let the pods through; if it belongs to firewalld: firewall-cmd --permanent --zone=trusted --add-interface={}",
                options.bridge
            );
        }
    }

    /// Whether pods can be attached. If there are some, makes what is missing for them, and opens what others have shut since.
    pub(crate) fn ready(&mut self, options: &Options) -> Result<(), NetworkError> {
        if self.usable().next().is_none() {
            return Err(NetworkError::Unsupported("the built-in network has no subnet".to_owned()));
        }
        if !self.has_pods() {
            nft::has_table(rules_by(&mut self.nft)?, options.table())
                .map_err(kernel_error("ask for tables of nftables"))?;
            return refuse_used(&self.all_subnets(), options);
        }
        self.lay(options, link::uplink_mtu())?;
        self.open_doors(options);
        Ok(())
    }

    /// Whether all that a pod has got is still there. What is missing of rules is put back.
    pub(crate) fn check(&mut self, options: &Options, id: &str, namespace: &Path) -> Result<(), NetworkError> {
        let Some(entry) = self.book.get(id).cloned() else {
            return Err(NetworkError::Broken { pod: id.to_owned(), what: "it is not attached".to_owned() });
        };
        let broken = |what: String| NetworkError::Broken { pod: entry.pod.clone(), what };
        self.lay(options, link::uplink_mtu())?;
        link::index(&entry.link).map_err(|e| broken(format!("its link {} on the host: {e}", entry.link)))?;
        let has = rubelet_host::netns::within(namespace, || link::addresses(link::index(link::ETH0)?))
            .map_err(|e| broken(format!("its interface {}: {e}", link::ETH0)))?;
        match entry.addresses.iter().find(|address| !has.contains(address)) {
            Some(address) => Err(broken(format!("its address {address} is gone"))),
            None => Ok(()),
        }
    }

    /// Removes links that belong to no pod of the book, and makes the rules those of the book, if there are any.
    pub(crate) fn sweep(&mut self, options: &Options) -> Result<(), NetworkError> {
        self.leaving.settle();
        let known: BTreeSet<String> = self.book.entries().map(|(_, pod)| pod.link.clone()).collect();
        let links = link::of_kind("veth").map_err(kernel_error("list the links"))?;
        for name in links.iter().filter(|name| name.starts_with(LINK_PREFIX) && !known.contains(*name)) {
            link::remove(name).map_err(kernel_error(format!("remove the link {name}")))?;
        }
        if !self.has_pods() {
            return self.dismantle(options);
        }
        self.laid = None;
        self.lay(options, link::uplink_mtu()).map(drop)
    }

    /// Removes rules and bridge, and waits for it. Settings of the kernel stay.
    pub(crate) fn dismantle(&mut self, options: &Options) -> Result<(), NetworkError> {
        self.take_down(options)?;
        self.leaving.settle();
        Ok(())
    }
}

/// Refuses subnets that lead somewhere else on this machine.
fn refuse_used(subnets: &[Subnet], options: &Options) -> Result<(), NetworkError> {
    for subnet in subnets {
        let used = link::route_into(*subnet, &options.bridge).map_err(kernel_error("look at the routes"))?;
        if let Some((route, link)) = used {
            return Err(NetworkError::Overlap { subnet: *subnet, route, link });
        }
    }
    Ok(())
}

/// The connection to nftables, opened the first time.
fn rules_by(kept: &mut Option<Netlink>) -> Result<&mut Netlink, NetworkError> {
    if let Some(netlink) = kept {
        return Ok(netlink);
    }
    Ok(kept.insert(nft::open().map_err(kernel_error("open a connection to nftables"))?))
}

/// Has the next packet of UDP find its way anew, after a port has got a pod or has lost it.
fn forget_udp(netlink: &mut Netlink, entry: &Entry, is_gone: bool) -> Result<(), NetworkError> {
    let ports: Vec<&PortMapping> = entry.ports.iter().filter(|port| port.protocol == Protocol::Udp).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let failed = || kernel_error("forget connections of UDP to the pod's host ports");
    let locals: Vec<_> = proc::interface_addresses().map_err(failed())?.into_iter().map(|(_, ip)| ip).collect();
    for port in ports {
        for address in &entry.addresses {
            conntrack::forget_udp(netlink, port.host_port, *address, is_gone, &locals).map_err(failed())?;
        }
    }
    Ok(())
}
