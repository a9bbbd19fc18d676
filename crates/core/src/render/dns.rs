//! The pod's `resolv.conf`, and what is wrong with it.

use std::net::IpAddr;

use rubelet_api::v1;
use rubelet_proto::cri;

use super::{full_name, is_host_network, namespace};
use crate::node::{DnsFacts, HostResolvConf, NodeFacts};

/// Most name servers that resolvers use.
const SERVERS_MAX: usize = 3;
/// Most search domains.
const SEARCHES_MAX: usize = 32;
/// Those that pods of a cluster search before the host's.
const OF_CLUSTER: usize = 3;
/// Longest search line in characters.
const SEARCH_LINE_LEN_MAX: usize = 2048;
/// Longest search domain: longer ones abort some resolvers.
const SEARCH_LEN_MAX: usize = 253;

/// Something that users should hear of: an event of type `Warning`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsProblem {
    /// `MissingClusterDNS`, `DNSConfigForming`, or of the node `CheckLimitsForResolvConf`.
    pub reason: &'static str,
    pub message: String,
}

/// A pod's name service settings and what was left out of them.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Dns {
    pub config: cri::DnsConfig,
    pub problems: Vec<DnsProblem>,
}

/// What a `resolv.conf` says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResolvConf {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// Where a pod's settings come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    Cluster,
    Host,
    Nowhere,
}

/// The pod's settings by `dnsPolicy` and `dnsConfig`.
pub fn dns(pod: &v1::Pod, node: &NodeFacts) -> Dns {
    let mut problems = Vec::new();
    let mut config = match origin(pod, node, &mut problems) {
        Origin::Nowhere => cri::DnsConfig::default(),
        Origin::Host => host(node),
        Origin::Cluster => cluster(pod, node),
    };
    if let Some(own) = pod.spec.as_ref().and_then(|s| s.dns_config.as_ref()) {
        config.servers = without_repeats(config.servers.into_iter().chain(own.nameservers.iter().flatten().cloned()));
        config.searches = without_repeats(config.searches.into_iter().chain(own.searches.iter().flatten().cloned()));
        merge_options(&mut config.options, own.options.iter().flatten());
    }
    fit(&mut config, &mut problems);
    Dns { config, problems }
}

/// Reads a `resolv.conf`: the last `search` line counts; trailing dots are taken off.
pub fn parse_resolv_conf(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for line in text.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => conf.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                conf.searches =
                    words.map(|s| if s == "." { s } else { s.strip_suffix('.').unwrap_or(s) }.to_owned()).collect();
            }
            Some("options") => {
                for option in words {
                    let name = option.split(':').next().unwrap_or(option);
                    conf.options.retain(|o| o.split(':').next() != Some(name));
                    conf.options.push(option.to_owned());
                }
            }
            _ => {}
        }
    }
    conf
}

/// A file that cannot be read says nothing.
fn read(file: &HostResolvConf) -> ResolvConf {
    file.content.as_deref().map(parse_resolv_conf).unwrap_or_default()
}

/// What is wrong with the host's own file, whatever pods make of it. kubelet 1.36: the first that is.
pub fn host_problem(dns: &DnsFacts) -> Option<DnsProblem> {
    let file = dns.host_resolv_conf.as_ref()?;
    let problem = |message: String| Some(DnsProblem { reason: "CheckLimitsForResolvConf", message });
    let path = &file.path;
    let searches = match &file.content {
        Err(why) => return problem(why.clone()),
        Ok(text) => parse_resolv_conf(text).searches,
    };
    let most = if dns.cluster_domain.is_empty() { SEARCHES_MAX } else { SEARCHES_MAX - OF_CLUSTER };
    if searches.len() > most {
        return problem(format!(
            "Resolv.conf file '{path}' contains search line consisting of more than {most} domains!"
        ));
    }
    if searches.iter().any(|s| s.len() > SEARCH_LEN_MAX) {
        return problem(format!(
            "Resolv.conf file {path:?} contains a search path which length is more than allowed {SEARCH_LEN_MAX} chars!"
        ));
    }
    if searches.join(" ").len() > SEARCH_LINE_LEN_MAX {
        return problem(format!(
            "Resolv.conf file '{path}' contains search line which length is more than allowed {SEARCH_LINE_LEN_MAX} chars!"
        ));
    }
    None
}

fn origin(pod: &v1::Pod, node: &NodeFacts, problems: &mut Vec<DnsProblem>) -> Origin {
    let policy = pod.spec.as_ref().and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let wanted = match policy {
        "None" => Origin::Nowhere,
        "Default" => Origin::Host,
        "ClusterFirst" if is_host_network(pod) => Origin::Host,
        _ => Origin::Cluster,
    };
    if wanted == Origin::Cluster && node.dns.cluster_servers.is_empty() {
        problems.push(DnsProblem {
            reason: "MissingClusterDNS",
            message: format!(
                "pod: {:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy.",
                full_name(pod)
            ),
        });
        return Origin::Host;
    }
    wanted
}

fn host(node: &NodeFacts) -> cri::DnsConfig {
    let Some(file) = &node.dns.host_resolv_conf else {
        let mut servers: Vec<String> = node.ips.iter().map(|ip| loopback(*ip).to_owned()).collect();
        if servers.is_empty() {
            servers.push("127.0.0.1".to_owned());
        }
        return cri::DnsConfig { servers, searches: vec![".".to_owned()], options: Vec::new() };
    };
    let ResolvConf { servers, searches, options } = read(file);
    cri::DnsConfig { servers, searches, options }
}

fn loopback(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "127.0.0.1",
        IpAddr::V6(_) => "::1",
    }
}

fn cluster(pod: &v1::Pod, node: &NodeFacts) -> cri::DnsConfig {
    let domain = &node.dns.cluster_domain;
    let of_host = node.dns.host_resolv_conf.as_ref().map(read).unwrap_or_default().searches;
    let of_cluster = if domain.is_empty() {
        Vec::new()
    } else {
        vec![format!("{}.svc.{domain}", namespace(pod)), format!("svc.{domain}"), domain.clone()]
    };
    cri::DnsConfig {
        servers: node.dns.cluster_servers.clone(),
        searches: without_repeats(of_cluster.into_iter().chain(of_host)),
        options: vec!["ndots:5".to_owned()],
    }
}

/// An option of the same name is replaced, others are appended.
fn merge_options<'a>(options: &mut Vec<String>, own: impl Iterator<Item = &'a v1::PodDNSConfigOption>) {
    for option in own {
        let name = option.name.as_deref().unwrap_or_default();
        let text = match option.value.as_deref() {
            None | Some("") => name.to_owned(),
            Some(value) => format!("{name}:{value}"),
        };
        match options.iter_mut().find(|o| o.split(':').next() == Some(name)) {
            Some(known) => *known = text,
            None => options.push(text),
        }
    }
}

fn fit(config: &mut cri::DnsConfig, problems: &mut Vec<DnsProblem>) {
    let forming = |message: String| DnsProblem { reason: "DNSConfigForming", message };
    if config.servers.len() > SERVERS_MAX {
        config.servers.truncate(SERVERS_MAX);
        problems.push(forming(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            config.servers.join(" ")
        )));
    }
    let before = config.searches.len();
    config.searches.truncate(SEARCHES_MAX);
    config.searches.retain(|s| s.len() <= SEARCH_LEN_MAX);
    while config.searches.join(" ").len() > SEARCH_LINE_LEN_MAX {
        config.searches.pop();
    }
    if config.searches.len() < before {
        problems.push(forming(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            config.searches.join(" ")
        )));
    }
}

fn without_repeats(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}
