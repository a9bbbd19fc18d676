//! Lifecycle hooks and probes.

use std::collections::BTreeMap;
use std::time::Duration;

use rubelet_api::ids::{ContainerId, ContainerName};
use rubelet_api::v1;
use rubelet_core::pod::fact::{Done, ProbeAnswer};
use rubelet_core::pod::step::{ProbeHow, ProbeStep};
use rubelet_core::pod::{Outcome, PodEvent};
use rubelet_core::render;

use super::{PodRef, failed};
use crate::hands::Hands;
use crate::probe::{self, Hooked};

/// Kubelet 1.36: a probe's output is cut to this many bytes.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// Counts a sleep that does not come to its end: its step was cancelled.
struct Sleep<'a>(&'a Hands);

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        self.0.metrics.containers.early_sleeps.add_one();
    }
}

/// Runs a hook to its end.
pub(super) async fn run(
    hands: &Hands,
    pod: &PodRef,
    container: &ContainerName,
    id: &ContainerId,
    handler: v1::LifecycleHandler,
) -> Outcome {
    if let Some(exec) = handler.exec {
        return exec_hook(hands, id, exec.command.unwrap_or_default()).await;
    }
    if let Some(get) = &handler.http_get {
        return http_hook(hands, pod, container, get).await;
    }
    if let Some(sleep) = handler.sleep {
        let early = Sleep(hands);
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        std::mem::forget(early);
        return Ok(Done::Plain);
    }
    Err(failed("", "invalid handler: no exec, httpGet or sleep"))
}

async fn http_hook(hands: &Hands, pod: &PodRef, container: &ContainerName, get: &v1::HTTPGetAction) -> Outcome {
    let Some(container) = render::containers(&pod.pod).find(|c| c.name == container.as_str()) else {
        return Err(failed("", format!("container {container} is not in the pod's specification")));
    };
    let how = render::hook_how(container, get, &pod.ips);
    match probe::http_hook(&how).await {
        Ok(Hooked::Plain) => {}
        Ok(Hooked::WithoutTls) => {
            hands.metrics.containers.http_fallbacks.add_one();
            let server = match &how {
                ProbeHow::Http { host, port, .. } => format!("{host}:{port}"),
                ProbeHow::Exec { .. } | ProbeHow::Tcp { .. } | ProbeHow::Grpc { .. } | ProbeHow::Invalid { .. } => {
                    String::new()
                }
            };
            let event = PodEvent {
                type_: "Warning",
                reason: "LifecycleHTTPFallback".to_owned(),
                field_path: String::new(),
                annotations: BTreeMap::new(),
                message: format!(
                    "request to HTTPS lifecycle hook {server} got HTTP response, retry with HTTP succeeded"
                ),
            };
            hands.events.tell(&pod.pod, &event);
        }
        Err(message) => return Err(failed("", message)),
    }
    Ok(Done::Plain)
}

async fn exec_hook(hands: &Hands, id: &ContainerId, command: Vec<String>) -> Outcome {
    let shown = format!("{command:?}");
    match hands.runtime.exec_sync(id, command, Duration::ZERO).await {
        Ok(answer) if answer.exit_code == 0 => Ok(Done::Plain),
        Ok(answer) => {
            let output = cut([answer.stdout, answer.stderr].concat());
            Err(failed("", format!("command {shown} exited with {}: {output}", answer.exit_code)))
        }
        Err(e) => Err(failed("", e.to_string())),
    }
}

/// Probes once.
pub(super) async fn probe(hands: &Hands, probe: ProbeStep) -> ProbeAnswer {
    match &probe.how {
        ProbeHow::Exec { command } => exec_probe(hands, &probe, command.clone()).await,
        ProbeHow::Invalid { message } => ProbeAnswer::Unknown(message.clone()),
        ProbeHow::Http { .. } | ProbeHow::Tcp { .. } | ProbeHow::Grpc { .. } => {
            probe::probe(&probe.how, probe.timeout).await
        }
    }
}

async fn exec_probe(hands: &Hands, probe: &ProbeStep, command: Vec<String>) -> ProbeAnswer {
    match hands.runtime.exec_sync(&probe.id, command, probe.timeout).await {
        Ok(answer) => {
            let output = cut([answer.stdout, answer.stderr].concat());
            if answer.exit_code == 0 { ProbeAnswer::Success } else { ProbeAnswer::Failure(output) }
        }
        Err(e) if e.is_deadline_exceeded() => ProbeAnswer::Failure(e.to_string()),
        Err(e) => ProbeAnswer::Unknown(e.to_string()),
    }
}

fn cut(mut output: Vec<u8>) -> String {
    output.truncate(OUTPUT_BYTES_MAX);
    String::from_utf8_lossy(&output).into_owned()
}
