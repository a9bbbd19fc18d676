//! Where shims are born: one small process of the agent that copies itself for each container.
//!
//! A program that is started anew has pages of its own for all that its loader has to fill in, several hundred kilobytes in one as large as
//! ours. Copies share them; and copying is faster than starting. The nursery goes with its agent, the shims stay.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::sys::{self, Forked};
use crate::{serve, wire};

/// The agent's side of it. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Nursery {
    socket: Option<OwnedFd>,
    process: Child,
}

impl Nursery {
    /// Starts the program in `file` as a nursery.
    pub(crate) fn start(file: &OwnedFd, arguments: &[String]) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let process = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .arg0(serve::PROGRAM_NAME)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket: Some(ours), process })
    }

    /// Moves the process, and with it all its copies to come.
    pub(crate) fn move_into(&self, cgroups: &[PathBuf]) -> io::Result<()> {
        let pid = self.process.id().to_string();
        cgroups.iter().try_for_each(|dir| std::fs::write(dir.join("cgroup.procs"), &pid))
    }

    /// Asks for a shim of a bundle (or [`PARK`]), with the descriptors that it gets as standard input and standard error.
    pub(crate) fn ask(&self, bundle: &[u8], streams: [&OwnedFd; 2]) -> io::Result<()> {
        use std::os::fd::AsFd;
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        wire::send_bytes(socket, bundle, &streams.map(AsFd::as_fd))
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        self.socket = None;
        let _ = self.process.wait();
    }
}

/// In place of a bundle: the copy does nothing but wait until its client lets go.
pub(crate) const PARK: &[u8] = b":park";

/// The process itself; standard input is its socket. Each copy goes on as a shim.
pub(crate) fn serve() -> ExitCode {
    // What the agent left open by mistake is not ours.
    sys::close_others(3, rustix::stdio::stdin());
    rubelet_host::memory::keep_small();
    sys::set_name(c"rubelet-shims");
    for signal in [libc::SIGCHLD, libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        sys::ignore(signal);
    }
    if rustix::process::setsid().is_err() || rustix::process::chdir("/").is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        match wire::receive_bytes(rustix::stdio::stdin()) {
            Ok((path, streams)) if !path.is_empty() => {
                let Ok(streams) = <[OwnedFd; 2]>::try_from(streams) else { continue };
                // Should it fail, its streams are closed: the client hears that its shim is gone.
                if let Ok(Forked::Child) = sys::clone_process(0) {
                    return if path == PARK { park(streams) } else { shim(path, streams) };
                }
            }
            // The agent has gone.
            Ok(_) => return ExitCode::SUCCESS,
            Err(_) => return ExitCode::FAILURE,
        }
    }
}

/// Tells its pid and waits for the end of the connection.
fn park([control, _]: [OwnedFd; 2]) -> ExitCode {
    sys::set_name(c"rubelet-parked");
    let pid = std::process::id().to_string();
    if wire::send_bytes(&control, pid.as_bytes(), &[]).is_err() {
        return ExitCode::FAILURE;
    }
    let _ = wire::receive_bytes(&control);
    ExitCode::SUCCESS
}

fn shim(path: Vec<u8>, [control, errors]: [OwnedFd; 2]) -> ExitCode {
    use std::os::unix::ffi::OsStringExt;
    if sys::place_descriptor(&control, 0).is_err() || sys::place_descriptor(&errors, 2).is_err() {
        return ExitCode::FAILURE;
    }
    drop((control, errors));
    sys::default_action(libc::SIGCHLD);
    serve::run_shim(Path::new(&std::ffi::OsString::from_vec(path)))
}
