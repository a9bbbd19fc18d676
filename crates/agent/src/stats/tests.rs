use std::collections::BTreeSet;

use rubelet_api::stats::PodStats;
use rubelet_host::cgroup::usage::Pressures;
use rubelet_host::proc::{Interface, Traffic};
use serde_json::Value;

use super::ground::child_of;
use super::*;

const GOLDEN: &str = include_str!("../../../../tests/golden/stats-summary.json");

/// Every path of fields in a JSON value; lists count as one item.
fn paths(value: &Value, at: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                paths(inner, &format!("{at}.{name}"), into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, at, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            into.insert(at.to_owned());
        }
    }
}

fn full_usage() -> rubelet_host::cgroup::usage::Usage {
    rubelet_host::cgroup::usage::Usage {
        cpu_nanos: Some(1),
        memory_bytes: Some(2),
        working_set_bytes: Some(1),
        rss_bytes: Some(1),
        memory_limit_bytes: Some(10),
        page_faults: Some(0),
        major_page_faults: Some(0),
        swap_bytes: Some(0),
        swap_limit_bytes: Some(0),
        ..Default::default()
    }
}

/// A summary with everything that we can tell, field by field that of the recorded one: nothing recorded is missing.
#[test]
fn every_recorded_field_has_its_place() {
    let time = now();
    // On cgroup v1, where it was recorded, the kernel counts no pressure of cgroups.
    let unknown = Pressures::default();
    let usage = summary::usage_stats(&full_usage(), &summary::or_none_felt(unknown), time, Some(1));
    let of_container = summary::usage_stats(&full_usage(), &unknown, time, Some(1));
    let fs = Some(summary::fs_stats(&rubelet_host::disk::FileSystem::default(), None, time));
    let interface = Interface { name: "eth0".into(), received: Traffic::default(), sent: Traffic::default() };
    let container =
        rubelet_api::stats::ContainerStats { name: "c".into(), start_time: time, usage, rootfs: fs, logs: fs };
    let node = rubelet_api::stats::NodeStats {
        node_name: "node-a".into(),
        system_containers: vec![container.clone()],
        start_time: time,
        usage,
        network: Some(summary::network_stats(&[interface], "eth0", time)),
        fs,
        runtime: Some(rubelet_api::stats::RuntimeStats { image_fs: fs, container_fs: fs }),
        rlimit: Some(rubelet_api::stats::RlimitStats { time, max_pid: Some(1), current_processes: Some(1) }),
    };
    let inner = rubelet_api::stats::ContainerStats { usage: of_container, ..container };
    let pod = PodStats { containers: vec![inner], usage, ephemeral_storage: fs, ..PodStats::default() };
    let ours = serde_json::json!({ "node": node, "pods": [pod] });
    let (mut recorded, mut told) = (BTreeSet::new(), BTreeSet::new());
    paths(&serde_json::from_str(GOLDEN).unwrap(), "", &mut recorded);
    paths(&ours, "", &mut told);
    let is_pressure = |path: &&String| path.contains("psi");
    assert_eq!(told.iter().filter(is_pressure).count(), recorded.iter().filter(is_pressure).count());
    let missing: Vec<&String> = recorded.difference(&told).collect();
    assert_eq!(missing, Vec::<&String>::new());
    assert!(recorded.len() > 100, "the record was read: {}", recorded.len());
}

#[test]
fn containers_are_found_under_any_runtime_s_names() {
    let all: Vec<String> =
        ["crio-conmon-1a.scope", "cri-containerd-2b.scope", "3c", "x3c", "rubelet-4d.scope"].map(str::to_owned).into();
    assert_eq!(child_of(&all, "2b"), Some("cri-containerd-2b.scope"));
    assert_eq!(child_of(&all, "3c"), Some("3c"));
    assert_eq!(child_of(&all, "4d"), Some("rubelet-4d.scope"));
    assert_eq!(child_of(&all, "5e"), None);
}

#[test]
fn ends_of_pods_are_no_interfaces_of_the_node() {
    let told = |name: &str| {
        summary::is_told(&Interface { name: name.into(), received: Traffic::default(), sent: Traffic::default() })
    };
    assert!(told("eth0") && told("ifb0") && told("rblx"));
    assert!(!told("lo") && !told("veth12") && !told("docker0") && !told("rbl1a55d9857f86"));
}
