use super::*;
use crate::resources::cpus::Place;

fn given(names: &[(&str, &str)]) -> BTreeMap<String, String> {
    names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// So many sockets and nodes, a CPU each.
fn machine(sockets: usize, nodes: usize) -> Topology {
    let count = sockets.max(nodes);
    let place =
        |cpu| Place { cpu, core: cpu, socket: cpu * sockets / count, node: cpu * nodes / count, ..Place::default() };
    Topology::of((0..count).map(place).collect())
}

const ALL: Gates = Gates { alpha: true, beta: true };

fn parsed(names: &[(&str, &str)], gates: Gates) -> Result<Options, String> {
    Options::parse(&given(names), gates, &machine(2, 4), numa::Policy::None)
}

#[test]
fn options_are_read() {
    let options = parsed(&[("full-pcpus-only", "true"), ("distribute-cpus-across-numa", "1")], ALL);
    assert_eq!(options, Ok(Options { whole_cores: true, across_nodes: true, ..Options::default() }));
    let options = parsed(&[("align-by-socket", "T"), ("strict-cpu-reservation", "true"), (BY_UNCORE, "false")], ALL);
    assert_eq!(options, Ok(Options { by_socket: true, strict_reservation: true, ..Options::default() }));
    let options = parsed(&[("prefer-align-cpus-by-uncorecache", "t"), ("full-pcpus-only", "TRUE")], ALL);
    assert_eq!(options, Ok(Options { by_uncore: true, whole_cores: true, ..Options::default() }));
    assert_eq!(parsed(&[(ACROSS_CORES, "true")], ALL), Ok(Options { across_cores: true, ..Options::default() }));
    assert_eq!(parsed(&[], Gates::default()), Ok(Options::default()));
}

#[test]
fn what_cannot_be_is_refused() {
    let both =
        |one: &str, other: &str| format!("static policy options {one} and {other} can not be used at the same time");
    for (names, gates, why) in [
        (
            &[("this-option-does-not-exist", "true")][..],
            ALL,
            "unknown CPU Manager Policy option: \"this-option-does-not-exist\"".to_owned(),
        ),
        (
            &[("full-pcpus-only", "yes")],
            ALL,
            "bad value for option \"full-pcpus-only\": strconv.ParseBool: parsing \"yes\": invalid syntax".to_owned(),
        ),
        (
            &[("align-by-socket", "true")],
            Gates { alpha: false, beta: true },
            "CPU Manager Policy Alpha-level Options not enabled, but option \"align-by-socket\" provided".to_owned(),
        ),
        (
            &[("distribute-cpus-across-cores", "false")],
            Gates { alpha: false, beta: true },
            "CPU Manager Policy Alpha-level Options not enabled, but option \"distribute-cpus-across-cores\" provided"
                .to_owned(),
        ),
        (
            &[("distribute-cpus-across-numa", "true")],
            Gates { alpha: true, beta: false },
            "CPU Manager Policy Beta-level Options not enabled, but option \"distribute-cpus-across-numa\" provided"
                .to_owned(),
        ),
        (&[(WHOLE_CORES, "true"), (ACROSS_CORES, "true")], ALL, both(WHOLE_CORES, ACROSS_CORES)),
        (&[(ACROSS_NODES, "true"), (ACROSS_CORES, "true")], ALL, both(ACROSS_NODES, ACROSS_CORES)),
        (&[(BY_UNCORE, "true"), (ACROSS_CORES, "true")], ALL, both(BY_UNCORE, ACROSS_CORES)),
        (&[(BY_UNCORE, "true"), (ACROSS_NODES, "true")], ALL, both(BY_UNCORE, ACROSS_NODES)),
    ] {
        assert_eq!(parsed(names, gates), Err(why));
    }
}

#[test]
fn sockets_are_aligned_to_only_where_that_means_something() {
    let by_socket = |topology: &Topology, policy| {
        Options::parse(&given(&[("align-by-socket", "true")]), ALL, topology, policy).map(|options| options.by_socket)
    };
    assert_eq!(by_socket(&machine(2, 4), numa::Policy::Restricted), Ok(true));
    assert_eq!(by_socket(&machine(2, 2), numa::Policy::BestEffort), Ok(true));
    assert_eq!(
        by_socket(&machine(2, 4), numa::Policy::SingleNumaNode).unwrap_err(),
        "Topolgy manager single-numa-node policy is incompatible with CPUManager align-by-socket policy option"
    );
    assert_eq!(
        by_socket(&machine(4, 2), numa::Policy::None).unwrap_err(),
        "Align by socket is not compatible with hardware where number of sockets are more than number of NUMA"
    );
    let other = Options::parse(&given(&[(WHOLE_CORES, "true")]), ALL, &machine(4, 2), numa::Policy::SingleNumaNode);
    assert!(other.is_ok_and(|options| options.whole_cores));
}

#[test]
fn the_policy_none_takes_no_options() {
    assert_eq!(none_given(&given(&[])), Ok(()));
    let why = "None policy: received unsupported options=map[a:1 full-pcpus-only:true]";
    assert_eq!(none_given(&given(&[("full-pcpus-only", "true"), ("a", "1")])), Err(why.to_owned()));
}
