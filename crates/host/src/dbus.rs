//! The little of D-Bus that systemd needs: method calls with few types, replies, one signal. Blocking, bounded, one
//! connection per use.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub mod logind;
mod wire;

#[cfg(test)]
mod tests;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use wire::{Call, Kind, Message};
pub(crate) use wire::{Property, Value};

/// Largest message that is read.
const MESSAGE_MAX: usize = 1 << 20;
/// Signals kept while another message is awaited.
const SIGNALS_MAX: usize = 256;

/// Descriptors kept that came with messages.
const FDS_MAX: usize = 4;

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// systemd's own socket: no bus between, root only.
const SYSTEMD_PRIVATE: &str = "/run/systemd/private";

/// Why an exchange over D-Bus failed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("connect to {path}")]
    Connect { path: String, source: io::Error },
    #[error("the bus refused authentication: {answer}")]
    Auth { answer: String },
    #[error("talk to the bus")]
    Io(#[from] io::Error),
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    #[error("{name}: {message}")]
    Refused { name: String, message: String },
    #[error("the job ended with {result:?}")]
    Job { result: String },
}

/// A connection to the system bus or to systemd itself.
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// No bus daemon between: no `Hello`, no match rules.
    is_direct: bool,
    patience: Duration,
    signals: VecDeque<Message>,
    /// Descriptors that came with the last messages.
    fds: VecDeque<OwnedFd>,
}

impl Bus {
    /// The system bus; where there is none, systemd's private socket. `patience` bounds every wait for a message.
    pub(crate) fn connect_system(patience: Duration) -> Result<Self, BusError> {
        Self::connect(Path::new(SYSTEM_BUS), false, patience)
            .or_else(|error| Self::connect(Path::new(SYSTEMD_PRIVATE), true, patience).map_err(|_| error))
    }

    fn connect(path: &Path, is_direct: bool, patience: Duration) -> Result<Self, BusError> {
        let stream = UnixStream::connect(path)
            .map_err(|source| BusError::Connect { path: path.display().to_string(), source })?;
        Self::on(stream, is_direct, patience)
    }

    fn on(stream: UnixStream, is_direct: bool, patience: Duration) -> Result<Self, BusError> {
        stream.set_write_timeout(Some(patience))?;
        stream.set_read_timeout(Some(patience))?;
        let mut bus = Self { stream, serial: 0, is_direct, patience, signals: VecDeque::new(), fds: VecDeque::new() };
        bus.authenticate()?;
        if !is_direct {
            bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", &[])?;
        }
        Ok(bus)
    }

    /// To wait for a message.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The descriptor that came with the last answer.
    pub(crate) fn take_fd(&mut self) -> Result<OwnedFd, BusError> {
        self.fds.pop_back().ok_or(BusError::Malformed("no descriptor came with the answer"))
    }

    /// A signal of this name that came already.
    pub(crate) fn queued(&mut self, member: &str) -> Option<Message> {
        let nth = self.signals.iter().position(|m| m.member.as_deref() == Some(member))?;
        self.signals.remove(nth)
    }

    /// Reads one message, which has begun to come; a signal is kept.
    pub(crate) fn read_one(&mut self) -> Result<(), BusError> {
        let message = self.read(Instant::now() + self.patience)?;
        if message.kind == Kind::Signal {
            self.keep(message);
        }
        Ok(())
    }

    fn authenticate(&mut self) -> Result<(), BusError> {
        let uid: String = rustix::process::geteuid().as_raw().to_string().bytes().map(|b| format!("{b:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        self.expect("OK ")?;
        self.stream.write_all(b"NEGOTIATE_UNIX_FD\r\n")?;
        self.expect("AGREE_UNIX_FD")?;
        self.stream.write_all(b"BEGIN\r\n")?;
        Ok(())
    }

    /// A line of the conversation before the first message.
    fn expect(&mut self, start: &str) -> Result<(), BusError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 512 {
                return Err(BusError::Malformed("authentication line too long"));
            }
        }
        if line.starts_with(start.as_bytes()) {
            return Ok(());
        }
        Err(BusError::Auth { answer: String::from_utf8_lossy(&line).trim().to_owned() })
    }

    /// Calls a method and waits for its answer; an error reply is [`BusError::Refused`].
    pub(crate) fn call(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: &[Value],
    ) -> Result<Message, BusError> {
        self.serial += 1;
        let serial = self.serial;
        let destination = (!self.is_direct).then_some(destination);
        self.stream.write_all(&Call { destination, path, interface, member, body }.encode(serial))?;
        let deadline = Instant::now() + self.patience;
        loop {
            let message = self.read(deadline)?;
            match message.kind {
                Kind::Signal => self.keep(message),
                Kind::Return if message.reply_serial == Some(serial) => return Ok(message),
                Kind::Error if message.reply_serial == Some(serial) => {
                    let text = message.first_text().unwrap_or_default();
                    return Err(BusError::Refused { name: message.error_name.unwrap_or_default(), message: text });
                }
                Kind::Return | Kind::Error | Kind::Call => {}
            }
        }
    }

    /// Asks for signals of this interface and name.
    pub(crate) fn watch_signal(&mut self, interface: &str, member: &str) -> Result<(), BusError> {
        if self.is_direct {
            return Ok(());
        }
        let rule = format!("type='signal',interface='{interface}',member='{member}'");
        let bus = "org.freedesktop.DBus";
        self.call(bus, "/org/freedesktop/DBus", bus, "AddMatch", &[Value::Str(rule)]).map(drop)
    }

    /// The first signal of this name that `is_wanted`, one that came earlier included.
    pub(crate) fn wait_signal(
        &mut self,
        member: &str,
        is_wanted: impl Fn(&Message) -> bool,
    ) -> Result<Message, BusError> {
        let deadline = Instant::now() + self.patience;
        loop {
            while let Some(message) = self.signals.pop_front() {
                if message.member.as_deref() == Some(member) && is_wanted(&message) {
                    return Ok(message);
                }
            }
            let message = self.read(deadline)?;
            if message.kind == Kind::Signal {
                self.keep(message);
            }
        }
    }

    fn keep(&mut self, signal: Message) {
        if self.signals.len() == SIGNALS_MAX {
            self.signals.pop_front();
        }
        self.signals.push_back(signal);
    }

    fn read(&mut self, deadline: Instant) -> Result<Message, BusError> {
        let mut head = [0; 16];
        self.read_exact(&mut head, deadline)?;
        let rest = wire::length_after_head(&head, MESSAGE_MAX)?;
        let mut bytes = head.to_vec();
        bytes.resize(16 + rest, 0);
        self.read_exact(&mut bytes[16..], deadline)?;
        Message::decode(&bytes)
    }

    fn read_exact(&mut self, mut buffer: &mut [u8], deadline: Instant) -> Result<(), BusError> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.receive(buffer) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => buffer = &mut buffer[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
        Ok(())
    }

    /// Bytes, and the descriptors that come with them; of those only the last few are kept.
    fn receive(&mut self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(&self.stream, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        while self.fds.len() > FDS_MAX {
            self.fds.pop_front();
        }
        Ok(got.bytes)
    }
}
