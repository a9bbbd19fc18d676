//! Lifecycle hooks and probes.

use std::time::Duration;

use rubelet_api::ids::ContainerId;
use rubelet_api::v1;
use rubelet_core::node::NodeFacts;
use rubelet_core::pod::Outcome;
use rubelet_core::pod::fact::{Done, ProbeAnswer};
use rubelet_core::pod::step::{ProbeHow, ProbeStep};

use super::{PodRef, failed};
use crate::hands::Hands;

/// Kubelet 1.36: a probe's output is cut to this many bytes.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// Runs a hook to its end, or to `timeout`.
pub(super) async fn run(
    hands: &Hands,
    pod: &PodRef,
    node: &NodeFacts,
    id: &ContainerId,
    handler: v1::LifecycleHandler,
    timeout: Option<Duration>,
) -> Outcome {
    let act = act(hands, pod, node, id, handler);
    match timeout {
        None => act.await,
        Some(limit) => match tokio::time::timeout(limit, act).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failed("", format!("hook did not end within {} s", limit.as_secs_f64()))),
        },
    }
}

async fn act(hands: &Hands, pod: &PodRef, node: &NodeFacts, id: &ContainerId, handler: v1::LifecycleHandler) -> Outcome {
    if let Some(exec) = handler.exec {
        return exec_hook(hands, id, exec.command.unwrap_or_default()).await;
    }
    if let Some(http) = &handler.http_get {
        let request = rubelet_core::render::probe::http_hook(&pod.pod, http, &pod.ips, node);
        return crate::probe::http_hook(&request).await.map(|()| Done::Plain).map_err(|e| failed("", e));
    }
    if let Some(sleep) = handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(Done::Plain);
    }
    Err(failed("", "invalid handler: no exec, httpGet or sleep"))
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
            crate::probe::probe(&probe.how, probe.timeout).await
        }
    }
}

async fn exec_probe(hands: &Hands, probe: &ProbeStep, command: Vec<String>) -> ProbeAnswer {
    let shown = command.join(" ");
    match hands.runtime.exec_sync(&probe.id, command, probe.timeout).await {
        Ok(answer) => {
            let output = cut([answer.stdout, answer.stderr].concat());
            if answer.exit_code == 0 { ProbeAnswer::Success } else { ProbeAnswer::Failure(output) }
        }
        Err(e) if e.is_deadline_exceeded() => {
            ProbeAnswer::Failure(e.to_string())
        }
        Err(e) => ProbeAnswer::Unknown(e.to_string()),
    }
}

fn cut(mut output: Vec<u8>) -> String {
    output.truncate(OUTPUT_BYTES_MAX);
    String::from_utf8_lossy(&output).into_owned()
}
