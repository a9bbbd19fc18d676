use super::*;

const DONGLE: &str = "example.com/dongle";

fn device(id: &str, health: &str) -> Device {
    Device { id: id.to_owned(), health: health.to_owned(), topology: None }
}

fn uid(text: &str) -> PodUid {
    PodUid::new(text)
}

fn ids(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|id| (*id).to_owned()).collect()
}

fn listed(healthy: &[&str], unhealthy: &[&str]) -> Devices {
    let mut devices = Devices::default();
    devices.connect(DONGLE);
    let all = healthy.iter().map(|id| device(id, HEALTHY)).chain(unhealthy.iter().map(|id| device(id, "Unhealthy")));
    devices.list(DONGLE, all.collect());
    devices
}

fn take(devices: &mut Devices, pod: &str, container: &str, count: usize) -> Result<BTreeSet<String>, String> {
    let choice = devices.choose(&uid(pod), container, (DONGLE, count), &Reusable::new(), None)?;
    let chosen = choice.closed(&[]);
    devices.grant(&uid(pod), container, DONGLE, &chosen, ContainerAllocateResponse::default());
    Ok(chosen)
}

fn count(devices: &Devices) -> Option<(usize, usize)> {
    devices.counts().get(DONGLE).map(|count| (count.capacity, count.allocatable))
}

#[test]
fn names_have_a_domain_that_is_not_kubernetes() {
    for good in ["example.com/dongle", "test.device/device-plugin-failures-12", "a/B_c.d"] {
        assert!(is_resource_name(good), "{good}");
    }
    let long = format!("example.com/{}", "a".repeat(64));
    let bad = ["dongle", "kubernetes.io/x", "requests.example.com/x", "example.com/", "/x", "exa_mple.com/x", "A.b/c"];
    for bad in bad.into_iter().chain(["a/b/c", &long]) {
        assert!(!is_resource_name(bad), "{bad}");
    }
}

#[test]
fn a_resource_is_counted_from_the_first_list_until_its_grace_is_over() {
    let mut devices = Devices::default();
    devices.connect(DONGLE);
    assert_eq!(count(&devices), None);
    devices.list(DONGLE, vec![device("a", HEALTHY), device("b", "Unhealthy")]);
    assert_eq!(count(&devices), Some((2, 1)));
    devices.stop(DONGLE, Mono::from_secs(10));
    assert_eq!(count(&devices), Some((2, 0)));
    assert_eq!(devices.expires_at(), Some(Mono::from_secs(310)));
    assert!(!devices.expire(Mono::from_secs(309)));
    assert!(devices.expire(Mono::from_secs(310)));
    assert_eq!((count(&devices), devices.expires_at()), (Some((0, 0)), None));
    // Back, it has none before it says which.
    devices.connect(DONGLE);
    assert_eq!(count(&devices), Some((0, 0)));
    devices.list(DONGLE, vec![device("a", HEALTHY)]);
    assert_eq!(count(&devices), Some((1, 1)));
}

#[test]
fn a_plugin_that_never_lists_has_none() {
    let mut devices = Devices::default();
    devices.connect(DONGLE);
    devices.stop(DONGLE, Mono::from_secs(1));
    assert_eq!(count(&devices), Some((0, 0)));
}

#[test]
fn what_an_earlier_life_registered_is_empty_until_it_is_back() {
    let mut devices = listed(&["a"], &[]);
    take(&mut devices, "p", "c", 1).unwrap();
    let mut later = Devices::restored(devices.held().clone(), [DONGLE.to_owned()], Mono::from_secs(0));
    assert_eq!(count(&later), Some((0, 0)));
    let refused = "no healthy devices present; cannot allocate unhealthy devices example.com/dongle";
    assert_eq!(take(&mut later, "p", "c", 1), Err(refused.to_owned()));
    later.connect(DONGLE);
    later.list(DONGLE, vec![device("a", HEALTHY), device("b", HEALTHY)]);
    assert_eq!(later.choose(&uid("p"), "c", (DONGLE, 1), &Reusable::new(), None), Ok(Choice::Made));
    assert_eq!(take(&mut later, "q", "c", 1), Ok(ids(&["b"])));
}

#[test]
fn devices_are_given_once_and_refusals_say_why() {
    let mut devices = listed(&["a", "b"], &["c"]);
    assert_eq!(take(&mut devices, "p", "c", 1), Ok(ids(&["a"])));
    let few = "requested number of devices unavailable for example.com/dongle. Requested: 2, Available: 1";
    assert_eq!(take(&mut devices, "q", "c", 2), Err(few.to_owned()));
    let changed = r#"pod "p" container "c" changed request for resource "example.com/dongle" from 1 to 2"#;
    assert_eq!(take(&mut devices, "p", "c", 2), Err(changed.to_owned()));
    let unknown = devices.choose(&uid("p"), "c", ("example.com/other", 1), &Reusable::new(), None);
    assert_eq!(unknown, Err("cannot allocate unregistered device example.com/other".to_owned()));
    devices.list(DONGLE, vec![device("a", "Unhealthy"), device("b", HEALTHY)]);
    let ill =
        "previously allocated devices are no longer healthy; cannot allocate unhealthy devices example.com/dongle";
    assert_eq!(take(&mut devices, "p", "c", 1), Err(ill.to_owned()));
    assert!(devices.retain(|uid| uid.as_str() != "p"));
    assert_eq!(take(&mut devices, "q", "c", 1), Ok(ids(&["b"])));
    assert_eq!(devices.used(), BTreeMap::from([(DONGLE.to_owned(), 1)]));
}

#[test]
fn a_plugin_may_prefer_what_is_free() {
    let devices = listed(&["a", "b", "c"], &[]);
    let choice = devices.choose(&uid("p"), "c", (DONGLE, 2), &Reusable::new(), None).unwrap();
    assert_eq!(choice.clone().closed(&["x".to_owned(), "c".to_owned()]), ids(&["a", "c"]));
    assert_eq!(choice.closed(&["c".to_owned(), "b".to_owned(), "a".to_owned()]), ids(&["b", "c"]));
}

#[test]
fn containers_have_what_init_containers_had_but_not_sidecars() {
    let mut devices = listed(&["a", "b"], &[]);
    let container = |name: &str, policy: Option<&str>| v1::Container {
        name: name.to_owned(),
        restart_policy: policy.map(str::to_owned),
        ..v1::Container::default()
    };
    let mut reusable = Reusable::new();
    let pod = uid("p");
    for (container, is_init, expected) in [
        (container("init", None), true, "a"),
        (container("sidecar", Some("Always")), true, "a"),
        (container("app", None), false, "b"),
    ] {
        let choice = devices.choose(&pod, &container.name, (DONGLE, 1), &reusable, None).unwrap();
        let chosen = choice.closed(&[]);
        assert_eq!(chosen, ids(&[expected]), "{}", container.name);
        devices.grant(&pod, &container.name, DONGLE, &chosen, ContainerAllocateResponse::default());
        devices.pass_on(&pod, &container, is_init, &mut reusable);
    }
}

#[test]
fn pods_are_told_how_their_devices_are() {
    let mut devices = listed(&["a", "b"], &[]);
    take(&mut devices, "p", "c", 1).unwrap();
    let health = |devices: &Devices| {
        let of = devices.health(&uid("p"));
        of["c"][0].resources.as_ref().unwrap()[0].health.clone().unwrap()
    };
    assert_eq!(health(&devices), "Healthy");
    assert_eq!(devices.list(DONGLE, vec![device("a", HEALTHY)]), BTreeSet::new());
    assert_eq!(devices.list(DONGLE, vec![device("a", "Unhealthy")]), BTreeSet::from([uid("p")]));
    assert_eq!(health(&devices), "Unhealthy");
    // A plugin that is gone says nothing new.
    devices.stop(DONGLE, Mono::from_secs(1));
    devices.expire(Mono::from_secs(1000));
    assert_eq!(health(&devices), "Unhealthy");
    assert_eq!(devices.shown(&uid("p"), "c")[0].device_ids, ["a"]);
}

#[test]
fn a_container_is_given_what_belongs_to_its_devices_once() {
    use rubelet_proto::deviceplugin as plugin;
    let given = |value: &str| ContainerAllocateResponse {
        envs: BTreeMap::from([("KEY".to_owned(), value.to_owned())]),
        mounts: vec![plugin::Mount { container_path: "/in".into(), host_path: format!("/{value}"), read_only: true }],
        devices: vec![plugin::DeviceSpec {
            container_path: "/dev/x".into(),
            host_path: format!("/dev/{value}"),
            permissions: "rw".into(),
        }],
        annotations: BTreeMap::from([("note".to_owned(), value.to_owned())]),
        cdi_devices: vec![plugin::CdiDevice { name: "example.com/d=1".into() }],
    };
    let grants = Grants::from([
        ("a/one".to_owned(), Grant { devices: BTreeMap::new(), given: given("one") }),
        ("b/two".to_owned(), Grant { devices: BTreeMap::new(), given: given("two") }),
    ]);
    let mut config = cri::ContainerConfig {
        envs: vec![cri::KeyValue { key: "OWN".into(), value: b"x".to_vec() }],
        ..cri::ContainerConfig::default()
    };
    fill_container(&mut config, &grants);
    let envs: Vec<_> = config.envs.iter().map(|e| (e.key.as_str(), e.value.as_slice())).collect();
    assert_eq!(envs, [("KEY", b"one".as_slice()), ("OWN", b"x")]);
    let [mount] = &config.mounts[..] else { panic!("{:?}", config.mounts) };
    assert_eq!((mount.host_path.as_str(), mount.readonly), ("/one", true));
    assert_eq!((config.devices.len(), config.devices[0].host_path.as_str()), (1, "/dev/one"));
    assert_eq!(config.annotations["note"], "one");
    assert_eq!(config.cdi_devices.len(), 1);
}

/// Devices `a` and `b` are near node 0, `c` and `d` near node 1, `e` near both, `f` near none.
fn placed() -> Devices {
    let mut devices = Devices::default();
    devices.connect(DONGLE);
    let near = |id: &str, nodes: &[i64]| Device {
        topology: Some(rubelet_proto::deviceplugin::TopologyInfo {
            nodes: nodes.iter().map(|&id| rubelet_proto::deviceplugin::NumaNode { id }).collect(),
        }),
        ..device(id, HEALTHY)
    };
    let all = vec![near("a", &[0]), near("b", &[0]), near("c", &[1]), near("d", &[1]), near("e", &[0, 1])];
    devices.list(DONGLE, all.into_iter().chain([device("f", HEALTHY)]).collect());
    devices
}

#[test]
fn nodes_are_hinted_at_by_what_is_free() {
    let machine = Nodes::of(0..2);
    let hinted = |devices: &Devices, container: &str, count: usize, reusable: &Reusable| {
        let hints = devices.hints(&uid("p"), container, &[(DONGLE.to_owned(), count)], reusable, machine);
        let shown = |hint: &crate::resources::numa::Hint| {
            format!("{}{}", hint.nodes.unwrap(), if hint.is_preferred { "+" } else { "" })
        };
        hints[DONGLE].as_ref().map(|hints| hints.iter().map(shown).collect::<Vec<_>>().join(" "))
    };
    let none = Reusable::new();
    let mut devices = placed();
    assert_eq!(hinted(&devices, "c", 3, &none).unwrap(), "01+ 10+ 11");
    assert_eq!(hinted(&devices, "c", 4, &none).unwrap(), "11+", "no node alone has four");
    assert_eq!(hinted(&devices, "c", 6, &none).unwrap(), "", "the one near no node is none of those");
    assert_eq!(hinted(&devices, "c", 7, &none).unwrap(), "");
    // Two of node 0 are gone: it is worse, though it could have been preferred.
    devices.grant(&uid("q"), "c", DONGLE, &ids(&["a", "b"]), ContainerAllocateResponse::default());
    assert_eq!(hinted(&devices, "c", 2, &none).unwrap(), "10+ 11");
    let pod: v1::Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "spec": {
        "initContainers": [{"name": "i", "image": "x", "resources": {"limits": {DONGLE: "2"}}}],
        "containers": [{"name": "c", "image": "x", "resources": {"limits": {DONGLE: "1", "cpu": "1"}}}],
    }}))
    .unwrap();
    let of_pod = devices.pod_hints(&uid("p"), &pod, machine);
    assert_eq!((of_pod.len(), of_pod[DONGLE].as_ref().unwrap().len()), (1, 2));
    // What an init container had counts, and has to be among it.
    let reusable = Reusable::from([(DONGLE.to_owned(), ids(&["a"]))]);
    assert_eq!(hinted(&devices, "c", 2, &reusable).unwrap(), "01+ 11");
    // A container that has its own gets what it has; with another number nothing.
    devices.grant(&uid("p"), "c", DONGLE, &ids(&["c"]), ContainerAllocateResponse::default());
    assert_eq!(hinted(&devices, "c", 1, &none).unwrap(), "10+ 11");
    assert_eq!(hinted(&devices, "c", 2, &none).unwrap(), "");
    assert_eq!(hinted(&listed(&["a"], &[]), "c", 1, &none), None, "a resource without nodes minds none");
}

#[test]
fn devices_near_the_nodes_come_first() {
    let choose = |count: usize, near: Option<Nodes>, preferred: &[&str]| {
        let choice = placed().choose(&uid("p"), "c", (DONGLE, count), &Reusable::new(), near).unwrap();
        let preferred: Vec<String> = preferred.iter().map(|id| (*id).to_owned()).collect();
        choice.closed(&preferred).into_iter().collect::<Vec<_>>().join(" ")
    };
    let one = Some(Nodes::of([1]));
    assert_eq!(choose(2, None, &[]), "a b");
    assert_eq!(choose(2, one, &[]), "c d");
    assert_eq!(choose(2, one, &["a", "e"]), "c e", "the plugin may prefer among those that are near");
    assert_eq!(choose(4, one, &[]), "a c d e");
    assert_eq!(choose(4, one, &["f"]), "c d e f", "and among the others, once all that are near are taken");
    assert_eq!(choose(6, one, &[]), "a b c d e f");
}
