//! Manifests in, pods or messages out: recordings of upstream's kubelet, and a corpus of mistakes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use rubelet_api::pod::{Gates, MANIFEST_BYTES, Origin, Source, static_pod, static_pods};
use serde_json::Value;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

fn now() -> jiff::Timestamp {
    "2026-01-31T12:00:00.123456789Z".parse().unwrap()
}

fn file(path: &str) -> Origin {
    Origin { source: Source::File, path_or_url: path.to_owned(), node_name: "node-a".to_owned() }
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// Metadata and spec, without what changes from run to run.
fn comparable(mut pod: Value) -> Value {
    let annotations = pod["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.insert("kubernetes.io/config.hash".to_owned(), "HASH".into());
    annotations.insert("kubernetes.io/config.seen".to_owned(), "SEEN".into());
    pod["metadata"]["uid"] = "UID".into();
    serde_json::json!({"metadata": pod["metadata"], "spec": pod["spec"]})
}

#[test]
fn recorded_manifests_become_the_recorded_pods() {
    let mut count = 0;
    for set in ["pods", "pods-v2"] {
        for folder in folders(&tests().join("golden").join(set)) {
            let manifest = std::fs::read(folder.join("manifest.yaml")).unwrap();
            let recorded: Value = serde_json::from_slice(&std::fs::read(folder.join("pod.json")).unwrap()).unwrap();
            let read = static_pod(&manifest, &file("/etc/kubernetes/manifests/pod.yaml"), now(), Gates::default());
            let pod = read.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            assert_eq!(pod.warnings, Vec::<String>::new(), "{}", folder.display());
            let mut pod = pod.pod;
            // That it is there and empty counts for the runtime; the API shows no empty maps.
            pod.spec.as_mut().unwrap().overhead.take_if(|overhead| overhead.is_empty());
            let ours = comparable(serde_json::to_value(&pod).unwrap());
            let theirs = comparable(recorded);
            assert_eq!(
                serde_json::to_string_pretty(&sorted(&ours)).unwrap(),
                serde_json::to_string_pretty(&sorted(&theirs)).unwrap(),
                "{}",
                folder.display()
            );
            count += 1;
        }
    }
    assert_eq!(count, 41);
}

fn sorted(value: &Value) -> Value {
    serde_json::from_str(&rubelet_api::pod::canonical_json(value)).unwrap()
}

/// What is said about one manifest of the corpus: the messages, or that it is accepted with these warnings.
fn said(path: &Path, bytes: &[u8]) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    match static_pod(bytes, &file(name), now(), Gates::default()) {
        Ok(pod) => {
            let lines = pod.warnings.iter().map(|line| format!("warning: {line}\n"));
            format!("accepted\n{}", lines.collect::<String>())
        }
        Err(error) => error.lines().map(|line| line + "\n").collect(),
    }
}

#[test]
fn mistakes_are_called_by_their_names() {
    let bless = std::env::var_os("BLESS").is_some();
    let (mut count, mut wrong) = (0, Vec::new());
    for set in ["bad", "odd"] {
        for path in folders(&tests().join("manifests").join(set)) {
            if path.extension().is_none_or(|kind| kind != "yaml") {
                continue;
            }
            count += 1;
            let said = said(&path, &std::fs::read(&path).unwrap());
            assert_eq!(said.starts_with("accepted"), set == "odd", "{}: {said}", path.display());
            let expected = path.with_extension("expected");
            if bless {
                std::fs::write(&expected, &said).unwrap();
            } else if std::fs::read_to_string(&expected).unwrap_or_default() != said {
                wrong.push(format!("{}:\n{said}", path.display()));
            }
        }
    }
    assert!(count >= 200, "the corpus has only {count} manifests");
    assert!(
        wrong.is_empty(),
        "other words than expected; look and set BLESS=1 if they are better:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn ten_megabytes_are_the_most() {
    let head = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}]}\n#";
    let most = format!("{head}{}", "x".repeat(MANIFEST_BYTES - head.len()));
    assert!(static_pod(most.as_bytes(), &file("f"), now(), Gates::default()).is_ok());
    let error = static_pod(format!("{most}x").as_bytes(), &file("f"), now(), Gates::default()).unwrap_err();
    assert_eq!(error.to_string(), "f: too large: 10485761 bytes, a manifest may have 10485760 (10 MiB)");
}

#[test]
fn a_url_may_give_a_list_whose_items_stand_for_themselves() {
    let url = Origin { source: Source::Http, path_or_url: "http://h/p".to_owned(), node_name: "node-a".to_owned() };
    let list = "{apiVersion: v1, kind: PodList, items: [\n\
        {metadata: {name: a}, spec: {containers: [{name: a, image: b}]}},\n\
        {metadata: {name: b}, spec: {containers: [{name: B, image: 5}]}},\n\
        {metadata: {name: c}, spec: {restartPolicy: x, containers: [{name: c, image: d}]}}]}";
    let pods = static_pods(list.as_bytes(), &url, now(), Gates::default()).unwrap();
    let pod = &pods[0].as_ref().unwrap().pod;
    assert_eq!(pod.metadata.name.as_deref(), Some("a-node-a"));
    assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some("node-a"));
    assert_eq!(pod.spec.as_ref().unwrap().tolerations, None, "only pods from files tolerate everything");
    let source = &pod.metadata.annotations.as_ref().unwrap()["kubernetes.io/config.source"];
    assert_eq!(source, "http");
    assert_eq!(
        pods[1].as_ref().unwrap_err().to_string(),
        "http://h/p:3:60: items[1].spec.containers[0].image: expected a string, found the integer 5 \
         (put it in quotes to make it a string)"
    );
    let third = pods[2].as_ref().unwrap_err().to_string();
    assert!(third.starts_with("http://h/p:4:30: items[2].spec.restartPolicy: Unsupported value: \"x\""), "{third}");
    let single = static_pods(b"{kind: Pod, apiVersion: v1, metadata: {name: a}}", &url, now(), Gates::default());
    assert!(single.unwrap_err().to_string().contains("spec.containers: Required value"));
    assert!(static_pods(b"{kind: PodList, items: null}", &url, now(), Gates::default()).unwrap().is_empty());
}

#[test]
fn utf_16_is_read_as_upstream_does() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}]}\n";
    let little: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    let plain = static_pod(text.as_bytes(), &file("f"), now(), Gates::default()).unwrap();
    for bytes in [little, big] {
        assert_eq!(static_pod(&bytes, &file("f"), now(), Gates::default()).unwrap(), plain);
    }
}

/// These must never change: every static pod of every node would start anew.
#[test]
fn uids_are_what_they_always_were() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, resources: \
        {limits: {cpu: 0.5}}}]}\n";
    let pod = static_pod(text.as_bytes(), &file("/m/a.yaml"), now(), Gates::default()).unwrap();
    assert_eq!(pod.pod.metadata.uid.as_deref(), Some("fcace4d40c3e76a0fd6a4e0bd7497c34"));
    assert_eq!(pod.digest.to_string(), "9d4312b921955ab0412ad91ef224dd95");
    assert_eq!(
        pod.pod.metadata.annotations.as_ref().unwrap()["kubernetes.io/config.hash"],
        "fcace4d40c3e76a0fd6a4e0bd7497c34"
    );
    let seen = &pod.pod.metadata.annotations.as_ref().unwrap()["kubernetes.io/config.seen"];
    assert_eq!(seen, "2026-01-31T12:00:00.123456789Z");
}

#[test]
fn a_uid_follows_meaning_path_and_node() {
    let uid = |text: &str, origin: &Origin| {
        static_pod(text.as_bytes(), origin, now(), Gates::default()).unwrap().pod.metadata.uid.unwrap()
    };
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, resources: \
        {limits: {cpu: 500m}}}]}\n";
    let here = file("/m/a.yaml");
    let same = "# other layout\nkind: Pod\nspec:\n  hostNetwork: false\n  unknown: 1\n  containers:\n  - resources: \
        {limits: {cpu: \"0.5\"}}\n    image: b\n    name: a\nmetadata: {name: a, labels: null}\napiVersion: v1\n\
        status: {phase: Running}\n";
    assert_eq!(uid(text, &here), uid(same, &here));
    assert_ne!(uid(text, &here), uid(&text.replace("image: b", "image: c"), &here));
    assert_ne!(uid(text, &here), uid(text, &file("/m/b.yaml")));
    assert_ne!(uid(text, &here), uid(text, &Origin { node_name: "node-b".to_owned(), ..here.clone() }));
    assert_ne!(uid(text, &here), uid(text, &Origin { source: Source::Http, ..here.clone() }));
    assert_eq!(uid(&text.replace("{name: a}", "{name: a, uid: mine}"), &here), "mine");
}

/// Whatever the bytes, there is a pod or a message, and never a panic. `ROUNDS` makes it longer.
#[test]
fn mangled_manifests_do_no_harm() {
    let rounds: u64 = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3000);
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for set in ["bad", "odd"] {
        let files = folders(&tests().join("manifests").join(set)).into_iter();
        let yaml = files.filter(|path| path.extension().is_some_and(|kind| kind == "yaml"));
        seeds.extend(yaml.map(|path| std::fs::read(path).unwrap()).filter(|bytes| bytes.len() < 4096));
    }
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    const PIECES: [&str; 24] = [
        "- ",
        ": ",
        "[",
        "]",
        "{",
        "}",
        "\n",
        "  ",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "|\n",
        "'",
        "\"",
        "-1",
        "0",
        "1e99",
        "~",
        "99999999999999999999",
        "é",
        "\u{0}",
        "#",
        "---\n",
    ];
    let mut pods = 0;
    for _ in 0..rounds {
        let mut bytes = seeds[next(seeds.len())].clone();
        for _ in 0..=next(4) {
            let at = next(bytes.len());
            match next(4) {
                0 if !bytes.is_empty() => drop(bytes.remove(at)),
                1 => bytes.truncate(at),
                2 => {
                    let other = &seeds[next(seeds.len())];
                    let from = next(other.len());
                    let piece = &other[from..other.len().min(from + next(60))];
                    bytes.splice(at..at, piece.iter().copied());
                }
                _ => drop(bytes.splice(at..at, PIECES[next(PIECES.len())].bytes())),
            }
        }
        match static_pods(&bytes, &file("f"), now(), Gates::default()) {
            Ok(_) => pods += 1,
            Err(error) => assert!(!error.problems.is_empty() && error.to_string().starts_with("f:")),
        }
    }
    assert!(pods > 0, "some survive");
}

/// The largest manifests of the worst sorts are refused within moments, in few words.
#[test]
fn huge_manifests_are_refused_in_few_words() {
    let head = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n";
    let many = |line: &str, count: usize| line.repeat(count);
    for body in [
        format!("  containers:\n{}", many("  - {}\n", 100_000)),
        format!("  volumes:\n{}  containers:\n{}", many("  - {}\n", 60_000), many("  - {}\n", 60_000)),
        format!("  containers:\n{}", many("  - 5\n", 200_000)),
        many("  x: 1\n", 100_000),
        format!("  a: {}", many("[", 3_000_000)),
        many("? ", 1_000_000),
        format!("  a: '{}", many("x", 9_000_000)),
    ] {
        let error = static_pod(format!("{head}{body}").as_bytes(), &file("f"), now(), Gates::default()).unwrap_err();
        assert!(error.problems.len() + error.ignored.len() <= 202, "{}", error.problems.len());
    }
}
