//! Containers that ended, seen in what pods' statuses show.

use rubelet_api::v1;

use super::Metrics;

/// All statuses of containers, with the metrics' words for their kinds.
fn all(status: &v1::PodStatus) -> impl Iterator<Item = (&'static str, &v1::ContainerStatus)> {
    let kinds = [
        ("init_container", &status.init_container_statuses),
        ("container", &status.container_statuses),
        ("ephemeral_container", &status.ephemeral_container_statuses),
    ];
    kinds.into_iter().flat_map(|(kind, list)| list.iter().flatten().map(move |one| (kind, one)))
}

/// What ended of one container: its instance now, and the one before.
fn ends(status: &v1::ContainerStatus) -> impl Iterator<Item = &v1::ContainerStateTerminated> {
    let states = [&status.state, &status.last_state];
    states.into_iter().flatten().filter_map(|state| state.terminated.as_ref())
}

impl Metrics {
    /// Counts what ended between two statuses of a pod. What had ended before the first one was counted by another life.
    pub(crate) fn ended_since(&self, before: Option<&v1::PodStatus>, now: &v1::PodStatus) {
        let Some(before) = before else { return };
        for (kind, status) in all(now) {
            let old = all(before).find(|(of, old)| *of == kind && old.name == status.name).map(|(_, old)| old);
            let is_known = |end: &v1::ContainerStateTerminated| {
                old.is_some_and(|old| ends(old).any(|known| known.container_id == end.container_id))
            };
            for end in ends(status).filter(|end| !is_known(end)) {
                let (code, reason) = (end.exit_code.to_string(), end.reason.as_deref().unwrap_or_default());
                self.containers.terminated.of(&[kind, &code, reason]).add_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rubelet_api::metrics::Text;
    use serde_json::{Value, json};

    use super::*;

    fn status(state: Value, last: Value) -> v1::PodStatus {
        let one = json!({ "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state, "lastState": last });
        serde_json::from_value(json!({ "initContainerStatuses": [one] })).unwrap()
    }

    #[test]
    fn each_instance_is_counted_when_it_is_first_seen_to_have_ended() {
        let ended = |id: &str, code: i32, reason: &str| json!({ "terminated": { "containerID": id, "exitCode": code, "reason": reason } });
        let running = json!({ "running": {} });
        let seen = [
            status(ended("x://0", 7, "Error"), json!({})),
            status(running.clone(), ended("x://0", 7, "Error")),
            status(ended("x://1", 0, "Completed"), ended("x://0", 7, "Error")),
            // It was started anew before anybody looked.
            status(running, ended("x://2", 137, "OOMKilled")),
        ];
        let metrics = Metrics::default();
        let mut before = None;
        for now in &seen {
            metrics.ended_since(before, now);
            before = Some(now);
        }
        let mut page = Vec::new();
        metrics.containers.tell(&mut Text::new(&mut page)).unwrap();
        let page = String::from_utf8(page).unwrap();
        let name = "kubelet_terminated_containers_total";
        for (code, reason) in [(0, "Completed"), (137, "OOMKilled")] {
            let labels = format!("container_type=\"init_container\",exit_code=\"{code}\",reason=\"{reason}\"");
            assert!(page.contains(&format!("{name}{{{labels}}} 1\n")), "{labels} in {page}");
        }
        assert_eq!(page.matches(&format!("{name}{{")).count(), 2, "{page}");
    }
}
