//! The protocol between a shim and its clients: one JSON document per datagram of a `SOCK_SEQPACKET` socket, descriptors beside it.
//!
//! A client asks, the shim answers each request once; `Wait` is answered when the container ends, and a connection that asked for
//! `Exec` is that process's from then on. A shim lives longer than its agent's version: messages may get more fields, with defaults, and
//! more kinds; none is changed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest message; longer ones are refused by the sender.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Most descriptors in a message.
const DESCRIPTORS_MAX: usize = 4;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Answered by `State`.
    State,
    /// Lets the created program run. Answered by `Done`.
    Start,
    /// Sends a signal, to the first process or to all of the container. Answered by `Done`, also when nobody is left.
    /// On the connection of an exec, it is for that process.
    Kill { signal: i32, all: bool },
    /// Sets the size of the container's terminal. Answered by `Done`.
    Resize { columns: u16, rows: u16 },
    /// Opens the log file anew, after it was renamed. Answered by `Done`.
    ReopenLog,
    /// Closes the container's standard input. Answered by `Done`.
    CloseStdin,
    /// Streams: descriptors follow in the order stdin, stdout, stderr, of those that are true. Answered by `Done`; the shim closes
    /// them when the container ends.
    Attach { stdin: bool, stdout: bool, stderr: bool },
    /// Runs another program in the container. Without a terminal three descriptors come along, its standard streams. Answered by
    /// `Running` (with a terminal, its master comes along), later by `Exit` on the same connection. When the client goes, the process is killed.
    Exec(Exec),
    /// Answered by `Exit`, when the container has ended and its output is written.
    Wait,
}

/// A program to run in a running container. What is not said is as in the container's first process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    pub args: Vec<String>,
    pub terminal: bool,
    /// Columns and rows of the terminal at its start.
    pub size: Option<(u16, u16)>,
    /// More variables, `NAME=value`.
    pub env: Vec<String>,
}

/// What the shim answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Done,
    /// It was not done, and why.
    Refused(String),
    State(State),
    /// The exec'd process, by its pid on the host.
    Running {
        pid: u32,
    },
    Exit(Exit),
}

/// How far the container is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct State {
    /// The first process, by its pid on the host.
    pub pid: u32,
    pub phase: Phase,
    /// Lines of output that could not be written to the log.
    pub log_lines_lost: u64,
}

/// Where in its life the container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Created,
    Running { started_at_nanos: i64 },
    Ended(Exit),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code; 128 + signal when a signal ended it.
    pub code: i32,
    pub signal: Option<i32>,
    /// When it was started, since 1970; `None` when it never was.
    pub started_at_nanos: Option<i64>,
    pub finished_at_nanos: i64,
    /// How many processes of its memory cgroup the kernel killed for memory.
    pub oom_kills: u64,
}

/// Sends a message and descriptors.
pub fn send(socket: impl AsFd, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > MESSAGE_BYTES_MAX {
        return Err(io::Error::other(format!("message of {} bytes, at most {MESSAGE_BYTES_MAX}", text.len())));
    }
    send_bytes(socket, &text, descriptors)
}

pub(crate) fn send_bytes(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(drop).map_err(Into::into),
        }
    }
}

/// Receives a message and its descriptors; `None` when the other side is gone.
pub fn receive<M: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let (bytes, descriptors) = receive_bytes(socket)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes)?, descriptors)))
}

pub(crate) fn receive_bytes(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    bytes.truncate(got.bytes);
    Ok((bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_whole() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&a, &Request::Kill { signal: 9, all: true }, &[]).unwrap();
        send(&a, &Request::Attach { stdin: false, stdout: true, stderr: false }, &[writer.as_fd()]).unwrap();
        drop(writer);
        drop(a);
        let (first, none): (Request, _) = receive(&b).unwrap().unwrap();
        assert_eq!((first, none.len()), (Request::Kill { signal: 9, all: true }, 0));
        let (_, mut descriptors): (Request, _) = receive(&b).unwrap().unwrap();
        std::fs::File::from(descriptors.remove(0)).write_all(b"hello").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(receive::<Request>(&b).unwrap().is_none());
    }

    #[test]
    fn a_message_that_is_too_long_is_refused() {
        let (a, _b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let long = Exec { args: vec!["x".repeat(MESSAGE_BYTES_MAX)], ..Exec::default() };
        assert!(send(&a, &Request::Exec(long), &[]).unwrap_err().to_string().contains("at most 131072"));
    }
}
