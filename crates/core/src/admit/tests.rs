use serde_json::{Value, json};

use super::{Verdict, decide, resize};
use crate::node::CgroupVersion;
use crate::pod::ResizeVerdict;
use crate::sample::{node, pod, pod_with};

/// The reason and message of a rejection, or two empty texts.
fn answer(verdict: Verdict) -> (String, String) {
    match verdict {
        Verdict::Admitted => (String::new(), String::new()),
        Verdict::AdmittedAfter { victims, .. } => panic!("{victims:?}"),
        Verdict::Rejected { reason, message } => (reason, message),
    }
}

fn reason(container: Value, spec: Value) -> String {
    answer(decide(&pod_with(container, spec), &[], &node())).0
}

#[test]
fn a_pod_that_asks_for_more_than_is_left_is_out_of_it() {
    let asking = |amounts: Value| pod_with(json!({ "resources": { "requests": amounts } }), json!({}));
    let there = asking(json!({ "cpu": "3500m", "memory": "1Gi" }));
    let message = "Node didn't have enough resource: cpu, requested: 1000, used: 3500, capacity: 4000";
    assert_eq!(answer(decide(&asking(json!({ "cpu": "1" })), &[&there], &node())), ("OutOfcpu".into(), message.into()));
    for (amounts, reason) in [
        (json!({ "cpu": "500m" }), ""),
        (json!({ "memory": "7Gi" }), "OutOfmemory"),
        (json!({ "ephemeral-storage": "91Gi" }), "OutOfephemeral-storage"),
        (json!({ "hugepages-2Mi": "64Mi" }), ""),
        (json!({ "hugepages-2Mi": "66Mi" }), "OutOfhugepages-2Mi"),
        (json!({ "example.test/gpu": "1" }), ""),
    ] {
        assert_eq!(answer(decide(&asking(amounts.clone()), &[&there], &node())).0, reason, "{amounts}");
    }
    let mut node = node();
    node.settings.max_pods = 1;
    let message = "Node didn't have enough resource: pods, requested: 1, used: 1, capacity: 1";
    assert_eq!(answer(decide(&asking(json!({})), &[&there], &node)), ("OutOfpods".into(), message.into()));
}

#[test]
fn only_safe_or_allowed_sysctls_of_the_pods_own_namespaces_pass() {
    let mut node = node();
    node.settings.allowed_unsafe_sysctls = vec!["kernel.msg*".into(), "net.core.somaxconn".into()];
    let ask = |name: &str, more: Value| {
        let mut spec = more;
        spec["securityContext"] = json!({ "sysctls": [{ "name": name, "value": "1" }] });
        answer(decide(&pod_with(json!({}), spec), &[], &node)).1
    };
    for (name, more, message) in [
        ("net.ipv4.tcp_syncookies", json!({}), ""),
        ("net/ipv4/tcp_syncookies", json!({}), ""),
        ("kernel.msgmax", json!({}), ""),
        ("net.core.somaxconn", json!({}), ""),
        (
            "net.ipv4.tcp_syncookies",
            json!({ "hostNetwork": true }),
            r#"forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host net enabled"#,
        ),
        (
            "kernel.shm_rmid_forced",
            json!({ "hostIPC": true }),
            r#"forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host ipc enabled"#,
        ),
        ("kernel.sem", json!({}), r#"forbidden sysctl: "kernel.sem" not allowlisted"#),
        ("net.core.rmem_max", json!({}), r#"forbidden sysctl: "net.core.rmem_max" not allowlisted"#),
        ("vm.swappiness", json!({}), r#"forbidden sysctl: "vm.swappiness" not allowlisted"#),
    ] {
        assert_eq!(ask(name, more), message, "{name}");
    }
    let mut old = node.clone();
    old.machine.kernel = (4, 4);
    let keepalive = pod_with(
        json!({}),
        json!({ "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_keepalive_time", "value": "1" }] } }),
    );
    assert_eq!(answer(decide(&keepalive, &[], &old)).0, "SysctlForbidden");
    assert_eq!(decide(&keepalive, &[], &node), Verdict::Admitted);
}

#[test]
fn a_pod_for_another_node_or_system_is_rejected() {
    let selector = |key: &str, value: &str| json!({ "nodeSelector": { key: value } });
    assert_eq!(reason(json!({}), selector("kubernetes.io/hostname", "node-a")), "");
    assert_eq!(reason(json!({}), selector("disk", "ssd")), "NodeAffinity");
    assert_eq!(reason(json!({}), selector("kubernetes.io/os", "windows")), "NodeAffinity");
    let mut labelled = pod_with(json!({}), selector("kubernetes.io/os", "windows"));
    labelled.metadata.labels = Some([("kubernetes.io/os".to_owned(), "windows".to_owned())].into());
    assert_eq!(answer(decide(&labelled, &[], &node())).0, "PodOSSelectorNodeLabelDoesNotMatch");
    assert_eq!(reason(json!({}), json!({ "os": { "name": "windows" } })), "PodOSNotSupported");
    assert_eq!(reason(json!({}), json!({ "nodeName": "node-b" })), "NodeName");
    assert_eq!(reason(json!({}), json!({ "nodeName": "node-a" })), "");
    let message = answer(decide(&pod_with(json!({}), selector("disk", "ssd")), &[], &node())).1;
    assert_eq!(message, "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector");
}

#[test]
fn required_node_affinity_is_any_term_of_all_requirements() {
    let with = |terms: Value| {
        let required = json!({ "nodeSelectorTerms": terms });
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } } })
    };
    let expression =
        |key: &str, operator: &str, values: Value| json!({ "key": key, "operator": operator, "values": values });
    let host = |operator: &str, values: Value| json!([{ "matchExpressions": [expression("kubernetes.io/hostname", operator, values)] }]);
    for (terms, wanted) in [
        (host("In", json!(["node-a", "node-b"])), ""),
        (host("In", json!(["node-b"])), "NodeAffinity"),
        (host("NotIn", json!(["node-b"])), ""),
        (host("NotIn", json!(["node-a"])), "NodeAffinity"),
        (host("Exists", json!([])), ""),
        (host("DoesNotExist", json!([])), "NodeAffinity"),
        (host("Gt", json!(["1"])), "NodeAffinity"),
        (json!([{}]), "NodeAffinity"),
        (json!([{}, { "matchFields": [expression("metadata.name", "In", json!(["node-a"]))] }]), ""),
        (json!([{ "matchFields": [expression("metadata.name", "In", json!(["node-b"]))] }]), "NodeAffinity"),
    ] {
        assert_eq!(reason(json!({}), with(terms.clone())), wanted, "{terms}");
    }
}

#[test]
fn ports_of_the_host_are_given_once() {
    let port = |number: u16, protocol: &str, ip: &str| json!({ "containerPort": 80, "hostPort": number, "protocol": protocol, "hostIP": ip });
    let with = |port: Value| pod_with(json!({ "ports": [port] }), json!({}));
    let there = with(port(8080, "TCP", "10.0.0.1"));
    for (wanted, reason) in [
        (port(8080, "TCP", "10.0.0.1"), "NodePorts"),
        (port(8080, "TCP", ""), "NodePorts"),
        (port(8080, "TCP", "10.0.0.2"), ""),
        (port(8080, "UDP", ""), ""),
        (port(8081, "TCP", ""), ""),
        (json!({ "containerPort": 8080 }), ""),
    ] {
        assert_eq!(answer(decide(&with(wanted.clone()), &[&there], &node())).0, reason, "{wanted}");
    }
    let sidecar = |policy: Value| {
        pod(
            json!({ "containers": [], "initContainers": [{ "name": "i", "restartPolicy": policy, "ports": [port(8080, "TCP", "")] }] }),
        )
    };
    assert_eq!(answer(decide(&sidecar(json!("Always")), &[&there], &node())).0, "NodePorts");
    assert_eq!(
        answer(decide(&sidecar(json!(null)), &[&there], &node())).0,
        "",
        "it has ended before others would mind"
    );
}

#[test]
fn what_kernel_and_runtime_lack_is_not_promised() {
    let profile = |kind: &str| json!({ "securityContext": { "appArmorProfile": { "type": kind } } });
    assert_eq!(reason(profile("RuntimeDefault"), json!({})), "AppArmor");
    assert_eq!(reason(profile("Unconfined"), json!({})), "");
    let mut annotated = pod_with(json!({}), json!({}));
    annotated.metadata.annotations =
        Some([("container.apparmor.security.beta.kubernetes.io/a".to_owned(), "localhost/x".to_owned())].into());
    let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
    assert_eq!(answer(decide(&annotated, &[], &node())), ("AppArmor".into(), message.into()));
    let strict = json!({ "securityContext": { "supplementalGroupsPolicy": "Strict" } });
    assert_eq!(reason(json!({}), strict.clone()), "SupplementalGroupsPolicyNotSupported");
    let mut able = node();
    able.machine.has_apparmor = true;
    able.runtime.has_supplemental_groups_policy = true;
    able.settings.gates.pod_level_resources = false;
    assert_eq!(decide(&annotated, &[], &able), Verdict::Admitted);
    assert_eq!(decide(&pod_with(json!({}), strict), &[], &able), Verdict::Admitted);
    let pod_level = pod_with(json!({}), json!({ "resources": { "limits": { "cpu": "1" } } }));
    let message = "PodLevelResources feature gate is disabled";
    let refusal = ("PodLevelResourcesNotSupported".to_owned(), message.to_owned());
    assert_eq!(answer(decide(&pod_level, &[], &able)), refusal);
}

#[test]
fn what_guaranteed_pods_have_for_themselves_does_not_change() {
    let asking = |cpu: &str, memory: &str, limit: &str| {
        let resources =
            json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "cpu": limit, "memory": memory } });
        pod_with(json!({ "resources": resources }), json!({}))
    };
    let message = |keeper: &str, policy: &str| {
        format!("Resize is infeasible for Guaranteed Pods alongside {keeper} Manager policy \"{policy}\"")
    };
    let cpus = ResizeVerdict::Infeasible {
        detail: "guaranteed_pod_cpu_manager_static_policy",
        message: message("CPU", "static"),
    };
    let memory = ResizeVerdict::Infeasible {
        detail: "guaranteed_pod_memory_manager_static_policy",
        message: message("Memory", "Static"),
    };
    let old = asking("1", "1Gi", "1");
    let table = [
        ((false, false), asking("2", "2Gi", "2"), ResizeVerdict::Granted),
        ((true, false), asking("2", "1Gi", "2"), cpus.clone()),
        ((true, false), asking("1", "2Gi", "1"), ResizeVerdict::Granted),
        ((false, true), asking("1", "2Gi", "1"), memory),
        ((true, true), asking("2", "2Gi", "2"), cpus),
        ((true, true), asking("1", "2Gi", "2"), ResizeVerdict::Granted),
    ];
    for ((static_cpus, static_memory), wanted, verdict) in table {
        let mut node = node();
        (node.settings.static_cpus, node.settings.static_memory) = (static_cpus, static_memory);
        assert_eq!(resize(&wanted, &old, &[], &node), verdict, "{static_cpus} {static_memory}");
    }
}

#[test]
fn a_resize_that_does_not_fit_waits_and_one_with_swap_is_never_done() {
    let asking = |cpu: &str, memory: &str| {
        let resources = json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "memory": "2Gi" } });
        pod_with(json!({ "resources": resources }), json!({}))
    };
    let (old, other) = (asking("1", "1Gi"), asking("2", "1Gi"));
    assert_eq!(resize(&asking("2", "1Gi"), &old, &[&other], &node()), ResizeVerdict::Granted);
    let message = "Node didn't have enough resource: cpu, requested: 2500, used: 2000, capacity: 4000".to_owned();
    let deferred = ResizeVerdict::Deferred { reason: "OutOfcpu".to_owned(), message };
    assert_eq!(resize(&asking("2500m", "1Gi"), &old, &[&other], &node()), deferred);

    let mut node = node();
    (node.settings.limited_swap, node.cgroup.version) = (true, CgroupVersion::V2);
    assert_eq!(resize(&asking("2", "1Gi"), &old, &[], &node), ResizeVerdict::Granted, "no memory changes");
    let message = "In-place resize of containers with swap is not supported.".to_owned();
    assert_eq!(
        resize(&asking("1", "512Mi"), &old, &[], &node),
        ResizeVerdict::Infeasible { detail: "swap_limitation", message }
    );
    let mut anew = asking("1", "512Mi");
    anew.spec.as_mut().expect("a spec").containers[0].resize_policy =
        serde_json::from_value(json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]))
            .expect("a policy");
    assert_eq!(resize(&anew, &old, &[], &node), ResizeVerdict::Granted);
}

#[test]
fn what_the_node_object_says_decides() {
    let mut node = node();
    node.registered.labels.insert("tier".into(), "edge".into());
    node.registered.extended.insert("example.test/gpu".into(), 2);
    node.registered.taints = serde_json::from_value(json!([
        { "key": "gone", "value": "soon", "effect": "NoExecute" },
        { "key": "later", "effect": "NoSchedule" },
    ]))
    .expect("taints");
    let tolerating = |mut spec: Value, toleration: Value| {
        spec["tolerations"] = json!([toleration]);
        spec
    };
    let any = json!({ "operator": "Exists" });
    let gpus = |n: &str| json!({ "resources": { "requests": { "example.test/gpu": n } } });
    for (container, spec, reason) in [
        (json!({}), tolerating(json!({ "nodeSelector": { "tier": "edge" } }), any.clone()), ""),
        (json!({}), tolerating(json!({ "nodeSelector": { "tier": "core" } }), any.clone()), "NodeAffinity"),
        (gpus("2"), tolerating(json!({}), any.clone()), ""),
        (gpus("3"), tolerating(json!({}), any), "OutOfexample.test/gpu"),
        (json!({}), json!({}), "TaintToleration"),
        (json!({}), tolerating(json!({}), json!({ "key": "gone", "value": "soon", "effect": "NoExecute" })), ""),
        (json!({}), tolerating(json!({}), json!({ "key": "gone", "value": "soon" })), ""),
        (json!({}), tolerating(json!({}), json!({ "key": "gone", "value": "now" })), "TaintToleration"),
        (
            json!({}),
            tolerating(json!({}), json!({ "key": "gone", "operator": "Exists", "effect": "NoSchedule" })),
            "TaintToleration",
        ),
    ] {
        let pod = pod_with(container, spec.clone());
        assert_eq!(answer(decide(&pod, &[], &node)).0, reason, "{spec}");
    }
    let mut of_a_file = pod_with(json!({}), json!({}));
    of_a_file.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    assert_eq!(answer(decide(&of_a_file, &[], &node)).0, "", "a static pod is nobody's to drive away");
}

#[test]
fn features_that_the_node_does_not_declare_are_refused_by_name() {
    let mut node = node();
    let rules = json!({ "restartPolicyRules": [{ "action": "RestartAllContainers" }] });
    let mapped = json!({ "hostNetwork": true, "hostUsers": false });
    let pod = pod_with(rules.clone(), mapped.clone());
    let ask = |pod: &rubelet_api::v1::Pod, node: &crate::node::NodeFacts| answer(decide(pod, &[], node)).1;
    let words = "Pod requires node features that are not available: ";
    assert_eq!(ask(&pod, &node), format!("{words}UserNamespacesHostNetworkSupport"));
    assert_eq!(ask(&pod_with(rules, json!({})), &node), "");
    assert_eq!(ask(&pod_with(json!({}), json!({ "hostNetwork": true })), &node), "");
    node.settings.gates.restart_all_containers_on_container_exits = false;
    let both = "RestartAllContainersOnContainerExits, UserNamespacesHostNetworkSupport";
    assert_eq!(ask(&pod, &node), format!("{words}{both}"));
    node.settings.gates.node_declared_features = false;
    assert_eq!(ask(&pod, &node), "");
}

#[test]
fn others_end_for_a_critical_pod_that_only_lacks_resources() {
    let of = |name: &str, cpu: &str, more: Value| {
        let mut spec = json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": cpu } } }] });
        spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        let mut pod = pod(spec);
        pod.metadata.uid = Some(name.to_owned());
        pod
    };
    let priority = |value: i32| json!({ "priority": value });
    let (small, big) = (of("small", "500m", json!({})), of("big", "3", json!({})));
    let active = [&small, &big];
    let critical = of("critical", "1", priority(2_000_000_000));
    assert_eq!(
        decide(&critical, &active, &node()),
        Verdict::AdmittedAfter { victims: vec!["small".into()], lacks: "cpu".to_owned() }
    );
    let hungry = of("critical", "3500m", priority(2_000_000_000));
    assert_eq!(
        decide(&hungry, &active, &node()),
        Verdict::AdmittedAfter { victims: vec!["big".into()], lacks: "cpu".to_owned() },
        "one pod is better than two"
    );
    // Any other reason counts before, and nobody ends for it.
    let mut misplaced = of("critical", "1", priority(2_000_000_000));
    misplaced.spec.as_mut().expect("a spec").node_name = Some("node-b".to_owned());
    assert_eq!(answer(decide(&misplaced, &active, &node())).0, "NodeName");
    let mut armoured = of("critical", "1", priority(2_000_000_000));
    armoured.metadata.annotations =
        Some([("container.apparmor.security.beta.kubernetes.io/a".to_owned(), "localhost/x".to_owned())].into());
    assert_eq!(answer(decide(&armoured, &active, &node())).0, "AppArmor");
    // Others are refused, and so is a critical one that there is no room for at all.
    assert_eq!(answer(decide(&of("plain", "1", json!({})), &active, &node())).0, "OutOfcpu");
    let mut greedy = of("static", "100", json!({}));
    greedy.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    let message = "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods \
                   to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 96000), ]";
    let refusal = ("UnexpectedAdmissionError".to_owned(), message.to_owned());
    assert_eq!(answer(decide(&greedy, &active, &node())), refusal);
}

#[test]
fn what_is_had_by_a_claim_is_not_the_nodes() {
    let mut node = node();
    node.registered.extended.insert("example.test/gpu".into(), 0);
    let mut wants = pod_with(json!({ "resources": { "requests": { "example.test/gpu": "1" } } }), json!({}));
    assert_eq!(answer(decide(&wants, &[], &node)).0, "OutOfexample.test/gpu");
    let container = wants.spec.as_ref().expect("a spec").containers[0].name.clone();
    let status = json!({ "extendedResourceClaimStatus": { "resourceClaimName": "c", "requestMappings": [
        { "containerName": container, "resourceName": "example.test/gpu", "requestName": "r" }] } });
    wants.status = serde_json::from_value(status).expect("a status");
    assert_eq!(answer(decide(&wants, &[], &node)).0, "");
    node.settings.gates.dra_extended_resource = false;
    assert_eq!(answer(decide(&wants, &[], &node)).0, "OutOfexample.test/gpu");
}
