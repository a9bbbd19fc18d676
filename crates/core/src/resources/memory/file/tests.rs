use super::*;

/// Written by upstream's code.
const NONE: &str = r#"{"policyName":"None","machineState":{},"checksum":4236770233}"#;
const EMPTY: &str = r#"{"policyName":"Static","machineState":{},"checksum":3940083781}"#;
const FULL: &str = r#"{"policyName":"Static","machineState":{"0":{"numberOfAssignments":0,"memoryMap":{"hugepages-2Mi":{"total":5,"systemReserved":1,"allocatable":2,"reserved":3,"free":4},"memory":{"total":100,"systemReserved":1,"allocatable":2,"reserved":3,"free":4}},"cells":[0,10]},"10":{"numberOfAssignments":10,"memoryMap":{"hugepages-2Mi":{"total":5,"systemReserved":1,"allocatable":2,"reserved":3,"free":4},"memory":{"total":100,"systemReserved":1,"allocatable":2,"reserved":3,"free":4}},"cells":[10]},"2":{"numberOfAssignments":2,"memoryMap":{"hugepages-2Mi":{"total":5,"systemReserved":1,"allocatable":2,"reserved":3,"free":4},"memory":{"total":100,"systemReserved":1,"allocatable":2,"reserved":3,"free":4}},"cells":[]}},"entries":{"uid-1":{"c":[{"numaAffinity":[2],"type":"memory","size":18446744073709551615}]},"uid-2":{"b":[],"c":[{"numaAffinity":[0,10],"type":"hugepages-2Mi","size":7},{"numaAffinity":[2],"type":"memory","size":0}]}},"checksum":1704667009}"#;
/// Under its type's name of today, with lists and maps that nobody made.
const UNMADE: &str = r#"{"policyName":"Static","machineState":{"2":{"numberOfAssignments":2,"memoryMap":null,"cells":null}},"entries":{"uid-1":null,"uid-2":{"a":null,"c":[{"numaAffinity":null,"type":"memory","size":7}]}},"checksum":1323447305}"#;
/// As an older version wrote it, for a policy that is not ours.
const OLDER: &str = r#"{"policyName":"static","machineState":{"0":{"numberOfAssignments":0,"memoryMap":{"memory":{"total":2048,"systemReserved":512,"allocatable":1536,"reserved":512,"free":1024}},"cells":[]}},"entries":{"pod":{"container1":[{"numaAffinity":[0],"type":"memory","size":512}]}},"checksum":4215593881}"#;

fn full() -> State {
    let table = |total| Table { total, system_reserved: 1, allocatable: 2, reserved: 3, free: 4 };
    let node = |number: usize, group: &[usize]| {
        let tables = [("memory", table(100)), ("hugepages-2Mi", table(5))];
        let node = Node {
            assignments: number as i64,
            tables: tables.map(|(name, table)| (name.to_owned(), table)).into(),
            group: Nodes::of(group.iter().copied()),
        };
        (number, node)
    };
    let block = |nodes: &[usize], resource: &str, bytes| Block {
        nodes: Nodes::of(nodes.iter().copied()),
        resource: resource.to_owned(),
        bytes,
    };
    let first = BTreeMap::from([("c".to_owned(), vec![block(&[2], "memory", u64::MAX)])]);
    let blocks = vec![block(&[0, 10], "hugepages-2Mi", 7), block(&[2], "memory", 0)];
    let second = BTreeMap::from([("b".to_owned(), Vec::new()), ("c".to_owned(), blocks)]);
    State {
        nodes: [node(0, &[0, 10]), node(2, &[]), node(10, &[10])].into(),
        held: [(PodUid::new("uid-1"), first), (PodUid::new("uid-2"), second)].into(),
    }
}

#[test]
fn files_are_as_upstream_writes_them() {
    for (policy, state, expected) in [
        (Policy::None, State::default(), NONE),
        (Policy::Static, State::default(), EMPTY),
        (Policy::Static, full(), FULL),
    ] {
        assert_eq!(text(policy, &state), expected);
        assert_eq!(parse(expected, policy), Ok(state));
    }
}

#[test]
fn upstreams_files_are_read() {
    let state = parse(UNMADE, Policy::Static).unwrap();
    let unmade = Node { assignments: 2, ..Node::default() };
    assert_eq!(state.nodes, BTreeMap::from([(2, unmade)]));
    let names: Vec<(&str, usize)> = state.held.iter().map(|(uid, all)| (uid.as_str(), all.len())).collect();
    assert_eq!(names, [("uid-1", 0), ("uid-2", 2)]);
    let other = r#"[memorymanager] configured policy "Static" differs from state checkpoint policy "static""#;
    assert_eq!(parse(OLDER, Policy::Static), Err(other.to_owned()));
    // Without a checksum nobody asks.
    let without = FULL.replace("1704667009", "0");
    assert_eq!(parse(&without, Policy::Static), Ok(full()));
    assert_eq!(parse(&without.replace(",\"checksum\":0", ""), Policy::Static), Ok(full()));
}

#[test]
fn what_is_of_no_use_says_why() {
    let why = |text: &str| parse(text, Policy::Static).unwrap_err();
    assert_eq!(why(&FULL.replace("\"size\":7", "\"size\":8")), "checkpoint is corrupted");
    assert_eq!(
        why(&FULL.replace("{\"policyName", "{\"podEntries\":{},\"policyName").replace("1704667009", "5")),
        "checkpoint is corrupted"
    );
    assert_eq!(why(NONE), r#"[memorymanager] configured policy "Static" differs from state checkpoint policy "None""#);
    assert_eq!(why("{"), "EOF while parsing an object at line 1 column 1");
    for (from, to, name) in [
        ("\"size\":7", "\"size\":-7", "size"),
        ("[2]", "[\"2\"]", "numaAffinity"),
        ("[0,10]},\"10", "[-1]},\"10", "cells"),
        ("[0,10]},\"10", "7},\"10", "cells"),
        ("\"2\":{", "\"x\":{", "machineState"),
        ("\"b\":[]", "\"b\":{}", "entries"),
        ("\"numberOfAssignments\":10", "\"numberOfAssignments\":true", "numberOfAssignments"),
        ("\"type\":\"memory\"", "\"type\":1", "type"),
        ("1704667009", "null", "checksum"),
    ] {
        assert!(FULL.contains(from), "{from}");
        assert_eq!(why(&FULL.replace(from, to)), format!("{name} is not what it should be"), "{to}");
    }
    let far = FULL.replace("\"numaAffinity\":[2]", "\"numaAffinity\":[64]").replace("1704667009", "0");
    assert_eq!(why(&far), "node 64 cannot be named");
    assert_eq!(
        unusable("checkpoint is corrupted", "/var/lib/kubelet/memory_manager_state"),
        "could not restore state from checkpoint: checkpoint is corrupted, please drain this node and delete the memory manager checkpoint file \"/var/lib/kubelet/memory_manager_state\" before restarting Kubelet"
    );
}
