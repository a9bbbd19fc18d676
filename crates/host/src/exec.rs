//! Running a program for its answer: what it reads is given, what it says is bounded, how long it may take too.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// What to run, and within which bounds.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    pub program: &'a Path,
    pub arguments: &'a [&'a OsStr],
    /// Its whole environment.
    pub environment: &'a [(OsString, OsString)],
    /// What it reads from its standard input.
    pub input: &'a [u8],
    /// When it and all of its process group are killed.
    pub patience: Duration,
    /// Bytes that are kept of each of its outputs; more is read and thrown away.
    pub output_max: usize,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Whether there was more than is kept.
    pub is_cut: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("start {program}")]
    Start { program: PathBuf, source: io::Error },
    #[error("talk to {program}")]
    Talk { program: PathBuf, source: io::Error },
    #[error("{program} did not end within {} s and was killed", patience.as_secs_f32())]
    Late { program: PathBuf, patience: Duration },
}

/// Runs a program until it ends. What it leaves behind in its process group, and who holds its outputs open, is not waited for.
///
/// # Errors
/// It could not be started, or was killed because it took too long. A program that fails is an [`Answer`].
pub fn run(order: &Order<'_>) -> Result<Answer, ExecError> {
    let program = || order.program.to_owned();
    let mut child = Command::new(order.program)
        .args(order.arguments)
        .env_clear()
        .envs(order.environment.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it starts is killed with it.
        .process_group(0)
        .spawn()
        .map_err(|source| ExecError::Start { program: program(), source })?;
    let mut outputs = [Kept::default(), Kept::default()];
    let talked = talk(&mut child, order, &mut outputs);
    if !matches!(talked, Ok(true)) {
        kill_group(&child);
    }
    let status = child.wait();
    let talk_error = |source| ExecError::Talk { program: program(), source };
    if !talked.map_err(talk_error)? {
        return Err(ExecError::Late { program: program(), patience: order.patience });
    }
    let [stdout, stderr] = outputs;
    let is_cut = stdout.is_cut || stderr.is_cut;
    Ok(Answer { status: status.map_err(talk_error)?, stdout: stdout.bytes, stderr: stderr.bytes, is_cut })
}

fn kill_group(child: &Child) {
    // It is not reaped yet, so the number is still its own.
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Kept {
    /// Reads what is there now; false at the end.
    fn take(&mut self, from: &mut impl Read, max: usize) -> io::Result<bool> {
        let mut buffer = [0; 8192];
        match from.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(count) => {
                let room = max.saturating_sub(self.bytes.len()).min(count);
                self.bytes.extend_from_slice(&buffer[..room]);
                self.is_cut |= room < count;
                Ok(true)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(e) => Err(e),
        }
    }
}

/// Writes and reads until the program has ended; false when it is late.
fn talk(child: &mut Child, order: &Order<'_>, outputs: &mut [Kept; 2]) -> io::Result<bool> {
    let deadline = Instant::now() + order.patience;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    let end = pidfd_open(pid, PidfdFlags::empty())?;
    let mut input = order.input;
    let (mut stdin, mut stdout, mut stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    if let Some(pipe) = &stdin {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    let [out, err] = outputs;
    loop {
        if input.is_empty() {
            stdin = None;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let ready = {
            // A pipe that is closed is represented by the process: its events are ignored then.
            let closed = || end.as_fd();
            let mut all = [
                PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(stdout.as_ref().map_or_else(closed, AsFd::as_fd), PollFlags::IN),
                PollFd::from_borrowed_fd(stderr.as_ref().map_or_else(closed, AsFd::as_fd), PollFlags::IN),
                PollFd::from_borrowed_fd(stdin.as_ref().map_or_else(closed, AsFd::as_fd), PollFlags::OUT),
            ];
            match poll(&mut all, Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => all.map(|one| !one.revents().is_empty()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
        };
        let [has_ended, has_out, has_err, is_writable] = ready;
        let max = order.output_max;
        if has_out
            && let Some(pipe) = &mut stdout
            && !out.take(pipe, max)?
        {
            stdout = None;
        }
        if has_err
            && let Some(pipe) = &mut stderr
            && !err.take(pipe, max)?
        {
            stderr = None;
        }
        if is_writable && let Some(pipe) = &mut stdin {
            match pipe.write(input) {
                Ok(count) => input = &input[count..],
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                // A program that does not read its input says why by its exit.
                Err(_) => input = &[],
            }
        }
        if has_ended {
            drain(stdout, out, max)?;
            drain(stderr, err, max)?;
            return Ok(true);
        }
    }
}

/// Reads what the program wrote before its end. Who else has the pipe open may write on, and is not listened to.
fn drain(pipe: Option<impl Read + AsFd>, kept: &mut Kept, max: usize) -> io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    rustix::io::ioctl_fionbio(&pipe, true)?;
    let mut left = rustix::io::ioctl_fionread(&pipe)?;
    while left > 0 {
        let before = kept.bytes.len();
        if !kept.take(&mut pipe, max)? || kept.is_cut {
            break;
        }
        left = left.saturating_sub((kept.bytes.len() - before).max(1) as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &[u8], patience: Duration, output_max: usize) -> Result<Answer, ExecError> {
        let program = Path::new("/bin/sh");
        let arguments = ["-c".as_ref(), script.as_ref()];
        let environment = [("PATH".into(), "/usr/bin:/bin".into())];
        run(&Order { program, arguments: &arguments, environment: &environment, input, patience, output_max })
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn input_goes_in_and_both_outputs_come_out() {
        let input = vec![b'x'; 300_000];
        let answer = shell("cat; echo oops >&2; exit 3", &input, LONG, 1 << 20).unwrap();
        assert_eq!((answer.status.code(), answer.is_cut), (Some(3), false));
        assert_eq!((answer.stdout == input, answer.stderr.as_slice()), (true, &b"oops\n"[..]));
        assert!(shell("exit 0", &input, LONG, 10).unwrap().status.success());
    }

    #[test]
    fn much_output_is_cut_and_does_not_block() {
        let answer = shell("head -c 1000000 /dev/zero", b"", LONG, 1000).unwrap();
        assert_eq!((answer.stdout.len(), answer.is_cut, answer.status.success()), (1000, true, true));
    }

    #[test]
    fn who_is_late_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
        let error = shell(&script, b"", Duration::from_secs(2), 10).unwrap_err();
        assert!(matches!(error, ExecError::Late { .. }), "{error}");
        let child: u32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        match crate::process::Handle::open(child) {
            Ok(handle) => assert!(handle.wait_until(Instant::now() + LONG)),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::NotFound),
        }
    }

    #[test]
    fn what_stays_behind_is_not_waited_for() {
        let begin = Instant::now();
        let answer = shell("sleep 30 & echo $!", b"", LONG, 100).unwrap();
        assert!(begin.elapsed() < LONG, "the pipe was waited for");
        let pid: u32 = String::from_utf8(answer.stdout).unwrap().trim().parse().unwrap();
        crate::process::Handle::open(pid).unwrap().kill();
    }

    #[test]
    fn a_missing_program_is_named() {
        let order = Order {
            program: Path::new("/nowhere/x"),
            arguments: &[],
            environment: &[],
            input: b"",
            patience: LONG,
            output_max: 1,
        };
        assert_eq!(run(&order).unwrap_err().to_string(), "start /nowhere/x");
    }
}
