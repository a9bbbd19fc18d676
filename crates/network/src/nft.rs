//! Messages of nftables: tables, chains, rules of a few expressions, sets and their elements.
//!
//! Names and numbers are those of the kernel's `nf_tables.h`.

use std::io;

use rubelet_host::netlink::{Attributes, Family, Message, Netlink};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// `NFPROTO_INET`: IPv4 and IPv6 in one table.
const INET: u8 = 1;

/// What a transaction is made of.
pub(crate) enum Change {
    AddTable,
    DeleteTable,
    /// A chain that packets come to by themselves: type, hook number, priority.
    AddBase {
        chain: &'static str,
        kind: &'static str,
        hook: u32,
        priority: i32,
    },
    /// A chain that others jump to.
    AddChain {
        chain: &'static str,
    },
    AddRule {
        chain: &'static str,
        expressions: Vec<Attributes>,
    },
    AddMap(Map),
    AddElement {
        map: &'static str,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    DeleteElement {
        map: &'static str,
        key: Vec<u8>,
    },
}

/// A map with the types as `nft` shows them.
#[derive(Clone, Copy)]
pub(crate) struct Map {
    pub(crate) name: &'static str,
    pub(crate) id: u32,
    pub(crate) key_type: u32,
    pub(crate) key_len: u32,
    pub(crate) value_type: u32,
    pub(crate) value_len: u32,
}

/// Carries out all changes or none.
pub(crate) fn commit(table: &str, changes: &[Change]) -> io::Result<()> {
    let ends = |kind| Message::new(kind, 0, &[0, 0, 0, 10]).silent();
    let mut messages = vec![ends(BATCH_BEGIN)];
    messages.extend(changes.iter().map(|change| message(table, change)));
    messages.push(ends(BATCH_END));
    Netlink::open(Family::Netfilter)?.ask_all(&messages)
}

fn message(table: &str, change: &Change) -> Message {
    let new = |kind: u16, flags: u16| Message::new(SUBSYSTEM | kind, flags, &[INET, 0, 0, 0]);
    let elements = |kind, map: &str, element: Attributes| {
        let list = Attributes::default().nest(1, element);
        new(kind, CREATE).text(1, table).text(2, map).nest(3, list)
    };
    let value = |bytes: &[u8]| Attributes::default().with(1, bytes);
    match change {
        Change::AddTable => new(0, CREATE).text(1, table),
        Change::DeleteTable => new(2, 0).text(1, table),
        Change::AddBase { chain, kind, hook, priority } => {
            let hook = Attributes::default().big(1, *hook).with(2, &priority.to_be_bytes());
            new(3, CREATE).text(1, table).text(3, chain).nest(4, hook).text(7, kind)
        }
        Change::AddChain { chain } => new(3, CREATE).text(1, table).text(3, chain),
        Change::AddRule { chain, expressions } => {
            let list = expressions.iter().fold(Attributes::default(), |list, one| list.nest(1, one.clone()));
            new(6, CREATE | APPEND).text(1, table).text(2, chain).nest(4, list)
        }
        Change::AddMap(map) => {
            const IS_MAP: u32 = 8;
            let big = |value: u32| value.to_be_bytes();
            new(9, CREATE)
                .text(1, table)
                .text(2, map.name)
                .with(3, &big(IS_MAP))
                .with(4, &big(map.key_type))
                .with(5, &big(map.key_len))
                .with(6, &big(map.value_type))
                .with(7, &big(map.value_len))
                .with(10, &big(map.id))
        }
        Change::AddElement { map, key, value: data } => {
            elements(12, map, Attributes::default().nest(1, value(key)).nest(2, value(data)))
        }
        Change::DeleteElement { map, key } => elements(14, map, Attributes::default().nest(1, value(key))),
    }
}

/// The registers of expressions: the first takes 16 bytes, the others are its second to fourth quarter and what follows it.
pub(crate) const VALUE: u32 = 1;
pub(crate) const QUARTER: [u32; 4] = [8, 9, 10, 11];
/// The 16 bytes after the first.
pub(crate) const SECOND: u32 = 2;
/// The quarter that begins 16 bytes after the first register: its first.
pub(crate) const FIFTH_QUARTER: u32 = 12;
pub(crate) const SIXTH_QUARTER: u32 = 13;

fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::default().text(1, name).nest(2, data)
}

/// Loads a property of the packet.
pub(crate) fn meta(key: u32, register: u32) -> Attributes {
    expression("meta", Attributes::default().big(1, register).big(2, key))
}

pub(crate) const IIFNAME: u32 = 6;
pub(crate) const OIFNAME: u32 = 7;
pub(crate) const NFPROTO: u32 = 15;
pub(crate) const L4PROTO: u32 = 16;

/// Loads bytes of the network (1) or transport (2) header.
pub(crate) fn payload(base: u32, offset: u32, length: u32, register: u32) -> Attributes {
    expression("payload", Attributes::default().big(1, register).big(2, base).big(3, offset).big(4, length))
}

/// Keeps the bits of a mask.
pub(crate) fn mask(register: u32, bits: &[u8]) -> Attributes {
    let value = |bytes: &[u8]| Attributes::default().with(1, bytes);
    let length = u32::try_from(bits.len()).unwrap_or(0);
    let zero = vec![0; bits.len()];
    expression(
        "bitwise",
        Attributes::default()
            .big(1, register)
            .big(2, register)
            .big(3, length)
            .nest(4, value(bits))
            .nest(5, value(&zero)),
    )
}

/// Goes on if the register equals the value, or does not.
pub(crate) fn compare(register: u32, is_equal: bool, value: &[u8]) -> Attributes {
    let operation = if is_equal { 0 } else { 1 };
    let data = Attributes::default().with(1, value);
    expression("cmp", Attributes::default().big(1, register).big(2, operation).nest(3, data))
}

/// A link's name as it is compared.
pub(crate) fn link_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Loads what kind of address the destination is.
pub(crate) fn destination_kind(register: u32) -> Attributes {
    const ADDRESS_KIND: u32 = 3;
    const OF_DESTINATION: u32 = 2;
    expression("fib", Attributes::default().big(1, register).big(2, ADDRESS_KIND).big(3, OF_DESTINATION))
}

/// Loads the connection's status bits.
pub(crate) fn connection_status(register: u32) -> Attributes {
    expression("ct", Attributes::default().big(1, register).big(2, 2))
}

/// Goes on if the map has the key, with its value loaded.
pub(crate) fn lookup(map: Map, key: u32, value: u32) -> Attributes {
    expression("lookup", Attributes::default().text(1, map.name).big(2, key).big(3, value).big(4, map.id))
}

/// Sends the connection to another address and port.
pub(crate) fn redirect(is_v4: bool, address: u32, port: u32) -> Attributes {
    const TO_DESTINATION: u32 = 1;
    let family = if is_v4 { 2 } else { 10 };
    let data = Attributes::default().big(1, TO_DESTINATION).big(2, family).big(3, address).big(5, port);
    expression("nat", data)
}

/// Gives the connection this machine's address.
pub(crate) fn masquerade() -> Attributes {
    expression("masq", Attributes::default())
}

fn verdict(inside: Attributes) -> Attributes {
    expression("immediate", Attributes::default().big(1, 0).nest(2, Attributes::default().nest(2, inside)))
}

pub(crate) fn drop_packet() -> Attributes {
    verdict(Attributes::default().big(1, 0))
}

pub(crate) fn jump(chain: &str) -> Attributes {
    const JUMP: i32 = -3;
    verdict(Attributes::default().with(1, &JUMP.to_be_bytes()).text(2, chain))
}
