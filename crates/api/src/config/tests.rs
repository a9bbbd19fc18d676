use serde_json::{Value, json};

use super::*;
use crate::schema::Kind;

const BASE: &str = "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
staticPodPath: /etc/kubernetes/manifests
address: 127.0.0.1
readOnlyPort: 10255
containerRuntimeEndpoint: unix://<work>/cri.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: 1Mi}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: <work>/resolv.conf
";
const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
const FILE: &str = "/etc/kubelet/config.yaml";

fn draft(text: &str) -> Draft {
    Draft::from_file(FILE, text.as_bytes()).unwrap()
}

fn load(text: &str) -> Result<Loaded, ConfigError> {
    Draft::from_file(FILE, text.as_bytes())?.finish(Surroundings::default())
}

fn with(fields: &str) -> String {
    format!("{HEAD}{fields}")
}

fn drop_in(base: &str, fields: &[&str]) -> Result<Loaded, ConfigError> {
    let mut draft = draft(base);
    let texts: Vec<String> = fields.iter().map(|one| with(one)).collect();
    draft.merge(texts.iter().map(|text| ("/etc/kubelet/d/10.conf", text.as_bytes())))?;
    draft.finish(Surroundings::default())
}

#[test]
fn configz_is_the_recorded_one() {
    let recorded: Value = serde_json::from_str(include_str!("../../../../tests/golden/configz.json")).unwrap();
    let mut draft = draft(&BASE.replace("<work>/resolv.conf", "/work/resolv.conf"));
    // The recording ran with `--v=3`; the paths of the certificate are made up later.
    let value = draft.value_mut();
    value["logging"]["verbosity"] = json!(3);
    value["resolvConf"] = json!("<work>/resolv.conf");
    value["tlsCertFile"] = json!("/var/lib/kubelet/pki/kubelet.crt");
    value["tlsPrivateKeyFile"] = json!("/var/lib/kubelet/pki/kubelet.key");
    let loaded = draft.finish(Surroundings::default()).unwrap();
    assert_eq!(loaded.config.to_value(), recorded["kubeletconfig"]);
    assert_eq!(loaded.warnings, []);
}

/// The kinds of Go's types.
fn fits(go: &str, kind: &Kind) -> bool {
    if let Some(inner) = go.strip_prefix('*') {
        return match kind {
            Kind::Pointer(kind) => fits(inner, kind),
            _ => false,
        };
    }
    match go {
        "bool" => matches!(kind, Kind::Bool),
        "int32" => matches!(kind, Kind::Int32),
        "int64" => matches!(kind, Kind::Int64),
        "float64" => matches!(kind, Kind::Float),
        "v1.VerbosityLevel" => matches!(kind, Kind::Uint32),
        "v1.Duration" => matches!(kind, Kind::Duration),
        "v1.TimeOrMetaDuration" => matches!(kind, Kind::DurationOrNanos),
        "resource.QuantityValue" => matches!(kind, Kind::Quantity),
        "v1.ResourceList" => matches!(kind, Kind::Map(Kind::Quantity)),
        "map[string]bool" => matches!(kind, Kind::Map(Kind::Bool)),
        "map[string]string" => matches!(kind, Kind::Map(Kind::Text) | Kind::Pointer(Kind::Map(Kind::Text))),
        "map[string][]string" => matches!(kind, Kind::Map(Kind::List(Kind::Text))),
        "[]string" => matches!(kind, Kind::List(Kind::Text) | Kind::Pointer(Kind::List(Kind::Text))),
        "[]int32" => matches!(kind, Kind::List(Kind::Int32)),
        "v1.VModuleConfiguration" => matches!(kind, Kind::List(Kind::Object(_))),
        go if go.starts_with("[]") => matches!(kind, Kind::List(Kind::Object(_))),
        "string"
        | "v1.TaintEffect"
        | "KubeletAuthorizationMode"
        | "ResourceChangeDetectionStrategy"
        | "ImagePullCredentialsVerificationPolicy"
        | "MemoryReservationPolicy"
        | "v1.Time" => matches!(kind, Kind::Text),
        _ => matches!(kind, Kind::Object(_)),
    }
}

fn kind_of(field: &str) -> Option<&'static Kind> {
    let mut shape = &SHAPE;
    let mut found = None;
    for name in field.split('.') {
        let kind = shape.field(name.trim_end_matches("[]"))?;
        found = Some(kind);
        shape = kind.shape().unwrap_or(&SHAPE);
    }
    found
}

#[test]
fn every_recorded_field_is_here_with_its_type_and_default_and_no_other() {
    let nothing = draft(HEAD).finish(Surroundings::default()).unwrap().config.to_value();
    let mut count = 0;
    let mut at_the_top = 2; // kind and version
    for row in include_str!("../../../../tests/golden/kubeletconfig-fields.tsv").lines().skip(1) {
        let columns: Vec<&str> = row.split('\t').collect();
        count += 1;
        if columns[0].ends_with(".-") {
            continue;
        }
        at_the_top += usize::from(!columns[0].contains(['.', '[']));
        let kind = kind_of(columns[0]).unwrap_or_else(|| panic!("no field {row}"));
        assert!(fits(columns[1], kind), "{row}: {kind:?}");
        if !columns[2].is_empty() {
            let default: Value = serde_json::from_str(columns[2]).unwrap();
            let ours = nothing.pointer(&format!("/{}", columns[0].replace('.', "/")));
            // What says nothing is left out.
            assert!(ours == Some(&default) || ours.is_none() && default == json!(""), "{row}: {ours:?}");
        }
    }
    assert_eq!((count, at_the_top), (163, FIELDS.len()));
}

/// Rows whose message shows Go's insides or the lack of a host: ours names file, line and field.
const OURS: [(&str, &str); 9] = [
    ("featureGates {\"Bogus\": true}", "featureGates[Bogus]: unrecognized feature gate: Bogus"),
    (
        "featureGates {\"NodeSwap\": false}",
        "featureGates[NodeSwap]: cannot set feature gate NodeSwap to false, feature is locked to true",
    ),
    ("logging {\"verbosity\": -1}", "logging.verbosity: expected an integer from 0 to 4294967295, found -1"),
    ("failSwapOn \"maybe\"", "failSwapOn: expected true or false, found string \"maybe\""),
    ("maxPods \"many\"", "maxPods: expected an integer, found string \"many\""),
    ("syncFrequency \"soon\"", "syncFrequency: time: invalid duration \"soon\""),
    ("streamingConnectionIdleTimeout \"x\"", "streamingConnectionIdleTimeout: time: invalid duration \"x\""),
    (
        "localStorageCapacityIsolation \"x\"",
        "localStorageCapacityIsolation: expected true or false, found string \"x\"",
    ),
    ("address \"999.1.1.1\"", "address: Invalid value: \"999.1.1.1\": must be an IP address to listen on"),
];

#[test]
fn recorded_refusals_are_ours_too() {
    let (mut letter, mut own, mut starts) = (0, 0, 0);
    let mut wrong = Vec::new();
    for row in include_str!("../../../../tests/golden/config-errors.tsv").lines().skip(1) {
        let columns: Vec<&str> = row.split('\t').collect();
        let (field, value, theirs) = (columns[0], columns[1], columns[2]);
        let base: Vec<&str> = BASE.lines().filter(|line| !line.starts_with(&format!("{field}:"))).collect();
        let text = format!("{}\n{field}: {value}\n", base.join("\n"));
        let ours = load(&text).map(|loaded| loaded.warnings).map_err(|error| error.to_string());
        let line = text.lines().count();
        let is_own = OURS.iter().find(|(row, _)| *row == format!("{field} {value}"));
        let same = if let Some((_, words)) = is_own {
            own += 1;
            ours.as_ref().is_err_and(|ours| ours.contains(&format!("{FILE}:{line}:")) && ours.ends_with(words))
        } else if theirs == "(starts)" || field == "containerRuntimeEndpoint" {
            starts += 1;
            ours.is_ok()
        } else {
            letter += 1;
            let theirs: String = serde_json::from_str(theirs).unwrap();
            ours == Err(theirs)
        };
        if !same {
            wrong.push(format!("{row}\n    ours: {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((letter, own, starts), (59, 9, 15));
}

fn warnings(text: &str) -> Vec<String> {
    load(text).unwrap().warnings.into_iter().map(|one| format!("{} | {}", one.words, one.about)).collect()
}

#[test]
fn nonsense_that_upstream_takes_is_taken_with_a_word() {
    assert_eq!(
        warnings(&with("unknownField: 1\nmaxpods: 3\nmaxPods: 4\nmaxPods: 5\n")),
        ["Using lenient decoding as strict decoding failed | \
             /etc/kubelet/config.yaml:6:1: \"maxPods\" is here a second time; only the last one counts; \
             /etc/kubelet/config.yaml:3:1: unknownField: unknown field of KubeletConfiguration, ignored; \
             /etc/kubelet/config.yaml:4:1: maxpods: unknown field of KubeletConfiguration, ignored (did you mean \"maxPods\"?)"]
    );
    assert_eq!(
        warnings(&with("clusterDNS: [10.96.0.10, bogus]\ncgroupDriver: bogus\ntopologyManagerPolicyOptions: {a: b}\n")),
        [
            r#"topologyManagerPolicy none takes no options, ignored: map[a:b] | /etc/kubelet/config.yaml:5:1"#,
            r#"cgroupDriver "bogus" is neither "cgroupfs" nor "systemd"; "cgroupfs" is used unless the runtime says otherwise | /etc/kubelet/config.yaml:4:1"#,
            r#"clusterDNS: "bogus" is no IP address and is left out | /etc/kubelet/config.yaml:3:1"#,
        ]
    );
    assert_eq!(
        warnings(&with("shutdownGracePeriodByPodPriority: [{priority: 1, shutdownGracePeriodSeconds: -1}]\n")),
        ["priority 1: -1 seconds are less than none | /etc/kubelet/config.yaml:3:1"]
    );
    assert_eq!(
        warnings(&with("featureGates: {NodeSwap: true}\n")),
        ["Warning: setting GA feature gate. It will be removed in a future release. | NodeSwap=true"]
    );
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let error = load(&with("port: 70000\nmaxPods: -1\ntlsMinVersion: x\nevictionHard: {a: b}\n")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to validate kubelet configuration, error: [invalid configuration: maxPods (--max-pods) -1 must not be a negative number, \
         invalid configuration: port (--port) 70000 must be between 1 and 65535, inclusive], path: &TypeMeta{Kind:,APIVersion:,}; \
         failed to construct kubelet dependencies: unknown tls version \"x\"; \
         failed to run Kubelet: unsupported eviction signal a"
    );
    let error = load(&with("port: x\nauthentication: []\nmaxOpenFiles: 1.5\n")).unwrap_err();
    assert_eq!(error.to_string().matches(FILE).count(), 3, "{error}");
}

#[test]
fn files_that_are_no_configuration() {
    for (text, words) in [
        ("", r#"kubelet config file "/etc/kubelet/config.yaml" was empty"#),
        ("# nothing", "/etc/kubelet/config.yaml: the file has only comments"),
        ("[]", "/etc/kubelet/config.yaml:1:1: expected a KubeletConfiguration"),
        (
            "kind: KubeletConfiguration",
            "/etc/kubelet/config.yaml:1:1: apiVersion: Required value: this file says `apiVersion: kubelet.config.k8s.io/v1beta1`",
        ),
        (
            "kind: Pod",
            r#"/etc/kubelet/config.yaml:1:7: kind: Unsupported value: "Pod": this file says `kind: KubeletConfiguration`"#,
        ),
        ("a: [", "/etc/kubelet/config.yaml:1:4: not valid YAML: unclosed bracket '['"),
        (
            "a\0",
            "/etc/kubelet/config.yaml:1:2: not text: control character U+0000 (a NUL byte; is the file written completely?)",
        ),
    ] {
        assert_eq!(load(text).unwrap_err().to_string(), words);
    }
}

#[test]
fn without_a_file_the_older_defaults_hold() {
    let config = Draft::without_file().finish(Surroundings::default()).unwrap().config;
    assert!(config.server.authentication.anonymous.enabled && !config.server.authentication.webhook.enabled);
    assert_eq!((config.server.authorization.mode.as_str(), config.server.read_only_port), ("AlwaysAllow", 10255));
    assert_eq!((config.eviction.hard.0.len(), config.server.port, config.node.max_pods), (0, 10250, 110));
}

#[test]
fn zero_is_nothing_unless_upstream_has_a_pointer() {
    let config = load(&with(
        "port: 0\nsyncFrequency: 0s\nhealthzPort: 0\nregistryPullQPS: 0\nresolvConf: ''\naddress: ''\nmaxPods: null\n",
    ))
    .unwrap()
    .config;
    assert_eq!((config.server.port, config.server.healthz_port, config.images.registry_pull_qps), (10250, 0, 0));
    assert_eq!((config.network.resolv_conf.as_str(), config.server.address.as_str()), ("", "0.0.0.0"));
    assert_eq!((config.pods.sync_frequency.to_string().as_str(), config.node.max_pods), ("1m0s", 110));
    // A flag's zero is one.
    let mut flagged = draft(HEAD);
    flagged.value_mut()["port"] = json!(0);
    assert!(flagged.finish(Surroundings::default()).unwrap_err().to_string().contains("port (--port) 0 must be"));
}

#[test]
fn defaults_that_follow_from_other_fields() {
    let loaded = |fields: &str| load(&with(fields)).unwrap().config;
    let config = loaded("nodeStatusUpdateFrequency: 7s\nmaxParallelImagePulls: 4\npodPidsLimit: -7\n");
    assert_eq!(config.node.status_report_frequency.to_string(), "7s");
    assert!(!config.images.serialize_pulls);
    assert_eq!(config.resources.pod_pids_limit, -1);
    let config = loaded("featureGates: {KubeletCrashLoopBackOffMax: false, KubeletEnsureSecretPulledImages: false}\n");
    assert_eq!(config.runtime.crash_loop_back_off.max_container_restart_period, None);
    assert_eq!(config.images.pull_credentials_verification_policy, "");
    assert_eq!(loaded("logging: {flushFrequency: 1000000000}").logs.logging.flush_frequency.0.to_string(), "1s");
}

#[test]
fn relative_paths_start_at_the_file() {
    let fields = "staticPodPath: ../m\nauthentication: {x509: {clientCAFile: pki/./ca.crt}}\ntlsCertFile: a\ntlsPrivateKeyFile: b\nresolvConf: r\nvolumePluginDir: v\npodLogsDir: l/\n";
    let config = load(&with(fields)).unwrap().config;
    let paths = [
        &config.pods.static_pod_path,
        &config.server.authentication.x509.client_ca_file,
        &config.server.tls_cert_file,
        &config.server.tls_private_key_file,
        &config.network.resolv_conf,
        &config.pods.volume_plugin_dir,
        &config.pods.logs_dir,
    ];
    let expected = ["m", "kubelet/pki/ca.crt", "kubelet/a", "kubelet/b", "kubelet/r", "kubelet/v", "kubelet/l"];
    assert_eq!(paths.map(String::as_str), expected.map(|path| format!("/etc/{path}")).each_ref().map(String::as_str));
}

fn hard(loaded: &Loaded) -> String {
    let pairs: Vec<String> = loaded.config.eviction.hard.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(",")
}

#[test]
fn hard_eviction_thresholds() {
    const DEFAULT: &str =
        "imagefs.available=15%,imagefs.inodesFree=5%,memory.available=100Mi,nodefs.available=10%,nodefs.inodesFree=5%";
    assert_eq!(hard(&load(HEAD).unwrap()), DEFAULT);
    assert_eq!(hard(&load(&with("evictionHard: {memory.available: 1Gi}")).unwrap()), "memory.available=1Gi");
    assert_eq!(hard(&load(&with("evictionHard: {}")).unwrap()), "");
    let merged = "evictionHard: {memory.available: 1Gi}\nmergeDefaultEvictionSettings: true\n";
    assert_eq!(hard(&load(&with(merged)).unwrap()), DEFAULT.replace("100Mi", "1Gi"));
    // The defaults are in the base already: a drop-in changes one and keeps the rest.
    let dropped = drop_in(HEAD, &["evictionHard: {memory.available: 1Gi}"]).unwrap();
    assert_eq!(hard(&dropped), DEFAULT.replace("100Mi", "1Gi"));
    // Said only in a drop-in, it comes too late.
    let base = with("evictionHard: {memory.available: 1Gi}");
    assert_eq!(hard(&drop_in(&base, &["mergeDefaultEvictionSettings: true"]).unwrap()), "memory.available=1Gi");
}

#[test]
fn drop_ins_merge_in_their_order() {
    let base = with(
        "maxPods: 10\nclusterDNS: [10.0.0.1]\nfeatureGates: {AllAlpha: false}\nlogging: {verbosity: 2}\nkubeReserved: {cpu: 1m, pid: '5'}\n",
    );
    let loaded = drop_in(
        &base,
        &[
            "maxPods: 20\nclusterDNS: [10.0.0.2]\nfeatureGates: {MemoryQoS: true}\nlogging: {format: json}\n",
            "maxPods: null\nkubeReserved: {cpu: null}\nport: 0\n",
        ],
    );
    let config = loaded.unwrap().config;
    assert_eq!((config.node.max_pods, config.server.port), (110, 10250));
    assert_eq!(config.network.cluster_dns, ["10.0.0.2"]);
    assert_eq!(config.runtime.feature_gates.len(), 2);
    assert_eq!((config.logs.logging.verbosity, config.logs.logging.format.as_str()), (2, "json"));
    assert_eq!(config.resources.kube_reserved.keys().collect::<Vec<_>>(), ["pid"]);
}

#[test]
fn drop_ins_that_are_refused() {
    for (fields, words) in [
        (
            "maxPods: x",
            "failed to load kubelet dropin file, path: /etc/kubelet/d/10.conf, error: /etc/kubelet/d/10.conf:3:10: maxPods: expected an integer, found string \"x\"",
        ),
        (
            "featureGates: {Bogus: true}",
            "/etc/kubelet/d/10.conf:3:16: featureGates[Bogus]: unrecognized feature gate: Bogus",
        ),
    ] {
        assert_eq!(drop_in(HEAD, &[fields]).unwrap_err().to_string(), words);
    }
    let mut one = draft(HEAD);
    let error = one.merge([("/x.conf", &b"maxPods: 1"[..])]).unwrap_err();
    assert!(error.to_string().contains("path: /x.conf, error: /x.conf:1:1: kind: Required value"), "{error}");
}

#[test]
fn what_has_no_effect_yet_is_named() {
    let config = load(BASE).unwrap().config;
    assert_eq!(not_effective(&config), [""; 0]);
    assert_eq!(not_effective(&load(HEAD).unwrap().config), [""; 0]);
    let fields = "volumePluginDir: /plugins\nmemoryThrottlingFactor: 0.8\nregisterNode: false\nmaxPods: 5\niptablesDropBit: 3\nauthentication: {webhook: {cacheTTL: 1s}}\n";
    let named = not_effective(&load(&with(fields)).unwrap().config);
    assert_eq!(named, ["memoryThrottlingFactor", "volumePluginDir"]);
    for path in effective::known_paths() {
        assert!(kind_of(path).is_some(), "{path}");
    }
}

#[test]
fn what_depends_on_the_host() {
    let v1 = |fields: &str| {
        let surroundings = Surroundings { has_cgroup_v1: Some(true) };
        draft(&with(fields)).finish(surroundings).map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(
        v1("").unwrap_err().contains("error: kubelet is configured to not run on a host using cgroup v1. cgroup v1")
    );
    assert_eq!(v1("failCgroupV1: false"), Ok(()));
    let error = v1("failCgroupV1: false\nsingleProcessOOMKill: false").unwrap_err();
    assert!(error.contains("invalid configuration: singleProcessOOMKill must not be explicitly set to false"));
}

proptest::proptest! {
    #[test]
    fn no_value_makes_it_panic(field in 0..FIELD_COUNT, value in "[-a-z0-9.:{}\\[\\]\"' ~%]{0,30}") {
        drop(load(&with(&format!("{}: {value}\n", FIELDS[field].0))));
    }
}
