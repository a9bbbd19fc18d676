use rubelet_api::config::MemoryReservation;
use rubelet_api::quantity::Amount;
use serde_json::json;

use super::super::*;

/// Amounts by resource.
type Row<'a> = &'a [(&'a str, &'a str)];
/// Of nodes.
type Configured<'a> = &'a [(i32, Row<'a>)];

fn amounts(row: Row<'_>) -> BTreeMap<String, Amount> {
    row.iter().map(|(name, amount)| ((*name).to_owned(), Amount::parse(amount).unwrap())).collect()
}

/// Kept by the system and by the kubelet; from two nodes with huge pages of both sizes.
fn reserve(kept: [Row<'_>; 2], configured: Configured<'_>) -> Result<Reservations, String> {
    let node = |number| MachineNode { number, memory_bytes: 8 << 30, huge_pages: vec![(2 << 20, 100), (1 << 30, 1)] };
    let configured: Vec<MemoryReservation> = configured
        .iter()
        .map(|(node, row)| {
            let limits: BTreeMap<&str, &str> = row.iter().copied().collect();
            serde_json::from_value(json!({ "numaNode": node, "limits": limits })).unwrap()
        })
        .collect();
    let [system, kube] = kept.map(amounts);
    reservations(&[node(0), node(1)], &[&system, &kube], &configured)
}

#[test]
fn what_is_kept_is_kept_from_nodes() {
    let both = reserve(
        [&[("memory", "12"), ("hugepages-2Mi", "77"), ("cpu", "3")], &[("memory", "5"), ("hugepages-1Gi", "13")]],
        &[
            (0, &[("memory", "12"), ("hugepages-2Mi", "70"), ("hugepages-1Gi", "13")]),
            (1, &[("memory", "5"), ("hugepages-2Mi", "7")]),
        ],
    );
    let of = |row: &[(&str, u64)]| row.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
    let expected = Reservations::from([
        (0, of(&[("memory", 12), ("hugepages-2Mi", 70), ("hugepages-1Gi", 13)])),
        (1, of(&[("memory", 5), ("hugepages-2Mi", 7)])),
    ]);
    assert_eq!(both, Ok(expected));
    let one = reserve([&[("memory", "1Gi")], &[]], &[(1, &[("memory", "512Mi")]), (0, &[("memory", "512Mi")])]);
    assert_eq!(one.unwrap()[&1], of(&[("memory", 512 << 20)]));
    // Of pages that the machine does not have none are kept.
    assert!(reserve([&[("memory", "1Gi"), ("hugepages-64Ki", "64Ki")], &[]], &[(0, &[("memory", "1Gi")])]).is_ok());
}

#[test]
fn what_is_kept_from_nodes_is_what_is_kept() {
    let unequal = |ours: &str, name: &str, theirs: &str| {
        format!(
            r#"the total amount "{ours}" of type "{name}" is not equal to the value "{theirs}" determined by Node Allocatable feature"#
        )
    };
    let nothing = "[memorymanager] you should specify the system reserved memory";
    let unknown = |node: i32| {
        format!("the reserved memory configuration references a NUMA node {node} that does not exist on this machine")
    };
    let table: [([Row<'_>; 2], Configured<'_>, String); 12] = [
        ([&[], &[]], &[], nothing.to_owned()),
        ([&[("memory", "0")], &[]], &[(0, &[("memory", "0")])], nothing.to_owned()),
        ([&[("hugepages-2Mi", "2Mi")], &[]], &[(0, &[("hugepages-2Mi", "2Mi")])], nothing.to_owned()),
        ([&[], &[]], &[(0, &[("memory", "12")])], unequal("12", "memory", "0")),
        ([&[], &[]], &[(0, &[("memory", "1Gi")])], unequal("1Gi", "memory", "0")),
        ([&[("hugepages-2Mi", "5")], &[]], &[], unequal("0", "hugepages-2Mi", "5")),
        ([&[("memory", "5")], &[]], &[(0, &[("memory", "12")])], unequal("12", "memory", "5")),
        ([&[("memory", "17")], &[]], &[(0, &[("memory", "12")]), (2, &[("memory", "5")])], unknown(2)),
        ([&[], &[]], &[(-1, &[])], unknown(-1)),
        (
            [&[("memory", "17"), ("hugepages-2Mi", "14")], &[]],
            &[(0, &[("memory", "12"), ("hugepages-2Mi", "70")]), (1, &[("memory", "5"), ("hugepages-2Mi", "7")])],
            unequal("77", "hugepages-2Mi", "14"),
        ),
        // In the writing of the first kept, of the last configured.
        (
            [&[("memory", "500M")], &[("memory", "1Gi")]],
            &[(0, &[("memory", "1G")]), (1, &[("memory", "512Mi")])],
            unequal("1536870912", "memory", "1573741824"),
        ),
        (
            [&[("memory", "1500m")], &[]],
            &[(0, &[("memory", "1500m")])],
            "could not covert a variable of type Quantity to int64".to_owned(),
        ),
    ];
    for (kept, configured, expected) in table {
        assert_eq!(reserve(kept, configured), Err(expected.clone()), "{expected}");
    }
}
