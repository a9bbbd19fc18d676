//! The files of a pod that name resolution reads.

use rubelet_proto::cri::DnsConfig;

/// `/etc/resolv.conf` of a pod; `None`: as the host has it. Lines in the order in which containerd writes them.
pub(crate) fn resolv_conf(dns: Option<&DnsConfig>) -> Option<String> {
    let dns = dns.filter(|d| !d.servers.is_empty() || !d.searches.is_empty() || !d.options.is_empty())?;
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_own_or_the_hosts() {
        assert_eq!(resolv_conf(None), None);
        assert_eq!(resolv_conf(Some(&DnsConfig::default())), None);
        let strings = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let dns = DnsConfig {
            servers: strings(&["10.0.0.1", "10.0.0.2"]),
            searches: strings(&["a.b", "c"]),
            options: strings(&["ndots:5"]),
        };
        assert_eq!(
            resolv_conf(Some(&dns)).unwrap(),
            "search a.b c\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:5\n"
        );
    }
}
