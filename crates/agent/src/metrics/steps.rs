//! What steps and their outcomes mean for the counters.

use std::time::Duration;

use rubelet_api::metrics::Histogram;
use rubelet_api::v1;
use rubelet_core::pod::fact::{Done, ProbeAnswer};
use rubelet_core::pod::step::{FilesPlugin, ProbeKind, VolumeKind};
use rubelet_core::pod::{Outcome, Step};
use rubelet_core::render::users::wants_range;

use super::Metrics;
use crate::execute::PodRef;

/// What must be known of a step when it has ended.
pub(crate) enum Begun {
    Cgroup(&'static str),
    /// By the name of the plugin.
    Mount(String),
    Sandbox {
        handler: String,
        has_users: bool,
    },
    Image {
        kind: &'static str,
    },
    Create {
        kind: &'static str,
        image_volumes: u64,
    },
    Start {
        kind: &'static str,
    },
    Probe {
        container: String,
        kind: &'static str,
    },
    /// Nothing is counted.
    Other,
}

impl Begun {
    /// A step is about to be carried out.
    pub(crate) fn of(step: &Step, pod: &v1::Pod) -> Self {
        match step {
            Step::EnsureCgroup(_) => Self::Cgroup("create"),
            Step::ResizePod(_) => Self::Cgroup("update"),
            Step::RemoveCgroup => Self::Cgroup("destroy"),
            Step::Mount(volume) => Self::Mount(plugin(&volume.kind)),
            Step::CreateSandbox { runtime_handler, config, .. } => {
                Self::Sandbox { handler: runtime_handler.clone(), has_users: wants_range(config) }
            }
            Step::EnsureImage { container, .. } => Self::Image { kind: kind(pod, container.as_str()) },
            Step::CreateContainer(create) => Self::Create {
                kind: kind(pod, create.container.as_str()),
                image_volumes: create.config.mounts.iter().filter(|mount| mount.image.is_some()).count() as u64,
            },
            Step::StartContainer { container, .. } => Self::Start { kind: kind(pod, container.as_str()) },
            Step::Probe(probe) => Self::Probe {
                container: probe.container.as_str().to_owned(),
                kind: match probe.kind {
                    ProbeKind::Startup => "Startup",
                    ProbeKind::Readiness => "Readiness",
                    ProbeKind::Liveness => "Liveness",
                },
            },
            Step::PrepareDirs
            | Step::PrepareClaims { .. }
            | Step::ReleaseClaims
            | Step::RunHook { .. }
            | Step::StopContainer { .. }
            | Step::RemoveContainer { .. }
            | Step::StopSandbox { .. }
            | Step::RemoveSandbox { .. }
            | Step::ResizeContainer(_)
            | Step::Expand(_)
            | Step::Unmount
            | Step::RemoveDirs
            | Step::Cancel(_) => Self::Other,
        }
    }
}

/// kubelet 1.36: the words for the kinds of containers.
fn kind(pod: &v1::Pod, name: &str) -> &'static str {
    let Some(spec) = &pod.spec else { return "container" };
    if spec.init_containers.iter().flatten().any(|one| one.name == name) {
        "init_container"
    } else if spec.ephemeral_containers.iter().flatten().any(|one| one.name == name) {
        "ephemeral_container"
    } else {
        "container"
    }
}

fn plugin(kind: &VolumeKind) -> String {
    let name = match kind {
        VolumeKind::EmptyDir | VolumeKind::CountedDir | VolumeKind::MemoryDir { .. } | VolumeKind::HugePages { .. } => {
            "empty-dir"
        }
        VolumeKind::HostPath { .. } => "host-path",
        VolumeKind::Local { .. } | VolumeKind::Device { .. } => "local-volume",
        VolumeKind::Nfs { .. } => "nfs",
        VolumeKind::Image => "image",
        VolumeKind::Files { plugin, .. } => match plugin {
            FilesPlugin::ConfigMap => "configmap",
            FilesPlugin::Secret => "secret",
            FilesPlugin::Projected => "projected",
            FilesPlugin::DownwardApi => "downward-api",
        },
        VolumeKind::Csi(volume) => return format!("kubernetes.io/csi:{}", volume.driver),
        VolumeKind::Unprocessed { .. } | VolumeKind::Refused { .. } => return "N/A".to_owned(),
    };
    format!("kubernetes.io/{name}")
}

impl Metrics {
    /// A step has ended.
    pub(crate) fn ended(&self, begun: &Begun, pod: &PodRef, took: Duration, outcome: &Outcome) {
        match begun {
            Begun::Cgroup(operation) => self.containers.cgroup.of(&[operation]).took(took),
            Begun::Mount(plugin) => {
                self.handled("volume_mount", plugin, took, outcome.is_ok());
                if let Some(since) = pod.since.filter(|_| outcome.is_ok()) {
                    self.storage.overall.of(&["overall_volume_mount", plugin]).took(since.elapsed());
                }
            }
            Begun::Sandbox { handler, has_users } => self.sandbox_ended(handler, *has_users, took, outcome.is_ok()),
            Begun::Image { kind } => {
                if outcome.is_err() {
                    // kubelet 1.36: the start of a container begins with its image.
                    self.containers.started.of(&[kind]).add_one();
                    self.start_failed(kind, outcome);
                }
            }
            Begun::Create { kind, image_volumes } => {
                self.containers.started.of(&[kind]).add_one();
                self.start_failed(kind, outcome);
                let storage = &self.storage;
                storage.image_volumes.add(*image_volumes);
                let became =
                    if outcome.is_ok() { &storage.image_volumes_mounted } else { &storage.image_volume_errors };
                became.add(*image_volumes);
            }
            Begun::Start { kind } => self.start_failed(kind, outcome),
            Begun::Probe { container, kind } => self.probed(container, kind, pod, took, outcome),
            Begun::Other => {}
        }
    }

    fn handled(&self, operation: &str, plugin: &str, took: Duration, is_ok: bool) {
        let status = if is_ok { "success" } else { "fail-unknown" };
        self.storage.operations.of(&["false", operation, status, plugin]).took(took);
    }

    /// Volumes were taken down, or it was tried: by each its plugin.
    pub(crate) fn unmounted(&self, plugins: &[String], took: Duration, is_ok: bool) {
        for plugin in plugins {
            self.handled("volume_unmount", plugin, took, is_ok);
        }
    }

    fn sandbox_ended(&self, handler: &str, has_users: bool, took: Duration, is_ok: bool) {
        self.pods.started.add_one();
        self.containers.sandbox.of(&[handler]).took(took);
        if has_users {
            self.pods.started_with_users.add_one();
        }
        if is_ok {
            return;
        }
        self.pods.start_errors.add_one();
        self.containers.sandbox_errors.of(&[handler]).add_one();
        if has_users {
            self.pods.start_with_users_errors.add_one();
        }
    }

    fn start_failed(&self, kind: &str, outcome: &Outcome) {
        if let Err(failure) = outcome {
            self.containers.start_errors.of(&[&*failure.reason, kind]).add_one();
        }
    }

    fn probed(&self, container: &str, kind: &str, pod: &PodRef, took: Duration, outcome: &Outcome) {
        let Ok(Done::Probe(answer)) = outcome else { return };
        let result = match answer {
            ProbeAnswer::Success | ProbeAnswer::Warning(_) => "successful",
            ProbeAnswer::Failure(_) => "failed",
            ProbeAnswer::Unknown(_) => "unknown",
        };
        let (namespace, name) = (&*pod.key.namespace, &*pod.key.name);
        self.probes.made.of(&[container, namespace, name, pod.uid.as_str(), kind, result]).add_one();
        // kubelet 1.36: how long failures took is not told.
        if result != "failed" {
            self.probes.took.of(&[container, namespace, name, kind]).took(took);
        }
    }

    /// The pod is gone: what was told of its probes is no more.
    pub(crate) fn forget(&self, pod: &PodRef) {
        self.probes.made.forget(|labels| *labels[3] == *pod.uid.as_str());
        let is_its = |labels: &[Box<str>]| *labels[1] == *pod.key.namespace && *labels[2] == *pod.key.name;
        self.probes.took.forget(is_its);
    }

    /// An image was wanted. `policy`: the word of the API.
    pub(crate) fn image_wanted(&self, policy: &str, is_present: Option<bool>, is_pulled: Option<bool>) {
        let word = |is: Option<bool>| is.map_or("unknown", |is| if is { "true" } else { "false" });
        let labels = [word(is_present), policy, word(is_pulled)];
        self.storage.ensured.of(&labels).add_one();
    }

    /// How long the pull of an image of this size took.
    pub(crate) fn pull(&self, bytes: u64) -> std::sync::Arc<Histogram> {
        self.storage.pulls.of(&[size(bytes)])
    }
}

/// kubelet 1.36: sizes of images, by these steps.
fn size(bytes: u64) -> &'static str {
    const STEPS: [(u64, &str); 11] = [
        (10, "0-10MB"),
        (100, "10MB-100MB"),
        (500, "100MB-500MB"),
        (1 << 10, "500MB-1GB"),
        (5 << 10, "1GB-5GB"),
        (10 << 10, "5GB-10GB"),
        (20 << 10, "10GB-20GB"),
        (30 << 10, "20GB-30GB"),
        (40 << 10, "30GB-40GB"),
        (60 << 10, "40GB-60GB"),
        (100 << 10, "60GB-100GB"),
    ];
    STEPS.iter().find(|(most, _)| bytes >> 20 < *most).map_or("GT100GB", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_images_have_few_names() {
        for (bytes, name) in [(0, "0-10MB"), (10 << 20, "10MB-100MB"), (1 << 30, "1GB-5GB"), (u64::MAX, "GT100GB")] {
            assert_eq!(size(bytes), name);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_of_a_pod_that_starts_is_timed_from_its_first_sight() {
        let metrics = Metrics::default();
        let mut pod = PodRef {
            uid: "u".into(),
            key: rubelet_api::ids::PodKey::new("default", "web"),
            pod: std::sync::Arc::default(),
            ips: Vec::new(),
            since: Some(tokio::time::Instant::now()),
        };
        tokio::time::advance(Duration::from_secs(7)).await;
        let begun = Begun::Mount("kubernetes.io/secret".to_owned());
        metrics.ended(&begun, &pod, Duration::from_secs(1), &Ok(Done::Mounted));
        metrics.ended(&begun, &pod, Duration::from_secs(1), &Err(rubelet_core::pod::StepFailure::default()));
        pod.since = None;
        metrics.ended(&begun, &pod, Duration::from_secs(1), &Ok(Done::Mounted));
        let mut page = Vec::new();
        metrics.storage.overall.tell(&mut rubelet_api::metrics::Text::new(&mut page)).expect("a page");
        let page = String::from_utf8(page).expect("text");
        let labels = "operation_name=\"overall_volume_mount\",plugin_name=\"kubernetes.io/secret\"";
        for line in [format!("_sum{{{labels}}} 7"), format!("_count{{{labels}}} 1")] {
            assert!(page.contains(&line), "{line} in {page}");
        }
    }
}
