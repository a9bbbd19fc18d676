//! Running another program in the container.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroups::{self, Doors};
use crate::create;
use crate::credentials;
use crate::fault::{Doing, Fault, reason};
use crate::init::{self, OwnEntries};
use crate::mounts;
use crate::seccomp::{self, Program};
use crate::setup::Setup;
use crate::spec::{ConsoleSize, Process, Spec};
use crate::sys::{self, Forked};
use crate::wire::{self, Exec};

/// A program that runs.
pub(crate) struct Running {
    pub(crate) pid: i32,
    /// The terminal's master, for the client.
    pub(crate) terminal: Option<OwnedFd>,
}

/// What the child needs.
struct Plan {
    process: Process,
    doors: Doors,
    container: OwnedFd,
    kinds: libc::c_int,
    streams: Option<[OwnedFd; 3]>,
    seccomp: Option<Program>,
}

/// Starts the program; when this returns, it has been executed.
pub(crate) fn start(
    wanted: Exec,
    descriptors: Vec<OwnedFd>,
    spec: Spec,
    setup: &Setup,
    container: i32,
) -> Result<Running, Fault> {
    let inside = |fault: Fault| Fault(format!("unable to start container process: {fault}"));
    let mut process = spec.process;
    process.args = wanted.args;
    process.terminal = wanted.terminal;
    process.env.extend(wanted.env);
    process.console_size = wanted.size.map(|(width, height)| ConsoleSize { width, height });
    let streams = match (wanted.terminal, <[OwnedFd; 3]>::try_from(descriptors)) {
        (true, _) => None,
        (false, Ok(streams)) => Some(streams),
        (false, Err(got)) => return Err(Fault(format!("{} descriptors came along, 3 are needed", got.len()))),
    };
    let host_uid = create::host_id(process.user.uid, &spec.linux.uid_mappings);
    for stream in streams.iter().flatten().filter(|stream| is_pipe(stream)) {
        // The program may open /dev/stdout anew, as its user. What is not a pipe keeps its owner: it may be the host's /dev/null.
        let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(host_uid)), None);
    }
    let mut kinds =
        libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    if spec.linux.namespace("user").is_some() {
        kinds |= libc::CLONE_NEWUSER;
    }
    let pid = Pid::from_raw(container).ok_or_else(|| Fault::new("there is no such container"))?;
    let first = pidfd_open(pid, PidfdFlags::empty())
        .doing(|| "open the container's first process".to_owned())
        .map_err(inside)?;
    let (sync, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .doing(|| "make a socket pair".to_owned())
        .map_err(inside)?;
    let seccomp = spec.linux.seccomp.as_ref().map(seccomp::compile).transpose().map_err(inside)?;
    let (limits, score) = (process.rlimits.clone(), process.oom_score_adj);
    let doors = cgroups::open(&setup.cgroups).map_err(inside)?;
    let container = first.try_clone().doing(|| "copy a descriptor".to_owned()).map_err(inside)?;
    let plan = Plan { process, doors, container, kinds, streams, seccomp };
    let pid = clone_into(plan, theirs, &first).map_err(inside)?;
    let prepared =
        score.map_or(Ok(()), |score| create::adjust_oom(pid, score)).and_then(|()| create::set_limits(pid, &limits));
    let reported = prepared.and_then(|()| {
        wire::send_bytes(&sync, b"S", &[]).doing(|| "let it go".to_owned())?;
        until_executed(&sync)
    });
    reported.map(|terminal| Running { pid, terminal }).map_err(|fault| {
        create::kill_and_reap(pid);
        inside(fault)
    })
}

fn is_pipe(stream: &OwnedFd) -> bool {
    rustix::fs::fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

fn clone_into(plan: Plan, sync: OwnedFd, first: &OwnedFd) -> Result<i32, Fault> {
    // Only children enter a PID namespace: join it, clone, come back.
    let own = mounts::open_namespace("/proc/self/ns/pid")?;
    sys::set_namespace(first, libc::CLONE_NEWPID).doing(|| "join the container's PID namespace".to_owned())?;
    let forked = sys::clone_process(0);
    if matches!(forked, Ok(Forked::Child)) {
        drop(own);
        run(plan, &sync);
    }
    sys::set_namespace(&own, libc::CLONE_NEWPID).doing(|| "come back to the shim's PID namespace".to_owned())?;
    match forked.doing(|| "clone".to_owned())? {
        Forked::Parent(pid) => Ok(pid),
        Forked::Child => Err(Fault::new("a child went the parent's way")),
    }
}

/// Reads the child's reports until its socket is closed by execution.
fn until_executed(sync: &OwnedFd) -> Result<Option<OwnedFd>, Fault> {
    let mut terminal = None;
    loop {
        let (bytes, mut descriptors) = wire::receive_bytes(sync).doing(|| "wait for execution".to_owned())?;
        match bytes.split_first() {
            None => return Ok(terminal),
            Some((b'T', _)) => terminal = descriptors.pop(),
            Some((_, text)) => return Err(Fault(String::from_utf8_lossy(text).into_owned())),
        }
    }
}

/// The child.
fn run(plan: Plan, sync: &OwnedFd) -> ! {
    if let Err(fault) = go(plan, sync) {
        init::tell(sync, &fault);
    }
    sys::exit_now(1)
}

fn go(plan: Plan, sync: &OwnedFd) -> Result<(), Fault> {
    let Plan { process, mut doors, container, kinds, streams, seccomp } = plan;
    let _ = sys::prctl(libc::PR_SET_DUMPABLE, 0, 0);
    doors.enter().doing(|| "join the container's cgroups".to_owned())?;
    drop(doors);
    let mut word = [0];
    let got = rustix::io::retry_on_intr(|| rustix::io::read(sync, &mut word));
    if !matches!((got, word), (Ok(1), [b'S'])) {
        sys::exit_now(1);
    }
    rustix::process::setsid().doing(|| "setsid".to_owned())?;
    let own = OwnEntries::open()?;
    sys::set_namespace(&container, kinds).doing(|| "join the container's namespaces".to_owned())?;
    drop(container);
    if kinds & libc::CLONE_NEWUSER != 0 {
        credentials::become_user(0, 0, &[], true).doing(|| "become root of the user namespace".to_owned())?;
    }
    rustix::process::umask(Mode::from_bits_truncate(process.user.umask.unwrap_or(0o022)));
    match streams {
        Some(streams) => init::place_streams(&streams)?,
        None => open_terminal(&process, sync)?,
    }
    let last = init::constrain(&process, seccomp.as_ref(), own, sync)?;
    let program = credentials::find_program(process.args.first().map_or("", String::as_str), &process.env)?;
    let (args, env) = (init::strings(&process.args)?, init::environment(&process)?);
    if let Some(last) = last {
        init::load(last)?;
    }
    sys::reset_signals();
    let error = sys::exec(&program, &args, &env);
    Err(Fault(format!("exec {}: {}", program.to_string_lossy(), reason(&error))))
}

fn open_terminal(process: &Process, sync: &OwnedFd) -> Result<(), Fault> {
    let words = || "open a terminal".to_owned();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty()).doing(words)?;
    let terminal = sys::open_terminal_peer(&master).doing(words)?;
    if let Some(size) = &process.console_size {
        sys::resize_terminal(&terminal, size.width, size.height).doing(words)?;
    }
    init::use_terminal(&terminal, process.user.uid)?;
    wire::send_bytes(sync, b"T", &[master.as_fd()]).doing(words)
}
