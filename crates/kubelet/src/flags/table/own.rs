//! Flags without a field in the configuration.

use super::{Flag, Kind, Notice};

const REMOVED_IN_1_25: Notice = Notice::Own("will be removed in 1.25 or later.");
const REMOVED_FOR_CSI: Notice = Notice::Own("will be removed in 1.25 or later. in favor of using CSI.");
const EVICTION_INSTEAD: Notice =
    Notice::Own("Use --eviction-hard or --eviction-soft instead. Will be removed in a future version.");

pub(super) const FLAGS: &[Flag] = &[
    Flag::own(
        "bootstrap-kubeconfig",
        Kind::Text,
        "",
        "Kubeconfig with which to ask for a client certificate while the file of --kubeconfig does not exist.",
    ),
    Flag::own(
        "cert-dir",
        Kind::Text,
        "/var/lib/kubelet/pki",
        "Directory of the TLS certificates. Not used for serving when --tls-cert-file and --tls-private-key-file are given.",
    ),
    Flag::own("cloud-provider", Kind::Text, "", "Either empty or 'external', when a cloud provider runs elsewhere."),
    Flag::own(
        "config",
        Kind::Text,
        "",
        "Configuration file. Relative paths start at the working directory. Without it the older, less strict defaults of the flags apply.",
    ),
    Flag::own(
        "config-dir",
        Kind::Text,
        "",
        "Directory of drop-ins (*.conf), merged over --config in the order of their paths.",
    ),
    Flag::own(
        "exit-on-lock-contention",
        Kind::Bool,
        "",
        "Whether to exit when someone else opens the file of --lock-file.",
    ),
    Flag::own(
        "experimental-allocatable-ignore-eviction",
        Kind::Bool,
        "",
        "When true, hard eviction thresholds are not subtracted from what the node offers.",
    )
    .notice(REMOVED_IN_1_25),
    Flag::own("experimental-mounter-path", Kind::Text, "", "Program to use instead of mount.").notice(REMOVED_FOR_CSI),
    Flag::own("help", Kind::Bool, "", "Show this text.").short('h'),
    Flag::own("hostname-override", Kind::Text, "", "Name of the node, instead of the host's name."),
    Flag::own(
        "housekeeping-interval",
        Kind::Duration,
        "10s",
        "Time between two readings of the containers' statistics.",
    ),
    Flag::own(
        "image-credential-provider-bin-dir",
        Kind::Text,
        "",
        "Directory of the credential provider plugins' programs.",
    ),
    Flag::own(
        "image-credential-provider-config",
        Kind::Text,
        "",
        "Configuration file of the credential provider plugins, or a directory of such files.",
    ),
    Flag::own(
        "kubeconfig",
        Kind::Text,
        "",
        "Kubeconfig that says how to reach the API server. Without it, the node is standalone.",
    ),
    Flag::own("lock-file", Kind::Text, "", "File to hold a lock on while running."),
    Flag::own(
        "maximum-dead-containers",
        Kind::Int32,
        "-1",
        "How many dead containers the node may keep; negative: any number.",
    )
    .notice(EVICTION_INSTEAD),
    Flag::own(
        "maximum-dead-containers-per-container",
        Kind::Int32,
        "1",
        "How many dead instances of one container to keep.",
    )
    .notice(EVICTION_INSTEAD),
    Flag::own("minimum-container-ttl-duration", Kind::Duration, "", "How old a dead container must be to be removed.")
        .notice(EVICTION_INSTEAD),
    Flag::own(
        "node-ip",
        Kind::Text,
        "",
        "Address of the node, or two of different families, comma-separated. '0.0.0.0' and '::' choose the family only.",
    ),
    Flag::own(
        "node-labels",
        Kind::LooseMap,
        "",
        "Labels to give the node when it registers: key=value pairs, comma-separated.",
    ),
    Flag::own(
        "root-dir",
        Kind::Text,
        "/var/lib/kubelet",
        "Directory of the pods' volumes and of the node's own files.",
    ),
    Flag::own("runtime-cgroups", Kind::Text, "", "Absolute name of the cgroup in which the container runtime runs."),
    Flag::own(
        "seccomp-default",
        Kind::Bool,
        "",
        "Use the profile `RuntimeDefault` for every workload that names no seccomp profile.",
    ),
    Flag::own(
        "version",
        Kind::Version,
        "",
        "Show the version and exit; --version=raw shows all that is known of the build.",
    ),
];
