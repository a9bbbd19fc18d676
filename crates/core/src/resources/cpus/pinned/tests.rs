use serde_json::{Value, json};

use super::*;
use crate::resources::cpus::Place;
use crate::resources::cpus::options::Gates;
use crate::resources::cpus::state::tests::{set, state};

/// Cores of two threads in sockets of one node each, numbered core by core, then once more.
fn machine(cores: usize, sockets: usize, nodes: usize) -> Topology {
    let place = |cpu: usize| {
        let core = cpu % cores;
        Place { cpu, core, socket: core * sockets / cores, node: core * nodes / cores, uncore: core * nodes / cores }
    };
    Topology::of((0..cores * 2).map(place).collect())
}

/// Two sockets; even cores are in the first one.
fn woven() -> Topology {
    let place = |cpu| Place { cpu, core: cpu % 6, socket: cpu % 2, node: cpu % 2, uncore: 0 };
    Topology::of((0..12).map(place).collect())
}

/// As it is, whether or not it fits.
fn at(topology: Topology, (count, reserved): (usize, &str), options: Options, state: State) -> Static {
    Static::new(topology, count, &set(reserved), options).unwrap().with(state)
}

fn container(name: &str, cpu: &str) -> Value {
    let amounts = json!({ "cpu": cpu, "memory": "1Gi" });
    json!({ "name": name, "resources": { "requests": amounts, "limits": amounts } })
}

fn pod(init: &[Value], containers: &[Value]) -> v1::Pod {
    let spec = json!({ "initContainers": init, "containers": containers });
    serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "pod" }, "spec": spec })).unwrap()
}

fn single(cpu: &str) -> v1::Pod {
    pod(&[], &[container("c", cpu)])
}

fn only(pod: &v1::Pod) -> &v1::Container {
    &pod.spec.as_ref().unwrap().containers[0]
}

const ANY: Hint = Hint { nodes: None, is_preferred: true };
const WHOLE_CORES: Options = Options {
    whole_cores: true,
    across_nodes: false,
    by_socket: false,
    across_cores: false,
    strict_reservation: false,
    by_uncore: false,
};

#[test]
fn reserved_cpus_are_the_first_cores() {
    let reserved = |count| Static::new(machine(4, 1, 1), count, &CpuSet::new(), Options::default());
    assert_eq!([1, 2, 3].map(|count| reserved(count).unwrap().reserved().to_string()), ["0", "0,4", "0-1,4"]);
    assert_eq!(
        reserved(9).unwrap_err(),
        "[cpumanager] unable to reserve the required amount of CPUs (size of  did not equal 9)"
    );
    assert_eq!(
        Static::new(woven(), 1, &set("0-1"), Options::default()).unwrap_err(),
        "[cpumanager] unable to reserve the required amount of CPUs (size of 0-1 did not equal 1)"
    );
    assert_eq!(
        Static::new(woven(), 1, &set("12"), Options::default()).unwrap_err(),
        "[cpumanager] unable to build the reserved physical CPUs from the reserved set: unknown CPU ID: 12"
    );
    let count = |text: &str| reserved_count(Amount::parse(text));
    assert_eq!((count("1"), count("100m"), count("1500m")), (Ok(1), Ok(1), Ok(2)));
    assert!(count("0").unwrap_err().ends_with("to be greater than zero"));
    assert!(count("none").unwrap_err().starts_with("[cpumanager] unable to determine reserved CPU"));
}

#[test]
fn what_was_written_down_must_fit_the_machine() {
    let strict = Options { strict_reservation: true, ..Options::default() };
    let plain = Options::default();
    let none = "";
    for (reserved, options, state, wanted) in [
        ((0, none), plain, state("1-11", &[("fakePod", "0", "0")]), Ok("1-11")),
        ((1, none), plain, state("", &[]), Ok("0-11")),
        (
            (2, none),
            plain,
            state("0-1", &[]),
            Err(r#"not all reserved cpus: "0,6" are present in defaultCpuSet: "0-1""#),
        ),
        (
            (2, none),
            strict,
            state("0-1", &[]),
            Err(r#"some of strictly reserved cpus: "0" are present in defaultCpuSet: "0-1""#),
        ),
        (
            (0, none),
            plain,
            state("2-11", &[("fakePod", "0", "0-2")]),
            Err(r#"pod: fakePod, container: 0 cpuset: "0-2" overlaps with default cpuset "2-11""#),
        ),
        (
            (0, none),
            strict,
            state("2-11", &[("fakePod", "0", "0-2")]),
            Err(r#"pod: fakePod, container: 0 cpuset: "0-2" overlaps with default cpuset "2-11""#),
        ),
        (
            (0, none),
            plain,
            state("5-12", &[("fakePod", "0", "0-2"), ("fakePod", "1", "3-4")]),
            Err(r#"current set of available CPUs "0-11" doesn't match with CPUs in state "0-12""#),
        ),
        (
            (0, none),
            plain,
            state("5-10", &[("fakePod", "0", "0-2"), ("fakePod", "1", "3-4")]),
            Err(r#"current set of available CPUs "0-11" doesn't match with CPUs in state "0-10""#),
        ),
        ((0, none), plain, state("", &[("fakePod", "0", "0-2")]), Err("default cpuset cannot be empty")),
        ((2, "0-1"), plain, state("", &[]), Ok("0-11")),
        ((2, "0-1"), strict, state("", &[]), Ok("2-11")),
        (
            (2, "0-1"),
            plain,
            state("2-5", &[]),
            Err(r#"not all reserved cpus: "0-1" are present in defaultCpuSet: "2-5""#),
        ),
        (
            (2, "0-1"),
            strict,
            state("0-5", &[]),
            Err(r#"some of strictly reserved cpus: "0-1" are present in defaultCpuSet: "0-5""#),
        ),
        (
            (2, "0-1"),
            strict,
            state("4-11", &[]),
            Err(r#"current set of available CPUs "2-11" doesn't match with CPUs in state "4-11""#),
        ),
    ] {
        let fresh = Static::new(woven(), reserved.0, &set(reserved.1), options).unwrap();
        let restored = fresh.restored(state.clone()).map(|all| all.shared_pool().to_string());
        assert_eq!(restored, wanted.map(str::to_owned).map_err(str::to_owned), "{state:?}");
    }
}

#[test]
fn containers_get_cpus_as_upstream_gives_them() {
    let rows = |all: &'static [(&'static str, &'static str, &'static str, &'static str)]| all;
    let tables = [
        // One socket of four cores; CPU 0 is reserved: which are shared, what others have, how many are wanted, which are given.
        (
            machine(4, 1, 1),
            rows(&[
                ("0-1,4-5", "2-3,6-7", "2", "1,5"),
                ("0-7", "", "1", "4"),
                ("0-7", "", "8", "not enough cpus available to satisfy request: requested=8, available=7"),
                ("0,7", "1-6", "2", "not enough cpus available to satisfy request: requested=2, available=1"),
                ("0-7", "", "977m", ""),
                ("0-7", "", "1500m", ""),
            ]),
        ),
        (
            woven(),
            rows(&[
                ("0-1,3-11", "2", "6", "1,3,5,7,9,11"),
                ("0,2-4,6-11", "1,5", "6", "2-4,8-10"),
                ("0-1,3-11", "2", "8", "1,3-5,7,9-11"),
                ("0,4-11", "1-3", "10", "not enough cpus available to satisfy request: requested=10, available=8"),
            ]),
        ),
    ];
    for (topology, rows) in tables {
        for (shared, others, cpu, wanted) in rows {
            let held = [("other", "c", *others)];
            let held = if others.is_empty() { &[][..] } else { &held };
            let mut all = at(topology.clone(), (1, ""), Options::default(), state(shared, held));
            let pod = single(cpu);
            let (uid, before) = (uid_of(&pod), all.shared_pool().clone());
            let given = match all.allocate(&pod, only(&pod), ANY) {
                Ok(Given::Shared) => String::new(),
                Ok(_) => all.exclusive_of(&uid, "c").unwrap().to_string(),
                Err(Refusal { reason, message }) => {
                    assert_eq!(reason, "UnexpectedAdmissionError");
                    let why = message.strip_prefix("Allocate failed due to ").unwrap();
                    why.strip_suffix(", which is unexpected").unwrap().to_owned()
                }
            };
            assert_eq!(given, *wanted, "{shared}, {cpu}");
            let has = all.exclusive_of(&uid, "c").cloned().unwrap_or_default();
            assert_eq!(*all.shared_pool(), before.difference(&has), "{shared}, {cpu}");
        }
    }
}

#[test]
fn cpus_come_from_the_nodes_of_the_hint_first() {
    let give = |topology: &Topology, options, shared: &str, cpu: &str, nodes: Option<&[usize]>| {
        let mut all = at(topology.clone(), (0, ""), options, state(shared, &[]));
        let pod = single(cpu);
        let nodes = nodes.map(|numbers| Nodes::of(numbers.iter().copied()));
        all.allocate(&pod, only(&pod), Hint { nodes, is_preferred: true }).unwrap();
        all.exclusive().to_string()
    };
    for (cpu, nodes, wanted) in [
        ("2", None, "0,6"),
        ("2", Some(&[0][..]), "0,6"),
        ("2", Some(&[1]), "1,7"),
        ("8", Some(&[0]), "0-2,4,6-8,10"),
        ("8", Some(&[1]), "0-1,3,5-7,9,11"),
    ] {
        assert_eq!(give(&woven(), Options::default(), "0-11", cpu, nodes), wanted, "{cpu} of {nodes:?}");
    }
    let (large, nodes) = (machine(40, 2, 4), Some(&[0, 2][..]));
    let by_socket = Options { by_socket: true, ..Options::default() };
    assert_eq!(give(&large, by_socket, "2,11,21-22", "2", nodes), "2,11");
    assert_eq!(give(&large, Options::default(), "2,11,21-22", "2", nodes), "2,21");
}

#[test]
fn whole_cores_or_none() {
    let refused = |topology: Topology, reserved, shared: &str, cpu: &str| {
        let mut all = at(topology, reserved, WHOLE_CORES, state(shared, &[]));
        let pod = single(cpu);
        match all.allocate(&pod, only(&pod), ANY) {
            Ok(_) => all.exclusive().to_string(),
            Err(refusal) => format!("{}: {}", refusal.reason, refusal.message),
        }
    };
    assert_eq!(
        refused(machine(4, 1, 1), (1, ""), "0-7", "1"),
        "SMTAlignmentError: SMT Alignment Error: requested 1 cpus not multiple cpus per core = 2"
    );
    assert_eq!(
        refused(woven(), (2, "1,6"), "0,2-5,7-11", "10"),
        "SMTAlignmentError: SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 8, requested CPUs = 10, \
         CPUs per core = 2"
    );
    assert_eq!(refused(woven(), (2, ""), "1-5,7-11", "10"), "1-5,7-11");
    assert_eq!(refused(woven(), (2, "0,6"), "1-5,7-11", "10"), "1-5,7-11");
    // Who has his CPUs keeps them, though no others are free.
    let mut all = at(woven(), (2, ""), WHOLE_CORES, state("0,6", &[("pod", "c", "1-5,7-11")]));
    let pod = single("10");
    assert_eq!(all.allocate(&pod, only(&pod), ANY), Ok(Given::Kept));
}

fn allocate_all(all: &mut Static, pod: &v1::Pod) {
    for container in crate::render::containers(pod) {
        all.allocate(pod, container, ANY).unwrap();
    }
}

#[test]
fn cpus_of_init_containers_are_used_again_but_not_those_of_sidecars() {
    let pod_of = |sidecar: bool| {
        let mut init = container("first", "4");
        if sidecar {
            init["restartPolicy"] = json!("Always");
        }
        pod(&[init], &[container("c", "2")])
    };
    let uid = PodUid::new("pod");
    let mut all = at(machine(4, 1, 1), (0, ""), Options::default(), state("0-7", &[]));
    allocate_all(&mut all, &pod_of(false));
    assert_eq!(all.cpus_of(&uid, "first"), &set("0-1,4-5"));
    assert_eq!((all.cpus_of(&uid, "c"), all.shared_pool()), (&set("0,4"), &set("2-3,6-7")));
    assert_eq!(all.exclusive().len(), 4);
    assert!(all.remove(&uid, "first"));
    assert_eq!((all.cpus_of(&uid, "first"), all.exclusive_of(&uid, "first")), (&set("1-3,5-7"), None));

    let mut all = at(machine(4, 1, 1), (0, ""), Options::default(), state("0-7", &[]));
    allocate_all(&mut all, &pod_of(true));
    assert_eq!((all.cpus_of(&uid, "c"), all.shared_pool()), (&set("2,6"), &set("3,7")));

    // What one container has is not given twice; a container that is asked again passes on what it has.
    let mut all = at(machine(4, 1, 1), (0, ""), Options::default(), state("2-3,6-7", &[("pod", "first", "0-1,4-5")]));
    let pod = pod(&[container("first", "4")], &[container("c", "2"), container("d", "2"), container("e", "2")]);
    allocate_all(&mut all, &pod);
    let of = ["c", "d", "e"].map(|name| all.cpus_of(&uid, name).to_string());
    assert_eq!(of, ["0,4", "1,5", "2,6"]);
    // Another pod has nothing of that.
    let other = pod_with_uid(single("2"), "other");
    allocate_all(&mut all, &other);
    assert_eq!(all.cpus_of(&PodUid::new("other"), "c"), &set("3,7"));
}

fn pod_with_uid(mut pod: v1::Pod, uid: &str) -> v1::Pod {
    pod.metadata.uid = Some(uid.to_owned());
    pod
}

#[test]
fn those_that_are_gone_give_their_cpus_back() {
    let two = [("fakePod", "fakeContainer1", "1,3,5"), ("fakePod", "fakeContainer2", "2,4")];
    for (shared, held, gone, wanted) in [
        ("4-7", &[("fakePod", "fakeContainer1", "1-3")][..], "fakeContainer1", "1-7"),
        ("", &[("fakePod", "fakeContainer1", "1-3"), ("fakePod", "fakeContainer2", "4-7")], "fakeContainer1", "1-3"),
        ("6-7", &two, "fakeContainer1", "1,3,5-7"),
        ("2,4,6-7", &[("fakePod", "fakeContainer1", "1,3,5")], "fakeContainer2", "2,4,6-7"),
    ] {
        let mut all = at(machine(4, 1, 1), (0, ""), Options::default(), state(shared, held));
        let uid = PodUid::new("fakePod");
        assert_eq!(all.remove(&uid, gone), held.iter().any(|(_, name, _)| *name == gone));
        assert_eq!((all.shared_pool(), all.exclusive_of(&uid, gone)), (&set(wanted), None));
    }
    let mut all = at(machine(4, 1, 1), (0, ""), Options::default(), state("6-7", &two));
    assert!(!all.retain(&|_, _| true));
    assert!(all.retain(&|pod, name| pod.as_str() == "fakePod" && name == "fakeContainer2"));
    assert_eq!((all.shared_pool(), all.exclusive()), (&set("1,3,5-7"), set("2,4")));
    assert!(all.retain(&|_, _| false) && all.held().is_empty());
}

#[test]
fn figures_follow_from_who_has_what() {
    let mut all = Static::new(woven(), 2, &CpuSet::new(), Options::default()).unwrap();
    let pod = pod(&[], &[container("c", "4"), container("shared", "500m")]);
    assert_eq!((all.shared_milli(), all.pod_has_exclusive(&uid_of(&pod))), (10_000, false));
    assert_eq!(all.allocate(&pod, only(&pod), ANY), Ok(Given::New { is_uncore_aligned: true }));
    let uid = PodUid::new("pod");
    assert_eq!((all.shared_milli(), all.exclusive().len()), (6_000, 4));
    assert_eq!(all.exclusive_by_node(), BTreeMap::from([(0, 4)]));
    assert!(all.pod_has_exclusive(&uid_of(&pod)) && all.has_exclusive(&uid, "c") && !all.has_exclusive(&uid, "shared"));
    assert_eq!((all.allocatable(), all.available()), (set("1-5,7-11"), set("1,3,5,7,9,11")));
    assert_eq!(all.state(), state("0-1,3,5-7,9,11", &[("pod", "c", "2,4,8,10")]));
}

#[test]
fn a_pod_with_resources_of_its_own_shares() {
    let mut all = Static::new(woven(), 1, &CpuSet::new(), Options::default()).unwrap();
    let mut pod = single("2");
    let amounts = json!({ "cpu": "3", "memory": "2Gi" });
    let resources = json!({ "requests": amounts, "limits": amounts });
    pod.spec.as_mut().unwrap().resources = serde_json::from_value(resources).unwrap();
    assert_eq!(all.allocate(&pod, only(&pod), ANY), Ok(Given::Shared));
    assert!(all.hints(&pod, only(&pod)).is_empty() && all.pod_hints(&pod).is_empty());
}

#[test]
fn cores_are_shared_out_among_nodes_where_that_is_wanted() {
    let given = |names: &[(&str, &str)]| {
        let names = names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let topology = machine(40, 2, 4);
        let gates = Gates { alpha: false, beta: true };
        let options = Options::parse(&names, gates, &topology, crate::resources::numa::Policy::None).unwrap();
        let mut all = Static::new(topology, 0, &CpuSet::new(), options).unwrap();
        let pod = single("26");
        all.allocate(&pod, only(&pod), ANY).unwrap();
        all.exclusive().to_string()
    };
    assert_eq!(given(&[("distribute-cpus-across-numa", "true")]), "0-6,10-16,40-45,50-55");
    let both = [("distribute-cpus-across-numa", "true"), ("full-pcpus-only", "true")];
    assert_eq!(given(&both), "0-6,10-15,40-46,50-55");
    assert_eq!(given(&[]), "0-12,40-52");
}
