//! The agent that is killed, and the one that comes after it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rubelet_cri::Runtime;
use rubelet_proto::cri;
use rubelet_runtime::{Creator, Embedded, Options};

use crate::life::{LONG, bring_images, live, remove_images};
use crate::{CREATOR, DEATH, Death, REACHED, eventually};

pub(crate) const PARENT: &str = "/rubelet-killed-test";
/// Who dies there leaves a program that would go on for long.
const LONG_UNTIL: &str = "exec.started/0";

pub(crate) fn play(part: &str, dir: &Path) -> ExitCode {
    let (part, death) = part.split_once(':').unwrap();
    let is_long = death == LONG_UNTIL;
    let death = Death::parse(death);
    let point = death.as_ref().map(|death| death.point.clone()).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _ = REACHED.set(dir.join("reached"));
    *DEATH.lock().unwrap() = death.filter(|_| part != "find");
    runtime.block_on(async {
        let mut options = Options::at(&dir.join("root"), &dir.join("run"));
        options.network.cni_conf_dir = dir.join("none");
        options.fault = Some(fault);
        options.creator = std::env::var(CREATOR).map(|name| Creator::from(name.as_str())).unwrap_or_default();
        // Others than our own refuse them.
        let has_users = options.creator == Creator::BuiltIn;
        options.boot_id = (part == "boot").then(|| "another boot".to_owned());
        let embedded = Embedded::start(options).await.unwrap();
        match part {
            "live" => live(&embedded, dir, is_long, has_users).await,
            // One that is killed while it looks at what another has left, at the latest when it is done with that.
            "look" => {}
            "find" => find(&embedded, &point).await,
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
    if Death::is_now(&mut DEATH.lock().unwrap(), point) {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    }
}

/// What must be there after a kill at a point; then all of it is removed.
async fn find(embedded: &Embedded, point: &str) {
    let sandboxes = embedded.list_pod_sandbox(None).await.unwrap();
    let containers = embedded.list_containers(None).await.unwrap();
    look(point, &sandboxes, &containers);
    let (verb, at) = point.split_once('.').unwrap();
    match (verb, at) {
        ("create", "recorded") | ("start", "cgroup" | "created") => {
            // It starts, as if nothing had been.
            let id = containers[0].id.as_str().into();
            embedded.start_container(&id).await.unwrap();
        }
        // Who ran it has gone, so that it is of no use to anybody.
        ("exec", _) => eventually("what was run in the container ends", || long_ones().is_empty()),
        _ => {}
    }
    let main = containers.iter().find(|c| c.state == i32::from(cri::ContainerState::ContainerRunning));
    if let (Some(main), "exec" | "attach" | "forward" | "reopen" | "update-container" | "update-pod") = (main, verb) {
        use_it(embedded, &main.id.as_str().into()).await;
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

/// What had been said to be there must be there, what was stopped must not run, what was removed must not be there.
fn look(point: &str, sandboxes: &[cri::PodSandbox], containers: &[cri::Container]) {
    let is_ready = sandboxes.iter().any(|s| s.state == i32::from(cri::PodSandboxState::SandboxReady));
    let is_running = containers.iter().any(|c| c.state == i32::from(cri::ContainerState::ContainerRunning));
    let seen = (sandboxes.len(), containers.len(), is_ready, is_running);
    let (verb, at) = point.split_once('.').unwrap();
    match (verb, at) {
        ("run", "recorded") => assert_eq!(seen, (1, 0, true, false), "{point}"),
        ("run" | "attach" | "lay" | "namespace", at) if at != "attached" => {
            assert_eq!(seen, (0, 0, false, false), "{point}");
        }
        ("create", "recorded") | ("start", "cgroup" | "created") => assert_eq!(seen, (1, 1, true, false), "{point}"),
        ("create", _) => assert_eq!(seen, (1, 0, true, false), "{point}"),
        ("start", "started") | ("attach" | "exec" | "forward" | "reopen" | "update-container" | "update-pod", _) => {
            assert_eq!(seen, (1, 1, true, true), "{point}");
        }
        // The sandbox goes on without its container; whether that one has ended already is a matter of moments.
        ("stop", "asked") => assert_eq!(seen, (1, 1, true, is_running), "{point}"),
        ("end", _) => assert_eq!(seen, (1, 1, true, false), "{point}"),
        ("remove-container", _) => assert_eq!(seen, (1, 1, true, false), "{point}"),
        ("stop-pod", "containers") => assert_eq!(seen, (1, 2, true, false), "{point}"),
        ("stop-pod" | "remove-pod", "swept" | "recorded" | "stopped") => {
            assert_eq!(seen, (1, 2, false, false), "{point}");
        }
        ("remove-pod", "containers") => assert_eq!(seen, (1, 0, false, false), "{point}"),
        _ => {}
    }
}

/// A container that was found again answers.
async fn use_it(embedded: &Embedded, id: &rubelet_api::ids::ContainerId) {
    let echo = ["echo", "here"].map(str::to_owned).to_vec();
    let said = embedded.exec_sync(id, echo, std::time::Duration::from_secs(10)).await.unwrap();
    assert_eq!((said.stdout.as_slice(), said.exit_code), (&b"here\n"[..], 0));
    embedded.reopen_container_log(id).await.unwrap();
}

/// Programs that [`live`] has run beside the container's first.
fn long_ones() -> Vec<String> {
    let mut words = LONG.join("\0");
    words.push('\0');
    let of = |entry: fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.path().join("cmdline"));
    let all = fs::read_dir("/proc").unwrap().flatten().map(of);
    all.filter(|(_, path)| fs::read_to_string(path).is_ok_and(|said| said == words)).map(|(pid, _)| pid).collect()
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
    // Where OCI runtimes make some, too, beside version 1.
    let mounts = rubelet_host::mount::table().unwrap();
    let unified = mounts.into_iter().filter(|mount| mount.fs_type == "cgroup2");
    let unified = unified.map(|mount| mount.target.join(PARENT.trim_start_matches('/')));
    dirs.chain(unified)
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
