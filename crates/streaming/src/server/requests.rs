//! What was asked for over CRI, checked as containerd checks it.

use rubelet_proto::cri::{AttachRequest, ExecRequest, PortForwardRequest};

use crate::containers::Command;
use crate::remote_command::Wanted;

/// Why there is no URL. The texts are containerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// gRPC `InvalidArgument`.
    #[error("{0}")]
    Invalid(&'static str),
    /// gRPC `ResourceExhausted`.
    #[error("maximum number of in-flight requests exceeded")]
    TooMany,
    /// gRPC `Unknown`: the kernel gives no random numbers.
    #[error("failed to generate unique token")]
    NoToken,
}

/// What a URL stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Exec { command: Command, wanted: Wanted },
    Attach { container: String, wanted: Wanted },
    PortForward { sandbox: String, ports: Vec<u16> },
}

impl Asked {
    /// The first part of the URL's path.
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }
}

pub(super) fn exec(request: &ExecRequest) -> Result<Asked, RequestError> {
    let ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request.clone();
    let wanted = Wanted { stdin, stdout, stderr, tty };
    check(&container_id, wanted, "one of stdin, stdout, or stderr must be set")?;
    Ok(Asked::Exec { command: Command { container: container_id, argv: cmd, is_tty: tty }, wanted })
}

pub(super) fn attach(request: &AttachRequest) -> Result<Asked, RequestError> {
    let AttachRequest { container_id, stdin, tty, stdout, stderr } = request.clone();
    let wanted = Wanted { stdin, stdout, stderr, tty };
    check(&container_id, wanted, "one of stdin, stdout, and stderr must be set")?;
    Ok(Asked::Attach { container: container_id, wanted })
}

pub(super) fn port_forward(request: &PortForwardRequest) -> Result<Asked, RequestError> {
    if request.pod_sandbox_id.is_empty() {
        return Err(RequestError::Invalid("missing required pod_sandbox_id"));
    }
    let ports = request.port.iter().map(|port| u16::try_from(*port).ok().filter(|port| *port > 0));
    let ports = ports.collect::<Option<Vec<u16>>>().ok_or(RequestError::Invalid("port must be in 1..65535"))?;
    Ok(Asked::PortForward { sandbox: request.pod_sandbox_id.clone(), ports })
}

fn check(container: &str, wanted: Wanted, no_streams: &'static str) -> Result<(), RequestError> {
    if container.is_empty() {
        return Err(RequestError::Invalid("missing required container_id"));
    }
    if wanted.tty && wanted.stderr {
        return Err(RequestError::Invalid("tty and stderr cannot both be true"));
    }
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(RequestError::Invalid(no_streams));
    }
    Ok(())
}

/// A command as containerd shows it in texts.
pub(super) fn command(argv: &[String]) -> String {
    format!("[{}]", argv.join(" "))
}
