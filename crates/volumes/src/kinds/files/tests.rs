use std::fs;
use std::os::unix::fs::MetadataExt;

use rubelet_core::pod::step::{SubPath, VolumeKind};
use rubelet_host::paths;

use super::*;
use crate::testing::in_private_namespace;
use crate::{mount, subpath, unmount_all};

fn file(path: &str, content: &[u8], mode: u32) -> VolumeFile {
    VolumeFile { path: path.into(), content: content.into(), mode, owner: None }
}

fn volume(pod: &Path, name: &str, dir: &str, plugin: FilesPlugin, files: Vec<VolumeFile>) -> VolumePlan {
    VolumePlan {
        volume: name.into(),
        name: name.into(),
        path: pod.join("volumes").join(dir).join(name),
        kind: VolumeKind::Files { plugin, files, default_mode: 0o644 },
        fs_group: Some(3000),
        fs_group_on_root_mismatch: false,
    }
}

/// Mode, owner, group and path, links with their targets, as the recordings have them.
fn tree(dir: &Path, volume: &str) -> Vec<String> {
    let root = dir.join("volumes").join(volume);
    let stamp = fs::read_link(root.join("..data")).unwrap().to_string_lossy().into_owned();
    let mut out = Vec::new();
    let mut ahead = vec![root.clone()];
    while let Some(at) = ahead.pop() {
        let meta = fs::symlink_metadata(&at).unwrap();
        let link = fs::read_link(&at).map(|t| format!(" -> {}", t.display())).unwrap_or_default();
        let path = at.strip_prefix(root.parent().unwrap()).unwrap().display();
        out.push(format!("{:o} {}:{} {path}{link}", meta.mode(), meta.uid(), meta.gid()).replace(&stamp, "..<stamp>"));
        if meta.is_dir() {
            ahead.extend(fs::read_dir(&at).unwrap().map(|e| e.unwrap().path()));
        }
    }
    out.sort_by_key(|line| line.split(' ').nth(2).unwrap().to_owned());
    out
}

/// The volumes of the recorded pod `c02-configmap-secret`.
#[test]
fn volumes_of_objects_look_as_recorded() {
    in_private_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pods/uid-1");
        paths::ensure_dir(&pod, 0o750).unwrap();
        let conf = vec![file("app.ini", b"[a]\n", 0o644), file("blob", &[0, 1], 0o644), file("key", b"v", 0o644)];
        let token = VolumeFile { owner: Some(1000), ..file("token", b"tok", 0o600) };
        let projected = vec![file("k", b"v", 0o440), token];
        let c = volume(&pod, "c", "kubernetes.io~configmap", FilesPlugin::ConfigMap, conf);
        let s = vec![file("deep/pw", b"x", 0o400)];
        let s = volume(&pod, "s", "kubernetes.io~secret", FilesPlugin::Secret, s);
        let p = volume(&pod, "p", "kubernetes.io~projected", FilesPlugin::Projected, projected);
        for _ in 0..2 {
            for plan in [&c, &s, &p] {
                mount(plan, &pod).unwrap();
            }
        }
        assert_eq!(
            tree(&pod, "kubernetes.io~configmap/c"),
            [
                "42777 0:3000 c",
                "42755 0:3000 c/..<stamp>",
                "100644 0:3000 c/..<stamp>/app.ini",
                "100644 0:3000 c/..<stamp>/blob",
                "100644 0:3000 c/..<stamp>/key",
                "120777 0:3000 c/..data -> ..<stamp>",
                "120777 0:3000 c/app.ini -> ..data/app.ini",
                "120777 0:3000 c/blob -> ..data/blob",
                "120777 0:3000 c/key -> ..data/key",
            ]
        );
        assert_eq!(
            tree(&pod, "kubernetes.io~secret/s"),
            [
                "43777 0:3000 s",
                "42755 0:3000 s/..<stamp>",
                "42755 0:3000 s/..<stamp>/deep",
                "100440 0:3000 s/..<stamp>/deep/pw",
                "120777 0:3000 s/..data -> ..<stamp>",
                "120777 0:3000 s/deep -> ..data/deep",
            ]
        );
        assert_eq!(
            tree(&pod, "kubernetes.io~projected/p"),
            [
                "43777 0:3000 p",
                "42755 0:3000 p/..<stamp>",
                "100440 0:3000 p/..<stamp>/k",
                "100640 1000:3000 p/..<stamp>/token",
                "120777 0:3000 p/..data -> ..<stamp>",
                "120777 0:3000 p/k -> ..data/k",
                "120777 1000:3000 p/token -> ..data/token",
            ]
        );
        for name in ["c", "s", "p"] {
            assert!(pod.join(format!("plugins/kubernetes.io~empty-dir/wrapped_{name}/ready")).is_file());
        }
        let mounted = rubelet_host::mount::at_or_below(&fs::canonicalize(&pod).unwrap()).unwrap();
        assert_eq!(mounted.len(), 2, "the configMap lies on the disk");
        unmount_all(&pod).unwrap();
        assert_eq!(fs::read_dir(pod.join("volumes")).unwrap().count(), 0);
    });
}

#[test]
fn an_update_shows_everywhere_but_in_a_subpath() {
    in_private_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pods/uid-1");
        paths::ensure_dir(&pod, 0o750).unwrap();
        let with = |content: &[u8]| {
            let files = vec![file("app.ini", content, 0o644)];
            volume(&pod, "c", "kubernetes.io~configmap", FilesPlugin::ConfigMap, files)
        };
        mount(&with(b"one"), &pod).unwrap();
        let at = SubPath {
            mount: 0,
            volume_path: with(b"").path,
            sub_path: "app.ini".into(),
            target: pod.join("volume-subpaths/c/main/3"),
            read_only: true,
        };
        subpath(&at).unwrap();
        mount(&with(b"two"), &pod).unwrap();
        assert_eq!(fs::read(with(b"").path.join("app.ini")).unwrap(), b"two");
        assert_eq!(fs::read(&at.target).unwrap(), b"one");
        unmount_all(&pod).unwrap();
    });
}

#[test]
fn a_local_volume_is_bound_once_and_keeps_its_content() {
    in_private_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let (pod, disk) = (dir.path().join("pods/uid-1"), dir.path().join("disk"));
        paths::ensure_dir(&pod, 0o750).unwrap();
        fs::create_dir(&disk).unwrap();
        fs::write(disk.join("kept"), "x").unwrap();
        let mut plan = volume(&pod, "pv-1", "kubernetes.io~local-volume", FilesPlugin::ConfigMap, Vec::new());
        plan.kind = VolumeKind::Local { source: disk.clone(), is_read_only: false };
        for _ in 0..2 {
            mount(&plan, &pod).unwrap();
        }
        assert_eq!(fs::read_to_string(plan.path.join("kept")).unwrap(), "x");
        assert_eq!(fs::metadata(disk.join("kept")).unwrap().gid(), 3000);
        assert_eq!(rubelet_host::mount::at_or_below(&fs::canonicalize(&pod).unwrap()).unwrap().len(), 1);
        unmount_all(&pod).unwrap();
        assert!(!plan.path.exists() && disk.join("kept").exists());
        plan.kind = VolumeKind::Local { source: dir.path().join("none"), is_read_only: false };
        assert!(mount(&plan, &pod).is_err());
    });
}
