//! Why a pod has no network, or keeps a part of it.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Protocol, Subnet};

/// Why a pod has no network, or keeps a part of it.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("{what} {path}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("write {path}")]
    Record { path: PathBuf, source: rubelet_host::paths::PathError },
    #[error("{what}")]
    Kernel { what: String, source: io::Error },
    #[error("{0:?} cannot be the name of a pod's network")]
    Id(String),
    #[error("no address is left in {0}")]
    Exhausted(Subnet),
    #[error("the pods' subnet {subnet} is in use on this machine: {route} by {link}; choose another one")]
    Overlap { subnet: Subnet, route: String, link: String },
    #[error("{} port {port} of the host is taken by pod {holder}", protocol.name().to_uppercase())]
    PortTaken { protocol: Protocol, port: u16, holder: String },
    #[error("{0}")]
    Unsupported(String),
    /// What the pod was given is not there any more.
    #[error("pod {pod}: {what}")]
    Broken { pod: String, what: String },
    #[error("CNI configuration {path}: {problem}")]
    Configuration { path: PathBuf, problem: String },
    /// In libcni's words, after the pod's name (empty where no pod is concerned).
    #[error("{pod}plugin type={plugin:?} name={network:?} failed ({verb}): {said}")]
    Plugin { plugin: String, network: String, verb: &'static str, pod: String, said: String },
}

pub(crate) fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetworkError + use<> {
    let path = path.to_owned();
    move |source| NetworkError::File { what, path, source }
}

pub(crate) fn kernel_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    let what = what.into();
    move |source| NetworkError::Kernel { what, source }
}
