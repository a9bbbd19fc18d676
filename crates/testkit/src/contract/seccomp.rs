//! Which calls of the system a container may make.

use std::sync::Arc;

use rubelet_proto::cri::{self, SecurityProfile, security_profile::ProfileType};

use super::checks::{ensure, refused, same};
use super::pod::{security, words};
use super::{Bench, Result, suite};

suite! {
    "without a profile all calls may be made" [Processes] => none;
    "the usual profile is taken" [Processes] => usual;
    "unconfined means that all calls may be made" [Processes] => unconfined;
    "a profile of the host is taken" [Processes] => localhost;
    "a profile that is not there is refused" [Processes] => absent;
    "a privileged container has no profile" [Processes] => privileged;
    "setting the hostname takes a right and no profile" [Processes, Network] => unconfined_hostname;
    "a profile denies what a right allows" [Processes, Network] => localhost_hostname;
}

const MODE: &str = "sed -n 's/^Seccomp:[[:space:]]*//p' /proc/self/status";
const SET_HOSTNAME: &str = "hostname other && hostname";

fn profile(kind: ProfileType) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() })
}

/// Denies to set the hostname.
fn denying(bench: &Bench) -> Result<Option<SecurityProfile>> {
    let path = bench.folder("seccomp")?.join("profile.json");
    let text = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}],
    });
    std::fs::write(&path, text.to_string())?;
    let localhost_ref = path.display().to_string();
    Ok(Some(SecurityProfile { profile_type: ProfileType::Localhost.into(), localhost_ref }))
}

async fn mode(bench: &Arc<Bench>, wanted: &str, change: impl FnOnce(&mut cri::ContainerConfig)) -> Result {
    let pod = bench.pod().await?;
    same("the kernel's mode", pod.said(MODE, change).await?.as_str(), wanted)
}

async fn none(bench: Arc<Bench>) -> Result {
    mode(&bench, "0", |_| {}).await
}

async fn usual(bench: Arc<Bench>) -> Result {
    mode(&bench, "2", |config| security(config).seccomp = profile(ProfileType::RuntimeDefault)).await?;
    let pod = bench.pod().await?;
    let output = pod.output("unshare -U true", |config| {
        security(config).seccomp = profile(ProfileType::RuntimeDefault);
    });
    ensure(output.await?.exit_code != 0, || "namespaces may be made".to_owned())
}

async fn unconfined(bench: Arc<Bench>) -> Result {
    mode(&bench, "0", |config| security(config).seccomp = profile(ProfileType::Unconfined)).await
}

async fn localhost(bench: Arc<Bench>) -> Result {
    let profile = denying(&bench)?;
    mode(&bench, "2", |config| security(config).seccomp = profile).await
}

async fn absent(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let mut config = pod.container("a", &["true"]);
    security(&mut config).seccomp = Some(SecurityProfile {
        profile_type: ProfileType::Localhost.into(),
        localhost_ref: bench.folder("seccomp")?.join("none.json").display().to_string(),
    });
    let created = bench.runtime().create_container(&pod.id, config, pod.config.clone()).await;
    let started = match created {
        Ok(id) => bench.runtime().start_container(&id).await,
        Err(error) => Err(error),
    };
    refused("a profile that is not there", started).map(drop)
}

async fn privileged(bench: Arc<Bench>) -> Result {
    let profile = denying(&bench)?;
    let pod = bench.pod_with(|config| super::pod::pod_security(config).privileged = true).await?;
    let said = pod
        .said(SET_HOSTNAME, |config| {
            security(config).privileged = true;
            security(config).seccomp = profile;
        })
        .await?;
    same("the name", said.as_str(), "other")
}

fn may_administrate(config: &mut cri::ContainerConfig) {
    security(config).capabilities =
        Some(cri::Capability { add_capabilities: words(&["SYS_ADMIN"]), ..Default::default() });
}

async fn unconfined_hostname(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let said = pod
        .said(SET_HOSTNAME, |config| {
            may_administrate(config);
            security(config).seccomp = profile(ProfileType::Unconfined);
        })
        .await?;
    same("the name", said.as_str(), "other")
}

async fn localhost_hostname(bench: Arc<Bench>) -> Result {
    let (profile, pod) = (denying(&bench)?, bench.pod().await?);
    let output = pod
        .output(SET_HOSTNAME, |config| {
            may_administrate(config);
            security(config).seccomp = profile;
        })
        .await?;
    ensure(output.exit_code != 0, || "it may be set".to_owned())
}
