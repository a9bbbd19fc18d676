//! Flags of the embedded runtime. Under the name `kubelet` there are none of them: upstream's command line has none.

use super::{Flag, Kind};

/// Whether it is one of these.
pub(super) fn has(name: &str) -> bool {
    FLAGS.iter().any(|flag| flag.name == name)
}

pub(super) const FLAGS: &[Flag] = &[
    Flag::own("all", Kind::Bool, "", "For the command stop: all pods."),
    Flag::own(
        "embedded-hosts-dirs",
        Kind::Text,
        "/etc/rubelet/certs.d,/etc/containerd/certs.d",
        "Comma-separated directories with a hosts.toml for each registry: mirrors, certificates. The first that has one counts.",
    ),
    Flag::own(
        "embedded-import-dir",
        Kind::Text,
        "/var/lib/rubelet/import",
        "Directory of image archives (docker save, OCI; .tar, .tar.gz, .tar.zst) that are imported at the start and kept. It may be missing.",
    ),
    Flag::own(
        "embedded-pod-cidrs",
        Kind::Text,
        "",
        "Comma-separated subnets of the built-in network, at most one of IPv4 and one of IPv6. It is used when /etc/cni/net.d configures no other.",
    ),
    Flag::own(
        "embedded-root-dir",
        Kind::Text,
        "/var/lib/rubelet",
        "Directory for what outlives a boot: images, records of pods, addresses.",
    ),
    Flag::own(
        "embedded-run-dir",
        Kind::Text,
        "/run/rubelet",
        "Directory for what does not: the pods' mounts and namespaces, sockets. To be on a tmpfs, as environment variables are in it.",
    ),
    Flag::own(
        "listen",
        Kind::Text,
        "unix:///run/rubelet/cri.sock",
        "For the command cri: the socket on which the embedded runtime is served.",
    ),
    Flag::own(
        "oci-runtime",
        Kind::Text,
        "",
        "OCI runtime that creates containers, such as runc or crun: a path, or a name to be found in PATH. Without one the embedded runtime does it itself.",
    ),
    Flag::own(
        "runtime-handler",
        Kind::Map,
        "",
        "NAME=OCI-RUNTIME: a runtime handler that pods may ask for by their RuntimeClass. May be given several times; the word embedded names the embedded runtime itself.",
    ),
];
