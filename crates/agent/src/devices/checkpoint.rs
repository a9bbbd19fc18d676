//! The file in which allocations outlive the agent, in upstream's format: whichever kubelet starts next reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use rubelet_api::gather::Gather;
use rubelet_api::ids::PodUid;
use rubelet_core::render::hash::fnv_1a_32;
use rubelet_core::resources::devices::{Devices, Grant, Holdings};
use rubelet_proto::deviceplugin::ContainerAllocateResponse;
use serde::{Deserialize, Serialize};

/// kubelet 1.36: the node of a device that is near none.
const NO_NODE: i64 = -1;

/// Names are upstream's.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Content,
    checksum: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    pod_device_entries: Option<Vec<Entry>>,
    registered_devices: Option<BTreeMap<String, Option<Vec<String>>>>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    #[serde(rename = "DeviceIDs")]
    devices: Option<BTreeMap<i64, Option<Vec<String>>>>,
    /// In base64.
    #[serde(rename = "AllocResp")]
    given: Option<String>,
}

/// What is written down.
pub(super) fn text(devices: &Devices) -> Result<String, serde_json::Error> {
    let mut entries = Vec::new();
    for (pod, containers) in devices.held() {
        for (container, grants) in containers {
            for (resource, grant) in grants {
                entries.push(entry(pod, container, resource, grant));
            }
        }
    }
    let registered = devices.registered().map(|(name, ids)| (name.clone(), Some(ids.iter().cloned().collect())));
    let data = Content {
        pod_device_entries: (!entries.is_empty()).then_some(entries),
        registered_devices: Some(registered.into_map()),
    };
    let checksum = data.checksum().unwrap_or_default();
    serde_json::to_string(&File { data, checksum })
}

fn entry(pod: &PodUid, container: &str, resource: &str, grant: &Grant) -> Entry {
    let mut devices: BTreeMap<i64, Option<Vec<String>>> = BTreeMap::new();
    for (id, nodes) in &grant.devices {
        let nodes = if nodes.is_empty() { &[NO_NODE][..] } else { nodes };
        for node in nodes {
            devices.entry(*node).or_default().get_or_insert_default().push(id.clone());
        }
    }
    Entry {
        pod: pod.to_string(),
        container: container.to_owned(),
        resource: resource.to_owned(),
        devices: Some(devices),
        given: Some(STANDARD.encode(grant.given.encode_to_vec())),
    }
}

/// What was written down: who has which devices, and which resources there were.
///
/// # Errors
/// It cannot be read, or is not what was written.
pub(super) fn parse(text: &str) -> Result<(Holdings, Vec<String>), String> {
    let file: File = serde_json::from_slice(text.as_bytes()).map_err(|e| e.to_string())?;
    let checksum = file.data.checksum()?;
    if checksum != file.checksum {
        return Err(format!("checkpoint is corrupted: its checksum is {}, its data's {checksum}", file.checksum));
    }
    let mut held = Holdings::new();
    for entry in file.data.pod_device_entries.into_iter().flatten() {
        let given = entry.given()?;
        let given = ContainerAllocateResponse::decode(&*given).map_err(|e| e.to_string())?;
        let mut devices: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (node, ids) in entry.devices.into_iter().flatten() {
            for id in ids.into_iter().flatten() {
                let nodes = devices.entry(id).or_default();
                nodes.extend((node != NO_NODE).then_some(node));
            }
        }
        let pod = held.entry(PodUid::new(&entry.pod)).or_default();
        pod.entry(entry.container).or_default().insert(entry.resource, Grant { devices, given });
    }
    Ok((held, file.data.registered_devices.into_iter().flatten().map(|(name, _)| name).collect()))
}

impl Entry {
    fn given(&self) -> Result<Vec<u8>, String> {
        STANDARD.decode(self.given.as_deref().unwrap_or_default()).map_err(|e| e.to_string())
    }
}

impl Content {
    /// kubelet 1.36: FNV-1a over the data as Go's `spew` prints it with types.
    fn checksum(&self) -> Result<u64, String> {
        let mut out = String::from("(checkpoint.checkpointData){PodDeviceEntries:([]checkpoint.PodDevicesEntry)");
        match &self.pod_device_entries {
            None => out.push_str("<nil>"),
            Some(entries) => {
                let entries: Result<Vec<String>, String> = entries.iter().map(Entry::shown).collect();
                let _ = write!(out, "[{}]", entries?.join(" "));
            }
        }
        out.push_str(" RegisteredDevices:(map[string][]string)");
        match &self.registered_devices {
            None => out.push_str("<nil>"),
            Some(all) => out.push_str(&map(all)),
        }
        out.push('}');
        Ok(u64::from(fnv_1a_32(out.as_bytes())))
    }
}

impl Entry {
    fn shown(&self) -> Result<String, String> {
        let Self { pod, container, resource, devices, given } = self;
        let bytes = match given {
            None => "<nil>".to_owned(),
            Some(_) => {
                let bytes: Vec<String> = self.given()?.iter().map(u8::to_string).collect();
                format!("[{}]", bytes.join(" "))
            }
        };
        // Go's library sorts keys as numbers: as ours are.
        let devices = devices.as_ref().map_or_else(|| "<nil>".to_owned(), map);
        Ok(format!(
            "{{PodUID:(string){pod} ContainerName:(string){container} ResourceName:(string){resource} \
             DeviceIDs:(checkpoint.DevicesPerNUMA){devices} AllocResp:([]uint8){bytes}}}"
        ))
    }
}

fn map<K: ToString>(all: &BTreeMap<K, Option<Vec<String>>>) -> String {
    let one = |(key, ids): (&K, &Option<Vec<String>>)| match ids {
        None => format!("{}:<nil>", key.to_string()),
        Some(ids) => format!("{}:[{}]", key.to_string(), ids.join(" ")),
    };
    let all: Vec<String> = all.iter().map(one).collect();
    format!("map[{}]", all.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rubelet_core::now::Mono;
    use rubelet_proto::deviceplugin::{Device, Mount};

    /// Replicas, in the format of upstream's code.
    const EMPTY: &str = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":3467439661}"#;
    const FULL: &str = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"uid-1","ContainerName":"c1","ResourceName":"example.com/dongle","DeviceIDs":{"-1":["b","a"],"1":["z"]},"AllocResp":""},{"PodUID":"uid-2","ContainerName":"c1","ResourceName":"example.com/dongle","DeviceIDs":{"0":["d"]},"AllocResp":""}],"RegisteredDevices":{"a.b/c":[],"a.b/d":null,"example.com/dongle":["a","b"]}},"Checksum":282879219}"#;

    #[test]
    fn upstreams_files_are_read() {
        assert_eq!(parse(EMPTY), Ok((Holdings::new(), Vec::new())));
        let (held, registered) = parse(FULL).unwrap();
        assert_eq!(registered, ["a.b/c", "a.b/d", "example.com/dongle"]);
        let grant = &held[&PodUid::new("uid-1")]["c1"]["example.com/dongle"];
        let devices: Vec<_> = grant.devices.iter().map(|(id, nodes)| (id.as_str(), nodes.as_slice())).collect();
        assert_eq!(devices, [("a", [].as_slice()), ("b", &[]), ("z", &[1])]);
        assert!(parse(&FULL.replace("\"z\"", "\"y\"")).unwrap_err().starts_with("checkpoint is corrupted"));
        assert!(parse("{}").is_err());
    }

    #[test]
    fn an_empty_file_is_as_upstream_writes_it() {
        assert_eq!(text(&Devices::default()).unwrap(), EMPTY);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut devices = Devices::default();
        devices.connect("example.com/dongle");
        let device = Device { id: "a".into(), health: "Healthy".into(), topology: None };
        devices.list("example.com/dongle", vec![device]);
        let mounts = vec![Mount { container_path: "/in".into(), host_path: "/out".into(), read_only: false }];
        let given = ContainerAllocateResponse { mounts, ..ContainerAllocateResponse::default() };
        devices.grant(&PodUid::new("p"), "c", "example.com/dongle", &["a".to_owned()].into(), given);
        let (held, registered) = parse(&text(&devices).unwrap()).unwrap();
        assert_eq!(&held, devices.held());
        let later = Devices::restored(held, registered, Mono::default());
        assert_eq!(later.held(), devices.held());
    }
}
