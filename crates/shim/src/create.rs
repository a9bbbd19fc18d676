//! Creating the container, from the shim's side: everything that needs the host's rights and paths, then one clone.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::fault::{Doing, Fault};
use crate::init::{self, Plan};
use crate::mounts::{self, Maps, Prepared};
use crate::setup::Setup;
use crate::spec::{IdMapping, Linux, Spec};
use crate::sys::{self, Forked};
use crate::{cgroups, credentials, devices, seccomp, wire};

/// The container's streams on the shim's side.
pub(crate) enum Streams {
    /// The built-in pause process has none.
    None,
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Terminal {
        master: OwnedFd,
        peer: OwnedFd,
    },
}

/// How the first process is let go.
pub(crate) enum Release {
    /// Send `S` to start; closing it ends the process.
    Word(OwnedFd),
    /// The OCI runtime that created it starts it.
    Runtime,
}

/// A container whose first process waits for the word to go.
pub(crate) struct Created {
    pub(crate) pid: i32,
    pub(crate) sync: Release,
    pub(crate) streams: Streams,
}

/// Creates the container of a bundle. On failure nothing is left.
pub(crate) fn create(bundle: &Path, spec: Spec, setup: &Setup) -> Result<Created, Fault> {
    let inside =
        |fault: Fault| Fault(format!("unable to start container process: error during container init: {fault}"));
    refuse_unknown(&spec).map_err(inside)?;
    let entry = Entry::open(&spec.linux).map_err(inside)?;
    let is_user_new = spec.linux.has_new("user");
    let (sync, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .doing(|| "make a socket pair".to_owned())
        .map_err(inside)?;
    let (streams, their_streams) = open_streams(&spec, setup).map_err(inside)?;
    let rest = Rest {
        uid_maps: spec.linux.uid_mappings.clone(),
        gid_maps: spec.linux.gid_mappings.clone(),
        limits: spec.process.rlimits.clone(),
        oom_score_adj: spec.process.oom_score_adj,
    };
    let plan = prepare(bundle, spec, setup, their_streams).map_err(inside)?;
    let pid = entry.clone_into(plan, theirs, &sync).map_err(inside)?;
    let finish = || {
        if is_user_new {
            mounts::write_maps(pid, &rest.uid_maps, &rest.gid_maps).map_err(inside)?;
            wire::send_bytes(&sync, b"M", &[]).doing(|| "answer the container".to_owned()).map_err(inside)?;
        }
        rest.adjust_oom(pid).map_err(inside)?;
        let streams = until_ready(&sync, streams)?;
        rest.limit(pid).map_err(inside)?;
        Ok(streams)
    };
    match finish() {
        Ok(streams) => Ok(Created { pid, sync: Release::Word(sync), streams }),
        Err(fault) => {
            kill_and_reap(pid);
            Err(fault)
        }
    }
}

pub(crate) fn kill_and_reap(pid: i32) {
    let _ = sys::kill(pid, libc::SIGKILL);
    let _ = sys::wait_for(pid);
}

/// What is set on the first process from outside, because it may lack the right inside.
struct Rest {
    uid_maps: Vec<IdMapping>,
    gid_maps: Vec<IdMapping>,
    limits: Vec<crate::spec::Rlimit>,
    oom_score_adj: Option<i32>,
}

impl Rest {
    fn adjust_oom(&self, pid: i32) -> Result<(), Fault> {
        self.oom_score_adj.map_or(Ok(()), |score| adjust_oom(pid, score))
    }

    fn limit(&self, pid: i32) -> Result<(), Fault> {
        set_limits(pid, &self.limits)
    }
}

pub(crate) fn adjust_oom(pid: i32, score: i32) -> Result<(), Fault> {
    fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).doing(|| format!("set oom_score_adj to {score}"))
}

pub(crate) fn set_limits(pid: i32, limits: &[crate::spec::Rlimit]) -> Result<(), Fault> {
    for limit in limits {
        let number =
            credentials::limit_number(limit).ok_or_else(|| Fault(format!("unknown limit {:?}", limit.kind)))?;
        sys::set_limit(pid, number, limit.soft, limit.hard).doing(|| format!("error setting rlimit {}", limit.kind))?;
    }
    Ok(())
}

/// What cannot be done must not be left out silently.
fn refuse_unknown(spec: &Spec) -> Result<(), Fault> {
    if !spec.linux.has_new("mount") {
        return Err(Fault::new("a container needs a mount namespace of its own"));
    }
    for namespace in &spec.linux.namespaces {
        if kind_of(&namespace.kind).is_none() {
            return Err(Fault(format!("namespace {:?} is not supported", namespace.kind)));
        }
    }
    if spec.hooks.values().any(|hooks| !hooks.is_empty()) {
        return Err(Fault::new("hooks are not supported"));
    }
    if let Some(mount) = spec.mounts.iter().find(|mount| mount.options.iter().any(|option| option == "tmpcopyup")) {
        return Err(Fault(format!("mount option tmpcopyup of {:?} is not supported", mount.destination)));
    }
    Ok(())
}

fn kind_of(name: &str) -> Option<libc::c_int> {
    Some(match name {
        "pid" => libc::CLONE_NEWPID,
        "network" => libc::CLONE_NEWNET,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "mount" => libc::CLONE_NEWNS,
        "user" => libc::CLONE_NEWUSER,
        "cgroup" => libc::CLONE_NEWCGROUP,
        _ => return None,
    })
}

/// Ways into the namespaces.
struct Entry {
    /// To join, all but the user namespace, with the shim's own to come back to.
    join: Vec<(libc::c_int, OwnedFd, OwnedFd)>,
    join_user: Option<OwnedFd>,
    /// `CLONE_NEW…` of the clone. The cgroup namespace is made later, when the cgroups are joined.
    new: libc::c_int,
}

impl Entry {
    fn open(linux: &Linux) -> Result<Self, Fault> {
        let mut entry = Self { join: Vec::new(), join_user: None, new: 0 };
        for namespace in &linux.namespaces {
            let Some(kind) = kind_of(&namespace.kind) else { continue };
            match (namespace.path.as_str(), kind) {
                ("", libc::CLONE_NEWCGROUP) => {}
                ("", _) => entry.new |= kind,
                (path, libc::CLONE_NEWUSER) => entry.join_user = Some(mounts::open_namespace(path)?),
                (path, _) => {
                    let own = match kind {
                        libc::CLONE_NEWPID => "pid",
                        libc::CLONE_NEWNET => "net",
                        libc::CLONE_NEWIPC => "ipc",
                        libc::CLONE_NEWUTS => "uts",
                        _ => "cgroup",
                    };
                    let own = mounts::open_namespace(&format!("/proc/self/ns/{own}"))?;
                    entry.join.push((kind, mounts::open_namespace(path)?, own));
                }
            }
        }
        Ok(entry)
    }

    fn join(&self) -> Result<(), Fault> {
        self.join.iter().try_for_each(|(kind, fd, _)| {
            sys::set_namespace(fd, *kind).doing(|| format!("join the namespace of kind {kind:#x}"))
        })
    }

    /// Makes the container's first process, which goes on in [`init::run`]. Its pid.
    fn clone_into(self, plan: Plan, theirs: OwnedFd, sync: &OwnedFd) -> Result<i32, Fault> {
        let words = || "clone the container's first process".to_owned();
        if self.join_user.is_some() {
            return self.clone_through(plan, theirs, sync);
        }
        self.join()?;
        let forked = sys::clone_process(self.new);
        if matches!(forked, Ok(Forked::Child)) {
            drop(self);
            init::run(plan, &theirs);
        }
        for (kind, _, own) in &self.join {
            sys::set_namespace(own, *kind).doing(|| "come back to the shim's namespaces".to_owned())?;
        }
        match forked.doing(words)? {
            Forked::Parent(pid) => Ok(pid),
            Forked::Child => Err(Fault::new("a child went the parent's way")),
        }
    }

    /// There is no way back from a user namespace: a process in between joins it and makes the container's first process our child.
    fn clone_through(self, plan: Plan, theirs: OwnedFd, sync: &OwnedFd) -> Result<i32, Fault> {
        let words = || "clone the container's first process".to_owned();
        let Forked::Parent(between) = sys::clone_process(0).doing(words)? else {
            let joined = self.join().and_then(|()| {
                let user = self.join_user.as_ref().ok_or_else(|| Fault::new("no user namespace"))?;
                sys::set_namespace(user, libc::CLONE_NEWUSER).doing(|| "join the user namespace".to_owned())?;
                sys::clone_process(self.new | libc::CLONE_PARENT).doing(words)
            });
            match joined {
                Ok(Forked::Child) => {
                    drop(self);
                    init::run(plan, &theirs)
                }
                Ok(Forked::Parent(pid)) => drop(wire::send_bytes(&theirs, format!("P{pid}").as_bytes(), &[])),
                Err(fault) => init::tell(&theirs, &fault),
            }
            sys::exit_now(0)
        };
        drop((plan, theirs));
        let reply = wire::receive_bytes(sync).doing(words)?.0;
        sys::wait_for(between).doing(words)?;
        match reply.split_first() {
            Some((b'P', pid)) => String::from_utf8_lossy(pid).parse().map_err(|_| Fault(words())),
            Some((_, text)) => Err(Fault(String::from_utf8_lossy(text).into_owned())),
            None => Err(Fault(words())),
        }
    }
}

pub(crate) fn open_streams(spec: &Spec, setup: &Setup) -> Result<(Streams, Option<[OwnedFd; 3]>), Fault> {
    let words = || "open the standard streams".to_owned();
    let null = || fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from).doing(words);
    if setup.pause {
        return Ok((Streams::None, Some([null()?, null()?, null()?])));
    }
    if spec.process.terminal {
        return Ok((Streams::None, None));
    }
    let (our_in, their_in) = if setup.stdin {
        let (reader, writer) = std::io::pipe().doing(words)?;
        (Some(OwnedFd::from(writer)), OwnedFd::from(reader))
    } else {
        (None, null()?)
    };
    let (stdout, their_out) = std::io::pipe().doing(words)?;
    let (stderr, their_err) = std::io::pipe().doing(words)?;
    let theirs = [their_in, their_out.into(), their_err.into()];
    // The program may open /dev/stdout anew, as its user.
    let host_uid = host_id(spec.process.user.uid, &spec.linux.uid_mappings);
    for stream in &theirs[usize::from(!setup.stdin)..] {
        rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(host_uid)), None).doing(words)?;
    }
    Ok((Streams::Pipes { stdin: our_in, stdout: stdout.into(), stderr: stderr.into() }, Some(theirs)))
}

pub(crate) fn host_id(id: u32, maps: &[IdMapping]) -> u32 {
    maps.iter()
        .find(|map| id >= map.container_id && id - map.container_id < map.size)
        .map_or(id, |map| map.host_id + (id - map.container_id))
}

fn prepare(bundle: &Path, spec: Spec, setup: &Setup, streams: Option<[OwnedFd; 3]>) -> Result<Plan, Fault> {
    let mut maps = Maps::default();
    let doors = cgroups::open(&setup.cgroups)?;
    devices::restrict(&spec.linux.resources.devices, &setup.cgroups)?;
    let root = match &spec.root {
        Some(root) => Some(open_root(&bundle.join(&root.path), &spec.linux, setup.id_mapped_root, &mut maps)?),
        None => None,
    };
    let mounts: Vec<Prepared> = spec
        .mounts
        .iter()
        .map(|mount| mounts::prepare(mount, bundle, &setup.cgroups, &mut maps))
        .collect::<Result<_, _>>()?;
    let mut nodes = Vec::new();
    if spec.linux.namespace("user").is_some() && root.is_some() {
        for path in devices::paths(&spec.linux.devices) {
            let tree =
                mounts::clone_tree(Path::new(&path), false).doing(|| format!("open device {path:?} of the host"))?;
            nodes.push((path, tree));
        }
    }
    let seccomp = spec.linux.seccomp.as_ref().map(seccomp::compile).transpose()?;
    Ok(Plan { spec, pause: setup.pause, doors, streams, root, mounts, nodes, seccomp })
}

fn open_root(path: &Path, linux: &Linux, is_id_mapped: bool, maps: &mut Maps) -> Result<OwnedFd, Fault> {
    let words = || format!("error preparing rootfs {}", path.display());
    let tree = mounts::clone_tree(path, true).doing(words)?;
    let private = sys::MountChange { propagation: libc::MS_PRIVATE, recursive: true, ..sys::MountChange::default() };
    sys::change_mount(&tree, private).doing(words)?;
    if is_id_mapped {
        maps.apply(&tree, &linux.uid_mappings, &linux.gid_mappings, false)
            .map_err(|e| Fault(format!("{}: id mapping: {e}", words())))?;
    }
    Ok(tree)
}

/// Listens to the first process until it waits.
fn until_ready(sync: &OwnedFd, mut streams: Streams) -> Result<Streams, Fault> {
    let failed = |text: &str| Fault(format!("unable to start container process: {text}"));
    loop {
        let (bytes, mut descriptors) = wire::receive_bytes(sync).doing(|| failed("wait").0)?;
        match bytes.split_first() {
            Some((b'R', _)) => return Ok(streams),
            Some((b'T', _)) if descriptors.len() == 1 => {
                let master = descriptors.remove(0);
                let peer = sys::open_terminal_peer(master.as_fd()).doing(|| failed("open the terminal").0)?;
                streams = Streams::Terminal { master, peer };
            }
            Some((_, text)) => return Err(failed(&String::from_utf8_lossy(text))),
            None => return Err(failed(&format!("its first process ended early (socket {})", sync.as_raw_fd()))),
        }
    }
}
