//! The agent's side: starting a shim, finding one again, and talking to it. Everything here blocks.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::birth::{self, Birth};
use crate::cgroups;
use crate::end;
use crate::mounts::{READ_ONLY, clone_tree};
use crate::nursery::{self, Nursery};
use crate::setup::{self, BIRTH_FILE, ERRORS_FILE, EXIT_FILE, SETUP_FILE, SOCKET_FILE};
use crate::sys::{self, MountChange};
use crate::wire::{self, Exec, Exit, Reply, Request, State};

/// How long a shim may be between two states.
const BUSY_MAX: Duration = Duration::from_secs(10);
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// Exit code of a container whose end nobody saw (containerd: 255).
const UNSEEN_CODE: i32 = 255;

/// Whether no process has the bundle's lock: there is no shim, and none on its way.
fn is_without_shim(bundle: &Path) -> Result<bool, ShimError> {
    let path = bundle.join(ERRORS_FILE);
    match OpenOptions::new().append(true).open(&path) {
        Ok(file) => Ok(flock(&file, FlockOperation::NonBlockingLockShared).is_ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound && bundle.join(SETUP_FILE).exists() => Ok(true),
        Err(source) => Err(ShimError::Read { path, source }),
    }
}

/// Takes the bundle for a new shim. What an earlier one left there is removed.
fn take_lock(bundle: &Path) -> io::Result<std::fs::File> {
    let errors = OpenOptions::new().append(true).create(true).mode(0o600).open(bundle.join(ERRORS_FILE))?;
    flock(&errors, FlockOperation::NonBlockingLockExclusive).map_err(|_| io::Error::other("it has a shim already"))?;
    for file in [EXIT_FILE, BIRTH_FILE] {
        match std::fs::remove_file(bundle.join(file)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(errors)
}

/// Why something about a container failed.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    #[error("open this program for shims")]
    Program { source: io::Error },
    #[error("start the shim of {bundle}")]
    Start { bundle: PathBuf, source: io::Error },
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("talk to the shim of {bundle}")]
    Talk { bundle: PathBuf, source: io::Error },
    /// The shim is gone; [`Shim::attach`] tells what became of the container.
    #[error("the shim of {bundle} is gone")]
    Gone { bundle: PathBuf },
    /// The text is made for users, in runc's words where they know them.
    #[error("{0}")]
    Refused(String),
}

/// The program that shims are started from: this one, through a read-only mount of its own, so that a container that gets hold of
/// `/proc/PID/exe` of one of our processes cannot write to the host's file.
#[derive(Debug)]
pub struct Program {
    file: OwnedFd,
    arguments: Vec<String>,
    /// Cgroup directories that shims live in; none: those of the agent.
    cgroups: Vec<PathBuf>,
    nursery: Mutex<Option<Nursery>>,
}

impl Program {
    /// The running program, started as `rubelet-shim shim`: see [`crate::called`].
    pub fn this() -> Result<Self, ShimError> {
        Self::at(Path::new("/proc/self/exe"), &["shim"])
    }

    /// A program that calls [`crate::main`] when its arguments are these.
    pub fn at(path: &Path, arguments: &[&str]) -> Result<Self, ShimError> {
        let open = || {
            let file = clone_tree(path, false)?;
            sys::change_mount(
                &file,
                MountChange { set: READ_ONLY, propagation: libc::MS_PRIVATE, ..MountChange::default() },
            )?;
            io::Result::Ok(file)
        };
        let file = open().map_err(|source| ShimError::Program { source })?;
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        Ok(Self { file, arguments, cgroups: Vec::new(), nursery: Mutex::new(None) })
    }

    /// Lets shims live in these cgroup directories, which exist, instead of in those of the agent: what ends the agent with all that is
    /// in its cgroup spares them.
    #[must_use]
    pub fn in_cgroups(mut self, dirs: Vec<PathBuf>) -> Self {
        self.cgroups = dirs;
        self
    }

    /// A process that does nothing: service managers make a cgroup around one. It ends when the answer is dropped.
    pub fn park(&self) -> io::Result<Parked> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let nothing = std::fs::File::open("/dev/null")?.into();
        self.ask_bytes(nursery::PARK, [&theirs, &nothing])?;
        drop(theirs);
        let (text, _) = wire::receive_bytes(&ours)?;
        let pid = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        Ok(Parked { pid: pid.ok_or(io::ErrorKind::UnexpectedEof)?, _socket: ours })
    }

    /// Has a shim started; the process that shims are copies of is started at need, and again when it was killed.
    fn ask(&self, bundle: &Path, streams: [&OwnedFd; 2]) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        self.ask_bytes(std::path::absolute(bundle)?.as_os_str().as_bytes(), streams)
    }

    fn ask_bytes(&self, what: &[u8], streams: [&OwnedFd; 2]) -> io::Result<()> {
        let mut nursery = self.nursery.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = nursery.as_ref()
            && known.ask(what, streams).is_ok()
        {
            return Ok(());
        }
        *nursery = None;
        let new = Nursery::start(&self.file, &self.arguments)?;
        new.move_into(&self.cgroups)?;
        nursery.insert(new).ask(what, streams)
    }
}

/// A process that does nothing. See [`Program::park`].
#[derive(Debug)]
pub struct Parked {
    /// On the host.
    pub pid: u32,
    _socket: OwnedFd,
}

/// What became of a container.
#[derive(Debug)]
pub enum Standing {
    /// Its shim answers.
    Kept(Shim),
    Ended(Exit),
    /// The shim was killed before it could record an end. The container's processes may live: [`Shim::end_lost`].
    Lost(Birth),
    /// It was never created.
    Unborn,
}

/// A connection to a container's shim.
#[derive(Debug)]
pub struct Shim {
    bundle: PathBuf,
    socket: OwnedFd,
}

/// The streams of an exec'd program.
#[derive(Debug)]
pub enum ExecStreams {
    /// Standard input, output and errors of the program itself.
    Pipes([OwnedFd; 3]),
    /// A new terminal, with columns and rows.
    Terminal(Option<(u16, u16)>),
}

/// A program that runs in a container. Dropping it kills the program.
#[derive(Debug)]
pub struct Execution {
    /// On the host.
    pub pid: u32,
    /// Read and write here when it has a terminal. Resize by [`crate::resize_terminal`].
    pub terminal: Option<OwnedFd>,
    shim: Shim,
}

/// Becomes readable when the container has ended.
#[derive(Debug)]
pub struct ExitWatch(Shim);

/// Our ends of what was attached, in the order stdin, stdout, stderr.
#[derive(Debug)]
pub struct Attached {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

impl Shim {
    /// Creates the container of a bundle (see [`crate::setup::write_bundle`]); it waits for [`Shim::start`].
    pub fn create(program: &Program, bundle: &Path) -> Result<(Self, State), ShimError> {
        let start = |source: io::Error| ShimError::Start { bundle: bundle.to_owned(), source };
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| start(e.into()))?;
        let errors = take_lock(bundle).map_err(start)?;
        program.ask(bundle, [&theirs, &errors.into()]).map_err(start)?;
        drop(theirs);
        let shim = Self { bundle: bundle.to_owned(), socket: ours };
        match shim.receive()? {
            (Reply::State(state), _) => Ok((shim, state)),
            (other, _) => Err(shim.unexpected(other)),
        }
    }

    /// Finds the container of a bundle again.
    pub fn attach(bundle: &Path) -> Result<Standing, ShimError> {
        let begin = Instant::now();
        loop {
            if let Ok(shim) = Self::connect(bundle) {
                return Ok(Standing::Kept(shim));
            }
            let is_alone = is_without_shim(bundle)?;
            let exit = end::read(bundle).map_err(|source| ShimError::Read { path: bundle.join(EXIT_FILE), source })?;
            if let Some(exit) = exit {
                return Ok(Standing::Ended(exit));
            }
            if is_alone {
                return match birth::read(bundle) {
                    Ok(birth) => Ok(Standing::Lost(birth)),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Standing::Unborn),
                    Err(source) => Err(ShimError::Read { path: bundle.join(BIRTH_FILE), source }),
                };
            }
            // A shim that is creating the container, or on its way out: it listens or has written the end in a moment.
            if begin.elapsed() > BUSY_MAX {
                let source = io::Error::from(io::ErrorKind::TimedOut);
                return Err(ShimError::Talk { bundle: bundle.to_owned(), source });
            }
            std::thread::sleep(BUSY_PAUSE);
        }
    }

    /// Ends what a killed shim left behind, by cgroup and by pid, and records an end: code 255, as nobody saw the real one.
    pub fn end_lost(bundle: &Path, birth: &Birth) -> Result<Exit, ShimError> {
        let failed = |source| ShimError::Talk { bundle: bundle.to_owned(), source };
        let (_, setup) =
            setup::read_bundle(bundle).map_err(|source| ShimError::Read { path: bundle.join(SETUP_FILE), source })?;
        let begin = Instant::now();
        while cgroups::signal_all(&setup.cgroups, libc::SIGKILL).map_err(failed)? > 0 || birth.is_container_alive() {
            if birth.is_container_alive() {
                sys::kill(i32::try_from(birth.pid).unwrap_or(0), libc::SIGKILL).map_err(failed)?;
            }
            if begin.elapsed() > BUSY_MAX {
                return Err(failed(io::Error::other("its processes do not end")));
            }
            std::thread::sleep(BUSY_PAUSE);
        }
        let exit = Exit {
            code: UNSEEN_CODE,
            signal: None,
            started_at_nanos: None,
            finished_at_nanos: end::now_nanos(),
            oom_kills: cgroups::oom_kills(&setup.cgroups),
        };
        end::write(bundle, &exit).map_err(failed)?;
        Ok(exit)
    }

    fn connect(bundle: &Path) -> Result<Self, ShimError> {
        let gone = |_| ShimError::Gone { bundle: bundle.to_owned() };
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(gone)?;
        let connect = |path: &Path| rustix::net::connect(&socket, &SocketAddrUnix::new(path)?);
        setup::with_short_path(&bundle.join(SOCKET_FILE), connect).map_err(gone)?;
        Ok(Self { bundle: bundle.to_owned(), socket })
    }

    /// Another connection to the same shim: one that waits or runs a program is busy.
    pub fn again(&self) -> Result<Self, ShimError> {
        Self::connect(&self.bundle)
    }

    fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), ShimError> {
        wire::send(&self.socket, request, descriptors).map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                ShimError::Gone { bundle: self.bundle.clone() }
            }
            _ => ShimError::Talk { bundle: self.bundle.clone(), source },
        })
    }

    fn receive(&self) -> Result<(Reply, Vec<OwnedFd>), ShimError> {
        match wire::receive(&self.socket) {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(ShimError::Gone { bundle: self.bundle.clone() }),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                Err(ShimError::Gone { bundle: self.bundle.clone() })
            }
            Err(source) => Err(ShimError::Talk { bundle: self.bundle.clone(), source }),
        }
    }

    fn unexpected(&self, reply: Reply) -> ShimError {
        match reply {
            Reply::Refused(text) => ShimError::Refused(text),
            other => ShimError::Talk {
                bundle: self.bundle.clone(),
                source: io::Error::other(format!("unexpected {other:?}")),
            },
        }
    }

    fn ask(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), ShimError> {
        self.send(request, descriptors)?;
        match self.receive()? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// How far the container is.
    pub fn state(&self) -> Result<State, ShimError> {
        self.send(&Request::State, &[])?;
        match self.receive()? {
            (Reply::State(state), _) => Ok(state),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// Lets the container run.
    pub fn start(&self) -> Result<(), ShimError> {
        self.ask(&Request::Start, &[])
    }

    /// Sends a signal to the first process, or to all processes of the container's cgroup.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), ShimError> {
        match self.ask(&Request::Kill { signal, all }, &[]) {
            Err(gone @ ShimError::Gone { .. }) => match Self::attach(&self.bundle)? {
                Standing::Ended(_) | Standing::Unborn => Ok(()),
                // Nobody has passed the signal on.
                Standing::Lost(_) | Standing::Kept(_) => Err(gone),
            },
            other => other,
        }
    }

    /// Sets the size of the container's terminal.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), ShimError> {
        self.ask(&Request::Resize { columns, rows }, &[])
    }

    /// Opens the log anew, after it was renamed.
    pub fn reopen_log(&self) -> Result<(), ShimError> {
        self.ask(&Request::ReopenLog, &[])
    }

    /// Closes the container's standard input.
    pub fn close_stdin(&self) -> Result<(), ShimError> {
        self.ask(&Request::CloseStdin, &[])
    }

    /// Attaches to streams of the container, from now on. The shim closes its ends when the container has ended.
    pub fn attach_streams(&self, stdin: bool, stdout: bool, stderr: bool) -> Result<Attached, ShimError> {
        let failed = |source| ShimError::Talk { bundle: self.bundle.clone(), source };
        let mut theirs = Vec::new();
        let mut pair = |is_wanted: bool, we_read: bool| -> io::Result<Option<OwnedFd>> {
            if !is_wanted {
                return Ok(None);
            }
            let (reader, writer) = io::pipe()?;
            let (ours, other): (OwnedFd, OwnedFd) =
                if we_read { (reader.into(), writer.into()) } else { (writer.into(), reader.into()) };
            theirs.push(other);
            Ok(Some(ours))
        };
        let stdin_end = pair(stdin, false).map_err(failed)?;
        let stdout_end = pair(stdout, true).map_err(failed)?;
        let stderr_end = pair(stderr, true).map_err(failed)?;
        let descriptors: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        self.ask(&Request::Attach { stdin, stdout, stderr }, &descriptors)?;
        Ok(Attached { stdin: stdin_end, stdout: stdout_end, stderr: stderr_end })
    }

    /// Runs another program in the container, on a connection of its own.
    pub fn exec(&self, args: &[String], env: &[String], streams: ExecStreams) -> Result<Execution, ShimError> {
        let shim = self.again()?;
        let (terminal, size, pipes) = match streams {
            ExecStreams::Pipes(pipes) => (false, None, Some(pipes)),
            ExecStreams::Terminal(size) => (true, size, None),
        };
        let wanted = Exec { args: args.to_vec(), terminal, size, env: env.to_vec() };
        let descriptors: Vec<_> = pipes.iter().flatten().map(AsFd::as_fd).collect();
        shim.send(&Request::Exec(wanted), &descriptors)?;
        match shim.receive()? {
            (Reply::Running { pid }, mut got) => Ok(Execution { pid, terminal: got.pop(), shim }),
            (other, _) => Err(shim.unexpected(other)),
        }
    }

    /// A connection that becomes readable when the container has ended.
    pub fn watch_exit(&self) -> Result<ExitWatch, ShimError> {
        let shim = self.again()?;
        shim.send(&Request::Wait, &[])?;
        Ok(ExitWatch(shim))
    }
}

impl AsFd for ExitWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

impl ExitWatch {
    /// Blocks until the container has ended; when its descriptor is readable, it does not block.
    pub fn wait(self) -> Result<Exit, ShimError> {
        match self.0.receive() {
            Ok((Reply::Exit(exit), _)) => Ok(exit),
            Ok((other, _)) => Err(self.0.unexpected(other)),
            // The end is on disk before the shim goes.
            Err(ShimError::Gone { bundle }) => match end::read(&bundle) {
                Ok(Some(exit)) => Ok(exit),
                Ok(None) => Err(ShimError::Gone { bundle }),
                Err(source) => Err(ShimError::Read { path: bundle.join(EXIT_FILE), source }),
            },
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Execution {
    /// Readable when the program has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shim.socket.as_fd()
    }
}

impl Execution {
    /// Sends a signal to the program.
    pub fn kill(&self, signal: i32) -> Result<(), ShimError> {
        // Its answer may come after the program's end; `wait` skips it.
        match self.shim.send(&Request::Kill { signal, all: false }, &[]) {
            Err(ShimError::Gone { .. }) => Ok(()),
            other => other,
        }
    }

    /// Blocks until the program has ended.
    pub fn wait(self) -> Result<Exit, ShimError> {
        loop {
            match self.shim.receive()? {
                (Reply::Exit(exit), _) => return Ok(exit),
                (Reply::Done, _) => {}
                (other, _) => return Err(self.shim.unexpected(other)),
            }
        }
    }
}
