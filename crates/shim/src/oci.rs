//! Containers that another OCI runtime creates: runc, crun, and what takes the same command line.
//!
//! It is called for each step and is gone after it. The container's first process, an orphan then, becomes the shim's child, so that
//! streams, log and end are the shim's as ever; signals go to the processes and values to the cgroups directly. What the runtime notes
//! for itself lies in the bundle and goes with it: a killed shim leaves nothing elsewhere.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::create::{self, Created, Release, Streams};
use crate::exec::Running;
use crate::fault::{Doing, Fault};
use crate::setup::{self, Setup};
use crate::spec::{ConsoleSize, Spec};
use crate::sys;
use crate::wire::{self, Exec};

const STATE_DIR: &str = "oci";
const LOG_FILE: &str = "oci.log";
const PID_FILE: &str = "oci.pid";
const PROCESS_FILE: &str = "oci-process.json";
const CONSOLE_SOCKET: &str = "console.sock";
/// For its hooks and helpers.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Largest log that is looked at for the reason of a failure.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// The runtime that a container was given.
pub(crate) struct OciRuntime<'a> {
    program: &'a Path,
    bundle: &'a Path,
    setup: &'a Setup,
}

impl<'a> OciRuntime<'a> {
    /// `None`: the shim creates the container itself.
    pub(crate) fn of(bundle: &'a Path, setup: &'a Setup) -> Option<Self> {
        setup.runtime.as_deref().map(|program| Self { program, bundle, setup })
    }

    /// Creates the container; its first process waits for [`OciRuntime::start`].
    pub(crate) fn create(&self, spec: &Spec) -> Result<Created, Fault> {
        let (streams, theirs) = create::open_streams(spec, self.setup)?;
        let console = spec.process.terminal.then(|| Console::listen(self.bundle)).transpose()?;
        let pid_file = self.bundle.join(PID_FILE);
        let bundle = self.bundle.display().to_string();
        let mut arguments = vec!["--bundle", &bundle];
        self.run("create", &mut arguments, &pid_file, console.as_ref(), theirs)?;
        let finish = || {
            let pid = read_pid(&pid_file)?;
            let streams = match &console {
                Some(console) => {
                    let master = console.take()?;
                    let peer = sys::open_terminal_peer(master.as_fd()).doing(|| "open the terminal".to_owned())?;
                    Streams::Terminal { master, peer }
                }
                None => streams,
            };
            Ok(Created { pid, sync: Release::Runtime, streams })
        };
        finish().inspect_err(|_| self.delete())
    }

    /// Lets the created program run.
    pub(crate) fn start(&self) -> Result<(), Fault> {
        self.call("start", &mut self.command("start"))
    }

    /// Ends what is left of the container and forgets it; also one that was never created.
    pub(crate) fn delete(&self) {
        if !self.bundle.join(STATE_DIR).exists() {
            return;
        }
        let mut command = self.command("delete");
        command.arg("--force");
        if let Err(fault) = self.call("delete", &mut command) {
            let _ = io::Write::write_all(&mut io::stderr(), format!("{fault}\n").as_bytes());
        }
    }

    /// Runs another program in the container.
    pub(crate) fn exec(&self, wanted: Exec, descriptors: Vec<OwnedFd>, spec: Spec) -> Result<Running, Fault> {
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
        let console = wanted.terminal.then(|| Console::listen(self.bundle)).transpose()?;
        let (file, pid_file) = (self.bundle.join(PROCESS_FILE), self.bundle.join(format!("exec-{PID_FILE}")));
        let text = serde_json::to_vec(&process).map_err(|e| Fault(format!("write the process: {e}")))?;
        fs::write(&file, text).doing(|| format!("write {}", file.display()))?;
        let path = file.display().to_string();
        let mut arguments = vec!["--detach", "--process", &path];
        let done = self.run("exec", &mut arguments, &pid_file, console.as_ref(), streams);
        // It holds the program's environment.
        let _ = fs::remove_file(&file);
        done?;
        let pid = read_pid(&pid_file)?;
        let terminal = match console.as_ref().map(Console::take).transpose() {
            Ok(terminal) => terminal,
            Err(fault) => {
                create::kill_and_reap(pid);
                return Err(fault);
            }
        };
        if let (Some(terminal), Some((columns, rows))) = (&terminal, wanted.size) {
            let _ = sys::resize_terminal(terminal, columns, rows);
        }
        Ok(Running { pid, terminal })
    }

    /// The verb with what all have: `create` and `exec` get streams, or a socket for the terminal, and say the pid.
    fn run(
        &self,
        verb: &str,
        arguments: &mut [&str],
        pid_file: &Path,
        console: Option<&Console>,
        streams: Option<[OwnedFd; 3]>,
    ) -> Result<(), Fault> {
        let _ = fs::remove_file(pid_file);
        let mut command = self.bare(verb);
        command.args(arguments).arg("--pid-file").arg(pid_file);
        if let Some(console) = console {
            command.arg("--console-socket").arg(&console.path_for_others);
        }
        if let Some([stdin, stdout, stderr]) = streams {
            command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
        }
        command.arg(&self.setup.id);
        self.call(verb, &mut command)
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = self.bare(verb);
        command.arg(&self.setup.id);
        command
    }

    fn bare(&self, verb: &str) -> Command {
        let mut command = Command::new(self.program);
        command.env_clear().env("PATH", PATH).current_dir(self.bundle);
        command.arg("--root").arg(self.bundle.join(STATE_DIR));
        command.arg("--log").arg(self.bundle.join(LOG_FILE)).args(["--log-format", "json"]);
        if self.setup.has_systemd_scope {
            command.arg("--systemd-cgroup");
        }
        command.arg(verb).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Waits for its end. When it failed, its log says why.
    fn call(&self, verb: &str, command: &mut Command) -> Result<(), Fault> {
        let _ = fs::remove_file(self.bundle.join(LOG_FILE));
        let words = || format!("OCI runtime {verb} failed: call {}", self.program.display());
        let status = sys::spawn_with_default_signals(command).and_then(|mut child| child.wait()).doing(words)?;
        if status.success() {
            return Ok(());
        }
        let reason = self.last_error().unwrap_or_else(|| format!("{} ended with {status}", self.program.display()));
        Err(Fault(format!("OCI runtime {verb} failed: {reason}")))
    }

    fn last_error(&self) -> Option<String> {
        use std::io::Read;
        let mut text = String::new();
        fs::File::open(self.bundle.join(LOG_FILE)).ok()?.take(LOG_BYTES_MAX).read_to_string(&mut text).ok()?;
        reason_in(&text)
    }
}

/// The message of the last error in a log of JSON lines.
fn reason_in(log: &str) -> Option<String> {
    let message = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["level"] == "error" || line["level"] == "fatal").then(|| line["msg"].as_str().map(str::to_owned))?
    };
    log.lines().rev().find_map(message)
}

fn read_pid(file: &Path) -> Result<i32, Fault> {
    let words = || format!("read {}", file.display());
    let text = fs::read_to_string(file).doing(words)?;
    text.trim().parse().ok().filter(|pid| *pid > 0).ok_or_else(|| Fault(format!("{}: it holds no pid", words())))
}

/// Where the runtime sends the master of a terminal to.
struct Console {
    listener: OwnedFd,
    path: PathBuf,
    /// Short enough for the address of a socket.
    path_for_others: PathBuf,
    _dir: OwnedFd,
}

impl Console {
    fn listen(bundle: &Path) -> Result<Self, Fault> {
        let words = || "listen for the terminal".to_owned();
        let path = bundle.join(CONSOLE_SOCKET);
        let _ = fs::remove_file(&path);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, bundle, flags, Mode::empty()).doing(words)?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .doing(words)?;
        setup::with_short_path(&path, |short| rustix::net::bind(&socket, &SocketAddrUnix::new(short)?)).doing(words)?;
        rustix::net::listen(&socket, 1).doing(words)?;
        rustix::io::ioctl_fionbio(&socket, true).doing(words)?;
        let path_for_others =
            PathBuf::from(format!("/proc/{}/fd/{}/{CONSOLE_SOCKET}", std::process::id(), dir.as_raw_fd()));
        Ok(Self { listener: socket, path, path_for_others, _dir: dir })
    }

    /// What was sent; the runtime has ended well, so it was.
    fn take(&self) -> Result<OwnedFd, Fault> {
        let words = || "receive the terminal".to_owned();
        let connection = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC).doing(words)?;
        let (_, mut descriptors) = wire::receive_bytes(&connection).doing(words)?;
        descriptors.pop().ok_or_else(|| Fault(format!("{}: none came", words())))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_the_reason() {
        let log = "{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"runc create failed: x\",\"time\":\"\"}\n\
                   {\"level\":\"warning\",\"msg\":\"w\"}\nnot JSON\n";
        assert_eq!(reason_in(log).as_deref(), Some("runc create failed: x"));
        assert_eq!(reason_in("plain text\n"), None);
        assert_eq!(reason_in(""), None);
    }
}
