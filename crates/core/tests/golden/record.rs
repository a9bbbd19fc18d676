//! The recordings as files, and what of them may differ from run to run.

use std::net::IpAddr;
use std::path::PathBuf;

use rubelet_api::v1::Pod;
use serde_json::{Value, json};

use super::node::{HOST_IP, Machine, POD_IP};

/// One recorded pod.
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) pod: Pod,
    dir: PathBuf,
}

impl Record {
    /// All recordings of one machine, sorted by name.
    pub(crate) fn all(machine: Machine) -> Vec<Self> {
        let top = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(machine.folder());
        let mut names: Vec<String> = std::fs::read_dir(&top)
            .unwrap_or_else(|e| panic!("the recordings in {} cannot be listed: {e}", top.display()))
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
            .filter(|name| top.join(name).join("pod.json").is_file())
            .collect();
        names.sort();
        assert!(names.len() >= 20, "only {} recordings in {}", names.len(), top.display());
        names.into_iter().map(|name| Self::load(top.join(&name), name)).collect()
    }

    fn load(dir: PathBuf, name: String) -> Self {
        let text = std::fs::read_to_string(dir.join("pod.json")).expect("pod.json can be read");
        // Only what the source gave: the status came later, and its times are placeholders.
        let shown: Value = serde_json::from_str(&text).expect("pod.json is JSON");
        let given = json!({ "metadata": shown["metadata"], "spec": shown["spec"] });
        let mut pod: Pod = serde_json::from_value(given).unwrap_or_else(|e| panic!("{name}/pod.json: {e}"));
        // An empty overhead is in the manifest and in the calls, but empty maps do not show in the JSON of /pods.
        let manifest = std::fs::read_to_string(dir.join("manifest.yaml")).expect("manifest.yaml can be read");
        if manifest.contains("\n  overhead: {}\n") {
            pod.spec.as_mut().expect("a spec").overhead = Some(Default::default());
        }
        Self { name, pod, dir }
    }

    /// A file of the recording; empty when it does not exist.
    pub(crate) fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }

    /// The requests of one method.
    pub(crate) fn requests(&self, method: &str) -> Vec<Value> {
        let calls = self.read("calls.jsonl");
        let calls = calls.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        calls.filter(|call| call["method"] == method).map(|mut call| call["request"].take()).collect()
    }

    /// What the runtime gave the pod.
    pub(crate) fn pod_ips(&self) -> Vec<IpAddr> {
        let of_host = self.pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
        if of_host { Vec::new() } else { vec![POD_IP.parse().expect("an address")] }
    }

    /// (file, value) of the pod's own cgroup.
    pub(crate) fn cgroup_values(&self, path: &str) -> Vec<(String, String)> {
        let of_pod = |line: &str| {
            let (group, value) = line.split_once(' ')?;
            let (file, value) = value.split_once('=')?;
            group.ends_with(path.trim_start_matches('/')).then(|| (file.to_owned(), value.to_owned()))
        };
        self.read("cgroups.txt").lines().filter_map(of_pod).collect()
    }

    /// (link, target) of `/var/log/containers`.
    pub(crate) fn log_links(&self) -> Vec<(String, String)> {
        let tree = self.read("tree.txt");
        let links = tree.lines().filter(|line| line.starts_with("/var/log/containers/"));
        links
            .filter_map(|line| line.split_once(" -> "))
            .map(|(link, target)| (link.to_owned(), target.to_owned()))
            .collect()
    }
}

/// Without what a run makes up: order of variables, addresses, the name of the termination log.
pub(crate) fn comparable(mut request: Value) -> Value {
    if let Some(envs) = request["config"].get_mut("envs").and_then(Value::as_array_mut) {
        envs.sort_by_key(|e| e["key"].as_str().map(str::to_owned));
    }
    if let Some(mounts) = request["config"].get_mut("mounts").and_then(Value::as_array_mut) {
        for mount in mounts {
            let path = mount["host_path"].as_str().unwrap_or_default();
            if let Some((dir, _)) = path.rsplit_once('/').filter(|(dir, _)| dir.contains("/containers/")) {
                mount["host_path"] = format!("{dir}/<random>").into();
            }
        }
    }
    let text = request.to_string().replace(POD_IP, "<podIP>").replace(HOST_IP, "<hostIP>");
    sorted(serde_json::from_str(&text).expect("it was JSON before"))
}

/// The same with the keys in order, so that texts can be compared.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}
