//! Messages out of bytes, however they are cut.

use super::Role;

/// Bytes of a control frame (RFC 6455, section 5.5).
const CONTROL_MAX: usize = 125;
/// Bytes that are handed on at once: the copy that is unmasked.
const PART: usize = 16 * 1024;

/// Why bytes are not WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// An extension that was not agreed on.
    #[error("websocket: reserved bits are set")]
    Reserved,
    /// An unknown kind of frame.
    #[error("websocket: unknown opcode {0}")]
    Opcode(u8),
    /// A client that does not mask, or a server that does.
    #[error("websocket: frame has a mask where it must have none, or none where it must")]
    Mask,
    /// A control frame that is long or in parts.
    #[error("websocket: malformed control frame")]
    Control,
    /// A message begins within a message, or goes on without one.
    #[error("websocket: frames of messages are mixed up")]
    Fragment,
    /// A length of more than 63 bits.
    #[error("websocket: impossible length")]
    Length,
}

/// What a decoder finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A part of a message, text or bytes. Each message has at least one part, which may be empty.
    Part {
        /// The bytes, without mask.
        bytes: &'a [u8],
        /// The message begins with it.
        is_first: bool,
        /// The message ends with it.
        is_last: bool,
    },
    /// Asks for a pong with the same bytes.
    Ping(&'a [u8]),
    /// An answer.
    Pong,
    /// The peer is done.
    Close,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Message { is_first: bool, is_final: bool },
    Ping,
    Pong,
    Close,
}

#[derive(Debug)]
enum Expect {
    /// A head, of which this many bytes are needed.
    Head(usize),
    Payload {
        kind: Kind,
        left: u64,
        mask: [u8; 4],
        at: usize,
    },
}

/// Finds messages. Holds at most [`PART`] bytes. After an error it is of no more use.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    expect: Expect,
    head: Vec<u8>,
    part: Vec<u8>,
    is_in_message: bool,
    has_sent_first: bool,
}

impl Decoder {
    /// For the messages that `role` receives.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            expect: Expect::Head(2),
            head: Vec::new(),
            part: Vec::new(),
            is_in_message: false,
            has_sent_first: false,
        }
    }

    /// Takes bytes off `input` until something is found. `None`: all were taken, more are needed.
    ///
    /// # Errors
    /// The bytes are not WebSocket.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Event<'_>>, DecodeError> {
        loop {
            match self.expect {
                Expect::Head(needed) => {
                    let missing = needed.saturating_sub(self.head.len());
                    self.head.extend_from_slice(take(input, missing));
                    if self.head.len() < needed {
                        return Ok(None);
                    }
                    self.expect = self.head()?;
                    if !matches!(self.expect, Expect::Head(_)) {
                        self.head.clear();
                        self.part.clear();
                    }
                }
                Expect::Payload { kind: Kind::Message { is_first, is_final }, left, mask, at } => {
                    if left > 0 && input.is_empty() {
                        return Ok(None);
                    }
                    let max = usize::try_from(left).unwrap_or(PART).min(PART);
                    self.part.clear();
                    self.unmask(take(input, max), mask, at);
                    let (len, kind) = (self.part.len(), Kind::Message { is_first, is_final });
                    let left = left - len as u64;
                    self.expect = match left {
                        0 => Expect::Head(2),
                        left => Expect::Payload { kind, left, mask, at: at + len },
                    };
                    let is_first = is_first && !self.has_sent_first;
                    let is_last = is_final && left == 0;
                    self.has_sent_first = !is_last;
                    self.is_in_message = !is_last;
                    return Ok(Some(Event::Part { bytes: &self.part, is_first, is_last }));
                }
                Expect::Payload { kind, left, mask, at } => {
                    let missing = usize::try_from(left).unwrap_or(CONTROL_MAX);
                    let before = self.part.len();
                    self.unmask(take(input, missing), mask, at);
                    let len = self.part.len() - before;
                    let left = left - len as u64;
                    if left > 0 {
                        self.expect = Expect::Payload { kind, left, mask, at: at + len };
                        return Ok(None);
                    }
                    self.expect = Expect::Head(2);
                    return Ok(Some(match kind {
                        Kind::Ping => Event::Ping(&self.part),
                        Kind::Pong => Event::Pong,
                        Kind::Close | Kind::Message { .. } => Event::Close,
                    }));
                }
            }
        }
    }

    fn unmask(&mut self, bytes: &[u8], mask: [u8; 4], at: usize) {
        self.part.extend(bytes.iter().enumerate().map(|(index, byte)| byte ^ mask[(at + index) % 4]));
    }

    /// Reads as much of the head as is there, and says what is expected next.
    fn head(&mut self) -> Result<Expect, DecodeError> {
        let (first, second) = (self.head[0], self.head[1]);
        if first & 0x70 != 0 {
            return Err(DecodeError::Reserved);
        }
        let is_masked = second & 0x80 != 0;
        if is_masked != (self.role == Role::Server) {
            return Err(DecodeError::Mask);
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let needed = 2 + extended + if is_masked { 4 } else { 0 };
        if self.head.len() < needed {
            return Ok(Expect::Head(needed));
        }
        let left = match extended {
            0 => u64::from(second & 0x7f),
            _ => self.head[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if left > u64::MAX / 2 {
            return Err(DecodeError::Length);
        }
        let mut mask = [0; 4];
        if is_masked {
            mask.copy_from_slice(&self.head[2 + extended..needed]);
        }
        let kind = self.kind(first, left)?;
        Ok(Expect::Payload { kind, left, mask, at: 0 })
    }

    fn kind(&mut self, first: u8, len: u64) -> Result<Kind, DecodeError> {
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
        if opcode >= 8 && (!is_final || len > CONTROL_MAX as u64) {
            return Err(DecodeError::Control);
        }
        match opcode {
            0 if !self.is_in_message => Err(DecodeError::Fragment),
            0 => Ok(Kind::Message { is_first: false, is_final }),
            1 | 2 if self.is_in_message => Err(DecodeError::Fragment),
            1 | 2 => {
                self.has_sent_first = false;
                Ok(Kind::Message { is_first: true, is_final })
            }
            8 => Ok(Kind::Close),
            9 => Ok(Kind::Ping),
            10 => Ok(Kind::Pong),
            unknown => Err(DecodeError::Opcode(unknown)),
        }
    }
}

fn take<'a>(input: &mut &'a [u8], max: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(max.min(input.len()));
    *input = rest;
    taken
}
