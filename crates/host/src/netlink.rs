//! Netlink as far as pods' networks need it: messages that are built here, acknowledgements that are read here.
//!
//! Attributes are nested and aligned as the kernel wants them; what is in them is the caller's.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// A datagram that is read at once; the kernel's are not longer.
const DATAGRAM_MAX: usize = 64 * 1024;
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes.
    Route,
    /// Rules of nftables.
    Netfilter,
}

/// A connection to the kernel; it belongs to the network namespace of the thread that opened it, wherever it is used.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// One message under construction: its type, flags beyond request and acknowledgement, then its body.
#[derive(Clone, Debug)]
pub struct Message {
    kind: u16,
    flags: u16,
    has_ack: bool,
    body: Vec<u8>,
}

impl Message {
    /// With a fixed part, e.g. `struct ifinfomsg`.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut message = Self { kind, flags, has_ack: true, body: fixed.to_vec() };
        message.align();
        message
    }

    /// One that the kernel does not acknowledge: the ends of a batch.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.has_ack = false;
        self
    }

    fn align(&mut self) {
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.body, kind, value);
        self
    }

    /// Adds a text with its final zero.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    /// Adds a number in the machine's order.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute that holds attributes.
    #[must_use]
    pub fn nest(self, kind: u16, inside: Attributes) -> Self {
        self.with(kind | NESTED, &inside.0)
    }
}

/// Attributes that go into another one.
#[derive(Clone, Debug, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.0, kind, value);
        self
    }

    /// Adds a text with its final zero.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    /// Adds a number in network order, as nftables has it.
    #[must_use]
    pub fn big(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that holds attributes.
    #[must_use]
    pub fn nest(self, kind: u16, inside: Self) -> Self {
        self.with(kind | NESTED, &inside.0)
    }

    /// Adds bytes in front of what follows, e.g. the fixed part of a nested message.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

fn put(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Attributes here are small: a longer one than the field can say is a fault of ours, and the kernel refuses it.
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    into.extend_from_slice(&length.to_ne_bytes());
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

impl Netlink {
    /// Opens a connection in the calling thread's network namespace.
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol: Option<Protocol> = match family {
            Family::Route => None,
            Family::Netfilter => Some(rustix::net::netlink::NETFILTER),
        };
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1 << 20)?;
        // Without them, refusals are numbers only.
        let _ = explain_refusals(&socket);
        Ok(Self { socket, sequence: 1 })
    }

    /// Sends one message and waits for the kernel's word.
    pub fn ask(&mut self, message: Message) -> io::Result<()> {
        self.ask_all(&[message])
    }

    /// Sends messages in one datagram and waits for all acknowledgements. The first refusal is the error.
    pub fn ask_all(&mut self, messages: &[Message]) -> io::Result<()> {
        let first = self.sequence;
        let mut bytes = Vec::new();
        let mut awaited = Vec::new();
        for message in messages {
            let ack = if message.has_ack { NLM_F_ACK } else { 0 };
            let sequence = self.put(&mut bytes, message, ack)?;
            if message.has_ack {
                awaited.push(sequence);
            }
        }
        self.send(&bytes)?;
        let mut refusal = None;
        while !awaited.is_empty() {
            let datagram = self.receive()?;
            for (kind, sequence, body) in split(&datagram) {
                let is_ours = sequence.wrapping_sub(first) < u32::MAX / 2;
                if kind == NLMSG_ERROR && is_ours {
                    awaited.retain(|one| *one != sequence);
                    if let Some(error) = answer(body).err() {
                        refusal.get_or_insert(error);
                        // A refused batch is not acknowledged message by message: what comes after may never come.
                        if messages.len() > 1 {
                            self.drain();
                            awaited.clear();
                        }
                    }
                }
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Asks for one thing; the answer's type and body go to `each`.
    pub fn fetch(&mut self, message: &Message, each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.read_answers(message, NLM_F_ACK, each)
    }

    /// Asks for a list; each answer's type and body goes to `each`.
    pub fn list(&mut self, message: Message, each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        const NLM_F_DUMP: u16 = 0x300;
        self.read_answers(&message, NLM_F_DUMP, each)
    }

    fn read_answers(&mut self, message: &Message, flags: u16, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut bytes = Vec::new();
        let sequence = self.put(&mut bytes, message, flags)?;
        self.send(&bytes)?;
        loop {
            let datagram = self.receive()?;
            for (kind, number, body) in split(&datagram) {
                match kind {
                    _ if number != sequence => {}
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return answer(body),
                    kind => each(kind, body),
                }
            }
        }
    }

    /// Appends a message with its header; its number.
    fn put(&mut self, bytes: &mut Vec<u8>, message: &Message, flags: u16) -> io::Result<u32> {
        let sequence = self.sequence;
        let length = u32::try_from(HEADER + message.body.len()).map_err(io::Error::other)?;
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&message.kind.to_ne_bytes());
        bytes.extend_from_slice(&(message.flags | NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(&message.body);
        self.sequence = self.sequence.wrapping_add(1);
        Ok(sequence)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        const USUAL: usize = 128 * 1024;
        if bytes.len() > USUAL {
            rustix::net::sockopt::set_socket_send_buffer_size_force(&self.socket, bytes.len() * 2)?;
        }
        rustix::net::sendto(&self.socket, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; DATAGRAM_MAX];
        loop {
            match rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                Ok((length, _)) => {
                    bytes.truncate(length);
                    return Ok(bytes);
                }
            }
        }
    }

    fn drain(&self) {
        let mut bytes = vec![0; DATAGRAM_MAX];
        while rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT).is_ok() {}
    }
}

/// A refusal that the kernel explains.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}: {said}")]
struct Refusal {
    refusal: io::Error,
    said: String,
}

/// The kernel's number of a refusal.
pub fn errno(error: &io::Error) -> Option<i32> {
    let explained = || error.get_ref()?.downcast_ref::<Refusal>()?.refusal.raw_os_error();
    error.raw_os_error().or_else(explained)
}

/// What the kernel answers with a number and, if it likes, in words.
fn answer(body: &[u8]) -> io::Result<()> {
    /// Set by the kernel when attributes follow.
    const WORDS: u16 = 1;
    const HEADER_AFTER_CODE: usize = 4 + HEADER;
    let code = body.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 {
        return Ok(());
    }
    let refusal = io::Error::from_raw_os_error(code.saturating_neg());
    // The first attribute is the text; the request itself is repeated before it, unless the socket asked not to.
    let said = attributes(body, HEADER_AFTER_CODE).into_iter().find(|(kind, _)| *kind == WORDS);
    match said.and_then(|(_, text)| std::str::from_utf8(text).ok()) {
        Some(text) => {
            let text = text.trim_end_matches('\0');
            Err(io::Error::new(refusal.kind(), Refusal { refusal, said: text.to_owned() }))
        }
        None => Err(refusal),
    }
}

/// Asks for refusals with a text, and without a repetition of the request.
fn explain_refusals(socket: &OwnedFd) -> io::Result<()> {
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
        // SAFETY: the pointer is to an integer of that length, which outlives the call.
        let done =
            unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), length) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Type, sequence number and body of each message of a datagram.
fn split(mut bytes: &[u8]) -> Vec<(u16, u32, &[u8])> {
    let mut found = Vec::new();
    while let Some((head, _)) = bytes.split_at_checked(HEADER) {
        let number = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = usize::try_from(number(0)).unwrap_or(usize::MAX);
        if length < HEADER || length > bytes.len() {
            break;
        }
        found.push((u16::from_ne_bytes([head[4], head[5]]), number(8), &bytes[HEADER..length]));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

/// Type and value of each attribute after a fixed part.
pub fn attributes(body: &[u8], fixed: usize) -> Vec<(u16, &[u8])> {
    let mut rest = body.get(fixed.next_multiple_of(4)..).unwrap_or_default();
    let mut found = Vec::new();
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        if length < 4 || length > rest.len() {
            break;
        }
        found.push((u16::from_ne_bytes([rest[2], rest[3]]) & !NESTED, &rest[4..length]));
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_written_and_read_back() {
        let message = Message::new(16, 0, &[0; 16]).text(3, "lo").nest(18, Attributes::default().big(1, 7));
        let read = attributes(&message.body, 16);
        assert_eq!(read, [(3, &b"lo\0"[..]), (18, &[8, 0, 1, 0, 0, 0, 0, 7][..])]);
    }

    #[test]
    fn the_kernel_lists_its_links() {
        let mut netlink = Netlink::open(Family::Route).unwrap();
        let mut names = Vec::new();
        netlink
            .list(Message::new(18, 0, &[0; 16]), |_, body| {
                names.extend(attributes(body, 16).into_iter().filter(|a| a.0 == 3).map(|a| a.1.to_vec()));
            })
            .unwrap();
        assert!(names.contains(&b"lo\0".to_vec()), "{names:?}");
    }

    #[test]
    fn a_refusal_is_the_kernels() {
        let mut netlink = Netlink::open(Family::Route).unwrap();
        let missing = Message::new(17, 0, &[0; 16]).text(3, "no-such-link");
        assert!(netlink.ask(missing).is_err());
        // The kernel has words for this one, unless it is refused for the lack of rights already.
        let kind = Attributes::default().text(1, "no-such-kind");
        let error = netlink.ask(Message::new(16, 0x600, &[0; 16]).nest(18, kind)).unwrap_err();
        assert!(!rustix::process::geteuid().is_root() || error.to_string().contains(": "), "{error}");
        assert!(errno(&error).is_some());
    }
}
