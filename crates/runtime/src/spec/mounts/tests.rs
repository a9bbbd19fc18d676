//! Expected orders and options are what containerd 2.1 made of the same requests.

use super::super::tests::host;
use super::*;

fn wish(container_path: &str, host_path: &str) -> cri::Mount {
    cri::Mount { container_path: container_path.to_owned(), host_path: host_path.to_owned(), ..Default::default() }
}

fn made(wishes: Vec<cri::Mount>, volumes: &[Volume]) -> Result<Vec<Mount>, String> {
    let security = cri::LinuxContainerSecurityContext { readonly_rootfs: true, ..Default::default() };
    let linux = cri::LinuxContainerConfig { security_context: Some(security), ..Default::default() };
    let config = cri::ContainerConfig { mounts: wishes, linux: Some(linux), ..Default::default() };
    let (pod, host) = (cri::PodSandboxConfig::default(), host());
    let place = |name: &'static str| Path::new(name);
    let around = Surroundings {
        config: &pod,
        netns: None,
        pause_pid: 7,
        target_pid: None,
        shm: place("/run/shm"),
        resolv_conf: place("/run/resolv.conf"),
        hostname: place("/run/hostname"),
        hosts: place("/run/hosts"),
        volumes: place("/nowhere"),
        host: &host,
    };
    mounts(&config, &around, volumes).map_err(|e| e.to_string())
}

fn places(mounts: &[Mount]) -> String {
    mounts.iter().map(|mount| mount.destination.as_str()).collect::<Vec<_>>().join(" ")
}

fn shown(mounts: &[Mount], place: &str) -> String {
    let mount = mounts.iter().find(|mount| mount.destination == place).unwrap();
    format!("{} {} {}", mount.kind, mount.source, mount.options.join(","))
}

const USUAL: &str = "/proc /dev /dev/pts /dev/mqueue /sys /sys/fs/cgroup";

#[test]
fn without_wishes() {
    let made = made(Vec::new(), &[]).unwrap();
    assert_eq!(places(&made), format!("{USUAL} /etc/hostname /etc/hosts /etc/resolv.conf /dev/shm"));
    assert_eq!(shown(&made, "/proc"), "proc proc nosuid,noexec,nodev");
    assert_eq!(shown(&made, "/dev"), "tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k");
    assert_eq!(shown(&made, "/dev/pts"), "devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5");
    assert_eq!(shown(&made, "/sys"), "sysfs sysfs nosuid,noexec,nodev,ro");
    assert_eq!(shown(&made, "/sys/fs/cgroup"), "cgroup cgroup nosuid,noexec,nodev,relatime,ro");
    assert_eq!(shown(&made, "/etc/hostname"), "bind /run/hostname rbind,rprivate,ro");
    assert_eq!(shown(&made, "/dev/shm"), "bind /run/shm rbind,rprivate,rw");
}

#[test]
fn by_depth_and_then_as_they_come() {
    let volumes = [Volume { source: "/vols/0".into(), place: "/data".into() }];
    let wishes = vec![
        wish("/etc/hosts", "/etc/passwd"),
        wish("/z/b", "/tmp"),
        cri::Mount { readonly: true, ..wish("/z", "/tmp") },
        wish("/y2/../y3/", "/usr/../tmp/"),
        wish("relative", "/tmp"),
    ];
    let made = made(wishes, &volumes).unwrap();
    let rest = "/z /y3 /relative /data /etc/hosts /z/b /etc/hostname /etc/resolv.conf /dev/shm";
    assert_eq!(places(&made), format!("{USUAL} {rest}"));
    assert_eq!(shown(&made, "/z"), "bind /tmp rbind,rprivate,ro");
    assert_eq!(shown(&made, "/y3"), "bind /tmp rbind,rprivate,rw");
    assert_eq!(shown(&made, "/data"), "bind /vols/0 rbind,rprivate,rw");
}

#[test]
fn wishes_take_the_place_of_what_is_usual() {
    let wishes = ["/dev/shm", "/proc", "/sys/fs/cgroup", "/etc/resolv.conf", "/dev"].map(|at| wish(at, "/tmp"));
    let made = made(wishes.to_vec(), &[]).unwrap();
    assert_eq!(places(&made), "/sys /proc /dev /dev/shm /etc/resolv.conf /etc/hostname /etc/hosts /sys/fs/cgroup");
    assert_eq!(shown(&made, "/proc"), "bind /tmp rbind,rprivate,rw");
}

#[test]
fn read_only_to_the_last_mount() {
    let wish = |readonly, propagation: MountPropagation| cri::Mount {
        readonly,
        recursive_read_only: true,
        propagation: propagation.into(),
        ..wish("/y", "/proc")
    };
    let private = MountPropagation::PropagationPrivate;
    assert_eq!(shown(&made(vec![wish(true, private)], &[]).unwrap(), "/y"), "bind /proc rbind,rprivate,rro");
    let conflict = "recursive read-only mount conflicts with RW mount (hostPath=\"/proc\")";
    assert_eq!(made(vec![wish(false, private)], &[]).unwrap_err(), conflict);
    let error = made(vec![wish(true, MountPropagation::PropagationHostToContainer)], &[]).unwrap_err();
    let needs = "recursive read-only mount needs private propagation, got \"PROPAGATION_HOST_TO_CONTAINER\" (hostPath=\"/proc\")";
    // Where the host's mounts are private, that is said first.
    assert!(error == needs || error.ends_with("not a shared or slave mount"), "{error}");
}

#[test]
fn propagation_wants_a_mount_that_propagates() {
    let table = host::parse(
        b"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /run/shared rw shared:1 - tmpfs x rw\n3 1 0:2 / /run/slave rw master:1 - tmpfs x rw\n\
          4 1 0:2 / /run/slave/covered rw shared:2 - tmpfs x rw\n5 4 0:2 / /run/slave/covered rw - tmpfs x rw\n",
    );
    let shared = |path: &str| propagates(Path::new(path), Propagation::Shared, &table).map_err(|e| e.to_string());
    let either =
        |path: &str| propagates(Path::new(path), Propagation::SharedOrSlave, &table).map_err(|e| e.to_string());
    assert!(shared("/run/shared/x").is_ok() && either("/run/shared").is_ok() && either("/run/slave").is_ok());
    assert_eq!(shared("/tmp").unwrap_err(), "path \"/tmp\" is mounted on \"/\" but it is not a shared mount");
    assert_eq!(either("/tmp").unwrap_err(), "path \"/tmp\" is mounted on \"/\" but it is not a shared or slave mount");
    let slave = "path \"/run/slave\" is mounted on \"/run/slave\" but it is not a shared mount";
    assert_eq!(shared("/run/slave").unwrap_err(), slave);
    assert!(shared("/run/slave/covered").is_err() && shared("/run/shareds").is_err());
}

#[test]
fn the_root_is_as_open_as_its_most_open_mount() {
    let of = |all: &[MountPropagation]| {
        let mounts = all.iter().map(|p| cri::Mount { propagation: (*p).into(), ..Default::default() }).collect();
        of_root(&cri::ContainerConfig { mounts, ..Default::default() })
    };
    use MountPropagation::{
        PropagationBidirectional as Both, PropagationHostToContainer as From, PropagationPrivate as None,
    };
    assert_eq!([of(&[]), of(&[None]), of(&[None, From]), of(&[Both, From])], ["", "", "rslave", "rshared"]);
}

#[test]
fn what_is_missing_becomes_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/deep");
    let first = made(vec![wish("/y", path.to_str().unwrap())], &[]).unwrap();
    assert!(path.is_dir() && shown(&first, "/y").contains("new/deep"));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("new", &link).unwrap();
    let made = made(vec![wish("/y", link.to_str().unwrap())], &[]).unwrap();
    assert!(shown(&made, "/y").contains("/new "), "links are resolved");
}

#[test]
fn wishes_that_are_refused() {
    let error = |place: &str, path: &str| made(vec![wish(place, path)], &[]).unwrap_err();
    assert_eq!(error("/y", ""), "failed to mkdir \"\": the path is not absolute");
    assert_eq!(error("/y", "etc"), "failed to mkdir \"etc\": the path is not absolute");
    assert_eq!(error("", "/etc"), "mount of \"/etc\" has no place in the container");
    assert!(
        error("/y", "/etc/passwd/x")
            .starts_with("failed to stat \"/etc/passwd/x\": stat /etc/passwd/x: not a directory")
    );
    let image = cri::ImageSpec { image: "web".into(), ..Default::default() };
    let unmounted = cri::Mount { image: Some(image), ..wish("/y", "") };
    assert_eq!(made(vec![unmounted], &[]).unwrap_err(), "image volumes are not supported: \"web\" at \"/y\"");
}

#[test]
fn parts_of_images() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("bin/deep")).unwrap();
    std::os::unix::fs::symlink("/bin", dir.path().join("in")).unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
    let of = |sub: &str| {
        let image = Some(cri::ImageSpec { image: "web".into(), ..Default::default() });
        let host_path = dir.path().to_str().unwrap();
        let mount = cri::Mount { image, image_sub_path: sub.into(), readonly: true, ..wish("/y", host_path) };
        made(vec![mount], &[]).map(|mounts| shown(&mounts, "/y"))
    };
    let root = fs::canonicalize(dir.path()).unwrap().display().to_string();
    assert_eq!(of("").unwrap(), format!("bind {root} rbind,rprivate,ro"));
    assert_eq!(of("bin/deep").unwrap(), format!("bind {root}/bin/deep rbind,rprivate,ro"));
    assert_eq!(of("in/deep").unwrap(), format!("bind {root}/bin/deep rbind,rprivate,ro"));
    assert_eq!(
        of("out").unwrap_err(),
        "failed to mount image \"web\" sub path \"out\": look: no such file or directory"
    );
    assert!(of("../x").is_err() && of("/x").is_err());
}
