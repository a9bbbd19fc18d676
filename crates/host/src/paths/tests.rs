use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::mount::{self, Tmpfs, Unmount, tests::in_private_namespace};

fn ino(fd: &OwnedFd) -> u64 {
    rfs::fstat(fd).unwrap().st_ino
}

#[test]
fn a_missing_subpath_is_made_with_the_volumes_mode() {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("v");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o2777)).unwrap();
    let fd = safe_subpath(&volume, Path::new("deep/er")).unwrap();
    for made in ["deep", "deep/er"] {
        assert_eq!(fs::metadata(volume.join(made)).unwrap().mode() & 0o7777, 0o2777, "{made}");
    }
    assert_eq!(ino(&fd), fs::metadata(volume.join("deep/er")).unwrap().ino());
    assert_eq!(ino(&safe_subpath(&volume, Path::new("deep/er")).unwrap()), ino(&fd));
}

#[test]
fn links_that_stay_inside_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("v");
    fs::create_dir_all(volume.join("..2025/sub")).unwrap();
    fs::write(volume.join("..2025/key"), "x").unwrap();
    symlink("..2025", volume.join("..data")).unwrap();
    symlink("..data/key", volume.join("key")).unwrap();
    symlink(volume.join("..2025/sub"), volume.join("absolute")).unwrap();
    let want = |path: &str| fs::metadata(volume.join(path)).unwrap().ino();
    assert_eq!(ino(&safe_subpath(&volume, Path::new("key")).unwrap()), want("..2025/key"));
    assert_eq!(ino(&safe_subpath(&volume, Path::new("absolute")).unwrap()), want("..2025/sub"));
    safe_subpath(&volume, Path::new("absolute/new")).unwrap();
    assert!(volume.join("..2025/sub/new").is_dir());
}

#[test]
fn nothing_leads_out() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, victim) = (dir.path().join("v"), dir.path().join("victim"));
    fs::create_dir(&volume).unwrap();
    fs::create_dir(&victim).unwrap();
    symlink(&victim, volume.join("absolute")).unwrap();
    symlink("../victim", volume.join("relative")).unwrap();
    symlink("/nowhere/at/all", volume.join("dangling-out")).unwrap();
    symlink("gone", volume.join("dangling-in")).unwrap();
    symlink("loop", volume.join("loop")).unwrap();
    for sub in ["absolute", "relative", "absolute/new", "relative/new", "dangling-out", "loop"] {
        let error = safe_subpath(&volume, Path::new(sub)).unwrap_err();
        assert!(matches!(error, PathError::Escapes { .. } | PathError::Open { .. }), "{sub}: {error}");
    }
    assert!(safe_subpath(&volume, Path::new("dangling-in")).is_err());
    for sub in ["../victim", "/etc", "a/../../victim"] {
        assert!(matches!(safe_subpath(&volume, Path::new(sub)), Err(PathError::NotBeneath { .. })), "{sub}");
    }
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
}

#[test]
fn a_file_is_written_whole_with_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    write_atomic(&path, b"one", 0o644).unwrap();
    write_atomic(&path, b"two", 0o600).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert!(write_atomic(&dir.path().join("no/f"), b"", 0o600).is_err());
    fs::create_dir(dir.path().join("d")).unwrap();
    assert!(write_atomic(&dir.path().join("d"), b"", 0o600).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside");
}

#[test]
fn directories_get_their_mode_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    ensure_dir(&dir.path().join("a/b"), 0o777).unwrap();
    ensure_dir(&dir.path().join("a/b"), 0o700).unwrap();
    assert_eq!(fs::metadata(dir.path().join("a/b")).unwrap().mode() & 0o7777, 0o777);
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(ensure_dir(&dir.path().join("file"), 0o700).is_err());
}

#[test]
fn a_tree_is_removed_and_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, victim) = (dir.path().join("tree"), dir.path().join("victim"));
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("keep"), "").unwrap();
    fs::write(tree.join("a/b/file"), "").unwrap();
    symlink(&victim, tree.join("a/link")).unwrap();
    remove_tree(&tree).unwrap();
    assert!(!tree.exists() && victim.join("keep").exists());
    remove_tree(&tree).unwrap();
    symlink(&victim, &tree).unwrap();
    remove_tree(&tree).unwrap();
    assert!(!tree.exists() && victim.join("keep").exists());
}

#[test]
fn depth_does_not_exhaust_the_stack_or_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let mut fd = rfs::open(&tree, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..5_000 {
        rfs::mkdirat(&fd, "d", Mode::from_raw_mode(0o700)).unwrap();
        fd = rfs::openat(&fd, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    drop(fd);
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn mounts_are_not_crossed() {
    in_private_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let (tree, victim) = (dir.path().join("tree"), dir.path().join("victim"));
        fs::create_dir_all(tree.join("a/bound")).unwrap();
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("keep"), "").unwrap();
        mount::bind(&victim, &tree.join("a/bound")).unwrap();
        let error = remove_tree(&tree).unwrap_err();
        assert!(matches!(&error, PathError::MountPoint { path } if path == &tree.join("a/bound")), "{error}");
        assert!(victim.join("keep").exists());
        mount::unmount(&tree.join("a/bound"), Unmount::Plain).unwrap();
        mount::tmpfs(&tree, Tmpfs::default()).unwrap();
        assert!(matches!(remove_tree(&tree), Err(PathError::MountPoint { .. })));
        mount::unmount(&tree, Unmount::Plain).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    });
}
