//! A small driver on a real socket, which binds directories.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rubelet_core::pod::step::{CsiVolume, VolumeKind, VolumePlan};
use rubelet_core::pod::volumes::csi_staging;
use rubelet_host::mount as host_mount;
use tokio::net::UnixListener;

use super::messages::{
    Capabilities, Empty, PluginFacts, Publish, RegistrationStatus, RpcCapability, ServiceCapability, Stage, Undo,
};
use super::*;
use crate::testing::in_private_namespace;

/// The driver `d`: what it was asked, and what it refuses.
#[derive(Default)]
struct Played {
    calls: Mutex<Vec<String>>,
    failing: Mutex<BTreeMap<&'static str, &'static str>>,
    /// Whether volumes are staged.
    stages: bool,
    disk: PathBuf,
}

impl Played {
    fn answer(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        let verb = path.rsplit('/').next().unwrap();
        if let Some((_, why)) = self.failing.lock().unwrap().iter().find(|(of, _)| verb == **of) {
            self.note(format!("{verb} fails"));
            return Err((*why).to_owned());
        }
        Ok(match verb {
            "GetInfo" => PluginFacts {
                kind: "CSIPlugin".into(),
                name: "d".into(),
                endpoint: String::new(),
                supported_versions: vec!["1.0.0".into()],
            }
            .encode_to_vec(),
            "NotifyRegistrationStatus" => {
                let status = RegistrationStatus::decode(body).unwrap();
                self.note(format!("registered: {} {}", status.plugin_registered, status.error));
                Empty {}.encode_to_vec()
            }
            "NodeGetInfo" => NodeFacts { node_id: "here".into(), volumes_max: 5, topology: None }.encode_to_vec(),
            "NodeGetCapabilities" => {
                let kind = if self.stages { Capabilities::STAGE_UNSTAGE } else { 99 };
                let capabilities = vec![ServiceCapability { rpc: Some(RpcCapability { kind }) }];
                Capabilities { capabilities }.encode_to_vec()
            }
            "NodeStageVolume" => {
                let stage = Stage::decode(body).unwrap();
                self.note(format!("stage {} {}", stage.volume_id, stage.secrets["s"]));
                let to = Path::new(&stage.staging_target_path);
                if !host_mount::is_mount_point(to).unwrap() {
                    host_mount::bind(&self.disk, to).unwrap();
                }
                Empty {}.encode_to_vec()
            }
            "NodePublishVolume" => {
                let publish = Publish::decode(body).unwrap();
                let mode = publish.volume_capability.unwrap().access_mode.unwrap().mode;
                self.note(format!("publish {} mode {mode} {:?}", publish.volume_id, publish.volume_context));
                let from = if publish.staging_target_path.is_empty() {
                    self.disk.clone()
                } else {
                    publish.staging_target_path.into()
                };
                let to = Path::new(&publish.target_path);
                fs::create_dir_all(to).unwrap();
                if !host_mount::is_mount_point(to).unwrap() {
                    host_mount::bind(&from, to).unwrap();
                }
                Empty {}.encode_to_vec()
            }
            "NodeUnpublishVolume" | "NodeUnstageVolume" => {
                let undo = Undo::decode(body).unwrap();
                self.note(format!(
                    "{} {}",
                    if verb.contains("stage") { "unstage" } else { "unpublish" },
                    undo.volume_id
                ));
                let at = Path::new(&undo.path);
                if at.exists() && host_mount::is_mount_point(at).unwrap() {
                    host_mount::unmount(at, host_mount::Unmount::Plain).unwrap();
                }
                Empty {}.encode_to_vec()
            }
            other => panic!("{other}"),
        })
    }

    fn note(&self, words: String) {
        self.calls.lock().unwrap().push(words);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

/// One gRPC answer: the message, then the status in trailers.
async fn serve_one(played: Arc<Played>, request: hyper::Request<Incoming>) -> hyper::Response<Answer> {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body().collect().await.unwrap().to_bytes();
    body.advance(5);
    let mut frames = Vec::new();
    let mut trailers = http::HeaderMap::new();
    match played.answer(&path, &body) {
        Ok(message) => {
            let mut framed = vec![0];
            framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            framed.extend(message);
            frames.push(Ok(Frame::data(Bytes::from(framed))));
            trailers.insert("grpc-status", "0".parse().unwrap());
        }
        Err(why) => {
            trailers.insert("grpc-status", "13".parse().unwrap());
            trailers.insert("grpc-message", why.parse().unwrap());
        }
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let answer = StreamBody::new(Frames(frames.into()));
    hyper::Response::builder().header("content-type", "application/grpc").body(answer).unwrap()
}

type Answer = StreamBody<Frames>;

/// Frames that are there already.
struct Frames(std::collections::VecDeque<Result<Frame<Bytes>, Infallible>>);

impl futures_util::Stream for Frames {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.pop_front())
    }
}

fn listen(played: Arc<Played>, socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let played = played.clone();
            let service = hyper::service::service_fn(move |request| {
                let played = played.clone();
                async move { Ok::<_, Infallible>(serve_one(played, request).await) }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
}

/// Runs in a mount namespace and a runtime of its own.
fn alone<F: std::future::Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    in_private_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
}

struct World {
    dir: tempfile::TempDir,
    played: Arc<Played>,
    drivers: Drivers,
}

impl World {
    fn new(stages: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir_all(&disk).unwrap();
        fs::create_dir_all(dir.path().join("root/plugins_registry")).unwrap();
        fs::write(disk.join("kept"), "x").unwrap();
        let played = Arc::new(Played { stages, disk, ..Played::default() });
        listen(played.clone(), &dir.path().join("root/plugins_registry/d-reg.sock"));
        Self { dir, played, drivers: Drivers::default() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn plan(&self, uid: &str, is_ephemeral: bool) -> VolumePlan {
        let volume = CsiVolume {
            driver: "d".into(),
            handle: "h".into(),
            node: "node-a".into(),
            attributes: [("a".to_owned(), "b".to_owned())].into(),
            publish_context: BTreeMap::new(),
            fs_type: "ext4".into(),
            mount_flags: Vec::new(),
            access_mode: "ReadWriteOnce".into(),
            is_read_only: false,
            stage_secrets: [("s".to_owned(), "word".to_owned())].into(),
            publish_secrets: BTreeMap::new(),
            is_ephemeral,
            attachment: "csi-1".into(),
            staging: csi_staging(&self.root(), "d", "h"),
            mount_group: None,
        };
        VolumePlan {
            volume: "v".into(),
            name: "pv-1".into(),
            path: self.root().join("pods").join(uid).join("volumes/kubernetes.io~csi/pv-1/mount"),
            kind: VolumeKind::Csi(Box::new(volume)),
            fs_group: Some(3000),
            fs_group_on_root_mismatch: false,
        }
    }

    async fn mount(&self, uid: &str, is_ephemeral: bool) -> Result<PathBuf, String> {
        let plan = self.plan(uid, is_ephemeral);
        let VolumeKind::Csi(volume) = &plan.kind else { unreachable!() };
        let done = mount(&plan, volume, &self.drivers).await;
        done.map(|()| plan.path.clone()).map_err(|e| rubelet_host::chain(&e))
    }

    async fn unmount(&self, uid: &str) -> Result<(), String> {
        unmount_all(&self.root(), uid, &self.drivers).await.map_err(|e| rubelet_host::chain(&e))
    }

    async fn register(&self) {
        let found = sockets(&self.root().join("plugins_registry"));
        let socket = found.first().expect("a socket");
        let plugin = ask(socket).await.unwrap();
        plugin.check_csi().unwrap();
        self.drivers.add(&plugin.name, Driver::at(&plugin.endpoint));
        notify(socket, Ok(())).await.unwrap();
        assert_eq!(self.played.take(), ["registered: true "]);
    }
}

#[test]
fn a_driver_registers_and_says_what_the_node_is() {
    alone(|| async {
        let world = World::new(true);
        let missing = world.mount("1", false).await.unwrap_err();
        assert_eq!(
            missing,
            "MountVolume.MountDevice failed for volume \"pv-1\" : kubernetes.io/csi: attacher.MountDevice failed to \
             create newCsiDriverClient: driver name d not found in the list of registered CSI drivers"
        );
        world.register().await;
        let info = world.drivers.get("d", "").unwrap().node_info().await.unwrap();
        assert_eq!((info.node_id.as_str(), info.volumes_max), ("here", 5));
        let other = Plugin {
            kind: "DevicePlugin".into(),
            name: "x".into(),
            endpoint: PathBuf::new(),
            versions: vec!["v1beta1".into()],
        };
        assert_eq!(other.check_csi(), Err("no handler registered for plugin type: DevicePlugin".to_owned()));
        assert!(Plugin { kind: "CSIPlugin".into(), versions: vec!["0.3.0".into()], ..other }.check_csi().is_err());
    });
}

#[test]
fn a_volume_is_staged_once_for_two_pods_and_unstaged_after_the_last() {
    alone(|| async {
        let world = World::new(true);
        world.register().await;
        let target = world.mount("1", false).await.unwrap();
        assert_eq!(fs::read_to_string(target.join("kept")).unwrap(), "x");
        assert_eq!(world.played.take(), ["stage h word", "publish h mode 1 {\"a\": \"b\"}"]);
        let record = fs::read_to_string(target.parent().unwrap().join("vol_data.json")).unwrap();
        assert_eq!(
            record,
            "{\"attachmentID\":\"csi-1\",\"driverName\":\"d\",\"nodeName\":\"node-a\",\"specVolID\":\"pv-1\",\
             \"volumeHandle\":\"h\",\"volumeLifecycleMode\":\"Persistent\"}\n"
        );
        let group = std::os::unix::fs::MetadataExt::gid(&fs::metadata(target.join("kept")).unwrap());
        assert_eq!(group, 3000);
        world.mount("2", false).await.unwrap();
        world.played.take();

        // Another agent knows the volumes by their records.
        world.unmount("1").await.unwrap();
        assert_eq!(world.played.take(), ["unpublish h"], "the other pod still has it");
        assert!(!target.parent().unwrap().exists());
        world.unmount("2").await.unwrap();
        assert_eq!(world.played.take(), ["unpublish h", "unstage h"]);
        let left = fs::read_dir(world.root().join("plugins/kubernetes.io/csi/d")).unwrap().count();
        assert_eq!((left, host_mount::at_or_below(&world.root()).unwrap().len()), (0, 0));
        world.unmount("2").await.unwrap();
        assert!(world.played.take().is_empty());
    });
}

#[test]
fn what_a_driver_refuses_is_told_and_tried_again() {
    alone(|| async {
        let world = World::new(true);
        world.register().await;
        world.played.failing.lock().unwrap().insert("NodeStageVolume", "no disk");
        let told = world.mount("1", false).await.unwrap_err();
        assert_eq!(
            told,
            "MountVolume.MountDevice failed for volume \"pv-1\" : rpc error: code = Internal desc = no disk"
        );
        world.played.failing.lock().unwrap().clear();
        let target = world.mount("1", false).await.unwrap();
        world.played.failing.lock().unwrap().insert("NodeUnpublishVolume", "busy");
        assert_eq!(world.unmount("1").await.unwrap_err(), "rpc error: code = Internal desc = busy");
        assert!(target.exists());
        world.drivers.remove("d");
        assert!(world.unmount("1").await.unwrap_err().contains("driver name d not found"));
        world.register_again().await;
        world.unmount("1").await.unwrap();
    });
}

#[test]
fn an_inline_volume_is_not_staged_and_a_leftover_is_unstaged() {
    alone(|| async {
        let world = World::new(true);
        world.register().await;
        world.mount("1", true).await.unwrap();
        assert_eq!(world.played.take(), ["publish h mode 1 {\"a\": \"b\"}"]);
        world.unmount("1").await.unwrap();
        assert_eq!(world.played.take(), ["unpublish h"]);

        // An agent that ended between unpublishing and unstaging leaves a staged volume behind.
        world.mount("1", false).await.unwrap();
        world.played.failing.lock().unwrap().insert("NodeUnstageVolume", "later");
        world.unmount("1").await.unwrap_err();
        world.played.failing.lock().unwrap().clear();
        world.played.take();
        unstage_unused(&world.root(), "d", &world.drivers).await.unwrap();
        assert_eq!(world.played.take(), ["unstage h"]);
        unstage_unused(&world.root(), "d", &world.drivers).await.unwrap();
        assert!(world.played.take().is_empty());
    });
}

impl World {
    async fn register_again(&self) {
        self.played.failing.lock().unwrap().clear();
        self.played.take();
        self.register().await;
    }
}
