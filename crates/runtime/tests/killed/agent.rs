//! The agent that is killed, and the one that comes after it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rubelet_cri::Runtime;
use rubelet_proto::cri;
use rubelet_runtime::{Embedded, Options};

use crate::archive::{IMAGE, archive};
use crate::{POINT, REACHED, registry};

const PARENT: &str = "/rubelet-killed-test";

pub(crate) fn play(part: &str, dir: &Path) -> ExitCode {
    let (part, point) = part.split_once(':').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _ = REACHED.set(dir.join("reached"));
    let _ = POINT.set(if part == "live" { point.to_owned() } else { String::new() });
    runtime.block_on(async {
        let mut options = Options::at(&dir.join("root"), &dir.join("run"));
        options.network.cni_conf_dir = dir.join("none");
        options.fault = Some(fault);
        options.boot_id = (part == "boot").then(|| "another boot".to_owned());
        let embedded = Embedded::start(options).await.unwrap();
        match part {
            "live" => live(&embedded, dir).await,
            "find" => find(&embedded, point).await,
            "boot" => after_a_boot(&embedded).await,
            other => panic!("{other}"),
        }
    });
    ExitCode::SUCCESS
}

/// Notes the point, and ends the process there if it is the one.
fn fault(point: &'static str) {
    let mut file = fs::File::options().append(true).create(true).open(REACHED.get().unwrap()).unwrap();
    writeln!(file, "{point}").unwrap();
    if POINT.get().is_some_and(|wanted| wanted == point) {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    }
}

/// Images from a registry and from an archive.
async fn bring_images(embedded: &Embedded) {
    let spec = cri::ImageSpec { image: registry::serve(), ..Default::default() };
    embedded.pull_image(spec, None, None).await.unwrap();
    // The layer that both have would not be unpacked again.
    remove_images(embedded).await;
    let (images, archive) = (embedded.images().clone(), archive());
    tokio::task::spawn_blocking(move || images.import(archive.as_slice(), "test", false)).await.unwrap().unwrap();
}

/// Removes all images, as who collects them does, and what pulls have left.
async fn remove_images(embedded: &Embedded) {
    for image in embedded.list_images(None).await.unwrap() {
        let spec = cri::ImageSpec { image: image.id, ..Default::default() };
        embedded.remove_image(spec).await.unwrap();
    }
    embedded.images().collect().await.unwrap();
}

/// A pod from its beginning to its end.
async fn live(embedded: &Embedded, dir: &Path) {
    bring_images(embedded).await;
    let metadata =
        cri::PodSandboxMetadata { name: "pod".into(), uid: "uid".into(), namespace: "default".into(), attempt: 0 };
    let linux = cri::LinuxPodSandboxConfig { cgroup_parent: PARENT.into(), ..Default::default() };
    let pod = cri::PodSandboxConfig {
        metadata: Some(metadata),
        log_directory: dir.join("logs").display().to_string(),
        port_mappings: vec![cri::PortMapping { host_port: 8080, container_port: 80, ..Default::default() }],
        linux: Some(linux),
        ..Default::default()
    };
    let sandbox = embedded.run_pod_sandbox(pod.clone(), "").await.unwrap();
    // Its grace is for who does not hear the signal: busybox's shell as a first process does not.
    let security = cri::LinuxContainerSecurityContext::default();
    let resources = cri::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    let config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: ["sh", "-c", "echo hello; exec sleep 1000"].map(str::to_owned).to_vec(),
        log_path: "main.log".into(),
        linux: Some(cri::LinuxContainerConfig { resources: Some(resources), security_context: Some(security) }),
        ..Default::default()
    };
    let container = embedded.create_container(&sandbox, config, pod).await.unwrap();
    embedded.start_container(&container).await.unwrap();
    let echo = ["echo", "there"].map(str::to_owned).to_vec();
    let said = embedded.exec_sync(&container, echo, Duration::from_secs(10)).await.unwrap();
    assert_eq!((said.stdout.as_slice(), said.exit_code), (&b"there\n"[..], 0));
    embedded.stop_container(&container, 0).await.unwrap();
    embedded.remove_container(&container).await.unwrap();
    embedded.stop_pod_sandbox(&sandbox).await.unwrap();
    embedded.remove_pod_sandbox(&sandbox).await.unwrap();
    remove_images(embedded).await;
}

/// What must be there after a kill at a point; then all of it is removed.
async fn find(embedded: &Embedded, point: &str) {
    let sandboxes = embedded.list_pod_sandbox(None).await.unwrap();
    let containers = embedded.list_containers(None).await.unwrap();
    let ready = i32::from(cri::PodSandboxState::SandboxReady);
    let running = i32::from(cri::ContainerState::ContainerRunning);
    let is_ready = sandboxes.iter().any(|s| s.state == ready);
    let is_running = containers.iter().any(|c| c.state == running);
    let (verb, at) = point.split_once('.').unwrap();
    // What had been said to be there must be there.
    match (verb, at) {
        ("run", "recorded") | ("create" | "start", _) => assert!(is_ready, "{point}: {sandboxes:?}"),
        _ => {}
    }
    match (verb, at) {
        ("create", "recorded") | ("start", "cgroup" | "created") => {
            assert_eq!((containers.len(), is_running), (1, false), "{point}: {containers:?}");
            // It starts, as if nothing had been.
            let id = containers[0].id.as_str().into();
            embedded.start_container(&id).await.unwrap();
        }
        ("start", "started") => assert!(is_running, "{point}: {containers:?}"),
        ("run", at) if at != "recorded" => assert!(sandboxes.is_empty(), "{point}: {sandboxes:?}"),
        _ => {}
    }
    for sandbox in sandboxes {
        let id = sandbox.id.into();
        embedded.stop_pod_sandbox(&id).await.unwrap();
        embedded.remove_pod_sandbox(&id).await.unwrap();
    }
    assert!(embedded.list_containers(None).await.unwrap().is_empty(), "{point}");
    // What is said to be there can be used; all of it can be brought anew.
    for image in embedded.list_images(None).await.unwrap() {
        embedded.images().prepare("look", &image.id).await.unwrap();
        embedded.images().release("look").await.unwrap();
    }
    remove_images(embedded).await;
    bring_images(embedded).await;
    remove_images(embedded).await;
}

/// What was known before the boot is told, and a pod of the same name can be made anew.
async fn after_a_boot(embedded: &Embedded) {
    let sandboxes = embedded.list_pod_sandbox(None).await.unwrap();
    let containers = embedded.list_containers(None).await.unwrap();
    assert_eq!((sandboxes.len(), containers.len()), (1, 1));
    assert_eq!(sandboxes[0].state, i32::from(cri::PodSandboxState::SandboxNotready));
    let id = containers[0].id.as_str().into();
    let status = embedded.container_status(&id, false).await.unwrap().status.unwrap();
    assert_eq!((status.state(), status.exit_code), (cri::ContainerState::ContainerExited, 255));
    assert_eq!((status.reason.as_str(), status.message.as_str()), ("Unknown", "the machine was restarted"));
    assert_eq!(status.metadata.unwrap().name, "main");
    let id = sandboxes[0].id.as_str().into();
    embedded.stop_pod_sandbox(&id).await.unwrap();
    embedded.remove_pod_sandbox(&id).await.unwrap();
    remove_images(embedded).await;
}

/// Removes the parent of all cgroups of the test.
pub(crate) fn remove_cgroups() {
    let tree = rubelet_host::cgroup::Tree::detect(rubelet_host::cgroup::Driver::Cgroupfs, "/").unwrap();
    tree.remove(PARENT).unwrap();
}

/// The cgroups of the test's pods, in all hierarchies.
pub(crate) fn cgroups() -> Vec<PathBuf> {
    let tree = rubelet_host::cgroup::Tree::detect(rubelet_host::cgroup::Driver::Cgroupfs, "/").unwrap();
    let dirs = tree.dirs(PARENT).unwrap().into_iter().map(|(_, dir)| dir);
    dirs.flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
