//! The life of a pod, with every verb that changes something.

use std::path::Path;
use std::time::Duration;

use http::Uri;
use rubelet_api::ids::{ContainerId, SandboxId};
use rubelet_cri::Runtime;
use rubelet_proto::cri;
use rubelet_runtime::Embedded;
use rubelet_streaming::client::{self, Process, Wanted};
use rubelet_streaming::{Reader, Status, spdy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agent::PARENT;
use crate::archive::{IMAGE, archive};
use crate::registry;

/// A program that is run beside the first one and goes on until somebody ends it. Its argument is nobody else's.
pub(crate) const LONG: [&str; 2] = ["sleep", "4321"];
const V4: &str = "v4.channel.k8s.io";
/// Nobody gives up in the time of a test, but where a deadline is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 80;

/// Says what it hears, and ends when it is asked to. What it starts beside itself outlives it.
const SCRIPT: &str = "trap 'echo bye; exit 3' TERM; nc -ll -p 80 -e cat & sleep 1234 & echo hello
while :; do read line <&0 && echo heard $line || sleep 1; done";

/// Images from a registry and from an archive.
pub(crate) async fn bring_images(embedded: &Embedded) {
    let spec = cri::ImageSpec { image: registry::serve(), ..Default::default() };
    embedded.pull_image(spec, None, None).await.unwrap();
    // The layer that both have would not be unpacked again.
    remove_images(embedded).await;
    let (images, archive) = (embedded.images().clone(), archive());
    tokio::task::spawn_blocking(move || images.import(archive.as_slice(), "test", false)).await.unwrap().unwrap();
}

/// Removes all images, as who collects them does, and what pulls have left.
pub(crate) async fn remove_images(embedded: &Embedded) {
    for image in embedded.list_images(None).await.unwrap() {
        let spec = cri::ImageSpec { image: image.id, ..Default::default() };
        embedded.remove_image(spec).await.unwrap();
    }
    embedded.images().collect().await.unwrap();
}

/// From its beginning to its end. `is_long`: what is run in the container goes on until it is ended; `has_users`: there is another pod, with
/// users of its own.
pub(crate) async fn live(embedded: &Embedded, dir: &Path, is_long: bool, has_users: bool) {
    bring_images(embedded).await;
    let sandbox = embedded.run_pod_sandbox(pod(dir, Users::TheHosts), "").await.unwrap();
    let main = create(embedded, &sandbox, pod(dir, Users::TheHosts), "main").await;
    embedded.start_container(&main).await.unwrap();
    let command = if is_long { &LONG[..] } else { &["echo", "there"] };
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    let said = embedded.exec_sync(&main, command, PATIENCE).await.unwrap();
    assert_eq!((said.stdout.as_slice(), said.exit_code), (&b"there\n"[..], 0));
    streams(embedded, &sandbox, &main).await;
    changes(embedded, dir, &sandbox, &main).await;
    embedded.stop_container(&main, 10).await.unwrap();
    let status = embedded.container_status(&main, false).await.unwrap().status.unwrap();
    assert_eq!((status.state(), status.exit_code), (cri::ContainerState::ContainerExited, 3));
    embedded.remove_container(&main).await.unwrap();
    // One that is stopped with its sandbox, and one that never ran.
    let second = create(embedded, &sandbox, pod(dir, Users::TheHosts), "second").await;
    embedded.start_container(&second).await.unwrap();
    create(embedded, &sandbox, pod(dir, Users::TheHosts), "third").await;
    embedded.stop_pod_sandbox(&sandbox).await.unwrap();
    embedded.remove_pod_sandbox(&sandbox).await.unwrap();
    if has_users {
        live_with_own_users(embedded, dir).await;
    }
    remove_images(embedded).await;
}

/// A pod whose pause process makes the namespaces.
async fn live_with_own_users(embedded: &Embedded, dir: &Path) {
    let own = embedded.run_pod_sandbox(pod(dir, Users::Own), "").await.unwrap();
    let main = create(embedded, &own, pod(dir, Users::Own), "main").await;
    embedded.start_container(&main).await.unwrap();
    embedded.stop_pod_sandbox(&own).await.unwrap();
    embedded.remove_pod_sandbox(&own).await.unwrap();
}

/// Whose users those of a pod are.
#[derive(Clone, Copy)]
enum Users {
    TheHosts,
    Own,
}

impl Users {
    fn namespaces(self) -> cri::NamespaceOption {
        let map = cri::IdMapping { host_id: 1_000_000, container_id: 0, length: 65536 };
        let mode = cri::NamespaceMode::Pod.into();
        let own = cri::UserNamespace { mode, uids: vec![map], gids: vec![map] };
        let userns_options = match self {
            Self::TheHosts => None,
            Self::Own => Some(own),
        };
        cri::NamespaceOption { userns_options, ..Default::default() }
    }
}

fn pod(dir: &Path, users: Users) -> cri::PodSandboxConfig {
    let metadata =
        cri::PodSandboxMetadata { name: "pod".into(), uid: "uid".into(), namespace: "default".into(), attempt: 0 };
    let security =
        cri::LinuxSandboxSecurityContext { namespace_options: Some(users.namespaces()), ..Default::default() };
    let linux = cri::LinuxPodSandboxConfig {
        cgroup_parent: PARENT.into(),
        security_context: Some(security),
        ..Default::default()
    };
    cri::PodSandboxConfig {
        metadata: Some(metadata),
        log_directory: dir.join("logs").display().to_string(),
        port_mappings: vec![cri::PortMapping { host_port: 8080, container_port: 80, ..Default::default() }],
        linux: Some(linux),
        ..Default::default()
    }
}

/// A container with a volume that is an image.
async fn create(embedded: &Embedded, sandbox: &SandboxId, pod: cri::PodSandboxConfig, name: &str) -> ContainerId {
    let of_pod = pod.linux.as_ref().and_then(|l| l.security_context.as_ref()).and_then(|s| s.namespace_options.clone());
    let security = cri::LinuxContainerSecurityContext { namespace_options: of_pod, ..Default::default() };
    let resources = cri::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    let image = cri::ImageSpec { image: IMAGE.into(), ..Default::default() };
    let volume = cri::Mount {
        container_path: "/image".into(),
        image: Some(image.clone()),
        readonly: true,
        ..Default::default()
    };
    let config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(image),
        command: ["sh", "-c", SCRIPT].map(str::to_owned).to_vec(),
        log_path: format!("{name}.log"),
        stdin: true,
        mounts: vec![volume],
        linux: Some(cri::LinuxContainerConfig { resources: Some(resources), security_context: Some(security) }),
        ..Default::default()
    };
    embedded.create_container(sandbox, config, pod).await.unwrap()
}

/// Exec, attach and port-forward by their URLs.
async fn streams(embedded: &Embedded, sandbox: &SandboxId, main: &ContainerId) {
    let request = cri::ExecRequest {
        container_id: main.to_string(),
        cmd: vec!["cat".into()],
        tty: false,
        stdin: true,
        stdout: true,
        stderr: true,
    };
    let connection = open(&embedded.exec(request).await.unwrap(), V4).await;
    let mut process = process(&connection).await;
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(b"word").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(text(process.stdout.take().unwrap()).await, "word");
    assert_eq!(client::end(process.error).await.unwrap(), Status::Success);
    let request =
        cri::AttachRequest { container_id: main.to_string(), tty: false, stdin: true, stdout: true, stderr: true };
    let connection = open(&embedded.attach(request).await.unwrap(), V4).await;
    let mut process = self::process(&connection).await;
    process.stdin.as_mut().unwrap().write_all(b"a line\n").await.unwrap();
    // Its first word may come before.
    let mut heard = String::new();
    while !heard.ends_with("heard a line\n") {
        heard.push(char::from(process.stdout.as_mut().unwrap().read_u8().await.unwrap()));
    }
    drop((process, connection));
    while forward(embedded, sandbox).await != "word" {
        // It does not listen yet.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a port of the pod says to a word.
async fn forward(embedded: &Embedded, sandbox: &SandboxId) -> String {
    let request = cri::PortForwardRequest { pod_sandbox_id: sandbox.to_string(), port: Vec::new() };
    let connection = open(&embedded.port_forward(request).await.unwrap(), "portforward.k8s.io").await;
    let (stream, _error) = client::port(&connection, PORT, "0").await.unwrap();
    let (mut reader, mut writer) = stream.split();
    // It may be refused before it is said.
    let _ = writer.write_all(b"word").await;
    let _ = writer.shutdown().await;
    let mut answer = String::new();
    let _ = reader.read_to_string(&mut answer).await;
    answer
}

async fn open(url: &str, protocol: &str) -> spdy::Connection {
    let url: Uri = url.parse().unwrap();
    let io = client::dial(&url).await.unwrap();
    client::spdy(io, &url, &[protocol], spdy::Options::default()).await.unwrap().0
}

async fn process(connection: &spdy::Connection) -> Process {
    let all = Wanted { stdin: true, stdout: true, stderr: true, resize: false };
    client::process(connection, all).await.unwrap()
}

async fn text(mut stream: Reader) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// A log that is opened anew, and other resources.
async fn changes(embedded: &Embedded, dir: &Path, sandbox: &SandboxId, main: &ContainerId) {
    std::fs::rename(dir.join("logs/main.log"), dir.join("logs/main.log.1")).unwrap();
    embedded.reopen_container_log(main).await.unwrap();
    assert!(dir.join("logs/main.log").exists());
    let resources = cri::LinuxContainerResources { memory_limit_in_bytes: 96 << 20, ..Default::default() };
    let request = cri::UpdateContainerResourcesRequest {
        container_id: main.to_string(),
        linux: Some(resources.clone()),
        ..Default::default()
    };
    embedded.update_container_resources(request).await.unwrap();
    let request = cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: sandbox.to_string(),
        resources: Some(resources),
        ..Default::default()
    };
    embedded.update_pod_sandbox_resources(request).await.unwrap();
}
