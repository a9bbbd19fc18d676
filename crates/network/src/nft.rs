//! Messages of nftables: tables, chains, rules of a few expressions, sets and their elements.
//!
//! Names and numbers are those of the kernel's `nf_tables.h`.

use std::io;

use rubelet_host::netlink::{Attributes, Family as Subsystem, Message, Netlink, attributes};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// Whose tables, as `nft` calls it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    /// IPv4 and IPv6 in one table.
    Inet = 1,
    Ip = 2,
    Ip6 = 10,
}

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

/// A connection to nftables and conntrack. It is worth keeping: the kernel lets nobody go on who closes one after a change until all processors have
/// taken note of the change, some 10 ms.
pub(crate) fn open() -> io::Result<Netlink> {
    Netlink::open(Subsystem::Netfilter)
}

/// A message about a family's tables.
fn new(family: Family, kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM | kind, flags, &[family as u8, 0, 0, 0])
}

/// Carries out all changes of our own table or none.
pub(crate) fn commit(netlink: &mut Netlink, table: &str, changes: &[Change]) -> io::Result<()> {
    batch(netlink, changes.iter().map(|change| message(table, change)))
}

fn batch(netlink: &mut Netlink, changes: impl Iterator<Item = Message>) -> io::Result<()> {
    let ends = |kind| Message::new(kind, 0, &[0, 0, 0, 10]).silent();
    let mut messages = vec![ends(BATCH_BEGIN)];
    messages.extend(changes);
    if messages.len() == 1 {
        return Ok(());
    }
    messages.push(ends(BATCH_END));
    netlink.ask_all(&messages)
}

/// Whether our own table is there.
pub(crate) fn has_table(netlink: &mut Netlink, table: &str) -> io::Result<bool> {
    const GET_TABLE: u16 = 1;
    there(netlink.ask(new(Family::Inet, GET_TABLE, 0).text(1, table)))
}

fn there(done: io::Result<()>) -> io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether somebody's chain is there, and if so, whether it drops what none of its rules decides.
pub(crate) fn chain(netlink: &mut Netlink, family: Family, table: &str, chain: &str) -> io::Result<Option<bool>> {
    const GET_CHAIN: u16 = 4;
    const POLICY: u16 = 5;
    const DROP: [u8; 4] = [0; 4];
    let mut drops = false;
    let ask = new(family, GET_CHAIN, 0).text(1, table).text(3, chain);
    let done = netlink.fetch(&ask, |_, body| {
        drops |= attributes(body, 4).contains(&(POLICY, &DROP[..]));
    });
    there(done).map(|is_there| is_there.then_some(drops))
}

/// Handles of the rules of a chain that have this comment.
pub(crate) fn rules_with(
    netlink: &mut Netlink,
    family: Family,
    (table, chain): (&str, &str),
    comment: &str,
) -> io::Result<Vec<u64>> {
    const GET_RULE: u16 = 7;
    const HANDLE: u16 = 3;
    let mut handles = Vec::new();
    let ask = new(family, GET_RULE, 0).text(1, table).text(2, chain);
    let wanted = remark(comment);
    let done = netlink.list(ask, |_, body| {
        let found = attributes(body, 4);
        let value = |kind: u16| found.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value);
        // Kernels before 6.3 list all chains of a table, whatever is asked.
        let is_of_chain = value(2).is_some_and(|name| name.strip_suffix(b"\0") == Some(chain.as_bytes()));
        if is_of_chain && value(USERDATA) == Some(&wanted[..]) {
            handles.extend(value(HANDLE).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes));
        }
    });
    there(done)?;
    Ok(handles)
}

/// Something said about a rule, as `nft` writes it.
fn remark(comment: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(comment.as_bytes());
    bytes.push(0);
    bytes
}

/// Puts rules first in somebody's chain, in this order, and removes those with these handles; all or none.
pub(crate) fn replace_first(
    netlink: &mut Netlink,
    family: Family,
    (table, chain): (&str, &str),
    comment: &str,
    gone: &[u64],
    rules: &[Vec<Attributes>],
) -> io::Result<()> {
    const NEW_RULE: u16 = 6;
    const DELETE_RULE: u16 = 8;
    let removed = gone
        .iter()
        .map(|handle| new(family, DELETE_RULE, 0).text(1, table).text(2, chain).with(3, &handle.to_be_bytes()));
    // Each comes before those that are there.
    let added = rules.iter().rev().map(|rule| {
        let new = new(family, NEW_RULE, CREATE).text(1, table).text(2, chain);
        new.nest(4, list(rule)).with(USERDATA, &remark(comment))
    });
    batch(netlink, removed.chain(added))
}

const USERDATA: u16 = 7;

fn list(expressions: &[Attributes]) -> Attributes {
    expressions.iter().fold(Attributes::default(), |list, one| list.nest(1, one.clone()))
}

fn message(table: &str, change: &Change) -> Message {
    let new = |kind: u16, flags: u16| new(Family::Inet, kind, flags);
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
            new(6, CREATE | APPEND).text(1, table).text(2, chain).nest(4, list(expressions))
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

/// Gives the connection this machine's address, with a port that is drawn: two connections that begin at once do not meet.
pub(crate) fn masquerade() -> Attributes {
    const FULLY_RANDOM: u32 = 1 << 4;
    expression("masq", Attributes::default().big(1, FULLY_RANDOM))
}

/// A match of iptables that nftables has no word for, in iptables' own form: its name, revision and bytes.
pub(crate) fn foreign_match(name: &str, revision: u32, bytes: &[u8]) -> Attributes {
    expression("match", Attributes::default().text(1, name).big(2, revision).with(3, bytes))
}

/// Counts what comes by; iptables expects one in each rule.
pub(crate) fn counter() -> Attributes {
    const BYTES: u16 = 1;
    const PACKETS: u16 = 2;
    let zero = 0_u64.to_be_bytes();
    expression("counter", Attributes::default().with(BYTES, &zero).with(PACKETS, &zero))
}

pub(crate) fn accept() -> Attributes {
    verdict(Attributes::default().big(1, 1))
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
