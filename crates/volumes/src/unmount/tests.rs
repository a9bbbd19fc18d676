use std::os::unix::fs::MetadataExt;

use rubelet_core::pod::step::{FilesPlugin, VolumeFile, VolumeKind, VolumePlan};

use super::*;
use crate::testing::in_private_namespace;
use crate::{mount, survey};

fn plan(pod_dir: &Path, plugin: &str, name: &str, kind: VolumeKind) -> VolumePlan {
    VolumePlan {
        volume: name.into(),
        name: name.into(),
        path: pod_dir.join("volumes").join(plugin).join(name),
        kind,
        fs_group: None,
        fs_group_on_root_mismatch: false,
    }
}

fn files(content: &str) -> VolumeKind {
    VolumeKind::Files {
        plugin: FilesPlugin::DownwardApi,
        files: vec![VolumeFile { path: "labels".into(), content: content.into(), mode: 0o440, owner: None }],
        default_mode: 0o440,
    }
}

/// Mode, group and path of all directories and files, without what the atomic writer keeps inside.
fn tree(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut ahead = vec![dir.to_owned()];
    while let Some(at) = ahead.pop() {
        let meta = fs::symlink_metadata(&at).unwrap();
        out.push(format!("{:o} {} {}", meta.mode(), meta.gid(), at.strip_prefix(dir).unwrap().display()));
        if meta.is_dir() {
            ahead.extend(fs::read_dir(&at).unwrap().map(|e| e.unwrap().path()));
        }
    }
    out.retain(|line| !line.starts_with("120777") && !line.contains(".."));
    out.sort_by_key(|line| line.rsplit(' ').next().unwrap().to_owned());
    out
}

#[test]
fn volumes_come_as_recorded_and_go_without_a_trace() {
    in_private_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pods/uid-1");
        paths::ensure_dir(&pod, 0o750).unwrap();
        let empty = "kubernetes.io~empty-dir";
        let mut scratch = plan(&pod, empty, "scratch", VolumeKind::EmptyDir);
        let mut mem = plan(&pod, empty, "mem", VolumeKind::MemoryDir { size_bytes: Some(16 << 20) });
        (scratch.fs_group, scratch.fs_group_on_root_mismatch) = (Some(4000), true);
        (mem.fs_group, mem.fs_group_on_root_mismatch) = (Some(4000), true);
        let plain = plan(&pod, empty, "plain", VolumeKind::EmptyDir);
        let info = plan(&pod, "kubernetes.io~downward-api", "info", files("one"));
        for _ in 0..2 {
            for volume in [&scratch, &mem, &plain, &info] {
                mount(volume, &pod).unwrap();
            }
        }
        let want = [
            "40750 0 ",
            "40750 0 plugins",
            "40750 0 plugins/kubernetes.io~empty-dir",
            "40750 0 plugins/kubernetes.io~empty-dir/mem",
            "100644 0 plugins/kubernetes.io~empty-dir/mem/ready",
            "40750 0 plugins/kubernetes.io~empty-dir/plain",
            "100644 0 plugins/kubernetes.io~empty-dir/plain/ready",
            "40750 0 plugins/kubernetes.io~empty-dir/scratch",
            "100644 0 plugins/kubernetes.io~empty-dir/scratch/ready",
            "40750 0 plugins/kubernetes.io~empty-dir/wrapped_info",
            "100644 0 plugins/kubernetes.io~empty-dir/wrapped_info/ready",
            "40750 0 volumes",
            "40755 0 volumes/kubernetes.io~downward-api",
            "41777 0 volumes/kubernetes.io~downward-api/info",
            "40755 0 volumes/kubernetes.io~empty-dir",
            "43777 4000 volumes/kubernetes.io~empty-dir/mem",
            "40777 0 volumes/kubernetes.io~empty-dir/plain",
            "42777 4000 volumes/kubernetes.io~empty-dir/scratch",
        ];
        assert_eq!(tree(&pod), want);
        let found = survey(&dir.path().join("pods")).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].uid.as_str(), found[0].mounts.len()), ("uid-1", 2));

        mount(&VolumePlan { kind: files("two"), ..info.clone() }, &pod).unwrap();
        assert_eq!(fs::read_to_string(info.path.join("labels")).unwrap(), "two");
        assert!(matches!(remove_pod_dir(&pod), Err(UnmountError::StillMounted { .. })));

        fs::write(scratch.path.join("data"), "x").unwrap();
        unmount_all(&pod).unwrap();
        unmount_all(&pod).unwrap();
        assert_eq!(tree(&pod), ["40750 0 ", "40750 0 plugins", "40750 0 volumes"]);
        remove_pod_dir(&pod).unwrap();
        remove_pod_dir(&pod).unwrap();
        assert!(!pod.exists() && survey(&dir.path().join("pods")).unwrap().is_empty());
    });
}

#[test]
fn data_behind_a_foreign_mount_survives() {
    in_private_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let (pod, victim) = (dir.path().join("pod"), dir.path().join("victim"));
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("keep"), "").unwrap();
        let volume = plan(&pod, "kubernetes.io~empty-dir", "v", VolumeKind::EmptyDir);
        mount(&volume, &pod).unwrap();
        fs::create_dir(volume.path.join("bound")).unwrap();
        host_mount::bind(&victim, &volume.path.join("bound")).unwrap();
        let held = fs::File::open(volume.path.join("bound/keep")).unwrap();
        unmount_all(&pod).unwrap();
        assert!(!volume.path.exists() && victim.join("keep").exists());
        drop(held);
    });
}

#[test]
fn what_a_foreign_kind_left_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let pod = dir.path().join("pod");
    fs::create_dir_all(pod.join("volumes/kubernetes.io~csi/pv/mount")).unwrap();
    fs::create_dir_all(pod.join("volumes/kubernetes.io~nfs/empty")).unwrap();
    let error = unmount_all(&pod).unwrap_err();
    assert!(error.to_string().ends_with("volumes/kubernetes.io~csi/pv"), "{error}");
    assert!(remove_pod_dir(&pod).is_err());
    assert!(pod.join("volumes/kubernetes.io~csi/pv/mount").exists());
}

#[test]
fn a_refused_kind_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let kind = VolumeKind::Refused { message: "nfs is not built".into() };
    let error = mount(&plan(dir.path(), "kubernetes.io~nfs", "v", kind), dir.path()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(format!("{error}: {cause}"), "MountVolume.SetUp failed for volume \"v\" : nfs is not built");
    let outside = VolumePlan { path: "/tmp/elsewhere".into(), ..plan(dir.path(), "p", "v", VolumeKind::EmptyDir) };
    assert!(mount(&outside, dir.path()).is_err());
}
