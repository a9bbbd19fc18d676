//! What the real kubelet told its runtime, and what we would tell it: every recorded sandbox and container.

#[path = "golden/message.rs"]
mod message;
#[path = "golden/node.rs"]
mod node;
#[path = "golden/record.rs"]
mod record;

use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_core::node::CgroupVersion;
use rubelet_core::pod::fact::ImageFound;
use rubelet_core::pod::needs::Inputs;
use rubelet_core::render::{self, ContainerView};
use rubelet_core::resources::cgroup::pod_cgroup;
use serde_json::{Value, json};

use node::{Machine, POD_IP};
use record::Record;

#[test]
fn every_recorded_sandbox_is_rendered_alike() {
    let compared = each_call("RunPodSandbox", |record, node, request| {
        let attempt = request["config"]["metadata"]["attempt"].as_u64().unwrap_or(0);
        let attempt = u32::try_from(attempt).expect("a small number");
        let config = render::sandbox_config(&record.pod, attempt, node).expect("the recorded pods can be rendered");
        json!({ "config": message::sandbox(&config) })
    });
    assert!(compared >= 41, "{compared} sandboxes were compared");
}

#[test]
fn every_recorded_container_is_rendered_alike() {
    let compared = each_call("CreateContainer", |record, node, request| {
        let container = request["config"]["metadata"]["name"].as_str().expect("a name").to_owned();
        let restarts =
            request["config"]["annotations"]["io.kubernetes.container.restartCount"].as_str().expect("a count");
        let sandbox = SandboxId::new(request["pod_sandbox_id"].as_str().expect("a sandbox"));
        let sandbox_attempt = request["sandbox_config"]["metadata"]["attempt"].as_u64().unwrap_or(0);
        let created = render::create_container(&ContainerView {
            pod: &record.pod,
            container: &container,
            node,
            restart_count: restarts.parse().expect("a number"),
            image: &ImageFound { image_ref: "<digest>".to_owned(), uid: Some(0), ..Default::default() },
            sandbox: &sandbox,
            target: None,
            sandbox_attempt: u32::try_from(sandbox_attempt).expect("a small number"),
            pod_ips: &record.pod_ips(),
            inputs: &Inputs::default(),
            now: node::now(),
        });
        let created = created.expect("the recorded pods can be rendered");
        json!({
            "pod_sandbox_id": created.sandbox.as_str(),
            "config": message::container(&created.config),
            "sandbox_config": message::sandbox(&created.sandbox_config),
        })
    });
    assert!(compared >= 80, "{compared} containers were compared");
}

#[test]
fn every_pods_cgroup_has_the_recorded_values() {
    let mut compared = 0;
    for machine in Machine::ALL {
        let node = machine.facts();
        for record in Record::all(machine) {
            let cgroup = pod_cgroup(&record.pod, &node);
            let parent = rubelet_core::resources::cgroup::cgroup_parent(&record.pod, &node);
            for (file, recorded) in record.cgroup_values(&parent) {
                let ours = match (file.as_str(), node.cgroup.version) {
                    ("cpu.shares", CgroupVersion::V1) => cgroup.cpu_shares.to_string(),
                    ("cpu.cfs_quota_us", CgroupVersion::V1) => cgroup.cpu_quota_us.unwrap_or(-1).to_string(),
                    ("cpu.cfs_period_us", CgroupVersion::V1) => cgroup.cpu_period_us.to_string(),
                    ("memory.limit_in_bytes", CgroupVersion::V1) => {
                        cgroup.memory_limit_bytes.unwrap_or(9_223_372_036_854_771_712).to_string()
                    }
                    ("pids.max", _) => cgroup.pids_max.map_or("max".to_owned(), |n| n.to_string()),
                    ("cpu.weight", CgroupVersion::V2) => (1 + (cgroup.cpu_shares - 2) * 9999 / 262_142).to_string(),
                    ("cpu.max", CgroupVersion::V2) => {
                        format!(
                            "{} {}",
                            cgroup.cpu_quota_us.map_or("max".to_owned(), |n| n.to_string()),
                            cgroup.cpu_period_us
                        )
                    }
                    ("memory.max", CgroupVersion::V2) => {
                        cgroup.memory_limit_bytes.map_or("max".to_owned(), |n| n.to_string())
                    }
                    _ => continue,
                };
                assert_eq!(ours, recorded, "{} {file}", record.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 150, "{compared} values were compared");
}

#[test]
fn every_hosts_file_and_log_link_is_the_recorded_one() {
    let (mut files, mut links) = (0, 0);
    for machine in Machine::ALL {
        for record in Record::all(machine) {
            let mut node = machine.facts();
            let recorded = record.read("etc-hosts.txt");
            if let Some(of_host) = recorded.strip_prefix("# Kubernetes-managed hosts file (host network).\n") {
                node.host_etc_hosts = of_host.to_owned();
            }
            if !recorded.is_empty() {
                let ours =
                    render::hosts::etc_hosts(&record.pod, &node, &record.pod_ips()).expect("the pod has an address");
                assert_eq!(ours.replace(POD_IP, "<podIP>"), recorded, "{}", record.name);
                files += 1;
            }
            for (link, target) in record.log_links() {
                let id = link.rsplit_once('-').expect("an id").1.strip_suffix(".log").expect("a log");
                let id = ContainerId::new(format!("<container-{id}"));
                let mut parts = target.strip_suffix(".log").expect("a log").rsplit('/');
                let restarts = parts.next().and_then(|n| n.parse().ok()).expect("a count");
                let ours = render::log_link(&record.pod, parts.next().expect("a container"), restarts, &id, &node);
                assert_eq!(
                    (ours.link.to_str(), ours.target.to_str()),
                    (Some(link.as_str()), Some(target.as_str())),
                    "{}",
                    record.name
                );
                links += 1;
            }
        }
    }
    assert!(files >= 20 && links >= 60, "{files} files and {links} links were compared");
}

/// Compares what `ours` makes of each recorded request of that method; returns how many there were.
fn each_call(method: &str, ours: impl Fn(&Record, &rubelet_core::node::NodeFacts, &Value) -> Value) -> usize {
    let mut compared = 0;
    for machine in Machine::ALL {
        let node = machine.facts();
        for record in Record::all(machine) {
            for request in record.requests(method) {
                let rendered = record::comparable(ours(&record, &node, &request));
                let recorded = record::comparable(request);
                if rendered != recorded {
                    let (ours, theirs) = (format!("{rendered:#}"), format!("{recorded:#}"));
                    let lines: Vec<String> = differing(&theirs, &ours);
                    panic!("{machine:?} {} {method}:\n{}", record.name, lines.join("\n"));
                }
                compared += 1;
            }
        }
    }
    compared
}

/// Lines that only one of the two has: `-` recorded, `+` ours.
fn differing(recorded: &str, ours: &str) -> Vec<String> {
    let only = |of: &str, not_in: &str, sign: &str| -> Vec<String> {
        of.lines()
            .filter(|line| !not_in.lines().any(|other| other == *line))
            .map(|line| format!("{sign} {line}"))
            .collect()
    };
    let mut lines = only(recorded, ours, "-");
    lines.extend(only(ours, recorded, "+"));
    lines
}
