use std::net::IpAddr;

use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_api::v1::Pod;
use serde_json::{Value, json};

use super::{ContainerView, RenderError, create_container, dns, hostname, hosts, log_link, sandbox, sandbox_config};
use crate::node::{DnsFacts, HostResolvConf, NodeFacts};
use crate::now::{Mono, Now, Wall};
use crate::pod::fact::ImageFound;
use crate::pod::needs::Inputs;
use crate::pod::step::CreateContainer;
use crate::sample::{node, pod_with};

fn image() -> ImageFound {
    ImageFound { image_ref: "sha256:1".into(), uid: Some(0), ..Default::default() }
}

fn ips() -> Vec<IpAddr> {
    vec!["10.87.0.5".parse().expect("an address")]
}

fn create_from(pod: &Pod, node: &NodeFacts, image: &ImageFound) -> Result<CreateContainer, RenderError> {
    create_container(&ContainerView {
        pod,
        container: "a",
        node,
        restart_count: 2,
        image,
        sandbox: &SandboxId::new("s"),
        target: None,
        sandbox_attempt: 1,
        pod_ips: &ips(),
        inputs: &Inputs::default(),
        now: Now { mono: Mono::default(), wall: Wall::UNIX_EPOCH },
    })
}

fn create(container: Value, spec: Value) -> Result<CreateContainer, RenderError> {
    create_from(&pod_with(container, spec), &node(), &image())
}

fn refusal(container: Value, spec: Value) -> String {
    let error = create(container.clone(), spec).expect_err(&container.to_string());
    assert_eq!(error.reason, "CreateContainerConfigError");
    error.message
}

#[test]
fn variables_keep_the_pods_order_and_see_only_earlier_ones() {
    let created = create(
        json!({
            "env": [
                { "name": "B", "value": "$(A)" },
                { "name": "A", "value": "1" },
                { "name": "C", "value": "$(A)$(B)$$(A)" },
                { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
                { "name": "IPS", "valueFrom": { "fieldRef": { "fieldPath": "status.podIPs" } } },
                { "name": "A", "value": "2" },
            ],
            "command": ["$(C)"],
            "args": ["$(A) $(Z)"],
        }),
        json!({ "nodeName": "node-a" }),
    );
    let config = created.expect("it can be rendered").config;
    let envs: Vec<(&str, &str)> =
        config.envs.iter().map(|e| (e.key.as_str(), std::str::from_utf8(&e.value).expect("text"))).collect();
    assert_eq!(envs, [("B", "$(A)"), ("A", "2"), ("C", "1$(A)$(A)"), ("NODE", "node-a"), ("IPS", "10.87.0.5")]);
    assert_eq!((config.command, config.args), (vec!["1$(A)$(A)".to_owned()], vec!["2 $(Z)".to_owned()]));
}

#[test]
fn variables_from_elsewhere_are_refused_or_left_to_the_hand() {
    let from = |source: Value| json!({ "env": [{ "name": "X", "valueFrom": source }] });
    let config_map = from(json!({ "configMapKeyRef": { "name": "c", "key": "k", "optional": true } }));
    assert_eq!(refusal(config_map, json!({})), "couldn't get configMap default/c, no kubeClient defined");
    let secrets = json!({ "envFrom": [{ "secretRef": { "name": "s" } }] });
    assert_eq!(refusal(secrets, json!({})), "couldn't get secret default/s, no kubeClient defined");
    let unknown = from(json!({ "fieldRef": { "fieldPath": "spec.x" } }));
    assert_eq!(refusal(unknown, json!({})), "unsupported fieldPath: spec.x");

    let mut file = from(json!({ "fileKeyRef": { "volumeName": "v", "path": "env", "key": "K", "optional": true } }));
    let volumes = json!({ "volumes": [{ "name": "v", "emptyDir": {} }] });
    let created = create(file.clone(), volumes.clone()).expect("the hand reads it");
    assert!(created.config.envs.is_empty());
    let env_file = &created.env_files[0];
    assert_eq!(
        (env_file.variable.as_str(), env_file.path.as_str(), env_file.key.as_str(), env_file.is_optional),
        ("X", "env", "K", true)
    );
    assert!(env_file.volume_path.ends_with("pods/u-1/volumes/kubernetes.io~empty-dir/v"));
    file["args"] = json!(["$(X)"]);
    assert!(refusal(file, volumes).contains("fileKeyRef"));
}

#[test]
fn amounts_are_told_in_units_of_the_divisor_rounded_up() {
    let told = |resource: &str, divisor: &str| {
        let selector = json!({ "resource": resource, "divisor": divisor });
        let env = json!([{ "name": "X", "valueFrom": { "resourceFieldRef": selector } }]);
        let resources =
            json!({ "requests": { "cpu": "250m", "memory": "1500Ki" }, "limits": { "hugepages-2Mi": "4Mi" } });
        let created = create(json!({ "env": env, "resources": resources }), json!({}));
        created.map(|c| String::from_utf8(c.config.envs[0].value.clone()).expect("text")).map_err(|e| e.message)
    };
    for (resource, divisor, value) in [
        ("requests.cpu", "0", "1"),
        ("requests.cpu", "1m", "250"),
        ("requests.cpu", "100m", "3"),
        ("requests.memory", "1Mi", "2"),
        ("limits.cpu", "1", "4"),
        ("limits.memory", "1Gi", "7"),
        ("limits.ephemeral-storage", "1Gi", "90"),
        ("limits.hugepages-2Mi", "1Mi", "4"),
        ("requests.ephemeral-storage", "1", "0"),
    ] {
        assert_eq!(told(resource, divisor), Ok(value.to_owned()), "{resource} / {divisor}");
    }
    assert_eq!(told("limits.gpu", "1"), Err("unsupported container resource : limits.gpu".into()));
}

#[test]
fn an_image_that_would_run_as_root_is_refused_where_root_is_forbidden() {
    let non_root = json!({ "securityContext": { "runAsNonRoot": true } });
    let whose = "(pod: \"web_default(u-1)\", container: a)";
    let pod = pod_with(non_root.clone(), json!({}));
    let with = |uid: Option<i64>, username: &str| {
        let image = ImageFound { uid, username: username.into(), ..image() };
        create_from(&pod, &node(), &image)
            .map(|c| c.config.linux.and_then(|l| l.security_context).expect("a context"))
            .map_err(|e| e.message)
    };
    assert_eq!(with(Some(0), ""), Err(format!("container has runAsNonRoot and image will run as root {whose}")));
    assert_eq!(
        with(None, "web"),
        Err(format!(
            "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root {whose}"
        ))
    );
    assert_eq!(with(Some(7), "").expect("user 7 is not root").run_as_user.map(|u| u.value), Some(7));
    let mut as_root = non_root;
    as_root["securityContext"]["runAsUser"] = 0.into();
    assert_eq!(refusal(as_root, json!({})), format!("container's runAsUser breaks non-root policy {whose}"));
}

#[test]
fn profiles_come_from_the_container_then_the_pod_then_the_settings() {
    let seccomp =
        |kind: &str| json!({ "securityContext": { "seccompProfile": { "type": kind, "localhostProfile": "p.json" } } });
    let of = |container: Value, spec: Value, node: &NodeFacts| {
        let created = create_from(&pod_with(container, spec), node, &image()).expect("it can be rendered");
        let context = created.config.linux.and_then(|l| l.security_context).expect("a context");
        let seccomp = context.seccomp.expect("a profile");
        (
            seccomp.profile_type().as_str_name(),
            seccomp.localhost_ref,
            context.apparmor.map(|a| a.localhost_ref),
            context.apparmor_profile,
        )
    };
    let mut node = node();
    let shown = of(seccomp("Localhost"), seccomp("RuntimeDefault"), &node);
    assert_eq!((shown.0, shown.1.as_str()), ("Localhost", "/var/lib/kubelet/seccomp/p.json"));
    assert_eq!(of(json!({}), seccomp("RuntimeDefault"), &node).0, "RuntimeDefault");
    assert_eq!(of(json!({}), json!({}), &node).0, "Unconfined");
    node.settings.seccomp_default = true;
    assert_eq!(of(json!({}), json!({}), &node).0, "RuntimeDefault");
    let armor = json!({ "securityContext": { "appArmorProfile": { "type": "Localhost", "localhostProfile": "web" } } });
    let shown = of(json!({}), armor, &node);
    assert_eq!((shown.2.as_deref(), shown.3.as_str()), (Some("web"), "localhost/web"));
    let incomplete = json!({ "securityContext": { "seccompProfile": { "type": "Localhost" } } });
    assert_eq!(refusal(incomplete, json!({})), "localhostProfile must be set if seccompProfile type is Localhost.");
}

#[test]
fn an_unmasked_proc_hides_nothing_and_existing_throttle_files_are_hidden() {
    let mut node = node();
    node.machine.thermal_throttle_paths = vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".into()];
    let of = |proc_mount: &str| {
        let pod = pod_with(json!({ "securityContext": { "procMount": proc_mount } }), json!({}));
        let created = create_from(&pod, &node, &image()).expect("it can be rendered");
        created
            .config
            .linux
            .and_then(|l| l.security_context)
            .map(|c| (c.masked_paths, c.readonly_paths))
            .expect("a context")
    };
    let (masked, read_only) = of("Default");
    assert_eq!(
        (masked.last().map(String::as_str), read_only.len()),
        (Some("/sys/devices/system/cpu/cpu0/thermal_throttle"), 5)
    );
    assert_eq!(of("Unmasked"), (vec![], vec![]));
}

#[test]
fn subpaths_are_opened_by_the_hand_and_may_not_leave_the_volume() {
    let mounting = |mount: Value| {
        let mut mount = mount;
        mount["name"] = "v".into();
        mount["mountPath"] = "data".into();
        json!({ "env": [{ "name": "D", "value": "x/y" }], "volumeMounts": [mount] })
    };
    let volumes = json!({ "volumes": [{ "name": "v", "emptyDir": {} }] });
    let created = create(mounting(json!({ "subPathExpr": "$(D)/z", "readOnly": true })), volumes.clone())
        .expect("it can be rendered");
    let sub = &created.subpaths[0];
    assert_eq!((sub.mount, sub.sub_path.as_str(), sub.read_only), (0, "x/y/z", true));
    assert_eq!(sub.target.to_str(), Some("/var/lib/kubelet/pods/u-1/volume-subpaths/v/a/0"));
    assert_eq!(created.config.mounts[0].container_path, "/data");
    for (mount, message) in [
        (json!({ "subPathExpr": "$(Z)" }), "missing value for \"Z\""),
        (json!({ "subPath": "/etc" }), "error SubPath `/etc` must not be an absolute path"),
        (json!({ "subPath": "a/../b" }), "unable to provision SubPath `a/../b`: must not contain '..'"),
        (
            json!({ "recursiveReadOnly": "Enabled" }),
            "failed to resolve recursive read-only mode: volume \"v\" requested recursive read-only mode, but it is not read-only",
        ),
        (
            json!({ "recursiveReadOnly": "Enabled", "readOnly": true }),
            "failed to resolve recursive read-only mode: volume \"v\" requested recursive read-only mode, but it is not supported by the runtime",
        ),
    ] {
        assert_eq!(refusal(mounting(mount), volumes.clone()), message);
    }
    let missing = refusal(mounting(json!({})), json!({}));
    assert_eq!(missing, "cannot find volume \"v\" to mount into container \"a\"");
    let device = json!({ "volumeDevices": [{ "name": "d", "devicePath": "/dev/x" }] });
    assert!(refusal(device, json!({})).contains("to pass into container"));
}

#[test]
fn mounts_are_as_recursive_and_shared_as_asked_and_possible() {
    let mut node = node();
    node.runtime.handlers[0].recursive_read_only_mounts = true;
    node.machine.has_selinux = true;
    let mounts = json!([
        { "name": "v", "mountPath": "/a", "readOnly": true, "recursiveReadOnly": "IfPossible" },
        { "name": "h", "mountPath": "/b", "mountPropagation": "HostToContainer" },
        { "name": "h", "mountPath": "/etc/hosts", "mountPropagation": "Bidirectional" },
    ]);
    let volumes =
        json!({ "volumes": [{ "name": "v", "emptyDir": {} }, { "name": "h", "hostPath": { "path": "/srv" } }] });
    let pod = pod_with(json!({ "volumeMounts": mounts, "terminationMessagePath": "/end" }), volumes);
    let created = create_from(&pod, &node, &image()).expect("it can be rendered");
    assert_eq!(created.etc_hosts, None, "the container mounts its own");
    let shown: Vec<(&str, bool, &str, bool)> = created
        .config
        .mounts
        .iter()
        .map(|m| (m.container_path.as_str(), m.recursive_read_only, m.propagation().as_str_name(), m.selinux_relabel))
        .collect();
    assert_eq!(
        shown,
        [
            ("/a", true, "PROPAGATION_PRIVATE", true),
            ("/b", false, "PROPAGATION_HOST_TO_CONTAINER", false),
            ("/etc/hosts", false, "PROPAGATION_BIDIRECTIONAL", false),
            ("/end", false, "PROPAGATION_PRIVATE", true),
        ]
    );
}

#[test]
fn the_termination_log_is_new_for_every_instance_and_the_same_for_the_same() {
    let pod = pod_with(json!({}), json!({}));
    let log = |restart_count: u32, secs: i64| {
        let view_now = Now { mono: Mono::default(), wall: Wall::from_second(secs).expect("in range") };
        let view = ContainerView {
            pod: &pod,
            container: "a",
            node: &node(),
            restart_count,
            image: &image(),
            sandbox: &SandboxId::new("s"),
            target: None,
            sandbox_attempt: 0,
            pod_ips: &[],
            inputs: &Inputs::default(),
            now: view_now,
        };
        create_container(&view).expect("it can be rendered").termination_log
    };
    assert_eq!(log(0, 5), log(0, 5));
    assert!(log(0, 5) != log(1, 5) && log(0, 5) != log(0, 6));
    let name = log(0, 5).file_name().and_then(|n| n.to_str()).map(str::to_owned).expect("a name");
    assert!(name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
}

#[test]
fn stop_signals_are_told_when_the_gate_is_on() {
    let mut node = node();
    let pod = pod_with(json!({ "lifecycle": { "stopSignal": "SIGUSR1" } }), json!({}));
    let signal = |node: &NodeFacts| {
        create_from(&pod, node, &image()).expect("it can be rendered").config.stop_signal().as_str_name()
    };
    assert_eq!(signal(&node), "RUNTIME_DEFAULT");
    node.settings.gates.container_stop_signals = true;
    assert_eq!(signal(&node), "SIGUSR1");
}

#[test]
fn name_service_follows_policy_and_own_settings() {
    let of = |spec: Value, node: &NodeFacts| dns::dns(&pod_with(json!({}), spec), node);
    let mut node = node();
    let cluster = of(json!({}), &node).config;
    assert_eq!((cluster.servers[0].as_str(), cluster.options), ("10.96.0.10", vec!["ndots:5".to_owned()]));
    assert_eq!(cluster.searches, ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "host.test"]);
    let host = of(json!({ "dnsPolicy": "Default" }), &node).config;
    assert_eq!(
        (host.servers, host.searches, host.options),
        (vec!["10.0.0.2".into()], vec!["host.test".into()], vec!["timeout:1".into()])
    );
    assert_eq!(of(json!({ "hostNetwork": true }), &node).config.servers, ["10.0.0.2"]);
    let with_host_net = json!({ "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" });
    assert_eq!(of(with_host_net, &node).config.servers, ["10.96.0.10"]);
    let own = json!({ "nameservers": ["10.96.0.10", "1.1.1.1"], "searches": ["svc.cluster.local", "x"], "options": [{ "name": "ndots", "value": "2" }, { "name": "rotate" }] });
    let merged = of(json!({ "dnsConfig": own }), &node).config;
    assert_eq!(
        (merged.servers, merged.options),
        (vec!["10.96.0.10".into(), "1.1.1.1".into()], vec!["ndots:2".into(), "rotate".into()])
    );
    assert_eq!(merged.searches.last().map(String::as_str), Some("x"));

    node.dns.cluster_servers.clear();
    let fallen = of(json!({}), &node);
    assert_eq!((fallen.config.servers, fallen.problems[0].reason), (vec!["10.0.0.2".into()], "MissingClusterDNS"));
    node.dns.host_resolv_conf = None;
    let none = of(json!({ "dnsPolicy": "Default" }), &node).config;
    assert_eq!((none.servers, none.searches), (vec!["127.0.0.1".into()], vec![".".into()]));
}

#[test]
fn more_than_resolvers_take_is_cut_with_a_warning() {
    let many = |n: usize, len: usize| (0..n).map(|i| format!("{i:0len$}")).collect::<Vec<_>>();
    let of = |servers: &[String], searches: &[String]| {
        let config = json!({ "nameservers": servers, "searches": searches });
        dns::dns(&pod_with(json!({}), json!({ "dnsPolicy": "None", "dnsConfig": config })), &node())
    };
    let cut = of(&many(4, 1), &[]);
    assert_eq!(cut.config.servers.len(), 3);
    assert_eq!(
        cut.problems[0].message,
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 0 1 2"
    );
    assert_eq!(of(&[], &many(33, 2)).config.searches.len(), 32);
    assert_eq!(of(&[], &many(2, 254)).config.searches.len(), 0);
    let long = of(&[], &many(20, 200));
    assert_eq!((long.config.searches.len(), long.problems[0].reason), (10, "DNSConfigForming"));
    assert!(of(&many(3, 1), &many(32, 2)).problems.is_empty());
}

#[test]
fn what_is_wrong_with_the_hosts_own_file_is_told() {
    let of = |domain: &str, content: Result<&str, &str>| {
        let content = content.map(str::to_owned).map_err(str::to_owned);
        let file = HostResolvConf { path: "/r".into(), content };
        let facts = DnsFacts { cluster_domain: domain.into(), host_resolv_conf: Some(file), ..DnsFacts::default() };
        dns::host_problem(&facts).map(|p| format!("{}: {}", p.reason, p.message))
    };
    let search = |n: usize, len: usize| format!("search {}", vec!["x".repeat(len); n].join(" "));
    let told = |message: &str| Some(format!("CheckLimitsForResolvConf: {message}"));
    let many = "Resolv.conf file '/r' contains search line consisting of more than 29 domains!";
    let long = "Resolv.conf file \"/r\" contains a search path which length is more than allowed 253 chars!";
    let line = "Resolv.conf file '/r' contains search line which length is more than allowed 2048 chars!";
    assert_eq!(of("cluster.local", Ok(&search(30, 1))), told(many));
    assert_eq!(of("", Ok(&search(32, 1))), None);
    assert_eq!(of("", Ok(&search(33, 1))), told(&many.replace("29", "32")));
    assert_eq!(of("", Ok(&search(1, 254))), told(long));
    assert_eq!(of("", Ok(&search(9, 250))), told(line));
    assert_eq!(of("", Err("open /r: gone")), told("open /r: gone"));
    assert_eq!(dns::host_problem(&DnsFacts::default()), None);
}

#[test]
fn host_names_are_cut_joined_and_refused_when_too_long() {
    let of = |spec: Value| hostname::sandbox_hostname(&pod_with(json!({}), spec), &node());
    assert_eq!(of(json!({})), Ok("web".into()));
    assert_eq!(of(json!({ "hostNetwork": true })), Ok(String::new()));
    let cut = format!("{}-.x", "h".repeat(61));
    assert_eq!(of(json!({ "hostname": cut })), Ok("h".repeat(61)));
    let full = json!({ "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true });
    assert_eq!(of(full), Ok("h.s.default.svc.cluster.local".into()));
    assert_eq!(of(json!({ "hostname": "h", "subdomain": "s", "hostnameOverride": "o.test" })), Ok("o.test".into()));
    let long =
        of(json!({ "hostname": "h".repeat(60), "subdomain": "s", "setHostnameAsFQDN": true })).expect_err("too long");
    assert_eq!(long.reason, "FailedCreatePodSandBox");
    assert!(
        long.message.contains("is too long (64 characters is the max, 88 characters requested)"),
        "{}",
        long.message
    );
}

#[test]
fn aliases_follow_the_hosts_file_and_a_pod_without_address_gets_none() {
    let spec = json!({ "hostNetwork": true, "hostAliases": [{ "ip": "10.9.8.7", "hostnames": ["one", "two"] }] });
    let wanted = "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n\n# Entries added by HostAliases.\n10.9.8.7\tone\ttwo\n";
    assert_eq!(hosts::etc_hosts(&pod_with(json!({}), spec), &node(), &[]).as_deref(), Some(wanted));
    assert_eq!(hosts::etc_hosts(&pod_with(json!({}), json!({})), &node(), &[]), None);
}

#[test]
fn user_namespaces_and_repeated_ports_are_not_told() {
    let own_users = pod_with(json!({}), json!({ "hostUsers": false }));
    for (handler, whose) in [("", "runtime"), ("kata", "RuntimeClass handler \"kata\"")] {
        let error = sandbox::check_handler(&own_users, handler, &node()).expect_err("it cannot");
        let message = format!("can't set `spec.hostUsers: false`, {whose} does not support user namespaces");
        assert_eq!((error.reason, error.message), ("FailedCreatePodSandBox", message));
    }
    let port = |name: &str, number: u16| json!({ "name": name, "containerPort": number, "protocol": "SCTP" });
    let pod = pod_with(json!({ "ports": [port("p", 1), port("p", 2), port("", 3), port("", 3)] }), json!({}));
    let config = sandbox_config(&pod, 3, &node()).expect("it can be rendered");
    let shown: Vec<(i32, &str)> =
        config.port_mappings.iter().map(|p| (p.container_port, p.protocol().as_str_name())).collect();
    assert_eq!(shown, [(1, "SCTP"), (3, "SCTP")]);
    assert_eq!(config.metadata.map(|m| m.attempt), Some(3));
}

#[test]
fn a_log_links_name_fits_a_file_name() {
    let mut pod = pod_with(json!({}), json!({}));
    pod.metadata.name = Some("p".repeat(250));
    let link = log_link(&pod, "a", 0, &ContainerId::new("c"), &node());
    let name = link.link.file_name().and_then(|n| n.to_str()).expect("a name");
    assert_eq!((name.len(), name.ends_with(".log")), (255, true));
}
