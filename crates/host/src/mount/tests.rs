use std::fs;

use super::*;

/// Runs `test` in a thread with a mount namespace of its own; says so when it can't.
pub(crate) fn in_private_namespace(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: needs root");
        return;
    }
    let run = || {
        enter_private_namespace().unwrap();
        test();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn the_table_is_parsed() {
    let text = b"25 1 0:22 / / rw - ext4 /dev/vda rw\n\
        36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:7 master:1 - ext3 /dev/root rw,errors=continue\n\
        broken line\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n";
    let mounts = parse(text);
    assert_eq!(mounts.len(), 3);
    assert_eq!(mounts[1].target, Path::new("/mnt 2"));
    assert_eq!((mounts[1].is_shared, mounts[0].is_shared), (true, false));
    assert_eq!((mounts[1].fs_type.as_str(), mounts[1].root.to_str()), ("ext3", Some("/mnt1")));
    assert_eq!(mounts[2].super_options, "rw,name=systemd");
}

#[test]
fn a_tmpfs_has_its_size_and_goes() {
    in_private_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        tmpfs(dir.path(), Tmpfs { size_bytes: Some(1 << 20), noswap: true, is_data_only: false }).unwrap();
        assert!(is_mount_point(dir.path()).unwrap());
        let stat = rustix::fs::statvfs(dir.path()).unwrap();
        assert_eq!(stat.f_blocks * stat.f_frsize, 1 << 20);
        assert!(fs::write(dir.path().join("big"), vec![0; 2 << 20]).is_err());
        unmount(dir.path(), Unmount::Plain).unwrap();
        assert!(!is_mount_point(dir.path()).unwrap());
        unmount(dir.path(), Unmount::Plain).unwrap();
        unmount(&dir.path().join("missing"), Unmount::Plain).unwrap();
    });
}

#[test]
fn a_busy_mount_goes_lazily_only() {
    in_private_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        tmpfs(dir.path(), Tmpfs::default()).unwrap();
        let file = fs::File::create(dir.path().join("held")).unwrap();
        let error = unmount(dir.path(), Unmount::Plain).unwrap_err();
        assert!(matches!(&error, MountError::Unmount { source, .. } if source.raw_os_error() == Some(libc::EBUSY)));
        unmount(dir.path(), Unmount::Lazy).unwrap();
        assert!(!is_mount_point(dir.path()).unwrap());
        drop(file);
    });
}

#[test]
fn files_and_directories_are_bound_by_descriptor() {
    in_private_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        fs::write(&source, "hello").unwrap();
        fs::write(&target, "").unwrap();
        let fd = fs::File::open(&source).unwrap();
        fs::rename(&source, dir.path().join("moved")).unwrap();
        bind_fd(&fd, &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "hello");
        let below = at_or_below(dir.path()).unwrap();
        assert_eq!(below.iter().map(|m| m.target.clone()).collect::<Vec<_>>(), std::slice::from_ref(&target));
        unmount(&target, Unmount::Plain).unwrap();
    });
}

#[test]
fn the_deepest_mount_is_listed_first() {
    in_private_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        let (outer, inner) = (dir.path().join("a"), dir.path().join("a/b"));
        fs::create_dir(&outer).unwrap();
        tmpfs(&outer, Tmpfs::default()).unwrap();
        fs::create_dir(&inner).unwrap();
        tmpfs(&inner, Tmpfs::default()).unwrap();
        for mount in at_or_below(dir.path()).unwrap() {
            unmount(&mount.target, Unmount::Plain).unwrap();
        }
        assert!(at_or_below(dir.path()).unwrap().is_empty());
    });
}

#[test]
fn a_directory_becomes_rshared() {
    in_private_namespace(|| {
        let dir = tempfile::tempdir().unwrap();
        make_rshared(dir.path()).unwrap();
        make_rshared(dir.path()).unwrap();
        let mounts: Vec<_> = table().unwrap().into_iter().filter(|m| m.target == dir.path()).collect();
        assert_eq!(mounts.len(), 1);
        assert!(mounts[0].is_shared);
        unmount(dir.path(), Unmount::Plain).unwrap();
    });
}
