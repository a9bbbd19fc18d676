use serde_json::{Value, json};

use super::*;

mod recorded;
mod reserving;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Two nodes of 8 GiB and one huge page of 1 GiB each; 1 GiB of each is kept.
fn machine() -> (Vec<MachineNode>, Reservations) {
    let node = |number| MachineNode { number, memory_bytes: 8 * GIB, huge_pages: vec![(GIB, 1)] };
    let kept = BTreeMap::from([(MEMORY.to_owned(), GIB)]);
    (vec![node(0), node(1)], Reservations::from([(0, kept.clone()), (1, kept)]))
}

fn new() -> Static {
    let (machine, reservations) = machine();
    Static::new(&machine, &reservations)
}

fn container(name: &str, memory: &str) -> Value {
    let resources = json!({ "cpu": "1", "memory": memory });
    json!({ "name": name, "resources": { "requests": resources, "limits": resources } })
}

fn pod(uid: &str, init: &[Value], containers: &[Value]) -> v1::Pod {
    let pod = json!({ "metadata": { "uid": uid }, "spec": { "initContainers": init, "containers": containers } });
    serde_json::from_value(pod).expect("a pod")
}

fn named<'a>(pod: &'a v1::Pod, name: &str) -> &'a v1::Container {
    let containers = init_containers(pod).chain(&pod.spec.as_ref().expect("a spec").containers);
    containers.into_iter().find(|c| c.name == name).expect("a container")
}

const ANY: Hint = Hint { nodes: None, is_preferred: false };

fn on(numbers: &[usize]) -> Hint {
    Hint { nodes: Some(Nodes::of(numbers.iter().copied())), is_preferred: false }
}

fn allocate(all: &mut Static, pod: &v1::Pod, container: &str, affinity: Hint) -> Result<Allocated, String> {
    all.allocate(pod, named(pod, container), affinity)
}

/// MiB that are free on each node.
fn free(all: &Static) -> Vec<u64> {
    all.state.nodes.keys().map(|number| all.state.table(*number, MEMORY).free / MIB).collect()
}

fn mib_of(all: &Static, pod: &v1::Pod, container: &str) -> Option<u64> {
    all.of(&uid_of(pod), container).map(|blocks| blocks[0].bytes / MIB)
}

#[test]
fn policies_have_names() {
    for policy in [Policy::None, Policy::Static] {
        assert_eq!(Policy::of(policy.name()), Ok(policy));
    }
    assert_eq!(Policy::of("static"), Err(r#"unknown policy: "static""#.to_owned()));
    let windows = r#"policy "BestEffort" is not available for platform "linux""#;
    assert_eq!(Policy::of("BestEffort"), Err(windows.to_owned()));
}

#[test]
fn huge_pages_are_no_memory() {
    let all = new();
    let table = Table { total: 8 * GIB, system_reserved: GIB, allocatable: 6 * GIB, reserved: 0, free: 6 * GIB };
    assert_eq!(all.state.nodes[&1].tables[MEMORY], table);
    let table = Table { total: GIB, system_reserved: 0, allocatable: GIB, reserved: 0, free: GIB };
    assert_eq!(all.state.nodes[&1].tables["hugepages-1Gi"], table);
    let shown: Vec<_> = all.shown_allocatable().iter().map(|m| (m.memory_type.clone(), m.size / MIB)).collect();
    let one = [("hugepages-1Gi".to_owned(), 1024), (MEMORY.to_owned(), 6144)];
    assert_eq!(shown, [one.clone(), one].concat());
}

#[test]
fn only_guaranteed_pods_without_resources_of_their_own_have_any() {
    let mut all = new();
    let before = all.clone();
    let mut burstable = pod("p", &[], &[container("c", "1Gi")]);
    burstable.spec.as_mut().unwrap().containers[0].resources.as_mut().unwrap().limits = None;
    let mut pod_level = pod("p", &[], &[container("c", "1Gi")]);
    pod_level.spec.as_mut().unwrap().resources = pod_level.spec.as_ref().unwrap().containers[0].resources.clone();
    for pod in [burstable, pod_level] {
        assert_eq!(all.hints(&pod, named(&pod, "c")), BTreeMap::new());
        assert_eq!(all.pod_hints(&pod), BTreeMap::new());
        assert_eq!(allocate(&mut all, &pod, "c", ANY), Ok(Allocated::Never));
    }
    assert_eq!(all, before);
}

#[test]
fn a_container_has_its_memory_until_it_is_gone() {
    let mut all = new();
    let large = pod("p", &[], &[container("c", "7Gi")]);
    assert_eq!(allocate(&mut all, &large, "c", ANY), Ok(Allocated::Now));
    assert_eq!(allocate(&mut all, &large, "c", on(&[1])), Ok(Allocated::Before));
    assert_eq!(all.nodes_of(&uid_of(&large), "c"), Some(Nodes::of([0, 1])));
    assert_eq!(free(&all), [0, 5120]);
    let shown = &all.shown(&uid_of(&large), "c")[0];
    let numbers: Vec<i64> = shown.topology.as_ref().unwrap().nodes.iter().map(|node| node.id).collect();
    assert_eq!((shown.memory_type.as_str(), shown.size, numbers), (MEMORY, 7 * GIB, vec![0, 1]));
    // Both nodes serve together from now on; and nobody else finds room on the first.
    let small = pod("q", &[], &[container("c", "1Gi")]);
    let refused = "[memorymanager] failed to find NUMA nodes to extend the current topology hint";
    let first = allocate(&mut all, &small, "c", Hint { is_preferred: true, ..on(&[0]) });
    assert_eq!(first, Err("[memorymanager] failed to find the extended preferred hint".to_owned()));
    let much = pod("q", &[], &[container("c", "6Gi")]);
    assert_eq!(allocate(&mut all, &much, "c", on(&[0])), Err(refused.to_owned()));
    assert_eq!(allocate(&mut all, &small, "c", on(&[0, 1])), Ok(Allocated::Now));
    assert!(all.retain(&|pod, _| pod.as_str() == "q"));
    assert!(!all.retain(&|pod, _| pod.as_str() == "q"));
    assert_eq!((all.nodes_of(&uid_of(&large), "c"), mib_of(&all, &small, "c")), (None, Some(1024)));
    assert!(all.remove(&uid_of(&small), "c") && !all.remove(&uid_of(&small), "c"));
    assert_eq!(all.state, new().state);
}

#[test]
fn a_node_serves_alone_or_always_with_the_same() {
    let mut all = new();
    let one = pod("p", &[], &[container("c", "1Gi")]);
    assert_eq!(allocate(&mut all, &one, "c", on(&[1])), Ok(Allocated::Now));
    let other = pod("q", &[], &[container("c", "1Gi")]);
    let refused = "[memorymanager] preferred hint violates NUMA node allocation";
    assert_eq!(allocate(&mut all, &other, "c", on(&[0, 1])), Err(refused.to_owned()));
    let hints = |is_preferred, numbers: &[&[usize]]| {
        let hints = numbers.iter().map(|numbers| Hint { is_preferred, ..on(numbers) }).collect();
        BTreeMap::from([(MEMORY.to_owned(), Some(hints))])
    };
    assert_eq!(all.hints(&other, named(&other, "c")), hints(true, &[&[0], &[1]]));
    assert_eq!(all.hints(&one, named(&one, "c")), hints(true, &[&[1]]), "what it has");
    // More than one node has: none can, and that is said when it is asked for.
    let large = pod("r", &[], &[container("c", "7Gi")]);
    assert_eq!(all.pod_hints(&large), BTreeMap::new());
    let refused =
        "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available";
    assert_eq!(allocate(&mut all, &large, "c", ANY), Err(refused.to_owned()));
}

#[test]
fn later_containers_have_what_init_containers_had() {
    let mut all = new();
    let sidecar = |memory: &str| {
        let mut sidecar = container("side", memory);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    };
    let pod =
        pod("p", &[container("first", "2Gi"), sidecar("1Gi"), container("second", "3Gi")], &[container("app", "1Gi")]);
    let wanted = all.pod_hints(&pod);
    assert_eq!(wanted[MEMORY].as_ref().map(Vec::len), Some(3), "4Gi fit on either node: {wanted:?}");
    let mut step = |name: &str, expected_free: u64, left: [Option<u64>; 4]| {
        assert_eq!(allocate(&mut all, &pod, name, on(&[0])), Ok(Allocated::Now));
        let names = ["first", "side", "second", "app"];
        assert_eq!((free(&all)[0], names.map(|name| mib_of(&all, &pod, name))), (expected_free, left), "{name}");
    };
    step("first", 4096, [Some(2048), None, None, None]);
    step("side", 4096, [Some(1024), Some(1024), None, None]);
    step("second", 2048, [Some(0), Some(1024), Some(3072), None]);
    step("app", 2048, [Some(0), Some(1024), Some(2048), Some(1024)]);
    assert!(!all.started(&pod, "first"));
    assert!(all.started(&pod, "second"));
    assert_eq!((mib_of(&all, &pod, "first"), mib_of(&all, &pod, "second")), (None, Some(2048)));
    assert!(all.started(&pod, "app"));
    assert!(!all.started(&pod, "app"));
    assert_eq!((free(&all)[0], mib_of(&all, &pod, "side")), (4096, Some(1024)));
}

#[test]
fn more_than_there_can_be_is_not_there() {
    let most = i64::MAX.to_string();
    let all = ["a", "b", "c"].map(|name| container(name, &most));
    let pod = pod("p", &all, &all);
    assert_eq!(new().pod_hints(&pod), BTreeMap::new());
}

#[test]
fn amounts_are_whole() {
    let mut all = new();
    let half = pod("p", &[], &[container("c", "1073741824500m")]);
    assert_eq!(all.hints(&half, named(&half, "c")), BTreeMap::new());
    let refused = "[memorymanager] failed to represent quantity as int64";
    assert_eq!(allocate(&mut all, &half, "c", ANY), Err(refused.to_owned()));
    let none = pod(
        "p",
        &[],
        &[{
            let mut c = container("c", "1Gi");
            c["resources"]["requests"]["hugepages-2Mi"] = json!("2Mi");
            c["resources"]["limits"]["hugepages-2Mi"] = json!("2Mi");
            c
        }],
    );
    let refused =
        "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available";
    assert_eq!(allocate(&mut all, &none, "c", ANY), Err(refused.to_owned()), "pages that no node has");
}

/// Why it does not start with what a change has made of what was written down.
fn invalid(change: impl FnOnce(&mut State)) -> Option<String> {
    let mut all = new();
    for (uid, memory, nodes) in [("p", "7Gi", [0, 1]), ("q", "2Gi", [0, 1])] {
        let pod = pod(uid, &[], &[container("c", memory)]);
        assert_eq!(allocate(&mut all, &pod, "c", on(&nodes)), Ok(Allocated::Now));
    }
    let mut state = all.state.clone();
    change(&mut state);
    let (machine, reservations) = machine();
    Static::restored(&machine, &reservations, state).err().map(|e| match e {
        Invalid::Different { how } => how,
        Invalid::Empty | Invalid::Node { .. } | Invalid::Resource { .. } => e.to_string(),
    })
}

#[test]
fn what_was_written_down_has_to_be_the_machine() {
    let held = |state: &mut State, block: Block| {
        state.held.insert(PodUid::new("r"), BTreeMap::from([("d".to_owned(), vec![block])]));
    };
    let block = |nodes: &[usize], resource: &str| Block {
        nodes: Nodes::of(nodes.iter().copied()),
        resource: resource.to_owned(),
        bytes: 1,
    };
    fn table(state: &mut State) -> &mut Table {
        state.nodes.get_mut(&1).unwrap().tables.get_mut(MEMORY).unwrap()
    }
    assert_eq!(invalid(|_| {}), None);
    // The sum counts.
    let moved = |state: &mut State| {
        for (number, more, less) in [(1, 5, 0), (0, 0, 5)] {
            let table = state.nodes.get_mut(&number).unwrap().tables.get_mut(MEMORY).unwrap();
            table.reserved = table.reserved + more - less;
            table.free = table.free + less - more;
        }
    };
    assert_eq!(invalid(moved), None);
    assert_eq!(invalid(|state| *state = State::default()), None);
    let words = "[memorymanager] machine state can not be empty when it has memory assignments";
    assert_eq!(invalid(|state| state.nodes.clear()).as_deref(), Some(words));
    let words = "[memorymanager] (pod: r, container: d) the memory assignment uses the NUMA that does not exist";
    assert_eq!(invalid(|state| held(state, block(&[1, 2], MEMORY))).as_deref(), Some(words));
    let words = "[memorymanager] (pod: r, container: d) the memory assignment uses memory resource that does not exist";
    assert_eq!(invalid(|state| held(state, block(&[1], "hugepages-2Mi"))).as_deref(), Some(words));
    type Change<'a> = (&'a str, &'a dyn Fn(&mut State));
    let changes: [Change<'_>; 9] = [
        ("nodes: [1] was written down, [0, 1] is expected", &|state| drop(state.nodes.remove(&0))),
        ("assignments of node 0: 2 was", &|state| held(state, block(&[0, 1], MEMORY))),
        ("group of node 1: [1] was", &|state| state.nodes.get_mut(&1).unwrap().group = Nodes::of([1])),
        ("resources of node 1: [\"memory\"] was", &|state| {
            state.nodes.get_mut(&1).unwrap().tables.remove("hugepages-1Gi");
        }),
        ("memory of node 1: Table { total: 5,", &|state| table(state).total = 5),
        ("memory of node 1: Table { total: 8589934592, system_reserved: 5,", &|state| table(state).system_reserved = 5),
        ("memory of node 1: Table {", &|state| table(state).allocatable = 5),
        ("memory of node 0: Table {", &|state| table(state).reserved = 5),
        ("memory of node 0: Table {", &|state| table(state).free = 5),
    ];
    for (expected, change) in changes {
        let how = invalid(change).unwrap_or_default();
        assert!(how.starts_with(expected), "{expected}: {how}");
    }
    let different = Invalid::Different { how: String::new() };
    let words = "[memorymanager] the expected machine state is different from the real one";
    assert_eq!(different.to_string(), words);
}
