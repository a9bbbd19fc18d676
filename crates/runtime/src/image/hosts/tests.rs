use super::*;

fn config(dirs: &[&Path]) -> HostsConfig {
    HostsConfig { dirs: dirs.iter().map(|d| (*d).to_owned()).collect(), insecure: vec!["plain.test:8080".into()] }
}

fn urls(hosts: &[Host]) -> Vec<String> {
    hosts.iter().map(|h| format!("{}{}", h.origin(), h.path)).collect()
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(dir.join(name)).unwrap();
    std::fs::write(dir.join(name).join("hosts.toml"), text).unwrap();
}

#[test]
fn without_files_it_is_the_registry_itself() {
    let config = config(&[]);
    for (registry, expected) in [
        ("docker.io", "https://registry-1.docker.io/v2"),
        ("quay.io", "https://quay.io/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("127.0.0.1:443", "https://127.0.0.1:443/v2"),
        ("[::1]:5000", "http://[::1]:5000/v2"),
        ("[::1]", "http://[::1]/v2"),
        ("plain.test:8080", "http://plain.test:8080/v2"),
    ] {
        assert_eq!(urls(&config.of(registry).unwrap()), [expected], "{registry}");
    }
}

#[test]
fn mirrors_come_in_the_order_of_the_file_and_the_server_last() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"
        server = "https://registry-1.docker.io"
        [host."https://z.mirror"]
          capabilities = ["pull"]
          ca = "ca.pem"
        [host."http://a.mirror:8080/some/path"]
          capabilities = ["pull", "resolve"]
          override_path = true
          skip_verify = true
          [host."http://a.mirror:8080/some/path".header]
            x-key = ["v"]
        [host."m.mirror/sub"]
          ca = ["one.pem", "/two.pem"]
          client = [["c.cert", "c.key"]]
    "#;
    write(dir.path(), "docker.io", text);
    let hosts = config(&[dir.path()]).of("docker.io").unwrap();
    let expected = [
        "https://z.mirror/v2",
        "http://a.mirror:8080/some/path",
        "https://m.mirror/sub/v2",
        "https://registry-1.docker.io/v2",
    ];
    assert_eq!(urls(&hosts), expected);
    assert_eq!(hosts.iter().map(|h| h.can(Capability::Resolve)).collect::<Vec<_>>(), [false, true, true, true]);
    assert_eq!(hosts.iter().map(|h| h.is_mirror).collect::<Vec<_>>(), [true, true, true, false]);
    let here = dir.path().join("docker.io");
    assert_eq!(hosts[0].tls.ca, [here.join("ca.pem")]);
    assert!(hosts[1].tls.skip_verify);
    assert_eq!(hosts[1].headers, [("x-key".to_owned(), "v".to_owned())]);
    assert_eq!(hosts[2].tls.ca, [here.join("one.pem"), PathBuf::from("/two.pem")]);
    assert_eq!(hosts[2].tls.client, Some((here.join("c.cert"), here.join("c.key"))));
}

#[test]
fn the_first_directory_that_has_something_counts() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(theirs.path(), "a.test_5000_", "server = \"https://one\"");
    write(theirs.path(), "_default", "[host.\"https://any\"]");
    let config = config(&[ours.path(), theirs.path()]);
    assert_eq!(urls(&config.of("a.test:5000").unwrap()), ["https://one/v2"]);
    assert_eq!(urls(&config.of("b.test").unwrap()), ["https://any/v2", "https://b.test/v2"]);
    write(ours.path(), "a.test:5000", "skip_verify = true");
    let hosts = config.of("a.test:5000").unwrap();
    assert_eq!((urls(&hosts), hosts[0].tls.skip_verify), (vec!["https://a.test:5000/v2".to_owned()], true));
}

#[test]
fn certificates_alone_as_docker_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("a.test");
    std::fs::create_dir(&registry).unwrap();
    for name in ["ca.crt", "me.cert", "me.key"] {
        std::fs::write(registry.join(name), "").unwrap();
    }
    let hosts = config(&[dir.path()]).of("a.test").unwrap();
    assert_eq!(hosts[0].tls.ca, [registry.join("ca.crt")]);
    assert_eq!(hosts[0].tls.client, Some((registry.join("me.cert"), registry.join("me.key"))));
}

#[test]
fn what_is_wrong_is_said_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    for (text, words) in [
        ("server = ", "parse"),
        ("[host.\"ftp://x\"]", "unknown scheme \"ftp\""),
        ("[host.\"https://user@x\"]", "names no host"),
        ("[host.\"https://x\"]\ncapabilities = [\"fly\"]", "unknown capability \"fly\""),
    ] {
        write(dir.path(), "a.test", text);
        let error = config(&[dir.path()]).of("a.test").unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("a.test/hosts.toml"), "{error}");
    }
}
