//! Tables of what upstream decides.

use rubelet_api::ids::PodUid;
use serde_json::{Value, json};

use super::{
    Candidate, ContainerUse, DiskUse, Layout, Observation, Observations, PodUse, Pressures, Reclaim, Rules, Signal,
    Watch, admit,
};
use crate::admit::Verdict;
use crate::now::Mono;
use crate::sample;

const MEMORY: Pressures = Pressures { memory: true, disk: false, pids: false };
const DISK: Pressures = Pressures { memory: false, disk: true, pids: false };

fn spec(more: Value) -> Value {
    let mut spec = json!({ "containers": [{ "name": "a" }] });
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    spec
}

#[test]
fn a_node_under_pressure_lets_in_who_may() {
    let asks = json!({ "containers": [{ "name": "a", "resources": { "requests": { "memory": "1Mi" } } }] });
    let toleration = |t: Value| spec(json!({ "tolerations": [t] }));
    let memory = "node.kubernetes.io/memory-pressure";
    let both = Pressures { pids: true, ..MEMORY };
    for (name, spec, pressures, refusal) in [
        ("no pressure", spec(json!({})), Pressures::default(), None),
        ("best effort", spec(json!({})), MEMORY, Some("[MemoryPressure]")),
        ("burstable", asks.clone(), MEMORY, None),
        ("burstable, disk", asks.clone(), DISK, Some("[DiskPressure]")),
        ("burstable, two", asks, both, Some("[MemoryPressure PIDPressure]")),
        ("critical", spec(json!({ "priority": 2_000_000_000 })), DISK, None),
        ("tolerates", toleration(json!({ "key": memory, "operator": "Exists" })), MEMORY, None),
        ("tolerates all", toleration(json!({ "operator": "Exists" })), MEMORY, None),
        ("equal", toleration(json!({ "key": memory, "effect": "NoSchedule" })), MEMORY, None),
        ("a value", toleration(json!({ "key": memory, "value": "x" })), MEMORY, Some("[MemoryPressure]")),
        ("an effect", toleration(json!({ "key": memory, "effect": "NoExecute" })), MEMORY, Some("[MemoryPressure]")),
        ("tolerates memory, disk", toleration(json!({ "operator": "Exists" })), DISK, Some("[DiskPressure]")),
    ] {
        let wanted = refusal.map(|names| Verdict::Rejected {
            reason: "Evicted".into(),
            message: format!("The node had condition: {names}. "),
        });
        assert_eq!(admit(&sample::pod(spec), pressures), wanted, "{name}");
    }
}

fn rules(config: Value) -> Rules {
    let eviction: rubelet_api::config::Eviction = {
        let draft = rubelet_api::config::Eviction::default();
        let mut eviction = draft;
        let map = |name: &str| serde_json::from_value(config.get(name).cloned().unwrap_or(json!({}))).expect("a map");
        eviction.hard.0 = map("hard");
        eviction.soft = map("soft");
        eviction.soft_grace_period = map("grace");
        eviction.minimum_reclaim = map("reclaim");
        eviction.max_pod_grace_period = 20;
        eviction.pressure_transition_period = "1m".parse().expect("a duration");
        eviction
    };
    Rules { local_storage: true, ..Rules::of(&eviction, false).expect("good") }
}

fn seen(all: &[(Signal, i64, i64)]) -> Observations {
    all.iter()
        .map(|(s, available, capacity)| (*s, Observation { available: *available, capacity: *capacity }))
        .collect()
}

const MIB: i64 = 1 << 20;

#[test]
fn thresholds_are_what_the_configuration_says() {
    let hard = json!({ "hard": { "memory.available": "100Mi", "nodefs.available": "10%", "imagefs.available": "0%", "nodefs.inodesFree": "5%" } });
    let all = rules(hard.clone());
    let names: Vec<&str> = all.thresholds.iter().map(|t| t.signal.as_str()).collect();
    assert_eq!(names, ["memory.available", "nodefs.available", "nodefs.inodesFree"]);
    let on = |layout| all.clone().on(layout).thresholds.iter().map(|t| t.signal.as_str()).collect::<Vec<_>>();
    assert_eq!(on(Layout::Single)[3..], ["containerfs.available", "containerfs.inodesFree"]);
    assert_eq!(on(Layout::ImageFs)[3..], [""; 0]);
    let mut eviction = rubelet_api::config::Eviction::default();
    eviction.hard.0.insert("memory.available".into(), "100Mi".into());
    let held = Rules::of(&eviction, true).expect("good");
    assert_eq!(held.thresholds[1].signal, Signal::AllocatableMemoryAvailable);
    assert_eq!(held.transition.as_secs(), 300, "zero is five minutes");
}

#[test]
fn a_hard_threshold_is_a_shortage_at_once_and_the_condition_outlasts_it() {
    let hard = json!({ "hard": { "memory.available": "100Mi" }, "reclaim": { "memory.available": "50Mi" } });
    let mut watch = Watch::new(rules(hard), Layout::Single);
    let mut at = |secs: u64, mib: i64| {
        let look = watch.look(&seen(&[(Signal::MemoryAvailable, mib * MIB, 1000 * MIB)]), Mono::from_secs(secs));
        (look.pressures.memory, look.shortage.is_some())
    };
    assert_eq!(at(0, 100), (false, false), "exactly the threshold is enough");
    assert_eq!(at(10, 99), (true, true));
    assert_eq!(at(20, 120), (true, true), "what must be reclaimed on top is not there");
    assert_eq!(at(30, 150), (true, false));
    assert_eq!(at(79, 120), (true, false), "above the threshold it is not met again");
    assert_eq!(at(80, 150), (false, false), "a minute after it was last met");
}

#[test]
fn a_soft_threshold_has_its_grace() {
    let soft = json!({ "soft": { "pid.available": "10%" }, "grace": { "pid.available": "30s" } });
    let mut watch = Watch::new(rules(soft), Layout::Single);
    let mut at = |secs: u64, pids: i64| {
        let look = watch.look(&seen(&[(Signal::PidAvailable, pids, 1000)]), Mono::from_secs(secs));
        (look.pressures.pids, look.shortage.is_some())
    };
    assert_eq!(at(0, 99), (true, false));
    assert_eq!(at(20, 101), (true, false));
    assert_eq!(at(25, 99), (true, false), "it begins anew");
    assert_eq!(at(54, 99), (true, false));
    assert_eq!(at(55, 99), (true, true));
}

fn named(name: &str, spec: Value) -> (PodUid, rubelet_api::v1::Pod) {
    let mut pod = sample::pod(spec);
    pod.metadata.name = Some(name.to_owned());
    (PodUid::new(name), pod)
}

fn asks(memory: &str, disk: &str, priority: i32) -> Value {
    json!({ "priority": priority, "containers": [{ "name": "a", "resources": { "requests": { "memory": memory, "ephemeral-storage": disk } } }] })
}

fn uses(memory: i64, disk: i64, processes: i64) -> PodUse {
    let disk = Some(DiskUse { bytes: disk * MIB, inodes: disk });
    let container =
        ContainerUse { name: "a".into(), memory: Some(memory * MIB), rootfs: disk, logs: Some(DiskUse::default()) };
    PodUse { memory: Some(memory * MIB), processes: Some(processes), containers: vec![container], volumes: Vec::new() }
}

#[test]
fn who_uses_more_than_it_asked_for_goes_first() {
    let pods = [
        (named("within", asks("100Mi", "1Gi", -5)), Some(uses(90, 10, 9))),
        (named("over", asks("10Mi", "1Mi", 5)), Some(uses(20, 900, 1))),
        (named("over-more", asks("10Mi", "1Mi", 5)), Some(uses(30, 20, 2))),
        (named("over-low", asks("10Mi", "1Mi", 1)), Some(uses(11, 2, 3))),
        (named("unknown", asks("10Mi", "1Mi", 100)), None),
        (named("critical", asks("1Mi", "1Mi", 2_000_000_000)), Some(uses(500, 9000, 500))),
    ];
    let order = |signal: Signal| {
        let mut candidates: Vec<Candidate<'_>> =
            pods.iter().map(|((uid, pod), usage)| Candidate { uid, pod, usage: usage.as_ref() }).collect();
        super::rank::rank(&mut candidates, Layout::Single, signal, true);
        candidates.iter().map(|c| c.uid.to_string()).collect::<Vec<_>>()
    };
    let by_memory = ["unknown", "over-low", "over-more", "over", "critical", "within"];
    assert_eq!(order(Signal::MemoryAvailable), by_memory);
    assert_eq!(order(Signal::NodeFsAvailable), ["unknown", "over-low", "over", "over-more", "critical", "within"]);
    assert_eq!(order(Signal::PidAvailable), ["within", "over-low", "over-more", "over", "unknown", "critical"]);

    let mut watch = Watch::new(rules(json!({ "hard": { "memory.available": "10%" } })), Layout::Single);
    let little = seen(&[(Signal::MemoryAvailable, 64 * MIB, 1000 * MIB)]);
    let shortage = watch.look(&little, Mono::from_secs(1)).shortage.expect("there is one");
    let mut candidates: Vec<Candidate<'_>> =
        pods[3..4].iter().map(|((uid, pod), usage)| Candidate { uid, pod, usage: usage.as_ref() }).collect();
    let eviction = watch.choose(&shortage, &mut candidates, &little).expect("somebody goes");
    assert_eq!(
        eviction.message,
        "The node was low on resource: memory. Threshold quantity: 104857601, available: 64Mi. \
         Container a was using 11Mi, request is 10Mi, has larger consumption of memory. ",
        "ten percent as a 32 bit float is a little more than a tenth"
    );
    assert_eq!((eviction.grace_secs, eviction.is_disruption), (1, true));
    let annotations =
        [("offending_containers", "a"), ("offending_containers_usage", "11Mi"), ("starved_resource", "memory")];
    assert_eq!(eviction.annotations, annotations.map(|(key, value)| (key, value.to_owned())));
    let mut critical: Vec<Candidate<'_>> =
        pods[5..].iter().map(|((uid, pod), usage)| Candidate { uid, pod, usage: usage.as_ref() }).collect();
    assert_eq!(watch.choose(&shortage, &mut critical, &little), None);
}

#[test]
fn what_the_node_frees_first_depends_on_its_disks() {
    use Reclaim::{Containers, Images};
    for (layout, signal, wanted) in [
        (Layout::Single, Signal::MemoryAvailable, &[][..]),
        (Layout::Single, Signal::NodeFsAvailable, &[Containers, Images][..]),
        (Layout::ImageFs, Signal::NodeFsInodesFree, &[]),
        (Layout::ImageFs, Signal::ContainerFsAvailable, &[Containers, Images]),
        (Layout::Split, Signal::ImageFsAvailable, &[Images]),
        (Layout::Split, Signal::NodeFsAvailable, &[Containers]),
        (Layout::Split, Signal::PidAvailable, &[]),
    ] {
        assert_eq!(super::rank::reclaims(layout, signal), wanted, "{layout:?} {signal:?}");
    }
}

#[test]
fn a_pod_that_writes_more_than_it_may_goes() {
    let limited = |limit: &str| json!({ "name": "a", "resources": { "limits": { "ephemeral-storage": limit } } });
    let volume = json!([{ "name": "cache", "emptyDir": { "sizeLimit": "8Mi" } }]);
    let disk = |mib: i64| DiskUse { bytes: mib * MIB, inodes: 1 };
    let usage = |layer: i64, logs: i64, volume: i64| PodUse {
        containers: vec![ContainerUse {
            name: "a".into(),
            memory: None,
            rootfs: Some(disk(layer)),
            logs: Some(disk(logs)),
        }],
        volumes: vec![("cache".into(), disk(volume))],
        ..PodUse::default()
    };
    let two = json!([limited("10Mi"), { "name": "b", "resources": { "limits": { "ephemeral-storage": "10Mi" } } }]);
    for (name, spec, usage, layout, wanted) in [
        ("fits", json!({ "containers": [limited("10Mi")], "volumes": volume }), usage(1, 1, 8), Layout::Single, None),
        (
            "a volume",
            json!({ "containers": [limited("10Mi")], "volumes": volume }),
            usage(1, 1, 9),
            Layout::Single,
            Some("Usage of EmptyDir volume \"cache\" exceeds the limit \"8Mi\". "),
        ),
        (
            "all together",
            json!({ "containers": two, "volumes": [{ "name": "cache", "emptyDir": {} }] }),
            usage(5, 4, 12),
            Layout::Single,
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 20Mi. "),
        ),
        (
            "one container",
            json!({ "containers": two }),
            usage(6, 5, 0),
            Layout::Single,
            Some("Container a exceeded its local ephemeral storage limit \"10Mi\". "),
        ),
        ("its layer lies elsewhere", json!({ "containers": two }), usage(6, 5, 0), Layout::ImageFs, None),
        (
            "critical",
            json!({ "priority": 2_000_000_000, "containers": [limited("1Mi")] }),
            usage(6, 5, 0),
            Layout::Single,
            None,
        ),
    ] {
        let (uid, pod) = named("p", spec);
        let candidates = [Candidate { uid: &uid, pod: &pod, usage: Some(&usage) }];
        let evictions = Watch::new(rules(json!({})), layout).over_limits(&candidates);
        assert_eq!(evictions.first().map(|e| e.message.as_str()), wanted, "{name}");
        assert!(evictions.iter().all(|e| !e.is_disruption && e.grace_secs == 1));
    }
}
