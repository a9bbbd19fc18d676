//! What the streams of a [`Server`](crate::Server) end in.

use std::fmt::Debug;
use std::pin::Pin;

use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::mux::{HangUp, Reader, Stream, Writer};

/// The most bytes of one terminal size; it has about 30.
const SIZE_MAX: usize = 1024;

/// An answer that takes its time.
pub type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why something could not be done; its text goes to the client.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A command for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The container.
    pub container: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// It gets a terminal, whose output is stdout.
    pub is_tty: bool,
}

/// A running container runtime, seen from its streams.
///
/// All three run until the process or the connection into the pod is done. A client that leaves shows as the end of what is read, as
/// errors of what is written, and in [`Streams::hang_up`]; it does not stop them.
pub trait Containers: Send + Sync + 'static {
    /// Runs a command; the answer is its exit code.
    fn exec(&self, command: Command, streams: Streams) -> Answer<Result<i32, Failure>>;

    /// Joins the streams of a container's main process.
    fn attach(&self, container: String, is_tty: bool, streams: Streams) -> Answer<Result<(), Failure>>;

    /// Joins a stream with a port in the sandbox.
    fn port_forward(&self, sandbox: String, port: u16, stream: Stream) -> Answer<Result<(), Failure>>;
}

/// A client's side of a process. What it did not ask for is absent.
#[derive(Debug)]
pub struct Streams {
    /// What the process reads.
    pub stdin: Option<Reader>,
    /// What it writes.
    pub stdout: Option<Writer>,
    /// What it writes about failures.
    pub stderr: Option<Writer>,
    /// Sizes of the client's terminal.
    pub resizes: Resizes,
    /// The client is gone.
    pub hang_up: HangUp,
}

/// A terminal's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// In characters.
    pub width: u16,
    /// In characters.
    pub height: u16,
}

/// The sizes that a client's terminal takes on.
#[derive(Debug)]
pub struct Resizes {
    stream: Option<Reader>,
    held: Vec<u8>,
}

impl Resizes {
    pub(crate) fn new(stream: Option<Reader>) -> Self {
        Self { stream, held: Vec::new() }
    }

    /// The sizes as they come.
    pub(crate) fn into_stream(self) -> Option<Reader> {
        self.stream
    }

    /// The next size. `None`: no more will come. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        loop {
            match first_size(&self.held) {
                Parsed::Size(size, used) => {
                    self.held.drain(..used);
                    return Some(size);
                }
                Parsed::Broken => self.stream = None,
                Parsed::Cut => {}
            }
            let stream = self.stream.as_mut()?;
            let mut buffer = [0; SIZE_MAX];
            let len = stream.read(&mut buffer).await.unwrap_or(0);
            if len == 0 || self.held.len() + len > 2 * SIZE_MAX {
                self.stream = None;
                self.held.clear();
                return None;
            }
            self.held.extend_from_slice(&buffer[..len]);
        }
    }
}

enum Parsed {
    Size(TerminalSize, usize),
    Cut,
    Broken,
}

/// Reads one of the JSON objects that follow each other. kubelet 1.36: names in any case, what is missing is 0.
fn first_size(held: &[u8]) -> Parsed {
    let mut values = serde_json::Deserializer::from_slice(held).into_iter::<Value>();
    match values.next() {
        None => Parsed::Cut,
        Some(Err(error)) if error.is_eof() && held.len() <= SIZE_MAX => Parsed::Cut,
        Some(Err(_)) => Parsed::Broken,
        Some(Ok(Value::Object(fields))) => {
            let number = |name: &str| match fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                None => Some(0),
                Some((_, value)) => value.as_u64().and_then(|number| u16::try_from(number).ok()),
            };
            match (number("Width"), number("Height")) {
                (Some(width), Some(height)) => Parsed::Size(TerminalSize { width, height }, values.byte_offset()),
                (_, _) => Parsed::Broken,
            }
        }
        Some(Ok(_)) => Parsed::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_one_by_one() {
        let cases = [
            (r#"{"Width":80,"Height":24}{"Width":1"#, Some((80, 24, 24))),
            ("{\"Width\":80,\"Height\":24}\n", Some((80, 24, 24))),
            (r#"{"width":80,"height":24,"more":[1]}"#, Some((80, 24, 35))),
            (r#"{"Height":24}"#, Some((0, 24, 13))),
            (r#"{"Width":70000,"Height":24}"#, None),
            ("[1]", None),
            (r#"{"Width":8"#, None),
        ];
        for (text, expected) in cases {
            let found = match first_size(text.as_bytes()) {
                Parsed::Size(size, used) => Some((size.width, size.height, used)),
                Parsed::Cut | Parsed::Broken => None,
            };
            assert_eq!(found, expected, "{text}");
        }
        assert!(matches!(first_size(br#"{"Width":8"#), Parsed::Cut));
        assert!(matches!(first_size(b"  "), Parsed::Cut));
        assert!(matches!(first_size(b"}"), Parsed::Broken));
    }
}
