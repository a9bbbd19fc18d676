//! Pods that get other sizes while they run.

use rubelet_api::quantity::Amount;
use rubelet_api::v1;
use tokio::time::Instant;

use super::Metrics;

/// Since when a pod's new sizes are being given.
pub(crate) type Resizing = Option<Instant>;

/// What a container asks for, in the API's words.
const REQUIREMENTS: [&str; 2] = ["limits", "requests"];
const RESOURCES: [&str; 2] = ["cpu", "memory"];

impl Metrics {
    /// A source wants other sizes.
    pub(crate) fn sizes_wanted(&self, before: &v1::Pod, now: &v1::Pod) {
        let containers = |pod: &v1::Pod| {
            let spec = pod.spec.clone().unwrap_or_default();
            spec.init_containers.into_iter().flatten().chain(spec.containers).collect::<Vec<_>>()
        };
        let before = containers(before);
        for container in containers(now) {
            let Some(old) = before.iter().find(|old| old.name == container.name) else { continue };
            for (requirement, resource) in REQUIREMENTS.iter().flat_map(|one| RESOURCES.map(|of| (*one, of))) {
                if let Some(operation) =
                    operation(amount(old, requirement, resource), amount(&container, requirement, resource))
                {
                    self.containers.resizes.of(&[operation, requirement, resource]).add_one();
                }
            }
        }
    }

    /// It is told of a pod what comes of its new sizes: `reason` is the event's.
    pub(crate) fn resize_told(&self, resizing: &mut Resizing, reason: &str) {
        let success = match reason {
            "ResizeStarted" => {
                *resizing = Some(Instant::now());
                return;
            }
            "ResizeCompleted" => "true",
            "ResizeError" => "false",
            _ => return,
        };
        let since = if success == "true" { resizing.take() } else { *resizing };
        if let Some(since) = since {
            self.pods.resize_took.of(&[success]).observe(since.elapsed().as_secs_f64() * 1000.0);
        }
    }
}

fn amount(container: &v1::Container, requirement: &str, resource: &str) -> Option<Amount> {
    let sizes = container.resources.as_ref()?;
    let all = if requirement == "limits" { &sizes.limits } else { &sizes.requests };
    all.as_ref()?.get(resource).and_then(|amount| Amount::parse(&amount.0).ok())
}

/// kubelet 1.36: its words for what happens to an amount; `None`: nothing.
fn operation(before: Option<Amount>, now: Option<Amount>) -> Option<&'static str> {
    match (before, now) {
        (None, None) => None,
        (None, Some(_)) => Some("add"),
        (Some(_), None) => Some("remove"),
        (Some(before), Some(now)) if now > before => Some("increase"),
        (Some(before), Some(now)) if now < before => Some("decrease"),
        (Some(_), Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rubelet_api::metrics::Text;
    use serde_json::{Value, json};

    use super::*;

    fn pod(resources: Value) -> v1::Pod {
        let spec = json!({ "containers": [{ "name": "a", "resources": resources }] });
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
    }

    fn page(metrics: &Metrics) -> String {
        let mut page = Vec::new();
        metrics.tell(&mut Text::new(&mut page)).unwrap();
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn each_amount_that_changes_is_counted() {
        let metrics = Metrics::default();
        let before = pod(json!({ "requests": { "cpu": "100m", "memory": "1Gi" }, "limits": { "cpu": "1" } }));
        let now = pod(json!({ "requests": { "cpu": "0.2", "memory": "1024Mi" }, "limits": { "memory": "2Gi" } }));
        metrics.sizes_wanted(&before, &now);
        let page = page(&metrics);
        let name = "kubelet_container_requested_resizes_total";
        for labels in [
            "operation=\"increase\",requirement=\"requests\",resource=\"cpu\"",
            "operation=\"remove\",requirement=\"limits\",resource=\"cpu\"",
            "operation=\"add\",requirement=\"limits\",resource=\"memory\"",
        ] {
            assert!(page.contains(&format!("{name}{{{labels}}} 1\n")), "{labels} in {page}");
        }
        assert_eq!(page.matches(&format!("{name}{{")).count(), 3, "what stays the same is not counted: {page}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_resize_takes_from_its_start_to_its_end() {
        let (metrics, mut resizing) = (Metrics::default(), None);
        metrics.resize_told(&mut resizing, "ResizeCompleted");
        metrics.resize_told(&mut resizing, "ResizeStarted");
        tokio::time::advance(Duration::from_millis(20)).await;
        metrics.resize_told(&mut resizing, "ResizeError");
        tokio::time::advance(Duration::from_millis(20)).await;
        metrics.resize_told(&mut resizing, "ResizeCompleted");
        let page = page(&metrics);
        for line in [
            "kubelet_pod_resize_duration_milliseconds_sum{success=\"false\"} 20",
            "kubelet_pod_resize_duration_milliseconds_sum{success=\"true\"} 40",
            "kubelet_pod_resize_duration_milliseconds_count{success=\"true\"} 1",
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line} in {page}");
        }
    }
}
