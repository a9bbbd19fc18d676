//! CRI's words to ours: the only place that reads CRI states.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use rubelet_api::ids::{ContainerId, ContainerName, SandboxId};
use rubelet_api::v1;
use rubelet_core::pod::observed::ObservedResources;
use rubelet_core::pod::{ContainerState, ObservedContainer, ObservedSandbox};
use rubelet_proto::cri;

const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const HASH: &str = "io.kubernetes.container.hash";

/// A sandbox as the runtime shows it. Addresses that are not addresses are left out.
pub fn sandbox(status: &cri::PodSandboxStatus) -> ObservedSandbox {
    let network = status.network.as_ref();
    let ips = network
        .into_iter()
        .flat_map(|n| std::iter::once(&n.ip).chain(n.additional_ips.iter().map(|a| &a.ip)))
        .filter_map(|ip| ip.parse::<IpAddr>().ok())
        .collect();
    let options = status.linux.as_ref().and_then(|l| l.namespaces.as_ref()).and_then(|n| n.options.as_ref());
    ObservedSandbox {
        id: SandboxId::new(&status.id),
        attempt: status.metadata.as_ref().map_or(0, |m| m.attempt),
        is_ready: status.state == cri::PodSandboxState::SandboxReady as i32,
        created_at: time(status.created_at),
        ips,
        is_host_network: options.is_some_and(|o| o.network == cri::NamespaceMode::Node as i32),
    }
}

/// A container as the runtime shows it; the termination message is the runtime's own.
pub fn container(status: &cri::ContainerStatus, sandbox: &str) -> ObservedContainer {
    let metadata = status.metadata.clone().unwrap_or_default();
    let annotated = status.annotations.get(RESTART_COUNT).and_then(|v| v.parse().ok());
    ObservedContainer {
        id: ContainerId::new(&status.id),
        name: ContainerName::new(name(&status.labels, &metadata.name)),
        sandbox: SandboxId::new(sandbox),
        restart_count: annotated.unwrap_or(metadata.attempt),
        hash: status.annotations.get(HASH).and_then(|h| u32::from_str_radix(h, 16).ok()),
        created_at: time(status.created_at),
        state: state(status),
        image: status.image.as_ref().map(|i| i.image.clone()).unwrap_or_default(),
        image_ref: status.image_ref.clone(),
        user: status.user.as_ref().and_then(user),
        resources: status.resources.as_ref().and_then(|r| r.linux.as_ref()).map(resources),
        stop_signal: stop_signal(status.stop_signal),
        recursive_read_only: status.mounts.iter().map(|m| (m.container_path.clone(), m.recursive_read_only)).collect(),
    }
}

/// What the runtime will tell again of a container that it is asked for.
pub fn wanted(config: &cri::ContainerConfig) -> cri::ContainerStatus {
    cri::ContainerStatus {
        metadata: config.metadata.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        image: config.image.clone(),
        ..Default::default()
    }
}

/// A container that was made then, and is not started.
pub fn made(id: &ContainerId, wanted: cri::ContainerStatus, sandbox: &SandboxId, at: Timestamp) -> ObservedContainer {
    let state = cri::ContainerState::ContainerCreated.into();
    let seen = container(&cri::ContainerStatus { id: id.to_string(), state, ..wanted }, sandbox.as_str());
    ObservedContainer { created_at: at, ..seen }
}

fn name<'a>(labels: &'a BTreeMap<String, String>, fallback: &'a str) -> &'a str {
    labels.get(super::CONTAINER_LABEL).map_or(fallback, String::as_str)
}

fn state(status: &cri::ContainerStatus) -> ContainerState {
    match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(cri::ContainerState::ContainerRunning) => ContainerState::Running { started_at: time(status.started_at) },
        Ok(cri::ContainerState::ContainerExited) => ContainerState::Exited {
            started_at: (status.started_at != 0).then(|| time(status.started_at)),
            finished_at: time(status.finished_at),
            code: status.exit_code,
            reason: status.reason.clone(),
            message: status.message.clone(),
        },
        Ok(cri::ContainerState::ContainerUnknown) | Err(_) => ContainerState::Unknown,
    }
}

fn user(user: &cri::ContainerUser) -> Option<v1::ContainerUser> {
    let linux = user.linux.as_ref()?;
    Some(v1::ContainerUser {
        linux: Some(v1::LinuxContainerUser {
            uid: linux.uid,
            gid: linux.gid,
            supplemental_groups: (!linux.supplemental_groups.is_empty()).then(|| linux.supplemental_groups.clone()),
        }),
    })
}

fn resources(linux: &cri::LinuxContainerResources) -> ObservedResources {
    ObservedResources {
        cpu_period: linux.cpu_period,
        cpu_quota: linux.cpu_quota,
        cpu_shares: linux.cpu_shares,
        memory_limit_bytes: linux.memory_limit_in_bytes,
    }
}

fn stop_signal(number: i32) -> Option<String> {
    match cri::Signal::try_from(number) {
        Ok(cri::Signal::RuntimeDefault) | Err(_) => None,
        Ok(signal) => Some(signal.as_str_name().to_owned()),
    }
}

/// Nanoseconds since 1970 as CRI counts; out of range becomes 1970.
pub fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What verbose status tells beyond the status (`info["info"]` is JSON; containerd and CRI-O use the same names).
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
pub struct Verbose {
    /// Pid of the first process; 0 when it does not run.
    #[serde(default)]
    pub pid: u32,
    /// The sandbox that the container belongs to.
    #[serde(default, rename = "sandboxID")]
    pub sandbox: String,
}

/// Reads the verbose part of a container's status; empty when the runtime gives none.
pub fn verbose(info: &BTreeMap<String, String>) -> Verbose {
    info.get("info").and_then(|text| serde_json::from_slice(text.as_bytes()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_made_is_what_the_runtime_will_tell() {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "web".to_owned(), attempt: 3 }),
            labels: [label(super::super::CONTAINER_LABEL, "web")].into(),
            annotations: [label(RESTART_COUNT, "3"), label(HASH, "1f")].into(),
            image: Some(cri::ImageSpec { image: "sha256:01".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let at: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
        let seen = made(&ContainerId::new("id"), wanted(&config), &SandboxId::new("sandbox"), at);
        let told = cri::ContainerStatus {
            id: "id".to_owned(),
            created_at: at.as_nanosecond() as i64,
            state: cri::ContainerState::ContainerCreated.into(),
            ..wanted(&config)
        };
        assert_eq!(seen, container(&told, "sandbox"));
        assert_eq!((seen.name.as_str(), seen.restart_count, seen.hash), ("web", 3, Some(0x1f)));
        assert_eq!((seen.state, seen.sandbox.as_str()), (ContainerState::Created, "sandbox"));
    }
}
