use std::fs;
use std::os::unix::fs::MetadataExt;

use rubelet_api::pod::{self as manifests, Origin};

use super::*;

fn key(name: &str) -> PodKey {
    PodKey::new("default", name)
}

#[test]
fn what_is_saved_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::load(dir.path());
    ledger.replace(Source::File, [(key("a"), "d1", &"u1".into())], |_| false);
    ledger.replace(Source::Http, [(key("a"), "d2", &"u2".into())], |_| false);
    ledger.save().unwrap();
    let path = dir.path().join("rubelet/ledger.json");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);

    let mut ledger = Ledger::load(dir.path());
    assert_eq!(ledger.find(Source::File, &key("a")), Some(&Known { uid: "u1".into(), digest: "d1".into() }));
    assert_eq!(ledger.find(Source::File, &key("b")), None);
    let inode = fs::metadata(&path).unwrap().ino();
    ledger.replace(Source::File, [(key("a"), "d1", &"u1".into())], |_| false);
    ledger.save().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "nothing changed, nothing is written");
    ledger.replace(Source::File, [], |uid| uid.as_str() == "u1");
    assert!(ledger.find(Source::File, &key("a")).is_some(), "it is not gone yet");
    ledger.remove(&"u1".into());
    ledger.save().unwrap();
    let ledger = Ledger::load(dir.path());
    assert_eq!(ledger.find(Source::File, &key("a")), None);
    assert!(ledger.find(Source::Http, &key("a")).is_some(), "the other source's rows stay");
}

#[test]
fn a_ledger_that_cannot_be_used_is_moved_aside() {
    for content in [
        "{",
        "[]",
        r#"{"version":2,"pods":[]}"#,
        r#"{"version":1,"pods":[{"source":"api","namespace":"","name":"","uid":"","digest":""}]}"#,
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rubelet")).unwrap();
        fs::write(dir.path().join("rubelet/ledger.json"), content).unwrap();
        let mut ledger = Ledger::load(dir.path());
        let names: Vec<String> = fs::read_dir(dir.path().join("rubelet"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(names.len() == 1 && names[0].starts_with("ledger.json.bad-"), "{content:?}: {names:?}");
        ledger.replace(Source::File, [(key("a"), "d", &"u".into())], |_| false);
        ledger.save().unwrap();
        assert!(Ledger::load(dir.path()).find(Source::File, &key("a")).is_some());
    }
}

#[test]
fn a_ledger_that_cannot_be_written_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rubelet"), "in the way").unwrap();
    let mut ledger = Ledger::load(dir.path());
    ledger.replace(Source::File, [(key("a"), "d", &"u".into())], |_| false);
    assert!(ledger.save().is_err());
    fs::remove_file(dir.path().join("rubelet")).unwrap();
    ledger.save().unwrap();
    assert!(Ledger::load(dir.path()).find(Source::File, &key("a")).is_some());
}

#[test]
fn a_ledger_that_the_disk_never_got_is_like_none() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("rubelet")).unwrap();
    let path = dir.path().join("rubelet/ledger.json");
    fs::write(&path, "").unwrap();
    assert_eq!(Ledger::load(dir.path()).find(Source::File, &key("a")), None);
    assert!(path.exists(), "nothing to complain of");
}

/// `kept/v1.json` was written by 1.36.3+rubelet.0 for the manifest of `tests/golden/pods/01-seed`: what it says must hold for all later versions,
/// or their first start restarts every static pod.
#[test]
fn the_ledger_of_an_older_version_is_still_read_and_its_pods_are_known_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("rubelet")).unwrap();
    fs::write(dir.path().join("rubelet/ledger.json"), include_str!("kept/v1.json")).unwrap();
    let ledger = Ledger::load(dir.path());
    let known = ledger.find(Source::File, &key("nginx-node-a")).expect("it is read");
    let manifest = include_bytes!("../../../../tests/golden/pods/01-seed/manifest.yaml");
    let origin = Origin {
        source: manifests::Source::File,
        path_or_url: "/etc/kubernetes/manifests/01-seed.yaml".to_owned(),
        node_name: "node-a".to_owned(),
    };
    let pod =
        manifests::static_pod(manifest, &origin, jiff::Timestamp::UNIX_EPOCH, manifests::Gates::default()).unwrap();
    assert_eq!(known.digest, pod.digest.to_string(), "an unchanged manifest is unchanged");
    assert_eq!(Some(known.uid.as_str()), pod.pod.metadata.uid.as_deref());
    let etcd = PodKey::new("kube-system", "etcd-node-a");
    assert_eq!(ledger.find(Source::Http, &etcd).map(|k| k.uid.as_str()), Some("e6c9f6bd-5f2e-4a3b-9a4e-5f3b2f1c0d9e"));
}
