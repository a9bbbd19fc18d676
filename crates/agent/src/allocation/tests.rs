//! On a made-up machine of two NUMA nodes: CPUs 0 to 3 and 1 GiB each are on node 0, 4 to 7 on node 1.

use std::fs;
use std::path::Path;

use rubelet_core::resources::memory::Policy as MemoryPolicy;
use serde_json::json;

use super::*;
use crate::clock::Clock;

fn machine(root: &Path) {
    let write = |path: String, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("cpu/online".to_owned(), "0-7\n");
    for cpu in 0..8 {
        write(format!("cpu/cpu{cpu}/topology/core_id"), &cpu.to_string());
        write(format!("cpu/cpu{cpu}/topology/physical_package_id"), "0");
        write(format!("node/node{}/cpu{cpu}/online", cpu / 4), "1");
    }
    for (node, distances) in ["10 21", "21 10"].into_iter().enumerate() {
        write(format!("node/node{node}/distance"), distances);
        write(format!("node/node{node}/meminfo"), &format!("Node {node} MemTotal:  1048576 kB\n"));
    }
}

struct Stage {
    folder: tempfile::TempDir,
    settings: AllocationSettings,
}

impl Stage {
    fn new(policy: &str, scope: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        machine(&folder.path().join("machine"));
        let limits = json!({"numaNode": 0, "limits": {"memory": "100Mi"}});
        let settings = AllocationSettings {
            static_cpus: true,
            reserved_cpus: "0".to_owned(),
            reserved_cpu_milli: 1000,
            lifts_quota: true,
            memory_policy: MemoryPolicy::Static,
            reserved_memory: vec![serde_json::from_value(limits).unwrap()],
            kept_memory: vec![[("memory".to_owned(), rubelet_api::quantity::Amount::bytes(100 << 20))].into()],
            topology_policy: policy.to_owned(),
            topology_scope: scope.to_owned(),
            machine_root: folder.path().join("machine"),
            ..AllocationSettings::default()
        };
        Self { folder, settings }
    }

    fn open(&self) -> Result<Allocation, String> {
        let metrics = Arc::new(Metrics::default());
        let devices = Arc::new(Devices::open(self.folder.path(), Clock::start(), metrics.clone()));
        Allocation::open(&self.settings, self.folder.path(), devices, metrics)
    }
}

/// A pod whose containers ask for so many CPUs each, and for 64 MiB.
fn pod(uid: &str, cpus: &[&str]) -> v1::Pod {
    let container = |(at, cpu): (usize, &&str)| {
        let resources = json!({"cpu": cpu, "memory": "64Mi"});
        json!({"name": format!("c{at}"), "resources": {"limits": resources, "requests": resources}})
    };
    let containers: Vec<_> = cpus.iter().enumerate().map(container).collect();
    serde_json::from_value(json!({
        "metadata": {"uid": uid, "name": uid, "namespace": "default"},
        "spec": {"containers": containers},
    }))
    .unwrap()
}

fn cpus(allocation: &Allocation, uid: &str, container: &str) -> Vec<i64> {
    allocation.shown(&PodUid::new(uid), container).cpu_ids
}

/// What a container would be made with: CPUs, nodes of memory, quota.
async fn made(allocation: &Allocation, pod: &v1::Pod, container: &str) -> (String, String, i64) {
    let mut config = cri::ContainerConfig::default();
    config.linux.get_or_insert_default().resources.get_or_insert_default().cpu_quota = 100_000;
    allocation.fill(&mut config, pod, container).await;
    let resources = config.linux.unwrap().resources.unwrap();
    (resources.cpuset_cpus, resources.cpuset_mems, resources.cpu_quota)
}

#[tokio::test]
async fn a_container_has_cpus_and_memory_of_one_node() {
    let stage = Stage::new("single-numa-node", "container");
    let allocation = stage.open().unwrap();
    // Three are left on node 0.
    let large = pod("large", &["4"]);
    assert_eq!(allocation.admit(&large, |_| true).await, Ok(false));
    assert_eq!(made(&allocation, &large, "c0").await, ("4-7".to_owned(), "1".to_owned(), -1));
    assert_eq!(made(&allocation, &pod("other", &["500m"]), "c0").await, ("0-3".to_owned(), String::new(), 100_000));
    assert!(allocation.is_quota_lifted(&PodUid::new("large")));
    let refused = Refusal { reason: AFFINITY, message: AFFINITY_WORDS.to_owned() };
    assert_eq!(allocation.admit(&pod("next", &["2", "2"]), |_| true).await, Err(refused), "the second has no room");
    assert_eq!(cpus(&allocation, "next", "c0"), [] as [i64; 0], "and the first gives its back");
    assert_eq!(allocation.admit(&pod("small", &["2"]), |_| true).await, Ok(false));
    assert_eq!(cpus(&allocation, "small", "c0"), [1, 2]);
    let memory = allocation.shown(&PodUid::new("small"), "c0").memory;
    assert_eq!((memory.len(), memory[0].size, memory[0].topology.as_ref().unwrap().nodes[0].id), (1, 64 << 20, 0));
    assert_eq!(allocation.shown_allocatable().cpu_ids, [1, 2, 3, 4, 5, 6, 7]);

    // Who is gone gives back.
    allocation.give_back(&PodUid::new("large")).await;
    assert_eq!(made(&allocation, &pod("other", &["500m"]), "c0").await.0, "0,3-7");
}

#[tokio::test]
async fn a_pod_has_one_node_for_all_its_containers() {
    for (scope, of_first, of_second) in [("container", vec![1, 2], vec![4, 5]), ("pod", vec![4, 5], vec![6, 7])] {
        let stage = Stage::new("single-numa-node", scope);
        let allocation = stage.open().unwrap();
        assert_eq!(allocation.admit(&pod("p", &["2", "2"]), |_| true).await, Ok(false), "{scope}");
        assert_eq!((cpus(&allocation, "p", "c0"), cpus(&allocation, "p", "c1")), (of_first, of_second), "{scope}");
        let mut told = Vec::new();
        allocation.metrics.allocation.tell(&mut rubelet_api::metrics::Text::new(&mut told)).unwrap();
        let count = if scope == "pod" { 1 } else { 2 };
        let row = format!("resources_count{{boundary=\"numa_node\",scope=\"{scope}\"}} {count}\n");
        assert!(String::from_utf8(told).unwrap().contains(&row), "{row}");
    }
}

#[tokio::test]
async fn what_containers_have_outlives_the_agent() {
    let mut stage = Stage::new("none", "container");
    let allocation = stage.open().unwrap();
    let own = pod("own", &["2"]);
    assert_eq!(allocation.admit(&own, |_| true).await, Ok(false));
    drop(allocation);
    let read = |name: &str| fs::read_to_string(stage.folder.path().join(name)).unwrap();
    let before = (read("cpu_manager_state"), read("memory_manager_state"));
    assert!(before.0.contains(r#""defaultCpuSet":"0,3-7","entries":{"own":{"c0":"1-2"}}"#), "{}", before.0);

    let allocation = stage.open().unwrap();
    assert_eq!(made(&allocation, &own, "c0").await, ("1-2".to_owned(), "0".to_owned(), -1));
    assert_eq!(allocation.admit(&own, |_| true).await, Ok(false), "it has what it wants");
    assert_eq!((read("cpu_manager_state"), read("memory_manager_state")), before);
    // A pod that runs and of which nobody wrote anything down.
    allocation.adopt(&pod("found", &["1"])).await;
    assert_eq!(cpus(&allocation, "found", "c0"), [3]);
    allocation.adopt(&pod("too-large", &["7"])).await;
    assert_eq!(cpus(&allocation, "too-large", "c0"), [] as [i64; 0], "it goes on and shares");
    drop(allocation);

    // Other settings than those it was written with.
    stage.settings.reserved_cpus = "1".to_owned();
    let refused = stage.open().err().unwrap();
    assert!(refused.contains("remove") && refused.ends_with("cpu_manager_state"), "{refused}");
    stage.settings.reserved_cpus = "0,9".to_owned();
    assert_eq!(stage.open().err().unwrap(), "reserved-cpus: 0,9 is not a subset of online-cpus: 0-7");
    (stage.settings.static_cpus, stage.settings.reserved_cpus) = (false, String::new());
    let refused = stage.open().err().unwrap();
    assert!(refused.contains(r#"configured policy "none" differs from state checkpoint policy "static""#), "{refused}");
}

#[tokio::test]
async fn what_the_runtime_was_not_told_is_told_once() {
    let stage = Stage::new("none", "container");
    let allocation = stage.open().unwrap();
    let ids = |names: &[&str]| {
        let of = |name: &&str| (ContainerId::new(*name), (PodUid::new(*name), "c0".to_owned()));
        names.iter().map(of).collect::<std::collections::BTreeMap<_, _>>()
    };
    let shares = ContainerId::new("shares");
    let untold = |names: &[&str]| allocation.pins.untold(&ids(names));
    assert_eq!(untold(&["shares"]), [(shares.clone(), "0-7".to_owned())]);
    allocation.made(&shares, "0-7");
    assert_eq!(untold(&["shares"]), []);
    allocation.admit(&pod("own", &["1"]), |_| true).await.unwrap();
    allocation.made(&ContainerId::new("own"), "1");
    assert_eq!(untold(&["own", "shares"]), [(shares, "0,2-7".to_owned())]);
}
