//! Names and packets.

use super::field::section;

section! {
    /// Names and packets.
    Network as "KubeletConfiguration" {
        /// Servers for names of pods with `ClusterFirst`.
        "clusterDNS" cluster_dns: plain Vec<String>;
        /// Their domain.
        "clusterDomain" cluster_domain: plain String;
        /// The node's own resolver; none when empty.
        "resolvConf" resolv_conf: pointer String = "/etc/resolv.conf";
        /// `promiscuous-bridge`, `hairpin-veth` or `none`.
        "hairpinMode" hairpin_mode: plain String = "promiscuous-bridge";
        /// Whether the hint and the firewall chains are kept.
        "makeIPTablesUtilChains" make_iptables_util_chains: pointer bool = true;
        /// No effect.
        "iptablesMasqueradeBit" iptables_masquerade_bit: pointer i32 = 14;
        /// No effect.
        "iptablesDropBit" iptables_drop_bit: pointer i32 = 15;
    }
}
