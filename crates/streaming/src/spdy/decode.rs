//! Frames out of bytes, however they are cut.

use super::frame::{
    FLAG_FIN, FLAG_UNIDIRECTIONAL, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, SYN_REPLY, SYN_STREAM, VERSION,
    WINDOW_UPDATE,
};
use super::headers::Unpacker;
use super::{Frame, Headers, StreamId};

/// Bytes of a control frame. Frames with data have no bound: they are handed on as they come.
const CONTROL_MAX: usize = 64 * 1024;
const HEAD: usize = 8;
const ID_MASK: u32 = 0x7fff_ffff;

/// Why bytes are not SPDY, or too much of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another version than 3.
    #[error("spdy: version {0}, not 3")]
    Version(u16),
    /// A control frame is too long.
    #[error("spdy: control frame of {0} bytes is longer than {CONTROL_MAX}")]
    TooLong(usize),
    /// A control frame has the wrong length for its type.
    #[error("spdy: frame of type {0} has the wrong length")]
    Length(u16),
    /// Stream 0 does not exist.
    #[error("spdy: frame of type {0} names stream 0")]
    NoStream(u16),
    /// The packed headers are no zlib stream.
    #[error("spdy: headers cannot be unpacked")]
    BadCompression,
    /// The headers are too long once they are unpacked.
    #[error("spdy: headers are longer than 65536 bytes")]
    HeadersTooLong,
    /// Too many headers.
    #[error("spdy: {0} headers are too many")]
    TooManyHeaders(u32),
    /// The block of headers does not add up.
    #[error("spdy: headers are malformed")]
    BadHeaders,
}

/// What a decoder finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A control frame.
    Frame(Frame),
    /// A part of a data frame.
    Data {
        /// The stream.
        id: StreamId,
        /// The part.
        bytes: &'a [u8],
        /// It is the last of the stream.
        is_fin: bool,
    },
}

#[derive(Debug)]
enum Expect {
    Head,
    Control { kind: u16, flags: u8, len: usize },
    Data { id: StreamId, is_fin: bool, left: usize },
    Skipped { left: usize },
}

/// Finds frames. Holds at most one control frame. After an error it is of no more use.
#[derive(Debug)]
pub struct Decoder {
    expect: Expect,
    held: Vec<u8>,
    unpacker: Unpacker,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// For one direction of a connection.
    pub fn new() -> Self {
        Self { expect: Expect::Head, held: Vec::new(), unpacker: Unpacker::new() }
    }

    /// Takes bytes off `input` until something is found. `None`: all were taken, more are needed.
    ///
    /// # Errors
    /// The bytes are not SPDY/3, or a bound is exceeded.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, DecodeError> {
        loop {
            match self.expect {
                Expect::Head => {
                    if !self.hold(HEAD, input) {
                        return Ok(None);
                    }
                    let end = self.head()?;
                    self.held.clear();
                    if end.is_some() {
                        return Ok(end);
                    }
                }
                Expect::Control { kind, flags, len } => {
                    if !self.hold(len, input) {
                        return Ok(None);
                    }
                    self.expect = Expect::Head;
                    let body = std::mem::take(&mut self.held);
                    if let Some(frame) = self.control(kind, flags, &body)? {
                        return Ok(Some(Event::Frame(frame)));
                    }
                }
                Expect::Data { id, is_fin, left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let bytes = take(input, left);
                    let left = left - bytes.len();
                    self.expect = if left == 0 { Expect::Head } else { Expect::Data { id, is_fin, left } };
                    return Ok(Some(Event::Data { id, bytes, is_fin: is_fin && left == 0 }));
                }
                Expect::Skipped { left } => {
                    let left = left - take(input, left).len();
                    if left > 0 {
                        self.expect = Expect::Skipped { left };
                        return Ok(None);
                    }
                    self.expect = Expect::Head;
                }
            }
        }
    }

    /// Takes bytes until `len` are held.
    fn hold(&mut self, len: usize, input: &mut &[u8]) -> bool {
        let missing = len.saturating_sub(self.held.len());
        self.held.extend_from_slice(take(input, missing));
        self.held.len() >= len
    }

    /// Reads the eight bytes before each frame. A frame with data but without bytes is an event already.
    fn head(&mut self) -> Result<Option<Event<'static>>, DecodeError> {
        let first = number(&self.held, 0);
        let second = number(&self.held, 4);
        let flags = (second >> 24) as u8;
        // 24 bits fit everywhere.
        let len = (second & 0x00ff_ffff) as usize;
        if first & !ID_MASK == 0 {
            if first == 0 {
                return Err(DecodeError::NoStream(0));
            }
            let is_fin = flags & FLAG_FIN != 0;
            if len == 0 {
                return Ok(Some(Event::Data { id: first, bytes: &[], is_fin }));
            }
            self.expect = Expect::Data { id: first, is_fin, left: len };
            return Ok(None);
        }
        let version = ((first >> 16) & 0x7fff) as u16;
        let kind = (first & 0xffff) as u16;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        self.expect = match kind {
            SYN_STREAM | SYN_REPLY | RST_STREAM | SETTINGS | PING | GOAWAY | HEADERS | WINDOW_UPDATE => {
                if len > CONTROL_MAX {
                    return Err(DecodeError::TooLong(len));
                }
                Expect::Control { kind, flags, len }
            }
            // The draft, section 2.2.1: frames of unknown type are ignored.
            _ => Expect::Skipped { left: len },
        };
        Ok(None)
    }

    fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> Result<Option<Frame>, DecodeError> {
        let fixed = match kind {
            SYN_STREAM => 10,
            SYN_REPLY | HEADERS | SETTINGS | PING => 4,
            RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
            _ => return Ok(None),
        };
        let may_be_longer = matches!(kind, SYN_STREAM | SYN_REPLY | HEADERS | SETTINGS);
        if body.len() < fixed || (body.len() > fixed && !may_be_longer) {
            return Err(DecodeError::Length(kind));
        }
        let id = number(body, 0) & ID_MASK;
        let is_fin = flags & FLAG_FIN != 0;
        if id == 0 && matches!(kind, SYN_STREAM | SYN_REPLY | HEADERS | RST_STREAM) {
            return Err(DecodeError::NoStream(kind));
        }
        Ok(Some(match kind {
            SYN_STREAM => Frame::SynStream {
                id,
                associated: number(body, 4) & ID_MASK,
                priority: body[8] >> 5,
                is_fin,
                is_unidirectional: flags & FLAG_UNIDIRECTIONAL != 0,
                headers: self.headers(&body[fixed..])?,
            },
            SYN_REPLY => Frame::SynReply { id, is_fin, headers: self.headers(&body[fixed..])? },
            HEADERS => Frame::Headers { id, is_fin, headers: self.headers(&body[fixed..])? },
            RST_STREAM => Frame::RstStream { id, status: number(body, 4) },
            SETTINGS => settings(body)?,
            PING => Frame::Ping { id: number(body, 0) },
            GOAWAY => Frame::GoAway { last_good: id, status: number(body, 4) },
            _ => Frame::WindowUpdate { id, delta: number(body, 4) & ID_MASK },
        }))
    }

    fn headers(&mut self, packed: &[u8]) -> Result<Headers, DecodeError> {
        Headers::parse(&self.unpacker.unpack(packed)?)
    }
}

fn settings(body: &[u8]) -> Result<Frame, DecodeError> {
    let (entries, rest) = body[4..].as_chunks::<8>();
    let count = usize::try_from(number(body, 0)).unwrap_or(usize::MAX);
    if !rest.is_empty() || entries.len() != count {
        return Err(DecodeError::Length(SETTINGS));
    }
    let entries = entries.iter().map(|entry| (entry[0], number(entry, 0) & 0x00ff_ffff, number(entry, 4))).collect();
    Ok(Frame::Settings { entries })
}

fn take<'a>(input: &mut &'a [u8], max: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(max.min(input.len()));
    *input = rest;
    taken
}

/// Four bytes at `at`. The caller has checked that they are there.
fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
