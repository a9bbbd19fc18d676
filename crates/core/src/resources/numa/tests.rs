use super::*;

fn hint(numbers: &[usize], is_preferred: bool) -> Hint {
    Hint { nodes: Some(Nodes::of(numbers.iter().copied())), is_preferred }
}

fn giver(hints: &[(&str, Option<Vec<Hint>>)]) -> Hints {
    hints.iter().map(|(name, hints)| ((*name).to_owned(), hints.clone())).collect()
}

/// Nodes 0 to 3; 0 and 2 are near each other, as are 1 and 3.
fn four(policy: Policy) -> Merging {
    let distance = |a: usize, b: usize| match a.abs_diff(b) {
        0 => 10,
        2 => 12,
        _ => 20,
    };
    let distances = (0..4).map(|a| (a, (0..4).map(|b| distance(a, b)).collect())).collect();
    Merging { policy, machine: Machine { distances }, ..Merging::default() }
}

#[test]
fn nodes_are_shown_as_bits() {
    let shown = |numbers: &[usize]| Nodes::of(numbers.iter().copied()).to_string();
    assert_eq!(
        [shown(&[]), shown(&[0]), shown(&[1]), shown(&[2]), shown(&[0, 5])],
        ["00", "01", "10", "100", "100001"]
    );
    let choices: Vec<String> = Nodes::of([0, 1, 2]).choices().iter().map(Nodes::to_string).collect();
    assert_eq!(choices, ["01", "10", "100", "11", "0101", "0110", "0111"]);
}

#[test]
fn hints_become_one() {
    let two = |a: Vec<Hint>, b: Vec<Hint>| [giver(&[("cpu", Some(a))]), giver(&[("gpu", Some(b))])];
    let (zero, one, both) = (hint(&[0], true), hint(&[1], true), hint(&[0, 1], false));
    let any = Hint { nodes: Some(Nodes::of(0..4)), is_preferred: true };
    let table = [
        // Nobody minds: all nodes.
        ("no giver", vec![], any, [true; 3]),
        ("no preference", vec![Hints::new(), giver(&[("cpu", None)])], any, [true; 3]),
        ("both at one", two(vec![zero, one, both], vec![one]).into(), one, [true; 3]),
        ("the narrowest", two(vec![zero, one, both], vec![zero, one, both]).into(), zero, [true; 3]),
        // Apart, they have nothing in common but what is not preferred.
        ("apart", two(vec![zero, both], vec![one, both]).into(), hint(&[0], false), [true, false, false]),
        ("cannot be", vec![giver(&[("cpu", Some(vec![]))])], hint(&[0, 1, 2, 3], false), [true, false, false]),
        (
            "needs two",
            vec![giver(&[("cpu", Some(vec![hint(&[0, 1], true)]))])],
            hint(&[0, 1], true),
            [true, true, false],
        ),
    ];
    for (what, givers, wanted, lets_in) in table {
        for (policy, is_in) in [Policy::BestEffort, Policy::Restricted, Policy::SingleNumaNode].into_iter().zip(lets_in)
        {
            let (hint, has_let_in) = four(policy).merge(&givers);
            assert_eq!(has_let_in, is_in, "{what}, {policy:?}");
            match policy {
                Policy::SingleNumaNode if !is_in => {}
                Policy::SingleNumaNode if hint.nodes.is_none() => {
                    assert_eq!(wanted.nodes, Some(Nodes::of(0..4)), "{what}")
                }
                _ => assert_eq!(hint, wanted, "{what}, {policy:?}"),
            }
        }
    }
}

#[test]
fn what_is_not_preferred_is_as_wide_as_needed() {
    // The second needs two nodes; with one of them the first could do.
    let givers = [
        giver(&[("a", Some(vec![hint(&[0], true), hint(&[0, 1], false), hint(&[0, 1, 2], false)]))]),
        giver(&[("b", Some(vec![hint(&[0, 1], true), hint(&[0, 1, 2], false)]))]),
    ];
    assert_eq!(four(Policy::BestEffort).merge(&givers).0, hint(&[0, 1], false));
}

#[test]
fn nearer_nodes_win_where_they_are_preferred() {
    let givers = [giver(&[("cpu", Some(vec![hint(&[0, 1], true), hint(&[0, 2], true), hint(&[1, 3], true)]))])];
    let mut merging = four(Policy::Restricted);
    assert_eq!(merging.merge(&givers).0, hint(&[0, 1], true));
    merging.prefers_closest = true;
    assert_eq!(merging.merge(&givers).0, hint(&[0, 2], true), "of two that are as near the lower numbers");
}

#[test]
fn the_configuration_is_taken_or_refused_in_upstreams_words() {
    let of = |policy: &str, scope: &str, options: &[(&str, &str)], nodes: usize| {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let distances = (0..nodes).map(|n| (n, if nodes == 1 { Vec::new() } else { vec![10; nodes] })).collect();
        Merging::of(policy, scope, &options, Machine { distances }).map(|m| (m.policy, m.scope, m.prefers_closest))
    };
    assert_eq!(of("none", "x", &[], 9), Ok((Policy::None, Scope::Container, false)));
    assert_eq!(of("restricted", "pod", &[], 8), Ok((Policy::Restricted, Scope::Pod, false)));
    let closest = [("prefer-closest-numa-nodes", "True"), ("max-allowable-numa-nodes", "9")];
    assert_eq!(of("best-effort", "container", &closest, 9), Ok((Policy::BestEffort, Scope::Container, true)));
    let refused =
        |policy: &str, scope: &str, options: &[(&str, &str)], nodes| of(policy, scope, options, nodes).unwrap_err();
    assert_eq!(refused("some", "pod", &[], 1), r#"unknown policy: "some""#);
    assert_eq!(refused("restricted", "node", &[], 1), r#"unknown scope: "node""#);
    assert_eq!(refused("restricted", "pod", &[], 9), "unsupported on machines with more than 8 NUMA Nodes");
    let table = [
        (("fast", "true"), r#"unknown Topology Manager Policy option: "fast""#),
        (
            ("prefer-closest-numa-nodes", "yes"),
            r#"bad value for option "prefer-closest-numa-nodes": strconv.ParseBool: parsing "yes": invalid syntax"#,
        ),
        (
            ("prefer-closest-numa-nodes", "1"),
            "cannot discover NUMA topology: error getting NUMA distances from cadvisor",
        ),
        (
            ("max-allowable-numa-nodes", "many"),
            r#"unable to convert policy option to integer "max-allowable-numa-nodes": strconv.Atoi: parsing "many": invalid syntax"#,
        ),
        (
            ("max-allowable-numa-nodes", "7"),
            r#"the minimum value of "max-allowable-numa-nodes" should not be less than 8"#,
        ),
    ];
    for (option, words) in table {
        assert_eq!(refused("restricted", "pod", &[option], 1), words);
    }
}
