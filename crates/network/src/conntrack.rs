//! Connections that the kernel keeps track of. A "connection" of UDP lives as long as packets come, and goes where its first packet
//! went: also after a host port has got a pod, or has lost it. Such ones are forgotten here; the next packet finds its way anew.

use std::io;
use std::net::IpAddr;

use rubelet_host::netlink::{Attributes, Message, Netlink, attributes};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const OF_IP: u16 = 1;
const OF_PROTOCOL: u16 = 2;
const PROTOCOL: u16 = 1;
const DESTINATION_PORT: u16 = 3;
const UDP: u8 = 17;
const NESTED: u16 = 0x8000;

/// One direction of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
struct Way {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: u8,
    destination_port: u16,
}

impl Way {
    fn parse(tuple: &[u8]) -> Self {
        let mut way = Self::default();
        let address = |bytes: &[u8]| match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        };
        for (part, value) in attributes(tuple, 0) {
            for (kind, bytes) in attributes(value, 0) {
                match (part, kind) {
                    (OF_IP, 1 | 3) => way.source = address(bytes),
                    (OF_IP, 2 | 4) => way.destination = address(bytes),
                    (OF_PROTOCOL, PROTOCOL) => way.protocol = bytes.first().copied().unwrap_or(0),
                    (OF_PROTOCOL, DESTINATION_PORT) => {
                        way.destination_port = bytes.try_into().map_or(0, u16::from_be_bytes);
                    }
                    _ => {}
                }
            }
        }
        way
    }
}

/// Forgets what goes to a UDP port of this machine, one of `locals`, by another way than to `pod`; or, when the pod is gone, by it.
pub(crate) fn forget_udp(
    netlink: &mut Netlink,
    port: u16,
    pod: IpAddr,
    is_gone: bool,
    locals: &[IpAddr],
) -> io::Result<()> {
    let family = if pod.is_ipv4() { 2 } else { 10 };
    let fixed = [family, 0, 0, 0];
    let mut stale = Vec::new();
    netlink.list(Message::new(SUBSYSTEM | GET, 0, &fixed).filtered(port), |_, body| {
        let found = attributes(body, 4);
        let value = |kind: u16| found.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value);
        let (Some(original), Some(reply)) = (value(ORIGINAL), value(REPLY)) else { return };
        let (there, back) = (Way::parse(original), Way::parse(reply));
        // Kernels before 5.8 do not filter.
        let is_of_port = there.protocol == UDP && there.destination_port == port;
        let is_to_pod = back.source == Some(pod);
        let is_here = there.destination.is_some_and(|to| locals.contains(&to));
        if is_of_port && (if is_gone { is_to_pod } else { is_here && !is_to_pod }) {
            let message = Message::new(SUBSYSTEM | DELETE, 0, &fixed).with(ORIGINAL | NESTED, original);
            stale.push(match value(ZONE) {
                Some(zone) => message.with(ZONE, zone),
                None => message,
            });
        }
    })?;
    for message in stale {
        match netlink.ask(message) {
            // It has ended by itself.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

trait Filtered {
    /// Has the kernel list only what goes to a UDP port: tables have hundreds of thousands of connections.
    fn filtered(self, port: u16) -> Self;
}

impl Filtered for Message {
    fn filtered(self, port: u16) -> Self {
        /// Which parts of the tuple count, by the bits of the kernel's `CTA_FILTER_FLAG`.
        const PROTOCOL_COUNTS: u32 = 1 << 3;
        const DESTINATION_PORT_COUNTS: u32 = 1 << 5;
        let flags = PROTOCOL_COUNTS | DESTINATION_PORT_COUNTS;
        let protocol = Attributes::default().with(PROTOCOL, &[UDP]).with(DESTINATION_PORT, &port.to_be_bytes());
        let filter = Attributes::default().with(1, &flags.to_ne_bytes()).with(2, &0_u32.to_ne_bytes());
        self.nest(ORIGINAL, Attributes::default().nest(OF_PROTOCOL, protocol)).nest(FILTER, filter)
    }
}
