use rubelet_api::ids::PodUid;
use serde_json::{Value, json};

use super::*;
use crate::resources::cpus::{Assignments, Options, Place, State, Topology};

fn pod(init: &[(&str, bool)], containers: &[&str]) -> v1::Pod {
    let container = |name: String, cpu: &str, is_sidecar: bool| {
        let amounts = json!({ "cpu": cpu, "memory": "1Gi" });
        let mut container = json!({ "name": name, "resources": { "requests": amounts, "limits": amounts } });
        if is_sidecar {
            container["restartPolicy"] = json!("Always");
        }
        container
    };
    let init: Vec<Value> =
        init.iter().enumerate().map(|(at, (cpu, side))| container(format!("i{at}"), cpu, *side)).collect();
    let containers: Vec<Value> =
        containers.iter().enumerate().map(|(at, cpu)| container(format!("c{at}"), cpu, false)).collect();
    let spec = json!({ "initContainers": init, "containers": containers });
    serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "pod" }, "spec": spec })).unwrap()
}

fn at(topology: Topology, options: Options, shared: &str, held: &[(&str, &str)]) -> Static {
    let set = |text: &str| CpuSet::parse(text).unwrap();
    let held: BTreeMap<String, CpuSet> = held.iter().map(|(name, cpus)| ((*name).to_owned(), set(cpus))).collect();
    let fresh = Static::new(topology, 0, &CpuSet::new(), options).unwrap();
    let held = if held.is_empty() { Assignments::new() } else { Assignments::from([(PodUid::new("pod"), held)]) };
    fresh.with(State { shared: set(shared), held })
}

/// Two sockets of three cores.
fn two_sockets() -> Topology {
    let place = |cpu| Place { cpu, core: cpu % 6, socket: cpu % 6 / 3, node: cpu % 6 / 3, uncore: 0 };
    Topology::of((0..12).map(place).collect())
}

/// As bits, those that are preferred with a star.
fn shown(hints: &Hints) -> String {
    let one = |hint: &Hint| format!("{}{}", hint.nodes.unwrap(), if hint.is_preferred { "*" } else { "" });
    match hints.get("cpu") {
        None => "any".to_owned(),
        Some(None) => panic!("no list"),
        Some(Some(hints)) => hints.iter().map(one).collect::<Vec<_>>().join(" "),
    }
}

#[test]
fn nodes_are_named_that_could_give_what_is_wanted() {
    for (cpu, shared, held, wanted) in [
        ("2", "2-11", "", "01* 10* 11"),
        ("5", "2-11", "", "10* 11"),
        ("7", "2-11", "", "11*"),
        ("11", "2-11", "", ""),
        ("2", "0,3", "", "11"),
        ("5", "0-3", "", ""),
        ("2", "", "0,6", "01* 11"),
        ("2", "", "3,9", "10* 11"),
        ("11", "", "0-10", "11*"),
        ("2", "", "0,3,6,9", ""),
        ("11", "", "0,3,6,9", ""),
        ("1500m", "0-11", "", "any"),
    ] {
        let pod = pod(&[], &[cpu]);
        let held = [("c0", held)];
        let all = at(two_sockets(), Options::default(), shared, if held[0].1.is_empty() { &[] } else { &held });
        let container = &pod.spec.as_ref().unwrap().containers[0];
        assert_eq!(shown(&all.hints(&pod, container)), wanted, "{cpu} of {shared}");
        assert_eq!(shown(&all.pod_hints(&pod)), wanted, "pod: {cpu} of {shared}");
    }
}

#[test]
fn a_pod_wants_what_its_hungriest_moment_needs() {
    for (init, containers, wanted) in [
        (&[("2", false)][..], &["2"][..], 2),
        (&[("2", false), ("3", false)], &["2", "3"], 5),
        (&[("2", false)], &["2", "3"], 5),
        (&[("5", false)], &["2"], 5),
        (&[("1", true)], &["1"], 2),
        (&[("5", false), ("1", true), ("2", true), ("3", true)], &["1"], 7),
        (&[("5", false), ("1", true), ("2", true), ("5", false), ("3", true)], &["1"], 8),
        (&[("10", true), ("200", false)], &["100"], 210),
        (&[("500m", false)], &["1500m", "2"], 2),
    ] {
        assert_eq!(wanted::by_pod(&pod(init, containers)), wanted, "{init:?} {containers:?}");
    }
    let mut burstable = pod(&[], &["2"]);
    let limits = &mut burstable.spec.as_mut().unwrap().containers[0].resources.as_mut().unwrap().limits;
    limits.as_mut().unwrap().remove("memory");
    assert_eq!(
        (wanted::by_pod(&burstable), wanted::by_container(&burstable, &burstable.spec.as_ref().unwrap().containers[0])),
        (0, 0)
    );
}

#[test]
fn nodes_of_one_socket_are_as_good_as_one_where_that_is_wanted() {
    let topology = Topology::of(
        (0..80)
            .map(|cpu| Place { cpu, core: cpu % 40, socket: cpu % 40 / 20, node: cpu % 40 / 10, uncore: 0 })
            .collect(),
    );
    let by_socket = Options { by_socket: true, ..Options::default() };
    for (options, shared, cpu, wanted) in [
        (Options::default(), "2-3,11", "2", "01* 11 0101 1001 0111 1011 1101 1111"),
        (by_socket, "2-3,11", "2", "01* 11* 0101 1001 0111 1011 1101 1111"),
        (by_socket, "0-28,40-57", "41", "0111* 1111*"),
    ] {
        assert_eq!(shown(&at(topology.clone(), options, shared, &[]).pod_hints(&pod(&[], &[cpu]))), wanted);
    }
}

#[test]
fn nodes_that_a_pod_has_cpus_of_must_be_among_them() {
    let two = pod(&[], &["2", "2"]);
    let all = at(two_sockets(), Options::default(), "1-5,7-11", &[("c0", "0,6")]);
    assert_eq!(shown(&all.pod_hints(&two)), "01* 11");
    // All that is wanted is there: it stays there.
    let all = at(two_sockets(), Options::default(), "1-2,4-5,7-8,10-11", &[("c0", "0,6"), ("c1", "3,9")]);
    assert_eq!(shown(&all.pod_hints(&two)), "11");
    // What an init container had is used again.
    let first = pod(&[("4", false)], &["4"]);
    let mut all = at(two_sockets(), Options::default(), "0-11", &[]);
    let spec = first.spec.as_ref().unwrap();
    all.allocate(&first, &spec.init_containers.as_ref().unwrap()[0], Hint { nodes: None, is_preferred: true }).unwrap();
    assert_eq!(shown(&all.hints(&first, &spec.containers[0])), "01* 11");
}
