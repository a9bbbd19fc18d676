//! One container's configuration.

use std::collections::BTreeMap;

use rubelet_api::ids::ContainerName;
use rubelet_api::v1;
use rubelet_proto::cri;

use super::env::{Env, environment};
use super::sandbox::{identity_labels, sandbox_config};
use super::{ContainerView, RenderError, container_hash, containers, hosts, json, logs, mounts, security};
use crate::pod::step::CreateContainer;
use crate::resources::linux_resources;

/// All that creating the container takes.
///
/// # Errors
///
/// With the reason `CreateContainerConfigError`: a variable, mount or security setting cannot be had as the pod wants it.
pub fn create_container(view: &ContainerView<'_>) -> Result<CreateContainer, RenderError> {
    let pod = view.pod;
    let ephemeral = super::ephemeral(pod);
    let Some(container) = containers(pod).chain(&ephemeral).find(|c| c.name == view.container) else {
        return Err(RenderError::config(format!("container {:?} is not in the pod's specification", view.container)));
    };
    let env = environment(view, container)?;
    let termination_log = mounts::termination_log(view);
    let mounts::Mounts { mounts, subpaths, devices, has_etc_hosts } =
        mounts::mounts(view, container, &env, &termination_log)?;
    let image = container.image.clone().unwrap_or_default();
    let config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: view.restart_count }),
        image: Some(cri::ImageSpec {
            image: view.image.image_ref.clone(),
            user_specified_image: image,
            ..Default::default()
        }),
        command: expanded(&env, container.command.as_deref())?,
        args: expanded(&env, container.args.as_deref())?,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: env.variables.into_iter().map(|(key, value)| cri::KeyValue { key, value: value.into_bytes() }).collect(),
        mounts,
        devices,
        labels: labels(pod, container),
        annotations: annotations(pod, container, view.restart_count),
        log_path: logs::relative_log_path(&container.name, view.restart_count),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(linux_resources(pod, container, view.node)),
            security_context: Some(security::container(view, container)?),
        }),
        stop_signal: stop_signal(view, container)?,
        ..Default::default()
    };
    Ok(CreateContainer {
        container: ContainerName::new(&container.name),
        restart_count: view.restart_count,
        sandbox: view.sandbox.clone(),
        sandbox_config: sandbox_config(pod, view.sandbox_attempt, view.node)?,
        config,
        etc_hosts: has_etc_hosts.then(|| hosts::etc_hosts(pod, view.node, view.pod_ips)).flatten(),
        termination_log,
        subpaths,
        env_files: env.files,
    })
}

fn expanded(env: &Env, words: Option<&[String]>) -> Result<Vec<String>, RenderError> {
    words.unwrap_or_default().iter().map(|word| env.expand(word)).collect()
}

fn labels(pod: &v1::Pod, container: &v1::Container) -> BTreeMap<String, String> {
    let mut labels = identity_labels(pod);
    labels.insert("io.kubernetes.container.name".to_owned(), container.name.clone());
    labels
}

/// What a later agent needs to stop the container properly even when nobody wants its pod any more.
fn annotations(pod: &v1::Pod, container: &v1::Container, restart_count: u32) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |key: &str, value: String| all.insert(format!("io.kubernetes.{key}"), value);
    put(
        "container.hash",
        format!("{:x}", container_hash(container.image.as_deref().unwrap_or_default(), &container.name)),
    );
    put("container.restartCount", restart_count.to_string());
    put("container.terminationMessagePath", container.termination_message_path.clone().unwrap_or_default());
    put("container.terminationMessagePolicy", container.termination_message_policy.clone().unwrap_or_default());
    if let Some(secs) = pod.metadata.deletion_grace_period_seconds {
        put("pod.deletionGracePeriod", secs.to_string());
    }
    if let Some(secs) = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds) {
        put("pod.terminationGracePeriod", secs.to_string());
    }
    if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) {
        put("container.preStopHandler", json::text(&json::handler(hook)));
    }
    if let Some(ports) = container.ports.as_deref().filter(|p| !p.is_empty()) {
        put("container.ports", json::text(&json::ports(ports)));
    }
    all
}

fn stop_signal(view: &ContainerView<'_>, container: &v1::Container) -> Result<i32, RenderError> {
    let signal = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref());
    let Some(signal) = signal.filter(|_| view.node.settings.gates.container_stop_signals) else { return Ok(0) };
    match cri::Signal::from_str_name(signal) {
        Some(known) => Ok(known.into()),
        None => Err(RenderError::config(format!("unknown stop signal {signal:?}"))),
    }
}
