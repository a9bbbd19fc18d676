//! What upstream notices only while it starts.

use std::collections::BTreeMap;

use super::{Moment, Rules};
use crate::duration::Duration;
use crate::quantity::Amount;
use crate::quote::quoted;

const SIGNALS: [&str; 9] = [
    "memory.available",
    "allocatableMemory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "containerfs.available",
    "containerfs.inodesFree",
    "pid.available",
];

/// Names of cipher suites that exist.
const CIPHERS: [&str; 27] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

impl Rules<'_> {
    fn running(&mut self, field: &'static str, words: impl Into<String>) {
        self.refuse(field, Moment::Running, words.into());
    }
}

/// Addresses, TLS, and what callers may.
pub(super) fn server(rules: &mut Rules<'_>) {
    let server = &rules.config.server;
    for (field, address) in [("address", &server.address), ("healthzBindAddress", &server.healthz_bind_address)] {
        if address.parse::<std::net::IpAddr>().is_err() {
            let words = format!("Invalid value: {}: must be an IP address to listen on", quoted(address));
            rules.refuse(field, Moment::Never, words);
        }
    }
    let version = &server.tls_min_version;
    if !["", "VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"].contains(&version.as_str()) {
        let words = format!("unknown tls version {}", quoted(version));
        rules.refuse("tlsMinVersion", Moment::Dependencies, words);
    }
    for suite in &server.tls_cipher_suites {
        if !CIPHERS.contains(&suite.as_str()) {
            let words = format!("Cipher suite {suite} not supported or doesn't exist");
            rules.refuse("tlsCipherSuites", Moment::Dependencies, words);
        }
    }
    match server.authorization.mode.as_str() {
        "AlwaysAllow" | "Webhook" => {}
        "" => rules.running("authorization.mode", "no authorization mode specified"),
        other => rules.running("authorization.mode", format!("unknown authorization mode {other}")),
    }
}

/// Thresholds and grace periods.
pub(super) fn eviction(rules: &mut Rules<'_>) {
    let eviction = &rules.config.eviction;
    let mut found: Vec<(&'static str, String)> = Vec::new();
    let mut note = |field: &'static str, error: String, is_late: bool| {
        found.push((field, if is_late { format!("failed to create kubelet: {error}") } else { error }));
    };
    for (field, thresholds, is_late) in
        [("evictionHard", &eviction.hard.0, false), ("evictionSoft", &eviction.soft, true)]
    {
        for (signal, value) in thresholds {
            if let Err(error) = threshold(signal, value) {
                note(field, error, is_late);
            }
        }
    }
    for (signal, value) in &eviction.soft_grace_period {
        if let Err(error) = grace_period(signal, value) {
            note("evictionSoftGracePeriod", error, true);
        }
    }
    for (signal, value) in &eviction.minimum_reclaim {
        if let Err(error) = minimum_reclaim(signal, value) {
            note("evictionMinimumReclaim", error, true);
        }
    }
    for signal in eviction.soft.keys().filter(|signal| !eviction.soft_grace_period.contains_key(*signal)) {
        let error = format!("grace period must be specified for the soft eviction threshold {signal}");
        note("evictionSoft", error, true);
    }
    found.into_iter().for_each(|(field, words)| rules.running(field, words));
}

fn known(signal: &str) -> Result<(), String> {
    if SIGNALS.contains(&signal) { Ok(()) } else { Err(format!("unsupported eviction signal {signal}")) }
}

fn percent(text: &str) -> Option<Result<f64, String>> {
    let number = text.strip_suffix('%')?.trim_end_matches('%');
    let invalid = || format!("strconv.ParseFloat: parsing {}: invalid syntax", quoted(number));
    Some(number.parse::<f64>().map_err(|_| invalid()))
}

fn threshold(signal: &str, value: &str) -> Result<(), String> {
    known(signal)?;
    if let Some(percent) = percent(value) {
        return match percent? {
            percent if percent < 0.0 => Err(format!("eviction percentage threshold {signal} must be >= 0%: {value}")),
            percent if percent > 100.0 => {
                Err(format!("eviction percentage threshold {signal} must be <= 100%: {value}"))
            }
            _ => Ok(()),
        };
    }
    let amount = Amount::parse(value).map_err(|error| error.to_string())?;
    if amount <= Amount::ZERO {
        return Err(format!("eviction threshold {signal} must be positive: {amount}"));
    }
    Ok(())
}

fn grace_period(signal: &str, value: &str) -> Result<(), String> {
    known(signal)?;
    let period: Duration = value.parse().map_err(|error: crate::duration::DurationError| error.to_string())?;
    if period < Duration::ZERO {
        return Err(format!("invalid eviction grace period specified: {value}, must be a positive value"));
    }
    Ok(())
}

fn minimum_reclaim(signal: &str, value: &str) -> Result<(), String> {
    known(signal)?;
    if let Some(percent) = percent(value) {
        return match percent? {
            percent if percent <= 0.0 => {
                Err(format!("eviction percentage minimum reclaim {signal} must be positive: {value}"))
            }
            _ => Ok(()),
        };
    }
    let amount = Amount::parse(value).map_err(|error| error.to_string())?;
    if amount < Amount::ZERO {
        return Err(format!("negative eviction minimum reclaim specified for {signal}"));
    }
    Ok(())
}

/// What is kept for the system and for this program.
pub(super) fn reservations(rules: &mut Rules<'_>) {
    let resources = &rules.config.resources;
    let lists = [
        ("systemReserved", "system-reserved", &resources.system_reserved),
        ("kubeReserved", "kube-reserved", &resources.kube_reserved),
    ];
    for (field, flag, list) in lists {
        for (name, value) in list {
            if let Err(error) = reservation(name, value) {
                rules.running(field, format!("--{flag} value failed to parse: {error}"));
            }
        }
    }
    for name in rules.config.resources.qos_reserved.keys().filter(|name| *name != "memory") {
        let words = format!("--qos-reserved value failed to parse: cannot reserve {} resource", quoted(name));
        rules.running("qosReserved", words);
    }
}

fn reservation(name: &str, value: &str) -> Result<(), String> {
    let said = quoted(name);
    if !["cpu", "memory", "ephemeral-storage", "pid"].contains(&name) {
        return Err(format!("cannot reserve {said} resource"));
    }
    let amount = Amount::parse(value)
        .map_err(|error| format!("failed to parse quantity {} for {said} resource: {error}", quoted(value)))?;
    if amount < Amount::ZERO {
        return Err(format!("resource quantity for {said} cannot be negative: {value}"));
    }
    Ok(())
}

/// Policies of the managers, and the cgroup driver.
pub(super) fn policies(rules: &mut Rules<'_>) {
    let resources = &rules.config.resources;
    let cpu = &resources.cpu_manager_policy;
    match cpu.as_str() {
        "none" if !resources.cpu_manager_policy_options.is_empty() => {
            let words = format!(
                "new none policy error: None policy: received unsupported options={}",
                shown(&resources.cpu_manager_policy_options)
            );
            rules.running("cpuManagerPolicyOptions", words);
        }
        "none" | "static" => {}
        other => rules.running("cpuManagerPolicy", format!("unknown policy: {}", quoted(other))),
    }
    let memory = &resources.memory_manager_policy;
    if !["None", "Static"].contains(&memory.as_str()) {
        rules.running("memoryManagerPolicy", format!("unknown policy: {}", quoted(memory)));
    }
    if resources.topology_manager_policy == "none" && !resources.topology_manager_policy_options.is_empty() {
        let said = shown(&resources.topology_manager_policy_options);
        rules.doubt(
            "topologyManagerPolicyOptions",
            format!("topologyManagerPolicy none takes no options, ignored: {said}"),
        );
    }
    if !["cgroupfs", "systemd"].contains(&resources.cgroup_driver.as_str()) {
        let words = format!(
            r#"cgroupDriver {} is neither "cgroupfs" nor "systemd"; "cgroupfs" is used unless the runtime says otherwise"#,
            quoted(&resources.cgroup_driver)
        );
        rules.doubt("cgroupDriver", words);
    }
}

/// A map as Go shows it.
fn shown(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    format!("map[{}]", pairs.join(" "))
}

/// Sizes, names and addresses.
pub(super) fn texts(rules: &mut Rules<'_>) {
    let size = &rules.config.logs.container_max_size;
    if let Err(error) = Amount::parse(size) {
        let words = format!(
            "failed to create kubelet: failed to initialize container log manager: failed to parse container log max size {}: {error}",
            quoted(size)
        );
        rules.running("containerLogMaxSize", words);
    }
    for pattern in &rules.config.runtime.allowed_unsafe_sysctls {
        if !is_sysctl_pattern(pattern) {
            let words = format!(
                r"failed to create kubelet: sysctl {} must have at most 253 characters and match regex ([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*([a-z0-9][-_a-z0-9]*)?[a-z0-9*]",
                quoted(pattern)
            );
            rules.running("allowedUnsafeSysctls", words);
        } else if !is_namespaced(pattern) {
            let name = pattern.strip_suffix('*').unwrap_or(pattern).replace('/', ".");
            let words =
                format!("failed to create kubelet: the sysctls {} are not known to be namespaced", quoted(&name));
            rules.running("allowedUnsafeSysctls", words);
        }
    }
    for server in &rules.config.network.cluster_dns {
        if server.parse::<std::net::IpAddr>().is_err() {
            rules.doubt("clusterDNS", format!("clusterDNS: {} is no IP address and is left out", quoted(server)));
        }
    }
    let strategy = &rules.config.pods.change_detection;
    if !["Get", "Cache", "Watch"].contains(&strategy.as_str()) {
        let words = format!("unknown configmap and secret manager mode: {strategy}");
        rules.running("configMapAndSecretChangeDetectionStrategy", format!("failed to create kubelet: {words}"));
    }
}

/// `([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*([a-z0-9][-_a-z0-9]*)?[a-z0-9*]`, at most 253 bytes.
fn is_sysctl_pattern(text: &str) -> bool {
    const LONGEST: usize = 253;
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = |b: &u8| edge(b) || matches!(b, b'-' | b'_');
    let mut segments: Vec<&str> = text.split(['.', '/']).collect();
    let last = segments.pop().unwrap_or_default().as_bytes();
    let is_segment = |one: &&str| {
        let bytes = one.as_bytes();
        bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge) && bytes.iter().all(inner)
    };
    let is_last = match last.split_last() {
        Some((end, start)) => (edge(end) || *end == b'*') && start.first().is_none_or(edge) && start.iter().all(inner),
        None => false,
    };
    text.len() <= LONGEST && is_last && segments.iter().all(is_segment)
}

/// Whether a pod has its own of these, as far as is known.
fn is_namespaced(pattern: &str) -> bool {
    let name = pattern.replace('/', ".");
    let name = name.strip_suffix('*').unwrap_or(&name);
    name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue.", "net."].iter().any(|own| name.starts_with(own))
}
