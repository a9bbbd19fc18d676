use rubelet_shim::spec::{Process, User};

use super::*;

const GPU: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/gpu
devices:
- name: "0"
  containerEdits:
    env: ["GPU=0", "PATH=/gpu"]
    deviceNodes:
    - {path: /dev/gpu0, hostPath: /dev/null, permissions: rw, fileMode: 0666}
    additionalGids: [44, 0]
- name: all
  annotations: {a: b}
  containerEdits:
    deviceNodes: [{path: /dev/gpuctl, type: c, major: 10, minor: 200, uid: 7, gid: 8}]
containerEdits:
  env: [VENDOR=1]
  mounts:
  - {hostPath: /usr/lib/gpu, containerPath: /usr/lib/gpu, options: [ro, rbind]}
"#;

fn with(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let dirs = vec![dir.path().join("low"), dir.path().join("high"), dir.path().join("missing")];
    (dir, dirs)
}

fn asked(devices: &[&str], annotation: &str) -> cri::ContainerConfig {
    let cdi_devices = devices.iter().map(|name| cri::CdiDevice { name: (*name).to_owned() }).collect();
    let annotations = BTreeMap::from([("cdi.k8s.io/plugin".to_owned(), annotation.to_owned())]);
    cri::ContainerConfig { cdi_devices, annotations, ..Default::default() }
}

fn spec() -> Spec {
    let user = User { uid: 1000, gid: 2000, additional_gids: vec![2000], ..User::default() };
    let process = Process { user, env: vec!["PATH=/bin".to_owned()], ..Process::default() };
    let mounts = ["/proc", "/deep/er/still"].map(|at| Mount { destination: at.to_owned(), ..Mount::default() });
    Spec { process, mounts: mounts.to_vec(), ..Spec::default() }
}

fn injected(files: &[(&str, &str)], devices: &[&str], annotation: &str) -> Result<Spec, String> {
    let (_dir, dirs) = with(files);
    let mut spec = spec();
    inject(&mut spec, &asked(devices, annotation), &dirs).map(|()| spec).map_err(|e| e.to_string())
}

#[test]
fn a_device_brings_what_its_file_says() {
    let spec =
        injected(&[("low/gpu.yaml", GPU)], &["vendor.com/gpu=0"], "vendor.com/gpu=all, vendor.com/gpu=0").unwrap();
    assert_eq!(spec.process.env, ["PATH=/gpu", "VENDOR=1", "GPU=0"]);
    let places: Vec<&str> = spec.mounts.iter().map(|m| m.destination.as_str()).collect();
    assert_eq!(places, ["/proc", "/deep/er/still", "/usr/lib/gpu"]);
    assert_eq!(spec.process.user.additional_gids, [2000, 44]);
    let nodes: Vec<_> =
        spec.linux.devices.iter().map(|d| (d.path.as_str(), d.major, d.minor, d.uid, d.gid, d.file_mode)).collect();
    let own = ("/dev/gpu0", 1, 3, Some(1000), Some(2000), Some(0o666));
    assert_eq!(nodes, [own, ("/dev/gpuctl", 10, 200, Some(7), Some(8), None)]);
    let rules: Vec<_> = spec.linux.resources.devices.iter().map(|r| (r.major, r.access.as_str())).collect();
    assert_eq!(rules, [(Some(1), "rw"), (Some(10), "rwm")]);
}

#[test]
fn without_devices_nothing_is_read() {
    let (_dir, dirs) = with(&[("low/gpu.json", "broken")]);
    let mut spec = spec();
    inject(&mut spec, &asked(&[], ""), &dirs).unwrap();
    assert_eq!(spec, super::tests::spec());
}

#[test]
fn later_directories_win_and_disputes_have_no_winner() {
    let other = |env: &str| {
        format!(
            r#"{{"cdiVersion":"1.0.0","kind":"vendor.com/gpu","devices":[{{"name":"0","containerEdits":{{"env":["{env}"]}}}}]}}"#
        )
    };
    let (high, same) = (other("GPU=high"), other("GPU=same"));
    let spec = injected(&[("low/a.yaml", GPU), ("high/a.json", &high)], &["vendor.com/gpu=0"], "").unwrap();
    assert!(spec.process.env.contains(&"GPU=high".to_owned()) && spec.linux.devices.is_empty());
    let error = injected(&[("high/a.json", &high), ("high/b.json", &same)], &["vendor.com/gpu=0"], "").unwrap_err();
    assert!(error.contains("b.json: conflicting device \"vendor.com/gpu=0\""), "{error}");
}

#[test]
fn devices_that_nobody_knows() {
    let error = |name: &str| injected(&[("low/gpu.yaml", GPU)], &[name, "x.y/z=1"], "").unwrap_err();
    assert_eq!(error("dev1"), "CDI device injection failed: unresolvable CDI devices dev1, x.y/z=1");
    let broken = injected(&[("low/a.json", "{"), ("low/b.txt", "{")], &["a.b/c=d"], "").unwrap_err();
    assert!(broken.starts_with("CDI device injection failed: unresolvable CDI devices a.b/c=d; "), "{broken}");
    assert!(broken.contains("low/a.json: ") && !broken.contains("b.txt"), "{broken}");
}

#[test]
fn files_that_are_refused() {
    let file = |edits: &str, rest: &str| {
        format!(
            r#"{{"cdiVersion":"0.5.0","kind":"a.b/c","devices":[{{"name":"d","containerEdits":{{{edits}}}}}{rest}]}}"#
        )
    };
    for (text, want) in [
        (file(r#""env":["X"]"#, ""), "invalid environment variable \"X\""),
        (file(r#""deviceNodes":[{"path":"/dev/x","type":"q"}]"#, ""), "invalid type \"q\""),
        (file(r#""deviceNodes":[{"path":"/dev/x","permissions":"rx"}]"#, ""), "invalid permissions \"rx\""),
        (file(r#""mounts":[{"hostPath":"/x"}]"#, ""), "empty path"),
        (file(r#""surprise":1"#, ""), "unknown field `surprise`"),
        (file("", r#",{"name":"d"}"#), "multiple devices \"d\""),
        (file("", r#",{"name":"-d"}"#), "invalid device name \"-d\""),
        (file("", "").replace("0.5.0", "2.0.0"), "unsupported CDI version \"2.0.0\""),
        (file("", "").replace("a.b/c", "abc"), "invalid kind \"abc\""),
        (r#"{"cdiVersion":"0.5.0","kind":"a.b/c"}"#.to_owned(), "no devices"),
    ] {
        let error = Document::parse(text.as_bytes()).unwrap_err();
        assert!(error.contains(want), "{error} for {text}");
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    for (edits, want) in [
        (r#""hooks":[{"hookName":"createContainer","path":"/bin/x"}]"#, "a.b/c=d: hooks are not supported"),
        (r#""intelRdt":{"closID":"x"}"#, "a.b/c=d: intelRdt are not supported"),
        (r#""deviceNodes":[{"path":"/dev/no-such"}]"#, "failed to stat CDI host device \"/dev/no-such\""),
        (r#""deviceNodes":[{"path":"/dev/x","hostPath":"/etc/passwd"}]"#, "not a device node"),
        (r#""deviceNodes":[{"path":"/dev/null","type":"b"}]"#, "host type mismatch (b, c)"),
    ] {
        let text = format!(
            r#"{{"cdiVersion":"0.5.0","kind":"a.b/c","devices":[{{"name":"d","containerEdits":{{{edits}}}}}]}}"#
        );
        let error = injected(&[("low/a.json", &text)], &["a.b/c=d"], "").unwrap_err();
        assert!(error.starts_with("CDI device injection failed: ") && error.contains(want), "{error}");
    }
}
