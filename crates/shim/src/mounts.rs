//! Mounts as the specification lists them: options in the kernel's words, and bind mounts prepared on the host's side.
//!
//! A bind mount's source is opened by the shim, before the container's namespaces exist, as a detached tree that gets its flags and
//! id mapping there. The container's side only moves it to its place. So a source below a directory that the container's user may not
//! pass still works, and nothing is ever visible without its flags.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use crate::fault::{Doing, Fault, reason};
use crate::setup::Cgroup;
use crate::spec::{IdMapping, Mount};
use crate::sys::{self, Forked, MountChange};

pub(crate) const READ_ONLY: u64 = 1;
pub(crate) const NO_SUID: u64 = 2;
pub(crate) const NO_DEV: u64 = 4;
pub(crate) const NO_EXEC: u64 = 8;

/// What the options of one mount say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Flags of the mount itself, `MOUNT_ATTR_…`.
    pub(crate) flags: u64,
    /// Flags to set and clear on the whole tree.
    tree_set: u64,
    tree_clear: u64,
    /// Propagation of the mount, or of the tree.
    propagation: Option<(u64, bool)>,
    pub(crate) is_bind: bool,
    is_recursive: bool,
    /// `idmap` or `ridmap`, and whether of the whole tree.
    id_map: Option<bool>,
    /// What is the file system's own.
    pub(crate) own: Vec<(String, Option<String>)>,
}

fn flag(name: &str) -> Option<(u64, bool)> {
    Some(match name {
        "ro" => (READ_ONLY, true),
        "nosuid" => (NO_SUID, true),
        "nodev" => (NO_DEV, true),
        "noexec" => (NO_EXEC, true),
        "noatime" => (0x10, true),
        "strictatime" => (0x20, true),
        "nodiratime" => (0x80, true),
        "nosymfollow" => (0x0020_0000, true),
        "rw" => (READ_ONLY, false),
        "suid" => (NO_SUID, false),
        "dev" => (NO_DEV, false),
        "exec" => (NO_EXEC, false),
        "diratime" => (0x80, false),
        "relatime" | "atime" => (0x10, false),
        _ => return None,
    })
}

impl Options {
    pub(crate) fn parse(options: &[String]) -> Self {
        let mut parsed = Self::default();
        for option in options {
            if let Some((bits, is_set)) = flag(option) {
                parsed.flags = if is_set { parsed.flags | bits } else { parsed.flags & !bits };
                continue;
            }
            if let Some((bits, is_set)) = option.strip_prefix('r').and_then(flag) {
                let target = if is_set { &mut parsed.tree_set } else { &mut parsed.tree_clear };
                *target |= bits;
                continue;
            }
            match option.as_str() {
                "defaults" | "async" | "nomand" | "norelatime" | "nostrictatime" | "loud" => {}
                "bind" => parsed.is_bind = true,
                "rbind" => (parsed.is_bind, parsed.is_recursive) = (true, true),
                "private" | "rprivate" => parsed.propagation = Some((libc::MS_PRIVATE, option.starts_with('r'))),
                "slave" | "rslave" => parsed.propagation = Some((libc::MS_SLAVE, option.starts_with('r'))),
                "shared" | "rshared" => parsed.propagation = Some((libc::MS_SHARED, option.starts_with('r'))),
                "unbindable" | "runbindable" => {
                    parsed.propagation = Some((libc::MS_UNBINDABLE, option.starts_with('r')))
                }
                "idmap" => parsed.id_map = Some(false),
                "ridmap" => parsed.id_map = Some(true),
                other => parsed.own.push(match other.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (other.to_owned(), None),
                }),
            }
        }
        parsed
    }
}

/// A mount as the shim hands it to the container's side.
pub(crate) enum Prepared {
    /// A tree to move to its place.
    Tree { tree: OwnedFd, is_dir: bool },
    /// A new file system, which has to be made in the container's namespaces.
    FileSystem,
    /// Cgroup v1: one tree for each hierarchy, with its name.
    Cgroups(Vec<(String, OwnedFd)>),
}

/// Prepares one mount on the host's side. Relative sources are below the bundle.
pub(crate) fn prepare(mount: &Mount, bundle: &Path, cgroups: &[Cgroup], maps: &mut Maps) -> Result<Prepared, Fault> {
    let options = Options::parse(&mount.options);
    if mount.kind == "cgroup" && cgroups.iter().any(|cgroup| !cgroup.is_unified()) {
        return cgroup_trees(cgroups, &options);
    }
    if !options.is_bind && mount.kind != "bind" {
        return Ok(Prepared::FileSystem);
    }
    let source = bundle.join(&mount.source);
    let words = || format!("error mounting {:?} to rootfs at {:?}", mount.source, mount.destination);
    let is_dir = fs::metadata(&source)
        .map_err(|e| Fault(format!("{}: stat {}: {}", words(), source.display(), reason(&e))))?
        .is_dir();
    let tree = clone_tree(&source, options.is_recursive).doing(words)?;
    if options.id_map.is_some() || !mount.uid_mappings.is_empty() {
        let is_recursive = options.id_map.unwrap_or(options.is_recursive);
        maps.apply(&tree, &mount.uid_mappings, &mount.gid_mappings, is_recursive)
            .map_err(|e| Fault(format!("{}: id mapping: {e}", words())))?;
    }
    adjust(&tree, &options).doing(words)?;
    Ok(Prepared::Tree { tree, is_dir })
}

/// A detached copy of the mount (or the tree of mounts) at a path.
pub(crate) fn clone_tree(path: &Path, is_recursive: bool) -> rustix::io::Result<OwnedFd> {
    let recursive = if is_recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive)
}

/// Flags and propagation, as the options want them.
fn adjust(tree: &OwnedFd, options: &Options) -> std::io::Result<()> {
    if options.tree_set != 0 || options.tree_clear != 0 {
        let change =
            MountChange { set: options.tree_set, clear: options.tree_clear, recursive: true, ..MountChange::default() };
        sys::change_mount(tree, change)?;
    }
    if options.flags != 0 {
        sys::change_mount(tree, MountChange { set: options.flags, ..MountChange::default() })?;
    }
    if let Some((propagation, recursive)) = options.propagation {
        sys::change_mount(tree, MountChange { propagation, recursive, ..MountChange::default() })?;
    }
    Ok(())
}

fn cgroup_trees(cgroups: &[Cgroup], options: &Options) -> Result<Prepared, Fault> {
    let mut trees = Vec::with_capacity(cgroups.len());
    for cgroup in cgroups {
        let words = || format!("error mounting cgroup {}", cgroup.dir.display());
        let tree = clone_tree(&cgroup.dir, false).doing(words)?;
        sys::change_mount(
            &tree,
            MountChange { set: options.flags, propagation: libc::MS_PRIVATE, ..MountChange::default() },
        )
        .doing(words)?;
        let name = if cgroup.is_unified() { "unified".to_owned() } else { cgroup.name.clone() };
        trees.push((name, tree));
    }
    Ok(Prepared::Cgroups(trees))
}

/// Mappings, and for each the user namespace that stands for it.
type Known = ((Vec<IdMapping>, Vec<IdMapping>), OwnedFd);

/// User namespaces that stand for id mappings; each mapping is made once.
#[derive(Default)]
pub(crate) struct Maps(Vec<Known>);

impl Maps {
    /// Gives a detached tree an id mapping.
    pub(crate) fn apply(
        &mut self,
        tree: &OwnedFd,
        uids: &[IdMapping],
        gids: &[IdMapping],
        recursive: bool,
    ) -> Result<(), Fault> {
        let wanted = (uids.to_vec(), gids.to_vec());
        let at = match self.0.iter().position(|(known, _)| *known == wanted) {
            Some(at) => at,
            None => {
                self.0.push((wanted, user_namespace(uids, gids)?));
                self.0.len() - 1
            }
        };
        let change = MountChange { user_namespace: Some(self.0[at].1.as_fd()), recursive, ..MountChange::default() };
        sys::change_mount(tree, change).doing(|| "the file system refuses".to_owned())
    }
}

/// A user namespace with these mappings and nobody in it.
fn user_namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, Fault> {
    let what = || "make a user namespace".to_owned();
    let (reader, writer) = std::io::pipe().doing(what)?;
    match sys::clone_process(libc::CLONE_NEWUSER).doing(what)? {
        Forked::Child => {
            drop(writer);
            let _ = std::io::Read::read(&mut &reader, &mut [0]);
            sys::exit_now(0)
        }
        Forked::Parent(pid) => {
            let namespace = write_maps(pid, uids, gids).and_then(|()| open_namespace(&format!("/proc/{pid}/ns/user")));
            drop(writer);
            sys::wait_for(pid).doing(what)?;
            namespace
        }
    }
}

/// Opens a namespace's file.
pub(crate) fn open_namespace(path: &str) -> Result<OwnedFd, Fault> {
    fs::File::open(path).map(Into::into).doing(|| format!("open namespace {path}"))
}

/// Writes both mappings of a new user namespace, by its first process.
pub(crate) fn write_maps(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Fault> {
    for (name, maps) in [("uid_map", uids), ("gid_map", gids)] {
        let lines: String =
            maps.iter().map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.size)).collect();
        fs::write(format!("/proc/{pid}/{name}"), &lines).doing(|| format!("write {name} {lines:?}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        Options::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_in_the_kernels_words() {
        let plain = parse("nosuid,noexec,nodev,mode=755,size=65536k,newinstance");
        assert_eq!(plain.flags, NO_SUID | NO_EXEC | NO_DEV);
        assert_eq!(plain.own.len(), 3);
        assert_eq!(plain.own[0], ("mode".to_owned(), Some("755".to_owned())));
        let bind = parse("rbind,rprivate,ro");
        assert!(bind.is_bind && bind.is_recursive && bind.own.is_empty());
        assert_eq!((bind.flags, bind.propagation), (READ_ONLY, Some((libc::MS_PRIVATE, true))));
        assert_eq!(parse("bind,ro,rw").flags, 0);
        assert_eq!(parse("rbind,rro").tree_set, READ_ONLY);
        assert_eq!(parse("rbind,rslave").propagation, Some((libc::MS_SLAVE, true)));
    }
}
