//! The container's file system, made in its own mount namespace: mounts, hidden and read-only paths, `/dev`, and the change of root.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::devices::{self, Nodes};
use crate::fault::{Doing, Fault};
use crate::mounts::{NO_DEV, NO_EXEC, NO_SUID, Options, Prepared, READ_ONLY, clone_tree};
use crate::spec::{Mount, Spec};
use crate::sys::{self, MountChange};

/// Puts the root and everything on it in place and makes it this process's root.
pub(crate) fn enter(
    spec: &Spec,
    root: Option<OwnedFd>,
    mounts: Vec<Prepared>,
    nodes: Vec<(String, OwnedFd)>,
) -> Result<(), Fault> {
    // Nothing that happens here is to be seen outside; what is mounted outside later is not wanted either.
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
        .doing(|| "make the mount namespace a downstream one".to_owned())?;
    let has_root = root.is_some();
    let root = match root {
        Some(tree) => tree,
        None => new_file_system("tmpfs", &Options::parse(&["mode=755".to_owned(), "size=64k".to_owned()]), "")
            .doing(|| "mount an empty root".to_owned())?,
    };
    attach(root.as_fd(), CWD, "/").doing(|| "mount the root".to_owned())?;
    let mut brings_dev = false;
    for (mount, prepared) in spec.mounts.iter().zip(mounts) {
        brings_dev |= matches!(prepared, Prepared::Tree { .. }) && mount.destination.trim_end_matches('/') == "/dev";
        place(root.as_fd(), mount, prepared, &spec.linux.mount_label)?;
    }
    for (path, tree) in nodes {
        let words = || format!("error mounting device {path:?}");
        let target = target(root.as_fd(), &path, false).doing(words)?;
        attach(tree.as_fd(), target.as_fd(), "").doing(words)?;
    }
    if has_root && !spec.process.cwd.is_empty() {
        match target(root.as_fd(), &spec.process.cwd, true) {
            Err(Errno::ACCESS) => {} // perhaps its user may
            other => drop(other.doing(|| format!("mkdir {}", spec.process.cwd))?),
        }
    }
    make_read_only(root.as_fd(), &spec.linux.readonly_paths)?;
    mask(root.as_fd(), &spec.linux.masked_paths)?;
    rustix::process::fchdir(&root).doing(|| "change to the root".to_owned())?;
    rustix::process::pivot_root(".", ".").doing(|| "pivot_root".to_owned())?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing(|| "unmount the old root".to_owned())?;
    rustix::process::chdir("/").doing(|| "change to /".to_owned())?;
    if has_root && !brings_dev {
        let nodes = if spec.linux.namespace("user").is_some() { Nodes::Bound } else { Nodes::Made };
        set_up_dev(spec, nodes)?;
    }
    let propagation = match spec.linux.rootfs_propagation.as_str() {
        "shared" | "rshared" => libc::MS_SHARED,
        "unbindable" | "runbindable" => libc::MS_UNBINDABLE,
        _ => 0,
    };
    let read_only = if !has_root || spec.root.as_ref().is_some_and(|root| root.readonly) { READ_ONLY } else { 0 };
    if propagation != 0 || read_only != 0 {
        sys::change_mount(&root, MountChange { set: read_only, propagation, ..MountChange::default() })
            .doing(|| "make the root read-only".to_owned())?;
    }
    Ok(())
}

/// Moves a detached tree to its place.
fn attach(tree: BorrowedFd<'_>, dir: BorrowedFd<'_>, path: &str) -> rustix::io::Result<()> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    rustix::mount::move_mount(tree, "", dir, path, flags)
}

fn open_in(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    const TRIES: usize = 16;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        // EAGAIN: something was renamed while `..` was followed.
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a mount point below the root, never leaving it by a link; what is missing of it is made.
fn target(root: BorrowedFd<'_>, path: &str, is_dir: bool) -> rustix::io::Result<OwnedFd> {
    match open_in(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut parent = open_in(root, "/", OFlags::PATH)?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    for (at, part) in parts.iter().enumerate() {
        let prefix = parts[..=at].join("/");
        parent = match open_in(root, &prefix, OFlags::PATH) {
            Err(Errno::NOENT) if at + 1 == parts.len() && !is_dir => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&parent, *part, flags, Mode::from_bits_truncate(0o644))?;
                open_in(root, &prefix, OFlags::PATH)?
            }
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&parent, *part, Mode::from_bits_truncate(0o755))?;
                open_in(root, &prefix, OFlags::PATH)?
            }
            other => other?,
        };
    }
    Ok(parent)
}

/// A new file system of a kind, detached.
fn new_file_system(kind: &str, options: &Options, label: &str) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in &options.own {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(context.as_fd(), name.as_str(), value.as_str())?,
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), name.as_str())?,
        }
    }
    if !label.is_empty() {
        rustix::mount::fsconfig_set_string(context.as_fd(), "context", label)?;
    }
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", kind)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let flags = MountAttrFlags::from_bits_retain(u32::try_from(options.flags).unwrap_or(0));
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

fn place(root: BorrowedFd<'_>, mount: &Mount, prepared: Prepared, label: &str) -> Result<(), Fault> {
    let words = || {
        let source = if mount.source.is_empty() { &mount.kind } else { &mount.source };
        format!("error mounting {source:?} to rootfs at {:?}", mount.destination)
    };
    match prepared {
        Prepared::Tree { tree, is_dir } => {
            let target = target(root, &mount.destination, is_dir).doing(words)?;
            attach(tree.as_fd(), target.as_fd(), "").doing(words)
        }
        Prepared::FileSystem => {
            let target = target(root, &mount.destination, true).doing(words)?;
            let options = Options::parse(&mount.options);
            let kind = if mount.kind == "cgroup" { "cgroup2" } else { &mount.kind };
            // A label is for file systems that keep files; proc and sysfs have their own.
            let label = if kind == "tmpfs" { label } else { "" };
            let tree = new_file_system(kind, &options, label).doing(words)?;
            attach(tree.as_fd(), target.as_fd(), "").doing(words)
        }
        Prepared::Cgroups(trees) => {
            let target = target(root, &mount.destination, true).doing(words)?;
            let flags = Options::parse(&mount.options).flags;
            let options = Options::parse(&["mode=755".to_owned()]);
            let dir = new_file_system("tmpfs", &options, label).doing(words)?;
            attach(dir.as_fd(), target.as_fd(), "").doing(words)?;
            for (name, tree) in trees {
                rustix::fs::mkdirat(&dir, name.as_str(), Mode::from_bits_truncate(0o755)).doing(words)?;
                let at = open_in(dir.as_fd(), &name, OFlags::PATH).doing(words)?;
                attach(tree.as_fd(), at.as_fd(), "").doing(words)?;
                for part in name.split(',').filter(|part| *part != name) {
                    rustix::fs::symlinkat(name.as_str(), &dir, part).doing(words)?;
                }
            }
            let set = flags | NO_SUID | NO_DEV | NO_EXEC;
            sys::change_mount(&dir, MountChange { set, ..MountChange::default() }).doing(words)
        }
    }
}

/// A detached copy of the tree that an open path is on.
fn clone_of(at: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(at, "", flags)
}

fn make_read_only(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), Fault> {
    for path in paths {
        let words = || format!("unable to make {path:?} read-only");
        let at = match open_in(root, path, OFlags::PATH) {
            Err(Errno::NOENT) => continue,
            other => other.doing(words)?,
        };
        let tree = clone_of(at.as_fd()).doing(words)?;
        sys::change_mount(&tree, MountChange { set: READ_ONLY, ..MountChange::default() }).doing(words)?;
        attach(tree.as_fd(), at.as_fd(), "").doing(words)?;
    }
    Ok(())
}

/// Covers files with `/dev/null` and directories with an empty read-only file system. Sources are the host's, not the image's.
fn mask(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), Fault> {
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let words = || format!("can't mask path {path:?}");
        let at = match open_in(root, path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.doing(words)?,
        };
        let is_dir = FileType::from_raw_mode(rustix::fs::fstat(&at).doing(words)?.st_mode) == FileType::Directory;
        let tree = match (&empty, is_dir) {
            (_, false) => clone_tree(Path::new("/dev/null"), false).doing(words)?,
            (Some(empty), true) => clone_of(empty.as_fd()).doing(words)?,
            (None, true) => new_file_system("tmpfs", &Options::parse(&["ro".to_owned()]), "").doing(words)?,
        };
        attach(tree.as_fd(), at.as_fd(), "").doing(words)?;
        if is_dir && empty.is_none() {
            empty = Some(tree);
        }
    }
    Ok(())
}

/// Nodes and links of `/dev`.
fn set_up_dev(spec: &Spec, nodes: Nodes) -> Result<(), Fault> {
    fs::create_dir_all("/dev").doing(|| "make /dev".to_owned())?;
    if nodes == Nodes::Made {
        devices::make(&spec.linux.devices)?;
    }
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ];
    let core = Path::new("/proc/kcore").exists().then_some(("/proc/kcore", "/dev/core"));
    for (to, at) in links.into_iter().chain(core) {
        match symlink(to, at) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.doing(|| format!("link {at:?}"))?,
        }
    }
    if Path::new("/dev/pts/ptmx").exists() {
        match fs::remove_file("/dev/ptmx") {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).doing(|| "remove /dev/ptmx".to_owned())?,
            _ => {}
        }
        symlink("pts/ptmx", "/dev/ptmx").doing(|| "link /dev/ptmx".to_owned())?;
    }
    Ok(())
}

/// Shows a terminal as `/dev/console`.
pub(crate) fn bind_console(terminal: BorrowedFd<'_>) -> Result<(), Fault> {
    let words = || "error mounting the terminal at /dev/console".to_owned();
    let slash = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(words)?;
    let at = target(slash.as_fd(), "/dev/console", false).doing(words)?;
    let tree = clone_of(terminal).doing(words)?;
    attach(tree.as_fd(), at.as_fd(), "").doing(words)
}
