use super::*;
use crate::resources::cpus::Place;

/// `cores x threads / sockets / nodes / caches`, numbered core by core, then once more for each further thread.
fn machine(name: &str) -> Topology {
    match name {
        "woven" => places(12, |cpu| Place { core: cpu % 6, socket: cpu % 2, node: cpu % 2, ..Place::default() }),
        // Eight small cores, then eight with two threads.
        "mixed" => places(24, |cpu| Place { core: if cpu < 16 { cpu } else { cpu - 8 }, ..Place::default() }),
        "three" => places(18, |cpu| {
            let socket = [1, 0, 2][cpu / 6];
            Place { core: cpu / 2 * 2, socket, node: socket, ..Place::default() }
        }),
        _ => {
            let numbers: Vec<usize> = name.split(['x', '/']).map(|number| number.parse().unwrap()).collect();
            let [cores, threads, sockets, nodes, uncores] = numbers[..] else { panic!("{name}") };
            places(cores * threads, |cpu| {
                let core = cpu % cores;
                let part = |of: usize| core * of / cores;
                Place { core, socket: part(sockets), node: part(nodes), uncore: part(uncores), cpu }
            })
        }
    }
}

fn places(count: usize, place: impl Fn(usize) -> Place) -> Topology {
    Topology::of((0..count).map(|cpu| Place { cpu, ..place(cpu) }).collect())
}

fn set(text: &str) -> CpuSet {
    CpuSet::parse(text).unwrap()
}

#[test]
fn cpus_are_taken_as_upstream_takes_them() {
    let rows = include_str!("tests/rows.txt").lines().filter(|row| !row.is_empty() && !row.starts_with('#'));
    let mut count = 0;
    for row in rows {
        let (asked, wanted) = row.split_once(" = ").unwrap();
        let [name, how, count_text, available] = asked.split(' ').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let (topology, available) = (machine(name), set(available.trim_matches(['[', ']'])));
        let number: usize = count_text.parse().unwrap();
        let taken = match how {
            "packed" => take_packed(&topology, &available, number, Order::Packed, false),
            "spread" => take_packed(&topology, &available, number, Order::Spread, false),
            "uncore" => take_packed(&topology, &available, number, Order::Packed, true),
            "even1" => take_distributed(&topology, &available, number, 1, Order::Packed),
            "even2" => take_distributed(&topology, &available, number, 2, Order::Packed),
            _ => panic!("{row}"),
        };
        let shown = taken.map_or_else(|why| why.to_string(), |cpus| format!("[{cpus}]"));
        assert_eq!(shown, wanted, "{asked}");
        count += 1;
    }
    assert_eq!(count, 292);
}

#[test]
fn a_core_of_more_threads_than_the_mean_gives_no_cpu_that_is_taken() {
    // One CPU for each core in the mean; of core 8 only one thread is free.
    let taken = take_packed(&machine("mixed"), &set("8-9"), 2, Order::Packed, false);
    assert_eq!(taken, Ok(set("8-9")));
}

#[test]
fn nodes_that_cannot_give_whole_groups_are_passed_over() {
    // Four nodes of three CPUs, of which each can give one pair.
    let available = set("0-2,10-12,20-22,30-32");
    let topology = machine("40x2/2/4/1");
    assert_eq!(take_distributed(&topology, &available, 10, 2, Order::Packed).map(|cpus| cpus.len()), Ok(10));
    assert_eq!(
        take_distributed(&topology, &available, 14, 2, Order::Packed),
        Err(TakeError::TooFew { requested: 14, available: 12 })
    );
}

#[test]
fn of_many_nodes_those_are_taken_that_leave_the_machine_the_most_even() {
    let topology = machine("128x2/2/8/1");
    let taken = take_distributed(&topology, topology.cpus(), 117, 1, Order::Packed).unwrap();
    let of_node: Vec<usize> = (0..8).map(|node| topology.within(Level::Node, node, &taken).len()).collect();
    assert_eq!(of_node, [30, 29, 29, 29, 0, 0, 0, 0]);
}

#[test]
fn what_is_taken_was_free_and_is_as_much_as_was_asked_for() {
    for name in
        ["woven", "mixed", "three", "4x2/1/1/1", "40x2/2/4/1", "16x1/2/1/4", "40x2/4/2/1", "12x4/2/4/4", "7x1/2/3/2"]
    {
        let topology = machine(name);
        for every in [2, 3, 5, 100] {
            let free: CpuSet = topology.cpus().numbers().filter(|cpu| cpu % every != 0).collect();
            for count in 0..=free.len() {
                let mut all = vec![take_packed(&topology, &free, count, Order::Packed, true)];
                all.push(take_packed(&topology, &free, count, Order::Spread, false));
                all.extend([1, 2, 4].map(|group| take_distributed(&topology, &free, count, group, Order::Packed)));
                for taken in all {
                    let taken = taken.unwrap();
                    assert_eq!(taken.len(), count, "{name}, one of {every} is not free");
                    assert!(taken.is_subset(&free), "{count} of {name}, one of {every} is not free");
                }
            }
            let too_many = free.len() + 1;
            let refused = take_distributed(&topology, &free, too_many, 1, Order::Packed);
            assert_eq!(refused, Err(TakeError::TooFew { requested: too_many, available: free.len() }));
        }
    }
}
