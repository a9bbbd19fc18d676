//! The shim's life: start, create, serve, end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::birth::{self, Birth};
use crate::cgroups::OomKills;
use crate::create::{self, Created, Release};
use crate::fault::reason;
use crate::logfile::LogFile;
use crate::oci::OciRuntime;
use crate::setup::{self, SOCKET_FILE, Setup};
use crate::spec::Spec;
use crate::stdio::{Source, Stdio};
use crate::sys;
use crate::wire::{self, Exec, Exit, Phase, Reply, Request, State};
use crate::{cgroups, end, exec, nursery};

/// Connections at most.
const CONNECTIONS_MAX: usize = 128;

/// The first argument of a shim, its program's name; nobody types it, so that no command line is lost.
pub(crate) const PROGRAM_NAME: &str = "rubelet-shim";

/// The arguments for [`main`] when this process was started by [`crate::Shim::create`] with [`crate::Program::this`].
pub fn called() -> Option<Vec<String>> {
    let mut arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    (arguments.next()? == PROGRAM_NAME && arguments.next()? == "shim").then(|| arguments.collect())
}

/// The `main` of the process that shims are copies of. Standard input is the agent's socket.
///
/// To be called before anything starts a thread or opens a file.
pub fn main(arguments: &[String]) -> ExitCode {
    if arguments.is_empty() { nursery::serve() } else { ExitCode::from(2) }
}

/// The life of one shim. Standard input is the socket to who wants the container, standard error the bundle's `shim.log`, which is
/// locked as long as a shim has it open.
pub(crate) fn run_shim(bundle: &Path) -> ExitCode {
    let control = match take_control() {
        Ok(control) => control,
        Err(_) => return ExitCode::FAILURE,
    };
    match Service::open(bundle, control) {
        Ok(mut service) => {
            service.run();
            ExitCode::SUCCESS
        }
        Err(()) => ExitCode::FAILURE,
    }
}

/// Detaches this process; standard input, which is the client's socket, becomes a descriptor of its own.
fn take_control() -> io::Result<OwnedFd> {
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // Standard error stays: it is the file that says that a shim is there.
    sys::place_descriptor(&null, 0)?;
    sys::place_descriptor(&null, 1)?;
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    sys::set_name(c"rubelet-shim");
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)?;
    for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        sys::ignore(signal);
    }
    Ok(control)
}

/// A client's connection.
struct Connection {
    socket: OwnedFd,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Asks,
    WaitsForEnd,
    /// It is the connection of an exec'd process.
    Runs {
        pid: i32,
        started_at_nanos: i64,
    },
    Closed,
}

impl Role {
    /// The pid of the program whose connection it is.
    fn program(self) -> Option<i32> {
        match self {
            Self::Runs { pid, .. } => Some(pid),
            Self::Asks | Self::WaitsForEnd | Self::Closed => None,
        }
    }
}

/// What poll watches.
#[derive(Clone, Copy)]
enum Watched {
    OomKills,
    Signals,
    Listener,
    Connection(usize),
    Stream(Source),
}

struct Service {
    bundle: PathBuf,
    setup: Setup,
    listener: OwnedFd,
    signals: OwnedFd,
    connections: Vec<Connection>,
    stdio: Stdio,
    oom_kills: OomKills,
    pid: i32,
    /// To let the created program run.
    sync: Option<Release>,
    phase: Phase,
    has_own_pids: bool,
}

impl Service {
    /// Creates the container and tells the client. On failure nothing is left and the client knows why.
    fn open(bundle: &Path, control: OwnedFd) -> Result<Self, ()> {
        let refuse = |text: String| {
            // First the traces: who knows that nothing was made must not find a shim.
            let _ = std::fs::remove_file(bundle.join(SOCKET_FILE));
            unlock();
            let _ = wire::send(&control, &Reply::Refused(text), &[]);
        };
        let failed = |what: &str, error: io::Error| refuse(format!("{what}: {}", reason(&error)));
        let (spec, setup) = setup::read_bundle(bundle).map_err(|e| failed("read the bundle", e))?;
        for dir in &setup.shim_cgroups {
            cgroups::join(dir).map_err(|e| failed(&format!("join cgroup {}", dir.display()), e))?;
        }
        let signals = sys::signal_descriptor(&[libc::SIGCHLD]).map_err(|e| failed("open signals", e))?;
        let listener = listen(&bundle.join(SOCKET_FILE)).map_err(|e| failed("listen on the shim's socket", e))?;
        let log = match &setup.log_path {
            Some(path) => Some(LogFile::open(path).map_err(|e| failed(&format!("open log {}", path.display()), e))?),
            None => None,
        };
        let has_own_pids = spec.linux.has_new("pid");
        let created = match OciRuntime::of(bundle, &setup) {
            Some(runtime) => runtime.create(&spec),
            None => create::create(bundle, spec, &setup),
        };
        let Created { pid, sync, streams } = created.map_err(|fault| refuse(fault.to_string()))?;
        let made = Stdio::new(streams, log, setup.stdin_once)
            .and_then(|stdio| birth::write(bundle, &birth_of(pid)?).map(|()| stdio));
        let stdio = made.map_err(|e| {
            create::kill_and_reap(pid);
            OciRuntime::of(bundle, &setup).inspect(OciRuntime::delete);
            failed("keep the container", e);
        })?;
        let connections = vec![Connection { socket: control, role: Role::Asks }];
        let mut service = Self {
            bundle: bundle.to_owned(),
            oom_kills: OomKills::follow(&setup.cgroups),
            setup,
            listener,
            signals,
            connections,
            stdio,
            pid,
            sync: Some(sync),
            phase: Phase::Created,
            has_own_pids,
        };
        let state = Reply::State(service.state());
        service.reply(0, &state, &[]);
        rubelet_host::memory::trim();
        Ok(service)
    }

    fn state(&self) -> State {
        State { pid: self.pid.unsigned_abs(), phase: self.phase, log_lines_lost: self.stdio.lines_lost() }
    }

    fn run(&mut self) {
        while !matches!(self.phase, Phase::Ended(_)) {
            for (watched, was_error) in self.poll() {
                match watched {
                    Watched::OomKills => drop(self.oom_kills.look()),
                    Watched::Signals => {
                        drain(&self.signals);
                        self.reap();
                    }
                    Watched::Listener => self.accept(),
                    Watched::Connection(at) => self.hear(at),
                    Watched::Stream(source) => self.stdio.serve(source, was_error),
                }
            }
            self.stdio.sweep();
            self.connections.retain(|connection| connection.role != Role::Closed);
        }
    }

    fn poll(&self) -> Vec<(Watched, bool)> {
        let mut streams = Vec::new();
        let patience: Option<Duration> = self.stdio.wanted(&mut streams);
        let mut watched = vec![Watched::Signals, Watched::Listener];
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        if let Some(file) = self.oom_kills.file() {
            watched.push(Watched::OomKills);
            fds.push(PollFd::new(file, PollFlags::PRI));
        }
        for (at, connection) in self.connections.iter().enumerate() {
            watched.push(Watched::Connection(at));
            fds.push(PollFd::new(&connection.socket, PollFlags::IN));
        }
        for (source, fd, flags) in &streams {
            watched.push(Watched::Stream(*source));
            fds.push(PollFd::new(fd, *flags));
        }
        let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let gone = PollFlags::ERR | PollFlags::NVAL | PollFlags::HUP;
        let ready = watched.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        ready.map(|(watched, fd)| (watched, fd.revents().intersects(gone))).collect()
    }

    fn accept(&mut self) {
        if let Ok(socket) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
            if self.connections.len() < CONNECTIONS_MAX {
                self.connections.push(Connection { socket, role: Role::Asks });
            } else {
                let _ = wire::send(&socket, &Reply::Refused(format!("{CONNECTIONS_MAX} connections already")), &[]);
            }
        }
    }

    /// A connection has something to say, or is gone.
    fn hear(&mut self, at: usize) {
        match wire::receive::<Request>(&self.connections[at].socket) {
            Ok(Some((request, descriptors))) => self.answer(at, request, descriptors),
            Ok(None) => {
                if let Role::Runs { pid, .. } = self.connections[at].role {
                    kill(pid, libc::SIGKILL);
                }
                self.connections[at].role = Role::Closed;
            }
            Err(e) => {
                self.reply(at, &Reply::Refused(format!("not understood: {}", reason(&e))), &[]);
                self.connections[at].role = Role::Closed;
            }
        }
    }

    fn answer(&mut self, at: usize, request: Request, descriptors: Vec<OwnedFd>) {
        let done = |result: io::Result<()>| match result {
            Ok(()) => Reply::Done,
            Err(e) => Reply::Refused(reason(&e)),
        };
        let reply = match request {
            Request::State => Reply::State(self.state()),
            Request::Start => self.start(),
            Request::Kill { signal, all } => self.signal(at, signal, all),
            Request::Resize { columns, rows } => done(self.stdio.resize(columns, rows)),
            Request::ReopenLog => done(self.stdio.reopen_log()),
            Request::CloseStdin => {
                self.stdio.close_input();
                Reply::Done
            }
            Request::Attach { stdin, stdout, stderr } => done(self.attach([stdin, stdout, stderr], descriptors)),
            Request::Exec(wanted) => return self.exec(at, wanted, descriptors),
            Request::Wait => {
                self.connections[at].role = Role::WaitsForEnd;
                return;
            }
        };
        self.reply(at, &reply, &[]);
    }

    fn reply(&mut self, at: usize, reply: &Reply, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        let connection = &mut self.connections[at];
        if wire::send(&connection.socket, reply, descriptors).is_err() {
            connection.role = Role::Closed;
        }
    }

    fn start(&mut self) -> Reply {
        let Some(sync) = self.sync.take() else {
            return Reply::Refused("the container was started already".to_owned());
        };
        let started = match (sync, OciRuntime::of(&self.bundle, &self.setup)) {
            (Release::Word(sync), _) => {
                wire::send_bytes(&sync, b"S", &[]).map_err(|e| format!("start: {}", reason(&e)))
            }
            (Release::Runtime, Some(runtime)) => runtime.start().map_err(|fault| fault.to_string()),
            (Release::Runtime, None) => Err("start: it has no runtime any more".to_owned()),
        };
        match started {
            Ok(()) => {
                self.phase = Phase::Running { started_at_nanos: end::now_nanos() };
                Reply::Done
            }
            Err(said) => Reply::Refused(said),
        }
    }

    fn signal(&self, at: usize, signal: i32, all: bool) -> Reply {
        let sent = match self.connections[at].role.program() {
            Some(pid) => sys::kill(pid, signal),
            None if all && !self.setup.cgroups.is_empty() => cgroups::signal_all(&self.setup.cgroups, signal).map(drop),
            None => sys::kill(self.pid, signal),
        };
        match sent {
            Ok(()) => Reply::Done,
            Err(e) => Reply::Refused(format!("signal {signal}: {}", reason(&e))),
        }
    }

    fn attach(&mut self, wanted: [bool; 3], descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut given = descriptors.into_iter();
        let streams = wanted.map(|is_wanted| is_wanted.then(|| given.next()).flatten());
        if wanted.iter().zip(&streams).any(|(is_wanted, stream)| *is_wanted != stream.is_some()) {
            return Err(io::Error::other("a descriptor is missing"));
        }
        self.stdio.attach(streams)
    }

    fn exec(&mut self, at: usize, wanted: Exec, descriptors: Vec<OwnedFd>) {
        let started = match self.phase {
            Phase::Running { .. } => setup::read_bundle(&self.bundle)
                .map_err(|e| format!("read the bundle: {}", reason(&e)))
                .and_then(|(spec, setup)| match OciRuntime::of(&self.bundle, &setup) {
                    Some(runtime) => runtime.exec(wanted, descriptors, spec).map_err(|fault| fault.to_string()),
                    None => start_exec(wanted, descriptors, spec, &setup, self.pid),
                }),
            Phase::Created | Phase::Ended(_) => Err("the container is not running".to_owned()),
        };
        match started {
            Ok(running) => {
                self.connections[at].role = Role::Runs { pid: running.pid, started_at_nanos: end::now_nanos() };
                let terminal: Vec<_> = running.terminal.iter().map(AsFd::as_fd).collect();
                let reply = Reply::Running { pid: running.pid.unsigned_abs() };
                if wire::send(&self.connections[at].socket, &reply, &terminal).is_err() {
                    kill(running.pid, libc::SIGKILL);
                    self.connections[at].role = Role::Closed;
                }
            }
            Err(text) => self.reply(at, &Reply::Refused(text), &[]),
        }
        rubelet_host::memory::trim();
    }

    /// Collects who has ended: an exec'd process, an orphan, or the container itself, with which all ends.
    fn reap(&mut self) {
        while let Some((pid, status)) = sys::reap() {
            if pid == self.pid {
                self.finish(status);
                continue;
            }
            self.tell_of_program(pid, status);
        }
    }

    /// The first process has ended: nobody of the container stays, its output is written, its end is recorded, then told.
    fn finish(&mut self, status: i32) {
        let started_at_nanos = match self.phase {
            Phase::Running { started_at_nanos } => Some(started_at_nanos),
            Phase::Created | Phase::Ended(_) => None,
        };
        let finished_at = end::now_nanos();
        // First of all, before the cgroup is gone.
        let oom_kills = self.oom_kills.look().max(cgroups::oom_kills(&self.setup.cgroups));
        if !self.has_own_pids {
            let _ = cgroups::signal_all(&self.setup.cgroups, libc::SIGKILL);
        }
        self.stdio.finish();
        let exit: Exit = end::of_status(status, started_at_nanos, finished_at, oom_kills);
        // While the bundle is ours: its runtime's notes are in it.
        OciRuntime::of(&self.bundle, &self.setup).inspect(OciRuntime::delete);
        if let Err(e) = end::write(&self.bundle, &exit) {
            let _ = io::Write::write_all(&mut io::stderr(), format!("record the end: {e}\n").as_bytes());
        }
        self.phase = Phase::Ended(exit);
        let _ = std::fs::remove_file(self.bundle.join(SOCKET_FILE));
        unlock();
        for connection in self.connections.iter().filter(|connection| connection.role == Role::WaitsForEnd) {
            let _ = wire::send(&connection.socket, &Reply::Exit(exit), &[]);
        }
        self.end_programs();
    }

    /// Programs that were run beside the first process and share its PIDs with the host: they end with it, and their clients hear it.
    fn end_programs(&mut self) {
        const MOMENT: Duration = Duration::from_secs(1);
        let until = std::time::Instant::now() + MOMENT;
        let mut left: Vec<i32> = self.connections.iter().filter_map(|connection| connection.role.program()).collect();
        left.iter().for_each(|pid| kill(*pid, libc::SIGKILL));
        while !left.is_empty() && std::time::Instant::now() < until {
            let timeout = Timespec::try_from(until.saturating_duration_since(std::time::Instant::now())).ok();
            let _ = poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], timeout.as_ref());
            drain(&self.signals);
            while let Some((pid, status)) = sys::reap() {
                left.retain(|its| *its != pid);
                self.tell_of_program(pid, status);
            }
        }
    }

    /// One that was run beside the first process has ended.
    fn tell_of_program(&mut self, pid: i32, status: i32) {
        for connection in &mut self.connections {
            if let Role::Runs { pid: its, started_at_nanos } = connection.role
                && its == pid
            {
                let exit = end::of_status(status, Some(started_at_nanos), end::now_nanos(), 0);
                let _ = wire::send(&connection.socket, &Reply::Exit(exit), &[]);
                connection.role = Role::Closed;
            }
        }
    }
}

fn start_exec(
    wanted: Exec,
    descriptors: Vec<OwnedFd>,
    spec: Spec,
    setup: &Setup,
    pid: i32,
) -> Result<exec::Running, String> {
    exec::start(wanted, descriptors, spec, setup, pid).map_err(|fault| fault.to_string())
}

/// Says that there is no shim any more; its files are as they will stay.
fn unlock() {
    let _ = rustix::fs::flock(rustix::stdio::stderr(), rustix::fs::FlockOperation::Unlock);
}

/// To a child of ours that was not reaped: its pid cannot be somebody else's.
fn kill(pid: i32, signal: i32) {
    let _ = sys::kill(pid, signal);
}

fn drain(signals: &OwnedFd) {
    let mut space = [0; 1024];
    while matches!(rustix::io::read(signals, &mut space), Ok(count) if count > 0) {}
}

fn birth_of(pid: i32) -> io::Result<Birth> {
    let (pid, shim) = (pid.unsigned_abs(), std::process::id());
    let ticks = |pid| birth::start_ticks(pid).ok_or_else(|| io::Error::other("the first process is gone"));
    Ok(Birth { pid, pid_start_ticks: ticks(pid)?, shim, shim_start_ticks: ticks(shim)? })
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    const BACKLOG: i32 = 64;
    let _ = std::fs::remove_file(path);
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    setup::with_short_path(path, |short| rustix::net::bind(&socket, &SocketAddrUnix::new(short)?))?;
    rustix::fs::chmod(path, Mode::from_bits_truncate(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}
