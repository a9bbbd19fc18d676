//! Host names, DNS and `/etc/hosts` of a pod.

use super::{all_invalid, names};
use crate::pod::validate::Gates;
use crate::problem::{Path, Problems};
use crate::v1;

/// What a resolver takes at most.
const NAMESERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_CHARACTERS: usize = 2048;
/// Longest host name that Linux takes, bytes.
const HOSTNAME: usize = 64;

pub(super) fn validate(spec: &v1::PodSpec, gates: Gates, path: &Path, problems: &mut Problems) {
    hostnames(spec, gates, path, problems);
    let policy = spec.dns_policy.as_deref().unwrap_or_default();
    const POLICIES: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    super::one_of(policy, &POLICIES, &path.field("dnsPolicy"), problems);
    let servers = spec.dns_config.as_ref().and_then(|config| config.nameservers.as_ref()).map_or(0, Vec::len);
    if policy == "None" && servers == 0 {
        problems.required(
            &path.at("dnsConfig.nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    if let Some(config) = &spec.dns_config {
        dns_config(config, &path.field("dnsConfig"), problems);
    }
    for (nth, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.field("hostAliases").index(nth);
        if let Some(why) = names::ip(&alias.ip) {
            problems.invalid(&path.field("ip"), &alias.ip, why);
        }
        for (name_nth, name) in alias.hostnames.iter().flatten().enumerate() {
            all_invalid(name, names::subdomain(name), &path.field("hostnames").index(name_nth), problems);
        }
    }
}

fn hostnames(spec: &v1::PodSpec, gates: Gates, path: &Path, problems: &mut Problems) {
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            all_invalid(name, names::label(name), &path.field(field), problems);
        }
    }
    let Some(name) = spec.hostname_override.as_deref() else { return };
    let path_name = path.field("hostnameOverride");
    if !gates.hostname_override {
        problems.forbidden(&path_name, "needs the feature gate HostnameOverride");
        return;
    }
    all_invalid(name, names::subdomain(name), &path_name, problems);
    if name.len() > HOSTNAME {
        problems.too_long(&path_name, HOSTNAME);
    }
    if spec.host_network == Some(true) {
        problems.forbidden(&path_name, "may not be specified when `hostNetwork` is true");
    }
    if spec.set_hostname_as_fqdn == Some(true) {
        problems.forbidden(&path.field("setHostnameAsFQDN"), "may not be true when `hostnameOverride` is specified");
    }
}

fn dns_config(config: &v1::PodDNSConfig, path: &Path, problems: &mut Problems) {
    let servers = config.nameservers.as_deref().unwrap_or_default();
    if servers.len() > NAMESERVERS {
        let detail = format!("must not have more than {NAMESERVERS} nameservers");
        problems.invalid(&path.field("nameservers"), &servers.len(), &detail);
    }
    for (nth, server) in servers.iter().enumerate() {
        if let Some(why) = names::ip(server) {
            problems.invalid(&path.field("nameservers").index(nth), server, why);
        }
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > SEARCHES {
        let detail = format!("must not have more than {SEARCHES} search paths");
        problems.invalid(&path.field("searches"), &searches.len(), &detail);
    }
    let characters = searches.iter().map(String::len).sum::<usize>() + searches.len().saturating_sub(1);
    if characters > SEARCH_CHARACTERS {
        let detail =
            format!("must not have more than {SEARCH_CHARACTERS} characters (including spaces) in the search list");
        problems.invalid(&path.field("searches"), &characters, &detail);
    }
    for (nth, search) in searches.iter().enumerate() {
        all_invalid(search, names::search_domain(search), &path.field("searches").index(nth), problems);
    }
    for (nth, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            problems.required(&path.field("options").index(nth), "must not be empty");
        }
    }
}
