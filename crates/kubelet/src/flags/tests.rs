use serde_json::json;

use super::table::{self, Notice};
use super::{Given, help, parse};

fn args(line: &[&str]) -> Vec<String> {
    line.iter().map(|&arg| arg.to_owned()).collect()
}

fn given(line: &[&str]) -> Given {
    parse(&args(line), &mut Vec::new()).unwrap()
}

fn refusal(line: &[&str]) -> String {
    parse(&args(line), &mut Vec::new()).unwrap_err().to_string()
}

/// Rows of the recording: name, short form, type, default, deprecated.
fn recorded() -> Vec<[&'static str; 5]> {
    let text = include_str!("../../../../tests/golden/flags.tsv");
    text.lines()
        .skip(1)
        .map(|line| {
            let mut cells = line.split('\t');
            std::array::from_fn(|_| cells.next().unwrap_or_default())
        })
        .collect()
}

/// The recording was read off the first line of each flag's help; so is ours.
#[test]
fn every_recorded_flag_is_shown_as_recorded() {
    let text = help("kubelet");
    let rows = recorded();
    assert_eq!(rows.len(), 149);
    for [name, short, kind, default, deprecated] in rows {
        let dashed = format!("--{name}");
        let line = text
            .lines()
            .find(|line| line.starts_with("  ") && line.split_whitespace().take(2).any(|word| word == dashed))
            .unwrap_or_else(|| panic!("{name} is not in the help"));
        let (head, tail) = line.trim_start().split_once("   ").unwrap();
        let typed = match (kind, name) {
            ("bool", _) => String::new(),
            (other, _) => format!(" {other}"),
        };
        let prefix = if short.is_empty() { String::new() } else { format!("-{short}, ") };
        assert_eq!(head, format!("{prefix}{dashed}{typed}"));
        let shown = tail.rsplit_once("(default ").map_or("", |(_, rest)| rest.split_once(')').unwrap().0);
        assert_eq!(shown, default, "{name}");
        assert_eq!(tail.contains("(DEPRECATED: "), deprecated == "yes", "{name}");
    }
}

#[test]
fn no_flag_is_unrecorded_or_twice() {
    let mut names: Vec<&str> = table::all().filter(|flag| !flag.is_rubelets()).map(|flag| flag.name).collect();
    names.sort_unstable();
    let mut expected: Vec<&str> = recorded().into_iter().map(|row| row[0]).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for section in &table::SECTIONS {
        assert!(section.flags.iter().all(|flag| flag.is_rubelets() == section.is_rubelets()), "{}", section.heading);
        assert!(section.flags.is_sorted_by_key(|flag| flag.name), "{}", section.heading);
    }
}

/// The help of these goes over several lines, so their notice is not on the recorded one.
#[test]
fn using_a_deprecated_flag_is_noticed_once() {
    for [name, _, _, _, deprecated] in recorded() {
        let is_deprecated = deprecated == "yes" || ["feature-gates", "tls-cipher-suites"].contains(&name);
        let flag = table::find(name).unwrap();
        assert_eq!(flag.notice != Notice::None, is_deprecated, "{name}");
    }
    let mut notices = Vec::new();
    parse(&args(&["--max_pods=3", "--max-pods=4", "--v=2", "--runonce", "--containerd=x"]), &mut notices).unwrap();
    assert_eq!(
        notices,
        [
            "Flag --max-pods has been deprecated, This parameter should be set via the config file specified by the Kubelet's --config flag. See https://kubernetes.io/docs/tasks/administer-cluster/kubelet-config-file/ for more information.",
            "Flag --runonce has been deprecated, This parameter should be set via the config file specified by the Kubelet's --config flag. See https://kubernetes.io/docs/tasks/administer-cluster/kubelet-config-file/ for more information.",
            "Flag --containerd has been deprecated, This is a cadvisor flag that was mistakenly registered with the Kubelet. Due to legacy concerns, it will follow the standard CLI deprecation timeline before being removed.",
        ]
    );
}

#[test]
fn notices_come_even_when_a_later_argument_is_refused() {
    let mut notices = Vec::new();
    parse(&args(&["--max-pods=3", "--bogus"]), &mut notices).unwrap_err();
    assert_eq!(notices.len(), 1);
}

#[test]
fn forms_of_a_flag() {
    for line in [&["--port=7"][..], &["--port", "7"], &["--port=0x7"], &["--port", "1", "--port=+7"]] {
        assert_eq!(given(line).value("port"), Some(&json!(7)), "{line:?}");
    }
    for line in [&["-v2"][..], &["-v=2"], &["-v", "2"], &["--v=2"], &["--v", "2"], &["-hv2"]] {
        assert_eq!(given(line).value("v"), Some(&json!(2)), "{line:?}");
    }
    for line in [&["--fail_swap_on=F"][..], &["--fail-swap-on", "--fail-swap-on=false"]] {
        assert_eq!(given(line).value("fail-swap-on"), Some(&json!(false)), "{line:?}");
    }
    assert_eq!(given(&["--fail-swap-on", "false"]).operands, ["false"], "a switch takes no separate value");
    assert_eq!(given(&["--v=1", "--", "--v=2", "x"]).operands, ["--v=2", "x"]);
    assert_eq!(given(&["-", ""]).operands, ["-", ""]);
    assert_eq!(given(&["--kubeconfig="]).value("kubeconfig"), Some(&json!("")));
    assert_eq!(given(&["--version"]).value("version"), Some(&json!(true)));
    assert_eq!(given(&["--version=raw"]).value("version"), Some(&json!("raw")));
}

#[test]
fn values_have_the_form_of_the_configuration_file() {
    let cases: &[(&[&str], &str, serde_json::Value)] = &[
        (&["--sync-frequency=90s"], "sync-frequency", json!("1m30s")),
        (&["--sync-frequency=-1.5h"], "sync-frequency", json!("-1h30m0s")),
        (&["--sync-frequency=-9223372036854775808ns"], "sync-frequency", json!("-2562047h47m16.854775808s")),
        (&["--cpu-cfs-quota-period=0.1s"], "cpu-cfs-quota-period", json!("100ms")),
        (&["--address=::"], "address", json!("::")),
        (&["--address=010.0.0.1"], "address", json!("010.0.0.1")),
        (&["--cluster-dns=1.1.1.1,2.2.2.2", "--cluster-dns=::1"], "cluster-dns", json!(["1.1.1.1", "2.2.2.2", "::1"])),
        (&["--tls-cipher-suites=\"a,b\",c\"\"", "--tls-cipher-suites="], "tls-cipher-suites", json!(null)),
        (&["--tls-cipher-suites=\"a,\"\"b\",c"], "tls-cipher-suites", json!(["a,\"b", "c"])),
        (&["--node-labels=a=b, c = d=e", "--node-labels=a=x"], "node-labels", json!({"a": "x", "c": "d=e"})),
        (&["--node-labels=a,b="], "node-labels", json!({"a": "", "b": ""})),
        (&["--pod-max-pids=1_0"], "pod-max-pids", json!(10)),
        (&["--pod-max-pids=-0x_f_f"], "pod-max-pids", json!(-255)),
        (&["--register-with-taints=a-,b:NoSchedule-"], "register-with-taints", json!([])),
        (&["--eviction-hard=memory.available<1Gi"], "eviction-hard", json!({"memory.available": "1Gi"})),
        (&["--feature-gates=A=true,B=0", "--feature-gates=A=false"], "feature-gates", json!({"A": false, "B": false})),
        (&["--manifest-url-header=a:b:c,a:d"], "manifest-url-header", json!({"a": ["b:c", "d"]})),
        (
            &["--register-with-taints=k=v:NoSchedule,l:NoExecute"],
            "register-with-taints",
            json!([{"key": "k", "effect": "NoSchedule", "value": "v"}, {"key": "l", "effect": "NoExecute"}]),
        ),
        (
            &["--reserved-memory=1:memory=1Gi", "--reserved-memory=0:memory=2Gi,hugepages-2Mi=4Mi"],
            "reserved-memory",
            json!([{"numaNode": 0, "limits": {"memory": "2Gi", "hugepages-2Mi": "4Mi"}}, {"numaNode": 1, "limits": {"memory": "1Gi"}}]),
        ),
        (&["--log-json-info-buffer-size=64Ki"], "log-json-info-buffer-size", json!("64Ki")),
        (
            &["--vmodule=a*=2,b=3"],
            "vmodule",
            json!([{"filePattern": "a*", "verbosity": 2}, {"filePattern": "b", "verbosity": 3}]),
        ),
        (&["--pod-max-pids=9223372036854775807"], "pod-max-pids", json!(i64::MAX)),
    ];
    for (line, name, expected) in cases {
        match parse(&args(line), &mut Vec::new()) {
            Ok(given) => assert_eq!(given.value(name), Some(expected), "{line:?}"),
            Err(_) => assert_eq!(*expected, json!(null), "{line:?}"),
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn refusals_in_the_words_of_pflag() {
    let cases: &[(&[&str], &str)] = &[
        (&["--bogus"], "unknown flag: --bogus"),
        (&["--bo_gus=1"], "unknown flag: --bo_gus"),
        (&["--pod-infra-container-image=x"], "unknown flag: --pod-infra-container-image"),
        (&["--container-runtime=remote"], "unknown flag: --container-runtime"),
        (&["--network-plugin=cni"], "unknown flag: --network-plugin"),
        (&["--=x"], "bad flag syntax: --=x"),
        (&["---v"], "bad flag syntax: ---v"),
        (&["-x"], "unknown shorthand flag: 'x' in -x"),
        (&["-hxy"], "unknown shorthand flag: 'x' in -xy"),
        (&["--port"], "flag needs an argument: --port"),
        (&["-v"], "flag needs an argument: 'v' in -v"),
        (&["--port=x"], r#"invalid argument "x" for "--port" flag: strconv.ParseInt: parsing "x": invalid syntax"#),
        (
            &["--port=4294967296"],
            r#"invalid argument "4294967296" for "--port" flag: strconv.ParseInt: parsing "4294967296": value out of range"#,
        ),
        (&["-vx"], r#"invalid argument "x" for "-v, --v" flag: strconv.ParseUint: parsing "x": invalid syntax"#),
        (
            &["--fail-swap-on=maybe"],
            r#"invalid argument "maybe" for "--fail-swap-on" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#,
        ),
        (
            &["--sync-frequency=soon"],
            r#"invalid argument "soon" for "--sync-frequency" flag: time: invalid duration "soon""#,
        ),
        (
            &["--sync-frequency=5"],
            r#"invalid argument "5" for "--sync-frequency" flag: time: missing unit in duration "5""#,
        ),
        (
            &["--sync-frequency=5d"],
            r#"invalid argument "5d" for "--sync-frequency" flag: time: unknown unit "d" in duration "5d""#,
        ),
        (
            &["--address=999.1.1.1"],
            r#"invalid argument "999.1.1.1" for "--address" flag: "999.1.1.1" is not a valid IP address"#,
        ),
        (
            &["--kube-reserved=a"],
            r#"invalid argument "a" for "--kube-reserved" flag: malformed pair, expect string=string"#,
        ),
        (
            &["--eviction-soft=a=b"],
            r#"invalid argument "a=b" for "--eviction-soft" flag: malformed pair, expect string<string"#,
        ),
        (
            &["--manifest-url-header=a"],
            r#"invalid argument "a" for "--manifest-url-header" flag: malformed pair, expect string:string"#,
        ),
        (
            &["--feature-gates=A"],
            r#"invalid argument "A" for "--feature-gates" flag: malformed pair, expect string=bool"#,
        ),
        (
            &["--feature-gates=A=x"],
            r#"invalid argument "A=x" for "--feature-gates" flag: invalid value of A: x, err: strconv.ParseBool: parsing "x": invalid syntax"#,
        ),
        (
            &["--register-with-taints=a:b"],
            r#"invalid argument "a:b" for "--register-with-taints" flag: invalid taint effect: b, unsupported taint effect"#,
        ),
        (
            &["--register-with-taints=a"],
            r#"invalid argument "a" for "--register-with-taints" flag: invalid taint spec: a"#,
        ),
        (
            &["--log-json-info-buffer-size=x"],
            r#"invalid argument "x" for "--log-json-info-buffer-size" flag: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"#,
        ),
        (
            &["--log-json-info-buffer-size=1ki"],
            r#"invalid argument "1ki" for "--log-json-info-buffer-size" flag: unable to parse quantity's suffix"#,
        ),
        (
            &["--sync-frequency=1.5.5s"],
            r#"invalid argument "1.5.5s" for "--sync-frequency" flag: time: missing unit in duration "1.5.5s""#,
        ),
        (
            &["--sync-frequency=9223372036854775808ns"],
            r#"invalid argument "9223372036854775808ns" for "--sync-frequency" flag: time: invalid duration "9223372036854775808ns""#,
        ),
        (
            &["--pod-max-pids=1__0"],
            r#"invalid argument "1__0" for "--pod-max-pids" flag: strconv.ParseInt: parsing "1__0": invalid syntax"#,
        ),
        (
            &["--register-with-taints=a:NoSchedule,a=b:NoSchedule"],
            r#"invalid argument "a:NoSchedule,a=b:NoSchedule" for "--register-with-taints" flag: duplicated taints with the same key and effect: {a b NoSchedule <nil>}"#,
        ),
        (
            &["--register-with-taints=a=@:NoSchedule"],
            r#"invalid argument "a=@:NoSchedule" for "--register-with-taints" flag: invalid taint spec: a=@:NoSchedule, a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"#,
        ),
        (
            &["--register-with-taints=a:b:c"],
            r#"invalid argument "a:b:c" for "--register-with-taints" flag: invalid taint spec: a:b:c"#,
        ),
        (
            &["--register-with-taints=:NoSchedule"],
            r#"invalid argument ":NoSchedule" for "--register-with-taints" flag: invalid taint spec: :NoSchedule, name part must be non-empty; name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#,
        ),
        (
            &["--reserved-memory=x"],
            r#"invalid argument "x" for "--reserved-memory" flag: the reserved memory has incorrect format, expected numaNodeID:type=quantity[,type=quantity...], got x"#,
        ),
        (
            &["--reserved-memory=a:memory=1"],
            r#"invalid argument "a:memory=1" for "--reserved-memory" flag: failed to convert the NUMA node ID, expected integer, got a"#,
        ),
        (
            &["--reserved-memory=0:memory"],
            r#"invalid argument "0:memory" for "--reserved-memory" flag: the reserved limit has incorrect value, expected type=quantity, got memory"#,
        ),
        (
            &["--reserved-memory=0:memory=x"],
            r#"invalid argument "0:memory=x" for "--reserved-memory" flag: failed to parse the quantity: x"#,
        ),
        (
            &["--reserved-memory=0:foo=1"],
            r#"invalid argument "0:foo=1" for "--reserved-memory" flag: memory type conversion error, unknown type: "foo""#,
        ),
        (
            &["--tls-cipher-suites=a\"b"],
            r#"invalid argument "a\"b" for "--tls-cipher-suites" flag: parse error on line 1, column 2: bare " in non-quoted-field"#,
        ),
        (
            &["--tls-cipher-suites=\"a"],
            r#"invalid argument "\"a" for "--tls-cipher-suites" flag: parse error on line 1, column 3: extraneous or missing " in quoted-field"#,
        ),
        (&["--vmodule=a*"], r#"invalid argument "a*" for "--vmodule" flag: "a*" does not have the pattern=N format"#),
        (&["--housekeeping-interval=x"], r#"invalid argument "x" for "--housekeeping-interval" flag: parse error"#),
        (
            &["--version=x"],
            r#"invalid argument "x" for "--version" flag: strconv.ParseBool: parsing "x": invalid syntax"#,
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(refusal(line), *expected, "{line:?}");
    }
}

#[test]
fn fields_name_the_configuration() {
    let given = given(&["--anonymous-auth=false", "--pod-manifest-path=/m", "--node-ip=::1", "--containerd=x"]);
    let fields: Vec<_> = given.fields().collect();
    assert_eq!(fields, [("authentication.anonymous.enabled", &json!(false)), ("staticPodPath", &json!("/m"))]);
    assert_eq!(given.without_effect().collect::<Vec<_>>(), ["containerd"]);
    assert_eq!(given.text("node-ip"), "::1");
    assert_eq!(given.text("root-dir"), "/var/lib/kubelet");
    assert_eq!(given.number("maximum-dead-containers"), -1);
}
