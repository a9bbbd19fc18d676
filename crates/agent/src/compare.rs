//! Whether what runs is what would be rendered now, by the configuration that the runtime reports verbosely.

use std::collections::{BTreeMap, BTreeSet};

use rubelet_api::gather::Gather;
use rubelet_api::v1;
use rubelet_core::node::NodeFacts;
use rubelet_core::pod::fact::{ImageFound, VolumeImage};
use rubelet_core::pod::needs::Inputs;
use rubelet_core::pod::{Observed, ObservedContainer, ObservedSandbox};
use rubelet_core::render;
use rubelet_cri::RuntimeError;
use rubelet_proto::cri;
use serde_json::Value;

use crate::hands::Hands;
use crate::observer::convert;

/// containerd: what it writes into a sandbox's configuration itself, when the pod sets other sysctls and not these
/// (`enable_unprivileged_ports`, `enable_unprivileged_icmp`).
const ADDED_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// Annotations that say when and as what a pod was seen, not what it is.
const PASSING_ANNOTATIONS: [&str; 2] = ["kubernetes.io/config.seen", "io.kubernetes.container.restartCount"];

/// Why a pod does not count as what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unlike {
    /// The first difference, for the log.
    Different(String),
    /// The runtime did not answer: nothing is known.
    Unanswered(String),
}

impl From<String> for Unlike {
    fn from(difference: String) -> Self {
        Self::Different(difference)
    }
}

impl From<&str> for Unlike {
    fn from(difference: &str) -> Self {
        Self::Different(difference.to_owned())
    }
}

impl From<RuntimeError> for Unlike {
    fn from(error: RuntimeError) -> Self {
        let text = error.to_string();
        if error.is_deadline_exceeded() || error.is_unavailable() {
            Self::Unanswered(text)
        } else {
            Self::Different(text)
        }
    }
}

/// Compares the newest sandbox and the newest instance of every container with what `pod` renders to.
///
/// # Errors
/// [`Unlike`].
pub(crate) async fn runs_as_rendered(
    hands: &Hands,
    observed: &Observed,
    pod: &v1::Pod,
    node: &NodeFacts,
) -> Result<(), Unlike> {
    let sandbox = observed.sandboxes.first().ok_or("it has no sandbox")?;
    let sandbox = &sandbox_as_rendered(hands, sandbox, pod, node).await?;
    let spec = pod.spec.as_ref().ok_or("it has no spec")?;
    let names: Vec<&str> =
        spec.init_containers.iter().flatten().chain(&spec.containers).map(|c| c.name.as_str()).collect();
    let mut newest: BTreeMap<&str, &ObservedContainer> = BTreeMap::new();
    for container in &observed.containers {
        if !names.contains(&container.name.as_str()) {
            return Err(format!("container {} is not in the manifest", container.name).into());
        }
        newest.entry(container.name.as_str()).or_insert(container);
    }
    // What is half made or half removed cannot be compared.
    if let Some(missing) = spec.containers.iter().find(|c| !newest.contains_key(c.name.as_str())) {
        return Err(format!("container {} is not there", missing.name).into());
    }
    for container in newest.into_values() {
        container_as_rendered(hands, container, sandbox, pod, node).await?;
    }
    Ok(())
}

/// The sandbox as it is now: a look that was taken while the runtime was busy may lack its addresses.
async fn sandbox_as_rendered(
    hands: &Hands,
    sandbox: &ObservedSandbox,
    pod: &v1::Pod,
    node: &NodeFacts,
) -> Result<ObservedSandbox, Unlike> {
    let answer = hands.runtime.pod_sandbox_status(&sandbox.id, true).await?;
    let reported = reported_config(&answer.info)?;
    let rendered = render::sandbox::sandbox_config(pod, sandbox.attempt, node).map_err(|e| e.to_string())?;
    let rendered = rubelet_api::tree::to_tree(&rendered).map_err(|e| e.to_string())?;
    let (rendered, mut reported) = (comparable(rendered), comparable(reported));
    forget_added(&rendered, &mut reported);
    forget_lifted(&rendered, &mut reported);
    difference("sandbox", &rendered, &reported)?;
    Ok(answer.status.as_ref().map_or_else(|| sandbox.clone(), convert::sandbox))
}

async fn container_as_rendered(
    hands: &Hands,
    container: &ObservedContainer,
    sandbox: &ObservedSandbox,
    pod: &v1::Pod,
    node: &NodeFacts,
) -> Result<(), Unlike> {
    let answer = hands.runtime.container_status(&container.id, true).await?;
    let reported = reported_config(&answer.info)?;
    let image = reported.pointer("/image/image").and_then(Value::as_str).unwrap_or_default().to_owned();
    let spec = cri::ImageSpec { image: image.clone(), ..Default::default() };
    let found = hands.runtime.image_status(spec, false).await?.image;
    let found = found.ok_or_else(|| format!("the image {image} of container {} is gone", container.name))?;
    let view = render::ContainerView {
        pod,
        container: container.name.as_str(),
        node,
        restart_count: container.restart_count,
        image: &ImageFound {
            image_ref: image,
            uid: found.uid.as_ref().map(|u| u.value),
            username: found.username.clone(),
            pulled: None,
            is_unchecked: false,
            volumes: mounted_images(pod, container.name.as_str(), &reported),
        },
        sandbox: &sandbox.id,
        target: None,
        sandbox_attempt: sandbox.attempt,
        pod_ips: &sandbox.ips,
        inputs: &Inputs::default(),
        now: rubelet_core::now::Now { mono: rubelet_core::now::Mono::default(), wall: container.created_at },
    };
    let created = render::container::create_container(&view).map_err(|e| e.to_string())?;
    let mut config = created.config;
    for subpath in &created.subpaths {
        if let Some(mount) = config.mounts.get_mut(subpath.mount) {
            mount.host_path = subpath.target.display().to_string();
        }
    }
    let rendered = comparable(rubelet_api::tree::to_tree(&config).map_err(|e| e.to_string())?);
    let mut reported = without_services(comparable(reported), &rendered);
    forget_lifted(&rendered, &mut reported);
    Ok(difference(&format!("container {}", container.name), &rendered, &reported)?)
}

/// A configuration without the variables of services, unless the other one has them, too. Which services there were when a container was
/// made does not say what its pod is. Those of one service come together, so that others of such a name are kept.
fn without_services(mut reported: Value, rendered: &Value) -> Value {
    fn names(config: &Value) -> BTreeSet<String> {
        let envs = config.get("envs").and_then(Value::as_array).into_iter().flatten();
        envs.filter_map(|e| e.get("key").and_then(Value::as_str)).map(ToOwned::to_owned).collect()
    }
    let (has, wanted) = (names(&reported), names(rendered));
    let is_service = |name: &&str| ["SERVICE_PORT", "PORT"].iter().all(|end| has.contains(&format!("{name}_{end}")));
    let services: Vec<&str> =
        has.iter().filter_map(|key| key.strip_suffix("_SERVICE_HOST")).filter(is_service).collect();
    let is_of_one = |key: &str| {
        services.iter().filter_map(|name| key.strip_prefix(name)).any(|rest| {
            rest == "_SERVICE_HOST"
                || rest == "_PORT"
                || rest.starts_with("_SERVICE_PORT")
                || rest.starts_with("_PORT_")
        })
    };
    let Some(config) = reported.as_object_mut() else { return reported };
    if let Some(envs) = config.get_mut("envs").and_then(Value::as_array_mut) {
        envs.retain(|e| e.get("key").and_then(Value::as_str).is_none_or(|key| wanted.contains(key) || !is_of_one(key)));
    }
    if config.get("envs").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        config.remove("envs");
    }
    reported
}

/// The images that the container has mounted, by the names of their volumes.
fn mounted_images(pod: &v1::Pod, container: &str, reported: &Value) -> BTreeMap<String, VolumeImage> {
    let mounts = reported.get("mounts").and_then(Value::as_array);
    let at = |path: &str| {
        let mut all = mounts.into_iter().flatten();
        let image = all.find(|m| m.get("container_path").and_then(Value::as_str) == Some(path))?.get("image")?;
        let text = |key: &str| image.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(VolumeImage { image: text("user_specified_image"), image_ref: text("image"), pulled: None })
    };
    let wanted = render::containers(pod).filter(|c| c.name == container);
    let wanted = wanted.flat_map(|c| c.volume_mounts.iter().flatten());
    wanted.filter_map(|mount| Some((mount.name.clone(), at(&mount.mount_path)?))).into_map()
}

/// The `config` of verbose status; containerd and CRI-O put it into `info["info"]`.
fn reported_config(info: &BTreeMap<String, String>) -> Result<Value, String> {
    let text = info.get("info").ok_or("the runtime reports no configuration")?;
    let mut value: Value = serde_json::from_slice(text.as_bytes()).map_err(|e| e.to_string())?;
    value
        .get_mut("config")
        .map(Value::take)
        .filter(|c| c.is_object())
        .ok_or_else(|| "the runtime reports no configuration".to_owned())
}

/// A configuration without defaults, without what passes, in one spelling.
fn comparable(mut config: Value) -> Value {
    if let Some(annotations) = config.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !PASSING_ANNOTATIONS.contains(&key.as_str()));
    }
    if let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("attempt");
    }
    if let Some(object) = config.as_object_mut() {
        object.remove("log_path");
    }
    if let Some(image) = config.get_mut("image").and_then(Value::as_object_mut) {
        image.remove("annotations");
        // An id, and a name that older runtimes do not keep; the annotation with the container's hash stands for both.
        image.remove("image");
        image.remove("user_specified_image");
    }
    // Which CPUs and whose memory it has is not rendered: it is given.
    if let Some(resources) = config.pointer_mut("/linux/resources").and_then(Value::as_object_mut) {
        resources.remove("cpuset_cpus");
        resources.remove("cpuset_mems");
    }
    for mount in config.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        let random = mount.get("host_path").and_then(Value::as_str).and_then(without_random);
        if let (Some(path), Some(mount)) = (random, mount.as_object_mut()) {
            mount.insert("host_path".to_owned(), path.into());
        }
    }
    if let Some(envs) = config.get_mut("envs").and_then(Value::as_array_mut) {
        for env in envs.iter_mut() {
            if let Some(value) = env.get_mut("value") {
                *value = env_text(value);
            }
        }
        envs.sort_by_key(|e| e.get("key").and_then(Value::as_str).unwrap_or_default().to_owned());
    }
    bare(config).unwrap_or_else(|| Value::Object(serde_json::Map::new()))
}

/// Who has CPUs for himself has no quota of them.
fn forget_lifted(rendered: &Value, reported: &mut Value) {
    const QUOTA: &str = "/linux/resources/cpu_quota";
    let wanted = rendered.pointer(QUOTA);
    if let (Some(quota), Some(wanted)) = (reported.pointer_mut(QUOTA), wanted)
        && *quota == -1
    {
        quota.clone_from(wanted);
    }
}

/// Drops what the runtime has added to what it was given.
fn forget_added(rendered: &Value, reported: &mut Value) {
    let wanted = rendered.pointer("/linux/sysctls").and_then(Value::as_object);
    let Some(sysctls) = reported.pointer_mut("/linux/sysctls").and_then(Value::as_object_mut) else { return };
    for (name, value) in ADDED_SYSCTLS {
        if wanted.is_none_or(|wanted| !wanted.contains_key(name)) && sysctls.get(name).is_some_and(|v| v == value) {
            sysctls.remove(name);
        }
    }
}

/// `…/containers/<name>/<8 hex digits>` without the digits: a termination log.
fn without_random(path: &str) -> Option<String> {
    let (parent, file) = path.rsplit_once('/')?;
    let is_random = file.len() == 8 && file.bytes().all(|b| b.is_ascii_hexdigit());
    (is_random && parent.contains("/containers/")).then(|| parent.to_owned())
}

/// A variable's value: bytes here, text in older runtimes, base64 in newer ones.
fn env_text(value: &Value) -> Value {
    match value {
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|b| b.as_u64().and_then(|b| u8::try_from(b).ok())).collect();
            Value::String(String::from_utf8_lossy(&bytes).into_owned())
        }
        other => other.clone(),
    }
}

/// Drops what is empty or zero, as Go's `omitempty` does.
fn bare(value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Number(n) if n.as_i64() == Some(0) => None,
        Value::String(s) if s.is_empty() => None,
        Value::Array(items) => {
            let items: Vec<Value> = items.into_iter().map(|i| bare(i).unwrap_or(Value::Null)).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Object(fields) => {
            let fields: serde_json::Map<_, _> = fields.into_iter().filter_map(|(k, v)| Some((k, bare(v)?))).collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        other => Some(other),
    }
}

fn difference(what: &str, wanted: &Value, reported: &Value) -> Result<(), String> {
    match first_difference(wanted, reported, String::new()) {
        None => Ok(()),
        Some(path) => Err(format!("{what}: {path}")),
    }
}

/// Path of the first field that differs; values may be secret and are not told.
fn first_difference(wanted: &Value, reported: &Value, path: String) -> Option<String> {
    match (wanted, reported) {
        (Value::Object(w), Value::Object(r)) => w.keys().chain(r.keys()).find_map(|key| {
            let (a, b) = (w.get(key).unwrap_or(&Value::Null), r.get(key).unwrap_or(&Value::Null));
            first_difference(a, b, format!("{path}.{key}"))
        }),
        (Value::Array(w), Value::Array(r)) if w.len() == r.len() => {
            w.iter().zip(r).enumerate().find_map(|(i, (a, b))| first_difference(a, b, format!("{path}[{i}]")))
        }
        (Value::String(w), Value::String(r)) if path.contains(".envs") && path.ends_with(".value") => {
            use base64::Engine as _;
            let encoded = base64::engine::general_purpose::STANDARD.encode(w);
            (w != r && encoded != *r).then_some(path)
        }
        (w, r) => (w != r).then_some(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_passes_is_no_difference() {
        let rendered = json!({"annotations": {"kubernetes.io/config.seen": "now", "a": "b"}, "log_path": "x/1.log",
            "mounts": [{"host_path": "/var/lib/kubelet/pods/u/containers/c/0a1b2c3d", "readonly": false}],
            "envs": [{"key": "B", "value": [98]}, {"key": "A", "value": [97]}], "tty": false});
        let reported = json!({"annotations": {"kubernetes.io/config.seen": "then", "a": "b"}, "log_path": "x/0.log",
            "mounts": [{"host_path": "/var/lib/kubelet/pods/u/containers/c/ffffffff"}],
            "envs": [{"key": "A", "value": "YQ=="}, {"key": "B", "value": "b"}]});
        assert_eq!(difference("c", &comparable(rendered), &comparable(reported)), Ok(()));
    }

    #[test]
    fn cpus_of_its_own_are_no_difference() {
        let with = |resources: Value| comparable(json!({"linux": {"resources": resources}}));
        let rendered = with(json!({"cpu_shares": 1024, "cpu_quota": 100_000}));
        let compared = |reported: Value| {
            let mut reported = with(reported);
            forget_lifted(&rendered, &mut reported);
            difference("c", &rendered, &reported)
        };
        let own = json!({"cpu_shares": 1024, "cpu_quota": -1, "cpuset_cpus": "1", "cpuset_mems": "0"});
        assert_eq!(compared(own), Ok(()));
        assert!(compared(json!({"cpu_shares": 1024, "cpu_quota": 50_000})).is_err());
        assert!(compared(json!({"cpu_shares": 1024})).is_err());
    }

    #[test]
    fn sysctls_that_the_runtime_adds_are_no_difference() {
        let with = |sysctls: Value| comparable(json!({"linux": {"cgroup_parent": "x", "sysctls": sysctls}}));
        let rendered = with(json!({"net.ipv4.ip_local_port_range": "1 2"}));
        let compared = |reported: Value| {
            let mut reported = with(reported);
            forget_added(&rendered, &mut reported);
            difference("sandbox", &rendered, &reported)
        };
        let (own, added) = ("net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start");
        assert_eq!(compared(json!({own: "1 2", added: "0", "net.ipv4.ping_group_range": "0 2147483647"})), Ok(()));
        assert!(compared(json!({own: "1 2", added: "80"})).is_err(), "somebody else's");
        assert!(compared(json!({added: "0"})).is_err(), "what was asked for is missing");
    }

    #[test]
    fn edited_arguments_are_a_difference_and_named_without_their_value() {
        let rendered = comparable(json!({"args": ["-c", "new"]}));
        let reported = comparable(json!({"args": ["-c", "old"]}));
        assert_eq!(difference("container app", &rendered, &reported), Err("container app: .args[1]".to_owned()));
    }

    #[test]
    fn an_added_field_is_a_difference() {
        let rendered = comparable(json!({"linux": {"security_context": {"privileged": true}}}));
        assert_eq!(difference("c", &rendered, &comparable(json!({}))), Err("c: .linux".to_owned()));
    }

    #[test]
    fn variables_of_services_do_not_make_another_pod() {
        let envs = |names: &[&str]| {
            let envs: Vec<_> = names.iter().map(|name| json!({"key": name, "value": "v"})).collect();
            json!({"envs": envs})
        };
        let service =
            ["A_B_PORT", "A_B_PORT_80_TCP_ADDR", "A_B_SERVICE_HOST", "A_B_SERVICE_PORT", "A_B_SERVICE_PORT_WEB"];
        let with = |more: &[&str]| envs(&[&service[..], more].concat());
        assert_eq!(without_services(with(&["OWN"]), &envs(&["OWN"])), envs(&["OWN"]));
        assert_eq!(without_services(with(&[]), &json!({})), json!({}));
        // The manifest's own stay, and what is no whole service.
        assert_eq!(without_services(with(&[]), &envs(&["A_B_PORT"])), envs(&["A_B_PORT"]));
        assert_eq!(
            without_services(envs(&["DB_PORT", "DB_SERVICE_HOST"]), &json!({})),
            envs(&["DB_PORT", "DB_SERVICE_HOST"])
        );
    }
}
