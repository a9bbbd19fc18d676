//! What runtimes have learned in the last years.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rubelet_proto::cri;

use super::checks::{ensure, refused, same, some};
use super::pod::pod_namespaces;
use super::{Bench, Pod, Result, suite};

suite! {
    "a read-only mount is read-only below it too when asked" [Processes, Root] => read_only_below;
    "a pod may have users of its own" [Processes, Root] => own_users;
    "what a pod with users of its own mounts belongs to whom it belonged" [Processes, Root] => own_users_mounts;
    "a handler that is not there is refused" [Processes] => no_handler;
    "a handler is told" [Processes] => handlers;
    "an image is mounted as a volume" [Processes, Registry] => image_volume;
    "a part of an image is mounted as a volume" [Processes, Registry] => image_part;
    "the status tells which image is mounted" [Processes, Registry] => image_told;
    "an image is not mounted to be written to" [Processes, Registry] => image_written;
    "a part that an image has not is not mounted" [Processes, Registry] => image_without;
    "a pull that lasts too long is given up" [Registry] => pull_in_time;
}

/// Users of the host that nobody else has.
const FIRST_USER: u32 = 1 << 20;
const USERS: u32 = 1 << 16;

async fn read_only_below(bench: Arc<Bench>) -> Result {
    let folder = bench.folder("deep")?;
    let below = folder.join("below");
    fs::create_dir(&below)?;
    let mounted = Below::mount(&below)?;
    let pod = bench.pod().await?;
    let mount = cri::Mount {
        host_path: folder.display().to_string(),
        container_path: "/deep".to_owned(),
        readonly: true,
        recursive_read_only: true,
        ..Default::default()
    };
    let script = "for d in /deep /deep/below; do touch $d/new 2>/dev/null && echo $d can be written; done; echo looked";
    let said = pod.said(script, |config| config.mounts = vec![mount]).await?;
    same("what can be written", said.as_str(), "looked")?;
    drop(mounted);
    Ok(())
}

/// A tmpfs, unmounted at the end.
struct Below<'a>(&'a Path);

impl<'a> Below<'a> {
    fn mount(path: &'a Path) -> Result<Self> {
        let output = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(path).output()?;
        ensure(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok(Self(path))
    }
}

impl Drop for Below<'_> {
    fn drop(&mut self) {
        // A mount that stays is found by whoever cleans the folder up.
        let _ = Command::new("umount").arg("-l").arg(self.0).output();
    }
}

fn users(config: &mut cri::PodSandboxConfig) {
    let map = cri::IdMapping { host_id: FIRST_USER, container_id: 0, length: USERS };
    pod_namespaces(config).userns_options =
        Some(cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: vec![map], gids: vec![map] });
}

async fn own_users(bench: Arc<Bench>) -> Result {
    let pod = bench.pod_with(users).await?;
    let script = "id -u; awk '{ print $1, $2, $3 }' /proc/self/uid_map; touch /own && stat -c %u:%g /own /bin/busybox";
    let said = pod.said(script, |_| {}).await?;
    same("what it sees", said, format!("0\n0 {FIRST_USER} {USERS}\n0:0\n0:0"))
}

async fn own_users_mounts(bench: Arc<Bench>) -> Result {
    let folder = bench.folder("mapped")?;
    fs::write(folder.join("of-root"), "")?;
    fs::write(folder.join("of-33"), "")?;
    std::os::unix::fs::chown(folder.join("of-33"), Some(33), Some(33))?;
    let pod = bench.pod_with(users).await?;
    let map = cri::IdMapping { host_id: FIRST_USER, container_id: 0, length: USERS };
    let mount = cri::Mount {
        host_path: folder.display().to_string(),
        container_path: "/mapped".to_owned(),
        uid_mappings: vec![map],
        gid_mappings: vec![map],
        ..Default::default()
    };
    let script = "awk '{ print $2 }' /proc/self/uid_map; touch /mapped/new; stat -c '%n %u:%g' /mapped/*";
    let said = pod.said(script, |config| config.mounts = vec![mount]).await?;
    let wanted = format!("{FIRST_USER}\n/mapped/new 0:0\n/mapped/of-33 33:33\n/mapped/of-root 0:0");
    same("what it sees", said, wanted)?;
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(folder.join("new"))?);
    same("the owner on the host of what it wrote", owner, 0)
}

async fn no_handler(bench: Arc<Bench>) -> Result {
    let config = bench.pod_config()?;
    let error = refused("a sandbox", bench.runtime().run_pod_sandbox(config.clone(), "none-such").await)?;
    ensure(error.to_string().contains("none-such"), || format!("the handler is not named: {error}"))?;
    let rows = bench.runtime().list_pod_sandbox(None).await?;
    ensure(rows.iter().all(|row| row.metadata != config.metadata), || "a sandbox is there all the same".to_owned())
}

async fn handlers(bench: Arc<Bench>) -> Result {
    let handlers = bench.runtime().status(false).await?.runtime_handlers;
    ensure(handlers.iter().any(|handler| handler.name.is_empty()), || format!("none is the usual one: {handlers:?}"))?;
    let pod = bench.pod().await?;
    same("the handler of a pod that names none", pod.sandbox_status().await?.runtime_handler.as_str(), "")
}

/// A container with a mount of an image, or of a part of it, at `/image`: what `act` makes of its pod, the mount and the image's id.
async fn with_mount<T>(
    bench: Arc<Bench>,
    part: &str,
    act: impl AsyncFnOnce(&Pod, cri::Mount, String) -> Result<T>,
) -> Result<T> {
    let name = bench.in_registry("contract/first:1");
    let pod = bench.pod().await?;
    let spec = cri::ImageSpec { image: name, ..Default::default() };
    let reference = bench.runtime().pull_image(spec.clone(), None, Some(pod.config.clone())).await?;
    let mount = cri::Mount {
        container_path: "/image".to_owned(),
        image: Some(cri::ImageSpec {
            image: reference.clone(),
            user_specified_image: spec.image.clone(),
            ..Default::default()
        }),
        image_sub_path: part.to_owned(),
        readonly: true,
        ..Default::default()
    };
    let done = act(&pod, mount, reference).await;
    bench.runtime().remove_image(spec).await?;
    done
}

/// What is said by a container that has it.
async fn with_image(bench: Arc<Bench>, part: &str, script: &str) -> Result<String> {
    with_mount(bench, part, async |pod, mount, _| pod.said(script, |config| config.mounts = vec![mount]).await).await
}

async fn image_told(bench: Arc<Bench>) -> Result {
    let told = with_mount(bench.clone(), "", async |pod, mount, image| {
        let id = pod.waiting_with("a", |config| config.mounts = vec![mount]).await?;
        let status = bench.runtime().container_status(&id, false).await?;
        let mounts = status.status.unwrap_or_default().mounts;
        let told = mounts.into_iter().find(|mount| mount.container_path == "/image").and_then(|mount| mount.image);
        Ok((some("the mount's image", told)?.image_ref, image))
    });
    let (told, image) = told.await?;
    same("the image", told, image)
}

async fn no_mount(bench: Arc<Bench>, part: &str, readonly: bool) -> Result {
    let runtime = bench.clone();
    with_mount(bench, part, async |pod, mount, _| {
        let mut config = pod.container("a", &["true"]);
        config.mounts = vec![cri::Mount { readonly, ..mount }];
        let created = runtime.runtime().create_container(&pod.id, config, pod.config.clone()).await;
        refused("a container", created).map(drop)
    })
    .await
}

async fn image_written(bench: Arc<Bench>) -> Result {
    no_mount(bench, "", false).await
}

async fn image_without(bench: Arc<Bench>) -> Result {
    no_mount(bench, "none/such", true).await
}

async fn image_volume(bench: Arc<Bench>) -> Result {
    let script = "test -f /image/bin/busybox && echo there; touch /image/new 2>/dev/null || echo fixed";
    same("what is in it", with_image(bench, "", script).await?.as_str(), "there\nfixed")
}

async fn image_part(bench: Arc<Bench>) -> Result {
    same("what is in it", with_image(bench, "bin", "ls -d /image/busybox").await?.as_str(), "/image/busybox")
}

/// A registry that takes the connection and says nothing.
async fn pull_in_time(bench: Arc<Bench>) -> Result {
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let image = format!("{}/contract/silent:1", silent.local_addr()?);
    let pull = bench.runtime().pull_image(cri::ImageSpec { image: image.clone(), ..Default::default() }, None, None);
    let patience = std::time::Duration::from_secs(1);
    let answer = tokio::time::timeout(patience, pull).await;
    ensure(!matches!(answer, Ok(Ok(_))), || format!("an image came from nowhere: {answer:?}"))?;
    let status = bench.runtime().image_status(cri::ImageSpec { image, ..Default::default() }, false).await?;
    same("the image", status.image, None)?;
    // The runtime goes on as before.
    let pod = bench.pod().await?;
    pod.start(pod.container("a", &["true"])).await.map(drop)
}
