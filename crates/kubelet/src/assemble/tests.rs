use std::fs;

use rubelet_api::gates::Gate;

use super::*;
use crate::surroundings::Program;

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

/// The file over which upstream's answers were recorded.
const BASE: &str = "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
staticPodPath: /etc/kubernetes/manifests
address: 127.0.0.1
readOnlyPort: 10255
containerRuntimeEndpoint: unix:///work/cri.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: 1Mi}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: /work/resolv.conf
";

fn around() -> Surroundings {
    Surroundings {
        program: Program::Kubelet,
        working_dir: "/work/dir".into(),
        hostname: "Node-A".to_owned(),
        ..Surroundings::default()
    }
}

fn call(line: &[&str]) -> Result<Assembled, String> {
    let line: Vec<String> = line.iter().map(|&arg| arg.to_owned()).collect();
    match assemble(&line, &around(), &mut Vec::new()) {
        Ok(Call::Run(assembled)) => Ok(*assembled),
        Ok(Call::Show(text)) => Err(text),
        Ok(Call::Command(command)) => Err(format!("{command:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// A directory with files, and arguments that name them with `@` for the directory.
fn call_with(texts: &[(&str, &str)], line: &[&str]) -> Result<Assembled, String> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    for (name, text) in texts {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let line: Vec<String> = line.iter().map(|arg| arg.replace('@', root)).collect();
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    call(&line).map_err(|error| error.replace(root, "@"))
}

fn said(assembled: &Assembled) -> Vec<String> {
    let words = |remark: &Remark| match remark {
        Remark::Warning { words, about } | Remark::Info { words, about } => format!("{words} | {about}"),
    };
    assembled.remarks.iter().map(words).collect()
}

#[test]
fn without_a_file_the_older_defaults_hold() {
    let assembled = call(&[
        "--pod-manifest-path=/m",
        "--fail-swap-on=false",
        "--fail-cgroupv1=false",
        "--container-runtime-endpoint=unix:///run/x.sock",
    ])
    .unwrap();
    let config = &assembled.config;
    assert_eq!(config.pods.static_pod_path, "/m");
    assert_eq!(assembled.runtime_endpoint, "unix:///run/x.sock");
    assert!(!assembled.host.fail_cgroup_v1 && !assembled.host.fail_swap_on);
    assert_eq!((assembled.host.max_open_files, assembled.host.oom_score_adj), (1_000_000, -999));
    assert_eq!((config.server.read_only_port, config.server.authorization.mode.as_str()), (10255, "AlwaysAllow"));
    assert!(config.server.authentication.anonymous.enabled && !config.server.authentication.webhook.enabled);
    assert!(config.eviction.hard.0.is_empty());
    assert_eq!(assembled.node_name, "node-a");
    assert_eq!(said(&assembled), [""; 0]);
    assert_eq!(assembled.logging, Logging { format: klog::Format::Text, verbosity: 0, patterns: Vec::new() });
}

#[test]
fn file_then_drop_ins_then_flags() {
    let file = format!(
        "{HEAD}maxPods: 20\npodPidsLimit: 5\nstaticPodPath: m\nfeatureGates: {{EnvFiles: false}}\nclusterDNS: [10.0.0.1]\n"
    );
    let first = format!(
        "{HEAD}maxPods: 30\npodPidsLimit: 6\nevictionHard: {{memory.available: 1Gi}}\nclusterDNS: [10.0.0.2]\n"
    );
    let second = format!("{HEAD}podPidsLimit: 7\n");
    let texts =
        [("c/kubelet.yaml", file.as_str()), ("d/10.conf", &first), ("d/20/x.conf", &second), ("d/30.yaml", "no")];
    let assembled = call_with(
        &texts,
        &["--config=@/c/kubelet.yaml", "--config-dir=@/d", "--max-pods=40", "--feature-gates=HostnameOverride=false"],
    )
    .unwrap();
    let config = &assembled.config;
    assert_eq!((config.node.max_pods, config.resources.pod_pids_limit), (40, 7));
    assert_eq!(config.network.cluster_dns, ["10.0.0.2"]);
    assert!(config.pods.static_pod_path.ends_with("/c/m"), "{}", config.pods.static_pod_path);
    assert!(!assembled.gates.is_on(Gate::EnvFiles) && !assembled.gates.is_on(Gate::HostnameOverride));
    assert_eq!((config.server.read_only_port, config.server.authorization.mode.as_str()), (0, "Webhook"));
    let hard: Vec<&str> = config.eviction.hard.0.values().map(String::as_str).collect();
    assert_eq!(hard, ["15%", "5%", "1Gi", "10%", "5%"], "the defaults that the drop-in does not name stay");
}

#[test]
fn files_that_are_not_read_are_refused_by_name() {
    let second = format!("{HEAD}maxPods: no\n");
    let refused = |line: &[&str]| call_with(&[("d/1.conf", &second), ("empty", "")], line).unwrap_err();
    assert_eq!(
        refused(&["--config=none"]),
        r#"failed to load kubelet config file, path: /work/dir/none, error: failed to read kubelet config file "/work/dir/none", error: open /work/dir/none: no such file or directory"#
    );
    assert_eq!(
        refused(&["--config=@/empty"]),
        r#"failed to load kubelet config file, path: @/empty, error: kubelet config file "@/empty" was empty"#
    );
    assert_eq!(
        refused(&["--config-dir=@/d"]),
        "failed to merge kubelet configs: failed to load kubelet dropin file, path: @/d/1.conf, error: @/d/1.conf:3:10: maxPods: expected an integer, found the boolean false, which is what no means in YAML"
    );
}

/// Refusals word for word where the recorded words are not about Go's insides; what upstream takes is taken. The
/// words of the others are tested where they are made.
#[test]
fn recorded_rows_of_the_configuration() {
    let rows = include_str!("../../../../tests/golden/config-errors.tsv").lines().skip(1);
    let (mut letter, mut own, mut starts) = (0, 0, 0);
    for row in rows {
        let columns: Vec<&str> = row.split('\t').collect();
        let (field, value, theirs) = (columns[0], columns[1], columns[2]);
        let base: Vec<&str> = BASE.lines().filter(|line| !line.starts_with(&format!("{field}:"))).collect();
        let text = format!("{}\n{field}: {value}\n", base.join("\n"));
        let ours = call_with(&[("config", &text)], &["--config=@/config"]);
        if theirs == "(starts)" || theirs.contains("validate service connection") {
            starts += 1;
            assert!(ours.is_ok(), "{row}\n{ours:?}");
        } else if theirs.starts_with("\"failed to load") || theirs.starts_with("rc 2") {
            own += 1;
            let ours = ours.unwrap_err();
            assert!(ours.starts_with("failed to load kubelet config file, path: @/config, error: @/config:"), "{ours}");
        } else if field == "address" {
            own += 1;
            let words = "address: Invalid value: \"999.1.1.1\": must be an IP address to listen on";
            assert!(ours.unwrap_err().ends_with(words));
        } else {
            letter += 1;
            assert_eq!(ours.unwrap_err(), serde_json::from_str::<String>(theirs).unwrap());
        }
    }
    assert_eq!((letter, own, starts), (59, 9, 15));
}

#[test]
fn the_runtime_is_said_or_not() {
    let rubelet = Surroundings { program: Program::Rubelet, ..around() };
    let text = format!("{HEAD}containerRuntimeEndpoint: unix:///run/file.sock\n");
    let by_file = call_with(&[("config", &text)], &["--config=@/config"]).unwrap();
    assert_eq!(by_file.runtime_endpoint, "unix:///run/file.sock");
    for line in [&[][..], &["--container-runtime-endpoint="]] {
        let by_default = call(line).unwrap();
        assert_eq!(by_default.runtime_endpoint, runtime::CONTAINERD);
        assert_eq!(by_default.config.runtime.endpoint, runtime::CONTAINERD);
    }
    match assemble(&[], &rubelet, &mut Vec::new()) {
        Ok(Call::Run(assembled)) => assert_eq!(assembled.runtime_endpoint, EMBEDDED),
        other => panic!("{other:?}"),
    }
    let by_name = call(&["--container-runtime-endpoint=embedded"]).unwrap();
    assert_eq!(by_name.runtime_endpoint, EMBEDDED);
}

#[test]
fn who_joins_says_where_its_kubeconfig_is_to_be() {
    let refused = call(&["--bootstrap-kubeconfig=/b"]).unwrap_err();
    assert!(refused.starts_with("failed to run Kubelet: --bootstrap-kubeconfig needs --kubeconfig"), "{refused}");
    let joins = call(&["--bootstrap-kubeconfig=/b", "--kubeconfig=/k"]).unwrap();
    assert_eq!(joins.flags.kubeconfig, Some("/k".into()));
    assert_eq!(call(&["--kubeconfig="]).unwrap().flags.kubeconfig, None);
}

#[test]
fn settings_without_effect_are_told_in_one_line_each() {
    let assembled = call(&[
        "--feature-gates=MemoryQoS=true,EnvFiles=false,ImageVolume=true",
        "--housekeeping-interval=3s",
        "--containerd=/x",
        "--contention-profiling",
        "--volume-plugin-dir=/plugins",
    ])
    .unwrap();
    assert_eq!(
        said(&assembled),
        [
            "Warning: setting GA feature gate. It will be removed in a future release. | ImageVolume=true",
            "These fields have no effect in this version of rubelet yet | enableContentionProfiling, volumePluginDir",
            "These feature gates have no effect in this version of rubelet yet | MemoryQoS=true",
            "These flags have no effect in this version of rubelet yet | --housekeeping-interval",
            "These flags are accepted for old command lines and do nothing | containerd",
        ]
    );
}

#[test]
fn logging_and_names() {
    let assembled =
        call(&["-v4", "--logging-format=json", "--seccomp-default", "--hostname-override= My-Node", "--root-dir=r"])
            .unwrap();
    assert_eq!((assembled.logging.format, assembled.logging.verbosity), (klog::Format::Json, 4));
    assert!(assembled.config.runtime.seccomp_default);
    assert_eq!(assembled.node_name, "my-node");
    assert_eq!(assembled.flags.root_dir, Path::new("/work/dir/r"));
    let patterns = call(&["--vmodule=run=3,work*=5"]).unwrap().logging.patterns;
    assert_eq!(patterns, [("run".to_owned(), 3), ("work*".to_owned(), 5)]);
    let nameless = Surroundings { hostname: String::new(), ..around() };
    assert!(matches!(assemble(&[], &nameless, &mut Vec::new()), Err(StartError::NoName)));
}

#[test]
fn a_host_with_cgroup_v1_is_refused_with_what_helps() {
    let around = Surroundings { has_cgroup_v1: Some(true), ..around() };
    let error = assemble(&[], &around, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("not run on a host using cgroup v1"), "{error}");
    assert!(error.hint().unwrap().contains("--fail-cgroupv1=false"));
    let taken = assemble(&["--fail-cgroupv1=false".to_owned()], &around, &mut Vec::new());
    assert!(taken.is_ok(), "{taken:?}");
    assert_eq!(StartError::NoName.hint(), None);
}
