//! Probes and lifecycle hooks.

use super::{all_invalid, names, not_negative, one_of};
use crate::pod::validate::Gates;
use crate::problem::{Path, Problems};
use crate::{IntOrString, v1};

/// Which probe it is; the kinds have different rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Liveness,
    Readiness,
    Startup,
}

/// What probes and hooks can do.
struct Handlers<'a> {
    exec: Option<&'a v1::ExecAction>,
    http: Option<&'a v1::HTTPGetAction>,
    tcp: Option<&'a v1::TCPSocketAction>,
    grpc: Option<&'a v1::GRPCAction>,
    sleep: Option<&'a v1::SleepAction>,
}

/// One probe.
pub(super) fn validate(probe: &v1::Probe, which: Which, path: &Path, problems: &mut Problems) {
    let handlers = Handlers {
        exec: probe.exec.as_ref(),
        http: probe.http_get.as_ref(),
        tcp: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    one_handler(&handlers, path, problems);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        not_negative(number.map(i64::from), &path.field(field), problems);
    }
    let grace = probe.termination_grace_period_seconds;
    let path_grace = path.field("terminationGracePeriodSeconds");
    match which {
        Which::Readiness => {
            if let Some(seconds) = grace {
                problems.invalid(&path_grace, &seconds, "must not be set for readinessProbes");
            }
        }
        Which::Liveness | Which::Startup => {
            if let Some(seconds) = grace
                && seconds <= 0
            {
                problems.invalid(&path_grace, &seconds, "must be greater than 0");
            }
            if let Some(successes) = probe.success_threshold
                && successes != 1
            {
                problems.invalid(&path.field("successThreshold"), &successes, "must be 1");
            }
        }
    }
}

/// The hooks of one container.
pub(super) fn lifecycle(hooks: &v1::Lifecycle, os: &str, gates: Gates, path: &Path, problems: &mut Problems) {
    let both = [("postStart", &hooks.post_start), ("preStop", &hooks.pre_stop)];
    for (field, hook) in both {
        let Some(hook) = hook else { continue };
        let handlers = Handlers {
            exec: hook.exec.as_ref(),
            http: hook.http_get.as_ref(),
            tcp: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        };
        one_handler(&handlers, &path.field(field), problems);
    }
    if let Some(signal) = hooks.stop_signal.as_deref() {
        let path = path.field("stopSignal");
        if !gates.container_stop_signals {
            problems.forbidden(&path, "needs the feature gate ContainerStopSignals");
        } else if os.is_empty() {
            problems.forbidden(&path, "may not be set for containers with empty `spec.os.name`");
        } else if !signal.starts_with("SIG") {
            problems.invalid(&path, signal, "must be a signal's name such as \"SIGTERM\"");
        }
    }
}

/// Exactly one way to do it, and that one complete.
fn one_handler(handlers: &Handlers<'_>, path: &Path, problems: &mut Problems) {
    let given = [
        ("exec", handlers.exec.is_some()),
        ("httpGet", handlers.http.is_some()),
        ("tcpSocket", handlers.tcp.is_some()),
        ("grpc", handlers.grpc.is_some()),
        ("sleep", handlers.sleep.is_some()),
    ];
    let mut present = given.iter().filter(|(_, given)| *given).map(|(field, _)| *field);
    if present.next().is_none() {
        problems.required(path, "must specify a handler type");
        return;
    }
    for further in present {
        problems.forbidden(&path.field(further), "may not specify more than 1 handler type");
    }
    if let Some(exec) = handlers.exec
        && exec.command.as_ref().is_none_or(Vec::is_empty)
    {
        problems.required(&path.at("exec.command"), "");
    }
    if let Some(http) = handlers.http {
        http_get(http, &path.field("httpGet"), problems);
    }
    if let Some(tcp) = handlers.tcp {
        port(&tcp.port, &path.at("tcpSocket.port"), problems);
    }
    if let Some(grpc) = handlers.grpc
        && let Some(why) = names::port_number(grpc.port)
    {
        problems.invalid(&path.at("grpc.port"), &grpc.port, why);
    }
    if let Some(sleep) = handlers.sleep
        && sleep.seconds < 0
    {
        problems.invalid(&path.field("sleep"), &sleep.seconds, "must be non-negative");
    }
}

fn http_get(http: &v1::HTTPGetAction, path: &Path, problems: &mut Problems) {
    if http.path.as_deref().unwrap_or_default().is_empty() {
        problems.required(&path.field("path"), "");
    }
    port(&http.port, &path.field("port"), problems);
    one_of(http.scheme.as_deref().unwrap_or_default(), &["HTTP", "HTTPS"], &path.field("scheme"), problems);
    for header in http.http_headers.iter().flatten() {
        all_invalid(&header.name, names::header(&header.name), &path.field("httpHeaders"), problems);
    }
}

/// A port by number or by name.
fn port(port: &IntOrString, path: &Path, problems: &mut Problems) {
    match port {
        IntOrString::Int(number) => {
            if let Some(why) = names::port_number(*number) {
                problems.invalid(path, number, why);
            }
        }
        IntOrString::String(name) => all_invalid(name, names::port(name), path, problems),
    }
}
