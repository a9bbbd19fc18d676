//! The text in which all this outlives the agent: the file `cpu_manager_state`, in upstream's format.

use std::fmt::Write as _;

use rubelet_api::ids::PodUid;
use serde_json::{Map, Value};

use super::{Assignments, CpuSet};
use crate::render::hash::fnv_1a_32;

#[cfg(test)]
pub(super) mod tests;

/// The file's name in the agent's directory.
pub const FILE: &str = "cpu_manager_state";

/// What is written down.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// What all those share who have no CPUs of their own.
    pub shared: CpuSet,
    pub held: Assignments,
}

/// Which container has an id of the runtime's: pod and name.
pub type WhoIs<'a> = &'a dyn Fn(&str) -> Option<(PodUid, String)>;

/// What cannot be read. kubelet 1.36: the words; the program ends with them.
#[must_use]
pub fn could_not_restore(why: &str, path: &str) -> String {
    format!(
        "could not restore state from checkpoint: {why}, please drain this node and delete the CPU manager checkpoint file {path:?} \
         before restarting Kubelet"
    )
}

impl State {
    /// The file's text. kubelet 1.36: the second format, while the gate `PodLevelResourceManagers` is off.
    #[must_use]
    pub fn text(&self, policy: &str) -> String {
        let shared = self.shared.to_string();
        let listed = |of: &std::collections::BTreeMap<String, CpuSet>| {
            of.iter().map(|(name, cpus)| (name.clone(), Value::String(cpus.to_string()))).collect::<Map<_, _>>()
        };
        let entries: Map<String, Value> =
            self.held.iter().map(|(pod, of)| (pod.to_string(), Value::Object(listed(of)))).collect();
        let checksum = checksum(policy, &shared, &entries, Format::Second);
        let mut text =
            format!(r#"{{"policyName":{},"defaultCpuSet":{}"#, Value::String(policy.to_owned()), Value::String(shared));
        if !entries.is_empty() {
            let _ = write!(text, r#","entries":{}"#, Value::Object(entries));
        }
        let _ = write!(text, r#","checksum":{checksum}}}"#);
        text
    }

    /// From the file's text. kubelet 1.36: also the first format, in which CPUs are by the container's id.
    ///
    /// # Errors
    /// It cannot be read, is not what was written, or is another policy's; in upstream's words.
    pub fn parse(text: &str, policy: &str, who_is: WhoIs<'_>) -> Result<Self, String> {
        let mut file: Map<String, Value> = serde_json::from_str(text).map_err(|why| why.to_string())?;
        file.values_mut().for_each(Value::sort_all_objects);
        // Go does not mind how keys are written.
        let value = |key: &str| file.iter().find(|(other, _)| other.eq_ignore_ascii_case(key)).map(|(_, value)| value);
        let word = |key: &str| match value(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(format!("{key} is no text")),
        };
        let (written_by, shared) = (word("policyName")?, word("defaultCpuSet")?);
        let entries = match value("entries") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(entries)) => entries.clone(),
            Some(_) => return Err("entries is no map".to_owned()),
        };
        let format = if entries.values().any(Value::is_string) { Format::First } else { Format::Second };
        // kubelet 1.36: the first releases wrote none.
        let expected = value("checksum").map_or(Some(0), Value::as_u64);
        let is_of = |format| expected == Some(u64::from(checksum(&written_by, &shared, &entries, format)));
        if expected != Some(0) && !is_of(format) && !(entries.is_empty() && is_of(Format::First)) {
            return Err("checkpoint is corrupted".to_owned());
        }
        let entries = match format {
            Format::First => by_container(entries, who_is)?,
            Format::Second => entries,
        };
        if written_by != policy {
            return Err(format!("configured policy {policy:?} differs from state checkpoint policy {written_by:?}"));
        }
        let shared =
            CpuSet::parse(&shared).map_err(|why| format!("could not parse default cpu set {shared:?}: {why}"))?;
        Ok(Self { shared, held: held(&entries)? })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    /// CPUs by the container's id.
    First,
    /// By pod and the container's name.
    Second,
}

fn by_container(entries: Map<String, Value>, who_is: WhoIs<'_>) -> Result<Map<String, Value>, String> {
    let mut all = Map::new();
    for (id, cpus) in entries {
        let Some((pod, name)) = who_is(&id) else {
            return Err(format!(
                "failed to migrate checkpoint from v1 to v2: containerID '{id}' not found in initial containers list"
            ));
        };
        if let Value::Object(of_pod) = all.entry(pod.as_str()).or_insert_with(|| Value::Object(Map::new())) {
            of_pod.insert(name, cpus);
        }
    }
    Ok(all)
}

fn held(entries: &Map<String, Value>) -> Result<Assignments, String> {
    let mut held = Assignments::new();
    for (pod, of_pod) in entries {
        let all = held.entry(PodUid::new(pod)).or_default();
        for (container, cpus) in of_pod.as_object().into_iter().flatten() {
            let text = cpus.as_str().ok_or_else(|| format!("cpus of container {container:?} are no text"))?;
            let cpus = CpuSet::parse(text).map_err(|why| {
                format!("could not parse cpuset {text:?} for container {container:?} in pod {pod:?}: {why}")
            })?;
            all.insert(container.clone(), cpus);
        }
    }
    Ok(held)
}

/// kubelet 1.36: FNV-1a over the data as Go's `spew` prints it with types; both formats under one name.
fn checksum(policy: &str, shared: &str, entries: &Map<String, Value>, format: Format) -> u32 {
    let kind = match format {
        Format::First => "map[string]string",
        Format::Second => "map[string]map[string]string",
    };
    let mut out = format!(
        "(*state.CPUManagerCheckpoint){{PolicyName:(string){policy} DefaultCPUSet:(string){shared} Entries:({kind})"
    );
    shown(entries, &mut out);
    out.push_str(" Checksum:(checksum.Checksum)0}");
    fnv_1a_32(out.as_bytes())
}

fn shown(map: &Map<String, Value>, out: &mut String) {
    out.push_str("map[");
    // Keys come in their order, as Go's library sorts them.
    for (at, (key, value)) in map.iter().enumerate() {
        let separator = if at > 0 { " " } else { "" };
        let _ = write!(out, "{separator}{key}:");
        match value {
            Value::Object(map) => shown(map, out),
            Value::String(text) => out.push_str(text),
            Value::Null => out.push_str("map[]"),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) => {}
        }
    }
    out.push(']');
}
