//! A bus with logind and systemd on it, as far as a node that goes down needs them.

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rubelet_host::dbus::logind::Places;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

#[derive(Default)]
struct State {
    delay_micros: u64,
    calls: Vec<String>,
    client: Option<UnixStream>,
    /// The other end of the last lock.
    lock: Option<std::io::PipeReader>,
}

pub(crate) struct Logind {
    state: Arc<Mutex<State>>,
    pub(crate) places: Places,
}

impl Logind {
    /// On a socket in `dir`; it waits five seconds unless it is configured otherwise.
    pub(crate) fn on(dir: &Path) -> Self {
        let places = Places { bus: dir.join("bus"), conf_dir: dir.join("logind.conf.d") };
        let listener = UnixListener::bind(&places.bus).expect("a socket");
        let state = Arc::new(Mutex::new(State { delay_micros: 5_000_000, ..State::default() }));
        let (own, conf) = (state.clone(), places.conf_dir.join("99-kubelet.conf"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (own, conf) = (own.clone(), conf.clone());
                std::thread::spawn(move || serve(stream, &own, &conf));
            }
        });
        Self { state, places }
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().expect("whole").calls.clone()
    }

    /// The machine goes down, or it does not after all.
    pub(crate) fn prepare(&self, does: bool) {
        let state = self.state.lock().expect("whole");
        let signal = message(4, None, Some("PrepareForShutdown"), "b", &u32::from(does).to_le_bytes());
        state.client.as_ref().expect("somebody listens").write_all(&signal).expect("sent");
    }

    /// Whether the machine has to wait.
    pub(crate) fn is_held(&self) -> bool {
        let state = self.state.lock().expect("whole");
        let Some(lock) = &state.lock else { return false };
        let mut fds = [rustix::event::PollFd::new(lock, rustix::event::PollFlags::empty())];
        // The other end is gone: a hang-up.
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).expect("polled") == 0
    }
}

fn serve(mut stream: UnixStream, state: &Mutex<State>, conf: &PathBuf) {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        line.push(byte[0]);
        if !line.ends_with(b"\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        if text.contains("AUTH") {
            stream.write_all(b"OK 0123\r\n").expect("sent");
        } else if text.starts_with("NEGOTIATE_UNIX_FD") {
            stream.write_all(b"AGREE_UNIX_FD\r\n").expect("sent");
        } else if text.starts_with("BEGIN") {
            break;
        }
    }
    while let Some((serial, member, body)) = read(&mut stream) {
        answer(&stream, state, conf, serial, &member, &body);
    }
}

fn answer(mut stream: &UnixStream, state: &Mutex<State>, conf: &PathBuf, serial: u32, member: &str, body: &[u8]) {
    let mut state = state.lock().expect("whole");
    let words: Vec<String> = body.split(|b| *b < b' ').map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    let words: Vec<String> = words.into_iter().filter(|w| w.len() > 1).collect();
    state.calls.push(format!("{member} {}", words.join(" ")));
    let reply = |signature: &str, body: &[u8]| message(2, Some(serial), None, signature, body);
    match member {
        "Hello" => stream.write_all(&reply("s", b"\x04\0\0\0:1.1\0")).expect("sent"),
        "Get" => {
            let body = [b"\x01t\0\0\0\0\0\0".as_slice(), &state.delay_micros.to_le_bytes()].concat();
            stream.write_all(&reply("v", &body)).expect("sent");
        }
        "KillUnit" => {
            let text = std::fs::read_to_string(conf).expect("it was written before");
            let secs = text.lines().find_map(|l| l.strip_prefix("InhibitDelayMaxSec=")).expect("the value");
            state.delay_micros = secs.parse::<u64>().expect("a number") * 1_000_000;
            stream.write_all(&reply("", b"")).expect("sent");
        }
        "Inhibit" => {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            send_fd(stream, &reply("h", &0_u32.to_le_bytes()), writer.into());
            state.lock = Some(reader);
        }
        "AddMatch" => {
            stream.write_all(&reply("", b"")).expect("sent");
            state.client = Some(stream.try_clone().expect("cloned"));
        }
        other => panic!("{other} is not expected"),
    }
}

fn send_fd(stream: &UnixStream, bytes: &[u8], fd: OwnedFd) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty());
    assert_eq!(sent.expect("sent"), bytes.len());
}

/// Serial, member and body of the next call.
fn read(stream: &mut UnixStream) -> Option<(u32, String, Vec<u8>)> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).ok()?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (body, serial, fields) = (number(4) as usize, number(8), number(12) as usize);
    let mut rest = vec![0; fields.next_multiple_of(8) + body];
    stream.read_exact(&mut rest).ok()?;
    // A field is code, type, text; each begins at a multiple of eight.
    let mut at = 0;
    let mut member = String::new();
    while at < fields {
        let (code, kind) = (rest[at], rest[at + 2]);
        let (start, length) = if kind == b'g' {
            (at + 5, rest[at + 4] as usize)
        } else {
            (at + 8, u32::from_le_bytes(rest[at + 4..at + 8].try_into().ok()?) as usize)
        };
        if code == 3 {
            member = String::from_utf8_lossy(&rest[start..start + length]).into_owned();
        }
        at = (start + length + 1).next_multiple_of(8);
    }
    Some((serial, member, rest.split_off(fields.next_multiple_of(8))))
}

fn message(kind: u8, reply_to: Option<u32>, member: Option<&str>, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut fields: Vec<u8> = Vec::new();
    let text = |fields: &mut Vec<u8>, code: u8, kind: u8, text: &str| {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend([code, 1, kind, 0]);
        if kind == b'g' {
            fields.push(u8::try_from(text.len()).expect("short"));
        } else {
            fields.extend(u32::try_from(text.len()).expect("short").to_le_bytes());
        }
        fields.extend(text.as_bytes());
        fields.push(0);
    };
    if let Some(serial) = reply_to {
        fields.extend([5, 1, b'u', 0]);
        fields.extend(serial.to_le_bytes());
    }
    if let Some(member) = member {
        text(&mut fields, 1, b'o', "/org/freedesktop/login1");
        text(&mut fields, 2, b's', "org.freedesktop.login1.Manager");
        text(&mut fields, 3, b's', member);
    }
    if !signature.is_empty() {
        text(&mut fields, 8, b'g', signature);
    }
    let mut bytes = vec![b'l', kind, 0, 1];
    bytes.extend(u32::try_from(body.len()).expect("short").to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(u32::try_from(fields.len()).expect("short").to_le_bytes());
    bytes.extend(&fields);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body);
    bytes
}
