//! The container's streams: output goes to the log and to who is attached, input comes from who is attached.
//!
//! Nothing here blocks. While an attached client has output pending, the container's output is not read: a slow reader slows the
//! container down, as a terminal does; one that takes nothing for ten seconds is let go.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::create::Streams;
use crate::end::now_nanos;
use crate::logfile::{Lines, LogFile};

/// Read at once.
const CHUNK_BYTES: usize = 32 * 1024;
/// Attached clients at most.
const CLIENTS_MAX: usize = 32;
/// A client that takes nothing for so long is let go.
const STUCK_MAX: Duration = Duration::from_secs(10);

struct Output {
    file: Option<File>,
    name: &'static str,
    lines: Lines,
}

/// An attached client.
struct Client {
    input: Option<File>,
    /// Read from its input, not yet taken by the container.
    typed: Vec<u8>,
    outputs: [Option<File>; 2],
    pending: [Vec<u8>; 2],
    /// Since when it has taken nothing although something is pending.
    stuck_since: Option<Instant>,
}

impl Client {
    fn has_pending(&self) -> bool {
        self.pending.iter().any(|pending| !pending.is_empty())
    }

    fn is_gone(&self) -> bool {
        self.input.is_none() && self.typed.is_empty() && self.outputs.iter().all(Option::is_none)
    }
}

/// Something of the streams that poll watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Output(usize),
    ClientInput(usize),
    /// The container's input has room.
    Input,
    ClientOutput(usize, usize),
}

/// All streams of a container.
pub(crate) struct Stdio {
    input: Option<File>,
    is_once: bool,
    outputs: Vec<Output>,
    terminal: Option<(OwnedFd, OwnedFd)>,
    log: Option<LogFile>,
    clients: Vec<Client>,
}

fn not_blocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK).map_err(Into::into)
}

impl Stdio {
    pub(crate) fn new(streams: Streams, log: Option<LogFile>, is_once: bool) -> io::Result<Self> {
        let output = |fd: OwnedFd, name| Output { file: Some(File::from(fd)), name, lines: Lines::default() };
        let (input, outputs, terminal) = match streams {
            Streams::None => (None, Vec::new(), None),
            Streams::Pipes { stdin, stdout, stderr } => {
                (stdin.map(File::from), vec![output(stdout, "stdout"), output(stderr, "stderr")], None)
            }
            Streams::Terminal { master, peer } => {
                let input = File::from(master.try_clone()?);
                (Some(input), vec![output(master.try_clone()?, "stdout")], Some((master, peer)))
            }
        };
        for file in input.iter().chain(outputs.iter().filter_map(|output| output.file.as_ref())) {
            not_blocking(file)?;
        }
        Ok(Self { input, is_once, outputs, terminal, log, clients: Vec::new() })
    }

    pub(crate) fn lines_lost(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.lines_lost)
    }

    pub(crate) fn reopen_log(&mut self) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), LogFile::reopen)
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let (master, _) = self.terminal.as_ref().ok_or_else(|| io::Error::other("the container has no terminal"))?;
        crate::sys::resize_terminal(master, columns, rows)
    }

    pub(crate) fn close_input(&mut self) {
        if self.terminal.is_none() {
            self.input = None;
        }
        for client in &mut self.clients {
            (client.input, client.typed) = (None, Vec::new());
        }
    }

    /// Adds a client with its streams: input, output, errors.
    pub(crate) fn attach(&mut self, streams: [Option<OwnedFd>; 3]) -> io::Result<()> {
        if self.clients.len() >= CLIENTS_MAX {
            return Err(io::Error::other(format!("{CLIENTS_MAX} clients are attached already")));
        }
        let [input, stdout, stderr] = streams.map(|stream| stream.map(File::from));
        if input.is_some() && self.input.is_none() {
            return Err(io::Error::other("the container's standard input is not open"));
        }
        for file in [&input, &stdout, &stderr].into_iter().flatten() {
            not_blocking(file)?;
        }
        let outputs = [stdout, stderr];
        self.clients.push(Client { input, typed: Vec::new(), outputs, pending: Default::default(), stuck_since: None });
        Ok(())
    }

    /// What to poll for, and how long at most.
    pub(crate) fn wanted<'a>(&'a self, into: &mut Vec<(Source, BorrowedFd<'a>, PollFlags)>) -> Option<Duration> {
        let is_held_up = self.clients.iter().any(Client::has_pending);
        for (at, output) in self.outputs.iter().enumerate() {
            if let (Some(file), false) = (&output.file, is_held_up) {
                into.push((Source::Output(at), file.as_fd(), PollFlags::IN));
            }
        }
        let mut patience: Option<Duration> = None;
        for (at, client) in self.clients.iter().enumerate() {
            match (&client.input, &self.input) {
                (Some(_), Some(input)) if !client.typed.is_empty() => {
                    into.push((Source::Input, input.as_fd(), PollFlags::OUT))
                }
                (Some(input), _) if client.typed.is_empty() => {
                    into.push((Source::ClientInput(at), input.as_fd(), PollFlags::IN))
                }
                _ => {}
            }
            for (which, file) in client.outputs.iter().enumerate() {
                let Some(file) = file else { continue };
                // Without anything to write only its closing is of interest.
                let flags = if client.pending[which].is_empty() { PollFlags::empty() } else { PollFlags::OUT };
                into.push((Source::ClientOutput(at, which), file.as_fd(), flags));
            }
            if let Some(since) = client.stuck_since {
                let left = STUCK_MAX.saturating_sub(since.elapsed());
                patience = Some(patience.map_or(left, |p| p.min(left)));
            }
        }
        patience
    }

    /// Serves what poll found. `was_error`: the other side has closed.
    pub(crate) fn serve(&mut self, source: Source, was_error: bool) {
        match source {
            Source::Output(at) => {
                self.read_output(at);
            }
            Source::ClientInput(at) => self.read_input(at),
            Source::Input => self.write_input(),
            Source::ClientOutput(at, which) => {
                if let Some(client) = self.clients.get_mut(at) {
                    if was_error {
                        (client.outputs[which], client.pending[which]) = (None, Vec::new());
                    }
                    flush(client);
                }
            }
        }
    }

    /// Lets go who has closed everything or takes nothing.
    pub(crate) fn sweep(&mut self) {
        self.clients
            .retain(|client| !client.is_gone() && client.stuck_since.is_none_or(|since| since.elapsed() < STUCK_MAX));
    }

    /// Reads one piece of output; whether there may be more.
    fn read_output(&mut self, at: usize) -> bool {
        let output = &mut self.outputs[at];
        let Some(file) = &mut output.file else { return false };
        let mut piece = vec![0; CHUNK_BYTES];
        let count = match file.read(&mut piece) {
            Ok(count) => count,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock) => return false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return true,
            // EIO: nobody has the terminal open any more.
            Err(_) => 0,
        };
        let piece = &piece[..count];
        if let Some(log) = &mut self.log {
            if count == 0 {
                output.lines.finish(output.name, now_nanos(), log);
            } else {
                output.lines.take(output.name, piece, now_nanos(), log);
            }
        }
        if count == 0 {
            output.file = None;
            for client in &mut self.clients {
                if client.pending[at].is_empty() {
                    client.outputs[at] = None;
                }
            }
            return false;
        }
        for client in &mut self.clients {
            if client.outputs[at].is_some() {
                client.pending[at].extend_from_slice(piece);
                flush(client);
            }
        }
        true
    }

    fn read_input(&mut self, at: usize) {
        const TYPED_MAX: usize = 4096;
        let Some(client) = self.clients.get_mut(at) else { return };
        let Some(file) = &mut client.input else { return };
        let mut typed = vec![0; TYPED_MAX];
        match file.read(&mut typed) {
            Ok(0) => {
                client.input = None;
                if self.is_once {
                    self.close_input();
                }
            }
            Ok(count) => {
                typed.truncate(count);
                client.typed = typed;
                self.write_input();
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => client.input = None,
        }
    }

    fn write_input(&mut self) {
        for client in self.clients.iter_mut().filter(|client| !client.typed.is_empty()) {
            let Some(input) = &mut self.input else {
                (client.input, client.typed) = (None, Vec::new());
                continue;
            };
            match input.write(&client.typed) {
                Ok(count) => drop(client.typed.drain(..count)),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => (self.input, client.input, client.typed) = (None, None, Vec::new()),
            }
            if client.typed.is_empty() {
                client.typed = Vec::new();
            }
        }
    }

    /// The container has ended: takes what is left in its pipes, and gives clients a moment to take what is theirs.
    pub(crate) fn finish(&mut self) {
        const MOMENT: Duration = Duration::from_secs(1);
        let until = Instant::now() + MOMENT;
        loop {
            let held_up = self.clients.iter().any(Client::has_pending) && Instant::now() < until;
            if held_up {
                self.wait_for_clients(until);
                continue;
            }
            let mut more = false;
            for at in 0..self.outputs.len() {
                more |= self.read_output(at);
            }
            if !more && (!self.clients.iter().any(Client::has_pending) || Instant::now() >= until) {
                break;
            }
        }
        for output in &mut self.outputs {
            if let Some(log) = &mut self.log {
                output.lines.finish(output.name, now_nanos(), log);
            }
            output.file = None;
        }
        self.clients.clear();
    }

    fn wait_for_clients(&mut self, until: Instant) {
        let mut wanted = Vec::new();
        self.wanted(&mut wanted);
        let timeout = rustix::event::Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
        let mut fds: Vec<_> = wanted.iter().map(|(_, fd, flags)| rustix::event::PollFd::new(fd, *flags)).collect();
        let _ = rustix::event::poll(&mut fds, timeout.as_ref());
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        let ready: Vec<_> = wanted
            .iter()
            .zip(&fds)
            .filter(|((source, ..), fd)| matches!(source, Source::ClientOutput(..)) && !fd.revents().is_empty())
            .map(|((source, ..), fd)| (*source, fd.revents().intersects(gone)))
            .collect();
        for (source, was_error) in ready {
            self.serve(source, was_error);
        }
    }
}

/// Writes what a client's streams take now.
fn flush(client: &mut Client) {
    let mut has_moved = false;
    for (file, pending) in client.outputs.iter_mut().zip(&mut client.pending) {
        while !pending.is_empty() {
            let Some(stream) = file else {
                pending.clear();
                break;
            };
            match stream.write(pending) {
                Ok(count) => {
                    pending.drain(..count);
                    has_moved = true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => *file = None,
            }
        }
        if pending.is_empty() {
            *pending = Vec::new();
        }
    }
    client.stuck_since = match (client.has_pending(), client.stuck_since) {
        (false, _) => None,
        (true, Some(since)) if !has_moved => Some(since),
        (true, _) => Some(Instant::now()),
    };
}
