//! Streams of containers: the end of a program that runs in one, logs that are opened anew; exec, attach and port-forward by URL.

use std::io;
use std::sync::Arc;

use rubelet_cri::Code;
use rubelet_host::ready::readable;
use rubelet_proto::cri;
use rubelet_shim::wire::Exit;
use rubelet_shim::{Execution, Shim, Standing};

use crate::embedded::Engine;
use crate::verbs::{Doing, Refusal};

/// How a program that runs in a container ended, when it has; dropped before, it kills the program.
pub(crate) async fn ended(program: Execution) -> io::Result<Exit> {
    readable(&program).await?;
    // What is readable is its end.
    tokio::task::spawn_blocking(move || program.wait()).await?.map_err(io::Error::other)
}

/// Opens a container's log anew, after it was renamed.
pub(crate) async fn reopen_log(engine: &Arc<Engine>, id: &str) -> Result<(), Refusal> {
    let container = engine.pods().container(id).ok_or_else(|| Refusal::no_container(id))?;
    let bundle = engine.places.container(container.id.as_str());
    engine
        .blocking(move |_| match Shim::attach(&bundle).doing("failed to reopen the container's log")? {
            Standing::Kept(shim) => shim.reopen_log().doing("failed to reopen the container's log"),
            Standing::Ended(_) | Standing::Lost(_) | Standing::Unborn => {
                Err(Refusal::unknown("container is not running"))
            }
        })
        .await
}

fn not_yet(what: &str) -> Refusal {
    Refusal::new(Code::Unimplemented, format!("the embedded runtime does not serve {what} yet"))
}

pub(crate) fn exec(_engine: &Engine, _request: cri::ExecRequest) -> Result<String, Refusal> {
    Err(not_yet("exec by streams"))
}

pub(crate) fn attach(_engine: &Engine, _request: cri::AttachRequest) -> Result<String, Refusal> {
    Err(not_yet("attach"))
}

pub(crate) fn port_forward(_engine: &Engine, _request: cri::PortForwardRequest) -> Result<String, Refusal> {
    Err(not_yet("port-forward"))
}
