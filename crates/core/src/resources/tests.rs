use serde_json::{Value, json};

use super::cgroup::{burstable_shares, cgroup_parent, pod_cgroup};
use super::{linux_resources, oom_score_adj};
use crate::node::{CgroupDriver, CgroupVersion};
use crate::sample::{node, pod, pod_with};

fn memory(request: &str, limit: &str) -> Value {
    let mut resources = json!({});
    for (side, amount) in [("requests", request), ("limits", limit)] {
        if !amount.is_empty() {
            resources[side] = json!({ "memory": amount });
        }
    }
    json!({ "resources": resources })
}

#[test]
fn the_more_a_burstable_container_asks_for_the_later_it_is_killed() {
    let node = node();
    for (request, score) in [("", 999), ("1Mi", 999), ("1Gi", 875), ("7Gi", 125), ("8Gi", 3), ("80Gi", 3)] {
        let mut container = memory(request, "");
        container["resources"]["limits"] = json!({ "cpu": "1" });
        let pod = pod_with(container, json!({}));
        let spec = pod.spec.as_ref().expect("a spec");
        assert_eq!(oom_score_adj(&pod, &spec.containers[0], &node), score, "{request}");
    }
}

#[test]
fn a_sidecar_is_killed_no_earlier_than_the_container_that_asks_for_least() {
    let pod = pod(json!({
        "initContainers": [{ "name": "side", "restartPolicy": "Always" }, { "name": "once" }],
        "containers": [
            { "name": "a", "resources": { "requests": { "memory": "4Gi" } } },
            { "name": "b", "resources": { "requests": { "memory": "2Gi" } } },
        ],
    }));
    let scores: Vec<i64> = crate::render::containers(&pod).map(|c| oom_score_adj(&pod, c, &node())).collect();
    assert_eq!(scores, [750, 999, 500, 750]);
}

#[test]
fn what_the_pod_asks_for_above_its_containers_is_split_among_them() {
    let pod = pod(json!({
        "resources": { "requests": { "memory": "4Gi" } },
        "containers": [{ "name": "a", "resources": { "requests": { "memory": "2Gi" } } }, { "name": "b" }],
    }));
    let scores: Vec<i64> = crate::render::containers(&pod).map(|c| oom_score_adj(&pod, c, &node())).collect();
    assert_eq!(scores, [625, 875]);
}

#[test]
fn node_critical_pods_are_killed_last() {
    let mut pod =
        pod_with(json!({}), json!({ "priorityClassName": "system-node-critical", "priority": 2_000_001_000 }));
    assert_eq!(oom_score_adj(&pod, &pod.spec.as_ref().expect("a spec").containers[0], &node()), -997);
    pod.spec.as_mut().expect("a spec").priority_class_name = Some("system-cluster-critical".into());
    assert_eq!(oom_score_adj(&pod, &pod.spec.as_ref().expect("a spec").containers[0], &node()), 1000);
}

#[test]
fn swap_is_none_unless_limited_swap_gives_a_burstable_container_its_part() {
    let mut node = node();
    let swap = |container: Value, node: &_| {
        let pod = pod_with(container, json!({}));
        let made = linux_resources(&pod, &pod.spec.as_ref().expect("a spec").containers[0], node);
        (made.unified.get("memory.swap.max").cloned().unwrap_or_default(), made.memory_swap_limit_in_bytes)
    };
    assert_eq!(swap(memory("1Gi", ""), &node), ("0".into(), 0));
    node.settings.limited_swap = true;
    assert_eq!(swap(memory("1Gi", ""), &node), ((512_u64 << 20).to_string(), 0));
    assert_eq!(swap(memory("1Gi", "1Gi"), &node), ("0".into(), 0), "request equals limit");
    assert_eq!(swap(memory("", "1Gi"), &node), ("0".into(), 0), "no request");
    node.cgroup.version = CgroupVersion::V1;
    assert_eq!(swap(memory("", "1Gi"), &node), (String::new(), 1 << 30), "v1 counts both together");
    node.machine.has_swap_control = false;
    assert_eq!(swap(memory("", "1Gi"), &node), (String::new(), 0), "the kernel does not count");
}

#[test]
fn settings_change_quota_and_kill_group() {
    let mut node = node();
    let made = |node: &_| {
        let pod = pod_with(json!({ "resources": { "limits": { "cpu": "500m" } } }), json!({}));
        let resources = linux_resources(&pod, &pod.spec.as_ref().expect("a spec").containers[0], node);
        (pod_cgroup(&pod, node).cpu_quota_us, resources)
    };
    let (of_pod, resources) = made(&node);
    assert_eq!(
        (of_pod, resources.cpu_quota, resources.cpu_shares),
        (Some(50_000), 50_000, 512),
        "a limit stands for the request"
    );
    assert_eq!(resources.unified.get("memory.oom.group").map(String::as_str), Some("1"));
    node.settings.cpu_cfs_quota = false;
    node.settings.single_process_oom_kill = Some(true);
    let (of_pod, resources) = made(&node);
    assert_eq!((of_pod, resources.cpu_quota, resources.cpu_period), (None, 0, 0));
    assert_eq!(resources.unified.get("memory.oom.group"), None);
}

#[test]
fn a_pods_cgroup_has_huge_page_limits_for_every_size_and_the_pids_limit() {
    let mut node = node();
    node.settings.pod_pids_limit = 100;
    let limits = json!({ "hugepages-2Mi": "8Mi", "memory": "64Mi" });
    let pod = pod_with(json!({ "resources": { "limits": limits, "requests": limits } }), json!({}));
    let cgroup = pod_cgroup(&pod, &node);
    assert_eq!(cgroup.hugetlb, [(2 << 20, 8 << 20), (1 << 30, 0)]);
    assert_eq!(cgroup.pids_max, Some(100));
    let made = linux_resources(&pod, &pod.spec.as_ref().expect("a spec").containers[0], &node);
    let shown: Vec<(&str, u64)> = made.hugepage_limits.iter().map(|h| (h.page_size.as_str(), h.limit)).collect();
    assert_eq!(shown, [("2MB", 8 << 20), ("1GB", 0)]);
}

#[test]
fn pod_level_limits_bind_the_pod_and_containers_without_their_own() {
    let pod = pod(json!({
        "resources": { "limits": { "memory": "64Mi", "cpu": "1" }, "requests": { "cpu": "500m" } },
        "containers": [{ "name": "a", "resources": { "limits": { "memory": "16Mi" } } }, { "name": "b" }],
    }));
    let cgroup = pod_cgroup(&pod, &node());
    assert_eq!(
        (cgroup.memory_limit_bytes, cgroup.cpu_quota_us, cgroup.cpu_shares),
        (Some(64 << 20), Some(100_000), 512)
    );
    let containers = &pod.spec.as_ref().expect("a spec").containers;
    let of = |i: usize| linux_resources(&pod, &containers[i], &node()).memory_limit_in_bytes;
    assert_eq!((of(0), of(1)), (16 << 20, 64 << 20));
}

#[test]
fn the_parent_is_named_as_the_driver_names_it() {
    let mut pod = pod_with(json!({}), json!({}));
    pod.metadata.uid = Some("aa-bb".into());
    let mut node = node();
    let mut parents = Vec::new();
    for (driver, root, per_qos) in [
        (CgroupDriver::Cgroupfs, "/", true),
        (CgroupDriver::Cgroupfs, "/own/", true),
        (CgroupDriver::Systemd, "/own", true),
        (CgroupDriver::Systemd, "/", false),
    ] {
        (node.cgroup.driver, node.cgroup.root, node.cgroup.per_qos) = (driver, root.into(), per_qos);
        parents.push(cgroup_parent(&pod, &node));
    }
    assert_eq!(
        parents,
        [
            "/kubepods/besteffort/podaa-bb",
            "/own/kubepods/besteffort/podaa-bb",
            "/own.slice/own-kubepods.slice/own-kubepods-besteffort.slice/own-kubepods-besteffort-podaa_bb.slice",
            "/",
        ]
    );
}

#[test]
fn the_burstable_level_weighs_what_its_pods_ask_for() {
    let asking = |cpu: &str| pod_with(json!({ "resources": { "requests": { "cpu": cpu } } }), json!({}));
    let pods = [asking("100m"), asking("1900m"), pod_with(json!({}), json!({}))];
    assert_eq!(burstable_shares(&pods, true), 2048);
    assert_eq!(burstable_shares(&pods[2..], true), 2);
}
