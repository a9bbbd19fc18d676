//! What is mounted into containers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rubelet_proto::cri::{self, MountPropagation};

use super::checks::{ensure, same};
use super::pod::{pod_security, security};
use super::{Bench, Result, suite};

suite! {
    "a directory of the host is mounted" [Processes] => directory;
    "a file of the host is mounted" [Processes] => file;
    "a read-only mount cannot be written" [Processes] => read_only;
    "a read-only mount leaves mounts below it writable" [Processes, Root] => read_only_shallow;
    "a mount's source may be a symbolic link" [Processes] => link;
    "a source that is not there is made" [Processes] => made;
    "mounts are told in the status" [Processes] => told;
    "a private mount stays as it was" [Processes, Root] => private;
    "a mount from the host shows what the host mounts later" [Processes, Root] => from_host;
    "a mount in both directions shows what either mounts" [Processes, Root] => both_directions;
    "a device of the host is there" [Processes, Root] => device;
    "a container's shared memory is its pod's" [Processes] => shared_memory;
    "the usual devices and file systems are there" [Processes] => usual;
    "files of one container are not another's" [Processes] => own_files;
}

fn mount(source: &Path, target: &str) -> cri::Mount {
    cri::Mount { host_path: source.display().to_string(), container_path: target.to_owned(), ..Default::default() }
}

async fn directory(bench: Arc<Bench>) -> Result {
    let (folder, pod) = (bench.folder("volume")?, bench.pod().await?);
    fs::write(folder.join("in"), "from the host")?;
    let script = "cat /volume/in; echo from the container > /volume/out";
    let said = pod.said(script, |config| config.mounts = vec![mount(&folder, "/volume")]).await?;
    same("what is in it", said.as_str(), "from the host")?;
    same("what was written", fs::read_to_string(folder.join("out"))?.as_str(), "from the container\n")
}

async fn file(bench: Arc<Bench>) -> Result {
    let (folder, pod) = (bench.folder("volume")?, bench.pod().await?);
    let source = folder.join("file");
    fs::write(&source, "one file")?;
    // One where the image has a directory only, one in place of the image's own.
    let said = pod
        .said("cat /deep/in/it /etc/passwd", |config| {
            config.mounts = vec![mount(&source, "/deep/in/it"), mount(&source, "/etc/passwd")];
        })
        .await?;
    same("what is in them", said.as_str(), "one fileone file")
}

async fn read_only(bench: Arc<Bench>) -> Result {
    let (folder, pod) = (bench.folder("volume")?, bench.pod().await?);
    let mounts = vec![cri::Mount { readonly: true, ..mount(&folder, "/volume") }];
    let output = pod.output("touch /volume/new", |config| config.mounts = mounts).await?;
    ensure(output.exit_code != 0 && output.stderr.contains("Read-only"), || format!("it said {:?}", output.stderr))?;
    same("files in it", fs::read_dir(&folder)?.count(), 0)
}

async fn link(bench: Arc<Bench>) -> Result {
    let (folder, pod) = (bench.folder("volume")?, bench.pod().await?);
    fs::create_dir(folder.join("real"))?;
    fs::write(folder.join("real/in"), "behind the link")?;
    symlink(folder.join("real"), folder.join("link"))?;
    let mounts = vec![mount(&folder.join("link"), "/volume")];
    let said = pod.said("cat /volume/in", |config| config.mounts = mounts).await?;
    same("what is in it", said.as_str(), "behind the link")
}

async fn made(bench: Arc<Bench>) -> Result {
    let (folder, pod) = (bench.folder("volume")?, bench.pod().await?);
    let source = folder.join("a/b");
    pod.said("touch /volume/new", |config| config.mounts = vec![mount(&source, "/volume")]).await?;
    ensure(source.join("new").exists(), || "it was not made on the host".to_owned())
}

async fn told(bench: Arc<Bench>) -> Result {
    let (folder, pod) = (bench.folder("volume")?, bench.pod().await?);
    let mounts = vec![cri::Mount { readonly: true, ..mount(&folder, "/one") }, mount(&folder, "/two")];
    let id = pod.waiting_with("a", |config| config.mounts.clone_from(&mounts)).await?;
    same("the mounts", pod.status(&id).await?.mounts, mounts)
}

/// A directory that is a mount of its own, shared with other namespaces; unmounted at the end.
struct Shared(PathBuf);

impl Shared {
    fn new(bench: &Bench) -> Result<Self> {
        let folder = bench.folder("shared")?;
        run("mount", &["-t", "tmpfs", "none"], &folder)?;
        let this = Self(folder);
        run("mount", &["--make-shared"], &this.0)?;
        Ok(this)
    }

    /// Mounts something at a new directory in it.
    fn mount(&self, name: &str) -> Result {
        let path = self.0.join(name);
        fs::create_dir_all(&path)?;
        run("mount", &["-t", "tmpfs", "none"], &path)?;
        Ok(fs::write(path.join("mounted"), "")?)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A mount that stays is found by whoever cleans the folder up.
        let _ = run("umount", &["-R", "-l"], &self.0);
    }
}

fn run(program: &str, words: &[&str], path: &Path) -> Result {
    let output = Command::new(program).args(words).arg(path).output()?;
    ensure(output.status.success(), || {
        format!("{program} {words:?} {}: {}", path.display(), String::from_utf8_lossy(&output.stderr))
    })
}

/// Whether what is mounted on the host after the start is seen inside, and the reverse.
async fn seen(bench: &Arc<Bench>, propagation: MountPropagation) -> Result<(bool, bool)> {
    let shared = Shared::new(bench)?;
    let pod = bench.pod_with(|config| pod_security(config).privileged = true).await?;
    fs::create_dir(shared.0.join("inside"))?;
    let mounts = vec![cri::Mount { propagation: propagation.into(), ..mount(&shared.0, "/shared") }];
    let id = pod
        .waiting_with("a", |config| {
            config.mounts.clone_from(&mounts);
            security(config).privileged = true;
        })
        .await?;
    same("the propagation that is told", pod.status(&id).await?.mounts, mounts)?;
    shared.mount("outside")?;
    let script = "test -e /shared/outside/mounted && echo yes || echo no";
    let is_seen_inside = pod.sh(&id, script).await? == "yes";
    pod.sh(&id, "mount -t tmpfs none /shared/inside && touch /shared/inside/mounted").await?;
    let is_seen_outside = shared.0.join("inside/mounted").exists();
    pod.sh(&id, "umount /shared/inside").await?;
    bench.runtime().stop_container(&id, 1).await?;
    Ok((is_seen_inside, is_seen_outside))
}

async fn private(bench: Arc<Bench>) -> Result {
    same("what is seen", seen(&bench, MountPropagation::PropagationPrivate).await?, (false, false))
}

async fn from_host(bench: Arc<Bench>) -> Result {
    same("what is seen", seen(&bench, MountPropagation::PropagationHostToContainer).await?, (true, false))
}

async fn both_directions(bench: Arc<Bench>) -> Result {
    same("what is seen", seen(&bench, MountPropagation::PropagationBidirectional).await?, (true, true))
}

async fn read_only_shallow(bench: Arc<Bench>) -> Result {
    let (shared, pod) = (Shared::new(&bench)?, bench.pod().await?);
    shared.mount("below")?;
    let mounts = vec![cri::Mount { readonly: true, ..mount(&shared.0, "/shared") }];
    let script = "touch /shared/new 2>/dev/null && echo wrong; touch /shared/below/new && echo right";
    same("what can be written", pod.said(script, |config| config.mounts = mounts).await?.as_str(), "right")
}

async fn device(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let said = pod
        .said("stat -c '%t:%T' /dev/mine; head -c 4 /dev/mine | wc -c", |config| {
            config.devices = vec![cri::Device {
                host_path: "/dev/full".to_owned(),
                container_path: "/dev/mine".to_owned(),
                permissions: "rwm".to_owned(),
            }];
        })
        .await?;
    same("the device", said.as_str(), "1:7\n4")
}

async fn shared_memory(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let (a, b) = (pod.waiting("a").await?, pod.waiting("b").await?);
    pod.sh(&a, "echo shared > /dev/shm/file").await?;
    same("what the other sees", pod.sh(&b, "cat /dev/shm/file").await?.as_str(), "shared")?;
    let other = bench.pod().await?;
    let c = other.waiting("c").await?;
    same("what another pod sees", other.sh(&c, "ls /dev/shm").await?.as_str(), "")
}

async fn usual(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let script = "for d in null zero full random urandom tty ptmx; do test -c /dev/$d || test -L /dev/$d || echo no /dev/$d; done; \
        for l in fd stdin stdout stderr; do test -L /dev/$l || echo no /dev/$l; done; \
        for m in /proc /dev /dev/pts /dev/shm /dev/mqueue /sys /sys/fs/cgroup /etc/hosts /etc/resolv.conf; do \
        grep -q \" $m \" /proc/mounts || echo $m is no mount; done; \
        touch /sys/x 2>/dev/null && echo /sys can be written; touch /new && echo fine";
    let said = pod
        .said(script, |config| {
            // As the kubelet does.
            config.mounts = vec![mount(Path::new("/etc/hosts"), "/etc/hosts")];
        })
        .await?;
    same("what is there", said.as_str(), "fine")
}

async fn own_files(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let (a, b) = (pod.waiting("a").await?, pod.waiting("b").await?);
    pod.sh(&a, "echo mine > /tmp/file; rm /etc/group").await?;
    same("what the other sees", pod.sh(&b, "ls /tmp; ls /etc/group").await?.as_str(), "/etc/group")?;
    bench.runtime().stop_container(&a, 1).await?;
    bench.runtime().remove_container(&a).await?;
    let next = |config: &mut cri::ContainerConfig| config.metadata.get_or_insert_default().attempt = 1;
    let again = pod.waiting_with("a", next).await?;
    same("what its successor sees", pod.sh(&again, "ls /tmp; ls /etc/group").await?.as_str(), "/etc/group")
}
