//! What upstream's code does with the same machine and pods, recorded from 1.36.3: made-up nodes and pods, what is asked in
//! turn, what came of it and what is left on each node, and the state file in the end.

use serde_json::{Value, json};

use super::super::super::numa::Hints;
use super::*;

const RECORDED: &str = include_str!("recorded.jsonl");

fn machine(line: &Value) -> (Vec<MachineNode>, Reservations) {
    let number = |value: &Value| value.as_u64().unwrap();
    let mut reservations = Reservations::new();
    let nodes = line["nodes"].as_array().unwrap().iter().map(|node| {
        let kept = node["kept"].as_object().unwrap().iter().map(|(name, bytes)| (name.clone(), number(bytes)));
        reservations.insert(number(&node["number"]) as usize, kept.collect());
        let pages = node["pages"].as_array().unwrap().iter();
        MachineNode {
            number: number(&node["number"]) as usize,
            memory_bytes: number(&node["memory"]),
            huge_pages: pages.map(|of| (number(&of[0]) << 10, number(&of[1]))).collect(),
        }
    });
    (nodes.collect(), reservations)
}

/// Bits and whether it is preferred.
fn hints_of(value: &Value) -> Hints {
    let hint = |text: &Value| {
        let (bits, is_preferred) = text.as_str().unwrap().split_once(' ').unwrap();
        let bits = u64::from_str_radix(bits, 2).unwrap();
        let nodes = Nodes::of((0..Nodes::NUMBERS).filter(|number| bits & 1 << number != 0));
        Hint { nodes: Some(nodes), is_preferred: is_preferred == "true" }
    };
    let of = value.as_object().unwrap().iter();
    of.map(|(name, all)| (name.clone(), Some(all.as_array().unwrap().iter().map(hint).collect()))).collect()
}

fn left(all: &Static) -> Value {
    let node = |(number, node): (&usize, &Node)| {
        let group: Vec<usize> = node.group.numbers().collect();
        let free: BTreeMap<&String, u64> = node.tables.iter().map(|(name, table)| (name, table.free)).collect();
        (number.to_string(), json!([node.assignments, group, free]))
    };
    all.state.nodes.iter().map(node).collect()
}

/// Upstream's blocks are in no order.
fn sorted(mut state: State) -> State {
    state.held.values_mut().flat_map(BTreeMap::values_mut).for_each(|all| {
        all.sort_by(|a, b| a.resource.cmp(&b.resource));
    });
    state
}

#[test]
fn it_is_as_upstream_does_it() {
    let mut steps = 0;
    for line in RECORDED.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (nodes, reservations) = machine(&line);
        let pods: Vec<v1::Pod> = serde_json::from_value(line["pods"].clone()).unwrap();
        let (mut all, mut known) = (Static::new(&nodes, &reservations), &Value::Null);
        for (step, expected) in line["ops"].as_array().unwrap().iter().zip(line["results"].as_array().unwrap()) {
            let pod = &pods[step["pod"].as_u64().unwrap() as usize];
            let spec = pod.spec.as_ref().unwrap();
            let named = |c: &&v1::Container| Some(c.name.as_str()) == step["container"].as_str();
            let container = spec.init_containers.iter().flatten().chain(&spec.containers).find(named);
            match step["do"].as_str().unwrap() {
                "hints" => assert_eq!(all.hints(pod, container.unwrap()), hints_of(&expected[0]), "{step} {line}"),
                "pod_hints" => assert_eq!(all.pod_hints(pod), hints_of(&expected[0]), "{step} {line}"),
                "remove" => {
                    all.remove(&uid_of(pod), &container.unwrap().name);
                }
                "allocate" => {
                    let numbers = |all: &Value| {
                        all.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect::<Vec<_>>()
                    };
                    let nodes = step.get("nodes").map(|all| Nodes::of(numbers(all)));
                    let affinity = Hint { nodes, is_preferred: step.get("preferred").is_some() };
                    let words = all.allocate(pod, container.unwrap(), affinity).err().unwrap_or_default();
                    assert_eq!(expected[0], words, "{step} {line}");
                }
                "restart" => {
                    let state = file::parse(&file::text(Policy::Static, &all.state), Policy::Static).unwrap();
                    assert_eq!(state, all.state);
                    let words = Static::restored(&nodes, &reservations, state).err();
                    let words = words.map(|e| e.to_string()).unwrap_or_default();
                    // Upstream does not always decide alike: these it was seen to.
                    assert!(expected[0].as_array().unwrap().contains(&words.clone().into()), "{words} {step} {line}");
                    all.reusable = Reusable::default();
                }
                other => panic!("{other}"),
            }
            // It is told where it changes.
            known = expected.get(1).unwrap_or(known);
            assert_eq!(left(&all), *known, "{step} {line}");
            steps += 1;
        }
        let theirs = line["file"].as_str().unwrap();
        let state = file::parse(theirs, Policy::Static).unwrap();
        if state == sorted(state.clone()) {
            assert_eq!(file::text(Policy::Static, &state), theirs);
        }
        assert_eq!(sorted(state), all.state, "{line}");
    }
    assert!(steps > 100, "{steps}");
}
