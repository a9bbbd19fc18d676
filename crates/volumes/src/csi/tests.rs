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

use rubelet_core::pod::step::{CsiDevice, DeviceMap, Expansion};
use rubelet_proto::csi as said;
use rubelet_proto::csi::node_service_capability::rpc::Type;
use rubelet_proto::csi::volume_capability::AccessType;
use rubelet_proto::csi::volume_usage::Unit;
use rubelet_proto::registration::{PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use rustix::fs::{FileType, Mode, makedev, mknodat};

use super::*;
use crate::testing::in_private_namespace;

/// The driver `d`: what it was asked, and what it refuses.
#[derive(Default)]
struct Played {
    calls: Mutex<Vec<String>>,
    failing: Mutex<BTreeMap<&'static str, &'static str>>,
    /// What it can.
    can: Vec<Type>,
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
            "GetInfo" => PluginInfo {
                r#type: "CSIPlugin".into(),
                name: "d".into(),
                endpoint: String::new(),
                supported_versions: vec!["1.0.0".into()],
            }
            .encode_to_vec(),
            "NotifyRegistrationStatus" => {
                let status = RegistrationStatus::decode(body).unwrap();
                self.note(format!("registered: {} {}", status.plugin_registered, status.error));
                RegistrationStatusResponse {}.encode_to_vec()
            }
            "NodeGetInfo" => {
                NodeFacts { node_id: "here".into(), max_volumes_per_node: 5, accessible_topology: None }.encode_to_vec()
            }
            "NodeGetCapabilities" => {
                let rpc = |kind: &Type| said::NodeServiceCapability {
                    r#type: Some(said::node_service_capability::Type::Rpc(said::node_service_capability::Rpc {
                        r#type: (*kind).into(),
                    })),
                };
                let capabilities = self.can.iter().map(rpc).collect();
                said::NodeGetCapabilitiesResponse { capabilities }.encode_to_vec()
            }
            "NodeStageVolume" => self.stage(&said::NodeStageVolumeRequest::decode(body).unwrap()),
            "NodeExpandVolume" => {
                let expand = said::NodeExpandVolumeRequest::decode(body).unwrap();
                let bytes = expand.capacity_range.unwrap().required_bytes;
                let at = Path::new(&expand.volume_path).file_name().unwrap().display().to_string();
                self.note(format!("expand {} to {bytes} at {at} {}", expand.volume_id, expand.secrets["s"]));
                said::NodeExpandVolumeResponse { capacity_bytes: bytes }.encode_to_vec()
            }
            "NodeGetVolumeStats" => {
                let asked = said::NodeGetVolumeStatsRequest::decode(body).unwrap();
                assert!(asked.volume_path.ends_with("/mount"), "{asked:?}");
                let usage = vec![said::VolumeUsage { available: 7, total: 10, used: 3, unit: Unit::Bytes.into() }];
                said::NodeGetVolumeStatsResponse { usage, volume_condition: None }.encode_to_vec()
            }
            "NodePublishVolume" => self.publish(&said::NodePublishVolumeRequest::decode(body).unwrap()),
            "NodeUnpublishVolume" | "NodeUnstageVolume" => {
                // Both have the same shape.
                let undo = said::NodeUnpublishVolumeRequest::decode(body).unwrap();
                self.note(format!(
                    "{} {}",
                    if verb.contains("stage") { "unstage" } else { "unpublish" },
                    undo.volume_id
                ));
                let at = Path::new(&undo.target_path);
                if at.exists() && host_mount::is_mount_point(at).unwrap() {
                    host_mount::unmount(at, host_mount::Unmount::Plain).unwrap();
                }
                said::NodeUnpublishVolumeResponse {}.encode_to_vec()
            }
            other => panic!("{other}"),
        })
    }

    fn stage(&self, stage: &said::NodeStageVolumeRequest) -> Vec<u8> {
        let to = Path::new(&stage.staging_target_path);
        if is_block(stage.volume_capability.as_ref()) {
            assert!(to.is_dir());
            self.note(format!("stage device {}", stage.volume_id));
        } else {
            self.note(format!("stage {} {}", stage.volume_id, stage.secrets["s"]));
            if !host_mount::is_mount_point(to).unwrap() {
                host_mount::bind(&self.disk, to).unwrap();
            }
        }
        said::NodeStageVolumeResponse {}.encode_to_vec()
    }

    fn publish(&self, publish: &said::NodePublishVolumeRequest) -> Vec<u8> {
        let to = Path::new(&publish.target_path);
        if is_block(publish.volume_capability.as_ref()) {
            self.note(format!("publish device {}", publish.volume_id));
            if !to.exists() {
                fs::write(to, "").unwrap();
                host_mount::bind(&self.disk.join("device"), to).unwrap();
            }
            return said::NodePublishVolumeResponse {}.encode_to_vec();
        }
        let mode = publish.volume_capability.as_ref().unwrap().access_mode.unwrap().mode;
        self.note(format!("publish {} mode {mode} {:?}", publish.volume_id, publish.volume_context));
        let staged = (!publish.staging_target_path.is_empty()).then(|| PathBuf::from(&publish.staging_target_path));
        fs::create_dir_all(to).unwrap();
        if !host_mount::is_mount_point(to).unwrap() {
            host_mount::bind(staged.as_deref().unwrap_or(&self.disk), to).unwrap();
        }
        said::NodePublishVolumeResponse {}.encode_to_vec()
    }

    fn note(&self, words: String) {
        self.calls.lock().unwrap().push(words);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

fn is_block(capability: Option<&said::VolumeCapability>) -> bool {
    matches!(capability.and_then(|c| c.access_type.as_ref()), Some(AccessType::Block(_)))
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
    fn new(can: &[Type]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir_all(&disk).unwrap();
        fs::create_dir_all(dir.path().join("root/plugins_registry")).unwrap();
        fs::write(disk.join("kept"), "x").unwrap();
        let played = Arc::new(Played { can: can.to_vec(), disk, ..Played::default() });
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
            device: None,
            is_attached: true,
            is_exclusive: false,
            is_again: false,
            expansion: None,
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
        self.mount_with(uid, is_ephemeral, |_, _| {}).await
    }

    /// Mounts the usual volume but for what `change` makes of it.
    async fn mount_with(
        &self,
        uid: &str,
        is_ephemeral: bool,
        change: impl FnOnce(&mut VolumePlan, &Path),
    ) -> Result<PathBuf, String> {
        let mut plan = self.plan(uid, is_ephemeral);
        change(&mut plan, &self.root());
        let VolumeKind::Csi(volume) = &plan.kind else { unreachable!() };
        let done = self.bring_up(uid, &plan, volume).await;
        done.map(|()| plan.path.clone()).map_err(|e| rubelet_host::chain(&e))
    }

    async fn bring_up(&self, uid: &str, plan: &VolumePlan, volume: &CsiVolume) -> Result<(), crate::MountError> {
        let root_dir = self.root();
        let mounting = Mounting::begin(Place { root_dir: &root_dir, uid }, plan, volume, &self.drivers).await?;
        if !volume.is_again {
            mounting.stage().await?;
        }
        mounting.publish().await
    }

    fn held(&self) -> usize {
        self.drivers.held().borrow().len()
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
        let world = World::new(&[Type::StageUnstageVolume]);
        let missing = world.mount("1", false).await.unwrap_err();
        assert_eq!(
            missing,
            "MountVolume.MountDevice failed for volume \"pv-1\" : kubernetes.io/csi: attacher.MountDevice failed to \
             create newCsiDriverClient: driver name d not found in the list of registered CSI drivers"
        );
        world.register().await;
        let info = world.drivers.get("d", "").unwrap().node_info().await.unwrap();
        assert_eq!((info.node_id.as_str(), info.max_volumes_per_node), ("here", 5));
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
        let world = World::new(&[Type::StageUnstageVolume]);
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
        assert_eq!(world.held(), 1);
        assert_eq!(world.played.take(), ["unpublish h"], "the other pod still has it");
        assert!(!target.parent().unwrap().exists());
        world.unmount("2").await.unwrap();
        assert_eq!(world.played.take(), ["unpublish h", "unstage h"]);
        let left = fs::read_dir(world.root().join("plugins/kubernetes.io/csi/d")).unwrap().count();
        assert_eq!(world.held(), 0);
        assert_eq!((left, host_mount::at_or_below(&world.root()).unwrap().len()), (0, 0));
        world.unmount("2").await.unwrap();
        assert!(world.played.take().is_empty());
    });
}

#[test]
fn what_a_driver_refuses_is_told_and_tried_again() {
    alone(|| async {
        let world = World::new(&[Type::StageUnstageVolume]);
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
        let world = World::new(&[Type::StageUnstageVolume]);
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

fn csi(plan: &mut VolumePlan) -> &mut CsiVolume {
    match &mut plan.kind {
        VolumeKind::Csi(volume) => volume,
        other => panic!("{other:?}"),
    }
}

/// The usual volume as a device, as upstream lays it out.
fn as_device(uid: &str) -> impl FnOnce(&mut VolumePlan, &Path) {
    move |plan, root| {
        let all = root.join("plugins/kubernetes.io/csi/volumeDevices");
        plan.path = root.join("pods").join(uid).join("volumeDevices/kubernetes.io~csi/pv-1");
        plan.fs_group = None;
        let volume = csi(plan);
        volume.staging = all.join("staging/pv-1");
        volume.device = Some(CsiDevice {
            map: DeviceMap { global: all.join("pv-1/dev"), pod: uid.to_owned() },
            publish: all.join("publish/pv-1").join(uid),
            record: all.join("pv-1/data"),
        });
    }
}

#[test]
fn a_device_is_bound_and_linked_and_nothing_of_it_stays() {
    alone(|| async {
        let world = World::new(&[Type::StageUnstageVolume]);
        world.register().await;
        let device = world.played.disk.join("device");
        mknodat(rustix::fs::CWD, &device, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, makedev(7, 200)).unwrap();
        let link = world.mount_with("1", false, as_device("1")).await.unwrap();
        assert_eq!(world.played.take(), ["stage device h", "publish device h"]);
        let rdev = |path: &Path| std::os::unix::fs::MetadataExt::rdev(&fs::metadata(path).unwrap());
        let all = world.root().join("plugins/kubernetes.io/csi/volumeDevices");
        assert_eq!((rdev(&link), rdev(&all.join("pv-1/dev/1"))), (makedev(7, 200), makedev(7, 200)));
        assert_eq!(fs::read_link(&link).unwrap(), all.join("publish/pv-1/1"));
        let record = fs::read_to_string(all.join("pv-1/data/vol_data.json")).unwrap();
        assert_eq!(
            record,
            "{\"attachmentID\":\"csi-1\",\"driverName\":\"d\",\"nodeName\":\"node-a\",\"specVolID\":\"pv-1\",\
             \"volumeHandle\":\"h\"}\n"
        );
        world.mount_with("1", false, as_device("1")).await.unwrap();
        world.mount_with("2", false, as_device("2")).await.unwrap();
        world.played.take();
        world.unmount("1").await.unwrap();
        assert_eq!((world.played.take(), link.exists()), (vec!["unpublish h".to_owned()], false));
        world.unmount("2").await.unwrap();
        assert_eq!(world.played.take(), ["unpublish h", "unstage h"]);
        assert_eq!((world.held(), host_mount::at_or_below(&world.root()).unwrap().len()), (0, 0));
        assert!(!all.join("pv-1").exists() && !all.join("publish/pv-1").exists());
    });
}

#[test]
fn one_pod_at_a_time_has_an_exclusive_volume() {
    alone(|| async {
        let world = World::new(&[Type::StageUnstageVolume, Type::SingleNodeMultiWriter]);
        world.register().await;
        let exclusive = |plan: &mut VolumePlan, _: &Path| {
            csi(plan).is_exclusive = true;
            csi(plan).access_mode = "ReadWriteOncePod".to_owned();
        };
        world.mount_with("1", false, exclusive).await.unwrap();
        assert_eq!(world.played.take()[1], "publish h mode 6 {\"a\": \"b\"}");
        world.mount_with("1", false, exclusive).await.unwrap();
        assert_eq!(
            world.mount_with("2", false, exclusive).await.unwrap_err(),
            "MountVolume.SetUp failed for volume \"pv-1\" : volume uses the ReadWriteOncePod access mode and is already \
             in use by another pod"
        );
        world.unmount("1").await.unwrap();
        world.mount_with("2", false, exclusive).await.unwrap();
        world.unmount("2").await.unwrap();
    });
}

#[test]
fn a_volume_is_published_again_grown_and_told_of() {
    alone(|| async {
        let world = World::new(&[Type::StageUnstageVolume, Type::ExpandVolume, Type::GetVolumeStats]);
        world.register().await;
        world.mount("1", false).await.unwrap();
        world.played.take();
        world.mount_with("1", false, |plan, _| csi(plan).is_again = true).await.unwrap();
        assert_eq!(world.played.take(), ["publish h mode 1 {\"a\": \"b\"}"], "it is not staged again");

        let mut plan = world.plan("1", false);
        let secrets: BTreeMap<String, String> = [("s".to_owned(), "word".to_owned())].into();
        let claim = rubelet_core::pod::needs::ObjectName { namespace: "n".into(), name: "c".into() };
        let expansion = Expansion { claim, size: "2Gi".into(), bytes: 2 << 30, secrets };
        csi(&mut plan).expansion = Some(expansion.clone());
        let (root_dir, volume) = (world.root(), csi(&mut plan).clone());
        let place = Place { root_dir: &root_dir, uid: "1" };
        let mounting = Mounting::begin(place, &plan, &volume, &world.drivers).await.unwrap();
        assert!(mounting.may_grow());
        mounting.grow(&expansion, &plan.path).await.unwrap();
        assert_eq!(world.played.take(), [format!("expand h to {} at mount word", 2_u64 << 30)]);

        let published = world.drivers.published("1");
        assert_eq!((published.len(), published[0].volume.as_str(), published[0].name.as_str()), (1, "v", "pv-1"));
        let (usage, condition) = published[0].usage(&world.drivers).await.unwrap().unwrap();
        assert_eq!((usage.bytes, usage.inodes, condition), (Some((7, 10, 3)), None, None));
        world.unmount("1").await.unwrap();
        assert!(world.drivers.published("1").is_empty());
    });
}

#[test]
fn what_an_earlier_agent_staged_is_held() {
    alone(|| async {
        let world = World::new(&[Type::StageUnstageVolume]);
        world.register().await;
        world.mount("1", false).await.unwrap();
        let later = Drivers::default();
        hold_found(&world.root(), &later).unwrap();
        assert_eq!(later.held().borrow().iter().collect::<Vec<_>>(), ["kubernetes.io/csi/d^h"]);
        world.unmount("1").await.unwrap();
    });
}
