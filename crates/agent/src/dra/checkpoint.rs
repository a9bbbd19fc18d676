//! The file in which claims outlive the agent, in upstream's format: whichever kubelet starts next reads it.

use std::collections::BTreeMap;

use flate2::Crc;
use rubelet_api::gather::Gather;
use rubelet_api::ids::PodUid;
use rubelet_core::pod::needs::ObjectName;
use rubelet_core::resources::claims::{Claims, Device, Held};
use serde::{Deserialize, Serialize};

const KIND: &str = "DRACheckpoint";
const VERSION: &str = "checkpoint.dra.kubelet.k8s.io/v1";

/// Names are upstream's; the data is JSON in a text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: String,
    checksum: u32,
}

#[derive(Serialize, Deserialize)]
struct Content {
    kind: String,
    #[serde(rename = "apiVersion")]
    version: String,
    #[serde(rename = "ClaimInfoStateList")]
    claims: Option<Vec<Claim>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Claim {
    #[serde(rename = "ClaimUID")]
    uid: String,
    claim_name: String,
    namespace: String,
    #[serde(rename = "PodUIDs")]
    pods: Option<BTreeMap<String, Nothing>>,
    driver_state: Option<BTreeMap<String, Driver>>,
}

/// What Go writes for a member of a set.
#[derive(Serialize, Deserialize)]
struct Nothing {}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Driver {
    devices: Option<Vec<Given>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    pool_name: String,
    device_name: String,
    #[serde(rename = "ShareID")]
    share: Option<String>,
    request_names: Option<Vec<String>>,
    #[serde(rename = "CDIDeviceIDs")]
    cdi: Option<Vec<String>>,
}

fn checksum(data: &str) -> u32 {
    let mut crc = Crc::new();
    crc.update(data.as_bytes());
    crc.sum()
}

/// What is written down.
pub(super) fn text(claims: &Claims) -> Result<String, serde_json::Error> {
    let claims = claims.held().map(|(name, held)| claim(name, held)).collect();
    let content = Content { kind: KIND.to_owned(), version: VERSION.to_owned(), claims: Some(claims) };
    let data = serde_json::to_string(&content)?;
    serde_json::to_string(&File { checksum: checksum(&data), data })
}

/// An empty list is written as Go writes one that nobody made.
fn listed<T>(all: Vec<T>) -> Option<Vec<T>> {
    (!all.is_empty()).then_some(all)
}

fn claim(name: &ObjectName, held: &Held) -> Claim {
    let given = |device: &Device| Given {
        pool_name: device.pool.clone(),
        device_name: device.name.clone(),
        share: device.share.clone(),
        request_names: listed(device.requests.clone()),
        cdi: listed(device.cdi.clone()),
    };
    let driver = |devices: &Vec<Device>| Driver { devices: listed(devices.iter().map(given).collect()) };
    Claim {
        uid: held.uid.clone(),
        claim_name: name.name.clone(),
        namespace: name.namespace.clone(),
        pods: Some(held.pods.iter().map(|pod| (pod.to_string(), Nothing {})).into_map()),
        driver_state: Some(held.drivers.iter().map(|(name, devices)| (name.clone(), driver(devices))).into_map()),
    }
}

/// What was written down.
///
/// # Errors
/// It cannot be read, or is not what was written.
pub(super) fn parse(text: &str) -> Result<Claims, String> {
    let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let sum = checksum(&file.data);
    if sum != file.checksum {
        return Err(format!("checkpoint is corrupted: its checksum is {}, its data's {sum}", file.checksum));
    }
    let content: Content = serde_json::from_str(&file.data).map_err(|e| e.to_string())?;
    Ok(Claims::restored(content.claims.into_iter().flatten().map(held)))
}

fn held(claim: Claim) -> (ObjectName, Held) {
    let device = |given: Given| Device {
        pool: given.pool_name,
        name: given.device_name,
        share: given.share,
        requests: given.request_names.unwrap_or_default(),
        cdi: given.cdi.unwrap_or_default(),
    };
    let devices = |driver: Driver| driver.devices.into_iter().flatten().map(device).collect();
    let drivers = claim.driver_state.into_iter().flatten().map(|(name, driver)| (name, devices(driver)));
    let held = Held {
        uid: claim.uid,
        pods: claim.pods.into_iter().flatten().map(|(pod, _)| PodUid::new(pod)).collect(),
        drivers: drivers.into_map(),
        is_prepared: false,
    };
    (ObjectName { namespace: claim.namespace, name: claim.claim_name }, held)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As upstream's tests have them, written by its code.
    const ONE: &str = r#"{"Data":"{\"kind\":\"DRACheckpoint\",\"apiVersion\":\"checkpoint.dra.kubelet.k8s.io/v1\",\"ClaimInfoStateList\":[{\"ClaimUID\":\"067798be-454e-4be4-9047-1aa06aea63f7\",\"ClaimName\":\"example\",\"Namespace\":\"default\",\"PodUIDs\":{\"139cdb46-f989-4f17-9561-ca10cfb509a6\":{}},\"DriverState\":{\"test-driver.cdi.k8s.io\":{\"Devices\":[{\"PoolName\":\"worker-1\",\"DeviceName\":\"dev-1\",\"ShareID\":\"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa\",\"RequestNames\":[\"test request\"],\"CDIDeviceIDs\":[\"example.com/example=cdi-example\"]}]}}}]}","Checksum":736302156}"#;
    const TWO: &str = r#"{"Data":"{\"kind\":\"DRACheckpoint\",\"apiVersion\":\"checkpoint.dra.kubelet.k8s.io/v1\",\"ClaimInfoStateList\":[{\"ClaimUID\":\"067798be-454e-4be4-9047-1aa06aea63f7\",\"ClaimName\":\"example-1\",\"Namespace\":\"default\",\"PodUIDs\":{\"139cdb46-f989-4f17-9561-ca10cfb509a6\":{}},\"DriverState\":{\"test-driver.cdi.k8s.io\":{\"Devices\":[{\"PoolName\":\"worker-1\",\"DeviceName\":\"dev-1\",\"ShareID\":null,\"RequestNames\":[\"test request\"],\"CDIDeviceIDs\":[\"example.com/example=cdi-example\"]}]}}},{\"ClaimUID\":\"4cf8db2d-06c0-7d70-1a51-e59b25b2c16c\",\"ClaimName\":\"example-2\",\"Namespace\":\"default\",\"PodUIDs\":{\"139cdb46-f989-4f17-9561-ca10cfb509a6\":{}},\"DriverState\":{\"test-driver.cdi.k8s.io\":{\"Devices\":[{\"PoolName\":\"worker-1\",\"DeviceName\":\"dev-2\",\"ShareID\":null,\"RequestNames\":null,\"CDIDeviceIDs\":null}]}}}]}","Checksum":2820117767}"#;
    const OLDER: &str = r#"{"Data":"{\"kind\":\"DRACheckpoint\",\"apiVersion\":\"checkpoint.dra.kubelet.k8s.io/v1\",\"ClaimInfoStateList\":[{\"ClaimUID\":\"067798be-454e-4be4-9047-1aa06aea63f7\",\"ClaimName\":\"example\",\"Namespace\":\"default\",\"PodUIDs\":{\"139cdb46-f989-4f17-9561-ca10cfb509a6\":{}},\"DriverState\":{\"test-driver.cdi.k8s.io\":{\"Devices\":[{\"PoolName\":\"worker-1\",\"DeviceName\":\"dev-1\",\"CDIDeviceIDs\":[\"example.com/example=cdi-example\"]}]}}}]}","Checksum":1137250765}"#;

    #[test]
    fn upstreams_files_are_read_and_written_as_they_were() {
        for file in [ONE, TWO] {
            let claims = parse(file).unwrap();
            assert_eq!(text(&claims).unwrap(), file);
        }
        let claims = parse(TWO).unwrap();
        let all: Vec<_> = claims.held().map(|(name, held)| (name.name.as_str(), held.is_prepared)).collect();
        assert_eq!(all, [("example-1", false), ("example-2", false)]);
        assert_eq!(parse(OLDER).unwrap().held().count(), 1);
    }

    #[test]
    fn what_is_not_what_was_written_is_not_believed() {
        let none = r#"{"Data":"{\"kind\":\"DRACheckpoint\",\"apiVersion\":\"checkpoint.dra.kubelet.k8s.io/v1\",\"ClaimInfoStateList\":null}","Checksum":0}"#;
        assert!(parse(none).unwrap_err().starts_with("checkpoint is corrupted"));
        assert!(parse(&ONE.replace("dev-1", "dev-2")).unwrap_err().starts_with("checkpoint is corrupted"));
        assert!(parse("{").is_err());
    }
}
