//! What the cluster says of CSI drivers, and whether a volume is attached to this node.

use std::sync::Arc;

use rubelet_api::groups::storage_v1::{CSIDriver, CSIDriverSpec, TokenRequest, VolumeAttachment};
use rubelet_apiserver::Path;
use rubelet_apiserver::backoff::{Backoff, Growth};
use rubelet_core::pod::needs::{AttachmentNeed, CsiDriver, DriverToken, FsGroupPolicy, Got};
use tokio::time::{Duration, Instant, sleep};

use super::fetch::{PATIENCE, Teller, Tools, follow_one, refusal_text};

/// How often an attachment that is not there yet is asked for.
const AGAIN: Growth = Growth { first: Duration::from_millis(500), most: Duration::from_secs(5), jitter: 0.2 };

/// The object of a driver; upstream's assumptions where there is none.
pub(super) async fn driver(name: &str, tools: &Tools, teller: &Teller) {
    let late = format!("timed out waiting for CSIDriver {name}");
    let got = |object: Option<CSIDriver>| Got::CsiDriver(Arc::new(object.map(|o| facts(&o.spec)).unwrap_or_default()));
    follow_one(name, late, got, tools, teller).await;
}

fn facts(spec: &CSIDriverSpec) -> CsiDriver {
    let modes = spec.volume_lifecycle_modes.as_deref().unwrap_or_default();
    CsiDriver {
        needs_attachment: spec.attach_required.unwrap_or(true),
        wants_pod: spec.pod_info_on_mount.unwrap_or(false),
        fs_group: match spec.fs_group_policy.as_deref() {
            Some("File") => FsGroupPolicy::File,
            Some("None") => FsGroupPolicy::None,
            Some(_) | None => FsGroupPolicy::ReadWriteOnceWithFsType,
        },
        is_persistent: modes.is_empty() || modes.iter().any(|m| m == "Persistent"),
        is_ephemeral: modes.iter().any(|m| m == "Ephemeral"),
        tokens: spec.token_requests.iter().flatten().map(driver_token).collect(),
        are_tokens_secret: spec.service_account_token_in_secrets.unwrap_or(false),
        is_republished: spec.requires_republish.unwrap_or(false),
        mounts_selinux: spec.se_linux_mount.unwrap_or(false),
    }
}

fn driver_token(of: &TokenRequest) -> DriverToken {
    DriverToken { audience: of.audience.clone(), expiration_secs: of.expiration_seconds }
}

/// Asks until the volume is attached. A node may read its attachments one at a time, and not watch them.
pub(super) async fn attachment(of: &AttachmentNeed, tools: &Tools, teller: &Teller) {
    let path = Path::to_cluster::<VolumeAttachment>(&of.name);
    let mut backoff = Backoff::new(AGAIN, tools.seed());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let trouble = match tools.client.get::<VolumeAttachment>(&path).await {
            Ok(found) => match found.status {
                Some(status) if status.attached && found.metadata.deletion_timestamp.is_none() => {
                    let metadata = status.attachment_metadata.unwrap_or_default();
                    return teller.tell(Got::Attachment(Arc::new(metadata))).await;
                }
                Some(status) => status.attach_error.and_then(|e| e.message),
                None => None,
            },
            Err(error) if error.is_not_found() || error.is_unreachable() => None,
            Err(error) => Some(refusal_text(&error)),
        };
        // kubelet 1.36: the words when nothing happens.
        let waiting = || {
            format!(
                "timed out waiting for external-attacher of {} CSI driver to attach volume {}",
                of.driver, of.handle
            )
        };
        match trouble {
            Some(trouble) => teller.tell(Got::Failed(trouble)).await,
            None if Instant::now() > deadline => teller.tell(Got::Failed(waiting())).await,
            None => {}
        }
        sleep(backoff.fail()).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_driver_does_not_say_is_as_upstream_assumes() {
        let of = |spec: serde_json::Value| facts(&serde_json::from_value(spec).expect("a spec"));
        assert_eq!(of(json!({})), CsiDriver::default());
        let said = of(json!({"attachRequired": false, "podInfoOnMount": true, "fsGroupPolicy": "File",
            "volumeLifecycleModes": ["Ephemeral"], "tokenRequests": [{"audience": "x"}, {"audience": "", "expirationSeconds": 600}],
            "serviceAccountTokenInSecrets": true, "requiresRepublish": true, "seLinuxMount": true}));
        let token = |audience: &str, expiration_secs| DriverToken { audience: audience.to_owned(), expiration_secs };
        let wanted = CsiDriver {
            needs_attachment: false,
            wants_pod: true,
            fs_group: FsGroupPolicy::File,
            is_persistent: false,
            is_ephemeral: true,
            tokens: vec![token("x", None), token("", Some(600))],
            are_tokens_secret: true,
            is_republished: true,
            mounts_selinux: true,
        };
        assert_eq!(said, wanted);
    }
}
