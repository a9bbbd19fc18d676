//! Users, groups, rights.

use std::sync::Arc;

use rubelet_proto::cri::{self, Int64Value};

use super::checks::{ensure, refused, same, some};
use super::pod::{security, words};
use super::{Bench, Pod, Result, suite};

suite! {
    "a container runs as the user that it is given" [Processes] => user;
    "a container runs as the named user" [Processes] => username;
    "a container runs as the group that it is given" [Processes] => group;
    "a group without a user is refused" [Processes] => group_alone;
    "supplemental groups are joined" [Processes] => supplemental;
    "the user of a container is told" [Processes] => told;
    "the image's user is taken" [Registry] => image_user;
    "the image's named user is taken with its groups" [Registry] => image_username;
    "strict groups leave out those of the image" [Registry] => strict;
    "a command runs as the container's user" [Processes] => exec_user;
    "a right is added" [Processes] => added;
    "a right is dropped" [Processes] => dropped;
    "all rights are added" [Processes] => all_added;
    "all rights are dropped" [Processes] => all_dropped;
    "a user other than root has no rights" [Processes] => of_a_user;
    "a privileged container may do everything" [Processes] => privileged;
    "a container that is not privileged may not" [Processes] => unprivileged;
    "a root file system can be made read-only" [Processes] => read_only_root;
    "a root file system can be written" [Processes] => writable_root;
    "paths are made read-only" [Processes] => read_only_paths;
    "paths are hidden" [Processes] => masked_paths;
    "new privileges are denied" [Processes] => no_new_privileges;
    "new privileges are allowed" [Processes] => new_privileges;
}

fn id(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

async fn user(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let said = pod.said("id -u; id -g; id -G", |config| security(config).run_as_user = id(1001)).await?;
    same("user, group and groups", said.as_str(), "1001\n0\n0")
}

async fn username(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let said = pod.said("id -u; id -g", |config| "nobody".clone_into(&mut security(config).run_as_username)).await?;
    same("user and group", said.as_str(), "65534\n65534")
}

async fn group(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let said = pod
        .said("id -u; id -g", |config| {
            security(config).run_as_user = id(1001);
            security(config).run_as_group = id(1002);
        })
        .await?;
    same("user and group", said.as_str(), "1001\n1002")
}

async fn group_alone(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let mut config = pod.container("a", &["true"]);
    security(&mut config).run_as_group = id(1002);
    let answer = bench.runtime().create_container(&pod.id, config, pod.config.clone()).await;
    refused("a group without a user", answer).map(drop)
}

async fn supplemental(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let said = pod
        .said("id -G", |config| {
            security(config).run_as_user = id(1001);
            security(config).supplemental_groups = vec![1234, 5678];
        })
        .await?;
    let mut groups: Vec<&str> = said.split(' ').collect();
    groups.sort_unstable();
    same("the groups", groups, ["0", "1234", "5678"])
}

async fn told(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let container = pod
        .waiting_with("a", |config| {
            security(config).run_as_user = id(1001);
            security(config).run_as_group = id(1002);
            security(config).supplemental_groups = vec![1234];
        })
        .await?;
    let mut user = some("the user", pod.status(&container).await?.user.and_then(|user| user.linux))?;
    user.supplemental_groups.sort_unstable();
    let wanted = cri::LinuxContainerUser { uid: 1001, gid: 1002, supplemental_groups: vec![1002, 1234] };
    same("the user", user, wanted)
}

/// What a container of an image of the registry says.
async fn of_image(
    bench: &Arc<Bench>,
    image: &str,
    script: &str,
    change: impl FnOnce(&mut cri::ContainerConfig),
) -> Result<String> {
    let image = cri::ImageSpec { image: bench.in_registry(image), ..Default::default() };
    bench.runtime().pull_image(image.clone(), None, None).await?;
    let pod = bench.pod().await?;
    let said = pod.said(script, |config| {
        config.image = Some(image);
        change(config);
    });
    said.await
}

async fn image_user(bench: Arc<Bench>) -> Result {
    same("user and group", of_image(&bench, "contract/user:1", "id -u; id -g", |_| {}).await?.as_str(), "1002\n0")
}

async fn image_username(bench: Arc<Bench>) -> Result {
    let said = of_image(&bench, "contract/username:1", "id -u; id -g; id -G", |_| {}).await?;
    same("user, group and groups", said.as_str(), "33\n33\n33 29")
}

async fn strict(bench: Arc<Bench>) -> Result {
    let said = of_image(&bench, "contract/username:1", "id -G", |config| {
        security(config).supplemental_groups = vec![1234];
        security(config).set_supplemental_groups_policy(cri::SupplementalGroupsPolicy::Strict);
    });
    let said = said.await?;
    let mut groups: Vec<&str> = said.split(' ').collect();
    groups.sort_unstable();
    same("the groups", groups, ["1234", "33"])
}

async fn exec_user(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let container = pod
        .waiting_with("a", |config| {
            security(config).run_as_user = id(1001);
            security(config).run_as_group = id(1002);
        })
        .await?;
    same("user and group", pod.sh(&container, "id -u; id -g").await?.as_str(), "1001\n1002")
}

const NET_ADMIN: u64 = 1 << 12;
const CHOWN: u64 = 1;

/// Rights that a container's process has, as the kernel's bits.
async fn rights(pod: &Pod, change: impl FnOnce(&mut cri::ContainerConfig)) -> Result<u64> {
    let said = pod.said("sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status", change).await?;
    u64::from_str_radix(&said, 16).map_err(|_| super::Failure::Said(format!("no rights: {said:?}")))
}

fn capability(add: &[&str], drop: &[&str]) -> Option<cri::Capability> {
    Some(cri::Capability { add_capabilities: words(add), drop_capabilities: words(drop), ..Default::default() })
}

/// What containers have unless they say otherwise: fourteen rights.
const USUAL: u64 = 0xa804_25fb;

async fn added(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    same("the usual rights", rights(&pod, |_| {}).await?, USUAL)?;
    for name in ["NET_ADMIN", "net_admin"] {
        let found = rights(&pod, |config| security(config).capabilities = capability(&[name], &[])).await?;
        same(name, found, USUAL | NET_ADMIN)?;
    }
    Ok(())
}

async fn dropped(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let found = rights(&pod, |config| security(config).capabilities = capability(&[], &["CHOWN"])).await?;
    same("the rights", found, USUAL & !CHOWN)
}

async fn all_added(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let found = rights(&pod, |config| security(config).capabilities = capability(&["ALL"], &[])).await?;
    same("the rights beside the host's", found & !host_rights()?, 0)?;
    ensure(found & NET_ADMIN != 0 && found.count_ones() > 30, || format!("the rights are {found:x}"))?;
    let but_one = rights(&pod, |config| security(config).capabilities = capability(&["ALL"], &["CHOWN"])).await?;
    same("all but one", but_one, found & !CHOWN)
}

/// The rights that this machine's administrator may have.
fn host_rights() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/1/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap_or_default();
    u64::from_str_radix(line.trim(), 16).map_err(|_| super::Failure::Said("no rights".to_owned()))
}

async fn all_dropped(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    same("no rights", rights(&pod, |config| security(config).capabilities = capability(&[], &["ALL"])).await?, 0)?;
    let one = rights(&pod, |config| security(config).capabilities = capability(&["CHOWN"], &["ALL"])).await?;
    same("but one", one, CHOWN)
}

async fn of_a_user(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    same("the rights", rights(&pod, |config| security(config).run_as_user = id(1001)).await?, 0)
}

/// Needs rights that containers usually lack.
const BRIDGE: &str = "ip link add dummy0 type dummy 2>&1 || mount -t tmpfs none /mnt 2>&1 || mount -t tmpfs none /tmp";

async fn privileged(bench: Arc<Bench>) -> Result {
    let pod = bench.pod_with(|config| super::pod::pod_security(config).privileged = true).await?;
    pod.said(&format!("{BRIDGE} && ls /dev/kmsg /dev/null"), |config| security(config).privileged = true).await?;
    let said =
        pod.said("touch /sys/fs/cgroup/x 2>&1 | grep -c Read-only; true", |config| security(config).privileged = true);
    same("file systems that are read-only", said.await?.as_str(), "0")
}

async fn unprivileged(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let output = pod.output(BRIDGE, |_| {}).await?;
    ensure(output.exit_code != 0, || "it may".to_owned())
}

async fn read_only_root(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let output = pod.output("touch /new", |config| security(config).readonly_rootfs = true).await?;
    ensure(output.exit_code != 0 && output.stderr.contains("Read-only"), || format!("it said {:?}", output.stderr))?;
    pod.said("touch /dev/shm/new", |config| security(config).readonly_rootfs = true).await.map(drop)
}

async fn writable_root(bench: Arc<Bench>) -> Result {
    bench.pod().await?.said("touch /new", |_| {}).await.map(drop)
}

async fn read_only_paths(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let output = pod.output("touch /tmp/new", |config| security(config).readonly_paths = words(&["/tmp"])).await?;
    ensure(output.exit_code != 0 && output.stderr.contains("Read-only"), || format!("it said {:?}", output.stderr))
}

async fn masked_paths(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    let said = pod
        .said("cat /etc/passwd | wc -c; ls /bin 2>&1 | wc -l", |config| {
            security(config).masked_paths = words(&["/etc/passwd", "/var/log"]);
        })
        .await?;
    ensure(said.starts_with("0\n"), || format!("what is seen: {said}"))
}

const NO_NEW: &str = "sed -n 's/^NoNewPrivs:[[:space:]]*//p' /proc/self/status";

async fn no_new_privileges(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    same("the flag", pod.said(NO_NEW, |config| security(config).no_new_privs = true).await?.as_str(), "1")
}

async fn new_privileges(bench: Arc<Bench>) -> Result {
    let pod = bench.pod().await?;
    same("the flag", pod.said(NO_NEW, |_| {}).await?.as_str(), "0")
}
