//! Which pods there are, and where in the machine they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use rubelet_api::gather::Gather;
use rubelet_api::ids::SandboxId;
use rubelet_api::v1;
use rubelet_core::resources::cgroup::level;
use rubelet_core::resources::qos::qos_class;
use rubelet_cri::RuntimeError;
use rubelet_host::cgroup::usage::Usage;
use rubelet_proto::cri;

use super::drivers::DriverVolume;
use super::{Inner, drivers};
use crate::observer::UID_LABEL;
use crate::picture::Shown;

/// All that a page is made from, before the kernel is asked.
pub(crate) struct Ground {
    pub(crate) pods: Vec<Pod>,
    /// By container id: what the runtime says, where it was asked.
    pub(crate) told: BTreeMap<String, Told>,
    /// File systems of images and of writable layers, where it was asked.
    pub(crate) image_fs: Option<cri::ImageFsInfoResponse>,
    /// What drivers say of their volumes, by the pod's UID and the name of the volume's folder, where they were asked.
    pub(crate) volumes: BTreeMap<(String, String), DriverVolume>,
}

/// What the runtime tells of one container.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// Of the writable layer.
    pub(crate) layer_bytes: Option<u64>,
    pub(crate) layer_inodes: Option<u64>,
    /// Only used where the container's cgroup is not known.
    pub(crate) usage: Usage,
}

/// One pod.
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// Its cgroup's name in the file system; `None` where pods have none.
    pub(crate) cgroup: Option<String>,
    pub(crate) started_at: Timestamp,
    pub(crate) is_host_network: bool,
    pub(crate) containers: Vec<Container>,
    pub(crate) sandbox: Option<Sandbox>,
    pub(crate) manifest: Arc<v1::Pod>,
}

/// A container that runs.
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) image: String,
    pub(crate) started_at: Timestamp,
}

/// A pod's sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) image: String,
    /// Its first process; `None` when the runtime does not tell.
    pub(crate) pid: Option<u32>,
}

/// What was learned of sandboxes. A sandbox does not change while it lives.
pub(crate) type Sandboxes = BTreeMap<String, Sandbox>;

impl Ground {
    /// Looks at the picture, and asks the runtime for its part as far as it is wanted. What it does not answer is missing.
    pub(crate) async fn survey(inner: &Arc<Inner>, wants_sandboxes: bool, wants_layers: bool) -> Self {
        let mut ground = Self { pods: pods(inner), told: BTreeMap::new(), image_fs: None, volumes: BTreeMap::new() };
        if wants_sandboxes && let Err(err) = learn_sandboxes(inner, &mut ground.pods).await {
            tracing::debug!(%err, "the runtime does not list its sandboxes; statistics lack them");
        }
        if wants_layers {
            let layers = inner.hands.runtime.list_container_stats(None).await.unwrap_or_default();
            let id = |stats: &cri::ContainerStats| stats.attributes.as_ref().map(|one| one.id.clone());
            ground.told = layers.iter().filter_map(|stats| Some((id(stats)?, told(stats)))).into_map();
            ground.image_fs = inner.hands.runtime.image_fs_info().await.ok();
            ground.volumes = drivers::ask(inner, &ground.pods).await;
        }
        ground
    }
}

fn told(stats: &cri::ContainerStats) -> Told {
    let number = |value: &Option<cri::UInt64Value>| value.as_ref().map(|value| value.value);
    let layer = stats.writable_layer.as_ref();
    let mut usage = Usage::default();
    if let Some(cpu) = &stats.cpu {
        usage.cpu_nanos = number(&cpu.usage_core_nano_seconds);
    }
    if let Some(memory) = &stats.memory {
        usage.memory_bytes = number(&memory.usage_bytes);
        usage.working_set_bytes = number(&memory.working_set_bytes);
        usage.rss_bytes = number(&memory.rss_bytes);
        usage.page_faults = number(&memory.page_faults);
        usage.major_page_faults = number(&memory.major_page_faults);
    }
    usage.swap_bytes = stats.swap.as_ref().and_then(|swap| number(&swap.swap_usage_bytes));
    Told {
        layer_bytes: layer.and_then(|layer| number(&layer.used_bytes)),
        layer_inodes: layer.and_then(|layer| number(&layer.inodes_used)),
        usage,
    }
}

/// The pods that are shown, in the order of their UIDs, without those that have ended.
fn pods(inner: &Inner) -> Vec<Pod> {
    let has_ended = |shown: &Shown| matches!(shown.status.phase.as_deref(), Some("Failed" | "Succeeded"));
    inner.picture.listed().iter().filter(|shown| !has_ended(shown)).map(|shown| pod(inner, shown)).collect()
}

fn pod(inner: &Inner, shown: &Shown) -> Pod {
    let uid = shown.pod.metadata.uid.clone().unwrap_or_default();
    let path = format!("{}/pod{uid}", level(qos_class(&shown.pod)));
    let status = &shown.status;
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let all = lists.into_iter().flatten().flatten();
    Pod {
        cgroup: inner.hands.cgroups.as_ref().and_then(|tree| tree.name_of(path)),
        uid,
        name: shown.key.name.to_string(),
        namespace: shown.key.namespace.to_string(),
        started_at: status.start_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        is_host_network: shown.pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true),
        containers: all.filter_map(container).collect(),
        sandbox: None,
        manifest: shown.pod.clone(),
    }
}

fn container(status: &v1::ContainerStatus) -> Option<Container> {
    let running = status.state.as_ref()?.running.as_ref()?;
    Some(Container {
        name: status.name.clone(),
        id: status.container_id.as_ref()?.split_once("://")?.1.to_owned(),
        image: status.image.clone(),
        started_at: running.started_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    })
}

async fn learn_sandboxes(inner: &Arc<Inner>, pods: &mut [Pod]) -> Result<(), RuntimeError> {
    let state = Some(cri::PodSandboxStateValue { state: cri::PodSandboxState::SandboxReady as i32 });
    let filter = cri::PodSandboxFilter { state, ..Default::default() };
    let listed = inner.hands.runtime.list_pod_sandbox(Some(filter)).await?;
    let known = inner.kept().sandboxes.clone();
    let mut now_known = Sandboxes::new();
    for row in &listed {
        let sandbox = match known.get(&row.id) {
            Some(sandbox) => sandbox.clone(),
            None => ask(inner, &row.id).await,
        };
        now_known.insert(row.id.clone(), sandbox);
    }
    let mut newest: BTreeMap<&str, &cri::PodSandbox> = BTreeMap::new();
    for row in &listed {
        let Some(uid) = row.labels.get(UID_LABEL) else { continue };
        let place = newest.entry(uid).or_insert(row);
        if row.created_at > place.created_at {
            *place = row;
        }
    }
    for pod in pods {
        pod.sandbox = newest.get(pod.uid.as_str()).and_then(|row| now_known.get(&row.id).cloned());
    }
    inner.kept().sandboxes = now_known;
    Ok(())
}

/// What verbose status tells of a sandbox; containerd and the embedded runtime use the same names.
#[derive(Default, serde::Deserialize)]
struct Verbose {
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    image: String,
}

async fn ask(inner: &Inner, id: &str) -> Sandbox {
    let answer = inner.hands.runtime.pod_sandbox_status(&SandboxId::new(id), true).await;
    let text = answer.ok().and_then(|answer| answer.info.get("info").cloned());
    let told: Verbose = text.and_then(|text| serde_json::from_slice(text.as_bytes()).ok()).unwrap_or_default();
    Sandbox { id: id.to_owned(), image: told.image, pid: (told.pid != 0).then_some(told.pid) }
}

/// Which of a pod's cgroups is a container's, whatever the runtime puts around its id: `<id>`, `cri-containerd-<id>.scope`.
pub(crate) fn child_of<'a>(children: &'a [String], id: &str) -> Option<&'a str> {
    let is_its = |child: &&String| {
        let name = child.strip_suffix(".scope").unwrap_or(child);
        name.strip_suffix(id).is_some_and(|rest| rest.is_empty() || rest.ends_with('-'))
    };
    children.iter().find(is_its).map(String::as_str)
}
