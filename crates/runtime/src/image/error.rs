//! Why something with an image failed, in containerd's words where users see them.

use std::io;
use std::path::PathBuf;

use rubelet_cri::{Code, RuntimeError};
use rubelet_host::chain;

use super::auth::CredentialError;
use super::blobs::StoreError;
use super::document::DocumentError;
use super::hosts::HostsError;
use super::import::ImportError;
use super::reference::{Reference, ReferenceError};
use super::registry::RegistryError;
use crate::digest::Digest;
use crate::snapshot::LayerError;
use crate::snapshot::rootfs::RootFsError;

/// Why something with an image failed. [`ImageError::into_runtime`] makes CRI's error of it.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("failed to parse image reference {text:?}: {source}")]
    Reference { text: String, source: ReferenceError },
    #[error("failed to pull and unpack image \"{reference}\": {source}")]
    Pull { reference: Box<Reference>, source: Box<PullError> },
    #[error("import images from {from}")]
    Import { from: String, source: Box<ImportError> },
    #[error("image {image:?}: not found")]
    NotFound { image: String },
    #[error("{0}")]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    RootFs(#[from] RootFsError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("the images in {root} are used by another process: {reason}")]
    Locked { root: PathBuf, reason: String },
    #[error("the work on an image ended early: {0}")]
    Panicked(String),
}

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("failed to resolve reference \"{reference}\": {source}")]
    Resolve { reference: Box<Reference>, source: RegistryError },
    #[error("failed to read the configuration of its registry: {}", chain(.0))]
    Hosts(#[source] HostsError),
    #[error("failed to copy: {0}")]
    Copy(RegistryError),
    #[error("failed to copy: {}", chain(.0))]
    Keep(#[source] StoreError),
    #[error("{}", chain(.0))]
    Document(#[source] DocumentError),
    #[error("failed to extract layer {diff_id}: {}", chain(source))]
    Extract { diff_id: Digest, source: LayerError },
    #[error("failed to commit layers: {}", chain(.0))]
    Commit(#[source] LayerError),
    #[error("{}", chain(&**.0))]
    Other(#[source] Box<ImageError>),
}

impl From<ImageError> for PullError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Store(error) => Self::Keep(error),
            other => Self::Other(Box::new(other)),
        }
    }
}

impl ImageError {
    pub(crate) fn missing(image: &str) -> Self {
        Self::NotFound { image: image.to_owned() }
    }

    pub(crate) fn panicked(error: tokio::task::JoinError) -> Self {
        Self::Panicked(error.to_string())
    }

    /// The gRPC code with which containerd answers.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } | Self::Document(DocumentError::NoPlatform) => Code::NotFound,
            Self::Pull { source, .. } => match &**source {
                PullError::Resolve { source, .. } | PullError::Copy(source) => match source {
                    RegistryError::NotFound { .. } => Code::NotFound,
                    RegistryError::Denied { .. }
                    | RegistryError::Authorize { .. }
                    | RegistryError::Wire(_)
                    | RegistryError::Status { .. }
                    | RegistryError::Body { .. }
                    | RegistryError::Digest { .. }
                    | RegistryError::TooLarge(_)
                    | RegistryError::Url { .. } => Code::Unknown,
                },
                PullError::Document(DocumentError::NoPlatform) => Code::NotFound,
                PullError::Keep(StoreError::Size { .. } | StoreError::Digest { .. }) => Code::FailedPrecondition,
                PullError::Hosts(_)
                | PullError::Keep(_)
                | PullError::Document(_)
                | PullError::Extract { .. }
                | PullError::Commit(_)
                | PullError::Other(_) => Code::Unknown,
            },
            Self::Reference { .. }
            | Self::Import { .. }
            | Self::Credential(_)
            | Self::Store(_)
            | Self::Layer(_)
            | Self::RootFs(_)
            | Self::Document(_)
            | Self::Locked { .. }
            | Self::Panicked(_) => Code::Unknown,
        }
    }

    /// CRI's error for `verb`, as a remote runtime's would arrive.
    pub fn into_runtime(self, verb: &'static str) -> RuntimeError {
        let (code, message) = (self.code(), chain_unless_told(&self));
        match (verb, code) {
            ("PullImage", Code::Unknown) => RuntimeError::Plain { verb, message },
            (_, _) => RuntimeError::Rpc { verb, code, message },
        }
    }
}

/// The chain of causes; errors of pulls tell theirs already.
fn chain_unless_told(error: &ImageError) -> String {
    match error {
        ImageError::Pull { .. } | ImageError::Reference { .. } => error.to_string(),
        ImageError::Import { .. }
        | ImageError::NotFound { .. }
        | ImageError::Credential(_)
        | ImageError::Store(_)
        | ImageError::Layer(_)
        | ImageError::RootFs(_)
        | ImageError::Document(_)
        | ImageError::Locked { .. }
        | ImageError::Panicked(_) => chain(error),
    }
}

/// Whether the disk is full, or what the user may have of it.
pub(super) fn is_out_of_room(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_full = |kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind.or_else(|| error.downcast_ref::<rustix::io::Errno>().map(|errno| errno.kind())).is_some_and(is_full) {
            return true;
        }
        next = error.source();
    }
    false
}
