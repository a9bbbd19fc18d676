//! What the picture tells of pods and containers, added up when somebody asks.

use std::collections::BTreeMap;
use std::io;

use rubelet_api::metrics::{Family, Stability, Text};
use rubelet_api::v1;

use crate::picture::{Lifecycle, Shown};

const ACTIVE: Family =
    Family::gauge("kubelet_active_pods", Stability::Alpha, "Pods that use something of the node", &["static"]);
const DESIRED: Family =
    Family::gauge("kubelet_desired_pods", Stability::Alpha, "Pods that a source wants here", &["static"]);
const WORKING: Family = Family::gauge(
    "kubelet_working_pods",
    Stability::Alpha,
    "Pods by what is done with them and by who wants them",
    &["config", "lifecycle", "static"],
);
const RUNNING_PODS: Family =
    Family::gauge("kubelet_running_pods", Stability::Alpha, "Pods of which a container runs", &[]);
const CONTAINERS: Family =
    Family::gauge("kubelet_running_containers", Stability::Alpha, "Containers by their state", &["container_state"]);
const EPHEMERAL: Family = Family::gauge(
    "kubelet_managed_ephemeral_containers",
    Stability::Alpha,
    "Ephemeral containers in the pods that are here",
    &[],
);
const RESIZING: Family =
    Family::gauge("kubelet_pod_in_progress_resizes", Stability::Alpha, "Pods whose new sizes are being given", &[]);
const RESIZES_WAITING: Family = Family::gauge(
    "kubelet_pod_pending_resizes",
    Stability::Alpha,
    "Pods whose new sizes cannot be given, by reason",
    &["reason"],
);

/// All that is told here.
pub(crate) const FAMILIES: &[&Family] =
    &[&ACTIVE, &DESIRED, &WORKING, &RUNNING_PODS, &CONTAINERS, &EPHEMERAL, &RESIZING, &RESIZES_WAITING];

/// kubelet 1.36: these values are told even when there are none.
const STATICS: [&str; 2] = ["", "true"];

fn static_word(pod: &v1::Pod) -> &'static str {
    let annotations = pod.metadata.annotations.as_ref();
    let source = annotations.and_then(|all| all.get("kubernetes.io/config.source"));
    if source.is_some_and(|source| source != "api") { "true" } else { "" }
}

/// Writes what these pods add up to.
pub(crate) fn tell(all: &[Shown], text: &mut Text<'_>) -> io::Result<()> {
    let is_active = |shown: &Shown| shown.is_listed() && shown.lifecycle != Lifecycle::Terminated;
    by_static(text, &ACTIVE, all.iter().filter(|shown| is_active(shown)))?;
    by_static(text, &DESIRED, all.iter().filter(|shown| shown.is_listed() && shown.is_wanted))?;
    working(all, text)?;
    containers(all, text)?;
    let spec =
        |shown: &Shown| shown.pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_ref()).map(Vec::len);
    text.single(&EPHEMERAL, all.iter().filter_map(spec).sum::<usize>() as f64)?;
    resizes(all, text)
}

fn by_static<'s>(text: &mut Text<'_>, family: &Family, pods: impl Iterator<Item = &'s Shown>) -> io::Result<()> {
    let mut counts = [0_u32; STATICS.len()];
    for shown in pods {
        counts[usize::from(static_word(&shown.pod) == "true")] += 1;
    }
    text.head(family)?;
    for (word, count) in STATICS.iter().zip(counts) {
        text.sample(family, &[word], f64::from(count))?;
    }
    Ok(())
}

fn working(all: &[Shown], text: &mut Text<'_>) -> io::Result<()> {
    let mut counts: BTreeMap<[&str; 3], u32> = BTreeMap::new();
    for config in ["desired", "orphan", "runtime_only"] {
        for lifecycle in ["sync", "terminated", "terminating"] {
            // kubelet 1.36: what only the runtime knows is not synced, and nobody knows whether it is static.
            if config == "runtime_only" {
                if lifecycle != "sync" {
                    counts.insert([config, lifecycle, "unknown"], 0);
                }
            } else {
                counts.extend(STATICS.map(|word| ([config, lifecycle, word], 0)));
            }
        }
    }
    for shown in all {
        let lifecycle = match shown.lifecycle {
            Lifecycle::Sync => "sync",
            Lifecycle::Terminating => "terminating",
            Lifecycle::Terminated => "terminated",
        };
        let labels = match (shown.is_listed(), shown.is_wanted) {
            (false, _) => ["runtime_only", lifecycle, "unknown"],
            (true, true) => ["desired", lifecycle, static_word(&shown.pod)],
            (true, false) => ["orphan", lifecycle, static_word(&shown.pod)],
        };
        *counts.entry(labels).or_default() += 1;
    }
    text.head(&WORKING)?;
    counts.iter().try_for_each(|(labels, count)| text.sample(&WORKING, labels, f64::from(*count)))
}

fn containers(all: &[Shown], text: &mut Text<'_>) -> io::Result<()> {
    let (mut pods, mut running, mut exited, mut created) = (0_u32, 0_u32, 0_u32, 0_u32);
    for shown in all {
        let before = running;
        let status = &shown.status;
        let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
        for container in lists.into_iter().flatten().flatten() {
            let state = container.state.as_ref();
            let has_ended = |state: Option<&v1::ContainerState>| state.is_some_and(|state| state.terminated.is_some());
            if state.is_some_and(|state| state.running.is_some()) {
                running += 1;
            } else if has_ended(state) {
                exited += 1;
            } else if container.container_id.is_some() && !has_ended(container.last_state.as_ref()) {
                created += 1;
            }
            // The one before stays until it is collected.
            exited += u32::from(has_ended(container.last_state.as_ref()));
        }
        pods += u32::from(running > before);
    }
    text.single(&RUNNING_PODS, f64::from(pods))?;
    if running + exited + created == 0 {
        return Ok(());
    }
    text.head(&CONTAINERS)?;
    for (state, count) in [("created", created), ("exited", exited), ("running", running)] {
        if count > 0 {
            text.sample(&CONTAINERS, &[state], f64::from(count))?;
        }
    }
    Ok(())
}

fn resizes(all: &[Shown], text: &mut Text<'_>) -> io::Result<()> {
    let (mut in_progress, mut waiting) = (0_u32, BTreeMap::<&str, u32>::new());
    for condition in all.iter().flat_map(|shown| shown.status.conditions.iter().flatten()) {
        match condition.type_.as_str() {
            "PodResizeInProgress" => in_progress += 1,
            "PodResizePending" => {
                let reason = if condition.reason.as_deref() == Some("Infeasible") { "infeasible" } else { "deferred" };
                *waiting.entry(reason).or_default() += 1;
            }
            _ => {}
        }
    }
    text.single(&RESIZING, f64::from(in_progress))?;
    if waiting.is_empty() {
        return Ok(());
    }
    text.head(&RESIZES_WAITING)?;
    waiting.iter().try_for_each(|(reason, count)| text.sample(&RESIZES_WAITING, &[reason], f64::from(*count)))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use rubelet_api::ids::{PodKey, PodUid};
    use rubelet_core::pod::{Source, Standing};
    use serde_json::{Value, json};

    use super::*;

    pub(in crate::metrics) fn shown(
        name: &str,
        source: &str,
        lifecycle: Lifecycle,
        is_wanted: bool,
        status: Value,
    ) -> Shown {
        let annotations = json!({ "kubernetes.io/config.source": source });
        let pod = json!({
            "metadata": { "name": name, "annotations": annotations },
            "spec": { "containers": [], "ephemeralContainers": [{ "name": "look" }] }
        });
        Shown {
            key: PodKey::new("ns", name),
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            status: Arc::new(serde_json::from_value(status).unwrap()),
            uid: PodUid::new(name),
            source: if source == "runtime" { Source::Runtime } else { Source::File },
            standing: Standing::Wanted,
            is_past: false,
            is_wanted,
            lifecycle,
        }
    }

    #[test]
    fn pods_and_containers_add_up() {
        let running = json!({ "containerStatuses": [
            { "name": "a", "containerID": "x://1", "image": "", "imageID": "", "ready": true, "restartCount": 1,
              "state": { "running": {} }, "lastState": { "terminated": { "exitCode": 1 } } },
            { "name": "b", "containerID": "x://2", "image": "", "imageID": "", "ready": false, "restartCount": 0,
              "state": { "waiting": {} } }
        ], "conditions": [{ "type": "PodResizePending", "status": "True", "reason": "Infeasible" }] });
        let all = [
            shown("one", "file", Lifecycle::Sync, true, running),
            shown("two", "api", Lifecycle::Terminating, false, json!({})),
            shown("three", "api", Lifecycle::Terminated, true, json!({})),
            shown("four", "runtime", Lifecycle::Terminating, false, json!({})),
        ];
        let mut bytes = Vec::new();
        tell(&all, &mut Text::new(&mut bytes)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        for line in [
            "kubelet_active_pods{static=\"\"} 1",
            "kubelet_active_pods{static=\"true\"} 1",
            "kubelet_desired_pods{static=\"\"} 1",
            "kubelet_working_pods{config=\"desired\",lifecycle=\"sync\",static=\"true\"} 1",
            "kubelet_working_pods{config=\"desired\",lifecycle=\"sync\",static=\"\"} 0",
            "kubelet_working_pods{config=\"orphan\",lifecycle=\"terminating\",static=\"\"} 1",
            "kubelet_working_pods{config=\"runtime_only\",lifecycle=\"terminating\",static=\"unknown\"} 1",
            "kubelet_running_pods 1",
            "kubelet_running_containers{container_state=\"running\"} 1",
            "kubelet_running_containers{container_state=\"exited\"} 1",
            "kubelet_running_containers{container_state=\"created\"} 1",
            "kubelet_managed_ephemeral_containers 4",
            "kubelet_pod_in_progress_resizes 0",
            "kubelet_pod_pending_resizes{reason=\"infeasible\"} 1",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in {text}");
        }
    }
}
