//! Other people's firewalls. Accepting a packet in our own table does not keep another table from dropping it, so the pods' way through
//! is opened where Docker, iptables and firewalld have their rules for what this machine forwards:
//!
//! - `ip filter` and `ip6 filter`, which are those of iptables (nft variant): the chain `DOCKER-USER` if it is there (Docker never
//!   touches its content), otherwise `FORWARD` if it drops by default;
//! - `inet firewalld`, chain `filter_FORWARD`, unless firewalld keeps its table for itself.
//!
//! Pods may begin connections to anywhere; to pods come the answers, and what was redirected to them by a host port. Who wants to
//! forbid more has the chains of others before ours, or network policies.
//!
//! The rules are looked for each time the network is asked whether it is ready, because their owners start later and start anew.
//! They are written so that iptables can read them: a rule that it cannot makes it refuse the whole table. What the legacy variant of
//! iptables has is not seen here.

use std::io;

use rubelet_host::netlink::{Attributes, Netlink};

use crate::nft::{self, Family, IIFNAME, OIFNAME, VALUE};

/// Tables of others.
const PLACES: [(Family, &str); 3] = [(Family::Ip, "filter"), (Family::Ip6, "filter"), (Family::Inet, "firewalld")];
const DOCKER: &str = "DOCKER-USER";
const FORWARD: &str = "FORWARD";
const FIREWALLD: &str = "filter_FORWARD";

/// The chain of a table in which our rules have to be; `None` where none is needed.
fn chain(netlink: &mut Netlink, family: Family, table: &str) -> io::Result<Option<&'static str>> {
    if family == Family::Inet {
        return Ok(nft::chain(netlink, family, table, FIREWALLD)?.map(|_| FIREWALLD));
    }
    if nft::chain(netlink, family, table, DOCKER)?.is_some() {
        return Ok(Some(DOCKER));
    }
    Ok(nft::chain(netlink, family, table, FORWARD)?.filter(|drops| *drops).map(|_| FORWARD))
}

/// Opens what is shut. Every place is tried; the first failure is told, with its place.
pub(crate) fn open(netlink: &mut Netlink, bridge: &str, comment: &str) -> Result<(), (String, io::Error)> {
    let mut failure = None;
    for (family, table) in PLACES {
        let opened = chain(netlink, family, table).and_then(|chain| match chain {
            Some(chain) => ensure(netlink, family, (table, chain), bridge, comment),
            None => Ok(()),
        });
        if let Err(error) = opened {
            failure.get_or_insert((format!("{family:?} {table}").to_lowercase(), error));
        }
    }
    failure.map_or(Ok(()), Err)
}

fn ensure(netlink: &mut Netlink, family: Family, chain: (&str, &str), bridge: &str, comment: &str) -> io::Result<()> {
    let rules = rules(family, bridge);
    let there = nft::rules_with(netlink, family, chain, comment)?;
    if there.len() == rules.len() {
        return Ok(());
    }
    nft::replace_first(netlink, family, chain, comment, &there, &rules)
}

/// Takes our rules out of all chains.
pub(crate) fn close(netlink: &mut Netlink, comment: &str) -> io::Result<()> {
    for (family, table) in PLACES {
        for chain in [DOCKER, FORWARD, FIREWALLD] {
            let gone = nft::rules_with(netlink, family, (table, chain), comment)?;
            nft::replace_first(netlink, family, (table, chain), comment, &gone, &[])?;
        }
    }
    Ok(())
}

fn rules(family: Family, bridge: &str) -> Vec<Vec<Attributes>> {
    // iptables compares a name with its final zero and no further.
    let mut name = bridge.as_bytes().to_vec();
    name.push(0);
    let is_bridge = |key| [nft::meta(key, VALUE), nft::compare(VALUE, true, &name)];
    let mut from_pods = is_bridge(IIFNAME).to_vec();
    from_pods.extend([nft::counter(), nft::accept()]);
    if family == Family::Inet {
        // firewalld lets answers and what was redirected pass by itself.
        return vec![from_pods];
    }
    let mut to_pods = is_bridge(OIFNAME).to_vec();
    to_pods.extend([nft::foreign_match("conntrack", 3, &answers_and_redirected()), nft::counter(), nft::accept()]);
    vec![from_pods, to_pods]
}

/// `-m conntrack --ctstate RELATED,ESTABLISHED,DNAT` as iptables gives it to the kernel: `struct xt_conntrack_mtinfo3`.
fn answers_and_redirected() -> Vec<u8> {
    const LENGTH: usize = 168;
    const FLAGS_AT: usize = 146;
    const STATES_AT: usize = 150;
    const IS_STATE: u16 = 1 << 0;
    const ESTABLISHED: u16 = 1 << 1;
    const RELATED: u16 = 1 << 2;
    const DNAT: u16 = 1 << 7;
    let mut bytes = vec![0; LENGTH];
    bytes[FLAGS_AT..FLAGS_AT + 2].copy_from_slice(&IS_STATE.to_ne_bytes());
    bytes[STATES_AT..STATES_AT + 2].copy_from_slice(&(ESTABLISHED | RELATED | DNAT).to_ne_bytes());
    bytes
}
