use std::os::unix::fs::PermissionsExt;

use super::*;

fn options(dir: &Path) -> Options {
    let mut options = Options::at(&dir.join("state"), &dir.join("netns"));
    options.cni_conf_dir = dir.join("net.d");
    options.cni_bin_dirs = vec![dir.join("bin")];
    options.cni_cache_dir = dir.join("cache");
    for made in [&options.cni_conf_dir, &options.cni_bin_dirs[0]] {
        fs::create_dir_all(made).unwrap();
    }
    options
}

fn plugin(options: &Options, name: &str, script: &str) {
    let path = options.cni_bin_dirs[0].join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_first_configuration_counts_and_a_wrong_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    assert_eq!(configured(&options).unwrap(), None);
    let write = |name: &str, text: &str| fs::write(options.cni_conf_dir.join(name), text).unwrap();
    write("20-b.conf", r#"{"cniVersion":"1.0.0","name":"b","type":"one"}"#);
    assert_eq!(configured(&options).unwrap().unwrap().name, "b");
    write("10-a.conflist", r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"one"},{"type":"two"}]}"#);
    let list = configured(&options).unwrap().unwrap();
    assert_eq!((list.name.as_str(), list.types().collect::<Vec<_>>()), ("a", vec!["one", "two"]));
    assert_eq!(check_plugins(&options, &list).unwrap_err(), "cni plugin \"one\" of network \"a\" is not installed");
    for bad in ["{", "[]", r#"{"name":"../x","type":"t"}"#, r#"{"name":"a","plugins":[]}"#, r#"{"name":"a"}"#] {
        write("10-a.conflist", bad);
        let error = configured(&options).unwrap_err().to_string();
        assert!(error.contains("10-a.conflist"), "{error}");
    }
}

#[test]
fn plugins_are_called_in_turn_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let log = dir.path().join("log");
    let say = format!("cat > /tmp/none; echo \"$CNI_COMMAND $0 $CNI_ARGS\" >> {}", log.display())
        .replace("cat > /tmp/none", "c=$(cat)");
    let result = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"br"},{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.9.9.1/24"},{"interface":1,"address":"10.9.9.2/24"}]}"#;
    plugin(&options, "one", &format!("{say}; [ $CNI_COMMAND = ADD ] && echo '{result}'; exit 0"));
    let keep = format!("echo \"$c\" >> {}", dir.path().join("stdin").display());
    plugin(&options, "two", &format!("{say}; {keep}; [ $CNI_COMMAND = ADD ] && echo '{result}'; exit 0"));
    let text = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"one"},{"type":"two","capabilities":{"portMappings":true}}]}"#;
    let list = List::parse(text.as_bytes(), Path::new("x")).unwrap();
    let annotations = std::collections::BTreeMap::new();
    let port = crate::PortMapping { host_ip: None, host_port: 80, container_port: 8080, protocol: Protocol::Tcp };
    let wanted = Wanted {
        id: "abc",
        uid: "u",
        namespace: "ns",
        name: "pod",
        ports: vec![port],
        annotations: &annotations,
        dns_servers: &[],
        dns_searches: &[],
        dns_options: &[],
    };
    let added = add(&options, &list, &wanted, dir.path()).unwrap();
    assert_eq!(added, ["10.9.9.2".parse::<IpAddr>().unwrap()]);
    del(&options, "abc", dir.path()).unwrap();
    del(&options, "abc", dir.path()).unwrap();
    let said = fs::read_to_string(&log).unwrap();
    let calls: Vec<String> = said
        .lines()
        .map(|l| l.split(' ').take(2).map(|w| w.rsplit('/').next().unwrap()).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(calls, ["ADD one", "ADD two", "DEL two", "DEL one"]);
    assert!(said.contains("K8S_POD_NAME=pod;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u"));
    let stdin = fs::read_to_string(dir.path().join("stdin")).unwrap();
    assert!(stdin.contains(r#""hostPort":80"#) && stdin.contains("prevResult") && !stdin.contains("capabilities"));
    assert_eq!(fs::read_dir(options.cni_cache_dir.join("results")).unwrap().count(), 0);
}

#[test]
fn what_a_plugin_says_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    plugin(&options, "bad", r#"cat >/dev/null; echo '{"code":11,"msg":"no room","details":"at all"}'; exit 1"#);
    let list = List::parse(br#"{"cniVersion":"1.0.0","name":"net","type":"bad"}"#, Path::new("x")).unwrap();
    let call =
        Call { options: &options, id: "a", namespace: dir.path(), args: String::new(), capabilities: Map::new() };
    let error = call.run("ADD", &list, &list.plugins[0], None).unwrap_err().to_string();
    assert_eq!(error, r#"plugin type="bad" name="net" failed (ADD): no room; at all"#);
}

#[test]
fn rates_are_quantities() {
    for (text, want) in [("1M", Some(1_000_000)), ("1Ki", Some(1024)), ("7", Some(7)), ("x", None), ("1X", None)] {
        assert_eq!(bits_per_second(text), want, "{text}");
    }
}
