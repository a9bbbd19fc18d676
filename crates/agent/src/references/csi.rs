//! What the cluster says of CSI drivers, and whether a volume is attached to this node.

use std::sync::Arc;

use rubelet_api::groups::storage_v1::{CSIDriver, CSIDriverSpec, TokenRequest, VolumeAttachment, VolumeError};
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
        has_moving_limits: spec.node_allocatable_update_period_seconds.is_some_and(|secs| secs > 0),
    }
}

fn driver_token(of: &TokenRequest) -> DriverToken {
    DriverToken { audience: of.audience.clone(), expiration_secs: of.expiration_seconds }
}

/// kubelet 1.36: how long a pod waits for its volumes until it is looked at why.
const ROOM_PATIENCE: Duration = Duration::from_secs(123);
/// `ResourceExhausted`, as gRPC numbers it.
const EXHAUSTED: i32 = 8;

/// Asks until the volume is attached. A node may read its attachments one at a time, and not watch them.
pub(super) async fn attachment(of: &AttachmentNeed, tools: &Tools, teller: &Teller) {
    let path = Path::to_cluster::<VolumeAttachment>(&of.name);
    let mut backoff = Backoff::new(AGAIN, tools.seed());
    let begun = Instant::now();
    loop {
        let trouble = match tools.client.get::<VolumeAttachment>(&path).await {
            Ok(found) => match found.status {
                Some(status) if status.attached && found.metadata.deletion_timestamp.is_none() => {
                    let metadata = status.attachment_metadata.unwrap_or_default();
                    return teller.tell(Got::Attachment(Arc::new(metadata))).await;
                }
                Some(status) => status.attach_error.map(|error| refused(error, begun.elapsed())),
                None => None,
            },
            Err(error) if error.is_not_found() || error.is_unreachable() => None,
            Err(error) => Some(Got::Failed(refusal_text(&error))),
        };
        if matches!(trouble, Some(Got::NoRoom(_))) {
            tools.around.full.notify_waiters();
        }
        // kubelet 1.36: the words when nothing happens.
        let waiting = || {
            format!(
                "timed out waiting for external-attacher of {} CSI driver to attach volume {}",
                of.driver, of.handle
            )
        };
        match trouble {
            Some(trouble) => teller.tell(trouble).await,
            None if begun.elapsed() > PATIENCE => teller.tell(Got::Failed(waiting())).await,
            None => {}
        }
        sleep(backoff.fail()).await;
    }
}

/// What is told of a volume that could not be attached after so long.
fn refused(error: VolumeError, waited: Duration) -> Got {
    let is_full = error.error_code == Some(EXHAUSTED);
    let message = error.message.unwrap_or_default();
    if is_full && waited >= ROOM_PATIENCE { Got::NoRoom(message) } else { Got::Failed(message) }
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
            "serviceAccountTokenInSecrets": true, "requiresRepublish": true, "seLinuxMount": true,
            "nodeAllocatableUpdatePeriodSeconds": 60}));
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
            has_moving_limits: true,
        };
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_node_without_room_is_given_time() {
        let of = |code: Option<i32>, secs: u64| {
            let error: VolumeError =
                serde_json::from_value(json!({"message": "no", "errorCode": code})).expect("an error");
            refused(error, Duration::from_secs(secs))
        };
        assert_eq!(of(Some(8), 123), Got::NoRoom("no".to_owned()));
        for (code, secs) in [(Some(8), 122), (Some(13), 500), (None, 500)] {
            assert_eq!(of(code, secs), Got::Failed("no".to_owned()), "{code:?} {secs}");
        }
    }
}
