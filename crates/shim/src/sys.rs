//! System calls that have no safe wrapper elsewhere; all `unsafe` of the process that makes containers is here.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// What a clone returned.
pub(crate) enum Forked {
    Child,
    Parent(i32),
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_int(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A copy of this process, as `fork`, in new namespaces: `flags` are `CLONE_NEW…` and `CLONE_PARENT`.
pub(crate) fn clone_process(flags: libc::c_int) -> io::Result<Forked> {
    let flags = libc::c_ulong::try_from(flags | libc::SIGCHLD).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no stack is given, so the child goes on with a copy of this one, as after fork. The process has a single thread,
    // therefore no lock of libc is held by somebody who does not exist in the child.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) })?;
    match i32::try_from(pid) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) => Ok(Forked::Parent(pid)),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Ends this process at once, without destructors and exit functions.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory of this program.
    unsafe { libc::_exit(code) }
}

/// Joins a namespace (of a namespace's file) or several (of a pidfd).
pub(crate) fn set_namespace(fd: impl AsFd, kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: setns takes an open descriptor and flags; no memory is passed.
    check_int(unsafe { libc::setns(fd.as_fd().as_raw_fd(), kinds) }).map(drop)
}

/// Leaves namespaces for new ones.
pub(crate) fn unshare(kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: unshare takes flags only. Namespaces belong to the single thread of this process.
    check_int(unsafe { libc::unshare(kinds) }).map(drop)
}

/// Changes to make to a mount, or with `recursive` to a tree of mounts.
#[derive(Default, Clone, Copy)]
pub(crate) struct MountChange<'a> {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`; 0 leaves it.
    pub(crate) propagation: u64,
    pub(crate) user_namespace: Option<BorrowedFd<'a>>,
    pub(crate) recursive: bool,
}

pub(crate) const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `mount_setattr` on the mount that `mount` refers to (Linux 5.12).
pub(crate) fn change_mount(mount: impl AsFd, change: MountChange<'_>) -> io::Result<()> {
    let mut attr =
        MountAttr { attr_set: change.set, attr_clr: change.clear, propagation: change.propagation, userns_fd: 0 };
    if let Some(fd) = change.user_namespace {
        attr.attr_set |= MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::try_from(fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    // One field for the access time: to set one value, all its bits are cleared.
    const ATIME_MASK: u64 = 0x70;
    if attr.attr_set & ATIME_MASK != 0 || attr.attr_clr & ATIME_MASK != 0 {
        attr.attr_clr |= ATIME_MASK;
    }
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and the structure lives through the call and has the size that is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// `execve`; comes back only when it failed.
pub(crate) fn exec(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: program is a C string; both arrays hold pointers to C strings that outlive the call, and end with null.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Gives all signals their default action and unblocks them: what a fresh program expects.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: default actions are valid for all signals that may be changed; the others are refused with EINVAL.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initializes the set before it is used.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Starts a program that has the signals' default actions, as [`reset_signals`] says.
pub(crate) fn spawn_with_default_signals(command: &mut std::process::Command) -> io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt;
    let reset = || {
        reset_signals();
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls only.
    unsafe { command.pre_exec(reset) }.spawn()
}

fn block(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initializes the set; the signals are constants of libc.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        set.assume_init()
    }
}

/// Blocks `signals` and returns a descriptor that is readable when one is pending.
pub(crate) fn signal_descriptor(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    let set = block(signals);
    // SAFETY: the set is initialized; -1 asks for a new descriptor, which nobody else owns.
    unsafe {
        let fd = check_int(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Waits for one of `signals`, which stay blocked, and returns it.
pub(crate) fn wait_for_signal(signals: &[libc::c_int]) -> libc::c_int {
    let set = block(signals);
    let mut signal = 0;
    // SAFETY: both pointers are to live variables.
    unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    signal
}

/// Ignores a signal.
pub(crate) fn ignore(signal: libc::c_int) {
    // SAFETY: SIG_IGN is a valid action.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Gives a signal its default action again.
pub(crate) fn default_action(signal: libc::c_int) {
    // SAFETY: SIG_DFL is a valid action.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Reaps one child that has ended: pid and status. `None` when there is none now.
pub(crate) fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the status is a live variable.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Waits for one child.
pub(crate) fn wait_for(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the status is a live variable.
        match check_int(unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(|_| status),
        }
    }
}

/// Sends a signal, real-time ones too. A process that is gone is fine.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::ErrorKind::InvalidInput.into()); // never a group of processes
    }
    // SAFETY: kill takes numbers.
    match check_int(unsafe { libc::kill(pid, signal) }) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}

/// A `prctl` whose arguments are numbers.
pub(crate) fn prctl(option: libc::c_int, arg2: libc::c_ulong, arg3: libc::c_ulong) -> io::Result<()> {
    // SAFETY: used with options that take numbers only; the unused arguments are zero, as the kernel demands.
    check_int(unsafe { libc::prctl(option, arg2, arg3, 0 as libc::c_ulong, 0 as libc::c_ulong) }).map(drop)
}

/// Names this process, as `ps` and `/proc/PID/comm` show it.
pub(crate) fn set_name(name: &CStr) {
    // SAFETY: the name is a C string; the kernel copies at most 16 bytes of it.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Sets the capability sets of this thread (bits 0 to 63).
pub(crate) fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let low = |bits: u64| u32::try_from(bits & 0xffff_ffff).unwrap_or(0);
    let high = |bits: u64| u32::try_from(bits >> 32).unwrap_or(0);
    let sets = [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    // SAFETY: version 3 reads a header and two triples of u32, which is what is passed.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) }).map(drop)
}

/// One instruction of classic BPF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// Loads a seccomp filter for this process.
pub(crate) fn load_seccomp(program: &[Filter], flags: u32) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const Filter,
    }
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = Program { len, filter: program.as_ptr() };
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    // SAFETY: the structure points to `len` instructions, which outlive the call; the kernel copies and verifies them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) }).map(drop)
}

/// Loads a cgroup device program of eBPF (each instruction is 8 bytes).
pub(crate) fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 12],
    }
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    let license = c"Apache";
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 12],
    };
    // SAFETY: the attributes have the size that is passed, the rest of the union is zero, and the pointers in it are alive.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) })?;
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the call made a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a device program into force for a cgroup v2 directory.
pub(crate) fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput);
    let attach = Attach {
        target: number(cgroup)?,
        program: number(program)?,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attributes have the size that is passed; the kernel takes what is missing as zero.
    check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>()) }).map(drop)
}

/// Unlocks a pseudo terminal's master and opens its other end, without a path.
pub(crate) fn open_terminal_peer(master: impl AsFd) -> io::Result<OwnedFd> {
    let master = master.as_fd().as_raw_fd();
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int; TIOCGPTPEER takes open flags and returns a new descriptor that nobody else owns.
    unsafe {
        check_int(libc::ioctl(master, libc::TIOCSPTLCK, &raw const unlock))?;
        let peer = check_int(libc::ioctl(master, libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(peer))
    }
}

/// Makes a terminal the controlling terminal of this session.
pub(crate) fn take_terminal(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    check_int(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Sets a terminal's size.
pub fn resize_terminal(terminal: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads the structure, which is alive.
    check_int(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Puts a descriptor at a number (0 to 2), open across exec.
pub(crate) fn place_descriptor(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 with an open descriptor; the numbers 0 to 2 are owned by nobody in this program.
    check_int(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }).map(drop)
}

/// Closes what is open from `first` on except `keep`; only for a process that goes on without those objects.
pub(crate) fn close_others(first: u32, keep: impl AsFd) {
    let keep = u32::try_from(keep.as_fd().as_raw_fd()).unwrap_or(0);
    // SAFETY: close_range takes numbers. The caller never returns to code that owns the closed descriptors.
    unsafe {
        if keep > first {
            libc::syscall(libc::SYS_close_range, first, keep - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, first.max(keep + 1), u32::MAX, 0);
    }
}

/// Raises or lowers a limit of another process.
pub(crate) fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the new limit is alive, the old one is not asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, 0usize) }).map(drop)
}

/// Sets host name or domain name of this UTS namespace.
pub(crate) fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length belong to the same string.
    check_int(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Sets the NIS domain name of this UTS namespace.
pub(crate) fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length belong to the same string.
    check_int(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}
