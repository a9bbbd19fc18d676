//! Flags that upstream inherited from cAdvisor.

use super::{Flag, Kind};

pub(super) const FLAGS: &[Flag] = &[
    Flag::cadvisor(
        "application-metrics-count-limit",
        Kind::Int64,
        "100",
        "Largest number of metrics kept of one container's application.",
    ),
    Flag::cadvisor(
        "boot-id-file",
        Kind::Text,
        "/proc/sys/kernel/random/boot_id",
        "Files to look for the boot id in, comma-separated; the first that exists counts.",
    ),
    Flag::cadvisor("container-hints", Kind::Text, "/etc/cadvisor/container_hints.json", "File of container hints."),
    Flag::cadvisor("containerd", Kind::Text, "/run/containerd/containerd.sock", "Socket of containerd."),
    Flag::cadvisor("containerd-namespace", Kind::Text, "k8s.io", "Namespace of containerd."),
    Flag::cadvisor("enable-load-reader", Kind::Bool, "", "Whether to read the CPU load."),
    Flag::cadvisor("event-storage-age-limit", Kind::Text, "default=0", "How long events are kept, per type."),
    Flag::cadvisor("event-storage-event-limit", Kind::Text, "default=0", "How many events are kept, per type."),
    Flag::cadvisor(
        "global-housekeeping-interval",
        Kind::Duration,
        "1m0s",
        "Time between two readings of the whole host.",
    ),
    Flag::cadvisor("log-cadvisor-usage", Kind::Bool, "", "Whether to log what the statistics cost."),
    Flag::cadvisor(
        "machine-id-file",
        Kind::Text,
        "/etc/machine-id,/var/lib/dbus/machine-id",
        "Files to look for the machine id in, comma-separated; the first that exists counts.",
    ),
    Flag::cadvisor(
        "storage-driver-buffer-duration",
        Kind::Duration,
        "1m0s",
        "How long to hold back writes to the storage.",
    ),
    Flag::cadvisor("storage-driver-db", Kind::Text, "cadvisor", "Name of the storage's database."),
    Flag::cadvisor("storage-driver-host", Kind::Text, "localhost:8086", "Host and port of the storage."),
    Flag::cadvisor("storage-driver-password", Kind::Text, "root", "Password at the storage."),
    Flag::cadvisor("storage-driver-secure", Kind::Bool, "", "Whether to reach the storage by TLS."),
    Flag::cadvisor("storage-driver-table", Kind::Text, "stats", "Name of the storage's table."),
    Flag::cadvisor("storage-driver-user", Kind::Text, "root", "User at the storage."),
];
