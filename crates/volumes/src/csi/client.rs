//! Talking to drivers on their sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use rubelet_proto::csi::node_service_capability::{Type, rpc};
use rubelet_proto::csi::{NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest};

use super::stats::{Key, Published};
use super::{CsiCounts, NodeFacts};

/// kubelet 1.36: no call of a driver takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a driver did not do it.
#[derive(Debug, thiserror::Error)]
pub enum CsiError {
    /// As gRPC for Go prints it; users see it in events.
    #[error("rpc error: code = {code} desc = {message}")]
    Rpc { call: &'static str, code: &'static str, message: String },
    /// kubelet 1.36: the words.
    #[error("kubernetes.io/csi: {wanted_by}: driver name {name} not found in the list of registered CSI drivers")]
    NoDriver { wanted_by: &'static str, name: String },
    #[error("{operation} {path}")]
    File { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Path(#[from] rubelet_host::paths::PathError),
    #[error(transparent)]
    Mount(#[from] rubelet_host::mount::MountError),
    /// The record of a volume cannot be read: without it nobody knows whose the volume is.
    #[error("read {path}: {why}")]
    Record { path: PathBuf, why: String },
    #[error("plugin {name}: {why}")]
    Plugin { name: String, why: String },
    /// A volume has grown, and its claim does not say so yet.
    #[error("tell that claim {name} has its size: {why}")]
    Claim { name: String, why: String },
}

impl CsiError {
    /// Whether the driver answered with one of these codes, by their names in Go.
    pub fn is_of(&self, codes: &[&str]) -> bool {
        matches!(self, Self::Rpc { code, .. } if codes.contains(code))
    }

    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { operation, path: path.to_owned(), source }
    }
}

/// A driver behind its socket. Connected when it is first asked.
#[derive(Clone, Debug)]
pub struct Driver {
    channel: Channel,
    counted: Option<(Arc<str>, Arc<CsiCounts>)>,
}

impl Driver {
    /// Must be called within a tokio runtime.
    pub fn at(socket: &Path) -> Self {
        let socket: Arc<Path> = socket.into();
        let dial = tower::service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(&*socket).await.map(TokioIo::new) }
        });
        Self { channel: Endpoint::from_static("http://localhost").connect_with_connector_lazy(dial), counted: None }
    }

    /// Counts its calls under this name.
    #[must_use]
    pub fn counted(self, name: &str, counts: Arc<CsiCounts>) -> Self {
        Self { counted: Some((name.into(), counts)), ..self }
    }

    /// What the driver says of this node.
    ///
    /// # Errors
    /// [`CsiError::Rpc`].
    pub async fn node_info(&self) -> Result<NodeFacts, CsiError> {
        self.call("/csi.v1.Node/NodeGetInfo", NodeGetInfoRequest {}).await
    }

    pub(crate) async fn capabilities(&self) -> Result<Capabilities, CsiError> {
        let answer: NodeGetCapabilitiesResponse =
            self.call("/csi.v1.Node/NodeGetCapabilities", NodeGetCapabilitiesRequest {}).await?;
        let kinds = answer.capabilities.into_iter().filter_map(|c| c.r#type.map(|Type::Rpc(rpc)| rpc.r#type));
        Ok(Capabilities(kinds.collect()))
    }

    pub(crate) async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, CsiError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.call_within(path, request, PATIENCE).await
    }

    pub(crate) async fn call_within<Q, A>(
        &self,
        path: &'static str,
        request: Q,
        patience: Duration,
    ) -> Result<A, CsiError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let rpc = |code: tonic::Code, message: String| CsiError::Rpc { call: path, code: code_name(code), message };
        let asked = async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready().await.map_err(|e| rpc(tonic::Code::Unavailable, rubelet_host::chain(&e)))?;
            let codec = ProstCodec::<Q, A>::default();
            let answer = grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await;
            let answer = answer.map_err(|status| rpc(status.code(), status.message().to_owned()))?;
            Ok(answer.into_inner())
        };
        let since = Instant::now();
        let answer = match tokio::time::timeout(patience, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(rpc(tonic::Code::DeadlineExceeded, "context deadline exceeded".to_owned())),
        };
        if let Some((name, counts)) = &self.counted {
            let code = match &answer {
                Err(CsiError::Rpc { code, .. }) => code,
                Ok(_) | Err(_) => "OK",
            };
            counts.called(name, path, code, since.elapsed());
        }
        answer
    }
}

/// kubelet 1.36: the name of a volume in the Node's status.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// What a driver can do on a node, by CSI's numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capabilities(Vec<i32>);

impl Capabilities {
    pub(crate) fn has(&self, kind: rpc::Type) -> bool {
        self.0.contains(&i32::from(kind))
    }
}

/// As gRPC for Go names them.
fn code_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "OK",
        tonic::Code::Cancelled => "Canceled",
        tonic::Code::Unknown => "Unknown",
        tonic::Code::InvalidArgument => "InvalidArgument",
        tonic::Code::DeadlineExceeded => "DeadlineExceeded",
        tonic::Code::NotFound => "NotFound",
        tonic::Code::AlreadyExists => "AlreadyExists",
        tonic::Code::PermissionDenied => "PermissionDenied",
        tonic::Code::ResourceExhausted => "ResourceExhausted",
        tonic::Code::FailedPrecondition => "FailedPrecondition",
        tonic::Code::Aborted => "Aborted",
        tonic::Code::OutOfRange => "OutOfRange",
        tonic::Code::Unimplemented => "Unimplemented",
        tonic::Code::Internal => "Internal",
        tonic::Code::Unavailable => "Unavailable",
        tonic::Code::DataLoss => "DataLoss",
        tonic::Code::Unauthenticated => "Unauthenticated",
    }
}

/// Held by whoever works on a volume.
pub type Turn = tokio::sync::OwnedMutexGuard<()>;

/// By driver and volume handle.
type Turns = BTreeMap<(String, String), Arc<tokio::sync::Mutex<()>>>;

/// The drivers that have registered, and whose turn it is with each volume.
#[derive(Debug, Default)]
pub struct Drivers {
    counts: Arc<CsiCounts>,
    known: Mutex<BTreeMap<String, Driver>>,
    turns: Mutex<Turns>,
    /// What this agent published, for statistics.
    published: Mutex<BTreeMap<Key, Published>>,
    /// What is attached and perhaps in use, by the cluster's names.
    held: watch::Sender<BTreeSet<String>>,
}

impl Drivers {
    /// A driver registered, or did so again elsewhere.
    pub fn add(&self, name: &str, driver: Driver) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), driver);
    }

    /// Calls to drivers, for those that say so.
    pub fn counts(&self) -> &Arc<CsiCounts> {
        &self.counts
    }

    /// Its socket is gone.
    pub fn remove(&self, name: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The driver of that name, for the operation `wanted_by`.
    ///
    /// # Errors
    /// [`CsiError::NoDriver`].
    pub fn get(&self, name: &str, wanted_by: &'static str) -> Result<Driver, CsiError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).cloned().ok_or_else(|| CsiError::NoDriver { wanted_by, name: name.to_owned() })
    }

    /// Volumes that must not be detached, by the cluster's names for them: those on their way up, up, and on their way down.
    pub fn held(&self) -> watch::Receiver<BTreeSet<String>> {
        self.held.subscribe()
    }

    /// A volume is used from now on.
    pub(super) fn hold(&self, driver: &str, handle: &str) {
        let name = unique_name(driver, handle);
        self.held.send_if_modified(|all| all.insert(name));
    }

    /// A volume is used no more.
    pub(super) fn let_go(&self, driver: &str, handle: &str) {
        let name = unique_name(driver, handle);
        self.held.send_if_modified(|all| all.remove(&name));
    }

    pub(super) fn note(&self, key: Key, published: Published) {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).insert(key, published);
    }

    pub(super) fn forget(&self, key: &Key) {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// What of a pod's volumes was published.
    pub fn published(&self, uid: &str) -> Vec<Published> {
        let all = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|((of, _), _)| of == uid).map(|(_, published)| published.clone()).collect()
    }

    /// Held while a volume is brought up or taken down. Turns that nobody holds are forgotten.
    pub async fn turn(&self, driver: &str, handle: &str) -> Turn {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry((driver.to_owned(), handle.to_owned())).or_default().clone()
        };
        turn.lock_owned().await
    }
}
