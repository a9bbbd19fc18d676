use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rubelet_host::exec::Order;

use super::*;
use crate::Protocol;

/// A place with plugins that are scripts.
struct Place {
    dir: tempfile::TempDir,
    options: Options,
}

const RESULT: &str = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"br"},{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.9.9.1/24"},{"interface":1,"address":"10.9.9.2/24"}]}"#;

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::at(&dir.path().join("state"), &dir.path().join("netns"));
        options.cni_conf_dir = dir.path().join("net.d");
        options.cni_bin_dirs = vec![dir.path().join("bin")];
        options.cni_cache_dir = dir.path().join("cache");
        for made in [&options.cni_conf_dir, &options.cni_bin_dirs[0], &options.netns_dir] {
            fs::create_dir_all(made).unwrap();
        }
        Self { dir, options }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, name: &str, text: &str) {
        fs::write(self.options.cni_conf_dir.join(name), text).unwrap();
    }

    fn list(&self, text: &str) -> List {
        self.configure("00.conflist", text);
        configured(&self.options).unwrap().unwrap()
    }

    fn plugin(&self, name: &str, script: &str) {
        let path = self.options.cni_bin_dirs[0].join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// One that answers as it should, and notes what it was told.
    fn good(&self, name: &str) {
        let log = self.path("log");
        let note =
            format!("echo \"$CNI_COMMAND {name} $CNI_CONTAINERID $CNI_IFNAME $CNI_ARGS $(cat)\" >> {}", log.display());
        self.plugin(name, &format!("{note}\n[ $CNI_COMMAND = ADD ] && echo '{RESULT}'\nexit 0"));
    }

    /// What plugins have noted: verb and name, then the whole lines.
    fn noted(&self) -> (Vec<String>, String) {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path("log"));
        (text.lines().map(|l| l.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect(), text)
    }

    fn add(&self, list: &List, id: &str) -> Result<Attached, NetworkError> {
        let annotations = BTreeMap::from([("kubernetes.io/ingress-bandwidth".to_owned(), "1M".to_owned())]);
        let port = PortMapping { host_ip: None, host_port: 80, container_port: 8080, protocol: Protocol::Tcp };
        let wanted = Wanted {
            id,
            uid: "u",
            namespace: "ns",
            name: "pod",
            ports: vec![port],
            annotations: &annotations,
            dns_servers: &["10.0.0.10".to_owned()],
            dns_searches: &[],
            dns_options: &[],
        };
        add(&self.options, list, &wanted, self.dir.path())
    }

    fn files(&self) -> usize {
        let count = |dir: &str| fs::read_dir(self.path(dir)).map_or(0, Iterator::count);
        count("cache/results") + count("state/cni")
    }
}

#[test]
fn the_first_configuration_counts_and_a_wrong_one_is_named() {
    let place = Place::new();
    assert_eq!(configured(&place.options).unwrap(), None);
    place.configure("20-b.conf", r#"{"cniVersion":"1.0.0","name":"b","type":"one"}"#);
    assert_eq!(configured(&place.options).unwrap().unwrap().name, "b");
    place.configure("10-a.conflist", r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"one"},{"type":"two"}]}"#);
    place.configure("00-x.conflist.bak", "{");
    let list = configured(&place.options).unwrap().unwrap();
    assert_eq!((list.name.as_str(), list.types().collect::<Vec<_>>()), ("a", vec!["one", "two"]));
    assert_eq!(status(&place.options, &list).unwrap_err(), "cni plugin \"one\" of network \"a\" is not installed");
    let versions = "0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0";
    for (bad, why) in [
        ("{", ""),
        ("[]", "it is no object"),
        (r#"{"name":"../x","type":"t","cniVersion":"1.0.0"}"#, "\"../x\" is not the name of a network"),
        (r#"{"type":"t","cniVersion":"1.0.0"}"#, "\"\" is not the name of a network"),
        (r#"{"name":"a","plugins":[],"cniVersion":"1.0.0"}"#, "it has no plugin, or one without a type"),
        (r#"{"name":"a","cniVersion":"1.0.0"}"#, "it has no plugin, or one without a type"),
        (r#"{"name":"a","plugins":["x"],"cniVersion":"1.0.0"}"#, "one of its plugins is no object"),
        (r#"{"name":"a","type":"t"}"#, "it has no cniVersion"),
        (r#"{"name":"a","type":"t","cniVersion":"0.2.0"}"#, &format!("its cniVersion 0.2.0 is none of {versions}")),
    ] {
        place.configure("10-a.conflist", bad);
        let error = configured(&place.options).unwrap_err().to_string();
        assert!(error.contains("10-a.conflist") && error.contains(why), "{error}");
    }
}

#[test]
fn the_latest_version_that_both_speak_is_spoken() {
    let place = Place::new();
    let of = |text: &str| place.list(&text.replace("@", r#""name":"a","type":"t","#)).version;
    assert_eq!(of(r#"{@"cniVersion":"0.3.1"}"#), "0.3.1");
    assert_eq!(of(r#"{@"cniVersion":"0.4.0","cniVersions":["0.4.0","1.0.0","1.1.0","1.2.0"]}"#), "1.1.0");
    assert_eq!(of(r#"{@"cniVersions":["9.9.9","0.3.0"]}"#), "0.3.0");
}

#[test]
fn plugins_of_a_folder_come_after_those_of_the_list() {
    let place = Place::new();
    let dir = place.options.cni_conf_dir.join("a");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("10-x.conf"), r#"{"type":"two"}"#).unwrap();
    let types = |text: &str| place.list(text).types().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(types(r#"{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"one"}]}"#), ["one", "two"]);
    assert_eq!(types(r#"{"cniVersion":"1.1.0","name":"a"}"#), ["two"]);
    let alone = r#"{"cniVersion":"1.1.0","name":"a","loadOnlyInlinedPlugins":true,"plugins":[{"type":"one"}]}"#;
    assert_eq!(types(alone), ["one"]);
}

const TWO: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"one"},{"type":"two","capabilities":{"portMappings":true,"bandwidth":true,"dns":false}}]}"#;

#[test]
fn plugins_are_called_in_turn_and_back() {
    let place = Place::new();
    place.good("one");
    place.good("two");
    let list = place.list(TWO);
    let added = place.add(&list, "abc").unwrap();
    assert_eq!(added.addresses, ["10.9.9.2".parse::<IpAddr>().unwrap()]);
    let (calls, said) = place.noted();
    assert_eq!(calls, ["ADD one", "ADD two"]);
    let arguments =
        "abc eth0 IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u {";
    assert_eq!(said.matches(arguments).count(), 2, "{said}");
    let told: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap()).collect();
    assert_eq!(told[0], json!({"type": "one", "name": "net", "cniVersion": "1.0.0"}));
    let given = json!({
        "portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": ""}],
        "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": u32::MAX},
    });
    assert_eq!(
        (&told[1]["runtimeConfig"], &told[1]["prevResult"]["ips"][1]["address"]),
        (&given, &json!("10.9.9.2/24"))
    );
    let cache = fs::read_to_string(place.path("cache/results/net-abc-eth0")).unwrap();
    let cache: Value = serde_json::from_str(&cache).unwrap();
    assert_eq!((&cache["kind"], &cache["cniArgs"][1]), (&json!("cniCacheV1"), &json!(["K8S_POD_NAMESPACE", "ns"])));
    assert_eq!(ids(&place.options).unwrap(), ["abc"]);

    assert_eq!(check(&place.options, "abc", place.dir.path()).unwrap(), Some(()));
    assert_eq!(check(&place.options, "other", place.dir.path()).unwrap(), None);
    assert_eq!(place.noted().0, ["CHECK one", "CHECK two"]);

    // Whatever became of configuration and cache.
    fs::remove_file(place.options.cni_conf_dir.join("00.conflist")).unwrap();
    fs::remove_dir_all(place.path("cache")).unwrap();
    del(&place.options, "abc", &place.path("gone")).unwrap();
    let (calls, said) = place.noted();
    assert_eq!(calls, ["DEL two", "DEL one"]);
    assert_eq!(said.matches("prevResult").count(), 2);
    del(&place.options, "abc", place.dir.path()).unwrap();
    assert_eq!((place.noted().0.len(), place.files()), (0, 0));
}

#[test]
fn a_pod_that_is_refused_is_taken_back() {
    let place = Place::new();
    place.good("one");
    place.plugin("two", r#"cat >/dev/null; [ $CNI_COMMAND = DEL ] && exit 0; echo '{"code":11,"msg":"no room","details":"at all"}'; exit 1"#);
    let list = place.list(TWO);
    let error = place.add(&list, "abc").unwrap_err().to_string();
    assert_eq!(error, r#"pod ns/pod: plugin type="two" name="net" failed (add): no room; at all"#);
    assert_eq!((place.noted().0, place.files()), (vec!["ADD one".to_owned(), "DEL one".to_owned()], 0));
    // What cannot be taken back is remembered.
    place.plugin("two", "echo broken >&2; exit 1");
    let error = place.add(&list, "abc").unwrap_err().to_string();
    assert_eq!(error, r#"pod ns/pod: plugin type="two" name="net" failed (add): broken"#);
    assert_eq!(ids(&place.options).unwrap(), ["abc"]);
    let error = check(&place.options, "abc", place.dir.path()).unwrap_err().to_string();
    assert_eq!(error, "pod ns/pod: it was attached in part only");
    place.good("two");
    del(&place.options, "abc", place.dir.path()).unwrap();
    assert_eq!(place.files(), 0);
}

#[test]
fn plugins_that_hang_babble_or_are_missing_are_named() {
    let place = Place::new();
    let list = place.list(r#"{"cniVersion":"0.4.0","name":"net","type":"bad"}"#);
    let dirs = place.options.cni_bin_dirs[0].display().to_string();
    let said = |script: Option<&str>| {
        if let Some(script) = script {
            place.plugin("bad", script);
        }
        place
            .add(&list, "a")
            .unwrap_err()
            .to_string()
            .replace("pod ns/pod: plugin type=\"bad\" name=\"net\" failed (add): ", "")
    };
    assert_eq!(said(None), format!("failed to find plugin \"bad\" in path [{dirs}]"));
    assert_eq!(said(Some("kill -9 $$")), "it ended with signal: 9 (SIGKILL)");
    assert!(
        said(Some("cat > /dev/null; [ $CNI_COMMAND = ADD ] && echo nonsense; exit 0"))
            .starts_with("its result is not understood")
    );
    assert_eq!(said(Some("cat > /dev/null; exit 0")), "the result has no address");
    let mut place = Place::new();
    place.options.cni_patience = Duration::from_millis(300);
    place.plugin("bad", "sleep 100");
    let error = place.add(&list, "a").unwrap_err().to_string();
    assert!(error.ends_with("bin/bad did not end within 0.3 s and was killed"), "{error}");
}

#[test]
fn a_plugin_that_is_being_written_is_tried_again() {
    let place = Place::new();
    place.plugin("one", "echo done");
    let program = place.options.cni_bin_dirs[0].join("one");
    let (patience, output_max) = (Duration::from_secs(20), 100);
    let order = Order { program: &program, arguments: &[], environment: &[], input: b"", patience, output_max };
    let open = || fs::OpenOptions::new().append(true).open(&program).unwrap();

    let mut writer = Some(open());
    let mut pauses = Vec::new();
    let answer = call::while_busy(&order, |pause| {
        pauses.push(pause);
        if pauses.len() == 3 {
            writer = None;
        }
    });
    assert_eq!(answer.unwrap().stdout, b"done\n");
    // Another test's child may hold what this one has closed, until it is a program of its own.
    assert!(pauses.len() >= 3, "{pauses:?}");

    let _writer = open();
    let mut total = Duration::ZERO;
    let error = call::while_busy(&order, |pause| total += pause).unwrap_err();
    assert!(chain(&error).contains("Text file busy"), "{}", chain(&error));
    assert_eq!(total, Duration::from_secs(5));
}

#[test]
fn plugins_of_the_latest_version_say_how_they_are_and_collect() {
    let place = Place::new();
    place.good("one");
    let list = place.list(r#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"one"}]}"#);
    status(&place.options, &list).unwrap();
    assert_eq!(place.noted().0, ["STATUS one"]);
    for id in ["a", "b"] {
        place.add(&list, id).unwrap();
    }
    let other = r#"{"kind":"cniCacheV1","containerId":"foreign","ifName":"eth1","networkName":"net"}"#;
    fs::write(place.path("cache/results/net-foreign-eth1"), other).unwrap();
    place.noted();
    collect(&place.options, &["b"]).unwrap();
    let (calls, said) = place.noted();
    assert_eq!(calls, ["GC one"]);
    let told: Value = serde_json::from_str(&said[said.find('{').unwrap()..]).unwrap();
    let valid = json!([{"containerID": "foreign", "ifname": "eth1"}, {"containerID": "b", "ifname": "eth0"}]);
    assert_eq!(told["cni.dev/valid-attachments"], valid);
    place.plugin("one", r#"cat >/dev/null; echo '{"code":50,"msg":"not yet"}'; exit 1"#);
    let said = status(&place.options, &list).unwrap_err();
    assert_eq!(said, r#"plugin type="one" name="net" failed (status): not yet"#);
    // Earlier versions know neither, and a list may forbid the one.
    place.good("one");
    for quiet in [r#""cniVersion":"1.0.0""#, r#""cniVersion":"1.1.0","disableGC":true"#] {
        place.list(&format!(r#"{{{quiet},"name":"net","plugins":[{{"type":"one"}}]}}"#));
        collect(&place.options, &[]).unwrap();
    }
    assert!(place.noted().0.is_empty());
}
