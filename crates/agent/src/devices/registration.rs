//! The socket on which plugins register, and who is told what they bring.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rubelet_api::ids::PodUid;
use rubelet_core::node::NodeFacts;
use rubelet_core::resources::devices::{VERSION, is_resource_name};
use rubelet_cri::AnyAuthority;
use rubelet_host::chain;
use rubelet_proto::deviceplugin::{Empty, RegisterRequest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::Status;
use tonic_prost::ProstCodec;

use super::{Devices, SOCKET, remove_sockets};
use crate::life::Life;
use crate::roster::RosterNote;

/// Connections at a time; more wait until one is closed.
const CONNECTIONS_MAX: usize = 64;
/// How long nothing is accepted after the system refused a connection.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Lets plugins register, and tells node and pods what comes of it.
pub(crate) fn spawn(
    life: &Life,
    devices: Arc<Devices>,
    node: watch::Sender<Arc<NodeFacts>>,
    roster: mpsc::Sender<RosterNote>,
) {
    take_registrations(life, &devices);
    let expiring = devices.clone();
    life.spawn(async move { expiring.expire().await });
    life.spawn(tell_node(devices.clone(), node));
    life.spawn(tell_pods(devices.changed.clone(), roster));
}

/// Listens on the socket.
pub(super) fn take_registrations(life: &Life, devices: &Arc<Devices>) {
    match listen(devices) {
        Ok(listener) => drop(life.spawn(serve(listener, devices.clone(), life.clone()))),
        Err(e) => {
            let why = chain(&e);
            tracing::error!(err = why, dir = %devices.dir.display(), "no device plugin can register");
            let why = format!(
                "device registration error: device plugin registration gRPC server failed and no device plugins can register: {why}"
            );
            *devices.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
    }
}

fn listen(devices: &Devices) -> io::Result<UnixListener> {
    rubelet_host::paths::ensure_dir(&devices.dir, 0o750).map_err(io::Error::other)?;
    remove_sockets(&devices.dir)?;
    UnixListener::bind(devices.dir.join(SOCKET))
}

async fn tell_node(devices: Arc<Devices>, node: watch::Sender<Arc<NodeFacts>>) {
    let mut counts = devices.counts.subscribe();
    loop {
        let new = counts.borrow_and_update().clone();
        node.send_if_modified(|facts| {
            let has_changed = facts.devices != new;
            if has_changed {
                *facts = Arc::new(NodeFacts { devices: new, ..(**facts).clone() });
            }
            has_changed
        });
        if counts.changed().await.is_err() {
            return;
        }
    }
}

/// Has the roster tell each of these pods how its devices are.
pub(crate) async fn tell_pods(pods: watch::Sender<BTreeSet<PodUid>>, roster: mpsc::Sender<RosterNote>) {
    let sender = pods;
    let mut changed = sender.subscribe();
    while changed.changed().await.is_ok() {
        let mut pods = Default::default();
        // Who is told of is taken out; that is no change that anybody waits for.
        sender.send_if_modified(|known| {
            pods = std::mem::take(known);
            false
        });
        for uid in pods {
            if roster.send(RosterNote::Devices(uid)).await.is_err() {
                return;
            }
        }
    }
}

async fn serve(listener: UnixListener, devices: Arc<Devices>, life: Life) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let permit = room.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let (devices, of) = (devices.clone(), life.clone());
                life.spawn(async move {
                    connection(devices, of, stream).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection of a device plugin");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

async fn connection(devices: Arc<Devices>, life: Life, stream: UnixStream) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let registering = Registering { devices: devices.clone(), life: life.clone() };
        async move {
            if request.uri().path() != "/v1beta1.Registration/Register" {
                let text = format!("unknown method {}", request.uri().path());
                return Ok::<_, Infallible>(Status::unimplemented(text).into_http());
            }
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Empty, RegisterRequest>::default());
            Ok(grpc.unary(registering, request).await)
        }
    });
    // How a connection ends is the client's affair: what it asked for was answered, or nobody waits for it.
    let stream = TokioIo::new(AnyAuthority::new(stream));
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
}

struct Registering {
    devices: Arc<Devices>,
    life: Life,
}

impl tonic::server::UnaryService<RegisterRequest> for Registering {
    type Response = Empty;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Empty>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<RegisterRequest>) -> Self::Future {
        let (devices, life) = (self.devices.clone(), self.life.clone());
        Box::pin(async move {
            let request = request.into_inner();
            match devices.register(&request, &life).await {
                Ok(()) => Ok(tonic::Response::new(Empty {})),
                Err(why) => {
                    tracing::error!(resource = request.resource_name, err = why, "device plugin is not registered");
                    Err(Status::unknown(why))
                }
            }
        })
    }
}

impl Devices {
    async fn register(self: &Arc<Self>, request: &RegisterRequest, life: &Life) -> Result<(), String> {
        let RegisterRequest { version, endpoint, resource_name, .. } = request;
        self.metrics.node.device_registrations.of(&[resource_name]).add_one();
        if version != VERSION {
            return Err(format!(
                "requested API version {version:?} is not supported by kubelet. Supported version is [{VERSION:?}]"
            ));
        }
        if !is_resource_name(resource_name) {
            return Err(format!("the ResourceName {resource_name:?} is invalid"));
        }
        self.connect(resource_name, &self.dir.join(endpoint), life).await
    }

    /// A plugin whose socket was found in the registry.
    ///
    /// # Errors
    /// Why it is not registered, in words for the plugin.
    pub(crate) async fn found(
        self: &Arc<Self>,
        plugin: &rubelet_volumes::csi::Plugin,
        life: &Life,
    ) -> Result<(), String> {
        let (name, versions) = (&plugin.name, &plugin.versions);
        if !versions.iter().any(|version| version == VERSION) {
            return Err(format!(
                "manager version, {VERSION}, is not among plugin supported versions [{}]",
                versions.join(" ")
            ));
        }
        if !is_resource_name(name) {
            return Err(format!("invalid name of device plugin socket: the ResourceName {name:?} is invalid"));
        }
        self.connect(name, &plugin.endpoint, life).await
    }
}
