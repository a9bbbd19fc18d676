//! The node's sign of life: what it says and when it is renewed.

use std::time::Duration;

use rubelet_api::groups::coordination_v1::{Lease, LeaseSpec};
use rubelet_api::meta::{MicroTime, ObjectMeta, OwnerReference};

use crate::now::Wall;

/// The namespace of nodes' leases.
const NAMESPACE: &str = "kube-node-lease";

/// kubelet 1.36: how often a renewal is tried before it is left to the next.
pub const TRIES: u32 = 5;

/// The lease as it is to be written, `known` being what the API server has; `owner` is the Node's UID.
#[must_use]
pub fn renewed(known: Option<&Lease>, node: &str, owner: &str, duration_secs: i32, now: Wall) -> Lease {
    let mut lease = known.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(duration_secs),
            ..LeaseSpec::default()
        }),
    });
    let spec = lease.spec.get_or_insert_default();
    spec.renew_time = Some(MicroTime(Wall::from_microsecond(now.as_microsecond()).unwrap_or(now)));
    // kubelet 1.36 leaves these as they were made; a configuration that changed has an effect here.
    spec.holder_identity = Some(node.to_owned());
    spec.lease_duration_seconds = Some(duration_secs);
    if lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty) {
        lease.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node.to_owned(),
            uid: owner.to_owned(),
            ..OwnerReference::default()
        }]);
    }
    lease
}

/// kubelet 1.36: a quarter of the time that it holds, and up to 4 % more.
#[must_use]
pub fn renew_after(duration_secs: i32, chance: f64) -> Duration {
    let held = Duration::from_secs(u64::try_from(duration_secs).unwrap_or(40));
    held.mul_f64(0.25 * (1.0 + 0.04 * chance))
}
