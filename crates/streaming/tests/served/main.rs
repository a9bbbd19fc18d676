//! The server against the client of this crate, and both against those of Kubernetes, with a runtime that runs commands on this machine.

#![allow(clippy::unwrap_used, reason = "tests")]

mod between;
mod kubernetes_clients;
mod local;
mod port_forward;
mod remote_command;
mod requests;
mod websocket;

use std::sync::Arc;

use rubelet_proto::cri::{AttachRequest, ExecRequest, PortForwardRequest};
use rubelet_streaming::server::Options;
use rubelet_streaming::{Server, Status, client, spdy};

/// A server whose containers are this machine.
async fn server() -> Server {
    Server::listen(Options::default(), Arc::new(local::Local)).await.expect("listens on a free port")
}

fn exec_request(argv: &[&str]) -> ExecRequest {
    ExecRequest {
        container_id: "c".to_owned(),
        cmd: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        tty: false,
        stdin: false,
        stdout: true,
        stderr: true,
    }
}
