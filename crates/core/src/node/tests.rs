//! The Node object, compared with what upstream's kubelet 1.36.3 was recorded saying.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rubelet_api::v1::{self, Node};
use serde_json::{Value, json};

use super::addresses::{AddressRules, AddressSight, addresses, host_ips};
use super::object::{
    ImageSight, NodeEvent, Presence, Refreshed, Sight, SystemFacts, initial, labels, refreshed, seen, taints,
};
use super::patch::status_patch;
use super::reconcile::reconciled;
use super::report::{Reporting, has_changed};
use super::{HandlerFacts, NodeFacts, lease};
use crate::evict::Pressures;
use crate::now::{Mono, Wall};
use crate::sample;

const RECORDED: &str = include_str!("../../../../tests/golden/cluster/_node/api.jsonl");

/// The machine of the recording, and what the node is told.
struct World {
    presence: Presence,
    facts: NodeFacts,
    system: SystemFacts,
    addresses: AddressSight,
    images: Vec<ImageSight>,
    pressures: Pressures,
    storage_problem: Option<&'static str>,
    is_shutting_down: bool,
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl World {
    fn new() -> Self {
        let mut facts = sample::node();
        facts.machine.cpu_milli = 2000;
        facts.machine.allocatable_cpu_milli = 2000;
        facts.machine.memory_bytes = 24_684_092 << 10;
        facts.machine.allocatable_memory_bytes = 24_683_068 << 10;
        facts.machine.ephemeral_storage_bytes = 264_212_084 << 10;
        facts.machine.allocatable_ephemeral_storage_bytes = 264_212_084 << 10;
        (facts.machine.huge_pages, facts.machine.swap_bytes) = (Vec::new(), 0);
        let handler = |name: &str| HandlerFacts {
            name: name.to_owned(),
            recursive_read_only_mounts: true,
            user_namespaces: false,
        };
        (facts.runtime.name, facts.runtime.version) = ("containerd".to_owned(), "2.1.9+unknown".to_owned());
        facts.runtime.handlers = vec![handler("runc"), handler("")];
        facts.runtime.has_supplemental_groups_policy = true;
        let image = |tags: &[&str], bytes| ImageSight {
            id: format!("sha256:{bytes}"),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            digests: Vec::new(),
            bytes,
        };
        let name = "node-a".to_owned();
        Self {
            presence: Presence {
                name,
                is_attached_by_controller: true,
                images_max: Some(50),
                port: 10250,
                version: "v1.36.3".to_owned(),
                declared_features: super::features::declared(&rubelet_api::gates::Gates::default()),
                ..Presence::default()
            },
            facts,
            system: SystemFacts {
                machine_id: "<id>".to_owned(),
                system_uuid: "<id>".to_owned(),
                boot_id: "<id>".to_owned(),
                kernel: "<kernel>".to_owned(),
                os_image: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            },
            addresses: AddressSight {
                interfaces: vec![ip("127.0.0.1"), ip("192.0.2.7"), ip("2001:db8::7")],
                looked_up: Vec::new(),
                defaults: vec![ip("192.0.2.7"), ip("2001:db8::7")],
            },
            images: vec![
                image(&["registry.k8s.io/pause:3.10.2"], 322_066),
                image(
                    &["docker.io/library/busybox:latest", "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"],
                    1_088_983,
                ),
                image(&["registry.k8s.io/e2e-test-images/agnhost:2.63.0"], 21_020_485),
                image(&["docker.io/library/nginx:latest", "registry.k8s.io/e2e-test-images/nginx:1.15-4"], 5_448_196),
            ],
            pressures: Pressures::default(),
            storage_problem: Some("CSINode is not yet initialized"),
            is_shutting_down: false,
        }
    }

    fn sight(&self) -> Sight<'_> {
        Sight {
            facts: &self.facts,
            system: &self.system,
            addresses: &self.addresses,
            images: &self.images,
            pressures: self.pressures,
            is_shutting_down: self.is_shutting_down,
            storage_problem: self.storage_problem,
            volumes_in_use: None,
        }
    }

    fn initial(&self) -> Refreshed {
        initial(&self.presence, &self.sight(), at(0))
    }

    fn refreshed(&self, known: &Node, secs: i64) -> Refreshed {
        refreshed(&self.presence, &self.sight(), known, at(secs))
    }
}

fn at(secs: i64) -> Wall {
    Wall::from_second(1_700_000_000 + secs).expect("in range")
}

fn reasons(events: &[NodeEvent]) -> Vec<&'static str> {
    events.iter().map(|event| event.reason).collect()
}

fn condition<'a>(node: &'a Node, type_: &str) -> &'a v1::NodeCondition {
    let all = node.status.as_ref().and_then(|s| s.conditions.as_ref()).expect("conditions");
    all.iter().find(|c| c.type_ == type_).expect("the condition")
}

/// `node` without times, addresses named as in the recording.
fn comparable(node: &Node) -> Value {
    let text = serde_json::to_string(node).expect("JSON");
    let mut value: Value = serde_json::from_str(&text.replace("192.0.2.7", "<hostIP>")).expect("JSON");
    for one in value["status"]["conditions"].as_array_mut().expect("conditions") {
        for field in ["lastHeartbeatTime", "lastTransitionTime"] {
            assert!(one[field].is_string(), "{one}");
            one[field] = "<time>".into();
        }
    }
    value
}

#[test]
fn a_node_registers_as_upstream_was_recorded() {
    let lines = RECORDED.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let is_create = |line: &Value| line["verb"] == "create" && line["uri"] == "/api/v1/nodes";
    let recorded = lines.into_iter().find(is_create).expect("the registration");
    let made = World::new().initial();
    assert_eq!(comparable(&made.node), recorded["body"]);
    assert_eq!(made.problem, None);
    assert_eq!(
        made.events.iter().map(|e| (e.type_, e.message.as_str())).collect::<Vec<_>>(),
        [
            ("Normal", "Node node-a status is now: NodeHasSufficientMemory"),
            ("Normal", "Node node-a status is now: NodeHasNoDiskPressure"),
            ("Normal", "Node node-a status is now: NodeHasSufficientPID"),
        ]
    );
}

#[test]
fn a_node_that_becomes_ready_says_so_and_nothing_else() {
    let mut world = World::new();
    let known = world.initial().node;
    world.storage_problem = None;
    let ready = world.refreshed(&known, 0);
    assert_eq!(reasons(&ready.events), ["NodeReady"]);
    assert_eq!(
        status_patch(&known, &ready.node),
        Some(json!({ "status": {
            "$setElementOrder/conditions":
                [{ "type": "MemoryPressure" }, { "type": "DiskPressure" }, { "type": "PIDPressure" }, { "type": "Ready" }],
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "kubelet is posting ready status",
            }],
        } }))
    );
    // Later on it only says that it still is; that is a change of times only.
    let later = world.refreshed(&ready.node, 10);
    assert!(!has_changed(&ready.node, &later.node));
    assert_eq!(later.events, []);
    let patch = status_patch(&ready.node, &later.node).expect("times");
    let fields = |c: &Value| c.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
    assert_eq!(
        fields(&patch["status"]["conditions"][3]),
        Some(vec!["lastHeartbeatTime".to_owned(), "type".to_owned()])
    );
    assert_eq!(status_patch(&later.node, &later.node), None);
}

#[test]
fn why_a_node_is_not_ready() {
    let text = |turn: &dyn Fn(&mut World)| {
        let mut world = World::new();
        world.storage_problem = None;
        turn(&mut world);
        let node = world.initial().node;
        let ready = condition(&node, "Ready");
        (ready.status.clone(), ready.message.clone().expect("a message"))
    };
    let network = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no";
    assert_eq!(text(&|_| {}), ("True".to_owned(), "kubelet is posting ready status".to_owned()));
    assert_eq!(text(&|w| w.facts.runtime.network_problem = Some(network.to_owned())).1, network);
    assert_eq!(text(&|w| w.is_shutting_down = true).1, "node is shutting down");
    let down = "container runtime is down".to_owned();
    let both = text(&|w| {
        w.facts.runtime.problem = Some(down.clone());
        w.storage_problem = Some("CSINode is not yet initialized");
    });
    assert_eq!(both, ("False".to_owned(), "[container runtime is down, CSINode is not yet initialized]".to_owned()));
}

#[test]
fn conditions_remember_since_when() {
    let mut world = World::new();
    let first = world.initial().node;
    world.pressures = Pressures { memory: true, disk: true, pids: true };
    world.is_shutting_down = true;
    let pressed = world.refreshed(&first, 10);
    assert_eq!(
        reasons(&pressed.events),
        ["NodeHasInsufficientMemory", "NodeHasDiskPressure", "NodeHasInsufficientPID"]
    );
    let memory = condition(&pressed.node, "MemoryPressure");
    assert_eq!(memory.message.as_deref(), Some("kubelet has insufficient memory available"));
    assert_eq!(memory.last_transition_time.as_ref().map(|t| t.0), Some(at(10)));
    let later = world.refreshed(&pressed.node, 20);
    let memory = condition(&later.node, "MemoryPressure");
    assert_eq!(memory.last_transition_time.as_ref().map(|t| t.0), Some(at(10)));
    assert_eq!(memory.last_heartbeat_time.as_ref().map(|t| t.0), Some(at(20)));
    // It was not ready before either.
    assert_eq!(condition(&later.node, "Ready").last_transition_time.as_ref().map(|t| t.0), Some(at(0)));
}

#[test]
fn conditions_of_others_stay() {
    let mut world = World::new();
    let mut known = world.initial().node;
    let foreign = v1::NodeCondition { type_: "Drained".to_owned(), status: "True".to_owned(), ..Default::default() };
    known.status.get_or_insert_default().conditions.get_or_insert_default().insert(0, foreign.clone());
    world.storage_problem = None;
    let new = world.refreshed(&known, 10).node;
    assert_eq!(new.status.as_ref().and_then(|s| s.conditions.as_ref()).map(|c| c[0].clone()), Some(foreign));
    let patch = status_patch(&known, &new).expect("a patch");
    let types = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().map(|c| c["type"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(types(&patch["status"]["$setElementOrder/conditions"])[0], "Drained");
    assert!(!types(&patch["status"]["conditions"]).contains(&"Drained".to_owned()));
}

#[test]
fn a_reboot_is_told_of() {
    let mut world = World::new();
    let known = world.initial().node;
    world.system.boot_id = "next".to_owned();
    let after = world.refreshed(&known, 10);
    assert_eq!(reasons(&after.events), ["Rebooted"]);
    assert_eq!(after.events[0].message, "Node node-a has been rebooted, boot id: next");
    assert_eq!(after.events[0].type_, "Warning");
}

#[test]
fn what_the_command_line_adds() {
    let mut world = World::new();
    let own = [("tier", "edge"), ("kubernetes.io/hostname", "other")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    world.presence.labels = BTreeMap::from(own);
    let mut effect = v1::Taint { key: "a".to_owned(), effect: "NoExecute".to_owned(), ..v1::Taint::default() };
    world.presence.taints = vec![effect.clone()];
    world.presence.provider_id = "cloud://7".to_owned();
    world.presence.addresses.is_cloud_external = true;
    let labels = labels(&world.presence);
    assert_eq!(labels.get("tier").map(String::as_str), Some("edge"));
    assert_eq!(labels.get("kubernetes.io/hostname").map(String::as_str), Some("other"));
    let node = world.initial().node;
    let spec = node.spec.clone().expect("a specification");
    assert_eq!(spec.provider_id.as_deref(), Some("cloud://7"));
    let taints = taints(&world.presence);
    assert_eq!(spec.taints.as_ref(), Some(&taints));
    effect = taints[1].clone();
    assert_eq!(
        (effect.key.as_str(), effect.value.as_deref(), effect.effect.as_str()),
        ("node.cloudprovider.kubernetes.io/uninitialized", Some("true"), "NoSchedule")
    );
    assert_eq!(node.status.expect("a status").addresses, None, "the cloud's controller names them");
}

#[test]
fn addresses_of_a_node() {
    let sight = AddressSight {
        interfaces: ["127.0.0.1", "192.0.2.7", "192.0.2.8", "2001:db8::7", "fe80::1"].map(ip).to_vec(),
        looked_up: ["127.0.1.1", "192.0.2.9", "2001:db8::7", "192.0.2.8"].map(ip).to_vec(),
        defaults: ["192.0.2.7", "2001:db8::7"].map(ip).to_vec(),
    };
    let known = [v1::NodeAddress { type_: "ExternalIP".to_owned(), address: "198.51.100.1".to_owned() }];
    let no_names = AddressSight { looked_up: Vec::new(), ..sight.clone() };
    type Row<'a> = (&'a str, bool, &'a AddressSight, &'a str, &'a [v1::NodeAddress], Result<&'a [&'a str], &'a str>);
    let rows: [Row<'_>; 13] = [
        ("", false, &sight, "n", &[], Ok(&["192.0.2.8", "n"])),
        ("", false, &no_names, "n", &[], Ok(&["192.0.2.7", "n"])),
        ("::", false, &sight, "n", &[], Ok(&["2001:db8::7", "n"])),
        ("0.0.0.0", false, &no_names, "n", &[], Ok(&["192.0.2.7", "n"])),
        ("", false, &sight, "203.0.113.5", &[], Ok(&["203.0.113.5", "203.0.113.5"])),
        ("192.0.2.7", false, &sight, "n", &[], Ok(&["192.0.2.7", "n"])),
        ("192.0.2.7,2001:db8::7", false, &sight, "n", &[], Ok(&["192.0.2.7", "2001:db8::7", "n"])),
        (
            "192.0.2.99",
            false,
            &sight,
            "n",
            &[],
            Err("failed to validate nodeIP: node IP: \"192.0.2.99\" not found in the host's network interfaces"),
        ),
        ("127.0.0.1", false, &sight, "n", &[], Err("failed to validate nodeIP: nodeIP can't be loopback address")),
        ("", true, &sight, "n", &[], Ok(&[])),
        ("", true, &sight, "n", &known, Ok(&["198.51.100.1"])),
        ("192.0.2.7", true, &sight, "n", &[], Ok(&["192.0.2.7", "n"])),
        ("192.0.2.7", true, &sight, "n", &known, Ok(&["198.51.100.1"])),
    ];
    for (given, is_cloud_external, sight, name, known, wanted) in rows {
        let (rules, _) = AddressRules::parse(given, is_cloud_external).expect("addresses");
        let found = addresses(&rules, sight, name, known);
        let found = found.as_ref().map(|all| all.iter().map(|a| a.address.as_str()).collect::<Vec<_>>());
        let wanted = wanted.map(<[&str]>::to_vec);
        assert_eq!(found.map_err(String::as_str), wanted, "{given} {is_cloud_external} {name}");
    }
    assert_eq!(
        addresses(&AddressRules::default(), &AddressSight::default(), "n", &[]).unwrap_err(),
        "can't get ip address of node n. error: no default routes found"
    );
}

#[test]
fn what_node_ip_can_not_be() {
    for (text, wanted) in [
        ("1.2.3.4,1.2.3.5", "must contain either a single IP or a dual-stack pair of IPs"),
        ("1.2.3.4,::1,::2", "must contain either a single IP or a dual-stack pair of IPs"),
        ("0.0.0.0,::1", "dual-stack node IPs cannot include '0.0.0.0' or '::'"),
    ] {
        assert_eq!(AddressRules::parse(text, false).unwrap_err(), wanted, "{text}");
    }
    let (rules, unreadable) = AddressRules::parse("here, 1.2.3.4", false).expect("one is none");
    assert_eq!((rules.given, unreadable), (vec![ip("1.2.3.4")], vec!["here".to_owned()]));
}

#[test]
fn a_cloud_is_told_the_address_that_was_given() {
    let mut world = World::new();
    (world.presence.addresses, _) = AddressRules::parse("192.0.2.7,2001:db8::7", true).expect("addresses");
    let node = world.initial().node;
    let annotation = |node: &Node| node.metadata.annotations.clone()?.remove("alpha.kubernetes.io/provided-node-ip");
    assert_eq!(annotation(&node).as_deref(), Some("192.0.2.7,2001:db8::7"));
    world.presence.addresses = AddressRules::default();
    assert_eq!(annotation(&world.refreshed(&node, 10).node), None);
    assert_eq!(host_ips(&node), [ip("192.0.2.7"), ip("2001:db8::7")]);
}

#[test]
fn addresses_are_replaced_as_a_whole() {
    let mut world = World::new();
    let known = world.initial().node;
    world.addresses.defaults = vec![ip("192.0.2.8")];
    let patch = status_patch(&known, &world.refreshed(&known, 0).node).expect("a patch");
    assert_eq!(
        patch,
        json!({ "status": { "addresses": [
            { "$patch": "replace" },
            { "type": "InternalIP", "address": "192.0.2.8" },
            { "type": "Hostname", "address": "node-a" },
        ] } })
    );
}

#[test]
fn images_are_cut() {
    let mut world = World::new();
    let names = |n: usize, kind: &str| (0..n).map(|i| format!("{kind}{i}")).collect::<Vec<_>>();
    world.images = vec![ImageSight { id: "a".into(), digests: names(3, "d"), tags: names(4, "t"), bytes: 9 }; 3];
    world.images.push(ImageSight { id: "b".into(), bytes: 9, ..ImageSight::default() });
    world.presence.images_max = Some(2);
    let images = world.initial().node.status.and_then(|s| s.images).expect("images");
    assert_eq!(images.len(), 2);
    assert_eq!(images[0].names, None, "of equal ones the later id comes first");
    assert_eq!(images[1].names.as_deref(), Some(&["d0", "d1", "d2", "t0", "t1"].map(str::to_owned)[..]));
    world.presence.images_max = None;
    assert_eq!(world.initial().node.status.and_then(|s| s.images).map(|i| i.len()), Some(4));
}

#[test]
fn what_others_count_stays_until_nobody_remembers_it() {
    let world = World::new();
    let quantity = |text: &str| rubelet_api::Quantity(text.to_owned());
    let mut known = world.initial().node;
    let status = known.status.get_or_insert_default();
    status.capacity.get_or_insert_default().insert("example.com/dongle".to_owned(), quantity("4"));
    status.allocatable.get_or_insert_default().insert("example.com/gone".to_owned(), quantity("1"));
    let node = world.refreshed(&known, 10).node;
    let amounts = |node: &Node| node.status.clone().and_then(|s| s.allocatable).expect("allocatable");
    assert_eq!(amounts(&node).get("example.com/dongle"), Some(&quantity("4")));
    assert_eq!(amounts(&node).get("example.com/gone"), None);
    assert_eq!(seen(Some(&node), &world.presence).extended, [("example.com/dongle".to_owned(), 4)].into());
    let wanted = world.initial().node;
    assert_eq!(amounts(&reconciled(&wanted, &node, true)).get("example.com/dongle"), Some(&quantity("0")));
    assert_eq!(reconciled(&wanted, &node, false), node);
}

#[test]
fn a_node_that_was_there_is_brought_up_to_date() {
    let mut world = World::new();
    let mut known = world.initial().node;
    known.metadata.labels = Some(BTreeMap::from([
        ("mine".to_owned(), "stays".to_owned()),
        ("kubernetes.io/hostname".to_owned(), "old".to_owned()),
    ]));
    known.metadata.annotations =
        Some([("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())].into());
    known.spec.get_or_insert_default().taints = Some(vec![v1::Taint { key: "k".to_owned(), ..Default::default() }]);
    let capacity = known.status.get_or_insert_default().capacity.get_or_insert_default();
    capacity.insert("hugepages-64Ki".to_owned(), rubelet_api::Quantity("0".to_owned()));
    capacity.remove("hugepages-2Mi");
    world.presence.labels =
        [("tier".to_owned(), "edge".to_owned()), ("topology.kubernetes.io/zone".to_owned(), "z".to_owned())].into();
    world.presence.is_attached_by_controller = false;
    let node = reconciled(&world.initial().node, &known, true);
    let labels = node.metadata.labels.clone().expect("labels");
    let label = |key: &str| labels.get(key).map(String::as_str);
    assert_eq!(label("mine"), Some("stays"));
    assert_eq!(label("kubernetes.io/hostname"), Some("node-a"));
    assert_eq!(label("topology.kubernetes.io/zone"), Some("z"));
    assert_eq!(label("tier"), None, "other labels of the command line are for new nodes");
    assert_eq!(node.spec, known.spec, "taints are for new nodes, too");
    let patch = status_patch(&known, &node).expect("a patch");
    assert_eq!(patch["metadata"]["annotations"]["volumes.kubernetes.io/controller-managed-attach-detach"], Value::Null);
    assert_eq!(patch["status"]["capacity"], json!({ "hugepages-2Mi": "0", "hugepages-64Ki": null }));
}

#[test]
fn when_the_status_is_written() {
    let mut reporting = Reporting::new(Duration::from_secs(10), Duration::from_secs(300));
    assert!(!reporting.is_due(Mono::from_secs(1000)), "the first is written because it is news");
    reporting.wrote(Mono::from_secs(0), false, 0.9);
    assert!(!reporting.is_due(Mono::from_secs(299)));
    assert!(reporting.is_due(Mono::from_secs(300)));
    reporting.wrote(Mono::from_secs(0), true, 0.0);
    assert!(reporting.is_due(Mono::from_secs(150)));
    reporting.wrote(Mono::from_secs(0), true, 0.9);
    assert!(!reporting.is_due(Mono::from_secs(419)));
    assert_eq!(reporting.next_look(0.0), Duration::from_secs(10));
    assert_eq!(reporting.next_look(1.0), Duration::from_millis(10_400));
}

#[test]
fn leases_say_what_upstream_was_recorded_saying() {
    let lines = RECORDED.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let is_create =
        |line: &Value| line["verb"] == "create" && line["uri"].as_str().is_some_and(|u| u.contains("/leases"));
    let recorded = lines.into_iter().find(is_create).expect("the lease");
    let first = lease::renewed(None, "node-a", "<uuid>", 40, at(0));
    let mut value = serde_json::to_value(&first).expect("JSON");
    assert_eq!(value["spec"]["renewTime"], "2023-11-14T22:13:20.000000Z");
    value["spec"]["renewTime"] = "<time>".into();
    assert_eq!(value, recorded["body"]);
    let next = lease::renewed(Some(&first), "node-a", "other", 40, at(10));
    assert_eq!(next.metadata, first.metadata);
    assert!(next.spec.and_then(|s| s.renew_time) > first.spec.and_then(|s| s.renew_time));
    assert_eq!(lease::renew_after(40, 0.0), Duration::from_secs(10));
    assert_eq!(lease::renew_after(40, 1.0), Duration::from_millis(10_400));
}
