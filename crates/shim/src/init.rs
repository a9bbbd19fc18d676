//! The container's first process, from its birth until it becomes the container's program. Runs in the child only.
//!
//! It reports over a socket pair: `E` and a text when something failed, `T` and a descriptor for its terminal, `R` when all is done and
//! it waits. `M` tells it that its user is mapped, `S` to go. Execution closes the socket.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::capabilities::Sets;
use crate::cgroups::Doors;
use crate::credentials;
use crate::fault::{Doing, Fault, reason};
use crate::mounts::Prepared;
use crate::pause;
use crate::rootfs;
use crate::seccomp::Program;
use crate::spec::{Process, Spec};
use crate::sys;
use crate::wire;

/// Exit code of a program that could not be executed after all was said to be well (runc: 255).
const NOT_EXECUTED: i32 = 255;

/// All that the first process needs.
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    pub(crate) pause: bool,
    pub(crate) doors: Doors,
    /// Its standard streams; none with a terminal.
    pub(crate) streams: Option<[OwnedFd; 3]>,
    pub(crate) root: Option<OwnedFd>,
    pub(crate) mounts: Vec<Prepared>,
    /// Device nodes to bind.
    pub(crate) nodes: Vec<(String, OwnedFd)>,
    pub(crate) seccomp: Option<Program>,
}

/// Never returns. `sync` is its end of the socket pair.
pub(crate) fn run(plan: Plan, sync: &OwnedFd) -> ! {
    match go(plan, sync) {
        Ok(never) => match never {},
        Err(fault) => tell(sync, &fault),
    }
    sys::exit_now(1)
}

/// Reports what failed.
pub(crate) fn tell(sync: &OwnedFd, fault: &Fault) {
    let _ = wire::send_bytes(sync, format!("E{fault}").as_bytes(), &[]);
}

fn go(plan: Plan, sync: &OwnedFd) -> Result<Infallible, Fault> {
    let container = |fault: Fault| Fault(format!("error during container init: {fault}"));
    let Plan { spec, pause, mut doors, streams, root, mounts, nodes, seccomp } = plan;
    // The program that this process still is must not be reachable from inside by its /proc entry.
    let _ = sys::prctl(libc::PR_SET_DUMPABLE, 0, 0);
    doors.enter().doing(|| "join the container's cgroups".to_owned()).map_err(container)?;
    drop(doors);
    rustix::process::setsid().doing(|| "setsid".to_owned()).map_err(container)?;
    let own = OwnEntries::open().map_err(container)?;
    if spec.linux.has_new("user") {
        expect(sync, b'M')?;
    }
    if spec.linux.namespace("user").is_some() {
        credentials::become_user(0, 0, &[], true)
            .doing(|| "become root of the user namespace".to_owned())
            .map_err(container)?;
    }
    surroundings(&spec).map_err(container)?;
    rustix::process::umask(Mode::empty());
    rootfs::enter(&spec, root, mounts, nodes).map_err(container)?;
    rustix::process::umask(Mode::from_bits_truncate(spec.process.user.umask.unwrap_or(0o022)));
    match streams {
        Some(streams) => place_streams(&streams).map_err(container)?,
        None => open_terminal(&spec, sync).map_err(container)?,
    }
    let last = constrain(&spec.process, seccomp.as_ref(), own, sync)?;
    if pause {
        // Containers that share its PID namespace may trace it: it has no more rights than they.
        ready(sync)?;
        expect(sync, b'S')?;
        if let Some(last) = last {
            load(last).map_err(container)?;
        }
        pause::run();
    }
    let program = credentials::find_program(spec.process.args.first().map_or("", String::as_str), &spec.process.env)?;
    let (args, env) = (strings(&spec.process.args)?, environment(&spec.process)?);
    ready(sync)?;
    expect(sync, b'S')?;
    if let Some(last) = last {
        load(last).map_err(container)?;
    }
    sys::reset_signals();
    let error = sys::exec(&program, &args, &env);
    // As in runc: the start has succeeded, what could not be executed is said in the container's own output.
    let _ = writeln!(std::io::stderr(), "exec {}: {}", program.to_string_lossy(), reason(&error));
    sys::exit_now(NOT_EXECUTED)
}

/// This process's entries in the host's `/proc`, opened before the container's own can pretend to be them.
pub(crate) struct OwnEntries(OwnedFd);

impl OwnEntries {
    pub(crate) fn open() -> Result<Self, Fault> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open("/proc/self/", flags, Mode::empty()).doing(|| "open /proc/self".to_owned()).map(Self)
    }

    fn write(&self, path: &str, text: &str) -> std::io::Result<()> {
        let file = rustix::fs::openat(&self.0, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).write_all(text.as_bytes())
    }

    /// The labels that the program will have: AppArmor's profile, SELinux's label.
    pub(crate) fn label_program(&self, process: &Process) -> Result<(), Fault> {
        if !process.apparmor_profile.is_empty() {
            let text = format!("exec {}", process.apparmor_profile);
            self.write("attr/apparmor/exec", &text).or_else(|_| self.write("attr/exec", &text)).doing(|| {
                format!(
                    "unable to apply apparmor profile: apparmor failed to apply profile {:?}",
                    process.apparmor_profile
                )
            })?;
        }
        if !process.selinux_label.is_empty()
            && rubelet_host::mount::is_mount_point("/sys/fs/selinux".as_ref()).unwrap_or(false)
        {
            self.write("attr/exec", &process.selinux_label)
                .doing(|| format!("set the label {:?} for the program", process.selinux_label))?;
        }
        Ok(())
    }
}

/// Names and kernel settings of the new namespaces.
fn surroundings(spec: &Spec) -> Result<(), Fault> {
    if spec.linux.has_new("cgroup") {
        sys::unshare(libc::CLONE_NEWCGROUP).doing(|| "make a cgroup namespace".to_owned())?;
    }
    if !spec.hostname.is_empty() && spec.linux.has_new("uts") {
        sys::set_host_name(&spec.hostname).doing(|| "sethostname".to_owned())?;
    }
    if !spec.domainname.is_empty() && spec.linux.has_new("uts") {
        sys::set_domain_name(&spec.domainname).doing(|| "setdomainname".to_owned())?;
    }
    for (name, value) in &spec.linux.sysctl {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let write = || std::fs::OpenOptions::new().write(true).open(&path)?.write_all(value.as_bytes());
        write().doing(|| format!("write sysctl key {name}"))?;
    }
    Ok(())
}

pub(crate) fn place_streams(streams: &[OwnedFd; 3]) -> Result<(), Fault> {
    for (number, stream) in (0..).zip(streams) {
        sys::place_descriptor(stream, number).doing(|| "place the standard streams".to_owned())?;
    }
    Ok(())
}

/// Opens a terminal of the container's own `/dev/pts`, sends its master out, and makes the other end the standard streams.
fn open_terminal(spec: &Spec, sync: &OwnedFd) -> Result<(), Fault> {
    let words = || "open a terminal".to_owned();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/ptmx", flags, Mode::empty()).doing(words)?;
    let terminal = sys::open_terminal_peer(&master).doing(words)?;
    if let Some(size) = &spec.process.console_size {
        sys::resize_terminal(&terminal, size.width, size.height).doing(words)?;
    }
    rootfs::bind_console(terminal.as_fd())?;
    use_terminal(&terminal, spec.process.user.uid)?;
    wire::send_bytes(sync, b"T", &[master.as_fd()]).doing(words)
}

/// Makes a terminal this session's, with the user as its owner, and puts it on the standard streams.
pub(crate) fn use_terminal(terminal: &OwnedFd, uid: u32) -> Result<(), Fault> {
    let words = || "take the terminal".to_owned();
    rustix::fs::fchown(terminal, Some(rustix::fs::Uid::from_raw(uid)), None).doing(words)?;
    sys::take_terminal(terminal).doing(words)?;
    for number in 0..3 {
        sys::place_descriptor(terminal, number).doing(words)?;
    }
    Ok(())
}

/// Labels, seccomp, capabilities, user and directory. Returns the filter that is still to be loaded, as the last thing before execution.
/// From then on only the standard streams and `sync` are open.
pub(crate) fn constrain<'a>(
    process: &Process,
    seccomp: Option<&'a Program>,
    own: OwnEntries,
    sync: &OwnedFd,
) -> Result<Option<&'a Program>, Fault> {
    let container = |fault: Fault| Fault(format!("error during container init: {fault}"));
    own.label_program(process).map_err(container)?;
    drop(own);
    // What follows looks at paths that the image chose: through /proc/self/fd they must not lead to what the shim has open.
    sys::close_others(3, sync);
    if process.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).doing(|| "set no_new_privs".to_owned()).map_err(container)?;
    } else if let Some(seccomp) = seccomp {
        // Without no_new_privs it takes a capability that is about to be dropped.
        load(seccomp).map_err(container)?;
    }
    drop_privileges(process).map_err(container)?;
    enter_directory(&process.cwd)?;
    Ok(seccomp.filter(|_| process.no_new_privileges))
}

fn enter_directory(cwd: &str) -> Result<(), Fault> {
    let words = || format!("chdir to cwd ({cwd:?}) set in config.json failed");
    if !cwd.is_empty() {
        rustix::process::chdir(cwd).doing(words)?;
    }
    // The kernel says "(unreachable)" of a directory outside the root.
    let is_inside = rustix::process::getcwd(Vec::new()).is_ok_and(|path| path.to_bytes().starts_with(b"/"));
    if is_inside { Ok(()) } else { Err(Fault(format!("{}: it is outside of the container", words()))) }
}

fn drop_privileges(process: &Process) -> Result<(), Fault> {
    let user = &process.user;
    let words = || format!("setup user {}:{}", user.uid, user.gid);
    let possible = rustix::thread::capabilities(None).doing(words)?.permitted.bits();
    let sets = process.capabilities.as_ref().map(Sets::of).unwrap_or_default();
    if process.capabilities.is_some() {
        sets.limit()?;
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).doing(words)?;
    credentials::become_user(user.uid, user.gid, &user.additional_gids, true).doing(words)?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 0, 0).doing(words)?;
    if process.capabilities.is_some() { sets.apply(possible) } else { Ok(()) }
}

pub(crate) fn load(program: &Program) -> Result<(), Fault> {
    sys::load_seccomp(&program.filter, program.flags)
        .doing(|| "unable to init seccomp: error loading seccomp filter".to_owned())
}

pub(crate) fn strings(texts: &[String]) -> Result<Vec<CString>, Fault> {
    texts
        .iter()
        .map(|text| CString::new(text.as_str()).map_err(|_| Fault(format!("{text:?} has a zero byte in it"))))
        .collect()
}

/// The environment, with the user's home (runc sets it when it is missing).
pub(crate) fn environment(process: &Process) -> Result<Vec<CString>, Fault> {
    let mut env = strings(&process.env)?;
    if !process.env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.extend(strings(&[format!("HOME={}", credentials::home_of(process.user.uid))])?);
    }
    Ok(env)
}

fn ready(sync: &OwnedFd) -> Result<(), Fault> {
    wire::send_bytes(sync, b"R", &[]).doing(|| "report to the shim".to_owned())
}

/// Waits for a word of the shim. When the shim is gone, so is this process: nobody would see its end.
fn expect(sync: &OwnedFd, word: u8) -> Result<(), Fault> {
    let mut got = [0];
    match rustix::io::retry_on_intr(|| rustix::io::read(sync, &mut got)) {
        Ok(1) if got[0] == word => Ok(()),
        Ok(_) => sys::exit_now(1),
        Err(e) => Err(e).doing(|| "wait for the shim".to_owned()),
    }
}
